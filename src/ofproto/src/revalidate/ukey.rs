//! [`Ukey`]: what user space keeps about one megaflow of one thread, and the states it goes through.
//!
//! Neighbours: `table` holds them, `sweep` decides about them. Threads: under the lock of a shard of the table.

use crate::xlate::{push_credits, Credit, CreditStats, XlateCache};
use datapath::SharedFlow;
use infra::vlog::{Module, RateLimit};
use infra::vlog_rl;
use std::panic::Location;
use std::sync::Arc;

static LOG: Module = Module::new("ofproto_dpif_upcall");
static LIMIT: RateLimit = RateLimit::new(60, 5);

/// Where a ukey is in its life. It only goes forward, and may leave states out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UkeyState {
    /// Made, and known to nobody.
    Created,
    /// In the table.
    Visible,
    /// Its flow is installed in the datapath.
    Operational,
    /// The removal of the flow was asked for.
    Evicting,
    /// The flow is gone from the datapath; its counters are final.
    Evicted,
    /// Out of the table.
    Deleted,
}

/// See the module's header. Identity, time of creation and the version of the tables with which it was last
/// translated are those of its [`SharedFlow`], where the owner of the flow needs them too.
pub struct Ukey {
    flow: Arc<SharedFlow>,
    /// Counters that have been pushed.
    packets: u64,
    bytes: u64,
    /// Packets as of the last [`Ukey::news`].
    told: u64,
    /// Translation cache: who is credited.
    credits: Box<[Credit]>,
    /// The last dump that has seen it.
    dump_seq: u64,
    /// Where the state was set.
    site: &'static Location<'static>,
    state: UkeyState,
}

impl Ukey {
    /// The ukey of a flow, whose translation cache moves here.
    #[track_caller]
    pub fn new(flow: Arc<SharedFlow>) -> Ukey {
        let cache = flow.take_ctx().and_then(|c| c.downcast::<XlateCache>().ok()).unwrap_or_default();
        Ukey {
            flow,
            packets: 0,
            bytes: 0,
            told: 0,
            credits: cache.credits.into_boxed_slice(),
            dump_seq: 0,
            site: Location::caller(),
            state: UkeyState::Created,
        }
    }

    /// Its flow.
    pub fn flow(&self) -> &Arc<SharedFlow> {
        &self.flow
    }

    /// Its state.
    pub fn state(&self) -> UkeyState {
        self.state
    }

    /// Whether its flow is to stay, as far as is known.
    pub fn is_live(&self) -> bool {
        self.state < UkeyState::Evicting
    }

    /// Goes on to a later state. A step back, or on the spot, is refused and logged with both places.
    #[track_caller]
    pub fn transition(&mut self, to: UkeyState) -> bool {
        let here = Location::caller();
        if to <= self.state {
            vlog_rl!(
                LOG,
                LIMIT,
                Err,
                "ufid:{} cannot go from {:?} (set at {}) to {to:?} (at {here})",
                self.flow.ufid,
                self.state,
                self.site
            );
            return false;
        }
        self.state = to;
        self.site = here;
        true
    }

    /// Marks it as seen by a dump; false when it was already.
    pub fn see(&mut self, dump_seq: u64) -> bool {
        std::mem::replace(&mut self.dump_seq, dump_seq) != dump_seq
    }

    /// Packets pushed since the last call, whoever asked for it.
    pub fn news(&mut self) -> u64 {
        self.packets - std::mem::replace(&mut self.told, self.packets)
    }

    /// Pushes what is new in the flow's counters. True when a MAC entry changed.
    pub fn push(&mut self) -> bool {
        let now = self.flow.stats();
        let delta = CreditStats {
            packets: now.packets.saturating_sub(self.packets),
            bytes: now.bytes.saturating_sub(self.bytes),
            used_ms: now.used_ms,
        };
        if delta.packets == 0 {
            return false;
        }
        self.packets = now.packets;
        self.bytes = now.bytes;
        push_credits(&self.credits, delta, true)
    }

    /// Says who is credited from now on.
    pub fn set_credits(&mut self, credits: Vec<Credit>) {
        self.credits = credits.into_boxed_slice();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flow;
    use super::UkeyState::{Created, Deleted, Evicted, Evicting, Operational, Visible};
    use super::*;

    #[test]
    fn states_go_forward_only() {
        let all = [Created, Visible, Operational, Evicting, Evicted, Deleted];
        for from in all {
            for to in all {
                let mut k = Ukey::new(flow(1));
                assert!(from == Created || k.transition(from));
                assert_eq!(k.transition(to), to > from, "{from:?} to {to:?}");
                assert_eq!(k.state(), from.max(to));
            }
        }
    }

    #[test]
    fn a_refused_step_names_both_places() {
        let mut k = Ukey::new(flow(1));
        let first = line!() + 1;
        assert!(k.transition(Operational));
        assert!(!k.transition(Visible));
        assert_eq!((k.site.line(), k.site.file()), (first, file!()), "the place of the state that holds");
    }

    #[test]
    fn counters_are_pushed_once() {
        let f = flow(1);
        let mut k = Ukey::new(f.clone());
        f.credit(3, 180, 5, 0);
        assert!(!k.push() && !k.push());
        f.credit(2, 120, 6, 0);
        assert!(!k.push());
        assert_eq!((k.packets, k.bytes, k.news(), k.news()), (5, 300, 5, 0));
        assert!(k.see(1) && !k.see(1) && k.see(2));
    }
}

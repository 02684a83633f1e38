//! The shared flow table and its revalidation.
//!
//! Every megaflow of every poll-mode thread is announced here and gets a [`Ukey`] in the [`FlowTable`]. A sweep looks at
//! all of them: removes the idle ones, translates again what may have changed, pushes packet counts to rules, tables,
//! ports and MAC entries, and adapts the flow limit to its own duration. A sweep is a plain function of a time
//! ([`Revalidator::sweep`]), so that tests drive it without threads; `team` has several threads share the work.
//! Neighbours: `datapath` (events in, commands out), `upcall` (translation), `snapshot` (what changes). Threads:
//! revalidators sweep; main asks for sweeps, purges, lists, and pushes of counters.

mod sweep;
mod table;
mod team;
mod ukey;

pub use table::{FlowTable, BATCH, SHARDS};
pub use team::{Team, Threads};
pub use ukey::{Ukey, UkeyState};

use crate::self_check::Suspects;
use crate::snapshot::World;
use crate::upcall::Upcalls;
use crate::xlate::XlateOut;
use datapath::{FlowEvent, Provider, SharedFlow};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Never more than this many flows, unless configured (`flow-limit`).
pub const DEFAULT_FLOW_LIMIT: usize = 200_000;
/// `max-idle` unless configured, ms.
pub const DEFAULT_MAX_IDLE_MS: u64 = 10_000;
/// `max-revalidator` unless configured, ms.
pub const DEFAULT_MAX_REVALIDATOR_MS: u64 = 500;
/// `min-revalidate-pps` unless configured.
pub const DEFAULT_MIN_REVALIDATE_PPS: u64 = 5;
/// Most events taken at once, so that a flood of new flows does not keep a sweep from starting.
const MAX_EVENTS: usize = 1 << 20;

/// Settings from the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevalidateConfig {
    /// `flow-limit`.
    pub flow_limit: usize,
    /// `max-idle`, ms.
    pub max_idle_ms: u64,
    /// `max-revalidator`, ms.
    pub max_revalidator_ms: u64,
    /// `min-revalidate-pps`.
    pub min_revalidate_pps: u64,
}

impl Default for RevalidateConfig {
    fn default() -> RevalidateConfig {
        RevalidateConfig {
            flow_limit: DEFAULT_FLOW_LIMIT,
            max_idle_ms: DEFAULT_MAX_IDLE_MS,
            max_revalidator_ms: DEFAULT_MAX_REVALIDATOR_MS,
            min_revalidate_pps: DEFAULT_MIN_REVALIDATE_PPS,
        }
    }
}

/// What a sweep did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct SweepReport {
    pub flows: usize,
    pub expired: usize,
    pub revalidated: usize,
    pub modified: usize,
    pub deleted: usize,
}

/// How long a purge may take after its sweep, until the threads that own the flows have let go of them.
const PURGE_TIME: Duration = Duration::from_secs(1);

/// The revalidator of one datapath.
pub struct Revalidator {
    world: Arc<World>,
    upcalls: Arc<Upcalls>,
    dp: Arc<dyn Provider>,
    config: Mutex<RevalidateConfig>,
    table: FlowTable,
    /// Who holds it takes events: those of a flow must not pass each other.
    drain: Mutex<()>,
    /// One sweep at a time.
    sweeping: Mutex<XlateOut>,
    dump_ms: AtomicU64,
    avg_flows: AtomicUsize,
    max_flows: AtomicUsize,
    /// Numbers of the last sweep that began, that came to its end, and that somebody waits for.
    begun: AtomicU64,
    done: AtomicU64,
    wanted: AtomicU64,
    swept: (Mutex<()>, Condvar),
    suspects: Suspects,
    purge: AtomicBool,
    paused: AtomicBool,
    /// Counters as they were when all flows were last credited.
    credited: Mutex<Option<u64>>,
    /// Flows were announced since: their packets may be among those counters.
    fresh: AtomicBool,
    team: Mutex<Arc<Team>>,
}

/// A sweep that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sweep: u64,
    /// Until when removed flows are waited for.
    gone_by: Option<Instant>,
}

impl Revalidator {
    /// A revalidator for the flows of `dp`.
    pub fn new(world: Arc<World>, upcalls: Arc<Upcalls>, dp: Arc<dyn Provider>) -> Revalidator {
        Revalidator {
            world,
            upcalls,
            dp,
            config: Mutex::new(RevalidateConfig::default()),
            table: FlowTable::default(),
            drain: Mutex::default(),
            sweeping: Mutex::new(XlateOut::default()),
            dump_ms: AtomicU64::new(1),
            avg_flows: AtomicUsize::new(0),
            max_flows: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            swept: (Mutex::new(()), Condvar::new()),
            suspects: Suspects::new(),
            purge: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            credited: Mutex::new(None),
            fresh: AtomicBool::new(false),
            team: Mutex::new(Arc::new(Team::new(Vec::new()))),
        }
    }

    /// Applies settings; the next sweep comes at once.
    pub fn set_config(&self, config: RevalidateConfig) {
        let old = std::mem::replace(&mut *self.config.lock(), config);
        if config.flow_limit < self.upcalls.flow_limit() {
            self.upcalls.set_flow_limit(config.flow_limit);
        }
        if old != config {
            self.world.wake();
        }
    }

    /// All installed flows.
    pub fn flows(&self) -> Vec<Arc<SharedFlow>> {
        self.take_events();
        let mut all = Vec::with_capacity(self.table.live());
        self.table.each(&mut |k| {
            if k.is_live() {
                all.push(k.flow().clone());
            }
        });
        all
    }

    /// Number of installed flows known.
    pub fn flow_count(&self) -> usize {
        self.table.live()
    }

    /// Takes what the datapath announced. Returns how much it was.
    fn take_events(&self) -> usize {
        self.take_events_under(self.drain.lock())
    }

    fn take_events_under(&self, turn: MutexGuard<'_, ()>) -> usize {
        let (mut changed, mut fresh) = (false, false);
        let n = self.dp.drain_events(MAX_EVENTS, &mut |event| match event {
            FlowEvent::New(flow) => {
                self.table.add(flow);
                fresh = true;
            }
            FlowEvent::Deleted(flow) => changed |= self.table.remove(&flow),
            FlowEvent::Suspect(s) => self.suspects.note(*s),
        });
        self.upcalls.set_flow_count(self.table.live());
        if fresh {
            self.fresh.store(true, Ordering::Release);
        }
        drop(turn);
        if changed {
            self.world.macs_changed();
        }
        n
    }

    /// Pushes the packet counts of all flows to rules, tables, ports and MAC entries. When the datapath knows that no
    /// packet has met a flow since the last time, and no flow was announced late, there is nothing to do.
    pub fn push_stats(&self) {
        self.take_events();
        let mut credited = self.credited.lock();
        // Read before the flows are looked at: what comes meanwhile is looked at next time.
        let now = self.dp.activity();
        let fresh = self.fresh.swap(false, Ordering::AcqRel);
        if !fresh && now.is_some() && *credited == now {
            return;
        }
        let mut changed = false;
        self.table.each(&mut |k| changed |= k.push());
        *credited = now;
        drop(credited);
        if changed {
            self.world.macs_changed();
        }
    }

    /// Removes every flow (`revalidator/purge`): done with a sweep, and when the flows are gone.
    pub fn ask_purge(&self) -> Ticket {
        self.purge.store(true, Ordering::Release);
        Ticket { gone_by: Some(Instant::now() + PURGE_TIME), ..self.ask_sweep() }
    }

    /// Asks for a sweep that begins after the call (`revalidator/wait`).
    pub fn ask_sweep(&self) -> Ticket {
        let sweep = self.begun.load(Ordering::Acquire) + 1;
        self.wanted.fetch_max(sweep, Ordering::AcqRel);
        self.world.wake();
        Ticket { sweep, gone_by: None }
    }

    /// Whether it is over; or never will be, because sweeps are paused or have no thread.
    pub fn is_done(&self, t: &Ticket) -> bool {
        if self.team.lock().is_over() {
            return true;
        }
        if !self.is_idle(t) && self.done.load(Ordering::Acquire) < t.sweep {
            // It may have gone to sleep just when the sweep was asked for.
            self.world.wake();
            return false;
        }
        match t.gone_by {
            Some(end) => self.table.evicting() == 0 || Instant::now() >= end,
            None => true,
        }
    }

    /// Whether no sweep begins that `t` could wait for. While paused one begins for a purge, which may be the one under
    /// way.
    fn is_idle(&self, t: &Ticket) -> bool {
        let paused = self.paused.load(Ordering::Acquire) && !self.purge.load(Ordering::Acquire);
        // In this order: what is done by then had begun.
        let begun = self.begun.load(Ordering::Acquire);
        paused && (t.gone_by.is_none() || self.done.load(Ordering::Acquire) == begun)
    }

    /// As [`Revalidator::ask_purge`], and waits.
    pub fn purge(&self) {
        self.wait_for(self.ask_purge());
    }

    /// As [`Revalidator::ask_sweep`], and waits.
    pub fn wait_sweep(&self) {
        self.wait_for(self.ask_sweep());
    }

    /// Waits until it is over.
    pub fn wait_for(&self, ticket: Ticket) {
        let mut g = self.swept.0.lock();
        while !self.is_done(&ticket) {
            if ticket.gone_by.is_some() {
                MutexGuard::unlocked(&mut g, || self.take_events());
            }
            self.swept.1.wait_for(&mut g, Duration::from_millis(5));
        }
    }

    /// `upcall/show` of this datapath.
    pub fn show(&self) -> String {
        let keys = self.flow_count();
        let mut out = format!(
            "{}:\n  flows         : (current {keys}) (avg {}) (max {}) (limit {})\n  dump duration : {}ms\n  \
             ufid enabled : {}\n\n",
            self.dp.full_name(),
            self.avg_flows.load(Ordering::Relaxed),
            self.max_flows.load(Ordering::Relaxed).max(keys),
            self.upcalls.flow_limit(),
            self.dump_ms.load(Ordering::Relaxed),
            self.upcalls.ufid(),
        );
        let team = self.team.lock().clone();
        for (i, id) in team.ids().iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(out, "  {id}: (keys {})", self.table.share(i, team.ids().len()));
        }
        out
    }

    /// Number of revalidator threads.
    pub fn thread_count(&self) -> usize {
        self.team.lock().ids().len()
    }

    /// `revalidator/pause` and `revalidator/resume`: no sweep begins while paused.
    pub fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Release);
        self.world.wake();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use datapath::shared::{Compact, NewFlow};
    use datapath::{PmdId, SharedFlow};
    use flow::Flow;
    use std::sync::Arc;

    /// A megaflow that does nothing.
    pub(crate) fn flow(n: usize) -> Arc<SharedFlow> {
        Arc::new(SharedFlow::new(NewFlow {
            ufid: None,
            pmd: PmdId(0),
            key: Compact::from_flow(&Flow { in_port: n as u32, ..Flow::default() }),
            mask: Arc::new(Compact::default()),
            actions: Arc::new([]),
            seq: 1,
            now_ms: 0,
            ctx: None,
        }))
    }
}

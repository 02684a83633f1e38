//! Misses of the datapath, translated inline by the thread that owns the packet.
//!
//! Neighbours: `datapath` calls [`Upcalls`], `xlate` translates, `revalidate` looks after what was installed.
//! Threads: called on every poll-mode thread and on the io thread; per-thread scratch memory is reused, nothing
//! waits.

use crate::self_check::agrees;
use crate::snapshot::World;
use crate::xlate::{xlate, CreditStats, XlateIn, XlateOut};
use datapath::{FlowPut, Miss, MissResult, SharedFlow, Upcall};
use flow::key::VLAN_CFI;
use flow::{Be16, Be32, DpAction, DpPort, Flow, Mask, UserspaceCookie};
use packet::Packet;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// Flow limit until the first dumps tell more.
const INITIAL_FLOW_LIMIT: usize = 10_000;

thread_local! {
    static SCRATCH: RefCell<XlateOut> = RefCell::new(XlateOut::default());
}

/// Counters of the slow path.
#[derive(Default, Debug)]
pub struct UpcallStats {
    /// Packets translated.
    pub misses: AtomicU64,
    /// Packets from ports that no bridge has.
    pub unknown_port: AtomicU64,
    /// Flows that were not installed because of the flow limit.
    pub over_limit: AtomicU64,
}

/// Handles misses.
pub struct Upcalls {
    world: Arc<World>,
    flow_limit: AtomicUsize,
    n_flows: AtomicUsize,
    megaflows: AtomicBool,
    ufid: AtomicBool,
    restoring: AtomicBool,
    stats: UpcallStats,
}

impl Upcalls {
    /// A handler over `world`.
    pub fn new(world: Arc<World>) -> Upcalls {
        Upcalls {
            world,
            flow_limit: AtomicUsize::new(INITIAL_FLOW_LIMIT),
            n_flows: AtomicUsize::new(0),
            megaflows: AtomicBool::new(true),
            ufid: AtomicBool::new(true),
            restoring: AtomicBool::new(false),
            stats: UpcallStats::default(),
        }
    }

    /// The published state that it reads.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Counters.
    pub fn stats(&self) -> &UpcallStats {
        &self.stats
    }

    /// Flows above this number are not installed.
    pub fn flow_limit(&self) -> usize {
        self.flow_limit.load(Ordering::Relaxed)
    }

    /// Sets the flow limit.
    pub fn set_flow_limit(&self, limit: usize) {
        self.flow_limit.store(limit, Ordering::Relaxed);
    }

    /// Tells how many flows there are; installs since the last call are counted on top.
    pub fn set_flow_count(&self, n: usize) {
        self.n_flows.store(n, Ordering::Relaxed);
    }

    /// `upcall/disable-megaflows`: flows match every bit of their packet.
    pub fn set_megaflows(&self, on: bool) {
        self.megaflows.store(on, Ordering::Relaxed);
    }

    /// `upcall/disable-ufid`: whether dumps are by identifier, as `upcall/show` says.
    pub fn set_ufid(&self, on: bool) {
        self.ufid.store(on, Ordering::Relaxed);
    }

    /// Whether dumps are by identifier.
    pub fn ufid(&self) -> bool {
        self.ufid.load(Ordering::Relaxed)
    }

    /// `other_config:flow-restore-wait`: while somebody restores the OpenFlow tables, misses are dropped.
    pub fn set_restoring(&self, on: bool) {
        self.restoring.store(on, Ordering::Relaxed);
    }

    /// Whether flows wildcard what was not looked at.
    pub fn megaflows(&self) -> bool {
        self.megaflows.load(Ordering::Relaxed)
    }
}

/// What a packet from a queue gets.
#[derive(Default)]
pub struct Queued {
    /// Whether a bridge has its port. If not, the flow to install drops what comes from there.
    pub known: bool,
    /// Whether it is dropped because the tables are being restored (`flow-restore-wait`).
    pub restoring: bool,
    /// What to do with the packet now.
    pub actions: Vec<DpAction>,
    /// The flow to install; none over the flow limit.
    pub put: Option<FlowPut>,
}

impl Upcalls {
    /// Translates a miss on a thread that may wait. `install`: a flow is wanted.
    pub fn queued(
        &self,
        packet: &Packet,
        flow: &Flow,
        now_ms: u64,
        install: bool,
        x: &mut XlateOut,
    ) -> Queued {
        self.stats.misses.fetch_add(1, Ordering::Relaxed);
        let seq = self.world.seq();
        if self.restoring.load(Ordering::Relaxed) {
            return Queued { known: true, restoring: true, ..Queued::default() };
        }
        let known = translate_flow(&self.world, flow, now_ms, Purpose::SlowPacket, x);
        if !known {
            self.stats.unknown_port.fetch_add(1, Ordering::Relaxed);
            x.mask.0 = Flow { in_port: u32::MAX, recirc_id: u32::MAX, dl_type: Be16::MAX, ..Flow::default() };
            complete_mask(flow, &mut x.mask);
        }
        let first = CreditStats { packets: 1, bytes: packet.frame_len() as u64, used_ms: now_ms };
        x.changed |= x.cache.push(first, true);
        if x.changed {
            self.world.macs_changed();
        }
        let cache = std::mem::take(&mut x.cache);
        let actions = std::mem::take(&mut x.actions);
        let put = (install && self.may_install()).then(|| FlowPut {
            flow: *flow,
            mask: if known && !self.megaflows() { exact(flow) } else { x.mask },
            actions: if x.slow == 0 { actions.clone() } else { vec![to_slow_path(x.slow)] },
            ufid: None,
            seq,
            ctx: Some(Box::new(cache)),
        });
        Queued { known, restoring: false, actions, put }
    }

    /// Whether one more flow may be installed; counts it.
    fn may_install(&self) -> bool {
        let may = self.n_flows.load(Ordering::Relaxed) < self.flow_limit();
        if may {
            self.n_flows.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stats.over_limit.fetch_add(1, Ordering::Relaxed);
            crate::coverage::LIMIT_HIT.inc();
        }
        may
    }
}

impl Upcall for Upcalls {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        self.stats.misses.fetch_add(1, Ordering::Relaxed);
        out.seq = self.world.seq();
        if self.restoring.load(Ordering::Relaxed) {
            out.failed = true;
            return;
        }
        SCRATCH.with_borrow_mut(|x| {
            let known = translate_flow(&self.world, req.flow, req.now_ms, Purpose::Packet, x);
            if !known {
                self.stats.unknown_port.fetch_add(1, Ordering::Relaxed);
                out.failed = true;
                return;
            }
            out.mask = if self.megaflows() { x.mask } else { exact(req.flow) };
            out.actions.append(&mut x.actions);
            let first = CreditStats { packets: 1, bytes: req.packet.frame_len() as u64, used_ms: req.now_ms };
            x.changed |= x.cache.push(first, false);
            if x.changed {
                self.world.macs_changed_quietly();
            }
            out.install = self.may_install();
            if out.install {
                out.ctx = Some(Box::new(std::mem::take(&mut x.cache)));
            } else {
                // What it refers to must not live on until the next miss.
                x.cache.credits.clear();
            }
        });
    }

    fn is_sound(&self, req: &Miss<'_>, flow: &SharedFlow, actions: &[DpAction]) -> bool {
        SCRATCH.with_borrow_mut(|x| {
            let purpose = Purpose::Check;
            let sound = agrees(&self.world, req.flow, flow, actions, req.now_ms, purpose, x).unwrap_or(true);
            x.cache.credits.clear();
            sound
        })
    }
}

/// Why a datapath flow is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A packet is there, on a thread that must not wait.
    Packet,
    /// A packet of the slow path is there, on a thread that may wait.
    SlowPacket,
    /// To compare with what is installed.
    Revalidate,
    /// The same, on a thread that must not wait.
    Check,
}

/// Translates a flow as the datapath has it (its `in_port` a [`DpPort`]). False, and no result, when no bridge has the
/// port. With a slow-path reason, the actions send the packet there (but for [`Purpose::SlowPacket`],
/// which wants the actions to run).
pub fn translate_flow(
    world: &World,
    dp_flow: &Flow,
    now_ms: u64,
    purpose: Purpose,
    out: &mut XlateOut,
) -> bool {
    let snapshot = world.load();
    let Some((bridge, port)) = snapshot.of_port(DpPort(dp_flow.in_port)) else {
        out.reset();
        return false;
    };
    let mut flow = *dp_flow;
    flow.in_port = port.0.into();
    let input = XlateIn {
        flow: &flow,
        bridge,
        snapshot: &snapshot,
        recirc: world.recirc(),
        now_ms,
        side_effects: matches!(purpose, Purpose::Packet | Purpose::SlowPacket),
        may_wait: !matches!(purpose, Purpose::Packet | Purpose::Check),
        for_flow: true,
        packet_out: false,
        actions: None,
    };
    xlate(&input, out, None);
    complete_mask(dp_flow, &mut out.mask);
    if out.slow != 0 && purpose != Purpose::SlowPacket {
        out.actions.clear();
        out.actions.push(to_slow_path(out.slow));
    }
    true
}

/// The action that sends packets to the slow path.
fn to_slow_path(reason: u32) -> DpAction {
    DpAction::Userspace { pid: 0, cookie: UserspaceCookie::SlowPath { reason } }
}

/// Megaflows always match whether there is a VLAN header, and which, and whether there is one inside it.
fn complete_mask(flow: &Flow, mask: &mut Mask) {
    let [outer, inner] = &mut mask.0.vlans;
    if outer.tci.is_zero() {
        outer.tci = Be16::new(VLAN_CFI | 0x0fff);
    }
    if !flow.vlans[0].tci.is_zero() {
        inner.tci |= Be16::new(VLAN_CFI);
    }
}

/// The mask that matches every field that the packet has.
fn exact(flow: &Flow) -> Mask {
    let mut m = Mask::default();
    for (w, f) in m.0.words_mut()[..flow::PKT_WORDS].iter_mut().zip(flow.words()) {
        if *f != 0 {
            *w = u64::MAX;
        }
    }
    let f = &mut m.0;
    (f.in_port, f.recirc_id) = (u32::MAX, u32::MAX);
    (f.packet_type, f.dl_type) = (Be32::MAX, Be16::MAX);
    (f.dl_src, f.dl_dst) = ([0xff; 6], [0xff; 6]);
    f.nw_frag = 0xff;
    (f.nw_proto, f.nw_tos, f.nw_ttl) = (0xff, 0xff, 0xff);
    (f.tp_src, f.tp_dst) = (Be16::MAX, Be16::MAX);
    (f.nw_src, f.nw_dst) = (Be32::MAX, Be32::MAX);
    complete_mask(flow, &mut m);
    m
}

//! What the datapath and its users say to each other: misses, events, configuration, listings.
//!
//! Neighbours: `ofproto` implements [`Upcall`] and drains [`FlowEvent`]s; `bridge` sets [`DpConfig`] and shows
//! [`PortInfo`], [`RxqInfo`]. Threads: plain data; [`Upcall::miss`] runs on PMD threads and on the io thread.

use crate::shared::{SharedFlow, Ufid};
use flow::{DpAction, DpPort, Flow, Mask, UserspaceCookie};
use infra::cpu::{CoreId, NumaId};
use netdev::Netdev;
use packet::Packet;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Which thread of the datapath: a PMD by its core, or the io thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PmdId(pub u32);

impl PmdId {
    /// The io thread, which receives from ports that no PMD polls ("main thread" in listings).
    pub const NON_PMD: PmdId = PmdId(u32::MAX);

    /// Whether this is the io thread.
    pub fn is_non_pmd(self) -> bool {
        self == PmdId::NON_PMD
    }

    /// The core a PMD is pinned to.
    pub fn core(self) -> Option<CoreId> {
        (!self.is_non_pmd()).then_some(CoreId(self.0))
    }
}

impl fmt::Display for PmdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.core() {
            Some(core) => write!(f, "{core}"),
            None => f.write_str("main"),
        }
    }
}

/// Translates packets for which no megaflow is installed. Called inline by the thread that owns the packet: it
/// must not block on anything that waits for that thread (see [`crate::Datapath::flow_delete`]).
pub trait Upcall: Send + Sync {
    /// Decides about `req.packet`, and counts it: the megaflow's own counters begin with the next packet. `out`
    /// arrives empty (reset) and is reused between misses.
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult);

    /// Translates a packet afresh that hit `flow`, whose actions here are `actions`, without side effects: false when
    /// the megaflow would do something else with it, or looks at less than it should. A megaflow that is about to be
    /// revalidated anyway is no matter. Called for one hit in `flow-self-check`.
    fn is_sound(&self, _req: &Miss<'_>, _flow: &SharedFlow, _actions: &[DpAction]) -> bool {
        true
    }
}

/// A packet without a megaflow.
pub struct Miss<'a> {
    /// The packet, as it stands.
    pub packet: &'a Packet,
    /// Its flow; `in_port` is the [`DpPort`] number.
    pub flow: &'a Flow,
    /// The thread that asks.
    pub core: PmdId,
    /// Monotonic milliseconds.
    pub now_ms: u64,
}

/// What a translation says.
#[derive(Default)]
pub struct MissResult {
    /// What to do with the packet; empty drops it.
    pub actions: Vec<DpAction>,
    /// The bits of the flow that were looked at, in terms of packet words.
    pub mask: Mask,
    /// Whether to install a megaflow; false: the actions are for this packet alone.
    pub install: bool,
    /// Version of configuration and tables it was translated with.
    pub seq: u64,
    /// Whether translation failed (counted as "miss with failed upcall"). The packet is dropped.
    pub failed: bool,
    /// Translation cache for the revalidator.
    pub ctx: Option<Box<dyn Any + Send + Sync>>,
    /// The identifier that the megaflow is to have; `None`: one made of its key.
    pub ufid: Option<Ufid>,
}

/// A megaflow that somebody asks for.
#[derive(Default)]
pub struct FlowPut {
    /// Key; `in_port` is a [`DpPort`] number.
    pub flow: Flow,
    /// The bits that matter.
    pub mask: Mask,
    /// What it does.
    pub actions: Vec<DpAction>,
    /// Identifier; `None`: one made of its key.
    pub ufid: Option<Ufid>,
    /// Version of configuration and tables that it counts as translated with.
    pub seq: u64,
    /// Translation cache for the revalidator.
    pub ctx: Option<Box<dyn Any + Send + Sync>>,
}

impl MissResult {
    /// Empties it, keeping the memory.
    pub fn reset(&mut self) {
        self.actions.clear();
        self.mask = Mask::default();
        self.install = false;
        self.seq = 0;
        self.failed = false;
        self.ctx = None;
        self.ufid = None;
    }
}

/// News about megaflows, for the revalidator.
pub enum FlowEvent {
    /// A PMD installed a megaflow.
    New(Arc<SharedFlow>),
    /// The megaflow is gone from its PMD; its counters are final.
    Deleted(Arc<SharedFlow>),
    /// A hit on the megaflow and a fresh translation of the packet do not agree. Look again when what was being
    /// changed at that moment has settled, and delete the megaflow if they still do not.
    Suspect(Box<Suspect>),
}

/// A megaflow that the self-check holds to be wrong.
pub struct Suspect {
    /// The megaflow.
    pub flow: Arc<SharedFlow>,
    /// The packet that hit it.
    pub frame: Box<[u8]>,
    /// The packet's flow; `in_port` is the [`DpPort`] number.
    pub key: Flow,
    /// Monotonic milliseconds of the check.
    pub now_ms: u64,
}

/// A packet for user space: slow-path protocols and controllers.
pub struct UserspacePacket {
    /// The packet as it was at the action (a copy).
    pub packet: Packet,
    /// Its flow at the time of the action.
    pub flow: Flow,
    /// What the action carries.
    pub cookie: UserspaceCookie,
    /// The thread that ran the action.
    pub pmd: PmdId,
}

/// How receive queues are spread over PMD threads (`pmd-rxq-assign`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxqAssign {
    /// By measured cycles, busiest first, over the cores and back again.
    #[default]
    Cycles,
    /// One core after the other.
    RoundRobin,
    /// By measured cycles, busiest first, each to the core with the least load.
    Group,
}

impl fmt::Display for RxqAssign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RxqAssign::Cycles => "cycles",
            RxqAssign::RoundRobin => "roundrobin",
            RxqAssign::Group => "group",
        })
    }
}

/// When receive queues are spread anew by themselves (`pmd-auto-lb` and what belongs to it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AutoLb {
    /// Whether it happens at all.
    pub enabled: bool,
    /// Least minutes between two looks.
    pub interval_min: u64,
    /// Percentage of busy cycles from which on a PMD is overloaded.
    pub load_threshold: u8,
    /// Least improvement of the variance of loads, percent.
    pub improvement_threshold: u8,
}

impl Default for AutoLb {
    fn default() -> Self {
        AutoLb { enabled: false, interval_min: 1, load_threshold: 95, improvement_threshold: 25 }
    }
}

/// Settings of the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpConfig {
    /// Cores for PMD threads (`pmd-cpu-mask`); `None`: the first core of each NUMA node.
    pub pmd_cores: Option<BTreeSet<CoreId>>,
    /// A new microflow enters the cache once in so many times (`emc-insert-inv-prob`); 0 disables the cache.
    pub emc_insert_inv_prob: u32,
    /// How long packets may wait in transmit buffers, microseconds (`tx-flush-interval`).
    pub tx_flush_interval_us: u32,
    /// VLAN headers that are parsed (`vlan-limit`; 0 means as many as a flow holds).
    pub vlan_limit: u8,
    /// Per cent of a thread's time for the misses of queues that keep others waiting (`pmd-upcall-share`); 100: no
    /// bound.
    pub upcall_share: u32,
    /// One in so many hits is translated afresh and compared (`flow-self-check`); 0: none.
    pub flow_self_check: u32,
    /// How receive queues are spread over PMDs (`pmd-rxq-assign`).
    pub rxq_assign: RxqAssign,
    /// Whether a core with a pinned queue polls pinned queues only (`pmd-rxq-isolate`).
    pub rxq_isolate: bool,
    /// Automatic balancing (`pmd-auto-lb`).
    pub auto_lb: AutoLb,
    /// Longest sleep of a PMD with little to do, microseconds (`pmd-maxsleep`); 0: never.
    pub max_sleep_us: u32,
    /// The same for single cores, where it differs (`pmd-sleep-max`).
    pub core_sleep_us: BTreeMap<CoreId, u32>,
    /// Whether PMDs record each round (`pmd-perf-metrics`).
    pub perf_metrics: bool,
}

impl Default for DpConfig {
    fn default() -> Self {
        DpConfig {
            pmd_cores: None,
            emc_insert_inv_prob: 100,
            tx_flush_interval_us: 0,
            vlan_limit: 1,
            upcall_share: crate::fairness::DEFAULT_SHARE,
            flow_self_check: 0,
            rxq_assign: RxqAssign::default(),
            rxq_isolate: true,
            auto_lb: AutoLb::default(),
            max_sleep_us: 0,
            core_sleep_us: BTreeMap::new(),
            perf_metrics: false,
        }
    }
}

impl DpConfig {
    /// Longest sleep of a thread, microseconds. The io thread does not sleep in this way.
    pub fn max_sleep_of(&self, pmd: PmdId) -> u32 {
        match pmd.core() {
            Some(core) => self.core_sleep_us.get(&core).copied().unwrap_or(self.max_sleep_us),
            None => 0,
        }
    }
}

/// Which transmit queue a packet takes (`tx-steering`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TxSteering {
    /// The thread's.
    #[default]
    Thread,
    /// The one that the packet's hash tells.
    Hash,
}

/// Settings of a port that are not the device's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortConfig {
    /// Cores that receive queues are pinned to (`pmd-rxq-affinity`).
    pub affinity: BTreeMap<usize, CoreId>,
    /// `tx-steering`.
    pub steering: TxSteering,
}

/// A port of the datapath.
#[derive(Clone)]
pub struct PortInfo {
    /// Its number.
    pub no: DpPort,
    /// The device.
    pub netdev: Arc<dyn Netdev>,
    /// Packets for this port that the datapath dropped (device refused them, too long, no room).
    pub tx_dropped: u64,
}

/// A receive queue and who polls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RxqInfo {
    /// Name of the port.
    pub port: String,
    /// Number of the port.
    pub no: DpPort,
    /// Queue index.
    pub queue: usize,
    /// Whether it is polled.
    pub enabled: bool,
    /// Cycles spent on it over the last minute.
    pub cycles: u64,
    /// Its misses that were translated, since its port last had its queues opened.
    pub upcalls: u64,
    /// Cycles charged for those.
    pub upcall_cycles: u64,
    /// Cycles for which it was not polled because its misses kept other queues waiting.
    pub held_cycles: u64,
    /// Its misses that were dropped for that reason.
    pub refused: u64,
}

/// A thread and its receive queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmdRxqs {
    /// The thread.
    pub pmd: PmdId,
    /// NUMA node of its core.
    pub numa: NumaId,
    /// Whether the core is kept for pinned queues.
    pub isolated: bool,
    /// Cycles of a minute, once some were counted; else 0.
    pub cycles: u64,
    /// Cycles the thread was busy over the last minute.
    pub busy_cycles: u64,
    /// Its queues, by port name and index.
    pub rxqs: Vec<RxqInfo>,
}

/// Called on each new datapath thread before it starts, e.g. to register it with a device library.
pub type ThreadHook = Arc<dyn Fn(PmdId) + Send + Sync>;

/// Monotonic milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a datapath is made with.
#[derive(Clone)]
pub struct DpOptions {
    /// The clock.
    pub clock: Clock,
    /// Runs on each new thread.
    pub thread_start: Option<ThreadHook>,
    /// False: no threads are started; [`crate::Datapath::step`] runs every loop once (tests, tracing).
    pub threads: bool,
    /// Without threads: ask the clock and publish counters now and then, as threads do, and not every round.
    pub lazy_clock: bool,
    /// The machine's cores, for the default core mask and NUMA nodes.
    pub topology: infra::cpu::Topology,
    /// Seed of random decisions.
    pub seed: u64,
}

impl Default for DpOptions {
    fn default() -> Self {
        DpOptions {
            clock: Arc::new(|| infra::clock::now_ms().max(0) as u64),
            thread_start: None,
            threads: true,
            lazy_clock: false,
            topology: infra::cpu::Topology::read(),
            seed: infra::clock::real_ns(),
        }
    }
}

/// What a datapath call refuses.
#[derive(Debug, thiserror::Error)]
pub enum DpError {
    /// The wanted number is taken.
    #[error("port number {0} is already in use")]
    PortInUse(DpPort),
    /// No number is left.
    #[error("no free port number (limit {0})")]
    TooManyPorts(u32),
    /// A device of that name is in the datapath.
    #[error("{0}: a port of this name is already in the datapath")]
    Duplicate(String),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] netdev::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

//! The control side: ports, threads, and handing queues from one to the other.
//!
//! A queue belongs to one thread. To change anything about it, every thread is asked to give the port back and
//! answers with its queues; only then is the device touched.
//! Neighbours: `dp` calls this under its lock; `thread` answers. Threads: whichever holds the lock.

use crate::api::{DpConfig, DpError, PmdId, PmdRxqs, PortConfig, PortInfo, RxqInfo, TxSteering};
use crate::balance::Balancer;
use crate::coverage;
use crate::dp::Common;
use crate::engine::{Engine, Outlets};
use crate::fairness::{Account, UpcallCounters};
use crate::perf::{Perf, PerfLog};
use crate::show_perf::suspicious;
use crate::stats::{Intervals, PmdStats, SharedStats, INTERVALS, INTERVAL_MS};
use crate::thread::{enter, Cmd, Reply, Rxq, Worker, WorkerParts, RELAY_RING};
use crate::tx::{Drops, Sink, Steering, TxPort, TxPorts};
use crate::xps::Pool;
use flow::DpPort;
use infra::cpu::{thread_number, CoreId, NumaId};
use infra::poll::Poller;
use infra::ring::{wakeable_with, Consumer, RingBuffer, WakeProducer};
use infra::vlog::{Module, RateLimit};
use infra::Waker;
use infra::{info, warn};
use netdev::Netdev;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) static LOG: Module = Module::new("dpif_netdev");
static PERF_LOG: Module = Module::new("pmd_perf");
static PERF_LIMIT: RateLimit = RateLimit::new(20, 20);

/// Highest port number plus one.
const MAX_PORTS: u32 = 65_536;
const CMD_RING: usize = 4_096;
const EVENT_RING: usize = 16_384;
const USER_RING: usize = 1_024;

/// Where commands for a thread go.
pub(crate) struct Route {
    pub(crate) pmd: PmdId,
    pub(crate) ring: Arc<Mutex<WakeProducer<Cmd>>>,
}

pub(crate) struct Thread {
    pub(crate) id: PmdId,
    pub(crate) numa: NumaId,
    /// Kept for pinned queues.
    pub(crate) isolated: bool,
    /// Intervals that had ended when queues were last spread.
    pub(crate) spread_at: usize,
    replies: Consumer<Reply>,
    shared: Arc<SharedStats>,
    base: PmdStats,
    base_ms: u64,
    pub(crate) history: Arc<Intervals>,
    pub(crate) perf: Arc<Perf>,
    join: Option<JoinHandle<()>>,
}

pub(crate) struct RxqEntry {
    /// Who polls it.
    pub(crate) pmd: Option<PmdId>,
    pub(crate) queue: usize,
    pub(crate) history: Arc<Intervals>,
    upcalls: Arc<UpcallCounters>,
    /// The queue, while nobody polls it.
    pub(crate) parked: Option<Box<Rxq>>,
}

pub(crate) struct Port {
    pub(crate) netdev: Arc<dyn Netdev>,
    pub(crate) config: PortConfig,
    /// Whether its receive queues are polled.
    receives: bool,
    /// Drops of present queues, one cell a thread.
    drops: Vec<Arc<Drops>>,
    /// Drops of queues given back.
    dropped: u64,
    pub(crate) rxqs: Vec<RxqEntry>,
    /// The transmit queues, where threads share them.
    pool: Option<Arc<Pool>>,
    /// What receive queues cost, also while they are given back.
    histories: Vec<Arc<Intervals>>,
}

impl Port {
    /// Whether packets choose their transmit queues.
    fn is_hashed(&self) -> bool {
        self.config.steering == TxSteering::Hash && self.netdev.is_pmd() && self.netdev.n_txq() > 1
    }
}

/// Ports and threads.
pub(crate) struct Control {
    pub(crate) common: Arc<Common>,
    pub(crate) config: DpConfig,
    pub(crate) balancer: Balancer,
    /// How suspicious rounds are reported.
    perf_log: PerfLog,
    /// Whether settings were ever applied.
    configured: bool,
    pub(crate) ports: BTreeMap<u32, Port>,
    /// PMDs by core, the io thread last.
    pub(crate) threads: Vec<Thread>,
    /// Counters of threads that ended.
    retired: PmdStats,
    io_waker: Waker,
}

impl Control {
    pub(crate) fn new(common: Arc<Common>) -> Result<Control, DpError> {
        let io_waker = Waker::new().map_err(DpError::Thread)?;
        let mut c = Control {
            common,
            config: DpConfig::default(),
            configured: false,
            balancer: Balancer::default(),
            perf_log: PerfLog::default(),
            ports: BTreeMap::new(),
            threads: Vec::new(),
            retired: PmdStats::default(),
            io_waker,
        };
        c.start_thread(PmdId::NON_PMD, NumaId(0))?;
        Ok(c)
    }

    pub(crate) fn config(&self) -> &DpConfig {
        &self.config
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.common.options.clock)()
    }

    // -- threads

    fn start_thread(&mut self, id: PmdId, numa: NumaId) -> Result<(), DpError> {
        let options = &self.common.options;
        let cmd_waker =
            if id.is_non_pmd() { self.io_waker.clone() } else { Waker::new().map_err(DpError::Thread)? };
        let (cmd_tx, cmd_rx) = wakeable_with(CMD_RING, cmd_waker);
        let (reply_tx, replies) = RingBuffer::new(4);
        let (events, event_rx) = wakeable_with(EVENT_RING, self.common.event_waker.clone());
        let (user, user_rx) = wakeable_with(USER_RING, self.common.user_waker.clone());
        let relay = (!id.is_non_pmd()).then(|| wakeable_with(RELAY_RING, self.io_waker.clone()));
        let (relay_tx, relay_rx) = relay.unzip();
        let out = Outlets { events, late: VecDeque::new(), user };
        let seed = options.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let engine = Engine::new(id, Arc::clone(&self.common.upcall), TxPorts::new(relay_tx), out, seed);
        let shared = Arc::new(SharedStats::default());
        let history = Arc::new(Intervals::default());
        let perf = Arc::new(Perf::new());
        let worker = Worker::new(WorkerParts {
            engine,
            cmds: cmd_rx,
            replies: reply_tx,
            shared: Arc::clone(&shared),
            history: Arc::clone(&history),
            perf: Arc::clone(&perf),
            clock: Arc::clone(&options.clock),
            exact: !options.threads && !options.lazy_clock,
            awake: !options.threads,
        });
        let join = self.spawn(id, worker)?;
        self.common.events.lock().push(event_rx);
        self.common.users.lock().push(user_rx);
        self.common.routes.write().push(Route { pmd: id, ring: Arc::new(Mutex::new(cmd_tx)) });
        let base_ms = self.now_ms();
        let t = Thread {
            id,
            numa,
            isolated: false,
            spread_at: 0,
            replies,
            shared,
            base: PmdStats::default(),
            base_ms,
            perf,
            history,
            join,
        };
        let at = self.threads.partition_point(|o| o.id < id);
        self.threads.insert(at, t);
        if let Some(ring) = relay_rx {
            self.common.send(PmdId::NON_PMD, Cmd::AddRelay(ring));
        }
        self.send_config(id);
        self.common.send(id, Cmd::LogRounds(self.perf_log));
        if let Some(core) = id.core() {
            info!(LOG, "PMD thread on numa_id: {numa}, core id: {:>2} created.", core.0);
        }
        Ok(())
    }

    fn spawn(&mut self, id: PmdId, worker: Worker) -> Result<Option<JoinHandle<()>>, DpError> {
        if !self.common.options.threads {
            let mut workers = self.common.workers.lock();
            let at = workers.partition_point(|w| w.id() < id);
            workers.insert(at, worker);
            return Ok(None);
        }
        let (name, poller) = match id.core() {
            Some(core) => (format!("pmd-c{:02}/id:{}", core.0, thread_number()), None),
            None => ("io".to_owned(), Some(Poller::new().map_err(DpError::Thread)?)),
        };
        let hook = self.common.options.thread_start.clone();
        let body = move || {
            enter(id, &name, hook.as_ref());
            worker.run(poller);
        };
        std::thread::Builder::new().spawn(body).map(Some).map_err(DpError::Thread)
    }

    fn stop_thread(&mut self, id: PmdId) {
        let Some(i) = self.threads.iter().position(|t| t.id == id) else { return };
        if self.common.send(id, Cmd::Exit) {
            if let Some(Reply::Ended(late)) = self.answer(i) {
                self.common.late.lock().extend(late);
                self.common.event_waker.wake();
            }
        }
        let t = self.threads.remove(i);
        if let Some(join) = t.join {
            // A thread that panicked has nothing more to say.
            let _ = join.join();
        }
        self.common.workers.lock().retain(|w| w.id() != id);
        self.common.routes.write().retain(|r| r.pmd != id);
        self.retired = self.retired.plus(&t.shared.read());
        if let Some(core) = id.core() {
            info!(LOG, "PMD thread on numa_id: {}, core id: {:>2} destroyed.", t.numa, core.0);
        }
    }

    /// Waits for the answer of thread `i`; `None` when it is gone.
    pub(crate) fn answer(&mut self, i: usize) -> Option<Reply> {
        loop {
            let t = self.threads.get_mut(i)?;
            if let Ok(r) = t.replies.pop() {
                return Some(r);
            }
            if t.replies.is_abandoned() {
                return t.replies.pop().ok();
            }
            let id = t.id;
            self.common.pump(id);
        }
    }

    fn send_config(&self, id: PmdId) {
        let c = &self.config;
        let cmd = Cmd::Config {
            emc_insert_inv_prob: c.emc_insert_inv_prob,
            tx_flush_interval_us: c.tx_flush_interval_us,
            vlan_limit: c.vlan_limit,
            upcall_share: c.upcall_share,
            flow_self_check: c.flow_self_check,
            max_sleep_us: c.max_sleep_of(id),
            perf_metrics: c.perf_metrics,
        };
        self.common.send(id, cmd);
    }

    /// The cores that should have a PMD: none without a port to poll.
    fn wanted_cores(&self) -> BTreeSet<CoreId> {
        let top = &self.common.options.topology;
        if !self.ports.values().any(|p| p.netdev.is_pmd()) {
            return BTreeSet::new();
        }
        match &self.config.pmd_cores {
            Some(cores) => cores.iter().copied().filter(|c| top.numa_of(*c).is_some()).collect(),
            None => top.nodes().into_iter().filter_map(|n| top.cores_of(n).next()).collect(),
        }
    }

    /// Starts and stops PMDs until they are those wanted. When that took all queues back and gave them out anew, says
    /// of which ports that failed.
    fn adjust_threads(&mut self) -> Option<Vec<(DpPort, DpError)>> {
        let wanted = self.wanted_cores();
        let have: BTreeSet<CoreId> = self.threads.iter().filter_map(|t| t.id.core()).collect();
        // One that cannot be started changes nothing, also not the next time.
        let mut changes = have.difference(&wanted).next().is_some();
        for core in wanted.difference(&have) {
            let numa = self.common.options.topology.numa_of(*core).unwrap_or_default();
            match self.start_thread(PmdId(core.0), numa) {
                Ok(()) => changes = true,
                Err(e) => warn!(LOG, "PMD thread on core {} cannot be started: {e}", core.0),
            }
        }
        if !changes {
            return None;
        }
        let ports: Vec<u32> = self.ports.keys().copied().collect();
        // What is received while ports are taken back would find some missing.
        self.park();
        for no in &ports {
            self.take_back(DpPort(*no));
        }
        for core in have.difference(&wanted) {
            self.stop_thread(PmdId(core.0));
        }
        self.say_threads();
        // Transmit queues first: what is then received finds all ports there.
        let mut failed = Vec::new();
        for receive in [false, true] {
            for no in ports.iter().map(|no| DpPort(*no)) {
                if failed.iter().any(|(f, _)| *f == no) {
                    continue;
                }
                if let Err(e) = if receive { self.give_rx(no) } else { self.give_tx(no) } {
                    self.take_back(no);
                    failed.push((no, e));
                }
            }
        }
        Some(failed)
    }

    /// As `adjust_threads`; ports that are left without queues are named in the log, but for `but`, whose error is
    /// returned. True when queues were given out.
    fn adjust(&mut self, but: Option<DpPort>) -> Result<bool, DpError> {
        let Some(failed) = self.adjust_threads() else { return Ok(false) };
        let mut own = Ok(true);
        for (no, e) in failed {
            if Some(no) == but {
                own = Err(e);
            } else if let Some(p) = self.ports.get(&no.0) {
                warn!(LOG, "{}: port is left without queues: {e}", p.netdev.name());
            }
        }
        own
    }

    pub(crate) fn set_config(&mut self, config: DpConfig) -> Result<(), DpError> {
        let old = std::mem::replace(&mut self.config, config);
        let first = !std::mem::replace(&mut self.configured, true);
        let changed = first || old != self.config;
        let respread = changed && self.say_changes(&old, first);
        if changed {
            self.balancer.hopeless = false;
            self.threads.iter().for_each(|t| self.send_config(t.id));
        }
        // Also when nothing changed: what failed before may succeed now.
        let adjusted = self.adjust(None);
        if respread || !matches!(adjusted, Ok(false)) {
            self.schedule();
        }
        adjusted.map(|_| ())
    }

    /// Ends all threads.
    pub(crate) fn stop(&mut self) {
        let ports: Vec<u32> = self.ports.keys().copied().collect();
        for no in ports {
            self.take_back(DpPort(no));
        }
        self.ports.clear();
        for id in self.threads.iter().map(|t| t.id).collect::<Vec<_>>() {
            self.stop_thread(id);
        }
    }

    // -- ports

    pub(crate) fn add_port(
        &mut self,
        netdev: Arc<dyn Netdev>,
        wanted: Option<DpPort>,
        receives: bool,
    ) -> Result<DpPort, DpError> {
        if self.ports.values().any(|p| p.netdev.name() == netdev.name()) {
            return Err(DpError::Duplicate(netdev.name().to_owned()));
        }
        let no = match wanted {
            Some(no) if self.ports.contains_key(&no.0) => return Err(DpError::PortInUse(no)),
            Some(no) if no.0 < MAX_PORTS => no,
            Some(_) => return Err(DpError::TooManyPorts(MAX_PORTS)),
            None => {
                let free = (1..MAX_PORTS).find(|n| !self.ports.contains_key(n));
                DpPort(free.ok_or(DpError::TooManyPorts(MAX_PORTS))?)
            }
        };
        let port = Port {
            netdev,
            config: PortConfig::default(),
            receives,
            drops: Vec::new(),
            dropped: 0,
            rxqs: Vec::new(),
            pool: None,
            histories: Vec::new(),
        };
        self.ports.insert(no.0, port);
        coverage::PORT_ADD.inc();
        let adjusted = self.adjust(Some(no));
        let spread = receives || !matches!(adjusted, Ok(false));
        let done = match adjusted {
            Ok(true) => Ok(()),
            Ok(false) => self.give_out(no),
            Err(e) => Err(e),
        };
        if let Err(e) = done {
            self.del_port(no);
            return Err(e);
        }
        if spread {
            self.schedule();
        }
        Ok(no)
    }

    pub(crate) fn start_port(&mut self, no: DpPort) -> Result<(), DpError> {
        match self.ports.get_mut(&no.0) {
            Some(p) if !p.receives => p.receives = true,
            _ => return Ok(()),
        }
        let started = self.give_rx(no);
        match started {
            Ok(()) => self.schedule(),
            Err(_) => self.del_port(no),
        }
        started
    }

    pub(crate) fn del_port(&mut self, no: DpPort) {
        self.take_back(no);
        if self.ports.remove(&no.0).is_none() {
            return;
        }
        coverage::PORT_DEL.inc();
        for i in 0..self.threads.len() {
            // A part at a time: other ports go on.
            let id = self.threads[i].id;
            while self.common.send(id, Cmd::PurgePort(no)) && matches!(self.answer(i), Some(Reply::More)) {}
        }
        if let Err(e) = self.adjust(None) {
            warn!(LOG, "poll mode threads: {e}");
        }
        self.schedule();
    }

    /// Applies settings of a port. Where that needs the threads, they are asked.
    pub(crate) fn set_port_config(&mut self, no: DpPort, config: PortConfig) -> Result<(), DpError> {
        let Some(port) = self.ports.get_mut(&no.0).filter(|p| p.config != config) else { return Ok(()) };
        let old = std::mem::replace(&mut port.config, config);
        if !port.netdev.is_pmd() {
            return Ok(());
        }
        let mut steered = Ok(());
        if old.steering != port.config.steering {
            let mode = match port.config.steering {
                TxSteering::Thread => "thread",
                TxSteering::Hash => "hash",
            };
            info!(LOG, "{}: Tx packet steering mode has been set to '{mode}'.", port.netdev.name());
            steered = self.steer(no);
            if steered.is_err() {
                // Nothing changed yet: the next attempt is to find that.
                self.ports.entry(no.0).and_modify(|p| p.config.steering = old.steering);
            }
        }
        if self.ports.get(&no.0).is_some_and(|p| p.receives) {
            self.schedule();
        }
        steered
    }

    /// Has all threads send to a port as its `tx-steering` says, with the queues that are open: each changes between two
    /// packets, and none is lost.
    fn steer(&mut self, no: DpPort) -> Result<(), DpError> {
        let threads = self.threads.len();
        // A port without queues follows its settings when it gets some.
        let Some(port) = self.ports.get(&no.0).filter(|p| !p.drops.is_empty()) else { return Ok(()) };
        let (netdev, hashed) = (&port.netdev, port.is_hashed());
        let have = netdev.n_txq();
        let pool = match &port.pool {
            Some(pool) => Arc::clone(pool),
            None if hashed => {
                // The threads put theirs in.
                let spare = |q| if q < threads { Ok(None) } else { netdev.tx_queue(q).map(Some) };
                Arc::new(Pool::new((0..have).map(spare).collect::<netdev::Result<_>>()?))
            }
            None => return Ok(()),
        };
        for i in 0..threads {
            let own = (have >= threads).then_some(i);
            let steering = Steering { pool: Arc::clone(&pool), hashed, own };
            if self.common.send(self.threads[i].id, Cmd::Steer(no, steering)) {
                self.answer(i);
            }
        }
        if let Some(port) = self.ports.get_mut(&no.0) {
            port.pool = (hashed || have < threads).then_some(pool);
        }
        Ok(())
    }

    pub(crate) fn renumber_port(&mut self, old: DpPort, new: DpPort) -> Result<(), DpError> {
        if self.ports.contains_key(&new.0) {
            return Err(DpError::PortInUse(new));
        }
        let found = self.ports.get(&old.0).map(|p| (Arc::clone(&p.netdev), p.config.clone()));
        let Some((netdev, config)) = found else { return Ok(()) };
        self.del_port(old);
        self.add_port(netdev, Some(new), true)?;
        self.set_port_config(new, config)
    }

    pub(crate) fn port_changed(&mut self, no: DpPort) -> Result<(), DpError> {
        let Some(netdev) = self.ports.get(&no.0).map(|p| Arc::clone(&p.netdev)) else { return Ok(()) };
        self.take_back(no);
        let changed = netdev.reconfigure();
        // Also after a refusal: the device goes on as it was.
        let given = self.give_out(no);
        self.schedule();
        given?;
        Ok(changed?)
    }

    /// Takes all queues of a port from all threads and closes them.
    fn take_back(&mut self, no: DpPort) {
        if !self.ports.contains_key(&no.0) {
            return;
        }
        // The io thread, which is the last, gives it back when the others have handed over what they had for it.
        for i in 0..self.threads.len() {
            if self.common.send(self.threads[i].id, Cmd::TakePort(no)) {
                drop(self.answer(i));
            }
        }
        if let Some(p) = self.ports.get_mut(&no.0) {
            for q in p.rxqs.drain(..) {
                match p.histories.get_mut(q.queue) {
                    Some(h) => *h = q.history,
                    None => p.histories.push(q.history),
                }
            }
            p.pool = None;
            p.dropped += p.drops.drain(..).map(|d| d.get()).sum::<u64>();
        }
    }

    /// Opens the queues of a port and gives them to the threads.
    fn give_out(&mut self, no: DpPort) -> Result<(), DpError> {
        let given = self.give_tx(no).and_then(|()| self.give_rx(no));
        if given.is_err() {
            self.take_back(no);
        }
        given
    }

    fn give_tx(&mut self, no: DpPort) -> Result<(), DpError> {
        let Some(port) = self.ports.get_mut(&no.0) else { return Ok(()) };
        let (netdev, n) = (Arc::clone(&port.netdev), self.threads.len());
        let relayed = !netdev.is_pmd();
        netdev.set_n_txq(if relayed { 1 } else { n })?;
        let have = netdev.n_txq();
        if have == 0 {
            return Err(netdev::Error::Device(format!("{}: no transmit queue", netdev.name())).into());
        }
        let hashed = port.is_hashed();
        if !relayed && (have < n || hashed) {
            let queues = (0..have).map(|q| netdev.tx_queue(q).map(Some)).collect::<netdev::Result<_>>()?;
            port.pool = Some(Arc::new(Pool::new(queues)));
        }
        for (i, t) in self.threads.iter().enumerate() {
            let (sink, max) = if relayed && !t.id.is_non_pmd() {
                (Sink::Relay, usize::MAX)
            } else if let Some(pool) = port.pool.as_ref().map(Arc::clone) {
                let max = pool.max_frame();
                (if hashed { Sink::Hashed(pool, i % have) } else { Sink::Pooled(pool, None) }, max)
            } else {
                let q = netdev.tx_queue(if relayed { 0 } else { i })?;
                let max = q.max_frame();
                (Sink::Own(q), max)
            };
            let cell = Arc::new(Drops::default());
            port.drops.push(Arc::clone(&cell));
            self.common.send(t.id, Cmd::AddTx(Box::new(TxPort::new(no, sink, max, cell))));
        }
        Ok(())
    }

    fn give_rx(&mut self, no: DpPort) -> Result<(), DpError> {
        let port = self.ports.get(&no.0).filter(|p| p.receives);
        let Some(netdev) = port.map(|p| Arc::clone(&p.netdev)) else { return Ok(()) };
        for q in 0..netdev.n_rxq() {
            let device = netdev.rx_queue(q)?;
            let known = self.ports.get(&no.0).and_then(|p| p.histories.get(q).cloned());
            let history = known.unwrap_or_default();
            let upcalls = Arc::new(UpcallCounters::default());
            let rxq = Box::new(Rxq {
                port: no,
                index: q,
                queue: device,
                history: Arc::clone(&history),
                cycles: 0,
                account: Account::new(Arc::clone(&upcalls)),
            });
            // A PMD gets it when all queues are spread.
            let (pmd, parked) = if netdev.is_pmd() {
                (None, Some(rxq))
            } else {
                self.common.send(PmdId::NON_PMD, Cmd::AddRx(rxq));
                (Some(PmdId::NON_PMD), None)
            };
            if let Some(p) = self.ports.get_mut(&no.0) {
                p.rxqs.push(RxqEntry { pmd, queue: q, history, upcalls, parked });
            }
        }
        Ok(())
    }

    // -- listings

    pub(crate) fn ports(&self) -> Vec<PortInfo> {
        let info = |(no, p): (&u32, &Port)| PortInfo {
            no: DpPort(*no),
            netdev: Arc::clone(&p.netdev),
            tx_dropped: p.dropped + p.drops.iter().map(|d| d.get()).sum::<u64>(),
        };
        self.ports.iter().map(info).collect()
    }

    pub(crate) fn subtable_count(&self) -> u64 {
        self.threads.iter().map(|t| t.shared.subtables.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn flow_count(&self) -> usize {
        self.threads.iter().map(|t| t.shared.flows.load(Ordering::Relaxed) as usize).sum()
    }

    pub(crate) fn pmd_stats(&self) -> Vec<(PmdId, NumaId, PmdStats)> {
        self.threads.iter().map(|t| (t.id, t.numa, t.shared.read().since(&t.base))).collect()
    }

    pub(crate) fn total_stats(&self) -> PmdStats {
        self.threads.iter().fold(self.retired, |sum, t| sum.plus(&t.shared.read()))
    }

    /// Packets that megaflows have counted, of all threads that ever were; `None` while some are under way.
    pub(crate) fn settled(&self) -> Option<u64> {
        let retired = Some(self.retired.packets());
        self.threads.iter().map(|t| t.shared.settled()).fold(retired, |a, b| Some(a?.wrapping_add(b?)))
    }

    pub(crate) fn clear_stats(&mut self, pmd: Option<PmdId>) {
        let now = self.now_ms();
        for t in self.threads.iter_mut().filter(|t| pmd.is_none_or(|p| p == t.id)) {
            t.base = t.shared.read();
            t.base_ms = now;
            self.common.send(t.id, Cmd::ClearRounds);
        }
    }

    pub(crate) fn perf(&self, pmd: PmdId) -> Option<Arc<Perf>> {
        self.threads.iter().find(|t| t.id == pmd).map(|t| Arc::clone(&t.perf))
    }

    pub(crate) fn set_perf_log(&mut self, log: PerfLog) {
        self.perf_log = log;
        for t in &self.threads {
            self.common.send(t.id, Cmd::LogRounds(log));
        }
    }

    /// Logs the suspicious rounds that threads reported.
    pub(crate) fn log_reports(&self) {
        for r in self.threads.iter().flat_map(|t| t.perf.take_reports()) {
            for text in suspicious(&r) {
                infra::vlog_rl!(PERF_LOG, PERF_LIMIT, Warn, "{text}");
            }
        }
    }

    pub(crate) fn stats_age_ms(&self, pmd: PmdId) -> u64 {
        let base = self.threads.iter().find(|t| t.id == pmd).map_or(0, |t| t.base_ms);
        self.now_ms().saturating_sub(base)
    }

    /// Receive queues by PMD, with what they cost in the last `intervals`.
    pub(crate) fn pmd_rxqs(&self, intervals: usize) -> Vec<PmdRxqs> {
        let list = |t: &Thread| {
            let mut rxqs: Vec<RxqInfo> = Vec::new();
            for (no, p) in &self.ports {
                rxqs.extend(p.rxqs.iter().filter(|q| q.pmd == Some(t.id)).map(|q| RxqInfo {
                    port: p.netdev.name().to_owned(),
                    no: DpPort(*no),
                    queue: q.queue,
                    enabled: true,
                    upcalls: q.upcalls.upcalls.load(Ordering::Relaxed),
                    upcall_cycles: q.upcalls.cycles.load(Ordering::Relaxed),
                    held_cycles: q.upcalls.held.load(Ordering::Relaxed),
                    refused: q.upcalls.refused.load(Ordering::Relaxed),
                    cycles: q.history.sum(intervals),
                }));
            }
            rxqs.sort_by(|a, b| (&a.port, a.queue).cmp(&(&b.port, b.queue)));
            let all = infra::clock::tsc_hz() * intervals.min(INTERVALS) as u64 * INTERVAL_MS / 1_000;
            // The interval in which queues were spread tells nothing.
            let known = t.history.ended().wrapping_sub(t.spread_at) > 1;
            let cycles = if known { all } else { 0 };
            let busy_cycles = t.history.sum(intervals);
            PmdRxqs { pmd: t.id, numa: t.numa, isolated: t.isolated, cycles, busy_cycles, rxqs }
        };
        self.threads.iter().filter(|t| !t.id.is_non_pmd()).map(list).collect()
    }
}

//! The loop of a datapath thread: commands, receive queues, timers; and the waiting of the io thread.
//!
//! [`Worker::iterate`] is one round; PMD threads run it for ever, tests call it by hand.
//! Neighbours: `dp` sends [`Cmd`]s and reads [`Reply`]s; `engine` takes the packets. Threads: owned by one.

use crate::api::{Clock, FlowPut, PmdId, ThreadHook};
use crate::classifier::BURST;
use crate::coverage;
use crate::drops::Drop;
use crate::engine::{Engine, Meta, Missing};
use crate::fairness::{Account, Bound, Charge, Verdict};
use crate::perf::{Perf, PerfLog, Recorder};
use crate::shared::SharedFlow;
use crate::sleep::Sleep;
use crate::stats::{Intervals, SharedStats, INTERVAL_MS};
use crate::tx::{Relayed, Steering, TxPort};
use crate::xps::IDLE_MS;
use crate::FlowEvent;
use flow::{DpAction, DpPort, Flow};
use infra::clock;
use infra::poll::Poller;
use infra::ring::{Producer, WakeConsumer};
use netdev::RxQueue;
use packet::{Batch, Packet};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Commands taken between two bursts.
const COMMANDS_A_ROUND: usize = 64;
/// Packets of one PMD that the io thread sends in a turn; and turns that empty a ring which nobody fills.
const RELAYED_A_TURN: usize = BURST * 8;
const RELAY_TURNS: usize = RELAY_RING / RELAYED_A_TURN;
/// Packets that wait for the io thread.
pub(crate) const RELAY_RING: usize = 4_096;
/// Megaflows of a port removed between two bursts.
const PURGED_A_TURN: usize = 1_024;
/// Idle rounds between two publications of counters.
const QUIET_ROUNDS: u64 = 256;
/// Milliseconds between two sortings of the subtables.
const OPTIMIZE_MS: u64 = 1_000;

/// A receive queue and what belongs to it.
pub(crate) struct Rxq {
    pub(crate) port: DpPort,
    pub(crate) index: usize,
    pub(crate) queue: Box<dyn RxQueue>,
    pub(crate) history: Arc<Intervals>,
    /// Cycles of the present interval.
    pub(crate) cycles: u64,
    /// What its misses cost.
    pub(crate) account: Account,
}

/// What a thread is told.
pub(crate) enum Cmd {
    AddTx(Box<TxPort>),
    AddRx(Box<Rxq>),
    /// Sends to the port otherwise.
    Steer(DpPort, Steering),
    /// Gives all queues of the port back.
    TakePort(DpPort),
    /// Gives one receive queue of the port back.
    TakeRx(DpPort, usize),
    /// Removes megaflows of packets received from the port.
    PurgePort(DpPort),
    Config {
        emc_insert_inv_prob: u32,
        tx_flush_interval_us: u32,
        vlan_limit: u8,
        upcall_share: u32,
        flow_self_check: u32,
        max_sleep_us: u32,
        perf_metrics: bool,
    },
    FlowPut(Box<FlowPut>),
    FlowDelete(Arc<SharedFlow>),
    FlowActions(Arc<SharedFlow>, Arc<[DpAction]>),
    Execute(Box<Execute>),
    /// How suspicious rounds are reported.
    LogRounds(PerfLog),
    /// Forgets recorded rounds.
    ClearRounds,
    AddRelay(WakeConsumer<Relayed>),
    Exit,
}

/// A packet-out.
pub(crate) struct Execute {
    pub(crate) packet: Packet,
    pub(crate) flow: Flow,
    pub(crate) actions: Arc<[DpAction]>,
}

/// What a thread answers.
pub(crate) enum Reply {
    /// The queues of a port, for control to close.
    Took { _rx: Vec<Rxq>, _tx: Option<Box<TxPort>> },
    /// A receive queue, for another thread.
    TookRx(Option<Box<Rxq>>),
    /// The command before is done.
    Done,
    /// It is done in part, and to be given again.
    More,
    /// The thread ends; events that found the ring full.
    Ended(VecDeque<FlowEvent>),
}

/// One datapath thread.
pub(crate) struct Worker {
    pub(crate) engine: Engine,
    rxqs: Vec<Rxq>,
    cmds: WakeConsumer<Cmd>,
    replies: Producer<Reply>,
    relays: Vec<WakeConsumer<Relayed>>,
    shared: Arc<SharedStats>,
    history: Arc<Intervals>,
    recorder: Box<Recorder>,
    /// Whether rounds are recorded.
    recording: bool,
    sleep: Sleep,
    /// Sleeps are counted and not slept.
    awake: bool,
    clock: Clock,
    /// The clock is asked every round (it may be stopped or made up).
    exact: bool,
    batch: Batch,
    bound: Bound,
    hz: u64,
    last_tsc: u64,
    clock_tsc: u64,
    /// Busy cycles of the present interval.
    busy: u64,
    next_interval_ms: u64,
    next_optimize_ms: u64,
    /// Drops as last published.
    published: [u64; Drop::COUNT],
    /// Bursts received and sent that were counted as events.
    counted: (u64, u64),
    ended: bool,
}

/// What a worker is made of.
pub(crate) struct WorkerParts {
    pub(crate) engine: Engine,
    pub(crate) cmds: WakeConsumer<Cmd>,
    pub(crate) replies: Producer<Reply>,
    pub(crate) shared: Arc<SharedStats>,
    pub(crate) history: Arc<Intervals>,
    pub(crate) perf: Arc<Perf>,
    pub(crate) clock: Clock,
    pub(crate) exact: bool,
    /// Never to sleep really: there is no thread.
    pub(crate) awake: bool,
}

impl Worker {
    pub(crate) fn new(p: WorkerParts) -> Worker {
        let now = (p.clock)();
        let tsc = clock::tsc();
        let mut engine = p.engine;
        engine.now_ms = now;
        Worker {
            engine,
            rxqs: Vec::new(),
            cmds: p.cmds,
            replies: p.replies,
            relays: Vec::new(),
            shared: p.shared,
            history: p.history,
            recorder: Box::new(Recorder::new(p.perf, clock::tsc_hz())),
            recording: false,
            sleep: Sleep::default(),
            awake: p.awake,
            clock: p.clock,
            exact: p.exact,
            batch: Batch::new(),
            bound: Bound::new(clock::tsc_hz()),
            hz: clock::tsc_hz(),
            last_tsc: tsc,
            clock_tsc: tsc,
            busy: 0,
            next_interval_ms: now + INTERVAL_MS,
            next_optimize_ms: now + OPTIMIZE_MS,
            published: [0; Drop::COUNT],
            counted: (0, 0),
            ended: false,
        }
    }

    /// Which thread this is.
    pub(crate) fn id(&self) -> PmdId {
        self.engine.id
    }

    /// One round. Returns packets received.
    pub(crate) fn iterate(&mut self) -> usize {
        let commands = self.commands(COMMANDS_A_ROUND);
        let start = clock::tsc();
        self.bound.pass(start.wrapping_sub(self.last_tsc));
        self.tick(start);
        let mut mark = start;
        let (mut total, mut most) = (0, 0);
        for i in 0..self.rxqs.len() {
            self.engine.missing = Missing::default();
            let account = &self.rxqs[i].account;
            if account.in_debt() && (account.waits(self.bound.time(mark)) || !self.admit(i, mark)) {
                continue;
            }
            let n = self.poll_queue(i, mark);
            if n > 0 {
                total += n;
                most = most.max(n);
                let now = clock::tsc();
                let q = &mut self.rxqs[i];
                let spent = now.wrapping_sub(mark);
                q.cycles += spent;
                if self.engine.missing.packets == 0 {
                    self.bound.pass(spent);
                    q.account.hit(n, self.bound.time(now));
                } else {
                    self.charge(i, n, mark, now);
                }
                mark = now;
            }
        }
        // What comes next is no queue's: packet-outs, packets of other threads.
        self.engine.missing = Missing::default();
        if !self.relays.is_empty() {
            total += self.take_relayed();
        }
        let e = &mut self.engine;
        if e.tx.is_dirty() {
            e.tx.flush_due(mark, &mut e.stats);
        }
        if !e.out.late.is_empty() {
            e.out.retry();
        }
        self.account(start, mark, total, commands);
        if self.sleep.is_on() {
            self.rest(most);
        }
        total
    }

    /// Sleeps, if there was little to do.
    #[cold]
    fn rest(&mut self, most: usize) {
        let Some(time) = self.sleep.after(most) else { return };
        let e = &mut self.engine;
        e.tx.flush_all(&mut e.stats);
        let before = clock::tsc();
        if !self.awake {
            std::thread::sleep(time);
        }
        let (after, s) = (clock::tsc(), &mut self.engine.stats);
        s.sleep_iterations += 1;
        s.sleep_cycles += after.wrapping_sub(before);
        s.idle_cycles += before.wrapping_sub(self.last_tsc);
        self.last_tsc = after;
        self.publish();
    }

    /// Whether a queue whose misses cost others too much is polled now.
    #[cold]
    fn admit(&mut self, i: usize, now: u64) -> bool {
        let now = self.bound.time(now);
        let verdict = self.bound.verdict(&mut self.rxqs, i, now, |q| &mut q.account);
        self.engine.missing.refuse = verdict == Verdict::HitsOnly;
        verdict != Verdict::Wait
    }

    /// Charges a queue for a burst with misses.
    #[cold]
    fn charge(&mut self, i: usize, n: usize, start: u64, now: u64) {
        let m = self.engine.missing;
        let burst = now.saturating_sub(start);
        self.engine.stats.upcall_cycles += m.cycles;
        let c = Charge { burst, upcalls: m.cycles, misses: m.packets, refused: m.refuse };
        if let Some(q) = self.rxqs.get_mut(i) {
            self.bound.charge(&mut q.account, n, self.bound.time(now), &c);
        }
    }

    /// Receives a burst from one queue and takes it through the datapath.
    #[inline(always)]
    fn poll_queue(&mut self, i: usize, now: u64) -> usize {
        let Some(q) = self.rxqs.get_mut(i) else { return 0 };
        let lost = q.queue.recv(&mut self.batch);
        let n = self.batch.len();
        let e = &mut self.engine;
        if lost > 0 {
            e.stats.received += u64::from(lost);
            e.stats.drop_n(Drop::RxQueue, lost as usize);
            self.shared.begin(&e.stats);
        }
        if n == 0 {
            return 0;
        }
        let meta = Meta::received(q.port.0, e.vlan_limit);
        e.stats.received += n as u64;
        e.stats.batches += 1;
        e.now_tsc = now;
        self.shared.begin(&e.stats);
        e.process(&mut self.batch, &meta, None, 0);
        if e.tx.flush_cycles == 0 {
            e.tx.flush_all(&mut e.stats);
        }
        n
    }

    /// Sends what PMDs handed over (io thread).
    fn take_relayed(&mut self) -> usize {
        let (e, mut n) = (&mut self.engine, 0);
        for r in &mut self.relays {
            for _ in 0..RELAYED_A_TURN {
                let Some((port, p)) = r.pop() else { break };
                n += 1;
                e.stats.relayed += 1;
                e.tx.push(port, p, 0, &mut e.stats);
            }
        }
        self.relays.retain(|r| !r.is_abandoned() || !r.is_empty());
        if n > 0 {
            e.tx.flush_all(&mut e.stats);
        }
        n
    }

    /// Cycle accounts and publication of counters.
    #[inline(always)]
    fn account(&mut self, start: u64, mark: u64, total: usize, commands: usize) {
        let s = &mut self.engine.stats;
        s.iterations += 1;
        // What lies between the rounds belongs to the round that follows.
        let begin = self.last_tsc;
        self.last_tsc = if total > 0 { mark } else { start };
        let spent = self.last_tsc.wrapping_sub(begin);
        if total > 0 {
            s.busy_iterations += 1;
            s.busy_cycles += spent;
            self.busy += spent;
        } else {
            s.idle_cycles += spent;
        }
        if self.recording {
            self.recorder.record(s, spent, total, (self.engine.now_ms, self.last_tsc));
        }
        if total > 0 || commands > 0 || self.exact || s.iterations.is_multiple_of(QUIET_ROUNDS) {
            self.publish();
        }
    }

    /// Publishes the counters.
    #[inline(always)]
    fn publish(&mut self) {
        self.shared.publish(&self.engine.stats);
        let flows = self.engine.flows.len() as u64;
        if self.shared.flows.load(Ordering::Relaxed) != flows {
            self.shared.flows.store(flows, Ordering::Relaxed);
            self.shared.subtables.store(self.engine.subtables() as u64, Ordering::Relaxed);
        }
        self.publish_drops();
    }

    /// Publishes the drops and counts the new ones as events.
    #[inline(always)]
    fn publish_drops(&mut self) {
        let s = &self.engine.stats;
        if s.drops == self.published {
            return;
        }
        for &d in Drop::ALL {
            let new = s.drops[d as usize] - self.published[d as usize];
            if new > 0 {
                d.counter().add(new);
            }
        }
        self.shared.publish_drops(s);
        self.published = s.drops;
    }

    /// Counts the bursts since the last time as events: seldom, as that costs a little.
    fn count_bursts(&mut self) {
        let now = (self.engine.stats.batches, self.engine.stats.sent_batches);
        coverage::RECEIVED.add(now.0 - self.counted.0);
        coverage::SENT.add(now.1 - self.counted.1);
        self.counted = now;
    }

    /// Time and what hangs on it.
    #[inline(always)]
    fn tick(&mut self, tsc: u64) {
        if !self.exact && tsc.wrapping_sub(self.clock_tsc) < self.hz / 1_000 {
            return;
        }
        self.clock_tsc = tsc;
        let now = (self.clock)();
        self.engine.now_ms = now;
        if now >= self.next_optimize_ms {
            self.next_optimize_ms = now + OPTIMIZE_MS;
            self.engine.optimize();
            self.count_bursts();
            self.engine.tx.release(tsc.saturating_sub(self.hz / 1_000 * IDLE_MS));
        }
        if now >= self.next_interval_ms {
            self.next_interval_ms = now + INTERVAL_MS;
            self.history.push(std::mem::take(&mut self.busy));
            for q in &mut self.rxqs {
                q.history.push(std::mem::take(&mut q.cycles));
            }
        }
    }

    /// Takes up to `max` commands.
    pub(crate) fn commands(&mut self, max: usize) -> usize {
        let mut n = 0;
        while n < max {
            let Some(cmd) = self.cmds.pop() else { break };
            n += 1;
            self.command(cmd);
        }
        n
    }

    #[cold]
    fn command(&mut self, cmd: Cmd) {
        let e = &mut self.engine;
        match cmd {
            Cmd::AddTx(port) => e.tx.insert(*port),
            Cmd::AddRx(mut q) => {
                q.account.restart();
                self.rxqs.push(*q);
            }
            Cmd::Steer(no, steering) => {
                e.tx.steer(no, steering);
                self.reply(Reply::Done);
            }
            Cmd::TakePort(no) => self.take_port(no),
            Cmd::TakeRx(no, index) => {
                // What it received goes out before another thread receives what follows.
                e.tx.flush_all(&mut e.stats);
                let at = self.rxqs.iter().position(|q| q.port == no && q.index == index);
                let taken = at.map(|i| Box::new(self.rxqs.remove(i)));
                self.reply(Reply::TookRx(taken));
            }
            Cmd::PurgePort(no) => {
                let done = e.purge_port(no.0, PURGED_A_TURN);
                self.reply(if done { Reply::Done } else { Reply::More });
            }
            Cmd::Config {
                emc_insert_inv_prob,
                tx_flush_interval_us,
                vlan_limit,
                upcall_share,
                flow_self_check,
                max_sleep_us,
                perf_metrics,
            } => {
                self.sleep.set_max(max_sleep_us);
                if max_sleep_us > 0 && !self.awake {
                    infra::cpu::sleep_precisely();
                }
                if perf_metrics && !self.recording {
                    self.recorder.begin(&e.stats, clock::tsc());
                }
                self.recording = perf_metrics;
                e.emc.set_inv_prob(emc_insert_inv_prob);
                e.vlan_limit = if vlan_limit == 0 { u8::MAX } else { vlan_limit };
                let cycles = u128::from(self.hz) * u128::from(tx_flush_interval_us) / 1_000_000;
                e.tx.flush_cycles = cycles as u64;
                e.set_self_check(flow_self_check);
                // Its clock is the processor's: with another one, time means something else.
                self.bound.set_share(if self.exact { 100 } else { upcall_share });
            }
            Cmd::FlowPut(put) => e.put(*put),
            Cmd::FlowDelete(flow) => {
                if let Some(idx) = e.flows.find(&flow) {
                    e.remove(idx);
                }
            }
            Cmd::FlowActions(flow, actions) => {
                if let Some(idx) = e.flows.find(&flow) {
                    e.flows.set_actions(idx, actions);
                }
            }
            Cmd::Execute(x) => self.execute(*x),
            Cmd::LogRounds(log) => self.recorder.set_log(log),
            Cmd::ClearRounds => self.recorder.clear(),
            Cmd::AddRelay(ring) => self.relays.push(ring),
            Cmd::Exit => self.end(),
        }
    }

    /// Gives all queues of a port back.
    fn take_port(&mut self, no: DpPort) {
        // What PMDs handed over for it.
        for _ in 0..RELAY_TURNS {
            if self.take_relayed() == 0 {
                break;
            }
        }
        let e = &mut self.engine;
        let tx = e.tx.remove(no, &mut e.stats);
        let (gone, kept) = std::mem::take(&mut self.rxqs).into_iter().partition(|q| q.port == no);
        self.rxqs = kept;
        self.reply(Reply::Took { _rx: gone, _tx: tx });
    }

    /// Lets go of everything.
    fn end(&mut self) {
        let e = &mut self.engine;
        e.purge();
        e.out.retry();
        e.tx.flush_all(&mut e.stats);
        self.shared.publish(&self.engine.stats);
        self.shared.flows.store(0, Ordering::Relaxed);
        self.publish_drops();
        self.count_bursts();
        self.ended = true;
        let late = std::mem::take(&mut self.engine.out.late);
        self.reply(Reply::Ended(late));
    }

    fn reply(&mut self, r: Reply) {
        // There is room: control waits for each reply before the next such command.
        let _ = self.replies.push(r);
    }

    fn execute(&mut self, x: Execute) {
        let e = &mut self.engine;
        e.stats.executed += 1;
        self.shared.begin(&e.stats);
        let mut batch = Batch::new();
        // An empty batch takes one.
        let _ = batch.push(x.packet);
        let mut meta = Meta::from_flow(&x.flow, e.vlan_limit);
        let mut hashes = [0; BURST];
        hashes[0] = x.flow.dp_hash;
        e.run(&mut batch, &x.actions, &mut meta, &mut hashes, 0);
        e.tx.flush_all(&mut e.stats);
    }

    /// Sleeps until a descriptor, a command or a relayed packet wants attention.
    fn wait(&mut self, poller: &mut Poller) {
        let mut idle = self.cmds.prepare_sleep();
        for r in &self.relays {
            idle &= r.prepare_sleep();
        }
        if idle {
            poller.fd_in(self.cmds.waker().fd());
            let busy =
                self.rxqs.iter().any(|q| q.queue.poll_fd().is_none()) || !self.engine.out.late.is_empty();
            self.rxqs.iter().filter_map(|q| q.queue.poll_fd()).for_each(|fd| poller.fd_in(fd));
            poller.timer_in(if busy { 1 } else { OPTIMIZE_MS as i64 });
            poller.block();
        }
        self.cmds.awake();
        self.relays.iter().for_each(|r| r.awake());
    }

    /// Runs until told to end.
    pub(crate) fn run(mut self, poller: Option<Poller>) {
        match poller {
            None => {
                while !self.ended {
                    self.iterate();
                }
            }
            Some(mut poller) => {
                while !self.ended {
                    if self.iterate() == 0 && !self.ended {
                        self.wait(&mut poller);
                    }
                }
            }
        }
    }
}

/// What a new thread does before its loop.
pub(crate) fn enter(id: PmdId, name: &str, hook: Option<&ThreadHook>) {
    infra::cpu::name_thread(name);
    if let Some(core) = id.core() {
        // Without the right to pin (containers) the thread runs where the kernel lets it.
        let _ = infra::cpu::pin(core);
    }
    infra::coverage::register_thread();
    // From here on counting allocates nothing and takes no lock.
    coverage::register_all();
    if let Some(hook) = hook {
        hook(id);
    }
}

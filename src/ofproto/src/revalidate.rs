//! The shared flow table and its revalidation.
//!
//! Every megaflow of every poll-mode thread is announced here. A sweep looks at all of them: removes the idle ones,
//! translates again what may have changed, pushes packet counts to rules, tables, ports and MAC entries, and adapts
//! the flow limit to its own duration. A sweep is a plain function of a time, so that tests drive it without threads.
//! Neighbours: `datapath` (events in, commands out), `upcall` (translation), `snapshot` (what changes). Threads: one
//! revalidator thread runs sweeps; main may ask for one, or for a push of counters.

use crate::self_check::{has_extra, Suspects};
use crate::snapshot::World;
use crate::upcall::{cache_of, translate_flow, Purpose, Upcalls};
use crate::xlate::{CreditStats, XlateCache, XlateOut};
use datapath::{FlowEvent, FlowStats, Provider, SharedFlow};
use flow::DpAction;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
/// Least time between two starts of sweeps, ms.
const MIN_INTERVAL_MS: u64 = 5;
/// How often announcements are taken between sweeps: while they come, and while none do, ms.
const BUSY_SLICE_MS: u64 = 10;
const QUIET_SLICE_MS: u64 = 100;
/// Idle time when there are too many flows, ms.
const CROWDED_IDLE_MS: u64 = 100;
/// Most events taken at once, so that a flood of new flows does not keep a sweep from starting.
const MAX_EVENTS: usize = 1 << 20;

/// Flows of a dump taken at once.
const DUMP_BATCH: usize = 50;

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

/// Bookkeeping of one megaflow.
struct Ukey {
    flow: Arc<SharedFlow>,
    /// Counters that have been pushed.
    pushed: FlowStats,
    /// Removal was asked for.
    evicting: bool,
}

#[derive(Default)]
struct FlowTable {
    keys: Vec<Ukey>,
    /// Place of a flow, by the address of its shared part.
    index: HashMap<usize, usize>,
    n_evicting: usize,
}

impl FlowTable {
    fn add(&mut self, flow: Arc<SharedFlow>) {
        let at = Arc::as_ptr(&flow) as usize;
        if self.index.insert(at, self.keys.len()).is_none() {
            self.keys.push(Ukey { flow, pushed: FlowStats::default(), evicting: false });
        }
    }

    fn remove(&mut self, flow: &Arc<SharedFlow>) -> Option<Ukey> {
        let at = self.index.remove(&(Arc::as_ptr(flow) as usize))?;
        let key = self.keys.swap_remove(at);
        if let Some(moved) = self.keys.get(at) {
            self.index.insert(Arc::as_ptr(&moved.flow) as usize, at);
        }
        self.n_evicting -= usize::from(key.evicting);
        Some(key)
    }

    fn live(&self) -> usize {
        self.keys.len() - self.n_evicting
    }
}

/// What is to become of a flow.
enum Verdict {
    Keep,
    Modify(Arc<[DpAction]>),
    Delete,
}

/// The revalidator of one datapath.
pub struct Revalidator {
    world: Arc<World>,
    upcalls: Arc<Upcalls>,
    dp: Arc<dyn Provider>,
    config: Mutex<RevalidateConfig>,
    table: Mutex<FlowTable>,
    /// One sweep at a time.
    sweeping: Mutex<XlateOut>,
    dump_ms: AtomicU64,
    avg_flows: AtomicUsize,
    max_flows: AtomicUsize,
    n_sweeps: AtomicU64,
    suspects: Suspects,
    swept: (Mutex<()>, Condvar),
    purge: AtomicBool,
    paused: AtomicBool,
    stop: AtomicBool,
    thread_id: AtomicU32,
}

impl Revalidator {
    /// A revalidator for the flows of `dp`.
    pub fn new(world: Arc<World>, upcalls: Arc<Upcalls>, dp: Arc<dyn Provider>) -> Revalidator {
        Revalidator {
            world,
            upcalls,
            dp,
            config: Mutex::new(RevalidateConfig::default()),
            table: Mutex::new(FlowTable::default()),
            sweeping: Mutex::new(XlateOut::default()),
            dump_ms: AtomicU64::new(1),
            avg_flows: AtomicUsize::new(0),
            max_flows: AtomicUsize::new(0),
            n_sweeps: AtomicU64::new(0),
            suspects: Suspects::new(),
            swept: (Mutex::new(()), Condvar::new()),
            purge: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread_id: AtomicU32::new(0),
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
        let t = self.table.lock();
        t.keys.iter().filter(|k| !k.evicting).map(|k| k.flow.clone()).collect()
    }

    /// Number of installed flows known.
    pub fn flow_count(&self) -> usize {
        self.table.lock().live()
    }

    /// Takes what the datapath announced. Returns how much it was.
    fn take_events(&self) -> usize {
        let mut t = self.table.lock();
        let mut changed = false;
        let n = self.dp.drain_events(MAX_EVENTS, &mut |event| match event {
            FlowEvent::New(flow) => t.add(flow),
            FlowEvent::Deleted(flow) => {
                if let Some(mut key) = t.remove(&flow) {
                    changed |= push(&mut key);
                }
                flow.set_ctx(None);
            }
            FlowEvent::Suspect(s) => self.suspects.note(*s),
        });
        self.upcalls.set_flow_count(t.live());
        drop(t);
        if changed {
            self.world.bump();
        }
        n
    }

    /// Pushes the packet counts of all flows to rules, tables, ports and MAC entries.
    pub fn push_stats(&self) {
        self.take_events();
        let mut t = self.table.lock();
        let mut changed = false;
        for key in &mut t.keys {
            changed |= push(key);
        }
        drop(t);
        if changed {
            self.world.bump();
        }
    }

    /// Looks at every flow once. `now_ms` is the monotonic clock; `took` tells how long the flows took, for the
    /// flow limit (tests inject it).
    pub fn sweep(&self, now_ms: u64, took: &mut dyn FnMut() -> u64) -> SweepReport {
        let mut out = self.sweeping.lock();
        self.expire_macs(now_ms);
        self.world.recirc().expire(now_ms);
        let wrong = self.suspects.judge(&self.world, now_ms, &mut out);
        wrong.iter().for_each(|f| self.dp.flow_delete(f));
        self.refresh();
        self.take_events();
        let seq = self.world.seq();
        let config = *self.config.lock();
        let purge = self.purge.swap(false, Ordering::AcqRel);
        let mut report = SweepReport::default();
        let mut changed = false;
        let mut t = self.table.lock();
        let n = t.live();
        let limit = self.upcalls.flow_limit();
        let crowded = n > limit;
        let kill_all = purge || n > limit.saturating_mul(2);
        let max_idle = if crowded { CROWDED_IDLE_MS.min(config.max_idle_ms) } else { config.max_idle_ms };
        report.flows = n;
        let mut evicted = 0;
        for key in t.keys.iter_mut().filter(|k| !k.evicting) {
            let stats = key.flow.stats();
            let packets = stats.packets.saturating_sub(key.pushed.packets);
            let used = if stats.used_ms == 0 { key.flow.created_ms } else { stats.used_ms };
            changed |= push(key);
            let idle = now_ms.saturating_sub(used);
            if kill_all || idle >= max_idle {
                report.expired += 1;
            } else if key.flow.seq.load(Ordering::Relaxed) == seq {
                continue;
            } else {
                report.revalidated += 1;
                let verdict = if self.worth_it(&config, packets, idle) {
                    self.revalidate(&key.flow, seq, now_ms, &mut out)
                } else {
                    Verdict::Delete
                };
                match verdict {
                    Verdict::Keep => continue,
                    Verdict::Modify(actions) => {
                        self.dp.flow_set_actions(&key.flow, actions);
                        report.modified += 1;
                        continue;
                    }
                    Verdict::Delete => report.deleted += 1,
                }
            }
            key.evicting = true;
            evicted += 1;
            self.dp.flow_delete(&key.flow);
        }
        t.n_evicting += evicted;
        drop(t);
        if changed {
            self.world.bump();
        }
        self.take_events();
        self.adapt(n, config.flow_limit, took());
        drop(out);
        self.n_sweeps.fetch_add(1, Ordering::Release);
        let _g = self.swept.0.lock();
        self.swept.1.notify_all();
        report
    }

    /// Has the counters of all flows brought up to date, where they do not come by themselves.
    fn refresh(&self) {
        let Some(dump) = self.dp.dump() else { return };
        let mut batch = Vec::with_capacity(DUMP_BATCH);
        while dump.next(DUMP_BATCH, &mut batch) > 0 {
            batch.clear();
        }
    }

    fn expire_macs(&self, now_ms: u64) {
        let snapshot = self.world.load();
        let mut changed = false;
        for b in snapshot.bridges() {
            changed |= b.macs.expire(now_ms);
        }
        if changed {
            self.world.bump();
        }
    }

    /// Whether translating a flow again is cheaper than letting its next packet do it: always while sweeps are
    /// short, else when it is used enough.
    fn worth_it(&self, config: &RevalidateConfig, packets: u64, idle_ms: u64) -> bool {
        if self.dump_ms.load(Ordering::Relaxed) * 2 < config.max_revalidator_ms
            || config.min_revalidate_pps == 0
        {
            return true;
        }
        packets > 0 && idle_ms * config.min_revalidate_pps < packets.saturating_mul(1000)
    }

    fn revalidate(&self, flow: &Arc<SharedFlow>, seq: u64, now_ms: u64, out: &mut XlateOut) -> Verdict {
        let key = flow.key.flow();
        let known = translate_flow(&self.world, &key, now_ms, Purpose::Revalidate, out);
        if !known || has_extra(&flow.mask.mask(), &out.mask) {
            // What it refers to must not live on until the next translation.
            out.cache.credits.clear();
            return Verdict::Delete;
        }
        let old = flow.actions();
        let cache = XlateCache { credits: std::mem::take(&mut out.cache.credits) };
        flow.set_ctx(Some(Box::new(cache)));
        flow.seq.store(seq, Ordering::Relaxed);
        if *old == *out.actions {
            Verdict::Keep
        } else {
            Verdict::Modify(Arc::from(&out.actions[..]))
        }
    }

    /// Adapts the flow limit to the time that a sweep over `n` flows took.
    fn adapt(&self, n: usize, max: usize, took_ms: u64) {
        let duration = took_ms.max(1);
        self.dump_ms.store(duration, Ordering::Relaxed);
        let avg = self.avg_flows.load(Ordering::Relaxed);
        self.avg_flows.store((n + avg) / 2, Ordering::Relaxed);
        self.max_flows.fetch_max(n, Ordering::Relaxed);
        let mut limit = self.upcalls.flow_limit();
        if duration > 2000 {
            limit /= (duration / 1000) as usize;
        } else if duration > 1300 {
            limit = limit * 3 / 4;
        } else if duration < 1000 && n > 2000 && limit < n.saturating_mul(1000) / duration as usize {
            limit += 1000;
        }
        self.upcalls.set_flow_limit(limit.clamp(1000.min(max), max));
    }

    /// Removes every flow (`revalidator/purge`): returns when the sweep that does it is over.
    pub fn purge(&self) {
        self.purge.store(true, Ordering::Release);
        self.wait_sweep();
    }

    /// Waits for a sweep that began after the call (`revalidator/wait`).
    pub fn wait_sweep(&self) {
        if self.thread_id.load(Ordering::Acquire) == 0 {
            return;
        }
        // The one under way may have begun before.
        let target = self.n_sweeps.load(Ordering::Acquire) + 2;
        let mut g = self.swept.0.lock();
        let waits = || !self.stop.load(Ordering::Acquire) && !self.paused.load(Ordering::Acquire);
        while self.n_sweeps.load(Ordering::Acquire) < target && waits() {
            self.world.bump_quietly();
            self.world.wake();
            self.swept.1.wait_for(&mut g, Duration::from_millis(20));
        }
    }

    /// `upcall/show` of this datapath.
    pub fn show(&self) -> String {
        let name = self.dp.name();
        let keys = self.flow_count();
        format!(
            "{name}:\n  flows         : (current {keys}) (avg {}) (max {}) (limit {})\n  dump duration : {}ms\n  \
             ufid enabled : {}\n\n  {}: (keys {keys})\n",
            self.avg_flows.load(Ordering::Relaxed),
            self.max_flows.load(Ordering::Relaxed).max(keys),
            self.upcalls.flow_limit(),
            self.dump_ms.load(Ordering::Relaxed),
            self.upcalls.ufid(),
            self.thread_id.load(Ordering::Relaxed),
        )
    }

    /// The loop of the revalidator thread, `id` being its number in names and listings. Ends after
    /// [`Revalidator::stop`].
    pub fn run(&self, id: u32, clock: &dyn Fn() -> u64) {
        self.thread_id.store(id, Ordering::Release);
        while !self.stop.load(Ordering::Acquire) {
            if self.paused.load(Ordering::Acquire) {
                self.world.wait_change(self.world.seq(), Duration::from_millis(QUIET_SLICE_MS));
                self.take_events();
                continue;
            }
            let seq = self.world.seq();
            let (start, began_ms) = (Instant::now(), clock());
            self.sweep(began_ms, &mut || start.elapsed().as_millis() as u64);
            let config = *self.config.lock();
            let interval = config.max_idle_ms.min(config.max_revalidator_ms);
            self.rest(seq, began_ms.saturating_add(interval), clock);
            let rest = Duration::from_millis(MIN_INTERVAL_MS).saturating_sub(start.elapsed());
            if !rest.is_zero() {
                std::thread::sleep(rest);
            }
        }
    }

    /// Waits for a change or the time `until` on the clock, which may stand still. Meanwhile takes what the datapath
    /// announces, often while much comes, so that the rings of busy threads do not overflow.
    fn rest(&self, seq: u64, until: u64, clock: &dyn Fn() -> u64) {
        let mut busy = true;
        while self.world.seq() == seq && !self.stop.load(Ordering::Acquire) {
            let left = Duration::from_millis(until.saturating_sub(clock()));
            if left.is_zero() || self.purge.load(Ordering::Acquire) {
                return;
            }
            let slice = left.min(Duration::from_millis(if busy { BUSY_SLICE_MS } else { QUIET_SLICE_MS }));
            let began = Instant::now();
            self.world.wait_change(seq, slice);
            if began.elapsed() < slice {
                // Somebody wants a sweep now.
                return;
            }
            busy = self.take_events() > 0;
        }
    }

    /// `revalidator/pause` and `revalidator/resume`: no sweep begins while paused.
    pub fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Release);
        self.world.wake();
    }

    /// Ends [`Revalidator::run`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.world.wake();
    }
}

/// Pushes what is new in a flow's counters. True when a MAC entry changed.
fn push(key: &mut Ukey) -> bool {
    let now = key.flow.stats();
    let delta = CreditStats {
        packets: now.packets.saturating_sub(key.pushed.packets),
        bytes: now.bytes.saturating_sub(key.pushed.bytes),
        used_ms: now.used_ms,
    };
    if delta.packets == 0 {
        return false;
    }
    key.pushed = now;
    key.flow.with_ctx(|ctx| cache_of(ctx).is_some_and(|c| c.push(delta, true)))
}

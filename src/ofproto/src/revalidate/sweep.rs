//! One sweep over the shared flow table: beginning, work that any number of threads share, end.
//!
//! Neighbours: `team` runs it on threads, `table` gives out batches of ukeys. Threads: revalidators; tests.

use super::table::{BATCH, SHARDS};
use super::ukey::Ukey;
use super::{RevalidateConfig, Revalidator, SweepReport};
use crate::coverage;
use crate::self_check::has_extra;
use crate::upcall::{translate_flow, Purpose};
use crate::xlate::XlateOut;
use datapath::SharedFlow;
use flow::DpAction;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// Idle time when there are too many flows, ms.
const CROWDED_IDLE_MS: u64 = 100;

/// A sweep under way.
pub(super) struct Round {
    number: u64,
    now_ms: u64,
    /// Version of tables and configuration that flows are compared with.
    seq: u64,
    config: RevalidateConfig,
    max_idle_ms: u64,
    /// All flows go.
    kill_all: bool,
    purge: bool,
    flows: usize,
    /// The next shard to take.
    cursor: AtomicUsize,
    /// A MAC entry changed.
    changed: AtomicBool,
    expired: AtomicUsize,
    revalidated: AtomicUsize,
    modified: AtomicUsize,
    deleted: AtomicUsize,
}

impl Round {
    fn report(&self) -> SweepReport {
        let n = |c: &AtomicUsize| c.load(Ordering::Relaxed);
        SweepReport {
            flows: self.flows,
            expired: n(&self.expired),
            revalidated: n(&self.revalidated),
            modified: n(&self.modified),
            deleted: n(&self.deleted),
        }
    }
}

/// What the datapath is told once the lock of the shard is free.
enum Order {
    Modify(Arc<SharedFlow>, Arc<[DpAction]>),
    Delete(Arc<SharedFlow>),
}

impl Revalidator {
    /// Looks at every flow once. `now_ms` is the monotonic clock; `took` tells how long the flows took, for the
    /// flow limit (tests inject it).
    pub fn sweep(&self, now_ms: u64, took: &mut dyn FnMut() -> u64) -> SweepReport {
        let mut out = self.sweeping.lock();
        let round = self.begin(now_ms, &mut out);
        self.work(&round, &mut out, &|| false);
        self.end(&round, Some(took()))
    }

    /// Begins a sweep.
    pub(super) fn begin(&self, now_ms: u64, out: &mut XlateOut) -> Round {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        // Before events are taken: a flow that was there when a purge was asked for must be in the table.
        let purge = self.purge.swap(false, Ordering::AcqRel);
        self.expire_macs(now_ms);
        self.world.recirc().expire(now_ms);
        let wrong = self.suspects.judge(&self.world, now_ms, out);
        wrong.iter().for_each(|f| self.dp.flow_delete(f));
        self.refresh();
        self.take_events();
        let seq = self.world.seq();
        let config = *self.config.lock();
        let (flows, limit) = (self.table.live(), self.upcalls.flow_limit());
        let crowded = flows > limit;
        let overrun = flows > limit.saturating_mul(2);
        if overrun {
            coverage::LIMIT_KILL.inc();
        }
        let zero = || AtomicUsize::new(0);
        Round {
            number,
            now_ms,
            seq,
            config,
            max_idle_ms: if crowded { CROWDED_IDLE_MS.min(config.max_idle_ms) } else { config.max_idle_ms },
            kill_all: purge || overrun,
            purge,
            flows,
            cursor: zero(),
            changed: AtomicBool::new(false),
            expired: zero(),
            revalidated: zero(),
            modified: zero(),
            deleted: zero(),
        }
    }

    /// Does a share of the work: takes shards until none is left, or `stop` says so.
    pub(super) fn work(&self, round: &Round, out: &mut XlateOut, stop: &dyn Fn() -> bool) {
        let mut orders = Vec::with_capacity(BATCH);
        loop {
            let shard = round.cursor.fetch_add(1, Ordering::Relaxed);
            if shard >= SHARDS {
                return;
            }
            let mut from = usize::MAX;
            loop {
                let more = self.table.batch(shard, &mut from, &mut |k| self.look(k, round, out, &mut orders));
                for order in orders.drain(..) {
                    match order {
                        Order::Modify(flow, actions) => self.dp.flow_set_actions(&flow, actions),
                        Order::Delete(flow) => self.dp.flow_delete(&flow),
                    }
                }
                if stop() {
                    return;
                }
                if !more {
                    break;
                }
            }
            // Rings of threads that make flows while we sweep do not overflow.
            if let Some(turn) = self.drain.try_lock() {
                self.take_events_under(turn);
            }
        }
    }

    /// Decides about one flow. True when it is to be evicted.
    fn look(&self, key: &mut Ukey, round: &Round, out: &mut XlateOut, orders: &mut Vec<Order>) -> bool {
        if !key.is_live() {
            return false;
        }
        if !key.see(round.number) {
            coverage::DUMPED_DUPLICATE.inc();
            return false;
        }
        let count = |c: &AtomicUsize| c.fetch_add(1, Ordering::Relaxed);
        if key.push() {
            round.changed.store(true, Ordering::Relaxed);
        }
        let packets = key.news();
        let used = match key.flow().stats().used_ms {
            0 => key.flow().created_ms,
            used => used,
        };
        let idle = round.now_ms.saturating_sub(used);
        if round.kill_all || idle >= round.max_idle_ms {
            count(&round.expired);
        } else if key.flow().seq.load(Ordering::Relaxed) == round.seq {
            return false;
        } else {
            count(&round.revalidated);
            if self.worth_it(&round.config, packets, idle) {
                match self.translate(key, round, out) {
                    Some(None) => return false,
                    Some(Some(actions)) => {
                        count(&round.modified);
                        orders.push(Order::Modify(key.flow().clone(), actions));
                        return false;
                    }
                    None => {}
                }
            }
            count(&round.deleted);
        }
        orders.push(Order::Delete(key.flow().clone()));
        true
    }

    /// Translates a flow again. `None`: it cannot stay; else the actions that it is to have, if they are others.
    fn translate(
        &self,
        key: &mut Ukey,
        round: &Round,
        out: &mut XlateOut,
    ) -> Option<Option<Arc<[DpAction]>>> {
        let flow = key.flow();
        let packet = flow.key.flow();
        let known = translate_flow(&self.world, &packet, round.now_ms, Purpose::Revalidate, out);
        if !known || has_extra(&flow.mask.mask(), &out.mask) {
            // What it refers to must not live on until the next translation.
            out.cache.credits.clear();
            return None;
        }
        let changed = *flow.actions() != *out.actions;
        flow.seq.store(round.seq, Ordering::Relaxed);
        key.set_credits(std::mem::take(&mut out.cache.credits));
        Some(changed.then(|| Arc::from(&out.actions[..])))
    }

    /// Whether translating a flow again is cheaper than letting its next packet do it: always while sweeps are
    /// short, else when it is used enough.
    fn worth_it(&self, config: &RevalidateConfig, packets: u64, idle_ms: u64) -> bool {
        if self.dump_ms.load(Ordering::Relaxed) * 2 < config.max_revalidator_ms
            || config.min_revalidate_pps == 0
        {
            return true;
        }
        packets > 0 && idle_ms.saturating_mul(config.min_revalidate_pps) < packets.saturating_mul(1000)
    }

    /// Ends a sweep. `took_ms` is how long it took; `None`: it was broken off.
    pub(super) fn end(&self, round: &Round, took_ms: Option<u64>) -> SweepReport {
        if round.changed.load(Ordering::Relaxed) {
            self.world.macs_changed();
        }
        self.take_events();
        match took_ms {
            Some(ms) => {
                self.adapt(round.flows, round.config.flow_limit, ms);
                self.done.store(round.number, Ordering::Release);
            }
            None if round.purge => self.purge.store(true, Ordering::Release),
            None => {}
        }
        let _g = self.swept.0.lock();
        self.swept.1.notify_all();
        round.report()
    }

    /// Has the counters of all flows brought up to date, where they do not come by themselves.
    fn refresh(&self) {
        let Some(dump) = self.dp.dump() else { return };
        let mut batch = Vec::with_capacity(BATCH);
        while dump.next(BATCH, &mut batch) > 0 {
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
            self.world.macs_changed();
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
}

//! Upcall fairness: what misses may cost while another queue of the same thread has packets waiting.
//!
//! Each receive queue has an account in cycles. A burst with misses is charged to it; it is refilled with
//! `pmd-upcall-share` per cent of the time, divided among the queues in debt. While a queue is in debt and another one
//! delivers full bursts without misses (packets wait there), the queue either waits, so that its device drops what it
//! cannot keep, or, when most of its packets hit megaflows, is received without translating its misses. With nobody
//! to be fair to, a queue may take the whole core.
//! Neighbours: `thread` asks before each poll of a queue in debt and charges after each burst with misses. Threads:
//! accounts are owned by one; [`UpcallCounters`] are written by it and read by listings.

use crate::classifier::BURST;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// `pmd-upcall-share` unless configured, per cent.
pub(crate) const DEFAULT_SHARE: u32 = 5;
/// Packets over which hits and misses of a queue are weighed; older ones count half, a quarter...
const RECENT: u32 = 1_024;
/// A queue saves up what it is paid in so many milliseconds, and owes at most so many milliseconds of cycles.
const ALLOWANCE_MS: u64 = 10;
const MAX_DEBT_MS: u64 = 4;
/// A queue that waits is looked at so often, lest it wait for a queue that has fallen silent.
const LOOKS_A_MS: u64 = 20;

/// What upcall fairness did to a receive queue since its port last had its queues opened, whoever polls it.
#[derive(Default, Debug)]
#[repr(align(64))]
pub(crate) struct UpcallCounters {
    /// Misses that were translated.
    pub(crate) upcalls: AtomicU64,
    /// Cycles charged for them.
    pub(crate) cycles: AtomicU64,
    /// Cycles for which it was not polled.
    pub(crate) held: AtomicU64,
    /// Misses that were dropped untranslated.
    pub(crate) refused: AtomicU64,
}

/// Adds to a counter that this thread alone writes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// The account of a receive queue.
#[derive(Default)]
pub(crate) struct Account {
    credit: i64,
    /// When it was refilled.
    refilled: u64,
    /// In debt, it is not looked at before this time.
    wait_until: u64,
    /// When it last delivered a full burst without misses: packets wait there.
    busy_at: u64,
    /// Packets received, and how many of them were known at the last charge.
    packets: u64,
    charged_at: u64,
    hits: u32,
    misses: u32,
    counters: Arc<UpcallCounters>,
}

/// A burst with misses.
pub(crate) struct Charge {
    /// Cycles of the whole burst.
    pub(crate) burst: u64,
    /// Cycles of translation and installation.
    pub(crate) upcalls: u64,
    /// Misses, translated or refused.
    pub(crate) misses: u32,
    /// They were refused.
    pub(crate) refused: bool,
}

/// What a queue in debt may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Receive as usual.
    Go,
    /// Receive, and drop what misses.
    HitsOnly,
    /// Not receive.
    Wait,
}

impl Account {
    pub(crate) fn new(counters: Arc<UpcallCounters>) -> Account {
        Account { counters, ..Account::default() }
    }

    /// Begins anew with the time of another thread.
    pub(crate) fn restart(&mut self) {
        *self = Account::new(Arc::clone(&self.counters));
    }

    /// Whether the bound must be asked before the next poll.
    #[inline(always)]
    pub(crate) fn in_debt(&self) -> bool {
        self.credit < 0
    }

    /// Whether a queue in debt need not be looked at yet.
    #[inline(always)]
    pub(crate) fn waits(&self, now: u64) -> bool {
        now < self.wait_until
    }

    /// Notes a burst without misses that ended at `now`.
    #[inline(always)]
    pub(crate) fn hit(&mut self, n: usize, now: u64) {
        self.packets += n as u64;
        if n == BURST {
            self.busy_at = now;
        }
    }

    fn weigh(&mut self, misses: u32) {
        let hits = (self.packets - self.charged_at).saturating_sub(misses.into());
        self.charged_at = self.packets;
        self.hits += hits.min(RECENT.into()) as u32;
        self.misses += misses;
        while self.hits + self.misses > RECENT {
            self.hits /= 2;
            self.misses /= 2;
        }
    }
}

/// The bound of one thread.
pub(crate) struct Bound {
    /// Per cent; 100: no bound.
    share: u32,
    /// A millisecond in cycles.
    window: u64,
    /// Cycles for which the kernel had stopped the thread: that time is nobody's.
    away: u64,
}

impl Bound {
    pub(crate) fn new(hz: u64) -> Bound {
        Bound { share: 100, window: (hz / 1_000).max(1), away: 0 }
    }

    /// The time that counts here, at `now` on the processor's counter.
    #[inline(always)]
    pub(crate) fn time(&self, now: u64) -> u64 {
        now.wrapping_sub(self.away)
    }

    /// Notes that `spent` cycles passed without misses. Half a millisecond for at most one burst is no work.
    #[inline(always)]
    pub(crate) fn pass(&mut self, spent: u64) {
        if spent > self.window / 2 {
            self.away = self.away.wrapping_add(spent);
        }
    }

    /// Sets the share, per cent.
    pub(crate) fn set_share(&mut self, percent: u32) {
        self.share = percent.clamp(1, 100);
    }

    /// What queue `i` of `all`, which is in debt, may do at `now`.
    #[cold]
    pub(crate) fn verdict<Q>(
        &self,
        all: &mut [Q],
        i: usize,
        now: u64,
        account: fn(&mut Q) -> &mut Account,
    ) -> Verdict {
        let (mut debtors, mut contended) = (0, false);
        for (j, a) in all.iter_mut().map(account).enumerate() {
            debtors += i64::from(a.in_debt());
            contended |= j != i && now.saturating_sub(a.busy_at) < self.window;
        }
        let Some(a) = all.get_mut(i).map(account) else { return Verdict::Go };
        self.refill(a, now, debtors);
        if self.share >= 100 || !contended {
            // What was spent at nobody's expense is not owed.
            a.credit = a.credit.max(0);
        }
        if a.credit >= 0 {
            return Verdict::Go;
        }
        if a.hits > a.misses {
            return Verdict::HitsOnly;
        }
        let owed = a.credit.unsigned_abs() * 100 * debtors.max(1) as u64 / u64::from(self.share);
        let pause = owed.min(self.window / LOOKS_A_MS);
        a.wait_until = now + pause;
        add(&a.counters.held, pause);
        Verdict::Wait
    }

    /// Charges a queue for a burst of `n` packets that ended at `now`.
    #[cold]
    pub(crate) fn charge(&self, a: &mut Account, n: usize, now: u64, c: &Charge) {
        a.packets += n as u64;
        a.weigh(c.misses);
        if c.refused {
            return add(&a.counters.refused, c.misses.into());
        }
        // Of a burst that is mostly misses, reception and lookup are part of their cost.
        let cost = if c.misses as usize * 2 > n { c.burst } else { c.upcalls };
        add(&a.counters.upcalls, c.misses.into());
        add(&a.counters.cycles, cost);
        if self.share < 100 {
            self.refill(a, now, 1);
            // A thread that the kernel stopped within the burst is no reason to punish the queue for long.
            let most = (self.window * MAX_DEBT_MS) as i64;
            a.credit = a.credit.saturating_sub(cost.min(most as u64) as i64).max(-most);
        }
    }

    /// Pays queue `a`, one of `debtors`, for the time since it was paid last.
    fn refill(&self, a: &mut Account, now: u64, debtors: i64) {
        let elapsed = now.saturating_sub(std::mem::replace(&mut a.refilled, now));
        let elapsed = elapsed.min(self.window * ALLOWANCE_MS * 100) as i64;
        let pay = elapsed * i64::from(self.share) / (100 * debtors.max(1));
        let most = (self.window * ALLOWANCE_MS) as i64 * i64::from(self.share) / 100;
        a.credit = a.credit.saturating_add(pay).min(most.max(a.credit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 1_000_000_000;
    const MS: u64 = HZ / 1_000;

    /// A thread that polls queues in turn on a clock made of what bursts cost.
    struct Sim {
        bound: Bound,
        accounts: Vec<Account>,
        now: u64,
        /// Packets received and cycles spent, by queue.
        packets: Vec<u64>,
        cycles: Vec<u64>,
        refused: u64,
    }

    /// What a queue delivers: packets a burst, of which so many miss.
    #[derive(Clone, Copy)]
    struct Load {
        burst: usize,
        misses: u32,
    }

    const HIT: u64 = 100;
    const MISS: u64 = 6_000;
    const IDLE: Load = Load { burst: 0, misses: 0 };
    const FLOOD: Load = Load { burst: BURST, misses: BURST as u32 };
    const STEADY: Load = Load { burst: BURST, misses: 0 };

    impl Sim {
        fn new(queues: usize) -> Sim {
            let mut bound = Bound::new(HZ);
            bound.set_share(DEFAULT_SHARE);
            let accounts = (0..queues).map(|_| Account::default()).collect();
            let (packets, cycles) = (vec![0; queues], vec![0; queues]);
            Sim { bound, accounts, now: 50 * MS, packets, cycles, refused: 0 }
        }

        fn poll(&mut self, i: usize, load: Load) {
            let mut verdict = Verdict::Go;
            if self.accounts[i].in_debt() && self.accounts[i].waits(self.now) {
                verdict = Verdict::Wait;
            } else if self.accounts[i].in_debt() {
                verdict = self.bound.verdict(&mut self.accounts, i, self.now, |a| a);
            }
            if verdict == Verdict::Wait || load.burst == 0 {
                self.now += 10;
                return;
            }
            let refused = verdict == Verdict::HitsOnly;
            let upcalls = if refused { 0 } else { u64::from(load.misses) * MISS };
            let burst = load.burst as u64 * HIT + upcalls;
            self.now += burst;
            self.packets[i] += load.burst as u64;
            self.cycles[i] += burst;
            self.refused += if refused { load.misses.into() } else { 0 };
            let a = &mut self.accounts[i];
            if load.misses == 0 {
                a.hit(load.burst, self.now);
            } else {
                let c = Charge { burst, upcalls, misses: load.misses, refused };
                self.bound.charge(a, load.burst, self.now, &c);
            }
        }

        /// Polls for `ms`, and returns the share of the time spent on each queue.
        fn run(&mut self, ms: u64, loads: &[Load]) -> Vec<f64> {
            let start = self.now;
            self.cycles.fill(0);
            self.packets.fill(0);
            while self.now < start + ms * MS {
                for (i, l) in loads.iter().enumerate() {
                    self.poll(i, *l);
                }
            }
            self.cycles.iter().map(|c| *c as f64 / (self.now - start) as f64).collect()
        }
    }

    #[test]
    fn a_flood_leaves_the_core_to_established_flows() {
        let mut sim = Sim::new(2);
        sim.run(20, &[FLOOD, STEADY]);
        let share = sim.run(1_000, &[FLOOD, STEADY]);
        assert!(share[1] > 0.94, "{share:?}");
        assert!(share[0] > 0.045, "new flows are still set up: {share:?}");
        let counters = &sim.accounts[0].counters;
        let held = counters.held.load(Ordering::Relaxed) / MS;
        assert!((900..=980).contains(&held), "held for {held} ms of 1020");
        assert_eq!(sim.refused, 0);
    }

    #[test]
    fn floods_share_one_budget() {
        let mut sim = Sim::new(5);
        let loads = [FLOOD, FLOOD, FLOOD, FLOOD, STEADY];
        sim.run(100, &loads);
        let share = sim.run(1_000, &loads);
        assert!(share[4] > 0.93, "{share:?}");
        assert!(share[..4].iter().all(|s| *s > 0.007), "{share:?}");
    }

    #[test]
    fn alone_a_flood_has_the_whole_core() {
        let mut sim = Sim::new(2);
        let share = sim.run(100, &[FLOOD, IDLE]);
        assert!(share[0] > 0.99, "{share:?}");
        // Also beside a queue whose packets do not pile up.
        let share = sim.run(100, &[FLOOD, Load { burst: 20, misses: 0 }]);
        assert!(share[0] > 0.98, "{share:?}");
        // What was used then is not held against it.
        sim.run(1, &[FLOOD, STEADY]);
        let share = sim.run(100, &[FLOOD, STEADY]);
        assert!(share[0] > 0.045, "{share:?}");
        // And at once again when the other falls silent.
        sim.run(1, &[FLOOD, IDLE]);
        let share = sim.run(10, &[FLOOD, IDLE]);
        assert!(share[0] > 0.99, "{share:?}");
    }

    #[test]
    fn a_queue_with_mostly_hits_goes_on_without_its_misses() {
        let mut sim = Sim::new(2);
        let mixed = Load { burst: BURST, misses: 4 };
        sim.run(100, &[mixed, STEADY]);
        sim.refused = 0;
        sim.run(100, &[mixed, STEADY]);
        assert_eq!(sim.packets[0] / 1_000, sim.packets[1] / 1_000, "packets of both: {:?}", sim.packets);
        let misses = sim.packets[0] / 8;
        let cost = (misses - sim.refused) * MISS * 100 / (100 * MS);
        assert!((3..=5).contains(&cost), "{cost} % of the core, {} of {misses} refused", sim.refused);
        assert_eq!(sim.accounts[0].counters.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn time_that_the_kernel_takes_is_no_pay() {
        let mut bound = Bound::new(HZ);
        bound.pass(MS / 4);
        assert_eq!(bound.time(50 * MS), 50 * MS, "a long burst");
        bound.pass(12 * MS);
        assert_eq!(bound.time(62 * MS), 50 * MS);
    }

    #[test]
    fn a_queue_that_changes_threads_owes_nothing() {
        let mut sim = Sim::new(2);
        sim.run(20, &[FLOOD, STEADY]);
        sim.now += 1_000 * MS;
        sim.run(20, &[FLOOD, STEADY]);
        // The time of the new thread is behind.
        sim.accounts.iter_mut().for_each(Account::restart);
        sim.now = 50 * MS;
        let upcalls = sim.accounts[0].counters.upcalls.load(Ordering::Relaxed);
        assert!(upcalls > 0 && !sim.accounts[0].in_debt());
        let share = sim.run(100, &[FLOOD, IDLE]);
        assert!(share[0] > 0.99, "{share:?}");
    }

    #[test]
    fn a_few_misses_cost_nobody_anything() {
        let mut sim = Sim::new(2);
        for _ in 0..1_000 {
            sim.poll(0, Load { burst: BURST, misses: 1 });
            sim.run(1, &[STEADY, STEADY]);
        }
        assert_eq!(sim.refused, 0);
        assert_eq!(sim.accounts[0].counters.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_stopped_thread_is_forgiven_and_no_bound_is_no_bound() {
        let mut sim = Sim::new(2);
        sim.poll(1, STEADY);
        let c = Charge { burst: u64::MAX, upcalls: u64::MAX, misses: 32, refused: false };
        sim.bound.charge(&mut sim.accounts[0], BURST, sim.now, &c);
        let share = sim.run(200, &[FLOOD, STEADY]);
        assert!(share[0] > 0.02, "{share:?}");
        sim.bound.set_share(100);
        sim.run(1, &[FLOOD, STEADY]);
        let share = sim.run(100, &[FLOOD, STEADY]);
        assert!(share[0] > 0.9, "{share:?}");
    }
}

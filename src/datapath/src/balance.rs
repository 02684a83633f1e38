//! Automatic balancing: when a PMD has been overloaded for a minute, works out whether another assignment of receive
//! queues would spread the load better, and if so asks for it.
//!
//! Neighbours: `control` calls it from time to time with what it knows, `sched` makes the plan it judges.
//! Threads: whichever holds the control's lock.

use crate::api::{AutoLb, PmdId, RxqAssign};
use crate::control::{Control, LOG};
use crate::sched::{Plan, Queue, Share};
use crate::stats::{INTERVALS, INTERVAL_MS};
use infra::cpu::NumaId;
use infra::vlog::Level;
use std::collections::BTreeSet;

/// Intervals above the threshold that make a PMD overloaded: a minute, as far as whole intervals fit between two looks.
const OVERLOADED: usize = INTERVALS - 1;

/// When it was looked last.
#[derive(Default)]
pub(crate) struct Balancer {
    checked_ms: Option<u64>,
    /// The last look found nothing that could be done with the assignment as it is; until something changes.
    pub(crate) hopeless: bool,
}

impl Balancer {
    /// Whether a look is due. The first is an interval after balancing was enabled.
    fn is_due(&mut self, now_ms: u64, lb: &AutoLb) -> bool {
        if !lb.enabled {
            self.checked_ms = None;
            return false;
        }
        let last = *self.checked_ms.get_or_insert(now_ms);
        let due = now_ms.saturating_sub(last) >= lb.interval_min * 60_000;
        if due {
            self.checked_ms = Some(now_ms);
        }
        due
    }
}

/// Spread of loads, each in percent of a core.
fn variance(loads: &[u64]) -> u64 {
    let n = loads.len() as u64;
    let Some(mean) = loads.iter().sum::<u64>().checked_div(n) else { return 0 };
    loads.iter().map(|l| l.abs_diff(mean).pow(2)).sum::<u64>() / n
}

/// What a plan would improve on one node.
#[derive(Debug, PartialEq, Eq)]
struct Gain {
    numa: NumaId,
    current: u64,
    estimated: u64,
    percent: u64,
}

/// Compares the loads as they are with those of a plan. `whole` are the cycles of a core in the time measured.
fn gains(queues: &[Queue], owners: &[Option<PmdId>], plan: &Plan, whole: u64) -> Vec<Gain> {
    let percent = |cycles: u64| cycles.saturating_mul(100).checked_div(whole).unwrap_or(0);
    let load =
        |pmd: PmdId| queues.iter().zip(owners).filter(|(_, o)| **o == Some(pmd)).map(|(q, _)| q.cycles).sum();
    let open = || plan.shares.iter().filter(|s| !s.isolated);
    let nodes: BTreeSet<NumaId> = open().map(|s| s.numa).collect();
    let gain = |numa: NumaId| {
        let of = |cycles: &dyn Fn(&Share) -> u64| {
            let loads: Vec<u64> = open().filter(|s| s.numa == numa).map(|s| percent(cycles(s))).collect();
            variance(&loads)
        };
        let (current, estimated) = (of(&|s| load(s.pmd)), of(&|s| s.cycles));
        let percent = current.saturating_sub(estimated).saturating_mul(100).checked_div(current).unwrap_or(0);
        Gain { numa, current, estimated, percent }
    };
    nodes.into_iter().map(gain).collect()
}

impl Control {
    /// Balances, if it is time and worth it.
    pub(crate) fn balance(&mut self) {
        let lb = self.config.auto_lb;
        let now = self.now_ms();
        if !self.balancer.is_due(now, &lb) || !self.is_overloaded(lb.load_threshold) {
            return;
        }
        if self.would_gain(&lb) {
            LOG.log(
                Level::Info,
                format_args!("PMD auto load balance dry run. Requesting datapath reconfigure."),
            );
            self.schedule();
        }
    }

    /// Whether a PMD was busy above the threshold all the time since queues were spread, a minute at least.
    fn is_overloaded(&self, threshold: u8) -> bool {
        let least = infra::clock::tsc_hz() / 1_000 * INTERVAL_MS / 100 * u64::from(threshold);
        let mut pmds = self.threads.iter().filter(|t| !t.id.is_non_pmd());
        pmds.any(|t| t.history.all_since(t.spread_at, OVERLOADED, least))
    }

    fn would_gain(&mut self, lb: &AutoLb) -> bool {
        let debug = |text: &str| LOG.log(Level::Dbg, format_args!("{text}"));
        if std::mem::replace(&mut self.balancer.hopeless, true) {
            debug("PMD auto load balance nothing to do, no configuration changes since last check.");
            return false;
        }
        if self.config.rxq_assign == RxqAssign::RoundRobin {
            debug(
                "PMD auto load balance nothing to do, pmd-rxq-assign=roundrobin assignment type configured.",
            );
            return false;
        }
        let (queues, plan) = self.plan();
        let open = plan.shares.iter().filter(|s| !s.isolated).count();
        let owners: Vec<Option<PmdId>> = queues.iter().map(|q| self.owner(q)).collect();
        let several = |s: &Share| owners.iter().filter(|o| **o == Some(s.pmd)).count() > 1;
        if open < 2 || !plan.shares.iter().any(|s| !s.isolated && several(s)) {
            debug("PMD auto load balance nothing to do, not enough non-isolated PMDs or RxQs.");
            return false;
        }
        self.balancer.hopeless = false;
        debug("PMD auto load balance performing dry run.");
        // The heading belongs to a plan that is carried out.
        plan.lines.iter().filter(|l| !l.1.starts_with("Performing")).for_each(|l| debug(&l.1));
        if plan.cross_numa {
            debug(
                "PMD auto load balance detected cross-numa polling with multiple numa nodes. Unable to accurately \
                 estimate.",
            );
            return false;
        }
        let whole = infra::clock::tsc_hz() / 1_000 * INTERVAL_MS * INTERVALS as u64;
        let mut met = false;
        for g in gains(&queues, &owners, &plan, whole) {
            let Gain { numa, current, estimated, percent } = g;
            debug(&format!(
                "Numa node {numa}. Current variance {current} Estimated variance {estimated}. Variance improvement \
                 {percent}%."
            ));
            met |= percent >= u64::from(lb.improvement_threshold);
        }
        let verdict = if met { "met" } else { "not met" };
        debug(&format!(
            "PMD load variance improvement threshold {}% is {verdict}.",
            lb.improvement_threshold
        ));
        met
    }

    fn owner(&self, q: &Queue) -> Option<PmdId> {
        let port = self.ports.get(&q.port.0)?;
        port.rxqs.iter().find(|r| r.queue == q.queue)?.pmd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched;
    use flow::DpPort;

    #[test]
    fn spread_of_loads() {
        assert_eq!(variance(&[]), 0);
        assert_eq!(variance(&[50, 50]), 0);
        assert_eq!(variance(&[100, 0]), 2_500);
        assert_eq!(variance(&[u64::MAX >> 33; 2]), 0);
    }

    #[test]
    fn looks_are_an_interval_apart() {
        let mut b = Balancer::default();
        let lb = AutoLb { enabled: true, interval_min: 2, ..AutoLb::default() };
        let off = AutoLb { enabled: false, ..lb };
        assert!(!b.is_due(1_000_000, &off) && !b.is_due(1_000_000, &lb));
        assert!(!b.is_due(1_119_999, &lb) && b.is_due(1_120_000, &lb) && !b.is_due(1_120_001, &lb));
        assert!(!b.is_due(1_130_000, &off) && !b.is_due(1_300_000, &lb));
    }

    #[test]
    fn what_a_plan_gains() {
        let queue = |queue, cycles| Queue {
            port: DpPort(1),
            name: "p".into(),
            queue,
            numa: Some(NumaId(0)),
            pinned: None,
            cycles,
        };
        let queues = [queue(0, 500), queue(1, 0), queue(2, 0), queue(3, 400)];
        let pmds = [(PmdId(0), NumaId(0)), (PmdId(1), NumaId(0))];
        let owners = [0, 1, 1, 0].map(|c| Some(PmdId(c)));
        let plan = sched::plan(&pmds, &queues, RxqAssign::Cycles, true);
        let want = Gain { numa: NumaId(0), current: 2_025, estimated: 25, percent: 98 };
        assert_eq!(gains(&queues, &owners, &plan, 1_000), [want]);
        let same = gains(&queues, &plan.owners, &plan, 1_000);
        assert_eq!((same[0].percent, same[0].current), (0, same[0].estimated));
    }
}

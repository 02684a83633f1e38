//! Which PMD polls which receive queue.
//!
//! Pinned queues go where their port says; the others are spread over the cores that are left, on the device's NUMA
//! node if there is one. A plan is made of plain data and tells in its lines why it is what it is, so that the same
//! code serves the assignment and the dry run of automatic balancing.
//! Neighbours: `control` asks and carries out, `balance` asks what would be. Threads: pure functions.

use crate::api::{PmdId, RxqAssign};
use flow::DpPort;
use infra::cpu::{CoreId, NumaId};
use infra::vlog::Level;
use std::collections::BTreeSet;

/// A receive queue that somebody should poll.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) port: DpPort,
    pub(crate) name: String,
    pub(crate) queue: usize,
    /// The device's node, when it has one.
    pub(crate) numa: Option<NumaId>,
    pub(crate) pinned: Option<CoreId>,
    /// What it cost lately.
    pub(crate) cycles: u64,
}

/// A PMD and what a plan gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) pmd: PmdId,
    pub(crate) numa: NumaId,
    /// Kept for pinned queues.
    pub(crate) isolated: bool,
    /// Cycles of its queues.
    pub(crate) cycles: u64,
    pub(crate) queues: usize,
}

/// Who polls what.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By core.
    pub(crate) shares: Vec<Share>,
    /// The PMD of each queue, in the order they were given; `None`: nobody can poll it.
    pub(crate) owners: Vec<Option<PmdId>>,
    /// What there is to say about it.
    pub(crate) lines: Vec<(Level, String)>,
    /// A queue is polled from another node than its device's while there are several nodes.
    pub(crate) cross_numa: bool,
}

/// Spreads `queues` (by port and index) over `pmds` (by core).
pub(crate) fn plan(pmds: &[(PmdId, NumaId)], queues: &[Queue], assign: RxqAssign, isolate: bool) -> Plan {
    let share = |&(pmd, numa)| Share { pmd, numa, isolated: false, cycles: 0, queues: 0 };
    let mut p = Planner {
        assign,
        plan: Plan {
            shares: pmds.iter().map(share).collect(),
            owners: vec![None; queues.len()],
            ..Plan::default()
        },
        turns: Vec::new(),
        last_cross: None,
    };
    let mut rest = Vec::new();
    for (i, q) in queues.iter().enumerate() {
        if !q.pinned.is_some_and(|core| p.pin(i, q, core, isolate)) {
            rest.push(i);
        }
    }
    if rest.is_empty() {
        return p.plan;
    }
    p.say(Level::Info, format!("Performing pmd to rx queue assignment using {assign} algorithm."));
    if assign != RxqAssign::RoundRobin {
        rest.sort_by_key(|&i| std::cmp::Reverse(queues[i].cycles));
    }
    p.turns = p.numas().into_iter().map(|n| (n, Turn::default())).collect();
    for i in rest {
        p.place(i, &queues[i]);
    }
    p.plan
}

/// Whose turn it is on a node.
#[derive(Default)]
struct Turn {
    next: usize,
    backwards: bool,
}

impl Turn {
    /// Of `n`, one after the other; `there_and_back`: then in reverse, and so on.
    fn take(&mut self, n: usize, there_and_back: bool) -> usize {
        let i = self.next.min(n - 1);
        if !there_and_back {
            self.next = (i + 1) % n;
        } else if self.backwards {
            match i.checked_sub(1) {
                Some(j) => self.next = j,
                None => self.backwards = false,
            }
        } else if i + 1 < n {
            self.next = i + 1;
        } else {
            self.backwards = true;
        }
        i
    }
}

struct Planner {
    assign: RxqAssign,
    plan: Plan,
    /// By node, those that have a PMD for all.
    turns: Vec<(NumaId, Turn)>,
    /// The node that had the last queue from elsewhere.
    last_cross: Option<usize>,
}

impl Planner {
    fn say(&mut self, level: Level, text: String) {
        self.plan.lines.push((level, text));
    }

    /// Nodes with a PMD that is not isolated.
    fn numas(&self) -> BTreeSet<NumaId> {
        self.plan.shares.iter().filter(|s| !s.isolated).map(|s| s.numa).collect()
    }

    /// What is said of a queue's cost.
    fn cost(&self, q: &Queue) -> String {
        match self.assign {
            RxqAssign::RoundRobin => String::new(),
            _ => format!(" (measured processing cycles {})", q.cycles),
        }
    }

    fn give(&mut self, i: usize, q: &Queue, at: usize) {
        if let Some(s) = self.plan.shares.get_mut(at) {
            s.cycles += q.cycles;
            s.queues += 1;
            self.plan.owners[i] = Some(s.pmd);
        }
    }

    /// Gives a queue to the core it is pinned to; false when that has no PMD.
    fn pin(&mut self, i: usize, q: &Queue, core: CoreId, isolate: bool) -> bool {
        let at = self.plan.shares.iter().position(|s| s.pmd.core() == Some(core));
        let (name, queue) = (&q.name, q.queue);
        let Some(at) = at else {
            let text = format!(
                "Core {:>2} cannot be pinned with port '{name}' rx queue {queue}. Use pmd-cpu-mask to enable a pmd on \
                 core {}. An alternative core will be assigned.",
                core.0, core.0
            );
            self.say(Level::Warn, text);
            return false;
        };
        let numa = self.plan.shares[at].numa;
        let cost = self.cost(q);
        let text = format!(
            "Core {:>2} on numa node {numa} is pinned with port '{name}' rx queue {queue}{cost}",
            core.0
        );
        self.say(Level::Info, text);
        self.plan.shares[at].isolated |= isolate;
        self.give(i, q, at);
        true
    }

    fn place(&mut self, i: usize, q: &Queue) {
        let (name, queue, cost) = (&q.name, q.queue, self.cost(q));
        if self.turns.is_empty() {
            let text = format!(
                "No non-isolated pmd on any numa available for port '{name}' rx queue {queue}{cost}. \
                 This rx queue will not be polled."
            );
            return self.say(Level::Warn, text);
        }
        let local = self.turns.iter().position(|t| Some(t.0) == q.numa);
        let node = local.unwrap_or_else(|| {
            let next = self.last_cross.map_or(0, |l| (l + 1) % self.turns.len());
            self.last_cross = Some(next);
            next
        });
        let numa = self.turns[node].0;
        if let (None, Some(wanted)) = (local, q.numa) {
            self.plan.cross_numa |= self.turns.len() > 1;
            let text = format!(
                "There's no available (non-isolated) pmd thread on numa node {wanted}. Port '{name}' rx queue {queue} \
                 will be assigned to a pmd on numa node {numa}. This may lead to reduced performance."
            );
            self.say(Level::Info, text);
        }
        let at = self.choose(node, numa);
        let core = self.plan.shares[at].pmd;
        let text =
            format!("Core {:>2} on numa node {numa} assigned port '{name}' rx queue {queue}{cost}.", core.0);
        self.say(Level::Info, text);
        self.give(i, q, at);
    }

    /// A PMD of the node, which has one.
    fn choose(&mut self, node: usize, numa: NumaId) -> usize {
        let shares = self.plan.shares.iter().enumerate();
        let open: Vec<usize> =
            shares.filter(|(_, s)| s.numa == numa && !s.isolated).map(|(i, _)| i).collect();
        if self.assign == RxqAssign::Group {
            let load = |i: &usize| (self.plan.shares[*i].cycles, self.plan.shares[*i].queues);
            return open.into_iter().min_by_key(load).unwrap_or_default();
        }
        let i = self.turns[node].1.take(open.len(), self.assign == RxqAssign::Cycles);
        open[i]
    }
}

#[cfg(test)]
#[path = "sched_tests.rs"]
mod tests;

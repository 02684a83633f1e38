//! Carries out the plans of `sched`: moves receive queues between threads, and says what changed.
//!
//! A queue that moves is taken from its thread between two bursts and given to the next one; what arrives meanwhile
//! waits in the device. Neighbours: `control` calls this whenever ports, threads or settings changed, `sched` plans.
//! Threads: whichever holds the control's lock.

use crate::api::{DpConfig, PmdId, RxqAssign};
use crate::control::{Control, Port, RxqEntry, LOG};
use crate::sched::{self, Plan, Queue};
use crate::stats::INTERVALS;
use crate::thread::{Cmd, Reply};
use flow::DpPort;
use infra::cpu::NumaId;
use infra::{info, warn};
use std::collections::BTreeMap;

impl Control {
    /// The receive queues that PMDs should poll, by port and index.
    fn queues(&self) -> Vec<Queue> {
        let of_port = |(no, p): (&u32, &Port)| {
            let numa = p.netdev.numa().map(NumaId);
            let queue = |q: &RxqEntry| Queue {
                port: DpPort(*no),
                name: p.netdev.name().to_owned(),
                queue: q.queue,
                numa,
                pinned: p.config.affinity.get(&q.queue).copied(),
                cycles: q.history.sum(INTERVALS),
            };
            p.rxqs.iter().map(queue).collect::<Vec<_>>()
        };
        self.ports.iter().filter(|(_, p)| p.netdev.is_pmd()).flat_map(of_port).collect()
    }

    /// What would be done now.
    pub(crate) fn plan(&self) -> (Vec<Queue>, Plan) {
        let queues = self.queues();
        let pmds: Vec<_> =
            self.threads.iter().filter(|t| !t.id.is_non_pmd()).map(|t| (t.id, t.numa)).collect();
        let c = &self.config;
        let plan = sched::plan(&pmds, &queues, c.rxq_assign, is_isolating(c));
        (queues, plan)
    }

    /// Spreads the receive queues over the PMDs.
    pub(crate) fn schedule(&mut self) {
        let (queues, plan) = self.plan();
        self.balancer.hopeless = false;
        for (level, text) in &plan.lines {
            LOG.log(*level, format_args!("{text}"));
        }
        for t in &mut self.threads {
            t.spread_at = t.history.ended();
            t.isolated = plan.shares.iter().any(|s| s.pmd == t.id && s.isolated);
        }
        for (q, owner) in queues.iter().zip(plan.owners) {
            self.move_queue(q.port, q.queue, owner);
        }
    }

    /// Takes all receive queues from their threads; what arrives waits in the devices.
    pub(crate) fn park(&mut self) {
        let ports = self.ports.iter().map(|(no, p)| (DpPort(*no), &p.rxqs));
        let all: Vec<_> = ports.flat_map(|(no, rxqs)| rxqs.iter().map(move |q| (no, q.queue))).collect();
        for (no, queue) in all {
            self.move_queue(no, queue, None);
        }
    }

    fn move_queue(&mut self, no: DpPort, queue: usize, to: Option<PmdId>) {
        let entry = self.ports.get_mut(&no.0).and_then(|p| p.rxqs.iter_mut().find(|q| q.queue == queue));
        let Some(entry) = entry.filter(|q| q.pmd != to) else { return };
        let (from, mut rxq) = (entry.pmd, entry.parked.take());
        if let Some(i) = from.and_then(|id| self.threads.iter().position(|t| t.id == id)) {
            if self.common.send(self.threads[i].id, Cmd::TakeRx(no, queue)) {
                if let Some(Reply::TookRx(taken)) = self.answer(i) {
                    rxq = taken;
                }
            }
        }
        if let (Some(pmd), Some(q)) = (to, rxq.take_if(|_| to.is_some())) {
            self.common.send(pmd, Cmd::AddRx(q));
        }
        let entry = self.ports.get_mut(&no.0).and_then(|p| p.rxqs.iter_mut().find(|q| q.queue == queue));
        if let Some(entry) = entry {
            (entry.pmd, entry.parked) = (to, rxq);
        }
    }

    /// Says how many PMDs each node has.
    pub(crate) fn say_threads(&self) {
        let mut nodes: BTreeMap<NumaId, usize> = BTreeMap::new();
        for t in self.threads.iter().filter(|t| !t.id.is_non_pmd()) {
            *nodes.entry(t.numa).or_default() += 1;
        }
        for (numa, n) in nodes {
            info!(LOG, "There are {n} pmd threads on numa node {numa}");
        }
    }

    /// Says what settings changed; true when queues are to be spread anew.
    pub(crate) fn say_changes(&self, old: &DpConfig, first: bool) -> bool {
        let new = &self.config;
        if old.tx_flush_interval_us != new.tx_flush_interval_us {
            info!(LOG, "Flushing interval for tx queues set to {} us", new.tx_flush_interval_us);
        }
        match new.emc_insert_inv_prob {
            n if n == old.emc_insert_inv_prob => {}
            0 => info!(LOG, "EMC insertion probability changed to zero"),
            n => info!(LOG, "EMC insertion probability changed to 1/{n} (~{:.2}%)", 100.0 / f64::from(n)),
        }
        if old.perf_metrics != new.perf_metrics {
            let state = if new.perf_metrics { "enabled" } else { "disabled" };
            info!(LOG, "PMD performance metrics collection {state}");
        }
        let assign = old.rxq_assign != new.rxq_assign;
        if assign {
            info!(LOG, "Rxq to PMD assignment mode changed to: '{}'.", new.rxq_assign);
        }
        if !new.rxq_isolate && new.rxq_assign != RxqAssign::Group {
            warn!(LOG, "pmd-rxq-isolate can only be set false when using pmd-rxq-assign=group");
        }
        let isolate = is_isolating(old) != is_isolating(new);
        if isolate || first {
            let verb = if is_isolating(new) { "isolates" } else { "does not isolate" };
            info!(LOG, "pmd-rxq-affinity {verb} PMD core");
        }
        self.say_balancing(old, first);
        if old.max_sleep_us != new.max_sleep_us || first {
            info!(LOG, "PMD max sleep request is {} usecs.", new.max_sleep_us);
            let state = if new.max_sleep_us > 0 { "enabled" } else { "disabled" };
            info!(LOG, "PMD load based sleeps are {state}.");
        }
        assign || isolate || old.pmd_cores != new.pmd_cores
    }

    fn say_balancing(&self, old: &DpConfig, first: bool) {
        let (old, new) = (&old.auto_lb, &self.config.auto_lb);
        let mut changed = first && new.enabled || old.enabled != new.enabled;
        if old.interval_min != new.interval_min || first {
            info!(LOG, "PMD auto load balance interval set to {} mins", new.interval_min);
            changed = true;
        }
        if old.improvement_threshold != new.improvement_threshold || first {
            let n = new.improvement_threshold;
            info!(LOG, "PMD auto load balance improvement threshold set to {n}%");
            changed = true;
        }
        if old.load_threshold != new.load_threshold || first {
            info!(LOG, "PMD auto load balance load threshold set to {}%", new.load_threshold);
            changed = true;
        }
        if !changed {
            return;
        }
        if new.enabled {
            info!(
                LOG,
                "PMD auto load balance is enabled, interval {} mins, pmd load threshold {}%, improvement threshold {}%.",
                new.interval_min,
                new.load_threshold,
                new.improvement_threshold
            );
        } else {
            info!(LOG, "PMD auto load balance is disabled.");
        }
    }
}

/// Whether a core with a pinned queue polls no others.
fn is_isolating(c: &DpConfig) -> bool {
    c.rxq_isolate || c.rxq_assign != RxqAssign::Group
}

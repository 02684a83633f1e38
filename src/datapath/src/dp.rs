//! [`Datapath`]: the handle, the only door to the threads that move packets.
//!
//! Neighbours: `bridge` adds ports and sets configuration, `ofproto` drains events and deletes flows; `control` does
//! what needs the threads' co-operation. Threads: any thread may call any method; none is called by PMDs.

use crate::api::{
    DpConfig, DpError, DpOptions, FlowEvent, FlowPut, PmdId, PmdRxqs, PortConfig, PortInfo, Upcall,
    UserspacePacket,
};
use crate::control::{Control, Route};
use crate::coverage;
use crate::drops::Drop;
use crate::perf::{Perf, PerfLog};
use crate::provider::{DpOp, OpError, Provider, ProviderStats};
use crate::shared::SharedFlow;
use crate::stats::{PmdStats, INTERVALS};
use crate::thread::{Cmd, Execute, Worker};
use crate::vector::Parser;
use flow::{DpAction, DpPort, Flow};
use infra::cpu::NumaId;
use infra::info;
use infra::ring::{PushError, WakeConsumer};
use infra::vlog::Module;
use infra::Waker;
use netdev::Netdev;
use packet::Packet;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;

static EXTRACT_LOG: Module = Module::new("dpif_netdev_extract");

/// What control and handle share.
pub(crate) struct Common {
    pub(crate) upcall: Arc<dyn Upcall>,
    pub(crate) options: DpOptions,
    /// Where commands for a thread go.
    pub(crate) routes: RwLock<Vec<Route>>,
    /// The loops, when no threads are used.
    pub(crate) workers: Mutex<Vec<Worker>>,
    pub(crate) events: Mutex<Vec<WakeConsumer<FlowEvent>>>,
    pub(crate) late: Mutex<VecDeque<FlowEvent>>,
    pub(crate) users: Mutex<Vec<WakeConsumer<UserspacePacket>>>,
    pub(crate) event_waker: Waker,
    pub(crate) user_waker: Waker,
}

impl Common {
    /// Gives a command to a thread; false when there is no such thread.
    pub(crate) fn send(&self, to: PmdId, cmd: Cmd) -> bool {
        let ring = match self.routes.read().iter().find(|r| r.pmd == to) {
            Some(r) => Arc::clone(&r.ring),
            None => return false,
        };
        let mut cmd = cmd;
        loop {
            let mut ring = ring.lock();
            if ring.is_abandoned() {
                return false;
            }
            match ring.push(cmd) {
                Ok(()) => return true,
                Err(PushError::Full(back)) => cmd = back,
            }
            drop(ring);
            self.pump(to);
        }
    }

    /// Lets a thread work on its commands.
    pub(crate) fn pump(&self, pmd: PmdId) {
        if self.options.threads {
            std::thread::sleep(std::time::Duration::from_micros(20));
        } else if let Some(w) = self.workers.lock().iter_mut().find(|w| w.id() == pmd) {
            w.commands(usize::MAX);
        }
    }
}

/// A datapath and its threads. Dropping the last handle stops them.
pub struct Datapath {
    name: String,
    common: Arc<Common>,
    control: Mutex<Control>,
}

impl Datapath {
    /// Makes a datapath without ports (`name` as in `netdev@ovs-netdev`) and starts its io thread.
    pub fn new(name: &str, upcall: Arc<dyn Upcall>, options: DpOptions) -> Result<Arc<Datapath>, DpError> {
        let common = Arc::new(Common {
            upcall,
            options,
            routes: RwLock::default(),
            workers: Mutex::default(),
            events: Mutex::default(),
            late: Mutex::default(),
            users: Mutex::default(),
            event_waker: Waker::new().map_err(DpError::Thread)?,
            user_waker: Waker::new().map_err(DpError::Thread)?,
        });
        let control = Mutex::new(Control::new(Arc::clone(&common))?);
        info!(EXTRACT_LOG, "{name}: frames are parsed with {}", Parser::best().name());
        Ok(Arc::new(Datapath { name: name.to_owned(), common, control }))
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type and name, as in `netdev@ovs-netdev`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.kind(), self.name)
    }

    /// The type: `netdev` of `ovs-netdev`.
    pub fn kind(&self) -> &str {
        self.name.strip_prefix("ovs-").unwrap_or(&self.name)
    }

    /// Applies settings. PMD threads are started and stopped as the cores say.
    pub fn set_config(&self, config: DpConfig) -> Result<(), DpError> {
        self.control.lock().set_config(config)
    }

    /// Settings in force.
    pub fn config(&self) -> DpConfig {
        self.control.lock().config().clone()
    }

    /// Adds a port: takes the device's queues and gives them to the threads. The lowest free number from 1 on is
    /// used unless one is wanted.
    pub fn add_port(&self, netdev: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError> {
        self.control.lock().add_port(netdev, wanted, true)
    }

    /// As [`Datapath::add_port`], but nothing is received before [`Datapath::start_port`]: time to tell translation
    /// about the port.
    pub fn add_port_stopped(
        &self,
        netdev: Arc<dyn Netdev>,
        wanted: Option<DpPort>,
    ) -> Result<DpPort, DpError> {
        self.control.lock().add_port(netdev, wanted, false)
    }

    /// Begins to receive from a port. It is removed when its receive queues cannot be had.
    pub fn start_port(&self, no: DpPort) -> Result<(), DpError> {
        self.control.lock().start_port(no)
    }

    /// Removes a port: its queues are given back before this returns. Megaflows of packets received there go too.
    pub fn del_port(&self, no: DpPort) {
        self.control.lock().del_port(no);
    }

    /// Gives a port another number. Megaflows of packets received there go, as when it is removed.
    pub fn renumber_port(&self, old: DpPort, new: DpPort) -> Result<(), DpError> {
        self.control.lock().renumber_port(old, new)
    }

    /// Takes the port's queues back, lets the device apply what waits ([`Netdev::reconfigure`]), gives them out again.
    pub fn port_changed(&self, no: DpPort) -> Result<(), DpError> {
        self.control.lock().port_changed(no)
    }

    /// The ports, by number.
    pub fn ports(&self) -> Vec<PortInfo> {
        self.control.lock().ports()
    }

    /// Asks a thread to install a megaflow; [`FlowEvent::New`] follows. As [`Datapath::flow_delete`] about locks.
    pub fn flow_put(&self, pmd: PmdId, put: FlowPut) {
        coverage::FLOW_PUT.inc();
        self.common.send(pmd, Cmd::FlowPut(Box::new(put)));
    }

    /// Asks the owner to remove the megaflow; [`FlowEvent::Deleted`] follows when it is gone. May wait for room in
    /// the owner's ring: hold no lock that [`Upcall::miss`] takes.
    pub fn flow_delete(&self, flow: &Arc<SharedFlow>) {
        if flow.mark_dead() {
            coverage::FLOW_DEL.inc();
            self.common.send(flow.pmd, Cmd::FlowDelete(Arc::clone(flow)));
        }
    }

    /// Gives the megaflow other actions. As [`Datapath::flow_delete`] about locks.
    pub fn flow_set_actions(&self, flow: &Arc<SharedFlow>, actions: Arc<[DpAction]>) {
        coverage::FLOW_PUT.inc();
        flow.replace_actions(Arc::clone(&actions));
        self.common.send(flow.pmd, Cmd::FlowActions(Arc::clone(flow), actions));
    }

    /// Takes up to `max` events about megaflows. Returns how many.
    pub fn drain_events(&self, max: usize, f: &mut dyn FnMut(FlowEvent)) -> usize {
        let mut rings = self.common.events.lock();
        // Before the rings are looked at: a thread that ends now adds what came after all that is in its ring.
        let mut late = self.common.late.lock();
        rings.iter().for_each(|r| r.awake());
        let n = drain_rings(&mut rings, max, f);
        drop(rings);
        let rest = late.len().min(max - n);
        let events: Vec<_> = late.drain(..rest).collect();
        drop(late);
        events.into_iter().for_each(f);
        n + rest
    }

    /// Announces a sleep on [`Datapath::events_waker`]; false when events wait already (drain them instead).
    pub fn events_prepare_sleep(&self) -> bool {
        let rings = self.common.events.lock();
        let quiet = rings.iter().all(|r| r.prepare_sleep());
        quiet && self.common.late.lock().is_empty()
    }

    /// Woken for events after [`Datapath::events_prepare_sleep`] returned true; [`Datapath::drain_events`] quiets it.
    pub fn events_waker(&self) -> Waker {
        self.common.event_waker.clone()
    }

    /// Takes up to `max` packets for user space. Returns how many.
    pub fn drain_userspace(&self, max: usize, f: &mut dyn FnMut(UserspacePacket)) -> usize {
        let mut rings = self.common.users.lock();
        rings.iter().for_each(|r| r.awake());
        drain_rings(&mut rings, max, f)
    }

    /// As [`Datapath::events_prepare_sleep`], for packets.
    pub fn userspace_prepare_sleep(&self) -> bool {
        self.common.users.lock().iter().all(|r| r.prepare_sleep())
    }

    /// Woken for packets after [`Datapath::userspace_prepare_sleep`] returned true.
    pub fn userspace_waker(&self) -> Waker {
        self.common.user_waker.clone()
    }

    /// Runs `actions` on `packet` (packet-out) on the io thread. Of `flow` the datapath metadata count: in_port,
    /// priority, mark, dp_hash, recirculation id; headers are read from the packet.
    pub fn execute(&self, packet: Packet, flow: &Flow, actions: Arc<[DpAction]>) {
        coverage::EXECUTE.inc();
        self.common.send(PmdId::NON_PMD, Cmd::Execute(Box::new(Execute { packet, flow: *flow, actions })));
    }

    /// Megaflows installed, over all threads.
    pub fn flow_count(&self) -> usize {
        self.control.lock().flow_count()
    }

    /// Threads with their counters since the last [`Datapath::clear_stats`]; PMDs by core, then the io thread.
    pub fn pmd_stats(&self) -> Vec<(PmdId, NumaId, PmdStats)> {
        self.control.lock().pmd_stats()
    }

    /// Counters of all threads that ever were, since the start.
    pub fn total_stats(&self) -> PmdStats {
        self.control.lock().total_stats()
    }

    /// Starts counting anew, for one thread or all.
    pub fn clear_stats(&self, pmd: Option<PmdId>) {
        self.control.lock().clear_stats(pmd);
    }

    /// Milliseconds since counting began (of the first thread that matches).
    pub fn stats_age_ms(&self, pmd: PmdId) -> u64 {
        self.control.lock().stats_age_ms(pmd)
    }

    /// Drops of a reason over all threads, since the start.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.total_stats().dropped(reason)
    }

    /// Receive queues by PMD, with what they cost in the last minute.
    pub fn pmd_rxqs(&self) -> Vec<PmdRxqs> {
        self.pmd_rxqs_over(INTERVALS)
    }

    /// As [`Datapath::pmd_rxqs`], with what they cost in the last `intervals` of 5 seconds.
    pub fn pmd_rxqs_over(&self, intervals: usize) -> Vec<PmdRxqs> {
        self.control.lock().pmd_rxqs(intervals)
    }

    /// What a thread recorded while `pmd-perf-metrics` was on.
    pub(crate) fn perf(&self, pmd: PmdId) -> Option<Arc<Perf>> {
        self.control.lock().perf(pmd)
    }

    /// Says how threads report rounds that took too long.
    pub fn set_perf_log(&self, log: PerfLog) {
        self.control.lock().set_perf_log(log);
    }

    /// What is due from time to time: logs what threads reported, balances them. Once a second is enough.
    pub fn run(&self) {
        let mut control = self.control.lock();
        control.log_reports();
        control.balance();
    }

    /// Subtables, over all threads.
    pub fn subtable_count(&self) -> u64 {
        self.control.lock().subtable_count()
    }

    /// Spreads the receive queues over the PMDs anew, by what they cost now.
    pub fn rebalance(&self) {
        self.control.lock().schedule();
    }

    /// Applies settings of a port.
    pub fn set_port_config(&self, no: DpPort, config: PortConfig) -> Result<(), DpError> {
        self.control.lock().set_port_config(no, config)
    }

    /// Runs every thread's loop once in the caller's thread, when made with `threads: false`. Returns packets
    /// received. Not to be called from an upcall.
    pub fn step(&self) -> usize {
        self.common.workers.lock().iter_mut().map(|w| w.iterate()).sum()
    }
}

impl Provider for Datapath {
    fn kind(&self) -> &str {
        Datapath::kind(self)
    }

    fn name(&self) -> &str {
        Datapath::name(self)
    }

    fn stats(&self) -> ProviderStats {
        let s = self.total_stats();
        ProviderStats {
            hit: s.simple_hits + s.emc_hits + s.smc_hits + s.megaflow_hits,
            missed: s.miss_ok,
            lost: s.miss_failed,
            flows: self.flow_count() as u64,
        }
    }

    fn ports(&self) -> Vec<PortInfo> {
        Datapath::ports(self)
    }

    fn add_port(&self, netdev: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError> {
        self.add_port_stopped(netdev, wanted)
    }

    fn start_port(&self, no: DpPort) -> Result<(), DpError> {
        Datapath::start_port(self, no)
    }

    fn del_port(&self, no: DpPort) {
        Datapath::del_port(self, no);
    }

    fn port_changed(&self, no: DpPort) -> Result<(), DpError> {
        Datapath::port_changed(self, no)
    }

    fn set_port_config(&self, no: DpPort, config: PortConfig) -> Result<(), DpError> {
        Datapath::set_port_config(self, no, config)
    }

    fn operate(&self, ops: Vec<DpOp>) -> Vec<Result<(), OpError>> {
        let one = |op| {
            let (to, cmd) = match op {
                DpOp::Put { pmd, put } => {
                    coverage::FLOW_PUT.inc();
                    (pmd, Cmd::FlowPut(put))
                }
                DpOp::Execute { packet, flow, actions } => {
                    coverage::EXECUTE.inc();
                    (PmdId::NON_PMD, Cmd::Execute(Box::new(Execute { packet, flow: *flow, actions })))
                }
            };
            self.common.send(to, cmd).then_some(()).ok_or(OpError::Gone)
        };
        ops.into_iter().map(one).collect()
    }

    fn activity(&self) -> Option<u64> {
        self.control.lock().settled()
    }

    fn flow_delete(&self, flow: &Arc<SharedFlow>) {
        Datapath::flow_delete(self, flow);
    }

    fn flow_set_actions(&self, flow: &Arc<SharedFlow>, actions: Arc<[DpAction]>) {
        Datapath::flow_set_actions(self, flow, actions);
    }

    fn drain_events(&self, max: usize, f: &mut dyn FnMut(FlowEvent)) -> usize {
        Datapath::drain_events(self, max, f)
    }

    fn drain_userspace(&self, max: usize, f: &mut dyn FnMut(UserspacePacket)) -> usize {
        Datapath::drain_userspace(self, max, f)
    }

    fn userspace_prepare_sleep(&self) -> bool {
        Datapath::userspace_prepare_sleep(self)
    }

    fn userspace_waker(&self) -> Option<Waker> {
        Some(Datapath::userspace_waker(self))
    }
}

impl std::ops::Drop for Datapath {
    fn drop(&mut self) {
        self.control.lock().stop();
    }
}

/// Takes up to `max` entries, ring by ring; forgets rings that are empty and whose thread is gone.
fn drain_rings<T>(rings: &mut Vec<WakeConsumer<T>>, max: usize, f: &mut dyn FnMut(T)) -> usize {
    let mut n = 0;
    for r in rings.iter_mut() {
        while n < max {
            let Some(v) = r.pop() else { break };
            f(v);
            n += 1;
        }
    }
    rings.retain(|r| !(r.is_abandoned() && r.is_empty()));
    n
}

#[cfg(test)]
#[path = "dp_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sched_dp_tests.rs"]
mod sched_tests;

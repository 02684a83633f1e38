//! [`Datapath`]: the handle, the only door to the threads that move packets.
//!
//! Neighbours: `bridge` adds ports and sets configuration, `ofproto` drains events and deletes flows. Threads: any
//! thread may call any method; none is called by PMDs.

use crate::api::{
    DpConfig, DpError, DpOptions, FlowEvent, PmdId, PmdRxqs, PortInfo, Upcall, UserspacePacket,
};
use crate::drops::Drop;
use crate::shared::SharedFlow;
use crate::stats::PmdStats;
use flow::{DpAction, DpPort, Flow};
use infra::Waker;
use netdev::Netdev;
use packet::Packet;
use std::sync::Arc;

/// A datapath and its threads. Dropping the last handle stops them.
pub struct Datapath {
    name: String,
    upcall: Arc<dyn Upcall>,
    options: DpOptions,
}

impl Datapath {
    /// Makes a datapath (`name` as in `netdev@ovs-netdev`, without ports) and starts its io thread.
    pub fn new(name: &str, upcall: Arc<dyn Upcall>, options: DpOptions) -> Result<Arc<Datapath>, DpError> {
        Ok(Arc::new(Datapath { name: name.to_owned(), upcall, options }))
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Applies settings. PMD threads are started and stopped as the cores say.
    pub fn set_config(&self, _config: DpConfig) -> Result<(), DpError> {
        Ok(())
    }

    /// Settings in force.
    pub fn config(&self) -> DpConfig {
        DpConfig::default()
    }

    /// Adds a port: takes the device's queues and gives them to the threads. The lowest free number from 1 on is
    /// used unless one is wanted.
    pub fn add_port(&self, _netdev: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError> {
        Ok(wanted.unwrap_or(DpPort(1)))
    }

    /// Removes a port: its queues are given back before this returns. Megaflows of packets received there go too.
    pub fn del_port(&self, _no: DpPort) {}

    /// Takes the port's queues back, lets the device apply what waits ([`Netdev::reconfigure`]), gives them out again.
    pub fn port_changed(&self, _no: DpPort) -> Result<(), DpError> {
        Ok(())
    }

    /// The ports, by number.
    pub fn ports(&self) -> Vec<PortInfo> {
        Vec::new()
    }

    /// Asks the owner to remove the megaflow; [`FlowEvent::Deleted`] follows when it is gone. May wait for room in
    /// the owner's ring: hold no lock that [`Upcall::miss`] takes.
    pub fn flow_delete(&self, _flow: &Arc<SharedFlow>) {}

    /// Gives the megaflow other actions. As [`Datapath::flow_delete`] about locks.
    pub fn flow_set_actions(&self, flow: &Arc<SharedFlow>, actions: Arc<[DpAction]>) {
        flow.replace_actions(actions);
    }

    /// Takes up to `max` events about megaflows. Returns how many.
    pub fn drain_events(&self, _max: usize, _f: &mut dyn FnMut(FlowEvent)) -> usize {
        0
    }

    /// Registers with `waker` for events: false when some wait already (drain them instead of sleeping). After the
    /// sleep call [`Datapath::drain_events`].
    pub fn events_prepare_sleep(&self) -> bool {
        true
    }

    /// Woken for events after [`Datapath::events_prepare_sleep`] returned true.
    pub fn events_waker(&self) -> Waker {
        unreachable!("replaced before use")
    }

    /// Takes up to `max` packets for user space. Returns how many.
    pub fn drain_userspace(&self, _max: usize, _f: &mut dyn FnMut(UserspacePacket)) -> usize {
        0
    }

    /// As [`Datapath::events_prepare_sleep`], for packets.
    pub fn userspace_prepare_sleep(&self) -> bool {
        true
    }

    /// Woken for packets after [`Datapath::userspace_prepare_sleep`] returned true.
    pub fn userspace_waker(&self) -> Waker {
        unreachable!("replaced before use")
    }

    /// Runs `actions` on `packet` (packet-out) on the io thread. Of `flow` the datapath metadata count: in_port,
    /// priority, mark, dp_hash, recirculation id; headers are read from the packet.
    pub fn execute(&self, _packet: Packet, _flow: &Flow, _actions: Arc<[DpAction]>) {}

    /// Megaflows installed, over all threads.
    pub fn flow_count(&self) -> usize {
        0
    }

    /// Threads with their counters since the last [`Datapath::clear_stats`]; PMDs by core, then the io thread.
    pub fn pmd_stats(&self) -> Vec<(PmdId, infra::cpu::NumaId, PmdStats)> {
        Vec::new()
    }

    /// Starts counting anew, for one thread or all.
    pub fn clear_stats(&self, _pmd: Option<PmdId>) {}

    /// Drops of a reason over all threads, since the start.
    pub fn dropped(&self, _reason: Drop) -> u64 {
        0
    }

    /// Receive queues by PMD.
    pub fn pmd_rxqs(&self) -> Vec<PmdRxqs> {
        Vec::new()
    }

    /// Runs every thread's loop once in the caller's thread, when made with `threads: false`. Returns packets
    /// received.
    pub fn step(&self) -> usize {
        0
    }

    /// Whether `core` may be given as PMD and the upcall handler in use.
    pub fn upcall(&self) -> &Arc<dyn Upcall> {
        let _ = &self.options;
        &self.upcall
    }
}

//! The contract of a datapath: what the switch needs of it, whether packets are moved by threads of this process or
//! by a kernel.
//!
//! The two kinds differ in how they miss. The userspace datapath translates a miss on the thread that owns the packet
//! ([`crate::Upcall`]); a queued one puts the packet into a queue ([`UpcallQueue`]) from which handler threads take it,
//! translate it, and answer with a batch of [`DpOp`]s. They differ in how they count: flows of the first have counters
//! that anyone may read at any time, those of the second are brought up to date by a dump ([`FlowDump`]). Nothing else
//! about them is visible.
//!
//! A flow is an [`Arc<SharedFlow>`] for both. It exists from [`FlowEvent::New`] to [`FlowEvent::Deleted`], which the
//! datapath alone announces, once each and in this order: what is only asked for (`operate`, `flow_delete`) may fail,
//! be late, or be done by somebody else. To get one flow, or to flush all, ask the shared flow table of the revalidators.
//!
//! Neighbours: [`crate::Datapath`] is one; `ofproto` (handlers, revalidators, slow path) and `bridge` use it. Threads:
//! any thread may call anything, and none of it from [`crate::Upcall::miss`]; none of it waits for packets.

use crate::api::{DpError, FlowEvent, FlowPut, PmdId, PortConfig, PortInfo, UserspacePacket};
use crate::shared::{SharedFlow, Ufid};
use flow::{DpAction, DpPort, Flow};
use infra::Waker;
use netdev::Netdev;
use packet::Packet;
use std::sync::Arc;

/// Counters of a datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProviderStats {
    /// Packets that met a flow.
    pub hit: u64,
    /// Packets that met none.
    pub missed: u64,
    /// Packets lost on their way to user space.
    pub lost: u64,
    /// Flows installed.
    pub flows: u64,
}

/// One operation of a batch.
pub enum DpOp {
    /// Installs a flow that is not there yet; [`FlowEvent::New`] follows.
    Put {
        /// The thread whose flow it is to be; [`PmdId::NON_PMD`] where there are none.
        pmd: PmdId,
        /// The flow.
        put: Box<FlowPut>,
    },
    /// Runs actions on a packet. Of the flow the datapath metadata count: in_port, priority, mark, dp_hash,
    /// recirculation id; headers are read from the packet.
    Execute {
        /// The packet.
        packet: Packet,
        /// Its flow.
        flow: Box<Flow>,
        /// What to do.
        actions: Arc<[DpAction]>,
    },
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// A flow with this key is installed: somebody was faster.
    #[error("the flow is installed already")]
    Exists,
    /// The thread or the datapath is gone.
    #[error("the datapath is gone")]
    Gone,
    /// The datapath refused.
    #[error(transparent)]
    Refused(#[from] std::io::Error),
}

/// A datapath.
pub trait Provider: Send + Sync {
    /// Type, as `Bridge.datapath_type` names it.
    fn kind(&self) -> &str;

    /// Name, unique among datapaths of its type.
    fn name(&self) -> &str;

    /// Type and name, as in `netdev@ovs-netdev`.
    fn full_name(&self) -> String {
        format!("{}@{}", self.kind(), self.name())
    }

    /// Counters.
    fn stats(&self) -> ProviderStats;

    /// The ports, by number.
    fn ports(&self) -> Vec<PortInfo>;

    /// Adds a port (the wanted number, or the lowest that is free) from which nothing is received before
    /// [`Provider::start_port`].
    ///
    /// # Errors
    /// The number or the name is taken, or the device failed.
    fn add_port(&self, netdev: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError>;

    /// Begins to receive from a port. It is removed when that fails.
    ///
    /// # Errors
    /// The device failed.
    fn start_port(&self, no: DpPort) -> Result<(), DpError>;

    /// Removes a port, with the flows of packets received there.
    fn del_port(&self, no: DpPort);

    /// Lets a port's device apply what changed ([`Netdev::reconfigure`]).
    ///
    /// # Errors
    /// The device failed.
    fn port_changed(&self, no: DpPort) -> Result<(), DpError>;

    /// Gives the datapath its settings of a port (`Interface.other_config`), where it has a use for them.
    ///
    /// # Errors
    /// The port is not there, or they cannot be met.
    fn set_port_config(&self, _no: DpPort, _config: PortConfig) -> Result<(), DpError> {
        Ok(())
    }

    /// Does all operations in their order. What comes back is the outcome of each, as far as it is known without
    /// waiting.
    fn operate(&self, ops: Vec<DpOp>) -> Vec<Result<(), OpError>>;

    /// Runs actions on one packet.
    fn execute(&self, packet: Packet, flow: &Flow, actions: Arc<[DpAction]>) {
        // A packet that cannot be sent is counted by the datapath.
        let _ = self.operate(vec![DpOp::Execute { packet, flow: Box::new(*flow), actions }]);
    }

    /// A number that is another one once any flow has counted a packet that it had not when it was last asked; `None`:
    /// nobody knows.
    fn activity(&self) -> Option<u64> {
        None
    }

    /// Asks for the removal of a flow; [`FlowEvent::Deleted`] follows when it is gone and its counters are final.
    fn flow_delete(&self, flow: &Arc<SharedFlow>);

    /// Gives a flow other actions.
    fn flow_set_actions(&self, flow: &Arc<SharedFlow>, actions: Arc<[DpAction]>);

    /// Takes up to `max` events about flows. Returns how many.
    fn drain_events(&self, max: usize, f: &mut dyn FnMut(FlowEvent)) -> usize;

    /// Starts a dump of all flows, for datapaths whose counters do not come by themselves. `None`: the counters of
    /// every [`SharedFlow`] are always those of now.
    fn dump(&self) -> Option<Box<dyn FlowDump + '_>> {
        None
    }

    /// The queue of misses and `userspace` actions, of a datapath that does not translate on its own threads.
    fn queue(&self) -> Option<&dyn UpcallQueue> {
        None
    }

    /// Takes up to `max` packets that `userspace` actions sent up otherwise than by the queue. Returns how many.
    fn drain_userspace(&self, max: usize, f: &mut dyn FnMut(UserspacePacket)) -> usize;

    /// Announces a sleep on [`Provider::userspace_waker`]; false when packets wait already.
    fn userspace_prepare_sleep(&self) -> bool;

    /// Woken for packets after [`Provider::userspace_prepare_sleep`] returned true; `None`: there never are any.
    fn userspace_waker(&self) -> Option<Waker>;
}

/// A dump under way. Several threads may take batches of it at the same time; each flow comes once.
pub trait FlowDump: Send + Sync {
    /// Puts up to `max` flows, their counters brought up to date, behind those in `batch`. Returns how many; none at
    /// the end. Flows that were not announced are announced before ([`FlowEvent::New`]), and such as are gone without
    /// having been asked for after the end ([`FlowEvent::Deleted`]).
    fn next(&self, max: usize, batch: &mut Vec<Arc<SharedFlow>>) -> usize;
}

/// Which way a packet came up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpcallKind {
    /// No flow was there.
    Miss,
    /// A `userspace` action.
    Action,
}

/// A packet that a datapath queued for user space.
pub struct QueuedUpcall {
    /// Why.
    pub kind: UpcallKind,
    /// The packet.
    pub packet: Packet,
    /// Its key as the datapath wrote it (see `flow::odp::wire`): not to be trusted.
    pub key: Box<[u8]>,
    /// What the `userspace` action carried, empty for a miss: not to be trusted either.
    pub cookie: Box<[u8]>,
    /// The identifier that a flow for it is to have; `None`: one made of its key.
    pub ufid: Option<Ufid>,
}

/// The queue of a datapath whose misses wait for handler threads. It has a channel for each handler; packets of one
/// port stay in order on one channel.
pub trait UpcallQueue: Send + Sync {
    /// Makes so many channels; 0 stops queueing, and what misses is lost and counted. What was queued is thrown away
    /// and counted as lost.
    ///
    /// # Errors
    /// The channels cannot be had.
    fn set_handlers(&self, n: usize) -> Result<(), DpError>;

    /// Puts up to `max` upcalls of a channel, the oldest first, behind those in `batch`, without waiting. Returns how
    /// many. A channel that does not exist has none.
    fn recv(&self, handler: usize, max: usize, batch: &mut Vec<QueuedUpcall>) -> usize;

    /// Announces a sleep on the channel's waker; false when upcalls wait already.
    fn prepare_sleep(&self, handler: usize) -> bool;

    /// Woken for upcalls of a channel after [`UpcallQueue::prepare_sleep`] returned true.
    fn waker(&self, handler: usize) -> Option<Waker>;

    /// Throws away what is queued, and counts it as lost.
    fn purge(&self);
}

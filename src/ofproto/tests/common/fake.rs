//! A datapath that does at once what it is told, and moves no packets.

use datapath::{
    DpError, DpOp, FlowEvent, OpError, PortInfo, Provider, ProviderStats, SharedFlow, UserspacePacket,
};
use flow::{DpAction, DpPort};
use infra::Waker;
use netdev::Netdev;
use parking_lot::Mutex;
use std::sync::Arc;

/// Installs, changes and removes flows at once, and keeps their actions.
#[derive(Default)]
pub struct FakeDatapath {
    /// News that nobody took yet; tests add flows here.
    pub events: Mutex<Vec<FlowEvent>>,
    /// Flows, by address, that were given other actions.
    pub actions: Mutex<Vec<(usize, Arc<[DpAction]>)>>,
    /// What [`Provider::activity`] says.
    pub activity: Mutex<Option<u64>>,
}

impl Provider for FakeDatapath {
    fn kind(&self) -> &str {
        "netdev"
    }
    fn name(&self) -> &str {
        "ovs-netdev"
    }
    fn stats(&self) -> ProviderStats {
        ProviderStats::default()
    }
    fn ports(&self) -> Vec<PortInfo> {
        Vec::new()
    }
    fn add_port(&self, _: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError> {
        Ok(wanted.unwrap_or(DpPort(1)))
    }
    fn start_port(&self, _: DpPort) -> Result<(), DpError> {
        Ok(())
    }
    fn del_port(&self, _: DpPort) {}
    fn port_changed(&self, _: DpPort) -> Result<(), DpError> {
        Ok(())
    }
    fn operate(&self, ops: Vec<DpOp>) -> Vec<Result<(), OpError>> {
        ops.iter().map(|_| Ok(())).collect()
    }
    fn activity(&self) -> Option<u64> {
        *self.activity.lock()
    }
    fn flow_delete(&self, flow: &Arc<SharedFlow>) {
        self.events.lock().push(FlowEvent::Deleted(flow.clone()));
    }
    fn flow_set_actions(&self, flow: &Arc<SharedFlow>, actions: Arc<[DpAction]>) {
        self.actions.lock().push((Arc::as_ptr(flow) as usize, actions));
    }
    fn drain_events(&self, max: usize, f: &mut dyn FnMut(FlowEvent)) -> usize {
        let events: Vec<FlowEvent> = {
            let mut e = self.events.lock();
            let n = e.len().min(max);
            e.drain(..n).collect()
        };
        let n = events.len();
        events.into_iter().for_each(f);
        n
    }
    fn drain_userspace(&self, _: usize, _: &mut dyn FnMut(UserspacePacket)) -> usize {
        0
    }
    fn userspace_prepare_sleep(&self) -> bool {
        true
    }
    fn userspace_waker(&self) -> Option<Waker> {
        None
    }
}

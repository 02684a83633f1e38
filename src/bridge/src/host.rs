//! What bridges ask for while they handle OpenFlow: publishing tables, sending packets, fresh counters.
//!
//! Neighbours: `manager` lends it to each [`ofproto::ofproto::Ofproto`]. Threads: main only.

use datapath::Datapath;
use ofproto::ofproto::Host;
use ofproto::port::Port;
use ofproto::slowpath::SlowPath;
use ofproto::{BridgeId, OfError, PacketOut, Published, Tables, World};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything outside of one bridge.
pub struct HostShared {
    pub(crate) world: Arc<World>,
    pub(crate) slow: Option<Arc<SlowPath>>,
    pub(crate) datapath: Option<Arc<Datapath>>,
    /// A port-mod changed something that translation reads.
    pub(crate) ports_changed: bool,
    bridges: BTreeMap<String, (BridgeId, Published<Tables>)>,
}

impl HostShared {
    pub(crate) fn new(world: Arc<World>) -> HostShared {
        HostShared { world, slow: None, datapath: None, ports_changed: false, bridges: BTreeMap::new() }
    }

    pub(crate) fn remember(&mut self, name: &str, id: BridgeId, tables: Published<Tables>) {
        self.bridges.insert(name.into(), (id, tables));
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.bridges.remove(name);
    }
}

impl Host for HostShared {
    fn publish(&mut self, bridge: &str, tables: Tables) {
        if let Some((_, cell)) = self.bridges.get(bridge) {
            cell.store(tables);
            self.world.bump();
        }
    }

    fn packet_out(&mut self, bridge: &str, out: &PacketOut) -> Result<(), OfError> {
        let (Some(slow), Some((id, _))) = (&self.slow, self.bridges.get(bridge)) else { return Ok(()) };
        slow.packet_out(*id, out)
    }

    fn port_changed(&mut self, _bridge: &str, _port: &Port) {
        self.ports_changed = true;
    }

    fn refresh_stats(&mut self) {
        if let Some(s) = &self.slow {
            s.push_stats();
        }
    }

    fn now_ms(&self) -> u64 {
        infra::clock::now_ms().max(0) as u64
    }
}

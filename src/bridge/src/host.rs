//! What bridges ask for while they handle OpenFlow: publishing tables, sending packets, fresh counters.
//!
//! Neighbours: `manager` lends it to each [`ofproto::ofproto::Ofproto`]. Threads: main only.

use crate::backer::{Backer, Backers};
use ofproto::ofproto::Host;
use ofproto::port::Port;
use ofproto::{BridgeId, OfError, PacketOut, Published, Resume, Tables};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything outside of one bridge.
#[derive(Default)]
pub struct HostShared {
    pub(crate) backers: Backers,
    /// A port-mod changed something that translation reads.
    pub(crate) ports_changed: bool,
    bridges: BTreeMap<String, Known>,
}

/// A bridge, as far as it is asked about.
struct Known {
    id: BridgeId,
    tables: Published<Tables>,
    backer: Arc<Backer>,
}

impl HostShared {
    pub(crate) fn remember(
        &mut self,
        name: &str,
        id: BridgeId,
        tables: Published<Tables>,
        backer: Arc<Backer>,
    ) {
        self.bridges.insert(name.into(), Known { id, tables, backer });
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.bridges.remove(name);
    }
}

impl Host for HostShared {
    fn publish(&mut self, bridge: &str, tables: Tables) {
        if let Some(b) = self.bridges.get(bridge) {
            b.tables.store(tables);
            b.backer.world.tables_changed();
        }
    }

    fn packet_out(&mut self, bridge: &str, out: &PacketOut) -> Result<(), OfError> {
        let Some(b) = self.bridges.get(bridge) else { return Ok(()) };
        b.backer.slow.packet_out(b.id, out)
    }

    fn resume(&mut self, bridge: &str, r: &Resume) -> Result<(), OfError> {
        let Some(b) = self.bridges.get(bridge) else { return Ok(()) };
        b.backer.slow.resume(b.id, r)
    }

    fn port_changed(&mut self, _bridge: &str, _port: &Port) {
        self.ports_changed = true;
    }

    fn refresh_stats(&mut self) {
        self.backers.iter().for_each(|b| b.slow.push_stats());
    }

    fn now_ms(&self) -> u64 {
        infra::clock::now_ms().max(0) as u64
    }
}

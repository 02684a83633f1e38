//! What is: bridges, ports and interfaces as they are in effect.
//!
//! Neighbours: `manager` changes it, `publish` shows it to translation, `status` and `show` report it.
//! Threads: main only.

use crate::backer::Backer;
use crate::wanted::{WantedBridge, WantedInterface, WantedPort};
use flow::{DpPort, OfPort};
use netdev::Netdev;
use ofproto::ofproto::Ofproto;
use ofproto::{BridgeId, BundleId, MacLearning, Tables};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One interface, in effect or failed.
pub struct Interface {
    /// As the database wants it.
    pub wanted: WantedInterface,
    /// Why it is not in effect, for `Interface.error`; patch ports may work and still have one.
    pub error: Option<String>,
    /// OpenFlow number, when it is in effect.
    pub ofport: Option<OfPort>,
    /// The device, but for patch ports.
    pub netdev: Option<Arc<dyn Netdev>>,
    /// Datapath number, but for patch ports.
    pub dp_port: Option<DpPort>,
    /// The datapath has it, but does not receive from it yet.
    pub starting: bool,
    /// Ethernet address of a patch port.
    pub patch_mac: [u8; 6],
}

impl Interface {
    /// Whether it is a patch port.
    pub fn is_patch(&self) -> bool {
        self.wanted.kind == "patch"
    }

    /// The name of the peer of a patch port.
    pub fn peer(&self) -> Option<&str> {
        self.wanted.config.options.get("peer").map(String::as_str).filter(|_| self.is_patch())
    }
}

/// One port of a bridge: a bundle of interfaces.
pub struct Bundle {
    /// Identity for translation.
    pub id: BundleId,
    /// As the database wants it.
    pub wanted: WantedPort,
}

/// One bridge in effect.
pub struct Bridge {
    /// Identity for translation.
    pub id: BridgeId,
    /// Its datapath.
    pub backer: Arc<Backer>,
    /// As the database wants it.
    pub wanted: WantedBridge,
    /// OpenFlow.
    pub of: Ofproto,
    /// The published tables.
    pub tables: ofproto::Published<Tables>,
    /// MAC learning.
    pub macs: Arc<MacLearning>,
    /// Bundles by port name.
    pub bundles: BTreeMap<String, Bundle>,
    /// Interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
}

impl Bridge {
    /// The interface of the local port.
    pub fn local(&self) -> Option<&Interface> {
        self.interfaces.get(&self.wanted.name)
    }

    /// The bundle that has the interface `name`.
    pub fn bundle_of(&self, name: &str) -> Option<&Bundle> {
        self.bundles.values().find(|b| b.wanted.interfaces.iter().any(|i| i.name == name))
    }
}

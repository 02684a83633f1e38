//! The state in effect as the snapshot that translation reads.
//!
//! Neighbours: `manager` publishes after each change. Threads: main builds, all read.

use crate::backer::Backer;
use crate::state::{Bridge, Interface};
use flow::OfPort;
use ofproto::snapshot::{BridgeView, BundleView, PortConfig, PortView, VlanMode};
use ofproto::{BridgeId, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The peer of a patch port `name` of `bridge`, which is in a bridge of the same datapath: bridge and OpenFlow port.
pub fn patch_peer<'a>(
    bridges: &'a BTreeMap<String, Bridge>,
    bridge: &Bridge,
    name: &str,
    iface: &Interface,
) -> Option<(&'a Bridge, OfPort)> {
    let peer = iface.peer()?;
    bridges.values().filter(|b| Arc::ptr_eq(&b.backer, &bridge.backer)).find_map(|b| {
        let p = b.interfaces.get(peer)?;
        (p.peer() == Some(name)).then_some((b, p.ofport?))
    })
}

fn port_view(
    bridges: &BTreeMap<String, Bridge>,
    bridge: &Bridge,
    name: &str,
    iface: &Interface,
) -> Option<PortView> {
    let ofport = iface.ofport?;
    let port = bridge.of.port(ofport)?;
    let peer: Option<(BridgeId, OfPort)> = patch_peer(bridges, bridge, name, iface).map(|(b, p)| (b.id, p));
    Some(PortView {
        ofport,
        dp_port: iface.dp_port,
        name: name.into(),
        peer,
        is_patch: iface.is_patch(),
        config: PortConfig(port.config.0),
        link_up: port.link.up || iface.is_patch(),
        bundle: bridge.bundle_of(name).map(|b| b.id),
        stats: port.counters.clone(),
    })
}

fn bridge_view(bridges: &BTreeMap<String, Bridge>, bridge: &Bridge) -> BridgeView {
    let ports: Vec<PortView> =
        bridge.interfaces.iter().filter_map(|(n, i)| port_view(bridges, bridge, n, i)).collect();
    // NORMAL floods in the order in which ports were added, to the local port first.
    let age = |p: OfPort| (p != OfPort::LOCAL, bridge.of.port(p).map(|port| port.created_ms), p);
    let bundle_view = |b: &crate::state::Bundle| BundleView {
        id: b.id,
        name: b.wanted.name.as_str().into(),
        ports: b.wanted.interfaces.iter().filter_map(|i| bridge.interfaces.get(&i.name)?.ofport).collect(),
        vlan_mode: b.wanted.vlan_mode,
        vlan: if b.wanted.vlan_mode == VlanMode::Trunk { None } else { b.wanted.tag },
        trunks: b.wanted.trunks.clone(),
        priority_tags: b.wanted.priority_tags,
        protected: b.wanted.protected,
    };
    let bundles: Vec<BundleView> = bridge.bundles.values().map(bundle_view).collect();
    let mut bundle_order: Vec<(Option<OfPort>, ofproto::BundleId)> =
        bundles.iter().map(|b| (b.ports.first().copied(), b.id)).collect();
    bundle_order.sort_by_key(|&(port, id)| (port.map(age), id));
    BridgeView {
        id: bridge.id,
        name: bridge.wanted.name.as_str().into(),
        tables: bridge.tables.clone(),
        macs: bridge.macs.clone(),
        ports: ports.into_iter().map(|p| (p.ofport.0, Arc::new(p))).collect(),
        bundles: bundles.into_iter().map(|b| (b.id, Arc::new(b))).collect(),
        port_order: bridge.of.flood_order(),
        bundle_order: bundle_order.into_iter().map(|(_, id)| id).collect(),
        forward_bpdu: bridge.wanted.forward_bpdu,
        packet_in_on_miss: bridge.of.wants_misses(),
        frags: ofproto::snapshot::Fragments::of_config(bridge.of.config.frag),
    }
}

/// The snapshot of all bridges of one datapath.
pub fn snapshot(bridges: &BTreeMap<String, Bridge>, backer: &Arc<Backer>) -> Snapshot {
    let its = bridges.values().filter(|b| Arc::ptr_eq(&b.backer, backer));
    Snapshot::new(its.map(|b| Arc::new(bridge_view(bridges, b))))
}

//! One bridge whose ports all look alike, and rules, as tests of translation need them.

use flow::{DpPort, Match, OfPort};
use infra::Published;
use ofproto::snapshot::{flood_order, Fragments, PortConfig, PriorityTags, VlanMode};
use ofproto::{
    BridgeId, BridgeView, BundleId, BundleView, CompactMatch, MacLearning, PortView, Rule, RuleFlags,
    RuleStats, Tables,
};
use openflow::Action;
use std::sync::Arc;

/// A rule of table 0.
pub fn rule(priority: i32, matching: &Match, actions: Vec<Action>) -> Arc<Rule> {
    Arc::new(Rule {
        table_id: 0,
        priority,
        cookie: 0,
        matching: CompactMatch::new(matching),
        actions: actions.into(),
        flags: RuleFlags::default(),
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        created_ms: 0,
        modified_ms: 0,
        stats: Arc::new(RuleStats::default()),
    })
}

/// Number of a port in the datapath: that of OpenFlow, 100 for the local port.
fn dp_port(n: u16) -> DpPort {
    DpPort(if n == OfPort::LOCAL.0 { 100 } else { n.into() })
}

/// Bridge `br0` with these ports, each a trunk.
pub fn bridge(tables: Published<Tables>, macs: Arc<MacLearning>, ports: &[u16]) -> Arc<BridgeView> {
    let port = |n: u16| PortView {
        ofport: OfPort(n),
        dp_port: Some(dp_port(n)),
        name: "p".into(),
        peer: None,
        is_patch: false,
        config: PortConfig(0),
        link_up: true,
        bundle: Some(BundleId(n.into())),
        stats: Arc::default(),
    };
    let bundle = |n: u16| BundleView {
        id: BundleId(n.into()),
        name: "p".into(),
        ports: vec![OfPort(n)],
        vlan_mode: VlanMode::Trunk,
        vlan: None,
        trunks: None,
        priority_tags: PriorityTags::Never,
        protected: false,
    };
    let numbers: Vec<OfPort> = ports.iter().map(|&n| OfPort(n)).collect();
    Arc::new(BridgeView {
        id: BridgeId(1),
        name: "br0".into(),
        tables,
        macs,
        ports: ports.iter().map(|&n| (n, Arc::new(port(n)))).collect(),
        bundles: ports.iter().map(|&n| (BundleId(n.into()), Arc::new(bundle(n)))).collect(),
        port_order: flood_order(&numbers),
        bundle_order: ports.iter().map(|&n| BundleId(n.into())).collect(),
        forward_bpdu: false,
        packet_in_on_miss: false,
        frags: Fragments::Normal,
    })
}

//! Soundness of megaflows: for random tables and random packets, every packet that an installed megaflow covers gets
//! the actions that translating it afresh gives. `VSWITCH_SOUNDNESS_CASES` sets the number of compared packets.

mod packets;
mod rng;
mod rules;

use flow::extract::{extract_flow, PktMetadata};
use flow::{DpPort, Flow, OfPort};
use infra::Published;
use ofproto::snapshot::{flood_order, PortConfig, PriorityTags, VlanMode, VlanSet};
use ofproto::upcall::{translate_flow, Purpose};
use ofproto::xlate::XlateOut;
use ofproto::{BridgeId, BridgeView, BundleId, BundleView, MacLearning, PortView, Snapshot, World};
use packets::Spec;
use rng::Rng;
use std::collections::HashMap;
use std::sync::Arc;

/// Bridge `id` with ports 1 to 5 and the local one; port 6 is a patch port to the other bridge.
fn bridge(id: u32, r: &mut Rng) -> Arc<BridgeView> {
    let numbers: Vec<u16> = vec![65534, 1, 2, 3, 4, 5, 6];
    let mut ports = hashbrown::HashMap::new();
    let mut bundles = hashbrown::HashMap::new();
    for (i, &n) in numbers.iter().enumerate() {
        let bundle = BundleId(id * 100 + i as u32);
        let patch = n == 6;
        let config = if r.chance(8) {
            r.pick(&[PortConfig::NO_FLOOD, PortConfig::NO_FWD, PortConfig::NO_RECV])
        } else {
            0
        };
        let port = PortView {
            ofport: OfPort(n),
            dp_port: (!patch).then_some(DpPort(id * 10 + i as u32)),
            name: format!("p{n}").into(),
            peer: patch.then_some((BridgeId(3 - id), OfPort(6))),
            is_patch: patch,
            config: PortConfig(config),
            link_up: true,
            bundle: Some(bundle),
            stats: Arc::default(),
        };
        ports.insert(n, Arc::new(port));
        let mode =
            r.pick(&[VlanMode::Trunk, VlanMode::Access, VlanMode::NativeTagged, VlanMode::NativeUntagged]);
        let view = BundleView {
            id: bundle,
            name: format!("p{n}").into(),
            ports: vec![OfPort(n)],
            vlan_mode: mode,
            vlan: (mode != VlanMode::Trunk).then_some(10),
            trunks: r.chance(3).then(|| VlanSet::new([0, 10, 20])),
            priority_tags: r.pick(&[PriorityTags::Never, PriorityTags::IfNonzero, PriorityTags::Always]),
            protected: r.chance(5),
        };
        bundles.insert(bundle, Arc::new(view));
    }
    let macs = MacLearning::new();
    for _ in 0..8 {
        let key = ofproto::mac_learning::MacKey {
            vlan: r.pick(&[0, 10, 20]),
            mac: [2, 0, 0, 0, 0, r.below(6) as u8],
        };
        macs.learn(key, BundleId(id * 100 + r.below(7) as u32), 0, true);
    }
    let all: Vec<OfPort> = numbers.iter().map(|&n| OfPort(n)).collect();
    Arc::new(BridgeView {
        id: BridgeId(id),
        name: format!("br{id}").into(),
        tables: Published::new(rules::tables(r)),
        macs: Arc::new(macs),
        ports,
        bundle_order: (0..all.len()).map(|i| BundleId(id * 100 + i as u32)).collect(),
        bundles,
        port_order: flood_order(&all),
        forward_bpdu: r.chance(4),
        packet_in_on_miss: r.chance(3),
        drop_frags: r.chance(8),
    })
}

fn flow_of(spec: &Spec, port: u32, vlan_limit: u8) -> Flow {
    extract_flow(&spec.frame(), &PktMetadata::new(port).with_vlan_limit(vlan_limit)).0
}

/// The words in which two flows differ, with the mask.
fn difference(a: &Flow, b: &Flow, mask: &flow::Mask) -> String {
    let words = a.words().iter().zip(b.words()).zip(mask.0.words()).enumerate();
    words
        .filter(|(_, ((x, y), _))| x != y)
        .map(|(i, ((x, y), m))| format!("word {i}: {x:x} {y:x} mask {m:x}; "))
        .collect()
}

/// Compares packets with the megaflows of one world until `want` were compared. Returns how many were.
fn one_world(seed: u64, want: usize) -> usize {
    let mut r = Rng(seed);
    let world = World::new();
    world.publish(Snapshot::new([bridge(1, &mut r), bridge(2, &mut r)]));
    let (mut first, mut fresh) = (XlateOut::default(), XlateOut::default());
    let vlan_limit = r.pick(&[1, 1, 2]);
    let mut compared = 0;
    for _ in 0..64 {
        let spec = Spec::random(&mut r);
        let port = 11 + r.below(5) as u32;
        // Some packets come back with an id that an earlier translation made.
        let recirc_id = if r.chance(3) { r.below(world.recirc().len() + 1) as u32 } else { 0 };
        let flow_of = |spec: &Spec, port: u32, limit: u8| Flow { recirc_id, ..flow_of(spec, port, limit) };
        let key = flow_of(&spec, port, vlan_limit);
        translate_flow(&world, &key, 0, Purpose::Revalidate, &mut first);
        for _ in 0..64 {
            let other = spec.mutate(&mut r);
            let flow = flow_of(&other, if r.chance(20) { 12 } else { port }, vlan_limit);
            if !key.matches(&flow, &first.mask) {
                continue;
            }
            translate_flow(&world, &flow, 0, Purpose::Revalidate, &mut fresh);
            assert_eq!(
                (&first.actions, first.slow),
                (&fresh.actions, fresh.slow),
                "seed {seed}: {spec:?} made a megaflow that covers {other:?}; differing: {}",
                difference(&key, &flow, &first.mask),
            );
            compared += 1;
            if compared == want {
                return compared;
            }
        }
    }
    compared
}

#[test]
fn megaflows_are_sound() {
    let cases: usize =
        std::env::var("VSWITCH_SOUNDNESS_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(100_000);
    let seed0: u64 = std::env::var("VSWITCH_SOUNDNESS_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let mut done = 0;
    let mut worlds = 0u64;
    while done < cases {
        done += one_world(seed0 + worlds, (cases - done).min(1000));
        worlds += 1;
    }
    println!("{done} packets compared with the megaflows of {worlds} worlds, none differ");
}

#[test]
fn masks_are_not_exact() {
    // A mask that looked at everything would be sound and useless.
    let mut r = Rng(5);
    let world = World::new();
    world.publish(Snapshot::new([bridge(1, &mut r), bridge(2, &mut r)]));
    let mut out = XlateOut::default();
    let mut flows: HashMap<Vec<u64>, usize> = HashMap::new();
    for _ in 0..2000 {
        let key = flow_of(&Spec::random(&mut r), 11, 1);
        translate_flow(&world, &key, 0, Purpose::Revalidate, &mut out);
        *flows.entry(key.masked(&out.mask).words().to_vec()).or_default() += 1;
    }
    assert!(flows.len() < 1700, "{} megaflows for 2000 packets", flows.len());
}

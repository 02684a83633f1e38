//! How many misses a core translates a second. Run by hand:
//! `cargo test --release -p ofproto --test miss_rate -- --ignored --nocapture`.

#[path = "common/world.rs"]
mod world;

use datapath::{Miss, MissResult, PmdId, Upcall};
use flow::extract::{extract_flow, PktMetadata};
use flow::{Field, Match, OfPort, SubField};
use infra::Published;
use ofproto::{MacLearning, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use packet::Packet;
use std::sync::Arc;
use std::time::Instant;

fn world(actions: Vec<Action>) -> Arc<World> {
    let mut tables = Tables::default();
    tables.table_mut(0).classifier.insert(world::rule(32768, &Match::any(), actions));
    let w = World::new();
    let macs = Arc::new(MacLearning::new());
    w.publish(Snapshot::new([world::bridge(Published::new(tables), macs, &[1, 2])]));
    Arc::new(w)
}

#[test]
#[ignore = "a measurement"]
fn misses_per_second() {
    let actions = vec![
        Action::Multipath {
            fields: 1,
            basis: 1024,
            algorithm: 0,
            max_link: 0,
            arg: 0,
            dst: SubField { field: Field::Reg(0), ofs: 0, n_bits: 13 },
        },
        Action::Output { port: OfPort(2), max_len: 0 },
    ];
    let upcalls = Upcalls::new(world(actions));
    upcalls.set_flow_limit(usize::MAX);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 11, 0, 0, 1]);
    frame.extend([0; 26]);
    let packet = Packet::from_slice(&frame);
    let (mut flow, _) = extract_flow(&frame, &PktMetadata::new(1));
    let mut out = MissResult::default();
    let n = 2_000_000u32;
    let start = Instant::now();
    for i in 0..n {
        flow.nw_src = i.into();
        out.reset();
        upcalls.miss(&Miss { packet: &packet, flow: &flow, core: PmdId(0), now_ms: 1 }, &mut out);
    }
    let took = start.elapsed();
    println!("{:.0} thousand misses a second", f64::from(n) / took.as_secs_f64() / 1000.0);
    assert_eq!(out.actions.len(), 1);
}

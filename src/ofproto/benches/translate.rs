//! Cycles and allocations of translating one miss, with and without a megaflow that keeps the result.

#[path = "../tests/common/world.rs"]
mod world;

use datapath::{Miss, MissResult, PmdId, Upcall};
use flow::extract::{extract_flow, PktMetadata};
use flow::{Match, OfPort};
use infra::clock::tsc;
use infra::counting::{allocations, CountingAllocator};
use infra::Published;
use ofproto::{MacLearning, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use packet::build::{Builder, Ip4};
use packet::Packet;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const FLOWS: u16 = 1_000;
const ROUNDS: usize = 30;

fn output(port: OfPort) -> Action {
    Action::Output { port, max_len: 0 }
}

fn resubmit(table: u8) -> Action {
    Action::Resubmit { in_port: OfPort::IN_PORT, table, with_ct: false }
}

fn parse(text: &str) -> Match {
    Match::parse(text, &|_| None).expect("a match")
}

/// A rule for each of `n` masks; the last matches what the packets are.
fn masks(n: u32) -> Tables {
    let mut t = Tables::default();
    for i in 0..n {
        let (a, b) = (i % 31 + 1, i / 31 + 1);
        let other = i + 1 < n;
        let net = if other { "172.16.0.1" } else { "10.0.0.1" };
        let m = parse(&format!("udp,nw_src={net}/{a},tp_src=0/{:#x}", (1u32 << b.min(15)) - 1));
        let m = if other { m } else { parse("udp,nw_src=10.0.0.0/8") };
        t.table_mut(0).classifier.insert(world::rule(100, &m, vec![output(OfPort(2))]));
    }
    t
}

fn chain(n: u8) -> Tables {
    let mut t = Tables::default();
    for i in 0..n {
        let act = if i + 1 < n { resubmit(i + 1) } else { output(OfPort(2)) };
        t.table_mut(i).classifier.insert(world::rule(1, &Match::any(), vec![act]));
    }
    t
}

fn one(actions: Vec<Action>) -> Tables {
    let mut t = Tables::default();
    t.table_mut(0).classifier.insert(world::rule(1, &Match::any(), actions));
    t
}

fn measure(name: &str, tables: Tables) {
    let world = Arc::new(World::new());
    let tables = Published::new(tables);
    world.publish(Snapshot::new([world::bridge(tables, Arc::new(MacLearning::new()), &[1, 2, 3])]));
    let upcalls = Upcalls::new(world.clone());
    let packets: Vec<(Packet, flow::Flow)> = (0..FLOWS)
        .map(|i| {
            let eth = Builder::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let f = eth.ipv4(Ip4::new([10, 0, 0, (i >> 8) as u8], [10, 1, 0, i as u8])).udp(i, 80).finish();
            let (flow, _) = extract_flow(&f, &PktMetadata::new(1));
            (Packet::from_slice(&f), flow)
        })
        .collect();
    let mut figures = Vec::new();
    for limit in [0, usize::MAX] {
        upcalls.set_flow_limit(limit);
        let (mut best, mut asked) = (u64::MAX, 0);
        for _ in 0..ROUNDS {
            let mut kept = Vec::with_capacity(packets.len());
            let mut out = MissResult::default();
            let before = allocations();
            let start = tsc();
            for (packet, flow) in &packets {
                out.reset();
                upcalls.miss(&Miss { packet, flow, core: PmdId(0), now_ms: 1 }, &mut out);
                assert!(!out.failed && out.install == (limit != 0));
                kept.push(out.ctx.take());
            }
            best = best.min(tsc() - start);
            asked = allocations() - before;
        }
        figures.push((best as f64 / f64::from(FLOWS), asked as f64 / f64::from(FLOWS)));
    }
    let [(once, a), (kept, b)] = figures[..] else { return };
    println!("{name:<24} {once:9.0} {a:7.2} {kept:9.0} {b:7.2}");
}

fn main() {
    println!("{:<24} {:>9} {:>7} {:>9} {:>7}", "cycles a miss", "once", "allocs", "kept", "allocs");
    measure("one rule", one(vec![output(OfPort(2))]));
    measure("NORMAL", one(vec![output(OfPort::NORMAL)]));
    let rewrite = vec![
        Action::SetEthSrc([2, 0, 0, 0, 0, 9]),
        Action::SetIpv4Dst([10, 9, 9, 9]),
        Action::DecTtl(Box::default()),
        Action::PushVlan(0x8100),
        output(OfPort(2)),
    ];
    measure("rewrite", one(rewrite));
    measure("8 tables", chain(8));
    for n in [1, 20, 100, 400] {
        measure(&format!("{n} masks"), masks(n));
    }
}

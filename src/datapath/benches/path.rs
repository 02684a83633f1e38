//! Cycles and allocations per packet of the whole path, from receive to transmit, over ports in memory, and of its parts.
//!
//! Each figure is the best of many short runs, so that a busy machine disturbs it little. The first line is what the
//! ports cost by themselves; it is part of every other line.

use datapath::{Clock, Datapath, DpConfig, DpOptions, Miss, MissResult, Upcall};
use flow::action::Ipv4Set;
use flow::{Be16, Be32, DpAction, DpPort, Mask, SetField};
use infra::clock::tsc;
use infra::counting::{allocations, CountingAllocator};
use netdev::Netdev;
use packet::Batch;
use std::sync::Arc;

mod cliff;
mod parts;
mod wire;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

type Rule = Box<dyn Fn(&Miss<'_>, &mut MissResult) + Send + Sync>;

struct Table(Rule);

impl Upcall for Table {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        out.install = true;
        out.mask.0.dl_type = Be16::MAX;
        out.mask.0.nw_frag = 3;
        (self.0)(req, out);
    }
}

fn output(mask: impl Fn(&Miss<'_>, &mut Mask) + Send + Sync + 'static) -> Rule {
    Box::new(move |req, out| {
        mask(req, &mut out.mask);
        out.actions.push(DpAction::Output(DpPort(2)));
    })
}

/// A clock fifty times as fast: what is done once a second is done before a short run ends.
fn quick_clock() -> Clock {
    Arc::new(|| infra::clock::now_ms().max(0) as u64 * 50)
}

/// Best cycles per packet of `rounds` runs of `round`, which returns packets.
fn best(rounds: usize, mut round: impl FnMut() -> usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = tsc();
        let n = round();
        best = best.min((tsc() - start) as f64 / n.max(1) as f64);
    }
    best
}

fn bare(frames: Vec<Vec<u8>>) -> f64 {
    let pool = wire::pool(256, 1500);
    let port = wire::Wire::new("bare", frames, &pool);
    let (mut rx, mut tx) = (port.rx_queue(0).expect("queue"), port.tx_queue(0).expect("queue"));
    let mut b = Batch::new();
    let mut round = || {
        let mut n = 0;
        for _ in 0..400 {
            rx.recv(&mut b);
            n += b.len();
            tx.send(&mut b);
        }
        n
    };
    (0..20).for_each(|_| assert!(round() > 0));
    best(200, round)
}

fn run(name: &str, frames: Vec<Vec<u8>>, emc: u32, rule: Rule) {
    let io = bare(frames.clone());
    let warm = frames.len() * 3 / 12_800 + 3;
    let pool = wire::pool(256, 1500);
    let options =
        DpOptions { threads: false, lazy_clock: true, clock: quick_clock(), ..DpOptions::default() };
    let dp = Datapath::new("bench", Arc::new(Table(rule)), options).expect("datapath");
    dp.set_config(DpConfig { emc_insert_inv_prob: emc, ..DpConfig::default() }).expect("config");
    dp.add_port(wire::Wire::new("in", frames, &pool), None).expect("port");
    dp.add_port(wire::Wire::new("out", Vec::new(), &pool), None).expect("port");
    let round = || (0..400).map(|_| dp.step()).sum();
    for _ in 0..warm {
        let _: usize = round();
        dp.drain_events(usize::MAX, &mut |_| ());
    }
    let (before, asked) = (dp.total_stats().received, allocations());
    let cycles = best(300, round);
    let (s, asked) = (dp.total_stats(), allocations() - asked);
    let each = asked as f64 / (s.received - before) as f64;
    let share = |n: u64| share(n, s.received);
    println!(
        "{name:<24} {cycles:7.1} {io:7.1} {:7.1} {each:7.4}   simple {:5.1} % smc {:5.1} % emc {:5.1} % megaflow {:5.1} %  flows {}",
        cycles - io,
        share(s.simple_hits),
        share(s.smc_hits),
        share(s.emc_hits),
        share(s.megaflow_hits),
        dp.flow_count()
    );
}

/// `n` of `all`, in per cent.
fn share(n: u64, all: u64) -> f64 {
    100.0 * n as f64 / all as f64
}

fn setup() {
    let n = 100_000;
    let pool = wire::pool(256, 1500);
    let options = DpOptions { threads: false, lazy_clock: true, ..DpOptions::default() };
    let rule = output(|_, m| {
        m.0.nw_src = Be32::MAX;
        m.0.tp_src = Be16::MAX;
    });
    let dp = Datapath::new("bench", Arc::new(Table(rule)), options).expect("datapath");
    dp.add_port(wire::Wire::new("in", wire::flows(n, 60), &pool), None).expect("port");
    dp.add_port(wire::Wire::new("out", Vec::new(), &pool), None).expect("port");
    let mut cycles = Vec::new();
    while dp.flow_count() < n as usize * 9 / 10 {
        let start = tsc();
        for _ in 0..100 {
            dp.step();
        }
        cycles.push((tsc() - start) / 3_200);
        dp.drain_events(usize::MAX, &mut |_| ());
    }
    cycles.sort_unstable();
    println!(
        "{:<24} {:7} cycles a megaflow without translation (median)",
        "set-up",
        cycles[cycles.len() / 2]
    );
}

/// Bits that the simple match refuses (flags of whatever protocol), so that the caches behind it are measured.
fn slow(m: &mut Mask) {
    m.0.tcp_flags = Be16::new(1);
}

/// Name, flows of the traffic, `emc-insert-inv-prob`, and what the tables say.
fn cases() -> Vec<(&'static str, u32, u32, Rule)> {
    let l3 = || output(|_, m| m.0.nw_dst = Be32::new(0xff00_0000));
    let per_flow = || {
        output(|_, m| {
            m.0.nw_src = Be32::MAX;
            m.0.tp_src = Be16::MAX;
        })
    };
    let masks20 = || {
        output(|r, m| {
            m.0.nw_proto = 255;
            m.0.tp_dst = Be16::MAX;
            let n = u32::from(r.flow.tp_dst.get() - 2048);
            m.0.nw_dst = Be32::new(!0 << (23 - n % 16));
            m.0.nw_tos = if n > 15 { 4 } else { 0 };
        })
    };
    let rewrite: fn() -> Rule = || {
        Box::new(|_, out| {
            let set = |key, mask| DpAction::Set(SetField::Ipv4 { key, mask });
            let key = Ipv4Set { dst: Be32::new(0x0a09_0909), ttl: 63, ..Ipv4Set::default() };
            let mask = Ipv4Set { dst: Be32::MAX, ttl: 255, ..Ipv4Set::default() };
            let (src, none, all) = ([2, 0, 0, 0, 0, 10], [0; 6], [255; 6]);
            out.mask.0.nw_dst = Be32::MAX;
            out.mask.0.nw_ttl = 255;
            out.mask.0.dl_src = all;
            out.mask.0.vlans[0].tci = Be16::MAX;
            out.actions.extend([
                DpAction::Set(SetField::Eth { src, dst: none, src_mask: all, dst_mask: none }),
                set(key, mask),
                DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1064) },
                DpAction::Output(DpPort(2)),
            ]);
        })
    };
    let emc_rule = || {
        output(|_, m| {
            slow(m);
            m.0.nw_dst = Be32::new(0xff00_0000);
        })
    };
    let pop = || -> Rule {
        Box::new(|_, out| out.actions.extend([DpAction::PopVlan, DpAction::Output(DpPort(2))]))
    };
    vec![
        ("port-1", 1, 100, output(|_, _| ())),
        ("l3-1k", 1_000, 100, l3()),
        ("l3-100k", 100_000, 100, l3()),
        ("masks20-100k", 100_000, 100, masks20()),
        ("perflow-100k", 100_000, 100, per_flow()),
        ("rewrite-1k", 1_000, 100, rewrite()),
        ("pop-1k", 1_000, 100, pop()),
        ("emc-1k", 1_000, 1, emc_rule()),
        ("emc-100k", 100_000, 100, emc_rule()),
        ("no-emc-1k", 1_000, 0, emc_rule()),
    ]
}

fn main() {
    let only = std::env::args().nth(1).filter(|a| !a.starts_with('-'));
    infra::vlog::set("off").expect("a level");
    let want = |name: &str| only.as_ref().is_none_or(|o| name.contains(o.as_str()));
    if want("parts") {
        parts::print();
    }
    println!("{:<24} {:>7} {:>7} {:>7} {:>7}", "cycles a packet", "all", "ports", "path", "allocs");
    for (name, actions) in parts::actions() {
        if want(name) {
            run(name, wire::flows(1_000, 60), 100, parts::rule(actions));
        }
    }
    for (name, flows, emc, rule) in cases() {
        if want(name) {
            run(name, wire::flows(flows, 60), emc, rule);
        }
    }
    if want("set-up") {
        setup();
    }
    for n in [1, 20, 100, 1_000] {
        // Behind the simple match, and far more microflows than any cache holds.
        let cases =
            [("masks", false, 100_000), ("masks-slow", true, 100_000), ("masks-2m", false, 2_000_000)];
        for (kind, slow, flows) in cases {
            let name = format!("{kind}-{n}");
            if want(&name) {
                cliff::masks(&name, n, slow, 100, flows);
            }
        }
    }
    for (name, slow, late) in
        [("attack", false, false), ("attack-first", false, true), ("attack-slow", true, false)]
    {
        if want(name) {
            cliff::explosion(name, slow, late);
        }
    }
}

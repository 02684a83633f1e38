//! Parts of the path by themselves: parsing of several kinds of frames, hashing of keys, and each action.

use crate::{best, output, wire, Rule};
use flow::action::Ipv4Set;
use flow::extract::{extract, PktMetadata};
use flow::hash::hash_5tuple;
use flow::{Be16, Be32, DpAction, DpPort, Miniflow, RecircId, SetField};
use infra::counting::allocations;
use packet::build::{Builder, Ip4, Ip6};
use std::hint::black_box;

/// Things done in a run.
const RUN: usize = 1_000;

fn report(name: &str, mut each: impl FnMut(usize)) {
    let asked = allocations();
    let cycles = best(200, || {
        (0..RUN).for_each(&mut each);
        RUN
    });
    let asked = (allocations() - asked) as f64 / (200 * RUN) as f64;
    println!("{name:<24} {cycles:7.1} {asked:7.4}");
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let eth = || Builder::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip4 = || Ip4::new([10, 0, 0, 1], [10, 0, 0, 2]);
    let ip6 = Ip6::new([0xfd; 16], [0xfe; 16]);
    vec![
        ("parse udp", eth().ipv4(ip4()).udp(1, 2).finish()),
        ("parse tcp", eth().ipv4(ip4()).tcp(1, 2, 0x10).finish()),
        ("parse vlan tcp", eth().vlan(0x8100, 100).ipv4(ip4()).tcp(1, 2, 0x10).finish()),
        ("parse ipv6 udp", eth().ipv6(ip6).udp(1, 2).finish()),
        ("parse mpls", eth().mpls(0x0001_0140).finish()),
        ("parse arp", eth().arp(1, [2; 6], [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]).finish()),
    ]
}

/// Cycles of parsing a frame into a key, and of hashing it.
pub fn print() {
    println!("{:<24} {:>7} {:>7}", "cycles each", "all", "allocs");
    let md = PktMetadata::new(1);
    let mut key = Miniflow::EMPTY;
    for (name, frame) in frames() {
        report(name, |_| {
            black_box(extract(black_box(&frame), &md, &mut key));
        });
    }
    let keys: Vec<Miniflow> = wire::flows(RUN as u32, 60)
        .iter()
        .map(|f| {
            let mut key = Miniflow::EMPTY;
            extract(f, &md, &mut key);
            key
        })
        .collect();
    report("hash of a 5-tuple", |i| {
        black_box(hash_5tuple(&keys[i], 1));
    });
    report("key to flow", |i| {
        black_box(keys[i].expand());
    });
}

/// Every action that a plain frame can take, each before an output. The copy for a second output is allocated here,
/// where buffers come from the heap; those of a device's pool are copied within the pool.
pub fn actions() -> Vec<(&'static str, Vec<DpAction>)> {
    let all = [255; 6];
    let ip_key = Ipv4Set { dst: Be32::new(0x0a09_0909), ttl: 63, ..Ipv4Set::default() };
    let ip_mask = Ipv4Set { dst: Be32::MAX, ttl: 255, ..Ipv4Set::default() };
    let eth = SetField::Eth { src: [2; 6], dst: [4; 6], src_mask: all, dst_mask: all };
    let none = Be16::new(0);
    let udp = SetField::Udp { src: Be16::new(7), dst: none, src_mask: Be16::MAX, dst_mask: none };
    vec![
        ("output", vec![]),
        ("set(eth)", vec![DpAction::Set(eth)]),
        ("set(ipv4)", vec![DpAction::Set(SetField::Ipv4 { key: ip_key, mask: ip_mask })]),
        ("set(udp)", vec![DpAction::Set(udp)]),
        ("set(skb_mark)", vec![DpAction::Set(SetField::SkbMark { value: 1, mask: u32::MAX })]),
        ("push_vlan", vec![DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1064) }]),
        ("push_mpls", vec![DpAction::PushMpls { ethertype: Be16::new(0x8847), lse: Be32::new(0x0001_0140) }]),
        ("trunc", vec![DpAction::Trunc { max_len: 64 }]),
        ("output,output", vec![DpAction::Output(DpPort(2))]),
        ("hash,recirc", vec![DpAction::Hash { alg: 0, basis: 0 }, DpAction::Recirc(RecircId(1))]),
    ]
}

/// Does `actions`, then sends to the other port, unless the packet comes round again first.
pub fn rule(actions: Vec<DpAction>) -> Rule {
    let last = matches!(actions.last(), Some(DpAction::Recirc(_)));
    if !last {
        return Box::new(move |_, out| {
            out.actions.extend(actions.iter().cloned());
            out.actions.push(DpAction::Output(DpPort(2)));
        });
    }
    let second = output(|_, _| ());
    Box::new(move |req, out| match req.flow.recirc_id {
        0 => out.actions.extend(actions.iter().cloned()),
        _ => second(req, out),
    })
}

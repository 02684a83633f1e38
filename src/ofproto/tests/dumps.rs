//! Megaflows as `ovs-appctl dpctl/dump-flows` of Open vSwitch 3.1 showed them for the same rules and frames.
//!
//! `data/dumps.txt` has a line for each case: rule set, frame in hex, key and actions. It was recorded with dummy ports
//! 1 to 4 (and the local port, 100) in one bridge, the learned addresses and flows flushed before each frame.
//!
//! Left out are the cases in which Open vSwitch's megaflow covers packets that would get other actions, where ours is
//! narrower: NORMAL with priority tags, `symmetric_l3l4` without IP, label stacks that do not end.

#[path = "common/world.rs"]
mod world;

use datapath::{Miss, MissResult, PmdId, Upcall};
use flow::extract::{extract_flow, PktMetadata};
use flow::odp::{format_actions, format_key, Style};
use flow::{Field, Match, OfPort, SubField};
use infra::Published;
use ofproto::{MacLearning, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use packet::Packet;
use std::sync::Arc;

type M = Vec<(Field, u128, u128)>;

const ALL: u128 = u128::MAX;
const IP: (Field, u128, u128) = (Field::EthType, 0x0800, ALL);
const IP6: (Field, u128, u128) = (Field::EthType, 0x86dd, ALL);
const ARP: (Field, u128, u128) = (Field::EthType, 0x0806, ALL);

fn proto(v: u128) -> (Field, u128, u128) {
    (Field::IpProto, v, ALL)
}

fn is(field: Field, v: u128) -> (Field, u128, u128) {
    (field, v, ALL)
}

fn out(port: u16) -> Action {
    Action::Output { port: OfPort(port), max_len: 65535 }
}

fn load(field: Field, ofs: u16, n_bits: u16, value: u128) -> Action {
    Action::Load { dst: SubField { field, ofs, n_bits }, value }
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.all_ones(), flow_has_vlan: false }
}

fn bits(field: Field, ofs: u16, n_bits: u16) -> SubField {
    SubField { field, ofs, n_bits }
}

fn fe80(last: u128) -> u128 {
    0xfe80 << 112 | last
}

fn nd(target: Option<u128>) -> M {
    let mut m = vec![IP6, proto(58), is(Field::Icmpv6Type, 135), is(Field::Icmpv6Code, 0)];
    m.extend(target.map(|t| is(Field::NdTarget, t)));
    m
}

fn multipath(fields: u16, basis: u16, algorithm: u16) -> Vec<(i32, M, Vec<Action>)> {
    let dst = bits(Field::Reg(0), 0, 3);
    let choose = Action::Multipath { fields, basis, algorithm, max_link: 3, arg: 0, dst };
    vec![(1, vec![], vec![choose, Action::OutputReg { src: SubField::whole(Field::Reg(0)), max_len: 65535 }])]
}

fn rules(set_name: &str) -> Vec<(i32, M, Vec<Action>)> {
    let vid = |vid| Action::SetVlanVid { vid, push_if_needed: true, flow_has_vlan: false };
    let pcp = |pcp| Action::SetVlanPcp { pcp, push_if_needed: true, flow_has_vlan: false };
    match set_name {
        "normal" => vec![(1, vec![], vec![out(0xfffa)])],
        "match" => vec![
            (9, vec![IP, proto(6), is(Field::TcpDst, 80)], vec![out(2)]),
            (8, vec![IP, proto(17), is(Field::UdpDst, 443)], vec![out(3)]),
            (7, vec![ARP, is(Field::ArpOp, 1)], vec![out(3)]),
            (6, nd(Some(fe80(1))), vec![out(2)]),
            (5, vec![IP, (Field::Ipv4Dst, 0x0a00_0100, 0xffff_ff00)], vec![out(4)]),
            (4, vec![IP6, is(Field::Ipv6Src, fe80(1))], vec![out(3)]),
            (3, vec![is(Field::DlVlan, 10)], vec![out(2)]),
            (0, vec![], vec![]),
        ],
        "ttl" => vec![(1, vec![], vec![Action::DecTtl(Box::new([])), Action::SetIpDscp(32), out(2)])],
        "fields" => vec![
            (
                9,
                vec![IP, proto(6)],
                vec![load(Field::TcpDst, 0, 16, 5), load(Field::Ipv4Src, 0, 8, 1), out(2)],
            ),
            (9, vec![ARP], vec![load(Field::ArpOp, 0, 16, 2), out(2)]),
            (9, nd(None), vec![set(Field::NdTarget, fe80(9)), out(2)]),
            (9, vec![IP, proto(1)], vec![load(Field::Icmpv4Type, 0, 8, 3), out(2)]),
            (9, vec![IP6, proto(17)], vec![set(Field::Ipv6Dst, fe80(9)), out(3)]),
            (0, vec![], vec![Action::SetEthSrc([2, 0, 0, 0, 0, 1]), out(4)]),
        ],
        "vlan" => vec![(1, vec![], vec![vid(10), out(2), Action::StripVlan, out(3), pcp(3), out(4)])],
        "multipath" => multipath(1, 1024, 0),
        "l3l4" => multipath(3, 7, 2),
        "mpls" => vec![
            (9, vec![is(Field::EthType, 0x8847)], vec![Action::PopMpls(0x0800), out(2)]),
            (0, vec![], vec![Action::PushMpls(0x8847), Action::SetMplsLabel(5), out(3)]),
        ],
        "move" => vec![
            (
                9,
                vec![IP],
                vec![
                    Action::Move { src: bits(Field::EthSrc, 0, 48), dst: bits(Field::EthDst, 0, 48) },
                    Action::SetIpv4Dst([10, 0, 0, 9]),
                    out(2),
                ],
            ),
            (
                8,
                vec![],
                vec![
                    out(0xfffd),
                    Action::Move { src: bits(Field::EthDst, 0, 16), dst: bits(Field::EthSrc, 16, 16) },
                    load(Field::PktMark, 0, 32, 7),
                    out(3),
                ],
            ),
        ],
        _ => vec![
            (9, vec![IP, (Field::IpFrag, 3, 3)], vec![out(2)]),
            (8, vec![IP, (Field::IpFrag, 1, 3)], vec![out(3)]),
            (7, vec![IP, proto(6), is(Field::TcpSrc, 1)], vec![out(4)]),
            (6, vec![IP, is(Field::IpDscp, 32)], vec![out(2)]),
            (5, vec![IP, is(Field::IpTtl, 64)], vec![out(3)]),
            (4, vec![(Field::EthDst, 1 << 40, 1 << 40)], vec![out(0xfffb)]),
        ],
    }
}

fn world(set_name: &str) -> Arc<World> {
    let mut tables = Tables::default();
    for (priority, matching, actions) in rules(set_name) {
        let mut m = Match::any();
        matching.iter().for_each(|&(f, v, mask)| m.set_masked(f, v, mask & f.all_ones()));
        tables.table_mut(0).classifier.insert(world::rule(priority, &m, actions));
    }
    let world = World::new();
    let macs = Arc::new(MacLearning::new());
    world.publish(Snapshot::new([world::bridge(Published::new(tables), macs, &[65534, 1, 2, 3, 4])]));
    Arc::new(world)
}

/// Key and actions of the megaflow that `frame` makes, ids of recirculation left out.
fn dump(set_name: &str, frame: &[u8]) -> String {
    let upcalls = Upcalls::new(world(set_name));
    let packet = Packet::from_slice(frame);
    let (flow, _) = extract_flow(frame, &PktMetadata::new(1));
    let mut r = MissResult::default();
    upcalls.miss(&Miss { packet: &packet, flow: &flow, core: PmdId(0), now_ms: 1 }, &mut r);
    let mut s = String::new();
    format_key(&mut s, &flow, Some(&r.mask), &Style::default());
    s.push_str(" => ");
    format_actions(&mut s, &r.actions, &Style::default());
    s.replace("recirc_id=1,", "recirc_id=N,").replace("recirc(0x1)", "recirc(N)")
}

#[test]
fn dumps_are_equal() {
    let data = include_str!("data/dumps.txt");
    let (mut n, mut wrong) = (0, Vec::new());
    for line in data.lines() {
        let mut words = line.splitn(3, ' ');
        let (set_name, hex, want) = (words.next(), words.next(), words.next());
        let (Some(set_name), Some(hex), Some(want)) = (set_name, hex, want) else {
            panic!("bad line: {line}")
        };
        let frame: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
            .collect();
        let got = dump(set_name, &frame);
        n += 1;
        if got != want {
            wrong.push(format!("{set_name} {hex}\n  got  {got}\n  want {want}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {n} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

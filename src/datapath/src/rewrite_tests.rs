//! Rewrites against an oracle: parse, change the key, compare; checksums are recomputed from nothing.

use super::*;
use crate::testpkt::{arp, ip4, ip6, sum};
use flow::extract::{extract_flow, PktMetadata};
use flow::Flow;
use proptest::prelude::*;

fn flow_of(d: &[u8]) -> Flow {
    extract_flow(d, &PktMetadata::new(1).with_vlan_limit(2)).0
}

/// Sum over pseudo header and transport of a frame without tags or options; 0 when it is right.
fn l4_sum(d: &[u8]) -> u16 {
    let etype = be16(d, 12);
    let (proto, addresses, l4) = if etype == 0x0800 {
        let end = 14 + usize::from(be16(d, 16));
        (d[23], &d[26..34], &d[34..end])
    } else {
        (d[20], &d[22..54], &d[54..54 + usize::from(be16(d, 18))])
    };
    let pseudo = [0, proto, 0, 0, (l4.len() >> 8) as u8, l4.len() as u8];
    if proto == 1 {
        return sum(&[l4]);
    }
    sum(&[addresses, &pseudo, l4])
}

fn ip_sum(d: &[u8]) -> u16 {
    sum(&[&d[14..34]])
}

/// Fills in a right transport checksum at `at` of the transport header.
fn finish(mut d: Vec<u8>, l4: usize, at: usize) -> Vec<u8> {
    d[l4 + at..l4 + at + 2].fill(0);
    let c = l4_sum(&d);
    let c = if c == 0 && d[if be16(&d, 12) == 0x0800 { 23 } else { 20 }] == 17 { 0xffff } else { c };
    d[l4 + at..l4 + at + 2].copy_from_slice(&c.to_be_bytes());
    assert_eq!(l4_sum(&d), 0);
    d
}

fn tcp_bytes(pay: &[u8]) -> Vec<u8> {
    let mut t = vec![0x04, 0x00, 0x00, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x12, 0x20, 0, 0, 0, 0, 0];
    t.extend(pay);
    t
}

fn udp_bytes(pay: &[u8]) -> Vec<u8> {
    let mut u = vec![0x04, 0x00, 0x00, 0x35];
    u.extend(((8 + pay.len()) as u16).to_be_bytes());
    u.extend([0, 0]);
    u.extend(pay);
    u
}

fn nd_bytes() -> Vec<u8> {
    let mut n = vec![135, 0, 0, 0, 0, 0, 0, 0];
    n.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    n.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    n.extend([2, 1, 2, 0, 0, 0, 0, 3]);
    n
}

fn frames(i: u32, pay: &[u8]) -> Vec<Vec<u8>> {
    vec![
        finish(ip4(i, 6, &tcp_bytes(pay)), 34, 16),
        finish(ip4(i, 17, &udp_bytes(pay)), 34, 6),
        finish(ip4(i, 1, &[&[8, 0, 0, 0, 1, 2, 3, 4], pay].concat()), 34, 2),
        finish(ip6(i, 6, &tcp_bytes(pay)), 54, 16),
        finish(ip6(i, 17, &udp_bytes(pay)), 54, 6),
        finish(ip6(i, 58, &nd_bytes()), 54, 2),
        finish(ip6(i, 58, &[&[128, 0, 0, 0, 1, 2, 3, 4], pay].concat()), 54, 2),
    ]
}

fn run(frame: &[u8], actions: &[DpAction]) -> Vec<u8> {
    let mut p = Packet::from_slice(frame);
    assert!(apply(&mut p, actions));
    p.data().to_vec()
}

fn mix(old: u32, key: u32, mask: u32) -> u32 {
    old & !mask | key & mask
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ipv4_and_ports(k in any::<[u32; 4]>(), m in any::<[u32; 4]>(), i in 0u32..1000, pay in prop::collection::vec(any::<u8>(), 0..40)) {
        for f in frames(i, &pay).iter().take(3) {
            let key = Ipv4Set { src: (k[0] & m[0]).into(), dst: (k[1] & m[1]).into(), tos: (k[2] & m[2]) as u8, ttl: (k[3] & m[3]) as u8 };
            let mask = Ipv4Set { src: m[0].into(), dst: m[1].into(), tos: m[2] as u8, ttl: m[3] as u8 };
            let ports = |n: u32, s: u32| Be16::new((n >> s) as u16);
            let mut acts = vec![DpAction::Set(SetField::Ipv4 { key, mask })];
            acts.push(DpAction::Set(SetField::Udp { src: ports(k[2] & m[2], 8), dst: ports(k[3] & m[3], 8), src_mask: ports(m[2], 8), dst_mask: ports(m[3], 8) }));
            acts.push(DpAction::Set(SetField::Tcp { src: ports(k[2] & m[2], 8), dst: ports(k[3] & m[3], 8), src_mask: ports(m[2], 8), dst_mask: ports(m[3], 8) }));
            acts.push(DpAction::Set(SetField::Icmp { kind: (k[2] & m[2]) as u8, code: (k[3] & m[3]) as u8, kind_mask: m[2] as u8, code_mask: m[3] as u8 }));
            let got = run(f, &acts);
            prop_assert_eq!((ip_sum(&got), l4_sum(&got)), (0, 0));
            let (a, b) = (flow_of(f), flow_of(&got));
            prop_assert_eq!(b.nw_src.get(), mix(a.nw_src.get(), k[0], m[0]));
            prop_assert_eq!(b.nw_dst.get(), mix(a.nw_dst.get(), k[1], m[1]));
            prop_assert_eq!(u32::from(b.nw_tos), mix(a.nw_tos.into(), k[2], m[2]) & 0xff);
            prop_assert_eq!(u32::from(b.nw_ttl), mix(a.nw_ttl.into(), k[3], m[3]) & 0xff);
            if a.nw_proto != 1 {
                prop_assert_eq!(u32::from(b.tp_src.get()), mix(a.tp_src.get().into(), k[2] >> 8, m[2] >> 8) & 0xffff);
                prop_assert_eq!(u32::from(b.tp_dst.get()), mix(a.tp_dst.get().into(), k[3] >> 8, m[3] >> 8) & 0xffff);
            }
            prop_assert_eq!(&got[38..42].len(), &4);
        }
    }

    #[test]
    fn ipv6_and_nd(k in any::<[[u8; 16]; 3]>(), m in any::<[[u8; 16]; 3]>(), i in 0u32..1000, pay in prop::collection::vec(any::<u8>(), 0..40)) {
        let and = |a: [u8; 16], b: [u8; 16]| -> [u8; 16] { std::array::from_fn(|i| a[i] & b[i]) };
        let six = |a: [u8; 16], at: usize| -> [u8; 6] { std::array::from_fn(|i| a[at + i]) };
        for f in frames(i, &pay).iter().skip(3) {
            let key = Ipv6Set { src: and(k[0], m[0]), dst: and(k[1], m[1]), label: Be32::new(0x12345), tclass: k[2][0] & m[2][0], hlimit: k[2][1] & m[2][1] };
            let mask = Ipv6Set { src: m[0], dst: m[1], label: Be32::new(0xfffff), tclass: m[2][0], hlimit: m[2][1] };
            let nd = NdSet { target: and(k[2], m[2]), sll: six(and(k[0], m[0]), 0), tll: six(and(k[1], m[1]), 0) };
            let nd_mask = NdSet { target: m[2], sll: six(m[0], 0), tll: six(m[1], 0) };
            let got = run(f, &[DpAction::Set(SetField::Ipv6 { key, mask }), DpAction::Set(SetField::Nd { key: nd, mask: nd_mask })]);
            prop_assert_eq!(l4_sum(&got), 0);
            let (a, b) = (flow_of(f), flow_of(&got));
            let blend16 = |o: [u8; 16], k: [u8; 16], m: [u8; 16]| -> [u8; 16] { std::array::from_fn(|i| o[i] & !m[i] | k[i] & m[i]) };
            prop_assert_eq!(b.ipv6_src, blend16(a.ipv6_src, k[0], m[0]));
            prop_assert_eq!(b.ipv6_dst, blend16(a.ipv6_dst, k[1], m[1]));
            prop_assert_eq!(b.ipv6_label.get(), 0x12345);
            prop_assert_eq!(b.nw_tos, a.nw_tos & !m[2][0] | k[2][0] & m[2][0]);
            prop_assert_eq!(b.nw_ttl, a.nw_ttl & !m[2][1] | k[2][1] & m[2][1]);
            if a.tp_src.get() == 135 {
                prop_assert_eq!(b.nd_target, blend16(a.nd_target, k[2], m[2]));
            }
        }
    }

    /// Whatever comes in, nothing is read or written beyond the frame, and pushing then popping gives the frame back.
    #[test]
    fn any_bytes(frame in prop::collection::vec(any::<u8>(), 0..120), kind in 0u16..6, i in 0u32..99) {
        let mut frame = frame;
        if frame.len() > 14 {
            let t = [0x0800u16, 0x86dd, 0x0806, 0x8847, 0x8100, 0x88a8][usize::from(kind)];
            frame[12..14].copy_from_slice(&t.to_be_bytes());
        }
        let all = |v: u32| DpAction::Set(SetField::Ipv4 { key: Ipv4Set { src: v.into(), ..Default::default() }, mask: Ipv4Set { src: Be32::MAX, ..Default::default() } });
        run(&frame, &[
            all(i),
            DpAction::Set(SetField::Ipv6 { key: Ipv6Set::default(), mask: Ipv6Set { dst: [255; 16], ..Default::default() } }),
            DpAction::Set(SetField::Nd { key: NdSet::default(), mask: NdSet { target: [255; 16], sll: [255; 6], tll: [255; 6] } }),
            DpAction::Set(SetField::Arp { key: ArpSet::default(), mask: ArpSet { sip: Be32::MAX, ..Default::default() } }),
            DpAction::Set(SetField::Sctp { src: Be16::new(1), dst: Be16::new(2), src_mask: Be16::MAX, dst_mask: Be16::MAX }),
            DpAction::PopVlan,
            DpAction::PopMpls { ethertype: Be16::new(0x0800) },
        ]);
        if frame.len() >= 14 {
            let vlan = DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1001) };
            prop_assert_eq!(&run(&frame, &[vlan, DpAction::PopVlan]), &frame);
        }
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut f = finish(ip4(1, 17, &udp_bytes(b"abcd")), 34, 6);
    f[40..42].fill(0);
    let key = Ipv4Set { src: Be32::new(9), ..Default::default() };
    let mask = Ipv4Set { src: Be32::MAX, ..Default::default() };
    let got = run(&f, &[DpAction::Set(SetField::Ipv4 { key, mask })]);
    assert_eq!(&got[40..42], &[0, 0]);
    assert_eq!(ip_sum(&got), 0);
}

#[test]
fn later_fragments_have_no_transport_header() {
    let mut f = finish(ip4(1, 17, &udp_bytes(b"abcd")), 34, 6);
    f[20..22].copy_from_slice(&[0, 5]);
    f[24..26].fill(0);
    let c = ip_sum(&f);
    f[24..26].copy_from_slice(&c.to_be_bytes());
    let key = Ipv4Set { src: Be32::new(9), ..Default::default() };
    let mask = Ipv4Set { src: Be32::MAX, ..Default::default() };
    let udp =
        SetField::Udp { src: Be16::new(1), dst: Be16::new(2), src_mask: Be16::MAX, dst_mask: Be16::MAX };
    let got = run(&f, &[DpAction::Set(SetField::Ipv4 { key, mask }), DpAction::Set(udp)]);
    assert_eq!(got[34..], f[34..]);
    assert_eq!(ip_sum(&got), 0);
}

#[test]
fn sctp_checksum_follows() {
    let mut s = vec![0, 1, 0, 2, 9, 9, 9, 9, 0, 0, 0, 0, 1, 2, 3, 4];
    let c = crc32c_sctp(&s[..8], &s[12..]);
    s[8..12].copy_from_slice(&c.to_le_bytes());
    let set =
        SetField::Sctp { src: Be16::new(77), dst: Be16::new(88), src_mask: Be16::MAX, dst_mask: Be16::MAX };
    let got = run(&ip4(1, 132, &s), &[DpAction::Set(set)]);
    let l4 = &got[34..];
    assert_eq!(&l4[..4], &[0, 77, 0, 88]);
    assert_eq!(crc32c_sctp(&l4[..8], &l4[12..]).to_le_bytes(), l4[8..12]);
}

#[test]
fn tags_and_labels() {
    let f = finish(ip4(1, 17, &udp_bytes(b"abcd")), 34, 6);
    let vlan = |vid: u16| DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1000 | vid) };
    let tagged = run(&f, &[vlan(5), vlan(6)]);
    assert_eq!(&tagged[12..20], &[0x81, 0, 0, 6, 0x81, 0, 0, 5]);
    assert_eq!(run(&tagged, &[DpAction::PopVlan, DpAction::PopVlan, DpAction::PopVlan]), f);
    let push = DpAction::PushMpls { ethertype: Be16::new(0x8847), lse: Be32::new(0x0001_0140) };
    let labelled = run(&tagged, &[push]);
    assert_eq!(&labelled[12..26], &[0x81, 0, 0, 6, 0x81, 0, 0, 5, 0x88, 0x47, 0, 1, 1, 0x40]);
    let set = DpAction::Set(SetField::Mpls { lse: Be32::new(0x3f), mask: Be32::new(0xff) });
    assert_eq!(run(&labelled, &[set])[25], 0x3f);
    assert_eq!(run(&labelled, &[DpAction::PopMpls { ethertype: Be16::new(0x0800) }]), tagged);
    // A rewrite behind new tags finds the headers where they are now.
    let ttl = SetField::Ipv4 {
        key: Ipv4Set { ttl: 9, ..Default::default() },
        mask: Ipv4Set { ttl: 255, ..Default::default() },
    };
    let got = run(&f, &[vlan(5), DpAction::Set(ttl)]);
    assert_eq!(got[26], 9);
    assert_eq!(sum(&[&got[18..38]]), 0);
}

#[test]
fn arp_and_ethernet() {
    let key = ArpSet { sip: Be32::new(1), tip: Be32::new(2), op: Be16::new(2), sha: [7; 6], tha: [8; 6] };
    let all = ArpSet { sip: Be32::MAX, tip: Be32::MAX, op: Be16::MAX, sha: [255; 6], tha: [255; 6] };
    let eth = SetField::Eth {
        src: [1; 6],
        dst: [4, 0, 0, 0, 0, 0],
        src_mask: [255; 6],
        dst_mask: [4, 0, 0, 0, 0, 0],
    };
    let got = run(&arp(5), &[DpAction::Set(SetField::Arp { key, mask: all }), DpAction::Set(eth)]);
    let f = flow_of(&got);
    assert_eq!((f.nw_src.get(), f.nw_dst.get(), f.nw_proto), (1, 2, 2));
    assert_eq!((f.arp_sha, f.arp_tha, f.dl_src), ([7; 6], [8; 6], [1; 6]));
    assert_eq!(f.dl_dst, [6, 0, 0, 0, 0, 2]);
}

//! Keys and actions read back as they were written; what Open vSwitch 3.1.0 says about keys people write.

use super::*;
use crate::extract::{extract_flow, PktMetadata};
use crate::key::Flow;
use crate::odp::{format_actions, format_key, Style};
use packet::build::{Builder as Frame, Ip4, Ip6};
use proptest::prelude::*;

fn read(text: &str) -> Result<ParsedKey, KeyError> {
    let ports = |n: &str| (n == "p1").then_some(DpPort(1));
    parse_key(text, &KeyOptions { ports: &ports, ..KeyOptions::default() })
}

fn exact(text: &str) -> Result<Flow, String> {
    let options = KeyOptions { masks: false, vlan_limit: 1, ..KeyOptions::default() };
    parse_key(text, &options).map(|k| k.flow).map_err(|e| e.to_string())
}

fn text(flow: &Flow, mask: &Mask, verbose: bool) -> String {
    let mut s = String::new();
    format_key(&mut s, flow, Some(mask), &Style { verbose, names: None });
    s
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let l4 = prop_oneof![Just(1u8), Just(6), Just(17), Just(132), Just(47)];
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u8>(), any::<u8>(), 0usize..3, l4, any::<[u16; 3]>());
    let v4 = v4.prop_map(|(src, dst, tos, ttl, frag, l4, n)| {
        let ip = Ip4 { tos, ttl, frag: [0, 0x2000, 8][frag], ..Ip4::new(src, dst) };
        layer4(Frame::eth([1; 6], [2; 6]).ipv4(ip), l4, n)
    });
    let l4 = prop_oneof![Just(6u8), Just(17), Just(132), Just(58), Just(135), Just(89)];
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u8>(), 0u32..1 << 20, l4, any::<[u16; 3]>());
    let v6 = v6.prop_map(|(src, dst, tclass, label, l4, n)| {
        let ip = Ip6 { tclass, label, ..Ip6::new(src, dst) };
        let b = Frame::eth([3; 6], [4; 6]).vlan(0x8100, n[0] & 0xefff).ipv6(ip);
        match l4 {
            135 => b.nd(135, dst, [5; 6], [0; 6]).finish(),
            l4 => layer4(b, l4, n),
        }
    });
    let arp = (any::<u8>(), any::<[u8; 4]>()).prop_map(|(op, ip)| {
        Frame::eth([0xff; 6], [9; 6]).arp(op.into(), [9; 6], ip, [0; 6], [1, 2, 3, 4]).finish()
    });
    let mpls = proptest::collection::vec(any::<u32>(), 1..4).prop_map(|l| {
        l.iter().fold(Frame::eth([1; 6], [2; 6]), |b, l| b.mpls(*l)).payload(&[0; 30]).finish()
    });
    let other = (0x600u16..).prop_map(|t| Frame::eth([1; 6], [2; 6]).ethertype(t).payload(&[0; 9]).finish());
    let llc = Just(Frame::eth([1; 6], [2; 6]).ethertype(5).payload(&[0x42, 0x42, 3, 0, 0]).finish());
    prop_oneof![4 => v4, 4 => v6, 1 => arp, 1 => mpls, 1 => other, 1 => llc]
}

fn layer4(b: Frame, l4: u8, n: [u16; 3]) -> Vec<u8> {
    match l4 {
        1 => b.icmp(n[0] as u8, n[1] as u8),
        6 => b.tcp(n[0], n[1], n[2] & 0xfff),
        17 => b.udp(n[0], n[1]),
        132 => b.sctp(n[0], n[1]),
        58 => b.icmpv6(n[0] as u8, n[1] as u8),
        p => b.proto(p),
    }
    .finish()
}

/// A mask as translation makes them: what is always there, and some bits of the rest.
fn mask_of(flow: &Flow, noise: &[u8]) -> Mask {
    let mut m = Flow { recirc_id: u32::MAX, in_port: u32::MAX, ..Flow::default() };
    m.packet_type = Be32::MAX;
    m.dl_type = Be16::MAX;
    let pick = |i: usize| noise[i % noise.len()];
    let f = |i: usize| if pick(i) & 1 == 0 { 0 } else { pick(i) };
    m.dl_src = [f(0); 6];
    m.dl_dst = [f(1); 6];
    match flow.dl_type.get() {
        0x0800 | 0x86dd => {
            m.nw_frag = 3;
            (m.nw_tos, m.nw_ttl) = (f(2), f(3));
            m.nw_proto = if f(4) == 0 { 0 } else { 0xff };
            if flow.dl_type.get() == 0x0800 {
                m.nw_src = Be32::new(u32::from_be_bytes([f(5), f(6), f(7), f(8)]));
                m.nw_dst = Be32::new(u32::from_be_bytes([f(9); 4]));
            } else {
                (m.ipv6_src, m.ipv6_dst) = ([f(5); 16], [f(6); 16]);
                m.ipv6_label = Be32::new(u32::from(f(7)) << 4);
            }
            m.tp_src = Be16::new(u16::from(f(10)));
            if flow.nw_proto == 6 {
                m.tcp_flags = Be16::new(u16::from(f(11)));
            }
        }
        0x0806 => {
            (m.nw_src, m.arp_sha) = (Be32::new(u32::from(f(2)) << 24), [f(3); 6]);
            m.nw_proto = if f(4) == 0 { 0 } else { 0xff };
        }
        0x8847 => m.mpls[0] = Be32::new(u32::from_be_bytes([f(2), f(3), f(4), f(5)])),
        _ => {}
    }
    // Ports count only together with the protocol.
    if !m.tp_src.is_zero() || !m.tcp_flags.is_zero() {
        m.nw_proto = 0xff;
    }
    for (v, f) in m.vlans.iter_mut().zip(&flow.vlans) {
        if f.tci.get() & VLAN_CFI != 0 {
            (v.tpid, v.tci) = (Be16::MAX, Be16::new(VLAN_CFI | u16::from(pick(12)) << 4));
        }
    }
    Mask(m)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Text with all values gives back flow and mask; the short text the same text again.
    #[test]
    fn keys_round_trip(frame in frames(), noise in proptest::collection::vec(any::<u8>(), 13), port in 0u32..99) {
        let (flow, _) = extract_flow(&frame, &PktMetadata::new(port).with_vlan_limit(2));
        let mask = mask_of(&flow, &noise);
        let long = text(&flow, &mask, true);
        let key = read(&long).map_err(|e| TestCaseError::fail(format!("{long}: {e}")))?;
        // Flags of which no bit counts have no value in the text.
        let plain = |t: String| t.replace(",tcp_flags(0/0)", "");
        prop_assert_eq!(plain(text(&key.flow, &key.mask, true)), plain(long));
        let short = text(&flow, &mask, false);
        let again = read(&short).map_err(|e| TestCaseError::fail(format!("{short}: {e}")))?;
        prop_assert_eq!(again.mask, key.mask);
        prop_assert_eq!(again.flow.masked(&again.mask), flow.masked(&again.mask), "{}", short);
    }

    /// A key without masks is the packet's flow.
    #[test]
    fn exact_keys_round_trip(frame in frames(), port in 0u32..99) {
        let (flow, _) = extract_flow(&frame, &PktMetadata::new(port).with_vlan_limit(1));
        prop_assume!(flow.dl_type.get() >= 0x600);
        let mut s = String::new();
        let style = Style { verbose: false, names: None };
        format_key(&mut s, &flow, None, &style);
        prop_assert_eq!(exact(&s), Ok(flow), "{}", s);
    }

    /// No text makes the readers panic.
    #[test]
    fn any_text(s in "(eth|encap|mpls|tunnel|ipv6|set|clone|[a-z_0-9=/.:+|-]|\\(|\\)|,){0,40}") {
        let _ = read(&s);
        let _ = parse_actions(&s, &|_| None);
    }
}

#[test]
fn what_people_write() {
    let err = |t: &str| exact(t).unwrap_err();
    assert_eq!(err("in_port(1),foo(1)"), "syntax error at foo(1)");
    assert_eq!(
        err("in_port(1),eth(src=50:54:00:00:00:01/ff:ff:00:00:00:00),eth_type(0x1234)"),
        "syntax error at eth(src=50:54:00:00:00:01/ff:ff:00:00:00:00),eth_type(0x1234)"
    );
    assert_eq!(err("eth_type( 0x1234 )"), "syntax error at eth_type( 0x1234 )");
    assert_eq!(err("in_port(p1),eth()"), "syntax error at in_port(p1),eth()");
    assert_eq!(err("ipv6(label=0x123456)"), "syntax error at ipv6(label=0x123456)");
    assert_eq!(
        err("eth(),eth_type(0x05ff)"),
        "invalid Ethertype 1535 in flow key; the flow key in error is: eth(),eth_type(0x05ff)"
    );
    assert!(err("eth(),eth()").starts_with("duplicate eth attribute in flow key; the flow key in error is: "));
    assert!(err("eth(),eth_type(0x0806),arp(op=258)").starts_with("unsupported ARP opcode 258 in flow key; "));
    let cfi = err("eth(),eth_type(0x8100),vlan(vid=5,pcp=1,cfi=0),encap(eth_type(0x0800))");
    assert!(cfi.starts_with("OVS_KEY_ATTR_VLAN 0x2005 is nonzero but CFI bit is not set; "), "{cfi}");
    let f = exact("in_port(0x1)eth(src=FF:ff:00:00:00:1,)eth_type(0x1234)").unwrap();
    assert_eq!((f.in_port, f.dl_src, f.dl_type.get()), (1, [0xff, 0xff, 0, 0, 0, 1], 0x1234));
    assert_eq!(read("in_port(p1),eth()").unwrap().flow.in_port, 1);
    assert_eq!(exact("eth()").unwrap().in_port, DpPort::NONE.0);
    assert_eq!(exact("in_port(1),eth()").unwrap().dl_type.get(), 0x05ff);
    assert_eq!(exact("in_port(1),eth_type(0x0800)").unwrap().packet_type.get(), 0x1_0800);
    let f = exact("eth(),eth_type(0x0800),ipv4(proto=300),udp(src=8)").unwrap();
    assert_eq!((f.nw_proto, f.tp_src.get()), (44, 0));
    let f = exact("eth(),eth_type(0x0800),ipv4(proto=6),tcp(dst=65537),tcp_flags(+syn-ack)").unwrap();
    assert_eq!((f.tp_dst.get(), f.tcp_flags.get()), (1, 2));
    let f = exact("eth(),eth_type(0x8100),vlan(vid=5)").unwrap();
    assert_eq!((f.vlans[0].tci.get(), f.dl_type.get()), (0x1005, 0));
    let two =
        "eth(),eth_type(0x88a8),vlan(vid=5),encap(eth_type(0x8100),vlan(vid=6),encap(eth_type(0x1234)))";
    assert_eq!(exact(two).unwrap().dl_type.get(), 0x8100);
    assert_eq!(read(two).unwrap().flow.vlans[1].tci.get(), 0x1006);
    let f = exact("ct_state(0x21),ct_tuple4(src=1.1.1.1,proto=6,tp_src=1),eth(),eth_type(0x0800),ipv4()")
        .unwrap();
    assert_eq!((f.ct_state, f.ct_nw_src.get(), f.ct_nw_proto, f.ct_tp_src.get()), (0x21, 0x0101_0101, 6, 1));
    let f = exact(
        "tunnel(tun_id=0x7,src=1.2.3.4,dst=2.3.4.5,ttl=64,vxlan(gbp(id=5,flags=8)),flags(df|key)),eth()",
    );
    let f = f.unwrap();
    assert_eq!((f.tun_id.get(), f.tun_flags, f.tun_ttl, f.tun_gbp_id.get()), (7, 10, 64, 5));
    assert_eq!(
        exact("eth(),eth_type(0x8847),mpls(label=100,tc=3)").unwrap().mpls[0].get(),
        100 << 12 | 3 << 9
    );
    assert_eq!(read("eth(),eth_type(0x0800)").unwrap().fit, Fit::TooLittle);
    assert_eq!(read("eth(),eth_type(0x0800),ipv4(),tcp()").unwrap().fit, Fit::TooMuch);
    let (u, rest) = split_ufid("ufid:6c3f8e30-5ff4-44fb-9e8d-57b6e303f7b1, in_port(1)");
    assert_eq!((u.map(|u| u.0 >> 112), rest), (Some(0x6c3f), "in_port(1)"));
    let deep = "encap(".repeat(100_000);
    assert!(exact(&deep).is_err());
}

#[test]
fn actions_round_trip() {
    let names = |n: &str| (n == "p7").then_some(DpPort(7));
    for t in [
        "drop",
        "1,2,clone(3,set(eth(src=00:11:22:33:44:55))),4",
        "set(eth(src=00:11:22:33:44:55,dst=66:77:88:99:aa:bb/ff:ff:ff:00:00:00)),1",
        "set(ipv4(src=1.2.3.4/255.255.0.0,tos=0x28/0xfc,ttl=63))",
        "set(ipv6(src=fe80::1,label=0x5/0xff,tclass=0x4/0xfc,hlimit=3))",
        "set(tcp(src=1,dst=2)),set(udp(src=1/0xff)),set(sctp(dst=2))",
        "set(icmp(type=8)),set(icmpv6(type=135,code=0))",
        "set(arp(sip=1.2.3.4,op=2,sha=00:11:22:33:44:55))",
        "set(nd(target=fe80::1,sll=00:11:22:33:44:55))",
        "set(mpls(label=100,tc=3,ttl=64,bos=1))",
        "set(skb_priority(0x5)),set(skb_mark(0x6/0xf))",
        "push_vlan(vid=100,pcp=3),push_vlan(tpid=0x88a8,vid=0,pcp=0,cfi=0),pop_vlan",
        "recirc(0),trunc(5),meter(3)",
        "userspace(pid=0,slow_path(bfd)),userspace(pid=7,slow_path(0))",
        "userspace(pid=0,controller(reason=1,dont_send=1,continuation=0,recirc_id=10,rule_cookie=0x5,\
         controller_id=3,max_len=128))",
    ] {
        let acts = parse_actions(t, &names).unwrap_or_else(|e| panic!("{t}: {e}"));
        let mut s = String::new();
        format_actions(&mut s, &acts, &Style::default());
        assert_eq!(s, t);
    }
    let printed = |t: &str| {
        let mut s = String::new();
        format_actions(&mut s, &parse_actions(t, &names).unwrap(), &Style::default());
        s
    };
    assert_eq!(printed("recirc(31),recirc(-1)"), "recirc(0x1f),recirc(0xffffffff)");
    assert_eq!(printed("userspace(pid=0,slow_path(lacp|stp))"), "userspace(pid=0,slow_path(lacp,stp))");
    assert_eq!((printed("clone()"), printed("4294967297")), ("clone(drop)".into(), "1".into()));
    for bad in
        ["recirc(0x5)", "1,drop", "clone(drop)", " drop", "hash(l4(0))", "push_vlan(pcp=1)", "clone(1x)"]
    {
        let e = parse_actions(bad, &names).unwrap_err();
        assert_eq!(e.reason(), "Invalid argument", "{bad}");
    }
    let reason = |t: &str| parse_actions(t, &names).unwrap_err().reason();
    assert_eq!((reason("1,2x"), reason("pop_vlanx")), ("End of file".into(), "Unknown error -8".into()));
    assert_eq!(parse_actions("p7", &names).unwrap(), [crate::action::DpAction::Output(DpPort(7))]);
    assert_eq!(parse_actions("1,p8", &names).unwrap_err().to_string(), "syntax error at p8");
    assert!(parse_actions(&"clone(".repeat(100_000), &names).is_err());
}

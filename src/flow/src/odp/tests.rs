//! Texts as printed by Open vSwitch 3.1.0's `dpctl/dump-flows`, `dpctl/dump-flows -m` for the same flows.

use super::*;
use crate::action::{ArpSet, DpAction, Ipv4Set, Ipv6Set, NdSet, SetField, UserspaceCookie};
use crate::be::{Be16, Be32};
use crate::extract::{extract_flow, PktMetadata};
use crate::key::{Flow, Mask};
use crate::port::RecircId;
use packet::build::{Builder, Ip4, Ip6};

const A: [u8; 6] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];
const B: [u8; 6] = [0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb];
const F6: [u8; 6] = [0xff; 6];
const META: &str = "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),\
                    recirc_id(0),dp_hash(0/0),in_port(p1),packet_type(ns=0,id=0),";
const ETH: &str = "eth(src=00:11:22:33:44:55/00:00:00:00:00:00,dst=66:77:88:99:aa:bb/00:00:00:00:00:00),";
const SHORT: &str = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),";

fn eth() -> Builder {
    Builder::eth(B, A)
}

fn v4() -> Ip4 {
    Ip4 { tos: 0x28, ..Ip4::new([10, 0, 0, 1], [11, 2, 3, 4]) }
}

fn v6() -> Builder {
    let addr = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    eth().ipv6(Ip6 { tclass: 0x28, label: 0x12345, ..Ip6::new(addr(1), addr(0xff)) })
}

fn fe80() -> [u8; 16] {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
}

/// What every megaflow looks at.
fn base(flow: &Flow) -> Flow {
    let mut m = Flow { recirc_id: u32::MAX, in_port: u32::MAX, packet_type: Be32::MAX, ..Flow::default() };
    m.dl_type = Be16::MAX;
    if matches!(flow.dl_type.get(), 0x0800 | 0x86dd) {
        m.nw_frag = 3;
    }
    m
}

/// The text of the frame's key without and with `-m`.
fn texts(frame: Builder, limit: u8, set: impl Fn(&mut Flow)) -> (String, String) {
    let (flow, _) = extract_flow(&frame.finish(), &PktMetadata::new(1).with_vlan_limit(limit));
    let mut m = base(&flow);
    set(&mut m);
    both(&flow, &m)
}

fn both(flow: &Flow, m: &Flow) -> (String, String) {
    let mask = Mask(*m);
    let (mut short, mut long) = (String::new(), String::new());
    format_key(&mut short, flow, Some(&mask), &Style::default());
    let names = |p: DpPort| Some(format!("p{p}"));
    format_key(&mut long, flow, Some(&mask), &Style { verbose: true, names: Some(&names) });
    (short, long)
}

#[test]
fn tcp_and_udp() {
    let (s, l) = texts(eth().ipv4(v4()).tcp(1000, 80, 0x12), 1, |m| {
        m.nw_src = Be32::new(0xff00_0000);
        (m.nw_proto, m.nw_tos, m.nw_ttl) = (0xff, 0xfc, 0xff);
        (m.tp_src, m.tp_dst, m.tcp_flags) = (Be16::MAX, Be16::MAX, Be16::new(2));
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x0800),ipv4(src=10.0.0.1/255.0.0.0,proto=6,tos=0x28/0xfc,ttl=64,frag=no),\
             tcp(src=1000,dst=80),tcp_flags(+syn)"
        )
    );
    assert_eq!(
        l,
        format!(
            "{META}{ETH}eth_type(0x0800),ipv4(src=10.0.0.1/255.0.0.0,dst=11.2.3.4/0.0.0.0,proto=6,\
             tos=0x28/0xfc,ttl=64,frag=no),tcp(src=1000,dst=80),tcp_flags(+syn)"
        )
    );
    let (s, l) = texts(eth().ipv4(v4()).udp(1000, 53), 1, |m| {
        m.nw_dst = Be32::new(0xff00_0000);
        (m.nw_proto, m.dl_src, m.tp_src) = (0xff, F6, Be16::MAX);
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth(src=00:11:22:33:44:55),eth_type(0x0800),ipv4(dst=11.2.3.4/255.0.0.0,proto=17,frag=no),\
             udp(src=1000)"
        )
    );
    assert_eq!(
        l,
        format!(
            "{META}eth(src=00:11:22:33:44:55,dst=66:77:88:99:aa:bb/00:00:00:00:00:00),eth_type(0x0800),\
             ipv4(src=10.0.0.1/0.0.0.0,dst=11.2.3.4/255.0.0.0,proto=17,tos=0x28/0,ttl=64/0,frag=no),\
             udp(src=1000,dst=53/0)"
        )
    );
    let (s, l) = texts(eth().ipv4(v4()).sctp(1000, 99), 1, |m| {
        (m.nw_proto, m.tp_dst) = (0xff, Be16::new(0xff));
    });
    assert_eq!(s, format!("{SHORT}eth_type(0x0800),ipv4(proto=132,frag=no),sctp(dst=99/0xff)"));
    assert!(l.ends_with("proto=132,tos=0x28/0,ttl=64/0,frag=no),sctp(src=1000/0,dst=99/0xff)"), "{l}");
}

#[test]
fn icmp_and_fragments() {
    let (s, l) = texts(eth().ipv4(v4()).icmp(8, 0), 1, |m| (m.nw_proto, m.tp_src) = (0xff, Be16::MAX));
    assert_eq!(s, format!("{SHORT}eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=8)"));
    assert!(l.ends_with("frag=no),icmp(type=8,code=0/0)"), "{l}");
    let (s, l) = texts(eth().ipv4(Ip4 { frag: 0x2000, ..v4() }).udp(1000, 53), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0x0800),ipv4(frag=first)"));
    assert!(l.ends_with("proto=17/0,tos=0x28/0,ttl=64/0,frag=first),udp(src=1000/0,dst=53/0)"), "{l}");
    let (s, l) = texts(eth().ipv4(Ip4 { frag: 0x10, ..v4() }).udp(1000, 53), 1, |m| m.nw_proto = 0xff);
    assert_eq!(s, format!("{SHORT}eth_type(0x0800),ipv4(proto=17,frag=later)"));
    assert!(l.ends_with("proto=17,tos=0x28/0,ttl=64/0,frag=later)"), "{l}");
}

#[test]
fn vlans() {
    let tagged = || eth().vlan(0x8100, 0x6064).ipv4(v4()).tcp(1000, 80, 0x12);
    let (s, l) = texts(tagged(), 1, |m| {
        m.vlans[0].tci = Be16::new(0x1fff);
        (m.nw_proto, m.tp_dst) = (0xff, Be16::MAX);
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x8100),vlan(vid=100,pcp=3/0x0),encap(eth_type(0x0800),ipv4(proto=6,frag=no),\
             tcp(dst=80))"
        )
    );
    assert_eq!(
        l,
        format!(
            "{META}{ETH}eth_type(0x8100),vlan(vid=100,pcp=3/0x0),encap(eth_type(0x0800),\
             ipv4(src=10.0.0.1/0.0.0.0,dst=11.2.3.4/0.0.0.0,proto=6,tos=0x28/0,ttl=64/0,frag=no),\
             tcp(src=1000/0,dst=80),tcp_flags(0/0))"
        )
    );
    let (s, l) =
        texts(eth().vlan(0x8100, 0).ipv4(v4()).tcp(1, 2, 0), 1, |m| m.vlans[0].tci = Be16::new(0x1fff));
    assert_eq!(s, format!("{SHORT}eth_type(0x8100),vlan(vid=0),encap(eth_type(0x0800),ipv4(frag=no))"));
    assert!(l.contains("vlan(vid=0,pcp=0/0x0),encap("), "{l}");
    let (s, _) = texts(eth().vlan(0x88a8, 0x6064).vlan(0x8100, 200).ethertype(0x800), 1, |m| {
        m.vlans[0].tci = Be16::MAX;
        m.dl_src = F6;
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth(src=00:11:22:33:44:55),eth_type(0x88a8),vlan(vid=100,pcp=3),encap(eth_type(0x8100))"
        )
    );
    let cut = || eth().ethertype(0x88a8).payload(&[0]);
    let (s, l) = texts(cut(), 1, |m| m.vlans[0].tci = Be16::new(0x1fff));
    assert_eq!(s, format!("{SHORT}eth_type(0x88a8),vlan(vid=0,cfi=0),encap()"));
    assert!(l.ends_with("eth_type(0x88a8),vlan(vid=0,pcp=0/0x0,cfi=0),encap()"), "{l}");
    let llc = || eth().vlan(0x8100, 5).ethertype(20).payload(&[0x42, 0x42, 3, 0, 0]);
    let (s, l) = texts(llc(), 1, |m| m.vlans[0].tci = Be16::new(0x1fff));
    assert_eq!(s, format!("{SHORT}eth_type(0x8100),vlan(vid=5),encap()"));
    assert!(l.ends_with("eth_type(0x8100),vlan(vid=5,pcp=0/0x0),encap()"), "{l}");
}

#[test]
fn other_ethertypes() {
    let (s, _) = texts(eth().ethertype(20).payload(&[0x42, 0x42, 3, 0, 0]), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0/0xffff)"));
    let (s, l) = texts(eth().ethertype(0x88cc).payload(&[0; 9]), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0x88cc)"));
    assert_eq!(l, format!("{META}{ETH}eth_type(0x88cc)"));
}

#[test]
fn arp() {
    let frame = || eth().arp(1, A, [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]);
    let (s, _) = texts(frame(), 1, |m| {
        (m.nw_src, m.nw_dst, m.nw_proto) = (Be32::MAX, Be32::new(0xffff_ff00), 0xff);
        (m.arp_sha, m.arp_tha) = (F6, F6);
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2/255.255.255.0,op=1,sha=00:11:22:33:44:55,\
             tha=00:00:00:00:00:00)"
        )
    );
    let (s, l) = texts(frame(), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0x0806)"));
    assert_eq!(
        l,
        format!(
            "{META}{ETH}eth_type(0x0806),arp(sip=10.0.0.1/0.0.0.0,tip=10.0.0.2/0.0.0.0,op=1/0,\
             sha=00:11:22:33:44:55/00:00:00:00:00:00,tha=00:00:00:00:00:00/00:00:00:00:00:00)"
        )
    );
    let (s, _) = texts(eth().ethertype(0x8035).arp(3, A, [0; 4], A, [0; 4]), 1, |m| m.nw_proto = 0xff);
    assert_eq!(s, format!("{SHORT}eth_type(0x8035),arp(op=3)"));
}

#[test]
fn ipv6() {
    let (s, l) = texts(v6().tcp(1000, 80, 0x12), 1, |m| {
        m.ipv6_src[..4].fill(0xff);
        (m.ipv6_label, m.nw_proto, m.tp_dst) = (Be32::new(0xfffff), 0xff, Be16::MAX);
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x86dd),ipv6(src=2001:db8::1/ffff:ffff::,label=0x12345,proto=6,frag=no),tcp(dst=80)"
        )
    );
    assert_eq!(
        l,
        format!(
            "{META}{ETH}eth_type(0x86dd),ipv6(src=2001:db8::1/ffff:ffff::,dst=2001:db8::ff/::,label=0x12345,\
             proto=6,tclass=0x28/0,hlimit=64/0,frag=no),tcp(src=1000/0,dst=80),tcp_flags(0/0)"
        )
    );
    let (s, l) = texts(v6().nd(135, fe80(), A, [0; 6]), 1, |m| {
        (m.nw_proto, m.tp_src, m.tp_dst, m.nd_target, m.arp_sha) =
            (0xff, Be16::MAX, Be16::MAX, [0xff; 16], F6);
    });
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),\
             nd(target=fe80::1,sll=00:11:22:33:44:55)"
        )
    );
    assert!(
        l.ends_with(
            "icmpv6(type=135,code=0),nd(target=fe80::1,sll=00:11:22:33:44:55,\
             tll=00:00:00:00:00:00/00:00:00:00:00:00)"
        ),
        "{l}"
    );
    let (s, l) = texts(v6().nd(135, fe80(), A, [0; 6]), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0x86dd),ipv6(frag=no)"));
    assert!(
        l.ends_with(
            "ipv6(src=2001:db8::1/::,dst=2001:db8::ff/::,label=0x12345/0,proto=58/0,tclass=0x28/0,hlimit=64/0,\
             frag=no),icmpv6(type=135/0,code=0/0),nd(target=fe80::1/::,\
             sll=00:11:22:33:44:55/00:00:00:00:00:00,tll=00:00:00:00:00:00/00:00:00:00:00:00)"
        ),
        "{l}"
    );
    let (s, _) = texts(v6().nd(136, fe80(), [0; 6], A), 1, |m| {
        (m.nw_proto, m.tp_src, m.tp_dst, m.arp_tha) = (0xff, Be16::MAX, Be16::MAX, F6);
        m.nd_target[..8].fill(0xff);
    });
    assert!(s.ends_with("nd(target=fe80::1/ffff:ffff:ffff:ffff::,tll=00:11:22:33:44:55)"), "{s}");
}

#[test]
fn mpls() {
    let one = || eth().mpls(100 << 12 | 3 << 9 | 1 << 8 | 64).payload(&[0; 40]);
    let two = || eth().mpls(100 << 12 | 3 << 9 | 64).mpls(200 << 12 | 1 << 8 | 63).payload(&[0; 40]);
    let (s, _) = texts(one(), 1, |m| m.mpls[0] = Be32::new(0xfffff << 12 | 1 << 8));
    assert_eq!(s, format!("{SHORT}eth_type(0x8847),mpls(label=100/0xfffff,tc=3/0,ttl=64/0x0,bos=1/1)"));
    let (s, _) = texts(two(), 1, |m| m.mpls[0] = Be32::new(0xfffff << 12 | 7 << 9 | 1 << 8));
    assert_eq!(
        s,
        format!(
            "{SHORT}eth_type(0x8847),mpls(label=100/0xfffff,tc=3/7,ttl=64/0x0,bos=0/1,label=200/0x0,tc=0/0,\
             ttl=63/0x0,bos=1/0)"
        )
    );
    let (s, _) = texts(one(), 1, |m| m.mpls[0] = Be32::MAX);
    assert_eq!(s, format!("{SHORT}eth_type(0x8847),mpls(label=100,tc=3,ttl=64,bos=1)"));
    let (s, l) = texts(eth().mpls(100 << 12 | 3 << 9 | 64).mpls(200 << 12 | 63), 1, |_| ());
    assert_eq!(s, format!("{SHORT}eth_type(0x8847)"));
    assert!(
        l.ends_with("mpls(label=100/0x0,tc=3/0,ttl=64/0x0,bos=0/0,label=200/0x0,tc=0/0,ttl=63/0x0,bos=0/0)"),
        "{l}"
    );
}

#[test]
fn marks_connections_and_recirculation() {
    let f = Flow {
        skb_priority: 6,
        pkt_mark: 5,
        recirc_id: 0x12,
        dp_hash: 5,
        in_port: 1,
        dl_type: Be16::new(0x88cc),
        ..Flow::default()
    };
    let mut m = Flow { skb_priority: 0xff, pkt_mark: u32::MAX, dp_hash: 0xf, ..base(&f) };
    m.packet_type = Be32::ZERO;
    assert_eq!(
        both(&f, &m).0,
        "skb_priority(0x6/0xff),skb_mark(0x5),recirc_id(0x12),dp_hash(0x5/0xf),in_port(1),eth_type(0x88cc)"
    );
    let mut f = Flow { ct_state: 0x22, ct_zone: 5, ct_mark: 6, in_port: 1, ..Flow::default() };
    f.dl_type = Be16::new(0x0800);
    f.ct_label[15] = 7;
    let mut m = Flow { ct_state: 0x22, ct_zone: 0xffff, ct_mark: u32::MAX, ct_label: [0xff; 16], ..base(&f) };
    m.packet_type = Be32::ZERO;
    let (s, l) = both(&f, &m);
    assert_eq!(
        s,
        "ct_state(+est+trk),ct_zone(0x5),ct_mark(0x6),ct_label(0x7),recirc_id(0),in_port(1),eth_type(0x0800),\
         ipv4(frag=no)"

    );
    assert!(l.contains("ct_state(0x22/0x22),ct_zone(0x5),ct_mark(0x6),ct_label(0x7),recirc_id(0)"), "{l}");
    m.ct_state = 0xff;
    m.ct_zone = 0xff;
    m.ct_nw_src = Be32::MAX;
    (m.ct_nw_dst, m.ct_nw_proto) = (Be32::new(0xff00_0000), 0xff);
    (m.ct_tp_src, m.ct_tp_dst) = (Be16::MAX, Be16::MAX);
    (f.ct_nw_src, f.ct_nw_dst, f.ct_nw_proto) = (Be32::new(0x0102_0304), Be32::new(0x0202_0202), 6);
    (f.ct_tp_src, f.ct_tp_dst) = (Be16::new(1), Be16::new(2));
    let (s, _) = both(&f, &m);
    assert!(
        s.starts_with(
            "ct_state(-new+est-rel-rpl-inv+trk-snat-dnat),ct_zone(0x5/0xff),ct_mark(0x6),ct_label(0x7),\
             ct_tuple4(src=1.2.3.4,dst=2.2.2.2/255.0.0.0,proto=6,tp_src=1,tp_dst=2),recirc_id(0)"
        ),
        "{s}"
    );
}

#[test]
fn tunnels() {
    let mut f =
        Flow { in_port: 1, dl_type: Be16::new(0x88cc), tun_ttl: 64, tun_flags: 0xa, ..Flow::default() };
    f.tun_id = 7u64.into();
    (f.tun_src, f.tun_dst, f.tun_tos) = (Be32::new(0x0102_0304), Be32::new(0x0203_0405), 4);
    let mut m = base(&f);
    m.words_mut()[..9].fill(u64::MAX);
    m.packet_type = Be32::ZERO;
    let tail = ",recirc_id(0),in_port(1),eth_type(0x88cc)";
    assert_eq!(
        both(&f, &m).0,
        format!("tunnel(tun_id=0x7,src=1.2.3.4,dst=2.3.4.5,tos=0x4,ttl=64,flags(df|key)){tail}")
    );
    m.tun_id = 0xffu64.into();
    (m.tun_src, m.tun_tos, m.tun_ttl, m.tun_flags) = (Be32::new(0xff00_0000), 0, 0, 0xe);
    (f.tun_tos, f.tun_flags) = (0, 0xc);
    let (s, l) = both(&f, &m);
    assert_eq!(
        s,
        format!("tunnel(tun_id=0x7/0xff,src=1.2.3.4/255.0.0.0,dst=2.3.4.5,flags(-df+csum+key)){tail}")
    );
    assert!(
        l.contains("tunnel(tun_id=0x7/0xff,src=1.2.3.4/255.0.0.0,dst=2.3.4.5,ttl=64/0,flags(-df+csum+key))"),
        "{l}"
    );
    f.tun_flags = 0;
    (m.tun_flags, m.tun_ttl, m.tun_src) = (7, 0xff, Be32::MAX);
    assert_eq!(both(&f, &m).0, format!("tunnel(src=1.2.3.4,dst=2.3.4.5,ttl=64,flags(-oam-df-csum)){tail}"));
    let mut six = Flow { tun_flags: 0xc, tun_tos: 4, ..f };
    (six.tun_src, six.tun_dst) = (Be32::ZERO, Be32::ZERO);
    (six.tun_ipv6_src[15], six.tun_ipv6_dst) = (1, fe80());
    (six.tun_tp_src, six.tun_tp_dst) = (Be16::new(5), Be16::new(4789));
    (six.tun_gbp_id, six.tun_gbp_flags) = (Be16::new(5), 8);
    m.words_mut()[..9].fill(u64::MAX);
    assert_eq!(
        both(&six, &m).0,
        format!(
            "tunnel(tun_id=0x7,ipv6_src=::1,ipv6_dst=fe80::1,tos=0x4,ttl=64,tp_src=5,tp_dst=4789,\
             vxlan(gbp(id=5,flags=0x8)),flags(csum|key)){tail}"
        )
    );
}

#[test]
fn tcp_flag_masks() {
    let text = |flags: u16, mask: u16| {
        texts(eth().ipv4(v4()).tcp(1, 2, flags), 1, |m| (m.nw_proto, m.tcp_flags) = (0xff, Be16::new(mask))).0
    };
    assert!(text(0x12, 0xfff).ends_with(",tcp_flags(syn|ack)"));
    assert!(text(0, 0xfff).ends_with(",tcp_flags(0)"));
    assert!(text(0x112, 0x13f).ends_with(",tcp_flags(-fin+syn-rst-psh+ack-urg+ns)"));
}

fn acts(a: &[DpAction]) -> String {
    let mut s = String::new();
    format_actions(&mut s, a, &Style::default());
    s
}

fn set(f: SetField) -> String {
    acts(&[DpAction::Set(f)])
}

#[test]
fn actions() {
    assert_eq!(acts(&[]), "drop");
    assert_eq!(acts(&[DpAction::Output(DpPort(2)), DpAction::Output(DpPort(3))]), "2,3");
    let names = |p: DpPort| (p.0 == 2).then(|| "p2".to_string());
    let mut s = String::new();
    let style = Style { verbose: false, names: Some(&names) };
    let inner = [DpAction::Output(DpPort(2))];
    format_actions(&mut s, &[DpAction::Clone(inner.into()), DpAction::Output(DpPort(77))], &style);
    assert_eq!(s, "clone(p2),77");
    let vlan = |tpid: u16, tci: u16| acts(&[DpAction::PushVlan { tpid: tpid.into(), tci: tci.into() }]);
    assert_eq!(vlan(0x8100, 0x1064), "push_vlan(vid=100,pcp=0)");
    assert_eq!(vlan(0x88a8, 0x7064), "push_vlan(tpid=0x88a8,vid=100,pcp=3)");
    assert_eq!(vlan(0x88a8, 0), "push_vlan(tpid=0x88a8,vid=0,pcp=0,cfi=0)");
    let lse = Be32::new(5 << 12 | 2 << 9 | 1 << 8 | 64);
    assert_eq!(
        acts(&[DpAction::PushMpls { ethertype: Be16::new(0x8847), lse }]),
        "push_mpls(label=5,tc=2,ttl=64,bos=1,eth_type=0x8847)"
    );
    assert_eq!(
        acts(&[DpAction::PopMpls { ethertype: Be16::new(0x800) }, DpAction::Recirc(RecircId(31))]),
        "pop_mpls(eth_type=0x800),recirc(0x1f)"
    );
    assert_eq!(
        acts(&[
            DpAction::PopVlan,
            DpAction::Hash { alg: 0, basis: 0 },
            DpAction::Trunc { max_len: 100 },
            DpAction::Meter(3)
        ]),
        "pop_vlan,hash(l4(0)),trunc(100),meter(3)"
    );
}

#[test]
fn userspace_actions() {
    let slow = |reason| acts(&[DpAction::Userspace { pid: 0, cookie: UserspaceCookie::SlowPath { reason } }]);
    assert_eq!(slow(SLOW_ACTION), "userspace(pid=0,slow_path(action))");
    assert_eq!(
        slow(SLOW_LACP | SLOW_BFD | SLOW_STP | SLOW_MATCH),
        "userspace(pid=0,slow_path(bfd,lacp,stp,match))"
    );
    assert_eq!(slow(0), "userspace(pid=0,slow_path(0))");
    let cookie = UserspaceCookie::Controller {
        reason: 1,
        dont_send: true,
        continuation: false,
        recirc_id: RecircId(10),
        rule_cookie: 5,
        controller_id: 3,
        max_len: 128,
        frozen: 0,
    };
    assert_eq!(
        acts(&[DpAction::Userspace { pid: 0, cookie }]),
        "userspace(pid=0,controller(reason=1,dont_send=1,continuation=0,recirc_id=10,rule_cookie=0x5,\
         controller_id=3,max_len=128))"
    );
}

#[test]
fn set_actions() {
    let none = [0; 6];
    let eth = |src_mask, dst_mask| set(SetField::Eth { src: A, dst: B, src_mask, dst_mask });
    assert_eq!(eth(F6, none), "set(eth(src=00:11:22:33:44:55))");
    assert_eq!(eth(F6, F6), "set(eth(src=00:11:22:33:44:55,dst=66:77:88:99:aa:bb))");
    assert_eq!(eth(none, [0xff, 0xff, 0xff, 0, 0, 0]), "set(eth(dst=66:77:88:99:aa:bb/ff:ff:ff:00:00:00))");
    let key = Ipv4Set { src: Be32::new(0x0102_0304), dst: Be32::new(0x0405_0607), tos: 0x28, ttl: 63 };
    let full = Ipv4Set { src: Be32::MAX, dst: Be32::MAX, tos: 0xff, ttl: 0xff };
    assert_eq!(set(SetField::Ipv4 { key, mask: full }), "set(ipv4(src=1.2.3.4,dst=4.5.6.7,tos=0x28,ttl=63))");
    let mask = Ipv4Set { src: Be32::new(0xffff_0000), tos: 0xfc, ..Ipv4Set::default() };
    assert_eq!(set(SetField::Ipv4 { key, mask }), "set(ipv4(src=1.2.3.4/255.255.0.0,tos=0x28/0xfc))");
    let mask = Ipv4Set { tos: 3, ..Ipv4Set::default() };
    assert_eq!(set(SetField::Ipv4 { key: Ipv4Set::default(), mask }), "set(ipv4(tos=0/0x3))");
    let key = Ipv6Set { src: fe80(), label: Be32::new(5), tclass: 4, hlimit: 3, ..Ipv6Set::default() };
    let mask = Ipv6Set { src: [0xff; 16], label: Be32::new(0xff), tclass: 0xfc, hlimit: 0xff, dst: [0; 16] };
    assert_eq!(
        set(SetField::Ipv6 { key, mask }),
        "set(ipv6(src=fe80::1,label=0x5/0xff,tclass=0x4/0xfc,hlimit=3))"
    );
    let (src, dst, zero) = (Be16::new(1), Be16::new(2), Be16::ZERO);
    assert_eq!(
        set(SetField::Tcp { src, dst, src_mask: Be16::MAX, dst_mask: Be16::MAX }),
        "set(tcp(src=1,dst=2))"
    );
    assert_eq!(
        set(SetField::Udp { src, dst, src_mask: Be16::new(0xff), dst_mask: zero }),
        "set(udp(src=1/0xff))"
    );
    assert_eq!(set(SetField::Sctp { src, dst, src_mask: zero, dst_mask: Be16::MAX }), "set(sctp(dst=2))");
    assert_eq!(set(SetField::Icmp { kind: 8, code: 0, kind_mask: 255, code_mask: 0 }), "set(icmp(type=8))");
    assert_eq!(
        set(SetField::Icmp6 { kind: 135, code: 0, kind_mask: 255, code_mask: 255 }),
        "set(icmpv6(type=135,code=0))"
    );
    let key = ArpSet { sip: Be32::new(0x0102_0304), op: Be16::new(2), sha: A, ..ArpSet::default() };
    let mask = ArpSet { sip: Be32::MAX, op: Be16::MAX, sha: F6, ..ArpSet::default() };
    assert_eq!(set(SetField::Arp { key, mask }), "set(arp(sip=1.2.3.4,op=2,sha=00:11:22:33:44:55))");
    let (key, mask) =
        (NdSet { target: fe80(), sll: A, tll: B }, NdSet { target: [0xff; 16], sll: F6, tll: F6 });
    assert_eq!(
        set(SetField::Nd { key, mask }),
        "set(nd(target=fe80::1,sll=00:11:22:33:44:55,tll=66:77:88:99:aa:bb))"
    );
    let lse = Be32::new(100 << 12 | 3 << 9 | 1 << 8 | 64);
    assert_eq!(set(SetField::Mpls { lse, mask: Be32::MAX }), "set(mpls(label=100,tc=3,ttl=64,bos=1))");
    let mask = Be32::new(0xfffff << 12 | 0xff);
    assert_eq!(
        set(SetField::Mpls { lse: Be32::new(100 << 12 | 1 << 8 | 64), mask }),
        "set(mpls(label=100/0xfffff,tc=0/0,ttl=64/0xff,bos=1/0))"
    );
    assert_eq!(set(SetField::SkbPriority { value: 5, mask: u32::MAX }), "set(skb_priority(0x5))");
    assert_eq!(set(SetField::SkbMark { value: 6, mask: 0xf }), "set(skb_mark(0x6/0xf))");
}

#[test]
fn statistics_and_names() {
    assert_eq!(FlowStats::default().to_string(), "packets:0, bytes:0, used:never");
    let s = FlowStats { packets: 3, bytes: 162, used_ms_ago: Some(7), tcp_flags: 0x13 };
    assert_eq!(s.to_string(), "packets:3, bytes:162, used:0.007s, flags:SF.");
    let all = FlowStats { tcp_flags: 0xfff, used_ms_ago: Some(61_011), ..s };
    assert_eq!(all.to_string(), "packets:3, bytes:162, used:61.011s, flags:SFPRU.ECN[200][400][800]");
    assert_eq!(FlowStats { tcp_flags: 2, ..s }.to_string(), "packets:3, bytes:162, used:0.007s, flags:S");
    let text = "ufid:6c3f8e30-5ff4-44fb-9e8d-57b6e303f7b1";
    assert_eq!(Ufid::parse(text).unwrap().to_string(), text);
    assert_eq!(Ufid::parse("6c3f8e30-5ff4-44fb-9e8d-57b6e303f7b"), None);
    assert_eq!(Ufid::parse("6c3f8e30-5ff4-44fb-9e8d-57b6e303f7b1-"), None);
}

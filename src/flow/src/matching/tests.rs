//! Texts as printed by Open vSwitch 3.1.0's `bridge/dump-flows`, `ofproto/trace` and `ovs-ofctl parse-pcap`.

use super::Match;
use crate::extract::{extract_flow, PktMetadata};
use crate::field::Field;
use crate::key::Flow;
use crate::port::OfPort;
use packet::build::{Builder, Ip4, Ip6};

fn parse(text: &str) -> Match {
    Match::parse(text, &|_| None).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn flow(text: &str) -> Result<Flow, String> {
    Flow::parse(text, &|n| (n == "p1").then_some(OfPort(1))).map_err(|e| e.to_string())
}

#[test]
fn mistakes_in_flows_as_named_by_the_original() {
    for (text, error) in [
        ("in_port=1,tcp,udp", "Ethernet type set multiple times"),
        ("tp_dst=80", "prerequisites not met for setting tp_dst"),
        ("ip,nw_dst=1.2.3", "bad value for nw_dst (1.2.3: invalid IP address)"),
        ("reg0=5/0xff", "bad value for reg0 (5/0xff: wildcards not allowed here)"),
        ("reg0=xyz", "bad value for reg0 (xyz: bad syntax for reg0 value)"),
        ("in_port=1,in_port=2", "field in_port set multiple times"),
        ("dl_vlan=5/7", "bad value for dl_vlan (5/7: invalid mask for field dl_vlan)"),
        ("tcp,tcp_flags=+syn", "bad value for tcp_flags (+syn: wildcards not allowed here)"),
        ("foo=1", "unknown field foo"),
    ] {
        assert_eq!(flow(text).map(|_| ()), Err(error.to_string()), "{text}");
    }
    assert_eq!(
        flow("in_port=p1,ip,nw_dst=300.1.1.1").map(|f| (f.in_port, f.nw_dst.get())),
        Ok((1, 0x2c01_0101))
    );
    assert_eq!(flow("dl_vlan=0xffff").map(|f| f.vlans[0].tci.get()), Ok(0));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn matches_read_as_written(
        regs in proptest::collection::vec((0u8..16, proptest::num::u32::ANY, proptest::num::u32::ANY), 0..4),
        ip in proptest::option::of((proptest::num::u32::ANY, proptest::num::u32::ANY)),
        port in proptest::option::of((proptest::num::u16::ANY, proptest::num::u16::ANY)),
        metadata in proptest::option::of((proptest::num::u64::ANY, proptest::num::u64::ANY)),
        mac in proptest::option::of((0u64..1 << 48, 0u64..1 << 48)),
    ) {
        let mut m = Match::any();
        m.set(Field::EthType, 0x800);
        m.set(Field::IpProto, 6);
        for (i, v, mask) in regs {
            m.set_masked(Field::Reg(i), (v & mask).into(), mask.into());
        }
        let parts = [
            ip.map(|(v, mask)| (Field::Ipv4Src, u128::from(v), u128::from(mask))),
            port.map(|(v, mask)| (Field::TcpDst, v.into(), mask.into())),
            metadata.map(|(v, mask)| (Field::Metadata, v.into(), mask.into())),
            mac.map(|(v, mask)| (Field::EthDst, v.into(), mask.into())),
        ];
        for (field, v, mask) in parts.into_iter().flatten() {
            m.set_masked(field, v & mask, mask);
        }
        proptest::prop_assert_eq!(parse(&m.format(None)), m);
    }

    #[test]
    fn nothing_read_panics(text in "[a-z0-9_=:,./()+|x -]{0,60}") {
        let _ = Match::parse(&text, &|_| None);
        let _ = flow(&text);
    }
}

#[test]
fn matches_as_dumped() {
    for text in [
        "",
        "in_port=1",
        "in_port=LOCAL",
        "in_port=ANY",
        "in_port=65280",
        "in_port=0",
        "dl_src=00:11:22:33:44:55",
        "dl_src=01:00:00:00:00:00/01:00:00:00:00:00,dl_dst=66:77:88:99:aa:bb",
        "dl_dst=00:00:00:00:00:00",
        "ip",
        "ip,nw_src=10.0.0.0/8,nw_dst=1.0.3.0/255.0.255.0,nw_tos=40,nw_ecn=1,nw_ttl=3",
        "ip,nw_src=0.0.0.0/8",
        "ip,nw_tos=0",
        "ip,nw_ttl=0",
        "ipv6,ipv6_src=fe80::/10,ipv6_dst=::1",
        "ipv6,ipv6_src=fe80::2/ffff::ff",
        "tcp,tp_src=80,tp_dst=0x50/0xfff0",
        "tcp,tcp_flags=+syn-ack",
        "tcp,nw_frag=first",
        "udp,nw_frag=later",
        "udp,nw_frag=no",
        "udp,nw_frag=yes",
        "udp,nw_frag=not_later",
        "udp,tp_src=5",
        "sctp,tp_dst=4",
        "icmp,icmp_type=8,icmp_code=1",
        "icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=00:11:22:33:44:55",
        "icmp6,icmp_type=136,icmp_code=0,nd_target=fe80::/64,nd_tll=00:00:00:00:00:00/ff:00:00:00:00:00",
        "arp,arp_spa=1.2.3.4,arp_tpa=1.0.0.0/8,arp_op=1,arp_sha=00:11:22:33:44:55,arp_tha=00:00:00:00:00:00",
        "rarp,arp_op=3",
        "ip,nw_proto=50",
        "ip,nw_proto=2",
        "ip,nw_proto=0",
        "ipv6,nw_proto=1",
        "tcp6,tp_dst=53",
        "dl_vlan=5",
        "dl_vlan=5,dl_vlan_pcp=3",
        "dl_vlan_pcp=3",
        "mpls,mpls_label=5,mpls_tc=3,mpls_ttl=64,mpls_bos=1",
        "mplsm",
        "mpls,mpls_bos=0",
        "mpls,mpls_ttl=0",
        "metadata=0x5",
        "metadata=0x10/0xf0",
        "metadata=0",
        "tun_id=0x10/0xf0,tun_src=1.2.3.4,tun_dst=10.0.0.0/8",
        "tun_ipv6_src=fe80::1,tun_ipv6_dst=fe80::/16",
        "tun_flags=+oam",
        "tun_flags=-oam",
        "tun_gbp_id=5,tun_gbp_flags=0x8",
        "tun_gbp_id=0x5/0xf",
        "reg0=0x5,reg1=0x10/0xff,reg15=0xffffffff",
        "pkt_mark=0/0xf,ct_mark=0/0xf,ct_label=0/0xf,reg0=0/0xf,tun_id=0/0xf,metadata=0/0xf",
        "ct_state=-new+est+trk",
        "ct_state=+trk,ct_zone=5,ct_mark=0x6,ct_label=0x7",
        "ct_zone=0",
        "ct_state=-inv+trk,ct_nw_src=1.2.3.4,ct_nw_dst=1.0.0.0/8,ct_nw_proto=6,ct_tp_src=1,ct_tp_dst=0x2/0xfe,ip",
        "conj_id=5",
        "actset_output=2",
        "pkt_mark=0x3,conj_id=3,actset_output=3,reg0=0x3",
        "pkt_mark=0x1,conj_id=2,ct_state=+est-inv+trk,ct_zone=3,ct_mark=0x4,ct_label=0x5,ct_nw_src=1.1.1.1,\
         ct_nw_proto=6,tcp,reg0=0x1,reg3=0x2,tun_id=0x5,tun_src=1.1.1.1,tun_ipv6_src=::1,tun_gbp_id=3,\
         tun_flags=+oam,metadata=0x5,in_port=2,dl_vlan=4,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:03,\
         nw_src=1.1.1.1,nw_dst=2.2.2.2,nw_tos=4,nw_ecn=1,nw_ttl=4,nw_frag=no,tp_src=4,tp_dst=6,tcp_flags=+syn",
    ] {
        assert_eq!(parse(text).format(None), text);
    }
}

#[test]
fn matches_that_are_dumped_otherwise() {
    for (text, dump) in [
        ("ipv6,ipv6_label=0x123", "ipv6,ipv6_label=0x00123"),
        ("ipv6,ipv6_label=0x100/0xff00", "ipv6,ipv6_label=0x00100/0x0ff00"),
        ("ipv6,ipv6_src=::1:0", "ipv6,ipv6_src=::0.1.0.0"),
        ("tcp,tcp_flags=0x2", "tcp,tcp_flags=syn"),
        ("tcp,tcp_flags=0", "tcp,tcp_flags=0"),
        ("tcp,tp_src=0/0xf", "tcp,tp_src=0x0/0xf"),
        ("dl_type=0x88cc", "dl_type=0x88cc"),
        ("dl_type=0x5ff", "dl_type=0x05ff"),
        ("dl_type=0x600,dl_vlan=0", "dl_vlan=0,dl_type=0x0600"),
        ("dl_vlan=65535", "vlan_tci=0x0000"),
        ("vlan_tci=0/0x1000", "vlan_tci=0x0000/0x1000"),
        ("vlan_tci=0/0xfff", "vlan_tci=0x0000/0x0fff"),
        ("vlan_tci=0x1000/0x1000", "vlan_tci=0x1000/0x1000"),
        ("vlan_tci=0x1005/0x1fff", "dl_vlan=5"),
        ("vlan_tci=0x1001/0x1001", "vlan_tci=0x1001/0x1001"),
        ("vlan_tci=0x7005", "dl_vlan=5,dl_vlan_pcp=3"),
        ("vlan_tci=0x7005/0xf00f", "vlan_tci=0x7005/0xf00f"),
        ("vlan_tci=0xf000/0xf000", "dl_vlan_pcp=7"),
        ("vlan_vid=0x1005", "dl_vlan=5"),
        ("vlan_vid=0x1005/0x100f", "vlan_tci=0x1005/0x100f"),
        ("vlan_vid=0", "vlan_tci=0x0000/0x1fff"),
        ("vlan_tci=5/0xfff", "vlan_tci=0x0005/0x0fff"),
        ("xreg0=5", "reg0=0,reg1=0x5"),
        ("xxreg0=5", "reg0=0,reg1=0,reg2=0,reg3=0x5"),
        ("xxreg1=0x5/0xff", "reg7=0x5/0xff"),
        ("ip,ip_dscp=10", "ip,nw_tos=40"),
        ("in_port=1,ip", "ip,in_port=1"),
        ("recirc_id=0,eth_type=0x800", "recirc_id=0,ip"),
    ] {
        assert_eq!(parse(text).format(None), dump, "{text}");
    }
}

#[test]
fn packet_types() {
    let mut m = Match::any();
    m.set(Field::PacketType, 0);
    assert_eq!(m.format(None), "");
    m.set(Field::RecircId, 3);
    assert_eq!(m.format(None), "recirc_id=0x3,eth");
    let mut m = Match::any();
    m.set(Field::PacketType, 0x1_0800);
    m.set(Field::IpProto, 6);
    m.set(Field::TcpSrc, 3);
    m.set(Field::Ipv4Src, 0x0101_0101);
    m.set(Field::Reg(1), 1);
    assert_eq!(m.format(None), "packet_type=(1,0x800),reg1=0x1,nw_src=1.1.1.1,nw_proto=6,tp_src=3");
}

#[test]
fn priorities_and_port_names() {
    let m = parse("ip,in_port=1");
    assert_eq!(m.format_with_priority(7, None), "priority=7,ip,in_port=1");
    assert_eq!(m.format_with_priority(32768, None), "ip,in_port=1");
    assert_eq!(Match::any().format_with_priority(0, None), "priority=0");
    let names = |p: OfPort| (p.0 == 1).then(|| "eth0".to_string());
    assert_eq!(m.format(Some(&names)), "ip,in_port=eth0");
}

fn flow_text(b: Builder) -> String {
    let md = PktMetadata::new(1).with_vlan_limit(2);
    extract_flow(&b.finish(), &md).0.format(None)
}

#[test]
fn flows_of_packets() {
    let eth = || Builder::eth([0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb], [0, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let ip = || Ip4 { tos: 40, ..Ip4::new([10, 0, 0, 1], [11, 2, 3, 4]) };
    const MACS: &str = "dl_src=00:11:22:33:44:55,dl_dst=66:77:88:99:aa:bb";
    const NW: &str = "nw_src=10.0.0.1,nw_dst=11.2.3.4,nw_tos=40,nw_ecn=0,nw_ttl=64";
    assert_eq!(
        flow_text(eth().ipv4(ip()).tcp(1000, 80, 0x12)),
        format!(
            "tcp,in_port=1,vlan_tci=0x0000,{MACS},{NW},nw_frag=no,tp_src=1000,tp_dst=80,tcp_flags=syn|ack"
        )
    );
    assert_eq!(
        flow_text(eth().ipv4(Ip4 { frag: 0x10, ..ip() }).udp(1, 2)),
        format!("udp,in_port=1,vlan_tci=0x0000,{MACS},{NW},nw_frag=later")
    );
    assert_eq!(
        flow_text(eth().vlan(0x88a8, 0x6064).vlan(0x8100, 200).ipv4(ip()).udp(1000, 53)),
        format!(
            "udp,in_port=1,dl_vlan=100,dl_vlan_pcp=3,dl_vlan1=200,dl_vlan_pcp1=0,{MACS},{NW},nw_frag=no,\
             tp_src=1000,tp_dst=53"
        )
    );
    assert_eq!(
        flow_text(eth().vlan(0x8100, 5).ethertype(0x88cc)),
        format!("in_port=1,dl_vlan=5,dl_vlan_pcp=0,vlan_tci1=0x0000,{MACS},dl_type=0x88cc")
    );
    assert_eq!(
        flow_text(eth().arp(1, [1; 6], [10, 0, 0, 1], [0; 6], [10, 0, 0, 2])),
        format!(
            "arp,in_port=1,vlan_tci=0x0000,{MACS},arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_op=1,\
             arp_sha=01:01:01:01:01:01,arp_tha=00:00:00:00:00:00"
        )
    );
    assert_eq!(
        flow_text(eth().mpls(100 << 12 | 3 << 9 | 64).mpls(200 << 12 | 1 << 8 | 63)),
        format!(
            "mpls,in_port=1,vlan_tci=0x0000,{MACS},mpls_label=100,mpls_tc=3,mpls_ttl=64,mpls_bos=0,mpls_lse1=819519"
        )
    );
    let mut v6 = Ip6::new([0; 16], [0; 16]);
    v6.src[15] = 1;
    assert_eq!(
        flow_text(eth().ipv6(v6).icmpv6(128, 0)),
        format!(
            "icmp6,in_port=1,vlan_tci=0x0000,{MACS},ipv6_src=::1,ipv6_dst=::,ipv6_label=0x00000,nw_tos=0,\
             nw_ecn=0,nw_ttl=64,nw_frag=no,icmp_type=128,icmp_code=0"
        )
    );
}

#[test]
fn context_of_flows_shows_where_not_zero() {
    let mut f = Flow { in_port: 0xfffe, pkt_mark: 3, ct_state: 0x20, ct_mark: 4, ..Flow::default() };
    (f.regs[0], f.metadata, f.tun_id) = (4, 5u64.into(), 5u64.into());
    assert_eq!(
        f.format(None),
        "pkt_mark=0x3,ct_state=trk,ct_mark=0x4,reg0=0x4,tun_id=0x5,metadata=0x5,in_port=LOCAL,vlan_tci=0x0000,\
         dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,dl_type=0x0000"
    );
}

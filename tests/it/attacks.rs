//! Attacks on megaflows through the whole daemon, and the watch for wrong ones.
//!
//! The replays with the proof that they would notice are tests of `ofproto`; here the same frames arrive at a port.

use crate::harness::{wait_until, Harness, Setup, Which};
use packet::build::{Builder, Ip4, Ip6};
use std::time::Duration;

/// Ports p1 to p3 of a dummy bridge.
fn bridge(rules: &[&str]) -> Harness {
    let h = Setup::new(Which::Ours).args(&["--enable-dummy=override", "--disable-system"]).up();
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "fail-mode=secure", "datapath_type=dummy"]);
    for i in 1..=3 {
        let (p, no) = (format!("p{i}"), format!("ofport_request={i}"));
        h.vsctl(&["add-port", "br0", &p, "--", "set", "interface", &p, "type=dummy", &no]);
    }
    rules.iter().for_each(|r| drop(h.ofctl(&["add-flow", "br0", r])));
    h
}

/// Packets that ports 2 and 3 have sent.
fn sent(h: &Harness) -> [u64; 2] {
    ["2", "3"].map(|p| crate::lab::number_after(&h.ofctl(&["dump-ports", "br0", p]), "tx pkts=", "pkts"))
}

/// Receives frames on p1 in the given order, each of which has to leave through the port that is named.
#[track_caller]
fn replay(h: &Harness, frames: &[(Vec<u8>, Option<u16>)]) {
    for (i, (frame, port)) in frames.iter().enumerate() {
        let before = sent(h);
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        h.appctl(&["netdev-dummy/receive", "p1", &hex]);
        let after = sent(h);
        let out = [2, 3].into_iter().zip(before.iter().zip(&after)).filter(|(_, (b, a))| a > b);
        let out: Vec<u16> = out.map(|(p, _)| p).collect();
        let want: Vec<u16> = port.iter().copied().collect();
        assert_eq!(out, want, "frame {i} {hex}\n{}", h.appctl(&["dpctl/dump-flows"]));
    }
}

/// Once forwards, once backwards, with no megaflow at the start.
#[track_caller]
fn both_ways(h: &Harness, mut frames: Vec<(Vec<u8>, Option<u16>)>) {
    replay(h, &frames);
    h.appctl(&["revalidator/purge"]);
    frames.reverse();
    replay(h, &frames);
}

fn ip(last: u8) -> Builder {
    Builder::eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv4(Ip4::new([10, 0, 0, 1], [10, 0, 0, last]))
}

#[test]
fn padding() {
    let h = bridge(&["priority=9,udp,tp_dst=80,actions=2", "priority=5,ip,nw_dst=10.0.0.2,actions=3"]);
    let mut frames = Vec::new();
    for pad in [300, 0, 256, 1_000] {
        for (last, port, to) in [(2, 80, Some(2)), (2, 81, Some(3)), (9, 81, None)] {
            let mut frame = ip(last).udp(1, port).pad_to(60).finish();
            frame.resize(frame.len() + pad, 0);
            frames.push((frame, to));
        }
    }
    // The IP header tells of more than there is: no address can be trusted.
    let mut long = ip(2).udp(1, 80).pad_to(60).finish();
    long[16..18].copy_from_slice(&[0xff, 0xff]);
    frames.insert(0, (long, None));
    both_ways(&h, frames);
}

#[test]
fn ip_protocol_zero() {
    let h = bridge(&[
        "priority=9,tcp,tp_dst=80,actions=2",
        "priority=8,udp,actions=mod_nw_dst:10.9.9.9,3",
        "priority=7,tcp6,actions=2",
    ]);
    let ip6 = Builder::eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv6(Ip6::new([1; 16], [2; 16]));
    let frames = vec![
        (ip(2).proto(0).payload(&[0; 26]).finish(), None),
        (ip(2).tcp(1, 80, 2).finish(), Some(2)),
        (ip(2).tcp(1, 81, 2).finish(), None),
        (ip(2).udp(1, 80).pad_to(60).finish(), Some(3)),
        (ip6.clone().proto(0).finish(), None),
        (ip6.tcp(1, 80, 2).finish(), Some(2)),
    ];
    both_ways(&h, frames);
    let flows = h.appctl(&["dpctl/dump-flows"]);
    assert!(flows.contains("proto=0"), "the protocol is looked at, also when it is 0:\n{flows}");
    assert!(flows.contains("proto=17") && flows.contains("set(ipv4(dst=10.9.9.9))"), "{flows}");
}

#[test]
fn neighbour_discovery_target() {
    let h = bridge(&[
        "priority=9,icmp6,icmp_type=136,icmp_code=0,nd_target=fe80::1,actions=2",
        "priority=9,icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=02:00:00:00:00:05,actions=2",
        "priority=5,icmp6,icmp_type=135,actions=drop",
        "priority=5,icmp6,icmp_type=136,actions=drop",
        "priority=1,ip6,actions=3",
    ]);
    let address = |last: u8| {
        let mut a = [0; 16];
        (a[0], a[1], a[15]) = (0xfe, 0x80, last);
        a
    };
    let nd = |kind, target, sll| {
        let b = Builder::eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv6(Ip6::new(address(9), address(8)));
        b.nd(kind, address(target), [2, 0, 0, 0, 0, sll], [0; 6]).finish()
    };
    let frames = vec![
        (nd(136, 1, 5), Some(2)),
        (nd(136, 2, 5), None),
        (nd(136, 3, 6), None),
        (nd(135, 1, 5), Some(2)),
        (nd(135, 1, 6), None),
        (nd(135, 2, 5), None),
    ];
    both_ways(&h, frames);
    let flows = h.appctl(&["dpctl/dump-flows"]);
    let advertised = flows.lines().filter(|l| l.contains("type=136")).collect::<Vec<_>>();
    assert!(!advertised.is_empty() && advertised.iter().all(|l| l.contains("nd(target=")), "{flows}");
}

#[test]
fn the_self_check_finds_wrong_megaflows() {
    let h = bridge(&["priority=9,in_port=1,udp,tp_dst=80,actions=2", "priority=1,in_port=1,actions=drop"]);
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-revalidator=50"]);
    let read = |name: &str| h.appctl(&["coverage/read-counter", name]).trim().parse::<u64>().expect("count");
    let flow = |port| {
        format!("in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst={port})")
    };
    let packet = |port: u16| ip(2).udp(1, port).pad_to(60).finish();
    let ip6 =
        Builder::eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv6(Ip6::new([1; 16], [2; 16])).udp(1, 80);
    let ip6 = ip6.finish();
    // Asking for counters over OpenFlow makes a connection, and that a new version, which mends the flows.
    let receive = |frame: &[u8]| {
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        h.appctl(&["netdev-dummy/receive", "p1", &hex]);
    };
    (0..4).for_each(|_| receive(&packet(80)));
    assert_eq!(read("flow_self_check"), 0, "off by default");

    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-self-check=2"]);
    let find = |flow: &str, actions: &str, frame: &[u8]| {
        let failed = read("flow_self_check_failed");
        wait_until("it is found", || {
            h.appctl(&["dpctl/del-flows"]);
            h.appctl(&["dpctl/add-flow", flow, actions]);
            (0..2).for_each(|_| receive(frame));
            crate::harness::wait_at_most(Duration::from_secs(3), || read("flow_self_check_failed") > failed)
        });
    };
    find(&flow(80), "3", &packet(80));
    find("in_port(1),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(frag=no)", "2", &ip6);
    assert!(read("flow_self_check") >= 2);
    wait_until("they are gone", || !h.appctl(&["dpctl/dump-flows"]).contains("actions:"));
    replay(
        &h,
        &[(packet(80), Some(2)), (packet(80), Some(2)), (packet(81), None), (ip6.clone(), None), (ip6, None)],
    );
    let log = h.log();
    let said: Vec<&str> =
        log.lines().filter(|l| l.contains("flow-self-check: a megaflow is wrong")).collect();
    assert_eq!(said.len(), 2, "{log}");
    let hex: String = packet(80).iter().map(|b| format!("{b:02x}")).collect();
    assert!(said[0].contains(&format!("packet {hex} of flow ")), "{}", said[0]);
    assert!(
        said[0].contains("met megaflow ufid:") && said[0].contains("actions:3; translated afresh"),
        "{}",
        said[0]
    );
    assert!(said[0].ends_with("actions:2"), "{}", said[0]);
    assert_eq!(read("flow_self_check_failed"), 2, "the new ones are right");
    // What makes no sense changes nothing.
    h.vsctl(&[
        "set",
        "Open_vSwitch",
        ".",
        "other_config:flow-self-check=often",
        "other_config:pmd-upcall-share=0",
    ]);
    wait_until("the settings are refused", || {
        let log = h.log();
        log.contains(
            "ignoring other_config:flow-self-check=often, which is not a number from 0 to 4294967295",
        ) && log.contains("ignoring other_config:pmd-upcall-share=0, which is not a percentage from 1 to 100")
    });
}

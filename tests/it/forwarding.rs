//! Packets between hosts: NORMAL and explicit rules, VLAN modes, patch ports, and what the windows show of them.

use crate::harness::{wait_until, Setup, Which};
use crate::lab::{ip, ports, start, tagged, udp, Host, Lab};

/// Veth, internal and tap ports, each with a host, on one bridge.
#[test]
fn hosts_ping_each_other() {
    let h = Setup::new(Which::Ours).in_thread().up();
    let (a, b) = (Host::behind_veth(1), Host::behind_veth(2));
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&["add-port", "br0", "p1", "--", "set", "Interface", "p1", "ofport_request=1"]);
    h.vsctl(&["add-port", "br0", "p2", "--", "set", "Interface", "p2", "ofport_request=2"]);
    h.vsctl(&["add-port", "br0", "i3", "--", "set", "Interface", "i3", "type=internal", "ofport_request=3"]);
    h.vsctl(&["add-port", "br0", "t4", "--", "set", "Interface", "t4", "type=tap", "ofport_request=4"]);
    let (c, d) = (Host::around("i3", 3), Host::around("t4", 4));
    ip("address add 10.0.0.5/24 dev br0");
    ip("link set br0 up");

    a.pings(&b);
    b.pings(&c);
    c.pings(&d);
    d.pings(&a);
    a.pings_large(&c);
    crate::harness::run_ok(std::process::Command::new("ping").args(["-c", "1", "-w", "5", "10.0.0.1"]));

    let fdb = h.appctl(&["fdb/show", "br0"]);
    for (port, mac) in [(1, a.mac("q1")), (2, b.mac("q2")), (3, c.mac("i3")), (4, d.mac("t4"))] {
        let learned = |l: &str| l.split_whitespace().next() == Some(&port.to_string()) && l.contains(&mac);
        assert!(fdb.lines().any(learned), "{mac} is not on port {port}:\n{fdb}");
    }
    let flows = h.appctl(&["dpctl/dump-flows", "--names"]);
    let line = format!("in_port(p1),packet_type(ns=0,id=0),eth(src={},dst={})", a.mac("q1"), b.mac("q2"));
    assert!(flows.contains(&line) && flows.contains("actions:p2"), "{line}\n{flows}");
    let rules = h.ofctl(&["dump-flows", "br0"]);
    assert!(rules.contains("actions=NORMAL") && !rules.contains("n_packets=0,"), "{rules}");

    // The same by explicit rules, and nothing else.
    h.ofctl(&["del-flows", "br0"]);
    h.ofctl(&["add-flow", "br0", "in_port=1,arp,actions=2,3"]);
    h.ofctl(&["add-flow", "br0", "in_port=1,ip,nw_dst=10.0.0.2,actions=2"]);
    h.ofctl(&["add-flow", "br0", "in_port=1,ip,nw_dst=10.0.0.3,actions=output:3"]);
    h.ofctl(&["add-flow", "br0", "in_port=2,actions=1"]);
    h.ofctl(&["add-flow", "br0", "table=0,in_port=3,actions=load:1->NXM_NX_REG0[],resubmit(,7)"]);
    h.ofctl(&["add-flow", "br0", "table=7,actions=output:NXM_NX_REG0[]"]);
    h.control("revalidator/wait", &[]).expect("revalidator/wait");
    a.forget();
    a.pings(&b);
    a.pings(&c);
    a.cannot_ping(&d);
    let rules = h.ofctl(&["dump-flows", "br0"]);
    assert!(rules.lines().skip(1).all(|l| !l.contains("n_packets=0,")), "{rules}");
}

/// Access ports, trunks and native VLANs through NORMAL, frame by frame.
#[test]
fn vlan_modes() {
    let mut lab = Lab::new(6);
    let h = &lab.h;
    h.vsctl(&["set", "Port", "p1", "tag=10"]);
    h.vsctl(&["set", "Port", "p2", "tag=10", "vlan_mode=access"]);
    h.vsctl(&["set", "Port", "p3", "tag=20"]);
    h.vsctl(&["set", "Port", "p4", "trunks=10,20"]);
    h.vsctl(&["set", "Port", "p5", "vlan_mode=native-untagged", "tag=10", "trunks=10,20"]);
    h.vsctl(&["set", "Port", "p6", "vlan_mode=native-tagged", "tag=10"]);

    let plain = start(1, 255).ethertype(0x9000).payload(&[7; 46]).finish();
    let t = |vid: u16| tagged(&plain, vid);
    // A frame and its port, the frames that come out and theirs.
    type Case = (usize, Vec<u8>, Vec<(usize, Vec<u8>)>);
    let cases: &[Case] = &[
        // From an access port.
        (1, plain.clone(), vec![(2, plain.clone()), (4, t(10)), (5, plain.clone()), (6, t(10))]),
        (1, t(0), vec![(2, plain.clone()), (4, t(10)), (5, plain.clone()), (6, t(10))]),
        (1, t(10), vec![]),
        (3, plain.clone(), vec![(4, t(20)), (5, t(20)), (6, t(20))]),
        // From a trunk.
        (4, t(10), vec![(1, plain.clone()), (2, plain.clone()), (5, plain.clone()), (6, t(10))]),
        (4, t(20), vec![(3, plain.clone()), (5, t(20)), (6, t(20))]),
        (4, t(30), vec![]),
        (4, plain.clone(), vec![]),
        // The priority stays, where there is a tag.
        (4, t(0x6000 | 20), vec![(3, plain.clone()), (5, t(0x6000 | 20)), (6, t(0x6000 | 20))]),
        // Native VLANs, without and with a tag.
        (5, plain.clone(), vec![(1, plain.clone()), (2, plain.clone()), (4, t(10)), (6, t(10))]),
        (5, t(20), vec![(3, plain.clone()), (4, t(20)), (6, t(20))]),
        (5, t(30), vec![]),
        (6, plain.clone(), vec![(1, plain.clone()), (2, plain.clone()), (4, t(10)), (5, plain.clone())]),
        (6, t(10), vec![(1, plain.clone()), (2, plain.clone()), (4, t(10)), (5, plain.clone())]),
        (6, t(30), vec![]),
    ];
    for (port, frame, expected) in cases {
        assert_eq!(&lab.send(*port, frame), expected, "from port {port}: {frame:x?}");
        // Again, by the megaflow.
        assert_eq!(&lab.send(*port, frame), expected, "again from port {port}: {frame:x?}");
    }

    // What is learned in one VLAN is not known in another.
    let answer = start(2, 1).ethertype(0x9000).payload(&[8; 46]).finish();
    lab.purge();
    lab.h.appctl(&["fdb/flush", "br0"]);
    lab.send(1, &plain);
    assert_eq!(lab.send(2, &answer), [(1, answer.clone())]);
    assert_eq!(ports(&lab.send(3, &answer)), [4, 5, 6]);
    let fdb = lab.h.appctl(&["fdb/show", "br0"]);
    assert!(fdb.lines().any(|l| l.trim().starts_with("1    10  02:00:00:00:00:01")), "{fdb}");
    assert!(fdb.lines().any(|l| l.trim().starts_with("3    20  02:00:00:00:00:02")), "{fdb}");

    // The configuration changes under traffic.
    lab.h.vsctl(&["set", "Port", "p1", "tag=20"]);
    lab.settle();
    assert_eq!(lab.send(1, &plain), [(3, plain.clone()), (4, t(20)), (5, t(20)), (6, t(20))]);
}

/// Two bridges joined by patch ports that carry VLANs.
#[test]
fn patch_ports_between_bridges() {
    let h = Setup::new(Which::Ours).in_thread().up();
    let hosts: Vec<Host> = (1..=4).map(Host::behind_veth).collect();
    for (bridge, near, far) in [("br0", "to1", "to0"), ("br1", "to0", "to1")] {
        h.vsctl(&["add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"]);
        let peer = format!("options:peer={far}");
        h.vsctl(&["add-port", bridge, near, "--", "set", "Interface", near, "type=patch", &peer]);
    }
    for (bridge, port, tag) in
        [("br0", "p1", "10"), ("br0", "p2", "20"), ("br1", "p3", "10"), ("br1", "p4", "20")]
    {
        h.vsctl(&["add-port", bridge, port, &format!("tag={tag}")]);
    }
    for near in ["to0", "to1"] {
        assert_eq!(h.vsctl(&["get", "Interface", near, "error"]).trim(), "[]");
    }
    hosts[0].pings(&hosts[2]);
    hosts[1].pings(&hosts[3]);
    hosts[0].cannot_ping(&hosts[3]);
    let show = h.appctl(&["dpif/show"]);
    assert!(show.contains("/none: (patch: peer=to0)") && show.contains("/none: (patch: peer=to1)"), "{show}");

    // Each side of the pair counts what crossed.
    let counts = |bridge: &str, port: &str| {
        let said = h.ofctl(&["dump-ports", bridge, port]);
        let all = said.split("pkts=").skip(1).map(|t| t.split(',').next().unwrap_or_default().to_string());
        all.collect::<Vec<_>>()
    };
    // The hosts may still say something between the two looks.
    wait_until("both ends agree", || {
        let (near, far) = (counts("br0", "to1"), counts("br1", "to0"));
        near[0] == far[1] && near[1] == far[0] && near[0] != "0"
    });

    // Without its peer a patch port leads nowhere, and says so.
    h.vsctl(&["del-port", "br1", "to0"]);
    hosts[0].cannot_ping(&hosts[2]);
    let error = h.vsctl(&["get", "Interface", "to1", "error"]);
    assert_eq!(error.trim(), "\"No usable peer 'to0' exists in 'netdev' datapath.\"");
}

/// Rules that push, pop and rewrite, frame by frame.
#[test]
fn explicit_rules_rewrite() {
    let mut lab = Lab::new(3);
    lab.h.ofctl(&["del-flows", "br0"]);
    for flow in [
        "table=0,priority=5,udp,tp_dst=1,actions=push_vlan:0x8100,set_field:4101->vlan_vid,output:2",
        "table=0,priority=5,udp,tp_dst=2,actions=dec_ttl,mod_dl_dst:02:00:00:00:00:77,mod_nw_dst:10.0.0.77,output:2,output:3",
        "table=0,priority=5,udp,tp_dst=3,actions=goto_table:3",
        "table=0,priority=5,udp,tp_dst=4,actions=IN_PORT",
        "table=0,priority=5,udp,tp_dst=5,actions=ALL",
        "table=0,priority=5,udp,tp_dst=6,actions=write_actions(output:3),goto_table:4",
        "table=0,priority=5,dl_vlan=7,actions=pop_vlan,output:3",
        "table=0,priority=1,actions=drop",
        "table=3,in_port=1,udp,actions=set_field:9->udp_dst,output:3",
        "table=4,actions=write_metadata:1,goto_table:5",
        "table=5,udp,metadata=1,actions=set_field:99->udp_src",
    ] {
        lab.h.ofctl(&["-O", "OpenFlow13", "add-flow", "br0", flow]);
    }
    assert_eq!(lab.send(1, &udp(1, 2, 5, 1)), [(2, tagged(&udp(1, 2, 5, 1), 5))]);
    assert_eq!(lab.send(1, &tagged(&udp(1, 2, 5, 9), 7)), [(3, udp(1, 2, 5, 9))]);
    assert_eq!(lab.send(1, &udp(1, 2, 5, 3)), [(3, udp(1, 2, 5, 9))]);
    assert_eq!(lab.send(2, &udp(1, 2, 5, 3)), []);
    assert_eq!(lab.send(3, &udp(1, 2, 5, 4)), [(3, udp(1, 2, 5, 4))]);
    assert_eq!(ports(&lab.send(3, &udp(1, 2, 5, 5))), [1, 2]);
    assert_eq!(lab.send(1, &udp(1, 2, 5, 6)), [(3, udp(1, 2, 99, 6))]);
    let mut to = crate::lab::ip4(1, 77);
    to.ttl = 63;
    let routed = start(1, 0x77).ipv4(to).udp(5, 2).payload(&[0x55; 18]).finish();
    assert_eq!(lab.send(1, &udp(1, 2, 5, 2)), [(2, routed.clone()), (3, routed)]);
    assert_eq!(lab.send(1, &udp(1, 2, 5, 1000)), []);
    assert_eq!(lab.flow_count("priority=1 ", "n_packets"), 1);
}

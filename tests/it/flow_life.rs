//! The life of datapath flows: they come with a packet, follow the tables and what was learned, and leave.

use crate::harness::{wait_until, Setup, Which};
use crate::lab::{ports, udp, Lab};

#[test]
fn idle_flows_leave() {
    let mut lab = Lab::new(2);
    lab.h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=500"]);
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,udp,tp_dst=5,actions=2"]);
    for _ in 0..3 {
        lab.passes(1, &udp(1, 2, 1, 5), &[2]);
    }
    assert_eq!(lab.flow_count("tp_dst=5", "n_packets"), 3);
    wait_until("the idle flow is gone", || lab.lookups().3 == 0);
    assert_eq!(lab.flow_count("tp_dst=5", "n_packets"), 3);
    assert_eq!(lab.flow_count("tp_dst=5", "n_bytes"), 180);
    // It comes again with the next packet.
    let missed = lab.lookups().1;
    lab.passes(1, &udp(1, 2, 1, 5), &[2]);
    assert_eq!(lab.lookups().1, missed + 1);
    assert_eq!(lab.flow_count("tp_dst=5", "n_packets"), 4);
}

#[test]
fn flows_follow_the_tables_in_place() {
    let mut lab = Lab::new(3);
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,udp,actions=2"]);
    let frame = udp(1, 2, 1, 5);
    lab.passes(1, &frame, &[2]);
    lab.passes(1, &frame, &[2]);
    let (_, missed, _, flows) = lab.lookups();
    let line = lab.megaflow("in_port(p1)").expect("a flow of port 1");
    assert!(line.contains("packets:1, bytes:60") && line.ends_with("actions:p2"), "{line}");

    lab.h.ofctl(&["mod-flows", "br0", "in_port=1,udp,actions=3"]);
    wait_until("the flow goes to port 3", || {
        lab.megaflow("in_port(p1)").is_some_and(|l| l.ends_with("actions:p3"))
    });
    lab.passes(1, &frame, &[3]);
    assert_eq!((lab.lookups().1, lab.lookups().3), (missed, flows), "no new miss");
    // Each rule is credited with its own packets only: a modified rule keeps its counters.
    assert_eq!(lab.flow_count("priority=9", "n_packets"), 3);

    // A rule of higher priority takes over what it matches.
    lab.h.ofctl(&["add-flow", "br0", "priority=10,in_port=1,udp,actions=2,3"]);
    wait_until("the flow goes to both ports", || {
        lab.megaflow("in_port(p1)").is_some_and(|l| l.ends_with("actions:p2,p3"))
    });
    lab.passes(1, &frame, &[2, 3]);
    assert_eq!(lab.flow_count("priority=9,", "n_packets"), 3);
    assert_eq!(lab.flow_count("priority=10,", "n_packets"), 1);
    assert_eq!(lab.lookups().1, missed, "no new miss");

    // One that looks at more than the flow does replaces it.
    lab.h.ofctl(&["add-flow", "br0", "priority=11,in_port=1,udp,tp_dst=5,actions=drop"]);
    wait_until("the flow forwards no more", || {
        lab.megaflow("in_port(p1)").is_none_or(|l| l.ends_with("actions:drop"))
    });
    lab.passes(1, &frame, &[]);
    lab.passes(1, &udp(1, 2, 1, 6), &[2, 3]);

    // Without rules nothing is forwarded.
    lab.h.ofctl(&["del-flows", "br0"]);
    wait_until("no flow forwards", || lab.megaflow("actions:p").is_none());
    lab.passes(1, &frame, &[]);
}

#[test]
fn flows_follow_addresses() {
    let mut lab = Lab::new(4);
    let (there, back) = (udp(1, 2, 1, 1), udp(2, 1, 1, 1));
    assert_eq!(ports(&lab.send(1, &there)), [2, 3, 4], "flooded");
    lab.passes(2, &back, &[1]);
    lab.settle();
    lab.passes(1, &there, &[2]);
    // Host 2 moves.
    lab.passes(3, &back, &[1]);
    wait_until("the flow to host 2 goes to port 3", || {
        lab.megaflow("in_port(p1)").is_some_and(|l| l.ends_with("actions:p3"))
    });
    lab.passes(1, &there, &[3]);
    let fdb = lab.h.appctl(&["fdb/show", "br0"]);
    assert_eq!(fdb.matches("02:00:00:00:00:02").count(), 1, "{fdb}");
    // Forgotten addresses are flooded to again.
    lab.h.appctl(&["fdb/flush", "br0"]);
    wait_until("the flow floods", || {
        lab.megaflow("in_port(p1)").is_none_or(|l| l.contains("p2") && l.contains("p3"))
    });
    assert_eq!(ports(&lab.send(1, &there)), [2, 3, 4]);
    // With its port an address goes.
    lab.h.vsctl(&["del-port", "br0", "p1"]);
    let fdb = lab.h.appctl(&["fdb/show", "br0"]);
    assert!(!fdb.contains("02:00:00:00:00:01"), "{fdb}");
    assert_eq!(ports(&lab.send(2, &back)), [3, 4]);
}

/// Over the flow limit packets are forwarded all the same, and counted.
#[test]
fn more_flows_than_the_limit() {
    let mut lab = Lab::new(2);
    lab.h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-limit=20"]);
    // Many prefixes make many flows.
    lab.h.ofctl(&["del-flows", "br0"]);
    let rules: String = (0..200).map(|i| format!("in_port=1,udp,tp_dst={i},actions=2\n")).collect();
    assert_eq!(lab.h.ofctl_stdin(&["add-flows", "br0", "-"], &rules).code, 0);
    for round in 1..=2u64 {
        for i in 0..200 {
            lab.passes(1, &udp(1, 2, 1, i), &[2]);
        }
        assert!(lab.lookups().3 <= 41, "{:?}", lab.lookups());
        let sum = lab.h.ofctl(&["dump-aggregate", "br0"]);
        assert!(
            sum.contains(&format!("packet_count={} byte_count={} ", 200 * round, 12_000 * round)),
            "{sum}"
        );
    }
    let show = lab.h.appctl(&["upcall/show"]);
    assert!(show.contains("(limit 20)"), "{show}");
}

/// With `flow-restore-wait` a started daemon forwards nothing until the tables are restored; set later it does nothing.
#[test]
fn flows_are_restored_before_packets_pass() {
    let wait = ["set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"];
    let mut lab = Lab::with(Setup::new(Which::Ours).vsctl(&wait), 2);
    assert_eq!(ports(&lab.send(1, &udp(1, 2, 1, 2))), [0; 0]);
    lab.h.ofctl(&["replace-flows", "br0", &flow_file(&lab, "in_port=1,actions=output:2\n")]);
    assert_eq!(ports(&lab.send(1, &udp(1, 2, 1, 2))), [0; 0]);
    lab.h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-restore-wait=false"]);
    assert_eq!(ports(&lab.send(1, &udp(1, 2, 1, 2))), [2]);
    assert_eq!(ports(&lab.send(2, &udp(2, 1, 1, 2))), [0; 0]);
    lab.h.vsctl(&wait);
    assert_eq!(ports(&lab.send(1, &udp(1, 2, 3, 4))), [2]);
}

fn flow_file(lab: &Lab, text: &str) -> String {
    let path = lab.h.path("flows.txt");
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

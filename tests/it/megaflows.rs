//! The life of a megaflow as the tools show it, on our daemon and on the installed one: it comes with the first packet
//! and leaves ten seconds after the last, follows its OpenFlow rule at once and in place, and obeys the database.

use crate::dummy::{bridge, daemon, flows, packet, settle};
use crate::harness::{wait_until, Harness, Which};

fn both(ports: u32, test: impl Fn(&Harness)) {
    for which in [Which::Installed, Which::Ours] {
        let h = daemon(which, "--enable-dummy=override");
        bridge(&h, ports);
        test(&h);
    }
}

/// What stands behind `key` in a line of a dump.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let rest = line.split(key).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split([',', ' ']).next().unwrap_or_default()
}

/// The one megaflow there is, with its identifier.
fn the_flow(h: &Harness) -> String {
    let text = h.appctl(&["dpctl/dump-flows", "-m"]);
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("ufid:")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_string()
}

#[test]
fn comes_with_the_first_packet_and_leaves_after_ten_seconds() {
    both(2, |h| {
        h.ofctl(&["add-flow", "br0", "in_port=1,actions=2"]);
        assert!(flows(h).is_empty());
        packet(h, 1);
        let all = flows(h);
        assert!(all.len() == 1 && all[0].ends_with("packets:0, bytes:0, used:never, actions:2"), "{all:?}");
        h.appctl(&["time/warp", "5000", "500"]);
        packet(h, 1);
        h.appctl(&["time/warp", "9500", "500"]);
        settle(h);
        let all = flows(h);
        assert!(all.len() == 1 && all[0].contains("packets:1, bytes:106"), "{all:?}");
        h.appctl(&["time/warp", "1000", "500"]);
        settle(h);
        wait_until("the megaflow is gone", || flows(h).is_empty());
    });
}

#[test]
fn changes_in_place_with_its_rule() {
    both(3, |h| {
        h.ofctl(&["add-flow", "br0", "in_port=1,actions=2"]);
        (0..3).for_each(|_| packet(h, 1));
        let before = the_flow(h);
        assert_eq!(value(&before, "packets:"), "2");
        h.ofctl(&["mod-flows", "br0", "in_port=1,actions=3"]);
        settle(h);
        let after = the_flow(h);
        assert_eq!(value(&before, "ufid:"), value(&after, "ufid:"));
        assert_eq!((value(&after, "packets:"), value(&after, "actions:")), ("2", "p3"));
        packet(h, 1);
        assert_eq!(value(&the_flow(h), "packets:"), "3");
        assert_eq!(h.ofctl(&["dump-ports", "br0", "2"]).matches("tx pkts=3").count(), 1);
        assert_eq!(h.ofctl(&["dump-ports", "br0", "3"]).matches("tx pkts=1").count(), 1);
        settle(h);
        // The rule keeps its counters, those of packets that the megaflow carried included.
        let rules = h.ofctl(&["dump-flows", "br0"]);
        assert!(rules.contains("n_packets=4, n_bytes=424,"), "{rules}");
    });
}

#[test]
fn goes_with_its_rule() {
    both(3, |h| {
        h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,ip,nw_src=10.0.0.1,actions=2"]);
        h.ofctl(&["add-flow", "br0", "priority=1,in_port=1,actions=3"]);
        (0..2).for_each(|_| packet(h, 1));
        assert_eq!(value(&the_flow(h), "actions:"), "p2");
        h.ofctl(&["--strict", "del-flows", "br0", "priority=9,in_port=1,ip,nw_src=10.0.0.1"]);
        settle(h);
        // Nothing sends to port 2 any more, and no packet does either.
        assert!(flows(h).iter().all(|f| !f.ends_with("actions:2")), "{:?}", flows(h));
        packet(h, 1);
        assert_eq!(h.ofctl(&["dump-ports", "br0", "2"]).matches("tx pkts=2").count(), 1);
        assert_eq!(h.ofctl(&["dump-ports", "br0", "3"]).matches("tx pkts=1").count(), 1);
        h.ofctl(&["del-flows", "br0"]);
        settle(h);
        assert!(flows(h).iter().all(|f| f.ends_with("actions:drop")), "{:?}", flows(h));
        // With its bridge port everything goes.
        h.vsctl(&["del-port", "br0", "p1"]);
        wait_until("no megaflow is left", || flows(h).is_empty());
    });
}

#[test]
fn obeys_max_idle() {
    both(2, |h| {
        h.ofctl(&["add-flow", "br0", "in_port=1,actions=2"]);
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=3000"]);
        packet(h, 1);
        h.appctl(&["time/warp", "2500", "500"]);
        settle(h);
        assert_eq!(flows(h).len(), 1);
        h.appctl(&["time/warp", "1000", "500"]);
        settle(h);
        wait_until("the megaflow is gone", || flows(h).is_empty());
        // What is no number is as if it were not there.
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=soon"]);
        packet(h, 1);
        h.appctl(&["time/warp", "9500", "500"]);
        settle(h);
        assert_eq!(flows(h).len(), 1);
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=1"]);
        h.appctl(&["time/warp", "500", "100"]);
        settle(h);
        wait_until("the megaflow is gone again", || flows(h).is_empty());
    });
}

#[test]
fn obeys_flow_limit() {
    both(2, |h| {
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-limit=3"]);
        h.ofctl(&["add-flow", "br0", "in_port=1,actions=NORMAL"]);
        wait_until("the limit is known", || {
            h.appctl(&["time/warp", "600", "100"]);
            h.appctl(&["upcall/show"]).contains("(limit 3)")
        });
        for n in 1..=20 {
            packet(h, n);
            // Open vSwitch counts the megaflows ten times a second.
            h.appctl(&["time/warp", "101"]);
        }
        settle(h);
        assert!(flows(h).len() <= 4, "{:?}", flows(h));
        let ports = h.ofctl(&["dump-ports", "br0", "2"]);
        assert!(ports.contains("tx pkts=20"), "every packet is forwarded all the same: {ports}");
    });
}

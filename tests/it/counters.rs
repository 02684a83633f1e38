//! Event counters that both daemons have: the same events are counted as often.

use crate::harness::{wait_at_most, wait_until, Harness, Setup, Which};
use std::time::Duration;

fn bridge(which: Which) -> Harness {
    let h = Setup::new(which).args(&["--enable-dummy=override", "--disable-system"]).up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=dummy"]);
    for i in 1..=3 {
        add_port(&h, i);
    }
    h
}

fn add_port(h: &Harness, i: u8) {
    let (name, number) = (format!("p{i}"), format!("ofport_request={i}"));
    h.vsctl(&["add-port", "br0", &name, "--", "set", "Interface", &name, "type=dummy", &number]);
}

fn read(h: &Harness, name: &str) -> u64 {
    let text = h.control("coverage/read-counter", &[name]).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.trim().parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

/// Packets that the datapath has looked up.
fn looked_up(h: &Harness) -> u64 {
    let show = h.appctl(&["dpctl/show"]);
    let line = show.lines().find(|l| l.contains("lookups:")).unwrap_or_default().to_string();
    line.split([' ', ':']).filter_map(|w| w.parse::<u64>().ok()).sum()
}

/// Has a port receive a UDP packet, and waits until the datapath has it.
fn receive(h: &Harness, port: u8, from: u8, to: u8, dst: u16) {
    let flow = format!(
        "in_port({port}),eth(src=50:54:00:00:00:{from:02x},dst=50:54:00:00:00:{to:02x}),eth_type(0x0800),\
         ipv4(src=10.0.0.{from},dst=10.0.0.{to},proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst={dst})"
    );
    let before = looked_up(h);
    h.appctl(&["netdev-dummy/receive", &format!("p{port}"), &flow]);
    wait_until("the packet is looked up", || looked_up(h) > before);
}

type Step = (&'static str, fn(&Harness), &'static [&'static str]);

const OPENFLOW: &[&str] = &["ofproto_recv_openflow", "vconn_received", "rconn_queued"];

/// What is done, and the counters that it moves.
const STEPS: &[Step] = &[
    (
        "packets come and go",
        |h| (0..4).for_each(|_| receive(h, 1, 1, 2, 5)),
        &["netdev_received", "netdev_sent"],
    ),
    (
        "rules are added",
        |h| drop(h.ofctl(&["add-flow", "br0", "priority=7,udp,tp_dst=9,actions=drop"])),
        OPENFLOW,
    ),
    ("rules are listed", |h| drop(h.ofctl(&["dump-flows", "br0"])), OPENFLOW),
    ("ports are listed", |h| drop(h.ofctl(&["-O", "OpenFlow13", "dump-ports-desc", "br0"])), OPENFLOW),
    (
        "a packet is sent by a controller",
        |h| {
            drop(h.ofctl(&["packet-out", "br0", "in_port=1 packet=505400000007505400000008123456 actions=2"]))
        },
        &["ofproto_packet_out", "ofproto_recv_openflow"],
    ),
    (
        "addresses are learned, and move",
        |h| {
            (1..=3).for_each(|i| receive(h, i, i, 9, 1));
            receive(h, 2, 1, 9, 1);
            // One with a static entry is seen elsewhere.
            h.appctl(&["fdb/add", "br0", "p1", "0", "50:54:00:00:00:0a"]);
            receive(h, 2, 10, 9, 1);
        },
        &["mac_learning_learned", "mac_learning_moved", "drop_action_of_pipeline"],
    ),
    ("a rule drops", |h| receive(h, 1, 1, 2, 9), &["drop_action_of_pipeline"]),
    (
        "translation gives up",
        |h| {
            h.ofctl(&["add-flow", "br0", "priority=8,udp,tp_dst=10,actions=resubmit(,5)"]);
            h.ofctl(&["add-flow", "br0", "table=5,actions=resubmit(,5)"]);
            receive(h, 1, 1, 2, 10);
        },
        &["drop_action_recursion_too_deep", "drop_action_too_many_resubmit", "drop_action_of_pipeline"],
    ),
    (
        "flows are too many",
        |h| {
            h.appctl(&["upcall/set-flow-limit", "0"]);
            receive(h, 3, 3, 1, 77);
            h.appctl(&["upcall/set-flow-limit", "1000"]);
        },
        &["upcall_flow_limit_hit"],
    ),
    ("a port is added", |h| add_port(h, 4), &["dpif_port_add", "bridge_reconfigure"]),
    ("a port is removed", |h| drop(h.vsctl(&["del-port", "p4"])), &["bridge_reconfigure"]),
    ("commands are run", |h| drop(h.appctl(&["version"])), &["unixctl_received", "unixctl_replied"]),
];

#[test]
fn they_count_as_the_installed_daemon() {
    let both = [bridge(Which::Ours), bridge(Which::Installed)];
    let mut different = Vec::new();
    for (what, does, names) in STEPS {
        let now = |h: &Harness| names.iter().map(|n| read(h, n)).collect::<Vec<u64>>();
        let before = both.each_ref().map(&now);
        both.iter().for_each(does);
        let moved = || {
            let after = both.each_ref().map(&now);
            [0, 1].map(|i| after[i].iter().zip(&before[i]).map(|(a, b)| a - b).collect::<Vec<u64>>())
        };
        let mut last = moved();
        // Threads say a little later what they counted.
        wait_at_most(Duration::from_secs(5), || {
            last = moved();
            last[0] == last[1] && last[0].iter().any(|n| *n > 0)
        });
        let [ours, theirs] = last;
        if ours != theirs || ours.iter().all(|n| *n == 0) {
            different.push(format!(
                "when {what}: {names:?} move by {ours:?}, of the installed daemon by {theirs:?}"
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let [ours, theirs] = both;
    // What both count, each as often as it does it.
    for name in ["mac_learning_static_none_move", "dpif_port_del"] {
        assert!(read(&ours, name) > 0 && read(&theirs, name) > 0, "{name}");
    }
}

/// Those of events that never came are there too, as in the installed daemon.
#[test]
fn they_can_be_read_from_the_start() {
    let h = Harness::ours();
    for name in [
        "drop_action_stack_too_deep",
        "datapath_drop_upcall_error",
        "dpif_destroy",
        "txn_error",
        "vconn_open",
    ] {
        assert_eq!(read(&h, name), 0, "{name}");
    }
}

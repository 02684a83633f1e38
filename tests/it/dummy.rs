//! The instruments: dummy devices and datapaths, a clock that stands still; with them the life of megaflows, and
//! our daemon beside the installed one, command by command.

use crate::harness::{wait_until, Harness, Output, Setup, Which};

pub fn daemon(which: Which, mode: &str) -> Harness {
    Setup::new(which).args(&[mode, "--disable-system", "--disable-system-route"]).up()
}

/// A bridge with dummy ports p1 to pN, its clock stopped.
pub fn bridge(h: &Harness, ports: u32) {
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "fail-mode=secure", "datapath_type=dummy"]);
    for i in 1..=ports {
        let (p, no) = (format!("p{i}"), format!("ofport_request={i}"));
        h.vsctl(&["add-port", "br0", &p, "--", "set", "interface", &p, "type=dummy", &no]);
    }
    h.appctl(&["time/stop"]);
}

fn ours() -> Harness {
    let h = daemon(Which::Ours, "--enable-dummy=override");
    bridge(&h, 3);
    h
}

/// A packet of a connection of its own into p1.
pub fn packet(h: &Harness, n: u32) {
    let flow = format!(
        "in_port(1),eth(src=50:54:00:00:00:{n:02x},dst=50:54:00:00:00:99),eth_type(0x0800),\
         ipv4(src=10.0.0.{n},dst=10.0.0.99,proto=17,ttl=64),udp(src=1,dst=2)"
    );
    h.appctl(&["netdev-dummy/receive", "p1", &flow]);
}

pub fn flows(h: &Harness) -> Vec<String> {
    let text = h.appctl(&["dpctl/dump-flows"]);
    let mut all: Vec<String> =
        text.lines().filter(|l| !l.starts_with("flow-dump")).map(str::to_string).collect();
    all.sort();
    all
}

pub fn settle(h: &Harness) {
    h.appctl(&["revalidator/wait"]);
}

#[test]
fn a_megaflow_lives_ten_seconds_after_its_last_packet() {
    let h = ours();
    h.ofctl(&["add-flow", "br0", "in_port=1,actions=2"]);
    assert!(flows(&h).is_empty());
    packet(&h, 1);
    let one = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no), ";
    assert_eq!(flows(&h), [format!("{one}packets:0, bytes:0, used:never, actions:2")]);
    h.appctl(&["time/warp", "6000"]);
    packet(&h, 1);
    assert_eq!(flows(&h), [format!("{one}packets:1, bytes:106, used:0.000s, actions:2")]);
    h.appctl(&["time/warp", "9000", "500"]);
    settle(&h);
    assert_eq!(flows(&h), [format!("{one}packets:1, bytes:106, used:9.000s, actions:2")]);
    h.appctl(&["time/warp", "1001"]);
    settle(&h);
    assert!(flows(&h).is_empty(), "{:?}", flows(&h));
    let rules = h.ofctl(&["dump-flows", "br0"]);
    assert!(rules.contains("n_packets=2, n_bytes=212, idle_age=10,"), "{rules}");
}

#[test]
fn changes_of_rules_reach_megaflows() {
    let h = ours();
    h.ofctl(&["add-flow", "br0", "in_port=1,actions=2"]);
    packet(&h, 1);
    packet(&h, 1);
    h.ofctl(&["mod-flows", "br0", "in_port=1,actions=3"]);
    settle(&h);
    let changed = flows(&h);
    assert!(
        changed.len() == 1 && changed[0].ends_with("packets:1, bytes:106, used:0.000s, actions:3"),
        "{changed:?}"
    );
    h.ofctl(&["del-flows", "br0"]);
    settle(&h);
    let left = flows(&h);
    assert!(left.iter().all(|f| f.ends_with("actions:drop")), "{left:?}");
    h.ofctl(&["add-flow", "br0", "in_port=1,dl_src=50:54:00:00:00:01,actions=2"]);
    settle(&h);
    assert!(flows(&h).is_empty(), "its mask is too wide now: {:?}", flows(&h));
}

#[test]
fn idle_time_and_limit_come_from_the_database() {
    let h = ours();
    h.ofctl(&["add-flow", "br0", "priority=1,ip,nw_src=10.0.0.77,actions=drop"]);
    h.ofctl(&["add-flow", "br0", "priority=2,in_port=1,ip,nw_src=10.0.0.0/8,udp,actions=2"]);
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=3000"]);
    packet(&h, 1);
    assert_eq!(flows(&h).len(), 1);
    h.appctl(&["time/warp", "2000"]);
    settle(&h);
    assert_eq!(flows(&h).len(), 1);
    h.appctl(&["time/warp", "1001"]);
    settle(&h);
    assert!(flows(&h).is_empty());
    // Beyond the limit packets are forwarded without megaflows.
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-limit=2"]);
    h.ofctl(&["del-flows", "br0"]);
    h.ofctl(&["add-flow", "br0", "in_port=1,actions=NORMAL"]);
    for n in 1..=20 {
        packet(&h, n);
    }
    assert!(flows(&h).len() <= 3, "{:?}", flows(&h));
    assert_eq!(h.appctl(&["upcall/show"]).matches("(limit 2)").count(), 1);
    let stats = h.ofctl(&["dump-ports", "br0", "2"]);
    assert!(stats.contains("tx pkts=21"), "{stats}");
}

#[test]
fn timers_follow_the_clock() {
    let h = ours();
    h.ofctl(&["add-flow", "br0", "hard_timeout=20,in_port=2,actions=1"]);
    h.ofctl(&["add-flow", "br0", "idle_timeout=5,in_port=3,actions=1"]);
    h.ofctl(&["add-flow", "br0", "priority=1,actions=NORMAL"]);
    packet(&h, 1);
    let rules = || h.ofctl(&["dump-flows", "br0"]);
    let stations = || h.appctl(&["fdb/show", "br0"]).lines().count() - 1;
    assert_eq!((rules().matches("_timeout=").count(), stations()), (2, 1));
    h.appctl(&["time/warp", "4000", "1000"]);
    assert_eq!(rules().matches("_timeout=").count(), 2);
    h.appctl(&["time/warp", "2000", "1000"]);
    assert_eq!(rules().matches("_timeout=").count(), 1);
    assert!(h.appctl(&["fdb/show", "br0"]).contains("  6\n"));
    h.appctl(&["time/warp", "15000", "1000"]);
    assert_eq!((rules().matches("_timeout=").count(), stations()), (0, 1));
    h.appctl(&["time/warp", "300000", "10000"]);
    wait_until("the station is forgotten", || stations() == 0);
    for (args, error) in
        [(vec!["time/warp", "0"], "invalid MSECS"), (vec!["time/warp", "5", "x"], "invalid MSECS")]
    {
        let out = h.try_appctl(&args);
        assert!(out.code != 0 && out.err.starts_with(error), "{out:?}");
    }
}

#[test]
fn streams_join_two_ports() {
    let h = ours();
    h.vsctl(&[
        "add-port",
        "br0",
        "a",
        "--",
        "set",
        "interface",
        "a",
        "type=dummy",
        "options:pstream=punix:a.sock",
    ]);
    h.vsctl(&[
        "add-port",
        "br0",
        "b",
        "--",
        "set",
        "interface",
        "b",
        "type=dummy",
        "options:stream=unix:a.sock",
    ]);
    wait_until("the stream is connected", || {
        h.appctl(&["time/warp", "100"]);
        h.appctl(&["netdev-dummy/conn-state", "b"]) == "b: connected\n"
    });
    h.ofctl(&["add-flow", "br0", "in_port=1,actions=output:a"]);
    h.ofctl(&["add-flow", "br0", "in_port=b,actions=output:3"]);
    packet(&h, 1);
    wait_until("the frame came over the stream", || {
        h.ofctl(&["dump-ports", "br0", "3"]).contains("tx pkts=1")
    });
}

#[test]
fn dummies_exist_only_on_request() {
    let h = Setup::new(Which::Ours).up();
    let out = h.try_appctl(&["netdev-dummy/conn-state"]);
    assert!(out.err.contains("is not a valid command"), "{out:?}");
    assert!(!h.vsctl(&["get", "Open_vSwitch", ".", "iface_types"]).contains("dummy"));
}

/// Commands whose answers must be equal: `a` is ovs-appctl, `o` ovs-ofctl, `v` ovs-vsctl.
const SIDE_BY_SIDE: &[&str] = &[
    "a|dpif/show",
    "a|dpctl/show|-s",
    "a|dpctl/dump-dps",
    "a|dpif/dump-dps",
    "o|add-flow|br0|in_port=1,actions=2,3",
    "a|netdev-dummy/receive|p1|in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800),ipv4(src=1.2.3.4,dst=2.3.4.5,proto=6,tos=0,ttl=64,frag=no),tcp(src=1,dst=2),tcp_flags(syn|ack)",
    "a|dpctl/dump-flows",
    "a|netdev-dummy/receive|p1|in_port(1),eth(),eth_type(0x1234)|in_port(1),eth(),eth_type(0x1234)|--len|100",
    "a|netdev-dummy/receive|p1|in_port(1),eth(),eth_type(0x8100),vlan(vid=5),encap(eth_type(0x0806),arp(op=1))",
    "a|netdev-dummy/receive|p1|in_port(1),eth(),eth_type(0x86dd),ipv6(src=::1,proto=58),icmpv6(type=128)",
    "a|netdev-dummy/receive|p1|in_port(1),eth(),eth_type(0x8847),mpls(label=100,tc=3,ttl=64,bos=1)",
    "a|netdev-dummy/receive|p1|in_port(1),eth()",
    "a|netdev-dummy/receive|p1|5054000000025054000000010800 45",
    "a|netdev-dummy/receive|p1|in_port(1),eth(src=1),eth_type(0x0800)",
    "a|netdev-dummy/receive|p1|in_port(p9),eth()",
    "a|netdev-dummy/receive|p1|eth_type( 0x1234 )",
    "a|netdev-dummy/receive|p1|in_port(1),eth(src=50:54:00:00:00:01/ff:ff:00:00:00:00)",
    "a|netdev-dummy/receive|p1|00",
    "a|netdev-dummy/receive|p1|--qid|5|eth()",
    "a|netdev-dummy/receive|p1|eth(),eth_type(0x1234)|--len|5",
    "a|netdev-dummy/receive|nope|00",
    "a|netdev-dummy/receive|p1",
    "s|dpctl/dump-flows",
    "o|dump-ports|br0",
    "a|netdev-dummy/set-admin-state|p1|down",
    "v|--columns=admin_state,link_state,mtu,ifindex,status,error|list|interface|p2",
    "a|netdev-dummy/set-admin-state|p1|foo",
    "a|netdev-dummy/set-admin-state|nope|up",
    "a|netdev-dummy/set-admin-state|up",
    "a|netdev-dummy/conn-state",
    "a|netdev-dummy/conn-state|p1",
    "a|netdev-dummy/ip4addr|p1|1.2.3.4/24",
    "a|netdev-dummy/ip4addr|p1|foo",
    "a|netdev-dummy/ip4addr|p1|1.2.3.4/99",
    "a|netdev-dummy/ip4addr|nope|1.2.3.4/24",
    "a|netdev-dummy/ip6addr|p1|fe80::1/64",
    "a|netdev-dummy/ip6addr|p1|fe80::2/200",
    "a|netdev-dummy/ip6addr|p1|xx",
    "a|netdev-dummy/ip6addr|nope|::1",
    "a|dpif-dummy/change-port-number|ovs-dummy|p3|9",
    "a|dpif-dummy/change-port-number|dummy@ovs-dummy|p1|9",
    "a|dpif-dummy/change-port-number|ovs-dummy|nope|9",
    "a|dpif-dummy/change-port-number|ovs-dummy|p2|x",
    "a|dpif-dummy/change-port-number|ovs-dummy|p2|9",
    "o|add-flow|br0|in_port=3,actions=1",
    "a|netdev-dummy/receive|p3|in_port(1),eth(),eth_type(0x1235)",
    "s|dpctl/dump-flows",
    "a|upcall/set-flow-limit|7x",
    "a|upcall/set-flow-limit|abc",
    "a|upcall/set-flow-limit|-1",
    "a|upcall/set-flow-limit|5000000000",
    "a|upcall/set-flow-limit|99999999999999999999",
    "a|upcall/set-flow-limit",
    "a|time/warp|0",
    "a|time/warp|x",
    "a|time/warp|100|10",
    "a|time/warp|1.5",
    "v|--columns=statistics|list|interface|p3",
    "v|set|interface|p1|options:ifindex=12|mtu_request=9000",
    "v|add-port|br0|q8|--|set|interface|q8|type=dummy-pmd|options:n_rxq=2|options:n_txq=0",
    "v|add-port|br0|foo",
    "v|add-port|br0|in7|--|set|interface|in7|type=internal",
    "v|add-port|br0|t0|--|set|interface|t0|type=tap",
    "a|dpctl/show",
    "v|get|Open_vSwitch|.|datapath_types",
];

fn side(h: &Harness, line: &str) -> Output {
    let mut words = line.split('|');
    let tool = words.next().unwrap_or_default();
    let args: Vec<&str> = words.collect();
    let mut out = match tool {
        "a" | "s" => h.try_appctl(&args),
        "o" => h.try_ofctl(&args),
        _ => h.try_vsctl(&args),
    };
    if tool == "s" {
        // Flows come in no order.
        let mut lines: Vec<&str> = out.out.lines().collect();
        lines.sort_unstable();
        out.out = lines.join("\n");
    }
    let dir = h.path("").display().to_string();
    out.err = out.err.replace(&dir, "DIR/");
    out
}

#[test]
fn our_daemon_answers_as_the_installed_one() {
    let (a, b) =
        (daemon(Which::Ours, "--enable-dummy=override"), daemon(Which::Installed, "--enable-dummy=override"));
    bridge(&a, 3);
    bridge(&b, 3);
    let mut different = String::new();
    for line in SIDE_BY_SIDE {
        let (ours, theirs) = (side(&a, line), side(&b, line));
        if ours != theirs {
            different += &format!("{line}\n--- ours\n{ours:?}\n--- installed\n{theirs:?}\n");
        }
    }
    assert!(different.is_empty(), "{different}");
}

/// The frames in a capture file.
fn captured(h: &Harness, file: &str) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(h.path(file)).expect("a capture");
    packet::pcap::Reader::new(file).expect("a capture's header").map(|f| f.expect("a frame").data).collect()
}

#[test]
fn captures_have_the_frames_that_those_of_the_installed_one_have() {
    let both = [Which::Ours, Which::Installed].map(|which| {
        let h = daemon(which, "--enable-dummy=override");
        bridge(&h, 1);
        let add = |name: &str, options: &[&str]| {
            let mut args = vec!["add-port", "br0", name, "--", "set", "interface", name];
            args.extend(options);
            h.vsctl(&args);
        };
        add("both", &["type=dummy", "options:pcap=both.pcap"]);
        add("apart", &["type=dummy", "options:tx_pcap=sent.pcap", "options:rxq_pcap=received.pcap"]);
        add("queues", &["type=dummy-pmd", "options:n_rxq=2", "options:rxq_pcap=queues.pcap"]);
        h.ofctl(&["add-flow", "br0", "actions=all"]);
        let tcp = "in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800),\
                   ipv4(src=1.2.3.4,dst=2.3.4.5,proto=6,tos=0,ttl=64,frag=no),tcp(src=1,dst=2)";
        for args in [
            vec!["both", tcp],
            vec!["both", tcp, "--len", "300"],
            vec![
                "apart",
                "in_port(1),eth(),eth_type(0x8100),vlan(vid=5,pcp=3),encap(eth_type(0x0806),arp(op=1))",
            ],
            vec!["queues", "--qid", "1", "5054000000025054000000010800"],
            vec!["p1", "5054000000025054000000011234", "eth(),eth_type(0x1235)"],
        ] {
            h.appctl(&[&["netdev-dummy/receive"][..], &args].concat());
        }
        let ports = ["both.pcap", "sent.pcap", "received.pcap", "queues.pcap"];
        wait_until("all has been sent", || captured(&h, "sent.pcap").len() == 5);
        wait_until("all has been sent there too", || captured(&h, "both.pcap").len() == 6);
        ports.map(|f| (f, captured(&h, f)))
    });
    assert_eq!(both[0], both[1]);
}

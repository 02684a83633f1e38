//! What the database says is done, and what is done stands in the database; it may go away meanwhile.

use crate::harness::{run, run_ok, wait_until, Harness, Process, Setup, Which};
use crate::lab::{ip, ports, udp, Lab};
use std::process::Command;

fn get(h: &Harness, table: &str, row: &str, column: &str) -> String {
    h.vsctl(&["get", table, row, column]).trim().to_string()
}

fn exists(device: &str) -> bool {
    run(Command::new("ip").args(["link", "show", device])).code == 0
}

/// The server is killed: forwarding goes on, and what changed meanwhile comes into effect afterwards.
#[test]
fn server_restarts_under_traffic() {
    let mut lab = Lab::new(3);
    let frame = udp(1, 2, 1, 1);
    lab.passes(1, &frame, &[2, 3]);
    lab.h.stop_database();
    wait_until("the loss is logged", || lab.h.log().contains("db.sock: connection "));
    lab.passes(1, &frame, &[2, 3]);
    lab.passes(1, &udp(3, 4, 5, 6), &[2, 3]);
    lab.h.ofctl(&["add-flow", "br0", "priority=7,udp,tp_dst=9,actions=3"]);
    lab.settle();
    lab.passes(1, &udp(1, 2, 1, 9), &[3]);

    // Changed while nobody was told.
    let change =
        r#"["Open_vSwitch",{"op":"update","table":"Port","where":[["name","==","p3"]],"row":{"tag":7}}]"#;
    run_ok(Command::new("ovsdb-tool").arg("transact").arg(lab.h.path("conf.db")).arg(change));
    lab.h.start_database();
    wait_until("the switch follows the change", || {
        lab.settle();
        ports(&lab.send(1, &frame)) == [2]
    });
    // Rules and learned addresses are still there, and changes are followed as before.
    lab.passes(1, &udp(1, 2, 1, 9), &[3]);
    lab.h.vsctl(&["clear", "Port", "p3", "tag"]);
    lab.settle();
    lab.passes(1, &frame, &[2, 3]);
    lab.h.vsctl(&["add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev"]);
    assert!(exists("br1"));
}

/// `ovs-vsctl` returns when the change is in effect.
#[test]
fn changes_are_waited_for() {
    let h = Setup::new(Which::Ours).in_thread().up();
    ip("link add p1 type veth peer name q1");
    for round in 1..=3 {
        h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
        assert!(exists("br0") && h.path("br0.mgmt").exists());
        assert_eq!(get(&h, "Interface", "br0", "ofport"), "65534");
        h.vsctl(&["add-port", "br0", "p1"]);
        assert_eq!(get(&h, "Interface", "p1", "ofport"), "1", "round {round}");
        h.vsctl(&["add-port", "br0", "i1", "--", "set", "Interface", "i1", "type=internal"]);
        assert!(exists("i1"));
        assert!(h.ofctl(&["show", "br0"]).contains(" 2(i1): addr:"));
        h.vsctl(&["del-port", "br0", "i1"]);
        assert!(!exists("i1"));
        let show = h.ofctl(&["show", "br0"]);
        assert!(show.contains(" 1(p1): addr:") && !show.contains("(i1)"), "{show}");
        let (next, cur) = (get(&h, "Open_vSwitch", ".", "next_cfg"), get(&h, "Open_vSwitch", ".", "cur_cfg"));
        assert_eq!(next, cur);
        h.vsctl(&["del-br", "br0"]);
        assert!(!exists("br0") && !h.path("br0.mgmt").exists() && exists("p1"));
        assert_eq!(h.appctl(&["dpif/show"]), "");
    }
    h.vsctl(&["--no-wait", "add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    wait_until("the bridge comes", || exists("br0"));
}

/// What is written about interfaces and the switch.
#[test]
fn status_columns() {
    let mut lab = Lab::new(2);
    let h = &lab.h;
    for port in ["p1", "p2"] {
        let all = |column: &str| get(h, "Interface", port, column);
        assert_eq!(
            (all("error"), all("admin_state"), all("link_state")),
            ("[]".into(), "up".into(), "up".into())
        );
        assert_eq!(all("mtu"), "1500");
        let link = run_ok(Command::new("ip").args(["-o", "link", "show", port]));
        assert!(link.starts_with(&format!("{}:", all("ifindex"))), "{link}");
        assert!(link.contains(all("mac_in_use").trim_matches('"')), "{link}");
        assert!(all("status").contains("driver_name=veth"), "{}", all("status"));
    }
    let resets: i64 = get(h, "Interface", "p1", "link_resets").parse().expect("number");
    ip("link set q1 down");
    wait_until("the link is down", || get(h, "Interface", "p1", "link_state") == "down");
    assert_eq!(get(h, "Interface", "p1", "admin_state"), "up");
    ip("link set q1 up");
    wait_until("the link is up", || get(h, "Interface", "p1", "link_state") == "up");
    let now: i64 = get(h, "Interface", "p1", "link_resets").parse().expect("number");
    assert!(now >= resets + 2, "{resets} {now}");
    assert!(get(h, "Open_vSwitch", ".", "ovs_version").starts_with("\"3."));
    assert_eq!(get(h, "Open_vSwitch", ".", "db_version"), "\"8.3.1\"");
    assert_eq!(get(h, "Open_vSwitch", ".", "datapath_types"), "[netdev]");
    let types = get(h, "Open_vSwitch", ".", "iface_types");
    for kind in ["dpdk", "internal", "patch", "system", "tap"] {
        assert!(types.trim_matches(['[', ']']).split(", ").any(|t| t == kind), "{kind}: {types}");
    }
    assert_eq!(get(h, "Open_vSwitch", ".", "dpdk_initialized"), "false");
    assert!(!get(h, "Open_vSwitch", ".", "system_type").is_empty());
    assert_eq!(get(h, "Bridge", "br0", "datapath_version"), "\"<built-in>\"");

    // Statistics come every five seconds, and are exact.
    for _ in 0..5 {
        lab.send(1, &udp(1, 2, 1, 1));
    }
    let value = |port: &str, key: &str| {
        let said = lab.h.vsctl(&["--if-exists", "get", "Interface", port, &format!("statistics:{key}")]);
        said.trim().to_string()
    };
    wait_until("statistics are written", || value("p1", "rx_packets") == "5");
    assert_eq!((value("p1", "rx_bytes"), value("p2", "tx_packets")), ("300".into(), "5".into()));
    assert_eq!((value("p2", "tx_bytes"), value("p1", "rx_dropped")), ("300".into(), "0".into()));
}

#[test]
fn identity_of_a_bridge() {
    let h = Setup::new(Which::Ours).in_thread().up();
    ip("link add p1 address 00:16:3e:00:00:05 type veth peer name q1");
    ip("link add p2 address 00:16:3e:00:00:02 type veth peer name q2");
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    let own = get(&h, "Bridge", "br0", "datapath_id");
    let mac = get(&h, "Interface", "br0", "mac_in_use").replace([':', '"'], "");
    assert_eq!(own, format!("\"0000{mac}\""));
    // The lowest address of the ports, then what is asked for.
    h.vsctl(&["add-port", "br0", "p1"]);
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), "\"000000163e000005\"");
    h.vsctl(&["add-port", "br0", "p2"]);
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), "\"000000163e000002\"");
    assert_eq!(get(&h, "Interface", "br0", "mac_in_use"), "\"00:16:3e:00:00:02\"");
    h.vsctl(&["set", "Bridge", "br0", "other_config:hwaddr=02:aa:00:00:00:01"]);
    assert_eq!(get(&h, "Interface", "br0", "mac_in_use"), "\"02:aa:00:00:00:01\"");
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), "\"000002aa00000001\"");
    assert!(run_ok(Command::new("ip").args(["link", "show", "br0"])).contains("02:aa:00:00:00:01"));
    h.vsctl(&["set", "Bridge", "br0", "other_config:datapath-id=00000000deadbeef"]);
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), "\"00000000deadbeef\"");
    let show = h.ofctl(&["show", "br0"]);
    assert!(show.contains("dpid:00000000deadbeef") && show.contains("02:aa:00:00:00:01"), "{show}");
    // What is no address or id is left aside, with a word.
    h.vsctl(&["set", "Bridge", "br0", "other_config:hwaddr=nonsense", "other_config:datapath-id=xyz"]);
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), "\"000000163e000002\"");
    assert!(h.log().contains("datapath-id=xyz") && h.log().contains("hwaddr=nonsense"));
}

#[test]
fn openflow_settings_of_a_bridge() {
    let h = Setup::new(Which::Ours).in_thread().up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&["add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev", "fail_mode=secure"]);
    let rules = |bridge: &str| h.ofctl(&["dump-flows", bridge]).lines().count() - 1;
    assert_eq!((rules("br0"), rules("br1")), (1, 0));
    assert!(h.ofctl(&["dump-flows", "br0"]).contains("priority=0 actions=NORMAL"));

    let ok = |version: &str| h.try_ofctl(&["-O", version, "dump-flows", "br0"]).code == 0;
    let all = ["OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"];
    assert_eq!(all.map(&ok), [true; 4]);
    h.vsctl(&["set", "Bridge", "br0", "protocols=OpenFlow13,OpenFlow15"]);
    assert_eq!(all.map(&ok), [false, true, false, true]);
    let said = h.try_ofctl(&["dump-flows", "br0"]);
    assert!(said.err.contains("version negotiation failed"), "{}", said.err);
    h.vsctl(&["clear", "Bridge", "br0", "protocols"]);
    assert_eq!(all.map(&ok), [true; 4]);
}

/// After a restart all is as it was, numbers of ports too.
#[test]
fn daemon_restarts() {
    let mut h = Setup::new(Which::Ours).in_thread().up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    for i in 1..=4 {
        ip(&format!("link add p{i} type veth peer name q{i}"));
        h.vsctl(&["add-port", "br0", &format!("p{i}")]);
    }
    h.vsctl(&["add-port", "br0", "i5", "--", "set", "Interface", "i5", "type=internal", "ofport_request=50"]);
    h.vsctl(&["del-port", "br0", "p1", "--", "del-port", "br0", "p2"]);
    let numbers = |h: &Harness| ["p3", "p4", "i5"].map(|p| get(h, "Interface", p, "ofport"));
    let id = get(&h, "Bridge", "br0", "datapath_id");
    assert_eq!(numbers(&h), ["3", "4", "50"]);
    h.appctl(&["exit"]);
    assert_eq!(h.switch().wait(), 0);
    h.stop();
    // What was configured meanwhile is waited for until the daemon is back.
    h.vsctl(&["--no-wait", "add-port", "br0", "p1"]);
    h.start();
    h.vsctl(&["set", "Open_vSwitch", ".", "external_ids:x=y"]);
    assert_eq!(numbers(&h), ["3", "4", "50"]);
    assert_eq!(get(&h, "Bridge", "br0", "datapath_id"), id);
    let p1 = get(&h, "Interface", "p1", "ofport");
    assert!(!["3", "4", "50", "-1", "[]"].contains(&p1.as_str()), "{p1}");
}

/// Without a database flows expire, controllers are connected, packets move and commands are answered.
#[test]
fn all_goes_on_without_database() {
    let mut lab = Lab::new(2);
    let target = format!("unix:{}", lab.h.path("tc.sock").display());
    lab.h.vsctl(&["set-controller", "br0", &target, "--", "set", "Controller", "br0", "max_backoff=1000"]);
    lab.h.stop_database();
    wait_until("the loss is logged", || lab.h.log().contains("db.sock: connection "));
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,actions=2"]);
    lab.h.ofctl(&["add-flow", "br0", "priority=8,hard_timeout=1,cookie=0x77,actions=drop"]);
    lab.settle();
    lab.passes(1, &udp(1, 2, 1, 1), &[2]);
    let mut command = lab.h.command("ovs-testcontroller");
    command.args([&format!("p{target}"), "--unixctl=tc.ctl", "-vconsole:info"]);
    let _controller = Process::start(&mut command, &lab.h.path("controller.out"));
    wait_until("the controller is connected", || {
        lab.h.log().contains(&format!("rconn|INFO|br0<->{target}: connected"))
    });
    wait_until("the flow has expired", || !lab.h.ofctl(&["dump-flows", "br0"]).contains("0x77"));
    lab.passes(1, &udp(1, 2, 1, 1), &[2]);
    assert!(lab.h.appctl(&["version"]).contains("(Open vSwitch)"));
    assert!(lab.h.appctl(&["dpif/show"]).contains("p2 2/"));
    lab.h.start_database();
    lab.h.vsctl(&["del-controller", "br0"]);
}

/// Of two daemons on one database the second waits until the first is gone, and then takes its place.
#[test]
fn second_daemon_waits_for_the_first() {
    let mut lab = Lab::new(2);
    let dir = lab.h.path("second");
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut command = lab.h.command(Which::Ours.program());
    command.env("OVS_RUNDIR", &dir).args(["--unixctl=second.ctl", "-vconsole:off"]);
    command.arg(format!("--log-file={}", dir.join("log").display()));
    let mut second = Process::start(
        command.arg(format!("unix:{}", lab.h.path("db.sock").display())),
        &lab.h.path("second.out"),
    );
    let line = format!(
        "bridge|ERR|another ovs-vswitchd process is running, disabling this process (pid {}) until it goes away",
        second.pid()
    );
    let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    wait_until("the second daemon steps back", || log().contains(&line));
    let list = |h: &Harness| {
        let mut command = h.command("ovs-appctl");
        run_ok(command.arg("-t").arg(dir.join("second.ctl")).arg("ofproto/list"))
    };
    // What is configured reaches the first only.
    lab.h.vsctl(&["add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev"]);
    assert_eq!(list(&lab.h), "");
    lab.passes(1, &udp(1, 2, 1, 1), &[2]);
    assert_eq!(log().matches(&line).count(), 1);
    lab.h.appctl(&["exit"]);
    assert_eq!(lab.h.switch().wait(), 0);
    wait_until("the second daemon takes over", || {
        let said = list(&lab.h);
        said.contains("br0") && said.contains("br1")
    });
    lab.h.vsctl(&["del-br", "br1"]);
    assert_eq!(list(&lab.h).trim(), "br0");
    second.signal("TERM");
    second.wait();
}

/// Clients that do not wait bring changes, and nobody waits for them.
#[test]
fn clients_that_do_not_wait() {
    let h = Harness::ours();
    let config = |h: &Harness| ["next_cfg", "cur_cfg"].map(|column| get(h, "Open_vSwitch", ".", column));
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    let before = config(&h);
    for i in 0..10 {
        h.vsctl(&[
            "--no-wait",
            "set",
            "Bridge",
            "br0",
            &format!("other_config:datapath-id={:016x}", 0x100 + i),
        ]);
    }
    wait_until("the last change is in effect", || get(&h, "Bridge", "br0", "datapath_id").contains("109"));
    assert_eq!(config(&h), before);
    h.vsctl(&["set", "Bridge", "br0", "other_config:datapath-id=0000000000000200"]);
    let after = config(&h);
    assert!(after[0] == after[1] && after[0] != before[0], "{after:?}");
}

//! Datapaths of several types in one daemon: each moves packets for its own bridges, listings show all of them. Our
//! daemon beside the installed one, command by command.

use crate::harness::{wait_until, Harness, Setup, Which};
use crate::lab::number_after;

/// A bridge on a datapath of type dummy and one on a datapath of type netdev, two ports each.
fn two(which: Which) -> Harness {
    let h = Setup::new(which).args(&["--enable-dummy", "--disable-system", "--disable-system-route"]).up();
    for (bridge, kind, ports) in [("br0", "dummy", ["p1", "p2"]), ("nb0", "netdev", ["n1", "n2"])] {
        let kind = format!("datapath_type={kind}");
        h.vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, &kind, "fail-mode=secure"]);
        for (i, p) in ports.iter().enumerate() {
            let no = format!("ofport_request={}", i + 1);
            h.vsctl(&["add-port", bridge, p, "--", "set", "interface", p, "type=dummy", &no]);
        }
        h.ofctl(&["add-flow", bridge, "in_port=1,actions=2"]);
    }
    h.appctl(&["time/stop"]);
    h
}

fn packet(h: &Harness, port: &str) {
    let flow = "in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800),\
                ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,ttl=64),udp(src=1,dst=2)";
    h.appctl(&["netdev-dummy/receive", port, flow]);
}

/// Packets that port 2 of a bridge has sent.
fn sent(h: &Harness, bridge: &str) -> u64 {
    number_after(&h.ofctl(&["dump-ports", bridge, "2"]), "tx", "pkts")
}

/// Without the numbers of threads, and what they had time for.
fn steady(text: &str) -> String {
    let volatile = |l: &&str| !l.contains("(keys ") && !l.contains("flows         :");
    text.lines().filter(volatile).map(|l| format!("{l}\n")).collect()
}

#[test]
fn both_forward_and_are_listed_as_in_the_installed_program() {
    let (ours, theirs) = (two(Which::Ours), two(Which::Installed));
    for h in [&ours, &theirs] {
        for _ in 0..3 {
            packet(h, "p1");
            packet(h, "n1");
        }
        packet(h, "n1");
        wait_until("the ports have sent", || sent(h, "br0") == 3 && sent(h, "nb0") == 4);
    }
    let trace = "in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800)";
    let commands: &[&[&str]] = &[
        &["dpif/show"],
        &["dpif/dump-dps"],
        &["dpctl/dump-dps"],
        &["dpctl/show"],
        &["dpctl/show", "dummy@ovs-dummy"],
        &["dpctl/show", "netdev@ovs-netdev", "dummy@ovs-dummy"],
        &["dpctl/show", "netdev@foo"],
        &["dpctl/dump-flows"],
        &["dpctl/dump-flows", "dummy@ovs-dummy"],
        &["dpctl/dump-flows", "netdev@ovs-netdev"],
        &["dpctl/dump-flows", "ovs-netdev"],
        &["dpctl/add-flow", "in_port(1),eth(),eth_type(0x800),ipv4()", "2"],
        &["dpctl/mod-flow", "in_port(1),eth(),eth_type(0x800),ipv4()", "2"],
        &["dpctl/del-flow", "in_port(1),eth(),eth_type(0x800),ipv4()"],
        &["dpctl/get-flow", "ufid:00000000-0000-0000-0000-000000000001"],
        &["dpctl/del-flows"],
        &["dpif/dump-flows", "br0"],
        &["dpif/dump-flows", "nb0"],
        &["ofproto/trace", trace],
        &["ofproto/trace", "ovs-dummy", trace],
        &["ofproto/trace", "ovs-netdev", trace],
        &["ofproto/trace", "dummy@ovs-dummy", trace],
        &["ofproto/trace", "nb0", "in_port=1,ip"],
        &["upcall/show"],
        &["revalidator/wait"],
        &["dpif-netdev/pmd-stats-show"],
        &["dpif-netdev/pmd-stats-show", "nix"],
        &["dpif-netdev/pmd-stats-show", "dummy@ovs-dummy"],
        &["dpif-netdev/pmd-rxq-show"],
        &["dpif-netdev/pmd-perf-show"],
        &["dpif-netdev/pmd-stats-clear"],
        &["dpif-netdev/pmd-stats-clear", "ovs-dummy"],
        &["dpif-netdev/dpif-impl-get"],
        &["dpif-netdev/miniflow-parser-get"],
        &["dpif-dummy/change-port-number", "ovs-netdev", "n1", "7"],
        &["dpctl/del-flows", "dummy@ovs-dummy"],
        &["dpctl/dump-flows", "dummy@ovs-dummy"],
        &["dpctl/dump-flows", "netdev@ovs-netdev"],
    ];
    for command in commands {
        let (a, b) = (ours.try_appctl(command), theirs.try_appctl(command));
        let text = |h: &Harness, s: &str| steady(&s.replace(&h.path("").display().to_string(), "DIR/"));
        assert_eq!(text(&ours, &a.out), text(&theirs, &b.out), "{command:?}");
        assert_eq!(text(&ours, &a.err), text(&theirs, &b.err), "{command:?}");
    }
}

#[test]
fn patch_ports_do_not_join_datapaths() {
    for which in [Which::Ours, Which::Installed] {
        let h = two(which);
        h.vsctl(&["add-port", "br0", "pa", "--", "set", "interface", "pa", "type=patch", "options:peer=pb"]);
        h.vsctl(&["add-port", "nb0", "pb", "--", "set", "interface", "pb", "type=patch", "options:peer=pa"]);
        let error = |name: &str| h.vsctl(&["get", "interface", name, "error"]).trim().to_string();
        wait_until("the reason shows", || {
            error("pa") == "\"No usable peer 'pb' exists in 'dummy' datapath.\""
                && error("pb") == "\"No usable peer 'pa' exists in 'netdev' datapath.\""
        });
        h.vsctl(&["set", "bridge", "nb0", "datapath_type=dummy"]);
        wait_until("they are joined", || error("pa") == "[]" && error("pb") == "[]");
    }
}

#[test]
fn a_datapath_goes_with_its_last_bridge() {
    let h = two(Which::Ours);
    h.vsctl(&["set", "bridge", "nb0", "datapath_type=dummy"]);
    assert_eq!(h.appctl(&["dpctl/dump-dps"]), "dummy@ovs-dummy\n");
    assert_eq!(h.appctl(&["dpif/dump-dps"]), "dummy@br0\ndummy@nb0\n");
    h.vsctl(&["del-br", "br0"]);
    h.ofctl(&["add-flow", "nb0", "in_port=1,actions=2"]);
    assert_eq!(h.appctl(&["dpctl/dump-dps"]), "dummy@ovs-dummy\n");
    packet(&h, "n1");
    wait_until("the bridge that stayed forwards", || sent(&h, "nb0") == 1);
    h.vsctl(&["del-br", "nb0"]);
    assert_eq!(h.appctl(&["dpctl/dump-dps"]), "");
    let none = h.try_appctl(&["dpctl/dump-flows"]).err;
    assert!(
        none.starts_with(
            "ovs-vswitchd: no datapaths exist\novs-vswitchd: datapath not found (Invalid argument)\n"
        ),
        "{none}"
    );
}

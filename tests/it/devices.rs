//! What the switch does with Linux devices and what it leaves to their owners;
//! changes of a bridge while it runs. As observed with Open vSwitch 3.1.

use crate::harness::{wait_until, Harness, Setup, Which};

fn bridge() -> Harness {
    Setup::new(Which::Ours)
        .vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])
        .up()
}

fn mtu(h: &Harness, device: &str) -> String {
    h.vsctl(&["get", "Interface", device, "mtu"]).trim().to_string()
}

#[test]
fn late_devices_are_taken_in_and_their_state_is_left_alone() {
    let h = bridge();
    h.try_vsctl(&["add-port", "br0", "v1"]);
    assert_eq!(
        h.vsctl(&["get", "Interface", "v1", "error"]).trim(),
        "\"could not open network device v1 (No such device)\""
    );
    h.namespace().ok(&["ip", "link", "add", "v1", "mtu", "1400", "type", "veth", "peer", "name", "w1"]);
    wait_until("the port is there", || h.vsctl(&["get", "Interface", "v1", "ofport"]).trim() == "1");
    wait_until("the local port has its MTU", || mtu(&h, "br0") == "1400");
    assert_eq!(h.vsctl(&["get", "Interface", "v1", "admin_state"]).trim(), "down");
    assert_eq!(h.appctl(&["dpctl/show"]).lines().last(), Some("  port 2: v1"));
    h.namespace().ok(&["ip", "link", "set", "v1", "mtu", "1300"]);
    wait_until("the local port follows", || mtu(&h, "br0") == "1300");
    h.vsctl(&["set", "Interface", "br0", "mtu_request=1200"]);
    assert_eq!(mtu(&h, "br0"), "1200");
}

#[test]
fn a_change_of_fail_mode_starts_with_fresh_tables() {
    let h = bridge();
    let flows = |h: &Harness| h.ofctl(&["--no-stats", "dump-flows", "br0"]);
    h.ofctl(&["add-flow", "br0", "priority=7,actions=drop"]);
    h.vsctl(&["set-fail-mode", "br0", "secure"]);
    assert_eq!(flows(&h), "");
    h.ofctl(&["add-flow", "br0", "priority=7,actions=drop"]);
    h.vsctl(&["set", "Open_vSwitch", ".", "external_ids:a=b"]);
    assert_eq!(flows(&h), " priority=7 actions=drop\n");
    h.vsctl(&["del-fail-mode", "br0"]);
    assert_eq!(flows(&h), " priority=0 actions=NORMAL\n");
}

#[test]
fn a_change_of_vlans_forgets_addresses() {
    let h = bridge();
    h.vsctl(&["add-port", "br0", "i1", "--", "set", "Interface", "i1", "type=internal"]);
    h.appctl(&["fdb/add", "br0", "i1", "0", "00:00:00:00:00:05"]);
    h.vsctl(&["set", "Port", "i1", "external_ids:a=b"]);
    assert_eq!(h.appctl(&["fdb/show", "br0"]).lines().count(), 2);
    h.vsctl(&["set", "Port", "i1", "tag=7"]);
    assert_eq!(h.appctl(&["fdb/show", "br0"]).lines().count(), 1);
}

#[test]
fn requests_about_what_is_not_there_are_refused() {
    let h = bridge();
    // Errors about statistics come on standard output.
    let error = |words: &[&str]| {
        let o = h.try_ofctl(words);
        format!("{}{}", o.err, o.out).lines().next().unwrap_or_default().to_string()
    };
    for (words, name) in [
        (&["add-flow", "br0", "actions=group:5"][..], "OFPBAC_BAD_OUT_GROUP"),
        (&["add-flow", "br0", "actions=meter:5"], "OFPMMFC_INVALID_METER"),
        (&["add-flow", "br0", "dp_hash=5,actions=drop"], "OFPBRC_EPERM"),
        (&["meter-stats", "br0", "meter=5"], "OFPMMFC_UNKNOWN_METER"),
        (&["queue-stats", "br0", "LOCAL", "7"], "OFPQOFC_BAD_QUEUE"),
        (
            &[
                "packet-out",
                "br0",
                "in_port=LOCAL packet=ffffffffffff0000000000010806 actions=set_field:5->tcp_dst,output:1",
            ],
            "OFPBAC_MATCH_INCONSISTENT",
        ),
    ] {
        let words = [&["-O", "OpenFlow13"], words].concat();
        let text = error(&words);
        assert!(text.ends_with(name), "{words:?}: {text}");
    }
    assert!(h.log().contains("sending OFPMMFC_UNKNOWN_METER error reply to OFPST_METER request message"));
    assert_eq!(h.ofctl(&["-O", "OpenFlow13", "del-groups", "br0"]), "");
    assert_eq!(h.ofctl(&["-O", "OpenFlow13", "del-meters", "br0"]), "");
}

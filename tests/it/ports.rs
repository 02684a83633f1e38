//! Ports: numbers, addresses, MTU, types, devices that come late or are wrong.

use crate::harness::{run, run_ok, wait_until, Harness, Setup, Which};
use crate::lab::{ip, udp, Lab};
use std::process::Command;

fn get(h: &Harness, row: &str, column: &str) -> String {
    h.vsctl(&["get", "Interface", row, column]).trim().to_string()
}

fn bridge() -> Harness {
    let h = Setup::new(Which::Ours).in_thread().up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h
}

fn add(h: &Harness, port: &str, settings: &[&str]) {
    h.vsctl(&[&["add-port", "br0", port, "--", "set", "Interface", port], settings].concat());
}

fn link(device: &str) -> String {
    run(Command::new("ip").args(["-o", "link", "show", device])).out
}

#[test]
fn numbers() {
    let h = bridge();
    add(&h, "a", &["type=internal", "ofport_request=5"]);
    add(&h, "b", &["type=internal"]);
    add(&h, "c", &["type=internal", "ofport_request=5"]);
    add(&h, "d", &["type=internal", "ofport_request=65279"]);
    let all = |h: &Harness| ["a", "b", "c", "d"].map(|p| get(h, p, "ofport"));
    let [a, b, c, d] = all(&h);
    assert_eq!((a.as_str(), d.as_str()), ("5", "65279"));
    assert!(b != c && ![&b, &c].iter().any(|n| ["5", "65279", "-1"].contains(&n.as_str())), "{b} {c}");
    // Another number for a port that is there.
    h.vsctl(&["set", "Interface", "b", "ofport_request=40"]);
    assert_eq!(get(&h, "b", "ofport"), "40");
    let show = h.ofctl(&["show", "br0"]);
    assert!(show.contains(" 40(b): addr:") && !show.contains(&format!(" {b}(b)")), "{show}");
    // A number that comes free is not given to another at once.
    h.vsctl(&["del-port", "br0", "a"]);
    add(&h, "e", &["type=internal"]);
    assert_ne!(get(&h, "e", "ofport"), "5");
}

#[test]
fn addresses_and_mtu() {
    let h = bridge();
    add(&h, "i1", &["type=internal", "mac=\"02:00:00:00:aa:01\"", "mtu_request=1400"]);
    assert!(link("i1").contains("02:00:00:00:aa:01") && link("i1").contains("mtu 1400"), "{}", link("i1"));
    assert_eq!(
        (get(&h, "i1", "mac_in_use"), get(&h, "i1", "mtu")),
        ("\"02:00:00:00:aa:01\"".into(), "1400".into())
    );
    h.vsctl(&["set", "Interface", "i1", "mac=\"02:00:00:00:aa:02\"", "mtu_request=2000"]);
    assert!(link("i1").contains("02:00:00:00:aa:02") && link("i1").contains("mtu 2000"), "{}", link("i1"));
    assert_eq!(get(&h, "i1", "mtu"), "2000");
    assert!(h.ofctl(&["show", "br0"]).contains("addr:02:00:00:00:aa:02"));
    ip("link add p1 mtu 1600 type veth peer name q1");
    add(&h, "p1", &["mtu_request=1450"]);
    assert_eq!(get(&h, "p1", "mtu"), "1450");
    assert!(link("p1").contains("mtu 1450"), "{}", link("p1"));
    ip("link set p1 mtu 1300");
    wait_until("the MTU is as it is", || ["1300", "1450"].contains(&get(&h, "p1", "mtu").as_str()));
    h.vsctl(&["set", "Interface", "p1", "mtu_request=65535000"]);
    h.appctl(&["version"]);
}

/// A device that is not there yet is taken in when it comes; one that goes leaves the rest as it is.
#[test]
fn devices_come_and_go() {
    let mut lab = Lab::new(2);
    let h = &lab.h;
    h.vsctl(&["add-port", "br0", "late"]);
    assert_eq!(get(h, "late", "ofport"), "-1");
    assert_eq!(get(h, "late", "error"), "\"could not open network device late (No such device)\"");
    assert!(h.log().contains("could not open network device late (No such device)"));
    ip("link add late type veth peer name etal");
    wait_until("the device is taken in", || get(h, "late", "error") == "[]");
    assert_ne!(get(h, "late", "ofport"), "-1");
    ip("link del p2");
    lab.send(1, &udp(1, 9, 1, 1));
    wait_until("the loss shows", || {
        get(&lab.h, "p2", "link_state") != "up" || get(&lab.h, "p2", "error") != "[]"
    });
    lab.h.vsctl(&["del-port", "br0", "p2"]);
    lab.h.ofctl(&["dump-ports", "br0"]);
    lab.send(1, &udp(1, 9, 1, 1));
    assert!(lab.h.switch().is_running());
}

#[test]
fn wrong_settings_are_told() {
    let mut lab = Lab::new(2);
    let h = &lab.h;
    for (port, settings, error) in [
        (
            "odd",
            vec!["type=nonsense"],
            "could not open network device odd (Address family not supported by protocol)",
        ),
        ("none", vec![], "could not open network device none (No such device)"),
        ("pat", vec!["type=patch"], "peer"),
        ("self", vec!["type=patch", "options:peer=self"], "peer"),
        (
            "lone",
            vec!["type=patch", "options:peer=nobody"],
            "No usable peer 'nobody' exists in 'netdev' datapath.",
        ),
    ] {
        let mut words = vec!["add-port", "br0", port];
        if !settings.is_empty() {
            words.extend(["--", "set", "Interface", port]);
            words.extend(&settings);
        }
        h.vsctl(&words);
        let said = get(h, port, "error");
        assert!(said.contains(error), "{port}: {said}");
        if port != "lone" {
            assert_eq!(get(h, port, "ofport"), "-1", "{port}");
        }
    }
    lab.unharmed();
    // A row put right comes up.
    lab.h.vsctl(&["set", "Interface", "odd", "type=internal"]);
    assert_eq!(get(&lab.h, "odd", "error"), "[]");
    assert_ne!(get(&lab.h, "odd", "ofport"), "-1");
    lab.h.vsctl(&["set", "Interface", "odd", "type=tap"]);
    assert!(lab.h.appctl(&["dpif/show"]).contains("odd "));
}

/// A bridge of a datapath type that there is not leaves the others alone.
#[test]
fn bridges_that_cannot_be() {
    let mut lab = Lab::new(2);
    let _ = lab.h.try_vsctl(&[
        "--no-wait",
        "add-br",
        "brx",
        "--",
        "set",
        "Bridge",
        "brx",
        "datapath_type=nonsense",
    ]);
    lab.unharmed();
    lab.h.vsctl(&["add-br", "br2", "--", "set", "Bridge", "br2", "datapath_type=netdev"]);
    assert!(lab.h.path("br2.mgmt").exists() && !lab.h.path("brx.mgmt").exists());
    run_ok(Command::new("ip").args(["link", "show", "br2"]));
    assert!(lab.h.log().contains("brx"), "{}", lab.h.log());
    lab.unharmed();
}

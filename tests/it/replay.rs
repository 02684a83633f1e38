//! A file of known packets replayed by a DPDK port: every packet is accounted for, in every window.
//!
//! Needs neither NIC nor hugepages. Poll-mode threads keep a core busy, so these tests run one at a time.

use crate::harness::{wait_until, Harness, Setup, Which};
use crate::lab::{ip4, number_after, start, tcp, udp};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Keeps other tests with poll-mode threads away.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings with which DPDK starts without hugepages and devices.
pub fn dpdk() -> (MutexGuard<'static, ()>, Setup) {
    let guard = alone();
    let extra = format!(
        "other_config:dpdk-extra=\"--no-pci --no-huge -m 128 --no-shconf --file-prefix=it{}\"",
        std::process::id()
    );
    let setup = Setup::new(Which::Ours).vsctl(&[
        "set",
        "Open_vSwitch",
        ".",
        "other_config:dpdk-init=true",
        &extra,
        "other_config:pmd-cpu-mask=0x1",
    ]);
    (guard, setup)
}

/// Writes frames to a capture file; returns its path.
pub fn capture(h: &Harness, name: &str, frames: &[Vec<u8>]) -> String {
    let mut w = packet::pcap::Writer::new(Vec::new()).expect("capture file");
    for f in frames {
        w.write(Duration::ZERO, f).expect("capture file");
    }
    let path = h.path(name);
    File::create(&path).and_then(|mut f| f.write_all(&w.into_inner())).expect("capture file");
    path.display().to_string()
}

fn captured(path: &str) -> Vec<Vec<u8>> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let frames = packet::pcap::Reader::new(file).expect("capture file");
    frames.map(|f| f.expect("capture file").data).collect()
}

/// Adds a DPDK device to the bridge; it must work.
pub fn add_dpdk_port(h: &Harness, name: &str, number: u16, devargs: &str) {
    h.vsctl(&[
        "add-port",
        "br0",
        name,
        "--",
        "set",
        "Interface",
        name,
        "type=dpdk",
        &format!("ofport_request={number}"),
        &format!("options:dpdk-devargs=\"{devargs}\""),
    ]);
    assert_eq!(h.vsctl(&["get", "Interface", name, "error"]).trim(), "[]", "{}", h.log());
}

/// Receive or transmit packets and bytes of a port.
fn port(h: &Harness, number: u16, direction: &str) -> (u64, u64) {
    let said = h.ofctl(&["dump-ports", "br0", &number.to_string()]);
    let line = format!("{direction} pkts=");
    (number_after(&said, &line, "pkts"), number_after(&said, &line, "bytes"))
}

/// Drops by reason, of all reasons there are.
fn drops(h: &Harness) -> BTreeMap<String, u64> {
    let show = h.appctl(&["coverage/show"]);
    show.lines()
        .filter(|l| l.starts_with("datapath_drop_") || l.starts_with("drop_action_"))
        .map(|l| {
            let mut words = l.split_whitespace();
            let name = words.next().unwrap_or_default().to_string();
            (name, words.last().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{l}")))
        })
        .collect()
}

const ROUNDS: usize = 300;

/// What is replayed, and where the rules send it: to port 2, 3, 8 (not there) or nowhere.
fn traffic() -> Vec<(Vec<u8>, u16)> {
    let mut all = Vec::new();
    for i in 0..ROUNDS as u16 {
        all.push((udp(1, 2, i % 50, 1), 2));
        all.push((tcp(1, 3, i % 10, 80, 0x10), 3));
        // A rule drops it.
        all.push((udp(1, 2, i % 5, 2), 0));
        // No rule matches it.
        all.push((start(9, 8).ethertype(0x9999).payload(&[1; 46]).finish(), 0));
        // Its port is not there.
        all.push((udp(1, 2, i % 3, 8), 8));
        // Its headers end too early: the Ethernet header tells where it goes.
        all.push((start(1, 2).ipv4(ip4(1, 2)).tcp(1, 2, 2).finish()[..30].to_vec(), 2));
    }
    all
}

#[test]
fn every_packet_is_accounted_for() {
    let (_guard, setup) = dpdk();
    let h = setup.up();
    assert_eq!(h.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"]).trim(), "true");
    assert!(h.vsctl(&["get", "Open_vSwitch", ".", "dpdk_version"]).starts_with("\"DPDK 2"));
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    let out = h.path("out.pcap").display().to_string();
    add_dpdk_port(&h, "out", 2, &format!("net_pcap2,tx_pcap={out}"));
    add_dpdk_port(&h, "sink", 3, "net_null3,no-rx=1");
    for flow in [
        "priority=9,in_port=1,udp,tp_dst=1,actions=2",
        "priority=9,in_port=1,tcp,tp_dst=80,actions=3",
        "priority=9,in_port=1,udp,tp_dst=2,actions=drop",
        "priority=9,in_port=1,udp,tp_dst=8,actions=goto_table:7",
        "priority=1,in_port=1,dl_dst=02:00:00:00:00:02,actions=2",
        "table=7,actions=output:8",
    ] {
        h.ofctl(&["-O", "OpenFlow13", "add-flow", "br0", flow]);
    }
    let traffic = traffic();
    let frames: Vec<Vec<u8>> = traffic.iter().map(|(f, _)| f.clone()).collect();
    let of = |to: u16| frames_to(&traffic, to);
    let (total, bytes) = (frames.len() as u64, length(&frames));
    let n = ROUNDS as u64;

    add_dpdk_port(&h, "in", 1, &format!("net_pcap1,rx_pcap={}", capture(&h, "in.pcap", &frames)));
    wait_until("the file is replayed", || port(&h, 1, "rx").0 >= total);
    wait_until("the last packet is through", || {
        port(&h, 2, "tx").0 + port(&h, 3, "tx").0 + drops(&h).values().sum::<u64>() >= total
    });

    assert_eq!(port(&h, 1, "rx"), (total, bytes));
    assert_eq!(port(&h, 2, "tx"), (2 * n, length(&of(2))));
    // This device counts no bytes.
    assert_eq!(port(&h, 3, "tx").0, n);
    let drops = drops(&h);
    assert_eq!(drops.values().sum::<u64>(), 3 * n, "{drops:?}");
    let show = h.appctl(&["dpif-netdev/pmd-stats-show"]);
    assert_eq!(number_after(&show, "packets received", "received"), total, "{show}");
    let hits: u64 =
        ["simple match hits", "emc hits", "smc hits", "megaflow hits", "miss with success upcall"]
            .iter()
            .map(|k| show.lines().find(|l| l.trim().starts_with(k)).map_or(0, |l| number_after(l, k, k)))
            .sum();
    assert_eq!(hits, total, "{show}");

    let flows = h.ofctl(&["dump-flows", "br0"]);
    for (part, frame) in [
        ("tp_dst=1 ", of(2)[0].clone()),
        ("tcp,", of(3)[0].clone()),
        ("tp_dst=2 ", udp(1, 2, 0, 2)),
        ("tp_dst=8 ", of(8)[0].clone()),
        ("dl_dst=02:00:00:00:00:02", of(2)[1].clone()),
        ("table=7", of(8)[0].clone()),
    ] {
        assert_eq!(number_after(&flows, part, "n_packets"), n, "{part}\n{flows}");
        assert_eq!(number_after(&flows, part, "n_bytes"), n * frame.len() as u64, "{part}\n{flows}");
    }
    let tables = h.ofctl(&["-O", "OpenFlow13", "dump-tables", "br0"]);
    assert!(tables.contains(&format!("lookup={total}, matched={}\n", 5 * n)), "{tables}");
    assert!(tables.contains(&format!("lookup={n}, matched={n}\n")), "{tables}");
    let sum = h.ofctl(&["dump-aggregate", "br0"]);
    assert!(sum.contains(&format!("packet_count={} ", 6 * n)), "{sum}");

    // Removing a port closes its file; what is in it is what was to be sent, in order.
    h.vsctl(&["del-port", "br0", "out"]);
    assert_eq!(captured(&out), of(2));
    assert!(!h.log().contains("|ERR|"), "{}", h.log());
}

fn frames_to(traffic: &[(Vec<u8>, u16)], to: u16) -> Vec<Vec<u8>> {
    traffic.iter().filter(|(_, p)| *p == to).map(|(f, _)| f.clone()).collect()
}

fn length(frames: &[Vec<u8>]) -> u64 {
    frames.iter().map(|f| f.len() as u64).sum()
}

/// DPDK that cannot start: `try` goes on without, and says so on each port; `true` ends the daemon.
#[test]
fn dpdk_that_cannot_start() {
    let _guard = alone();
    let extra = "other_config:dpdk-extra=\"--no-pci --no-such-option\"";
    let set = |init: &str| {
        let init = format!("other_config:dpdk-init={init}");
        Setup::new(Which::Ours).vsctl(&["set", "Open_vSwitch", ".", &init, extra])
    };
    let h = set("try").in_thread().up();
    assert_eq!(h.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"]).trim(), "false");
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&[
        "add-port",
        "br0",
        "d1",
        "--",
        "set",
        "Interface",
        "d1",
        "type=dpdk",
        "options:dpdk-devargs=net_null1",
    ]);
    assert_eq!(h.vsctl(&["get", "Interface", "d1", "ofport"]).trim(), "-1");
    assert_ne!(h.vsctl(&["get", "Interface", "d1", "error"]).trim(), "[]");
    drop(h);

    let h = set("true").stopped().up();
    let output = crate::harness::run(h.command(Which::Ours.program()).args([
        "--unixctl=switch.ctl",
        "--log-file=switch.log",
        "-vconsole:off",
        "unix:db.sock",
    ]));
    assert_eq!(output.code, 1, "{}", output.err);
    assert!(output.err.contains("ovs-vswitchd: Cannot init EAL (Invalid argument)"), "{}", output.err);
    assert!(h.log().contains("|dpdk|EMER|Unable to initialize DPDK: Invalid argument"), "{}", h.log());
}

/// Devices that are not there, are taken or make no sense, beside ports that work.
#[test]
fn dpdk_ports_that_cannot_be() {
    let (_guard, setup) = dpdk();
    let h = setup.up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    add_dpdk_port(&h, "good", 1, "net_null1,no-rx=1");
    for (name, devargs, reason) in [
        ("unknown", "net_nothing7", "failed to parse device"),
        ("absent", "0000:7f:1f.7", "Cannot find device"),
        ("busy", "net_null1,no-rx=1", "which is already in use by 'good'"),
        ("nofile", "net_pcap4,rx_pcap=/nonexistent/file", "No such file or directory"),
        ("class", "class=eth,mac=02:11:22:33:44:55", "no port of a probed device has the address"),
        ("garbage", "%%%", "failed to parse device"),
    ] {
        let quoted = format!("'{devargs}'");
        let devargs = format!("options:dpdk-devargs=\"{devargs}\"");
        let said = h.vsctl(&["add-port", "br0", name, "--", "set", "Interface", name, "type=dpdk", &devargs]);
        assert_eq!(said, "");
        assert_eq!(h.vsctl(&["get", "Interface", name, "ofport"]).trim(), "-1", "{name}");
        let error = h.vsctl(&["get", "Interface", name, "error"]);
        assert!(error.contains(&quoted) && error.contains(reason), "{name}: {error}");
    }
    h.vsctl(&["add-port", "br0", "bare", "--", "set", "Interface", "bare", "type=dpdk"]);
    let error = h.vsctl(&["get", "Interface", "bare", "error"]);
    assert!(error.contains("dpdk-devargs"), "{error}");
    // The good one is as it was, and one that was wrong is righted by its row.
    assert_eq!(h.vsctl(&["get", "Interface", "good", "ofport"]).trim(), "1");
    h.vsctl(&["set", "Interface", "nofile", "options:dpdk-devargs=\"net_null4,no-rx=1\""]);
    assert_eq!(h.vsctl(&["get", "Interface", "nofile", "error"]).trim(), "[]");
    assert_ne!(h.vsctl(&["get", "Interface", "nofile", "ofport"]).trim(), "-1");
    // A device is free again once its port is gone.
    h.vsctl(&["del-port", "br0", "good", "--", "del-port", "br0", "busy"]);
    add_dpdk_port(&h, "again", 1, "net_null1,no-rx=1");
}

//! Poll-mode threads under load: fair to established flows, and without system calls.

use crate::harness::{run, wait_until, Harness};
use crate::lab::{mac, number_after, udp};
use crate::replay::{add_dpdk_port, capture, dpdk};
use packet::build::{Builder, Ip4};
use std::process::Command;
use std::time::Duration;

/// Thread id of the poll-mode thread of a core.
pub fn thread_of(h: &mut Harness, core: u32) -> String {
    let tasks = format!("/proc/{}/task", h.switch().pid());
    let wanted = format!("pmd-c{core:02}/");
    let name = |dir: &std::fs::DirEntry| std::fs::read_to_string(dir.path().join("comm")).unwrap_or_default();
    let all = std::fs::read_dir(&tasks).expect("threads").flatten();
    let pmd = all.filter(|t| name(t).starts_with(&wanted)).map(|t| t.file_name()).next();
    pmd.expect("a poll-mode thread").to_string_lossy().into_owned()
}

/// Nanoseconds that a thread was on its core.
pub fn thread_time(h: &mut Harness, thread: &str) -> f64 {
    let path = format!("/proc/{}/task/{thread}/schedstat", h.switch().pid());
    let times = std::fs::read_to_string(path).expect("schedstat");
    times.split_whitespace().next().and_then(|t| t.parse().ok()).expect("nanoseconds")
}

fn flows(h: &Harness) -> u64 {
    let show = h.control("dpctl/show", &[]).expect("dpctl/show");
    number_after(&show, "flows:", "flows:")
}

/// Packets received, and nanoseconds that the thread was on its core.
fn progress(h: &mut Harness, thread: &str) -> (f64, f64) {
    let show = h.control("dpif-netdev/pmd-stats-show", &[]).expect("pmd-stats-show");
    (number_after(&show, "packets received", "received") as f64, thread_time(h, thread))
}

/// Million packets in a second of the thread's time.
fn rate(h: &mut Harness, thread: &str) -> f64 {
    let (p0, t0) = progress(h, thread);
    std::thread::sleep(Duration::from_millis(300));
    let (p1, t1) = progress(h, thread);
    (p1 - p0) / (t1 - t0) * 1e3
}

/// The middle one.
pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// Port `flood` brings nothing but new flows as fast as it is polled, port `steady` one established flow as fast.
/// What `flood` receives is so little that it does not count.
#[test]
fn a_flood_of_new_flows_is_not_at_the_cost_of_others() {
    let (_guard, setup) = dpdk();
    let mut h = setup.up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    // So few megaflows that all but a few packets of the flood miss, now and later.
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-limit=1000"]);
    add_dpdk_port(&h, "sink", 3, "net_null3,no-rx=1");
    h.ofctl(&["add-flow", "br0", "in_port=2,actions=3"]);
    h.ofctl(&["add-flow", "br0", "in_port=1,actions=multipath(symmetric_l4,1,modulo_n,1,0,reg0[]),3"]);
    let one = vec![udp(1, 2, 1, 1); 512];
    let steady = format!("net_pcap2,rx_pcap={},infinite_rx=1", capture(&h, "steady.pcap", &one));
    let frame = |i: u16| {
        let [a, b] = i.to_be_bytes();
        Builder::eth(mac(2), mac(1))
            .ipv4(Ip4::new([10, 1, a, b], [10, 0, 0, 2]))
            .udp(i, 1)
            .pad_to(60)
            .finish()
    };
    let new: Vec<_> = (0..8_000).map(frame).collect();
    let flood = format!("net_pcap1,rx_pcap={},infinite_rx=1", capture(&h, "flood.pcap", &new));
    add_dpdk_port(&h, "steady", 2, &steady);
    wait_until("the flow is established", || flows(&h) == 1);
    let thread = thread_of(&mut h, 0);

    let (mut ratios, mut alone) = (Vec::new(), rate(&mut h, &thread));
    while ratios.len() < 9 {
        add_dpdk_port(&h, "flood", 1, &flood);
        wait_until("the flood is on", || flows(&h) > 500);
        let beside = rate(&mut h, &thread);
        let show = h.appctl(&["dpif-netdev/pmd-upcall-show"]);
        let line = show.lines().find(|l| l.contains("port: flood")).unwrap_or_else(|| panic!("{show}"));
        assert!(number_after(line, "upcalls:", "upcalls:") > 500, "new flows are still set up: {line}");
        assert!(number_after(line, "held back:", "back:") > 10, "{line}");
        h.vsctl(&["del-port", "br0", "flood"]);
        wait_until("the flood is over", || flows(&h) == 1);
        let after = rate(&mut h, &thread);
        ratios.push(beside * 2.0 / (alone + after));
        alone = after;
        if ratios.len() >= 3 && median(ratios.clone()) >= 0.9 {
            break;
        }
    }
    println!("the established flow keeps {ratios:.2?} of its rate of {alone:.2} Mpps");
    assert!(median(ratios.clone()) >= 0.9, "the established flow keeps {ratios:.2?} of its rate");

    // Without the bound it is another matter: the figures above mean something.
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:pmd-upcall-share=100"]);
    add_dpdk_port(&h, "flood", 1, &flood);
    wait_until("the flood is on", || flows(&h) > 500);
    let beside = rate(&mut h, &thread);
    assert!(beside / alone < 0.7, "{beside:.2} Mpps of {alone:.2} without a bound");
    assert!(!h.log().contains("|ERR|"), "{}", h.log());
}

/// In steady state a poll-mode thread makes no system call: five seconds under strace.
#[test]
fn a_thread_that_forwards_makes_no_system_calls() {
    let (_guard, setup) = dpdk();
    let mut h = setup.up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    add_dpdk_port(&h, "sink", 2, "net_null2,no-rx=1");
    for flow in [
        "priority=9,in_port=1,udp,tp_dst=1,actions=2",
        "priority=9,in_port=1,udp,tp_dst=2,actions=mod_nw_dst:10.9.9.9,dec_ttl,push_vlan:0x8100,set_field:4196->vlan_vid,2",
        "priority=9,in_port=1,udp,tp_dst=3,actions=drop",
        "priority=9,in_port=1,udp,tp_dst=4,nw_src=10.0.0.0/8,actions=resubmit(,5)",
        "table=5,actions=2",
    ] {
        h.ofctl(&["-O", "OpenFlow13", "add-flow", "br0", flow]);
    }
    let frames: Vec<_> = (0..2_000u16).map(|i| udp(1, 2, i, 1 + i % 4)).collect();
    let devargs = format!("net_pcap1,rx_pcap={},infinite_rx=1", capture(&h, "in.pcap", &frames));
    add_dpdk_port(&h, "in", 1, &devargs);
    wait_until("the flows are established", || flows(&h) >= 4);
    let thread = thread_of(&mut h, 0);
    let before = progress(&mut h, &thread).0;
    let strace = run(Command::new("timeout").args(["-s", "INT", "5", "strace", "-c", "-p", &thread]));
    let received = progress(&mut h, &thread).0 - before;
    if strace.err.contains("Operation not permitted") {
        println!("SKIPPED: this container does not permit ptrace: {}", strace.err.trim());
        return;
    }
    assert!(!strace.err.contains("No such file"), "strace is missing; run `make deps`: {}", strace.err);
    assert!(strace.err.contains("attached"), "{strace:?}");
    let calls: Vec<&str> = strace
        .err
        .lines()
        .filter(|l| l.split_whitespace().next().is_some_and(|w| w.parse::<f64>().is_ok()))
        .collect();
    assert!(calls.is_empty(), "{calls:#?}");
    assert!(received > 1e5, "{received} packets in five seconds");
    println!("{received} packets, no system call");
}

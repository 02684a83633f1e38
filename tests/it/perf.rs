//! Measurements of the whole daemon, beside the installed one where it matters; `make bench` runs them in release
//! mode (`cargo test --release --test it perf:: -- --ignored --nocapture --test-threads=1`).
//!
//! One poll-mode thread replays a capture from memory without end and sends to a device that takes everything. Rates
//! are packets per second of the thread's own time on its core, so that a busy machine disturbs them little. Needs
//! hugepages.

use crate::control::{honest, hostile};
use crate::harness::{run, Harness, Setup, Which};
use crate::lab::{mac, number_after};
use crate::poll_mode::{median, thread_of, thread_time};
use crate::replay::{add_dpdk_port, alone, capture};
use packet::build::{Builder, Ip4};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Ours, and the installed one if it is.
fn switches() -> Vec<Which> {
    let installed = std::path::Path::new(Which::InstalledDpdk.program()).exists();
    if !installed {
        println!("{} is not there to compare with", Which::InstalledDpdk.program());
    }
    [Which::Ours, Which::InstalledDpdk].into_iter().take(1 + usize::from(installed)).collect()
}

fn start(which: Which, cores: &str) -> Harness {
    let extra = format!("--no-pci --in-memory --file-prefix=perf{}", std::process::id());
    let h = Setup::new(which)
        .vsctl(&[
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            &format!("other_config:dpdk-extra=\"{extra}\""),
            &format!("other_config:pmd-cpu-mask={cores}"),
            // What was set up stays.
            "other_config:max-idle=600000",
        ])
        .up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    h.appctl(&["upcall/set-flow-limit", "200000"]);
    h
}

fn udp(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
    Builder::eth(mac(2), mac(1)).ipv4(Ip4::new(src, dst)).udp(sport, dport).pad_to(60).finish()
}

/// Frames of `n` microflows that go to `ports` ports from 2048 on.
fn traffic(n: u32, ports: u32) -> Vec<Vec<u8>> {
    // Scattered, so that neighbours have nothing in common.
    let scattered = (0..n).map(|i| (i * 7_919) % n);
    let frame = |i: u32| {
        let [_, a, b, c] = i.to_be_bytes();
        udp(
            [10, a, b, c],
            [11, 0, b, (i % 251) as u8],
            1_024 + (i % 60_000) as u16,
            2_048 + (i % ports) as u16,
        )
    };
    scattered.map(frame).collect()
}

fn forever(file: &str, device: u32) -> String {
    format!("net_pcap{device},rx_pcap={file},infinite_rx=1")
}

fn replaces(h: &Harness, devargs: &str) {
    h.vsctl(&["set", "Interface", "in", &format!("options:dpdk-devargs=\"{devargs}\"")]);
    assert_eq!(h.vsctl(&["get", "Interface", "in", "error"]).trim(), "[]", "{}", h.log());
}

/// Packets that OpenFlow port `port` has sent, and nanoseconds of the thread that sent them.
fn sent(h: &mut Harness, thread: &str, port: &str) -> (f64, f64) {
    let said = h.ofctl(&["-O", "OpenFlow13", "dump-ports", "br0", port]);
    (number_after(&said, "tx pkts=", "pkts") as f64, thread_time(h, thread))
}

/// Million packets a second of the thread's time, over `ms`.
fn rate(h: &mut Harness, thread: &str, port: &str, ms: u64) -> f64 {
    let (p0, t0) = sent(h, thread, port);
    std::thread::sleep(Duration::from_millis(ms));
    let (p1, t1) = sent(h, thread, port);
    (p1 - p0) / (t1 - t0) * 1e3
}

fn flows(h: &Harness) -> u64 {
    number_after(&h.appctl(&["dpctl/show"]), "flows:", "flows:")
}

fn table(heading: &str, columns: &str) {
    println!("\n{heading}\n\n{columns}\n|{}", "---|".repeat(columns.matches('|').count() - 1));
}

/// Two poll-mode threads with a replay each: what the second takes from the first.
#[test]
#[ignore = "a measurement"]
fn two_poll_mode_threads() {
    let _guard = alone();
    let mut h = start(Which::Ours, "0x3");
    for (n, name) in [(3u16, "s0"), (4, "s1")] {
        add_dpdk_port(&h, name, n, &format!("net_null{n},no-rx=1"));
    }
    h.ofctl(&["add-flow", "br0", "in_port=1,ip,nw_dst=11.0.0.0/8,actions=3"]);
    h.ofctl(&["add-flow", "br0", "in_port=2,ip,nw_dst=11.0.0.0/8,actions=4"]);
    let file = capture(&h, "traffic.pcap", &traffic(1_000, 20));
    let add = |h: &Harness, core: u16| {
        let name = format!("in{core}");
        add_dpdk_port(h, &name, core + 1, &forever(&file, core.into()));
        let affinity = format!("other_config:pmd-rxq-affinity=\"0:{core}\"");
        h.vsctl(&["set", "Interface", &name, &affinity]);
        std::thread::sleep(Duration::from_millis(500));
    };
    table("Two poll-mode threads, 1,000 flows each, Mpps", "| core | alone | together | ratio |");
    let mut ratios: [Vec<f64>; 2] = Default::default();
    for _ in 0..3 {
        let mut alone = [0.0; 2];
        for core in [0, 1] {
            add(&h, core);
            let thread = thread_of(&mut h, core.into());
            alone[usize::from(core)] = rate(&mut h, &thread, ["3", "4"][usize::from(core)], 1_500);
            h.vsctl(&["del-port", &format!("in{core}")]);
        }
        (0..2).for_each(|core| add(&h, core));
        for core in 0..2 {
            let thread = thread_of(&mut h, core as u32);
            let together = rate(&mut h, &thread, ["3", "4"][core], 1_500);
            println!("| {core} | {:.1} | {together:.1} | {:.2} |", alone[core], together / alone[core]);
            ratios[core].push(together / alone[core]);
        }
        (0..2).for_each(|core| drop(h.vsctl(&["del-port", &format!("in{core}")])));
    }
    let [a, b] = ratios.map(median);
    println!("| median | | | {a:.2}, {b:.2} |");
    assert!(a >= 0.9 && b >= 0.9, "each thread keeps at least 90 % of what it does alone: {a:.2}, {b:.2}");
}

/// Rules with `k` shapes of matches, so that there are as many masks.
fn shapes(k: u32) -> String {
    let rule = |m: u32| {
        let (priority, port, bits) = (100 + m, 2_048 + m, 9 + m % 16);
        format!("priority={priority},udp,tp_dst={port},nw_dst=11.0.0.0/{bits},actions=2\n")
    };
    (0..k).map(rule).chain(["priority=1,actions=2\n".to_string()]).collect()
}

#[test]
#[ignore = "a measurement"]
fn many_masks() {
    let _guard = alone();
    table(
        "100,000 flows over so many rule shapes, Mpps",
        "| switch | shapes | megaflows | rate | of the rate at 20 |",
    );
    let mut kept = [0.0; 2];
    for (i, which) in switches().into_iter().enumerate() {
        let mut h = start(which, "0x2");
        add_dpdk_port(&h, "sink", 2, "net_null2,no-rx=1");
        let mut at_20 = f64::NAN;
        for k in [1, 20, 100, 1_000] {
            h.ofctl(&["del-flows", "br0"]);
            let added = h.ofctl_stdin(&["add-flows", "br0", "-"], &shapes(k));
            assert_eq!(added.code, 0, "{}", added.err);
            let file = capture(&h, &format!("t{k}.pcap"), &traffic(100_000, k));
            add_dpdk_port(&h, "in", 1, &forever(&file, 1));
            std::thread::sleep(Duration::from_secs(3));
            let (thread, n) = (thread_of(&mut h, 1), flows(&h));
            let mpps = rate(&mut h, &thread, "2", 2_000);
            at_20 = if k == 20 { mpps } else { at_20 };
            kept[i] = mpps / at_20;
            println!("| {which:?} | {k} | {n} | {mpps:.2} | {:.2} |", kept[i]);
            h.vsctl(&["del-port", "br0", "in"]);
        }
    }
    assert!(kept[0] >= 0.4, "at 1,000 shapes {:.2} of the rate at 20 is left", kept[0]);
}

/// Packets of which each differs from what the rules allow in another bit of each field: every one makes a mask.
fn explosion() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for a in 0..32 {
        for b in 0..16 {
            for c in [0, 3, 7, 11, 15] {
                let src = (0x0a63_6363u32 ^ 1 << a).to_be_bytes();
                all.push(udp(src, [11, 0, 0, 1], 12_345 ^ 1 << c, 80 ^ 1 << b));
            }
        }
    }
    all
}

/// Tuple space explosion (CVE-2019-25076): packets that nobody allowed, arriving where the victim's arrive, make
/// thousands of masks, which every packet of the victim then has to be compared with. A thousand a second keep
/// them alive. The masks are made by a flood; nothing expires meanwhile.
#[test]
#[ignore = "a measurement"]
fn tuple_space_explosion() {
    let _guard = alone();
    table(
        "Tuple space explosion, 100,000 flows of the victim, Mpps",
        "| switch | attack | its megaflows | without | under attack | lost |",
    );
    let mut lost = [0.0; 2];
    for (i, which) in switches().into_iter().enumerate() {
        let mut h = start(which, "0x2");
        add_dpdk_port(&h, "sink", 2, "net_null2,no-rx=1");
        let acl =
            "priority=30,udp,nw_dst=11.0.0.0/16,tp_dst=2048,actions=2\npriority=20,udp,tp_dst=80,actions=2\n\
                   priority=10,ip,nw_src=10.99.99.99,actions=2\npriority=5,udp,tp_src=12345,actions=2\n\
                   priority=1,actions=drop\n";
        let added = h.ofctl_stdin(&["add-flows", "br0", "-"], acl);
        assert_eq!(added.code, 0, "{}", added.err);
        let attack = explosion();
        let victim = traffic(100_000, 1);
        let calm = capture(&h, "calm.pcap", &victim);
        add_dpdk_port(&h, "in", 1, &forever(&calm, 1));
        std::thread::sleep(Duration::from_secs(2));
        let thread = thread_of(&mut h, 1);
        let before = rate(&mut h, &thread, "2", 2_000);
        let quiet = flows(&h);
        // First one packet in forty, then four in a hundred thousand: about a thousand a second.
        for (step, device, what) in [(1, 6, "flood"), (640, 7, "thousand a second")] {
            let mut mixed: Vec<_> = victim.iter().chain(attack.iter().step_by(step)).cloned().collect();
            let scatter =
                |f: &Vec<u8>| f.iter().fold(0u32, |h, b| h.wrapping_mul(31).wrapping_add((*b).into()));
            mixed.sort_by_cached_key(scatter);
            replaces(&h, &forever(&capture(&h, "mixed.pcap", &mixed), device));
            std::thread::sleep(Duration::from_secs(4));
            let thread = thread_of(&mut h, 1);
            let after = rate(&mut h, &thread, "2", 2_000);
            lost[i] = 1.0 - after / before;
            let made = flows(&h).saturating_sub(quiet);
            println!("| {which:?} | {what} | {made} | {before:.2} | {after:.2} | {:.0} % |", lost[i] * 100.0);
        }
    }
    assert!(lost[0] <= 0.2, "the attack takes {:.2} from the victim", lost[0]);
}

/// Clients of one crowd, and threads that they come from.
const CLIENTS: usize = 1_000;
const SOURCES: usize = 20;

/// Has crowds of control clients come, every other client hostile, until `over`; counts the honest ones that were not
/// answered, and those that were. All of it happens on core 0.
fn crowds(path: &Path, over: &AtomicBool, honest_ones: &[AtomicUsize; 2]) {
    let barrier = std::sync::Barrier::new(SOURCES);
    std::thread::scope(|scope| {
        for source in 0..SOURCES {
            let barrier = &barrier;
            scope.spawn(move || {
                infra::cpu::pin(infra::cpu::CoreId(0)).expect("core 0");
                loop {
                    // All come at once, or none any more.
                    barrier.wait();
                    let last = over.load(Ordering::Acquire);
                    barrier.wait();
                    if last {
                        return;
                    }
                    let mut held = Vec::new();
                    for i in 0..CLIENTS / SOURCES {
                        if i % 2 == 0 {
                            held.push(hostile(path, source + i / 2));
                        } else {
                            honest_ones[usize::from(honest(path))].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
}

/// Packets that poll-mode threads have received, and when.
fn forwarded(h: &Harness) -> (f64, Instant) {
    loop {
        // One of a thousand may have to ask again.
        if let Ok(show) = h.control("dpif-netdev/pmd-stats-show", &[]) {
            return (number_after(&show, "packets received", "received") as f64, Instant::now());
        }
    }
}

/// Million packets in a second of everybody's time.
fn forwarding_rate(h: &Harness) -> f64 {
    let (p0, t0) = forwarded(h);
    std::thread::sleep(Duration::from_secs(2));
    let (p1, t1) = forwarded(h);
    (p1 - p0) / (t1 - t0).as_secs_f64() / 1e6
}

/// A thousand control clients at once, half of them hostile, again and again, beside a replay: the poll-mode thread has
/// core 1 for itself, the clients and the main thread share core 0.
#[test]
#[ignore = "a measurement"]
fn a_thousand_control_clients() {
    let _guard = alone();
    infra::process::raise_file_limit(8_192);
    let mut h = start(Which::Ours, "0x2");
    add_dpdk_port(&h, "sink", 2, "net_null2,no-rx=1");
    h.ofctl(&["add-flow", "br0", "in_port=1,ip,nw_dst=11.0.0.0/8,actions=2"]);
    add_dpdk_port(&h, "in", 1, &forever(&capture(&h, "traffic.pcap", &traffic(1_000, 20)), 1));
    let main = h.switch().pid().to_string();
    assert_eq!(run(Command::new("taskset").args(["-p", "1", &main])).code, 0);
    std::thread::sleep(Duration::from_secs(1));
    table(
        "A thousand control clients at once, half of them hostile, 1,000 flows, Mpps",
        "| round | without | with | change | honest clients answered |",
    );
    let path = h.path("switch.ctl");
    let mut changes = Vec::new();
    for round in 1..=5 {
        let before = forwarding_rate(&h);
        let (over, honest_ones) = (AtomicBool::new(false), Default::default());
        let with = std::thread::scope(|scope| {
            scope.spawn(|| crowds(&path, &over, &honest_ones));
            std::thread::sleep(Duration::from_millis(200));
            let with = forwarding_rate(&h);
            over.store(true, Ordering::Release);
            with
        });
        let without = (before + forwarding_rate(&h)) / 2.0;
        let change = (with / without - 1.0) * 100.0;
        let [lost, n] = honest_ones.map(AtomicUsize::into_inner);
        println!("| {round} | {without:.2} | {with:.2} | {change:+.1} % | {n} |");
        assert!(lost == 0 && n >= CLIENTS / 2, "{n} honest clients were answered, {lost} were not");
        changes.push(change);
    }
    let change = median(changes);
    println!("| median | | | {change:+.1} % | |");
    assert!(change.abs() <= 5.0, "the forwarding rate changes by {change:+.1} %");
}

//! Scheduling seen from outside: queues move under traffic, balancing by cycles that the tests make up.

use super::tests::{in_port_mask, out, rig_with, Rig, Table};
use super::*;
use crate::api::{AutoLb, PortConfig, RxqAssign, TxSteering};
use crate::testpkt;
use infra::cpu::{CoreId, Topology};
use netdev::mem::MemPort;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Four ports on node 0 and its two cores.
fn four() -> Rig {
    let ports = (1..=4).map(|i| MemPort::builder(&format!("p{i}")).numa(0).build()).collect();
    let r = rig_with(ports);
    r.dp.set_config(config()).unwrap();
    r
}

fn config() -> DpConfig {
    let pmd_cores = Some([CoreId(0), CoreId(1)].into());
    DpConfig { pmd_cores, auto_lb: AutoLb { enabled: true, ..AutoLb::default() }, ..DpConfig::default() }
}

/// The core of each queue, by port and queue.
fn cores(r: &Rig) -> Vec<u32> {
    let pmds = r.dp.pmd_rxqs();
    let mut all: Vec<(DpPort, usize, u32)> =
        pmds.iter().flat_map(|p| p.rxqs.iter().map(|q| (q.no, q.queue, p.pmd.0))).collect();
    all.sort();
    all.into_iter().map(|q| q.2).collect()
}

/// Makes up a minute in which the queues had these percentages of a core.
fn minute(r: &Rig, loads: &[u64]) {
    let percent = infra::clock::tsc_hz() / 100 * crate::stats::INTERVAL_MS / 1_000;
    let control = r.dp.control.lock();
    for _ in 0..INTERVALS {
        for t in &control.threads {
            let of = |(p, load): (&crate::control::Port, &u64)| {
                if p.rxqs[0].pmd == Some(t.id) {
                    *load
                } else {
                    0
                }
            };
            t.history.push(control.ports.values().zip(loads).map(of).sum::<u64>() * percent);
        }
        for (p, load) in control.ports.values().zip(loads) {
            p.rxqs[0].history.push(load * percent);
        }
    }
    drop(control);
    r.now.fetch_add(60_000, Ordering::Relaxed);
}

#[test]
fn overloaded_threads_are_relieved() {
    let r = four();
    r.dp.run();
    assert_eq!(cores(&r), [0, 1, 1, 0]);
    minute(&r, &[48, 0, 0, 40]);
    r.dp.run();
    assert_eq!(cores(&r), [0, 1, 1, 0], "88 % is no overload");
    minute(&r, &[58, 0, 0, 40]);
    r.dp.run();
    assert_eq!(cores(&r), [0, 1, 0, 1], "the two busy ones are apart");
    minute(&r, &[99, 0, 0, 99]);
    r.dp.run();
    assert_eq!(cores(&r), [0, 1, 0, 1], "nothing to gain");
}

#[test]
fn balancing_has_its_conditions() {
    let stays = |c: DpConfig, affinity: &[(u32, u32)]| {
        let r = four();
        r.dp.set_config(DpConfig { rxq_assign: RxqAssign::Cycles, ..c.clone() }).unwrap();
        for (port, core) in affinity {
            let affinity = [(0, CoreId(*core))].into();
            r.dp.set_port_config(DpPort(*port), PortConfig { affinity, ..PortConfig::default() }).unwrap();
        }
        r.dp.set_config(c).unwrap();
        r.dp.run();
        let before = cores(&r);
        let loads: Vec<u64> =
            before.iter().zip([58, 3, 2, 40]).map(|(c, l)| if *c == before[0] { l } else { 1 }).collect();
        minute(&r, &loads);
        r.dp.run();
        before == cores(&r)
    };
    assert!(!stays(config(), &[]));
    let lb = config().auto_lb;
    assert!(stays(DpConfig { auto_lb: AutoLb { enabled: false, ..lb }, ..config() }, &[]));
    assert!(stays(DpConfig { auto_lb: AutoLb { interval_min: 2, ..lb }, ..config() }, &[]));
    assert!(stays(DpConfig { auto_lb: AutoLb { load_threshold: 100, ..lb }, ..config() }, &[]));
    assert!(stays(DpConfig { rxq_assign: RxqAssign::RoundRobin, ..config() }, &[]));
    assert!(stays(config(), &[(1, 0)]), "one core left for all");
}

#[test]
fn pinned_queues_and_those_nobody_polls() {
    let r = four();
    let pin = |port: u32, core: u32| {
        let affinity = [(0, CoreId(core))].into();
        r.dp.set_port_config(DpPort(port), PortConfig { affinity, ..PortConfig::default() }).unwrap();
    };
    pin(3, 0);
    assert_eq!(cores(&r), [1, 1, 0, 1]);
    assert!(r.dp.pmd_rxqs()[0].isolated && !r.dp.pmd_rxqs()[1].isolated);
    pin(4, 1);
    assert_eq!(cores(&r), [0, 1], "ports 1 and 2 are not polled");
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.ports[1].tx_pending(), 0);
    r.dp.set_config(DpConfig { rxq_assign: RxqAssign::Group, rxq_isolate: false, ..config() }).unwrap();
    assert_eq!(cores(&r), [0, 1, 0, 1]);
    r.dp.step();
    assert_eq!(r.ports[1].tx_pending(), 1, "it waited");
    r.dp.del_port(DpPort(1));
    assert!(r.ports[0].rx_queue(0).is_ok());
    r.assert_accounted();
}

#[test]
fn a_thread_with_little_to_do_sleeps() {
    let r = four();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    let slept = || r.stat(|s| s.sleep_iterations);
    r.dp.step();
    assert_eq!(slept(), 0);
    r.dp.set_config(DpConfig { max_sleep_us: 50, core_sleep_us: [(CoreId(1), 0)].into(), ..config() })
        .unwrap();
    let sleeps = crate::show::pmd_sleeps(&[&r.dp], &[]).unwrap();
    assert_eq!(
        sleeps,
        "Default max sleep:   50 us\npmd thread numa_id 0 core_id 0:\n  max sleep:   50 us\npmd thread numa_id 0 core_id 1:\n  \
         max sleep:    0 us\n"
    );
    r.dp.step();
    assert_eq!(slept(), 1, "core 0 only");
    (0..16).for_each(|i| r.ports[0].push(0, &testpkt::udp4(i, 60)));
    r.dp.step();
    assert_eq!((slept(), r.ports[1].tx_pending()), (1, 16));
}

#[test]
fn rounds_are_recorded_on_demand() {
    let r = four();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    let show = || crate::show::pmd_perf(&[&r.dp], &["-it", "3", "-pmd", "0"], "T").unwrap();
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert!(!show().contains("Histograms"));
    r.dp.set_config(DpConfig { perf_metrics: true, ..config() }).unwrap();
    for _ in 0..5 {
        (0..8).for_each(|i| r.ports[0].push(0, &testpkt::udp4(i, 60)));
        r.dp.step();
    }
    let text = show();
    assert!(text.contains("\nHistograms\n   cycles/it              packets/it "), "{text}");
    // Rounds with 8 packets in a batch of 8.
    assert!(text.contains(" 8         5            "), "{text}");
    assert_eq!(text.split("   iter     ").nth(1).map(|t| t.lines().count()), Some(4));
    r.dp.clear_stats(None);
    r.dp.step();
    assert!(!show().contains(" 8         5            "));
}

#[test]
fn packets_are_steered_by_hash() {
    let p2 = MemPort::builder("p2").max_txqs(3).build();
    let r = rig_with(vec![MemPort::builder("p1").rxqs(3).build(), p2]);
    r.dp.set_port_config(DpPort(2), PortConfig { steering: TxSteering::Hash, ..PortConfig::default() })
        .unwrap();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    for i in 0..96 {
        r.ports[0].push(i % 3, &testpkt::udp4(i as u32 % 24, 60));
    }
    while r.dp.step() > 0 {}
    let queues = (0..3).map(|q| r.ports[1].take_queue(q)).collect::<Vec<_>>();
    assert_eq!(queues.iter().map(Vec::len).sum::<usize>(), 96);
    assert!(queues.iter().filter(|q| !q.is_empty()).count() > 1);
    for (i, q) in queues.iter().enumerate() {
        for frame in q {
            let elsewhere = queues.iter().enumerate().any(|(j, o)| j != i && o.contains(frame));
            assert!(!elsewhere, "a flow keeps to its queue");
        }
    }
    r.assert_accounted();
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Packets go from port 1 to port 2 through threads that run, while `change` is called so many times. Each must come out.
fn under_traffic(ports: &[Arc<MemPort>; 2], cores: u32, times: u32, change: impl Fn(&Datapath, u32)) {
    let table = Arc::new(Table::default());
    table.set(1, 0, &[out(2)], in_port_mask());
    let topology = Topology::from_cores((0..2).map(|c| (CoreId(c), NumaId(0))).collect());
    let options = DpOptions { topology, seed: 1, ..DpOptions::default() };
    let dp = Datapath::new("ovs-netdev", table, options).unwrap();
    let pmd_cores = Some((0..cores).map(CoreId).collect());
    dp.set_config(DpConfig { pmd_cores, ..DpConfig::default() }).unwrap();
    for p in ports {
        dp.add_port(Arc::clone(p) as Arc<dyn Netdev>, None).unwrap();
    }
    let over = AtomicBool::new(false);
    let (pushed, mut came) = std::thread::scope(|s| {
        let traffic = s.spawn(|| {
            let (mut pushed, mut came) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                // Less under way than any ring holds.
                if pushed < came + ports[1].tx_pending() + 1_000 {
                    ports[0].push(0, &testpkt::udp4(pushed as u32 % 50, 60));
                    pushed += 1;
                }
                if ports[1].tx_pending() > 500 {
                    came += ports[1].take().len();
                }
            }
            (pushed, came)
        });
        for i in 0..times {
            let before = dp.total_stats().received;
            wait_until("packets flow", || dp.total_stats().received > before + 1_000);
            change(&dp, i);
        }
        over.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    wait_until("all are received", || dp.total_stats().received == pushed as u64);
    assert_eq!(dp.total_stats().drops, PmdStats::default().drops);
    wait_until("all came out", || {
        came += ports[1].take().len();
        came == pushed
    });
}

#[test]
fn no_packet_is_lost_when_steering_changes_under_traffic() {
    // As many queues as threads; and fewer.
    for (queues, cores) in [(8, 1), (2, 2)] {
        let p2 = MemPort::builder("p2").max_txqs(queues).build();
        under_traffic(&[MemPort::new("p1"), p2], cores, 40, |dp, i| {
            let steering = if i % 2 == 0 { TxSteering::Hash } else { TxSteering::Thread };
            dp.set_port_config(DpPort(2), PortConfig { steering, ..PortConfig::default() }).unwrap();
        });
    }
}

#[test]
fn no_packet_is_lost_when_threads_change_under_traffic() {
    for is_pmd in [true, false] {
        // A port that is none of PMDs is sent to by the io thread.
        let p2 = MemPort::builder("p2").pmd(is_pmd).build();
        under_traffic(&[MemPort::new("p1"), p2], 1, 20, |dp, i| {
            let cores: &[u32] = [&[0, 1][..], &[1], &[0]][i as usize % 3];
            let pmd_cores = Some(cores.iter().copied().map(CoreId).collect());
            dp.set_config(DpConfig { pmd_cores, ..DpConfig::default() }).unwrap();
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Queues may move, their number may change: what was received is sent.
    #[test]
    fn no_packet_is_lost_when_queues_move(
        steps in prop::collection::vec((0u8..8, 0u32..16), 1..40),
    ) {
        let p1 = MemPort::builder("p1").rxqs(4).numa(0).build();
        let r = rig_with(vec![p1, MemPort::builder("p2").max_txqs(2).build()]);
        r.table.set(1, 0, &[out(2)], in_port_mask());
        let (mut sent, mut queues) = (0u32, 4);
        let mut c = DpConfig { tx_flush_interval_us: 1_000_000, ..DpConfig::default() };
        for (what, n) in steps {
            for _ in 0..5 {
                r.ports[0].push(0, &testpkt::udp4(sent, 60));
                sent += 1;
            }
            match what {
                0 => c.rxq_assign = [RxqAssign::Cycles, RxqAssign::RoundRobin, RxqAssign::Group][n as usize % 3],
                1 => c.rxq_isolate = n % 2 == 0,
                2 => c.pmd_cores = Some((0..4).filter(|i| n >> i & 1 != 0).map(CoreId).collect()),
                3 | 4 => {
                    let affinity = [(0, CoreId(n % 5)), (1, CoreId(n / 4))].into();
                    let steering = if what == 3 { TxSteering::Hash } else { TxSteering::Thread };
                    let no = DpPort(if n % 3 == 0 { 2 } else { 1 });
                    r.dp.set_port_config(no, PortConfig { affinity, steering }).unwrap();
                }
                5 => {
                    queues = n as usize % 4 + 1;
                    let options = [("n_rxq".to_owned(), queues.to_string())].into();
                    if r.ports[0].set_config(&netdev::Config { options, ..Default::default() }).unwrap() {
                        r.dp.port_changed(DpPort(1)).unwrap();
                    }
                }
                6 => r.dp.rebalance(),
                _ => {}
            }
            r.dp.set_config(c.clone()).unwrap();
            for _ in 0..n % 4 {
                r.dp.step();
            }
        }
        c = DpConfig::default();
        r.dp.set_port_config(DpPort(1), PortConfig::default()).unwrap();
        r.dp.set_config(c).unwrap();
        while r.dp.step() > 0 {}
        r.dp.step();
        let want: Vec<_> = (0..sent).map(|i| testpkt::udp4(i, 60)).collect();
        let mut got = r.ports[1].take();
        got.sort();
        let mut sorted = want;
        sorted.sort();
        prop_assert_eq!(got, sorted);
        prop_assert!(queues <= 4);
        r.assert_accounted();
    }
}

//! Revalidator threads beside a poll-mode thread with traffic: their number changes, they pause, purge and stop, and no
//! packet and no count is lost.

#[path = "common/world.rs"]
mod world;

use datapath::{Datapath, DpConfig, DpOptions};
use flow::{DpPort, Field, Match, OfPort, SubField};
use infra::Published;
use netdev::mem::MemPort;
use ofproto::slowpath::SlowPath;
use ofproto::{MacLearning, Rule, Snapshot, Tables, World};
use openflow::Action;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A rule whose flows are narrow.
fn rule(to: u16) -> Arc<Rule> {
    let reg = SubField { field: Field::Reg(0), ofs: 0, n_bits: 13 };
    let hash = Action::Multipath { fields: 1, basis: 1024, algorithm: 0, max_link: 0, arg: 0, dst: reg };
    world::rule(1, &Match::any(), vec![hash, Action::Output { port: OfPort(to), max_len: 0 }])
}

fn frame(i: u32) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    f.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
    f.extend(i.to_be_bytes());
    f.extend([11, 0, 0, 1]);
    f.extend([0; 26]);
    f
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

fn threads(handlers: usize, revalidators: usize) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("n-handler-threads".to_string(), handlers.to_string()),
        ("n-revalidator-threads".to_string(), revalidators.to_string()),
        // On a slow machine flows shall not leave of themselves.
        ("max-idle".to_string(), "600000".to_string()),
        ("min-revalidate-pps".to_string(), "0".to_string()),
    ])
}

fn packets(rules: &[Arc<Rule>]) -> u64 {
    rules.iter().map(|r| r.stats.packets.load(Ordering::Relaxed)).sum()
}

struct Bench {
    world: Arc<World>,
    tables: Published<Tables>,
    slow: Arc<SlowPath>,
    dp: Arc<Datapath>,
    ports: Vec<Arc<MemPort>>,
    rules: [Arc<Rule>; 2],
}

impl Bench {
    fn new() -> Bench {
        let world = Arc::new(World::new());
        let tables = Published::new(Tables::default());
        let macs = Arc::new(MacLearning::new());
        world.publish(Snapshot::new([world::bridge(tables.clone(), macs, &[1, 2, 3])]));
        let slow = SlowPath::new(world.clone());
        let dp = Datapath::new("ovs-netdev", slow.upcall(), DpOptions::default()).expect("a datapath");
        dp.set_config(DpConfig { upcall_share: 100, ..DpConfig::default() }).expect("a configuration");
        slow.start(dp.clone()).expect("threads");
        let port = |n: u32| {
            let port = MemPort::builder(&format!("p{n}")).pmd(true).build();
            dp.add_port(port.clone(), Some(DpPort(n))).expect("a port");
            port
        };
        let ports = (1..=3).map(port).collect();
        let b = Bench { world, tables, slow, dp, ports, rules: [rule(2), rule(3)] };
        b.choose(0);
        b
    }

    /// Makes one of the rules the only one.
    fn choose(&self, which: usize) {
        let mut t = Tables::default();
        t.table_mut(0).classifier.insert(self.rules[which].clone());
        self.tables.store(t);
        self.world.bump();
    }

    fn out(&self) -> u64 {
        self.ports[1..].iter().map(|p| p.take().len() as u64).sum()
    }
}

#[test]
fn nothing_is_lost_whatever_threads_do() {
    let b = Bench::new();
    let (mut sent, mut came) = (0u64, 0u64);
    for step in 0..120u32 {
        for i in 0..400 {
            b.ports[0].push(0, &frame(i * (1 + step % 3)));
        }
        sent += 400;
        match step % 8 {
            0 => b.slow.configure(&threads(1 + step as usize % 2, 1 + step as usize % 5)),
            1 => b.choose(step as usize / 8 % 2),
            2 => b.slow.pause(true),
            3 => drop(b.slow.purge()),
            4 => b.slow.pause(false),
            5 => b.world.bump(),
            6 => b.slow.push_stats(),
            _ => b.slow.wait_for(b.slow.ask_sweep()),
        }
        came += b.out();
        wait_until("packets are taken", || b.ports[0].rx_pending() < 4_000);
    }
    wait_until("all came out", || {
        came += b.out();
        came == sent
    });
    b.slow.push_stats();
    assert_eq!(packets(&b.rules), sent, "at once, with whatever is under way elsewhere");
    b.slow.wait_for(b.slow.purge());
    wait_until("no flow is left", || b.slow.flows().is_empty() && b.dp.flow_count() == 0);
    assert_eq!(packets(&b.rules), sent);
    b.slow.stop();
    assert_eq!(b.slow.memory().iter().find(|(n, _)| n == "udpif keys").map(|(_, n)| *n), Some(0));
}

#[test]
fn counts_are_there_when_the_packet_is() {
    let b = Bench::new();
    for i in 0..300u64 {
        // Some meet a flow, some make one; statistics are asked for once the packet is seen, and again for nothing.
        b.ports[0].push(0, &frame(i as u32 % 7));
        wait_until("it came out", || b.out() == 1);
        b.slow.push_stats();
        assert_eq!(packets(&b.rules), i + 1);
        b.slow.push_stats();
    }
    b.slow.stop();
}

#[test]
fn threads_come_and_go_while_flows_are_many() {
    let b = Bench::new();
    // Fewer flows than the least limit that slow sweeps bring about.
    b.slow.configure(&threads(1, 4));
    // Behind the purge that comes with new threads.
    b.slow.wait_for(b.slow.ask_sweep());
    for i in 0..900 {
        b.ports[0].push(0, &frame(i));
    }
    wait_until("all have flows", || b.slow.flows().len() == 900);
    let show = b.slow.show();
    let keys: Vec<usize> = show
        .lines()
        .filter_map(|l| l.trim().split_once(": (keys ")?.1.strip_suffix(')')?.parse().ok())
        .collect();
    assert_eq!((keys.len(), keys.iter().sum::<usize>()), (4, 900), "{show}");
    assert!(keys.iter().all(|k| *k > 130), "shares are alike: {show}");
    for n in [2, 7, 1] {
        b.choose(n % 2);
        // Stops a sweep that is under way.
        b.slow.configure(&threads(1, n));
        assert!(b.slow.memory().contains(&("revalidators".to_string(), n)));
        wait_until("the new threads begin with an empty table", || {
            b.slow.flows().is_empty() && b.dp.flow_count() == 0
        });
        for i in 0..800 {
            b.ports[0].push(0, &frame(i));
        }
        wait_until("there are flows again", || b.slow.flows().len() == 800);
    }
    b.slow.stop();
    assert!(b.slow.show().contains("(keys "), "listings go on: {}", b.slow.show());
}

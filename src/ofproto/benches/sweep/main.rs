//! Memory of megaflows with their ukeys, time of sweeps over 200,000 of them on one thread, and how long a poll-mode
//! thread's rounds get meanwhile. Fails when a bound is not kept.

mod port;
#[path = "../../tests/common/world.rs"]
mod world;

use datapath::{Datapath, DpConfig, DpOptions};
use flow::{DpPort, Field, Match, OfPort, SubField};
use infra::counting::{bytes_in_use, CountingAllocator};
use infra::Published;
use ofproto::{MacLearning, RevalidateConfig, Revalidator, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use port::{Source, Traffic};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const FLOWS: u32 = 200_000;
const NEVER_MS: u64 = 1 << 40;

struct Bench {
    world: Arc<World>,
    tables: Published<Tables>,
    dp: Arc<Datapath>,
    rev: Revalidator,
    traffic: Arc<Traffic>,
}

/// Actions that look at every address and port, so that each flow gets a megaflow of its own.
fn actions(to: u16) -> Vec<Action> {
    vec![
        Action::Multipath {
            fields: 1,
            basis: 1024,
            algorithm: 0,
            max_link: 0,
            arg: 0,
            dst: SubField { field: Field::Reg(0), ofs: 0, n_bits: 13 },
        },
        Action::Output { port: OfPort(to), max_len: 0 },
    ]
}

impl Bench {
    fn new(threads: bool) -> Bench {
        let world = Arc::new(World::new());
        let tables = Published::new(Tables::default());
        let macs = Arc::new(MacLearning::new());
        world.publish(Snapshot::new([world::bridge(tables.clone(), macs, &[1, 2, 3])]));
        let upcalls = Arc::new(Upcalls::new(world.clone()));
        upcalls.set_flow_limit(usize::MAX);
        let options = DpOptions { threads, lazy_clock: true, seed: 1, ..DpOptions::default() };
        let dp = Datapath::new("ovs-netdev", upcalls.clone(), options).expect("a datapath");
        dp.set_config(DpConfig { upcall_share: 100, ..DpConfig::default() }).expect("a configuration");
        let traffic = Arc::new(Traffic::default());
        for n in 1..=3 {
            let traffic = if n == 1 { traffic.clone() } else { Arc::default() };
            let port = Arc::new(Source { name: format!("p{n}"), traffic });
            dp.add_port(port, Some(DpPort(n))).expect("a port");
        }
        let rev = Revalidator::new(world.clone(), upcalls.clone(), dp.clone());
        rev.set_config(RevalidateConfig {
            flow_limit: usize::MAX,
            max_idle_ms: NEVER_MS,
            ..RevalidateConfig::default()
        });
        let b = Bench { world, tables, dp, rev, traffic };
        b.send_to(2);
        b
    }

    /// Another rule, and with it other actions of every flow.
    fn send_to(&self, port: u16) {
        let mut tables = Tables::default();
        tables.table_mut(0).classifier.insert(world::rule(32768, &Match::any(), actions(port)));
        self.tables.store(tables);
        self.world.bump();
    }

    fn sweep(&self) -> (ofproto::revalidate::SweepReport, Duration) {
        let start = Instant::now();
        let report = self.rev.sweep(infra::clock::now_ms() as u64, &mut || 1);
        (report, start.elapsed())
    }

    /// Lets packets of all flows through until each has its megaflow.
    fn fill(&self) {
        self.traffic.flows.store(FLOWS, Ordering::Relaxed);
        while self.rev.flow_count() < FLOWS as usize {
            for _ in 0..64 {
                self.dp.step();
            }
            self.rev.push_stats();
        }
    }
}

fn say(what: &str) {
    println!("Speed and memory: {what}");
}

fn memory_and_sweeps() {
    let b = Bench::new(false);
    b.dp.step();
    b.sweep();
    let before = bytes_in_use();
    b.fill();
    b.traffic.flows.store(0, Ordering::Relaxed);
    let each = (bytes_in_use() - before) / FLOWS as usize;
    say(&format!("{each} bytes a megaflow with its ukey, of {FLOWS} (at most 1536)"));
    assert!(each <= 1536);
    let (first, _) = b.sweep();
    assert_eq!(first.flows, FLOWS as usize);
    let quickest = |run: &dyn Fn() -> Duration| (0..3).map(|_| run()).min().unwrap_or_default();
    let dump = quickest(&|| {
        let (report, took) = b.sweep();
        assert_eq!((report.flows, report.revalidated), (FLOWS as usize, 0));
        took
    });
    say(&format!(
        "{:.3} s for a dump of {FLOWS} megaflows, unchanged tables (less than 1 s)",
        dump.as_secs_f64()
    ));
    b.traffic.flows.store(FLOWS, Ordering::Relaxed);
    let push = quickest(&|| {
        b.dp.step();
        let start = Instant::now();
        b.rev.push_stats();
        start.elapsed()
    });
    b.traffic.flows.store(0, Ordering::Relaxed);
    say(&format!("{:.3} s to credit all packets for an OpenFlow statistics request", push.as_secs_f64()));
    let same = quickest(&|| {
        b.world.bump();
        let (report, took) = b.sweep();
        assert_eq!((report.revalidated, report.modified, report.deleted), (FLOWS as usize, 0, 0));
        took
    });
    say(&format!("{:.3} s to translate all of them again (less than 3 s)", same.as_secs_f64()));
    b.send_to(3);
    let (report, other) = b.sweep();
    assert_eq!((report.modified, report.deleted), (FLOWS as usize, 0));
    say(&format!("{:.3} s to give all of them other actions (less than 3 s)", other.as_secs_f64()));
    assert!(dump < Duration::from_secs(1) && same.max(other) < Duration::from_secs(3));
}

/// How long the host has kept its processors from this machine, in ticks (`steal` in proc(5)).
fn stolen() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    text.split_whitespace().nth(8).and_then(|t| t.parse().ok()).unwrap_or(0)
}

fn rounds() {
    let b = Bench::new(true);
    b.traffic.flows.store(FLOWS, Ordering::Relaxed);
    while b.rev.flow_count() < FLOWS as usize {
        b.rev.push_stats();
        std::thread::sleep(Duration::from_millis(1));
    }
    b.traffic.forget_rounds();
    let before = stolen();
    let mut sweeps = 0;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        b.send_to(2 + sweeps % 2);
        b.sweep();
        b.sweep();
        sweeps += 2;
    }
    let ms = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed) as f64 / 1e6;
    let (own, all) = (ms(&b.traffic.own_ns), ms(&b.traffic.all_ns));
    say(&format!(
        "{own:.3} ms in the longest of {} rounds of a poll-mode thread during {sweeps} sweeps, half of them after a \
         change of every flow (less than 1 ms; {all:.3} ms with those that the kernel interrupted)",
        b.traffic.rounds.load(Ordering::Relaxed)
    ));
    let stolen = stolen() - before;
    if own >= 1.0 && stolen > 0 {
        say(&format!("the host took processors away for {stolen} ticks: rounds are not judged"));
    } else {
        assert!(own < 1.0);
    }
}

fn main() {
    memory_and_sweeps();
    rounds();
}

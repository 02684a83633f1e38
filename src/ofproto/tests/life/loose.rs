//! Random events without a twin, where megaflows may lag behind: sweeps come now and then or on threads of their own.
//! What must hold all the same: no packet gets lost uncounted, each is looked up once, what is installed in the end is
//! what translation says then, and nothing is left. Neighbours: `side`, `ops`. Threads: those of the switch.

use crate::ops::{Op, Source};
use crate::packets::Spec;
use crate::rng::Rng;
use crate::side::Side;
use crate::{duration, quiet, variable};
use datapath::PmdStats;
use ofproto::upcall::{translate_flow, Purpose};
use ofproto::xlate::XlateOut;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_conserved(t: &PmdStats) -> bool {
    t.received + t.executed + t.copies == t.sent + t.userspace + t.total_dropped()
}

/// Lookups in table 0, over both bridges, and the packets that came to bridges: from devices and by patch ports.
fn lookups(side: &Side) -> (u64, u64) {
    let (mut found, mut came) = (0, side.totals().received);
    for b in &side.bridges {
        let stats = &b.flows.tables().table(0).stats;
        found += stats.matched.load(Ordering::Relaxed) + stats.missed.load(Ordering::Relaxed);
        let patches = b.ports.values().filter(|p| p.dev.is_none());
        came += patches.map(|p| p.counters.rx_packets.load(Ordering::Relaxed)).sum::<u64>();
    }
    (found, came)
}

/// Megaflows whose actions are not those of translation.
fn outdated(side: &Side) -> Vec<String> {
    let mut out = XlateOut::default();
    let mut wrong = Vec::new();
    for f in side.sweeps.flows() {
        let key = f.key.flow();
        let known = translate_flow(&side.world, &key, side.now(), Purpose::Revalidate, &mut out);
        if !known || *f.actions() != *out.actions {
            wrong.push(format!("{:?} instead of {:?} (known: {known})", f.actions(), out.actions));
        }
    }
    wrong
}

#[test]
fn flows_that_lag_behind_catch_up() {
    quiet();
    let (begin, mut seed) = (Instant::now(), variable("VSWITCH_LIFE_SEED", 1));
    let mut events = 0;
    while begin.elapsed() < duration() || events == 0 {
        one_that_lags(seed);
        events += 2000;
        seed += 1;
    }
    println!("{events} events with sweeps now and then, every packet counted once");
}

fn one_that_lags(seed: u64) {
    let mut source = Source::new(seed, true);
    let mut side = Side::new(|_, upcalls| upcalls.clone());
    for step in 0..2000 {
        match source.next() {
            Op::Packet { bridge, port, spec, times } => side.send(bridge, port, &spec, times * 8),
            Op::Pause | Op::Resume => {}
            Op::Purge => side.sweeps.own().purge(),
            Op::Limit(n) => side.upcalls.set_flow_limit(n),
            Op::Revalidation { max_idle, flow_limit } => side.revalidation(max_idle, flow_limit),
            Op::Megaflows(on) => side.upcalls.set_megaflows(on),
            op => side.apply(&op),
        }
        side.out.clear();
        if source.rng.chance(8) {
            side.sweeps.own().sweep(side.now(), &mut || 1);
        }
        let t = side.totals();
        assert!(is_conserved(&t), "seed {seed}, step {step}: {t:?}");
        if source.rng.chance(100) {
            side.settle();
            let (found, came) = lookups(&side);
            assert_eq!(found, came, "seed {seed}, step {step}: lookups and packets");
            assert_eq!(outdated(&side), Vec::<String>::new(), "seed {seed}, step {step}");
        }
    }
    for _ in 0..3 {
        side.apply(&Op::Warp(70_000));
        side.settle();
    }
    assert_eq!(side.leftovers(), (0, 0, 0), "seed {seed}: megaflows, ukeys, recirculation ids");
}

/// Ends the process when `beat` stands still: a deadlock would else look like a slow test.
fn watch(beat: &AtomicU64, done: &AtomicBool) {
    let (mut seen, mut since) = (0, Instant::now());
    while !done.load(Ordering::Acquire) {
        let now = beat.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            eprintln!("event {seen} does not come to an end");
            std::process::abort();
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn wait_for(what: &str, side: &mut Side, mut condition: impl FnMut(&mut Side) -> bool) {
    let begin = Instant::now();
    while !condition(side) {
        assert!(begin.elapsed() < PATIENCE, "still not: {what}; left over {:?}", side.leftovers());
        side.packets_up();
        side.collect();
        side.out.clear();
        std::thread::yield_now();
    }
}

/// As the database would set it.
fn settings(r: &mut Rng) -> BTreeMap<String, String> {
    let mut c = BTreeMap::new();
    let mut set = |key: &str, value: String| c.insert(key.to_string(), value);
    set("max-idle", r.pick(&[500, 500, 1000, 10_000]).to_string());
    set("flow-limit", r.pick(&[0, 10, 200_000]).to_string());
    set("max-revalidator", r.pick(&[100, 500]).to_string());
    set("n-revalidator-threads", (1 + r.below(4)).to_string());
    set("n-handler-threads", (1 + r.below(3)).to_string());
    c
}

#[test]
fn threads_lose_nothing() {
    quiet();
    let seed = variable("VSWITCH_LIFE_SEED", 1);
    let (mut source, mut r) = (Source::new(seed, false), Rng(seed ^ 0x2000));
    let (mut side, slow) = Side::with_threads();
    let (beat, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&beat, &done));
        let (begin, mut pushed) = (Instant::now(), 0u64);
        while begin.elapsed() < duration() {
            beat.fetch_add(1, Ordering::Relaxed);
            let mut packets = |side: &Side, bridge: usize, port: u16, spec: &Spec, times: usize| {
                let Some(dev) = side.bridges[bridge].ports.get(&port).and_then(|p| p.dev.as_ref()) else {
                    return;
                };
                let frame = spec.frame();
                // What is not received yet must not grow without end.
                if dev.rx_pending() < 2000 {
                    (0..times).for_each(|_| dev.push(0, &frame));
                    pushed += times as u64;
                }
            };
            match source.next() {
                Op::Packet { bridge, port, spec, times } => packets(&side, bridge, port, &spec, times * 20),
                Op::Warp(_) => slow.configure(&settings(&mut r)),
                Op::Pause => slow.pause(true),
                Op::Resume => slow.pause(false),
                Op::Purge => slow.wait_for(slow.purge()),
                Op::Limit(n) => slow.set_flow_limit(n as u32),
                Op::Revalidation { .. } => slow.wait_for(slow.ask_sweep()),
                Op::Megaflows(on) => slow.wait_for(slow.set_megaflows(on)),
                // Made anew each time, threads would do nothing else.
                Op::Cores(mask) if r.chance(8) => side.apply(&Op::Cores(mask & 3)),
                Op::Cores(_) | Op::EmcProbability(_) => {}
                op => side.apply(&op),
            }
            side.packets_up();
            side.collect();
            side.out.clear();
        }
        slow.pause(false);
        slow.configure(&BTreeMap::from([("max-idle".to_string(), "500".to_string())]));
        wait_for("all received", &mut side, |s| {
            let ports = s.bridges.iter().flat_map(|b| b.ports.values()).filter_map(|p| p.dev.as_ref());
            ports.map(|d| d.rx_pending()).sum::<usize>() == 0
        });
        wait_for("every packet is counted", &mut side, |s| is_conserved(&s.totals()));
        wait_for("nothing is left", &mut side, |s| {
            beat.fetch_add(1, Ordering::Relaxed);
            slow.wait_for(slow.ask_sweep());
            s.leftovers() == (0, 0, 0)
        });
        assert!(is_conserved(&side.totals()), "{:?}", side.totals());
        slow.stop();
        println!("{pushed} packets, {} events on threads, all counted", beat.load(Ordering::Relaxed));
        done.store(true, Ordering::Release);
        watcher.thread().unpark();
    });
}

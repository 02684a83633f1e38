//! The life of flows under random events: rules, ports, addresses and settings change, sweeps pause, time jumps, and
//! packets come in between. Nothing may differ from a switch that translates every packet from scratch, and nothing
//! may be left at the end.
//!
//! `VSWITCH_LIFE_SECONDS` says how long each of the tests lasts, `VSWITCH_LIFE_SEED` where random numbers begin,
//! `VSWITCH_LIFE_STEPS` how long a history is.

mod loose;
mod ops;
#[path = "../soundness/packets.rs"]
#[allow(dead_code)]
mod packets;
#[path = "../soundness/rng.rs"]
mod rng;
#[path = "../soundness/rules.rs"]
#[allow(dead_code)]
mod rules;
mod side;
mod twin;

use std::time::{Duration, Instant};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Ports come and go so often that the log would be long.
fn quiet() {
    infra::vlog::set("dpif_netdev:off").expect("a known module");
}

/// How long a test lasts.
fn duration() -> Duration {
    Duration::from_secs(variable("VSWITCH_LIFE_SECONDS", 3))
}

/// Bytes of memory in use by the process.
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: usize = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("resident pages");
    pages * 4096
}

#[test]
fn nothing_differs_from_translation_from_scratch() {
    quiet();
    let (first, steps) = (variable("VSWITCH_LIFE_SEED", 1), variable("VSWITCH_LIFE_STEPS", 1500) as usize);
    let (begin, mut seed) = (Instant::now(), first);
    let (mut packets, mut hits) = (0, 0);
    while seed == first || begin.elapsed() < duration() {
        match twin::run(&twin::history(seed, steps)) {
            Ok((p, h)) => (packets, hits) = (packets + p, hits + h),
            Err((at, e)) => fail(seed, at, e, steps),
        }
        seed += 1;
    }
    println!("{} histories of {steps} events, {packets} packets, {hits} hits, none differ", seed - first);
    assert!(hits * 4 > packets, "{hits} of {packets} packets met a megaflow: too few to show anything");
}

/// Shows the shortest history in which `e`, which came at step `at` of the history of `seed`, is found.
fn fail(seed: u64, at: usize, e: String, steps: usize) -> ! {
    eprintln!("seed {seed}, step {at}: {e}");
    let mut ops = twin::history(seed, steps);
    ops.truncate(at + 1);
    assert!(twin::run(&ops).is_err(), "seed {seed}, step {at}: not found again: {e}");
    let ops = twin::shrink(ops);
    let e = twin::run(&ops).err().map_or(format!("(not found again) {e}"), |(_, e)| e);
    let lines: String = ops.iter().map(|o| format!("{o:?}\n")).collect();
    panic!("seed {seed}, step {at}: {e}\nsmallest history:\n{lines}");
}

/// One switch through all the time: what grows with its age would show.
#[test]
fn a_long_life_leaves_nothing() {
    quiet();
    let seed = variable("VSWITCH_LIFE_SEED", 1) ^ 0x1000;
    let mut source = ops::Source::new(seed, false);
    let mut pair = twin::Pair::new();
    let (begin, mut step, mut warm) = (Instant::now(), 0, None);
    while begin.elapsed() < duration() {
        let op = source.next();
        pair.step(&op).unwrap_or_else(|e| fail(seed, step, e, step + 1));
        step += 1;
        if warm.is_none() && begin.elapsed() > duration() / 4 {
            warm = Some(memory());
        }
    }
    pair.finish().unwrap_or_else(|e| fail(seed, step, e, step));
    let (warm, end) = (warm.unwrap_or_else(memory), memory());
    println!("{step} events, {} packets, {} hits; memory {warm} then, {end} now", pair.packets, pair.hits);
    let t = pair.real.totals();
    let per = |n: u64| n * 1000 / t.received.max(1);
    let (again, up, sent, lost) =
        (per(t.recirculated), per(t.userspace), per(t.sent), per(t.total_dropped()));
    println!("of 1000 received: {sent} sent, {lost} dropped, {again} recirculated, {up} to user space");
    // The other tests of this process are still warming up in a short run.
    let others = if duration() < Duration::from_secs(60) { 48 << 20 } else { 0 };
    assert!(end < warm + warm / 10 + (8 << 20) + others, "memory grew from {warm} to {end}");
}

//! The texts of `dpif-netdev/pmd-stats-show`, `pmd-rxq-show`, `pmd-perf-show`, `pmd-sleep-show`, `pmd-upcall-show`.
//!
//! Neighbours: the control socket's commands call these; `show_perf` has the longest of them. Threads: the caller's.

use crate::api::{PmdId, PmdRxqs};
use crate::dp::Datapath;
use crate::perf::PerfLog;
use crate::show_perf::{overview, recorded, Extent};
use crate::stats::{PmdStats, INTERVALS, INTERVAL_MS};
use infra::cpu::NumaId;
use std::fmt::Write as _;

/// What the arguments of a command select.
struct Selection<'a> {
    dp: &'a Datapath,
    /// One thread only.
    pmd: Option<PmdId>,
    /// Intervals that count.
    intervals: usize,
    extent: Extent,
}

/// The number a text begins with, as C reads it.
pub(crate) fn leading(text: &str) -> i64 {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let n = digits[..end].parse::<i64>().unwrap_or(0);
    if digits.len() < text.len() {
        -n
    } else {
        n
    }
}

/// Reads `[-pmd core] [-secs secs] [-nh] [-it len] [-ms len] [dp]`. The last name counts; where there is one datapath
/// any name will do, and none.
fn parse<'a>(dps: &[&'a Datapath], args: &[&str]) -> Result<Selection<'a>, String> {
    let only = dps.first().filter(|_| dps.len() == 1);
    let named = args.iter().rev().find_map(|a| dps.iter().find(|d| d.name() == *a));
    let dp = named.or(only).ok_or("please specify an existing datapath")?;
    let mut sel = Selection { dp, pmd: None, intervals: INTERVALS, extent: Extent::default() };
    let mut rest = args.iter();
    while let Some(a) = rest.next() {
        let is_option = ["-pmd", "-it", "-ms", "-secs"].contains(a);
        let value = if is_option { rest.next() } else { None };
        let many = value.and_then(|v| usize::try_from(leading(v)).ok()).unwrap_or(0);
        match (*a, value) {
            ("-pmd", Some(v)) => sel.pmd = v.parse().ok().map(PmdId),
            ("-it", _) => sel.extent.rounds = many,
            ("-ms", _) => sel.extent.millis = many,
            ("-nh", _) => sel.extent.no_histograms = true,
            ("-secs", Some(_)) => {
                let intervals = many.div_ceil((INTERVAL_MS / 1_000) as usize);
                sel.intervals = if (1..=INTERVALS).contains(&intervals) { intervals } else { INTERVALS };
            }
            _ => {}
        }
    }
    Ok(sel)
}

impl Selection<'_> {
    fn has(&self, pmd: PmdId) -> bool {
        self.pmd.is_none_or(|p| p == pmd)
    }
}

fn heading(out: &mut String, pmd: PmdId, numa: NumaId) {
    let _ = match pmd.core() {
        Some(core) => writeln!(out, "pmd thread numa_id {numa} core_id {core}:"),
        None => writeln!(out, "main thread:"),
    };
}

pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 {
        0.0
    } else {
        a as f64 / b as f64
    }
}

/// `dpif-netdev/pmd-stats-show [-pmd core] [dp]`.
pub fn pmd_stats(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    let mut out = String::new();
    for (pmd, numa, s) in dp.pmd_stats().iter().filter(|t| sel.has(t.0)) {
        stats_of(&mut out, *pmd, *numa, s);
    }
    Ok(out)
}

/// `dpif-netdev/pmd-stats-clear [-pmd core] [dp]`.
pub fn pmd_stats_clear(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    for (pmd, _, _) in dp.pmd_stats() {
        if sel.has(pmd) {
            dp.clear_stats(Some(pmd));
        }
    }
    Ok(String::new())
}

fn stats_of(out: &mut String, pmd: PmdId, numa: NumaId, s: &PmdStats) {
    heading(out, pmd, numa);
    let passes = ratio(s.received + s.recirculated, s.received);
    let lookups = ratio(s.subtable_lookups, s.megaflow_hits);
    let batch = ratio(s.sent, s.sent_batches);
    let _ = write!(
        out,
        "  packets received: {}\n  packet recirculations: {}\n  avg. datapath passes per packet: {passes:.2}\n  \
         phwol hits: 0\n  mfex opt hits: 0\n  simple match hits: {}\n  emc hits: {}\n  smc hits: {}\n  \
         megaflow hits: {}\n  avg. subtable lookups per megaflow hit: {lookups:.2}\n  \
         miss with success upcall: {}\n  miss with failed upcall: {}\n  \
         avg. packets per output batch: {batch:.2}\n",
        s.received, s.recirculated, s.simple_hits, s.emc_hits, s.smc_hits, s.megaflow_hits, s.miss_ok, s.miss_failed,
    );
    let total = s.idle_cycles + s.busy_cycles;
    if pmd.is_non_pmd() || total == 0 {
        return;
    }
    let percent = |part| 100.0 * ratio(part, total);
    let _ = write!(
        out,
        "  idle cycles: {} ({:.2}%)\n  processing cycles: {} ({:.2}%)\n",
        s.idle_cycles,
        percent(s.idle_cycles),
        s.busy_cycles,
        percent(s.busy_cycles),
    );
    if s.received > 0 {
        let _ = write!(
            out,
            "  avg cycles per packet: {:.2} ({}/{})\n  avg processing cycles per packet: {:.2} ({}/{})\n",
            ratio(total, s.received),
            total,
            s.received,
            ratio(s.busy_cycles, s.received),
            s.busy_cycles,
            s.received,
        );
    }
}

/// `dpif-netdev/pmd-rxq-show [-pmd core] [-secs secs] [dp]`.
pub fn pmd_rxqs(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    let pmds = dp.pmd_rxqs_over(sel.intervals);
    if !sel.has(PmdId::NON_PMD) && !pmds.iter().any(|p| sel.has(p.pmd)) {
        return Ok(String::new());
    }
    let seconds = sel.intervals as u64 * INTERVAL_MS / 1_000;
    let mut out = format!("Displaying last {seconds} seconds pmd usage %\n");
    pmds.iter().filter(|p| sel.has(p.pmd)).for_each(|p| rxqs_of(&mut out, p));
    Ok(out)
}

fn rxqs_of(out: &mut String, p: &PmdRxqs) {
    heading(out, p.pmd, p.numa);
    let _ = writeln!(out, "  isolated : {}", p.isolated);
    let usage = |cycles: u64| match p.cycles {
        0 => "NOT AVAIL".to_owned(),
        all => format!("{:2} %", cycles * 100 / all),
    };
    for q in &p.rxqs {
        let state = if q.enabled { "(enabled) " } else { "(disabled)" };
        let _ = writeln!(
            out,
            "  port: {:<16}  queue-id: {:2} {state}  pmd usage: {}",
            q.port,
            q.queue,
            usage(q.cycles)
        );
    }
    let queues: u64 = p.rxqs.iter().map(|q| q.cycles).sum();
    if !p.rxqs.is_empty() {
        let _ = writeln!(out, "  overhead: {}", usage(p.busy_cycles.saturating_sub(queues)));
    }
}

/// `dpif-netdev/pmd-upcall-show [-pmd core] [dp]`: what misses cost, and what was done to be fair.
pub fn pmd_upcalls(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    let share = dp.config().upcall_share;
    let mut out = String::new();
    dp.pmd_rxqs()
        .iter()
        .filter(|p| sel.has(p.pmd))
        .for_each(|p| upcalls_of(&mut out, p, share, infra::clock::tsc_hz()));
    Ok(out)
}

fn upcalls_of(out: &mut String, p: &PmdRxqs, share: u32, hz: u64) {
    heading(out, p.pmd, p.numa);
    let _ = writeln!(out, "  upcall share: {share} %");
    for q in &p.rxqs {
        let _ = writeln!(
            out,
            "  port: {:<16}  queue-id: {:2}  upcalls: {}  avg. cycles per upcall: {:.0}  held back: {} ms  \
             upcalls dropped: {}",
            q.port,
            q.queue,
            q.upcalls,
            ratio(q.upcall_cycles, q.upcalls),
            q.held_cycles / (hz / 1_000).max(1),
            q.refused
        );
    }
}

/// `dpif-netdev/pmd-sleep-show [dp]`: the longest sleeps that may be requested.
pub fn pmd_sleeps(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let (dp, config) = (sel.dp, sel.dp.config());
    let mut out = format!("Default max sleep: {:>4} us\n", config.max_sleep_us);
    for p in dp.pmd_rxqs() {
        heading(&mut out, p.pmd, p.numa);
        let _ = writeln!(out, "  max sleep: {:>4} us", config.max_sleep_of(p.pmd));
    }
    Ok(out)
}

/// `dpif-netdev/pmd-perf-show [-nh] [-it len] [-ms len] [-pmd core] [dp]`. `time` is the time of day as it is printed.
pub fn pmd_perf(dps: &[&Datapath], args: &[&str], time: &str) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    let mut out = String::new();
    let hz = infra::clock::tsc_hz() as f64;
    let metrics = dp.config().perf_metrics;
    for (pmd, numa, s) in dp.pmd_stats() {
        if pmd.is_non_pmd() || !sel.has(pmd) {
            continue;
        }
        let seconds = dp.stats_age_ms(pmd) as f64 / 1000.0;
        let _ = write!(out, "\nTime: {time}\nMeasurement duration: {seconds:.3} s\n\n");
        heading(&mut out, pmd, numa);
        out.push('\n');
        overview(&mut out, &s, seconds, hz);
        if let (true, Some(perf)) = (metrics, dp.perf(pmd)) {
            recorded(&mut out, &perf, &sel.extent);
        }
    }
    Ok(out)
}

/// `dpif-netdev/pmd-rxq-rebalance [dp]`.
pub fn rebalance(dps: &[&Datapath], args: &[&str]) -> Result<String, String> {
    let named = match args.first() {
        Some(name) => dps.iter().find(|d| d.name() == *name),
        None => dps.first().filter(|_| dps.len() == 1),
    };
    named.ok_or("please specify an existing datapath")?.rebalance();
    Ok("pmd rxq rebalance requested.".into())
}

/// `dpif-netdev/pmd-perf-log-set on|off [-b before] [-a after] [-e|-ne] [-us usec] [-q qlen]`, in place of `log`.
pub fn pmd_perf_log(mut log: PerfLog, args: &[&str]) -> Result<PerfLog, String> {
    const USAGE: &str =
        "Usage: ovs-appctl dpif-netdev/pmd-perf-log-set [on|off] [-b before] [-a after] [-e|-ne] \
                         [-us usec] [-q qlen]";
    let mut rest = args.iter();
    while let Some(a) = rest.next() {
        let mut number = || rest.next().and_then(|v| v.parse::<u32>().ok()).map(u64::from).ok_or(USAGE);
        match *a {
            "on" => log.on = true,
            "off" => log.on = false,
            "-e" => log.extend = true,
            "-ne" => log.extend = false,
            "-b" => log.set_before(number()?),
            "-a" => log.set_after(number()?),
            "-us" => log.us = number()?,
            "-q" => log.queue = number()?,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RxqInfo;
    use flow::DpPort;

    #[test]
    fn stats_of_a_pmd() {
        let s = PmdStats {
            received: 23_741_184,
            simple_hits: 23_740_800,
            megaflow_hits: 6,
            subtable_lookups: 6,
            miss_ok: 1,
            miss_failed: 377,
            sent: 64,
            sent_batches: 2,
            idle_cycles: 107_989_831,
            busy_cycles: 3_142_052_056,
            ..PmdStats::default()
        };
        let mut out = String::new();
        stats_of(&mut out, PmdId(1), NumaId(0), &s);
        let want = "pmd thread numa_id 0 core_id 1:
  packets received: 23741184
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  mfex opt hits: 0
  simple match hits: 23740800
  emc hits: 0
  smc hits: 0
  megaflow hits: 6
  avg. subtable lookups per megaflow hit: 1.00
  miss with success upcall: 1
  miss with failed upcall: 377
  avg. packets per output batch: 32.00
  idle cycles: 107989831 (3.32%)
  processing cycles: 3142052056 (96.68%)
  avg cycles per packet: 136.89 (3250041887/23741184)
  avg processing cycles per packet: 132.35 (3142052056/23741184)
";
        assert_eq!(out, want);
        out.clear();
        stats_of(&mut out, PmdId::NON_PMD, NumaId(0), &PmdStats::default());
        assert!(out.starts_with("main thread:\n  packets received: 0\n"));
        assert!(out.ends_with("  avg. packets per output batch: 0.00\n"));
    }

    #[test]
    fn rxqs_of_a_pmd() {
        let q = |port: &str, cycles| RxqInfo {
            port: port.into(),
            no: DpPort(1),
            queue: 0,
            enabled: true,
            cycles,
            upcalls: 12,
            upcall_cycles: 72_000,
            held_cycles: 0,
            refused: 2,
        };
        let mut p = PmdRxqs {
            pmd: PmdId(1),
            numa: NumaId(0),
            isolated: false,
            cycles: 0,
            busy_cycles: 0,
            rxqs: vec![q("p0", 0), q("p1", 0)],
        };
        let mut out = String::new();
        rxqs_of(&mut out, &p);
        let want = "pmd thread numa_id 0 core_id 1:
  isolated : false
  port: p0                queue-id:  0 (enabled)   pmd usage: NOT AVAIL
  port: p1                queue-id:  0 (enabled)   pmd usage: NOT AVAIL
  overhead: NOT AVAIL
";
        assert_eq!(out, want);
        p.cycles = 1000;
        p.busy_cycles = 155;
        p.rxqs = vec![q("p0", 140), q("p1", 0)];
        out.clear();
        rxqs_of(&mut out, &p);
        assert!(out.contains("(enabled)   pmd usage: 14 %\n"), "{out}");
        assert!(out.ends_with("pmd usage:  0 %\n  overhead:  1 %\n"), "{out}");
    }

    #[test]
    fn upcalls_of_a_pmd() {
        let q = RxqInfo {
            port: "p0".into(),
            no: DpPort(1),
            queue: 0,
            enabled: true,
            cycles: 1,
            upcalls: 12,
            upcall_cycles: 72_000,
            held_cycles: 5_200_000,
            refused: 2,
        };
        let (pmd, numa) = (PmdId(1), NumaId(0));
        let p = PmdRxqs { pmd, numa, isolated: false, cycles: 0, busy_cycles: 0, rxqs: vec![q] };
        let mut out = String::new();
        upcalls_of(&mut out, &p, 8, 2_600_000_000);
        let want = "pmd thread numa_id 0 core_id 1:
  upcall share: 8 %
  port: p0                queue-id:  0  upcalls: 12  avg. cycles per upcall: 6000  held back: 2 ms  upcalls dropped: 2
";
        assert_eq!(out, want);
    }

    #[test]
    fn perf_lines() {
        let mut out = String::new();
        let s = PmdStats {
            iterations: 3_445_749,
            busy_iterations: 3_123_426,
            idle_cycles: 260_945_046,
            busy_cycles: 28_732_948_975,
            received: 99_949_664,
            simple_hits: 99_949_056,
            megaflow_hits: 27,
            subtable_lookups: 27,
            miss_ok: 1,
            miss_failed: 548,
            sent: 99_949_084,
            sent_batches: 3_123_409,
            ..PmdStats::default()
        };
        overview(&mut out, &s, 11.52, 2.6e9);
        assert!(out.starts_with("  Iterations:              3445749  (3.24 us/it)\n"), "{out}");
        assert!(out.contains("\n  - Used TSC cycles:   28993894021  ( 96.8 % of total cycles)\n"), "{out}");
        assert!(out.contains("\n  - idle iterations:        322323  (  0.9 % of used cycles)\n"), "{out}");
        assert!(
            out.contains("\n  - Megaflow hits:              27  (  0.0 %, 1.00 subtbl lookups/hit)\n"),
            "{out}"
        );
        assert!(out.contains("\n  Sleep time (us):               0  (  0 us/iteration avg.)\n"), "{out}");
        assert!(out.contains("\n  Rx packets:             99949664  (8676 Kpps, 287 cycles/pkt)\n"), "{out}");
        assert!(out.ends_with("\n  Tx batches:              3123409  (32.00 pkts/batch)\n"), "{out}");
    }

    #[test]
    fn counters_that_move_while_they_are_read() {
        let mut out = String::new();
        let s = PmdStats { iterations: 7, busy_iterations: 8, ..PmdStats::default() };
        overview(&mut out, &s, 1.0, 2.6e9);
        assert!(out.contains("\n  - idle iterations:             0  ("), "{out}");
    }
}

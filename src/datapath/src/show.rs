//! The texts of `dpif-netdev/pmd-stats-show`, `pmd-rxq-show` and `pmd-perf-show`.
//!
//! Neighbours: the control socket's commands call these. Threads: the caller's.

use crate::api::{PmdId, PmdRxqs};
use crate::dp::Datapath;
use crate::stats::PmdStats;
use infra::cpu::NumaId;
use std::fmt::Write as _;

/// What the arguments of a command select.
struct Selection<'a> {
    dp: &'a Datapath,
    core: Option<u32>,
}

/// Reads `[-pmd core] [-secs secs] [dp]`. The last name counts; where there is one datapath any name will do, and none.
fn parse<'a>(dps: &[&'a Datapath], args: &[&str]) -> Result<Selection<'a>, String> {
    let (mut core, mut dp) = (None, None);
    let mut rest = args.iter();
    while let Some(a) = rest.next() {
        match *a {
            "-pmd" => {
                let v = rest.next().ok_or("-pmd needs a core id")?;
                core = Some(v.parse::<u32>().map_err(|_| format!("-pmd: \"{v}\" is not a core id"))?);
            }
            // Lengths of histories that are not kept.
            "-it" | "-ms" => drop(rest.next()),
            "-nh" => {}
            "-secs" => {
                let v = rest.next().ok_or("-secs needs a number of seconds")?;
                v.parse::<u32>().map_err(|_| format!("-secs: \"{v}\" is not a number of seconds"))?;
            }
            name => dp = dps.iter().find(|d| d.name() == name),
        }
    }
    let only = || dps.first().filter(|_| dps.len() == 1);
    match dp.or_else(only) {
        Some(dp) => Ok(Selection { dp, core }),
        None => Err("please specify an existing datapath".into()),
    }
}

impl Selection<'_> {
    fn has(&self, pmd: PmdId) -> bool {
        self.core.is_none_or(|c| pmd.core().is_some_and(|core| core.0 == c))
    }
}

fn heading(out: &mut String, pmd: PmdId, numa: NumaId) {
    let _ = match pmd.core() {
        Some(core) => writeln!(out, "pmd thread numa_id {numa} core_id {core}:"),
        None => writeln!(out, "main thread:"),
    };
}

fn ratio(a: u64, b: u64) -> f64 {
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
    let mut out = String::from("Displaying last 60 seconds pmd usage %\n");
    dp.pmd_rxqs().iter().filter(|p| sel.has(p.pmd)).for_each(|p| rxqs_of(&mut out, p));
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

/// The cores of the PMD threads, as lists of implementations name them.
fn cores(dp: &Datapath) -> String {
    let cores: Vec<String> = dp.pmd_rxqs().iter().map(|p| p.pmd.to_string()).collect();
    if cores.is_empty() {
        return "none".into();
    }
    cores.join(",")
}

/// `dpif-netdev/dpif-impl-get`: there is one implementation of the loop.
pub fn dpif_impl(dp: &Datapath) -> String {
    format!("Available DPIF implementations:\n  dpif_scalar (pmds: {})\n", cores(dp))
}

/// `dpif-netdev/miniflow-parser-get`: there is one parser.
pub fn miniflow_parser(dp: &Datapath) -> String {
    format!("Available MFEX implementations:\n  scalar (available: True pmds: {})\n", cores(dp))
}

/// `dpif-netdev/pmd-perf-show [-nh] [-it len] [-ms len] [-pmd core] [dp]`. `time` is the time of day as it is printed.
pub fn pmd_perf(dps: &[&Datapath], args: &[&str], time: &str) -> Result<String, String> {
    let sel = parse(dps, args)?;
    let dp = sel.dp;
    let mut out = String::new();
    let hz = infra::clock::tsc_hz() as f64;
    for (pmd, numa, s) in dp.pmd_stats() {
        if pmd.is_non_pmd() || !sel.has(pmd) {
            continue;
        }
        let seconds = dp.stats_age_ms(pmd) as f64 / 1000.0;
        let _ = write!(out, "\nTime: {time}\nMeasurement duration: {seconds:.3} s\n\n");
        heading(&mut out, pmd, numa);
        out.push('\n');
        perf_of(&mut out, &s, seconds, hz);
    }
    Ok(out)
}

/// One line: the value ends in column 34, the remark follows.
fn line(out: &mut String, label: &str, value: u64, remark: &str) {
    let width = 34usize.saturating_sub(2 + label.len());
    let _ = writeln!(out, "  {label}{value:>width$}  {remark}");
}

fn perf_of(out: &mut String, s: &PmdStats, seconds: f64, hz: f64) {
    let used = s.idle_cycles + s.busy_cycles;
    let of = |a: u64, b: u64| 100.0 * ratio(a, b);
    let kpps = |n: u64| if seconds > 0.0 { n as f64 / seconds / 1000.0 } else { 0.0 };
    let us = |cycles: f64| cycles / hz * 1e6;
    let idle = s.iterations - s.busy_iterations;
    line(out, "Iterations:", s.iterations, &format!("({:.2} us/it)", us(ratio(used, s.iterations))));
    let all = if seconds > 0.0 { 100.0 * used as f64 / (seconds * hz) } else { 0.0 };
    line(out, "- Used TSC cycles:", used, &format!("({all:5.1} % of total cycles)"));
    line(out, "- idle iterations:", idle, &format!("({:5.1} % of used cycles)", of(s.idle_cycles, used)));
    line(
        out,
        "- busy iterations:",
        s.busy_iterations,
        &format!("({:5.1} % of used cycles)", of(s.busy_cycles, used)),
    );
    line(out, "- sleep iterations:", 0, "(  0.0 % of iterations)");
    line(out, "Sleep time (us):", 0, "(  0 us/iteration avg.)");
    if s.received > 0 {
        let passes = s.received + s.recirculated;
        let share = |n: u64| format!("({:5.1} %)", of(n, passes));
        let per = ratio(s.busy_cycles, s.received);
        line(out, "Rx packets:", s.received, &format!("({:.0} Kpps, {per:.0} cycles/pkt)", kpps(s.received)));
        line(out, "Datapath passes:", passes, &format!("({:.2} passes/pkt)", ratio(passes, s.received)));
        line(out, "- PHWOL hits:", 0, &share(0));
        line(out, "- MFEX Opt hits:", 0, &share(0));
        line(out, "- Simple Match hits:", s.simple_hits, &share(s.simple_hits));
        line(out, "- EMC hits:", s.emc_hits, &share(s.emc_hits));
        line(out, "- SMC hits:", s.smc_hits, &share(s.smc_hits));
        let lookups = ratio(s.subtable_lookups, s.megaflow_hits);
        let remark = format!("({:5.1} %, {lookups:.2} subtbl lookups/hit)", of(s.megaflow_hits, passes));
        line(out, "- Megaflow hits:", s.megaflow_hits, &remark);
        line(out, "- Upcalls:", s.miss_ok, &format!("({:5.1} %, 0.0 us/upcall)", of(s.miss_ok, passes)));
        line(out, "- Lost upcalls:", s.miss_failed, &share(s.miss_failed));
    } else {
        let _ = writeln!(out, "  Rx packets:  {:>19}", 0);
    }
    if s.sent > 0 {
        line(out, "Tx packets:", s.sent, &format!("({:.0} Kpps)", kpps(s.sent)));
        let per = ratio(s.sent, s.sent_batches);
        line(out, "Tx batches:", s.sent_batches, &format!("({per:.2} pkts/batch)"));
        out.push('\n');
    } else {
        let _ = writeln!(out, "  Tx packets:  {:>19}\n", 0);
    }
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
        perf_of(&mut out, &s, 11.52, 2.6e9);
        assert!(out.starts_with("  Iterations:              3445749  (3.24 us/it)\n"), "{out}");
        assert!(out.contains("\n  - Used TSC cycles:   28993894021  ( 96.8 % of total cycles)\n"), "{out}");
        assert!(out.contains("\n  - idle iterations:        322323  (  0.9 % of used cycles)\n"), "{out}");
        assert!(
            out.contains("\n  - Megaflow hits:              27  (  0.0 %, 1.00 subtbl lookups/hit)\n"),
            "{out}"
        );
        assert!(out.contains("\n  Sleep time (us):               0  (  0 us/iteration avg.)\n"), "{out}");
        assert!(out.contains("\n  Rx packets:             99949664  (8676 Kpps, 287 cycles/pkt)\n"), "{out}");
        assert!(out.ends_with("\n  Tx batches:              3123409  (32.00 pkts/batch)\n\n"), "{out}");
    }
}

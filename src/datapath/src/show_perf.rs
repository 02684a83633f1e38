//! The text of `dpif-netdev/pmd-perf-show`, and of suspicious rounds in the log.
//!
//! Neighbours: `show` reads the arguments, `perf` has what was recorded. Threads: the caller's.

use crate::perf::{Perf, Report, Round, Walls, BINS, METRICS};
use crate::show::ratio;
use crate::stats::PmdStats;
use std::fmt::Write as _;

/// How much of the recorded is shown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extent {
    pub(crate) no_histograms: bool,
    pub(crate) rounds: usize,
    pub(crate) millis: usize,
}

/// One line: the value ends in column 34, the remark follows.
fn line(out: &mut String, label: &str, value: u64, remark: &str) {
    let width = 34usize.saturating_sub(2 + label.len());
    let _ = writeln!(out, "  {label}{value:>width$}  {remark}");
}

/// What was counted, over `seconds` of `hz` cycles.
pub(crate) fn overview(out: &mut String, s: &PmdStats, seconds: f64, hz: f64) {
    let used = s.idle_cycles + s.busy_cycles;
    let of = |a: u64, b: u64| 100.0 * ratio(a, b);
    let kpps = |n: u64| if seconds > 0.0 { n as f64 / seconds / 1000.0 } else { 0.0 };
    let us = |cycles: f64| cycles / hz * 1e6;
    // The owner may have counted between the two reads.
    let idle = s.iterations.saturating_sub(s.busy_iterations);
    let each = us(ratio(used + s.sleep_cycles, s.iterations));
    line(out, "Iterations:", s.iterations, &format!("({each:.2} us/it)"));
    let all = if seconds > 0.0 { 100.0 * used as f64 / (seconds * hz) } else { 0.0 };
    line(out, "- Used TSC cycles:", used, &format!("({all:5.1} % of total cycles)"));
    line(out, "- idle iterations:", idle, &format!("({:5.1} % of used cycles)", of(s.idle_cycles, used)));
    let busy = format!("({:5.1} % of used cycles)", of(s.busy_cycles, used));
    line(out, "- busy iterations:", s.busy_iterations, &busy);
    let slept = format!("({:5.1} % of iterations)", of(s.sleep_iterations, s.iterations));
    line(out, "- sleep iterations:", s.sleep_iterations, &slept);
    let mean = us(ratio(s.sleep_cycles, s.sleep_iterations));
    let sleep_us = us(s.sleep_cycles as f64) as u64;
    line(out, "Sleep time (us):", sleep_us, &format!("({mean:3.0} us/iteration avg.)"));
    if s.received > 0 {
        received(out, s, kpps(s.received), us(ratio(s.upcall_cycles, s.miss_ok + s.miss_failed)));
    } else {
        let _ = writeln!(out, "  Rx packets:  {:>19}", 0);
    }
    if s.sent > 0 {
        line(out, "Tx packets:", s.sent, &format!("({:.0} Kpps)", kpps(s.sent)));
        let per = ratio(s.sent, s.sent_batches);
        line(out, "Tx batches:", s.sent_batches, &format!("({per:.2} pkts/batch)"));
    } else {
        let _ = writeln!(out, "  Tx packets:  {:>19}\n", 0);
    }
}

fn received(out: &mut String, s: &PmdStats, kpps: f64, us_per_upcall: f64) {
    let passes = s.received + s.recirculated;
    let of = |n: u64| 100.0 * ratio(n, passes);
    let share = |n: u64| format!("({:5.1} %)", of(n));
    let per = ratio(s.busy_cycles, s.received);
    line(out, "Rx packets:", s.received, &format!("({kpps:.0} Kpps, {per:.0} cycles/pkt)"));
    line(out, "Datapath passes:", passes, &format!("({:.2} passes/pkt)", ratio(passes, s.received)));
    line(out, "- PHWOL hits:", 0, &share(0));
    line(out, "- MFEX Opt hits:", 0, &share(0));
    line(out, "- Simple Match hits:", s.simple_hits, &share(s.simple_hits));
    line(out, "- EMC hits:", s.emc_hits, &share(s.emc_hits));
    line(out, "- SMC hits:", s.smc_hits, &share(s.smc_hits));
    let lookups = ratio(s.subtable_lookups, s.megaflow_hits);
    let remark = format!("({:5.1} %, {lookups:.2} subtbl lookups/hit)", of(s.megaflow_hits));
    line(out, "- Megaflow hits:", s.megaflow_hits, &remark);
    line(out, "- Upcalls:", s.miss_ok, &format!("({:5.1} %, {us_per_upcall:.1} us/upcall)", of(s.miss_ok)));
    line(out, "- Lost upcalls:", s.miss_failed, &share(s.miss_failed));
}

/// What was recorded.
pub(crate) fn recorded(out: &mut String, perf: &Perf, extent: &Extent) {
    if !extent.no_histograms {
        histograms(out, perf);
    }
    let rounds = perf.last_rounds(extent.rounds);
    if extent.rounds > 0 {
        out.push('\n');
        out.push_str(ROUND_HEADING);
        rounds.iter().for_each(|r| round(out, r));
    }
    if extent.millis > 0 {
        out.push_str(
            "\n   ms             iterations   cycles/it    Kpps         cycles/pkt   pkts/batch   vhost qlen   \
             upcalls      cycles/upcall\n",
        );
        perf.last_millis(extent.millis).iter().for_each(|m| milli(out, m));
    }
}

const ROUND_HEADING: &str =
    "   iter                cycles       packets      cycles/pkt   pkts/batch   vhost qlen   \
                             upcalls      cycles/upcall\n";

fn per(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(0)
}

fn round(out: &mut String, r: &Round) {
    let _ = writeln!(
        out,
        "   {:<17}   {:<10}   {:<10}   {:<10}   {:<10}   {:<10}   {:<10}   {:<11}",
        r.at,
        r.cycles,
        r.packets,
        per(r.cycles, r.packets),
        per(r.packets, r.batches),
        0,
        r.upcalls,
        per(r.upcall_cycles, r.upcalls)
    );
}

fn milli(out: &mut String, m: &Round) {
    let _ = writeln!(
        out,
        "   {:<12}   {:<10}   {:<10}   {:<10}   {:<10}   {:<10}   {:<10}   {:<10}   {:<11}",
        m.at,
        m.rounds,
        per(m.cycles, m.rounds),
        m.packets,
        per(m.cycles, m.packets),
        per(m.packets, m.batches),
        0,
        m.upcalls,
        per(m.upcall_cycles, m.upcalls)
    );
}

/// The names of the histograms.
fn columns(out: &mut String, queue: &str) {
    let names = ["cycles/it", "packets/it", "cycles/pkt", "pkts/batch", queue, "upcalls/it", "cycles/upcall"];
    let _ = writeln!(out, "   {}", names.map(|n| format!("{n:<21}")).join("  "));
}

fn histograms(out: &mut String, perf: &Perf) {
    out.push_str("\nHistograms\n");
    columns(out, "max vhost qlen");
    let walls = Walls::new();
    let counts: [[u64; BINS]; METRICS] = std::array::from_fn(|m| perf.counts(m));
    (0..BINS).for_each(|i| {
        let bin = |m: usize| match walls.of(m).get(i) {
            Some(wall) => format!("{wall:<9} {:<11}", counts[m][i]),
            None => format!("{:<9} {:<11}", ">", counts[m][i]),
        };
        let bins: Vec<String> = (0..METRICS).map(bin).collect();
        let _ = writeln!(out, "   {}", bins.join("  "));
    });
    let _ = writeln!(out, "{:-<154}", "");
    columns(out, "vhost qlen");
    let t = perf.total();
    let _ = writeln!(
        out,
        "   {:<21}  {:<21.5}  {:<21}  {:<21.5}  {:<21.5}  {:<21.5}  {:<21}",
        per(t.cycles, t.rounds),
        ratio(t.packets, t.rounds),
        per(t.cycles, t.packets),
        ratio(t.packets, t.batches),
        0.0,
        ratio(t.upcalls, t.rounds),
        per(t.upcall_cycles, t.upcalls)
    );
}

/// The two messages about a suspicious round.
pub(crate) fn suspicious(r: &Report) -> [String; 2] {
    let mut rows = String::new();
    r.rounds.iter().for_each(|x| round(&mut rows, x));
    [
        format!("Suspicious iteration (Excessive total cycles): iter={} duration={} us", r.iteration, r.us),
        format!("Neighborhood of suspicious iteration:\n{ROUND_HEADING}{}", rows.trim_end_matches('\n')),
    ]
}

//! Text of `dpif-netdev/*` commands, in the original's format.
//!
//! Neighbours: `bridge` serves the commands. Threads: main.

use crate::api::PmdId;
use crate::dp::Datapath;
use crate::stats::PmdStats;
use infra::cpu::NumaId;
use std::fmt::Write;

/// Appends formatted text. Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}

/// What the arguments of a command select.
struct Selection {
    core: Option<u32>,
}

/// Reads `[-pmd core] [-secs secs] [dp]`.
fn parse(dp: &Datapath, args: &[&str]) -> Result<Selection, String> {
    let mut core = None;
    let mut rest = args.iter();
    while let Some(a) = rest.next() {
        match *a {
            "-pmd" => {
                let v = rest.next().ok_or("-pmd needs a core id")?;
                core = Some(v.parse::<u32>().map_err(|_| format!("-pmd: \"{v}\" is not a core id"))?);
            }
            "-secs" => {
                let v = rest.next().ok_or("-secs needs a number of seconds")?;
                v.parse::<u32>().map_err(|_| format!("-secs: \"{v}\" is not a number of seconds"))?;
            }
            name if name.strip_prefix("netdev@").unwrap_or(name) == dp.name() => {}
            _ => return Err("please specify an existing datapath".into()),
        }
    }
    Ok(Selection { core })
}

impl Selection {
    fn has(&self, pmd: PmdId) -> bool {
        self.core.is_none_or(|c| pmd.core().is_some_and(|core| core.0 == c))
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 {
        0.0
    } else {
        a as f64 / b as f64
    }
}

fn header(out: &mut String, pmd: PmdId, numa: NumaId) {
    match pmd.core() {
        Some(core) => put!(out, "pmd thread numa_id {numa} core_id {core}:\n"),
        None => out.push_str("main thread:\n"),
    }
}

fn one(out: &mut String, pmd: PmdId, numa: NumaId, s: &PmdStats) {
    header(out, pmd, numa);
    let passes = ratio(s.received + s.recirculated, s.received);
    put!(out, "  packets received: {}\n  packet recirculations: {}\n", s.received, s.recirculated);
    put!(out, "  avg. datapath passes per packet: {passes:.2}\n  phwol hits: 0\n  mfex opt hits: 0\n");
    put!(
        out,
        "  simple match hits: {}\n  emc hits: {}\n  smc hits: {}\n",
        s.simple_hits,
        s.emc_hits,
        s.smc_hits
    );
    put!(out, "  megaflow hits: {}\n", s.megaflow_hits);
    put!(
        out,
        "  avg. subtable lookups per megaflow hit: {:.2}\n",
        ratio(s.subtable_lookups, s.megaflow_hits)
    );
    put!(out, "  miss with success upcall: {}\n  miss with failed upcall: {}\n", s.miss_ok, s.miss_failed);
    put!(out, "  avg. packets per output batch: {:.2}\n", ratio(s.sent, s.sent_batches));
    let total = s.idle_cycles + s.busy_cycles;
    if total == 0 {
        return;
    }
    let percent = |c: u64| ratio(c, total) * 100.0;
    put!(out, "  idle cycles: {} ({:.2}%)\n", s.idle_cycles, percent(s.idle_cycles));
    put!(out, "  processing cycles: {} ({:.2}%)\n", s.busy_cycles, percent(s.busy_cycles));
    if s.received == 0 {
        return;
    }
    put!(out, "  avg cycles per packet: {:.2} ({total}/{})\n", ratio(total, s.received), s.received);
    let busy = s.busy_cycles;
    put!(out, "  avg processing cycles per packet: {:.2} ({busy}/{})\n", ratio(busy, s.received), s.received);
}

/// `dpif-netdev/pmd-stats-show [-pmd core] [dp]`.
pub fn pmd_stats(dp: &Datapath, args: &[&str]) -> Result<String, String> {
    let sel = parse(dp, args)?;
    let mut out = String::new();
    for (pmd, numa, mut s) in dp.pmd_stats() {
        if sel.has(pmd) {
            if pmd.is_non_pmd() {
                // The io thread sleeps when there is nothing to do: its cycles say nothing.
                (s.idle_cycles, s.busy_cycles) = (0, 0);
            }
            one(&mut out, pmd, numa, &s);
        }
    }
    Ok(out)
}

/// `dpif-netdev/pmd-stats-clear [-pmd core] [dp]`.
pub fn pmd_stats_clear(dp: &Datapath, args: &[&str]) -> Result<String, String> {
    let sel = parse(dp, args)?;
    for (pmd, _, _) in dp.pmd_stats() {
        if sel.has(pmd) {
            dp.clear_stats(Some(pmd));
        }
    }
    Ok(String::new())
}

fn usage(cycles: u64, total: u64) -> String {
    if total == 0 {
        "NOT AVAIL".into()
    } else {
        format!("{:>2} %", cycles.saturating_mul(100) / total)
    }
}

/// `dpif-netdev/pmd-rxq-show [-pmd core] [-secs secs] [dp]`.
pub fn pmd_rxqs(dp: &Datapath, args: &[&str]) -> Result<String, String> {
    let sel = parse(dp, args)?;
    let mut out = String::from("Displaying last 60 seconds pmd usage %\n");
    for p in dp.pmd_rxqs().iter().filter(|p| sel.has(p.pmd) && !p.pmd.is_non_pmd()) {
        header(&mut out, p.pmd, p.numa);
        put!(out, "  isolated : {}\n", p.isolated);
        let mut busy = 0;
        for q in &p.rxqs {
            busy += q.cycles;
            let state = if q.enabled { "enabled" } else { "disabled" };
            let used = usage(q.cycles, p.cycles);
            put!(out, "  port: {:<16}  queue-id: {:>2} ({state})   pmd usage: {used}\n", q.port, q.queue);
        }
        if !p.rxqs.is_empty() {
            put!(out, "  overhead: {}\n", usage(p.cycles.saturating_sub(busy).min(p.cycles), p.cycles));
        }
    }
    Ok(out)
}

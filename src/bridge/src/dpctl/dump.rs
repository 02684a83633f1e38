//! `dpctl/dump-flows` and `dpctl/get-flow`.
//!
//! Neighbours: the parent reads options, `show` prints a flow. Threads: main only.

use super::{choose, no_such_file, options, words, Options};
use crate::backer::Backer;
use crate::manager::Manager;
use crate::show::{flow_line, DumpStyle};
use datapath::{PmdId, SharedFlow};
use flow::odp::split_ufid;
use flow::{Flow, Mask, OfPort};
use infra::command::Reply;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// What `dump-flows` is to print.
#[derive(Default)]
struct Wanted {
    options: Options,
    pmd: Option<PmdId>,
    filter: Option<(Flow, Mask)>,
    /// Kinds of flows that cannot be here.
    others: bool,
}

/// The conditions stand last, each at most once but for `pmd`; of several words before them the datapath's name is none.
fn wanted(m: &Manager, args: &[&str]) -> Result<(Arc<Backer>, Wanted), String> {
    let (options, mut rest) = options(args, 0)?;
    let mut w = Wanted { options, ..Wanted::default() };
    let (mut filter_text, mut types) = (None, None);
    while let [before @ .., last] = rest {
        match last.split_once('=') {
            Some(("filter", text)) if filter_text.is_none() => filter_text = Some(text),
            Some(("type", text)) if types.is_none() => types = Some(text),
            // As the original: no text.
            Some(("pmd", text)) => w.pmd = Some(pmd(text).ok_or_else(String::new)?),
            _ => break,
        }
        rest = before;
    }
    let b = choose(m, rest.first().copied().filter(|_| rest.len() == 1))?;
    w.filter = filter_text.map(|text| filter(&b, text)).transpose()?;
    w.others = types.map(check_type).transpose()? == Some(false);
    Ok((b, w))
}

/// The number at the start of a text, -1 for the threads that are no PMD's.
fn pmd(text: &str) -> Option<PmdId> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let n = (end > 0).then(|| digits[..end].parse().unwrap_or(u32::MAX - 1))?;
    match (negative, n) {
        (true, 1) => Some(PmdId::NON_PMD),
        (true, n) => Some(PmdId(n.wrapping_neg())),
        (false, n) => Some(PmdId(n)),
    }
}

/// Whether flows that are not offloaded are among `kinds`.
fn check_type(kinds: &str) -> Result<bool, String> {
    const KINDS: [&str; 7] =
        ["all", "ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded"];
    let all = || kinds.split(',').filter(|k| !k.is_empty());
    match all().find(|k| !KINDS.contains(k)) {
        Some(_) => Err(format!("ovs-vswitchd: Failed to parse type ({kinds}) (Invalid argument)")),
        None => Ok(all().any(|k| matches!(k, "all" | "ovs" | "non-offloaded"))),
    }
}

/// Ports in a filter are those of the datapath.
fn filter(b: &Backer, text: &str) -> Result<(Flow, Mask), String> {
    let names = b.port_names();
    let numbers = |n: &str| {
        let p = names.iter().find(|(_, name)| *name == n).map(|(p, _)| p.0);
        p.and_then(|p| u16::try_from(p).ok()).map(OfPort)
    };
    Flow::parse_given(text, &numbers)
        .map_err(|e| format!("ovs-vswitchd: Failed to parse filter ({text}: {e})"))
}

/// Whether packets of the filter's flow can meet `f`: what the filter leaves out is not looked at.
fn passes(f: &SharedFlow, (filter, given): &(Flow, Mask)) -> bool {
    let (mask, key) = (f.mask.mask(), f.key.flow());
    let words = key.words().iter().zip(filter.words()).zip(mask.0.words().iter().zip(given.0.words()));
    words.into_iter().all(|((k, v), (m, g))| (k ^ v) & m & g == 0)
}

pub(super) fn dump_flows(m: &mut Manager, args: &[&str]) -> Reply {
    let (b, w) = wanted(m, args)?;
    let table = b.port_names();
    let style =
        DumpStyle { verbose: w.options.verbose, names: w.options.names().then_some(&table), dpctl: true };
    let now = infra::clock::now_ms().max(0) as u64;
    let mut by_pmd: BTreeMap<PmdId, Vec<String>> = BTreeMap::new();
    for f in b.slow.flows().iter().filter(|_| !w.others) {
        let matches = w.filter.as_ref().is_none_or(|filter| passes(f, filter));
        if matches && w.pmd.is_none_or(|p| p == f.pmd) {
            by_pmd.entry(f.pmd).or_default().push(flow_line(f, &style, now));
        }
    }
    let mut out = String::new();
    for (id, lines) in by_pmd {
        if w.pmd.is_none() {
            let _ = match id.core() {
                Some(core) => writeln!(out, "flow-dump from pmd on cpu core: {core}"),
                None => writeln!(out, "flow-dump from the main thread:"),
            };
        }
        lines.iter().for_each(|l| out.extend([l.as_str(), "\n"]));
    }
    Ok(out)
}

pub(super) fn get_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (o, rest) = options(args, 1)?;
    let (b, rest) = words(m, rest, 1)?;
    let (Some(ufid), _) = split_ufid(rest.first().copied().unwrap_or_default()) else {
        return Ok("ovs-vswitchd: parsing flow ufid".into());
    };
    crate::coverage::FLOW_GET.inc();
    let found = b.slow.flows().into_iter().find(|f| f.ufid.0 == ufid.0);
    let Some(f) = found else { return Err(no_such_file("getting flow")) };
    let table = b.port_names();
    let style = DumpStyle { verbose: o.verbose, names: o.names().then_some(&table), dpctl: true };
    Ok(flow_line(&f, &style, infra::clock::now_ms().max(0) as u64))
}

//! `dpctl/add-flow` and its kin: flows of the datapath by hand, one or a file of them.
//!
//! Neighbours: the parent reads options. Threads: main only.

use super::{choose, no_such_file, options, words, Options};
use crate::backer::Backer;
use crate::manager::Manager;
use datapath::{FlowPut, SharedFlow};
use flow::odp::{
    parse_actions, parse_key, split_ufid, ActionError, Fit, FlowStats, KeyError, KeyOptions, PortNumbers,
    Ufid,
};
use flow::{Be16, DpAction, Flow, Mask};
use infra::command::Reply;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

static LOG: infra::vlog::Module = infra::vlog::Module::new("odp_util");
static LIMIT: infra::vlog::RateLimit = infra::vlog::RateLimit::new(60, 5);

/// How long a command waits in all for the threads that own flows. Main does nothing else meanwhile.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a file of flows may take.
const FILE_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(100);
/// Largest file of flows that is read.
const MAX_FILE: u64 = 64 << 20;

/// A flow as `add-flow` and its kin give it.
pub(super) struct Key {
    ufid: Option<Ufid>,
    pub(super) flow: Flow,
    mask: Mask,
    usable: bool,
}

/// Reads a flow; `numbers` knows the ports that have names.
pub(super) fn key(text: &str, numbers: PortNumbers) -> Result<Key, KeyError> {
    let (ufid, text) = split_ufid(text);
    let options = KeyOptions { ports: numbers, masks: true, vlan_limit: 1 };
    let k = parse_key(text, &options)?;
    let mut mask = k.mask;
    mask.0.packet_type = flow::Be32::ZERO;
    if mask.0.vlans[0].tci.is_zero() {
        mask.0.vlans[0].tci = Be16::MAX;
    }
    let typed = mask.0.dl_type == Be16::MAX && k.flow.packet_type.is_zero();
    let usable =
        k.fit == Fit::Perfect && typed && k.flow.in_port < flow::DpPort::NONE.0 && k.flow.in_port <= 0xffff;
    Ok(Key { ufid, flow: k.flow, mask, usable })
}

/// The installed flows that a packet with this key would meet, or that have the identifier.
fn find(b: &Backer, k: &Key) -> Vec<Arc<SharedFlow>> {
    let all = b.slow.flows();
    match k.ufid {
        Some(u) => all.into_iter().filter(|f| f.ufid.0 == u.0).collect(),
        None => all.into_iter().filter(|f| f.key.flow().matches(&k.flow, &f.mask.mask())).collect(),
    }
}

/// Waits until `done` says so, or `end`; flows come and go when their threads get to it.
fn settle(end: Instant, done: impl Fn() -> bool) {
    while !done() && Instant::now() < end {
        std::thread::sleep(PAUSE);
    }
}

fn actions(text: &str) -> Result<Vec<DpAction>, String> {
    parse_actions(text, &|_| None)
        .map_err(|e: ActionError| format!("ovs-vswitchd: parsing actions ({})", e.reason()))
}

fn put(b: &Backer, k: &Key, actions: Vec<DpAction>, end: Instant) -> Result<(), String> {
    if !k.usable {
        return Err("ovs-vswitchd: updating flow table (Invalid argument)".into());
    }
    for (pmd, ..) in b.datapath.pmd_stats() {
        let put = FlowPut {
            flow: k.flow,
            mask: k.mask,
            actions: actions.clone(),
            ufid: k.ufid.map(|u| datapath::Ufid(u.0)),
            seq: b.world.seq(),
            ctx: None,
        };
        b.datapath.flow_put(pmd, put);
    }
    settle(end, || !find(b, k).is_empty());
    Ok(())
}

/// A flow whose ports may have the names of the datapath's.
fn named_key(b: &Backer, text: &str) -> Result<Key, KeyError> {
    let names = b.port_names();
    key(text, &|n| names.iter().find(|(_, name)| *name == n).map(|(p, _)| *p))
}

fn parse_put(b: &Backer, flow: &str, actions_text: &str) -> Result<(Key, Vec<DpAction>), String> {
    if flow.starts_with("ufid:") && split_ufid(flow).0.is_none() {
        return Err("ovs-vswitchd: parsing flow ufid (Invalid argument)".into());
    }
    let k = named_key(b, flow).map_err(|e| match e {
        KeyError::Syntax(_) => format!("ovs-vswitchd: parsing flow key ({e}) (Invalid argument)"),
        // The text is a key, which no packet can have.
        e => {
            infra::vlog_rl!(LOG, LIMIT, Warn, "{e}");
            "ovs-vswitchd: updating flow table (Invalid argument)".to_string()
        }
    })?;
    Ok((k, actions(actions_text)?))
}

/// What `-s` prints.
fn statistics(flows: &[Arc<SharedFlow>]) -> String {
    let (now, mut sum) = (infra::clock::now_ms().max(0) as u64, FlowStats::default());
    for s in flows.iter().map(|f| f.stats()) {
        sum.packets += s.packets;
        sum.bytes += s.bytes;
        let ago = (s.used_ms != 0).then(|| now.saturating_sub(s.used_ms));
        sum.used_ms_ago = match (sum.used_ms_ago, ago) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        sum.tcp_flags |= s.tcp_flags;
    }
    format!("{sum}\n")
}

/// Adds a flow that must not be there.
fn add(b: &Backer, flow: &str, actions: &str, o: &Options, end: Instant) -> Reply {
    let (k, actions) = parse_put(b, flow, actions)?;
    if k.usable && !find(b, &k).is_empty() {
        return Err("ovs-vswitchd: updating flow table (File exists)".into());
    }
    put(b, &k, actions, end)?;
    Ok(if o.statistics { statistics(&[]) } else { String::new() })
}

/// Gives other actions to a flow that must be there, unless it may be created.
fn modify(b: &Backer, flow: &str, actions: &str, o: &Options, end: Instant) -> Reply {
    let (k, actions) = parse_put(b, flow, actions)?;
    let found = find(b, &k);
    if found.is_empty() {
        if !o.may_create {
            return Err(no_such_file("updating flow table"));
        }
        put(b, &k, actions.clone(), end)?;
    }
    for f in &found {
        b.datapath.flow_set_actions(f, actions.as_slice().into());
    }
    if o.clear && !found.is_empty() {
        // The actions are changed; counters cannot be.
        return Err("ovs-vswitchd: updating flow table (Operation not supported)".into());
    }
    Ok(if o.statistics { statistics(&found) } else { String::new() })
}

pub(super) fn add_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (o, rest) = options(args, 2)?;
    match words(m, rest, 2)? {
        (b, [flow, actions, ..]) => add(&b, flow, actions, &o, Instant::now() + PATIENCE),
        _ => Err("\"dpctl/add-flow\" command requires at least 2 arguments".into()),
    }
}

pub(super) fn mod_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (o, rest) = options(args, 2)?;
    match words(m, rest, 2)? {
        (b, [flow, actions, ..]) => modify(&b, flow, actions, &o, Instant::now() + PATIENCE),
        _ => Err("\"dpctl/mod-flow\" command requires at least 2 arguments".into()),
    }
}

fn delete(b: &Backer, flows: &[Arc<SharedFlow>], end: Instant) {
    flows.iter().for_each(|f| b.datapath.flow_delete(f));
    // Others may come while these go, as many.
    let gone: HashSet<_> = flows.iter().map(Arc::as_ptr).collect();
    settle(end, || !b.slow.flows().iter().any(|f| gone.contains(&Arc::as_ptr(f))));
}

fn remove(b: &Backer, text: &str, o: &Options, end: Instant) -> Reply {
    let found: Vec<Arc<SharedFlow>> = match split_ufid(text) {
        (Some(u), "") => b.slow.flows().into_iter().filter(|f| f.ufid.0 == u.0).collect(),
        _ => {
            let k = named_key(b, text).map_err(|e| format!("ovs-vswitchd: {e} (Invalid argument)"))?;
            let same = |f: &Arc<SharedFlow>| f.mask.mask().0.words()[..] == masked(&k.mask).0.words()[..];
            let found = find(b, &k).into_iter();
            found.filter(|f| k.ufid.is_some() || same(f)).collect()
        }
    };
    if found.is_empty() {
        return Err(no_such_file("deleting flow") + "\nPerhaps you need to specify a UFID?");
    }
    delete(b, &found, end);
    Ok(if o.statistics { statistics(&found) } else { String::new() })
}

pub(super) fn del_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (o, rest) = options(args, 1)?;
    let (b, rest) = words(m, rest, 1)?;
    remove(&b, rest.first().copied().unwrap_or_default(), &o, Instant::now() + PATIENCE)
}

/// The mask as a thread installs it.
fn masked(mask: &Mask) -> Mask {
    let mut mask = *mask;
    (mask.0.in_port, mask.0.recirc_id) = (u32::MAX, u32::MAX);
    mask
}

// ---------------------------------------------------------------------------------------------------- files

/// What a line of a file does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verb {
    Add,
    Modify,
    Delete,
}

/// Verb, flow and actions of a line; what is missing makes it none.
fn line(text: &str, default: Verb) -> Option<(Verb, &str, &str)> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (verb, text) = match first {
        "add" => (Verb::Add, rest.trim_start()),
        "modify" => (Verb::Modify, rest.trim_start()),
        "delete" => (Verb::Delete, rest.trim_start()),
        _ => (default, text),
    };
    let (flow, actions) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let actions = actions.trim();
    let complete = !flow.is_empty() && actions.is_empty() == (verb == Verb::Delete);
    complete.then_some((verb, flow, actions))
}

/// Carries out the lines of a file; what went wrong.
fn from_file(b: &Backer, text: &str, default: Verb) -> String {
    let (o, end) = (Options::default(), Instant::now() + FILE_PATIENCE);
    each_line(text, Instant::now, end, |number, text, now| {
        // A line sees what those before it did.
        let settled = end.min(now + PATIENCE);
        match line(text, default) {
            None => Err(format!("ovs-vswitchd: Failed parsing line number {number}, skipped!")),
            Some((Verb::Add, flow, actions)) => add(b, flow, actions, &o, settled),
            Some((Verb::Modify, flow, actions)) => modify(b, flow, actions, &o, settled),
            Some((Verb::Delete, flow, _)) => remove(b, flow, &o, settled),
        }
    })
}

/// Does each line that says something, by number, until `end`; what went wrong.
fn each_line(
    text: &str,
    clock: impl Fn() -> Instant,
    end: Instant,
    mut does: impl FnMut(usize, &str, Instant) -> Reply,
) -> String {
    let mut out = String::new();
    for (i, whole) in text.lines().enumerate() {
        let text = whole.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let now = clock();
        if now > end {
            let _ = writeln!(out, "ovs-vswitchd: stopped at line number {}: the file takes too long", i + 1);
            break;
        }
        if let Err(e) = does(i + 1, text, now) {
            let _ = writeln!(out, "{e}");
        }
    }
    out
}

/// A regular file's text. There is no standard input, a directory has no lines, and a pipe would block.
fn read(name: &str) -> Result<String, String> {
    read_text(name).map_err(|e| format!("ovs-vswitchd: Opening file \"{name}\" failed ({})", reason(&e)))
}

fn read_text(name: &str) -> std::io::Result<String> {
    use std::io::Read;
    let about = std::fs::metadata(name);
    if name == "-" || about.as_ref().is_ok_and(|m| !m.is_file()) {
        return Ok(String::new());
    }
    about?;
    let mut bytes = Vec::new();
    std::fs::File::open(name)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn reason(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

/// With two words the first is the datapath's name, which the original looks at only when there are several.
fn each_of(m: &Manager, args: &[&str], verb: Verb) -> Reply {
    let (o, rest) = options(args, 1)?;
    let text = match read(rest.last().copied().unwrap_or_default()) {
        Ok(text) => text,
        Err(e) => return Ok(e),
    };
    let b = one_of(m, rest)?;
    // As in the original, with an option what has no verb is added.
    Ok(from_file(&b, &text, if o.any { Verb::Add } else { verb }))
}

fn one_of(m: &Manager, rest: &[&str]) -> Result<Arc<Backer>, String> {
    choose(m, rest.first().copied().filter(|_| rest.len() > 1 && m.shared.backers.len() > 1))
}

pub(super) fn add_flows(m: &mut Manager, args: &[&str]) -> Reply {
    each_of(m, args, Verb::Add)
}

pub(super) fn mod_flows(m: &mut Manager, args: &[&str]) -> Reply {
    each_of(m, args, Verb::Modify)
}

pub(super) fn del_flows(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let b = match rest {
        [] => choose(m, None)?,
        [name] if m.shared.backers.with_full_name(name).is_some() => choose(m, Some(name))?,
        [.., file] => {
            return match read(file) {
                Ok(text) => Ok(from_file(&*one_of(m, rest)?, &text, Verb::Delete)),
                Err(e) => Ok(e),
            }
        }
    };
    crate::coverage::FLOW_FLUSH.inc();
    delete(&b, &b.slow.flows(), Instant::now() + PATIENCE);
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::{line, Verb};

    #[test]
    fn lines_of_files() {
        assert_eq!(line("a 1, 2", Verb::Add), Some((Verb::Add, "a", "1, 2")));
        assert_eq!(line("modify\ta\t3", Verb::Add), Some((Verb::Modify, "a", "3")));
        assert_eq!(line("delete  a", Verb::Add), Some((Verb::Delete, "a", "")));
        assert_eq!(line("added a", Verb::Add), Some((Verb::Add, "added", "a")));
        for bad in ["a", "add", "add a", "delete", "delete a 1", "modify"] {
            assert_eq!(line(bad, Verb::Add), None, "{bad}");
        }
        assert_eq!(line("a", Verb::Delete), Some((Verb::Delete, "a", "")));
    }

    #[test]
    fn a_file_ends_with_its_time() {
        use super::{each_line, Duration, Instant};
        let (start, lines) = (Instant::now(), std::cell::Cell::new(0));
        // A second a line.
        let clock = || start + Duration::from_secs(lines.get());
        let out =
            each_line("a\n\n#\nb\nc\nd\ne", clock, start + Duration::from_secs(2), |number, text, _| {
                lines.set(lines.get() + 1);
                if text == "b" {
                    Err(number.to_string())
                } else {
                    Ok(String::new())
                }
            });
        assert_eq!(out, "4\novs-vswitchd: stopped at line number 6: the file takes too long\n");
        assert_eq!(lines.get(), 3);
    }
}

//! `dpctl/*` about flows and ports of the datapath (ovs-dpctl(8)).
//!
//! Neighbours: `show` prints flows and lists the other commands; the daemon serves [`COMMANDS`]. Threads: main only.

use crate::backer::Backer;
use crate::manager::Manager;
use crate::show::{flow_line, DumpStyle};
use datapath::{Datapath, FlowPut, PmdId, SharedFlow};
use flow::odp::{
    format_actions, format_key, parse_actions, parse_key, split_ufid, Fit, KeyOptions, Style, Ufid,
};
use flow::{Be16, DpAction, DpPort, Flow, Mask, OfPort};
use infra::command::{Command, Reply, MANY};
use netdev::Netdev;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

static LOG: infra::vlog::Module = infra::vlog::Module::new("odp_util");
static LIMIT: infra::vlog::RateLimit = infra::vlog::RateLimit::new(60, 5);

/// All commands of this module.
pub const COMMANDS: [Command<Manager>; 15] = [
    Command::new("dpctl/add-dp", "dp [iface...]", 1, MANY, add_dp),
    Command::new("dpctl/add-flow", "[dp] flow actions", 2, 3, add_flow),
    Command::new("dpctl/add-flows", "[dp] file", 1, 2, add_flows),
    Command::new("dpctl/add-if", "dp iface...", 2, MANY, add_if),
    Command::new("dpctl/del-dp", "dp", 1, 1, del_dp),
    Command::new("dpctl/del-flow", "[dp] flow", 1, 2, del_flow),
    Command::new("dpctl/del-flows", "[dp] [file]", 0, 2, del_flows),
    Command::new("dpctl/del-if", "dp iface...", 2, MANY, del_if),
    Command::new("dpctl/dump-flows", "[-m] [--names] [dp] [filter=..] [type=..] [pmd=..]", 0, 6, dump_flows),
    Command::new("dpctl/get-flow", "[dp] ufid", 1, 2, get_flow),
    Command::new("dpctl/mod-flow", "[dp] flow actions", 2, 3, mod_flow),
    Command::new("dpctl/mod-flows", "[dp] file", 1, 2, mod_flows),
    Command::new("dpctl/normalize-actions", "actions", 2, MANY, normalize_actions),
    Command::new("dpctl/parse-actions", "actions", 1, MANY, show_actions),
    Command::new("dpctl/set-if", "dp iface...", 2, MANY, set_if),
];

/// How long a command waits for the thread that owns a flow.
const PATIENCE: usize = 400;
const PAUSE: Duration = Duration::from_micros(100);

const NO_DATAPATH: &str = "ovs-vswitchd: datapath not found (Invalid argument)";

fn no_such_file(what: &str) -> String {
    format!("ovs-vswitchd: {what} (No such file or directory)")
}

/// Options, the datapath, and the words behind its name, which may be left out when there is one.
fn words<'a>(
    m: &Manager,
    args: &[&'a str],
    n: usize,
    options: &[&str],
) -> Result<(Vec<&'a str>, Arc<Backer>, Vec<&'a str>), String> {
    let (given, words): (Vec<&str>, Vec<&str>) = args.iter().partition(|a| a.starts_with('-'));
    if let Some(o) = given.iter().find(|o| !options.contains(o)) {
        return Err(format!("Unrecognized option {o}"));
    }
    if words.len() > n {
        let b = choose(m, Some(words[0]))?;
        return Ok((given, b, words[1..].to_vec()));
    }
    Ok((given, choose(m, None)?, words))
}

/// The datapath of that name and type, or the only one.
fn choose(m: &Manager, name: Option<&str>) -> Result<Arc<Backer>, String> {
    let all = &m.shared.backers;
    let found = match name {
        Some(name) => all.with_full_name(name),
        None => all.only(),
    };
    let why = match (name, all.len()) {
        (Some(_), _) => "",
        (None, 0) => "ovs-vswitchd: no datapaths exist\n",
        (None, _) => "ovs-vswitchd: multiple datapaths, specify one\n",
    };
    found.cloned().ok_or_else(|| format!("{why}{NO_DATAPATH}"))
}

// ---------------------------------------------------------------------------------------------------- flows

/// A flow as `add-flow` and its kin give it.
struct Key {
    ufid: Option<Ufid>,
    flow: Flow,
    mask: Mask,
    usable: bool,
}

fn key(b: &Backer, text: &str) -> Result<Key, String> {
    parse(&b.port_names(), text)
}

fn parse(names: &BTreeMap<DpPort, String>, text: &str) -> Result<Key, String> {
    let (ufid, text) = split_ufid(text);
    let numbers = |n: &str| names.iter().find(|(_, name)| *name == n).map(|(p, _)| *p);
    let options = KeyOptions { ports: &numbers, masks: true, vlan_limit: 1 };
    let k = parse_key(text, &options).map_err(|e| e.to_string())?;
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

/// Waits until `done` says so; flows come and go when their threads get to it.
fn settle(done: impl Fn() -> bool) {
    for _ in 0..PATIENCE {
        if done() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn actions(text: &str) -> Result<Vec<DpAction>, String> {
    parse_actions(text, &|_| None).map_err(|_| "ovs-vswitchd: parsing actions (Invalid argument)".into())
}

fn put(b: &Backer, k: &Key, actions: Vec<DpAction>) -> Result<(), String> {
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
    settle(|| !find(b, k).is_empty());
    Ok(())
}

fn parse_put(b: &Backer, flow: &str, with: &str) -> Result<(Key, Vec<DpAction>), String> {
    if flow.starts_with("ufid:") && split_ufid(flow).0.is_none() {
        return Err("ovs-vswitchd: parsing flow ufid (Invalid argument)".into());
    }
    let k = key(b, flow).map_err(|e| match e.starts_with("syntax error") {
        true => format!("ovs-vswitchd: parsing flow key ({e}) (Invalid argument)"),
        // The text is a key, which no packet can have.
        false => {
            infra::vlog_rl!(LOG, LIMIT, Warn, "{e}");
            "ovs-vswitchd: updating flow table (Invalid argument)".to_string()
        }
    })?;
    Ok((k, actions(with)?))
}

fn add_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, b, words) = words(m, args, 2, &[])?;
    add_one(&b, words[0], words[1]).map(|()| String::new())
}

fn add_one(b: &Backer, flow: &str, with: &str) -> Result<(), String> {
    let (k, actions) = parse_put(b, flow, with)?;
    if k.usable && !find(b, &k).is_empty() {
        return Err("ovs-vswitchd: updating flow table (File exists)".into());
    }
    put(b, &k, actions)
}

fn mod_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (options, b, words) = words(m, args, 2, &["--clear", "--may-create"])?;
    if words.len() < 2 {
        return Err("\"dpctl/mod-flow\" command requires at least 2 arguments".into());
    }
    mod_one(&b, (words[0], words[1]), &options).map(|()| String::new())
}

fn mod_one(b: &Backer, (flow, with): (&str, &str), options: &[&str]) -> Result<(), String> {
    let (k, actions) = parse_put(b, flow, with)?;
    let found = find(b, &k);
    if found.is_empty() {
        if options.contains(&"--may-create") {
            return put(b, &k, actions);
        }
        return Err(no_such_file("updating flow table"));
    }
    for f in found {
        b.datapath.flow_set_actions(&f, actions.as_slice().into());
    }
    if options.contains(&"--clear") {
        // The actions are changed; counters cannot be.
        return Err("ovs-vswitchd: updating flow table (Operation not supported)".into());
    }
    Ok(())
}

fn get_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (options, b, words) = words(m, args, 1, &["-m", "--more", "--names", "--no-names"])?;
    let Some(text) = words.last() else {
        return Err("\"dpctl/get-flow\" command requires at least 1 arguments".into());
    };
    let (Some(ufid), _) = split_ufid(text) else { return Ok("ovs-vswitchd: parsing flow ufid".into()) };
    let found = b.slow.flows().into_iter().find(|f| f.ufid.0 == ufid.0);
    let Some(f) = found else { return Err(no_such_file("getting flow")) };
    let table = b.port_names();
    let verbose = options.iter().any(|o| o.starts_with("-m") || *o == "--more");
    let names = verbose || options.contains(&"--names");
    let style = DumpStyle { verbose, names: names.then_some(&table), dpctl: true };
    Ok(flow_line(&f, &style, infra::clock::now_ms().max(0) as u64))
}

fn delete(b: &Backer, flows: &[Arc<SharedFlow>]) {
    flows.iter().for_each(|f| b.datapath.flow_delete(f));
    settle(|| {
        let left = b.slow.flows();
        !left.iter().any(|f| flows.iter().any(|g| Arc::ptr_eq(f, g)))
    });
}

fn del_flow(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, b, words) = words(m, args, 1, &[])?;
    del_one(&b, words.last().copied().unwrap_or_default())
}

/// Deletes the flow that `text` names.
fn del_one(b: &Backer, text: &str) -> Reply {
    let found = match split_ufid(text) {
        (Some(u), "") => b.slow.flows().into_iter().filter(|f| f.ufid.0 == u.0).collect(),
        _ => {
            let k = key(b, text).map_err(|e| format!("ovs-vswitchd: {e} (Invalid argument)"))?;
            let same = |f: &Arc<SharedFlow>| f.mask.mask().0.words()[..] == masked(&k.mask).0.words()[..];
            let found = find(b, &k);
            if k.ufid.is_some() {
                found
            } else {
                found.into_iter().filter(same).collect()
            }
        }
    };
    if found.is_empty() {
        return Err(no_such_file("deleting flow") + "\nPerhaps you need to specify a UFID?");
    }
    delete(b, &found);
    Ok(String::new())
}

/// The mask as a thread installs it.
fn masked(mask: &Mask) -> Mask {
    let mut mask = *mask;
    (mask.0.in_port, mask.0.recirc_id) = (u32::MAX, u32::MAX);
    mask
}

fn del_flows(m: &mut Manager, args: &[&str]) -> Reply {
    let named = args.len() == 1 && choose(m, args.first().copied()).is_ok();
    if !args.is_empty() && !named {
        return from_file(m, args, Change::Delete);
    }
    let b = choose(m, args.first().copied())?;
    delete(&b, &b.slow.flows());
    Ok(String::new())
}

fn add_flows(m: &mut Manager, args: &[&str]) -> Reply {
    from_file(m, args, Change::Add)
}

fn mod_flows(m: &mut Manager, args: &[&str]) -> Reply {
    from_file(m, args, Change::Modify)
}

/// What a line of a file asks for.
#[derive(Clone, Copy)]
enum Change {
    Add,
    Modify,
    Delete,
}

/// A line's first word and what stands behind it.
fn first_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

/// Carries out the lines of a file, each of which may say what is to be done; the answer is what went wrong.
fn from_file(m: &Manager, args: &[&str], usual: Change) -> Reply {
    let file = args.last().copied().unwrap_or_default();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return Ok(format!("ovs-vswitchd: Opening file \"{file}\" failed ({})\n", reason(&e))),
    };
    let named = args.first().copied().filter(|_| args.len() > 1);
    let b = choose(m, named).or_else(|_| choose(m, None))?;
    let mut wrong = String::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (mut flow, mut with) = first_word(line);
        let change = match flow {
            "add" => Some(Change::Add),
            "modify" => Some(Change::Modify),
            "delete" => Some(Change::Delete),
            _ => None,
        };
        if change.is_some() {
            (flow, with) = first_word(with);
        }
        let done = match (change.unwrap_or(usual), with.is_empty()) {
            (Change::Add, false) => add_one(&b, flow, with),
            (Change::Modify, false) => mod_one(&b, (flow, with), &[]),
            (Change::Delete, true) => del_one(&b, flow).map(|_| ()),
            _ => Err(format!("ovs-vswitchd: Failed parsing line number {number}, skipped!")),
        };
        if let Err(e) = done {
            wrong += &(e + "\n");
        }
    }
    Ok(wrong)
}

fn reason(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

// ---------------------------------------------------------------------------------------------------- dump-flows

/// What `dump-flows` is to print.
#[derive(Default)]
struct Wanted {
    verbose: bool,
    names: bool,
    pmd: Option<PmdId>,
    filter: Option<(Flow, Mask)>,
    /// Kinds of flows that cannot be here.
    others: bool,
}

fn wanted(m: &Manager, args: &[&str]) -> Result<(Arc<Backer>, Wanted), String> {
    let (mut w, mut words, mut condition) = (Wanted::default(), Vec::new(), None);
    for a in args {
        match *a {
            "-m" | "--more" => w.verbose = true,
            "--names" => w.names = true,
            "--no-names" => w.names = false,
            a if a.starts_with("pmd=") => {
                // As the original: no text.
                let n: i64 = a[4..].parse().map_err(|_| String::new())?;
                let pmd =
                    if n < 0 { PmdId::NON_PMD } else { PmdId(u32::try_from(n).unwrap_or(u32::MAX - 1)) };
                w.pmd = Some(pmd);
            }
            a if a.starts_with("type=") => w.others = !check_type(&a[5..])?,
            a if a.starts_with("filter=") => condition = Some(&a[7..]),
            o if o.starts_with('-') => return Err(format!("Unrecognized option {o}")),
            name => words.push(name),
        }
    }
    let b = choose(m, words.first().copied().filter(|_| words.len() == 1))?;
    w.filter = condition.map(|text| filter(&b, text)).transpose()?;
    Ok((b, w))
}

/// Whether flows that are not offloaded are among `kinds`.
fn check_type(kinds: &str) -> Result<bool, String> {
    const KINDS: [&str; 6] = ["ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded"];
    match kinds.split(',').find(|k| !KINDS.contains(k)) {
        Some(_) => Err(format!("ovs-vswitchd: Failed to parse type ({kinds}) (Invalid argument)")),
        None => Ok(kinds.split(',').any(|k| matches!(k, "ovs" | "non-offloaded"))),
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

/// Ones in each byte of `v` that is not zero.
fn bytes_set(v: u64) -> u64 {
    u64::from_ne_bytes(v.to_ne_bytes().map(|b| if b == 0 { 0 } else { 0xff }))
}

fn dump_flows(m: &mut Manager, args: &[&str]) -> Reply {
    let (b, w) = wanted(m, args)?;
    let table = b.port_names();
    let style =
        DumpStyle { verbose: w.verbose, names: (w.names || w.verbose).then_some(&table), dpctl: true };
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

// ---------------------------------------------------------------------------------------------------- actions

const BAD_ACTIONS: &str = "ovs-vswitchd: odp_actions_from_string (Invalid argument)";

fn show_actions(_: &mut Manager, args: &[&str]) -> Reply {
    let mut out = String::new();
    for text in args {
        let Ok(actions) = parse_actions(text, &|_| None) else { return Err(out + BAD_ACTIONS) };
        format_actions(&mut out, &actions, &Style::default());
        out.push('\n');
    }
    Ok(out)
}

/// Prints the actions by the VLAN header that packets have when they run.
fn normalize_actions(m: &mut Manager, args: &[&str]) -> Reply {
    let bad = |e: String| format!("ovs-vswitchd: odp_flow_key_from_string ({e}) (Invalid argument)");
    let mut names = m.shared.backers.only().map(|b| b.port_names()).unwrap_or_default();
    for word in &args[2..] {
        let number =
            word.split_once('=').and_then(|(name, n)| Some((DpPort(n.parse().ok()?), name.to_string())));
        names.extend([number.ok_or_else(|| format!("ovs-vswitchd: {word}: expected NAME=NUMBER"))?]);
    }
    let k = parse(&names, args[0]).map_err(bad)?;
    let mut shown = Mask(k.flow.packet_mask().0);
    for (w, v) in shown.0.words_mut().iter_mut().zip(k.flow.words()).take(METADATA_WORDS) {
        *w = bytes_set(*v);
    }
    shown.0.in_port = u32::MAX;
    shown.0.packet_type = flow::Be32::ZERO;
    shown.0.tcp_flags = Be16::ZERO;
    if !args[0].contains("eth") {
        shown = Mask(Flow { in_port: u32::MAX, ..Flow::default() });
    }
    let mut out = String::from("input flow: ");
    format_key(&mut out, &k.flow, Some(&shown), &Style::default());
    out.push('\n');
    let Ok(actions) = parse_actions(args[1], &|_| None) else { return Err(out + BAD_ACTIONS) };
    let mut vlans: Vec<Be16> = k.flow.vlans.iter().rev().map(|v| v.tci).filter(|t| !t.is_zero()).collect();
    let mut groups: BTreeMap<u16, Vec<DpAction>> = BTreeMap::new();
    for a in actions {
        match a {
            DpAction::PushVlan { tci, .. } => vlans.push(tci),
            DpAction::PopVlan => {
                vlans.pop();
            }
            a => groups.entry(vlans.last().map_or(0, |t| t.get())).or_default().push(a),
        }
    }
    for (tci, actions) in groups {
        let _ = match tci {
            0 => write!(out, "no vlan: no mpls: "),
            t => write!(out, "vlan(vid={},pcp={}): no mpls: ", t & 0xfff, t >> 13),
        };
        format_actions(&mut out, &actions, &Style::default());
    }
    Ok(out)
}

/// Words of a flow before its Ethernet header.
const METADATA_WORDS: usize = std::mem::offset_of!(Flow, dl_dst) / 8;

// ---------------------------------------------------------------------------------------------------- ports

/// Why a datapath that is not there cannot be opened: the kernel's says it in its own way, and of unknown types there
/// are none.
pub(crate) fn absent(m: &Manager, name: &str) -> &'static str {
    let class = name.split_once('@').map_or("system", |(class, _)| class);
    match class {
        class if m.classes.iter().any(|c| c.name == class) => "No such device",
        "system" => "No such file or directory",
        _ => "Address family not supported by protocol",
    }
}

fn open_dp(m: &Manager, name: &str) -> Result<Arc<Datapath>, String> {
    match m.shared.backers.with_full_name(name) {
        Some(b) => Ok(b.datapath.clone()),
        None => Err(format!("ovs-vswitchd: opening datapath ({})", absent(m, name))),
    }
}

fn add_dp(m: &mut Manager, args: &[&str]) -> Reply {
    match open_dp(m, args[0]) {
        Ok(_) => Err("ovs-vswitchd: add_dp (File exists)".into()),
        Err(_) if args[0].contains('@') => Err("ovs-vswitchd: add_dp (Operation not supported)".into()),
        Err(_) => Err(no_such_file("add_dp")),
    }
}

fn del_dp(m: &mut Manager, args: &[&str]) -> Reply {
    open_dp(m, args[0])?;
    Err("ovs-vswitchd: deleting datapath (Device or resource busy)".into())
}

fn interface(text: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    (name, parts.map(|p| p.split_once('=').unwrap_or((p, ""))).collect())
}

fn option<'a>(options: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    options.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

fn failed(errors: &str) -> Reply {
    if errors.is_empty() {
        Ok(String::new())
    } else {
        Err(errors.trim_end().into())
    }
}

/// Ports that no bridge wants leave the datapath at once: the devices are only tried.
fn add_if(m: &mut Manager, args: &[&str]) -> Reply {
    open_dp(m, args[0])?;
    let mut errors = String::new();
    for text in &args[1..] {
        let (name, options) = interface(text);
        let kind = option(&options, "type").unwrap_or("system");
        if let Err(e) = m.opener.open(name, kind, &netdev::Config::default()) {
            let why = match e {
                netdev::Error::UnknownType(_) => "Address family not supported by protocol",
                _ => "No such device",
            };
            let _ = writeln!(errors, "ovs-vswitchd: {name}: failed to open network device ({why})");
        }
    }
    failed(&errors)
}

fn port(dp: &Datapath, name: &str) -> Option<(DpPort, Arc<dyn Netdev>)> {
    dp.ports().into_iter().find(|p| p.netdev.name() == name).map(|p| (p.no, p.netdev))
}

fn set_if(m: &mut Manager, args: &[&str]) -> Reply {
    let dp = open_dp(m, args[0])?;
    let (mut errors, mut remarks) = (String::new(), String::new());
    for text in &args[1..] {
        let (name, options) = interface(text);
        let Some((no, device)) = port(&dp, name) else {
            let to = dp.full_name();
            let _ = writeln!(errors, "ovs-vswitchd: {name}: failed to query port in {to} (No such device)");
            continue;
        };
        let kind = device.dpif_type();
        for (key, value) in options {
            let _ = match key {
                "type" if value != kind => {
                    writeln!(errors, "ovs-vswitchd: {name}: can't change type from {kind} to {value}")
                }
                "port_no" if value.parse() != Ok(no.0) => {
                    writeln!(errors, "ovs-vswitchd: {name}: can't change port number from {no} to {value}")
                }
                "type" | "port_no" => Ok(()),
                _ => {
                    remarks = format!(
                        "ovs-vswitchd: {name}: arguments provided to device that is not configurable\n"
                    );
                    Ok(())
                }
            };
        }
    }
    failed(&errors).map(|_| remarks)
}

/// Ports that a bridge has come back at once: there is nothing to do for them.
fn del_if(m: &mut Manager, args: &[&str]) -> Reply {
    let dp = open_dp(m, args[0])?;
    let ports = dp.ports();
    let mut errors = String::new();
    for name in &args[1..] {
        let number: Option<u32> = name.parse().ok();
        let found = ports.iter().find(|p| p.netdev.name() == *name || number == Some(p.no.0));
        let _ = match (found, number) {
            (Some(p), _) if p.no == DpPort(0) => writeln!(
                errors,
                "ovs-vswitchd: deleting port {name} from {} failed (Invalid argument)",
                dp.full_name()
            ),
            (Some(_), _) => Ok(()),
            (None, Some(_)) => writeln!(
                errors,
                "ovs-vswitchd: deleting port {name} from {} failed (No such device)",
                dp.full_name()
            ),
            (None, None) => writeln!(errors, "ovs-vswitchd: no port named {name}"),
        };
    }
    failed(&errors)
}

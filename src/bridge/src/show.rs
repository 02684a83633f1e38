//! Commands of `ovs-appctl` about bridges, the datapath and its flows.
//!
//! Texts are those of the original (ovs-vswitchd(8), ovs-dpctl(8)). Neighbours: the daemon serves [`COMMANDS`].
//! Threads: main only.

use crate::manager::Manager;
use crate::state::{Bridge, Interface};
use datapath::{Provider, ProviderStats, SharedFlow};
use flow::odp::{format_actions, format_key, miniflow_bits, FlowStats, Style};
use flow::{DpPort, OfPort};
use infra::command::{Command, Reply, MANY};
use netdev::Netdev;
use ofproto::mac_learning::MacKey;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// All commands of this crate.
pub const COMMANDS: [Command<Manager>; 12] = [
    Command::new("dpif/dump-dps", "", 0, 0, dpif_dump_dps),
    Command::new("dpif/dump-flows", "[-m] [--names | --no-names] bridge", 1, MANY, dpif_dump_flows),
    Command::new("dpif/show", "", 0, 0, dpif_show),
    Command::new("fdb/add", "bridge port vlan mac", 4, 4, fdb_add),
    Command::new("fdb/del", "bridge vlan mac", 3, 3, fdb_del),
    Command::new("fdb/flush", "[bridge]", 0, 1, fdb_flush),
    Command::new("fdb/show", "bridge", 1, 1, fdb_show),
    Command::new("fdb/stats-clear", "[bridge]", 0, 1, fdb_stats_clear),
    Command::new("fdb/stats-show", "bridge", 1, 1, fdb_stats_show),
    Command::new("ofproto/list", "", 0, 0, ofproto_list),
    Command::new("upcall/set-flow-limit", "flow-limit-number", 1, 1, set_flow_limit),
    Command::new("upcall/show", "", 0, 0, upcall_show),
];

/// Appends formatted text. Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}

impl Manager {
    fn bridge(&self, name: &str) -> Result<&Bridge, String> {
        self.bridges.get(name).ok_or_else(|| "no such bridge".to_string())
    }

    /// What the parts keep in memory, by name.
    pub fn memory(&self) -> Vec<(String, usize)> {
        let mut sums = BTreeMap::new();
        for b in self.bridges.values() {
            *sums.entry("ports".to_string()).or_default() += b.interfaces.len();
            *sums.entry("rules".to_string()).or_default() += b.of.flows().len();
        }
        for (name, n) in self.shared.backers.iter().flat_map(|b| b.slow.memory()) {
            *sums.entry(name).or_default() += n;
        }
        sums.into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

fn ofproto_list(m: &mut Manager, _: &[&str]) -> Reply {
    Ok(m.bridges.keys().map(|n| format!("{n}\n")).collect())
}

// -------------------------------------------------------------------------------------------- dpif, dpctl

pub(crate) fn args_text(n: &dyn Netdev) -> String {
    let pairs = n.show_args();
    if pairs.is_empty() {
        return String::new();
    }
    let list: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!(": {}", list.join(", "))
}

fn interface_line(name: &str, i: &Interface, no: OfPort) -> String {
    match (&i.netdev, i.dp_port) {
        (Some(n), Some(dp)) => {
            format!("    {name} {}/{dp}: ({}{})\n", no.0, n.dpif_type(), args_text(n.as_ref()))
        }
        _ => format!("    {name} {}/none: (patch: peer={})\n", no.0, i.peer().unwrap_or_default()),
    }
}

fn dpif_show(m: &mut Manager, _: &[&str]) -> Reply {
    let mut out = String::new();
    for backer in m.shared.backers.by_name() {
        let ProviderStats { hit, missed, .. } = backer.datapath.stats();
        put!(out, "{}: hit:{hit} missed:{missed}\n", backer.datapath.full_name());
        for (name, b) in m.bridges.iter().filter(|(_, b)| Arc::ptr_eq(&b.backer, backer)) {
            put!(out, "  {name}:\n");
            for (n, i) in &b.interfaces {
                if let Some(no) = i.ofport {
                    out.push_str(&interface_line(n, i, no));
                }
            }
        }
    }
    Ok(out)
}

fn dpif_dump_dps(m: &mut Manager, _: &[&str]) -> Reply {
    let mut names: Vec<String> =
        m.bridges.iter().map(|(n, b)| format!("{}@{n}\n", b.backer.class.name)).collect();
    names.sort_unstable();
    Ok(names.concat())
}

pub(crate) fn known(v: u64) -> String {
    if v == u64::MAX {
        "?".into()
    } else {
        v.to_string()
    }
}

/// How flows are printed.
pub(crate) struct DumpStyle<'a> {
    pub(crate) verbose: bool,
    pub(crate) names: Option<&'a BTreeMap<DpPort, String>>,
    /// `dpctl` puts a comma behind the ufid and shows which datapath has the flow; `dpif` does not.
    pub(crate) dpctl: bool,
}

pub(crate) fn flow_line(f: &SharedFlow, style: &DumpStyle<'_>, now_ms: u64) -> String {
    let resolve = |p: DpPort| style.names.and_then(|n| n.get(&p).cloned());
    let odp = Style { verbose: style.verbose, names: style.names.is_some().then_some(&resolve as _) };
    let mut out = String::new();
    if style.verbose {
        put!(out, "ufid:{}{} ", f.ufid, if style.dpctl { "," } else { "" });
    }
    let mask = f.mask.mask();
    format_key(&mut out, &f.key.flow(), Some(&mask), &odp);
    if mask.0.packet_type.is_zero() && !out.contains("eth(") {
        // Asked for by hand: such a key says that it is one of Ethernet.
        out = out.replacen("eth_type(", "eth(),eth_type(", 1);
    }
    let s = f.stats();
    let stats = FlowStats {
        packets: s.packets,
        bytes: s.bytes,
        used_ms_ago: (s.used_ms != 0).then(|| now_ms.saturating_sub(s.used_ms)),
        tcp_flags: s.tcp_flags,
    };
    put!(out, ", {stats}");
    if style.verbose && style.dpctl {
        out.push_str(", dp:ovs");
    }
    out.push_str(", actions:");
    format_actions(&mut out, &f.actions(), &odp);
    if style.verbose && style.dpctl {
        let (low, high) = miniflow_bits(&mask.0);
        put!(out, ", dp-extra-info:miniflow_bits({low},{high})");
    }
    out
}

fn dpif_dump_flows(m: &mut Manager, args: &[&str]) -> Reply {
    let (name, options) = args.split_last().ok_or("no such bridge")?;
    let (mut verbose, mut names) = (false, None);
    for o in options {
        match *o {
            "-m" => verbose = true,
            "--names" => names = Some(true),
            "--no-names" => names = Some(false),
            // As in the original, words without a meaning do nothing.
            _ => {}
        }
    }
    let b = m.bridge(name)?;
    let ports: Vec<u32> = b.interfaces.values().filter_map(|i| i.dp_port).map(|p| p.0).collect();
    let table = b.backer.port_names();
    let style = DumpStyle { verbose, names: names.unwrap_or(verbose).then_some(&table), dpctl: false };
    let now = infra::clock::now_ms().max(0) as u64;
    let mut out = String::new();
    for f in b.backer.slow.flows().iter().filter(|f| ports.contains(&f.key.flow().in_port)) {
        out.push_str(&flow_line(f, &style, now));
        out.push('\n');
    }
    Ok(out)
}

// -------------------------------------------------------------------------------------------- fdb

fn parse_key(vlan: &str, mac: &str) -> Result<MacKey, String> {
    let mac = crate::wanted::parse_mac(mac).ok_or("bad MAC address")?;
    let vlan = vlan.parse::<u16>().unwrap_or(0);
    Ok(MacKey { vlan, mac })
}

fn mac_text(m: [u8; 6]) -> String {
    m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn fdb_show(m: &mut Manager, args: &[&str]) -> Reply {
    let b = m.bridge(args[0])?;
    let now = infra::clock::now_ms().max(0) as u64;
    let mut out = String::from(" port  VLAN  MAC                Age\n");
    for e in b.macs.list(now) {
        let bundle = b.bundles.values().find(|x| x.id == e.bundle);
        let first = bundle.and_then(|x| b.interfaces.get(&x.wanted.interfaces.first()?.name)?.ofport);
        let port = match first {
            Some(OfPort::LOCAL) => "LOCAL".to_string(),
            Some(p) => p.0.to_string(),
            None => "-1".to_string(),
        };
        let age = e.age_secs.map_or("static".to_string(), |a| a.to_string());
        put!(out, "{port:>5}  {:>4}  {}  {age:>3}\n", e.key.vlan, mac_text(e.key.mac));
    }
    Ok(out)
}

fn fdb_add(m: &mut Manager, args: &[&str]) -> Reply {
    let b = m.bridge(args[0])?;
    let key = parse_key(args[2], args[3])?;
    let bundle = b
        .bundle_of(args[1])
        .filter(|_| b.interfaces.get(args[1]).is_some_and(|i| i.ofport.is_some()))
        .ok_or("software error, odp port is present but no ofp port")?;
    b.macs.add_static(key, bundle.id, infra::clock::now_ms().max(0) as u64);
    b.backer.world.macs_changed();
    Ok(String::new())
}

fn fdb_del(m: &mut Manager, args: &[&str]) -> Reply {
    let b = m.bridge(args[0])?;
    let key = parse_key(args[1], args[2])?;
    if !b.macs.del_static(key) {
        return Err("could not find static mac entry".into());
    }
    b.backer.world.macs_changed();
    Ok(String::new())
}

fn named_or_all<'a>(m: &'a Manager, args: &[&str]) -> Result<Vec<&'a Bridge>, String> {
    match args.first() {
        Some(n) => Ok(vec![m.bridge(n)?]),
        None => Ok(m.bridges.values().collect()),
    }
}

fn fdb_flush(m: &mut Manager, args: &[&str]) -> Reply {
    for b in named_or_all(m, args)? {
        b.macs.flush();
        b.backer.world.macs_changed();
    }
    Ok("table successfully flushed".into())
}

fn fdb_stats_show(m: &mut Manager, args: &[&str]) -> Reply {
    let s = m.bridge(args[0])?.macs.stats();
    Ok(format!(
        "Statistics for bridge \"{}\":\n  Current/maximum MAC entries in the table: {}/{}\n  \
         Current static MAC entries in the table : {}\n  Total number of learned MAC entries     : {}\n  \
         Total number of expired MAC entries     : {}\n  Total number of evicted MAC entries     : {}\n  \
         Total number of port moved MAC entries  : {}\n",
        args[0], s.current, s.max, s.statics, s.learned, s.expired, s.evicted, s.moved
    ))
}

fn fdb_stats_clear(m: &mut Manager, args: &[&str]) -> Reply {
    for b in named_or_all(m, args)? {
        b.macs.clear_stats();
    }
    Ok("statistics successfully cleared".into())
}

// -------------------------------------------------------------------------------------------- upcall, revalidator

fn upcall_show(m: &mut Manager, _: &[&str]) -> Reply {
    Ok(m.shared.backers.iter().map(|b| b.slow.show()).collect())
}

/// What atoi(3) makes of a text, as an unsigned number: 0 of what is none, the low bits of what is too large.
fn atoi(text: &str) -> u32 {
    let text = text.trim_start();
    let end = text.char_indices().find(|(i, c)| !(c.is_ascii_digit() || *i == 0 && matches!(c, '+' | '-')));
    let number = &text[..end.map_or(text.len(), |(i, _)| i)];
    let huge = if number.starts_with('-') { i64::MIN } else { i64::MAX };
    match number.parse::<i64>() {
        Ok(n) => n as u32,
        Err(_) if number.len() > 18 => huge as u32,
        Err(_) => 0,
    }
}

fn set_flow_limit(m: &mut Manager, args: &[&str]) -> Reply {
    let limit = atoi(args[0]);
    m.shared.backers.iter().for_each(|b| b.slow.set_flow_limit(limit));
    Ok(format!("set flow_limit to {limit}\n"))
}

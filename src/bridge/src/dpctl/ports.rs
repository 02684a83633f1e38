//! `dpctl/*` about datapaths and their ports.
//!
//! Neighbours: the parent reads options, `show` prints the arguments of a device. Threads: main only.

use super::{choose, no_such_file, options};
use crate::manager::Manager;
use crate::show::{args_text, known};
use datapath::{Datapath, Provider, ProviderStats};
use flow::DpPort;
use infra::command::Reply;
use netdev::Netdev;
use std::fmt::Write;
use std::sync::Arc;

/// Appends formatted text. Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}

/// Why there is no datapath of this name, which begins with its type unless that is `system`. The kernel's says it in
/// its own way.
fn why_not(m: &Manager, name: &str) -> &'static str {
    let (kind, name) = match name.split_once('@') {
        None | Some(("", _)) => ("system", name.trim_start_matches('@')),
        Some(parts) => parts,
    };
    let known = m.classes.iter().any(|c| c.name == kind);
    match known {
        false if kind == "system" => "No such file or directory",
        false => "Address family not supported by protocol",
        true if m.shared.backers.called(name).is_some() => "Invalid argument",
        true => "No such device",
    }
}

fn open(m: &Manager, name: &str) -> Result<Arc<Datapath>, &'static str> {
    m.shared.backers.with_full_name(name).map(|b| b.datapath.clone()).ok_or_else(|| why_not(m, name))
}

fn open_dp(m: &Manager, name: &str) -> Result<Arc<Datapath>, String> {
    open(m, name).map_err(|why| format!("ovs-vswitchd: opening datapath ({why})"))
}

/// Options gone, the datapath and what follows its name.
fn with_dp<'a, 'b>(m: &Manager, args: &'a [&'b str]) -> Result<(Arc<Datapath>, &'a [&'b str]), String> {
    let (_, rest) = options(args, 0)?;
    let (name, rest) = rest.split_first().ok_or_else(|| no_such_file("opening datapath"))?;
    Ok((open_dp(m, name)?, rest))
}

pub(super) fn dump_dps(m: &mut Manager, _: &[&str]) -> Reply {
    let all = m.shared.backers.by_class(&m.classes);
    Ok(all.iter().map(|b| format!("{}\n", b.datapath.full_name())).collect())
}

/// The bridges make the datapaths, one for each type.
pub(super) fn add_dp(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let name = rest.first().copied().unwrap_or_default();
    match open(m, name) {
        Ok(_) => Err("ovs-vswitchd: add_dp (File exists)".into()),
        Err("No such device") => Err("ovs-vswitchd: add_dp (Operation not supported)".into()),
        Err(why) => Err(format!("ovs-vswitchd: add_dp ({why})")),
    }
}

pub(super) fn del_dp(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 1)?;
    open_dp(m, rest.first().copied().unwrap_or_default())?;
    Err("ovs-vswitchd: deleting datapath (Device or resource busy)".into())
}

pub(super) fn show(m: &mut Manager, args: &[&str]) -> Reply {
    let (o, rest) = options(args, 0)?;
    let (mut out, mut errors) = (String::new(), String::new());
    for name in rest {
        match open(m, name) {
            Ok(dp) => one(&mut out, &dp, o.statistics),
            Err(why) => put!(errors, "ovs-vswitchd: opening datapath {name} failed ({why})\n"),
        }
    }
    if rest.is_empty() {
        let all = m.shared.backers.by_class(&m.classes);
        all.iter().for_each(|b| one(&mut out, &b.datapath, o.statistics));
    }
    if errors.is_empty() {
        return Ok(out);
    }
    Err(out + errors.trim_end())
}

fn one(out: &mut String, dp: &Datapath, stats: bool) {
    let ProviderStats { hit, missed, lost, flows } = dp.stats();
    put!(out, "{}:\n  lookups: hit:{hit} missed:{missed} lost:{lost}\n  flows: {flows}\n", dp.full_name());
    for p in dp.ports() {
        let n = p.netdev.as_ref();
        match n.dpif_type() {
            "system" => put!(out, "  port {}: {}\n", p.no, n.name()),
            kind => put!(out, "  port {}: {} ({kind}{})\n", p.no, n.name(), args_text(n)),
        }
        if stats {
            port_statistics(out, n);
        }
    }
}

fn bytes_text(v: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let mut s = known(v);
    if v == u64::MAX {
        return s;
    }
    if let Some((unit, name)) = UNITS.into_iter().find(|(u, _)| v >= *u) {
        put!(s, " ({:.1} {name})", v as f64 / unit as f64);
    }
    s
}

fn port_statistics(out: &mut String, n: &dyn Netdev) {
    netdev::coverage::GET_STATS.inc();
    let s = n.stats();
    put!(
        out,
        "    RX packets:{} errors:{} dropped:{} overruns:{} frame:{}\n",
        known(s.rx_packets),
        known(s.rx_errors),
        known(s.rx_dropped),
        known(s.rx_over_errors),
        known(s.rx_frame_errors)
    );
    put!(
        out,
        "    TX packets:{} errors:{} dropped:{} aborted:{} carrier:{}\n",
        known(s.tx_packets),
        known(s.tx_errors),
        known(s.tx_dropped),
        known(s.rx_fifo_errors),
        known(s.rx_fifo_errors)
    );
    put!(out, "    collisions:{}\n", known(s.collisions));
    put!(out, "    RX bytes:{}  TX bytes:{}\n", bytes_text(s.rx_bytes), bytes_text(s.tx_bytes));
}

/// Nothing is offloaded to hardware.
pub(super) fn offload_stats(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    choose(m, rest.first().copied())?;
    Err("ovs-vswitchd: retrieving offload statistics (Invalid argument)".into())
}

fn open_cached(m: &Manager, name: &str) -> Result<Arc<Datapath>, String> {
    open(m, name).map_err(|why| format!("ovs-vswitchd: Opening datapath {name} failed ({why})"))
}

/// The caches of a kernel datapath have sizes; those of this one are fixed.
pub(super) fn cache_sizes(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let dp = match rest.first() {
        Some(name) => open_cached(m, name)?,
        None => choose(m, None)?.datapath.clone(),
    };
    Ok(format!("{}:\n", dp.full_name()))
}

pub(super) fn set_cache_size(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let [name, _, size] = rest else {
        return Err("ovs-vswitchd: Invalid number of arguments (Invalid argument)".into());
    };
    if !size.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit()) {
        return Err("ovs-vswitchd: size is malformed (Invalid argument)".into());
    }
    open_cached(m, name)?;
    Err("ovs-vswitchd: Setting caches not supported (Operation not supported)".into())
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
pub(super) fn add_if(m: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = with_dp(m, args)?;
    let mut errors = String::new();
    for text in rest {
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

pub(super) fn set_if(m: &mut Manager, args: &[&str]) -> Reply {
    let (dp, rest) = with_dp(m, args)?;
    let (mut errors, mut remarks) = (String::new(), String::new());
    for text in rest {
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
pub(super) fn del_if(m: &mut Manager, args: &[&str]) -> Reply {
    let (dp, rest) = with_dp(m, args)?;
    let ports = dp.ports();
    let mut errors = String::new();
    for name in rest {
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

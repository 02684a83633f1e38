//! Commands of `ovs-appctl` that look into translation: `ofproto/trace`, all rules of a bridge.
//!
//! Neighbours: `ofproto::trace` does the tracing; the daemon serves [`COMMANDS`]. Threads: main only.

use crate::manager::Manager;
use flow::OfPort;
use infra::command::{Command, Reply, HIDDEN, MANY};
use ofproto::rule::Rule;
use ofproto::trace::{Env, TraceError};
use ofproto::World;
use std::fmt::Write;
use std::sync::atomic::Ordering;

const TRACE_USAGE: &str = "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]";
const PACKET_OUT_USAGE: &str =
    "[-consistent] {[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet] actions";

/// All commands of this module.
pub const COMMANDS: [Command<Manager>; 8] = [
    Command::new("bridge/dump-flows", "[--offload-stats] bridge", 1, 2, dump_rules),
    Command::new("bridge/reconnect", "[bridge]", 0, 1, reconnect),
    Command::new("ofproto/trace", TRACE_USAGE, 1, MANY, trace),
    Command::new("ofproto/trace-packet-out", PACKET_OUT_USAGE, 2, MANY, trace_packet_out),
    Command::new("revalidator/pause", HIDDEN, 0, 0, pause),
    Command::new("revalidator/resume", HIDDEN, 0, 0, resume),
    Command::new("upcall/disable-ufid", "", 0, 0, disable_ufid),
    Command::new("upcall/enable-ufid", "", 0, 0, enable_ufid),
];

type Tracer = fn(&Env<'_>, &[&str]) -> Result<String, TraceError>;

fn with_env(m: &Manager, args: &[&str], run: Tracer) -> Reply {
    let named = |a: &&str| m.shared.backers.called(a).or_else(|| m.bridges.get(*a).map(|b| &b.backer));
    let backer = args.iter().find_map(named).or_else(|| m.shared.backers.only());
    let nowhere = World::new();
    let dp_ports = backer.map(|b| b.port_names()).unwrap_or_default();
    let env = Env {
        world: backer.map_or(&nowhere, |b| &b.world),
        now_ms: infra::clock::now_ms().max(0) as u64,
        dp_name: backer.map(|b| b.datapath.name()),
        dp_ports: &dp_ports,
        vlan_limit: backer.map_or(1, |b| b.datapath.config().vlan_limit),
    };
    run(&env, args).map_err(|e| e.to_string())
}

fn trace(m: &mut Manager, args: &[&str]) -> Reply {
    with_env(m, args, ofproto::trace::trace)
}

fn trace_packet_out(m: &mut Manager, args: &[&str]) -> Reply {
    with_env(m, args, ofproto::trace::trace_packet_out)
}

/// One rule as `bridge/dump-flows` prints it.
fn rule_line(rule: &Rule, offload: bool, now_ms: u64, names: &dyn Fn(OfPort) -> Option<String>) -> String {
    let mut out = String::new();
    if rule.table_id != 0 {
        let _ = write!(out, "table_id={}, ", rule.table_id);
    }
    let _ = write!(
        out,
        "duration={}s, n_packets={}, n_bytes={}, ",
        now_ms.saturating_sub(rule.created_ms) / 1000,
        rule.stats.packets.load(Ordering::Relaxed),
        rule.stats.bytes.load(Ordering::Relaxed)
    );
    if offload {
        // Nothing is offloaded.
        out.push_str("n_offload_packets=0, n_offload_bytes=0, ");
    }
    let m = rule.matching.expand().format_with_priority(rule.priority, Some(names));
    let sep = if m.is_empty() { "" } else { "," };
    let _ = writeln!(out, "{m}{sep}actions={}", ofproto::format_actions(&rule.actions));
    out
}

fn dump_rules(m: &mut Manager, args: &[&str]) -> Reply {
    // As in the original any first word of two will do.
    let name = args.last().copied().unwrap_or_default();
    let offload = args.len() > 1 && args[0] == "--offload-stats";
    let unknown = || "Unknown bridge".to_string();
    let b = m.bridges.get(name).ok_or_else(unknown)?;
    b.backer.slow.push_stats();
    let now = infra::clock::now_ms().max(0) as u64;
    Ok(b.of.flows().tables().iter().map(|r| rule_line(r, offload, now, &|_| None)).collect())
}

/// The connections are closed by the turn that follows.
fn reconnect(m: &mut Manager, args: &[&str]) -> Reply {
    match args.first() {
        Some(name) if !m.bridges.contains_key(*name) => return Err("Unknown bridge".into()),
        Some(name) => m.reconnect.push((*name).into()),
        None => m.reconnect = m.bridges.keys().cloned().collect(),
    }
    Ok(String::new())
}

fn pause(m: &mut Manager, _: &[&str]) -> Reply {
    m.shared.backers.iter().for_each(|b| b.slow.pause(true));
    Ok(String::new())
}

fn resume(m: &mut Manager, _: &[&str]) -> Reply {
    m.shared.backers.iter().for_each(|b| b.slow.pause(false));
    Ok(String::new())
}

fn disable_ufid(m: &mut Manager, _: &[&str]) -> Reply {
    m.shared.backers.iter().for_each(|b| b.slow.set_ufid(false));
    Ok("Datapath dumping tersely using UFID disabled".into())
}

fn enable_ufid(m: &mut Manager, _: &[&str]) -> Reply {
    m.shared.backers.iter().for_each(|b| b.slow.set_ufid(true));
    Ok("Datapath dumping tersely using UFID enabled for supported datapaths".into())
}

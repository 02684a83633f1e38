//! Commands of `ovs-appctl` about the threads of datapaths: `dpif-netdev/...`.
//!
//! Neighbours: `datapath::show` has the texts; the daemon serves [`COMMANDS`]. Threads: main only.

use crate::manager::Manager;
use datapath::{show, Datapath};
use infra::command::{Command, Reply, HIDDEN};
use infra::info;
use infra::vlog::Module;
use std::sync::Arc;

static PERF_LOG: Module = Module::new("pmd_perf");

/// All commands of this module.
pub const COMMANDS: [Command<Manager>; 15] = [
    Command::new("dpif-netdev/dpif-impl-get", "", 0, 0, dpif_impl_get),
    Command::new("dpif-netdev/dpif-impl-set", "dpif_implementation_name", 1, 1, dpif_impl_set),
    Command::new("dpif-netdev/miniflow-parser-get", "", 0, 0, miniflow_parser_get),
    Command::new(
        "dpif-netdev/miniflow-parser-set",
        "[-pmd core] miniflow_implementation_name [study_pkt_cnt]",
        1,
        5,
        miniflow_parser_set,
    ),
    Command::new(
        "dpif-netdev/pmd-perf-log-set",
        "on|off [-b before] [-a after] [-e|-ne] [-us usec] [-q qlen]",
        0,
        10,
        pmd_perf_log_set,
    ),
    Command::new(
        "dpif-netdev/pmd-perf-show",
        "[-nh] [-it iter-history-len] [-ms ms-history-len] [-pmd core] [dp]",
        0,
        8,
        pmd_perf_show,
    ),
    Command::new("dpif-netdev/pmd-rxq-rebalance", "[dp]", 0, 1, pmd_rxq_rebalance),
    Command::new("dpif-netdev/pmd-rxq-show", "[-pmd core] [-secs secs] [dp]", 0, 5, pmd_rxq_show),
    Command::new("dpif-netdev/pmd-sleep-show", "[dp]", 0, 1, pmd_sleep_show),
    Command::new("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", 0, 3, pmd_stats_clear),
    Command::new("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0, 3, pmd_stats_show),
    Command::new("dpif-netdev/pmd-upcall-show", "[-pmd core] [dp]", 0, 3, pmd_upcall_show),
    Command::new("dpif-netdev/subtable-lookup-info-get", "", 0, 0, subtable_lookup_info_get),
    Command::new("dpif-netdev/subtable-lookup-prio-get", HIDDEN, 0, 0, subtable_lookup_info_get),
    Command::new(
        "dpif-netdev/subtable-lookup-prio-set",
        "[lookup_func] [prio]",
        2,
        2,
        subtable_lookup_prio_set,
    ),
];

/// All datapaths, in their order of listing.
pub(crate) fn datapaths(m: &Manager) -> Vec<&Datapath> {
    m.shared.backers.by_class(&m.classes).into_iter().map(|b| b.datapath.as_ref()).collect()
}

/// The same, to be kept while the manager changes.
fn kept(m: &Manager) -> Vec<Arc<Datapath>> {
    m.shared.backers.by_class(&m.classes).into_iter().map(|b| Arc::clone(&b.datapath)).collect()
}

fn pmd_stats_show(m: &mut Manager, args: &[&str]) -> Reply {
    show::pmd_stats(&datapaths(m), args)
}

fn pmd_stats_clear(m: &mut Manager, args: &[&str]) -> Reply {
    show::pmd_stats_clear(&datapaths(m), args)
}

fn pmd_perf_show(m: &mut Manager, args: &[&str]) -> Reply {
    let ms = infra::clock::wall_ms().rem_euclid(86_400_000);
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let time = format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60);
    show::pmd_perf(&datapaths(m), args, &time)
}

fn pmd_perf_log_set(m: &mut Manager, args: &[&str]) -> Reply {
    let log = show::pmd_perf_log(m.perf_log, args)?;
    m.perf_log = log;
    for dp in datapaths(m) {
        dp.set_perf_log(log);
    }
    info!(
        PERF_LOG,
        "pmd-perf-log-set: {}, before={}, after={}, extend={}, us_thr={}, q_thr={}",
        if log.on { "on" } else { "off" },
        log.before,
        log.after,
        log.extend,
        log.us,
        log.queue
    );
    Ok(String::new())
}

fn pmd_rxq_show(m: &mut Manager, args: &[&str]) -> Reply {
    show::pmd_rxqs(&datapaths(m), args)
}

fn pmd_rxq_rebalance(m: &mut Manager, args: &[&str]) -> Reply {
    show::rebalance(&datapaths(m), args)
}

fn pmd_sleep_show(m: &mut Manager, args: &[&str]) -> Reply {
    show::pmd_sleeps(&datapaths(m), args)
}

fn pmd_upcall_show(m: &mut Manager, args: &[&str]) -> Reply {
    show::pmd_upcalls(&datapaths(m), args)
}

fn dpif_impl_get(m: &mut Manager, _: &[&str]) -> Reply {
    Ok(m.implementations.dpifs(&datapaths(m)))
}

fn dpif_impl_set(m: &mut Manager, args: &[&str]) -> Reply {
    m.implementations.set_dpif(args[0])
}

fn miniflow_parser_get(m: &mut Manager, _: &[&str]) -> Reply {
    Ok(m.implementations.parsers(&datapaths(m)))
}

fn miniflow_parser_set(m: &mut Manager, args: &[&str]) -> Reply {
    let dps = kept(m);
    let dps: Vec<&Datapath> = dps.iter().map(Arc::as_ref).collect();
    m.implementations.set_parser(&dps, args)
}

fn subtable_lookup_info_get(m: &mut Manager, _: &[&str]) -> Reply {
    Ok(m.implementations.lookups(&datapaths(m)))
}

fn subtable_lookup_prio_set(m: &mut Manager, args: &[&str]) -> Reply {
    m.implementations.set_lookup(args[0], args[1])
}

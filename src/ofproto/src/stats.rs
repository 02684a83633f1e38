//! Multipart requests: descriptions and statistics.
//!
//! Neighbours: `conn` hands over what it does not know. Threads: main only.

use crate::conn::Conn;
use crate::flow_mod::{Criteria, USER_TABLES};
use crate::ofproto::{Host, Ofproto};
use crate::rule::{CompactMatch, Rule};
use flow::{Match, OfPort};
use openflow::{
    AggregateStats, Desc, FlowFlags, FlowStats, FlowStatsRequest, OfError, PortDesc, PortStats, Reply,
    Request, TableFeatures, TableStats,
};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Rules a table can hold, as told to controllers.
const MAX_ENTRIES: u32 = 1_000_000;
/// All meters (`OFPM_ALL`, OpenFlow 1.3 §7.3.4.4).
const METER_ALL: u32 = u32::MAX;

/// Answers `request`.
///
/// # Errors
/// The OpenFlow error to answer with.
pub(crate) fn multipart(
    conn: &mut Conn,
    request: Request,
    xid: u32,
    of: &mut Ofproto,
    host: &mut dyn Host,
) -> Result<(), OfError> {
    match request {
        Request::Desc => conn.reply(xid, &Reply::Desc(&desc(of))),
        Request::Flow(r) => {
            host.refresh_stats();
            flow_stats(conn, &r, xid, of, host.now_ms())?;
        }
        Request::Aggregate(r) => {
            host.refresh_stats();
            let stats = aggregate(&r, of)?;
            conn.reply(xid, &Reply::Aggregate { nicira: r.nicira, stats });
        }
        Request::Table => {
            host.refresh_stats();
            conn.reply(xid, &Reply::Table(&table_stats(of)));
        }
        Request::PortStats(no) => {
            host.refresh_stats();
            let now = host.now_ms();
            let mut ports: Vec<_> = select(of, no)?.collect();
            let order = of.flood_order();
            ports.sort_by_cached_key(|p| order.iter().position(|o| *o == p.no));
            let all: Vec<PortStats> = ports.into_iter().map(|p| p.stats(now)).collect();
            conn.reply(xid, &Reply::PortStats(&all));
        }
        Request::PortDesc(no) => {
            let all: Vec<PortDesc> = select(of, no)?.map(|p| p.desc()).collect();
            conn.reply(xid, &Reply::PortDesc(&all));
        }
        Request::QueueStats { port, queue } => {
            if !matches!(port, OfPort::NONE | OfPort::ALL) && of.port(port).is_none() {
                return Err(OfError::OFPQOFC_BAD_PORT);
            }
            if queue != openflow::QUEUE_ALL {
                return Err(OfError::OFPQOFC_BAD_QUEUE);
            }
            conn.reply(xid, &Reply::QueueStats);
        }
        Request::GroupStats(_) => conn.reply(xid, &Reply::GroupStats),
        Request::GroupDesc(_) => conn.reply(xid, &Reply::GroupDesc),
        Request::GroupFeatures => conn.reply(xid, &Reply::GroupFeatures),
        Request::MeterStats(id) | Request::MeterConfig(id) if id != METER_ALL => {
            return Err(OfError::OFPMMFC_UNKNOWN_METER);
        }
        Request::MeterStats(_) => conn.reply(xid, &Reply::MeterStats),
        Request::MeterConfig(_) => conn.reply(xid, &Reply::MeterConfig),
        Request::MeterFeatures => conn.reply(xid, &Reply::MeterFeatures(openflow::MeterFeatures::default())),
        Request::TableFeatures => conn.reply(xid, &Reply::TableFeatures(&table_features())),
        Request::TableDesc => conn.reply(xid, &Reply::TableDesc(&table_desc())),
        _ => return Err(OfError::OFPBRC_BAD_TYPE),
    }
    Ok(())
}

fn desc(of: &Ofproto) -> Desc {
    Desc {
        mfr_desc: of.identity.mfr_desc.clone(),
        hw_desc: of.identity.hw_desc.clone(),
        sw_desc: of.identity.sw_desc.clone(),
        serial_num: of.identity.serial.clone(),
        dp_desc: of.identity.dp_desc.clone(),
    }
}

/// Whether a request for `asked` is about `port`. `NONE` and `ALL` are all ports.
fn is_selected(asked: OfPort, port: OfPort) -> bool {
    matches!(asked, OfPort::NONE | OfPort::ALL) || asked == port
}

/// The ports that a request names, by number.
fn select(of: &Ofproto, no: OfPort) -> Result<impl Iterator<Item = &crate::port::Port>, OfError> {
    if !matches!(no, OfPort::NONE | OfPort::ALL) && of.port(no).is_none() {
        return Err(OfError::OFPBRC_BAD_PORT);
    }
    Ok(of.ports().filter(move |p| is_selected(no, p.no)))
}

fn matching_rules(r: &FlowStatsRequest, of: &Ofproto) -> Result<Vec<Arc<Rule>>, OfError> {
    if r.table_id != openflow::TABLE_ALL && r.table_id > USER_TABLES {
        return Err(OfError::OFPBRC_BAD_TABLE_ID);
    }
    Ok(Criteria {
        table_id: r.table_id,
        matching: CompactMatch::new(&r.match_),
        strict_priority: None,
        cookie: r.cookie,
        cookie_mask: r.cookie_mask,
        out_port: r.out_port,
        out_group: r.out_group,
        tables: of.flows().tables(),
    }
    .collect())
}

fn flow_stats(
    conn: &mut Conn,
    r: &FlowStatsRequest,
    xid: u32,
    of: &Ofproto,
    now_ms: u64,
) -> Result<(), OfError> {
    let rules = matching_rules(r, of)?;
    conn.reply_flows(xid, r.nicira, |writer| {
        for rule in &rules {
            let m = rule.matching.expand();
            writer.push(&one_flow(rule, &m, now_ms));
        }
    });
    Ok(())
}

fn seconds_since(now_ms: u64, then_ms: u64) -> u16 {
    u16::try_from(now_ms.saturating_sub(then_ms) / 1000).unwrap_or(u16::MAX)
}

fn one_flow<'a>(rule: &'a Rule, m: &'a Match, now_ms: u64) -> FlowStats<'a> {
    let ms = now_ms.saturating_sub(rule.created_ms);
    FlowStats {
        match_: m,
        actions: &rule.actions,
        table_id: rule.table_id,
        priority: u16::try_from(rule.priority).unwrap_or(u16::MAX),
        cookie: rule.cookie,
        duration_sec: u32::try_from(ms / 1000).unwrap_or(u32::MAX),
        duration_nsec: (ms % 1000) as u32 * 1_000_000,
        idle_timeout: rule.idle_timeout,
        hard_timeout: rule.hard_timeout,
        idle_age: Some(seconds_since(now_ms, rule.stats.used_ms.load(Ordering::Relaxed))),
        hard_age: Some(seconds_since(now_ms, rule.modified_ms)),
        packet_count: rule.stats.packets.load(Ordering::Relaxed),
        byte_count: rule.stats.bytes.load(Ordering::Relaxed),
        flags: FlowFlags(rule.flags.0),
        importance: rule.importance,
    }
}

fn aggregate(r: &FlowStatsRequest, of: &Ofproto) -> Result<AggregateStats, OfError> {
    let mut a = AggregateStats::default();
    for rule in matching_rules(r, of)? {
        a.packet_count += rule.stats.packets.load(Ordering::Relaxed);
        a.byte_count += rule.stats.bytes.load(Ordering::Relaxed);
        a.flow_count += 1;
    }
    Ok(a)
}

fn table_stats(of: &Ofproto) -> Vec<TableStats> {
    (0..USER_TABLES)
        .map(|id| {
            let t = of.flows().tables().table(id);
            let matched = t.stats.matched.load(Ordering::Relaxed);
            TableStats {
                table_id: id,
                name: String::new(),
                max_entries: MAX_ENTRIES,
                active_count: u32::try_from(t.classifier.len()).unwrap_or(u32::MAX),
                lookup_count: matched + t.stats.missed.load(Ordering::Relaxed),
                matched_count: matched,
                n_tables: USER_TABLES,
            }
        })
        .collect()
}

fn table_features() -> Vec<TableFeatures> {
    (0..USER_TABLES)
        .map(|table_id| TableFeatures {
            table_id,
            name: String::new(),
            max_entries: MAX_ENTRIES,
            n_tables: USER_TABLES,
            eviction: false,
        })
        .collect()
}

fn table_desc() -> Vec<openflow::TableDesc> {
    (0..USER_TABLES)
        .map(|table_id| openflow::TableDesc { table_id, eviction: false, eviction_flags: 7, vacancy: None })
        .collect()
}

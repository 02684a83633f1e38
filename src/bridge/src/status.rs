//! The state in effect written back to the database.
//!
//! One transaction carries all that differs from the replica. `cur_cfg` is in it only after a configuration is in
//! effect: `ovs-vsctl` waits for it. Neighbours: `manager` calls it each turn. Threads: main only.

use crate::class::DatapathClass;
use crate::manager::{DeviceLibrary, LOG};
use crate::ports::Opener;
use crate::state::Bridge;
use netdev::Stats;
use ofproto::port::Port;
use ovsdb::{Client, Datum, Outcome, Replica, RowId, SubmitError, Transaction, TxnId, Uuid};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// What is reported.
pub(crate) struct Context<'a> {
    pub bridges: &'a BTreeMap<String, Bridge>,
    pub library: &'a dyn DeviceLibrary,
    pub opener: &'a Opener,
    pub classes: &'a [DatapathClass],
    pub rejected: &'a [(Uuid, String)],
    pub controllers: &'a BTreeMap<Uuid, ControllerStatus>,
    pub next_cfg: i64,
    pub interval_ms: i64,
}

/// How the connection to a controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus {
    /// It stands.
    pub connected: bool,
    /// `master`, `slave` or `other`, while it stands.
    pub role: Option<&'static str>,
    /// `ACTIVE`, `IDLE`, `CONNECTING` or `BACKOFF`.
    pub state: &'static str,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Monotonic milliseconds of the last connect.
    pub connected_ms: Option<i64>,
    /// Monotonic milliseconds of the last disconnect.
    pub disconnected_ms: Option<i64>,
}

/// Decides when to write.
#[derive(Default)]
pub(crate) struct StatusWriter {
    due_at: i64,
    stats_at: i64,
    pending: Option<TxnId>,
    again: bool,
    /// The last wait before another try; 0 when the last one went well.
    retry_ms: i64,
}

/// Wait before a transaction is made anew that the database could not take; it doubles as long as that lasts.
const RETRY_MS: i64 = 100;
const MAX_RETRY_MS: i64 = 6_400;

impl StatusWriter {
    /// A configuration came into effect: tell at once.
    pub fn configured(&mut self, now_ms: i64) {
        self.due_at = now_ms;
        self.again = true;
    }

    /// Something changed that should not wait for the next interval.
    pub fn refresh_soon(&mut self) {
        self.again = true;
        self.due_at = 0;
    }

    pub fn deadline(&self) -> i64 {
        if self.pending.is_some() {
            return infra::clock::NEVER;
        }
        if self.again {
            self.due_at
        } else {
            self.stats_at
        }
    }

    pub fn outcome(&mut self, id: TxnId, outcome: Outcome, now_ms: i64) {
        if self.pending == Some(id) {
            self.pending = None;
        }
        match outcome {
            Outcome::Success(_) | Outcome::Unchanged => self.retry_ms = 0,
            Outcome::TryAgain | Outcome::NotLocked => {
                self.again = true;
                self.retry_ms = (self.retry_ms * 2).clamp(RETRY_MS, MAX_RETRY_MS);
                self.due_at = now_ms + self.retry_ms;
            }
            Outcome::Error(e) => {
                infra::vlog!(LOG, Err, "the database refused our status: {e}");
            }
        }
    }

    pub fn run(&mut self, client: &mut Client, ctx: &Context<'_>, now_ms: i64) {
        if now_ms < self.deadline() || self.pending.is_some() {
            return;
        }
        let with_stats = now_ms >= self.stats_at;
        if with_stats {
            self.stats_at = now_ms + ctx.interval_ms;
        }
        self.again = false;
        let txn = build(client.replica(), ctx, with_stats);
        match client.submit(&txn) {
            Ok(id) => self.pending = Some(id),
            // The connection will come back, with a change that calls us again.
            Err(SubmitError::NotConnected | SubmitError::NotLocked(_)) => {
                self.again = true;
                self.due_at = now_ms + 1000;
            }
            Err(e) => {
                infra::vlog!(LOG, Err, "cannot write our status to the database: {e}");
                self.stats_at = now_ms + ctx.interval_ms;
            }
        }
    }
}

fn build(replica: &Replica, ctx: &Context<'_>, with_stats: bool) -> Transaction {
    let mut txn = Transaction::new();
    if let Some(root) = replica.only_row("Open_vSwitch") {
        let id = root.id();
        txn.set(&id, "cur_cfg", ctx.next_cfg);
        txn.set(&id, "ovs_version", infra::OVS_VERSION);
        txn.set(&id, "db_version", SCHEMA_VERSION);
        if root.str_opt("system_type").is_none_or(str::is_empty) {
            let (kind, version) = os_release();
            txn.set(&id, "system_type", kind);
            txn.set(&id, "system_version", version);
        }
        txn.set(&id, "datapath_types", Datum::set(ctx.classes.iter().map(|c| c.name)));
        txn.set(&id, "iface_types", Datum::set(ctx.opener.types()));
        txn.set(&id, "dpdk_initialized", ctx.library.initialized());
        txn.set(&id, "dpdk_version", ctx.library.version());
    }
    for b in ctx.bridges.values() {
        let Some(row) = replica.row("Bridge", b.wanted.row) else { continue };
        txn.set(&row.id(), "datapath_id", format!("{:016x}", b.of.datapath_id));
        txn.set(&row.id(), "datapath_version", "<built-in>");
        for c in &b.wanted.controllers {
            let Some(row) = replica.row("Controller", c.row) else { continue };
            controller(&mut txn, &row.id(), ctx.controllers.get(&c.row));
        }
        for i in b.interfaces.values() {
            let Some(row) = replica.row("Interface", i.wanted.row) else { continue };
            let port = i.ofport.and_then(|p| b.of.port(p));
            let claimed =
                ctx.rejected.iter().find(|(uuid, _)| *uuid == i.wanted.row).map(|(_, why)| why.clone());
            txn.set(&row.id(), "error", i.error.clone().or(claimed));
            // A new interface does not wait for the next interval.
            let fresh = row.get("statistics").is_none_or(|d| matches!(d, Datum::Map(m) if m.is_empty()));
            interface(&mut txn, &row.id(), port, with_stats || fresh);
        }
    }
    txn
}

/// Status of a controller; those that come to us have none.
fn controller(txn: &mut Transaction, id: &RowId, status: Option<&ControllerStatus>) {
    let now = infra::clock::now_ms();
    txn.set(id, "is_connected", status.is_some_and(|s| s.connected));
    txn.set(id, "role", status.and_then(|s| s.role));
    let mut map: Vec<(String, String)> = Vec::new();
    if let Some(s) = status {
        let seconds = |since: Option<i64>| since.map(|ms| ((now - ms) / 1000).to_string());
        let all = [
            ("last_error", s.last_error.clone()),
            ("sec_since_connect", seconds(s.connected_ms)),
            ("sec_since_disconnect", seconds(s.disconnected_ms)),
            ("state", Some(s.state.to_string())),
        ];
        map.extend(all.into_iter().filter_map(|(k, v)| Some((k.to_string(), v?))));
    }
    txn.set(id, "status", Datum::map(map));
}

/// Version of the database schema that the switch is made for.
const SCHEMA_VERSION: &str = "8.3.1";

/// Name and version of the operating system, lower case, from os-release(5).
fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let get = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
            .map_or("unknown".to_string(), |v| v.trim_matches('"').to_string())
    };
    (get("ID"), get("VERSION_ID"))
}

fn mac_text(m: [u8; 6]) -> String {
    m.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn interface(txn: &mut Transaction, id: &RowId, port: Option<&Port>, with_stats: bool) {
    let Some(port) = port else {
        txn.set(id, "ofport", -1i64);
        for c in [
            "mac_in_use",
            "ifindex",
            "link_state",
            "link_resets",
            "link_speed",
            "duplex",
            "admin_state",
            "mtu",
        ] {
            txn.set(id, c, Datum::EMPTY);
        }
        txn.set(id, "status", Datum::Map(Vec::new()));
        txn.set(id, "statistics", Datum::Map(Vec::new()));
        return;
    };
    txn.set(id, "ofport", i64::from(port.no.0));
    txn.set(id, "mac_in_use", mac_text(port.hw_addr));
    let up_down = |up: bool| if up { "up" } else { "down" };
    let Some(n) = port.netdev() else {
        txn.set(id, "ifindex", 0i64);
        txn.set(id, "link_state", "up");
        txn.set(id, "admin_state", "up");
        txn.set(id, "link_resets", 0i64);
        if with_stats {
            txn.set(id, "statistics", Datum::map(patch_statistics(port)));
        }
        return;
    };
    let link = n.link();
    txn.set(id, "ifindex", i64::from(n.ifindex()));
    txn.set(id, "link_state", up_down(link.up));
    txn.set(id, "admin_state", up_down(link.admin_up));
    txn.set(id, "link_resets", i64::try_from(link.resets).unwrap_or(i64::MAX));
    let known = link.speed_bps != 0;
    txn.set(id, "link_speed", known.then(|| i64::try_from(link.speed_bps).unwrap_or(i64::MAX)));
    txn.set(id, "duplex", known.then_some(if link.full_duplex { "full" } else { "half" }));
    // A device that went away has none.
    txn.set(id, "mtu", Some(i64::from(n.mtu())).filter(|m| *m != 0));
    txn.set(id, "status", Datum::map(n.status()));
    if with_stats {
        netdev::coverage::GET_STATS.inc();
        txn.set(id, "statistics", Datum::map(statistics(&n.stats(), n.custom_stats())));
    }
}

fn patch_statistics(port: &Port) -> Vec<(String, i64)> {
    let c = &port.counters;
    [
        ("rx_bytes", &c.rx_bytes),
        ("rx_packets", &c.rx_packets),
        ("tx_bytes", &c.tx_bytes),
        ("tx_packets", &c.tx_packets),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), i64::try_from(v.load(Ordering::Relaxed)).unwrap_or(i64::MAX)))
    .collect()
}

/// The `statistics` column: what the device does not count is left out.
fn statistics(s: &Stats, custom: Vec<(String, u64)>) -> Vec<(String, i64)> {
    [
        ("rx_packets", s.rx_packets),
        ("tx_packets", s.tx_packets),
        ("rx_bytes", s.rx_bytes),
        ("tx_bytes", s.tx_bytes),
        ("rx_errors", s.rx_errors),
        ("tx_errors", s.tx_errors),
        ("rx_dropped", s.rx_dropped),
        ("tx_dropped", s.tx_dropped),
        ("rx_multicast_packets", s.multicast),
        ("collisions", s.collisions),
        ("rx_over_err", s.rx_over_errors),
        ("rx_crc_err", s.rx_crc_errors),
        ("rx_frame_err", s.rx_frame_errors),
        ("rx_missed_errors", s.rx_missed_errors),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v))
    .chain(custom)
    .filter(|(_, v)| *v != u64::MAX)
    .map(|(k, v)| (k, i64::try_from(v).unwrap_or(i64::MAX)))
    .collect()
}

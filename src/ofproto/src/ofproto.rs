//! One bridge as OpenFlow sees it: identity, ports, tables, connections.
//!
//! The main thread owns it. What translation needs of it is published by the [`Host`] that every call gets.
//! Neighbours: `bridge` creates and configures it; `conn` speaks to one peer; `flow_mod` changes the tables.
//! Threads: main only.

use crate::conn::{Conn, ConnId, ConnKind};
use crate::coverage;
use crate::flow_mod::{FlowTable, Removed};
use crate::port::Port;
use crate::rule::{CompactMatch, Rule, RuleFlags, RuleStats};
use crate::tables::Tables;
use flow::{Match, OfPort};
use openflow::{Action, FlowRemovedReason, OfError, PacketOut, PortReason, Resume, SwitchConfig, VersionSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Above all priorities that users can give.
const FAIL_OPEN_PRIORITY: i32 = 0xf0_f0f0;

/// What a bridge needs done outside of itself. Calls come in the order of the messages that cause them.
pub trait Host {
    /// Makes `tables` the version that packets meet.
    fn publish(&mut self, bridge: &str, tables: Tables);
    /// Translates and sends a packet.
    ///
    /// # Errors
    /// The OpenFlow error to answer with.
    fn packet_out(&mut self, bridge: &str, out: &PacketOut) -> Result<(), OfError>;
    /// Lets a packet go on that `controller(pause)` stopped.
    ///
    /// # Errors
    /// The OpenFlow error to answer with.
    fn resume(&mut self, bridge: &str, r: &Resume) -> Result<(), OfError>;
    /// The configuration bits of a port changed.
    fn port_changed(&mut self, bridge: &str, port: &Port);
    /// Brings the counters of rules and ports up to date with the datapath.
    fn refresh_stats(&mut self);
    /// Milliseconds of the monotonic clock.
    fn now_ms(&self) -> u64;
}

/// Texts of the description reply (`other_config:dp-desc`, `dp-sn`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Identity {
    pub mfr_desc: String,
    pub hw_desc: String,
    pub sw_desc: String,
    pub serial: String,
    pub dp_desc: String,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            mfr_desc: "Nicira, Inc.".into(),
            hw_desc: "Open vSwitch".into(),
            sw_desc: infra::OVS_VERSION.into(),
            serial: "None".into(),
            dp_desc: "None".into(),
        }
    }
}

/// One bridge.
pub struct Ofproto {
    name: String,
    /// Datapath id.
    pub datapath_id: u64,
    /// Texts of the description reply.
    pub identity: Identity,
    /// Versions that peers may use.
    pub protocols: VersionSet,
    /// Fragment handling and the rest of get-config.
    pub config: SwitchConfig,
    pub(crate) ports: BTreeMap<OfPort, Port>,
    /// The last port number found free.
    /// Port numbers in the order in which they were added.
    created: Vec<OfPort>,
    pub(crate) flows: FlowTable,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    last_chosen_port: u16,
    expire_at_ms: u64,
}

impl Ofproto {
    /// A bridge without ports and rules.
    pub fn new(name: &str, datapath_id: u64) -> Ofproto {
        Ofproto {
            name: name.into(),
            datapath_id,
            identity: Identity::default(),
            protocols: VersionSet::DEFAULT,
            config: SwitchConfig { frag: 0, invalid_ttl_to_controller: false, miss_send_len: 0 },
            ports: BTreeMap::new(),
            created: Vec::new(),
            flows: FlowTable::default(),
            conns: BTreeMap::new(),
            next_conn: 1,
            last_chosen_port: 0,
            expire_at_ms: 0,
        }
    }

    /// Bridge name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ports by number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// Port numbers in the order of FLOOD, ALL and port statistics.
    pub fn flood_order(&self) -> Vec<OfPort> {
        crate::snapshot::flood_order(&self.created)
    }

    /// Port `no`.
    pub fn port(&self, no: OfPort) -> Option<&Port> {
        self.ports.get(&no)
    }

    /// The rules.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// A free port number: `wanted` when it can be had, else the one it had `before`, else the next one after the
    /// last that was chosen here, so that a number that was given back is not soon another port's; `None` when all
    /// are taken.
    pub fn allocate_port(&mut self, wanted: Option<OfPort>, before: Option<OfPort>) -> Option<OfPort> {
        let free = |p: &OfPort| p.0 != 0 && p.0 < OfPort::MAX.0 && !self.ports.contains_key(p);
        if let Some(p) = wanted.filter(free).or(before.filter(free)) {
            return Some(p);
        }
        let last = self.last_chosen_port;
        let chosen = (last + 1..OfPort::MAX.0).chain(1..=last).map(OfPort).find(free)?;
        self.last_chosen_port = chosen.0;
        Some(chosen)
    }

    /// Adds a port and tells controllers.
    pub fn add_port(&mut self, port: Port) {
        coverage::UPDATE_PORT.inc();
        let desc = port.desc();
        self.created.push(port.no);
        self.ports.insert(port.no, port);
        self.conns.values_mut().for_each(|c| c.send_port_status(PortReason::Add, &desc));
    }

    /// Removes a port and tells controllers.
    pub fn remove_port(&mut self, no: OfPort) -> Option<Port> {
        let port = self.ports.remove(&no)?;
        coverage::UPDATE_PORT.inc();
        self.created.retain(|p| *p != no);
        let desc = port.desc();
        self.conns.values_mut().for_each(|c| c.send_port_status(PortReason::Delete, &desc));
        Some(port)
    }

    /// The datapath gave a port another number.
    pub fn renumber_dp_port(&mut self, no: OfPort, new: flow::DpPort) {
        if let Some(crate::port::PortKind::Device { dp_port, .. }) =
            self.ports.get_mut(&no).map(|p| &mut p.kind)
        {
            *dp_port = new;
        }
    }

    /// Reads link states again and tells controllers what changed. True when something did.
    pub fn refresh_ports(&mut self) -> bool {
        let mut any = false;
        for port in self.ports.values_mut() {
            if port.refresh() {
                any = true;
                coverage::UPDATE_PORT.inc();
                let desc = port.desc();
                self.conns.values_mut().for_each(|c| c.send_port_status(PortReason::Modify, &desc));
            }
        }
        any
    }

    pub(crate) fn tell_port_modified(&mut self, no: OfPort) {
        let Some(desc) = self.ports.get(&no).map(Port::desc) else { return };
        self.conns.values_mut().for_each(|c| c.send_port_status(PortReason::Modify, &desc));
    }

    /// The rule of a bridge without controller and without `fail_mode=secure`: everything as a learning switch.
    pub fn add_default_rule(&mut self, now_ms: u64) {
        self.add_normal_rule(0, now_ms);
    }

    /// The rule above all others of a bridge whose controllers are away: everything as a learning switch.
    pub fn fail_open(&mut self, now_ms: u64) {
        self.add_normal_rule(FAIL_OPEN_PRIORITY, now_ms);
    }

    /// Controllers are back.
    pub fn fail_open_ends(&mut self) {
        self.flows.remove_internal(FAIL_OPEN_PRIORITY);
    }

    fn add_normal_rule(&mut self, priority: i32, now_ms: u64) {
        let stats = RuleStats::default();
        stats.used_ms.store(now_ms, std::sync::atomic::Ordering::Relaxed);
        self.flows.add_internal(Rule {
            table_id: 0,
            priority,
            cookie: 0,
            matching: CompactMatch::new(&Match::any()),
            actions: Arc::new([Action::Output { port: OfPort::NORMAL, max_len: 0 }]),
            flags: if priority > 0 { RuleFlags(RuleFlags::HIDDEN) } else { RuleFlags::default() },
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            created_ms: now_ms,
            modified_ms: now_ms,
            stats: Arc::new(stats),
        });
    }

    /// Removes all rules.
    pub fn flush_rules(&mut self) {
        coverage::FLUSH.inc();
        self.flows.flush(FlowRemovedReason::Delete);
    }

    /// Opens a connection. Feed it with [`Ofproto::input`].
    pub fn connect(&mut self, kind: ConnKind) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.insert(id, Conn::new(id, &self.name, kind, self.protocols));
        id
    }

    /// The connection `id`.
    pub fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// All connections.
    pub fn conns(&self) -> impl Iterator<Item = &Conn> {
        self.conns.values()
    }

    /// Forgets a connection that its peer or the daemon closed.
    pub fn disconnect(&mut self, id: ConnId) {
        self.conns.remove(&id);
    }

    /// Bytes arrived on a connection: answers go to its output. Afterwards the tables are published.
    pub fn input(&mut self, id: ConnId, bytes: &[u8], host: &mut dyn Host) {
        let Some(mut conn) = self.conns.remove(&id) else { return };
        conn.input(bytes, self, host);
        self.conns.insert(id, conn);
        self.settle(host);
    }

    /// Publishes changed tables and tells which rules are gone.
    pub fn settle(&mut self, host: &mut dyn Host) {
        if let Some(t) = self.flows.take_changed() {
            host.publish(&self.name, t);
        }
        let removed = self.flows.take_removed();
        if !removed.is_empty() {
            host.refresh_stats();
            self.tell_removed(&removed, host.now_ms());
        }
    }

    fn tell_removed(&mut self, removed: &[Removed], now_ms: u64) {
        for r in removed {
            let m = r.rule.matching.expand();
            self.conns.values_mut().for_each(|c| c.send_flow_removed(r, &m, now_ms));
        }
    }

    /// Timers: expires rules, once a second.
    pub fn run(&mut self, host: &mut dyn Host) {
        let now = host.now_ms();
        if !self.flows.has_miss_rules() {
            self.flows.add_miss_rules(now);
        }
        if now >= self.expire_at_ms {
            self.expire_at_ms = now + 1000;
            if self.flows.has_expirable() {
                host.refresh_stats();
                self.flows.expire(now);
            }
        }
        self.conns.values_mut().for_each(|c| c.run(now));
        self.settle(host);
    }

    /// When [`Ofproto::run`] has to be called next.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.flows.has_expirable().then_some(self.expire_at_ms)
    }

    /// Sends a packet-in to every connection that wants it.
    pub fn send_packet_in(&mut self, p: &crate::conn::PacketInEvent<'_>) {
        self.conns.values_mut().for_each(|c| c.send_packet_in(p));
    }

    /// Whether a packet that hits no rule in a table goes to a controller: one of a version before 1.3 listens.
    pub fn wants_misses(&self) -> bool {
        self.conns.values().any(Conn::wants_misses)
    }
}

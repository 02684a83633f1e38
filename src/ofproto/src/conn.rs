//! One OpenFlow connection: bytes in, bytes out, no socket.
//!
//! Negotiates the version, answers requests, and sends what happens of itself (packet-in, port-status,
//! flow-removed) to peers that asked for it. Reference: OpenFlow 1.3 §6.3, ovs-ofctl(8).
//!
//! Neighbours: the daemon moves the bytes; `ofproto` is the bridge it speaks for; `stats` makes multipart replies.
//! Threads: main only.

use crate::coverage;
use crate::flow_mod::{check_references, Removed};
use crate::ofproto::{Host, Ofproto};
use crate::stats;
use flow::extract::{extract_flow, PktMetadata};
use flow::{Flow, Mask, Match, OfPort};
use openflow::{
    AsyncConfig, Continuation, Decoder, Features, FlowRemoved, Frame, GroupModCommand, OfError, PacketIn,
    PacketInReason, PacketOut, PortConfig, PortDesc, PortMod, PortReason, Reply, Request, Resume, Role,
    RoleMsg, Session, SwitchConfig, Version, VersionSet,
};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

static LOG: infra::vlog::Module = infra::vlog::Module::new("connmgr");
/// Peers decide how many of these there are.
static ERROR_LIMIT: infra::vlog::RateLimit = infra::vlog::RateLimit::new(10, 10);

/// Bytes that may wait for a peer before what it did not ask for is dropped.
const MAX_ASYNC_BACKLOG: usize = 4 << 20;
/// Bytes that may wait for a peer before its next requests are left unread.
const MAX_REPLY_BACKLOG: usize = 1 << 20;

/// Flow-mods are logged so long after the first of them, ms, but not more often than once an interval.
const LOG_AFTER_MS: u64 = 10_000;
const LOG_INTERVAL_MS: u64 = 60_000;

/// Transaction id of our hello.
const HELLO_XID: u32 = 1;
/// Ports that fit into a features reply of OpenFlow 1.0 (OpenFlow 1.0 §5.3.1).
const MAX_FEATURES_PORTS: usize = (65_535 - 32) / 48;

/// Number of a connection of one bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnKind {
    /// A tool on the management socket: gets nothing that it did not ask for.
    Service {
        /// Name in the log, as `unix#7`.
        name: String,
    },
    /// A controller from the database.
    Primary {
        /// Target, as `tcp:127.0.0.1:6653`.
        name: String,
    },
}

/// A packet for controllers.
pub struct PacketInEvent<'a> {
    /// The whole packet.
    pub packet: &'a [u8],
    /// Why.
    pub reason: PacketInReason,
    /// Table of the rule.
    pub table_id: u8,
    /// Cookie of the rule; `u64::MAX` none.
    pub cookie: u64,
    /// Which controllers: those of this id.
    pub controller_id: u16,
    /// Pipeline fields.
    pub metadata: &'a Match,
    /// For the controller action with user data.
    pub userdata: &'a [u8],
    /// For `controller(pause)`: how the packet goes on.
    pub continuation: Option<&'a Continuation>,
}

/// One connection.
pub struct Conn {
    id: ConnId,
    kind: ConnKind,
    /// Bridge and peer, as in the log: `br0<->unix#7`.
    name: String,
    allowed: VersionSet,
    decoder: Decoder,
    stalled: bool,
    out: VecDeque<u8>,
    session: Option<Session>,
    closing: bool,
    role: Role,
    generation_id: Option<u64>,
    async_config: AsyncConfig,
    controller_id: u16,
    miss_send_len: u16,
    scratch: Vec<u8>,
    dropped_async: u64,
    /// When the first and the last of those came.
    flow_mods_ms: Option<(u64, u64)>,
    /// Flow-mods that no log line told of yet.
    flow_mods: crate::flow_mod::ModCounts,
    next_log_ms: u64,
}

/// Answers go into `out`; an error is sent to the peer.
type Handled = Result<(), OfError>;

impl Conn {
    pub(crate) fn new(id: ConnId, bridge: &str, kind: ConnKind, allowed: VersionSet) -> Conn {
        let (ConnKind::Service { name: peer } | ConnKind::Primary { name: peer }) = &kind;
        let name = format!("{bridge}<->{peer}");
        let miss_send_len = if matches!(kind, ConnKind::Primary { .. }) { 128 } else { 0 };
        let mut c = Conn {
            id,
            kind,
            name,
            allowed,
            decoder: Decoder::new(),
            stalled: false,
            out: VecDeque::new(),
            session: None,
            closing: false,
            role: Role::Equal,
            generation_id: None,
            async_config: AsyncConfig::default(),
            controller_id: 0,
            miss_send_len,
            scratch: Vec::new(),
            dropped_async: 0,
            flow_mods_ms: None,
            flow_mods: Default::default(),
            next_log_ms: 0,
        };
        let newest = allowed.highest().unwrap_or(Version::V10);
        c.write(|out| openflow::encode(&Reply::Hello(allowed), &Session::new(newest), HELLO_XID, out));
        c
    }

    /// Number of the connection.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Bytes to send; take away what was sent.
    pub fn output(&mut self) -> &mut VecDeque<u8> {
        &mut self.out
    }

    /// Whether messages wait that were not looked at since the peer does not read its replies. Once it has read
    /// some, they are taken up with the next input, which may be empty.
    pub fn has_input(&self) -> bool {
        self.stalled
    }

    /// Whether the connection must be closed once its output is sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Asks the peer for a sign of life. Before the versions are negotiated the hello is answer enough.
    pub fn probe(&mut self) {
        if let Some(session) = self.session {
            self.write(|out| openflow::encode(&Reply::EchoRequest(&[]), &session, 0, out));
        }
    }

    /// What the peer may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Version, once negotiated.
    pub fn version(&self) -> Option<Version> {
        self.session.as_ref().map(|s| s.version)
    }

    /// Appends what `f` writes to the output.
    fn write(&mut self, f: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::mem::take(&mut self.scratch);
        f(&mut bytes);
        self.queue(&bytes);
        bytes.clear();
        // One large dump should not keep its memory.
        bytes.shrink_to(MAX_REPLY_BACKLOG);
        self.scratch = bytes;
    }

    /// Appends whole messages to the output.
    fn queue(&mut self, messages: &[u8]) {
        if self.session.is_some() {
            coverage::QUEUED.add(count_messages(messages));
        }
        self.out.extend(messages);
    }

    pub(crate) fn wants_misses(&self) -> bool {
        self.controller_id == 0 && self.gets_async() && self.version().is_none_or(|v| v < Version::V13)
    }

    fn gets_async(&self) -> bool {
        self.session.is_some() && (matches!(self.kind, ConnKind::Primary { .. }) || self.miss_send_len > 0)
    }

    pub(crate) fn input(&mut self, bytes: &[u8], of: &mut Ofproto, host: &mut dyn Host) {
        self.decoder.feed(bytes);
        self.stalled = false;
        while !self.closing {
            if self.out.len() > MAX_REPLY_BACKLOG {
                self.stalled = true;
                break;
            }
            match self.decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => self.frame(&frame, of, host),
                Err(e) => {
                    infra::vlog_rl!(LOG, ERROR_LIMIT, Warn, "{}: {e}", self.name);
                    self.closing = true;
                }
            }
        }
    }

    fn frame(&mut self, frame: &Frame, of: &mut Ofproto, host: &mut dyn Host) {
        coverage::RECEIVED.inc();
        let Some(session) = self.session else {
            self.hello(frame);
            return;
        };
        coverage::RECV_OPENFLOW.inc();
        if frame.header.version != session.version.wire() {
            self.error(&session, frame, OfError::OFPBRC_BAD_VERSION);
            return;
        }
        let handled = match openflow::decode(frame, &session) {
            Ok(request) => self.request(request, frame, of, host),
            Err(e) => Err(e),
        };
        if let Err(e) = handled {
            self.error(&session, frame, e);
        }
    }

    fn error(&mut self, session: &Session, frame: &Frame, e: OfError) {
        infra::vlog_rl!(
            LOG,
            ERROR_LIMIT,
            Info,
            "{}: sending {} error reply to {} message",
            self.name,
            e.name(),
            frame.name()
        );
        self.write(|out| openflow::encode_error(e, frame, session.version, out));
    }

    fn hello(&mut self, frame: &Frame) {
        if frame.header.kind != 0 {
            infra::vlog!(LOG, Warn, "{}: first message is not a hello, closing", self.name);
            self.closing = true;
            return;
        }
        let peer = openflow::decode_hello(frame);
        match self.allowed.negotiate(peer) {
            Some(v) => self.session = Some(Session::new(v)),
            None => {
                infra::vlog!(
                    LOG,
                    Warn,
                    "{}: version negotiation failed (we support version {}, peer supports version {})",
                    self.name,
                    self.allowed,
                    peer
                );
                let v = Version::from_wire(frame.header.version)
                    .or_else(|| self.allowed.highest())
                    .unwrap_or(Version::V10);
                let text = format!(
                    "We support versions {}, you support versions {peer}, no common versions.",
                    self.allowed
                );
                self.write(|out| openflow::encode_hello_failed(OfError::OFPHFC_INCOMPATIBLE, v, &text, out));
                self.closing = true;
            }
        }
    }

    pub(crate) fn reply(&mut self, xid: u32, reply: &Reply<'_>) {
        if let Some(s) = self.session {
            self.write(|out| openflow::encode(reply, &s, xid, out));
        }
    }

    /// Sends a flow statistics reply.
    pub(crate) fn reply_flows(
        &mut self,
        xid: u32,
        nicira: bool,
        fill: impl FnOnce(&mut openflow::FlowStatsWriter),
    ) {
        if let Some(s) = self.session {
            let mut w = openflow::FlowStatsWriter::new(s.version, xid, nicira);
            fill(&mut w);
            self.queue(&w.finish());
        }
    }

    fn request(&mut self, request: Request, frame: &Frame, of: &mut Ofproto, host: &mut dyn Host) -> Handled {
        let xid = frame.header.xid;
        self.check_role(&request)?;
        match request {
            Request::Hello(_) | Request::EchoReply => {}
            Request::Error { kind, code } => {
                infra::vlog_rl!(
                    LOG,
                    ERROR_LIMIT,
                    Info,
                    "{}: received error: type {kind}, code {code}",
                    self.name
                );
            }
            Request::EchoRequest(data) => self.reply(xid, &Reply::EchoReply(&data)),
            Request::Barrier => {
                of.settle(host);
                self.reply(xid, &Reply::Barrier);
            }
            Request::FlowMod(fm) => {
                let version = self.version().unwrap_or(Version::V10);
                of.flows.apply(&fm, version, host.now_ms())?;
                self.count_flow_mod(of, host.now_ms());
            }
            Request::PacketOut(mut out) => {
                coverage::PACKET_OUT.inc();
                self.check_packet_out(&mut out)?;
                of.settle(host);
                host.packet_out(of.name(), &out)?;
            }
            Request::Resume(mut r) => {
                check_resume(&mut r)?;
                of.settle(host);
                host.resume(of.name(), &r)?;
            }
            Request::PortMod(pm) => port_mod(of, &pm, host)?,
            Request::FeaturesRequest => self.features(xid, of),
            Request::GetConfig => {
                let ttl = self.async_config.packet_in[0] & 1 << PacketInReason::InvalidTtl as u32 != 0;
                let c = SwitchConfig {
                    miss_send_len: self.miss_send_len,
                    invalid_ttl_to_controller: ttl,
                    ..of.config
                };
                self.reply(xid, &Reply::GetConfig(c));
            }
            Request::SetConfig(c) => {
                // Service connections may ask for packets, but only controllers set how the bridge treats fragments.
                self.miss_send_len = c.miss_send_len;
                of.config.frag = c.frag;
                let bit = 1 << PacketInReason::InvalidTtl as u32;
                if c.invalid_ttl_to_controller {
                    self.async_config.packet_in[0] |= bit;
                } else {
                    self.async_config.packet_in[0] &= !bit;
                }
            }
            other => return self.extension(other, xid, of, host),
        }
        Ok(())
    }

    /// The actions must suit the packet.
    fn check_packet_out(&self, out: &mut PacketOut) -> Handled {
        if out.buffer_id != openflow::NO_BUFFER {
            return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
        }
        let Some(session) = &self.session else { return Ok(()) };
        let in_port = PktMetadata::new(out.in_port.0.into());
        let mut whole = Flow::default();
        whole.words_mut().fill(u64::MAX);
        let m = Match { flow: extract_flow(&out.packet, &in_port).0, mask: Mask(whole) };
        openflow::check_actions(&mut out.actions, &m, openflow::TABLE_ALL, session)?;
        check_references(&out.actions)
    }

    fn extension(&mut self, request: Request, xid: u32, of: &mut Ofproto, host: &mut dyn Host) -> Handled {
        let Some(session) = self.session.as_mut() else { return Ok(()) };
        match request {
            Request::SetControllerId(id) => self.controller_id = id,
            Request::SetFlowFormat { nxm } => session.nxm = nxm,
            Request::FlowModTableId(on) => session.flow_mod_table_id = on,
            Request::SetPacketInFormat(f) => session.packet_in_format = f,
            Request::Role(r) => self.set_role(xid, r)?,
            Request::GetAsync => {
                let c = self.async_config;
                self.reply(xid, &Reply::GetAsync(&c));
            }
            Request::SetAsync(update) => update.apply(&mut self.async_config),
            // There are no groups and meters: none can be deleted, which is no error, and none be made.
            Request::GroupMod { command: GroupModCommand::Delete, .. }
            | Request::MeterMod { command: 2, .. } => {}
            Request::GroupMod { command: GroupModCommand::Add | GroupModCommand::AddOrMod, .. } => {
                return Err(OfError::OFPGMFC_OUT_OF_GROUPS)
            }
            Request::GroupMod { .. } => return Err(OfError::OFPGMFC_UNKNOWN_GROUP),
            Request::MeterMod { command: 0, .. } => return Err(OfError::OFPMMFC_OUT_OF_METERS),
            Request::MeterMod { .. } => return Err(OfError::OFPMMFC_UNKNOWN_METER),
            Request::TableMod(t) => {
                if t.table_id != openflow::TABLE_ALL && t.table_id >= crate::flow_mod::USER_TABLES {
                    return Err(OfError::OFPTMFC_BAD_TABLE);
                }
                return Err(OfError::OFPTMFC_BAD_CONFIG);
            }
            Request::QueueGetConfig { port, .. } => {
                let all = port == OfPort::NONE && session.version >= Version::V11;
                let may_be = port.0 < OfPort::MAX.0 || session.version >= Version::V14;
                if !(all || may_be && of.port(port).is_some()) {
                    return Err(OfError::OFPQOFC_BAD_PORT);
                }
                self.reply(xid, &Reply::QueueGetConfig { port });
            }
            other => return stats::multipart(self, other, xid, of, host),
        }
        Ok(())
    }

    fn features(&mut self, xid: u32, of: &Ofproto) {
        let mut ports: Vec<PortDesc> = of.ports().map(|p| p.desc()).collect();
        ports.truncate(MAX_FEATURES_PORTS);
        self.reply(
            xid,
            &Reply::Features(&Features {
                datapath_id: of.datapath_id,
                n_buffers: 0,
                n_tables: crate::flow_mod::USER_TABLES,
                auxiliary_id: 0,
                ports,
            }),
        );
    }

    /// Slaves may look but not change (OpenFlow 1.3 §6.3.4).
    fn check_role(&self, request: &Request) -> Handled {
        let changes = matches!(
            request,
            Request::FlowMod(_)
                | Request::PortMod(_)
                | Request::TableMod(_)
                | Request::GroupMod { .. }
                | Request::MeterMod { .. }
                | Request::PacketOut(_)
                | Request::Resume(_)
                | Request::SetConfig(_)
        );
        if changes && self.role == Role::Slave {
            return Err(OfError::OFPBRC_IS_SECONDARY);
        }
        Ok(())
    }

    fn set_role(&mut self, xid: u32, r: RoleMsg) -> Handled {
        if let (Some(new), Role::Master | Role::Slave) = (r.generation_id, r.role) {
            // A signed comparison, so that the counter may wrap (OpenFlow 1.3 §6.3.4).
            if self.generation_id.is_some_and(|old| (new.wrapping_sub(old) as i64) < 0) {
                return Err(OfError::OFPRRFC_STALE);
            }
            self.generation_id = Some(new);
        }
        if r.role != Role::NoChange {
            self.role = r.role;
        }
        let reply = RoleMsg { role: self.role, generation_id: self.generation_id, nicira: r.nicira };
        self.reply(xid, &Reply::Role(reply));
        Ok(())
    }

    fn count_flow_mod(&mut self, of: &mut Ofproto, now_ms: u64) {
        let c = of.flows.take_counts();
        self.flow_mods.adds += c.adds;
        self.flow_mods.modifications += c.modifications;
        self.flow_mods.deletes += c.deletes;
        self.flow_mods_ms.get_or_insert((now_ms, now_ms)).1 = now_ms;
    }

    /// Whether something that the peer did not ask for may be sent, and counts it when not.
    fn may_send_async(&mut self) -> bool {
        if self.out.len() > MAX_ASYNC_BACKLOG {
            self.dropped_async += 1;
            coverage::OVERFLOW.inc();
            return false;
        }
        true
    }

    fn wants(&self, bits: [u32; 2], reason: u32) -> bool {
        let slave = usize::from(self.role == Role::Slave);
        self.gets_async() && bits[slave] & (1 << reason) != 0
    }

    pub(crate) fn send_port_status(&mut self, reason: PortReason, desc: &PortDesc) {
        if self.wants(self.async_config.port_status, reason as u32) && self.may_send_async() {
            self.reply(0, &Reply::PortStatus { reason, desc });
        }
    }

    pub(crate) fn send_flow_removed(&mut self, r: &Removed, m: &Match, now_ms: u64) {
        if !self.wants(self.async_config.flow_removed, r.reason as u32) || !self.may_send_async() {
            return;
        }
        let ms = now_ms.saturating_sub(r.rule.created_ms);
        self.reply(
            0,
            &Reply::FlowRemoved(FlowRemoved {
                match_: m,
                priority: u16::try_from(r.rule.priority).unwrap_or(u16::MAX),
                cookie: r.rule.cookie,
                reason: r.reason,
                table_id: r.rule.table_id,
                duration_sec: u32::try_from(ms / 1000).unwrap_or(u32::MAX),
                duration_nsec: (ms % 1000) as u32 * 1_000_000,
                idle_timeout: r.rule.idle_timeout,
                hard_timeout: r.rule.hard_timeout,
                packet_count: r.rule.stats.packets.load(Ordering::Relaxed),
                byte_count: r.rule.stats.bytes.load(Ordering::Relaxed),
            }),
        );
    }

    pub(crate) fn send_packet_in(&mut self, p: &PacketInEvent<'_>) {
        // What a connection asked for is told in the reasons of its version.
        let Some(version) = self.version() else { return };
        let reason = p.reason.on_wire(version) as u32;
        // From OpenFlow 1.3 on a miss without a rule for it is a drop.
        if p.reason == PacketInReason::ImplicitMiss && version >= Version::V13 {
            return;
        }
        if p.controller_id != self.controller_id || !self.wants(self.async_config.packet_in, reason) {
            return;
        }
        if !self.may_send_async() {
            coverage::PACKET_IN_OVERFLOW.inc();
            return;
        }
        // Always the whole packet, whatever length was asked for: there is no buffer to fetch the rest from.
        self.reply(
            0,
            &Reply::PacketIn(PacketIn {
                packet: p.packet,
                buffer_id: openflow::NO_BUFFER,
                total_len: u16::try_from(p.packet.len()).unwrap_or(u16::MAX),
                reason: p.reason,
                table_id: p.table_id,
                cookie: p.cookie,
                metadata: p.metadata,
                userdata: p.userdata,
                continuation: p.continuation,
            }),
        );
    }

    pub(crate) fn run(&mut self, now_ms: u64) {
        let Some((first, _)) = self.flow_mods_ms else { return };
        if now_ms >= self.next_log_ms.max(first + LOG_AFTER_MS) {
            self.next_log_ms = now_ms + LOG_INTERVAL_MS;
            self.log_flow_mods(now_ms);
        }
    }

    /// One line about the flow-mods of the connection since the last such line.
    fn log_flow_mods(&mut self, now_ms: u64) {
        let Some((first, last)) = self.flow_mods_ms.take() else { return };
        let c = std::mem::take(&mut self.flow_mods);
        let kinds: Vec<String> =
            [(c.adds, "adds"), (c.deletes, "deletes"), (c.modifications, "modifications")]
                .into_iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("{n} {what}"))
                .collect();
        let all = c.adds + c.deletes + c.modifications;
        let (took, ago) = (last.saturating_sub(first) / 1000, now_ms.saturating_sub(first) / 1000);
        let when = if took >= ago {
            format!("in the last {took} s")
        } else if took > 0 {
            format!("in the {took} s starting {ago} s ago")
        } else {
            format!("{ago} s ago")
        };
        infra::vlog!(LOG, Info, "{}: {all} flow_mods {when} ({})", self.name, kinds.join(", "));
    }
}

/// How many OpenFlow messages stand one behind the other.
fn count_messages(mut bytes: &[u8]) -> u64 {
    let mut n = 0;
    while let [_, _, high, low, ..] = *bytes {
        let len = usize::from(u16::from_be_bytes([high, low]));
        bytes = bytes.get(len.max(8)..).unwrap_or(&[]);
        n += 1;
    }
    n
}

fn port_mod(of: &mut Ofproto, pm: &PortMod, host: &mut dyn Host) -> Handled {
    let Some(port) = of.ports.get_mut(&pm.port_no) else { return Err(OfError::OFPPMFC_BAD_PORT) };
    if port.hw_addr != pm.hw_addr {
        return Err(OfError::OFPPMFC_BAD_HW_ADDR);
    }
    let known = PortConfig::PORT_DOWN
        | PortConfig::NO_STP
        | PortConfig::NO_RECV
        | PortConfig::NO_RECV_STP
        | PortConfig::NO_FLOOD
        | PortConfig::NO_FWD
        | PortConfig::NO_PACKET_IN;
    let mask = pm.mask.0 & known;
    let new = (port.config.0 & !mask) | (pm.config.0 & mask);
    if (new ^ port.config.0) & PortConfig::PORT_DOWN != 0 {
        if let Some(n) = port.netdev() {
            if let Err(e) = n.set_admin_up(new & PortConfig::PORT_DOWN == 0) {
                infra::vlog!(LOG, Warn, "{}: cannot change the administrative state: {e}", port.name);
                return Err(OfError::OFPPMFC_EPERM);
            }
        }
    }
    port.config = PortConfig(new);
    port.refresh();
    let copy = port.clone();
    host.port_changed(of.name(), &copy);
    of.tell_port_modified(copy.no);
    Ok(())
}

/// What is left to do must suit the packet.
fn check_resume(r: &mut Resume) -> Handled {
    if r.packet.len() < 14 {
        return Err(OfError::OFPBRC_BAD_PACKET);
    }
    let flow = extract_flow(&r.packet, &PktMetadata::from_flow(&r.metadata.flow)).0;
    let m = Match { flow, mask: flow.packet_mask() };
    let c = &mut r.continuation;
    for list in c.frames.iter_mut().map(|f| &mut f.actions).chain([&mut c.action_set]) {
        openflow::check_packet_out(list, &m, false)?;
        check_references(list)?;
    }
    Ok(())
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.log_flow_mods(infra::clock::now_ms().max(0) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoHost;

    impl Host for NoHost {
        fn publish(&mut self, _: &str, _: crate::Tables) {}
        fn packet_out(&mut self, _: &str, _: &PacketOut) -> Handled {
            Ok(())
        }
        fn resume(&mut self, _: &str, _: &Resume) -> Handled {
            Ok(())
        }
        fn port_changed(&mut self, _: &str, _: &crate::port::Port) {}
        fn refresh_stats(&mut self) {}
        fn now_ms(&self) -> u64 {
            0
        }
    }

    #[test]
    fn messages_are_counted() {
        assert_eq!(count_messages(&[]), 0);
        assert_eq!(count_messages(&[4, 0, 0, 8, 0, 0, 0, 1]), 1);
        assert_eq!(count_messages(&[4, 0, 0, 9, 0, 0, 0, 1, 7, 4, 0, 0, 8, 0, 0, 0, 2]), 2);
        // No length is believed that would never end.
        assert_eq!(count_messages(&[0; 20]), 3);
    }

    /// Requests whose replies nobody reads do not fill the memory, and none is lost.
    #[test]
    fn a_peer_that_does_not_read_is_not_answered() {
        const REQUESTS: usize = 100;
        let mut of = Ofproto::new("br0", 1);
        let id = of.connect(ConnKind::Service { name: "unix#1".into() });
        // A table features request of OpenFlow 1.3: many bytes for 16.
        let request = [4, 18, 0, 16, 0, 0, 0, 9, 0, 12, 0, 0, 0, 0, 0, 0];
        let mut bytes = vec![4, 0, 0, 8, 0, 0, 0, 1];
        bytes.extend(request.repeat(REQUESTS));
        bytes.extend([4, 20, 0, 8, 0, 0, 0, 77]);
        of.input(id, &bytes, &mut NoHost);
        let mut turns = 0;
        let last = loop {
            let conn = of.conn_mut(id).unwrap();
            assert!(conn.output().len() < 2 * MAX_REPLY_BACKLOG, "{} bytes wait", conn.output().len());
            let sent: Vec<u8> = conn.output().drain(..).collect();
            if !conn.has_input() {
                break sent;
            }
            turns += 1;
            of.input(id, &[], &mut NoHost);
        };
        assert!(turns > 10, "{turns}");
        assert!(last.ends_with(&[4, 21, 0, 8, 0, 0, 0, 77]), "the barrier is answered last");
    }
}

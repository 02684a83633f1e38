//! Messages as types, free of version: what controllers ask ([`Request`]) and what the switch says ([`Reply`]).
//!
//! Neighbours: `decode` and `encode` read and write them; `ofproto` handles and makes them. Threads: plain data.

use crate::{Action, Continuation, Resume, Version, VersionSet};
use flow::{Match, OfPort};

/// "No buffer": the whole packet is in the message.
pub const NO_BUFFER: u32 = u32::MAX;
/// Table number that means "all tables" or "the switch chooses".
pub const TABLE_ALL: u8 = 255;
/// Group number that means "any" in filters.
pub const GROUP_ANY: u32 = u32::MAX;
/// Group number that means "all groups".
pub const GROUP_ALL: u32 = 0xffff_fffc;
/// Queue number that means "all queues".
pub const QUEUE_ALL: u32 = u32::MAX;

/// What a connection has settled: needed to read and write its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Negotiated version.
    pub version: Version,
    /// Nicira flow-mod-table-id extension: the high byte of an OpenFlow 1.0 flow-mod's command is the table.
    pub flow_mod_table_id: bool,
    /// OpenFlow 1.0 asynchronous messages use the Nicira extensible match (set by NXT_SET_FLOW_FORMAT).
    pub nxm: bool,
    /// Form of packet-ins.
    pub packet_in_format: PacketInFormat,
    /// First port number that cannot exist (reserved ports apart).
    pub max_ports: u16,
    /// Tables of the switch; a goto_table beyond is an error.
    pub n_tables: u8,
}

impl Session {
    /// A fresh session of `version`.
    pub fn new(version: Version) -> Session {
        Session {
            version,
            flow_mod_table_id: false,
            nxm: false,
            packet_in_format: PacketInFormat::Standard,
            max_ports: OfPort::MAX.0,
            n_tables: 255,
        }
    }
}

/// Forms of a packet-in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum PacketInFormat {
    Standard,
    Nxt,
    Nxt2,
}

/// Flow-mod commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum FlowModCommand {
    Add,
    Modify,
    ModifyStrict,
    Delete,
    DeleteStrict,
}

/// Flow-mod flags, the same bits as OpenFlow 1.5 for the first five.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowFlags(pub u16);

#[allow(missing_docs)]
impl FlowFlags {
    pub const SEND_FLOW_REM: u16 = 1;
    pub const CHECK_OVERLAP: u16 = 2;
    pub const RESET_COUNTS: u16 = 4;
    pub const NO_PACKET_COUNTS: u16 = 8;
    pub const NO_BYTE_COUNTS: u16 = 16;
    pub const HIDDEN_FIELDS: u16 = 32;
    pub const NO_READONLY: u16 = 64;
    /// OpenFlow 1.0 "emergency flow": never accepted.
    pub const EMERGENCY: u16 = 0x8000;

    /// Whether all bits of `f` are set.
    pub fn has(self, f: u16) -> bool {
        self.0 & f == f
    }
}

/// One flow-mod.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct FlowMod {
    pub command: FlowModCommand,
    /// [`TABLE_ALL`] where the message names none: all tables for deletions, table 0 (the switch's choice) for additions.
    pub table_id: u8,
    pub match_: Match,
    pub priority: u16,
    /// Cookie filter of modify and delete: flows whose cookie agrees with `cookie` in the bits of `cookie_mask`.
    pub cookie: u64,
    pub cookie_mask: u64,
    /// Cookie that added flows get, and modified ones when `modify_cookie`.
    pub new_cookie: u64,
    pub modify_cookie: bool,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub flags: FlowFlags,
    pub buffer_id: u32,
    pub out_port: OfPort,
    pub out_group: u32,
    pub importance: u16,
    pub actions: Box<[Action]>,
}

/// Port configuration bits that a port-mod can change (wire bits of every version).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortConfig(pub u32);

#[allow(missing_docs)]
impl PortConfig {
    pub const PORT_DOWN: u32 = 1;
    pub const NO_STP: u32 = 2;
    pub const NO_RECV: u32 = 4;
    pub const NO_RECV_STP: u32 = 8;
    pub const NO_FLOOD: u32 = 16;
    pub const NO_FWD: u32 = 32;
    pub const NO_PACKET_IN: u32 = 64;
}

/// Port state bits: link down, blocked, live (OpenFlow 1.1+), and the STP state (OpenFlow 1.0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortState(pub u32);

#[allow(missing_docs)]
impl PortState {
    pub const LINK_DOWN: u32 = 1;
    pub const BLOCKED: u32 = 2;
    pub const LIVE: u32 = 4;
    pub const STP_MASK: u32 = 3 << 8;
}

/// Port features as bits of OpenFlow 1.1+ (converted for 1.0).
#[allow(missing_docs)]
pub mod port_features {
    pub const HD_10MB: u32 = 1;
    pub const FD_10MB: u32 = 1 << 1;
    pub const HD_100MB: u32 = 1 << 2;
    pub const FD_100MB: u32 = 1 << 3;
    pub const HD_1GB: u32 = 1 << 4;
    pub const FD_1GB: u32 = 1 << 5;
    pub const FD_10GB: u32 = 1 << 6;
    pub const FD_40GB: u32 = 1 << 7;
    pub const FD_100GB: u32 = 1 << 8;
    pub const FD_1TB: u32 = 1 << 9;
    pub const OTHER: u32 = 1 << 10;
    pub const COPPER: u32 = 1 << 11;
    pub const FIBER: u32 = 1 << 12;
    pub const AUTONEG: u32 = 1 << 13;
    pub const PAUSE: u32 = 1 << 14;
    pub const PAUSE_ASYM: u32 = 1 << 15;
}

/// Description of one port. Speeds in kbps.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PortDesc {
    pub port_no: OfPort,
    pub hw_addr: [u8; 6],
    pub name: String,
    pub config: PortConfig,
    pub state: PortState,
    pub curr: u32,
    pub advertised: u32,
    pub supported: u32,
    pub peer: u32,
    pub curr_speed: u32,
    pub max_speed: u32,
}

/// One port-mod: the bits of `mask` change to those of `config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PortMod {
    pub port_no: OfPort,
    pub hw_addr: [u8; 6],
    pub config: PortConfig,
    pub mask: PortConfig,
    /// Advertised features, 0: leave them.
    pub advertise: u32,
}

/// One packet-out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PacketOut {
    pub buffer_id: u32,
    /// Ingress port and (OpenFlow 1.5) other pipeline fields.
    pub metadata: Box<Match>,
    pub in_port: OfPort,
    pub actions: Box<[Action]>,
    pub packet: Box<[u8]>,
}

/// Reply to get-config, content of set-config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct SwitchConfig {
    /// 0 normal, 1 drop, 2 reassemble.
    pub frag: u16,
    /// Invalid TTL to the controller (OpenFlow 1.1, 1.2).
    pub invalid_ttl_to_controller: bool,
    pub miss_send_len: u16,
}

/// Role of a controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Role {
    NoChange,
    Equal,
    Master,
    Slave,
}

/// Role request and reply. `nicira`: in Nicira's form; the reply takes the form of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct RoleMsg {
    pub role: Role,
    pub generation_id: Option<u64>,
    pub nicira: bool,
}

/// Which asynchronous messages a controller gets. `[0]`: as master or equal, `[1]`: as slave; a bit per reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct AsyncConfig {
    pub packet_in: [u32; 2],
    pub port_status: [u32; 2],
    pub flow_removed: [u32; 2],
    pub role_status: [u32; 2],
    pub table_status: [u32; 2],
    pub requestforward: [u32; 2],
}

impl Default for AsyncConfig {
    /// What a fresh controller of OpenFlow gets.
    fn default() -> AsyncConfig {
        AsyncConfig {
            packet_in: [0x3b, 0],
            port_status: [7, 7],
            flow_removed: [0x3f, 0],
            role_status: [0, 0],
            table_status: [0, 0],
            requestforward: [0, 0],
        }
    }
}

/// Filter of flow and aggregate statistics.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct FlowStatsRequest {
    pub match_: Match,
    /// [`TABLE_ALL`]: all tables.
    pub table_id: u8,
    /// `NONE`: any.
    pub out_port: OfPort,
    /// [`GROUP_ANY`]: any.
    pub out_group: u32,
    pub cookie: u64,
    pub cookie_mask: u64,
    /// Asked in Nicira's form; the reply takes the same.
    pub nicira: bool,
}

/// One table-mod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct TableMod {
    pub table_id: u8,
    /// OpenFlow 1.1, 1.2: what a miss does: 0 to the controller, 1 goes on, 2 drops. `None` later.
    pub miss: Option<u8>,
    pub eviction: Option<bool>,
    pub vacancy: Option<(u8, u8)>,
}

/// Group-mod commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum GroupModCommand {
    Add,
    Modify,
    Delete,
    AddOrMod,
    InsertBucket,
    RemoveBucket,
}

/// A decoded message to the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Request {
    Hello(VersionSet),
    /// The peer reports an error in something that we sent.
    Error {
        kind: u16,
        code: u16,
    },
    EchoRequest(Box<[u8]>),
    EchoReply,
    FeaturesRequest,
    GetConfig,
    SetConfig(SwitchConfig),
    Barrier,
    FlowMod(Box<FlowMod>),
    PortMod(PortMod),
    TableMod(TableMod),
    GroupMod {
        command: GroupModCommand,
        group_id: u32,
    },
    /// `command`: 0 add, 1 modify, 2 delete.
    MeterMod {
        command: u16,
        meter_id: u32,
    },
    PacketOut(PacketOut),
    Resume(Box<Resume>),
    Role(RoleMsg),
    GetAsync,
    /// The bits given replace those in the configuration at hand.
    SetAsync(AsyncUpdate),
    SetControllerId(u16),
    SetFlowFormat {
        nxm: bool,
    },
    FlowModTableId(bool),
    SetPacketInFormat(PacketInFormat),
    QueueGetConfig {
        port: OfPort,
        queue: u32,
    },
    Desc,
    Flow(Box<FlowStatsRequest>),
    Aggregate(Box<FlowStatsRequest>),
    Table,
    /// `OfPort::NONE`: all ports.
    PortStats(OfPort),
    /// `OfPort::NONE`: all ports.
    PortDesc(OfPort),
    QueueStats {
        port: OfPort,
        queue: u32,
    },
    GroupStats(u32),
    GroupDesc(u32),
    GroupFeatures,
    MeterStats(u32),
    MeterConfig(u32),
    MeterFeatures,
    TableFeatures,
    TableDesc,
}

/// A change of [`AsyncConfig`]: properties that a set-async message carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct AsyncUpdate {
    pub packet_in: [Option<u32>; 2],
    pub port_status: [Option<u32>; 2],
    pub flow_removed: [Option<u32>; 2],
    pub role_status: [Option<u32>; 2],
    pub table_status: [Option<u32>; 2],
    pub requestforward: [Option<u32>; 2],
}

impl AsyncUpdate {
    /// Changes `config`.
    pub fn apply(&self, config: &mut AsyncConfig) {
        let pairs = [
            (&self.packet_in, &mut config.packet_in),
            (&self.port_status, &mut config.port_status),
            (&self.flow_removed, &mut config.flow_removed),
            (&self.role_status, &mut config.role_status),
            (&self.table_status, &mut config.table_status),
            (&self.requestforward, &mut config.requestforward),
        ];
        for (new, old) in pairs {
            for (o, n) in old.iter_mut().zip(new) {
                *o = n.unwrap_or(*o);
            }
        }
    }
}

/// Reply to features-request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Features {
    pub datapath_id: u64,
    pub n_buffers: u32,
    pub n_tables: u8,
    pub auxiliary_id: u8,
    /// Sent in OpenFlow 1.0 to 1.2 only.
    pub ports: Vec<PortDesc>,
}

/// Reply to desc.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Desc {
    pub mfr_desc: String,
    pub hw_desc: String,
    pub sw_desc: String,
    pub serial_num: String,
    pub dp_desc: String,
}

/// One flow of a flow statistics reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct FlowStats<'a> {
    pub match_: &'a Match,
    pub actions: &'a [Action],
    pub table_id: u8,
    pub priority: u16,
    pub cookie: u64,
    pub duration_sec: u32,
    pub duration_nsec: u32,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    /// Seconds since the last packet (Nicira only).
    pub idle_age: Option<u16>,
    /// Seconds since the last change (Nicira only).
    pub hard_age: Option<u16>,
    pub packet_count: u64,
    pub byte_count: u64,
    pub flags: FlowFlags,
    pub importance: u16,
}

/// Reply to an aggregate request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct AggregateStats {
    pub packet_count: u64,
    pub byte_count: u64,
    pub flow_count: u32,
}

/// Counters of a port; `u64::MAX` means unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PortStats {
    pub port_no: OfPort,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_frame_err: u64,
    pub rx_over_err: u64,
    pub rx_crc_err: u64,
    pub collisions: u64,
    /// Since the port exists; `u32::MAX` unknown.
    pub duration_sec: u32,
    pub duration_nsec: u32,
    /// OpenFlow 1.4+: RFC 2819 counters, in the order of [`RFC2819`]; `u64::MAX` means unknown.
    pub rfc2819: [u64; 14],
    /// OpenFlow 1.4+: counters of the port's own, by name.
    pub custom: Vec<(String, u64)>,
}

/// Order of [`PortStats::rfc2819`], as `ovs-ofctl dump-ports` names them.
pub const RFC2819: [&str; 14] = [
    "rx_1_to_64_packets",
    "rx_65_to_127_packets",
    "rx_128_to_255_packets",
    "rx_256_to_511_packets",
    "rx_512_to_1023_packets",
    "rx_1024_to_1522_packets",
    "rx_1523_to_max_packets",
    "tx_1_to_64_packets",
    "tx_65_to_127_packets",
    "tx_128_to_255_packets",
    "tx_256_to_511_packets",
    "tx_512_to_1023_packets",
    "tx_1024_to_1522_packets",
    "tx_1523_to_max_packets",
];

/// One table of a table statistics reply.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct TableStats {
    pub table_id: u8,
    /// Empty: the table has no name of its own (`table3` is sent where a name must be).
    pub name: String,
    pub max_entries: u32,
    pub active_count: u32,
    pub lookup_count: u64,
    pub matched_count: u64,
    /// Tables of the switch, for the "next table" bits.
    pub n_tables: u8,
}

/// One table of a table features reply.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct TableFeatures {
    pub table_id: u8,
    pub name: String,
    pub max_entries: u32,
    pub n_tables: u8,
    pub eviction: bool,
}

/// Reply to a meter features request; the default is a switch without meters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct MeterFeatures {
    pub max_meters: u32,
    pub band_types: u32,
    pub capabilities: u32,
    pub max_bands: u8,
    pub max_color: u8,
}

/// One table of a table-desc reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct TableDesc {
    pub table_id: u8,
    pub eviction: bool,
    pub eviction_flags: u32,
    pub vacancy: Option<(u8, u8, u8)>,
}

/// Why a packet goes to the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum PacketInReason {
    NoMatch = 0,
    Action = 1,
    InvalidTtl = 2,
    ActionSet = 3,
    Group = 4,
    PacketOut = 5,
    /// Table-miss flow in OpenFlow 1.3+, no controller action behind it.
    ExplicitMiss = 6,
    ImplicitMiss = 7,
}

/// One packet-in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PacketIn<'a> {
    /// The bytes to send, cut to `max_len` already.
    pub packet: &'a [u8],
    pub buffer_id: u32,
    /// Length of the whole packet.
    pub total_len: u16,
    pub reason: PacketInReason,
    pub table_id: u8,
    /// `u64::MAX`: none.
    pub cookie: u64,
    /// Pipeline fields of the packet (in_port, tunnel, registers, metadata).
    pub metadata: &'a Match,
    pub userdata: &'a [u8],
    /// Where it goes on, when it was stopped for controllers.
    pub continuation: Option<&'a Continuation>,
}

/// Why a flow is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum FlowRemovedReason {
    IdleTimeout = 0,
    HardTimeout = 1,
    Delete = 2,
    GroupDelete = 3,
    MeterDelete = 4,
    Eviction = 5,
}

/// One flow-removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct FlowRemoved<'a> {
    pub match_: &'a Match,
    pub priority: u16,
    pub cookie: u64,
    pub reason: FlowRemovedReason,
    pub table_id: u8,
    pub duration_sec: u32,
    pub duration_nsec: u32,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub packet_count: u64,
    pub byte_count: u64,
}

/// What happened to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum PortReason {
    Add = 0,
    Delete = 1,
    Modify = 2,
}

/// A message from the switch. Borrowed where the content is large.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Reply<'a> {
    Hello(VersionSet),
    EchoRequest(&'a [u8]),
    EchoReply(&'a [u8]),
    Features(&'a Features),
    GetConfig(SwitchConfig),
    Barrier,
    PortStatus {
        reason: PortReason,
        desc: &'a PortDesc,
    },
    FlowRemoved(FlowRemoved<'a>),
    PacketIn(PacketIn<'a>),
    Role(RoleMsg),
    /// A role lost to another controller; `reason` 0: another master.
    RoleStatus {
        role: Role,
        reason: u8,
        generation_id: Option<u64>,
    },
    GetAsync(&'a AsyncConfig),
    /// No queue is ever configured.
    QueueGetConfig {
        port: OfPort,
    },
    Desc(&'a Desc),
    /// See [`crate::FlowStatsWriter`] for large replies.
    Flow {
        nicira: bool,
        flows: &'a [FlowStats<'a>],
    },
    Aggregate {
        nicira: bool,
        stats: AggregateStats,
    },
    Table(&'a [TableStats]),
    PortStats(&'a [PortStats]),
    PortDesc(&'a [PortDesc]),
    /// Nothing is in any of these.
    QueueStats,
    GroupStats,
    GroupDesc,
    GroupFeatures,
    MeterStats,
    MeterConfig,
    MeterFeatures(MeterFeatures),
    TableFeatures(&'a [TableFeatures]),
    TableDesc(&'a [TableDesc]),
}

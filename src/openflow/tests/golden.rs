//! Replies byte for byte as Open vSwitch 3.1.0 sends them, recorded from a bridge `br0` of type "dummy" with ports
//! `p1` and `p2`.

use flow::{Field, Match, OfPort};
use openflow::{
    encode, AsyncConfig, Desc, Features, FlowRemoved, FlowRemovedReason, MeterFeatures, PacketIn,
    PacketInFormat, PacketInReason, PortConfig, PortDesc, PortState, PortStats, Reply, Role, RoleMsg,
    Session, SwitchConfig, TableDesc, TableFeatures, TableStats, Version,
};

const RECORDED: &str = include_str!("data/replies.txt");
/// Messages that a packet-in with userdata, the removal of its flow and a port-mod cause.
const ASYNC: &str = include_str!("data/async.txt");
const XID: u32 = 0x11;

fn port(no: OfPort, last: u8, name: &str, v: Version) -> PortDesc {
    PortDesc {
        port_no: no,
        hw_addr: [0xaa, 0x55, 0xaa, 0x55, 0, last],
        name: name.into(),
        config: PortConfig(0),
        state: PortState(if v == Version::V10 { 0 } else { PortState::LIVE }),
        curr: 0,
        advertised: 0,
        supported: 0,
        peer: 0,
        curr_speed: 0,
        max_speed: 0,
    }
}

fn ports(v: Version) -> Vec<PortDesc> {
    vec![port(OfPort::LOCAL, 0, "br0", v), port(OfPort(1), 15, "p1", v), port(OfPort(2), 14, "p2", v)]
}

fn stats(no: OfPort, nsec: u32) -> PortStats {
    PortStats {
        port_no: no,
        rx_packets: 0,
        tx_packets: 0,
        rx_bytes: 0,
        tx_bytes: 0,
        rx_dropped: u64::MAX,
        tx_dropped: u64::MAX,
        rx_errors: u64::MAX,
        tx_errors: u64::MAX,
        rx_frame_err: u64::MAX,
        rx_over_err: u64::MAX,
        rx_crc_err: u64::MAX,
        collisions: u64::MAX,
        duration_sec: 24,
        duration_nsec: nsec,
        rfc2819: [u64::MAX; 14],
        custom: ["rx_custom_packets_1", "rx_custom_packets_2", "rx_q0_bytes", "rx_q0_packets"]
            .into_iter()
            .chain(["tx_q0_bytes", "tx_q0_packets"])
            .map(|n| (n.to_string(), 0))
            .collect(),
    }
}

fn unhex(s: &str) -> Vec<u8> {
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// What we send for one recorded reply.
fn ours(what: &str, v: Version, recorded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut send = |r: Reply<'_>| encode(&r, &Session::new(v), XID, &mut out);
    let ids = || 0..254u8;
    match what {
        "features" => send(Reply::Features(&Features {
            datapath_id: 0xfedc_ba98_7654_3210,
            n_buffers: 0,
            n_tables: 254,
            auxiliary_id: 0,
            ports: ports(v),
        })),
        "getconfig" => {
            send(Reply::GetConfig(SwitchConfig {
                frag: 0,
                invalid_ttl_to_controller: false,
                miss_send_len: 0,
            }));
        }
        "desc" => send(Reply::Desc(&Desc {
            mfr_desc: "Nicira, Inc.".into(),
            hw_desc: "Open vSwitch".into(),
            sw_desc: "3.1.0".into(),
            serial_num: "None".into(),
            dp_desc: "None".into(),
        })),
        "table" => {
            let table = |id: u8| TableStats {
                table_id: id,
                name: String::new(),
                max_entries: 1_000_000,
                active_count: u32::from(id == 0),
                lookup_count: 0,
                matched_count: 0,
                n_tables: 254,
            };
            let tables: Vec<_> = ids().map(table).collect();
            send(Reply::Table(&tables));
        }
        "ports" => {
            // The nanoseconds are those of the moment.
            let at = if v >= Version::V14 { 28 } else { 16 + 108 };
            let nsec = recorded.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()));
            let all: Vec<_> =
                [OfPort::LOCAL, OfPort(1), OfPort(2)].into_iter().map(|p| stats(p, nsec)).collect();
            send(Reply::PortStats(&all));
        }
        "portdesc" => send(Reply::PortDesc(&ports(v))),
        "groupfeat" => send(Reply::GroupFeatures),
        "meterfeat" => send(Reply::MeterFeatures(MeterFeatures {
            max_meters: 0x4_0000,
            band_types: 2,
            capabilities: 0xf,
            max_bands: 8,
            max_color: 0,
        })),
        "role" => {
            send(Reply::Role(RoleMsg { role: Role::Equal, generation_id: None, nicira: false }));
        }
        "nxrole" => {
            send(Reply::Role(RoleMsg { role: Role::Equal, generation_id: None, nicira: true }));
        }
        "getasync" => send(Reply::GetAsync(&AsyncConfig::default())),
        "queueconf" | "queuedesc" => send(Reply::QueueGetConfig { port: OfPort(1) }),
        "tabledesc" => {
            let tables: Vec<_> = ids()
                .map(|table_id| TableDesc { table_id, eviction: false, eviction_flags: 7, vacancy: None })
                .collect();
            send(Reply::TableDesc(&tables));
        }
        "tablefeat" => {
            let tables: Vec<_> = ids()
                .map(|table_id| TableFeatures {
                    table_id,
                    name: String::new(),
                    max_entries: 1_000_000,
                    n_tables: 254,
                    eviction: false,
                })
                .collect();
            send(Reply::TableFeatures(&tables));
        }
        other => panic!("unknown recording {other}"),
    }
    out
}

#[test]
fn replies_are_those_recorded() {
    let mut n = 0;
    for line in RECORDED.lines().filter(|l| !l.starts_with('#')) {
        let parts: Vec<&str> = line.split(' ').collect();
        let (v, what) = (Version::from_wire(parts[0].parse().unwrap()).unwrap(), parts[1]);
        let want = unhex(parts[2]);
        let got = ours(what, v, &want);
        if what == "tablefeat" {
            // Lengths differ with the fields that each knows: compare what comes before and after them.
            assert_eq!(got[4..16], want[4..16], "{what} {v}");
            assert_eq!(got[18..176], want[18..176], "{what} {v}");
            continue;
        }
        let len = u16::from_be_bytes([got[2], got[3]]);
        assert_eq!(len.to_string(), parts[3], "length of {what} {v}");
        assert_eq!(got[..want.len()], want[..], "{what} {v}");
        n += 1;
    }
    assert!(n > 40, "only {n} recordings compared");
}

fn packet_in<'a>(packet: &'a [u8], metadata: &'a Match, userdata: &'a [u8]) -> PacketIn<'a> {
    PacketIn {
        packet,
        buffer_id: openflow::NO_BUFFER,
        total_len: packet.len() as u16,
        reason: PacketInReason::Action,
        table_id: 0,
        cookie: 0x77,
        metadata,
        userdata,
        continuation: None,
    }
}

fn removed(m: &Match, (sec, nsec): (u32, u32), (packets, bytes): (u64, u64)) -> FlowRemoved<'_> {
    FlowRemoved {
        match_: m,
        priority: 9,
        cookie: 0x77,
        reason: FlowRemovedReason::Delete,
        table_id: 0,
        duration_sec: sec,
        duration_nsec: nsec,
        idle_timeout: 0,
        hard_timeout: 0,
        packet_count: packets,
        byte_count: bytes,
    }
}

/// Where a flow-removed message has its duration and its counters.
fn removed_at(v: Version) -> (usize, usize, usize) {
    match v {
        Version::V10 => (60, 72, 80),
        Version::V15 => (48, 60, 72),
        _ => (20, 32, 40),
    }
}

#[test]
fn asynchronous_messages_are_those_recorded() {
    let packet = unhex("50540000000750540000000588cc");
    let mut metadata = Match::any();
    metadata.set(Field::InPort, 1);
    metadata.set(Field::Reg(0), 5);
    metadata.set(Field::Metadata, 7);
    metadata.set(Field::TunId, 9);
    let mut flow = Match::any();
    flow.set(Field::InPort, 1);
    for line in ASYNC.lines().filter(|l| !l.starts_with('#')) {
        let parts: Vec<&str> = line.split(' ').collect();
        let v = Version::from_wire(parts[0].parse().unwrap()).unwrap();
        let format = [PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2]
            [parts[1].parse::<usize>().unwrap()];
        let want = unhex(parts[2]);
        let s = Session { packet_in_format: format, ..Session::new(v) };
        let (mut got, mut desc) = (Vec::new(), port(OfPort(1), 15, "p1", v));
        let reply = match want[1] {
            4 | 10 => {
                let userdata: &[u8] = if format == PacketInFormat::Nxt2 { &[10, 11, 12] } else { &[] };
                Reply::PacketIn(packet_in(&packet, &metadata, userdata))
            }
            11 => {
                // Time and counters are those of the moment.
                let (t, packets, bytes) = removed_at(v);
                let u32_at = |at: usize| u32::from_be_bytes(want[at..at + 4].try_into().unwrap());
                let u64_at = |at: usize| u64::from_be_bytes(want[at..at + 8].try_into().unwrap());
                let counts = (u64_at(packets), u64_at(bytes));
                Reply::FlowRemoved(removed(&flow, (u32_at(t), u32_at(t + 4)), counts))
            }
            _ => {
                desc.config = PortConfig(u32::from(want[16 + 2 + 6 + 16 + 3]) & PortConfig::NO_FLOOD);
                Reply::PortStatus { reason: openflow::PortReason::Modify, desc: &desc }
            }
        };
        encode(&reply, &s, 0, &mut got);
        assert_eq!(got, want, "{v} {format:?} type {}", want[1]);
    }
}

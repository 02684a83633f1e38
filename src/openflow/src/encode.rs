//! From a [`Reply`] to bytes.
//!
//! Neighbours: the modules of each kind of message. Threads: none.

use crate::error::NX_VENDOR;
use crate::multipart::Multipart;
use crate::wire::Put;
use crate::{
    flow_stats, packet_in, port, table, AsyncConfig, Features, FlowStatsWriter, Frame, OfError, PortReason,
    Reply, Role, RoleMsg, Session, SwitchConfig, Version, VersionSet,
};
use flow::OfPort;

/// Appends the message, or messages, of `reply` to `out`.
pub fn encode(reply: &Reply<'_>, s: &Session, xid: u32, out: &mut Vec<u8>) {
    let v = s.version;
    match reply {
        Reply::Hello(set) => hello(out, *set, xid),
        Reply::EchoRequest(data) => message(out, v, 2, xid, |o| o.bytes(data)),
        Reply::EchoReply(data) => message(out, v, 3, xid, |o| o.bytes(data)),
        Reply::Features(f) => message(out, v, 6, xid, |o| features(o, f, v)),
        Reply::GetConfig(c) => message(out, v, 8, xid, |o| config(o, c, v)),
        Reply::Barrier => message(out, v, if v == Version::V10 { 19 } else { 21 }, xid, |_| {}),
        Reply::PortStatus { reason, desc } => message(out, v, 12, xid, |o| {
            o.u8(port_reason(*reason));
            o.zeros(7);
            port::put_desc(o, desc, v);
        }),
        Reply::FlowRemoved(f) => {
            let vendor = v == Version::V10 && s.nxm;
            message(out, v, if vendor { 4 } else { 11 }, xid, |o| {
                if vendor {
                    o.u32(NX_VENDOR);
                    o.u32(14);
                }
                flow_stats::put_removed(o, f, s);
            });
        }
        Reply::PacketIn(p) => {
            let kind = if packet_in::is_vendor(s) { 4 } else { 10 };
            message(out, v, kind, xid, |o| packet_in::put(o, p, s));
        }
        Reply::Role(r) => role(out, r, v, xid),
        Reply::RoleStatus { role, reason, generation_id } => {
            if v >= Version::V14 {
                message(out, v, 30, xid, |o| {
                    o.u32(role_number(*role));
                    o.u8(*reason);
                    o.zeros(3);
                    o.u64(generation_id.unwrap_or(u64::MAX));
                });
            }
        }
        Reply::GetAsync(c) => message(out, v, 27, xid, |o| async_config(o, c, v)),
        Reply::QueueGetConfig { port } => queue_config(out, *port, v, xid),
        _ => multipart(reply, v, xid, out),
    }
}

/// Appends an error message about `request`.
pub fn encode_error(error: OfError, request: &Frame, version: Version, out: &mut Vec<u8>) {
    message(out, version, 1, request.header.xid, |o| error.encode_body(version, &request.data, o));
}

/// Appends the error that ends a connection whose hello shares no version, or is no hello: type 0.
pub fn encode_hello_failed(error: OfError, version: Version, text: &str, out: &mut Vec<u8>) {
    message(out, version, 1, 0, |o| error.encode_body(version, text.as_bytes(), o));
}

fn message(out: &mut Vec<u8>, v: Version, kind: u8, xid: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u8(v.wire());
    out.u8(kind);
    out.u16(0);
    out.u32(xid);
    body(out);
    // No content comes near the limit but echoed or packet data, which is cut.
    out.truncate(start + usize::from(u16::MAX));
    out.patch_len(start + 2, start);
}

/// A hello has the newest version in its header, and a bitmap only where that does not say it all.
fn hello(out: &mut Vec<u8>, set: VersionSet, xid: u32) {
    let Some(top) = set.highest() else { return };
    message(out, top, 0, xid, |o| {
        if VersionSet::up_to(top.wire()) != set {
            o.u16(1);
            o.u16(8);
            o.u32(set.bits());
        }
    });
}

fn port_reason(r: PortReason) -> u8 {
    r as u8
}

/// Flow, table, port and queue statistics.
const CAPABILITIES: u32 = 0x47;
/// Groups are dumped.
const CAP_GROUP_STATS: u32 = 1 << 3;
/// ARP addresses are matched.
const CAP_ARP_MATCH_IP: u32 = 1 << 7;
/// Bundles.
const CAP_BUNDLES: u32 = 1 << 9;
/// Actions 0 to 11 of OpenFlow 1.0.
const ACTIONS10: u32 = 0xfff;

fn features(out: &mut Vec<u8>, f: &Features, v: Version) {
    out.u64(f.datapath_id);
    out.u32(f.n_buffers);
    out.u8(f.n_tables);
    out.u8(if v >= Version::V13 { f.auxiliary_id } else { 0 });
    out.zeros(2);
    out.u32(match v {
        Version::V10 => CAPABILITIES | CAP_ARP_MATCH_IP,
        Version::V11 => CAPABILITIES | CAP_ARP_MATCH_IP | CAP_GROUP_STATS,
        Version::V12 | Version::V13 => CAPABILITIES | CAP_GROUP_STATS,
        _ => CAPABILITIES | CAP_GROUP_STATS | CAP_BUNDLES,
    });
    out.u32(if v == Version::V10 { ACTIONS10 } else { 0 });
    if v < Version::V13 {
        let entry = if v == Version::V10 { 48 } else { 64 };
        let room = (usize::from(u16::MAX) - 32) / entry;
        f.ports.iter().take(room).for_each(|p| port::put_desc(out, p, v));
    }
}

fn config(out: &mut Vec<u8>, c: &SwitchConfig, v: Version) {
    let ttl = c.invalid_ttl_to_controller && matches!(v, Version::V11 | Version::V12);
    out.u16(c.frag | if ttl { 4 } else { 0 });
    out.u16(c.miss_send_len);
}

fn role_number(r: Role) -> u32 {
    match r {
        Role::NoChange => 0,
        Role::Equal => 1,
        Role::Master => 2,
        Role::Slave => 3,
    }
}

fn role(out: &mut Vec<u8>, r: &RoleMsg, v: Version, xid: u32) {
    if r.nicira {
        return message(out, v, 4, xid, |o| {
            o.u32(NX_VENDOR);
            o.u32(11);
            o.u32(role_number(r.role).saturating_sub(1));
        });
    }
    message(out, v, 25, xid, |o| {
        o.u32(role_number(r.role));
        o.zeros(4);
        o.u64(r.generation_id.unwrap_or(u64::MAX));
    });
}

fn async_config(out: &mut Vec<u8>, c: &AsyncConfig, v: Version) {
    if v < Version::V14 {
        for (pair, known) in [(c.packet_in, 7), (c.port_status, 7), (c.flow_removed, 15)] {
            pair.iter().for_each(|m| out.u32(m & known));
        }
        return;
    }
    let all = [c.packet_in, c.port_status, c.flow_removed, c.role_status, c.table_status, c.requestforward];
    for (i, pair) in all.iter().enumerate() {
        // The slave's comes first.
        for (j, m) in pair.iter().rev().enumerate() {
            out.u16((2 * i + j) as u16);
            out.u16(8);
            out.u32(*m);
        }
    }
}

fn queue_config(out: &mut Vec<u8>, port: OfPort, v: Version, xid: u32) {
    match v {
        Version::V10 => message(out, v, 21, xid, |o| {
            o.u16(port.0);
            o.zeros(6);
        }),
        Version::V11 | Version::V12 | Version::V13 => message(out, v, 23, xid, |o| {
            o.u32(port.to_of11());
            o.zeros(4);
        }),
        _ => {
            *out = Multipart::new(v, xid, 15, std::mem::take(out)).finish();
        }
    }
}

fn multipart(reply: &Reply<'_>, v: Version, xid: u32, out: &mut Vec<u8>) {
    let buffer = std::mem::take(out);
    let start = |kind: u16, buffer: Vec<u8>| Multipart::new(v, xid, kind, buffer);
    let m = match reply {
        Reply::Flow { nicira, flows } => {
            let mut w = FlowStatsWriter::behind(v, xid, *nicira, buffer);
            flows.iter().for_each(|f| w.push(f));
            *out = w.finish();
            return;
        }
        Reply::Aggregate { nicira, stats } => {
            *out = flow_stats::aggregate(v, xid, *nicira, stats, buffer);
            return;
        }
        Reply::Desc(d) => {
            let mut m = start(0, buffer);
            m.entry(|o| {
                o.name(&d.mfr_desc, 256);
                o.name(&d.hw_desc, 256);
                o.name(&d.sw_desc, 256);
                o.name(&d.serial_num, 32);
                o.name(&d.dp_desc, 256);
            });
            m
        }
        Reply::Table(tables) => {
            let mut m = start(3, buffer);
            tables.iter().for_each(|t| m.entry(|o| table::put_stats(o, t, v)));
            m
        }
        Reply::PortStats(ports) => {
            let mut m = start(4, buffer);
            ports.iter().for_each(|p| m.entry(|o| port::put_stats(o, p, v)));
            m
        }
        Reply::PortDesc(ports) => {
            let mut m = start(13, buffer);
            ports.iter().for_each(|p| m.entry(|o| port::put_desc(o, p, v)));
            m
        }
        Reply::TableFeatures(tables) => {
            let mut m = start(12, buffer);
            tables.iter().for_each(|t| m.entry(|o| table::put_features(o, t, v)));
            m
        }
        Reply::TableDesc(tables) => {
            let mut m = start(14, buffer);
            tables.iter().for_each(|t| m.entry(|o| table::put_desc(o, t)));
            m
        }
        other => fixed(other, v, xid, buffer),
    };
    *out = m.finish();
}

/// Replies about what no bridge has: empty lists, features that say so.
fn fixed(reply: &Reply<'_>, v: Version, xid: u32, buffer: Vec<u8>) -> Multipart {
    let kind = match reply {
        Reply::QueueStats => 5,
        Reply::GroupStats => 6,
        Reply::GroupDesc => 7,
        Reply::GroupFeatures => 8,
        Reply::MeterStats => 9,
        Reply::MeterConfig => 10,
        _ => 11,
    };
    let mut m = Multipart::new(v, xid, kind, buffer);
    match reply {
        Reply::GroupFeatures => m.entry(|o| {
            // Four types, all capabilities, as many groups of each as there are numbers.
            o.u32(0xf);
            o.u32(7);
            (0..4).for_each(|_| o.u32(0xffff_ff00));
            (0..4).for_each(|_| o.u32(0x03ff_8001));
        }),
        Reply::MeterFeatures(f) => m.entry(|o| {
            o.u32(f.max_meters);
            o.u32(f.band_types);
            o.u32(f.capabilities);
            o.bytes(&[f.max_bands, f.max_color, 0, 0]);
        }),
        _ => {}
    }
    m
}

//! Packet-in messages.
//!
//! Neighbours: `encode`. Threads: none.

use crate::error::NX_VENDOR;
use crate::wire::Put;
use crate::{continuation, match_oxm, PacketIn, PacketInFormat, PacketInReason, Session, Version};
use flow::OfPort;

const NXT_PACKET_IN: u32 = 17;
const NXT_PACKET_IN2: u32 = 30;

/// Whether `s` has packet-ins as vendor messages.
pub(crate) fn is_vendor(s: &Session) -> bool {
    s.packet_in_format != PacketInFormat::Standard
}

impl PacketInReason {
    /// The reason as `version` knows it.
    pub fn on_wire(self, version: Version) -> PacketInReason {
        use PacketInReason::{Action, ActionSet, ExplicitMiss, Group, ImplicitMiss, NoMatch, PacketOut};
        match self {
            ActionSet | Group | PacketOut if version < Version::V14 => Action,
            ExplicitMiss if version < Version::V13 => Action,
            ExplicitMiss | ImplicitMiss => NoMatch,
            r => r,
        }
    }
}

fn reason(r: PacketInReason, version: Version) -> u8 {
    r.on_wire(version) as u8
}

/// Appends what comes after the header.
pub(crate) fn put(out: &mut Vec<u8>, p: &PacketIn<'_>, s: &Session) {
    match s.packet_in_format {
        PacketInFormat::Standard => standard(out, p, s.version),
        PacketInFormat::Nxt => nxt(out, p, s.version),
        PacketInFormat::Nxt2 => nxt2(out, p, s.version),
    }
}

fn standard(out: &mut Vec<u8>, p: &PacketIn<'_>, version: Version) {
    let port = OfPort(p.metadata.flow.in_port as u16);
    out.u32(p.buffer_id);
    match version {
        Version::V10 => {
            out.u16(p.total_len);
            out.u16(port.0);
            out.u8(reason(p.reason, version));
            out.u8(0);
        }
        Version::V11 => {
            out.u32(port.to_of11());
            out.u32(port.to_of11());
            out.u16(p.total_len);
            out.u8(reason(p.reason, version));
            out.u8(p.table_id);
        }
        _ => {
            out.u16(p.total_len);
            out.u8(reason(p.reason, version));
            out.u8(p.table_id);
            if version >= Version::V13 {
                out.u64(p.cookie);
            }
            match_oxm::put_match(out, p.metadata, version);
            out.zeros(2);
        }
    }
    out.bytes(p.packet);
}

fn nxt(out: &mut Vec<u8>, p: &PacketIn<'_>, version: Version) {
    out.u32(NX_VENDOR);
    out.u32(NXT_PACKET_IN);
    out.u32(p.buffer_id);
    out.u16(p.total_len);
    out.u8(reason(p.reason, version));
    out.u8(p.table_id);
    out.u64(p.cookie);
    let len_at = out.len();
    out.u16(0);
    out.zeros(6);
    let match_at = out.len();
    match_oxm::put_fields(out, p.metadata, None, (0, 0));
    out.patch_len(len_at, match_at);
    out.pad8(match_at);
    out.zeros(2);
    out.bytes(p.packet);
}

/// Writes a property with its type, length and padding.
pub(crate) fn prop(out: &mut Vec<u8>, kind: u16, write: &dyn Fn(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    write(out);
    out.patch_len(start + 2, start);
    out.pad8(start);
}

fn nxt2(out: &mut Vec<u8>, p: &PacketIn<'_>, version: Version) {
    out.u32(NX_VENDOR);
    out.u32(NXT_PACKET_IN2);
    prop(out, 0, &|o| o.bytes(p.packet));
    if p.packet.len() != usize::from(p.total_len) {
        prop(out, 1, &|o| o.u32(p.total_len.into()));
    }
    prop(out, 3, &|o| o.u8(p.table_id));
    if p.cookie != u64::MAX {
        prop(out, 4, &|o| {
            o.zeros(4);
            o.u64(p.cookie);
        });
    }
    prop(out, 5, &|o| o.u8(reason(p.reason, version)));
    prop(out, 6, &|o| match_oxm::put_fields(o, p.metadata, Some(version), (0, 0)));
    if let Some(c) = p.continuation {
        prop(out, 8, &|o| continuation::put(o, c, version));
    }
    if !p.userdata.is_empty() {
        prop(out, 7, &|o| o.bytes(p.userdata));
    }
}

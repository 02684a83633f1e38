//! Port descriptions and port statistics.
//!
//! Neighbours: `encode` and `decode`. Threads: none.

use crate::wire::Put;
use crate::{PortDesc, PortState, PortStats, Version};

/// Feature bits of OpenFlow 1.0 in the order of later versions.
pub(crate) fn features_from10(v: u32) -> u32 {
    v & 0x7f | (v >> 7 & 0x1f) << 11
}

/// Feature bits of later versions as OpenFlow 1.0 has them.
fn features_to10(v: u32) -> u32 {
    v & 0x7f | (v >> 11 & 0x1f) << 7
}

/// Appends a port description.
pub(crate) fn put_desc(out: &mut Vec<u8>, p: &PortDesc, v: Version) {
    match v {
        Version::V10 => put_desc10(out, p),
        Version::V11 | Version::V12 | Version::V13 => put_desc11(out, p),
        _ => put_desc14(out, p),
    }
}

fn put_desc10(out: &mut Vec<u8>, p: &PortDesc) {
    out.u16(p.port_no.0);
    out.bytes(&p.hw_addr);
    out.name(&p.name, 16);
    out.u32(p.config.0 & 0x7f);
    out.u32(p.state.0 & (PortState::LINK_DOWN | PortState::STP_MASK));
    for f in [p.curr, p.advertised, p.supported, p.peer] {
        out.u32(features_to10(f));
    }
}

/// What OpenFlow 1.1 and later put before the features.
fn put_desc_head(out: &mut Vec<u8>, p: &PortDesc) {
    out.bytes(&p.hw_addr);
    out.zeros(2);
    out.name(&p.name, 16);
    out.u32(p.config.0 & 0x65);
    out.u32(p.state.0 & 7);
}

fn put_features(out: &mut Vec<u8>, p: &PortDesc) {
    for f in [p.curr, p.advertised, p.supported, p.peer, p.curr_speed, p.max_speed] {
        out.u32(f);
    }
}

fn put_desc11(out: &mut Vec<u8>, p: &PortDesc) {
    out.u32(p.port_no.to_of11());
    out.zeros(4);
    put_desc_head(out, p);
    put_features(out, p);
}

fn put_desc14(out: &mut Vec<u8>, p: &PortDesc) {
    let start = out.len();
    out.u32(p.port_no.to_of11());
    out.zeros(4);
    put_desc_head(out, p);
    // Ethernet property.
    out.u16(0);
    out.u16(32);
    out.zeros(4);
    put_features(out, p);
    out.patch_len(start + 4, start);
}

/// Appends the statistics of a port.
pub(crate) fn put_stats(out: &mut Vec<u8>, p: &PortStats, v: Version) {
    match v {
        Version::V10 => {
            out.u16(p.port_no.0);
            out.zeros(6);
            put_common(out, p);
            put_ethernet(out, p);
        }
        Version::V11 | Version::V12 | Version::V13 => {
            out.u32(p.port_no.to_of11());
            out.zeros(4);
            put_common(out, p);
            put_ethernet(out, p);
            if v == Version::V13 {
                out.u32(p.duration_sec);
                out.u32(p.duration_nsec);
            }
        }
        _ => put_stats14(out, p),
    }
}

fn put_common(out: &mut Vec<u8>, p: &PortStats) {
    for c in [
        p.rx_packets,
        p.tx_packets,
        p.rx_bytes,
        p.tx_bytes,
        p.rx_dropped,
        p.tx_dropped,
        p.rx_errors,
        p.tx_errors,
    ] {
        out.u64(c);
    }
}

fn put_ethernet(out: &mut Vec<u8>, p: &PortStats) {
    for c in [p.rx_frame_err, p.rx_over_err, p.rx_crc_err, p.collisions] {
        out.u64(c);
    }
}

/// Vendor of the RFC 2819 and the custom counters' properties.
const INTEL_VENDOR: u32 = 0x0000_aa01;

fn put_stats14(out: &mut Vec<u8>, p: &PortStats) {
    let start = out.len();
    out.u16(0);
    out.zeros(2);
    out.u32(p.port_no.to_of11());
    out.u32(p.duration_sec);
    out.u32(p.duration_nsec);
    put_common(out, p);
    // Ethernet property.
    out.u16(0);
    out.u16(40);
    out.zeros(4);
    put_ethernet(out, p);
    put_rfc2819(out, p);
    put_custom(out, p);
    out.patch_len(start, start);
}

fn put_rfc2819(out: &mut Vec<u8>, p: &PortStats) {
    let start = out.len();
    out.u16(0xffff);
    out.u16(0);
    out.u32(INTEL_VENDOR);
    out.u32(1);
    out.zeros(4);
    let unknown = u64::MAX;
    // Seven size classes each way, then counters of which none is kept: multicast, broadcast, errors of size.
    p.rfc2819.iter().for_each(|&c| out.u64(c));
    (0..RFC2819_REST).for_each(|_| out.u64(unknown));
    out.patch_len(start + 2, start);
}

/// Counters of the RFC 2819 property beyond the size classes.
const RFC2819_REST: usize = 7;

fn put_custom(out: &mut Vec<u8>, p: &PortStats) {
    if p.custom.is_empty() {
        return;
    }
    let start = out.len();
    out.u16(0xffff);
    out.u16(0);
    out.u32(INTEL_VENDOR);
    out.u32(2);
    out.u16(0);
    let room = usize::from(u16::MAX) / 2;
    let mut n = 0u16;
    let n_at = out.len();
    out.u16(0);
    for (name, value) in &p.custom {
        let name = &name.as_bytes()[..name.len().min(255)];
        if out.len() - start + name.len() + 9 > room {
            break;
        }
        out.u8(name.len() as u8);
        out.bytes(name);
        out.u64(*value);
        n += 1;
    }
    out[n_at..n_at + 2].copy_from_slice(&n.to_be_bytes());
    out.patch_len(start + 2, start);
    out.pad8(start);
}

//! Flow statistics, aggregates and flow-removed messages.
//!
//! Neighbours: `encode`; `ofproto` streams large dumps through [`FlowStatsWriter`]. Threads: none.

use crate::action_encode::Target;
use crate::multipart::Multipart;
use crate::wire::Put;
use crate::{instruction, match_of10, match_oxm};
use crate::{AggregateStats, FlowRemoved, FlowStats, Session, Version};
use flow::Match;

/// Writes a flow statistics reply flow by flow, whatever its length.
#[derive(Debug)]
pub struct FlowStatsWriter {
    m: Multipart,
    version: Version,
    nicira: bool,
}

impl FlowStatsWriter {
    /// Starts a reply. `nicira`: the request had Nicira's form (OpenFlow 1.0 only).
    pub fn new(version: Version, xid: u32, nicira: bool) -> FlowStatsWriter {
        FlowStatsWriter::behind(version, xid, nicira, Vec::new())
    }

    pub(crate) fn behind(version: Version, xid: u32, nicira: bool, out: Vec<u8>) -> FlowStatsWriter {
        let nicira = nicira && version == Version::V10;
        let m = match nicira {
            true => Multipart::nicira(xid, 0, out),
            false => Multipart::new(version, xid, 1, out),
        };
        FlowStatsWriter { m, version, nicira }
    }

    /// Adds a flow.
    pub fn push(&mut self, f: &FlowStats<'_>) {
        let (version, nicira) = (self.version, self.nicira);
        self.m.entry(|out| match version {
            Version::V10 if nicira => put_nicira(out, f),
            Version::V10 => put10(out, f),
            Version::V15 => put15(out, f),
            _ => put11(out, f, version),
        });
    }

    /// Bytes written so far.
    pub fn n_bytes(&self) -> usize {
        self.m.out.len()
    }

    /// All messages of the reply.
    pub fn finish(self) -> Vec<u8> {
        self.m.finish()
    }
}

fn target(version: Version, m: &Match) -> Target {
    let ip = matches!(m.flow.dl_type.get(), 0x0800 | 0x86dd) && m.mask.0.nw_proto == 0xff;
    Target { version, ip_proto: if ip { m.flow.nw_proto } else { 0 } }
}

fn put10(out: &mut Vec<u8>, f: &FlowStats<'_>) {
    let start = out.len();
    out.u16(0);
    out.u8(f.table_id);
    out.u8(0);
    match_of10::put10(out, f.match_);
    out.u32(f.duration_sec);
    out.u32(f.duration_nsec);
    out.u16(f.priority);
    out.u16(f.idle_timeout);
    out.u16(f.hard_timeout);
    out.zeros(6);
    out.u64(f.cookie);
    out.u64(f.packet_count);
    out.u64(f.byte_count);
    target(Version::V10, f.match_).list(out, f.actions);
    out.patch_len(start, start);
}

/// An age as Nicira sends it: one more than it is, 0 when unknown.
fn age(a: Option<u16>) -> u16 {
    a.map_or(0, |a| a.saturating_add(1))
}

fn put_nicira(out: &mut Vec<u8>, f: &FlowStats<'_>) {
    let start = out.len();
    out.u16(0);
    out.u8(f.table_id);
    out.u8(0);
    out.u32(f.duration_sec);
    out.u32(f.duration_nsec);
    out.u16(f.priority);
    out.u16(f.idle_timeout);
    out.u16(f.hard_timeout);
    let len_at = out.len();
    out.u16(0);
    out.u16(age(f.idle_age));
    out.u16(age(f.hard_age));
    out.u64(f.cookie);
    out.u64(f.packet_count);
    out.u64(f.byte_count);
    let match_at = out.len();
    match_oxm::put_fields(out, f.match_, None, (0, 0));
    out.patch_len(len_at, match_at);
    out.pad8(match_at);
    target(Version::V10, f.match_).list(out, f.actions);
    out.patch_len(start, start);
}

fn put11(out: &mut Vec<u8>, f: &FlowStats<'_>, version: Version) {
    let start = out.len();
    out.u16(0);
    out.u8(f.table_id);
    out.u8(0);
    out.u32(f.duration_sec);
    out.u32(f.duration_nsec);
    out.u16(f.priority);
    out.u16(f.idle_timeout);
    out.u16(f.hard_timeout);
    out.u16(if version >= Version::V13 { f.flags.0 & 31 } else { 0 });
    out.u16(if version >= Version::V14 { f.importance } else { 0 });
    out.zeros(2);
    out.u64(f.cookie);
    out.u64(f.packet_count);
    out.u64(f.byte_count);
    match_oxm::put_match(out, f.match_, version);
    instruction::put(out, f.actions, target(version, f.match_));
    out.patch_len(start, start);
}

fn put15(out: &mut Vec<u8>, f: &FlowStats<'_>) {
    let start = out.len();
    out.u16(0);
    out.zeros(2);
    out.u8(f.table_id);
    out.u8(0);
    out.u16(f.priority);
    out.u16(f.idle_timeout);
    out.u16(f.hard_timeout);
    out.u16(f.flags.0 & 31);
    out.u16(f.importance);
    out.u64(f.cookie);
    match_oxm::put_match(out, f.match_, Version::V15);
    oxs(out, |o| {
        oxs_time(o, 0, f.duration_sec, f.duration_nsec);
        if let Some(age) = f.idle_age {
            oxs_time(o, 1, age.into(), 0);
        }
        oxs_u64(o, 4, f.packet_count);
        oxs_u64(o, 5, f.byte_count);
    });
    instruction::put(out, f.actions, target(Version::V15, f.match_));
    out.patch_len(start, start);
}

/// A list of statistics fields of OpenFlow 1.5.
fn oxs(out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.zeros(4);
    fields(out);
    out.patch_len(start + 2, start);
    out.pad8(start);
}

fn oxs_header(out: &mut Vec<u8>, number: u32, len: u32) {
    out.u32(0x8002 << 16 | number << 9 | len);
}

fn oxs_time(out: &mut Vec<u8>, number: u32, sec: u32, nsec: u32) {
    oxs_header(out, number, 8);
    out.u32(sec);
    out.u32(nsec);
}

fn oxs_u64(out: &mut Vec<u8>, number: u32, v: u64) {
    oxs_header(out, number, 8);
    out.u64(v);
}

/// An aggregate reply.
pub(crate) fn aggregate(
    version: Version,
    xid: u32,
    nicira: bool,
    a: &AggregateStats,
    out: Vec<u8>,
) -> Vec<u8> {
    let mut m = match nicira && version == Version::V10 {
        true => Multipart::nicira(xid, 1, out),
        false => Multipart::new(version, xid, 2, out),
    };
    m.entry(|out| {
        if version == Version::V15 {
            return oxs(out, |o| {
                oxs_u64(o, 4, a.packet_count);
                oxs_u64(o, 5, a.byte_count);
                oxs_header(o, 3, 4);
                o.u32(a.flow_count);
            });
        }
        out.u64(a.packet_count);
        out.u64(a.byte_count);
        out.u32(a.flow_count);
        out.zeros(4);
    });
    m.finish()
}

/// The content of a flow-removed message; returns its message type and, for Nicira's, the subtype.
pub(crate) fn put_removed(out: &mut Vec<u8>, f: &FlowRemoved<'_>, s: &Session) {
    match s.version {
        Version::V10 if s.nxm => {
            let fixed = out.len();
            removed_head(out, f, f.table_id.saturating_add(1));
            let len_at = out.len();
            out.u16(0);
            out.u64(f.packet_count);
            out.u64(f.byte_count);
            debug_assert_eq!(out.len() - fixed, 40);
            let match_at = out.len();
            match_oxm::put_fields(out, f.match_, None, (0, 0));
            out.patch_len(len_at, match_at);
            out.pad8(match_at);
        }
        Version::V10 => {
            match_of10::put10(out, f.match_);
            removed_head(out, f, 0);
            out.zeros(2);
            out.u64(f.packet_count);
            out.u64(f.byte_count);
        }
        Version::V15 => {
            out.u8(f.table_id);
            out.u8(f.reason as u8);
            out.u16(f.priority);
            out.u16(f.idle_timeout);
            out.u16(f.hard_timeout);
            out.u64(f.cookie);
            match_oxm::put_match(out, f.match_, Version::V15);
            oxs(out, |o| {
                oxs_time(o, 0, f.duration_sec, f.duration_nsec);
                oxs_u64(o, 4, f.packet_count);
                oxs_u64(o, 5, f.byte_count);
            });
        }
        v => {
            removed_head(out, f, f.table_id);
            out.u16(if v >= Version::V12 { f.hard_timeout } else { 0 });
            out.u64(f.packet_count);
            out.u64(f.byte_count);
            match v {
                Version::V11 => match_of10::put11(out, f.match_),
                _ => match_oxm::put_match(out, f.match_, v),
            }
        }
    }
}

fn removed_head(out: &mut Vec<u8>, f: &FlowRemoved<'_>, table: u8) {
    out.u64(f.cookie);
    out.u16(f.priority);
    out.u8(f.reason as u8);
    out.u8(table);
    out.u32(f.duration_sec);
    out.u32(f.duration_nsec);
    out.u16(f.idle_timeout);
}

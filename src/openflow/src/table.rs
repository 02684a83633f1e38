//! Table statistics, features and descriptions.
//!
//! Neighbours: `encode`. Threads: none.

use crate::wire::Put;
use crate::{oxm, TableDesc, TableFeatures, TableStats, Version};
use flow::Field;

/// Appends one table of a table statistics reply.
pub(crate) fn put_stats(out: &mut Vec<u8>, t: &TableStats, v: Version) {
    out.u8(t.table_id);
    if v >= Version::V13 {
        out.zeros(3);
        out.u32(t.active_count);
        out.u64(t.lookup_count);
        return out.u64(t.matched_count);
    }
    out.zeros(if v == Version::V10 { 3 } else { 7 });
    out.name(&t.name, 32);
    match v {
        Version::V10 => {
            out.u32(0x3f_ffff);
            out.u32(t.max_entries);
            out.u32(t.active_count);
            out.u64(t.lookup_count);
            return out.u64(t.matched_count);
        }
        Version::V11 => {
            // Match fields that can be matched and wildcarded.
            out.u32(FIELDS11);
            out.u32(FIELDS11);
            out.u32(INSTRUCTIONS);
            out.u32(ACTIONS11);
            out.u32(ACTIONS11);
            out.u32(0);
        }
        _ => {
            let (matches, sets) = (field_bits(|_| true), field_bits(Field::writable));
            out.u64(matches);
            out.u64(matches);
            out.u32(ACTIONS12);
            out.u32(ACTIONS12);
            out.u64(sets);
            out.u64(sets);
            out.u64(u64::MAX);
            out.u64(u64::MAX);
            out.u32(INSTRUCTIONS);
            out.u32(0);
        }
    }
    out.u32(t.max_entries);
    out.u32(t.active_count);
    out.u64(t.lookup_count);
    out.u64(t.matched_count);
}

/// Instructions 1 to 5.
const INSTRUCTIONS: u32 = 0x3e;
/// OpenFlow 1.1 match fields: all but MPLS ones.
const FIELDS11: u32 = 0xfbff;
/// OpenFlow 1.1 actions.
const ACTIONS11: u32 = 0x01ff_e7ff;
/// OpenFlow 1.2 actions.
const ACTIONS12: u32 = 0x03ff_8001;

/// A bit for each OXM number of the basic class that `keep` allows.
fn field_bits(keep: impl Fn(Field) -> bool) -> u64 {
    Field::all().filter(|&f| keep(f)).filter_map(oxm::basic_number).fold(0, |b, n| b | 1 << n)
}

/// Appends one table of a table features reply.
pub(crate) fn put_features(out: &mut Vec<u8>, t: &TableFeatures, v: Version) {
    let start = out.len();
    out.u16(0);
    out.u8(t.table_id);
    out.zeros(5);
    out.name(&t.name, 32);
    out.u64(u64::MAX);
    out.u64(u64::MAX);
    out.u32(0);
    out.u32(t.max_entries);
    // Both for matching packets and for misses.
    for miss in [0, 1] {
        put_instructions(out, miss, t, v);
        prop(out, 2 + miss, |o| (u16::from(t.table_id) + 1..t.n_tables.into()).for_each(|n| o.u8(n as u8)));
        for (actions, fields) in [(4, 12), (6, 14)] {
            put_actions(out, actions + miss);
            prop(out, fields + miss, |o| put_fields(o, v, |f| f.writable().then_some(false)));
        }
    }
    prop(out, 8, |o| put_fields(o, v, |f| matchable(f).then_some(f.maskable())));
    prop(out, 10, |o| put_fields(o, v, |f| matchable(f).then_some(false)));
    out.patch_len(start, start);
}

fn matchable(f: Field) -> bool {
    oxm::encodable(f)
}

/// All fields as Open vSwitch lists them: registers stand between metadata and headers.
fn ordered() -> impl Iterator<Item = Field> {
    let reg = |f: &Field| matches!(f, Field::Reg(_) | Field::XReg(_) | Field::XxReg(_));
    let meta = move |f: &Field| *f != Field::EthSrc;
    let plain = move || Field::all().filter(move |f| !reg(f));
    plain().take_while(meta).chain(Field::all().filter(reg)).chain(plain().skip_while(meta))
}

/// Headers of the fields for which `header` says whether they have a mask.
fn put_fields(out: &mut Vec<u8>, v: Version, header: impl Fn(Field) -> Option<bool>) {
    for f in ordered() {
        if let Some(mask) = header(f) {
            oxm::put_header(out, f, Some(v), mask);
        }
    }
}

fn prop(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    write(out);
    out.patch_len(start + 2, start);
    out.pad8(start);
}

fn put_instructions(out: &mut Vec<u8>, kind: u16, t: &TableFeatures, v: Version) {
    let last = t.table_id.saturating_add(1) >= t.n_tables;
    let meter = if v < Version::V15 { 6 } else { 5 };
    prop(out, kind, |o| {
        for i in (1..=meter).filter(|&i| i > 1 || !last) {
            o.u16(i);
            o.u16(4);
        }
    });
}

/// Actions: output, and 15 to 25.
fn put_actions(out: &mut Vec<u8>, kind: u16) {
    prop(out, kind, |o| {
        for a in std::iter::once(0).chain(15..=25) {
            o.u16(a);
            o.u16(4);
        }
    });
}

/// Appends one table of a table-desc reply.
pub(crate) fn put_desc(out: &mut Vec<u8>, t: &TableDesc) {
    let start = out.len();
    out.u16(0);
    out.u8(t.table_id);
    out.u8(0);
    out.u32(u32::from(t.eviction) << 2 | u32::from(t.vacancy.is_some()) << 3);
    out.u16(2);
    out.u16(8);
    out.u32(t.eviction_flags);
    if let Some((down, up, now)) = t.vacancy {
        out.u16(3);
        out.u16(8);
        out.bytes(&[down, up, now, 0]);
    }
    out.patch_len(start, start);
}

//! Changes to packets: header fields with their checksums, VLAN tags, MPLS labels.
//!
//! A rewrite that the packet has no header for does nothing: megaflows are made from packets that have them.
//! Neighbours: `exec` runs these on groups of packets. Threads: pure functions on packets.

use crate::checksum::{self, crc32c_sctp, delta, delta32, patch, patch_udp};
use flow::action::{ArpSet, Ipv4Set, Ipv6Set, NdSet};
use flow::{Be16, Be32, DpAction, SetField};
use packet::Packet;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const VLAN_CFI: u16 = 0x1000;

/// Where the headers of a packet are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// Ethertype after the tags, and where its payload starts.
    etype: u16,
    l3: usize,
    /// Transport header, when there is one in this packet (not in later fragments).
    l4: Option<usize>,
    /// End of the IP packet.
    end: usize,
    proto: u8,
    /// An IPv6 routing header: the destination is not the one of the checksum.
    routing: bool,
}

fn be16(d: &[u8], at: usize) -> u16 {
    d.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

impl Layout {
    /// Finds the headers. `None` for frames without an Ethernet header.
    #[inline(always)]
    pub(crate) fn of(d: &[u8]) -> Option<Layout> {
        if d.len() < 14 {
            return None;
        }
        let (mut at, mut etype) = (14, be16(d, 12));
        while matches!(etype, 0x8100 | 0x88a8) && d.len() >= at + 4 {
            etype = be16(d, at + 2);
            at += 4;
        }
        let mut l = Layout { etype, l3: at, l4: None, end: d.len(), proto: 0, routing: false };
        let valid = match etype {
            0x0800 => l.ipv4(d),
            0x86dd => l.ipv6(d),
            _ => true,
        };
        if !valid {
            l.etype = 0;
        }
        Some(l)
    }

    #[inline(always)]
    fn ipv4(&mut self, d: &[u8]) -> bool {
        let Some(h) = d.get(self.l3..).and_then(|r| r.first_chunk::<20>()) else { return false };
        let header = usize::from(h[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if header < 20 || header > total || self.l3 + total > d.len() {
            return false;
        }
        self.end = self.l3 + total;
        self.proto = h[9];
        if u16::from_be_bytes([h[6], h[7]]) & 0x1fff == 0 {
            self.l4 = Some(self.l3 + header);
        }
        true
    }

    #[inline(never)]
    fn ipv6(&mut self, d: &[u8]) -> bool {
        let Some(h) = d.get(self.l3..).and_then(|r| r.first_chunk::<40>()) else { return false };
        self.end = self.l3 + 40 + usize::from(u16::from_be_bytes([h[4], h[5]]));
        if self.end > d.len() {
            return false;
        }
        let (mut next, mut at) = (h[6], self.l3 + 40);
        loop {
            let len = match next {
                0 | 43 | 60 => 8 + 8 * usize::from(d.get(at + 1).copied().unwrap_or(0)),
                51 => 8 + 4 * usize::from(d.get(at + 1).copied().unwrap_or(0)),
                44 => 8,
                _ => break,
            };
            if at + len > self.end {
                return true;
            }
            self.routing |= next == 43 && d[at + 3] != 0;
            if next == 44 && be16(d, at + 2) & 0xfff8 != 0 {
                self.proto = 44;
                return true;
            }
            next = d[at];
            at += len;
        }
        self.proto = next;
        self.l4 = (at <= self.end).then_some(at);
        true
    }

    /// The transport header of `proto` with at least `len` bytes.
    #[inline(always)]
    fn l4_of(&self, proto: u8, len: usize) -> Option<usize> {
        self.l4.filter(|at| self.proto == proto && at + len <= self.end)
    }
}

/// Whether an action only changes packets (and is thus for [`apply`]).
pub(crate) fn is_rewrite(a: &DpAction) -> bool {
    use DpAction::{PopMpls, PopVlan, PushMpls, PushVlan, Set};
    match a {
        Set(SetField::SkbPriority { .. } | SetField::SkbMark { .. }) => false,
        Set(_) | PushVlan { .. } | PopVlan | PushMpls { .. } | PopMpls { .. } => true,
        _ => false,
    }
}

/// Applies a run of rewrites to one packet. False when the packet has to be dropped.
#[inline]
pub(crate) fn apply(p: &mut Packet, actions: &[DpAction]) -> bool {
    let Some(mut layout) = Layout::of(p.data()) else { return true };
    for a in actions {
        let moved = match a {
            DpAction::Set(f) => {
                set(p.data_mut(), &layout, f);
                0
            }
            DpAction::PushVlan { tpid, tci } => {
                if !push_vlan(p, *tpid, *tci) {
                    return false;
                }
                4
            }
            DpAction::PopVlan => pop_vlan(p),
            DpAction::PushMpls { ethertype, lse } => {
                if !push_mpls(p, &layout, *ethertype, *lse) {
                    return false;
                }
                relayout(p, &mut layout)
            }
            DpAction::PopMpls { ethertype } => {
                pop_mpls(p, &layout, *ethertype);
                relayout(p, &mut layout)
            }
            _ => 0,
        };
        layout.shift(moved);
    }
    true
}

fn relayout(p: &Packet, layout: &mut Layout) -> isize {
    if let Some(l) = Layout::of(p.data()) {
        *layout = l;
    }
    0
}

impl Layout {
    #[inline(always)]
    fn shift(&mut self, by: isize) {
        if by != 0 {
            self.l3 = self.l3.wrapping_add_signed(by);
            self.l4 = self.l4.map(|l| l.wrapping_add_signed(by));
            self.end = self.end.wrapping_add_signed(by);
        }
    }
}

/// `to` with the bits of `mask` replaced by those of `key`.
#[inline(always)]
fn blend(to: &mut [u8], key: &[u8], mask: &[u8]) {
    for ((t, k), m) in to.iter_mut().zip(key).zip(mask) {
        *t = *t & !m | k & m;
    }
}

#[inline(always)]
fn join(a: &[u8; 6], b: &[u8; 6]) -> [u8; 12] {
    let mut j = [0; 12];
    j[..6].copy_from_slice(a);
    j[6..].copy_from_slice(b);
    j
}

#[inline(always)]
fn halves(b: &[u8; 12]) -> (u64, u32) {
    let a = u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    (a, u32::from_ne_bytes([b[8], b[9], b[10], b[11]]))
}

#[inline(always)]
fn set(d: &mut [u8], l: &Layout, f: &SetField) {
    match f {
        SetField::Eth { src, dst, src_mask, dst_mask } => {
            if let Some(h) = d.first_chunk_mut::<12>() {
                let (key, mask) = (join(dst, src), join(dst_mask, src_mask));
                let (a, b) = halves(h);
                let ((ka, kb), (ma, mb)) = (halves(&key), halves(&mask));
                h[..8].copy_from_slice(&(a & !ma | ka & ma).to_ne_bytes());
                h[8..].copy_from_slice(&(b & !mb | kb & mb).to_ne_bytes());
            }
        }
        SetField::Ipv4 { key, mask } if l.etype == 0x0800 => set_ipv4(d, l, key, mask),
        SetField::Ipv6 { key, mask } if l.etype == 0x86dd => set_ipv6(d, l, key, mask),
        SetField::Tcp { src, dst, src_mask, dst_mask } => {
            if let Some(at) = l.l4_of(TCP, 20) {
                let change = set_ports(d, at, [*src, *dst], [*src_mask, *dst_mask]);
                patch(d, at + 16, change);
            }
        }
        SetField::Udp { src, dst, src_mask, dst_mask } => {
            if let Some(at) = l.l4_of(UDP, 8) {
                let change = set_ports(d, at, [*src, *dst], [*src_mask, *dst_mask]);
                patch_udp(d, at + 6, change);
            }
        }
        SetField::Sctp { src, dst, src_mask, dst_mask } => {
            if let Some(at) = l.l4_of(132, 12) {
                set_sctp(d, l, at, [*src, *dst], [*src_mask, *dst_mask]);
            }
        }
        SetField::Icmp { kind, code, kind_mask, code_mask } => {
            if let Some(at) = l.l4_of(1, 8) {
                set_icmp(d, at, [*kind, *code], [*kind_mask, *code_mask]);
            }
        }
        SetField::Icmp6 { kind, code, kind_mask, code_mask } => {
            if let Some(at) = l.l4_of(ICMPV6, 4) {
                set_icmp(d, at, [*kind, *code], [*kind_mask, *code_mask]);
            }
        }
        SetField::Arp { key, mask } if matches!(l.etype, 0x0806 | 0x8035) => set_arp(d, l.l3, key, mask),
        SetField::Nd { key, mask } => set_nd(d, l, key, mask),
        SetField::Mpls { lse, mask } if matches!(l.etype, 0x8847 | 0x8848) => {
            if let Some(to) = d.get_mut(l.l3..l.l3 + 4) {
                blend(to, &lse.bytes(), &mask.bytes());
            }
        }
        _ => {}
    }
}

/// Adds `change` of the pseudo header to the transport checksum.
#[inline(always)]
fn patch_l4(d: &mut [u8], l: &Layout, change: u32) {
    if let Some(at) = l.l4_of(TCP, 20) {
        patch(d, at + 16, change);
    } else if let Some(at) = l.l4_of(UDP, 8) {
        patch_udp(d, at + 6, change);
    } else if let Some(at) = l.l4_of(ICMPV6, 4).filter(|_| l.etype == 0x86dd) {
        patch(d, at + 2, change);
    }
}

#[inline(always)]
fn set_ipv4(d: &mut [u8], l: &Layout, key: &Ipv4Set, mask: &Ipv4Set) {
    let Some(h) = d.get_mut(l.l3..).and_then(|r| r.first_chunk_mut::<20>()) else { return };
    // In registers until the end: a word that is read just after a part of it was written makes the processor wait.
    let word = |at: usize| u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let blend = |old: u32, key: u32, mask: u32| old & !mask | key & mask;
    let (first, ttl, src, dst) = (word(0), word(8), word(12), word(16));
    let byte = |at: usize, v: u8| u32::from_ne_bytes(std::array::from_fn(|i| if i == at { v } else { 0 }));
    let new_first = blend(first, byte(1, key.tos), byte(1, mask.tos));
    let new_ttl = blend(ttl, byte(0, key.ttl), byte(0, mask.ttl)).to_ne_bytes();
    let new_src = blend(src, key.src.raw(), mask.src.raw());
    let new_dst = blend(dst, key.dst.raw(), mask.dst.raw());
    let addresses = delta32(src, new_src) + delta32(dst, new_dst);
    // The word of the TTL holds the checksum too: the same in both, it adds nothing.
    let others = delta32(first, new_first) + delta32(ttl, u32::from_ne_bytes(new_ttl));
    let csum = checksum::apply(u16::from_ne_bytes([h[10], h[11]]), addresses + others).to_ne_bytes();
    h[0..4].copy_from_slice(&new_first.to_ne_bytes());
    h[8..12].copy_from_slice(&[new_ttl[0], new_ttl[1], csum[0], csum[1]]);
    h[12..16].copy_from_slice(&new_src.to_ne_bytes());
    h[16..20].copy_from_slice(&new_dst.to_ne_bytes());
    if (src ^ new_src) | (dst ^ new_dst) != 0 {
        patch_l4(d, l, addresses);
    }
}

fn set_ipv6(d: &mut [u8], l: &Layout, key: &Ipv6Set, mask: &Ipv6Set) {
    let Some(h) = d.get_mut(l.l3..).and_then(|r| r.first_chunk_mut::<40>()) else { return };
    let old = *h;
    blend(&mut h[8..24], &key.src, &mask.src);
    blend(&mut h[24..40], &key.dst, &mask.dst);
    blend(&mut h[7..8], &[key.hlimit], &[mask.hlimit]);
    let word = |label: Be32, tclass: u8| (label.get() & 0xf_ffff) | u32::from(tclass) << 20;
    let (k, m) = (word(key.label, key.tclass), word(mask.label, mask.tclass));
    blend(&mut h[0..4], &k.to_be_bytes(), &m.to_be_bytes());
    let mut change = delta(&old[8..24], &h[8..24]);
    if !l.routing {
        change += delta(&old[24..40], &h[24..40]);
    }
    if old[8..40] != h[8..40] {
        patch_l4(d, l, change);
    }
}

/// Writes both ports; returns the change to the checksum.
#[inline(always)]
fn set_ports(d: &mut [u8], at: usize, key: [Be16; 2], mask: [Be16; 2]) -> u32 {
    let Some(p) = d.get_mut(at..).and_then(|r| r.first_chunk_mut::<4>()) else { return 0 };
    let old = *p;
    blend(&mut p[0..2], &key[0].bytes(), &mask[0].bytes());
    blend(&mut p[2..4], &key[1].bytes(), &mask[1].bytes());
    delta(&old, p)
}

/// The stored checksum keeps the error it has: a packet that came damaged stays damaged.
fn set_sctp(d: &mut [u8], l: &Layout, at: usize, key: [Be16; 2], mask: [Be16; 2]) {
    let end = l.end.min(d.len());
    if at + 12 > end {
        return;
    }
    let before = crc32c_sctp(&d[at..at + 8], &d[at + 12..end]);
    set_ports(d, at, key, mask);
    let after = crc32c_sctp(&d[at..at + 8], &d[at + 12..end]);
    let have = u32::from_le_bytes([d[at + 8], d[at + 9], d[at + 10], d[at + 11]]);
    d[at + 8..at + 12].copy_from_slice(&(have ^ before ^ after).to_le_bytes());
}

fn set_icmp(d: &mut [u8], at: usize, key: [u8; 2], mask: [u8; 2]) {
    let Some(p) = d.get_mut(at..).and_then(|r| r.first_chunk_mut::<2>()) else { return };
    let old = *p;
    blend(p, &key, &mask);
    let change = delta(&old, p);
    patch(d, at + 2, change);
}

fn set_arp(d: &mut [u8], at: usize, key: &ArpSet, mask: &ArpSet) {
    let Some(a) = d.get_mut(at..).and_then(|r| r.first_chunk_mut::<28>()) else { return };
    blend(&mut a[6..8], &key.op.bytes(), &mask.op.bytes());
    blend(&mut a[8..14], &key.sha, &mask.sha);
    blend(&mut a[14..18], &key.sip.bytes(), &mask.sip.bytes());
    blend(&mut a[18..24], &key.tha, &mask.tha);
    blend(&mut a[24..28], &key.tip.bytes(), &mask.tip.bytes());
}

fn set_nd(d: &mut [u8], l: &Layout, key: &NdSet, mask: &NdSet) {
    let Some(at) = l.l4_of(ICMPV6, 24).filter(|_| l.etype == 0x86dd) else { return };
    let end = l.end.min(d.len());
    let mut change = 0;
    let mut rewrite = |d: &mut [u8], at: usize, key: &[u8], mask: &[u8]| {
        let mut old = [0u8; 16];
        let n = key.len();
        old[..n].copy_from_slice(&d[at..at + n]);
        blend(&mut d[at..at + n], key, mask);
        change += delta(&old[..n], &d[at..at + n]);
    };
    if end < at + 24 {
        return;
    }
    rewrite(d, at + 8, &key.target, &mask.target);
    let mut o = at + 24;
    while o + 8 <= end {
        let len = usize::from(d[o + 1]) * 8;
        if len == 0 || o + len > end {
            break;
        }
        match d[o] {
            1 if len == 8 => rewrite(d, o + 2, &key.sll, &mask.sll),
            2 if len == 8 => rewrite(d, o + 2, &key.tll, &mask.tll),
            _ => {}
        }
        o += len;
    }
    patch(d, at + 2, change);
}

/// Inserts a tag after the addresses. False without room.
#[inline(always)]
fn push_vlan(p: &mut Packet, tpid: Be16, tci: Be16) -> bool {
    if !p.push_front(4) {
        return false;
    }
    let Some(d) = p.data_mut().first_chunk_mut::<16>() else { return true };
    let mut addresses = [0; 12];
    addresses.copy_from_slice(&d[4..]);
    let (a, b) = halves(&addresses);
    let (tpid, tci) = (tpid.bytes(), (tci.get() & !VLAN_CFI).to_be_bytes());
    d[..8].copy_from_slice(&a.to_ne_bytes());
    d[8..12].copy_from_slice(&b.to_ne_bytes());
    d[12..].copy_from_slice(&[tpid[0], tpid[1], tci[0], tci[1]]);
    true
}

/// Removes the outer tag; returns how far the headers moved.
#[inline(always)]
fn pop_vlan(p: &mut Packet) -> isize {
    let Some(d) = p.data_mut().first_chunk_mut::<18>() else { return 0 };
    if !matches!(be16(d, 12), 0x8100 | 0x88a8) {
        return 0;
    }
    let mut addresses = [0; 12];
    addresses.copy_from_slice(&d[..12]);
    d[4..16].copy_from_slice(&addresses);
    p.pop_front(4);
    -4
}

fn push_mpls(p: &mut Packet, l: &Layout, ethertype: Be16, lse: Be32) -> bool {
    let l3 = l.l3;
    if l3 < 14 || l3 > p.len() {
        return true;
    }
    if !p.push_front(4) {
        return false;
    }
    let d = p.data_mut();
    d.copy_within(4..l3 + 4, 0);
    d[l3 - 2..l3].copy_from_slice(&ethertype.bytes());
    d[l3..l3 + 4].copy_from_slice(&lse.bytes());
    true
}

fn pop_mpls(p: &mut Packet, l: &Layout, ethertype: Be16) {
    let l3 = l.l3;
    if !matches!(l.etype, 0x8847 | 0x8848) || p.len() < l3 + 4 {
        return;
    }
    let d = p.data_mut();
    d[l3 - 2..l3].copy_from_slice(&ethertype.bytes());
    d.copy_within(0..l3, 4);
    p.pop_front(4);
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;

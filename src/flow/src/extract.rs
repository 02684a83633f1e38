//! From a frame to its packed flow key, in one pass.
//!
//! [`extract`] is the hottest function of the switch: every received frame goes through it once per pass of the
//! pipeline. Each header's length is checked once, its fields are copied as whole words straight to their packed
//! places, and nothing is zeroed. A header that is cut short or contradicts itself leaves its words out, which
//! reads as zero. Bytes after the end that the IP header tells are never looked at: two packets of one key must
//! be equal in all that a rule can see.
//!
//! Neighbours: `datapath` calls it per packet; `ofproto` for packet-outs; `tests` holds a slow twin.
//! Threads: any; no state.

use crate::be::Be16;
use crate::key::{Flow, Miniflow, FRAG_ANY, FRAG_LATER, PKT_WORDS};
use std::mem::offset_of;

pub mod shape;
#[cfg(test)]
mod tests;

/// Words of a flow before the Ethernet header.
pub const META_WORDS: usize = offset_of!(Flow, dl_dst) / 8;
/// "This header is not there" in [`Offsets`].
pub const NO_OFFSET: u16 = u16::MAX;

const ETH_LEN: usize = 14;
const W_IN_PORT: u64 = bit(offset_of!(Flow, in_port));
const W_ETH: u64 = bit(offset_of!(Flow, dl_dst)) | bit(offset_of!(Flow, dl_type));
const W_VLAN: u64 = bit(offset_of!(Flow, vlans));
const W_MPLS: u64 = bit(offset_of!(Flow, mpls)) | bit(offset_of!(Flow, mpls) + 8);
const W_NW: u64 = bit(offset_of!(Flow, nw_src));
const W_IPV6: u64 = 0b1111 << (offset_of!(Flow, ipv6_src) / 8);
const W_IP: u64 = bit(offset_of!(Flow, nw_proto));
const W_TARGET: u64 = 0b11 << (offset_of!(Flow, nd_target) / 8);
const W_SHA: u64 = bit(offset_of!(Flow, arp_sha));
const W_FLAGS: u64 = bit(offset_of!(Flow, tcp_flags));
const W_TP: u64 = bit(offset_of!(Flow, tp_src));

const fn bit(offset: usize) -> u64 {
    1 << (offset / 8)
}

// The words below are put together by hand: where the members stand in them must not move.
const _: () = {
    assert!(offset_of!(Flow, dl_dst) % 8 == 0 && offset_of!(Flow, dl_src) == offset_of!(Flow, dl_dst) + 6);
    assert!(offset_of!(Flow, dl_type) % 8 == 4 && offset_of!(Flow, vlans) % 8 == 0);
    assert!(offset_of!(Flow, mpls) % 8 == 0 && offset_of!(Flow, nw_src) % 8 == 0);
    assert!(offset_of!(Flow, ipv6_src) % 8 == 0 && offset_of!(Flow, ipv6_dst) % 8 == 0);
    assert!(offset_of!(Flow, ipv6_label) % 8 == 0 && offset_of!(Flow, nw_frag) % 8 == 4);
    assert!(offset_of!(Flow, nw_tos) % 8 == 5 && offset_of!(Flow, nw_ttl) % 8 == 6);
    assert!(offset_of!(Flow, nw_proto) % 8 == 7 && offset_of!(Flow, nd_target) % 8 == 0);
    assert!(offset_of!(Flow, arp_sha) % 8 == 0 && offset_of!(Flow, arp_tha) % 8 == 6);
    assert!(offset_of!(Flow, tcp_flags) % 8 == 4 && offset_of!(Flow, tp_src) % 8 == 0);
    assert!(offset_of!(Flow, igmp_group_ip4) % 8 == 4);
};

/// What is known of a packet beside its bytes, packed once for all packets of a batch: receiving port, tunnel,
/// connection state, marks.
#[derive(Clone, Copy, Debug)]
pub struct PktMetadata {
    map: u64,
    n: usize,
    words: [u64; META_WORDS],
    /// VLAN headers to look into (`other_config:vlan-limit`, 1 unless configured).
    pub vlan_limit: u8,
}

impl PktMetadata {
    /// Of a packet freshly received from `in_port`.
    #[inline]
    pub fn new(in_port: u32) -> PktMetadata {
        let mut m = PktMetadata { map: W_IN_PORT, n: 1, words: [0; META_WORDS], vlan_limit: 1 };
        // Second half of its word: dp_hash comes first.
        m.words[0] = u64::from_ne_bytes(halves([0; 4], in_port.to_ne_bytes()));
        m
    }

    /// The metadata words of `flow` (tunnel, marks, port, recirculation id, connection state).
    pub fn from_flow(flow: &Flow) -> PktMetadata {
        let mut m = PktMetadata { map: 0, n: 0, words: [0; META_WORDS], vlan_limit: 1 };
        for (i, &w) in flow.words()[..META_WORDS].iter().enumerate() {
            // The packet type of an Ethernet frame is 0 by definition, whatever the flow says.
            if w != 0 || W_IN_PORT == 1 << i {
                m.map |= 1 << i;
                m.words[m.n] = w;
                m.n += 1;
            }
        }
        m
    }

    /// The words that are there, and what they are.
    #[inline(always)]
    pub fn words(&self) -> (u64, &[u64]) {
        (self.map, &self.words[..self.n.min(META_WORDS)])
    }

    /// With another limit of VLAN headers.
    pub fn with_vlan_limit(self, vlan_limit: u8) -> PktMetadata {
        PktMetadata { vlan_limit, ..self }
    }
}

/// Where the headers start, in bytes from the frame's start; [`NO_OFFSET`] where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// First MPLS label.
    pub l2_5: u16,
    /// Network header (also of ARP).
    pub l3: u16,
    /// Transport header.
    pub l4: u16,
    /// Bytes of padding after the IP packet's end.
    pub l2_pad: u16,
}

impl Offsets {
    /// No header found.
    pub const NONE: Offsets = Offsets { l2_5: NO_OFFSET, l3: NO_OFFSET, l4: NO_OFFSET, l2_pad: 0 };
}

#[inline(always)]
fn halves(a: [u8; 4], b: [u8; 4]) -> [u8; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// Eight bytes of `b` from `at` as a word. `at + 8 <= N` for the constants used here.
#[inline(always)]
fn word<const N: usize>(b: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
}

/// Appends packed words. `at` never passes the end: the words of all headers of one frame are distinct and
/// ascending; should that be broken, the words are dropped.
struct Writer<'a> {
    values: &'a mut [u64; PKT_WORDS],
    at: usize,
    map: u64,
}

impl Writer<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bits: u64, words: [u64; N]) {
        if let Some(slot) = self.values.get_mut(self.at..).and_then(|v| v.first_chunk_mut::<N>()) {
            *slot = words;
            self.at += N;
            self.map |= bits;
        }
    }

    #[inline(always)]
    fn put_meta(&mut self, md: &PktMetadata) {
        if md.n == 1 {
            self.values[0] = md.words[0];
        } else {
            for (to, &from) in self.values.iter_mut().zip(&md.words).take(md.n) {
                *to = from;
            }
        }
        self.at = md.n;
        self.map = md.map;
    }
}

/// Packs the flow key of `frame` into `out` and says where its headers start.
///
/// A frame shorter than an Ethernet header gives the metadata alone.
#[inline]
pub fn extract(frame: &[u8], md: &PktMetadata, out: &mut Miniflow) -> Offsets {
    let mut w = Writer { values: &mut out.values, at: 0, map: 0 };
    w.put_meta(md);
    let mut ofs = Offsets::NONE;
    if let Some(h) = frame.first_chunk::<ETH_LEN>() {
        let wire_type = u16::from_be_bytes([h[12], h[13]]);
        let (dl_type, at) = if wire_type == 0x0800 {
            w.put(W_ETH, [word(h, 0), eth_word(h, wire_type)]);
            (wire_type, ETH_LEN)
        } else {
            tagged(frame, h, wire_type, md.vlan_limit, &mut w)
        };
        if frame.len() >= at && at < usize::from(NO_OFFSET) {
            let rest = &frame[at..];
            ofs.l3 = at as u16;
            match dl_type {
                0x0800 => ipv4(rest, &mut ofs, &mut w),
                0x86dd => ipv6(rest, &mut ofs, &mut w),
                0x0806 | 0x8035 => arp(rest, &mut w),
                0x8847 | 0x8848 => {
                    ofs.l2_5 = at as u16;
                    ofs.l3 = at as u16 + mpls(rest, &mut w);
                }
                _ => {}
            }
        }
    }
    out.map = w.map;
    ofs
}

/// The second Ethernet word: rest of the source address, ethertype.
#[inline(always)]
fn eth_word(h: &[u8; ETH_LEN], dl_type: u16) -> u64 {
    let t = dl_type.to_be_bytes();
    u64::from_ne_bytes([h[8], h[9], h[10], h[11], t[0], t[1], 0, 0])
}

/// Ethernet header followed by anything but plain IPv4: tags, LLC. Returns the ethertype and where its payload
/// starts.
fn tagged(frame: &[u8], h: &[u8; ETH_LEN], wire_type: u16, limit: u8, w: &mut Writer) -> (u16, usize) {
    let (mut dl_type, mut at) = (wire_type, ETH_LEN);
    let mut tags = [0u8; 8];
    let mut n = 0;
    while matches!(dl_type, 0x8100 | 0x88a8) && n < usize::from(limit).min(crate::key::MAX_VLANS) {
        // The tag's TCI and the ethertype after it.
        let Some(t) = frame.get(at..).and_then(|r| r.first_chunk::<4>()) else { break };
        tags[4 * n..4 * n + 2].copy_from_slice(&dl_type.to_be_bytes());
        tags[4 * n + 2] = t[0] | 0x10;
        tags[4 * n + 3] = t[1];
        dl_type = u16::from_be_bytes([t[2], t[3]]);
        at += 4;
        n += 1;
    }
    if dl_type < 0x0600 {
        dl_type = 0x05ff;
        if let Some(llc) = frame.get(at..).and_then(|r| r.first_chunk::<8>()) {
            let inner = u16::from_be_bytes([llc[6], llc[7]]);
            if llc[..6] == [0xaa, 0xaa, 3, 0, 0, 0] && inner >= 0x0600 {
                dl_type = inner;
                at += 8;
            }
        }
    }
    w.put(W_ETH, [word(h, 0), eth_word(h, dl_type)]);
    if n > 0 {
        w.put(W_VLAN, [u64::from_ne_bytes(tags)]);
    }
    (dl_type, at)
}

/// The label stack's first three entries. Returns its length in bytes.
fn mpls(rest: &[u8], w: &mut Writer) -> u16 {
    let mut lse = [0u8; 16];
    let mut len = 0u16;
    for (i, label) in rest.chunks_exact(4).enumerate() {
        if i < crate::key::MAX_MPLS {
            lse[4 * i..4 * i + 4].copy_from_slice(label);
        }
        len = len.saturating_add(4);
        if label[2] & 1 != 0 {
            break;
        }
    }
    w.put(W_MPLS, [word(&lse, 0), word(&lse, 8)]);
    len
}

fn arp(rest: &[u8], w: &mut Writer) {
    let Some(a) = rest.first_chunk::<28>() else { return };
    // Ethernet, IPv4, addresses of 6 and 4 bytes.
    if a[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let op = if a[6] == 0 { a[7] } else { 0 };
    let nw = u64::from_ne_bytes(halves([a[14], a[15], a[16], a[17]], [a[24], a[25], a[26], a[27]]));
    let ip = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, op]);
    let sha = u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[18], a[19]]);
    let tha = u64::from_ne_bytes(halves([a[20], a[21], a[22], a[23]], [0; 4]));
    w.put(W_NW | W_IP | W_SHA | W_FLAGS, [nw, ip, sha, tha]);
}

#[inline(always)]
fn ipv4(rest: &[u8], ofs: &mut Offsets, w: &mut Writer) {
    let Some(h) = rest.first_chunk::<20>() else { return };
    let header = usize::from(h[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if header < 20 || header > total || total > rest.len() {
        return;
    }
    ofs.l2_pad = (rest.len() - total).min(usize::from(u16::MAX)) as u16;
    ofs.l4 = ofs.l3.saturating_add(header as u16);
    let flags = u16::from_be_bytes([h[6], h[7]]);
    let mut frag = 0;
    // More fragments, or an offset.
    if flags & 0x3fff != 0 {
        frag = FRAG_ANY | if flags & 0x1fff != 0 { FRAG_LATER } else { 0 };
    }
    let nw = word(h, 12);
    let ip = u64::from_ne_bytes([0, 0, 0, 0, frag, h[1], h[8], h[9]]);
    let l4 = &rest[header..total];
    if frag & FRAG_LATER != 0 {
        return w.put(W_NW | W_IP, [nw, ip]);
    }
    match h[9] {
        6 => {
            if let Some((flags, tp)) = tcp(l4) {
                return w.put(W_NW | W_IP | W_FLAGS | W_TP, [nw, ip, flags, tp]);
            }
        }
        17 => {
            if let Some(u) = l4.first_chunk::<8>() {
                return w.put(W_NW | W_IP | W_TP, [nw, ip, ports(u)]);
            }
        }
        132 => {
            if let Some(s) = l4.first_chunk::<12>() {
                return w.put(W_NW | W_IP | W_TP, [nw, ip, ports(s)]);
            }
        }
        // Parsed whatever the IP version, so that it may be matched as ports.
        58 => {
            w.put(W_NW, [nw]);
            return icmpv6(l4, ip, w);
        }
        1 | 2 => {
            if let Some(i) = l4.first_chunk::<8>() {
                return w.put(W_NW | W_IP | W_TP, [nw, ip, icmp_igmp(h[9], i)]);
            }
        }
        _ => {}
    }
    w.put(W_NW | W_IP, [nw, ip]);
}

/// The words of TCP flags and of the ports. `None` when the header is cut or its data offset impossible.
#[inline(always)]
fn tcp(l4: &[u8]) -> Option<(u64, u64)> {
    let t = l4.first_chunk::<20>()?;
    let header = usize::from(t[12] >> 4) * 4;
    if header < 20 || header > l4.len() {
        return None;
    }
    Some((u64::from_ne_bytes([0, 0, 0, 0, t[12] & 0x0f, t[13], 0, 0]), ports(t)))
}

#[inline(always)]
fn ports<const N: usize>(l4: &[u8; N]) -> u64 {
    u64::from_ne_bytes([l4[0], l4[1], l4[2], l4[3], 0, 0, 0, 0])
}

/// Type and code as ports; with IGMP its group.
#[inline(always)]
fn icmp_igmp(proto: u8, l4: &[u8; 8]) -> u64 {
    let group = if proto == 2 { [l4[4], l4[5], l4[6], l4[7]] } else { [0; 4] };
    u64::from_ne_bytes(halves([0, l4[0], 0, l4[1]], group))
}

#[inline(always)]
fn ipv6(rest: &[u8], ofs: &mut Offsets, w: &mut Writer) {
    let Some(h) = rest.first_chunk::<40>() else { return };
    let end = 40 + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if end > rest.len() {
        return;
    }
    ofs.l2_pad = (rest.len() - end).min(usize::from(u16::MAX)) as u16;
    w.put(W_IPV6, [word(h, 8), word(h, 16), word(h, 24), word(h, 32)]);
    let Some((proto, frag, at)) = ipv6_extensions(&rest[..end], h[6]) else { return };
    ofs.l4 = ofs.l3.saturating_add(at as u16);
    let tclass = h[0] << 4 | h[1] >> 4;
    let ip = u64::from_ne_bytes([0, h[1] & 0x0f, h[2], h[3], frag, tclass, h[7], proto]);
    let l4 = &rest[at..end];
    if frag & FRAG_LATER != 0 {
        return w.put(W_IP, [ip]);
    }
    match proto {
        6 => {
            if let Some((flags, tp)) = tcp(l4) {
                return w.put(W_IP | W_FLAGS | W_TP, [ip, flags, tp]);
            }
        }
        17 => {
            if let Some(u) = l4.first_chunk::<8>() {
                return w.put(W_IP | W_TP, [ip, ports(u)]);
            }
        }
        132 => {
            if let Some(s) = l4.first_chunk::<12>() {
                return w.put(W_IP | W_TP, [ip, ports(s)]);
            }
        }
        // Not that these belong under IPv6.
        1 | 2 => {
            if let Some(i) = l4.first_chunk::<8>() {
                return w.put(W_IP | W_TP, [ip, icmp_igmp(proto, i)]);
            }
        }
        58 => return icmpv6(l4, ip, w),
        _ => {}
    }
    w.put(W_IP, [ip]);
}

/// Walks the extension headers of `packet` (IPv6 header included). Returns transport protocol, fragment bits,
/// and where the transport header starts; `None` when a header is cut.
#[inline(always)]
fn ipv6_extensions(packet: &[u8], first: u8) -> Option<(u8, u8, usize)> {
    let (mut next, mut at, mut frag) = (first, 40, 0);
    loop {
        match next {
            // Hop-by-hop, routing, destination options: length in 8 bytes, not counting the first 8.
            0 | 43 | 60 => {
                let e = packet.get(at..)?.first_chunk::<8>()?;
                next = e[0];
                at += (usize::from(e[1]) + 1) * 8;
            }
            // Authentication: length in 4 bytes, less 2.
            51 => {
                let e = packet.get(at..)?.first_chunk::<8>()?;
                next = e[0];
                at += (usize::from(e[1]) + 2) * 4;
            }
            44 => {
                let e = packet.get(at..)?.first_chunk::<8>()?;
                let flags = u16::from_be_bytes([e[2], e[3]]);
                at += 8;
                if flags & 0xfff8 != 0 {
                    return Some((44, FRAG_ANY | FRAG_LATER, at));
                }
                // A lone "fragment" is a whole packet.
                if flags != 0 {
                    frag = FRAG_ANY;
                }
                next = e[0];
            }
            _ => return Some((next, frag, at)),
        }
        if at > packet.len() {
            return None;
        }
    }
}

fn icmpv6(l4: &[u8], ip: u64, w: &mut Writer) {
    let Some(i) = l4.first_chunk::<8>() else { return w.put(W_IP, [ip]) };
    let tp = u64::from_ne_bytes([0, i[0], 0, i[1], 0, 0, 0, 0]);
    if !(i[1] == 0 && matches!(i[0], 135 | 136)) {
        return w.put(W_IP | W_TP, [ip, tp]);
    }
    let Some(Nd { target, sll, tll }) = neighbour_discovery(l4) else {
        return w.put(W_IP | W_TP, [ip, tp]);
    };
    let sha = u64::from_ne_bytes([sll[0], sll[1], sll[2], sll[3], sll[4], sll[5], tll[0], tll[1]]);
    let tha = u64::from_ne_bytes(halves([tll[2], tll[3], tll[4], tll[5]], [0; 4]));
    let words = [ip, word(&target, 0), word(&target, 8), sha, tha, tp];
    w.put(W_IP | W_TARGET | W_SHA | W_FLAGS | W_TP, words);
}

/// What a neighbour solicitation or advertisement tells.
struct Nd {
    target: [u8; 16],
    sll: [u8; 6],
    tll: [u8; 6],
}

/// The target and the link-layer address options. `None` when the target is cut or an address is given twice.
fn neighbour_discovery(l4: &[u8]) -> Option<Nd> {
    let mut nd = Nd { target: *l4.get(8..)?.first_chunk::<16>()?, sll: [0; 6], tll: [0; 6] };
    let mut rest = &l4[24..];
    while let Some(o) = rest.first_chunk::<8>() {
        let len = usize::from(o[1]) * 8;
        if len == 0 || len > rest.len() {
            break;
        }
        if len == 8 && matches!(o[0], 1 | 2) {
            let to = if o[0] == 1 { &mut nd.sll } else { &mut nd.tll };
            if *to != [0; 6] {
                return None;
            }
            to.copy_from_slice(&o[2..8]);
        }
        rest = &rest[len..];
    }
    Some(nd)
}

/// The whole flow of `frame` received with `md`.
pub fn extract_flow(frame: &[u8], md: &PktMetadata) -> (Flow, Offsets) {
    let mut m = Miniflow::EMPTY;
    let ofs = extract(frame, md, &mut m);
    (m.expand(), ofs)
}

/// TCP flags of a packed flow (0 when it is not TCP).
#[inline]
pub fn tcp_flags(m: &Miniflow) -> u16 {
    if m.map & W_FLAGS == 0 {
        return 0;
    }
    let b = m.word(offset_of!(Flow, tcp_flags) / 8).to_ne_bytes();
    Be16::from_bytes([b[4], b[5]]).get()
}

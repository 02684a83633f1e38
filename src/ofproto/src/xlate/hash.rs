//! Flow hashes and link choice of `multipath`.
//!
//! The hash functions are MurmurHash3 (Austin Appleby) and lookup3 (Bob Jenkins), both in the public domain, over
//! the fields in an order that gives the links that Open vSwitch gives. Threads: pure functions.

use super::commit::{is_ip_any, ETH_IP, ETH_IPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP};
use flow::key::{FRAG_MASK, VLAN_CFI};
use flow::{Be16, Be32, Flow, Mask};

/// `NX_HASH_FIELDS_*`.
const ETH_SRC: u16 = 0;
const SYMMETRIC_L4: u16 = 1;
const SYMMETRIC_L3L4: u16 = 2;
const SYMMETRIC_L3L4_UDP: u16 = 3;
const NW_SRC: u16 = 4;
const NW_DST: u16 = 5;
const SYMMETRIC_L3: u16 = 6;

/// `NX_MP_ALG_*`.
const MODULO_N: u16 = 0;
const HASH_THRESHOLD: u16 = 1;
const HRW: u16 = 2;

const VID_CFI: u16 = 0x0fff | VLAN_CFI;

fn murmur_add(h: u32, data: u32) -> u32 {
    let k = data.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (h ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

fn murmur_finish(h: u32, last: u32) -> u32 {
    let mut h = h ^ last;
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// Hash of two words.
pub(crate) fn hash2(x: u32, y: u32) -> u32 {
    murmur_finish(murmur_add(murmur_add(x, 0), y), 8)
}

/// lookup3 over bytes, padded with zeros to whole words.
fn lookup3(bytes: &[u8], basis: u32) -> u32 {
    let init = 0xdead_beefu32.wrapping_add(bytes.len() as u32).wrapping_add(basis);
    let (mut a, mut b, mut c) = (init, init, init);
    let mut chunks = bytes.chunks_exact(12);
    let word = |s: &[u8], i: usize| {
        u32::from_ne_bytes(std::array::from_fn(|k| s.get(i * 4 + k).copied().unwrap_or(0)))
    };
    for s in &mut chunks {
        a = a.wrapping_add(word(s, 0));
        b = b.wrapping_add(word(s, 1));
        c = c.wrapping_add(word(s, 2));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        a = a.wrapping_add(word(rest, 0));
        b = b.wrapping_add(word(rest, 1));
        c = c.wrapping_add(word(rest, 2));
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
    }
    c
}

/// Source and destination address, exclusive-or'ed.
fn xor_addrs(f: &Flow) -> [u8; 16] {
    match f.dl_type.get() {
        ETH_IP => {
            let mut a = [0; 16];
            a[..4].copy_from_slice(&(f.nw_src ^ f.nw_dst).bytes());
            a
        }
        ETH_IPV6 => std::array::from_fn(|i| f.ipv6_src[i] ^ f.ipv6_dst[i]),
        _ => [0; 16],
    }
}

fn symmetric_l4(f: &Flow, basis: u32) -> u32 {
    let mut k = [0u8; 32];
    k[..16].copy_from_slice(&xor_addrs(f));
    k[16..18].copy_from_slice(&f.dl_type.bytes());
    k[18..20].copy_from_slice(&vlan_ids(f).bytes());
    if is_ip_any(f) {
        // UDP ports are left out: they need not be the same in both directions.
        if matches!(f.nw_proto, PROTO_TCP | PROTO_SCTP) {
            k[20..22].copy_from_slice(&(f.tp_src ^ f.tp_dst).bytes());
        }
        k[28] = f.nw_proto;
    }
    for i in 0..6 {
        k[22 + i] = f.dl_src[i] ^ f.dl_dst[i];
    }
    lookup3(&k, basis)
}

fn vlan_ids(f: &Flow) -> Be16 {
    f.vlans.iter().fold(Be16::ZERO, |t, v| t ^ v.tci & Be16::new(VID_CFI & !VLAN_CFI))
}

fn symmetric_l2(f: &Flow, basis: u32) -> u32 {
    let mut k = [0u8; 12];
    k[..2].copy_from_slice(&f.dl_type.bytes());
    k[2..4].copy_from_slice(&vlan_ids(f).bytes());
    for i in 0..6 {
        k[4 + i] = f.dl_src[i] ^ f.dl_dst[i];
    }
    let words = k.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    murmur_finish(words.fold(basis, murmur_add), basis)
}

/// Whether the ports count: of whole packets only, since later fragments have none.
fn l3l4_ports(f: &Flow, udp: bool) -> bool {
    let proto = matches!(f.nw_proto, PROTO_TCP | PROTO_SCTP) || udp && f.nw_proto == PROTO_UDP;
    proto && f.nw_frag & FRAG_MASK == 0
}

fn symmetric_l3l4(f: &Flow, basis: u32, udp: bool) -> u32 {
    let addrs = xor_addrs(f);
    let words = match f.dl_type.get() {
        ETH_IP => 1,
        ETH_IPV6 => 4,
        _ => return symmetric_l2(f, basis),
    };
    let mut h = basis;
    for w in addrs.chunks_exact(4).take(words) {
        h = murmur_add(h, u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    }
    h = murmur_add(h, f.nw_proto.into());
    if l3l4_ports(f, udp) {
        h = murmur_add(h, (f.tp_src ^ f.tp_dst).raw().into());
    }
    murmur_finish(h, basis)
}

fn symmetric_l3(f: &Flow, basis: u32) -> u32 {
    let mut k = [0u8; 20];
    k[..16].copy_from_slice(&xor_addrs(f));
    k[16..18].copy_from_slice(&f.dl_type.bytes());
    lookup3(&k, basis)
}

fn addr(f: &Flow, v4: Be32, v6: [u8; 16], basis: u32) -> u32 {
    match f.dl_type.get() {
        ETH_IP => lookup3(&v4.bytes(), basis),
        ETH_IPV6 => lookup3(&v6, basis),
        _ => basis,
    }
}

/// Hash of the fields that `fields` names.
pub(super) fn flow_hash(f: &Flow, fields: u16, basis: u16) -> u32 {
    let basis = u32::from(basis);
    match fields {
        ETH_SRC => lookup3(&f.dl_src, basis),
        SYMMETRIC_L4 => symmetric_l4(f, basis),
        SYMMETRIC_L3L4 => symmetric_l3l4(f, basis, false),
        SYMMETRIC_L3L4_UDP => symmetric_l3l4(f, basis, true),
        NW_SRC => addr(f, f.nw_src, f.ipv6_src, basis),
        NW_DST => addr(f, f.nw_dst, f.ipv6_dst, basis),
        _ => symmetric_l3(f, basis),
    }
}

fn mask_addrs(f: &Flow, m: &mut Mask, src: bool, dst: bool) {
    let v6 = match f.dl_type.get() {
        ETH_IP => false,
        ETH_IPV6 => true,
        _ => return,
    };
    let m = &mut m.0;
    match v6 {
        false => {
            m.nw_src |= if src { Be32::MAX } else { Be32::ZERO };
            m.nw_dst |= if dst { Be32::MAX } else { Be32::ZERO };
        }
        true => {
            if src {
                m.ipv6_src = [0xff; 16];
            }
            if dst {
                m.ipv6_dst = [0xff; 16];
            }
        }
    }
}

fn mask_l2(f: &Flow, m: &mut Mask) {
    m.0.dl_src = [0xff; 6];
    m.0.dl_dst = [0xff; 6];
    for (i, v) in m.0.vlans.iter_mut().enumerate() {
        v.tci |= Be16::new(VID_CFI);
        if f.vlans[i].tci.is_zero() {
            break;
        }
    }
}

/// Unwildcards what [`flow_hash`] looks at.
pub(super) fn mask_fields(f: &Flow, m: &mut Mask, fields: u16) {
    match fields {
        ETH_SRC => m.0.dl_src = [0xff; 6],
        NW_SRC => mask_addrs(f, m, true, false),
        NW_DST => mask_addrs(f, m, false, true),
        SYMMETRIC_L4 => {
            mask_l2(f, m);
            mask_addrs(f, m, true, true);
            if is_ip_any(f) {
                m.0.nw_proto = 0xff;
                if f.nw_proto != PROTO_UDP {
                    (m.0.tp_src, m.0.tp_dst) = (Be16::MAX, Be16::MAX);
                }
            }
        }
        SYMMETRIC_L3L4 | SYMMETRIC_L3L4_UDP => {
            mask_addrs(f, m, true, true);
            if !is_ip_any(f) {
                return mask_l2(f, m);
            }
            m.0.nw_proto = 0xff;
            if l3l4_ports(f, fields == SYMMETRIC_L3L4_UDP) {
                (m.0.tp_src, m.0.tp_dst) = (Be16::MAX, Be16::MAX);
            }
        }
        _ => {
            debug_assert_eq!(SYMMETRIC_L3, 6);
            mask_addrs(f, m, true, true);
        }
    }
}

/// The link, of `n_links`, that `algorithm` chooses for `hash`.
pub(super) fn multipath(hash: u32, algorithm: u16, n_links: u32, arg: u32) -> u16 {
    let link = match algorithm {
        MODULO_N => hash % n_links,
        HASH_THRESHOLD if n_links == 1 => 0,
        HASH_THRESHOLD => hash / (u32::MAX / n_links + 1),
        // The work grows with the number of links: many are chosen among otherwise.
        HRW if n_links <= 64 => highest_weight(hash, n_links),
        _ => iterate(hash, n_links, arg),
    };
    link as u16
}

fn highest_weight(hash: u32, n_links: u32) -> u32 {
    let mut best = (0, hash2(hash, 0));
    for i in 1..n_links {
        let w = hash2(hash, i);
        if w > best.1 {
            best = (i, w);
        }
    }
    best.0
}

fn iterate(hash: u32, n_links: u32, arg: u32) -> u32 {
    let modulo = if arg < n_links || arg / 2 > n_links { n_links.next_power_of_two() } else { arg };
    // More than one round in two ends: this many rounds do not fail in practice, and the end is certain.
    (0..1000).map(|i| hash2(hash, i) % modulo).find(|&l| l < n_links).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Vlan;

    fn base() -> Flow {
        Flow {
            dl_src: [0x50, 0x54, 0, 0, 1, 5],
            dl_dst: [0x50, 0x54, 0, 0, 0, 7],
            dl_type: Be16::new(0x1234),
            ..Flow::default()
        }
    }

    fn ip(proto: u8) -> Flow {
        Flow {
            dl_type: Be16::new(ETH_IP),
            nw_src: Be32::new(0x0102_0304),
            nw_dst: Be32::new(0x0405_0608),
            nw_proto: proto,
            tp_src: Be16::new(100),
            tp_dst: Be16::new(200),
            ..base()
        }
    }

    fn ip6() -> Flow {
        let mut f = ip(6);
        f.dl_type = Be16::new(ETH_IPV6);
        (f.nw_src, f.nw_dst) = (Be32::ZERO, Be32::ZERO);
        (f.ipv6_src[0], f.ipv6_src[1], f.ipv6_src[15]) = (0xfe, 0x80, 1);
        (f.ipv6_dst[0], f.ipv6_dst[1], f.ipv6_dst[15]) = (0xfe, 0x80, 2);
        f
    }

    /// Values observed with Open vSwitch 3.1.
    #[test]
    fn hashes_as_observed() {
        let h = |f: &Flow, fields, basis| flow_hash(f, fields, basis);
        assert_eq!(h(&base(), ETH_SRC, 0), 0x7f3c_df9d);
        assert_eq!(h(&base(), ETH_SRC, 1024), 0xaca4_ecfa);
        assert_eq!(h(&base(), SYMMETRIC_L4, 0), 0x6a94_fa5f);
        assert_eq!(h(&ip(6), SYMMETRIC_L4, 0), 0xbe40_2162);
        assert_eq!(h(&ip(17), SYMMETRIC_L4, 1024), 0x1907_b36a);
        assert_eq!(h(&ip6(), SYMMETRIC_L4, 0), 0x7ca8_f725);
        assert_eq!(h(&ip(6), NW_SRC, 0), 0x043f_cddd);
        assert_eq!(h(&ip6(), NW_SRC, 0), 0x1322_b3ad);
        assert_eq!(h(&ip(6), NW_DST, 5), 0x95e6_a2d5);
        assert_eq!(h(&base(), NW_DST, 5), 5);
        assert_eq!(h(&ip(6), SYMMETRIC_L3L4, 7), 0x92c9_8cc0);
        assert_eq!(h(&ip(17), SYMMETRIC_L3L4, 0), 0xc1ae_a473);
        assert_eq!(h(&ip(17), SYMMETRIC_L3L4_UDP, 0), 0x0fb4_5525);
        assert_eq!(h(&ip6(), SYMMETRIC_L3L4, 0), 0xb8e0_773e);
        assert_eq!(h(&base(), SYMMETRIC_L3L4, 0), 0xa803_3561);
        assert_eq!(h(&base(), SYMMETRIC_L3L4, 7), 0x9fa9_4d2e);
        assert_eq!(h(&base(), SYMMETRIC_L3, 0), 0x8a7b_569d);
        assert_eq!(h(&ip(6), SYMMETRIC_L3, 0), 0x6723_ac6f);
        assert_eq!(h(&ip6(), SYMMETRIC_L3, 0), 0xe43c_77f0);
        let mut v = ip(6);
        v.vlans[0] = Vlan { tpid: Be16::new(0x8100), tci: Be16::new(0x7005) };
        (v.nw_dst, v.tp_src, v.tp_dst) = (Be32::ZERO, Be16::ZERO, Be16::ZERO);
        assert_eq!(h(&v, SYMMETRIC_L4, 0), 0xa426_4230);
    }

    #[test]
    fn links_as_observed() {
        let h = 0x7f3c_df9d;
        for (n, want) in [(4, 3), (5, 4), (16, 13), (65_536, 0x95dc)] {
            assert_eq!(multipath(h, HRW, n, 7), want);
        }
        for (n, arg, want) in
            [(5, 6, 2), (5, 8, 4), (4, 4, 0), (16, 40, 12), (16, 31, 10), (16, 33, 6), (16, 16, 12)]
        {
            assert_eq!(multipath(h, 3, n, arg), want, "{n} {arg}");
        }
        assert_eq!(multipath(h, HASH_THRESHOLD, 65_536, 0), 0x7f3c);
        assert_eq!(multipath(h, HASH_THRESHOLD, 1, 0), 0);
    }
}

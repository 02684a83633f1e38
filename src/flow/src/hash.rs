//! Hashes of flows: over the 5-tuple for caches and `dp_hash`, and over the fields that OpenFlow's multipath,
//! bundle and select groups name.
//!
//! A symmetric hash is the same for both directions of a conversation. What a hash looks at must be unwildcarded
//! in the megaflow: [`HashFields::mask`].
//!
//! Neighbours: `datapath` (5-tuple), `ofproto` (the rest). Threads: plain functions.

use crate::be::Be16;
use crate::key::{Flow, Mask, Miniflow, VLAN_CFI};
use std::mem::offset_of;

const ETH_IP: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd6e8_feb8_6659_fd93;

/// One step of the hash: a multiplication whose halves are folded together.
#[inline(always)]
fn mix(h: u64, v: u64) -> u64 {
    let p = u128::from(h ^ v ^ K0) * u128::from(K1 | 1);
    (p as u64) ^ (p >> 64) as u64
}

#[inline(always)]
fn finish(h: u64) -> u32 {
    let h = mix(h, h >> 32);
    (h ^ h >> 32) as u32
}

/// Hash of addresses, protocol and ports; of the Ethernet header for what is not IP.
#[inline]
pub fn hash_5tuple(m: &Miniflow, basis: u32) -> u32 {
    const NW: usize = offset_of!(Flow, nw_src) / 8;
    const V6: usize = offset_of!(Flow, ipv6_src) / 8;
    const IP: usize = offset_of!(Flow, nw_proto) / 8;
    const TP: usize = offset_of!(Flow, tp_src) / 8;
    const ETH: usize = offset_of!(Flow, dl_dst) / 8;
    let mut h = mix(basis.into(), 0);
    if m.map >> NW & 1 != 0 {
        h = mix(h, m.word(NW));
    } else if m.map >> V6 & 1 != 0 {
        h = mix(h, m.word(V6));
        h = mix(h, m.word(V6 + 1));
        h = mix(h, m.word(V6 + 2));
        h = mix(h, m.word(V6 + 3));
    } else {
        h = mix(h, m.word(ETH));
        return finish(mix(h, m.word(ETH + 1)));
    }
    // The protocol is the last byte of its word, the ports are the first four of theirs.
    let proto = m.word(IP).to_ne_bytes()[7];
    let tp = m.word(TP).to_ne_bytes();
    let tail = u64::from_ne_bytes([tp[0], tp[1], tp[2], tp[3], proto, 0, 0, 0]);
    finish(mix(h, tail))
}

/// Which fields a multipath, bundle or group action hashes (`NX_HASH_FIELDS_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum HashFields {
    EthSrc,
    SymmetricL4,
    SymmetricL3L4,
    SymmetricL3L4Udp,
    NwSrc,
    NwDst,
    SymmetricL3,
}

impl HashFields {
    /// All, in the order of their numbers.
    pub const ALL: [HashFields; 7] = [
        HashFields::EthSrc,
        HashFields::SymmetricL4,
        HashFields::SymmetricL3L4,
        HashFields::SymmetricL3L4Udp,
        HashFields::NwSrc,
        HashFields::NwDst,
        HashFields::SymmetricL3,
    ];

    /// By the number in the action.
    pub fn from_wire(v: u16) -> Option<HashFields> {
        HashFields::ALL.get(usize::from(v)).copied()
    }

    /// The number in the action.
    pub fn to_wire(self) -> u16 {
        self as u16
    }

    /// The name in ovs-actions(7).
    pub fn name(self) -> &'static str {
        match self {
            HashFields::EthSrc => "eth_src",
            HashFields::SymmetricL4 => "symmetric_l4",
            HashFields::SymmetricL3L4 => "symmetric_l3l4",
            HashFields::SymmetricL3L4Udp => "symmetric_l3l4+udp",
            HashFields::NwSrc => "nw_src",
            HashFields::NwDst => "nw_dst",
            HashFields::SymmetricL3 => "symmetric_l3",
        }
    }

    /// The fields' hash.
    pub fn hash(self, flow: &Flow, basis: u16) -> u32 {
        let basis = u32::from(basis);
        match self {
            HashFields::EthSrc => finish(mix(basis.into(), mac(flow.dl_src))),
            HashFields::SymmetricL4 => flow.symmetric_hash_l4(basis),
            HashFields::SymmetricL3L4 => flow.symmetric_hash_l3l4(basis, false),
            HashFields::SymmetricL3L4Udp => flow.symmetric_hash_l3l4(basis, true),
            HashFields::NwSrc => one_address(flow, basis, flow.nw_src.raw(), flow.ipv6_src),
            HashFields::NwDst => one_address(flow, basis, flow.nw_dst.raw(), flow.ipv6_dst),
            HashFields::SymmetricL3 => match l3(flow) {
                Some(a) => finish(mix(mix(basis.into(), a as u64), (a >> 64) as u64)),
                None => 0,
            },
        }
    }

    /// Unwildcards what the hash of `flow` looks at.
    pub fn mask(self, flow: &Flow, mask: &mut Mask) {
        let m = &mut mask.0;
        let both = |m: &mut Flow| {
            address(flow, m, true, true);
            m.nw_proto |= if is_ip(flow) { 0xff } else { 0 };
        };
        match self {
            HashFields::EthSrc => m.dl_src = [0xff; 6],
            HashFields::SymmetricL4 => {
                m.dl_src = [0xff; 6];
                m.dl_dst = [0xff; 6];
                m.dl_type = Be16::MAX;
                for (v, bits) in flow.vlans.iter().zip(&mut m.vlans) {
                    let tagged = v.tci.get() & VLAN_CFI != 0;
                    bits.tci |= Be16::new(VLAN_CFI | if tagged { 0xfff } else { 0 });
                }
                both(m);
                ports(flow, m, false);
            }
            HashFields::SymmetricL3L4 | HashFields::SymmetricL3L4Udp => {
                both(m);
                ports(flow, m, self == HashFields::SymmetricL3L4Udp);
            }
            HashFields::NwSrc => address(flow, m, true, false),
            HashFields::NwDst => address(flow, m, false, true),
            HashFields::SymmetricL3 => address(flow, m, true, true),
        }
    }
}

fn mac(b: [u8; 6]) -> u64 {
    u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0])
}

fn is_ip(flow: &Flow) -> bool {
    matches!(flow.dl_type.get(), ETH_IP | ETH_IPV6)
}

/// Whether the hash takes the ports.
fn hashes_ports(flow: &Flow, udp: bool) -> bool {
    is_ip(flow) && (matches!(flow.nw_proto, 6 | 132) || udp && flow.nw_proto == 17)
}

fn ports(flow: &Flow, m: &mut Flow, udp: bool) {
    if hashes_ports(flow, udp) {
        m.tp_src = Be16::MAX;
        m.tp_dst = Be16::MAX;
    }
}

/// Unwildcards addresses, and the ethertype that says of which kind they are.
fn address(flow: &Flow, m: &mut Flow, src: bool, dst: bool) {
    m.dl_type = Be16::MAX;
    match flow.dl_type.get() {
        ETH_IP => {
            m.nw_src |= if src { crate::be::Be32::MAX } else { crate::be::Be32::ZERO };
            m.nw_dst |= if dst { crate::be::Be32::MAX } else { crate::be::Be32::ZERO };
        }
        ETH_IPV6 => {
            if src {
                m.ipv6_src = [0xff; 16];
            }
            if dst {
                m.ipv6_dst = [0xff; 16];
            }
        }
        _ => {}
    }
}

fn one_address(flow: &Flow, basis: u32, v4: u32, v6: [u8; 16]) -> u32 {
    let a = match flow.dl_type.get() {
        ETH_IP => v4.into(),
        ETH_IPV6 => u128::from_ne_bytes(v6),
        _ => return basis,
    };
    finish(mix(mix(basis.into(), a as u64), (a >> 64) as u64))
}

/// Both addresses, the same whichever way around.
fn l3(flow: &Flow) -> Option<u128> {
    match flow.dl_type.get() {
        ETH_IP => Some((flow.nw_src ^ flow.nw_dst).raw().into()),
        ETH_IPV6 => Some(u128::from_ne_bytes(flow.ipv6_src) ^ u128::from_ne_bytes(flow.ipv6_dst)),
        _ => None,
    }
}

impl Flow {
    /// Symmetric hash over Ethernet addresses and type, VLAN ids, IP addresses and protocol, TCP and SCTP ports.
    pub fn symmetric_hash_l4(&self, basis: u32) -> u32 {
        let mut h = mix(basis.into(), mac(self.dl_src) ^ mac(self.dl_dst));
        let vid = self
            .vlans
            .iter()
            .filter(|v| v.tci.get() & VLAN_CFI != 0)
            .fold(0, |x, v| x ^ u64::from(v.tci.get() & 0xfff));
        h = mix(h, u64::from(self.dl_type.raw()) << 16 | vid);
        if let Some(a) = l3(self) {
            h = mix(mix(h, a as u64), (a >> 64) as u64);
            let tp = if hashes_ports(self, false) { (self.tp_src ^ self.tp_dst).raw() } else { 0 };
            h = mix(h, u64::from(self.nw_proto) << 16 | u64::from(tp));
        }
        finish(h)
    }

    /// Symmetric hash over IP addresses and protocol, TCP and SCTP ports, UDP ports when `udp`. 0 for what is
    /// not IP.
    pub fn symmetric_hash_l3l4(&self, basis: u32, udp: bool) -> u32 {
        let Some(a) = l3(self) else { return 0 };
        let mut h = mix(mix(basis.into(), a as u64), (a >> 64) as u64);
        let tp = if hashes_ports(self, udp) { (self.tp_src ^ self.tp_dst).raw() } else { 0 };
        h = mix(h, u64::from(self.nw_proto) << 16 | u64::from(tp));
        finish(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::be::Be32;

    fn flow(n: u16) -> Flow {
        Flow {
            dl_src: [2, 0, 0, 0, 0, 1],
            dl_dst: [2, 0, 0, 0, 0, 2],
            dl_type: Be16::new(ETH_IP),
            nw_src: Be32::new(0x0a00_0001),
            nw_dst: Be32::new(0x0a00_0100 + u32::from(n)),
            nw_proto: 6,
            tp_src: Be16::new(1000),
            tp_dst: Be16::new(80 + n),
            ..Flow::default()
        }
    }

    fn reversed(f: &Flow) -> Flow {
        Flow {
            dl_src: f.dl_dst,
            dl_dst: f.dl_src,
            nw_src: f.nw_dst,
            nw_dst: f.nw_src,
            ipv6_src: f.ipv6_dst,
            ipv6_dst: f.ipv6_src,
            tp_src: f.tp_dst,
            tp_dst: f.tp_src,
            ..*f
        }
    }

    #[test]
    fn symmetric_hashes_ignore_the_direction() {
        for n in 0..100 {
            let f = flow(n);
            let mut six = Flow { dl_type: Be16::new(ETH_IPV6), ..f };
            six.ipv6_src[15] = n as u8;
            for f in [f, six] {
                for h in &HashFields::ALL[1..4] {
                    assert_eq!(h.hash(&f, 7), h.hash(&reversed(&f), 7), "{}", h.name());
                }
                assert_eq!(
                    HashFields::SymmetricL3.hash(&f, 7),
                    HashFields::SymmetricL3.hash(&reversed(&f), 7)
                );
            }
        }
    }

    #[test]
    fn bits_outside_the_mask_do_not_change_the_hash() {
        let f = Flow { nw_proto: 17, ..flow(3) };
        for h in HashFields::ALL {
            let mut m = Mask::none();
            h.mask(&f, &mut m);
            assert_eq!(h.hash(&f, 1), h.hash(&f.masked(&m), 1), "{}", h.name());
        }
        let mut m = Mask::none();
        HashFields::SymmetricL3L4.mask(&f, &mut m);
        assert!(m.0.tp_src.is_zero());
        HashFields::SymmetricL3L4Udp.mask(&f, &mut m);
        assert_eq!(m.0.tp_src, Be16::MAX);
    }

    #[test]
    fn the_5tuple_spreads() {
        let mut seen = [0u32; 16];
        for n in 0..1600 {
            let m = Miniflow::from_flow(&flow(n));
            seen[(hash_5tuple(&m, 0) % 16) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (60..140).contains(&n)), "{seen:?}");
    }

    #[test]
    fn the_5tuple_ignores_zero_words_that_are_there() {
        let f = Flow { tp_src: Be16::ZERO, tp_dst: Be16::ZERO, ..flow(1) };
        let a = Miniflow::from_flow(&f);
        let mut b = Miniflow { map: 0, values: [0; crate::key::PKT_WORDS] };
        for (i, &w) in f.words()[..crate::key::PKT_WORDS].iter().enumerate() {
            b.map |= 1 << i;
            b.values[i] = w;
        }
        assert_eq!(hash_5tuple(&a, 5), hash_5tuple(&b, 5));
    }

    #[test]
    fn numbers_and_names() {
        assert_eq!(HashFields::from_wire(1), Some(HashFields::SymmetricL4));
        assert_eq!(HashFields::from_wire(7), None);
        assert!(HashFields::ALL.iter().enumerate().all(|(i, h)| usize::from(h.to_wire()) == i));
    }
}

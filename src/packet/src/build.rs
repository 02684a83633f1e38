//! Builds frames from the outside in: `Builder::eth(dst, src).ipv4(ip).udp(1, 2).payload(&[]).finish()`.
//!
//! Ethertypes, protocols, lengths and checksums come out right by themselves. For tests, trace and the frames
//! the switch itself sends; not for the fast path. Threads: plain data.

use crate::checksum::{checksum, Sum};

/// What an IPv4 header holds beside what follows from the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Ip4 {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub tos: u8,
    pub ttl: u8,
    /// Flags and fragment offset as on the wire.
    pub frag: u16,
}

impl Ip4 {
    /// With a TTL of 64, no fragment.
    pub fn new(src: [u8; 4], dst: [u8; 4]) -> Ip4 {
        Ip4 { src, dst, tos: 0, ttl: 64, frag: 0 }
    }
}

/// What an IPv6 header holds beside what follows from the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Ip6 {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub tclass: u8,
    pub label: u32,
    pub hop_limit: u8,
}

impl Ip6 {
    /// With a hop limit of 64.
    pub fn new(src: [u8; 16], dst: [u8; 16]) -> Ip6 {
        Ip6 { src, dst, tclass: 0, label: 0, hop_limit: 64 }
    }
}

/// How a header's checksum is filled in.
#[derive(Clone, Copy)]
enum L4 {
    /// At this offset of the header, over pseudo header and payload.
    Pseudo { proto: u8, csum: usize },
    /// At offset 2, over the payload alone.
    Plain,
    /// CRC32c at offset 8.
    Sctp,
}

/// A frame in the making.
#[derive(Clone)]
pub struct Builder {
    bytes: Vec<u8>,
    /// Where the ethertype of what comes next belongs.
    type_at: usize,
    /// Where the IP protocol of what comes next belongs.
    proto_at: Option<usize>,
    ip4_at: Option<usize>,
    ip6_at: Option<usize>,
    l4: Option<(usize, L4)>,
    udp_at: Option<usize>,
}

impl Builder {
    /// An Ethernet header.
    pub fn eth(dst: [u8; 6], src: [u8; 6]) -> Builder {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(dst);
        bytes.extend(src);
        bytes.extend([0, 0]);
        Builder { bytes, type_at: 12, proto_at: None, ip4_at: None, ip6_at: None, l4: None, udp_at: None }
    }

    /// The ethertype, when no other call tells it.
    pub fn ethertype(mut self, t: u16) -> Builder {
        self.bytes[self.type_at..self.type_at + 2].copy_from_slice(&t.to_be_bytes());
        self
    }

    /// A VLAN tag.
    pub fn vlan(self, tpid: u16, tci: u16) -> Builder {
        let mut b = self.ethertype(tpid);
        b.bytes.extend(tci.to_be_bytes());
        b.type_at = b.bytes.len();
        b.bytes.extend([0, 0]);
        b
    }

    /// An MPLS label stack entry, of ethertype 0x8847 unless another was given.
    pub fn mpls(mut self, lse: u32) -> Builder {
        let t = [self.bytes[self.type_at], self.bytes[self.type_at + 1]];
        if t == [0, 0] {
            self = self.ethertype(0x8847);
        }
        self.bytes.extend(lse.to_be_bytes());
        self
    }

    /// An ARP packet for IPv4 over Ethernet; ethertype 0x0806 unless another was given.
    pub fn arp(mut self, op: u16, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4]) -> Builder {
        if self.bytes[self.type_at..self.type_at + 2] == [0, 0] {
            self = self.ethertype(0x0806);
        }
        self.bytes.extend([0, 1, 8, 0, 6, 4]);
        self.bytes.extend(op.to_be_bytes());
        self.bytes.extend(sha);
        self.bytes.extend(spa);
        self.bytes.extend(tha);
        self.bytes.extend(tpa);
        self
    }

    /// An IPv4 header.
    pub fn ipv4(self, ip: Ip4) -> Builder {
        let under_mpls = matches!(self.bytes[self.type_at..self.type_at + 2], [0x88, 0x47 | 0x48]);
        let mut b = if under_mpls { self } else { self.ethertype(0x0800) };
        let at = b.bytes.len();
        b.ip4_at = Some(at);
        b.proto_at = Some(at + 9);
        b.bytes.extend([0x45, ip.tos, 0, 0, 0, 0]);
        b.bytes.extend(ip.frag.to_be_bytes());
        b.bytes.extend([ip.ttl, 0, 0, 0]);
        b.bytes.extend(ip.src);
        b.bytes.extend(ip.dst);
        b
    }

    /// An IPv6 header.
    pub fn ipv6(self, ip: Ip6) -> Builder {
        let mut b = self.ethertype(0x86dd);
        let at = b.bytes.len();
        b.ip6_at = Some(at);
        b.proto_at = Some(at + 6);
        let first = 6 << 28 | u32::from(ip.tclass) << 20 | ip.label & 0xfffff;
        b.bytes.extend(first.to_be_bytes());
        b.bytes.extend([0, 0, 0, ip.hop_limit]);
        b.bytes.extend(ip.src);
        b.bytes.extend(ip.dst);
        b
    }

    /// An IPv6 fragment header with the offset field as on the wire.
    pub fn ipv6_fragment(mut self, offset: u16) -> Builder {
        self = self.proto(44);
        self.proto_at = Some(self.bytes.len());
        self.bytes.extend([0, 0]);
        self.bytes.extend(offset.to_be_bytes());
        self.bytes.extend([0, 0, 0, 1]);
        self
    }

    /// The IP protocol, when no other call tells it.
    pub fn proto(mut self, proto: u8) -> Builder {
        if let Some(at) = self.proto_at {
            self.bytes[at] = proto;
        }
        self
    }

    fn l4(mut self, proto: u8, kind: L4, header: &[u8]) -> Builder {
        self = self.proto(proto);
        self.l4 = Some((self.bytes.len(), kind));
        self.bytes.extend(header);
        self
    }

    /// A TCP header.
    pub fn tcp(self, src: u16, dst: u16, flags: u16) -> Builder {
        let mut h = [0u8; 20];
        h[..2].copy_from_slice(&src.to_be_bytes());
        h[2..4].copy_from_slice(&dst.to_be_bytes());
        h[12..14].copy_from_slice(&(0x5000 | flags & 0xfff).to_be_bytes());
        self.l4(6, L4::Pseudo { proto: 6, csum: 16 }, &h)
    }

    /// A UDP header.
    pub fn udp(mut self, src: u16, dst: u16) -> Builder {
        let mut h = [0u8; 8];
        h[..2].copy_from_slice(&src.to_be_bytes());
        h[2..4].copy_from_slice(&dst.to_be_bytes());
        self.udp_at = Some(self.bytes.len());
        self.l4(17, L4::Pseudo { proto: 17, csum: 6 }, &h)
    }

    /// An SCTP header.
    pub fn sctp(self, src: u16, dst: u16) -> Builder {
        let mut h = [0u8; 12];
        h[..2].copy_from_slice(&src.to_be_bytes());
        h[2..4].copy_from_slice(&dst.to_be_bytes());
        self.l4(132, L4::Sctp, &h)
    }

    /// An ICMP header.
    pub fn icmp(self, kind: u8, code: u8) -> Builder {
        self.l4(1, L4::Plain, &[kind, code, 0, 0, 0, 0, 0, 0])
    }

    /// An IGMP header.
    pub fn igmp(self, kind: u8, code: u8, group: [u8; 4]) -> Builder {
        let [a, b, c, d] = group;
        self.l4(2, L4::Plain, &[kind, code, 0, 0, a, b, c, d])
    }

    /// An ICMPv6 header.
    pub fn icmpv6(self, kind: u8, code: u8) -> Builder {
        self.l4(58, L4::Pseudo { proto: 58, csum: 2 }, &[kind, code, 0, 0, 0, 0, 0, 0])
    }

    /// A neighbour solicitation (135) or advertisement (136) with the options whose address is not zero.
    pub fn nd(self, kind: u8, target: [u8; 16], sll: [u8; 6], tll: [u8; 6]) -> Builder {
        let mut b = self.icmpv6(kind, 0);
        b.bytes.extend(target);
        for (option, mac) in [(1, sll), (2, tll)] {
            if mac != [0; 6] {
                b.bytes.extend([option, 1]);
                b.bytes.extend(mac);
            }
        }
        b
    }

    /// Bytes as they are.
    pub fn payload(mut self, bytes: &[u8]) -> Builder {
        self.bytes.extend(bytes);
        self
    }

    /// Zeros until the frame has `len` bytes, counted as payload of the innermost header.
    pub fn pad_to(mut self, len: usize) -> Builder {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self
    }

    /// The frame, with lengths and checksums filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let n = self.bytes.len();
        if let Some(at) = self.udp_at {
            self.put16(at + 4, n - at);
        }
        if let Some(at) = self.ip4_at {
            self.put16(at + 2, n - at);
            let c = checksum(&self.bytes[at..at + 20]);
            self.put16(at + 10, c.into());
        }
        if let Some(at) = self.ip6_at {
            self.put16(at + 4, n - at - 40);
        }
        match self.l4 {
            Some((at, L4::Plain)) => {
                let c = checksum(&self.bytes[at..]);
                self.put16(at + 2, c.into());
            }
            Some((at, L4::Pseudo { proto, csum })) => {
                let sum = self.pseudo(proto, n - at).bytes(&self.bytes[at..]);
                let c = if proto == 17 { sum.finish_udp() } else { sum.finish() };
                self.put16(at + csum, c.into());
            }
            Some((at, L4::Sctp)) => {
                let c = crc32c(&self.bytes[at..]);
                self.bytes[at + 8..at + 12].copy_from_slice(&c.to_le_bytes());
            }
            None => {}
        }
        self.bytes
    }

    fn put16(&mut self, at: usize, v: usize) {
        self.bytes[at..at + 2].copy_from_slice(&(v as u16).to_be_bytes());
    }

    fn pseudo(&self, proto: u8, len: usize) -> Sum {
        if let Some(h) = self.ip4_at.and_then(|at| crate::headers::Ipv4::at(&self.bytes, at)) {
            return Sum::pseudo_v4(h.src(), h.dst(), proto, len as u16);
        }
        match self.ip6_at.and_then(|at| crate::headers::Ipv6::at(&self.bytes, at)) {
            Some(h) => Sum::pseudo_v6(h.src(), h.dst(), proto, len as u32),
            None => Sum::ZERO,
        }
    }
}

/// CRC32c (Castagnoli) as SCTP has it, bit by bit.
pub fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &b in data {
        crc ^= u32::from(b);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn lengths_and_checksums_come_out_right() {
        let f = Builder::eth(A, B)
            .vlan(0x8100, 5)
            .ipv4(Ip4::new([10, 0, 0, 1], [10, 0, 0, 2]))
            .udp(1, 2)
            .payload(b"abc")
            .finish();
        assert_eq!(f.len(), 18 + 20 + 8 + 3);
        assert_eq!(f[12..18], [0x81, 0, 0, 5, 8, 0]);
        assert_eq!(checksum(&f[18..38]), 0);
        assert_eq!(f[18 + 9], 17);
        assert_eq!(u16::from_be_bytes([f[42], f[43]]), 11);
        let whole = Sum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 17, 11).bytes(&f[38..]);
        assert_eq!(whole.finish(), 0);
    }

    #[test]
    fn ipv6_with_a_fragment_header() {
        let f = Builder::eth(A, B).ipv6(Ip6::new([1; 16], [2; 16])).ipv6_fragment(1).tcp(1, 2, 2).finish();
        assert_eq!((f[14 + 6], f[54]), (44, 6));
        assert_eq!(u16::from_be_bytes([f[18], f[19]]), 28);
    }

    #[test]
    fn crc32c_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

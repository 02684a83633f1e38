//! Tests of packet parsing: a slow twin that reads one field at a time, and frames of every header at every
//! length.

use super::*;
use crate::be::{Be16, Be32};
use crate::key::{Vlan, VLAN_CFI};
use packet::build::{Builder, Ip4, Ip6};
use proptest::prelude::*;

const A: [u8; 6] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];
const B: [u8; 6] = [0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Reads big-endian numbers, `None` past the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from(self.u8(at)?) << 8 | u16::from(self.u8(at + 1)?))
    }
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from(self.u16(at)?) << 16 | u32::from(self.u16(at + 2)?))
    }
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }
    fn has(&self, n: usize) -> Option<()> {
        (self.0.len() >= n).then_some(())
    }
}

/// The obvious parser. `None` ends it early; what was set stays.
fn slow(frame: &[u8], in_port: u32, vlan_limit: usize) -> Flow {
    let mut f = Flow { in_port, ..Flow::default() };
    slow_eth(&mut f, frame, vlan_limit);
    f
}

fn slow_eth(f: &mut Flow, frame: &[u8], vlan_limit: usize) -> Option<()> {
    let p = Bytes(frame);
    p.has(14)?;
    f.dl_dst = p.bytes(0)?;
    f.dl_src = p.bytes(6)?;
    let (mut at, mut t) = (14, p.u16(12)?);
    for v in f.vlans.iter_mut().take(vlan_limit) {
        if (t == 0x8100 || t == 0x88a8) && p.has(at + 4).is_some() {
            *v = Vlan { tpid: t.into(), tci: (p.u16(at)? | VLAN_CFI).into() };
            t = p.u16(at + 2)?;
            at += 4;
        } else {
            break;
        }
    }
    if t < 0x600 {
        t = 0x5ff;
        if p.bytes(at) == Some([0xaa, 0xaa, 3, 0, 0, 0]) && p.u16(at + 6).is_some_and(|t| t >= 0x600) {
            t = p.u16(at + 6)?;
            at += 8;
        }
    }
    f.dl_type = t.into();
    let rest = &frame[at..];
    match t {
        0x0800 => slow_ipv4(f, rest),
        0x86dd => slow_ipv6(f, rest),
        0x0806 | 0x8035 => slow_arp(f, &Bytes(rest)),
        0x8847 | 0x8848 => {
            for i in 0..3 {
                f.mpls[i] = Bytes(rest).u32(4 * i)?.into();
                if f.mpls[i].get() & 0x100 != 0 {
                    break;
                }
            }
            Some(())
        }
        _ => Some(()),
    }
}

fn slow_arp(f: &mut Flow, p: &Bytes) -> Option<()> {
    p.has(28)?;
    if (p.u16(0)?, p.u16(2)?, p.u8(4)?, p.u8(5)?) == (1, 0x800, 6, 4) {
        f.nw_proto = u8::try_from(p.u16(6)?).unwrap_or(0);
        f.arp_sha = p.bytes(8)?;
        f.nw_src = p.u32(14)?.into();
        f.arp_tha = p.bytes(18)?;
        f.nw_dst = p.u32(24)?.into();
    }
    Some(())
}

fn slow_ipv4(f: &mut Flow, rest: &[u8]) -> Option<()> {
    let p = Bytes(rest);
    p.has(20)?;
    let header = usize::from(p.u8(0)? % 16) * 4;
    let total = usize::from(p.u16(2)?);
    if header < 20 || header > rest.len() || total < header || total > rest.len() {
        return None;
    }
    f.nw_src = p.u32(12)?.into();
    f.nw_dst = p.u32(16)?.into();
    f.nw_proto = p.u8(9)?;
    f.nw_tos = p.u8(1)?;
    f.nw_ttl = p.u8(8)?;
    let (more, offset) = (p.u16(6)? >> 13 & 1, p.u16(6)? % 8192);
    if offset > 0 {
        f.nw_frag = 3;
        return None;
    }
    f.nw_frag = more as u8;
    slow_l4(f, &rest[header..total])
}

fn slow_ipv6(f: &mut Flow, rest: &[u8]) -> Option<()> {
    let p = Bytes(rest);
    p.has(40)?;
    let end = 40 + usize::from(p.u16(4)?);
    p.has(end)?;
    f.ipv6_src = p.bytes(8)?;
    f.ipv6_dst = p.bytes(24)?;
    let p = Bytes(&rest[..end]);
    let (mut at, mut next, mut frag) = (40, p.u8(6)?, 0);
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        p.has(at + 8)?;
        let len = usize::from(p.u8(at + 1)?);
        let size = match next {
            44 => 8,
            51 => 4 * (len + 2),
            _ => 8 * (len + 1),
        };
        if next == 44 && p.u16(at + 2)? != 0 {
            frag = 1;
            if p.u16(at + 2)? >> 3 != 0 {
                frag = 3;
                next = 44;
                break;
            }
        }
        next = p.u8(at)?;
        at += size;
        p.has(at)?;
    }
    f.nw_proto = next;
    f.nw_frag = frag;
    f.nw_tos = (p.u16(0)? >> 4) as u8;
    f.ipv6_label = (p.u32(0)? & 0xfffff).into();
    f.nw_ttl = p.u8(7)?;
    if frag == 3 {
        return None;
    }
    slow_l4(f, &rest[at..end])
}

fn slow_l4(f: &mut Flow, l4: &[u8]) -> Option<()> {
    let p = Bytes(l4);
    match f.nw_proto {
        6 => {
            p.has(20)?;
            let header = usize::from(p.u8(12)? >> 4) * 4;
            if header < 20 {
                return None;
            }
            p.has(header)?;
            f.tcp_flags = (p.u16(12)? & 0xfff).into();
        }
        17 => p.has(8)?,
        132 => p.has(12)?,
        1 | 2 | 58 => {
            p.has(8)?;
            f.tp_src = u16::from(p.u8(0)?).into();
            f.tp_dst = u16::from(p.u8(1)?).into();
            if f.nw_proto == 2 {
                f.igmp_group_ip4 = p.u32(4)?.into();
            }
            if f.nw_proto == 58 && matches!(p.u8(0)?, 135 | 136) && p.u8(1)? == 0 {
                slow_nd(f, &p);
            }
            return None;
        }
        _ => return None,
    }
    f.tp_src = p.u16(0)?.into();
    f.tp_dst = p.u16(2)?.into();
    Some(())
}

fn slow_nd(f: &mut Flow, p: &Bytes) -> Option<()> {
    let target = p.bytes(8)?;
    let (mut at, mut macs) = (24, [[0u8; 6]; 2]);
    while let (Some(kind), Some(len)) = (p.u8(at), p.u8(at + 1)) {
        let len = usize::from(len) * 8;
        if len == 0 || p.has(at + len).is_none() {
            break;
        }
        if len == 8 && (kind == 1 || kind == 2) {
            let m = &mut macs[usize::from(kind) - 1];
            if *m != [0; 6] {
                return None;
            }
            *m = p.bytes(at + 2)?;
        }
        at += len;
    }
    f.nd_target = target;
    [f.arp_sha, f.arp_tha] = macs;
    Some(())
}

fn samples() -> Vec<Vec<u8>> {
    let eth = || Builder::eth(B, A);
    let v4 = || eth().ipv4(Ip4 { tos: 0x28, ..Ip4::new([10, 0, 0, 1], [11, 2, 3, 4]) });
    let v6 = || eth().ipv6(Ip6 { label: 0x12345, tclass: 0x28, ..Ip6::new(V6, [0xfe; 16]) });
    let frag = |frag| eth().ipv4(Ip4 { frag, ..Ip4::new([1, 1, 1, 1], [2, 2, 2, 2]) });
    vec![
        v4().tcp(1000, 80, 0x12).payload(b"hello").finish(),
        v4().tcp(1000, 80, 0xfff).finish(),
        v4().udp(1000, 53).payload(&[7; 30]).finish(),
        v4().sctp(5, 6).finish(),
        v4().icmp(8, 1).finish(),
        v4().igmp(0x16, 0, [239, 1, 2, 3]).finish(),
        v4().proto(50).payload(&[1; 8]).finish(),
        v4().icmpv6(135, 0).payload(&[3; 24]).finish(),
        frag(0x2000).udp(1, 2).finish(),
        frag(0x0010).udp(1, 2).finish(),
        frag(0x4000).udp(1, 2).finish(),
        v6().tcp(1, 2, 0x11).finish(),
        v6().udp(1, 2).finish(),
        v6().icmpv6(128, 0).finish(),
        v6().icmp(8, 0).finish(),
        v6().nd(135, V6, A, [0; 6]).finish(),
        v6().nd(136, V6, [0; 6], B).finish(),
        v6().nd(135, V6, A, B).finish(),
        v6().nd(135, V6, A, B).payload(&[1, 1, 9, 9, 9, 9, 9, 9]).finish(),
        v6().nd(135, V6, A, B).payload(&[5, 0, 9, 9, 9, 9, 9, 9]).finish(),
        v6().ipv6_fragment(1).udp(1, 2).finish(),
        v6().ipv6_fragment(8).udp(1, 2).finish(),
        v6().ipv6_fragment(0).udp(1, 2).finish(),
        v6().proto(0).payload(&[17, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0]).finish(),
        v6().proto(51).payload(&[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).payload(&[0; 24]).finish(),
        v6().proto(60).payload(&[43, 0, 0, 0, 0, 0, 0, 0, 17, 1]).payload(&[4; 40]).finish(),
        eth().vlan(0x8100, 0x6064).ipv4(Ip4::new([1; 4], [2; 4])).udp(3, 4).finish(),
        eth().vlan(0x88a8, 0x6064).vlan(0x8100, 200).ipv4(Ip4::new([1; 4], [2; 4])).udp(3, 4).finish(),
        eth().vlan(0x88a8, 1).vlan(0x8100, 2).vlan(0x8100, 3).ethertype(0x800).finish(),
        eth().arp(1, A, [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]).finish(),
        eth().arp(256, A, [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]).finish(),
        eth().ethertype(0x8035).arp(3, A, [0; 4], A, [0; 4]).finish(),
        eth().mpls(100 << 12 | 0x140).payload(&[9; 30]).finish(),
        eth().mpls(100 << 12).mpls(200 << 12 | 0x1ff).payload(&[9; 30]).finish(),
        eth().ethertype(0x8848).mpls(1).mpls(2).mpls(3).mpls(0x104).payload(&[9; 30]).finish(),
        eth().ethertype(20).payload(&[0x42, 0x42, 3]).payload(&[0; 20]).finish(),
        eth().ethertype(30).payload(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45]).payload(&[0; 29]).finish(),
        eth().ethertype(30).payload(&[0xaa, 0xaa, 3, 0, 0, 1, 8, 0]).payload(&[0; 29]).finish(),
        eth().ethertype(0x88cc).payload(&[2, 7, 4]).finish(),
        v4().udp(1000, 53).finish().into_iter().chain([0; 18]).collect(),
    ]
}

fn check(frame: &[u8], vlan_limit: u8) {
    let md = PktMetadata::new(7).with_vlan_limit(vlan_limit);
    let (fast, ofs) = extract_flow(frame, &md);
    let slow = slow(frame, 7, vlan_limit.into());
    assert_eq!(fast, slow, "{frame:02x?}");
    for o in [ofs.l2_5, ofs.l3, ofs.l4] {
        assert!(o == NO_OFFSET || usize::from(o) <= frame.len(), "{ofs:?} of {} bytes", frame.len());
    }
}

#[test]
fn every_header_at_every_length() {
    for s in samples() {
        for n in 0..=s.len() {
            (0..=2).for_each(|limit| check(&s[..n], limit));
        }
    }
}

#[test]
fn every_byte_of_every_header_changed() {
    for s in samples() {
        for at in 12..s.len().min(80) {
            for v in [0, 1, 4, 5, 6, 17, 44, 51, 58, 60, 0x45, 0x60, 0x81, 0xff] {
                let mut f = s.clone();
                f[at] = v;
                check(&f, 2);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn random_frames_parse_as_the_slow_twin_says(
        i in 0usize..40,
        edits in prop::collection::vec((12usize..90, any::<u8>()), 0..6),
        cut in 0usize..130,
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let all = samples();
        let mut f = all[i % all.len()].clone();
        for (at, v) in edits {
            if let Some(b) = f.get_mut(at) {
                *b = v;
            }
        }
        f.truncate(cut.max(10));
        f.extend(tail);
        check(&f, (i % 3) as u8);
    }

    #[test]
    fn noise_parses_as_the_slow_twin_says(f in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..6) {
        let mut f = f;
        if f.len() > 14 {
            let t: [u8; 2] = [[8, 0], [0x86, 0xdd], [8, 6], [0x88, 0x47], [0x81, 0], [0, 9]][kind];
            f[12..14].copy_from_slice(&t);
        }
        check(&f, 2);
    }
}

#[test]
fn padding_is_never_seen() {
    // Two frames that differ only after the IP packet's end have one key.
    let short = Builder::eth(B, A).ipv4(Ip4::new([1; 4], [2; 4])).proto(17).finish();
    let mut a = short.clone();
    let mut b = short;
    a.extend([0; 26]);
    b.extend([0xff; 26]);
    let md = PktMetadata::new(1);
    assert_eq!(extract_flow(&a, &md), extract_flow(&b, &md));
    assert_eq!(extract_flow(&a, &md).0.tp_src, Be16::ZERO);
    assert_eq!(extract_flow(&a, &md).1.l2_pad, 26);
}

#[test]
fn frames_of_a_kind_have_one_map() {
    let map = |f: &[u8]| {
        let mut m = Miniflow::EMPTY;
        extract(f, &PktMetadata::new(1), &mut m);
        m.map
    };
    let f = |a: u8, sp| Builder::eth(B, A).ipv4(Ip4::new([a; 4], [0; 4])).udp(sp, 0).finish();
    assert_eq!(map(&f(0, 0)), map(&f(9, 9)));
}

#[test]
fn metadata_goes_first_and_is_kept() {
    let mut md = Flow { in_port: 3, recirc_id: 9, pkt_mark: 5, ct_state: 0x21, ..Flow::default() };
    md.tun_id = 7u64.into();
    md.tun_dst = Be32::new(0x0102_0304);
    md.ct_label[15] = 1;
    md.conj_id = 4;
    let frame = &samples()[0];
    let (f, _) = extract_flow(frame, &PktMetadata::from_flow(&md));
    let plain = slow(frame, 3, 1);
    let mut want = plain;
    want.words_mut()[..META_WORDS].copy_from_slice(&md.words()[..META_WORDS]);
    assert_eq!(f, want);
    assert_eq!(PktMetadata::from_flow(&Flow::default()).map, PktMetadata::new(0).map);
}

#[test]
fn offsets() {
    let of = |f: &[u8]| extract_flow(f, &PktMetadata::new(1).with_vlan_limit(2)).1;
    let s = samples();
    assert_eq!(of(&s[0]), Offsets { l3: 14, l4: 34, ..Offsets::NONE });
    assert_eq!(of(&s[27]), Offsets { l3: 22, l4: 42, ..Offsets::NONE });
    assert_eq!(of(&s[33]), Offsets { l2_5: 14, l3: 22, ..Offsets::NONE });
    assert_eq!(of(&s[0][..13]), Offsets::NONE);
}

#[test]
fn tcp_flags_are_found_in_the_packed_form() {
    let mut m = Miniflow::EMPTY;
    extract(&samples()[0], &PktMetadata::new(1), &mut m);
    assert_eq!(tcp_flags(&m), 0x12);
    extract(&samples()[2], &PktMetadata::new(1), &mut m);
    assert_eq!(tcp_flags(&m), 0);
}

#[test]
fn composed_frames_have_their_flow() {
    for s in samples() {
        let md = PktMetadata::new(0).with_vlan_limit(2);
        let (f, _) = extract_flow(&s, &md);
        let skip = f.dl_type.get() == 0x8100;
        // A network header that was not understood cannot be made again, nor a stack deeper than three.
        if !skip && (f.nw_ttl != 0 || !matches!(f.dl_type.get(), 0x0800 | 0x86dd | 0x8848)) {
            let mut again = extract_flow(&crate::compose(&f, 0), &md).0;
            if f.nw_frag & FRAG_LATER != 0 && f.nw_proto == 44 {
                again.nw_proto = 44;
            }
            assert_eq!(again, f, "{s:02x?}");
        }
    }
}

//! Finishes in software what a local sender left to its device: checksums and segmentation.
//!
//! A frame from a veth peer or a virtual machine's tap may carry a TCP or UDP checksum of which only
//! the pseudo header is summed, and may be a 64 KiB train of segments. Behind a DPDK port nobody
//! would complete them, so they are completed where they enter the switch.
//!
//! Neighbours: `system`. Threads: pure functions.

use infra::packet_socket::{Offload, Received};
use packet::Packet;
use std::collections::VecDeque;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Beside the type: the sender uses ECN, the first segment alone carries CWR.
const GSO_ECN: u8 = 0x80;

/// Longest frame a [`Packet`] holds.
const MAX_PACKET: usize = 65_000;
/// Most segments one frame becomes: 64 KiB in the smallest segments that IPv4 hosts must accept.
const MAX_SEGMENTS: usize = 128;

const IP: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The frame cannot be delivered: too long, or in a form that cannot be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinishable;

/// Turns a received frame into complete packets, in order, behind what `out` holds.
pub fn finish(r: &Received<'_>, out: &mut VecDeque<Packet>) -> Result<(), Unfinishable> {
    if r.truncated {
        return Err(Unfinishable);
    }
    if r.offload.gso_type & !GSO_ECN != GSO_NONE {
        return segment(r, out);
    }
    let tag = if r.vlan.is_some() { 4 } else { 0 };
    if r.data.len() + tag > MAX_PACKET || (tag > 0 && r.data.len() < 12) {
        return Err(Unfinishable);
    }
    let mut p = Packet::with_room(r.data.len() + tag);
    put_tagged(p.data_mut(), r.data, r.vlan);
    if r.offload.flags & NEEDS_CSUM != 0 {
        complete_checksum(&mut p.data_mut()[tag..], &r.offload)?;
    }
    out.push_back(p);
    Ok(())
}

/// Copies `frame` to `to` with the VLAN tag put behind the addresses.
fn put_tagged(to: &mut [u8], frame: &[u8], vlan: Option<(u16, u16)>) {
    let Some((tpid, tci)) = vlan else { return to.copy_from_slice(frame) };
    to[..12].copy_from_slice(&frame[..12]);
    to[12..14].copy_from_slice(&tpid.to_be_bytes());
    to[14..16].copy_from_slice(&tci.to_be_bytes());
    to[16..].copy_from_slice(&frame[12..]);
}

/// Sums big-endian 16-bit words, not yet folded or complemented (RFC 1071).
fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut chunks = bytes.chunks_exact(2);
    let s = chunks.by_ref().fold(start, |s, c| s + u64::from(u16::from_be_bytes([c[0], c[1]])));
    chunks.remainder().first().map_or(s, |&b| s + (u64::from(b) << 8))
}

fn fold(mut s: u64) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

/// Completes the checksum of `frame`, which starts at an offset that the tag (at the front of the
/// same buffer) does not shift: the caller passes the bytes from which `csum_start` counts.
fn complete_checksum(frame: &mut [u8], o: &Offload) -> Result<(), Unfinishable> {
    let start = usize::from(o.csum_start);
    let at = start + usize::from(o.csum_offset);
    if start < 14 || frame.len() < at + 2 {
        return Err(Unfinishable);
    }
    // The field holds the pseudo header's sum, so it takes part. UDP's zero would mean "none"; for
    // TCP both zeros are the same.
    let c = match fold(sum(&frame[start..], 0)) {
        0 => 0xffff,
        c => c,
    };
    frame[at..at + 2].copy_from_slice(&c.to_be_bytes());
    Ok(())
}

/// Where the headers of a frame to be segmented are.
struct Headers {
    l3: usize,
    l4: usize,
    payload: usize,
    v6: bool,
    proto: u8,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn headers(f: &[u8]) -> Option<Headers> {
    let mut l3 = 14;
    let mut kind = be16(f, 12)?;
    while matches!(kind, 0x8100 | 0x88a8) && l3 < 22 {
        kind = be16(f, l3 + 2)?;
        l3 += 4;
    }
    let (l4, proto) = match kind {
        IP => {
            let ihl = usize::from(f.get(l3)? & 0xf) * 4;
            let (whole, proto) = (be16(f, l3 + 6)? & 0x3fff == 0, *f.get(l3 + 9)?);
            (ihl >= 20 && whole).then_some((l3 + ihl, proto))?
        }
        IPV6 => v6_transport(f, l3)?,
        _ => return None,
    };
    let payload = match proto {
        TCP => {
            let len = usize::from(f.get(l4 + 12)? >> 4) * 4;
            (len >= 20).then_some(l4 + len)?
        }
        UDP => l4 + 8,
        _ => return None,
    };
    (payload <= f.len()).then_some(Headers { l3, l4, payload, v6: kind == IPV6, proto })
}

/// Skips IPv6 hop-by-hop, routing and destination headers (RFC 8200 §4).
fn v6_transport(f: &[u8], l3: usize) -> Option<(usize, u8)> {
    let (mut at, mut next) = (l3 + 40, *f.get(l3 + 6)?);
    for _ in 0..8 {
        match next {
            0 | 43 | 60 => {
                next = *f.get(at)?;
                at += 8 + usize::from(*f.get(at + 1)?) * 8;
            }
            _ => return Some((at, next)),
        }
    }
    None
}

fn segment(r: &Received<'_>, out: &mut VecDeque<Packet>) -> Result<(), Unfinishable> {
    let f = r.data;
    let h = headers(f).ok_or(Unfinishable)?;
    let fits = match r.offload.gso_type & !GSO_ECN {
        GSO_TCPV4 => h.proto == TCP && !h.v6,
        GSO_TCPV6 => h.proto == TCP && h.v6,
        GSO_UDP_L4 => h.proto == UDP,
        _ => false,
    };
    let payload = &f[h.payload..];
    let size = usize::from(r.offload.gso_size);
    if !fits || size == 0 || payload.len().div_ceil(size) > MAX_SEGMENTS {
        return Err(Unfinishable);
    }
    let tag = if r.vlan.is_some() { 4 } else { 0 };
    let n = payload.len().div_ceil(size).max(1);
    if h.payload + size + tag > MAX_PACKET {
        return Err(Unfinishable);
    }
    let mut buf = Vec::with_capacity(h.payload + size);
    for i in 0..n {
        let part = &payload[i * size..((i + 1) * size).min(payload.len())];
        buf.clear();
        buf.extend_from_slice(&f[..h.payload]);
        buf.extend_from_slice(part);
        fix_headers(&mut buf, &h, i, i + 1 == n, i * size);
        let mut p = Packet::with_room(buf.len() + tag);
        put_tagged(p.data_mut(), &buf, r.vlan);
        out.push_back(p);
    }
    Ok(())
}

/// Makes the headers of segment `i` those of a frame of its own. `offset` is where its payload
/// starts in the train's.
fn fix_headers(f: &mut [u8], h: &Headers, i: usize, last: bool, offset: usize) {
    let l4_len = f.len() - h.l4;
    let mut pseudo = u64::from(h.proto) + l4_len as u64;
    if h.v6 {
        let len = (f.len() - h.l3 - 40) as u16;
        f[h.l3 + 4..h.l3 + 6].copy_from_slice(&len.to_be_bytes());
        pseudo = sum(&f[h.l3 + 8..h.l3 + 40], pseudo);
    } else {
        let len = (f.len() - h.l3) as u16;
        f[h.l3 + 2..h.l3 + 4].copy_from_slice(&len.to_be_bytes());
        let id = u16::from_be_bytes([f[h.l3 + 4], f[h.l3 + 5]]).wrapping_add(i as u16);
        f[h.l3 + 4..h.l3 + 6].copy_from_slice(&id.to_be_bytes());
        f[h.l3 + 10..h.l3 + 12].fill(0);
        let c = fold(sum(&f[h.l3..h.l4], 0));
        f[h.l3 + 10..h.l3 + 12].copy_from_slice(&c.to_be_bytes());
        pseudo = sum(&f[h.l3 + 12..h.l3 + 20], pseudo);
    }
    let l4 = &mut f[h.l4..];
    let at = if h.proto == TCP {
        let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add(offset as u32);
        l4[4..8].copy_from_slice(&seq.to_be_bytes());
        const FIN_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        if !last {
            l4[13] &= !FIN_PSH;
        }
        if i > 0 {
            l4[13] &= !CWR;
        }
        16
    } else {
        l4[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        6
    };
    l4[at..at + 2].fill(0);
    let c = match fold(sum(l4, pseudo)) {
        0 => 0xffff,
        c => c,
    };
    l4[at..at + 2].copy_from_slice(&c.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eth + IPv4 or IPv6 + TCP or UDP with `payload`; the checksum field holds the pseudo header's.
    fn frame(v6: bool, proto: u8, payload: &[u8]) -> (Vec<u8>, usize) {
        let l4_len = payload.len() + if proto == TCP { 20 } else { 8 };
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        f.extend(if v6 { IPV6 } else { IP }.to_be_bytes());
        if v6 {
            f.extend([0x60, 0, 0, 0]);
            f.extend((l4_len as u16).to_be_bytes());
            f.extend([proto, 64]);
            f.extend(1..=32);
        } else {
            f.extend([0x45, 0]);
            f.extend((20 + l4_len as u16).to_be_bytes());
            f.extend([0xff, 0xff, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let l4 = f.len();
        if proto == TCP {
            f.extend([0x10, 0, 0x20, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0x50, 0x99, 1, 0, 0, 0, 0, 0]);
        } else {
            f.extend([0x10, 0, 0x20, 0]);
            f.extend((l4_len as u16).to_be_bytes());
            f.extend([0, 0]);
        }
        f.extend(payload);
        let part = !fold(pseudo(&f, l4, v6, proto));
        let at = l4 + if proto == TCP { 16 } else { 6 };
        f[at..at + 2].copy_from_slice(&part.to_be_bytes());
        (f, l4)
    }

    fn pseudo(f: &[u8], l4: usize, v6: bool, proto: u8) -> u64 {
        let addresses = if v6 { &f[22..54] } else { &f[26..34] };
        sum(addresses, u64::from(proto) + (f.len() - l4) as u64)
    }

    fn received<'a>(f: &'a [u8], l4: usize, proto: u8, gso: u8, size: u16) -> Received<'a> {
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: gso,
            gso_size: size,
            csum_start: l4 as u16,
            csum_offset: if proto == TCP { 16 } else { 6 },
        };
        Received { data: f, vlan: None, offload, truncated: false }
    }

    fn run(r: &Received<'_>) -> Result<Vec<Vec<u8>>, Unfinishable> {
        let mut out = VecDeque::new();
        finish(r, &mut out)?;
        Ok(out.iter().map(|p| p.data().to_vec()).collect())
    }

    /// A receiver's check: everything sums to zero.
    fn assert_valid(f: &[u8], l4: usize, v6: bool, proto: u8) {
        assert_eq!(fold(sum(&f[l4..], pseudo(f, l4, v6, proto))), 0, "L4 checksum");
        if v6 {
            assert_eq!(usize::from(be16(f, 18).unwrap()), f.len() - 54);
        } else {
            assert_eq!(fold(sum(&f[14..34], 0)), 0, "IP checksum");
            assert_eq!(usize::from(be16(f, 16).unwrap()), f.len() - 14);
        }
    }

    #[test]
    fn checksums_are_completed() {
        for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
            for len in [0, 1, 2, 999] {
                let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let (mut f, l4) = frame(v6, proto, &payload);
                if !v6 {
                    let c = fold(sum(&f[14..34], 0));
                    f[24..26].copy_from_slice(&c.to_be_bytes());
                }
                let got = run(&received(&f, l4, proto, GSO_NONE, 0)).unwrap();
                assert_eq!(got.len(), 1);
                assert_valid(&got[0], l4, v6, proto);
            }
        }
    }

    #[test]
    fn trains_become_segments() {
        let payload: Vec<u8> = (0..3500u32).map(|i| (i * 7) as u8).collect();
        for (v6, proto, gso) in [
            (false, TCP, GSO_TCPV4 | GSO_ECN),
            (true, TCP, GSO_TCPV6),
            (false, UDP, GSO_UDP_L4),
            (true, UDP, GSO_UDP_L4),
        ] {
            let (f, l4) = frame(v6, proto, &payload);
            let got = run(&received(&f, l4, proto, gso, 1000)).unwrap();
            assert_eq!(got.len(), 4);
            let head = l4 + if proto == TCP { 20 } else { 8 };
            let mut joined: Vec<u8> = Vec::new();
            for (i, s) in got.iter().enumerate() {
                assert_valid(s, l4, v6, proto);
                joined.extend(&s[head..]);
                if proto == TCP {
                    let seq = u32::from_be_bytes(s[l4 + 4..l4 + 8].try_into().unwrap());
                    assert_eq!(seq, 0xffff_ff00u32.wrapping_add(i as u32 * 1000));
                    let flags = [0x90, 0x10, 0x10, 0x19][i];
                    assert_eq!(s[l4 + 13], flags, "CWR in the first, FIN and PSH in the last");
                }
                if !v6 {
                    assert_eq!(be16(s, 18), Some(0xffffu16.wrapping_add(i as u16)));
                }
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn a_tag_goes_back_in() {
        let (mut f, l4) = frame(false, UDP, b"payload");
        let c = fold(sum(&f[14..34], 0));
        f[24..26].copy_from_slice(&c.to_be_bytes());
        let mut r = received(&f, l4, UDP, GSO_NONE, 0);
        r.vlan = Some((0x8100, 0x2064));
        let got = run(&r).unwrap().remove(0);
        assert_eq!(got[12..16], [0x81, 0, 0x20, 0x64]);
        let untagged = [&got[..12], &got[16..]].concat();
        assert_valid(&untagged, l4, false, UDP);
        r.offload.gso_type = GSO_UDP_L4;
        r.offload.gso_size = 4;
        let got = run(&r).unwrap();
        assert_eq!((got.len(), &got[1][12..16]), (2, &[0x81, 0, 0x20, 0x64][..]));
    }

    #[test]
    fn what_cannot_be_finished_is_refused() {
        let (f, l4) = frame(false, TCP, &[0; 3000]);
        let good = received(&f, l4, TCP, GSO_TCPV4, 1000);
        let refuse = |change: &dyn Fn(&mut Received<'_>)| {
            let mut r = good;
            change(&mut r);
            assert_eq!(run(&r), Err(Unfinishable));
        };
        refuse(&|r| r.truncated = true);
        refuse(&|r| r.offload.gso_size = 0);
        refuse(&|r| r.offload.gso_size = 1);
        refuse(&|r| r.offload.gso_type = GSO_TCPV6);
        refuse(&|r| r.offload.gso_type = 3);
        refuse(&|r| (r.offload.gso_type, r.offload.csum_offset) = (0, 3100));
        refuse(&|r| (r.offload.gso_type, r.offload.csum_start) = (0, 3));
        let huge = vec![0; 65_100];
        assert_eq!(run(&Received { data: &huge, offload: Offload::default(), ..good }), Err(Unfinishable));
    }

    #[test]
    fn arbitrary_frames_do_no_harm() {
        let (f, l4) = frame(true, TCP, &[0; 100]);
        for n in 0..f.len() {
            for gso in [0, 1, 4, 5, 0x85] {
                for vlan in [None, Some((0x8100, 1))] {
                    let r = Received { vlan, ..received(&f[..n], l4, TCP, gso, 50) };
                    let _ = run(&r);
                }
            }
        }
        for at in 0..f.len() {
            for v in [0, 0x2b, 0x3c, 0xff] {
                let mut g = f.clone();
                g[at] = v;
                for gso in [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4] {
                    let _ = run(&received(&g, l4, TCP, gso, 50));
                }
            }
        }
    }
}

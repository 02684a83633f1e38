//! Frames for tests.

/// Ones-complement sum over `parts` taken as one string of even-length pieces.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut s = 0u32;
    for p in parts {
        for c in p.chunks(2) {
            s += u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)]));
        }
    }
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

fn eth(etype: u16) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    f.extend(etype.to_be_bytes());
    f
}

/// An IPv4 packet of `proto` with transport bytes `l4`.
pub(crate) fn ip4(i: u32, proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut h = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0];
    h[2..4].copy_from_slice(&((20 + l4.len()) as u16).to_be_bytes());
    h.extend((0x0a00_0000 + i).to_be_bytes());
    h.extend((0x0b00_0000 + i % 251).to_be_bytes());
    let c = sum(&[&h]);
    h[10..12].copy_from_slice(&c.to_be_bytes());
    let mut f = eth(0x0800);
    f.extend(h);
    f.extend(l4);
    f
}

/// An IPv6 packet of `proto` with transport bytes `l4`.
pub(crate) fn ip6(i: u32, proto: u8, l4: &[u8]) -> Vec<u8> {
    let mut f = eth(0x86dd);
    f.extend([0x61, 0x23, 0x45, 0x67]);
    f.extend((l4.len() as u16).to_be_bytes());
    f.extend([proto, 64]);
    f.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    f.extend(i.to_be_bytes());
    f.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    f.extend((i + 1).to_be_bytes());
    f.extend(l4);
    f
}

/// A UDP packet of flow `i`, `len` bytes long (at least 42), without UDP checksum.
pub(crate) fn udp4(i: u32, len: usize) -> Vec<u8> {
    let n = len.max(42) - 34;
    let mut u = vec![0u8; n];
    u[0..2].copy_from_slice(&(1024 + i as u16).to_be_bytes());
    u[2..4].copy_from_slice(&2048u16.to_be_bytes());
    u[4..6].copy_from_slice(&(n as u16).to_be_bytes());
    ip4(i, 17, &u)
}

/// An ARP request.
pub(crate) fn arp(i: u32) -> Vec<u8> {
    let mut f = eth(0x0806);
    f.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    f.extend((0x0a00_0000 + i).to_be_bytes());
    f.extend([0; 6]);
    f.extend((0x0b00_0000 + i).to_be_bytes());
    f
}

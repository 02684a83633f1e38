//! The Internet checksum: whole (RFC 1071), incremental (RFC 1624), with pseudo headers.
//!
//! All checksums are host integers whose big-endian bytes go on the wire. Neighbours: action execution, packet
//! builders, tunnels. Threads: plain functions.

/// A sum in progress; fold it with [`Sum::finish`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Sum = Sum(0);

    /// Adds bytes that start at an even offset of what is summed; an odd last byte is padded with zero.
    #[inline]
    pub fn bytes(mut self, data: &[u8]) -> Sum {
        let mut chunks = data.chunks_exact(4);
        for c in &mut chunks {
            self.0 += u64::from(u32::from_be_bytes([c[0], c[1], c[2], c[3]]));
        }
        let rest = chunks.remainder();
        let mut last = [0u8; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_be_bytes(last));
        // Keeps room for the next 4 GiB.
        self.0 = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        self
    }

    /// Adds one 16-bit word.
    #[inline]
    pub fn word(self, w: u16) -> Sum {
        Sum(self.0 + u64::from(w))
    }

    /// The IPv4 pseudo header.
    pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], proto: u8, l4_len: u16) -> Sum {
        Sum::ZERO.bytes(&src).bytes(&dst).word(proto.into()).word(l4_len)
    }

    /// The IPv6 pseudo header.
    pub fn pseudo_v6(src: [u8; 16], dst: [u8; 16], proto: u8, l4_len: u32) -> Sum {
        Sum::ZERO.bytes(&src).bytes(&dst).bytes(&l4_len.to_be_bytes()).word(proto.into())
    }

    /// The ones' complement of the folded sum.
    #[inline]
    pub fn finish(self) -> u16 {
        let mut s = self.0;
        while s >> 16 != 0 {
            s = (s >> 16) + (s & 0xffff);
        }
        !(s as u16)
    }

    /// As [`Sum::finish`] for UDP, where 0 means "no checksum" and is sent as 0xffff.
    #[inline]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            c => c,
        }
    }
}

/// The checksum of `data`.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::ZERO.bytes(data).finish()
}

/// `csum` after a 16-bit word changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub fn update16(csum: u16, old: u16, new: u16) -> u16 {
    Sum(u64::from(!csum) + u64::from(!old) + u64::from(new)).finish()
}

/// `csum` after a 32-bit word changed.
#[inline]
pub fn update32(csum: u16, old: u32, new: u32) -> u16 {
    let half = |v: u32| u64::from(v >> 16) + u64::from(v & 0xffff);
    Sum(u64::from(!csum) + half(!old) + half(new)).finish()
}

/// `csum` after bytes at an even offset changed. Both slices have the same, even length.
pub fn update_bytes(csum: u16, old: &[u8], new: &[u8]) -> u16 {
    old.chunks_exact(2).zip(new.chunks_exact(2)).fold(csum, |c, (o, n)| {
        update16(c, u16::from_be_bytes([o[0], o[1]]), u16::from_be_bytes([n[0], n[1]]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte at a time.
    fn slow(data: &[u8]) -> u16 {
        let mut s = 0u32;
        for (i, &b) in data.iter().enumerate() {
            s += u32::from(b) << if i % 2 == 0 { 8 } else { 0 };
            s = (s >> 16) + (s & 0xffff);
        }
        !(s as u16)
    }

    fn noise(n: usize, seed: u32) -> Vec<u8> {
        let mut x = seed | 1;
        (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                x as u8
            })
            .collect()
    }

    #[test]
    fn agrees_with_the_slow_sum_at_every_length() {
        for n in 0..300 {
            let d = noise(n, n as u32 + 9);
            assert_eq!(checksum(&d), slow(&d), "{n} bytes");
        }
        assert_eq!(checksum(&vec![0xff; 70_000]), slow(&vec![0xff; 70_000]));
    }

    #[test]
    fn known_header() {
        let h = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&h), 0xb861);
    }

    #[test]
    fn updates_equal_recomputation() {
        for seed in 1..200 {
            let mut d = noise(40, seed);
            d[10..12].copy_from_slice(&[0, 0]);
            let before = checksum(&d);
            let (old, new) = (d[12..16].to_vec(), noise(4, seed + 1000));
            d[12..16].copy_from_slice(&new);
            let be32 = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
            assert_eq!(update32(before, be32(&old), be32(&new)), checksum(&d));
            assert_eq!(update_bytes(before, &old, &new), checksum(&d));
        }
        // The case that RFC 1141 got wrong.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn pseudo_headers() {
        let v4 = Sum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 17, 8).finish();
        assert_eq!(v4, slow(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 8]));
        let mut b = [0u8; 40];
        (b[15], b[31], b[35], b[39]) = (1, 2, 24, 58);
        let (mut s, mut d) = ([0; 16], [0; 16]);
        (s[15], d[15]) = (1, 2);
        assert_eq!(Sum::pseudo_v6(s, d, 58, 24).finish(), slow(&b));
    }
}

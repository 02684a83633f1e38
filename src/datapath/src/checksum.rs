//! Checksums after a rewrite: incremental Internet checksums (RFC 1624) and SCTP's CRC32c.
//!
//! Neighbours: `rewrite`. Threads: pure functions.

// Sums are taken over 16-bit words as they lie in memory: the order of bytes does not matter to a ones-complement sum
// as long as it is the same everywhere (RFC 1071 section 2).

/// The change that replacing `old` by `new` (equal, even lengths) makes to a sum of 16-bit words.
#[inline(always)]
pub(crate) fn delta(old: &[u8], new: &[u8]) -> u32 {
    let half = |c: &[u8]| u32::from(u16::from_ne_bytes([c[0], c[1]]));
    let added: u32 = new.chunks_exact(2).map(half).sum();
    let taken: u32 = old.chunks_exact(2).map(|c| 0xffff - half(c)).sum();
    added + taken
}

/// As `delta` for one 32-bit word.
#[inline(always)]
pub(crate) fn delta32(old: u32, new: u32) -> u32 {
    let old = !old;
    (new & 0xffff) + (new >> 16) + (old & 0xffff) + (old >> 16)
}

/// `csum` after a change of `delta`.
#[inline(always)]
pub(crate) fn apply(csum: u16, delta: u32) -> u16 {
    let mut s = u32::from(!csum) + (delta & 0xffff) + (delta >> 16);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    !(s as u16)
}

/// Updates the two bytes at `at` in `data`, when they are there.
#[inline(always)]
pub(crate) fn patch(data: &mut [u8], at: usize, delta: u32) {
    if let Some(c) = data.get_mut(at..at + 2) {
        let new = apply(u16::from_ne_bytes([c[0], c[1]]), delta);
        c.copy_from_slice(&new.to_ne_bytes());
    }
}

/// As `patch` for UDP: 0 means "no checksum" and stays, and a sum of 0 is written as 0xffff.
#[inline(always)]
pub(crate) fn patch_udp(data: &mut [u8], at: usize, delta: u32) {
    if let Some(c) = data.get_mut(at..at + 2) {
        let old = u16::from_ne_bytes([c[0], c[1]]);
        if old != 0 {
            let new = apply(old, delta);
            let new = if new == 0 { 0xffff } else { new };
            c.copy_from_slice(&new.to_ne_bytes());
        }
    }
}

const CRC32C: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
            k += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

/// CRC32c as SCTP stores it (RFC 9260 appendix A), over `head`, four zero bytes, and `tail`.
pub(crate) fn crc32c_sctp(head: &[u8], tail: &[u8]) -> u32 {
    let step = |c: u32, b: &u8| c >> 8 ^ CRC32C[usize::from(c as u8 ^ b)];
    let c = head.iter().fold(!0, step);
    let c = [0u8; 4].iter().fold(c, step);
    !tail.iter().fold(c, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_a_known_vector() {
        // 32 zero bytes: RFC 3720 B.4.
        assert_eq!(crc32c_sctp(&[0; 20], &[0; 8]), 0x8a91_36aa);
    }

    #[test]
    fn incremental_as_recomputed() {
        let old = [0x45u8, 0, 0, 54, 0x12, 0x34];
        let new = [0x45u8, 7, 0xff, 54, 0, 0];
        let sum = |b: &[u8]| {
            let s: u32 = b.chunks(2).map(|c| u32::from(u16::from_ne_bytes([c[0], c[1]]))).sum();
            !(((s & 0xffff) + (s >> 16)) as u16)
        };
        assert_eq!(apply(sum(&old), delta(&old, &new)), sum(&new));
    }
}

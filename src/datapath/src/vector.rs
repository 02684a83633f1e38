//! Keys of many frames with the widest vectors that the processor has; what has no vector form, and any other
//! processor, gets [`extract::extract`], which gives the same keys.
//!
//! With AVX-512 VBMI a plain frame takes one load, one test against the bits that tell its shape and one permutation
//! of its bytes, which is a twentieth of the way through the microflow cache less. Builds for AVX2 are no faster.
//! Neighbours: `engine`; the shapes are `flow`'s. Threads: no state.
#![allow(unsafe_code)]

use crate::classifier::BURST;
use flow::extract::{self, PktMetadata};
use flow::Miniflow;
use packet::Packet;

/// Positions of the set bits.
#[inline(always)]
pub(crate) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = (set != 0).then(|| set.trailing_zeros() as usize % BURST)?;
        set &= set - 1;
        Some(i)
    })
}

/// How keys are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parser {
    /// Any processor.
    Plain,
    /// AVX-512 with VBMI. Made by [`Parser::best`] alone: it is a promise that the processor has it.
    #[cfg(target_arch = "x86_64")]
    Avx512(wide::Detected),
}

impl Parser {
    /// The best for the processor at hand.
    pub(crate) fn best() -> Parser {
        #[cfg(target_arch = "x86_64")]
        if let Some(detected) = wide::Detected::ask() {
            return Parser::Avx512(detected);
        }
        Parser::Plain
    }

    /// As the log has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Parser::Plain => "scalar instructions",
            #[cfg(target_arch = "x86_64")]
            Parser::Avx512(_) => "AVX-512 instructions",
        }
    }

    /// The keys of the packets in `todo`, which all have the metadata `md`.
    #[inline(always)]
    pub(crate) fn keys(self, packets: &[Packet], todo: u32, md: &PktMetadata, keys: &mut [Miniflow]) {
        match self {
            Parser::Plain => {
                for i in bits(todo) {
                    let (Some(p), Some(key)) = (packets.get(i), keys.get_mut(i)) else { break };
                    extract::extract(p.data(), md, key);
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: there is a `Detected` only on a processor that has these instructions.
            Parser::Avx512(_) => unsafe { wide::keys(packets, todo, md, keys) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{bits, extract, Miniflow, Packet, PktMetadata};
    use flow::extract::shape::{Shape, SPAN};
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_permutexvar_epi8, _mm512_storeu_si512,
        _mm512_ternarylogic_epi64, _mm512_test_epi8_mask, _mm512_xor_si512,
    };

    /// The processor has been asked for AVX-512 F, BW and VBMI.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Detected(());

    impl Detected {
        pub(super) fn ask() -> Option<Detected> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("bmi2");
            has.then_some(Detected(()))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    pub(super) fn keys(packets: &[Packet], todo: u32, md: &PktMetadata, keys: &mut [Miniflow]) {
        for i in bits(todo) {
            let (Some(p), Some(out)) = (packets.get(i), keys.get_mut(i)) else { break };
            if !key(p.data(), md, out) {
                extract::extract(p.data(), md, out);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(bytes: &[u8; SPAN]) -> __m512i {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// The key of a frame that has a shape; false for any other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
    fn key(frame: &[u8], md: &PktMetadata, out: &mut Miniflow) -> bool {
        let (map, meta) = md.words();
        let Some(shape) = Shape::of(frame, md.vlan_limit) else { return false };
        let Some((head, rest)) = out.values.split_at_mut_checked(meta.len()) else { return false };
        let Some(to) = rest.first_chunk_mut::<{ SPAN / 8 }>() else { return false };
        // A shape has 42 bytes or more.
        let there = u64::MAX >> (SPAN - frame.len().clamp(1, SPAN));
        // SAFETY: only bytes whose bit is set are read, and the frame has as many.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(there, frame.as_ptr().cast()) };
        if _mm512_test_epi8_mask(_mm512_xor_si512(bytes, load(&shape.want)), load(&shape.look)) != 0 {
            return false;
        }
        let moved = _mm512_permutexvar_epi8(load(&shape.from), bytes);
        // (moved & keep) | set
        let words = _mm512_ternarylogic_epi64::<0xea>(moved, load(&shape.keep), load(&shape.set));
        // SAFETY: there is room for 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) };
        match (head, meta) {
            ([to], [port]) => *to = *port,
            (head, meta) => head.copy_from_slice(meta),
        }
        out.map = map | shape.map;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::extract::shape::{Shape, SPAN};
    use flow::Flow;
    use packet::build::{Builder, Ip4, Ip6};
    use proptest::prelude::*;

    fn frames() -> Vec<Vec<u8>> {
        let eth = || Builder::eth([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip4 = || Ip4::new([10, 0, 0, 1], [10, 0, 0, 2]);
        let ip6 = Ip6::new([0xfd; 16], [0xfe; 16]);
        vec![
            eth().ipv4(ip4()).udp(1, 2).finish(),
            eth().ipv4(ip4()).tcp(1, 2, 0x12).finish(),
            eth().vlan(0x8100, 0x2064).ipv4(ip4()).udp(1, 2).finish(),
            eth().vlan(0x8100, 100).ipv4(ip4()).tcp(1, 2, 0x10).finish(),
            eth().vlan(0x88a8, 100).vlan(0x8100, 7).ipv4(ip4()).udp(1, 2).finish(),
            eth().vlan(0x8100, 100).vlan(0x8100, 7).ipv4(ip4()).udp(1, 2).finish(),
            eth().ipv6(ip6).udp(1, 2).finish(),
            eth().arp(1, [2; 6], [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]).finish(),
        ]
    }

    /// The steps of `wide::key`, a byte at a time, on any processor.
    fn by_table(frame: &[u8], md: &PktMetadata) -> Option<(u64, Vec<u64>)> {
        let s = Shape::of(frame, md.vlan_limit)?;
        let b: [u8; SPAN] = std::array::from_fn(|i| frame.get(i).copied().unwrap_or(0));
        if (0..SPAN).any(|i| (b[i] ^ s.want[i]) & s.look[i] != 0) {
            return None;
        }
        let key: [u8; SPAN] = std::array::from_fn(|i| b[usize::from(s.from[i])] & s.keep[i] | s.set[i]);
        let (map, meta) = md.words();
        let words = key.chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().expect("eight bytes")));
        let map = map | s.map;
        Some((map, meta.iter().copied().chain(words).take(map.count_ones() as usize).collect()))
    }

    /// Keys are the same as those of the plain form.
    fn check(frame: &[u8], limit: u8) {
        let packets = [Packet::from_slice(frame)];
        let flow = Flow { in_port: 7, recirc_id: 9, pkt_mark: 3, ..Flow::default() };
        for md in [PktMetadata::new(7), PktMetadata::from_flow(&flow)] {
            let md = md.with_vlan_limit(limit);
            let (mut a, mut b) = ([Miniflow::EMPTY], [Miniflow::EMPTY]);
            Parser::best().keys(&packets, 1, &md, &mut a);
            Parser::Plain.keys(&packets, 1, &md, &mut b);
            assert_eq!((a[0].map, a[0].packed()), (b[0].map, b[0].packed()), "{frame:02x?}");
            if let Some(t) = by_table(frame, &md) {
                assert_eq!(t, (b[0].map, b[0].packed().to_vec()), "{frame:02x?}");
            }
        }
    }

    #[test]
    fn cut_and_padded() {
        for frame in frames() {
            for n in 0..=frame.len() {
                (0..=2).for_each(|limit| check(&frame[..n], limit));
            }
            for n in 1..40 {
                (0..=2).for_each(|limit| check(&[frame.as_slice(), &vec![0xa5; n]].concat(), limit));
            }
        }
    }

    #[test]
    fn every_byte_changed() {
        for mut frame in frames() {
            frame.extend([0; 20]);
            for i in 0..frame.len() {
                for bit in 0..8 {
                    frame[i] ^= 1 << bit;
                    check(&frame, 1);
                    frame[i] ^= 1 << bit;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn wide_where_there_is_such_a_processor() {
        let is = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" avx512_vbmi2"));
        assert!(!is || Parser::best() != Parser::Plain, "VBMI2 comes with VBMI");
    }

    proptest! {
        #[test]
        fn noise(kind in 0usize..8, at in 0usize..60, bytes in prop::collection::vec(any::<u8>(), 0..40), limit in 0u8..3) {
            let mut frame = frames().swap_remove(kind);
            frame.extend([0; 30]);
            for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
                *to = from;
            }
            check(&frame, limit);
        }
    }
}

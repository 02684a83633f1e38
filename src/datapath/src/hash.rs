//! The hash of caches and tables: folded multiplications over 64-bit words.
//!
//! Neighbours: `emc`, `classifier`. Threads: pure functions.

/// Multiplies two words into 128 bits and folds the halves.
#[inline(always)]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    (p as u64) ^ (p >> 64) as u64
}

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;
const K2: u64 = 0x8ebc_6af0_9c88_c6e3;
const K3: u64 = 0x5899_65cc_7537_4cc3;

/// Hash of `words` under `seed`. Two lanes, so that four words cost two multiplications in a row.
#[inline(always)]
pub(crate) fn words(seed: u64, w: &[u64]) -> u64 {
    let (mut a, mut b) = (seed ^ K2, seed);
    let mut quads = w.chunks_exact(4);
    for q in quads.by_ref() {
        a = fold(q[0] ^ K0 ^ a, q[1] ^ K1);
        b = fold(q[2] ^ K2 ^ b, q[3] ^ K3);
    }
    match *quads.remainder() {
        [x] => a = fold(x ^ K0 ^ a, K1 ^ b),
        [x, y] => a = fold(x ^ K0 ^ a, y ^ K1 ^ b),
        [x, y, z] => {
            a = fold(x ^ K0 ^ a, y ^ K1);
            b = fold(z ^ K2 ^ b, K3);
        }
        _ => {}
    }
    fold(a ^ K3, b ^ K1)
}

/// A small generator for decisions that need no quality (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed | 1)
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> u32 {
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

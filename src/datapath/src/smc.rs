//! The signature match cache: which megaflow a microflow had last, for very many microflows.
//!
//! Where the microflow cache remembers a few thousand whole keys, this one remembers four bytes of a quarter of a
//! million: twelve bits of a hash and the index of a megaflow. An answer is a guess; whoever asks compares the packet
//! with the megaflow under its mask, which is as good as a lookup, for any megaflow that matches is right. So an
//! established flow costs the same however many masks there are, and entries of removed megaflows need no sweeping.
//! A new microflow takes an empty way; a full set lets one in eight in, so that scans do not wash the cache out.
//!
//! Neighbours: `engine` asks with hashes of raw headers (see `simple`) and of keys (see `classifier`). Threads: owned
//! by one.

use crate::classifier::{FlowIdx, BURST};
use crate::hash::Rng;
use crate::prefetch;

/// Ways of a set: one cache line.
const WAYS: usize = 16;
const SETS: usize = 1 << 14;
/// Bits of the index; those above are the signature.
const INDEX_BITS: u32 = 20;
/// Megaflows that can be remembered.
pub(crate) const MAX_INDEX: usize = 1 << INDEX_BITS;
/// One in so many new microflows enters a full set.
const FULL_INV_PROB: u32 = 8;

#[derive(Clone)]
#[repr(C, align(64))]
struct Set([u32; WAYS]);

/// The cache of one thread.
pub(crate) struct Smc {
    sets: Box<[Set]>,
    rng: Rng,
}

/// A hash's signature, never that of an empty way.
#[inline(always)]
fn signature(hash: u64) -> u32 {
    ((hash >> 52) as u32).max(1)
}

#[inline(always)]
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = (set != 0).then(|| set.trailing_zeros() as usize % BURST)?;
        set &= set - 1;
        Some(i)
    })
}

impl Smc {
    pub(crate) fn new(seed: u64) -> Smc {
        Smc { sets: vec![Set([0; WAYS]); SETS].into(), rng: Rng::new(seed ^ 0x1f83_d9ab_fb41_bd6b) }
    }

    #[inline(always)]
    fn set_of(hash: u64) -> usize {
        (hash >> 32) as usize % SETS
    }

    /// Ways whose signature is that of `hash`.
    #[inline(always)]
    fn ways(&self, hash: u64) -> u32 {
        let want = signature(hash);
        let set = &self.sets[Smc::set_of(hash)];
        let mut found = 0u32;
        for (i, e) in set.0.iter().enumerate() {
            found |= u32::from(e >> INDEX_BITS == want) << i;
        }
        found
    }

    /// Asks for the packets in `todo`; `ahead` fetches what `same` will look at, and `same` says whether a packet
    /// belongs to a megaflow. Returns those found.
    #[inline(always)]
    pub(crate) fn lookup(
        &self,
        hashes: &[u64; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
        ahead: impl Fn(FlowIdx),
        mut same: impl FnMut(usize, FlowIdx) -> bool,
    ) -> u32 {
        for i in bits(todo) {
            prefetch::read(&self.sets[Smc::set_of(hashes[i])]);
        }
        let mut ways = [0u32; BURST];
        let mut maybe = 0u32;
        for i in bits(todo) {
            let w = self.ways(hashes[i]);
            if w != 0 {
                ways[i] = w;
                maybe |= 1 << i;
                ahead(self.index(hashes[i], w));
            }
        }
        let mut found = 0u32;
        for i in bits(maybe) {
            let mut w = ways[i];
            while w != 0 {
                let f = self.index(hashes[i], w);
                if same(i, f) {
                    out[i] = f;
                    found |= 1 << i;
                    break;
                }
                w &= w - 1;
            }
        }
        found
    }

    /// The index in the lowest of `ways`.
    #[inline(always)]
    fn index(&self, hash: u64, ways: u32) -> FlowIdx {
        let e = self.sets[Smc::set_of(hash)].0[ways.trailing_zeros() as usize % WAYS];
        e & (MAX_INDEX as u32 - 1)
    }

    /// Remembers that the microflow of `hash` belongs to `flow`.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, flow: FlowIdx) {
        if flow as usize >= MAX_INDEX {
            return;
        }
        let entry = signature(hash) << INDEX_BITS | flow;
        let set = &mut self.sets[Smc::set_of(hash)].0;
        if set.contains(&entry) {
            return;
        }
        if let Some(e) = set.iter_mut().find(|e| **e == 0) {
            *e = entry;
            return;
        }
        let chance = self.rng.next();
        if chance.is_multiple_of(FULL_INV_PROB) {
            set[chance as usize / FULL_INV_PROB as usize % WAYS] = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::NO_FLOW;
    use crate::hash;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn find(smc: &Smc, hash: u64, right: Option<FlowIdx>) -> Option<FlowIdx> {
        let mut out = [NO_FLOW; BURST];
        let found = smc.lookup(&[hash; BURST], 1 << 9, &mut out, |_| (), |_, f| Some(f) == right);
        (found != 0).then_some(out[9])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What was put in last is found, as long as sets are not full; a wrong guess is never an answer.
        #[test]
        fn guesses_are_checked(ops in prop::collection::vec((any::<bool>(), 0u64..500, 0u32..MAX_INDEX as u32), 1..400)) {
            let mut smc = Smc::new(3);
            let mut model: HashMap<u64, FlowIdx> = HashMap::new();
            for (put, k, f) in ops {
                let h = hash::words(1, &[k]);
                if put {
                    smc.insert(h, f);
                    model.insert(k, f);
                }
                let right = model.get(&k).copied();
                prop_assert_eq!(find(&smc, h, right), right);
            }
        }
    }

    #[test]
    fn holds_a_hundred_thousand() {
        let mut smc = Smc::new(3);
        let h = |i: u32| hash::words(7, &[u64::from(i)]);
        (0..100_000).for_each(|i| smc.insert(h(i), i));
        let n = (0..100_000).filter(|&i| find(&smc, h(i), Some(i)).is_some()).count();
        assert!(n > 99_000, "{n}");
        // A scan of a million replaces some, not all.
        (200_000..1_000_000).for_each(|i| smc.insert(h(i), i));
        let n = (0..100_000).filter(|&i| find(&smc, h(i), Some(i)).is_some()).count();
        assert!(n > 50_000, "{n}");
    }
}

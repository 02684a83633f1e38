//! The microflow cache: exact keys of recent packets to megaflows, per thread.
//!
//! Sets of four ways. The signatures of a set are one 64-bit word and those of all sets fit the first-level cache,
//! so a lookup that misses costs no memory access. Entries name a megaflow by index and generation: an entry of a
//! removed megaflow is never hit, and nothing has to be swept. A full set is replaced at random; a new key enters
//! once in `inv_prob` times, so that scans do not wash the cache out.
//!
//! Neighbours: `engine` looks up and inserts. Threads: owned by one.

use crate::classifier::{FlowIdx, BURST, NO_FLOW};
use crate::flows::Flows;
use crate::hash::{self, Rng};
use crate::prefetch;
use flow::Miniflow;

/// Ways of a set.
const WAYS: usize = 4;
/// Entries.
pub(crate) const ENTRIES: usize = 8192;
const SETS: usize = ENTRIES / WAYS;
/// Words of the longest key that is cached.
const MAX_WORDS: usize = 13;

#[derive(Clone)]
#[repr(C, align(64))]
struct Entry {
    map: u64,
    flow: FlowIdx,
    generation: u32,
    n: u64,
    words: [u64; MAX_WORDS],
}

const EMPTY: Entry = Entry { map: 0, flow: NO_FLOW, generation: 0, n: 0, words: [0; MAX_WORDS] };

/// Packets over which it is judged whether the cache pays.
const WINDOW: u64 = 1_024;
/// Bursts for which a cache that did not pay is left out.
const PAUSE: u32 = 128;

/// Whether looking into the cache pays: with few masks and very many microflows the classifier alone is quicker.
///
/// By measurement a hit costs about 24 cycles, a miss 35, a subtable 33. With a share h of hits and d subtables a
/// lookup, the cache pays when h (33 d + 11) > 35.
#[derive(Default)]
pub(crate) struct Worth {
    asked: u64,
    hits: u64,
    found: u64,
    looked: u64,
    pause: u32,
}

impl Worth {
    /// Whether to ask the cache for this burst.
    #[inline(always)]
    pub(crate) fn ask(&mut self) -> bool {
        if self.pause == 0 {
            return true;
        }
        self.pause -= 1;
        false
    }

    /// Accounts a burst that asked: packets, hits, then what the classifier found, over how many subtables.
    #[inline(always)]
    pub(crate) fn judge(&mut self, asked: u32, hits: u32, found: u32, looked: u64) {
        self.asked += u64::from(asked);
        self.hits += u64::from(hits);
        self.found += u64::from(found);
        self.looked += looked;
        if self.asked >= WINDOW {
            if self.hits * (3 * self.looked + self.found) < 3 * self.asked * self.found {
                self.pause = PAUSE;
            }
            *self = Worth { pause: self.pause, ..Worth::default() };
        }
    }
}

/// The cache of one thread.
pub(crate) struct Emc {
    /// Signatures of four ways a word; 0: empty.
    tags: Box<[u64]>,
    entries: Box<[Entry]>,
    /// A key enters when a random number is at most this.
    threshold: u32,
    enabled: bool,
    rng: Rng,
    seed: u64,
}

#[inline(always)]
fn tag(hash: u64) -> u64 {
    (hash >> 48) | 1
}

/// High bit of each 16-bit lane of `tags` that equals `tag`; may report a false lane above a true one, which the
/// comparison of keys sorts out.
#[inline(always)]
fn lanes(tags: u64, tag: u64) -> u64 {
    let x = tags ^ (tag * 0x0001_0001_0001_0001);
    x.wrapping_sub(0x0001_0001_0001_0001) & !x & 0x8000_8000_8000_8000
}

impl Emc {
    pub(crate) fn new(seed: u64) -> Emc {
        Emc {
            tags: vec![0; SETS].into(),
            entries: vec![EMPTY; ENTRIES].into(),
            threshold: u32::MAX / 100,
            enabled: true,
            rng: Rng::new(seed),
            seed: seed ^ 0x5851_f42d_4c95_7f2d,
        }
    }

    /// Sets the insertion probability to one in `inv_prob`; 0 turns the cache off.
    pub(crate) fn set_inv_prob(&mut self, inv_prob: u32) {
        self.enabled = inv_prob != 0;
        self.threshold = u32::MAX / inv_prob.max(1);
        if !self.enabled {
            self.tags.fill(0);
        }
    }

    /// Whether lookups make sense.
    #[inline(always)]
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    /// The hash of a key, for lookup and insertion.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Miniflow) -> u64 {
        hash::words(self.seed ^ key.map, key.packed())
    }

    #[inline(always)]
    fn set_of(hash: u64) -> usize {
        hash as usize % SETS
    }

    /// Looks up the keys in `todo`; returns those that are not there.
    #[inline]
    pub(crate) fn lookup(
        &self,
        keys: &[Miniflow; BURST],
        hashes: &[u64; BURST],
        todo: u32,
        flows: &Flows,
        out: &mut [FlowIdx; BURST],
    ) -> u32 {
        let mut candidates = [0u64; BURST];
        let (mut rest, mut maybe) = (todo, 0u32);
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            let set = Emc::set_of(hashes[i]);
            let c = lanes(self.tags[set], tag(hashes[i]));
            if c != 0 {
                let e = &self.entries[set * WAYS + c.trailing_zeros() as usize / 16];
                prefetch::read(e);
                prefetch::read(&e.words[5]);
                candidates[i] = c;
                maybe |= 1 << i;
            }
        }
        let mut found = 0u32;
        while maybe != 0 {
            let i = maybe.trailing_zeros() as usize % BURST;
            maybe &= maybe - 1;
            if let Some(f) = self.verify(&keys[i], Emc::set_of(hashes[i]), candidates[i], flows) {
                out[i] = f;
                found |= 1 << i;
            }
        }
        todo & !found
    }

    #[inline(always)]
    fn verify(&self, key: &Miniflow, set: usize, mut lanes: u64, flows: &Flows) -> Option<FlowIdx> {
        while lanes != 0 {
            let e = &self.entries[set * WAYS + lanes.trailing_zeros() as usize / 16];
            let n = e.n as usize % (MAX_WORDS + 1);
            if e.map == key.map && e.words[..n] == key.values[..n] && flows.is_current(e.flow, e.generation) {
                return Some(e.flow);
            }
            lanes &= lanes - 1;
        }
        None
    }

    /// Puts the key in, if chance will have it.
    #[inline]
    pub(crate) fn maybe_insert(&mut self, key: &Miniflow, hash: u64, flow: FlowIdx, flows: &Flows) {
        if self.enabled && self.rng.next() <= self.threshold {
            self.insert(key, hash, flow, flows);
        }
    }

    #[cold]
    fn insert(&mut self, key: &Miniflow, hash: u64, flow: FlowIdx, flows: &Flows) {
        let n = key.n();
        if n > MAX_WORDS {
            return;
        }
        let set = Emc::set_of(hash);
        let ways = &self.entries[set * WAYS..(set + 1) * WAYS];
        let same = |e: &Entry| e.map == key.map && e.n == n as u64 && e.words[..n] == key.values[..n];
        let way = ways
            .iter()
            .position(same)
            .or_else(|| ways.iter().position(|e| !flows.is_current(e.flow, e.generation)))
            .unwrap_or(self.rng.next() as usize % WAYS);
        let e = &mut self.entries[set * WAYS + way];
        e.map = key.map;
        e.flow = flow;
        e.generation = flows.generation(flow);
        e.n = n as u64;
        e.words[..n].copy_from_slice(&key.values[..n]);
        let shift = way * 16;
        self.tags[set] = self.tags[set] & !(0xffff << shift) | tag(hash) << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::tests::dummy_flow;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(v: u64) -> Miniflow {
        let mut m = Miniflow::EMPTY;
        m.map = 0b1011;
        m.values[0] = v % 7;
        m.values[1] = v;
        m.values[2] = v.rotate_left(20);
        m
    }

    fn find(emc: &Emc, flows: &Flows, k: &Miniflow) -> Option<FlowIdx> {
        let keys = [*k; BURST];
        let hashes = [emc.hash(k); BURST];
        let mut out = [NO_FLOW; BURST];
        let missed = emc.lookup(&keys, &hashes, 1 << 31, flows, &mut out);
        (missed == 0).then_some(out[31])
    }

    #[test]
    fn lanes_find_equal_tags() {
        assert_eq!(lanes(0x0003_0005_0007_0009, 7).trailing_zeros() / 16, 1);
        assert_eq!(lanes(0x0003_0005_0007_0009, 11), 0);
    }

    #[test]
    fn a_cache_that_does_not_pay_is_left_out_for_a_while() {
        let mut w = Worth::default();
        (0..64).for_each(|_| w.judge(32, 32, 0, 0));
        assert!(w.ask(), "all hits");
        (0..64).for_each(|_| w.judge(32, 8, 24, 24 * 20));
        assert!(w.ask(), "few hits, but twenty subtables");
        (0..64).for_each(|_| w.judge(32, 8, 24, 24));
        assert_eq!((0..1_000).filter(|_| !w.ask()).count(), PAUSE as usize);
        assert!(w.ask(), "asked again");
    }

    #[test]
    fn long_keys_are_not_cached() {
        let mut flows = Flows::default();
        let f = flows.add(dummy_flow(1));
        let mut emc = Emc::new(3);
        emc.set_inv_prob(1);
        let mut k = Miniflow::EMPTY;
        k.map = (1 << 14) - 1;
        let h = emc.hash(&k);
        emc.maybe_insert(&k, h, f, &flows);
        assert_eq!(find(&emc, &flows, &k), None);
    }

    #[test]
    fn probability_is_kept() {
        let mut flows = Flows::default();
        let f = flows.add(dummy_flow(1));
        let mut emc = Emc::new(5);
        let n = (0..20_000u64)
            .filter(|&i| {
                let k = key(i);
                let h = emc.hash(&k);
                emc.maybe_insert(&k, h, f, &flows);
                find(&emc, &flows, &k).is_some()
            })
            .count();
        assert!((100..350).contains(&n), "{n} of 20,000 at one in 100");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the cache answers, a map says too; after a removal nothing of that megaflow is answered.
        #[test]
        fn answers_are_a_subset_of_a_map(ops in prop::collection::vec((0u8..4, 0u64..300), 1..400)) {
            let mut flows = Flows::default();
            let mut emc = Emc::new(7);
            emc.set_inv_prob(1);
            let mut model: HashMap<u64, FlowIdx> = HashMap::new();
            for (op, v) in ops {
                let k = key(v);
                match op {
                    0 | 1 => {
                        let f = *model.entry(v).or_insert_with(|| flows.add(dummy_flow(v)));
                        let h = emc.hash(&k);
                        emc.maybe_insert(&k, h, f, &flows);
                        prop_assert_eq!(find(&emc, &flows, &k), Some(f));
                    }
                    2 => {
                        if let Some(f) = model.remove(&v) {
                            flows.remove(f);
                        }
                        prop_assert_eq!(find(&emc, &flows, &k), None);
                    }
                    _ => {
                        if let Some(f) = find(&emc, &flows, &k) {
                            prop_assert_eq!(Some(&f), model.get(&v));
                        }
                    }
                }
            }
        }
    }
}

//! Which subtables of a classifier can match a key at all: tuple pruning, without looking into any of them.
//!
//! A classifier with thousands of masks must not try them one by one: whoever can make new masks (by packets that
//! differ from a rule at ever other bits) would make every miss as dear as he likes. So the masks are cut into lanes,
//! the fields that rules are usually made of. Masks that are equal in a lane are one class there, and a class knows
//! by a small counting filter which values its megaflows have. A class whose filter does not have the key's value is
//! out with all its subtables. The sets of the classes that remain are united within a lane and intersected across
//! lanes, 64 subtables an instruction; what is left is looked into.
//!
//! The number of classes of a lane does not grow with the masks (prefixes of an address make at most 33), so the cost
//! of a lookup is that of a few hundred filter probes and some passes over bit sets, whatever an attacker sends.
//!
//! Neighbours: `classifier` tells what comes and goes, and asks. Threads: owned by one.

use crate::hash::Rng;
use flow::{Flow, Miniflow};
use std::mem::offset_of;

/// Word of a flow, and the bits of it, that make a lane.
const fn whole(offset: usize) -> (usize, u64) {
    (offset / 8, u64::MAX)
}

const fn part(offset: usize, bytes: usize) -> (usize, u64) {
    let mut b = [0u8; 8];
    let mut i = 0;
    while i < bytes {
        b[offset % 8 + i] = 0xff;
        i += 1;
    }
    (offset / 8, u64::from_ne_bytes(b))
}

/// Lanes.
const LANES: usize = 14;
const WHERE: [(usize, u64); LANES] = [
    part(offset_of!(Flow, nw_dst), 4),
    part(offset_of!(Flow, nw_src), 4),
    part(offset_of!(Flow, tp_dst), 2),
    part(offset_of!(Flow, tp_src), 2),
    whole(offset_of!(Flow, ipv6_dst)),
    whole(offset_of!(Flow, ipv6_dst) + 8),
    whole(offset_of!(Flow, ipv6_src)),
    whole(offset_of!(Flow, ipv6_src) + 8),
    part(offset_of!(Flow, nw_frag), 4),
    whole(offset_of!(Flow, dl_dst)),
    part(offset_of!(Flow, dl_src) + 2, 4),
    part(offset_of!(Flow, dl_type), 2),
    part(offset_of!(Flow, recirc_id), 4),
    part(offset_of!(Flow, vlans), 4),
];

/// Classes of a lane; subtables of further ones are never pruned by this lane.
const MAX_CLASSES: usize = 96;
/// Class of a subtable that a lane does not prune.
const ALWAYS: u8 = u8::MAX;
/// Buckets of a class's filter.
const FILTER: usize = 1_024;

/// How one subtable lies in the lanes.
#[derive(Clone)]
pub(crate) struct Lay {
    class: [u8; LANES],
    /// Which of the subtable's words the lane is in.
    at: [u8; LANES],
}

/// Subtables whose masks are equal in a lane.
struct Class {
    mask: u64,
    /// Subtables.
    n: usize,
    subs: Vec<u64>,
    /// Buckets with a value.
    present: [u64; FILTER / 64],
    counts: Box<[u32]>,
}

#[derive(Default)]
struct Lane {
    classes: Vec<Class>,
    /// Subtables that this lane does not prune.
    always: Vec<u64>,
    n_always: usize,
}

fn set(bits: &mut Vec<u64>, id: u32) {
    let word = id as usize / 64;
    if bits.len() <= word {
        bits.resize(word + 1, 0);
    }
    bits[word] |= 1 << (id % 64);
}

fn unset(bits: &mut [u64], id: u32) {
    if let Some(w) = bits.get_mut(id as usize / 64) {
        *w &= !(1 << (id % 64));
    }
}

impl Class {
    fn new(mask: u64) -> Class {
        Class { mask, n: 0, subs: Vec::new(), present: [0; FILTER / 64], counts: vec![0; FILTER].into() }
    }

    #[inline(always)]
    fn has(&self, bucket: usize) -> bool {
        self.present[bucket / 64 % (FILTER / 64)] >> (bucket % 64) & 1 != 0
    }
}

/// The pruner of one classifier.
pub(crate) struct Pruner {
    lanes: [Lane; LANES],
    /// Subtables that may be answered.
    open: Vec<u64>,
    /// Subtables known.
    n: usize,
    /// Answer and working memory of a lookup, as long as the sets.
    candidates: Vec<u64>,
    union: Vec<u64>,
    multiplier: u64,
}

impl Pruner {
    pub(crate) fn new(seed: u64) -> Pruner {
        let mut rng = Rng::new(seed ^ 0x6a09_e667_f3bc_c909);
        rng.next();
        Pruner {
            lanes: std::array::from_fn(|_| Lane::default()),
            open: Vec::new(),
            n: 0,
            candidates: Vec::new(),
            union: Vec::new(),
            multiplier: u64::from(rng.next()) << 32 | u64::from(rng.next()) | 1,
        }
    }

    /// The bucket of a filter that a value falls into; the multiplier is secret.
    #[inline(always)]
    fn bucket(&self, value: u64) -> usize {
        ((value ^ value >> 32).wrapping_mul(self.multiplier) >> 54) as usize % FILTER
    }

    /// Takes in subtable `id`, whose mask has `words` at the word indices `index`.
    pub(crate) fn add(&mut self, id: u32, index: &[u8], words: &[u64]) -> Lay {
        let mut lay = Lay { class: [ALWAYS; LANES], at: [0; LANES] };
        for (l, (lane, (word, bits))) in self.lanes.iter_mut().zip(WHERE).enumerate() {
            let at = index.iter().position(|i| usize::from(*i) == word);
            let mask = at.map_or(0, |at| words[at] & bits);
            let found = lane.classes.iter().position(|c| c.mask == mask && c.n > 0);
            let free = || lane.classes.iter().position(|c| c.n == 0);
            let class = match found.or_else(free).filter(|_| mask != 0) {
                Some(c) => c,
                None if mask != 0 && lane.classes.len() < MAX_CLASSES => {
                    lane.classes.push(Class::new(mask));
                    lane.classes.len() - 1
                }
                None => {
                    set(&mut lane.always, id);
                    lane.n_always += 1;
                    continue;
                }
            };
            let c = &mut lane.classes[class];
            c.mask = mask;
            c.n += 1;
            set(&mut c.subs, id);
            lay.class[l] = class as u8;
            lay.at[l] = at.unwrap_or(0) as u8;
        }
        self.n += 1;
        self.open(id, true);
        // So that a lookup never allocates.
        let len = self.candidates.len().max(id as usize / 64 + 1);
        self.candidates.resize(len, 0);
        self.union.resize(len, 0);
        lay
    }

    /// Forgets a subtable, which has no entries left.
    pub(crate) fn remove(&mut self, id: u32, lay: &Lay) {
        for (lane, class) in self.lanes.iter_mut().zip(lay.class) {
            match lane.classes.get_mut(usize::from(class)) {
                Some(c) => {
                    unset(&mut c.subs, id);
                    c.n -= 1;
                }
                None => {
                    unset(&mut lane.always, id);
                    lane.n_always -= 1;
                }
            }
        }
        self.n -= 1;
        self.open(id, false);
    }

    /// Whether subtable `id` may be among the candidates.
    pub(crate) fn open(&mut self, id: u32, open: bool) {
        if open {
            set(&mut self.open, id);
        } else {
            unset(&mut self.open, id);
        }
    }

    /// Counts an entry of masked `words` in (or out, with `present` false).
    pub(crate) fn entry(&mut self, lay: &Lay, words: &[u64], present: bool) {
        for (l, (_, bits)) in WHERE.iter().enumerate() {
            if lay.class[l] == ALWAYS {
                continue;
            }
            let value = words.get(usize::from(lay.at[l])).map_or(0, |w| w & bits);
            let b = self.bucket(value);
            let Some(c) = self.lanes[l].classes.get_mut(usize::from(lay.class[l])) else { continue };
            if present {
                c.counts[b] += 1;
                c.present[b / 64] |= 1 << (b % 64);
            } else {
                c.counts[b] -= 1;
                if c.counts[b] == 0 {
                    c.present[b / 64] &= !(1 << (b % 64));
                }
            }
        }
    }

    /// The subtables that may have `key`, a set of ids.
    pub(crate) fn candidates(&mut self, key: &Miniflow) -> &[u64] {
        let len = self.open.len();
        self.candidates[..len].copy_from_slice(&self.open);
        for (l, (word, bits)) in WHERE.iter().enumerate() {
            let lane = &self.lanes[l];
            if lane.n_always == self.n {
                continue;
            }
            let bit = 1u64 << word;
            let at = (key.map & (bit - 1)).count_ones() as usize;
            let value = if key.map & bit != 0 { key.values.get(at).map_or(0, |v| v & bits) } else { 0 };
            let mut reach = lane.n_always;
            let mut possible = [0u8; MAX_CLASSES];
            let mut n = 0;
            for (i, c) in lane.classes.iter().enumerate().take(MAX_CLASSES) {
                possible[n] = i as u8;
                if c.has(self.bucket(value & c.mask)) {
                    n += 1;
                    reach += c.n;
                }
            }
            if reach == self.n {
                continue;
            }
            let union = &mut self.union[..len];
            union.fill(0);
            let sets = possible[..n].iter().map(|i| lane.classes[usize::from(*i)].subs.as_slice());
            for s in sets.chain(std::iter::once(lane.always.as_slice())) {
                union.iter_mut().zip(s).for_each(|(u, s)| *u |= s);
            }
            self.candidates[..len].iter_mut().zip(union).for_each(|(c, u)| *c &= *u);
        }
        &self.candidates[..len]
    }
}

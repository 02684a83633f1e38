//! Tuple-space classifier over the rules of one table, with priorities, staged lookup and prefix tracking.
//!
//! Persistent: `clone` is cheap and shares everything, so a version can be published to PMDs while the main thread
//! goes on changing its own. Staged lookup and prefixes serve the *mask*: a lookup folds into it only the bits that
//! were needed to decide, so megaflows stay wide.
//!
//! Neighbours: `tables` owns one per table; `xlate` looks up. Threads: immutable once published.

use crate::prefix_trie::{prefix_mask, PrefixLens, PrefixTrie};
use crate::rule::{word_indices, CompactMask, CompactMatch, Rule};
use flow::{Flow, Mask, FLOW_WORDS};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A hasher for keys that are hashes already.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = v;
    }
}

type HashMapAsIs<V> =
    imbl::GenericHashMap<u64, V, BuildHasherDefault<AsIs>, imbl::shared_ptr::DefaultSharedPtr>;

/// Bits `from` to `to - 1`.
const fn words_from_to(from: usize, to: usize) -> u64 {
    ((1u64 << to) - 1) & !((1u64 << from) - 1)
}

/// The words of each stage: metadata and registers, L2, L3, L4.
const STAGES: [u64; 4] = {
    let l2 = std::mem::offset_of!(Flow, dl_dst) / 8;
    let l3 = std::mem::offset_of!(Flow, nw_src) / 8;
    let l4 = std::mem::offset_of!(Flow, nd_target) / 8;
    let of = std::mem::offset_of!(Flow, metadata) / 8;
    [
        words_from_to(0, l2) | words_from_to(of, FLOW_WORDS),
        words_from_to(l2, l3),
        words_from_to(l3, l4),
        words_from_to(l4, of),
    ]
};

const W_PORTS: usize = std::mem::offset_of!(Flow, tp_src) / 8;
const W_NW: usize = std::mem::offset_of!(Flow, nw_src) / 8;

/// Fields with prefix tracking: those of `Flow_Table.prefixes` when it is not set.
const N_TRIES: usize = 2;

/// One tracked field: where its bits stand in the flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TrieField {
    Ipv4Dst,
    Ipv4Src,
}

/// Bits of each, in packets of type [`ETH_IP`].
const WIDTH: u8 = 32;
const ETH_IP: u16 = 0x0800;

const TRIE_FIELDS: [TrieField; N_TRIES] = [TrieField::Ipv4Dst, TrieField::Ipv4Src];

impl TrieField {
    /// The field's bits, left-aligned.
    fn value(self, f: &Flow) -> u128 {
        match self {
            TrieField::Ipv4Dst => u128::from(f.nw_dst.get()) << 96,
            TrieField::Ipv4Src => u128::from(f.nw_src.get()) << 96,
        }
    }

    fn set(self, m: &mut Mask, v: u128) {
        match self {
            TrieField::Ipv4Dst => m.0.nw_dst = ((v >> 96) as u32).into(),
            TrieField::Ipv4Src => m.0.nw_src = ((v >> 96) as u32).into(),
        }
    }

    /// The length of the mask as a prefix; 0 when it is none.
    fn prefix_len(self, mask: &Mask) -> u8 {
        let v = self.value(&mask.0);
        let len = v.leading_ones() as u8;
        if v == prefix_mask(len) {
            len
        } else {
            0
        }
    }
}

/// The rules of one key of a subtable, by falling priority.
#[derive(Clone, Debug)]
enum Entry {
    One(Arc<Rule>),
    Many(Arc<Vec<Arc<Rule>>>),
}

impl Entry {
    fn rules(&self) -> &[Arc<Rule>] {
        match self {
            Entry::One(r) => std::slice::from_ref(r),
            Entry::Many(v) => v,
        }
    }
}

/// The rules of one mask.
#[derive(Clone, Debug)]
struct Subtable {
    mask: Arc<CompactMask>,
    /// Words of the mask by stage.
    stage_maps: [u64; 4],
    /// The last stage with words; lookups there go to `rules`.
    last_stage: usize,
    /// Counts of partial hashes of the stages before the last (only of those that have words).
    indices: [Option<HashMapAsIs<u32>>; 3],
    rules: HashMapAsIs<Entry>,
    n: usize,
    /// Number of rules of each priority, highest last.
    priorities: imbl::OrdMap<i32, u32>,
    max_priority: i32,
    trie_lens: [u8; N_TRIES],
    /// Transport ports as a 32-bit prefix, and its trie: narrows misses in the last stage.
    ports_len: u8,
    ports: PrefixTrie,
}

#[inline(always)]
fn mix(h: u64, w: u64) -> u64 {
    let x = u128::from(h ^ w) * 0x9e37_79b9_7f4a_7c15_u128;
    (x as u64) ^ ((x >> 64) as u64)
}

const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// Hash of the masked words of `words` in `map`, continued from `h`.
#[inline(always)]
fn hash_words(mut h: u64, mask: &CompactMask, map: u64, words: &[u64; FLOW_WORDS]) -> u64 {
    for i in word_indices(map) {
        h = mix(h, words[i % FLOW_WORDS] & mask.word(i));
    }
    h
}

impl Subtable {
    fn new(mask: Arc<CompactMask>) -> Subtable {
        let whole = mask.expand();
        let stage_maps = STAGES.map(|s| s & mask.map);
        let last_stage = (0..4).rev().find(|&i| stage_maps[i] != 0).unwrap_or(0);
        let ports = (u32::from(whole.0.tp_src.get()) << 16) | u32::from(whole.0.tp_dst.get());
        Subtable {
            stage_maps,
            last_stage,
            indices: std::array::from_fn(|i| {
                (i < last_stage && stage_maps[i] != 0).then(HashMapAsIs::default)
            }),
            rules: HashMapAsIs::default(),
            n: 0,
            priorities: imbl::OrdMap::new(),
            max_priority: i32::MIN,
            trie_lens: TRIE_FIELDS.map(|f| f.prefix_len(&whole)),
            ports_len: 32 - ports.trailing_zeros().min(32) as u8,
            ports: PrefixTrie::default(),
            mask,
        }
    }

    fn stage_hashes(&self, words: &[u64; FLOW_WORDS]) -> [u64; 4] {
        let mut h = SEED;
        std::array::from_fn(|s| {
            h = hash_words(h, &self.mask, self.stage_maps[s], words);
            h
        })
    }

    fn ports_of(f: &Flow) -> u128 {
        (u128::from(f.tp_src.get()) << 112) | (u128::from(f.tp_dst.get()) << 96)
    }

    /// Adds `rule`, or replaces the one of equal match and priority, which is returned.
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let flow = rule.matching.expand().flow;
        let hashes = self.stage_hashes(flow.words());
        let key = hashes[self.last_stage];
        let replaced = match self.rules.get_mut(&key) {
            None => {
                self.rules.insert(key, Entry::One(rule.clone()));
                None
            }
            Some(entry) => insert_into_entry(entry, &rule),
        };
        if replaced.is_some() {
            return replaced;
        }
        for (s, index) in self.indices.iter_mut().enumerate() {
            if let Some(index) = index {
                *index.entry(hashes[s]).or_insert(0) += 1;
            }
        }
        self.n += 1;
        *self.priorities.entry(rule.priority).or_insert(0) += 1;
        self.max_priority = self.max_priority.max(rule.priority);
        self.ports.insert(Subtable::ports_of(&flow), self.ports_len);
        None
    }

    fn remove(&mut self, rule: &Rule) -> Option<Arc<Rule>> {
        let flow = rule.matching.expand().flow;
        let hashes = self.stage_hashes(flow.words());
        let key = hashes[self.last_stage];
        let entry = self.rules.get_mut(&key)?;
        let at = entry.rules().iter().position(|r| same_key(r, rule))?;
        let gone = entry.rules()[at].clone();
        match entry {
            Entry::One(_) => {
                self.rules.remove(&key);
            }
            Entry::Many(v) => {
                let v = Arc::make_mut(v);
                v.remove(at);
                if let [one] = v.as_slice() {
                    *entry = Entry::One(one.clone());
                }
            }
        }
        for (s, index) in self.indices.iter_mut().enumerate() {
            let Some(index) = index else { continue };
            if let Some(n) = index.get_mut(&hashes[s]) {
                *n -= 1;
                if *n == 0 {
                    index.remove(&hashes[s]);
                }
            }
        }
        self.n -= 1;
        if let Some(n) = self.priorities.get_mut(&rule.priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&rule.priority);
            }
        }
        self.max_priority = self.priorities.get_max().map_or(i32::MIN, |(p, _)| *p);
        self.ports.remove(Subtable::ports_of(&flow), self.ports_len);
        Some(gone)
    }

    fn find(&self, matching: &CompactMatch, priority: i32) -> Option<&Arc<Rule>> {
        let flow = matching.expand().flow;
        let key = self.stage_hashes(flow.words())[self.last_stage];
        self.rules
            .get(&key)?
            .rules()
            .iter()
            .find(|r| r.priority == priority && r.matching.values == matching.values)
    }

    /// The best rule for `flow`. Folds what was looked at into `mask`.
    #[inline]
    fn lookup(&self, flow: &Flow, tries: &mut TrieLookups<'_>, mask: &mut Mask) -> Option<&Arc<Rule>> {
        let words = flow.words();
        let mut h = SEED;
        for s in 0..=self.last_stage {
            h = hash_words(h, &self.mask, self.stage_maps[s], words);
            if self.indices.get(s).and_then(Option::as_ref).is_some_and(|index| !index.contains_key(&h)) {
                self.explain_miss(s, flow, tries, mask);
                return None;
            }
        }
        let found = self.rules.get(&h).and_then(|e| e.rules().iter().find(|r| r.matching.covers(flow)));
        match found {
            Some(_) => self.fold(mask, self.mask.map),
            None => self.explain_miss(self.last_stage, flow, tries, mask),
        }
        found
    }

    /// Folds into `mask` the few bits that show that there is no match, known to fail at stage `failed`. Prefixes are
    /// asked here and not before: a match needs them not.
    #[cold]
    fn explain_miss(&self, failed: usize, flow: &Flow, tries: &mut TrieLookups<'_>, mask: &mut Mask) {
        let mut seen = 0;
        for s in 0..=failed {
            if tries.rules_out(self, s, flow, mask) {
                return self.fold(mask, seen);
            }
            if s < self.last_stage {
                seen |= self.stage_maps[s];
            }
        }
        if failed < self.last_stage {
            return self.fold(mask, seen);
        }
        if self.ports_len == 0 {
            return self.fold(mask, self.mask.map);
        }
        // The last stage has ports: their trie needs fewer bits than the whole mask.
        let own = self.mask.word(W_PORTS);
        let mut masked = Flow::default();
        masked.words_mut()[W_PORTS] = flow.words()[W_PORTS] & own;
        let (lens, needed) = self.ports.lookup(Subtable::ports_of(&masked), 32);
        if lens.has(self.ports_len) {
            // A rule has these ports: it is something else that does not match.
            return self.fold(mask, self.mask.map);
        }
        let m = (prefix_mask(needed) >> 96) as u32;
        let mut part = Mask::default();
        part.0.tp_src = ((m >> 16) as u16).into();
        part.0.tp_dst = (m as u16).into();
        mask.0.words_mut()[W_PORTS] |= own & part.0.words()[W_PORTS];
        self.fold(mask, seen);
    }

    fn fold(&self, mask: &mut Mask, map: u64) {
        for i in word_indices(map & self.mask.map) {
            mask.0.words_mut()[i] |= self.mask.word(i);
        }
    }
}

fn same_key(a: &Rule, b: &Rule) -> bool {
    a.priority == b.priority && a.matching.values == b.matching.values
}

fn insert_into_entry(entry: &mut Entry, rule: &Arc<Rule>) -> Option<Arc<Rule>> {
    let rules = entry.rules();
    if let Some(at) = rules.iter().position(|r| same_key(r, rule)) {
        let old = rules[at].clone();
        match entry {
            Entry::One(r) => *r = rule.clone(),
            Entry::Many(v) => Arc::make_mut(v)[at] = rule.clone(),
        }
        return Some(old);
    }
    let at = rules.iter().position(|r| r.priority < rule.priority).unwrap_or(rules.len());
    let mut all = rules.to_vec();
    all.insert(at, rule.clone());
    *entry = Entry::Many(Arc::new(all));
    None
}

/// Prefix lookups of one packet, made at most once per field.
struct TrieLookups<'a> {
    tries: &'a [PrefixTrie; N_TRIES],
    done: [Option<(PrefixLens, u8)>; N_TRIES],
}

impl TrieLookups<'_> {
    /// Whether prefixes alone show that `subtable` has no match; then the bits that show it are in `mask`.
    #[inline]
    fn rules_out(&mut self, subtable: &Subtable, stage: usize, flow: &Flow, mask: &mut Mask) -> bool {
        for (i, field) in TRIE_FIELDS.into_iter().enumerate() {
            let len = subtable.trie_lens[i];
            if len == 0 || (1 << W_NW) & subtable.stage_maps[stage] == 0 {
                continue;
            }
            let (lens, needed) = *self.done[i].get_or_insert_with(|| {
                if flow.dl_type.get() == ETH_IP {
                    self.tries[i].lookup(field.value(flow), WIDTH)
                } else {
                    (PrefixLens::ALL, 0)
                }
            });
            if lens.has(len) {
                continue;
            }
            let looked_at = field.value(&mask.0);
            if needed <= len {
                field.set(mask, looked_at | prefix_mask(needed));
                return true;
            }
            if looked_at & prefix_mask(needed) == prefix_mask(needed) {
                return true;
            }
        }
        false
    }
}

/// The rules of one table.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    n: usize,
    /// By falling `max_priority`.
    subtables: Vec<Arc<Subtable>>,
    tries: [PrefixTrie; N_TRIES],
}

impl Classifier {
    /// Number of rules.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Number of masks.
    pub fn n_masks(&self) -> usize {
        self.subtables.len()
    }

    /// The mask equal to `mask` that rules of this table share already, or `mask` itself.
    pub fn shared_mask(&self, mask: Arc<CompactMask>) -> Arc<CompactMask> {
        self.position(&mask).map_or(mask, |at| self.subtables[at].mask.clone())
    }

    /// The rule of highest priority that matches `flow`. Bits looked at are folded into `mask`.
    pub fn lookup(&self, flow: &Flow, mask: &mut Mask) -> Option<&Arc<Rule>> {
        let mut tries = TrieLookups { tries: &self.tries, done: [None; N_TRIES] };
        let mut best: Option<&Arc<Rule>> = None;
        for s in &self.subtables {
            if best.is_some_and(|b| b.priority >= s.max_priority) {
                break;
            }
            if let Some(r) = s.lookup(flow, &mut tries, mask) {
                if best.is_none_or(|b| r.priority > b.priority) {
                    best = Some(r);
                }
            }
        }
        best
    }

    fn position(&self, mask: &CompactMask) -> Option<usize> {
        self.subtables.iter().position(|s| *s.mask == *mask)
    }

    /// Adds `rule`; returns the rule of equal match and priority that it replaces.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let at = self.position(&rule.matching.mask).unwrap_or_else(|| {
            self.subtables.push(Arc::new(Subtable::new(rule.matching.mask.clone())));
            self.subtables.len() - 1
        });
        let subtable = Arc::make_mut(&mut self.subtables[at]);
        let before = subtable.max_priority;
        let replaced = subtable.insert(rule.clone());
        let (after, lens) = (subtable.max_priority, subtable.trie_lens);
        if replaced.is_none() {
            self.n += 1;
            let flow = rule.matching.expand().flow;
            for (i, f) in TRIE_FIELDS.into_iter().enumerate() {
                self.tries[i].insert(f.value(&flow), lens[i]);
            }
        }
        if before != after {
            self.sort();
        }
        replaced
    }

    /// Removes the rule with the match and priority of `rule`.
    pub fn remove(&mut self, rule: &Rule) -> Option<Arc<Rule>> {
        let at = self.position(&rule.matching.mask)?;
        let subtable = Arc::make_mut(&mut self.subtables[at]);
        let before = subtable.max_priority;
        let gone = subtable.remove(rule)?;
        let (after, lens, empty) = (subtable.max_priority, subtable.trie_lens, subtable.n == 0);
        self.n -= 1;
        let flow = rule.matching.expand().flow;
        for (i, f) in TRIE_FIELDS.into_iter().enumerate() {
            self.tries[i].remove(f.value(&flow), lens[i]);
        }
        if empty {
            self.subtables.remove(at);
        } else if before != after {
            self.sort();
        }
        Some(gone)
    }

    fn sort(&mut self) {
        self.subtables.sort_by_key(|s| std::cmp::Reverse(s.max_priority));
    }

    /// The rule with exactly this match and priority.
    pub fn find(&self, matching: &CompactMatch, priority: i32) -> Option<&Arc<Rule>> {
        self.subtables[self.position(&matching.mask)?].find(matching, priority)
    }

    /// All rules.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.subtables.iter().flat_map(|s| s.rules.values().flat_map(|e| e.rules()))
    }

    /// The rules whose matches are within `criteria` (loose matching, OpenFlow 1.3 §6.4).
    pub fn iter_within<'a>(&'a self, criteria: &'a CompactMatch) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.subtables
            .iter()
            .filter(|s| criteria.mask.iter().all(|(i, w)| s.mask.word(i) & w == w))
            .flat_map(|s| s.rules.values().flat_map(|e| e.rules()))
            .filter(|r| r.matching.is_within(criteria))
    }

    /// Whether a rule of the same priority overlaps `matching` (other than the very same match).
    pub fn overlaps(&self, matching: &CompactMatch, priority: i32) -> bool {
        self.subtables
            .iter()
            .filter(|s| s.priorities.contains_key(&priority))
            .flat_map(|s| s.rules.values().flat_map(|e| e.rules()))
            .any(|r| r.priority == priority && r.matching.overlaps(matching))
    }
}

#[cfg(test)]
#[path = "classifier_tests.rs"]
mod tests;

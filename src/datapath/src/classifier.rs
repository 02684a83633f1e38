//! The megaflow classifier of one input port: tuple space search, one subtable per mask.
//!
//! A subtable is an open-addressing table of buckets of one cache line (seven 32-bit tags and indices) over entries
//! that hold the masked words. Lookups take a whole burst through one subtable at a time, in phases: mask and hash
//! all, prefetch, probe all. Subtables are tried in the order of their recent hits: first the lead, which most keys
//! hit; then, where there are many more, only those that [`Pruner`] leaves over.
//!
//! Neighbours: `engine` looks up and inserts; entries hold indices into `flows`. Threads: owned by one.

use crate::hash;
use crate::prefetch;
use crate::pruner::{Lay, Pruner};
use crate::shared::Compact;
use crate::simple::{lead, FEW_MASKS};
use flow::{Miniflow, PKT_WORDS};
use hashbrown::HashMap;
use std::sync::Arc;

/// Index of a megaflow of this thread.
pub(crate) type FlowIdx = u32;
/// "No megaflow".
pub(crate) const NO_FLOW: FlowIdx = u32::MAX;
/// Packets in a burst.
pub(crate) const BURST: usize = packet::BATCH_SIZE;

/// Subtables beyond the lead from which on they are pruned instead of tried one by one.
const PRUNE_FROM: usize = 12;
/// Masks of a port; megaflows of further ones are made narrower, so that they share a few.
const MAX_MASKS: usize = 32_768;
const WAYS: usize = 7;
/// Masks up to so many words have their own instance of the lookup.
const MAX_SPECIAL: usize = 8;

#[derive(Clone, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Non-zero where a way is in use.
    tags: [u32; WAYS],
    /// Entries whose home is here or before and that went on to a later bucket.
    overflow: u32,
    entries: [u32; WAYS],
    _pad: u32,
}

/// How the words of a mask are found in keys of one shape.
#[derive(Clone)]
struct Plan {
    map: u64,
    /// Place of each mask word among the packed words; `ABSENT` when the key has no such word.
    at: [u8; PKT_WORDS],
    complete: bool,
}

const ABSENT: u8 = u8::MAX;

/// Megaflows of one mask.
pub(crate) struct Subtable {
    mask: Arc<Compact>,
    /// Word index of each mask word.
    index: Box<[u8]>,
    plan: Plan,
    buckets: Vec<Bucket>,
    /// `stride` words an entry: the masked words, then the flow index.
    entries: Vec<u64>,
    free: Vec<u32>,
    len: usize,
    hits: u64,
    seed: u64,
    lay: Lay,
}

/// Where an entry is, for removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) subtable: u32,
    pub(crate) entry: u32,
}

impl Subtable {
    fn new(mask: Arc<Compact>, index: Box<[u8]>, seed: u64, lay: Lay) -> Subtable {
        Subtable {
            mask,
            index,
            plan: Plan { map: 0, at: [ABSENT; PKT_WORDS], complete: false },
            buckets: vec![Bucket::default(); 2],
            entries: Vec::new(),
            free: Vec::new(),
            len: 0,
            hits: 0,
            seed,
            lay,
        }
    }

    fn n(&self) -> usize {
        self.index.len()
    }

    fn stride(&self) -> usize {
        self.index.len() + 1
    }

    /// Its megaflows from entry `from` on, with the entries behind them.
    fn flows(&self, from: usize) -> impl Iterator<Item = (usize, FlowIdx)> + '_ {
        let all = self.entries.chunks_exact(self.stride()).enumerate().skip(from);
        all.map(|(i, e)| (i + 1, e[self.n()] as FlowIdx)).filter(|(_, f)| *f != NO_FLOW)
    }

    /// Makes the plan fit keys whose words are `map`.
    #[inline(always)]
    fn plan_for(&mut self, map: u64) {
        if self.plan.map != map {
            self.replan(map);
        }
    }

    #[cold]
    fn replan(&mut self, map: u64) {
        self.plan = Plan { map, at: [ABSENT; PKT_WORDS], complete: true };
        for (slot, &i) in self.plan.at.iter_mut().zip(self.index.iter()) {
            let bit = 1u64 << i;
            if map & bit != 0 {
                *slot = (map & (bit - 1)).count_ones() as u8;
            } else {
                self.plan.complete = false;
            }
        }
    }

    /// The words of `key` under the mask, in `out[..n]`.
    #[inline(always)]
    fn masked(&self, key: &Miniflow, out: &mut [u64]) {
        let mask = self.mask.words();
        let n = out.len().min(mask.len());
        if self.plan.complete {
            for j in 0..n {
                out[j] = key.values[usize::from(self.plan.at[j]).min(PKT_WORDS - 1)] & mask[j];
            }
        } else {
            for j in 0..n {
                let at = usize::from(self.plan.at[j]);
                out[j] = if at < PKT_WORDS { key.values[at] & mask[j] } else { 0 };
            }
        }
    }

    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash >> 32) as u32 | 1
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The entry whose masked words are `words`.
    #[inline(always)]
    fn probe(&self, hash: u64, words: &[u64]) -> Option<u32> {
        let tag = Subtable::tag(hash);
        let mut b = self.home(hash);
        let stride = words.len() + 1;
        loop {
            let bucket = &self.buckets[b];
            let mut found = 0u32;
            for (i, t) in bucket.tags.iter().enumerate() {
                found |= u32::from(*t == tag) << i;
            }
            while found != 0 {
                let e = bucket.entries[found.trailing_zeros() as usize % WAYS];
                let at = e as usize * stride;
                if self.entries.get(at..at + words.len()).is_some_and(|have| have == words) {
                    return Some(e);
                }
                found &= found - 1;
            }
            if bucket.overflow == 0 {
                return None;
            }
            b = (b + 1) & (self.buckets.len() - 1);
        }
    }

    #[inline(always)]
    fn flow_of(&self, entry: u32) -> FlowIdx {
        let at = (entry as usize + 1) * self.stride() - 1;
        self.entries.get(at).map_or(NO_FLOW, |w| *w as FlowIdx)
    }

    /// Links `entry` into the first bucket with room from its home on.
    fn link(&mut self, hash: u64, entry: u32) {
        let mut b = self.home(hash);
        let mask = self.buckets.len() - 1;
        loop {
            let bucket = &mut self.buckets[b];
            if let Some(w) = bucket.tags.iter().position(|t| *t == 0) {
                bucket.tags[w] = Subtable::tag(hash);
                bucket.entries[w] = entry;
                return;
            }
            bucket.overflow += 1;
            b = (b + 1) & mask;
        }
    }

    fn unlink(&mut self, hash: u64, entry: u32) {
        let mut b = self.home(hash);
        let mask = self.buckets.len() - 1;
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[b];
            if let Some(w) = (0..WAYS).find(|&w| bucket.tags[w] != 0 && bucket.entries[w] == entry) {
                bucket.tags[w] = 0;
                return;
            }
            bucket.overflow -= 1;
            b = (b + 1) & mask;
        }
    }

    fn entry_words(&self, entry: u32) -> &[u64] {
        let at = entry as usize * self.stride();
        &self.entries[at..at + self.n()]
    }

    fn entry_hash(&self, entry: u32) -> u64 {
        hash::words(self.seed, self.entry_words(entry))
    }

    /// Makes the table `buckets` large (a power of two) and links every entry anew.
    fn rehash(&mut self, buckets: usize) {
        let old = std::mem::take(&mut self.buckets);
        self.buckets = vec![Bucket::default(); buckets];
        for b in &old {
            for w in 0..WAYS {
                if b.tags[w] != 0 {
                    let e = b.entries[w];
                    self.link(self.entry_hash(e), e);
                }
            }
        }
    }

    fn insert(&mut self, words: &[u64], flow: FlowIdx) -> u32 {
        if (self.len + 1) * 8 > self.buckets.len() * WAYS * 5 {
            self.rehash(self.buckets.len() * 2);
        }
        let stride = self.stride();
        let entry = self.free.pop().unwrap_or((self.entries.len() / stride) as u32);
        let at = entry as usize * stride;
        if self.entries.len() < at + stride {
            self.entries.resize(at + stride, 0);
        }
        self.entries[at..at + words.len()].copy_from_slice(words);
        self.entries[at + stride - 1] = u64::from(flow);
        self.link(hash::words(self.seed, words), entry);
        self.len += 1;
        entry
    }

    fn remove(&mut self, entry: u32) {
        self.unlink(self.entry_hash(entry), entry);
        let at = (entry as usize + 1) * self.stride() - 1;
        self.entries[at] = u64::from(NO_FLOW);
        self.free.push(entry);
        self.len -= 1;
    }

    /// Takes the keys in `todo` through this subtable; returns those it has.
    fn lookup<const N: usize>(
        &mut self,
        keys: &[Miniflow; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
    ) -> u32 {
        let mut words = [[0u64; N]; BURST];
        let mut hashes = [0u64; BURST];
        let mut rest = todo;
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            self.plan_for(keys[i].map);
            self.masked(&keys[i], &mut words[i]);
            hashes[i] = hash::words(self.seed, &words[i]);
            prefetch::read(&self.buckets[self.home(hashes[i])]);
        }
        let (mut rest, mut found) = (todo, 0);
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            if let Some(e) = self.probe(hashes[i], &words[i]) {
                out[i] = self.flow_of(e);
                found |= 1 << i;
            }
        }
        found
    }

    /// As `lookup`, for any number of words, one key at a time: fallback and oracle.
    fn lookup_one(&mut self, key: &Miniflow) -> Option<FlowIdx> {
        let mut words = [0u64; PKT_WORDS];
        let n = self.n();
        self.plan_for(key.map);
        self.masked(key, &mut words[..n]);
        self.probe(hash::words(self.seed, &words[..n]), &words[..n]).map(|e| self.flow_of(e))
    }

    fn lookup_any(&mut self, keys: &[Miniflow; BURST], todo: u32, out: &mut [FlowIdx; BURST]) -> u32 {
        let (mut rest, mut found) = (todo, 0);
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            if let Some(f) = self.lookup_one(&keys[i]) {
                out[i] = f;
                found |= 1 << i;
            }
        }
        found
    }

    fn lookup_burst(&mut self, keys: &[Miniflow; BURST], todo: u32, out: &mut [FlowIdx; BURST]) -> u32 {
        match self.n() {
            1 => self.lookup::<1>(keys, todo, out),
            2 => self.lookup::<2>(keys, todo, out),
            3 => self.lookup::<3>(keys, todo, out),
            4 => self.lookup::<4>(keys, todo, out),
            5 => self.lookup::<5>(keys, todo, out),
            6 => self.lookup::<6>(keys, todo, out),
            7 => self.lookup::<7>(keys, todo, out),
            MAX_SPECIAL => self.lookup::<MAX_SPECIAL>(keys, todo, out),
            _ => self.lookup_any(keys, todo, out),
        }
    }
}

/// How far a walk over all megaflows has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    subtable: usize,
    entry: usize,
}

/// The megaflows of one input port.
pub(crate) struct Classifier {
    subtables: Vec<Option<Box<Subtable>>>,
    free: Vec<u32>,
    /// Subtables in the order they are tried.
    order: Vec<u32>,
    /// Subtables at the front that are tried one by one, before a guess is made.
    lead: usize,
    by_mask: HashMap<Arc<Compact>, u32>,
    pruner: Pruner,
    /// Masks before new ones are widened.
    limit: usize,
    seed: u64,
}

impl Classifier {
    pub(crate) fn new(seed: u64) -> Classifier {
        Classifier {
            subtables: Vec::new(),
            free: Vec::new(),
            order: Vec::new(),
            lead: 0,
            by_mask: HashMap::new(),
            pruner: Pruner::new(seed),
            limit: MAX_MASKS,
            seed,
        }
    }

    /// Masks in use.
    pub(crate) fn n_masks(&self) -> usize {
        self.order.len()
    }

    /// Whether there are masks beyond the lead.
    #[inline(always)]
    pub(crate) fn is_deep(&self) -> bool {
        self.order.len() > self.lead
    }

    /// Looks up the keys in `todo` in the subtables of the lead; what is found is in `out`, what is not is returned.
    /// Counts into `looked` the subtables that each found key took.
    pub(crate) fn lookup_lead(
        &mut self,
        keys: &[Miniflow; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
        looked: &mut u64,
    ) -> u32 {
        self.scan(0, self.lead, keys, todo, out, looked)
    }

    /// As `lookup_lead`, in all others.
    pub(crate) fn lookup_rest(
        &mut self,
        keys: &[Miniflow; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
        looked: &mut u64,
    ) -> u32 {
        if self.order.len() - self.lead <= PRUNE_FROM {
            return self.scan(self.lead, self.order.len(), keys, todo, out, looked);
        }
        let (mut rest, mut missed) = (todo, todo);
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            if let Some(f) = self.lookup_pruned(&keys[i], looked) {
                out[i] = f;
                missed &= !(1 << i);
            }
        }
        missed
    }

    fn scan(
        &mut self,
        from: usize,
        to: usize,
        keys: &[Miniflow; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
        looked: &mut u64,
    ) -> u32 {
        let mut todo = todo;
        for (depth, &s) in self.order.iter().enumerate().take(to).skip(from) {
            if todo == 0 {
                break;
            }
            let Some(sub) = self.subtables[s as usize].as_deref_mut() else { continue };
            let found = sub.lookup_burst(keys, todo, out);
            let n = u64::from(found.count_ones());
            sub.hits += n;
            *looked += n * (depth as u64 + 1);
            todo &= !found;
        }
        todo
    }

    /// Looks up one key in the subtables beyond the lead that can have it.
    fn lookup_pruned(&mut self, key: &Miniflow, looked: &mut u64) -> Option<FlowIdx> {
        let mut tried = self.lead as u64;
        for (w, &set) in self.pruner.candidates(key).iter().enumerate() {
            let mut set = set;
            while set != 0 {
                let id = w * 64 + set.trailing_zeros() as usize;
                set &= set - 1;
                tried += 1;
                let Some(sub) = self.subtables.get_mut(id).and_then(|s| s.as_deref_mut()) else { continue };
                if let Some(f) = sub.lookup_one(key) {
                    sub.hits += 1;
                    *looked += tried;
                    return Some(f);
                }
            }
        }
        None
    }

    /// Looks up one key.
    pub(crate) fn lookup_one(&mut self, key: &Miniflow) -> Option<FlowIdx> {
        let pruned = self.order.len() - self.lead > PRUNE_FROM;
        let n = if pruned { self.lead } else { self.order.len() };
        for &s in &self.order[..n] {
            if let Some(f) = self.subtables[s as usize].as_deref_mut().and_then(|sub| sub.lookup_one(key)) {
                return Some(f);
            }
        }
        if pruned {
            return self.lookup_pruned(key, &mut 0);
        }
        None
    }

    /// Whether `key` belongs to `flow`, whose place is `at`; a guess.
    #[inline]
    pub(crate) fn is_of(&mut self, at: Place, flow: FlowIdx, key: &Miniflow) -> bool {
        let Some(Some(sub)) = self.subtables.get_mut(at.subtable as usize) else { return false };
        let (mut words, n) = ([0u64; PKT_WORDS], sub.n());
        sub.plan_for(key.map);
        sub.masked(key, &mut words[..n]);
        let from = at.entry as usize * (n + 1);
        let Some(have) = sub.entries.get(from..from + n + 1) else { return false };
        let same = have[..n] == words[..n] && have[n] == u64::from(flow);
        sub.hits += u64::from(same);
        same
    }

    /// The mask of a subtable that equals `mask`, so that megaflows share it. A new one is widened to whole words
    /// when there are very many: a narrower megaflow is as right, and its mask one of few.
    pub(crate) fn share_mask(&mut self, mask: Compact) -> Arc<Compact> {
        if let Some((m, _)) = self.by_mask.get_key_value(&mask) {
            return Arc::clone(m);
        }
        if self.by_mask.len() < self.limit {
            return Arc::new(mask);
        }
        let mask = mask.widened();
        match self.by_mask.get_key_value(&mask) {
            Some((m, _)) => Arc::clone(m),
            None => Arc::new(mask),
        }
    }

    /// Adds a megaflow for keys equal to `key` under `mask`. The caller knows that there is none.
    pub(crate) fn insert(&mut self, key: &Miniflow, mask: &Arc<Compact>, flow: FlowIdx) -> Place {
        let id = match self.by_mask.get(mask) {
            Some(id) => *id,
            None => self.add_subtable(mask),
        };
        let mut words = [0u64; PKT_WORDS];
        let Some(sub) = self.subtables[id as usize].as_deref_mut() else {
            return Place { subtable: u32::MAX, entry: u32::MAX };
        };
        let n = sub.n();
        sub.plan_for(key.map);
        sub.masked(key, &mut words[..n]);
        self.pruner.entry(&sub.lay, &words[..n], true);
        Place { subtable: id, entry: sub.insert(&words[..n], flow) }
    }

    fn add_subtable(&mut self, mask: &Arc<Compact>) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.subtables.push(None);
            (self.subtables.len() - 1) as u32
        });
        let index: Box<[u8]> = mask.iter().map(|(i, _)| i as u8).collect();
        let lay = self.pruner.add(id, &index, mask.words());
        let sub = Subtable::new(Arc::clone(mask), index, self.seed, lay);
        self.subtables[id as usize] = Some(Box::new(sub));
        self.order.push(id);
        self.by_mask.insert(Arc::clone(mask), id);
        if self.order.len() <= FEW_MASKS {
            self.set_lead(self.order.len());
        }
        id
    }

    /// Makes the first `n` subtables the lead.
    fn set_lead(&mut self, n: usize) {
        self.lead = n;
        for (i, id) in self.order.iter().enumerate() {
            self.pruner.open(*id, i >= n);
        }
    }

    /// Removes a megaflow; its subtable goes with the last one.
    pub(crate) fn remove(&mut self, at: Place) {
        let Some(slot) = self.subtables.get_mut(at.subtable as usize) else { return };
        let Some(sub) = slot.as_deref_mut() else { return };
        self.pruner.entry(&sub.lay, sub.entry_words(at.entry), false);
        sub.remove(at.entry);
        if sub.len == 0 {
            self.pruner.remove(at.subtable, &sub.lay);
            self.by_mask.remove(&sub.mask);
            *slot = None;
            self.free.push(at.subtable);
            let leads = self.order[..self.lead].contains(&at.subtable);
            self.lead -= usize::from(leads);
            self.order.retain(|s| *s != at.subtable);
        }
    }

    /// Sorts the subtables by the hits since the last call, most first, and says how many lead.
    pub(crate) fn optimize(&mut self) {
        let subs = &mut self.subtables;
        let hits = |s: &u32| subs[*s as usize].as_ref().map_or(0, |t| t.hits);
        self.order.sort_unstable_by_key(|s| std::cmp::Reverse(hits(s)));
        let total: u64 = self.order.iter().map(hits).sum();
        let n = if self.order.len() <= FEW_MASKS {
            self.order.len()
        } else if total > 0 {
            lead(total, self.order.iter().map(hits))
        } else {
            self.lead
        };
        subs.iter_mut().flatten().for_each(|s| s.hits = 0);
        self.set_lead(n);
    }

    /// Megaflows from `cursor` on, so many at the most; the cursor moves behind them.
    pub(crate) fn flows(&self, cursor: &mut Cursor, max: usize) -> Vec<FlowIdx> {
        let mut found = Vec::new();
        while let Some(slot) = self.subtables.get(cursor.subtable) {
            let from = cursor.entry;
            for (behind, flow) in slot.iter().flat_map(|s| s.flows(from)).take(max - found.len()) {
                found.push(flow);
                cursor.entry = behind;
            }
            if found.len() == max {
                break;
            }
            *cursor = Cursor { subtable: cursor.subtable + 1, entry: 0 };
        }
        found
    }

    /// Whether there is no megaflow.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_mask.is_empty()
    }
}

#[cfg(test)]
#[path = "classifier_tests.rs"]
mod tests;

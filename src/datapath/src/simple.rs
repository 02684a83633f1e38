//! The simple match: megaflows found by the raw bytes of the headers, before a key is made.
//!
//! Most packets of most switches are plain: Ethernet, IPv4 without options or fragments, TCP or UDP. For such a
//! packet every field that a megaflow can look at stands at a fixed place in the first 48 bytes, so that a
//! megaflow's key and mask can be turned into 48 bytes each and compared with the frame as it lies in the buffer. Nothing is
//! parsed. What is not plain, or not found here, takes the long way with the same result: this is an index of a
//! part of the classifier, never an authority.
//!
//! The masks that most packets hit are tried first, one by one ("the lead"). For the rest the signature match cache
//! guesses the megaflow of a microflow, and the frame is compared with that one ([`RawFlows`]). Only then come the
//! tables of the other masks, and beyond [`MAX_MASKS`] the classifier.
//!
//! Neighbours: `engine` asks before anything else, and keeps it in step with the classifier. Threads: owned by one.

use crate::classifier::{FlowIdx, BURST, NO_FLOW};
use crate::hash::Rng;
use crate::prefetch;
use crate::shared::Compact;
use flow::Flow;
use hashbrown::HashMap;
use std::mem::{offset_of, size_of};

/// Words looked at: the headers up to the TCP flags.
const WORDS: usize = 6;
const BYTES: usize = WORDS * 8;
/// Masks of a port that have a table; megaflows of others are guessed or found in the classifier.
const MAX_MASKS: usize = 32;
/// So few masks are all tried one by one.
pub(crate) const FEW_MASKS: usize = 4;
/// Entries from which on a table is taken not to be in the nearest cache.
const BIG: usize = 256;
/// Entries of one mask.
const MAX_ENTRIES: usize = 1 << 18;

/// The first bytes of a frame.
pub(crate) type Raw = [u64; WORDS];

const NOWHERE: u8 = u8::MAX;

/// Where each byte of a flow stands in a plain frame.
const RAW_AT: [u8; size_of::<Flow>()] = {
    let mut at = [NOWHERE; size_of::<Flow>()];
    let fields = [
        (offset_of!(Flow, dl_dst), 0, 6),
        (offset_of!(Flow, dl_src), 6, 6),
        (offset_of!(Flow, dl_type), 12, 2),
        (offset_of!(Flow, nw_tos), 15, 1),
        (offset_of!(Flow, nw_ttl), 22, 1),
        (offset_of!(Flow, nw_proto), 23, 1),
        (offset_of!(Flow, nw_src), 26, 4),
        (offset_of!(Flow, nw_dst), 30, 4),
        (offset_of!(Flow, tp_src), 34, 2),
        (offset_of!(Flow, tp_dst), 36, 2),
    ];
    let mut f = 0;
    while f < fields.len() {
        let (from, to, n) = fields[f];
        let mut i = 0;
        while i < n {
            at[from + i] = (to + i) as u8;
            i += 1;
        }
        f += 1;
    }
    at
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The words of a plain frame and its TCP flags; `None` when it is not plain.
#[inline(always)]
pub(crate) fn plain(frame: &[u8]) -> Option<(Raw, u16)> {
    const TYPE: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0x08, 0x00, 0x45, 0]);
    const TYPE_MASK: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    const FRAG_MASK: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0x3f, 0xff, 0, 0]);
    let b = frame.first_chunk::<BYTES>()?;
    let w = words(b);
    if w[1] & TYPE_MASK != TYPE || w[2] & FRAG_MASK != 0 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([b[16], b[17]]));
    if total + 14 > frame.len() {
        return None;
    }
    match b[23] {
        UDP if total >= 28 => Some((w, 0)),
        TCP => {
            let header = usize::from(b[46] >> 4) * 4;
            let fits = header >= 20 && 20 + header <= total;
            fits.then_some((w, u16::from_be_bytes([b[46] & 0x0f, b[47]])))
        }
        _ => None,
    }
}

#[inline(always)]
fn words(b: &[u8; BYTES]) -> Raw {
    let mut w = [0; WORDS];
    for (w, c) in w.iter_mut().zip(b.chunks_exact(8)) {
        *w = u64::from_ne_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
    }
    w
}

/// Key and mask of a megaflow as raw bytes, if plain frames received on `in_port` can be told by them.
fn project(key: &Flow, mask: &Compact, in_port: u32) -> Option<(Raw, Raw)> {
    let (mut rk, mut rm) = ([0u8; BYTES], [0u8; BYTES]);
    let flags = offset_of!(Flow, tcp_flags)..offset_of!(Flow, tcp_flags) + 2;
    let port = offset_of!(Flow, in_port);
    let proto = offset_of!(Flow, nw_proto);
    let exact_proto = mask.iter().any(|(i, m)| i == proto / 8 && m.to_ne_bytes()[proto % 8] == 0xff);
    let bytes = mask.iter().flat_map(|(i, m)| (i * 8..).zip(m.to_ne_bytes()));
    for (o, m) in bytes.filter(|(_, m)| *m != 0) {
        let k = key.bytes()[o];
        let k = k & m;
        let mut at = RAW_AT[o];
        let mut m = m;
        if flags.contains(&o) && exact_proto && key.nw_proto == TCP {
            at = (46 + o - flags.start) as u8;
            m &= if o == flags.start { 0x0f } else { 0xff };
        } else if flags.contains(&o) && !(exact_proto && key.nw_proto == UDP) {
            return None;
        }
        if at != NOWHERE {
            rk[usize::from(at)] = k & m;
            rm[usize::from(at)] = m;
            continue;
        }
        // The same in all plain frames from this port.
        let constant = if (port..port + 4).contains(&o) { in_port.to_ne_bytes()[o - port] } else { 0 };
        if k != constant & m {
            return None;
        }
    }
    Some((words(&rk), words(&rm)))
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry {
    key: Raw,
    flow: FlowIdx,
}

const EMPTY: Entry = Entry { key: [0; WORDS], flow: NO_FLOW };

/// Entries of one mask, open addressing by whole cache lines.
struct Sub {
    mask: Raw,
    /// Index of the mask.
    id: u32,
    entries: Vec<Entry>,
    len: usize,
}

/// A megaflow as raw bytes, to check a guess.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct RawFlow {
    key: Raw,
    /// Index of its mask at its port; `NO_MASK`: plain frames are not told by raw bytes.
    mask: u32,
    in_port: u32,
}

const NO_MASK: u32 = u32::MAX;

/// The megaflows of a thread as raw bytes, by their index.
#[derive(Default)]
pub(crate) struct RawFlows(Vec<RawFlow>);

impl RawFlows {
    fn set(&mut self, flow: FlowIdx, raw: RawFlow) {
        let at = flow as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, RawFlow { key: [0; WORDS], mask: NO_MASK, in_port: 0 });
        }
        self.0[at] = raw;
    }

    fn clear(&mut self, flow: FlowIdx) {
        if let Some(r) = self.0.get_mut(flow as usize) {
            r.mask = NO_MASK;
        }
    }

    /// Fetches what a check of `flow` looks at.
    #[inline(always)]
    pub(crate) fn prefetch(&self, flow: FlowIdx) {
        if let Some(r) = self.0.get(flow as usize) {
            prefetch::read(r);
        }
    }
}

/// A mask in use at a port.
#[repr(C, align(64))]
struct RawMask {
    mask: Raw,
    hits: u64,
    flows: u32,
    /// Whether it has a table.
    tabled: bool,
}

/// Bits of a frame by which microflows are told apart: addresses, protocol, ports.
const MICROFLOW: Raw = {
    const fn part(from: usize, to: usize) -> u64 {
        let mut b = [0u8; 8];
        let mut i = from;
        while i < to {
            b[i] = 0xff;
            i += 1;
        }
        u64::from_ne_bytes(b)
    }
    [u64::MAX, part(0, 4), part(7, 8), part(2, 8), part(0, 6), 0]
};

/// How many of the most hit masks, whose `hits` are given in that order, are worth to be tried one by one: those that
/// at least a quarter of what comes to them hits. A guess of the cache costs about four tries.
pub(crate) fn lead(total: u64, hits: impl Iterator<Item = u64>) -> usize {
    let mut rest = total;
    let worth = |h: &u64| {
        let yes = *h > 0 && h * 4 >= rest;
        rest -= if yes { *h } else { 0 };
        yes
    };
    hits.take_while(worth).count()
}

#[inline(always)]
fn and(a: &Raw, b: &Raw) -> Raw {
    std::array::from_fn(|i| a[i] & b[i])
}

/// No branch between the words: they become two or three vector operations.
#[inline(always)]
fn equal(a: &Raw, b: &Raw) -> bool {
    a.iter().zip(b).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

/// Multilinear hash under secret multipliers; its high half is universal.
#[inline(always)]
fn hash(w: &Raw, k: &Raw) -> usize {
    let sum = w.iter().zip(k).fold(0u64, |s, (w, k)| s.wrapping_add((w ^ w >> 32).wrapping_mul(*k)));
    (sum >> 32) as usize
}

impl Sub {
    #[inline(always)]
    fn find(&self, w: &Raw, k: &Raw) -> FlowIdx {
        let masked = and(w, &self.mask);
        if let [only] = self.entries.as_slice() {
            return if equal(&only.key, &masked) { only.flow } else { NO_FLOW };
        }
        let wrap = self.entries.len() - 1;
        let mut i = hash(&masked, k) & wrap;
        // At least half of the entries are empty.
        loop {
            let Some(e) = self.entries.get(i) else { return NO_FLOW };
            if equal(&e.key, &masked) || e.flow == NO_FLOW {
                return e.flow;
            }
            i = (i + 1) & wrap;
        }
    }

    /// Fetches the home entries of a burst.
    fn prefetch(&self, frames: &[Raw; BURST], todo: u32, k: &Raw) {
        let mut rest = todo;
        while rest != 0 {
            let i = rest.trailing_zeros() as usize % BURST;
            rest &= rest - 1;
            let at = hash(&and(&frames[i], &self.mask), k) & (self.entries.len() - 1);
            if let Some(e) = self.entries.get(at) {
                prefetch::read(e);
            }
        }
    }

    fn position(&self, key: &Raw, k: &Raw) -> usize {
        let wrap = self.entries.len() - 1;
        let mut i = hash(key, k) & wrap;
        while self.entries[i].flow != NO_FLOW && !equal(&self.entries[i].key, key) && wrap != 0 {
            i = (i + 1) & wrap;
        }
        i
    }

    fn insert(&mut self, key: Raw, flow: FlowIdx, k: &Raw) {
        if self.len > 0 && (self.len + 1) * 2 > self.entries.len() {
            if self.entries.len() >= MAX_ENTRIES {
                return;
            }
            let bigger = vec![EMPTY; (self.entries.len() * 2).max(4)];
            let old = std::mem::replace(&mut self.entries, bigger);
            for e in old.into_iter().filter(|e| e.flow != NO_FLOW) {
                let at = self.position(&e.key, k);
                self.entries[at] = e;
            }
        }
        let at = self.position(&key, k);
        self.len += usize::from(self.entries[at].flow == NO_FLOW);
        self.entries[at] = Entry { key, flow };
    }

    /// Removes the entry if it is `flow`'s, and closes the gap it leaves.
    fn remove(&mut self, key: &Raw, flow: FlowIdx, k: &Raw) {
        let mut gap = self.position(key, k);
        if self.entries[gap].flow != flow {
            return;
        }
        self.entries[gap] = EMPTY;
        self.len -= 1;
        let wrap = self.entries.len() - 1;
        let mut i = (gap + 1) & wrap;
        while wrap != 0 && self.entries[i].flow != NO_FLOW {
            let home = hash(&self.entries[i].key, k) & wrap;
            if (i.wrapping_sub(home) & wrap) >= (i.wrapping_sub(gap) & wrap) {
                self.entries[gap] = self.entries[i];
                self.entries[i] = EMPTY;
                gap = i;
            }
            i = (i + 1) & wrap;
        }
    }
}

/// The simple match of one input port.
pub(crate) struct Simple {
    in_port: u32,
    masks: Vec<RawMask>,
    free: Vec<u32>,
    by_mask: HashMap<Raw, u32>,
    subs: Vec<Sub>,
    /// Tables at the front that are tried before a guess.
    lead: usize,
    multipliers: Raw,
}

impl Simple {
    pub(crate) fn new(in_port: u32, seed: u64) -> Simple {
        let mut rng = Rng::new(seed ^ 0x2545_f491_4f6c_dd1d);
        let mut next = || u64::from(rng.next()) << 32 | u64::from(rng.next()) | 1;
        Simple {
            in_port,
            masks: Vec::new(),
            free: Vec::new(),
            by_mask: HashMap::new(),
            subs: Vec::new(),
            lead: 0,
            multipliers: std::array::from_fn(|_| next()),
        }
    }

    /// Whether nothing can be found.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_mask.is_empty()
    }

    /// Whether there are masks beyond the lead.
    #[inline(always)]
    pub(crate) fn is_deep(&self) -> bool {
        self.by_mask.len() > self.lead
    }

    /// The hash of a frame's microflow, for guesses.
    #[inline(always)]
    pub(crate) fn microflow(&self, w: &Raw) -> u64 {
        let w = and(w, &MICROFLOW);
        w.iter().zip(&self.multipliers).fold(0u64, |s, (w, k)| s.wrapping_add((w ^ w >> 32).wrapping_mul(*k)))
    }

    /// Finds the megaflows of the plain frames in `todo` among the most hit masks; returns those found.
    #[inline(always)]
    pub(crate) fn lookup_lead(
        &mut self,
        frames: &[Raw; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
    ) -> u32 {
        self.scan(0, self.lead, frames, todo, out)
    }

    /// As `lookup_lead`, among the others that have a table. Where most have none it is not tried.
    #[inline]
    pub(crate) fn lookup_rest(
        &mut self,
        frames: &[Raw; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
    ) -> u32 {
        if self.by_mask.len() > MAX_MASKS * 2 {
            return 0;
        }
        self.scan(self.lead, self.subs.len(), frames, todo, out)
    }

    #[inline(always)]
    fn scan(
        &mut self,
        from: usize,
        to: usize,
        frames: &[Raw; BURST],
        todo: u32,
        out: &mut [FlowIdx; BURST],
    ) -> u32 {
        let (mut todo, mut found) = (todo, 0u32);
        for sub in self.subs.get(from..to).unwrap_or_default() {
            if todo == 0 {
                break;
            }
            if sub.entries.len() > BIG {
                sub.prefetch(frames, todo, &self.multipliers);
            }
            let mut rest = todo;
            while rest != 0 {
                let i = rest.trailing_zeros() as usize % BURST;
                rest &= rest - 1;
                let f = sub.find(&frames[i], &self.multipliers);
                out[i] = f;
                found |= u32::from(f != NO_FLOW) << i;
            }
            if let Some(m) = self.masks.get_mut(sub.id as usize) {
                m.hits += u64::from((todo & found).count_ones());
            }
            todo &= !found;
        }
        found
    }

    /// Whether the plain frame with these words belongs to `flow`, which is a guess.
    #[inline(always)]
    pub(crate) fn is_of(&mut self, flows: &RawFlows, w: &Raw, flow: FlowIdx) -> bool {
        let Some(f) = flows.0.get(flow as usize) else { return false };
        let Some(m) = self.masks.get_mut(f.mask as usize) else { return false };
        let same = f.in_port == self.in_port && equal(&and(w, &m.mask), &f.key);
        m.hits += u64::from(same);
        same
    }

    /// Adds a megaflow, if it is one that plain frames can hit.
    pub(crate) fn insert(&mut self, key: &Flow, mask: &Compact, flow: FlowIdx, flows: &mut RawFlows) {
        let Some((key, mask)) = project(key, mask, self.in_port) else { return };
        let id = match self.by_mask.get(&mask) {
            Some(id) => *id,
            None => self.add_mask(mask),
        };
        let m = &mut self.masks[id as usize];
        m.flows += 1;
        flows.set(flow, RawFlow { key, mask: id, in_port: self.in_port });
        if !m.tabled && self.subs.len() < MAX_MASKS && m.flows == 1 {
            m.tabled = true;
            self.subs.push(Sub { mask, id, entries: vec![EMPTY], len: 0 });
            if self.by_mask.len() <= FEW_MASKS {
                self.lead = self.subs.len();
            }
        }
        if let Some(sub) = self.subs.iter_mut().find(|s| s.id == id) {
            sub.insert(key, flow, &self.multipliers);
        }
    }

    fn add_mask(&mut self, mask: Raw) -> u32 {
        let new = RawMask { mask, hits: 0, flows: 0, tabled: false };
        let id = match self.free.pop() {
            Some(id) => {
                self.masks[id as usize] = new;
                id
            }
            None => {
                self.masks.push(new);
                (self.masks.len() - 1) as u32
            }
        };
        self.by_mask.insert(mask, id);
        id
    }

    /// Removes a megaflow.
    pub(crate) fn remove(&mut self, key: &Flow, mask: &Compact, flow: FlowIdx, flows: &mut RawFlows) {
        let Some((key, mask)) = project(key, mask, self.in_port) else { return };
        let Some(&id) = self.by_mask.get(&mask) else { return };
        flows.clear(flow);
        if let Some(sub) = self.subs.iter_mut().find(|s| s.id == id) {
            sub.remove(&key, flow, &self.multipliers);
        }
        let m = &mut self.masks[id as usize];
        m.flows -= 1;
        if m.flows == 0 {
            m.hits = 0;
            self.by_mask.remove(&mask);
            self.free.push(id);
            self.drop_table(id);
        }
    }

    fn drop_table(&mut self, id: u32) {
        let Some(at) = self.subs.iter().position(|s| s.id == id) else { return };
        self.subs.remove(at);
        self.masks[id as usize].tabled = false;
        self.lead -= usize::from(at < self.lead);
    }

    /// Sorts the tables by the hits of their masks since the last call, most first, and says how many lead. A mask
    /// that much of the traffic hits gets a table in place of the least hit.
    pub(crate) fn optimize(&mut self, flows: &RawFlows) {
        let masks = &self.masks;
        let hits = |s: &Sub| masks.get(s.id as usize).map_or(0, |m| m.hits);
        self.subs.sort_unstable_by_key(|s| std::cmp::Reverse(hits(s)));
        let total: u64 = masks.iter().map(|m| m.hits).sum();
        let bare = masks.iter().enumerate().filter(|(_, m)| !m.tabled && m.flows > 0);
        let most = bare.max_by_key(|(_, m)| m.hits).map(|(id, m)| (id as u32, m.hits));
        if let Some((id, n)) = most.filter(|(_, n)| *n > 0 && n * 8 >= total) {
            let least = self.subs.last().map(|s| (s.id, hits(s)));
            if let Some((last, _)) = least.filter(|(_, least)| self.subs.len() >= MAX_MASKS && *least < n) {
                self.drop_table(last);
            }
            if self.subs.len() < MAX_MASKS {
                self.add_table(id, flows);
            }
        }
        if self.by_mask.len() <= FEW_MASKS {
            self.lead = self.subs.len();
        } else if total > 0 {
            let masks = &self.masks;
            self.lead = lead(total, self.subs.iter().map(|s| masks[s.id as usize].hits));
        }
        self.masks.iter_mut().for_each(|m| m.hits = 0);
    }

    /// Gives a mask a table.
    fn add_table(&mut self, id: u32, flows: &RawFlows) {
        let mut sub = Sub { mask: self.masks[id as usize].mask, id, entries: vec![EMPTY], len: 0 };
        for (i, f) in flows.0.iter().enumerate() {
            if f.mask == id && f.in_port == self.in_port {
                sub.insert(f.key, i as FlowIdx, &self.multipliers);
            }
        }
        self.masks[id as usize].tabled = true;
        let hits = |s: &Sub| self.masks[s.id as usize].hits;
        let at = self.subs.partition_point(|s| hits(s) > hits(&sub));
        self.subs.insert(at, sub);
    }

    /// Masks in use.
    #[cfg(test)]
    pub(crate) fn n_masks(&self) -> usize {
        self.by_mask.len()
    }
}

#[cfg(test)]
#[path = "simple_tests.rs"]
mod tests;

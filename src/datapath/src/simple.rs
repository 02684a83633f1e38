//! The simple match: megaflows found by the raw bytes of the headers, before a key is made.
//!
//! Most packets of most switches are plain: Ethernet, IPv4 without options or fragments, TCP or UDP. For such a
//! packet every field that a megaflow can look at stands at a fixed place in the first 48 bytes, so that a
//! megaflow's key and mask can be turned into 48 bytes each and compared with the frame as it lies in the buffer. Nothing is
//! parsed. What is not plain, or not found here, takes the long way with the same result: this is an index of a
//! part of the classifier, never an authority.
//!
//! Neighbours: `engine` asks before anything else, and keeps it in step with the classifier. Threads: owned by one.

use crate::classifier::{FlowIdx, BURST, NO_FLOW};
use crate::hash::Rng;
use crate::prefetch;
use crate::shared::Compact;
use flow::Flow;
use std::mem::{offset_of, size_of};

/// Words looked at: the headers up to the TCP flags.
const WORDS: usize = 6;
const BYTES: usize = WORDS * 8;
/// Masks a port may have here; those beyond are found in the classifier.
const MAX_MASKS: usize = 32;
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
    entries: Vec<Entry>,
    len: usize,
    hits: u64,
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
    subs: Vec<Sub>,
    multipliers: Raw,
}

impl Simple {
    pub(crate) fn new(in_port: u32, seed: u64) -> Simple {
        let mut rng = Rng::new(seed ^ 0x2545_f491_4f6c_dd1d);
        let mut next = || u64::from(rng.next()) << 32 | u64::from(rng.next()) | 1;
        Simple { in_port, subs: Vec::new(), multipliers: std::array::from_fn(|_| next()) }
    }

    /// Whether nothing can be found.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.subs.is_empty()
    }

    /// Finds the megaflows of the plain frames in `todo`; returns those found.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, frames: &[Raw; BURST], todo: u32, out: &mut [FlowIdx; BURST]) -> u32 {
        let (mut todo, mut found) = (todo, 0u32);
        for sub in &mut self.subs {
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
            sub.hits += u64::from((todo & found).count_ones());
            todo &= !found;
            if todo == 0 {
                break;
            }
        }
        found
    }

    /// Adds a megaflow, if it is one that plain frames can hit.
    pub(crate) fn insert(&mut self, key: &Flow, mask: &Compact, flow: FlowIdx) {
        let Some((key, mask)) = project(key, mask, self.in_port) else { return };
        let at = match self.subs.iter().position(|s| s.mask == mask) {
            Some(at) => at,
            None if self.subs.len() < MAX_MASKS => {
                self.subs.push(Sub { mask, entries: vec![EMPTY], len: 0, hits: 0 });
                self.subs.len() - 1
            }
            None => return,
        };
        self.subs[at].insert(key, flow, &self.multipliers);
    }

    /// Removes a megaflow.
    pub(crate) fn remove(&mut self, key: &Flow, mask: &Compact, flow: FlowIdx) {
        let Some((key, mask)) = project(key, mask, self.in_port) else { return };
        let Some(at) = self.subs.iter().position(|s| s.mask == mask) else { return };
        self.subs[at].remove(&key, flow, &self.multipliers);
        if self.subs[at].len == 0 {
            self.subs.remove(at);
        }
    }

    /// Sorts the masks by the hits since the last call, most first.
    pub(crate) fn optimize(&mut self) {
        self.subs.sort_by_key(|s| std::cmp::Reverse(s.hits));
        self.subs.iter_mut().for_each(|s| s.hits = 0);
    }
}

#[cfg(test)]
#[path = "simple_tests.rs"]
mod tests;

//! OpenFlow rules and their compact matches.
//!
//! A rule is immutable once it is in a table, but for its counters: modifying one puts a new rule with the same
//! [`RuleStats`] in its place, so every published version of the tables stays whole.
//!
//! Neighbours: `classifier` indexes rules, `flow_mod` makes them, `xlate` runs their actions, `revalidate` credits
//! their counters. Threads: shared by all behind `Arc`; counters are atomics.

use flow::{Flow, Mask, Match, FLOW_WORDS};
use openflow::Action;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// The non-zero words of a mask. Shared by the rules of one subtable.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CompactMask {
    /// Bit i: word i of the mask is not zero.
    pub map: u64,
    /// The non-zero words, in order.
    pub words: Box<[u64]>,
}

/// Indices of the set bits of `map`, ascending.
pub fn word_indices(map: u64) -> impl Iterator<Item = usize> {
    let mut m = map;
    std::iter::from_fn(move || {
        if m == 0 {
            return None;
        }
        let i = m.trailing_zeros() as usize;
        m &= m - 1;
        Some(i)
    })
}

impl CompactMask {
    /// The compact form of `mask`.
    pub fn new(mask: &Mask) -> CompactMask {
        let map = mask.0.map();
        CompactMask { map, words: word_indices(map).map(|i| mask.0.words()[i]).collect() }
    }

    /// (word index, mask word) pairs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        word_indices(self.map).zip(self.words.iter().copied())
    }

    /// The whole mask.
    pub fn expand(&self) -> Mask {
        let mut m = Mask::default();
        for (i, w) in self.iter() {
            m.0.words_mut()[i] = w;
        }
        m
    }

    /// Word `i` of the mask.
    pub fn word(&self, i: usize) -> u64 {
        if i >= FLOW_WORDS || self.map & (1 << i) == 0 {
            return 0;
        }
        self.words[(self.map & ((1 << i) - 1)).count_ones() as usize]
    }
}

/// A match in compact form: the mask, and the flow's words where the mask has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactMatch {
    /// The mask.
    pub mask: Arc<CompactMask>,
    /// `flow & mask` for each word of `mask`, in order.
    pub values: Box<[u64]>,
}

impl CompactMatch {
    /// The compact form of `m`.
    pub fn new(m: &Match) -> CompactMatch {
        let mask = Arc::new(CompactMask::new(&m.mask));
        CompactMatch { values: mask.iter().map(|(i, w)| m.flow.words()[i] & w).collect(), mask }
    }

    /// The whole match.
    pub fn expand(&self) -> Match {
        let mut m = Match { flow: Flow::default(), mask: self.mask.expand() };
        for (i, v) in word_indices(self.mask.map).zip(self.values.iter()) {
            m.flow.words_mut()[i] = *v;
        }
        m
    }

    /// Whether a packet with `flow` matches.
    #[inline]
    pub fn covers(&self, flow: &Flow) -> bool {
        self.mask.iter().zip(self.values.iter()).all(|((i, w), v)| flow.words()[i] & w == *v)
    }

    /// Whether every packet that matches `self` also matches `other` ("more specific than", OpenFlow 1.3 §6.4).
    pub fn is_within(&self, other: &CompactMatch) -> bool {
        other.mask.iter().zip(other.values.iter()).all(|((i, w), v)| {
            if self.mask.word(i) & w != w {
                return false;
            }
            let at = (self.mask.map & ((1u64 << i) - 1)).count_ones() as usize;
            self.values[at] & w == *v
        })
    }

    /// Whether some packet could match both.
    pub fn overlaps(&self, other: &CompactMatch) -> bool {
        self.mask.iter().zip(self.values.iter()).all(|((i, w), v)| {
            let both = w & other.mask.word(i);
            if both == 0 {
                return true;
            }
            let at = (other.mask.map & ((1u64 << i) - 1)).count_ones() as usize;
            (other.values[at] ^ v) & both == 0
        })
    }
}

/// Counters of a rule, credited by revalidators and by the slow path.
#[derive(Debug, Default)]
pub struct RuleStats {
    /// Packets.
    pub packets: AtomicU64,
    /// Bytes.
    pub bytes: AtomicU64,
    /// Time of the last packet (or of creation), ms of the monotonic clock.
    pub used_ms: AtomicU64,
}

impl RuleStats {
    /// Adds `packets` and `bytes` last seen at `used_ms`.
    pub fn credit(&self, packets: u64, bytes: u64, used_ms: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used_ms.fetch_max(used_ms, Ordering::Relaxed);
    }
}

/// Flow-mod flags as in OpenFlow 1.3 (`OFPFF_*`, §7.3.4.1) that stay with a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleFlags(pub u16);

impl RuleFlags {
    /// Send flow-removed when the rule goes.
    pub const SEND_FLOW_REM: u16 = 1;
    /// Do not count packets.
    pub const NO_PKT_COUNTS: u16 = 8;
    /// Do not count bytes.
    pub const NO_BYT_COUNTS: u16 = 16;
    /// Hidden from users (internal rules).
    pub const HIDDEN: u16 = 0x8000;

    /// Whether flag `f` is set.
    pub fn has(self, f: u16) -> bool {
        self.0 & f != 0
    }
}

/// One OpenFlow rule.
#[derive(Debug)]
pub struct Rule {
    /// Table.
    pub table_id: u8,
    /// Priority; internal rules stand above or below 0..=65535.
    pub priority: i32,
    /// Cookie.
    pub cookie: u64,
    /// Match.
    pub matching: CompactMatch,
    /// Actions and instructions.
    pub actions: Arc<[Action]>,
    /// Flags.
    pub flags: RuleFlags,
    /// Seconds without packets until the rule goes; 0 never.
    pub idle_timeout: u16,
    /// Seconds until the rule goes; 0 never.
    pub hard_timeout: u16,
    /// Eviction importance (OpenFlow 1.4).
    pub importance: u16,
    /// Creation, ms of the monotonic clock.
    pub created_ms: u64,
    /// Last modification, ms of the monotonic clock: the hard timeout counts from here.
    pub modified_ms: u64,
    /// Counters, shared with the rule that replaces this one on modify.
    pub stats: Arc<RuleStats>,
}

impl Rule {
    /// Whether users see the rule.
    pub fn is_hidden(&self) -> bool {
        self.flags.has(RuleFlags::HIDDEN) || self.table_id == 254
    }
}

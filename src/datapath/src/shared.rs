//! [`SharedFlow`]: one megaflow of one PMD as others see it.
//!
//! Neighbours: a PMD makes it and alone writes its counters; revalidators and dumps read them; `ofproto` takes its
//! translation cache out of it. Threads: shared; counters are written with plain loads and stores by the owner.

use crate::api::PmdId;
use flow::{DpAction, Flow, Mask, Miniflow, FLOW_WORDS, PKT_WORDS};
use parking_lot::Mutex;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::Arc;

/// Identifier of a megaflow, 128 bits, equal for equal keys of the same thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ufid(pub u128);

impl fmt::Display for Ufid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v as u64 & 0xffff_ffff_ffff
        )
    }
}

/// The non-zero words of a flow or mask, on the heap: a bit of `map` per word.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Compact {
    map: u64,
    words: Box<[u64]>,
}

impl Compact {
    /// From the packet words of a flow.
    pub fn from_flow(flow: &Flow) -> Compact {
        let m = Miniflow::from_flow(flow);
        Compact { map: m.map, words: m.packed().into() }
    }

    /// From a miniflow.
    pub fn from_mini(m: &Miniflow) -> Compact {
        Compact { map: m.map, words: m.packed().into() }
    }

    /// The whole flow.
    pub fn flow(&self) -> Flow {
        let mut f = Flow::default();
        for (i, w) in self.iter() {
            f.words_mut()[i] = w;
        }
        f
    }

    /// The mask that has all bits of every word this one has bits of.
    pub fn widened(&self) -> Compact {
        Compact { map: self.map, words: vec![u64::MAX; self.words.len()].into() }
    }

    /// The whole mask.
    pub fn mask(&self) -> Mask {
        Mask(self.flow())
    }

    /// Which words are there.
    pub fn map(&self) -> u64 {
        self.map
    }

    /// The words that are there.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Indices and words.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let map = self.map;
        (0..FLOW_WORDS).filter(move |i| map & (1 << i) != 0).zip(self.words.iter().copied())
    }
}

const _: () = assert!(PKT_WORDS < 64);

/// Counters of a megaflow at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Monotonic milliseconds of the last packet; 0: never used.
    pub used_ms: u64,
    /// TCP flags seen, or-ed.
    pub tcp_flags: u16,
}

/// Counters on their own cache line, written by the owning PMD alone.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    used_ms: AtomicU64,
    tcp_flags: AtomicU16,
}

/// One megaflow of one PMD.
pub struct SharedFlow {
    counters: Counters,
    /// Its identifier.
    pub ufid: Ufid,
    /// The thread that owns it.
    pub pmd: PmdId,
    /// The flow of the packet that made it, unmasked. Dumps show it under the mask.
    pub key: Compact,
    /// The bits that matter.
    pub mask: Arc<Compact>,
    /// Monotonic milliseconds of its installation.
    pub created_ms: u64,
    /// Version of tables its actions were translated with; for the revalidator to update.
    pub seq: AtomicU64,
    pub(crate) slot: AtomicU64,
    dead: AtomicBool,
    suspect: AtomicBool,
    actions: Mutex<Arc<[DpAction]>>,
    ctx: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// What a new [`SharedFlow`] is made of.
pub struct NewFlow {
    /// The owner.
    pub pmd: PmdId,
    /// The packet's flow, unmasked.
    pub key: Compact,
    /// The mask.
    pub mask: Arc<Compact>,
    /// What it does.
    pub actions: Arc<[DpAction]>,
    /// Version it was translated with.
    pub seq: u64,
    /// Now, milliseconds.
    pub now_ms: u64,
    /// Translation cache.
    pub ctx: Option<Box<dyn Any + Send + Sync>>,
    /// The identifier; `None`: one made of key, mask and owner.
    pub ufid: Option<Ufid>,
}

impl SharedFlow {
    /// A megaflow without packets. The datapath makes them; tests of others may too.
    pub fn new(n: NewFlow) -> SharedFlow {
        SharedFlow {
            counters: Counters::default(),
            ufid: n.ufid.unwrap_or_else(|| ufid_of(&n.key, &n.mask, n.pmd)),
            pmd: n.pmd,
            key: n.key,
            mask: n.mask,
            created_ms: n.now_ms,
            seq: AtomicU64::new(n.seq),
            slot: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            actions: Mutex::new(n.actions),
            ctx: Mutex::new(n.ctx),
        }
    }

    /// Counters now.
    pub fn stats(&self) -> FlowStats {
        let c = &self.counters;
        FlowStats {
            packets: c.packets.load(Ordering::Relaxed),
            bytes: c.bytes.load(Ordering::Relaxed),
            used_ms: c.used_ms.load(Ordering::Relaxed),
            tcp_flags: c.tcp_flags.load(Ordering::Relaxed),
        }
    }

    /// Counts packets. Only the owner of the flow calls it.
    #[inline(always)]
    pub fn credit(&self, packets: u64, bytes: u64, now_ms: u64, tcp_flags: u16) {
        let c = &self.counters;
        c.packets.store(c.packets.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
        c.bytes.store(c.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        c.used_ms.store(now_ms, Ordering::Relaxed);
        if tcp_flags != 0 {
            c.tcp_flags.store(c.tcp_flags.load(Ordering::Relaxed) | tcp_flags, Ordering::Relaxed);
        }
    }

    /// The actions in force (or about to be).
    pub fn actions(&self) -> Arc<[DpAction]> {
        Arc::clone(&self.actions.lock())
    }

    pub(crate) fn replace_actions(&self, actions: Arc<[DpAction]>) {
        *self.actions.lock() = actions;
    }

    /// Whether its removal was asked for or is done.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Marks it for removal; true for the first who does.
    pub(crate) fn mark_dead(&self) -> bool {
        !self.dead.swap(true, Ordering::AcqRel)
    }

    /// Puts it under suspicion; true for the first who does.
    pub(crate) fn mark_suspect(&self) -> bool {
        !self.suspect.swap(true, Ordering::Relaxed)
    }

    /// Says that a suspicion was unfounded: it may be checked again.
    pub fn clear_suspect(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }

    /// Takes the translation cache out: whoever looks after the flow keeps it from then on.
    pub fn take_ctx(&self) -> Option<Box<dyn Any + Send + Sync>> {
        self.ctx.lock().take()
    }
}

/// Two independent 64-bit mixes over the masked key.
fn ufid_of(key: &Compact, mask: &Compact, pmd: PmdId) -> Ufid {
    let mut a = 0x9e37_79b9_7f4a_7c15u64 ^ u64::from(pmd.0);
    let mut b = 0xd1b5_4a32_d192_ed03u64 ^ u64::from(pmd.0);
    let (kf, mut at) = (key.flow(), 0);
    for (i, m) in mask.iter() {
        let w = kf.words()[i] & m;
        a = fold(a ^ w, 0xa076_1d64_78bd_642f ^ at);
        b = fold(b ^ w.rotate_left(32), 0xe703_7ed1_a0b4_28db ^ (i as u64) << 1);
        at += 2;
    }
    Ufid(u128::from(a) << 64 | u128::from(b))
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b | 1);
    (p as u64) ^ (p >> 64) as u64
}

//! Recirculation ids and the frozen state behind them.
//!
//! An id stands for everything needed to go on with a packet later: after `recirc`, or when a packet-in is made of
//! it. Equal states share an id. An id lives while a flow refers to it and a while longer, for packets that are on
//! their way. Neighbours: `xlate` allocates and resumes, `packet_in` reads, `revalidate` expires. Threads: all, behind
//! a lock that is held for a lookup.

use crate::snapshot::BridgeId;
use flow::{OfPort, RecircId};
use hashbrown::HashMap;
use openflow::Action;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// How long an id outlives the last flow that refers to it, ms.
const LINGER_MS: u64 = 250;

/// Actions that were left over in one rule.
#[derive(Clone, PartialEq, Debug)]
pub struct FrozenFrame {
    /// Table of the rule.
    pub table_id: u8,
    /// Cookie of the rule.
    pub cookie: u64,
    /// Its remaining actions.
    pub actions: Vec<Action>,
}

/// Everything needed to go on with a packet.
#[derive(Clone, PartialEq, Debug)]
pub struct FrozenState {
    /// Bridge in which it was.
    pub bridge: BridgeId,
    /// Table in which it was; lookup goes on there when no actions are left over.
    pub table_id: u8,
    /// OpenFlow input port.
    pub in_port: OfPort,
    /// Metadata register.
    pub metadata: u64,
    /// Registers.
    pub regs: [u32; 16],
    /// Output of the action set, for matching.
    pub actset_output: u32,
    /// Stack: value and width, bottom first.
    pub stack: Vec<(u128, u16)>,
    /// Left-over actions, innermost first; empty for a packet-in, which does not go on.
    pub frames: Vec<FrozenFrame>,
    /// Action set.
    pub action_set: Vec<Action>,
    /// `userdata` of a controller action.
    pub userdata: Vec<u8>,
}

impl FrozenState {
    fn content_hash(&self, hasher: &impl BuildHasher) -> u64 {
        let mut h = hasher.build_hasher();
        (self.bridge, self.table_id, self.in_port, self.metadata, self.regs).hash(&mut h);
        (self.actset_output, &self.stack, &self.userdata).hash(&mut h);
        for f in &self.frames {
            (f.table_id, f.cookie, f.actions.len()).hash(&mut h);
        }
        self.action_set.len().hash(&mut h);
        h.finish()
    }
}

/// An id and its state.
#[derive(Debug)]
pub struct RecircNode {
    /// The id.
    pub id: RecircId,
    /// The state.
    pub state: FrozenState,
}

/// Keeps an id alive.
pub type RecircRef = Arc<RecircNode>;

#[derive(Default)]
struct Inner {
    next: u32,
    by_id: HashMap<u32, RecircRef>,
    by_content: HashMap<u64, Vec<u32>>,
    /// Ids without references: since when.
    unused: HashMap<u32, u64>,
}

/// All ids.
#[derive(Default)]
pub struct RecircTable {
    inner: Mutex<Inner>,
}

impl RecircTable {
    /// The id of `state`, a new one when there is none.
    pub fn alloc(&self, state: FrozenState) -> RecircRef {
        let mut t = self.inner.lock();
        let hash = state.content_hash(t.by_id.hasher());
        if let Some(ids) = t.by_content.get(&hash) {
            if let Some(node) = ids.iter().filter_map(|id| t.by_id.get(id)).find(|n| n.state == state) {
                return node.clone();
            }
        }
        loop {
            t.next = t.next.wrapping_add(1).max(1);
            let next = t.next;
            if !t.by_id.contains_key(&next) {
                break;
            }
        }
        let id = t.next;
        let node = Arc::new(RecircNode { id: RecircId(id), state });
        t.by_id.insert(id, node.clone());
        t.by_content.entry(hash).or_default().push(id);
        node
    }

    /// The state behind `id`.
    pub fn get(&self, id: RecircId) -> Option<RecircRef> {
        self.inner.lock().by_id.get(&id.0).cloned()
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.inner.lock().by_id.len()
    }

    /// Whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frees the ids that nobody has referred to for a while.
    pub fn expire(&self, now_ms: u64) {
        let mut guard = self.inner.lock();
        let t = &mut *guard;
        let mut gone = Vec::new();
        for (&id, node) in &t.by_id {
            if Arc::strong_count(node) > 1 {
                t.unused.remove(&id);
            } else if now_ms.saturating_sub(*t.unused.entry(id).or_insert(now_ms)) >= LINGER_MS {
                gone.push(id);
            }
        }
        for id in gone {
            t.unused.remove(&id);
            if let Some(node) = t.by_id.remove(&id) {
                let hash = node.state.content_hash(t.by_id.hasher());
                if let Some(ids) = t.by_content.get_mut(&hash) {
                    ids.retain(|&i| i != id);
                    if ids.is_empty() {
                        t.by_content.remove(&hash);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn state(table_id: u8) -> FrozenState {
        FrozenState {
            bridge: BridgeId(1),
            table_id,
            in_port: OfPort(1),
            metadata: 0,
            regs: [0; 16],
            actset_output: 0,
            stack: Vec::new(),
            frames: Vec::new(),
            action_set: Vec::new(),
            userdata: Vec::new(),
        }
    }

    #[test]
    fn equal_states_share_an_id() {
        let t = RecircTable::default();
        let a = t.alloc(state(1));
        let b = t.alloc(state(1));
        let c = t.alloc(state(2));
        assert_eq!((a.id, b.id, c.id), (RecircId(1), RecircId(1), RecircId(2)));
        drop((a, b));
        t.expire(0);
        t.expire(249);
        assert_eq!(t.len(), 2);
        t.expire(250);
        assert_eq!(t.len(), 1);
        assert!(t.get(RecircId(2)).is_some());
        assert_eq!(t.alloc(state(1)).id, RecircId(3));
    }
}

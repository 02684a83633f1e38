//! The shared flow table: a [`Ukey`] for each megaflow, in shards with a lock each.
//!
//! No lock is held for longer than it takes to look at [`BATCH`] flows, and threads that move packets never take one:
//! what they have to say comes through their event rings. Neighbours: the rest of `revalidate`. Threads: main and
//! revalidators.

use super::ukey::{Ukey, UkeyState};
use datapath::SharedFlow;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Number of shards.
pub const SHARDS: usize = 256;
/// Flows that are looked at under one lock.
pub const BATCH: usize = 50;

#[derive(Default)]
struct Shard {
    keys: Vec<Ukey>,
    /// Place of a flow, by the address of its shared part.
    index: HashMap<usize, u32>,
}

/// See the module's header.
pub struct FlowTable {
    shards: Box<[Mutex<Shard>]>,
    live: AtomicUsize,
    evicting: AtomicUsize,
}

fn address(flow: &Arc<SharedFlow>) -> usize {
    Arc::as_ptr(flow) as usize
}

fn shard_of(address: usize) -> usize {
    // Flows stand in memory a cache line or more apart.
    ((address as u64 >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % SHARDS
}

impl Default for FlowTable {
    fn default() -> FlowTable {
        FlowTable {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            live: AtomicUsize::new(0),
            evicting: AtomicUsize::new(0),
        }
    }
}

impl FlowTable {
    /// Takes an installed flow in. One that is there already stays as it is.
    pub fn add(&self, flow: Arc<SharedFlow>) {
        let at = address(&flow);
        let mut shard = self.shards[shard_of(at)].lock();
        let place = shard.keys.len() as u32;
        if *shard.index.entry(at).or_insert(place) != place {
            return;
        }
        let mut key = Ukey::new(flow);
        key.transition(UkeyState::Visible);
        key.transition(UkeyState::Operational);
        shard.keys.push(key);
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a flow out that is gone from the datapath, and pushes the last of its counters. True when a MAC entry
    /// changed.
    pub fn remove(&self, flow: &Arc<SharedFlow>) -> bool {
        let at = address(flow);
        let mut shard = self.shards[shard_of(at)].lock();
        let Some(place) = shard.index.remove(&at) else {
            // Gone before it was announced: nobody is credited, and what it referred to is let go.
            drop(flow.take_ctx());
            return false;
        };
        let mut key = shard.keys.swap_remove(place as usize);
        if let Some(moved) = shard.keys.get(place as usize).map(|k| address(k.flow())) {
            shard.index.insert(moved, place);
        }
        let count = if key.is_live() { &self.live } else { &self.evicting };
        count.fetch_sub(1, Ordering::Relaxed);
        key.transition(UkeyState::Evicted);
        // Still under the lock: who walks the table finds each flow either in it or credited.
        let changed = key.push();
        key.transition(UkeyState::Deleted);
        changed
    }

    /// Shows up to [`BATCH`] ukeys of a shard below the place `from` (`usize::MAX` at first), which moves down. False
    /// when there are no more. `look` returns whether the flow is to be evicted. Flows may come and go between two
    /// batches: one that stays is shown at least once.
    pub fn batch(&self, shard: usize, from: &mut usize, look: &mut dyn FnMut(&mut Ukey) -> bool) -> bool {
        let mut s = self.shards[shard].lock();
        let end = (*from).min(s.keys.len());
        let begin = end.saturating_sub(BATCH);
        let mut evicted = 0;
        for key in s.keys[begin..end].iter_mut().rev() {
            if look(key) && key.transition(UkeyState::Evicting) {
                evicted += 1;
            }
        }
        // Still under the lock: whoever takes one of them out finds it counted.
        if evicted > 0 {
            self.evicting.fetch_add(evicted, Ordering::Relaxed);
            self.live.fetch_sub(evicted, Ordering::Relaxed);
        }
        *from = begin;
        begin > 0
    }

    /// Shows all ukeys.
    pub fn each(&self, look: &mut dyn FnMut(&mut Ukey)) {
        for shard in 0..SHARDS {
            let mut from = usize::MAX;
            while self.batch(shard, &mut from, &mut |k| {
                look(k);
                false
            }) {}
        }
    }

    /// Flows that are to stay.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Flows whose removal was asked for.
    pub fn evicting(&self) -> usize {
        self.evicting.load(Ordering::Relaxed)
    }

    /// Ukeys in the share of thread `i` of `n`.
    pub fn share(&self, i: usize, n: usize) -> usize {
        self.shards.iter().skip(i).step_by(n.max(1)).map(|s| s.lock().keys.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flow;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Random operations on the table and on a map of states.
        #[test]
        fn as_a_slow_twin(ops in prop::collection::vec((0u8..4, 0usize..300), 1..600)) {
            let flows: Vec<_> = (0..300).map(flow).collect();
            let table = FlowTable::default();
            let mut twin: BTreeMap<usize, bool> = BTreeMap::new();
            for (op, n) in ops {
                match op {
                    0 | 1 => {
                        table.add(flows[n].clone());
                        twin.entry(n).or_insert(true);
                    }
                    2 => {
                        table.remove(&flows[n]);
                        twin.remove(&n);
                    }
                    _ => {
                        let shard = shard_of(address(&flows[n]));
                        let mut from = usize::MAX;
                        let mut one = |k: &mut Ukey| k.is_live() && Arc::ptr_eq(k.flow(), &flows[n]);
                        while table.batch(shard, &mut from, &mut one) {}
                        twin.entry(n).and_modify(|live| *live = false);
                    }
                }
                let live = twin.values().filter(|l| **l).count();
                prop_assert_eq!((table.live(), table.evicting()), (live, twin.len() - live));
            }
            let mut seen = BTreeMap::new();
            table.each(&mut |k| {
                let n = flows.iter().position(|f| Arc::ptr_eq(f, k.flow())).expect("a flow of the test");
                seen.insert(n, k.is_live());
            });
            prop_assert_eq!(&seen, &twin);
            prop_assert_eq!((0..3).map(|i| table.share(i, 3)).sum::<usize>(), twin.len());
        }
    }

    #[test]
    fn a_walk_misses_none_while_others_go() {
        let flows: Vec<_> = (0..40_000).map(flow).collect();
        let table = FlowTable::default();
        flows.iter().for_each(|f| table.add(f.clone()));
        let mut seen = std::collections::HashSet::new();
        let mut gone = flows.iter().step_by(3);
        for shard in 0..SHARDS {
            let mut from = usize::MAX;
            loop {
                let more = table.batch(shard, &mut from, &mut |k| {
                    seen.insert(address(k.flow()));
                    false
                });
                gone.by_ref().take(60).for_each(|f| {
                    table.remove(f);
                });
                if !more {
                    break;
                }
            }
        }
        gone.for_each(|f| {
            table.remove(f);
        });
        let stayed = flows.iter().enumerate().filter(|(i, _)| i % 3 != 0);
        assert!(stayed.clone().all(|(_, f)| seen.contains(&address(f))));
        assert_eq!(table.live(), stayed.count());
    }
}

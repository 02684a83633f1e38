//! The megaflows of one thread: a slab of slots with generations.
//!
//! Neighbours: `emc` and `classifier` name megaflows by [`FlowIdx`]; `engine` runs what a slot says. Threads: owned
//! by one; the [`SharedFlow`] in a slot is shared.

use crate::classifier::{FlowIdx, Place};
use crate::prefetch;
use crate::rewrite::is_rewrite;
use crate::shared::SharedFlow;
use flow::{DpAction, DpPort};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What a megaflow does, at a glance: a port number, or one of the two below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fast(u32);

impl Fast {
    /// Empty actions.
    pub(crate) const DROP: Fast = Fast(u32::MAX);
    /// Actions that have to be interpreted.
    pub(crate) const GENERAL: Fast = Fast(u32::MAX - 1);
    /// Rewrites, then one output.
    pub(crate) const REWRITE: Fast = Fast(u32::MAX - 2);

    /// The glance at a list of actions.
    pub(crate) fn of(actions: &[DpAction]) -> Fast {
        match actions {
            [] => Fast::DROP,
            [DpAction::Output(p)] if p.0 < Fast::REWRITE.0 => Fast(p.0),
            [first @ .., DpAction::Output(_)] if first.iter().all(is_rewrite) => Fast::REWRITE,
            _ => Fast::GENERAL,
        }
    }

    /// The port of a plain output.
    #[inline(always)]
    pub(crate) fn port(self) -> Option<DpPort> {
        (self.0 < Fast::REWRITE.0).then_some(DpPort(self.0))
    }
}

/// A megaflow as its owner sees it.
#[repr(align(64))]
pub(crate) struct Slot {
    pub(crate) shared: Option<Arc<SharedFlow>>,
    /// `None` while they run.
    pub(crate) actions: Option<Arc<[DpAction]>>,
    pub(crate) fast: Fast,
    generation: u32,
    /// Input port whose classifier it is in.
    pub(crate) in_port: u32,
    pub(crate) place: Place,
    /// Burst and group of the last grouping, see `engine`.
    pub(crate) burst: u32,
    pub(crate) group: u32,
}

/// The slab.
#[derive(Default)]
pub(crate) struct Flows {
    slots: Vec<Slot>,
    free: Vec<FlowIdx>,
}

impl Flows {
    /// Megaflows present.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a megaflow in. Its place in a classifier is set afterwards.
    pub(crate) fn add(&mut self, shared: Arc<SharedFlow>) -> FlowIdx {
        let actions = shared.actions();
        let fast = Fast::of(&actions);
        let place = Place { subtable: u32::MAX, entry: u32::MAX };
        let idx = match self.free.pop() {
            Some(idx) => {
                let s = &mut self.slots[idx as usize];
                s.actions = Some(actions);
                s.fast = fast;
                s.place = place;
                s.shared = Some(shared);
                idx
            }
            None => {
                let (generation, in_port) = (1, 0);
                self.slots.push(Slot {
                    shared: Some(shared),
                    actions: Some(actions),
                    fast,
                    generation,
                    in_port,
                    place,
                    burst: 0,
                    group: 0,
                });
                (self.slots.len() - 1) as FlowIdx
            }
        };
        let s = &self.slots[idx as usize];
        if let Some(f) = &s.shared {
            f.slot.store(u64::from(s.generation) << 32 | u64::from(idx), Ordering::Relaxed);
        }
        idx
    }

    /// Takes a megaflow out; its index may be used again with another generation.
    pub(crate) fn remove(&mut self, idx: FlowIdx) -> Option<Arc<SharedFlow>> {
        let s = self.slots.get_mut(idx as usize)?;
        let shared = s.shared.take()?;
        s.actions = None;
        s.generation = s.generation.wrapping_add(1);
        self.free.push(idx);
        Some(shared)
    }

    /// Gives a megaflow other actions.
    pub(crate) fn set_actions(&mut self, idx: FlowIdx, actions: Arc<[DpAction]>) {
        if let Some(s) = self.slots.get_mut(idx as usize) {
            s.fast = Fast::of(&actions);
            s.actions = Some(actions);
        }
    }

    /// The slot of a megaflow that this thread installed and that is still there.
    pub(crate) fn find(&self, flow: &SharedFlow) -> Option<FlowIdx> {
        let v = flow.slot.load(Ordering::Relaxed);
        let idx = v as FlowIdx;
        self.is_current(idx, (v >> 32) as u32).then_some(idx)
    }

    /// Whether `idx` is still the megaflow it was.
    #[inline(always)]
    pub(crate) fn is_current(&self, idx: FlowIdx, generation: u32) -> bool {
        self.slots.get(idx as usize).is_some_and(|s| s.generation == generation && s.shared.is_some())
    }

    /// The generation of a slot.
    pub(crate) fn generation(&self, idx: FlowIdx) -> u32 {
        self.slots.get(idx as usize).map_or(0, |s| s.generation)
    }

    #[inline(always)]
    pub(crate) fn get(&self, idx: FlowIdx) -> Option<&Slot> {
        self.slots.get(idx as usize)
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, idx: FlowIdx) -> Option<&mut Slot> {
        self.slots.get_mut(idx as usize)
    }

    /// Fetches a slot.
    #[inline(always)]
    pub(crate) fn prefetch_slot(&self, idx: FlowIdx) {
        if let Some(s) = self.slots.get(idx as usize) {
            prefetch::read(s);
        }
    }

    /// Fetches the slots of `idx`, then what they point at.
    pub(crate) fn prefetch(&self, idx: &[FlowIdx]) {
        for s in idx.iter().filter_map(|i| self.slots.get(*i as usize)) {
            prefetch::read(s);
        }
        for f in idx.iter().filter_map(|i| self.slots.get(*i as usize)).filter_map(|s| s.shared.as_deref()) {
            prefetch::read(f);
        }
    }

    /// Indices of all megaflows.
    pub(crate) fn indices(&self) -> Vec<FlowIdx> {
        (0..self.slots.len() as FlowIdx).filter(|i| self.slots[*i as usize].shared.is_some()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::PmdId;
    use crate::shared::{Compact, NewFlow};

    /// A megaflow that does nothing.
    pub(crate) fn dummy_flow(tag: u64) -> Arc<SharedFlow> {
        Arc::new(SharedFlow::new(NewFlow {
            pmd: PmdId(0),
            key: Compact::default(),
            mask: Arc::new(Compact::default()),
            actions: Arc::new([]),
            seq: tag,
            now_ms: 0,
            ctx: None,
            ufid: None,
        }))
    }

    #[test]
    fn generations_tell_reused_slots_apart() {
        let mut flows = Flows::default();
        let a = dummy_flow(1);
        let i = flows.add(Arc::clone(&a));
        let g = flows.generation(i);
        assert!(flows.is_current(i, g));
        assert!(flows.remove(i).is_some());
        assert!(flows.remove(i).is_none());
        assert!(!flows.is_current(i, g));
        let j = flows.add(dummy_flow(2));
        assert_eq!(i, j);
        assert!(!flows.is_current(i, g));
        assert_eq!(flows.find(&a), None);
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn fast_forms() {
        assert_eq!(Fast::of(&[]), Fast::DROP);
        assert_eq!(Fast::of(&[DpAction::Output(DpPort(3))]).port(), Some(DpPort(3)));
        assert_eq!(Fast::of(&[DpAction::PopVlan, DpAction::Output(DpPort(3))]), Fast::REWRITE);
        assert_eq!(Fast::of(&[DpAction::Meter(1), DpAction::Output(DpPort(3))]), Fast::GENERAL);
        assert_eq!(Fast::of(&[DpAction::PopVlan]), Fast::GENERAL);
    }
}

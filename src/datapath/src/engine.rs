//! The packet path of one thread: a burst goes through keys, microflow cache, classifier, misses, and comes out
//! grouped by what is to be done.
//!
//! Everything here is owned by one thread; nothing blocks, and once flows are installed nothing allocates.
//! Neighbours: `thread` feeds bursts and commands, `exec` runs actions that are more than one output, `emc`,
//! `classifier` and `flows` are what it looks packets up in, `tx` is where they go.

use crate::api::{Miss, MissResult, PmdId, Upcall, UserspacePacket};
use crate::classifier::{Classifier, FlowIdx, BURST, NO_FLOW};
use crate::drops::Drop;
use crate::emc::Emc;
use crate::flows::{Fast, Flows};
use crate::shared::{Compact, NewFlow, SharedFlow};
use crate::stats::PmdStats;
use crate::tx::TxPorts;
use crate::FlowEvent;
use flow::extract::{self, PktMetadata};
use flow::{DpAction, Flow, Mask, Miniflow, RecircId};
use infra::ring::WakeProducer;
use packet::{Batch, Packet};
use std::collections::VecDeque;
use std::sync::Arc;

/// Passes a packet may take through the datapath.
pub(crate) const MAX_DEPTH: usize = 7;
/// Ports whose packets have a classifier of their own; packets of other (made-up) ports share one.
const MAX_PORTS: u32 = 65_536;
/// Packets ahead whose data is fetched while one is parsed.
const AHEAD: usize = 6;

/// What is known of a burst beside its packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) in_port: u32,
    pub(crate) recirc_id: RecircId,
    pub(crate) priority: u32,
    pub(crate) mark: u32,
    pub(crate) vlan_limit: u8,
}

impl Meta {
    pub(crate) fn received(in_port: u32, vlan_limit: u8) -> Meta {
        Meta { in_port, recirc_id: RecircId(0), priority: 0, mark: 0, vlan_limit }
    }

    pub(crate) fn from_flow(flow: &Flow, vlan_limit: u8) -> Meta {
        Meta {
            in_port: flow.in_port,
            recirc_id: RecircId(flow.recirc_id),
            priority: flow.skb_priority,
            mark: flow.pkt_mark,
            vlan_limit,
        }
    }

    /// As the extraction of keys wants it.
    pub(crate) fn packed(&self, dp_hash: u32) -> PktMetadata {
        if self.recirc_id.0 == 0 && self.priority == 0 && self.mark == 0 && dp_hash == 0 {
            return PktMetadata::new(self.in_port).with_vlan_limit(self.vlan_limit);
        }
        let flow = Flow {
            in_port: self.in_port,
            recirc_id: self.recirc_id.0,
            skb_priority: self.priority,
            pkt_mark: self.mark,
            dp_hash,
            ..Flow::default()
        };
        PktMetadata::from_flow(&flow).with_vlan_limit(self.vlan_limit)
    }
}

/// Packets of a burst that have the same fate.
struct Group {
    fate: Fate,
    packets: Batch,
    /// dp_hash of each packet, when the burst has them.
    hashes: [u32; BURST],
}

#[derive(Clone)]
enum Fate {
    Flow(FlowIdx),
    /// Translated but not installed; `None`: translation failed.
    Once(Option<Arc<[DpAction]>>),
}

/// Working memory for one burst; one for each depth of recirculation.
pub(crate) struct Scratch {
    keys: [Miniflow; BURST],
    hashes: [u64; BURST],
    flow: [FlowIdx; BURST],
    once: Vec<(usize, Option<Arc<[DpAction]>>)>,
    groups: Vec<Group>,
}

impl Scratch {
    fn new() -> Box<Scratch> {
        Box::new(Scratch {
            keys: [Miniflow::EMPTY; BURST],
            hashes: [0; BURST],
            flow: [NO_FLOW; BURST],
            once: Vec::new(),
            groups: Vec::with_capacity(BURST),
        })
    }
}

/// The rings of a thread towards the rest.
pub(crate) struct Outlets {
    pub(crate) events: WakeProducer<FlowEvent>,
    /// Events that found the ring full.
    pub(crate) late: VecDeque<FlowEvent>,
    pub(crate) user: WakeProducer<UserspacePacket>,
}

impl Outlets {
    pub(crate) fn event(&mut self, e: FlowEvent) {
        if !self.late.is_empty() {
            return self.late.push_back(e);
        }
        if let Err(infra::ring::PushError::Full(e)) = self.events.push(e) {
            self.late.push_back(e);
        }
    }

    /// Tries again to hand out what was late.
    pub(crate) fn retry(&mut self) {
        while let Some(e) = self.late.pop_front() {
            if let Err(infra::ring::PushError::Full(e)) = self.events.push(e) {
                return self.late.push_front(e);
            }
        }
    }
}

/// The packet path of one thread.
pub(crate) struct Engine {
    pub(crate) id: PmdId,
    pub(crate) upcall: Arc<dyn Upcall>,
    pub(crate) flows: Flows,
    classifiers: Vec<Option<Box<Classifier>>>,
    pub(crate) emc: Emc,
    pub(crate) tx: TxPorts,
    pub(crate) out: Outlets,
    pub(crate) stats: PmdStats,
    pub(crate) now_ms: u64,
    pub(crate) now_tsc: u64,
    pub(crate) vlan_limit: u8,
    scratch: Vec<Box<Scratch>>,
    answer: Option<Box<MissResult>>,
    burst: u32,
    seed: u64,
}

impl Engine {
    pub(crate) fn new(id: PmdId, upcall: Arc<dyn Upcall>, tx: TxPorts, out: Outlets, seed: u64) -> Engine {
        Engine {
            id,
            upcall,
            flows: Flows::default(),
            classifiers: Vec::new(),
            emc: Emc::new(seed),
            tx,
            out,
            stats: PmdStats::default(),
            now_ms: 0,
            now_tsc: 0,
            vlan_limit: 1,
            scratch: (0..=MAX_DEPTH).map(|_| Scratch::new()).collect(),
            answer: Some(Box::default()),
            burst: 0,
            seed,
        }
    }

    fn classifier_slot(in_port: u32) -> usize {
        if in_port < MAX_PORTS {
            in_port as usize + 1
        } else {
            0
        }
    }

    /// Takes a burst through the datapath. `hashes` are the dp_hash of each packet, if any has one.
    pub(crate) fn process(
        &mut self,
        batch: &mut Batch,
        meta: &Meta,
        hashes: Option<&[u32; BURST]>,
        depth: usize,
    ) {
        let Some(mut s) = self.scratch.pop().filter(|_| depth < MAX_DEPTH) else {
            self.stats.drop_n(Drop::RecircDepth, batch.len());
            return batch.clear();
        };
        self.resolve(batch, meta, hashes, &mut s);
        self.dispatch(batch, hashes, &mut s);
        // The groups' actions run with the scratch set aside: recirculation takes the next one.
        let mut groups = std::mem::take(&mut s.groups);
        for g in &mut groups {
            self.run_group(g, meta, depth);
        }
        groups.clear();
        s.groups = groups;
        self.scratch.push(s);
    }

    /// Finds the megaflow of every packet; misses are translated here.
    fn resolve(&mut self, batch: &Batch, meta: &Meta, hashes: Option<&[u32; BURST]>, s: &mut Scratch) {
        let packets = batch.as_slice();
        let n = packets.len();
        let md = meta.packed(0);
        for (i, p) in packets.iter().enumerate() {
            if let Some(later) = packets.get(i + AHEAD) {
                later.prefetch_data();
            }
            match hashes {
                None => extract::extract(p.data(), &md, &mut s.keys[i]),
                Some(h) => extract::extract(p.data(), &meta.packed(h[i]), &mut s.keys[i]),
            };
        }
        let mut todo = if n == BURST { u32::MAX } else { (1u32 << n) - 1 };
        let use_emc = self.emc.enabled();
        if use_emc {
            for i in 0..n {
                s.hashes[i] = self.emc.hash(&s.keys[i]);
            }
            let all = todo;
            todo = self.emc.lookup(&s.keys, &s.hashes, todo, &self.flows, &mut s.flow);
            self.stats.emc_hits += u64::from((all & !todo).count_ones());
        }
        if todo == 0 {
            return;
        }
        let slot = Engine::classifier_slot(meta.in_port);
        if let Some(Some(cls)) = self.classifiers.get_mut(slot) {
            let asked = todo;
            todo = cls.lookup(&s.keys, todo, &mut s.flow, &mut self.stats.subtable_lookups);
            let mut found = asked & !todo;
            self.stats.megaflow_hits += u64::from(found.count_ones());
            while use_emc && found != 0 {
                let i = found.trailing_zeros() as usize % BURST;
                found &= found - 1;
                self.emc.maybe_insert(&s.keys[i], s.hashes[i], s.flow[i], &self.flows);
            }
        }
        if todo != 0 {
            self.resolve_misses(packets, todo, slot, s);
        }
    }

    #[cold]
    fn resolve_misses(&mut self, packets: &[Packet], mut todo: u32, slot: usize, s: &mut Scratch) {
        let mut installed = false;
        let mut answer = self.answer.take().unwrap_or_default();
        while todo != 0 {
            let i = todo.trailing_zeros() as usize % BURST;
            todo &= todo - 1;
            // A megaflow that an earlier packet of this burst installed may cover this one.
            if installed {
                let cls = self.classifiers.get_mut(slot).and_then(|c| c.as_deref_mut());
                if let Some(f) = cls.and_then(|c| c.lookup_one(&s.keys[i])) {
                    s.flow[i] = f;
                    self.stats.megaflow_hits += 1;
                    self.stats.subtable_lookups += 1;
                    continue;
                }
            }
            let flow = s.keys[i].expand();
            answer.reset();
            let req = Miss { packet: &packets[i], flow: &flow, core: self.id, now_ms: self.now_ms };
            self.upcall.miss(&req, &mut answer);
            s.flow[i] = NO_FLOW;
            if answer.failed {
                self.stats.miss_failed += 1;
                s.once.push((i, None));
            } else if !answer.install {
                self.stats.miss_ok += 1;
                s.once.push((i, Some(answer.actions.as_slice().into())));
            } else {
                self.stats.miss_ok += 1;
                s.flow[i] = self.install(&s.keys[i], slot, &mut answer);
                if self.emc.enabled() {
                    self.emc.maybe_insert(&s.keys[i], s.hashes[i], s.flow[i], &self.flows);
                }
                installed = true;
            }
        }
        self.answer = Some(answer);
    }

    /// Installs the megaflow that `answer` describes.
    fn install(&mut self, key: &Miniflow, slot: usize, answer: &mut MissResult) -> FlowIdx {
        let mut mask: Mask = answer.mask;
        mask.0.in_port = u32::MAX;
        mask.0.recirc_id = u32::MAX;
        if self.classifiers.len() <= slot {
            self.classifiers.resize_with(slot + 1, || None);
        }
        let seed = self.seed;
        let cls = self.classifiers[slot].get_or_insert_with(|| Box::new(Classifier::new(seed)));
        let mask = cls.share_mask(Compact::from_flow(&mask.0));
        let shared = Arc::new(SharedFlow::new(NewFlow {
            pmd: self.id,
            key: Compact::from_mini(key),
            mask: Arc::clone(&mask),
            actions: answer.actions.as_slice().into(),
            seq: answer.seq,
            now_ms: self.now_ms,
            ctx: answer.ctx.take(),
        }));
        let idx = self.flows.add(Arc::clone(&shared));
        let place = cls.insert(key, &mask, idx);
        if let Some(f) = self.flows.get_mut(idx) {
            f.place = place;
            f.in_port = slot as u32;
        }
        self.out.event(FlowEvent::New(shared));
        idx
    }

    /// Removes a megaflow and says so.
    pub(crate) fn remove(&mut self, idx: FlowIdx) {
        let Some((place, slot)) = self.flows.get(idx).map(|f| (f.place, f.in_port)) else { return };
        let Some(shared) = self.flows.remove(idx) else { return };
        if let Some(Some(cls)) = self.classifiers.get_mut(slot as usize) {
            cls.remove(place);
        }
        shared.mark_dead();
        self.out.event(FlowEvent::Deleted(shared));
    }

    /// Removes the megaflows of packets that came from `port`.
    pub(crate) fn purge_port(&mut self, port: u32) {
        let slot = Engine::classifier_slot(port);
        let flows = self.classifiers.get(slot).and_then(|c| c.as_ref()).map(|c| c.flows());
        for idx in flows.unwrap_or_default() {
            self.remove(idx);
        }
        if slot != 0 {
            if let Some(c) = self.classifiers.get_mut(slot) {
                *c = None;
            }
        }
    }

    /// Removes every megaflow.
    pub(crate) fn purge(&mut self) {
        for idx in self.flows.indices() {
            self.remove(idx);
        }
    }

    /// Sorts the subtables of every classifier by recent hits.
    pub(crate) fn optimize(&mut self) {
        self.classifiers.iter_mut().flatten().for_each(|c| c.optimize());
    }

    /// Credits megaflows with their packets, sends what has one plain output, and groups the rest.
    fn dispatch(&mut self, batch: &mut Batch, hashes: Option<&[u32; BURST]>, s: &mut Scratch) {
        let (uniform, longest) = self.credit(batch, s);
        if let Some(idx) = uniform {
            match self.flows.get(idx).map(|f| (f.fast, f.fast.port())) {
                Some((_, Some(port))) => {
                    return self.tx.push_batch(port, batch, longest, self.now_tsc, &mut self.stats)
                }
                Some((Fast::DROP, _)) => {
                    self.stats.drop_n(Drop::Action, batch.len());
                    return batch.clear();
                }
                _ => {}
            }
        }
        self.burst = self.burst.wrapping_add(1);
        for (i, p) in batch.drain().enumerate() {
            let idx = s.flow[i];
            let h = hashes.map_or(0, |h| h[i]);
            let Some(f) = self.flows.get_mut(idx) else {
                let at = s.once.iter().position(|(at, _)| *at == i);
                let fate = at.map_or(Fate::Once(None), |at| Fate::Once(s.once.swap_remove(at).1));
                new_group(&mut s.groups, fate, p, h);
                continue;
            };
            if let Some(port) = f.fast.port() {
                self.tx.push(port, p, self.now_tsc, &mut self.stats);
            } else if f.fast == Fast::DROP {
                self.stats.drop_n(Drop::Action, 1);
            } else if f.burst == self.burst {
                let g = &mut s.groups[f.group as usize];
                g.hashes[g.packets.len() % BURST] = h;
                // Never full: a group has at most the packets of the burst.
                let _ = g.packets.push(p);
            } else {
                f.burst = self.burst;
                f.group = s.groups.len() as u32;
                new_group(&mut s.groups, Fate::Flow(idx), p, h);
            }
        }
    }

    /// Writes the counters of the burst's megaflows. Returns the megaflow when all packets have one and the same,
    /// and the length of the longest frame.
    #[inline(always)]
    fn credit(&mut self, batch: &Batch, s: &Scratch) -> (Option<FlowIdx>, usize) {
        let (mut current, mut packets, mut bytes, mut flags) = (s.flow[0], 0u64, 0u64, 0u16);
        let (mut longest, mut uniform) = (0, true);
        for (i, p) in batch.as_slice().iter().enumerate() {
            let len = p.frame_len();
            longest = longest.max(len);
            if s.flow[i] != current {
                self.credit_one(current, packets, bytes, flags);
                uniform = false;
                current = s.flow[i];
                packets = 0;
                bytes = 0;
                flags = 0;
            }
            packets += 1;
            bytes += len as u64;
            flags |= extract::tcp_flags(&s.keys[i]);
        }
        self.credit_one(current, packets, bytes, flags);
        (uniform.then_some(current).filter(|_| packets > 0), longest)
    }

    #[inline(always)]
    fn credit_one(&self, idx: FlowIdx, packets: u64, bytes: u64, flags: u16) {
        if let Some(f) = self.flows.get(idx).and_then(|f| f.shared.as_deref()) {
            f.credit(packets, bytes, self.now_ms, flags);
        }
    }

    fn run_group(&mut self, g: &mut Group, meta: &Meta, depth: usize) {
        match &g.fate {
            Fate::Flow(idx) => {
                let idx = *idx;
                let Some(f) = self.flows.get_mut(idx) else { return };
                // Taken out of the slot for the time of the run, so that no count is touched. A packet that comes
                // back to its own megaflow finds the slot empty and asks for a copy.
                if let Some(actions) = f.actions.take() {
                    self.run(&mut g.packets, &actions, &mut Meta::clone(meta), &mut g.hashes, depth);
                    if let Some(f) = self.flows.get_mut(idx) {
                        f.actions = Some(actions);
                    }
                } else if let Some(actions) = f.shared.as_ref().map(|f| f.actions()) {
                    self.run(&mut g.packets, &actions, &mut Meta::clone(meta), &mut g.hashes, depth);
                }
            }
            Fate::Once(Some(actions)) => {
                let actions = Arc::clone(actions);
                self.run(&mut g.packets, &actions, &mut Meta::clone(meta), &mut g.hashes, depth);
            }
            Fate::Once(None) => {
                self.stats.drop_n(Drop::Upcall, g.packets.len());
                g.packets.clear();
            }
        }
    }
}

fn new_group(groups: &mut Vec<Group>, fate: Fate, p: Packet, hash: u32) {
    let mut g = Group { fate, packets: Batch::new(), hashes: [0; BURST] };
    g.hashes[0] = hash;
    // An empty batch takes one.
    let _ = g.packets.push(p);
    groups.push(g);
}

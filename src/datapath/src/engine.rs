//! The packet path of one thread: a burst goes through keys, microflow cache, classifier, misses, and comes out
//! grouped by what is to be done.
//!
//! Everything here is owned by one thread; nothing blocks, and once flows are installed nothing allocates.
//! Neighbours: `thread` feeds bursts and commands, `exec` runs actions that are more than one output, `emc`,
//! `classifier` and `flows` are what it looks packets up in, `tx` is where they go.

use crate::api::{FlowPut, Miss, MissResult, PmdId, Suspect, Upcall, UserspacePacket};
use crate::classifier::{Classifier, Cursor, FlowIdx, BURST, NO_FLOW};
use crate::drops::Drop;
use crate::emc::{Emc, Worth};
use crate::flows::{Fast, Flows};
use crate::rewrite;
use crate::shared::{Compact, NewFlow, SharedFlow};
use crate::simple::{self, RawFlows, Simple};
use crate::smc::{self, Smc};
use crate::stats::PmdStats;
use crate::tx::TxPorts;
use crate::vector::{bits, Parser};
use crate::FlowEvent;
use flow::extract::{self, PktMetadata};
use flow::{DpAction, Flow, Miniflow, RecircId};
use infra::clock;
use infra::ring::WakeProducer;
use packet::{Batch, Packet};
use std::collections::VecDeque;
use std::sync::Arc;

/// Passes a packet may take through the datapath.
pub(crate) const MAX_DEPTH: usize = 7;
/// Ports whose packets have a classifier of their own; packets of other (made-up) ports share one.
const MAX_PORTS: u32 = 65_536;
/// Megaflows a thread installs at most, whatever translation says; and events that may wait for room.
const MAX_FLOWS: usize = 1 << 20;
const MAX_LATE: usize = 1 << 16;
/// Megaflows from which on their slots are fetched ahead.
const MANY_FLOWS: usize = 256;
const _: () = assert!(MAX_FLOWS <= smc::MAX_INDEX);
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
    /// The packets have a dp_hash each, in an array beside them.
    pub(crate) hashed: bool,
}

impl Meta {
    pub(crate) fn received(in_port: u32, vlan_limit: u8) -> Meta {
        Meta { in_port, recirc_id: RecircId(0), priority: 0, mark: 0, vlan_limit, hashed: false }
    }

    pub(crate) fn from_flow(flow: &Flow, vlan_limit: u8) -> Meta {
        Meta {
            in_port: flow.in_port,
            recirc_id: RecircId(flow.recirc_id),
            priority: flow.skb_priority,
            mark: flow.pkt_mark,
            vlan_limit,
            hashed: flow.dp_hash != 0,
        }
    }

    /// Whether the packets are as they were received: no pass behind them, nothing set.
    #[inline(always)]
    fn is_fresh(&self) -> bool {
        self.recirc_id.0 == 0 && self.priority == 0 && self.mark == 0
    }

    /// As the extraction of keys wants it.
    pub(crate) fn packed(&self, dp_hash: u32) -> PktMetadata {
        if self.is_fresh() && dp_hash == 0 {
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

/// Packets of a burst that have the same fate. Groups are used again and again: what stands in `hashes` counts only
/// when the burst has hashes.
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
    /// First bytes of plain frames.
    raw: [simple::Raw; BURST],
    keys: [Miniflow; BURST],
    /// TCP flags.
    flags: [u16; BURST],
    hashes: [u64; BURST],
    /// Plain frames that the lead of the simple match did not find, and the hashes of their microflows.
    plain: u32,
    microflow: [u64; BURST],
    flow: [FlowIdx; BURST],
    /// Packets that were misses: whoever translated them has counted them.
    missed: u32,
    once: Vec<(usize, Option<Arc<[DpAction]>>)>,
    /// Groups in use come first.
    groups: Box<[Group]>,
    n_groups: usize,
}

impl Scratch {
    fn new() -> Box<Scratch> {
        Box::new(Scratch {
            raw: [simple::Raw::default(); BURST],
            keys: [Miniflow::EMPTY; BURST],
            flags: [0; BURST],
            hashes: [0; BURST],
            plain: 0,
            microflow: [0; BURST],
            flow: [NO_FLOW; BURST],
            missed: 0,
            once: Vec::new(),
            groups: (0..BURST).map(|_| Group::EMPTY).collect(),
            n_groups: 0,
        })
    }
}

impl Scratch {
    /// Starts a group with one packet. There are as many groups as a burst has packets.
    #[inline(always)]
    fn new_group(&mut self, fate: Fate, p: Packet, hash: u32) {
        if let Some(g) = self.groups.get_mut(self.n_groups) {
            self.n_groups += 1;
            g.fate = fate;
            g.hashes[0] = hash;
            // The batch was emptied by the run of its actions.
            let _ = g.packets.push(p);
        }
    }
}

impl Group {
    const EMPTY: Group = Group { fate: Fate::Once(None), packets: Batch::new(), hashes: [0; BURST] };
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

/// Where the megaflows of one input port are found.
struct Tables {
    classifier: Classifier,
    simple: Simple,
}

/// The packet path of one thread.
pub(crate) struct Engine {
    pub(crate) id: PmdId,
    pub(crate) upcall: Arc<dyn Upcall>,
    pub(crate) flows: Flows,
    tables: Vec<Option<Box<Tables>>>,
    pub(crate) emc: Emc,
    worth: Worth,
    smc: Smc,
    raw: RawFlows,
    pub(crate) tx: TxPorts,
    pub(crate) out: Outlets,
    pub(crate) stats: PmdStats,
    pub(crate) now_ms: u64,
    pub(crate) now_tsc: u64,
    pub(crate) vlan_limit: u8,
    parser: Parser,
    /// Port whose megaflows are being removed, and how far that is.
    purging: (u32, Cursor),
    scratch: Vec<Box<Scratch>>,
    answer: Option<Box<MissResult>>,
    pub(crate) missing: Missing,
    /// Hits are checked in so many packets; and once in so many.
    check_in: i64,
    check_every: u32,
    burst: u32,
    seed: u64,
}

/// Misses of the burst at hand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Missing {
    /// They are dropped untranslated.
    pub(crate) refuse: bool,
    pub(crate) packets: u32,
    /// What their translation and installation cost.
    pub(crate) cycles: u64,
}

impl Engine {
    pub(crate) fn new(id: PmdId, upcall: Arc<dyn Upcall>, tx: TxPorts, out: Outlets, seed: u64) -> Engine {
        Engine {
            id,
            upcall,
            flows: Flows::default(),
            tables: Vec::new(),
            emc: Emc::new(seed),
            worth: Worth::default(),
            smc: Smc::new(seed),
            raw: RawFlows::default(),
            tx,
            out,
            stats: PmdStats::default(),
            now_ms: 0,
            now_tsc: 0,
            vlan_limit: 1,
            parser: Parser::best(),
            purging: (0, Cursor::default()),
            scratch: (0..=MAX_DEPTH).map(|_| Scratch::new()).collect(),
            answer: Some(Box::default()),
            missing: Missing::default(),
            check_in: i64::MAX,
            check_every: 0,
            burst: 0,
            seed,
        }
    }

    fn slot_of(in_port: u32) -> usize {
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
        self.check_in -= batch.len() as i64;
        if self.check_in < 0 {
            self.self_check(batch, meta, hashes, &mut s);
        }
        self.dispatch(batch, hashes, &mut s);
        // Recirculation takes the next scratch.
        let n = std::mem::take(&mut s.n_groups);
        for g in &mut s.groups[..n] {
            self.run_group(g, meta, depth);
        }
        self.scratch.push(s);
    }

    /// Finds the megaflow of every packet; misses are translated here.
    fn resolve(&mut self, batch: &Batch, meta: &Meta, hashes: Option<&[u32; BURST]>, s: &mut Scratch) {
        let packets = batch.as_slice();
        let n = packets.len();
        let slot = Engine::slot_of(meta.in_port);
        s.missed = 0;
        s.plain = 0;
        let mut todo = if n == BURST { u32::MAX } else { (1u32 << n) - 1 };
        if meta.is_fresh() && hashes.is_none() && slot != 0 {
            todo = self.resolve_simple(packets, slot, todo, s);
            if todo == 0 {
                return;
            }
        }
        make_keys(self.parser, packets, todo, meta, hashes, s);
        let use_emc = self.emc.enabled() && self.worth.ask();
        let asked = todo;
        if use_emc {
            for i in bits(todo) {
                s.hashes[i] = self.emc.hash(&s.keys[i]);
            }
            todo = self.emc.lookup(&s.keys, &s.hashes, todo, &self.flows, &mut s.flow);
            self.stats.emc_hits += u64::from((asked & !todo).count_ones());
        }
        let missed = todo;
        let mut looked = 0;
        if todo != 0 {
            todo = self.resolve_megaflows(slot, todo, use_emc, &mut looked, s);
        }
        if use_emc {
            let found = missed & !todo;
            for i in bits(found) {
                self.emc.maybe_insert(&s.keys[i], s.hashes[i], s.flow[i], &self.flows);
            }
            self.worth.judge(asked.count_ones(), (asked & !missed).count_ones(), found.count_ones(), looked);
        }
        if todo != 0 {
            self.resolve_misses(packets, todo, slot, s);
        }
    }

    /// Finds what the raw bytes of plain frames tell; returns the packets left.
    #[inline(always)]
    fn resolve_simple(&mut self, packets: &[Packet], slot: usize, todo: u32, s: &mut Scratch) -> u32 {
        let Some(Some(t)) = self.tables.get_mut(slot) else { return todo };
        let plain = read_plain(&t.simple, packets, s);
        let found = t.simple.lookup_lead(&s.raw, plain, &mut s.flow);
        self.stats.simple_hits += u64::from(found.count_ones());
        let left = plain & !found;
        if left == 0 || !t.simple.is_deep() {
            return todo & !found;
        }
        todo & !found & !self.guess_simple(slot, left, s)
    }

    /// Finds megaflows of plain frames beyond the lead; returns the packets found.
    #[inline]
    fn guess_simple(&mut self, slot: usize, plain: u32, s: &mut Scratch) -> u32 {
        let Some(Some(t)) = self.tables.get_mut(slot) else { return 0 };
        for i in bits(plain) {
            s.microflow[i] = t.simple.microflow(&s.raw[i]);
        }
        let (raw, simple) = (&self.raw, &mut t.simple);
        let same = |i: usize, f| simple.is_of(raw, &s.raw[i], f);
        let guessed = self.smc.lookup(&s.microflow, plain, &mut s.flow, |f| raw.prefetch(f), same);
        self.stats.smc_hits += u64::from(guessed.count_ones());
        s.plain = plain & !guessed;
        if s.plain == 0 {
            return guessed;
        }
        let found = t.simple.lookup_rest(&s.raw, s.plain, &mut s.flow);
        self.stats.simple_hits += u64::from(found.count_ones());
        for i in bits(found) {
            self.smc.insert(s.microflow[i], s.flow[i]);
        }
        s.plain &= !found;
        guessed | found
    }

    /// Finds megaflows by keys: most hit subtables, guesses, the other subtables. Returns the packets left.
    fn resolve_megaflows(
        &mut self,
        slot: usize,
        todo: u32,
        hashed: bool,
        looked: &mut u64,
        s: &mut Scratch,
    ) -> u32 {
        let Some(Some(t)) = self.tables.get_mut(slot) else { return todo };
        let mut left = t.classifier.lookup_lead(&s.keys, todo, &mut s.flow, looked);
        let (mut guessed, mut rest) = (0, 0);
        if left != 0 && t.classifier.is_deep() {
            if !hashed {
                for i in bits(left) {
                    s.hashes[i] = self.emc.hash(&s.keys[i]);
                }
            }
            let (flows, cls) = (&self.flows, &mut t.classifier);
            let same = |i: usize, f| match flows.get(f) {
                Some(slot_of) => slot_of.in_port == slot as u32 && cls.is_of(slot_of.place, f, &s.keys[i]),
                None => false,
            };
            guessed = self.smc.lookup(&s.hashes, left, &mut s.flow, |f| flows.prefetch_slot(f), same);
            left &= !guessed;
            rest = left;
            if left != 0 {
                left = t.classifier.lookup_rest(&s.keys, left, &mut s.flow, looked);
            }
            rest &= !left;
        }
        for i in bits(todo & !left & !guessed) {
            if s.plain >> i & 1 != 0 && t.simple.is_of(&self.raw, &s.raw[i], s.flow[i]) {
                self.smc.insert(s.microflow[i], s.flow[i]);
            } else if rest >> i & 1 != 0 {
                self.smc.insert(s.hashes[i], s.flow[i]);
            }
        }
        let n = u64::from(guessed.count_ones());
        self.stats.smc_hits += n;
        self.stats.subtable_lookups += *looked;
        self.stats.megaflow_hits += u64::from((todo & !left).count_ones()) - n;
        // About what a guess costs.
        *looked += n * 2;
        left
    }

    #[cold]
    fn resolve_misses(&mut self, packets: &[Packet], mut todo: u32, slot: usize, s: &mut Scratch) {
        self.missing.packets += todo.count_ones();
        if self.missing.refuse {
            self.stats.miss_failed += u64::from(todo.count_ones());
            return bits(todo).for_each(|i| s.flow[i] = NO_FLOW);
        }
        let start = clock::tsc();
        let mut installed = false;
        let mut answer = self.answer.take().unwrap_or_default();
        while todo != 0 {
            let i = todo.trailing_zeros() as usize % BURST;
            todo &= todo - 1;
            // A megaflow that an earlier packet of this burst installed may cover this one.
            if installed {
                let tables = self.tables.get_mut(slot).and_then(|t| t.as_deref_mut());
                if let Some(f) = tables.and_then(|t| t.classifier.lookup_one(&s.keys[i])) {
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
            s.missed |= 1 << i;
            if answer.failed {
                self.stats.miss_failed += 1;
                s.once.push((i, None));
            } else if !answer.install || self.is_full() {
                self.stats.miss_ok += 1;
                s.once.push((i, Some(answer.actions.as_slice().into())));
            } else {
                self.stats.miss_ok += 1;
                s.flow[i] = self.install(&s.keys[i], slot, &mut answer);
                if self.emc.enabled() {
                    let hash = self.emc.hash(&s.keys[i]);
                    self.emc.maybe_insert(&s.keys[i], hash, s.flow[i], &self.flows);
                }
                installed = true;
            }
        }
        self.answer = Some(answer);
        self.missing.cycles += clock::tsc().saturating_sub(start);
    }

    /// One in `every` hits is checked from now on; 0: none.
    pub(crate) fn set_self_check(&mut self, every: u32) {
        if every != self.check_every {
            self.check_every = every;
            self.check_in = if every == 0 { i64::MAX } else { i64::from(every) - 1 };
        }
    }

    /// Translates hits afresh whose turn it is, and reports megaflows that seem wrong.
    #[cold]
    fn self_check(&mut self, batch: &Batch, meta: &Meta, hashes: Option<&[u32; BURST]>, s: &mut Scratch) {
        let packets = batch.as_slice();
        while self.check_in < 0 {
            let i = usize::try_from(packets.len() as i64 + self.check_in).unwrap_or(0);
            self.check_in = self.check_in.saturating_add(i64::from(self.check_every.max(1)));
            let missed = s.missed >> (i % BURST) & 1 != 0;
            let Some(packet) = packets.get(i).filter(|_| !missed) else { continue };
            let Some(slot) = self.flows.get(s.flow[i]) else { continue };
            let (Some(flow), Some(actions)) = (&slot.shared, &slot.actions) else { continue };
            make_keys(self.parser, packets, 1 << i, meta, hashes, s);
            let key = s.keys[i].expand();
            crate::coverage::SELF_CHECKS.inc();
            let req = Miss { packet, flow: &key, core: self.id, now_ms: self.now_ms };
            let sound = self.upcall.is_sound(&req, flow, actions);
            // Events that wait are no place for more: the next hit tells the same.
            if !sound && self.out.late.is_empty() && flow.mark_suspect() {
                let (flow, frame) = (Arc::clone(flow), packet.data().into());
                let suspect = Suspect { flow, frame, key, now_ms: self.now_ms };
                self.out.event(FlowEvent::Suspect(Box::new(suspect)));
            }
        }
    }

    /// Whether memory or the reader of events sets a limit.
    fn is_full(&self) -> bool {
        self.flows.len() >= MAX_FLOWS || self.out.late.len() >= MAX_LATE
    }

    /// Installs a megaflow that somebody asked for.
    pub(crate) fn put(&mut self, put: FlowPut) {
        let slot = Engine::slot_of(put.flow.in_port);
        if slot == 0 || self.is_full() {
            return;
        }
        let mut answer = MissResult {
            actions: put.actions,
            mask: put.mask,
            install: true,
            seq: put.seq,
            ufid: put.ufid,
            ctx: put.ctx,
            ..MissResult::default()
        };
        self.install(&Miniflow::from_flow(&put.flow), slot, &mut answer);
    }

    /// Installs the megaflow that `answer` describes.
    fn install(&mut self, key: &Miniflow, slot: usize, answer: &mut MissResult) -> FlowIdx {
        // Whatever translation looked at, these tell classifiers and passes apart.
        answer.mask.0.in_port = u32::MAX;
        answer.mask.0.recirc_id = u32::MAX;
        if self.tables.len() <= slot {
            self.tables.resize_with(slot + 1, || None);
        }
        let seed = self.seed;
        let t = self.tables[slot].get_or_insert_with(|| {
            let in_port = (slot as u32).wrapping_sub(1);
            Box::new(Tables { classifier: Classifier::new(seed), simple: Simple::new(in_port, seed) })
        });
        let cls = &mut t.classifier;
        let mask = cls.share_mask(Compact::from_flow(&answer.mask.0));
        let shared = Arc::new(SharedFlow::new(NewFlow {
            pmd: self.id,
            key: Compact::from_mini(key),
            mask: Arc::clone(&mask),
            actions: answer.actions.as_slice().into(),
            seq: answer.seq,
            now_ms: self.now_ms,
            ctx: answer.ctx.take(),
            ufid: answer.ufid,
        }));
        let idx = self.flows.add(Arc::clone(&shared));
        let place = cls.insert(key, &mask, idx);
        t.simple.insert(&key.expand(), &mask, idx, &mut self.raw);
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
        if let Some(Some(t)) = self.tables.get_mut(slot as usize) {
            t.classifier.remove(place);
            t.simple.remove(&shared.key.flow(), &shared.mask, idx, &mut self.raw);
        }
        shared.mark_dead();
        self.out.event(FlowEvent::Deleted(shared));
    }

    fn classifier_of(&self, slot: usize) -> Option<&Classifier> {
        self.tables.get(slot)?.as_ref().map(|t| &t.classifier)
    }

    /// Removes up to `max` megaflows of packets that came from `port`. False when there may be more.
    pub(crate) fn purge_port(&mut self, port: u32, max: usize) -> bool {
        let slot = Engine::slot_of(port);
        let (of, mut cursor) = std::mem::take(&mut self.purging);
        if of != port {
            cursor = Cursor::default();
        }
        let flows = self.classifier_of(slot).map(|c| c.flows(&mut cursor, max)).unwrap_or_default();
        flows.iter().for_each(|idx| self.remove(*idx));
        if flows.len() == max {
            self.purging = (port, cursor);
            return false;
        }
        if self.classifier_of(slot).is_some_and(|c| !c.is_empty()) {
            // Some came meanwhile, behind the walk: it begins anew.
            return false;
        }
        if slot != 0 {
            if let Some(t) = self.tables.get_mut(slot) {
                *t = None;
            }
        }
        true
    }

    /// Removes every megaflow.
    pub(crate) fn purge(&mut self) {
        for idx in self.flows.indices() {
            self.remove(idx);
        }
    }

    /// Subtables of all ports.
    pub(crate) fn subtables(&self) -> usize {
        self.tables.iter().flatten().map(|t| t.classifier.n_masks()).sum()
    }

    /// Sorts the subtables of every classifier by recent hits.
    pub(crate) fn optimize(&mut self) {
        for t in self.tables.iter_mut().flatten() {
            t.classifier.optimize();
            t.simple.optimize(&self.raw);
        }
    }

    /// Credits megaflows with their packets, sends what has one plain output, and groups the rest.
    fn dispatch(&mut self, batch: &mut Batch, hashes: Option<&[u32; BURST]>, s: &mut Scratch) {
        if self.flows.len() > MANY_FLOWS {
            self.flows.prefetch(&s.flow[..batch.len()]);
        }
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
        for (i, mut p) in batch.drain().enumerate() {
            let idx = s.flow[i];
            let h = hashes.map_or(0, |h| h[i]);
            let Some(f) = self.flows.get_mut(idx) else {
                if self.missing.refuse {
                    self.stats.drop_n(Drop::UpcallShare, 1);
                    continue;
                }
                let at = s.once.iter().position(|(at, _)| *at == i);
                let fate = at.map_or(Fate::Once(None), |at| Fate::Once(s.once.swap_remove(at).1));
                s.new_group(fate, p, h);
                continue;
            };
            if let Some(port) = f.fast.port() {
                self.tx.push(port, p, self.now_tsc, &mut self.stats);
            } else if let (Fast::REWRITE, Some([first @ .., DpAction::Output(port)])) =
                (f.fast, f.actions.as_deref())
            {
                if rewrite::apply(&mut p, first) {
                    self.tx.push(*port, p, self.now_tsc, &mut self.stats);
                } else {
                    self.stats.drop_n(Drop::Push, 1);
                }
            } else if f.fast == Fast::DROP {
                self.stats.drop_n(Drop::Action, 1);
            } else if f.burst == self.burst {
                let g = &mut s.groups[f.group as usize];
                g.hashes[g.packets.len() % BURST] = h;
                // Never full: a group has at most the packets of the burst.
                let _ = g.packets.push(p);
            } else {
                f.burst = self.burst;
                f.group = s.n_groups as u32;
                s.new_group(Fate::Flow(idx), p, h);
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
            let counts = u64::from(!s.missed >> i & 1);
            packets += counts;
            bytes += len as u64 * counts;
            flags |= s.flags[i] & (counts as u16).wrapping_neg();
        }
        self.credit_one(current, packets, bytes, flags);
        (uniform.then_some(current).filter(|_| !batch.is_empty()), longest)
    }

    #[inline(always)]
    fn credit_one(&self, idx: FlowIdx, packets: u64, bytes: u64, flags: u16) {
        if packets == 0 {
            return;
        }
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
                g.fate = Fate::Once(None);
                self.run(&mut g.packets, &actions, &mut Meta::clone(meta), &mut g.hashes, depth);
            }
            Fate::Once(None) => {
                self.stats.drop_n(Drop::Upcall, g.packets.len());
                g.packets.clear();
            }
        }
    }
}

/// Parses the packets in `todo`. With hashes, each packet has metadata of its own.
#[inline(never)]
fn make_keys(
    parser: Parser,
    packets: &[Packet],
    todo: u32,
    meta: &Meta,
    hashes: Option<&[u32; BURST]>,
    s: &mut Scratch,
) {
    match hashes {
        None => parser.keys(packets, todo, &meta.packed(0), &mut s.keys),
        // One at a time there is nothing to gain.
        Some(h) => {
            for i in bits(todo) {
                let Some(p) = packets.get(i) else { break };
                extract::extract(p.data(), &meta.packed(h[i]), &mut s.keys[i]);
            }
        }
    }
    for i in bits(todo) {
        s.flags[i] = extract::tcp_flags(&s.keys[i]);
    }
}

/// Takes the headers of plain frames; returns which they are.
#[inline(always)]
fn read_plain(simple: &Simple, packets: &[Packet], s: &mut Scratch) -> u32 {
    if simple.is_empty() {
        return 0;
    }
    let mut plain = 0u32;
    for (i, p) in packets.iter().enumerate().take(BURST) {
        if let Some(later) = packets.get(i + AHEAD) {
            later.prefetch_data();
        }
        if let Some((raw, flags)) = simple::plain(p.data()) {
            s.raw[i] = raw;
            s.flags[i] = flags;
            plain |= 1 << i;
        }
    }
    plain
}

//! Actions on groups of packets.
//!
//! A list runs once for a group. Its last action that passes packets on takes the packets themselves, those before
//! take copies; whoever is left at the end of the list is dropped, so that every packet is accounted for.
//! Neighbours: `engine` brings groups and takes recirculated packets; `rewrite` changes packets; `tx` sends them.
//! Threads: the owner's.

use crate::api::UserspacePacket;
use crate::classifier::BURST;
use crate::drops::Drop;
use crate::engine::{Engine, Meta};
use crate::rewrite;
use flow::{extract, DpAction, DpPort, Miniflow, RecircId, SetField, UserspaceCookie};
use packet::{Batch, Packet};

/// Clones may nest so deep; OpenFlow cannot make deeper lists that do anything.
const MAX_NESTING: usize = 32;

/// Whether the action passes packets on, so that it can have the packets themselves when it is the last one.
fn passes_on(a: &DpAction) -> bool {
    matches!(a, DpAction::Output(_) | DpAction::Userspace { .. } | DpAction::Recirc(_) | DpAction::Clone(_))
}

impl Engine {
    /// Runs `actions` on the packets of `batch`, which is empty afterwards.
    pub(crate) fn run(
        &mut self,
        batch: &mut Batch,
        actions: &[DpAction],
        meta: &mut Meta,
        hashes: &mut [u32; BURST],
        depth: usize,
    ) {
        self.run_nested(batch, actions, meta, hashes, (depth, 0));
    }

    fn run_nested(
        &mut self,
        batch: &mut Batch,
        actions: &[DpAction],
        meta: &mut Meta,
        hashes: &mut [u32; BURST],
        (depth, nesting): (usize, usize),
    ) {
        let last = actions.iter().rposition(passes_on);
        let (mut i, mut trunc, mut reason) = (0, None, Drop::Action);
        while i < actions.len() && !batch.is_empty() {
            let a = &actions[i];
            if rewrite::is_rewrite(a) {
                let n = actions[i..].iter().take_while(|a| rewrite::is_rewrite(a)).count();
                self.rewrite(batch, &actions[i..i + n], hashes);
                i += n;
                continue;
            }
            let moved = last == Some(i);
            match a {
                DpAction::Output(port) => self.output(batch, *port, trunc.take(), moved),
                DpAction::Userspace { cookie, .. } => {
                    self.userspace(batch, cookie, meta, hashes, trunc.take(), moved)
                }
                DpAction::Recirc(id) => self.recirculate(batch, *id, meta, hashes, depth, moved),
                DpAction::Clone(inner) if nesting < MAX_NESTING => {
                    let (mut m, mut h) = (*meta, *hashes);
                    let at = (depth, nesting + 1);
                    if moved {
                        self.run_nested(batch, inner, &mut m, &mut h, at);
                    } else {
                        let mut copies = self.copy(batch, &mut h);
                        self.run_nested(&mut copies, inner, &mut m, &mut h, at);
                    }
                }
                DpAction::Hash { basis, .. } => {
                    self.hash(batch, meta, hashes, *basis);
                    meta.hashed = true;
                }
                DpAction::Trunc { max_len } => trunc = Some(*max_len as usize),
                DpAction::Set(SetField::SkbPriority { value, mask }) => {
                    meta.priority = meta.priority & !mask | value & mask;
                }
                DpAction::Set(SetField::SkbMark { value, mask }) => {
                    meta.mark = meta.mark & !mask | value & mask
                }
                DpAction::Drop(code) => {
                    reason = Drop::of_action(*code);
                    break;
                }
                // A meter that is not configured lets everything pass.
                _ => {}
            }
            i += 1;
        }
        if !batch.is_empty() {
            self.stats.drop_n(reason, batch.len());
            batch.clear();
        }
    }

    /// Applies rewrites to each packet; those that cannot take them are dropped.
    fn rewrite(&mut self, batch: &mut Batch, actions: &[DpAction], hashes: &mut [u32; BURST]) {
        let mut bad = 0u32;
        for (i, p) in batch.as_mut_slice().iter_mut().enumerate() {
            if !rewrite::apply(p, actions) {
                bad |= 1 << i;
            }
        }
        if bad != 0 {
            self.stats.drop_n(Drop::Push, bad.count_ones() as usize);
            let mut rest = Batch::new();
            for (i, p) in batch.drain().enumerate().filter(|(i, _)| bad >> i & 1 == 0) {
                hashes[rest.len()] = hashes[i];
                // Never full: it gets fewer than `batch` had.
                let _ = rest.push(p);
            }
            std::mem::swap(batch, &mut rest);
        }
    }

    /// Copies of all packets (`hashes` become theirs). What cannot be copied is counted.
    fn copy(&mut self, batch: &Batch, hashes: &mut [u32; BURST]) -> Batch {
        let mut out = Batch::new();
        for (i, p) in batch.as_slice().iter().enumerate() {
            self.stats.copies += 1;
            match p.try_clone() {
                Some(c) => {
                    hashes[out.len()] = hashes[i];
                    // Never full: it gets at most what `batch` has.
                    let _ = out.push(c);
                }
                None => self.stats.drop_n(Drop::NoBuffer, 1),
            }
        }
        out
    }

    fn output(&mut self, batch: &mut Batch, port: DpPort, trunc: Option<usize>, moved: bool) {
        let mut copies;
        let from = if moved {
            batch
        } else {
            copies = self.copy(batch, &mut [0; BURST]);
            &mut copies
        };
        for mut p in from.drain() {
            if let Some(n) = trunc {
                p.truncate(n);
            }
            self.tx.push(port, p, self.now_tsc, &mut self.stats);
        }
    }

    fn userspace(
        &mut self,
        batch: &mut Batch,
        cookie: &UserspaceCookie,
        meta: &Meta,
        hashes: &[u32; BURST],
        trunc: Option<usize>,
        moved: bool,
    ) {
        for (i, p) in batch.as_slice().iter().enumerate() {
            self.stats.copies += u64::from(!moved);
            // The buffer of a device is not kept waiting for user space, unless it is one of a chain.
            let whole = p.len() == p.frame_len();
            let copy = if whole { Some(Packet::from_slice(p.data())) } else { p.try_clone() };
            let Some(mut packet) = copy else {
                self.stats.drop_n(Drop::NoBuffer, 1);
                continue;
            };
            let dp_hash = if meta.hashed { hashes[i] } else { 0 };
            let flow = extract::extract_flow(p.data(), &meta.packed(dp_hash)).0;
            if let Some(n) = trunc {
                packet.truncate(n);
            }
            let up = UserspacePacket { packet, flow, cookie: *cookie, pmd: self.id };
            match self.out.user.push(up) {
                Ok(()) => self.stats.userspace += 1,
                Err(_) => self.stats.drop_n(Drop::UserspaceRing, 1),
            }
        }
        if moved {
            batch.clear();
        }
    }

    fn recirculate(
        &mut self,
        batch: &mut Batch,
        id: RecircId,
        meta: &Meta,
        hashes: &[u32; BURST],
        depth: usize,
        moved: bool,
    ) {
        let mut h = *hashes;
        let mut copies;
        let from = if moved {
            batch
        } else {
            copies = self.copy(batch, &mut h);
            &mut copies
        };
        self.stats.recirculated += from.len() as u64;
        let next = Meta { recirc_id: id, ..*meta };
        self.process(from, &next, meta.hashed.then_some(&h), depth + 1);
    }

    /// Computes the dp_hash of each packet over its 5-tuple.
    fn hash(&mut self, batch: &Batch, meta: &Meta, hashes: &mut [u32; BURST], basis: u32) {
        let md = meta.packed(0);
        let mut key = Miniflow::EMPTY;
        for (h, p) in hashes.iter_mut().zip(batch.as_slice()) {
            extract::extract(p.data(), &md, &mut key);
            *h = five_tuple(&key, basis).max(1);
        }
    }
}

/// A hash of addresses, protocol and ports.
fn five_tuple(key: &Miniflow, basis: u32) -> u32 {
    use flow::Flow;
    use std::mem::offset_of;
    const FIRST: usize = offset_of!(Flow, nw_src) / 8;
    const PROTO: usize = offset_of!(Flow, nw_proto) / 8;
    const PORTS: usize = offset_of!(Flow, tp_src) / 8;
    let proto = key.word(PROTO) & u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 0xff]);
    let mut words = [0u64; 7];
    for (i, w) in words[..5].iter_mut().enumerate() {
        *w = key.word(FIRST + i);
    }
    words[5] = proto;
    words[6] = key.word(PORTS);
    crate::hash::words(u64::from(basis), &words) as u32
}

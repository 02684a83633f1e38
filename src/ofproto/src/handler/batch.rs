//! One batch of a handler: packets in, operations out.
//!
//! Neighbours: parent module; `upcall` translates. Threads: a handler.

use super::{Shared, LOG, MAX_BATCH};
use crate::upcall::{translate_flow, Purpose};
use crate::xlate::XlateOut;
use datapath::{DpOp, FlowPut, OpError, PmdId, QueuedUpcall, UpcallKind, UserspacePacket};
use flow::extract::PktMetadata;
use flow::odp::wire::{decode_cookie, decode_key, CookieError, WireCookie};
use flow::{extract_flow, DpAction, Flow, Mask, UserspaceCookie};
use infra::vlog::RateLimit;
use infra::vlog_rl;
use packet::Packet;
use std::sync::Arc;

static LIMIT: RateLimit = RateLimit::new(1, 5);

/// Shortest frame.
const ETH_HEADER: usize = 14;

/// What a packet came up for.
enum Class {
    Miss,
    SlowPath,
    Controller(UserspaceCookie),
    SFlow,
    FlowSample,
    Ipfix,
}

fn classify(up: &QueuedUpcall) -> Result<Class, CookieError> {
    if up.kind == UpcallKind::Miss {
        return Ok(Class::Miss);
    }
    Ok(match decode_cookie(&up.cookie)? {
        WireCookie::Own(UserspaceCookie::SlowPath { .. }) => Class::SlowPath,
        WireCookie::Own(cookie) => Class::Controller(cookie),
        WireCookie::SFlow => Class::SFlow,
        WireCookie::FlowSample => Class::FlowSample,
        WireCookie::Ipfix => Class::Ipfix,
    })
}

/// Operations in order, and the flows among them.
#[derive(Default)]
struct Ops {
    ops: Vec<DpOp>,
    flows: Vec<(Flow, Mask)>,
    scratch: XlateOut,
}

impl Ops {
    fn execute(&mut self, packet: Packet, flow: &Flow, actions: Vec<DpAction>) {
        if !actions.is_empty() {
            let (flow, actions) = (Box::new(*flow), Arc::from(actions));
            self.ops.push(DpOp::Execute { packet, flow, actions });
        }
    }
}

impl Shared {
    /// Handles what a channel has, up to a batch. Returns how many packets it was.
    pub(super) fn batch(&self, index: usize) -> usize {
        let Some(queue) = self.dp.queue() else { return 0 };
        let (mut upcalls, mut ops) = (Vec::new(), Ops::default());
        let n = queue.recv(index, MAX_BATCH, &mut upcalls);
        if n > 0 {
            self.stats.batches();
            upcalls.into_iter().for_each(|up| self.one(up, &mut ops));
            self.operate(ops.ops);
        }
        n
    }

    fn operate(&self, ops: Vec<DpOp>) {
        if ops.is_empty() {
            return;
        }
        for failure in self.dp.operate(ops).into_iter().filter_map(Result::err) {
            match failure {
                OpError::Exists => self.stats.duplicates(),
                e => {
                    self.stats.refused();
                    let name = self.dp.full_name();
                    vlog_rl!(LOG, LIMIT, Warn, "{name}: an operation of a handler failed: {e}");
                }
            }
        }
    }

    fn one(&self, up: QueuedUpcall, ops: &mut Ops) {
        let class = classify(&up);
        let key = decode_key(&up.key);
        let name = || self.dp.full_name();
        let (class, key) = match (class, key) {
            (Ok(class), Ok(key)) if up.packet.len() >= ETH_HEADER => (class, key),
            (Err(e), _) => {
                vlog_rl!(LOG, LIMIT, Warn, "{e}");
                return self.stats.bad();
            }
            (_, Err(e)) => {
                vlog_rl!(LOG, LIMIT, Warn, "{}: a packet came up with a bad key: {e}", name());
                return self.stats.bad();
            }
            (_, Ok(_)) => {
                let len = up.packet.len();
                vlog_rl!(LOG, LIMIT, Warn, "{}: a packet of {len} bytes came up", name());
                return self.stats.bad();
            }
        };
        let (flow, _) = extract_flow(up.packet.data(), &PktMetadata::from_flow(&key));
        match class {
            Class::Miss => self.miss(up, &flow, ops),
            Class::SlowPath => self.slow_path(up.packet, &flow, ops),
            Class::Controller(cookie) => {
                self.to_main(UserspacePacket { packet: up.packet, flow, cookie, pmd: PmdId::NON_PMD });
            }
            Class::SFlow => self.stats.sflow(),
            Class::FlowSample => self.stats.flow_sample(),
            Class::Ipfix => self.stats.ipfix(),
        }
    }

    fn miss(&self, up: QueuedUpcall, flow: &Flow, ops: &mut Ops) {
        self.stats.misses();
        let now_ms = (self.clock)();
        let covered = ops.flows.iter().any(|(f, m)| f.matches(flow, m));
        let translated = self.upcalls.queued(&up.packet, flow, now_ms, !covered, &mut ops.scratch);
        if translated.restoring {
            return self.stats.restoring();
        }
        if !translated.known {
            self.stats.unknown_port();
            let port = flow.in_port;
            vlog_rl!(
                LOG,
                LIMIT,
                Info,
                "received packet on unassociated datapath port {port} (no OpenFlow port for datapath port {port})"
            );
        }
        if covered {
            // An earlier packet of this batch brings the flow.
            self.stats.duplicates();
        } else if let Some(put) = translated.put {
            self.stats.puts();
            ops.flows.push((put.flow, put.mask));
            let put = Box::new(FlowPut { ufid: up.ufid, ..put });
            ops.ops.push(DpOp::Put { pmd: PmdId::NON_PMD, put });
        }
        ops.execute(up.packet, flow, translated.actions);
    }

    fn slow_path(&self, packet: Packet, flow: &Flow, ops: &mut Ops) {
        self.stats.slow_path();
        let (world, x) = (self.upcalls.world(), &mut ops.scratch);
        translate_flow(world, flow, (self.clock)(), Purpose::SlowPacket, x);
        if x.changed {
            world.macs_changed();
        }
        x.cache.credits.clear();
        let actions = std::mem::take(&mut x.actions);
        ops.execute(packet, flow, actions);
    }
}

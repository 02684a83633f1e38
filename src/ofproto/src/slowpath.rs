//! The slow path of one datapath as a whole: upcalls, revalidation, packets to and from controllers.
//!
//! Neighbours: `bridge` owns it and speaks to nothing behind it; `upcall`, `revalidate`, `packet_in` do the work.
//! Threads: owned by main; starts the revalidator thread.

use crate::conn::PacketInEvent;
use crate::packet_in::{self, FromDatapath, PacketIn};
use crate::revalidate::{RevalidateConfig, Revalidator};
use crate::snapshot::{BridgeId, World};
use crate::upcall::Upcalls;
use datapath::{Datapath, SharedFlow, Upcall, UserspacePacket};
use flow::extract::{extract_flow, PktMetadata};
use flow::{Flow, Mask, Match};
use openflow::{OfError, PacketOut};
use packet::Packet;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

static LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto_dpif_upcall");

/// Number of the revalidator thread in its name and in `upcall/show`.
const REVALIDATOR_ID: u32 = 1;

/// What exists once the datapath does.
struct Running {
    datapath: Arc<Datapath>,
    revalidator: Arc<Revalidator>,
}

/// See the module's header.
pub struct SlowPath {
    world: Arc<World>,
    upcalls: Arc<Upcalls>,
    running: OnceLock<Running>,
    config: Mutex<RevalidateConfig>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn now_ms() -> u64 {
    infra::clock::now_ms().max(0) as u64
}

/// A packet-in on its way to the connections of its bridge.
pub struct BridgePacketIn {
    /// The bridge.
    pub bridge: BridgeId,
    inner: Box<PacketIn>,
    metadata: Match,
}

impl BridgePacketIn {
    /// As connections take it.
    pub fn as_event(&self) -> PacketInEvent<'_> {
        PacketInEvent {
            packet: self.inner.packet.data(),
            reason: self.inner.reason,
            table_id: self.inner.table_id,
            cookie: self.inner.cookie,
            controller_id: self.inner.controller_id,
            metadata: &self.metadata,
            userdata: &self.inner.userdata,
        }
    }
}

/// The non-zero words of `m` as exact matches: what a packet-in reports.
fn as_match(m: &Flow) -> Match {
    let mut mask = Flow { in_port: u32::MAX, ..Flow::default() };
    for (w, v) in mask.words_mut().iter_mut().zip(m.words()) {
        // Registers stand two to a word: each is reported when it is not zero.
        let (low, high) = (*v as u32, (*v >> 32) as u32);
        *w |= u64::from(if low != 0 { u32::MAX } else { 0 })
            | u64::from(if high != 0 { u32::MAX } else { 0 }) << 32;
    }
    if !m.metadata.is_zero() {
        mask.metadata = flow::Be64::MAX;
    }
    if !m.tun_id.is_zero() {
        mask.tun_id = flow::Be64::MAX;
    }
    Match { flow: *m, mask: Mask(mask) }
}

impl SlowPath {
    /// A slow path that translates by what `world` publishes.
    pub fn new(world: Arc<World>) -> Arc<SlowPath> {
        Arc::new(SlowPath {
            upcalls: Arc::new(Upcalls::new(world.clone())),
            world,
            running: OnceLock::new(),
            config: Mutex::new(RevalidateConfig::default()),
            thread: Mutex::new(None),
        })
    }

    /// What PMDs call on a miss.
    pub fn upcall(&self) -> Arc<dyn Upcall> {
        self.upcalls.clone()
    }

    /// Reads `flow-limit`, `max-idle`, `max-revalidator`, `min-revalidate-pps` (ovs-vswitchd.conf.db(5)).
    pub fn configure(&self, other_config: &BTreeMap<String, String>) {
        let d = RevalidateConfig::default();
        // As Open vSwitch reads them: an int, and nothing refused that is one.
        let number = |key: &str, default: u64| match other_config.get(key) {
            None => default,
            Some(v) => match v.trim_start().parse::<i32>().map(u64::try_from) {
                Ok(Ok(n)) => n,
                _ => {
                    infra::vlog!(
                        LOG,
                        Warn,
                        "ignoring other_config:{key}={v}, which is not a number from 0 to {}",
                        i32::MAX
                    );
                    default
                }
            },
        };
        let c = RevalidateConfig {
            flow_limit: number("flow-limit", d.flow_limit as u64) as usize,
            max_idle_ms: number("max-idle", d.max_idle_ms),
            max_revalidator_ms: number("max-revalidator", d.max_revalidator_ms),
            min_revalidate_pps: number("min-revalidate-pps", d.min_revalidate_pps),
        };
        *self.config.lock() = c;
        if let Some(r) = self.running.get() {
            r.revalidator.set_config(c);
        }
    }

    /// Starts revalidating the flows of `datapath`. Once.
    pub fn start(&self, datapath: Arc<Datapath>) {
        let revalidator =
            Arc::new(Revalidator::new(self.world.clone(), self.upcalls.clone(), datapath.clone()));
        revalidator.set_config(*self.config.lock());
        let worker = revalidator.clone();
        let body = move || {
            infra::cpu::name_thread(&format!("revalidator{REVALIDATOR_ID}"));
            worker.run(REVALIDATOR_ID, &now_ms);
        };
        match std::thread::Builder::new().name(format!("revalidator{REVALIDATOR_ID}")).spawn(body) {
            Ok(t) => *self.thread.lock() = Some(t),
            Err(e) => {
                infra::vlog!(LOG, Err, "cannot start a revalidator thread: {e}; flows will not expire");
            }
        }
        let _ = self.running.set(Running { datapath, revalidator });
    }

    /// Stops the revalidator thread.
    pub fn stop(&self) {
        if let Some(r) = self.running.get() {
            r.revalidator.stop();
        }
        if let Some(t) = self.thread.lock().take() {
            if t.join().is_err() {
                infra::vlog!(LOG, Err, "the revalidator thread ended with a panic");
            }
        }
    }

    /// Handles a packet that came up; gives a packet-in when it is one for controllers.
    pub fn packet_in(&self, p: UserspacePacket) -> Option<BridgePacketIn> {
        let r = self.running.get()?;
        match packet_in::handle(&self.world, &r.datapath, p, now_ms()) {
            FromDatapath::PacketIn(inner) => {
                Some(BridgePacketIn { bridge: inner.bridge, metadata: as_match(&inner.metadata), inner })
            }
            FromDatapath::Done => None,
        }
    }

    /// Runs a packet-out.
    ///
    /// # Errors
    /// `OFPBRC_BAD_PORT` when its in_port cannot be one, `OFPBRC_BAD_PACKET` for a frame without a header.
    pub fn packet_out(&self, bridge: BridgeId, out: &PacketOut) -> Result<(), OfError> {
        let Some(r) = self.running.get() else { return Ok(()) };
        if out.packet.len() < 14 {
            return Err(OfError::OFPBRC_BAD_PACKET);
        }
        let packet = Packet::from_slice(&out.packet);
        let (mut flow, _) = extract_flow(packet.data(), &PktMetadata::new(0));
        // Pipeline fields that the message sets (OpenFlow 1.5 §7.3.6).
        let (m, given) = (out.metadata.mask.0, out.metadata.flow);
        for ((f, m), g) in flow.words_mut().iter_mut().zip(m.words()).zip(given.words()) {
            *f = *f & !m | g & m;
        }
        packet_in::packet_out(
            &self.world,
            &r.datapath,
            bridge,
            out.in_port,
            packet,
            flow,
            (&out.actions, now_ms()),
        );
        Ok(())
    }

    /// Credits rules and ports with what the datapath counted so far.
    pub fn push_stats(&self) {
        if let Some(r) = self.running.get() {
            r.revalidator.push_stats();
        }
    }

    /// Megaflows installed.
    pub fn flows(&self) -> Vec<Arc<SharedFlow>> {
        self.running.get().map(|r| r.revalidator.flows()).unwrap_or_default()
    }

    /// For `memory/show`.
    pub fn memory(&self) -> Vec<(String, usize)> {
        let keys = self.running.get().map_or(0, |r| r.revalidator.flow_count());
        vec![("revalidators".into(), 1), ("udpif keys".into(), keys)]
    }

    /// `upcall/show`.
    pub fn show(&self) -> String {
        self.running
            .get()
            .map(|r| format!("{}@{}", r.datapath.kind(), r.revalidator.show()))
            .unwrap_or_default()
    }

    /// `upcall/set-flow-limit`.
    pub fn set_flow_limit(&self, limit: u32) {
        self.upcalls.set_flow_limit(limit as usize);
    }

    /// `other_config:flow-restore-wait`: packets without a flow are dropped for now.
    pub fn set_restoring(&self, on: bool) {
        self.upcalls.set_restoring(on);
    }

    /// `upcall/disable-megaflows|enable-megaflows`. Flows made the other way are removed.
    pub fn set_megaflows(&self, on: bool) {
        if self.upcalls.megaflows() != on {
            self.upcalls.set_megaflows(on);
            self.purge();
        }
    }

    /// `upcall/disable-ufid|enable-ufid`: what `upcall/show` tells. Flows are always found by identifier here.
    pub fn set_ufid(&self, on: bool) {
        self.upcalls.set_ufid(on);
    }

    /// The clock was moved: whoever waits for a time looks again.
    pub fn clock_moved(&self) {
        self.world.wake();
    }

    /// `revalidator/purge`.
    pub fn purge(&self) {
        if let Some(r) = self.running.get() {
            r.revalidator.purge();
        }
    }

    /// `revalidator/pause` and `revalidator/resume`.
    pub fn pause(&self, on: bool) {
        if let Some(r) = self.running.get() {
            r.revalidator.pause(on);
        }
    }

    /// `revalidator/wait`.
    pub fn wait_round(&self) {
        if let Some(r) = self.running.get() {
            r.revalidator.wait_sweep();
        }
    }
}

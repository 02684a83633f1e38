//! The slow path of one datapath as a whole: upcalls, revalidation, packets to and from controllers.
//!
//! Neighbours: `bridge` owns it and speaks to nothing behind it; `upcall`, `revalidate`, `packet_in` do the work.
//! Threads: owned by main; starts handlers and revalidators.

use crate::conn::PacketInEvent;
use crate::handler::Handlers;
use crate::packet_in::{self, FromDatapath, PacketIn};
use crate::revalidate::{RevalidateConfig, Revalidator, Threads, Ticket};
use crate::snapshot::{BridgeId, World};
use crate::threads::ThreadCounts;
use crate::upcall::Upcalls;
use datapath::{Provider, SharedFlow, Upcall};
use flow::{Flow, Mask, Match};
use infra::cpu::thread_number;
use infra::poll::Poller;
use openflow::{OfError, PacketOut, Resume};
use packet::Packet;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

static LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto_dpif_upcall");

/// What exists once the datapath does.
struct Running {
    datapath: Arc<dyn Provider>,
    revalidator: Arc<Revalidator>,
    handlers: Handlers,
}

/// See the module's header.
pub struct SlowPath {
    world: Arc<World>,
    upcalls: Arc<Upcalls>,
    running: OnceLock<Running>,
    config: Mutex<RevalidateConfig>,
    counts: Mutex<ThreadCounts>,
    /// What was said about the settings of threads.
    complaints: Mutex<Vec<String>>,
    revalidators: Mutex<Option<Threads>>,
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
            continuation: self.inner.continuation.as_ref(),
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
            counts: Mutex::new(ThreadCounts::of_config(&BTreeMap::new(), infra::cpu::count()).0),
            complaints: Mutex::default(),
            revalidators: Mutex::default(),
        })
    }

    /// What PMDs call on a miss.
    pub fn upcall(&self) -> Arc<dyn Upcall> {
        self.upcalls.clone()
    }

    /// Reads `flow-limit`, `max-idle`, `max-revalidator`, `min-revalidate-pps`, `n-handler-threads`,
    /// `n-revalidator-threads` (ovs-vswitchd.conf.db(5)).
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
        let changed = self.configure_threads(other_config);
        if let Some(r) = self.running.get() {
            r.revalidator.set_config(c);
            if changed {
                self.start_threads(r);
                // As in Open vSwitch, a new set of threads begins with an empty table.
                r.revalidator.ask_purge();
            }
        }
    }

    /// True when there are to be other numbers of threads.
    fn configure_threads(&self, other_config: &BTreeMap<String, String>) -> bool {
        let (counts, complaints) = ThreadCounts::of_config(other_config, infra::cpu::count());
        let mut said = self.complaints.lock();
        if *said != complaints {
            complaints.iter().for_each(|c| infra::vlog!(LOG, Warn, "{c}"));
            *said = complaints;
        }
        std::mem::replace(&mut *self.counts.lock(), counts) != counts
    }

    /// Ends the threads that run, and starts as many as there are to be.
    fn start_threads(&self, r: &Running) {
        let ThreadCounts { handlers, revalidators } = *self.counts.lock();
        infra::vlog!(
            LOG,
            Info,
            "Setting n-handler-threads to {handlers}, setting n-revalidator-threads to {revalidators}"
        );
        infra::vlog!(LOG, Info, "Starting {} threads", handlers + revalidators);
        let dp = r.datapath.full_name();
        let numbers: Vec<u32> = (0..handlers).map(|_| thread_number()).collect();
        if let Err(e) = r.handlers.start(&numbers) {
            infra::vlog!(LOG, Err, "{dp}: cannot start {handlers} handler threads: {e}");
        }
        let mut threads = self.revalidators.lock();
        if let Some(old) = threads.take() {
            old.stop();
        }
        let clock: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(now_ms);
        match Threads::start(&r.revalidator, revalidators, &clock) {
            Ok(t) => *threads = Some(t),
            Err(e) => {
                infra::vlog!(LOG, Err, "{dp}: cannot start a revalidator thread: {e}; flows will not expire");
            }
        }
    }

    /// Starts handling the misses of `datapath` and revalidating its flows. Once.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn start(&self, datapath: Arc<dyn Provider>) -> std::io::Result<()> {
        let clock = Arc::new(now_ms);
        let handlers = Handlers::new(self.upcalls.clone(), datapath.clone(), clock)?;
        let revalidator =
            Arc::new(Revalidator::new(self.world.clone(), self.upcalls.clone(), datapath.clone()));
        revalidator.set_config(*self.config.lock());
        let running = Running { datapath, revalidator, handlers };
        self.start_threads(&running);
        let _ = self.running.set(running);
        Ok(())
    }

    /// Stops all threads.
    pub fn stop(&self) {
        if let Some(r) = self.running.get() {
            r.handlers.stop();
        }
        if let Some(t) = self.revalidators.lock().take() {
            t.stop();
        }
    }

    /// Handles up to `max` packets that came up; gives those for controllers to `f`.
    pub fn packet_ins(&self, max: usize, f: &mut dyn FnMut(BridgePacketIn)) {
        let Some(r) = self.running.get() else { return };
        let mut one = |p| match packet_in::handle(&self.world, r.datapath.as_ref(), p, now_ms()) {
            FromDatapath::PacketIn(inner) => {
                f(BridgePacketIn { bridge: inner.bridge, metadata: as_match(&inner.metadata), inner })
            }
            FromDatapath::Done => {}
        };
        if let Some(w) = r.datapath.userspace_waker() {
            w.drain();
        }
        r.datapath.drain_userspace(max, &mut one);
        r.handlers.drain_userspace(max, &mut one);
    }

    /// Registers what wakes for [`SlowPath::packet_ins`].
    pub fn wait(&self, poller: &mut Poller) {
        let Some(r) = self.running.get() else { return };
        poller.fd_in(r.handlers.userspace_waker().fd());
        match r.datapath.userspace_waker() {
            Some(w) if r.datapath.userspace_prepare_sleep() => poller.fd_in(w.fd()),
            Some(_) => poller.immediate(),
            None => {}
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
        // Pipeline fields that the message sets (OpenFlow 1.5 §7.3.6).
        let flow = packet_in::flow_with(&packet, &out.metadata);
        packet_in::packet_out(
            &self.world,
            r.datapath.as_ref(),
            bridge,
            out.in_port,
            packet,
            flow,
            (&out.actions, now_ms()),
        );
        Ok(())
    }

    /// Lets a packet go on that was stopped for controllers.
    ///
    /// # Errors
    /// `NXR_STALE` when it was not stopped in this bridge.
    pub fn resume(&self, bridge: BridgeId, r: &Resume) -> Result<(), OfError> {
        let Some(running) = self.running.get() else { return Ok(()) };
        packet_in::resume(&self.world, running.datapath.as_ref(), bridge, r, now_ms())
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
        let Some(r) = self.running.get() else { return Vec::new() };
        vec![
            ("handlers".into(), r.handlers.count()),
            ("revalidators".into(), r.revalidator.thread_count()),
            ("udpif keys".into(), r.revalidator.flow_count()),
        ]
    }

    /// `upcall/show`.
    pub fn show(&self) -> String {
        self.running.get().map(|r| r.revalidator.show()).unwrap_or_default()
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
    pub fn set_megaflows(&self, on: bool) -> Option<Ticket> {
        let changed = self.upcalls.megaflows() != on;
        self.upcalls.set_megaflows(on);
        changed.then(|| self.purge())?
    }

    /// `upcall/disable-ufid|enable-ufid`: what `upcall/show` tells. Flows are always found by identifier here.
    pub fn set_ufid(&self, on: bool) {
        self.upcalls.set_ufid(on);
    }

    /// The clock was moved: whoever waits for a time looks again.
    pub fn clock_moved(&self) {
        self.world.wake();
    }

    /// `revalidator/purge`: [`SlowPath::is_done`] tells when the flows are gone.
    pub fn purge(&self) -> Option<Ticket> {
        Some(self.running.get()?.revalidator.ask_purge())
    }

    /// `revalidator/pause` and `revalidator/resume`.
    pub fn pause(&self, on: bool) {
        if let Some(r) = self.running.get() {
            r.revalidator.pause(on);
        }
    }

    /// `revalidator/wait`: [`SlowPath::is_done`] tells when a sweep that began after the call is over.
    pub fn ask_sweep(&self) -> Option<Ticket> {
        Some(self.running.get()?.revalidator.ask_sweep())
    }

    /// Whether what was asked for is done, or never will be.
    pub fn is_done(&self, ticket: &Ticket) -> bool {
        self.running.get().is_none_or(|r| r.revalidator.is_done(ticket))
    }

    /// Waits for what was asked for. Not on the main thread.
    pub fn wait_for(&self, ticket: Option<Ticket>) {
        if let (Some(r), Some(t)) = (self.running.get(), ticket) {
            r.revalidator.wait_for(t);
        }
    }
}

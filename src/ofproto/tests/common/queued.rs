//! A datapath in memory that works as one in a kernel does: what it has no flow for waits in a queue, counters are its
//! own until somebody dumps them.

use datapath::shared::{Compact, NewFlow};
use datapath::{
    DpError, DpOp, FlowDump, FlowEvent, FlowPut, OpError, PmdId, PortInfo, Provider, ProviderStats,
    QueuedUpcall, SharedFlow, UpcallKind, UpcallQueue, UserspacePacket,
};
use flow::extract::PktMetadata;
use flow::odp::wire::{encode_cookie, encode_key, WireCookie};
use flow::{extract_flow, DpAction, DpPort, Flow};
use infra::Waker;
use netdev::Netdev;
use packet::Packet;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// Packets of one channel; the next is lost.
pub const CHANNEL: usize = 1000;

#[derive(Default)]
struct Counters {
    packets: u64,
    bytes: u64,
    used_ms: u64,
}

struct Entry {
    shared: Arc<SharedFlow>,
    flow: Flow,
    /// What a dump has not told yet.
    fresh: Counters,
}

struct Channel {
    queue: VecDeque<QueuedUpcall>,
    waker: Waker,
    sleeping: bool,
}

#[derive(Default)]
struct State {
    flows: Vec<Entry>,
    channels: Vec<Channel>,
    events: VecDeque<FlowEvent>,
    sent: Vec<(u32, Vec<u8>)>,
    stats: ProviderStats,
    batches: Vec<(usize, usize)>,
}

/// See the header.
pub struct QueuedDatapath {
    state: Mutex<State>,
    now_ms: AtomicU64,
}

impl QueuedDatapath {
    pub fn new() -> Arc<QueuedDatapath> {
        Arc::new(QueuedDatapath { state: Mutex::default(), now_ms: AtomicU64::new(1000) })
    }

    /// The clock.
    pub fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// A frame arrives on `port`.
    pub fn receive(&self, port: u32, frame: &[u8]) {
        let (flow, _) = extract_flow(frame, &PktMetadata::new(port));
        let now = self.now();
        let mut s = self.state.lock();
        let Some(e) = s.flows.iter_mut().find(|e| flow.matches(&e.flow, &e.shared.mask.mask())) else {
            s.stats.missed += 1;
            s.queue(UpcallKind::Miss, Packet::from_slice(frame), encode_key(&flow), &[]);
            return;
        };
        e.fresh.packets += 1;
        e.fresh.bytes += frame.len() as u64;
        e.fresh.used_ms = now;
        let actions = e.shared.actions();
        s.stats.hit += 1;
        s.run(&Packet::from_slice(frame), &flow, &actions);
    }

    /// Queues what a test makes up.
    pub fn queue(&self, kind: UpcallKind, frame: &[u8], key: Vec<u8>, cookie: &[u8]) {
        self.state.lock().queue(kind, Packet::from_slice(frame), key, cookie);
    }

    /// Port and frame of what was sent since the last call.
    pub fn sent(&self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.state.lock().sent)
    }

    /// Flows and packets of each batch of operations since the last call.
    pub fn batches(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.state.lock().batches)
    }

    /// The flows.
    pub fn flows(&self) -> Vec<Arc<SharedFlow>> {
        self.state.lock().flows.iter().map(|e| e.shared.clone()).collect()
    }
}

impl State {
    fn queue(&mut self, kind: UpcallKind, packet: Packet, key: Vec<u8>, cookie: &[u8]) {
        let n = self.channels.len();
        let port = flow::odp::wire::decode_key(&key).map_or(0, |f| f.in_port as usize);
        let Some(c) = (n > 0).then(|| &mut self.channels[port % n]).filter(|c| c.queue.len() < CHANNEL)
        else {
            self.stats.lost += 1;
            return;
        };
        let (key, cookie) = (key.into(), cookie.into());
        c.queue.push_back(QueuedUpcall { kind, packet, key, cookie, ufid: None });
        if std::mem::take(&mut c.sleeping) {
            c.waker.wake();
        }
    }

    fn run(&mut self, packet: &Packet, flow: &Flow, actions: &[DpAction]) {
        for a in actions {
            match a {
                DpAction::Output(p) => self.sent.push((p.0, packet.data().to_vec())),
                DpAction::Userspace { cookie, .. } => {
                    let bytes = encode_cookie(&WireCookie::Own(*cookie));
                    let copy = Packet::from_slice(packet.data());
                    self.queue(UpcallKind::Action, copy, encode_key(flow), &bytes);
                }
                DpAction::Set(_) | DpAction::Drop(_) => {}
                other => panic!("no such action here: {other:?}"),
            }
        }
    }

    fn put(&mut self, put: FlowPut, now_ms: u64) -> Result<(), OpError> {
        if self.flows.iter().any(|e| put.flow.matches(&e.flow, &e.shared.mask.mask())) {
            return Err(OpError::Exists);
        }
        let shared = Arc::new(SharedFlow::new(NewFlow {
            pmd: PmdId::NON_PMD,
            key: Compact::from_flow(&put.flow),
            mask: Arc::new(Compact::from_flow(&put.mask.0)),
            actions: put.actions.into(),
            seq: put.seq,
            now_ms,
            ctx: put.ctx,
            ufid: put.ufid,
        }));
        self.flows.push(Entry { shared: shared.clone(), flow: put.flow, fresh: Counters::default() });
        self.events.push_back(FlowEvent::New(shared));
        Ok(())
    }

    fn tell(e: &mut Entry) {
        let c = std::mem::take(&mut e.fresh);
        if c.packets > 0 {
            e.shared.credit(c.packets, c.bytes, c.used_ms, 0);
        }
    }
}

impl Provider for QueuedDatapath {
    fn kind(&self) -> &str {
        "queued"
    }
    fn name(&self) -> &str {
        "ovs-queued"
    }
    fn stats(&self) -> ProviderStats {
        let s = self.state.lock();
        ProviderStats { flows: s.flows.len() as u64, ..s.stats }
    }
    fn ports(&self) -> Vec<PortInfo> {
        Vec::new()
    }
    fn add_port(&self, _: Arc<dyn Netdev>, wanted: Option<DpPort>) -> Result<DpPort, DpError> {
        Ok(wanted.unwrap_or(DpPort(1)))
    }
    fn start_port(&self, _: DpPort) -> Result<(), DpError> {
        Ok(())
    }
    fn del_port(&self, _: DpPort) {}
    fn port_changed(&self, _: DpPort) -> Result<(), DpError> {
        Ok(())
    }
    fn operate(&self, ops: Vec<DpOp>) -> Vec<Result<(), OpError>> {
        let now = self.now();
        let mut s = self.state.lock();
        let (mut puts, mut packets) = (0, 0);
        let one = |op| match op {
            DpOp::Put { put, .. } => {
                puts += 1;
                s.put(*put, now)
            }
            DpOp::Execute { packet, flow, actions } => {
                packets += 1;
                s.run(&packet, &flow, &actions);
                Ok(())
            }
        };
        let outcomes = ops.into_iter().map(one).collect();
        s.batches.push((puts, packets));
        outcomes
    }
    fn flow_delete(&self, flow: &Arc<SharedFlow>) {
        let mut s = self.state.lock();
        if let Some(at) = s.flows.iter().position(|e| Arc::ptr_eq(&e.shared, flow)) {
            let mut e = s.flows.swap_remove(at);
            State::tell(&mut e);
            s.events.push_back(FlowEvent::Deleted(e.shared));
        }
    }
    fn flow_set_actions(&self, _: &Arc<SharedFlow>, _: Arc<[DpAction]>) {}
    fn drain_events(&self, max: usize, f: &mut dyn FnMut(FlowEvent)) -> usize {
        let mut s = self.state.lock();
        let n = s.events.len().min(max);
        let events: Vec<_> = s.events.drain(..n).collect();
        drop(s);
        events.into_iter().for_each(f);
        n
    }
    fn dump(&self) -> Option<Box<dyn FlowDump + '_>> {
        Some(Box::new(Dump { dp: self, at: AtomicUsize::new(0), flows: self.flows() }))
    }
    fn queue(&self) -> Option<&dyn UpcallQueue> {
        Some(self)
    }
    fn drain_userspace(&self, _: usize, _: &mut dyn FnMut(UserspacePacket)) -> usize {
        0
    }
    fn userspace_prepare_sleep(&self) -> bool {
        true
    }
    fn userspace_waker(&self) -> Option<Waker> {
        None
    }
}

struct Dump<'a> {
    dp: &'a QueuedDatapath,
    at: AtomicUsize,
    flows: Vec<Arc<SharedFlow>>,
}

impl FlowDump for Dump<'_> {
    fn next(&self, max: usize, batch: &mut Vec<Arc<SharedFlow>>) -> usize {
        let from = self.at.fetch_add(max, Ordering::Relaxed).min(self.flows.len());
        let part = &self.flows[from..self.flows.len().min(from + max)];
        let mut s = self.dp.state.lock();
        for f in part {
            if let Some(e) = s.flows.iter_mut().find(|e| Arc::ptr_eq(&e.shared, f)) {
                State::tell(e);
            }
        }
        batch.extend_from_slice(part);
        part.len()
    }
}

impl UpcallQueue for QueuedDatapath {
    fn set_handlers(&self, n: usize) -> Result<(), DpError> {
        let wakers: Result<Vec<_>, _> = (0..n).map(|_| Waker::new()).collect();
        let channel = |waker| Channel { queue: VecDeque::new(), waker, sleeping: false };
        let channels = wakers.map_err(DpError::Thread)?.into_iter().map(channel).collect();
        let mut s = self.state.lock();
        let old = std::mem::replace(&mut s.channels, channels);
        s.stats.lost += old.iter().map(|c| c.queue.len() as u64).sum::<u64>();
        Ok(())
    }
    fn recv(&self, handler: usize, max: usize, batch: &mut Vec<QueuedUpcall>) -> usize {
        let mut s = self.state.lock();
        let Some(c) = s.channels.get_mut(handler) else { return 0 };
        let n = c.queue.len().min(max);
        batch.extend(c.queue.drain(..n));
        n
    }
    fn prepare_sleep(&self, handler: usize) -> bool {
        let mut s = self.state.lock();
        let Some(c) = s.channels.get_mut(handler) else { return true };
        c.sleeping = c.queue.is_empty();
        c.sleeping
    }
    fn waker(&self, handler: usize) -> Option<Waker> {
        Some(self.state.lock().channels.get(handler)?.waker.clone())
    }
    fn purge(&self) {
        let mut s = self.state.lock();
        let n: usize = s.channels.iter_mut().map(|c| std::mem::take(&mut c.queue).len()).sum();
        s.stats.lost += n as u64;
    }
}

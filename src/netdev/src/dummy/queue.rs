//! Queues of dummy devices.
//!
//! Neighbours: the parent module makes them. Threads: one takes from a queue, another fills it; a lock between them.

use super::{capture_frame, Settings, Wire, MAX_WIRE};
use crate::mem::Wake;
use crate::{Error, Result, RxQueue, TxQueue, L2_OVERHEAD};
use infra::Waker;
use packet::build::Builder;
use packet::{Batch, Packet};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// Frames a receive queue holds.
const MAX_QUEUED: usize = 100;
const ETH_HEADER: usize = 14;

/// Packets and bytes of a queue, written by its owner.
#[derive(Default)]
pub(crate) struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Inbox {
    frames: VecDeque<Packet>,
    /// Frames taken by the reader that it may still be working on.
    out: bool,
}

/// A receive queue, both ends.
pub(crate) struct RxSide {
    inbox: Mutex<Inbox>,
    wake: Option<Wake>,
    taken: AtomicBool,
    pub(crate) counts: Counts,
}

impl RxSide {
    pub(crate) fn new(is_pmd: bool) -> Result<RxSide> {
        let wake = if is_pmd { None } else { Some(Wake::new()?) };
        Ok(RxSide { inbox: Mutex::default(), wake, taken: AtomicBool::new(false), counts: Counts::default() })
    }

    pub(crate) fn push(&self, p: Packet) {
        let mut inbox = self.inbox.lock();
        if inbox.frames.len() >= MAX_QUEUED {
            return;
        }
        inbox.frames.push_back(p);
        if let (1, Some(w)) = (inbox.frames.len(), &self.wake) {
            w.signal();
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        let inbox = self.inbox.lock();
        !self.taken.load(Ordering::Acquire) || inbox.frames.is_empty() && !inbox.out
    }
}

/// A transmit queue.
#[derive(Default)]
pub(crate) struct TxSide {
    taken: AtomicBool,
    pub(crate) counts: Counts,
}

fn claim(taken: &AtomicBool, port: &str, what: &str, q: usize) -> Result<()> {
    if taken.swap(true, Ordering::AcqRel) {
        return Err(Error::Device(format!("{port}: {what} queue {q} is already in use")));
    }
    Ok(())
}

/// The reader's end.
pub(crate) struct DummyRx(Arc<RxSide>);

impl DummyRx {
    pub(crate) fn take(side: Arc<RxSide>, port: &str, q: usize) -> Result<DummyRx> {
        claim(&side.taken, port, "receive", q)?;
        Ok(DummyRx(side))
    }
}

impl RxQueue for DummyRx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        let mut inbox = self.0.inbox.lock();
        // Whoever asks for more is done with what it had.
        inbox.out = false;
        let (mut n, mut bytes) = (0, 0);
        while !batch.is_full() {
            let Some(p) = inbox.frames.pop_front() else { break };
            n += 1;
            bytes += p.frame_len() as u64;
            if batch.push(p).is_err() {
                break;
            }
        }
        inbox.out = n > 0;
        if let (true, Some(w)) = (inbox.frames.is_empty(), &self.0.wake) {
            w.drain();
        }
        drop(inbox);
        if n > 0 {
            self.0.counts.add(n, bytes);
        }
        0
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.0.wake.as_ref().map(|w| w.poll.as_raw_fd())
    }
}

impl Drop for DummyRx {
    fn drop(&mut self) {
        self.0.inbox.lock().out = false;
        self.0.taken.store(false, Ordering::Release);
    }
}

/// The sender's end.
pub(crate) struct DummyTx {
    side: Arc<TxSide>,
    /// Where answers of the device itself (ARP) are received.
    rx: Option<Arc<RxSide>>,
    settings: Arc<Mutex<Settings>>,
    wire: Arc<Wire>,
    waker: Option<Waker>,
}

impl DummyTx {
    pub(crate) fn take(
        side: Arc<TxSide>,
        rx: Option<Arc<RxSide>>,
        settings: Arc<Mutex<Settings>>,
        wire: Arc<Wire>,
        waker: Option<Waker>,
        (port, q): (&str, usize),
    ) -> Result<DummyTx> {
        claim(&side.taken, port, "transmit", q)?;
        Ok(DummyTx { side, rx, settings, wire, waker })
    }

    /// The answer of the device's own address to an ARP request.
    fn answer(&self, frame: &[u8]) {
        let Some(rx) = &self.rx else { return };
        let (ip, mac, capture) = {
            let s = self.settings.lock();
            let Some(ip) = s.ip4 else { return };
            (ip.octets(), s.mac, s.rx_capture.clone())
        };
        if let Some(reply) = arp_reply(frame, mac, ip) {
            if let Some(c) = capture {
                capture_frame(&c, &reply);
            }
            rx.push(Packet::from_slice(&reply));
        }
    }
}

/// The reply of `ip` at `mac` to a frame that asks for it.
fn arp_reply(frame: &[u8], mac: [u8; 6], ip: [u8; 4]) -> Option<Vec<u8>> {
    let arp = frame.get(12..42)?;
    let request = arp[..10] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    if !request || arp[26..30] != ip {
        return None;
    }
    let sha: [u8; 6] = arp[10..16].try_into().ok()?;
    let spa: [u8; 4] = arp[16..20].try_into().ok()?;
    Some(Builder::eth(sha, mac).arp(2, mac, ip, sha, spa).finish())
}

impl TxQueue for DummyTx {
    fn send(&mut self, batch: &mut Batch) {
        let (max, capture, streams, answers) = {
            let s = self.settings.lock();
            let streams = s.streams.active.is_some() || s.streams.passive.is_some();
            (usize::from(s.mtu) + L2_OVERHEAD, s.tx_capture.clone(), streams, s.ip4.is_some())
        };
        let mut rest = Batch::new();
        let (mut n, mut bytes) = (0, 0);
        for p in batch.drain() {
            let len = p.frame_len();
            if !(ETH_HEADER..=max).contains(&len) {
                // Never full: `rest` gets at most what `batch` held.
                let _ = rest.push(p);
                continue;
            }
            n += 1;
            bytes += len as u64;
            if let Some(c) = &capture {
                capture_frame(c, p.data());
            }
            if answers {
                self.answer(p.data());
            }
            if streams {
                let mut wire = self.wire.frames.lock();
                if wire.len() < MAX_WIRE {
                    wire.push_back(p);
                }
            }
        }
        std::mem::swap(batch, &mut rest);
        self.side.counts.add(n, bytes);
        if let (true, Some(w)) = (streams, &self.waker) {
            w.wake();
        }
    }

    fn max_frame(&self) -> usize {
        usize::from(self.settings.lock().mtu) + L2_OVERHEAD
    }
}

impl Drop for DummyTx {
    fn drop(&mut self) {
        self.side.taken.store(false, Ordering::Release);
    }
}

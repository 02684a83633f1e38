//! `system` ports: any Linux network interface, through an AF_PACKET socket.
//!
//! Neighbours: `device`; `offload` completes what local senders left to the hardware; `linux` opens
//! ports. Threads: as in the crate's header; all queues send on one socket, which the kernel
//! serialises.

use crate::device::{in_one_piece, keep_refused, Claim, Device};
use crate::offload;
use crate::{Config, Error, Features, LinkState, Netdev, Result, RxQueue, Stats, TxQueue};
use infra::linux;
use infra::packet_socket::{FrameRing, PacketSocket};
use packet::{Batch, Packet, BATCH_SIZE};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// Bytes of frames that may wait for the io thread.
const RCVBUF: usize = 4 << 20;

/// The socket and the device it is attached to.
struct Wire {
    device: Device,
    socket: PacketSocket,
    attached: AtomicU32,
}

impl Wire {
    /// Attaches the socket anew when another device has taken the name.
    fn follow(&self) {
        let Ok(index) = self.device.index() else { return };
        if index != self.attached.load(Ordering::Acquire) && self.socket.attach(index).is_ok() {
            self.attached.store(index, Ordering::Release);
        }
    }

    /// Accounts for what found the socket full.
    fn collect_drops(&self) {
        let drops = self.socket.take_drops().unwrap_or(0);
        self.device.rx_dropped.fetch_add(u64::from(drops), Ordering::Relaxed);
    }
}

/// A Linux interface.
pub(crate) struct SystemPort(Arc<Wire>);

impl SystemPort {
    /// Opens the interface `name`, which must exist.
    pub(crate) fn open(name: &str) -> Result<SystemPort> {
        let fail = |e: io::Error| {
            Error::Device(format!("could not open network device {name} ({})", crate::os_text(&e)))
        };
        let device = Device::new(name).map_err(fail)?;
        if device.control.flags(name).map_err(fail)? & linux::IFF_LOOPBACK != 0 {
            let text = format!("could not add network device {name} to ofproto (Invalid argument)");
            return Err(Error::Device(text));
        }
        let socket = PacketSocket::open(RCVBUF).map_err(fail)?;
        let index = device.index().map_err(fail)?;
        socket.attach(index).map_err(fail)?;
        Ok(SystemPort(Arc::new(Wire { device, socket, attached: AtomicU32::new(index) })))
    }
}

struct SystemRx {
    wire: Arc<Wire>,
    ring: FrameRing,
    /// Segments that did not fit in the last batch.
    pending: VecDeque<Packet>,
    /// Not zero, and so readable, while `pending` is not empty.
    more: File,
    more_is_set: bool,
    /// Readable when the socket or `more` is.
    poll: OwnedFd,
    _claim: Claim,
}

impl SystemRx {
    fn new(wire: Arc<Wire>, claim: Claim) -> io::Result<SystemRx> {
        let more = linux::event_fd()?;
        let poll = linux::poll_set(&[wire.socket.as_fd(), more.as_fd()])?;
        Ok(SystemRx {
            wire,
            ring: FrameRing::default(),
            pending: VecDeque::new(),
            more: more.into(),
            more_is_set: false,
            poll,
            _claim: claim,
        })
    }

    /// Receives once and finishes each frame. Returns how many could not be.
    fn fill(&mut self) -> u32 {
        let mut n = Ok(0);
        // An error stands for one bad frame or one state change and is gone when it was reported.
        for _ in 0..4 {
            n = self.wire.socket.recv(&mut self.ring);
            if !matches!(&n, Err(e) if e.kind() != ErrorKind::WouldBlock) {
                break;
            }
        }
        let mut dropped = 0;
        for i in 0..n.unwrap_or(0) {
            let Some(frame) = self.ring.frame(i) else { continue };
            if offload::finish(&frame, &mut self.pending).is_err() {
                dropped += 1;
            }
        }
        self.wire.device.rx_dropped.fetch_add(u64::from(dropped), Ordering::Relaxed);
        dropped
    }

    fn set_more(&mut self, on: bool) {
        if on == self.more_is_set {
            return;
        }
        let mut word = 1u64.to_ne_bytes();
        let done = if on { (&self.more).write(&word) } else { (&self.more).read(&mut word) };
        if done.is_ok() {
            self.more_is_set = on;
        }
    }
}

impl RxQueue for SystemRx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        let dropped = if self.pending.is_empty() { self.fill() } else { 0 };
        while !batch.is_full() {
            let Some(p) = self.pending.pop_front() else { break };
            // Never refused: the batch is not full.
            let _ = batch.push(p);
        }
        self.set_more(!self.pending.is_empty());
        dropped
    }

    fn poll_fd(&self) -> Option<RawFd> {
        Some(self.poll.as_raw_fd())
    }
}

struct SystemTx {
    wire: Arc<Wire>,
    _claim: Claim,
}

impl TxQueue for SystemTx {
    fn send(&mut self, batch: &mut Batch) {
        let mut refused = 0u32;
        let mut frames: [&[u8]; BATCH_SIZE] = [&[]; BATCH_SIZE];
        let mut slots = [0usize; BATCH_SIZE];
        let mut n = 0;
        for (i, p) in batch.as_slice().iter().enumerate() {
            if in_one_piece(p) {
                (frames[n], slots[n]) = (p.data(), i);
                n += 1;
            } else {
                refused |= 1 << i;
            }
        }
        let mut at = 0;
        while at < n {
            match self.wire.socket.send(&frames[at..n]) {
                Ok(sent) => at += sent.max(1),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)) => {
                    // This frame is too long or too short for the device; the next may not be.
                    refused |= 1 << slots[at];
                    at += 1;
                }
                Err(_) => {
                    refused = slots[at..n].iter().fold(refused, |r, s| r | 1 << s);
                    break;
                }
            }
        }
        if refused == 0 {
            return batch.clear();
        }
        let left = keep_refused(batch, |i, _| refused & 1 << i != 0);
        self.wire.device.tx_dropped.fetch_add(left as u64, Ordering::Relaxed);
    }

    fn max_frame(&self) -> usize {
        self.wire.device.max_frame()
    }
}

impl Netdev for SystemPort {
    fn name(&self) -> &str {
        &self.0.device.name
    }

    fn kind(&self) -> &'static str {
        "system"
    }

    fn is_pmd(&self) -> bool {
        false
    }

    fn n_rxq(&self) -> usize {
        1
    }

    fn n_txq(&self) -> usize {
        self.0.device.n_txq()
    }

    fn set_n_txq(&self, n: usize) -> Result<()> {
        self.0.device.set_n_txq(n);
        Ok(())
    }

    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>> {
        let claim = self.0.device.claim_rx(q)?;
        let rx = SystemRx::new(Arc::clone(&self.0), claim);
        let what = || format!("{}: receive queue", self.0.device.name);
        Ok(Box::new(rx.map_err(|source| Error::Io { what: what(), source })?))
    }

    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>> {
        let _claim = self.0.device.claim_tx(q)?;
        Ok(Box::new(SystemTx { wire: Arc::clone(&self.0), _claim }))
    }

    fn mac(&self) -> [u8; 6] {
        self.0.device.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        self.0.device.set_mac(mac)
    }

    fn mtu(&self) -> u16 {
        self.0.device.mtu()
    }

    fn set_mtu(&self, mtu: u16) -> Result<()> {
        self.0.device.set_mtu(mtu)
    }

    fn ifindex(&self) -> u32 {
        self.0.device.index().unwrap_or(0)
    }

    fn set_config(&self, _config: &Config) -> Result<bool> {
        Ok(false)
    }

    fn link(&self) -> LinkState {
        self.0.follow();
        self.0.device.link()
    }

    fn set_admin_up(&self, up: bool) -> Result<()> {
        self.0.device.set_admin_up(up)
    }

    fn stats(&self) -> Stats {
        let mut s = self.0.device.stats();
        if s == Stats::UNSUPPORTED {
            return s;
        }
        self.0.collect_drops();
        s.rx_dropped += self.0.device.rx_dropped.load(Ordering::Relaxed);
        s.tx_dropped += self.0.device.tx_dropped.load(Ordering::Relaxed);
        s
    }

    fn status(&self) -> BTreeMap<String, String> {
        self.0.device.status()
    }

    fn features(&self) -> Features {
        self.0.device.features()
    }
}

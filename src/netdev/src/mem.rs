//! Ports that live in memory: what is pushed in is received, what is sent can be taken out.
//!
//! Neighbours: tests of `datapath`, `ofproto` and `bridge` drive switches with them; nothing here
//! touches the system but a socket pair that makes a port pollable.
//! Threads: the two ends may be used by different threads; a lock guards each queue.

use crate::{Config, Error, Factory, LinkState, Netdev, Result, RxQueue, Stats, TxQueue};
use packet::{Batch, Packet};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// One direction of one queue, and whether somebody has taken it.
#[derive(Default)]
struct Queue {
    frames: Mutex<VecDeque<Packet>>,
    taken: AtomicBool,
}

/// The descriptor pair of a pollable receive queue: `wake` is written when the queue stops being
/// empty, `poll` is what the reader waits on.
pub(crate) struct Wake {
    wake: UnixStream,
    pub(crate) poll: UnixStream,
}

impl Wake {
    pub(crate) fn new() -> Result<Wake> {
        let io = |source| Error::Io { what: "socketpair".to_owned(), source };
        let (wake, poll) = UnixStream::pair().map_err(io)?;
        wake.set_nonblocking(true).map_err(io)?;
        poll.set_nonblocking(true).map_err(io)?;
        Ok(Wake { wake, poll })
    }

    pub(crate) fn signal(&self) {
        // A full socket is already readable: the lost byte changes nothing.
        let _ = (&self.wake).write(&[1]);
    }

    pub(crate) fn drain(&self) {
        let mut sink = [0u8; 64];
        while matches!((&self.poll).read(&mut sink), Ok(n) if n == sink.len()) {}
    }
}

struct RxSide {
    queue: Queue,
    wake: Option<Wake>,
}

/// Sizes and limits that may change while the port lives.
#[derive(Clone, Debug)]
struct Settings {
    mac: [u8; 6],
    mtu: u16,
    admin_up: bool,
    link_up: bool,
    config: Config,
    wanted_rxq: usize,
    tx_limit: usize,
    show_args: Vec<(String, String)>,
}

/// How to make a [`MemPort`].
#[derive(Clone, Debug)]
pub struct MemPortBuilder {
    name: String,
    kind: &'static str,
    is_pmd: bool,
    n_rxq: usize,
    max_txq: usize,
    numa: Option<u32>,
    mac: [u8; 6],
    mtu: u16,
}

impl MemPortBuilder {
    /// Interface type reported (default "dummy").
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Whether PMD threads poll the port (default true).
    pub fn pmd(mut self, is_pmd: bool) -> Self {
        self.is_pmd = is_pmd;
        self
    }

    /// Receive queues (default 1).
    pub fn rxqs(mut self, n: usize) -> Self {
        self.n_rxq = n.max(1);
        self
    }

    /// Most transmit queues the port gives (default: as many as are asked for).
    pub fn max_txqs(mut self, n: usize) -> Self {
        self.max_txq = n.max(1);
        self
    }

    /// NUMA node reported.
    pub fn numa(mut self, node: u32) -> Self {
        self.numa = Some(node);
        self
    }

    /// Ethernet address.
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = mac;
        self
    }

    /// MTU (default 1500).
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// The port.
    ///
    /// # Panics
    /// When a pollable port cannot have its socket pair (descriptors exhausted).
    pub fn build(self) -> Arc<MemPort> {
        let rx = new_rx(self.n_rxq, self.is_pmd);
        Arc::new(MemPort {
            name: self.name,
            kind: self.kind,
            is_pmd: self.is_pmd,
            numa: self.numa,
            max_txq: self.max_txq,
            n_txq: AtomicUsize::new(1),
            rx: Mutex::new(rx),
            tx: Mutex::new(vec![Arc::default()]),
            counters: Arc::default(),
            settings: Arc::new(Mutex::new(Settings {
                mac: self.mac,
                mtu: self.mtu,
                admin_up: true,
                link_up: true,
                config: Config::default(),
                wanted_rxq: self.n_rxq,
                tx_limit: usize::MAX,
                show_args: Vec::new(),
            })),
        })
    }
}

fn new_rx(n: usize, is_pmd: bool) -> Vec<Arc<RxSide>> {
    let side = || {
        let wake = (!is_pmd).then(|| Wake::new().expect("a socket pair for a test port"));
        Arc::new(RxSide { queue: Queue::default(), wake })
    };
    (0..n).map(|_| side()).collect()
}

/// A device whose wire is two queues in memory.
pub struct MemPort {
    name: String,
    kind: &'static str,
    is_pmd: bool,
    numa: Option<u32>,
    max_txq: usize,
    n_txq: AtomicUsize,
    rx: Mutex<Vec<Arc<RxSide>>>,
    tx: Mutex<Vec<Arc<Queue>>>,
    counters: Arc<Mutex<Stats>>,
    settings: Arc<Mutex<Settings>>,
}

impl MemPort {
    /// A port with one receive queue that PMD threads poll.
    ///
    /// # Panics
    /// As [`MemPortBuilder::build`].
    pub fn new(name: &str) -> Arc<MemPort> {
        MemPort::builder(name).build()
    }

    /// A port made to order.
    pub fn builder(name: &str) -> MemPortBuilder {
        let tail = name.bytes().fold(0u16, |h, b| h.wrapping_mul(31).wrapping_add(u16::from(b)));
        let [hi, lo] = tail.to_be_bytes();
        MemPortBuilder {
            name: name.to_owned(),
            kind: "dummy",
            is_pmd: true,
            n_rxq: 1,
            max_txq: usize::MAX,
            numa: None,
            mac: [0xaa, 0x55, 0xaa, 0x55, hi, lo],
            mtu: 1500,
        }
    }

    /// Puts a packet on receive queue `q` as if it came from the wire; drops it when there is no
    /// such queue.
    pub fn push_packet(&self, q: usize, p: Packet) {
        let Some(side) = self.rx.lock().get(q).cloned() else { return };
        let mut frames = side.queue.frames.lock();
        let was_empty = frames.is_empty();
        frames.push_back(p);
        if was_empty {
            if let Some(w) = &side.wake {
                w.signal();
            }
        }
    }

    /// Puts a copy of `frame` on receive queue `q`.
    pub fn push(&self, q: usize, frame: &[u8]) {
        self.push_packet(q, Packet::from_slice(frame));
    }

    /// Frames pushed that nobody has received yet, over all queues.
    pub fn rx_pending(&self) -> usize {
        self.rx.lock().iter().map(|s| s.queue.frames.lock().len()).sum()
    }

    /// Takes everything sent on any queue: queue by queue, each in order.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let queues = self.tx.lock().clone();
        queues.iter().flat_map(|q| take_frames(q)).collect()
    }

    /// Takes what was sent on transmit queue `q`, in order.
    pub fn take_queue(&self, q: usize) -> Vec<Vec<u8>> {
        let queue = self.tx.lock().get(q).cloned();
        queue.map(|q| take_frames(&q)).unwrap_or_default()
    }

    /// Frames sent that nobody has taken yet, over all queues.
    pub fn tx_pending(&self) -> usize {
        self.tx.lock().iter().map(|q| q.frames.lock().len()).sum()
    }

    /// From now on each transmit queue holds at most `frames`; it refuses more until they are taken.
    pub fn set_tx_limit(&self, frames: usize) {
        self.settings.lock().tx_limit = frames;
    }

    /// Plugs or unplugs the cable.
    pub fn set_link(&self, up: bool) {
        self.settings.lock().link_up = up;
    }

    /// What [`Netdev::show_args`] shall say.
    pub fn set_show_args(&self, args: Vec<(String, String)>) {
        self.settings.lock().show_args = args;
    }
}

fn take_frames(q: &Queue) -> Vec<Vec<u8>> {
    q.frames.lock().drain(..).map(|p| p.data().to_vec()).collect()
}

fn take_once(taken: &AtomicBool, port: &str, what: &str, q: usize) -> Result<()> {
    if taken.swap(true, Ordering::AcqRel) {
        return Err(Error::Device(format!("{port}: {what} queue {q} is already in use")));
    }
    Ok(())
}

struct MemRx {
    side: Arc<RxSide>,
    counters: Arc<Mutex<Stats>>,
}

impl RxQueue for MemRx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        let mut frames = self.side.queue.frames.lock();
        if frames.is_empty() && self.side.wake.is_none() {
            return 0;
        }
        let (mut n, mut bytes) = (0, 0);
        while !batch.is_full() {
            let Some(p) = frames.pop_front() else { break };
            n += 1;
            bytes += p.frame_len() as u64;
            if batch.push(p).is_err() {
                break;
            }
        }
        if let (true, Some(w)) = (frames.is_empty(), &self.side.wake) {
            w.drain();
        }
        drop(frames);
        if n > 0 {
            let mut c = self.counters.lock();
            c.rx_packets += n;
            c.rx_bytes += bytes;
        }
        0
    }

    fn poll_fd(&self) -> Option<RawFd> {
        self.side.wake.as_ref().map(|w| w.poll.as_raw_fd())
    }
}

impl Drop for MemRx {
    fn drop(&mut self) {
        self.side.queue.taken.store(false, Ordering::Release);
    }
}

struct MemTx {
    queue: Arc<Queue>,
    counters: Arc<Mutex<Stats>>,
    settings: Arc<Mutex<Settings>>,
}

impl TxQueue for MemTx {
    fn send(&mut self, batch: &mut Batch) {
        let limit = self.settings.lock().tx_limit;
        let mut rest = Batch::new();
        let mut frames = self.queue.frames.lock();
        let (mut n, mut bytes) = (0, 0);
        for p in batch.drain() {
            if frames.len() < limit {
                n += 1;
                bytes += p.frame_len() as u64;
                frames.push_back(p);
            } else {
                // Never full: `rest` gets at most what `batch` held.
                let _ = rest.push(p);
            }
        }
        drop(frames);
        std::mem::swap(batch, &mut rest);
        let mut c = self.counters.lock();
        c.tx_packets += n;
        c.tx_bytes += bytes;
    }

    fn max_frame(&self) -> usize {
        usize::from(self.settings.lock().mtu) + crate::L2_OVERHEAD
    }
}

impl Drop for MemTx {
    fn drop(&mut self) {
        self.queue.taken.store(false, Ordering::Release);
    }
}

impl Netdev for MemPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn is_pmd(&self) -> bool {
        self.is_pmd
    }

    fn numa(&self) -> Option<u32> {
        self.numa
    }

    fn n_rxq(&self) -> usize {
        self.rx.lock().len()
    }

    fn n_txq(&self) -> usize {
        self.n_txq.load(Ordering::Acquire)
    }

    fn set_n_txq(&self, n: usize) -> Result<()> {
        let n = n.clamp(1, self.max_txq);
        let mut tx = self.tx.lock();
        if n > tx.len() {
            tx.resize_with(n, Arc::default);
        }
        self.n_txq.store(n, Ordering::Release);
        Ok(())
    }

    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>> {
        let side = self.rx.lock().get(q).cloned();
        let side = side.ok_or_else(|| Error::Device(format!("{}: no receive queue {q}", self.name)))?;
        take_once(&side.queue.taken, &self.name, "receive", q)?;
        Ok(Box::new(MemRx { side, counters: Arc::clone(&self.counters) }))
    }

    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>> {
        let queue = self.tx.lock().get(q).cloned().filter(|_| q < self.n_txq());
        let queue = queue.ok_or_else(|| Error::Device(format!("{}: no transmit queue {q}", self.name)))?;
        take_once(&queue.taken, &self.name, "transmit", q)?;
        let (counters, settings) = (Arc::clone(&self.counters), Arc::clone(&self.settings));
        Ok(Box::new(MemTx { queue, counters, settings }))
    }

    fn mac(&self) -> [u8; 6] {
        self.settings.lock().mac
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        self.settings.lock().mac = mac;
        Ok(())
    }

    fn mtu(&self) -> u16 {
        self.settings.lock().mtu
    }

    fn set_mtu(&self, mtu: u16) -> Result<()> {
        self.settings.lock().mtu = mtu;
        Ok(())
    }

    fn set_config(&self, config: &Config) -> Result<bool> {
        let mut s = self.settings.lock();
        if let Some(text) = config.options.get("n_rxq") {
            let bad = || Error::BadOption(format!("{}: n_rxq \"{text}\" is not a number above 0", self.name));
            s.wanted_rxq = text.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        }
        s.config = config.clone();
        let wanted = s.wanted_rxq;
        drop(s);
        Ok(wanted != self.n_rxq())
    }

    fn reconfigure(&self) -> Result<()> {
        let wanted = self.settings.lock().wanted_rxq;
        let mut rx = self.rx.lock();
        if wanted > rx.len() {
            let more = new_rx(wanted - rx.len(), self.is_pmd);
            rx.extend(more);
        } else {
            rx.truncate(wanted);
        }
        Ok(())
    }

    fn link(&self) -> LinkState {
        let s = self.settings.lock();
        LinkState {
            up: s.link_up && s.admin_up,
            admin_up: s.admin_up,
            full_duplex: true,
            ..LinkState::default()
        }
    }

    fn set_admin_up(&self, up: bool) -> Result<()> {
        self.settings.lock().admin_up = up;
        Ok(())
    }

    fn stats(&self) -> Stats {
        *self.counters.lock()
    }

    fn show_args(&self) -> Vec<(String, String)> {
        self.settings.lock().show_args.clone()
    }
}

/// Opens [`MemPort`]s for any of the types it was made for, and remembers them by name.
pub struct MemFactory {
    types: Vec<&'static str>,
    is_pmd: bool,
    ports: Mutex<BTreeMap<String, Arc<MemPort>>>,
}

impl MemFactory {
    /// A factory for `types`, whose ports PMD threads poll when `is_pmd`.
    pub fn new(types: &[&'static str], is_pmd: bool) -> MemFactory {
        MemFactory { types: types.to_vec(), is_pmd, ports: Mutex::default() }
    }

    /// The port last opened under `name`.
    pub fn port(&self, name: &str) -> Option<Arc<MemPort>> {
        self.ports.lock().get(name).cloned()
    }
}

impl Factory for MemFactory {
    fn types(&self) -> &[&'static str] {
        &self.types
    }

    fn open(&self, name: &str, kind: &str, config: &Config) -> Result<Arc<dyn Netdev>> {
        let known = self.types.iter().copied().find(|t| *t == kind);
        let kind = known.ok_or_else(|| Error::UnknownType(kind.to_owned()))?;
        let port = MemPort::builder(name).kind(kind).pmd(self.is_pmd).build();
        if port.set_config(config)? {
            port.reconfigure()?;
        }
        self.ports.lock().insert(name.to_owned(), Arc::clone(&port));
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_in_and_come_out() {
        let port = MemPort::builder("p0").rxqs(2).build();
        port.set_n_txq(3).unwrap();
        port.push(1, b"hello");
        port.push(9, b"lost");
        let (mut r0, mut r1) = (port.rx_queue(0).unwrap(), port.rx_queue(1).unwrap());
        let mut b = Batch::new();
        assert_eq!(r0.recv(&mut b), 0);
        assert!(b.is_empty());
        r1.recv(&mut b);
        assert_eq!(b.as_slice()[0].data(), b"hello");
        let mut tx = port.tx_queue(2).unwrap();
        tx.send(&mut b);
        assert!(b.is_empty());
        assert_eq!(port.take_queue(2), vec![b"hello".to_vec()]);
        let s = port.stats();
        assert_eq!((s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes), (1, 5, 1, 5));
        assert!(r0.poll_fd().is_none());
    }

    #[test]
    fn a_queue_is_taken_once() {
        let port = MemPort::new("p0");
        let q = port.rx_queue(0).unwrap();
        assert!(port.rx_queue(0).is_err());
        drop(q);
        assert!(port.rx_queue(0).is_ok());
        assert!(port.tx_queue(1).is_err());
    }

    #[test]
    fn a_full_device_leaves_packets_in_the_batch() {
        let port = MemPort::new("p0");
        port.set_tx_limit(1);
        let mut tx = port.tx_queue(0).unwrap();
        let mut b = Batch::new();
        b.push(Packet::from_slice(b"1")).unwrap();
        b.push(Packet::from_slice(b"2")).unwrap();
        tx.send(&mut b);
        assert_eq!(b.len(), 1);
        assert_eq!(b.as_slice()[0].data(), b"2");
        assert_eq!(port.take(), vec![b"1".to_vec()]);
    }

    #[test]
    fn reconfigure_changes_the_number_of_queues() {
        let factory = MemFactory::new(&["dpdk"], true);
        let mut config = Config::default();
        let port = factory.open("d0", "dpdk", &config).unwrap();
        assert_eq!((port.n_rxq(), port.kind()), (1, "dpdk"));
        config.options.insert("n_rxq".into(), "4".into());
        assert!(port.set_config(&config).unwrap());
        port.reconfigure().unwrap();
        assert_eq!(port.n_rxq(), 4);
        config.options.insert("n_rxq".into(), "x".into());
        assert!(port.set_config(&config).is_err());
        assert!(matches!(factory.open("x", "tap", &config), Err(Error::UnknownType(_))));
        assert!(factory.port("d0").is_some());
    }

    #[test]
    fn a_pollable_port_wakes_its_reader() {
        let port = MemPort::builder("t0").pmd(false).build();
        let mut rx = port.rx_queue(0).unwrap();
        let readable = |rx: &dyn RxQueue| {
            let fd = rx.poll_fd().unwrap();
            infra::linux::wait_readable(fd, 0).unwrap()
        };
        assert!(!readable(&*rx));
        port.push(0, b"a");
        assert!(readable(&*rx));
        let mut b = Batch::new();
        rx.recv(&mut b);
        assert_eq!(b.len(), 1);
        assert!(!readable(&*rx));
    }
}

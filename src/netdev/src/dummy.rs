//! Dummy devices: ports whose wire is the control socket, capture files or a stream.
//!
//! Tests of a switch drive it with them: `netdev-dummy/receive` puts frames on their receive queues, what they send
//! goes to capture files and over `stream`/`pstream` to a peer. They exist with `--enable-dummy` only.
//! Neighbours: `queue` has their queues, `command` what `ovs-appctl netdev-dummy/...` does; the daemon pumps the
//! streams. Threads: a port is shared; locks guard each queue and the settings, held for one batch.

mod command;
mod queue;

pub use command::{commands, parse_receive, DummyCommands, Received};

use crate::{Config, Error, Factory, LinkState, Netdev, Result, RxQueue, Stats, TxQueue};
use infra::vlog::Module;
use infra::Waker;
use packet::pcap::Appender;
use packet::Packet;
use parking_lot::Mutex;
use queue::{DummyRx, DummyTx, RxSide, TxSide};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

static PCAP_LOG: Module = Module::new("pcap");
static LOG: Module = Module::new("netdev_dummy");

/// Queues a port may have.
const MAX_QUEUES: i64 = 1024;
/// Frames that wait for a stream to take them.
const MAX_WIRE: usize = 100;

/// Which devices are dummies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DummyLevel {
    /// Only those whose type says so.
    Plain,
    /// System devices too.
    System,
    /// All devices of Linux.
    Override,
}

impl DummyLevel {
    fn types(self) -> &'static [&'static str] {
        match self {
            DummyLevel::Plain => &["dummy", "dummy-internal", "dummy-pmd"],
            DummyLevel::System => &["dummy", "dummy-internal", "dummy-pmd", "system"],
            DummyLevel::Override => &["dummy", "dummy-internal", "dummy-pmd", "system", "internal", "tap"],
        }
    }
}

/// A capture file that both directions may share.
pub(crate) type Capture = Arc<Mutex<Appender<File>>>;

/// The streams a port is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamConfig {
    /// Where to connect (`options:stream`).
    pub active: Option<String>,
    /// Where to listen (`options:pstream`).
    pub passive: Option<String>,
}

/// What may change while the port lives.
#[derive(Default)]
pub(crate) struct Settings {
    mac: [u8; 6],
    pub(crate) mtu: u16,
    admin_up: bool,
    ifindex: Option<u32>,
    numa: Option<u32>,
    wanted_rxq: usize,
    wanted_txq: usize,
    pub(crate) ip4: Option<Ipv4Addr>,
    ip6: Vec<Ipv6Addr>,
    pub(crate) rx_capture: Option<Capture>,
    pub(crate) tx_capture: Option<Capture>,
    streams: StreamConfig,
    connected: bool,
}

/// Frames sent that wait for the streams.
#[derive(Default)]
pub(crate) struct Wire {
    frames: Mutex<VecDeque<Packet>>,
}

/// A dummy device.
pub struct DummyPort {
    name: String,
    kind: &'static str,
    pub(crate) settings: Arc<Mutex<Settings>>,
    rx: Mutex<Vec<Arc<RxSide>>>,
    tx: Mutex<Vec<Arc<TxSide>>>,
    wire: Arc<Wire>,
    waker: Option<Waker>,
}

impl DummyPort {
    fn new(name: &str, kind: &'static str, mac: [u8; 6], waker: Option<Waker>) -> Result<DummyPort> {
        let settings = Settings {
            mac,
            mtu: 1500,
            admin_up: true,
            numa: Some(0),
            wanted_rxq: 1,
            wanted_txq: 1,
            ..Settings::default()
        };
        let port = DummyPort {
            name: name.to_owned(),
            kind,
            settings: Arc::new(Mutex::new(settings)),
            rx: Mutex::default(),
            tx: Mutex::default(),
            wire: Arc::default(),
            waker,
        };
        port.reconfigure()?;
        Ok(port)
    }

    /// Puts a packet on receive queue `q`, as if it came from the wire. A full queue drops it.
    pub fn receive(&self, q: usize, p: Packet) {
        let capture = self.settings.lock().rx_capture.clone();
        if let Some(c) = capture {
            capture_frame(&c, p.data());
        }
        let side = self.rx.lock().get(q).cloned();
        if let Some(side) = side {
            side.push(p);
        }
    }

    /// Whether everything received so far has gone through the datapath, or nobody is there to take it.
    pub fn is_settled(&self) -> bool {
        self.rx.lock().iter().all(|s| s.is_settled())
    }

    /// The streams it is to have.
    pub fn streams(&self) -> StreamConfig {
        self.settings.lock().streams.clone()
    }

    /// Notes whether the active stream is connected.
    pub fn set_connected(&self, connected: bool) {
        self.settings.lock().connected = connected;
    }

    /// Takes the frames that wait for the streams.
    pub fn take_wire(&self) -> VecDeque<Packet> {
        std::mem::take(&mut *self.wire.frames.lock())
    }

    fn connection(&self) -> Option<bool> {
        let s = self.settings.lock();
        s.streams.active.as_ref().map(|_| s.connected)
    }
}

pub(crate) fn capture_frame(c: &Capture, frame: &[u8]) {
    let now = std::time::Duration::from_nanos(infra::clock::wall_ns());
    // A full disk loses captures, not packets.
    let _ = c.lock().write(now, frame);
}

fn open_capture(path: &str) -> Option<Capture> {
    let file = File::options().append(true).create(true).open(path);
    let opened = file.and_then(|f| Appender::new(f.metadata()?.len() == 0, f));
    match opened {
        Ok(a) => Some(Arc::new(Mutex::new(a))),
        Err(e) => {
            let why = crate::os_text(&e);
            infra::vlog!(PCAP_LOG, Warn, "{path}: failed to open pcap file for appending ({why})");
            None
        }
    }
}

/// A number as strtol(3) takes it, or the default when the text is none.
fn integer(config: &Config, key: &str, default: i64) -> i64 {
    config.options.get(key).and_then(|v| v.trim().parse().ok()).unwrap_or(default)
}

impl Netdev for DummyPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn dpif_type(&self) -> &'static str {
        match self.kind {
            "internal" => "dummy-internal",
            k => k,
        }
    }

    fn is_pmd(&self) -> bool {
        self.kind == "dummy-pmd"
    }

    fn numa(&self) -> Option<u32> {
        self.settings.lock().numa
    }

    fn n_rxq(&self) -> usize {
        self.rx.lock().len()
    }

    fn n_txq(&self) -> usize {
        self.tx.lock().len()
    }

    fn set_n_txq(&self, _n: usize) -> Result<()> {
        // As many as its options say: threads share them.
        Ok(())
    }

    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>> {
        let side = self.rx.lock().get(q).cloned();
        let side = side.ok_or_else(|| Error::Device(format!("{}: no receive queue {q}", self.name)))?;
        Ok(Box::new(DummyRx::take(side, &self.name, q)?))
    }

    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>> {
        let side = self.tx.lock().get(q).cloned();
        let side = side.ok_or_else(|| Error::Device(format!("{}: no transmit queue {q}", self.name)))?;
        let rx = self.rx.lock().first().cloned();
        let (settings, wire) = (Arc::clone(&self.settings), Arc::clone(&self.wire));
        let waker = self.waker.clone();
        Ok(Box::new(DummyTx::take(side, rx, settings, wire, waker, (&self.name, q))?))
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

    fn ifindex(&self) -> u32 {
        self.settings.lock().ifindex.unwrap_or(0)
    }

    fn set_config(&self, config: &Config) -> Result<bool> {
        let option = |key: &str| config.options.get(key).cloned();
        let streams = StreamConfig { active: option("stream"), passive: option("pstream") };
        let mut s = self.settings.lock();
        s.ifindex = u32::try_from(integer(config, "ifindex", -1)).ok();
        if let (Some(a), Some(p)) = (&streams.active, &streams.passive) {
            infra::vlog!(LOG, Warn, "Open failed: both {p} and {a} are configured");
        } else {
            s.streams = streams;
        }
        s.rx_capture = None;
        s.tx_capture = None;
        if let Some(path) = option("pcap") {
            let both = open_capture(&path);
            s.rx_capture.clone_from(&both);
            s.tx_capture = both;
        } else {
            s.rx_capture = option("rxq_pcap").and_then(|p| open_capture(&p));
            s.tx_capture = option("tx_pcap").and_then(|p| open_capture(&p));
        }
        if !self.is_pmd() {
            return Ok(false);
        }
        let queues = |key: &str| integer(config, key, 1).clamp(1, MAX_QUEUES) as usize;
        let (rxq, txq) = (queues("n_rxq"), queues("n_txq"));
        let (wanted_rxq, wanted_txq) = (integer(config, "n_rxq", 1), integer(config, "n_txq", 1));
        if wanted_rxq > MAX_QUEUES || wanted_txq > MAX_QUEUES {
            infra::vlog!(
                LOG,
                Warn,
                "The one or both of interface {} queues(rxq: {wanted_rxq}, txq: {wanted_txq}) exceed {MAX_QUEUES}. \
                 Sets it {MAX_QUEUES}.",
                self.name
            );
        }
        let numa = u32::try_from(integer(config, "numa_id", 0)).ok();
        let changed = rxq != s.wanted_rxq || txq != s.wanted_txq || numa != s.numa;
        (s.wanted_rxq, s.wanted_txq, s.numa) = (rxq, txq, numa);
        Ok(changed)
    }

    fn reconfigure(&self) -> Result<()> {
        let (n_rxq, n_txq) = {
            let s = self.settings.lock();
            (s.wanted_rxq, s.wanted_txq)
        };
        let (mut rx, mut tx) = (self.rx.lock(), self.tx.lock());
        if rx.len() != n_rxq {
            rx.clear();
            for _ in 0..n_rxq {
                rx.push(Arc::new(RxSide::new(self.is_pmd())?));
            }
        }
        if tx.len() != n_txq {
            *tx = (0..n_txq).map(|_| Arc::default()).collect();
        }
        Ok(())
    }

    fn link(&self) -> LinkState {
        let up = self.settings.lock().admin_up;
        LinkState { up, admin_up: up, ..LinkState::default() }
    }

    fn set_admin_up(&self, up: bool) -> Result<()> {
        self.settings.lock().admin_up = up;
        Ok(())
    }

    fn stats(&self) -> Stats {
        let mut s = Stats::UNSUPPORTED;
        let sum = |counts: Vec<(u64, u64)>| counts.iter().fold((0, 0), |a, c| (a.0 + c.0, a.1 + c.1));
        (s.rx_packets, s.rx_bytes) = sum(self.rx.lock().iter().map(|q| q.counts.read()).collect());
        (s.tx_packets, s.tx_bytes) = sum(self.tx.lock().iter().map(|q| q.counts.read()).collect());
        s
    }

    fn custom_stats(&self) -> Vec<(String, u64)> {
        let received = self.stats().rx_packets;
        let mut all: Vec<(String, u64)> =
            (1..=2).map(|i| (format!("rx_custom_packets_{i}"), received)).collect();
        let mut queues = |way: &str, counts: Vec<(u64, u64)>| {
            for (i, (packets, bytes)) in counts.into_iter().enumerate() {
                all.push((format!("{way}_q{i}_bytes"), bytes));
                all.push((format!("{way}_q{i}_packets"), packets));
            }
        };
        queues("rx", self.rx.lock().iter().map(|q| q.counts.read()).collect());
        queues("tx", self.tx.lock().iter().map(|q| q.counts.read()).collect());
        all
    }

    fn show_args(&self) -> Vec<(String, String)> {
        let (n_rxq, n_txq) = (self.n_rxq(), self.n_txq());
        let s = self.settings.lock();
        let mut args = BTreeMap::new();
        if let Some(i) = s.ifindex {
            args.insert("ifindex", i.to_string());
        }
        if let Some(a) = &s.streams.active {
            args.insert("stream", a.clone());
        }
        if let Some(p) = &s.streams.passive {
            args.insert("pstream", p.clone());
        }
        if self.is_pmd() {
            args.insert("configured_rx_queues", n_rxq.to_string());
            args.insert("configured_tx_queues", n_txq.to_string());
            args.insert("requested_rx_queues", s.wanted_rxq.to_string());
            args.insert("requested_tx_queues", s.wanted_txq.to_string());
        }
        args.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }
}

/// Opens dummy devices and finds them by name.
pub struct DummyFactory {
    level: DummyLevel,
    ports: Mutex<BTreeMap<String, Weak<DummyPort>>>,
    /// Makes the next device's address.
    next: AtomicU32,
    waker: Option<Waker>,
}

impl DummyFactory {
    /// A factory; `waker` wakes whoever pumps the streams.
    pub fn new(level: DummyLevel, waker: Option<Waker>) -> DummyFactory {
        DummyFactory { level, ports: Mutex::default(), next: AtomicU32::new(0), waker }
    }

    /// Which devices are dummies.
    pub fn level(&self) -> DummyLevel {
        self.level
    }

    /// The open device of that name.
    pub fn port(&self, name: &str) -> Option<Arc<DummyPort>> {
        self.ports.lock().get(name).and_then(Weak::upgrade)
    }

    /// All open devices.
    pub fn ports(&self) -> Vec<Arc<DummyPort>> {
        let mut ports = self.ports.lock();
        ports.retain(|_, p| p.strong_count() > 0);
        ports.values().filter_map(Weak::upgrade).collect()
    }
}

impl Factory for DummyFactory {
    fn types(&self) -> &[&'static str] {
        self.level.types()
    }

    fn open(&self, name: &str, kind: &str, config: &Config) -> Result<Arc<dyn Netdev>> {
        let known = self.types().iter().copied().find(|t| *t == kind);
        let kind = known.ok_or_else(|| Error::UnknownType(kind.to_owned()))?;
        let [.., hi, lo] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mac = [0xaa, 0x55, 0xaa, 0x55, hi, lo];
        let port = Arc::new(DummyPort::new(name, kind, mac, self.waker.clone())?);
        if port.set_config(config)? {
            port.reconfigure()?;
        }
        self.ports.lock().insert(name.to_owned(), Arc::downgrade(&port));
        Ok(port)
    }
}

#[cfg(test)]
#[path = "dummy/tests.rs"]
mod tests;

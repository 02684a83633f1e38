//! What every Linux network device can be asked and told, whatever moves its frames.
//!
//! Neighbours: `tap` and `system` hold one each; `netlink` and `infra::linux` do the asking.
//! Threads: shared; locks are held for one question to the kernel.

use crate::coverage;
use crate::netlink::{self, LinkCounters};
use crate::{Error, Features, LinkState, Result, Stats, L2_OVERHEAD};
use infra::linux::{DeviceControl, LinkSettings, IFF_RUNNING, IFF_UP};
use packet::{Batch, Packet};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

/// The last answers about the link, to count its changes.
#[derive(Default)]
struct LinkWatch {
    seen: Option<(bool, u32)>,
    resets: u64,
}

impl LinkWatch {
    /// A change is one that is seen, or one that the kernel counted between two looks.
    fn observe(&mut self, running: bool, carrier_changes: u32) -> u64 {
        if let Some((was_running, had_changes)) = self.seen {
            let counted = u64::from(carrier_changes.wrapping_sub(had_changes));
            self.resets += counted.max(u64::from(running != was_running));
        }
        self.seen = Some((running, carrier_changes));
        self.resets
    }
}

/// A Linux network device of a given name.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) control: DeviceControl,
    /// The socket to ask for counters, and the number of the last question.
    netlink: Mutex<(File, u32)>,
    watch: Mutex<LinkWatch>,
    mtu: AtomicU32,
    n_txq: AtomicUsize,
    rx_taken: Arc<AtomicBool>,
    tx_taken: Mutex<Vec<Arc<AtomicBool>>>,
    /// Frames lost between the kernel's counters and the datapath.
    pub(crate) rx_dropped: AtomicU64,
    /// Frames the kernel did not take and did not count.
    pub(crate) tx_dropped: AtomicU64,
}

/// One taken queue; given back on drop.
pub(crate) struct Claim(Arc<AtomicBool>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Device {
    pub(crate) fn new(name: &str) -> io::Result<Device> {
        let device = Device {
            name: name.to_owned(),
            control: DeviceControl::open()?,
            netlink: Mutex::new((netlink::open()?, 0)),
            watch: Mutex::default(),
            mtu: AtomicU32::new(1500),
            n_txq: AtomicUsize::new(1),
            rx_taken: Arc::default(),
            tx_taken: Mutex::default(),
            rx_dropped: AtomicU64::new(0),
            tx_dropped: AtomicU64::new(0),
        };
        device.index()?;
        device.mtu();
        device.link();
        Ok(device)
    }

    pub(crate) fn index(&self) -> io::Result<u32> {
        coverage::GET_IFINDEX.inc();
        self.control.index(&self.name)
    }

    fn error(&self, what: &str, source: io::Error) -> Error {
        Error::Io { what: format!("{what} network device {}", self.name), source }
    }

    fn claim(&self, flag: &Arc<AtomicBool>, what: &str, q: usize) -> Result<Claim> {
        if flag.swap(true, Ordering::AcqRel) {
            return Err(Error::Device(format!("{}: {what} queue {q} is already in use", self.name)));
        }
        Ok(Claim(Arc::clone(flag)))
    }

    /// Takes the receive queue `q`; there is one.
    pub(crate) fn claim_rx(&self, q: usize) -> Result<Claim> {
        if q > 0 {
            return Err(Error::Device(format!("{}: no receive queue {q}", self.name)));
        }
        self.claim(&self.rx_taken, "receive", q)
    }

    /// Takes the transmit queue `q`: as many as were asked for, since the kernel serves them all.
    pub(crate) fn claim_tx(&self, q: usize) -> Result<Claim> {
        let mut taken = self.tx_taken.lock();
        if q >= self.n_txq() {
            return Err(Error::Device(format!("{}: no transmit queue {q}", self.name)));
        }
        if q >= taken.len() {
            taken.resize_with(q + 1, Arc::default);
        }
        self.claim(&taken[q], "transmit", q)
    }

    pub(crate) fn n_txq(&self) -> usize {
        self.n_txq.load(Ordering::Acquire)
    }

    pub(crate) fn set_n_txq(&self, n: usize) {
        self.n_txq.store(n.max(1), Ordering::Release);
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        coverage::GET_HWADDR.inc();
        self.control.mac(&self.name).unwrap_or_default()
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        if self.control.mac(&self.name).is_ok_and(|now| now == mac) {
            return Ok(());
        }
        coverage::SET_HWADDR.inc();
        self.control.set_mac(&self.name, mac).map_err(|e| self.error("failed to set Ethernet address of", e))
    }

    /// Asks the kernel, and remembers for [`Device::max_frame`]. 0 when the device has gone.
    pub(crate) fn mtu(&self) -> u16 {
        let Ok(mtu) = self.control.mtu(&self.name) else { return 0 };
        self.mtu.store(mtu, Ordering::Relaxed);
        u16::try_from(mtu).unwrap_or(u16::MAX)
    }

    pub(crate) fn set_mtu(&self, mtu: u16) -> Result<()> {
        self.control.set_mtu(&self.name, mtu).map_err(|e| self.error("failed to set MTU for", e))?;
        self.mtu.store(u32::from(mtu), Ordering::Relaxed);
        Ok(())
    }

    /// As of the last time the MTU was asked for or set: no system call.
    pub(crate) fn max_frame(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize + L2_OVERHEAD
    }

    pub(crate) fn set_admin_up(&self, up: bool) -> Result<()> {
        let (on, off) = if up { (IFF_UP, 0) } else { (0, IFF_UP) };
        let r = self.control.change_flags(&self.name, on, off);
        r.map_err(|e| self.error("failed to change the state of", e))
    }

    fn settings(&self) -> Option<LinkSettings> {
        coverage::GET_ETHTOOL.inc();
        self.control.link_settings(&self.name).ok()
    }

    pub(crate) fn link(&self) -> LinkState {
        let flags = self.control.flags(&self.name).unwrap_or(0);
        let up = flags & IFF_RUNNING != 0;
        let changes = self.counters().map_or(0, |c| c.carrier_changes);
        let resets = self.watch.lock().observe(up, changes);
        let s = self.settings().unwrap_or_default();
        LinkState {
            up,
            admin_up: flags & IFF_UP != 0,
            full_duplex: s.full_duplex,
            speed_bps: u64::from(s.speed.unwrap_or(0)) * 1_000_000,
            resets,
        }
    }

    fn counters(&self) -> io::Result<LinkCounters> {
        let index = self.index()?;
        let mut netlink = self.netlink.lock();
        netlink.1 = netlink.1.wrapping_add(1);
        netlink::link_counters(&netlink.0, index, netlink.1)
    }

    /// The kernel's counters; "not supported" when the device has gone.
    pub(crate) fn stats(&self) -> Stats {
        self.counters().map_or(Stats::UNSUPPORTED, |c| c.stats)
    }

    pub(crate) fn status(&self) -> BTreeMap<String, String> {
        coverage::GET_ETHTOOL.inc();
        let Ok((driver, version, firmware)) = self.control.driver(&self.name) else {
            return BTreeMap::new();
        };
        let pairs = [("driver_name", driver), ("driver_version", version), ("firmware_version", firmware)];
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    pub(crate) fn features(&self) -> Features {
        self.settings().map(|s| features(&s)).unwrap_or_default()
    }
}

/// `OFPPF_*` (OpenFlow 1.3 §7.2.1).
mod ofppf {
    pub const GB_10_FD: u32 = 1 << 6;
    pub const GB_40_FD: u32 = 1 << 7;
    pub const GB_100_FD: u32 = 1 << 8;
    pub const TB_1_FD: u32 = 1 << 9;
    pub const OTHER: u32 = 1 << 10;
    pub const COPPER: u32 = 1 << 11;
    pub const FIBER: u32 = 1 << 12;
    pub const AUTONEG: u32 = 1 << 13;
    pub const PAUSE: u32 = 1 << 14;
    pub const PAUSE_ASYM: u32 = 1 << 15;
}

/// The kernel's `SUPPORTED_*` mask as `OFPPF_*`: the first six bits mean the same.
fn modes(mask: u32) -> u32 {
    let mut f = mask & 0x3f;
    let bits = [
        (6, ofppf::AUTONEG),
        (7, ofppf::COPPER),
        (10, ofppf::FIBER),
        (12, ofppf::GB_10_FD),
        (13, ofppf::PAUSE),
        (14, ofppf::PAUSE_ASYM),
    ];
    for (bit, feature) in bits {
        if mask & 1 << bit != 0 {
            f |= feature;
        }
    }
    f
}

fn features(s: &LinkSettings) -> Features {
    let mut current = match (s.speed, s.full_duplex) {
        (Some(10), fd) => 1 << u32::from(fd),
        (Some(100), fd) => 4 << u32::from(fd),
        (Some(1000), fd) => 16 << u32::from(fd),
        (Some(10_000), _) => ofppf::GB_10_FD,
        (Some(40_000), _) => ofppf::GB_40_FD,
        (Some(100_000), _) => ofppf::GB_100_FD,
        (Some(1_000_000), _) => ofppf::TB_1_FD,
        (Some(_), _) => ofppf::OTHER,
        (None, _) => 0,
    };
    const PORT_TP: u8 = 0;
    const PORT_FIBRE: u8 = 3;
    match s.port {
        PORT_TP => current |= ofppf::COPPER,
        PORT_FIBRE => current |= ofppf::FIBER,
        _ => {}
    }
    if s.autoneg {
        current |= ofppf::AUTONEG;
    }
    Features { current, advertised: modes(s.advertised), supported: modes(s.supported), peer: modes(s.peer) }
}

/// Keeps in `batch` the packets for which `refused` says so, in order, and frees the others.
/// Returns how many are left.
pub(crate) fn keep_refused(batch: &mut Batch, refused: impl Fn(usize, &Packet) -> bool) -> usize {
    let mut rest = Batch::new();
    for (i, p) in batch.drain().enumerate() {
        if refused(i, &p) {
            // Never full: `rest` gets at most what `batch` held.
            let _ = rest.push(p);
        }
    }
    std::mem::swap(batch, &mut rest);
    batch.len()
}

/// Whether the frame's bytes lie in one piece, as a write needs them.
pub(crate) fn in_one_piece(p: &Packet) -> bool {
    p.frame_len() == p.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_changes_are_counted_once() {
        let mut w = LinkWatch::default();
        assert_eq!(w.observe(false, 5), 0);
        assert_eq!(w.observe(true, 6), 1);
        assert_eq!(w.observe(true, 6), 1);
        assert_eq!(w.observe(true, 8), 3);
        assert_eq!(w.observe(false, 8), 4);
    }

    #[test]
    fn settings_become_openflow_features() {
        let veth = LinkSettings { speed: Some(10_000), full_duplex: true, ..LinkSettings::default() };
        assert_eq!(features(&veth).current, ofppf::GB_10_FD | ofppf::COPPER);
        let nic = LinkSettings {
            speed: Some(1000),
            full_duplex: true,
            autoneg: true,
            port: 3,
            supported: 1 << 5 | 1 << 6 | 1 << 10 | 1 << 13,
            ..LinkSettings::default()
        };
        let f = features(&nic);
        assert_eq!(f.current, 1 << 5 | ofppf::FIBER | ofppf::AUTONEG);
        assert_eq!(f.supported, 1 << 5 | ofppf::AUTONEG | ofppf::FIBER | ofppf::PAUSE);
        assert_eq!(features(&LinkSettings { speed: None, port: 0xef, ..nic }).current, ofppf::AUTONEG);
    }
}

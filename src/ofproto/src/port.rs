//! Ports of a bridge as OpenFlow sees them.
//!
//! Neighbours: `bridge` adds and removes them, `conn` describes them to controllers, `snapshot` publishes what
//! translation needs. Threads: main only, but for [`PortCounters`].

use crate::snapshot::PortCounters;
use flow::{DpPort, OfPort};
use netdev::{LinkState, Netdev};
use openflow::{port_features as f, PortConfig, PortDesc, PortState, PortStats};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// What stands behind an OpenFlow port.
#[derive(Clone)]
pub enum PortKind {
    /// A device with its datapath port.
    Device {
        /// The device.
        netdev: Arc<dyn Netdev>,
        /// Its number in the datapath.
        dp_port: DpPort,
    },
    /// A patch port: the name of its peer.
    Patch {
        /// Interface name at the other end.
        peer: String,
    },
}

/// One port.
#[derive(Clone)]
pub struct Port {
    /// OpenFlow number.
    pub no: OfPort,
    /// Interface name.
    pub name: String,
    /// Device or patch.
    pub kind: PortKind,
    /// Ethernet address.
    pub hw_addr: [u8; 6],
    /// Bits that a port-mod sets.
    pub config: PortConfig,
    /// Link and administration as last read from the device.
    pub link: LinkState,
    /// Creation, ms of the monotonic clock.
    pub created_ms: u64,
    /// Traffic of a patch port.
    pub counters: Arc<PortCounters>,
}

/// The speed that feature bits stand for, kbps.
fn features_kbps(bits: u32) -> u32 {
    let table = [
        (f::FD_1TB, 1_000_000_000),
        (f::FD_100GB, 100_000_000),
        (f::FD_40GB, 40_000_000),
        (f::FD_10GB, 10_000_000),
        (f::HD_1GB | f::FD_1GB, 1_000_000),
        (f::HD_100MB | f::FD_100MB, 100_000),
        (f::HD_10MB | f::FD_10MB, 10_000),
    ];
    table.into_iter().find(|(b, _)| bits & b != 0).map_or(0, |(_, s)| s)
}

impl Port {
    /// The device, when there is one.
    pub fn netdev(&self) -> Option<&Arc<dyn Netdev>> {
        match &self.kind {
            PortKind::Device { netdev, .. } => Some(netdev),
            PortKind::Patch { .. } => None,
        }
    }

    /// The datapath port, when there is one.
    pub fn dp_port(&self) -> Option<DpPort> {
        match &self.kind {
            PortKind::Device { dp_port, .. } => Some(*dp_port),
            PortKind::Patch { .. } => None,
        }
    }

    /// Reads link state and address again. True when something that controllers are told of changed.
    pub fn refresh(&mut self) -> bool {
        let (link, mac) = match &self.kind {
            PortKind::Device { netdev, .. } => (netdev.link(), netdev.mac()),
            PortKind::Patch { .. } => return false,
        };
        let down = if link.admin_up {
            self.config.0 & !PortConfig::PORT_DOWN
        } else {
            self.config.0 | PortConfig::PORT_DOWN
        };
        let changed = self.link.up != link.up || self.hw_addr != mac || self.config.0 != down;
        self.link = link;
        self.hw_addr = mac;
        self.config = PortConfig(down);
        changed
    }

    /// The description in features, port-desc and port-status messages.
    pub fn desc(&self) -> PortDesc {
        let feat = self.netdev().map(|n| n.features()).unwrap_or_default();
        let up = self.link.up || matches!(self.kind, PortKind::Patch { .. });
        PortDesc {
            port_no: self.no,
            hw_addr: self.hw_addr,
            name: self.name.clone(),
            config: self.config,
            state: PortState(if up { PortState::LIVE } else { PortState::LINK_DOWN }),
            curr: feat.current,
            advertised: feat.advertised,
            supported: feat.supported,
            peer: feat.peer,
            curr_speed: features_kbps(feat.current),
            max_speed: features_kbps(feat.supported),
        }
    }

    /// The counters in port statistics replies. `rx` is what came into the switch.
    pub fn stats(&self, now_ms: u64) -> PortStats {
        let ms = now_ms.saturating_sub(self.created_ms);
        let mut s = PortStats {
            port_no: self.no,
            rx_packets: self.counters.rx_packets.load(Ordering::Relaxed),
            tx_packets: self.counters.tx_packets.load(Ordering::Relaxed),
            rx_bytes: self.counters.rx_bytes.load(Ordering::Relaxed),
            tx_bytes: self.counters.tx_bytes.load(Ordering::Relaxed),
            rx_dropped: u64::MAX,
            tx_dropped: u64::MAX,
            rx_errors: u64::MAX,
            tx_errors: u64::MAX,
            rx_frame_err: u64::MAX,
            rx_over_err: u64::MAX,
            rx_crc_err: u64::MAX,
            collisions: u64::MAX,
            duration_sec: u32::try_from(ms / 1000).unwrap_or(u32::MAX),
            duration_nsec: (ms % 1000) as u32 * 1_000_000,
            rfc2819: [u64::MAX; 14],
            custom: Vec::new(),
        };
        if let Some(n) = self.netdev() {
            netdev::coverage::GET_STATS.inc();
            let d = n.stats();
            s.rx_packets = d.rx_packets;
            s.tx_packets = d.tx_packets;
            s.rx_bytes = d.rx_bytes;
            s.tx_bytes = d.tx_bytes;
            s.rx_dropped = d.rx_dropped;
            s.tx_dropped = d.tx_dropped;
            s.rx_errors = d.rx_errors;
            s.tx_errors = d.tx_errors;
            s.rx_frame_err = d.rx_frame_errors;
            s.rx_over_err = d.rx_over_errors;
            s.rx_crc_err = d.rx_crc_errors;
            s.collisions = d.collisions;
            s.custom = n.custom_stats();
        }
        s
    }
}

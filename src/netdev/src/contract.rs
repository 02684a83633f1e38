//! What every port type implements. Neighbours and threads: see the crate's header.

use packet::Batch;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;

/// What a device could not do, in words for `Interface.error` and the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The type name is not one of ours.
    #[error("{0}: unknown interface type")]
    UnknownType(String),
    /// A system call failed. `what` names the call and the device.
    #[error("{what}: {}", os_text(source))]
    Io {
        /// Call and device.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An option has a value that cannot be used. The text names option, value and remedy.
    #[error("{0}")]
    BadOption(String),
    /// The device refused or does not exist. The text says which and why.
    #[error("{0}")]
    Device(String),
}

/// The system's own words for an error, as `strerror` has them.
pub fn os_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    match (e.raw_os_error(), text.rfind(" (os error ")) {
        (Some(_), Some(at)) => text[..at].to_owned(),
        _ => text,
    }
}

/// Result of a device call.
pub type Result<T> = std::result::Result<T, Error>;

/// One receive queue. Owned by the thread that polls it.
pub trait RxQueue: Send {
    /// Fills the empty `batch` with at most its capacity of packets. Never blocks. Returns how many
    /// packets were dropped by the queue itself since the last call (normally 0).
    fn recv(&mut self, batch: &mut Batch) -> u32;

    /// A descriptor that is readable when packets wait; `None` for queues that must be busy-polled.
    fn poll_fd(&self) -> Option<RawFd> {
        None
    }
}

/// One transmit queue. Owned by the thread that fills it (or behind the datapath's lock).
pub trait TxQueue: Send {
    /// Sends packets in order and removes them from `batch`; what the device did not take stays in
    /// `batch` and the caller decides (normally: drops and counts). Never blocks.
    fn send(&mut self, batch: &mut Batch);

    /// Longest frame the device takes, bytes, without FCS.
    fn max_frame(&self) -> usize;
}

/// Counters of a device, as in `Interface.statistics` and OpenFlow port stats. `u64::MAX` means
/// "not supported", which OpenFlow shows as `?`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
    pub collisions: u64,
    pub rx_length_errors: u64,
    pub rx_over_errors: u64,
    pub rx_crc_errors: u64,
    pub rx_frame_errors: u64,
    pub rx_fifo_errors: u64,
    pub rx_missed_errors: u64,
}

impl Stats {
    /// What a device that has gone says.
    pub const UNSUPPORTED: Stats = Stats {
        rx_packets: u64::MAX,
        tx_packets: u64::MAX,
        rx_bytes: u64::MAX,
        tx_bytes: u64::MAX,
        rx_errors: u64::MAX,
        tx_errors: u64::MAX,
        rx_dropped: u64::MAX,
        tx_dropped: u64::MAX,
        multicast: u64::MAX,
        collisions: u64::MAX,
        rx_length_errors: u64::MAX,
        rx_over_errors: u64::MAX,
        rx_crc_errors: u64::MAX,
        rx_frame_errors: u64::MAX,
        rx_fifo_errors: u64::MAX,
        rx_missed_errors: u64::MAX,
    };
}

/// OpenFlow 1.0 port feature bits (`OFPPF_*`, OpenFlow 1.3 §7.2.1): current, advertised,
/// supported, peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Features {
    pub current: u32,
    pub advertised: u32,
    pub supported: u32,
    pub peer: u32,
}

/// Link and administration state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Carrier present.
    pub up: bool,
    /// Administratively up.
    pub admin_up: bool,
    /// Full duplex.
    pub full_duplex: bool,
    /// Speed in bit/s, 0 when unknown.
    pub speed_bps: u64,
    /// Carrier changes seen since the device was opened.
    pub resets: u64,
}

/// A device. Shared between the main thread and the datapath's control side.
pub trait Netdev: Send + Sync {
    /// Interface name in the database.
    fn name(&self) -> &str;
    /// Interface type in the database ("dpdk", "internal", "tap", "system", ...).
    fn kind(&self) -> &'static str;
    /// The type `dpctl/show` and `dpif/show` print: what the device is below the database's name for
    /// it ("tap" for an internal port). `dpctl/show` prints none for "system".
    fn dpif_type(&self) -> &'static str {
        self.kind()
    }
    /// Whether PMD threads poll it (true) or the io thread does, through descriptors (false).
    fn is_pmd(&self) -> bool;
    /// NUMA node, when known.
    fn numa(&self) -> Option<u32> {
        None
    }
    /// Number of receive queues in effect.
    fn n_rxq(&self) -> usize;
    /// Number of transmit queues in effect; fewer than threads means that queues are shared.
    fn n_txq(&self) -> usize;
    /// Asks for at least `n` transmit queues (PMDs + 1) before queues are taken. May give fewer.
    fn set_n_txq(&self, n: usize) -> Result<()>;
    /// Takes the receive queue `q`. Each may be taken once until it is dropped.
    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>>;
    /// Takes the transmit queue `q`. Each may be taken once until it is dropped.
    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>>;
    /// Ethernet address.
    fn mac(&self) -> [u8; 6];
    /// Changes the Ethernet address.
    fn set_mac(&self, mac: [u8; 6]) -> Result<()>;
    /// MTU in effect (payload of Ethernet, without header), bytes; 0 when the device has gone.
    fn mtu(&self) -> u16;
    /// Changes the MTU (queues may have to be retaken: see [`Netdev::reconfigure`]).
    fn set_mtu(&self, mtu: u16) -> Result<()>;
    /// Linux ifindex; 0 when there is none.
    fn ifindex(&self) -> u32 {
        0
    }
    /// Applies `options` and `other_config` of the Interface row. `Ok(true)` when the change waits
    /// for [`Netdev::reconfigure`].
    fn set_config(&self, config: &Config) -> Result<bool>;
    /// Applies what waits. Called with every queue of the device given back.
    fn reconfigure(&self) -> Result<()> {
        Ok(())
    }
    /// Link state.
    fn link(&self) -> LinkState;
    /// Brings the device up or down.
    fn set_admin_up(&self, up: bool) -> Result<()>;
    /// Device counters.
    fn stats(&self) -> Stats;
    /// Further driver counters by name, for `Interface.statistics`.
    fn custom_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
    /// `Interface.status`.
    fn status(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    /// OpenFlow port features.
    fn features(&self) -> Features {
        Features::default()
    }
    /// What `dpctl/show` and `dpif/show` print in brackets behind the type, as ordered key=value.
    fn show_args(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The configuration of one Interface row that a device reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `options` column.
    pub options: BTreeMap<String, String>,
    /// `other_config` column.
    pub other_config: BTreeMap<String, String>,
    /// `mtu_request` column.
    pub mtu_request: Option<u16>,
}

/// Opens devices of the types it knows.
pub trait Factory: Send + Sync {
    /// Interface types it opens.
    fn types(&self) -> &[&'static str];
    /// Opens (creates, probes) the device.
    fn open(&self, name: &str, kind: &str, config: &Config) -> Result<Arc<dyn Netdev>>;
}

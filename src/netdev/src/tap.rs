//! `tap` and `internal` ports: Linux tap devices, whose other end is the host's network stack.
//!
//! The device outlives the process unless the port is deleted, so that a bridge's addresses and
//! routes survive a restart of the switch.
//!
//! Neighbours: `device`; `linux` opens ports. Threads: as in the crate's header; all queues write
//! to one descriptor, which the kernel serialises.

use crate::device::{in_one_piece, keep_refused, Claim, Device};
use crate::{Config, Error, Features, LinkState, Netdev, Result, RxQueue, Stats, TxQueue};
use infra::linux;
use packet::{Batch, Packet};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Longest frame a tap hands over: the largest MTU and the headers around it.
const MAX_READ: usize = 65_536 + 64;

/// The descriptor of the device, which goes with the last of port and queues.
struct Tap {
    file: File,
    keep: Arc<AtomicBool>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Acquire) {
            // The device may have been deleted already: there is nothing else to do about it.
            let _ = linux::set_tap_persistent(self.file.as_fd(), false);
        }
    }
}

/// A tap device.
pub(crate) struct TapPort {
    kind: &'static str,
    device: Arc<Device>,
    tap: Arc<Tap>,
}

impl TapPort {
    /// Opens or creates the device. While `keep` is set, dropping the port leaves it in the system.
    pub(crate) fn open(name: &str, kind: &'static str, keep: &Arc<AtomicBool>) -> Result<TapPort> {
        let fail = |e: std::io::Error| {
            Error::Device(format!("could not open network device {name} ({})", crate::os_text(&e)))
        };
        let file = File::from(linux::open_tap(name).map_err(fail)?);
        let tap = Tap { file, keep: Arc::clone(keep) };
        linux::set_tap_persistent(tap.file.as_fd(), true).map_err(fail)?;
        let device = Device::new(name).map_err(fail)?;
        device.control.change_flags(name, linux::IFF_PROMISC, 0).map_err(fail)?;
        Ok(TapPort { kind, device: Arc::new(device), tap: Arc::new(tap) })
    }
}

struct TapRx {
    device: Arc<Device>,
    tap: Arc<Tap>,
    scratch: Vec<u8>,
    _claim: Claim,
}

impl RxQueue for TapRx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        let mut dropped = 0;
        while !batch.is_full() {
            match (&self.tap.file).read(&mut self.scratch) {
                Ok(0) => break,
                Ok(n) => {
                    let p = Packet::from_slice(&self.scratch[..n]);
                    if p.len() < n || batch.push(p).is_err() {
                        dropped += 1;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::EBADFD) => {
                    // Somebody deleted the device: its descriptor would be readable for ever.
                    let _ = linux::silence(self.tap.file.as_fd());
                    break;
                }
                Err(_) => break,
            }
        }
        self.device.rx_dropped.fetch_add(u64::from(dropped), Ordering::Relaxed);
        dropped
    }

    fn poll_fd(&self) -> Option<RawFd> {
        Some(self.tap.file.as_raw_fd())
    }
}

struct TapTx {
    device: Arc<Device>,
    tap: Arc<Tap>,
    _claim: Claim,
}

impl TxQueue for TapTx {
    fn send(&mut self, batch: &mut Batch) {
        let (mut refused, mut uncounted) = (0u32, 0);
        for (i, p) in batch.as_slice().iter().enumerate() {
            let result = if in_one_piece(p) {
                (&self.tap.file).write(p.data())
            } else {
                Err(ErrorKind::InvalidInput.into())
            };
            if let Err(e) = result {
                refused |= 1 << i;
                // The kernel counts what it refuses, but for these two.
                let counted = !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput);
                uncounted += u64::from(!counted);
            }
        }
        if refused == 0 {
            return batch.clear();
        }
        keep_refused(batch, |i, _| refused & 1 << i != 0);
        self.device.tx_dropped.fetch_add(uncounted, Ordering::Relaxed);
    }

    fn max_frame(&self) -> usize {
        self.device.max_frame()
    }
}

/// What the host sends the switch receives, and the other way round.
fn swapped(s: Stats) -> Stats {
    Stats {
        rx_packets: s.tx_packets,
        tx_packets: s.rx_packets,
        rx_bytes: s.tx_bytes,
        tx_bytes: s.rx_bytes,
        rx_errors: s.tx_errors,
        tx_errors: s.rx_errors,
        rx_dropped: s.tx_dropped,
        tx_dropped: s.rx_dropped,
        multicast: 0,
        collisions: 0,
        rx_length_errors: 0,
        rx_over_errors: 0,
        rx_crc_errors: 0,
        rx_frame_errors: 0,
        rx_fifo_errors: 0,
        rx_missed_errors: 0,
    }
}

impl Netdev for TapPort {
    fn name(&self) -> &str {
        &self.device.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn dpif_type(&self) -> &'static str {
        "tap"
    }

    fn is_pmd(&self) -> bool {
        false
    }

    fn n_rxq(&self) -> usize {
        1
    }

    fn n_txq(&self) -> usize {
        self.device.n_txq()
    }

    fn set_n_txq(&self, n: usize) -> Result<()> {
        self.device.set_n_txq(n);
        Ok(())
    }

    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>> {
        let _claim = self.device.claim_rx(q)?;
        let (device, tap) = (Arc::clone(&self.device), Arc::clone(&self.tap));
        Ok(Box::new(TapRx { device, tap, scratch: vec![0; MAX_READ], _claim }))
    }

    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>> {
        let _claim = self.device.claim_tx(q)?;
        Ok(Box::new(TapTx { device: Arc::clone(&self.device), tap: Arc::clone(&self.tap), _claim }))
    }

    fn mac(&self) -> [u8; 6] {
        self.device.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        self.device.set_mac(mac)
    }

    fn mtu(&self) -> u16 {
        self.device.mtu()
    }

    fn set_mtu(&self, mtu: u16) -> Result<()> {
        self.device.set_mtu(mtu)
    }

    fn ifindex(&self) -> u32 {
        self.device.index().unwrap_or(0)
    }

    fn set_config(&self, _config: &Config) -> Result<bool> {
        Ok(false)
    }

    fn link(&self) -> LinkState {
        self.device.link()
    }

    fn set_admin_up(&self, up: bool) -> Result<()> {
        self.device.set_admin_up(up)
    }

    fn stats(&self) -> Stats {
        let kernel = self.device.stats();
        if kernel == Stats::UNSUPPORTED {
            return kernel;
        }
        let mut s = swapped(kernel);
        s.rx_dropped += self.device.rx_dropped.load(Ordering::Relaxed);
        s.tx_dropped += self.device.tx_dropped.load(Ordering::Relaxed);
        s
    }

    fn status(&self) -> BTreeMap<String, String> {
        self.device.status()
    }

    fn features(&self) -> Features {
        self.device.features()
    }
}

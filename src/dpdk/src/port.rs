//! A port of `type=dpdk`: the contract of `netdev` over an ethdev port.
//!
//! Neighbours: `factory` opens it, `queue` moves its packets, `ethdev` does the device's work.
//! Threads: control side; the state is behind a lock that queues take only when they are given back.

use crate::ethdev::{EthDev, Wanted};
use crate::mempool::FRAME_OVERHEAD;
use crate::queue::{RxQ, TxQ};
use crate::stats::{self, Counters};
use crate::{name_ifindex, strerror, LOG};
use netdev::{Config, Error, Features, LinkState, Netdev, Result, RxQueue, Stats, TxQueue};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Descriptors of a queue unless configured, and most of them.
const DESC_DEFAULT: u16 = 2048;
const DESC_MAX: u32 = 4096;
/// Longest frame that can be configured, FCS included.
const MAX_FRAME: u32 = 9728;
/// Smallest MTU of Ethernet.
const MIN_MTU: u16 = 68;
const DEFAULT_MTU: u16 = 1500;

/// Flow control as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FlowControl {
    rx: bool,
    tx: bool,
    autoneg: bool,
}

struct State {
    dev: EthDev,
    /// Another device that `dpdk-devargs` names now; takes over when the port is reconfigured.
    next: Option<EthDev>,
    wanted: Wanted,
    flow_control: FlowControl,
    /// The last attempt to configure failed with this; not tried again before something changes.
    failed: Option<String>,
    rx_taken: Vec<bool>,
    tx_taken: Vec<bool>,
    admin_up: bool,
    link_up: Option<bool>,
    link_resets: u64,
}

/// What a port shares with its queues.
pub(crate) struct Shared {
    pub name: String,
    state: Mutex<State>,
    pub counters: Counters,
}

/// Ports that exist, for control commands that name them.
static PORTS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn port_named(name: &str) -> Option<Arc<Shared>> {
    PORTS.lock().iter().filter_map(Weak::upgrade).find(|p| p.name == name)
}

/// The port as others see it.
pub(crate) struct Port(Arc<Shared>);

impl State {
    fn queues_out(&self) -> bool {
        self.rx_taken.iter().chain(&self.tx_taken).any(|t| *t)
    }

    /// Configures and starts the device if that is due and no queue is out.
    fn ensure(&mut self, name: &str) -> std::result::Result<(), String> {
        if self.queues_out() {
            return Ok(());
        }
        if self.next.is_none() && !self.dev.differs(&self.wanted) {
            return Ok(());
        }
        if let Some(why) = &self.failed {
            return Err(why.clone());
        }
        if let Some(next) = self.next.take() {
            self.dev = next;
        }
        let r = self.dev.configure(name, &self.wanted);
        let (n_rxq, n_txq) = self.dev.effective.map_or((0, 0), |e| (e.n_rxq, e.n_txq));
        self.rx_taken = vec![false; usize::from(n_rxq)];
        self.tx_taken = vec![false; usize::from(n_txq)];
        match r {
            Ok(()) => {
                if !self.admin_up {
                    let _ = self.dev.set_link(false);
                }
                if self.flow_control != FlowControl::default() {
                    self.apply_flow_control(name);
                }
            }
            Err(ref why) => self.failed = Some(why.clone()),
        }
        r
    }

    fn apply_flow_control(&self, name: &str) {
        let f = self.flow_control;
        match self.dev.set_flow_control(f.rx, f.tx, f.autoneg) {
            Ok(()) => {}
            Err(code) if code == -libc::ENOTSUP => {
                infra::warn!(LOG, "{name}: Flow control is not supported.");
            }
            Err(code) => {
                infra::warn!(LOG, "{name}: Cannot set flow control parameters: {}", strerror(code));
            }
        }
    }
}

impl Shared {
    pub fn give_back_rx(&self, q: usize) {
        if let Some(t) = self.state.lock().rx_taken.get_mut(q) {
            *t = false;
        }
    }

    pub fn give_back_tx(&self, q: usize) {
        if let Some(t) = self.state.lock().tx_taken.get_mut(q) {
            *t = false;
        }
    }
}

/// Descriptors for an option: a power of two up to 4096, else the default.
fn descriptors(config: &Config, key: &str) -> u16 {
    let Some(v) = config.options.get(key) else { return DESC_DEFAULT };
    match v.parse::<u32>() {
        Ok(n) if n > 0 && n <= DESC_MAX && n.is_power_of_two() => n as u16,
        _ => DESC_DEFAULT,
    }
}

fn flag(config: &Config, key: &str) -> bool {
    config.options.get(key).is_some_and(|v| v == "true")
}

fn valid_mtu(mtu: u16) -> bool {
    mtu >= MIN_MTU && u32::from(mtu) + FRAME_OVERHEAD <= MAX_FRAME
}

/// The wish that `config` expresses, on top of the one before it.
fn wish(name: &str, config: &Config, before: Wanted) -> Wanted {
    let n_rxq = config.options.get("n_rxq").and_then(|v| v.parse::<u64>().ok()).unwrap_or(1);
    let mtu = match config.mtu_request {
        Some(mtu) if valid_mtu(mtu) => mtu,
        Some(mtu) => {
            infra::warn!(LOG, "{name}: unsupported MTU {mtu}");
            before.mtu
        }
        None => before.mtu,
    };
    Wanted {
        n_rxq: n_rxq.clamp(1, 1024) as u16,
        rxd: descriptors(config, "n_rxq_desc"),
        txd: descriptors(config, "n_txq_desc"),
        mtu,
        lsc_interrupt: flag(config, "dpdk-lsc-interrupt"),
        ..before
    }
}

/// `options:dpdk-devargs`.
fn devargs<'a>(name: &str, config: &'a Config) -> Result<&'a str> {
    config.options.get("dpdk-devargs").map(String::as_str).filter(|d| !d.is_empty()).ok_or_else(|| {
        let text = format!(
            "'{name}' is missing 'options:dpdk-devargs'. The old 'dpdk<port_id>' names are not supported"
        );
        infra::warn!(LOG, "{text}");
        Error::BadOption(text)
    })
}

impl Port {
    /// Opens the device that `config` names for interface `name`.
    pub fn open(name: &str, config: &Config) -> Result<Port> {
        let dev = EthDev::open(name, devargs(name, config)?).map_err(Error::Device)?;
        let initial = Wanted {
            n_rxq: 1,
            n_txq: 1,
            rxd: DESC_DEFAULT,
            txd: DESC_DEFAULT,
            mtu: DEFAULT_MTU,
            lsc_interrupt: false,
        };
        let state = State {
            dev,
            next: None,
            wanted: initial,
            flow_control: FlowControl::default(),
            failed: None,
            rx_taken: Vec::new(),
            tx_taken: Vec::new(),
            admin_up: true,
            link_up: None,
            link_resets: 0,
        };
        let shared =
            Shared { name: name.to_string(), state: Mutex::new(state), counters: Counters::default() };
        let port = Port(Arc::new(shared));
        port.set_config(config)?;
        let mut ports = PORTS.lock();
        ports.retain(|p| p.strong_count() > 0);
        ports.push(Arc::downgrade(&port.0));
        drop(ports);
        Ok(port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// The state, with the device configured if that can be.
    fn ready(&self) -> (MutexGuard<'_, State>, std::result::Result<(), String>) {
        let mut s = self.state();
        let r = s.ensure(&self.0.name);
        (s, r)
    }

    /// The error for a queue that cannot be given.
    fn no_queue(&self, what: &str, q: usize, taken: Option<bool>) -> Error {
        let why = if taken.is_some() { "is in use already" } else { "does not exist" };
        Error::Device(format!("{what} queue {q} of '{}' {why}", self.0.name))
    }
}

impl Netdev for Port {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        "dpdk"
    }

    fn is_pmd(&self) -> bool {
        true
    }

    fn numa(&self) -> Option<u32> {
        u32::try_from(self.state().dev.numa).ok()
    }

    fn n_rxq(&self) -> usize {
        self.ready().0.rx_taken.len()
    }

    fn n_txq(&self) -> usize {
        self.ready().0.tx_taken.len()
    }

    fn set_n_txq(&self, n: usize) -> Result<()> {
        let mut s = self.state();
        let n = n.clamp(1, 1024) as u16;
        if s.wanted.n_txq != n {
            s.wanted.n_txq = n;
            s.failed = None;
        }
        Ok(())
    }

    fn rx_queue(&self, q: usize) -> Result<Box<dyn RxQueue>> {
        let (mut s, r) = self.ready();
        r.map_err(Error::Device)?;
        match s.rx_taken.get_mut(q) {
            Some(taken @ false) => *taken = true,
            other => return Err(self.no_queue("rx", q, other.copied())),
        }
        // Devices on a PCI bus fill single buffers (scatter is never asked for); virtual ones may chain.
        let chains = s.dev.is_virtual();
        Ok(Box::new(RxQ::new(Arc::clone(&self.0), s.dev.port_id, q as u16, chains)))
    }

    fn tx_queue(&self, q: usize) -> Result<Box<dyn TxQueue>> {
        let (mut s, r) = self.ready();
        r.map_err(Error::Device)?;
        // A configured device has a pool.
        let Some(pool) = s.dev.pool.clone() else { return Err(self.no_queue("tx", q, None)) };
        match s.tx_taken.get_mut(q) {
            Some(taken @ false) => *taken = true,
            other => return Err(self.no_queue("tx", q, other.copied())),
        }
        Ok(Box::new(TxQ::new(Arc::clone(&self.0), s.dev.port_id, q as u16, s.dev.max_frame(), pool)))
    }

    fn mac(&self) -> [u8; 6] {
        self.state().dev.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        self.state().dev.set_mac(mac).map_err(|code| Error::Io {
            what: format!("setting the Ethernet address of '{}'", self.0.name),
            source: std::io::Error::from_raw_os_error(-code),
        })
    }

    fn mtu(&self) -> u16 {
        let s = self.state();
        s.dev.effective.map_or(s.wanted.mtu, |e| e.mtu)
    }

    fn set_mtu(&self, mtu: u16) -> Result<()> {
        if !valid_mtu(mtu) {
            infra::warn!(LOG, "{}: unsupported MTU {mtu}", self.0.name);
            return Err(Error::BadOption(format!(
                "{}: unsupported MTU {mtu} (use {MIN_MTU} to {})",
                self.0.name,
                MAX_FRAME - FRAME_OVERHEAD
            )));
        }
        let mut s = self.state();
        if s.wanted.mtu != mtu {
            s.wanted.mtu = mtu;
            s.failed = None;
        }
        Ok(())
    }

    fn ifindex(&self) -> u32 {
        name_ifindex(&self.0.name)
    }

    fn set_config(&self, config: &Config) -> Result<bool> {
        let name = &self.0.name;
        let wanted_devargs = devargs(name, config)?;
        let mut s = self.state();
        let current = s.next.as_ref().unwrap_or(&s.dev);
        if current.devargs != wanted_devargs {
            if s.dev.devargs == wanted_devargs {
                s.next = None;
            } else {
                s.next = Some(EthDev::open(name, wanted_devargs).map_err(Error::Device)?);
            }
            s.failed = None;
        }
        let wanted = wish(name, config, s.wanted);
        if wanted != s.wanted {
            s.wanted = wanted;
            s.failed = None;
        }
        let flow_control = FlowControl {
            rx: flag(config, "rx-flow-ctrl"),
            tx: flag(config, "tx-flow-ctrl"),
            autoneg: flag(config, "flow-ctrl-autoneg"),
        };
        if flow_control != s.flow_control {
            s.flow_control = flow_control;
            // Before the first start, `ensure` applies it.
            if s.dev.effective.is_some() {
                s.apply_flow_control(name);
            }
        }
        Ok(s.next.is_some() || s.dev.differs(&s.wanted))
    }

    fn reconfigure(&self) -> Result<()> {
        let mut s = self.state();
        if s.queues_out() {
            return Err(Error::Device(format!(
                "'{}' cannot be reconfigured while its queues are in use",
                self.0.name
            )));
        }
        s.failed = None;
        s.ensure(&self.0.name).map_err(Error::Device)
    }

    fn link(&self) -> LinkState {
        let mut s = self.state();
        let l = stats::link(s.dev.port_id);
        if s.link_up.is_some_and(|was| was != l.up) {
            s.link_resets += 1;
        }
        if s.link_up.replace(l.up) != Some(l.up) {
            if l.up {
                let duplex = if l.full_duplex { "full-duplex" } else { "half-duplex" };
                infra::debug!(LOG, "Port {} Link Up - speed {} Mbps - {duplex}", s.dev.port_id, l.mbps);
            } else {
                infra::debug!(LOG, "Port {} Link Down", s.dev.port_id);
            }
        }
        LinkState {
            up: l.up,
            admin_up: s.admin_up,
            full_duplex: l.full_duplex,
            speed_bps: u64::from(l.mbps) * 1_000_000,
            resets: s.link_resets,
        }
    }

    fn set_admin_up(&self, up: bool) -> Result<()> {
        let mut s = self.state();
        if s.admin_up == up {
            return Ok(());
        }
        match s.dev.set_link(up) {
            Ok(()) => {}
            Err(code) if code == -libc::ENOTSUP => {
                infra::info!(LOG, "Interface {} does not support link state configuration", self.0.name);
            }
            Err(code) => {
                infra::err!(LOG, "Interface {} link change error: {}", self.0.name, strerror(code));
                return Err(Error::Device(format!(
                    "Interface {} link change error: {}",
                    self.0.name,
                    strerror(code)
                )));
            }
        }
        s.admin_up = up;
        Ok(())
    }

    fn stats(&self) -> Stats {
        stats::stats(self.state().dev.port_id, &self.0.counters)
    }

    fn custom_stats(&self) -> Vec<(String, u64)> {
        stats::custom(self.state().dev.port_id, &self.0.counters)
    }

    fn status(&self) -> BTreeMap<String, String> {
        let s = self.state();
        if s.dev.is_gone() {
            return BTreeMap::new();
        }
        stats::status(&s.dev)
    }

    fn features(&self) -> Features {
        stats::features(stats::link(self.state().dev.port_id))
    }

    fn show_args(&self) -> Vec<(String, String)> {
        let s = self.state();
        let w = s.wanted;
        let e = s.dev.effective;
        let configured = |f: fn(&crate::ethdev::Effective) -> u16| e.as_ref().map_or(0, f).to_string();
        [
            ("configured_rx_queues", configured(|e| e.n_rxq)),
            ("configured_rxq_descriptors", configured(|e| e.rxd)),
            ("configured_tx_queues", configured(|e| e.n_txq)),
            ("configured_txq_descriptors", configured(|e| e.txd)),
            ("lsc_interrupt_mode", w.lsc_interrupt.to_string()),
            ("mtu", e.map_or(w.mtu, |e| e.mtu).to_string()),
            ("requested_rx_queues", w.n_rxq.to_string()),
            ("requested_rxq_descriptors", w.rxd.to_string()),
            ("requested_tx_queues", w.n_txq.to_string()),
            ("requested_txq_descriptors", w.txd.to_string()),
            ("rx_csum_offload", e.is_some_and(|e| e.rx_csum).to_string()),
            ("tx_tso_offload", "false".to_string()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_string(), v))
        .collect()
    }
}

/// `netdev-dpdk/set-admin-state [netdev] up|down`: one port, or all. The error is for the user.
pub fn set_admin_state(port: Option<&str>, state: &str) -> std::result::Result<(), String> {
    let up = match state {
        s if s.eq_ignore_ascii_case("up") => true,
        s if s.eq_ignore_ascii_case("down") => false,
        _ => return Err("Invalid Admin State".to_string()),
    };
    let ports: Vec<Arc<Shared>> = match port {
        Some(name) => vec![port_named(name).ok_or("Not a DPDK Interface")?],
        None => PORTS.lock().iter().filter_map(Weak::upgrade).collect(),
    };
    for p in ports {
        Port(p).set_admin_up(up).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `netdev-dpdk/get-mempool-info [netdev]`: the pool of one port, or all. The error is for the user.
pub fn mempool_info(port: Option<&str>) -> std::result::Result<String, String> {
    let Some(name) = port else { return Ok(crate::mempool::info()) };
    let port = port_named(name).ok_or("Not a DPDK Interface")?;
    let s = port.state.lock();
    Ok(s.dev.pool.as_ref().map_or(String::new(), |p| crate::mempool::info_of(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)], mtu_request: Option<u16>) -> Config {
        Config {
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            mtu_request,
            ..Config::default()
        }
    }

    const BEFORE: Wanted =
        Wanted { n_rxq: 1, n_txq: 5, rxd: 2048, txd: 2048, mtu: 1500, lsc_interrupt: false };

    #[test]
    fn options() {
        let c = config(&[("n_rxq", "4"), ("n_rxq_desc", "1024"), ("n_txq_desc", "1000")], Some(9000));
        let w = wish("p", &c, BEFORE);
        assert_eq!((w.n_rxq, w.n_txq, w.rxd, w.txd, w.mtu), (4, 5, 1024, 2048, 9000));
        let w = wish("p", &config(&[("n_rxq", "0"), ("n_rxq_desc", "8192")], Some(65000)), BEFORE);
        assert_eq!((w.n_rxq, w.rxd, w.mtu), (1, 2048, 1500));
        let w = wish("p", &config(&[("n_rxq", "x")], None), BEFORE);
        assert_eq!(w, BEFORE);
    }

    #[test]
    fn mtu_limits() {
        assert!(valid_mtu(68) && valid_mtu(9710));
        assert!(!valid_mtu(67) && !valid_mtu(9711) && !valid_mtu(u16::MAX));
    }

    #[test]
    fn devargs_are_needed() {
        let e = devargs("p5", &config(&[], None)).unwrap_err().to_string();
        assert_eq!(
            e,
            "'p5' is missing 'options:dpdk-devargs'. The old 'dpdk<port_id>' names are not supported"
        );
    }
}

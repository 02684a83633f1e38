//! One ethdev port: attach, configure, start, stop, detach.
//!
//! Neighbours: `port` owns an [`EthDev`] and decides when; `factory` finds and probes devices.
//! Threads: control side only, behind the port's lock.

use crate::mempool::{Mempool, Request, FRAME_OVERHEAD};
use crate::{log, strerror, LOG};
use dpdk_sys as sys;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

/// What the user wants of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub n_rxq: u16,
    pub n_txq: u16,
    pub rxd: u16,
    pub txd: u16,
    pub mtu: u16,
    pub lsc_interrupt: bool,
}

/// What the device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    pub n_rxq: u16,
    pub n_txq: u16,
    pub rxd: u16,
    pub txd: u16,
    pub mtu: u16,
    pub lsc_interrupt: bool,
    pub rx_csum: bool,
}

/// Ports that belong to an interface, by DPDK port id.
static OWNERS: Mutex<Option<HashMap<u16, String>>> = Mutex::new(None);

/// The interface that uses a port.
pub(crate) fn owner_of(port: u16) -> Option<String> {
    OWNERS.lock().as_ref().and_then(|o| o.get(&port).cloned())
}

/// An ethdev port that one interface owns.
pub(crate) struct EthDev {
    pub port_id: u16,
    /// As the user wrote it.
    pub devargs: String,
    /// Probed for this interface, so removed with it.
    attached: bool,
    started: bool,
    /// Whether it ran with a configuration before.
    configured: bool,
    pub pool: Option<Arc<Mempool>>,
    pub effective: Option<Effective>,
    /// What `effective` came of; a device that gave less gives no more when asked again.
    asked: Option<Wanted>,
    pub info: Box<sys::rte_eth_dev_info>,
    /// NUMA node; -1 when the device does not say.
    pub numa: i32,
}
// SAFETY: `info` holds pointers to data that DPDK keeps for the device's life; ethdev control calls may
// come from any one thread at a time, which the port's lock ensures.
unsafe impl Send for EthDev {}

/// Why a device could not be configured.
enum Failure {
    /// The driver refused its queues.
    Queues(String),
    Other(String),
}

impl Failure {
    fn text(self) -> String {
        match self {
            Failure::Queues(t) | Failure::Other(t) => t,
        }
    }
}

/// A call's negative result as an error.
fn check(result: i32) -> Result<(), i32> {
    if result < 0 {
        Err(result)
    } else {
        Ok(())
    }
}

/// First port that `devargs` names.
pub(crate) fn find(devargs: &str) -> Option<u16> {
    let c = CString::new(devargs).ok()?;
    let mut port = 0;
    // SAFETY: EAL runs (callers checked); `c` and `port` are valid for the call.
    (unsafe { sys::vsw_port_by_devargs(c.as_ptr(), &mut port) } == 0).then_some(port)
}

/// Port with a MAC address.
fn find_mac(mac: [u8; 6]) -> Option<u16> {
    (0..sys::VSW_MAX_ETHPORTS as u16).find(|&p| {
        // SAFETY: EAL runs (callers checked).
        (unsafe { sys::rte_eth_dev_is_valid_port(p) } != 0) && mac_of(p) == Some(mac)
    })
}

/// All ports of the device that `port` belongs to.
pub(crate) fn siblings(port: u16) -> Vec<u16> {
    (0..sys::VSW_MAX_ETHPORTS as u16)
        // SAFETY: EAL runs (callers checked); the calls check the ids.
        .filter(|&p| unsafe {
            sys::rte_eth_dev_is_valid_port(p) != 0 && (p == port || sys::vsw_port_same_device(port, p) != 0)
        })
        .collect()
}

/// Closes every port of the device that `port` belongs to, and removes it.
pub(crate) fn remove(port: u16) -> Result<(), String> {
    let others: Vec<u16> = siblings(port).into_iter().filter(|&p| p != port).collect();
    for p in others {
        // SAFETY: EAL runs and no interface owns the port (caller checked).
        check(unsafe { sys::vsw_port_close(p, 0) }).map_err(strerror)?;
    }
    // SAFETY: as above.
    check(unsafe { sys::vsw_port_close(port, 1) }).map_err(strerror)
}

fn mac_of(port: u16) -> Option<[u8; 6]> {
    let mut a = sys::rte_ether_addr::default();
    // SAFETY: EAL runs and `a` is valid for the call, which checks the port id.
    (unsafe { sys::rte_eth_macaddr_get(port, &mut a) } == 0).then_some(a.addr_bytes)
}

/// Finds the device, probing it if need be. The error is the cause, in words.
fn attach(devargs: &str) -> Result<(u16, bool), Option<String>> {
    if let Some(mac) = devargs.strip_prefix("class=eth,mac=") {
        let Some(parsed) = parse_mac(mac) else {
            infra::err!(LOG, "invalid mac: {mac}");
            return Err(Some(format!("invalid mac: {mac}")));
        };
        return match find_mac(parsed) {
            Some(port) => Ok((port, false)),
            None => Err(Some(format!("no port of a probed device has the address {mac}"))),
        };
    }
    let (r, why) = log::first_error(|| {
        if let Some(port) = find(devargs) {
            return Ok((port, false));
        }
        let c = CString::new(devargs).map_err(|_| libc::EINVAL)?;
        // SAFETY: EAL runs (callers checked); `c` is valid for the call.
        check(unsafe { sys::rte_dev_probe(c.as_ptr()) })?;
        find(devargs).map(|p| (p, true)).ok_or(libc::ENODEV)
    });
    r.map_err(|code| Some(why.unwrap_or_else(|| strerror(code))))
}

pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() <= 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

impl EthDev {
    /// Finds or probes the device and takes it for interface `name`.
    pub fn open(name: &str, devargs: &str) -> Result<EthDev, String> {
        let (port_id, attached) = attach(devargs).map_err(|why| {
            infra::warn!(LOG, "Error attaching device '{devargs}' to DPDK");
            let why = why.map_or(String::new(), |w| format!(": {w}"));
            format!("Error attaching device '{devargs}' to DPDK{why}")
        })?;
        {
            let mut owners = OWNERS.lock();
            let owners = owners.get_or_insert_default();
            if let Some(other) = owners.get(&port_id) {
                let text = format!(
                    "'{name}' is trying to use device '{devargs}' which is already in use by '{other}'"
                );
                infra::warn!(LOG, "{text}");
                return Err(text);
            }
            owners.insert(port_id, name.to_string());
        }
        if attached {
            infra::info!(LOG, "Device '{devargs}' attached to DPDK");
        }
        let mut dev = EthDev {
            port_id,
            devargs: devargs.to_string(),
            attached,
            started: false,
            configured: false,
            pool: None,
            effective: None,
            asked: None,
            info: Box::default(),
            numa: 0,
        };
        dev.read_info()?;
        Ok(dev)
    }

    fn read_info(&mut self) -> Result<(), String> {
        // SAFETY: `info` is valid for the call, which checks the port id.
        let r = unsafe { sys::rte_eth_dev_info_get(self.port_id, &mut *self.info) };
        check(r).map_err(|e| {
            format!("device '{}' does not say what it can do ({})", self.devargs, strerror(e))
        })?;
        // SAFETY: plain query; the call checks the port id.
        self.numa = unsafe { sys::rte_eth_dev_socket_id(self.port_id) };
        Ok(())
    }

    /// The NUMA node for the device's memory.
    fn socket(&self) -> i32 {
        self.numa.max(0)
    }

    /// The MAC address in use.
    pub fn mac(&self) -> [u8; 6] {
        mac_of(self.port_id).unwrap_or_default()
    }

    /// Whether `wanted` would change anything.
    pub fn differs(&self, wanted: &Wanted) -> bool {
        match (&self.effective, &self.asked) {
            (Some(_), Some(asked)) => self.within_limits(asked) != self.within_limits(wanted),
            _ => true,
        }
    }

    /// `wanted` as far as the device says that it goes.
    fn within_limits(&self, wanted: &Wanted) -> Wanted {
        let (rxd, txd) = self.descriptors(wanted);
        Wanted {
            n_rxq: wanted.n_rxq.min(self.info.max_rx_queues),
            n_txq: wanted.n_txq.min(self.info.max_tx_queues),
            rxd,
            txd,
            mtu: wanted.mtu,
            lsc_interrupt: wanted.lsc_interrupt && self.can_interrupt(),
        }
    }

    fn can_interrupt(&self) -> bool {
        // SAFETY: dev_flags points at flags that DPDK keeps for the device's life, or is null.
        let flags = unsafe { self.info.dev_flags.as_ref() }.copied().unwrap_or(0);
        flags & sys::VSW_DEV_INTR_LSC != 0
    }

    /// Descriptors the device takes for those wanted.
    fn descriptors(&self, wanted: &Wanted) -> (u16, u16) {
        let (mut rxd, mut txd) = (wanted.rxd, wanted.txd);
        // SAFETY: both counts are valid for the call, which checks the port id.
        unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port_id, &mut rxd, &mut txd) };
        (rxd, txd)
    }

    /// Stops the device, applies `wanted` as far as it goes, and starts the device.
    pub fn configure(&mut self, name: &str, wanted: &Wanted) -> Result<(), String> {
        self.stop();
        match self.try_configure(name, wanted) {
            // Some drivers can set their queues up once only (net_pcap has read its file): start anew.
            Err(Failure::Queues(_)) if self.configured && self.attached => {
                self.reprobe(name)?;
                self.try_configure(name, wanted).map_err(Failure::text)
            }
            other => other.map_err(Failure::text),
        }
    }

    fn reprobe(&mut self, name: &str) -> Result<(), String> {
        let devargs = std::mem::take(&mut self.devargs);
        self.close();
        let again = EthDev::open(name, &devargs);
        match again {
            Ok(dev) => {
                *self = dev;
                Ok(())
            }
            Err(e) => {
                self.devargs = devargs;
                Err(e)
            }
        }
    }

    fn try_configure(&mut self, name: &str, wanted: &Wanted) -> Result<(), Failure> {
        self.effective = None;
        self.read_info().map_err(Failure::Other)?;
        let w = self.within_limits(wanted);
        let mut e = Effective {
            n_rxq: w.n_rxq,
            n_txq: w.n_txq,
            rxd: w.rxd,
            txd: w.txd,
            mtu: w.mtu,
            lsc_interrupt: w.lsc_interrupt,
            rx_csum: self.info.rx_offload_capa & sys::VSW_RX_OFFLOAD_CHECKSUM == sys::VSW_RX_OFFLOAD_CHECKSUM,
        };
        if wanted.lsc_interrupt && !e.lsc_interrupt {
            infra::warn!(
                LOG,
                "interface '{name}': link status interrupt is not supported by the device; polling it instead"
            );
        }
        if !e.rx_csum {
            infra::warn!(LOG, "Rx checksum offload is not supported on port {}", self.port_id);
        }
        let pool = Mempool::get(&Request {
            port: name,
            mtu: u32::from(wanted.mtu),
            socket: self.socket(),
            n_rxq: u32::from(e.n_rxq),
            n_txq: u32::from(e.n_txq),
            rxd: u32::from(w.rxd),
            txd: u32::from(w.txd),
        })
        .map_err(Failure::Other)?;
        let (r, why) = log::first_error(|| self.set_up(name, &mut e, &pool));
        r.map_err(|code| {
            infra::err!(
                LOG,
                "Interface {name}(rxq:{} txq:{} lsc interrupt mode:{}) configure error: {}",
                wanted.n_rxq,
                wanted.n_txq,
                wanted.lsc_interrupt,
                strerror(code)
            );
            let why = why.map_or(String::new(), |w| format!(": {w}"));
            Failure::Queues(format!("Interface {name} configure error: {}{why}", strerror(code)))
        })?;
        // The old pool, if another, goes only now that no queue of this device fills from it.
        self.pool = Some(Arc::new(pool));
        self.start(name).map_err(Failure::Queues)?;
        self.effective = Some(e);
        self.asked = Some(*wanted);
        Ok(())
    }

    /// Configures with as many queues as the device gives. `e` becomes what it gave.
    fn set_up(&self, name: &str, e: &mut Effective, pool: &Mempool) -> Result<(), i32> {
        let mut last = libc::EINVAL;
        while e.n_rxq > 0 && e.n_txq > 0 {
            if let Err(code) = self.set_queue_counts(name, e) {
                infra::warn!(LOG, "Interface {name} eth_dev setup error {}", strerror(code));
                // Some devices want as many queues of one kind as of the other.
                if e.n_rxq == e.n_txq {
                    return Err(code);
                }
                let n = e.n_rxq.min(e.n_txq);
                (e.n_rxq, e.n_txq) = (n, n);
                continue;
            }
            let (n_txq, tx) = self.set_up_txqs(name, e);
            if let Err(code) = tx {
                last = code;
                e.n_txq = n_txq;
                continue;
            }
            let (n_rxq, rx) = self.set_up_rxqs(name, e, pool);
            if let Err(code) = rx {
                last = code;
                e.n_rxq = n_rxq;
                continue;
            }
            return Ok(());
        }
        Err(last)
    }

    fn set_queue_counts(&self, name: &str, e: &mut Effective) -> Result<(), i32> {
        let mut conf = sys::rte_eth_conf::default();
        conf.intr_conf.set_lsc(u32::from(e.lsc_interrupt));
        if e.rx_csum {
            conf.rxmode.offloads |= sys::VSW_RX_OFFLOAD_CHECKSUM;
        }
        let hashes = sys::VSW_RSS_HF & self.info.flow_type_rss_offloads;
        if e.n_rxq > 1 && hashes != 0 {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
        }
        // SAFETY: `conf` is valid for the call and copied by it; the call checks port and counts.
        check(unsafe { sys::rte_eth_dev_configure(self.port_id, e.n_rxq, e.n_txq, &conf) })?;
        // SAFETY: the call checks port and MTU.
        let r = unsafe { sys::rte_eth_dev_set_mtu(self.port_id, e.mtu) };
        if r == -libc::ENOTSUP {
            let mut mtu = 0;
            // SAFETY: `mtu` is valid for the call, which checks the port id.
            unsafe { sys::rte_eth_dev_get_mtu(self.port_id, &mut mtu) };
            infra::warn!(
                LOG,
                "Interface {name} does not support MTU configuration, max packet size supported is {mtu}."
            );
        } else if let Err(code) = check(r) {
            infra::err!(LOG, "Interface {name} MTU ({}) setup error: {}", e.mtu, strerror(code));
            return Err(code);
        }
        Ok(())
    }

    /// Sets tx queues up until one fails; how many worked.
    fn set_up_txqs(&self, name: &str, e: &Effective) -> (u16, Result<(), i32>) {
        for q in 0..e.n_txq {
            // SAFETY: a null configuration means the driver's defaults; the call checks the rest.
            let r = unsafe {
                sys::rte_eth_tx_queue_setup(self.port_id, q, e.txd, self.socket() as u32, std::ptr::null())
            };
            if let Err(code) = check(r) {
                infra::info!(LOG, "Interface {name} unable to setup txq({q}): {}", strerror(code));
                return (q, Err(code));
            }
        }
        (e.n_txq, Ok(()))
    }

    /// Sets rx queues up until one fails; how many worked.
    fn set_up_rxqs(&self, name: &str, e: &Effective, pool: &Mempool) -> (u16, Result<(), i32>) {
        for q in 0..e.n_rxq {
            // SAFETY: a null configuration means the driver's defaults; `pool` is kept by the caller
            // until the queue is released (stop or close).
            let r = unsafe {
                sys::rte_eth_rx_queue_setup(
                    self.port_id,
                    q,
                    e.rxd,
                    self.socket() as u32,
                    std::ptr::null(),
                    pool.as_ptr(),
                )
            };
            if let Err(code) = check(r) {
                infra::info!(LOG, "Interface {name} unable to setup rxq({q}): {}", strerror(code));
                return (q, Err(code));
            }
        }
        (e.n_rxq, Ok(()))
    }

    fn start(&mut self, name: &str) -> Result<(), String> {
        // SAFETY: the device is configured with all its queues; the calls check the port id.
        let (r, why) = log::first_error(|| unsafe { sys::rte_eth_dev_start(self.port_id) });
        check(r).map_err(|code| {
            infra::err!(LOG, "Interface {name} start error: {}", strerror(code));
            let why = why.map_or(String::new(), |w| format!(": {w}"));
            format!("Interface {name} start error: {}{why}", strerror(code))
        })?;
        self.started = true;
        self.configured = true;
        // SAFETY: the device is started; drivers without these modes say so and nothing changes.
        unsafe {
            sys::rte_eth_promiscuous_enable(self.port_id);
            sys::rte_eth_allmulticast_enable(self.port_id);
        }
        let [a, b, c, d, e, f] = self.mac();
        infra::info!(LOG, "Port {}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}", self.port_id);
        Ok(())
    }

    /// Stops the device. Its queues must not be polled any more.
    fn stop(&mut self) {
        if std::mem::take(&mut self.started) {
            // SAFETY: the owner made sure that all queues were given back.
            unsafe { sys::rte_eth_dev_stop(self.port_id) };
        }
        self.effective = None;
    }

    /// Stops, closes and removes the device, as far as this interface brought it in.
    fn close(&mut self) {
        if self.port_id == u16::MAX {
            return;
        }
        self.stop();
        let mut and_detached = "";
        if self.attached {
            let alone = siblings(self.port_id).len() <= 1;
            // SAFETY: the port is stopped and nobody else uses it (OWNERS); siblings keep the device.
            let r = unsafe { sys::vsw_port_close(self.port_id, i32::from(alone)) };
            if r < 0 {
                infra::err!(LOG, "Device '{}' can not be detached: {}", self.devargs, strerror(r));
            } else if alone {
                and_detached = " and detached";
            }
        }
        if !self.devargs.is_empty() {
            infra::info!(LOG, "Device '{}' has been removed{and_detached}", self.devargs);
        }
        if let Some(owners) = OWNERS.lock().as_mut() {
            owners.remove(&self.port_id);
        }
        self.pool = None;
        self.port_id = u16::MAX;
    }

    /// Sets flow control; `Err` carries the code.
    pub fn set_flow_control(&self, rx: bool, tx: bool, autoneg: bool) -> Result<(), i32> {
        let mut conf = sys::rte_eth_fc_conf::default();
        // SAFETY: `conf` is valid for both calls, which check the port id.
        unsafe {
            check(sys::rte_eth_dev_flow_ctrl_get(self.port_id, &mut conf))?;
            conf.mode = match (rx, tx) {
                (false, false) => sys::RTE_ETH_FC_NONE,
                (true, false) => sys::RTE_ETH_FC_RX_PAUSE,
                (false, true) => sys::RTE_ETH_FC_TX_PAUSE,
                (true, true) => sys::RTE_ETH_FC_FULL,
            };
            conf.autoneg = u8::from(autoneg);
            check(sys::rte_eth_dev_flow_ctrl_set(self.port_id, &mut conf))
        }
    }

    /// Changes the MAC address.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), i32> {
        let mut a = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: `a` is valid for the call, which checks port and address.
        check(unsafe { sys::rte_eth_dev_default_mac_addr_set(self.port_id, &mut a) })
    }

    /// Brings the link up or down.
    pub fn set_link(&self, up: bool) -> Result<(), i32> {
        // SAFETY: the calls check the port id.
        check(unsafe {
            if up {
                sys::rte_eth_dev_set_link_up(self.port_id)
            } else {
                sys::rte_eth_dev_set_link_down(self.port_id)
            }
        })
    }

    /// Longest frame for the MTU in effect, one VLAN tag or the FCS included.
    pub fn max_frame(&self) -> u32 {
        self.effective.map_or(0, |e| u32::from(e.mtu) + FRAME_OVERHEAD)
    }

    /// Whether the device is not on a PCI bus.
    pub fn is_virtual(&self) -> bool {
        let mut info = std::ptr::null();
        // SAFETY: `info` is valid for the call; the name is null or a string that the bus keeps.
        unsafe {
            let bus = sys::vsw_port_bus(self.port_id, &mut info);
            bus.is_null() || std::ffi::CStr::from_ptr(bus) != c"pci"
        }
    }

    /// A port without a device behind it, as a failed [`EthDev::reprobe`] leaves it.
    pub fn is_gone(&self) -> bool {
        self.port_id == u16::MAX
    }
}

impl Drop for EthDev {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(parse_mac("00:11:22:aa:BB:f"), Some([0, 0x11, 0x22, 0xaa, 0xbb, 0xf]));
        for bad in ["", "00:11:22:33:44", "00:11:22:33:44:55:66", "00:11:22:33:44:5g", "+1:1:1:1:1:1"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}

//! What a port says of itself: counters, `Interface.status`, OpenFlow features, link.
//!
//! Neighbours: `port` publishes it. Threads: control side only.

use crate::eal;
use crate::ethdev::EthDev;
use dpdk_sys as sys;
use netdev::{Features, Stats};
use std::collections::BTreeMap;
use std::ffi::{c_char, CStr};

/// Not supported by the device.
const UNKNOWN: u64 = u64::MAX;

/// Drops that the port itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Received frames longer than a buffer.
    pub rx_too_long: std::sync::atomic::AtomicU64,
    /// Frames longer than the MTU allows.
    pub tx_too_long: std::sync::atomic::AtomicU64,
    /// Packets that the device did not take, or for which there was no buffer.
    pub tx_failed: std::sync::atomic::AtomicU64,
}

/// Link as the device reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub mbps: u32,
    pub up: bool,
    pub full_duplex: bool,
    pub autoneg: bool,
}

pub(crate) fn link(port: u16) -> Link {
    let (mut mbps, mut up, mut full, mut autoneg) = (0, 0, 0, 0);
    // SAFETY: the pointers are valid for the call, which checks the port id.
    unsafe { sys::vsw_port_link(port, &mut mbps, &mut up, &mut full, &mut autoneg) };
    // DPDK's "unknown" is all ones.
    let mbps = if mbps == u32::MAX { 0 } else { mbps };
    Link { mbps, up: up != 0, full_duplex: full != 0, autoneg: autoneg != 0 }
}

/// Device counters and those of the port itself.
pub(crate) fn stats(port: u16, own: &Counters) -> Stats {
    use std::sync::atomic::Ordering::Relaxed;
    let mut s = sys::rte_eth_stats::default();
    // SAFETY: `s` is valid for the call, which checks the port id.
    let known = unsafe { sys::rte_eth_stats_get(port, &mut s) } == 0;
    let value = |v: u64| if known { v } else { UNKNOWN };
    Stats {
        rx_packets: value(s.ipackets),
        tx_packets: value(s.opackets),
        rx_bytes: value(s.ibytes),
        tx_bytes: value(s.obytes),
        rx_errors: value(s.ierrors),
        tx_errors: value(s.oerrors),
        rx_missed_errors: value(s.imissed),
        rx_dropped: own.rx_too_long.load(Relaxed),
        tx_dropped: own.tx_too_long.load(Relaxed) + own.tx_failed.load(Relaxed),
        multicast: UNKNOWN,
        collisions: UNKNOWN,
        rx_length_errors: UNKNOWN,
        rx_over_errors: UNKNOWN,
        rx_crc_errors: UNKNOWN,
        rx_frame_errors: UNKNOWN,
        rx_fifo_errors: UNKNOWN,
    }
}

/// Extended statistics of the driver, by name.
fn xstats(port: u16) -> Vec<(String, u64)> {
    // SAFETY: a null array with length 0 asks for the number of entries.
    let n = unsafe { sys::rte_eth_xstats_get_names(port, std::ptr::null_mut(), 0) };
    let Ok(n) = u32::try_from(n) else { return Vec::new() };
    let mut names = vec![sys::rte_eth_xstat_name::default(); n as usize];
    let mut values = vec![sys::rte_eth_xstat::default(); n as usize];
    // SAFETY: both arrays have n entries.
    let (a, b) = unsafe {
        (
            sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), n),
            sys::rte_eth_xstats_get(port, values.as_mut_ptr(), n),
        )
    };
    let have = usize::try_from(a.min(b)).unwrap_or(0).min(n as usize);
    values[..have]
        .iter()
        .filter_map(|v| {
            let name = names[..have].get(v.id as usize)?;
            Some((text(&name.name), v.value))
        })
        .collect()
}

/// A string in a fixed array.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c as u8).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Name under which a driver's counter appears in `Interface.statistics`, if it does.
fn published(name: &str) -> Option<String> {
    let queue = |rest: &str, direction: &str| {
        rest.strip_prefix(direction)
            .and_then(|r| r.split_once('_'))
            .is_some_and(|(n, what)| n.parse::<u16>().is_ok() && matches!(what, "packets" | "bytes"))
    };
    let sizes = [
        ("size_64_packets", "1_to_64_packets"),
        ("size_65_to_127_packets", "65_to_127_packets"),
        ("size_128_to_255_packets", "128_to_255_packets"),
        ("size_256_to_511_packets", "256_to_511_packets"),
        ("size_512_to_1023_packets", "512_to_1023_packets"),
        ("size_1024_to_1522_packets", "1024_to_1522_packets"),
        ("size_1523_to_max_packets", "1523_to_max_packets"),
    ];
    for (dir, rest) in [("rx_", name.strip_prefix("rx_")), ("tx_", name.strip_prefix("tx_"))] {
        let Some(rest) = rest else { continue };
        if let Some((_, to)) = sizes.iter().find(|(from, _)| *from == rest) {
            return Some(format!("{dir}{to}"));
        }
        // Those are columns of their own.
        if matches!(rest, "errors" | "missed_errors") {
            return None;
        }
        if queue(rest, "q") {
            return Some(name.to_string());
        }
    }
    let wanted = name.ends_with("_errors") || name.contains("_dropped") || name.contains("_management_");
    wanted.then(|| name.to_string())
}

/// Driver counters and drop reasons.
pub(crate) fn custom(port: u16, own: &Counters) -> Vec<(String, u64)> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut out = vec![
        ("ovs_tx_failure_drops".to_string(), own.tx_failed.load(Relaxed)),
        ("ovs_tx_mtu_exceeded_drops".to_string(), own.tx_too_long.load(Relaxed)),
        ("ovs_tx_qos_drops".to_string(), 0),
        ("ovs_rx_qos_drops".to_string(), 0),
        ("ovs_tx_invalid_hwol_drops".to_string(), 0),
    ];
    out.extend(xstats(port).into_iter().filter_map(|(name, v)| published(&name).map(|n| (n, v))));
    out
}

fn speed_name(mbps: u32) -> &'static str {
    match mbps {
        10 => "10Mbps",
        100 => "100Mbps",
        1_000 => "1Gbps",
        2_500 => "2.5Gbps",
        5_000 => "5Gbps",
        10_000 => "10Gbps",
        20_000 => "20Gbps",
        25_000 => "25Gbps",
        40_000 => "40Gbps",
        50_000 => "50Gbps",
        56_000 => "56Gbps",
        100_000 => "100Gbps",
        _ => "Not Defined",
    }
}

/// Current OpenFlow port features (`OFPPF_*`).
pub(crate) fn features(link: Link) -> Features {
    const OTHER: u32 = 1 << 10;
    const AUTONEG: u32 = 1 << 13;
    let current = match (link.mbps, link.full_duplex) {
        (10, false) => 1 << 0,
        (10, true) => 1 << 1,
        (100, false) => 1 << 2,
        (100, true) => 1 << 3,
        (1_000, false) => 1 << 4,
        (1_000, true) => 1 << 5,
        (10_000, true) => 1 << 6,
        (40_000, true) => 1 << 7,
        (100_000, true) => 1 << 8,
        (1_000_000, true) => 1 << 9,
        _ => OTHER,
    };
    let autoneg = if link.autoneg { AUTONEG } else { 0 };
    Features { current: current | autoneg, ..Features::default() }
}

/// `Interface.status`.
pub(crate) fn status(dev: &EthDev) -> BTreeMap<String, String> {
    let i = &dev.info;
    // SAFETY: driver_name is null or a string that the driver keeps.
    let driver = unsafe { cstr(i.driver_name) };
    let mut map: BTreeMap<String, String> = [
        ("port_no", dev.port_id.to_string()),
        ("numa_id", dev.numa.to_string()),
        ("driver_name", driver.clone()),
        ("min_rx_bufsize", i.min_rx_bufsize.to_string()),
        ("max_rx_pktlen", dev.max_frame().to_string()),
        ("max_rx_queues", i.max_rx_queues.to_string()),
        ("max_tx_queues", i.max_tx_queues.to_string()),
        ("max_mac_addrs", i.max_mac_addrs.to_string()),
        ("max_hash_mac_addrs", i.max_hash_mac_addrs.to_string()),
        ("max_vfs", i.max_vfs.to_string()),
        ("max_vmdq_pools", i.max_vmdq_pools.to_string()),
        // ifType of RFC 1213: ethernetCsmacd.
        ("if_type", "6".to_string()),
        ("if_descr", format!("{} {driver}", eal::version())),
        ("link_speed", speed_name(link(dev.port_id).mbps).to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v))
    .collect();
    let mut info = std::ptr::null();
    // SAFETY: `info` is valid for the call, which copes with ports that are gone; both strings are
    // null or kept by the bus for the device's life.
    let (bus, info) = unsafe {
        let bus = sys::vsw_port_bus(dev.port_id, &mut info);
        (cstr(bus), cstr(info))
    };
    let sep = if info.is_empty() { "" } else { ", " };
    map.insert("bus_info".to_string(), format!("bus_name={bus}{sep}{info}"));
    map
}

/// # Safety
/// `p` is null or a NUL-terminated string.
unsafe fn cstr(p: *const c_char) -> String {
    if p.is_null() {
        String::new()
    } else {
        // SAFETY: by contract a NUL-terminated string.
        unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_counters() {
        assert_eq!(published("rx_q12_packets").as_deref(), Some("rx_q12_packets"));
        assert_eq!(published("rx_q0_errors").as_deref(), Some("rx_q0_errors"));
        assert_eq!(published("tx_size_64_packets").as_deref(), Some("tx_1_to_64_packets"));
        assert_eq!(published("rx_mbuf_allocation_errors").as_deref(), Some("rx_mbuf_allocation_errors"));
        for no in ["rx_errors", "tx_errors", "rx_missed_errors", "rx_good_packets", "rx_qx_packets"] {
            assert_eq!(published(no), None, "{no}");
        }
    }

    #[test]
    fn speeds() {
        assert_eq!(speed_name(2_500), "2.5Gbps");
        assert_eq!(speed_name(0), "Not Defined");
        let l = Link { mbps: 10_000, up: true, full_duplex: true, autoneg: false };
        assert_eq!(features(l).current, 1 << 6);
    }
}

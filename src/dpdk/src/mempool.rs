//! Packet pools: shared by all ports of one buffer size and NUMA node, or one for each port.
//!
//! A pool is counted by its users and freed when it has none and every buffer has come back, which
//! is looked at whenever a pool is asked for or given back.
//!
//! Neighbours: `ethdev` asks for a pool before it sets up queues. Threads: the registry is behind a
//! lock of the control side; buffers are taken and given back by PMD threads through DPDK.

use crate::{eal, name_hash, LOG};
use dpdk_sys::rte_mempool;
use packet::Packet;
use parking_lot::Mutex;
use std::ffi::{c_void, CString};
use std::ptr::NonNull;

/// Buffers asked for first, and fewest that are still useful.
const MAX_MBUFS: u32 = 4096 * 64;
const MIN_MBUFS: u32 = 4096 * 4;
/// Ethernet header and frame check sequence.
pub(crate) const FRAME_OVERHEAD: u32 = 14 + 4;
/// Two VLAN tags.
const VLANS: u32 = 8;

/// What decides whether ports can share a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    /// Data room of a buffer, headroom included.
    buf_size: u32,
    socket: i32,
    /// Port that has the pool for itself (`per-port-memory`).
    owner: Option<String>,
    /// Buffers asked for; 0 for "as many as there may be".
    wanted: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct PoolPtr(*mut rte_mempool);
// SAFETY: DPDK's pools may be used from every thread; the pointer stays valid while the entry is in
// the registry.
unsafe impl Send for PoolPtr {}

struct Entry {
    key: Key,
    pool: PoolPtr,
    name: String,
    size: u32,
    users: usize,
}

static POOLS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A port's share in a pool.
pub(crate) struct Mempool {
    pool: PoolPtr,
}
// SAFETY: as for PoolPtr; the registry holds the pool while a share exists.
unsafe impl Sync for Mempool {}

/// What a port asks for.
pub(crate) struct Request<'a> {
    pub port: &'a str,
    pub mtu: u32,
    pub socket: i32,
    pub n_rxq: u32,
    pub n_txq: u32,
    pub rxd: u32,
    pub txd: u32,
}

/// Data room for frames of an MTU: whole KiB, and headroom.
pub(crate) fn buf_size(mtu: u32) -> u32 {
    let headroom = dpdk_sys::VSW_MBUF_HEADROOM;
    (mtu + FRAME_OVERHEAD + VLANS + headroom).next_multiple_of(1024) + headroom
}

/// Buffers that a port needs for itself: its descriptors, a burst for each queue, and a reserve.
fn per_port_mbufs(r: &Request<'_>) -> u32 {
    let bursts = r.n_rxq.min(128).saturating_mul(32);
    r.n_rxq
        .saturating_mul(r.rxd)
        .saturating_add(r.n_txq.saturating_mul(r.txd))
        .saturating_add(bursts)
        .saturating_add(MIN_MBUFS)
}

/// The buffer size for a shared pool: that of the smallest configured MTU which is large enough, else
/// the port's own.
fn shared_buf_size(r: &Request<'_>, configured: &[crate::config::SharedMempool]) -> u32 {
    let own = buf_size(r.mtu);
    let best = configured
        .iter()
        .filter(|c| c.numa.is_none_or(|n| n as i32 == r.socket))
        .map(|c| buf_size(c.mtu.min(100_000)))
        .filter(|&size| size >= own)
        .min();
    match best {
        Some(size) => infra::debug!(
            LOG,
            "Found user configured shared mempool with mbufs of size {size}, suitable for port with MTU {}, NUMA {}.",
            r.mtu,
            r.socket
        ),
        None => infra::debug!(
            LOG,
            "No user configured shared mempool mbuf sizes found suitable for port with MTU {}, NUMA {}.",
            r.mtu,
            r.socket
        ),
    }
    best.unwrap_or(own).min(u32::from(u16::MAX))
}

impl Mempool {
    /// A share in a pool that serves the port, made if there is none.
    pub fn get(r: &Request<'_>) -> Result<Mempool, String> {
        let Some(settings) = eal::settings() else {
            return Err("DPDK is not initialized".to_string());
        };
        let mut pools = POOLS.lock();
        sweep(&mut pools);
        let key = if settings.per_port_memory {
            Key {
                buf_size: buf_size(r.mtu),
                socket: r.socket,
                owner: Some(r.port.to_string()),
                wanted: per_port_mbufs(r),
            }
        } else {
            let size = shared_buf_size(r, &settings.shared_mempools);
            Key { buf_size: size, socket: r.socket, owner: None, wanted: 0 }
        };
        if let Some(e) = pools.iter_mut().find(|e| e.key == key) {
            infra::debug!(LOG, "Reusing mempool \"{}\"", e.name);
            e.users += 1;
            return Ok(Mempool { pool: e.pool });
        }
        let entry = create(r, key)?;
        let pool = entry.pool;
        pools.push(entry);
        Ok(Mempool { pool })
    }

    /// A packet of the pool with a copy of `frame`; `None` when the pool is exhausted.
    pub fn packet(&self, frame: &[u8]) -> Option<Packet> {
        // SAFETY: the share keeps the pool; the frame is readable for its length.
        let m = unsafe {
            dpdk_sys::vsw_mbuf_from_bytes(self.pool.0, frame.as_ptr().cast::<c_void>(), frame.len() as u32)
        };
        // SAFETY: a buffer that the function returns is ours alone and has valid lengths.
        NonNull::new(m.cast()).map(|m| unsafe { Packet::from_raw(m) })
    }

    /// The pool, for queue set-up.
    pub fn as_ptr(&self) -> *mut rte_mempool {
        self.pool.0
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        let mut pools = POOLS.lock();
        if let Some(e) = pools.iter_mut().find(|e| e.pool == self.pool) {
            e.users -= 1;
        }
        sweep(&mut pools);
    }
}

/// Looks for pools that can be freed now.
pub(crate) fn free_unused() {
    sweep(&mut POOLS.lock());
}

/// Frees pools without users whose buffers are all there.
fn sweep(pools: &mut Vec<Entry>) {
    pools.retain(|e| {
        // SAFETY: the pool is valid while its entry exists.
        let free = e.users == 0 && unsafe { dpdk_sys::rte_mempool_avail_count(e.pool.0) } == e.size;
        if free {
            infra::debug!(LOG, "Freeing mempool \"{}\"", e.name);
            // SAFETY: no user and no buffer is left, and the entry goes now.
            unsafe { dpdk_sys::rte_mempool_free(e.pool.0) };
        }
        !free
    });
}

/// Makes a pool; a shared one is halved until the memory suffices.
fn create(r: &Request<'_>, key: Key) -> Result<Entry, String> {
    let shared = key.owner.is_none();
    let mut n = if shared { MAX_MBUFS } else { key.wanted };
    infra::debug!(
        LOG,
        "Port {}: Requesting a mempool of {n} mbufs of size {} on socket {} for {} Rx and {} Tx queues, cache line size of {}",
        r.port,
        key.buf_size,
        r.socket,
        r.n_rxq,
        r.n_txq,
        dpdk_sys::VSW_CACHE_LINE
    );
    loop {
        let frame = key.buf_size - FRAME_OVERHEAD;
        let name = format!("ovs{:08x}{:02}{frame:05}{n:07}", name_hash(r.port), key.socket);
        match create_named(&name, n, &key) {
            Ok(pool) => {
                infra::debug!(LOG, "Allocated \"{name}\" mempool with {n} mbufs");
                return Ok(Entry { key, pool, name, size: n, users: 1 });
            }
            Err(_) if shared && n / 2 >= MIN_MBUFS => {
                infra::debug!(
                    LOG,
                    "Failed to create mempool \"{name}\" with a request of {n} mbufs, retrying with {} mbufs",
                    n / 2
                );
                n /= 2;
            }
            Err(errno) => {
                infra::err!(LOG, "Failed to create mempool \"{name}\" with a request of {n} mbufs");
                return Err(format!(
                    "cannot create a mempool of {n} mbufs of {} bytes on NUMA node {} ({}): reserve more \
                     hugepages or raise other_config:dpdk-socket-mem",
                    key.buf_size,
                    key.socket,
                    crate::strerror(errno)
                ));
            }
        }
    }
}

fn create_named(name: &str, n: u32, key: &Key) -> Result<PoolPtr, i32> {
    let c = CString::new(name).map_err(|_| libc::EINVAL)?;
    let room = u16::try_from(key.buf_size).map_err(|_| libc::EINVAL)?;
    // SAFETY: EAL runs (Mempool::get checked); `c` is valid for the call and copied by it.
    let pool = unsafe {
        dpdk_sys::rte_pktmbuf_pool_create(c.as_ptr(), n, dpdk_sys::VSW_MEMPOOL_CACHE, 0, room, key.socket)
    };
    if pool.is_null() {
        // SAFETY: reads a per-thread variable.
        return Err(unsafe { dpdk_sys::vsw_errno() });
    }
    Ok(PoolPtr(pool))
}

/// `netdev-dpdk/get-mempool-info` without a port: every pool.
pub fn info() -> String {
    // SAFETY: EAL runs (checked by `dump`).
    eal::dump(|| unsafe { dpdk_sys::vsw_dump_all_mempools() })
}

/// `netdev-dpdk/get-mempool-info` of one pool.
pub(crate) fn info_of(pool: &Mempool) -> String {
    // SAFETY: EAL runs (checked by `dump`), and the share keeps the pool.
    eal::dump(|| unsafe { dpdk_sys::vsw_dump_mempool(pool.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SharedMempool;

    fn request(mtu: u32) -> Request<'static> {
        Request { port: "p", mtu, socket: 0, n_rxq: 2, n_txq: 3, rxd: 2048, txd: 1024 }
    }

    #[test]
    fn buffers_hold_the_mtu() {
        assert_eq!(buf_size(1500), 2176);
        assert_eq!(buf_size(9000), 9344);
        assert_eq!(buf_size(68), 1152);
    }

    #[test]
    fn buffers_of_a_private_pool() {
        assert_eq!(per_port_mbufs(&request(1500)), 2 * 2048 + 3 * 1024 + 64 + 16384);
    }

    #[test]
    fn configured_sizes() {
        let pools = [
            SharedMempool { mtu: 9000, numa: None },
            SharedMempool { mtu: 4000, numa: Some(1) },
            SharedMempool { mtu: 6000, numa: Some(0) },
        ];
        assert_eq!(shared_buf_size(&request(1500), &pools), buf_size(6000));
        assert_eq!(shared_buf_size(&request(7200), &pools), buf_size(9000));
        assert_eq!(shared_buf_size(&request(9500), &pools), buf_size(9500));
    }
}

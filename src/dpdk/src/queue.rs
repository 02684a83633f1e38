//! Receive and transmit queues: what a PMD thread calls for each burst.
//!
//! `rte_eth_rx_burst` and `rte_eth_tx_burst` are inline functions of C over the table
//! `rte_eth_fp_ops`; here they are the same few loads and one indirect call.
//!
//! Neighbours: `port` makes queues and takes them back on drop. Threads: a queue belongs to one.

use crate::mempool::Mempool;
use crate::port::Shared;
use dpdk_sys as sys;
use netdev::{RxQueue, TxQueue};
use packet::{Batch, Packet, BATCH_SIZE};
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

/// One direction of one port in DPDK's table of burst functions.
#[derive(Clone, Copy)]
struct Ops(*const sys::rte_eth_fp_ops);
// SAFETY: the table is static memory of libdpdk; entries change only while the port's queues are all
// given back (start, stop).
unsafe impl Send for Ops {}

impl Ops {
    fn of(port: u16) -> Ops {
        debug_assert!(u32::from(port) < sys::VSW_MAX_ETHPORTS);
        // SAFETY: the index is a valid port id, below the table's length.
        Ops(unsafe { (&raw const sys::rte_eth_fp_ops).cast::<sys::rte_eth_fp_ops>().add(usize::from(port)) })
    }
}

/// A receive queue.
pub(crate) struct RxQ {
    ops: Ops,
    port: u16,
    queue: u16,
    /// The driver may hand out chains of buffers.
    chains: bool,
    shared: Arc<Shared>,
}

impl RxQ {
    pub fn new(shared: Arc<Shared>, port: u16, queue: u16, chains: bool) -> RxQ {
        RxQ { ops: Ops::of(port), port, queue, chains, shared }
    }

    /// `rte_eth_rx_burst`.
    #[inline(always)]
    fn burst(&mut self, into: *mut *mut sys::rte_mbuf, max: u16) -> u16 {
        // SAFETY: the port is started while its queues are out, so its entry has a burst function and
        // data for each configured queue; `into` has room for `max` pointers.
        unsafe {
            let ops = self.ops.0;
            let q = usize::from(self.queue);
            let data = *(*ops).rxq.data.add(q);
            let n = (*ops).rx_pkt_burst.unwrap_unchecked()(data, into, max);
            let callback = *(*ops).rxq.clbk.add(q);
            if !callback.is_null() {
                return self.callbacks(into, n, max, callback);
            }
            n
        }
    }

    /// Functions that a DPDK library (packet capture, latency statistics) put behind the queue.
    #[cold]
    fn callbacks(&self, into: *mut *mut sys::rte_mbuf, n: u16, max: u16, callback: *mut c_void) -> u16 {
        // SAFETY: `into` holds n packets and has room for max; the callback is the queue's own.
        unsafe { sys::rte_eth_call_rx_callbacks(self.port, self.queue, into, n, max, callback) }
    }

    /// Drops frames that did not fit one buffer: they are longer than the MTU allows.
    fn drop_chains(&self, batch: &mut Batch) -> u32 {
        if batch.as_slice().iter().all(|p| p.mbuf().nb_segs == 1) {
            return 0;
        }
        let mut keep = Batch::new();
        let mut dropped = 0;
        for p in batch.drain() {
            if p.mbuf().nb_segs == 1 {
                // As many slots as there were packets.
                let _ = keep.push(p);
            } else {
                dropped += 1;
            }
        }
        *batch = keep;
        self.shared.counters.rx_too_long.fetch_add(u64::from(dropped), Relaxed);
        dropped
    }
}

/// Frees what a caller left in the batch against the contract.
#[cold]
fn clear(batch: &mut Batch) {
    batch.clear();
}

impl RxQueue for RxQ {
    #[inline]
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        debug_assert!(batch.is_empty());
        if !batch.is_empty() {
            clear(batch);
        }
        let n = self.burst(batch.as_mut_ptr().cast(), BATCH_SIZE as u16);
        // SAFETY: the driver wrote n <= BATCH_SIZE pointers to mbufs that are now ours, and Packet is a
        // transparent pointer to an mbuf (layout checked in `layout`). The batch was empty.
        unsafe { batch.set_len(usize::from(n)) };
        if self.chains && n != 0 {
            return self.drop_chains(batch);
        }
        0
    }
}

impl Drop for RxQ {
    fn drop(&mut self) {
        self.shared.give_back_rx(usize::from(self.queue));
    }
}

/// A transmit queue.
pub(crate) struct TxQ {
    ops: Ops,
    port: u16,
    queue: u16,
    /// Longest frame.
    max: u32,
    /// Where packets from the heap are copied to.
    pool: Arc<Mempool>,
    shared: Arc<Shared>,
}

impl TxQ {
    pub fn new(shared: Arc<Shared>, port: u16, queue: u16, max: u32, pool: Arc<Mempool>) -> TxQ {
        TxQ { ops: Ops::of(port), port, queue, max, pool, shared }
    }

    /// `rte_eth_tx_burst`.
    #[inline(always)]
    fn burst(&mut self, from: *mut *mut sys::rte_mbuf, mut n: u16) -> u16 {
        // SAFETY: the port is started while its queues are out, so its entry has a burst function and
        // data for each configured queue; `from` holds n packets.
        unsafe {
            let ops = self.ops.0;
            let q = usize::from(self.queue);
            let data = *(*ops).txq.data.add(q);
            let callback = *(*ops).txq.clbk.add(q);
            if !callback.is_null() {
                n = self.callbacks(from, n, callback);
            }
            (*ops).tx_pkt_burst.unwrap_unchecked()(data, from, n)
        }
    }

    /// Functions that a DPDK library put before the queue.
    #[cold]
    fn callbacks(&self, from: *mut *mut sys::rte_mbuf, n: u16, callback: *mut c_void) -> u16 {
        // SAFETY: `from` holds n packets; the callback is the queue's own.
        unsafe { sys::rte_eth_call_tx_callbacks(self.port, self.queue, from, n, callback) }
    }

    /// Drops frames that are too long and copies packets from the heap into buffers of the port's
    /// pool, keeping the order.
    #[cold]
    fn prepare(&mut self, batch: &mut Batch) {
        let mut out = Batch::new();
        let counters = &self.shared.counters;
        for p in batch.drain() {
            if p.frame_len() > self.max as usize {
                counters.tx_too_long.fetch_add(1, Relaxed);
                continue;
            }
            let p = if p.is_heap() {
                match self.pool.packet(p.data()) {
                    Some(copy) => copy,
                    None => {
                        counters.tx_failed.fetch_add(1, Relaxed);
                        continue;
                    }
                }
            } else {
                p
            };
            // As many slots as there were packets.
            let _ = out.push(p);
        }
        *batch = out;
    }
}

impl TxQueue for TxQ {
    fn send(&mut self, batch: &mut Batch) {
        let odd = |p: &Packet| p.is_heap() | (p.mbuf().pkt_len > self.max);
        if batch.as_slice().iter().fold(false, |any, p| any | odd(p)) {
            self.prepare(batch);
        }
        let n = batch.len();
        let pkts: *mut *mut sys::rte_mbuf = batch.as_mut_ptr().cast();
        let mut sent = 0;
        while sent < n {
            // SAFETY: sent < n <= BATCH_SIZE, so the pointer stays in the batch's array.
            let k = self.burst(unsafe { pkts.add(sent) }, (n - sent) as u16);
            if k == 0 {
                break;
            }
            sent += usize::from(k);
        }
        if sent < n {
            self.shared.counters.tx_failed.fetch_add((n - sent) as u64, Relaxed);
            // SAFETY: the packets not taken move to the front of the same array; both ranges are in it.
            unsafe { std::ptr::copy(pkts.add(sent), pkts, n - sent) };
        }
        // SAFETY: the driver owns the first `sent` packets; the n - sent others are at the front.
        unsafe { batch.set_len(n - sent) };
    }

    fn max_frame(&self) -> usize {
        self.max as usize
    }
}

impl Drop for TxQ {
    fn drop(&mut self) {
        self.shared.give_back_tx(usize::from(self.queue));
    }
}

//! Packets and batches of packets.
//!
//! [`Packet`] owns one buffer whose header has the shape of DPDK's `rte_mbuf`, so that a burst of
//! mbufs from a NIC *is* a [`Batch`] and no copy or conversion happens. Buffers come from the heap
//! (tests, tap and AF_PACKET ports) or from a DPDK mempool; the `dpdk` crate registers how to free
//! and copy the latter.
//!
//! Threads: a packet has one owner; it may move between threads.

pub mod batch;
pub mod build;
pub mod checksum;
pub mod headers;
pub mod mbuf;
pub mod pcap;

pub use batch::{Batch, BATCH_SIZE};
pub use mbuf::{Mbuf, Packet, PoolOps};

//! The port contract (queues, devices, what they report) and the ports Linux gives us.
//!
//! Neighbours: `datapath` polls [`RxQueue`]s and fills [`TxQueue`]s; `bridge` opens devices through
//! [`Factory`]; `dpdk` implements the same traits for ethdev ports.
//! Threads: a [`Netdev`] is shared and its calls may be made from the main thread at any time; a
//! queue belongs to the one thread that polls it.
#![forbid(unsafe_code)]

pub mod contract;
pub mod coverage;
mod device;
pub mod dummy;
pub mod linux;
pub mod mem;
mod netlink;
mod offload;
mod system;
mod tap;

pub use contract::*;
pub use dummy::{DummyFactory, DummyLevel, DummyPort};
pub use linux::LinuxFactory;
pub use mem::{MemFactory, MemPort};

/// Bytes of a frame around the MTU's payload: Ethernet header and one VLAN tag.
pub const L2_OVERHEAD: usize = 18;

//! The port contract (queues, devices, what they report) and the ports Linux gives us.
//!
//! Neighbours: `datapath` polls [`RxQueue`]s and fills [`TxQueue`]s; `bridge` opens devices through
//! [`Factory`]; `dpdk` implements the same traits for ethdev ports.
//! Threads: a [`Netdev`] is shared and its calls may be made from the main thread at any time; a
//! queue belongs to the one thread that polls it.

pub mod contract;

pub use contract::*;

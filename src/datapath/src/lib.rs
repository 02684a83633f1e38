//! The userspace datapath: PMD loop, microflow cache, megaflow classifier, actions.
//!
//! Knows no DPDK, no OpenFlow and no database. `netdev` ports go in, an [`Upcall`] translates what is not yet
//! known, and [`Datapath`] is the only door for everyone else.
//!
//! Threads: PMD threads and the io thread own all that packets touch; others hold a [`Datapath`] and talk to them
//! by rings.

#![deny(unsafe_code)]

pub mod api;
mod assign;
mod balance;
mod checksum;
mod classifier;
mod control;
pub mod coverage;
pub mod dp;
pub mod drops;
mod emc;
mod engine;
mod exec;
mod fairness;
mod flows;
mod hash;
mod impls;
mod perf;
mod prefetch;
pub mod provider;
mod pruner;
mod rewrite;
mod sched;
pub mod shared;
pub mod show;
mod show_perf;
mod simple;
mod sleep;
mod smc;
pub mod stats;
#[cfg(test)]
mod testpkt;
mod thread;
mod tx;
mod vector;
mod xps;

pub use api::{
    AutoLb, Clock, DpConfig, DpError, DpOptions, FlowEvent, FlowPut, Miss, MissResult, PmdId, PmdRxqs,
    PortConfig, PortInfo, RxqAssign, RxqInfo, Suspect, ThreadHook, TxSteering, Upcall, UserspacePacket,
};
pub use dp::Datapath;
pub use drops::Drop;
pub use impls::Implementations;
pub use perf::PerfLog;
pub use provider::{DpOp, FlowDump, OpError, Provider, ProviderStats, QueuedUpcall, UpcallKind, UpcallQueue};
pub use shared::{Compact, FlowStats, NewFlow, SharedFlow, Ufid};
pub use stats::PmdStats;

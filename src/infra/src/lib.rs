//! Foundations every other crate stands on: clock, logs, event counters,
//! published snapshots, sequence numbers, rings, waiting, cpu placement.
//!
//! Depends on nothing of ours. Everything here may be called from any thread,
//! except that PMD threads never log (`vlog`) and never wait (`poll`, `seq`).

pub mod clock;
pub mod command;
pub mod counting;
pub mod coverage;
pub mod cpu;
pub mod fdname;
pub mod linux;
pub mod packet_socket;
pub mod poll;
pub mod process;
pub mod publish;
pub mod ring;
pub mod seq;
pub mod stopwatch;
pub mod title;
pub mod vlog;
pub mod waker;
pub mod worker;

pub use publish::Published;
pub use seq::Seq;
pub use waker::Waker;

/// The Open vSwitch version whose behaviour, texts and database schema we keep: what `ovs_version` in the database
/// and `sw_desc` in OpenFlow say.
pub const OVS_VERSION: &str = "3.1.0";

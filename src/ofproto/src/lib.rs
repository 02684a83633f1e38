//! OpenFlow tables, translation, upcalls, revalidation, MAC learning.
//!
//! The main thread changes a working version of everything and publishes whole versions; PMDs and revalidators read
//! those without a lock.

#![forbid(unsafe_code)]

pub mod classifier;
pub mod conn;
pub mod coverage;
pub mod flow_mod;
pub mod handler;
pub mod mac_learning;
pub mod ofproto;
pub mod packet_in;
pub mod port;
pub mod prefix_trie;
pub mod recirc;
pub mod revalidate;
pub mod rule;
mod self_check;
pub mod slowpath;
pub mod snapshot;
mod stats;
pub mod tables;
pub mod threads;
pub mod trace;
pub mod upcall;
pub mod xlate;

pub use infra::Published;
pub use mac_learning::MacLearning;
pub use openflow::Role as OpenFlowRole;
pub use openflow::{format_actions, OfError, PacketOut, PortConfig, Resume, VersionSet};
pub use revalidate::{RevalidateConfig, Revalidator, Ticket};
pub use rule::{CompactMask, CompactMatch, Rule, RuleFlags, RuleStats};
pub use snapshot::{BridgeId, BridgeView, BundleId, BundleView, PortView, Snapshot, World};
pub use tables::{Table, TableStats, Tables};
pub use upcall::Upcalls;

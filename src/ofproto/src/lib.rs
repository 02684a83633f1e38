//! OpenFlow tables, translation, upcalls, revalidation, MAC learning.
//!
//! The main thread changes a working version of everything and publishes whole versions; PMDs and revalidators read
//! those without a lock.

#![forbid(unsafe_code)]

pub mod classifier;
pub mod prefix_trie;
pub mod rule;
pub mod tables;

pub use rule::{CompactMask, CompactMatch, Rule, RuleFlags, RuleStats};
pub use tables::{Table, TableStats, Tables};

//! What a translation used: to be credited with the packets that later hit its megaflow.
//!
//! Neighbours: `xlate` fills it, `upcall` hands it to the datapath with the flow, `revalidate` credits. Threads:
//! owned by one at a time.

use crate::mac_learning::{Learned, MacKey, MacLearning};
use crate::recirc::RecircRef;
use crate::rule::Rule;
use crate::snapshot::{BundleId, PortCounters};
use crate::tables::TableStats;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// One thing that a packet went through.
pub enum Credit {
    /// A lookup in a table.
    Table {
        /// Its counters.
        stats: Arc<TableStats>,
        /// Whether a rule was found.
        hit: bool,
    },
    /// A rule.
    Rule(Arc<Rule>),
    /// Out of one patch port and into its peer.
    Patch {
        /// The port that sent.
        out: Arc<PortCounters>,
        /// The port that received.
        peer: Arc<PortCounters>,
    },
    /// NORMAL saw the source address.
    Normal {
        /// The bridge's table.
        macs: Arc<MacLearning>,
        /// Source address and VLAN.
        key: MacKey,
        /// Where it came from.
        bundle: BundleId,
    },
    /// A recirculation id that must live as long as the flow.
    Recirc(RecircRef),
}

/// Packets to credit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CreditStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Monotonic milliseconds of the last packet.
    pub used_ms: u64,
}

/// The list, in order of translation.
#[derive(Default)]
pub struct XlateCache {
    /// Entries.
    pub credits: Vec<Credit>,
}

impl XlateCache {
    /// Credits everything. True when a MAC entry changed, so that flows must be revalidated. `wait`: may wait for
    /// the lock of a MAC table (not on a poll-mode thread).
    pub fn push(&self, s: CreditStats, wait: bool) -> bool {
        push_credits(&self.credits, s, wait)
    }
}

/// As [`XlateCache::push`], for a list of them.
pub fn push_credits(credits: &[Credit], s: CreditStats, wait: bool) -> bool {
    let mut changed = false;
    for c in credits {
        match c {
            Credit::Table { stats, hit } => stats.credit(s.packets, *hit),
            Credit::Rule(rule) => rule.stats.credit(s.packets, s.bytes, s.used_ms),
            Credit::Patch { out, peer } => {
                out.tx_packets.fetch_add(s.packets, Ordering::Relaxed);
                out.tx_bytes.fetch_add(s.bytes, Ordering::Relaxed);
                peer.rx_packets.fetch_add(s.packets, Ordering::Relaxed);
                peer.rx_bytes.fetch_add(s.bytes, Ordering::Relaxed);
            }
            Credit::Normal { macs, key, bundle } if s.packets > 0 => {
                changed |= macs.learn(*key, *bundle, s.used_ms, wait) == Learned::Changed;
            }
            Credit::Normal { .. } | Credit::Recirc(_) => {}
        }
    }
    changed
}

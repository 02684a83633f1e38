//! One version of the OpenFlow tables of a bridge.
//!
//! The main thread keeps a working copy, changes it, and publishes clones; a clone shares all that did not change.
//! Neighbours: `flow_mod` changes, `xlate` looks up. Threads: a published version is immutable.

use crate::classifier::Classifier;
use crate::rule::Rule;
use flow::{Flow, Mask};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Tables of a bridge, the internal one (254) included.
pub const N_TABLES: usize = 255;

/// Lookup counters of a table, credited by revalidators.
#[derive(Debug, Default)]
pub struct TableStats {
    /// Packets that hit a rule.
    pub matched: AtomicU64,
    /// Packets that hit none.
    pub missed: AtomicU64,
}

impl TableStats {
    /// Counts `packets` lookups.
    pub fn credit(&self, packets: u64, hit: bool) {
        if hit { &self.matched } else { &self.missed }.fetch_add(packets, Ordering::Relaxed);
    }
}

/// One table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its rules.
    pub classifier: Classifier,
    /// Its counters, the same in every version.
    pub stats: Arc<TableStats>,
}

/// One version of all tables. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Arc<Vec<Arc<Table>>>,
    /// Counted where no rule matches, by [`Miss`].
    misses: Option<Arc<[Arc<Rule>; 3]>>,
}

/// What becomes of a packet without a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// It goes to controllers.
    PacketIn,
    /// It is dropped.
    Drop,
    /// It is a fragment, for which no rule was looked for.
    Fragment,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables { tables: Arc::new((0..N_TABLES).map(|_| Arc::new(Table::default())).collect()), misses: None }
    }
}

impl Tables {
    /// Table `id`; 255 (which is no table) gives table 254.
    pub fn table(&self, id: u8) -> &Table {
        &self.tables[usize::from(id).min(N_TABLES - 1)]
    }

    /// Table `id`, to change it.
    pub fn table_mut(&mut self, id: u8) -> &mut Table {
        Arc::make_mut(&mut Arc::make_mut(&mut self.tables)[usize::from(id).min(N_TABLES - 1)])
    }

    /// The rule of the internal table that counts packets without a rule.
    pub fn miss_rule(&self, miss: Miss) -> Option<&Arc<Rule>> {
        self.misses.as_deref().map(|m| &m[miss as usize])
    }

    /// Names the rules that count packets without a rule.
    pub fn set_miss_rules(&mut self, rules: [Arc<Rule>; 3]) {
        self.misses = Some(Arc::new(rules));
    }

    /// The rule that `flow` (its `in_port` an OpenFlow port) hits in table `id`. Bits looked at go into `mask`.
    #[inline]
    pub fn lookup(&self, id: u8, flow: &Flow, mask: &mut Mask) -> Option<&Arc<Rule>> {
        self.table(id).classifier.lookup(flow, mask)
    }

    /// All rules of all tables.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.tables.iter().flat_map(|t| t.classifier.iter())
    }
}

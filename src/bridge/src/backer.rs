//! A datapath with all that stands behind it: one for each type of datapath that a bridge has.
//!
//! Bridges of one type share port numbers, recirculation ids and revalidation; those of different types know nothing
//! of each other. Neighbours: `manager` makes and ends them, `show`, `dpctl` and `trace` look for one by name. Threads:
//! main only.

use crate::class::DatapathClass;
use datapath::{Datapath, Provider};
use flow::DpPort;
use ofproto::slowpath::SlowPath;
use ofproto::World;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One of them.
pub struct Backer {
    /// Its type.
    pub class: DatapathClass,
    /// What translation reads.
    pub world: Arc<World>,
    /// Moves the packets.
    pub datapath: Arc<Datapath>,
    /// Upcalls and revalidation.
    pub slow: Arc<SlowPath>,
}

impl Backer {
    /// The datapath as all types of datapath are used.
    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        self.datapath.clone()
    }

    /// Names of the ports, by number.
    pub(crate) fn port_names(&self) -> BTreeMap<DpPort, String> {
        self.datapath.ports().into_iter().map(|p| (p.no, p.netdev.name().to_string())).collect()
    }

    /// Ends its threads.
    pub(crate) fn stop(&self) {
        self.slow.stop();
        self.datapath.del_port(DpPort(0));
    }
}

/// All of them, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Backers(Vec<Arc<Backer>>);

impl Backers {
    pub(crate) fn add(&mut self, backer: Arc<Backer>) {
        self.0.push(backer);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Backer>> {
        self.0.iter()
    }

    /// By their names, as `dpif/show` lists them.
    pub(crate) fn by_name(&self) -> Vec<&Arc<Backer>> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|b| b.datapath.full_name());
        all
    }

    /// In the order of the types, as `dpctl` lists them.
    pub(crate) fn by_class(&self, classes: &[DatapathClass]) -> Vec<&Arc<Backer>> {
        classes.iter().filter_map(|c| self.of_type(c.name)).collect()
    }

    pub(crate) fn of_type(&self, kind: &str) -> Option<&Arc<Backer>> {
        self.0.iter().find(|b| b.class.name == kind)
    }

    /// The one called `name`, as in `ovs-netdev`.
    pub(crate) fn called(&self, name: &str) -> Option<&Arc<Backer>> {
        self.0.iter().find(|b| b.datapath.name() == name)
    }

    /// The one called `name`, as in `netdev@ovs-netdev`.
    pub(crate) fn with_full_name(&self, name: &str) -> Option<&Arc<Backer>> {
        self.0.iter().find(|b| b.datapath.full_name() == name)
    }

    /// The only one.
    pub(crate) fn only(&self) -> Option<&Arc<Backer>> {
        self.0.first().filter(|_| self.0.len() == 1)
    }

    /// Takes those out whose type `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) -> Vec<Arc<Backer>> {
        let (kept, gone) = std::mem::take(&mut self.0).into_iter().partition(|b| keep(b.class.name));
        self.0 = kept;
        gone
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

//! The published configuration: what translation reads, as whole versions behind one sequence number.
//!
//! The main thread builds a [`Snapshot`] of all bridges and publishes it in a [`World`]; the tables of a bridge are
//! published on their own (one store for a flow-mod or a bundle). A reader takes the sequence number *first*, then
//! the snapshot and the tables: whatever changes after that makes the result's number old, and the revalidator
//! looks at it again. Neighbours: `ofproto` (writer), `xlate`, `upcall`, `revalidate` (readers). Threads: written by
//! main, read by all, no lock.

use crate::coverage;
use crate::mac_learning::MacLearning;
use crate::recirc::RecircTable;
use crate::tables::Tables;
use flow::{DpPort, OfPort};
use hashbrown::HashMap;
use infra::Published;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A bridge, over its whole life. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BridgeId(pub u32);

/// A bundle (a Port row: one port, or the members of a bond), over its whole life. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BundleId(pub u32);

/// OpenFlow port configuration bits (OpenFlow 1.0 §5.2.1), as users set them by port-mod.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortConfig(pub u32);

#[allow(missing_docs)]
impl PortConfig {
    pub const PORT_DOWN: u32 = 1 << 0;
    pub const NO_STP: u32 = 1 << 1;
    pub const NO_RECV: u32 = 1 << 2;
    pub const NO_RECV_STP: u32 = 1 << 3;
    pub const NO_FLOOD: u32 = 1 << 4;
    pub const NO_FWD: u32 = 1 << 5;
    pub const NO_PACKET_IN: u32 = 1 << 6;

    /// Whether one of `bits` is set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// One OpenFlow port as translation sees it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// OpenFlow number.
    pub ofport: OfPort,
    /// Number in the datapath; `None` for patch ports and ports whose device is missing.
    pub dp_port: Option<DpPort>,
    /// Interface name.
    pub name: Arc<str>,
    /// The other end, for a patch port whose peer exists.
    pub peer: Option<(BridgeId, OfPort)>,
    /// Whether the interface is of type patch (with or without a peer).
    pub is_patch: bool,
    /// Configuration bits.
    pub config: PortConfig,
    /// Link is up (a port that is down is not flooded to by NORMAL).
    pub link_up: bool,
    /// Bundle of NORMAL, if it is in one.
    pub bundle: Option<BundleId>,
    /// Counters of a port without a device: patch ports are credited by translation.
    pub stats: Arc<PortCounters>,
}

/// Packets and bytes of a port that has no device to count them (patch ports).
#[derive(Default, Debug)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_packets: AtomicU64,
    pub rx_bytes: AtomicU64,
    pub tx_packets: AtomicU64,
    pub tx_bytes: AtomicU64,
}

/// `vlan_mode` of a Port row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum VlanMode {
    Access,
    Trunk,
    NativeTagged,
    NativeUntagged,
}

/// How IP fragments meet the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragments {
    /// As packets without transport ports.
    #[default]
    Normal,
    /// Not at all.
    Drop,
    /// The first one with its ports, the others without.
    NxMatch,
}

impl Fragments {
    /// From the bits of a set-config message; there is no reassembly.
    pub fn of_config(frag: u16) -> Fragments {
        match frag {
            1 => Fragments::Drop,
            3 => Fragments::NxMatch,
            _ => Fragments::Normal,
        }
    }
}

/// `other_config:priority-tags` of a Port row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum PriorityTags {
    Never,
    IfNonzero,
    Always,
}

/// A set of VLAN ids.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// The set of `vids` (those above 4095 are left out).
    pub fn new(vids: impl IntoIterator<Item = u16>) -> VlanSet {
        let mut set = VlanSet(Box::new([0; 64]));
        for v in vids {
            if let Some(word) = set.0.get_mut(usize::from(v / 64)) {
                *word |= 1 << (v % 64);
            }
        }
        set
    }

    /// Whether `vid` is in the set.
    pub fn has(&self, vid: u16) -> bool {
        self.0.get(usize::from(vid / 64)).is_some_and(|w| w >> (vid % 64) & 1 != 0)
    }
}

impl std::fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..4096u16).filter(|&v| self.has(v))).finish()
    }
}

/// One bundle of a bridge as NORMAL sees it.
#[derive(Clone, Debug)]
pub struct BundleView {
    /// Identity.
    pub id: BundleId,
    /// Port name in the database.
    pub name: Arc<str>,
    /// Member ports.
    pub ports: Vec<OfPort>,
    /// VLAN mode in effect (a mode that is unset follows from `tag`: access with a tag, trunk without).
    pub vlan_mode: VlanMode,
    /// `tag`; `None` on a pure trunk.
    pub vlan: Option<u16>,
    /// `trunks`; `None` carries all VLANs. A native VLAN is carried whether or not it is listed.
    pub trunks: Option<VlanSet>,
    /// Priority-tagged output.
    pub priority_tags: PriorityTags,
    /// `protected`: no forwarding between two protected ports.
    pub protected: bool,
}

impl BundleView {
    /// Whether packets of VLAN `vid` (0: none) belong on this bundle.
    pub fn includes_vlan(&self, vid: u16) -> bool {
        match self.vlan_mode {
            VlanMode::Access => self.vlan.unwrap_or(0) == vid,
            VlanMode::Trunk => self.trunks_vlan(vid),
            VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                // Without a header a packet would be taken for one of the native VLAN.
                self.vlan.unwrap_or(0) == vid || vid != 0 && self.trunks_vlan(vid)
            }
        }
    }

    /// Whether `vid` is among the trunked VLANs.
    pub fn trunks_vlan(&self, vid: u16) -> bool {
        self.trunks.as_ref().is_none_or(|t| t.has(vid))
    }
}

/// One bridge as translation sees it.
#[derive(Clone)]
pub struct BridgeView {
    /// Identity.
    pub id: BridgeId,
    /// Bridge name.
    pub name: Arc<str>,
    /// The OpenFlow tables: the cell outlives snapshots, its content is replaced by every change of rules.
    pub tables: Published<Tables>,
    /// MAC learning table.
    pub macs: Arc<MacLearning>,
    /// Ports by number.
    pub ports: HashMap<u16, Arc<PortView>>,
    /// Bundles by identity.
    pub bundles: HashMap<BundleId, Arc<BundleView>>,
    /// Ports in the order in which FLOOD and ALL send to them.
    pub port_order: Vec<OfPort>,
    /// Bundles in the order in which NORMAL floods.
    pub bundle_order: Vec<BundleId>,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// A connection wants packet-ins for packets that no rule matches (a controller below OpenFlow 1.3).
    pub packet_in_on_miss: bool,
    /// What `set-config` says about IP fragments.
    pub frags: Fragments,
}

impl BridgeView {
    /// The port with number `p`.
    #[inline]
    pub fn port(&self, p: OfPort) -> Option<&Arc<PortView>> {
        self.ports.get(&p.0)
    }

    /// The bundle that port `p` is in.
    pub fn bundle_of(&self, p: OfPort) -> Option<&Arc<BundleView>> {
        self.bundles.get(&self.port(p)?.bundle?)
    }
}

/// The order in which FLOOD and ALL send to ports that were added in the order of `created`: that of a chained hash
/// table keyed by port number which grows with its content, so that the order is the one users know.
pub fn flood_order(created: &[OfPort]) -> Vec<OfPort> {
    let hash = |p: OfPort| crate::xlate::hash2(p.0.into(), 0) as usize;
    let mut buckets: Vec<Vec<OfPort>> = vec![Vec::new()];
    for (i, &p) in created.iter().enumerate() {
        let mask = buckets.len() - 1;
        buckets[hash(p) & mask].insert(0, p);
        let half = i.div_ceil(2);
        if half > mask {
            let size = (half + 1).next_power_of_two().max(4);
            let mut larger = vec![Vec::new(); size];
            for &q in buckets.iter().flatten() {
                larger[hash(q) & (size - 1)].insert(0, q);
            }
            buckets = larger;
        }
    }
    buckets.concat()
}

/// All bridges of the datapath.
#[derive(Clone, Default)]
pub struct Snapshot {
    bridges: HashMap<BridgeId, Arc<BridgeView>>,
    dp_ports: HashMap<u32, (BridgeId, OfPort)>,
}

impl Snapshot {
    /// A snapshot of `bridges`.
    pub fn new(bridges: impl IntoIterator<Item = Arc<BridgeView>>) -> Snapshot {
        let bridges: HashMap<_, _> = bridges.into_iter().map(|b| (b.id, b)).collect();
        let dp_ports = bridges
            .values()
            .flat_map(|b| b.ports.values().map(|p| (b.id, p)))
            .filter_map(|(id, p)| p.dp_port.map(|dp| (dp.0, (id, p.ofport))))
            .collect();
        Snapshot { bridges, dp_ports }
    }

    /// The bridge `id`.
    #[inline]
    pub fn bridge(&self, id: BridgeId) -> Option<&Arc<BridgeView>> {
        self.bridges.get(&id)
    }

    /// All bridges.
    pub fn bridges(&self) -> impl Iterator<Item = &Arc<BridgeView>> {
        self.bridges.values()
    }

    /// The bridge called `name`.
    pub fn bridge_by_name(&self, name: &str) -> Option<&Arc<BridgeView>> {
        self.bridges.values().find(|b| &*b.name == name)
    }

    /// Bridge and OpenFlow number of a datapath port.
    #[inline]
    pub fn of_port(&self, dp: DpPort) -> Option<(&Arc<BridgeView>, OfPort)> {
        let &(id, port) = self.dp_ports.get(&dp.0)?;
        Some((self.bridges.get(&id)?, port))
    }
}

/// The published state: the current [`Snapshot`] and the sequence number over everything that translation reads.
pub struct World {
    seq: AtomicU64,
    snapshot: Published<Snapshot>,
    recirc: RecircTable,
    wait: Mutex<()>,
    changed: Condvar,
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// A world without bridges.
    pub fn new() -> World {
        World {
            seq: AtomicU64::new(1),
            snapshot: Published::new(Snapshot::default()),
            recirc: RecircTable::default(),
            wait: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// The sequence number. Read it before anything else that a result depends on.
    #[inline]
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// The current snapshot.
    #[inline]
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Recirculation ids.
    pub fn recirc(&self) -> &RecircTable {
        &self.recirc
    }

    /// Replaces the snapshot and wakes the revalidators.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(snapshot);
        self.bump();
    }

    /// Says that something that translation reads has changed (called after the change is visible): tables, MAC
    /// entries. Wakes the revalidators.
    pub fn bump(&self) {
        self.seq.fetch_add(1, Ordering::AcqRel);
        let _g = self.wait.lock();
        self.changed.notify_all();
    }

    /// Says that MAC entries have changed.
    pub fn macs_changed(&self) {
        coverage::REV_MAC_LEARNING.inc();
        self.bump();
    }

    /// Says that OpenFlow tables have changed.
    pub fn tables_changed(&self) {
        coverage::REV_FLOW_TABLE.inc();
        self.bump();
    }

    /// Says that MAC entries have changed without waking anyone: for poll-mode threads, which must not make a system call. The revalidators
    /// see it when their interval ends.
    #[inline]
    pub fn macs_changed_quietly(&self) {
        coverage::REV_MAC_LEARNING.inc();
        self.seq.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until the sequence number is not `seen`, or `timeout` has passed, or [`World::wake`] was called.
    pub fn wait_change(&self, seen: u64, timeout: Duration) {
        let mut g = self.wait.lock();
        if self.seq() == seen {
            self.changed.wait_for(&mut g, timeout);
        }
    }

    /// Wakes everyone in [`World::wait_change`].
    pub fn wake(&self) {
        let _g = self.wait.lock();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_sets() {
        let s = VlanSet::new([0, 5, 4095, 9999]);
        assert!(s.has(0) && s.has(5) && s.has(4095) && !s.has(6) && !s.has(9999));
    }

    #[test]
    fn flood_order_as_observed() {
        let ports = |v: &[u16]| v.iter().map(|&p| OfPort(p)).collect::<Vec<_>>();
        assert_eq!(flood_order(&ports(&[65534, 1, 2, 3, 4, 50])), ports(&[4, 65534, 1, 50, 2, 3]));
        let mut many = ports(&[65534]);
        many.extend((1..=20).chain([100, 200, 300]).map(OfPort));
        let want =
            [65534, 8, 10, 100, 14, 18, 17, 11, 13, 16, 5, 9, 12, 20, 15, 300, 7, 6, 4, 1, 200, 19, 2, 3];
        assert_eq!(flood_order(&many), ports(&want));
    }

    #[test]
    fn seq_moves_with_publish() {
        let w = World::new();
        let s = w.seq();
        w.publish(Snapshot::default());
        assert!(w.seq() > s);
        w.wait_change(s, Duration::from_secs(100));
    }
}

//! One switch in memory: two bridges with devices, joined by a patch port, over the real datapath without threads and
//! a clock of the test's. Neighbours: `ops` says what happens; `twin` makes two of them. Threads: the test's.

use crate::ops::{NewRule, Op, Vlans, DEVICES, PATCH};
use crate::packets::Spec;
use crate::rules::N_TABLES;
use datapath::{Datapath, DpConfig, DpOptions, PmdStats, SharedFlow, Upcall};
use flow::extract::{extract_flow, PktMetadata};
use flow::{DpPort, OfPort};
use infra::cpu::{CoreId, NumaId, Topology};
use infra::Published;
use netdev::mem::MemPort;
use netdev::Netdev;
use ofproto::flow_mod::FlowTable;
use ofproto::mac_learning::MacKey;
use ofproto::packet_in::{self, FromDatapath};
use ofproto::slowpath::SlowPath;
use ofproto::snapshot::{flood_order, Fragments, PortConfig, PortCounters, VlanSet};
use ofproto::{
    BridgeId, BridgeView, BundleId, BundleView, MacLearning, PortView, RevalidateConfig, Revalidator, Rule,
    Snapshot, Tables, Upcalls, World,
};
use openflow::{FlowFlags, FlowMod, FlowModCommand, Version, GROUP_ANY, NO_BUFFER, TABLE_ALL};
use packet::Packet;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

pub struct Port {
    pub dev: Option<Arc<MemPort>>,
    pub dp_port: Option<DpPort>,
    bundle: BundleId,
    config: u32,
    vlans: Vlans,
    pub counters: Arc<PortCounters>,
}

pub struct Bridge {
    id: BridgeId,
    pub flows: FlowTable,
    tables: Published<Tables>,
    pub macs: Arc<MacLearning>,
    pub ports: BTreeMap<u16, Port>,
    created: Vec<OfPort>,
    forward_bpdu: bool,
    miss: bool,
    frags: Fragments,
}

/// VLAN and address.
type Station = (u16, [u8; 6]);

/// Counters that must be equal on both sides.
#[derive(PartialEq, Debug, Default)]
pub struct State {
    /// Packets, bytes, last use, by bridge, table and cookie.
    pub rules: BTreeMap<(usize, u8, u64), (u64, u64, u64)>,
    /// Matched and missed.
    pub tables: BTreeMap<(usize, u8), (u64, u64)>,
    /// Received packets and bytes, sent packets and bytes.
    pub ports: BTreeMap<(usize, u16), [u64; 4]>,
    /// Bundle and age by bridge, VLAN and address.
    pub macs: BTreeMap<(usize, Station), (u32, Option<u64>)>,
    pub totals: Vec<(&'static str, u64)>,
}

pub struct Side {
    pub world: Arc<World>,
    pub upcalls: Arc<Upcalls>,
    pub dp: Arc<Datapath>,
    pub sweeps: Sweeps,
    pub bridges: [Bridge; 2],
    /// The test's clock; with threads the real one.
    clock: Option<Arc<AtomicU64>>,
    next_bundle: u32,
    next_cookie: u64,
    /// What came out since it was last taken: frames by bridge and port, packet-ins, removed rules.
    pub out: Vec<String>,
}

/// Who looks after flows: the test itself, or threads.
pub enum Sweeps {
    Own(Box<Revalidator>),
    Threads(Arc<SlowPath>),
}

impl Sweeps {
    pub fn push_stats(&self) {
        match self {
            Sweeps::Own(r) => r.push_stats(),
            Sweeps::Threads(s) => s.push_stats(),
        }
    }

    pub fn flows(&self) -> Vec<Arc<SharedFlow>> {
        match self {
            Sweeps::Own(r) => r.flows(),
            Sweeps::Threads(s) => s.flows(),
        }
    }

    /// The revalidator that the test drives.
    pub fn own(&self) -> &Revalidator {
        match self {
            Sweeps::Own(r) => r,
            Sweeps::Threads(_) => panic!("sweeps are done by threads here"),
        }
    }
}

/// Cores of the made-up machine.
const CORES: u32 = 4;

impl Side {
    /// `wrap` may put something between datapath and slow path.
    pub fn new(wrap: impl FnOnce(&Arc<World>, &Arc<Upcalls>) -> Arc<dyn Upcall>) -> Side {
        let world = Arc::new(World::new());
        let upcalls = Arc::new(Upcalls::new(world.clone()));
        let clock = Arc::new(AtomicU64::new(10_000));
        let reader = clock.clone();
        let options = DpOptions {
            clock: Arc::new(move || reader.load(Ordering::Relaxed)),
            threads: false,
            topology: Topology::from_cores((0..CORES).map(|c| (CoreId(c), NumaId(0))).collect()),
            seed: 1,
            ..DpOptions::default()
        };
        let dp = Datapath::new("ovs-netdev", wrap(&world, &upcalls), options).expect("a datapath");
        dp.set_config(config(3, 1)).expect("cores");
        let rev = Revalidator::new(world.clone(), upcalls.clone(), dp.clone());
        Side::over(world, upcalls, dp, (Sweeps::Own(Box::new(rev)), Some(clock)))
    }

    /// One whose datapath and revalidators have threads, and whose clock is the machine's.
    pub fn with_threads() -> (Side, Arc<SlowPath>) {
        let world = Arc::new(World::new());
        let slow = SlowPath::new(world.clone());
        let dp = Datapath::new("ovs-netdev", slow.upcall(), DpOptions::default()).expect("a datapath");
        slow.start(dp.clone()).expect("descriptors");
        let upcalls = Arc::new(Upcalls::new(world.clone()));
        (Side::over(world, upcalls, dp, (Sweeps::Threads(slow.clone()), None)), slow)
    }

    fn over(
        world: Arc<World>,
        upcalls: Arc<Upcalls>,
        dp: Arc<Datapath>,
        (sweeps, clock): (Sweeps, Option<Arc<AtomicU64>>),
    ) -> Side {
        let bridge = |id: u32| {
            let mut b = Bridge {
                id: BridgeId(id),
                flows: FlowTable::default(),
                tables: Published::new(Tables::default()),
                macs: Arc::new(MacLearning::new()),
                ports: BTreeMap::new(),
                created: Vec::new(),
                forward_bpdu: false,
                miss: false,
                frags: Fragments::Normal,
            };
            b.flows.add_miss_rules(10_000);
            b
        };
        let mut side = Side {
            world,
            upcalls,
            dp,
            sweeps,
            bridges: [bridge(1), bridge(2)],
            clock,
            next_bundle: 1,
            next_cookie: 1,
            out: Vec::new(),
        };
        for b in 0..2 {
            DEVICES.iter().for_each(|&p| side.add_port(b, p));
            side.add_patch(b);
        }
        side.publish();
        side.tables_changed();
        side
    }

    pub fn now(&self) -> u64 {
        match &self.clock {
            Some(c) => c.load(Ordering::Relaxed),
            None => infra::clock::now_ms().max(0) as u64,
        }
    }

    fn add_patch(&mut self, b: usize) {
        let port = Port {
            dev: None,
            dp_port: None,
            bundle: self.new_bundle(),
            config: 0,
            vlans: Vlans::trunk(),
            counters: Arc::default(),
        };
        self.bridges[b].ports.insert(PATCH, port);
        self.bridges[b].created.push(OfPort(PATCH));
    }

    fn new_bundle(&mut self) -> BundleId {
        self.next_bundle += 1;
        BundleId(self.next_bundle)
    }

    fn add_port(&mut self, b: usize, no: u16) {
        if self.bridges[b].ports.contains_key(&no) {
            return;
        }
        // Some ports are polled by PMDs and some by the io thread; some have several queues.
        let is_pmd = no != 65534 && no != 5;
        let dev =
            MemPort::builder(&format!("b{b}p{no}")).pmd(is_pmd).rxqs(if no == 2 { 2 } else { 1 }).build();
        let dp_port = self.dp.add_port_stopped(dev.clone(), None).expect("a new port");
        let port = Port {
            dev: Some(dev),
            dp_port: Some(dp_port),
            bundle: self.new_bundle(),
            config: 0,
            vlans: Vlans::trunk(),
            counters: Arc::default(),
        };
        self.bridges[b].ports.insert(no, port);
        self.bridges[b].created.push(OfPort(no));
        self.publish();
        self.dp.start_port(dp_port).expect("its queues");
    }

    fn del_port(&mut self, b: usize, no: u16) {
        self.collect();
        let bridge = &mut self.bridges[b];
        let Some(port) = bridge.ports.remove(&no) else { return };
        bridge.created.retain(|p| p.0 != no);
        bridge.macs.retire_bundle(port.bundle);
        if let Some(dp_port) = port.dp_port {
            self.dp.del_port(dp_port);
        }
        self.publish();
    }

    fn publish(&self) {
        self.world.publish(Snapshot::new([self.view(0), self.view(1)]));
    }

    fn view(&self, b: usize) -> Arc<BridgeView> {
        let bridge = &self.bridges[b];
        let port = |no: u16, p: &Port| PortView {
            ofport: OfPort(no),
            dp_port: p.dp_port,
            name: format!("p{no}").into(),
            peer: p.dev.is_none().then_some((self.bridges[1 - b].id, OfPort(PATCH))),
            is_patch: p.dev.is_none(),
            config: PortConfig(p.config),
            link_up: p.dev.as_ref().is_none_or(|d| d.link().up),
            bundle: Some(p.bundle),
            stats: p.counters.clone(),
        };
        let bundle = |no: u16, p: &Port| BundleView {
            id: p.bundle,
            name: format!("p{no}").into(),
            ports: vec![OfPort(no)],
            vlan_mode: p.vlans.mode,
            vlan: p.vlans.tag,
            trunks: p.vlans.trunks.clone().map(VlanSet::new),
            priority_tags: p.vlans.priority_tags,
            protected: p.vlans.protected,
        };
        let (ports, bundles) = (&bridge.ports, &bridge.ports);
        Arc::new(BridgeView {
            id: bridge.id,
            name: format!("br{}", bridge.id.0).into(),
            tables: bridge.tables.clone(),
            macs: bridge.macs.clone(),
            ports: ports.iter().map(|(n, p)| (*n, Arc::new(port(*n, p)))).collect(),
            bundles: bundles.iter().map(|(n, p)| (p.bundle, Arc::new(bundle(*n, p)))).collect(),
            port_order: flood_order(&bridge.created),
            bundle_order: bridge.created.iter().map(|p| bridge.ports[&p.0].bundle).collect(),
            forward_bpdu: bridge.forward_bpdu,
            packet_in_on_miss: bridge.miss,
            frags: bridge.frags,
        })
    }

    /// As a bridge does after flow-mods: publishes what changed, tells what left.
    fn tables_changed(&mut self) {
        for b in &mut self.bridges {
            if let Some(t) = b.flows.take_changed() {
                b.tables.store(t);
                self.world.bump();
            }
        }
        self.sweeps.push_stats();
        for (i, b) in self.bridges.iter_mut().enumerate() {
            let mut removed: Vec<String> = b
                .flows
                .take_removed()
                .iter()
                .map(|r| {
                    let s = &r.rule.stats;
                    let (packets, bytes) =
                        (s.packets.load(Ordering::Relaxed), s.bytes.load(Ordering::Relaxed));
                    format!("bridge {i} removed {:#x} {:?} {packets} {bytes}", r.rule.cookie, r.reason)
                })
                .collect();
            removed.sort();
            self.out.extend(removed);
        }
    }

    /// The rule that `which` chooses, if there is any that users see.
    fn rule(&self, b: usize, which: usize) -> Option<Arc<Rule>> {
        let mut all: Vec<&Arc<Rule>> =
            self.bridges[b].flows.tables().iter().filter(|r| !r.is_hidden()).collect();
        all.sort_by_key(|r| (r.cookie, r.table_id, r.priority));
        Some((*all.get(which % all.len().max(1))?).clone())
    }

    fn flow_mod(&mut self, b: usize, fm: &FlowMod) {
        let now = self.now();
        // Overlaps are refused, for one.
        let _ = self.bridges[b].flows.apply(fm, Version::V13, now);
        self.tables_changed();
    }

    fn add_rule(&mut self, b: usize, rule: &NewRule) {
        self.next_cookie += 1;
        let mut fm = FlowMod {
            table_id: rule.table,
            match_: rule.matching,
            priority: rule.priority,
            new_cookie: self.next_cookie,
            idle_timeout: rule.idle,
            hard_timeout: rule.hard,
            flags: FlowFlags(rule.flags),
            actions: rule.actions.clone().into(),
            ..blank(FlowModCommand::Add)
        };
        if let Some(old) = rule.replaces.and_then(|which| self.rule(b, which)) {
            (fm.table_id, fm.priority) = (old.table_id, old.priority as u16);
            fm.match_ = old.matching.expand();
        }
        self.flow_mod(b, &fm);
    }

    fn about(&self, b: usize, which: usize, command: FlowModCommand) -> Option<FlowMod> {
        let r = self.rule(b, which)?;
        Some(FlowMod {
            table_id: r.table_id,
            match_: r.matching.expand(),
            priority: r.priority as u16,
            ..blank(command)
        })
    }

    fn port_mut(&mut self, b: usize, no: u16) -> Option<&mut Port> {
        self.bridges[b].ports.get_mut(&no)
    }

    /// Carries out what changes the switch; packets, sweeps and pauses are the caller's.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Add { bridge, rule } => self.add_rule(*bridge, rule),
            Op::Modify { bridge, which, strict, flags, actions } => {
                let command = if *strict { FlowModCommand::ModifyStrict } else { FlowModCommand::Modify };
                let Some(mut fm) = self.about(*bridge, *which, command) else { return };
                fm.actions = actions.clone().into();
                fm.flags = FlowFlags(*flags);
                self.flow_mod(*bridge, &fm);
            }
            Op::Delete { bridge, which, strict } => {
                let command = if *strict { FlowModCommand::DeleteStrict } else { FlowModCommand::Delete };
                let Some(fm) = self.about(*bridge, *which, command) else { return };
                self.flow_mod(*bridge, &fm);
            }
            Op::DeleteAll { bridge } => self.flow_mod(*bridge, &blank(FlowModCommand::Delete)),
            Op::Warp(ms) => {
                if let Some(c) = &self.clock {
                    c.fetch_add(*ms, Ordering::Relaxed);
                }
                self.sweeps.push_stats();
                let now = self.now();
                self.bridges.iter_mut().for_each(|b| b.flows.expire(now));
                self.tables_changed();
            }
            Op::Cores(mask) => self.dp.set_config(config(*mask, 1)).expect("cores"),
            Op::EmcProbability(p) => self.dp.set_config(config(3, *p)).expect("probability"),
            Op::DelPort { .. }
            | Op::AddPort { .. }
            | Op::Renumber { .. }
            | Op::Vlan { .. }
            | Op::Link { .. }
            | Op::PortConfig { .. } => self.apply_port(op),
            _ => self.apply_bridge(op),
        }
    }

    fn apply_port(&mut self, op: &Op) {
        match op {
            Op::DelPort { bridge, port } => self.del_port(*bridge, *port),
            Op::AddPort { bridge, port } => self.add_port(*bridge, *port),
            Op::Renumber { bridge, port, to } => {
                let Some(old) = self.port_mut(*bridge, *port).and_then(|p| p.dp_port) else { return };
                if self.dp.renumber_port(old, DpPort(*to)).is_ok() {
                    if let Some(p) = self.port_mut(*bridge, *port) {
                        p.dp_port = Some(DpPort(*to));
                    }
                    self.publish();
                }
            }
            Op::Vlan { bridge, port, vlans } => {
                let Some(p) = self.port_mut(*bridge, *port) else { return };
                p.vlans = vlans.clone();
                let bundle = p.bundle;
                self.bridges[*bridge].macs.flush_bundle(bundle);
                self.publish();
            }
            Op::Link { bridge, port, up } => {
                if let Some(dev) = self.port_mut(*bridge, *port).and_then(|p| p.dev.as_ref()) {
                    dev.set_link(*up);
                }
                self.publish();
            }
            Op::PortConfig { bridge, port, bits } => {
                if let Some(p) = self.port_mut(*bridge, *port) {
                    p.config = *bits;
                }
                self.publish();
            }
            other => unreachable!("{other:?} is no change of a port"),
        }
    }

    fn apply_bridge(&mut self, op: &Op) {
        match op {
            Op::Bridge { bridge, forward_bpdu, miss, frags } => {
                let b = &mut self.bridges[*bridge];
                (b.forward_bpdu, b.miss, b.frags) = (*forward_bpdu, *miss, *frags);
                self.publish();
            }
            Op::Flood { bridge, vlans } => {
                if self.bridges[*bridge].macs.set_flood_vlans(vlans.clone().map(VlanSet::new)) {
                    self.world.bump();
                }
            }
            Op::Aging { bridge, secs } => {
                if self.bridges[*bridge].macs.configure(*secs, 8192) {
                    self.world.bump();
                }
            }
            Op::MacFlush { bridge } => {
                if self.bridges[*bridge].macs.flush() {
                    self.world.bump();
                }
            }
            Op::MacStatic { bridge, vlan, last, port, add } => {
                let key = MacKey { vlan: *vlan, mac: [2, 0, 0, 0, 0, *last] };
                let Some(bundle) = self.port_mut(*bridge, *port).map(|p| p.bundle) else { return };
                let (macs, now) = (&self.bridges[*bridge].macs, self.now());
                if *add {
                    macs.add_static(key, bundle, now);
                } else {
                    macs.del_static(key);
                }
                self.world.bump();
            }
            Op::PacketOut { bridge, port, spec, actions } => {
                let frame = spec.frame();
                let (flow, _) = extract_flow(&frame, &PktMetadata::new(0));
                let (id, in_port) = (self.bridges[*bridge].id, OfPort(*port));
                let (packet, now) = (Packet::from_slice(&frame), self.now());
                packet_in::packet_out(
                    &self.world,
                    self.dp.as_ref(),
                    id,
                    in_port,
                    packet,
                    flow,
                    (actions, now),
                );
                self.io();
            }
            other => unreachable!("{other:?} is not for a bridge"),
        }
    }

    /// Frames into a port.
    pub fn send(&mut self, b: usize, port: u16, spec: &Spec, times: usize) {
        if let Some(dev) = self.bridges[b].ports.get(&port).and_then(|p| p.dev.as_ref()) {
            let frame = spec.frame();
            (0..times).for_each(|_| dev.push(0, &frame));
        }
        self.io();
    }

    /// Runs the datapath's loops until they have nothing to do, and handles what comes up.
    pub fn io(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let n = self.dp.step() + self.packets_up();
            quiet = if n == 0 { quiet + 1 } else { 0 };
        }
        self.collect();
    }

    /// Handles what came up; gives the number of packets.
    pub fn packets_up(&mut self) -> usize {
        let mut ups = Vec::new();
        let n = self.dp.drain_userspace(1024, &mut |p| ups.push(p));
        for up in ups {
            let now = self.now();
            if let FromDatapath::PacketIn(p) = packet_in::handle(&self.world, self.dp.as_ref(), up, now) {
                self.out.push(format!(
                    "packet-in bridge {} port {} table {} cookie {:#x} {:?} controller {} {} {:x?}",
                    p.bridge.0,
                    p.in_port,
                    p.table_id,
                    p.cookie,
                    p.reason,
                    p.controller_id,
                    hex(p.packet.data()),
                    p.metadata.regs
                ));
            }
        }
        n
    }

    /// Takes what was sent.
    pub fn collect(&mut self) {
        for (i, b) in self.bridges.iter().enumerate() {
            for (no, p) in &b.ports {
                let frames = p.dev.as_ref().map(|d| d.take()).unwrap_or_default();
                self.out.extend(frames.iter().map(|f| format!("bridge {i} port {no}: {}", hex(f))));
            }
        }
    }

    /// Sweeps until nothing is left to do; gives the number of sweeps.
    pub fn settle(&mut self) -> usize {
        for n in 1..50 {
            let seq = self.world.seq();
            let now = self.now();
            let report = self.sweeps.own().sweep(now, &mut || 1);
            self.io();
            if self.world.seq() == seq && report.expired + report.deleted == 0 {
                return n;
            }
        }
        panic!("sweeps never come to an end");
    }

    pub fn totals(&self) -> PmdStats {
        self.dp.total_stats()
    }

    /// Counters. Those of flows are pushed before.
    pub fn state(&self) -> State {
        self.sweeps.push_stats();
        let mut s = State::default();
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        for (i, b) in self.bridges.iter().enumerate() {
            for r in b.flows.tables().iter() {
                let key = (i, r.table_id, if r.is_hidden() { r.priority as u64 } else { r.cookie });
                let c = (get(&r.stats.packets), get(&r.stats.bytes), get(&r.stats.used_ms));
                if !r.is_hidden() {
                    s.rules.insert(key, c);
                }
            }
            for t in (0..N_TABLES as u8).chain([254]) {
                let stats = &b.flows.tables().table(t).stats;
                s.tables.insert((i, t), (get(&stats.matched), get(&stats.missed)));
            }
            for (no, p) in &b.ports {
                let c = &p.counters;
                let mut counts = [&c.rx_packets, &c.rx_bytes, &c.tx_packets, &c.tx_bytes].map(get);
                if let Some(d) = &p.dev {
                    let d = d.stats();
                    counts = [d.rx_packets, d.rx_bytes, d.tx_packets, d.tx_bytes];
                }
                s.ports.insert((i, *no), counts);
            }
            for m in b.macs.list(self.now()) {
                s.macs.insert((i, (m.key.vlan, m.key.mac)), (m.bundle.0, m.age_secs));
            }
        }
        let t = self.totals();
        s.totals = vec![
            ("received", t.received),
            ("sent", t.sent),
            ("executed", t.executed),
            ("copies", t.copies),
            ("recirculated", t.recirculated),
            ("userspace", t.userspace),
        ];
        s.totals.extend(datapath::Drop::ALL.iter().map(|d| (d.name(), t.dropped(*d))));
        s
    }

    /// What is left over: megaflows, ukeys, recirculation ids.
    pub fn leftovers(&self) -> (usize, usize, usize) {
        (self.dp.flow_count(), self.sweeps.flows().len(), self.world.recirc().len())
    }

    /// Applies the revalidator's settings.
    pub fn revalidation(&self, max_idle_ms: u64, flow_limit: usize) {
        let c = RevalidateConfig { max_idle_ms, flow_limit, ..RevalidateConfig::default() };
        self.sweeps.own().set_config(c);
    }
}

fn config(mask: u64, emc_insert_inv_prob: u32) -> DpConfig {
    let cores = (0..CORES).filter(|c| mask >> c & 1 != 0).map(CoreId).collect();
    DpConfig { pmd_cores: Some(cores), emc_insert_inv_prob, ..DpConfig::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn blank(command: FlowModCommand) -> FlowMod {
    FlowMod {
        command,
        table_id: TABLE_ALL,
        match_: flow::Match::any(),
        priority: 0,
        cookie: 0,
        cookie_mask: 0,
        new_cookie: 0,
        modify_cookie: false,
        idle_timeout: 0,
        hard_timeout: 0,
        flags: FlowFlags::default(),
        buffer_id: NO_BUFFER,
        out_port: OfPort::NONE,
        out_group: GROUP_ANY,
        importance: 0,
        actions: Box::default(),
    }
}

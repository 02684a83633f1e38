//! The switch's configuration loop: makes the state in effect follow the database.
//!
//! Neighbours: `wanted` (input), `state` (what is), `ports` (adding and removing), `publish` (to translation),
//! `status` (to the database), `host` (what bridges ask for). Threads: main only.

use crate::backer::Backer;
use crate::class::DatapathClass;
use crate::coverage;
use crate::host::HostShared;
use crate::ports::Opener;
use crate::settings::dp_config;
use crate::state::{Bridge, Bundle};
use crate::status::{ControllerStatus, StatusWriter};
use crate::wanted::{Wanted, WantedBridge, WantedController, WantedSsl};
use datapath::{Datapath, DpOptions, Implementations, PerfLog, ThreadHook};
use infra::coverage::Counter;
use netdev::Factory;
use ofproto::conn::{ConnId, ConnKind};
use ofproto::ofproto::Ofproto;
use ofproto::slowpath::SlowPath;
use ofproto::{BridgeId, BundleId, MacLearning, Published, Tables, World};
use ovsdb::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::Arc;

pub(crate) static LOG: infra::vlog::Module = infra::vlog::Module::new("bridge");

/// How often link states are read and tables aged.
const POLL_MS: i64 = 1000;
/// Least time between two readings, however often links change.
const LINK_MS: i64 = 20;
/// Packets for controllers handled in one turn.
const MAX_PACKET_INS: usize = 256;

/// The library behind DPDK ports, started from the database.
pub trait DeviceLibrary {
    /// Starts it once, when `other_config:dpdk-init` says so; reads what may change later.
    fn configure(&mut self, other_config: &BTreeMap<String, String>);
    /// Whether it runs.
    fn initialized(&self) -> bool;
    /// Name and version, as `dpdk_version` in the database.
    fn version(&self) -> String;
}

/// What the daemon gives the switch.
pub struct Deps {
    /// Database remote, as `unix:/var/run/openvswitch/db.sock`.
    pub remote: String,
    /// Device types.
    pub factories: Vec<Arc<dyn Factory>>,
    /// DPDK.
    pub library: Box<dyn DeviceLibrary>,
    /// Runs on each new datapath thread.
    pub thread_start: Option<ThreadHook>,
    /// Types of datapath.
    pub classes: Vec<DatapathClass>,
    /// The machine's cores.
    pub topology: infra::cpu::Topology,
}

/// The switch.
pub struct Manager {
    pub(crate) client: Client,
    library: Box<dyn DeviceLibrary>,
    pub(crate) opener: Opener,
    thread_start: Option<ThreadHook>,
    pub(crate) classes: Vec<DatapathClass>,
    topology: infra::cpu::Topology,
    pub(crate) bridges: BTreeMap<String, Bridge>,
    pub(crate) shared: HostShared,
    /// Counts configurations.
    config_seq: u64,
    ssl: Option<WantedSsl>,
    /// How connections to controllers are, as the daemon reports it.
    pub(crate) controllers: BTreeMap<ovsdb::Uuid, ControllerStatus>,
    /// Bridges whose connections `bridge/reconnect` wants made anew.
    pub(crate) reconnect: Vec<String>,
    /// What `dpif/set-dp-features` set.
    pub(crate) features: crate::features::Features,
    status: StatusWriter,
    seen: u64,
    next_cfg: i64,
    other_config: BTreeMap<String, String>,
    /// `other_config:flow-restore-wait`, from the start of the daemon until it was once not `true`.
    restoring: bool,
    rejected: Vec<(ovsdb::Uuid, String)>,
    next_id: u32,
    poll_at: i64,
    polled_at: i64,
    ready: bool,
    /// What `ovs-appctl` chose.
    pub(crate) implementations: Implementations,
    pub(crate) perf_log: PerfLog,
    lock_complained: bool,
    /// To look for devices; none when the process has no socket left.
    links: Option<infra::linux::DeviceControl>,
    /// Tells of changed links at once; without it they show at the next poll.
    link_events: Option<File>,
}

impl Manager {
    /// A switch without bridges.
    pub fn new(deps: Deps) -> Manager {
        Manager {
            client: Client::new(crate::schema::client_config(&deps.remote)),
            library: deps.library,
            opener: Opener::new(deps.factories),
            thread_start: deps.thread_start,
            classes: deps.classes,
            topology: deps.topology,
            bridges: BTreeMap::new(),
            shared: HostShared::default(),
            config_seq: 0,
            ssl: None,
            controllers: BTreeMap::new(),
            reconnect: Vec::new(),
            features: Default::default(),
            status: StatusWriter::default(),
            seen: 0,
            next_cfg: 0,
            other_config: BTreeMap::new(),
            restoring: true,
            rejected: Vec::new(),
            next_id: 1,
            poll_at: 0,
            polled_at: 0,
            ready: false,
            implementations: Implementations::default(),
            perf_log: PerfLog::default(),
            lock_complained: false,
            links: infra::linux::DeviceControl::open().ok(),
            link_events: infra::linux::open_link_events().ok().map(File::from),
        }
    }

    /// The database client, whose socket the daemon owns.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Names of the bridges in effect.
    pub fn bridge_names(&self) -> impl Iterator<Item = &str> {
        self.bridges.keys().map(String::as_str)
    }

    /// Whether the first configuration is in effect.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Changes with each configuration: bridges, controllers and keys may be others.
    pub fn config_seq(&self) -> u64 {
        self.config_seq
    }

    /// Keys and certificates of the database.
    pub fn ssl(&self) -> Option<&WantedSsl> {
        self.ssl.as_ref()
    }

    /// Controllers by bridge. While tables are restored there are none.
    pub fn wanted_controllers(&self) -> impl Iterator<Item = (&str, &WantedController)> {
        let bridges = self.bridges.iter().filter(|_| !self.restoring);
        bridges.flat_map(|(name, b)| b.wanted.controllers.iter().map(move |c| (name.as_str(), c)))
    }

    /// How the connection to a controller is; none forgets it.
    pub fn report_controller(&mut self, row: ovsdb::Uuid, status: Option<ControllerStatus>) {
        let before = self.controllers.get(&row).map(|s| (s.connected, s.role));
        let after = status.as_ref().map(|s| (s.connected, s.role));
        match status {
            Some(status) => self.controllers.insert(row, status),
            None => self.controllers.remove(&row),
        };
        if before != after {
            self.status.refresh_soon();
        }
    }

    /// Makes a bridge a learning switch while its controllers are away, or ends that.
    pub fn set_fail_open(&mut self, bridge: &str, open: bool) {
        let Some(b) = self.bridges.get_mut(bridge) else { return };
        match open {
            true => b.of.fail_open(infra::clock::now_ms().max(0) as u64),
            false => b.of.fail_open_ends(),
        }
        b.of.settle(&mut self.shared);
    }

    /// Whether controllers that are away leave a bridge without forwarding.
    pub fn is_secure(&self, bridge: &str) -> bool {
        self.bridges.get(bridge).is_none_or(|b| b.wanted.secure)
    }

    /// Bridges that `bridge/reconnect` named since the last call.
    pub fn take_reconnects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reconnect)
    }

    /// Opens an OpenFlow connection to `bridge`.
    pub fn connect(&mut self, bridge: &str, kind: ConnKind) -> Option<ConnId> {
        Some(self.bridges.get_mut(bridge)?.of.connect(kind))
    }

    /// Bytes from an OpenFlow peer.
    pub fn input(&mut self, bridge: &str, conn: ConnId, bytes: &[u8]) {
        let Some(b) = self.bridges.get_mut(bridge) else { return };
        let before = (b.of.wants_misses(), b.of.config.frag);
        b.of.input(conn, bytes, &mut self.shared);
        let changed = before != (b.of.wants_misses(), b.of.config.frag);
        if std::mem::take(&mut self.shared.ports_changed) || changed {
            self.publish();
        }
    }

    /// One connection, to look at.
    pub fn conn(&self, bridge: &str, conn: ConnId) -> Option<&ofproto::conn::Conn> {
        self.bridges.get(bridge)?.of.conns().find(|c| c.id() == conn)
    }

    /// One connection.
    pub fn conn_mut(&mut self, bridge: &str, conn: ConnId) -> Option<&mut ofproto::conn::Conn> {
        self.bridges.get_mut(bridge)?.of.conn_mut(conn)
    }

    /// The daemon closed a connection.
    pub fn disconnect(&mut self, bridge: &str, conn: ConnId) {
        let Some(b) = self.bridges.get_mut(bridge) else { return };
        let missed = b.of.wants_misses();
        b.of.disconnect(conn);
        if missed != b.of.wants_misses() {
            self.publish();
        }
    }

    /// One turn of the main loop.
    pub fn run(&mut self, now_ms: i64) {
        if self.links_changed() {
            self.poll_at = self.polled_at + LINK_MS;
        }
        if now_ms >= self.poll_at {
            self.polled_at = now_ms;
            self.poll_at = now_ms + POLL_MS;
            self.poll_devices();
        }
        self.follow_database(now_ms);
        for b in self.bridges.values_mut() {
            b.of.run(&mut self.shared);
        }
        self.packet_ins();
        if self.client.has_lock() {
            let ctx = crate::status::Context {
                bridges: &self.bridges,
                library: self.library.as_ref(),
                opener: &self.opener,
                classes: &self.classes,
                rejected: &self.rejected,
                controllers: &self.controllers,
                next_cfg: self.next_cfg,
                interval_ms: self.stats_interval(),
            };
            if self.ready {
                self.status.run(&mut self.client, &ctx, now_ms);
            }
        }
    }

    /// When [`Manager::run`] is due, and what wakes it.
    pub fn wait(&mut self, poller: &mut infra::poll::Poller) {
        poller.timer_until(self.poll_at);
        if let Some(events) = &self.link_events {
            poller.fd_in(events.as_raw_fd());
        }
        if let Some(d) = self.client.deadline() {
            poller.timer_until(d);
        }
        for b in self.bridges.values() {
            if let Some(d) = b.of.deadline_ms() {
                poller.timer_until(i64::try_from(d).unwrap_or(i64::MAX));
            }
        }
        if self.ready {
            poller.timer_until(self.status.deadline());
        }
        self.shared.backers.iter().for_each(|b| b.slow.wait(poller));
    }

    fn stats_interval(&self) -> i64 {
        self.other_config
            .get("stats-update-interval")
            .and_then(|v| v.parse::<i64>().ok())
            .unwrap_or(5000)
            .max(5000)
    }

    fn follow_database(&mut self, now_ms: i64) {
        for (id, outcome) in self.client.take_outcomes() {
            self.status.outcome(id, outcome, now_ms);
        }
        if self.client.is_lock_contended() {
            if !self.lock_complained {
                self.lock_complained = true;
                infra::vlog!(
                    LOG,
                    Err,
                    "another ovs-vswitchd process is running, disabling this process (pid {}) until it goes away",
                    std::process::id()
                );
            }
            return;
        }
        self.lock_complained = false;
        if !self.client.is_synced() || !self.client.has_lock() || self.client.seqno() == self.seen {
            return;
        }
        self.seen = self.client.seqno();
        let held = self
            .bridges
            .iter()
            .flat_map(|(name, b)| b.interfaces.keys().map(move |i| (i.clone(), name.clone())));
        let Some(wanted) = Wanted::read(self.client.replica(), &held.collect()) else { return };
        self.reconfigure(wanted);
        self.ready = true;
        self.status.configured(now_ms);
    }

    /// True while OpenFlow tables are being restored after a start (`other_config:flow-restore-wait`): packets wait
    /// for the tables, and controllers are not to be connected.
    pub fn is_restoring(&self) -> bool {
        self.restoring
    }

    /// Makes `wanted` the state in effect.
    pub fn reconfigure(&mut self, wanted: Wanted) {
        coverage::RECONFIGURED.inc();
        self.next_cfg = wanted.next_cfg;
        self.config_seq += 1;
        self.ssl = wanted.ssl;
        self.rejected = wanted.rejected;
        self.library.configure(&wanted.other_config);
        self.other_config = wanted.other_config;
        self.restoring &= self.other_config.get("flow-restore-wait").is_some_and(|v| v == "true");
        self.configure_datapaths();
        self.remove_stale(&wanted.bridges);
        for (name, w) in wanted.bridges {
            if self.bridges.contains_key(&name) || self.create_bridge(&name, &w) {
                self.update_bridge(&name, w);
            }
        }
        for b in self.bridges.values_mut() {
            crate::ports::pick_identity(b);
            crate::ports::follow_mtu(b);
        }
        crate::ports::check_patch_peers(&mut self.bridges);
        self.publish();
        let mut gone = false;
        for b in self.bridges.values_mut() {
            gone |= crate::ports::start(b);
        }
        if gone {
            self.publish();
        }
    }

    fn publish(&self) {
        self.publish_for(&coverage::RECONFIGURE);
    }

    fn publish_for(&self, why: &Counter) {
        for b in self.shared.backers.iter() {
            why.inc();
            b.world.publish(crate::publish::snapshot(&self.bridges, b));
        }
    }

    fn configure_datapaths(&mut self) {
        for b in self.shared.backers.iter() {
            if let Err(e) = b.datapath.set_config(dp_config(&self.other_config)) {
                let name = b.datapath.name();
                infra::vlog!(LOG, Err, "{name}: cannot apply the datapath's configuration: {e}");
            }
            b.slow.configure(&self.other_config);
            b.slow.set_restoring(self.restoring);
        }
    }

    /// The datapath of a type, made when the first bridge needs it.
    fn ensure_backer(&mut self, class: DatapathClass) -> Result<Arc<Backer>, String> {
        if let Some(b) = self.shared.backers.of_type(class.name) {
            return Ok(b.clone());
        }
        let world = Arc::new(World::new());
        let slow = SlowPath::new(world.clone());
        slow.configure(&self.other_config);
        slow.set_restoring(self.restoring);
        let options = DpOptions {
            thread_start: self.thread_start.clone(),
            topology: self.topology.clone(),
            ..DpOptions::default()
        };
        let name = format!("ovs-{}", class.name);
        let dp = Datapath::new(&name, slow.upcall(), options).map_err(|e| e.to_string())?;
        dp.set_config(dp_config(&self.other_config)).map_err(|e| e.to_string())?;
        dp.set_perf_log(self.perf_log);
        // The datapath's own local port is number 0, as in every datapath.
        let local = self
            .opener
            .open(&name, class.device_kind("internal"), &netdev::Config::default())
            .map_err(|e| e.to_string())?;
        dp.add_port(local, Some(flow::DpPort(0))).map_err(|e| e.to_string())?;
        slow.start(dp.clone()).map_err(|e| e.to_string())?;
        let backer = Arc::new(Backer { class, world, datapath: dp, slow });
        self.shared.backers.add(backer.clone());
        Ok(backer)
    }

    fn remove_stale(&mut self, wanted: &BTreeMap<String, WantedBridge>) {
        let gone: Vec<String> = self
            .bridges
            .iter()
            .filter(|(n, b)| wanted.get(*n).is_none_or(|w| w.datapath_type != b.wanted.datapath_type))
            .map(|(n, _)| n.clone())
            .collect();
        for name in gone {
            self.destroy_bridge(&name);
        }
        for (name, b) in &mut self.bridges {
            let Some(w) = wanted.get(name) else { continue };
            let keep: BTreeMap<&str, &crate::wanted::WantedInterface> =
                w.ports.iter().flat_map(|p| &p.interfaces).map(|i| (i.name.as_str(), i)).collect();
            let stale: Vec<String> = b
                .interfaces
                .iter()
                .filter(|(n, i)| {
                    // A failed interface is tried again; one of another kind is made anew.
                    keep.get(n.as_str()).is_none_or(|k| k.kind != i.wanted.kind || i.ofport.is_none())
                })
                .map(|(n, _)| n.clone())
                .collect();
            for s in stale {
                crate::ports::remove(b, &s);
            }
            let names: BTreeSet<&str> = w.ports.iter().map(|p| p.name.as_str()).collect();
            b.bundles.retain(|n, bundle| {
                let stays = names.contains(n.as_str());
                if !stays {
                    b.macs.retire_bundle(bundle.id);
                }
                stays
            });
        }
    }

    /// Takes a bridge with all its ports away.
    fn destroy_bridge(&mut self, name: &str) {
        let Some(mut b) = self.bridges.remove(name) else { return };
        let all: Vec<String> = b.interfaces.keys().cloned().collect();
        for i in all {
            crate::ports::remove(&mut b, &i);
        }
        self.shared.forget(name);
        let used = |kind: &str| self.bridges.values().any(|b| b.backer.class.name == kind);
        for backer in self.shared.backers.retain(used) {
            coverage::DESTROYED.inc();
            backer.stop();
        }
    }

    /// Removes everything: taps, datapath, threads. For the end of the process.
    pub fn shutdown(&mut self) {
        let all: Vec<String> = self.bridges.keys().cloned().collect();
        for b in all {
            self.destroy_bridge(&b);
        }
    }

    fn create_bridge(&mut self, name: &str, w: &WantedBridge) -> bool {
        let Some(class) = self.class(&w.datapath_type) else {
            infra::vlog!(
                LOG,
                Err,
                "failed to create bridge {name}: datapath type \"{}\" needs a kernel datapath, which is not available; \
                 set datapath_type=netdev",
                w.datapath_type
            );
            return false;
        };
        let backer = match self.ensure_backer(class) {
            Ok(b) => b,
            Err(e) => {
                infra::vlog!(LOG, Err, "failed to create bridge {name}: {e}");
                return false;
            }
        };
        let id = BridgeId(self.new_id());
        let mut of = Ofproto::new(name, w.datapath_id.unwrap_or(0));
        if w.is_standalone() {
            of.add_default_rule(infra::clock::now_ms().max(0) as u64);
        }
        let tables = Published::new(Tables::default());
        self.shared.remember(name, id, tables.clone(), backer.clone());
        of.settle(&mut self.shared);
        let bridge = Bridge {
            id,
            backer,
            wanted: WantedBridge { ports: Vec::new(), ..w.clone() },
            of,
            tables,
            macs: Arc::new(MacLearning::new()),
            bundles: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        };
        self.bridges.insert(name.into(), bridge);
        true
    }

    fn class(&self, name: &str) -> Option<DatapathClass> {
        self.classes.iter().find(|c| c.name == name).copied()
    }

    /// The clock was stopped or moved: threads that wait for a time look again.
    pub fn clock_moved(&self) {
        self.shared.backers.iter().for_each(|b| b.slow.clock_moved());
    }

    /// Something about devices changed: they are looked at in the next turn.
    pub fn devices_changed(&mut self) {
        self.poll_at = 0;
    }

    /// `dpif-dummy/change-port-number`: gives a port of a dummy datapath another number there.
    pub fn change_port_number(&mut self, datapath: &str, port: &str, number: &str) -> infra::command::Reply {
        let backer = self.shared.backers.called(datapath).filter(|b| b.class.dummy).cloned();
        let backer = backer.ok_or("unknown datapath or not a dummy")?;
        let dp = &backer.datapath;
        let ports = dp.ports();
        let old = ports.iter().find(|p| p.netdev.name() == port).ok_or("unknown port")?.no;
        let new = number.parse::<u16>().ok().filter(|n| *n > 0).ok_or("bad port number")?;
        let new = flow::DpPort(new.into());
        dp.renumber_port(old, new).map_err(|e| match e {
            datapath::DpError::PortInUse(_) => "port number already in use".to_string(),
            e => e.to_string(),
        })?;
        for b in self.bridges.values_mut().filter(|b| Arc::ptr_eq(&b.backer, &backer)) {
            crate::ports::renumbered(b, old, new);
        }
        self.publish();
        Ok(String::new())
    }

    fn new_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn update_bridge(&mut self, name: &str, w: WantedBridge) {
        let ids: Vec<u32> = w.ports.iter().map(|_| self.new_id()).collect();
        let Some(b) = self.bridges.get_mut(name) else { return };
        if (w.secure, w.has_primary()) != (b.wanted.secure, b.wanted.has_primary()) {
            b.of.flush_rules();
            if w.is_standalone() {
                b.of.add_default_rule(infra::clock::now_ms().max(0) as u64);
            }
            b.of.settle(&mut self.shared);
        }
        b.of.protocols = w.protocols;
        if let Some(d) = &w.dp_desc {
            b.of.identity.dp_desc = d.clone();
        }
        if let Some(s) = &w.dp_sn {
            b.of.identity.serial = s.clone();
        }
        let aged = b.macs.configure(w.mac_aging_secs, w.mac_table_size);
        let flooded = b.macs.set_flood_vlans(w.flood_vlans.clone());
        if aged || flooded {
            b.backer.world.macs_changed();
        }
        // Requested numbers first, so that nobody else takes them.
        let mut order: Vec<&crate::wanted::WantedInterface> =
            w.ports.iter().flat_map(|p| &p.interfaces).collect();
        order.sort_by_key(|i| (i.ofport_request.is_none(), i.ofport_hint.is_none()));
        let mut changed = false;
        for i in order {
            changed |= crate::ports::ensure(b, i, &self.opener);
        }
        if changed {
            b.of.refresh_ports();
        }
        for (p, id) in w.ports.iter().zip(ids) {
            match b.bundles.get_mut(&p.name) {
                Some(old) => {
                    // What was learned belongs to VLANs that the port may not be in any more.
                    if !old.wanted.same_vlans(p) {
                        b.macs.flush_bundle(old.id);
                    }
                    old.wanted = p.clone();
                }
                None => {
                    b.bundles.insert(p.name.clone(), Bundle { id: BundleId(id), wanted: p.clone() });
                }
            }
        }
        b.wanted = w;
    }

    fn packet_ins(&mut self) {
        let bridges = &mut self.bridges;
        for backer in self.shared.backers.iter() {
            backer.slow.packet_ins(MAX_PACKET_INS, &mut |event| {
                if let Some(b) = bridges.values_mut().find(|b| b.id == event.bridge) {
                    b.of.send_packet_in(&event.as_event());
                }
            });
        }
    }

    /// Whether the kernel told of a changed link since the last call.
    fn links_changed(&self) -> bool {
        let Some(mut events) = self.link_events.as_ref() else { return false };
        let (mut changed, mut buffer) = (false, [0; 4096]);
        // A flood of events is read on in the next turn.
        for _ in 0..64 {
            match events.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // An error says that events were lost: something changed.
                _ => {
                    coverage::LINK_CHANGED.inc();
                    changed = true;
                }
            }
        }
        changed
    }

    /// Link states, MAC ages.
    fn poll_devices(&mut self) {
        let mut changed = false;
        let now = infra::clock::now_ms().max(0) as u64;
        for b in self.bridges.values_mut() {
            changed |= b.of.refresh_ports();
            changed |= crate::ports::follow_mtu(b);
            if b.macs.expire(now) {
                b.backer.world.macs_changed();
            }
        }
        if changed {
            self.publish_for(&coverage::PORT_TOGGLED);
            self.status.refresh_soon();
        }
        for dp in crate::show_pmd::datapaths(self) {
            dp.run();
        }
        self.look_for_devices();
    }

    /// Has the configuration applied again when a device that was missing is there now.
    fn look_for_devices(&mut self) {
        let Some(links) = &self.links else { return };
        let was_missing = |i: &crate::state::Interface| {
            i.ofport.is_none() && i.error.as_ref().is_some_and(|e| e.ends_with("(No such device)"))
        };
        let mut interfaces = self.bridges.values().flat_map(|b| b.interfaces.values());
        if interfaces.any(|i| was_missing(i) && links.index(&i.wanted.name).is_ok()) {
            self.seen = 0;
        }
    }
}

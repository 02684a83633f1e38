//! The switch as the main loop sees it: database, bridges and OpenFlow sockets,
//! with one run and one wait for all of them. Main thread.

use crate::cli::Options;
use crate::controllers::{self, Controllers};
use crate::db::{self, DbSocket};
use crate::devices;
use crate::dummy::Dummies;
use crate::ofservice::{ConnectionId, Door, OpenFlowSockets, Service};
use crate::stream::DSCP;
use crate::tls;
use bridge::{Deps, Manager};
use infra::cpu::Topology;
use infra::info;
use infra::poll::Poller;
use infra::vlog::Module;
use netdev::{Factory, LinuxFactory};
use ofproto::conn::{ConnId, ConnKind};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

static LOG: Module = Module::new("bridge");

/// How often DPDK's housekeeping runs, milliseconds.
const LIBRARY_MS: i64 = 500;

/// Everything that is configured by the database.
pub struct Switch {
    manager: Manager,
    linux: Arc<LinuxFactory>,
    dummies: Option<Dummies>,
    socket: DbSocket,
    openflow: OpenFlowSockets,
    controllers: Controllers,
    /// The configuration whose keys are in effect.
    followed: u64,
    /// Files of the command line, which those of the database replace.
    tls: tls::Files,
    connections: HashMap<ConnectionId, (String, ConnId)>,
    nothing: VecDeque<u8>,
    library_at: i64,
}

impl Switch {
    /// A switch that will connect to the database.
    pub fn new(options: &Options, topology: Topology) -> std::io::Result<Self> {
        let linux = Arc::new(LinuxFactory::new());
        let dummies = options.dummy.map(Dummies::new).transpose()?;
        // Dummies stand in for the others, so they are asked first.
        let mut factories: Vec<Arc<dyn Factory>> = Vec::new();
        factories.extend(dummies.iter().map(Dummies::factory));
        factories.push(linux.clone());
        factories.push(Arc::new(dpdk::DpdkFactory));
        let deps = Deps {
            remote: db::remotes(&options.database).swap_remove(0),
            factories,
            library: Box::new(devices::Dpdk),
            thread_start: Some(devices::thread_hook()),
            classes: crate::dummy::datapath_classes(options),
            topology,
        };
        let tls = tls::Files::from(&options.tls);
        tls::configure(tls.clone());
        let mut manager = Manager::new(deps);
        let socket = DbSocket::new(&options.database, manager.client());
        Ok(Switch {
            manager,
            linux,
            dummies,
            socket,
            openflow: OpenFlowSockets::new(),
            controllers: Controllers::default(),
            followed: 0,
            tls,
            connections: HashMap::new(),
            nothing: VecDeque::new(),
            library_at: 0,
        })
    }

    /// Dummy devices, with `--enable-dummy`.
    pub fn dummies(&mut self) -> Option<&mut Dummies> {
        self.dummies.as_mut()
    }

    /// The bridges, for commands.
    pub fn manager(&mut self) -> &mut Manager {
        &mut self.manager
    }

    /// Does what is due.
    pub fn run(&mut self, now: i64) {
        let ready = self.manager.is_ready();
        self.socket.run(self.manager.client(), now);
        if dpdk::is_initialized() && now >= self.library_at {
            self.library_at = now + LIBRARY_MS;
            dpdk::run();
        }
        if let Some(d) = &mut self.dummies {
            d.run(now);
        }
        self.manager.run(now);
        if !ready && self.manager.is_ready() {
            info!(LOG, "{}", crate::version_line());
        }
        self.serve(now);
        // What a reconfiguration wrote for the database goes out in the same turn.
        self.socket.run(self.manager.client(), now);
    }

    /// Keys and certificates of the database take the place of those of the command line.
    fn follow_keys(&mut self) {
        if self.followed == self.manager.config_seq() {
            return;
        }
        self.followed = self.manager.config_seq();
        let of_database = self.manager.ssl().map(|s| tls::Files {
            private_key: Some(s.private_key.clone().into()),
            certificate: Some(s.certificate.clone().into()),
            ca_cert: Some(s.ca_cert.clone().into()),
            bootstrap: s.bootstrap,
            peer_ca_cert: self.tls.peer_ca_cert.clone(),
        });
        tls::configure(of_database.unwrap_or_else(|| self.tls.clone()));
    }

    /// Moves the bytes of OpenFlow connections.
    fn serve(&mut self, now: i64) {
        self.follow_keys();
        self.controllers.run(&mut self.manager, now);
        let passive = self.manager.wanted_controllers().filter(|(_, c)| !controllers::is_active(&c.target));
        let targets = passive.map(|(bridge, c)| Door {
            bridge: bridge.into(),
            target: Some(c.target.clone()),
            dscp: c.dscp.unwrap_or(DSCP),
        });
        let doors: Vec<Door> = self.manager.bridge_names().map(Door::management).chain(targets).collect();
        let mut side = OpenFlowSide {
            manager: &mut self.manager,
            connections: &mut self.connections,
            nothing: &mut self.nothing,
        };
        self.openflow.reconcile(doors, &mut side, now);
        self.openflow.run(&mut side, now);
    }

    /// Registers what it waits for.
    pub fn wait(&mut self, poller: &mut Poller) {
        self.socket.wait(self.manager.client(), poller);
        self.manager.wait(poller);
        if let Some(d) = &self.dummies {
            d.wait(poller);
        }
        if dpdk::is_initialized() {
            poller.timer_until(self.library_at);
        }
        let mut side = OpenFlowSide {
            manager: &mut self.manager,
            connections: &mut self.connections,
            nothing: &mut self.nothing,
        };
        self.openflow.wait(&mut side, poller);
        self.controllers.wait(&mut self.manager, poller);
    }

    /// True once the first configuration is in effect.
    pub fn is_ready(&self) -> bool {
        self.manager.is_ready()
    }

    /// Adds what the parts keep in memory, by name, for `memory/show`.
    pub fn memory(&mut self, usage: &mut Vec<(String, usize)>) {
        usage.extend(self.manager.memory());
        usage.push(("idl-cells-Open_vSwitch".into(), self.manager.client().replica().cells()));
        usage.push(("ofconns".into(), self.openflow.connections() + self.controllers.connections()));
    }

    /// Takes the switch down. Tap devices stay, with their addresses, for the next daemon to take over, unless
    /// `cleanup` is asked for; the userspace datapath itself goes with its process in either case.
    pub fn exit(&mut self, cleanup: bool) {
        if !cleanup {
            self.linux.keep_devices();
        }
        self.manager.shutdown();
        dpdk::cleanup();
    }
}

/// What the sockets call while the switch lends its parts.
struct OpenFlowSide<'a> {
    manager: &'a mut Manager,
    connections: &'a mut HashMap<ConnectionId, (String, ConnId)>,
    nothing: &'a mut VecDeque<u8>,
}

impl Service for OpenFlowSide<'_> {
    fn opened(&mut self, id: ConnectionId, bridge: &str, target: Option<&str>, _now: i64) -> bool {
        let kind = match target {
            None => ConnKind::Service { name: format!("unix#{}", id.0) },
            Some(target) => {
                let name = format!("{target}#{}", id.0);
                let mut all = self.manager.wanted_controllers();
                match all.any(|(b, c)| b == bridge && c.target == target && c.primary) {
                    true => ConnKind::Primary { name },
                    false => ConnKind::Service { name },
                }
            }
        };
        let Some(conn) = self.manager.connect(bridge, kind) else { return false };
        self.connections.insert(id, (bridge.to_string(), conn));
        true
    }

    fn input(&mut self, id: ConnectionId, bytes: &[u8], _now: i64) {
        if let Some((bridge, conn)) = self.connections.get(&id) {
            self.manager.input(bridge, *conn, bytes);
        }
    }

    fn has_input(&self, id: ConnectionId) -> bool {
        let Some((bridge, conn)) = self.connections.get(&id) else { return false };
        self.manager.conn(bridge, *conn).is_some_and(|c| c.has_input())
    }

    fn output(&mut self, id: ConnectionId) -> &mut VecDeque<u8> {
        let Some((bridge, conn)) = self.connections.get(&id) else { return self.nothing };
        match self.manager.conn_mut(bridge, *conn) {
            Some(c) => c.output(),
            None => self.nothing,
        }
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        let Some((bridge, conn)) = self.connections.get(&id) else { return false };
        self.manager.conn(bridge, *conn).is_some_and(|c| !c.is_closing())
    }

    fn closed(&mut self, id: ConnectionId, _now: i64) {
        if let Some((bridge, conn)) = self.connections.remove(&id) {
            self.manager.disconnect(&bridge, conn);
        }
    }
}

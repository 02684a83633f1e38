//! Active connections to OpenFlow controllers: made, kept and made anew by what the Controller table says.
//!
//! When each comes back and when it is probed decides [`Reconnect`]; the bytes are OpenFlow that the bridge's side
//! understands. Neighbours: `switch` lends the bridges, `ofservice` has the connections that come to us. Main thread.

use crate::coverage;
use crate::daemonize::reason;
use crate::ofservice::MAX_BACKLOG;
use crate::stream::{Received, Stream, DSCP};
use bridge::wanted::WantedController;
use bridge::{ControllerStatus, Manager};
use infra::poll::Poller;
use infra::vlog::{Module, RateLimit};
use infra::{info, vlog_rl, warn};
use ofproto::conn::{ConnId, ConnKind};
use ofproto::OpenFlowRole;
use ovsdb::{Action, Reconnect};
use std::collections::BTreeMap;

static LOG: Module = Module::new("rconn");
static LIMIT: RateLimit = RateLimit::new(60, 60);

/// The port of a target without one.
pub const DEFAULT_PORT: u16 = 6653;
/// Bytes read from one controller in one turn of the main loop.
const TURN_BYTES: usize = 512 << 10;
/// A bridge without a word from its controllers for so many probe intervals takes over.
const FAIL_OPEN_PROBES: i64 = 3;
/// The interval where probes are off.
const NO_PROBES_MS: i64 = 5_000;

/// One controller of a bridge.
struct Controller {
    wanted: WantedController,
    reconnect: Reconnect,
    stream: Option<Stream>,
    conn: Option<ConnId>,
    status: ControllerStatus,
    /// Bytes may wait that this turn did not read.
    more: bool,
}

/// A bridge whose controllers are in charge.
struct Charge {
    /// When the last of them was heard of.
    heard_ms: i64,
    patience_ms: i64,
    open: bool,
}

/// All of them.
#[derive(Default)]
pub struct Controllers {
    seen: u64,
    all: BTreeMap<(String, String), Controller>,
    bridges: BTreeMap<String, Charge>,
    buffer: Vec<u8>,
}

/// Whether we connect to it, rather than it to us.
pub fn is_active(target: &str) -> bool {
    !matches!(target.split(':').next(), Some("ptcp" | "pssl" | "punix"))
}

impl Controllers {
    /// Follows the configuration, moves bytes both ways.
    pub fn run(&mut self, manager: &mut Manager, now: i64) {
        if self.seen != manager.config_seq() {
            self.seen = manager.config_seq();
            self.reconcile(manager, now);
        }
        for name in manager.take_reconnects() {
            let of_it = self.all.iter_mut().filter(|((bridge, _), _)| *bridge == name);
            of_it.for_each(|(_, c)| c.reconnect.fail());
        }
        self.buffer.resize(64 << 10, 0);
        for ((bridge, _), c) in &mut self.all {
            c.run(bridge, manager, &mut self.buffer, now);
            if let Some(charge) =
                self.bridges.get_mut(bridge).filter(|_| c.wanted.primary && c.status.connected)
            {
                charge.heard_ms = now;
            }
        }
        for (name, charge) in &mut self.bridges {
            let open = now - charge.heard_ms >= charge.patience_ms && !manager.is_secure(name);
            if open != charge.open {
                charge.open = open;
                let seconds = (now - charge.heard_ms) / 1000;
                let what = match open {
                    true => format!("Could not connect to controller for {seconds} seconds, failing open"),
                    false => "No longer in fail-open mode".to_string(),
                };
                warn!(FAIL_LOG, "{name}: {what}");
                manager.set_fail_open(name, open);
            }
        }
    }

    fn reconcile(&mut self, manager: &mut Manager, now: i64) {
        let wanted: BTreeMap<(String, String), WantedController> = manager
            .wanted_controllers()
            .filter(|(_, c)| is_active(&c.target))
            .map(|(bridge, c)| ((bridge.to_string(), c.target.clone()), c.clone()))
            .collect();
        let gone: Vec<_> = self.all.keys().filter(|k| !wanted.contains_key(*k)).cloned().collect();
        for key in gone {
            if let Some(mut c) = self.all.remove(&key) {
                info!(CONNMGR_LOG, "{}: removed {} controller \"{}\"", key.0, c.wanted.kind(), key.1);
                c.close(&key.0, manager, now);
                manager.report_controller(c.wanted.row, None);
            }
        }
        for (key, w) in wanted {
            let c = self.all.entry(key).or_insert_with_key(|(bridge, target)| {
                info!(CONNMGR_LOG, "{bridge}: added {} controller \"{target}\"", w.kind());
                Controller::new(bridge, &w)
            });
            c.configure(w, manager);
        }
        let primary = self.all.iter().filter(|(_, c)| c.wanted.primary);
        let mut bridges: BTreeMap<String, i64> = BTreeMap::new();
        for ((bridge, _), c) in primary {
            let probe = if c.wanted.probe_ms == 0 { NO_PROBES_MS } else { c.wanted.probe_ms };
            let longest = bridges.entry(bridge.clone()).or_default();
            *longest = probe.max(*longest);
        }
        self.bridges.retain(|name, charge| {
            let keep = bridges.contains_key(name);
            if !keep && charge.open {
                manager.set_fail_open(name, false);
            }
            keep
        });
        for (name, probe) in bridges {
            let new = Charge { heard_ms: now, patience_ms: 0, open: false };
            self.bridges.entry(name).or_insert(new).patience_ms = FAIL_OPEN_PROBES * probe;
        }
    }

    /// Registers what the connections wait for.
    pub fn wait(&self, manager: &mut Manager, poller: &mut Poller) {
        for ((bridge, _), c) in &self.all {
            if let Some(deadline) = c.reconnect.deadline() {
                poller.timer_until(deadline);
            }
            let Some(stream) = &c.stream else { continue };
            let backlog =
                c.conn.and_then(|id| manager.conn_mut(bridge, id)).map_or(0, |conn| conn.output().len());
            let reading = backlog < MAX_BACKLOG;
            if c.more && reading {
                poller.immediate();
            }
            stream.wait(poller, reading, backlog > 0);
        }
        for charge in self.bridges.values().filter(|c| !c.open) {
            poller.timer_until(charge.heard_ms + charge.patience_ms);
        }
    }

    /// Number of connections, for `memory/show`.
    pub fn connections(&self) -> usize {
        self.all.values().filter(|c| c.conn.is_some()).count()
    }
}

static CONNMGR_LOG: Module = Module::new("connmgr");
static FAIL_LOG: Module = Module::new("fail_open");

impl Controller {
    fn new(bridge: &str, wanted: &WantedController) -> Controller {
        Controller {
            reconnect: Reconnect::new(&format!("{bridge}<->{}", wanted.target), wanted.probe_ms),
            wanted: wanted.clone(),
            stream: None,
            conn: None,
            status: ControllerStatus { state: "VOID", ..ControllerStatus::default() },
            more: false,
        }
    }

    fn configure(&mut self, wanted: WantedController, manager: &mut Manager) {
        self.reconnect.set_backoff(1000, wanted.max_backoff_ms);
        self.reconnect.set_probe_interval(wanted.probe_ms);
        if self.wanted.dscp != wanted.dscp {
            self.reconnect.fail();
        }
        if self.wanted.row != wanted.row {
            manager.report_controller(self.wanted.row, None);
        }
        self.wanted = wanted;
    }

    fn run(&mut self, bridge: &str, manager: &mut Manager, buffer: &mut [u8], now: i64) {
        loop {
            match self.reconnect.run(now) {
                Action::None => break,
                Action::Disconnect => self.close(bridge, manager, now),
                Action::Probe => {
                    if let Some(conn) = self.conn.and_then(|id| manager.conn_mut(bridge, id)) {
                        conn.probe();
                    }
                }
                Action::Connect => {
                    coverage::VCONN_OPEN.inc();
                    let dscp = self.wanted.dscp.unwrap_or(DSCP);
                    match Stream::open_with(&self.wanted.target, DEFAULT_PORT, dscp) {
                        Ok(stream) => self.stream = Some(stream),
                        Err(e) => self.failed(&e.to_string(), now),
                    }
                }
            }
        }
        self.connect(bridge, manager, now);
        self.pump(bridge, manager, buffer, now);
        for line in self.reconnect.take_log() {
            match line.text.split_once("connection attempt failed ") {
                None => LOG.log_limited(&LIMIT, line.level, format_args!("{}", line.text)),
                Some((who, why)) => vlog_rl!(LOG, LIMIT, Warn, "{who}connection failed {why}"),
            }
        }
        self.report(bridge, manager);
    }

    fn failed(&mut self, why: &str, now: i64) {
        self.stream = None;
        self.status.last_error = Some(why.to_string());
        self.reconnect.connect_failed(now, why);
    }

    /// Finishes an attempt.
    fn connect(&mut self, bridge: &str, manager: &mut Manager, now: i64) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.conn.is_none()) else { return };
        match stream.connect() {
            Ok(false) => {}
            Ok(true) => {
                let kind = match self.wanted.primary {
                    true => ConnKind::Primary { name: self.wanted.target.clone() },
                    false => ConnKind::Service { name: self.wanted.target.clone() },
                };
                self.conn = manager.connect(bridge, kind);
                self.reconnect.connected(now);
                self.status.connected_ms = Some(now);
            }
            Err(e) => self.failed(&reason(&e), now),
        }
    }

    fn pump(&mut self, bridge: &str, manager: &mut Manager, buffer: &mut [u8], now: i64) {
        self.more = false;
        let Some(id) = self.conn else { return };
        let mut left = TURN_BYTES;
        loop {
            let (Some(conn), Some(stream)) = (manager.conn_mut(bridge, id), &mut self.stream) else {
                // The bridge forgot it.
                return self.reconnect.fail();
            };
            if let Err(e) = stream.send(conn.output()) {
                return self.dropped(bridge, Some(&reason(&e)), manager, now);
            }
            let backlog = conn.output().len();
            if conn.is_closing() {
                if backlog == 0 {
                    self.dropped(bridge, Some("Protocol error"), manager, now);
                }
                return;
            }
            if backlog >= MAX_BACKLOG {
                return;
            }
            if conn.has_input() {
                manager.input(bridge, id, &[]);
                left = 0;
            }
            if left == 0 {
                self.more = true;
                return;
            }
            match stream.receive(buffer) {
                Ok(Received::Bytes(n)) => {
                    left = left.saturating_sub(n);
                    self.reconnect.activity(now);
                    manager.input(bridge, id, &buffer[..n]);
                }
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return self.dropped(bridge, None, manager, now),
                Err(e) => return self.dropped(bridge, Some(&reason(&e)), manager, now),
            }
        }
    }

    fn dropped(&mut self, bridge: &str, error: Option<&str>, manager: &mut Manager, now: i64) {
        self.status.last_error = Some(error.unwrap_or("End of file").to_string());
        self.reconnect.disconnected(now, error);
        self.close(bridge, manager, now);
    }

    fn close(&mut self, bridge: &str, manager: &mut Manager, now: i64) {
        self.stream = None;
        if let Some(id) = self.conn.take() {
            manager.disconnect(bridge, id);
            self.status.disconnected_ms = Some(now);
        }
    }

    fn report(&mut self, bridge: &str, manager: &mut Manager) {
        let conn = self.conn.and_then(|id| manager.conn(bridge, id));
        let before = self.status.clone();
        self.status.role = conn.map(|c| match c.role() {
            OpenFlowRole::Master => "master",
            OpenFlowRole::Slave => "slave",
            OpenFlowRole::Equal | OpenFlowRole::NoChange => "other",
        });
        self.status.connected = conn.is_some_and(|c| c.version().is_some());
        self.status.state = self.reconnect.state_name();
        if before != self.status {
            manager.report_controller(self.wanted.row, Some(self.status.clone()));
        }
    }
}

//! OpenFlow sockets: for each bridge a listener `<rundir>/<bridge>.mgmt` and the
//! passive targets of its controllers, and the connections that come through them. Bytes go in and out of an OpenFlow
//! [`Service`]; this module knows no OpenFlow.
//!
//! A client that does not read is not read from either, so that its backlog
//! stays bounded. Main thread.

use crate::controllers::DEFAULT_PORT;
use crate::daemonize::reason;
use crate::paths;
use crate::stream::{Listener, Received, Stream, StreamError, DSCP};
use infra::poll::Poller;
use infra::vlog::{Module, RateLimit};
use infra::{clock, debug, err, info, vlog_rl};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

static LOG: Module = Module::new("vconn");
static CONNMGR: Module = Module::new("connmgr");
static LIMIT: RateLimit = RateLimit::new(60, 10);

/// No more is read from a client while so much waits to be written to it.
pub const MAX_BACKLOG: usize = 1 << 20;
/// Connections accepted in one turn of the main loop, for each bridge.
const TURN_ACCEPTS: usize = 64;
/// Bytes read from one client in one turn of the main loop.
const TURN_BYTES: usize = 512 << 10;
/// How long the next request of a client that was just answered is waited for without sleeping, and how often in
/// one turn.
const PATIENCE_NS: u64 = 30_000;
const PATIENCE_TIMES: u32 = 64;
/// A connection beyond this many makes the one that has been silent longest go, for each bridge.
const MAX_CLIENTS: usize = 512;

/// Names a connection between this module and the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The OpenFlow side of all connections.
pub trait Service {
    /// A client connected to a listener of `bridge`, the management socket or `target`. False refuses it.
    fn opened(&mut self, id: ConnectionId, bridge: &str, target: Option<&str>, now: i64) -> bool;
    /// Bytes arrived.
    fn input(&mut self, id: ConnectionId, bytes: &[u8], now: i64);
    /// Whether messages wait that were not looked at, as too much waited to be written: they are taken up with an
    /// empty input.
    fn has_input(&self, id: ConnectionId) -> bool;
    /// What waits to be written; written bytes are taken from its front.
    fn output(&mut self, id: ConnectionId) -> &mut VecDeque<u8>;
    /// False once the service wants the connection closed (after its output).
    fn is_open(&self, id: ConnectionId) -> bool;
    /// The connection is gone.
    fn closed(&mut self, id: ConnectionId, now: i64);
}

struct Connection {
    id: ConnectionId,
    stream: Stream,
    /// Bytes may wait that this turn did not read.
    more: bool,
    last_used: i64,
}

struct Endpoint {
    listener: Listener,
    connections: Vec<Connection>,
}

/// What a listener is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// The bridge.
    pub bridge: String,
    /// `ptcp:...` and the like; none for the management socket.
    pub target: Option<String>,
    /// Class of its packets.
    pub dscp: u8,
}

impl Door {
    /// The management socket of a bridge.
    pub fn management(bridge: &str) -> Door {
        Door { bridge: bridge.into(), target: None, dscp: DSCP }
    }

    fn name(&self) -> String {
        self.target.clone().unwrap_or_else(|| {
            format!("punix:{}", paths::in_rundir(format!("{}.mgmt", self.bridge)).display())
        })
    }

    fn open(&self) -> Result<Listener, StreamError> {
        match &self.target {
            None => Listener::unix(&paths::in_rundir(format!("{}.mgmt", self.bridge))),
            Some(target) => Listener::open_with(target, DEFAULT_PORT, self.dscp),
        }
    }
}

impl Endpoint {
    /// Drops those that have been silent longest while there are too many.
    fn evict(&mut self, door: &Door, service: &mut impl Service, now: i64) {
        while self.connections.len() > MAX_CLIENTS {
            let oldest = self.connections.iter().enumerate().min_by_key(|(_, c)| c.last_used);
            let Some((index, _)) = oldest else { return };
            let connection = self.connections.remove(index);
            vlog_rl!(LOG, LIMIT, Warn, "{}: too many connections, dropping the oldest", door.name());
            service.closed(connection.id, now);
        }
    }
}

/// All management sockets and their connections.
#[derive(Default)]
pub struct OpenFlowSockets {
    endpoints: BTreeMap<Door, Endpoint>,
    next_id: u64,
    buffer: Vec<u8>,
}

impl OpenFlowSockets {
    /// No sockets.
    pub fn new() -> Self {
        OpenFlowSockets { endpoints: BTreeMap::new(), next_id: 1, buffer: vec![0; 64 << 10] }
    }

    /// Opens sockets for bridges that have none, closes those of bridges that
    /// are gone. Call it on every turn; what is in place costs nothing.
    pub fn reconcile(&mut self, doors: impl IntoIterator<Item = Door>, service: &mut impl Service, now: i64) {
        let wanted: BTreeSet<Door> = doors.into_iter().collect();
        self.endpoints.retain(|door, endpoint| {
            let keep = wanted.contains(door);
            if !keep {
                endpoint.connections.iter().for_each(|c| service.closed(c.id, now));
            }
            keep
        });
        for door in wanted {
            if self.endpoints.contains_key(&door) || door.bridge.contains('/') {
                continue;
            }
            match door.open() {
                Ok(listener) => {
                    info!(CONNMGR, "{}: added service controller \"{}\"", door.bridge, door.name());
                    self.endpoints.insert(door, Endpoint { listener, connections: Vec::new() });
                }
                Err(error) => vlog_rl!(LOG, LIMIT, Err, "{}: failed to listen: {error}", door.name()),
            }
        }
    }

    /// Accepts connections and moves bytes.
    pub fn run(&mut self, service: &mut impl Service, now: i64) {
        for (door, endpoint) in &mut self.endpoints {
            for _ in 0..TURN_ACCEPTS {
                let stream = match endpoint.listener.accept() {
                    Ok(Some(stream)) => stream,
                    Ok(None) => break,
                    Err(error) => {
                        vlog_rl!(LOG, LIMIT, Err, "{}: accept failed: {}", door.name(), reason(&error));
                        break;
                    }
                };
                let id = ConnectionId(self.next_id);
                self.next_id += 1;
                if service.opened(id, &door.bridge, door.target.as_deref(), now) {
                    endpoint.connections.push(Connection { id, stream, more: false, last_used: now });
                }
            }
            endpoint.evict(door, service, now);
            let buffer = &mut self.buffer;
            endpoint.connections.retain_mut(|connection| {
                let alive = connection.run(service, buffer, now);
                if !alive {
                    service.closed(connection.id, now);
                }
                alive
            });
        }
    }

    /// Registers what listeners and connections wait for. `service` may have
    /// produced output since [`OpenFlowSockets::run`].
    pub fn wait(&self, service: &mut impl Service, poller: &mut Poller) {
        for endpoint in self.endpoints.values() {
            endpoint.listener.wait(poller);
            for connection in &endpoint.connections {
                let backlog = service.output(connection.id).len();
                let reading = backlog < MAX_BACKLOG;
                if connection.more && reading || !service.is_open(connection.id) && backlog == 0 {
                    poller.immediate();
                }
                connection.stream.wait(poller, reading, backlog > 0);
            }
        }
    }

    /// Number of connections, for `memory/show`.
    pub fn connections(&self) -> usize {
        self.endpoints.values().map(|e| e.connections.len()).sum()
    }
}

impl Connection {
    /// False if the connection is over.
    fn run(&mut self, service: &mut impl Service, buffer: &mut [u8], now: i64) -> bool {
        self.more = false;
        let mut left = TURN_BYTES;
        let (mut patience, mut times) = (None, 0);
        loop {
            let output = service.output(self.id);
            if let Err(error) = self.stream.send(output) {
                debug!(LOG, "connection {}: send failed: {}", self.id.0, reason(&error));
                return false;
            }
            let backlog = output.len();
            if !service.is_open(self.id) {
                return backlog > 0;
            }
            if backlog >= MAX_BACKLOG {
                return true;
            }
            if service.has_input(self.id) {
                // One helping a turn, so that others are served between two.
                service.input(self.id, &[], now);
                left = 0;
            }
            if left == 0 {
                self.more = true;
                return true;
            }
            match self.stream.receive(buffer) {
                Ok(Received::Bytes(n)) => {
                    self.last_used = now;
                    left = left.saturating_sub(n);
                    service.input(self.id, &buffer[..n], now);
                    times += 1;
                    patience = (times < PATIENCE_TIMES).then(|| clock::real_ns() + PATIENCE_NS);
                }
                // A peer that waits for each answer sends its next request now: sleeping would cost more.
                Ok(Received::Nothing) if patience.is_some_and(|end| clock::real_ns() < end) => {}
                Ok(Received::Nothing) => return true,
                Ok(Received::End) => return false,
                Err(error) => {
                    err!(LOG, "connection {}: receive failed: {}", self.id.0, reason(&error));
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Sends every byte back 64-fold.
    #[derive(Default)]
    struct Echo {
        out: BTreeMap<ConnectionId, VecDeque<u8>>,
        read: usize,
    }

    impl Service for Echo {
        fn opened(&mut self, id: ConnectionId, bridge: &str, _: Option<&str>, _: i64) -> bool {
            assert_eq!(bridge, "br0");
            self.out.insert(id, VecDeque::new());
            true
        }
        fn input(&mut self, id: ConnectionId, bytes: &[u8], _: i64) {
            self.read += bytes.len();
            let out = self.out.get_mut(&id).unwrap();
            for b in bytes {
                out.extend([*b; 64]);
            }
        }
        fn has_input(&self, _: ConnectionId) -> bool {
            false
        }
        fn output(&mut self, id: ConnectionId) -> &mut VecDeque<u8> {
            self.out.get_mut(&id).unwrap()
        }
        fn is_open(&self, _: ConnectionId) -> bool {
            true
        }
        fn closed(&mut self, id: ConnectionId, _: i64) {
            self.out.remove(&id);
        }
    }

    #[test]
    fn moves_bytes_and_stops_reading_from_those_who_do_not_read() {
        let dir = std::env::temp_dir().join(format!("ofservice-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.mgmt");
        let mut sockets = OpenFlowSockets::new();
        let listener = Listener::unix(&path).unwrap();
        sockets.endpoints.insert(Door::management("br0"), Endpoint { listener, connections: Vec::new() });
        let mut echo = Echo::default();
        let mut honest = UnixStream::connect(&path).unwrap();
        let mut hog = UnixStream::connect(&path).unwrap();
        hog.set_nonblocking(true).unwrap();
        honest.write_all(b"ab").unwrap();
        let mut sent = 0;
        for _ in 0..200 {
            if let Ok(n) = hog.write(&[7; 65536]) {
                sent += n;
            }
            sockets.run(&mut echo, 0);
        }
        let kept: usize = echo.out.values().map(VecDeque::len).sum();
        assert!(kept < 2 * MAX_BACKLOG + 64 * 65536, "{kept} of {sent} kept");
        let mut answer = [0; 128];
        honest.read_exact(&mut answer).unwrap();
        assert_eq!(answer[63], b'a');
        assert_eq!(answer[64], b'b');
        drop(hog);
        sockets.run(&mut echo, 0);
        assert_eq!(sockets.connections(), 1);
        // Clients that say nothing do not keep others out, and one that talks stays.
        honest.write_all(b"c").unwrap();
        sockets.run(&mut echo, 1);
        let mut silent = Vec::new();
        for _ in 0..MAX_CLIENTS {
            silent.push(UnixStream::connect(&path).unwrap());
            sockets.run(&mut echo, 0);
        }
        assert_eq!(sockets.connections(), MAX_CLIENTS);
        honest.read_exact(&mut answer[..64]).unwrap();
        honest.write_all(b"d").unwrap();
        sockets.run(&mut echo, 2);
        honest.read_exact(&mut answer[..64]).unwrap();
        assert_eq!(answer[63], b'd');
        drop(silent);
        sockets.reconcile([], &mut echo, 0);
        assert!(echo.out.is_empty() && !path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

//! The client of one database: keeps the replica up to date, holds the lock, runs transactions.
//!
//! Neighbours: [`crate::session`] keeps the connection, [`crate::update`] and [`crate::txn`] speak the
//! protocol; the daemon owns the socket, the `bridge` crate reads the replica and submits.
//! Threads: belongs to one thread; nothing blocks, time comes in as milliseconds of a monotonic clock.

use std::collections::HashMap;
use std::sync::Arc;

use infra::vlog::Level;
use serde_json::{json, Value};

use crate::coverage;
use crate::jsonrpc::{excerpt, Limits, Message};
use crate::logline::{LogLine, OVSDB_CS, OVSDB_IDL};
use crate::replica::{Change, Missing, Replica, RowId, TableSpec};
use crate::schema::{Schema, SchemaError};
use crate::server::{self, Seen, Unfit, SERVER};
use crate::session::{default_probe_interval_ms, Session, Wanted};
use crate::txn::{self, Expected, Outcome, SubmitError, Transaction, TxnError, TxnId};
use crate::update::{self, Notation, UpdateError};

/// The transaction after which nothing is known: the whole contents are wanted.
const NO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";

/// Transactions without an answer beyond which no more are sent.
const MAX_IN_FLIGHT: usize = 1024;

/// What a client is to do.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server's name in log lines, like `unix:/var/run/openvswitch/db.sock`.
    pub remote: String,
    /// The database, like `Open_vSwitch`.
    pub database: String,
    /// The lock without which nothing may be written, like `ovs_vswitchd`.
    pub lock: Option<String>,
    /// What to replicate.
    pub tables: Vec<TableSpec>,
    /// Silence before a probe; 0 for never. See [`default_probe_interval_ms`].
    pub probe_interval_ms: i64,
    /// Of a clustered database, only the leader will do.
    pub leader_only: bool,
}

impl ClientConfig {
    /// The usual configuration for a remote and database, without a lock.
    pub fn new(remote: &str, database: &str, tables: Vec<TableSpec>) -> ClientConfig {
        ClientConfig {
            remote: remote.into(),
            database: database.into(),
            lock: None,
            tables,
            probe_interval_ms: default_probe_interval_ms(remote),
            leader_only: true,
        }
    }

    /// With a lock.
    pub fn lock(mut self, name: &str) -> ClientConfig {
        self.lock = Some(name.into());
        self
    }
}

/// What the server did wrong. The connection is closed and made again.
#[derive(Debug, thiserror::Error)]
enum ProtocolError {
    #[error("{0}")]
    Schema(#[from] SchemaError),
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error("{0}")]
    Update(#[from] UpdateError),
    #[error("{method} request failed ({error})")]
    Refused { method: &'static str, error: TxnError },
    #[error("malformed {what}: {json}")]
    Malformed { what: &'static str, json: String },
    #[error("database {0} is being removed or converted")]
    Canceled(String),
    #[error("server does not have {0} database")]
    NoDatabase(String),
    /// Nothing is wrong, but another server is better.
    #[error("{0}")]
    Unfit(#[from] Unfit),
}

/// How far the replica is on this connection.
#[derive(Debug)]
enum Phase {
    Down,
    /// The server is asked what it is.
    Server,
    /// It cannot tell, and is asked for the schema.
    Schema,
    Monitor(Box<Replica>),
    Synced(Method),
}

/// How to follow a database, best first: what a server does not know, the next may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Only what came after a transaction, if the server remembers it.
    CondSince,
    /// Differences of rows.
    Cond,
    /// Whole rows.
    Plain,
}

impl Method {
    fn request(self) -> &'static str {
        match self {
            Method::CondSince => "monitor_cond_since",
            Method::Cond => "monitor_cond",
            Method::Plain => "monitor",
        }
    }

    fn notification(self) -> &'static str {
        match self {
            Method::CondSince => "update3",
            Method::Cond => "update2",
            Method::Plain => "update",
        }
    }

    fn notation(self) -> Notation {
        match self {
            Method::CondSince | Method::Cond => Notation::Update2,
            Method::Plain => Notation::Update,
        }
    }

    fn fallback(self) -> Option<Method> {
        match self {
            Method::CondSince => Some(Method::Cond),
            Method::Cond => Some(Method::Plain),
            Method::Plain => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Unknown,
    Held,
    Contended,
}

#[derive(Debug)]
enum Pending {
    ServerSchema,
    ServerMonitor,
    Schema,
    Monitor(Method),
    Lock,
    Transaction(Expected),
}

/// The client of one database.
///
/// Its owner does in a loop:
/// 1. [`Client::run`] until it wants nothing, opening and closing the socket as told;
/// 2. read the socket into [`Client::receive`]; write [`Client::output`] and report with
///    [`Client::consume_output`];
/// 3. look at [`Client::seqno`] (did the database change?) and [`Client::take_outcomes`];
/// 4. sleep until the socket is ready or [`Client::deadline`] has come.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    session: Session,
    replica: Replica,
    /// The transaction up to which the replica has everything, if the server names them.
    last_txn: Option<String>,
    /// What the server says of itself, on this connection.
    server: Option<Replica>,
    seen: Seen,
    phase: Phase,
    lock: Lock,
    next_id: u64,
    pending: HashMap<u64, Pending>,
    in_flight: usize,
    outcomes: Vec<(TxnId, Outcome)>,
}

impl Client {
    /// A client that wants to connect at once.
    pub fn new(config: ClientConfig) -> Client {
        Client {
            session: Session::new(&config.remote, config.probe_interval_ms, Limits::DATABASE),
            replica: Replica::new(&config.tables),
            last_txn: None,
            server: None,
            seen: Seen::default(),
            phase: Phase::Down,
            lock: Lock::Unknown,
            next_id: 0,
            pending: HashMap::new(),
            in_flight: 0,
            outcomes: Vec::new(),
            config,
        }
    }

    /// The next attempt goes to the server at `remote`.
    pub fn set_remote(&mut self, remote: &str) {
        self.session.set_name(remote);
        self.session.set_probe_interval(default_probe_interval_ms(remote));
    }

    /// There are so many servers to try: a round of them is made without waiting between two.
    pub fn set_remotes(&mut self, count: usize) {
        self.session.set_peers(count);
    }

    /// What is due on the socket. Call it until it wants nothing.
    pub fn run(&mut self, now: i64) -> Wanted {
        let wanted = self.session.run(now);
        if wanted == Wanted::Disconnect {
            self.lost();
        }
        wanted
    }

    /// When [`Client::run`] must be called again at the latest; none if only the socket can change that.
    pub fn deadline(&self) -> Option<i64> {
        self.session.deadline()
    }

    /// The socket is connected.
    pub fn connected(&mut self, now: i64) {
        self.lost();
        self.session.connected(now);
        self.phase = Phase::Server;
        self.request("get_schema", vec![json!(SERVER)], Pending::ServerSchema);
    }

    /// The socket could not be connected.
    pub fn connect_failed(&mut self, now: i64, reason: &str) {
        self.session.connect_failed(now, reason);
    }

    /// The server closed the socket (no error), or reading or writing failed.
    pub fn disconnected(&mut self, now: i64, error: Option<&str>) {
        self.session.disconnected(now, error);
        self.lost();
    }

    /// Takes bytes from the socket and acts on all whole messages in them.
    pub fn receive(&mut self, now: i64, bytes: &[u8]) {
        self.session.receive(now, bytes);
        while let Some(message) = self.session.next_message() {
            match self.handle(message) {
                Ok(()) => {}
                Err(ProtocolError::Unfit(why)) => self.session.leave(&OVSDB_CS, &why.to_string()),
                Err(error) => self.session.fail(&OVSDB_CS, &error.to_string()),
            }
        }
    }

    /// Bytes to write to the socket.
    pub fn output(&self) -> &[u8] {
        self.session.output()
    }

    /// The socket took the first `n` bytes of [`Client::output`].
    pub fn consume_output(&mut self, n: usize) {
        self.session.consume_output(n);
    }

    /// The rows. They stay as they were while the server is away.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Advances whenever the rows or the lock change in a way that counts. 0 until the first contents are here.
    pub fn seqno(&self) -> u64 {
        self.replica.seqno()
    }

    /// The rows that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        self.replica.take_changes()
    }

    /// True while the socket is connected.
    pub fn is_connected(&self) -> bool {
        self.session.is_connected()
    }

    /// True while the replica follows the server.
    pub fn is_synced(&self) -> bool {
        self.session.is_connected() && matches!(self.phase, Phase::Synced(_))
    }

    /// True once the contents have been here, even if the server is away now.
    pub fn has_ever_synced(&self) -> bool {
        self.replica.seqno() > 0
    }

    /// True while we hold the lock, or want none.
    pub fn has_lock(&self) -> bool {
        self.config.lock.is_none() || self.lock == Lock::Held
    }

    /// True while another client holds the lock that we want.
    pub fn is_lock_contended(&self) -> bool {
        self.lock == Lock::Contended
    }

    /// Changes how long silence may last before a probe; 0 never probes.
    pub fn set_probe_interval(&mut self, ms: i64) {
        self.session.set_probe_interval(ms);
    }

    /// Sends a transaction. Its outcome comes through [`Client::take_outcomes`], also if it changes nothing.
    pub fn submit(&mut self, txn: &Transaction) -> Result<TxnId, SubmitError> {
        if !self.is_synced() {
            return Err(SubmitError::NotConnected);
        }
        if let Some(lock) = self.config.lock.as_ref().filter(|_| self.lock != Lock::Held) {
            coverage::NOT_LOCKED.inc();
            return Err(SubmitError::NotLocked(lock.clone()));
        }
        if self.in_flight >= MAX_IN_FLIGHT {
            return Err(SubmitError::TooMany(self.in_flight));
        }
        let key = |row: &RowId, column: &Arc<str>| (row.clone(), column.clone());
        let in_flight = |row: &RowId, column: &Arc<str>| {
            self.pending
                .values()
                .any(|p| matches!(p, Pending::Transaction(t) if t.writes.contains(&key(row, column))))
        };
        match txn::compile(txn, &self.replica, self.config.lock.as_deref(), &in_flight)? {
            None => {
                self.next_id += 1;
                let id = TxnId(self.next_id);
                coverage::UNCHANGED.inc();
                self.outcomes.push((id, Outcome::Unchanged));
                Ok(id)
            }
            Some(compiled) => {
                let mut params = vec![json!(self.config.database)];
                params.extend(compiled.operations);
                self.in_flight += 1;
                coverage::INCOMPLETE.inc();
                Ok(TxnId(self.request("transact", params, Pending::Transaction(compiled.answer))))
            }
        }
    }

    /// Outcomes of submitted transactions since the last call.
    pub fn take_outcomes(&mut self) -> Vec<(TxnId, Outcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// Lines for the log since the last call; write them with [`LogLine::write`].
    pub fn take_log(&mut self) -> Vec<LogLine> {
        self.session.take_log()
    }

    /// The connection is gone: whatever it was to bring will not come.
    fn lost(&mut self) {
        self.phase = Phase::Down;
        self.server = None;
        if self.lock == Lock::Held {
            self.replica.bump();
        }
        self.lock = Lock::Unknown;
        self.in_flight = 0;
        let mut ids: Vec<u64> = self
            .pending
            .drain()
            .filter_map(|(id, pending)| matches!(pending, Pending::Transaction(_)).then_some(id))
            .collect();
        ids.sort_unstable();
        coverage::TRY_AGAIN.add(ids.len() as u64);
        self.outcomes.extend(ids.into_iter().map(|id| (TxnId(id), Outcome::TryAgain)));
    }

    fn request(&mut self, method: &'static str, params: Vec<Value>, pending: Pending) -> u64 {
        self.next_id += 1;
        self.pending.insert(self.next_id, pending);
        self.session.send(&Message::request(method, params, self.next_id));
        self.next_id
    }

    fn handle(&mut self, message: Message) -> Result<(), ProtocolError> {
        match message {
            Message::Reply { result, id } => match self.answered(&id) {
                Some((id, pending)) => self.reply(id, pending, result),
                None => self.unexpected("reply", &id),
            },
            Message::Error { error, id } => match self.answered(&id) {
                Some((id, pending)) => self.error(id, pending, &error),
                None => self.unexpected("error", &error),
            },
            Message::Notify { method, params } => self.notified(&method, params),
            Message::Request { method, id, .. } => {
                self.session.send(&Message::Error { error: json!("unknown method"), id });
                self.unexpected("request", &json!(method))
            }
        }
    }

    fn answered(&mut self, id: &Value) -> Option<(u64, Pending)> {
        let id = id.as_u64()?;
        Some((id, self.pending.remove(&id)?))
    }

    fn unexpected(&mut self, what: &str, json: &Value) -> Result<(), ProtocolError> {
        let text = format!("{}: received unexpected {what} message: {}", self.session.name(), excerpt(json));
        self.session.log(Level::Dbg, &OVSDB_CS, text);
        Ok(())
    }

    fn reply(&mut self, id: u64, pending: Pending, result: Value) -> Result<(), ProtocolError> {
        match pending {
            Pending::ServerSchema => self.server_schema_arrived(&result),
            Pending::ServerMonitor => self.server_changed(&result),
            Pending::Schema => self.schema_arrived(&result),
            Pending::Monitor(method) => self.contents_arrived(&result, method),
            Pending::Lock => {
                let locked = result.get("locked").and_then(Value::as_bool);
                let locked = locked.ok_or_else(|| ProtocolError::Malformed {
                    what: "reply to lock request",
                    json: excerpt(&result),
                })?;
                // The lock may have been given in a notification before; a reply cannot take it away.
                if locked || self.lock == Lock::Unknown {
                    self.set_lock(if locked { Lock::Held } else { Lock::Contended });
                }
                Ok(())
            }
            Pending::Transaction(expected) => {
                self.finished(TxnId(id), expected.outcome(&result));
                Ok(())
            }
        }
    }

    fn error(&mut self, id: u64, pending: Pending, error: &Value) -> Result<(), ProtocolError> {
        let error = txn::server_error(error);
        match pending {
            Pending::Schema => Err(ProtocolError::Refused { method: "get_schema", error }),
            Pending::Lock => Err(ProtocolError::Refused { method: "lock", error }),
            // It told what it is before it refused to.
            Pending::ServerSchema | Pending::ServerMonitor if !matches!(self.phase, Phase::Server) => Ok(()),
            // A server from before there was such a database, or one that hides it.
            Pending::ServerSchema | Pending::ServerMonitor => {
                self.server = None;
                self.phase = Phase::Schema;
                self.request("get_schema", vec![json!(self.config.database)], Pending::Schema);
                Ok(())
            }
            Pending::Monitor(method) => match method.fallback() {
                Some(next) if error.error == "unknown method" => {
                    self.monitor(next);
                    Ok(())
                }
                _ => Err(ProtocolError::Refused { method: method.request(), error }),
            },
            Pending::Transaction(_) => {
                self.finished(TxnId(id), txn::judge(error));
                Ok(())
            }
        }
    }

    fn finished(&mut self, id: TxnId, outcome: Outcome) {
        self.in_flight -= 1;
        match &outcome {
            Outcome::Unchanged => coverage::UNCHANGED.inc(),
            Outcome::Success(_) => coverage::SUCCESS.inc(),
            Outcome::TryAgain => coverage::TRY_AGAIN.inc(),
            Outcome::NotLocked => coverage::NOT_LOCKED.inc(),
            Outcome::Error(TxnError { error, details, .. }) => {
                coverage::ERROR.inc();
                let text = format!("transaction error: {}", json!({"details": details, "error": error}));
                self.session.log(Level::Warn, &OVSDB_IDL, text);
            }
        }
        self.outcomes.push((id, outcome));
    }

    fn server_schema_arrived(&mut self, result: &Value) -> Result<(), ProtocolError> {
        let (replica, _) = Replica::with_schema(&server::tables(), &Schema::from_json(result)?)?;
        let params = vec![json!(SERVER), json!(["monid", SERVER]), replica.monitor_requests()];
        self.server = Some(replica);
        self.request(Method::Cond.request(), params, Pending::ServerMonitor);
        Ok(())
    }

    /// The server tells what it is: stay with it, or leave it to another.
    fn server_changed(&mut self, updates: &Value) -> Result<(), ProtocolError> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let updates = update::parse(updates, Notation::Update2, server)?;
        server.apply(updates);
        server.take_changes();
        let database = &self.config.database;
        let row = server::row(server, database).ok_or_else(|| ProtocolError::NoDatabase(database.clone()))?;
        let text = server::judge(&row, self.config.leader_only, &mut self.seen)?;
        if !matches!(self.phase, Phase::Server) {
            return Ok(());
        }
        let malformed = |_| SchemaError::Malformed(text.chars().take(100).collect());
        let schema: Value = serde_json::from_str(text).map_err(malformed)?;
        self.schema_arrived(&schema)
    }

    fn schema_arrived(&mut self, result: &Value) -> Result<(), ProtocolError> {
        let schema = Schema::from_json(result)?;
        let (fresh, missing) = Replica::with_schema(&self.config.tables, &schema)?;
        for missing in missing {
            let text = format!("{}: {missing}", self.session.name());
            self.session.log(Level::Warn, &OVSDB_IDL, text);
        }
        // What is here can be brought up to date only if it has the same columns.
        self.last_txn = self.last_txn.take().filter(|_| fresh.same_columns(&self.replica));
        self.phase = Phase::Monitor(Box::new(fresh));
        if let Some(lock) = self.config.lock.clone() {
            self.request("lock", vec![json!(lock)], Pending::Lock);
        }
        self.monitor(Method::CondSince);
        Ok(())
    }

    fn monitor_id(&self) -> Value {
        json!(["monid", self.config.database])
    }

    fn monitor(&mut self, method: Method) {
        let Phase::Monitor(fresh) = &self.phase else {
            return;
        };
        let mut params = vec![json!(self.config.database), self.monitor_id(), fresh.monitor_requests()];
        if method == Method::CondSince {
            params.push(json!(self.last_txn.as_deref().unwrap_or(NO_TRANSACTION)));
        }
        self.request(method.request(), params, Pending::Monitor(method));
    }

    fn contents_arrived(&mut self, result: &Value, method: Method) -> Result<(), ProtocolError> {
        let malformed = || ProtocolError::Malformed {
            what: "reply to monitor_cond_since request",
            json: excerpt(result),
        };
        let (found, last, contents) = match method {
            Method::CondSince => match result.as_array().map(Vec::as_slice) {
                Some([Value::Bool(found), Value::String(last), contents]) => {
                    (*found, Some(last.clone()), contents)
                }
                _ => return Err(malformed()),
            },
            _ => (false, None, result),
        };
        if found && self.last_txn.is_none() {
            return Err(malformed());
        }
        let asked = matches!(self.phase, Phase::Monitor(_));
        let Some(Phase::Monitor(mut fresh)) =
            asked.then(|| std::mem::replace(&mut self.phase, Phase::Synced(method)))
        else {
            return Ok(());
        };
        if found {
            coverage::SYNC_CHANGES.inc();
            self.update(contents, method)?;
        } else {
            coverage::SYNC_ALL.inc();
            let updates = update::parse(contents, method.notation(), &fresh)?;
            fresh.apply(updates);
            self.replica.replace(*fresh);
        }
        self.last_txn = last;
        Ok(())
    }

    /// Changes of rows. What does not fit means that the replica is not what the server takes it for: the next
    /// connection begins anew.
    fn update(&mut self, updates: &Value, method: Method) -> Result<(), ProtocolError> {
        let parsed = update::parse(updates, method.notation(), &self.replica);
        let parsed = parsed.inspect_err(|_| self.last_txn = None)?;
        self.replica.apply(parsed);
        Ok(())
    }

    fn notified(&mut self, method: &str, params: Vec<Value>) -> Result<(), ProtocolError> {
        let malformed = |what| ProtocolError::Malformed { what, json: excerpt(&json!(params)) };
        match method {
            "update" | "update2" | "update3" => {
                let (id, last, updates) = match params.as_slice() {
                    [id, Value::String(last), updates] if method == "update3" => (id, Some(last), updates),
                    [id, updates] if method != "update3" => (id, None, updates),
                    _ => return Err(malformed("update notification")),
                };
                if method == "update2" && *id == json!(["monid", SERVER]) && self.server.is_some() {
                    return self.server_changed(updates);
                }
                match self.phase {
                    Phase::Synced(spoken) if spoken.notification() == method && *id == self.monitor_id() => {
                        self.update(updates, spoken)?;
                        self.last_txn = last.cloned();
                        Ok(())
                    }
                    _ => self.unexpected("update", id),
                }
            }
            "locked" | "stolen" => {
                let [Value::String(name)] = params.as_slice() else {
                    return Err(malformed("lock notification"));
                };
                if self.config.lock.as_ref() == Some(name) {
                    self.set_lock(if method == "locked" { Lock::Held } else { Lock::Contended });
                }
                Ok(())
            }
            "monitor_canceled" => Err(ProtocolError::Canceled(self.config.database.clone())),
            _ => self.unexpected("notification", &json!(method)),
        }
    }

    fn set_lock(&mut self, lock: Lock) {
        if self.lock != lock {
            self.lock = lock;
            if self.has_ever_synced() {
                self.replica.bump();
            }
        }
    }
}

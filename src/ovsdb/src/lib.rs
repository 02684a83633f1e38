//! OVSDB client (RFC 7047) as state machines: bytes in and out, no sockets, time given by the caller.
//!
//! * [`jsonrpc`]: JSON-RPC over a byte stream, for either side ([`Framer`], [`Message`]).
//! * [`Reconnect`], [`Session`]: a connection that comes back by itself, with back-off, probes and echoes.
//! * [`Client`]: the replica of some tables and columns of a database, its lock, transactions.
//! * [`Replica`], [`RowRef`]: reading rows. [`Transaction`], [`Outcome`]: writing them.
//!
//! Neighbours: the daemon owns the socket of a [`Client`]; `bridge` says what to replicate, reads rows and
//! submits transactions; the daemon's control socket uses [`jsonrpc`] alone.
//! Threads: everything belongs to the thread that made it; nothing blocks.
//!
//! ```
//! use ovsdb::{Client, ClientConfig, Outcome, TableSpec, Transaction, Wanted};
//!
//! let tables = vec![
//!     TableSpec::new("Open_vSwitch").columns(["bridges", "next_cfg"]).quiet(["cur_cfg"]),
//!     TableSpec::new("Bridge").columns(["name", "ports", "other_config"]),
//! ];
//! let config = ClientConfig::new("unix:/run/openvswitch/db.sock", "Open_vSwitch", tables);
//! let mut client = Client::new(config.lock("ovs_vswitchd"));
//!
//! // The owner's loop, once around.
//! let now_ms = 0;
//! if client.run(now_ms) == Wanted::Connect {
//!     client.connect_failed(now_ms, "No such file or directory"); // or: client.connected(now_ms)
//! }
//! assert_eq!(client.deadline(), Some(1000));
//!
//! // Reading and writing.
//! let replica = client.replica();
//! if let Some(root) = replica.only_row("Open_vSwitch") {
//!     for bridge in replica.follow(&root, "bridges", "Bridge") {
//!         println!("{} {:?}", bridge.str("name"), bridge.map_get("other_config", "hwaddr"));
//!     }
//!     let mut txn = Transaction::new();
//!     txn.set(&root.id(), "cur_cfg", root.int("next_cfg"));
//!     let _ = client.submit(&txn);
//! }
//! client.take_log().iter().for_each(ovsdb::LogLine::write);
//! for (_id, outcome) in client.take_outcomes() {
//!     assert!(matches!(outcome, Outcome::Success(_) | Outcome::Unchanged));
//! }
//! ```

#![forbid(unsafe_code)]

mod client;
pub mod coverage;
mod datum;
pub mod jsonrpc;
mod logline;
mod reconnect;
mod replica;
mod schema;
mod server;
mod session;
mod txn;
mod update;
mod uuid;

pub use client::{Client, ClientConfig};
pub use datum::{Atom, Datum, DatumError};
pub use jsonrpc::{Framer, Limits, Message, RpcError};
pub use logline::LogLine;
pub use reconnect::{Action, Reconnect};
pub use replica::{Change, ChangeKind, Missing, Replica, RowId, RowRef, Table, TableSpec};
pub use schema::{AtomicType, ColumnType, Schema, SchemaError};
pub use session::{default_probe_interval_ms, Session, Wanted};
pub use txn::{Mutation, Outcome, SubmitError, Transaction, TxnError, TxnId};
pub use update::UpdateError;
pub use uuid::{Uuid, UuidError};

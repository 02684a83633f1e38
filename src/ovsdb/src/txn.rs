//! Transactions: what to write, how it goes on the wire, what came of it.
//!
//! Neighbours: [`crate::client`] submits a [`Transaction`] and reports its [`Outcome`]; values are checked
//! against the types in [`crate::replica`].
//! Threads: a transaction is a plain value until it is submitted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{json, Map, Value};

use crate::datum::{Atom, Datum, DatumError};
use crate::jsonrpc::excerpt;
use crate::replica::{Replica, RowId, RowRef, Table};
use crate::schema::{AtomicType, ColumnType};
use crate::uuid::Uuid;

/// Upper half of the stand-in UUIDs of rows to be inserted; no UUID generator makes such ones.
const STAND_IN: u128 = 0xffff_ffff_ffff_ffff << 64;

/// Identifies a submitted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u64);

/// A change of a column that does not depend on its present value being known.
#[derive(Clone, Debug, PartialEq)]
pub enum Mutation {
    /// Adds to an integer.
    Add(i64),
    /// Adds elements to a set, or pairs with new keys to a map.
    Insert(Datum),
    /// Removes elements from a set, pairs from a map, or (given a set) keys from a map.
    Delete(Datum),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Edit {
    insert: bool,
    set: BTreeMap<Arc<str>, Datum>,
    mutations: Vec<(Arc<str>, Mutation)>,
}

/// A list of changes that happen all or not at all. The order of calls does not matter: of two values for one
/// column the last wins, and a deleted row stays deleted.
///
/// ```
/// use ovsdb::{Replica, Transaction};
/// fn add_port(replica: &Replica, port: &str) -> Option<Transaction> {
///     let bridge = replica.rows("Bridge").find(|row| row.str("name") == "br0")?;
///     let mut txn = Transaction::new();
///     txn.comment("add a port");
///     let interface = txn.insert("Interface");
///     txn.set(&interface, "name", port);
///     let row = txn.insert("Port");
///     txn.set(&row, "name", port);
///     txn.set(&row, "interfaces", interface.uuid);
///     txn.verify(&bridge, "ports");
///     txn.mutate(&bridge.id(), "ports", ovsdb::Mutation::Insert(row.uuid.into()));
///     Some(txn)
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    comments: Vec<String>,
    waits: Vec<(RowId, Arc<str>, Datum)>,
    edits: BTreeMap<RowId, Edit>,
    deletes: BTreeSet<RowId>,
    inserted: u64,
}

/// Why a transaction was not even sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is no connection, or the contents have not arrived yet.
    #[error("database is not connected; submit again when it is")]
    NotConnected,
    /// We do not hold the lock that protects our writes.
    #[error("database lock \"{0}\" is not held; submit again when it is")]
    NotLocked(String),
    /// So many transactions have no answer yet that the server must be stuck.
    #[error("{0} transactions are waiting for an answer already")]
    TooMany(usize),
    /// A table that the client does not ask for.
    #[error("table {0} is not replicated: ask for it in the client's tables")]
    UnknownTable(String),
    /// A column that the client does not ask for.
    #[error("column {column} of table {table} is not replicated: ask for it in the client's tables")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A value that the column cannot hold.
    #[error("bad value for column {column} of table {table}: {error}")]
    BadValue {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong with it.
        error: DatumError,
    },
    /// Adding to something that is no number.
    #[error("column {column} of table {table} is no integer to add to")]
    NotNumeric {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
}

/// An error from the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}{details}{}", if details.is_empty() { "" } else { ": " }, at(operation))]
pub struct TxnError {
    /// The server's error string, like "constraint violation".
    pub error: String,
    /// Its explanation, may be empty.
    pub details: String,
    /// Which operation was refused, like "update of row UUID in table Interface"; empty if the server does not tell.
    pub operation: String,
}

/// The end of an error's text that names the operation.
fn at(operation: &str) -> String {
    match operation {
        "" => String::new(),
        operation => format!(" ({operation})"),
    }
}

/// What came of a submitted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to change; nothing was sent.
    Unchanged,
    /// It is in the database, and in the replica. With each inserted row's UUID by the name that
    /// [`Transaction::insert`] gave it.
    Success(Vec<(RowId, Uuid)>),
    /// The database was not in the expected state, or the connection ended before the answer came (then the
    /// transaction may or may not have happened): look at the replica again, then try again.
    TryAgain,
    /// Another client took the lock.
    NotLocked,
    /// The server refused it and will again.
    Error(TxnError),
}

impl Outcome {
    /// The UUID of a row that the transaction inserted.
    pub fn inserted(&self, row: &RowId) -> Option<Uuid> {
        match self {
            Outcome::Success(rows) => rows.iter().find(|(id, _)| id == row).map(|(_, uuid)| *uuid),
            _ => None,
        }
    }
}

impl Transaction {
    /// An empty transaction.
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// A text for the database's log. It alone makes no transaction.
    pub fn comment(&mut self, text: &str) {
        self.comments.push(text.into());
    }

    /// Sets a column. If that is its value already, nothing is sent.
    pub fn set(&mut self, row: &RowId, column: &str, value: impl Into<Datum>) {
        self.edit(row).set.insert(column.into(), value.into());
    }

    /// Changes a column relative to its value.
    pub fn mutate(&mut self, row: &RowId, column: &str, mutation: Mutation) {
        self.edit(row).mutations.push((column.into(), mutation));
    }

    /// Inserts a row; `uuid` of the returned name may be used as a reference in this transaction.
    pub fn insert(&mut self, table: &str) -> RowId {
        let row = RowId { table: table.into(), uuid: Uuid(STAND_IN | u128::from(self.inserted)) };
        self.inserted += 1;
        self.edit(&row).insert = true;
        row
    }

    /// Deletes a row.
    pub fn delete(&mut self, row: &RowId) {
        self.deletes.insert(row.clone());
    }

    /// Makes the transaction happen only if the column still has the value it has in the replica now.
    pub fn verify(&mut self, row: &RowRef<'_>, column: &str) {
        if let Some(value) = row.get(column) {
            self.wait(&row.id(), column, value.clone());
        }
    }

    /// Makes the transaction happen only if the column has this value.
    pub fn wait(&mut self, row: &RowId, column: &str, value: impl Into<Datum>) {
        self.waits.push((row.clone(), column.into(), value.into()));
    }

    /// True when there is nothing in it that could change the database.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.deletes.is_empty()
    }

    fn edit(&mut self, row: &RowId) -> &mut Edit {
        self.edits.entry(row.clone()).or_default()
    }
}

/// A transaction ready to send.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) operations: Vec<Value>,
    pub(crate) answer: Expected,
}

/// What is needed to understand the answer.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Each operation, and the row that it is about, if it is about one.
    operations: Vec<(&'static str, Option<RowId>)>,
    /// Operation index and name of each inserted row.
    inserts: Vec<(usize, RowId)>,
    /// Columns that are being written.
    pub(crate) writes: HashSet<(RowId, Arc<str>)>,
}

/// Checks a transaction against the replica and turns it into operations; none if nothing would change.
/// `in_flight` tells whether an unanswered transaction writes a column.
pub(crate) fn compile(
    txn: &Transaction,
    replica: &Replica,
    lock: Option<&str>,
    in_flight: &dyn Fn(&RowId, &Arc<str>) -> bool,
) -> Result<Option<Compiled>, SubmitError> {
    let mut compiler =
        Compiler { txn, replica, in_flight, operations: Vec::new(), expected: Expected::default() };
    compiler.waits()?;
    if let Some(lock) = lock {
        compiler.push("assert", None, json!({"op": "assert", "lock": lock}));
    }
    let before = compiler.operations.len();
    for row in &txn.deletes {
        compiler.delete(row)?;
    }
    for (row, edit) in &txn.edits {
        if !txn.deletes.contains(row) {
            compiler.edit(row, edit)?;
        }
    }
    if compiler.operations.len() == before {
        return Ok(None);
    }
    if !txn.comments.is_empty() {
        compiler.push("comment", None, json!({"op": "comment", "comment": txn.comments.join("\n")}));
    }
    let Compiler { operations, expected, .. } = compiler;
    Ok(Some(Compiled { operations, answer: expected }))
}

struct Compiler<'a> {
    txn: &'a Transaction,
    replica: &'a Replica,
    in_flight: &'a dyn Fn(&RowId, &Arc<str>) -> bool,
    operations: Vec<Value>,
    expected: Expected,
}

impl<'a> Compiler<'a> {
    fn push(&mut self, name: &'static str, row: Option<&RowId>, operation: Value) {
        self.operations.push(operation);
        self.expected.operations.push((name, row.cloned()));
    }

    fn table(&self, row: &RowId) -> Result<&'a Table, SubmitError> {
        self.replica.table(&row.table).ok_or_else(|| SubmitError::UnknownTable(row.table.to_string()))
    }

    /// The type of a column; none if the server's schema lacks it.
    fn column(&self, table: &Table, column: &Arc<str>) -> Result<Option<ColumnType>, SubmitError> {
        if !table.has_column(column) {
            return Err(SubmitError::UnknownColumn {
                table: table.name().into(),
                column: column.to_string(),
            });
        }
        Ok(table.column_type(column))
    }

    /// The name of a row that this transaction inserts.
    fn name(&self, uuid: Uuid) -> Option<String> {
        let n = uuid.0 ^ STAND_IN;
        (n < u128::from(self.txn.inserted)).then(|| format!("row{n}"))
    }

    fn json(&self, datum: &Datum) -> Value {
        datum.to_json_with(&|uuid| self.name(uuid))
    }

    fn select(&self, row: &RowId) -> Value {
        json!([["_uuid", "==", self.json(&Datum::from(row.uuid))]])
    }

    fn waits(&mut self) -> Result<(), SubmitError> {
        for (row, column, value) in &self.txn.waits {
            let table = self.table(row)?;
            let Some(ty) = self.column(table, column)? else {
                continue;
            };
            value.check(&ty).map_err(|error| bad_value(row, column, error))?;
            let mut columns = Map::new();
            columns.insert(column.to_string(), self.json(&value.clone().shaped(&ty)));
            let operation = json!({
                "op": "wait", "table": &*row.table, "timeout": 0, "where": self.select(row),
                "columns": [&**column], "until": "==", "rows": [columns],
            });
            self.push("wait", Some(row), operation);
        }
        Ok(())
    }

    fn delete(&mut self, row: &RowId) -> Result<(), SubmitError> {
        if self.table(row)?.row(row.uuid).is_some() {
            let operation = json!({"op": "delete", "table": &*row.table, "where": self.select(row)});
            self.push("delete", Some(row), operation);
        }
        Ok(())
    }

    fn edit(&mut self, row: &RowId, edit: &Edit) -> Result<(), SubmitError> {
        let table = self.table(row)?;
        let old = table.row(row.uuid);
        if !table.exists() || (old.is_none() && !edit.insert) {
            return Ok(());
        }
        let mut columns = Map::new();
        for (column, value) in &edit.set {
            let Some(ty) = self.column(table, column)? else {
                continue;
            };
            value.check(&ty).map_err(|error| bad_value(row, column, error))?;
            let value = value.clone().shaped(&ty);
            let known = old.as_ref().and_then(|old| old.get(column));
            if known == Some(&value) && !(self.in_flight)(row, column) {
                continue;
            }
            columns.insert(column.to_string(), self.json(&value));
            self.expected.writes.insert((row.clone(), column.clone()));
        }
        if edit.insert {
            self.expected.inserts.push((self.operations.len(), row.clone()));
            let name = self.name(row.uuid);
            let operation = json!({"op": "insert", "table": &*row.table, "row": columns, "uuid-name": name});
            self.push("insert", Some(row), operation);
        } else if !columns.is_empty() {
            let select = self.select(row);
            let operation = json!({"op": "update", "table": &*row.table, "where": select, "row": columns});
            self.push("update", Some(row), operation);
        }
        self.mutations(row, table, &edit.mutations)
    }

    fn mutations(
        &mut self,
        row: &RowId,
        table: &Table,
        mutations: &[(Arc<str>, Mutation)],
    ) -> Result<(), SubmitError> {
        let mut list = Vec::new();
        for (column, mutation) in mutations {
            let Some(ty) = self.column(table, column)? else {
                continue;
            };
            list.push(self.mutation(row, column, mutation, &ty)?);
            self.expected.writes.insert((row.clone(), column.clone()));
        }
        if !list.is_empty() {
            let select = self.select(row);
            let operation = json!({"op": "mutate", "table": &*row.table, "where": select, "mutations": list});
            self.push("mutate", Some(row), operation);
        }
        Ok(())
    }

    fn mutation(
        &self,
        row: &RowId,
        column: &Arc<str>,
        mutation: &Mutation,
        ty: &ColumnType,
    ) -> Result<Value, SubmitError> {
        let bad = |error| bad_value(row, column, error);
        match mutation {
            Mutation::Add(n) if ty.key == AtomicType::Integer && ty.value.is_none() => {
                Ok(json!([&**column, "+=", n]))
            }
            Mutation::Add(_) => {
                Err(SubmitError::NotNumeric { table: row.table.to_string(), column: column.to_string() })
            }
            Mutation::Insert(datum) => {
                datum.check_types(ty).map_err(bad)?;
                Ok(json!([&**column, "insert", self.json(&datum.clone().shaped(ty))]))
            }
            Mutation::Delete(keys @ Datum::Set(_)) => {
                keys.check_types(&ColumnType { value: None, ..*ty }).map_err(bad)?;
                Ok(json!([&**column, "delete", self.json(keys)]))
            }
            Mutation::Delete(pairs) => {
                pairs.check_types(ty).map_err(bad)?;
                Ok(json!([&**column, "delete", self.json(pairs)]))
            }
        }
    }
}

fn bad_value(row: &RowId, column: &Arc<str>, error: DatumError) -> SubmitError {
    SubmitError::BadValue { table: row.table.to_string(), column: column.to_string(), error }
}

/// Turns the error member of an answer into an error.
pub(crate) fn server_error(json: &Value) -> TxnError {
    let member = |name| json.get(name).and_then(Value::as_str).map(String::from);
    let operation = String::new();
    match json.as_str().map(String::from).or_else(|| member("error")) {
        Some(error) => TxnError { error, details: member("details").unwrap_or_default(), operation },
        None => TxnError { error: "unknown error".into(), details: excerpt(json), operation },
    }
}

/// What an error of the server means for the transaction. Some errors are no fault of it: the server lost its
/// place in the cluster, or the database is being replaced.
pub(crate) fn judge(error: TxnError) -> Outcome {
    match error.error.as_str() {
        "timed out" | "try again" | "canceled" | "unknown database" | "not leader" | "cluster error" => {
            Outcome::TryAgain
        }
        "not owner" => Outcome::NotLocked,
        _ => Outcome::Error(error),
    }
}

impl Expected {
    /// Names an operation for an error; one beyond the last is the check of the whole transaction.
    fn describe(&self, index: usize) -> String {
        match self.operations.get(index) {
            Some((name, Some(row))) if row.uuid.0 & STAND_IN == STAND_IN => {
                format!("{name} of a new row in table {}", row.table)
            }
            Some((name, Some(row))) => format!("{name} of row {} in table {}", row.uuid, row.table),
            Some((name, None)) => (*name).into(),
            None => String::new(),
        }
    }

    /// Understands the server's answer.
    pub(crate) fn outcome(&self, result: &Value) -> Outcome {
        let malformed = || {
            Outcome::Error(TxnError {
                error: "malformed answer".into(),
                details: excerpt(result),
                operation: String::new(),
            })
        };
        let Some(results) = result.as_array() else {
            return malformed();
        };
        let failed = |r: &Value| r.get("error").is_some_and(|error| !error.is_null());
        if let Some(index) = results.iter().position(failed) {
            return judge(TxnError { operation: self.describe(index), ..server_error(&results[index]) });
        }
        if results.len() < self.operations.len() {
            return malformed();
        }
        let uuid = |index: usize| -> Option<Uuid> {
            let atom = Atom::from_json(results.get(index)?.get("uuid")?, AtomicType::Uuid).ok()?;
            atom.as_uuid()
        };
        let rows: Option<Vec<(RowId, Uuid)>> =
            self.inserts.iter().map(|(index, row)| Some((row.clone(), uuid(*index)?))).collect();
        rows.map_or_else(malformed, Outcome::Success)
    }
}

//! The copy of the database that the client keeps: tables, rows, and what changed in them.
//!
//! Neighbours: [`crate::update`] turns the server's notifications into row changes, [`crate::client`]
//! applies them, the `bridge` crate reads rows through [`RowRef`].
//! Threads: belongs to the thread of its client.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::{json, Map, Value};

use crate::datum::{Atom, Datum};
use crate::schema::{ColumnType, Schema};
use crate::uuid::Uuid;

/// A column that the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ColumnSpec {
    name: Arc<str>,
    quiet: bool,
    required: bool,
}

/// A table that the client asks for, and which of its columns.
///
/// ```
/// use ovsdb::TableSpec;
/// let bridges = TableSpec::new("Bridge").columns(["name", "ports"]).quiet(["datapath_id"]).optional(["new"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    name: Arc<str>,
    columns: Vec<ColumnSpec>,
    required: bool,
}

impl TableSpec {
    /// A table that the server's schema must have.
    pub fn new(name: &str) -> TableSpec {
        TableSpec { name: name.into(), columns: Vec::new(), required: true }
    }

    /// Columns that the schema must have and whose changes count.
    pub fn columns<'a>(self, names: impl IntoIterator<Item = &'a str>) -> TableSpec {
        self.add(names, false, true)
    }

    /// Columns that the schema must have and that only we write: their changes do not advance the change
    /// sequence number, and they are known here so that only differences are sent.
    pub fn quiet<'a>(self, names: impl IntoIterator<Item = &'a str>) -> TableSpec {
        self.add(names, true, true)
    }

    /// Columns that an older schema may lack; then they read as absent, and writing them does nothing.
    pub fn optional<'a>(self, names: impl IntoIterator<Item = &'a str>) -> TableSpec {
        self.add(names, false, false)
    }

    /// Like [`TableSpec::quiet`], for columns that an older schema may lack.
    pub fn optional_quiet<'a>(self, names: impl IntoIterator<Item = &'a str>) -> TableSpec {
        self.add(names, true, false)
    }

    /// The schema may lack the whole table; then it reads as empty.
    pub fn optional_table(mut self) -> TableSpec {
        self.required = false;
        self
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn add<'a>(mut self, names: impl IntoIterator<Item = &'a str>, quiet: bool, required: bool) -> TableSpec {
        for name in names {
            if !self.columns.iter().any(|c| &*c.name == name) {
                self.columns.push(ColumnSpec { name: name.into(), quiet, required });
            }
        }
        self
    }
}

/// What the client asks for and the server's schema does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// A whole table.
    #[error("{database} database lacks {table} table (database needs upgrade?)")]
    Table {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// A column.
    #[error("{table} table in {database} database lacks {column} column (database needs upgrade?)")]
    Column {
        /// The database.
        database: String,
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    /// None when the server's schema lacks an optional column.
    pub(crate) ty: Option<ColumnType>,
    pub(crate) quiet: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) values: Vec<Datum>,
    pub(crate) changed: u64,
}

/// A table of the replica.
#[derive(Clone, Debug)]
pub struct Table {
    name: Arc<str>,
    columns: Vec<Column>,
    index: HashMap<Arc<str>, usize>,
    rows: BTreeMap<Uuid, Row>,
    exists: bool,
}

impl Table {
    fn from_spec(spec: &TableSpec) -> Table {
        let columns: Vec<Column> =
            spec.columns.iter().map(|c| Column { name: c.name.clone(), ty: None, quiet: c.quiet }).collect();
        let index = columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        Table { name: spec.name.clone(), columns, index, rows: BTreeMap::new(), exists: false }
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, sorted by UUID.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.rows.iter().map(move |(uuid, row)| RowRef { table: self, uuid: *uuid, row })
    }

    /// One row.
    pub fn row(&self, uuid: Uuid) -> Option<RowRef<'_>> {
        self.rows.get(&uuid).map(|row| RowRef { table: self, uuid, row })
    }

    /// True when the client asks for the column, be it in the server's schema or not.
    pub fn has_column(&self, column: &str) -> bool {
        self.index.contains_key(column)
    }

    /// The column's type in the server's schema; none before the first connection.
    pub fn column_type(&self, column: &str) -> Option<ColumnType> {
        self.column(self.column_index(column)?).ty
    }

    /// False until the server's schema showed that it has the table.
    pub fn exists(&self) -> bool {
        self.exists
    }

    pub(crate) fn column_index(&self, column: &str) -> Option<usize> {
        self.index.get(column).copied()
    }

    pub(crate) fn column(&self, index: usize) -> &Column {
        &self.columns[index]
    }

    pub(crate) fn raw_row(&self, uuid: Uuid) -> Option<&Row> {
        self.rows.get(&uuid)
    }

    fn defaults(&self) -> Vec<Datum> {
        self.columns.iter().map(|c| c.ty.map_or(Datum::EMPTY, |ty| Datum::default_of(&ty))).collect()
    }

    /// The monitor request for the table.
    fn monitor_request(&self) -> Value {
        let columns: Vec<&str> = self.columns.iter().filter(|c| c.ty.is_some()).map(|c| &*c.name).collect();
        json!([{ "columns": columns }])
    }
}

/// Names a row: of the replica, or one that a transaction is about to insert.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The table.
    pub table: Arc<str>,
    /// The row.
    pub uuid: Uuid,
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table, self.uuid)
    }
}

/// A row of the replica. Accessors never fail: a column that is absent, empty or of another type reads as
/// none, empty, false or 0.
#[derive(Clone, Copy)]
pub struct RowRef<'a> {
    table: &'a Table,
    uuid: Uuid,
    row: &'a Row,
}

impl<'a> RowRef<'a> {
    /// The row's UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The row's name for transactions.
    pub fn id(&self) -> RowId {
        RowId { table: self.table.name.clone(), uuid: self.uuid }
    }

    /// The table the row is in.
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// The change sequence number at which a column that counts last changed.
    pub fn changed(&self) -> u64 {
        self.row.changed
    }

    /// A column's value; none if the client does not ask for the column.
    pub fn get(&self, column: &str) -> Option<&'a Datum> {
        self.row.values.get(self.table.column_index(column)?)
    }

    fn scalar(&self, column: &str) -> Option<&'a Atom> {
        self.get(column)?.scalar()
    }

    fn atoms(&self, column: &str) -> &'a [Atom] {
        self.get(column).map_or(&[], Datum::atoms)
    }

    /// A string, if there is one.
    pub fn str_opt(&self, column: &str) -> Option<&'a str> {
        self.scalar(column)?.as_str()
    }

    /// A string, or the empty one.
    pub fn str(&self, column: &str) -> &'a str {
        self.str_opt(column).unwrap_or("")
    }

    /// An integer, if there is one.
    pub fn int_opt(&self, column: &str) -> Option<i64> {
        self.scalar(column)?.as_int()
    }

    /// An integer, or 0.
    pub fn int(&self, column: &str) -> i64 {
        self.int_opt(column).unwrap_or(0)
    }

    /// A truth value, if there is one.
    pub fn bool_opt(&self, column: &str) -> Option<bool> {
        match self.scalar(column)? {
            Atom::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// A truth value, or false.
    pub fn bool(&self, column: &str) -> bool {
        self.bool_opt(column).unwrap_or(false)
    }

    /// A real, if there is one.
    pub fn real_opt(&self, column: &str) -> Option<f64> {
        match self.scalar(column)? {
            Atom::Real(r) => Some(*r),
            _ => None,
        }
    }

    /// The strings of a set, sorted.
    pub fn strs(&self, column: &str) -> impl Iterator<Item = &'a str> + 'a {
        self.atoms(column).iter().filter_map(Atom::as_str)
    }

    /// The integers of a set, sorted.
    pub fn ints(&self, column: &str) -> impl Iterator<Item = i64> + 'a {
        self.atoms(column).iter().filter_map(Atom::as_int)
    }

    /// The row that an optional reference points to.
    pub fn ref_opt(&self, column: &str) -> Option<Uuid> {
        self.scalar(column)?.as_uuid()
    }

    /// The rows that a set of references points to; for a map with references as values, those.
    pub fn refs(&self, column: &str) -> impl Iterator<Item = Uuid> + 'a {
        let pairs = self.get(column).map_or(&[][..], Datum::pairs);
        let values = pairs.iter().map(|(_, value)| value);
        self.atoms(column).iter().chain(values).filter_map(Atom::as_uuid)
    }

    /// The value of a key in a map of strings, if it is there.
    pub fn map_get(&self, column: &str, key: &str) -> Option<&'a str> {
        self.get(column)?.get(key)?.as_str()
    }

    /// The truth value of a key in a map of strings: "true" or "false" in any case, else the default.
    pub fn map_bool(&self, column: &str, key: &str, default: bool) -> bool {
        match self.map_get(column, key) {
            Some(text) if default => !text.eq_ignore_ascii_case("false"),
            Some(text) => text.eq_ignore_ascii_case("true"),
            None => default,
        }
    }

    /// The decimal integer of a key in a map of strings, or the default if it is absent or no integer.
    pub fn map_int(&self, column: &str, key: &str, default: i64) -> i64 {
        self.map_get(column, key).and_then(|text| text.trim().parse().ok()).unwrap_or(default)
    }

    /// The pairs of a map of strings, sorted by key.
    pub fn map(&self, column: &str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let pairs = self.get(column).map_or(&[][..], Datum::pairs);
        pairs.iter().filter_map(|(k, v)| Some((k.as_str()?, v.as_str()?)))
    }

    /// The pairs of a map from integers to references, sorted by key.
    pub fn int_refs(&self, column: &str) -> impl Iterator<Item = (i64, Uuid)> + 'a {
        let pairs = self.get(column).map_or(&[][..], Datum::pairs);
        pairs.iter().filter_map(|(k, v)| Some((k.as_int()?, v.as_uuid()?)))
    }
}

impl fmt::Debug for RowRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"_uuid", &self.uuid);
        for (column, value) in self.table.columns.iter().zip(&self.row.values) {
            map.entry(&column.name, &value.to_json().to_string());
        }
        map.finish()
    }
}

/// What happened to a row since the changes were last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// The row is new.
    Inserted,
    /// A column that counts has another value.
    Modified,
    /// The row is gone.
    Deleted,
}

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row.
    pub row: RowId,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// A row's part of an update, checked against the replica.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowUpdate {
    /// The row with all columns.
    Insert(Vec<(usize, Datum)>),
    /// These columns have these values now.
    Modify(Vec<(usize, Datum)>),
    Delete,
}

/// Row updates of one message.
pub(crate) type Updates = Vec<(usize, Uuid, RowUpdate)>;

/// The client's copy of the tables and columns it asks for.
#[derive(Clone, Debug)]
pub struct Replica {
    tables: Vec<Table>,
    by_name: HashMap<Arc<str>, usize>,
    seqno: u64,
    changes: BTreeMap<(usize, Uuid), ChangeKind>,
}

impl Replica {
    /// An empty replica of these tables.
    pub(crate) fn new(specs: &[TableSpec]) -> Replica {
        let tables: Vec<Table> = specs.iter().map(Table::from_spec).collect();
        let by_name = tables.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Replica { tables, by_name, seqno: 0, changes: BTreeMap::new() }
    }

    /// An empty replica with the columns of a schema; required ones that it lacks are errors, optional ones
    /// are listed.
    pub(crate) fn with_schema(
        specs: &[TableSpec],
        schema: &Schema,
    ) -> Result<(Replica, Vec<Missing>), Missing> {
        let mut replica = Replica::new(specs);
        let mut lacking = Vec::new();
        for (spec, table) in specs.iter().zip(&mut replica.tables) {
            let database = schema.name.clone();
            let Some(columns) = schema.tables.get(&*spec.name) else {
                let missing = Missing::Table { database, table: spec.name.to_string() };
                if spec.required {
                    return Err(missing);
                }
                lacking.push(missing);
                continue;
            };
            table.exists = true;
            for (wanted, column) in spec.columns.iter().zip(&mut table.columns) {
                column.ty = columns.get(&*wanted.name).copied();
                if column.ty.is_none() {
                    let missing = Missing::Column {
                        database: database.clone(),
                        table: spec.name.to_string(),
                        column: wanted.name.to_string(),
                    };
                    if wanted.required {
                        return Err(missing);
                    }
                    lacking.push(missing);
                }
            }
        }
        Ok((replica, lacking))
    }

    /// Advances whenever something that counts changes, also when the lock comes or goes.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    /// Number of values kept: columns times rows.
    pub fn cells(&self) -> usize {
        self.tables.iter().map(|t| t.rows.len() * t.columns.len()).sum()
    }

    /// A table that the client asks for.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.by_name.get(name).map(|&i| &self.tables[i])
    }

    /// All rows of a table, sorted by UUID.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.table(table).into_iter().flat_map(Table::rows)
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<RowRef<'_>> {
        self.table(table)?.row(uuid)
    }

    /// The row of a table that has only one, like `Open_vSwitch`.
    pub fn only_row(&self, table: &str) -> Option<RowRef<'_>> {
        self.rows(table).next()
    }

    /// The rows of `table` that a column of references points to. References to rows that are not (or no longer)
    /// there are skipped.
    pub fn follow<'a>(
        &'a self,
        row: &RowRef<'a>,
        column: &str,
        table: &str,
    ) -> impl Iterator<Item = RowRef<'a>> + 'a {
        let table = self.table(table);
        row.refs(column).filter_map(move |uuid| table?.row(uuid))
    }

    /// Changes of rows since the last call, oldest state to newest: a row that came and went is not in it.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.changes);
        changes
            .into_iter()
            .map(|((table, uuid), kind)| Change {
                row: RowId { table: self.tables[table].name.clone(), uuid },
                kind,
            })
            .collect()
    }

    pub(crate) fn bump(&mut self) {
        self.seqno += 1;
    }

    pub(crate) fn table_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn table_at(&self, index: usize) -> &Table {
        &self.tables[index]
    }

    /// The parameter of `monitor` and `monitor_cond`.
    pub(crate) fn monitor_requests(&self) -> Value {
        let tables = self.tables.iter().filter(|t| t.exists);
        Value::Object(tables.map(|t| (t.name.to_string(), t.monitor_request())).collect::<Map<_, _>>())
    }

    /// True when the schemas of both have the same of the columns that the client asks for.
    pub(crate) fn same_columns(&self, other: &Replica) -> bool {
        let same = |(a, b): (&Table, &Table)| {
            a.exists == b.exists && a.columns.iter().zip(&b.columns).all(|(a, b)| a.ty == b.ty)
        };
        self.tables.iter().zip(&other.tables).all(same)
    }

    /// Applies the updates of one message.
    pub(crate) fn apply(&mut self, updates: Updates) {
        let next = self.seqno + 1;
        let mut alert = false;
        for (index, uuid, update) in updates {
            if let Some(kind) = self.tables[index].apply(uuid, update, next) {
                alert = true;
                note(&mut self.changes, (index, uuid), kind);
            }
        }
        if alert {
            self.seqno = next;
        }
    }

    /// Takes over the contents of a replica made after a reconnect; what differs from the old is a change.
    pub(crate) fn replace(&mut self, mut fresh: Replica) {
        let next = self.seqno + 1;
        for (index, (old, new)) in self.tables.iter().zip(&mut fresh.tables).enumerate() {
            for uuid in old.rows.keys().filter(|uuid| !new.rows.contains_key(uuid)) {
                note(&mut self.changes, (index, *uuid), ChangeKind::Deleted);
            }
            for (uuid, row) in &mut new.rows {
                let kind = match old.rows.get(uuid) {
                    None => ChangeKind::Inserted,
                    Some(was) => {
                        let differs = |(i, c): (usize, &Column)| !c.quiet && was.values[i] != row.values[i];
                        if !new.columns.iter().enumerate().any(differs) {
                            row.changed = was.changed;
                            continue;
                        }
                        ChangeKind::Modified
                    }
                };
                row.changed = next;
                note(&mut self.changes, (index, *uuid), kind);
            }
        }
        self.tables = fresh.tables;
        self.seqno = next;
    }
}

impl Table {
    /// Applies one update; returns the change if it counts.
    fn apply(&mut self, uuid: Uuid, update: RowUpdate, seqno: u64) -> Option<ChangeKind> {
        match update {
            RowUpdate::Insert(values) => {
                let mut row = Row { values: self.defaults(), changed: seqno };
                for (column, datum) in values {
                    row.values[column] = datum;
                }
                let was = self.rows.insert(uuid, row);
                Some(if was.is_some() { ChangeKind::Modified } else { ChangeKind::Inserted })
            }
            RowUpdate::Modify(values) => {
                let row = self.rows.get_mut(&uuid)?;
                let mut alert = false;
                for (column, datum) in values {
                    if row.values[column] != datum {
                        alert |= !self.columns[column].quiet;
                        row.values[column] = datum;
                    }
                }
                if alert {
                    row.changed = seqno;
                }
                alert.then_some(ChangeKind::Modified)
            }
            RowUpdate::Delete => self.rows.remove(&uuid).map(|_| ChangeKind::Deleted),
        }
    }
}

/// Merges a change into those not yet taken. There is at most one for each row that is here now or was here
/// when the changes were last taken, so a reader that never takes them costs no more than that.
fn note(changes: &mut BTreeMap<(usize, Uuid), ChangeKind>, key: (usize, Uuid), kind: ChangeKind) {
    use ChangeKind::*;
    let merged = match (changes.get(&key), kind) {
        (Some(Inserted), Deleted) => {
            changes.remove(&key);
            return;
        }
        (Some(Inserted), _) => Inserted,
        (Some(Deleted), Inserted) => Modified,
        (_, kind) => kind,
    };
    changes.insert(key, merged);
}

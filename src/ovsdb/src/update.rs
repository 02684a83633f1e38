//! Parses `update` and `update2` notifications into changes of rows. All of a message is checked before any of
//! it is applied, so a broken one leaves the replica as it was.
//!
//! Neighbours: [`crate::client`] hands in the JSON, [`crate::replica`] applies the result.
//! Threads: pure functions.

use serde_json::{Map, Value};

use crate::datum::{Datum, DatumError};
use crate::jsonrpc::excerpt;
use crate::replica::{Replica, Row, RowUpdate, Table, Updates};
use crate::uuid::Uuid;

/// Which of the two notations a monitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// `monitor`: old and new rows.
    Update,
    /// `monitor_cond`: differences.
    Update2,
}

/// An update that does not fit the schema or the replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Something that must be an object is none.
    #[error("{what} is not an object: {json}")]
    NotObject {
        /// What it is.
        what: &'static str,
        /// Its start.
        json: String,
    },
    /// A table nobody asked for.
    #[error("update to unknown table \"{0}\"")]
    UnknownTable(String),
    /// A column nobody asked for.
    #[error("update to unknown column \"{column}\" in table {table}")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A row key that is no UUID.
    #[error("update to table {table} contains bad UUID \"{key}\" as member name")]
    BadUuid {
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
    /// A value of the wrong type.
    #[error("error parsing column {column} in row {uuid} in table {table}: {error}")]
    BadValue {
        /// The table.
        table: String,
        /// The row.
        uuid: Uuid,
        /// The column.
        column: String,
        /// What is wrong with it.
        error: DatumError,
    },
    /// No known operation.
    #[error("update to row {uuid} in table {table} has no known operation: {json}")]
    BadOperation {
        /// The table.
        table: String,
        /// The row.
        uuid: Uuid,
        /// Its start.
        json: String,
    },
    /// A difference to a row that is not here.
    #[error("cannot modify missing row {uuid} in table {table}")]
    MissingRow {
        /// The table.
        table: String,
        /// The row.
        uuid: Uuid,
    },
}

fn object<'a>(json: &'a Value, what: &'static str) -> Result<&'a Map<String, Value>, UpdateError> {
    json.as_object().ok_or_else(|| UpdateError::NotObject { what, json: excerpt(json) })
}

/// Parses `<table-updates>` or `<table-updates2>` for a replica.
pub(crate) fn parse(json: &Value, notation: Notation, replica: &Replica) -> Result<Updates, UpdateError> {
    let mut updates = Vec::new();
    for (name, json) in object(json, "table updates")? {
        let index = replica
            .table_index(name)
            .filter(|&i| replica.table_at(i).exists())
            .ok_or_else(|| UpdateError::UnknownTable(name.clone()))?;
        let table = replica.table_at(index);
        for (key, json) in object(json, "table update")? {
            let uuid = key.parse().map_err(|_| UpdateError::BadUuid {
                table: name.clone(),
                key: key.chars().take(64).collect(),
            })?;
            let update = match notation {
                Notation::Update => parse_update(json, table, uuid)?,
                Notation::Update2 => parse_update2(json, table, uuid)?,
            };
            updates.push((index, uuid, update));
        }
    }
    Ok(updates)
}

fn parse_update(json: &Value, table: &Table, uuid: Uuid) -> Result<RowUpdate, UpdateError> {
    let bad = || UpdateError::BadOperation { table: table.name().into(), uuid, json: excerpt(json) };
    let members = object(json, "row update")?;
    let member = |name| members.get(name).filter(|value: &&Value| !value.is_null());
    match (member("old"), member("new")) {
        (_, Some(new)) => {
            let values = parse_row(new, table, uuid, None)?;
            match table.raw_row(uuid) {
                None => Ok(RowUpdate::Insert(values)),
                Some(_) => Ok(RowUpdate::Modify(values)),
            }
        }
        (Some(_), None) => Ok(RowUpdate::Delete),
        (None, None) => Err(bad()),
    }
}

fn parse_update2(json: &Value, table: &Table, uuid: Uuid) -> Result<RowUpdate, UpdateError> {
    let bad = || UpdateError::BadOperation { table: table.name().into(), uuid, json: excerpt(json) };
    let mut members = object(json, "row update")?.iter();
    let (Some((operation, row)), None) = (members.next(), members.next()) else {
        return Err(bad());
    };
    match operation.as_str() {
        "initial" | "insert" => Ok(RowUpdate::Insert(parse_row(row, table, uuid, None)?)),
        "modify" => {
            let old = table
                .raw_row(uuid)
                .ok_or_else(|| UpdateError::MissingRow { table: table.name().into(), uuid })?;
            Ok(RowUpdate::Modify(parse_row(row, table, uuid, Some(old))?))
        }
        "delete" => Ok(RowUpdate::Delete),
        _ => Err(bad()),
    }
}

/// Parses the columns of a row; with `old` they are differences to it.
fn parse_row(
    json: &Value,
    table: &Table,
    uuid: Uuid,
    old: Option<&Row>,
) -> Result<Vec<(usize, Datum)>, UpdateError> {
    let mut values = Vec::new();
    for (name, json) in object(json, "row")? {
        let unknown = || UpdateError::UnknownColumn { table: table.name().into(), column: name.clone() };
        let index = table.column_index(name).ok_or_else(unknown)?;
        let ty = table.column(index).ty.ok_or_else(unknown)?;
        let datum = Datum::from_json(json, &ty).map_err(|error| UpdateError::BadValue {
            table: table.name().into(),
            uuid,
            column: name.clone(),
            error,
        })?;
        let datum = match old {
            Some(old) => old.values[index].apply_diff(datum, &ty),
            None => datum,
        };
        values.push((index, datum));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{ChangeKind, TableSpec};
    use crate::schema::Schema;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;
    use serde_json::json;

    const A: &str = "00000000-0000-0000-0000-00000000000a";

    fn replica() -> Replica {
        let schema = Schema::from_json(&json!({"name": "D", "tables": {"T": {"columns": {
            "name": {"type": "string"},
            "opt": {"type": {"key": "integer", "min": 0}},
            "set": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
            "map": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            "stat": {"type": "integer"},
        }}}}))
        .unwrap();
        let specs = [
            TableSpec::new("T").columns(["name", "opt", "set"]).quiet(["stat"]).optional(["map", "none"]),
            TableSpec::new("U").columns(["x"]).optional_table(),
        ];
        let (replica, missing) = Replica::with_schema(&specs, &schema).unwrap();
        let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "T table in D database lacks none column (database needs upgrade?)",
                "D database lacks U table (database needs upgrade?)"
            ]
        );
        replica
    }

    fn apply(replica: &mut Replica, notation: Notation, json: Value) -> Result<(), UpdateError> {
        let updates = parse(&json, notation, replica)?;
        replica.apply(updates);
        Ok(())
    }

    #[test]
    fn update2_applies_differences() {
        let mut r = replica();
        let row =
            json!({"name": "x", "opt": 1, "set": ["set", [1, 2]], "map": ["map", [["a", "1"], ["b", "2"]]]});
        apply(&mut r, Notation::Update2, json!({"T": {A: {"insert": row}}})).unwrap();
        assert_eq!(r.seqno(), 1);
        let diff = json!({"opt": ["set", []], "set": ["set", [2, 3]], "map": ["map", [["a", "1"], ["b", "3"], ["c", "4"]]]});
        apply(&mut r, Notation::Update2, json!({"T": {A: {"modify": diff}}})).unwrap();
        assert_eq!(r.seqno(), 2);
        let row = r.only_row("T").unwrap();
        assert_eq!(row.int_opt("opt"), None);
        assert_eq!(row.ints("set").collect::<Vec<_>>(), [1, 3]);
        assert_eq!(row.map("map").collect::<Vec<_>>(), [("b", "3"), ("c", "4")]);
        assert_eq!((row.str("name"), row.int("stat"), row.str_opt("none")), ("x", 0, None));
        // A quiet column changes without notice.
        apply(&mut r, Notation::Update2, json!({"T": {A: {"modify": {"stat": 7}}}})).unwrap();
        assert_eq!((r.seqno(), r.only_row("T").unwrap().int("stat")), (2, 7));
        let kinds: Vec<ChangeKind> = r.take_changes().into_iter().map(|c| c.kind).collect();
        assert_eq!(kinds, [ChangeKind::Inserted]);
        apply(&mut r, Notation::Update2, json!({"T": {A: {"delete": null}}})).unwrap();
        assert_eq!(r.take_changes()[0].kind, ChangeKind::Deleted);
        assert!(r.table("T").unwrap().is_empty());
    }

    #[test]
    fn update_replaces_columns() {
        let mut r = replica();
        let new = json!({"name": "x", "opt": 1, "set": 5, "map": ["map", []], "stat": 0});
        apply(&mut r, Notation::Update, json!({"T": {A: {"new": new}}})).unwrap();
        let (old, new) = (json!({"set": 5}), json!({"name": "x", "set": ["set", [1, 5]]}));
        apply(&mut r, Notation::Update, json!({"T": {A: {"old": old, "new": new}}})).unwrap();
        assert_eq!(r.only_row("T").unwrap().ints("set").collect::<Vec<_>>(), [1, 5]);
        apply(&mut r, Notation::Update, json!({"T": {A: {"old": {"name": "x"}}}})).unwrap();
        assert!(r.only_row("T").is_none());
        assert!(r.take_changes().is_empty());
    }

    #[test]
    fn broken_updates_change_nothing() {
        let mut r = replica();
        apply(&mut r, Notation::Update2, json!({"T": {A: {"insert": {"name": "x"}}}})).unwrap();
        let b = "00000000-0000-0000-0000-00000000000b";
        for bad in [
            json!([]),
            json!({"U": {}}),
            json!({"V": {}}),
            json!({"T": 1}),
            json!({"T": {"x": {"insert": {}}}}),
            json!({"T": {b: {"modify": {"name": "y"}}}}),
            json!({"T": {A: {"delete": null}, b: {"insert": {"name": 1}}}}),
            json!({"T": {A: {"delete": null}, b: {"insert": {"nix": 1}}}}),
            json!({"T": {A: {"delete": null}, b: {"insert": {"none": 1}}}}),
            json!({"T": {A: {"delete": null, "insert": {}}}}),
            json!({"T": {A: {}}}),
            json!({"T": {A: {"jump": {}}}}),
            json!({"T": {A: {"modify": {"set": ["set", ["x"]]}}}}),
        ] {
            assert!(apply(&mut r, Notation::Update2, bad.clone()).is_err(), "{bad}");
        }
        assert!(apply(&mut r, Notation::Update, json!({"T": {A: {}}})).is_err());
        assert_eq!((r.seqno(), r.only_row("T").unwrap().str("name")), (1, "x"));
    }

    /// A row of the slow twin: `opt` and `set`.
    type Model = std::collections::BTreeMap<u128, (Option<i64>, std::collections::BTreeSet<i64>)>;

    fn model_row(row: &Model, key: u128) -> Value {
        let (opt, set) = &row[&key];
        let opt = Datum::from(*opt).to_json();
        json!({"opt": opt, "set": Datum::set(set.iter().copied()).to_json()})
    }

    /// What the server would say for the step from one state to the other, in either notation.
    fn difference(old: &Model, new: &Model, notation: Notation) -> Value {
        let mut rows = Map::new();
        for key in old.keys().chain(new.keys()) {
            let update = match (old.get(key), new.get(key), notation) {
                (a, b, _) if a == b => continue,
                (None, _, Notation::Update2) => json!({"insert": model_row(new, *key)}),
                (None, _, Notation::Update) => json!({"new": model_row(new, *key)}),
                (_, None, Notation::Update2) => json!({"delete": null}),
                (_, None, Notation::Update) => json!({"old": model_row(old, *key)}),
                (_, _, Notation::Update) => json!({"old": {}, "new": model_row(new, *key)}),
                (Some(a), Some(b), Notation::Update2) => {
                    let mut row = Map::new();
                    if a.0 != b.0 {
                        row.insert("opt".into(), Datum::from(b.0).to_json());
                    }
                    if a.1 != b.1 {
                        let both = a.1.symmetric_difference(&b.1).copied();
                        row.insert("set".into(), Datum::set(both).to_json());
                    }
                    json!({"modify": row})
                }
            };
            rows.insert(Uuid(*key).to_string(), update);
        }
        json!({"T": rows})
    }

    fn contents(replica: &Replica) -> Model {
        replica.rows("T").map(|r| (r.uuid().0, (r.int_opt("opt"), r.ints("set").collect()))).collect()
    }

    fn kinds(old: &Model, new: &Model) -> Vec<(u128, ChangeKind)> {
        let keys: std::collections::BTreeSet<&u128> = old.keys().chain(new.keys()).collect();
        let kind = |key: &u128| match (old.get(key), new.get(key)) {
            (None, _) => ChangeKind::Inserted,
            (_, None) => ChangeKind::Deleted,
            _ => ChangeKind::Modified,
        };
        keys.into_iter().filter(|k| old.get(k) != new.get(k)).map(|k| (*k, kind(k))).collect()
    }

    fn any_model() -> impl Strategy<Value = Model> {
        let row = (proptest::option::of(0i64..3), btree_set(0i64..4, 0..4));
        btree_map(0u128..5, row, 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// States follow each other by updates or by a reconnect; contents and changes match those of plain maps.
        #[test]
        fn follows_like_a_slow_twin(
            states in vec((any_model(), 0..3, any::<bool>()), 1..8),
            notation in prop::sample::select(std::vec![Notation::Update, Notation::Update2]),
        ) {
            let mut r = replica();
            let (mut now, mut taken) = (Model::new(), Model::new());
            for (state, step, take) in states {
                if step == 0 {
                    let mut fresh = replica();
                    apply(&mut fresh, notation, difference(&Model::new(), &state, notation)).unwrap();
                    r.replace(fresh);
                } else {
                    let before = r.seqno();
                    apply(&mut r, notation, difference(&now, &state, notation)).unwrap();
                    prop_assert_eq!(r.seqno() > before, now != state);
                }
                now = state;
                prop_assert_eq!(contents(&r), now.clone());
                if take {
                    // A row that changed and changed back counts as modified: more than needed, never less.
                    let changes: Vec<_> =
                        r.take_changes().into_iter().map(|c| (c.row.uuid.0, c.kind)).collect();
                    for expected in kinds(&taken, &now) {
                        prop_assert!(changes.contains(&expected), "{:?} not in {:?}", expected, changes);
                    }
                    for (key, kind) in changes {
                        prop_assert_eq!(taken.contains_key(&key), kind != ChangeKind::Inserted);
                        prop_assert_eq!(now.contains_key(&key), kind != ChangeKind::Deleted);
                    }
                    taken = now.clone();
                }
            }
        }
    }

    #[test]
    fn replacing_reports_only_what_differs() {
        let mut r = replica();
        let b = "00000000-0000-0000-0000-00000000000b";
        let c = "00000000-0000-0000-0000-00000000000c";
        let rows = json!({"T": {A: {"initial": {"name": "a"}}, b: {"initial": {"name": "b"}}}});
        apply(&mut r, Notation::Update2, rows).unwrap();
        r.take_changes();
        let mut fresh = replica();
        let rows = json!({"T": {A: {"initial": {"name": "a", "stat": 3}}, c: {"initial": {"name": "c"}}}});
        apply(&mut fresh, Notation::Update2, rows).unwrap();
        r.replace(fresh);
        assert_eq!(r.seqno(), 2);
        let changes: Vec<_> = r.take_changes().into_iter().map(|c| (c.row.uuid.0, c.kind)).collect();
        assert_eq!(changes, [(0xb, ChangeKind::Deleted), (0xc, ChangeKind::Inserted)]);
        assert_eq!(r.row("T", Uuid(0xa)).unwrap().changed(), 1);
        assert_eq!(r.row("T", Uuid(0xc)).unwrap().changed(), 2);
    }
}

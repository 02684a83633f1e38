//! What a server says of itself in its `_Server` database: whether it has the database that is wanted, with which
//! schema, and, if it is a member of a cluster or a relay, whether it is one to stay with.
//!
//! Neighbours: [`crate::client`] replicates the one table and asks for a verdict after every change of it.
//! Threads: plain values.

use crate::replica::{Replica, RowRef, TableSpec};
use crate::uuid::Uuid;

/// The database in which a server describes those that it serves.
pub(crate) const SERVER: &str = "_Server";

/// The table to replicate of it. Columns that came after the first version are optional.
pub(crate) fn tables() -> Vec<TableSpec> {
    vec![TableSpec::new("Database")
        .columns(["name", "model", "connected", "leader", "schema"])
        .optional(["cid", "index"])]
}

/// Why a server is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("clustered database server is disconnected from cluster; trying another server")]
    Disconnected,
    #[error("clustered database server has not yet joined cluster; trying another server")]
    NotJoined,
    #[error("clustered database server is not cluster leader; trying another server")]
    NotLeader,
    #[error("clustered database server has stale data; trying another server")]
    Stale,
    #[error("relay database server has not yet connected to the relay source; trying another server")]
    RelayEmpty,
    #[error("relay database server is disconnected from the relay source; trying another server")]
    RelayDisconnected,
    #[error("relay database server cannot be a leader; trying another server")]
    RelayNoLeader,
    #[error("missing database schema")]
    NoSchema,
}

/// The newest state that was seen of a cluster: a member that is behind it would take the client back in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    cluster: Option<Uuid>,
    index: i64,
}

/// The row of a database, if the server has that.
pub(crate) fn row<'a>(server: &'a Replica, database: &str) -> Option<RowRef<'a>> {
    server.rows("Database").find(|row| row.str("name") == database)
}

/// Whether to stay with a server; the text of the schema if so.
pub(crate) fn judge<'a>(row: &RowRef<'a>, leader_only: bool, seen: &mut Seen) -> Result<&'a str, Unfit> {
    let schema = row.str_opt("schema").filter(|text| !text.is_empty());
    let unless = |bad: bool, why: Unfit| if bad { Err(why) } else { Ok(()) };
    match row.str("model") {
        "clustered" => {
            let schema = schema.ok_or(Unfit::NotJoined)?;
            unless(!row.bool("connected"), Unfit::Disconnected)?;
            unless(leader_only && !row.bool("leader"), Unfit::NotLeader)?;
            let (cluster, index) = (row.ref_opt("cid"), row.int("index"));
            // Another cluster has a history of its own.
            unless(seen.cluster == cluster && index < seen.index, Unfit::Stale)?;
            *seen = Seen { cluster, index };
            Ok(schema)
        }
        "relay" => {
            let schema = schema.ok_or(Unfit::RelayEmpty)?;
            unless(!row.bool("connected"), Unfit::RelayDisconnected)?;
            unless(leader_only, Unfit::RelayNoLeader)?;
            Ok(schema)
        }
        _ => schema.ok_or(Unfit::NoSchema),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use crate::update::{self, Notation};
    use serde_json::{json, Value};

    const CLUSTER: &str = "00000000-0000-4000-8000-0000000000c1";

    fn verdict(changes: Value, leader_only: bool, seen: &mut Seen) -> Result<String, Unfit> {
        let schema = Schema::from_json(&json!({"name": SERVER, "tables": {"Database": {"columns": {
            "name": {"type": "string"}, "model": {"type": "string"},
            "connected": {"type": "boolean"}, "leader": {"type": "boolean"},
            "schema": {"type": {"key": "string", "min": 0}},
            "cid": {"type": {"key": "uuid", "min": 0}},
            "index": {"type": {"key": "integer", "min": 0}},
        }}}}))
        .unwrap();
        let (mut replica, missing) = Replica::with_schema(&tables(), &schema).unwrap();
        assert!(missing.is_empty());
        let mut row = json!({"name": "D", "model": "clustered", "connected": true, "leader": true,
            "schema": "text", "cid": ["uuid", CLUSTER], "index": 5});
        for (key, value) in changes.as_object().unwrap() {
            row[key] = value.clone();
        }
        let contents = json!({"Database": {CLUSTER: {"initial": row}}});
        let updates = update::parse(&contents, Notation::Update2, &replica).unwrap();
        replica.apply(updates);
        assert!(super::row(&replica, "E").is_none());
        judge(&super::row(&replica, "D").unwrap(), leader_only, seen).map(String::from)
    }

    #[test]
    fn members_of_a_cluster() {
        let mut seen = Seen::default();
        let none = json!(["set", []]);
        assert_eq!(verdict(json!({"leader": false}), true, &mut seen), Err(Unfit::NotLeader));
        assert_eq!(verdict(json!({"connected": false}), true, &mut seen), Err(Unfit::Disconnected));
        assert_eq!(verdict(json!({"schema": none}), true, &mut seen), Err(Unfit::NotJoined));
        assert_eq!(seen, Seen::default());
        assert_eq!(verdict(json!({}), true, &mut seen), Ok("text".into()));
        assert_eq!(verdict(json!({"index": 4}), true, &mut seen), Err(Unfit::Stale));
        assert_eq!(verdict(json!({"leader": false, "index": 7}), false, &mut seen), Ok("text".into()));
        assert_eq!(verdict(json!({"index": 6}), true, &mut seen), Err(Unfit::Stale));
        // A cluster that was made anew begins at the beginning.
        let other = json!({"index": 1, "cid": ["uuid", "00000000-0000-4000-8000-0000000000c2"]});
        assert_eq!(verdict(other, true, &mut seen), Ok("text".into()));
    }

    #[test]
    fn relays_and_single_servers() {
        let mut seen = Seen::default();
        let mut relay = |more: Value, leader_only| {
            let mut row = json!({"model": "relay"});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            verdict(row, leader_only, &mut seen)
        };
        assert_eq!(relay(json!({"schema": ["set", []]}), false), Err(Unfit::RelayEmpty));
        assert_eq!(relay(json!({"connected": false}), false), Err(Unfit::RelayDisconnected));
        assert_eq!(relay(json!({}), true), Err(Unfit::RelayNoLeader));
        assert_eq!(relay(json!({}), false), Ok("text".into()));
        let alone = json!({"model": "standalone", "connected": false, "leader": false});
        assert_eq!(verdict(alone, true, &mut seen), Ok("text".into()));
        let empty = json!({"model": "standalone", "schema": ["set", []]});
        assert_eq!(verdict(empty, true, &mut seen), Err(Unfit::NoSchema));
    }
}

//! The client against a scripted server: every answer, good or bad, without a socket and with a clock in hand.

use ovsdb::{
    Client, ClientConfig, Framer, Limits, Message, Mutation, Outcome, SubmitError, TableSpec, Transaction,
    Wanted,
};
use proptest::prelude::*;
use serde_json::{json, Value};

const ROOT: &str = "00000000-0000-4000-8000-000000000001";
const BR: &str = "00000000-0000-4000-8000-000000000002";
const SERVER_ROW: &str = "00000000-0000-4000-8000-000000000003";
const TXN1: &str = "00000000-0000-4000-8000-00000000000a";
const TXN2: &str = "00000000-0000-4000-8000-00000000000b";

struct Script {
    client: Client,
    framer: Framer,
    now: i64,
}

fn tables() -> Vec<TableSpec> {
    vec![
        TableSpec::new("Root").columns(["bridges", "next_cfg", "config"]).quiet(["cur_cfg"]),
        TableSpec::new("Bridge").columns(["name"]).optional(["fancy"]),
    ]
}

fn schema() -> Value {
    json!({"name": "D", "version": "1.0.0", "tables": {
        "Root": {"columns": {
            "bridges": {"type": {"key": {"type": "uuid", "refTable": "Bridge"}, "min": 0, "max": "unlimited"}},
            "config": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            "next_cfg": {"type": "integer"},
            "cur_cfg": {"type": "integer"}}},
        "Bridge": {"columns": {"name": {"type": "string"}}},
    }})
}

fn contents() -> Value {
    json!({"Root": {ROOT: {"initial": {"next_cfg": 3, "bridges": ["uuid", BR]}}}, "Bridge": {BR: {"initial": {"name": "br0"}}}})
}

fn server_schema() -> Value {
    json!({"name": "_Server", "version": "1.2.0", "tables": {"Database": {"columns": {
        "name": {"type": "string"}, "model": {"type": "string"},
        "connected": {"type": "boolean"}, "leader": {"type": "boolean"},
        "schema": {"type": {"key": "string", "min": 0}},
        "cid": {"type": {"key": "uuid", "min": 0}},
        "index": {"type": {"key": "integer", "min": 0}},
    }}}})
}

/// What the leader of a cluster says of itself, but for these columns.
fn member(changes: Value) -> Value {
    let mut row = json!({"name": "D", "model": "clustered", "connected": true, "leader": true,
        "schema": schema().to_string(), "cid": ["uuid", ROOT], "index": 7});
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

impl Script {
    /// A client with an open connection.
    fn connected(tables: Vec<TableSpec>, lock: Option<&str>) -> Script {
        let mut config = ClientConfig::new("unix:x", "D", tables);
        config.lock = lock.map(String::from);
        let mut client = Client::new(config);
        assert_eq!(client.run(0), Wanted::Connect);
        client.connected(0);
        Script { client, framer: Framer::new(Limits::DATABASE), now: 1 }
    }

    /// A client whose server, an old one, does not say what it is.
    fn of_old_server(tables: Vec<TableSpec>, lock: Option<&str>) -> Script {
        let mut script = Script::connected(tables, lock);
        script.refuse("get_schema", json!({"error": "unknown database", "details": "_Server"}));
        script
    }

    /// The server says what it is.
    fn introduce(&mut self, row: Value) {
        let params = self.answer("get_schema", server_schema());
        assert_eq!(params, [json!("_Server")]);
        let params = self.answer("monitor_cond", json!({"Database": {SERVER_ROW: {"initial": row}}}));
        assert_eq!(params[..2], [json!("_Server"), json!(["monid", "_Server"])]);
    }

    /// A client of a member of a cluster that has the contents as of a transaction.
    fn clustered() -> Script {
        let mut script = Script::connected(tables(), None);
        script.introduce(member(json!({})));
        let params = script.answer("monitor_cond_since", json!([false, TXN1, contents()]));
        assert_eq!(params[3], json!("00000000-0000-0000-0000-000000000000"));
        assert!(script.client.is_synced());
        script
    }

    /// The client's next connection, after the old one has ended.
    fn reconnect(&mut self) {
        let due = self.client.deadline().unwrap();
        assert_eq!(self.client.run(due), Wanted::Connect);
        self.client.connected(due);
        self.now = due + 1;
        self.framer = Framer::new(Limits::DATABASE);
    }

    /// The connection must have ended to go to another server, with this in the log.
    fn assert_left(&mut self, text: &str) {
        assert_eq!(self.client.run(self.now), Wanted::Disconnect);
        let log = self.client.take_log();
        assert!(log.iter().any(|l| l.text == format!("unix:x: {text}; trying another server")), "{log:?}");
    }

    /// A client that has the contents.
    fn synced(lock: Option<&str>) -> Script {
        let mut script = Script::of_old_server(tables(), lock);
        script.answer("get_schema", schema());
        if lock.is_some() {
            script.answer("lock", json!({"locked": true}));
        }
        script.refuse("monitor_cond_since", json!("unknown method"));
        script.answer("monitor_cond", contents());
        assert!(script.client.is_synced());
        script
    }

    fn next(&mut self) -> Option<Message> {
        let bytes = self.client.output().to_vec();
        self.client.consume_output(bytes.len());
        self.framer.push(&bytes);
        self.framer.next_message().unwrap()
    }

    fn expect(&mut self, method: &str) -> (Vec<Value>, Value) {
        match self.next() {
            Some(Message::Request { method: m, params, id }) if m == method => (params, id),
            other => panic!("expected {method}, got {other:?}"),
        }
    }

    fn say(&mut self, message: Message) {
        self.client.receive(self.now, &message.to_bytes());
    }

    fn notify(&mut self, method: &str, params: Value) {
        let Value::Array(params) = params else { panic!() };
        self.say(Message::Notify { method: method.into(), params });
    }

    fn answer(&mut self, method: &str, result: Value) -> Vec<Value> {
        let (params, id) = self.expect(method);
        self.say(Message::Reply { result, id });
        params
    }

    fn refuse(&mut self, method: &str, error: Value) {
        let (_, id) = self.expect(method);
        self.say(Message::Error { error, id });
    }

    /// The connection must have ended, with this in the log.
    fn assert_dropped(&mut self, text: &str) {
        assert!(!self.client.is_connected());
        assert_eq!(self.client.run(self.now), Wanted::Disconnect);
        assert!(self.client.deadline().unwrap() > self.now);
        let log = self.client.take_log();
        assert!(log.iter().any(|l| l.text.contains(text)), "{text:?} not in {log:?}");
    }

    fn set_cur_cfg(&self, value: i64) -> Transaction {
        let mut txn = Transaction::new();
        txn.comment("ovs-vswitchd");
        txn.set(&self.client.replica().only_row("Root").unwrap().id(), "cur_cfg", value);
        txn
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcomes = self.client.take_outcomes();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        outcomes.remove(0).1
    }
}

#[test]
fn synchronises_and_follows() {
    let mut s = Script::of_old_server(tables(), None);
    assert_eq!(s.client.seqno(), 0);
    s.answer("get_schema", schema());
    assert!(
        s.client
            .take_log()
            .iter()
            .any(|l| l.text
                == "unix:x: Bridge table in D database lacks fancy column (database needs upgrade?)")
    );
    s.refuse("monitor_cond_since", json!("unknown method"));
    let params = s.answer("monitor_cond", contents());
    assert_eq!(
        params,
        [
            json!("D"),
            json!(["monid", "D"]),
            json!({
                "Root": [{"columns": ["bridges", "next_cfg", "config", "cur_cfg"]}],
                "Bridge": [{"columns": ["name"]}],
            })
        ]
    );
    assert_eq!(s.client.seqno(), 1);
    let replica = s.client.replica();
    let root = replica.only_row("Root").unwrap();
    let names: Vec<&str> = replica.follow(&root, "bridges", "Bridge").map(|b| b.str("name")).collect();
    assert_eq!((names, root.int("next_cfg"), root.int("cur_cfg")), (vec!["br0"], 3, 0));

    s.notify("update2", json!([["monid", "D"], {"Root": {ROOT: {"modify": {"cur_cfg": 9}}}}]));
    assert_eq!(s.client.seqno(), 1);
    s.notify("update2", json!([["monid", "D"], {"Root": {ROOT: {"modify": {"next_cfg": 9}}}}]));
    assert_eq!(s.client.seqno(), 2);
    // Of another monitor: not ours.
    s.notify("update2", json!([["monid", "X"], {"Root": {ROOT: {"modify": {"next_cfg": 10}}}}]));
    assert_eq!(s.client.seqno(), 2);
}

#[test]
fn falls_back_to_monitor() {
    let mut s = Script::of_old_server(tables(), None);
    s.answer("get_schema", schema());
    s.refuse("monitor_cond_since", json!("unknown method"));
    s.refuse("monitor_cond", json!("unknown method"));
    s.answer("monitor", json!({"Bridge": {BR: {"new": {"name": "old"}}}}));
    assert!(s.client.is_synced());
    s.notify(
        "update",
        json!([["monid", "D"], {"Bridge": {BR: {"old": {"name": "old"}, "new": {"name": "new"}}}}]),
    );
    assert_eq!(s.client.replica().only_row("Bridge").unwrap().str("name"), "new");
}

#[test]
fn transactions_send_only_what_differs() {
    let mut s = Script::synced(None);
    assert_eq!(s.client.submit(&s.set_cur_cfg(0)).map(|_| ()), Ok(()));
    assert_eq!(s.outcome(), Outcome::Unchanged);
    assert_eq!(s.next(), None);

    let id = s.client.submit(&s.set_cur_cfg(3)).unwrap();
    let params = s.answer("transact", json!([{"count": 1}, {}]));
    assert_eq!(
        params[1..],
        [
            json!({"op": "update", "table": "Root", "where": [["_uuid", "==", ["uuid", ROOT]]], "row": {"cur_cfg": 3}}),
            json!({"op": "comment", "comment": "ovs-vswitchd"}),
        ]
    );
    assert_eq!(s.client.take_outcomes(), [(id, Outcome::Success(vec![]))]);

    // While a write has no answer, the replica is no ground to leave the next one out.
    s.client.submit(&s.set_cur_cfg(4)).unwrap();
    s.client.submit(&s.set_cur_cfg(0)).unwrap();
    s.answer("transact", json!([{"count": 1}, {}]));
    s.answer("transact", json!([{"count": 1}, {}]));
    assert_eq!(s.client.take_outcomes().len(), 2);
}

#[test]
fn inserts_and_mutations_refer_to_new_rows() {
    let mut s = Script::synced(None);
    let root = s.client.replica().only_row("Root").unwrap();
    let mut txn = Transaction::new();
    let bridge = txn.insert("Bridge");
    txn.set(&bridge, "name", "br1");
    txn.set(&bridge, "fancy", "not in this schema");
    txn.verify(&root, "next_cfg");
    txn.mutate(&root.id(), "bridges", Mutation::Insert(bridge.uuid.into()));
    txn.mutate(&root.id(), "next_cfg", Mutation::Add(1));
    let root_select = json!([["_uuid", "==", ["uuid", ROOT]]]);
    s.client.submit(&txn).unwrap();
    let params = s.answer("transact", json!([{}, {"uuid": ["uuid", BR]}, {"count": 1}]));
    assert_eq!(
        params[1..],
        [
            json!({"op": "wait", "table": "Root", "timeout": 0, "where": root_select, "columns": ["next_cfg"],
                   "until": "==", "rows": [{"next_cfg": 3}]}),
            json!({"op": "insert", "table": "Bridge", "row": {"name": "br1"}, "uuid-name": "row0"}),
            json!({"op": "mutate", "table": "Root", "where": root_select,
                   "mutations": [["bridges", "insert", ["named-uuid", "row0"]], ["next_cfg", "+=", 1]]}),
        ]
    );
    assert_eq!(s.outcome().inserted(&bridge), Some(BR.parse().unwrap()));
}

#[test]
fn outcomes_tell_what_happened() {
    let mut s = Script::synced(Some("L"));
    let cases = [
        (json!([{"error": "timed out"}, null]), Outcome::TryAgain),
        (json!([{"error": "not owner"}, null]), Outcome::NotLocked),
        (json!([{"error": "try again"}, null]), Outcome::TryAgain),
        (json!([{"error": "not leader"}]), Outcome::TryAgain),
        (json!([{}, {}, {}, {"error": "cluster error", "details": "not leader"}]), Outcome::TryAgain),
    ];
    for (answer, outcome) in cases {
        s.client.submit(&s.set_cur_cfg(5)).unwrap();
        let params = s.answer("transact", answer);
        assert_eq!(params[1], json!({"op": "assert", "lock": "L"}));
        assert_eq!(s.outcome(), outcome);
    }
    let errors = [
        (json!([{}, {}, {}, {"error": "constraint violation", "details": "x"}]), "constraint violation: x"),
        (json!([{}]), "malformed answer: [{}]"),
        (json!({}), "malformed answer: {}"),
        (json!([{"error": 3}]), "unknown error: {\"error\":3} (assert)"),
        (
            json!([{}, {"error": "constraint violation", "details": "y"}, null]),
            "constraint violation: y (update of row 00000000-0000-4000-8000-000000000001 in table Root)",
        ),
    ];
    for (answer, text) in errors {
        s.client.submit(&s.set_cur_cfg(5)).unwrap();
        s.answer("transact", answer);
        let Outcome::Error(error) = s.outcome() else { panic!("no error for {text}") };
        assert_eq!(error.to_string(), text);
    }
    let logged = r#"transaction error: {"details":"x","error":"constraint violation"}"#;
    assert!(s.client.take_log().iter().any(|line| line.text == logged));
    s.client.submit(&s.set_cur_cfg(5)).unwrap();
    s.refuse("transact", json!({"error": "syntax error", "details": "y"}));
    assert!(matches!(s.outcome(), Outcome::Error(_)));
    s.client.submit(&s.set_cur_cfg(5)).unwrap();
    s.refuse("transact", json!("canceled"));
    assert_eq!(s.outcome(), Outcome::TryAgain);
    // The answer that a lost connection swallows.
    let id = s.client.submit(&s.set_cur_cfg(5)).unwrap();
    s.client.disconnected(2, None);
    assert_eq!(s.client.take_outcomes(), [(id, Outcome::TryAgain)]);
    assert_eq!(s.client.submit(&s.set_cur_cfg(5)), Err(SubmitError::NotConnected));
    // The rows are still there to read.
    assert_eq!(s.client.replica().only_row("Bridge").unwrap().str("name"), "br0");
}

#[test]
fn refuses_bad_transactions_before_sending() {
    let mut s = Script::synced(None);
    let root = s.client.replica().only_row("Root").unwrap().id();
    let mut refusals = Vec::new();
    let tries: [&dyn Fn(&mut Transaction); 5] = [
        &|t| t.set(&root, "cur_cfg", "text"),
        &|t| t.set(&root, "nix", 1),
        &|t| {
            let row = t.insert("Nix");
            t.set(&row, "name", "x");
        },
        &|t| t.mutate(&root, "config", Mutation::Add(1)),
        &|t| t.set(&root, "next_cfg", vec![1i64, 2]),
    ];
    for fill in tries {
        let mut txn = Transaction::new();
        fill(&mut txn);
        refusals.push(s.client.submit(&txn).unwrap_err().to_string());
    }
    assert_eq!(
        refusals,
        [
            "bad value for column cur_cfg of table Root: expected integer, got \"text\"",
            "column nix of table Root is not replicated: ask for it in the client's tables",
            "table Nix is not replicated: ask for it in the client's tables",
            "column config of table Root is no integer to add to",
            "bad value for column next_cfg of table Root: 2 elements where 1 to 1 are allowed",
        ]
    );
    assert_eq!(s.next(), None);
}

#[test]
fn lock_comes_and_goes() {
    let mut s = Script::of_old_server(tables(), Some("L"));
    s.answer("get_schema", schema());
    s.answer("lock", json!({"locked": false}));
    s.refuse("monitor_cond_since", json!("unknown method"));
    s.answer("monitor_cond", contents());
    assert!(s.client.is_lock_contended() && !s.client.has_lock());
    let seqno = s.client.seqno();
    assert_eq!(s.client.submit(&s.set_cur_cfg(5)), Err(SubmitError::NotLocked("L".into())));
    s.notify("locked", json!(["L"]));
    assert!(s.client.has_lock());
    assert_eq!(s.client.seqno(), seqno + 1);
    assert!(s.client.submit(&s.set_cur_cfg(5)).is_ok());
    s.notify("stolen", json!(["L"]));
    assert!(s.client.is_lock_contended());
    s.notify("locked", json!(["other"]));
    assert!(!s.client.has_lock());
    s.client.disconnected(2, None);
    assert!(!s.client.has_lock() && !s.client.is_lock_contended());
}

#[test]
fn a_server_that_errs_is_dropped() {
    let bad_schema = |result: Value, text: &str| {
        let mut s = Script::of_old_server(tables(), Some("L"));
        s.answer("get_schema", result);
        s.assert_dropped(text);
    };
    bad_schema(json!({}), "database schema is not an object with");
    bad_schema(json!({"name": "D", "tables": {"Root": {}}}), "table Root in the database schema has no");
    bad_schema(json!({"name": "D", "tables": {}}), "D database lacks Root table (database needs upgrade?)");
    bad_schema(
        json!({"name": "D", "tables": {"Root": {"columns": {}}}}),
        "Root table in D database lacks bridges column (database needs upgrade?)",
    );

    let mut s = Script::of_old_server(tables(), None);
    s.refuse("get_schema", json!({"error": "unknown database", "details": "get_schema request specifies"}));
    s.assert_dropped("get_schema request failed (unknown database: get_schema request");

    let mut s = Script::of_old_server(tables(), Some("L"));
    s.answer("get_schema", schema());
    s.answer("lock", json!(3));
    s.assert_dropped("malformed reply to lock request: 3");

    let mut s = Script::of_old_server(tables(), None);
    s.answer("get_schema", schema());
    s.refuse("monitor_cond_since", json!("unknown method"));
    s.answer("monitor_cond", json!({"Bridge": {BR: {"initial": {"name": 7}}}}));
    s.assert_dropped("error parsing column name in row");
    assert_eq!(s.client.seqno(), 0);

    for reply in [json!(7), json!([]), json!([false, TXN1]), json!([1, TXN1, {}]), json!([true, TXN1, {}])] {
        let mut s = Script::connected(tables(), None);
        s.introduce(member(json!({})));
        s.answer("monitor_cond_since", reply);
        s.assert_dropped("malformed reply to monitor_cond_since request: ");
        assert_eq!(s.client.seqno(), 0);
    }
    let mut s = Script::connected(tables(), None);
    s.introduce(json!({"name": "E", "model": "standalone"}));
    s.assert_dropped("unix:x: server does not have D database, disconnecting");
    let mut s = Script::connected(tables(), None);
    s.introduce(member(json!({"schema": "{"})));
    s.assert_dropped("database schema is not an object with");

    for (method, params, text) in [
        ("update2", json!([["monid", "D"], {"Nix": {}}]), "update to unknown table \"Nix\""),
        ("update2", json!([["monid", "D"], 7]), "table updates is not an object: 7"),
        ("update2", json!([]), "malformed update notification: []"),
        ("locked", json!([1]), "malformed lock notification: [1]"),
        ("monitor_canceled", json!([["monid", "D"]]), "database D is being removed or converted"),
    ] {
        let mut s = Script::synced(None);
        s.notify(method, params);
        s.assert_dropped(text);
        assert_eq!(s.client.replica().only_row("Bridge").unwrap().str("name"), "br0");
    }
    let mut s = Script::synced(None);
    s.client.receive(1, b"{\"id\":}");
    s.assert_dropped("error parsing stream: ");
}

#[test]
fn comes_back_with_only_the_differences() {
    let mut s = Script::synced(None);
    s.client.take_changes();
    s.client.disconnected(10, None);
    s.reconnect();
    s.refuse("get_schema", json!("unknown database"));
    s.answer("get_schema", schema());
    assert_eq!(s.client.replica().only_row("Bridge").unwrap().str("name"), "br0");
    s.refuse("monitor_cond_since", json!("unknown method"));
    s.answer(
        "monitor_cond",
        json!({"Root": {ROOT: {"initial": {"next_cfg": 4}}}, "Bridge": {BR: {"initial": {"name": "br0"}}}}),
    );
    let changes = s.client.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(&*changes[0].row.table, "Root");
}

#[test]
fn only_changes_come_after_a_reconnect() {
    let mut s = Script::clustered();
    let bridge = |s: &Script| s.client.replica().only_row("Bridge").map(|r| r.str("name").to_string());
    s.notify("update3", json!([["monid", "D"], TXN2, {"Bridge": {BR: {"modify": {"name": "br1"}}}}]));
    assert_eq!(bridge(&s).as_deref(), Some("br1"));
    s.client.take_changes();
    s.client.disconnected(10, None);
    s.reconnect();
    s.introduce(member(json!({"index": 8})));
    let changes = json!({"Root": {ROOT: {"modify": {"next_cfg": 4}}}});
    let params = s.answer("monitor_cond_since", json!([true, TXN1, changes]));
    assert_eq!(params[3], json!(TXN2));
    assert_eq!(bridge(&s).as_deref(), Some("br1"));
    let taken = s.client.take_changes();
    assert_eq!((taken.len(), &*taken[0].row.table), (1, "Root"));
    // A server that has forgotten sends everything.
    s.client.disconnected(s.now, None);
    s.reconnect();
    s.introduce(member(json!({"index": 8})));
    let params = s.answer("monitor_cond_since", json!([false, TXN2, {"Root": {ROOT: {"initial": {}}}}]));
    assert_eq!(params[3], json!(TXN1));
    assert_eq!(bridge(&s), None);
    // What does not fit is no ground to build on: everything is asked for again.
    s.notify("update3", json!([["monid", "D"], TXN1, {"Bridge": {BR: {"modify": {"name": "x"}}}}]));
    s.assert_dropped("cannot modify missing row");
    s.reconnect();
    s.introduce(member(json!({"index": 8})));
    let (params, _) = s.expect("monitor_cond_since");
    assert_eq!(params[3], json!("00000000-0000-0000-0000-000000000000"));
}

#[test]
fn another_schema_is_no_ground_for_changes() {
    let mut s = Script::clustered();
    s.client.disconnected(10, None);
    s.reconnect();
    let mut newer = schema();
    newer["tables"]["Bridge"]["columns"]["fancy"] = json!({"type": "integer"});
    s.introduce(member(json!({"schema": newer.to_string()})));
    let (params, _) = s.expect("monitor_cond_since");
    assert_eq!(params[3], json!("00000000-0000-0000-0000-000000000000"));
}

#[test]
fn leaves_servers_that_others_are_better_than() {
    let no_leader = "clustered database server is not cluster leader";
    for (changes, text) in [
        (json!({"leader": false}), no_leader),
        (json!({"connected": false}), "clustered database server is disconnected from cluster"),
        (json!({"schema": ["set", []]}), "clustered database server has not yet joined cluster"),
        (json!({"model": "relay"}), "relay database server cannot be a leader"),
    ] {
        let mut s = Script::connected(tables(), None);
        s.client.set_remotes(3);
        s.introduce(member(changes));
        s.assert_left(text);
        // The next one is tried without waiting.
        s.reconnect();
        assert_eq!(s.now, 2);
    }
    // One that loses its place, or is behind what was seen elsewhere.
    let mut s = Script::clustered();
    let said = |s: &mut Script, row: Value| {
        s.notify("update2", json!([["monid", "_Server"], {"Database": {SERVER_ROW: {"modify": row}}}]));
    };
    said(&mut s, json!({"index": 9}));
    assert!(s.client.is_synced());
    said(&mut s, json!({"leader": false}));
    s.assert_left(no_leader);
    assert_eq!(s.client.replica().only_row("Bridge").unwrap().str("name"), "br0");
    s.reconnect();
    s.introduce(member(json!({"index": 8})));
    s.assert_left("clustered database server has stale data");
}

fn any_message() -> impl Strategy<Value = Message> {
    let atom = prop_oneof![
        Just(json!(null)),
        Just(json!(1)),
        Just(json!("name")),
        Just(json!(["uuid", BR])),
        Just(json!(["set", [1, "x"]])),
        Just(json!(["map", [["a", "b"]]])),
        Just(json!({"locked": true})),
        Just(json!([{"count": 1}])),
        Just(json!(["monid", "D"])),
        Just(schema()),
        Just(contents()),
    ];
    let value = atom.prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec![
            "Root", "Bridge", ROOT, BR, "modify", "insert", "delete", "name", "config",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    });
    let method = prop::sample::select(vec![
        "update",
        "update2",
        "update3",
        "locked",
        "stolen",
        "echo",
        "x",
        "monitor_canceled",
    ]);
    (0..4, method, prop::collection::vec(value, 2), 0u64..6).prop_map(|(kind, method, mut params, id)| {
        match kind {
            0 => Message::request(method, params, id),
            1 => {
                params[0] = json!(["monid", "D"]);
                Message::Notify { method: method.into(), params }
            }
            2 => Message::Reply { result: params.remove(0), id: json!(id) },
            _ => Message::Error { error: json!([params.remove(0)]), id: json!(id) },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_server_makes_the_client_panic(messages in prop::collection::vec(any_message(), 1..12), sync: bool) {
        let mut s = if sync { Script::synced(Some("L")) } else { Script::of_old_server(tables(), Some("L")) };
        for message in messages {
            if s.client.run(s.now) == Wanted::Disconnect || !s.client.is_connected() {
                break;
            }
            s.say(message);
            if let Some(row) = s.client.replica().only_row("Root") {
                let mut txn = Transaction::new();
                txn.set(&row.id(), "cur_cfg", s.now);
                let _ = s.client.submit(&txn);
            }
        }
    }
}

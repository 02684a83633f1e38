//! The client against the installed `ovsdb-server` and `ovs-vsctl`, over a Unix socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ovsdb::{
    ChangeKind, Client, ClientConfig, Mutation, Outcome, SubmitError, TableSpec, Transaction, TxnId, Wanted,
};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running server on a database of its own.
struct Server {
    dir: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn start(name: &str) -> Server {
        let dir = std::env::temp_dir().join(format!("ovsdb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut server = Server { dir, child: None };
        run("ovsdb-tool", &["create", server.path("conf.db").to_str().unwrap(), SCHEMA]);
        server.restart();
        let limit = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(server.path("db.sock")).is_err() {
            assert!(Instant::now() < limit, "ovsdb-server does not listen");
            std::thread::yield_now();
        }
        server
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    fn restart(&mut self) {
        self.kill();
        let child = Command::new("ovsdb-server")
            .args([format!("--remote=p{}", self.remote()), "--no-chdir".into()])
            .arg(format!("--unixctl={}", self.path("ctl").display()))
            .arg(self.path("conf.db"))
            .stderr(Stdio::null())
            .spawn()
            .expect("ovsdb-server must be installed (package openvswitch-switch)");
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = std::fs::remove_file(self.path("db.sock"));
        }
    }

    fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db={}", self.remote());
        let mut all = vec![db.as_str(), "--no-wait", "--timeout=10"];
        all.extend(args);
        run("ovs-vsctl", &all)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed (package openvswitch-switch): {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Owns the socket of a client, as the daemon does, on a clock that skips the back-off.
struct Driver {
    client: Client,
    path: PathBuf,
    socket: Option<UnixStream>,
    started: Instant,
    skipped: i64,
}

impl Driver {
    fn new(server: &Server) -> Driver {
        let tables = vec![
            TableSpec::new("Open_vSwitch").columns(["bridges", "next_cfg", "other_config"]).quiet([
                "cur_cfg",
                "ovs_version",
                "iface_types",
                "statistics",
            ]),
            TableSpec::new("Bridge").columns(["name", "ports", "fail_mode", "flood_vlans"]),
            TableSpec::new("Port").columns(["name", "interfaces", "tag", "trunks"]),
            TableSpec::new("Interface").columns(["name", "type", "options"]).quiet(["ofport", "statistics"]),
        ];
        let config = ClientConfig::new(&server.remote(), "Open_vSwitch", tables).lock("ovs_vswitchd");
        Driver {
            client: Client::new(config),
            path: server.path("db.sock"),
            socket: None,
            started: Instant::now(),
            skipped: 0,
        }
    }

    fn now(&self) -> i64 {
        self.started.elapsed().as_millis() as i64 + self.skipped
    }

    /// Runs the client until something is so; the socket's timeout paces the loop.
    fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !done(&self.client) {
            assert!(Instant::now() < limit, "not in time: {what}; {:?}", self.client.take_log());
            self.step();
        }
    }

    fn step(&mut self) {
        loop {
            match self.client.run(self.now()) {
                Wanted::Nothing => break,
                Wanted::Connect => match UnixStream::connect(&self.path) {
                    Ok(socket) => {
                        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                        self.socket = Some(socket);
                        self.client.connected(self.now());
                    }
                    Err(error) => self.client.connect_failed(self.now(), &error.to_string()),
                },
                Wanted::Disconnect => self.socket = None,
            }
        }
        let now = self.now();
        let Some(socket) = &mut self.socket else {
            // Nothing can happen before the deadline: let it be now.
            self.skipped += (self.client.deadline().unwrap() - now).max(0);
            std::thread::yield_now();
            return;
        };
        let output = self.client.output();
        let sent = output.len();
        let written = socket.write_all(output);
        self.client.consume_output(sent);
        let mut buffer = [0; 1000];
        let ended = match written.and_then(|()| socket.read(&mut buffer)) {
            Ok(0) => Some(None),
            Ok(n) => {
                self.client.receive(now, &buffer[..n]);
                None
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => Some(Some(error.to_string())),
        };
        if let Some(error) = ended {
            self.client.disconnected(now, error.as_deref());
            self.socket = None;
        }
    }

    fn synced(server: &Server) -> Driver {
        let mut driver = Driver::new(server);
        driver.until("first contents and lock", |c| c.is_synced() && c.has_lock());
        driver
    }

    fn finish(&mut self, id: TxnId) -> Outcome {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some((_, outcome)) = self.client.take_outcomes().into_iter().find(|(i, _)| *i == id) {
                return outcome;
            }
            assert!(Instant::now() < limit, "no outcome of {id:?}");
            self.step();
        }
    }

    fn commit(&mut self, txn: &Transaction) -> Outcome {
        let id = self.client.submit(txn).unwrap();
        self.finish(id)
    }
}

fn bridge_names(client: &Client) -> Vec<String> {
    let replica = client.replica();
    let root = replica.only_row("Open_vSwitch");
    let bridges = root.iter().flat_map(|root| replica.follow(root, "bridges", "Bridge"));
    let mut names: Vec<String> = bridges.map(|b| b.str("name").into()).collect();
    names.sort();
    names
}

#[test]
fn follows_what_vsctl_does() {
    let server = Server::start("follow");
    server.vsctl(&["init"]);
    let mut d = Driver::synced(&server);
    assert_eq!(d.client.replica().rows("Open_vSwitch").count(), 1);
    server.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", "flood_vlans=1,2,3"]);
    d.until("br0", |c| bridge_names(c) == ["br0"]);
    server.vsctl(&[
        "add-port",
        "br0",
        "p1",
        "tag=7",
        "--",
        "set",
        "interface",
        "p1",
        "type=dpdk",
        "options:n_rxq=2",
    ]);
    let port = |c: &Client| c.replica().rows("Port").find(|p| p.str("name") == "p1").map(|p| p.int("tag"));
    d.until("p1", |c| port(c) == Some(7));
    {
        let replica = d.client.replica();
        let bridge = replica.only_row("Bridge").unwrap();
        assert_eq!(bridge.str_opt("fail_mode"), Some("secure"));
        let port = replica.follow(&bridge, "ports", "Port").find(|p| p.str("name") == "p1").unwrap();
        let interface = replica.follow(&port, "interfaces", "Interface").next().unwrap();
        assert_eq!(interface.str("type"), "dpdk");
        assert_eq!(interface.map_int("options", "n_rxq", 1), 2);
        assert_eq!(interface.int_opt("ofport"), None);
    }
    d.client.take_changes();
    // Differences of optional scalars, sets and maps, as the server makes them.
    server.vsctl(&["clear", "bridge", "br0", "fail_mode", "--", "set", "bridge", "br0", "flood_vlans=2,4"]);
    server.vsctl(&[
        "set",
        "port",
        "p1",
        "tag=8",
        "trunks=5,6",
        "--",
        "set",
        "interface",
        "p1",
        "options:a=b",
        "options:n_rxq=3",
    ]);
    d.until("tag 8", |c| port(c) == Some(8));
    {
        let replica = d.client.replica();
        let bridge = replica.only_row("Bridge").unwrap();
        assert_eq!(bridge.str_opt("fail_mode"), None);
        assert_eq!(bridge.ints("flood_vlans").collect::<Vec<_>>(), [2, 4]);
        let interface = replica.rows("Interface").find(|p| p.str("name") == "p1").unwrap();
        assert_eq!(interface.map("options").collect::<Vec<_>>(), [("a", "b"), ("n_rxq", "3")]);
    }
    assert!(d.client.take_changes().iter().all(|c| c.kind == ChangeKind::Modified));
    server.vsctl(&["set", "port", "p1", "tag=[]", "--", "remove", "interface", "p1", "options", "a"]);
    d.until("no tag", |c| port(c) == Some(0));
    server.vsctl(&["del-br", "br0"]);
    d.until("no bridge", |c| bridge_names(c).is_empty());
    assert_eq!(d.client.replica().rows("Interface").count(), 0);
    assert!(d.client.take_changes().iter().any(|c| c.kind == ChangeKind::Deleted));
}

#[test]
fn writes_what_vsctl_reads() {
    let server = Server::start("write");
    server.vsctl(&["init"]);
    let mut d = Driver::synced(&server);
    let root = d.client.replica().only_row("Open_vSwitch").unwrap().id();
    let mut txn = Transaction::new();
    txn.comment("first");
    txn.comment("second");
    txn.set(&root, "cur_cfg", 42);
    txn.set(&root, "ovs_version", "3.1.0");
    txn.set(&root, "iface_types", vec!["internal", "dpdk"]);
    txn.set(&root, "statistics", ovsdb::Datum::map([("cpu", "2"), ("odd \"\\\n", "ü")]));
    assert_eq!(d.commit(&txn), Outcome::Success(vec![]));
    // The replica has it when the outcome is here, so it is not sent again.
    assert_eq!(d.commit(&txn), Outcome::Unchanged);
    let get = |column: &str| server.vsctl(&["get", "Open_vSwitch", ".", column]);
    assert_eq!(get("cur_cfg"), "42");
    assert_eq!(get("iface_types"), "[dpdk, internal]");
    assert_eq!(get("statistics:cpu"), "\"2\"");

    let mut txn = Transaction::new();
    let interface = txn.insert("Interface");
    txn.set(&interface, "name", "p1");
    let port = txn.insert("Port");
    txn.set(&port, "name", "p1");
    txn.set(&port, "interfaces", interface.uuid);
    let bridge = txn.insert("Bridge");
    txn.set(&bridge, "name", "br1");
    txn.set(&bridge, "ports", vec![port.uuid]);
    txn.mutate(&root, "bridges", Mutation::Insert(bridge.uuid.into()));
    let outcome = d.commit(&txn);
    assert_eq!(server.vsctl(&["list-ports", "br1"]), "p1");
    let real = d.client.replica().row("Bridge", outcome.inserted(&bridge).unwrap()).unwrap();
    assert_eq!(real.str("name"), "br1");

    let interface = d.client.replica().only_row("Interface").unwrap().id();
    let mut txn = Transaction::new();
    txn.set(&interface, "statistics", ovsdb::Datum::map([("rx_packets", 3), ("tx_packets", 4)]));
    txn.set(&interface, "ofport", Some(1));
    assert!(matches!(d.commit(&txn), Outcome::Success(_)));
    assert_eq!(server.vsctl(&["get", "interface", "p1", "ofport"]), "1");
    let mut txn = Transaction::new();
    txn.mutate(
        &root,
        "other_config",
        Mutation::Insert(ovsdb::Datum::map([("a", "1"), ("b", "2"), ("c", "3")])),
    );
    txn.mutate(&root, "other_config", Mutation::Delete("a".into()));
    txn.mutate(&root, "other_config", Mutation::Delete(ovsdb::Datum::map([("b", "9"), ("c", "3")])));
    txn.mutate(&root, "next_cfg", Mutation::Add(-3));
    assert!(matches!(d.commit(&txn), Outcome::Success(_)));
    let row = d.client.replica().only_row("Open_vSwitch").unwrap();
    assert_eq!(row.map("other_config").collect::<Vec<_>>(), [("b", "2")]);
    assert_eq!(row.int("next_cfg"), -3);
    let mut txn = Transaction::new();
    txn.set(&interface, "statistics", ovsdb::Datum::EMPTY);
    txn.set(&interface, "ofport", None::<i64>);
    assert!(matches!(d.commit(&txn), Outcome::Success(_)));
    assert_eq!(server.vsctl(&["get", "interface", "p1", "ofport", "statistics"]), "[]\n{}");
    let port = d.client.replica().only_row("Port").unwrap().id();
    let bridge = d.client.replica().only_row("Bridge").unwrap().id();
    let mut txn = Transaction::new();
    txn.mutate(&bridge, "ports", Mutation::Delete(port.uuid.into()));
    txn.delete(&port);
    txn.set(&port, "tag", 5);
    assert!(matches!(d.commit(&txn), Outcome::Success(_)));
    assert_eq!(server.vsctl(&["list-ports", "br1"]), "");
    // The port's interface went with it: there is nothing left to write to.
    let mut txn = Transaction::new();
    txn.set(&interface, "ofport", 9);
    assert_eq!(d.commit(&txn), Outcome::Unchanged);
}

#[test]
fn races_and_refusals_have_outcomes() {
    let server = Server::start("race");
    server.vsctl(&["init"]);
    let mut d = Driver::synced(&server);
    let root = d.client.replica().only_row("Open_vSwitch").unwrap();
    let mut txn = Transaction::new();
    txn.verify(&root, "next_cfg");
    txn.set(&root.id(), "cur_cfg", 1);
    server.vsctl(&["set", "Open_vSwitch", ".", "next_cfg=9"]);
    assert_eq!(d.commit(&txn), Outcome::TryAgain);
    d.until("next_cfg", |c| c.replica().only_row("Open_vSwitch").unwrap().int("next_cfg") == 9);

    let mut txn = Transaction::new();
    let port = txn.insert("Port");
    txn.set(&port, "interfaces", ovsdb::Uuid(7));
    txn.set(&port, "tag", 70_000);
    let Outcome::Error(error) = d.commit(&txn) else { panic!("no error") };
    assert_eq!(error.error, "constraint violation");

    // A second daemon waits for the lock of the first.
    let mut other = Driver::new(&server);
    other.until("contended lock", |c| c.is_synced() && c.is_lock_contended());
    let root = other.client.replica().only_row("Open_vSwitch").unwrap().id();
    let mut txn = Transaction::new();
    txn.set(&root, "cur_cfg", 5);
    assert!(matches!(other.client.submit(&txn), Err(SubmitError::NotLocked(_))));
    drop(d);
    other.until("lock", Client::has_lock);
    assert!(matches!(other.commit(&txn), Outcome::Success(_)));
}

#[test]
fn survives_the_server() {
    let mut server = Server::start("restart");
    server.vsctl(&["add-br", "br0"]);
    let mut d = Driver::synced(&server);
    assert_eq!(bridge_names(&d.client), ["br0"]);
    d.client.take_changes();
    server.kill();
    d.until("disconnection", |c| !c.is_connected());
    assert_eq!(bridge_names(&d.client), ["br0"]);
    let before = d.client.seqno();
    for _ in 0..5 {
        d.step();
    }
    server.restart();
    d.until("contents again", |c| c.is_synced() && c.has_lock());
    assert!(d.client.seqno() > before);
    assert!(d.client.take_changes().is_empty());
    server.vsctl(&["add-br", "br1"]);
    d.until("br1", |c| bridge_names(c) == ["br0", "br1"]);
}

#[test]
fn the_whole_schema_is_understood() {
    let text = std::fs::read_to_string(Path::new(SCHEMA)).unwrap();
    let schema = ovsdb::Schema::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!(schema.name, "Open_vSwitch");
    assert!(schema.tables.len() >= 18);
    let tag = schema.column("Port", "tag").unwrap();
    assert_eq!((tag.min, tag.max), (0, 1));
}

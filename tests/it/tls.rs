//! TLS with keys of ovs-pki: the database, controllers and listeners, with the real ovsdb-server, ovs-testcontroller
//! and ovs-ofctl. Who is not trusted is refused, with the reason in the log.

use crate::harness::{run_ok, wait_until, Harness, Process, Setup, Which};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Keys and authorities, made once for all tests: `db` is a controller and database, `sw` a switch.
struct Pki {
    dir: PathBuf,
}

impl Pki {
    fn get() -> &'static Pki {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(|| {
            // Making keys takes seconds: those of an earlier run will do.
            let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pki");
            let done = dir.join("done");
            if done.exists() {
                return Pki { dir };
            }
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("a directory");
            for words in
                [&["--force", "init"][..], &["req+sign", "db", "controller"], &["req+sign", "sw", "switch"]]
            {
                let mut pki = Command::new("ovs-pki");
                pki.current_dir(&dir).args(["--dir=pki", "--log=log"]);
                run_ok(pki.args(words));
            }
            std::fs::write(done, "").expect("a file");
            Pki { dir }
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The authority of controllers and of switches.
    fn ca(&self, whose: &str) -> String {
        self.path(&format!("pki/{whose}ca/cacert.pem"))
    }

    /// Options for the owner of a key.
    fn options(&self, owner: &str, ca: &str) -> Vec<String> {
        vec![
            format!("--private-key={}", self.path(&format!("{owner}-privkey.pem"))),
            format!("--certificate={}", self.path(&format!("{owner}-cert.pem"))),
            format!("--ca-cert={ca}"),
        ]
    }
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A switch whose database server also listens for TLS on port 6640.
fn secure(args: &[String]) -> Harness {
    let server = Pki::get().options("db", &Pki::get().ca("switch"));
    Setup::new(Which::Ours)
        .server(&refs(&server))
        .server(&["--remote=pssl:6640:127.0.0.1"])
        .remote("ssl:127.0.0.1")
        .args(args.iter().map(String::as_str).collect::<Vec<_>>().as_slice())
        .stopped()
        .up()
}

/// Starts the daemon without waiting for a configuration.
fn launch(h: &Harness, args: &[String], remote: &str) -> Process {
    let mut command = h.command(Which::Ours.program());
    command.args(["--pidfile=switch.pid", "--unixctl=switch.ctl", "--log-file=switch.log", "-vconsole:off"]);
    Process::start(command.args(args).arg(remote), &h.path("switch.out"))
}

fn controller(h: &Harness, port: &str, more: &[&str]) -> Process {
    let options = Pki::get().options("db", &Pki::get().ca("switch"));
    let mut command = h.command("ovs-testcontroller");
    command.arg(port).args(options).args(more).args(["--unixctl=tc.ctl", "-vconsole:info"]);
    Process::start(&mut command, &h.path("controller.out"))
}

#[test]
fn database_and_controller() {
    let pki = Pki::get();
    let mut h = secure(&pki.options("sw", &pki.ca("controller")));
    h.start();
    assert!(h.log().contains("reconnect|INFO|ssl:127.0.0.1: connected"), "{}", h.log());
    let _controller = controller(&h, "pssl:6653:127.0.0.1", &[]);
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    h.vsctl(&["set-controller", "br0", "ssl:127.0.0.1", "pssl:6654:127.0.0.1"]);
    wait_until("the controller is connected", || {
        h.vsctl(&["--bare", "--columns=is_connected", "find", "Controller", "target=\"ssl:127.0.0.1\""])
            .trim()
            == "true"
    });
    wait_until("the controller has sent its rule", || {
        h.ofctl(&["dump-flows", "br0"]).contains("actions=CONTROLLER:128")
    });
    let row = h.vsctl(&["--bare", "--columns=role,status", "find", "Controller", "target=\"ssl:127.0.0.1\""]);
    assert!(row.starts_with("other\n") && row.contains("state=ACTIVE"), "{row}");
    // Those who come to us show a certificate too.
    let mut words = pki.options("db", &pki.ca("switch"));
    words.extend(["show".into(), "ssl:127.0.0.1:6654".into()]);
    assert!(h.ofctl(&refs(&words)).contains("OFPT_FEATURES_REPLY"));
    let mut words = pki.options("sw", &pki.ca("switch"));
    words.extend(["show".into(), "ssl:127.0.0.1:6654".into()]);
    assert!(h.try_ofctl(&refs(&words)).code != 0, "a key of another authority");
    wait_until("the refusal is in the log", || {
        h.log().contains("stream_ssl|WARN|SSL_accept: invalid peer certificate: UnknownIssuer")
    });
    // One who speaks no TLS is cut off; one who says nothing keeps nobody out.
    let _silent = Process::start(
        h.command("bash").args(["-c", "exec 3<>/dev/tcp/127.0.0.1/6654; read -u 3"]),
        &h.path("silent.out"),
    );
    h.namespace().run(&["bash", "-c", "head -c 100000 /dev/zero >/dev/tcp/127.0.0.1/6654"]);
    wait_until("nonsense is refused", || {
        h.log().contains("stream_ssl|WARN|SSL_accept: received corrupt message")
    });
    // A large reply comes whole.
    let rules: String =
        (0..20_000).map(|i| format!("ip,nw_dst={}.{}.0.1,actions=drop\n", i >> 8, i & 255)).collect();
    assert_eq!(h.ofctl_stdin(&["add-flows", "br0", "-"], &rules).code, 0);
    let mut words = pki.options("db", &pki.ca("switch"));
    words.extend(["dump-flows".into(), "ssl:127.0.0.1:6654".into()]);
    assert_eq!(h.ofctl(&refs(&words)).matches("actions=drop").count(), 20_000);
    assert_eq!(h.try_appctl(&["bridge/reconnect", "nope"]).err.lines().next(), Some("Unknown bridge"));
    h.appctl(&["bridge/reconnect", "br0"]);
    wait_until("the controller is connected again", || {
        h.log().matches("br0<->ssl:127.0.0.1: connected").count() == 2
    });
}

#[test]
fn wrong_authority_until_its_file_changes() {
    let pki = Pki::get();
    let ca = pki.path("changing.pem");
    let copy = |from: &str| assert!(std::fs::copy(from, &ca).expect("copied") > 0);
    copy(&pki.ca("switch"));
    let h = secure(&[]);
    let options = pki.options("sw", &ca);
    let mut switch = launch(&h, &options, "ssl:127.0.0.1:6640");
    wait_until("the server is refused", || {
        let log = h.log();
        log.contains("stream_ssl|WARN|SSL_connect: invalid peer certificate: UnknownIssuer")
            && log.contains("reconnect|INFO|ssl:127.0.0.1:6640: connection attempt failed (Protocol error)")
    });
    assert!(!h.log().contains("connected"), "{}", h.log());
    copy(&pki.ca("controller"));
    wait_until("the database is read", || h.log().contains("(Open vSwitch) 3."));
    switch.signal("TERM");
    switch.wait();
    // Without keys there is no attempt.
    std::fs::remove_file(h.path("switch.log")).expect("a log");
    let _switch = launch(&h, &[], "ssl:127.0.0.1:6640");
    wait_until("what is missing is told", || {
        let log = h.log();
        ["Private key", "Certificate", "CA certificate"]
            .iter()
            .all(|w| log.contains(&format!("stream_ssl|ERR|{w} must be configured to use SSL")))
            && log.contains("connection attempt failed (Protocol not available)")
    });
}

#[test]
fn keys_of_the_database_and_bootstrap() {
    let pki = Pki::get();
    let h = Setup::new(Which::Ours).args(&["--enable-dummy=override"]).up();
    let ca = h.path("learned.pem");
    let (key, cert) = (pki.path("sw-privkey.pem"), pki.path("sw-cert.pem"));
    h.vsctl(&["--bootstrap", "set-ssl", &key, &cert, &ca.display().to_string()]);
    let peer_ca = format!("--peer-ca-cert={}", pki.ca("controller"));
    let mut peer = controller(&h, "pssl:6653", &[&peer_ca]);
    h.vsctl(&["add-br", "br0", "--", "set-controller", "br0", "ssl:127.0.0.1:6653"]);
    h.vsctl(&["set", "Controller", "br0", "inactivity_probe=1000", "max_backoff=1000"]);
    for p in ["p1", "p2"] {
        h.vsctl(&["add-port", "br0", p, "--", "set", "Interface", p, "type=dummy"]);
    }
    wait_until("the controller is connected", || {
        h.vsctl(&["get", "Controller", "br0", "is_connected"]).trim() == "true"
    });
    assert!(h.log().contains("successfully bootstrapped CA cert to "), "{}", h.log());
    let der = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("a certificate");
        let lines =
            text.lines().skip_while(|l| !l.starts_with("-----BEGIN")).map(str::trim).collect::<Vec<_>>();
        lines.join("\n")
    };
    assert_eq!(der(&ca), der(Path::new(&pki.ca("controller"))));
    // Controllers that stay away leave the bridge to itself.
    peer.signal("KILL");
    peer.wait();
    wait_until("the bridge takes over", || {
        h.log().contains("fail_open|WARN|br0: Could not connect to controller")
    });
    let rules = h.appctl(&["bridge/dump-flows", "br0"]);
    assert!(rules.contains("priority=15790320,actions=NORMAL"), "{rules}");
    let _peer = controller(&h, "pssl:6653", &[]);
    wait_until("the controller is back", || h.log().contains("br0: No longer in fail-open mode"));
    assert!(!h.appctl(&["bridge/dump-flows", "br0"]).contains("NORMAL"));
}

#[test]
fn listeners_without_tls() {
    let h = Harness::ours();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&["set-controller", "br0", "ptcp:", "ptcp:6655:[::1]", "punix:of.sock"]);
    let unix = format!("unix:{}", h.path("of.sock").display());
    for target in ["tcp:127.0.0.1", "tcp:127.0.0.1:6653", "tcp:[::1]:6655", &unix] {
        wait_until("it listens", || h.try_ofctl(&["show", target]).code == 0);
    }
    assert!(h.try_ofctl(&["show", "tcp:[::1]:6653"]).code != 0, "IPv4 only without an address");
    h.vsctl(&["del-controller", "br0"]);
    wait_until("nobody listens", || h.try_ofctl(&["show", "tcp:127.0.0.1"]).code != 0);
    assert!(!h.path("of.sock").exists());
    // Several servers of a database are tried in turn.
    let mut h = Setup::new(Which::Ours).remote("tcp:127.0.0.1:1,unix:db.sock").up();
    assert!(
        h.log().contains("tcp:127.0.0.1:1: connection attempt failed (Connection refused)"),
        "{}",
        h.log()
    );
    assert!(h.log().contains("reconnect|INFO|unix:db.sock: connected"), "{}", h.log());
    h.stop();
}

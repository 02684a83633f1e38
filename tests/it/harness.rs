//! A private ovsdb-server and a switch daemon, ours or the installed one, in a
//! network namespace and a run directory of their own.
//!
//! Everything is stopped by pid and removed when the [`Harness`] is dropped;
//! after a failed test the ends of the logs are printed.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Which daemon to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one this workspace builds.
    Ours,
    /// Debian's, without DPDK; it knows `--enable-dummy`.
    Installed,
    /// Debian's with DPDK.
    InstalledDpdk,
}

impl Which {
    /// The program file.
    pub fn program(self) -> &'static str {
        match self {
            Which::Ours => env!("CARGO_BIN_EXE_ovs-vswitchd"),
            Which::Installed => "/usr/lib/openvswitch-switch/ovs-vswitchd",
            Which::InstalledDpdk => "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
        }
    }
}

/// Output of a program that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {:?}: {e}", command.get_program()));
    Output {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that must succeed; returns its standard output.
pub fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let program = command.get_program().to_string_lossy();
    checked(&program, &words.iter().map(AsRef::as_ref).collect::<Vec<_>>(), output)
}

fn checked(program: &str, args: &[&str], output: Output) -> String {
    assert!(
        output.code == 0,
        "{program} {} failed with {}:\n{}{}",
        args.join(" "),
        output.code,
        output.out,
        output.err
    );
    output.out
}

/// Waits until `condition` holds; fails the test, naming `what`, if it does not.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_at_most(PATIENCE, condition), "timed out waiting until {what}");
}

/// Waits until `condition` holds, for a limited time; whether it does.
pub fn wait_at_most(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    true
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace: one with a name and its loopback up, or the calling thread's own, in which
/// the kernel itself sends nothing.
pub struct Namespace(String);

impl Namespace {
    /// Puts the calling thread into a new one without a name. Packet sockets that the thread opens
    /// are inside, and so is what it starts, at less cost than by name.
    pub fn of_this_thread() -> Self {
        infra::linux::enter_new_network_namespace()
            .expect("no new network namespace can be made: run the tests as root");
        for which in ["all", "default"] {
            let knob = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
            std::fs::write(knob, "1").expect("IPv6 cannot be switched off");
        }
        Namespace(String::new())
    }

    /// Creates one.
    pub fn new() -> Self {
        let name = unique("ovsit");
        run_ok(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace(name);
        namespace.ok(&["ip", "link", "set", "lo", "up"]);
        namespace
    }

    /// Its name, for `ip link set … netns NAME`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A command that will run inside, and die with the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        if self.0.is_empty() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.0]).arg(program);
        command
    }

    /// Runs words inside.
    pub fn run(&self, words: &[&str]) -> Output {
        run(self.command(words[0]).args(&words[1..]))
    }

    /// Runs words inside that must succeed.
    pub fn ok(&self, words: &[&str]) -> String {
        checked(words[0], &words[1..], self.run(words))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = run(Command::new("ip").args(["netns", "del", &self.0]));
        }
    }
}

/// A child process that is ended by its pid when dropped.
pub struct Process(Child);

impl Process {
    /// Starts it with standard output and error going to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("log file");
        let both = file.try_clone().expect("log file");
        command.stdin(Stdio::null()).stdout(file).stderr(both);
        Process(command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program())))
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args(["-s", name, &self.pid().to_string()]));
    }

    /// Waits for the end; the exit code, or -1 after a signal.
    pub fn wait(&mut self) -> i32 {
        wait_until("a process has ended", || !self.is_running());
        self.0.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("TERM");
            let end = Instant::now() + Duration::from_secs(5);
            while self.is_running() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// What a [`Harness`] starts.
pub struct Setup {
    which: Which,
    args: Vec<String>,
    start: bool,
    in_thread: bool,
    here: bool,
    database: Vec<Vec<String>>,
    server: Vec<String>,
    remote: String,
    members: usize,
}

impl Setup {
    /// A daemon without more arguments.
    pub fn new(which: Which) -> Self {
        Setup {
            which,
            args: Vec::new(),
            start: true,
            in_thread: false,
            here: false,
            database: Vec::new(),
            server: Vec::new(),
            remote: "unix:db.sock".into(),
            members: 0,
        }
    }

    /// With a database of several servers, which listen on `cN.sock`.
    pub fn cluster(mut self, members: usize) -> Self {
        self.members = members;
        self.remote = member_sockets(members, |name| name);
        self
    }

    /// With more arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// With an `ovs-vsctl` command that is done before the daemon starts.
    pub fn vsctl(mut self, args: &[&str]) -> Self {
        self.database.push(args.iter().map(ToString::to_string).collect());
        self
    }

    /// With more arguments for the database server.
    pub fn server(mut self, args: &[&str]) -> Self {
        self.server.extend(args.iter().map(ToString::to_string));
        self
    }

    /// With another way to the database.
    pub fn remote(mut self, remote: &str) -> Self {
        self.remote = remote.into();
        self
    }

    /// Without starting the daemon yet.
    pub fn stopped(mut self) -> Self {
        self.start = false;
        self
    }

    /// In a namespace into which the calling thread goes too.
    pub fn in_thread(mut self) -> Self {
        self.in_thread = true;
        self
    }

    /// In the network namespace in which the tests run, for sockets that a test has there.
    pub fn here(mut self) -> Self {
        self.here = true;
        self
    }

    /// Starts everything.
    pub fn up(self) -> Harness {
        Harness::new(self)
    }
}

/// The way to the members of a cluster.
fn member_sockets(members: usize, path: impl Fn(String) -> String) -> String {
    let all: Vec<String> = (1..=members).map(|n| format!("unix:{}", path(format!("c{n}.sock")))).collect();
    all.join(",")
}

/// A database server and a switch.
pub struct Harness {
    switch: Option<Process>,
    database: Option<Process>,
    members: Vec<Option<Process>>,
    namespace: Namespace,
    dir: PathBuf,
    which: Which,
    args: Vec<String>,
    server: Vec<String>,
    remote: String,
}

impl Harness {
    /// Our daemon.
    pub fn ours() -> Self {
        Setup::new(Which::Ours).up()
    }

    fn new(setup: Setup) -> Self {
        let namespace = match (setup.here, setup.in_thread) {
            (true, _) => Namespace(String::new()),
            (false, true) => Namespace::of_this_thread(),
            (false, false) => Namespace::new(),
        };
        let dir = std::env::temp_dir().join(unique("ovs-it-"));
        std::fs::create_dir_all(&dir).expect("run directory");
        let mut harness = Harness {
            switch: None,
            database: None,
            members: (0..setup.members).map(|_| None).collect(),
            namespace,
            dir,
            which: setup.which,
            args: setup.args,
            server: setup.server,
            remote: setup.remote,
        };
        if harness.members.is_empty() {
            run_ok(Command::new("ovsdb-tool").arg("create").arg(harness.path("conf.db")).arg(SCHEMA));
            harness.start_database();
        } else {
            harness.make_cluster();
        }
        harness.vsctl(&["--no-wait", "init"]);
        for command in setup.database {
            let mut words = vec!["--no-wait"];
            words.extend(command.iter().map(String::as_str));
            harness.vsctl(&words);
        }
        if setup.start {
            harness.start();
        }
        harness
    }

    /// A file in the run directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the switch runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A command in the harness's namespace, directory and environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.dir);
        }
        // Where DPDK keeps its files.
        command.env("RUNTIME_DIRECTORY", &self.dir);
        command.current_dir(&self.dir);
        command
    }

    /// Starts the database server (again).
    pub fn start_database(&mut self) {
        let mut command = self.command("ovsdb-server");
        command.args(["conf.db", "--remote=punix:db.sock", "--unixctl=db.ctl", "--pidfile=db.pid"]);
        command.args(&self.server);
        self.database = Some(Process::start(&mut command, &self.path("ovsdb-server.out")));
        let socket = self.path("db.sock");
        wait_until("the database server listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    fn make_cluster(&mut self) {
        for n in 1..=self.members.len() {
            let mut command = self.command("ovsdb-tool");
            match n {
                1 => command.args(["create-cluster", "c1.db", SCHEMA, "unix:c1.raft"]),
                n => command
                    .args(["join-cluster", &format!("c{n}.db"), "Open_vSwitch"])
                    .args([format!("unix:c{n}.raft"), "unix:c1.raft".into()]),
            };
            run_ok(&mut command);
            self.start_member(n);
        }
    }

    /// Starts a member of the cluster, from 1 on, and waits until it belongs to it.
    pub fn start_member(&mut self, n: usize) {
        let mut command = self.command("ovsdb-server");
        command.args([
            format!("c{n}.db"),
            format!("--remote=punix:c{n}.sock"),
            format!("--unixctl=c{n}.ctl"),
        ]);
        self.members[n - 1] = Some(Process::start(&mut command, &self.path(&format!("c{n}.out"))));
        wait_until("the member listens", || self.path(&format!("c{n}.sock")).exists());
        let mut wait = self.command("ovsdb-client");
        let socket = format!("unix:{}", self.path(&format!("c{n}.sock")).display());
        run_ok(wait.args(["--timeout=30", "wait", &socket, "Open_vSwitch", "connected"]));
    }

    /// Ends a member of the cluster as a crash does.
    pub fn kill_member(&mut self, n: usize) {
        let member = self.members[n - 1].take().expect("the member was started");
        member.signal("KILL");
    }

    /// The member that leads the cluster.
    pub fn leader(&self) -> usize {
        let leads = |n: usize| {
            let mut status = self.command("ovs-appctl");
            status.arg("-t").arg(self.path(&format!("c{n}.ctl"))).args(["cluster/status", "Open_vSwitch"]);
            self.members[n - 1].is_some() && run(&mut status).out.contains("Role: leader")
        };
        let mut leader = None;
        wait_until("the cluster has a leader", || {
            leader = (1..=self.members.len()).find(|n| leads(*n));
            leader.is_some()
        });
        leader.expect("just seen")
    }

    /// Ends the database server.
    pub fn stop_database(&mut self) {
        self.database = None;
    }

    /// Starts the switch and waits until it answers and has read its configuration.
    pub fn start(&mut self) {
        let mut command = self.command(self.which.program());
        command.args([
            "--pidfile=switch.pid",
            "--unixctl=switch.ctl",
            "--log-file=switch.log",
            "-vsyslog:off",
        ]);
        command.arg("-vconsole:err").args(&self.args).arg(&self.remote);
        let mut switch = Process::start(&mut command, &self.path("switch.out"));
        wait_until("the switch answers", || {
            assert!(switch.is_running(), "the switch ended:\n{}", tail(&self.path("switch.out")));
            self.path("switch.ctl").exists() && self.try_appctl(&["version"]).code == 0
        });
        // Both write this line once they have seen the first configuration.
        wait_until("the switch has read the database", || self.log().contains("(Open vSwitch) 3."));
        self.switch = Some(switch);
    }

    /// Starts the switch in the background, with the given options and those that every test needs; returns when
    /// its parent does.
    pub fn detached(&self, args: &[&str]) {
        let mut command = self.command(self.which.program());
        command.args(["-vconsole:off", "-vsyslog:off", "--detach", "--pidfile=switch.pid"]);
        command.arg("--log-file=switch.log").args(args).args(&self.args);
        let start = run(command.arg(&self.remote));
        assert_eq!((start.code, start.err.as_str()), (0, ""));
    }

    /// Starts the switch with the given options, without a word about syslog; returns once it answers.
    pub fn foreground(&self, args: &[&str]) -> Process {
        let mut command = self.command(self.which.program());
        command.args(&self.args).args(args).args(["--pidfile=switch.pid", "--unixctl=switch.ctl"]);
        command.args(["--log-file=switch.log", "-vconsole:off", "unix:db.sock"]);
        let process = Process::start(&mut command, &self.path("switch.out"));
        wait_until("the switch answers", || self.try_appctl(&["version"]).code == 0);
        process
    }

    /// The pid in a pidfile.
    pub fn pid_in(&self, name: &str) -> Option<u32> {
        std::fs::read_to_string(self.path(name)).ok()?.trim().parse().ok()
    }

    /// The switch's process.
    pub fn switch(&mut self) -> &mut Process {
        self.switch.as_mut().expect("the switch was started")
    }

    /// Ends the switch.
    pub fn stop(&mut self) {
        self.switch = None;
    }

    /// `ovs-vsctl`, whatever comes of it.
    pub fn try_vsctl(&self, args: &[&str]) -> Output {
        let path = |name: String| self.path(&name).display().to_string();
        let db = match self.members.len() {
            0 => vec![format!("--db=unix:{}", path("db.sock".into()))],
            // It tries another member only when told to.
            members => vec![format!("--db={}", member_sockets(members, path)), "--retry".into()],
        };
        run(self.command("ovs-vsctl").args(db).arg("--timeout=20").args(args))
    }

    /// `ovs-vsctl` that must succeed; its output.
    pub fn vsctl(&self, args: &[&str]) -> String {
        checked("ovs-vsctl", args, self.try_vsctl(args))
    }

    /// `ovs-ofctl`, whatever comes of it.
    pub fn try_ofctl(&self, args: &[&str]) -> Output {
        run(self.command("ovs-ofctl").arg("--timeout=20").args(args))
    }

    /// `ovs-ofctl` that must succeed; its output.
    pub fn ofctl(&self, args: &[&str]) -> String {
        checked("ovs-ofctl", args, self.try_ofctl(args))
    }

    /// `ovs-appctl` to the switch, whatever comes of it.
    pub fn try_appctl(&self, args: &[&str]) -> Output {
        let target = self.path("switch.ctl");
        run(self.command("ovs-appctl").arg("--timeout=20").arg("-t").arg(target).args(args))
    }

    /// `ovs-appctl` to the switch that must succeed; its output.
    pub fn appctl(&self, args: &[&str]) -> String {
        checked("ovs-appctl", args, self.try_appctl(args))
    }

    /// `ovs-ofctl` that reads `input`, whatever comes of it.
    pub fn ofctl_stdin(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command("ovs-ofctl");
        command.arg("--timeout=60").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cannot run ovs-ofctl");
        // A tool that gives up early closes its end; its own words tell why.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("ovs-ofctl");
        Output {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A command of the control socket without a process for it, for asking often.
    pub fn control(&self, method: &str, params: &[&str]) -> Result<String, String> {
        let fault = |e: std::io::Error| format!("{method}: {e}");
        let mut stream = UnixStream::connect(self.path("switch.ctl")).map_err(fault)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(fault)?;
        let request = serde_json::json!({"id": 0, "method": method, "params": params});
        stream.write_all(request.to_string().as_bytes()).map_err(fault)?;
        let (mut text, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let n = match stream.read(&mut piece) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.map_err(fault)?,
            };
            if n == 0 {
                return Err(format!("{method}: the control socket closed"));
            }
            text.extend(&piece[..n]);
            if let Ok(reply) = serde_json::from_slice::<serde_json::Value>(&text) {
                return match (&reply["result"], &reply["error"]) {
                    (serde_json::Value::String(result), _) => Ok(result.clone()),
                    (_, error) => Err(error.as_str().unwrap_or_default().to_string()),
                };
            }
        }
    }

    /// The switch's log file.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("switch.log")).unwrap_or_default()
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(30)..] {
        let _ = writeln!(out, "    {line}");
    }
    out
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.switch = None;
        // A daemon that a test started detached is nobody's child any more.
        let pid = std::fs::read_to_string(self.path("switch.pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            run(Command::new("kill").args(["-s", "TERM", pid.trim()]));
        }
        self.database = None;
        self.members.clear();
        if std::thread::panicking() {
            for name in ["ovsdb-server.out", "switch.out", "switch.log"] {
                eprintln!("--- end of {name}:\n{}", tail(&self.path(name)));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Words of a command line: blanks separate, double quotes keep together, a backslash keeps the next character.
pub fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut open, mut quoted) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (quoted, open) = (!quoted, true),
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() && !quoted => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The same words, borrowed.
pub fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

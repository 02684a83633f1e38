//! Start, end, restart: pidfile, sockets, signals, monitor, database that goes
//! away, command lines that cannot work.

use crate::harness::{run, wait_at_most, wait_until, Harness, Namespace, Process, Setup, Which};
use crate::lab::Host;
use std::process::Command;
use std::time::{Duration, Instant};

fn pid_in(h: &Harness, name: &str) -> String {
    std::fs::read_to_string(h.path(name)).unwrap_or_default().trim().to_string()
}

#[test]
fn leaves_nothing_behind() {
    for (signal, code) in [(Some("TERM"), -1), (Some("INT"), -1), (None, 0)] {
        let mut h = Harness::ours();
        assert_eq!(pid_in(&h, "switch.pid"), h.switch().pid().to_string());
        match signal {
            Some(name) => h.switch().signal(name),
            None => drop(h.appctl(&["exit", "--cleanup"])),
        }
        assert_eq!(h.switch().wait(), code);
        assert!(!h.path("switch.pid").exists() && !h.path("switch.ctl").exists());
    }
}

#[test]
fn hangup_reopens_the_log() {
    let mut h = Harness::ours();
    std::fs::rename(h.path("switch.log"), h.path("old.log")).unwrap();
    h.switch().signal("HUP");
    wait_until("the log is open again", || h.log().contains("opened log file"));
    assert!(h.switch().is_running());
}

#[test]
fn second_instance_is_refused() {
    let h = Harness::ours();
    let again = run(h.command(Which::Ours.program()).args(["--pidfile=switch.pid", "unix:db.sock"]));
    assert_eq!(again.code, 1);
    let (path, pid) = (h.path("switch.pid"), pid_in(&h, "switch.pid"));
    let expected = format!("ovs-vswitchd: {}: already running as pid {pid}, aborting", path.display());
    assert_eq!(again.err.lines().last(), Some(expected.as_str()));
}

#[test]
fn database_goes_and_comes() {
    let mut h = Harness::ours();
    h.stop_database();
    wait_until("the loss is logged", || h.log().contains("db.sock: connection "));
    h.appctl(&["version"]);
    h.start_database();
    wait_until("the switch is back", || h.log().matches("db.sock: connected").count() == 2);
}

fn wait_for_another(h: &Harness, first: u32) -> u32 {
    let mut now = None;
    wait_until("a new daemon has taken over", || {
        now = h.pid_in("switch.pid").filter(|p| *p != first);
        now.is_some()
    });
    now.expect("just seen")
}

/// Files of the run directory, without the database's.
fn left(h: &Harness) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(h.path(""))
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| {
            !n.starts_with("db.")
                && !n.starts_with("conf.db")
                && !n.starts_with(".conf.db")
                && n != "ovsdb-server.out"
        })
        .collect();
    names.sort();
    names
}

/// Detached and monitored: the parent returns when the daemon is ready; a crash brings a new daemon within two
/// seconds, with bridges, ports and forwarding; SIGTERM leaves nothing but log and database.
#[test]
fn crash_and_end_under_a_monitor() {
    let h = Setup::new(Which::Ours).stopped().in_thread().up();
    let (a, b) = (Host::behind_veth(1), Host::behind_veth(2));
    h.detached(&["--monitor"]);
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&["add-port", "br0", "p1", "--", "add-port", "br0", "p2"]);
    h.vsctl(&["add-port", "br0", "t0", "--", "set", "Interface", "t0", "type=tap"]);
    a.pings(&b);
    let first = h.pid_in("switch.pid").expect("a pid");
    let began = Instant::now();
    run(Command::new("kill").args(["-s", "SEGV", &first.to_string()]));
    // Within two seconds a ping passes again.
    let back = wait_at_most(Duration::from_secs(2), || a.tries(&b));
    assert!(back, "no forwarding {:?} after the crash", began.elapsed());
    let second = wait_for_another(&h, first);
    // The control socket has the pid in its name: the old one is gone.
    let control = |pid| h.path(&format!("ovs-vswitchd.{pid}.ctl"));
    let version = || run(Command::new("ovs-appctl").arg("-t").arg(control(second)).arg("version"));
    wait_until("the new daemon answers", || version().code == 0);
    assert!(!control(first).exists());
    assert_eq!(h.vsctl(&["list-ports", "br0"]), "p1\np2\nt0\n");
    assert_eq!(h.ofctl(&["dump-ports-desc", "br0"]).matches("): addr:").count(), 3 + 1);
    h.ofctl(&["dump-flows", "br0"]);
    let line = format!("|daemon_unix(monitor)|ERR|1 crashes: pid {first} died, killed (Segmentation fault)");
    assert!(h.log().contains(&line), "{}", h.log());
    run(Command::new("kill").args(["-s", "TERM", &second.to_string()]));
    let line = format!("|daemon_unix(monitor)|INFO|pid {second} died, killed (Terminated), exiting");
    wait_until("the monitor has ended", || h.log().contains(&line));
    assert_eq!(left(&h), ["switch.log"]);
    for device in ["br0", "t0"] {
        assert_ne!(run(Command::new("ip").args(["link", "show", device])).code, 0, "{device} is still there");
    }
}

/// `exit` leaves the tap devices to the next daemon, `exit --cleanup` and signals do not.
#[test]
fn taps_go_with_signals_and_cleanup() {
    let mut h = Harness::ours();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    let there = |h: &Harness| h.namespace().run(&["ip", "link", "show", "br0"]).code == 0;
    assert!(there(&h));
    h.appctl(&["exit"]);
    assert_eq!(h.switch().wait(), 0);
    assert!(there(&h));
    for end in ["TERM", "INT", "ALRM", "--cleanup"] {
        h.start();
        wait_until("the bridge is there", || there(&h));
        match end {
            "--cleanup" => drop(h.appctl(&["exit", "--cleanup"])),
            signal => h.switch().signal(signal),
        }
        h.switch().wait();
        assert!(!there(&h), "{end}");
    }
}

/// What is left of the switch's ports after each end: internal and tap ports, also one over a device that was there
/// before, and one of a device of another kind, which is not the switch's to remove. As of the installed daemon.
#[test]
fn ports_that_cleanup_removes() {
    let left = |which: Which, end: &[&str]| {
        let mut h = Setup::new(which).up();
        h.namespace().ok(&["ip", "tuntap", "add", "dev", "before", "mode", "tap"]);
        h.namespace().ok(&["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
        for (name, kind) in [("i0", "internal"), ("t0", "tap"), ("before", "tap"), ("v0", "system")] {
            let kind = format!("type={kind}");
            h.vsctl(&["add-port", "br0", name, "--", "set", "Interface", name, &kind]);
            assert_eq!(h.vsctl(&["get", "Interface", name, "error"]).trim(), "[]", "{which:?} {name}");
        }
        h.appctl(end);
        assert_eq!(h.switch().wait(), 0);
        let links = h.namespace().ok(&["ip", "-brief", "link"]);
        let name = |l: &str| l.split([' ', '@']).next().unwrap_or_default().to_string();
        let mut links: Vec<String> = links.lines().map(name).collect();
        links.sort();
        links
    };
    for which in [Which::Ours, Which::Installed] {
        assert_eq!(left(which, &["exit", "--cleanup"]), ["lo", "v0", "v1"], "{which:?}");
        let all = ["before", "br0", "i0", "lo", "ovs-netdev", "t0", "v0", "v1"];
        assert_eq!(left(which, &["exit"]), all, "{which:?}");
    }
}

/// `--user` becomes another user, and keeps the few capabilities that a switch needs.
#[test]
fn another_user() {
    let mut h = Setup::new(Which::Ours).args(&["--user=daemon"]).stopped().up();
    run(Command::new("chown").arg("daemon").arg(h.path("")).arg(h.path("db.sock")));
    h.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", h.switch().pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "1 1 1 1");
    assert_eq!(field("Gid:"), "1 1 1 1");
    assert_eq!(field("Groups:"), "");
    // CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, as the installed daemon.
    for (name, bits) in
        [("CapInh:", 0), ("CapPrm:", 0x7c00), ("CapEff:", 0x7c00), ("CapBnd:", 0), ("CapAmb:", 0)]
    {
        assert_eq!(field(name), format!("{bits:016x}"), "{name}");
    }
    // They suffice for a bridge with its device, and for a log file that is opened anew.
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    std::fs::rename(h.path("switch.log"), h.path("old.log")).unwrap();
    h.appctl(&["vlog/reopen"]);
    assert!(h.log().contains("opened log file"));
}

/// A signal that was ignored from the start stays ignored, as with nohup.
#[test]
fn ignored_signals() {
    let h = Setup::new(Which::Ours).stopped().up();
    let daemon = format!(
        "trap '' INT; exec {} --pidfile=switch.pid --unixctl=switch.ctl unix:db.sock",
        Which::Ours.program()
    );
    let mut daemon = Process::start(h.command("sh").args(["-c", &daemon]), &h.path("switch.out"));
    wait_until("the switch answers", || h.try_appctl(&["version"]).code == 0);
    let pid = h.pid_in("switch.pid").expect("a pid").to_string();
    run(Command::new("kill").args(["-s", "INT", &pid]));
    h.appctl(&["version"]);
    run(Command::new("kill").args(["-s", "TERM", &pid]));
    daemon.wait();
    assert!(!h.path("switch.pid").exists());
}

/// Memory is locked when that was asked for, and only then.
#[test]
fn locked_memory() {
    let locked = |h: &mut Harness| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", h.switch().pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmLck:")).unwrap_or_default().to_string();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    assert!(locked(&mut Setup::new(Which::Ours).args(&["--mlockall"]).up()) > 1_000);
    assert_eq!(locked(&mut Harness::ours()), 0);
}

/// The background process starts in the root directory unless told otherwise.
#[test]
fn working_directory() {
    for (option, expected) in
        [(&["--unixctl=switch.ctl"][..], None), (&["--unixctl=switch.ctl", "--no-chdir"][..], Some(()))]
    {
        let h = Setup::new(Which::Ours).stopped().up();
        h.detached(option);
        let pid = h.pid_in("switch.pid").expect("a pid");
        let at = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(at, expected.map_or("/".into(), |()| h.path("").canonicalize().unwrap()));
        h.appctl(&["exit"]);
    }
}

/// Command lines that are refused, or print and exit, say what the installed
/// daemon says.
#[test]
fn command_lines_as_the_installed_daemon() {
    let namespace = Namespace::new();
    let cases: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["-V", "--nonsense"],
        &["--nonsense"],
        &["-x"],
        &["--p"],
        &["--unixctl"],
        &["--detach=1"],
        &["-p"],
        &["-vnonsense"],
        &["-vconsole:foo"],
        &["--verbose=dbg:info"],
        &["--syslog-method=foo"],
        &["a", "b"],
        &["--user=no-such-user-here", "unix:x"],
        &["--user=nobody:no-such-group", "unix:x"],
        &["--user=nobody:daemon", "unix:x"],
        &["--user=:daemon", "unix:x"],
        &["--pidfile=/nonexistent/x.pid", "unix:x"],
        &["--unixctl=/nonexistent/x.ctl", "unix:x"],
    ];
    // Lines of the log begin with the time.
    let timeless = |line: &str| line.split_once("Z|").map_or(line, |(_, rest)| rest).to_string();
    let output = |which: Which, args: &[&str]| {
        let output = namespace.run(&[&[which.program()], args].concat());
        let mut out = output.out.as_str();
        if ["--version", "-V"].contains(&args[0]) {
            // Ours also names the DPDK that it drives.
            out = out.lines().next().unwrap_or_default();
        }
        let err: Vec<String> = output.err.replace(which.program(), "PROGRAM").lines().map(timeless).collect();
        (output.code, out.to_string(), err)
    };
    for args in cases {
        assert_eq!(output(Which::Ours, args), output(Which::Installed, args), "{args:?}");
    }
}

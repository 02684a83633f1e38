//! Start, end, restart: pidfile, sockets, signals, monitor, database that goes
//! away, command lines that cannot work.

use crate::harness::{run, wait_until, Harness, Namespace, Setup, Which};
use std::process::Command;

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

/// Detached and monitored: the parent returns when the daemon is ready, a crash
/// brings a new daemon, the end of the daemon ends the monitor.
#[test]
fn detached_and_monitored() {
    let h = Setup::new(Which::Ours).stopped().up();
    let start = run(h.command(Which::Ours.program()).args([
        "--detach",
        "--monitor",
        "--pidfile=switch.pid",
        "--unixctl=switch.ctl",
        "-vconsole:off",
        "-vsyslog:off",
        "--log-file=switch.log",
        "unix:db.sock",
    ]));
    assert_eq!((start.code, start.err.as_str()), (0, ""));
    let first = pid_in(&h, "switch.pid");
    h.appctl(&["version"]);
    run(Command::new("kill").args(["-s", "SEGV", &first]));
    wait_until("a new daemon has taken over", || {
        !["", first.as_str()].contains(&pid_in(&h, "switch.pid").as_str())
    });
    wait_until("the new daemon answers", || h.try_appctl(&["version"]).code == 0);
    let line = format!("pid {first} died, killed (Segmentation fault)");
    assert!(h.log().contains(&format!("|daemon_unix(monitor)|ERR|1 crashes: {line}")), "{}", h.log());
    let second = pid_in(&h, "switch.pid");
    h.appctl(&["exit"]);
    let line = format!("pid {second} died, exit status 0, exiting");
    wait_until("the monitor has ended", || h.log().contains(&line));
    assert!(!h.path("switch.pid").exists() && !h.path("switch.ctl").exists());
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
        &["--pidfile=/nonexistent/x.pid", "unix:x"],
    ];
    let output = |which: Which, args: &[&str]| {
        let output = namespace.run(&[&[which.program()], args].concat());
        let mut out = output.out.as_str();
        if ["--version", "-V"].contains(&args[0]) {
            // Ours also names the DPDK that it drives.
            out = out.lines().next().unwrap_or_default();
        }
        (output.code, out.to_string(), output.err.replace(which.program(), "PROGRAM"))
    };
    for args in cases {
        assert_eq!(output(Which::Ours, args), output(Which::Installed, args), "{args:?}");
    }
}

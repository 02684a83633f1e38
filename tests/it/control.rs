//! The control socket: commands of the daemon itself, the installed daemon's
//! answers as the reference, and clients that mean no good.

use crate::harness::{wait_at_most, wait_until, Harness, Setup, Which};
use crate::lab::{ports, udp, Lab};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Commands whose whole output must equal the installed daemon's.
const SAME: &[&[&str]] = &[
    &["version"],
    &["version", "x"],
    &["nonsense"],
    &["nonsense", "with", "arguments"],
    &["coverage/read-counter"],
    &["coverage/read-counter", "no_such_counter"],
    &["coverage/show", "x"],
    &["memory/show", "x"],
    &["exit", "a", "b"],
    &["vlog/list-pattern"],
    &["vlog/list-pattern", "x"],
    &["vlog/set", "foo"],
    &["vlog/set", "console:foo"],
    &["vlog/set", "console:file:dbg"],
    &["vlog/set", "bridge:netdev:dbg"],
    &["vlog/set", "dbg:info"],
    &["vlog/set", "PATTERN"],
    &["vlog/set", "PATTERN:"],
    &["vlog/set", "PATTERN:foo:%m"],
    &["vlog/set", "PATTERN:console:%m"],
    &["vlog/set", "FACILITY"],
    &["vlog/set", "FACILITY:nonsense"],
    &["vlog/set", "FACILITY:LOCAL3"],
    &["vlog/set", "Bridge:CONSOLE:warn"],
    &["vlog/set", "any:any:err"],
    &["vlog/set", "syslog:off"],
    &["vlog/list"],
    &["vlog/list-pattern"],
    &["vlog/enable-rate-limit", "nonsense"],
    &["vlog/disable-rate-limit", "bridge", "netdev"],
    &["vlog/enable-rate-limit"],
    &["vlog/close"],
    &["vlog/reopen"],
];

#[test]
fn same_answers_as_the_installed_daemon() {
    let ours = Harness::ours();
    let theirs = Setup::new(Which::Installed).args(&["--disable-system"]).up();
    for command in SAME {
        let (a, b) = (ours.try_appctl(command), theirs.try_appctl(command));
        if command[0] == "vlog/list" {
            // Which modules there are depends on how a daemon was built.
            for line in b.out.lines() {
                assert!(a.out.lines().any(|l| l == line), "{line:?} is missing:\n{}", a.out);
            }
            continue;
        }
        // The tool names the socket in its own message.
        let err = |text: &str, h: &Harness| text.replace(&*h.path("").to_string_lossy(), "");
        assert_eq!((a.code, &a.out), (b.code, &b.out), "{command:?}");
        assert_eq!(err(&a.err, &ours), err(&b.err, &theirs), "{command:?}");
    }
}

/// Every command that both have is listed in the same way.
#[test]
fn commands_are_listed_as_by_the_installed_daemon() {
    let ours = Harness::ours().appctl(&["list-commands"]);
    let theirs = Setup::new(Which::InstalledDpdk).up().appctl(&["list-commands"]);
    assert!(ours.starts_with("The available commands are:\n"), "{ours}");
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_string();
    let known: Vec<String> = theirs.lines().map(name).collect();
    for line in ours.lines().skip(1).filter(|line| known.contains(&name(line))) {
        assert!(theirs.lines().any(|l| l == line), "{line:?} is listed differently:\n{theirs}");
    }
}

#[test]
fn levels_and_log_file() {
    let h = Harness::ours();
    h.appctl(&["vlog/set", "unixctl:file:dbg"]);
    h.appctl(&["version"]);
    wait_until("the debug line is there", || {
        h.log().contains("|unixctl|DBG|received request version[], id=")
    });
    std::fs::rename(h.path("switch.log"), h.path("switch.log.1")).unwrap();
    h.appctl(&["vlog/reopen"]);
    assert!(h.log().contains("|vlog|INFO|opened log file "), "{}", h.log());
    assert!(std::fs::read_to_string(h.path("switch.log.1")).unwrap().contains("|vlog|INFO|closing log file"));
    assert!(h.appctl(&["coverage/show"]).ends_with("events never hit\n"));
}

fn resident_kb(h: &mut Harness) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", h.switch().pid())).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What a hostile client sends: nothing, half a request, a line without end, a million of `[`, requests whose replies
/// it does not read.
fn junk(i: usize) -> Vec<u8> {
    match i % 5 {
        0 => Vec::new(),
        1 => b"{\"method\":\"ver".to_vec(),
        2 => [b"{\"method\":\"".as_slice(), &[b'x'; 1 << 20]].concat(),
        3 => vec![b'['; 1 << 20],
        _ => b"{\"method\":\"vlog/list\",\"params\":[],\"id\":0}".repeat(1000),
    }
}

/// A hostile client, number `n`; it stays until it is dropped.
pub fn hostile(path: &Path, n: usize) -> UnixStream {
    let mut client = UnixStream::connect(path).expect("connect");
    client.set_nonblocking(true).unwrap();
    let _ = client.write(&junk(n));
    client
}

/// Whether a client that asks for the version is answered.
pub fn honest(path: &Path) -> bool {
    let mut answer = [0; 40];
    let asked = UnixStream::connect(path).and_then(|mut client| {
        client.set_read_timeout(Some(Duration::from_secs(20)))?;
        client.write_all(b"{\"method\":\"version\",\"params\":[],\"id\":1}")?;
        client.read_exact(&mut answer)
    });
    asked.is_ok() && answer.starts_with(b"{\"id\":1,\"result\":\"ovs-vswitchd (Open")
}

/// A thousand clients at once, every other one hostile: all honest ones are answered, packets pass, and afterwards
/// memory is what it was.
#[test]
fn a_thousand_clients() {
    infra::process::raise_file_limit(8_192);
    let mut lab = Lab::new(2);
    let frame = udp(1, 2, 1, 2);
    lab.send(2, &udp(2, 1, 2, 1));
    assert_eq!(ports(&lab.send(1, &frame)), [2]);
    let path = lab.h.path("switch.ctl");
    let round = |lab: &mut Lab| {
        let answered = AtomicUsize::new(0);
        let left = AtomicUsize::new(20);
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let (answered, path, left) = (&answered, &path, &left);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for i in 0..50 {
                        if i % 2 == 0 {
                            held.push(hostile(path, thread + i / 2));
                        } else {
                            assert!(honest(path), "an honest client is not answered");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    left.fetch_sub(1, Ordering::Relaxed);
                    // The hostile ones stay until all are there.
                    wait_until("all clients have been there", || left.load(Ordering::Relaxed) == 0);
                });
            }
            // Packets pass as before, none is lost.
            while left.load(Ordering::Relaxed) > 0 {
                assert_eq!(ports(&lab.send(1, &frame)), [2]);
            }
        });
        assert_eq!(answered.load(Ordering::Relaxed), 500);
    };
    let before = resident_kb(&mut lab.h);
    for _ in 0..3 {
        round(&mut lab);
    }
    let mut after = 0;
    let back = wait_at_most(Duration::from_secs(20), || {
        // Those who have gone are noticed turn by turn.
        lab.h.control("version", &[]).expect("an answer");
        after = resident_kb(&mut lab.h);
        after < before + 4_096
    });
    println!("resident memory: {before} kB before three crowds, {after} kB after");
    assert!(back, "memory grows from {before} to {after} kB");
}

#[test]
fn hostile_clients_disturb_nobody() {
    let h = Harness::ours();
    let connect = || UnixStream::connect(h.path("switch.ctl")).unwrap();
    let mut held = Vec::new();
    for i in 0..40 {
        let mut client = connect();
        client.set_nonblocking(true).unwrap();
        let junk: Vec<u8> = match i % 4 {
            0 => Vec::new(),
            1 => [b"{\"method\":\"".as_slice(), &[b'x'; 300_000]].concat(),
            2 => vec![b'['; 1 << 20],
            _ => b"{\"method\":\"vlog/list\",\"params\":[],\"id\":0}".repeat(1000),
        };
        let _ = client.write(&junk);
        held.push(client);
    }
    for _ in 0..10 {
        assert!(h.appctl(&["version"]).contains("(Open vSwitch)"));
    }
    // A request in single bytes is answered; one without end is cut off.
    let mut slow = connect();
    for byte in b"{\"id\":7,\"method\":\"version\",\"params\":[]}" {
        slow.write_all(&[*byte]).unwrap();
    }
    slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 7];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"{\"id\":7");
    let mut endless = connect();
    let _ = endless.write_all(b"{\"");
    let cut = (0..100).any(|_| endless.write_all(&[b'y'; 65536]).is_err());
    assert!(cut, "a client may send a request of several MB");
}

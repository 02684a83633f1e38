//! The worker process behind the daemon: a log file whose disk does not answer, a worker that is killed, what `ps`
//! shows.

use crate::harness::{wait_until, Harness, Setup, Which};
use crate::lab::{ports, udp, Lab};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What `ps` shows of a process.
fn title(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// The worker of a daemon.
fn worker_of(pid: u32) -> u32 {
    let expected = format!("ovs-vswitchd: worker process for pid {pid}");
    let mut found = None;
    wait_until("the daemon has a worker", || {
        found = children(pid).into_iter().find(|p| title(*p) == expected);
        found.is_some()
    });
    found.expect("just found")
}

/// The median time of 101 answers: the best of some, as other tests take the processors away at times.
fn median_answer(h: &Harness, enough: Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..8 {
        best = best.min(one_median(h));
        if best < enough {
            break;
        }
    }
    best
}

fn one_median(h: &Harness) -> Duration {
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = Instant::now();
            h.control("version", &[]).expect("an answer");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn state(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().and_then(|r| r.split_whitespace().next()).unwrap_or_default().to_string()
}

/// True while a process sleeps in a write to a pipe.
fn is_stuck_in_a_pipe(pid: u32) -> bool {
    let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    state(pid) == "S" && (wchan.contains("pipe") || wchan == "0" || wchan.is_empty())
}

/// A full pipe takes the place of the log file: forwarding and answers go on as before, memory stays bounded, lost
/// lines are counted and told of, and when the pipe is read everything goes on.
#[test]
fn a_frozen_disk_stalls_nobody() {
    let mut lab = Lab::new(2);
    let frame = udp(1, 2, 1, 2);
    lab.send(1, &frame);
    lab.send(2, &udp(2, 1, 2, 1));
    assert_eq!(ports(&lab.send(1, &frame)), [2]);
    let before = median_answer(&lab.h, Duration::ZERO);

    let log = lab.h.path("switch.log");
    std::fs::rename(&log, lab.h.path("old.log")).unwrap();
    infra::process::make_fifo(&log).unwrap();
    // A reader must be there for the worker to open the pipe, but it reads nothing yet.
    let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&log).unwrap();
    lab.h.appctl(&["vlog/reopen"]);
    lab.h.appctl(&["vlog/set", "unixctl:file:dbg"]);
    let pid = lab.h.switch().pid();
    let worker = worker_of(pid);
    // Each command writes lines; the pipe takes 64 kB, the socket and the queue a good megabyte.
    let lost = || lab.h.control("coverage/read-counter", &["vlog_file_dropped"]).unwrap_or_default();
    let junk = "x".repeat(4_000);
    wait_until("lines are lost", || {
        for _ in 0..50 {
            let _ = lab.h.control("vlog/set", &[&junk]);
        }
        !["", "0"].contains(&lost().trim())
    });
    assert!(is_stuck_in_a_pipe(worker), "the worker is not stuck: {}", state(worker));
    let resident = resident_kb(pid);

    // Below a fifth of a millisecond the noise of the machine is larger than the time.
    let bound = (before * 2).max(Duration::from_micros(200));
    let during = median_answer(&lab.h, bound);
    println!("median answer: {before:?} before, {during:?} with a frozen disk");
    assert!(during < bound, "answers take {during:?} instead of {before:?}");
    for _ in 0..20 {
        assert_eq!(ports(&lab.send(1, &frame)), [2]);
    }
    // A new flow, too: translation logs nothing and waits for nobody.
    assert_eq!(ports(&lab.send(1, &udp(1, 2, 5, 6))), [2]);
    assert!(resident_kb(pid) < resident + 2_048, "memory grows while the disk is frozen");

    // The disk is back: what waited is written, and how much was lost is told.
    let mut text = Vec::new();
    wait_until("the loss is told of", || {
        let mut piece = vec![0; 1 << 20];
        while let Ok(n @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
        }
        let _ = lab.h.control("version", &[]);
        String::from_utf8_lossy(&text).contains("|vlog|WARN|Dropped ")
    });
    assert!(
        String::from_utf8_lossy(&text).contains(" log messages because the log file could not be written\n")
    );
    lab.h.switch().signal("TERM");
    assert_eq!(lab.h.switch().wait(), -1);
}

fn resident_kb(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A disk that never comes back keeps the worker, but not the daemon.
#[test]
fn a_frozen_disk_does_not_keep_the_daemon() {
    let mut h = Harness::ours();
    let log = h.path("switch.log");
    std::fs::rename(&log, h.path("old.log")).unwrap();
    infra::process::make_fifo(&log).unwrap();
    let worker = worker_of(h.switch().pid());
    // Without a reader the worker hangs in the opening, and with it the one who asked for it.
    let ctl = h.path("switch.ctl");
    let waiting = std::thread::spawn(move || {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::connect(ctl).unwrap();
        stream.write_all(b"{\"id\":0,\"method\":\"vlog/reopen\",\"params\":[]}").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    wait_until("the worker hangs", || {
        h.control("version", &[]).unwrap();
        std::fs::read_to_string(format!("/proc/{worker}/wchan")).is_ok_and(|w| w.contains("fifo"))
            || state(worker) == "S" && std::fs::read_link(format!("/proc/{worker}/cwd")).is_ok()
    });
    let began = Instant::now();
    h.appctl(&["exit"]);
    assert_eq!(h.switch().wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(waiting.join().unwrap(), "");
    // The worker goes on alone until its opening is done, and then ends.
    drop(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&log));
    wait_until("the worker has ended", || {
        !Path::new(&format!("/proc/{worker}")).exists() || state(worker) == "Z"
    });
}

/// Without its worker the daemon says so and aborts; the monitor starts another.
#[test]
fn a_killed_worker_restarts_the_daemon() {
    let h = Setup::new(Which::Ours).stopped().up();
    h.detached(&["--monitor", "--unixctl=switch.ctl"]);
    let pid = |h: &Harness| h.pid_in("switch.pid");
    let first = pid(&h).expect("a pid");
    crate::harness::run(Command::new("kill").args(["-s", "KILL", &worker_of(first).to_string()]));
    wait_until("a new daemon has taken over", || pid(&h).is_some_and(|p| p != first));
    wait_until("the new daemon answers", || h.try_appctl(&["version"]).code == 0);
    let text = h.log();
    let lost = format!("|worker|EMER|worker process for pid {first} is lost: the connection was closed (killed (Killed)), aborting");
    assert!(text.contains(&lost), "{text}");
    assert!(
        text.contains(&format!("|daemon_unix(monitor)|ERR|1 crashes: pid {first} died, killed (Aborted)")),
        "{text}"
    );
    let second = pid(&h).expect("a pid");
    worker_of(second);
    let monitor = std::fs::read_to_string(format!("/proc/{second}/stat")).unwrap();
    let monitor: u32 =
        monitor.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let shown =
        format!("ovs-vswitchd: monitoring pid {second} (1 crashes: pid {first} died, killed (Aborted)");
    assert!(title(monitor).starts_with(&shown), "{}", title(monitor));
    assert!(title(second).ends_with("/ovs-vswitchd"), "{}", title(second));
    h.appctl(&["exit"]);
    wait_until("the monitor has ended", || title(monitor).is_empty());
}

//! Where log lines go and how they look there, with the installed daemon as the reference: syslog by socket, by UDP
//! and to a collector; the memory report; events and their rates.

use crate::harness::{wait_at_most, wait_until, Harness, Setup, Which};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Digits and names that differ from run to run are all the same.
fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

/// What a daemon sends to a Unix socket, a UDP port and a collector for one warning, made by `vlog/reopen` of a log
/// file that cannot be opened.
fn syslog(which: Which, method: &str) -> Vec<(String, String)> {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = std::env::temp_dir().join(format!("syslog-{}-{which:?}-{method}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let unix = UnixDatagram::bind(&path).unwrap();
    for socket in [&udp, &target] {
        socket.set_nonblocking(true).unwrap();
    }
    unix.set_nonblocking(true).unwrap();
    let method_word = match method {
        "unix" => format!("--syslog-method=unix:{}", path.display()),
        "udp" => format!("--syslog-method=udp:{}", udp.local_addr().unwrap()),
        other => format!("--syslog-method={other}"),
    };
    let target_word = format!("--syslog-target={}", target.local_addr().unwrap());
    // In the namespace of the test: the sockets are here.
    let h = Setup::new(which).stopped().here().args(&[&method_word, &target_word]).up();
    let mut daemon = h.foreground(&["-vsyslog:warn"]);
    h.appctl(&["vlog/set", "FACILITY:local3"]);
    std::fs::rename(h.path("switch.log"), h.path("old.log")).unwrap();
    std::fs::create_dir(h.path("switch.log")).unwrap();
    let _ = h.try_appctl(&["vlog/reopen"]);
    std::fs::remove_dir(h.path("switch.log")).unwrap();
    let prefix = h.appctl(&["vlog/list-pattern"]);
    let mut got = vec![("prefix".to_string(), prefix)];
    wait_at_most(Duration::from_secs(5), || {
        let mut buffer = [0; 4096];
        while let Ok(n) = udp.recv(&mut buffer) {
            got.push(("udp".into(), plain(&buffer[..n])));
        }
        while let Ok(n) = unix.recv(&mut buffer) {
            got.push(("unix".into(), plain(&buffer[..n])));
        }
        while let Ok(n) = target.recv(&mut buffer) {
            got.push(("target".into(), plain(&buffer[..n])));
        }
        got.iter().any(|(to, text)| to == "target" && text.contains("failed to open"))
    });
    daemon.signal("TERM");
    daemon.wait();
    let _ = std::fs::remove_file(&path);
    let dir = h.path("").display().to_string();
    got.retain(|(to, text)| to == "prefix" || text.contains("failed to open") || text.contains("deprecated"));
    got.into_iter().map(|(to, text)| (to, text.replace(&*plain(dir.as_bytes()), "DIR/"))).collect()
}

#[test]
fn syslog_as_the_installed_daemon() {
    for method in ["unix", "udp", "null"] {
        let (theirs, ours) = (syslog(Which::Installed, method), syslog(Which::Ours, method));
        assert_eq!(ours, theirs, "{method}");
        assert!(ours.iter().any(|(to, _)| to == "target"), "{ours:?}");
    }
}

/// The memory report comes after ten seconds, in the words of the installed daemon.
#[test]
fn memory_is_reported() {
    let h = Setup::new(Which::Ours).args(&["--enable-dummy"]).up();
    h.appctl(&["time/stop"]);
    h.vsctl(&["--no-wait", "add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=dummy"]);
    wait_until("the bridge is there", || h.try_ofctl(&["show", "br0"]).code == 0);
    assert!(!h.log().contains("|memory|"), "{}", h.log());
    h.appctl(&["time/warp", "11000", "1000"]);
    wait_until("the report is there", || h.log().contains("|memory|INFO|"));
    let log = h.log();
    let mut lines =
        log.lines().filter_map(|l| l.split_once("|memory|INFO|").map(|(_, text)| plain(text.as_bytes())));
    assert_eq!(lines.next().as_deref(), Some("N kB peak resident set size after N.N seconds"));
    let usage = lines.next().expect("what is kept");
    assert!(usage.contains("idl-cells-Open_vSwitch:N") && usage.contains(" ports:N"), "{usage}");
    assert_eq!(plain(h.appctl(&["memory/show"]).trim_end().as_bytes()), usage);
    // It does not come again while nothing grows.
    h.appctl(&["time/warp", "60000", "10000"]);
    assert_eq!(h.log().matches("peak resident set size").count(), 1);
}

/// Rates of an event over five seconds, a minute, an hour.
#[test]
fn events_have_rates() {
    let h = Setup::new(Which::Ours).args(&["--enable-dummy"]).up();
    h.appctl(&["time/stop"]);
    let rate = |h: &Harness| {
        let text = h.appctl(&["coverage/show"]);
        let line =
            text.lines().find(|l| l.starts_with("unixctl_received ")).unwrap_or_else(|| panic!("{text}"));
        let number = |n: usize| {
            line.split_whitespace().nth(n).and_then(|w| w.trim_end_matches("/sec").parse::<f64>().ok())
        };
        (number(1).unwrap(), number(2).unwrap(), number(3).unwrap())
    };
    h.appctl(&["time/warp", "10000", "1000"]);
    for _ in 0..100 {
        h.control("version", &[]).unwrap();
    }
    h.appctl(&["time/warp", "5000", "1000"]);
    let (five, minute, hour) = rate(&h);
    assert!((20.0..25.0).contains(&five), "{five}");
    assert!((1.6..2.5).contains(&minute), "{minute}");
    assert!((0.027..0.05).contains(&hour), "{hour}");
    h.appctl(&["time/warp", "120000", "5000"]);
    let (five, minute, hour) = rate(&h);
    assert!(five < 2.0 && minute < 1.0 && hour >= 0.027, "{five} {minute} {hour}");
    let total: u64 = h.appctl(&["coverage/read-counter", "unixctl_received"]).trim().parse().unwrap();
    assert!(total >= 100);
}

/// How long turns take.
#[test]
fn stopwatches() {
    let h = Harness::ours();
    let text = h.appctl(&["stopwatch/show", "main-loop"]);
    let lines: Vec<String> = text.lines().map(|l| plain(l.as_bytes())).collect();
    assert_eq!(
        lines,
        [
            "Statistics for 'main-loop'",
            "  Total samples: N",
            "  Maximum: N usec",
            "  Minimum: N usec",
            "  Nth percentile: N.N usec",
            "  Short term average: N.N usec",
            "  Long term average: N.N usec"
        ]
    );
    assert_eq!(h.appctl(&["stopwatch/show"]).matches("Statistics for").count(), 3);
    assert_eq!(h.appctl(&["stopwatch/reset", "bridge-run"]), "");
    assert!(h.try_appctl(&["stopwatch/show", "nope"]).err.starts_with("No such stopwatch\n"));
}

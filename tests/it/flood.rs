//! Nonsense, floods and changes all at once: the daemon refuses clearly, answers all along, and keeps nothing.

use crate::dummy::{bridge, daemon, flows};
use crate::harness::{split, strs, wait_until, Harness, Output, Which};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Each a command of ovs-appctl that both daemons answer alike. `FILE1` and so on are [`FILES`].
const NONSENSE: &str = r#"
dpctl/add-flow
dpctl/add-flow x
dpctl/add-flow dummy@ovs-dummy x
dpctl/add-flow dummy@ovs-dummy x y z
dpctl/add-flow nope@x "in_port(1),eth(),eth_type(0x1234)" 2
dpctl/add-flow dummy@nope "in_port(1),eth(),eth_type(0x1234)" 2
dpctl/add-flow "" "in_port(1),eth(),eth_type(0x1234)" 2
dpctl/add-flow dummy@ovs-dummy nonsense 2
dpctl/add-flow dummy@ovs-dummy "in_port(1)" 2
dpctl/add-flow dummy@ovs-dummy "eth()" 2
dpctl/add-flow dummy@ovs-dummy "in_port(p9),eth(),eth_type(0x1234)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1234)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1234)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1235)" 99
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1236)" p2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1238)" "output(2)"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x123a)" "set(eth(src=1)),2"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x123b)" "set(nonsense()),2"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x123c)" "push_vlan(vid=5000,pcp=0)"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x123d)" "push_vlan(vid=5,pcp=9)"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1240)" "userspace(pid=1,slow_path(bogus))"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1241)" "clone("
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1243)" "sample(sample=200%,actions(2))"
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(src=50:54:00:00:00:01/ff:00),eth_type(0x1248)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(src=50:54),eth_type(0x1248)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x0800),ipv4(src=1.2.3)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x0800),ipv4(src=1.2.3.4/33)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x86dd),ipv4(src=1.2.3.4)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x0800),ipv4(frag=maybe)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),in_port(2),eth(),eth_type(0x2000)" 2
dpctl/add-flow dummy@ovs-dummy "ufid:5,in_port(1),eth(),eth_type(0x2001)" 2
dpctl/add-flow dummy@ovs-dummy "recirc_id(zz),in_port(1),eth(),eth_type(0x2003)" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x2005" 2
dpctl/add-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x20050)" 2
dpctl/mod-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x7777)" 3
dpctl/mod-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x1234)" bogus
dpctl/mod-flow dummy@ovs-dummy
dpctl/del-flow dummy@ovs-dummy "in_port(1),eth(),eth_type(0x7777)"
dpctl/del-flow dummy@ovs-dummy bogus
dpctl/del-flow dummy@ovs-dummy "ufid:00000000-0000-0000-0000-000000000009"
dpctl/get-flow dummy@ovs-dummy "ufid:00000000-0000-0000-0000-000000000009"
dpctl/get-flow dummy@ovs-dummy nonsense
dpctl/get-flow dummy@ovs-dummy
dpctl/get-flow nonsense
dpctl/dump-flows nope@x
dpctl/dump-flows filter=bogus
dpctl/dump-flows filter=in_port=zz
dpctl/dump-flows type=bogus
dpctl/dump-flows pmd=99
dpctl/dump-flows pmd=x
dpctl/del-flows nope@x
dpctl/del-flows
dpctl/add-flows
dpctl/add-flows a b c
dpctl/add-flows /nonexistent
dpctl/add-flows FILE2
dpctl/mod-flows /nonexistent
dpctl/mod-flows
dpctl/del-flows FILE2
"#;

/// Flows for commands that read files.
const FILES: [&str; 4] = [
    "# comment\n\nin_port(1),eth(),eth_type(0x1234) 2\nadd in_port(1),eth(),eth_type(0x1235) 3   # tail\n\
     add   in_port(1),eth(),eth_type(0x1236)    2,3\nmodify in_port(1),eth(),eth_type(0x1234) 3\n\
     delete in_port(1),eth(),eth_type(0x1236)\n",
    "bogus 2\nin_port(1),eth(),eth_type(0x1242)\nin_port(1),eth(),eth_type(0x1243) nonsense\nfrob eth() 2\n",
    "in_port(1),eth(),eth_type(0x1234) 2,3\nin_port(1),eth(),eth_type(0x9999) 2\n\
     in_port(1),eth(),eth_type(0x1235) 1\n",
    "in_port(1),eth(),eth_type(0x1234)\nin_port(1),eth(),eth_type(0x9999)\n",
];

/// A daemon with [`FILES`], and the directory where they are.
fn with_files(which: Which) -> (Harness, String) {
    let h = daemon(which, "--enable-dummy=override");
    bridge(&h, 3);
    let dir = h.path("").display().to_string();
    for (i, text) in FILES.iter().enumerate() {
        std::fs::write(h.path(&format!("FILE{}", i + 1)), text).expect("a file");
    }
    (h, dir)
}

#[test]
fn flows_come_from_files() {
    let (h, dir) = with_files(Which::Ours);
    let run = |command: &str, n: usize| h.appctl(&[command, &format!("{dir}FILE{n}")]);
    let flow = |kind: &str, actions: &str| {
        format!("recirc_id(0),in_port(1),eth(),eth_type({kind}), packets:0, bytes:0, used:never, actions:{actions}")
    };
    assert_eq!(run("dpctl/add-flows", 1), "");
    assert_eq!(flows(&h), [flow("0x1234", "3"), flow("0x1235", "3")]);
    let exists = "ovs-vswitchd: updating flow table (File exists)\n".repeat(2);
    assert_eq!(run("dpctl/add-flows", 1), exists);
    let missing = "ovs-vswitchd: updating flow table (No such file or directory)\n";
    assert_eq!(run("dpctl/mod-flows", 3), missing);
    assert_eq!(flows(&h), [flow("0x1234", "2,3"), flow("0x1235", "1")]);
    let unknown =
        "ovs-vswitchd: deleting flow (No such file or directory)\nPerhaps you need to specify a UFID?\n";
    assert_eq!(run("dpctl/del-flows", 4), unknown);
    assert_eq!(flows(&h), [flow("0x1235", "1")]);
}

fn answers(which: Which) -> Vec<(String, Output)> {
    let (h, dir) = with_files(which);
    let mut all = Vec::new();
    for line in NONSENSE.lines().filter(|l| !l.is_empty()) {
        let words: Vec<String> = split(line)
            .into_iter()
            .map(|w| if w.starts_with("FILE") { format!("{dir}{w}") } else { w })
            .collect();
        let mut out = h.try_appctl(&strs(&words));
        out.err = out.err.replace(&dir, "DIR/");
        // Flows come in no order.
        let mut lines: Vec<&str> = out.out.lines().collect();
        lines.sort_unstable();
        out.out = lines.join("\n").replace(&dir, "DIR/");
        all.push((line.to_string(), out));
    }
    all
}

#[test]
fn nonsense_is_refused_as_by_the_installed_daemon() {
    let mut different = String::new();
    for ((line, ours), (_, theirs)) in answers(Which::Ours).into_iter().zip(answers(Which::Installed)) {
        if ours != theirs {
            different += &format!("{line}\n--- ours\n{ours:?}\n--- installed\n{theirs:?}\n");
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn keys(h: &Harness) -> u64 {
    let text = h.control("memory/show", &[]).expect("memory/show");
    let found = text.split("udpif keys:").nth(1).map(|t| t.split(|c: char| !c.is_ascii_digit()).next());
    found.flatten().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Kilobytes that the switch has in memory.
fn memory(h: &Harness) -> u64 {
    let pid = std::fs::read_to_string(h.path("switch.pid")).expect("switch.pid");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("status");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// The daemon with a running clock and a rule that makes a megaflow of each address.
fn live() -> Harness {
    let h = daemon(Which::Ours, "--enable-dummy=override");
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "fail-mode=secure", "datapath_type=dummy"]);
    for p in ["p1", "p2", "p3"] {
        h.vsctl(&["add-port", "br0", p, "--", "set", "interface", p, "type=dummy"]);
    }
    h.ofctl(&["add-flow", "br0", "priority=1,actions=NORMAL"]);
    h
}

/// A packet of address number `n` into a port.
fn packet_of(h: &Harness, port: &str, n: u32) -> Result<String, String> {
    let [a, b, c, d] = n.to_be_bytes();
    let flow = format!(
        "in_port(1),eth(src=50:54:{a:02x}:{b:02x}:{c:02x}:{d:02x},dst=50:54:00:00:00:99),eth_type(0x0800),\
         ipv4(src=10.{b}.{c}.{d},dst=10.0.0.99,proto=17,ttl=64),udp(src=1,dst=2)"
    );
    h.control("netdev-dummy/receive", &[port, &flow])
}

#[test]
fn limits_of_every_kind_are_read() {
    let h = live();
    // Below the least, the limit that a dump adapts to is the configured one; else the least.
    let cases = [
        ("0", 0),
        ("1", 1),
        (" 7", 7),
        ("010", 10),
        ("999", 999),
        ("-1", 1000),
        ("abc", 1000),
        ("7x", 1000),
        ("2147483648", 1000),
        ("99999999999999999999", 1000),
        ("", 1000),
    ];
    for (text, limit) in cases {
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:flow-limit=0"]);
        wait_until("there is no flow", || keys(&h) == 0);
        h.vsctl(&["set", "Open_vSwitch", ".", &format!("other_config:flow-limit=\"{text}\"")]);
        let shown = format!("(limit {limit})");
        wait_until(&format!("{text:?} gives {shown}"), || h.appctl(&["upcall/show"]).contains(&shown));
        packet_of(&h, "p1", 5).expect("received");
    }
    // With no flow allowed packets pass all the same.
    let ports = h.ofctl(&["dump-ports", "br0", "2"]);
    assert!(ports.contains(&format!("tx pkts={}", cases.len())), "{ports}");
    for (key, bad) in [("max-idle", "-5"), ("max-idle", "1e9"), ("max-revalidator", "x")] {
        h.vsctl(&["set", "Open_vSwitch", ".", &format!("other_config:{key}={bad}")]);
        assert!(h.log().contains(&format!("ignoring other_config:{key}={bad}, which is not a number")));
    }
}

/// Does `f` until told to stop.
fn until(stop: &AtomicBool, mut f: impl FnMut(u32)) {
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        f(n);
    }
}

/// A flood of addresses beyond twice the limit, a thousand flow-mods a second, ports that come and go, limits that
/// change: all at once for a while. Gives the longest time that an answer took.
fn storm(h: &Harness, time: Duration) -> Duration {
    let (stop, mut worst) = (AtomicBool::new(false), Duration::ZERO);
    std::thread::scope(|s| {
        s.spawn(|| until(&stop, |n| drop(packet_of(h, "p1", n % 3000))));
        s.spawn(|| until(&stop, |n| drop(packet_of(h, "p3", n % 7))));
        s.spawn(|| {
            until(&stop, |round| {
                let lines: String = (0..1000u32)
                    .map(|i| {
                        let verb = if (round + i / 500) % 2 == 0 { "add" } else { "delete" };
                        let actions = if verb == "add" { ",actions=NORMAL,3" } else { "" };
                        format!("{verb} table=0,dl_src=50:54:00:00:0{}:{:02x}{actions}\n", i / 256, i % 256)
                    })
                    .collect();
                let begin = Instant::now();
                let out = h.ofctl_stdin(&["add-flows", "br0", "-"], &lines);
                assert_eq!(out.code, 0, "{out:?}");
                std::thread::sleep(Duration::from_secs(1).saturating_sub(begin.elapsed()));
            })
        });
        s.spawn(|| {
            until(&stop, |n| {
                h.vsctl(&["--if-exists", "del-port", "br0", "p3"]);
                h.vsctl(&["add-port", "br0", "p3", "--", "set", "interface", "p3", "type=dummy"]);
                let limit = ["other_config:flow-limit=500", "other_config:flow-limit=50"][n as usize % 2];
                h.vsctl(&["set", "Open_vSwitch", ".", limit]);
            })
        });
        let begin = Instant::now();
        while begin.elapsed() < time {
            let asked = Instant::now();
            h.control("version", &[]).expect("an answer");
            worst = worst.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Release);
    });
    worst
}

#[test]
fn storms_are_weathered() {
    let h = live();
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:max-idle=500"]);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let worst = storm(&h, Duration::from_secs(2));
        assert!(worst < Duration::from_secs(1), "an answer took {worst:?}");
        h.ofctl(&["del-flows", "br0", "dl_src=50:54:00:00:00:00/ff:ff:00:00:00:00"]);
        h.appctl(&["fdb/flush", "br0"]);
        wait_until("no megaflow is left", || keys(&h) == 0);
        assert!(!h.appctl(&["dpctl/show"]).contains("flows: 0\n") || keys(&h) == 0);
        sizes.push(memory(&h));
    }
    // The first storm fills what later ones use again.
    assert!(sizes[2] < sizes[0] + sizes[0] / 4 + 8192, "kilobytes after each storm: {sizes:?}");
    packet_of(&h, "p1", 5).expect("received");
    assert!(h.ofctl(&["dump-flows", "br0"]).contains("actions=NORMAL"));
}

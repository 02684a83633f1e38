//! Which thread polls which receive queue, and the windows on it: our daemon beside the installed one, command by
//! command and log line by log line, on machines that `--dummy-numa` makes up; and with DPDK.

use crate::harness::{wait_at_most, wait_until, Harness, Setup, Which};
use std::time::Duration;

/// A daemon, and how much of its log was read.
struct Side {
    h: Harness,
    read: usize,
}

impl Side {
    fn new(which: Which, nodes: &str) -> Side {
        let numa = format!("--dummy-numa={nodes}");
        let args = ["--enable-dummy=override", "--disable-system", "--disable-system-route", &numa];
        Side { h: Setup::new(which).args(&args).up(), read: 0 }
    }

    /// What the datapath has logged since the last call that counted; threads come and go in no order.
    fn logged(&self) -> Vec<String> {
        let log = self.h.log();
        let new = log.get(self.read..).unwrap_or_default().lines();
        let message = |l: &str| {
            let mut parts = l.splitn(4, '|').skip(2);
            let (module, text) = (parts.next()?, parts.next()?);
            let (level, text) = text.split_once('|')?;
            let about = module == "dpif_netdev" && !text.starts_with("PMD thread on numa_id")
                || text.contains("datapath configuration on port");
            // Cycles are never the same.
            about.then(|| {
                format!("{level} {}", text.split(" (measured processing cycles").next().unwrap_or(text))
            })
        };
        new.filter_map(message).collect()
    }

    fn done(&mut self) {
        self.read = self.h.log().len();
    }

    fn said(&self, line: &str) -> String {
        let mut words = line.split('|');
        let tool = words.next();
        let args: Vec<&str> = words.collect();
        let out = if tool == Some("a") { self.h.try_appctl(&args) } else { self.h.try_vsctl(&args) };
        let dir = self.h.path("").display().to_string();
        format!("{}{}", out.out, out.err).replace(&dir, "DIR/")
    }
}

/// Runs the lines on both sides: answers and log must be the same.
fn compare(nodes: &str, setup: &[&str], lines: &[&str]) {
    let (mut a, mut b) = (Side::new(Which::Ours, nodes), Side::new(Which::Installed, nodes));
    for s in [&mut a, &mut b] {
        setup.iter().for_each(|l| drop(s.said(l)));
        s.done();
    }
    let mut different = String::new();
    for line in lines {
        let (ours, theirs) = (digits(line, a.said(line)), digits(line, b.said(line)));
        if ours != theirs {
            different += &format!("{line}\n--- ours\n{ours}--- installed\n{theirs}");
        }
        // A rebalancing that was asked for comes a little later.
        wait_at_most(Duration::from_secs(2), || a.logged() == b.logged());
        let (ours, theirs) = (a.logged(), b.logged());
        if ours != theirs {
            different += &format!(
                "{line}: log\n--- ours\n{}\n--- installed\n{}\n",
                ours.join("\n"),
                theirs.join("\n")
            );
        }
        a.done();
        b.done();
    }
    assert!(different.is_empty(), "{different}");
}

/// Figures of time and cycles as one N, where they cannot be the same.
fn digits(line: &str, text: String) -> String {
    if line.contains("pmd-rxq-show") {
        // Known some seconds after the last change, on each side in its own time.
        let known = |l: &str| match l.split_once("pmd usage: ").or(l.split_once("overhead: ")) {
            Some((before, _)) => format!("{before}USAGE\n"),
            None => format!("{l}\n"),
        };
        return text.lines().map(known).collect();
    }
    if !line.contains("pmd-stats-show") && !line.contains("pmd-perf-show") {
        return text;
    }
    shape(&text)
}

/// Every number as N, every gap inside a line as one space.
fn shape(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        out.push_str(&line[..indent]);
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
        for c in words.chars() {
            match c {
                '0'..='9' if out.ends_with('N') => {}
                '0'..='9' => out.push('N'),
                '.' if out.ends_with('N') => {}
                _ => out.push(c),
            }
        }
        out.push('\n');
    }
    out
}

const MACHINE: &[&str] = &[
    "v|add-br|br0|--|set|bridge|br0|datapath_type=dummy",
    "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=f3",
];

#[test]
fn queues_are_assigned_as_by_the_installed_daemon() {
    let lines = [
        "v|add-port|br0|p0|--|set|Interface|p0|type=dummy-pmd|options:n_rxq=4|options:numa_id=0",
        "v|add-port|br0|p1|--|set|Interface|p1|type=dummy-pmd|options:n_rxq=5|options:numa_id=1",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=roundrobin",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=group",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=cycles",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=foo",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-isolate=false",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=group",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-isolate=foo",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"0:0,1:4\"",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"0:3,1:77,9:0\"",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"foo\"",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"0:99999999999\"",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"0:0x1,,2:0\"",
        "v|set|Interface|p0|other_config:pmd-rxq-affinity=\"0:0,1:1,2:4,3:5\"",
        "v|set|Interface|p1|other_config:pmd-rxq-affinity=\"0:6,1:7\"",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-isolate=false",
        "a|dpif-netdev/pmd-rxq-show",
        "v|remove|Open_vSwitch|.|other_config|pmd-rxq-isolate",
        "v|set|Interface|p1|other_config:pmd-rxq-affinity=\"0:6\"",
        "v|remove|Interface|p0|other_config|pmd-rxq-affinity",
        "a|dpif-netdev/pmd-rxq-rebalance",
        "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=3",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=0",
        "a|dpif-netdev/pmd-rxq-show",
        "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=10000",
        "v|remove|Open_vSwitch|.|other_config|pmd-cpu-mask",
        "v|set|Interface|p0|options:n_rxq=2",
        "v|set|Interface|p1|options:numa_id=9",
        "v|add-port|br0|x1|--|set|Interface|x1|type=internal",
        "v|del-port|x1",
        "v|set|Interface|p0|other_config:tx-steering=hash",
        "v|set|Interface|p0|other_config:tx-steering=foo",
        "v|del-port|p0",
        "v|del-port|p1",
    ];
    compare("0,0,0,0,1,1,1,1", MACHINE, &lines);
}

#[test]
fn queues_of_a_node_without_threads_take_turns() {
    let setup = [
        "v|add-br|br0|--|set|bridge|br0|datapath_type=dummy",
        "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=3f",
    ];
    let lines = [
        "v|add-port|br0|q|--|set|Interface|q|type=dummy-pmd|options:n_rxq=9|options:numa_id=9",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=roundrobin",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=group",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=cycles",
        "v|add-port|br0|r|--|set|Interface|r|type=dummy-pmd|options:n_rxq=3|options:numa_id=1",
        "v|set|Open_vSwitch|.|other_config:pmd-rxq-assign=group",
        "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=7",
        "v|set|Interface|r|other_config:pmd-rxq-affinity=\"0:0,1:1\"",
        "a|dpif-netdev/pmd-rxq-show",
    ];
    compare("0,0,1,1,2,2", &setup, &lines);
}

#[test]
fn settings_are_taken_as_by_the_installed_daemon() {
    let set = |words: &str| format!("v|set|Open_vSwitch|.|other_config:{words}");
    let lines: Vec<String> = [
        "pmd-auto-lb=true",
        "pmd-auto-lb-rebal-interval=0",
        "pmd-auto-lb-rebal-interval=20000",
        "pmd-auto-lb-rebal-interval=20001",
        "pmd-auto-lb-rebal-interval=foo",
        "pmd-auto-lb-load-threshold=70",
        "pmd-auto-lb-load-threshold=101",
        "pmd-auto-lb-improvement-threshold=0",
        "pmd-auto-lb-improvement-threshold=-4",
        "pmd-auto-lb=false",
        "pmd-maxsleep=50",
        "pmd-maxsleep=10001",
        "pmd-maxsleep=foo",
        "pmd-maxsleep=-1",
        "pmd-maxsleep=0",
        "emc-insert-inv-prob=0",
        "emc-insert-inv-prob=1",
        "tx-flush-interval=50",
        "tx-flush-interval=0",
        "pmd-perf-metrics=true",
        "pmd-perf-metrics=foo",
    ]
    .iter()
    .map(|w| set(w))
    .collect();
    compare("0,0,0,0,1,1,1,1", MACHINE, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn commands_answer_as_those_of_the_installed_daemon() {
    let add = "v|add-port|br0|p0|--|set|Interface|p0|type=dummy-pmd|options:n_rxq=4";
    let setup = [MACHINE[0], "v|set|Open_vSwitch|.|other_config:pmd-cpu-mask=3", add];
    let lines: Vec<String> = [
        "pmd-rxq-show|-pmd|0",
        "pmd-rxq-show|-pmd|9",
        "pmd-rxq-show|-pmd|x",
        "pmd-rxq-show|-pmd|4294967295",
        "pmd-rxq-show|-pmd",
        "pmd-rxq-show|-secs|3",
        "pmd-rxq-show|-secs|7",
        "pmd-rxq-show|-secs|60",
        "pmd-rxq-show|-secs|100",
        "pmd-rxq-show|-secs|-3",
        "pmd-rxq-show|-secs|x",
        "pmd-rxq-show|-secs|10|-pmd|1|ovs-dummy",
        "pmd-rxq-show|foo",
        "pmd-rxq-rebalance|nosuch",
        "pmd-rxq-rebalance|dummy@ovs-dummy",
        "pmd-rxq-rebalance|ovs-dummy",
        "pmd-rxq-rebalance|a|b",
        "pmd-stats-show|-pmd|4294967295",
        "pmd-stats-show",
        "pmd-stats-show|-pmd|9",
        "pmd-stats-show|a|b|c|d",
        "pmd-stats-clear",
        "pmd-stats-clear|-pmd|0",
        "pmd-perf-show|-pmd|9",
        "pmd-perf-show|a|b|c|d|e|f|g|h|i",
        "pmd-perf-log-set|foo",
        "pmd-perf-log-set|on|-b|x",
        "pmd-perf-log-set|on|-b",
        "pmd-perf-log-set|on|-us|-1",
        "pmd-perf-log-set|on|-b|3|-a|4|-e|-us|100|-q|10",
        "pmd-perf-log-set|off",
        "dpif-impl-get",
        "dpif-impl-set|dpif_scalar",
        "dpif-impl-set|nosuch",
        "dpif-impl-set",
        "miniflow-parser-get",
        "miniflow-parser-set|-pmd",
        "miniflow-parser-set|-pmd|x|scalar",
        "miniflow-parser-set|-pmd|99|scalar",
        "miniflow-parser-set|-pmd|0",
        "miniflow-parser-set|scalar|5",
        "miniflow-parser-set|study|0",
        "miniflow-parser-set|nosuch",
        "miniflow-parser-set|autovalidator",
        "miniflow-parser-set|-pmd|0|study|77",
        "miniflow-parser-get",
        "miniflow-parser-set|scalar",
        "subtable-lookup-info-get",
        "subtable-lookup-prio-get",
        "subtable-lookup-prio-set|avx9|3",
        "subtable-lookup-prio-set|generic",
        "subtable-lookup-prio-set|generic|256",
        "subtable-lookup-prio-set|generic|x",
        "subtable-lookup-prio-set|generic|200",
        "subtable-lookup-info-get",
    ]
    .iter()
    .map(|w| format!("a|dpif-netdev/{w}"))
    .collect();
    compare("0,0,0,0,1,1,1,1", &setup, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A bridge that forwards what one DPDK device makes up to another that swallows it.
fn with_dpdk(which: Which) -> Harness {
    let prefix = format!(
        "dpdk-extra=\"--no-pci --in-memory --file-prefix=sched{}-{which:?} -m 256\"",
        std::process::id()
    );
    let setting = |s: &str| format!("other_config:{s}");
    let h = Setup::new(which)
        .vsctl(&[
            "set",
            "Open_vSwitch",
            ".",
            &setting("dpdk-init=true"),
            &setting(&prefix),
            &setting("pmd-cpu-mask=0x1"),
        ])
        .up();
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]);
    for (port, device) in [("d0", "net_null0"), ("d1", "\"net_null1,no-rx=1\"")] {
        let devargs = format!("options:dpdk-devargs={device}");
        h.vsctl(&["add-port", "br0", port, "--", "set", "Interface", port, "type=dpdk", &devargs]);
    }
    h.ofctl(&["add-flow", "br0", "in_port=d0,actions=d1"]);
    wait_until("packets come out", || {
        !h.appctl(&["dpif-netdev/pmd-perf-show"]).contains("Tx packets:                    0")
    });
    h
}

#[test]
fn statistics_have_the_shape_of_the_installed_daemons() {
    let shows = |which| {
        let h = with_dpdk(which);
        let mut all = vec![h.appctl(&["dpif-netdev/pmd-perf-show"])];
        h.vsctl(&["set", "Open_vSwitch", ".", "other_config:pmd-perf-metrics=true"]);
        wait_until("a millisecond was recorded", || {
            h.appctl(&["dpif-netdev/pmd-perf-show", "-nh", "-ms", "9"]).lines().count() > 30
        });
        all.push(h.appctl(&["dpif-netdev/pmd-perf-show", "-it", "3", "-ms", "3"]));
        all.push(h.appctl(&["dpif-netdev/pmd-stats-show"]));
        h.appctl(&["dpif-netdev/pmd-stats-clear"]);
        all.push(h.appctl(&["dpif-netdev/pmd-rxq-show"]));
        all.push(h.appctl(&["dpif-netdev/subtable-lookup-info-get"]));
        all.push(h.appctl(&["dpif-netdev/dpif-impl-get"]));
        all
    };
    let (ours, theirs) = (shows(Which::Ours), shows(Which::InstalledDpdk));
    for (a, b) in ours.iter().zip(&theirs) {
        let (x, y) = (shape(a), shape(b));
        let different: Vec<_> = x.lines().zip(y.lines()).filter(|(x, y)| x != y).collect();
        assert!(different.is_empty(), "{different:#?}");
        assert_eq!(x.lines().count(), y.lines().count(), "--- ours\n{a}--- installed\n{b}");
    }
}

#[test]
fn long_rounds_are_logged() {
    let args = ["--enable-dummy=override", "--disable-system", "--dummy-numa=0,0"];
    let h = Setup::new(Which::Ours).args(&args).up();
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy"]);
    h.vsctl(&["add-port", "br0", "p0", "--", "set", "Interface", "p0", "type=dummy-pmd"]);
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:pmd-perf-metrics=true"]);
    h.appctl(&["dpif-netdev/pmd-perf-log-set", "on", "-us", "0", "-b", "2", "-a", "2"]);
    wait_until("a round was logged", || {
        h.log().contains("|pmd_perf|WARN|Neighborhood of suspicious iteration:\n   iter  ")
    });
    h.appctl(&["dpif-netdev/pmd-perf-log-set", "off"]);
    assert!(h.log().contains("|pmd_perf|WARN|Suspicious iteration (Excessive total cycles): iter="));
    // Sleeping threads obey at once.
    h.vsctl(&["set", "Open_vSwitch", ".", "other_config:pmd-maxsleep=200"]);
    wait_until("it sleeps", || {
        !h.appctl(&["dpif-netdev/pmd-perf-show"]).contains("- sleep iterations:            0")
    });
    assert!(h
        .appctl(&["dpif-netdev/pmd-sleep-show"])
        .starts_with("Default max sleep:  200 us\npmd thread numa_id 0"));
    h.vsctl(&["del-port", "p0"]);
}

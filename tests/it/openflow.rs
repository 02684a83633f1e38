//! OpenFlow by `ovs-ofctl`: tables, timeouts, packets to and from controllers, ports, many flows.

use crate::harness::{run, wait_until, Process};
use crate::lab::{ports, start, udp, Lab};
use std::time::Instant;

/// `ovs-ofctl monitor` in the background.
struct Monitor<'a> {
    lab: &'a Lab,
    name: String,
    _process: Process,
}

impl<'a> Monitor<'a> {
    /// Starts it with words as `-O OpenFlow13`, and waits until it listens.
    fn start(lab: &'a Lab, name: &str, words: &[&str]) -> Monitor<'a> {
        let mut c = lab.h.command("ovs-ofctl");
        c.arg(format!("--unixctl={}", lab.h.path(&format!("{name}.ctl")).display())).args(words);
        let process = Process::start(&mut c, &lab.h.path(&format!("{name}.out")));
        let m = Monitor { lab, name: name.into(), _process: process };
        wait_until("the monitor answers", || m.barrier());
        m
    }

    fn barrier(&self) -> bool {
        let ctl = self.lab.h.path(&format!("{}.ctl", self.name));
        let mut c = self.lab.h.command("ovs-appctl");
        run(c.arg("--timeout=10").arg("-t").arg(ctl).arg("ofctl/barrier")).code == 0
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.lab.h.path(&format!("{}.out", self.name))).unwrap_or_default()
    }

    #[track_caller]
    fn waits_for(&self, parts: &[&str]) -> String {
        let mut text = String::new();
        wait_until(&format!("the monitor shows {parts:?}"), || {
            text = self.said();
            parts.iter().all(|p| text.contains(p))
        });
        text
    }
}

/// Lines of `dump-flows --no-stats`, without the header, sorted.
fn rules(lab: &Lab, version: &str) -> Vec<String> {
    let said = lab.h.ofctl(&["-O", version, "--no-stats", "--sort", "dump-flows", "br0"]);
    said.lines().filter(|l| !l.contains("reply")).map(|l| l.trim().to_string()).collect()
}

#[test]
fn rules_in_all_versions() {
    let lab = Lab::new(1);
    let h = &lab.h;
    for version in ["OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"] {
        let of = |words: &[&str]| h.ofctl(&[&["-O", version], words].concat());
        of(&["del-flows", "br0"]);
        of(&["add-flow", "br0", "priority=10,tcp,tp_dst=80,cookie=0x11,actions=1"]);
        of(&["add-flow", "br0", "priority=20,tcp,nw_dst=10.0.0.0/8,tp_dst=80,cookie=0x12,actions=1"]);
        of(&["add-flow", "br0", "priority=20,udp,cookie=0x21,actions=drop"]);
        let three = [
            "cookie=0x11, priority=10,tcp,tp_dst=80 actions=output:1",
            "cookie=0x12, priority=20,tcp,nw_dst=10.0.0.0/8,tp_dst=80 actions=output:1",
            "cookie=0x21, priority=20,udp actions=drop",
        ];
        assert_eq!(rules(&lab, version), three, "{version}");
        // Loose and strict.
        of(&["mod-flows", "br0", "tcp,tp_dst=80,actions=LOCAL"]);
        assert_eq!(rules(&lab, version).join("\n").matches("actions=LOCAL").count(), 2, "{version}");
        of(&["--strict", "mod-flows", "br0", "priority=10,tcp,tp_dst=80,actions=IN_PORT"]);
        let now = rules(&lab, version).join("\n");
        assert_eq!(
            (now.matches("LOCAL").count(), now.matches("IN_PORT").count()),
            (1, 1),
            "{version}: {now}"
        );
        of(&["--strict", "del-flows", "br0", "priority=11,tcp,tp_dst=80"]);
        assert_eq!(rules(&lab, version).len(), 3);
        of(&["--strict", "del-flows", "br0", "priority=10,tcp,tp_dst=80"]);
        assert_eq!(rules(&lab, version).len(), 2);
        of(&["del-flows", "br0", "tcp"]);
        assert_eq!(rules(&lab, version), three[2..]);
        // What overlaps is refused on request; the same rule again replaces.
        let said = h.try_ofctl(&["-O", version, "add-flow", "br0", "check_overlap,priority=20,ip,actions=1"]);
        assert!(said.err.contains("OFPFMFC_OVERLAP"), "{version}: {}", said.err);
        of(&["add-flow", "br0", "priority=20,udp,cookie=0x31,actions=1"]);
        assert_eq!(rules(&lab, version), ["cookie=0x31, priority=20,udp actions=output:1"]);
        if version != "OpenFlow10" {
            of(&["add-flow", "br0", "cookie=0x32,arp,actions=1"]);
            of(&["mod-flows", "br0", "cookie=0x32/0xff,actions=drop"]);
            of(&["del-flows", "br0", "cookie=0x30/0xf1"]);
            assert_eq!(rules(&lab, version), ["cookie=0x31, priority=20,udp actions=output:1"]);
            of(&["add-flow", "br0", "table=9,priority=3,ip,actions=write_actions(output:1),goto_table:10"]);
            let said = h.try_ofctl(&["-O", version, "add-flow", "br0", "table=9,actions=goto_table:9"]);
            assert_ne!(said.code, 0);
            of(&["del-flows", "br0", "table=9"]);
        }
        of(&["del-flows", "br0", "out_port=1"]);
        assert_eq!(rules(&lab, version), [""; 0], "{version}");
    }
}

#[test]
fn timeouts_tell_the_controller() {
    let mut lab = Lab::new(2);
    lab.h.ofctl(&["del-flows", "br0"]);
    {
        let m = Monitor::start(&lab, "m", &["monitor", "br0", "65534"]);
        lab.h.ofctl(&["add-flow", "br0", "send_flow_rem,cookie=0x1,hard_timeout=1,udp,tp_dst=1,actions=2"]);
        lab.h.ofctl(&["add-flow", "br0", "send_flow_rem,cookie=0x2,idle_timeout=1,udp,tp_dst=2,actions=2"]);
        lab.h.ofctl(&["add-flow", "br0", "send_flow_rem,cookie=0x3,udp,tp_dst=3,actions=2"]);
        lab.h.ofctl(&["add-flow", "br0", "cookie=0x4,udp,tp_dst=4,actions=2"]);
        lab.h.ofctl(&["del-flows", "br0", "udp,tp_dst=3"]);
        lab.h.ofctl(&["del-flows", "br0", "udp,tp_dst=4"]);
        let said = m.waits_for(&[
            "udp,tp_dst=1 reason=hard ",
            "udp,tp_dst=2 reason=idle ",
            "udp,tp_dst=3 reason=delete ",
        ]);
        assert!(
            !said.contains("tp_dst=4") && said.contains("cookie:0x1 ") && said.contains("pkts0 bytes0"),
            "{said}"
        );
        assert_eq!(rules(&lab, "OpenFlow10"), [""; 0]);
    }
    // Packets keep a rule alive that times out idle; the message counts them.
    lab.h.ofctl(&["add-flow", "br0", "send_flow_rem,cookie=0x5,idle_timeout=2,udp,tp_dst=5,actions=2"]);
    let begin = Instant::now();
    let mut sent = 0u64;
    while begin.elapsed().as_millis() < 3_000 {
        lab.passes(1, &udp(1, 2, 1, 5), &[2]);
        sent += 1;
    }
    assert_eq!(lab.flow_count("tp_dst=5", "n_packets"), sent);
    let m = Monitor::start(&lab, "n", &["-O", "OpenFlow13", "monitor", "br0", "65534"]);
    let said = m.waits_for(&["udp,tp_dst=5 reason=idle "]);
    assert!(said.contains(&format!("pkts{sent} bytes{}", sent * 60)), "{said}");
}

#[test]
fn packets_for_the_controller() {
    let mut lab = Lab::new(2);
    lab.h.vsctl(&["set-fail-mode", "br0", "secure"]);
    lab.h.ofctl(&["del-flows", "br0"]);
    // Without a rule: OpenFlow 1.0 asks the controller, OpenFlow 1.3 drops.
    lab.passes(1, &udp(1, 2, 1, 1), &[]);
    let frame = udp(1, 2, 1, 99);
    let sender = |lab: &mut Lab, frame: &[u8]| lab.send(1, frame);
    let wait = |lab: &Lab, file: &str, parts: &[&str]| {
        let mut text = String::new();
        wait_until(&format!("{file} shows {parts:?}"), || {
            text = std::fs::read_to_string(lab.h.path(file)).unwrap_or_default();
            parts.iter().all(|p| text.contains(p))
        });
        text
    };
    let mut c = lab.h.command("ovs-ofctl");
    c.args(["-O", "OpenFlow10", "--unixctl=m.ctl", "-P", "standard", "monitor", "br0", "65534"]);
    let ten = Process::start(&mut c, &lab.h.path("ten.out"));
    let mut c = lab.h.command("ovs-ofctl");
    c.args(["-O", "OpenFlow13", "--unixctl=n.ctl", "monitor", "br0", "65534"]);
    let thirteen = Process::start(&mut c, &lab.h.path("thirteen.out"));
    for ctl in ["m.ctl", "n.ctl"] {
        let path = lab.h.path(ctl);
        wait_until("the monitor answers", || {
            let mut c = lab.h.command("ovs-appctl");
            run(c.arg("--timeout=5").arg("-t").arg(&path).arg("ofctl/barrier")).code == 0
        });
    }
    assert_eq!(sender(&mut lab, &frame), []);
    let said = wait(&lab, "ten.out", &["total_len=60 in_port=1 (via no_match) data_len=60", "tp_dst=99"]);
    assert!(said.contains("OFPT_PACKET_IN (xid=0x0):"), "{said}");

    // By a rule: always whole, since nothing is kept back.
    lab.h.ofctl(&["add-flow", "br0", "udp,tp_dst=7,cookie=0x77,actions=controller,2"]);
    lab.h.ofctl(&["add-flow", "br0", "udp,tp_dst=8,actions=controller:20"]);
    let frame = udp(1, 2, 1, 7);
    assert_eq!(sender(&mut lab, &frame), [(2, frame)]);
    assert_eq!(sender(&mut lab, &udp(1, 2, 1, 8)), []);
    wait(&lab, "ten.out", &["in_port=1 (via action) data_len=60", "tp_dst=7 ", "tp_dst=8 "]);
    let said = wait(
        &lab,
        "thirteen.out",
        &["cookie=0x77 total_len=60 in_port=1 (via action) data_len=60", "tp_dst=8 "],
    );
    assert!(!said.contains("no_match") && !said.contains("tp_dst=99"), "{said}");

    // With a table-miss rule OpenFlow 1.3 gets it as well, and knows why.
    lab.h.ofctl(&["add-flow", "br0", "table=0,priority=0,actions=controller:128"]);
    assert_eq!(sender(&mut lab, &udp(1, 2, 1, 55)), []);
    wait(&lab, "thirteen.out", &["tp_dst=55", "(via no_match)"]);
    lab.h.ofctl(&["add-flow", "br0", "ip,nw_ttl=1,priority=65000,actions=dec_ttl,2"]);
    drop((ten, thirteen));
}

#[test]
fn packets_from_the_controller() {
    let mut lab = Lab::new(3);
    let frame = udp(1, 2, 3, 4);
    let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    let before = lab.received();
    let mut send = |in_port: &str, actions: &str, n: usize| {
        lab.h.ofctl(&["packet-out", "br0", &format!("in_port={in_port} packet={hex} actions={actions}")]);
        lab.await_outputs(n)
    };
    assert_eq!(send("none", "2", 1), [(2, frame.clone())]);
    assert_eq!(ports(&send("1", "ALL", 2)), [2, 3]);
    assert_eq!(ports(&send("2", "FLOOD", 2)), [1, 3]);
    assert_eq!(send("controller", "mod_tp_dst:9,output:3", 1), [(3, udp(1, 2, 3, 9))]);
    assert_eq!(ports(&send("1", "TABLE", 2)), [2, 3], "by NORMAL");
    assert_eq!(ports(&send("local", "2,1", 2)), [1, 2]);
    let said = lab.h.try_ofctl(&["packet-out", "br0", &format!("in_port=65280 packet={hex} actions=1")]);
    assert!(said.err.contains("OFPBRC_BAD_PORT"), "{}", said.err);
    assert_eq!(lab.received(), before, "nothing was received");
    lab.rest();
    lab.unharmed();
}

#[test]
fn port_settings_take_effect() {
    let mut lab = Lab::new(4);
    let frame = start(1, 255).ethertype(0x9000).payload(&[1; 46]).finish();
    assert_eq!(ports(&lab.send(1, &frame)), [2, 3, 4]);
    for (setting, expected) in [
        ("no-flood", vec![2, 4]),
        ("flood", vec![2, 3, 4]),
        ("no-forward", vec![2, 4]),
        ("forward", vec![2, 3, 4]),
    ] {
        lab.h.ofctl(&["mod-port", "br0", "p3", setting]);
        lab.settle();
        assert_eq!(ports(&lab.send(1, &frame)), expected, "{setting}");
    }
    lab.h.ofctl(&["mod-port", "br0", "p1", "no-receive"]);
    lab.settle();
    lab.passes(1, &frame, &[]);
    lab.h.ofctl(&["mod-port", "br0", "p1", "receive"]);
    lab.settle();
    lab.passes(1, &frame, &[2, 3, 4]);

    // Down is down for Linux, too.
    lab.h.ofctl(&["mod-port", "br0", "p3", "down"]);
    wait_until("p3 is down", || {
        lab.settle();
        ports(&lab.send(1, &frame)) == [2, 4]
    });
    let show = lab.h.ofctl(&["show", "br0"]);
    let p3 = show.split(" 3(p3)").nth(1).unwrap_or_else(|| panic!("{show}"));
    assert!(p3.split(" 4(p4)").next().is_some_and(|t| t.contains("config:     PORT_DOWN")), "{show}");
    lab.h.ofctl(&["mod-port", "br0", "p3", "up"]);
    wait_until("p3 is up again", || {
        lab.settle();
        ports(&lab.send(1, &frame)) == [2, 3, 4]
    });
    let said = lab.h.try_ofctl(&["mod-port", "br0", "p9", "down"]);
    assert_ne!(said.code, 0);
}

#[test]
fn twenty_thousand_flows() {
    let mut lab = Lab::new(2);
    let n = 20_000u32;
    let line = |i: u32| {
        let (a, b) = (i >> 8 & 0xff, i & 0xff);
        format!("priority={},ip,nw_src=10.{a}.{b}.0/24,nw_dst=10.0.0.2,actions=2\n", 100 + i % 50)
    };
    let all: String = (0..n).map(line).collect();
    let said = lab.h.ofctl_stdin(&["add-flows", "br0", "-"], &all);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let sum = lab.h.ofctl(&["dump-aggregate", "br0"]);
    assert!(sum.contains(&format!("flow_count={}", n + 1)), "{sum}");
    let dump = lab.h.ofctl(&["-O", "OpenFlow13", "dump-flows", "br0"]);
    assert_eq!(dump.matches("cookie=").count(), n as usize + 1);
    for i in [0, 1, 255, 256, 9_999, 19_999] {
        assert!(dump.contains(&format!("nw_src=10.{}.{}.0/24", i >> 8, i & 255)), "{i}");
    }
    lab.passes(1, &udp(7, 2, 1, 1), &[2]);
    // All in one transaction, with another set; then none.
    let other: String = (0..n).map(|i| line(i).replace("actions=2", "actions=1")).collect();
    std::fs::write(lab.h.path("other"), other).expect("flow file");
    lab.h.ofctl(&["replace-flows", "br0", "other"]);
    let sum = lab.h.ofctl(&["dump-aggregate", "br0", "out_port=1"]);
    assert!(sum.contains(&format!("flow_count={n}")), "{sum}");
    lab.h.ofctl(&["del-flows", "br0", "ip,nw_src=10.1.0.0/16"]);
    let sum = lab.h.ofctl(&["dump-aggregate", "br0"]);
    assert!(sum.contains(&format!("flow_count={}", n - 256)), "{sum}");
    lab.h.ofctl(&["del-flows", "br0"]);
    lab.h.ofctl(&["add-flow", "br0", "actions=NORMAL"]);
    lab.unharmed();
}

//! `controller(pause)`: a packet stops, a controller lets it go on. Our daemon beside the installed one, by
//! `ovs-ofctl monitor ... resume`.

use crate::harness::{wait_until, Harness, Process, Setup, Which};
use crate::lab::number_after;

struct Monitor {
    process: Process,
    log: std::path::PathBuf,
}

fn bridge(which: Which, rules: &str) -> Harness {
    let h = Setup::new(which).args(&["--enable-dummy", "--disable-system", "--disable-system-route"]).up();
    h.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "fail-mode=secure", "datapath_type=dummy"]);
    for i in 1..=4 {
        let (p, no) = (format!("p{i}"), format!("ofport_request={i}"));
        h.vsctl(&["add-port", "br0", &p, "--", "set", "interface", &p, "type=dummy", &no]);
    }
    let out = h.ofctl_stdin(&["-OOpenFlow13", "add-flows", "br0", "-"], rules);
    assert_eq!(out.code, 0, "{}", out.err);
    h
}

impl Monitor {
    fn start(h: &Harness) -> Monitor {
        let log = h.path("monitor.log");
        let mut command = h.command("ovs-ofctl");
        command.args(["-OOpenFlow13", "monitor", "br0", "resume", "--unixctl"]).arg(h.path("monitor.ctl"));
        let process = Process::start(&mut command, &log);
        let ctl = h.path("monitor.ctl");
        wait_until("the monitor runs", || ctl.exists());
        Monitor { process, log }
    }

    /// What it printed: packet-ins and resumes, without what differs from run to run.
    fn text(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let steady = |l: &&str| !l.contains("continuation.bridge") && !l.contains("fatal_signal");
        text.lines().filter(steady).map(|l| format!("{l}\n")).collect()
    }
}

fn packet(h: &Harness) {
    let flow = "in_port(1),eth(src=50:54:00:00:00:01,dst=50:54:00:00:00:02),eth_type(0x0800),\
                ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,ttl=64),udp(src=1,dst=2)";
    h.appctl(&["netdev-dummy/receive", "p1", flow]);
}

fn sent(h: &Harness) -> Vec<u64> {
    let count = |p: &str| number_after(&h.ofctl(&["dump-ports", "br0", p]), "tx", "pkts");
    ["2", "3", "4"].map(count).to_vec()
}

/// Runs two packets through `rules`; gives what the monitor printed and what the ports sent.
fn resumed(which: Which, rules: &str, want: &[u64]) -> String {
    let h = bridge(which, rules);
    let mut m = Monitor::start(&h);
    for n in 1..=2usize {
        packet(&h);
        wait_until("the packet is resumed", || m.text().matches("send: NXT_RESUME").count() == n);
    }
    wait_until("the ports have sent", || sent(&h) == want);
    m.process.signal("TERM");
    m.process.wait();
    m.text()
}

#[test]
fn packets_go_on_where_they_stopped() {
    let cases: [(&str, [u64; 3]); 4] = [
        ("in_port=1,actions=output:2,controller(pause,userdata=01.02),mod_dl_dst:00:00:00:00:00:09,output:3", [2, 2, 0]),
        ("in_port=1,actions=write_actions(output:3),goto_table:1\ntable=1,actions=controller(pause),output:2", [2, 2, 0]),
        (
            "in_port=1,actions=set_field:5->reg0,push:reg0,resubmit(,1),output:4\n\
             table=1,actions=controller(pause)",
            [0, 0, 2],
        ),
        ("in_port=1,actions=controller(pause),resubmit(,2)\ntable=2,actions=output:3", [0, 2, 0]),
    ];
    for (rules, want) in cases {
        let (ours, theirs) = (resumed(Which::Ours, rules, &want), resumed(Which::Installed, rules, &want));
        assert_eq!(ours, theirs, "{rules}");
    }
}

#[test]
fn what_the_stack_and_registers_held_is_there_again() {
    let rules = "in_port=1,actions=set_field:5->reg0,push:reg0,set_field:7->reg0,resubmit(,1),output:4\n\
                 table=1,actions=controller(pause),pop:reg1,resubmit(,2)\n\
                 table=2,reg0=7,reg1=5,actions=output:2\ntable=2,priority=1,actions=output:3";
    resumed(Which::Ours, rules, &[2, 0, 2]);
}

#[test]
fn a_continuation_of_another_bridge_is_refused() {
    let h = bridge(Which::Ours, "in_port=1,actions=controller(pause),output:2");
    // Two properties: the packet, and a continuation that names no bridge.
    let frame = "500000000002500000000001080000000000";
    let properties = format!("00000016{frame}00000008000800000000");
    let message = format!("0404000000000077000023200000001c{properties}");
    let mut bytes: Vec<u8> = (0..message.len() / 2)
        .map(|i| u8::from_str_radix(&message[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    let len = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&len);
    use std::io::{Read, Write};
    let mut s = std::os::unix::net::UnixStream::connect(h.path("br0.mgmt")).expect("the bridge listens");
    s.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).expect("hello");
    s.write_all(&bytes).expect("resume");
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    wait_until("the answer comes", || {
        let n = s.read(&mut buffer).expect("the connection stays");
        got.extend_from_slice(&buffer[..n]);
        got.windows(8).any(|w| w[1] == 1 && w[4..] == [0, 0, 0, 0x77])
    });
    let at = got.windows(8).position(|w| w[1] == 1 && w[4..] == [0, 0, 0, 0x77]).expect("an error");
    // OFPET_EXPERIMENTER, NXR_STALE.
    assert_eq!(got[at + 8..at + 12], [0xff, 0xff, 0, 35], "{:02x?}", &got[at..]);
}

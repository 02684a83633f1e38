//! One of the two switches under comparison: its namespace, ports and capture sockets, and the steps of a case
//! carried out on it.
//!
//! Neighbours: `case` says what to do, `text` cleans what is printed. Threads: one per side.

use super::case::{Case, Step};
use super::{frame, text};
use crate::harness::{run, run_ok, split, strs, wait_at_most, wait_until, Harness, Output, Setup, Which};
use infra::linux::DeviceControl;
use infra::packet_socket::{FrameRing, PacketSocket};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one side may lag behind the other before they count as different.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a case printed, in order: what it was, and the text.
pub type Record = Vec<(String, String)>;

/// Ports by OpenFlow name and the Linux device on which the test sits.
const PORTS: [(&str, &str); 8] = [
    ("p1", "q1"),
    ("p2", "q2"),
    ("p3", "q3"),
    ("p4", "q4"),
    ("p5", "q5"),
    ("p6", "q6"),
    ("LOCAL", "br0"),
    ("LOCAL1", "br1"),
];

struct Tap {
    name: &'static str,
    device: &'static str,
    socket: PacketSocket,
    /// Frames the kernel says it delivered, up to the last step.
    seen: u64,
}

/// A switch with its surroundings.
pub struct Side {
    h: Harness,
    taps: Vec<Tap>,
    ring: Box<FrameRing>,
    injected: u64,
    lookups: u64,
    which: Which,
}

impl Side {
    /// Starts database and daemon and builds the topology: br0 with p1 to p4, br1 with p5 and p6.
    pub fn start(which: Which) -> Side {
        let h = Setup::new(which).in_thread().up();
        for i in 1..=6 {
            ip(&format!(
                "link add p{i} address 0e:00:00:00:00:0{i} type veth peer name q{i} address 0e:00:00:00:01:0{i}"
            ));
            for end in ["p", "q"] {
                ip(&format!("link set {end}{i} arp off multicast off up"));
            }
        }
        vsctl(&h, "set Open_vSwitch . other_config:max-idle=600000 other_config:max-revalidator=100 other_config:stats-update-interval=600000");
        for (b, ports) in [("br0", 1..=4), ("br1", 5..=6)] {
            let mac = format!("0e:00:00:00:02:0{}", &b[2..]);
            vsctl(
                &h,
                &format!(
                "add-br {b} -- set Bridge {b} datapath_type=netdev fail_mode=secure other_config:hwaddr={mac}"
            ),
            );
            for i in ports {
                let of = if i > 4 { i - 4 } else { i };
                vsctl(&h, &format!("add-port {b} p{i} -- set Interface p{i} ofport_request={of}"));
            }
            ip(&format!("link set {b} arp off multicast off up"));
        }
        let control = DeviceControl::open().expect("device control");
        let taps = PORTS
            .iter()
            .map(|&(name, device)| {
                let socket = PacketSocket::open(1 << 22).expect("packet socket");
                socket.attach(control.index(device).expect("device")).expect("attach");
                Tap { name, device, socket, seen: 0 }
            })
            .collect();
        let mut side = Side { h, taps, ring: Box::default(), injected: 0, lookups: 0, which };
        let counts = received();
        for tap in &mut side.taps {
            tap.seen = counts.get(tap.device).copied().unwrap_or(0);
        }
        side.lookups = side.lookups();
        side
    }

    fn dir(&self) -> String {
        self.h.path("").display().to_string().trim_end_matches('/').to_string()
    }

    fn common(&self, text: &str) -> String {
        text::common(text, &self.dir())
    }

    /// Packets the datapath has looked up so far.
    fn lookups(&self) -> u64 {
        let show = self.h.control("dpctl/show", &[]).unwrap_or_else(|e| panic!("dpctl/show: {e}"));
        let line = show.lines().find_map(|l| l.trim().strip_prefix("lookups: ")).unwrap_or_default();
        let value = |key: &str| {
            let word = line.split_whitespace().find_map(|w| w.strip_prefix(key));
            word.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
        };
        value("hit:") + value("missed:")
    }

    /// Frames that came out since the last call, by port; waits until all the kernel counted are here and there
    /// are as many as `expected`.
    fn outputs(&mut self, expected: Option<&str>) -> String {
        let wanted = expected.map(|text| text.lines().count());
        let mut lines: Vec<(usize, String)> = Vec::new();
        wait_at_most(PATIENCE, || {
            let counts = received();
            let mut complete = true;
            for (i, tap) in self.taps.iter_mut().enumerate() {
                while let Ok(n) = tap.socket.recv(&mut self.ring) {
                    for frame in (0..n).filter_map(|k| self.ring.frame(k)) {
                        lines.push((i, format!("{} {}\n", tap.name, frame::to_hex(&whole(&frame)))));
                        tap.seen += 1;
                    }
                }
                complete &= tap.seen >= counts.get(tap.device).copied().unwrap_or(0);
            }
            complete && wanted.is_none_or(|w| lines.len() >= w)
        });
        lines.sort_by_key(|(i, _)| *i);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn send(&mut self, port: &str, line: &str) {
        let bytes = frame::frame(line);
        let tap = self.taps.iter().find(|t| t.name == port).unwrap_or_else(|| panic!("no port {port}"));
        let sent =
            tap.socket.send(&[&bytes]).unwrap_or_else(|e| panic!("{port} takes no frame ({e}): {line}"));
        assert_eq!(sent, 1);
        self.injected += 1;
        let goal = self.lookups + self.injected;
        if !wait_at_most(PATIENCE, || self.lookups() >= goal) {
            // Not looked up at all: both sides must agree on the consequences.
            self.lookups = self.lookups();
            self.injected = 0;
        }
    }

    fn datapath(&self) -> String {
        let dump = self.h.control("dpctl/dump-flows", &[]).unwrap_or_else(|e| format!("error: {e}\n"));
        text::datapath(&self.common(&dump))
    }

    fn flows(&self, bridge: &str, version: &str) -> String {
        let said = self.ofctl(&format!("{version} dump-flows {bridge}"), "");
        text::sorted(&self.common(&format!("{}{}", said.out, said.err)))
    }

    fn said(&self, said: &Output) -> String {
        let end = if said.code == 0 { String::new() } else { format!("(exit code {})\n", said.code) };
        format!("{}{}{end}", self.common(&said.out), self.common(&said.err))
    }

    /// Waits until the installed flows are what the tables say now: one sweep may have begun before the change,
    /// the next has not.
    fn settle(&self) {
        for _ in 0..2 {
            self.h.control("revalidator/wait", &[]).unwrap_or_else(|e| panic!("revalidator/wait: {e}"));
        }
    }

    /// Waits until the daemon has seen that the last ovs-ofctl closed its connection: what happens to a packet
    /// without a matching flow depends on who listens. One reply may come from a round that began before.
    fn hang_up(&self) {
        for _ in 0..2 {
            self.lookups();
        }
    }

    fn purge(&self) {
        if let Err(e) = self.h.control("revalidator/purge", &[]) {
            panic!("revalidator/purge: {e}");
        }
        assert!(
            wait_at_most(PATIENCE, || self.datapath().is_empty()),
            "{:?}: flows survive revalidator/purge:\n{}",
            self.which,
            self.datapath()
        );
    }

    fn deltas(&self, case: &Case) -> Vec<(String, String)> {
        let fixed = ["dump-ports br0".to_string(), "dump-ports br1".to_string()];
        let all = fixed.iter().chain(&case.delta);
        all.map(|words| {
            let said = match words.strip_prefix("appctl ") {
                Some(command) => self.h.try_appctl(&strs(&split(command))),
                None => self.ofctl(words, ""),
            };
            let said = self.said(&said);
            (words.clone(), if words.starts_with("dump-ports") { text::joined(&said) } else { said })
        })
        .collect()
    }

    fn step(&mut self, step: &Step, run: &mut Run<'_>) {
        match step {
            Step::Version(v) => run.version = if v.is_empty() { String::new() } else { format!("-O {v}") },
            Step::Flows(bridge, flows) => {
                run.changed = !run.record.is_empty();
                let said = self.ofctl(&format!("{} add-flows {bridge} -", run.version), flows);
                if said.code != 0 || !said.err.is_empty() {
                    run.note(format!("add-flows {bridge}"), self.said(&said));
                }
            }
            Step::Send(port, line, times) => {
                if std::mem::take(&mut run.changed) {
                    self.settle();
                }
                self.hang_up();
                for i in 0..*times {
                    let label = format!("frames after > {port} {line} #{i}");
                    self.send(port, line);
                    let expected = run.expected(&label);
                    let out = self.outputs(expected.as_deref());
                    run.note(label, out);
                }
            }
            Step::Ofctl(words, stdin) => {
                run.changed = true;
                let label = format!("ovs-ofctl {words}");
                let said = self.ofctl(&format!("{} {words}", run.version), stdin);
                let said = self.said(&said);
                run.note(
                    label.clone(),
                    if words.starts_with("dump-flows") { text::sorted(&said) } else { said },
                );
                let label = format!("frames after {label}");
                let expected = run.expected(&label);
                let out = self.outputs(expected.as_deref());
                run.note(label, out);
            }
            Step::Vsctl(words) => {
                run.changed = true;
                let said = self.h.try_vsctl(&strs(&split(words)));
                run.note(format!("ovs-vsctl {words}"), self.said(&said));
            }
            Step::Appctl(words) => {
                run.changed = true;
                let said = self.said(&self.h.try_appctl(&strs(&split(words))));
                let said = if words.starts_with("fdb/show") { text::fdb(&said) } else { said };
                run.note(format!("ovs-appctl {words}"), said);
            }
            Step::Datapath => {
                self.settle();
                run.note("dpctl/dump-flows so far".into(), self.datapath());
            }
            Step::Monitor(words) => run.monitor = Some(self.monitor(words, &run.version)),
            Step::Stats => {
                for _ in 0..2 {
                    self.h
                        .control("revalidator/wait", &[])
                        .unwrap_or_else(|e| panic!("revalidator/wait: {e}"));
                }
            }
        }
    }

    fn monitor(&self, words: &str, version: &str) -> Child {
        let mut c = self.h.command("ovs-ofctl");
        let control = format!("--unixctl={}", self.h.path("monitor.ctl").display());
        c.arg(control).args(split(&format!("{version} monitor br0 {words}")));
        let out = fs::File::create(self.h.path("monitor.out")).expect("monitor.out");
        c.stdout(out.try_clone().expect("file")).stderr(out).stdin(Stdio::null());
        let mut child = c.spawn().expect("cannot run ovs-ofctl monitor");
        // If it has ended, what it said tells why, at the end of the case.
        wait_until("the monitor answers", || {
            self.to_monitor("ofctl/barrier") || matches!(child.try_wait(), Ok(Some(_)))
        });
        child
    }

    fn to_monitor(&self, command: &str) -> bool {
        let path = self.h.path("monitor.ctl");
        run(self.h.command("ovs-appctl").arg("--timeout=10").arg("-t").arg(path).arg(command)).code == 0
    }

    fn monitored(&self, mut child: Child, expected: Option<&str>) -> String {
        let read = || {
            self.to_monitor("ofctl/barrier");
            let said = fs::read_to_string(self.h.path("monitor.out")).unwrap_or_default();
            let said = self.common(&said);
            let lines = said.lines().filter(|l| !l.contains("OFPT_BARRIER_REPLY"));
            lines.map(|l| format!("{l}\n")).collect::<String>()
        };
        if let Some(e) = expected {
            wait_at_most(PATIENCE, || read().len() >= e.len());
        }
        let said = read();
        self.to_monitor("exit");
        let _ = child.wait();
        said
    }

    fn ofctl(&self, words: &str, input: &str) -> Output {
        self.h.ofctl_stdin(&strs(&split(words)), input)
    }

    /// Carries out a case and cleans up behind it. `expected` is what the other side recorded.
    pub fn run(&mut self, case: &Case, expected: Option<&Record>) -> Record {
        let before = self.deltas(case);
        let mut run = Run { version: String::new(), record: vec![], expected, monitor: None, changed: false };
        for step in &case.steps {
            self.step(step, &mut run);
        }
        if run.changed || case.learns() {
            self.settle();
        }
        run.note("dpctl/dump-flows".into(), self.datapath());
        self.purge();
        if let Some(child) = run.monitor.take() {
            let expected = run.expected("ovs-ofctl monitor");
            let said = self.monitored(child, expected.as_deref());
            run.note("ovs-ofctl monitor".into(), said);
        }
        let version = run.version.clone();
        for bridge in ["br0", "br1"] {
            run.note(format!("dump-flows {bridge}"), self.flows(bridge, &version));
        }
        for ((words, old), (_, new)) in before.iter().zip(self.deltas(case)) {
            run.note(words.clone(), text::delta(old, &new));
        }
        let record = run.record;
        self.reset(case);
        record
    }

    fn reset(&mut self, case: &Case) {
        for words in &case.undo {
            let said = self.h.try_vsctl(&strs(&split(words)));
            assert!(said.code == 0, "{:?}: {}: undo {words}: {}", self.which, case.name, said.err);
        }
        for bridge in ["br0", "br1"] {
            self.ofctl(&format!("del-flows {bridge}"), "");
            let _ = self.h.control("fdb/flush", &[bridge]);
        }
        self.hang_up();
        self.purge();
        self.lookups = self.lookups();
        self.injected = 0;
        self.outputs(None);
        assert!(self.h.switch().is_running(), "{:?} died in {}:\n{}", self.which, case.name, self.h.log());
    }
}

/// A case in progress.
struct Run<'a> {
    version: String,
    record: Record,
    expected: Option<&'a Record>,
    monitor: Option<Child>,
    /// Something may have changed since the last frame.
    changed: bool,
}

impl Run<'_> {
    fn note(&mut self, what: String, text: String) {
        self.record.push((what, text));
    }

    /// What the other side recorded under the label that comes next.
    fn expected(&self, label: &str) -> Option<String> {
        let (what, text) = self.expected?.get(self.record.len())?;
        (what == label).then(|| text.clone())
    }
}

/// The frame with the VLAN tag the kernel took off.
fn whole(frame: &infra::packet_socket::Received<'_>) -> Vec<u8> {
    let mut bytes = frame.data.to_vec();
    if let (Some((tpid, tci)), true) = (frame.vlan, bytes.len() >= 12) {
        let tag: Vec<u8> = tpid.to_be_bytes().into_iter().chain(tci.to_be_bytes()).collect();
        bytes.splice(12..12, tag);
    }
    bytes
}

fn ip(words: &str) {
    run_ok(Command::new("ip").args(words.split_whitespace()));
}

fn vsctl(h: &Harness, words: &str) {
    h.vsctl(&strs(&split(words)));
}

/// Frames received by each device of this thread's namespace.
fn received() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("/proc/thread-self/net/dev");
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            Some((name.trim().to_string(), rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

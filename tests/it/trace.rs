//! `ofproto/trace` and the commands around it, compared with the installed daemon byte for byte.
//!
//! `TRACE_ONLY=text` runs the groups whose name holds the text, `TRACE_FILE=path` those of another file; `TRACE_SHOW=1` prints what the installed daemon said.
//! Neighbours: `harness`. Threads: one per daemon.

use crate::harness::{run_ok, split, strs, Harness, Output, Setup, Which};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;

const CASES: &[&str] =
    &[include_str!("trace/cases.txt"), include_str!("trace/dpctl.txt"), include_str!("trace/windows.txt")];

/// A daemon with two bridges of tap ports, joined by patch ports.
struct Side {
    h: Harness,
    version: String,
}

/// Each number after `key` is left out: times, counters, identifiers that are handed out.
fn without_numbers(text: &str, key: &str) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.push_str(key);
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == 'x'));
    }
    out
}

/// Names of flows that were not given by hand: the installed daemon's depend on a random number.
fn without_ufids(text: &str) -> String {
    let mut parts = text.split("ufid:");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let own = part.starts_with("11111111") || part.as_bytes().get(36) != Some(&b',');
        let _ = write!(out, "ufid:{}", if own { part } else { &part[36..] });
    }
    out
}

fn clean(text: &str) -> String {
    ["recirc(", ",recirc_id=", "duration=", "n_packets=", "n_bytes=", "missed:", "hit:"]
        .iter()
        .fold(text.to_string(), |t, key| without_numbers(&t, key))
}

/// Rules of one table, and flows of one thread, in any order.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|l| format!("{l}\n")).collect()
}

impl Side {
    fn start(which: Which) -> Side {
        let h = Setup::new(which).in_thread().up();
        for i in [1, 2] {
            let (name, mac) = (format!("br{}", i - 1), format!("other_config:hwaddr=aa:55:aa:55:00:0{i}"));
            let set = ["--", "set", "Bridge", &name, "datapath_type=netdev", "fail_mode=secure", &mac];
            h.vsctl(&[&["add-br", &name][..], &set].concat());
            // The kernel sends nothing of its own into the bridge.
            run_ok(Command::new("ip").args(["link", "set", &name, "arp", "off", "multicast", "off"]));
        }
        for (bridge, port, no) in [
            ("br0", "p1", "1"),
            ("br0", "p2", "2"),
            ("br0", "p3", "3"),
            ("br0", "p4", "4"),
            ("br0", "p50", "50"),
            ("br1", "p5", "1"),
            ("br1", "p6", "2"),
        ] {
            let request = format!("ofport_request={no}");
            h.vsctl(&["add-port", bridge, port, "--", "set", "Interface", port, "type=tap", &request]);
        }
        let patch = "add-port br0 pt0 -- set Interface pt0 type=patch options:peer=pt1 ofport_request=10 \
                     -- add-port br1 pt1 -- set Interface pt1 type=patch options:peer=pt0 ofport_request=10";
        h.vsctl(&patch.split_whitespace().collect::<Vec<_>>());
        Side { h, version: String::new() }
    }

    fn dir(&self) -> String {
        self.h.path("").display().to_string()
    }

    /// Appends a line to a file in the daemon's directory.
    fn write(&self, name: &str, line: &str) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.h.path(name));
        writeln!(file.expect("a file"), "{line}").expect("written");
    }

    fn said(&self, o: &Output) -> String {
        format!("{}{}", o.out, o.err)
    }

    fn control(&self, words: &[String]) -> String {
        let (method, params) = words.split_first().expect("a command");
        let text = match self.h.control(method, &strs(params)) {
            Ok(text) => text,
            Err(text) => format!("error: {text}"),
        };
        let text = clean(&without_ufids(&text)).replace(&self.dir(), "DIR/");
        if method.contains("dump-flows") {
            sorted(&text)
        } else {
            text
        }
    }

    /// Adds `flows` and empties them.
    fn add(&self, flows: &mut BTreeMap<&'static str, String>) -> String {
        let mut out = String::new();
        for (bridge, text) in std::mem::take(flows) {
            let words = format!("{} add-flows {bridge} -", self.version);
            out.push_str(&self.said(&self.h.ofctl_stdin(&strs(&split(&words)), &text)));
        }
        out
    }

    /// Runs the lines of a group; what each printed.
    fn run(&mut self, lines: &[&str]) -> Vec<(String, String)> {
        let (mut flows, mut undo, mut record) = (BTreeMap::new(), Vec::new(), Vec::new());
        self.version.clear();
        for line in lines {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let bridge = match kind {
                "+" => Some("br0"),
                "+1" => Some("br1"),
                _ => None,
            };
            if let Some(b) = bridge {
                let _ = writeln!(flows.entry(b).or_insert_with(String::new), "{rest}");
                continue;
            }
            let errors = self.add(&mut flows);
            if !errors.is_empty() {
                record.push(("flows".into(), errors));
            }
            let words = split(&rest.replace("DIR/", &self.dir()));
            let text = match kind {
                "f" => {
                    let (name, line) = rest.split_once(' ').unwrap_or((rest, ""));
                    self.write(name, line);
                    continue;
                }
                "of" => {
                    self.version = if rest.is_empty() { String::new() } else { format!("-O {rest}") };
                    continue;
                }
                "undo" => {
                    undo.push(words);
                    continue;
                }
                "v" => self.said(&self.h.try_vsctl(&strs(&words))),
                "o" => self.said(&self.h.try_ofctl(&strs(&split(&format!("{} {rest}", self.version))))),
                "t" => self.control(&split(&format!("ofproto/trace {rest}"))),
                "a" => self.control(&words),
                _ => panic!("unknown step: {line}"),
            };
            record.push(((*line).to_string(), text));
        }
        for words in undo {
            self.h.vsctl(&strs(&words));
        }
        for bridge in ["br0", "br1"] {
            self.h.ofctl(&["-O", "OpenFlow13", "del-flows", bridge]);
            self.h.control("fdb/flush", &[bridge]).expect("fdb/flush");
        }
        self.h.control("revalidator/purge", &[]).expect("revalidator/purge");
        record
    }
}

/// Names and lines of the groups.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let own: Option<&'static str> = std::env::var_os("TRACE_FILE")
        .map(|path| &*std::fs::read_to_string(path).expect("TRACE_FILE").leak());
    let files = own.as_ref().map_or(CASES, std::slice::from_ref);
    for line in files.iter().flat_map(|c| c.lines()).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match line.strip_prefix("== ") {
            Some(name) => groups.push((name, Vec::new())),
            None => groups.last_mut().expect("a group").1.push(line),
        }
    }
    if let Ok(only) = std::env::var("TRACE_ONLY") {
        groups.retain(|(name, _)| name.contains(&only));
    }
    groups
}

#[test]
fn traces_are_those_of_the_installed_daemon() {
    let groups = groups();
    let all = |which: Which| {
        let mut side = Side::start(which);
        groups.iter().map(|(_, lines)| side.run(lines)).collect::<Vec<_>>()
    };
    let (theirs, ours) = std::thread::scope(|s| {
        let theirs = s.spawn(|| all(Which::Installed));
        let ours = s.spawn(|| all(Which::Ours));
        (theirs.join().expect("the installed daemon's side"), ours.join().expect("our side"))
    });
    let (mut compared, mut different, mut report) = (0, 0, String::new());
    for ((name, _), (theirs, ours)) in groups.iter().zip(theirs.iter().zip(&ours)) {
        assert_eq!(theirs.len(), ours.len(), "{name}: {ours:#?}");
        for ((what, a), (_, b)) in theirs.iter().zip(ours) {
            compared += 1;
            if std::env::var_os("TRACE_SHOW").is_some() {
                println!("{what}\n{a}");
            }
            if a != b {
                different += 1;
                let _ = write!(report, "== {name}: {what}\n--- installed\n{a}--- ours\n{b}\n");
            }
        }
    }
    println!("{compared} outputs compared, {different} differ");
    assert!(different == 0, "{different} of {compared} outputs differ\n{report}");
    if std::env::var_os("TRACE_ONLY").is_none() && std::env::var_os("TRACE_FILE").is_none() {
        assert!(compared >= 400, "only {compared} outputs");
    }
}

//! Every control command that both daemons have, with every number of arguments from none to more than any takes: the
//! same refusals and, with words that mean nothing or little, the same answers but for numbers.

use crate::harness::{Harness, Setup, Which};
use std::collections::BTreeSet;

/// Commands whose answers differ for a reason, and what is compared nevertheless: the refusals.
const DIFFERENT: &[(&str, &str)] = &[
    ("coverage/show", "which events are counted depends on how a daemon is made"),
    ("dpctl/list-commands", "lists what there is, and not all is yet"),
    ("dpif-netdev/miniflow-parser-get", "there is one implementation, and none to compare it with"),
    ("odp-execute/action-impl-show", "there is one implementation, and none to compare it with"),
    ("list-commands", "compared line by line in another test"),
    ("memory/show", "what is kept depends on how a daemon is made"),
    ("vlog/list", "which modules there are depends on how a daemon is made"),
];

/// Commands that would change what the others show: only their refusals are compared.
const CHANGING: &[&str] = &[
    "dpctl/add-dp",
    "dpctl/add-if",
    "dpctl/del-dp",
    "dpctl/del-if",
    "dpctl/set-if",
    "exit",
    "time/stop",
    "time/warp",
];

/// What crashes the installed daemon: command and number of arguments.
const CRASHES: &[(&str, usize)] = &[
    ("dpctl/ct-del-limits", 1),
    ("dpctl/ct-del-limits", 2),
    ("dpctl/ct-set-limits", 1),
    ("dpctl/ct-set-limits", 2),
];

const MOST: usize = 13;
const WORDS: [&str; 4] = ["nonexistent", "br0", "p1", "1"];

fn daemon(which: Which) -> Harness {
    let h = Setup::new(which).args(&["--enable-dummy=override"]).up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "other_config:hwaddr=aa:55:aa:55:00:00"]);
    for (name, number) in [("p1", "1"), ("p2", "2")] {
        let request = format!("ofport_request={number}");
        h.vsctl(&["add-port", "br0", name, "--", "set", "Interface", name, "type=dummy", &request]);
    }
    h
}

fn names(h: &Harness) -> BTreeSet<String> {
    let list = h.control("list-commands", &[]).expect("list-commands");
    list.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(str::to_string).collect()
}

/// A refusal for the number of arguments.
fn is_refusal(answer: &Result<String, String>) -> bool {
    matches!(answer, Err(text) if text.contains("\" command requires at least ") || text.contains("\" command takes at most "))
}

/// The shape of an answer: numbers are all the same.
fn shape(answer: &Result<String, String>) -> Result<String, String> {
    let plain = |text: &String| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '0'..='9' if out.ends_with('N') => {}
                '0'..='9' => out.push('N'),
                c => out.push(c),
            }
        }
        out
    };
    answer.as_ref().map(plain).map_err(plain)
}

#[test]
fn usage_and_shapes_as_the_installed_daemon() {
    let (ours, theirs) = (daemon(Which::Ours), daemon(Which::Installed));
    let common: Vec<String> = names(&ours).intersection(&names(&theirs)).cloned().collect();
    assert!(common.len() >= 50, "only {} commands", common.len());
    let (mut compared, mut different) = (0, Vec::new());
    for name in &common {
        let refusals_only = CHANGING.contains(&name.as_str());
        let reason = DIFFERENT.iter().find(|(n, _)| n == name);
        for n in (0..=MOST).filter(|n| !CRASHES.contains(&(name.as_str(), *n))) {
            for word in &WORDS[..if n == 0 { 1 } else { WORDS.len() }] {
                let words = vec![*word; n];
                // `add-if` and its kin take any number: only too few are refused. `exit` is asked for too much.
                if refusals_only && (n > 1 && name != "exit" || n < 2 && name == "exit")
                    || refusals_only && n == 1 && !name.ends_with("-if")
                {
                    continue;
                }
                let (a, b) = (theirs.control(name, &words), ours.control(name, &words));
                compared += 1;
                let same = match is_refusal(&a) || is_refusal(&b) {
                    true => a == b,
                    false => reason.is_some() || shape(&a) == shape(&b),
                };
                if !same {
                    different
                        .push(format!("{name} {}\n  installed: {a:?}\n  ours:      {b:?}", words.join(" ")));
                }
            }
        }
    }
    println!("{} commands, {compared} answers compared, {} differ", common.len(), different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

//! The differential test: the same commands and the same frames through the installed `ovs-vswitchd` and through
//! ours; what the tools print and what comes out must be equal.
//!
//! `DIFF_ONLY=text` runs the cases whose name holds the text, `DIFF_FILE=path` those of another file; `DIFF_SELF=1` puts the installed daemon on both
//! sides, which shows what must be normalised; `DIFF_SHOW=1` prints what the installed daemon said. Threads: one per side, cases pass between them in order.

mod case;
mod frame;
mod known;
mod side;
mod text;

use crate::harness::Which;
use case::Case;
use side::{Record, Side};
use std::fmt::Write as _;
use std::sync::mpsc;

/// The case files.
const FILES: &[&str] = &[
    include_str!("diff/cases/match.txt"),
    include_str!("diff/cases/classifier.txt"),
    include_str!("diff/cases/frames.txt"),
    include_str!("diff/cases/actions.txt"),
    include_str!("diff/cases/normal.txt"),
    include_str!("diff/cases/ofctl.txt"),
    include_str!("diff/cases/database.txt"),
];

fn cases() -> Vec<Case> {
    let own = std::env::var_os("DIFF_FILE").map(|path| std::fs::read_to_string(path).expect("DIFF_FILE"));
    let all: Vec<Case> = match &own {
        Some(text) => case::parse(text),
        None => FILES.iter().flat_map(|text| case::parse(text)).collect(),
    };
    let mut names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).for_each(|w| assert_ne!(w[0], w[1], "two cases of one name"));
    match std::env::var("DIFF_ONLY") {
        Ok(part) => all.into_iter().filter(|c| c.name.contains(&part)).collect(),
        Err(_) => all,
    }
}

/// Lines only one text has, marked, among those both have.
fn difference(theirs: &str, ours: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] =
                if a[i] == b[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            let _ = writeln!(out, "    = {}", a[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && common[i + 1][j] >= common[i][j + 1] {
            let _ = writeln!(out, "    - {}", a[i]);
            i += 1;
        } else {
            let _ = writeln!(out, "    + {}", b[j]);
            j += 1;
        }
    }
    out
}

/// How two records of a case differ; nothing if they do not. Adds to `used` the known differences met.
fn compare(case: &Case, theirs: &Record, ours: &Record, used: &mut Vec<usize>) -> String {
    let mut out = String::new();
    for i in 0..theirs.len().max(ours.len()) {
        let nothing = (String::new(), String::new());
        let (a, b) = (theirs.get(i).unwrap_or(&nothing), ours.get(i).unwrap_or(&nothing));
        if a == b {
            continue;
        }
        if let Some(known) = known::justified(&case.name, &a.0) {
            used.push(known);
        } else {
            let what = if a.0 == b.0 { a.0.clone() } else { format!("{} / {}", a.0, b.0) };
            let _ = write!(out, "  {what}\n{}", difference(&a.1, &b.1));
        }
    }
    out
}

/// Runs on the installed daemon what it is told, and hands over what was recorded.
fn model(cases: &[Case], orders: &mpsc::Receiver<usize>, results: &mpsc::Sender<Record>) {
    let mut side = Side::start(Which::Installed);
    for i in orders {
        if results.send(side.run(&cases[i], None)).is_err() {
            return;
        }
    }
}

/// The two sides; the installed daemon runs ahead of ours.
struct Pair<'a> {
    cases: &'a [Case],
    orders: mpsc::Sender<usize>,
    results: mpsc::Receiver<Record>,
    ours: Side,
    /// Known differences met.
    used: Vec<usize>,
}

impl Pair<'_> {
    /// Compares these cases; returns those that differ, with the differences.
    fn compare(&mut self, which: &[usize]) -> Vec<(usize, String)> {
        for i in which {
            self.orders.send(*i).expect("the installed daemon's side failed");
        }
        let mut found = Vec::new();
        for &i in which {
            let case = &self.cases[i];
            let theirs = self.results.recv().expect("the installed daemon's side failed");
            let ours = self.ours.run(case, Some(&theirs));
            if std::env::var_os("DIFF_SHOW").is_some() {
                println!("== {}", case.name);
                theirs.iter().for_each(|(what, text)| println!("--- {what}\n{text}"));
            }
            let different = compare(case, &theirs, &ours, &mut self.used);
            if !different.is_empty() {
                found.push((i, different));
            }
        }
        found
    }
}

/// Cases that may differ once: the installed daemon frees removed rules when all its threads have paused, and until
/// then the masks of the case before are looked at, so that a datapath flow may match more than it needs.
const ONCE: usize = 5;

/// Compares all cases; returns those that differ, and the known differences met.
fn compare_all(cases: &[Case], own: Which) -> (Vec<(usize, String)>, Vec<usize>) {
    let (orders, receive_orders) = mpsc::channel();
    let (send_results, results) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || model(cases, &receive_orders, &send_results));
        let ours = scope.spawn(move || {
            let mut pair = Pair { cases, orders, results, ours: Side::start(own), used: vec![] };
            let mut found = pair.compare(&(0..cases.len()).collect::<Vec<_>>());
            for _ in 0..2 {
                if found.len() > ONCE {
                    break;
                }
                let again: Vec<usize> = found.iter().map(|(i, _)| *i).collect();
                found = pair.compare(&again);
            }
            (found, pair.used)
        });
        ours.join().expect("our side failed")
    })
}

#[test]
fn same_as_the_installed_daemon() {
    let cases = cases();
    let own = if std::env::var_os("DIFF_SELF").is_some() { Which::Installed } else { Which::Ours };
    let (found, used) = compare_all(&cases, own);
    for (i, different) in &found {
        println!("== {}\n{different}", cases[*i].name);
    }
    println!("{} cases compared, {} differ", cases.len(), found.len());
    let names: Vec<&str> = found.iter().map(|(i, _)| cases[*i].name.as_str()).collect();
    assert!(found.is_empty(), "these cases differ (see above; -: installed, +: ours): {names:?}");
    if std::env::var_os("DIFF_ONLY").is_none() && std::env::var_os("DIFF_FILE").is_none() {
        assert!(cases.len() >= 200, "only {} cases", cases.len());
        let stale = known::stale(&used);
        assert!(
            own == Which::Installed || stale.is_empty(),
            "known differences that are not met: {stale:#?}"
        );
    }
}

#[test]
fn differences_are_shown_line_by_line() {
    assert_eq!(difference("a\nb\nc\n", "a\nc\nd\n"), "    = a\n    - b\n    = c\n    + d\n");
}

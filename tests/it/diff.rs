//! The differential test: the same commands and the same frames through the installed `ovs-vswitchd` and through
//! ours; what the tools print and what comes out must be equal.
//!
//! `DIFF_ONLY=text` runs the cases whose name holds the text; `DIFF_SELF=1` puts the installed daemon on both
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
    let all: Vec<Case> = FILES.iter().flat_map(|text| case::parse(text)).collect();
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

/// How two records of a case differ; nothing if they do not.
fn compare(case: &Case, theirs: &Record, ours: &Record) -> String {
    let mut out = String::new();
    for i in 0..theirs.len().max(ours.len()) {
        let nothing = (String::new(), String::new());
        let (a, b) = (theirs.get(i).unwrap_or(&nothing), ours.get(i).unwrap_or(&nothing));
        if a != b && !known::justified(&case.name, &a.0, &a.1, &b.1) {
            let what = if a.0 == b.0 { a.0.clone() } else { format!("{} / {}", a.0, b.0) };
            let _ = write!(out, "  {what}\n{}", difference(&a.1, &b.1));
        }
    }
    out
}

/// Runs all cases on a side that is the other side's model.
fn model(cases: &[Case], results: &mpsc::Sender<Record>) {
    let mut side = Side::start(Which::Installed);
    for case in cases {
        if results.send(side.run(case, None)).is_err() {
            return;
        }
    }
}

#[test]
fn same_as_the_installed_daemon() {
    let cases = cases();
    let own = if std::env::var_os("DIFF_SELF").is_some() { Which::Installed } else { Which::Ours };
    let (send, receive) = mpsc::channel();
    let (failed, report) = std::thread::scope(|scope| {
        scope.spawn(|| model(&cases, &send));
        let ours = scope.spawn(|| {
            let receive = receive;
            let mut side = Side::start(own);
            let (mut failed, mut report) = (0, String::new());

            for case in &cases {
                let theirs: Record = receive.recv().expect("the installed daemon's side failed");
                let ours = side.run(case, Some(&theirs));
                let different = compare(case, &theirs, &ours);
                if std::env::var_os("DIFF_SHOW").is_some() {
                    println!("== {}", case.name);
                    theirs.iter().for_each(|(what, text)| println!("--- {what}\n{text}"));
                }
                if !different.is_empty() {
                    failed += 1;
                    println!("== {}\n{different}", case.name);
                    let _ = writeln!(report, "  {}", case.name);
                }
            }
            (failed, report)
        });
        ours.join().expect("our side failed")
    });
    println!("{} cases compared, {failed} differ", cases.len());
    assert!(
        failed == 0,
        "{failed} of {} cases differ (above; -: installed, +: ours):\n{report}",
        cases.len()
    );
    if std::env::var_os("DIFF_ONLY").is_none() {
        assert!(cases.len() >= 200, "only {} cases", cases.len());
    }
}

#[test]
fn differences_are_shown_line_by_line() {
    assert_eq!(difference("a\nb\nc\n", "a\nc\nd\n"), "    = a\n    - b\n    = c\n    + d\n");
}

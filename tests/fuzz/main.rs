//! Parsers of what comes from outside, fed with broken input: JSON, JSON-RPC, log specifications, replies of a
//! database server. No input may make them panic, hang, or keep more memory than their limits say.
//!
//! Each test replays its corpus in `corpus/` and then mutates it, for half a second or for `FUZZ_SECONDS`. An input
//! with a new outcome joins the corpus in memory; with `FUZZ_KEEP=1` it is also written into `corpus/`. An input
//! that fails is left in the temporary directory, and its name is printed.
//! `FUZZ_RECORD=unix:SOCKET` makes the database's corpus anew from a real server.

#![forbid(unsafe_code)]

mod mutate;
mod targets;

use mutate::Mutator;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest that one input may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the process may need in all, in kB, with four tests at once.
const MEMORY_KB: i64 = 1 << 20;
/// Inputs that the corpus in memory holds.
const MAX_CORPUS: usize = 4_096;

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

fn seconds() -> Duration {
    let set = std::env::var("FUZZ_SECONDS").ok().and_then(|v| v.parse::<u64>().ok());
    set.map_or(Duration::from_millis(500), Duration::from_secs)
}

/// A parser under test: runs on bytes and says how that ended, in words that are the same for inputs of one kind.
type Target = fn(&[u8]) -> String;

/// Leaves the input behind if the target panics while it is held.
struct Culprit<'a>(&'a str, &'a [u8]);

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("fuzz-{}-{}", self.0, std::process::id()));
            let _ = std::fs::write(&path, self.1);
            eprintln!("the input that failed is in {}", path.display());
        }
    }
}

fn run_one(name: &str, target: Target, input: &[u8]) -> u64 {
    let _culprit = Culprit(name, input);
    let began = Instant::now();
    let outcome = target(input);
    assert!(
        began.elapsed() < PATIENCE,
        "{name}: an input of {} bytes takes {:?}",
        input.len(),
        began.elapsed()
    );
    // Numbers in messages are of no kind.
    let kind: String = outcome.chars().filter(|c| !c.is_ascii_digit()).collect();
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    hasher.finish()
}

fn fuzz(name: &str, target: Target, words: &'static [&'static str]) {
    let directory = corpus_of(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&directory).expect("the corpus").flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut corpus: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).expect("an input")).collect();
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    let mut seen: HashSet<u64> = corpus.iter().map(|input| run_one(name, target, input)).collect();
    let end = Instant::now() + seconds();
    let mut mutator =
        Mutator::new(std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1), words);
    let (mut runs, replayed) = (0u64, corpus.len());
    while Instant::now() < end {
        let input = mutator.next(&corpus);
        runs += 1;
        if seen.insert(run_one(name, target, &input)) && corpus.len() < MAX_CORPUS {
            if std::env::var_os("FUZZ_KEEP").is_some() && input.len() < 2_048 {
                std::fs::write(directory.join(format!("found-{:04}", corpus.len())), &input)
                    .expect("the corpus");
            }
            corpus.push(input);
        }
    }
    let peak = infra::process::Usage::process().peak_kb;
    println!(
        "{name}: {replayed} inputs replayed, {runs} made, {} kinds of outcome, peak {peak} kB",
        seen.len()
    );
    assert!(peak < MEMORY_KB, "{name}: {peak} kB of memory");
}

#[test]
fn json() {
    fuzz(
        "json",
        targets::json,
        &[
            "[", "]", "{", "}", "\"", "\\u", "\\ud800", "1e999", "-", "0.", "null", "true", "[[[[[[[[",
            "{\"a\":", "\u{0}", "\u{fffd}",
        ],
    );
}

#[test]
fn jsonrpc() {
    fuzz(
        "jsonrpc",
        targets::jsonrpc,
        &[
            "\"method\":",
            "\"params\":",
            "\"id\":",
            "\"result\":",
            "\"error\":",
            "null",
            "[]",
            "{",
            "}",
            "\"\"",
            "[[[[",
            ",",
            "99999999999999999999",
        ],
    );
}

#[test]
fn vlog() {
    fuzz(
        "vlog",
        targets::vlog,
        &[
            "PATTERN:",
            "FACILITY:",
            "file:",
            "console:",
            "syslog:",
            "any",
            "dbg",
            "off",
            "%D{",
            "}",
            "%999999999m",
            "%-05N",
            "%",
            "%d{%",
            "#",
            ":",
            ",",
            " ",
            "local7",
            "bridge",
        ],
    );
}

#[test]
fn database() {
    if let Ok(server) = std::env::var("FUZZ_RECORD") {
        targets::record(&server, &corpus_of("database"));
    }
    fuzz(
        "database",
        targets::database,
        &[
            "[\"uuid\",\"00000000-0000-0000-0000-000000000000\"]",
            "[\"set\",[",
            "[\"map\",[",
            "[\"named-uuid\",\"x\"]",
            "\"initial\"",
            "\"insert\"",
            "\"modify\"",
            "\"delete\"",
            "null",
            "\"update3\"",
            "\"update2\"",
            "\"update\"",
            "\"locked\"",
            "\"stolen\"",
            "\"echo\"",
            "\"error\":",
            "\"result\":",
            "\"id\":",
            "-9223372036854775808",
            "18446744073709551616",
            "1e308",
            "{}",
            "[]",
            "\"min\":",
            "\"max\":\"unlimited\"",
            "\"columns\":",
        ],
    );
}

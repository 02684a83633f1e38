//! `memory/show` and the report of growing memory in the log. Main thread.

use crate::switch::Switch;
use infra::info;
use infra::process::Usage;
use infra::vlog::Module;

static LOG: Module = Module::new("memory");

/// Milliseconds between two looks at the peak.
const INTERVAL_MS: i64 = 10_000;

/// Remembers what was reported last.
pub struct Memory {
    started: i64,
    next_check: i64,
    /// When and at which peak (kB) the last report was made.
    last: Option<(i64, i64)>,
}

impl Memory {
    /// Starts watching.
    pub fn new(now: i64) -> Self {
        Memory { started: now, next_check: now + INTERVAL_MS, last: None }
    }

    /// Reports the peak after 10 s, and whenever it has grown by half.
    pub fn run(&mut self, switch: &mut Switch, now: i64) {
        if now < self.next_check {
            return;
        }
        self.next_check = now + INTERVAL_MS;
        let peak = Usage::process().peak_kb;
        let seconds = |since: i64| (now - since) as f64 / 1000.0;
        match self.last {
            None => {
                let after = seconds(self.started);
                info!(LOG, "{peak} kB peak resident set size after {after:.1} seconds");
            }
            Some((at, old)) if peak >= old + old / 2 => {
                let (growth, last) = ((peak as f64 / old as f64 - 1.0) * 100.0, seconds(at));
                info!(
                    LOG,
                    "peak resident set size grew {growth:.0}% in last {last:.1} seconds, from {old} kB to {peak} kB"
                );
            }
            Some(_) => return,
        }
        self.last = Some((now, peak));
        let usage = usage(switch);
        if !usage.is_empty() {
            info!(LOG, "{usage}");
        }
    }
}

/// What is kept, as `name:count` words by name.
pub fn usage(switch: &mut Switch) -> String {
    let mut all = Vec::new();
    switch.memory(&mut all);
    // What there is none of is not listed.
    all.retain(|(_, count)| *count > 0);
    all.sort();
    let words: Vec<String> = all.into_iter().map(|(name, count)| format!("{name}:{count}")).collect();
    words.join(" ")
}

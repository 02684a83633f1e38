//! What each round of a PMD did: histograms, the last rounds and milliseconds, and rounds that took too long.
//!
//! A PMD records while `pmd-perf-metrics` is on, into memory of its own that others may read at any time: plain
//! stores, no lock. A reader may see the entry being written half old, half new, which a listing can bear.
//! Rounds that took too long are copied, with their neighbours, for the main thread to log.
//! Neighbours: `thread` records, `show_perf` prints, `control` collects the reports. Threads: written by one.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Rounds, and milliseconds, that are remembered.
pub(crate) const HISTORY: usize = 1_000;
/// Bins of a histogram.
pub(crate) const BINS: usize = 32;
/// Histograms.
pub(crate) const METRICS: usize = 7;
/// Reports that wait to be logged.
const MAX_REPORTS: usize = 16;
/// Rounds in one report from which on logging falls back to its defaults: it would cause itself.
const LONG_REPORT: u64 = 100;

/// One round, or several summed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Round {
    /// Number of the round; the time of a millisecond.
    pub(crate) at: u64,
    /// Rounds summed up.
    pub(crate) rounds: u64,
    pub(crate) cycles: u64,
    pub(crate) packets: u64,
    pub(crate) batches: u64,
    pub(crate) upcalls: u64,
    pub(crate) upcall_cycles: u64,
}

/// A [`Round`] as its owner writes it.
#[derive(Default)]
struct Cell([AtomicU64; 7]);

impl Cell {
    fn put(&self, r: &Round) {
        let all = [r.at, r.rounds, r.cycles, r.packets, r.batches, r.upcalls, r.upcall_cycles];
        self.0.iter().zip(all).for_each(|(c, v)| c.store(v, Ordering::Relaxed));
    }

    fn get(&self) -> Round {
        let [at, rounds, cycles, packets, batches, upcalls, upcall_cycles] =
            std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed));
        Round { at, rounds, cycles, packets, batches, upcalls, upcall_cycles }
    }
}

/// The last entries of a kind.
struct History {
    cells: Box<[Cell]>,
    /// Entries ever made.
    made: AtomicU64,
}

impl History {
    fn new() -> History {
        History { cells: (0..HISTORY).map(|_| Cell::default()).collect(), made: AtomicU64::new(0) }
    }

    fn push(&self, r: &Round) {
        let made = self.made.load(Ordering::Relaxed);
        self.cells[made as usize % HISTORY].put(r);
        self.made.store(made + 1, Ordering::Relaxed);
    }

    /// The last `n`, newest first.
    fn last(&self, n: usize) -> Vec<Round> {
        let made = self.made.load(Ordering::Relaxed);
        let n = (n.min(HISTORY) as u64).min(made);
        (1..=n).map(|back| self.cells[(made - back) as usize % HISTORY].get()).collect()
    }

    fn clear(&self) {
        self.made.store(0, Ordering::Relaxed);
    }
}

/// Upper ends of the bins of all histograms but the last bin, which has none.
pub(crate) struct Walls([[u64; BINS - 1]; METRICS]);

impl Walls {
    pub(crate) fn new() -> Walls {
        Walls([
            logarithmic(500, 24_000_000),
            logarithmic(0, 1_000),
            linear(100, 30_000),
            linear(0, 32),
            logarithmic(0, 512),
            linear(0, 30),
            logarithmic(1_000, 1_000_000),
        ])
    }

    fn bin(&self, metric: usize, value: u64) -> usize {
        self.0[metric].partition_point(|wall| *wall < value)
    }

    /// The ends of a histogram's bins.
    pub(crate) fn of(&self, metric: usize) -> &[u64] {
        &self.0[metric]
    }
}

fn linear(min: u64, max: u64) -> [u64; BINS - 1] {
    std::array::from_fn(|i| min + i as u64 * (max - min) / (BINS as u64 - 2))
}

/// Ends that grow by a factor; those of small whole numbers by one at least. From 0 on, the first bin is that of 0.
fn logarithmic(min: u64, max: u64) -> [u64; BINS - 1] {
    let first = usize::from(min == 0);
    let low = (min.max(1) as f64).ln();
    let step = ((max as f64).ln() - low) / (BINS - 2 - first) as f64;
    let mut walls = [0; BINS - 1];
    for i in first..walls.len() {
        let wall = (low + (i - first) as f64 * step).exp() as u64;
        walls[i] = if i > 0 { wall.max(walls[i - 1] + 1) } else { wall };
    }
    // Rounding must not move the end.
    walls[BINS - 2] = max;
    walls
}

/// Why and when a round was suspicious, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) iteration: u64,
    pub(crate) us: u64,
    /// Newest first.
    pub(crate) rounds: Vec<Round>,
}

/// When and how rounds are logged (`dpif-netdev/pmd-perf-log-set`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerfLog {
    /// Whether they are.
    pub on: bool,
    /// Rounds before a suspicious one that are logged with it.
    pub before: u64,
    /// Rounds after it.
    pub after: u64,
    /// Whether another suspicious round before that puts logging off.
    pub extend: bool,
    /// Longest unsuspicious round, microseconds.
    pub us: u64,
    /// Longest unsuspicious queue of a vhost port.
    pub queue: u64,
}

impl Default for PerfLog {
    fn default() -> Self {
        PerfLog { on: false, before: 5, after: 5, extend: false, us: 250, queue: 128 }
    }
}

impl PerfLog {
    /// Sets how many rounds before are logged; those after have the rest of what is remembered.
    pub fn set_before(&mut self, n: u64) {
        self.before = n.min(HISTORY as u64 - 2);
        self.after = self.after.min(HISTORY as u64 - 2 - self.before);
    }

    /// Sets how many rounds after are logged.
    pub fn set_after(&mut self, n: u64) {
        self.after = n.min(HISTORY as u64 - 2 - self.before);
    }
}

/// What a PMD recorded, for all to read.
pub(crate) struct Perf {
    bins: [[AtomicU64; BINS]; METRICS],
    total: Cell,
    rounds: History,
    millis: History,
    reports: Mutex<VecDeque<Report>>,
}

impl Perf {
    pub(crate) fn new() -> Perf {
        Perf {
            bins: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            total: Cell::default(),
            rounds: History::new(),
            millis: History::new(),
            reports: Mutex::default(),
        }
    }

    /// The counts of a histogram.
    pub(crate) fn counts(&self, metric: usize) -> [u64; BINS] {
        std::array::from_fn(|i| self.bins[metric][i].load(Ordering::Relaxed))
    }

    /// The sum of all rounds recorded.
    pub(crate) fn total(&self) -> Round {
        self.total.get()
    }

    /// The last `n` rounds, newest first.
    pub(crate) fn last_rounds(&self, n: usize) -> Vec<Round> {
        self.rounds.last(n)
    }

    /// The last `n` milliseconds, newest first.
    pub(crate) fn last_millis(&self, n: usize) -> Vec<Round> {
        self.millis.last(n)
    }

    /// Suspicious rounds since the last call.
    pub(crate) fn take_reports(&self) -> VecDeque<Report> {
        std::mem::take(&mut *self.reports.lock())
    }
}

/// A suspicious round whose followers are awaited.
struct Pending {
    iteration: u64,
    us: u64,
    first: u64,
    end: u64,
}

/// The side of a PMD.
pub(crate) struct Recorder {
    perf: Arc<Perf>,
    walls: Walls,
    log: PerfLog,
    pending: Option<Pending>,
    /// Counters before the round.
    batches: u64,
    upcalls: u64,
    upcall_cycles: u64,
    /// The present millisecond, and when it began.
    milli: Round,
    milli_tsc: u64,
    hz: u64,
}

impl Recorder {
    pub(crate) fn new(perf: Arc<Perf>, hz: u64) -> Recorder {
        Recorder {
            perf,
            walls: Walls::new(),
            log: PerfLog::default(),
            pending: None,
            batches: 0,
            upcalls: 0,
            upcall_cycles: 0,
            milli: Round::default(),
            milli_tsc: 0,
            hz,
        }
    }

    pub(crate) fn set_log(&mut self, log: PerfLog) {
        self.log = log;
        self.pending = None;
    }

    /// Forgets what was recorded.
    pub(crate) fn clear(&mut self) {
        self.perf.bins.iter().flatten().for_each(|b| b.store(0, Ordering::Relaxed));
        self.perf.total.put(&Round::default());
        self.perf.rounds.clear();
        self.perf.millis.clear();
        self.pending = None;
    }

    /// Starts counting from here: rounds before were not recorded.
    pub(crate) fn begin(&mut self, s: &crate::stats::PmdStats, tsc: u64) {
        self.batches = s.batches;
        self.upcalls = s.miss_ok + s.miss_failed;
        self.upcall_cycles = s.upcall_cycles;
        self.milli = Round::default();
        self.milli_tsc = tsc;
    }

    /// Records a round that is over, by what the counters are now.
    pub(crate) fn record(
        &mut self,
        s: &crate::stats::PmdStats,
        cycles: u64,
        packets: usize,
        now: (u64, u64),
    ) {
        let (now_ms, tsc) = now;
        let upcalls = s.miss_ok + s.miss_failed;
        let r = Round {
            at: s.iterations,
            rounds: 1,
            cycles,
            packets: packets as u64,
            batches: s.batches - self.batches,
            upcalls: upcalls - self.upcalls,
            upcall_cycles: s.upcall_cycles - self.upcall_cycles,
        };
        (self.batches, self.upcalls, self.upcall_cycles) = (s.batches, upcalls, s.upcall_cycles);
        self.count(&r);
        self.perf.rounds.push(&r);
        add(&mut self.milli, &r);
        if tsc.wrapping_sub(self.milli_tsc) >= self.hz / 1_000 {
            self.milli_tsc = tsc;
            self.milli.at = now_ms;
            self.perf.millis.push(&self.milli);
            self.milli = Round::default();
        }
        if self.log.on {
            self.watch(&r);
        }
    }

    fn count(&self, r: &Round) {
        let mut total = self.perf.total.get();
        add(&mut total, r);
        self.perf.total.put(&total);
        let per = |a: u64, b: u64| a.checked_div(b);
        let values = [
            Some(r.cycles),
            Some(r.packets),
            per(r.cycles, r.packets),
            Some(per(r.packets, r.batches).unwrap_or(0)),
            // How full the queues of vhost ports are, no port tells.
            Some(0),
            Some(r.upcalls),
            per(r.upcall_cycles, r.upcalls),
        ];
        for (metric, value) in values.into_iter().enumerate() {
            if let Some(v) = value {
                let bin = &self.perf.bins[metric][self.walls.bin(metric, v)];
                bin.store(bin.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
        }
    }

    /// Looks for rounds that took too long, and reports them when those after are there too.
    fn watch(&mut self, r: &Round) {
        let us = r.cycles.saturating_mul(1_000_000) / self.hz.max(1);
        if us > self.log.us {
            match &mut self.pending {
                None => {
                    let first = r.at.saturating_sub(self.log.before);
                    let end = r.at + self.log.after;
                    self.pending = Some(Pending { iteration: r.at, us, first, end });
                }
                Some(p) if self.log.extend => {
                    p.end = (r.at + self.log.after).min(p.first + HISTORY as u64 - 2);
                }
                Some(_) => {}
            }
        }
        let Some(p) = self.pending.take_if(|p| r.at >= p.end) else { return };
        let n = r.at - p.first + 1;
        // Whoever reads holds it shortly; then this report is lost.
        if let Some(mut reports) = self.perf.reports.try_lock() {
            if reports.len() < MAX_REPORTS {
                let rounds = self.perf.rounds.last(n as usize);
                reports.push_back(Report { iteration: p.iteration, us: p.us, rounds });
            }
        }
        if n > LONG_REPORT {
            let d = PerfLog::default();
            (self.log.before, self.log.after, self.log.extend) = (d.before, d.after, d.extend);
        }
    }
}

fn add(sum: &mut Round, r: &Round) {
    sum.rounds += r.rounds;
    sum.cycles = sum.cycles.wrapping_add(r.cycles);
    sum.packets += r.packets;
    sum.batches += r.batches;
    sum.upcalls += r.upcalls;
    sum.upcall_cycles = sum.upcall_cycles.wrapping_add(r.upcall_cycles);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::PmdStats;

    #[test]
    fn bins_are_those_of_the_listings() {
        let w = Walls::new();
        assert_eq!(w.of(0)[..9], [499, 716, 1025, 1469, 2104, 3014, 4317, 6183, 8857]);
        assert_eq!(w.of(0)[27..], [8_167_461, 11_698_454, 16_755_981, 24_000_000]);
        assert_eq!(w.of(1)[9..18], [9, 10, 11, 13, 17, 22, 28, 35, 45]);
        assert_eq!(w.of(1)[28..], [621, 788, 1000]);
        assert_eq!(w.of(2)[..3], [100, 1096, 2093]);
        assert_eq!(w.of(3)[13..18], [13, 14, 16, 17, 18]);
        assert_eq!(w.of(4)[12..18], [12, 13, 16, 20, 25, 31]);
        assert_eq!(w.of(5)[30], 30);
        assert_eq!(w.of(6)[..4], [999, 1258, 1584, 1995]);
        assert_eq!((w.bin(1, 0), w.bin(1, 12), w.bin(1, 1000), w.bin(1, 1001)), (0, 12, 30, 31));
    }

    fn recorder(log: PerfLog) -> (Arc<Perf>, Recorder) {
        let perf = Arc::new(Perf::new());
        let mut r = Recorder::new(Arc::clone(&perf), 1_000_000);
        r.set_log(log);
        (perf, r)
    }

    #[test]
    fn rounds_and_milliseconds() {
        let (perf, mut r) = recorder(PerfLog::default());
        let mut s = PmdStats { iterations: 10, batches: 5, miss_ok: 2, ..PmdStats::default() };
        r.begin(&s, 0);
        for i in 0..3 {
            s.iterations += 1;
            s.batches += 1;
            s.miss_ok += 1;
            s.upcall_cycles += 3_000;
            r.record(&s, 640, 32, (7, 600 * (i + 1)));
        }
        let want = Round {
            at: 13,
            rounds: 1,
            cycles: 640,
            packets: 32,
            batches: 1,
            upcalls: 1,
            upcall_cycles: 3_000,
        };
        assert_eq!(perf.last_rounds(1), [want]);
        assert_eq!(perf.last_rounds(9).len(), 3);
        let ms = perf.last_millis(9);
        assert_eq!((ms.len(), ms[0].at, ms[0].rounds, ms[0].packets), (1, 7, 2, 64));
        assert_eq!((perf.counts(3)[30], perf.counts(2)[0], perf.counts(0)[1]), (3, 3, 3));
        assert_eq!(perf.total().packets, 96);
        r.clear();
        assert_eq!((perf.total(), perf.last_rounds(5).len(), perf.counts(3)[30]), (Round::default(), 0, 0));
        for _ in 0..HISTORY + 5 {
            s.iterations += 1;
            r.record(&s, 1, 0, (8, 0));
        }
        let all = perf.last_rounds(usize::MAX);
        assert_eq!((all.len(), all[0].at - all[HISTORY - 1].at), (HISTORY, HISTORY as u64 - 1));
    }

    fn run(r: &mut Recorder, s: &mut PmdStats, cycles: &[u64]) {
        for c in cycles {
            s.iterations += 1;
            r.record(s, *c, 0, (0, 0));
        }
    }

    #[test]
    fn long_rounds_are_reported_with_their_neighbours() {
        let log = PerfLog { on: true, before: 2, after: 2, us: 20, ..PerfLog::default() };
        let (perf, mut r) = recorder(log);
        let mut s = PmdStats::default();
        run(&mut r, &mut s, &[1, 2, 3, 40, 5]);
        assert!(perf.take_reports().is_empty());
        run(&mut r, &mut s, &[50, 7, 8, 60, 9]);
        let reports = perf.take_reports();
        assert_eq!((reports.len(), reports[0].iteration, reports[0].us), (1, 4, 40));
        assert_eq!(reports[0].rounds.iter().map(|r| r.cycles).collect::<Vec<_>>(), [50, 5, 40, 3, 2]);
        // The one that was pending when settings change is forgotten.
        r.set_log(PerfLog { extend: true, ..log });
        run(&mut r, &mut s, &[30, 1, 31, 1]);
        assert!(perf.take_reports().is_empty());
        run(&mut r, &mut s, &[1]);
        assert_eq!(perf.take_reports()[0].rounds.len(), 7);
    }

    #[test]
    fn endless_reports_end() {
        let mut log = PerfLog { on: true, us: 0, ..PerfLog::default() };
        log.set_before(5_000);
        assert_eq!((log.before, log.after), (998, 0));
        log.set_before(5);
        log.set_after(5_000);
        assert_eq!((log.before, log.after), (5, 993));
        let (perf, mut r) = recorder(log);
        let mut s = PmdStats::default();
        run(&mut r, &mut s, &[9; 3_000]);
        let lens: Vec<usize> = perf.take_reports().iter().map(|r| r.rounds.len()).collect();
        assert_eq!(lens[..3], [994, 11, 11], "{lens:?}");
        assert_eq!(lens.len(), MAX_REPORTS);
    }
}

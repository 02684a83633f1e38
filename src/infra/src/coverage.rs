//! Event counters (`coverage/show`): each thread counts in cells of its own,
//! which readers sum up; no line is shared between writers.
//!
//! Declare a counter as a `static`, or several with [`counters!`](crate::counters), and call [`Counter::inc`]. A
//! thread's first count allocates its cells: PMDs call [`register_thread`] before they start. Names that Open vSwitch
//! has too count what they count there.

use crate::vlog::{Level, Module, RateLimit};
use parking_lot::Mutex;
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

/// The most counters a process can have; later ones share the last cell.
const MAX_COUNTERS: usize = 512;
/// Milliseconds between two readings of the rates.
pub const RUN_INTERVAL_MS: i64 = 5_000;
const MIN_SLOTS: usize = 12;
const HOUR_SLOTS: usize = 60;

/// A named event counter.
pub struct Counter {
    name: &'static str,
    /// Index of the cell plus one; 0 before the first use.
    id: AtomicU32,
}

/// Declares counters, and a function `register` that makes them known before their first event.
#[macro_export]
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        $($(#[$doc])*
        pub static $name: $crate::coverage::Counter = $crate::coverage::Counter::new($text);)*

        /// Makes the counters known before their first event.
        pub fn register() {
            $($name.register();)*
        }
    };
}

struct Block(Box<[AtomicU64; MAX_COUNTERS]>);

impl Block {
    fn new() -> Self {
        Block(Box::new([const { AtomicU64::new(0) }; MAX_COUNTERS]))
    }
}

#[derive(Default)]
struct History {
    name: &'static str,
    /// The total at the last reading.
    last: u64,
    recent: u64,
    minute: Vec<u64>,
    hour: Vec<u64>,
}

struct Registry {
    counters: Vec<History>,
    blocks: Vec<Arc<Block>>,
    /// What threads that ended had counted.
    ended: Vec<u64>,
    next_run: i64,
    minute_index: usize,
    hour_index: usize,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    counters: Vec::new(),
    blocks: Vec::new(),
    ended: Vec::new(),
    next_run: 0,
    minute_index: 0,
    hour_index: 0,
});

/// This thread's cells; folds them into the ended totals when the thread ends.
struct Local(Arc<Block>);

impl Local {
    fn new() -> Self {
        let block = Arc::new(Block::new());
        REGISTRY.lock().blocks.push(Arc::clone(&block));
        Local(block)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        registry.blocks.retain(|b| !Arc::ptr_eq(b, &self.0));
        for i in 0..registry.counters.len() {
            let count = self.0 .0[i].load(Ordering::Relaxed);
            registry.ended[i] += count;
        }
    }
}

thread_local! {
    static LOCAL: OnceCell<Local> = const { OnceCell::new() };
}

/// Allocates this thread's cells, so that counting never allocates.
pub fn register_thread() {
    let _ = LOCAL.try_with(|l| {
        l.get_or_init(Local::new);
    });
}

impl Counter {
    /// A counter; it appears in `coverage/show` once it was used or registered.
    pub const fn new(name: &'static str) -> Self {
        Counter { name, id: AtomicU32::new(0) }
    }

    /// Makes the counter known before its first event.
    #[cold]
    pub fn register(&self) -> usize {
        let mut registry = REGISTRY.lock();
        let id = self.id.load(Ordering::Relaxed);
        if id != 0 {
            return id as usize - 1;
        }
        let index = match registry.counters.iter().position(|c| c.name == self.name) {
            Some(index) => index,
            None if registry.counters.len() < MAX_COUNTERS => {
                registry.counters.push(History {
                    name: self.name,
                    minute: vec![0; MIN_SLOTS],
                    hour: vec![0; HOUR_SLOTS],
                    ..History::default()
                });
                registry.ended.push(0);
                registry.counters.len() - 1
            }
            None => MAX_COUNTERS - 1,
        };
        self.id.store(index as u32 + 1, Ordering::Relaxed);
        index
    }

    /// Counts one event.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n` events.
    #[inline]
    pub fn add(&self, n: u64) {
        let id = self.id.load(Ordering::Relaxed);
        let index = if id == 0 { self.register() } else { id as usize - 1 };
        let _ = LOCAL.try_with(|local| {
            let cell = &local.get_or_init(Local::new).0 .0[index];
            // Only this thread writes the cell, so load and store suffice.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        });
    }

    /// The sum over all threads.
    pub fn total(&self) -> u64 {
        let index = self.register();
        REGISTRY.lock().total(index)
    }
}

impl Registry {
    fn total(&self, index: usize) -> u64 {
        let live: u64 = self.blocks.iter().map(|b| b.0[index].load(Ordering::Relaxed)).sum();
        self.ended[index] + live
    }
}

/// Takes readings for the rates; call it every turn of the main loop.
pub fn run(now_ms: i64) {
    let mut registry = REGISTRY.lock();
    let registry = &mut *registry;
    if registry.next_run == 0 {
        registry.next_run = now_ms + RUN_INTERVAL_MS;
    }
    if now_ms < registry.next_run {
        return;
    }
    // After a long pause its events are spread evenly over the intervals missed.
    let slots = ((now_ms - registry.next_run) / RUN_INTERVAL_MS + 1) as usize;
    registry.next_run += slots as i64 * RUN_INTERVAL_MS;
    let slots = slots.min(MIN_SLOTS * HOUR_SLOTS);
    let totals: Vec<u64> = (0..registry.counters.len()).map(|i| registry.total(i)).collect();
    for (counter, total) in registry.counters.iter_mut().zip(totals) {
        let count = total.saturating_sub(counter.last);
        counter.last = total;
        let share = count / slots as u64;
        counter.recent = share;
        for i in 0..slots {
            let count = if i == 0 { count - share * (slots as u64 - 1) } else { share };
            let minute = (registry.minute_index + i) % MIN_SLOTS;
            let hour = (registry.hour_index + (registry.minute_index + i) / MIN_SLOTS) % HOUR_SLOTS;
            counter.minute[minute] = count;
            if minute == 0 {
                counter.hour[hour] = 0;
            }
            counter.hour[hour] += count;
        }
    }
    let minutes = registry.minute_index + slots;
    registry.minute_index = minutes % MIN_SLOTS;
    registry.hour_index = (registry.hour_index + minutes / MIN_SLOTS) % HOUR_SLOTS;
}

/// When [`run`] wants to be called next.
pub fn next_run() -> i64 {
    REGISTRY.lock().next_run
}

/// The text of `coverage/show`.
pub fn show() -> String {
    text().0
}

/// Says in the log what happened so far, but the details of the same set of events only once.
pub fn log() {
    static LOG: Module = Module::new("coverage");
    static LIMIT: RateLimit = RateLimit::new(60, 3);
    static LOGGED: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    if !LOG.enabled(Level::Info) {
        return;
    }
    let (text, hash) = text();
    let mut logged = LOGGED.lock();
    if logged.contains(&hash) {
        let told = format_args!("Skipping details of duplicate event coverage for hash={hash:08x}");
        LOG.log_limited(&LIMIT, Level::Info, told);
        return;
    }
    if logged.len() < MAX_COUNTERS {
        logged.push(hash);
    }
    drop(logged);
    text.lines().for_each(|line| LOG.log(Level::Info, format_args!("{line}")));
}

/// The report, and a number for the set of events in it.
fn text() -> (String, u32) {
    let registry = REGISTRY.lock();
    let mut order: Vec<usize> = (0..registry.counters.len()).collect();
    order.sort_by_key(|&i| registry.counters[i].name);
    let mut never = 0;
    let mut lines = String::new();
    let mut hash: u32 = 0x811c_9dc5;
    for i in order {
        let counter = &registry.counters[i];
        let total = registry.total(i);
        if total == 0 {
            never += 1;
            continue;
        }
        for byte in counter.name.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        let minute: u64 = counter.minute.iter().sum();
        let hour: u64 = counter.hour.iter().sum();
        let _ = writeln!(
            lines,
            "{:<24} {:5.1}/sec {:9.3}/sec {:13.4}/sec   total: {total}",
            counter.name,
            counter.recent as f64 / (RUN_INTERVAL_MS as f64 / 1000.0),
            minute as f64 / 60.0,
            hour as f64 / 3600.0,
        );
    }
    let text = format!(
        "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash={hash:08x}:\n\
         {lines}{never} events never hit\n"
    );
    (text, hash)
}

/// The total of a counter by name (`coverage/read-counter`).
pub fn read(name: &str) -> Option<u64> {
    let registry = REGISTRY.lock();
    let index = registry.counters.iter().position(|c| c.name == name)?;
    Some(registry.total(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_threads_and_rates() {
        static EVENTS: Counter = Counter::new("test_events");
        static UNUSED: Counter = Counter::new("test_unused");
        UNUSED.register();
        run(1_000);
        EVENTS.inc();
        std::thread::spawn(|| EVENTS.add(9)).join().unwrap();
        assert_eq!(EVENTS.total(), 10);
        assert_eq!(read("test_events"), Some(10));
        assert_eq!(read("nothing"), None);
        run(6_000);
        let text = show();
        assert!(
            text.contains("test_events                2.0/sec     0.167/sec        0.0028/sec   total: 10\n"),
            "{text}"
        );
        assert!(text.ends_with("1 events never hit\n"), "{text}");
        run(1_000_000);
        assert!(show().contains("test_events                0.0/sec     0.000/sec"));
    }
}

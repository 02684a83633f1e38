//! Stopwatches: how long the parts of a loop take, as `stopwatch/show` tells it. The loop's own thread adds samples;
//! any thread reads. Off the PMDs.

use parking_lot::Mutex;
use std::fmt::Write as _;

/// Buckets of the distribution: 16 for each power of two.
const STEPS: usize = 16;
const BUCKETS: usize = 40 * STEPS;
/// Weights of a new sample in the averages.
const SHORT: f64 = 0.5;
const LONG: f64 = 0.01;

struct Samples {
    count: u64,
    min: u64,
    max: u64,
    short: f64,
    long: f64,
    buckets: Vec<u32>,
}

impl Samples {
    const fn new() -> Self {
        Samples { count: 0, min: 0, max: 0, short: 0.0, long: 0.0, buckets: Vec::new() }
    }

    fn add(&mut self, value: u64) {
        if self.count == 0 {
            (self.min, self.short, self.long) = (value, value as f64, value as f64);
            self.buckets = vec![0; BUCKETS];
        }
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.short += (value as f64 - self.short) * SHORT;
        self.long += (value as f64 - self.long) * LONG;
        let bucket = &mut self.buckets[bucket(value)];
        *bucket = bucket.saturating_add(1);
    }

    /// The value that 95 of 100 samples do not exceed, as exactly as the buckets tell.
    fn percentile_95(&self) -> f64 {
        let total: u64 = self.buckets.iter().map(|n| u64::from(*n)).sum();
        let mut left = (total * 95).div_ceil(100);
        for (i, n) in self.buckets.iter().enumerate() {
            left = left.saturating_sub(u64::from(*n));
            if left == 0 {
                return value(i).clamp(self.min as f64, self.max as f64);
            }
        }
        self.max as f64
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    let step = (value >> (power - 4)) as usize & (STEPS - 1);
    ((power - 3) * STEPS + step).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn value(bucket: usize) -> f64 {
    if bucket < STEPS {
        return bucket as f64;
    }
    let width = (1u64 << (bucket / STEPS - 1)) as f64;
    width * (STEPS + bucket % STEPS) as f64 + (width - 1.0) / 2.0
}

/// A named stopwatch of microseconds, declared as a `static` by the code that measures.
pub struct Stopwatch {
    name: &'static str,
    samples: Mutex<Samples>,
}

impl Stopwatch {
    /// A stopwatch without samples.
    pub const fn new(name: &'static str) -> Self {
        Stopwatch { name, samples: Mutex::new(Samples::new()) }
    }

    /// Adds a sample.
    pub fn add_us(&self, us: u64) {
        self.samples.lock().add(us);
    }

    /// Measures how long `work` takes.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = crate::clock::real_ns();
        let result = work();
        self.add_us((crate::clock::real_ns() - start) / 1_000);
        result
    }

    fn show(&self, out: &mut String) {
        let s = self.samples.lock();
        let _ = write!(
            out,
            "Statistics for '{}'\n  Total samples: {}\n  Maximum: {} usec\n  Minimum: {} usec\n  \
             95th percentile: {:.6} usec\n  Short term average: {:.6} usec\n  Long term average: {:.6} usec\n",
            self.name,
            s.count,
            s.max,
            s.min,
            s.percentile_95(),
            s.short,
            s.long
        );
    }
}

/// The stopwatches of a program.
pub type All = &'static [&'static Stopwatch];

fn chosen(all: All, name: Option<&str>) -> Result<Vec<&'static Stopwatch>, String> {
    let found: Vec<_> = all.iter().copied().filter(|s| name.is_none_or(|n| n == s.name)).collect();
    if found.is_empty() {
        return Err("No such stopwatch".to_string());
    }
    Ok(found)
}

/// The text of `stopwatch/show [NAME]`.
pub fn show(all: All, name: Option<&str>) -> Result<String, String> {
    let mut out = String::new();
    chosen(all, name)?.iter().for_each(|s| s.show(&mut out));
    Ok(out)
}

/// `stopwatch/reset [NAME]`.
pub fn reset(all: All, name: Option<&str>) -> Result<String, String> {
    chosen(all, name)?.iter().for_each(|s| *s.samples.lock() = Samples::new());
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: Stopwatch = Stopwatch::new("one");
    static TWO: Stopwatch = Stopwatch::new("two");
    static ALL: All = &[&ONE, &TWO];

    #[test]
    fn statistics() {
        for us in 1..=1000 {
            ONE.add_us(us);
        }
        let text = show(ALL, Some("one")).unwrap();
        assert!(text.starts_with(
            "Statistics for 'one'\n  Total samples: 1000\n  Maximum: 1000 usec\n  Minimum: 1 usec\n"
        ));
        let percentile = ONE.samples.lock().percentile_95();
        assert!((percentile - 950.0).abs() < 950.0 / 16.0, "{percentile}");
        assert!(text.contains("  Short term average: 999.000000 usec\n"), "{text}");
        assert_eq!(show(ALL, None).unwrap().matches("Statistics for").count(), 2);
        assert_eq!(show(ALL, Some("three")), Err("No such stopwatch".into()));
        reset(ALL, None).unwrap();
        assert!(show(ALL, Some("one")).unwrap().contains("Total samples: 0\n  Maximum: 0 usec\n"));
    }

    /// A bucket's middle lies in the bucket, and buckets are in order.
    #[test]
    fn buckets() {
        for v in (0..10_000).chain([u64::MAX, 1 << 39, 123_456_789]) {
            let b = bucket(v);
            assert!(b <= bucket(v.saturating_add(1)));
            if b < BUCKETS - 1 {
                assert_eq!(bucket(value(b) as u64), b, "{v}");
            }
        }
    }
}

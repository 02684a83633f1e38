//! Rate limits of log messages: one token bucket per call site.

use parking_lot::Mutex;

/// Tokens that one message costs: a rate of one a minute adds one a millisecond.
const COST: u64 = 60_000;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Log, and say first how many were lost: `first` and `last` are the ages
    /// in seconds of the first and the latest of them.
    PassAfter {
        dropped: u32,
        first: i64,
        last: i64,
    },
    Drop,
}

struct Bucket {
    tokens: u64,
    filled_at: Option<i64>,
    dropped: u32,
    first_dropped: i64,
    last_dropped: i64,
}

/// A limit for one kind of message, declared as a `static` where it is logged.
pub struct RateLimit {
    rate: u32,
    burst: u32,
    bucket: Mutex<Bucket>,
}

impl RateLimit {
    /// Lets `rate` messages a minute through, after a burst of up to `burst`.
    pub const fn new(rate: u32, burst: u32) -> Self {
        let bucket = Bucket { tokens: 0, filled_at: None, dropped: 0, first_dropped: 0, last_dropped: 0 };
        RateLimit { rate, burst, bucket: Mutex::new(bucket) }
    }

    pub(super) fn admit(&self, now_ms: i64) -> Verdict {
        let mut b = self.bucket.lock();
        let full = u64::from(self.burst.max(1)) * COST;
        b.tokens = match b.filled_at {
            None => full,
            Some(at) => {
                let elapsed = now_ms.saturating_sub(at).max(0) as u64;
                full.min(b.tokens.saturating_add(elapsed.saturating_mul(u64::from(self.rate))))
            }
        };
        b.filled_at = Some(now_ms);
        if b.tokens < COST {
            if b.dropped == 0 {
                b.first_dropped = now_ms;
            }
            b.last_dropped = now_ms;
            b.dropped = b.dropped.saturating_add(1);
            return Verdict::Drop;
        }
        b.tokens -= COST;
        match std::mem::take(&mut b.dropped) {
            0 => Verdict::Pass,
            dropped => Verdict::PassAfter {
                dropped,
                first: (now_ms - b.first_dropped) / 1000,
                last: (now_ms - b.last_dropped) / 1000,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_then_rate() {
        let limit = RateLimit::new(60, 2);
        assert_eq!(limit.admit(0), Verdict::Pass);
        assert_eq!(limit.admit(0), Verdict::Pass);
        assert_eq!(limit.admit(0), Verdict::Drop);
        assert_eq!(limit.admit(500), Verdict::Drop);
        assert_eq!(limit.admit(5_000), Verdict::PassAfter { dropped: 2, first: 5, last: 4 });
        assert_eq!(limit.admit(5_000), Verdict::Pass);
        assert_eq!(limit.admit(5_000), Verdict::Drop);
    }
}

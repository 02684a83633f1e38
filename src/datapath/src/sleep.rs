//! Sleep of PMDs with little to do (`pmd-maxsleep`).
//!
//! After each round in which no queue gave half a burst, the thread may sleep a microsecond longer, up to the
//! maximum; a queue that gives more ends that. Without a maximum there is no system call.
//! Neighbours: `thread` asks after each round. Threads: owned by one.

use std::time::Duration;

/// Packets of one queue that tell of load.
pub(crate) const BUSY: usize = packet::BATCH_SIZE / 2;
/// What is added each round, microseconds.
const STEP_US: u32 = 1;

/// How long a thread sleeps after a round.
#[derive(Default)]
pub(crate) struct Sleep {
    max_us: u32,
    us: u32,
}

impl Sleep {
    pub(crate) fn set_max(&mut self, us: u32) {
        self.max_us = us;
        self.us = self.us.min(us);
    }

    /// Whether the thread ever sleeps.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.max_us != 0
    }

    /// How long to sleep after a round in which the fullest queue gave `most` packets.
    pub(crate) fn after(&mut self, most: usize) -> Option<Duration> {
        if most >= BUSY {
            self.us = 0;
            return None;
        }
        self.us = (self.us + STEP_US).min(self.max_us);
        Some(Duration::from_micros(self.us.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_while_there_is_little_to_do() {
        let mut s = Sleep::default();
        assert!(!s.is_on());
        s.set_max(3);
        assert!(s.is_on());
        let mut us = |most| s.after(most).map(|d| d.as_micros());
        assert_eq!([us(0), us(15), us(0), us(0)], [Some(1), Some(2), Some(3), Some(3)]);
        assert_eq!([us(16), us(32), us(1)], [None, None, Some(1)]);
        s.set_max(0);
        assert!(!s.is_on());
    }
}

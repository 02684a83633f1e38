//! The one clock: monotonic time for timers, wall time for people, and the
//! time-stamp counter for cycle accounts.
//!
//! State machines take "now" as a parameter; only loops ask this module. The
//! monotonic clock can be stopped and warped (`time/stop`, `time/warp`), which
//! moves every timer of the process at once. Any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// A deadline that never comes.
pub const NEVER: i64 = i64::MAX;

/// Nanoseconds at which the clock was stopped; 0 while it runs.
static STOPPED_AT: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds added by warps.
static OFFSET: AtomicU64 = AtomicU64::new(0);

fn gettime(id: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec for the duration of the call.
    unsafe { libc::clock_gettime(id, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// Monotonic nanoseconds, as stopped and warped.
#[inline]
pub fn now_ns() -> u64 {
    let stopped = STOPPED_AT.load(Ordering::Relaxed);
    let base = if stopped == 0 { gettime(libc::CLOCK_MONOTONIC) } else { stopped };
    base.saturating_add(OFFSET.load(Ordering::Relaxed))
}

/// Monotonic microseconds.
#[inline]
pub fn now_us() -> u64 {
    now_ns() / 1_000
}

/// Monotonic milliseconds: the unit of all timers off the PMDs.
#[inline]
pub fn now_ms() -> i64 {
    (now_ns() / 1_000_000) as i64
}

/// Monotonic nanoseconds of the machine, whatever was stopped or warped.
pub fn real_ns() -> u64 {
    gettime(libc::CLOCK_MONOTONIC)
}

/// Milliseconds since the epoch.
pub fn wall_ms() -> i64 {
    (gettime(libc::CLOCK_REALTIME) / 1_000_000) as i64
}

/// Seconds since the epoch.
pub fn wall_sec() -> i64 {
    wall_ms() / 1000
}

/// Nanoseconds since the epoch.
pub fn wall_ns() -> u64 {
    gettime(libc::CLOCK_REALTIME)
}

/// Stops the monotonic clock; it then moves only by [`warp`].
pub fn stop() {
    let now = gettime(libc::CLOCK_MONOTONIC);
    let _ = STOPPED_AT.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
}

/// True after [`stop`].
pub fn is_stopped() -> bool {
    STOPPED_AT.load(Ordering::Relaxed) != 0
}

/// Moves the monotonic clock forward.
pub fn warp(ms: u64) {
    OFFSET.fetch_add(ms.saturating_mul(1_000_000), Ordering::Relaxed);
}

/// Cycles of this core's time-stamp counter (nanoseconds where there is none).
#[inline]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 CPU has RDTSC; it has no memory effects.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        gettime(libc::CLOCK_MONOTONIC)
    }
}

/// Cycles a second of [`tsc`], measured once; the first call takes about 10 ms.
pub fn tsc_hz() -> u64 {
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let (t0, c0) = (real_ns(), tsc());
        let mut t1 = real_ns();
        while t1 - t0 < 10_000_000 {
            std::hint::spin_loop();
            t1 = real_ns();
        }
        let cycles = tsc().wrapping_sub(c0);
        (u128::from(cycles) * 1_000_000_000 / u128::from(t1 - t0)).max(1) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_move_forward() {
        let a = now_ns();
        assert!(now_ns() >= a);
        assert!(wall_ms() > 1_500_000_000_000);
        assert!(tsc_hz() > 1_000_000);
    }
}

//! `Seq`: a number that changes whenever something happened, and that threads
//! and main loops can wait on. Any thread; PMDs may call `change` only when
//! nobody is expected to wait long (it may write to an eventfd).

use crate::waker::Waker;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sequence number with waiters.
#[derive(Default)]
pub struct Seq {
    value: AtomicU64,
    waiters: Mutex<Vec<Waker>>,
    changed: Condvar,
}

impl Seq {
    /// A sequence number that starts at 1, so that 0 is "never read".
    pub const fn new() -> Self {
        Seq { value: AtomicU64::new(1), waiters: Mutex::new(Vec::new()), changed: Condvar::new() }
    }

    /// The present value. Read it *before* the state that it guards.
    #[inline]
    pub fn read(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    /// Says that something changed: wakes all who wait for the present value.
    pub fn change(&self) {
        self.value.fetch_add(1, Ordering::AcqRel);
        let woken = std::mem::take(&mut *self.waiters.lock());
        self.changed.notify_all();
        for waker in woken {
            waker.wake();
        }
    }

    /// Asks that `waker` be woken once the value is no longer `seen`; wakes at
    /// once if that is so already. One change serves one registration.
    pub fn wake_on_change(&self, seen: u64, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        if self.read() != seen {
            drop(waiters);
            waker.wake();
        } else if !waiters.iter().any(|w| w.fd() == waker.fd()) {
            waiters.push(waker.clone());
        }
    }

    /// Blocks this thread until the value is not `seen`, or `timeout` passes.
    /// Returns the value.
    pub fn wait(&self, seen: u64, timeout: Option<Duration>) -> u64 {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut guard = self.waiters.lock();
        while self.read() == seen {
            match deadline {
                Some(at) => {
                    if self.changed.wait_until(&mut guard, at).timed_out() {
                        break;
                    }
                }
                None => self.changed.wait(&mut guard),
            }
        }
        self.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn waits_for_change_and_wakes_pollers() {
        let seq = Arc::new(Seq::new());
        let seen = seq.read();
        let waker = Waker::new().unwrap();
        seq.wake_on_change(seen, &waker);
        let other = Arc::clone(&seq);
        let thread = std::thread::spawn(move || other.wait(seen, None));
        seq.change();
        assert_ne!(thread.join().unwrap(), seen);
        let mut fds = [libc::pollfd { fd: waker.fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) }, 1);
        assert_eq!(seq.wait(seq.read(), Some(Duration::from_millis(1))), seen + 1);
    }
}

//! The waiting half of a loop: every part registers descriptors, deadlines and
//! sequence numbers, then one [`Poller::block`] sleeps until something is due.
//!
//! Parts try their work without blocking on every turn, so nothing is lost if
//! they wake for somebody else's reason. One `Poller` belongs to one thread.

use crate::clock;
use crate::coverage::Counter;
use crate::seq::Seq;
use crate::waker::Waker;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;

static NODES: Counter = Counter::new("poll_create_node");
static ZERO: Counter = Counter::new("poll_zero_timeout");

/// Why [`Poller::block`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A descriptor became ready, with the events it reported.
    Fd(RawFd, i16),
    /// The earliest deadline came; the timeout that was asked for, in ms.
    Timeout(i64),
    /// A waker or a sequence number fired.
    Woken,
    /// A signal interrupted the wait.
    Interrupted,
}

/// What ended a wait, and the code that had asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// The reason.
    pub cause: Cause,
    /// Where the registration was made.
    pub at: &'static Location<'static>,
    /// How long the wait took, in ms.
    pub waited_ms: i64,
}

/// Collects what a loop waits for.
pub struct Poller {
    /// Borrowed until the end of [`Poller::block`], which forgets them.
    fds: Vec<PollFd<'static>>,
    places: Vec<&'static Location<'static>>,
    deadline: i64,
    deadline_at: &'static Location<'static>,
    waker: Waker,
}

impl Poller {
    /// A poller with a waker of its own.
    #[track_caller]
    pub fn new() -> io::Result<Self> {
        Ok(Poller {
            fds: Vec::new(),
            places: Vec::new(),
            deadline: clock::NEVER,
            deadline_at: Location::caller(),
            waker: Waker::new()?,
        })
    }

    /// A handle that ends this poller's present or next wait, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for `events` (POLLIN, POLLOUT) on `fd`.
    #[track_caller]
    pub fn fd(&mut self, fd: RawFd, events: i16) {
        if fd < 0 {
            return;
        }
        // SAFETY: the number is not -1. It is only ever handed to poll(2), and forgotten before `block` returns: if
        // its owner closes it meanwhile, the kernel reports POLLNVAL and nothing else is touched.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        self.fds.push(PollFd::from_borrowed_fd(borrowed, PollFlags::from_bits_retain(events as _)));
        self.places.push(Location::caller());
    }

    /// Waits until `fd` can be read.
    #[track_caller]
    pub fn fd_in(&mut self, fd: RawFd) {
        self.fd(fd, libc::POLLIN);
    }

    /// Waits until `fd` can be written.
    #[track_caller]
    pub fn fd_out(&mut self, fd: RawFd) {
        self.fd(fd, libc::POLLOUT);
    }

    /// Wakes no later than at the monotonic time `at_ms`.
    #[track_caller]
    pub fn timer_until(&mut self, at_ms: i64) {
        if at_ms < self.deadline {
            self.deadline = at_ms;
            self.deadline_at = Location::caller();
        }
    }

    /// Wakes no later than in `ms` milliseconds.
    #[track_caller]
    pub fn timer_in(&mut self, ms: i64) {
        self.timer_until(clock::now_ms().saturating_add(ms.max(0)));
    }

    /// Does not sleep at all this time.
    #[track_caller]
    pub fn immediate(&mut self) {
        self.timer_until(i64::MIN);
    }

    /// Wakes once `seq` is no longer `seen`.
    pub fn seq(&mut self, seq: &Seq, seen: u64) {
        seq.wake_on_change(seen, &self.waker);
    }

    /// The timeout for poll(2): -1 for ever. While the clock is stopped only a
    /// deadline that has come ends the wait.
    fn timeout(&self) -> i32 {
        if self.deadline == clock::NEVER {
            return -1;
        }
        let left = self.deadline.saturating_sub(clock::now_ms());
        if left <= 0 {
            0
        } else if clock::is_stopped() {
            -1
        } else {
            left.min(i64::from(i32::MAX)) as i32
        }
    }

    /// Sleeps until something registered is due, then forgets the registrations.
    pub fn block(&mut self) -> Wake {
        let own = Location::caller();
        self.fd_in(self.waker.fd());
        let timeout = self.timeout();
        NODES.add(self.fds.len() as u64);
        if timeout == 0 {
            ZERO.inc();
        }
        let limit =
            Timespec { tv_sec: i64::from(timeout / 1000), tv_nsec: i64::from(timeout % 1000) * 1_000_000 };
        let start = clock::real_ns();
        let ready = poll(&mut self.fds, (timeout >= 0).then_some(&limit));
        let waited_ms = (clock::real_ns().saturating_sub(start) / 1_000_000) as i64;
        let (cause, at) = match ready {
            Err(_) => (Cause::Interrupted, own),
            Ok(0) => (Cause::Timeout(i64::from(timeout)), self.deadline_at),
            Ok(_) => {
                let hit = self.fds.iter().position(|p| !p.revents().is_empty()).unwrap_or(0);
                if hit == self.fds.len() - 1 {
                    (Cause::Woken, own)
                } else {
                    let events = self.fds[hit].revents().bits() as i16;
                    (Cause::Fd(self.fds[hit].as_fd().as_raw_fd(), events), self.places[hit])
                }
            }
        };
        if ready.is_ok() && self.fds.last().is_some_and(|p| !p.revents().is_empty()) {
            self.waker.drain();
        }
        self.fds.clear();
        self.places.clear();
        self.deadline = clock::NEVER;
        Wake { cause, at, waited_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_for_each_reason() {
        let mut p = Poller::new().unwrap();
        p.immediate();
        assert_eq!(p.block().cause, Cause::Timeout(0));
        p.timer_in(1);
        p.timer_in(100_000);
        assert!(matches!(p.block().cause, Cause::Timeout(_)));
        let waker = p.waker();
        let thread = std::thread::spawn(move || waker.wake());
        assert_eq!(p.block().cause, Cause::Woken);
        thread.join().unwrap();
        let seq = Seq::new();
        let seen = seq.read();
        seq.change();
        p.seq(&seq, seen);
        assert_eq!(p.block().cause, Cause::Woken);
        let w = Waker::new().unwrap();
        w.wake();
        p.fd_in(w.fd());
        assert_eq!(p.block().cause, Cause::Fd(w.fd(), libc::POLLIN));
    }
}

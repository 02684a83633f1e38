//! Wait-free single-producer single-consumer rings (rtrb), and a variant whose
//! consumer may sleep. The producer of either may be a PMD: it pays a system
//! call only if the consumer said that it sleeps.

pub use rtrb::{chunks, Consumer, PeekError, PopError, Producer, PushError, RingBuffer};

use crate::waker::Waker;
use std::io;
use std::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::Arc;

struct Shared {
    sleeping: AtomicBool,
    waker: Waker,
}

/// Producer end of a wakeable ring.
pub struct WakeProducer<T> {
    ring: Producer<T>,
    shared: Arc<Shared>,
}

/// Consumer end of a wakeable ring.
pub struct WakeConsumer<T> {
    ring: Consumer<T>,
    shared: Arc<Shared>,
}

/// A ring of `capacity` entries whose consumer waits on its own eventfd.
pub fn wakeable<T>(capacity: usize) -> io::Result<(WakeProducer<T>, WakeConsumer<T>)> {
    Ok(wakeable_with(capacity, Waker::new()?))
}

/// A ring of `capacity` entries that wakes `waker`, which several rings may share.
pub fn wakeable_with<T>(capacity: usize, waker: Waker) -> (WakeProducer<T>, WakeConsumer<T>) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let shared = Arc::new(Shared { sleeping: AtomicBool::new(false), waker });
    (WakeProducer { ring: producer, shared: Arc::clone(&shared) }, WakeConsumer { ring: consumer, shared })
}

impl<T> WakeProducer<T> {
    /// Appends, or hands the value back if the ring is full. Wakes a sleeper.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        self.ring.push(value)?;
        // Orders our write before the look at the flag, as `prepare_sleep`
        // orders the flag before its look at the ring.
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed) && self.shared.sleeping.swap(false, Ordering::AcqRel)
        {
            self.shared.waker.wake();
        }
        Ok(())
    }

    /// Free entries.
    pub fn slots(&self) -> usize {
        self.ring.slots()
    }

    /// True if the consumer is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl<T> WakeConsumer<T> {
    /// Takes the oldest entry.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.ring.slots()
    }

    /// Announces that the consumer goes to sleep on [`WakeConsumer::waker`].
    /// Returns false, and takes the announcement back, if entries wait already.
    pub fn prepare_sleep(&self) -> bool {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.ring.is_empty() {
            return true;
        }
        self.shared.sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// Says that the consumer is awake again and makes the waker quiet.
    pub fn awake(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
        self.shared.waker.drain();
    }

    /// What wakes the consumer.
    pub fn waker(&self) -> &Waker {
        &self.shared.waker
    }

    /// True if the producer is gone.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Poller;

    #[test]
    fn no_wakeup_is_lost() {
        let (mut tx, mut rx) = wakeable::<u32>(8).unwrap();
        let thread = std::thread::spawn(move || {
            let mut poller = Poller::new().unwrap();
            let mut next = 0;
            while next < 20_000 {
                while let Some(v) = rx.pop() {
                    assert_eq!(v, next);
                    next += 1;
                }
                if next < 20_000 && rx.prepare_sleep() {
                    poller.fd_in(rx.waker().fd());
                    poller.block();
                }
                rx.awake();
            }
        });
        for i in 0..20_000 {
            while tx.push(i).is_err() {
                std::thread::yield_now();
            }
        }
        thread.join().unwrap();
    }
}

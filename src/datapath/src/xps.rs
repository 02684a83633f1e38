//! Transmit queues that threads share, because there are fewer of them or because packets choose theirs by hash.
//!
//! A thread takes the queue with the fewest users when it has something to send, and gives it up when it has not sent
//! for a while; so a lock is fought over only where more threads send than there are queues. Neighbours: `tx` sends
//! through a pool, `control` makes one for each port that needs it. Threads: shared.

use flow::extract::{extract, PktMetadata};
use flow::hash::hash_5tuple;
use flow::Miniflow;
use netdev::TxQueue;
use packet::{Batch, Packet};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// After so many milliseconds without a packet a thread gives its queue up.
pub(crate) const IDLE_MS: u64 = 500;

struct Shared {
    /// None while a thread has it for itself.
    queue: Mutex<Option<Box<dyn TxQueue>>>,
    users: AtomicUsize,
}

/// All transmit queues of a port.
pub(crate) struct Pool {
    queues: Vec<Shared>,
    /// One thread chooses at a time.
    choice: Mutex<()>,
}

impl Pool {
    /// Of at least one queue. Those that threads have for themselves come later ([`Pool::put`]).
    pub(crate) fn new(queues: Vec<Option<Box<dyn TxQueue>>>) -> Pool {
        let shared = |q| Shared { queue: Mutex::new(q), users: AtomicUsize::new(0) };
        Pool { queues: queues.into_iter().map(shared).collect(), choice: Mutex::new(()) }
    }

    /// Joins the users of the queue that has the fewest.
    #[cold]
    pub(crate) fn join(&self) -> usize {
        let _turn = self.choice.lock();
        let users = |(_, q): &(usize, &Shared)| q.users.load(Ordering::Relaxed);
        let best = self.queues.iter().enumerate().min_by_key(users).map_or(0, |(i, _)| i);
        self.queues[best].users.fetch_add(1, Ordering::Relaxed);
        best
    }

    /// Leaves the users of queue `i`.
    pub(crate) fn leave(&self, i: usize) {
        let _turn = self.choice.lock();
        self.queues[i].users.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts queue `i` in, which a thread had for itself.
    pub(crate) fn put(&self, i: usize, queue: Box<dyn TxQueue>) {
        *self.queues[i].queue.lock() = Some(queue);
    }

    /// Takes queue `i` out, for one thread.
    pub(crate) fn take(&self, i: usize) -> Option<Box<dyn TxQueue>> {
        self.queues[i].queue.lock().take()
    }

    /// Sends on queue `i`, or on queue `home` while that one is not here; what the device does not take stays. Returns
    /// the longest frame it takes.
    pub(crate) fn send(&self, i: usize, home: usize, batch: &mut Batch) -> usize {
        for i in [i, home] {
            if let Some(q) = self.queues[i].queue.lock().as_mut() {
                q.send(batch);
                return q.max_frame();
            }
        }
        0
    }

    /// The queue that a packet's hash tells: the same for all packets of a connection in one direction.
    pub(crate) fn of(&self, p: &Packet) -> usize {
        let mut key = Miniflow::EMPTY;
        extract(p.data(), &PktMetadata::new(0), &mut key);
        hash_5tuple(&key, 0) as usize % self.queues.len()
    }

    /// Longest frame the device takes.
    pub(crate) fn max_frame(&self) -> usize {
        self.queues.iter().find_map(|q| Some(q.queue.lock().as_ref()?.max_frame())).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testpkt;

    struct Hole;

    impl TxQueue for Hole {
        fn send(&mut self, batch: &mut Batch) {
            batch.clear();
        }
        fn max_frame(&self) -> usize {
            1_514
        }
    }

    fn pool(n: usize) -> Pool {
        Pool::new((0..n).map(|_| Some(Box::new(Hole) as Box<dyn TxQueue>)).collect())
    }

    #[test]
    fn threads_spread_over_queues() {
        let p = pool(2);
        assert_eq!([p.join(), p.join(), p.join()], [0, 1, 0]);
        p.leave(1);
        assert_eq!(p.join(), 1);
        p.leave(0);
        p.leave(0);
        assert_eq!([p.join(), p.join()], [0, 0]);
        assert_eq!(p.max_frame(), 1_514);
    }

    #[test]
    fn another_queue_serves_for_one_that_is_away() {
        let p = pool(2);
        let send = |i, home| {
            let mut batch = Batch::new();
            batch.push(Packet::from_slice(&testpkt::udp4(1, 60))).unwrap();
            (p.send(i, home, &mut batch), batch.len())
        };
        let q = p.take(0).unwrap();
        assert!(p.take(0).is_none());
        assert_eq!((send(0, 1), p.max_frame()), ((1_514, 0), 1_514));
        let other = p.take(1).unwrap();
        assert_eq!((send(0, 1), p.max_frame()), ((0, 1), 0));
        p.put(0, q);
        p.put(1, other);
        assert_eq!(send(0, 0), (1_514, 0));
    }

    #[test]
    fn connections_keep_to_a_queue() {
        let p = pool(4);
        let of = |i: u32, len| p.of(&Packet::from_slice(&testpkt::udp4(i, len)));
        let mut seen = [false; 4];
        for i in 0..64 {
            assert_eq!(of(i, 60), of(i, 900));
            seen[of(i, 60)] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert!(p.of(&Packet::from_slice(&[])) < 4);
    }
}

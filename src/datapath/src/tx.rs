//! Transmit ports of one thread: a buffer and a queue each.
//!
//! Neighbours: `engine` and `exec` put packets in; buffers are flushed at the end of a burst or when they are full
//! or old. Threads: owned by one; a queue that several must share is behind a lock, and only that.

use crate::drops::Drop;
use crate::stats::PmdStats;
use crate::xps::Pool;
use flow::DpPort;
use infra::ring::WakeProducer;
use netdev::TxQueue;
use packet::{Batch, Packet, BATCH_SIZE};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Where the packets of a port go from this thread.
pub(crate) enum Sink {
    /// A queue of its own.
    Own(Box<dyn TxQueue>),
    /// One of a pool, while there is something to send.
    Pooled(Arc<Pool>, Option<usize>),
    /// All of a pool, by the hashes of packets; this one in place of one that is away.
    Hashed(Arc<Pool>, usize),
    /// The io thread sends them.
    Relay,
}

/// How a thread is to send to a port from now on, with the queues that are open.
pub(crate) struct Steering {
    /// The queues, but for those that threads have for themselves.
    pub(crate) pool: Arc<Pool>,
    pub(crate) hashed: bool,
    /// The queue that the thread has for itself unless packets choose; none where queues are scarce.
    pub(crate) own: Option<usize>,
}

/// A packet on its way to the io thread.
pub(crate) type Relayed = (DpPort, Packet);

/// Packets for a port that one thread dropped: on a line of its own, for a port that refuses packets refuses many.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Drops(AtomicU64);

impl Drops {
    /// How many.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts more. Called by one thread only.
    fn add(&self, n: usize) {
        self.0.store(self.get() + n as u64, Ordering::Relaxed);
    }
}

/// A port as this thread sends to it.
pub(crate) struct TxPort {
    pub(crate) no: DpPort,
    sink: Sink,
    buf: Batch,
    max_frame: usize,
    /// Cycle count when the oldest packet came in.
    since: u64,
    /// Packets this thread dropped instead of sending. Written by this thread only.
    dropped: Arc<Drops>,
}

impl TxPort {
    pub(crate) fn new(no: DpPort, sink: Sink, max_frame: usize, dropped: Arc<Drops>) -> TxPort {
        TxPort { no, sink, buf: Batch::new(), max_frame, since: 0, dropped }
    }

    #[cold]
    fn drop_n(&self, reason: Drop, n: usize, stats: &mut PmdStats) {
        stats.drop_n(reason, n);
        self.dropped.add(n);
    }

    /// Whether the device takes a frame of `len` bytes by now: its MTU may have been raised since it was asked.
    #[cold]
    fn takes_by_now(&mut self, len: usize) -> bool {
        self.max_frame = match &self.sink {
            Sink::Own(q) => q.max_frame(),
            Sink::Pooled(pool, _) | Sink::Hashed(pool, _) => pool.max_frame(),
            Sink::Relay => usize::MAX,
        };
        len <= self.max_frame
    }

    fn flush(&mut self, relay: &mut Option<WakeProducer<Relayed>>, stats: &mut PmdStats) {
        let n = self.buf.len();
        if n == 0 {
            return;
        }
        let mut batches = 1;
        // The limit is asked for again: Linux ports can change their MTU behind our back.
        match &mut self.sink {
            Sink::Own(q) => {
                q.send(&mut self.buf);
                self.max_frame = q.max_frame();
            }
            Sink::Pooled(pool, at) => {
                let i = *at.get_or_insert_with(|| pool.join());
                self.max_frame = pool.send(i, i, &mut self.buf);
            }
            Sink::Hashed(pool, home) => batches = send_by_hash(pool, *home, &mut self.buf),
            Sink::Relay => return self.relay(relay, stats),
        }
        let left = self.buf.len();
        stats.sent += (n - left) as u64;
        stats.sent_batches += batches;
        if left > 0 {
            self.buf.clear();
            self.drop_n(Drop::TxFull, left, stats);
        }
    }

    /// Gives a queue of a pool up that was not used since `before`.
    fn release(&mut self, before: u64) {
        if let Sink::Pooled(pool, at) = &mut self.sink {
            if self.since < before && self.buf.is_empty() {
                at.take().into_iter().for_each(|i| pool.leave(i));
            }
        }
    }

    /// Sends otherwise from now on. Queues go from hand to hand: none is closed, and whoever chooses by hash while some
    /// threads have not changed yet has one to send on.
    fn steer(&mut self, to: Steering) {
        let Steering { pool, hashed, own } = to;
        self.sink = match (std::mem::replace(&mut self.sink, Sink::Relay), own) {
            (Sink::Own(q), Some(i)) if hashed => {
                pool.put(i, q);
                Sink::Hashed(pool, i)
            }
            (Sink::Pooled(_, at), _) if hashed => {
                at.into_iter().for_each(|i| pool.leave(i));
                Sink::Hashed(pool, 0)
            }
            (Sink::Hashed(..), own) if !hashed => match own.and_then(|i| pool.take(i)) {
                Some(q) => Sink::Own(q),
                None => Sink::Pooled(pool, None),
            },
            (as_it_is, _) => as_it_is,
        };
    }

    #[cold]
    fn relay(&mut self, relay: &mut Option<WakeProducer<Relayed>>, stats: &mut PmdStats) {
        let mut lost = 0;
        for p in self.buf.drain() {
            match relay.as_mut().map(|r| r.push((self.no, p))) {
                Some(Ok(())) => stats.to_io += 1,
                _ => lost += 1,
            }
        }
        if lost > 0 {
            self.drop_n(Drop::IoRing, lost, stats);
        }
    }
}

/// Sends each packet on the queue of its hash, in order on each; what is not taken stays. Returns the queues used.
#[cold]
fn send_by_hash(pool: &Pool, home: usize, buf: &mut Batch) -> u64 {
    let mut to = [0; BATCH_SIZE];
    to.iter_mut().zip(buf.as_slice()).for_each(|(t, p)| *t = pool.of(p));
    let mut packets = [const { None }; BATCH_SIZE];
    packets.iter_mut().zip(buf.drain()).for_each(|(slot, p)| *slot = Some(p));
    let mut queues = 0;
    for i in 0..BATCH_SIZE {
        if packets[i].is_none() {
            continue;
        }
        let mut mine = Batch::new();
        for (slot, _) in packets.iter_mut().zip(to).skip(i).filter(|(_, t)| *t == to[i]) {
            // As many as a batch holds, at most.
            slot.take().into_iter().for_each(|p| drop(mine.push(p)));
        }
        pool.send(to[i], home, &mut mine);
        queues += 1;
        mine.drain().for_each(|p| drop(buf.push(p)));
    }
    queues
}

/// All transmit ports of a thread, by number.
pub(crate) struct TxPorts {
    ports: Vec<Option<Box<TxPort>>>,
    /// Ports whose buffers hold packets.
    dirty: Vec<u32>,
    /// To the io thread; `None` in the io thread itself.
    relay: Option<WakeProducer<Relayed>>,
    /// How long packets may wait, cycles; 0: until the end of the burst.
    pub(crate) flush_cycles: u64,
}

impl TxPorts {
    pub(crate) fn new(relay: Option<WakeProducer<Relayed>>) -> TxPorts {
        TxPorts { ports: Vec::new(), dirty: Vec::with_capacity(64), relay, flush_cycles: 0 }
    }

    pub(crate) fn insert(&mut self, port: TxPort) {
        let i = port.no.0 as usize;
        if self.ports.len() <= i {
            self.ports.resize_with(i + 1, || None);
        }
        self.ports[i] = Some(Box::new(port));
        self.dirty.reserve(self.ports.len());
    }

    /// Gives queues of pools up that were not used since `before`, a cycle count.
    pub(crate) fn release(&mut self, before: u64) {
        self.ports.iter_mut().flatten().for_each(|p| p.release(before));
    }

    /// Takes a port out, flushed.
    pub(crate) fn remove(&mut self, no: DpPort, stats: &mut PmdStats) -> Option<Box<TxPort>> {
        let mut port = self.ports.get_mut(no.0 as usize)?.take()?;
        port.flush(&mut self.relay, stats);
        self.dirty.retain(|d| *d != no.0);
        Some(port)
    }

    /// Has the packets of a port sent otherwise from now on.
    pub(crate) fn steer(&mut self, no: DpPort, to: Steering) {
        if let Some(Some(port)) = self.ports.get_mut(no.0 as usize) {
            port.steer(to);
        }
    }

    /// Whether any buffer holds packets.
    #[inline(always)]
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Puts a packet into the buffer of `no`.
    #[inline(always)]
    pub(crate) fn push(&mut self, no: DpPort, p: Packet, now: u64, stats: &mut PmdStats) {
        let Some(Some(port)) = self.ports.get_mut(no.0 as usize) else {
            stats.drop_n(Drop::NoPort, 1);
            return;
        };
        if p.frame_len() > port.max_frame && !port.takes_by_now(p.frame_len()) {
            return port.drop_n(Drop::TooLong, 1, stats);
        }
        if port.buf.is_empty() {
            self.dirty.push(no.0);
            port.since = now;
        } else if port.buf.is_full() {
            port.flush(&mut self.relay, stats);
            port.since = now;
        }
        // Not full: it was flushed just now if it was.
        let _ = port.buf.push(p);
    }

    /// Puts a whole batch into the buffer of `no`; the longest of its frames has `longest` bytes.
    #[inline(always)]
    pub(crate) fn push_batch(
        &mut self,
        no: DpPort,
        b: &mut Batch,
        longest: usize,
        now: u64,
        stats: &mut PmdStats,
    ) {
        if let Some(Some(port)) = self.ports.get_mut(no.0 as usize) {
            if port.buf.is_empty() && longest <= port.max_frame && !b.is_empty() {
                std::mem::swap(&mut port.buf, b);
                port.since = now;
                self.dirty.push(no.0);
                return;
            }
        }
        for p in b.drain() {
            self.push(no, p, now, stats);
        }
    }

    /// Sends what the buffers hold.
    #[inline(always)]
    pub(crate) fn flush_all(&mut self, stats: &mut PmdStats) {
        while let Some(no) = self.dirty.pop() {
            if let Some(Some(port)) = self.ports.get_mut(no as usize) {
                port.flush(&mut self.relay, stats);
            }
        }
    }

    /// Sends what is full or has waited long enough.
    #[inline(always)]
    pub(crate) fn flush_due(&mut self, now: u64, stats: &mut PmdStats) {
        if self.flush_cycles == 0 {
            return self.flush_all(stats);
        }
        let (ports, relay, limit) = (&mut self.ports, &mut self.relay, self.flush_cycles);
        self.dirty.retain(|no| {
            let Some(Some(port)) = ports.get_mut(*no as usize) else { return false };
            let due = port.buf.is_full() || now.wrapping_sub(port.since) >= limit;
            if due {
                port.flush(relay, stats);
            }
            !due
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Takes everything up to a length that may change.
    struct Device(Arc<AtomicUsize>);

    impl TxQueue for Device {
        fn send(&mut self, batch: &mut Batch) {
            batch.clear();
        }
        fn max_frame(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_raised_mtu_is_noticed() {
        let max = Arc::new(AtomicUsize::new(100));
        let (mut ports, mut stats) = (TxPorts::new(None), PmdStats::default());
        let sink = Sink::Own(Box::new(Device(Arc::clone(&max))));
        ports.insert(TxPort::new(DpPort(1), sink, 100, Arc::default()));
        let mut send = |len: usize| {
            ports.push(DpPort(1), Packet::from_slice(&vec![0; len]), 0, &mut stats);
            ports.flush_all(&mut stats);
            (stats.sent, stats.dropped(Drop::TooLong))
        };
        assert_eq!(send(100), (1, 0));
        assert_eq!(send(101), (1, 1));
        max.store(200, Ordering::Relaxed);
        assert_eq!(send(101), (2, 1));
        assert_eq!(send(201), (2, 2));
    }

    /// Counts what it sends.
    struct Counting(Arc<AtomicUsize>);

    impl TxQueue for Counting {
        fn send(&mut self, batch: &mut Batch) {
            self.0.fetch_add(batch.len(), Ordering::Relaxed);
            batch.clear();
        }
        fn max_frame(&self) -> usize {
            1_514
        }
    }

    /// Two threads with a queue each and one to spare change one after the other, and back.
    #[test]
    fn steering_changes_thread_by_thread() {
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let queue = |i: usize| Box::new(Counting(Arc::clone(&counts[i]))) as Box<dyn TxQueue>;
        let pool = Arc::new(Pool::new(vec![None, None, Some(queue(2))]));
        let mut stats = PmdStats::default();
        let mut threads = [0, 1].map(|i| {
            let mut t = TxPorts::new(None);
            t.insert(TxPort::new(DpPort(1), Sink::Own(queue(i)), 1_514, Arc::default()));
            t
        });
        let mut sent = 0;
        let mut send = |threads: &mut [TxPorts; 2]| {
            for (t, n) in threads.iter_mut().zip([60, 90]) {
                for i in 0..n {
                    t.push(DpPort(1), Packet::from_slice(&crate::testpkt::udp4(i, 60)), 0, &mut stats);
                }
                t.flush_all(&mut stats);
            }
            sent += 150;
            assert_eq!((stats.sent, stats.total_dropped()), (sent, 0));
            counts.each_ref().map(|c| c.swap(0, Ordering::Relaxed))
        };
        let steer = |t: &mut TxPorts, i, hashed| {
            t.steer(DpPort(1), Steering { pool: Arc::clone(&pool), hashed, own: Some(i) });
        };
        assert_eq!(send(&mut threads), [60, 90, 0]);
        steer(&mut threads[0], 0, true);
        let [a, b, c] = send(&mut threads);
        assert!(a > 0 && b == 90 && c > 0, "{a} {b} {c}: the other's queue is away");
        steer(&mut threads[1], 1, true);
        let [a, b, c] = send(&mut threads);
        assert!(a > 0 && b > 0 && b < 90 && c > 0, "{a} {b} {c}");
        steer(&mut threads[0], 0, false);
        let [a, b, c] = send(&mut threads);
        assert!(a == 60 && b > 0 && c > 0, "{a} {b} {c}");
        steer(&mut threads[1], 1, false);
        assert_eq!(send(&mut threads), [60, 90, 0]);
    }
}

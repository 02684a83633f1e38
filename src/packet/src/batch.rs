//! A burst of packets. Neighbours: `netdev` queues fill and drain batches.

use crate::mbuf::Packet;
use std::mem::MaybeUninit;

/// Packets in a burst, as everywhere in DPDK switches.
pub const BATCH_SIZE: usize = 32;

/// Up to [`BATCH_SIZE`] packets, in order of arrival, held in an array of mbuf pointers.
pub struct Batch {
    n: usize,
    pkts: [MaybeUninit<Packet>; BATCH_SIZE],
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Batch {
        Batch { n: 0, pkts: [const { MaybeUninit::uninit() }; BATCH_SIZE] }
    }

    /// Packets held.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether no packet is held.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Whether no further packet fits.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.n == BATCH_SIZE
    }

    /// Appends a packet; gives it back when the batch is full.
    #[inline(always)]
    pub fn push(&mut self, p: Packet) -> Result<(), Packet> {
        if self.n == BATCH_SIZE {
            return Err(p);
        }
        self.pkts[self.n].write(p);
        self.n += 1;
        Ok(())
    }

    /// Takes the last packet.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Packet> {
        if self.n == 0 {
            return None;
        }
        self.n -= 1;
        // SAFETY: slots below the old n are initialised; n was lowered, so it is read out once.
        Some(unsafe { self.pkts[self.n].assume_init_read() })
    }

    /// The packets.
    #[inline(always)]
    pub fn as_slice(&self) -> &[Packet] {
        // SAFETY: slots below n are initialised (push, set_len), and MaybeUninit<T> is laid out as T.
        unsafe { std::slice::from_raw_parts(self.pkts.as_ptr().cast(), self.n) }
    }

    /// The packets, writable.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [Packet] {
        // SAFETY: as in `as_slice`, and &mut self is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pkts.as_mut_ptr().cast(), self.n) }
    }

    /// The array of mbuf pointers, for a device's burst function.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut Packet {
        self.pkts.as_mut_ptr().cast()
    }

    /// Says that the first `n` slots hold packets. Packets in slots from `n` on are not freed.
    ///
    /// # Safety
    /// `n <= BATCH_SIZE`, the first `n` slots are initialised, and packets beyond were moved out.
    #[inline(always)]
    pub unsafe fn set_len(&mut self, n: usize) {
        debug_assert!(n <= BATCH_SIZE);
        self.n = n;
    }

    /// Moves every packet out, in order.
    #[inline(always)]
    pub fn drain(&mut self) -> Drain<'_> {
        let n = self.n;
        self.n = 0;
        Drain { batch: self, at: 0, n }
    }

    /// Frees every packet.
    #[inline]
    pub fn clear(&mut self) {
        drop(self.drain());
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Iterator of [`Batch::drain`]; frees what was not taken.
pub struct Drain<'a> {
    batch: &'a mut Batch,
    at: usize,
    n: usize,
}

impl Iterator for Drain<'_> {
    type Item = Packet;
    #[inline(always)]
    fn next(&mut self) -> Option<Packet> {
        if self.at == self.n {
            return None;
        }
        let i = self.at;
        self.at += 1;
        // SAFETY: slots below the batch's former n are initialised; `at` passes each once.
        Some(unsafe { self.batch.pkts[i].assume_init_read() })
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

//! Counters of a datapath thread.
//!
//! Neighbours: `pmd` writes them, the handle reads and clears them (by remembering a baseline). Threads: written
//! with plain stores by the owner, read by anyone.

use crate::drops::Drop;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counters of a thread at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct PmdStats {
            $($(#[$doc])* pub $field: u64,)*
            /// Drops by reason, indexed by [`Drop`].
            pub drops: [u64; Drop::COUNT],
        }

        /// The counters as the owner writes them.
        #[derive(Default)]
        #[repr(align(128))]
        pub(crate) struct SharedStats {
            $($field: AtomicU64,)*
            drops: [AtomicU64; Drop::COUNT],
            /// Megaflows installed.
            pub(crate) flows: AtomicU64,
            /// Masks among them.
            pub(crate) subtables: AtomicU64,
            /// Packets received and executed: those that were begun, and those whose megaflows have counted them.
            begun: AtomicU64,
            done: AtomicU64,
        }

        impl SharedStats {
            /// Publishes the owner's counters.
            #[inline]
            pub(crate) fn publish(&self, s: &PmdStats) {
                $(self.$field.store(s.$field, Ordering::Relaxed);)*
                self.done.store(s.packets(), Ordering::Release);
            }

            /// Says that the owner goes on with the packets counted last.
            #[inline(always)]
            pub(crate) fn begin(&self, s: &PmdStats) {
                self.begun.store(s.packets(), Ordering::Relaxed);
            }

            /// Packets that megaflows have counted; `None` while some are under way.
            pub(crate) fn settled(&self) -> Option<u64> {
                let done = self.done.load(Ordering::Acquire);
                (self.begun.load(Ordering::Acquire) == done).then_some(done)
            }

            /// Publishes the drops, which change seldom.
            #[inline]
            pub(crate) fn publish_drops(&self, s: &PmdStats) {
                self.drops.iter().zip(&s.drops).for_each(|(a, d)| a.store(*d, Ordering::Relaxed));
            }

            /// A snapshot.
            pub(crate) fn read(&self) -> PmdStats {
                PmdStats {
                    $($field: self.$field.load(Ordering::Relaxed),)*
                    drops: std::array::from_fn(|i| self.drops[i].load(Ordering::Relaxed)),
                }
            }
        }

        impl PmdStats {
            /// What was counted since `base`.
            pub fn since(&self, base: &PmdStats) -> PmdStats {
                PmdStats {
                    $($field: self.$field.wrapping_sub(base.$field),)*
                    drops: std::array::from_fn(|i| self.drops[i].wrapping_sub(base.drops[i])),
                }
            }

            /// The sum of both.
            pub fn plus(&self, o: &PmdStats) -> PmdStats {
                PmdStats {
                    $($field: self.$field.wrapping_add(o.$field),)*
                    drops: std::array::from_fn(|i| self.drops[i].wrapping_add(o.drops[i])),
                }
            }
        }
    };
}

counters! {
    /// Packets received from ports.
    received,
    /// Batches that were received.
    batches,
    /// Packets that recirculated.
    recirculated,
    /// Packets that came as packet-outs.
    executed,
    /// Packets that hit the simple match ("simple match hits"): megaflows found by the raw header bytes.
    simple_hits,
    /// Packets found in the microflow cache.
    emc_hits,
    /// Packets found by the signature match cache.
    smc_hits,
    /// Packets found in the megaflow classifier.
    megaflow_hits,
    /// Subtables looked into for those.
    subtable_lookups,
    /// Misses that were translated.
    miss_ok,
    /// Misses whose translation failed.
    miss_failed,
    /// Copies made because a packet goes to several places.
    copies,
    /// Packets given to devices.
    sent,
    /// Packets handed to the io thread to be sent there.
    to_io,
    /// Batches given to devices.
    sent_batches,
    /// Packets handed to user space.
    userspace,
    /// Packets taken over from PMDs (io thread only).
    relayed,
    /// Polling rounds.
    iterations,
    /// Polling rounds that received something.
    busy_iterations,
    /// Cycles in rounds (or polls) that received nothing.
    idle_cycles,
    /// Cycles spent on packets.
    busy_cycles,
    /// Cycles spent on misses.
    upcall_cycles,
    /// Rounds after which the thread slept.
    sleep_iterations,
    /// Cycles slept.
    sleep_cycles,
}

impl PmdStats {
    /// Drops for `reason`.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    /// Drops for all reasons.
    pub fn total_dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Packets that entered the datapath.
    pub(crate) fn packets(&self) -> u64 {
        self.received.wrapping_add(self.executed)
    }

    /// Counts `n` drops.
    #[inline]
    pub(crate) fn drop_n(&mut self, reason: Drop, n: usize) {
        self.drops[reason as usize] += n as u64;
    }
}

/// Intervals of which cycles are remembered.
pub(crate) const INTERVALS: usize = 12;
/// Length of an interval, milliseconds: together they are the "last 60 seconds" of listings.
pub(crate) const INTERVAL_MS: u64 = 5_000;

/// Cycles spent on something in recent intervals. Written by one thread.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Intervals {
    slots: [AtomicU64; INTERVALS],
    next: AtomicUsize,
}

impl Intervals {
    /// Ends an interval in which `cycles` were spent.
    pub(crate) fn push(&self, cycles: u64) {
        let i = self.next.load(Ordering::Relaxed);
        self.slots[i % INTERVALS].store(cycles, Ordering::Relaxed);
        self.next.store(i.wrapping_add(1), Ordering::Relaxed);
    }

    /// Intervals that have ended.
    pub(crate) fn ended(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether the last `n` intervals had at least `least` cycles each, and all of them ended after `since`.
    pub(crate) fn all_since(&self, since: usize, n: usize, least: u64) -> bool {
        let next = self.ended();
        let slot = |back| self.slots[next.wrapping_sub(back) % INTERVALS].load(Ordering::Relaxed);
        next.wrapping_sub(since) >= n && (1..=n.min(INTERVALS)).all(|back| slot(back) >= least)
    }

    /// Cycles over the last `n` intervals, as far as they are remembered.
    pub(crate) fn sum(&self, n: usize) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        let slot = |back| self.slots[next.wrapping_sub(back) % INTERVALS].load(Ordering::Relaxed);
        (1..=n.min(INTERVALS).min(next)).map(slot).sum()
    }
}

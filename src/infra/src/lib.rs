//! Foundations: clock, logs, counters, published snapshots, cpu placement.
pub mod linux;

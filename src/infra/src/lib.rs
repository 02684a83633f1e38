//! Foundations: clock, logs, counters, published snapshots, cpu placement.

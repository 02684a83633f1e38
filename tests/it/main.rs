//! Integration tests: a real ovsdb-server, the real command-line tools, our
//! daemon, and the installed one to compare with.

#![forbid(unsafe_code)]

mod attacks;
mod backers;
mod bad_input;
mod cluster;
mod control;
mod counters;
mod database;
mod devices;
mod diff;
mod dummy;
mod flood;
mod flow_life;
mod forwarding;
mod handlers;
// The tests of each part use their share of it.
#[allow(dead_code)]
mod harness;
#[allow(dead_code)]
mod lab;
mod lifecycle;
mod logging;
mod manual;
mod megaflows;
mod openflow;
mod pause;
mod perf;
mod poll_mode;
mod ports;
mod replay;
mod revalidators;
mod scheduling;
mod service;
mod tidy;
mod tls;
mod trace;
mod usage;
mod worker;

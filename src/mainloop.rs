//! The main loop: each part runs without blocking, each part says what it waits
//! for, then one poll sleeps. Order of a turn: signals, memory, switch
//! (database, DPDK, bridges, OpenFlow), control socket.

use crate::commands::Context;
use crate::daemonize::Daemon;
use crate::memory::Memory;
use crate::unixctl::Server;
use infra::poll::{Cause, Poller, Wake};
use infra::process::{signal_name, Signals, Usage};
use infra::vlog::{Level, Module, RateLimit};
use infra::{clock, coverage, vlog, vlog_rl, warn};

static SIGNAL_LOG: Module = Module::new("fatal_signal");
static POLL_LOG: Module = Module::new("poll_loop");
static TIME_LOG: Module = Module::new("timeval");
static WAKE_LIMIT: RateLimit = RateLimit::new(120, 120);
static LONG_LIMIT: RateLimit = RateLimit::new(1, 5);

/// A turn of more milliseconds than this is reported.
const LONG_TURN_MS: i64 = 1_000;
/// Milliseconds over which the loop's own CPU usage is taken.
const CPU_INTERVAL_MS: i64 = 5_000;
/// Per cent of CPU from which wake-ups are logged for everybody to see.
const BUSY_PER_CENT: i64 = 50;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The `exit` command; true with `--cleanup`.
    Exit(bool),
    /// A signal.
    Signal(i32),
}

/// The signals that [`run`] handles.
pub const SIGNALS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGALRM, libc::SIGHUP];

/// Runs until somebody ends it.
pub fn run(
    context: &mut Context,
    server: &mut Option<Server<Context>>,
    signals: &Signals,
    daemon: &mut Daemon,
    poller: &mut Poller,
) -> End {
    let mut memory = Memory::new(clock::now_ms());
    let mut watch = Watch::new();
    loop {
        watch.turn_begins();
        let now = clock::now_ms();
        while let Some(signal) = signals.next() {
            if signal != libc::SIGHUP {
                warn!(SIGNAL_LOG, "terminating with signal {signal} ({})", signal_name(signal));
                return End::Signal(signal);
            }
            // Without a log file there is nothing to reopen.
            let _ = vlog::reopen();
        }
        memory.run(&context.switch, now);
        coverage::run(now);
        context.switch.run(now);
        if context.switch.is_ready() {
            daemon.complete();
        }
        if let Some(server) = server {
            server.run(context, now);
        }
        if let Some(cleanup) = context.exit {
            return End::Exit(cleanup);
        }
        poller.fd_in(signals.fd());
        context.switch.wait(poller);
        if let Some(server) = server {
            server.wait(poller);
        }
        watch.turn_ends();
        let wake = poller.block();
        watch.woken(&wake);
    }
}

/// Watches how long turns take and what they cost.
struct Watch {
    turn: Option<(i64, Usage)>,
    interval: (i64, Usage),
    per_cent: i64,
}

impl Watch {
    fn new() -> Self {
        Watch { turn: None, interval: (real_ms(), Usage::thread()), per_cent: 0 }
    }

    fn turn_begins(&mut self) {
        let now = real_ms();
        let (since, before) = self.interval;
        let usage = Usage::thread();
        if now - since >= CPU_INTERVAL_MS {
            let spent = usage.user_ms + usage.system_ms - before.user_ms - before.system_ms;
            self.per_cent = spent * 100 / (now - since);
            self.interval = (now, usage);
        }
        self.turn = Some((now, usage));
    }

    fn turn_ends(&mut self) {
        let Some((began, before)) = self.turn.take() else { return };
        let took = real_ms() - began;
        if took < LONG_TURN_MS {
            return;
        }
        let after = Usage::thread();
        let (user, system) = (after.user_ms - before.user_ms, after.system_ms - before.system_ms);
        let two = |a: (i64, i64), b: (i64, i64)| (a.0 - b.0, a.1 - b.1);
        let faults = two(after.faults, before.faults);
        let blocks = two(after.blocks, before.blocks);
        let switches = two(after.switches, before.switches);
        warn!(TIME_LOG, "Unreasonably long {took}ms poll interval ({user}ms user, {system}ms system)");
        if faults != (0, 0) {
            vlog_rl!(TIME_LOG, LONG_LIMIT, Warn, "faults: {} minor, {} major", faults.0, faults.1);
        }
        if blocks != (0, 0) {
            vlog_rl!(TIME_LOG, LONG_LIMIT, Warn, "disk: {} reads, {} writes", blocks.0, blocks.1);
        }
        if switches != (0, 0) {
            let (voluntary, involuntary) = switches;
            vlog_rl!(
                TIME_LOG,
                LONG_LIMIT,
                Warn,
                "context switches: {voluntary} voluntary, {involuntary} involuntary"
            );
        }
    }

    fn woken(&self, wake: &Wake) {
        let busy = self.per_cent >= BUSY_PER_CENT;
        let level = if busy { Level::Info } else { Level::Dbg };
        if !POLL_LOG.enabled(level) {
            return;
        }
        let cause = match wake.cause {
            Cause::Timeout(ms) => format!("{ms}-ms timeout"),
            Cause::Fd(fd, events) => format!("{} on fd {fd}", event_names(events)),
            Cause::Woken => "another thread".to_string(),
            Cause::Interrupted => "signal".to_string(),
        };
        let cpu = if busy { format!(" ({}% CPU usage)", self.per_cent) } else { String::new() };
        POLL_LOG.log_limited(&WAKE_LIMIT, level, format_args!("wakeup due to {cause} at {}{cpu}", wake.at));
    }
}

fn real_ms() -> i64 {
    (clock::real_ns() / 1_000_000) as i64
}

fn event_names(events: i16) -> String {
    let names = [
        (libc::POLLIN, "[POLLIN]"),
        (libc::POLLOUT, "[POLLOUT]"),
        (libc::POLLERR, "[POLLERR]"),
        (libc::POLLHUP, "[POLLHUP]"),
        (libc::POLLNVAL, "[POLLNVAL]"),
    ];
    names.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect()
}

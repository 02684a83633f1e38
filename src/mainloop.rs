//! The main loop: each part runs without blocking, each part says what it waits
//! for, then one poll sleeps. Order of a turn: worker replies, signals, memory, switch
//! (database, DPDK, bridges, OpenFlow), control socket.

use crate::commands::Context;
use crate::daemonize::Daemon;
use crate::memory::Memory;
use crate::unixctl::Server;
use infra::poll::{Cause, Poller, Wake};
use infra::process::{signal_name, Signals, Usage};
use infra::stopwatch::{self, Stopwatch};
use infra::vlog::{Level, Module, RateLimit};
use infra::{clock, coverage, emer, fdname, vlog, vlog_rl, warn, worker};

static WORKER_LOG: Module = Module::new("worker");
static SIGNAL_LOG: Module = Module::new("fatal_signal");
static POLL_LOG: Module = Module::new("poll_loop");
static TIME_LOG: Module = Module::new("timeval");
static WAKE_LIMIT: RateLimit = RateLimit::new(120, 120);
static LONG_LIMIT: RateLimit = RateLimit::new(1, 5);

/// Stopwatches of the parts of a turn.
static TURN_TIME: Stopwatch = Stopwatch::new("main-loop");
static SWITCH_TIME: Stopwatch = Stopwatch::new("bridge-run");
static CONTROL_TIME: Stopwatch = Stopwatch::new("unixctl-server-run");
/// All of them, for the commands.
pub static STOPWATCHES: stopwatch::All = &[&TURN_TIME, &SWITCH_TIME, &CONTROL_TIME];

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
    /// The worker process is lost.
    Worker,
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
        let began = clock::real_ns();
        let now = clock::now_ms();
        if let Err(error) = worker::run() {
            vlog::take_back();
            emer!(WORKER_LOG, "{error}, aborting");
            return End::Worker;
        }
        while let Some(signal) = signals.next() {
            if signal != libc::SIGHUP {
                warn!(SIGNAL_LOG, "terminating with signal {signal} ({})", signal_name(signal));
                return End::Signal(signal);
            }
            // How it went stands in the log; without a log file there is nothing to reopen.
            vlog::reopen();
        }
        memory.run(&mut context.switch, now);
        coverage::run(now);
        SWITCH_TIME.time(|| context.switch.run(now));
        if context.switch.is_ready() {
            daemon.complete();
        }
        if let Some(server) = server {
            CONTROL_TIME.time(|| server.run(context, now));
        }
        if let Some(cleanup) = context.exit {
            return End::Exit(cleanup);
        }
        worker::wait(poller);
        poller.fd_in(signals.fd());
        context.switch.wait(poller);
        if let Some(server) = server {
            server.wait(poller);
        }
        TURN_TIME.add_us((clock::real_ns() - began) / 1_000);
        watch.turn_ends();
        let wake = poller.block();
        watch.woken(&wake);
    }
}

/// Watches how long turns take and what they cost.
struct Watch {
    turn: Option<(i64, Usage)>,
    interval: (i64, Usage),
    /// Known after the first interval.
    per_cent: Option<i64>,
}

impl Watch {
    fn new() -> Self {
        Watch { turn: None, interval: (real_ms(), Usage::thread()), per_cent: None }
    }

    fn turn_begins(&mut self) {
        let now = real_ms();
        let (since, before) = self.interval;
        let usage = Usage::thread();
        if now - since >= CPU_INTERVAL_MS {
            let spent = usage.user_ms + usage.system_ms - before.user_ms - before.system_ms;
            self.per_cent = Some(spent * 100 / (now - since));
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
        coverage::log();
    }

    fn woken(&self, wake: &Wake) {
        let busy = self.per_cent.is_some_and(|n| n >= BUSY_PER_CENT);
        let level = if busy { Level::Info } else { Level::Dbg };
        if !POLL_LOG.enabled(level) {
            return;
        }
        let cause = match wake.cause {
            Cause::Timeout(ms) => format!("{ms}-ms timeout"),
            Cause::Fd(fd, events) => format!("{} on fd {fd} ({})", event_names(events), fdname::describe(fd)),
            Cause::Woken => "another thread".to_string(),
            Cause::Interrupted => "signal".to_string(),
        };
        let cpu = self.per_cent.map_or_else(String::new, |n| format!(" ({n}% CPU usage)"));
        let (file, line) = (wake.at.file(), wake.at.line());
        POLL_LOG.log_limited(&WAKE_LIMIT, level, format_args!("wakeup due to {cause} at {file}:{line}{cpu}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a long turn and a busy loop leave in the log.
    #[test]
    fn long_turns_and_busy_loops() {
        let path = std::env::temp_dir().join(format!("mainloop-test-{}.log", std::process::id()));
        vlog::set_log_file(&path).unwrap();
        let mut watch = Watch::new();
        watch.turn_begins();
        watch.turn_ends();
        let (began, usage) = watch.turn.unwrap_or((real_ms() - 1_234, Usage::default()));
        watch.turn = Some((began, usage));
        watch.turn_ends();
        let at = std::panic::Location::caller();
        let wake = |cause| Wake { cause, at, waited_ms: 0 };
        watch.woken(&wake(Cause::Timeout(5)));
        watch.per_cent = Some(75);
        watch.woken(&wake(Cause::Timeout(0)));
        let null = std::fs::File::open("/dev/null").unwrap();
        watch.woken(&wake(Cause::Fd(std::os::fd::AsRawFd::as_raw_fd(&null), libc::POLLIN | libc::POLLHUP)));
        let text = std::fs::read_to_string(&path).unwrap();
        let _ = std::fs::remove_file(&path);
        let long = text.lines().find(|l| l.contains("|timeval|WARN|Unreasonably long 1")).expect(&text);
        assert!(long.contains("ms poll interval (") && long.ends_with("ms system)"), "{long}");
        assert!(text.contains("|coverage|INFO|Event coverage, avg"), "{text}");
        assert_eq!(text.matches("|poll_loop|").count(), 2, "{text}");
        let line = format!(
            "|poll_loop|INFO|wakeup due to 0-ms timeout at {}:{} (75% CPU usage)\n",
            at.file(),
            at.line()
        );
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("|wakeup due to [POLLIN][POLLHUP] on fd "), "{text}");
        assert!(text.contains(" (character device /dev/null) at "), "{text}");
    }
}

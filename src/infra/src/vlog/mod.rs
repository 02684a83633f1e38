//! The log: modules, destinations and levels as Open vSwitch users know them.
//!
//! A source file that logs owns `static LOG: Module = Module::new("bridge");`
//! and says `info!(LOG, "added {name}")`, or with a limit
//! `vlog_rl!(LOG, LIMIT, Warn, "…")`. Nothing is formatted for a level that is
//! off. Any thread may log, except PMDs: [`forbid_on_this_thread`] guards that.
//!
//! Neighbours: `names` knows the module names, `control` the texts of the
//! `vlog/…` commands and `-v`, `pattern` the line formats, `sink` the outputs, `file` the
//! log file, `limit` the token buckets.

mod control;
mod file;
mod limit;
mod names;
mod pattern;
mod sink;

pub use control::{list, list_patterns, set, set_rate_limits, VlogError};
pub use file::{close, delegate, reopen, set_log_file, set_owner, take_back, worker_jobs, Opening};
pub use limit::RateLimit;
pub use sink::{log_file, set_syslog_method, set_syslog_target};

use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::OnceLock;

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// No message has this level: as a limit it turns a destination off.
    Off = 0,
    /// A major failure forced the process to abort.
    Emer,
    /// A high-level operation or a subsystem failed.
    Err,
    /// A low-level operation failed.
    Warn,
    /// Useful in retrospect.
    Info,
    /// For those who know the system.
    Dbg,
}

impl Level {
    /// All levels, gravest first.
    pub const ALL: [Level; 6] = [Level::Off, Level::Emer, Level::Err, Level::Warn, Level::Info, Level::Dbg];

    /// The name in logs and commands.
    pub fn name(self) -> &'static str {
        ["OFF", "EMER", "ERR", "WARN", "INFO", "DBG"][self as usize]
    }

    /// Reads a name; case does not matter.
    pub fn parse(word: &str) -> Option<Level> {
        Self::ALL.into_iter().find(|l| l.name().eq_ignore_ascii_case(word))
    }

    /// The syslog severity.
    fn severity(self) -> i32 {
        match self {
            Level::Off | Level::Dbg => libc::LOG_DEBUG,
            Level::Emer => libc::LOG_ALERT,
            Level::Err => libc::LOG_ERR,
            Level::Warn => libc::LOG_WARNING,
            Level::Info => libc::LOG_NOTICE,
        }
    }
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Destination {
    /// The system log.
    Syslog = 0,
    /// Standard error.
    Console,
    /// The log file, once there is one.
    File,
}

impl Destination {
    /// All destinations.
    pub const ALL: [Destination; 3] = [Destination::Syslog, Destination::Console, Destination::File];

    /// The name in commands.
    pub fn name(self) -> &'static str {
        ["syslog", "console", "file"][self as usize]
    }

    /// Reads a name; case does not matter.
    pub fn parse(word: &str) -> Option<Destination> {
        Self::ALL.into_iter().find(|d| d.name().eq_ignore_ascii_case(word))
    }
}

/// What a module lets through: shared by all `Module`s of one name.
struct State {
    name: &'static str,
    levels: [AtomicU8; 3],
    /// The most talkative of `levels`: one load decides for most messages.
    loudest: AtomicU8,
    limited: AtomicBool,
}

impl State {
    fn new(name: &'static str, levels: [Level; 3]) -> Self {
        let state = State {
            name,
            levels: [const { AtomicU8::new(0) }; 3],
            loudest: AtomicU8::new(0),
            limited: AtomicBool::new(true),
        };
        for destination in Destination::ALL {
            state.set(destination, levels[destination as usize]);
        }
        state
    }

    fn set(&self, destination: Destination, level: Level) {
        self.levels[destination as usize].store(level as u8, Ordering::Relaxed);
        let loudest = self.levels.iter().map(|l| l.load(Ordering::Relaxed)).max().unwrap_or(0);
        self.loudest.store(loudest, Ordering::Relaxed);
    }

    fn level(&self, destination: Destination) -> Level {
        Level::ALL[usize::from(self.levels[destination as usize].load(Ordering::Relaxed)).min(5)]
    }
}

struct Registry {
    modules: BTreeMap<&'static str, &'static State>,
    /// Levels of modules that appear later.
    initial: [Level; 3],
}

impl Registry {
    fn get(&mut self, name: &'static str) -> &'static State {
        let initial = self.initial;
        self.modules.entry(name).or_insert_with(|| Box::leak(Box::new(State::new(name, initial))))
    }
}

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut registry = Registry { modules: BTreeMap::new(), initial: [Level::Info; 3] };
        for name in names::MODULES {
            registry.get(name);
        }
        Mutex::new(registry)
    })
}

/// A log module, declared as a `static` by the code that logs.
pub struct Module {
    name: &'static str,
    state: OnceLock<&'static State>,
}

impl Module {
    /// A module of that name; several of one name are the same module.
    pub const fn new(name: &'static str) -> Self {
        Module { name, state: OnceLock::new() }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    #[inline]
    fn state(&self) -> &'static State {
        self.state.get_or_init(|| registry().lock().get(self.name))
    }

    /// True if a message of that level goes anywhere.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        level as u8 <= self.state().loudest.load(Ordering::Relaxed)
    }

    /// Logs a message, whatever rate limits say. Use the macros.
    #[cold]
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let state = self.state();
        if level as u8 > state.loudest.load(Ordering::Relaxed) || level == Level::Off {
            return;
        }
        debug_assert!(!FORBIDDEN.get(), "a poll-mode thread logs in {}: {message}", self.name);
        let serial = SERIAL.get().wrapping_add(1);
        SERIAL.set(serial);
        let text = message.to_string();
        let thread = THREAD.with_borrow(Clone::clone);
        sink::emit(
            &pattern::Record { module: state.name, level, serial, thread: &thread, message: &text },
            |destination| level <= state.level(destination),
        );
    }

    /// Logs a message unless `limit` says that there were too many.
    #[cold]
    pub fn log_limited(&self, limit: &RateLimit, level: Level, message: fmt::Arguments<'_>) {
        if !self.enabled(level) {
            return;
        }
        if self.state().limited.load(Ordering::Relaxed) {
            match limit.admit(crate::clock::now_ms()) {
                limit::Verdict::Drop => return,
                limit::Verdict::Pass => {}
                limit::Verdict::PassAfter { dropped, first, last } => self.log(
                    level,
                    format_args!(
                        "Dropped {dropped} log messages in last {first} seconds \
                         (most recently, {last} seconds ago) due to excessive rate"
                    ),
                ),
            }
        }
        self.log(level, message);
    }
}

thread_local! {
    static THREAD: RefCell<String> = const { RefCell::new(String::new()) };
    static SERIAL: Cell<u32> = const { Cell::new(0) };
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Sets the name of this thread in log lines; empty for the main thread.
pub fn set_thread_name(name: &str) {
    THREAD.set(name.to_string());
}

/// Declares that this thread must never log; a debug build panics if it does.
pub fn forbid_on_this_thread() {
    FORBIDDEN.set(true);
}

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Sets the program's name (`%A`, `version`); call it first in `main`.
pub fn set_program_name(name: &str) {
    let _ = PROGRAM.set(name.to_string());
    sink::mark_start();
}

/// The program's name.
pub fn program_name() -> &'static str {
    PROGRAM.get().map_or("ovs-vswitchd", String::as_str)
}

/// Logs at a level given by name: `vlog!(LOG, Info, "text {}", 1)`.
#[macro_export]
macro_rules! vlog {
    ($module:expr, $level:ident, $($arg:tt)+) => {
        if $module.enabled($crate::vlog::Level::$level) {
            $module.log($crate::vlog::Level::$level, format_args!($($arg)+));
        }
    };
}

/// Logs with a rate limit: `vlog_rl!(LOG, LIMIT, Warn, "text {}", 1)`.
#[macro_export]
macro_rules! vlog_rl {
    ($module:expr, $limit:expr, $level:ident, $($arg:tt)+) => {
        if $module.enabled($crate::vlog::Level::$level) {
            $module.log_limited(&$limit, $crate::vlog::Level::$level, format_args!($($arg)+));
        }
    };
}

/// Logs at level EMER.
#[macro_export]
macro_rules! emer { ($module:expr, $($arg:tt)+) => { $crate::vlog!($module, Emer, $($arg)+) }; }
/// Logs at level ERR.
#[macro_export]
macro_rules! err { ($module:expr, $($arg:tt)+) => { $crate::vlog!($module, Err, $($arg)+) }; }
/// Logs at level WARN.
#[macro_export]
macro_rules! warn { ($module:expr, $($arg:tt)+) => { $crate::vlog!($module, Warn, $($arg)+) }; }
/// Logs at level INFO.
#[macro_export]
macro_rules! info { ($module:expr, $($arg:tt)+) => { $crate::vlog!($module, Info, $($arg)+) }; }
/// Logs at level DBG.
#[macro_export]
macro_rules! debug { ($module:expr, $($arg:tt)+) => { $crate::vlog!($module, Dbg, $($arg)+) }; }

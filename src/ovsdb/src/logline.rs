//! Lines for the log, kept until the owner writes them: the state machines themselves have no side effects.
//!
//! Neighbours: [`crate::reconnect`], [`crate::session`] and [`crate::client`] make lines, the owner of the
//! client calls [`LogLine::write`].
//! Threads: plain values.

use std::fmt;

use infra::vlog::{Level, Module, RateLimit};

pub(crate) static RECONNECT: Module = Module::new("reconnect");
pub(crate) static JSONRPC: Module = Module::new("jsonrpc");
pub(crate) static OVSDB_CS: Module = Module::new("ovsdb_cs");
pub(crate) static OVSDB_IDL: Module = Module::new("ovsdb_idl");

/// A line for the log.
pub struct LogLine {
    /// How grave it is.
    pub level: Level,
    /// The module that says it.
    pub module: &'static Module,
    /// The text.
    pub text: String,
}

impl LogLine {
    /// Writes the line to the log, unless there were too many.
    pub fn write(&self) {
        // Roughly what a server that breaks the protocol on every connection causes in a minute.
        static LIMIT: RateLimit = RateLimit::new(20, 20);
        self.module.log_limited(&LIMIT, self.level, format_args!("{}", self.text));
    }
}

impl fmt::Debug for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", self.module.name(), self.level.name(), self.text)
    }
}

/// A bounded list of lines: if nobody takes them, the oldest stay, for they tell how it began.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<LogLine>);

impl Lines {
    /// More lines than this between two readings say nothing new.
    const MAX: usize = 128;

    pub(crate) fn push(&mut self, level: Level, module: &'static Module, text: String) {
        if self.0.len() < Lines::MAX {
            self.0.push(LogLine { level, module, text });
        }
    }

    /// Appends what another list collected before.
    pub(crate) fn extend(&mut self, lines: Vec<LogLine>) {
        let room = Lines::MAX.saturating_sub(self.0.len());
        self.0.extend(lines.into_iter().take(room));
    }

    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.0)
    }
}

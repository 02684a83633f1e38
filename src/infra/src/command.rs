//! What a control-socket command is, so that each crate can list its own and
//! the daemon can serve them all.
//!
//! Handlers run on the main thread and must not block.

/// Any number of arguments.
pub const MANY: usize = usize::MAX;

/// In place of a usage: the command works but is not listed.
pub const HIDDEN: &str = "\0";

/// A command of `ovs-appctl` that works on a `T`.
pub struct Command<T: ?Sized> {
    /// Full name, for example `fdb/show`.
    pub name: &'static str,
    /// Arguments, as `list-commands` shows them.
    pub usage: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments; [`MANY`] if there is no bound.
    pub max: usize,
    /// Does the work. A reply, or an error, gets a final newline if it lacks one.
    pub run: fn(&mut T, &[&str]) -> Reply,
}

/// The answer to a command: what the client prints, or why it failed.
pub type Reply = Result<String, String>;

impl<T: ?Sized> Command<T> {
    /// A command with bounds on its number of arguments.
    pub const fn new(
        name: &'static str,
        usage: &'static str,
        min: usize,
        max: usize,
        run: fn(&mut T, &[&str]) -> Reply,
    ) -> Self {
        Command { name, usage, min, max, run }
    }
}

//! DPDK's log, redirected into ours under the module `dpdk`.
//!
//! Neighbours: `eal` installs it; `factory` and `ethdev` collect the error lines of a call as the
//! reason of its failure.
//! Threads: DPDK logs in whatever thread runs. Lines of PMD threads wait in a bounded queue until
//! another thread logs or the main loop calls [`crate::run`]: a PMD thread does no system call.

use crate::LOG_DPDK;
use infra::vlog::Level;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_char, c_void};

/// Lines kept for the main thread; further ones are lost (and counted in the next delivery).
const WAITING_MAX: usize = 256;

struct Waiting {
    lines: VecDeque<(Level, String)>,
    lost: u64,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { lines: VecDeque::new(), lost: 0 });

thread_local! {
    static DEFER: Cell<bool> = const { Cell::new(false) };
    static COLLECTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Says whether lines of the calling thread wait for another thread.
pub(crate) fn defer_on_this_thread(yes: bool) {
    DEFER.set(yes);
}

/// Queues a line for another thread.
pub(crate) fn post(level: Level, text: String) {
    let mut w = WAITING.lock();
    if w.lines.len() == WAITING_MAX {
        w.lost += 1;
    } else {
        w.lines.push_back((level, text));
    }
}

/// Logs the lines that PMD threads left.
pub(crate) fn deliver() {
    let (lines, lost) = {
        let mut w = WAITING.lock();
        (std::mem::take(&mut w.lines), std::mem::take(&mut w.lost))
    };
    for (level, text) in lines {
        LOG_DPDK.log(level, format_args!("{text}"));
    }
    if lost > 0 {
        infra::warn!(LOG_DPDK, "{lost} messages of PMD threads were lost");
    }
}

/// Runs `f` and returns, with its result, the first error line that DPDK logged meanwhile in this
/// thread.
pub(crate) fn first_error<R>(f: impl FnOnce() -> R) -> (R, Option<String>) {
    let before = COLLECTED.replace(Some(Vec::new()));
    let r = f();
    let mut lines = COLLECTED.replace(before).unwrap_or_default();
    (r, if lines.is_empty() { None } else { Some(lines.swap_remove(0)) })
}

/// Our level for DPDK's (`RTE_LOG_EMERG` = 1 to `RTE_LOG_DEBUG` = 8).
fn level_of(rte: i32) -> Level {
    match rte {
        1..=3 => Level::Emer,
        4 => Level::Err,
        5 => Level::Warn,
        6 | 7 => Level::Info,
        _ => Level::Dbg,
    }
}

fn receive(level: Level, text: &str) {
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        if matches!(level, Level::Err | Level::Emer) {
            COLLECTED.with_borrow_mut(|c| {
                if let Some(lines) = c {
                    lines.push(line.to_string());
                }
            });
        }
        if DEFER.get() {
            post(level, line.to_string());
        } else {
            LOG_DPDK.log(level, format_args!("{line}"));
        }
    }
}

unsafe extern "C" fn write(_cookie: *mut c_void, text: *const c_char, len: usize) -> isize {
    // SAFETY: the contract of a cookie's write function: `text` points at `len` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // SAFETY: a plain query of a per-thread variable.
    let level = level_of(unsafe { dpdk_sys::rte_log_cur_msg_loglevel() });
    // A panic must not cross C frames.
    let _ = std::panic::catch_unwind(|| receive(level, &String::from_utf8_lossy(bytes)));
    len as isize
}

/// Redirects DPDK's log. Before `rte_eal_init`, so that nothing goes to stderr or syslog.
pub(crate) fn redirect() {
    // SAFETY: `write` lives forever and keeps the contract of a cookie's write function.
    let r = unsafe { dpdk_sys::vsw_log_redirect(Some(write)) };
    if r != 0 {
        infra::err!(LOG_DPDK, "Can't redirect DPDK log: {}.", crate::strerror(r));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(level_of(2), Level::Emer);
        assert_eq!(level_of(4), Level::Err);
        assert_eq!(level_of(7), Level::Info);
        assert_eq!(level_of(8), Level::Dbg);
    }

    #[test]
    fn first_error_line_is_the_reason() {
        let ((), why) = first_error(|| {
            receive(Level::Info, "nothing wrong\n");
            receive(Level::Err, "EAL: first\nEAL: second\n");
        });
        assert_eq!(why.as_deref(), Some("EAL: first"));
        assert_eq!(first_error(|| ()).1, None);
    }
}

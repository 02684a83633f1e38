//! Linux system calls that have no safe wrapper in the standard library.
//!
//! Neighbours: `netdev` builds its ports on these. Threads: every function is a system call on its
//! arguments; nothing is shared.

use std::io;
use std::os::fd::RawFd;

/// Whether `fd` becomes readable (or fails) within `timeout_ms`; 0 asks without waiting.
pub fn wait_readable(fd: RawFd, timeout_ms: i32) -> io::Result<bool> {
    let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: `p` is one valid pollfd for the length of the call.
    match unsafe { libc::poll(&mut p, 1, timeout_ms) } {
        n if n < 0 => Err(io::Error::last_os_error()),
        n => Ok(n > 0),
    }
}

//! `Waker`: an eventfd that ends somebody's poll. Any thread may wake.

use rustix::event::{eventfd, EventfdFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A handle that makes its descriptor readable. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Creates a new non-blocking eventfd.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(fd)))
    }

    /// Makes the descriptor readable; a waiter returns, now or at its next wait.
    pub fn wake(&self) {
        // A full counter (EAGAIN) is readable anyway.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub fn drain(&self) {
        // One that is unreadable already (EAGAIN) stays so.
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }

    /// The descriptor to wait on (POLLIN).
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

//! The worker's side: one request after the other, until the main process is gone.

use super::message::{Broken, Message, Receiver, Sender};
use crate::process;
use rustix::event::{poll, PollFd, PollFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// What a worker can do.
pub trait Jobs {
    /// Does one request to its end; may block. The reply is sent if the request asked for one.
    fn run(&mut self, request: Message) -> Message;
}

/// The life of the worker; the process ends here.
pub(super) fn run(socket: OwnedFd, mut jobs: impl Jobs, keep: &[RawFd], main: u32) -> ! {
    // A terminal's or an init system's signals go to the whole group: the worker outlives the main process by what
    // is still to be done, and no longer.
    process::ignore_signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGALRM, libc::SIGPIPE]);
    let mut kept = keep.to_vec();
    kept.push(socket.as_raw_fd());
    process::close_others(&kept);
    // Whoever waits for the standard files to close must not wait for us.
    let _ = process::null_stdio();
    crate::title::set(&format!("worker process for pid {main}"));
    serve(&socket, &mut jobs);
    process::exit_now(0)
}

/// Serves requests until the main process's end is closed and all that was in the socket is done.
fn serve(socket: &OwnedFd, jobs: &mut impl Jobs) {
    let (mut receiver, mut sender) = (Receiver::default(), Sender::default());
    // True once the main process is gone: its requests are finished without replies.
    let mut deaf = false;
    loop {
        match receiver.receive(socket.as_fd()) {
            Ok(None) => sleep(socket, PollFlags::IN),
            Ok(Some((request, wants_reply))) => {
                let reply = jobs.run(request);
                if wants_reply && !deaf {
                    sender.push(reply, false);
                    deaf = send(socket, &mut sender).is_err();
                }
            }
            Err(_) => return,
        }
    }
}

/// Sends all of a reply, however long the main process takes to read it.
fn send(socket: &OwnedFd, sender: &mut Sender) -> Result<(), Broken> {
    while !sender.flush(socket.as_fd())? {
        sleep(socket, PollFlags::OUT);
    }
    Ok(())
}

fn sleep(socket: &OwnedFd, flags: PollFlags) {
    let _ = poll(&mut [PollFd::new(socket, flags)], None);
}

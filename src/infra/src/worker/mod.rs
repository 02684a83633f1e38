//! The worker: a second process that does what may block in the kernel, on behalf of the main process.
//!
//! It is forked once, before any thread exists, and joined to the main process by a non-blocking stream socket pair.
//! A request carries bytes and descriptors and may ask for a reply, which carries the same. Requests run strictly in
//! order, each to completion, and replies come back in that order. When the main process ends, in whatever way, the
//! worker finishes what is in the socket and exits; when the worker ends or sends what makes no sense, the main
//! process is told and must end too.
//!
//! `message` knows the bytes, `process` is the worker's side, here is the main process's. [`Worker`] belongs to one
//! owner; the functions of this module share the daemon's one worker between threads.

mod message;
mod process;

pub use message::{Broken, Message, MAX_DATA, MAX_FDS};
pub use process::Jobs;

use crate::coverage::Counter;
use crate::poll::Poller;
use crate::process::Ended;
use crate::waker::Waker;
use message::{Receiver, Sender};
use parking_lot::Mutex;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Bytes that may wait for the worker before lines of the log are lost.
pub const MAX_WAITING: usize = 1 << 20;

static REQUESTS: Counter = Counter::new("worker_request");
static REPLIES: Counter = Counter::new("worker_reply");
static FULL: Counter = Counter::new("worker_full");

/// What is done with a reply.
pub type OnReply = Box<dyn FnOnce(Message) + Send>;

/// Why a request was not accepted, or the worker is lost.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// More data or descriptors than a message has room for.
    #[error(
        "a request of {bytes} bytes and {fds} descriptors is more than the {MAX_DATA} and {MAX_FDS} allowed"
    )]
    TooLarge {
        /// Bytes of the request.
        bytes: usize,
        /// Descriptors of the request.
        fds: usize,
    },
    /// Too much waits for the worker already.
    #[error("the worker process does not keep up")]
    Full,
    /// There is no worker.
    #[error("there is no worker process")]
    None,
    /// The worker's end: why, and how the process ended if it has.
    #[error("worker process for pid {} is lost: {broken}{}", std::process::id(), said(.ended))]
    Lost {
        /// What happened to the connection.
        broken: Broken,
        /// How the process ended.
        ended: Option<Ended>,
    },
}

fn said(ended: &Option<Ended>) -> String {
    ended.map_or_else(String::new, |e| format!(" ({e})"))
}

/// The main process's end.
pub struct Worker {
    socket: OwnedFd,
    pid: i32,
    sender: Sender,
    receiver: Receiver,
    waiting: VecDeque<OnReply>,
    ready: VecDeque<(OnReply, Message)>,
}

impl Worker {
    /// Forks the worker, which serves `jobs` and keeps no descriptor but its socket and `keep`. Refused once the
    /// process has a second thread.
    pub fn start(jobs: impl Jobs, keep: &[RawFd]) -> io::Result<Worker> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let main = std::process::id();
        match crate::process::fork()? {
            crate::process::Forked::Child => {
                drop(ours);
                process::run(theirs, jobs, keep, main)
            }
            crate::process::Forked::Parent(pid) => Ok(Worker {
                socket: ours,
                pid,
                sender: Sender::default(),
                receiver: Receiver::default(),
                waiting: VecDeque::new(),
                ready: VecDeque::new(),
            }),
        }
    }

    /// The worker's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Hands a request over without waiting: what the socket does not take now waits here.
    pub fn submit(&mut self, message: Message, on_reply: Option<OnReply>) -> Result<(), WorkerError> {
        let (bytes, fds) = (message.data.len(), message.fds.len());
        if bytes > MAX_DATA || fds > MAX_FDS {
            return Err(WorkerError::TooLarge { bytes, fds });
        }
        REQUESTS.inc();
        self.sender.push(message, on_reply.is_some());
        self.waiting.extend(on_reply);
        self.flush()
    }

    /// Hands a request over and returns once all of it is in the socket. Replies that come meanwhile are kept, so
    /// that the two processes never wait for each other.
    pub fn request(&mut self, message: Message, on_reply: Option<OnReply>) -> Result<(), WorkerError> {
        self.submit(message, on_reply)?;
        while !self.sender.is_empty() {
            self.sleep(PollFlags::IN | PollFlags::OUT, None);
            self.receive()?;
            self.flush()?;
        }
        Ok(())
    }

    /// Moves what can be moved both ways; then [`Worker::next_reply`] has the replies.
    pub fn run(&mut self) -> Result<(), WorkerError> {
        self.flush()?;
        self.receive()
    }

    /// The next reply, with what is to be done with it.
    pub fn next_reply(&mut self) -> Option<(OnReply, Message)> {
        self.ready.pop_front()
    }

    /// Bytes that wait on this side.
    pub fn waiting_bytes(&self) -> usize {
        self.sender.bytes()
    }

    /// Requests that have no reply yet.
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Registers what [`Worker::run`] waits for.
    pub fn wait(&self, poller: &mut Poller) {
        let out = if self.sender.is_empty() { 0 } else { libc::POLLOUT };
        poller.fd(self.socket.as_raw_fd(), libc::POLLIN | out);
    }

    /// Sleeps until the socket has something to do, or for the time given.
    pub fn sleep(&self, flags: PollFlags, limit: Option<Duration>) {
        let limit = limit.and_then(|d| Timespec::try_from(d).ok());
        // A signal ends the sleep early; the caller looks again in any case.
        let _ = poll(&mut [PollFd::new(&self.socket, flags)], limit.as_ref());
    }

    /// Tells the worker that nothing more will come, and gives it some time to finish what it has. A worker that is
    /// stuck goes on alone. True if it has finished.
    pub fn finish(mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut shut = false;
        loop {
            if !shut && self.sender.flush(self.socket.as_fd()).unwrap_or(true) {
                let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
                shut = true;
            }
            if let Err(error) = self.receive() {
                return matches!(error, WorkerError::Lost { ended: Some(_), .. });
            }
            let now = Instant::now();
            if now >= end {
                return false;
            }
            let flags = if shut { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            self.sleep(flags, Some(end - now));
        }
    }

    fn flush(&mut self) -> Result<(), WorkerError> {
        self.sender.flush(self.socket.as_fd()).map(drop).map_err(|broken| self.lost(broken))
    }

    fn receive(&mut self) -> Result<(), WorkerError> {
        loop {
            match self.receiver.receive(self.socket.as_fd()) {
                Ok(None) => return Ok(()),
                Ok(Some((message, false))) => {
                    REPLIES.inc();
                    match self.waiting.pop_front() {
                        Some(on_reply) => self.ready.push_back((on_reply, message)),
                        None => return Err(self.lost(Broken::Rubbish("a reply that nobody asked for"))),
                    }
                }
                Ok(Some((_, true))) => return Err(self.lost(Broken::Rubbish("a request instead of a reply"))),
                Err(broken) => return Err(self.lost(broken)),
            }
        }
    }

    fn lost(&self, broken: Broken) -> WorkerError {
        // Its socket closes a moment before a killed process can be waited for.
        let patience = if broken == Broken::Closed { Duration::from_millis(100) } else { Duration::ZERO };
        WorkerError::Lost { broken, ended: crate::process::try_wait(self.pid, patience) }
    }
}

/// The daemon's one worker, and who is to be woken when something waits for it.
struct Shared {
    worker: Option<Worker>,
    waker: Option<Waker>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { worker: None, waker: None });

/// Makes `worker` the daemon's. `waker` ends the sleep of the loop that calls [`run`].
pub fn install(worker: Worker, waker: Waker) {
    *SHARED.lock() = Shared { worker: Some(worker), waker: Some(waker) };
}

/// Hands a request to the daemon's worker without waiting; refused when more than `room` bytes would then wait. Any
/// thread.
pub fn post(message: Message, on_reply: Option<OnReply>, room: usize) -> Result<(), WorkerError> {
    let mut shared = SHARED.lock();
    let worker = shared.worker.as_mut().ok_or(WorkerError::None)?;
    let waited = worker.waiting_bytes() > 0;
    if worker.waiting_bytes().saturating_add(message.data.len()) > room {
        FULL.inc();
        return Err(WorkerError::Full);
    }
    let result = worker.submit(message, on_reply);
    if !waited && worker.waiting_bytes() > 0 {
        if let Some(waker) = &shared.waker {
            waker.wake();
        }
    }
    match result {
        // Whoever runs the loop learns it there, and ends the process.
        Err(WorkerError::Lost { .. }) => Ok(()),
        result => result,
    }
}

/// Moves requests and replies, and runs what waits for the replies. Main thread, each turn.
pub fn run() -> Result<(), WorkerError> {
    let result = SHARED.lock().worker.as_mut().map_or(Ok(()), Worker::run);
    loop {
        // The lock is not held while a reply is dealt with: that may log, and so send requests.
        let Some((on_reply, message)) = SHARED.lock().worker.as_mut().and_then(Worker::next_reply) else {
            break;
        };
        on_reply(message);
    }
    result
}

/// Registers what [`run`] waits for.
pub fn wait(poller: &mut Poller) {
    if let Some(worker) = &SHARED.lock().worker {
        worker.wait(poller);
    }
}

/// Takes the daemon's worker away, to end it; requests are refused from now on.
pub fn take() -> Option<Worker> {
    SHARED.lock().worker.take()
}

//! The log file: written directly until there is a worker process, and by the worker from then on, so that a disk
//! that does not answer stalls nobody who logs.
//!
//! What the worker does not take waits in memory up to a bound; lines beyond are lost, counted, and told of in the
//! file once there is room. Opening goes in two steps: the worker opens the new file and says how that went, then the
//! last line goes to the old file and the worker changes over. Any thread writes; main opens.

use super::control::strerror;
use super::sink::SINKS;
use super::{Module, VlogError};
use crate::coverage::Counter;
use crate::worker::{self, Jobs, Message, WorkerError};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

static LOG: Module = Module::new("vlog");
static DROPPED: Counter = Counter::new("vlog_file_dropped");

/// Requests to the worker.
const WRITE: u32 = 1;
const OPEN: u32 = 2;
const SWITCH: u32 = 3;
const CLOSE: u32 = 4;
const SYNC: u32 = 5;

/// What a reply to `OPEN` says in its kind: a file that is not the present one, the present one, or none.
const OPENED: u32 = 1;
const SAME: u32 = 2;
const FAILED: u32 = 3;

pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn is_same(a: &File, b: &File) -> bool {
    matches!((a.metadata(), b.metadata()), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Where lines go.
pub(super) struct LogFile {
    /// The file as it was opened last. With a worker it is for the time after the worker's death.
    file: Option<File>,
    delegated: bool,
    /// Lines lost since the last one that was written.
    dropped: u64,
}

impl LogFile {
    pub const fn new() -> Self {
        LogFile { file: None, delegated: false, dropped: 0 }
    }

    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Writes one line; a full disk, or one that does not answer, loses it.
    pub fn write(&mut self, line: &str, lost: impl FnOnce(&str) -> String) {
        let Some(file) = &mut self.file else { return };
        if !self.delegated {
            let _ = file.write_all(line.as_bytes());
            return;
        }
        let note = match self.dropped {
            0 => String::new(),
            n => lost(&format!("Dropped {n} log messages because the log file could not be written")),
        };
        match worker::post(Message::new(WRITE, note + line), None, worker::MAX_WAITING) {
            Err(WorkerError::Full) => {
                self.dropped += 1;
                DROPPED.inc();
            }
            Err(_) => {}
            Ok(()) => self.dropped = 0,
        }
    }

    fn close(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.delegated {
            let _ = worker::post(Message::new(CLOSE, ""), None, usize::MAX);
        }
        drop(file);
    }
}

/// The worker's half: the only process that touches the file.
struct FileJobs {
    file: Option<File>,
    candidate: Option<File>,
}

impl Jobs for FileJobs {
    fn run(&mut self, request: Message) -> Message {
        match request.kind {
            WRITE => {
                if let Some(file) = &mut self.file {
                    let _ = file.write_all(&request.data);
                }
            }
            OPEN => return self.open(&PathBuf::from(std::ffi::OsString::from_vec(request.data))),
            // Two openings at once have one candidate, and two changes.
            SWITCH => self.file = self.candidate.take().or(self.file.take()),
            CLOSE => self.file = None,
            _ => {}
        }
        Message::default()
    }
}

impl FileJobs {
    fn open(&mut self, path: &Path) -> Message {
        let file = match open(path) {
            Ok(file) => file,
            Err(error) => return Message::new(FAILED, strerror(&error)),
        };
        if self.file.as_ref().is_some_and(|old| is_same(old, &file)) {
            return Message::new(SAME, "");
        }
        let copy: Vec<OwnedFd> = file.try_clone().map(OwnedFd::from).into_iter().collect();
        self.candidate = Some(file);
        Message { kind: OPENED, data: Vec::new(), fds: copy }
    }
}

/// What a worker process needs to serve the log, and the descriptor that it must keep.
pub fn worker_jobs() -> (impl Jobs, Vec<RawFd>) {
    let sinks = SINKS.lock();
    let file = sinks.file.file.as_ref().and_then(|f| f.try_clone().ok());
    let keep = file.iter().map(AsRawFd::as_raw_fd).collect();
    (FileJobs { file, candidate: None }, keep)
}

/// Gives the log file to the user that the process becomes, so that it can be opened anew.
pub fn set_owner(uid: u32, gid: u32) {
    if let Some(file) = &SINKS.lock().file.file {
        if let Err(error) = std::os::unix::fs::fchown(file, Some(uid), Some(gid)) {
            eprintln!(
                "{}: the log file cannot be given to user {uid} ({})",
                super::program_name(),
                strerror(&error)
            );
        }
    }
}

/// From now on the daemon's worker writes the log file.
pub fn delegate() {
    SINKS.lock().file.delegated = true;
}

/// The worker is gone: this process writes its last lines itself, as far as that does not block.
pub fn take_back() {
    let file = &mut SINKS.lock().file;
    file.delegated = false;
    if let Some(file) = &file.file {
        let _ = rustix::io::ioctl_fionbio(file, true);
    }
}

/// An opening under way: the outcome, once it is there.
#[derive(Clone)]
pub struct Opening(Arc<Mutex<Option<Result<(), VlogError>>>>);

impl Opening {
    /// The outcome; none while the disk has not answered.
    pub fn outcome(&self) -> Option<Result<(), VlogError>> {
        self.0.lock().take()
    }
}

/// Opens the log file anew, after it was moved away. The outcome comes at once, or with the worker's answer.
pub fn reopen() -> Opening {
    let opening = Opening(Arc::new(Mutex::new(None)));
    let Some(path) = super::log_file() else {
        *opening.0.lock() = Some(Err(VlogError::NoFile));
        return opening;
    };
    if !SINKS.lock().file.delegated {
        *opening.0.lock() = Some(set_log_file(&path));
        return opening;
    }
    let (slot, name) = (opening.clone(), path.as_os_str().as_bytes().to_vec());
    let on_reply = move |reply: Message| {
        let outcome = opened(&path, reply);
        // Done is what stands in the file: the reply to this comes after the lines that were just logged.
        let done = Box::new(move |_: Message| *slot.0.lock() = Some(outcome));
        let _ = worker::post(Message::new(SYNC, ""), Some(done), usize::MAX);
    };
    // Beyond what lines may take there is room for some openings, but not for any number.
    let request = Message::new(OPEN, name);
    if let Err(error) = worker::post(request, Some(Box::new(on_reply)), 2 * worker::MAX_WAITING) {
        *opening.0.lock() = Some(Err(VlogError::Worker(error.to_string())));
    }
    opening
}

/// The worker's answer to `OPEN`.
fn opened(path: &Path, mut reply: Message) -> Result<(), VlogError> {
    match reply.kind {
        OPENED => {
            if SINKS.lock().file.is_open() {
                crate::info!(LOG, "closing log file");
            }
            let _ = worker::post(Message::new(SWITCH, ""), None, usize::MAX);
            SINKS.lock().file.file = reply.fds.pop().map(File::from);
            crate::info!(LOG, "opened log file {}", path.display());
            Ok(())
        }
        SAME => Ok(()),
        _ => {
            let reason = String::from_utf8_lossy(&reply.data).into_owned();
            Err(failed(path, reason))
        }
    }
}

fn failed(path: &Path, reason: String) -> VlogError {
    crate::warn!(LOG, "failed to open {} for logging: {reason}", path.display());
    VlogError::Open(reason)
}

/// Opens `path` as the log file, in this process, and says so in it.
pub fn set_log_file(path: &Path) -> Result<(), VlogError> {
    let new = open(path);
    let mut sinks = SINKS.lock();
    sinks.path = Some(path.to_path_buf());
    let (was_open, same) = match (&sinks.file.file, &new) {
        (Some(old), Ok(new)) => (true, is_same(old, new)),
        _ => (false, false),
    };
    drop(sinks);
    let file = match new {
        Ok(_) if same => return Ok(()),
        Ok(file) => file,
        Err(error) => return Err(failed(path, strerror(&error))),
    };
    if was_open {
        crate::info!(LOG, "closing log file");
    }
    let old = SINKS.lock().file.file.replace(file);
    drop(old);
    crate::info!(LOG, "opened log file {}", path.display());
    Ok(())
}

/// Closes the log file, if it is open.
pub fn close() {
    SINKS.lock().file.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_opened_closed_and_reopened() {
        static LOG: Module = Module::new("test_file");
        let path = std::env::temp_dir().join(format!("vlog-test-{}.log", std::process::id()));
        let _ = std::fs::remove_file(&path);
        set_log_file(&path).unwrap();
        crate::err!(LOG, "first {}", 1);
        close();
        crate::err!(LOG, "lost");
        reopen().outcome().unwrap().unwrap();
        crate::err!(LOG, "second");
        // The same file is not opened twice; what cannot be opened changes nothing.
        reopen().outcome().unwrap().unwrap();
        let moved = path.with_extension("old");
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(reopen().outcome(), Some(Err(VlogError::Open("Is a directory".into()))));
        std::fs::remove_dir(&path).unwrap();
        close();
        let text = std::fs::read_to_string(&moved).unwrap();
        let _ = std::fs::remove_file(&moved);
        assert!(text.contains("|test_file|ERR|first 1\n"), "{text}");
        assert!(text.contains("|test_file|ERR|second\n") && !text.contains("lost"), "{text}");
        let line = format!("|vlog|WARN|failed to open {} for logging: Is a directory\n", path.display());
        assert!(text.contains(&line) && !text.contains("closing"), "{text}");
    }
}

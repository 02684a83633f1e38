//! Life as a daemon: pidfile, background, monitor, user.
//!
//! Main thread, before any other thread exists. The parent returns to the shell
//! only when the daemon proper says that it is ready.

use crate::cli::Options;
use crate::paths;
use infra::process::{self, Ended, Forked};
use infra::vlog::Module;
use infra::{err, info, vlog, warn};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

static LOG: Module = Module::new("daemon_unix");
static VLOG: Module = Module::new("vlog");

/// Seconds between two restarts by the monitor.
const RESTART_INTERVAL_MS: i64 = 10_000;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another process holds the pidfile.
    #[error("{path}: already running as pid {pid}, aborting")]
    Running {
        /// The pidfile.
        path: String,
        /// The other process.
        pid: i32,
    },
    /// The pidfile cannot be written.
    #[error("{path}: {step} failed ({reason})")]
    Pidfile {
        /// The pidfile.
        path: String,
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        reason: String,
    },
    /// The user cannot be switched to.
    #[error("(null): {0}")]
    User(#[from] process::UserError),
    /// A system call failed.
    #[error("could not {0} ({1})")]
    System(&'static str, io::Error),
}

/// The daemon's own end of what `start` set up. Removes the pidfile when
/// dropped.
pub struct Daemon {
    pidfile: Option<(PathBuf, File)>,
    ready: Option<File>,
    detach: bool,
    chdir: bool,
}

/// The system's words for an error, without Rust's error number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// Takes the pidfile, goes to the background and under a monitor as asked.
/// Returns in the daemon proper; other processes end here with the status that
/// their parent is to see.
pub fn start(options: &Options) -> Result<Daemon, DaemonError> {
    let system = |what| move |error| DaemonError::System(what, error);
    if let Some(path) = options.pidfile.as_deref().filter(|_| !options.overwrite_pidfile) {
        if let Some(pid) = running(path) {
            return Err(DaemonError::Running { path: path.display().to_string(), pid });
        }
    }
    if let Some(user) = &options.user {
        vlog::set_owner(user.uid, user.gid);
        process::become_user(user)?;
    }
    let mut ready = None;
    if options.detach {
        match fork_and_wait().map_err(system("fork"))? {
            Side::Child(pipe) => ready = Some(pipe),
            Side::Parent { outcome: Ok(()), .. } => std::process::exit(0),
            Side::Parent { outcome: Err(code), .. } => std::process::exit(code),
        }
        process::new_session().map_err(system("start a session"))?;
    }
    if options.monitor {
        match fork_and_wait().map_err(system("fork"))? {
            Side::Child(pipe) => {
                // The first daemon reports to the monitor, which reports on.
                drop(ready.replace(pipe));
            }
            Side::Parent { outcome: Err(code), .. } => std::process::exit(code),
            Side::Parent { pid, outcome: Ok(()) } => {
                if let Some(pipe) = ready.take() {
                    process::say_ready(pipe);
                }
                if options.detach {
                    process::null_stdio().map_err(system("close standard files"))?;
                }
                monitor(pid, options);
            }
        }
    }
    let pidfile = options.pidfile.as_deref().map(|path| take_pidfile(path, options)).transpose()?;
    Ok(Daemon { pidfile, ready, detach: options.detach, chdir: !options.no_chdir })
}

enum Side {
    Child(File),
    Parent { pid: i32, outcome: Result<(), i32> },
}

/// Forks; the parent waits until the child is ready or gone, and then has the
/// exit code to pass on.
fn fork_and_wait() -> io::Result<Side> {
    let (reader, writer) = process::pipe()?;
    match process::fork()? {
        Forked::Child => {
            drop(reader);
            Ok(Side::Child(writer))
        }
        Forked::Parent(pid) => {
            drop(writer);
            if process::await_ready(reader) {
                return Ok(Side::Parent { pid, outcome: Ok(()) });
            }
            let code = match process::wait(pid)? {
                Ended::Exited(code) if code != 0 => code,
                ended => {
                    let program = vlog::program_name();
                    eprintln!("{program}: fork child died before signaling startup ({ended})");
                    1
                }
            };
            Ok(Side::Parent { pid, outcome: Err(code) })
        }
    }
}

/// Watches the daemon; returns only in a new daemon that replaces one that
/// crashed.
fn monitor(mut pid: i32, options: &Options) {
    vlog::set_thread_name("monitor");
    let mut crashes = 0u32;
    let mut health = "healthy".to_string();
    let mut restarted_at: Option<i64> = None;
    loop {
        infra::title::set(&format!("monitoring pid {pid} ({health})"));
        // Nobody would tell the monitor to open a log file anew that was moved away.
        if vlog::log_file().is_some() {
            info!(VLOG, "closing log file");
            vlog::close();
        }
        let ended = match process::wait(pid) {
            Ok(ended) => ended,
            Err(error) => {
                err!(LOG, "waiting for pid {pid} failed ({})", reason(&error));
                std::process::exit(1);
            }
        };
        vlog::reopen();
        let crashed = matches!(ended, Ended::Killed(signal, _) if is_crash(signal));
        if !crashed {
            info!(LOG, "pid {pid} died, {ended}, exiting");
            std::process::exit(0);
        }
        crashes += 1;
        health = format!("{crashes} crashes: pid {pid} died, {ended}");
        if options.unixctl.is_none() {
            // Its name has the pid in it, so no other daemon would replace it.
            let _ = std::fs::remove_file(paths::default_control_socket(pid.unsigned_abs()));
        }
        let now = infra::clock::now_ms();
        let wait_ms = restarted_at.map_or(0, |at| at + RESTART_INTERVAL_MS - now);
        if wait_ms > 0 {
            let interval = RESTART_INTERVAL_MS / 1000;
            warn!(LOG, "{health}, waiting until {interval} seconds since last restart");
            std::thread::sleep(std::time::Duration::from_millis(wait_ms as u64));
        }
        err!(LOG, "{health}, restarting");
        restarted_at = Some(infra::clock::now_ms());
        match fork_and_wait() {
            Ok(Side::Child(pipe)) => {
                // Nobody waits for this start; the monitor only wants to know
                // the pid, so it is told at once.
                process::say_ready(pipe);
                vlog::set_thread_name(vlog::program_name());
                infra::title::restore();
                return;
            }
            Ok(Side::Parent { pid: new, .. }) => pid = new,
            Err(error) => {
                err!(LOG, "fork failed ({})", reason(&error));
                std::process::exit(1);
            }
        }
    }
}

/// Signals that a programming error causes.
fn is_crash(signal: i32) -> bool {
    use libc::{SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGXCPU, SIGXFSZ};
    [SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGXCPU, SIGXFSZ].contains(&signal)
}

/// The pid that holds the lock on an existing pidfile.
fn running(path: &Path) -> Option<i32> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
    process::lock_holder(&file).ok().flatten()
}

/// Writes and locks the pidfile under another name, then moves it into place,
/// so that nobody ever sees it without pid or lock.
fn take_pidfile(path: &Path, options: &Options) -> Result<(PathBuf, File), DaemonError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let failed = |step, error: io::Error| DaemonError::Pidfile {
        path: temporary.display().to_string(),
        step,
        reason: reason(&error),
    };
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o644)
        .open(&temporary)
        .map_err(|e| failed("create", e))?;
    if let Err(pid) = process::lock(&file).map_err(|e| failed("fcntl", e))? {
        return Err(DaemonError::Running { path: path.display().to_string(), pid });
    }
    file.set_len(0).map_err(|e| failed("truncate", e))?;
    writeln!(file, "{}", std::process::id()).map_err(|e| failed("write", e))?;
    if let Some(pid) = running(path).filter(|_| !options.overwrite_pidfile) {
        let _ = std::fs::remove_file(&temporary);
        return Err(DaemonError::Running { path: path.display().to_string(), pid });
    }
    std::fs::rename(&temporary, path).map_err(|e| failed("rename", e))?;
    Ok((path.to_path_buf(), file))
}

impl Daemon {
    /// Says that start-up is complete: the parent may exit now, and the
    /// terminal is let go of. Only the first call does anything.
    pub fn complete(&mut self) {
        if let Some(pipe) = self.ready.take() {
            process::say_ready(pipe);
        }
        if std::mem::take(&mut self.detach) {
            if self.chdir {
                let _ = std::env::set_current_dir("/");
            }
            if let Err(error) = process::null_stdio() {
                err!(LOG, "could not close standard files ({})", reason(&error));
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some((path, file)) = self.pidfile.take() {
            let _ = std::fs::remove_file(&path);
            drop(file);
        }
    }
}

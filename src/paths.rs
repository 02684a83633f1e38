//! Directories and default file names, as Debian installs Open vSwitch, and
//! the environment variables that move them.

use infra::vlog;
use std::path::{Path, PathBuf};

fn directory(variable: &str, default: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(value) if !value.is_empty() => PathBuf::from(value),
        _ => PathBuf::from(default),
    }
}

/// Sockets and pidfiles.
pub fn rundir() -> PathBuf {
    directory("OVS_RUNDIR", "/var/run/openvswitch")
}

/// Log files.
pub fn logdir() -> PathBuf {
    directory("OVS_LOGDIR", "/var/log/openvswitch")
}

/// A file in the run directory, unless the name is absolute.
pub fn in_rundir(name: impl AsRef<Path>) -> PathBuf {
    rundir().join(name)
}

/// Where the database listens if nobody says otherwise.
pub fn default_database() -> String {
    format!("unix:{}", in_rundir("db.sock").display())
}

/// The log file of `--log-file`.
pub fn default_log_file() -> PathBuf {
    logdir().join(format!("{}.log", vlog::program_name()))
}

/// The file of `--pidfile[=NAME]`.
pub fn pidfile(name: &str) -> PathBuf {
    match name {
        "" => in_rundir(format!("{}.pid", vlog::program_name())),
        name => in_rundir(name),
    }
}

/// The control socket for `--unixctl`; none if it is switched off.
pub fn control_socket(option: Option<&str>) -> Option<PathBuf> {
    match option {
        Some("none") => None,
        Some(name) => Some(in_rundir(name)),
        None => Some(default_control_socket(std::process::id())),
    }
}

/// The control socket of a process that was not told another one.
pub fn default_control_socket(pid: u32) -> PathBuf {
    in_rundir(format!("{}.{pid}.ctl", vlog::program_name()))
}

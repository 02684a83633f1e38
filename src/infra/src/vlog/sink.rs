//! Outputs of the log: console, file, syslog. One lock, held for one line.

use super::file::LogFile;
use super::pattern::{self, Context, Record};
use super::{Destination, Level, Module, VlogError};
use parking_lot::Mutex;
use std::ffi::CString;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;

enum Syslog {
    Null,
    Libc,
    Unix(UnixDatagram, PathBuf),
    Udp(UdpSocket),
}

pub(super) struct Sinks {
    pub patterns: [Option<String>; 3],
    /// Facility that `FACILITY:` set, shifted as in a PRI.
    pub facility: Option<i32>,
    pub path: Option<PathBuf>,
    pub file: LogFile,
    syslog: Option<Syslog>,
    target: Option<UdpSocket>,
}

pub(super) static SINKS: Mutex<Sinks> = Mutex::new(Sinks {
    patterns: [None, None, None],
    facility: None,
    path: None,
    file: LogFile::new(),
    syslog: None,
    target: None,
});

static START: OnceLock<i64> = OnceLock::new();

/// Remembers when the program started (`%r`).
pub(super) fn mark_start() {
    let _ = START.set((crate::clock::real_ns() / 1_000_000) as i64);
}

impl Sinks {
    pub fn pattern(&self, destination: Destination) -> &str {
        self.patterns[destination as usize]
            .as_deref()
            .unwrap_or_else(|| pattern::default_pattern(destination))
    }

    /// What goes before messages to syslog.
    pub fn syslog_prefix(&self) -> &'static str {
        match &self.syslog {
            None | Some(Syslog::Libc) => pattern::LIBC_PREFIX,
            Some(Syslog::Null) => "",
            Some(Syslog::Unix(..) | Syslog::Udp(_)) => pattern::SOCKET_PREFIX,
        }
    }
}

/// Sends one record wherever `wanted` lets it. A full disk or a dead syslog
/// loses lines, never the program.
pub(super) fn emit(record: &Record<'_>, wanted: impl Fn(Destination) -> bool) {
    let mut sinks = SINKS.lock();
    let now = (crate::clock::real_ns() / 1_000_000) as i64;
    let context = Context {
        wall_ms: crate::clock::wall_ms(),
        since_start_ms: now - START.get().copied().unwrap_or(now),
        facility: sinks.facility.unwrap_or(libc::LOG_LOCAL0),
    };
    if wanted(Destination::Console) {
        let mut line = pattern::format(sinks.pattern(Destination::Console), record, &context);
        line.push('\n');
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    if wanted(Destination::File) && sinks.file.is_open() {
        let pattern = sinks.pattern(Destination::File).to_string();
        let format = |record: &Record<'_>| pattern::format(&pattern, record, &context) + "\n";
        let about_lost =
            |message: &str| format(&Record { module: "vlog", level: Level::Warn, message, ..*record });
        sinks.file.write(&format(record), about_lost);
    }
    if wanted(Destination::Syslog) {
        let facility = sinks.facility.unwrap_or(libc::LOG_DAEMON);
        sinks.send_syslog(record, &Context { facility, ..context });
    }
}

impl Sinks {
    fn send_syslog(&mut self, record: &Record<'_>, context: &Context) {
        let text = pattern::format(self.pattern(Destination::Syslog), record, context);
        let syslog = self.syslog.get_or_insert_with(|| {
            let method = std::env::var("OVS_SYSLOG_METHOD").unwrap_or_default();
            open_method(&method).unwrap_or(Syslog::Libc)
        });
        for line in text.lines() {
            let framed = || format!("{}{line}", pattern::format(pattern::SOCKET_PREFIX, record, context));
            match syslog {
                Syslog::Null => {}
                Syslog::Libc => to_libc(context.facility | record.level.severity(), line),
                Syslog::Unix(socket, path) => {
                    let _ = socket.send_to(framed().as_bytes(), path);
                }
                Syslog::Udp(socket) => {
                    let _ = socket.send(framed().as_bytes());
                }
            }
        }
        if let Some(target) = &self.target {
            let facility = self.facility.unwrap_or(libc::LOG_LOCAL0);
            let pri = facility | record.level.severity();
            let time = rfc5424_time(context.wall_ms);
            let (program, pid) = (super::program_name(), std::process::id());
            let host = pattern::format("%E", record, context);
            // RFC 5424: the module is the kind of message; a byte order mark says that the text is UTF-8.
            let head = format!("<{pri}>1 {time} {host} {program} {pid} {} - \u{feff}", record.module);
            let _ = target.send(format!("{head}{}", record.message).as_bytes());
        }
    }
}

fn rfc5424_time(wall_ms: i64) -> String {
    let record = Record { module: "", level: Level::Info, serial: 0, thread: "", message: "" };
    let context = Context { wall_ms, since_start_ms: 0, facility: 0 };
    pattern::format("%D{%Y-%m-%dT%H:%M:%S.###Z}", &record, &context)
}

fn to_libc(priority: i32, line: &str) {
    static IDENT: OnceLock<CString> = OnceLock::new();
    let ident = IDENT.get_or_init(|| {
        let ident = CString::new(super::program_name()).unwrap_or_default();
        // SAFETY: the identifier is stored in a static and so outlives the log connection.
        unsafe { libc::openlog(ident.as_ptr(), libc::LOG_NDELAY, libc::LOG_DAEMON) };
        ident
    });
    debug_assert!(!ident.as_bytes().is_empty());
    if let Ok(line) = CString::new(line) {
        // SAFETY: the format takes exactly one NUL-terminated string.
        unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) };
    }
}

/// Opens a syslog method: `libc`, `null`, `unix:FILE`, `udp:IP:PORT`.
fn open_method(method: &str) -> Option<Syslog> {
    match method {
        "" | "libc" => Some(Syslog::Libc),
        "null" => Some(Syslog::Null),
        _ => {
            if let Some(path) = method.strip_prefix("unix:") {
                let socket = UnixDatagram::unbound().ok()?;
                socket.set_nonblocking(true).ok()?;
                return Some(Syslog::Unix(socket, PathBuf::from(path)));
            }
            // An address that cannot be used loses the messages, as everything about syslog does.
            Some(udp(method.strip_prefix("udp:")?).map_or(Syslog::Null, Syslog::Udp))
        }
    }
}

fn udp(target: &str) -> Option<UdpSocket> {
    let address: std::net::SocketAddr = target.parse().ok()?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// Chooses how syslog is reached (`--syslog-method`).
pub fn set_syslog_method(method: &str) -> Result<(), VlogError> {
    let opened = open_method(method).ok_or_else(|| VlogError::BadSyslog(method.to_string()))?;
    SINKS.lock().syslog = Some(opened);
    Ok(())
}

/// Sends syslog messages to a UDP port as well (`--syslog-target`); one that cannot be used is told of and left.
pub fn set_syslog_target(target: &str) {
    static LOG: Module = Module::new("vlog");
    static SOCKET_LOG: Module = Module::new("socket_util");
    match udp(target) {
        Some(socket) => {
            SINKS.lock().target = Some(socket);
            crate::warn!(LOG, "--syslog-target flag is deprecated, use --syslog-method instead");
        }
        None => match target.rsplit_once(':') {
            None => crate::err!(SOCKET_LOG, "{target}: port must be specified"),
            Some((_, port)) if port.parse::<u16>().is_err() => {
                crate::err!(SOCKET_LOG, "{target}: bad port number \"{port}\"");
            }
            Some((host, _)) => crate::err!(SOCKET_LOG, "{target}: bad IP address \"{host}\""),
        },
    }
}

/// The log file that was chosen, open or not.
pub fn log_file() -> Option<PathBuf> {
    SINKS.lock().path.clone()
}

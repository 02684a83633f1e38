//! Line formats: `%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m` and its kin.

use super::{Destination, Level};
use std::ffi::CString;
use std::fmt::Write as _;

/// One message on its way to the destinations.
pub(super) struct Record<'a> {
    pub module: &'a str,
    pub level: Level,
    pub serial: u32,
    pub thread: &'a str,
    pub message: &'a str,
}

/// What a format needs besides the message.
pub(super) struct Context {
    pub wall_ms: i64,
    pub since_start_ms: i64,
    /// Syslog facility, shifted as in a PRI.
    pub facility: i32,
}

/// The format of a destination until somebody changes it.
pub(super) fn default_pattern(destination: Destination) -> &'static str {
    match destination {
        Destination::Syslog => "ovs|%05N|%c%T|%p|%m",
        Destination::Console => "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m",
        Destination::File => "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
    }
}

/// What goes before a syslog message, as `vlog/list-pattern` shows it, when the C library writes it.
pub(super) const LIBC_PREFIX: &str = "<%B> %D{%h %e %T} %E %A:";
/// The same, when we write it to a socket ourselves.
pub(super) const SOCKET_PREFIX: &str = "<%B>";

/// Expands `pattern` for one record.
pub(super) fn format(pattern: &str, record: &Record<'_>, context: &Context) -> String {
    let mut out = String::with_capacity(pattern.len() + record.message.len() + 32);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = rest.next_if_eq(&'-').is_some();
        let zero = rest.next_if_eq(&'0').is_some();
        let mut width = 0usize;
        while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
            width = (width * 10 + digit as usize).min(1024);
            rest.next();
        }
        let Some(escape) = rest.next() else { break };
        let mut argument = None;
        if matches!(escape, 'd' | 'D') && rest.next_if_eq(&'{').is_some() {
            argument = Some(rest.by_ref().take_while(|&c| c != '}').collect::<String>());
        }
        let text = expand(escape, argument.as_deref(), record, context);
        pad(&mut out, &text, left, zero, width);
    }
    out
}

fn pad(out: &mut String, text: &str, left: bool, zero: bool, width: usize) {
    let fill = width.saturating_sub(text.chars().count());
    let padding = std::iter::repeat_n(if zero { '0' } else { ' ' }, fill);
    if left {
        out.push_str(text);
        out.extend(padding);
    } else {
        out.extend(padding);
        out.push_str(text);
    }
}

fn expand(escape: char, argument: Option<&str>, record: &Record<'_>, context: &Context) -> String {
    match escape {
        'A' => super::program_name().to_string(),
        'B' => (context.facility | record.level.severity()).to_string(),
        'c' => record.module.to_string(),
        'd' => strftime(argument.unwrap_or("%Y-%m-%d %H:%M:%S.###"), context.wall_ms, false),
        'D' => strftime(argument.unwrap_or("%Y-%m-%d %H:%M:%S.###"), context.wall_ms, true),
        'E' => hostname(),
        'm' => record.message.to_string(),
        'N' => record.serial.to_string(),
        'n' => "\n".to_string(),
        'p' => record.level.name().to_string(),
        'P' => std::process::id().to_string(),
        'r' => context.since_start_ms.to_string(),
        't' if record.thread.is_empty() => "main".to_string(),
        't' => record.thread.to_string(),
        'T' if record.thread.is_empty() => String::new(),
        'T' => format!("({})", record.thread),
        other => other.to_string(),
    }
}

fn hostname() -> String {
    let mut buf = [0u8; 256];
    // SAFETY: the length given is one less than the buffer's, which stays NUL-terminated.
    unsafe { libc::gethostname(buf.as_mut_ptr().cast(), buf.len() - 1) };
    let end = buf.iter().position(|&b| b == 0).unwrap_or(0);
    String::from_utf8_lossy(&buf[..end]).into_owned()
}

/// strftime(3), where `#`s stand for fractions of the second.
fn strftime(format: &str, wall_ms: i64, utc: bool) -> String {
    let seconds: libc::time_t = wall_ms.div_euclid(1000);
    // SAFETY: all-zero is a valid `tm`.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types.
    unsafe {
        if utc {
            libc::gmtime_r(&seconds, &mut tm);
        } else {
            libc::localtime_r(&seconds, &mut tm);
        }
    }
    let Ok(format) = CString::new(format) else { return String::new() };
    let mut buf = [0u8; 512];
    // SAFETY: `buf` has the length given, `format` is NUL-terminated, `tm` is live.
    let n = unsafe { libc::strftime(buf.as_mut_ptr().cast(), buf.len(), format.as_ptr(), &tm) };
    let text = String::from_utf8_lossy(&buf[..n]).into_owned();
    let mut millis = String::new();
    let _ = write!(millis, "{:03}", wall_ms.rem_euclid(1000));
    let mut digits = millis.chars();
    text.chars().map(|c| if c == '#' { digits.next().unwrap_or('0') } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pattern: &str, thread: &str) -> String {
        let record = Record { module: "dpif", level: Level::Warn, serial: 5, thread, message: "hello %m" };
        let context = Context { wall_ms: 1_795_190_400_042, since_start_ms: 7, facility: libc::LOG_DAEMON };
        format(pattern, &record, &context)
    }

    #[test]
    fn default_formats() {
        assert_eq!(
            line(default_pattern(Destination::File), "revalidator5"),
            "2026-11-20T16:00:00.042Z|00005|dpif(revalidator5)|WARN|hello %m"
        );
        assert_eq!(
            line(default_pattern(Destination::Console), ""),
            "2026-11-20T16:00:00Z|00005|dpif|WARN|hello %m"
        );
        assert_eq!(line("%B %t %r %%|%-6p|%6p|%06N%", ""), "28 main 7 %|WARN  |  WARN|000005");
    }
}

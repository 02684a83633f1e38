//! `-v`, `vlog/set`, `vlog/list`, `vlog/list-pattern`, `vlog/reopen`,
//! `vlog/close`, `vlog/enable-rate-limit`, `vlog/disable-rate-limit`.

use super::sink::SINKS;
use super::{registry, Destination, Level};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// Why a log command was refused; the texts are what users see.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VlogError {
    /// Two levels in one specification.
    #[error("cannot specify multiple levels")]
    Levels,
    /// Two destinations in one specification.
    #[error("cannot specify multiple destinations")]
    Destinations,
    /// Two modules in one specification.
    #[error("cannot specify multiple modules")]
    Modules,
    /// A word that is none of them.
    #[error("no destination, level, or module \"{0}\"")]
    Word(String),
    /// A pattern for a destination that does not exist.
    #[error("unknown destination \"{0}\"")]
    Destination(String),
    /// `PATTERN` without destination and pattern.
    #[error("missing destination")]
    NoDestination,
    /// A syslog facility that does not exist.
    #[error("invalid facility")]
    Facility,
    /// A rate-limit command for a module that does not exist.
    #[error("unknown module")]
    UnknownModule,
    /// `vlog/reopen` without a log file.
    #[error("Logging to file not configured")]
    NoFile,
    /// The log file cannot be opened: the system's reason.
    #[error("{0}")]
    Open(String),
    /// The worker process does not take the request.
    #[error("{0}")]
    Worker(String),
    /// A syslog method or target that cannot be used.
    #[error("unsupported syslog method or target: {0}")]
    BadSyslog(String),
}

/// The system's words for an I/O error, without Rust's error number.
pub(super) fn strerror(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "clock", "ftp", "ntp",
    "audit", "alert", "clock2", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7", "",
];

fn facility(word: &str) -> Option<i32> {
    let index = FACILITIES.iter().position(|f| !f.is_empty() && f.eq_ignore_ascii_case(word))?;
    // Numbers of RFC 5424: 0 to 9, then 11 to 15, then 16 to 23 for local0 to local7.
    let number = match index {
        0..=9 => index,
        _ => index + 1,
    };
    Some((number as i32) << 3)
}

/// Applies one specification, as in `-vSPEC` and `vlog/set SPEC`.
pub fn set(spec: &str) -> Result<(), VlogError> {
    let (head, tail) = spec.split_once(':').map_or((spec, None), |(h, t)| (h, Some(t)));
    if head.eq_ignore_ascii_case("pattern") {
        return set_pattern(tail.unwrap_or(""));
    }
    if head.eq_ignore_ascii_case("facility") {
        SINKS.lock().facility = Some(facility(tail.unwrap_or("")).ok_or(VlogError::Facility)?);
        return Ok(());
    }
    let (mut module, mut destination, mut level) = (None, None, None);
    for word in spec.split([' ', ',', ':']).filter(|w| !w.is_empty()) {
        if word.eq_ignore_ascii_case("any") {
            continue;
        } else if let Some(d) = Destination::parse(word) {
            if destination.replace(d).is_some() {
                return Err(VlogError::Destinations);
            }
        } else if let Some(l) = Level::parse(word) {
            if level.replace(l).is_some() {
                return Err(VlogError::Levels);
            }
        } else if let Some(m) = find(word) {
            if module.replace(m).is_some() {
                return Err(VlogError::Modules);
            }
        } else {
            return Err(VlogError::Word(word.to_string()));
        }
    }
    apply(module, destination, level.unwrap_or(Level::Dbg));
    Ok(())
}

/// A module by name; case does not matter.
fn find(word: &str) -> Option<&'static str> {
    registry().lock().modules.keys().find(|name| name.eq_ignore_ascii_case(word)).copied()
}

fn apply(module: Option<&'static str>, destination: Option<Destination>, level: Level) {
    let mut registry = registry().lock();
    for d in Destination::ALL.into_iter().filter(|d| destination.is_none_or(|only| only == *d)) {
        for (name, state) in &registry.modules {
            if module.is_none_or(|only| only == *name) {
                state.set(d, level);
            }
        }
        if module.is_none() {
            registry.initial[d as usize] = level;
        }
    }
}

fn set_pattern(rest: &str) -> Result<(), VlogError> {
    if rest.is_empty() {
        return Err(VlogError::NoDestination);
    }
    let (word, text) = rest.split_once(':').unwrap_or((rest, ""));
    let only = match Destination::parse(word) {
        Some(d) => Some(d),
        None if word.eq_ignore_ascii_case("any") => None,
        None => return Err(VlogError::Destination(word.to_string())),
    };
    let mut sinks = SINKS.lock();
    for d in Destination::ALL.into_iter().filter(|d| only.is_none_or(|only| only == *d)) {
        sinks.patterns[d as usize] = Some(text.to_string());
    }
    Ok(())
}

/// The text of `vlog/list`.
pub fn list() -> String {
    let mut out = String::from(
        "                 console    syslog    file\n                 -------    ------    ------\n",
    );
    for (name, state) in &registry().lock().modules {
        let level = |d| state.level(d).name();
        let _ = writeln!(
            out,
            "{name:<16}  {:>4}       {:>4}       {:>4}",
            level(Destination::Console),
            level(Destination::Syslog),
            level(Destination::File)
        );
    }
    out
}

/// The text of `vlog/list-pattern`.
pub fn list_patterns() -> String {
    let sinks = SINKS.lock();
    let mut out = String::from(
        "         prefix                            format\n         ------                            ------\n",
    );
    for d in Destination::ALL {
        let prefix = if d == Destination::Syslog { sinks.syslog_prefix() } else { "none" };
        let _ = writeln!(out, "{:<7}  {prefix:<32}  {}", d.name().to_uppercase(), sinks.pattern(d));
    }
    out
}

/// Makes rate limits count, or not, for the named modules (for all if none or
/// `any` is named).
pub fn set_rate_limits(modules: &[&str], enabled: bool) -> Result<(), VlogError> {
    if modules.is_empty() {
        for state in registry().lock().modules.values() {
            state.limited.store(enabled, Ordering::Relaxed);
        }
    }
    for word in modules {
        if word.eq_ignore_ascii_case("any") {
            set_rate_limits(&[], enabled)?;
            continue;
        }
        let name = find(word).ok_or(VlogError::UnknownModule)?;
        if let Some(state) = registry().lock().modules.get(name) {
            state.limited.store(enabled, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlog::Module;

    static LATE: Module = Module::new("test_late");

    #[test]
    fn specifications_and_lists() {
        set("console:off").unwrap();
        set("syslog:off").unwrap();
        assert!(list().contains("bridge             OFF        OFF       INFO\n"), "{}", list());
        set("bridge,FILE dbg").unwrap();
        assert!(list().contains("bridge             OFF        OFF        DBG\n"));
        set("file:warn").unwrap();
        assert!(!LATE.enabled(Level::Info));
        assert!(LATE.enabled(Level::Warn));
        assert!(list().contains("\ntest_late "));
        assert_eq!(set("console:file"), Err(VlogError::Destinations));
        assert_eq!(set("dbg:info"), Err(VlogError::Levels));
        assert_eq!(set("bridge:netdev"), Err(VlogError::Modules));
        assert_eq!(set("foo").unwrap_err().to_string(), "no destination, level, or module \"foo\"");
        assert_eq!(set("PATTERN:foo:").unwrap_err().to_string(), "unknown destination \"foo\"");
        assert_eq!(set("FACILITY:foo"), Err(VlogError::Facility));
        assert_eq!(facility("local0"), Some(libc::LOG_LOCAL0));
        assert!(list_patterns()
            .contains("\nSYSLOG   <%B> %D{%h %e %T} %E %A:          ovs|%05N|%c%T|%p|%m\nCONSOLE  none  "));
        assert_eq!(set_rate_limits(&["foo"], false), Err(VlogError::UnknownModule));
    }
}

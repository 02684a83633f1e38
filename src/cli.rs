//! The command line, with the semantics of getopt_long: abbreviated long
//! options, values attached or apart, options after arguments.
//!
//! Neighbours: `main` acts on the result, `paths` knows the defaults. Main
//! thread, before anything else.

use crate::paths;
use infra::process::{self, User};
use infra::vlog;
use std::path::PathBuf;

/// What `--enable-dummy` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dummy {
    /// Dummy devices only where `type=dummy` says so.
    Plain,
    /// Dummy devices in place of system devices.
    System,
    /// Dummy devices in place of all others.
    Override,
}

/// What the program was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The database to connect to.
    pub database: String,
    /// Where to write the pid.
    pub pidfile: Option<PathBuf>,
    /// Start even though another process holds the pidfile.
    pub overwrite_pidfile: bool,
    /// Run in the background.
    pub detach: bool,
    /// Stay in the working directory when detached.
    pub no_chdir: bool,
    /// Restart the daemon when it crashes.
    pub monitor: bool,
    /// User and group to become.
    pub user: Option<User>,
    /// Lock all memory.
    pub mlockall: bool,
    /// Control socket: a path, a name in the run directory, or `none`.
    pub unixctl: Option<String>,
    /// Dummy devices for tests.
    pub dummy: Option<Dummy>,
    /// Do not touch the kernel's datapath.
    pub disable_system: bool,
    /// Do not read the system's routes.
    pub disable_system_route: bool,
    /// Made-up NUMA nodes of made-up cores, for tests.
    pub dummy_numa: Option<String>,
    /// Files for TLS.
    pub tls: Tls,
}

/// Files and settings for TLS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Our private key.
    pub private_key: Option<PathBuf>,
    /// Our certificate.
    pub certificate: Option<PathBuf>,
    /// The authority that peers are checked against.
    pub ca_cert: Option<PathBuf>,
    /// Take the authority from the first peer if the file is missing.
    pub bootstrap: bool,
    /// More certificates to send.
    pub peer_ca_cert: Option<PathBuf>,
    /// Protocol versions.
    pub protocols: Option<String>,
    /// Ciphers.
    pub ciphers: Option<String>,
}

/// The outcome of reading the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run with these options.
    Run(Box<Options>),
    /// Print this and exit with success.
    Print(String),
}

/// What is wrong with the command line; the text is the whole line to print.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct CliError(pub String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Optional,
    Required,
}
use Value::{None as No, Optional as Opt, Required as Req};

const LONG: &[(&str, Value)] = &[
    ("help", No),
    ("version", No),
    ("mlockall", No),
    ("unixctl", Req),
    ("detach", No),
    ("no-chdir", No),
    ("pidfile", Opt),
    ("overwrite-pidfile", No),
    ("monitor", No),
    ("user", Req),
    ("no-self-confinement", No),
    ("verbose", Opt),
    ("log-file", Opt),
    ("syslog-target", Req),
    ("syslog-method", Req),
    ("private-key", Req),
    ("certificate", Req),
    ("ca-cert", Req),
    ("peer-ca-cert", Req),
    ("bootstrap-ca-cert", Req),
    ("ssl-protocols", Req),
    ("ssl-ciphers", Req),
    ("enable-dummy", Opt),
    ("disable-system", No),
    ("disable-system-route", No),
    ("dummy-numa", Req),
];

const SHORT: &[(char, &str, Value)] = &[
    ('h', "help", No),
    ('V', "version", No),
    ('v', "verbose", Opt),
    ('p', "private-key", Req),
    ('c', "certificate", Req),
    ('C', "ca-cert", Req),
];

/// One step of the command line.
enum Item {
    Option(&'static str, Option<String>),
    Argument(String),
}

/// Splits a command line into options and arguments.
struct Getopt<'a> {
    program: &'a str,
    words: std::slice::Iter<'a, String>,
    /// Letters left of a group such as `-hV`.
    group: String,
    literal: bool,
}

impl Getopt<'_> {
    fn error(&self, text: &str) -> CliError {
        CliError(format!("{}: {text}", self.program))
    }

    fn next(&mut self) -> Result<Option<Item>, CliError> {
        if !self.group.is_empty() {
            return self.short().map(Some);
        }
        let Some(word) = self.words.next() else { return Ok(None) };
        if self.literal || word == "-" || !word.starts_with('-') {
            return Ok(Some(Item::Argument(word.clone())));
        }
        match word.strip_prefix("--") {
            Some("") => {
                self.literal = true;
                self.next()
            }
            Some(long) => self.long(long).map(Some),
            None => {
                self.group = word[1..].to_string();
                self.short().map(Some)
            }
        }
    }

    fn long(&mut self, text: &str) -> Result<Item, CliError> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_string())));
        let exact = LONG.iter().find(|(n, _)| *n == name);
        let candidates: Vec<_> = match exact {
            Some(found) => vec![found],
            None => LONG.iter().filter(|(n, _)| n.starts_with(name)).collect(),
        };
        let &&(full, kind) = match candidates.as_slice() {
            [] => return Err(self.error(&format!("unrecognized option '--{name}'"))),
            [one] => one,
            many => {
                let all: String = many.iter().map(|(n, _)| format!(" '--{n}'")).collect();
                return Err(self.error(&format!("option '--{name}' is ambiguous; possibilities:{all}")));
            }
        };
        match (kind, value) {
            (No, Some(_)) => Err(self.error(&format!("option '--{full}' doesn't allow an argument"))),
            (Req, None) => match self.words.next() {
                Some(word) => Ok(Item::Option(full, Some(word.clone()))),
                None => Err(self.error(&format!("option '--{full}' requires an argument"))),
            },
            (_, value) => Ok(Item::Option(full, value)),
        }
    }

    fn short(&mut self) -> Result<Item, CliError> {
        let letter = self.group.remove(0);
        let Some(&(_, name, kind)) = SHORT.iter().find(|(c, ..)| *c == letter) else {
            return Err(self.error(&format!("invalid option -- '{letter}'")));
        };
        if kind == No {
            return Ok(Item::Option(name, None));
        }
        let attached = std::mem::take(&mut self.group);
        if !attached.is_empty() {
            return Ok(Item::Option(name, Some(attached)));
        }
        if kind == Opt {
            return Ok(Item::Option(name, None));
        }
        match self.words.next() {
            Some(word) => Ok(Item::Option(name, Some(word.clone()))),
            None => Err(self.error(&format!("option requires an argument -- '{letter}'"))),
        }
    }
}

/// Reads the command line. Log options take effect as they are met, as the
/// error messages of later ones depend on them.
pub fn parse(argv0: &str, words: &[String]) -> Result<Parsed, CliError> {
    let program = vlog::program_name();
    let fail = |text: String| Err(CliError(format!("{program}: {text}")));
    let mut getopt = Getopt { program: argv0, words: words.iter(), group: String::new(), literal: false };
    let mut options = Options::default();
    let mut arguments = Vec::new();
    while let Some(item) = getopt.next()? {
        let (name, value) = match item {
            Item::Argument(word) => {
                arguments.push(word);
                continue;
            }
            Item::Option(name, value) => (name, value),
        };
        match name {
            "help" => return Ok(Parsed::Print(help())),
            "version" => return Ok(Parsed::Print(version())),
            "verbose" | "log-file" | "syslog-target" | "syslog-method" => {
                log_option(name, value.as_deref())?;
            }
            "enable-dummy" => {
                options.dummy = match value.as_deref() {
                    None | Some("") => Some(Dummy::Plain),
                    Some("system") => Some(Dummy::System),
                    Some("override") => Some(Dummy::Override),
                    Some(other) => return fail(format!("{other}: unknown dummy level")),
                }
            }
            "user" => match process::find_user(&value.unwrap_or_default()) {
                Ok(user) => options.user = Some(user),
                Err(error) => return fail(format!("(null): {error}")),
            },
            _ => set(&mut options, name, value.unwrap_or_default()),
        }
    }
    if arguments.len() > 1 {
        return fail("at most one non-option argument accepted; use --help for usage".into());
    }
    options.database = arguments.pop().unwrap_or_else(paths::default_database);
    Ok(Parsed::Run(Box::new(options)))
}

fn set(options: &mut Options, name: &str, value: String) {
    let path = || Some(PathBuf::from(&value));
    match name {
        "mlockall" => options.mlockall = true,
        "unixctl" => options.unixctl = Some(value),
        "detach" => options.detach = true,
        "no-chdir" => options.no_chdir = true,
        "pidfile" => options.pidfile = Some(paths::pidfile(&value)),
        "overwrite-pidfile" => options.overwrite_pidfile = true,
        "monitor" => options.monitor = true,
        "private-key" => options.tls.private_key = path(),
        "certificate" => options.tls.certificate = path(),
        "ca-cert" => {
            options.tls.ca_cert = path();
            options.tls.bootstrap = false;
        }
        "bootstrap-ca-cert" => {
            options.tls.ca_cert = path();
            options.tls.bootstrap = true;
        }
        "peer-ca-cert" => options.tls.peer_ca_cert = path(),
        "ssl-protocols" => options.tls.protocols = Some(value),
        "ssl-ciphers" => options.tls.ciphers = Some(value),
        "disable-system" => options.disable_system = true,
        "disable-system-route" => options.disable_system_route = true,
        "dummy-numa" => options.dummy_numa = Some(value),
        // The daemon never confines itself, so there is nothing to switch off.
        "no-self-confinement" => {}
        _ => unreachable!("every option of the table is handled"),
    }
}

fn log_option(name: &str, value: Option<&str>) -> Result<(), CliError> {
    let program = vlog::program_name();
    match (name, value) {
        ("verbose", None) => vlog::set("").map_err(|e| CliError(format!("{program}: {e}"))),
        ("verbose", Some(spec)) => {
            vlog::set(spec).map_err(|e| CliError(format!("{program}: processing \"{spec}\": {e}")))
        }
        ("log-file", value) => {
            let path = value.map_or_else(paths::default_log_file, PathBuf::from);
            // The reason is logged already; an empty line of our own would add nothing.
            vlog::set_log_file(&path).map_err(|_| CliError(String::new()))
        }
        ("syslog-target", Some(target)) => {
            vlog::set_syslog_target(target);
            Ok(())
        }
        (_, method) => {
            let method = method.unwrap_or_default();
            vlog::set_syslog_method(method)
                .map_err(|_| CliError(format!("{program}: unsupported syslog method '{method}'")))
        }
    }
}

/// The text of `--version` and the first line of the `version` command.
pub fn version() -> String {
    format!("{}\n{}\n", crate::version_line(), crate::dpdk_version())
}

fn help() -> String {
    let program = vlog::program_name();
    let rundir = paths::rundir();
    let (rundir, log) = (rundir.display(), paths::default_log_file());
    let log = log.display();
    format!(
        "{program}: Open vSwitch daemon
usage: {program} [OPTIONS] [DATABASE]
where DATABASE is a socket on which ovsdb-server is listening
      (default: \"unix:{rundir}/db.sock\").

Active DATABASE connection methods:
  tcp:HOST:PORT           PORT at remote HOST
  ssl:HOST:PORT           SSL PORT at remote HOST
  unix:FILE               Unix domain socket named FILE
PKI configuration (required to use SSL):
  -p, --private-key=FILE  file with private key
  -c, --certificate=FILE  file with certificate for private key
  -C, --ca-cert=FILE      file with peer CA certificate
  --bootstrap-ca-cert=FILE  file with peer CA certificate to read or create
SSL options:
  --ssl-protocols=PROTOS  list of SSL protocols to enable
  --ssl-ciphers=CIPHERS   list of SSL ciphers to enable

Daemon options:
  --detach                run in background as daemon
  --monitor               creates a process to monitor this daemon
  --user=username[:group] changes the effective daemon user:group
  --no-chdir              do not chdir to '/'
  --pidfile[=FILE]        create pidfile (default: {rundir}/{program}.pid)
  --overwrite-pidfile     with --pidfile, start even if already running

Logging options:
  -vSPEC, --verbose=SPEC   set logging levels
  -v, --verbose            set maximum verbosity level
  --log-file[=FILE]        enable logging to specified FILE
                           (default: {log})
  --syslog-method=(libc|unix:file|udp:ip:port)
                           specify how to send messages to syslog daemon
  --syslog-target=HOST:PORT  also send syslog msgs to HOST:PORT via UDP

DPDK options:
Configuration of DPDK via command-line is removed from this
version of Open vSwitch. DPDK is configured through ovsdb.

Other options:
  --unixctl=SOCKET          override default control socket name
  -h, --help                display this help message
  -V, --version             display version information
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<Parsed, CliError> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        parse("/sbin/x", &words)
    }

    fn options(words: &[&str]) -> Options {
        match run(words) {
            Ok(Parsed::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn refused(words: &[&str]) -> String {
        run(words).unwrap_err().0
    }

    #[test]
    fn options_in_all_spellings() {
        let o =
            options(&["--det", "tcp:1.2.3.4:5", "--pidfile=/x/y.pid", "--unixctl", "foo", "-p", "k", "-cC"]);
        assert!(o.detach && !o.monitor);
        assert_eq!(o.database, "tcp:1.2.3.4:5");
        assert_eq!(o.pidfile, Some("/x/y.pid".into()));
        assert_eq!(o.unixctl.as_deref(), Some("foo"));
        assert_eq!(o.tls.private_key, Some("k".into()));
        assert_eq!(o.tls.certificate, Some("C".into()));
        assert_eq!(options(&["--", "--detach"]).database, "--detach");
        assert_eq!(options(&["--enable-dummy=override"]).dummy, Some(Dummy::Override));
        assert_eq!(options(&["-vfile:info", "db"]).database, "db");
        assert!(matches!(run(&["--version", "--nonsense"]), Ok(Parsed::Print(_))));
    }

    #[test]
    fn refusals() {
        assert_eq!(refused(&["--foo"]), "/sbin/x: unrecognized option '--foo'");
        assert_eq!(refused(&["-x"]), "/sbin/x: invalid option -- 'x'");
        assert_eq!(refused(&["--unixctl"]), "/sbin/x: option '--unixctl' requires an argument");
        assert_eq!(refused(&["--detach=1"]), "/sbin/x: option '--detach' doesn't allow an argument");
        assert_eq!(
            refused(&["--p"]),
            "/sbin/x: option '--p' is ambiguous; possibilities: '--pidfile' '--private-key' '--peer-ca-cert'"
        );
        assert!(refused(&["a", "b"])
            .ends_with(": at most one non-option argument accepted; use --help for usage"));
        assert!(refused(&["-vfoo"]).ends_with("processing \"foo\": no destination, level, or module \"foo\""));
    }
}

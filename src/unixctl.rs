//! The control socket: JSON-RPC requests from `ovs-appctl`, answered from a
//! table of commands.
//!
//! A client gets one answer at a time and is not read while it does not take
//! its answer, so what it can make us keep is one request and one reply.
//! Neighbours: `commands` fills the table, `mainloop` runs us. Main thread.

use crate::coverage;
use crate::daemonize::reason;
use crate::stream::{Listener, Received, Stream};
use infra::command::{Command, Reply};
use infra::poll::Poller;
use infra::vlog::{Module, RateLimit};
use infra::{debug, vlog_rl};
use ovsdb::jsonrpc::{Framer, Limits, Message};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

static LOG: Module = Module::new("unixctl");
static RPC_LOG: Module = Module::new("jsonrpc");
static LIMIT: RateLimit = RateLimit::new(60, 10);

/// Clients beyond this many make the one that has been silent longest go.
const MAX_CLIENTS: usize = 512;
/// So many clients at once leave something behind.
const CROWD: usize = 64;
/// Requests or reads that one client gets in one turn of the main loop.
const TURN: usize = 16;

/// Asks for the answer of a command that takes longer; none if it is not there yet.
pub type Poll<C> = Box<dyn FnMut(&mut C) -> Option<Reply>>;

/// How a command ended, or goes on.
pub enum Outcome<C> {
    /// With this answer.
    Now(Reply),
    /// The answer is asked for on every turn of the main loop.
    Later(Poll<C>),
    /// The answer is empty, and due when the process is about to end.
    AtExit,
}

type Run<C> = Box<dyn Fn(&mut C, &[&str]) -> Outcome<C>>;

struct Entry<C> {
    usage: &'static str,
    min: usize,
    max: usize,
    run: Run<C>,
}

/// The table of commands that work on a `C`.
pub struct Commands<C>(BTreeMap<&'static str, Entry<C>>);

impl<C: 'static> Commands<C> {
    /// A table with nothing but `list-commands`.
    pub fn new() -> Self {
        Commands(BTreeMap::new())
    }

    /// Adds a command.
    pub fn add(
        &mut self,
        name: &'static str,
        usage: &'static str,
        arguments: std::ops::RangeInclusive<usize>,
        run: impl Fn(&mut C, &[&str]) -> Outcome<C> + 'static,
    ) {
        let entry = Entry { usage, min: *arguments.start(), max: *arguments.end(), run: Box::new(run) };
        self.0.insert(name, entry);
    }

    /// Adds commands of another part, which `part` finds in the context.
    pub fn add_all<T: ?Sized + 'static>(
        &mut self,
        commands: impl IntoIterator<Item = Command<T>>,
        part: fn(&mut C) -> &mut T,
    ) {
        for command in commands {
            let run = command.run;
            self.add(command.name, command.usage, command.min..=command.max, move |context, args| {
                Outcome::Now(run(part(context), args))
            });
        }
    }

    /// The text of `list-commands`.
    fn list(&self) -> String {
        let mut out = String::from("The available commands are:\n");
        let own = ("list-commands", "");
        let mut all: Vec<_> = self.0.iter().map(|(name, e)| (*name, e.usage)).chain([own]).collect();
        all.sort_unstable();
        for (name, usage) in all.into_iter().filter(|(_, usage)| *usage != infra::command::HIDDEN) {
            let _ = writeln!(out, "  {name:<23} {usage}");
        }
        out
    }

    /// Runs one request.
    fn dispatch(&self, context: &mut C, method: &str, params: &[Value]) -> Outcome<C> {
        let entry = self.0.get(method);
        let (min, max) = match entry {
            Some(entry) => (entry.min, entry.max),
            // The second name is that of old versions.
            None if method == "list-commands" || method == "help" => (0, 0),
            None => {
                return Outcome::Now(Err(format!(
                "\"{method}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            )))
            }
        };
        if params.len() < min {
            return Outcome::Now(Err(format!("\"{method}\" command requires at least {min} arguments")));
        }
        if params.len() > max {
            return Outcome::Now(Err(format!("\"{method}\" command takes at most {max} arguments")));
        }
        let args: Option<Vec<&str>> = params.iter().map(Value::as_str).collect();
        match (args, entry) {
            (None, _) => Outcome::Now(Err(format!("\"{method}\" command has non-string argument"))),
            (Some(_), None) => Outcome::Now(Ok(self.list())),
            (Some(args), Some(entry)) => (entry.run)(context, &args),
        }
    }
}

enum Pending<C> {
    No,
    Later(Value, Poll<C>),
    AtExit(Value),
}

struct Client<C> {
    name: String,
    stream: Stream,
    framer: Framer,
    output: VecDeque<u8>,
    pending: Pending<C>,
    /// Replies are JSON objects, as `ovs-appctl -f json` of later versions asks.
    json: bool,
    /// There may be whole requests in the framer.
    more: bool,
    last_used: i64,
}

/// The listening socket and its clients.
pub struct Server<C> {
    listener: Listener,
    clients: Vec<Client<C>>,
    commands: Commands<C>,
    connections: u64,
    /// The most clients at once since memory was last given back.
    crowd: usize,
}

impl<C: 'static> Server<C> {
    /// Listens on `path`.
    pub fn new(path: &Path, commands: Commands<C>) -> Result<Self, crate::stream::StreamError> {
        Ok(Server {
            listener: Listener::unix(path)?,
            clients: Vec::new(),
            commands,
            connections: 0,
            crowd: 0,
        })
    }

    /// Accepts clients, runs their requests, sends their answers.
    pub fn run(&mut self, context: &mut C, now: i64) {
        for _ in 0..TURN {
            match self.listener.accept() {
                Ok(Some(stream)) => self.admit(stream, now),
                Ok(None) => break,
                Err(error) => {
                    vlog_rl!(LOG, LIMIT, Warn, "accept failed: {}", reason(&error));
                    self.evict();
                    break;
                }
            }
        }
        let commands = &self.commands;
        self.clients.retain_mut(|client| client.run(commands, context, now));
        self.crowd = self.crowd.max(self.clients.len());
        if self.crowd >= CROWD && self.clients.len() <= self.crowd / 8 {
            // What a crowd made us keep lies scattered; without this its pages would stay.
            infra::process::trim_memory();
            self.crowd = self.clients.len();
        }
    }

    fn admit(&mut self, stream: Stream, now: i64) {
        if self.clients.len() >= MAX_CLIENTS {
            self.evict();
        }
        let name = format!("unix#{}", self.connections);
        self.connections += 1;
        self.clients.push(Client {
            name,
            stream,
            framer: Framer::new(Limits::CONTROL),
            output: VecDeque::new(),
            pending: Pending::No,
            json: false,
            more: false,
            last_used: now,
        });
    }

    /// Drops the client that has been silent longest.
    fn evict(&mut self) {
        let oldest = self.clients.iter().enumerate().min_by_key(|(_, c)| c.last_used).map(|(i, _)| i);
        if let Some(index) = oldest {
            let client = self.clients.remove(index);
            vlog_rl!(LOG, LIMIT, Warn, "{}: too many control connections, dropping the oldest", client.name);
        }
    }

    /// Registers what the socket and the clients wait for.
    pub fn wait(&self, poller: &mut Poller) {
        self.listener.wait(poller);
        for client in &self.clients {
            client.wait(poller);
        }
    }

    /// Answers those who wait for the end of the process.
    pub fn finish(&mut self) {
        for client in &mut self.clients {
            if let Pending::AtExit(id) = std::mem::replace(&mut client.pending, Pending::No) {
                client.reply(&id, Ok(String::new()));
                // Best effort: the answer is short and the peer is there to read it.
                let _ = client.stream.send(&mut client.output);
            }
        }
    }
}

impl<C: 'static> Client<C> {
    /// False if the connection is over.
    fn run(&mut self, commands: &Commands<C>, context: &mut C, now: i64) -> bool {
        self.more = false;
        for _ in 0..TURN {
            if let Pending::Later(id, poll) = &mut self.pending {
                let Some(reply) = poll(context) else { return true };
                let id = id.take();
                self.pending = Pending::No;
                self.reply(&id, reply);
            }
            if let Err(error) = self.stream.send(&mut self.output) {
                debug!(LOG, "{}: send failed: {}", self.name, reason(&error));
                return false;
            }
            if !self.is_ready() {
                return true;
            }
            match self.framer.next_message() {
                Ok(Some(message)) => {
                    self.last_used = now;
                    if !self.request(commands, context, message) {
                        return false;
                    }
                }
                Ok(None) => match self.receive(now) {
                    Some(true) => {}
                    Some(false) => return true,
                    None => return false,
                },
                Err(error) => {
                    vlog_rl!(RPC_LOG, LIMIT, Warn, "{}: {error}", self.name);
                    return false;
                }
            }
        }
        self.more = true;
        true
    }

    /// True if the next request may be read.
    fn is_ready(&self) -> bool {
        self.output.is_empty() && matches!(self.pending, Pending::No)
    }

    /// True if bytes came, false if none wait, none at the end.
    fn receive(&mut self, now: i64) -> Option<bool> {
        let mut buffer = [0; 16384];
        match self.stream.receive(&mut buffer) {
            Ok(Received::Bytes(n)) => {
                self.framer.push(&buffer[..n]);
                self.last_used = now;
                Some(true)
            }
            Ok(Received::Nothing) => Some(false),
            Ok(Received::End) => None,
            Err(error) => {
                debug!(RPC_LOG, "{}: receive error: {}", self.name, reason(&error));
                None
            }
        }
    }

    fn request(&mut self, commands: &Commands<C>, context: &mut C, message: Message) -> bool {
        let (method, params, id) = match message {
            Message::Request { method, params, id } => (method, params, id),
            other => {
                let kind = match other {
                    Message::Notify { .. } => "notification",
                    Message::Error { .. } => "error",
                    _ => "reply",
                };
                vlog_rl!(LOG, LIMIT, Warn, "{}: received unexpected {kind} message", self.name);
                return false;
            }
        };
        coverage::UNIXCTL_RECEIVED.inc();
        debug!(LOG, "received request {method}{}, id={id}", Value::Array(params.clone()));
        if method == "set-options" {
            let reply = self.set_options(&params);
            self.reply(&id, reply);
            return true;
        }
        match commands.dispatch(context, &method, &params) {
            Outcome::Now(reply) => self.reply(&id, reply),
            Outcome::Later(poll) => self.pending = Pending::Later(id, poll),
            Outcome::AtExit => self.pending = Pending::AtExit(id),
        }
        true
    }

    /// `set-options --format text|json`: what this client wants replies to be. Later versions of `ovs-appctl` send it
    /// before their command; it is not listed, as the version that we are has no such command.
    fn set_options(&mut self, params: &[Value]) -> Reply {
        let words: Option<Vec<&str>> = params.iter().map(Value::as_str).collect();
        let format = match words.as_deref() {
            Some(["--format", format]) => format,
            Some([word]) => word.strip_prefix("--format=").unwrap_or_default(),
            _ => "",
        };
        match format {
            "text" => self.json = false,
            "json" => self.json = true,
            _ => return Err("usage: set-options --format text|json".into()),
        }
        Ok(String::new())
    }

    fn reply(&mut self, id: &Value, reply: Reply) {
        coverage::UNIXCTL_REPLIED.inc();
        let (word, text) = match &reply {
            Ok(text) => ("success", text),
            Err(text) => ("error", text),
        };
        debug!(LOG, "replying with {word}, id={id}: \"{text}\"");
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let mut body = Value::String(format!("{text}{newline}"));
        if self.json && reply.is_ok() && !text.is_empty() {
            body = serde_json::json!({ "reply-format": "plain", "reply": body });
        }
        let line = match reply {
            Ok(_) => format!("{{\"id\":{id},\"result\":{body},\"error\":null}}"),
            Err(_) => format!("{{\"id\":{id},\"error\":{body}}}"),
        };
        self.output.extend(line.as_bytes());
    }

    fn wait(&self, poller: &mut Poller) {
        if self.more || matches!(self.pending, Pending::Later(..)) {
            poller.immediate();
        }
        // A client that waits for an answer is not read, but its end is noticed
        // when the answer is sent.
        let reading = self.is_ready();
        self.stream.wait(poller, reading, !self.output.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn commands() -> Commands<u32> {
        let mut commands = Commands::new();
        commands.add("count", "[n]", 0..=1, |count: &mut u32, _| {
            *count += 1;
            Outcome::Now(Ok(count.to_string()))
        });
        commands.add("wait", "", 0..=0, |_, _| {
            let mut turns = 0;
            Outcome::Later(Box::new(move |_| {
                turns += 1;
                (turns > 2).then(|| Ok("waited".into()))
            }))
        });
        commands.add("big", "", 0..=0, |_, _| Outcome::Now(Ok("x".repeat(3 << 20))));
        commands
    }

    fn converse(name: &str, input: &[u8]) -> String {
        let path = std::env::temp_dir().join(format!("ctl-{}-{name}", std::process::id()));
        let mut server = Server::new(&path, commands()).unwrap();
        let mut hog = UnixStream::connect(&path).unwrap();
        hog.write_all(b"{\"method\":\"big\",\"params\":[],\"id\":1}").unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(input).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut context = 0;
        for now in 0..50 {
            server.run(&mut context, now);
        }
        // The hog never reads: its answer stays with us, and it alone remains.
        assert_eq!(server.clients.len(), 1);
        drop(server);
        assert!(!path.exists());
        let mut out = String::new();
        let _ = client.read_to_string(&mut out);
        out
    }

    #[test]
    fn answers_in_order() {
        let out = converse(
            "order",
            br#"{"method":"count","params":[],"id":0} {"method":"wait","params":[],"id":"w"}
               {"method":"count","params":["1","2"],"id":2}{"method":"nope","params":[],"id":3}
               {"method":"count","params":[5],"id":4}{"method":"count","params":[],"id":5}"#,
        );
        assert_eq!(
            out,
            concat!(
                r#"{"id":0,"result":"1\n","error":null}{"id":"w","result":"waited\n","error":null}"#,
                r#"{"id":2,"error":"\"count\" command takes at most 1 arguments\n"}"#,
                r#"{"id":3,"error":"\"nope\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n"}"#,
                r#"{"id":4,"error":"\"count\" command has non-string argument\n"}"#,
                r#"{"id":5,"result":"2\n","error":null}"#
            )
        );
    }

    /// `-f json` of later tools.
    #[test]
    fn replies_in_json() {
        let out = converse(
            "json",
            br#"{"method":"set-options","params":["--format","json"],"id":0}{"method":"count","params":[],"id":1}
               {"method":"nope","params":[],"id":2}{"method":"set-options","params":["--format=text"],"id":3}
               {"method":"count","params":[],"id":4}{"method":"set-options","params":["x"],"id":5}"#,
        );
        assert_eq!(
            out,
            concat!(
                r#"{"id":0,"result":"","error":null}"#,
                r#"{"id":1,"result":{"reply":"1\n","reply-format":"plain"},"error":null}"#,
                r#"{"id":2,"error":"\"nope\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n"}"#,
                r#"{"id":3,"result":"","error":null}{"id":4,"result":"2\n","error":null}"#,
                r#"{"id":5,"error":"usage: set-options --format text|json\n"}"#
            )
        );
    }

    #[test]
    fn rubbish_ends_the_connection() {
        assert_eq!(converse("bad1", b"garbage"), "");
        assert_eq!(converse("bad2", b"{\"method\":\"count\",\"params\":[],\"id\":null}"), "");
        assert_eq!(converse("bad3", "{\"a\":[".repeat(2000).as_bytes()), "");
    }

    #[test]
    fn table_text() {
        assert_eq!(
            commands().list(),
            "The available commands are:\n  big                     \n  count                   [n]\n  \
             list-commands           \n  wait                    \n"
        );
    }
}

//! A JSON-RPC connection that comes back by itself: framing, echoes, probes and back-off together.
//!
//! Neighbours: [`crate::client`] reads and sends its messages; the owner of the socket moves the bytes.
//! Threads: belongs to one thread; nothing blocks, time comes in as milliseconds.

use infra::vlog::{Level, Module};
use serde_json::Value;

use crate::jsonrpc::{Framer, Limits, Message};
use crate::logline::{Lines, LogLine, JSONRPC};
use crate::reconnect::{Action, Reconnect};

/// Unsent bytes beyond which a peer that does not read is dropped.
const MAX_OUTPUT: usize = 64 << 20;

/// What the owner of the socket has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// Start to connect; report with `connected` or `connect_failed`.
    Connect,
    /// Close the socket, or stop connecting. No report is due.
    Disconnect,
}

/// One connection to a peer, over and over.
#[derive(Debug)]
pub struct Session {
    reconnect: Reconnect,
    limits: Limits,
    framer: Framer,
    output: Vec<u8>,
    lines: Lines,
}

/// The probe interval that fits a remote: sockets of this host need no probes.
pub fn default_probe_interval_ms(remote: &str) -> i64 {
    if remote.starts_with("unix:") {
        0
    } else {
        5_000
    }
}

impl Session {
    /// A session with the peer called `name` in log lines.
    pub fn new(name: &str, probe_interval_ms: i64, limits: Limits) -> Session {
        Session {
            reconnect: Reconnect::new(name, probe_interval_ms),
            limits,
            framer: Framer::new(limits),
            output: Vec::new(),
            lines: Lines::default(),
        }
    }

    /// So many peers are tried in turn, without waiting until each had its turn.
    pub fn set_peers(&mut self, count: usize) {
        self.reconnect.set_peers(count);
    }

    /// The next attempt goes to the peer of this name.
    pub fn set_name(&mut self, name: &str) {
        self.reconnect.set_name(name);
    }

    /// What is due on the socket. Call it until it wants nothing.
    pub fn run(&mut self, now: i64) -> Wanted {
        loop {
            match self.reconnect.run(now) {
                Action::None => return Wanted::Nothing,
                Action::Connect => return Wanted::Connect,
                Action::Disconnect => {
                    self.reset();
                    return Wanted::Disconnect;
                }
                Action::Probe => self.send(&Message::request("echo", vec![], "echo")),
            }
        }
    }

    /// When [`Session::run`] must be called again at the latest.
    pub fn deadline(&self) -> Option<i64> {
        self.reconnect.deadline()
    }

    /// The socket is connected.
    pub fn connected(&mut self, now: i64) {
        self.reset();
        self.reconnect.connected(now);
    }

    /// The socket could not be connected.
    pub fn connect_failed(&mut self, now: i64, reason: &str) {
        self.reconnect.connect_failed(now, reason);
    }

    /// The peer closed the socket (no error), or reading or writing failed.
    pub fn disconnected(&mut self, now: i64, error: Option<&str>) {
        self.reset();
        self.reconnect.disconnected(now, error);
    }

    /// True while messages can be sent.
    pub fn is_connected(&self) -> bool {
        self.reconnect.is_connected()
    }

    /// Takes bytes that came from the peer. Read the messages with [`Session::next_message`].
    pub fn receive(&mut self, now: i64, bytes: &[u8]) {
        if self.is_connected() && !bytes.is_empty() {
            self.reconnect.activity(now);
            self.framer.push(bytes);
        }
    }

    /// The next message. Echo requests are answered and replies to our own are swallowed on the way. What is no
    /// message ends the connection.
    pub fn next_message(&mut self) -> Option<Message> {
        while self.is_connected() {
            match self.framer.next_message() {
                Ok(None) => return None,
                Ok(Some(Message::Request { method, params, id })) if method == "echo" => {
                    self.send(&Message::Reply { result: Value::Array(params), id });
                }
                Ok(Some(Message::Reply { id, .. })) if id == "echo" => {}
                Ok(Some(message)) => return Some(message),
                Err(error) => self.fail(&JSONRPC, &error.to_string()),
            }
        }
        None
    }

    /// Queues a message. Without a connection it goes nowhere.
    pub fn send(&mut self, message: &Message) {
        if !self.is_connected() {
            return;
        }
        self.output.extend_from_slice(&message.to_bytes());
        if self.output.len() > MAX_OUTPUT {
            self.fail(&JSONRPC, "peer does not read what it is sent");
        }
    }

    /// Bytes to write to the socket.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The socket took the first `n` bytes of [`Session::output`].
    pub fn consume_output(&mut self, n: usize) {
        self.output.drain(..n.min(self.output.len()));
        if self.output.is_empty() {
            self.output.shrink_to(64 << 10);
        }
    }

    /// Ends the connection because of what the peer did; the next [`Session::run`] says so.
    pub fn fail(&mut self, module: &'static Module, reason: &str) {
        let text = format!("{}: {reason}, disconnecting", self.reconnect.name());
        self.log(Level::Warn, module, text);
        self.reconnect.fail();
        self.reset();
    }

    /// Ends the connection although the peer did nothing wrong; the next [`Session::run`] says so.
    pub fn leave(&mut self, module: &'static Module, reason: &str) {
        let text = format!("{}: {reason}", self.reconnect.name());
        self.log(Level::Info, module, text);
        self.reconnect.fail();
        self.reset();
    }

    /// Adds a line to the log.
    pub(crate) fn log(&mut self, level: Level, module: &'static Module, text: String) {
        self.lines.extend(self.reconnect.take_log());
        self.lines.push(level, module, text);
    }

    /// Name of the peer.
    pub fn name(&self) -> &str {
        self.reconnect.name()
    }

    /// Lines for the log since the last call.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        self.lines.extend(self.reconnect.take_log());
        self.lines.take()
    }

    /// Changes how long silence may last before a probe; 0 never probes.
    pub fn set_probe_interval(&mut self, ms: i64) {
        self.reconnect.set_probe_interval(ms);
    }

    fn reset(&mut self) {
        self.framer = Framer::new(self.limits);
        self.output = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connected() -> Session {
        let mut session = Session::new("tcp:x", 5000, Limits::CONTROL);
        assert_eq!(session.run(0), Wanted::Connect);
        session.connected(0);
        session
    }

    #[test]
    fn answers_and_sends_echoes() {
        let mut session = connected();
        session.receive(1, br#"{"method":"echo","params":[1],"id":"e"}{"method":"x","par"#);
        assert_eq!(session.next_message(), None);
        let sent: Value = serde_json::from_slice(session.output()).unwrap();
        assert_eq!(sent, json!({"result": [1], "error": null, "id": "e"}));
        session.consume_output(usize::MAX);
        session.receive(2, br#"ams":[],"id":null}"#);
        assert!(matches!(session.next_message(), Some(Message::Notify { .. })));
        assert_eq!(session.run(session.deadline().unwrap()), Wanted::Nothing);
        let sent: Value = serde_json::from_slice(session.output()).unwrap();
        assert_eq!(sent["method"], "echo");
        session.receive(5100, br#"{"result":[],"error":null,"id":"echo"}"#);
        assert_eq!(session.next_message(), None);
        assert_eq!(session.deadline(), Some(10_100));
    }

    #[test]
    fn garbage_ends_the_connection() {
        let mut session = connected();
        session.receive(1, b"HTTP/1.1 400 Bad Request");
        assert_eq!(session.next_message(), None);
        assert!(!session.is_connected());
        assert_eq!(session.run(2), Wanted::Disconnect);
        assert_eq!(session.run(2), Wanted::Nothing);
        let log = session.take_log();
        assert!(log.iter().any(|line| line.text.contains("message starts with byte 0x48")), "{log:?}");
        // Late bytes of the old socket change nothing.
        session.receive(3, b"{}");
        assert_eq!(session.next_message(), None);
    }

    #[test]
    fn a_peer_that_never_reads_is_dropped() {
        let mut session = connected();
        let long = Message::Notify { method: "x".into(), params: vec![json!("y".repeat(MAX_OUTPUT / 4))] };
        for _ in 0..5 {
            session.send(&long);
        }
        assert_eq!(session.run(1), Wanted::Disconnect);
        assert!(session.output().is_empty());
    }
}

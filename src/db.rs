//! Pumps bytes between the database's socket and the replica's state machine,
//! which decides when to connect, probe and give up. Main thread.

use crate::daemonize::reason;
use crate::stream::{Received, Stream};
use infra::poll::Poller;
use ovsdb::{Client, LogLine, Wanted};

/// The port of `tcp:HOST` without a port.
const DEFAULT_PORT: u16 = 6640;
/// Bytes taken from the socket in one turn of the main loop.
const TURN_BYTES: usize = 4 << 20;

/// The servers that a `DATABASE` names: a comma begins the next where a method stands behind it.
pub fn remotes(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = ["unix:", "tcp:", "ssl:"].iter().any(|m| part.starts_with(m));
        match all.last_mut().filter(|_| !begins) {
            Some(last) => *last += &format!(",{part}"),
            None => all.push(part.to_string()),
        }
    }
    all
}

/// The socket of one database client.
pub struct DbSocket {
    /// Servers of one database, tried in turn.
    remotes: Vec<String>,
    current: usize,
    stream: Option<Stream>,
    /// True from the attempt until it is known how it ended.
    connecting: bool,
    /// Bytes may wait that this turn did not read.
    more: bool,
    buffer: Vec<u8>,
}

impl DbSocket {
    /// The socket of `client`, not yet opened, to `remote`, or to one of several between commas.
    pub fn new(remote: &str, client: &mut Client) -> Self {
        let remotes = remotes(remote);
        client.set_remotes(remotes.len());
        DbSocket {
            remotes,
            current: 0,
            stream: None,
            connecting: false,
            more: false,
            buffer: vec![0; 64 << 10],
        }
    }

    /// Opens and closes the socket as `client` wants, moves bytes both ways.
    pub fn run(&mut self, client: &mut Client, now: i64) {
        self.more = false;
        loop {
            match client.run(now) {
                Wanted::Nothing => break,
                Wanted::Disconnect => {
                    self.close();
                    self.next(client);
                }
                Wanted::Connect => {
                    self.close();
                    match Stream::open(&self.remotes[self.current], DEFAULT_PORT) {
                        Ok(stream) => {
                            self.stream = Some(stream);
                            self.connecting = true;
                        }
                        Err(error) => {
                            client.connect_failed(now, &error.to_string());
                            self.next(client);
                        }
                    }
                    self.finish_connect(client, now);
                }
            }
        }
        self.finish_connect(client, now);
        self.pump(client, now);
        client.take_log().iter().for_each(LogLine::write);
    }

    /// The next attempt goes to the next server.
    fn next(&mut self, client: &mut Client) {
        if self.remotes.len() > 1 {
            self.current = (self.current + 1) % self.remotes.len();
            client.set_remote(&self.remotes[self.current]);
        }
    }

    fn lost(&mut self, client: &mut Client, now: i64, error: Option<&str>) {
        self.close();
        client.disconnected(now, error);
        self.next(client);
    }

    fn close(&mut self) {
        self.stream = None;
        self.connecting = false;
    }

    fn finish_connect(&mut self, client: &mut Client, now: i64) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.connecting) else { return };
        match stream.connect() {
            Ok(false) => {}
            Ok(true) => {
                self.connecting = false;
                client.connected(now);
            }
            Err(error) => {
                self.close();
                client.connect_failed(now, &reason(&error));
                self.next(client);
            }
        }
    }

    fn pump(&mut self, client: &mut Client, now: i64) {
        let mut left = TURN_BYTES;
        while !self.connecting {
            self.flush(client, now);
            let Some(stream) = &mut self.stream else { return };
            if left == 0 {
                self.more = true;
                return;
            }
            match stream.receive(&mut self.buffer) {
                Ok(Received::Bytes(n)) => {
                    left = left.saturating_sub(n);
                    client.receive(now, &self.buffer[..n]);
                }
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return self.lost(client, now, None),
                Err(error) => return self.lost(client, now, Some(&reason(&error))),
            }
        }
    }

    /// Writes what the client has for the server. The bridge calls it after it
    /// submitted transactions, so that they leave in the same turn.
    pub fn flush(&mut self, client: &mut Client, now: i64) {
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.connecting) {
            if client.output().is_empty() {
                return;
            }
            match stream.write(client.output()) {
                Ok(0) => return,
                Ok(n) => client.consume_output(n),
                Err(error) => self.lost(client, now, Some(&reason(&error))),
            }
        }
    }

    /// Registers what the socket and the client wait for.
    pub fn wait(&self, client: &Client, poller: &mut Poller) {
        if let Some(deadline) = client.deadline() {
            poller.timer_until(deadline);
        }
        if self.more {
            poller.immediate();
        }
        if let Some(stream) = &self.stream {
            stream.wait(poller, true, !client.output().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remotes;

    #[test]
    fn several_servers() {
        assert_eq!(
            remotes("tcp:1.2.3.4:5,ssl:[::1]:6,unix:a,b"),
            ["tcp:1.2.3.4:5", "ssl:[::1]:6", "unix:a,b"]
        );
        assert_eq!(remotes("unix:/x/db.sock"), ["unix:/x/db.sock"]);
    }
}

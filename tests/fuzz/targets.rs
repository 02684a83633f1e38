//! The parsers, each as a function of bytes that says how it ended, and checks what must hold for every input.

use infra::vlog::{self, Module};
use ovsdb::jsonrpc::{Framer, Limits, Message};
use ovsdb::Client;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Once;

/// Pushes the input in pieces whose sizes it decides itself.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = 1 + input.iter().take(8).map(|b| usize::from(*b)).sum::<usize>() % 4_096;
    input.chunks(step)
}

/// The control socket's framing: whole values come out, and read the same when written again.
pub fn json(input: &[u8]) -> String {
    let mut framer = Framer::new(Limits::CONTROL);
    let mut values = 0;
    for piece in pieces(input) {
        framer.push(piece);
        loop {
            match framer.next_value() {
                Ok(Some(value)) => {
                    values += 1;
                    let again: serde_json::Value =
                        serde_json::from_str(&value.to_string()).expect("own JSON");
                    assert_eq!(again.to_string(), value.to_string());
                }
                Ok(None) => break,
                Err(error) => return format!("{error} after {}", values.min(3)),
            }
        }
    }
    format!("open after {}", "v".repeat(values.min(3)))
}

/// Messages: what is one can be written and is the same one when read again.
pub fn jsonrpc(input: &[u8]) -> String {
    let mut framer = Framer::new(Limits::CONTROL);
    let mut kinds = String::new();
    for piece in pieces(input) {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => {
                    let mut again = Framer::new(Limits::CONTROL);
                    again.push(&message.to_bytes());
                    let second = again.next_message().expect("an own message").expect("a whole message");
                    assert_eq!(second.to_value(), message.to_value());
                    kinds.truncate(8);
                    kinds.push(match message {
                        Message::Request { .. } => 'q',
                        Message::Notify { .. } => 'n',
                        Message::Error { .. } => 'e',
                        _ => 'r',
                    });
                }
                Ok(None) => break,
                Err(error) => return format!("{kinds} {error}"),
            }
        }
    }
    kinds
}

/// Log specifications: each line is one, and after each a line is logged with the patterns as they then are.
pub fn vlog(input: &[u8]) -> String {
    static LOG: Module = Module::new("fuzz");
    static START: Once = Once::new();
    START.call_once(|| {
        vlog::set_log_file(Path::new("/dev/null")).expect("/dev/null");
        vlog::set_syslog_method("null").expect("a syslog method");
    });
    let text = String::from_utf8_lossy(input);
    let mut said = String::new();
    for line in text.lines().take(64) {
        let result = vlog::set(line);
        if said.len() < 200 {
            said.extend(result.err().map(|e| e.to_string().chars().take(24).collect::<String>()));
        }
        let _ = vlog::set_rate_limits(&[line], false);
        // The specification may have turned the file off, and the console on.
        vlog::set("console:off").expect("a specification");
        vlog::set("file:dbg").expect("a specification");
        infra::debug!(LOG, "a line with %m and \u{e9}");
        assert!(vlog::list_patterns().len() < 4 * (line.len() + 1_024) + (1 << 20));
    }
    // A pattern of a megabyte would slow down all that follow.
    vlog::set("PATTERN:ANY:%m").expect("a specification");
    assert!(vlog::list().starts_with("    "));
    said
}

/// The replies of a database server to the daemon's own client, and the configuration that is read of them.
pub fn database(input: &[u8]) -> String {
    let mut client = Client::new(bridge::schema::client_config("unix:/x"));
    let mut now = 1_000;
    client.run(now);
    client.connected(now);
    let mut said = String::new();
    for line in input.split(|b| *b == b'\n') {
        now += 10;
        client.run(now);
        let sent = client.output().len();
        client.consume_output(sent);
        for piece in pieces(line) {
            client.receive(now, piece);
        }
        client.run(now);
        read_all(&client);
        if said.len() < 400 {
            said.extend(client.take_log().iter().map(|l| l.text.chars().take(40).collect::<String>()));
        }
        client.take_outcomes();
        client.take_changes();
    }
    let state = [client.is_synced(), client.has_lock(), client.is_lock_contended(), client.is_connected()];
    format!("{said}{state:?}{}", client.replica().cells().min(50))
}

fn read_all(client: &Client) {
    let replica = client.replica();
    if let Some(wanted) = bridge::wanted::Wanted::read(replica, &BTreeMap::new()) {
        assert!(format!("{wanted:?}").len() < 64 << 20);
    }
    for table in ["Open_vSwitch", "Bridge", "Port", "Interface", "Controller"] {
        for row in replica.rows(table) {
            let _ = (
                row.str("name"),
                row.int_opt("next_cfg"),
                row.map_get("other_config", "x"),
                row.real_opt("tag"),
            );
        }
    }
}

/// Records what a real server says to the daemon's client, for the corpus: a message a line.
pub fn record(server: &str, directory: &Path) {
    let path = server.strip_prefix("unix:").expect("a unix: socket");
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("the server");
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    let mut client = Client::new(bridge::schema::client_config("unix:/x"));
    client.run(1_000);
    client.connected(1_000);
    let (mut all, mut piece, mut framer) = (Vec::new(), [0; 65_536], Framer::new(Limits::DATABASE));
    loop {
        client.run(1_010);
        stream.write_all(client.output()).expect("a request");
        client.consume_output(client.output().len());
        let Ok(n @ 1..) = stream.read(&mut piece) else { break };
        client.receive(1_010, &piece[..n]);
        framer.push(&piece[..n]);
        while let Some(message) = framer.next_message().expect("a message") {
            all.extend(message.to_bytes());
            all.push(b'\n');
        }
    }
    std::fs::write(directory.join("conversation"), all).expect("the corpus");
}

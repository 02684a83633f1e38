//! What `ovs-appctl netdev-dummy/...` does.
//!
//! Neighbours: the daemon serves [`commands`], and `netdev-dummy/receive` through [`parse_receive`], whose answer it
//! gives once the datapath has taken the frames. Threads: main.

use super::{DummyFactory, DummyPort};
use flow::compose::compose;
use flow::odp::{parse_key, KeyOptions};
use infra::command::{Command, Reply};
use packet::Packet;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const ETH_HEADER: usize = 14;
const NO_DEVICE: &str = "Unknown Dummy Interface";

/// Who finds the devices for the commands.
pub trait DummyCommands {
    /// The devices.
    fn dummies(&self) -> &DummyFactory;
}

/// The commands that answer at once.
pub fn commands<T: DummyCommands>() -> [Command<T>; 4] {
    [
        Command::new("netdev-dummy/conn-state", "[netdev]", 0, 1, |t, args| conn_state(t.dummies(), args)),
        Command::new("netdev-dummy/ip4addr", "[netdev] ipaddr/mask-prefix-len", 2, 2, |t, args| {
            ip4addr(t.dummies(), args)
        }),
        Command::new("netdev-dummy/ip6addr", "[netdev] ip6addr", 2, 2, |t, args| ip6addr(t.dummies(), args)),
        Command::new("netdev-dummy/set-admin-state", "[netdev] up|down", 1, 2, |t, args| {
            set_admin_state(t.dummies(), args)
        }),
    ]
}

fn conn_state(f: &DummyFactory, args: &[&str]) -> Reply {
    let word = |up: bool| if up { "connected" } else { "disconnected" };
    if let [name] = args {
        let state = f.port(name).and_then(|p| p.connection()).map_or("unknown", word);
        return Ok(format!("{name}: {state}"));
    }
    let mut out = String::new();
    for p in f.ports() {
        if let Some(up) = p.connection() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}: {}", p.name, word(up));
        }
    }
    Ok(out)
}

fn set_admin_state(f: &DummyFactory, args: &[&str]) -> Reply {
    let (name, word) = match args {
        [name, word] => (Some(*name), *word),
        [word] => (None, *word),
        _ => return Err("Invalid Admin State".into()),
    };
    let up = if word.eq_ignore_ascii_case("up") {
        true
    } else if word.eq_ignore_ascii_case("down") {
        false
    } else {
        return Err("Invalid Admin State".into());
    };
    let ports = match name {
        Some(n) => vec![f.port(n).ok_or(NO_DEVICE)?],
        None => f.ports(),
    };
    for p in ports {
        p.settings.lock().admin_up = up;
    }
    Ok("OK".into())
}

fn ip4addr(f: &DummyFactory, args: &[&str]) -> Reply {
    let port = f.port(args[0]).ok_or(NO_DEVICE)?;
    let (address, prefix) = args[1].split_once('/').map_or((args[1], None), |(a, p)| (a, Some(p)));
    let prefix_ok = prefix.is_none_or(|p| p.parse::<u8>().is_ok_and(|n| n <= 32));
    let ip = address.parse::<Ipv4Addr>().map_err(|_| format!("{}: invalid IP address", args[1]))?;
    if !prefix_ok {
        return Err(format!("{}: IPv4 network prefix bits not between 0 and 32, inclusive", args[1]));
    }
    port.settings.lock().ip4 = Some(ip);
    Ok("OK".into())
}

fn ip6addr(f: &DummyFactory, args: &[&str]) -> Reply {
    let port = f.port(args[0]).ok_or(NO_DEVICE)?;
    let (address, prefix) = args[1].split_once('/').unwrap_or((args[1], "128"));
    let digits = prefix.find(|c: char| !c.is_ascii_digit()).map_or(prefix, |end| &prefix[..end]);
    if !digits.is_empty() && digits.parse::<u32>().map_or(true, |n| n > 128) {
        let what = "IPv6 network prefix bits not between 0 and 128, inclusive";
        return Err(format!("{}: {what}", args[1]));
    }
    let ip = address.parse::<Ipv6Addr>().map_err(|_| format!("{}: invalid IPv6 address", args[1]))?;
    let mut s = port.settings.lock();
    if !s.ip6.contains(&ip) {
        s.ip6.push(ip);
    }
    Ok("OK".into())
}

/// What `netdev-dummy/receive` did: the device its frames went to, and the answer.
pub struct Received {
    /// The device, when there is one.
    pub port: Option<Arc<DummyPort>>,
    /// The answer.
    pub reply: Reply,
}

/// `netdev-dummy/receive name [--qid queue_id] packet|flow [--len packet_len]...`: puts the frames on a receive queue,
/// those before a wrong one too.
pub fn parse_receive(f: &DummyFactory, args: &[&str]) -> Received {
    let Some(port) = args.first().and_then(|n| f.port(n)) else {
        return Received { port: None, reply: Err("no such dummy netdev".into()) };
    };
    let reply = receive(&port, &args[1..]);
    Received { port: Some(port), reply }
}

/// A number as atoi(3) reads it.
fn atoi(text: &str) -> i64 {
    let t = text.trim_start();
    let sign = usize::from(t.starts_with(['-', '+']));
    let end = t[sign..].find(|c: char| !c.is_ascii_digit()).map_or(t.len(), |i| i + sign);
    t[..end].parse().unwrap_or(0)
}

fn receive(port: &DummyPort, args: &[&str]) -> Reply {
    let (q, mut rest) = match args {
        ["--qid", q, rest @ ..] => (atoi(q), rest),
        _ => (0, args),
    };
    let q = usize::try_from(q).ok().filter(|q| *q < port.rx.lock().len()).ok_or("bad rx queue id.")?;
    while let [text, tail @ ..] = rest {
        rest = tail;
        if let Some(frame) = hex_frame(text) {
            port.receive(q, Packet::from_slice(&frame));
            continue;
        }
        let options = KeyOptions { masks: false, vlan_limit: 1, ..KeyOptions::default() };
        let key = parse_key(text, &options).map_err(|e| e.to_string())?;
        let mut len = 0;
        if let ["--len", n, tail @ ..] = rest {
            rest = tail;
            let n = atoi(n);
            len = usize::try_from(n).ok().filter(|n| *n >= ETH_HEADER).ok_or("too small packet len")?;
        }
        let frame = compose(&key.flow, len.min(MAX_FRAME));
        if len > 0 && frame.len() > len {
            return Err("too small packet len".into());
        }
        port.receive(q, Packet::from_slice(&frame));
    }
    Ok(String::new())
}

/// Longest frame that `--len` makes.
const MAX_FRAME: usize = 65_535;

/// A frame in hexadecimal digits, with white space anywhere between bytes.
fn hex_frame(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) || digits.len() / 2 < ETH_HEADER {
        return None;
    }
    let value = |c: u8| (c as char).to_digit(16);
    digits.chunks(2).map(|c| Some((value(c[0])? << 4 | value(c[1])?) as u8)).collect()
}

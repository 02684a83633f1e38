//! Dummy devices and datapaths, for tests: what `--enable-dummy` and `--dummy-numa` bring.
//!
//! Neighbours: `netdev::dummy` has the devices; here are their streams, and the commands that drive them. Main thread.

use crate::cli::{Dummy, Options};
use crate::commands::Context;
use crate::stream::{Listener, Received, Stream};
use crate::unixctl::{Commands, Outcome};
use bridge::DatapathClass;
use infra::cpu::Topology;
use infra::poll::Poller;
use infra::vlog::Module;
use infra::{clock, Waker};
use netdev::dummy::{parse_receive, DummyCommands, StreamConfig};
use netdev::{DummyFactory, DummyLevel, DummyPort, Factory, Netdev};
use packet::Packet;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

static LOG: Module = Module::new("netdev_dummy");

/// Milliseconds between two attempts to connect.
const RETRY_MS: i64 = 1_000;
/// Peers of one listening port.
const MAX_PEERS: usize = 64;
/// Bytes that wait for one peer; frames beyond are lost.
const MAX_OUTPUT: usize = 1 << 20;
/// Longest the answer of `netdev-dummy/receive` waits for the datapath, nanoseconds.
const SETTLE_NS: u64 = 500_000_000;

/// The machine as the datapath sees it.
pub fn topology(options: &Options) -> Topology {
    options.dummy_numa.as_deref().and_then(Topology::from_nodes).unwrap_or_else(Topology::read)
}

/// The types of datapath there are, in the order in which `dpctl` lists them. The kernel's is not among them.
pub fn datapath_classes(options: &Options) -> Vec<DatapathClass> {
    let class = |name, dummy| DatapathClass { name, dummy };
    match options.dummy {
        None => vec![class("netdev", false)],
        Some(Dummy::Plain) if options.disable_system => vec![class("dummy", true), class("netdev", false)],
        Some(Dummy::Plain) => vec![class("netdev", false), class("dummy", true)],
        Some(Dummy::System) => vec![class("dummy", true), class("netdev", false), class("system", true)],
        Some(Dummy::Override) => vec![class("dummy", true), class("netdev", true), class("system", true)],
    }
}

/// A connection: frames go over it with their length in two bytes before each.
struct Peer {
    stream: Stream,
    input: Vec<u8>,
    output: VecDeque<u8>,
}

impl Peer {
    fn new(stream: Stream) -> Peer {
        Peer { stream, input: Vec::new(), output: VecDeque::new() }
    }

    /// Queues a frame.
    fn frame(&mut self, frame: &[u8]) {
        if let (Ok(len), true) = (u16::try_from(frame.len()), self.output.len() < MAX_OUTPUT) {
            self.output.extend(len.to_be_bytes());
            self.output.extend(frame);
        }
    }

    /// Moves bytes both ways; frames that came go to `port`. Fails when the connection is over.
    fn run(&mut self, port: &DummyPort) -> io::Result<()> {
        if !self.stream.connect()? {
            return Ok(());
        }
        self.stream.send(&mut self.output)?;
        let mut buffer = [0; 16_384];
        for _ in 0..16 {
            match self.stream.receive(&mut buffer)? {
                Received::Bytes(n) => self.input.extend_from_slice(&buffer[..n]),
                Received::Nothing => break,
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            self.frames(port);
        }
        Ok(())
    }

    /// Takes the whole frames out of what was read.
    fn frames(&mut self, port: &DummyPort) {
        let mut at = 0;
        while let Some(&[hi, lo]) = self.input.get(at..at + 2) {
            let len = usize::from(u16::from_be_bytes([hi, lo]));
            let Some(frame) = self.input.get(at + 2..at + 2 + len) else { break };
            if frame.len() >= 14 {
                port.receive(0, Packet::from_slice(frame));
            }
            at += 2 + len;
        }
        self.input.drain(..at);
    }
}

/// The streams of one device.
struct Wire {
    config: StreamConfig,
    listener: Option<Listener>,
    peers: Vec<Peer>,
    retry_at: i64,
}

impl Wire {
    fn new(config: StreamConfig) -> Wire {
        let listener = config.passive.as_deref().and_then(|name| match Listener::open(name, 0) {
            Ok(l) => Some(l),
            Err(e) => {
                infra::vlog!(LOG, Err, "{name}: listen failed: {e}");
                None
            }
        });
        Wire { config, listener, peers: Vec::new(), retry_at: 0 }
    }

    fn run(&mut self, port: &DummyPort, now: i64) {
        if let (Some(name), true, true) = (&self.config.active, self.peers.is_empty(), now >= self.retry_at) {
            self.retry_at = now + RETRY_MS;
            if let Ok(s) = Stream::open(name, 0) {
                self.peers.push(Peer::new(s));
            }
        }
        while let Some(l) = &self.listener {
            match l.accept() {
                Ok(Some(s)) if self.peers.len() < MAX_PEERS => self.peers.push(Peer::new(s)),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => {
                    infra::vlog!(LOG, Err, "accept failed: {e}");
                    break;
                }
            }
        }
        for p in port.take_wire() {
            self.peers.iter_mut().for_each(|peer| peer.frame(p.data()));
        }
        self.peers.retain_mut(|peer| peer.run(port).is_ok());
        if self.config.active.is_some() {
            port.set_connected(self.peers.iter_mut().any(|p| matches!(p.stream.connect(), Ok(true))));
        }
    }

    fn wait(&self, poller: &mut Poller) {
        if let Some(l) = &self.listener {
            l.wait(poller);
        }
        for p in &self.peers {
            p.stream.wait(poller, true, !p.output.is_empty());
        }
        if self.config.active.is_some() && self.peers.is_empty() {
            poller.timer_until(self.retry_at);
        }
    }
}

/// All dummy devices and their streams.
pub struct Dummies {
    factory: Arc<DummyFactory>,
    wires: BTreeMap<String, Wire>,
    waker: Waker,
}

impl Dummies {
    /// None yet.
    pub fn new(level: Dummy) -> io::Result<Dummies> {
        let level = match level {
            Dummy::Plain => DummyLevel::Plain,
            Dummy::System => DummyLevel::System,
            Dummy::Override => DummyLevel::Override,
        };
        let waker = Waker::new()?;
        let factory = Arc::new(DummyFactory::new(level, Some(waker.clone())));
        Ok(Dummies { factory, wires: BTreeMap::new(), waker })
    }

    /// Who opens the devices.
    pub fn factory(&self) -> Arc<dyn Factory> {
        self.factory.clone()
    }

    /// Moves frames between devices and their streams.
    pub fn run(&mut self, now: i64) {
        self.waker.drain();
        let ports = self.factory.ports();
        self.wires.retain(|n, w| ports.iter().any(|p| p.name() == n && p.streams() == w.config));
        for p in ports {
            let config = p.streams();
            if config == StreamConfig::default() {
                continue;
            }
            self.wires.entry(p.name().to_owned()).or_insert_with(|| Wire::new(config)).run(&p, now);
        }
    }

    /// Registers what the streams wait for.
    pub fn wait(&self, poller: &mut Poller) {
        if self.wires.is_empty() {
            return;
        }
        poller.fd_in(self.waker.fd());
        self.wires.values().for_each(|w| w.wait(poller));
    }
}

impl DummyCommands for Dummies {
    fn dummies(&self) -> &DummyFactory {
        &self.factory
    }
}

/// Adds the commands of dummy devices and datapaths.
pub fn add_commands(commands: &mut Commands<Context>) {
    for command in netdev::dummy::commands::<Dummies>() {
        let run = command.run;
        commands.add(
            command.name,
            command.usage,
            command.min..=command.max,
            move |context: &mut Context, args| {
                context.switch.manager().devices_changed();
                match context.switch.dummies() {
                    Some(d) => Outcome::Now(run(d, args)),
                    None => Outcome::Now(Err("no such dummy netdev".into())),
                }
            },
        );
    }
    let usage = "name [--qid queue_id] packet|flow [--len packet_len]";
    commands.add("netdev-dummy/receive", usage, 2..=usize::MAX, receive);
    let usage = "dp port new-number";
    commands.add("dpif-dummy/change-port-number", usage, 3..=3, |context: &mut Context, args| {
        Outcome::Now(context.switch.manager().change_port_number(args[0], args[1], args[2]))
    });
}

/// The answer comes when the frames have gone through the datapath, so that the next command sees what they did.
fn receive(context: &mut Context, args: &[&str]) -> Outcome<Context> {
    let Some(d) = context.switch.dummies() else { return Outcome::Now(Err("no such dummy netdev".into())) };
    let received = parse_receive(d.dummies(), args);
    let Some(port) = received.port else { return Outcome::Now(received.reply) };
    let mut reply = Some(received.reply);
    let end = clock::real_ns() + SETTLE_NS;
    Outcome::Later(Box::new(
        move |_: &mut Context| {
            if port.is_settled() || clock::real_ns() >= end {
                reply.take()
            } else {
                None
            }
        },
    ))
}

//! A bridge whose ports are veth pairs, with packet sockets on their far ends or hosts behind them.
//!
//! Neighbours: the tests of forwarding, flows, OpenFlow, bad input. Threads: that of the test, which is inside the
//! switch's network namespace.

use crate::harness::{run, run_ok, wait_until, Harness, Namespace, Setup, Which};
use infra::linux::DeviceControl;
use infra::packet_socket::{FrameRing, PacketSocket};
use packet::build::{Builder, Ip4};
use std::process::Command;

/// Frames that came out: number of the port and bytes, by port.
pub type Out = Vec<(usize, Vec<u8>)>;

/// See the module's header. Port `pN` has OpenFlow number N; its far end is `qN`.
pub struct Lab {
    /// The switch.
    pub h: Harness,
    taps: Vec<PacketSocket>,
    ring: Box<FrameRing>,
    seen: u64,
}

impl Lab {
    /// A bridge `br0` with `n` ports and the NORMAL rule.
    pub fn new(n: usize) -> Lab {
        Lab::with(Setup::new(Which::Ours), n)
    }

    /// The same of a daemon with more settings.
    pub fn with(setup: Setup, n: usize) -> Lab {
        let h = setup.in_thread().up();
        h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
        ip("link set br0 arp off multicast off up");
        let control = DeviceControl::open().expect("device control");
        let mut taps = Vec::new();
        for i in 1..=n {
            veth(i, None);
            h.vsctl(&[
                "add-port",
                "br0",
                &format!("p{i}"),
                "--",
                "set",
                "Interface",
                &format!("p{i}"),
                &format!("ofport_request={i}"),
            ]);
            let socket = PacketSocket::open(1 << 22).expect("packet socket");
            socket.attach(control.index(&format!("q{i}")).expect("device")).expect("attach");
            taps.push(socket);
        }
        let mut lab = Lab { h, taps, ring: Box::default(), seen: 0 };
        lab.rest();
        lab
    }

    /// Takes everything so far as read.
    pub fn rest(&mut self) {
        self.seen = self.received();
        self.outputs();
    }

    /// Packets the datapath has received.
    pub fn received(&self) -> u64 {
        let show = self.h.control("dpif-netdev/pmd-stats-show", &[]).expect("pmd-stats-show");
        show.lines().filter_map(|l| l.trim().strip_prefix("packets received: ")?.parse::<u64>().ok()).sum()
    }

    /// Hits, misses and losses of `dpctl/show`, and the number of flows.
    pub fn lookups(&self) -> (u64, u64, u64, u64) {
        let show = self.h.control("dpctl/show", &[]).expect("dpctl/show");
        let value = |key: &str| {
            let rest = show.split(key).nth(1).unwrap_or_else(|| panic!("no {key} in {show}"));
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or_else(|_| panic!("{key} in {show}"))
        };
        (value("hit:"), value("missed:"), value("lost:"), value("flows:"))
    }

    fn outputs(&mut self) -> Out {
        let mut out = Vec::new();
        for (i, tap) in self.taps.iter().enumerate() {
            while let Ok(n) = tap.recv(&mut self.ring) {
                for f in (0..n).filter_map(|k| self.ring.frame(k)) {
                    let mut bytes = f.data.to_vec();
                    if let Some((tpid, tci)) = f.vlan {
                        let tag: Vec<u8> = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
                        bytes.splice(12..12, tag);
                    }
                    out.push((i + 1, bytes));
                }
            }
        }
        out
    }

    /// Sends frames into a port; returns what came out anywhere once all were processed.
    #[track_caller]
    pub fn send_all(&mut self, port: usize, frames: &[&[u8]]) -> Out {
        for f in frames {
            let mut sent = self.taps[port - 1].send(&[f]);
            if sent.is_err() {
                // The first error after a device was down tells of the past.
                sent = self.taps[port - 1].send(&[f]);
            }
            assert!(matches!(sent, Ok(1)), "q{port} takes no frame of {} bytes: {sent:?}", f.len());
        }
        let goal = self.seen + frames.len() as u64;
        wait_until("the datapath has received what was sent", || self.received() >= goal);
        self.seen = self.received();
        self.outputs()
    }

    /// Sends one frame into a port; returns what came out anywhere.
    #[track_caller]
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Out {
        self.send_all(port, &[frame])
    }

    /// Waits until at least `n` frames have come out, for those that others than the receiving thread send.
    #[track_caller]
    pub fn await_outputs(&mut self, n: usize) -> Out {
        let mut out = Vec::new();
        wait_until("frames come out", || {
            out.extend(self.outputs());
            out.len() >= n
        });
        out
    }

    /// Sends a frame that must come out unchanged at exactly these ports.
    #[track_caller]
    pub fn passes(&mut self, port: usize, frame: &[u8], to: &[usize]) {
        let out = self.send(port, frame);
        assert_eq!(ports(&out), to, "from port {port}");
        for (p, f) in out {
            assert_eq!(f, frame, "at port {p}");
        }
    }

    /// Waits until the flows agree with the tables and with what was learned.
    pub fn settle(&self) {
        self.h.control("revalidator/wait", &[]).expect("revalidator/wait");
    }

    /// Removes all datapath flows.
    pub fn purge(&self) {
        self.h.control("revalidator/purge", &[]).expect("revalidator/purge");
    }

    /// The number after `key=` in the line of `ovs-ofctl dump-flows` that holds `part`.
    #[track_caller]
    pub fn flow_count(&self, part: &str, key: &str) -> u64 {
        let flows = self.h.ofctl(&["dump-flows", "br0"]);
        number_after(&flows, part, key)
    }

    /// The line of the datapath's flows that holds `part`.
    pub fn megaflow(&self, part: &str) -> Option<String> {
        let dump = self.h.control("dpctl/dump-flows", &["--names"]).expect("dump-flows");
        dump.lines().find(|l| l.contains(part)).map(str::to_string)
    }

    /// That everything still works: a frame goes from port 1 to port 2 by the NORMAL rule or the one given, and the
    /// daemon is the one that was started.
    #[track_caller]
    pub fn unharmed(&mut self) {
        self.settle();
        let frame = udp(0xe1, 0xe2, 7, 7);
        let out = self.send(1, &frame);
        assert!(out.contains(&(2, frame)), "port 2 got nothing: {out:?}\n{}", self.h.log());
        assert!(self.h.switch().is_running(), "the switch ended:\n{}", self.h.log());
    }
}

/// The ports of frames.
pub fn ports(out: &Out) -> Vec<usize> {
    out.iter().map(|(p, _)| *p).collect()
}

/// The number after `key=` (or `key:`) in the line that holds `part`.
#[track_caller]
pub fn number_after(text: &str, part: &str, key: &str) -> u64 {
    let line = text.lines().find(|l| l.contains(part)).unwrap_or_else(|| panic!("no {part} in\n{text}"));
    let rest = line.split(key).nth(1).unwrap_or_else(|| panic!("no {key} in {line}"));
    let digits: String = rest[1..].trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {key} in {line}"))
}

/// Runs `ip` with words.
#[track_caller]
pub fn ip(words: &str) {
    run_ok(Command::new("ip").args(words.split_whitespace()));
}

fn veth(i: usize, host: Option<&Namespace>) {
    let inside = host.map(|h| format!(" netns {}", h.name())).unwrap_or_default();
    ip(&format!("link add p{i} type veth peer name q{i}{inside}"));
    ip(&format!("link set p{i} arp off multicast off up"));
    if host.is_none() {
        ip(&format!("link set q{i} arp off multicast off up"));
    }
}

/// A host: a network namespace with one device and an address.
pub struct Host {
    ns: Namespace,
    /// Its address.
    pub address: String,
}

impl Host {
    /// Behind a new veth pair `pN`-`qN`, with the address 10.0.0.N.
    pub fn behind_veth(i: usize) -> Host {
        let ns = Namespace::new();
        quiet(&ns);
        veth(i, Some(&ns));
        let host = Host { ns, address: format!("10.0.0.{i}") };
        host.configure(&format!("q{i}"));
        host
    }

    /// Around a device of the switch that moves in, with the address 10.0.0.N.
    pub fn around(device: &str, i: usize) -> Host {
        let ns = Namespace::new();
        quiet(&ns);
        ip(&format!("link set {device} netns {}", ns.name()));
        let host = Host { ns, address: format!("10.0.0.{i}") };
        host.configure(device);
        host
    }

    fn configure(&self, device: &str) {
        self.ns.ok(&["ip", "address", "add", &format!("{}/24", self.address), "dev", device]);
        self.ns.ok(&["ip", "link", "set", device, "up"]);
    }

    /// The address of its device.
    pub fn mac(&self, device: &str) -> String {
        let text = self.ns.ok(&["ip", "-o", "link", "show", device]);
        let rest = text.split("link/ether ").nth(1).unwrap_or_else(|| panic!("{text}"));
        rest.split_whitespace().next().unwrap_or_default().to_string()
    }

    /// Forgets the addresses of its neighbours.
    pub fn forget(&self) {
        self.ns.ok(&["ip", "neigh", "flush", "all"]);
    }

    /// Whether three pings are answered.
    #[track_caller]
    pub fn pings(&self, other: &Host) {
        let said = self.ns.run(&["ping", "-n", "-i", "0.02", "-c", "3", "-w", "5", &other.address]);
        assert!(said.out.contains("3 received"), "{} to {}: {}", self.address, other.address, said.out);
    }

    /// Whether one ping is answered soon.
    pub fn tries(&self, other: &Host) -> bool {
        let said = self.ns.run(&["ping", "-n", "-i", "0.02", "-c", "1", "-W", "0.2", &other.address]);
        said.out.contains(" 1 received")
    }

    /// Whether large pings, in fragments, are answered.
    #[track_caller]
    pub fn pings_large(&self, other: &Host) {
        let said =
            self.ns.run(&["ping", "-n", "-s", "4000", "-i", "0.02", "-c", "3", "-w", "5", &other.address]);
        assert!(said.out.contains("3 received"), "{} to {}: {}", self.address, other.address, said.out);
    }

    /// That a ping is not answered.
    #[track_caller]
    pub fn cannot_ping(&self, other: &Host) {
        let said = self.ns.run(&["ping", "-n", "-c", "1", "-W", "1", &other.address]);
        assert!(said.out.contains(" 0 received"), "{} to {}: {}", self.address, other.address, said.out);
    }
}

/// No IPv6 chatter from a namespace.
fn quiet(ns: &Namespace) {
    for which in ["all", "default"] {
        let knob = format!("net.ipv6.conf.{which}.disable_ipv6=1");
        let said = run(ns.command("sysctl").args(["-q", "-w", &knob]));
        assert_eq!(said.code, 0, "{}", said.err);
    }
}

/// The address 02:00:00:00:00:NN.
pub fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// A UDP frame of 60 bytes between hosts by number.
pub fn udp(from: u8, to: u8, sport: u16, dport: u16) -> Vec<u8> {
    start(from, to).ipv4(ip4(from, to)).udp(sport, dport).payload(&[0x55; 18]).finish()
}

/// The same as a TCP frame.
pub fn tcp(from: u8, to: u8, sport: u16, dport: u16, flags: u16) -> Vec<u8> {
    start(from, to).ipv4(ip4(from, to)).tcp(sport, dport, flags).payload(&[0x66; 6]).finish()
}

/// The Ethernet header between hosts by number; 255 is everybody.
pub fn start(from: u8, to: u8) -> Builder {
    Builder::eth(if to == 255 { [0xff; 6] } else { mac(to) }, mac(from))
}

/// The IPv4 header between hosts by number.
pub fn ip4(from: u8, to: u8) -> Ip4 {
    Ip4::new([10, 0, 0, from], [10, 0, 0, to])
}

/// The frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    let tag = [0x8100u16.to_be_bytes(), tci.to_be_bytes()].concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

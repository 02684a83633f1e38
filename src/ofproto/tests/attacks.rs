//! Attacks on megaflows that were found in other switches: a packet of an odd shape makes a megaflow that is too wide,
//! and good packets then meet it.
//!
//! Each is replayed through a datapath and the real translation: every packet must be treated as the rules say,
//! whatever came before it. Then once more with bits taken out of the masks that translation made: now packets must
//! go wrong, which shows that the replay would notice.

#[path = "common/world.rs"]
mod world;

use datapath::{Clock, Datapath, DpOptions, Miss, MissResult, Upcall};
use flow::{Be16, Be32, DpPort, Field, Flow, Match, OfPort};
use infra::cpu::{CoreId, NumaId, Topology};
use infra::Published;
use netdev::mem::MemPort;
use netdev::Netdev;
use ofproto::{MacLearning, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use packet::build::{Builder, Ip4, Ip6};
use std::sync::Arc;

/// Takes bits out of the mask of a packet's megaflow.
type Sabotage = fn(&Flow, &mut Flow);

fn honest(_: &Flow, _: &mut Flow) {}

/// Translation whose masks are tampered with.
struct Tampered {
    upcalls: Upcalls,
    sabotage: Sabotage,
}

impl Upcall for Tampered {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        self.upcalls.miss(req, out);
        (self.sabotage)(req.flow, &mut out.mask.0);
    }
}

/// A rule: fields, and what follows.
struct Line(i32, Vec<(Field, u128)>, Vec<Action>);

fn output(port: u16) -> Vec<Action> {
    vec![Action::Output { port: OfPort(port), max_len: 0 }]
}

/// Ports 1 to 3 of one bridge.
struct Switch {
    dp: Arc<Datapath>,
    ports: Vec<Arc<MemPort>>,
}

impl Switch {
    fn new(rules: &[Line], sabotage: Sabotage) -> Switch {
        let mut tables = Tables::default();
        for Line(priority, fields, actions) in rules {
            let mut m = Match::any();
            fields.iter().for_each(|(f, v)| m.set(*f, *v));
            tables.table_mut(0).classifier.insert(world::rule(*priority, &m, actions.clone()));
        }
        let world = Arc::new(World::new());
        let bridge = world::bridge(Published::new(tables), Arc::new(MacLearning::new()), &[1, 2, 3]);
        world.publish(Snapshot::new([bridge]));
        let clock: Clock = Arc::new(|| 1_000);
        let options = DpOptions {
            clock,
            threads: false,
            topology: Topology::from_cores([(CoreId(0), NumaId(0))].into()),
            seed: 1,
            ..DpOptions::default()
        };
        let upcall = Arc::new(Tampered { upcalls: Upcalls::new(world), sabotage });
        let dp = Datapath::new("ovs-netdev", upcall, options).expect("datapath");
        let ports: Vec<_> = (1..=3).map(|i| MemPort::new(&format!("p{i}"))).collect();
        for (i, p) in ports.iter().enumerate() {
            let no = Some(DpPort(i as u32 + 1));
            dp.add_port(Arc::clone(p) as Arc<dyn Netdev>, no).expect("port");
        }
        Switch { dp, ports }
    }

    /// Receives a frame on port 1; says where it comes out, and how.
    fn send(&self, frame: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.ports[0].push(0, frame);
        while self.dp.step() > 0 {}
        let out = (1..=3u16).flat_map(|n| self.ports[n as usize - 1].take().into_iter().map(move |f| (n, f)));
        let out: Vec<_> = out.collect();
        assert!(out.len() <= 1, "{} copies", out.len());
        out.into_iter().next()
    }
}

/// Sends frames, each of them first in its turn, and counts those that do not come out at the port they should.
fn wrong(rules: &[Line], frames: &[(Vec<u8>, Option<u16>)], sabotage: Sabotage) -> usize {
    let mut wrong = 0;
    for first in 0..frames.len() {
        let switch = Switch::new(rules, sabotage);
        for (frame, port) in frames[first..].iter().chain(&frames[..first]) {
            wrong += usize::from(switch.send(frame).map(|(p, _)| p) != *port);
        }
    }
    wrong
}

const ETH: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
const IP: (Field, u128) = (Field::EthType, 0x0800);
const IP6: (Field, u128) = (Field::EthType, 0x86dd);

fn ip(last: u8) -> Builder {
    Builder::eth(ETH.0, ETH.1).ipv4(Ip4::new([10, 0, 0, 1], [10, 0, 0, last]))
}

fn padded(mut frame: Vec<u8>, n: usize) -> Vec<u8> {
    frame.resize(frame.len() + n, 0);
    frame
}

/// With the length that its IP header tells.
fn ip_length(mut frame: Vec<u8>, len: u16) -> Vec<u8> {
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame
}

/// CVE-2020-35498: a frame with more padding than fits a byte, or whose IP length is not that of the frame, is taken
/// for one without headers, and the megaflow made for it covers packets that have some.
#[test]
fn padding() {
    let rules = [
        Line(9, vec![IP, (Field::IpProto, 17), (Field::UdpDst, 80)], output(2)),
        Line(5, vec![IP, (Field::Ipv4Dst, 0x0a00_0002)], output(3)),
    ];
    let good = |last: u8, port: u16| ip(last).udp(1, port).pad_to(60).finish();
    let mut frames = vec![(good(2, 80), Some(2)), (good(2, 81), Some(3)), (good(9, 81), None)];
    for n in [1, 7, 46, 254, 255, 256, 257, 300, 512, 1_000, 1_440] {
        frames.push((padded(good(2, 80), n), Some(2)));
        frames.push((padded(good(2, 81), n), Some(3)));
        frames.push((padded(good(9, 81), n), None));
    }
    // An IP length beyond the frame, short of its own header, within the UDP header. Whatever such a frame is taken for
    // when it comes alone, it must be taken for in any order.
    for len in [0, 1, 19, 27, 600, 65_535] {
        let bad = padded(ip_length(good(2, 80), len), 300);
        let port = Switch::new(&rules, honest).send(&bad).map(|(p, _)| p);
        frames.push((bad, port));
    }
    assert_eq!(Switch::new(&rules, honest).send(&frames[0].0), Some((2, frames[0].0.clone())));
    assert_eq!(wrong(&rules, &frames, honest), 0);
    // Headers that a frame does not have were looked at all the same.
    let blind: Sabotage = |key, m| {
        if key.nw_dst.is_zero() {
            (m.nw_proto, m.nw_dst) = (0, Be32::default());
            (m.tp_src, m.tp_dst) = (Be16::default(), Be16::default());
        }
    };
    assert!(wrong(&rules, &frames, blind) > 0, "the replay does not notice");
}

/// CVE-2023-1668: IP protocol 0 is taken for "no IP header", so the megaflow does not look at the protocol.
#[test]
fn ip_protocol_zero() {
    let rules = [
        Line(9, vec![IP, (Field::IpProto, 6), (Field::TcpDst, 80)], output(2)),
        Line(8, vec![IP, (Field::IpProto, 17)], output(3)),
        Line(7, vec![IP6, (Field::IpProto, 6)], output(2)),
        Line(6, vec![IP6, (Field::IpProto, 58), (Field::Icmpv6Type, 128)], output(3)),
    ];
    let ip6 = || Builder::eth(ETH.0, ETH.1).ipv6(Ip6::new([1; 16], [2; 16]));
    let frames = [
        (ip(2).proto(0).payload(&[0; 26]).finish(), None),
        (ip(2).tcp(1, 80, 2).finish(), Some(2)),
        (ip(2).tcp(1, 81, 2).finish(), None),
        (ip(2).udp(1, 80).pad_to(60).finish(), Some(3)),
        (ip(2).proto(47).payload(&[0; 26]).finish(), None),
        // A next header of 0 with nothing behind it, and one that ends in no header.
        (ip6().proto(0).finish(), None),
        (ip6().proto(59).finish(), None),
        (ip6().tcp(1, 80, 2).finish(), Some(2)),
        (ip6().icmpv6(128, 0).finish(), Some(3)),
        (ip6().icmpv6(129, 0).finish(), None),
    ];
    assert_eq!(wrong(&rules, &frames, honest), 0);
    assert!(wrong(&rules, &frames, blind_to_zero) > 0, "the replay does not notice");
}

fn blind_to_zero(key: &Flow, m: &mut Flow) {
    if key.nw_proto == 0 {
        m.nw_proto = 0;
    }
}

/// The same, by what it did: packets after one of protocol 0 were not rewritten either.
#[test]
fn ip_protocol_zero_is_rewritten() {
    let mut actions = vec![Action::SetIpv4Dst([10, 9, 9, 9]), Action::DecTtl(Box::new([]))];
    actions.extend(output(2));
    let rules = [
        Line(9, vec![IP, (Field::IpProto, 17)], {
            let mut all = vec![Action::SetL4DstPort(7)];
            all.extend(actions.clone());
            all
        }),
        Line(1, vec![IP], actions),
    ];
    let frames = [
        ip(2).proto(0).payload(&[0; 26]).finish(),
        ip(2).tcp(1, 80, 2).finish(),
        ip(2).udp(1, 80).payload(&[0; 18]).finish(),
        ip(3).proto(0).payload(&[0; 26]).finish(),
    ];
    // Packets of protocol 0 themselves leave as they came, as in Open vSwitch.
    let rewritten = |out: Option<(u16, Vec<u8>)>, proto: u8| {
        let Some((2, f)) = out else { return false };
        match proto {
            0 => f[30..33] == [10, 0, 0],
            _ => f[30..34] == [10, 9, 9, 9] && f[22] == 63 && (proto != 17 || f[36..38] == [0, 7]),
        }
    };
    let bad = |sabotage: Sabotage| {
        let mut bad = 0;
        for first in 0..frames.len() {
            let switch = Switch::new(&rules, sabotage);
            for f in frames[first..].iter().chain(&frames[..first]) {
                bad += usize::from(!rewritten(switch.send(f), f[23]));
            }
        }
        bad
    };
    assert_eq!(bad(honest), 0);
    assert!(bad(blind_to_zero) > 0, "the replay does not notice");
}

fn address(last: u8) -> [u8; 16] {
    let mut a = [0; 16];
    (a[0], a[1], a[15]) = (0xfe, 0x80, last);
    a
}

/// CVE-2023-5366: rules tell who may advertise an address; a megaflow that does not look at the target lets others
/// advertise it too.
#[test]
fn neighbour_discovery_target() {
    let (kinds, macs) = ([135u8, 136], [0u8, 5, 6]);
    let mac = |last: u8| if last == 0 { [0; 6] } else { [2, 0, 0, 0, 0, last] };
    let mut frames = Vec::new();
    for kind in kinds {
        for target in [1, 2] {
            for lla in macs {
                let (sll, tll) = if kind == 135 { (mac(lla), [0; 6]) } else { ([0; 6], mac(lla)) };
                let b = Builder::eth(ETH.0, ETH.1).ipv6(Ip6::new(address(9), address(8)));
                frames.push((kind, target, lla, b.nd(kind, address(target), sll, tll).finish()));
            }
        }
    }
    // Every subset of what a rule can look at.
    for subset in 1..4u8 {
        let (by_target, by_lla) = (subset & 1 != 0, subset & 2 != 0);
        let mut rules = Vec::new();
        for (kind, lla_field) in [(135, Field::NdSll), (136, Field::NdTll)] {
            let mut fields =
                vec![IP6, (Field::IpProto, 58), (Field::Icmpv6Type, kind), (Field::Icmpv6Code, 0)];
            if by_target {
                fields.push((Field::NdTarget, u128::from_be_bytes(address(1))));
            }
            if by_lla {
                fields.push((lla_field, 0x0200_0000_0005));
            }
            rules.push(Line(9, fields, output(2)));
            rules.push(Line(5, vec![IP6, (Field::IpProto, 58), (Field::Icmpv6Type, kind)], vec![]));
        }
        rules.push(Line(1, vec![IP6], output(3)));
        let allowed = |target: u8, lla: u8| (!by_target || target == 1) && (!by_lla || lla == 5);
        let frames: Vec<_> = frames
            .iter()
            .map(|(_, target, lla, f)| (f.clone(), allowed(*target, *lla).then_some(2)))
            .collect();
        assert_eq!(wrong(&rules, &frames, honest), 0, "target {by_target}, address {by_lla}");
        if by_target {
            let blind: Sabotage = |_, m| m.nd_target = [0; 16];
            assert!(wrong(&rules, &frames, blind) > 0, "the replay does not notice");
        }
        if by_lla {
            let blind: Sabotage = |_, m| (m.arp_sha, m.arp_tha) = ([0; 6], [0; 6]);
            assert!(wrong(&rules, &frames, blind) > 0, "the replay does not notice");
        }
    }
}

//! What can happen to a switch, as data, so that a history can be replayed and cut down. Neighbours: `side` carries
//! it out. Threads: none.

use crate::packets::{Spec, L3};
use crate::rng::Rng;
use crate::rules;
use flow::extract::{extract_flow, PktMetadata};
use flow::{Field, Match, OfPort};
use ofproto::snapshot::{Fragments, PriorityTags, VlanMode};
use openflow::Action;

/// Ports of each bridge: devices, and one patch port to the other bridge.
pub const DEVICES: &[u16] = &[65534, 1, 2, 3, 4, 5];
pub const PATCH: u16 = 6;
/// VLANs in use.
const VLANS: &[u16] = &[0, 10, 20];

/// A port's VLAN configuration.
#[derive(Clone, Debug)]
pub struct Vlans {
    pub mode: VlanMode,
    pub tag: Option<u16>,
    pub trunks: Option<Vec<u16>>,
    pub priority_tags: PriorityTags,
    pub protected: bool,
}

impl Vlans {
    pub fn trunk() -> Vlans {
        let priority_tags = PriorityTags::Never;
        Vlans { mode: VlanMode::Trunk, tag: None, trunks: None, priority_tags, protected: false }
    }

    fn random(r: &mut Rng) -> Vlans {
        let mode =
            r.pick(&[VlanMode::Trunk, VlanMode::Access, VlanMode::NativeTagged, VlanMode::NativeUntagged]);
        Vlans {
            mode,
            tag: (mode != VlanMode::Trunk).then(|| r.pick(&[10, 20])),
            trunks: r.chance(3).then(|| vec![0, 10, 20]),
            priority_tags: r.pick(&[PriorityTags::Never, PriorityTags::IfNonzero, PriorityTags::Always]),
            protected: r.chance(5),
        }
    }
}

/// A rule to be added.
#[derive(Clone)]
pub struct NewRule {
    /// In place of this one, with its table, match and priority.
    pub replaces: Option<usize>,
    pub table: u8,
    pub matching: Match,
    pub priority: u16,
    pub idle: u16,
    pub hard: u16,
    /// Bits of `FlowFlags`.
    pub flags: u16,
    pub actions: Vec<Action>,
}

impl std::fmt::Debug for NewRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NewRule { replaces, table, matching, priority, idle, hard, flags, actions } = self;
        let matching = matching.format_with_priority((*priority).into(), None);
        write!(f, "table={table},{matching},idle={idle},hard={hard},flags={flags},replaces={replaces:?} {actions:?}")
    }
}

/// One event. A rule is chosen among those that are there by a number, by its place in the order of cookies.
#[derive(Clone, Debug)]
pub enum Op {
    Packet { bridge: usize, port: u16, spec: Box<Spec>, times: usize },
    PacketOut { bridge: usize, port: u16, spec: Box<Spec>, actions: Vec<Action> },
    Add { bridge: usize, rule: Box<NewRule> },
    Modify { bridge: usize, which: usize, strict: bool, flags: u16, actions: Vec<Action> },
    Delete { bridge: usize, which: usize, strict: bool },
    DeleteAll { bridge: usize },
    DelPort { bridge: usize, port: u16 },
    AddPort { bridge: usize, port: u16 },
    Renumber { bridge: usize, port: u16, to: u32 },
    Vlan { bridge: usize, port: u16, vlans: Vlans },
    Link { bridge: usize, port: u16, up: bool },
    PortConfig { bridge: usize, port: u16, bits: u32 },
    Bridge { bridge: usize, forward_bpdu: bool, miss: bool, frags: Fragments },
    Flood { bridge: usize, vlans: Option<Vec<u16>> },
    Aging { bridge: usize, secs: u32 },
    MacFlush { bridge: usize },
    MacStatic { bridge: usize, vlan: u16, last: u8, port: u16, add: bool },
    Warp(u64),
    Pause,
    Resume,
    Purge,
    Limit(usize),
    Revalidation { max_idle: u64, flow_limit: usize },
    Megaflows(bool),
    Cores(u64),
    EmcProbability(u32),
}

/// Makes events. Packets come again and again, as those of connections do.
pub struct Source {
    pub rng: Rng,
    pool: Vec<(usize, u16, Spec)>,
    /// Only what every packet meets the same way, for tests that count without a twin.
    plain: bool,
    n_rules: u16,
}

fn ends_where_it_began(a: &Action, bridge: usize) -> bool {
    match a {
        // A packet that comes back to a bridge would have its address learned twice, in an order that is not defined.
        Action::Output { port, .. } => *port == OfPort::IN_PORT || bridge == 1 && port.0 == PATCH,
        Action::SetField { field, .. } => *field == Field::InPort,
        Action::Move { dst, .. } => dst.field == Field::InPort,
        Action::WriteActions(inner) => inner.iter().any(|a| ends_where_it_began(a, bridge)),
        _ => false,
    }
}

/// A resubmission that may come back to its rule: each packet would then take thousands of lookups, which is slow.
fn goes_round(a: &Action, from: u8) -> bool {
    matches!(a, Action::Resubmit { table, .. } if *table <= from && from != 255)
}

impl Source {
    pub fn new(seed: u64, plain: bool) -> Source {
        let mut rng = Rng(seed);
        let pool = (0..24).map(|_| packet(&mut rng)).collect();
        Source { rng, pool, plain, n_rules: 0 }
    }

    fn action(&mut self, bridge: usize, table: u8) -> Action {
        loop {
            let a = match self.rng.below(3) {
                0 => Action::Output { port: OfPort(1 + self.rng.below(6) as u16), max_len: 0 },
                1 => Action::Output { port: OfPort::NORMAL, max_len: 0 },
                _ => rules::action(&mut self.rng, table.into()),
            };
            let plain = matches!(&a, Action::Output { port, .. } if *port != OfPort::CONTROLLER);
            if goes_round(&a, table) {
                continue;
            }
            if !ends_where_it_began(&a, bridge) && (plain || !self.plain) {
                return a;
            }
        }
    }

    fn actions(&mut self, bridge: usize, table: u8) -> Vec<Action> {
        (0..self.rng.below(4)).map(|_| self.action(bridge, table)).collect()
    }

    fn rule(&mut self, bridge: usize) -> NewRule {
        let table = if self.plain || self.rng.chance(2) { 0 } else { self.rng.below(rules::N_TABLES) as u8 };
        let r = &mut self.rng;
        let near = &self.pool[r.below(self.pool.len())];
        let mut matching = match r.below(5) {
            0 => Match::any(),
            1 => rules::a_match(r),
            _ => {
                let in_port = PktMetadata::new(near.1.into());
                let f = extract_flow(&near.2.frame(), &in_port).0;
                rules::match_of(r, f)
            }
        };
        let pops = !self.plain && r.chance(8);
        if pops {
            matching = Match::any();
            matching.set(Field::EthType, 0x8847);
        }
        let timeout = |r: &mut Rng| if r.chance(4) { 1 + r.below(30) as u16 } else { 0 };
        let (idle, hard, flags) = (timeout(r), timeout(r), r.pick(&[0, 0, 1, 1, 1 | 2, 4]));
        // Which of two rules of equal priority is hit is not defined.
        self.n_rules = self.n_rules.wrapping_add(1);
        let priority = r.below(4) as u16 * 16_384 + self.n_rules % 16_384;
        let replaces = r.chance(6).then(|| r.below(64));
        let mut actions = self.actions(bridge, table);
        if pops {
            // What stands behind the labels is known only when the packet comes again.
            let to = self.rng.pick(&[0x0800, 0x0800, 0x86dd, 0x8847]);
            let next = (usize::from(table) + 1 + self.rng.below(2)).min(rules::N_TABLES) as u8;
            let again = Action::Resubmit { in_port: OfPort::IN_PORT, table: next, with_ct: false };
            actions.splice(0..0, [Action::PopMpls(to), again]);
        }
        NewRule { replaces, table, matching, priority, idle, hard, flags, actions }
    }

    fn a_port(&mut self) -> (usize, u16) {
        (self.rng.below(2), self.rng.pick(DEVICES))
    }

    /// The next event.
    pub fn next(&mut self) -> Op {
        let r = &mut self.rng;
        let bridge = r.below(2);
        match r.below(200) {
            0..=99 => self.a_packet(),
            100..=114 => Op::Add { bridge, rule: Box::new(self.rule(bridge)) },
            115..=122 => Op::Modify {
                bridge,
                which: r.below(64),
                strict: r.chance(2),
                flags: r.pick(&[0, 0, 4]),
                actions: self.actions(bridge, 0),
            },
            123..=130 => Op::Delete { bridge, which: r.below(64), strict: !r.chance(3) },
            131 if r.chance(4) => Op::DeleteAll { bridge },
            132..=143 => self.port_change(),
            144..=149 => self.bridge_change(bridge),
            150..=172 => Op::Warp(r.pick(&[1, 10, 100, 101, 500, 900, 1000, 1500, 5000, 9999, 10_001])),
            173 if r.chance(3) => Op::Warp(r.pick(&[16_000, 301_000])),
            174..=177 => Op::Pause,
            178..=183 => Op::Resume,
            184 => Op::Purge,
            185..=187 => Op::Limit(r.pick(&[0, 1, 3, 10, 1000, 200_000])),
            188..=190 => Op::Revalidation {
                max_idle: r.pick(&[500, 1000, 10_000, 10_000, 60_000]),
                flow_limit: r.pick(&[0, 1, 5, 20, 200_000, 200_000]),
            },
            191 => Op::Megaflows(!r.chance(3)),
            192 => Op::Cores(r.pick(&[1, 2, 3, 3, 5])),
            193 => Op::EmcProbability(r.pick(&[0, 1, 100])),
            194..=197 if !self.plain => {
                let spec = Box::new(sane(Spec::random(r)));
                let (bridge, port) = self.a_port();
                Op::PacketOut { bridge, port, spec, actions: self.actions(bridge, 255) }
            }
            _ => self.a_packet(),
        }
    }

    fn a_packet(&mut self) -> Op {
        let r = &mut self.rng;
        let at = r.below(self.pool.len());
        match r.below(24) {
            0 => self.pool[at] = packet(r),
            1 | 2 => self.pool[at].2 = sane(self.pool[at].2.mutate(r)),
            3 => self.pool[at].1 = r.pick(DEVICES),
            _ => {}
        }
        let (bridge, port, spec) = self.pool[at].clone();
        Op::Packet { bridge, port, spec: Box::new(spec), times: r.pick(&[1, 1, 1, 2, 5]) }
    }

    fn port_change(&mut self) -> Op {
        let (bridge, port) = self.a_port();
        let r = &mut self.rng;
        match r.below(12) {
            0 => Op::DelPort { bridge, port },
            1..=3 => Op::AddPort { bridge, port },
            4 => Op::Renumber { bridge, port, to: 40 + r.below(60) as u32 },
            5..=7 => Op::Vlan { bridge, port, vlans: Vlans::random(r) },
            8 | 9 => Op::Link { bridge, port, up: !r.chance(3) },
            _ if self.plain => Op::Link { bridge, port, up: true },
            _ => Op::PortConfig { bridge, port, bits: r.pick(&[0, 0, 1 << 2, 1 << 4, 1 << 5, 1 << 6]) },
        }
    }

    fn bridge_change(&mut self, bridge: usize) -> Op {
        let r = &mut self.rng;
        match r.below(8) {
            0 | 1 if !self.plain => Op::Bridge {
                bridge,
                forward_bpdu: r.chance(3),
                miss: r.chance(3),
                frags: r.pick(&[Fragments::Normal, Fragments::Normal, Fragments::NxMatch, Fragments::Drop]),
            },
            2 => Op::Flood { bridge, vlans: r.chance(2).then(|| vec![10]) },
            3 | 4 => Op::Aging { bridge, secs: r.pick(&[15, 15, 60, 300]) },
            5 => Op::MacFlush { bridge },
            _ => Op::MacStatic {
                bridge,
                vlan: r.pick(VLANS),
                last: r.below(6) as u8,
                port: r.pick(DEVICES),
                add: r.chance(2),
            },
        }
    }
}

/// Without what leaves the order of two learnings open.
fn sane(mut s: Spec) -> Spec {
    s.src[0] &= !1;
    s
}

fn packet(r: &mut Rng) -> (usize, u16, Spec) {
    let mut spec = sane(Spec::random(r));
    if r.chance(6) {
        spec.mpls = vec![0x1040; 1 + r.below(2)];
        spec.vlans.clear();
    }
    if r.chance(2) {
        // Plain traffic, for which many rules have a match.
        spec.cut = None;
        if let L3::Ip4 { frag, options, ttl, .. } = &mut spec.l3 {
            (*frag, *options, *ttl) = (0, false, 64);
        }
    }
    (r.below(2), r.pick(DEVICES), spec)
}

//! Translation as Open vSwitch 3.1 does it: megaflows and actions observed with its `ofproto/trace`.

use super::*;
use crate::mac_learning::{MacKey, MacLearning};
use crate::rule::{CompactMatch, RuleFlags, RuleStats};
use crate::snapshot::{
    flood_order, BridgeId, BundleId, BundleView, Fragments, PortView, PriorityTags, Snapshot, VlanMode,
    VlanSet, World,
};
use flow::odp::{format_actions, Style};
use flow::{Be32, DpPort, Field, Match, SubField, Vlan};
use infra::Published;

const SRC: [u8; 6] = [0x50, 0x54, 0, 0, 0, 5];
const DST: [u8; 6] = [0x50, 0x54, 0, 0, 0, 7];

/// Number, mode, tag, trunks of a port.
type PortVlan = (u16, VlanMode, Option<u16>, Option<Vec<u16>>);

/// Two bridges under construction.
struct Net {
    tables: [Tables; 2],
    vlans: Vec<PortVlan>,
    macs: Vec<(u16, [u8; 6], u16)>,
    config: Vec<(u16, u32)>,
    packet_in_on_miss: bool,
}

fn rule(table_id: u8, priority: i32, matching: &Match, actions: Vec<Action>) -> Arc<Rule> {
    Arc::new(Rule {
        table_id,
        priority,
        cookie: 0,
        matching: CompactMatch::new(matching),
        actions: actions.into(),
        flags: RuleFlags::default(),
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        created_ms: 0,
        modified_ms: 0,
        stats: Arc::new(RuleStats::default()),
    })
}

impl Net {
    fn new(actions: Vec<Action>) -> Net {
        Net::bare().rule(0, 0, &[], actions)
    }

    fn bare() -> Net {
        Net {
            tables: Default::default(),
            vlans: Vec::new(),
            macs: Vec::new(),
            config: Vec::new(),
            packet_in_on_miss: false,
        }
    }

    /// Adds a rule to bridge `br`.
    fn rule(mut self, br: usize, table: u8, matching: &[(Field, u128)], actions: Vec<Action>) -> Net {
        let mut m = Match::any();
        matching.iter().for_each(|&(f, v)| m.set(f, v));
        self.tables[br].table_mut(table).classifier.insert(rule(table, 32768, &m, actions));
        self
    }

    /// Bridge 0 has ports 65534 (datapath port 100), 1 to 4, and patch port 50 to port 51 of bridge 1, which has
    /// 65534 (101), 5 and 6.
    fn snapshot(&self) -> Snapshot {
        let sides: [&[u16]; 2] = [&[65534, 1, 2, 3, 4, 50], &[65534, 51, 5, 6]];
        Snapshot::new((0..2).map(|b| self.bridge(b, sides[b])))
    }

    fn bridge(&self, b: usize, numbers: &[u16]) -> Arc<BridgeView> {
        let id = |n: u16| BundleId(u32::from(n) + b as u32 * 100_000);
        let port = |n: u16| {
            let patch = matches!(n, 50 | 51);
            let dp = if n == 65534 { 100 + b as u32 } else { n.into() };
            let config = self.config.iter().find(|c| c.0 == n).map_or(0, |c| c.1);
            let view = PortView {
                ofport: OfPort(n),
                dp_port: (!patch).then_some(DpPort(dp)),
                name: format!("p{n}").into(),
                peer: patch.then_some((BridgeId(1 - b as u32), OfPort(if n == 50 { 51 } else { 50 }))),
                is_patch: patch,
                config: PortConfig(config),
                link_up: true,
                bundle: Some(id(n)),
                stats: Arc::default(),
            };
            (n, Arc::new(view))
        };
        let bundle = |n: u16| {
            let v = self.vlans.iter().find(|v| v.0 == n);
            let view = BundleView {
                id: id(n),
                name: format!("p{n}").into(),
                ports: vec![OfPort(n)],
                vlan_mode: v.map_or(VlanMode::Trunk, |v| v.1),
                vlan: v.and_then(|v| v.2),
                trunks: v.and_then(|v| v.3.clone()).map(VlanSet::new),
                priority_tags: PriorityTags::Never,
                protected: false,
            };
            (id(n), Arc::new(view))
        };
        let macs = MacLearning::new();
        for &(n, mac, vlan) in self.macs.iter().filter(|_| b == 0) {
            macs.learn(MacKey { vlan, mac }, id(n), 0, true);
        }
        let all: Vec<OfPort> = numbers.iter().map(|&n| OfPort(n)).collect();
        Arc::new(BridgeView {
            id: BridgeId(b as u32),
            name: format!("br{b}").into(),
            tables: Published::new(self.tables[b].clone()),
            macs: Arc::new(macs),
            ports: numbers.iter().map(|&n| port(n)).collect(),
            bundles: numbers.iter().map(|&n| bundle(n)).collect(),
            port_order: flood_order(&all),
            bundle_order: numbers.iter().map(|&n| id(n)).collect(),
            forward_bpdu: false,
            packet_in_on_miss: self.packet_in_on_miss,
            frags: Fragments::Normal,
        })
    }

    /// (megaflow, actions) as `ofproto/trace` prints them.
    fn trace(&self, flow: &Flow) -> (String, String) {
        let world = World::new();
        let snapshot = self.snapshot();
        let bridge = snapshot.bridge(BridgeId(0)).expect("bridge 0 was put there");
        let input = XlateIn {
            flow,
            bridge,
            snapshot: &snapshot,
            recirc: world.recirc(),
            now_ms: 1,
            side_effects: true,
            may_wait: true,
            for_flow: true,
            packet_out: false,
            actions: None,
        };
        let mut out = XlateOut::default();
        xlate(&input, &mut out, None);
        let mut actions = String::new();
        format_actions(&mut actions, &out.actions, &Style::default());
        (Match { flow: flow.masked(&out.mask), mask: out.mask }.format(None), actions)
    }

    fn check(&self, flow: &Flow, megaflow: &str, actions: &str) {
        assert_eq!(self.trace(flow), (megaflow.to_owned(), actions.to_owned()));
    }
}

fn eth(dl_type: u16) -> Flow {
    Flow { in_port: 1, dl_src: SRC, dl_dst: DST, dl_type: Be16::new(dl_type), ..Flow::default() }
}

fn ip(proto: u8) -> Flow {
    Flow {
        nw_src: Be32::new(0x0101_0101),
        nw_dst: Be32::new(0x0202_0202),
        nw_ttl: 64,
        nw_proto: proto,
        tp_src: Be16::new(80),
        tp_dst: Be16::new(90),
        ..eth(0x0800)
    }
}

fn tagged(f: Flow, vid: u16, pcp: u16) -> Flow {
    let mut f = f;
    f.vlans[0] = Vlan { tpid: Be16::new(0x8100), tci: Be16::new(pcp << 13 | 0x1000 | vid) };
    f
}

fn mpls(label: u32, ttl: u8) -> Flow {
    let mut f = eth(0x8847);
    f.mpls[0] = commit::lse(label, 0, true, ttl);
    f
}

fn out(port: u16) -> Action {
    Action::Output { port: OfPort(port), max_len: 0 }
}

fn to_controller() -> Action {
    Action::Output { port: OfPort::CONTROLLER, max_len: 65535 }
}

fn set(field: Field, value: u128) -> Action {
    set_masked(field, value, field.all_ones())
}

fn set_masked(field: Field, value: u128, mask: u128) -> Action {
    Action::SetField { field, value, mask, flow_has_vlan: false }
}

fn mac(last: u8) -> u128 {
    u128::from(last)
}

const CONTROLLER: &str = "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=1,\
                          rule_cookie=0,controller_id=0,max_len=65535))";

#[test]
fn ethernet_headers() {
    let f = ip(6);
    let m = "recirc_id=0,eth,ip,in_port=1,";
    Net::new(vec![set(Field::EthSrc, mac(1)), out(2)]).check(
        &f,
        &format!("{m}dl_src=50:54:00:00:00:05,nw_frag=no"),
        "set(eth(src=00:00:00:00:00:01)),2",
    );
    Net::new(vec![Action::SetEthSrc(SRC), out(2), Action::SetEthDst([0, 0, 0, 0, 0, 9]), out(3)]).check(
        &f,
        &format!("{m}dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,nw_frag=no"),
        "2,set(eth(dst=00:00:00:00:00:09)),3",
    );
    Net::new(vec![set_masked(Field::EthSrc, 1, 0xff), out(2)]).check(
        &f,
        &format!("{m}dl_src=00:00:00:00:00:05/00:00:00:00:00:ff,nw_frag=no"),
        "set(eth(src=00:00:00:00:00:01/00:00:00:00:00:ff)),2",
    );
    let src = SubField { field: Field::EthSrc, ofs: 0, n_bits: 16 };
    let dst = SubField { field: Field::EthDst, ofs: 0, n_bits: 16 };
    Net::new(vec![Action::Move { src, dst }, out(2)]).check(
        &f,
        &format!(
            "{m}dl_src=00:00:00:00:00:05/00:00:00:00:ff:ff,dl_dst=00:00:00:00:00:07/00:00:00:00:ff:ff,nw_frag=no"
        ),
        "set(eth(dst=00:00:00:00:00:05/00:00:00:00:ff:ff)),2",
    );
}

#[test]
fn ip_headers() {
    let f = ip(6);
    let net = Net::bare().rule(
        0,
        0,
        &[(Field::EthType, 0x0800), (Field::IpProto, 6)],
        vec![
            set(Field::Ipv4Src, 0x0102_0304),
            set(Field::TcpDst, 5),
            out(2),
            Action::DecTtl(Box::new([])),
            out(3),
        ],
    );
    net.check(
        &f,
        "recirc_id=0,eth,tcp,in_port=1,nw_src=1.1.1.1,nw_ttl=64,nw_frag=no,tp_dst=90",
        "set(ipv4(src=1.2.3.4)),set(tcp(dst=5)),2,set(ipv4(ttl=63)),3",
    );
    net.check(&ip(17), "recirc_id=0,eth,udp,in_port=1,nw_frag=no", "drop");
    net.check(&eth(0x0806), "recirc_id=0,eth,arp,in_port=1", "drop");
    let net = Net::new(vec![set_masked(Field::Ipv4Src, 4, 255), set(Field::IpDscp, 4), out(2)]);
    net.check(
        &f,
        "recirc_id=0,eth,tcp,in_port=1,nw_src=0.0.0.1/0.0.0.255,nw_tos=0,nw_frag=no",
        "set(ipv4(src=0.0.0.4/0.0.0.255,tos=0x4/0xfc)),2",
    );
    Net::new(vec![Action::SetIpDscp(16), out(2)]).check(
        &f,
        "recirc_id=0,eth,tcp,in_port=1,nw_tos=0,nw_frag=no",
        "set(ipv4(tos=0x10/0xfc)),2",
    );
    Net::new(vec![Action::SetL4SrcPort(5), out(2)]).check(
        &ip(17),
        "recirc_id=0,eth,udp,in_port=1,nw_frag=no,tp_src=80",
        "set(udp(src=5)),2",
    );
}

/// CVE-2023-1668: a packet of protocol 0 must not make a megaflow for all protocols.
#[test]
fn protocol_zero() {
    let f = Flow { tp_src: Be16::ZERO, tp_dst: Be16::ZERO, ..ip(0) };
    let dec_ttl = Action::DecTtl(Box::new([]));
    Net::new(vec![dec_ttl.clone(), out(2)]).check(
        &f,
        "recirc_id=0,eth,ip,in_port=1,nw_proto=0,nw_ttl=64,nw_frag=no",
        "2",
    );
    Net::new(vec![Action::SetIpv4Src([9; 4]), out(2)]).check(
        &f,
        "recirc_id=0,eth,ip,in_port=1,nw_src=1.1.1.1,nw_proto=0,nw_frag=no",
        "2",
    );
    let arp = Flow { nw_proto: 1, ..eth(0x0806) };
    Net::new(vec![dec_ttl, out(2)]).check(&arp, "recirc_id=0,eth,arp,in_port=1,arp_op=1,nw_ttl=0", "2");
    Net::new(vec![Action::SetIpv4Src([9; 4]), out(2)]).check(&arp, "recirc_id=0,eth,arp,in_port=1", "2");
}

#[test]
fn ttl_runs_out() {
    let f = Flow { nw_ttl: 1, ..ip(6) };
    let (megaflow, actions) = Net::new(vec![Action::DecTtl(Box::new([])), out(2)]).trace(&f);
    assert_eq!(megaflow, "recirc_id=0,eth,tcp,in_port=1,nw_ttl=1,nw_frag=no");
    assert_eq!(actions, CONTROLLER.replace("reason=1", "reason=2"));
}

#[test]
fn vlan_headers() {
    let (plain, five) = (ip(6), tagged(ip(6), 5, 0));
    let m = "recirc_id=0,eth,ip,in_port=1,";
    let plain_m = format!("{m}nw_frag=no");
    let strip = Net::new(vec![Action::StripVlan, out(2)]);
    strip.check(&plain, &plain_m, "2");
    strip.check(&five, &format!("{m}dl_vlan=5,dl_vlan_pcp=0,nw_frag=no"), "pop_vlan,2");
    let vid = |vid| Action::SetVlanVid { vid, push_if_needed: true, flow_has_vlan: false };
    let pcp = |pcp| Action::SetVlanPcp { pcp, push_if_needed: true, flow_has_vlan: false };
    let net = Net::new(vec![vid(5), out(2)]);
    net.check(&plain, &plain_m, "push_vlan(vid=5,pcp=0),2");
    net.check(&five, &format!("{m}dl_vlan=5,nw_frag=no"), "2");
    net.check(
        &tagged(ip(6), 6, 3),
        &format!("{m}dl_vlan=6,dl_vlan_pcp=3,nw_frag=no"),
        "pop_vlan,push_vlan(vid=5,pcp=3),2",
    );
    let net = Net::new(vec![pcp(5), out(2)]);
    net.check(&plain, &plain_m, "push_vlan(vid=0,pcp=5),2");
    net.check(&five, &format!("{m}dl_vlan=5,dl_vlan_pcp=0,nw_frag=no"), "pop_vlan,push_vlan(vid=5,pcp=5),2");
    let push = vec![Action::PushVlan(0x8100), set(Field::VlanVid, 0x1004), out(2), Action::StripVlan, out(3)];
    Net::new(push.clone()).check(&plain, &plain_m, "push_vlan(vid=4,pcp=0),2,pop_vlan,3");
    Net::new(push).check(
        &five,
        &format!("{m}dl_vlan=5,dl_vlan_pcp=0,nw_frag=no"),
        "push_vlan(vid=4,pcp=0),2,pop_vlan,3",
    );
}

#[test]
fn queues_and_marks() {
    let f = ip(6);
    let actions = vec![
        Action::SetQueue(7),
        out(2),
        Action::SetQueue(8),
        out(3),
        Action::PopQueue,
        out(4),
        Action::Enqueue { port: OfPort(2), queue: 6 },
    ];
    Net::new(actions).check(
        &f,
        "recirc_id=0,skb_priority=0,eth,ip,in_port=1,nw_frag=no",
        "set(skb_priority(0x7)),2,set(skb_priority(0x8)),3,set(skb_priority(0)),4,set(skb_priority(0x6)),2",
    );
    Net::new(vec![set_masked(Field::PktMark, 5, 255), out(2)]).check(
        &f,
        "pkt_mark=0/0xff,recirc_id=0,eth,ip,in_port=1,nw_frag=no",
        "set(skb_mark(0x5/0xff)),2",
    );
}

#[test]
fn mpls_labels() {
    let push =
        vec![Action::PushMpls(0x8847), Action::SetMplsLabel(5), out(2), Action::PopMpls(0x0800), out(3)];
    Net::new(push.clone()).check(
        &ip(6),
        "recirc_id=0,eth,ip,in_port=1,nw_tos=0,nw_ttl=64,nw_frag=no",
        "push_mpls(label=5,tc=0,ttl=64,bos=1,eth_type=0x8847),2,pop_mpls(eth_type=0x800),3",
    );
    assert_eq!(
        Net::new(push).trace(&mpls(6, 4)).1,
        "push_mpls(label=5,tc=0,ttl=4,bos=0,eth_type=0x8847),2,pop_mpls(eth_type=0x8847),pop_mpls(eth_type=0x800),3"
    );
    Net::new(vec![Action::PopMpls(0x0800), out(2)]).check(
        &mpls(6, 4),
        "recirc_id=0,eth,mpls,in_port=1,mpls_bos=1",
        "pop_mpls(eth_type=0x800),2",
    );
    Net::new(vec![Action::PopMpls(0x0800), Action::DecTtl(Box::new([])), out(2)]).check(
        &mpls(6, 4),
        "recirc_id=0,eth,mpls,in_port=1,mpls_bos=1",
        "pop_mpls(eth_type=0x800),recirc(0x1)",
    );
    assert_eq!(
        Net::new(vec![Action::DecMplsTtl, Action::SetMplsTtl(9), out(2)]).trace(&mpls(6, 4)).1,
        "set(mpls(label=6,tc=0,ttl=9,bos=1)),2"
    );
}

#[test]
fn outputs() {
    let f = ip(6);
    let m = "recirc_id=0,eth,ip,in_port=1,nw_frag=no";
    Net::new(vec![out(1)]).check(&f, m, "drop");
    Net::new(vec![out(0xfff8)]).check(&f, m, "1");
    Net::new(vec![out(0xfffe)]).check(&f, m, "100");
    Net::new(vec![out(99), out(2)]).check(&f, m, "2");
    Net::new(vec![Action::OutputTrunc { port: OfPort(2), max_len: 100 }, out(3)]).check(
        &f,
        m,
        "trunc(100),2,3",
    );
    let trunc = |port| Action::OutputTrunc { port: OfPort(port), max_len: 100 };
    for (port, want) in [(1, "3"), (0xfff8, "3"), (0xfffe, "trunc(100),100,3"), (99, "3")] {
        Net::new(vec![trunc(port), out(3)]).check(&f, m, want);
    }
    let src = set(Field::EthSrc, mac(1));
    assert_eq!(
        Net::new(vec![src, trunc(2), out(3)]).trace(&f).1,
        "trunc(100),set(eth(src=00:00:00:00:00:01)),2,3"
    );
    Net::new(vec![to_controller()]).check(&f, m, CONTROLLER);
    let flood = Net::new(vec![out(0xfffb)]);
    assert_eq!(flood.trace(&f).1, "4,100,2,3", "bridge 1 has no rules");
    let mut quiet = Net::new(vec![out(0xfffb)]);
    quiet.config = vec![(2, PortConfig::NO_FLOOD), (3, PortConfig::NO_FWD)];
    quiet.check(&f, m, "4,100");
    let mut deaf = Net::new(vec![out(2)]);
    deaf.config = vec![(1, PortConfig::NO_RECV)];
    assert_eq!(deaf.trace(&f).1, "drop");
    Net::new(vec![out(2), Action::Resubmit { in_port: OfPort::IN_PORT, table: 0, with_ct: false }])
        .check(&f, m, "drop");
}

#[test]
fn prefixes_and_fragments() {
    let dst = |v: u128, len: u32| {
        let mut m = Match::any();
        m.set(Field::EthType, 0x0800);
        m.set_masked(Field::Ipv4Dst, v, u128::from(u32::MAX << (32 - len)));
        m
    };
    let mut net = Net::bare();
    for (m, port) in [(dst(0x0202_0200, 24), 2), (dst(0x0202_0000, 16), 3), (dst(0x0203_0000, 16), 4)] {
        net.tables[0].table_mut(0).classifier.insert(rule(0, 32768, &m, vec![out(port)]));
    }
    let to = |a: u32| Flow { nw_dst: Be32::new(a), ..ip(6) };
    net.check(&to(0x0202_0304), "recirc_id=0,eth,ip,in_port=1,nw_dst=2.2.3.0/24,nw_frag=no", "3");
    net.check(&to(0x0902_0304), "recirc_id=0,eth,ip,in_port=1,nw_dst=8.0.0.0/5,nw_frag=no", "drop");
    net.check(&eth(0x0806), "recirc_id=0,eth,arp,in_port=1", "drop");
    let net = Net::bare()
        .rule(0, 0, &[(Field::EthType, 0x0800), (Field::IpProto, 6), (Field::TcpDst, 80)], vec![out(2)])
        .rule(0, 0, &[(Field::EthType, 0x0800), (Field::IpFrag, 1)], vec![out(3)]);
    let frag = |nw_frag| Flow { nw_frag, tp_dst: Be16::new(if nw_frag & 2 == 0 { 80 } else { 0 }), ..ip(6) };
    let m = "recirc_id=0,eth,tcp,in_port=1,nw_frag=";
    net.check(&frag(0), &format!("{m}no,tp_dst=80"), "2");
    net.check(&frag(1), &format!("{m}first,tp_dst=0x40/0xffc0"), "3");
    net.check(&frag(3), &format!("{m}later"), "drop");
}

#[test]
fn table_misses() {
    let f = ip(6);
    assert_eq!(Net::bare().trace(&f).1, "drop");
    let mut net = Net::bare();
    net.packet_in_on_miss = true;
    assert_eq!(net.trace(&f).1, CONTROLLER.replace("reason=1", "reason=7"));
    let goto = |table| vec![Action::GotoTable(table)];
    assert_eq!(Net::new(goto(1)).trace(&f).1, "drop");
    assert_eq!(Net::new(goto(1)).rule(0, 1, &[], vec![out(3)]).trace(&f).1, "3");
    let resubmit = Action::Resubmit { in_port: OfPort::IN_PORT, table: 9, with_ct: false };
    let net = Net::new(vec![resubmit, out(3)]);
    assert_eq!(net.trace(&f).1, "3");
    assert_eq!(net.rule(0, 9, &[], vec![Action::Exit]).trace(&f).1, "drop");
}

#[test]
fn action_sets() {
    let f = ip(6);
    let set_it: Box<[Action]> = Box::new([set(Field::EthDst, mac(1)), out(3), Action::DecTtl(Box::new([]))]);
    let first = vec![set(Field::EthSrc, mac(9)), out(2), Action::WriteActions(set_it), Action::GotoTable(1)];
    let net = |second: Vec<Action>| Net::new(first.clone()).rule(0, 1, &[], second);
    let write = |a: Action| vec![Action::WriteActions(Box::new([a]))];
    net(write(out(4))).check(
        &f,
        "recirc_id=0,eth,tcp,in_port=1,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,nw_ttl=64,nw_frag=no",
        "set(eth(src=00:00:00:00:00:09)),2,set(eth(dst=00:00:00:00:00:01)),set(ipv4(ttl=63)),4",
    );
    assert_eq!(net(write(out(1))).trace(&f).1, "set(eth(src=00:00:00:00:00:09)),2");
    assert_eq!(net(vec![Action::ClearActions]).trace(&f).1, "set(eth(src=00:00:00:00:00:09)),2");
}

#[test]
fn patch_ports() {
    let f = ip(6);
    let net = |a: Vec<Action>, b: Vec<Action>| Net::new(a).rule(1, 0, &[], b);
    let src = |last| Action::SetEthSrc([0, 0, 0, 0, 0, last]);
    assert_eq!(net(vec![out(50), out(2)], vec![out(5)]).trace(&f).1, "5,2");
    net(vec![out(50), out(2)], vec![src(9), out(5)]).check(
        &f,
        "recirc_id=0,eth,ip,in_port=1,dl_src=50:54:00:00:00:05,nw_frag=no",
        "set(eth(src=00:00:00:00:00:09)),5,set(eth(src=50:54:00:00:00:05)),2",
    );
    let trunc = Action::OutputTrunc { port: OfPort(5), max_len: 100 };
    assert_eq!(net(vec![out(50), out(2)], vec![trunc, out(6)]).trace(&f).1, "clone(trunc(100),5,6),2");
    assert_eq!(
        net(vec![out(50), out(2)], vec![src(9), out(5), Action::PushMpls(0x8847), out(6)]).trace(&f).1,
        "set(eth(src=00:00:00:00:00:09)),5,push_mpls(label=0,tc=0,ttl=64,bos=1,eth_type=0x8847),6,\
         set(eth(src=50:54:00:00:00:05)),pop_mpls(eth_type=0x800),2"
    );
    let trunc = Action::OutputTrunc { port: OfPort(50), max_len: 100 };
    assert_eq!(net(vec![trunc, out(2)], vec![out(5)]).trace(&f).1, "2");
}

#[test]
fn slow_headers() {
    let slow = |net: &Net, f: &Flow| {
        let world = World::new();
        world.publish(net.snapshot());
        let mut x = XlateOut::default();
        let f = Flow { in_port: 1, ..*f };
        crate::upcall::translate_flow(&world, &f, 0, crate::upcall::Purpose::Revalidate, &mut x);
        let mut text = String::new();
        format_actions(&mut text, &x.actions, &Style::default());
        text
    };
    let arp = Flow { nw_proto: 1, ..eth(0x0806) };
    let net = Net::new(vec![set(Field::ArpOp, 2), out(2)]);
    assert_eq!(slow(&net, &arp), "userspace(pid=0,slow_path(action))");
    assert_eq!(slow(&net, &ip(6)), "2");
}

#[test]
fn normal_floods_and_forwards() {
    let m = "recirc_id=0,eth,ip,in_port=1,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,nw_frag=no";
    let mut net = Net::new(vec![out(0xfffa)]).rule(1, 0, &[], vec![out(0xfffa)]);
    net.check(&ip(6), m, "100,2,3,4,101,5,6");
    net.macs = vec![(3, DST, 0)];
    net.check(&ip(6), m, "3");
    net.macs = vec![(1, DST, 0)];
    net.check(&ip(6), m, "drop");
    let mut bpdu = eth(0x1234);
    bpdu.dl_dst = [1, 0x80, 0xc2, 0, 0, 1];
    assert_eq!(net.trace(&bpdu).1, "drop");
    let arp = |op, dst| Flow { nw_proto: op, dl_dst: dst, nw_src: Be32::new(0x0101_0101), ..eth(0x0806) };
    let m = "recirc_id=0,eth,arp,in_port=1,dl_src=50:54:00:00:00:05,dl_dst=ff:ff:ff:ff:ff:ff,";
    net.check(&arp(2, [0xff; 6]), &format!("{m}arp_op=2"), "100,2,3,4,101,5,6");
    net.check(
        &arp(1, [0xff; 6]),
        &format!("{m}arp_spa=1.1.1.1,arp_tpa=0.0.0.0,arp_op=1"),
        "100,2,3,4,101,5,6",
    );
}

#[test]
fn normal_vlans() {
    let mut net = Net::new(vec![out(0xfffa)]);
    net.config = vec![(50, PortConfig::NO_FLOOD)];
    net.vlans = vec![
        (1, VlanMode::Access, Some(10), None),
        (2, VlanMode::Trunk, None, Some(vec![10, 20])),
        (3, VlanMode::NativeTagged, Some(10), None),
        (4, VlanMode::NativeUntagged, Some(10), None),
    ];
    let actions = |port: u32, f: Flow| net.trace(&Flow { in_port: port, ..f }).1;
    let cases: [(u32, Option<u16>, &str); 19] = [
        (1, None, "push_vlan(vid=10,pcp=0),100,2,3,pop_vlan,4"),
        (1, Some(10), "drop"),
        (1, Some(20), "drop"),
        (1, Some(0), "pop_vlan,push_vlan(vid=10,pcp=3),100,2,3,pop_vlan,4"),
        (2, None, "drop"),
        (2, Some(10), "100,pop_vlan,1,push_vlan(vid=10,pcp=3),3,pop_vlan,4"),
        (2, Some(20), "100,3,4"),
        (2, Some(30), "drop"),
        (2, Some(0), "drop"),
        (3, None, "push_vlan(vid=10,pcp=0),100,pop_vlan,1,push_vlan(vid=10,pcp=0),2,pop_vlan,4"),
        (3, Some(10), "100,pop_vlan,1,push_vlan(vid=10,pcp=3),2,pop_vlan,4"),
        (3, Some(20), "100,2,4"),
        (3, Some(30), "100,4"),
        (3, Some(0), "pop_vlan,push_vlan(vid=10,pcp=3),100,pop_vlan,1,push_vlan(vid=10,pcp=3),2,pop_vlan,4"),
        (4, None, "push_vlan(vid=10,pcp=0),100,pop_vlan,1,push_vlan(vid=10,pcp=0),2,3"),
        (4, Some(10), "100,pop_vlan,1,push_vlan(vid=10,pcp=3),2,3"),
        (4, Some(20), "100,2,3"),
        (4, Some(30), "100,3"),
        (4, Some(0), "pop_vlan,push_vlan(vid=10,pcp=3),100,pop_vlan,1,push_vlan(vid=10,pcp=3),2,3"),
    ];
    for (port, vid, want) in cases {
        let f = vid.map_or(ip(6), |v| tagged(ip(6), v, 3));
        assert_eq!(actions(port, f), want, "port {port} VLAN {vid:?}");
    }
    assert_eq!(
        net.trace(&Flow { in_port: 2, ..tagged(ip(6), 20, 3) }).0,
        "recirc_id=0,eth,ip,in_port=2,dl_vlan=20,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,nw_frag=no"
    );
}

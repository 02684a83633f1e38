//! The life of megaflows under a revalidator whose clock and datapath the test holds.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/world.rs"]
mod world;

use datapath::shared::{Compact, NewFlow};
use datapath::{FlowEvent, Miss, MissResult, PmdId, SharedFlow, Suspect, Upcall};
use fake::FakeDatapath;
use flow::extract::{extract_flow, PktMetadata};
use flow::odp::{format_actions, Style};
use flow::{DpAction, Field, Match, OfPort};
use infra::Published;
use ofproto::mac_learning::MacKey;
use ofproto::revalidate::{RevalidateConfig, Revalidator, SweepReport, Team};
use ofproto::{BundleId, MacLearning, Rule, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use packet::Packet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

struct Bench {
    world: Arc<World>,
    tables: Published<Tables>,
    macs: Arc<MacLearning>,
    upcalls: Arc<Upcalls>,
    dp: Arc<FakeDatapath>,
    rev: Revalidator,
    now: u64,
}

fn rule(matching: &[(Field, u128)], actions: Vec<Action>) -> Arc<Rule> {
    let mut m = Match::any();
    matching.iter().for_each(|&(f, v)| m.set(f, v));
    world::rule(1 + matching.len() as i32, &m, actions)
}

fn out(port: u16) -> Vec<Action> {
    vec![Action::Output { port: OfPort(port), max_len: 0 }]
}

const NORMAL: u16 = 0xfffa;

impl Bench {
    fn new() -> Bench {
        let world = Arc::new(World::new());
        let tables = Published::new(Tables::default());
        let macs = Arc::new(MacLearning::new());
        world.publish(Snapshot::new([world::bridge(tables.clone(), macs.clone(), &[1, 2, 3])]));
        let upcalls = Arc::new(Upcalls::new(world.clone()));
        let dp = Arc::new(FakeDatapath::default());
        let rev = Revalidator::new(world.clone(), upcalls.clone(), dp.clone());
        Bench { world, tables, macs, upcalls, dp, rev, now: 1000 }
    }

    fn change(&self, f: impl FnOnce(&mut Tables)) {
        let mut t = (*self.tables.get()).clone();
        f(&mut t);
        self.tables.store(t);
        self.world.bump();
    }

    fn add(&self, rule: &Arc<Rule>) {
        self.change(|t| {
            t.table_mut(0).classifier.insert(rule.clone());
        });
    }

    fn remove(&self, rule: &Arc<Rule>) {
        self.change(|t| {
            t.table_mut(0).classifier.remove(rule);
        });
    }

    /// A packet misses: gives the installed flow, if one was.
    fn miss(&self, in_port: u32, src: u8, dst: u8, ip: u32) -> (Option<Arc<SharedFlow>>, String) {
        let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(ip.to_be_bytes());
        frame.extend([11, 0, 0, 1]);
        frame.extend([0; 26]);
        let packet = Packet::from_slice(&frame);
        let (flow, _) = extract_flow(&frame, &PktMetadata::new(in_port));
        let mut r = MissResult::default();
        self.upcalls.miss(&Miss { packet: &packet, flow: &flow, core: PmdId(0), now_ms: self.now }, &mut r);
        let text = text(&r.actions);
        let flow = r.install.then(|| {
            let f = Arc::new(SharedFlow::new(NewFlow {
                ufid: None,
                pmd: PmdId(0),
                key: Compact::from_flow(&flow),
                mask: Arc::new(Compact::from_flow(&r.mask.0)),
                actions: Arc::from(r.actions),
                seq: r.seq,
                now_ms: self.now,
                ctx: r.ctx,
            }));
            self.dp.events.lock().push(FlowEvent::New(f.clone()));
            f
        });
        (flow, text)
    }

    fn sweep(&self) -> SweepReport {
        self.rev.sweep(self.now, &mut || 1)
    }
}

fn text(actions: &[DpAction]) -> String {
    let mut s = String::new();
    format_actions(&mut s, actions, &Style::default());
    s
}

fn packets(rule: &Rule) -> (u64, u64, u64) {
    let s = &rule.stats;
    (s.packets.load(Ordering::Relaxed), s.bytes.load(Ordering::Relaxed), s.used_ms.load(Ordering::Relaxed))
}

#[test]
fn counts_reach_rules_and_tables() {
    let mut b = Bench::new();
    let r = rule(&[], out(2));
    b.add(&r);
    let (flow, actions) = b.miss(1, 1, 2, 1);
    let flow = flow.expect("below the limit");
    assert_eq!(actions, "2");
    assert_eq!(packets(&r), (1, 60, 1000), "the packet that missed is counted at once");
    flow.credit(10, 600, 1400, 0);
    b.now = 1500;
    assert_eq!(b.sweep().flows, 1);
    assert_eq!(packets(&r), (11, 660, 1400));
    b.sweep();
    assert_eq!(packets(&r), (11, 660, 1400), "nothing is counted twice");
    flow.credit(1, 60, 1600, 0);
    b.rev.push_stats();
    assert_eq!(packets(&r).0, 12);
    let stats = &b.tables.get().table(0).stats.clone();
    assert_eq!((stats.matched.load(Ordering::Relaxed), stats.missed.load(Ordering::Relaxed)), (12, 0));
    flow.credit(3, 180, 1700, 0);
    b.now = 20_000;
    assert_eq!(b.sweep().expired, 1);
    assert_eq!(packets(&r).0, 15, "the last packets of a flow count too");
    assert_eq!(b.rev.flow_count(), 0);
}

#[test]
fn counts_of_flows_announced_late_are_pushed() {
    let b = Bench::new();
    let r = rule(&[], out(2));
    b.add(&r);
    let flow = b.miss(1, 1, 2, 1).0.expect("below the limit");
    // Its packets are among those that the datapath tells of; that there is such a flow nobody has heard.
    let late = b.dp.events.lock().pop().expect("it was announced");
    flow.credit(4, 240, 1100, 0);
    *b.dp.activity.lock() = Some(5);
    b.rev.push_stats();
    assert_eq!(packets(&r).0, 1);
    b.dp.events.lock().push(late);
    b.rev.push_stats();
    assert_eq!(packets(&r).0, 5);
    flow.credit(1, 60, 1200, 0);
    b.rev.push_stats();
    assert_eq!(packets(&r).0, 5, "the datapath says that there is nothing new");
}

#[test]
fn idle_flows_leave() {
    let mut b = Bench::new();
    b.add(&rule(&[], out(2)));
    let flow = b.miss(1, 1, 2, 1).0.expect("below the limit");
    flow.credit(1, 60, 5000, 0);
    b.now = 14_999;
    assert_eq!(b.sweep().expired, 0);
    b.now = 15_000;
    assert_eq!(b.sweep().expired, 1);
    assert!(b.rev.flows().is_empty());
    b.rev.set_config(RevalidateConfig { max_idle_ms: 500, ..RevalidateConfig::default() });
    b.miss(1, 1, 2, 1);
    b.now += 500;
    assert_eq!(b.sweep().expired, 1);
}

#[test]
fn changed_tables_change_flows() {
    let b = Bench::new();
    let wide = rule(&[], out(2));
    b.add(&wide);
    let flow = b.miss(1, 1, 2, 1).0.expect("below the limit");
    b.sweep();
    // Other actions: in place.
    b.add(&rule(&[], out(3)));
    let report = b.sweep();
    assert_eq!((report.revalidated, report.modified, report.deleted), (1, 1, 0));
    let changed = b.dp.actions.lock().pop().expect("a flow was changed");
    assert_eq!((changed.0, text(&changed.1)), (Arc::as_ptr(&flow) as usize, "3".into()));
    assert_eq!(b.sweep().revalidated, 0, "up to date");
    // A rule that looks at more: the flow is too wide now.
    let narrow = rule(&[(Field::EthType, 0x800), (Field::Ipv4Src, 9)], out(1));
    b.add(&narrow);
    assert_eq!(b.sweep().deleted, 1);
    assert_eq!(b.rev.flow_count(), 0);
    // A rule less: a flow may be narrower than needed.
    b.miss(1, 1, 2, 1);
    b.sweep();
    b.remove(&narrow);
    let report = b.sweep();
    assert_eq!((report.revalidated, report.deleted), (1, 0));
}

#[test]
fn requests_for_statistics_make_no_flow_look_idle() {
    let mut b = Bench::new();
    b.add(&rule(&[], out(2)));
    let flow = b.miss(1, 1, 2, 1).0.expect("below the limit");
    // So slow that only flows with traffic are translated again.
    let slow = &mut || 400;
    b.rev.sweep(b.now, slow);
    for asked in [false, true] {
        b.now += 100;
        flow.credit(100, 6_000, b.now, 0);
        if asked {
            b.rev.push_stats();
        }
        // The datapath of this test never takes the new actions on, so that they are other ones each time.
        b.add(&rule(&[], out(3)));
        let report = b.rev.sweep(b.now, slow);
        assert_eq!((report.modified, report.deleted), (1, 0), "asked: {asked}");
    }
    b.now += 100;
    b.add(&rule(&[], out(3)));
    assert_eq!(b.rev.sweep(b.now, slow).deleted, 1, "nothing since");
}

#[test]
fn flow_limit() {
    let mut b = Bench::new();
    b.add(&rule(&[(Field::EthType, 0x800), (Field::Ipv4Src, 0xffff_ffff)], out(2)));
    b.add(&rule(&[(Field::EthType, 0x800), (Field::Ipv4Src, 0)], out(2)));
    b.upcalls.set_flow_limit(10);
    let all = |b: &Bench, from: u32, n: u32| {
        (from..from + n).filter(|i| b.miss(1, *i as u8, 2, i.reverse_bits()).0.is_some()).count()
    };
    assert_eq!(all(&b, 0, 15), 10);
    b.sweep();
    assert_eq!(b.rev.flow_count(), 10);
    // Over the limit flows leave after 100 ms, over twice the limit at once.
    b.upcalls.set_flow_limit(8);
    b.now += 99;
    assert_eq!(b.sweep().expired, 0);
    // A limit set by hand lasts until the next dump, if it is below the least.
    assert_eq!(b.upcalls.flow_limit(), 1000);
    b.upcalls.set_flow_limit(8);
    b.now += 1;
    assert_eq!(b.sweep().expired, 10);
    b.upcalls.set_flow_limit(100);
    all(&b, 0, 50);
    b.upcalls.set_flow_limit(20);
    assert_eq!(b.sweep().expired, 50);
}

#[test]
fn flow_limit_follows_the_dump() {
    let b = Bench::new();
    let sweep = |ms: u64| {
        b.rev.sweep(b.now, &mut || ms);
        b.upcalls.flow_limit()
    };
    assert_eq!(sweep(1), 10_000);
    assert_eq!(sweep(1400), 7_500);
    assert_eq!(sweep(3000), 2_500);
    assert_eq!(sweep(10_000), 1_000);
}

#[test]
fn unknown_ports_fail() {
    let b = Bench::new();
    b.add(&rule(&[], out(2)));
    let (flow, actions) = b.miss(9, 1, 2, 1);
    assert_eq!((flow.is_none(), actions.as_str()), (true, "drop"));
    assert_eq!(b.upcalls.stats().unknown_port.load(Ordering::Relaxed), 1);
}

#[test]
fn learning_moves_flows() {
    let mut b = Bench::new();
    b.add(&rule(&[], out(NORMAL)));
    let a_to_b = b.miss(1, 0xa, 0xb, 1);
    assert_eq!(a_to_b.1, "2,3", "flooded");
    let b_to_a = b.miss(2, 0xb, 0xa, 1);
    assert_eq!(b_to_a.1, "1");
    // The flood gives way to the learned port, in place.
    let report = b.sweep();
    assert_eq!((report.modified, report.deleted), (1, 0));
    assert_eq!(text(&b.dp.actions.lock().pop().expect("one was changed").1), "2");
    assert_eq!(b.sweep().revalidated, 0);
    // Traffic keeps entries young; without it they go and the flow floods again.
    b.now = 250_000;
    a_to_b.0.as_ref().expect("installed").credit(1, 60, 250_000, 0);
    b.rev.set_config(RevalidateConfig { max_idle_ms: 1_000_000, ..RevalidateConfig::default() });
    b.sweep();
    b.now = 302_000;
    b.sweep();
    let key = |last| MacKey { vlan: 0, mac: [2, 0, 0, 0, 0, last] };
    assert_eq!(b.macs.lookup(key(0xa), b.now), Some(BundleId(1)));
    assert_eq!(b.macs.lookup(key(0xb), b.now), None);
    assert_eq!(b.miss(1, 0xa, 0xb, 1).1, "2,3");
}

#[test]
fn threads_sweep_on_their_own() {
    let b = Bench::new();
    let r = rule(&[], out(2));
    b.add(&r);
    b.miss(1, 1, 2, 1);
    let clock = AtomicU64::new(1000);
    b.rev.wait_sweep();
    assert_eq!(b.rev.flow_count(), 0, "without a thread there is nothing to wait for");
    let team = Arc::new(Team::new(vec![5, 6, 9]));
    b.rev.set_team(team.clone());
    let (before, after, show) = std::thread::scope(|s| {
        for i in 0..3 {
            let (b, team, clock) = (&b, &team, &clock);
            s.spawn(move || b.rev.run(team, i, &|| clock.load(Ordering::Relaxed)));
        }
        b.rev.wait_sweep();
        let before = b.rev.flow_count();
        b.rev.purge();
        let got = (before, b.rev.flow_count(), b.rev.show());
        b.rev.stop();
        got
    });
    assert_eq!((before, after), (1, 0));
    assert!(show.starts_with("netdev@ovs-netdev:\n  flows         : (current 0) (avg "), "{show}");
    assert!(
        show.ends_with("ms\n  ufid enabled : true\n\n  5: (keys 0)\n  6: (keys 0)\n  9: (keys 0)\n"),
        "{show}"
    );
}

#[test]
fn a_purge_while_paused_is_waited_for() {
    let b = Bench::new();
    b.rev.set_team(Arc::new(Team::new(vec![1])));
    b.rev.pause(true);
    assert!(b.rev.is_done(&b.rev.ask_sweep()), "there will be none");
    let purge = b.rev.ask_purge();
    assert!(!b.rev.is_done(&purge), "nobody has begun");
    b.rev.sweep(b.now, &mut || {
        assert!(!b.rev.is_done(&purge), "it has not ended");
        assert!(b.rev.is_done(&b.rev.ask_sweep()));
        1
    });
    assert!(b.rev.is_done(&purge));
    let another = b.rev.ask_purge();
    assert!(!b.rev.is_done(&another));
    b.sweep();
    assert!(b.rev.is_done(&another));
}

/// A packet of flow (2, 1, 2, `ip`), as `Bench::miss` makes them.
fn suspect(b: &Bench, flow: &Arc<SharedFlow>) -> FlowEvent {
    let suspect =
        Suspect { flow: flow.clone(), frame: Box::new([0; 60]), key: flow.key.flow(), now_ms: b.now };
    FlowEvent::Suspect(Box::new(suspect))
}

#[test]
fn wrong_flows_are_found_and_removed() {
    let b = Bench::new();
    b.add(&rule(&[], out(2)));
    b.add(&rule(&[(Field::EthType, 0x800), (Field::Ipv4Src, 9)], out(1)));
    let (good, _) = b.miss(1, 1, 2, 1);
    let good = good.expect("below the limit");
    b.sweep();
    let packet = Packet::from_slice(&[0; 60]);
    let check = |flow: &SharedFlow, actions: &[DpAction]| {
        let key = flow.key.flow();
        let req = Miss { packet: &packet, flow: &key, core: PmdId(0), now_ms: b.now };
        b.upcalls.is_sound(&req, flow, actions)
    };
    assert!(check(&good, &good.actions()));
    assert!(!check(&good, &[]), "other actions");
    // Installed by somebody with other actions, or with a mask that is too wide.
    let forge = |mask: Compact, actions: Arc<[DpAction]>| {
        let f = Arc::new(SharedFlow::new(NewFlow {
            ufid: None,
            pmd: PmdId(0),
            key: good.key.clone(),
            mask: Arc::new(mask),
            actions,
            seq: b.world.seq(),
            now_ms: b.now,
            ctx: None,
        }));
        b.dp.events.lock().push(FlowEvent::New(f.clone()));
        f
    };
    let bent = forge((*good.mask).clone(), Arc::new([]));
    let mut mask = good.mask.flow();
    mask.nw_src = 0.into();
    let wide = forge(Compact::from_flow(&mask), good.actions());
    assert!(!check(&bent, &bent.actions()) && !check(&wide, &wide.actions()));
    for f in [&good, &bent, &wide] {
        b.dp.events.lock().push(suspect(&b, f));
    }
    assert_eq!(b.sweep().flows, 3, "suspects are noted");
    b.sweep();
    assert_eq!(b.rev.flow_count(), 3, "and have a sweep's time");
    b.sweep();
    assert_eq!(b.rev.flow_count(), 1);
    assert!(Arc::ptr_eq(&b.rev.flows()[0], &good));
    let count = infra::coverage::read("flow_self_check_failed");
    assert_eq!(count, Some(2));
    // Of another version of the tables: revalidation will tell, not the check.
    b.add(&rule(&[], out(3)));
    assert!(check(&good, &good.actions()));
}

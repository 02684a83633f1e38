//! Handlers over a datapath that queues its misses.

#[path = "common/queued.rs"]
mod queued;
#[path = "common/world.rs"]
mod world;

use datapath::{Provider, UpcallKind, UpcallQueue};
use flow::extract::PktMetadata;
use flow::odp::wire::{encode_cookie, encode_key, WireCookie};
use flow::odp::{format_actions, format_key, Style};
use flow::{extract_flow, Field, Flow, Match, OfPort};
use infra::Published;
use ofproto::handler::{Handlers, MAX_BATCH};
use ofproto::revalidate::{RevalidateConfig, Revalidator};
use ofproto::{MacLearning, Rule, Snapshot, Tables, Upcalls, World};
use openflow::Action;
use proptest::prelude::*;
use queued::{QueuedDatapath, CHANNEL};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

struct Bench {
    world: Arc<World>,
    tables: Published<Tables>,
    upcalls: Arc<Upcalls>,
    dp: Arc<QueuedDatapath>,
    handlers: Handlers,
    rev: Revalidator,
}

fn out(port: u16) -> Vec<Action> {
    vec![Action::Output { port: OfPort(port), max_len: 0 }]
}

fn rule(matching: &[(Field, u128)], actions: Vec<Action>) -> Arc<Rule> {
    let mut m = Match::any();
    matching.iter().for_each(|&(f, v)| m.set(f, v));
    world::rule(1 + matching.len() as i32, &m, actions)
}

/// A frame that tells its number in the source address.
fn frame(n: u32) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    f.extend(n.to_be_bytes());
    f.extend([11, 0, 0, 1]);
    f.extend([0; 26]);
    f
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[26..30].try_into().expect("an IPv4 frame"))
}

fn packets(rule: &Rule) -> u64 {
    rule.stats.packets.load(Ordering::Relaxed)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Bench {
    /// Ports 1 to 4 and these rules; `n` channels that nobody serves but [`Bench::turn`].
    fn new(rules: &[&Arc<Rule>], n: usize) -> Bench {
        let world = Arc::new(World::new());
        let mut t = Tables::default();
        rules.iter().for_each(|r| {
            t.table_mut(0).classifier.insert((*r).clone());
        });
        let tables = Published::new(t);
        let macs = Arc::new(MacLearning::new());
        world.publish(Snapshot::new([world::bridge(tables.clone(), macs, &[1, 2, 3, 4])]));
        let upcalls = Arc::new(Upcalls::new(world.clone()));
        let dp = QueuedDatapath::new();
        dp.set_handlers(n).expect("channels");
        let clock = dp.clone();
        let handlers =
            Handlers::new(upcalls.clone(), dp.clone(), Arc::new(move || clock.now())).expect("descriptors");
        let rev = Revalidator::new(world.clone(), upcalls.clone(), dp.clone());
        Bench { world, tables, upcalls, dp, handlers, rev }
    }

    /// Serves channel 0 once.
    fn turn(&self) -> usize {
        self.handlers.turn(0)
    }

    fn serve(&self) {
        while self.turn() > 0 {}
    }

    fn sweep(&self) {
        self.rev.sweep(self.dp.now(), &mut || 1);
    }

    fn flows(&self) -> Vec<String> {
        let line = |f: &Arc<datapath::SharedFlow>| {
            let mut s = String::new();
            format_key(&mut s, &f.key.flow(), Some(&f.mask.mask()), &Style::default());
            s.push_str(" => ");
            format_actions(&mut s, &f.actions(), &Style::default());
            s
        };
        self.dp.flows().iter().map(line).collect()
    }
}

/// One rule per address makes one flow per packet.
fn per_address() -> [Arc<Rule>; 2] {
    [rule(&[(Field::EthType, 0x800), (Field::Ipv4Src, 0xffff_ffff)], out(3)), rule(&[], out(2))]
}

#[test]
fn a_miss_brings_a_flow_and_the_packet_goes_on() {
    let r = rule(&[], out(2));
    let b = Bench::new(&[&r], 1);
    b.dp.receive(1, &frame(1));
    assert_eq!((b.dp.sent().len(), b.turn()), (0, 1));
    assert_eq!(b.dp.sent(), [(2, frame(1))]);
    assert_eq!(b.dp.batches(), [(1, 1)]);
    assert_eq!(
        b.flows(),
        ["recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no) => 2"]
    );
    assert_eq!(packets(&r), 1, "the packet that missed is counted at once");
    b.dp.receive(1, &frame(2));
    assert_eq!(b.dp.sent(), [(2, frame(2))]);
    assert_eq!((b.turn(), b.dp.stats().hit, b.dp.stats().missed), (0, 1, 1));
}

#[test]
fn misses_are_dropped_while_tables_are_restored() {
    let r = rule(&[], out(2));
    let b = Bench::new(&[&r], 1);
    b.upcalls.set_restoring(true);
    b.dp.receive(1, &frame(1));
    b.serve();
    assert_eq!((b.dp.sent().len(), b.flows().len(), packets(&r)), (0, 0, 0));
    b.upcalls.set_restoring(false);
    b.dp.receive(1, &frame(1));
    b.serve();
    assert_eq!((b.dp.sent().len(), b.flows().len(), packets(&r)), (1, 1, 1));
}

#[test]
fn packets_leave_in_the_order_in_which_they_came_in_batches() {
    let [narrow, wide] = per_address();
    let b = Bench::new(&[&narrow, &wide], 1);
    let n = 3 * MAX_BATCH as u32 + 7;
    // Bits of an address decide how wide its flow is: every packet misses.
    (0..n).for_each(|i| b.dp.receive(1, &frame(i)));
    let mut turns = Vec::new();
    loop {
        match b.turn() {
            0 => break,
            n => turns.push(n),
        }
    }
    assert_eq!(turns, [MAX_BATCH, MAX_BATCH, MAX_BATCH, 7]);
    let order: Vec<u32> = b.dp.sent().iter().map(|(_, f)| number(f)).collect();
    assert_eq!(order, (0..n).collect::<Vec<_>>());
    assert_eq!(b.dp.batches().iter().map(|(_, p)| p).sum::<usize>(), n as usize);
    assert_eq!(packets(&narrow) + packets(&wide), n.into());
    assert_eq!(read(&b.handlers.stats().misses), n.into());
    assert_eq!(read(&b.handlers.stats().batches), 4);
}

#[test]
fn packets_of_one_flow_under_way_install_it_once() {
    let r = rule(&[], out(2));
    let b = Bench::new(&[&r], 1);
    let n = MAX_BATCH as u32 + 10;
    (0..n).for_each(|i| b.dp.receive(1, &frame(i)));
    b.serve();
    // One flow in the first batch; in the second it is there already, and the datapath says so.
    assert_eq!(b.dp.batches(), [(1, MAX_BATCH), (1, 10)]);
    assert_eq!((b.dp.flows().len(), b.dp.sent().len()), (1, n as usize));
    assert_eq!(packets(&r), n.into());
    assert_eq!(read(&b.handlers.stats().duplicates), u64::from(n) - 1);
    assert_eq!(read(&b.handlers.stats().refused), 0);
    b.sweep();
    assert_eq!(b.rev.flow_count(), 1);
}

#[test]
fn counters_come_with_a_dump_and_idle_flows_leave() {
    let r = rule(&[], out(2));
    let b = Bench::new(&[&r], 1);
    b.dp.receive(1, &frame(1));
    b.serve();
    b.dp.advance(500);
    (0..10).for_each(|_| b.dp.receive(1, &frame(1)));
    assert_eq!(b.dp.flows()[0].stats().packets, 0, "nobody has dumped yet");
    b.sweep();
    assert_eq!((b.dp.flows()[0].stats().packets, packets(&r)), (10, 11));
    b.dp.advance(9_999);
    b.sweep();
    assert_eq!(b.dp.flows().len(), 1);
    b.dp.receive(1, &frame(1));
    b.dp.advance(9_999);
    b.sweep();
    assert_eq!((b.dp.flows().len(), packets(&r)), (1, 12), "a packet that was not dumped yet counts");
    b.dp.advance(1);
    b.sweep();
    assert_eq!((b.dp.flows().len(), b.rev.flow_count(), packets(&r)), (0, 0, 12));
}

#[test]
fn changed_tables_remove_flows() {
    let [narrow, wide] = per_address();
    let b = Bench::new(&[&wide], 1);
    b.dp.receive(1, &frame(1));
    b.serve();
    let mut t = (*b.tables.get()).clone();
    t.table_mut(0).classifier.insert(narrow);
    b.tables.store(t);
    b.world.bump();
    b.sweep();
    assert!(b.dp.flows().is_empty(), "too wide now");
}

#[test]
fn over_the_flow_limit_packets_go_on_without_flows() {
    let [narrow, wide] = per_address();
    let b = Bench::new(&[&narrow, &wide], 1);
    b.upcalls.set_flow_limit(3);
    // A reflected address has a flow of its own for each.
    (0..10u32).for_each(|i| b.dp.receive(1, &frame(u32::MAX << i)));
    b.serve();
    assert_eq!((b.dp.flows().len(), b.dp.sent().len()), (3, 10));
    assert_eq!(packets(&narrow) + packets(&wide), 10);
    assert!(read(&b.upcalls.stats().over_limit) > 0);
}

#[test]
fn a_port_that_nobody_knows_gets_a_flow_that_drops() {
    let b = Bench::new(&[&rule(&[], out(2))], 1);
    (0..20).for_each(|i| b.dp.receive(9, &frame(i)));
    b.serve();
    assert_eq!(b.flows(), ["recirc_id(0),in_port(9),eth_type(0x0800) => drop"]);
    assert_eq!((b.dp.sent().len(), read(&b.handlers.stats().unknown_port)), (0, 20));
    // Once the port is known, the flow makes room for one that forwards.
    let view = world::bridge(b.tables.clone(), Arc::new(MacLearning::new()), &[1, 2, 9]);
    b.world.publish(Snapshot::new([view]));
    b.sweep();
    assert!(b.dp.flows().is_empty());
    b.dp.receive(9, &frame(1));
    b.serve();
    assert_eq!(b.dp.sent(), [(2, frame(1))]);
}

#[test]
fn upcalls_are_told_apart_by_type_and_cookie() {
    let slow = rule(&[(Field::EthType, 0x800)], vec![Action::Output { port: OfPort(0xfffd), max_len: 64 }]);
    let b = Bench::new(&[&slow], 1);
    // A rule for the controller: the flow carries a cookie that comes back with each packet.
    (0..3).for_each(|_| {
        b.dp.receive(1, &frame(7));
        b.serve();
    });
    let mut got = Vec::new();
    assert_eq!(b.handlers.drain_userspace(2, &mut |p| got.push(p)), 2);
    assert_eq!(b.handlers.drain_userspace(9, &mut |p| got.push(p)), 1);
    assert!(got.iter().all(|p| p.packet.data() == frame(7) && p.flow.in_port == 1));
    let key = |port: u32| encode_key(&Flow { in_port: port, ..Flow::default() });
    for cookie in [WireCookie::SFlow, WireCookie::FlowSample, WireCookie::Ipfix] {
        b.dp.queue(UpcallKind::Action, &frame(1), key(1), &encode_cookie(&cookie));
    }
    let slow_path = WireCookie::Own(flow::UserspaceCookie::SlowPath { reason: 0x20 });
    b.dp.queue(UpcallKind::Action, &frame(1), key(1), &encode_cookie(&slow_path));
    b.dp.queue(UpcallKind::Action, &frame(1), key(1), &[]);
    b.dp.queue(UpcallKind::Action, &frame(1), key(1), &[9; 40]);
    b.dp.queue(UpcallKind::Action, &frame(1), key(1), &[9; 32]);
    b.dp.queue(UpcallKind::Miss, &frame(1)[..9], key(1), &[]);
    b.dp.queue(UpcallKind::Miss, &frame(1), vec![1, 2, 3], &[]);
    let before = read(&b.handlers.stats().controller);
    b.serve();
    let s = b.handlers.stats();
    assert_eq!((read(&s.sflow), read(&s.flow_sample), read(&s.ipfix)), (1, 1, 1));
    assert_eq!((read(&s.slow_path), read(&s.bad)), (1, 5));
    assert_eq!(read(&s.controller), before + 1, "the slow path runs the actions");
}

#[test]
fn what_the_datapath_cannot_do_is_done_here_for_each_packet() {
    let arp = rule(
        &[(Field::EthType, 0x806)],
        [
            vec![Action::SetField {
                field: Field::ArpOp,
                value: 2,
                mask: Field::ArpOp.all_ones(),
                flow_has_vlan: false,
            }],
            out(2),
        ]
        .concat(),
    );
    let b = Bench::new(&[&arp], 1);
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    request.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    b.dp.receive(1, &request);
    b.serve();
    assert!(b.flows()[0].ends_with("=> userspace(pid=0,slow_path(action))"), "{:?}", b.flows());
    b.dp.receive(1, &request);
    b.serve();
    let s = b.handlers.stats();
    assert_eq!((read(&s.misses), read(&s.slow_path), b.dp.sent().len()), (1, 1, 2));
    b.sweep();
    assert_eq!(packets(&arp), 2, "one that missed, one that the flow counted");
}

#[test]
fn packets_for_controllers_are_bounded() {
    let c = rule(&[], vec![Action::Output { port: OfPort(0xfffd), max_len: 64 }]);
    let b = Bench::new(&[&c], 1);
    (0..CHANNEL as u32).for_each(|i| b.dp.receive(1, &frame(i)));
    b.serve();
    (0..CHANNEL as u32 - 1).for_each(|i| b.dp.receive(1, &frame(i)));
    b.serve();
    let s = b.handlers.stats();
    let n = b.handlers.drain_userspace(usize::MAX, &mut |_| {});
    assert_eq!(n as u64, read(&s.controller));
    assert_eq!(read(&s.controller) + read(&s.controller_lost), 2 * CHANNEL as u64 - 1);
    assert!(n <= 1024);
}

#[test]
fn threads_serve_sleep_and_end() {
    let [narrow, wide] = per_address();
    let b = Bench::new(&[&narrow, &wide], 0);
    b.dp.receive(1, &frame(0));
    assert_eq!(b.dp.stats().lost, 1, "nobody handles yet");
    let mut total = 0u64;
    for threads in [1, 3, 2] {
        let numbers: Vec<u32> = (1..=threads).collect();
        b.handlers.start(&numbers).expect("threads");
        assert_eq!(b.handlers.count(), threads as usize);
        for i in 0..400u32 {
            b.dp.receive([1, 3, 4][i as usize % 3], &frame(i.reverse_bits()));
            total += 1;
            if i % 100 == 0 {
                // They have gone to sleep, or will: a packet wakes them.
                while b.dp.stats().hit + read(&b.handlers.stats().misses) < total {
                    std::thread::yield_now();
                }
            }
        }
        while b.dp.stats().hit + read(&b.handlers.stats().misses) < total {
            std::thread::yield_now();
        }
        b.sweep();
    }
    b.handlers.stop();
    b.sweep();
    assert_eq!((b.handlers.count(), b.dp.stats().lost), (0, 1));
    assert_eq!(packets(&narrow) + packets(&wide), total);
    assert_eq!(b.dp.sent().len() as u64, total);
    b.upcalls.set_flow_limit(0);
    b.dp.advance(60_000);
    b.sweep();
    b.dp.receive(1, &frame(77));
    assert_eq!(b.dp.stats().lost, 2, "and after the end nobody does");
}

#[test]
fn what_is_queued_can_be_thrown_away() {
    let b = Bench::new(&[&rule(&[], out(2))], 2);
    (0..6).for_each(|i| b.dp.receive(1 + i % 2, &frame(i)));
    b.dp.purge();
    assert_eq!((b.turn(), b.handlers.turn(1), b.handlers.turn(2), b.dp.stats().lost), (0, 0, 0, 6));
}

#[test]
fn settings_of_revalidation_hold_for_queued_flows() {
    let b = Bench::new(&[&rule(&[], out(2))], 1);
    b.rev.set_config(RevalidateConfig { max_idle_ms: 500, ..RevalidateConfig::default() });
    b.dp.receive(1, &frame(1));
    b.serve();
    b.dp.advance(500);
    b.sweep();
    assert!(b.dp.flows().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes up with a packet, it is handled or counted as bad, and nothing else suffers.
    #[test]
    fn hostile_keys_and_cookies(
        key in prop::collection::vec(any::<u8>(), 0..120),
        cookie in prop::collection::vec(any::<u8>(), 0..40),
        body in prop::collection::vec(any::<u8>(), 0..80),
        at in 0usize..120, v in any::<u8>(),
    ) {
        let b = Bench::new(&[&rule(&[], out(2))], 1);
        let (flow, _) = extract_flow(&frame(1), &PktMetadata::new(1));
        let mut broken = encode_key(&flow);
        if let Some(x) = broken.get_mut(at) {
            *x = v;
        }
        for kind in [UpcallKind::Miss, UpcallKind::Action] {
            b.dp.queue(kind, &body, key.clone(), &cookie);
            b.dp.queue(kind, &frame(2), broken.clone(), &cookie);
        }
        b.serve();
        let s = b.handlers.stats();
        let classes =
            [&s.misses, &s.slow_path, &s.controller, &s.sflow, &s.flow_sample, &s.ipfix, &s.bad, &s.controller_lost];
        prop_assert_eq!(classes.into_iter().map(read).sum::<u64>(), 4);
        b.dp.receive(4, &frame(3));
        b.serve();
        prop_assert_eq!(b.dp.sent().pop(), Some((2, frame(3))));
    }
}

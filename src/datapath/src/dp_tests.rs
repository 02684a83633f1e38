//! The whole loop over ports in memory, stepped by hand.

use super::*;
use crate::api::{Miss, MissResult};
use crate::testpkt;
use flow::{Be16, Mask, RecircId, SetField, UserspaceCookie};
use infra::cpu::{CoreId, Topology};
use netdev::mem::MemPort;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

type Rule = (Vec<DpAction>, Mask);

/// Translates by (input port, recirculation id).
#[derive(Default)]
pub(super) struct Table {
    rules: Mutex<HashMap<(u32, u32), Rule>>,
    misses: AtomicUsize,
    keep: std::sync::atomic::AtomicBool,
    /// What [`Upcall::is_sound`] says.
    unsound: std::sync::atomic::AtomicBool,
    checks: Mutex<Vec<(u128, Flow, usize)>>,
}

impl Table {
    pub(super) fn set(&self, in_port: u32, recirc: u32, actions: &[DpAction], mask: Mask) {
        self.rules.lock().insert((in_port, recirc), (actions.to_vec(), mask));
    }
}

impl Upcall for Table {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        match self.rules.lock().get(&(req.flow.in_port, req.flow.recirc_id)) {
            Some((actions, mask)) => {
                out.actions.extend_from_slice(actions);
                out.mask = *mask;
                out.install = !self.keep.load(Ordering::Relaxed);
                out.seq = 7;
            }
            None => out.failed = true,
        }
    }

    fn is_sound(&self, req: &Miss<'_>, flow: &SharedFlow, actions: &[DpAction]) -> bool {
        assert_eq!(&*flow.actions(), actions);
        self.checks.lock().push((flow.ufid.0, *req.flow, req.packet.frame_len()));
        !self.unsound.load(Ordering::Relaxed)
    }
}

pub(super) struct Rig {
    pub(super) dp: Arc<Datapath>,
    pub(super) table: Arc<Table>,
    pub(super) ports: Vec<Arc<MemPort>>,
    pub(super) now: Arc<AtomicU64>,
    suspects: Mutex<Vec<crate::Suspect>>,
}

pub(super) fn rig_with(ports: Vec<Arc<MemPort>>) -> Rig {
    rig_of(ports, false)
}

fn rig_of(ports: Vec<Arc<MemPort>>, lazy_clock: bool) -> Rig {
    let table = Arc::new(Table::default());
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let options = DpOptions {
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        thread_start: None,
        threads: false,
        lazy_clock,
        topology: Topology::from_cores((0..4).map(|c| (CoreId(c), NumaId(c / 2))).collect()),
        seed: 1,
    };
    let dp = Datapath::new("ovs-netdev", Arc::clone(&table) as Arc<dyn Upcall>, options).unwrap();
    for (i, p) in ports.iter().enumerate() {
        assert_eq!(dp.add_port(Arc::clone(p) as Arc<dyn Netdev>, None).unwrap(), DpPort(i as u32 + 1));
    }
    Rig { dp, table, ports, now, suspects: Mutex::default() }
}

fn rig(n: usize) -> Rig {
    rig_with((1..=n).map(|i| MemPort::new(&format!("p{i}"))).collect())
}

pub(super) fn out(p: u32) -> DpAction {
    DpAction::Output(DpPort(p))
}

pub(super) fn in_port_mask() -> Mask {
    let mut m = Mask::default();
    m.0.dl_type = Be16::MAX;
    m
}

impl Rig {
    pub(super) fn stat(&self, f: impl Fn(&PmdStats) -> u64) -> u64 {
        f(&self.dp.total_stats())
    }

    fn events(&self) -> (Vec<Arc<SharedFlow>>, Vec<Arc<SharedFlow>>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        self.dp.drain_events(usize::MAX, &mut |e| match e {
            FlowEvent::New(f) => new.push(f),
            FlowEvent::Deleted(f) => gone.push(f),
            FlowEvent::Suspect(s) => self.suspects.lock().push(*s),
        });
        (new, gone)
    }

    /// Every packet that came in or was made is somewhere.
    pub(super) fn assert_accounted(&self) {
        let s = self.dp.total_stats();
        assert_eq!(s.to_io, s.relayed, "packets in the ring to the io thread");
        let ins = s.received + s.executed + s.copies;
        let outs = s.sent + s.userspace + s.total_dropped();
        assert_eq!(ins, outs, "{s:?}");
    }
}

#[test]
fn forwards_and_counts() {
    let r = rig(2);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    let frame = testpkt::udp4(1, 60);
    for _ in 0..40 {
        r.ports[0].push(0, &frame);
    }
    r.now.store(5_000, Ordering::Relaxed);
    while r.dp.step() > 0 {}
    assert_eq!(r.ports[1].take(), vec![frame; 40]);
    assert_eq!(r.table.misses.load(Ordering::Relaxed), 1, "one burst, one translation");
    let (new, _) = r.events();
    assert_eq!(new.len(), 1);
    let s = new[0].stats();
    assert_eq!(
        (s.packets, s.bytes, s.used_ms),
        (39, 39 * 60, 5_000),
        "the miss is counted by its translation"
    );
    assert_eq!(new[0].seq.load(Ordering::Relaxed), 7);
    assert_eq!(new[0].mask.mask().0.in_port, u32::MAX);
    assert_eq!(r.dp.flow_count(), 1);
    assert_eq!(r.stat(|s| s.received), 40);
    assert_eq!(r.stat(|s| s.emc_hits + s.smc_hits + s.megaflow_hits + s.simple_hits + s.miss_ok), 40);
    let impls = crate::Implementations::default();
    assert_eq!(impls.dpifs(&[&r.dp]), "Available DPIF implementations:\n  dpif_scalar (pmds: 0,2)\n");
    assert!(impls.parsers(&[&r.dp]).contains("\n  scalar (available: True pmds: 0,2)\n"));
    assert!(impls.lookups(&[&r.dp]).ends_with("  generic (Use count: 1, Priority: 1)\n"));
    assert_eq!(r.stat(|s| s.miss_ok), 1);
    r.assert_accounted();
}

#[test]
fn emc_takes_over() {
    let r = rig(2);
    r.dp.set_config(DpConfig { emc_insert_inv_prob: 1, ..DpConfig::default() }).unwrap();
    let mut mask = in_port_mask();
    // What the simple match refuses, so that the caches are asked.
    mask.0.tcp_flags = Be16::new(1);
    r.table.set(1, 0, &[out(2)], mask);
    for i in 0..6 {
        (0..32).for_each(|_| r.ports[0].push(0, &testpkt::udp4(i % 3, 60)));
        r.dp.step();
    }
    assert_eq!(r.stat(|s| s.miss_ok), 1);
    assert!(r.stat(|s| s.emc_hits) >= 96);
    assert_eq!(r.stat(|s| s.emc_hits) + r.stat(|s| s.megaflow_hits), 191);
    r.assert_accounted();
}

#[test]
fn drops_have_reasons() {
    let r = rig(2);
    let mut by_type = in_port_mask();
    by_type.0.dl_type = Be16::MAX;
    r.table.set(1, 0, &[], by_type);
    r.table.set(2, 0, &[out(9)], by_type);
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.ports[1].push(0, &testpkt::udp4(1, 60));
    r.ports[1].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.dp.dropped(Drop::Action), 1);
    assert_eq!(r.dp.dropped(Drop::NoPort), 2);
    r.table.rules.lock().clear();
    let arp = testpkt::arp(1);
    r.ports[0].push(0, &arp);
    r.dp.step();
    assert_eq!(r.dp.dropped(Drop::Upcall), 1);
    assert_eq!(r.stat(|s| s.miss_failed), 1);
    // A drop action tells the reason; one that nobody knows is the rules'.
    for (port, code, reason) in
        [(0, Drop::StackTooDeep as u32, Drop::StackTooDeep), (1, u32::MAX, Drop::Action)]
    {
        r.table.set(port as u32 + 1, 0, &[DpAction::Drop(code)], by_type);
        let before = r.dp.dropped(reason);
        r.ports[port].push(0, &arp);
        r.dp.step();
        assert_eq!(r.dp.dropped(reason), before + 1);
    }
    r.assert_accounted();
}

#[test]
fn device_limits_are_kept() {
    let small = MemPort::builder("small").mtu(100).build();
    let r = rig_with(vec![MemPort::new("in"), Arc::clone(&small)]);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 1000));
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.dp.dropped(Drop::TooLong), 1);
    small.set_tx_limit(1);
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.dp.dropped(Drop::TxFull), 1);
    assert_eq!(r.dp.ports()[1].tx_dropped, 2);
    assert_eq!(small.take().len(), 1);
    r.assert_accounted();
    r.dp.port_changed(DpPort(2)).unwrap();
    assert_eq!(r.dp.ports()[1].tx_dropped, 2, "kept when queues change hands");
}

#[test]
fn deletion_is_confirmed_and_final() {
    let r = rig(2);
    r.dp.set_config(DpConfig { emc_insert_inv_prob: 1, ..DpConfig::default() }).unwrap();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    let (new, _) = r.events();
    r.dp.flow_delete(&new[0]);
    r.dp.flow_delete(&new[0]);
    assert!(new[0].is_dead());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    let (again, gone) = r.events();
    assert_eq!((again.len(), gone.len()), (1, 1));
    assert_eq!(gone[0].stats().packets, 0);
    assert_eq!(gone[0].ufid, again[0].ufid);
    assert_eq!(r.table.misses.load(Ordering::Relaxed), 2);
    assert_eq!(r.dp.flow_count(), 1);
}

#[test]
fn actions_can_be_replaced() {
    let r = rig(3);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    let (new, _) = r.events();
    r.dp.flow_set_actions(&new[0], Arc::new([out(3), out(2)]));
    assert_eq!(new[0].actions().len(), 2);
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!((r.ports[1].take().len(), r.ports[2].take().len()), (2, 1));
    assert_eq!(r.stat(|s| s.copies), 1);
    r.assert_accounted();
}

#[test]
fn one_shot_translations_are_not_installed() {
    let r = rig(2);
    r.table.keep.store(true, Ordering::Relaxed);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    for i in 0..5 {
        r.ports[0].push(0, &testpkt::udp4(i, 60));
    }
    r.dp.step();
    assert_eq!(r.dp.flow_count(), 0);
    assert_eq!(r.ports[1].take(), (0..5).map(|i| testpkt::udp4(i, 60)).collect::<Vec<_>>());
    assert_eq!(r.table.misses.load(Ordering::Relaxed), 5);
    r.assert_accounted();
}

#[test]
fn ports_come_and_go() {
    let r = rig(2);
    assert!(matches!(r.dp.add_port(MemPort::new("p1"), None), Err(DpError::Duplicate(_))));
    assert!(matches!(r.dp.add_port(MemPort::new("x"), Some(DpPort(2))), Err(DpError::PortInUse(_))));
    assert_eq!(r.dp.add_port(MemPort::new("p7"), Some(DpPort(7))).unwrap(), DpPort(7));
    assert_eq!(r.dp.add_port(MemPort::new("p3"), None).unwrap(), DpPort(3));
    assert_eq!(r.dp.pmd_rxqs().len(), 2, "one PMD a NUMA node");
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.dp.flow_count(), 1);
    r.dp.del_port(DpPort(1));
    assert!(r.ports[0].rx_queue(0).is_ok(), "the queue was given back");
    r.dp.step();
    assert_eq!(r.dp.flow_count(), 0);
    assert_eq!(r.events().1.len(), 1);
    for no in [2, 3, 7] {
        r.dp.del_port(DpPort(no));
    }
    assert!(r.dp.pmd_rxqs().is_empty(), "no PMD without a port to poll");
    assert_eq!(r.stat(|s| s.received), 1, "counters outlive their thread");
    r.assert_accounted();
}

#[test]
fn a_port_with_many_flows_is_purged_part_by_part() {
    let r = rig(2);
    let mut mask = in_port_mask();
    mask.0.nw_src = flow::Be32::MAX;
    r.table.set(1, 0, &[out(2)], mask);
    r.table.set(2, 0, &[out(1)], mask);
    (0..2_500).for_each(|i| r.ports[0].push(0, &testpkt::udp4(i, 60)));
    (0..3).for_each(|i| r.ports[1].push(0, &testpkt::udp4(i, 60)));
    while r.dp.step() > 0 {}
    assert_eq!(r.dp.flow_count(), 2_503);
    {
        let mut workers = r.dp.common.workers.lock();
        let e = workers.iter_mut().map(|w| &mut w.engine).max_by_key(|e| e.flows.len()).unwrap();
        let before = e.flows.len();
        assert!(!e.purge_port(1, 1_000));
        assert_eq!(e.flows.len(), before - 1_000);
    }
    r.dp.del_port(DpPort(1));
    r.dp.step();
    assert_eq!((r.dp.flow_count(), r.events().1.len()), (3, 2_500));
}

#[test]
fn cores_can_change_under_traffic() {
    let r = rig(2);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    let mut sent = 0;
    for cores in [vec![0], vec![1, 2, 3], vec![3], vec![9], vec![0, 1]] {
        let pmd_cores = Some(cores.iter().map(|c| CoreId(*c)).collect());
        r.dp.set_config(DpConfig { pmd_cores, ..DpConfig::default() }).unwrap();
        // There is no core 9: packets wait until somebody polls.
        let want = if cores == [9] { 0 } else { cores.len() };
        assert_eq!(r.dp.pmd_rxqs().len(), want);
        for i in 0..100 {
            r.ports[0].push(0, &testpkt::udp4(i, 60));
            sent += 1;
        }
        while r.dp.step() > 0 {}
    }
    assert_eq!(r.ports[1].take().len(), sent);
    let (new, gone) = r.events();
    let live: u64 = new.iter().map(|f| f.stats().packets).sum();
    assert_eq!(
        live + r.table.misses.load(Ordering::Relaxed) as u64,
        sent as u64,
        "no packet of a flow is lost with its thread"
    );
    assert_eq!(new.len(), gone.len() + r.dp.flow_count());
    r.assert_accounted();
}

#[test]
fn queues_are_shared_when_scarce() {
    let p2 = MemPort::builder("p2").max_txqs(1).build();
    let r = rig_with(vec![MemPort::builder("p1").rxqs(4).build(), p2]);
    assert_eq!(r.dp.pmd_rxqs().iter().map(|p| p.rxqs.len()).collect::<Vec<_>>(), vec![3, 2]);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    for q in 0..4 {
        r.ports[0].push(q, &testpkt::udp4(1, 60));
    }
    r.dp.step();
    assert_eq!(r.ports[1].take().len(), 4);
    r.assert_accounted();
}

#[test]
fn ports_that_cannot_be_polled() {
    let tap = MemPort::builder("tap").pmd(false).build();
    let r = rig_with(vec![MemPort::new("p1"), Arc::clone(&tap)]);
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.table.set(2, 0, &[out(1)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    tap.push(0, &testpkt::udp4(2, 60));
    r.dp.step();
    r.dp.step();
    assert_eq!(tap.take(), vec![testpkt::udp4(1, 60)]);
    assert_eq!(r.ports[0].take(), vec![testpkt::udp4(2, 60)]);
    let main = r.dp.pmd_stats().pop().unwrap();
    assert_eq!((main.0, main.2.received, main.2.relayed), (PmdId::NON_PMD, 1, 1));
    r.assert_accounted();
}

#[test]
fn userspace_and_packet_out() {
    let r = rig(2);
    let cookie = UserspaceCookie::SlowPath { reason: 1 };
    r.table.set(1, 0, &[DpAction::Userspace { pid: 0, cookie }, out(2)], in_port_mask());
    assert!(r.dp.userspace_prepare_sleep());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    let mut got = Vec::new();
    assert_eq!(r.dp.drain_userspace(9, &mut |u| got.push(u)), 1);
    assert_eq!((got[0].flow.in_port, got[0].packet.data()), (1, &testpkt::udp4(1, 60)[..]));
    assert_eq!(got[0].cookie, cookie);
    let flow = Flow { in_port: u32::MAX, ..Flow::default() };
    r.dp.execute(Packet::from_slice(&testpkt::udp4(3, 60)), &flow, Arc::new([out(2), out(1)]));
    r.dp.step();
    assert_eq!(r.ports[0].take(), vec![testpkt::udp4(3, 60)]);
    assert_eq!(r.ports[1].take().len(), 2);
    r.assert_accounted();
}

#[test]
fn recirculates_with_hash() {
    let r = rig(2);
    r.table.set(1, 0, &[DpAction::Hash { alg: 0, basis: 0 }, DpAction::Recirc(RecircId(5))], in_port_mask());
    let mut by_hash = in_port_mask();
    by_hash.0.dp_hash = 0xff;
    r.table.set(
        1,
        5,
        &[DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1005) }, out(2)],
        by_hash,
    );
    for i in 0..64 {
        r.ports[0].push(0, &testpkt::udp4(i, 60));
    }
    while r.dp.step() > 0 {}
    assert_eq!(r.ports[1].take().len(), 64);
    assert_eq!(r.stat(|s| s.recirculated), 64);
    let flows = r.events().0;
    let hashed: Vec<_> = flows.iter().filter(|f| f.key.flow().recirc_id == 5).collect();
    assert!(hashed.len() > 20, "{} megaflows by hash", hashed.len());
    assert!(hashed.iter().all(|f| f.key.flow().dp_hash != 0));
    r.assert_accounted();
}

#[test]
fn endless_recirculation_ends() {
    let r = rig(1);
    r.table.set(1, 0, &[DpAction::Recirc(RecircId(1))], in_port_mask());
    r.table.set(1, 1, &[DpAction::Recirc(RecircId(1))], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.dp.dropped(Drop::RecircDepth), 2);
    r.assert_accounted();
}

#[test]
fn truncation_is_for_the_next_output() {
    let r = rig(3);
    r.table.set(1, 0, &[DpAction::Trunc { max_len: 20 }, out(2), out(3)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    assert_eq!(r.ports[1].take()[0].len(), 20);
    assert_eq!(r.ports[2].take()[0].len(), 60);
}

#[test]
fn buffers_wait_for_the_interval() {
    let r = rig(2);
    r.dp.set_config(DpConfig { tx_flush_interval_us: 50_000_000, ..DpConfig::default() }).unwrap();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    r.dp.step();
    assert_eq!(r.ports[1].tx_pending(), 0);
    for i in 0..31 {
        r.ports[0].push(0, &testpkt::udp4(i, 60));
    }
    r.dp.step();
    assert_eq!(r.ports[1].tx_pending(), 32);
    r.ports[0].push(0, &testpkt::udp4(1, 60));
    r.dp.step();
    r.dp.del_port(DpPort(2));
    assert_eq!(r.ports[1].tx_pending(), 33, "flushed when the port goes");
}

#[test]
fn threads_carry_packets() {
    let table = Arc::new(Table::default());
    table.set(1, 0, &[out(2)], in_port_mask());
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let options = DpOptions {
        thread_start: Some(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..DpOptions::default()
    };
    let dp = Datapath::new("ovs-netdev", table, options).unwrap();
    let (a, b) = (MemPort::new("a"), MemPort::builder("b").pmd(false).build());
    dp.add_port(Arc::clone(&a) as Arc<dyn Netdev>, None).unwrap();
    dp.add_port(Arc::clone(&b) as Arc<dyn Netdev>, None).unwrap();
    for i in 0..500 {
        a.push(0, &testpkt::udp4(i, 60));
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while b.tx_pending() < 500 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(b.tx_pending(), 500);
    assert!(started.load(Ordering::Relaxed) >= 2);
    dp.del_port(DpPort(1));
    assert!(a.rx_queue(0).is_ok());
    drop(dp);
    assert!(b.rx_queue(0).is_ok(), "threads ended and gave their queues back");
}

fn action() -> impl Strategy<Value = DpAction> {
    let leaf = prop_oneof![
        4 => (1u32..6).prop_map(out),
        1 => Just(DpAction::Userspace { pid: 0, cookie: UserspaceCookie::SlowPath { reason: 0 } }),
        1 => (0u32..3).prop_map(|i| DpAction::Recirc(RecircId(i))),
        1 => Just(DpAction::Hash { alg: 0, basis: 1 }),
        1 => (14u32..80).prop_map(|max_len| DpAction::Trunc { max_len }),
        1 => Just(DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1123) }),
        1 => Just(DpAction::PopVlan),
        1 => Just(DpAction::PushMpls { ethertype: Be16::new(0x8847), lse: flow::Be32::new(0x1ff) }),
        1 => Just(DpAction::PopMpls { ethertype: Be16::new(0x0800) }),
        1 => Just(DpAction::Set(SetField::SkbMark { value: 3, mask: 3 })),
        1 => Just(DpAction::Meter(1)),
        1 => Just(DpAction::Drop(0)),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|v| DpAction::Clone(v.into_boxed_slice()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Received and made packets = sent + handed up + dropped, whatever the actions.
    #[test]
    fn every_packet_is_accounted_for(
        lists in prop::collection::vec(prop::collection::vec(action(), 0..6), 9),
        frames in prop::collection::vec((1u32..4, 0u32..40, 0usize..1600), 1..120),
        keep in any::<bool>(),
        prob in 0u32..3,
    ) {
        let tap = MemPort::builder("tap").pmd(false).build();
        let r = rig_with(vec![MemPort::new("p1"), MemPort::builder("p2").mtu(600).build(), tap]);
        r.dp.set_config(DpConfig { emc_insert_inv_prob: prob, ..DpConfig::default() }).unwrap();
        r.ports[0].set_tx_limit(20);
        r.table.keep.store(keep, Ordering::Relaxed);
        for (i, l) in lists.iter().enumerate().skip(1) {
            r.table.set(i as u32 % 3 + 1, i as u32 / 3, l, in_port_mask());
        }
        for (port, i, len) in &frames {
            let mut f = testpkt::udp4(*i, 60.max(*len));
            f.truncate(*len);
            r.ports[*port as usize - 1].push(0, &f);
        }
        for _ in 0..20 {
            r.dp.step();
        }
        r.assert_accounted();
        let s = r.dp.total_stats();
        prop_assert_eq!(s.received, frames.len() as u64);
        prop_assert_eq!(s.sent, r.ports.iter().map(|p| p.tx_pending() as u64).sum::<u64>());
    }
}

#[test]
fn a_flood_of_misses_leaves_time_for_others() {
    let r = rig_of((1..=3).map(|i| MemPort::new(&format!("p{i}"))).collect(), true);
    let core = Some([CoreId(0)].into());
    r.dp.set_config(DpConfig { pmd_cores: core, ..DpConfig::default() }).unwrap();
    let mut exact = in_port_mask();
    exact.0.tp_src = Be16::MAX;
    r.table.set(1, 0, &[out(3)], exact);
    r.table.set(2, 0, &[out(3)], in_port_mask());
    let (mut flood, mut steady, mut sent, mut received) = (0u32, 0u64, 0, 0);
    for _ in 0..3_000 {
        // Both always have a full burst waiting.
        if sent == received {
            (flood..flood + 32).for_each(|i| r.ports[0].push(0, &testpkt::udp4(i, 60)));
            flood += 32;
            sent += 32;
        }
        (0..32).for_each(|_| r.ports[1].push(0, &testpkt::udp4(1, 60)));
        steady += 32;
        received += r.dp.step() as u64 - 32;
        r.ports[2].take();
        r.events();
    }
    assert!(received * 3 < steady, "{received} packets of the flood beside {steady}");
    assert!(received > 64, "new flows are still set up");
    let pmds = r.dp.pmd_rxqs();
    assert_eq!(pmds.len(), 1);
    let (a, b) = (&pmds[0].rxqs[0], &pmds[0].rxqs[1]);
    assert_eq!(a.upcalls, received);
    assert!(a.held_cycles > 0 && a.refused == 0, "{a:?}");
    assert!(a.upcall_cycles > a.upcalls * 100, "{a:?}");
    assert_eq!(
        (b.upcalls, b.held_cycles, b.refused),
        (32, 0, 0),
        "one burst, one translation, 32 packets of a new flow"
    );
    let show = crate::show::pmd_upcalls(&[&r.dp], &[]).unwrap();
    assert!(show.starts_with("pmd thread numa_id 0 core_id 0:\n  upcall share: 5 %\n  port: p1 "), "{show}");
    r.assert_accounted();
}

#[test]
fn misses_beyond_the_share_are_dropped_and_counted() {
    let r = rig_of((1..=3).map(|i| MemPort::new(&format!("p{i}"))).collect(), true);
    let core = Some([CoreId(0)].into());
    r.dp.set_config(DpConfig { pmd_cores: core, upcall_share: 1, ..DpConfig::default() }).unwrap();
    let mut exact = in_port_mask();
    exact.0.tp_src = Be16::MAX;
    r.table.set(1, 0, &[out(3)], exact);
    r.table.set(2, 0, &[out(3)], in_port_mask());
    let mut flow = 1;
    for _ in 0..2_000 {
        for i in 0..32 {
            flow += u32::from(i < 4);
            r.ports[0].push(0, &testpkt::udp4(if i < 4 { flow } else { 1 }, 60));
            r.ports[1].push(0, &testpkt::udp4(1, 60));
        }
        r.dp.step();
        r.ports[2].take();
        r.events();
    }
    let refused = r.dp.dropped(Drop::UpcallShare);
    let q = r.dp.pmd_rxqs()[0].rxqs[0].clone();
    assert!(refused > 1_000 && q.upcalls > 0, "{refused} refused, {q:?}");
    assert_eq!(q.refused, refused);
    assert_eq!(r.stat(|s| s.miss_failed), refused);
    assert_eq!(r.stat(|s| s.received), 128_000, "the established flow went on");
    r.assert_accounted();
}

#[test]
fn one_hit_in_so_many_is_checked() {
    let r = rig(2);
    let set = |n| r.dp.set_config(DpConfig { flow_self_check: n, ..DpConfig::default() }).unwrap();
    r.table.set(1, 0, &[out(2)], in_port_mask());
    let frame = testpkt::udp4(1, 60);
    let push = |n| {
        (0..n).for_each(|_| r.ports[0].push(0, &frame));
        while r.dp.step() > 0 {}
    };
    push(100);
    assert!(r.table.checks.lock().is_empty(), "off by default");
    set(10);
    push(1_000);
    assert_eq!(r.table.checks.lock().len(), 100);
    set(1);
    push(33);
    let checks = std::mem::take(&mut *r.table.checks.lock());
    assert_eq!(checks.len(), 133);
    let (ufid, flow, len) = checks[132];
    let (new, _) = r.events();
    assert_eq!((ufid, flow.tp_src.get(), flow.in_port, len), (new[0].ufid.0, 1025, 1, 60));
    assert!(r.suspects.lock().is_empty());
    // A wrong one is reported once, until the suspicion is found to be unfounded.
    r.table.unsound.store(true, Ordering::Relaxed);
    push(40);
    r.events();
    let suspects = std::mem::take(&mut *r.suspects.lock());
    assert_eq!(suspects.len(), 1);
    assert_eq!((&*suspects[0].frame, suspects[0].key.tp_src.get()), (&frame[..], 1025));
    assert!(Arc::ptr_eq(&suspects[0].flow, &new[0]));
    new[0].clear_suspect();
    push(1);
    r.events();
    assert_eq!(r.suspects.lock().len(), 1);
    set(0);
    r.table.checks.lock().clear();
    push(100);
    assert!(r.table.checks.lock().is_empty());
    assert_eq!(r.ports[1].take().len(), 100 + 1_000 + 33 + 41 + 100, "checks take nothing away");
    r.assert_accounted();
}

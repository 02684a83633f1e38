//! Once flows are installed, a packet's way through the datapath allocates nothing.

use datapath::{Datapath, DpConfig, DpOptions, Miss, MissResult, Upcall};
use flow::action::Ipv4Set;
use flow::{Be16, Be32, DpAction, DpPort, RecircId, SetField};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

#[path = "../benches/wire.rs"]
mod wire;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        let _ = COUNT.try_with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is done with packets, and what megaflows look at.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Shape {
    /// Packets of odd flows are rewritten and recirculated; the rest goes straight out.
    Mixed,
    /// The same with a mask for each of twenty destination ports.
    Masks,
    /// A plain output of every flow.
    PerFlow,
    /// Ethernet and IP headers rewritten, a tag pushed.
    Rewrite,
    /// All is dropped.
    Drop,
    /// Sent where there is no port.
    NoPort,
}

/// Translates by shape. Keys are exact when asked, which keeps the simple match out of it.
struct Table {
    shape: Shape,
    exact: bool,
}

fn ethernet() -> DpAction {
    let (src, all) = ([2, 0, 0, 0, 0, 10], [255; 6]);
    DpAction::Set(SetField::Eth { src, dst: src, src_mask: all, dst_mask: [0; 6] })
}

impl Upcall for Table {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        out.install = true;
        out.mask.0.dl_type = Be16::MAX;
        out.mask.0.nw_frag = 3;
        let every = self.exact || self.shape == Shape::PerFlow;
        out.mask.0.nw_src = if every { Be32::MAX } else { Be32::new(1) };
        if self.exact {
            out.mask.0.tcp_flags = Be16::new(1);
        }
        match self.shape {
            Shape::Masks => {
                let n = u32::from(req.flow.tp_dst.get()) - 2048;
                out.mask.0.tp_dst = Be16::MAX;
                out.mask.0.nw_dst = Be32::new(!0 << (31 - n));
            }
            Shape::PerFlow => out.actions.push(DpAction::Output(DpPort(2))),
            Shape::Rewrite => {
                let key = Ipv4Set { dst: Be32::new(0x0a09_0909), ttl: 63, ..Ipv4Set::default() };
                let mask = Ipv4Set { dst: Be32::MAX, ttl: 255, ..Ipv4Set::default() };
                out.actions.push(ethernet());
                out.actions.push(DpAction::Set(SetField::Ipv4 { key, mask }));
                out.actions.push(DpAction::PushVlan { tpid: Be16::new(0x8100), tci: Be16::new(0x1064) });
                out.actions.push(DpAction::Output(DpPort(2)));
            }
            Shape::NoPort => out.actions.push(DpAction::Output(DpPort(9))),
            Shape::Mixed | Shape::Drop => {}
        }
        if !matches!(self.shape, Shape::Mixed | Shape::Masks) {
            return;
        }
        if req.flow.recirc_id == 0 && req.flow.nw_src.get() & 1 == 1 {
            out.actions.push(ethernet());
            out.actions.push(DpAction::Hash { alg: 0, basis: 0 });
            out.actions.push(DpAction::Recirc(RecircId(1)));
        } else {
            out.actions.push(DpAction::Output(DpPort(2)));
        }
    }
}

/// Runs until all is installed, then counts allocations. `len`: of frames; `emc`: `emc-insert-inv-prob`.
fn steady(shape: Shape, exact: bool, emc: u32, len: usize) {
    // What is dropped is freed, so there must be enough buffers.
    let drops = matches!(shape, Shape::Drop | Shape::NoPort);
    let pool = wire::pool(if drops { 80_000 } else { 256 }, len + 40);
    // So fast that subtables are sorted often.
    let clock = Arc::new(|| infra::clock::now_ms().max(0) as u64 * 100);
    let options = DpOptions { threads: false, clock, ..DpOptions::default() };
    let dp = Datapath::new("steady", Arc::new(Table { shape, exact }), options).unwrap();
    dp.set_config(DpConfig { emc_insert_inv_prob: emc, ..DpConfig::default() }).unwrap();
    dp.add_port(wire::Wire::new("in", wire::flows(500, len), &pool), None).unwrap();
    dp.add_port(wire::Wire::new("out", Vec::new(), &pool), None).unwrap();
    for _ in 0..300 {
        dp.step();
    }
    dp.drain_events(usize::MAX, &mut |_| ());
    let flows = dp.flow_count();
    let before = COUNT.get();
    let packets: usize = (0..2_000).map(|_| dp.step()).sum();
    let count = COUNT.get() - before;
    // Buffers of this test are the heap's: dropping a packet gives its memory back, which is once for the frame.
    let allowed = if drops { packets as u64 } else { 0 };
    assert!(count <= allowed, "{shape:?}: {count} allocations in {packets} packets");
    assert_eq!(packets, 64_000);
    assert_eq!(dp.flow_count(), flows);
    let s = dp.total_stats();
    assert_eq!(s.received + s.copies, s.sent + s.total_dropped());
}

#[test]
fn simple_match() {
    steady(Shape::Mixed, false, 100, 60);
}

#[test]
fn microflow_cache() {
    steady(Shape::Mixed, true, 1, 60);
}

#[test]
fn classifier() {
    steady(Shape::Mixed, true, 0, 60);
}

#[test]
fn simple_match_of_many_masks() {
    steady(Shape::Masks, false, 100, 60);
}

#[test]
fn classifier_of_many_masks() {
    steady(Shape::Masks, true, 0, 60);
}

#[test]
fn a_megaflow_for_each_flow() {
    steady(Shape::PerFlow, false, 100, 60);
    steady(Shape::PerFlow, true, 1, 60);
}

#[test]
fn rewriting() {
    steady(Shape::Rewrite, false, 100, 60);
    steady(Shape::Rewrite, true, 0, 60);
}

#[test]
fn long_frames() {
    steady(Shape::Mixed, false, 100, 1_400);
    steady(Shape::Rewrite, false, 100, 1_400);
}

#[test]
fn drops() {
    steady(Shape::Drop, false, 100, 60);
    steady(Shape::NoPort, false, 100, 60);
}

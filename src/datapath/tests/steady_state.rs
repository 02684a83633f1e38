//! Once flows are installed, a packet's way through the datapath allocates nothing.

use datapath::{Datapath, DpConfig, DpOptions, Miss, MissResult, Upcall};
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

/// Packets of odd flows are rewritten and recirculated; the rest goes straight out. Keys are exact when asked.
struct Table {
    exact: bool,
    /// A mask for each of twenty destination ports.
    masks: bool,
}

impl Upcall for Table {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        out.install = true;
        out.mask.0.dl_type = Be16::MAX;
        out.mask.0.nw_frag = 3;
        out.mask.0.nw_src = if self.exact { Be32::MAX } else { Be32::new(1) };
        if self.exact {
            // Keeps the simple match out of it.
            out.mask.0.tcp_flags = Be16::new(1);
        }
        if self.masks {
            let n = u32::from(req.flow.tp_dst.get()) - 2048;
            out.mask.0.tp_dst = Be16::MAX;
            out.mask.0.nw_dst = Be32::new(!0 << (31 - n));
        }
        if req.flow.recirc_id == 0 && req.flow.nw_src.get() & 1 == 1 {
            let (src, all) = ([2, 0, 0, 0, 0, 10], [255; 6]);
            out.actions.push(DpAction::Set(SetField::Eth { src, dst: src, src_mask: all, dst_mask: [0; 6] }));
            out.actions.push(DpAction::Hash { alg: 0, basis: 0 });
            out.actions.push(DpAction::Recirc(RecircId(1)));
        } else {
            out.actions.push(DpAction::Output(DpPort(2)));
        }
    }
}

fn steady(exact: bool, masks: bool, emc: u32) {
    let pool = wire::pool(256, 100);
    // So fast that subtables are sorted often.
    let clock = Arc::new(|| infra::clock::now_ms().max(0) as u64 * 100);
    let options = DpOptions { threads: false, clock, ..DpOptions::default() };
    let dp = Datapath::new("steady", Arc::new(Table { exact, masks }), options).unwrap();
    dp.set_config(DpConfig { emc_insert_inv_prob: emc, ..DpConfig::default() }).unwrap();
    dp.add_port(wire::Wire::new("in", wire::flows(500, 60), &pool), None).unwrap();
    dp.add_port(wire::Wire::new("out", Vec::new(), &pool), None).unwrap();
    for _ in 0..300 {
        dp.step();
    }
    dp.drain_events(usize::MAX, &mut |_| ());
    let flows = dp.flow_count();
    let before = COUNT.get();
    let packets: usize = (0..2_000).map(|_| dp.step()).sum();
    assert_eq!(COUNT.get() - before, 0, "allocations in {packets} packets");
    assert_eq!(packets, 64_000);
    assert_eq!(dp.flow_count(), flows);
    let s = dp.total_stats();
    assert_eq!(s.received + s.copies, s.sent + s.total_dropped());
}

#[test]
fn simple_match() {
    steady(false, false, 100);
}

#[test]
fn microflow_cache() {
    steady(true, false, 1);
}

#[test]
fn classifier() {
    steady(true, false, 0);
}

#[test]
fn simple_match_of_many_masks() {
    steady(false, true, 100);
}

#[test]
fn classifier_of_many_masks() {
    steady(true, true, 0);
}

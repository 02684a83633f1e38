//! The simple match against parsing.

use super::*;
use crate::testpkt::{arp, ip4, ip6};
use flow::extract::{extract_flow, tcp_flags, PktMetadata};
use flow::{Mask, Miniflow};
use proptest::prelude::*;

const PORT: u32 = 3;

fn flow_of(d: &[u8]) -> Flow {
    extract_flow(d, &PktMetadata::new(PORT)).0
}

/// A frame of small variety: plain, nearly plain, and others.
fn frame(v: u32) -> Vec<u8> {
    let b = |at: u32, n: u32| (v >> at) as u8 % n as u8;
    let mut l4 =
        vec![0, b(0, 3), 0, b(2, 3), 0, 30, 0, 0, 0, 0, 0, 0, 0x50 | b(4, 2), b(5, 4), 0, 0, 0, 0, 0, 0];
    l4.resize(20 + usize::from(b(7, 20)), 7);
    if b(12, 8) == 0 {
        l4[12] = 0x10 * b(15, 16);
    }
    let proto = [6, 17, 6, 17, 6, 17, 1, 132][usize::from(b(9, 8))];
    let mut f = match b(19, 16) {
        0 => ip6(u32::from(b(23, 4)), proto, &l4),
        1 => arp(1),
        _ => ip4(u32::from(b(23, 4)), proto, &l4),
    };
    match b(25, 16) {
        0 => f[14] = 0x46,
        1 => f[20] = 0x20,
        2 => f[21] = 1,
        3 => f.truncate(30 + usize::from(b(2, 30))),
        4 => f[17] = b(3, 60),
        5 => drop(f.splice(12..12, [0x81, 0, 0, 5])),
        6 => f[15] = 8,
        7 => f[22] = 1,
        8 => f[20] = 0x40,
        _ => {}
    }
    f
}

fn mask(v: u32) -> Mask {
    let mut m = Mask::default();
    let bit = |i: u32| v >> i & 1 != 0;
    m.0.in_port = u32::MAX;
    m.0.recirc_id = u32::MAX;
    m.0.dl_type = flow::Be16::MAX;
    m.0.nw_frag = 3;
    if bit(0) {
        m.0.nw_proto = 255;
    }
    if bit(1) {
        m.0.tp_src = flow::Be16::MAX;
    }
    if bit(2) {
        m.0.tp_dst = flow::Be16::new(0x3);
    }
    if bit(3) {
        m.0.nw_src = flow::Be32::new(0xffff_ff00 | v);
    }
    if bit(4) {
        m.0.nw_dst = flow::Be32::MAX;
    }
    if bit(5) {
        m.0.tcp_flags = flow::Be16::new(0xfff);
    }
    if bit(6) {
        m.0.vlans[0].tci = flow::Be16::new(0x1000);
    }
    if bit(7) {
        m.0.nw_ttl = 255;
    }
    if bit(8) {
        m.0.nw_tos = 252;
    }
    if bit(9) {
        m.0.dl_src = [255; 6];
    }
    if bit(10) {
        m.0.ipv6_src[15] = 255;
    }
    m
}

#[test]
fn plain_frames_only() {
    let tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x51, 0x12, 0, 0, 0, 0, 0, 0];
    let f = ip4(1, 6, &tcp);
    let (_, flags) = plain(&f).unwrap();
    let m = Miniflow::from_flow(&flow_of(&f));
    assert_eq!(flags, tcp_flags(&m));
    assert_eq!(flags, 0x112);
    assert!(plain(&f[..47]).is_none());
    assert!(plain(&arp(1)).is_none());
    assert!(plain(&ip6(1, 6, &tcp)).is_none());
    assert!(plain(&ip4(1, 1, &tcp)).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever it finds matches by parsing; a megaflow that matches a plain frame is found, unless it was refused.
    #[test]
    fn as_parsing_says(ops in prop::collection::vec((0u8..4, any::<u32>(), any::<u32>()), 1..200)) {
        let mut simple = Simple::new(PORT, 5);
        let mut flows = RawFlows::default();
        let mut model: Vec<(Flow, Mask, FlowIdx)> = Vec::new();
        for (n, (op, a, b)) in ops.into_iter().enumerate() {
            if op < 2 {
                let (key, m) = (flow_of(&frame(a)), mask(b & 0x7ff));
                // Two megaflows that no plain frame tells apart share an entry: the classifier serves the other.
                let raw = |k: &Flow, m: &Mask| project(k, &Compact::from_flow(&m.0), PORT);
                let shared = |e: &(Flow, Mask, FlowIdx)| raw(&key, &m).is_some_and(|r| raw(&e.0, &e.1) == Some(r));
                if !model.iter().any(|e| shared(e) || e.1 == m && e.0.matches(&key, &m)) {
                    simple.insert(&key, &Compact::from_flow(&m.0), n as FlowIdx, &mut flows);
                    model.push((key, m, n as FlowIdx));
                }
            } else if op == 2 && !model.is_empty() {
                let (k, m, f) = model.swap_remove(a as usize % model.len());
                simple.remove(&k, &Compact::from_flow(&m.0), f, &mut flows);
            } else {
                simple.optimize(&flows);
            }
            let frames: Vec<_> = (0..BURST as u32).map(|i| frame(a ^ b.rotate_left(i))).collect();
            let mut raws = [[0; WORDS]; BURST];
            let mut todo = 0u32;
            for (i, f) in frames.iter().enumerate() {
                if let Some((raw, flags)) = plain(f) {
                    raws[i] = raw;
                    todo |= 1 << i;
                    prop_assert_eq!(flags, tcp_flags(&Miniflow::from_flow(&flow_of(f))));
                }
            }
            let mut out = [NO_FLOW; BURST];
            let mut checks = Vec::new();
            let led = simple.lookup_lead(&raws, todo, &mut out);
            let found = led | simple.lookup_rest(&raws, todo & !led, &mut out);
            let tabled = |r: &(Raw, Raw)| simple.subs.iter().any(|s| s.mask == r.1);
            let skipped = simple.n_masks() > MAX_MASKS * 2;
            let missable =
                |e: &(Flow, Mask, FlowIdx)| project(&e.0, &Compact::from_flow(&e.1.0), PORT).is_none_or(|r| skipped || !tabled(&r));
            prop_assert_eq!(found & !todo, 0);
            for (i, f) in frames.iter().enumerate().filter(|(i, _)| todo >> i & 1 != 0) {
                let flow = flow_of(f);
                checks.push((raws[i], flow));
                let all: Vec<_> = model.iter().filter(|e| e.0.matches(&flow, &e.1)).collect();
                if found >> i & 1 != 0 {
                    prop_assert!(all.iter().any(|e| e.2 == out[i]), "{} found", out[i]);
                } else if !all.is_empty() {
                    prop_assert!(all.iter().all(|e| missable(e)));
                }
            }
            // A guess is confirmed exactly when the megaflow matches.
            for (raw, flow) in checks.iter().take(4) {
                for e in &model {
                    let plain = project(&e.0, &Compact::from_flow(&e.1.0), PORT).is_some();
                    prop_assert_eq!(simple.is_of(&flows, raw, e.2), plain && e.0.matches(flow, &e.1));
                }
                prop_assert!(!simple.is_of(&flows, raw, 100_000));
            }
        }
    }
}

#[test]
fn many_entries_of_one_mask() {
    let mut simple = Simple::new(PORT, 9);
    let mut flows = RawFlows::default();
    let mut m = mask(0);
    m.0.nw_src = flow::Be32::MAX;
    let udp = |i: u32| crate::testpkt::udp4(i, 60);
    let find = |s: &mut Simple, i: u32| {
        let mut out = [NO_FLOW; BURST];
        let raw = plain(&udp(i)).unwrap().0;
        s.lookup_lead(&[raw; BURST], 1, &mut out);
        out[0]
    };
    (0..20_000).for_each(|i| simple.insert(&flow_of(&udp(i)), &Compact::from_flow(&m.0), i, &mut flows));
    assert!((0..20_000).all(|i| find(&mut simple, i) == i));
    (0..20_000)
        .step_by(3)
        .for_each(|i| simple.remove(&flow_of(&udp(i)), &Compact::from_flow(&m.0), i, &mut flows));
    assert!((0..20_000).all(|i| (find(&mut simple, i) == i) == (i % 3 != 0)));
    assert!(!simple.is_empty());
    (0..20_000).for_each(|i| simple.remove(&flow_of(&udp(i)), &Compact::from_flow(&m.0), i, &mut flows));
    assert!(simple.is_empty());
}

#[test]
fn a_mask_that_is_hit_gets_a_table() {
    let mut simple = Simple::new(PORT, 9);
    let mut flows = RawFlows::default();
    let udp = |i: u32| crate::testpkt::udp4(i, 60);
    let with = |src: u32| {
        let mut m = mask(0);
        m.0.nw_src = flow::Be32::new(src);
        Compact::from_flow(&m.0)
    };
    (0..100).for_each(|i| simple.insert(&flow_of(&udp(1 << 20 | i)), &with(0x10_0000 | i), i, &mut flows));
    (100..200).for_each(|i| simple.insert(&flow_of(&udp(i)), &with(u32::MAX), i, &mut flows));
    assert_eq!(simple.subs.len(), MAX_MASKS);
    assert!(simple.is_deep());
    let raw = |i: u32| plain(&udp(i)).unwrap().0;
    assert!((100..200).all(|i| simple.is_of(&flows, &raw(i), i) && !simple.is_of(&flows, &raw(i), i + 1)));
    simple.optimize(&flows);
    simple.optimize(&flows);
    let mut out = [NO_FLOW; BURST];
    let mut find = |i: u32| {
        let found = simple.lookup_lead(&[raw(i); BURST], 1, &mut out);
        (found != 0).then_some(out[0])
    };
    assert!((100..200).all(|i| find(i) == Some(i)));
    assert_eq!(simple.subs.len(), MAX_MASKS);
}

#[test]
fn the_lead_is_what_most_hit() {
    assert_eq!(lead(100, [90, 5, 1, 1, 1, 1, 1].into_iter()), 2);
    assert_eq!(lead(100, [20, 20, 20, 20, 20].into_iter()), 0);
    assert_eq!(lead(100, [50, 25, 25, 0].into_iter()), 3);
    assert_eq!(lead(0, [0, 0].into_iter()), 0);
}

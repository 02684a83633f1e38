//! The classifier against a plain list of rules, and the soundness of the masks that lookups report.

use super::*;
use crate::rule::{CompactMatch, RuleFlags, RuleStats};
use flow::Match;
use proptest::prelude::*;

/// Few values for few fields, so that random rules and packets meet.
fn small_flow() -> impl Strategy<Value = Flow> {
    (0u32..3, 0u16..2, 0u32..8, 0u32..8, 0u16..4, 0u16..4, 0u32..3).prop_map(
        |(port, eth, src, dst, sp, dp, reg)| {
            let mut f = Flow { in_port: port, ..Flow::default() };
            f.dl_type = if eth == 0 { 0x0800u16.into() } else { 0x86ddu16.into() };
            f.nw_proto = 17;
            f.nw_src = (0x0a00_0000 + (src << 22)).into();
            f.nw_dst = (0x0b00_0000 + (dst << 6)).into();
            f.ipv6_dst[0] = dst as u8;
            f.tp_src = (sp * 257).into();
            f.tp_dst = (dp * 0x1010).into();
            f.regs[3] = reg;
            f
        },
    )
}

fn small_mask() -> impl Strategy<Value = Mask> {
    (any::<[bool; 6]>(), 0u8..=32, 0u8..=32, 0u8..=16, any::<bool>()).prop_map(|(b, src, dst, tp, v6)| {
        let mut m = Mask::default();
        let p = |len: u8| if len == 0 { 0 } else { u32::MAX << (32 - len) };
        m.0.dl_type = 0xffffu16.into();
        if b[0] {
            m.0.in_port = u32::MAX;
        }
        if b[1] {
            m.0.nw_src = p(src).into();
        }
        if b[2] {
            m.0.nw_dst = p(dst).into();
        }
        if b[3] {
            m.0.tp_dst = ((p(tp + 16) & 0xffff) as u16).into();
        }
        if b[4] {
            m.0.tp_src = 0xffffu16.into();
        }
        if b[5] {
            m.0.regs[3] = u32::MAX;
        }
        if v6 {
            m.0.ipv6_dst[0] = 0xf0;
        }
        m
    })
}

fn rule(flow: &Flow, mask: &Mask, priority: i32) -> Arc<Rule> {
    let m = Match { flow: flow.masked(mask), mask: *mask };
    Arc::new(Rule {
        table_id: 0,
        priority,
        cookie: 0,
        matching: CompactMatch::new(&m),
        actions: Arc::new([]),
        flags: RuleFlags::default(),
        idle_timeout: 0,
        hard_timeout: 0,
        importance: 0,
        created_ms: 0,
        modified_ms: 0,
        stats: Arc::new(RuleStats::default()),
    })
}

fn slow_best(list: &[Arc<Rule>], f: &Flow) -> Option<i32> {
    list.iter().filter(|r| r.matching.covers(f)).map(|r| r.priority).max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn agrees_with_a_list_and_its_masks_are_sound(
        rules in prop::collection::vec((small_flow(), small_mask(), 0i32..20, any::<bool>()), 1..40),
        packets in prop::collection::vec(small_flow(), 1..40),
    ) {
        let mut c = Classifier::default();
        let mut list: Vec<Arc<Rule>> = Vec::new();
        for (f, m, priority, add) in rules {
            if add || list.is_empty() {
                let r = rule(&f, &m, priority);
                let before = list.len();
                list.retain(|o| o.priority != r.priority || o.matching != r.matching);
                let replaced = c.insert(r.clone());
                prop_assert_eq!(replaced.is_some(), list.len() < before);
                list.push(r);
            } else {
                let gone = list.swap_remove(priority as usize % list.len());
                prop_assert!(c.remove(&gone).is_some());
                prop_assert!(c.find(&gone.matching, gone.priority).is_none());
            }
            prop_assert_eq!(c.len(), list.len());
        }
        prop_assert_eq!(c.iter().count(), list.len());
        let results: Vec<_> = packets.iter().map(|p| {
            let mut mask = Mask::default();
            let got = c.lookup(p, &mut mask).map(|r| r.priority);
            (p, mask, got)
        }).collect();
        for (p, mask, got) in &results {
            prop_assert_eq!(*got, slow_best(&list, p));
            for q in &packets {
                // dl_type is always part of a megaflow, so prefix tracking may rely on it.
                if q.dl_type == p.dl_type && q.matches(p, mask) {
                    prop_assert_eq!(slow_best(&list, q), *got, "mask too wide: {:?}", mask);
                }
            }
        }
    }

    #[test]
    fn loose_matching_is_subset(a in small_flow(), am in small_mask(), b in small_flow(), bm in small_mask(), p in small_flow()) {
        let (ra, rb) = (rule(&a, &am, 1), rule(&b, &bm, 1));
        if ra.matching.is_within(&rb.matching) && ra.matching.covers(&p) {
            prop_assert!(rb.matching.covers(&p));
        }
        if ra.matching.covers(&p) && rb.matching.covers(&p) {
            prop_assert!(ra.matching.overlaps(&rb.matching));
        }
    }
}

#[test]
fn clones_keep_their_version() {
    let mut c = Classifier::default();
    let (f, m) = (Flow::default(), Mask::none());
    c.insert(rule(&f, &m, 1));
    let old = c.clone();
    c.insert(rule(&f, &m, 2));
    assert_eq!(old.lookup(&f, &mut Mask::none()).map(|r| r.priority), Some(1));
    assert_eq!(c.lookup(&f, &mut Mask::none()).map(|r| r.priority), Some(2));
}

//! Assignments as they were seen of the program this one stands in for, and what must hold of all.

use super::*;
use proptest::prelude::*;

fn pmds(cores: &[(u32, u32)]) -> Vec<(PmdId, NumaId)> {
    cores.iter().map(|&(c, n)| (PmdId(c), NumaId(n))).collect()
}

fn port(no: u32, n: usize, numa: u32) -> Vec<Queue> {
    let queue = |queue| Queue {
        port: DpPort(no),
        name: format!("p{no}"),
        queue,
        numa: Some(NumaId(numa)),
        pinned: None,
        cycles: 0,
    };
    (0..n).map(queue).collect()
}

fn two_nodes() -> (Vec<(PmdId, NumaId)>, Vec<Queue>) {
    let mut queues = port(1, 4, 0);
    queues.extend(port(2, 5, 1));
    (pmds(&[(0, 0), (1, 0), (4, 1), (5, 1), (6, 1), (7, 1)]), queues)
}

fn cores(plan: &Plan) -> Vec<u32> {
    plan.owners.iter().map(|o| o.map_or(99, |p| p.0)).collect()
}

#[test]
fn without_loads() {
    let (pmds, queues) = two_nodes();
    let of = |assign| cores(&plan(&pmds, &queues, assign, true));
    assert_eq!(of(RxqAssign::Cycles), [0, 1, 1, 0, 4, 5, 6, 7, 7]);
    assert_eq!(of(RxqAssign::RoundRobin), [0, 1, 0, 1, 4, 5, 6, 7, 4]);
    assert_eq!(of(RxqAssign::Group), [0, 1, 0, 1, 4, 5, 6, 7, 4]);
    let p = plan(&pmds, &queues, RxqAssign::RoundRobin, true);
    assert_eq!(p.lines[0].1, "Performing pmd to rx queue assignment using roundrobin algorithm.");
    assert_eq!(p.lines[1].1, "Core  0 on numa node 0 assigned port 'p1' rx queue 0.");
    assert!(!p.cross_numa);
}

#[test]
fn busiest_first() {
    let pmds = pmds(&[(0, 0), (1, 0)]);
    let mut queues = port(1, 5, 0);
    for (q, cycles) in queues.iter_mut().zip([10, 50, 20, 5, 30]) {
        q.cycles = cycles;
    }
    let of = |assign| plan(&pmds, &queues, assign, true);
    // 50 | 30 20 | 10 5, there and back.
    assert_eq!(cores(&of(RxqAssign::Cycles)), [0, 0, 1, 0, 1]);
    // 50 | 30 | 20 joins 30, 10 joins 50 or 50: the emptier one.
    let g = of(RxqAssign::Group);
    assert_eq!(g.shares.iter().map(|s| s.cycles).collect::<Vec<_>>(), [60, 55]);
}

#[test]
fn pinned_queues_isolate() {
    let (pmds, mut queues) = two_nodes();
    queues[0].pinned = Some(CoreId(0));
    queues[1].pinned = Some(CoreId(4));
    let p = plan(&pmds, &queues, RxqAssign::Cycles, true);
    assert_eq!(cores(&p), [0, 4, 1, 1, 5, 6, 7, 7, 6]);
    let want = "Core  4 on numa node 1 is pinned with port 'p1' rx queue 1 (measured processing cycles 0)";
    assert_eq!(p.lines[1].1, want);
    assert_eq!(p.shares.iter().filter(|s| s.isolated).map(|s| s.pmd.0).collect::<Vec<_>>(), [0, 4]);
    let p = plan(&pmds, &queues, RxqAssign::Group, false);
    assert!(p.shares.iter().all(|s| !s.isolated));
    assert_eq!(cores(&p)[4..], [5, 6, 7, 4, 5]);
}

#[test]
fn a_core_without_a_pmd() {
    let mut queues = port(1, 1, 0);
    queues[0].pinned = Some(CoreId(77));
    let p = plan(&pmds(&[(0, 0)]), &queues, RxqAssign::Cycles, true);
    assert_eq!(cores(&p), [0]);
    let want =
        "Core 77 cannot be pinned with port 'p1' rx queue 0. Use pmd-cpu-mask to enable a pmd on core 77. \
                An alternative core will be assigned.";
    assert_eq!(p.lines[0], (Level::Warn, want.to_owned()));
}

#[test]
fn other_nodes_take_turns() {
    let pmds = pmds(&[(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]);
    let mut queues = port(1, 9, 9);
    queues.extend(port(2, 3, 1));
    let of = |assign| plan(&pmds, &queues, assign, true);
    assert_eq!(cores(&of(RxqAssign::RoundRobin)), [0, 2, 4, 1, 3, 5, 0, 2, 4, 3, 2, 3]);
    assert_eq!(cores(&of(RxqAssign::Cycles)), [0, 2, 4, 1, 3, 5, 1, 3, 5, 2, 2, 3]);
    assert_eq!(cores(&of(RxqAssign::Group)), [0, 2, 4, 1, 3, 5, 0, 2, 4, 3, 2, 3]);
    let p = of(RxqAssign::Group);
    assert!(p.cross_numa);
    let want = "There's no available (non-isolated) pmd thread on numa node 9. Port 'p1' rx queue 0 will be assigned \
                to a pmd on numa node 0. This may lead to reduced performance.";
    assert_eq!(p.lines[1].1, want);
}

#[test]
fn nobody_left() {
    let mut queues = port(1, 2, 0);
    queues[0].pinned = Some(CoreId(3));
    let p = plan(&pmds(&[(3, 0)]), &queues, RxqAssign::Cycles, true);
    assert_eq!(p.owners, [Some(PmdId(3)), None]);
    let want =
        "No non-isolated pmd on any numa available for port 'p1' rx queue 1 (measured processing cycles 0). \
                This rx queue will not be polled.";
    assert_eq!(p.lines[2], (Level::Warn, want.to_owned()));
    assert_eq!(plan(&[], &port(1, 2, 0), RxqAssign::Group, true).owners, [None, None]);
    assert!(plan(&[], &[], RxqAssign::Cycles, true).lines.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Pins are kept, isolated cores have pinned queues only, nothing is left while a core is free for all, and on
    /// equal terms no core of a node has two queues more than another.
    #[test]
    fn plans_are_fair(
        cores in prop::collection::btree_map(0u32..16, 0u32..3, 0..8),
        queues in prop::collection::vec((1u32..5, 0u32..4, prop::option::of(0u32..16), 0u64..1000), 0..24),
        assign in prop_oneof![Just(RxqAssign::Cycles), Just(RxqAssign::RoundRobin), Just(RxqAssign::Group)],
        isolate in any::<bool>(),
    ) {
        let pmds: Vec<_> = cores.iter().map(|(c, n)| (PmdId(*c), NumaId(*n))).collect();
        let queues: Vec<Queue> = queues.iter().enumerate().map(|(i, (no, numa, pin, cycles))| Queue {
            port: DpPort(*no), name: "p".into(), queue: i, numa: Some(NumaId(*numa)), pinned: pin.map(CoreId),
            cycles: *cycles,
        }).collect();
        let p = plan(&pmds, &queues, assign, isolate);
        for (q, owner) in queues.iter().zip(&p.owners) {
            let pinned = q.pinned.filter(|c| cores.contains_key(&c.0)).map(|c| PmdId(c.0));
            prop_assert!(pinned.is_none() || pinned == *owner);
            prop_assert_eq!(owner.is_none(), pinned.is_none() && p.shares.iter().all(|s| s.isolated));
            if let (None, Some(o)) = (pinned, owner) {
                prop_assert!(p.shares.iter().any(|s| s.pmd == *o && !s.isolated));
            }
        }
        prop_assert_eq!(p.shares.iter().map(|s| s.queues).sum::<usize>(), p.owners.iter().flatten().count());
        if isolate && assign != RxqAssign::Group {
            for a in p.shares.iter().filter(|s| !s.isolated) {
                for b in p.shares.iter().filter(|s| !s.isolated && s.numa == a.numa) {
                    prop_assert!(a.queues.abs_diff(b.queues) <= 2);
                }
            }
        }
    }
}

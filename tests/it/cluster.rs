//! A database of three servers: the switch stays with the leader, and goes to another when that is gone.

use crate::harness::{wait_until, Harness, Setup, Which};
use crate::lab::{udp, Lab};

fn counter(h: &Harness, name: &str) -> u64 {
    h.appctl(&["coverage/read-counter", name]).trim().parse().expect("a number")
}

/// Twice the server that the switch is connected to is killed. Forwarding goes on, and what is configured afterwards
/// comes into effect.
#[test]
fn leader_is_killed() {
    let mut lab = Lab::with(Setup::new(Which::Ours).cluster(3), 3);
    let frame = udp(1, 2, 1, 1);
    lab.passes(1, &frame, &[2, 3]);
    for round in 1..=2u64 {
        let leader = lab.h.leader();
        assert!(lab.h.log().contains(&format!("unix:c{leader}.sock: connected")), "{}", lab.h.log());
        let lost = format!("unix:c{leader}.sock: connection ");
        let before = lab.h.log().matches(&lost).count();
        lab.h.kill_member(leader);
        wait_until("the loss is logged", || lab.h.log().matches(&lost).count() > before);
        lab.passes(1, &frame, &[2, 3]);
        lab.h.ofctl(&["add-flow", "br0", &format!("priority=7,udp,tp_dst={},actions=3", 8 + round)]);
        lab.settle();
        lab.passes(1, &udp(1, 2, 1, 8 + round as u16), &[3]);

        // Returns when the switch says that it is in effect.
        lab.h.vsctl(&["set", "Port", "p3", "tag=7"]);
        lab.settle();
        lab.passes(1, &frame, &[2]);
        lab.h.vsctl(&["clear", "Port", "p3", "tag"]);
        lab.settle();
        lab.passes(1, &frame, &[2, 3]);
        // The new server sent only what had changed meanwhile.
        assert_eq!(counter(&lab.h, "ovsdb_sync_all"), 1);
        assert!(counter(&lab.h, "ovsdb_sync_changes") >= round);
        lab.h.start_member(leader);
    }
    assert!(lab.h.log().contains("; trying another server"), "{}", lab.h.log());
}

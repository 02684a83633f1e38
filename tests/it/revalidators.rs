//! Revalidator threads: how many there are, what they are called, and that a change of their number loses nothing.

use crate::harness::wait_until;
use crate::lab::{udp, Lab};

/// Numbers of the threads whose name is `kind` and a number.
fn numbers(pid: u32, kind: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    let mut all: Vec<u32> = names.filter_map(|n| n.trim().strip_prefix(kind)?.parse().ok()).collect();
    all.sort_unstable();
    all
}

/// Numbers and keys of the revalidators in `upcall/show`.
fn listed(lab: &Lab) -> Vec<(u32, usize)> {
    let text = lab.h.appctl(&["upcall/show"]);
    let line = |l: &str| {
        let (number, keys) = l.trim().split_once(": (keys ")?;
        Some((number.parse().ok()?, keys.strip_suffix(')')?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn set(lab: &mut Lab, settings: &[&str]) {
    let mut args = vec!["set", "Open_vSwitch", "."];
    args.extend(settings);
    lab.h.vsctl(&args);
}

#[test]
fn another_number_of_threads_loses_no_packet() {
    let mut lab = Lab::new(2);
    let pid = lab.h.switch().pid();
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,udp,tp_src=1/0x1,actions=2"]);
    lab.h.ofctl(&["add-flow", "br0", "priority=8,in_port=1,udp,actions=2"]);
    let mut sent = 0;
    let mut seen = std::collections::BTreeSet::new();
    for (handlers, revalidators) in [(1, 3), (2, 1), (2, 5), (1, 2)] {
        (0..10).for_each(|i| lab.passes(1, &udp(1, 2, i, 5), &[2]));
        let h = format!("other_config:n-handler-threads={handlers}");
        let r = format!("other_config:n-revalidator-threads={revalidators}");
        set(&mut lab, &[&h, &r]);
        wait_until("all have their names", || {
            numbers(pid, "revalidator").len() == revalidators && numbers(pid, "handler").len() == handlers
        });
        let now = numbers(pid, "revalidator");
        let all: Vec<u32> = listed(&lab).into_iter().map(|(n, _)| n).collect();
        assert_eq!(all, now, "in the order in which they were made");
        assert!(now.iter().all(|n| seen.insert(*n)), "numbers are not used again: {now:?} of {seen:?}");
        (0..10).for_each(|i| lab.passes(1, &udp(1, 2, i, 5), &[2]));
        sent += 20;
        let usage = lab.h.appctl(&["memory/show"]);
        assert!(usage.contains(&format!(" revalidators:{revalidators} ")), "{usage}");
    }
    lab.h.appctl(&["revalidator/wait"]);
    assert!(listed(&lab).iter().map(|(_, keys)| keys).sum::<usize>() > 0, "flows were made again");
    let flows = lab.h.ofctl(&["dump-flows", "br0", "in_port=1"]);
    let counts = flows.split("n_packets=").skip(1).filter_map(|t| t.split(',').next()?.parse::<u64>().ok());
    assert_eq!(counts.sum::<u64>(), sent, "{flows}");
    lab.h.appctl(&["revalidator/purge"]);
    assert_eq!(listed(&lab).iter().map(|(_, keys)| keys).sum::<usize>(), 0);
}

#[test]
fn nonsense_is_refused_in_the_log() {
    let mut lab = Lab::new(1);
    let pid = lab.h.switch().pid();
    set(&mut lab, &["other_config:n-revalidator-threads=2"]);
    wait_until("two threads", || numbers(pid, "revalidator").len() == 2);
    for nonsense in ["0", "-4", "two"] {
        let setting = format!("other_config:n-revalidator-threads=\"{nonsense}\"");
        set(&mut lab, &[&setting, "other_config:n-handler-threads=1000"]);
        wait_until("as if there were none", || numbers(pid, "revalidator").len() == 1);
        let said = format!("ignoring other_config:n-revalidator-threads={nonsense}, which is not a number");
        wait_until("it is said", || lab.h.log().contains(&said));
    }
    wait_until("no more than that", || numbers(pid, "handler").len() == 256);
    assert!(lab.h.log().contains("Setting n-handler-threads to 256, setting n-revalidator-threads to 1"));
    assert!(lab.h.log().contains("Starting 257 threads"));
}

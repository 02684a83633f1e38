//! Handler threads: how many there are, and that they cost nothing where no datapath queues its misses.

use crate::harness::wait_until;
use crate::lab::{udp, Lab};

/// Name and CPU time (ticks) of the threads whose name begins with `prefix`.
fn threads(pid: u32, prefix: &str) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    let stats = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("stat")).ok());
    let thread = |stat: String| {
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_string();
        // State is the first word behind the name, user and system time are the 12th and 13th.
        let times: Vec<u64> =
            rest.split_whitespace().skip(11).take(2).filter_map(|w| w.parse().ok()).collect();
        name.starts_with(prefix).then(|| (name, times.iter().sum()))
    };
    stats.filter_map(thread).collect()
}

fn counted(lab: &Lab, word: &str) -> usize {
    let usage = lab.h.appctl(&["memory/show"]);
    let number = usage.split_whitespace().find_map(|w| w.strip_prefix(word)?.parse().ok());
    number.unwrap_or_else(|| panic!("no {word} in {usage}"))
}

#[test]
fn the_database_says_how_many_and_userspace_bridges_let_them_sleep() {
    let mut lab = Lab::new(2);
    let pid = lab.h.switch().pid();
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,udp,nw_src=9.0.0.0/9,actions=drop"]);
    lab.h.ofctl(&["add-flow", "br0", "priority=9,in_port=1,udp,actions=2"]);
    for (n, want) in [("3", 3), ("1", 1), ("6", 6)] {
        let setting = format!("other_config:n-handler-threads={n}");
        lab.h.vsctl(&["set", "Open_vSwitch", ".", &setting]);
        assert_eq!(counted(&lab, "handlers:"), want, "at once");
        // A thread has its name when it first runs.
        wait_until("they have names", || threads(pid, "handler").len() == want);
        (1..9).for_each(|i| lab.passes(1, &udp(1, 2, i, 5), &[2]));
    }
    let mut names: Vec<String> = threads(pid, "handler").into_iter().map(|t| t.0).collect();
    names.dedup();
    assert_eq!(names.len(), 6, "each has its number: {names:?}");
    assert!(names.iter().all(|n| n["handler".len()..].parse::<u32>().is_ok()), "{names:?}");
    // All packets were translated by those who received them.
    assert!(lab.lookups().1 > 0);
    let used: Vec<_> = threads(pid, "handler").into_iter().filter(|t| t.1 != 0).collect();
    assert!(used.is_empty(), "handlers used the CPU: {used:?}");
    for nonsense in ["0", "-5", "many"] {
        let setting = format!("other_config:n-handler-threads=\"{nonsense}\"");
        lab.h.vsctl(&["set", "Open_vSwitch", ".", &setting, "other_config:n-revalidator-threads=1000000"]);
        assert_eq!(counted(&lab, "handlers:"), 1, "{nonsense}");
    }
    lab.h.vsctl(&["del-br", "br0"]);
    wait_until("the threads are gone", || threads(pid, "handler").is_empty());
}

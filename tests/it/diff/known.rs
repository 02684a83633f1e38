//! Differences that are right, each with its reason.
//!
//! Neighbours: the comparison. Threads: none.

/// A place where the two switches may print different texts.
struct Known {
    /// Start of the case's name.
    case: &'static str,
    /// Start of the record's label.
    what: &'static str,
    /// Why it is right that they differ.
    reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        case: "mod_nw_src and mod_nw_dst",
        what: "frames after > p1 udp frag=later",
        reason: "a fragment that is not the first has no UDP header: the installed daemon changes two bytes of its data",
    },
    Known {
        case: "flags beside ports",
        what: "dpctl/dump-flows",
        reason: "the ports alone rule the rule out, so the flags need not be matched: a wider megaflow, as sound",
    },
    Known {
        case: "priority tags",
        what: "dpctl/dump-flows",
        reason: "whether a priority-tagged frame keeps its header depends on the priority, which the installed daemon does not match",
    },
    Known {
        case: "mod-port",
        what: "dpctl/dump-flows",
        reason: "whether a port receives depends on the destination (no-recv-stp), which the installed daemon does not match",
    },
    Known {
        case: "dump-table-features",
        what: "ovs-ofctl dump-table-features",
        reason: "fields of tunnel options, NSH and ND options are not known to the switch",
    },
    Known {
        case: "root columns",
        what: "ovs-vsctl get Open_vSwitch . datapath_types",
        reason: "there is no kernel datapath",
    },
    Known {
        case: "root columns",
        what: "ovs-vsctl get Open_vSwitch . ovs_version",
        reason: "left to a start script by the installed daemon",
    },
    Known {
        case: "root columns",
        what: "ovs-vsctl get Open_vSwitch . db_version",
        reason: "left to a start script by the installed daemon",
    },
];

/// Which line of the table covers a difference.
pub fn justified(case: &str, what: &str) -> Option<usize> {
    KNOWN.iter().position(|k| case.starts_with(k.case) && what.starts_with(k.what))
}

/// Lines of the table that covered nothing: the difference is gone, or the case.
pub fn stale(used: &[usize]) -> Vec<String> {
    let unused = KNOWN.iter().enumerate().filter(|(i, _)| !used.contains(i));
    unused.map(|(_, k)| format!("{}: {} ({})", k.case, k.what, k.reason)).collect()
}

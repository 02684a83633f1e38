//! What the datapath can do: `dpif/show-dp-features` and `dpif/set-dp-features`, `odp-execute/*`.
//!
//! Values set by hand are kept and shown for those who ask; translation uses all that the datapath can do.
//! Neighbours: `manager` owns the values; the daemon serves [`COMMANDS`]. Threads: main only.

use crate::manager::Manager;
use infra::command::{Command, Reply};
use std::fmt::Write;

/// All commands of this module.
pub const COMMANDS: [Command<Manager>; 4] = [
    Command::new("dpif/set-dp-features", "bridge", 1, 3, set),
    Command::new("dpif/show-dp-features", "bridge", 1, 1, show),
    Command::new("odp-execute/action-impl-set", "name", 1, 1, set_implementation),
    Command::new("odp-execute/action-impl-show", "", 0, 0, implementations),
];

/// The value of a feature.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Value {
    Flag(bool),
    Number(u64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Flag(v) => write!(f, "{v}"),
            Value::Number(v) => write!(f, "{v}"),
        }
    }
}

use Value::{Flag, Number};

/// Names, titles, values, and the place in `show-dp-features`; `set-dp-features` lists them in this order.
const FEATURES: [(&str, &str, Value, usize); 26] = [
    ("sample_nesting", "Sample nesting", Number(10), 5),
    ("clone", "Clone action", Flag(true), 4),
    ("ufid", "Ufid", Flag(true), 2),
    ("lb_output_action", "Optimized Balance TCP mode", Flag(true), 12),
    ("nd_ext", "IPv6 ND Extension", Flag(true), 25),
    ("ct_orig_tuple", "CT orig tuple", Flag(true), 23),
    ("tnl_push_pop", "Tunnel push pop", Flag(true), 1),
    ("ct_eventmask", "Conntrack eventmask", Flag(true), 6),
    ("ct_state", "CT state", Flag(true), 18),
    ("ct_zero_snat", "Conntrack all-zero IP SNAT", Flag(true), 13),
    ("ct_clear", "Conntrack clear", Flag(true), 7),
    ("max_vlan_headers", "Max VLAN headers", Number(1), 15),
    ("recirc", "Recirc", Flag(true), 17),
    ("ct_label", "CT label", Flag(true), 21),
    ("max_hash_alg", "Max dp_hash algorithm", Number(1), 8),
    ("add_mpls", "MPLS Label add", Flag(true), 14),
    ("ct_state_nat", "CT state NAT", Flag(true), 22),
    ("ct_timeout", "Conntrack timeout policy", Flag(true), 10),
    ("explicit_drop_action", "Explicit Drop action", Flag(true), 11),
    ("ct_mark", "CT mark", Flag(true), 20),
    ("ct_orig_tuple6", "CT orig tuple for IPv6", Flag(true), 24),
    ("max_mpls_depth", "Max MPLS depth", Number(3), 16),
    ("masked_set_action", "Masked set action", Flag(true), 0),
    ("check_pkt_len", "Check pkt length action", Flag(true), 9),
    ("ct_zone", "CT zone", Flag(true), 19),
    ("trunc", "Truncate action", Flag(true), 3),
];

/// The values that are set now.
#[derive(Debug)]
pub(crate) struct Features([Value; FEATURES.len()]);

impl Default for Features {
    fn default() -> Self {
        Features(FEATURES.map(|(_, _, v, _)| v))
    }
}

fn known_bridge(m: &Manager, name: &str) -> Result<(), String> {
    m.bridges.get(name).map(|_| ()).ok_or_else(|| "no such bridge".into())
}

fn show(m: &mut Manager, args: &[&str]) -> Reply {
    known_bridge(m, args[0])?;
    let mut out = String::new();
    let mut shown = FEATURES;
    shown.sort_unstable_by_key(|(.., place)| *place);
    for (_, title, value, _) in shown {
        let _ = match value {
            Flag(v) => writeln!(out, "{title}: {}", if v { "Yes" } else { "No" }),
            Number(v) => writeln!(out, "{title}: {v}"),
        };
    }
    Ok(out)
}

fn set(m: &mut Manager, args: &[&str]) -> Reply {
    known_bridge(m, args[0])?;
    let index = args.get(1).map(|name| FEATURES.iter().position(|(n, ..)| n == name));
    match (index, args.get(2)) {
        (Some(None), _) => Ok("Unexpected support field".into()),
        (Some(Some(i)), Some(text)) => Ok(assign(&mut m.features.0[i], FEATURES[i].2, text).into()),
        (Some(Some(i)), None) => Ok(line(&m.features, i)),
        (None, _) => Ok((0..FEATURES.len()).map(|i| line(&m.features, i)).collect()),
    }
}

/// What is wrong with the new value, or nothing.
fn assign(value: &mut Value, boot: Value, text: &str) -> &'static str {
    match (boot, text, text.parse()) {
        (Flag(_), "true" | "false", _) => *value = Flag(text == "true"),
        (Flag(_), ..) => return "Boolean value expected",
        (Number(_), _, Err(_)) => return "Integer number expected",
        (Number(boot), _, Ok(n)) if n > boot => return "Can not set value beyond the datapath capability",
        (Number(_), _, Ok(n)) => *value = Number(n),
    }
    ""
}

fn line(features: &Features, i: usize) -> String {
    let (name, title, boot, _) = FEATURES[i];
    format!("{name} ({title}) : [run time]:{}, [boot time]:{boot}\n", features.0[i])
}

fn implementations(_: &mut Manager, _: &[&str]) -> Reply {
    Ok("Available Actions implementations:\n  scalar (available: Yes, active: Yes)\n".into())
}

/// There is one implementation of actions.
fn set_implementation(_: &mut Manager, args: &[&str]) -> Reply {
    match args[0] {
        "scalar" => Ok("Action implementation set to scalar.".into()),
        name => Err(format!("Error: unknown action implementation, {name}, specified!")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let mut v = Flag(true);
        assert_eq!((assign(&mut v, Flag(true), "false"), v), ("", Flag(false)));
        assert_eq!(assign(&mut v, Flag(true), "0"), "Boolean value expected");
        let mut v = Number(3);
        assert_eq!((assign(&mut v, Number(3), "1"), v), ("", Number(1)));
        assert_eq!(assign(&mut v, Number(3), "4"), "Can not set value beyond the datapath capability");
        assert_eq!(assign(&mut v, Number(3), "x"), "Integer number expected");
        let f = Features::default();
        assert_eq!(line(&f, 12), "recirc (Recirc) : [run time]:true, [boot time]:true\n");
    }
}

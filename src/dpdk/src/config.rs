//! How EAL is started: from the database's `other_config` to the arguments of `rte_eal_init`.
//!
//! Neighbours: `eal` runs it. Threads: plain values.

use infra::vlog::Level;
use std::collections::BTreeMap;

/// `other_config:dpdk-init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// `false` or absent: no DPDK.
    Disabled,
    /// `true`: the daemon ends when DPDK cannot be initialized.
    Required,
    /// `try`: the daemon goes on without DPDK.
    Try,
}

/// A packet pool size the user asks for (`shared-mempool-config`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMempool {
    /// MTU whose buffers the pool shall hold.
    pub mtu: u32,
    /// NUMA node; `None` for all.
    pub numa: Option<u32>,
}

/// Everything that is decided when DPDK starts and stays until the daemon ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalConfig {
    /// Whether to start at all.
    pub init: Init,
    /// `argv` of `rte_eal_init`, program name first.
    pub args: Vec<String>,
    /// The cores are the user's choice (`dpdk-lcore-mask`, or an argument in `dpdk-extra`): the daemon's own threads
    /// stay on the first of them, away from the PMDs.
    pub chosen_lcores: bool,
    /// `per-port-memory`.
    pub per_port_memory: bool,
    /// `shared-mempool-config`, in order.
    pub shared_mempools: Vec<SharedMempool>,
    /// What is to be said in the log before and after EAL starts.
    pub(crate) before: Vec<(Level, String)>,
    pub(crate) after: Vec<(Level, String)>,
    /// An argument that must not reach EAL, and why.
    pub(crate) refused: Option<String>,
}

/// Options that stand for one EAL argument each, and the arguments of the same meaning.
const SIMPLE: [(&str, &str, &[&str]); 3] = [
    ("dpdk-lcore-mask", "-c", &["-c", "-l", "--lcores"]),
    ("dpdk-hugepage-dir", "--huge-dir", &["--huge-dir"]),
    ("dpdk-socket-limit", "--socket-limit", &["--socket-limit"]),
];

impl EalConfig {
    /// The configuration that `other_config` of the Open_vSwitch row describes. `program` becomes
    /// `argv[0]`.
    pub fn from_other_config(program: &str, other_config: &BTreeMap<String, String>) -> EalConfig {
        let first = infra::cpu::allowed().first().map_or(0, |c| c.0);
        EalConfig::with_first_core(program, other_config, first)
    }

    /// As [`EalConfig::from_other_config`], with the core to use when none is configured.
    pub fn with_first_core(program: &str, oc: &BTreeMap<String, String>, first_core: u32) -> EalConfig {
        let get = |key: &str| oc.get(key).map(String::as_str);
        let init = match get("dpdk-init").unwrap_or("false") {
            v if v.eq_ignore_ascii_case("true") => Init::Required,
            v if v.eq_ignore_ascii_case("try") => Init::Try,
            _ => Init::Disabled,
        };
        let mut c = EalConfig {
            init,
            args: vec![program.to_string()],
            chosen_lcores: true,
            per_port_memory: get("per-port-memory") == Some("true"),
            shared_mempools: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            refused: None,
        };
        let extra = split_words(get("dpdk-extra").unwrap_or(""));
        c.refused = refusal(&extra);
        c.args.extend(extra.iter().cloned());
        for (key, arg, same) in SIMPLE {
            if let Some(value) = get(key) {
                if has_any(&extra, same) {
                    c.ignore(arg);
                } else {
                    c.args.extend([arg.to_string(), value.to_string()]);
                }
            }
        }
        c.add_memory(get("dpdk-alloc-mem"), get("dpdk-socket-mem"), &extra);
        if !has_any(&c.args, &["-c", "-l", "--lcores"]) {
            c.chosen_lcores = false;
            c.args.extend(["-l".to_string(), first_core.to_string()]);
        }
        c.add_pools(get("shared-mempool-config"));
        c
    }

    fn ignore(&mut self, arg: &str) {
        let text = format!("Ignoring database defined option '{arg}' due to dpdk-extra config");
        self.before.push((Level::Warn, text));
    }

    /// `dpdk-alloc-mem` and `dpdk-socket-mem` exclude each other; the latter wins.
    fn add_memory(&mut self, alloc: Option<&str>, socket: Option<&str>, extra: &[String]) {
        if alloc.is_some() && socket.is_some() {
            let text = "Multiple defined options for memory type. Please check your database settings and \
                        reconfigure if necessary.";
            self.before.push((Level::Err, text.to_string()));
        }
        let chosen = socket.map(|v| ("--socket-mem", v)).or(alloc.map(|v| ("-m", v)));
        let Some((arg, value)) = chosen else { return };
        if has_any(extra, &["--socket-mem", "-m"]) {
            self.ignore(arg);
        } else {
            self.args.extend([arg.to_string(), value.to_string()]);
        }
    }

    fn add_pools(&mut self, list: Option<&str>) {
        let state = if self.per_port_memory { "enabled" } else { "disabled" };
        self.after.push((Level::Info, format!("Per port memory for DPDK devices {state}.")));
        let Some(list) = list.filter(|l| !l.is_empty()) else { return };
        if self.per_port_memory {
            let text = "User configured shared mempools will not be used.";
            self.after.push((Level::Warn, text.to_string()));
            return;
        }
        for item in list.split(',') {
            let (mtu, numa) = match item.split_once(':') {
                Some((mtu, numa)) => (mtu, Some(numa)),
                None => (item, None),
            };
            let Some(mtu) = mtu.trim().parse::<u32>().ok().filter(|&m| m > 0) else {
                self.after.push((Level::Warn, "Invalid user configured shared mempool MTU.".to_string()));
                continue;
            };
            let numa = match numa.map(|n| n.trim().parse::<u32>()) {
                None => None,
                Some(Ok(n)) => Some(n),
                Some(Err(_)) => {
                    let text = "Invalid user configured shared mempool NUMA.";
                    self.after.push((Level::Warn, text.to_string()));
                    continue;
                }
            };
            let node = numa.map_or("ALL".to_string(), |n| n.to_string());
            let text = format!("User configured shared mempool set for: MTU {mtu}, NUMA {node}.");
            self.after.push((Level::Info, text));
            self.shared_mempools.push(SharedMempool { mtu, numa });
        }
    }
}

/// Whether one of the arguments is given, as `--name`, `--name=value` or `-nVALUE`.
fn has_any(args: &[String], names: &[&str]) -> bool {
    args.iter().any(|a| {
        names.iter().any(|n| {
            if n.starts_with("--") {
                a == n || a.strip_prefix(n).is_some_and(|rest| rest.starts_with('='))
            } else {
                a.starts_with(n) && !a.starts_with("--")
            }
        })
    })
}

/// Arguments that make EAL end the process instead of returning.
fn refusal(args: &[String]) -> Option<String> {
    let mut after_log_level = false;
    for a in args {
        let help_level = a == "--log-level=help" || (after_log_level && a == "help");
        after_log_level = a == "--log-level";
        let long_help = a.len() >= 4 && "--help".starts_with(a.as_str());
        let short_help = a
            .strip_prefix('-')
            .filter(|r| !r.starts_with('-'))
            .is_some_and(|r| r.trim_start_matches('v').starts_with('h'));
        if help_level || long_help || short_help {
            return Some(format!(
                "'{a}' in other_config:dpdk-extra prints a help text and ends the process; remove it"
            ));
        }
    }
    None
}

/// Splits as a shell does: blanks separate, quotes and backslashes keep together.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(chars.next().unwrap_or('\\')),
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> EalConfig {
        let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        EalConfig::with_first_core("ovs-vswitchd", &map, 3)
    }

    fn args(pairs: &[(&str, &str)]) -> String {
        config(pairs).args.join(" ")
    }

    #[test]
    fn init_values() {
        assert_eq!(config(&[]).init, Init::Disabled);
        assert_eq!(config(&[("dpdk-init", "True")]).init, Init::Required);
        assert_eq!(config(&[("dpdk-init", "try")]).init, Init::Try);
        assert_eq!(config(&[("dpdk-init", "yes")]).init, Init::Disabled);
    }

    #[test]
    fn order_of_arguments() {
        assert_eq!(args(&[]), "ovs-vswitchd -l 3");
        assert_eq!(
            args(&[
                ("dpdk-extra", "--no-pci -m 256"),
                ("dpdk-lcore-mask", "0x1"),
                ("dpdk-hugepage-dir", "/dev/hugepages"),
                ("dpdk-socket-limit", "2048"),
            ]),
            "ovs-vswitchd --no-pci -m 256 -c 0x1 --huge-dir /dev/hugepages --socket-limit 2048"
        );
        assert_eq!(args(&[("dpdk-alloc-mem", "200")]), "ovs-vswitchd -m 200 -l 3");
    }

    #[test]
    fn extra_overrides_the_database() {
        let c = config(&[
            ("dpdk-extra", "-l 1 --socket-mem=300"),
            ("dpdk-lcore-mask", "1"),
            ("dpdk-socket-mem", "128"),
        ]);
        assert_eq!(c.args.join(" "), "ovs-vswitchd -l 1 --socket-mem=300");
        let texts: Vec<_> = c.before.iter().map(|(_, t)| t.as_str()).collect();
        assert_eq!(
            texts,
            [
                "Ignoring database defined option '-c' due to dpdk-extra config",
                "Ignoring database defined option '--socket-mem' due to dpdk-extra config",
            ]
        );
    }

    #[test]
    fn two_kinds_of_memory() {
        let c = config(&[("dpdk-alloc-mem", "200"), ("dpdk-socket-mem", "128")]);
        assert_eq!(c.args.join(" "), "ovs-vswitchd --socket-mem 128 -l 3");
        assert_eq!(c.before.len(), 1);
        assert!(c.before[0].1.starts_with("Multiple defined options for memory type."));
    }

    #[test]
    fn words_like_a_shell() {
        assert_eq!(split_words(r#" a  'b c' d"e f"g \h '' "\"" "#), ["a", "b c", "de fg", "h", "", "\""]);
        assert_eq!(split_words("open 'end"), ["open", "end"]);
        assert!(split_words("  ").is_empty());
    }

    #[test]
    fn arguments_that_end_the_process() {
        for bad in ["-h", "--help", "--he", "-vh", "--log-level=help", "--log-level help"] {
            assert!(config(&[("dpdk-extra", bad)]).refused.is_some(), "{bad}");
        }
        for good in ["--huge-dir /x", "-v", "--no-huge", "--log-level debug", "--in-memory"] {
            assert!(config(&[("dpdk-extra", good)]).refused.is_none(), "{good}");
        }
    }

    #[test]
    fn shared_pools() {
        let c = config(&[("shared-mempool-config", "1500,9000:0,x,1:y,0")]);
        assert_eq!(
            c.shared_mempools,
            [SharedMempool { mtu: 1500, numa: None }, SharedMempool { mtu: 9000, numa: Some(0) }]
        );
        assert_eq!(c.after[1].1, "User configured shared mempool set for: MTU 1500, NUMA ALL.");
        assert_eq!(c.after.len(), 6);
        let c = config(&[("shared-mempool-config", "1500"), ("per-port-memory", "true")]);
        assert!(c.shared_mempools.is_empty());
    }
}

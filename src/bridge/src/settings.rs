//! The datapath's settings, from the text of the database: `Open_vSwitch.other_config`, `Interface.other_config`.
//!
//! Neighbours: `manager` and `ports` hand what comes out to the datapath. Threads: main only.

use crate::manager::LOG;
use datapath::{AutoLb, DpConfig, PortConfig, RxqAssign, TxSteering};
use infra::cpu::CoreId;
use infra::vlog::Module;
use std::collections::BTreeMap;

static DP_LOG: Module = Module::new("dpif_netdev");

type Words = BTreeMap<String, String>;

/// The datapath's settings in `other_config`.
pub(crate) fn dp_config(other: &Words) -> DpConfig {
    let number = |key: &str, default: u32| match other.get(key).map(|v| (v, v.parse::<u32>())) {
        None => default,
        Some((_, Ok(n))) => n,
        Some((v, Err(_))) => {
            infra::vlog!(
                LOG,
                Warn,
                "ignoring other_config:{key}={v}, which is not a number from 0 to 4294967295"
            );
            default
        }
    };
    let defaults = DpConfig::default();
    let mask = other.get("pmd-cpu-mask").filter(|m| !m.is_empty());
    let pmd_cores = mask.and_then(|m| match infra::cpu::parse_mask(m) {
        Ok(cores) => Some(cores),
        Err(e) => {
            infra::vlog!(
                LOG,
                Warn,
                "ignoring other_config:pmd-cpu-mask={m}: {e}; give a hexadecimal core mask such as 0x6"
            );
            None
        }
    });
    let (max_sleep_us, core_sleep_us) = sleeps(other);
    DpConfig {
        pmd_cores,
        emc_insert_inv_prob: number("emc-insert-inv-prob", 100),
        tx_flush_interval_us: number("tx-flush-interval", 0).min(1_000_000),
        rxq_assign: assignment(other),
        rxq_isolate: other.get("pmd-rxq-isolate").is_none_or(|v| v != "false"),
        auto_lb: balancing(other),
        max_sleep_us,
        core_sleep_us,
        perf_metrics: is_true(other, "pmd-perf-metrics"),
        upcall_share: upcall_share(other, defaults.upcall_share),
        flow_self_check: number("flow-self-check", 0),
        ..defaults
    }
}

/// `pmd-upcall-share`, per cent.
fn upcall_share(other: &Words, default: u32) -> u32 {
    let Some(text) = other.get("pmd-upcall-share") else { return default };
    match text.parse() {
        Ok(n @ 1..=100) => n,
        _ => {
            infra::vlog!(
                LOG,
                Warn,
                "ignoring other_config:pmd-upcall-share={text}, which is not a percentage from 1 to 100"
            );
            default
        }
    }
}

fn is_true(other: &Words, key: &str) -> bool {
    other.get(key).is_some_and(|v| v == "true")
}

/// A number where absent or unreadable ones count as `default`.
fn number(other: &Words, key: &str, default: i64) -> i64 {
    other.get(key).map_or(default, |v| v.trim().parse().unwrap_or(default))
}

fn assignment(other: &Words) -> RxqAssign {
    match other.get("pmd-rxq-assign").map(String::as_str) {
        None | Some("cycles") => RxqAssign::Cycles,
        Some("roundrobin") => RxqAssign::RoundRobin,
        Some("group") => RxqAssign::Group,
        Some(_) => {
            infra::vlog!(
                DP_LOG,
                Warn,
                "Unsupported rx queue to PMD assignment mode in pmd-rxq-assign. Defaulting to 'cycles'."
            );
            RxqAssign::Cycles
        }
    }
}

/// Values out of bounds count as the defaults.
fn balancing(other: &Words) -> AutoLb {
    let d = AutoLb::default();
    let within = |key: &str, default: i64, min: i64, max: i64| {
        let n = number(other, key, default);
        if (min..=max).contains(&n) {
            n
        } else {
            default
        }
    };
    let percent =
        |key: &str, default: u8| u8::try_from(within(key, default.into(), 0, 100)).unwrap_or(default);
    let interval = within("pmd-auto-lb-rebal-interval", 1, 1, 20_000);
    AutoLb {
        enabled: is_true(other, "pmd-auto-lb"),
        interval_min: u64::try_from(interval).unwrap_or(d.interval_min),
        load_threshold: percent("pmd-auto-lb-load-threshold", d.load_threshold),
        improvement_threshold: percent("pmd-auto-lb-improvement-threshold", d.improvement_threshold),
    }
}

/// Longest sleeps, microseconds: of all cores, and of single ones. `pmd-sleep-max` is the later word, which takes a
/// list such as `50,3:100,4:0`.
fn sleeps(other: &Words) -> (u32, BTreeMap<CoreId, u32>) {
    const MOST: u32 = 10_000;
    let bounded = |n: i64| u32::try_from(n).unwrap_or(MOST).min(MOST);
    let mut all = bounded(number(other, "pmd-maxsleep", 0));
    let mut cores = BTreeMap::new();
    let Some(list) = other.get("pmd-sleep-max") else { return (all, cores) };
    all = 0;
    for word in list.split([',', ' ']).filter(|w| !w.is_empty()) {
        let parsed = match word.split_once(':') {
            None => word.parse().map(|n: u32| all = n.min(MOST)).is_ok(),
            Some((core, us)) => match (core.parse(), us.parse::<u32>()) {
                (Ok(core), Ok(us)) => {
                    cores.insert(CoreId(core), us.min(MOST));
                    true
                }
                _ => false,
            },
        };
        if !parsed {
            infra::vlog!(
                LOG,
                Warn,
                "ignoring \"{word}\" in other_config:pmd-sleep-max={list}; give microseconds, or core:microseconds"
            );
        }
    }
    (all, cores)
}

/// The datapath's settings of a port in `Interface.other_config`; `None` when the list of cores cannot be read.
pub(crate) fn port_config(other: &Words) -> Option<PortConfig> {
    let steering = match other.get("tx-steering").map(String::as_str) {
        Some("hash") => TxSteering::Hash,
        _ => TxSteering::Thread,
    };
    let affinity = match other.get("pmd-rxq-affinity") {
        Some(list) => parse_affinity(list)?,
        None => BTreeMap::new(),
    };
    Some(PortConfig { affinity, steering })
}

/// `queue:core,queue:core`; the last word about a queue counts.
fn parse_affinity(list: &str) -> Option<BTreeMap<usize, CoreId>> {
    let pair = |word: &str| {
        let (queue, core) = word.split_once(':')?;
        Some((usize::try_from(whole(queue)?).ok()?, CoreId(whole(core)?)))
    };
    list.split([',', ' ']).filter(|w| !w.is_empty()).map(pair).collect()
}

/// A number as C writes them: decimal, 0x hexadecimal or 0 octal.
fn whole(text: &str) -> Option<u32> {
    let n = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8),
        None => text.parse(),
    };
    n.ok().filter(|n| i32::try_from(*n).is_ok() && !text.contains('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Words {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn lists_of_cores() {
        let read =
            |t: &str| parse_affinity(t).map(|m| m.into_iter().map(|(q, c)| (q, c.0)).collect::<Vec<_>>());
        assert_eq!(read("0:3,1:7"), Some(vec![(0, 3), (1, 7)]));
        for same in ["0:0,,1:1", "0:0 1:1", ",0:0,1:0x1,", "0:5,0:0,1:01"] {
            assert_eq!(read(same), Some(vec![(0, 0), (1, 1)]), "{same}");
        }
        assert_eq!(read(""), Some(vec![]));
        for bad in
            ["foo", "0", "0:", ":0", "0:x", "1:2:3", " 0 : 0", "0:0;1:1", "-1:0", "0:-1", "99999999999:0"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read("0:4294967296"), None);
        assert_eq!(read("0:1,bogus"), None);
    }

    #[test]
    fn balancing_within_bounds() {
        let read = |i: &str, l: &str, g: &str| {
            let lb = balancing(&words(&[
                ("pmd-auto-lb", "true"),
                ("pmd-auto-lb-rebal-interval", i),
                ("pmd-auto-lb-load-threshold", l),
                ("pmd-auto-lb-improvement-threshold", g),
            ]));
            (lb.interval_min, lb.load_threshold, lb.improvement_threshold)
        };
        assert_eq!(read("20000", "70", "0"), (20_000, 70, 0));
        for (i, l, g) in [("0", "101", "101"), ("20001", "foo", "-4"), ("-1", "-1", "x"), ("foo", "999", "")]
        {
            assert_eq!(read(i, l, g), (1, 95, 25));
        }
    }

    #[test]
    fn longest_sleeps() {
        let max = |v: &str| sleeps(&words(&[("pmd-maxsleep", v)])).0;
        for (text, us) in [("50", 50), ("10001", 10_000), ("foo", 0), ("-1", 10_000), ("0", 0)] {
            assert_eq!(max(text), us, "{text}");
        }
        let (all, cores) = sleeps(&words(&[("pmd-maxsleep", "7"), ("pmd-sleep-max", "50,3:100,4:0,x,5:y")]));
        assert_eq!((all, cores), (50, BTreeMap::from([(CoreId(3), 100), (CoreId(4), 0)])));
    }

    #[test]
    fn settings_and_their_defaults() {
        assert_eq!(dp_config(&Words::new()), DpConfig::default());
        let c = dp_config(&words(&[
            ("pmd-cpu-mask", "0"),
            ("pmd-rxq-assign", "group"),
            ("pmd-rxq-isolate", "false"),
        ]));
        assert_eq!((c.pmd_cores, c.rxq_assign, c.rxq_isolate), (Some([].into()), RxqAssign::Group, false));
        assert_eq!(
            dp_config(&words(&[("pmd-rxq-assign", "foo"), ("pmd-cpu-mask", "zz")])),
            DpConfig::default()
        );
        let p = port_config(&words(&[("tx-steering", "hash")]));
        assert_eq!(p, Some(PortConfig { steering: TxSteering::Hash, ..PortConfig::default() }));
        assert_eq!(port_config(&words(&[("tx-steering", "x")])), Some(PortConfig::default()));
    }
}

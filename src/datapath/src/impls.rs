//! Implementations to choose from: of the loop, of parsing and of subtable lookup.
//!
//! There is one of each: what a processor offers is found out when the program starts, and the fast forms are parts
//! of the one path. The commands of Open vSwitch that list and choose are there all the same, with its names, so
//! that scripts which set them go on working; `study` and `autovalidator` have nothing to choose from or to compare.
//! Neighbours: the control socket's commands call these. Threads: the caller's.

use crate::api::PmdId;
use crate::dp::Datapath;
use infra::info;
use infra::vlog::Module;
use std::collections::BTreeMap;
use std::fmt::Write as _;

static LOG: Module = Module::new("dpif_netdev");
static LOOKUP_LOG: Module = Module::new("dpif_netdev_lookup");

const PARSERS: [&str; 3] = ["autovalidator", "scalar", "study"];
const STUDY_PACKETS: u32 = 128;

type Reply = Result<String, String>;

/// What was chosen.
pub struct Implementations {
    parser: &'static str,
    /// Where a thread has another.
    parsers: BTreeMap<PmdId, &'static str>,
    priorities: [(&'static str, u8); 2],
}

impl Default for Implementations {
    fn default() -> Self {
        let priorities = [("autovalidator", 0), ("generic", 1)];
        Implementations { parser: "scalar", parsers: BTreeMap::new(), priorities }
    }
}

/// The PMDs of all datapaths.
fn pmds(dps: &[&Datapath]) -> Vec<PmdId> {
    let mut all: Vec<PmdId> = dps.iter().flat_map(|dp| dp.pmd_rxqs()).map(|p| p.pmd).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn list(pmds: &[PmdId]) -> String {
    if pmds.is_empty() {
        return "none".into();
    }
    pmds.iter().map(PmdId::to_string).collect::<Vec<_>>().join(",")
}

/// Logs an answer, as the original does.
fn logged(reply: Reply) -> Reply {
    match &reply {
        Ok(text) => info!(LOG, "{text}"),
        Err(text) => infra::vlog!(LOG, Err, "{text}"),
    }
    reply
}

impl Implementations {
    /// `dpif-netdev/dpif-impl-get`: a list for each datapath.
    pub fn dpifs(&self, dps: &[&Datapath]) -> String {
        let one = |dp| {
            let pmds = list(&pmds(std::slice::from_ref(dp)));
            format!("Available DPIF implementations:\n  dpif_scalar (pmds: {pmds})\n")
        };
        dps.iter().map(one).collect()
    }

    /// `dpif-netdev/dpif-impl-set dpif_implementation_name`.
    pub fn set_dpif(&self, name: &str) -> Reply {
        logged(match name {
            "dpif_scalar" => Ok("DPIF implementation set to dpif_scalar.".into()),
            _ => Err(format!("DPIF implementation not available: Unknown DPIF implementation {name}.")),
        })
    }

    /// `dpif-netdev/miniflow-parser-get`: a list for each datapath.
    pub fn parsers(&self, dps: &[&Datapath]) -> String {
        dps.iter().map(|dp| self.parsers_of(dp)).collect()
    }

    fn parsers_of(&self, dp: &Datapath) -> String {
        let (mut out, all) = (String::from("Available MFEX implementations:\n"), pmds(&[dp]));
        for name in PARSERS {
            let has = |p: &&PmdId| *self.parsers.get(p).unwrap_or(&self.parser) == name;
            let users: Vec<PmdId> = all.iter().filter(has).copied().collect();
            let _ = writeln!(out, "  {name} (available: True pmds: {})", list(&users));
        }
        out
    }

    /// `dpif-netdev/miniflow-parser-set [-pmd core] miniflow_implementation_name [study_pkt_cnt]`.
    pub fn set_parser(&mut self, dps: &[&Datapath], args: &[&str]) -> Reply {
        logged(self.choose_parser(&pmds(dps), args))
    }

    fn choose_parser(&mut self, pmds: &[PmdId], args: &[&str]) -> Reply {
        let (pmd, args) = match args {
            ["-pmd"] => return Err("Error: -pmd option requires a thread id argument.".into()),
            ["-pmd", id, rest @ ..] => {
                let refused = "Error: miniflow extract parser not changed, PMD thread";
                let number = id.parse::<u32>().map_err(|_| {
                    format!("{refused} passed is not valid: '{id}'. Pass a valid pmd thread ID.")
                })?;
                (Some((PmdId(number), refused)), rest)
            }
            _ => (None, args),
        };
        let (name, args) = args.split_first().ok_or(
            "Error: no miniflow extract name provided. Output of miniflow-parser-get shows implementation list.",
        )?;
        // As in the original, the words behind the name are looked at before it, and the last number counts.
        let mut study = (*name == "study").then_some(STUDY_PACKETS);
        for extra in args {
            if study.is_none() {
                return Err(format!("Error: unknown argument {extra}."));
            }
            study = extra.parse().ok().filter(|n| *n > 0);
            study.ok_or_else(|| format!("Error: invalid study_pkt_cnt value: {extra}."))?;
        }
        let known = PARSERS.iter().find(|p| p == &name);
        let known = known.ok_or_else(|| format!("Error: unknown miniflow extract implementation {name}."))?;
        let mut text = format!("Miniflow extract implementation set to {known}");
        if let Some((pmd, refused)) = pmd {
            if !pmds.contains(&pmd) {
                return Err(format!("{refused} {pmd} not in use, pass a valid pmd thread ID."));
            }
            self.parsers.insert(pmd, known);
            let _ = write!(text, ", on pmd thread {pmd}");
        } else {
            self.parser = known;
            self.parsers.clear();
        }
        if let Some(n) = study {
            let _ = write!(text, ", studying {n} packets");
        }
        Ok(text + ".")
    }

    /// `dpif-netdev/subtable-lookup-info-get`.
    pub fn lookups(&self, dps: &[&Datapath]) -> String {
        let subtables: u64 = dps.iter().map(|dp| dp.subtable_count()).sum();
        let mut out = String::from("Available dpcls implementations:\n");
        for (name, priority) in self.priorities {
            let used = if name == "generic" { subtables } else { 0 };
            let _ = writeln!(out, "  {name} (Use count: {used}, Priority: {priority})");
        }
        out
    }

    /// `dpif-netdev/subtable-lookup-prio-set [lookup_func] [prio]`.
    pub fn set_lookup(&mut self, name: &str, priority: &str) -> Reply {
        let n = u8::try_from(crate::show::leading(priority))
            .map_err(|_| "error converting priority, use integer in range 0-255")?;
        let known = self.priorities.iter_mut().find(|(p, _)| *p == name);
        let known = known.ok_or("error, subtable lookup function not found")?;
        known.1 = n;
        info!(LOOKUP_LOG, "Subtable function '{name}' set priority to {n}");
        logged(Ok("Lookup priority change affected 0 dpcls ports and 0 subtables.".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_are_chosen_by_name() {
        let mut i = Implementations::default();
        let pmds = [PmdId(0), PmdId(1)];
        let mut set = |words: &str| {
            i.choose_parser(&pmds, &words.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|e| e)
        };
        assert_eq!(set("scalar"), "Miniflow extract implementation set to scalar.");
        assert_eq!(set("study"), "Miniflow extract implementation set to study, studying 128 packets.");
        let want = "Miniflow extract implementation set to study, on pmd thread 1, studying 77 packets.";
        assert_eq!(set("-pmd 1 study 77"), want);
        assert_eq!(set("nosuch"), "Error: unknown miniflow extract implementation nosuch.");
        assert_eq!(set("scalar 5"), "Error: unknown argument 5.");
        assert_eq!(set("nosuch 5"), "Error: unknown argument 5.");
        assert!(set("study 5 6").ends_with(", studying 6 packets."));
        for bad in ["x", "0", "-1", "4294967296"] {
            assert_eq!(set(&format!("study {bad}")), format!("Error: invalid study_pkt_cnt value: {bad}."));
        }
        assert!(set("-pmd").ends_with("requires a thread id argument."));
        assert!(set("-pmd 0").starts_with("Error: no miniflow extract name provided."));
        assert!(set("-pmd x scalar").contains("PMD thread passed is not valid: 'x'."));
        assert!(set("-pmd 99 scalar").contains("PMD thread 99 not in use"));
    }

    #[test]
    fn priorities() {
        let mut i = Implementations::default();
        let done = "Lookup priority change affected 0 dpcls ports and 0 subtables.";
        assert_eq!(i.set_lookup("generic", "255").as_deref(), Ok(done));
        assert_eq!(i.set_lookup("autovalidator", "x").as_deref(), Ok(done));
        for bad in ["256", "-1"] {
            assert!(i.set_lookup("generic", bad).unwrap_err().ends_with("in range 0-255"));
        }
        assert!(i.set_lookup("avx9", "3").is_err());
        let want = "Available dpcls implementations:\n  autovalidator (Use count: 0, Priority: 0)\n  \
                    generic (Use count: 0, Priority: 255)\n";
        assert_eq!(i.lookups(&[]), want);
    }
}

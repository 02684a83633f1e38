//! `dpctl/*`: datapaths, their ports and their flows, as ovs-dpctl(8) describes them.
//!
//! Here are the table of commands and what is common to all: options, and the name of a datapath that may be left
//! out. Neighbours: `flows` changes flows, `dump` prints them, `ports` is about datapaths and ports, `text` about
//! actions as text; `show` has the lines of ports and flows. The daemon serves [`COMMANDS`]. Threads: main only.

mod dump;
mod flows;
mod ports;
mod text;

use crate::backer::Backer;
use crate::manager::Manager;
use infra::command::{Command, Reply, MANY};
use std::fmt::Write;
use std::sync::Arc;

/// All commands of this module, in the order in which `dpctl/list-commands` shows them.
pub const COMMANDS: [Command<Manager>; 21] = [
    Command::new("dpctl/add-dp", "dp [iface...]", 1, MANY, ports::add_dp),
    Command::new("dpctl/del-dp", "dp", 1, 1, ports::del_dp),
    Command::new("dpctl/add-if", "dp iface...", 2, MANY, ports::add_if),
    Command::new("dpctl/del-if", "dp iface...", 2, MANY, ports::del_if),
    Command::new("dpctl/set-if", "dp iface...", 2, MANY, ports::set_if),
    Command::new("dpctl/dump-dps", "", 0, 0, ports::dump_dps),
    Command::new("dpctl/show", "[-s] [dp...]", 0, MANY, ports::show),
    Command::new(
        "dpctl/dump-flows",
        "[-m] [--names] [dp] [filter=..] [type=..] [pmd=..]",
        0,
        6,
        dump::dump_flows,
    ),
    Command::new("dpctl/add-flow", "[dp] flow actions", 2, 3, flows::add_flow),
    Command::new("dpctl/mod-flow", "[dp] flow actions", 2, 3, flows::mod_flow),
    Command::new("dpctl/get-flow", "[dp] ufid", 1, 2, dump::get_flow),
    Command::new("dpctl/del-flow", "[dp] flow", 1, 2, flows::del_flow),
    Command::new("dpctl/add-flows", "[dp] file", 1, 2, flows::add_flows),
    Command::new("dpctl/mod-flows", "[dp] file", 1, 2, flows::mod_flows),
    Command::new("dpctl/del-flows", "[dp] [file]", 0, 2, flows::del_flows),
    Command::new("dpctl/offload-stats-show", "[dp]", 0, 1, ports::offload_stats),
    Command::new("dpctl/cache-get-size", "[dp]", 0, 1, ports::cache_sizes),
    Command::new("dpctl/cache-set-size", "dp cache <size>", 3, 3, ports::set_cache_size),
    Command::new("dpctl/list-commands", "", 0, MANY, list_commands),
    Command::new("dpctl/parse-actions", "actions", 1, MANY, text::parse),
    Command::new("dpctl/normalize-actions", "actions", 2, MANY, text::normalize),
];

const NO_DATAPATH: &str = "ovs-vswitchd: datapath not found (Invalid argument)";

/// What stood before the first word of a command. Every command takes all of them.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Options {
    any: bool,
    verbose: bool,
    statistics: bool,
    /// `--names` or `--no-names`; else names are printed with `-m`.
    names: Option<bool>,
    clear: bool,
    may_create: bool,
}

impl Options {
    fn names(&self) -> bool {
        self.names.unwrap_or(self.verbose)
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        self.any = true;
        match word {
            "--more" => self.verbose = true,
            "--statistics" => self.statistics = true,
            "--names" => self.names = Some(true),
            "--no-names" => self.names = Some(false),
            "--clear" => self.clear = true,
            "--may-create" => self.may_create = true,
            long if long.starts_with("--") => return Err(format!("Unrecognized option {long}")),
            short => {
                for c in short.chars().skip(1) {
                    match c {
                        'm' => self.verbose = true,
                        's' => self.statistics = true,
                        c => return Err(format!("Unrecognized option -{c}")),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Takes the options from the front; at least `min` words are none.
fn options<'a, 'b>(args: &'a [&'b str], min: usize) -> Result<(Options, &'a [&'b str]), String> {
    let mut o = Options::default();
    let mut rest = args;
    while let [word, more @ ..] = rest {
        if rest.len() <= min || !word.starts_with('-') || *word == "-" {
            break;
        }
        o.take(word)?;
        rest = more;
    }
    Ok((o, rest))
}

fn no_such_file(what: &str) -> String {
    format!("ovs-vswitchd: {what} (No such file or directory)")
}

/// The datapath, and the words behind its name, which is there when there are more than `n`.
fn words<'a, 'b>(
    m: &Manager,
    words: &'a [&'b str],
    n: usize,
) -> Result<(Arc<Backer>, &'a [&'b str]), String> {
    match words {
        [name, rest @ ..] if words.len() > n => Ok((choose(m, Some(name))?, rest)),
        _ => Ok((choose(m, None)?, words)),
    }
}

/// The datapath of that name and type, or the only one.
fn choose(m: &Manager, name: Option<&str>) -> Result<Arc<Backer>, String> {
    let all = &m.shared.backers;
    let found = match name {
        Some(name) => all.with_full_name(name),
        None => all.only(),
    };
    let why = match (name, all.len()) {
        (Some(_), _) => "",
        (None, 0) => "ovs-vswitchd: no datapaths exist\n",
        (None, _) => "ovs-vswitchd: multiple datapaths, specify one\n",
    };
    found.cloned().ok_or_else(|| format!("{why}{NO_DATAPATH}"))
}

fn list_commands(_: &mut Manager, args: &[&str]) -> Reply {
    options(args, 0)?;
    let mut out = String::from("The available commands are:\n");
    for c in &COMMANDS {
        let _ = writeln!(out, "  {:<29} {}", c.name, c.usage);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn options_come_first() {
        let (o, rest) = options(&["-ms", "--no-names", "a", "-m"], 0).unwrap();
        assert!(o.verbose && o.statistics && !o.names() && !o.clear);
        assert_eq!(rest, ["a", "-m"]);
        assert_eq!(options(&["-s"], 1).unwrap().1, ["-s"]);
        assert_eq!(options(&["-"], 0).unwrap().1, ["-"]);
        assert_eq!(options(&["-mx"], 0).unwrap_err(), "Unrecognized option -x");
        assert_eq!(options(&["--names=1"], 0).unwrap_err(), "Unrecognized option --names=1");
        assert_eq!(options(&["--"], 0).unwrap_err(), "Unrecognized option --");
        assert!(options(&["-m"], 0).unwrap().0.names());
    }
}

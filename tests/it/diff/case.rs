//! The case files: one case per `== name`, one step a line.
//!
//! ```text
//! == name of the case
//! of OpenFlow13             version for the ovs-ofctl commands that follow
//! + FLOW                    adds a flow to br0 (`+1 FLOW`: to br1); neighbouring lines go in one command
//! > PORT FRAME              injects a frame, records what comes out (`>3 PORT FRAME`: three, one after the other)
//! ofctl WORDS               runs and records; `| TEXT` lines before it are its standard input
//! delta WORDS               ovs-ofctl command run before and after the case: numbers are compared as differences
//! vsctl WORDS, appctl WORDS runs and records
//! undo WORDS                ovs-vsctl command for the end of the case
//! dp                        records the datapath's flows here, not only at the end
//! monitor WORDS             ovs-ofctl monitor br0 WORDS from here on; what it prints is recorded at the end
//! stats                     waits until the counters of the datapath have reached the tables
//! ```
//!
//! At the end of each case the flows of the datapath and of both bridges and the counters of all ports are
//! recorded. Neighbours: `side` runs the steps. Threads: none.

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Flows for a bridge, one a line.
    Flows(&'static str, String),
    /// Port, frame, how many times.
    Send(String, String, u32),
    /// ovs-ofctl words and standard input.
    Ofctl(String, String),
    /// ovs-vsctl words.
    Vsctl(String),
    /// ovs-appctl words.
    Appctl(String),
    /// Datapath flows now.
    Datapath,
    /// OpenFlow version for the following commands.
    Version(String),
    /// Starts ovs-ofctl monitor with these words.
    Monitor(String),
    /// Waits for a sweep of the revalidators.
    Stats,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique name.
    pub name: String,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// ovs-ofctl commands whose numbers are compared as differences.
    pub delta: Vec<String>,
    /// ovs-vsctl commands that undo the case.
    pub undo: Vec<String>,
}

impl Case {
    /// Whether installed flows may change because of what packets teach.
    pub fn learns(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Flows(_, flows) if flows.contains("NORMAL")))
    }
}

/// The cases of a file.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut stdin = String::new();
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            assert!(cases.iter().all(|c| c.name != name), "two cases named {name}");
            cases.push(Case { name: name.into(), steps: vec![], delta: vec![], undo: vec![] });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("a step before the first case: {line}"));
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = match word {
            "+" | "+1" => {
                let bridge = if word == "+" { "br0" } else { "br1" };
                if let Some(Step::Flows(b, flows)) = case.steps.last_mut() {
                    if *b == bridge {
                        flows.push_str(rest);
                        flows.push('\n');
                        continue;
                    }
                }
                Step::Flows(bridge, format!("{rest}\n"))
            }
            "|" => {
                stdin.push_str(rest);
                stdin.push('\n');
                continue;
            }
            "delta" => {
                case.delta.push(rest.into());
                continue;
            }
            "undo" => {
                case.undo.push(rest.into());
                continue;
            }
            "ofctl" => Step::Ofctl(rest.into(), std::mem::take(&mut stdin)),
            "vsctl" => Step::Vsctl(rest.into()),
            "appctl" => Step::Appctl(rest.into()),
            "dp" => Step::Datapath,
            "of" => Step::Version(rest.into()),
            "monitor" => Step::Monitor(rest.into()),
            "stats" => Step::Stats,
            _ => match word.strip_prefix('>') {
                Some(times) => {
                    let (port, frame) =
                        rest.split_once(' ').unwrap_or_else(|| panic!("what to send: {line}"));
                    let times = if times.is_empty() { 1 } else { times.parse().expect("how many times") };
                    Step::Send(port.into(), frame.into(), times)
                }
                None => panic!("unknown step: {line}"),
            },
        };
        case.steps.push(step);
    }
    cases
}

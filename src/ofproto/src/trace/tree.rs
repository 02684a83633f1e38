//! What a traced translation said, as a tree, and its text.
//!
//! The last table or bridge of a list goes on at the column of that list, so that a chain of tables does not move to
//! the right. Neighbours: `xlate` fills it, the parent module prints it. Threads: plain data.

use crate::xlate::{Hit, Remark, TraceSink};
use flow::matching::OfPortNames;
use flow::OfPort;
use openflow::{format_actions_named, Action};
use std::fmt::{Arguments, Write};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bridge,
    /// A table or an action set.
    Table,
    Line,
}

struct Node {
    kind: Kind,
    text: String,
    children: Vec<usize>,
}

/// Names of ports, by bridge.
pub(super) type Names<'a> = &'a dyn Fn(&str, OfPort) -> Option<String>;

/// The tree under construction.
pub(super) struct Tree<'a> {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    /// Nodes that were entered and not left.
    open: Vec<usize>,
    /// Bridges that were entered and not left.
    bridges: Vec<(usize, String)>,
    names: Option<Names<'a>>,
}

impl<'a> Tree<'a> {
    /// An empty tree; ports are printed with `names`.
    pub(super) fn new(names: Option<Names<'a>>) -> Tree<'a> {
        Tree { nodes: Vec::new(), roots: Vec::new(), open: Vec::new(), bridges: Vec::new(), names }
    }

    /// Runs `f` with the names of the ports of the bridge that translation is in.
    fn named(&self, f: impl FnOnce(Option<OfPortNames<'_>>) -> String) -> String {
        match (self.names, self.bridges.last()) {
            (Some(names), Some((_, bridge))) => f(Some(&|p| names(bridge, p))),
            _ => f(None),
        }
    }

    fn add(&mut self, kind: Kind, text: String) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node { kind, text, children: Vec::new() });
        let parent = self.open.last().and_then(|p| self.nodes.get_mut(*p));
        match parent {
            Some(p) => p.children.push(at),
            None => self.roots.push(at),
        }
        at
    }

    fn enter(&mut self, kind: Kind, text: String) {
        let at = self.add(kind, text);
        self.open.push(at);
    }

    fn line(&mut self, text: String) {
        self.add(Kind::Line, text);
    }

    /// The text of the tree.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        // Lists that are being printed: their nodes, the next one, their level.
        let mut lists = vec![(&self.roots, 0, 0)];
        while let Some((list, next, level)) = lists.last_mut() {
            let Some(node) = list.get(*next).and_then(|i| self.nodes.get(*i)) else {
                lists.pop();
                continue;
            };
            *next += 1;
            let more = usize::from(*next < list.len() || node.kind == Kind::Line);
            let level = *level;
            if node.kind == Kind::Bridge {
                out.push('\n');
            }
            let column = (level + more) * 4;
            let _ = writeln!(out, "{:column$}{}", "", node.text);
            if node.kind == Kind::Bridge {
                let _ = writeln!(out, "{:column$}{}", "", "-".repeat(node.text.len()));
            }
            lists.push((&node.children, 0, level + 2 * more));
        }
        out
    }
}

impl TraceSink for Tree<'_> {
    fn bridge(&mut self, name: &str) {
        self.enter(Kind::Bridge, format!("bridge(\"{name}\")"));
        self.bridges.push((self.open.len(), name.into()));
    }

    fn rule(&mut self, table: u8, hit: Hit<'_>, first: bool) {
        let (text, actions) = match hit {
            Hit::Rule(r) => {
                let m = self.named(|names| r.matching.expand().format(names));
                let sep = if m.is_empty() { "" } else { ", " };
                let mut text = format!("{m}{sep}priority {}", r.priority);
                if r.cookie != 0 {
                    let _ = write!(text, ", cookie {:#x}", r.cookie);
                }
                (text, if r.actions.is_empty() { "drop" } else { "" })
            }
            // In another bridge these are the rules by which table misses are handled.
            Hit::Miss { packet_in: false } if first => ("No match.".into(), "drop"),
            Hit::Miss { packet_in: false } => ("reg0=0x2, priority 0".into(), "drop"),
            Hit::Miss { packet_in: true } if first => {
                ("No match, and a \"packet-in\" is called for.".into(), "controller(reason=)")
            }
            Hit::Miss { packet_in: true } => ("reg0=0x1, priority 0".into(), "controller(reason=)"),
            Hit::Fragment if first => {
                ("Packets are IP fragments and the fragment handling mode is \"drop\".".into(), "drop")
            }
            Hit::Fragment => ("reg0=0x3, priority 0".into(), "drop"),
        };
        self.enter(Kind::Table, format!("{table:2}. {text}"));
        if !actions.is_empty() {
            self.line(actions.into());
        }
    }

    fn action_set(&mut self) {
        // It stands among what the first table of its bridge did.
        let bridge = self.open.last().and_then(|b| self.nodes.get(*b));
        let table =
            bridge.and_then(|b| b.children.iter().rfind(|c| self.nodes[**c].kind == Kind::Table).copied());
        let at = match table {
            Some(table) => {
                self.open.push(table);
                let at = self.add(Kind::Table, "--. Executing action set:".into());
                self.open.pop();
                at
            }
            None => self.add(Kind::Table, "--. Executing action set:".into()),
        };
        self.open.push(at);
    }

    fn leave(&mut self) {
        if self.bridges.last().is_some_and(|(depth, _)| *depth == self.open.len()) {
            self.bridges.pop();
        }
        self.open.pop();
    }

    fn action(&mut self, action: &Action) {
        let text = self.named(|names| format_actions_named(std::slice::from_ref(action), names));
        self.line(text);
    }

    fn note(&mut self, kind: Remark<'_>, text: Arguments<'_>) {
        self.line(match kind {
            Remark::Detail => format!(" -> {text}"),
            Remark::ActionSet(verb, list) => {
                let list = self.named(|names| format_actions_named(list, names));
                format!(" -> action set {verb}: {list}")
            }
            Remark::Warn => format!(" >> {text}"),
            Remark::Error => format!(" >>>> {text} <<<<"),
        });
    }
}

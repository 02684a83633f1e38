//! Lookups, resubmit, goto_table, table misses.
//!
//! Neighbours: `actions` calls it. Threads: part of a translation.

use super::cache::Credit;
use super::{Ctx, Hit, XlateError, MAX_DEPTH, MAX_DP_ACTIONS, MAX_RESUBMITS};
use crate::snapshot::{Fragments, PortConfig};
use crate::tables::Miss;
use flow::key::FRAG_MASK;
use flow::{Be16, Flow, OfPort};

/// Packet-in reasons: those of OpenFlow 1.4 §7.4.1, and 6 and 7, which each version turns into one of its own.
pub mod reason {
    /// By an output action.
    pub const ACTION: u8 = 1;
    /// TTL ran out.
    pub const INVALID_TTL: u8 = 2;
    /// By the action set.
    pub const ACTION_SET: u8 = 3;
    /// By a packet-out.
    pub const PACKET_OUT: u8 = 5;
    /// By a table-miss rule.
    pub const EXPLICIT_MISS: u8 = 6;
    /// Because no rule matched.
    pub const IMPLICIT_MISS: u8 = 7;
}

impl Ctx<'_, '_> {
    /// Looks up the flow in `table` and runs what is found; `miss`: the table's miss behaviour applies.
    pub(super) fn lookup_and_run(&mut self, table: u8, miss: bool) {
        let found = self.lookup(table);
        self.trace_rule(table, found.as_deref(), miss);
        match found {
            Some(rule) => {
                self.out.cache.credits.push(Credit::Rule(rule.clone()));
                let old_table = std::mem::replace(&mut self.table_id, table);
                let old_rule = self.rule.replace(rule.clone());
                self.do_actions(&rule.actions, false);
                self.rule = old_rule;
                self.table_id = old_table;
            }
            None => self.no_rule(table, miss),
        }
        self.trace_leave();
    }

    /// No rule matched: counted, and handled as a miss when that applies.
    fn no_rule(&mut self, table: u8, miss: bool) {
        let kind = match () {
            () if self.drops_fragment() => Miss::Fragment,
            () if miss && self.wants_miss() => Miss::PacketIn,
            () => Miss::Drop,
        };
        if let Some(rule) = self.tables.miss_rule(kind) {
            self.out.cache.credits.push(Credit::Rule(rule.clone()));
        }
        if miss {
            self.table_miss(table);
        }
    }

    pub(super) fn trace_rule(&mut self, table: u8, found: Option<&crate::rule::Rule>, miss: bool) {
        if self.trace.is_none() {
            return;
        }
        let packet_in = miss && self.wants_miss();
        let hit = match found {
            Some(rule) => Hit::Rule(rule),
            None if self.drops_fragment() => Hit::Fragment,
            None => Hit::Miss { packet_in },
        };
        let first = self.bridge.id == self.input.bridge.id;
        if let Some(t) = self.trace.as_deref_mut() {
            t.rule(table, hit, first);
        }
    }

    fn drops_fragment(&self) -> bool {
        let ip = super::commit::is_ip_any(&self.flow);
        self.bridge.frags == Fragments::Drop && ip && self.flow.nw_frag & FRAG_MASK != 0
    }

    /// Whether a packet without a rule goes to controllers.
    fn wants_miss(&self) -> bool {
        !self.drops_fragment()
            && self.bridge.packet_in_on_miss
            && self.bridge.port(self.in_port()).is_some_and(|p| !p.config.has(PortConfig::NO_PACKET_IN))
    }

    pub(super) fn lookup(&mut self, table: u8) -> Option<std::sync::Arc<crate::rule::Rule>> {
        let ip = super::commit::is_ip_any(&self.flow);
        let frag = if ip { self.flow.nw_frag & FRAG_MASK } else { 0 };
        if frag != 0 && self.bridge.frags == Fragments::Drop {
            return None;
        }
        let tables = &self.tables;
        let t = tables.table(table);
        let mask = &mut self.out.mask;
        let rule = if frag != 0 && self.bridge.frags == Fragments::Normal {
            // Fragments look as if they had no ports, the first one too.
            let without = Flow { tp_src: Be16::ZERO, tp_dst: Be16::ZERO, ..self.flow };
            t.classifier.lookup(&without, mask).cloned()
        } else {
            t.classifier.lookup(&self.flow, mask).cloned()
        };
        let credit = Credit::Table { stats: t.stats.clone(), hit: rule.is_some() };
        self.out.cache.credits.push(credit);
        rule
    }

    /// No rule matched: a packet-in when a connection wants one and the port allows it, else a drop.
    fn table_miss(&mut self, table: u8) {
        if self.wants_miss() {
            let old_table = std::mem::replace(&mut self.table_id, table);
            let old_rule = self.rule.take();
            self.send_to_controller(reason::IMPLICIT_MISS, u16::MAX, 0, &[]);
            self.rule = old_rule;
            self.table_id = old_table;
        }
    }

    /// `resubmit`, `goto_table` and output to TABLE: looks up as if the packet came from `in_port`.
    pub(super) fn table_action(&mut self, in_port: OfPort, table: u8, miss: bool) {
        if !self.resubmit_allowed() {
            return;
        }
        let old_in_port = self.flow.in_port;
        let deeper = table <= self.table_id;
        self.flow.in_port = in_port.0.into();
        let found = self.lookup(table);
        // NORMAL and IN_PORT know the real port.
        self.flow.in_port = old_in_port;
        self.resubmits += 1;
        self.trace_rule(table, found.as_deref(), miss);
        let Some(rule) = found else {
            self.no_rule(table, miss);
            return self.trace_leave();
        };
        self.out.cache.credits.push(Credit::Rule(rule.clone()));
        let old_table = std::mem::replace(&mut self.table_id, table);
        let old_rule = self.rule.replace(rule.clone());
        self.depth += u32::from(deeper);
        self.do_actions(&rule.actions, false);
        self.trace_leave();
        self.depth -= u32::from(deeper);
        self.rule = old_rule;
        self.table_id = old_table;
    }

    /// Whether the limits allow going on.
    pub(super) fn resubmit_allowed(&mut self) -> bool {
        if self.depth >= MAX_DEPTH {
            self.complain(format_args!("over max translation depth {MAX_DEPTH}"));
            self.fail(XlateError::RecursionTooDeep);
        } else if self.resubmits >= MAX_RESUBMITS {
            self.complain(format_args!("over {MAX_RESUBMITS} resubmit actions"));
            self.fail(XlateError::TooManyResubmits);
        } else if self.out.actions.len() > MAX_DP_ACTIONS {
            self.complain(format_args!("resubmits yielded over 64 kB of actions"));
            self.fail(XlateError::TooManyActions);
        } else {
            return true;
        }
        false
    }
}

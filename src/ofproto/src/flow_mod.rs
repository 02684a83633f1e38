//! Flow-mods: adding, modifying and deleting rules of a working version of the tables, and their expiry.
//!
//! Reference: OpenFlow 1.3 §6.4 and §7.3.4.1, ovs-ofctl(8). Neighbours: `ofproto` owns a [`FlowTable`] a bridge and
//! publishes its [`Tables`]; `conn` hands the requests in. Threads: main only.

use crate::rule::{CompactMatch, Rule, RuleFlags, RuleStats};
use crate::tables::{Miss, Tables};
use openflow::{
    Action, FlowFlags, FlowMod, FlowModCommand, FlowRemovedReason, OfError, Version, GROUP_ANY, NO_BUFFER,
    TABLE_ALL,
};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;

static LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto");
static LIMIT: infra::vlog::RateLimit = infra::vlog::RateLimit::new(60, 5);

/// Tables that users may change: 0 to 253.
pub const USER_TABLES: u8 = 254;

/// Which rules a request is about.
pub struct Criteria<'a> {
    /// [`TABLE_ALL`] for every table.
    pub table_id: u8,
    /// Only rules within this match.
    pub matching: CompactMatch,
    /// Exactly this match and priority.
    pub strict_priority: Option<i32>,
    /// Only rules whose cookie agrees here ...
    pub cookie: u64,
    /// ... in these bits.
    pub cookie_mask: u64,
    /// Only rules that output to this port; `NONE` for any.
    pub out_port: flow::OfPort,
    /// Only rules that output to this group; [`GROUP_ANY`] for any.
    pub out_group: u32,
    /// Where to look.
    pub tables: &'a Tables,
}

impl Criteria<'_> {
    fn accepts(&self, rule: &Rule) -> bool {
        !rule.is_hidden()
            && (rule.cookie ^ self.cookie) & self.cookie_mask == 0
            && (self.out_port == flow::OfPort::NONE || outputs_to(&rule.actions, self.out_port))
            && (self.out_group == GROUP_ANY || uses_group(&rule.actions, self.out_group))
    }

    /// The rules it is about.
    pub fn collect(&self) -> Vec<Arc<Rule>> {
        let ids = if self.table_id == TABLE_ALL {
            0..USER_TABLES
        } else {
            self.table_id..self.table_id.saturating_add(1)
        };
        let mut found = Vec::new();
        for id in ids {
            let classifier = &self.tables.table(id).classifier;
            if classifier.is_empty() {
                continue;
            }
            match self.strict_priority {
                Some(p) => {
                    found.extend(classifier.find(&self.matching, p).filter(|r| self.accepts(r)).cloned())
                }
                None => {
                    found.extend(classifier.iter_within(&self.matching).filter(|r| self.accepts(r)).cloned());
                }
            }
        }
        found
    }
}

/// Whether the actions output to `port`, anywhere in them.
pub fn outputs_to(actions: &[Action], port: flow::OfPort) -> bool {
    actions.iter().any(|a| match a {
        Action::Output { port: p, .. }
        | Action::OutputTrunc { port: p, .. }
        | Action::Enqueue { port: p, .. } => *p == port,
        Action::Controller { .. } => port == flow::OfPort::CONTROLLER,
        Action::WriteActions(inner) => outputs_to(inner, port),
        _ => false,
    })
}

fn uses_group(actions: &[Action], group: u32) -> bool {
    actions.iter().any(|a| match a {
        Action::Group(g) => *g == group,
        Action::WriteActions(inner) => uses_group(inner, group),
        _ => false,
    })
}

/// A rule that left the tables.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Why.
    pub reason: FlowRemovedReason,
}

/// Counts of flow-mods that were carried out, for the connection manager's log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModCounts {
    /// Additions.
    pub adds: u64,
    /// Modifications.
    pub modifications: u64,
    /// Deletions.
    pub deletes: u64,
}

/// The working version of a bridge's tables.
#[derive(Default)]
pub struct FlowTable {
    tables: Tables,
    changed: bool,
    n_rules: usize,
    /// Rules with a timeout, by address of their counters (the same for all versions of a rule).
    expirable: HashMap<usize, Arc<Rule>>,
    /// Rules that left and whose removal has to be told.
    removed: Vec<Removed>,
    counts: ModCounts,
}

/// Reason of packet-ins of table misses, before each version makes one of its own of it.
const IMPLICIT_MISS: u8 = 7;

fn identity(rule: &Rule) -> usize {
    Arc::as_ptr(&rule.stats) as usize
}

impl FlowTable {
    /// The working version.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Number of rules that users see.
    pub fn len(&self) -> usize {
        self.n_rules
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.n_rules == 0
    }

    /// The working version, if it changed since the last call.
    pub fn take_changed(&mut self) -> Option<Tables> {
        std::mem::take(&mut self.changed).then(|| self.tables.clone())
    }

    /// Whether the working version differs from the published one.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Rules that left since the last call and asked for it to be told.
    pub fn take_removed(&mut self) -> Vec<Removed> {
        std::mem::take(&mut self.removed)
    }

    /// What was done since the last call.
    pub fn take_counts(&mut self) -> ModCounts {
        std::mem::take(&mut self.counts)
    }

    /// Carries out `fm`, decoded from a message of `version`.
    ///
    /// # Errors
    /// The OpenFlow error to answer with; nothing is changed then.
    pub fn apply(&mut self, fm: &FlowMod, version: Version, now_ms: u64) -> Result<(), OfError> {
        check_table(fm)?;
        let deletes = matches!(fm.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        if !deletes {
            check_references(&fm.actions)?;
            check_hidden_fields(fm)?;
        }
        if fm.buffer_id != NO_BUFFER && !deletes {
            return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
        }
        match fm.command {
            FlowModCommand::Add => {
                self.add(fm, now_ms)?;
                self.counts.adds += 1;
            }
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => {
                self.modify(fm, fm.command == FlowModCommand::ModifyStrict, version, now_ms)?;
                self.counts.modifications += 1;
            }
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => {
                self.delete(fm, fm.command == FlowModCommand::DeleteStrict);
                self.counts.deletes += 1;
            }
        }
        Ok(())
    }

    fn criteria<'a>(&'a self, fm: &FlowMod, strict: bool) -> Criteria<'a> {
        let deletes = matches!(fm.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        Criteria {
            table_id: fm.table_id,
            matching: CompactMatch::new(&fm.match_),
            strict_priority: strict.then_some(i32::from(fm.priority)),
            cookie: fm.cookie,
            cookie_mask: fm.cookie_mask,
            out_port: if deletes { fm.out_port } else { flow::OfPort::NONE },
            out_group: if deletes { fm.out_group } else { GROUP_ANY },
            tables: &self.tables,
        }
    }

    fn add(&mut self, fm: &FlowMod, now_ms: u64) -> Result<(), OfError> {
        let table_id = if fm.table_id == TABLE_ALL { 0 } else { fm.table_id };
        let mut matching = CompactMatch::new(&fm.match_);
        let classifier = &self.tables.table(table_id).classifier;
        matching.mask = classifier.shared_mask(matching.mask);
        let old = classifier.find(&matching, i32::from(fm.priority)).cloned();
        if fm.flags.has(FlowFlags::CHECK_OVERLAP)
            && old.is_none()
            && classifier.overlaps(&matching, i32::from(fm.priority))
        {
            return Err(OfError::OFPFMFC_OVERLAP);
        }
        let stats = match &old {
            Some(o) if !fm.flags.has(FlowFlags::RESET_COUNTS) => o.stats.clone(),
            Some(o) => {
                let s = RuleStats::default();
                s.used_ms.store(o.stats.used_ms.load(Ordering::Relaxed), Ordering::Relaxed);
                Arc::new(s)
            }
            None => {
                let s = RuleStats::default();
                s.used_ms.store(now_ms, Ordering::Relaxed);
                Arc::new(s)
            }
        };
        if let Some(o) = &old {
            self.expirable.remove(&identity(o));
        }
        self.put(Rule {
            table_id,
            priority: i32::from(fm.priority),
            cookie: fm.new_cookie,
            matching,
            actions: fm.actions.as_ref().into(),
            flags: RuleFlags(fm.flags.0 & !RuleFlags::HIDDEN),
            idle_timeout: fm.idle_timeout,
            hard_timeout: fm.hard_timeout,
            importance: fm.importance,
            created_ms: now_ms,
            modified_ms: now_ms,
            stats,
        });
        Ok(())
    }

    /// Puts `rule` into its table, in place of the one with its match and priority.
    fn put(&mut self, rule: Rule) {
        let rule = Arc::new(rule);
        if rule.idle_timeout != 0 || rule.hard_timeout != 0 {
            self.expirable.insert(identity(&rule), rule.clone());
        }
        let hidden = rule.is_hidden();
        if self.tables.table_mut(rule.table_id).classifier.insert(rule).is_none() && !hidden {
            self.n_rules += 1;
        }
        self.changed = true;
    }

    /// Adds a rule of the switch's own, which users may see and change unless it is hidden.
    pub fn add_internal(&mut self, rule: Rule) {
        self.put(rule);
    }

    /// Adds the rules of the internal table, which `bridge/dump-flows` shows: they count packets without a rule.
    pub fn add_miss_rules(&mut self, now_ms: u64) {
        let rule = |reg0: u32, priority: i32, actions: Vec<Action>| {
            let mut m = flow::Match::any();
            match reg0 {
                0 => m.set(flow::Field::RecircId, 0),
                n => m.set(flow::Field::Reg(0), n.into()),
            }
            Rule {
                table_id: USER_TABLES,
                priority,
                cookie: 0,
                matching: CompactMatch::new(&m),
                actions: actions.into(),
                flags: RuleFlags(RuleFlags::HIDDEN),
                idle_timeout: 0,
                hard_timeout: 0,
                importance: 0,
                created_ms: now_ms,
                modified_ms: now_ms,
                stats: Arc::default(),
            }
        };
        let packet_in = Action::Controller {
            max_len: u16::MAX,
            controller_id: 0,
            reason: IMPLICIT_MISS,
            pause: false,
            userdata: Box::default(),
            meter_id: None,
        };
        let rules =
            [rule(1, 0, vec![packet_in]), rule(2, 0, Vec::new()), rule(3, 0, Vec::new())].map(Arc::new);
        self.put(rule(0, 2, Vec::new()));
        for r in &rules {
            self.tables.table_mut(USER_TABLES).classifier.insert(r.clone());
        }
        self.tables.set_miss_rules(rules);
    }

    /// Whether [`FlowTable::add_miss_rules`] was done.
    pub fn has_miss_rules(&self) -> bool {
        self.tables.miss_rule(Miss::Drop).is_some()
    }

    fn modify(&mut self, fm: &FlowMod, strict: bool, version: Version, now_ms: u64) -> Result<(), OfError> {
        let found = self.criteria(fm, strict).collect();
        if found.is_empty() {
            // OpenFlow 1.0 and 1.1: modify adds, unless a cookie was asked for.
            return if version <= Version::V11 && fm.cookie_mask == 0 {
                self.add(fm, now_ms)
            } else {
                Ok(())
            };
        }
        let actions: Arc<[Action]> = fm.actions.as_ref().into();
        for old in found {
            let stats = if fm.flags.has(FlowFlags::RESET_COUNTS) {
                let s = RuleStats::default();
                s.used_ms.store(old.stats.used_ms.load(Ordering::Relaxed), Ordering::Relaxed);
                Arc::new(s)
            } else {
                old.stats.clone()
            };
            self.expirable.remove(&identity(&old));
            self.put(Rule {
                table_id: old.table_id,
                priority: old.priority,
                cookie: if fm.modify_cookie { fm.new_cookie } else { old.cookie },
                matching: old.matching.clone(),
                actions: actions.clone(),
                flags: old.flags,
                idle_timeout: old.idle_timeout,
                hard_timeout: old.hard_timeout,
                importance: old.importance,
                created_ms: old.created_ms,
                modified_ms: now_ms,
                stats,
            });
        }
        Ok(())
    }

    fn delete(&mut self, fm: &FlowMod, strict: bool) {
        for rule in self.criteria(fm, strict).collect() {
            self.remove(&rule, FlowRemovedReason::Delete);
        }
    }

    /// Takes `rule` out.
    pub fn remove(&mut self, rule: &Arc<Rule>, reason: FlowRemovedReason) {
        let Some(rule) = self.tables.table_mut(rule.table_id).classifier.remove(rule) else { return };
        self.changed = true;
        if !rule.is_hidden() {
            self.n_rules -= 1;
        }
        self.expirable.remove(&identity(&rule));
        if rule.flags.has(RuleFlags::SEND_FLOW_REM) && !rule.is_hidden() {
            self.removed.push(Removed { rule, reason });
        }
    }

    /// Removes the hidden rules of this priority from the first table.
    pub fn remove_internal(&mut self, priority: i32) {
        let of_it = |r: &&Arc<Rule>| r.is_hidden() && r.table_id == 0 && r.priority == priority;
        let found: Vec<_> = self.tables.iter().filter(of_it).cloned().collect();
        for r in found {
            self.remove(&r, FlowRemovedReason::Delete);
        }
    }

    /// Removes every rule that users see.
    pub fn flush(&mut self, reason: FlowRemovedReason) {
        let all: Vec<_> = self.tables.iter().filter(|r| !r.is_hidden()).cloned().collect();
        for r in all {
            self.remove(&r, reason);
        }
    }

    /// Removes rules whose time is over.
    pub fn expire(&mut self, now_ms: u64) {
        let over: Vec<_> = self
            .expirable
            .values()
            .filter_map(|r| {
                let idle_since = r.stats.used_ms.load(Ordering::Relaxed).max(r.created_ms);
                let passed = |since: u64, limit: u16| limit != 0 && now_ms > since + u64::from(limit) * 1000;
                if passed(r.modified_ms, r.hard_timeout) {
                    Some((r.clone(), FlowRemovedReason::HardTimeout))
                } else if passed(idle_since, r.idle_timeout) {
                    Some((r.clone(), FlowRemovedReason::IdleTimeout))
                } else {
                    None
                }
            })
            .collect();
        for (rule, reason) in over {
            self.remove(&rule, reason);
        }
    }

    /// Whether any rule can expire.
    pub fn has_expirable(&self) -> bool {
        !self.expirable.is_empty()
    }
}

fn check_table(fm: &FlowMod) -> Result<(), OfError> {
    match fm.table_id {
        USER_TABLES => Err(OfError::OFPBRC_EPERM),
        _ => Ok(()),
    }
}

/// The datapath's own fields are not for rules of users.
fn check_hidden_fields(fm: &FlowMod) -> Result<(), OfError> {
    let (f, m) = (&fm.match_.flow, &fm.match_.mask.0);
    if m.dp_hash != 0 || f.recirc_id & m.recirc_id != 0 {
        infra::vlog_rl!(LOG, LIMIT, Warn, "only internal flows can set non-default values to hidden fields");
        return Err(OfError::OFPBRC_EPERM);
    }
    Ok(())
}

/// Actions may name groups and meters that exist only, and there are none.
pub(crate) fn check_references(actions: &[Action]) -> Result<(), OfError> {
    actions.iter().try_for_each(|a| match a {
        Action::Group(_) => Err(OfError::OFPBAC_BAD_OUT_GROUP),
        Action::Meter(_) | Action::Controller { meter_id: Some(_), .. } => {
            Err(OfError::OFPMMFC_INVALID_METER)
        }
        Action::WriteActions(inner) => check_references(inner),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Match;

    fn add(actions: Vec<Action>, match_: Match) -> FlowMod {
        FlowMod {
            command: FlowModCommand::Add,
            table_id: 0,
            match_,
            priority: 0,
            cookie: 0,
            cookie_mask: 0,
            new_cookie: 0,
            modify_cookie: false,
            idle_timeout: 0,
            hard_timeout: 0,
            flags: FlowFlags::default(),
            buffer_id: NO_BUFFER,
            out_port: flow::OfPort::NONE,
            out_group: GROUP_ANY,
            importance: 0,
            actions: actions.into(),
        }
    }

    #[test]
    fn groups_and_meters_that_do_not_exist_are_refused() {
        let mut t = FlowTable::default();
        let mut apply = |actions, m| t.apply(&add(actions, m), Version::V13, 0);
        let inner: Box<[Action]> = Box::new([Action::Group(5)]);
        for a in [Action::Group(5), Action::WriteActions(inner)] {
            assert_eq!(apply(vec![a], Match::any()), Err(OfError::OFPBAC_BAD_OUT_GROUP));
        }
        assert_eq!(apply(vec![Action::Meter(5)], Match::any()), Err(OfError::OFPMMFC_INVALID_METER));
        let mut m = Match::any();
        (m.flow.recirc_id, m.mask.0.recirc_id) = (5, u32::MAX);
        assert_eq!(apply(vec![], m), Err(OfError::OFPBRC_EPERM));
        m.flow.recirc_id = 0;
        assert_eq!(apply(vec![], m), Ok(()));
        m.mask.0.dp_hash = 1;
        assert_eq!(apply(vec![], m), Err(OfError::OFPBRC_EPERM));
    }
}

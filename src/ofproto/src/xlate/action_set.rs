//! The action set (OpenFlow 1.3 §5.10): what write_actions collected runs at the end of the pipeline, in a fixed
//! order, at most one of each kind.
//!
//! Neighbours: `actions` collects and runs. Threads: part of a translation.

use super::{Ctx, Remark};
use flow::OfPort;
use openflow::Action;

/// Place of an action in the order; actions of equal place replace each other, but for set-field and its kin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    PopVlan,
    PopMpls,
    PushMpls,
    PushVlan,
    DecTtl,
    DecMplsTtl,
    /// All of them run, in the order in which they were written.
    Set,
    SetQueue,
    Group,
    Output,
    Resubmit,
    /// Not allowed in an action set.
    None,
}

fn slot(action: &Action) -> Slot {
    match action {
        Action::StripVlan | Action::PopVlan => Slot::PopVlan,
        Action::PopMpls(_) => Slot::PopMpls,
        Action::PushMpls(_) => Slot::PushMpls,
        Action::PushVlan(_) => Slot::PushVlan,
        Action::DecTtl(_) => Slot::DecTtl,
        Action::DecMplsTtl => Slot::DecMplsTtl,
        Action::SetQueue(_) => Slot::SetQueue,
        Action::Group(_) => Slot::Group,
        Action::Output { .. }
        | Action::OutputReg { .. }
        | Action::OutputTrunc { .. }
        | Action::Controller { .. }
        | Action::Enqueue { .. } => Slot::Output,
        Action::Resubmit { .. } => Slot::Resubmit,
        Action::SetField { .. }
        | Action::Load { .. }
        | Action::Move { .. }
        | Action::SetEthSrc(_)
        | Action::SetEthDst(_)
        | Action::SetIpv4Src(_)
        | Action::SetIpv4Dst(_)
        | Action::SetIpDscp(_)
        | Action::SetIpEcn(_)
        | Action::SetIpTtl(_)
        | Action::SetL4SrcPort(_)
        | Action::SetL4DstPort(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::SetVlanVid { .. }
        | Action::SetVlanPcp { .. }
        | Action::SetTunnel(_) => Slot::Set,
        _ => Slot::None,
    }
}

/// What of `set` runs, in order. Empty when nothing sends the packet anywhere.
fn in_order(set: &[Action]) -> Vec<Action> {
    let last = |s: Slot| set.iter().rev().find(|a| slot(a) == s);
    // A group wins over an output, an output over a resubmit.
    let Some(end) = [Slot::Group, Slot::Output, Slot::Resubmit].into_iter().find_map(last) else {
        return Vec::new();
    };
    let mut out: Vec<Action> = Vec::with_capacity(set.len());
    let first =
        [Slot::PopVlan, Slot::PopMpls, Slot::PushMpls, Slot::PushVlan, Slot::DecTtl, Slot::DecMplsTtl];
    out.extend(first.into_iter().filter_map(last).cloned());
    out.extend(set.iter().filter(|a| slot(a) == Slot::Set).cloned());
    out.extend(last(Slot::SetQueue).cloned());
    out.push(end.clone());
    out
}

/// Where the set will send the packet, as far as `actset_output` tells: not with a group in it.
fn output_of(set: &[Action]) -> OfPort {
    let mut port = OfPort::UNSET;
    for action in set {
        match action {
            Action::Group(_) => return OfPort::UNSET,
            Action::Output { port: p, .. } => port = *p,
            _ => {}
        }
    }
    port
}

impl Ctx<'_, '_> {
    /// Adds to the action set; what it outputs to can be matched.
    pub(super) fn write_actions(&mut self, set: &[Action]) {
        self.action_set.extend_from_slice(set);
        self.flow.actset_output = output_of(&self.action_set).0.into();
        self.trace_set("is");
    }

    /// Empties the action set.
    pub(super) fn clear_actions(&mut self) {
        self.trace_set("was");
        self.action_set.clear();
        self.flow.actset_output = OfPort::UNSET.0.into();
    }

    fn trace_set(&mut self, verb: &str) {
        if let Some(t) = self.trace.as_deref_mut() {
            let list = in_order(&self.action_set);
            if list.is_empty() {
                t.note(Remark::Detail, format_args!("action set {verb} empty"));
            } else {
                t.note(Remark::ActionSet(verb, &list), format_args!(""));
            }
        }
    }

    /// Runs the action set, if there is one and no `exit` came before.
    pub(super) fn run_action_set(&mut self) {
        if self.action_set.is_empty() || self.exit {
            return;
        }
        let set = std::mem::take(&mut self.action_set);
        let list = in_order(&set);
        if list.is_empty() {
            return;
        }
        self.in_action_set = true;
        if let Some(t) = self.trace.as_deref_mut() {
            t.action_set();
        }
        self.do_actions(&list, true);
        self.trace_leave();
        self.in_action_set = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(p: u16) -> Action {
        Action::Output { port: OfPort(p), max_len: 0 }
    }

    #[test]
    fn order_and_last_of_a_kind() {
        let set =
            [output(1), Action::SetEthDst([1; 6]), Action::StripVlan, output(2), Action::SetEthSrc([2; 6])];
        let want = [Action::StripVlan, Action::SetEthDst([1; 6]), Action::SetEthSrc([2; 6]), output(2)];
        assert_eq!(in_order(&set), want);
        assert!(in_order(&[Action::StripVlan]).is_empty());
    }
}

//! Whether actions make sense for a flow: ports, tables, prerequisites of what they read and write.
//!
//! Neighbours: `flow_mod` runs it on each flow, `ofproto` on packet-outs. Threads: none.

use crate::{Action, OfError, Session, Version};
use flow::{Be16, Field, Flow, Match, OfPort, SubField};

const INCONSISTENT: OfError = OfError::OFPBAC_MATCH_INCONSISTENT;
const CFI: u16 = 0x1000;
const ETH_IP: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;

/// Checks `actions` for flows of `m` in `table_id` (255: not in a table), and fills in what they need to know of the
/// match. Where OpenFlow 1.0 accepts actions that do not fit the match, later versions give an error.
pub fn check_actions(
    actions: &mut [Action],
    m: &Match,
    table_id: u8,
    session: &Session,
) -> Result<(), OfError> {
    let mut c = Checker { m: *m, table_id, session, consistent: true };
    verify_order(actions, false)?;
    c.list(actions)?;
    if !c.consistent && session.version >= Version::V11 {
        return Err(INCONSISTENT);
    }
    Ok(())
}

/// Checks the actions of a packet-out for a packet of `m`. `consistent`: also those must fit the packet that do
/// nothing to others.
///
/// # Errors
/// The error that a controller would get.
pub fn check_packet_out(actions: &mut [Action], m: &Match, consistent: bool) -> Result<(), OfError> {
    let version = if consistent { Version::V13 } else { Version::V10 };
    for a in actions.iter() {
        match a {
            Action::Group(_) => return Err(OfError::OFPBAC_BAD_OUT_GROUP),
            Action::Meter(_) => return Err(OfError::OFPMMFC_INVALID_METER),
            _ => {}
        }
    }
    check_actions(actions, m, 255, &Session::new(version))
}

struct Checker<'a> {
    /// The match as the actions so far change it.
    m: Match,
    table_id: u8,
    session: &'a Session,
    consistent: bool,
}

/// Instructions stand in order behind the actions, and an action set has only actions that it can hold.
fn verify_order(actions: &[Action], in_set: bool) -> Result<(), OfError> {
    let rank = |a: &Action| match a {
        Action::ClearActions => 1,
        Action::WriteActions(_) => 2,
        Action::WriteMetadata { .. } => 3,
        Action::GotoTable(_) => 4,
        _ => 0,
    };
    let mut last = 0;
    for a in actions {
        let r = rank(a);
        if in_set && (r > 0 || !allowed_in_set(a)) {
            return Err(OfError::OFPBAC_BAD_TYPE);
        }
        if r < last {
            return Err(OfError::OFPBAC_UNSUPPORTED_ORDER);
        }
        if r > 0 && r == last {
            return Err(OfError::OFPBIC_DUP_INST);
        }
        last = r;
        if let Action::WriteActions(set) = a {
            verify_order(set, true)?;
        }
    }
    Ok(())
}

/// Whether an action set can hold `a`.
fn allowed_in_set(a: &Action) -> bool {
    !matches!(
        a,
        Action::OutputReg { .. }
            | Action::OutputTrunc { .. }
            | Action::Controller { .. }
            | Action::Enqueue { .. }
            | Action::PopQueue
            | Action::StackPush(_)
            | Action::StackPop(_)
            | Action::Multipath { .. }
            | Action::Note(_)
            | Action::Exit
            | Action::Meter(_)
            | Action::ClearActions
            | Action::WriteActions(_)
            | Action::WriteMetadata { .. }
            | Action::GotoTable(_)
    )
}

impl Checker<'_> {
    fn list(&mut self, actions: &mut [Action]) -> Result<(), OfError> {
        actions.iter_mut().try_for_each(|a| self.one(a))
    }

    fn need(&mut self, ok: bool) {
        self.consistent &= ok;
    }

    fn dl_type(&self) -> u16 {
        if self.m.mask.0.dl_type == Be16::MAX {
            self.m.flow.dl_type.get()
        } else {
            0
        }
    }

    fn is_ip(&self) -> bool {
        matches!(self.dl_type(), ETH_IP | ETH_IPV6)
    }

    fn is_mpls(&self) -> bool {
        matches!(self.dl_type(), 0x8847 | 0x8848)
    }

    fn has_vlan(&self) -> bool {
        self.m.flow.vlans[0].tci.get() & CFI != 0
    }

    fn set_vlan(&mut self, there: bool) {
        let bits = if there { CFI } else { 0 };
        self.m.flow.vlans[0].tci = Be16::new(self.m.flow.vlans[0].tci.get() & !CFI | bits);
        self.m.mask.0.vlans[0].tci |= Be16::new(CFI);
    }

    fn port(&self, port: OfPort) -> Result<(), OfError> {
        let ok = match port {
            OfPort::IN_PORT
            | OfPort::TABLE
            | OfPort::NORMAL
            | OfPort::FLOOD
            | OfPort::ALL
            | OfPort::CONTROLLER
            | OfPort::LOCAL => true,
            p => p.0 < self.session.max_ports,
        };
        if ok {
            Ok(())
        } else {
            Err(OfError::OFPBAC_BAD_OUT_PORT)
        }
    }

    fn real_port(&self, port: OfPort) -> Result<(), OfError> {
        if port.0 < self.session.max_ports || matches!(port, OfPort::IN_PORT | OfPort::LOCAL) {
            Ok(())
        } else {
            Err(OfError::OFPBAC_BAD_OUT_PORT)
        }
    }

    fn readable(&self, field: Field) -> Result<(), OfError> {
        if field.match_prereqs_ok(&self.m) {
            Ok(())
        } else {
            Err(INCONSISTENT)
        }
    }

    fn writable(&self, sf: &SubField) -> Result<(), OfError> {
        self.readable(sf.field)?;
        if sf.field.writable() {
            Ok(())
        } else {
            Err(OfError::OFPBAC_BAD_SET_ARGUMENT)
        }
    }

    fn one(&mut self, a: &mut Action) -> Result<(), OfError> {
        match a {
            Action::Output { port, .. } => self.port(*port)?,
            Action::OutputReg { src, .. } => self.readable(src.field)?,
            Action::OutputTrunc { port, .. } | Action::Enqueue { port, .. } => self.real_port(*port)?,
            Action::StackPush(sf) => self.readable(sf.field)?,
            Action::StackPop(sf) => self.writable(sf)?,
            Action::Move { src, dst } => {
                self.readable(src.field)?;
                self.writable(dst)?;
            }
            Action::Multipath { dst, .. } => self.writable(dst)?,
            Action::Load { dst, .. } => {
                self.writable(dst)?;
                if is_vlan(dst.field) {
                    self.set_vlan(true);
                }
            }
            Action::SetField { field, flow_has_vlan, .. } => {
                self.readable(*field)?;
                // The VLAN ID can be set only where there is a VLAN header.
                if *field == Field::VlanVid && !self.has_vlan() {
                    return Err(INCONSISTENT);
                }
                *flow_has_vlan = self.has_vlan();
                if is_vlan(*field) {
                    self.set_vlan(true);
                }
            }
            Action::Resubmit { with_ct: true, .. } => {
                return Err(INCONSISTENT);
            }
            Action::GotoTable(t) => {
                if self.table_id != 255 && *t <= self.table_id || *t >= self.session.n_tables {
                    return Err(OfError::OFPBIC_BAD_TABLE_ID);
                }
            }
            Action::WriteActions(set) => {
                // What the packet looks like when the action set runs is not known here.
                let (m, consistent) = (self.m, self.consistent);
                let r = self.list(set);
                (self.m, self.consistent) = (m, consistent);
                r?;
            }
            _ => self.header(a)?,
        }
        Ok(())
    }

    /// Actions that need a header to be there.
    fn header(&mut self, a: &mut Action) -> Result<(), OfError> {
        match a {
            Action::SetVlanVid { push_if_needed, flow_has_vlan, .. }
            | Action::SetVlanPcp { push_if_needed, flow_has_vlan, .. } => {
                *flow_has_vlan = self.has_vlan();
                let ok = *flow_has_vlan || *push_if_needed;
                self.need(ok);
                self.set_vlan(true);
            }
            Action::StripVlan | Action::PopVlan => {
                self.need(self.has_vlan());
                let inner = std::mem::take(&mut self.m.flow.vlans[1]);
                self.set_vlan(inner.tci.get() & CFI != 0);
            }
            Action::PushVlan(_) => {
                if self.m.flow.vlans[flow::key::MAX_VLANS - 1].tci.get() & CFI != 0 {
                    return Err(OfError::OFPBAC_BAD_TAG);
                }
                if self.has_vlan() {
                    self.m.flow.vlans[1].tci = Be16::new(CFI);
                }
                self.set_vlan(true);
            }
            Action::SetIpv4Src(_) | Action::SetIpv4Dst(_) => self.need(self.dl_type() == ETH_IP),
            Action::SetIpDscp(_) | Action::SetIpEcn(_) | Action::SetIpTtl(_) | Action::DecTtl(_) => {
                self.need(self.is_ip());
            }
            Action::SetL4SrcPort(_) | Action::SetL4DstPort(_) => {
                let proto = matches!(self.m.flow.nw_proto, 6 | 17 | 132);
                self.need(self.is_ip() && proto && self.m.flow.nw_frag & flow::key::FRAG_LATER == 0);
            }
            Action::SetMplsLabel(_) | Action::SetMplsTc(_) | Action::SetMplsTtl(_) | Action::DecMplsTtl => {
                self.need(self.is_mpls());
            }
            Action::PushMpls(t) => self.retype(*t),
            Action::PopMpls(t) => {
                self.need(self.is_mpls());
                self.retype(*t);
            }
            _ => {}
        }
        Ok(())
    }

    /// After a push or pop nothing is known of the layers above.
    fn retype(&mut self, ethertype: u16) {
        let (f, w): (&mut Flow, &mut Flow) = (&mut self.m.flow, &mut self.m.mask.0);
        (f.dl_type, w.dl_type) = (Be16::new(ethertype), Be16::MAX);
        (f.nw_proto, w.nw_proto) = (0, 0);
    }
}

fn is_vlan(f: Field) -> bool {
    matches!(f, Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::DlVlan | Field::DlVlanPcp)
}

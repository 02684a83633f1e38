//! Running a list of OpenFlow actions on the flow.
//!
//! Neighbours: `table` calls it for rules, `action_set` for the action set, `output` does what leaves the bridge.
//! Threads: part of a translation.

use super::commit::{self, count_mpls, count_vlans, is_ip_any, is_mpls, mask_vlan};
use super::hash;
use super::table::reason;
use super::{Ctx, Remark, XlateError, MAX_STACK_BYTES};
use crate::recirc::FrozenFrame;
use flow::key::{FRAG_LATER, MAX_MPLS, MAX_VLANS, VLAN_CFI};
use flow::{Be16, Be32, Be64, Field, OfPort, SubField, Vlan};
use openflow::{subfield_name, Action};

const VID_MASK: u16 = 0x0fff;
const PCP_MASK: u16 = 0xe000;

/// Whether the rest of the list runs.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    /// The rest of this list is left out.
    Stop,
}

impl Ctx<'_, '_> {
    /// Runs `actions`. `last`: nothing follows in the pipeline that calls.
    pub(super) fn do_actions(&mut self, actions: &[Action], last: bool) {
        for (i, action) in actions.iter().enumerate() {
            if self.out.error.is_some() {
                return;
            }
            if self.was_mpls && !self.exit && needs_known_headers(action) {
                // What is behind the labels must be parsed first.
                self.freezing = true;
                self.exit = true;
            }
            if self.exit {
                if self.freezing {
                    self.save_rest(&actions[i..]);
                }
                return;
            }
            if let Some(t) = self.trace.as_deref_mut() {
                t.action(action);
            }
            let is_last = last && i + 1 == actions.len() && self.action_set.is_empty();
            if self.do_action(action, is_last) == Next::Stop {
                return;
            }
        }
        // An exit in a list that was called ends its callers too; their rest is frozen by their own loops.
    }

    fn save_rest(&mut self, rest: &[Action]) {
        let cookie = self.rule.as_ref().map_or(u64::MAX, |r| r.cookie);
        self.frames.push(FrozenFrame { table_id: self.table_id, cookie, actions: rest.to_vec() });
    }

    fn do_action(&mut self, action: &Action, last: bool) -> Next {
        match action {
            Action::Output { port, max_len } => self.output_action(*port, *max_len, last),
            Action::OutputReg { src, max_len } => {
                let port = src.get(&self.flow);
                if port <= u128::from(u16::MAX) {
                    self.note(format_args!("output port is {port}"));
                    src.mask_bits(&mut self.out.mask);
                    self.output_action(OfPort(port as u16), *max_len, last);
                } else {
                    src.mask_bits(&mut self.out.mask);
                    self.warn(format_args!("output port {port} is out of range"));
                }
            }
            Action::OutputTrunc { port, max_len } => self.output_trunc(*port, *max_len, last),
            Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id: _ } => {
                if *pause {
                    // What follows, here and in callers, is frozen.
                    self.pausing = Some(self.pause(*reason, *max_len, *controller_id, userdata));
                    self.freezing = true;
                    self.exit = true;
                } else {
                    self.send_to_controller(*reason, *max_len, *controller_id, userdata);
                }
            }
            Action::Enqueue { port, queue } => self.enqueue(*port, *queue, last),
            Action::SetQueue(queue) => {
                self.out.mask.0.skb_priority = u32::MAX;
                self.flow.skb_priority = *queue;
            }
            Action::PopQueue => {
                self.flow.skb_priority = self.orig_priority;
                self.note(format_args!("queue = {:#x}", Alternate(self.orig_priority.into())));
            }
            Action::Resubmit { in_port, table, with_ct: _ } => {
                let in_port = if *in_port == OfPort::IN_PORT { self.in_port() } else { *in_port };
                let table = if *table == 255 { self.table_id } else { *table };
                self.table_action(in_port, table, false);
            }
            Action::GotoTable(table) => self.table_action(self.in_port(), *table, true),
            Action::Multipath { fields, basis, algorithm, max_link, arg, dst } => {
                hash::mask_fields(&self.flow, &mut self.out.mask, *fields);
                let h = hash::flow_hash(&self.flow, *fields, *basis);
                let link = hash::multipath(h, *algorithm, u32::from(*max_link) + 1, *arg);
                dst.set(&mut self.flow, link.into());
                self.note_now(dst);
            }
            Action::Exit => {
                self.exit = true;
                return Next::Stop;
            }
            Action::ClearActions => self.clear_actions(),
            Action::WriteActions(set) => self.write_actions(set),
            Action::WriteMetadata { value, mask } => {
                let new = self.flow.metadata.get() & !mask | value & mask;
                self.flow.metadata = Be64::new(new);
            }
            Action::DecTtl(controllers) => return self.dec_ttl(controllers),
            Action::DecMplsTtl => return self.dec_mpls_ttl(),
            Action::StackPush(src) => self.stack_push(src),
            Action::StackPop(dst) => self.stack_pop(dst),
            Action::Note(_) | Action::Meter(_) => {}
            Action::Group(id) => self.note(format_args!("group {id} does not exist")),
            _ => self.header_action(action),
        }
        Next::Go
    }

    /// Actions that write headers.
    fn header_action(&mut self, action: &Action) {
        match action {
            Action::SetField { field, value, mask, .. } => self.set_field(*field, *value, *mask),
            Action::Load { dst, value } => {
                let value = value.checked_shl(dst.ofs.into()).unwrap_or(0);
                self.set_field(dst.field, value, dst.mask());
            }
            Action::Move { src, dst } => self.reg_move(src, dst),
            Action::SetTunnel(id) => self.flow.tun_id = Be64::new(*id),
            Action::SetEthSrc(mac) => {
                self.out.mask.0.dl_src = [0xff; 6];
                self.flow.dl_src = *mac;
            }
            Action::SetEthDst(mac) => {
                self.out.mask.0.dl_dst = [0xff; 6];
                self.flow.dl_dst = *mac;
            }
            Action::SetVlanVid { .. }
            | Action::SetVlanPcp { .. }
            | Action::StripVlan
            | Action::PopVlan
            | Action::PushVlan(_) => {
                self.vlan_action(action);
            }
            Action::PushMpls(_)
            | Action::PopMpls(_)
            | Action::SetMplsLabel(_)
            | Action::SetMplsTc(_)
            | Action::SetMplsTtl(_) => self.mpls_action(action),
            _ => self.ip_action(action),
        }
    }

    /// Actions of OpenFlow 1.0 to 1.1 that write IP and transport headers: nothing happens to other packets.
    fn ip_action(&mut self, action: &Action) {
        if !is_ip_any(&self.flow) {
            return;
        }
        let v4 = self.flow.dl_type.get() == commit::ETH_IP;
        let m = &mut self.out.mask.0;
        let f = &mut self.flow;
        match action {
            Action::SetIpv4Src(a) if v4 => {
                (m.nw_src, m.nw_proto) = (Be32::MAX, 0xff);
                f.nw_src = Be32::from_bytes(*a);
            }
            Action::SetIpv4Dst(a) if v4 => {
                (m.nw_dst, m.nw_proto) = (Be32::MAX, 0xff);
                f.nw_dst = Be32::from_bytes(*a);
            }
            Action::SetIpDscp(dscp) => {
                m.nw_tos |= 0xfc;
                m.nw_proto = 0xff;
                f.nw_tos = f.nw_tos & 3 | dscp & 0xfc;
            }
            Action::SetIpEcn(ecn) => {
                m.nw_tos |= 3;
                m.nw_proto = 0xff;
                f.nw_tos = f.nw_tos & 0xfc | ecn & 3;
            }
            Action::SetIpTtl(ttl) => {
                (m.nw_ttl, m.nw_proto) = (0xff, 0xff);
                f.nw_ttl = *ttl;
            }
            Action::SetL4SrcPort(port) if f.nw_frag & FRAG_LATER == 0 => {
                (m.tp_src, m.nw_proto) = (Be16::MAX, 0xff);
                f.tp_src = Be16::new(*port);
            }
            Action::SetL4DstPort(port) if f.nw_frag & FRAG_LATER == 0 => {
                (m.tp_dst, m.nw_proto) = (Be16::MAX, 0xff);
                f.tp_dst = Be16::new(*port);
            }
            _ => {}
        }
    }

    fn vlan_action(&mut self, action: &Action) {
        let tci = self.flow.vlans[0].tci.get();
        let n = count_vlans(&self.flow);
        match action {
            Action::SetVlanVid { vid, push_if_needed, .. } => {
                self.out.mask.0.vlans[0].tci |= Be16::new(VID_MASK | VLAN_CFI);
                if n > 0 || *push_if_needed {
                    self.set_tci(tci & !VID_MASK | vid & VID_MASK | VLAN_CFI);
                }
            }
            Action::SetVlanPcp { pcp, push_if_needed, .. } => {
                self.out.mask.0.vlans[0].tci |= Be16::new(PCP_MASK | VLAN_CFI);
                if n > 0 || *push_if_needed {
                    self.set_tci(tci & !PCP_MASK | u16::from(pcp & 7) << 13 | VLAN_CFI);
                }
            }
            Action::PushVlan(tpid) => {
                self.mask_received_vlans();
                self.flow.vlans.copy_within(0..MAX_VLANS - 1, 1);
                self.flow.vlans[0] = Vlan { tpid: Be16::new(*tpid), tci: Be16::new(VLAN_CFI) };
            }
            _ => {
                // What comes to the front is looked at from now on; the rest of the header that goes only if the
                // packet is sent.
                self.out.mask.0.vlans[0].tci |= Be16::new(VID_MASK | VLAN_CFI);
                (1..count_vlans(self.input.flow)).for_each(|i| mask_vlan(&mut self.out.mask, i));
                self.vlan_popped = true;
                if n > 0 {
                    self.flow.vlans.copy_within(1.., 0);
                    self.flow.vlans[MAX_VLANS - 1] = Vlan::default();
                }
            }
        }
    }

    /// Unwildcards the VLAN headers that the packet came with, and that there are no more: what is pushed is
    /// compared with them when it is committed.
    pub(super) fn mask_received_vlans(&mut self) {
        self.out.mask.0.vlans[0].tci |= Be16::new(VLAN_CFI);
        (0..count_vlans(self.input.flow)).for_each(|i| mask_vlan(&mut self.out.mask, i));
    }

    fn set_tci(&mut self, tci: u16) {
        if count_vlans(&self.flow) == 0 {
            self.mask_received_vlans();
        }
        let v = &mut self.flow.vlans[0];
        if v.tpid.is_zero() {
            v.tpid = Be16::new(commit::ETH_VLAN);
        }
        v.tci = Be16::new(tci);
    }

    fn mpls_action(&mut self, action: &Action) {
        match action {
            Action::PushMpls(ethertype) => return self.push_mpls(*ethertype),
            Action::PopMpls(ethertype) => return self.pop_mpls(*ethertype),
            _ => {}
        }
        if !is_mpls(self.flow.dl_type) {
            return;
        }
        let top = self.flow.mpls[0].get();
        let (mask, new) = match action {
            Action::SetMplsLabel(label) => (0xffff_f000, (label & 0xf_ffff) << 12),
            Action::SetMplsTc(tc) => (0xe00, u32::from(tc & 7) << 9),
            Action::SetMplsTtl(ttl) => (0xff, u32::from(*ttl)),
            _ => return,
        };
        self.out.mask.0.mpls[0] |= Be32::new(mask);
        self.flow.mpls[0] = Be32::new(top & !mask | new);
    }

    /// Stops the list when the TTL runs out, and for packets without a label.
    fn dec_mpls_ttl(&mut self) -> Next {
        if is_mpls(self.flow.dl_type) {
            let top = self.flow.mpls[0].get();
            self.out.mask.0.mpls[0] |= Be32::new(0xff);
            if top & 0xff > 1 {
                self.flow.mpls[0] = Be32::new(top - 1);
                return Next::Go;
            }
            self.send_to_controller(reason::INVALID_TTL, u16::MAX, 0, &[]);
        }
        self.warn(format_args!("MPLS decrement TTL exception"));
        Next::Stop
    }

    fn push_mpls(&mut self, ethertype: u16) {
        let n = count_mpls(&self.flow, Some(&mut self.out.mask));
        if n == 0 {
            self.commit();
        } else if n >= MAX_MPLS {
            return self.fail(XlateError::TooManyMplsLabels);
        }
        commit::push_mpls(&mut self.flow, n, Be16::new(ethertype), Some(&mut self.out.mask), true);
    }

    fn pop_mpls(&mut self, ethertype: u16) {
        let n = count_mpls(&self.flow, Some(&mut self.out.mask));
        let ethertype = Be16::new(ethertype);
        if commit::pop_mpls(&mut self.flow, n, ethertype, Some(&mut self.out.mask)) {
            self.mpls_at_pop.get_or_insert(self.out.mask.0.mpls);
            if !is_mpls(ethertype) {
                self.was_mpls = true;
            }
        } else if n >= MAX_MPLS {
            self.fail(XlateError::TooManyMplsLabels);
        }
    }

    fn dec_ttl(&mut self, controllers: &[u16]) -> Next {
        self.out.mask.0.nw_ttl = 0xff;
        self.out.mask.0.nw_proto = 0xff;
        if !is_ip_any(&self.flow) {
            return Next::Go;
        }
        if self.flow.nw_ttl > 1 {
            self.flow.nw_ttl -= 1;
            return Next::Go;
        }
        let version = if self.flow.dl_type.get() == commit::ETH_IP { 4 } else { 6 };
        self.warn(format_args!("IPv{version} decrement TTL exception"));
        let ids = if controllers.is_empty() { &[0][..] } else { controllers };
        for &id in ids {
            self.send_to_controller(reason::INVALID_TTL, u16::MAX, id, &[]);
        }
        Next::Stop
    }

    fn set_field(&mut self, field: Field, value: u128, mask: u128) {
        if !field.prereqs_ok_masking(&self.flow, &mut self.out.mask) {
            self.warn(format_args!("unmet prerequisites for {}, set_field ignored", field.name()));
            return;
        }
        self.mask_l3(field);
        self.mask_new_vlan(field);
        field.mask_bits(&mut self.out.mask, mask);
        field.set_masked(&mut self.flow, value, mask);
    }

    /// Writing IP fields needs to know that there is an IP header: protocol 0 doubles as "none".
    fn mask_l3(&mut self, field: Field) {
        let l3 = matches!(
            field,
            Field::Ipv4Src
                | Field::Ipv4Dst
                | Field::Ipv6Src
                | Field::Ipv6Dst
                | Field::Ipv6Label
                | Field::IpDscp
                | Field::IpEcn
                | Field::IpTtl
        );
        if l3 {
            self.out.mask.0.nw_proto = 0xff;
        }
    }

    /// Writing a VLAN field may add a header where one was taken away.
    fn mask_new_vlan(&mut self, field: Field) {
        let vlan = matches!(
            field,
            Field::VlanTci | Field::DlVlan | Field::VlanVid | Field::DlVlanPcp | Field::VlanPcp
        );
        if vlan && count_vlans(&self.flow) == 0 && count_vlans(self.input.flow) > 0 {
            self.mask_received_vlans();
        }
    }

    fn reg_move(&mut self, src: &SubField, dst: &SubField) {
        let mask = &mut self.out.mask;
        let ok =
            dst.field.prereqs_ok_masking(&self.flow, mask) & src.field.prereqs_ok_masking(&self.flow, mask);
        if !ok {
            self.warn(format_args!("unmet prerequisites for {} or {}", src.field.name(), dst.field.name()));
            return;
        }
        dst.field.mask_bits(mask, dst.mask());
        src.field.mask_bits(mask, src.mask());
        let value = src.get(&self.flow);
        self.mask_new_vlan(dst.field);
        dst.set(&mut self.flow, value);
        self.note_now(dst);
    }

    /// Says what a field has become.
    fn note_now(&mut self, dst: &SubField) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.note(
                Remark::Detail,
                format_args!("{} is now {}", subfield_name(dst), subfield_value(dst, &self.flow)),
            );
        }
    }

    fn stack_push(&mut self, src: &SubField) {
        src.mask_bits(&mut self.out.mask);
        let bytes = usize::from(src.n_bits).div_ceil(8) + 1;
        if self.stack_bytes + bytes > MAX_STACK_BYTES {
            return self.fail(XlateError::StackTooDeep);
        }
        self.stack_bytes += bytes;
        self.stack.push((src.get(&self.flow), src.n_bits));
    }

    fn stack_pop(&mut self, dst: &SubField) {
        let Some((value, n_bits)) = self.stack.pop() else {
            self.complain(format_args!("stack underflow"));
            return;
        };
        self.stack_bytes -= usize::from(n_bits).div_ceil(8) + 1;
        if !dst.field.prereqs_ok_masking(&self.flow, &mut self.out.mask) {
            return;
        }
        dst.field.mask_bits(&mut self.out.mask, dst.mask());
        self.mask_new_vlan(dst.field);
        dst.set(&mut self.flow, value);
        self.note_now(dst);
    }
}

/// As C's `%#x`: zero has no prefix.
struct Alternate(u128);

impl std::fmt::LowerHex for Alternate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            v => write!(f, "{v:#x}"),
        }
    }
}

/// A field's value as it is printed, a part of one in hexadecimal.
fn subfield_value(sf: &SubField, flow: &flow::Flow) -> String {
    if sf.ofs == 0 && sf.n_bits == sf.field.n_bits() {
        return sf.field.format_value(sf.get(flow), sf.field.all_ones());
    }
    format!("{:x}", Alternate(sf.get(flow)))
}

/// Whether `action` reads or writes headers behind a label stack that was just popped, or may lead to that.
fn needs_known_headers(action: &Action) -> bool {
    let deep = |f: Field| {
        matches!(
            f,
            Field::MplsLabel
                | Field::MplsTc
                | Field::MplsBos
                | Field::MplsTtl
                | Field::Ipv4Src
                | Field::Ipv4Dst
                | Field::Ipv6Src
                | Field::Ipv6Dst
                | Field::Ipv6Label
                | Field::IpProto
                | Field::IpDscp
                | Field::IpDscpShifted
                | Field::IpEcn
                | Field::IpTtl
                | Field::IpFrag
                | Field::ArpOp
                | Field::ArpSpa
                | Field::ArpTpa
                | Field::ArpSha
                | Field::ArpTha
                | Field::TcpSrc
                | Field::TcpDst
                | Field::TcpFlags
                | Field::UdpSrc
                | Field::UdpDst
                | Field::SctpSrc
                | Field::SctpDst
                | Field::Icmpv4Type
                | Field::Icmpv4Code
                | Field::Icmpv6Type
                | Field::Icmpv6Code
                | Field::NdTarget
                | Field::NdSll
                | Field::NdTll
        )
    };
    match action {
        Action::Move { src, dst } => deep(src.field) || deep(dst.field),
        Action::SetField { field, .. } => deep(*field),
        Action::Load { dst: s, .. } | Action::StackPush(s) | Action::StackPop(s) => deep(s.field),
        Action::PushMpls(_)
        | Action::PopMpls(_)
        | Action::SetMplsLabel(_)
        | Action::SetMplsTc(_)
        | Action::SetMplsTtl(_)
        | Action::DecMplsTtl
        | Action::SetIpv4Src(_)
        | Action::SetIpv4Dst(_)
        | Action::SetIpDscp(_)
        | Action::SetIpEcn(_)
        | Action::SetIpTtl(_)
        | Action::SetL4SrcPort(_)
        | Action::SetL4DstPort(_)
        | Action::DecTtl(_)
        | Action::Resubmit { .. }
        | Action::GotoTable(_)
        | Action::Multipath { .. }
        | Action::Group(_) => true,
        Action::Output { port, .. } => *port == OfPort::TABLE,
        _ => false,
    }
}

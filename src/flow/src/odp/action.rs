//! Text of datapath actions.
//!
//! Neighbours: parent module. Threads: plain functions.

use super::Style;
use crate::action::{DpAction, SetField, UserspaceCookie};
use crate::be::{Be16, Be32};
use crate::key::VLAN_CFI;
use crate::text::{joined_flags, put, Hex, Ip6, Mac};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Slow path reason: connectivity fault management.
pub const SLOW_CFM: u32 = 1 << 0;
/// Slow path reason: bidirectional forwarding detection.
pub const SLOW_BFD: u32 = 1 << 1;
/// Slow path reason: link aggregation control.
pub const SLOW_LACP: u32 = 1 << 2;
/// Slow path reason: spanning tree.
pub const SLOW_STP: u32 = 1 << 3;
/// Slow path reason: link layer discovery.
pub const SLOW_LLDP: u32 = 1 << 4;
/// Slow path reason: an action the datapath does not have.
pub const SLOW_ACTION: u32 = 1 << 5;
/// Slow path reason: a match the datapath does not have.
pub const SLOW_MATCH: u32 = 1 << 6;

pub(super) const SLOW: [&str; 7] = ["cfm", "bfd", "lacp", "stp", "lldp", "action", "match"];

/// Writes a list of actions, `drop` when it is empty.
pub fn format_actions(out: &mut String, actions: &[DpAction], style: &Style) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    for (i, a) in actions.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        action(out, a, style);
    }
}

fn action(out: &mut String, a: &DpAction, style: &Style) {
    match a {
        DpAction::Output(p) => style.port(out, *p),
        DpAction::Userspace { pid, cookie } => userspace(out, *pid, cookie),
        DpAction::Set(s) => {
            out.push_str("set(");
            set(out, s);
            out.push(')');
        }
        DpAction::PushVlan { tpid, tci } => push_vlan(out, *tpid, *tci),
        DpAction::PopVlan => out.push_str("pop_vlan"),
        DpAction::PushMpls { ethertype, lse } => {
            out.push_str("push_mpls(");
            mpls_lse(out, *lse, None);
            put!(out, ",eth_type={:#x})", ethertype.get());
        }
        DpAction::PopMpls { ethertype } => put!(out, "pop_mpls(eth_type={:#x})", ethertype.get()),
        DpAction::Recirc(id) => put!(out, "recirc({})", Hex(id.0.into())),
        DpAction::Hash { alg, basis } => match alg {
            0 => put!(out, "hash(l4({basis}))"),
            1 => put!(out, "hash(sym_l4({basis}))"),
            _ => put!(out, "hash(Unknown hash algorithm({alg}))"),
        },
        DpAction::Trunc { max_len } => put!(out, "trunc({max_len})"),
        DpAction::Meter(id) => put!(out, "meter({id})"),
        DpAction::Clone(inner) => {
            out.push_str("clone(");
            format_actions(out, inner, style);
            out.push(')');
        }
        DpAction::Drop(_) => out.push_str("drop"),
    }
}

fn push_vlan(out: &mut String, tpid: Be16, tci: Be16) {
    out.push_str("push_vlan(");
    if tpid.get() != 0x8100 {
        put!(out, "tpid={:#06x},", tpid.get());
    }
    let t = tci.get();
    put!(out, "vid={},pcp={}", t & 0xfff, t >> 13);
    if t & VLAN_CFI == 0 {
        out.push_str(",cfi=0");
    }
    out.push(')');
}

fn userspace(out: &mut String, pid: u32, cookie: &UserspaceCookie) {
    put!(out, "userspace(pid={pid},");
    match *cookie {
        UserspaceCookie::SlowPath { reason } => {
            out.push_str("slow_path(");
            joined_flags(out, &SLOW, reason.into(), ",", "0");
            out.push(')');
        }
        UserspaceCookie::Controller {
            reason,
            dont_send,
            continuation,
            recirc_id,
            rule_cookie,
            controller_id,
            max_len,
            ..
        } => {
            put!(
                out,
                "controller(reason={reason},dont_send={},continuation={},recirc_id={},rule_cookie={},\
                 controller_id={controller_id},max_len={max_len})",
                u8::from(dont_send),
                u8::from(continuation),
                recirc_id.0,
                Hex(rule_cookie.into())
            );
        }
    }
    out.push(')');
}

/// One label stack entry; masks follow the values unless `mask` is `None`.
pub(super) fn mpls_lse(out: &mut String, lse: Be32, mask: Option<Be32>) {
    let v = lse.get();
    let (label, tc, bos, ttl) = (v >> 12, v >> 9 & 7, v >> 8 & 1, v & 0xff);
    match mask.map(Be32::get) {
        None => put!(out, "label={label},tc={tc},ttl={ttl},bos={bos}"),
        Some(m) => put!(
            out,
            "label={label}/{:#x},tc={tc}/{:x},ttl={ttl}/{:#x},bos={bos}/{:x}",
            m >> 12,
            m >> 9 & 7,
            m & 0xff,
            m >> 8 & 1
        ),
    }
}

/// Members of a `set` action: those with an empty mask are left out.
struct Members<'a> {
    out: &'a mut String,
    first: bool,
}

impl Members<'_> {
    fn put(&mut self, name: &str, any: bool, v: impl std::fmt::Display, mask: Option<String>) {
        if !any {
            return;
        }
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        put!(self.out, "{name}={v}");
        if let Some(m) = mask {
            put!(self.out, "/{m}");
        }
    }

    fn dec(&mut self, name: &str, v: u32, m: u32, full: u32) {
        self.put(name, m != 0, v, (m != full).then(|| Hex(m.into()).to_string()));
    }

    fn hex(&mut self, name: &str, v: u32, m: u32, full: u32) {
        self.put(name, m != 0, Hex(v.into()), (m != full).then(|| Hex(m.into()).to_string()));
    }

    fn mac(&mut self, name: &str, v: [u8; 6], m: [u8; 6]) {
        self.put(name, m != [0; 6], Mac(v), (m != [0xff; 6]).then(|| Mac(m).to_string()));
    }

    fn ip4(&mut self, name: &str, v: Be32, m: Be32) {
        let text = |b: Be32| Ipv4Addr::from(b.get());
        self.put(name, !m.is_zero(), text(v), (m != Be32::MAX).then(|| text(m).to_string()));
    }

    fn ip6(&mut self, name: &str, v: [u8; 16], m: [u8; 16]) {
        self.put(name, m != [0; 16], Ip6(v), (m != [0xff; 16]).then(|| Ip6(m).to_string()));
    }
}

fn set(out: &mut String, s: &SetField) {
    let name = match s {
        SetField::Eth { .. } => "eth",
        SetField::Ipv4 { .. } => "ipv4",
        SetField::Ipv6 { .. } => "ipv6",
        SetField::Tcp { .. } => "tcp",
        SetField::Udp { .. } => "udp",
        SetField::Sctp { .. } => "sctp",
        SetField::Icmp { .. } => "icmp",
        SetField::Icmp6 { .. } => "icmpv6",
        SetField::Arp { .. } => "arp",
        SetField::Nd { .. } => "nd",
        SetField::Mpls { .. } => "mpls",
        SetField::SkbPriority { .. } => "skb_priority",
        SetField::SkbMark { .. } => "skb_mark",
    };
    put!(out, "{name}(");
    let mut w = Members { out, first: true };
    match *s {
        SetField::Eth { src, dst, src_mask, dst_mask } => {
            w.mac("src", src, src_mask);
            w.mac("dst", dst, dst_mask);
        }
        SetField::Ipv4 { key: k, mask: m } => {
            w.ip4("src", k.src, m.src);
            w.ip4("dst", k.dst, m.dst);
            w.hex("tos", k.tos.into(), m.tos.into(), 0xff);
            w.dec("ttl", k.ttl.into(), m.ttl.into(), 0xff);
        }
        SetField::Ipv6 { key: k, mask: m } => {
            w.ip6("src", k.src, m.src);
            w.ip6("dst", k.dst, m.dst);
            w.hex("label", k.label.get(), m.label.get() & 0xfffff, 0xfffff);
            w.hex("tclass", k.tclass.into(), m.tclass.into(), 0xff);
            w.dec("hlimit", k.hlimit.into(), m.hlimit.into(), 0xff);
        }
        SetField::Tcp { src, dst, src_mask, dst_mask }
        | SetField::Udp { src, dst, src_mask, dst_mask }
        | SetField::Sctp { src, dst, src_mask, dst_mask } => {
            w.dec("src", src.get().into(), src_mask.get().into(), 0xffff);
            w.dec("dst", dst.get().into(), dst_mask.get().into(), 0xffff);
        }
        SetField::Icmp { kind, code, kind_mask, code_mask }
        | SetField::Icmp6 { kind, code, kind_mask, code_mask } => {
            w.dec("type", kind.into(), kind_mask.into(), 0xff);
            w.dec("code", code.into(), code_mask.into(), 0xff);
        }
        SetField::Arp { key: k, mask: m } => {
            w.ip4("sip", k.sip, m.sip);
            w.ip4("tip", k.tip, m.tip);
            w.dec("op", k.op.get().into(), m.op.get().into(), 0xffff);
            w.mac("sha", k.sha, m.sha);
            w.mac("tha", k.tha, m.tha);
        }
        SetField::Nd { key: k, mask: m } => {
            w.ip6("target", k.target, m.target);
            w.mac("sll", k.sll, m.sll);
            w.mac("tll", k.tll, m.tll);
        }
        SetField::Mpls { lse, mask } => mpls_lse(w.out, lse, (mask != Be32::MAX).then_some(mask)),
        SetField::SkbPriority { value, mask } | SetField::SkbMark { value, mask } => {
            put!(w.out, "{}", Hex(value.into()));
            if mask != u32::MAX {
                put!(w.out, "/{}", Hex(mask.into()));
            }
        }
    }
    out.push(')');
}

//! Reading the text of datapath actions.
//!
//! Neighbours: parent module; `odp::action` writes the same text. Threads: plain functions.

use super::scan::Scan;
use super::{attr, KeyOptions, PortNumbers};
use crate::action::{ArpSet, DpAction, Ipv4Set, Ipv6Set, NdSet, SetField, UserspaceCookie};
use crate::be::{Be16, Be32};
use crate::key::VLAN_CFI;
use crate::odp::action::SLOW;
use crate::port::{DpPort, RecircId};

/// How deep `clone(...)` may nest.
const MAX_NEST: u32 = 8;
/// Actions in one list.
const MAX_ACTIONS: usize = 4096;

/// Actions that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("syntax error at {0}")]
pub struct ActionError(pub String);

/// Reads a list of actions: `1,2`, `set(eth(src=...)),p1`, `drop`.
pub fn parse_actions(text: &str, ports: PortNumbers) -> Result<Vec<DpAction>, ActionError> {
    if text.trim() == "drop" {
        return Ok(Vec::new());
    }
    let mut s = Scan::new(text, true);
    let mut out = Vec::new();
    loop {
        s.skip_delimiters();
        if s.rest.is_empty() {
            return Ok(out);
        }
        let start = s.rest;
        let a = action(&mut s, ports, 0).filter(|_| out.len() < MAX_ACTIONS);
        out.push(a.ok_or_else(|| ActionError(start.to_string()))?);
    }
}

/// A number, and the parenthesis after it.
fn closed(s: &mut Scan) -> Option<u32> {
    let v = s.number()?;
    s.need(")")?;
    u32::try_from(v).ok()
}

fn action(s: &mut Scan, ports: PortNumbers, depth: u32) -> Option<DpAction> {
    if s.rest.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(DpAction::Output(DpPort(u32::try_from(s.number()?).ok()?)));
    }
    if s.eat("set(") {
        let f = set(s)?;
        s.need(")")?;
        return Some(DpAction::Set(f));
    }
    if s.eat("push_vlan(") {
        return push_vlan(s);
    }
    if s.eat("pop_vlan") {
        return Some(DpAction::PopVlan);
    }
    if s.eat("push_mpls(") {
        return push_mpls(s);
    }
    if s.eat("pop_mpls(eth_type=") {
        return Some(DpAction::PopMpls { ethertype: Be16::new(closed(s)? as u16) });
    }
    if s.eat("recirc(") {
        return Some(DpAction::Recirc(RecircId(closed(s)?)));
    }
    if s.eat("hash(l4(") {
        let basis = closed(s)?;
        s.need(")")?;
        return Some(DpAction::Hash { alg: 0, basis });
    }
    if s.eat("hash(sym_l4(") {
        let basis = closed(s)?;
        s.need(")")?;
        return Some(DpAction::Hash { alg: 1, basis });
    }
    if s.eat("trunc(") {
        // Shorter than an Ethernet header is not a packet.
        return closed(s).filter(|&n| n >= 14).map(|max_len| DpAction::Trunc { max_len });
    }
    if s.eat("meter(") {
        return Some(DpAction::Meter(closed(s)?));
    }
    if s.eat("userspace(pid=") {
        return userspace(s);
    }
    if s.eat("clone(") {
        return clone(s, ports, depth);
    }
    if s.rest == "drop" || s.rest.starts_with("drop,") {
        s.need("drop")?;
        return Some(DpAction::Drop(0));
    }
    let name = s.run(|c| !matches!(c, ',' | ')' | ' ' | '('))?;
    ports(name).map(DpAction::Output)
}

fn clone(s: &mut Scan, ports: PortNumbers, depth: u32) -> Option<DpAction> {
    if depth == MAX_NEST {
        return None;
    }
    let mut inner = Vec::new();
    if s.eat("drop)") {
        return Some(DpAction::Clone(inner.into()));
    }
    loop {
        s.skip_delimiters();
        if s.eat(")") {
            return Some(DpAction::Clone(inner.into()));
        }
        if inner.len() == MAX_ACTIONS {
            return None;
        }
        inner.push(action(s, ports, depth + 1)?);
    }
}

fn push_vlan(s: &mut Scan) -> Option<DpAction> {
    let (mut tpid, mut tci) = (0x8100, VLAN_CFI);
    attr::members(s, |s, name| {
        let n = s.number()?;
        match name {
            "tpid" if n <= 0xffff => tpid = n as u16,
            "vid" if n <= 0xfff => tci |= n as u16,
            "pcp" if n <= 7 => tci |= (n as u16) << 13,
            "cfi" if n <= 1 => tci = tci & !VLAN_CFI | (n as u16) << 12,
            _ => return None,
        }
        Some(())
    })?;
    s.need(")")?;
    Some(DpAction::PushVlan { tpid: tpid.into(), tci: tci.into() })
}

fn push_mpls(s: &mut Scan) -> Option<DpAction> {
    let (mut lse, mut ethertype) = (0u32, None);
    attr::members(s, |s, name| {
        let n = u32::try_from(s.number()?).ok()?;
        match name {
            "label" if n <= 0xfffff => lse |= n << 12,
            "tc" if n <= 7 => lse |= n << 9,
            "bos" if n <= 1 => lse |= n << 8,
            "ttl" if n <= 0xff => lse |= n,
            "eth_type" if n <= 0xffff => ethertype = Some(Be16::new(n as u16)),
            _ => return None,
        }
        Some(())
    })?;
    s.need(")")?;
    Some(DpAction::PushMpls { ethertype: ethertype?, lse: Be32::new(lse) })
}

fn userspace(s: &mut Scan) -> Option<DpAction> {
    let pid = u32::try_from(s.number()?).ok()?;
    s.need(",")?;
    let cookie = if s.eat("slow_path(") {
        let mut reason = 0;
        if !s.eat("0") {
            loop {
                let word = s.run(|c| c.is_ascii_lowercase())?;
                reason |= 1 << SLOW.iter().position(|n| *n == word)?;
                if !s.eat(",") {
                    break;
                }
            }
        }
        UserspaceCookie::SlowPath { reason }
    } else {
        s.need("controller(")?;
        controller(s)?
    };
    s.need("))")?;
    Some(DpAction::Userspace { pid, cookie })
}

fn controller(s: &mut Scan) -> Option<UserspaceCookie> {
    let (mut flags, mut recirc, mut reason, mut cookie, mut id, mut len) = ((false, false), 0, 0, 0, 0, 0);
    attr::members(s, |s, name| {
        let n = u64::try_from(s.number()?).ok()?;
        match name {
            "reason" => reason = n as u8,
            "dont_send" => flags.0 = n != 0,
            "continuation" => flags.1 = n != 0,
            "recirc_id" => recirc = n as u32,
            "rule_cookie" => cookie = n,
            "controller_id" => id = n as u16,
            "max_len" => len = n as u16,
            _ => return None,
        }
        Some(())
    })?;
    Some(UserspaceCookie::Controller {
        reason,
        dont_send: flags.0,
        continuation: flags.1,
        recirc_id: RecircId(recirc),
        rule_cookie: cookie,
        controller_id: id,
        max_len: len,
        frozen: 0,
    })
}

/// What stands in `set(...)`: an attribute of a key, with the members that are written.
fn set(s: &mut Scan) -> Option<SetField> {
    let options = KeyOptions::default();
    let a = attr::attribute(s, &options)?;
    let (f, m) = (&a.flow, &a.mask);
    let byte = |b: Be16| b.get() as u8;
    Some(match a.name {
        "eth" => SetField::Eth { src: f.dl_src, dst: f.dl_dst, src_mask: m.dl_src, dst_mask: m.dl_dst },
        "ipv4" => {
            let part =
                |f: &crate::key::Flow| Ipv4Set { src: f.nw_src, dst: f.nw_dst, tos: f.nw_tos, ttl: f.nw_ttl };
            SetField::Ipv4 { key: part(f), mask: part(m) }
        }
        "ipv6" => {
            let part = |f: &crate::key::Flow| Ipv6Set {
                src: f.ipv6_src,
                dst: f.ipv6_dst,
                label: f.ipv6_label,
                tclass: f.nw_tos,
                hlimit: f.nw_ttl,
            };
            SetField::Ipv6 { key: part(f), mask: part(m) }
        }
        "tcp" => SetField::Tcp { src: f.tp_src, dst: f.tp_dst, src_mask: m.tp_src, dst_mask: m.tp_dst },
        "udp" => SetField::Udp { src: f.tp_src, dst: f.tp_dst, src_mask: m.tp_src, dst_mask: m.tp_dst },
        "sctp" => SetField::Sctp { src: f.tp_src, dst: f.tp_dst, src_mask: m.tp_src, dst_mask: m.tp_dst },
        "icmp" | "icmpv6" => {
            let (kind, code) = (byte(f.tp_src), byte(f.tp_dst));
            let (kind_mask, code_mask) = (byte(m.tp_src), byte(m.tp_dst));
            if a.name == "icmp" {
                SetField::Icmp { kind, code, kind_mask, code_mask }
            } else {
                SetField::Icmp6 { kind, code, kind_mask, code_mask }
            }
        }
        "arp" => {
            let part = |f: &crate::key::Flow, op: u16| ArpSet {
                sip: f.nw_src,
                tip: f.nw_dst,
                op: Be16::new(op),
                sha: f.arp_sha,
                tha: f.arp_tha,
            };
            let op_mask = if m.nw_proto == 0xff { 0xffff } else { m.nw_proto.into() };
            SetField::Arp { key: part(f, a.arp_op.unwrap_or(0)), mask: part(m, op_mask) }
        }
        "nd" => {
            let part = |f: &crate::key::Flow| NdSet { target: f.nd_target, sll: f.arp_sha, tll: f.arp_tha };
            SetField::Nd { key: part(f), mask: part(m) }
        }
        "mpls" => SetField::Mpls { lse: f.mpls[0], mask: m.mpls[0] },
        "skb_priority" => SetField::SkbPriority { value: f.skb_priority, mask: m.skb_priority },
        "skb_mark" => SetField::SkbMark { value: f.pkt_mark, mask: m.pkt_mark },
        _ => return None,
    })
}

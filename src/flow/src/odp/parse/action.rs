//! Reading the text of datapath actions.
//!
//! Neighbours: parent module; `odp::action` writes the same text. Threads: plain functions.

use super::scan::{Scan, DELIMITERS};
use super::{attr, KeyOptions, PortNumbers};
use crate::action::{ArpSet, DpAction, Ipv4Set, Ipv6Set, NdSet, SetField, UserspaceCookie};
use crate::be::Be16;
use crate::key::VLAN_CFI;
use crate::odp::action::SLOW;
use crate::port::{DpPort, RecircId};

/// How deep `clone(...)` may nest.
const MAX_NEST: u32 = 8;
/// Actions in one list.
const MAX_ACTIONS: usize = 4096;

/// Actions that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActionError {
    /// Not the text of an action.
    #[error("syntax error at {0}")]
    Syntax(String),
    /// An action with something right behind it.
    #[error("{rest} stands where an action ends")]
    Garbage {
        /// Bytes of the action.
        length: usize,
        /// What is behind it.
        rest: String,
    },
}

impl ActionError {
    /// The words that Open vSwitch has for it, which takes the length of an action for the number of an error.
    pub fn reason(&self) -> String {
        match self {
            ActionError::Syntax(_) => "Invalid argument".into(),
            ActionError::Garbage { length: 1, .. } => "End of file".into(),
            ActionError::Garbage { length, .. } => format!("Unknown error -{length}"),
        }
    }
}

/// Reads a list of actions: `1,2`, `set(eth(src=...)),p1`, `drop`.
///
/// As in Open vSwitch not all that is printed can be read: not `hash`, `push_mpls` and `pop_mpls`, no hexadecimal
/// `recirc`, no `drop` beside or within others; reasons of a slow path are joined by `|`.
pub fn parse_actions(text: &str, ports: PortNumbers) -> Result<Vec<DpAction>, ActionError> {
    if text == "drop" {
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
        out.push(a.ok_or_else(|| ActionError::Syntax(start.to_string()))?);
        if !s.rest.is_empty() && !s.rest.starts_with(DELIMITERS) {
            return Err(ActionError::Garbage {
                length: start.len() - s.rest.len(),
                rest: s.rest.to_string(),
            });
        }
    }
}

/// A decimal number, and the parenthesis after it.
fn closed(s: &mut Scan) -> Option<u32> {
    let v = s.decimal()?;
    s.need(")")?;
    Some(v)
}

fn action(s: &mut Scan, ports: PortNumbers, depth: u32) -> Option<DpAction> {
    if s.rest.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(DpAction::Output(DpPort(s.number()? as u32)));
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
    if s.eat("recirc(") {
        return Some(DpAction::Recirc(RecircId(closed(s)?)));
    }
    if s.eat("trunc(") {
        return Some(DpAction::Trunc { max_len: closed(s)? });
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
    let name = s.run(|c| !matches!(c, ',' | ')' | ' ' | '('))?;
    ports(name).map(DpAction::Output)
}

fn clone(s: &mut Scan, ports: PortNumbers, depth: u32) -> Option<DpAction> {
    if depth == MAX_NEST {
        return None;
    }
    let mut inner = Vec::new();
    loop {
        s.skip_delimiters();
        if s.eat(")") {
            return Some(DpAction::Clone(inner.into()));
        }
        if inner.len() == MAX_ACTIONS {
            return None;
        }
        inner.push(action(s, ports, depth + 1)?);
        if !s.rest.starts_with(')') && !s.rest.starts_with(DELIMITERS) {
            return None;
        }
    }
}

/// A member that must come next.
fn member(s: &mut Scan, name: &str, max: u128) -> Option<u16> {
    s.need(name)?;
    s.number().filter(|n| *n <= max).map(|n| n as u16)
}

fn push_vlan(s: &mut Scan) -> Option<DpAction> {
    let mut tpid = 0x8100;
    if s.rest.starts_with("tpid") {
        tpid = member(s, "tpid=", 0xffff)?;
        s.need(",")?;
    }
    let vid = member(s, "vid=", 0xfff)?;
    let pcp = member(s, ",pcp=", 7)?;
    let cfi = if s.rest.starts_with(',') { member(s, ",cfi=", 1)? } else { 1 };
    s.need(")")?;
    let tci = vid | pcp << 13 | if cfi == 1 { VLAN_CFI } else { 0 };
    Some(DpAction::PushVlan { tpid: tpid.into(), tci: tci.into() })
}

fn userspace(s: &mut Scan) -> Option<DpAction> {
    let pid = u32::try_from(s.number()?).ok()?;
    s.need(",")?;
    let cookie = if s.eat("slow_path(") {
        let (reason, _) = s.flags(&SLOW, (1 << SLOW.len()) - 1)?;
        UserspaceCookie::SlowPath { reason }
    } else {
        s.need("controller(")?;
        controller(s)?
    };
    s.need("))")?;
    Some(DpAction::Userspace { pid, cookie })
}

fn controller(s: &mut Scan) -> Option<UserspaceCookie> {
    let mut next = |name: &str| {
        s.need(name)?;
        u64::try_from(s.number()?).ok()
    };
    let (reason, dont_send) = (next("reason=")? as u8, next(",dont_send=")? != 0);
    let (continuation, recirc) = (next(",continuation=")? != 0, next(",recirc_id=")? as u32);
    let (cookie, id, len) =
        (next(",rule_cookie=")?, next(",controller_id=")? as u16, next(",max_len=")? as u16);
    Some(UserspaceCookie::Controller {
        reason,
        dont_send,
        continuation,
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

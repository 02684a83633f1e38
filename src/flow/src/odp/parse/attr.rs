//! Attributes of a key, each read into a flow and a mask of its own.
//!
//! Neighbours: the parent module puts them together. Threads: plain data.

use super::scan::Scan;
use super::{KeyError, KeyOptions};
use crate::be::{Be16, Be32};
use crate::key::{Flow, MAX_MPLS, VLAN_CFI};
use crate::odp::Ufid;
use crate::text::{CT_STATE, TCP_FLAGS, TUN_FLAGS};

/// How deep `encap` may nest: one level more than any flow can hold.
const MAX_NEST: u32 = 4;

/// An attribute.
pub(super) struct Attr {
    pub name: &'static str,
    pub flow: Box<Flow>,
    pub mask: Box<Flow>,
    /// A mask was written.
    pub masked: bool,
    /// The whole ARP opcode: a flow only holds its low byte.
    pub arp_op: Option<u16>,
    /// Attributes within `encap`.
    pub inner: Vec<Attr>,
}

impl Attr {
    fn new(name: &'static str) -> Attr {
        Attr {
            name,
            flow: Box::default(),
            mask: Box::default(),
            masked: false,
            arp_op: None,
            inner: Vec::new(),
        }
    }
}

/// Attributes not used yet, each at most once.
pub(super) struct Attrs<'a>(Vec<&'a Attr>);

impl<'a> Attrs<'a> {
    /// Fails with the name of an attribute that is there twice.
    pub fn new(all: &'a [Attr]) -> Result<Attrs<'a>, &'static str> {
        let mut list: Vec<&Attr> = Vec::with_capacity(all.len());
        for a in all {
            if list.iter().any(|o| o.name == a.name) {
                return Err(a.name);
            }
            list.push(a);
        }
        Ok(Attrs(list))
    }

    pub fn get(&self, name: &str) -> Option<&'a Attr> {
        self.0.iter().find(|a| a.name == name).copied()
    }

    pub fn take(&mut self, name: &str) -> Option<&'a Attr> {
        let i = self.0.iter().position(|a| a.name == name)?;
        Some(self.0.swap_remove(i))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads all attributes of a text.
pub(super) fn parse(text: &str, options: &KeyOptions) -> Result<Vec<Attr>, KeyError> {
    let mut s = Scan::new(text, options.masks);
    list(&mut s, options, 0, false)
}

fn list(s: &mut Scan, options: &KeyOptions, depth: u32, nested: bool) -> Result<Vec<Attr>, KeyError> {
    let mut all = Vec::new();
    loop {
        s.skip_delimiters();
        if s.rest.is_empty() && !nested || nested && s.eat(")") {
            return Ok(all);
        }
        if let Some(rest) =
            s.rest.strip_prefix("ufid:").filter(|r| r.get(..36).and_then(Ufid::parse).is_some())
        {
            // A name is not part of a key.
            return Err(KeyError::Syntax(rest[36..].to_string()));
        }
        let start = s.rest;
        let syntax = || KeyError::Syntax(start.to_string());
        // No key has more attributes than there are names.
        if all.len() > KINDS.len() + 1 {
            return Err(syntax());
        }
        if s.eat("encap(") {
            if depth == MAX_NEST {
                return Err(syntax());
            }
            let mut a = Attr::new("encap");
            a.inner = list(s, options, depth + 1, true)?;
            all.push(a);
            continue;
        }
        all.push(attribute(s, options).ok_or_else(syntax)?);
    }
}

/// Reads what stands in the parentheses of an attribute.
type Reader = fn(&mut Scan, &mut Attr, &KeyOptions) -> Option<()>;

/// All attributes but `encap`; those that any flow may have come first.
const KINDS: [(&str, Reader); 27] = [
    ("skb_priority", |s, a, _| Some((a.flow.skb_priority, a.mask.skb_priority) = word(s)?)),
    ("skb_mark", |s, a, _| Some((a.flow.pkt_mark, a.mask.pkt_mark) = word(s)?)),
    ("recirc_id", |s, a, _| Some((a.flow.recirc_id, a.mask.recirc_id) = word(s)?)),
    ("dp_hash", |s, a, _| Some((a.flow.dp_hash, a.mask.dp_hash) = word(s)?)),
    ("ct_state", |s, a, _| {
        let (v, bits) = any_mask(s, |s| s.flags(&CT_STATE, 0xff))?;
        Some((a.flow.ct_state, a.mask.ct_state) = (v as u8, bits as u8))
    }),
    ("ct_zone", |s, a, _| {
        let (v, bits) = any_mask(s, |s| s.num(0xffff))?;
        Some((a.flow.ct_zone, a.mask.ct_zone) = (v as u16, bits as u16))
    }),
    ("ct_mark", |s, a, _| Some((a.flow.ct_mark, a.mask.ct_mark) = word(s)?)),
    ("ct_label", |s, a, _| {
        let (v, bits) = any_mask(s, |s| s.num(u128::MAX))?;
        Some((a.flow.ct_label, a.mask.ct_label) = (v.to_be_bytes(), bits.to_be_bytes()))
    }),
    ("ct_tuple4", of_addresses),
    ("ct_tuple6", of_addresses),
    ("tunnel", |s, a, _| tunnel(s, a)),
    ("in_port", in_port),
    ("packet_type", |s, a, _| packet_type(s, a)),
    ("eth", of_addresses),
    ("vlan", |s, a, _| vlan(s, a)),
    ("eth_type", |s, a, _| {
        Some((a.flow.dl_type, a.mask.dl_type) = any_mask(s, |s| s.num(0xffff)).map(be16)?)
    }),
    ("mpls", |s, a, _| mpls(s, a)),
    ("ipv4", of_addresses),
    ("ipv6", of_addresses),
    ("tcp", of_transport),
    ("tcp_flags", |s, a, _| {
        let (v, bits) = any_mask(s, |s| s.flags(&TCP_FLAGS, 0xfff))?;
        Some((a.flow.tcp_flags, a.mask.tcp_flags) = be16((v.into(), bits.into())))
    }),
    ("udp", of_transport),
    ("sctp", of_transport),
    ("icmp", of_transport),
    ("icmpv6", of_transport),
    ("arp", of_addresses),
    ("nd", of_addresses),
];

/// Attributes that any flow may have.
pub(super) fn metadata() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name).take_while(|name| *name != "in_port")
}

pub(super) fn attribute(s: &mut Scan, options: &KeyOptions) -> Option<Attr> {
    let before = s.rest;
    let open = s.rest.find('(')?;
    let (name, read) = KINDS.iter().find(|(n, _)| *n == &s.rest[..open])?;
    s.rest = &s.rest[open + 1..];
    let mut a = Attr::new(name);
    read(s, &mut a, options)?;
    s.need(")")?;
    a.masked = before[..before.len() - s.rest.len()].contains('/');
    Some(a)
}

fn of_addresses(s: &mut Scan, a: &mut Attr, _: &KeyOptions) -> Option<()> {
    members(s, |s, name| addresses(s, name, a))
}

fn of_transport(s: &mut Scan, a: &mut Attr, _: &KeyOptions) -> Option<()> {
    members(s, |s, name| transport(s, name, a))
}

/// Metadata takes a mask in any case; it counts only where masks do.
fn any_mask<T>(s: &mut Scan, read: impl Fn(&mut Scan) -> Option<T>) -> Option<T> {
    let masks = std::mem::replace(&mut s.masks, true);
    let v = read(s);
    s.masks = masks;
    v
}

fn word(s: &mut Scan) -> Option<(u32, u32)> {
    any_mask(s, |s| s.num(u32::MAX.into())).map(|(v, m)| (v as u32, m as u32))
}

/// `name=value,...` up to the closing parenthesis, which stays.
pub(super) fn members(s: &mut Scan, mut one: impl FnMut(&mut Scan, &str) -> Option<()>) -> Option<()> {
    while !s.rest.starts_with(')') {
        let end = s.rest.find('=').filter(|&e| e <= 16)?;
        let name = &s.rest[..end];
        s.rest = &s.rest[end + 1..];
        one(s, name)?;
        if !s.eat(",") && !s.rest.starts_with(')') {
            return None;
        }
    }
    Some(())
}

fn be16((v, m): (u128, u128)) -> (Be16, Be16) {
    (Be16::new(v as u16), Be16::new(m as u16))
}

fn byte((v, m): (u128, u128)) -> (u8, u8) {
    (v as u8, m as u8)
}

fn be32((v, m): (u32, u32)) -> (Be32, Be32) {
    (Be32::new(v), Be32::new(m))
}

fn in_port(s: &mut Scan, a: &mut Attr, options: &KeyOptions) -> Option<()> {
    let word = s.run(|c| c != ')')?;
    let mut n = Scan::new(word, false);
    let port = match n.number() {
        Some(v) if n.rest.is_empty() => v as u32,
        _ => (options.ports)(word)?.0,
    };
    (a.flow.in_port, a.mask.in_port) = (port, u32::MAX);
    Some(())
}

fn packet_type(s: &mut Scan, a: &mut Attr) -> Option<()> {
    let (mut v, mut m) = (0, 0);
    members(s, |s, name| {
        let (n, bits) = s.num(0xffff)?;
        let shift = match name {
            "ns" => 16,
            "id" => 0,
            _ => return None,
        };
        v |= (n as u32) << shift;
        m |= (bits as u32) << shift;
        Some(())
    })?;
    (a.flow.packet_type, a.mask.packet_type) = be32((v, m));
    Some(())
}

fn vlan(s: &mut Scan, a: &mut Attr) -> Option<()> {
    let (mut v, mut m) = (VLAN_CFI, VLAN_CFI);
    members(s, |s, name| {
        let (bits, shift) = match name {
            "vid" => (0xfff, 0),
            "pcp" => (7, 13),
            "cfi" => (1, 12),
            _ => return None,
        };
        let (n, mask) = s.strict(bits)?;
        let place = (bits as u16) << shift;
        v = v & !place | (n as u16) << shift;
        m = m & !place | (mask as u16) << shift;
        Some(())
    })?;
    (a.flow.vlans[0].tci, a.mask.vlans[0].tci) = (Be16::new(v), Be16::new(m));
    Some(())
}

/// Label stack entries; each begins where a member comes again.
fn mpls(s: &mut Scan, a: &mut Attr) -> Option<()> {
    let mut n = 0;
    let mut seen = 0u8;
    members(s, |s, name| {
        let (bits, shift, which): (u32, u32, u8) = match name {
            "label" => (0xfffff, 12, 1),
            "tc" => (7, 9, 2),
            "bos" => (1, 8, 4),
            "ttl" => (0xff, 0, 8),
            _ => return None,
        };
        // The mask of the short members is written in hexadecimal without a prefix: one digit, the same.
        let (v, m) = s.strict(bits.into())?;
        if seen & which != 0 {
            n += 1;
            seen = 0;
        }
        seen |= which;
        if n == MAX_MPLS {
            return None;
        }
        let or = |e: &mut Be32, v: u128| *e |= Be32::new((v as u32) << shift);
        or(&mut a.flow.mpls[n], v);
        or(&mut a.mask.mpls[n], m);
        Some(())
    })
}

fn addresses(s: &mut Scan, name: &str, a: &mut Attr) -> Option<()> {
    let (f, m) = (&mut *a.flow, &mut *a.mask);
    match (a.name, name) {
        ("eth", "src") => (f.dl_src, m.dl_src) = s.mac()?,
        ("eth", "dst") => (f.dl_dst, m.dl_dst) = s.mac()?,
        ("ipv4", "src") | ("arp", "sip") => (f.nw_src, m.nw_src) = be32(s.ip4()?),
        ("ipv4", "dst") | ("arp", "tip") => (f.nw_dst, m.nw_dst) = be32(s.ip4()?),
        ("ipv6", "src") => (f.ipv6_src, m.ipv6_src) = s.ip6()?,
        ("ipv6", "dst") => (f.ipv6_dst, m.ipv6_dst) = s.ip6()?,
        ("ipv6", "label") => {
            let (v, bits) = s.strict(0xfffff)?;
            (f.ipv6_label, m.ipv6_label) = be32((v as u32, bits as u32));
        }
        ("ipv4" | "ipv6", "proto") => (f.nw_proto, m.nw_proto) = byte(s.num(0xff)?),
        ("ipv4", "tos") | ("ipv6", "tclass") => (f.nw_tos, m.nw_tos) = byte(s.num(0xff)?),
        ("ipv4", "ttl") | ("ipv6", "hlimit") => (f.nw_ttl, m.nw_ttl) = byte(s.num(0xff)?),
        ("ipv4" | "ipv6", "frag") => {
            f.nw_frag = match s.run(|c| c.is_ascii_lowercase())? {
                "no" => 0,
                "first" => 1,
                "later" => 3,
                _ => return None,
            };
            m.nw_frag = 3;
        }
        ("arp", "op") => {
            let (v, bits) = s.num(0xffff)?;
            a.arp_op = Some(v as u16);
            (f.nw_proto, m.nw_proto) = (v as u8, bits as u8);
        }
        ("arp", "sha") | ("nd", "sll") => (f.arp_sha, m.arp_sha) = s.mac()?,
        ("arp", "tha") | ("nd", "tll") => (f.arp_tha, m.arp_tha) = s.mac()?,
        ("nd", "target") => (f.nd_target, m.nd_target) = s.ip6()?,
        ("ct_tuple4", "src") => (f.ct_nw_src, m.ct_nw_src) = be32(s.ip4()?),
        ("ct_tuple4", "dst") => (f.ct_nw_dst, m.ct_nw_dst) = be32(s.ip4()?),
        ("ct_tuple6", "src") => (f.ct_ipv6_src, m.ct_ipv6_src) = s.ip6()?,
        ("ct_tuple6", "dst") => (f.ct_ipv6_dst, m.ct_ipv6_dst) = s.ip6()?,
        ("ct_tuple4" | "ct_tuple6", "proto") => (f.ct_nw_proto, m.ct_nw_proto) = byte(s.num(0xff)?),
        ("ct_tuple4", "tp_src") | ("ct_tuple6", "src_port") => {
            (f.ct_tp_src, m.ct_tp_src) = be16(s.num(0xffff)?);
        }
        ("ct_tuple4", "tp_dst") | ("ct_tuple6", "dst_port") => {
            (f.ct_tp_dst, m.ct_tp_dst) = be16(s.num(0xffff)?);
        }
        _ => return None,
    }
    Some(())
}

fn transport(s: &mut Scan, name: &str, a: &mut Attr) -> Option<()> {
    let icmp = a.name.starts_with("icmp");
    // A whole type or code fills the sixteen bits it is kept in.
    let wide = |(v, m): (u128, u128)| be16((v, if icmp && m == 0xff { 0xffff } else { m }));
    let (f, m) = (&mut *a.flow, &mut *a.mask);
    let full = if icmp { 0xff } else { 0xffff };
    match (icmp, name) {
        (false, "src") | (true, "type") => (f.tp_src, m.tp_src) = wide(s.num(full)?),
        (false, "dst") | (true, "code") => (f.tp_dst, m.tp_dst) = wide(s.num(full)?),
        _ => return None,
    }
    Some(())
}

fn tunnel(s: &mut Scan, a: &mut Attr) -> Option<()> {
    const KEY: u16 = 8;
    let (f, m) = (&mut *a.flow, &mut *a.mask);
    while !s.rest.starts_with(')') {
        if s.eat("flags(") {
            let (v, bits) = s.flags(&TUN_FLAGS, 0xf)?;
            s.need(")")?;
            (f.tun_flags, m.tun_flags) = (f.tun_flags | v as u16, m.tun_flags | bits as u16);
        } else if s.eat("vxlan(gbp(") {
            members(s, |s, name| {
                match name {
                    "id" => (f.tun_gbp_id, m.tun_gbp_id) = be16(s.num(0xffff)?),
                    "flags" => (f.tun_gbp_flags, m.tun_gbp_flags) = byte(s.num(0xff)?),
                    _ => return None,
                }
                Some(())
            })?;
            s.need("))")?;
        } else {
            let end = s.rest.find('=').filter(|&e| e <= 16)?;
            let name = &s.rest[..end];
            s.rest = &s.rest[end + 1..];
            match name {
                "tun_id" => {
                    let (v, bits) = s.num(u64::MAX.into())?;
                    (f.tun_id, m.tun_id) = ((v as u64).into(), (bits as u64).into());
                    (f.tun_flags, m.tun_flags) = (f.tun_flags | KEY, m.tun_flags | KEY);
                }
                "src" => (f.tun_src, m.tun_src) = be32(s.ip4()?),
                "dst" => (f.tun_dst, m.tun_dst) = be32(s.ip4()?),
                "ipv6_src" => (f.tun_ipv6_src, m.tun_ipv6_src) = s.ip6()?,
                "ipv6_dst" => (f.tun_ipv6_dst, m.tun_ipv6_dst) = s.ip6()?,
                "tos" => (f.tun_tos, m.tun_tos) = byte(s.num(0xff)?),
                "ttl" => (f.tun_ttl, m.tun_ttl) = byte(s.num(0xff)?),
                "tp_src" => (f.tun_tp_src, m.tun_tp_src) = be16(s.num(0xffff)?),
                "tp_dst" => (f.tun_tp_dst, m.tun_tp_dst) = be16(s.num(0xffff)?),
                _ => return None,
            }
        }
        if !s.eat(",") && !s.rest.starts_with(')') {
            return None;
        }
    }
    Some(())
}

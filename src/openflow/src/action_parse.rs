//! Reading actions as people write them for ovs-ofctl(8): `set_field:5->reg0,resubmit(,1),2`.
//!
//! Instructions are refused: what reads this are packet-outs. Neighbours: `action_text` is the inverse,
//! `ofproto/trace-packet-out` reads with it. Threads: plain functions.

use crate::action_text::nxm_name;
use crate::Action;
use flow::matching::parse::{field_value, number, KeyValues};
use flow::matching::ParseError;
use flow::{Field, OfPort, SubField};

/// Why actions cannot be read. Texts are those of Open vSwitch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ActionParseError {
    #[error("unknown action {0}")]
    Unknown(String),
    #[error("{0} instruction not allowed here")]
    Instruction(String),
    #[error("\"drop\" must not be accompanied by any other action or instruction")]
    Drop,
    #[error("{0}: output to unknown port")]
    OutputPort(String),
    #[error("max_len {0} is less than the minimum value 14")]
    ShortTrunc(u32),
    #[error("{text}: {why}")]
    Argument { text: String, why: String },
    #[error("invalid {what} \"{text}\"")]
    Invalid { what: &'static str, text: String },
    #[error("invalid mac address {0}")]
    Mac(String),
    #[error("{0} is not a valid OXM field name")]
    FieldName(String),
    #[error("{0} is read-only")]
    ReadOnly(&'static str),
    #[error("at least one \"in_port\" or \"table\" must be specified on resubmit")]
    Resubmit,
    #[error("unknown reason \"{0}\"")]
    Reason(String),
    #[error("unknown key \"{0}\" parsing controller action")]
    ControllerKey(String),
    #[error("{0}: not enough arguments to {1} action")]
    TooFew(String, &'static str),
    #[error("{0}: unknown {1} `{2}'")]
    Name(String, &'static str, String),
}

use ActionParseError as E;

fn arg(text: &str, why: impl Into<String>) -> E {
    E::Argument { text: text.into(), why: why.into() }
}

/// Reads a list of actions.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn parse_actions(text: &str) -> Result<Vec<Action>, E> {
    let (mut out, mut n, mut drop) = (Vec::new(), 0, false);
    for (name, value) in KeyValues::new(text) {
        n += 1;
        if name == "drop" {
            drop = true;
        } else {
            out.push(one(name, value)?);
        }
    }
    if drop && n > 1 {
        return Err(E::Drop);
    }
    Ok(out)
}

fn one(name: &str, value: &str) -> Result<Action, E> {
    Ok(match name {
        "output" => output(value)?,
        "controller" | "CONTROLLER" => controller(value)?,
        "enqueue" => enqueue(value)?,
        "group" => Action::Group(small(value, "group", u32::MAX)?),
        "meter" => Action::Meter(small(value, "meter id", u32::MAX)?),
        "set_queue" => Action::SetQueue(small(value, "queue", u32::MAX)?),
        "pop_queue" => Action::PopQueue,
        "resubmit" => resubmit(value)?,
        "set_field" => set_field(value)?,
        "load" => load(value)?,
        "move" => reg_move(value)?,
        "push" => Action::StackPush(whole_subfield(value)?),
        "pop" => Action::StackPop(whole_subfield(value)?),
        "multipath" => multipath(value)?,
        "note" => Action::Note(note(value)),
        "exit" => Action::Exit,
        "set_tunnel" | "set_tunnel64" => Action::SetTunnel(long(value)?),
        "goto_table" | "write_metadata" | "clear_actions" | "write_actions" | "apply_actions" => {
            return Err(E::Instruction(name.into()))
        }
        _ => match header(name, value)? {
            Some(a) => a,
            None => reserved(name)?,
        },
    })
}

/// Actions that write one header field.
fn header(name: &str, value: &str) -> Result<Option<Action>, E> {
    Ok(Some(match name {
        "mod_dl_src" | "set_dl_src" => Action::SetEthSrc(mac(value)?),
        "mod_dl_dst" | "set_dl_dst" => Action::SetEthDst(mac(value)?),
        "mod_nw_src" | "set_nw_src" => Action::SetIpv4Src(ip(value)?),
        "mod_nw_dst" | "set_nw_dst" => Action::SetIpv4Dst(ip(value)?),
        "mod_nw_tos" | "set_nw_tos" => match byte(value, "TOS")? {
            tos if tos & 3 == 0 => Action::SetIpDscp(tos),
            _ => return Err(arg(value, "not a valid TOS")),
        },
        "mod_nw_ecn" | "set_nw_ecn" => match byte(value, "ECN")? {
            ecn if ecn < 4 => Action::SetIpEcn(ecn),
            _ => return Err(arg(value, "not a valid ECN")),
        },
        "mod_nw_ttl" | "set_nw_ttl" => Action::SetIpTtl(byte(value, "TTL")?),
        "mod_tp_src" | "set_tp_src" => Action::SetL4SrcPort(small(value, "source port", 0xffff)? as u16),
        "mod_tp_dst" | "set_tp_dst" => Action::SetL4DstPort(small(value, "destination port", 0xffff)? as u16),
        "mod_vlan_vid" | "set_vlan_vid" => match small(value, "VLAN VID", 0xffff)? {
            vid if vid < 0x1000 => Action::SetVlanVid {
                vid: vid as u16,
                push_if_needed: name == "mod_vlan_vid",
                flow_has_vlan: false,
            },
            _ => return Err(arg(value, "not a valid VLAN VID")),
        },
        "mod_vlan_pcp" | "set_vlan_pcp" => match byte(value, "VLAN PCP")? {
            pcp if pcp < 8 => {
                Action::SetVlanPcp { pcp, push_if_needed: name == "mod_vlan_pcp", flow_has_vlan: false }
            }
            _ => return Err(arg(value, "not a valid VLAN PCP")),
        },
        "strip_vlan" => Action::StripVlan,
        "pop_vlan" => Action::PopVlan,
        "push_vlan" => match small(value, "ethertype", 0xffff)? {
            t @ (0x8100 | 0x88a8) => Action::PushVlan(t as u16),
            _ => return Err(arg(value, "not a valid VLAN ethertype")),
        },
        "push_mpls" => Action::PushMpls(small(value, "push_mpls", 0xffff)? as u16),
        "pop_mpls" => Action::PopMpls(small(value, "pop_mpls", 0xffff)? as u16),
        "set_mpls_label" => Action::SetMplsLabel(small(value, "MPLS label", 0xf_ffff)?),
        "set_mpls_tc" => Action::SetMplsTc(small(value, "MPLS TC", 7)? as u8),
        "set_mpls_ttl" => Action::SetMplsTtl(byte(value, "MPLS TTL")?),
        "dec_mpls_ttl" => Action::DecMplsTtl,
        "dec_ttl" => {
            let ids = value.split([',', ' ']).filter(|w| !w.is_empty());
            let ids: Result<Vec<u16>, E> =
                ids.map(|w| Ok(small(w, "controller id", 0xffff)? as u16)).collect();
            Action::DecTtl(ids?.into())
        }
        _ => return Ok(None),
    }))
}

/// A port as an action of its own.
fn reserved(name: &str) -> Result<Action, E> {
    let port = match number(name) {
        Some(n) => u32::try_from(n).ok().and_then(any_port),
        None => OfPort::from_name(name),
    };
    port.map(|port| Action::Output { port, max_len: 0 }).ok_or_else(|| E::Unknown(name.into()))
}

/// 16-bit numbers, and the 32-bit ones of reserved ports.
fn any_port(n: u32) -> Option<OfPort> {
    u16::try_from(n).map(OfPort).ok().or_else(|| OfPort::from_of11(n))
}

fn port(text: &str) -> Option<OfPort> {
    match number(text) {
        Some(n) => u32::try_from(n).ok().and_then(any_port),
        None => OfPort::from_name(text),
    }
}

fn small(text: &str, what: &'static str, max: u32) -> Result<u32, E> {
    let n = number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
    n.ok_or_else(|| E::Invalid { what, text: text.into() })
}

fn byte(text: &str, what: &'static str) -> Result<u8, E> {
    Ok(small(text, what, 0xff)? as u8)
}

fn long(text: &str) -> Result<u64, E> {
    let n = number(text).and_then(|n| u64::try_from(n).ok());
    n.ok_or_else(|| arg(text, "invalid integer value"))
}

fn value_bytes(field: Field, text: &str) -> Option<[u8; 16]> {
    field_value(field, text).ok().filter(|(_, m)| *m == field.all_ones()).map(|(v, _)| v.to_be_bytes())
}

fn mac(text: &str) -> Result<[u8; 6], E> {
    let b = value_bytes(Field::EthSrc, text).ok_or_else(|| E::Mac(text.into()))?;
    Ok(std::array::from_fn(|i| b[10 + i]))
}

fn ip(text: &str) -> Result<[u8; 4], E> {
    let b = value_bytes(Field::Ipv4Src, text).ok_or_else(|| arg(text, "could not convert to IP address"))?;
    Ok(std::array::from_fn(|i| b[12 + i]))
}

fn note(text: &str) -> Box<[u8]> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|p| (p[0] * 16 + p[1]) as u8).collect()
}

fn output(text: &str) -> Result<Action, E> {
    if text.contains("port=") && text.contains("max_len=") {
        let (mut to, mut max_len) = (None, 0);
        for (k, v) in KeyValues::new(text) {
            match k {
                "port" => to = Some(port(v).ok_or_else(|| arg(v, "output to unknown truncate port"))?),
                "max_len" => max_len = small(v, "max_len", u32::MAX)?,
                _ => return Err(arg(text, format!("invalid key '{k}' in output_trunc argument"))),
            }
        }
        return match to {
            _ if max_len < 14 => Err(E::ShortTrunc(max_len)),
            Some(port) => Ok(Action::OutputTrunc { port, max_len }),
            None => Err(E::OutputPort(text.into())),
        };
    }
    if let Some(port) = port(text) {
        return Ok(Action::Output { port, max_len: 0 });
    }
    match whole_subfield(text) {
        Ok(src) => Ok(Action::OutputReg { src, max_len: u16::MAX }),
        Err(_) => Err(E::OutputPort(text.into())),
    }
}

fn enqueue(text: &str) -> Result<Action, E> {
    let mut parts = text.split([':', ',']);
    let (Some(p), Some(q)) = (parts.next(), parts.next()) else {
        return Err(arg(text, "\"enqueue\" syntax is \"enqueue:PORT:QUEUE\" or \"enqueue(PORT,QUEUE)\""));
    };
    let port = port(p).ok_or_else(|| arg(p, "enqueue to unknown port"))?;
    Ok(Action::Enqueue { port, queue: small(q, "queue", u32::MAX)? })
}

fn controller(text: &str) -> Result<Action, E> {
    let (mut max_len, mut controller_id, mut reason) = (u16::MAX, 0, 1);
    let (mut pause, mut userdata, mut meter_id) = (false, Box::default(), None);
    if text.is_empty() || number(text).is_some() {
        if !text.is_empty() {
            max_len = small(text, "max_len", 0xffff)? as u16;
        }
        return Ok(Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id });
    }
    for (k, v) in KeyValues::new(text) {
        match k {
            "max_len" => max_len = small(v, "max_len", 0xffff)? as u16,
            "id" => controller_id = small(v, "controller id", 0xffff)? as u16,
            "reason" => {
                let n = (0..8).find(|r| crate::reason_name(*r) == v);
                reason = n.ok_or_else(|| E::Reason(v.into()))?;
            }
            "userdata" => userdata = note(v),
            "pause" => pause = true,
            "meter_id" => meter_id = Some(small(v, "meter_id", u32::MAX)?),
            _ => return Err(E::ControllerKey(k.into())),
        }
    }
    Ok(Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id })
}

fn resubmit(text: &str) -> Result<Action, E> {
    let mut parts = text.split(',');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let with_ct = parts.next() == Some("ct");
    if first.is_empty() && second.is_empty() {
        return Err(E::Resubmit);
    }
    let in_port = match first {
        "" => OfPort::IN_PORT,
        p => port(p).ok_or_else(|| arg(p, "resubmit to unknown port"))?,
    };
    let table = match second {
        "" => 255,
        t => small(t, "table", 254).map_err(|_| arg(t, "resubmit to unknown table"))? as u8,
    };
    Ok(Action::Resubmit { in_port, table, with_ct })
}

/// Splits at the arrow of `set_field` and `load`.
fn arrow(text: &str) -> Result<(&str, &str), E> {
    text.split_once("->").ok_or_else(|| arg(text, "missing `->'"))
}

fn set_field(text: &str) -> Result<Action, E> {
    let (value, name) = arrow(text)?;
    if name.is_empty() {
        return Err(arg(text, "missing field name following `->'"));
    }
    let field =
        Field::from_name(name).or_else(|| by_header(name)).ok_or_else(|| E::FieldName(name.into()))?;
    if !field.writable() {
        return Err(E::ReadOnly(field.name()));
    }
    let (value, mask) = field_value(field, value).map_err(|e| match e {
        ParseError::Value { why, .. } => match why.split_once(": ") {
            Some((text, why)) => arg(text, why),
            None => arg(value, why),
        },
        other => arg(value, other.to_string()),
    })?;
    Ok(Action::SetField { field, value, mask, flow_has_vlan: false })
}

fn load(text: &str) -> Result<Action, E> {
    let (value, dst) = arrow(text)?;
    let value = number(value).ok_or_else(|| arg(text, "cannot parse integer value"))?;
    let dst = whole_subfield(dst)?;
    if dst.n_bits < 128 && value >> dst.n_bits != 0 {
        return Err(arg(text, format!("value {value:#x} does not fit into {} bits", dst.n_bits)));
    }
    if !dst.field.writable() {
        return Err(E::ReadOnly(dst.field.name()));
    }
    Ok(Action::Load { dst, value })
}

fn reg_move(text: &str) -> Result<Action, E> {
    let (src, dst) = text.split_once("->").ok_or_else(|| arg(text, "missing `->' following source"))?;
    let (src, dst) = (whole_subfield(src)?, whole_subfield(dst)?);
    if src.n_bits != dst.n_bits {
        let why =
            format!("source field is {} bits wide but destination is {} bits wide", src.n_bits, dst.n_bits);
        return Err(arg(text, why));
    }
    Ok(Action::Move { src, dst })
}

fn multipath(text: &str) -> Result<Action, E> {
    let words: Vec<&str> = text.split([',', ' ']).filter(|w| !w.is_empty()).collect();
    let &[fields, basis, algorithm, n_links, arg_text, dst] = words.as_slice() else {
        return Err(E::TooFew(text.into(), "multipath"));
    };
    const FIELDS: [&str; 7] = [
        "eth_src",
        "symmetric_l4",
        "symmetric_l3l4",
        "symmetric_l3l4+udp",
        "nw_src",
        "nw_dst",
        "symmetric_l3",
    ];
    const ALGORITHMS: [&str; 4] = ["modulo_n", "hash_threshold", "hrw", "iter_hash"];
    let index = |list: &[&str], what: &'static str, w: &str| {
        let i = list.iter().position(|n| *n == w);
        i.map(|i| i as u16).ok_or_else(|| E::Name(text.into(), what, w.into()))
    };
    let links = small(n_links, "n_links", 65_536)?;
    if links == 0 {
        return Err(arg(text, "n_links 0 is not in valid range 1 to 65536"));
    }
    Ok(Action::Multipath {
        fields: index(&FIELDS, "fields", fields)?,
        basis: small(basis, "basis", 0xffff)? as u16,
        algorithm: index(&ALGORITHMS, "algorithm", algorithm)?,
        max_link: (links - 1) as u16,
        arg: small(arg_text, "arg", u32::MAX)?,
        dst: whole_subfield(dst)?,
    })
}

/// The field with this OXM or NXM name.
fn by_header(name: &str) -> Option<Field> {
    Field::all().find(|f| nxm_name(*f) == name)
}

/// `reg0`, `NXM_NX_REG0[]`, `reg0[3]`, `reg0[0..15]`.
fn whole_subfield(text: &str) -> Result<SubField, E> {
    let (name, range) = match text.split_once('[') {
        None => (text, ""),
        Some((name, rest)) => match rest.strip_suffix(']') {
            Some(range) => (name, range),
            None => return Err(arg(text, "missing ']' in field name")),
        },
    };
    let field = Field::from_name(name)
        .or_else(|| by_header(name))
        .ok_or_else(|| arg(text, format!("unknown field `{name}'")))?;
    if range.is_empty() {
        return Ok(SubField::whole(field));
    }
    let bad = || arg(text, "syntax error expecting [] or [<bit>] or [<start>..<end>]");
    let bit = |t: &str| t.parse::<u16>().map_err(|_| bad());
    let (start, end) = match range.split_once("..") {
        Some((a, b)) => (bit(a)?, bit(b)?),
        None => (bit(range)?, bit(range)?),
    };
    if start > end {
        return Err(arg(text, format!("starting bit {start} is after ending bit {end}")));
    }
    if end >= field.n_bits() {
        let n = field.n_bits();
        return Err(arg(
            text,
            format!("starting bit {start} is not valid because field is only {n} bits wide"),
        ));
    }
    Ok(SubField { field, ofs: start, n_bits: end - start + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format_actions;

    #[test]
    fn read_as_printed() {
        for text in [
            "output:2,IN_PORT,NORMAL,LOCAL",
            "output(port=2,max_len=100),enqueue:2:5,set_queue:1,pop_queue",
            "mod_dl_src:00:00:00:00:00:01,mod_nw_dst:1.2.3.4,mod_tp_src:7,mod_nw_tos:4",
            "set_field:0x5/0xf->reg0,load:0x1->NXM_NX_REG0[5],move:NXM_NX_REG0[0..3]->NXM_NX_REG1[4..7]",
            "push:NXM_NX_REG0[],pop:NXM_NX_REG1[0..3],resubmit(,1),resubmit(2,3),resubmit:4",
            "controller(reason=invalid_ttl,max_len=64,id=7,userdata=01.02,pause),CONTROLLER:100",
            "multipath(eth_src,50,modulo_n,4,0,NXM_NX_REG0[]),dec_ttl(1,2),dec_ttl,note:00.01,exit",
            "push_vlan:0x8100,push_mpls:0x8847,pop_mpls:0x0800,set_mpls_label(5),dec_mpls_ttl,strip_vlan,pop_vlan",
            "output:NXM_NX_REG0[0..15],set_tunnel:0x5,set_tunnel64:0x500000000",
        ] {
            assert_eq!(format_actions(&parse_actions(text).unwrap()), text);
        }
    }

    #[test]
    fn mistakes_as_named_by_the_original() {
        for (text, error) in [
            ("foo", "unknown action foo"),
            ("output:xyz", "xyz: output to unknown port"),
            ("2,drop", "\"drop\" must not be accompanied by any other action or instruction"),
            ("goto_table:1", "goto_table instruction not allowed here"),
            ("set_field:xyz->reg0", "xyz: bad syntax for reg0 value"),
            ("load:5->NXM_NX_REG0[0..1]", "5->NXM_NX_REG0[0..1]: value 0x5 does not fit into 2 bits"),
            ("mod_tp_src:99999", "invalid source port \"99999\""),
            ("resubmit", "at least one \"in_port\" or \"table\" must be specified on resubmit"),
        ] {
            assert_eq!(parse_actions(text).unwrap_err().to_string(), error);
        }
    }
}

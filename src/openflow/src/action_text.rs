//! Actions as ovs-ofctl prints them.
//!
//! Neighbours: trace, logs and `bridge/dump-flows` in `ofproto`. Threads: none.

use crate::Action;
use flow::field::Format;
use flow::matching::OfPortNames;
use flow::{Field, OfPort, SubField};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The list as it stands behind `actions=`; `drop` when empty.
pub fn format_actions(actions: &[Action]) -> String {
    format_actions_named(actions, None)
}

/// The list with names for ports.
pub fn format_actions_named(actions: &[Action], names: Option<OfPortNames>) -> String {
    let mut s = String::new();
    list(&mut s, actions, names);
    s
}

/// A port's name, or else its number.
fn named(port: OfPort, names: Option<OfPortNames>) -> String {
    names.and_then(|n| n(port)).unwrap_or_else(|| port.to_string())
}

fn list(s: &mut String, actions: &[Action], names: Option<OfPortNames>) {
    if actions.is_empty() {
        s.push_str("drop");
    }
    for (i, a) in actions.iter().enumerate() {
        if i > 0 {
            s.push(',');
        }
        one(s, a, names);
    }
}

macro_rules! put {
    ($s:expr, $($arg:tt)*) => {{ let _ = write!($s, $($arg)*); }};
}

fn one(s: &mut String, a: &Action, names: Option<OfPortNames>) {
    match a {
        Action::Output { port, max_len } => output(s, *port, *max_len, names),
        Action::OutputReg { src, .. } => put!(s, "output:{}", sub(src)),
        Action::OutputTrunc { port, max_len } => {
            put!(s, "output(port={},max_len={max_len})", named(*port, names));
        }
        Action::Controller { .. } => controller(s, a),
        Action::Enqueue { port, queue } => put!(s, "enqueue:{}:{queue}", named(*port, names)),
        Action::Group(id) => put!(s, "group:{id}"),
        Action::SetQueue(q) => put!(s, "set_queue:{q}"),
        Action::PopQueue => s.push_str("pop_queue"),
        Action::SetField { field, value, mask, .. } => {
            put!(s, "set_field:{}->{}", field_value(*field, *value, *mask), set_name(*field));
        }
        Action::Move { src, dst } => put!(s, "move:{}->{}", sub(src), sub(dst)),
        Action::Load { dst, value } => put!(s, "load:{}->{}", hexadecimal(*value), sub(dst)),
        Action::StackPush(sf) => put!(s, "push:{}", sub(sf)),
        Action::StackPop(sf) => put!(s, "pop:{}", sub(sf)),
        Action::Resubmit { in_port, table, with_ct } => resubmit(s, *in_port, *table, *with_ct, names),
        Action::Multipath { .. } => multipath(s, a),
        Action::Note(data) => put!(s, "note:{}", hex(data)),
        Action::Exit => s.push_str("exit"),
        Action::Meter(id) => put!(s, "meter:{id}"),
        Action::ClearActions => s.push_str("clear_actions"),
        Action::WriteActions(set) => {
            s.push_str("write_actions(");
            list(s, set, names);
            s.push(')');
        }
        Action::WriteMetadata { value, mask } => {
            put!(s, "write_metadata:{}", hexadecimal((*value).into()));
            if *mask != u64::MAX {
                put!(s, "/{mask:#x}");
            }
        }
        Action::GotoTable(t) => put!(s, "goto_table:{t}"),
        _ => header(s, a),
    }
}

fn header(s: &mut String, a: &Action) {
    match a {
        Action::SetVlanVid { vid, push_if_needed, .. } => {
            put!(s, "{}:{vid}", if *push_if_needed { "mod_vlan_vid" } else { "set_vlan_vid" });
        }
        Action::SetVlanPcp { pcp, push_if_needed, .. } => {
            put!(s, "{}:{pcp}", if *push_if_needed { "mod_vlan_pcp" } else { "set_vlan_pcp" });
        }
        Action::StripVlan => s.push_str("strip_vlan"),
        Action::PopVlan => s.push_str("pop_vlan"),
        Action::PushVlan(t) => put!(s, "push_vlan:{t:#06x}"),
        Action::SetEthSrc(b) => put!(s, "mod_dl_src:{}", mac(b)),
        Action::SetEthDst(b) => put!(s, "mod_dl_dst:{}", mac(b)),
        Action::SetIpv4Src(ip) => put!(s, "mod_nw_src:{}", Ipv4Addr::from(*ip)),
        Action::SetIpv4Dst(ip) => put!(s, "mod_nw_dst:{}", Ipv4Addr::from(*ip)),
        Action::SetIpDscp(tos) => put!(s, "mod_nw_tos:{tos}"),
        Action::SetIpEcn(ecn) => put!(s, "mod_nw_ecn:{ecn}"),
        Action::SetIpTtl(ttl) => put!(s, "mod_nw_ttl:{ttl}"),
        Action::SetL4SrcPort(p) => put!(s, "mod_tp_src:{p}"),
        Action::SetL4DstPort(p) => put!(s, "mod_tp_dst:{p}"),
        Action::PushMpls(t) => put!(s, "push_mpls:{t:#06x}"),
        Action::PopMpls(t) => put!(s, "pop_mpls:{t:#06x}"),
        Action::SetMplsLabel(l) => put!(s, "set_mpls_label({l})"),
        Action::SetMplsTc(tc) => put!(s, "set_mpls_tc({tc})"),
        Action::SetMplsTtl(ttl) => put!(s, "set_mpls_ttl({ttl})"),
        Action::DecMplsTtl => s.push_str("dec_mpls_ttl"),
        Action::DecTtl(ids) if ids.is_empty() => s.push_str("dec_ttl"),
        Action::DecTtl(ids) => {
            let ids: Vec<String> = ids.iter().map(u16::to_string).collect();
            put!(s, "dec_ttl({})", ids.join(","));
        }
        Action::SetTunnel(id) => {
            let name = if *id > u32::MAX.into() { "set_tunnel64" } else { "set_tunnel" };
            put!(s, "{name}:{}", hexadecimal((*id).into()));
        }
        _ => {}
    }
}

fn output(s: &mut String, port: OfPort, max_len: u16, names: Option<OfPortNames>) {
    match port {
        OfPort::CONTROLLER => put!(s, "CONTROLLER:{max_len}"),
        p if p.0 < OfPort::MAX.0 => put!(s, "output:{}", named(p, names)),
        p => put!(s, "{p}"),
    }
}

fn controller(s: &mut String, a: &Action) {
    let Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id } = a else { return };
    if *reason == 1 && *controller_id == 0 && !pause && userdata.is_empty() && meter_id.is_none() {
        return put!(s, "CONTROLLER:{max_len}");
    }
    let mut parts = Vec::new();
    if *reason != 1 {
        // The reasons of table misses have no name here.
        let name = if *reason < 6 { reason_name(*reason) } else { String::new() };
        parts.push(format!("reason={name}"));
    }
    if *max_len != u16::MAX {
        parts.push(format!("max_len={max_len}"));
    }
    if *controller_id != 0 {
        parts.push(format!("id={controller_id}"));
    }
    if !userdata.is_empty() {
        parts.push(format!("userdata={}", hex(userdata)));
    }
    if *pause {
        parts.push("pause".into());
    }
    if let Some(id) = meter_id {
        parts.push(format!("meter_id={id}"));
    }
    put!(s, "controller({})", parts.join(","));
}

/// Name of a packet-in reason.
pub fn reason_name(reason: u8) -> String {
    const NAMES: [&str; 8] = [
        "no_match",
        "action",
        "invalid_ttl",
        "action_set",
        "group",
        "packet_out",
        "explicit_miss",
        "implicit_miss",
    ];
    NAMES.get(usize::from(reason)).map_or_else(|| reason.to_string(), ToString::to_string)
}

fn resubmit(s: &mut String, in_port: OfPort, table: u8, with_ct: bool, names: Option<OfPortNames>) {
    if in_port != OfPort::IN_PORT && table == 255 {
        return put!(s, "resubmit:{}", named(in_port, names));
    }
    s.push_str("resubmit(");
    if in_port != OfPort::IN_PORT {
        s.push_str(&named(in_port, names));
    }
    s.push(',');
    if table != 255 {
        put!(s, "{table}");
    }
    s.push_str(if with_ct { ",ct)" } else { ")" });
}

fn multipath(s: &mut String, a: &Action) {
    let Action::Multipath { fields, basis, algorithm, max_link, arg, dst } = a else { return };
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
    let f = FIELDS.get(usize::from(*fields)).unwrap_or(&"<unknown>");
    let alg = ALGORITHMS.get(usize::from(*algorithm)).unwrap_or(&"<unknown>");
    put!(s, "multipath({f},{basis},{alg},{},{arg},{})", u32::from(*max_link) + 1, sub(dst));
}

fn sub(sf: &SubField) -> String {
    subfield_name(sf)
}

/// A part of a field as actions name it: `NXM_NX_REG0[0..15]`.
pub fn subfield_name(sf: &SubField) -> String {
    let mut s = nxm_name(sf.field);
    match (sf.ofs, sf.n_bits) {
        (0, n) if n == sf.field.n_bits() => s.push_str("[]"),
        (ofs, 1) => put!(s, "[{ofs}]"),
        (ofs, n) => put!(s, "[{ofs}..{}]", ofs + n - 1),
    }
    s
}

/// The name of a field's header: Nicira's when it has one.
pub(crate) fn nxm_name(field: Field) -> String {
    match field {
        Field::Reg(i) => format!("NXM_NX_REG{i}"),
        Field::XReg(i) => format!("OXM_OF_PKT_REG{i}"),
        Field::XxReg(i) => format!("NXM_NX_XXREG{i}"),
        f => HEADER_NAMES.iter().find(|(g, _)| *g == f).map_or(f.name(), |(_, n)| n).into(),
    }
}

const HEADER_NAMES: [(Field, &str); 72] = [
    (Field::DpHash, "NXM_NX_DP_HASH"),
    (Field::RecircId, "NXM_NX_RECIRC_ID"),
    (Field::PacketType, "OXM_OF_PACKET_TYPE"),
    (Field::ConjId, "NXM_NX_CONJ_ID"),
    (Field::TunId, "NXM_NX_TUN_ID"),
    (Field::TunSrc, "NXM_NX_TUN_IPV4_SRC"),
    (Field::TunDst, "NXM_NX_TUN_IPV4_DST"),
    (Field::TunIpv6Src, "NXM_NX_TUN_IPV6_SRC"),
    (Field::TunIpv6Dst, "NXM_NX_TUN_IPV6_DST"),
    (Field::TunFlags, "NXM_NX_TUN_FLAGS"),
    (Field::TunGbpId, "NXM_NX_TUN_GBP_ID"),
    (Field::TunGbpFlags, "NXM_NX_TUN_GBP_FLAGS"),
    (Field::Metadata, "OXM_OF_METADATA"),
    (Field::InPort, "NXM_OF_IN_PORT"),
    (Field::InPortOxm, "OXM_OF_IN_PORT"),
    (Field::ActsetOutput, "ONFOXM_ET_ACTSET_OUTPUT"),
    (Field::PktMark, "NXM_NX_PKT_MARK"),
    (Field::CtState, "NXM_NX_CT_STATE"),
    (Field::CtZone, "NXM_NX_CT_ZONE"),
    (Field::CtMark, "NXM_NX_CT_MARK"),
    (Field::CtLabel, "NXM_NX_CT_LABEL"),
    (Field::CtNwProto, "NXM_NX_CT_NW_PROTO"),
    (Field::CtNwSrc, "NXM_NX_CT_NW_SRC"),
    (Field::CtNwDst, "NXM_NX_CT_NW_DST"),
    (Field::CtIpv6Src, "NXM_NX_CT_IPV6_SRC"),
    (Field::CtIpv6Dst, "NXM_NX_CT_IPV6_DST"),
    (Field::CtTpSrc, "NXM_NX_CT_TP_SRC"),
    (Field::CtTpDst, "NXM_NX_CT_TP_DST"),
    (Field::EthSrc, "NXM_OF_ETH_SRC"),
    (Field::EthDst, "NXM_OF_ETH_DST"),
    (Field::EthType, "NXM_OF_ETH_TYPE"),
    (Field::VlanTci, "NXM_OF_VLAN_TCI"),
    (Field::VlanVid, "OXM_OF_VLAN_VID"),
    (Field::VlanPcp, "OXM_OF_VLAN_PCP"),
    (Field::MplsLabel, "OXM_OF_MPLS_LABEL"),
    (Field::MplsTc, "OXM_OF_MPLS_TC"),
    (Field::MplsBos, "OXM_OF_MPLS_BOS"),
    (Field::MplsTtl, "NXM_NX_MPLS_TTL"),
    (Field::Ipv4Src, "NXM_OF_IP_SRC"),
    (Field::Ipv4Dst, "NXM_OF_IP_DST"),
    (Field::Ipv6Src, "NXM_NX_IPV6_SRC"),
    (Field::Ipv6Dst, "NXM_NX_IPV6_DST"),
    (Field::Ipv6Label, "NXM_NX_IPV6_LABEL"),
    (Field::IpProto, "NXM_OF_IP_PROTO"),
    (Field::IpDscp, "NXM_OF_IP_TOS"),
    (Field::IpDscpShifted, "OXM_OF_IP_DSCP"),
    (Field::IpEcn, "NXM_NX_IP_ECN"),
    (Field::IpTtl, "NXM_NX_IP_TTL"),
    (Field::IpFrag, "NXM_NX_IP_FRAG"),
    (Field::ArpOp, "NXM_OF_ARP_OP"),
    (Field::ArpSpa, "NXM_OF_ARP_SPA"),
    (Field::ArpTpa, "NXM_OF_ARP_TPA"),
    (Field::ArpSha, "NXM_NX_ARP_SHA"),
    (Field::ArpTha, "NXM_NX_ARP_THA"),
    (Field::TcpSrc, "NXM_OF_TCP_SRC"),
    (Field::TcpDst, "NXM_OF_TCP_DST"),
    (Field::TcpFlags, "NXM_NX_TCP_FLAGS"),
    (Field::UdpSrc, "NXM_OF_UDP_SRC"),
    (Field::UdpDst, "NXM_OF_UDP_DST"),
    (Field::SctpSrc, "OXM_OF_SCTP_SRC"),
    (Field::SctpDst, "OXM_OF_SCTP_DST"),
    (Field::Icmpv4Type, "NXM_OF_ICMP_TYPE"),
    (Field::Icmpv4Code, "NXM_OF_ICMP_CODE"),
    (Field::Icmpv6Type, "NXM_NX_ICMPV6_TYPE"),
    (Field::Icmpv6Code, "NXM_NX_ICMPV6_CODE"),
    (Field::NdTarget, "NXM_NX_ND_TARGET"),
    (Field::NdSll, "NXM_NX_ND_SLL"),
    (Field::NdTll, "NXM_NX_ND_TLL"),
    (Field::TunTtl, "tun_ttl"),
    (Field::TunTos, "tun_tos"),
    (Field::SkbPriority, "skb_priority"),
    (Field::DlVlan, "dl_vlan"),
];

/// Names that set_field uses.
fn set_name(field: Field) -> &'static str {
    field.name()
}

fn field_value(field: Field, value: u128, mask: u128) -> String {
    if field.format() == Format::Decimal && mask != field.all_ones() {
        return format!("{value}/{mask:#x}");
    }
    field.format_value(value, mask)
}

/// As C's `%#x`: zero has no prefix.
fn hexadecimal(v: u128) -> String {
    if v == 0 {
        "0".into()
    } else {
        format!("{v:#x}")
    }
}

fn mac(b: &[u8; 6]) -> String {
    let parts: Vec<String> = b.iter().map(|x| format!("{x:02x}")).collect();
    parts.join(":")
}

fn hex(b: &[u8]) -> String {
    let parts: Vec<String> = b.iter().map(|x| format!("{x:02x}")).collect();
    parts.join(".")
}

//! Reading matches and flows in the syntax of ovs-ofctl(8): `in_port=1,tcp,nw_dst=10.0.0.0/8`.
//!
//! Texts of errors are those that Open vSwitch puts behind "Bad openflow flow syntax: FLOW: ". Neighbours: parent
//! module; `ofproto/trace`, `dpctl/dump-flows filter=` read with it. Threads: plain functions.

use super::Match;
use crate::field::{Field, Format, Value};
use crate::key::{Flow, Mask};
use crate::port::OfPort;
use crate::text::{CT_STATE, TCP_FLAGS};

/// Numbers of ports by name.
pub type PortNumbers<'a> = &'a dyn Fn(&str) -> Option<OfPort>;

/// Why a match cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ParseError {
    #[error("unknown field {0}")]
    UnknownField(String),
    #[error("Ethernet type set multiple times")]
    TypeTwice,
    #[error("network protocol set multiple times")]
    ProtocolTwice,
    #[error("prerequisites not met for setting {0}")]
    Prerequisites(String),
    #[error("field {0} set multiple times")]
    Twice(String),
    #[error("bad value for {key} ({why})")]
    Value { key: String, why: String },
}

/// Words that stand for an Ethernet type and perhaps a protocol.
const PROTOCOLS: [(&str, u16, Option<u8>); 17] = [
    ("ip", 0x0800, None),
    ("ipv4", 0x0800, None),
    ("ip4", 0x0800, None),
    ("arp", 0x0806, None),
    ("icmp", 0x0800, Some(1)),
    ("tcp", 0x0800, Some(6)),
    ("udp", 0x0800, Some(17)),
    ("sctp", 0x0800, Some(132)),
    ("ipv6", 0x86dd, None),
    ("ip6", 0x86dd, None),
    ("icmp6", 0x86dd, Some(58)),
    ("tcp6", 0x86dd, Some(6)),
    ("udp6", 0x86dd, Some(17)),
    ("sctp6", 0x86dd, Some(132)),
    ("rarp", 0x8035, None),
    ("mpls", 0x8847, None),
    ("mplsm", 0x8848, None),
];

const FRAGMENTS: [(&str, u128, u128); 5] =
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)];

/// Splits `key=value`, `key:value`, `key(value)` and plain keys off a list, commas and blanks between them.
pub struct KeyValues<'a>(&'a str);

impl<'a> KeyValues<'a> {
    /// Over `text`.
    pub fn new(text: &'a str) -> KeyValues<'a> {
        KeyValues(text)
    }
}

const BETWEEN: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// Length of a value: up to a separator that is not inside parentheses.
fn value_len(text: &str) -> usize {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 && BETWEEN.contains(&c) => return i,
            _ => {}
        }
    }
    text.len()
}

impl<'a> Iterator for KeyValues<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let text = self.0.trim_start_matches(BETWEEN);
        if text.is_empty() {
            self.0 = text;
            return None;
        }
        let end =
            text.find(|c: char| BETWEEN.contains(&c) || matches!(c, '=' | ':' | '(')).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        if let Some(value) = rest.strip_prefix(['=', ':']) {
            let (value, rest) = value.split_at(value_len(value));
            self.0 = rest;
            return Some((key, value));
        }
        if rest.starts_with('(') {
            let (value, rest) = rest.split_at(value_len(rest));
            self.0 = rest;
            let inner = value.strip_prefix('(').unwrap_or(value);
            return Some((key, inner.strip_suffix(')').unwrap_or(inner)));
        }
        self.0 = rest;
        Some((key, ""))
    }
}

impl Flow {
    /// Reads a flow: each field exactly, those not given zero, the input port NONE unless given.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn parse(text: &str, ports: PortNumbers) -> Result<Flow, ParseError> {
        Flow::parse_given(text, ports).map(|(flow, _)| flow)
    }

    /// As [`Flow::parse`], with the bits of the fields that were given.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn parse_given(text: &str, ports: PortNumbers) -> Result<(Flow, Mask), ParseError> {
        let (mut m, mut given) = (Match::any(), Mask::none());
        let mut port_given = false;
        for (key, value) in KeyValues::new(text) {
            if let Some((dl_type, proto)) = protocol(key) {
                if !m.flow.dl_type.is_zero() {
                    return Err(ParseError::TypeTwice);
                }
                set_protocol(&mut m, dl_type, proto);
                Field::EthType.mask_bits(&mut given, Value::MAX);
                if proto.is_some() {
                    Field::IpProto.mask_bits(&mut given, Value::MAX);
                }
                continue;
            }
            let field = Field::from_name(key).ok_or_else(|| ParseError::UnknownField(key.into()))?;
            if !field.prereqs_ok(&m.flow) {
                return Err(ParseError::Prerequisites(key.into()));
            }
            let is_port = matches!(field, Field::InPort | Field::InPortOxm);
            if field.get(&m.flow) != 0 && (!is_port || port_given) && !matches!(field, Field::ActsetOutput) {
                return Err(ParseError::Twice(key.into()));
            }
            let (v, mask) = parse_value(field, key, value, ports)?;
            // Flags with signs are a mask even when all are given.
            let flags = matches!(field.format(), Format::TcpFlags | Format::TunFlags | Format::CtState);
            if mask & ones(field) != ones(field) || flags && mask != Value::MAX {
                let why = format!("{value}: wildcards not allowed here");
                return Err(ParseError::Value { key: key.into(), why });
            }
            port_given |= is_port;
            field.mask_bits(&mut given, field.all_ones());
            if field == Field::DlVlan && v == NO_VLAN {
                m.flow.vlans[0].tci = crate::be::Be16::ZERO;
            } else {
                field.set(&mut m.flow, v);
            }
        }
        if !port_given {
            m.flow.in_port = OfPort::NONE.0.into();
        }
        Ok((m.flow, given))
    }
}

impl Match {
    /// Reads a match, as [`Match::format`] and ovs-ofctl write them.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn parse(text: &str, ports: PortNumbers) -> Result<Match, ParseError> {
        let mut m = Match::any();
        for (key, value) in KeyValues::new(text) {
            if let Some((dl_type, proto)) = protocol(key) {
                if !m.mask.0.dl_type.is_zero() {
                    return Err(ParseError::TypeTwice);
                }
                if proto.is_some() && m.mask.0.nw_proto != 0 {
                    return Err(ParseError::ProtocolTwice);
                }
                set_protocol(&mut m, dl_type, proto);
                continue;
            }
            let field = field_for(key, &m).ok_or_else(|| ParseError::UnknownField(key.into()))?;
            let (v, mask) = parse_value(field, key, value, ports)?;
            if !field.match_prereqs_ok(&m) {
                return Err(ParseError::Prerequisites(key.into()));
            }
            m.set_masked(field, v & mask, mask);
        }
        Ok(m)
    }
}

/// The field of a name; names that several protocols share go by the protocol already given.
fn field_for(key: &str, m: &Match) -> Option<Field> {
    let six = m.flow.dl_type.get() == 0x86dd;
    match (key, m.flow.nw_proto) {
        ("icmp_type", _) if six => Some(Field::Icmpv6Type),
        ("icmp_code", _) if six => Some(Field::Icmpv6Code),
        ("tp_src", 17) => Some(Field::UdpSrc),
        ("tp_dst", 17) => Some(Field::UdpDst),
        ("tp_src", 132) => Some(Field::SctpSrc),
        ("tp_dst", 132) => Some(Field::SctpDst),
        _ => Field::from_name(key),
    }
}

fn protocol(key: &str) -> Option<(u16, Option<u8>)> {
    PROTOCOLS.iter().find(|(n, ..)| *n == key).map(|&(_, t, p)| (t, p))
}

fn set_protocol(m: &mut Match, dl_type: u16, proto: Option<u8>) {
    m.set(Field::EthType, dl_type.into());
    if let Some(p) = proto {
        m.set(Field::IpProto, p.into());
    }
}

/// All bits that a value of `field` can have in text.
fn ones(field: Field) -> Value {
    match field {
        Field::InPort | Field::InPortOxm | Field::ActsetOutput => u128::from(u16::MAX),
        Field::CtState => 0xff,
        f => f.all_ones(),
    }
}

/// Reads a value of `field` with an optional `/mask`.
///
/// # Errors
/// [`ParseError::Value`] with the reason.
pub fn field_value(field: Field, text: &str) -> Result<(Value, Value), ParseError> {
    parse_value(field, field.name(), text, &|_| None)
}

/// Reads `value` with an optional `/mask`. Bits beyond the field's width are cut off, as long as its bytes hold them.
fn parse_value(
    field: Field,
    key: &str,
    text: &str,
    ports: PortNumbers,
) -> Result<(Value, Value), ParseError> {
    let text = if field.format() == Format::OfPort || field.format() == Format::OfPort32 {
        text.trim_matches('"')
    } else {
        text
    };
    let bad = |why: String| ParseError::Value { key: key.into(), why };
    let done = match field.format() {
        Format::OfPort | Format::OfPort32 => return port(field, text, ports).map_err(bad),
        Format::Frag => {
            return FRAGMENTS
                .iter()
                .find(|(n, ..)| n.eq_ignore_ascii_case(text))
                .map(|&(_, v, m)| (v, m))
                .ok_or_else(|| bad(format!("{text}: unknown fragment type (valid types are \"no\", \"yes\", \"first\", \"later\", \"not_later\"")))
        }
        Format::TcpFlags => flags(text, &TCP_FLAGS, "TCP flag", 0xfff),
        Format::CtState => flags(text, &CT_STATE, "ct_state flag", 0xff),
        Format::TunFlags => flags(text, &["oam"], "tunnel flag", 1),
        Format::PacketType => packet_type(text).map(|v| (v, u128::from(u32::MAX))),
        Format::Ethernet => with_mask(text, &ethernet, field.all_ones()),
        Format::Ipv4 => ipv4(text),
        Format::Ipv6 => ipv6(text),
        Format::Decimal | Format::Hexadecimal => integer(field, text),
    };
    let (v, m) = done.map_err(bad)?;
    if m == Value::MAX && matches!(field.format(), Format::TcpFlags | Format::TunFlags | Format::CtState) {
        return Ok((v, m));
    }
    let mask = m & field.all_ones();
    if mask != field.all_ones() && mask != 0 && !field.maskable() {
        return Err(bad(format!("{text}: invalid mask for field {}", field.name())));
    }
    if field == Field::DlVlan && v == NO_VLAN {
        return Ok((v, m));
    }
    Ok((v & field.all_ones(), mask))
}

/// The VLAN ID of packets without a VLAN header in OpenFlow 1.0.
const NO_VLAN: Value = 0xffff;

fn port(field: Field, text: &str, ports: PortNumbers) -> Result<(Value, Value), String> {
    let found = match number(text) {
        Some(n) => u32::try_from(n).ok().and_then(|n| match n {
            0..=0xffff => (n < 0xff00 || !text.starts_with("0x")).then_some(OfPort(n as u16)),
            _ => OfPort::from_of11(n),
        }),
        None => OfPort::from_name(text).or_else(|| ports(text)),
    };
    let Some(p) = found else {
        let what = if number(text).is_some() && field == Field::ActsetOutput {
            "port value out of range for"
        } else {
            "invalid or unknown port for"
        };
        return Err(format!("{text}: {what} {}", field.name()));
    };
    let v = if field.format() == Format::OfPort32 { p.to_of11().into() } else { u128::from(p.0) };
    Ok((v, u128::MAX))
}

/// As strtoull(3) with any base: decimal, 0x hexadecimal of any length, 0 octal, a sign.
pub fn number(text: &str) -> Option<u128> {
    if let Some(h) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        if h.is_empty() {
            return Some(0);
        }
        let h = h.trim_start_matches('0');
        return match h.len() {
            0 => Some(0),
            // More than any field holds.
            n if n > 32 && h.bytes().all(|b| b.is_ascii_hexdigit()) => Some(u128::MAX),
            _ if h.starts_with('+') => None,
            _ => u128::from_str_radix(h, 16).ok(),
        };
    }
    let (minus, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let radix = if digits.len() > 1 && digits.starts_with('0') { 8 } else { 10 };
    let v = u64::from_str_radix(digits, radix).ok();
    let v = v.or((radix == 10).then_some(u64::MAX))?;
    Some(if minus { v.wrapping_neg() } else { v }.into())
}

fn integer(field: Field, text: &str) -> Result<(Value, Value), String> {
    let bytes = u32::from(field.n_bytes());
    let limit = if bytes >= 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 };
    let too_long = |t: &str| {
        let h = t.strip_prefix("0x").map(|h| h.trim_start_matches('0').len());
        h.is_some_and(|n| n > 2 * bytes as usize)
    };
    let part = |t: &str, what: &str| match number(t) {
        None => Err(format!("{text}: bad syntax for {} {what}", field.name())),
        Some(v) if v > limit || too_long(t) => {
            Err(format!("{text}: {what} too large for {bytes}-byte field {}", field.name()))
        }
        Some(v) => Ok(v),
    };
    match text.split_once('/') {
        None => Ok((part(text, "value")?, u128::MAX)),
        Some((v, m)) => Ok((part(v, "value")?, part(m, "mask")?)),
    }
}

fn with_mask(text: &str, one: &dyn Fn(&str) -> Option<u128>, full: u128) -> Result<(Value, Value), String> {
    let bad = || format!("{text}: invalid Ethernet address");
    match text.split_once('/') {
        None => Ok((one(text).ok_or_else(bad)?, full)),
        Some((v, m)) => Ok((one(v).ok_or_else(bad)?, one(m).ok_or_else(bad)?)),
    }
}

/// Six hexadecimal numbers with colons.
fn ethernet(text: &str) -> Option<u128> {
    let mut v = 0u128;
    let mut n = 0;
    for part in text.split(':') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_hexdigit()) || part.len() > 8 {
            return None;
        }
        v = v << 8 | u128::from_str_radix(part, 16).ok()? & 0xff;
        n += 1;
    }
    (n == 6).then_some(v)
}

/// Four decimal numbers with dots, each cut to a byte.
fn dotted(text: &str) -> Option<u128> {
    let mut v = 0u128;
    let mut n = 0;
    for part in text.split('.') {
        if part.is_empty() || part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        v = v << 8 | u128::from(part.parse::<u32>().ok()? & 0xff);
        n += 1;
    }
    (n == 4).then_some(v)
}

fn prefix(text: &str, bits: u32, family: &str, whole: &str) -> Option<Result<u128, String>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match text.parse::<u32>() {
        Ok(0) => Ok(0),
        Ok(n) if n <= bits => Ok(u128::MAX >> (128 - bits) & u128::MAX << (bits - n)),
        _ => Err(format!("{whole}: {family} network prefix bits not between 0 and {bits}, inclusive")),
    })
}

fn ipv4(text: &str) -> Result<(Value, Value), String> {
    let bad = || format!("{text}: invalid IP address");
    let (v, m) = match text.split_once('/') {
        None => return Ok((dotted(text).ok_or_else(bad)?, u128::MAX)),
        Some(parts) => parts,
    };
    let v = dotted(v).ok_or_else(bad)?;
    match prefix(m, 32, "IPv4", text) {
        Some(m) => Ok((v, m?)),
        None => Ok((v, dotted(m).ok_or_else(bad)?)),
    }
}

fn ipv6(text: &str) -> Result<(Value, Value), String> {
    let bad = || format!("{text}: invalid IPv6 address");
    let one = |t: &str| t.parse::<std::net::Ipv6Addr>().ok().map(u128::from);
    let (v, m) = match text.split_once('/') {
        None => return Ok((one(text).ok_or_else(bad)?, u128::MAX)),
        Some(parts) => parts,
    };
    let v = one(v).ok_or_else(bad)?;
    match prefix(m, 128, "IPv6", text) {
        Some(m) => Ok((v, m?)),
        None => Ok((v, one(m).ok_or_else(bad)?)),
    }
}

/// `+a-b`, `a|b`, a number, a number with a mask.
fn flags(text: &str, names: &[&str], what: &str, all: u128) -> Result<(Value, Value), String> {
    let unknown = |t: &str| format!("{t}: unknown {what}(s)");
    let bit = |t: &str| names.iter().position(|n| n.eq_ignore_ascii_case(t)).map(|i| 1u128 << i);
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let (v, m) = match text.split_once('/') {
            None => (number(text), Some(u128::MAX)),
            Some((v, m)) => (number(v), number(m)),
        };
        return match (v, m) {
            (Some(v), Some(m)) if v & !all == 0 && (m == u128::MAX || m & !all == 0) => Ok((v, m)),
            _ => Err(unknown(text)),
        };
    }
    if !text.starts_with(['+', '-']) {
        let mut v = 0;
        for t in text.split('|').filter(|t| !t.is_empty()) {
            v |= bit(t).ok_or_else(|| unknown(t))?;
        }
        return Ok((v, u128::MAX));
    }
    let (mut v, mut m, mut rest) = (0, 0, text);
    while let Some(sign) = rest.chars().next() {
        rest = rest.get(1..).unwrap_or_default();
        let (name, tail) = rest.split_at(rest.find(['+', '-']).unwrap_or(rest.len()));
        let b = bit(name).ok_or_else(|| unknown(name))?;
        if m & b != 0 {
            return Err(format!("{name}: Each {what} can be specified only once"));
        }
        m |= b;
        if sign == '+' {
            v |= b;
        }
        rest = tail;
    }
    Ok((v, m))
}

/// `(namespace,type)`.
fn packet_type(text: &str) -> Result<Value, String> {
    let Some(inner) = text.strip_prefix('(') else {
        return Err(format!("{text}: bad syntax for packet type missing '('"));
    };
    let Some((ns, rest)) = inner.split_once(',') else {
        return Err(format!("{inner}: bad syntax for packet type missing ','"));
    };
    let small = |t: &str| number(t).filter(|v| *v <= 0xffff);
    let Some(ns) = small(ns) else { return Err(format!("{inner}: bad syntax for packet type ns")) };
    let (id, closed) = match rest.strip_suffix(')') {
        Some(id) => (id, true),
        None => (rest, false),
    };
    let Some(id) = small(id) else { return Err(format!("{rest}: bad syntax for packet type ns_type")) };
    if !closed {
        return Err(format!("{rest}: bad syntax for packet type missing ')'"));
    }
    Ok(ns << 16 | id)
}

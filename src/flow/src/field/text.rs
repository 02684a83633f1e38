//! Text of field values, as ovs-ofctl writes and reads them.
//!
//! Neighbours: `openflow` and `ofproto` print `set_field` with it. Threads: plain data.

use super::{Field, Format, Value};
use crate::port::OfPort;
use crate::text::{prefix_len, put, signed_flags, Hex, Ip6, Mac, CT_STATE, TCP_FLAGS};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A value that is not one of the field.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValueError {
    /// Not in the field's format.
    #[error(
        "{field}: {text} is not a valid {field}, give a value in the field's format (see ovs-fields(7))"
    )]
    Syntax {
        /// The field's name.
        field: &'static str,
        /// What was given.
        text: String,
    },
    /// A value with bits beyond the field's width.
    #[error("{field}: {text} does not fit in {n_bits} bits, give a smaller value")]
    TooBig {
        /// The field's name.
        field: &'static str,
        /// What was given.
        text: String,
        /// The field's width.
        n_bits: u16,
    },
    /// A mask on a field that has none.
    #[error("{field}: mask given in {text} but the field takes none, give a plain value")]
    NoMask {
        /// The field's name.
        field: &'static str,
        /// What was given.
        text: String,
    },
}

impl Field {
    /// The value with its mask, as in a match: `10.0.0.0/8`, `0x1/0xf`, `+syn-ack`.
    pub fn format_value(self, v: Value, mask: Value) -> String {
        let full = self.all_ones();
        let exact = mask & full == full;
        let mut s = String::new();
        if mask == 0 {
            return "ANY".into();
        }
        match self.format() {
            Format::Decimal if exact => return v.to_string(),
            Format::Hexadecimal if exact => return Hex(v).to_string(),
            Format::Decimal | Format::Hexadecimal => return format!("{}/{}", Hex(v), Hex(mask)),
            Format::Ethernet => {
                let b = |v: u128| Mac(v.to_be_bytes()[10..].try_into().unwrap_or_default());
                return if exact { b(v).to_string() } else { format!("{}/{}", b(v), b(mask)) };
            }
            Format::Ipv4 => {
                let _ = write!(s, "{}", Ipv4Addr::from(v as u32));
                match prefix_len(mask, 32) {
                    Some(32) => {}
                    Some(n) => put!(s, "/{n}"),
                    None => put!(s, "/{}", Ipv4Addr::from(mask as u32)),
                }
            }
            Format::Ipv6 => {
                put!(s, "{}", Ip6(v.to_be_bytes()));
                match prefix_len(mask, 128) {
                    Some(128) => {}
                    Some(n) => put!(s, "/{n}"),
                    None => put!(s, "/{}", Ip6(mask.to_be_bytes())),
                }
            }
            Format::OfPort => s = OfPort(v as u16).to_string(),
            Format::OfPort32 => match OfPort::from_of11(v as u32) {
                Some(p) => s = p.to_string(),
                None => s = v.to_string(),
            },
            Format::Frag => return frag(v as u8, mask as u8),
            Format::TunFlags => signed_flags(&mut s, &["oam"], v, mask),
            Format::TcpFlags if exact => return Hex(v).to_string(),
            Format::TcpFlags => signed_flags(&mut s, &TCP_FLAGS, v, mask),
            Format::CtState => signed_flags(&mut s, &CT_STATE, v, mask),
            Format::PacketType => {
                let _ = write!(s, "({},{:#x})", v >> 16 & 0xffff, v & 0xffff);
            }
        }
        s
    }

    /// Reads a value with an optional `/mask`, as [`Field::format_value`] and ovs-ofctl write them.
    pub fn parse_value(self, text: &str) -> Result<(Value, Value), ValueError> {
        let syntax = || ValueError::Syntax { field: self.name(), text: text.into() };
        let full = self.all_ones();
        let named = match self.format() {
            Format::Frag => parse_frag(text),
            Format::TunFlags => parse_flags(text, &["oam"]),
            Format::TcpFlags => parse_flags(text, &TCP_FLAGS),
            Format::CtState => parse_flags(text, &CT_STATE),
            _ => None,
        };
        if let Some(vm) = named {
            return Ok(vm);
        }
        let (v, m) = match text.split_once('/') {
            None => (self.parse_one(text).ok_or_else(syntax)?, full),
            Some(_) if !self.maskable() => {
                return Err(ValueError::NoMask { field: self.name(), text: text.into() })
            }
            Some((v, m)) => {
                let m = self.parse_mask(m).ok_or_else(syntax)?;
                (self.parse_one(v).ok_or_else(syntax)? & m, m)
            }
        };
        if !self.is_value_valid(v) || m & !full != 0 && m != u128::MAX {
            return Err(ValueError::TooBig { field: self.name(), text: text.into(), n_bits: self.n_bits() });
        }
        Ok((v, m & full))
    }

    fn parse_mask(self, text: &str) -> Option<u128> {
        let bits = match self.format() {
            Format::Ipv4 => 32,
            Format::Ipv6 => 128,
            _ => return self.parse_one(text),
        };
        match text.parse::<u32>() {
            Ok(0) => Some(0),
            Ok(n) if n <= bits => Some(u128::MAX >> (128 - bits) & u128::MAX << (bits - n)),
            Ok(_) => None,
            Err(_) => self.parse_one(text),
        }
    }

    fn parse_one(self, text: &str) -> Option<u128> {
        let text = text.trim();
        match self.format() {
            Format::Ethernet => {
                let mut it = text.split(':').map(|x| u8::from_str_radix(x, 16));
                let mut v = 0;
                for _ in 0..6 {
                    v = v << 8 | u128::from(it.next()?.ok()?);
                }
                it.next().is_none().then_some(v)
            }
            Format::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|a| u32::from(a).into()),
            Format::Ipv6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
            Format::OfPort | Format::OfPort32 => match OfPort::from_name(text) {
                Some(p) if self.format() == Format::OfPort => Some(p.0.into()),
                Some(p) => Some(p.to_of11().into()),
                None => number(text),
            },
            Format::PacketType => {
                let (ns, ty) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
                Some(number(ns)?.checked_mul(65536)? | number(ty)?)
            }
            _ => number(text),
        }
    }
}

/// Decimal, or hexadecimal after 0x.
fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(h) => u128::from_str_radix(h, 16).ok(),
        None => text.parse().ok(),
    }
}

fn frag(v: u8, mask: u8) -> String {
    match (v & 3, mask & 3) {
        (0, 3) => "no".into(),
        (1, 1) => "yes".into(),
        (1, 3) => "first".into(),
        (3, 3) => "later".into(),
        (0, 2) => "not_later".into(),
        _ => "<error>".into(),
    }
}

fn parse_frag(text: &str) -> Option<(u128, u128)> {
    Some(match text.to_ascii_lowercase().as_str() {
        "no" => (0, 3),
        "yes" => (1, 1),
        "first" => (1, 3),
        "later" => (3, 3),
        "not_later" => (0, 2),
        _ => return None,
    })
}

fn parse_flags(text: &str, names: &[&str]) -> Option<(u128, u128)> {
    let (mut v, mut m) = (0, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let on = match rest.as_bytes()[0] {
            b'+' => true,
            b'-' => false,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let bit = 1u128 << names.iter().position(|n| n.eq_ignore_ascii_case(&rest[..end]))?;
        if m & bit != 0 {
            return None;
        }
        m |= bit;
        if on {
            v |= bit;
        }
        rest = &rest[end..];
    }
    (m != 0).then_some((v, m))
}

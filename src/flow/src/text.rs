//! Pieces of text that keys, matches and actions share: addresses, flags, numbers with masks.
//!
//! Neighbours: `odp`, `matching`, `field`. Threads: plain functions.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Names of TCP flags by bit, lowest first.
pub(crate) const TCP_FLAGS: [&str; 12] =
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
/// Names of connection states by bit, lowest first.
pub(crate) const CT_STATE: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// Names of tunnel flags by bit, lowest first.
pub(crate) const TUN_FLAGS: [&str; 4] = ["oam", "df", "csum", "key"];

/// Writes to a string, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}
pub(crate) use put;

/// Hexadecimal after 0x; zero is plain `0`.
pub(crate) struct Hex(pub u128);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            v => write!(f, "{v:#x}"),
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let b = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

/// An IPv6 address as inet_ntop(3) writes it: addresses with only the last 32 bits set, more than 16 of them,
/// get a dotted quad.
pub(crate) struct Ip6(pub [u8; 16]);

impl std::fmt::Display for Ip6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let v = u128::from_be_bytes(self.0);
        if v >> 32 == 0 && v >> 16 != 0 {
            return write!(f, "::{}", Ipv4Addr::from(v as u32));
        }
        Ipv6Addr::from(v).fmt(f)
    }
}

/// `+a-b` for the bits in `mask`.
pub(crate) fn signed_flags(out: &mut String, names: &[&str], v: u128, mask: u128) {
    for (i, name) in names.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
        out.push(if v >> i & 1 == 1 { '+' } else { '-' });
        out.push_str(name);
    }
}

/// `a|b` for the bits in `v`, `none` when there is none.
pub(crate) fn joined_flags(out: &mut String, names: &[&str], v: u128, sep: &str, none: &str) {
    let mut first = true;
    for (_, name) in names.iter().enumerate().filter(|(i, _)| v >> i & 1 == 1) {
        if !first {
            out.push_str(sep);
        }
        first = false;
        out.push_str(name);
    }
    if first {
        out.push_str(none);
    }
}

/// Prefix length of a mask that is a run of ones from the top, of a `bits`-bit address.
pub(crate) fn prefix_len(mask: u128, bits: u32) -> Option<u32> {
    let top = mask << (128 - bits);
    let n = top.leading_ones();
    (n == 128 || top << n == 0).then_some(n)
}

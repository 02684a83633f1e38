//! Frames from a line of words: `tcp src=10.0.0.1 dst=10.0.0.2 sport=1 dport=80 flags=2 vlan=5`.
//!
//! The first word is the protocol, the rest sets what differs from the default. Checksums are right unless
//! `bad` is said. Neighbours: the case files. Threads: none.

use std::net::{Ipv4Addr, Ipv6Addr};

struct Words<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    line: &'a str,
}

impl<'a> Words<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn number(&self, key: &str, default: u32) -> u32 {
        let Some(text) = self.get(key) else { return default };
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed.unwrap_or_else(|_| panic!("{key}={text} is not a number in: {}", self.line))
    }

    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.get(key).map(|text| hex(text).unwrap_or_else(|| panic!("{key} is not hex in: {}", self.line)))
    }

    fn mac(&self, key: &str, default: &str) -> Vec<u8> {
        hex(&self.get(key).unwrap_or(default).replace(':', "")).expect("MAC address")
    }

    fn v4(&self, key: &str, default: &str) -> [u8; 4] {
        let text = self.get(key).unwrap_or(default);
        text.parse::<Ipv4Addr>().unwrap_or_else(|_| panic!("{key}={text} in: {}", self.line)).octets()
    }

    fn v6(&self, key: &str, default: &str) -> [u8; 16] {
        let text = self.get(key).unwrap_or(default);
        text.parse::<Ipv6Addr>().unwrap_or_else(|_| panic!("{key}={text} in: {}", self.line)).octets()
    }
}

/// Bytes of a text of hexadecimal digits.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |d: u8| char::from(d).to_digit(16);
    digits.chunks(2).map(|p| Some((nibble(p[0])? * 16 + nibble(p[1])?) as u8)).collect()
}

/// Hexadecimal digits of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let all: Vec<u8> = parts.concat();
    let mut sum: u32 = 0;
    for pair in all.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn be16(v: u32) -> [u8; 2] {
    (v as u16).to_be_bytes()
}

/// The transport part: (IP protocol, bytes, where the checksum stands, whether a pseudo header is summed).
fn transport(kind: &str, w: &Words<'_>) -> (u8, Vec<u8>, Option<usize>, bool) {
    let payload =
        w.bytes("pay").unwrap_or_else(|| b"0123456789abcdef"[..w.number("n", 10) as usize % 17].to_vec());
    let ports = [be16(w.number("sport", 1111)), be16(w.number("dport", 2222))].concat();
    match kind {
        "tcp" => {
            let mut b = ports;
            b.extend([0, 0, 0, 1, 0, 0, 0, 0]);
            b.extend(be16((w.number("doff", 5) << 12) | w.number("flags", 0x10)));
            b.extend([0x10, 0, 0, 0, 0, 0]);
            b.extend(payload);
            (6, b, Some(16), true)
        }
        "udp" => {
            let mut b = ports;
            b.extend(be16(w.number("ulen", 8 + payload.len() as u32)));
            b.extend([0, 0]);
            b.extend(payload);
            (17, b, Some(6), true)
        }
        "sctp" => {
            let mut b = ports;
            b.extend([0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44]);
            b.extend(payload);
            (132, b, None, false)
        }
        "icmp" => {
            let mut b = vec![w.number("itype", 8) as u8, w.number("icode", 0) as u8, 0, 0, 0, 1, 0, 2];
            b.extend(payload);
            (1, b, Some(2), false)
        }
        "igmp" => (2, [vec![0x16, 0, 0, 0], w.v4("group", "224.1.2.3").to_vec()].concat(), Some(2), false),
        "icmp6" => {
            let mut b = vec![w.number("itype", 128) as u8, w.number("icode", 0) as u8, 0, 0, 0, 1, 0, 2];
            b.extend(payload);
            (58, b, Some(2), true)
        }
        "ns" | "na" => {
            let (itype, option, key) = if kind == "ns" { (135, 1, "sll") } else { (136, 2, "tll") };
            let mut b = vec![itype, w.number("icode", 0) as u8, 0, 0];
            b.extend(w.number("rsv", 0).to_be_bytes());
            b.extend(w.v6("target", "fe80::2"));
            if w.get(key) != Some("none") {
                b.extend([option, 1]);
                b.extend(w.mac(key, "50:54:00:00:00:01"));
            }
            (58, b, Some(2), true)
        }
        _ => (w.number("proto", 253) as u8, payload, None, false),
    }
}

fn ipv4(kind: &str, w: &Words<'_>) -> Vec<u8> {
    let (proto, mut l4, at, pseudo) = transport(kind, w);
    let (src, dst) = (w.v4("src", "10.0.0.1"), w.v4("dst", "10.0.0.2"));
    let proto = w.number("proto", u32::from(proto)) as u8;
    if let Some(at) = at.filter(|_| w.get("bad").is_none()) {
        let head = [&src[..], &dst[..], &[0, proto], &be16(l4.len() as u32)].concat();
        let sum = checksum(&[if pseudo { &head[..] } else { &[] }, &l4]);
        l4[at..at + 2].copy_from_slice(&sum);
    }
    let frag = match w.get("frag") {
        Some("first") => 0x2000,
        Some("later") => 0x2010,
        Some("last") => 0x0010,
        _ => 0x4000,
    };
    let options = w.bytes("opt").unwrap_or_default();
    let ihl = w.number("ihl", 5 + options.len() as u32 / 4);
    let total = w.number("iplen", 20 + (options.len() + l4.len()) as u32);
    let mut h = vec![(w.number("ver", 4) << 4 | ihl) as u8, w.number("tos", 0) as u8];
    h.extend(be16(total));
    h.extend([0, 1]);
    h.extend(be16(w.number("fragoff", frag)));
    h.extend([w.number("ttl", 64) as u8, proto, 0, 0]);
    h.extend(src);
    h.extend(dst);
    h.extend(options);
    let sum = checksum(&[&h]);
    h[10..12].copy_from_slice(&sum);
    [h, l4].concat()
}

fn ipv6(kind: &str, w: &Words<'_>) -> Vec<u8> {
    let (proto, mut l4, at, pseudo) = transport(kind, w);
    let (src, dst) = (w.v6("src", "fe80::1"), w.v6("dst", "fe80::2"));
    let proto = w.number("proto", u32::from(proto)) as u8;
    if let Some(at) = at.filter(|_| w.get("bad").is_none()) {
        let len = (l4.len() as u32).to_be_bytes();
        let head = [&src[..], &dst[..], &len, &[0, 0, 0, proto]].concat();
        let sum = checksum(&[if pseudo { &head[..] } else { &[] }, &l4]);
        l4[at..at + 2].copy_from_slice(&sum);
    }
    let mut next = proto;
    let mut extensions = w.bytes("ext").unwrap_or_default();
    if let Some(frag) = w.get("frag") {
        let offset: u32 = match frag {
            "first" => 0x0001,
            "later" => 0x0081,
            _ => 0x0080,
        };
        let mut f = vec![next, 0];
        f.extend(be16(offset));
        f.extend([0, 0, 0, 7]);
        extensions.extend(f);
        next = 44;
    }
    let next = w.number("next", u32::from(next)) as u8;
    let word = 6 << 28 | w.number("tos", 0) << 20 | w.number("label", 0);
    let mut h = word.to_be_bytes().to_vec();
    h.extend(be16(w.number("iplen", (extensions.len() + l4.len()) as u32)));
    h.extend([next, w.number("ttl", 64) as u8]);
    h.extend(src);
    h.extend(dst);
    [h, extensions, l4].concat()
}

fn arp(w: &Words<'_>) -> Vec<u8> {
    let mut b = be16(w.number("hw", 1)).to_vec();
    b.extend(be16(w.number("pro", 0x800)));
    b.extend([w.number("hln", 6) as u8, w.number("pln", 4) as u8]);
    b.extend(be16(w.number("op", 1)));
    b.extend(w.mac("sha", "50:54:00:00:00:01"));
    b.extend(w.v4("spa", "10.0.0.1"));
    b.extend(w.mac("tha", "00:00:00:00:00:00"));
    b.extend(w.v4("tpa", "10.0.0.2"));
    b
}

fn tag(text: &str, default: u32) -> Vec<u8> {
    let mut parts = text.split('/').map(|p| p.parse::<u32>().expect("VLAN as VID/PCP/CFI/TPID"));
    let (vid, pcp, cfi) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let tpid = parts.next().unwrap_or(default);
    [be16(tpid), be16(pcp << 13 | cfi << 12 | vid)].concat()
}

/// The frame of a line.
pub fn frame(line: &str) -> Vec<u8> {
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap_or_else(|| panic!("no protocol"));
    if kind == "hex" {
        return hex(&words.collect::<String>()).unwrap_or_else(|| panic!("not hex: {line}"));
    }
    let pairs = words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    let w = Words { pairs, line };
    let (ether, body) = match kind {
        "eth" => (0x1234, w.bytes("pay").unwrap_or_else(|| vec![0xaa; 46])),
        "arp" => (0x0806, arp(&w)),
        "rarp" => (0x8035, arp(&w)),
        "ip" | "tcp" | "udp" | "sctp" | "icmp" | "igmp" => (0x0800, ipv4(kind, &w)),
        "ip6" | "icmp6" | "ns" | "na" => (0x86dd, ipv6(kind, &w)),
        "tcp6" | "udp6" | "sctp6" => (0x86dd, ipv6(kind.trim_end_matches('6'), &w)),
        _ => panic!("unknown protocol in: {line}"),
    };
    let mut f = w.mac("dmac", "50:54:00:00:00:02");
    f.extend(w.mac("smac", "50:54:00:00:00:01"));
    for (key, tpid) in [("svlan", 0x88a8), ("vlan", 0x8100), ("vlan2", 0x8100)] {
        if let Some(text) = w.get(key) {
            f.extend(tag(text, tpid));
        }
    }
    match w.get("llc") {
        Some(text) => {
            let llc = hex(text).unwrap_or_else(|| panic!("llc is not hex in: {line}"));
            f.extend(be16((llc.len() + body.len()) as u32));
            f.extend(llc);
        }
        None => f.extend(be16(w.number("type", ether))),
    }
    f.extend(body);
    let pad = w.number("pad", 0) as usize;
    f.resize(f.len().max(pad), 0);
    f.truncate(w.number("cut", u32::MAX) as usize);
    f
}

#[test]
fn lines_become_frames() {
    let f = frame("udp src=1.2.3.4 dst=5.6.7.8 sport=9 dport=10 vlan=5/3 pay=0102");
    let text = "505400000002505400000001810060050800450000\
                1e00014000401126ae0102030405060708";
    assert!(to_hex(&f).starts_with(&text.replace(' ', "")[..40]), "{}", to_hex(&f));
    assert_eq!(f.len(), 14 + 4 + 20 + 8 + 2);
    assert_eq!(checksum(&[&f[18..38]]), [0, 0]);
    assert_eq!(frame("hex 0102 03"), [1, 2, 3]);
}

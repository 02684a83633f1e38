//! Datapath keys and cookies as bytes: what comes up with a packet that a datapath queued for user space.
//!
//! A key is a sequence of netlink attributes (linux/openvswitch.h). What only the datapath knows is read from it: port,
//! marks, tunnel, connection, recirculation. Of the headers only the sizes are checked: the packet is there to be read.
//! Bytes are not trusted: every length is checked, time is linear, nothing is kept but a [`Flow`].
//!
//! A cookie is what this program put into a `userspace` action, and gets back with the packet: a type, then fixed
//! fields. Those of sampling have types of their own, whose content belongs to the exporters.
//!
//! Neighbours: handlers decode, providers encode. Threads: plain functions.

use crate::action::UserspaceCookie;
use crate::be::{Be16, Be32, Be64};
use crate::key::Flow;
use crate::port::{DpPort, RecircId};

/// Attribute types of keys.
mod attr {
    pub const PRIORITY: u16 = 2;
    pub const IN_PORT: u16 = 3;
    pub const SKB_MARK: u16 = 15;
    pub const TUNNEL: u16 = 16;
    pub const DP_HASH: u16 = 19;
    pub const RECIRC_ID: u16 = 20;
    pub const CT_STATE: u16 = 22;
    pub const CT_ZONE: u16 = 23;
    pub const CT_MARK: u16 = 24;
    pub const CT_LABELS: u16 = 25;
    pub const CT_TUPLE4: u16 = 26;
    pub const CT_TUPLE6: u16 = 27;
    pub const PACKET_TYPE: u16 = 29;
    /// Types from here on are not known here.
    pub const MAX: u16 = 33;
}

/// Attribute types of tunnels.
mod tun {
    pub const ID: u16 = 0;
    pub const IPV4_SRC: u16 = 1;
    pub const IPV4_DST: u16 = 2;
    pub const TOS: u16 = 3;
    pub const TTL: u16 = 4;
    pub const DONT_FRAGMENT: u16 = 5;
    pub const CSUM: u16 = 6;
    pub const OAM: u16 = 7;
    pub const TP_SRC: u16 = 9;
    pub const TP_DST: u16 = 10;
    pub const IPV6_SRC: u16 = 12;
    pub const IPV6_DST: u16 = 13;
    pub const MAX: u16 = 17;
}

/// Flag bits of [`Flow::tun_flags`].
const FLAG_OAM: u16 = 1;
const FLAG_DF: u16 = 2;
const FLAG_CSUM: u16 = 4;
const FLAG_KEY: u16 = 8;

/// Bits of an attribute's type that are not the type.
const NOT_TYPE: u16 = 0xc000;

/// Size of the content of each key attribute; `None`: any.
fn size(kind: u16) -> Option<usize> {
    Some(match kind {
        // Priority, port, mark, hash, recirculation, state, connection mark, packet type; TCP, UDP, SCTP.
        2 | 3 | 15 | 19 | 20 | 22 | 24 | 29 | 9 | 10 | 17 => 4,
        // VLAN, Ethernet type, ICMP, ICMPv6, TCP flags, zone.
        5 | 6 | 11 | 12 | 18 | 23 => 2,
        // Ethernet addresses, IPv4.
        4 | 7 => 12,
        8 | 27 => 40,
        13 => 24,
        14 => 28,
        25 | 26 => 16,
        _ => return None,
    })
}

/// What is wrong with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyWireError {
    /// It ends within an attribute, or an attribute is shorter than its header.
    #[error("attribute at byte {0} does not fit the key")]
    Cut(usize),
    /// An attribute has another size than its type says.
    #[error("attribute {kind} has {len} bytes")]
    Size {
        /// Its type.
        kind: u16,
        /// Its bytes.
        len: usize,
    },
    /// An attribute comes twice.
    #[error("attribute {0} comes twice")]
    Twice(u16),
    /// The packet is none of Ethernet.
    #[error("packet type {0:#x} is not Ethernet")]
    PacketType(u32),
}

/// Reads attributes: type and content of each.
struct Attrs<'a> {
    bytes: &'a [u8],
    at: usize,
    seen: u64,
}

impl<'a> Attrs<'a> {
    fn new(bytes: &'a [u8]) -> Attrs<'a> {
        Attrs { bytes, at: 0, seen: 0 }
    }

    fn next(&mut self) -> Result<Option<(u16, &'a [u8])>, KeyWireError> {
        let at = self.at;
        if at >= self.bytes.len() {
            return Ok(None);
        }
        let cut = KeyWireError::Cut(at);
        let [l0, l1, t0, t1] = *self.bytes[at..].first_chunk::<4>().ok_or(cut)?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([t0, t1]) & !NOT_TYPE;
        let content = self.bytes.get(at + 4..at + len).ok_or(cut)?;
        self.at = at + len.next_multiple_of(4);
        if kind < 64 {
            if self.seen >> kind & 1 != 0 {
                return Err(KeyWireError::Twice(kind));
            }
            self.seen |= 1 << kind;
        }
        Ok(Some((kind, content)))
    }
}

/// The first bytes of `b`, which is known to have as many.
fn take<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    b.get(at..at + N).and_then(|s| s.try_into().ok()).unwrap_or([0; N])
}

fn be16(b: &[u8], at: usize) -> Be16 {
    Be16::new(u16::from_be_bytes(take(b, at)))
}

fn be32(b: &[u8], at: usize) -> Be32 {
    Be32::new(u32::from_be_bytes(take(b, at)))
}

/// Reads the metadata of a key. Attributes of types that are not known are passed over. A key without a port is one of
/// [`DpPort::NONE`].
///
/// # Errors
/// What is wrong with it.
pub fn decode_key(bytes: &[u8]) -> Result<Flow, KeyWireError> {
    let mut f = Flow { in_port: DpPort::NONE.0, ..Flow::default() };
    let mut attrs = Attrs::new(bytes);
    while let Some((kind, b)) = attrs.next()? {
        if size(kind).is_some_and(|n| n != b.len()) {
            return Err(KeyWireError::Size { kind, len: b.len() });
        }
        let host32 = || u32::from_ne_bytes(take(b, 0));
        match kind {
            attr::PRIORITY => f.skb_priority = host32(),
            attr::IN_PORT => f.in_port = host32(),
            attr::SKB_MARK => f.pkt_mark = host32(),
            attr::DP_HASH => f.dp_hash = host32(),
            attr::RECIRC_ID => f.recirc_id = host32(),
            attr::CT_STATE => f.ct_state = host32() as u8,
            attr::CT_ZONE => f.ct_zone = u16::from_ne_bytes(take(b, 0)),
            attr::CT_MARK => f.ct_mark = host32(),
            attr::CT_LABELS => {
                // The least significant byte comes first.
                f.ct_label = take(b, 0);
                f.ct_label.reverse();
            }
            attr::CT_TUPLE4 => {
                (f.ct_nw_src, f.ct_nw_dst) = (be32(b, 0), be32(b, 4));
                (f.ct_tp_src, f.ct_tp_dst, f.ct_nw_proto) = (be16(b, 8), be16(b, 10), b[12]);
            }
            attr::CT_TUPLE6 => {
                (f.ct_ipv6_src, f.ct_ipv6_dst) = (take(b, 0), take(b, 16));
                (f.ct_tp_src, f.ct_tp_dst, f.ct_nw_proto) = (be16(b, 32), be16(b, 34), b[36]);
            }
            attr::TUNNEL => tunnel(b, &mut f)?,
            attr::PACKET_TYPE if be32(b, 0) != Be32::ZERO => {
                return Err(KeyWireError::PacketType(be32(b, 0).get()));
            }
            _ => {}
        }
    }
    Ok(f)
}

fn tunnel(bytes: &[u8], f: &mut Flow) -> Result<(), KeyWireError> {
    let mut attrs = Attrs::new(bytes);
    while let Some((kind, b)) = attrs.next()? {
        let want = match kind {
            tun::ID => 8,
            tun::IPV4_SRC | tun::IPV4_DST => 4,
            tun::TOS | tun::TTL => 1,
            tun::DONT_FRAGMENT | tun::CSUM | tun::OAM => 0,
            tun::TP_SRC | tun::TP_DST => 2,
            tun::IPV6_SRC | tun::IPV6_DST => 16,
            // Options are not matched on.
            _ => continue,
        };
        if b.len() != want {
            return Err(KeyWireError::Size { kind, len: b.len() });
        }
        match kind {
            tun::ID => {
                f.tun_id = Be64::new(u64::from_be_bytes(take(b, 0)));
                f.tun_flags |= FLAG_KEY;
            }
            tun::IPV4_SRC => f.tun_src = be32(b, 0),
            tun::IPV4_DST => f.tun_dst = be32(b, 0),
            tun::TOS => f.tun_tos = b[0],
            tun::TTL => f.tun_ttl = b[0],
            tun::DONT_FRAGMENT => f.tun_flags |= FLAG_DF,
            tun::CSUM => f.tun_flags |= FLAG_CSUM,
            tun::OAM => f.tun_flags |= FLAG_OAM,
            tun::TP_SRC => f.tun_tp_src = be16(b, 0),
            tun::TP_DST => f.tun_tp_dst = be16(b, 0),
            tun::IPV6_SRC => f.tun_ipv6_src = take(b, 0),
            _ => f.tun_ipv6_dst = take(b, 0),
        }
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, kind: u16, content: &[u8]) {
    // Contents written here are short.
    out.extend((content.len() as u16 + 4).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The metadata of a flow, as [`decode_key`] reads it.
pub fn encode_key(f: &Flow) -> Vec<u8> {
    let mut out = Vec::new();
    let mut word = |kind, v: u32| put(&mut out, kind, &v.to_ne_bytes());
    word(attr::RECIRC_ID, f.recirc_id);
    word(attr::DP_HASH, f.dp_hash);
    word(attr::PRIORITY, f.skb_priority);
    word(attr::IN_PORT, f.in_port);
    word(attr::SKB_MARK, f.pkt_mark);
    word(attr::CT_STATE, f.ct_state.into());
    word(attr::CT_MARK, f.ct_mark);
    put(&mut out, attr::CT_ZONE, &f.ct_zone.to_ne_bytes());
    let mut label = f.ct_label;
    label.reverse();
    put(&mut out, attr::CT_LABELS, &label);
    let ports = [f.ct_tp_src.get().to_be_bytes(), f.ct_tp_dst.get().to_be_bytes()].concat();
    let end = [f.ct_nw_proto, 0, 0, 0];
    if !f.ct_nw_src.is_zero() || !f.ct_nw_dst.is_zero() {
        let ends = [f.ct_nw_src.get().to_be_bytes(), f.ct_nw_dst.get().to_be_bytes()].concat();
        put(&mut out, attr::CT_TUPLE4, &[&ends[..], &ports, &end].concat());
    } else if f.ct_nw_proto != 0 {
        put(&mut out, attr::CT_TUPLE6, &[&f.ct_ipv6_src[..], &f.ct_ipv6_dst, &ports, &end].concat());
    }
    if !f.tun_dst.is_zero() || f.tun_ipv6_dst != [0; 16] {
        let inner = encode_tunnel(f);
        put(&mut out, attr::TUNNEL, &inner);
    }
    out
}

fn encode_tunnel(f: &Flow) -> Vec<u8> {
    let mut out = Vec::new();
    let mut some = |kind, is: bool, content: &[u8]| {
        if is {
            put(&mut out, kind, content);
        }
    };
    some(tun::ID, f.tun_flags & FLAG_KEY != 0, &f.tun_id.get().to_be_bytes());
    some(tun::IPV4_SRC, !f.tun_src.is_zero(), &f.tun_src.get().to_be_bytes());
    some(tun::IPV4_DST, !f.tun_dst.is_zero(), &f.tun_dst.get().to_be_bytes());
    some(tun::IPV6_SRC, f.tun_ipv6_src != [0; 16], &f.tun_ipv6_src);
    some(tun::IPV6_DST, f.tun_ipv6_dst != [0; 16], &f.tun_ipv6_dst);
    some(tun::TOS, f.tun_tos != 0, &[f.tun_tos]);
    some(tun::TTL, true, &[f.tun_ttl]);
    some(tun::DONT_FRAGMENT, f.tun_flags & FLAG_DF != 0, &[]);
    some(tun::CSUM, f.tun_flags & FLAG_CSUM != 0, &[]);
    some(tun::OAM, f.tun_flags & FLAG_OAM != 0, &[]);
    some(tun::TP_SRC, !f.tun_tp_src.is_zero(), &f.tun_tp_src.get().to_be_bytes());
    some(tun::TP_DST, !f.tun_tp_dst.is_zero(), &f.tun_tp_dst.get().to_be_bytes());
    out
}

/// What a cookie says its packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireCookie {
    /// One that the datapath has as a type.
    Own(UserspaceCookie),
    /// A sample of a bridge's sFlow.
    SFlow,
    /// A sample of a `sample` action.
    FlowSample,
    /// A sample of a bridge's IPFIX.
    Ipfix,
}

/// What is wrong with a cookie. Texts are Open vSwitch's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CookieError {
    /// There is none.
    #[error("action upcall missing cookie")]
    Missing,
    /// No cookie has this size.
    #[error("action upcall cookie has unexpected size {0}")]
    Size(usize),
    /// There is no such type.
    #[error("invalid user cookie of type {kind} and size {len}")]
    Type {
        /// The type.
        kind: u16,
        /// Its bytes.
        len: usize,
    },
}

/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 32;

const SFLOW: u16 = 1;
const SLOW_PATH: u16 = 2;
const FLOW_SAMPLE: u16 = 3;
const IPFIX: u16 = 4;
const CONTROLLER: u16 = 5;

/// A cookie as bytes.
pub fn encode_cookie(cookie: &WireCookie) -> [u8; COOKIE_LEN] {
    let mut out = [0; COOKIE_LEN];
    let mut at = 0;
    let mut add = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    match *cookie {
        WireCookie::SFlow => add(&SFLOW.to_ne_bytes()),
        WireCookie::FlowSample => add(&FLOW_SAMPLE.to_ne_bytes()),
        WireCookie::Ipfix => add(&IPFIX.to_ne_bytes()),
        WireCookie::Own(UserspaceCookie::SlowPath { reason }) => {
            add(&SLOW_PATH.to_ne_bytes());
            add(&reason.to_ne_bytes());
        }
        WireCookie::Own(UserspaceCookie::Controller {
            reason,
            dont_send,
            continuation,
            recirc_id,
            rule_cookie,
            controller_id,
            max_len,
            frozen,
        }) => {
            add(&CONTROLLER.to_ne_bytes());
            add(&[reason, u8::from(dont_send), u8::from(continuation), 0]);
            add(&recirc_id.0.to_ne_bytes());
            add(&rule_cookie.to_ne_bytes());
            add(&controller_id.to_ne_bytes());
            add(&max_len.to_ne_bytes());
            add(&frozen.to_ne_bytes());
        }
    }
    out
}

/// Reads a cookie.
///
/// # Errors
/// What is wrong with it.
pub fn decode_cookie(b: &[u8]) -> Result<WireCookie, CookieError> {
    match b.len() {
        0 => return Err(CookieError::Missing),
        COOKIE_LEN => {}
        n => return Err(CookieError::Size(n)),
    }
    let host32 = |at| u32::from_ne_bytes(take(b, at));
    let host16 = |at| u16::from_ne_bytes(take(b, at));
    Ok(match host16(0) {
        SFLOW => WireCookie::SFlow,
        FLOW_SAMPLE => WireCookie::FlowSample,
        IPFIX => WireCookie::Ipfix,
        SLOW_PATH => WireCookie::Own(UserspaceCookie::SlowPath { reason: host32(2) }),
        CONTROLLER => WireCookie::Own(UserspaceCookie::Controller {
            reason: b[2],
            dont_send: b[3] != 0,
            continuation: b[4] != 0,
            recirc_id: RecircId(host32(6)),
            rule_cookie: u64::from_ne_bytes(take(b, 10)),
            controller_id: host16(18),
            max_len: host16(20),
            frozen: host32(22),
        }),
        kind => return Err(CookieError::Type { kind, len: b.len() }),
    })
}

const _: () = assert!(tun::MAX < 64 && attr::MAX < 64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A flow whose metadata are made of `bytes`.
    fn metadata(bytes: &[u8]) -> Flow {
        let mut f = Flow::default();
        let n = std::mem::offset_of!(Flow, conj_id);
        f.bytes_mut()[..n].iter_mut().zip(bytes.iter().cycle()).for_each(|(b, v)| *b = *v);
        (f.tun_flags, f.tun_gbp_id, f.tun_gbp_flags) = (f.tun_flags & 0xf, Be16::ZERO, 0);
        (f.tun_erspan_ver, f.tun_erspan_idx, f.tun_erspan_dir, f.tun_erspan_hwid) = (0, 0, 0, 0);
        (f.tun_gtpu_flags, f.tun_gtpu_msgtype, f.pad0, f.packet_type) = (0, 0, [0; 4], Be32::ZERO);
        if f.tun_flags & FLAG_KEY == 0 {
            f.tun_id = Be64::ZERO;
        }
        if f.ct_nw_src.is_zero() && f.ct_nw_dst.is_zero() {
            f.ct_nw_proto |= 1;
        } else {
            (f.ct_ipv6_src, f.ct_ipv6_dst) = ([0; 16], [0; 16]);
        }
        f
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let f = metadata(&bytes);
            let tunnel = !f.tun_dst.is_zero() || f.tun_ipv6_dst != [0; 16];
            prop_assume!(tunnel);
            prop_assert_eq!(decode_key(&encode_key(&f)), Ok(f));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_key(&bytes);
            let _ = decode_cookie(&bytes);
        }

        #[test]
        fn a_broken_key_is_read_or_refused(at in 0usize..200, v in any::<u8>(), cut in 0usize..200) {
            let f = metadata(&[7, 1, 3, 9, 2]);
            let mut key = encode_key(&f);
            if let Some(b) = key.get_mut(at) {
                *b = v;
            }
            let _ = decode_key(&key);
            let _ = decode_key(&key[..cut.min(key.len())]);
        }

        #[test]
        fn cookies(b in any::<[u8; COOKIE_LEN]>()) {
            if let Ok(c) = decode_cookie(&b) {
                prop_assert_eq!(decode_cookie(&encode_cookie(&c)), Ok(c));
            }
        }
    }

    #[test]
    fn every_kind_of_cookie() {
        let slow = WireCookie::Own(UserspaceCookie::SlowPath { reason: 0x22 });
        let controller = WireCookie::Own(UserspaceCookie::Controller {
            reason: 1,
            dont_send: false,
            continuation: true,
            recirc_id: RecircId(0x1234_5678),
            rule_cookie: u64::MAX - 3,
            controller_id: 77,
            max_len: 128,
            frozen: 9,
        });
        for c in [slow, controller, WireCookie::SFlow, WireCookie::FlowSample, WireCookie::Ipfix] {
            assert_eq!(decode_cookie(&encode_cookie(&c)), Ok(c));
        }
        assert_eq!(decode_cookie(&[]), Err(CookieError::Missing));
        assert_eq!(
            decode_cookie(&[0; 9]).unwrap_err().to_string(),
            "action upcall cookie has unexpected size 9"
        );
        let bad = decode_cookie(&[0xff; COOKIE_LEN]).unwrap_err().to_string();
        assert_eq!(bad, "invalid user cookie of type 65535 and size 32");
    }

    #[test]
    fn keys_are_refused_for_a_reason() {
        let one = |kind, content: &[u8]| {
            let mut out = Vec::new();
            put(&mut out, kind, content);
            out
        };
        let port = one(attr::IN_PORT, &5u32.to_ne_bytes());
        assert_eq!(decode_key(&port).map(|f| f.in_port), Ok(5));
        assert_eq!(decode_key(&[]).map(|f| f.in_port), Ok(DpPort::NONE.0));
        assert_eq!(
            decode_key(&[port.clone(), port.clone()].concat()),
            Err(KeyWireError::Twice(attr::IN_PORT))
        );
        assert_eq!(decode_key(&port[..6]), Err(KeyWireError::Cut(0)));
        assert_eq!(decode_key(&[0, 0, 0, 0]), Err(KeyWireError::Cut(0)));
        let short = one(attr::IN_PORT, &[1, 2]);
        assert_eq!(decode_key(&short), Err(KeyWireError::Size { kind: attr::IN_PORT, len: 2 }));
        let typed = one(attr::PACKET_TYPE, &[0, 1, 8, 0]);
        assert_eq!(decode_key(&typed), Err(KeyWireError::PacketType(0x10800)));
        assert_eq!(decode_key(&[one(60, &[1]), port].concat()).map(|f| f.in_port), Ok(5));
        let inner = one(tun::TTL, &[1, 2]);
        let nested = one(attr::TUNNEL | 0x8000, &inner);
        assert_eq!(decode_key(&nested), Err(KeyWireError::Size { kind: tun::TTL, len: 2 }));
        for kind in 0..attr::MAX {
            let n = size(kind).unwrap_or(0);
            assert!(decode_key(&one(kind, &vec![0; n])).is_ok(), "{kind}");
        }
    }
}

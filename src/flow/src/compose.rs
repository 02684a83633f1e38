//! From a flow back to a frame that has it.
//!
//! Used where the switch needs a packet and only a flow is known: `ofproto/trace`, packet-out of a described
//! flow, tests. Neighbours: `extract` is the inverse. Threads: plain functions.

use crate::key::{Flow, FRAG_ANY, FRAG_LATER, VLAN_CFI};
use packet::build::{Builder, Ip4, Ip6};

const FIN_SYN_RST: u16 = 7;

/// Payload of a frame of no given length.
const PAYLOAD: [u8; 64] = {
    let mut p = [0; 64];
    let mut i = 0;
    while i < p.len() {
        p[i] = i as u8;
        i += 1;
    }
    p
};

/// A frame of `flow`: with `len` 0, 64 bytes of payload behind a transport header; else none, and zeros until it has
/// `len` bytes.
pub fn compose(flow: &Flow, len: usize) -> Vec<u8> {
    let mut b = Builder::eth(flow.dl_dst, flow.dl_src);
    for v in flow.vlans.iter().filter(|v| v.tci.get() & VLAN_CFI != 0) {
        let tpid = if v.tpid.is_zero() { 0x8100 } else { v.tpid.get() };
        b = b.vlan(tpid, v.tci.get() & !VLAN_CFI);
    }
    let dl_type = flow.dl_type.get();
    b = match dl_type {
        0x0800 => {
            let ip = Ip4 {
                src: flow.nw_src.bytes(),
                dst: flow.nw_dst.bytes(),
                tos: flow.nw_tos,
                ttl: flow.nw_ttl,
                frag: fragment_v4(flow.nw_frag),
            };
            transport(b.ipv4(ip), flow, len)
        }
        0x86dd => ipv6(b, flow, len),
        0x0806 | 0x8035 => b.ethertype(dl_type).arp(
            flow.nw_proto.into(),
            flow.arp_sha,
            flow.nw_src.bytes(),
            flow.arp_tha,
            flow.nw_dst.bytes(),
        ),
        0x8847 | 0x8848 => {
            b = b.ethertype(dl_type);
            for l in &flow.mpls {
                b = b.mpls(l.get());
                if l.get() & 0x100 != 0 {
                    break;
                }
            }
            b
        }
        // 802.2 without a protocol number.
        0x05ff => b.ethertype(len.clamp(14, 0x5ff) as u16),
        t => b.ethertype(t),
    };
    b.pad_to(len).finish()
}

fn fragment_v4(frag: u8) -> u16 {
    match frag & (FRAG_ANY | FRAG_LATER) {
        0 => 0,
        FRAG_ANY => 0x2000,
        _ => 0x2064,
    }
}

fn ipv6(b: Builder, flow: &Flow, len: usize) -> Builder {
    let ip = Ip6 {
        src: flow.ipv6_src,
        dst: flow.ipv6_dst,
        tclass: flow.nw_tos,
        label: flow.ipv6_label.get(),
        hop_limit: flow.nw_ttl,
    };
    let b = b.ipv6(ip);
    match flow.nw_frag & (FRAG_ANY | FRAG_LATER) {
        0 => transport(b, flow, len),
        FRAG_ANY => transport(b.ipv6_fragment(1), flow, len),
        _ => b.ipv6_fragment(8).proto(17),
    }
}

fn transport(b: Builder, flow: &Flow, len: usize) -> Builder {
    let (src, dst) = (flow.tp_src.get(), flow.tp_dst.get());
    let payload = if len == 0 { &PAYLOAD[..] } else { &[] };
    if flow.nw_frag & FRAG_LATER != 0 {
        return b.proto(flow.nw_proto);
    }
    match flow.nw_proto {
        6 => {
            let flags = flow.tcp_flags.get();
            // Segments that begin or end a connection carry nothing.
            b.tcp(src, dst, flags).payload(if flags & FIN_SYN_RST == 0 { payload } else { &[] })
        }
        17 => b.udp(src, dst).payload(payload),
        132 => b.sctp(src, dst),
        1 => b.icmp(src as u8, dst as u8).payload(payload),
        2 => b.igmp(src as u8, dst as u8, flow.igmp_group_ip4.bytes()),
        58 if matches!(src, 135 | 136) && dst == 0 => {
            b.nd(src as u8, flow.nd_target, flow.arp_sha, flow.arp_tha)
        }
        58 => b.icmpv6(src as u8, dst as u8).payload(payload),
        p => b.proto(p),
    }
}

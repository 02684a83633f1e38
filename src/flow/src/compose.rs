//! From a flow back to a frame that has it.
//!
//! Used where the switch needs a packet and only a flow is known: `ofproto/trace`, packet-out of a described
//! flow, tests. Neighbours: `extract` is the inverse. Threads: plain functions.

use crate::key::{Flow, FRAG_ANY, FRAG_LATER, VLAN_CFI};
use packet::build::{Builder, Ip4, Ip6};

/// A frame of `flow`, padded to `len` bytes when it is shorter.
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
            transport(b.ipv4(ip), flow)
        }
        0x86dd => ipv6(b, flow),
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
        // 802.2 without a protocol number: length, then an unnumbered frame of the null service.
        0x05ff => b.ethertype(3).payload(&[0, 0, 3]),
        t => b.ethertype(t),
    };
    b.pad_to(len).finish()
}

fn fragment_v4(frag: u8) -> u16 {
    match frag & (FRAG_ANY | FRAG_LATER) {
        0 => 0,
        FRAG_ANY => 0x2000,
        _ => 0x0001,
    }
}

fn ipv6(b: Builder, flow: &Flow) -> Builder {
    let ip = Ip6 {
        src: flow.ipv6_src,
        dst: flow.ipv6_dst,
        tclass: flow.nw_tos,
        label: flow.ipv6_label.get(),
        hop_limit: flow.nw_ttl,
    };
    let b = b.ipv6(ip);
    match flow.nw_frag & (FRAG_ANY | FRAG_LATER) {
        0 => transport(b, flow),
        FRAG_ANY => transport(b.ipv6_fragment(1), flow),
        _ => b.ipv6_fragment(8).proto(17),
    }
}

fn transport(b: Builder, flow: &Flow) -> Builder {
    let (src, dst) = (flow.tp_src.get(), flow.tp_dst.get());
    if flow.nw_frag & FRAG_LATER != 0 {
        return b.proto(flow.nw_proto);
    }
    match flow.nw_proto {
        6 => b.tcp(src, dst, flow.tcp_flags.get()),
        17 => b.udp(src, dst),
        132 => b.sctp(src, dst),
        1 => b.icmp(src as u8, dst as u8),
        2 => b.igmp(src as u8, dst as u8, flow.igmp_group_ip4.bytes()),
        58 if matches!(src, 135 | 136) && dst == 0 => {
            b.nd(src as u8, flow.nd_target, flow.arp_sha, flow.arp_tha)
        }
        58 => b.icmpv6(src as u8, dst as u8),
        p => b.proto(p),
    }
}

//! Committing header changes: the datapath actions that turn the packet as the datapath has it (`base`) into the
//! packet as OpenFlow has it (`flow`).
//!
//! Neighbours: `output` calls it before every output. Threads: pure functions.

use flow::action::{ArpSet, Ipv4Set, Ipv6Set, NdSet};
use flow::key::{FRAG_LATER, MAX_MPLS, MAX_VLANS, VLAN_CFI};
use flow::{Be16, Be32, DpAction, Flow, Mask, SetField, Vlan};

pub(super) const ETH_IP: u16 = 0x0800;
pub(super) const ETH_IPV6: u16 = 0x86dd;
pub(super) const ETH_ARP: u16 = 0x0806;
pub(super) const ETH_RARP: u16 = 0x8035;
pub(super) const ETH_VLAN: u16 = 0x8100;
pub(super) const ETH_MPLS: u16 = 0x8847;
pub(super) const ETH_MPLS_MCAST: u16 = 0x8848;
pub(super) const PROTO_ICMP: u8 = 1;
pub(super) const PROTO_TCP: u8 = 6;
pub(super) const PROTO_UDP: u8 = 17;
pub(super) const PROTO_ICMPV6: u8 = 58;
pub(super) const PROTO_SCTP: u8 = 132;
/// Bottom of the MPLS stack.
pub(super) const MPLS_BOS: u32 = 0x100;

/// Whether the packet is IPv4 or IPv6.
pub(super) fn is_ip_any(f: &Flow) -> bool {
    matches!(f.dl_type.get(), ETH_IP | ETH_IPV6)
}

/// Whether an Ethernet type is one of MPLS.
pub(super) fn is_mpls(dl_type: Be16) -> bool {
    matches!(dl_type.get(), ETH_MPLS | ETH_MPLS_MCAST)
}

/// What a commit found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Committed {
    /// A change was made that is left to the slow path (ARP, ND, ICMP headers).
    pub slow: bool,
}

/// Appends the actions that bring `base` to `flow`, and brings it there.
/// `orig` is the packet as it came.
pub(super) fn commit(
    flow: &Flow,
    orig: &Flow,
    base: &mut Flow,
    wc: &mut Mask,
    out: &mut Vec<DpAction>,
) -> Committed {
    let mut done = Committed::default();
    if flow.words() == base.words() {
        return done;
    }
    ether(flow, base, wc, out);
    // A packet must stop being MPLS before its IP headers can be written.
    let was_mpls = is_mpls(base.dl_type) && !is_mpls(flow.dl_type);
    if was_mpls {
        mpls(flow, base, wc, out);
    }
    done.slow = network(flow, orig, base, wc, out);
    ports(flow, base, wc, out);
    if !was_mpls {
        mpls(flow, base, wc, out);
    }
    vlan(flow, base, wc, out);
    if flow.skb_priority != base.skb_priority {
        wc.0.skb_priority = u32::MAX;
        out.push(DpAction::Set(SetField::SkbPriority { value: flow.skb_priority, mask: u32::MAX }));
        base.skb_priority = flow.skb_priority;
    }
    if flow.pkt_mark != base.pkt_mark {
        let mask = wc.0.pkt_mark;
        out.push(DpAction::Set(SetField::SkbMark { value: flow.pkt_mark & mask, mask }));
        base.pkt_mark = flow.pkt_mark;
    }
    done
}

fn and6(a: [u8; 6], m: [u8; 6]) -> [u8; 6] {
    std::array::from_fn(|i| a[i] & m[i])
}

fn and16(a: [u8; 16], m: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|i| a[i] & m[i])
}

/// `mask` when `a` and `b` differ, else nothing: a field that keeps its value is not written.
fn when<T: PartialEq + Default>(a: T, b: T, mask: T) -> T {
    if a == b {
        T::default()
    } else {
        mask
    }
}

fn ether(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<DpAction>) {
    if flow.dl_src == base.dl_src && flow.dl_dst == base.dl_dst {
        return;
    }
    let src_mask = when(flow.dl_src, base.dl_src, wc.0.dl_src);
    let dst_mask = when(flow.dl_dst, base.dl_dst, wc.0.dl_dst);
    out.push(DpAction::Set(SetField::Eth {
        src: and6(flow.dl_src, src_mask),
        dst: and6(flow.dl_dst, dst_mask),
        src_mask,
        dst_mask,
    }));
    base.dl_src = flow.dl_src;
    base.dl_dst = flow.dl_dst;
}

/// Network headers. True when the slow path must do it.
fn network(flow: &Flow, orig: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) -> bool {
    if flow.nw_proto == 0 && base.nw_proto != 0 && is_ip_any(flow) {
        // The headers went out of sight behind a label.
        return false;
    }
    match flow.dl_type.get() {
        ETH_IP => {
            ipv4(flow, orig, base, wc, out);
            base.nw_proto == PROTO_ICMP && icmp(flow, base, wc, out, false)
        }
        ETH_IPV6 => {
            ipv6(flow, orig, base, wc, out);
            base.nw_proto == PROTO_ICMPV6 && (nd(flow, base, wc, out) | icmp(flow, base, wc, out, true))
        }
        ETH_ARP | ETH_RARP => arp(flow, orig, base, wc, out),
        _ => false,
    }
}

/// Protocol 0 doubles as "no network header was found": such packets are not rewritten, and the megaflow must
/// not cover others. Where the protocol plays no part but a field that was looked at is not zero, there was a
/// header.
fn no_header(flow: &Flow, orig: &Flow, wc: &mut Mask) -> bool {
    let m = &wc.0;
    let seen = !((orig.nw_src & m.nw_src) | (orig.nw_dst & m.nw_dst)).is_zero()
        || and16(orig.ipv6_src, m.ipv6_src) != [0; 16]
        || and16(orig.ipv6_dst, m.ipv6_dst) != [0; 16]
        || (orig.nw_tos & m.nw_tos) | (orig.nw_ttl & m.nw_ttl) != 0;
    if seen && m.nw_proto != 0xff && is_ip_any(orig) && is_ip_any(flow) {
        return false;
    }
    wc.0.nw_proto = 0xff;
    flow.nw_proto == 0
}

fn ipv4(flow: &Flow, orig: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) {
    let same = flow.nw_src == base.nw_src
        && flow.nw_dst == base.nw_dst
        && flow.nw_tos == base.nw_tos
        && flow.nw_ttl == base.nw_ttl;
    if same || no_header(flow, orig, wc) {
        return;
    }
    let m = &wc.0;
    let mask = Ipv4Set {
        src: when(flow.nw_src, base.nw_src, m.nw_src),
        dst: when(flow.nw_dst, base.nw_dst, m.nw_dst),
        tos: when(flow.nw_tos, base.nw_tos, m.nw_tos),
        ttl: when(flow.nw_ttl, base.nw_ttl, m.nw_ttl),
    };
    let key = Ipv4Set {
        src: flow.nw_src & mask.src,
        dst: flow.nw_dst & mask.dst,
        tos: flow.nw_tos & mask.tos,
        ttl: flow.nw_ttl & mask.ttl,
    };
    out.push(DpAction::Set(SetField::Ipv4 { key, mask }));
    (base.nw_src, base.nw_dst) = (flow.nw_src, flow.nw_dst);
    (base.nw_tos, base.nw_ttl) = (flow.nw_tos, flow.nw_ttl);
}

fn ipv6(flow: &Flow, orig: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) {
    let same = flow.ipv6_src == base.ipv6_src
        && flow.ipv6_dst == base.ipv6_dst
        && flow.ipv6_label == base.ipv6_label
        && flow.nw_tos == base.nw_tos
        && flow.nw_ttl == base.nw_ttl;
    if same || no_header(flow, orig, wc) {
        return;
    }
    let m = &wc.0;
    let mask = Ipv6Set {
        src: when(flow.ipv6_src, base.ipv6_src, m.ipv6_src),
        dst: when(flow.ipv6_dst, base.ipv6_dst, m.ipv6_dst),
        label: when(flow.ipv6_label, base.ipv6_label, m.ipv6_label & Be32::new(0xf_ffff)),
        tclass: when(flow.nw_tos, base.nw_tos, m.nw_tos),
        hlimit: when(flow.nw_ttl, base.nw_ttl, m.nw_ttl),
    };
    let key = Ipv6Set {
        src: and16(flow.ipv6_src, mask.src),
        dst: and16(flow.ipv6_dst, mask.dst),
        label: flow.ipv6_label & mask.label,
        tclass: flow.nw_tos & mask.tclass,
        hlimit: flow.nw_ttl & mask.hlimit,
    };
    out.push(DpAction::Set(SetField::Ipv6 { key, mask }));
    (base.ipv6_src, base.ipv6_dst, base.ipv6_label) = (flow.ipv6_src, flow.ipv6_dst, flow.ipv6_label);
    (base.nw_tos, base.nw_ttl) = (flow.nw_tos, flow.nw_ttl);
}

fn arp(flow: &Flow, orig: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) -> bool {
    let same = flow.nw_src == base.nw_src
        && flow.nw_dst == base.nw_dst
        && flow.nw_proto == base.nw_proto
        && flow.arp_sha == base.arp_sha
        && flow.arp_tha == base.arp_tha;
    if same || no_header(flow, orig, wc) {
        return false;
    }
    let m = &wc.0;
    let mask = ArpSet {
        sip: when(flow.nw_src, base.nw_src, m.nw_src),
        tip: when(flow.nw_dst, base.nw_dst, m.nw_dst),
        op: when(flow.nw_proto, base.nw_proto, m.nw_proto).min(1).into_op_mask(),
        sha: when(flow.arp_sha, base.arp_sha, m.arp_sha),
        tha: when(flow.arp_tha, base.arp_tha, m.arp_tha),
    };
    let key = ArpSet {
        sip: flow.nw_src & mask.sip,
        tip: flow.nw_dst & mask.tip,
        op: Be16::new(flow.nw_proto.into()) & mask.op,
        sha: and6(flow.arp_sha, mask.sha),
        tha: and6(flow.arp_tha, mask.tha),
    };
    out.push(DpAction::Set(SetField::Arp { key, mask }));
    (base.nw_src, base.nw_dst, base.nw_proto) = (flow.nw_src, flow.nw_dst, flow.nw_proto);
    (base.arp_sha, base.arp_tha) = (flow.arp_sha, flow.arp_tha);
    true
}

trait OpMask {
    fn into_op_mask(self) -> Be16;
}

impl OpMask for u8 {
    /// The opcode is written as a whole or not at all.
    fn into_op_mask(self) -> Be16 {
        if self == 0 {
            Be16::ZERO
        } else {
            Be16::MAX
        }
    }
}

fn nd(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) -> bool {
    let same =
        flow.nd_target == base.nd_target && flow.arp_sha == base.arp_sha && flow.arp_tha == base.arp_tha;
    if same {
        return false;
    }
    let m = &wc.0;
    let mask = NdSet {
        target: when(flow.nd_target, base.nd_target, m.nd_target),
        sll: when(flow.arp_sha, base.arp_sha, m.arp_sha),
        tll: when(flow.arp_tha, base.arp_tha, m.arp_tha),
    };
    let key = NdSet {
        target: and16(flow.nd_target, mask.target),
        sll: and6(flow.arp_sha, mask.sll),
        tll: and6(flow.arp_tha, mask.tll),
    };
    out.push(DpAction::Set(SetField::Nd { key, mask }));
    (base.nd_target, base.arp_sha, base.arp_tha) = (flow.nd_target, flow.arp_sha, flow.arp_tha);
    true
}

fn icmp(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>, v6: bool) -> bool {
    let same = flow.tp_src == base.tp_src && flow.tp_dst == base.tp_dst;
    if same || base.nw_frag & FRAG_LATER != 0 {
        return false;
    }
    // Both are written, so both are matched.
    (wc.0.tp_src, wc.0.tp_dst) = (Be16::MAX, Be16::MAX);
    let (kind_mask, code_mask) = (0xff, 0xff);
    let (kind, code) = (flow.tp_src.get() as u8, flow.tp_dst.get() as u8);
    out.push(DpAction::Set(if v6 {
        SetField::Icmp6 { kind, code, kind_mask, code_mask }
    } else {
        SetField::Icmp { kind, code, kind_mask, code_mask }
    }));
    (base.tp_src, base.tp_dst) = (flow.tp_src, flow.tp_dst);
    true
}

fn ports(flow: &Flow, base: &mut Flow, wc: &Mask, out: &mut Vec<DpAction>) {
    let same = flow.tp_src == base.tp_src && flow.tp_dst == base.tp_dst;
    if same || !is_ip_any(base) || base.nw_frag & FRAG_LATER != 0 {
        return;
    }
    let src_mask = when(flow.tp_src, base.tp_src, wc.0.tp_src);
    let dst_mask = when(flow.tp_dst, base.tp_dst, wc.0.tp_dst);
    let (src, dst) = (flow.tp_src & src_mask, flow.tp_dst & dst_mask);
    out.push(DpAction::Set(match flow.nw_proto {
        PROTO_TCP => SetField::Tcp { src, dst, src_mask, dst_mask },
        PROTO_UDP => SetField::Udp { src, dst, src_mask, dst_mask },
        PROTO_SCTP => SetField::Sctp { src, dst, src_mask, dst_mask },
        _ => return,
    }));
    (base.tp_src, base.tp_dst) = (flow.tp_src, flow.tp_dst);
}

/// VLAN headers of a flow.
pub(super) fn count_vlans(f: &Flow) -> usize {
    f.vlans.iter().take_while(|v| v.tci.get() & VLAN_CFI != 0).count()
}

fn vlan(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) {
    if flow.vlans == base.vlans {
        return;
    }
    let (nb, nf) = (count_vlans(base), count_vlans(flow));
    let mut common = 0;
    while common < nb.min(nf) && base.vlans[nb - 1 - common] == flow.vlans[nf - 1 - common] {
        common += 1;
    }
    for i in 0..nb - common {
        out.push(DpAction::PopVlan);
        mask_vlan(wc, i);
    }
    for i in (0..nf - common).rev() {
        let v = flow.vlans[i];
        out.push(DpAction::PushVlan { tpid: v.tpid, tci: v.tci });
    }
    base.vlans = flow.vlans;
}

/// Unwildcards VLAN header `i` and the presence of the one inside it.
pub(super) fn mask_vlan(wc: &mut Mask, i: usize) {
    if let Some(v) = wc.0.vlans.get_mut(i) {
        *v = Vlan { tpid: Be16::MAX, tci: Be16::MAX };
    }
    if let Some(v) = wc.0.vlans.get_mut(i + 1) {
        v.tci |= Be16::new(VLAN_CFI);
    }
}

/// MPLS labels of a flow; looks at the bottom-of-stack bits when `wc` is given. A stack whose bottom is not in
/// sight counts as full.
pub(super) fn count_mpls(f: &Flow, mut wc: Option<&mut Mask>) -> usize {
    if !is_mpls(f.dl_type) {
        return 0;
    }
    for i in 0..MAX_MPLS {
        if let Some(wc) = wc.as_deref_mut() {
            wc.0.mpls[i] |= Be32::new(MPLS_BOS);
        }
        if f.mpls[i].get() & MPLS_BOS != 0 {
            return i + 1;
        }
    }
    MAX_MPLS
}

/// Label stack entry from its parts.
pub(super) fn lse(label: u32, tc: u8, bos: bool, ttl: u8) -> Be32 {
    Be32::new((label & 0xf_ffff) << 12 | u32::from(tc & 7) << 9 | u32::from(bos) << 8 | u32::from(ttl))
}

/// Pushes a label on `f`, which has `n`. `clear`: the headers behind it cannot be seen any more.
pub(super) fn push_mpls(f: &mut Flow, n: usize, ethertype: Be16, wc: Option<&mut Mask>, clear: bool) {
    if let Some(wc) = wc {
        wc.0.mpls.iter_mut().take(n + 1).for_each(|l| *l = Be32::MAX);
        if n == 0 && is_ip_any(f) {
            wc.0.nw_tos |= 0xfc;
            wc.0.nw_ttl = 0xff;
        }
    }
    f.mpls.copy_within(0..MAX_MPLS - 1, 1);
    if n > 0 {
        f.mpls[0] = f.mpls[1] & !Be32::new(MPLS_BOS);
    } else {
        let ip = is_ip_any(f);
        let label = if f.dl_type.get() == ETH_IPV6 { 2 } else { 0 };
        let tc = if ip { (f.nw_tos & 0xfc) >> 2 & 7 } else { 0 };
        let ttl = if ip && f.nw_ttl != 0 { f.nw_ttl } else { 64 };
        f.mpls = [lse(label, tc, true, ttl), Be32::ZERO, Be32::ZERO];
        if clear {
            clear_l3(f);
        }
    }
    f.dl_type = ethertype;
}

fn clear_l3(f: &mut Flow) {
    (f.nw_src, f.nw_dst) = (Be32::ZERO, Be32::ZERO);
    (f.ipv6_src, f.ipv6_dst, f.ipv6_label) = ([0; 16], [0; 16], Be32::ZERO);
    (f.nw_frag, f.nw_tos, f.nw_ttl, f.nw_proto) = (0, 0, 0, 0);
    (f.nd_target, f.arp_sha, f.arp_tha) = ([0; 16], [0; 6], [0; 6]);
    (f.tcp_flags, f.tp_src, f.tp_dst) = (Be16::ZERO, Be16::ZERO, Be16::ZERO);
    f.igmp_group_ip4 = Be32::ZERO;
    f.dp_hash = 0;
}

/// Pops a label off `f`, which has `n`. False when that cannot be said: none, or more than a flow holds.
pub(super) fn pop_mpls(f: &mut Flow, n: usize, ethertype: Be16, wc: Option<&mut Mask>) -> bool {
    if n == 0 || n == MAX_MPLS && f.mpls[n - 1].get() & MPLS_BOS == 0 {
        return false;
    }
    if let Some(wc) = wc {
        // What moves up is matched.
        wc.0.mpls[1..n].iter_mut().for_each(|l| *l = Be32::MAX);
    }
    f.mpls.copy_within(1.., 0);
    f.mpls[MAX_MPLS - 1] = Be32::ZERO;
    f.dl_type = ethertype;
    true
}

fn mpls(flow: &Flow, base: &mut Flow, wc: &mut Mask, out: &mut Vec<DpAction>) {
    if flow.mpls == base.mpls && flow.dl_type == base.dl_type {
        return;
    }
    let (mut nb, nf) = (count_mpls(base, None), count_mpls(flow, None));
    if nb == 0 && nf == 0 {
        return;
    }
    let mut common = 0;
    while common < nb.min(nf) && base.mpls[nb - 1 - common] == flow.mpls[nf - 1 - common] {
        common += 1;
    }
    while nb > common {
        if nb - 1 == common && nf > common {
            let lse = flow.mpls[nf - nb];
            // The whole entry is written: all of it must be known.
            wc.0.mpls[0] = Be32::MAX;
            out.push(DpAction::Set(SetField::Mpls { lse, mask: Be32::MAX }));
            base.mpls[0] = lse;
            common += 1;
            continue;
        }
        // Labels remain behind the one that goes: only the last pop may say what is behind them all.
        let ethertype = if !is_mpls(flow.dl_type) && nb > 1 { Be16::new(ETH_MPLS) } else { flow.dl_type };
        out.push(DpAction::PopMpls { ethertype });
        if !pop_mpls(base, nb, flow.dl_type, Some(wc)) {
            break;
        }
        nb -= 1;
    }
    while nb < nf {
        let lse = flow.mpls[nf - nb - 1];
        out.push(DpAction::PushMpls { ethertype: flow.dl_type, lse });
        push_mpls(base, nb, flow.dl_type, None, false);
        base.mpls[0] = lse;
        nb += 1;
    }
    base.mpls = flow.mpls;
    base.dl_type = flow.dl_type;
}

const _: () = assert!(MAX_VLANS == 2);

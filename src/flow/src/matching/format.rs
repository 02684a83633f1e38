//! Text of matches and flows as ovs-ofctl and `ovs-appctl bridge/dump-flows`, `ofproto/trace` print them.
//!
//! Neighbours: parent module. Threads: plain functions.

use super::Match;
use crate::be::{Be16, Be32, Be64};
use crate::key::{Flow, Mask, Vlan, FRAG_LATER, MAX_MPLS, VLAN_CFI};
use crate::port::OfPort;
use crate::text::{
    joined_flags, prefix_len, put, signed_flags, Hex, Ip6, Mac, CT_STATE, TCP_FLAGS, TUN_FLAGS,
};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The priority that is not printed.
const DEFAULT_PRIORITY: i32 = 32768;
const U32: u128 = u32::MAX as u128;
const U64: u128 = u64::MAX as u128;

/// `tun_flags`: the tunnel header has a key.
const TUN_KEY: u16 = 8;

/// Names of OpenFlow ports; `None` prints the number, or the name of a reserved port.
pub type OfPortNames<'a> = &'a dyn Fn(OfPort) -> Option<String>;

/// Writes `name=value,` pairs: flow and mask side by side.
struct Text<'a> {
    out: String,
    f: &'a Flow,
    m: &'a Flow,
    /// Leave out zero values of what a packet does not carry itself.
    skip_zero: bool,
    /// Masks of 20 bits of the IPv6 label are printed.
    masked: bool,
    names: Option<OfPortNames<'a>>,
}

impl<'a> Text<'a> {
    fn new(f: &'a Flow, m: &'a Flow) -> Text<'a> {
        Text { out: String::new(), f, m, skip_zero: false, masked: false, names: None }
    }
}

impl Match {
    /// The match as in a flow table dump, without priority: `ip,in_port=1,nw_dst=11.0.0.0/8`. Empty when it
    /// matches everything.
    pub fn format(&self, names: Option<OfPortNames>) -> String {
        self.format_with_priority(DEFAULT_PRIORITY, names)
    }

    /// The match after its priority (left out when it is 32768): `priority=100,ip,in_port=1`.
    pub fn format_with_priority(&self, priority: i32, names: Option<OfPortNames>) -> String {
        let mut t = Text { names, ..Text::new(&self.flow, &self.mask.0) };
        if priority != DEFAULT_PRIORITY {
            put!(t.out, "priority={priority},");
        }
        t.all()
    }
}

impl Match {
    /// The match of a megaflow as `ofproto/trace` prints it.
    pub fn format_megaflow(&self, names: Option<OfPortNames>) -> String {
        Text { names, masked: true, ..Text::new(&self.flow, &self.mask.0) }.all()
    }
}

impl Flow {
    /// The flow as `ofproto/trace` prints it: every field the packet has, metadata only where not zero.
    pub fn format(&self, names: Option<OfPortNames>) -> String {
        let mask = self.packet_mask();
        Text { skip_zero: true, names, ..Text::new(self, &mask.0) }.all()
    }

    /// Ones in every field that a packet with this flow has.
    pub fn packet_mask(&self) -> Mask {
        let mut m = Flow::default();
        m.words_mut().fill(u64::MAX);
        m.conj_id = 0;
        m.actset_output = 0;
        if self.tun_dst.is_zero() && self.tun_ipv6_dst == [0; 16] {
            m.words_mut()[..9].fill(0);
            m.tun_id = Be64::MAX;
        } else if self.tun_flags & TUN_KEY == 0 {
            m.tun_id = Be64::ZERO;
        }
        let dl_type = self.dl_type.get();
        let ip4 = dl_type == 0x0800;
        let ip6 = dl_type == 0x86dd;
        let arp = matches!(dl_type, 0x0806 | 0x8035);
        if self.vlans[0].tci.is_zero() {
            m.vlans[1] = Vlan::default();
        }
        if !matches!(dl_type, 0x8847 | 0x8848) {
            m.mpls = [Be32::ZERO; MAX_MPLS];
        } else if let Some(n) = self.mpls.iter().position(|l| l.get() & 0x100 != 0) {
            m.mpls[n + 1..].fill(Be32::ZERO);
        }
        if !ip4 && !arp {
            (m.nw_src, m.nw_dst) = (Be32::ZERO, Be32::ZERO);
        }
        if !ip6 {
            (m.ipv6_src, m.ipv6_dst, m.ipv6_label) = ([0; 16], [0; 16], Be32::ZERO);
        }
        if !ip4 && !ip6 {
            (m.nw_tos, m.nw_ttl, m.nw_frag) = (0, 0, 0);
            if !arp {
                m.nw_proto = 0;
            }
        }
        let later = self.nw_frag & FRAG_LATER != 0;
        let l4 = (ip4 || ip6) && !later;
        if !(l4 && matches!(self.nw_proto, 1 | 2 | 6 | 17 | 58 | 132)) {
            (m.tp_src, m.tp_dst) = (Be16::ZERO, Be16::ZERO);
        }
        if !(l4 && self.nw_proto == 6) {
            m.tcp_flags = Be16::ZERO;
        }
        let nd = l4
            && ip6
            && self.nw_proto == 58
            && matches!(self.tp_src.get(), 135 | 136)
            && self.tp_dst.is_zero();
        if !nd {
            m.nd_target = [0; 16];
        }
        if !nd && !arp {
            (m.arp_sha, m.arp_tha) = ([0; 6], [0; 6]);
        }
        if self.ct_nw_proto == 0 || !ip4 {
            (m.ct_nw_src, m.ct_nw_dst) = (Be32::ZERO, Be32::ZERO);
        }
        if self.ct_nw_proto == 0 || !ip6 {
            (m.ct_ipv6_src, m.ct_ipv6_dst) = ([0; 16], [0; 16]);
        }
        if self.ct_nw_proto == 0 {
            (m.ct_nw_proto, m.ct_tp_src, m.ct_tp_dst) = (0, Be16::ZERO, Be16::ZERO);
        }
        Mask(m)
    }
}

impl Text<'_> {
    fn all(mut self) -> String {
        self.context();
        let typed = self.protocol();
        self.registers_and_tunnel();
        if self.m.in_port != 0 {
            let port = OfPort(self.f.in_port as u16);
            match self.names.and_then(|n| n(port)) {
                Some(name) => put!(self.out, "in_port={name},"),
                None => put!(self.out, "in_port={port},"),
            }
        }
        self.l2(typed);
        self.l3();
        self.l4();
        if self.out.ends_with(',') {
            self.out.pop();
        }
        self.out
    }

    fn wanted(&self, v: u128, m: u128) -> bool {
        m != 0 && !(self.skip_zero && v == 0)
    }

    /// Hexadecimal context field.
    fn hex(&mut self, name: &str, v: u128, m: u128, full: u128) {
        if self.wanted(v, m) {
            put!(self.out, "{name}={}", Hex(v));
            self.mask_hex(m, full);
        }
    }

    /// Decimal context field; hexadecimal with a mask.
    fn dec(&mut self, name: &str, v: u128, m: u128, full: u128) {
        if self.wanted(v, m) && m == full {
            put!(self.out, "{name}={v},");
        } else {
            self.hex(name, v, m, full);
        }
    }

    fn mask_hex(&mut self, m: u128, full: u128) {
        if m != full {
            put!(self.out, "/{}", Hex(m));
        }
        self.out.push(',');
    }

    fn ip4(&mut self, name: &str, v: Be32, m: Be32) {
        if m.is_zero() {
            return;
        }
        put!(self.out, "{name}={}", Ipv4Addr::from(v.get()));
        match prefix_len(m.get().into(), 32) {
            Some(32) => {}
            Some(n) => put!(self.out, "/{n}"),
            None => put!(self.out, "/{}", Ipv4Addr::from(m.get())),
        }
        self.out.push(',');
    }

    fn ip6(&mut self, name: &str, v: [u8; 16], m: [u8; 16]) {
        if m == [0; 16] {
            return;
        }
        put!(self.out, "{name}={}", Ip6(v));
        match prefix_len(u128::from_be_bytes(m), 128) {
            Some(128) => {}
            Some(n) => put!(self.out, "/{n}"),
            None => put!(self.out, "/{}", Ip6(m)),
        }
        self.out.push(',');
    }

    fn mac(&mut self, name: &str, v: [u8; 6], m: [u8; 6]) {
        match m {
            [0, 0, 0, 0, 0, 0] => {}
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => put!(self.out, "{name}={},", Mac(v)),
            _ => put!(self.out, "{name}={}/{},", Mac(v), Mac(m)),
        }
    }

    /// A 16-bit number: decimal, hexadecimal with a mask.
    fn be16(&mut self, name: &str, v: Be16, m: Be16) {
        if m == Be16::MAX {
            put!(self.out, "{name}={},", v.get());
        } else if !m.is_zero() {
            put!(self.out, "{name}={:#x}/{:#x},", v.get(), m.get());
        }
    }

    fn flags(&mut self, name: &str, names: &[&str], v: u128, m: u128, full: u128) {
        if !self.wanted(v, m) {
            return;
        }
        put!(self.out, "{name}=");
        if m & full == full {
            joined_flags(&mut self.out, names, v, "|", "0");
        } else {
            signed_flags(&mut self.out, names, v, m);
        }
        self.out.push(',');
    }

    fn context(&mut self) {
        let (f, m) = (self.f, self.m);
        self.hex("pkt_mark", f.pkt_mark.into(), m.pkt_mark.into(), U32);
        self.hex("recirc_id", f.recirc_id.into(), m.recirc_id.into(), U32);
        self.hex("dp_hash", f.dp_hash.into(), m.dp_hash.into(), U32);
        self.dec("conj_id", f.conj_id.into(), m.conj_id.into(), U32);
        self.hex("skb_priority", f.skb_priority.into(), m.skb_priority.into(), U32);
        if m.actset_output != 0 {
            put!(self.out, "actset_output={},", OfPort(f.actset_output as u16));
        }
        self.flags("ct_state", &CT_STATE, f.ct_state.into(), m.ct_state.into(), 0xff);
        self.dec("ct_zone", f.ct_zone.into(), m.ct_zone.into(), 0xffff);
        self.hex("ct_mark", f.ct_mark.into(), m.ct_mark.into(), U32);
        let label = u128::from_be_bytes(f.ct_label);
        self.hex("ct_label", label, u128::from_be_bytes(m.ct_label), u128::MAX);
        self.ip4("ct_nw_src", f.ct_nw_src, m.ct_nw_src);
        self.ip6("ct_ipv6_src", f.ct_ipv6_src, m.ct_ipv6_src);
        self.ip4("ct_nw_dst", f.ct_nw_dst, m.ct_nw_dst);
        self.ip6("ct_ipv6_dst", f.ct_ipv6_dst, m.ct_ipv6_dst);
        if m.ct_nw_proto != 0 {
            self.dec("ct_nw_proto", f.ct_nw_proto.into(), m.ct_nw_proto.into(), 0xff);
            self.be16("ct_tp_src", f.ct_tp_src, m.ct_tp_src);
            self.be16("ct_tp_dst", f.ct_tp_dst, m.ct_tp_dst);
        }
    }

    /// Packet type and the short name of the protocol. Returns whether the name covers the ethertype.
    fn protocol(&mut self) -> bool {
        let (f, m) = (self.f, self.m);
        let recirc = self.wanted(f.recirc_id.into(), m.recirc_id.into());
        if !m.packet_type.is_zero() && (!f.packet_type.is_zero() || recirc) {
            match f.packet_type.get() {
                0 => self.out.push_str("eth,"),
                p => put!(self.out, "packet_type=({},{:#x}),", p >> 16, p & 0xffff),
            }
            if !f.packet_type.is_zero() && !recirc {
                return true;
            }
        }
        if m.dl_type != Be16::MAX {
            return false;
        }
        let proto = if m.nw_proto != 0 { Some(f.nw_proto) } else { None };
        let name = match (f.dl_type.get(), proto) {
            (0x0800, Some(1)) => "icmp",
            (0x0800, Some(6)) => "tcp",
            (0x0800, Some(17)) => "udp",
            (0x0800, Some(132)) => "sctp",
            (0x0800, _) => "ip",
            (0x86dd, Some(58)) => "icmp6",
            (0x86dd, Some(6)) => "tcp6",
            (0x86dd, Some(17)) => "udp6",
            (0x86dd, Some(132)) => "sctp6",
            (0x86dd, _) => "ipv6",
            (0x0806, _) => "arp",
            (0x8035, _) => "rarp",
            (0x8847, _) => "mpls",
            (0x8848, _) => "mplsm",
            _ => return false,
        };
        put!(self.out, "{name},");
        true
    }

    fn registers_and_tunnel(&mut self) {
        let (f, m) = (self.f, self.m);
        for (i, (&v, &bits)) in f.regs.iter().zip(&m.regs).enumerate().filter(|(_, (_, &bits))| bits != 0) {
            self.hex(&format!("reg{i}"), v.into(), bits.into(), U32);
        }
        let id = f.tun_id.get().into();
        self.hex("tun_id", id, m.tun_id.get().into(), U64);
        self.ip4("tun_src", f.tun_src, m.tun_src);
        self.ip4("tun_dst", f.tun_dst, m.tun_dst);
        self.ip6("tun_ipv6_src", f.tun_ipv6_src, m.tun_ipv6_src);
        self.ip6("tun_ipv6_dst", f.tun_ipv6_dst, m.tun_ipv6_dst);
        self.tunnel_number("tun_gbp_id", f.tun_gbp_id.get(), m.tun_gbp_id.get(), 0xffff, false);
        self.tunnel_number("tun_gbp_flags", f.tun_gbp_flags.into(), m.tun_gbp_flags.into(), 0xff, true);
        self.tunnel_number("tun_tos", f.tun_tos.into(), m.tun_tos.into(), 0xff, false);
        self.tunnel_number("tun_ttl", f.tun_ttl.into(), m.tun_ttl.into(), 0xff, false);
        self.tunnel_number("tun_erspan_ver", f.tun_erspan_ver.into(), m.tun_erspan_ver.into(), 0xff, false);
        self.tunnel_number("gtpu_flags", f.tun_gtpu_flags.into(), m.tun_gtpu_flags.into(), 0xff, true);
        self.tunnel_number("gtpu_msgtype", f.tun_gtpu_msgtype.into(), m.tun_gtpu_msgtype.into(), 0xff, false);
        if m.tun_flags != 0 {
            self.out.push_str("tun_flags=");
            if self.skip_zero {
                joined_flags(&mut self.out, &TUN_FLAGS, f.tun_flags.into(), "|", "0");
            } else {
                signed_flags(&mut self.out, &TUN_FLAGS, f.tun_flags.into(), m.tun_flags.into());
            }
            self.out.push(',');
        }
        self.hex("metadata", f.metadata.get().into(), m.metadata.get().into(), U64);
    }

    fn tunnel_number(&mut self, name: &str, v: u16, m: u16, full: u16, hex: bool) {
        if m == 0 {
            return;
        }
        if hex || m != full {
            put!(self.out, "{name}={}", Hex(v.into()));
            self.mask_hex(m.into(), full.into());
        } else {
            put!(self.out, "{name}={v},");
        }
    }

    fn l2(&mut self, typed: bool) {
        let (f, m) = (self.f, self.m);
        if self.skip_zero && !f.packet_type.is_zero() {
            return;
        }
        for (i, (v, bits)) in f.vlans.iter().zip(&m.vlans).enumerate() {
            self.vlan(i, v.tci.get(), bits.tci.get());
        }
        self.mac("dl_src", f.dl_src, m.dl_src);
        self.mac("dl_dst", f.dl_dst, m.dl_dst);
        if !typed && !m.dl_type.is_zero() {
            put!(self.out, "dl_type={:#06x}", f.dl_type.get());
            if m.dl_type != Be16::MAX {
                put!(self.out, "/{:#06x}", m.dl_type.get());
            }
            self.out.push(',');
        }
    }

    /// VID and PCP by name when each is matched whole or not at all, else the TCI.
    fn vlan(&mut self, i: usize, tci: u16, m: u16) {
        if m == 0 {
            return;
        }
        let n = if i == 0 { String::new() } else { i.to_string() };
        let (vid_m, pcp_m) = (m & 0xfff, m >> 13);
        let whole = matches!(vid_m, 0 | 0xfff) && matches!(pcp_m, 0 | 7) && (vid_m != 0 || pcp_m != 0);
        if m & VLAN_CFI != 0 && tci & VLAN_CFI != 0 && (whole || pcp_m != 0 && vid_m == 0) {
            if vid_m != 0 {
                put!(self.out, "dl_vlan{n}={},", tci & 0xfff);
            }
            if pcp_m != 0 {
                put!(self.out, "dl_vlan_pcp{n}={},", tci >> 13);
            }
        } else if m == 0xffff {
            put!(self.out, "vlan_tci{n}={tci:#06x},");
        } else {
            put!(self.out, "vlan_tci{n}={tci:#06x}/{m:#06x},");
        }
    }

    fn l3(&mut self) {
        let (f, m) = (self.f, self.m);
        let dl_type = self.dl_type();
        let arp = matches!(dl_type, 0x0806 | 0x8035);
        if dl_type == 0x86dd {
            self.ip6("ipv6_src", f.ipv6_src, m.ipv6_src);
            self.ip6("ipv6_dst", f.ipv6_dst, m.ipv6_dst);
            let bits = m.ipv6_label.get() & 0xfffff;
            match bits {
                0 => {}
                0xfffff if !self.masked => put!(self.out, "ipv6_label={:#07x},", f.ipv6_label.get()),
                _ => put!(self.out, "ipv6_label={:#07x}/{bits:#07x},", f.ipv6_label.get()),
            }
        } else if arp {
            self.ip4("arp_spa", f.nw_src, m.nw_src);
            self.ip4("arp_tpa", f.nw_dst, m.nw_dst);
        } else {
            self.ip4("nw_src", f.nw_src, m.nw_src);
            self.ip4("nw_dst", f.nw_dst, m.nw_dst);
        }
        if m.nw_proto != 0 && !self.proto_named(dl_type) {
            put!(self.out, "{}={},", if arp { "arp_op" } else { "nw_proto" }, f.nw_proto);
        }
        if arp {
            self.mac("arp_sha", f.arp_sha, m.arp_sha);
            self.mac("arp_tha", f.arp_tha, m.arp_tha);
        }
        if m.nw_tos & 0xfc != 0 {
            put!(self.out, "nw_tos={},", f.nw_tos & 0xfc);
        }
        if m.nw_tos & 3 != 0 {
            put!(self.out, "nw_ecn={},", f.nw_tos & 3);
        }
        if m.nw_ttl != 0 {
            put!(self.out, "nw_ttl={},", f.nw_ttl);
        }
        self.mpls();
        match (f.nw_frag & 3, m.nw_frag & 3) {
            (_, 0) => {}
            (0, 3) => self.out.push_str("nw_frag=no,"),
            (1, 1) => self.out.push_str("nw_frag=yes,"),
            (1, 3) => self.out.push_str("nw_frag=first,"),
            (3, 3) => self.out.push_str("nw_frag=later,"),
            (0, 2) => self.out.push_str("nw_frag=not_later,"),
            _ => self.out.push_str("nw_frag=<error>,"),
        }
    }

    /// The ethertype that decides the names of network fields; that of the packet type when it has none.
    fn dl_type(&self) -> u16 {
        match self.f.packet_type.get() {
            p if p >> 16 == 1 => p as u16,
            _ => self.f.dl_type.get(),
        }
    }

    /// Whether the protocol's short name was printed for the number.
    fn proto_named(&self, dl_type: u16) -> bool {
        if self.m.dl_type != Be16::MAX || !self.f.packet_type.is_zero() {
            return false;
        }
        match dl_type {
            0x0800 => matches!(self.f.nw_proto, 1 | 6 | 17 | 132),
            0x86dd => matches!(self.f.nw_proto, 58 | 6 | 17 | 132),
            _ => false,
        }
    }

    fn mpls(&mut self) {
        let (v, m) = (self.f.mpls[0].get(), self.m.mpls[0].get());
        for (name, shift, bits) in [("label", 12, 0xfffff), ("tc", 9, 7), ("ttl", 0, 0xff), ("bos", 8, 1u32)]
        {
            if m >> shift & bits != 0 {
                put!(self.out, "mpls_{name}={},", v >> shift & bits);
            }
        }
        for i in 1..MAX_MPLS {
            let (v, m) = (self.f.mpls[i], self.m.mpls[i]);
            if m == Be32::MAX {
                put!(self.out, "mpls_lse{i}={},", v.get());
            } else if !m.is_zero() {
                put!(self.out, "mpls_lse{i}={:#010x}/{:#010x},", v.get(), m.get());
            }
        }
    }

    fn l4(&mut self) {
        let (f, m) = (self.f, self.m);
        let dl_type = self.dl_type();
        let icmp = match dl_type {
            0x0800 => f.nw_proto == 1 && m.nw_proto != 0,
            0x86dd => f.nw_proto == 58 && m.nw_proto != 0,
            _ => false,
        };
        if icmp {
            self.be16("icmp_type", f.tp_src, m.tp_src);
            self.be16("icmp_code", f.tp_dst, m.tp_dst);
            if dl_type == 0x86dd {
                self.ip6("nd_target", f.nd_target, m.nd_target);
                self.mac("nd_sll", f.arp_sha, m.arp_sha);
                self.mac("nd_tll", f.arp_tha, m.arp_tha);
            }
        } else {
            self.be16("tp_src", f.tp_src, m.tp_src);
            self.be16("tp_dst", f.tp_dst, m.tp_dst);
        }
        let bits = m.tcp_flags.get() & 0xfff;
        if bits != 0 && f.nw_proto == 6 {
            self.out.push_str("tcp_flags=");
            if bits == 0xfff {
                joined_flags(&mut self.out, &TCP_FLAGS, f.tcp_flags.get().into(), "|", "0");
            } else {
                signed_flags(&mut self.out, &TCP_FLAGS, f.tcp_flags.get().into(), bits.into());
            }
            self.out.push(',');
        }
    }
}

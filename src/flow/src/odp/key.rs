//! Text of datapath flow keys.
//!
//! Neighbours: parent module. Threads: plain functions.

use super::Style;
use crate::be::{Be16, Be32};
use crate::key::{Flow, Mask, FRAG_LATER, MAX_MPLS, VLAN_CFI};
use crate::port::DpPort;
use crate::text::{joined_flags, put, signed_flags, Hex, Ip6, Mac, CT_STATE, TCP_FLAGS, TUN_FLAGS};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// One attribute's members: `name=value/mask,...` with wildcarded ones left out unless verbose.
struct Attr<'a> {
    out: &'a mut String,
    verbose: bool,
    first: bool,
}

impl Attr<'_> {
    /// Whether a member with this mask is printed; writes separator and name if so.
    fn name(&mut self, name: &str, any: bool) -> bool {
        if !(any || self.verbose) {
            return false;
        }
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        put!(self.out, "{name}=");
        true
    }

    fn mac(&mut self, name: &str, v: [u8; 6], m: [u8; 6]) {
        if self.name(name, m != [0; 6]) {
            put!(self.out, "{}", Mac(v));
            if m != [0xff; 6] {
                put!(self.out, "/{}", Mac(m));
            }
        }
    }

    fn ip4(&mut self, name: &str, v: Be32, m: Be32) {
        if self.name(name, !m.is_zero()) {
            put!(self.out, "{}", Ipv4Addr::from(v.get()));
            if m != Be32::MAX {
                put!(self.out, "/{}", Ipv4Addr::from(m.get()));
            }
        }
    }

    fn ip6(&mut self, name: &str, v: [u8; 16], m: [u8; 16]) {
        if self.name(name, m != [0; 16]) {
            put!(self.out, "{}", Ip6(v));
            if m != [0xff; 16] {
                put!(self.out, "/{}", Ip6(m));
            }
        }
    }

    /// Decimal value, hexadecimal mask.
    fn dec(&mut self, name: &str, v: u32, m: u32, full: u32) {
        if self.name(name, m != 0) {
            put!(self.out, "{v}");
            if m != full {
                put!(self.out, "/{}", Hex(m.into()));
            }
        }
    }

    /// Hexadecimal value and mask.
    fn hex(&mut self, name: &str, v: u128, m: u128, full: u128) {
        if self.name(name, m != 0) {
            put!(self.out, "{:#x}", v);
            if m != full {
                put!(self.out, "/{}", Hex(m));
            }
        }
    }

    fn port16(&mut self, name: &str, v: Be16, m: Be16) {
        self.dec(name, v.get().into(), m.get().into(), 0xffff);
    }
}

/// Writes keys: the flow, its mask, and how.
struct Key<'a> {
    out: &'a mut String,
    flow: &'a Flow,
    mask: &'a Flow,
    style: &'a Style<'a>,
}

/// Writes the key of a datapath flow. Without a mask every bit counts.
pub fn format_key(out: &mut String, flow: &Flow, mask: Option<&Mask>, style: &Style) {
    let full = Mask(exact());
    let mask = &mask.unwrap_or(&full).0;
    let mut k = Key { out, flow, mask, style };
    k.metadata();
    k.l2();
}

fn exact() -> Flow {
    let mut f = Flow::default();
    f.words_mut().fill(u64::MAX);
    f
}

impl Key<'_> {
    fn sep(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with([' ', '(']) {
            self.out.push(',');
        }
    }

    /// `name(0x1/0xff)`, left out when wildcarded.
    fn meta(&mut self, name: &str, v: u128, m: u128, full: u128) {
        if m == 0 && !self.style.verbose {
            return;
        }
        self.sep();
        put!(self.out, "{name}({}", Hex(v));
        if m != full {
            put!(self.out, "/{}", Hex(m));
        }
        self.out.push(')');
    }

    /// An attribute of members, left out when all are wildcarded.
    fn attr(&mut self, name: &str, any: bool, members: impl FnOnce(&mut Attr)) {
        if any || self.style.verbose {
            self.sep();
            put!(self.out, "{name}(");
            members(&mut Attr { out: self.out, verbose: self.style.verbose, first: true });
            self.out.push(')');
        }
    }

    fn metadata(&mut self) {
        const U32: u128 = 0xffff_ffff;
        let (f, m) = (self.flow, self.mask);
        self.meta("skb_priority", f.skb_priority.into(), m.skb_priority.into(), U32);
        self.tunnel();
        self.meta("skb_mark", f.pkt_mark.into(), m.pkt_mark.into(), U32);
        self.ct_state();
        self.meta("ct_zone", f.ct_zone.into(), m.ct_zone.into(), 0xffff);
        self.meta("ct_mark", f.ct_mark.into(), m.ct_mark.into(), U32);
        let label = u128::from_be_bytes(f.ct_label);
        self.meta("ct_label", label, u128::from_be_bytes(m.ct_label), u128::MAX);
        self.ct_tuple();
        if m.recirc_id != 0 || self.style.verbose {
            self.meta("recirc_id", f.recirc_id.into(), m.recirc_id.into(), U32);
        }
        self.meta("dp_hash", f.dp_hash.into(), m.dp_hash.into(), U32);
        self.sep();
        self.out.push_str("in_port(");
        self.style.port(self.out, DpPort(f.in_port));
        self.out.push(')');
        let (p, pm) = (f.packet_type.get(), m.packet_type.get());
        if pm != 0 || self.style.verbose {
            let part = |m: u32| if m == 0xffff { String::new() } else { format!("/{}", Hex(m.into())) };
            let ns = part(pm >> 16);
            let id = part(pm & 0xffff);
            self.sep();
            put!(self.out, "packet_type(ns={}{ns},id={}{id})", p >> 16, Hex((p & 0xffff).into()));
        }
    }

    fn ct_state(&mut self) {
        let (v, m) = (self.flow.ct_state, self.mask.ct_state);
        if m == 0 && !self.style.verbose {
            return;
        }
        self.sep();
        self.out.push_str("ct_state(");
        if self.style.verbose {
            put!(self.out, "{}/{}", Hex(v.into()), Hex(m.into()));
        } else {
            signed_flags(self.out, &CT_STATE, v.into(), m.into());
        }
        self.out.push(')');
    }

    fn ct_tuple(&mut self) {
        let (f, m) = (self.flow, self.mask);
        let tp = !m.ct_tp_src.is_zero() || !m.ct_tp_dst.is_zero() || m.ct_nw_proto != 0;
        if f.dl_type.get() == 0x86dd {
            if m.ct_ipv6_src != [0; 16] || m.ct_ipv6_dst != [0; 16] || tp {
                self.attr("ct_tuple6", true, |a| {
                    a.ip6("src", f.ct_ipv6_src, m.ct_ipv6_src);
                    a.ip6("dst", f.ct_ipv6_dst, m.ct_ipv6_dst);
                    a.dec("proto", f.ct_nw_proto.into(), m.ct_nw_proto.into(), 0xff);
                    a.port16("src_port", f.ct_tp_src, m.ct_tp_src);
                    a.port16("dst_port", f.ct_tp_dst, m.ct_tp_dst);
                });
            }
        } else if !m.ct_nw_src.is_zero() || !m.ct_nw_dst.is_zero() || tp {
            self.attr("ct_tuple4", true, |a| {
                a.ip4("src", f.ct_nw_src, m.ct_nw_src);
                a.ip4("dst", f.ct_nw_dst, m.ct_nw_dst);
                a.dec("proto", f.ct_nw_proto.into(), m.ct_nw_proto.into(), 0xff);
                a.port16("tp_src", f.ct_tp_src, m.ct_tp_src);
                a.port16("tp_dst", f.ct_tp_dst, m.ct_tp_dst);
            });
        }
    }

    fn tunnel(&mut self) {
        const KEY: u16 = 8;
        let (f, m) = (self.flow, self.mask);
        let v4 = !f.tun_dst.is_zero() || !f.tun_src.is_zero();
        let v6 = f.tun_ipv6_dst != [0; 16] || f.tun_ipv6_src != [0; 16];
        if !v4 && !v6 {
            return;
        }
        self.attr("tunnel", true, |a| {
            if f.tun_flags & KEY != 0 {
                a.hex("tun_id", f.tun_id.get().into(), m.tun_id.get().into(), u64::MAX.into());
            }
            if v4 {
                a.ip4("src", f.tun_src, m.tun_src);
                a.ip4("dst", f.tun_dst, m.tun_dst);
            }
            if v6 {
                a.ip6("ipv6_src", f.tun_ipv6_src, m.tun_ipv6_src);
                a.ip6("ipv6_dst", f.tun_ipv6_dst, m.tun_ipv6_dst);
            }
            if f.tun_tos != 0 || m.tun_tos != 0 {
                a.hex("tos", f.tun_tos.into(), m.tun_tos.into(), 0xff);
            }
            a.dec("ttl", f.tun_ttl.into(), m.tun_ttl.into(), 0xff);
            if !f.tun_tp_src.is_zero() {
                a.port16("tp_src", f.tun_tp_src, m.tun_tp_src);
            }
            if !f.tun_tp_dst.is_zero() {
                a.port16("tp_dst", f.tun_tp_dst, m.tun_tp_dst);
            }
            if (!f.tun_gbp_id.is_zero() || f.tun_gbp_flags != 0)
                && (a.verbose || !m.tun_gbp_id.is_zero() || m.tun_gbp_flags != 0)
            {
                if !a.first {
                    a.out.push(',');
                }
                a.out.push_str("vxlan(gbp(");
                a.first = true;
                a.port16("id", f.tun_gbp_id, m.tun_gbp_id);
                a.hex("flags", f.tun_gbp_flags.into(), m.tun_gbp_flags.into(), 0xff);
                a.out.push_str("))");
                a.first = false;
            }
            if !a.first {
                a.out.push(',');
            }
            a.out.push_str("flags(");
            if m.tun_flags & 0xf == 0xf {
                joined_flags(a.out, &TUN_FLAGS, f.tun_flags.into(), "|", "");
            } else {
                signed_flags(a.out, &TUN_FLAGS, f.tun_flags.into(), m.tun_flags.into());
            }
            a.out.push(')');
        });
    }

    fn l2(&mut self) {
        let (f, m) = (self.flow, self.mask);
        if f.packet_type.is_zero() {
            self.attr("eth", m.dl_src != [0; 6] || m.dl_dst != [0; 6], |a| {
                a.mac("src", f.dl_src, m.dl_src);
                a.mac("dst", f.dl_dst, m.dl_dst);
            });
        }
        let mut depth = 0;
        for (v, vm) in f.vlans.iter().zip(&m.vlans).take_while(|(v, _)| v.tci.get() & VLAN_CFI != 0) {
            self.sep();
            let (tci, bits) = (v.tci.get(), vm.tci.get());
            let verbose = self.style.verbose;
            put!(self.out, "eth_type({:#06x}),vlan(", v.tpid.get());
            let mut a = Attr { out: self.out, verbose, first: true };
            let mut part = |name, v: u16, m: u16, full: u16| {
                // A wildcarded value shows when it is not zero.
                if a.name(name, v != 0 || m != 0) {
                    put!(a.out, "{v}");
                    if m != full {
                        put!(a.out, "/{m:#x}");
                    }
                }
            };
            part("vid", tci & 0xfff, bits & 0xfff, 0xfff);
            part("pcp", tci >> 13, bits >> 13, 7);
            self.out.push_str("),encap(");
            depth += 1;
        }
        self.eth_type(depth > 0);
        self.l3();
        (0..depth).for_each(|_| self.out.push(')'));
    }

    fn eth_type(&mut self, tagged: bool) {
        let (v, m) = (self.flow.dl_type.get(), self.mask.dl_type.get());
        if v == 0x05ff && m == 0xffff {
            // 802.2: the key has no ethertype, only its mask says so.
            if !tagged {
                self.sep();
                self.out.push_str("eth_type(0/0xffff)");
            }
        } else if !tagged && matches!(v, 0x8100 | 0x88a8) && m == 0xffff {
            // The frame ends within its tag.
            let pcp = if self.style.verbose { "pcp=0/0x0," } else { "" };
            self.sep();
            put!(self.out, "eth_type({v:#06x}),vlan(vid=0,{pcp}cfi=0),encap()");
        } else if m != 0 || self.style.verbose {
            self.sep();
            put!(self.out, "eth_type({v:#06x}");
            if m != 0xffff {
                put!(self.out, "/{m:#06x}");
            }
            self.out.push(')');
        }
    }

    fn l3(&mut self) {
        let (f, m) = (self.flow, self.mask);
        match f.dl_type.get() {
            0x0800 => {
                let any = !m.nw_src.is_zero() || !m.nw_dst.is_zero() || self.any_ip();
                self.attr("ipv4", any, |a| {
                    a.ip4("src", f.nw_src, m.nw_src);
                    a.ip4("dst", f.nw_dst, m.nw_dst);
                    a.dec("proto", f.nw_proto.into(), m.nw_proto.into(), 0xff);
                    hex0(a, "tos", f.nw_tos, m.nw_tos);
                    a.dec("ttl", f.nw_ttl.into(), m.nw_ttl.into(), 0xff);
                    frag(a, f.nw_frag, m.nw_frag);
                });
                self.l4();
            }
            0x86dd => {
                let any = m.ipv6_src != [0; 16]
                    || m.ipv6_dst != [0; 16]
                    || !m.ipv6_label.is_zero()
                    || self.any_ip();
                self.attr("ipv6", any, |a| {
                    a.ip6("src", f.ipv6_src, m.ipv6_src);
                    a.ip6("dst", f.ipv6_dst, m.ipv6_dst);
                    let bits = m.ipv6_label.get() & 0xfffff;
                    if a.name("label", bits != 0) {
                        put!(a.out, "{}", Hex(f.ipv6_label.get().into()));
                        if bits != 0xfffff {
                            put!(a.out, "/{}", Hex(bits.into()));
                        }
                    }
                    a.dec("proto", f.nw_proto.into(), m.nw_proto.into(), 0xff);
                    hex0(a, "tclass", f.nw_tos, m.nw_tos);
                    a.dec("hlimit", f.nw_ttl.into(), m.nw_ttl.into(), 0xff);
                    frag(a, f.nw_frag, m.nw_frag);
                });
                self.l4();
            }
            0x0806 | 0x8035 => {
                let any = !m.nw_src.is_zero() || !m.nw_dst.is_zero() || m.nw_proto != 0;
                let any = any || m.arp_sha != [0; 6] || m.arp_tha != [0; 6];
                self.attr("arp", any, |a| {
                    a.ip4("sip", f.nw_src, m.nw_src);
                    a.ip4("tip", f.nw_dst, m.nw_dst);
                    a.dec("op", f.nw_proto.into(), m.nw_proto.into(), 0xff);
                    a.mac("sha", f.arp_sha, m.arp_sha);
                    a.mac("tha", f.arp_tha, m.arp_tha);
                });
            }
            0x8847 | 0x8848 => self.mpls(),
            _ => {}
        }
    }

    fn any_ip(&self) -> bool {
        let m = self.mask;
        m.nw_proto != 0 || m.nw_tos != 0 || m.nw_ttl != 0 || m.nw_frag != 0
    }

    fn mpls(&mut self) {
        let (f, m) = (self.flow, self.mask);
        let bos = f.mpls.iter().position(|l| l.get() & 0x100 != 0);
        // Entries beyond the end of a stack that has no bottom are zero.
        let n = match bos {
            Some(i) => i + 1,
            None => f.mpls.iter().rposition(|l| !l.is_zero()).map_or(1, |i| i + 1),
        }
        .min(MAX_MPLS);
        let plain = m.mpls[..n].iter().all(|&m| m == Be32::MAX);
        let any = m.mpls[..n].iter().any(|m| !m.is_zero());
        self.attr("mpls", any, |a| {
            for (i, (l, lm)) in f.mpls.iter().zip(&m.mpls).take(n).enumerate() {
                if i > 0 {
                    a.out.push(',');
                }
                let lm = if plain { None } else { Some(*lm) };
                super::action::mpls_lse(a.out, *l, lm);
            }
        });
    }

    fn l4(&mut self) {
        let (f, m) = (self.flow, self.mask);
        if f.nw_frag & FRAG_LATER != 0 {
            return;
        }
        let any = !m.tp_src.is_zero() || !m.tp_dst.is_zero();
        let ip6 = f.dl_type.get() == 0x86dd;
        let name = match f.nw_proto {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            1 if !ip6 => return self.icmp("icmp"),
            58 if ip6 => {
                self.icmp("icmpv6");
                return self.nd();
            }
            _ => return,
        };
        self.attr(name, any, |a| {
            a.port16("src", f.tp_src, m.tp_src);
            a.port16("dst", f.tp_dst, m.tp_dst);
        });
        if f.nw_proto == 6 {
            let (v, bits) = (f.tcp_flags.get(), m.tcp_flags.get() & 0xfff);
            if v != 0 || bits != 0 {
                self.tcp_flags(v, bits);
            }
        }
    }

    fn tcp_flags(&mut self, v: u16, bits: u16) {
        if bits == 0 && !self.style.verbose {
            return;
        }
        self.sep();
        self.out.push_str("tcp_flags(");
        match bits {
            0xfff => joined_flags(self.out, &TCP_FLAGS, v.into(), "|", "0"),
            0 => self.out.push_str("0/0"),
            _ => signed_flags(self.out, &TCP_FLAGS, v.into(), bits.into()),
        }
        self.out.push(')');
    }

    fn icmp(&mut self, name: &str) {
        let (f, m) = (self.flow, self.mask);
        self.attr(name, !m.tp_src.is_zero() || !m.tp_dst.is_zero(), |a| {
            let low = |b: Be16| u32::from(b.get() & 0xff);
            a.dec("type", low(f.tp_src), low(m.tp_src), 0xff);
            a.dec("code", low(f.tp_dst), low(m.tp_dst), 0xff);
        });
    }

    fn nd(&mut self) {
        let (f, m) = (self.flow, self.mask);
        if !f.tp_dst.is_zero() || !matches!(f.tp_src.get(), 135 | 136) {
            return;
        }
        // Type and code must be known for the rest to mean anything.
        let known = m.tp_src.get() & m.tp_dst.get() & 0xff == 0xff;
        let any = known && (m.nd_target != [0; 16] || m.arp_sha != [0; 6] || m.arp_tha != [0; 6]);
        self.attr("nd", any, |a| {
            a.ip6("target", f.nd_target, m.nd_target);
            a.mac("sll", f.arp_sha, m.arp_sha);
            a.mac("tll", f.arp_tha, m.arp_tha);
        });
    }
}

/// A byte in hexadecimal, zero as `0`.
fn hex0(a: &mut Attr, name: &str, v: u8, m: u8) {
    if a.name(name, m != 0) {
        put!(a.out, "{}", Hex(v.into()));
        if m != 0xff {
            put!(a.out, "/{}", Hex(m.into()));
        }
    }
}

fn frag(a: &mut Attr, v: u8, m: u8) {
    if m != 0 && a.name("frag", true) {
        a.out.push_str(match v & 3 {
            0 => "no",
            1 => "first",
            3 => "later",
            _ => "<error>",
        });
    }
}

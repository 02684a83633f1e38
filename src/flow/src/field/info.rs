//! What is fixed about each field: names, width, masking, access, prerequisites, place in a flow.
//!
//! Neighbours: `access` reads and writes by it. Threads: constants.

use super::Field;
use crate::key::{Flow, N_REGS};
use std::mem::offset_of;

/// How a field's value is written (ovs-fields(7), "Format").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Format {
    Decimal,
    Hexadecimal,
    Ethernet,
    Ipv4,
    Ipv6,
    OfPort,
    OfPort32,
    Frag,
    TunFlags,
    TcpFlags,
    CtState,
    PacketType,
}

/// What else must be matched before a field means anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Prereq {
    None,
    Ethernet,
    Arp,
    VlanVid,
    Ipv4,
    Ipv6,
    IpAny,
    Mpls,
    Ct,
    Tcp,
    Udp,
    Sctp,
    Icmpv4,
    Icmpv6,
    Nd,
    NdSolicit,
    NdAdvert,
}

/// Where the bits are: `width` bits from bit `shift` of the `len`-byte integer at `off`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub off: usize,
    pub len: usize,
    pub big: bool,
    pub shift: u32,
    pub width: u32,
}

/// The fixed facts of one field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub name: &'static str,
    pub alias: Option<&'static str>,
    pub n_bits: u16,
    pub n_bytes: u8,
    pub maskable: bool,
    pub writable: bool,
    pub prereq: Prereq,
    pub format: Format,
    pub place: Place,
}

const REG: [&str; N_REGS] = [
    "reg0", "reg1", "reg2", "reg3", "reg4", "reg5", "reg6", "reg7", "reg8", "reg9", "reg10", "reg11",
    "reg12", "reg13", "reg14", "reg15",
];
const XREG: [&str; N_REGS / 2] = ["xreg0", "xreg1", "xreg2", "xreg3", "xreg4", "xreg5", "xreg6", "xreg7"];
const XXREG: [&str; N_REGS / 4] = ["xxreg0", "xxreg1", "xxreg2", "xxreg3"];

const RW: bool = true;
const RO: bool = false;
const MASK: bool = true;
const EXACT: bool = false;

/// A field that fills the `n_bytes`-byte integer at `off`.
const fn whole(name: &'static str, off: usize, n_bytes: u8, big: bool) -> Info {
    Info {
        name,
        alias: None,
        n_bits: n_bytes as u16 * 8,
        n_bytes,
        maskable: MASK,
        writable: RW,
        prereq: Prereq::None,
        format: Format::Hexadecimal,
        place: Place { off, len: n_bytes as usize, big, shift: 0, width: n_bytes as u32 * 8 },
    }
}

impl Info {
    const fn fmt(mut self, format: Format) -> Info {
        self.format = format;
        self
    }
    const fn pre(mut self, prereq: Prereq) -> Info {
        self.prereq = prereq;
        self
    }
    const fn access(mut self, maskable: bool, writable: bool) -> Info {
        self.maskable = maskable;
        self.writable = writable;
        self
    }
    const fn aka(mut self, alias: &'static str) -> Info {
        self.alias = Some(alias);
        self
    }
    /// Only `n` low bits are used; they stand from `shift` on.
    const fn bits(mut self, n: u16, shift: u32) -> Info {
        self.n_bits = n;
        self.place.shift = shift;
        self.place.width = n as u32;
        self
    }
    /// The integer in the flow has `len` bytes although the field's wire form has others.
    const fn stored(mut self, len: usize) -> Info {
        self.place.len = len;
        self.place.width = len as u32 * 8;
        self
    }
    /// The field's wire form has `n` bytes.
    const fn wire(mut self, n: u8) -> Info {
        self.n_bytes = n;
        self
    }
}

macro_rules! at {
    ($name:literal, $member:ident, $bytes:literal, be) => {
        whole($name, offset_of!(Flow, $member), $bytes, true)
    };
    ($name:literal, $member:ident, $bytes:literal, host) => {
        whole($name, offset_of!(Flow, $member), $bytes, cfg!(target_endian = "big"))
    };
}

impl Field {
    /// The facts of this field.
    #[inline]
    pub(super) const fn info(self) -> Info {
        match self {
            Field::DpHash
            | Field::RecircId
            | Field::PacketType
            | Field::ConjId
            | Field::Metadata
            | Field::InPort
            | Field::InPortOxm
            | Field::ActsetOutput
            | Field::SkbPriority
            | Field::PktMark
            | Field::Reg(_)
            | Field::XReg(_)
            | Field::XxReg(_) => self.info_meta(),
            Field::TunId
            | Field::TunSrc
            | Field::TunDst
            | Field::TunIpv6Src
            | Field::TunIpv6Dst
            | Field::TunFlags
            | Field::TunTtl
            | Field::TunTos
            | Field::TunGbpId
            | Field::TunGbpFlags => self.info_tunnel(),
            Field::CtState
            | Field::CtZone
            | Field::CtMark
            | Field::CtLabel
            | Field::CtNwProto
            | Field::CtNwSrc
            | Field::CtNwDst
            | Field::CtIpv6Src
            | Field::CtIpv6Dst
            | Field::CtTpSrc
            | Field::CtTpDst => self.info_ct(),
            Field::EthSrc
            | Field::EthDst
            | Field::EthType
            | Field::VlanTci
            | Field::DlVlan
            | Field::VlanVid
            | Field::DlVlanPcp
            | Field::VlanPcp
            | Field::MplsLabel
            | Field::MplsTc
            | Field::MplsBos
            | Field::MplsTtl => self.info_l2(),
            _ => self.info_l3_l4(),
        }
    }

    const fn info_meta(self) -> Info {
        use Format::{Decimal, OfPort, OfPort32, PacketType};
        match self {
            Field::DpHash => at!("dp_hash", dp_hash, 4, host).access(MASK, RO),
            Field::RecircId => at!("recirc_id", recirc_id, 4, host).access(EXACT, RO).fmt(Decimal),
            Field::PacketType => at!("packet_type", packet_type, 4, be).access(EXACT, RO).fmt(PacketType),
            Field::ConjId => at!("conj_id", conj_id, 4, host).access(EXACT, RO).fmt(Decimal),
            Field::InPort => at!("in_port", in_port, 2, host).access(EXACT, RW).fmt(OfPort).stored(4),
            Field::InPortOxm => at!("in_port_oxm", in_port, 4, host).access(EXACT, RW).fmt(OfPort32),
            Field::ActsetOutput => {
                at!("actset_output", actset_output, 4, host).access(EXACT, RO).fmt(OfPort32)
            }
            Field::SkbPriority => at!("skb_priority", skb_priority, 4, host).access(EXACT, RO),
            Field::PktMark => at!("pkt_mark", pkt_mark, 4, host),
            Field::Reg(i) => {
                let i = i as usize % N_REGS;
                whole(REG[i], offset_of!(Flow, regs) + 4 * i, 4, cfg!(target_endian = "big"))
            }
            // The place of the wide registers is their first part; `access` joins the parts.
            Field::XReg(i) => {
                let i = i as usize % (N_REGS / 2);
                whole(XREG[i], offset_of!(Flow, regs) + 8 * i, 8, false)
            }
            Field::XxReg(i) => {
                let i = i as usize % (N_REGS / 4);
                whole(XXREG[i], offset_of!(Flow, regs) + 16 * i, 16, false)
            }
            _ => at!("metadata", metadata, 8, be),
        }
    }

    const fn info_tunnel(self) -> Info {
        use Format::{Decimal, Ipv4, Ipv6, TunFlags};
        match self {
            Field::TunId => at!("tun_id", tun_id, 8, be).aka("tunnel_id"),
            Field::TunSrc => at!("tun_src", tun_src, 4, be).fmt(Ipv4),
            Field::TunDst => at!("tun_dst", tun_dst, 4, be).fmt(Ipv4),
            Field::TunIpv6Src => at!("tun_ipv6_src", tun_ipv6_src, 16, be).fmt(Ipv6),
            Field::TunIpv6Dst => at!("tun_ipv6_dst", tun_ipv6_dst, 16, be).fmt(Ipv6),
            Field::TunFlags => at!("tun_flags", tun_flags, 2, host).bits(1, 0).fmt(TunFlags),
            Field::TunTtl => at!("tun_ttl", tun_ttl, 1, be).access(EXACT, RW).fmt(Decimal),
            Field::TunTos => at!("tun_tos", tun_tos, 1, be).access(EXACT, RW).fmt(Decimal),
            Field::TunGbpId => at!("tun_gbp_id", tun_gbp_id, 2, be).fmt(Decimal),
            _ => at!("tun_gbp_flags", tun_gbp_flags, 1, be),
        }
    }

    const fn info_ct(self) -> Info {
        use Format::{CtState, Decimal, Ipv4, Ipv6};
        match self {
            Field::CtState => {
                let mut i = at!("ct_state", ct_state, 4, host).access(MASK, RO).fmt(CtState).stored(1);
                i.place.width = 8;
                i
            }
            Field::CtZone => at!("ct_zone", ct_zone, 2, host).access(EXACT, RO),
            Field::CtMark => at!("ct_mark", ct_mark, 4, host),
            Field::CtLabel => at!("ct_label", ct_label, 16, be),
            Field::CtNwProto => {
                at!("ct_nw_proto", ct_nw_proto, 1, be).access(EXACT, RO).fmt(Decimal).pre(Prereq::Ct)
            }
            Field::CtNwSrc => at!("ct_nw_src", ct_nw_src, 4, be).access(MASK, RO).fmt(Ipv4).pre(Prereq::Ct),
            Field::CtNwDst => at!("ct_nw_dst", ct_nw_dst, 4, be).access(MASK, RO).fmt(Ipv4).pre(Prereq::Ct),
            Field::CtIpv6Src => {
                at!("ct_ipv6_src", ct_ipv6_src, 16, be).access(MASK, RO).fmt(Ipv6).pre(Prereq::Ct)
            }
            Field::CtIpv6Dst => {
                at!("ct_ipv6_dst", ct_ipv6_dst, 16, be).access(MASK, RO).fmt(Ipv6).pre(Prereq::Ct)
            }
            Field::CtTpSrc => {
                at!("ct_tp_src", ct_tp_src, 2, be).access(MASK, RO).fmt(Decimal).pre(Prereq::Ct)
            }
            _ => at!("ct_tp_dst", ct_tp_dst, 2, be).access(MASK, RO).fmt(Decimal).pre(Prereq::Ct),
        }
    }

    const fn info_l2(self) -> Info {
        use Format::{Decimal, Ethernet};
        use Prereq::{Mpls, VlanVid};
        let tci = offset_of!(Flow, vlans) + 2;
        let lse = offset_of!(Flow, mpls);
        match self {
            Field::EthSrc => at!("eth_src", dl_src, 6, be).aka("dl_src").fmt(Ethernet).pre(Prereq::Ethernet),
            Field::EthDst => at!("eth_dst", dl_dst, 6, be).aka("dl_dst").fmt(Ethernet).pre(Prereq::Ethernet),
            Field::EthType => {
                at!("eth_type", dl_type, 2, be).aka("dl_type").access(EXACT, RO).pre(Prereq::Ethernet)
            }
            Field::VlanTci => whole("vlan_tci", tci, 2, true).pre(Prereq::Ethernet),
            Field::DlVlan => whole("dl_vlan", tci, 2, true)
                .bits(12, 0)
                .access(EXACT, RW)
                .fmt(Decimal)
                .pre(Prereq::Ethernet),
            Field::VlanVid => {
                let mut i = whole("vlan_vid", tci, 2, true).bits(12, 0).fmt(Decimal).pre(Prereq::Ethernet);
                // The value carries OFPVID_PRESENT, which is not counted among the field's bits.
                i.place.width = 13;
                i
            }
            Field::DlVlanPcp => whole("dl_vlan_pcp", tci, 2, true)
                .bits(3, 13)
                .access(EXACT, RW)
                .wire(1)
                .fmt(Decimal)
                .pre(Prereq::Ethernet),
            Field::VlanPcp => whole("vlan_pcp", tci, 2, true)
                .bits(3, 13)
                .access(EXACT, RW)
                .wire(1)
                .fmt(Decimal)
                .pre(VlanVid),
            Field::MplsLabel => {
                whole("mpls_label", lse, 4, true).bits(20, 12).access(EXACT, RW).fmt(Decimal).pre(Mpls)
            }
            Field::MplsTc => {
                whole("mpls_tc", lse, 4, true).bits(3, 9).access(EXACT, RW).wire(1).fmt(Decimal).pre(Mpls)
            }
            Field::MplsBos => {
                whole("mpls_bos", lse, 4, true).bits(1, 8).access(EXACT, RO).wire(1).fmt(Decimal).pre(Mpls)
            }
            _ => whole("mpls_ttl", lse, 4, true).bits(8, 0).access(EXACT, RW).wire(1).fmt(Decimal).pre(Mpls),
        }
    }

    const fn info_l3_l4(self) -> Info {
        use Format::{Decimal, Ethernet, Frag, Ipv4, Ipv6, TcpFlags};
        use Prereq::{Arp, Icmpv4, Icmpv6, IpAny, Nd, NdAdvert, NdSolicit, Sctp, Tcp, Udp};
        match self {
            Field::Ipv4Src => at!("ip_src", nw_src, 4, be).aka("nw_src").fmt(Ipv4).pre(Prereq::Ipv4),
            Field::Ipv4Dst => at!("ip_dst", nw_dst, 4, be).aka("nw_dst").fmt(Ipv4).pre(Prereq::Ipv4),
            Field::Ipv6Src => at!("ipv6_src", ipv6_src, 16, be).fmt(Ipv6).pre(Prereq::Ipv6),
            Field::Ipv6Dst => at!("ipv6_dst", ipv6_dst, 16, be).fmt(Ipv6).pre(Prereq::Ipv6),
            Field::Ipv6Label => at!("ipv6_label", ipv6_label, 4, be).bits(20, 0).pre(Prereq::Ipv6),
            Field::IpProto => {
                at!("nw_proto", nw_proto, 1, be).aka("ip_proto").access(EXACT, RO).fmt(Decimal).pre(IpAny)
            }
            Field::IpDscp => {
                let mut i = at!("nw_tos", nw_tos, 1, be).access(EXACT, RW).fmt(Decimal).pre(IpAny);
                i.place.shift = 2;
                i.place.width = 6;
                i
            }
            Field::IpDscpShifted => {
                at!("ip_dscp", nw_tos, 1, be).bits(6, 2).access(EXACT, RW).fmt(Decimal).pre(IpAny)
            }
            Field::IpEcn => at!("nw_ecn", nw_tos, 1, be)
                .aka("ip_ecn")
                .bits(2, 0)
                .access(EXACT, RW)
                .fmt(Decimal)
                .pre(IpAny),
            Field::IpTtl => at!("nw_ttl", nw_ttl, 1, be).access(EXACT, RW).fmt(Decimal).pre(IpAny),
            Field::IpFrag => {
                at!("ip_frag", nw_frag, 1, be).aka("nw_frag").bits(2, 0).access(MASK, RO).fmt(Frag).pre(IpAny)
            }
            Field::ArpOp => at!("arp_op", nw_proto, 2, be).stored(1).access(EXACT, RW).fmt(Decimal).pre(Arp),
            Field::ArpSpa => at!("arp_spa", nw_src, 4, be).fmt(Ipv4).pre(Arp),
            Field::ArpTpa => at!("arp_tpa", nw_dst, 4, be).fmt(Ipv4).pre(Arp),
            Field::ArpSha => at!("arp_sha", arp_sha, 6, be).fmt(Ethernet).pre(Arp),
            Field::ArpTha => at!("arp_tha", arp_tha, 6, be).fmt(Ethernet).pre(Arp),
            Field::TcpSrc => at!("tcp_src", tp_src, 2, be).aka("tp_src").fmt(Decimal).pre(Tcp),
            Field::TcpDst => at!("tcp_dst", tp_dst, 2, be).aka("tp_dst").fmt(Decimal).pre(Tcp),
            Field::TcpFlags => {
                at!("tcp_flags", tcp_flags, 2, be).bits(12, 0).access(MASK, RO).fmt(TcpFlags).pre(Tcp)
            }
            Field::UdpSrc => at!("udp_src", tp_src, 2, be).fmt(Decimal).pre(Udp),
            Field::UdpDst => at!("udp_dst", tp_dst, 2, be).fmt(Decimal).pre(Udp),
            Field::SctpSrc => at!("sctp_src", tp_src, 2, be).fmt(Decimal).pre(Sctp),
            Field::SctpDst => at!("sctp_dst", tp_dst, 2, be).fmt(Decimal).pre(Sctp),
            Field::Icmpv4Type => {
                at!("icmp_type", tp_src, 1, be).stored(2).access(EXACT, RW).fmt(Decimal).pre(Icmpv4)
            }
            Field::Icmpv4Code => {
                at!("icmp_code", tp_dst, 1, be).stored(2).access(EXACT, RW).fmt(Decimal).pre(Icmpv4)
            }
            Field::Icmpv6Type => {
                at!("icmpv6_type", tp_src, 1, be).stored(2).access(EXACT, RW).fmt(Decimal).pre(Icmpv6)
            }
            Field::Icmpv6Code => {
                at!("icmpv6_code", tp_dst, 1, be).stored(2).access(EXACT, RW).fmt(Decimal).pre(Icmpv6)
            }
            Field::NdTarget => at!("nd_target", nd_target, 16, be).fmt(Ipv6).pre(Nd),
            Field::NdSll => at!("nd_sll", arp_sha, 6, be).fmt(Ethernet).pre(NdSolicit),
            _ => at!("nd_tll", arp_tha, 6, be).fmt(Ethernet).pre(NdAdvert),
        }
    }
}

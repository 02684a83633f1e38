//! The fixed matches of OpenFlow 1.0 and 1.1.
//!
//! Neighbours: `flow_mod` and statistics of those versions. Threads: none.

use crate::wire::{Put, Reader};
use crate::{match_oxm, OfError};
use flow::{Be16, Be32, Be64, Field, Match, OfPort};

/// Bytes of an OpenFlow 1.1 match.
const OF11_MATCH_LEN: usize = 88;

const IN_PORT: u32 = 1;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC: u32 = 1 << 2;
const DL_DST: u32 = 1 << 3;
const DL_TYPE: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const TP_SRC: u32 = 1 << 6;
const TP_DST: u32 = 1 << 7;
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;
const DL_VLAN_PCP: u32 = 1 << 20;
const NW_TOS: u32 = 1 << 21;

const CFI: u16 = 0x1000;
const VID: u16 = 0x0fff;
const NO_VLAN: u16 = 0xffff;

fn net_mask(wild_bits: u32) -> Be32 {
    Be32::new(u32::MAX.checked_shl(wild_bits).unwrap_or(0))
}

/// Whether the OpenFlow 1.0 match at the head of `b` has no wildcard bit.
pub(crate) fn is_exact10(b: &[u8]) -> bool {
    b.first_chunk::<4>().is_some_and(|w| u32::from_be_bytes(*w) & 0x3f_ffff == 0)
}

/// Reads an OpenFlow 1.0 match. Fields without their prerequisites are ignored, as that version has it.
pub(crate) fn get10(r: &mut Reader<'_>) -> Result<Match, OfError> {
    let w = r.u32()?;
    let in_port = r.u16()?;
    let (dl_src, dl_dst) = (r.array::<6>()?, r.array::<6>()?);
    let (vlan, pcp) = (r.u16()?, r.u8()?);
    r.skip(1)?;
    let (dl_type, tos, proto) = (r.u16()?, r.u8()?, r.u8()?);
    r.skip(2)?;
    let (nw_src, nw_dst, tp_src, tp_dst) = (r.u32()?, r.u32()?, r.u16()?, r.u16()?);

    let mut m = Match::any();
    if w & IN_PORT == 0 {
        m.set(Field::InPort, in_port.into());
    }
    if w & DL_SRC == 0 {
        m.flow.dl_src = dl_src;
        m.mask.0.dl_src = [0xff; 6];
    }
    if w & DL_DST == 0 {
        m.flow.dl_dst = dl_dst;
        m.mask.0.dl_dst = [0xff; 6];
    }
    vlan10(&mut m, (w & DL_VLAN == 0).then_some(vlan), (w & DL_VLAN_PCP == 0).then_some(pcp));
    if w & DL_TYPE == 0 {
        m.flow.dl_type = Be16::new(dl_type);
        m.mask.0.dl_type = Be16::MAX;
    }
    if w & NW_TOS == 0 {
        m.flow.nw_tos = tos & 0xfc;
        m.mask.0.nw_tos = 0xfc;
    }
    if w & NW_PROTO == 0 {
        m.flow.nw_proto = proto;
        m.mask.0.nw_proto = 0xff;
    }
    m.mask.0.nw_src = net_mask(w >> NW_SRC_SHIFT & 0x3f);
    m.flow.nw_src = Be32::new(nw_src) & m.mask.0.nw_src;
    m.mask.0.nw_dst = net_mask(w >> NW_DST_SHIFT & 0x3f);
    m.flow.nw_dst = Be32::new(nw_dst) & m.mask.0.nw_dst;
    if w & TP_SRC == 0 {
        m.flow.tp_src = Be16::new(tp_src);
        m.mask.0.tp_src = Be16::MAX;
    }
    if w & TP_DST == 0 {
        m.flow.tp_dst = Be16::new(tp_dst);
        m.mask.0.tp_dst = Be16::MAX;
    }
    normalize(&mut m);
    Ok(m)
}

fn vlan10(m: &mut Match, vid: Option<u16>, pcp: Option<u8>) {
    let (value, mask) = match (vid, pcp) {
        (Some(NO_VLAN), _) => (0, 0xffff),
        (None, None) => (0, 0),
        (vid, pcp) => {
            let (v, vm) = vid.map_or((0, 0), |v| (v & VID, VID));
            let (p, pm) = pcp.map_or((0, 0), |p| (u16::from(p & 7) << 13, 0xe000));
            (v | p | CFI, vm | pm | CFI)
        }
    };
    m.flow.vlans[0].tci = Be16::new(value);
    m.mask.0.vlans[0].tci = Be16::new(mask);
}

/// Wildcards the IP and transport fields that cannot be in a packet of the match's type.
fn normalize(m: &mut Match) {
    let t = m.flow.dl_type.get();
    let (ip4, ip6, arp) = (t == 0x0800, t == 0x86dd, matches!(t, 0x0806 | 0x8035));
    let proto = if m.mask.0.nw_proto == 0xff { m.flow.nw_proto } else { 0 };
    let ports = (ip4 || ip6) && matches!(proto, 6 | 17 | 132) || ip4 && proto == 1 || ip6 && proto == 58;
    let (f, w) = (&mut m.flow, &mut m.mask.0);
    if !ip4 && !arp {
        (f.nw_src, w.nw_src, f.nw_dst, w.nw_dst) = (Be32::ZERO, Be32::ZERO, Be32::ZERO, Be32::ZERO);
    }
    if !ip4 && !ip6 {
        (f.nw_tos, w.nw_tos) = (0, 0);
        if !arp {
            (f.nw_proto, w.nw_proto) = (0, 0);
        }
    }
    if !ports {
        (f.tp_src, w.tp_src, f.tp_dst, w.tp_dst) = (Be16::ZERO, Be16::ZERO, Be16::ZERO, Be16::ZERO);
    }
}

/// Appends the OpenFlow 1.0 match nearest to `m`.
pub(crate) fn put10(out: &mut Vec<u8>, m: &Match) {
    let (f, k) = (&m.flow, &m.mask.0);
    let mut w = 0;
    let mut wild = |yes: bool, bit: u32| {
        if yes {
            w |= bit;
        }
        !yes
    };
    let in_port = if wild(k.in_port == 0, IN_PORT) { f.in_port as u16 } else { 0 };
    wild(k.dl_src == [0; 6], DL_SRC);
    wild(k.dl_dst == [0; 6], DL_DST);
    wild(k.dl_type.is_zero(), DL_TYPE);
    wild(k.nw_proto == 0, NW_PROTO);
    wild(k.nw_tos & 0xfc == 0, NW_TOS);
    wild(k.tp_src.is_zero(), TP_SRC);
    wild(k.tp_dst.is_zero(), TP_DST);
    let (tci, tci_mask) = (f.vlans[0].tci.get(), k.vlans[0].tci.get());
    let (vid, pcp) = if tci_mask & CFI != 0 && tci & CFI == 0 {
        (NO_VLAN, 0)
    } else {
        let vid = if wild(tci_mask & VID == 0, DL_VLAN) { tci & VID } else { 0 };
        let pcp = if wild(tci_mask & 0xe000 == 0, DL_VLAN_PCP) { tci >> 13 } else { 0 };
        (vid, pcp as u8)
    };
    w |= k.nw_src.get().trailing_zeros() << NW_SRC_SHIFT;
    w |= k.nw_dst.get().trailing_zeros() << NW_DST_SHIFT;
    out.u32(w);
    out.u16(in_port);
    out.bytes(&f.dl_src);
    out.bytes(&f.dl_dst);
    out.u16(vid);
    out.u8(pcp);
    out.zeros(1);
    out.u16(f.dl_type.get());
    out.u8(f.nw_tos & 0xfc);
    out.u8(f.nw_proto);
    out.zeros(2);
    out.u32(f.nw_src.get());
    out.u32(f.nw_dst.get());
    out.u16(f.tp_src.get());
    out.u16(f.tp_dst.get());
}

/// Reads a match of OpenFlow 1.1 and later: the fixed form of 1.1 or OXM, each of which Open vSwitch takes in every
/// version.
pub(crate) fn pull11(r: &mut Reader<'_>) -> Result<Match, OfError> {
    let head = r.peek();
    if head.len() >= 2 && head[..2] == [0, 1] {
        return match_oxm::pull(r, true);
    }
    if head.len() < 4 {
        return Err(OfError::OFPBMC_BAD_LEN);
    }
    let (kind, len) = (r.u16()?, r.u16()?);
    if kind != 0 {
        return Err(OfError::OFPBMC_BAD_TYPE);
    }
    if usize::from(len) != OF11_MATCH_LEN {
        return Err(OfError::OFPBMC_BAD_LEN);
    }
    let body = r.take(OF11_MATCH_LEN - 4).map_err(|_| OfError::OFPBMC_BAD_LEN)?;
    get11(&mut Reader::new(body, OfError::OFPBMC_BAD_LEN))
}

fn get11(r: &mut Reader<'_>) -> Result<Match, OfError> {
    const MPLS_LABEL: u32 = 1 << 8;
    const MPLS_TC: u32 = 1 << 9;
    let (in_port, w) = (r.u32()?, r.u32()?);
    let mut m = Match::any();
    if w & IN_PORT == 0 {
        let port = OfPort::from_of11(in_port).ok_or(OfError::OFPBMC_BAD_VALUE)?;
        m.set(Field::InPort, port.0.into());
    }
    for field in [Field::EthSrc, Field::EthDst] {
        let (v, mask) = (r.uint(6)?, !r.uint(6)? & 0xffff_ffff_ffff);
        m.set_masked(field, v, mask);
    }
    let (vlan, pcp) = (r.u16()?, r.u8()?);
    r.skip(1)?;
    match vlan {
        _ if w & DL_VLAN != 0 => vlan10(&mut m, None, None),
        NO_VLAN => vlan10(&mut m, Some(NO_VLAN), None),
        // "Any VLAN": the header must be there.
        0xfffe => {
            m.set_masked(Field::VlanVid, CFI.into(), CFI.into());
            if w & 4 == 0 {
                m.set(Field::VlanPcp, pcp.into());
            }
        }
        v if v & !VID != 0 => return Err(OfError::OFPBMC_BAD_VALUE),
        v => vlan10(&mut m, Some(v), (w & 4 == 0).then_some(pcp)),
    }
    let (dl_type, tos, proto) = (r.u16()?, r.u8()?, r.u8()?);
    if w & 8 == 0 {
        m.set(Field::EthType, dl_type.into());
    }
    let ip_any = Field::IpProto.match_prereqs_ok(&m);
    if ip_any && w & 16 == 0 {
        m.set(Field::IpDscp, u128::from(tos & 0xfc));
    }
    let arp = Field::ArpOp.match_prereqs_ok(&m);
    if (ip_any || arp) && w & 32 == 0 {
        (m.flow.nw_proto, m.mask.0.nw_proto) = (proto, 0xff);
    }
    let (src, src_wild, dst, dst_wild) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    if arp || m.flow.dl_type.get() == 0x0800 {
        m.mask.0.nw_src = Be32::new(!src_wild);
        m.flow.nw_src = Be32::new(src & !src_wild);
        m.mask.0.nw_dst = Be32::new(!dst_wild);
        m.flow.nw_dst = Be32::new(dst & !dst_wild);
    }
    let (tp_src, tp_dst) = (r.u16()?, r.u16()?);
    if w & 64 == 0 {
        (m.flow.tp_src, m.mask.0.tp_src) = (Be16::new(tp_src), Be16::MAX);
    }
    if w & 128 == 0 {
        (m.flow.tp_dst, m.mask.0.tp_dst) = (Be16::new(tp_dst), Be16::MAX);
    }
    normalize(&mut m);
    let (label, tc) = (r.u32()?, r.u8()?);
    r.skip(3)?;
    if Field::MplsLabel.match_prereqs_ok(&m) {
        if w & MPLS_LABEL == 0 {
            m.set(Field::MplsLabel, u128::from(label & 0xf_ffff));
        }
        if w & MPLS_TC == 0 {
            m.set(Field::MplsTc, u128::from(tc & 7));
        }
    }
    let (value, wild) = (r.u64()?, r.u64()?);
    m.mask.0.metadata = Be64::new(!wild);
    m.flow.metadata = Be64::new(value & !wild);
    Ok(m)
}

/// Appends the fixed OpenFlow 1.1 match nearest to `m`.
pub(crate) fn put11(out: &mut Vec<u8>, m: &Match) {
    let (f, k) = (&m.flow, &m.mask.0);
    let (tci, tci_mask) = (f.vlans[0].tci.get(), k.vlans[0].tci.get());
    let mut w = 0;
    let mut wild = |yes: bool, bit: u32| w |= if yes { bit } else { 0 };
    wild(k.in_port == 0, 1);
    let (vid, pcp) = if tci_mask & CFI == 0 {
        wild(true, 2 | 4);
        (0, 0)
    } else if tci & CFI == 0 {
        wild(true, 4);
        (NO_VLAN, 0)
    } else {
        wild(tci_mask & 0xe000 == 0, 4);
        (if tci_mask & VID == 0 { 0xfffe } else { tci & VID }, (tci >> 13) as u8)
    };
    wild(k.dl_type.is_zero(), 8);
    wild(k.nw_tos & 0xfc == 0, 16);
    wild(k.nw_proto == 0, 32);
    wild(k.tp_src.is_zero(), 64);
    wild(k.tp_dst.is_zero(), 128);
    let mpls = k.mpls[0].get();
    wild(mpls & 0xffff_f000 == 0, 256);
    wild(mpls & 0xe00 == 0, 512);
    out.u16(0);
    out.u16(OF11_MATCH_LEN as u16);
    out.u32(if k.in_port == 0 { 0 } else { OfPort(f.in_port as u16).to_of11() });
    out.u32(w);
    for (addr, mask) in [(&f.dl_src, &k.dl_src), (&f.dl_dst, &k.dl_dst)] {
        out.bytes(addr);
        out.bytes(&mask.map(|b| !b));
    }
    out.u16(vid);
    out.u8(pcp);
    out.zeros(1);
    out.u16(f.dl_type.get());
    out.u8(f.nw_tos & 0xfc);
    out.u8(f.nw_proto);
    for (addr, mask) in [(f.nw_src, k.nw_src), (f.nw_dst, k.nw_dst)] {
        out.u32(addr.get());
        out.u32(!mask.get());
    }
    out.u16(f.tp_src.get());
    out.u16(f.tp_dst.get());
    out.u32(f.mpls[0].get() >> 12);
    out.u8((f.mpls[0].get() >> 9 & 7) as u8);
    out.zeros(3);
    out.u64(f.metadata.get());
    out.u64(!k.metadata.get());
}

//! Reading action lists of every version.
//!
//! Neighbours: `action_nx` reads Nicira's actions, `instruction` the lists inside instructions. Threads: none.

use crate::error::{NX_VENDOR, ONF_VENDOR};
use crate::oxm::{self, Header};
use crate::wire::{round8, Reader};
use crate::{action_nx, Action, OfError, Version};
use flow::{Field, OfPort};

const BAD_LEN: OfError = OfError::OFPBAC_BAD_LEN;
const BAD_ARG: OfError = OfError::OFPBAC_BAD_ARGUMENT;

/// Vendor or experimenter actions.
const VENDOR: u16 = 0xffff;
/// ONF's copy-field of OpenFlow 1.3 and 1.4.
const ONF_COPY_FIELD: u16 = 3200;

/// Reads a whole list.
pub(crate) fn list(bytes: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    let mut r = Reader::new(bytes, BAD_LEN);
    let mut out = Vec::new();
    while r.left() > 0 {
        let head = r.peek();
        if head.len() < 8 {
            return Err(BAD_LEN);
        }
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if len < 8 || len % 8 != 0 {
            return Err(BAD_LEN);
        }
        let mut body = Reader::new(&r.take(len)?[4..], BAD_LEN);
        out.push(one(kind, &mut body, version)?);
    }
    Ok(out)
}

fn one(kind: u16, r: &mut Reader<'_>, version: Version) -> Result<Action, OfError> {
    if kind == VENDOR {
        return vendor(r, version);
    }
    let fixed = match (version, kind) {
        (Version::V10, 4 | 5 | 11) => Some(12),
        (Version::V10, _) => Some(4),
        (_, 0 | 3 | 4) => Some(12),
        (_, 25 | 28) => None,
        _ => Some(4),
    };
    let known = match version {
        Version::V10 => kind <= 11,
        // Later versions took the fixed set actions out, but they are still understood.
        v => match kind {
            0..=10 | 13..=24 => true,
            25 => v >= Version::V12,
            28 | 29 => v >= Version::V15,
            _ => false,
        },
    };
    if !known {
        return Err(OfError::OFPBAC_BAD_TYPE);
    }
    if fixed.is_some_and(|n| n != r.left()) {
        return Err(BAD_LEN);
    }
    match version {
        Version::V10 => of10(kind, r),
        _ => of11(kind, r, version),
    }
}

fn vendor(r: &mut Reader<'_>, version: Version) -> Result<Action, OfError> {
    match r.u32()? {
        NX_VENDOR => {
            let subtype = r.u16()?;
            action_nx::get(subtype, r)
        }
        ONF_VENDOR if r.u16()? == ONF_COPY_FIELD && matches!(version, Version::V13 | Version::V14) => {
            r.skip(2)?;
            copy_field(r)
        }
        ONF_VENDOR => Err(OfError::OFPBAC_BAD_TYPE),
        _ => Err(OfError::OFPBAC_BAD_VENDOR),
    }
}

fn vid(v: u16) -> Result<u16, OfError> {
    if v & !0x0fff == 0 {
        Ok(v)
    } else {
        Err(BAD_ARG)
    }
}

fn pcp(v: u8) -> Result<u8, OfError> {
    if v & !7 == 0 {
        Ok(v)
    } else {
        Err(BAD_ARG)
    }
}

fn dscp(v: u8) -> Result<Action, OfError> {
    if v & 3 == 0 {
        Ok(Action::SetIpDscp(v))
    } else {
        Err(BAD_ARG)
    }
}

fn of10(kind: u16, r: &mut Reader<'_>) -> Result<Action, OfError> {
    Ok(match kind {
        0 => Action::Output { port: OfPort(r.u16()?), max_len: r.u16()? },
        1 => Action::SetVlanVid { vid: vid(r.u16()?)?, push_if_needed: true, flow_has_vlan: false },
        2 => Action::SetVlanPcp { pcp: pcp(r.u8()?)?, push_if_needed: true, flow_has_vlan: false },
        3 => Action::StripVlan,
        4 => Action::SetEthSrc(r.array()?),
        5 => Action::SetEthDst(r.array()?),
        6 => Action::SetIpv4Src(r.array()?),
        7 => Action::SetIpv4Dst(r.array()?),
        8 => dscp(r.u8()?)?,
        9 => Action::SetL4SrcPort(r.u16()?),
        10 => Action::SetL4DstPort(r.u16()?),
        _ => {
            let port = OfPort(r.u16()?);
            r.skip(6)?;
            Action::Enqueue { port, queue: r.u32()? }
        }
    })
}

fn of11(kind: u16, r: &mut Reader<'_>, version: Version) -> Result<Action, OfError> {
    Ok(match kind {
        0 => {
            let port = OfPort::from_of11(r.u32()?).ok_or(OfError::OFPBAC_BAD_OUT_PORT)?;
            Action::Output { port, max_len: r.u16()? }
        }
        1 => Action::SetVlanVid { vid: vid(r.u16()?)?, push_if_needed: false, flow_has_vlan: false },
        2 => Action::SetVlanPcp { pcp: pcp(r.u8()?)?, push_if_needed: false, flow_has_vlan: false },
        3 => Action::SetEthSrc(r.array()?),
        4 => Action::SetEthDst(r.array()?),
        5 => Action::SetIpv4Src(r.array()?),
        6 => Action::SetIpv4Dst(r.array()?),
        7 => dscp(r.u8()?)?,
        8 => match r.u8()? {
            ecn @ 0..=3 => Action::SetIpEcn(ecn),
            _ => return Err(BAD_ARG),
        },
        9 => Action::SetL4SrcPort(r.u16()?),
        10 => Action::SetL4DstPort(r.u16()?),
        13 => Action::SetMplsLabel(r.u32()? & 0xf_ffff),
        14 => Action::SetMplsTc(r.u8()? & 7),
        15 => Action::SetMplsTtl(r.u8()?),
        16 => Action::DecMplsTtl,
        17 => match r.u16()? {
            t @ (0x8100 | 0x88a8) => Action::PushVlan(t),
            _ => return Err(BAD_ARG),
        },
        18 => Action::PopVlan,
        19 => push_mpls(r.u16()?)?,
        20 => Action::PopMpls(r.u16()?),
        21 => Action::SetQueue(r.u32()?),
        22 => Action::Group(r.u32()?),
        23 => Action::SetIpTtl(r.u8()?),
        24 => Action::DecTtl(Box::default()),
        25 => set_field(r, version >= Version::V15)?,
        28 => copy_field(r)?,
        29 => meter(r.u32()?)?,
        _ => return Err(OfError::OFPBAC_BAD_TYPE),
    })
}

/// Meter numbers are 1 to 0xffff0000.
pub(crate) fn meter(id: u32) -> Result<Action, OfError> {
    if id == 0 || id > 0xffff_0000 {
        return Err(OfError::OFPMMFC_INVALID_METER);
    }
    Ok(Action::Meter(id))
}

pub(crate) fn push_mpls(ethertype: u16) -> Result<Action, OfError> {
    match ethertype {
        0x8847 | 0x8848 => Ok(Action::PushMpls(ethertype)),
        _ => Err(BAD_ARG),
    }
}

/// Set-field, after the action's header. `may_mask`: OpenFlow 1.5 and Nicira's reg_load2.
pub(crate) fn set_field(r: &mut Reader<'_>, may_mask: bool) -> Result<Action, OfError> {
    let h = Header::read(r, OfError::OFPBAC_BAD_SET_LEN)?;
    let Some(field) = h.field() else {
        let known = oxm::field_of(h.id).is_some();
        return Err(if known { OfError::OFPBAC_BAD_SET_LEN } else { OfError::OFPBAC_BAD_SET_TYPE });
    };
    h.check_wildcards(r.peek())?;
    let n = usize::from(field.n_bytes());
    let value = r.uint(n)?;
    let mask = if h.has_mask { r.uint(n)? } else { field.all_ones() };
    if r.left() >= 8 {
        return Err(BAD_LEN);
    }
    let left = r.left();
    r.zeros(left, OfError::OFPBAC_BAD_SET_ARGUMENT)?;
    let mask = mask & field.all_ones();
    if h.has_mask && (!may_mask || mask == 0) {
        return Err(OfError::OFPBAC_BAD_SET_MASK);
    }
    // OpenFlow forbids writing its ingress port with set-field.
    let read_only = !field.writable() || field == Field::InPortOxm;
    // Setting a VLAN ID without the bit that says that there is one makes no sense.
    if field == Field::VlanVid && mask & 0x1000 != 0 && value & 0x1000 == 0 {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    if read_only || !oxm::value_ok(field, value) {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    Ok(Action::SetField { field, value: value & mask, mask, flow_has_vlan: false })
}

fn copy_field(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let (n, src_ofs, dst_ofs) = (r.u16()?, r.u16()?, r.u16()?);
    r.skip(2)?;
    reg_move(r, n, src_ofs, dst_ofs)
}

/// The two headers of a copy, and padding.
pub(crate) fn reg_move(r: &mut Reader<'_>, n: u16, src_ofs: u16, dst_ofs: u16) -> Result<Action, OfError> {
    let src = oxm::subfield(oxm::read_field(r, OfError::OFPBMC_BAD_FIELD)?, src_ofs, n)?;
    let dst = oxm::subfield(oxm::read_field(r, OfError::OFPBMC_BAD_FIELD)?, dst_ofs, n)?;
    if !dst.field.writable() {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    padding(r, OfError::NXBRC_MUST_BE_ZERO)?;
    Ok(Action::Move { src, dst })
}

/// What is left must be fewer than 8 zero bytes.
pub(crate) fn padding(r: &mut Reader<'_>, error: OfError) -> Result<(), OfError> {
    let left = r.left();
    if left != round8(left) && left >= 8 {
        return Err(BAD_LEN);
    }
    r.zeros(left, error)
}

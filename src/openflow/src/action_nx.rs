//! Reading Nicira's extension actions.
//!
//! Neighbours: `action_decode`. Threads: none.

use crate::action_decode::{padding, push_mpls, reg_move, set_field};
use crate::oxm;
use crate::wire::{round8, Reader};
use crate::{Action, OfError};
use flow::OfPort;

const BAD_LEN: OfError = OfError::OFPBAC_BAD_LEN;
const BAD_ARG: OfError = OfError::OFPBAC_BAD_ARGUMENT;
const NOT_ZERO: OfError = OfError::NXBRC_MUST_BE_ZERO;

/// Subtypes that have a fixed length, with the bytes after the subtype.
fn fixed_len(subtype: u16) -> Option<usize> {
    Some(match subtype {
        1 | 2 | 4 | 5 | 14 | 17 | 18 | 20 | 23..=26 | 30 | 31 | 39 | 40 | 44 => 6,
        7 | 9 | 15 | 27 | 28 => 14,
        10 | 22 => 22,
        _ => return None,
    })
}

/// The action of `subtype`; `r` stands behind the subtype.
pub(crate) fn get(subtype: u16, r: &mut Reader<'_>) -> Result<Action, OfError> {
    if fixed_len(subtype).is_some_and(|n| n != r.left()) {
        return Err(BAD_LEN);
    }
    Ok(match subtype {
        1 => Action::Resubmit { in_port: OfPort(r.u16()?), table: 255, with_ct: false },
        2 => {
            r.skip(2)?;
            Action::SetTunnel(r.u32()?.into())
        }
        4 => {
            r.skip(2)?;
            Action::SetQueue(r.u32()?)
        }
        5 => Action::PopQueue,
        6 => {
            let (n, src_ofs, dst_ofs) = (r.u16()?, r.u16()?, r.u16()?);
            reg_move(r, n, src_ofs, dst_ofs)?
        }
        7 => reg_load(r)?,
        8 => Action::Note(r.rest().into()),
        9 => {
            r.skip(6)?;
            Action::SetTunnel(r.u64()?)
        }
        10 => multipath(r)?,
        14 | 44 => {
            let (in_port, table) = (OfPort(r.u16()?), r.u8()?);
            r.zeros(3, BAD_ARG)?;
            Action::Resubmit { in_port, table, with_ct: subtype == 44 }
        }
        15 => {
            let packed = r.u16()?;
            let src = oxm::ofs_nbits(oxm::read_field(r, OfError::OFPBAC_BAD_SET_TYPE)?, packed)?;
            let max_len = r.u16()?;
            r.zeros(6, BAD_ARG)?;
            Action::OutputReg { src, max_len }
        }
        32 => output_reg2(r)?,
        17 => Action::Exit,
        18 => Action::DecTtl(Box::default()),
        20 => controller(r)?,
        21 => dec_ttl_ids(r)?,
        22 => {
            r.zeros(6, NOT_ZERO)?;
            let (value, mask) = (r.u64()?, r.u64()?);
            Action::WriteMetadata { value: value & mask, mask }
        }
        23 => push_mpls(r.u16()?)?,
        24 => Action::PopMpls(r.u16()?),
        25 => Action::SetMplsTtl(r.u8()?),
        26 => Action::DecMplsTtl,
        27 | 28 => stack(r, subtype == 27)?,
        30 => {
            r.skip(2)?;
            Action::SetMplsLabel(r.u32()? & 0xf_ffff)
        }
        31 => Action::SetMplsTc(r.u8()? & 7),
        33 => {
            r.zeros(6, NOT_ZERO)?;
            set_field(r, true)?
        }
        37 => controller2(r)?,
        39 => {
            let (port, max_len) = (OfPort(r.u16()?), r.u32()?);
            // Less than an Ethernet header makes no packet.
            if max_len < 14 {
                return Err(BAD_ARG);
            }
            Action::OutputTrunc { port, max_len }
        }
        40 => {
            r.skip(2)?;
            Action::Group(r.u32()?)
        }
        _ => return Err(OfError::OFPBAC_BAD_VENDOR_TYPE),
    })
}

fn reg_load(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let packed = r.u16()?;
    let dst = oxm::ofs_nbits(oxm::read_field(r, OfError::OFPBAC_BAD_SET_TYPE)?, packed)?;
    let value = u128::from(r.u64()?);
    if !dst.field.writable() {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    if value >> dst.n_bits != 0 {
        return Err(BAD_ARG);
    }
    Ok(Action::Load { dst, value })
}

fn multipath(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let (fields, basis) = (r.u16()?, r.u16()?);
    r.skip(2)?;
    let (algorithm, max_link, arg) = (r.u16()?, r.u16()?, r.u32()?);
    r.skip(2)?;
    let packed = r.u16()?;
    let dst = oxm::ofs_nbits(oxm::read_field(r, OfError::OFPBAC_BAD_SET_TYPE)?, packed)?;
    if fields > 6 || algorithm > 3 {
        return Err(BAD_ARG);
    }
    let n_links = u32::from(max_link) + 1;
    if dst.n_bits < 16 && n_links > 1 << dst.n_bits {
        return Err(BAD_ARG);
    }
    if !dst.field.writable() {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    Ok(Action::Multipath { fields, basis, algorithm, max_link, arg, dst })
}

fn output_reg2(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let (packed, max_len) = (r.u16()?, r.u16()?);
    let src = oxm::ofs_nbits(oxm::read_field(r, OfError::OFPBAC_BAD_SET_TYPE)?, packed)?;
    padding(r, NOT_ZERO)?;
    Ok(Action::OutputReg { src, max_len })
}

fn stack(r: &mut Reader<'_>, push: bool) -> Result<Action, OfError> {
    let ofs = r.u16()?;
    let field = oxm::read_field(r, OfError::OFPBMC_BAD_FIELD)?;
    let n = r.u16()?;
    padding(r, NOT_ZERO)?;
    let sf = oxm::subfield(field, ofs, n)?;
    if !push && !sf.field.writable() {
        return Err(OfError::OFPBAC_BAD_SET_ARGUMENT);
    }
    Ok(if push { Action::StackPush(sf) } else { Action::StackPop(sf) })
}

fn dec_ttl_ids(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let n = usize::from(r.u16()?);
    r.zeros(4, NOT_ZERO)?;
    let len = r.left();
    if len < 2 * n {
        return Err(BAD_LEN);
    }
    let ids = (0..n).map(|_| r.u16()).collect::<Result<Box<[u16]>, _>>()?;
    Ok(Action::DecTtl(ids))
}

fn controller(r: &mut Reader<'_>) -> Result<Action, OfError> {
    let (max_len, controller_id, reason) = (r.u16()?, r.u16()?, r.u8()?);
    Ok(Action::Controller {
        max_len,
        controller_id,
        reason,
        pause: false,
        userdata: Box::default(),
        meter_id: None,
    })
}

fn controller2(r: &mut Reader<'_>) -> Result<Action, OfError> {
    r.zeros(6, NOT_ZERO)?;
    let (mut max_len, mut controller_id, mut reason, mut pause) = (u16::MAX, 0, 1, false);
    let (mut userdata, mut meter_id) = (Box::default(), None);
    while r.left() > 0 {
        let (kind, len) = (r.u16()?, usize::from(r.u16()?));
        let n = len.checked_sub(4).ok_or(OfError::OFPBPC_BAD_LEN)?;
        if r.left() < round8(len) - 4 {
            return Err(OfError::OFPBPC_BAD_LEN);
        }
        let mut p = Reader::new(r.take(n)?, OfError::OFPBPC_BAD_LEN);
        r.skip(round8(len) - len)?;
        match kind {
            0 => max_len = p.u16()?,
            1 => controller_id = p.u16()?,
            2 => reason = p.u8()?,
            3 => userdata = p.rest().into(),
            4 => pause = true,
            5 => meter_id = Some(p.u32()?),
            _ => return Err(OfError::OFPBPC_BAD_TYPE),
        }
    }
    Ok(Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id })
}

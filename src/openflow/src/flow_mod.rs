//! Reading flow-mods and packet-outs of every version.
//!
//! Neighbours: `decode` dispatches here. Threads: none.

use crate::wire::Reader;
use crate::{
    action_check, action_decode, instruction, match_of10, match_oxm, FlowFlags, FlowMod, FlowModCommand,
    OfError, PacketOut, Session, Version, GROUP_ANY, NO_BUFFER, TABLE_ALL,
};
use flow::{Field, Match, OfPort};

const BAD_LEN: OfError = OfError::OFPBRC_BAD_LEN;
const BAD_FLAGS: OfError = OfError::OFPFMFC_BAD_FLAGS;

fn command(c: u8) -> Result<FlowModCommand, OfError> {
    Ok(match c {
        0 => FlowModCommand::Add,
        1 => FlowModCommand::Modify,
        2 => FlowModCommand::ModifyStrict,
        3 => FlowModCommand::Delete,
        4 => FlowModCommand::DeleteStrict,
        _ => return Err(OfError::OFPFMFC_BAD_COMMAND),
    })
}

/// Command and table of OpenFlow 1.0: with the table-id extension the high byte is the table.
fn command10(raw: u16, s: &Session) -> Result<(FlowModCommand, u8), OfError> {
    if s.flow_mod_table_id {
        return Ok((command(raw as u8)?, (raw >> 8) as u8));
    }
    let c = u8::try_from(raw).map_err(|_| OfError::OFPFMFC_BAD_COMMAND)?;
    Ok((command(c)?, TABLE_ALL))
}

fn flags10(raw: u16, cmd: FlowModCommand) -> Result<FlowFlags, OfError> {
    if raw & !7 != 0 {
        return Err(BAD_FLAGS);
    }
    if raw & 4 != 0 {
        // Emergency flows live in a table of their own, and that has no room.
        return Err(OfError::OFPFMFC_TABLE_FULL);
    }
    Ok(FlowFlags(raw | implied(cmd)))
}

/// Before OpenFlow 1.2 an addition always resets counters.
fn implied(cmd: FlowModCommand) -> u16 {
    match cmd {
        FlowModCommand::Add => FlowFlags::RESET_COUNTS,
        _ => 0,
    }
}

fn flags11(raw: u16, version: Version, cmd: FlowModCommand) -> Result<FlowFlags, OfError> {
    let known = match version {
        Version::V10 | Version::V11 => 3,
        Version::V12 => 7,
        _ => 31,
    };
    if raw & !known != 0 {
        return Err(BAD_FLAGS);
    }
    let extra = if version <= Version::V11 { implied(cmd) } else { 0 };
    Ok(FlowFlags(raw | extra))
}

/// The variable part behind the first `fixed` bytes comes in units of 8 bytes.
fn length(r: &Reader<'_>, fixed: usize) -> Result<(), OfError> {
    match r.left().checked_sub(fixed) {
        Some(n) if n % 8 == 0 => Ok(()),
        _ => Err(BAD_LEN),
    }
}

/// OFPT_FLOW_MOD.
pub(crate) fn flow_mod(r: &mut Reader<'_>, s: &Session) -> Result<FlowMod, OfError> {
    length(r, if s.version == Version::V10 { 64 } else { 40 })?;
    let mut fm = if s.version == Version::V10 { flow_mod10(r, s)? } else { flow_mod11(r, s)? };
    finish(&mut fm, s)?;
    Ok(fm)
}

/// The checks that every flow-mod passes.
fn finish(fm: &mut FlowMod, s: &Session) -> Result<(), OfError> {
    action_check::check_actions(&mut fm.actions, &fm.match_, fm.table_id, s)
}

fn flow_mod10(r: &mut Reader<'_>, s: &Session) -> Result<FlowMod, OfError> {
    // A match without wildcards has the highest priority there is.
    let exact = match_of10::is_exact10(r.peek());
    let match_ = match_of10::get10(r)?;
    let new_cookie = r.u64()?;
    let (cmd, table_id) = command10(r.u16()?, s)?;
    let (idle_timeout, hard_timeout, priority) = (r.u16()?, r.u16()?, r.u16()?);
    let (buffer_id, out_port, raw_flags) = (r.u32()?, r.u16()?, r.u16()?);
    let actions = action_decode::list(r.rest(), s.version)?;
    let flags = flags10(raw_flags, cmd)?;
    Ok(FlowMod {
        command: cmd,
        table_id,
        match_,
        priority: if exact { u16::MAX } else { priority },
        cookie: 0,
        cookie_mask: 0,
        new_cookie,
        modify_cookie: new_cookie != u64::MAX,
        idle_timeout,
        hard_timeout,
        flags,
        buffer_id,
        out_port: OfPort(out_port),
        out_group: GROUP_ANY,
        importance: 0,
        actions: actions.into(),
    })
}

/// NXT_FLOW_MOD.
pub(crate) fn nx_flow_mod(r: &mut Reader<'_>, s: &Session) -> Result<FlowMod, OfError> {
    length(r, 32)?;
    let new_cookie = r.u64()?;
    let (cmd, table_id) = command10(r.u16()?, s)?;
    let (idle_timeout, hard_timeout, priority) = (r.u16()?, r.u16()?, r.u16()?);
    let (buffer_id, out_port, raw_flags) = (r.u32()?, r.u16()?, r.u16()?);
    let match_len = usize::from(r.u16()?);
    r.skip(6)?;
    let f = nxm_match(r, match_len)?;
    if cmd == FlowModCommand::Add && f.cookie_mask != 0 {
        return Err(OfError::NXBRC_NXM_INVALID);
    }
    let actions = action_decode::list(r.rest(), s.version)?;
    let flags = flags10(raw_flags, cmd)?;
    let mut fm = FlowMod {
        command: cmd,
        table_id,
        match_: f.match_,
        priority,
        cookie: f.cookie,
        cookie_mask: f.cookie_mask,
        new_cookie,
        modify_cookie: new_cookie != u64::MAX,
        idle_timeout,
        hard_timeout,
        flags,
        buffer_id,
        out_port: OfPort(out_port),
        out_group: GROUP_ANY,
        importance: 0,
        actions: actions.into(),
    };
    finish(&mut fm, s)?;
    Ok(fm)
}

/// A Nicira match of `len` bytes and its padding.
pub(crate) fn nxm_match(r: &mut Reader<'_>, len: usize) -> Result<match_oxm::Fields, OfError> {
    if r.left() < len.next_multiple_of(8) {
        return Err(OfError::OFPBMC_BAD_LEN);
    }
    let bytes = r.take(len)?;
    r.skip(len.next_multiple_of(8) - len)?;
    match_oxm::get(bytes, true, true)
}

/// The match of OpenFlow 1.1 and later.
pub(crate) fn pull_match(r: &mut Reader<'_>, version: Version) -> Result<Match, OfError> {
    match version {
        Version::V10 => match_of10::get10(r),
        _ => match_of10::pull11(r),
    }
}

fn flow_mod11(r: &mut Reader<'_>, s: &Session) -> Result<FlowMod, OfError> {
    let (cookie, cookie_mask) = (r.u64()?, r.u64()?);
    let (table_id, raw_command) = (r.u8()?, r.u8()?);
    let (idle_timeout, hard_timeout, priority) = (r.u16()?, r.u16()?, r.u16()?);
    let (buffer_id, out_port, out_group) = (r.u32()?, r.u32()?, r.u32()?);
    let (raw_flags, importance) = (r.u16()?, r.u16()?);
    let match_ = pull_match(r, s.version)?;
    // Only deletions (commands 3 and 4) can mean all tables.
    if table_id == TABLE_ALL && !matches!(raw_command, 3 | 4) {
        return Err(OfError::OFPFMFC_BAD_TABLE_ID);
    }
    let out_port = OfPort::from_of11(out_port).ok_or(OfError::OFPBAC_BAD_OUT_PORT)?;
    let cmd = command(raw_command)?;
    let deletes = matches!(cmd, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
    let actions = instruction::list(r.rest(), s.version)?;
    let flags = flags11(raw_flags, s.version, cmd)?;
    let add = cmd == FlowModCommand::Add;
    // OpenFlow 1.1: a modify that names no cookie may add, and so sets one.
    let sets = add || s.version == Version::V11 && cookie_mask == 0 && !deletes;
    Ok(FlowMod {
        command: cmd,
        table_id,
        match_,
        priority,
        cookie: if sets { 0 } else { cookie },
        cookie_mask: if sets { 0 } else { cookie_mask },
        new_cookie: if sets { cookie } else { u64::MAX },
        modify_cookie: sets && !add,
        idle_timeout,
        hard_timeout,
        flags,
        buffer_id,
        out_port: if deletes { out_port } else { OfPort::NONE },
        out_group: if deletes { out_group } else { GROUP_ANY },
        importance: if s.version >= Version::V14 { importance } else { 0 },
        actions: actions.into(),
    })
}

/// OFPT_PACKET_OUT. The actions are checked against the packet later, by [`crate::check_actions`].
pub(crate) fn packet_out(r: &mut Reader<'_>, s: &Session) -> Result<PacketOut, OfError> {
    let buffer_id = r.u32()?;
    let mut metadata = Box::new(Match::any());
    let (in_port, len) = match s.version {
        Version::V10 => (OfPort(r.u16()?), r.u16()?),
        Version::V15 => {
            let len = r.u16()?;
            r.skip(2)?;
            *metadata = match_oxm::pull(r, false)?;
            if metadata.mask.0.in_port == 0 {
                return Err(OfError::OFPBRC_BAD_PORT);
            }
            (OfPort(metadata.flow.in_port as u16), len)
        }
        _ => {
            let port = OfPort::from_of11(r.u32()?).ok_or(OfError::OFPBAC_BAD_OUT_PORT)?;
            let len = r.u16()?;
            r.skip(6)?;
            (port, len)
        }
    };
    let ok =
        in_port.0 < OfPort::MAX.0 || matches!(in_port, OfPort::LOCAL | OfPort::NONE | OfPort::CONTROLLER);
    if !ok {
        return Err(OfError::OFPBRC_BAD_PORT);
    }
    metadata.set(Field::InPort, in_port.0.into());
    if len % 8 != 0 {
        return Err(BAD_LEN);
    }
    let actions = action_decode::list(r.take(len.into())?, s.version)?;
    let packet = if buffer_id == NO_BUFFER { r.rest().into() } else { Box::default() };
    Ok(PacketOut { buffer_id, metadata, in_port, actions: actions.into(), packet })
}

/// What is left must be nothing.
pub(crate) fn end(r: &Reader<'_>) -> Result<(), OfError> {
    if r.left() == 0 {
        Ok(())
    } else {
        Err(BAD_LEN)
    }
}

//! From a frame to a [`Request`].
//!
//! Neighbours: `multipart_request` reads statistics requests, `flow_mod` flow-mods. Threads: none.

use crate::error::{NX_VENDOR, ONF_VENDOR};
use crate::flow_mod::{self, end};
use crate::frame::HEADER_LEN;
use crate::wire::Reader;
use crate::{
    continuation, multipart_request, AsyncUpdate, Frame, GroupModCommand, OfError, PacketInFormat,
    PortConfig, PortMod, Request, Role, RoleMsg, Session, SwitchConfig, TableMod, Version, VersionSet,
};
use flow::OfPort;

const BAD_LEN: OfError = OfError::OFPBRC_BAD_LEN;
const BAD_TYPE: OfError = OfError::OFPBRC_BAD_TYPE;

/// The versions that a hello offers: its version bitmap, or all up to its version byte.
pub fn decode_hello(frame: &Frame) -> VersionSet {
    let mut r = Reader::new(&frame.data[HEADER_LEN.min(frame.data.len())..], BAD_LEN);
    let mut set = None;
    while let (Ok(kind), Ok(len)) = (r.u16(), r.u16()) {
        let Some(n) = usize::from(len).checked_sub(4) else { break };
        let Ok(body) = r.take(n) else { break };
        if kind == 1 && n >= 4 {
            let bits = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
            set = Some(VersionSet::from_bits(bits));
        }
        let pad = usize::from(len).next_multiple_of(8) - usize::from(len);
        if r.skip(pad).is_err() {
            break;
        }
    }
    set.filter(|s| !s.is_empty()).unwrap_or(VersionSet::up_to(frame.header.version))
}

/// Decodes a message of a connection that has settled its version.
pub fn decode(frame: &Frame, s: &Session) -> Result<Request, OfError> {
    if frame.header.version != s.version.wire() && frame.header.kind != 0 {
        return Err(OfError::OFPBRC_BAD_VERSION);
    }
    let body = frame.data.get(HEADER_LEN..).ok_or(BAD_LEN)?;
    let mut r = Reader::new(body, BAD_LEN);
    let r = &mut r;
    match frame.header.kind {
        0 => Ok(Request::Hello(decode_hello(frame))),
        1 => Ok(Request::Error { kind: r.u16()?, code: r.u16()? }),
        2 => Ok(Request::EchoRequest(body.into())),
        3 => Ok(Request::EchoReply),
        4 => vendor(r, s),
        5 => empty(r, Request::FeaturesRequest),
        7 => empty(r, Request::GetConfig),
        9 => set_config(r, s),
        13 => Ok(Request::PacketOut(flow_mod::packet_out(r, s)?)),
        14 => Ok(Request::FlowMod(Box::new(flow_mod::flow_mod(r, s)?))),
        kind if s.version == Version::V10 => decode10(kind, r, s),
        kind => decode11(kind, r, s),
    }
}

fn empty(r: &Reader<'_>, req: Request) -> Result<Request, OfError> {
    end(r).map(|()| req)
}

fn decode10(kind: u8, r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    match kind {
        15 => {
            let port_no = OfPort(r.u16()?);
            let hw_addr = r.array()?;
            let (config, mask) = configs(r)?;
            let advertise = crate::port::features_from10(r.u32()?);
            r.skip(4)?;
            end(r)?;
            Ok(Request::PortMod(PortMod { port_no, hw_addr, config, mask, advertise }))
        }
        16 => multipart_request::decode(r, s),
        18 => empty(r, Request::Barrier),
        20 => {
            let port = OfPort(r.u16()?);
            r.skip(2)?;
            end(r)?;
            Ok(Request::QueueGetConfig { port, queue: crate::QUEUE_ALL })
        }
        _ => Err(BAD_TYPE),
    }
}

fn decode11(kind: u8, r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    let v = s.version;
    match kind {
        15 => group_mod(r),
        16 => port_mod11(r, v),
        17 => table_mod(r, v),
        18 => multipart_request::decode(r, s),
        20 => empty(r, Request::Barrier),
        22 if v < Version::V14 => {
            let port = port(r.u32()?)?;
            r.skip(4)?;
            end(r)?;
            Ok(Request::QueueGetConfig { port, queue: crate::QUEUE_ALL })
        }
        24 if v >= Version::V12 => role(r),
        26 if v >= Version::V13 => empty(r, Request::GetAsync),
        28 if v >= Version::V14 => async_props(r),
        28 if v >= Version::V13 => async_fixed(r),
        29 if v >= Version::V13 => {
            let (command, _flags) = (r.u16()?, r.u16()?);
            Ok(Request::MeterMod { command, meter_id: r.u32()? })
        }
        _ => Err(BAD_TYPE),
    }
}

fn port(v: u32) -> Result<OfPort, OfError> {
    OfPort::from_of11(v).ok_or(OfError::OFPBAC_BAD_OUT_PORT)
}

fn set_config(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    let (flags, miss_send_len) = (r.u16()?, r.u16()?);
    end(r)?;
    // The bit is of OpenFlow 1.1 and 1.2; Open vSwitch takes it in 1.0 too.
    let ttl = s.version <= Version::V12 && flags & 4 != 0;
    let frag = flags & 3;
    if flags & !7 != 0 || flags & 4 != 0 && !ttl {
        return Err(OfError::OFPSCFC_BAD_FLAGS);
    }
    Ok(Request::SetConfig(SwitchConfig { frag, invalid_ttl_to_controller: ttl, miss_send_len }))
}

/// Configuration and mask of a port-mod.
fn configs(r: &mut Reader<'_>) -> Result<(PortConfig, PortConfig), OfError> {
    let (config, mask) = (r.u32()?, r.u32()?);
    Ok((PortConfig(config & 0x7f), PortConfig(mask & 0x7f)))
}

fn port_mod11(r: &mut Reader<'_>, v: Version) -> Result<Request, OfError> {
    let port_no = port(r.u32()?)?;
    r.skip(4)?;
    let hw_addr = r.array()?;
    r.skip(2)?;
    let (config, mask) = configs(r)?;
    let mut advertise = 0;
    if v < Version::V14 {
        advertise = r.u32()?;
        r.skip(4)?;
        end(r)?;
    } else {
        properties(r, |kind, p| match kind {
            0 => {
                advertise = p.u32()?;
                Ok(())
            }
            _ => Err(OfError::OFPBPC_BAD_TYPE),
        })?;
    }
    Ok(Request::PortMod(PortMod { port_no, hw_addr, config, mask, advertise }))
}

/// Calls `f` with type and content of each property of OpenFlow 1.4.
pub(crate) fn properties(
    r: &mut Reader<'_>,
    mut f: impl FnMut(u16, &mut Reader<'_>) -> Result<(), OfError>,
) -> Result<(), OfError> {
    if !r.left().is_multiple_of(8) {
        return Err(BAD_LEN);
    }
    while r.left() > 0 {
        let short = OfError::OFPBPC_BAD_LEN;
        let (kind, len) = (r.u16()?, usize::from(r.u16()?));
        let n = len.checked_sub(4).ok_or(short)?;
        let pad = len.next_multiple_of(8) - len;
        if r.left() < n + pad {
            return Err(short);
        }
        f(kind, &mut Reader::new(r.take(n)?, short))?;
        r.skip(pad)?;
    }
    Ok(())
}

fn table_mod(r: &mut Reader<'_>, v: Version) -> Result<Request, OfError> {
    let table_id = r.u8()?;
    r.skip(3)?;
    let config = r.u32()?;
    let mut t = TableMod { table_id, miss: None, eviction: None, vacancy: None };
    if v < Version::V13 {
        t.miss = Some((config & 3) as u8);
        if config & 3 == 3 {
            return Err(OfError::OFPTMFC_BAD_CONFIG);
        }
    }
    if v >= Version::V14 {
        t.eviction = Some(config & 4 != 0);
        properties(r, |kind, p| match kind {
            2 => p.u32().map(drop),
            3 => {
                let (down, up) = (p.u8()?, p.u8()?);
                if down > up || up > 100 {
                    return Err(OfError::OFPBPC_BAD_VALUE);
                }
                t.vacancy = (config & 8 != 0).then_some((down, up));
                Ok(())
            }
            _ => Err(OfError::OFPBPC_BAD_TYPE),
        })?;
    } else {
        end(r)?;
    }
    Ok(Request::TableMod(t))
}

fn group_mod(r: &mut Reader<'_>) -> Result<Request, OfError> {
    let command = match r.u16()? {
        0 => GroupModCommand::Add,
        1 => GroupModCommand::Modify,
        2 => GroupModCommand::Delete,
        0x8000 => GroupModCommand::AddOrMod,
        3 => GroupModCommand::InsertBucket,
        5 => GroupModCommand::RemoveBucket,
        _ => return Err(OfError::OFPGMFC_BAD_COMMAND),
    };
    r.skip(2)?;
    Ok(Request::GroupMod { command, group_id: r.u32()? })
}

fn role(r: &mut Reader<'_>) -> Result<Request, OfError> {
    let raw = r.u32()?;
    r.skip(4)?;
    let generation = r.u64()?;
    end(r)?;
    let role = match raw {
        0 => Role::NoChange,
        1 => Role::Equal,
        2 => Role::Master,
        3 => Role::Slave,
        _ => return Err(OfError::OFPRRFC_BAD_ROLE),
    };
    let has = matches!(role, Role::Master | Role::Slave);
    Ok(Request::Role(RoleMsg { role, generation_id: has.then_some(generation), nicira: false }))
}

fn async_fixed(r: &mut Reader<'_>) -> Result<Request, OfError> {
    let mut pair = || Ok([Some(r.u32()?), Some(r.u32()?)]);
    let u = AsyncUpdate {
        packet_in: pair()?,
        port_status: pair()?,
        flow_removed: pair()?,
        ..AsyncUpdate::default()
    };
    end(r)?;
    Ok(Request::SetAsync(u))
}

fn async_props(r: &mut Reader<'_>) -> Result<Request, OfError> {
    let mut u = AsyncUpdate::default();
    properties(r, |kind, p| {
        // Even types are for slaves.
        let who = usize::from(kind % 2 == 0);
        let slot = match kind / 2 {
            0 => &mut u.packet_in,
            1 => &mut u.port_status,
            2 => &mut u.flow_removed,
            3 => &mut u.role_status,
            4 => &mut u.table_status,
            5 => &mut u.requestforward,
            _ => return Err(OfError::OFPBPC_BAD_TYPE),
        };
        slot[who] = Some(p.u32()?);
        end(p).map_err(|_| OfError::OFPBPC_BAD_LEN)
    })?;
    Ok(Request::SetAsync(u))
}

fn vendor(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    if r.left() < 8 {
        return Err(BAD_LEN);
    }
    match r.u32()? {
        NX_VENDOR => nicira(r, s),
        ONF_VENDOR => Err(OfError::OFPBRC_BAD_SUBTYPE),
        _ => Err(OfError::OFPBRC_BAD_VENDOR),
    }
}

fn nicira(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    match r.u32()? {
        10 => {
            let role = match r.u32()? {
                0 => Role::Equal,
                1 => Role::Master,
                2 => Role::Slave,
                _ => return Err(OfError::OFPRRFC_BAD_ROLE),
            };
            empty(r, Request::Role(RoleMsg { role, generation_id: None, nicira: true }))
        }
        12 if s.version == Version::V10 => match r.u32()? {
            0 => empty(r, Request::SetFlowFormat { nxm: false }),
            2 => empty(r, Request::SetFlowFormat { nxm: true }),
            _ => Err(OfError::OFPBRC_EPERM),
        },
        13 if s.version == Version::V10 => Ok(Request::FlowMod(Box::new(flow_mod::nx_flow_mod(r, s)?))),
        15 => {
            let on = r.u8()? != 0;
            r.skip(7)?;
            empty(r, Request::FlowModTableId(on))
        }
        16 => {
            let format = match r.u32()? {
                0 => PacketInFormat::Standard,
                1 => PacketInFormat::Nxt,
                2 => PacketInFormat::Nxt2,
                _ => return Err(OfError::OFPBRC_EPERM),
            };
            empty(r, Request::SetPacketInFormat(format))
        }
        // Ages are always sent.
        18 => Ok(Request::EchoReply),
        19 => async_fixed(r),
        27 if s.version < Version::V14 => async_props(r),
        20 => {
            r.zeros(6, OfError::NXBRC_MUST_BE_ZERO)?;
            let id = r.u16()?;
            empty(r, Request::SetControllerId(id))
        }
        28 => Ok(Request::Resume(Box::new(continuation::resume(r, s.version)?))),
        // Known, but sent by switches only.
        11 | 14 | 17 | 30 => Err(BAD_TYPE),
        _ => Err(OfError::OFPBRC_BAD_SUBTYPE),
    }
}

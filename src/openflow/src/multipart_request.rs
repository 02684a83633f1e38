//! Statistics (multipart) requests.
//!
//! Neighbours: `decode`. Threads: none.

use crate::error::NX_VENDOR;
use crate::flow_mod::{self, end};
use crate::wire::Reader;
use crate::{match_of10, FlowStatsRequest, OfError, Request, Session, Version, GROUP_ANY};
use flow::OfPort;

const BAD_STAT: OfError = OfError::OFPBRC_BAD_STAT;

/// The first version that has each type from 6 on.
fn since(kind: u16) -> Option<Version> {
    Some(match kind {
        0..=5 | 13 => Version::V10,
        6 | 7 => Version::V11,
        8 => Version::V12,
        9..=12 => Version::V13,
        14 | 15 => Version::V14,
        _ => return None,
    })
}

/// The body of a statistics request.
pub(crate) fn decode(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    let (kind, _flags) = (r.u16()?, r.u16()?);
    if s.version >= Version::V11 {
        r.skip(4)?;
    }
    if kind == 0xffff {
        return vendor(r, s);
    }
    if since(kind).is_none_or(|v| s.version < v) {
        return Err(BAD_STAT);
    }
    let request = match kind {
        0 => Request::Desc,
        1 => Request::Flow(Box::new(flow_request(r, s)?)),
        2 => Request::Aggregate(Box::new(flow_request(r, s)?)),
        3 => Request::Table,
        4 => {
            let port = port(r, s)?;
            r.skip(if s.version == Version::V10 { 6 } else { 4 })?;
            Request::PortStats(port)
        }
        5 => queue_stats(r, s)?,
        6 => Request::GroupStats(id_and_pad(r)?),
        7 if s.version >= Version::V15 => Request::GroupDesc(id_and_pad(r)?),
        7 => Request::GroupDesc(crate::GROUP_ALL),
        8 => Request::GroupFeatures,
        9 => Request::MeterStats(id_and_pad(r)?),
        10 => Request::MeterConfig(id_and_pad(r)?),
        11 => Request::MeterFeatures,
        12 if r.left() > 0 => return Err(OfError::OFPTFFC_EPERM),
        12 => Request::TableFeatures,
        13 if s.version >= Version::V15 => {
            let port = port(r, s)?;
            r.skip(4)?;
            Request::PortDesc(port)
        }
        13 => Request::PortDesc(OfPort::NONE),
        14 => Request::TableDesc,
        15 => Request::QueueGetConfig { port: port(r, s)?, queue: r.u32()? },
        _ => return Err(BAD_STAT),
    };
    end(r).map(|()| request)
}

fn port(r: &mut Reader<'_>, s: &Session) -> Result<OfPort, OfError> {
    match s.version {
        Version::V10 => Ok(OfPort(r.u16()?)),
        _ => OfPort::from_of11(r.u32()?).ok_or(OfError::OFPBAC_BAD_OUT_PORT),
    }
}

fn queue_stats(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    let mut port = port(r, s)?;
    if s.version == Version::V10 {
        r.skip(2)?;
        if port == OfPort::ALL {
            port = OfPort::NONE;
        }
    }
    Ok(Request::QueueStats { port, queue: r.u32()? })
}

fn id_and_pad(r: &mut Reader<'_>) -> Result<u32, OfError> {
    let id = r.u32()?;
    r.skip(4)?;
    Ok(id)
}

fn flow_request(r: &mut Reader<'_>, s: &Session) -> Result<FlowStatsRequest, OfError> {
    if s.version == Version::V10 {
        let match_ = match_of10::get10(r)?;
        let table_id = r.u8()?;
        r.skip(1)?;
        return Ok(FlowStatsRequest {
            match_,
            table_id,
            out_port: OfPort(r.u16()?),
            out_group: GROUP_ANY,
            cookie: 0,
            cookie_mask: 0,
            nicira: false,
        });
    }
    let table_id = r.u8()?;
    r.skip(3)?;
    let out_port = OfPort::from_of11(r.u32()?).ok_or(OfError::OFPBAC_BAD_OUT_PORT)?;
    let out_group = r.u32()?;
    r.skip(4)?;
    let (cookie, cookie_mask) = (r.u64()?, r.u64()?);
    let match_ = flow_mod::pull_match(r, s.version)?;
    // Padding may follow.
    r.rest();
    Ok(FlowStatsRequest { match_, table_id, out_port, out_group, cookie, cookie_mask, nicira: false })
}

fn vendor(r: &mut Reader<'_>, s: &Session) -> Result<Request, OfError> {
    if r.u32()? != NX_VENDOR {
        return Err(OfError::OFPBRC_BAD_VENDOR);
    }
    let subtype = r.u32()?;
    if s.version != Version::V10 || subtype > 1 {
        return Err(OfError::OFPBRC_BAD_SUBTYPE);
    }
    r.skip(4)?;
    let (out_port, match_len) = (OfPort(r.u16()?), usize::from(r.u16()?));
    let table_id = r.u8()?;
    r.skip(3)?;
    let f = flow_mod::nxm_match(r, match_len)?;
    end(r)?;
    let request = Box::new(FlowStatsRequest {
        match_: f.match_,
        table_id,
        out_port,
        out_group: GROUP_ANY,
        cookie: f.cookie,
        cookie_mask: f.cookie_mask,
        nicira: true,
    });
    Ok(if subtype == 0 { Request::Flow(request) } else { Request::Aggregate(request) })
}

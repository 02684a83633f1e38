//! Instructions of OpenFlow 1.1 and later, read into and written from one action list.
//!
//! Neighbours: `flow_mod` and flow statistics. Threads: none.

use crate::action_encode::Target;
use crate::wire::{Put, Reader};
use crate::{action_decode, Action, OfError, Version};

const GOTO_TABLE: u16 = 1;
const WRITE_METADATA: u16 = 2;
const WRITE_ACTIONS: u16 = 3;
const APPLY_ACTIONS: u16 = 4;
const CLEAR_ACTIONS: u16 = 5;
const METER: u16 = 6;
const EXPERIMENTER: u16 = 0xffff;

/// Each instruction as it came: at most one of a kind.
#[derive(Default)]
struct Found<'a> {
    goto: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    write: Option<&'a [u8]>,
    apply: Option<&'a [u8]>,
    clear: Option<&'a [u8]>,
    meter: Option<&'a [u8]>,
}

/// Reads the instructions, in whatever order they come, into the order in which they run.
pub(crate) fn list(bytes: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    let f = split(bytes, version)?;
    let mut out = Vec::new();
    let fixed = |b: &[u8], n: usize| if b.len() == n { Ok(()) } else { Err(OfError::OFPBIC_BAD_LEN) };
    if let Some(b) = f.meter {
        fixed(b, 4)?;
        out.push(action_decode::meter(Reader::new(b, OfError::OFPBIC_BAD_LEN).u32()?)?);
    }
    if let Some(b) = f.apply {
        out.extend(action_list(b, version)?);
    }
    if let Some(b) = f.clear {
        fixed(b, 4)?;
        out.push(Action::ClearActions);
    }
    if let Some(b) = f.write {
        out.push(Action::WriteActions(action_list(b, version)?.into()));
    }
    if let Some(b) = f.metadata {
        fixed(b, 20)?;
        let mut r = Reader::new(&b[4..], OfError::OFPBIC_BAD_LEN);
        let (value, mask) = (r.u64()?, r.u64()?);
        out.push(Action::WriteMetadata { value, mask });
    }
    if let Some(b) = f.goto {
        fixed(b, 4)?;
        out.push(Action::GotoTable(b[0]));
    }
    Ok(out)
}

/// Actions behind the padding of an apply-actions or write-actions instruction.
fn action_list(b: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    action_decode::list(b.get(4..).ok_or(OfError::OFPBIC_BAD_LEN)?, version)
}

fn split(bytes: &[u8], version: Version) -> Result<Found<'_>, OfError> {
    let mut r = Reader::new(bytes, OfError::OFPBIC_BAD_LEN);
    let mut f = Found::default();
    while r.left() > 0 {
        let (kind, len) = (r.u16()?, usize::from(r.u16()?));
        if len < 8 || len % 8 != 0 {
            return Err(OfError::OFPBIC_BAD_LEN);
        }
        let body = r.take(len - 4)?;
        let slot = match kind {
            GOTO_TABLE => &mut f.goto,
            WRITE_METADATA => &mut f.metadata,
            WRITE_ACTIONS => &mut f.write,
            APPLY_ACTIONS => &mut f.apply,
            CLEAR_ACTIONS => &mut f.clear,
            METER if matches!(version, Version::V13 | Version::V14) => &mut f.meter,
            EXPERIMENTER => return Err(OfError::OFPBIC_BAD_EXPERIMENTER),
            _ => return Err(OfError::OFPBIC_UNKNOWN_INST),
        };
        if slot.replace(body).is_some() {
            return Err(OfError::OFPBIC_DUP_INST);
        }
    }
    Ok(f)
}

/// Appends `actions` as instructions.
pub(crate) fn put(out: &mut Vec<u8>, actions: &[Action], target: Target) {
    let is_apply = |a: &Action| match a {
        Action::Meter(_) => target.version >= Version::V15,
        Action::ClearActions
        | Action::WriteActions(_)
        | Action::WriteMetadata { .. }
        | Action::GotoTable(_) => false,
        _ => true,
    };
    let mut at = 0;
    while let Some(a) = actions.get(at) {
        if is_apply(a) {
            let n = actions[at..].iter().take_while(|a| is_apply(a)).count();
            wrap(out, APPLY_ACTIONS, &actions[at..at + n], target);
            at += n;
            continue;
        }
        at += 1;
        let mut fixed = |kind: u16, body: &[u8]| {
            out.u16(kind);
            out.u16(4 + body.len() as u16);
            out.bytes(body);
        };
        match a {
            Action::Meter(id) if target.version >= Version::V13 => fixed(METER, &id.to_be_bytes()),
            Action::ClearActions => fixed(CLEAR_ACTIONS, &[0; 4]),
            Action::WriteActions(set) => wrap(out, WRITE_ACTIONS, set, target),
            Action::WriteMetadata { value, mask } => {
                let mut b = [0; 20];
                b[4..12].copy_from_slice(&value.to_be_bytes());
                b[12..].copy_from_slice(&mask.to_be_bytes());
                fixed(WRITE_METADATA, &b);
            }
            Action::GotoTable(t) => fixed(GOTO_TABLE, &[*t, 0, 0, 0]),
            _ => {}
        }
    }
}

fn wrap(out: &mut Vec<u8>, kind: u16, actions: &[Action], target: Target) {
    let start = out.len();
    out.u16(kind);
    out.zeros(6);
    target.list(out, actions);
    out.patch_len(start + 2, start);
}

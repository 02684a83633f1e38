//! Continuations: what a packet-in of `controller(pause)` carries, so that the controller can have the packet go on
//! (Nicira's NXT_RESUME). Only the switch reads them: controllers give them back as they came.
//!
//! Neighbours: `packet_in` writes, `decode` reads. Threads: none.

use crate::action_decode;
use crate::action_encode::Target;
use crate::decode::properties;
use crate::match_oxm;
use crate::packet_in::prop;
use crate::wire::{Put, Reader};
use crate::{Action, OfError, Version};
use flow::Match;

const BRIDGE: u16 = 0x8000;
const STACK: u16 = 0x8001;
const TABLE_ID: u16 = 0x8004;
const COOKIE: u16 = 0x8005;
const ACTIONS: u16 = 0x8006;
const ACTION_SET: u16 = 0x8007;
const ODP_PORT: u16 = 0x8008;

/// Most values on the stack and most lists of actions.
const MAX_PARTS: usize = 4096;

/// What is left to do of one rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ContinuationFrame {
    /// Table of the rule.
    pub table_id: u8,
    /// Its cookie.
    pub cookie: u64,
    /// Its remaining actions.
    pub actions: Vec<Action>,
}

/// Where a packet was stopped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Continuation {
    /// The bridge, in a way that no other run of the switch shares.
    pub bridge: [u8; 16],
    /// Stack: value and bits, bottom first.
    pub stack: Vec<(u128, u16)>,
    /// What is left to do, innermost first.
    pub frames: Vec<ContinuationFrame>,
    /// Action set.
    pub action_set: Vec<Action>,
    /// Datapath port on which the packet came.
    pub odp_port: u32,
}

/// A packet that is to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resume {
    /// The packet.
    pub packet: Vec<u8>,
    /// Its pipeline fields.
    pub metadata: Match,
    /// Where it was.
    pub continuation: Continuation,
}

/// Whether it matters to an action in which table it stands.
fn knows_its_rule(a: &Action) -> bool {
    matches!(
        a,
        Action::Output { .. }
            | Action::OutputReg { .. }
            | Action::OutputTrunc { .. }
            | Action::Controller { .. }
            | Action::Group(_)
            | Action::DecTtl(_)
            | Action::DecMplsTtl
            | Action::Resubmit { table: 255, .. }
    )
}

/// The actions of all rules in a row, cut where an action comes to which another rule matters than before.
fn segments(frames: &[ContinuationFrame]) -> Vec<ContinuationFrame> {
    let mut out: Vec<ContinuationFrame> = Vec::new();
    let mut rule = None;
    for f in frames {
        for a in &f.actions {
            if knows_its_rule(a) && rule != Some((f.table_id, f.cookie)) {
                rule = Some((f.table_id, f.cookie));
                out.push(ContinuationFrame { table_id: f.table_id, cookie: f.cookie, actions: Vec::new() });
            } else if out.is_empty() {
                out.push(ContinuationFrame::default());
            }
            if let Some(s) = out.last_mut() {
                s.actions.push(a.clone());
            }
        }
    }
    out
}

/// Appends what comes after the header of the property.
pub(crate) fn put(out: &mut Vec<u8>, c: &Continuation, version: Version) {
    let target = Target { version, ip_proto: 0 };
    let list = |out: &mut Vec<u8>, kind, actions: &[Action]| {
        prop(out, kind, &|o| {
            o.zeros(4);
            target.list(o, actions);
        });
    };
    out.zeros(4);
    prop(out, BRIDGE, &|o| o.bytes(&c.bridge));
    for (value, bits) in &c.stack {
        prop(out, STACK, &|o| o.uint(*value, usize::from(*bits).div_ceil(8)));
    }
    let (mut table_id, mut cookie) = (0, 0);
    for s in segments(&c.frames) {
        if s.table_id != table_id {
            table_id = s.table_id;
            prop(out, TABLE_ID, &|o| o.u8(table_id));
        }
        if s.cookie != cookie {
            cookie = s.cookie;
            prop(out, COOKIE, &|o| {
                o.zeros(4);
                o.u64(cookie);
            });
        }
        list(out, ACTIONS, &s.actions);
    }
    if !c.action_set.is_empty() {
        list(out, ACTION_SET, &c.action_set);
    }
    prop(out, ODP_PORT, &|o| o.u32(c.odp_port));
}

fn get(r: &mut Reader<'_>, version: Version) -> Result<Continuation, OfError> {
    let mut c = Continuation::default();
    let (mut table_id, mut cookie) = (0, 0);
    r.skip(4)?;
    properties(r, |kind, p| {
        if c.stack.len() + c.frames.len() > MAX_PARTS {
            return Err(OfError::OFPBPC_TOO_MANY);
        }
        match kind {
            BRIDGE => c.bridge = p.array()?,
            STACK => {
                let n = p.left();
                if n > 16 {
                    return Err(OfError::OFPBPC_BAD_LEN);
                }
                c.stack.push((p.uint(n)?, n as u16 * 8));
            }
            TABLE_ID => table_id = p.u8()?,
            COOKIE => {
                p.skip(4)?;
                cookie = p.u64()?;
            }
            ACTIONS => {
                p.skip(4)?;
                let actions = action_decode::list(p.rest(), version)?;
                c.frames.push(ContinuationFrame { table_id, cookie, actions });
            }
            ACTION_SET => {
                p.skip(4)?;
                c.action_set = action_decode::list(p.rest(), version)?;
            }
            ODP_PORT => c.odp_port = p.u32()?,
            _ => return Err(OfError::OFPBPC_BAD_TYPE),
        }
        Ok(())
    })?;
    Ok(c)
}

/// Reads the properties of a resume message. Without a continuation it is one of no bridge.
pub(crate) fn resume(r: &mut Reader<'_>, version: Version) -> Result<Resume, OfError> {
    let mut x = Resume { packet: Vec::new(), metadata: Match::any(), continuation: Continuation::default() };
    properties(r, |kind, p| {
        match kind {
            0 => x.packet = p.rest().to_vec(),
            // Length, buffer, table, cookie, reason and user data are told to controllers only.
            1..=5 | 7 => {}
            6 => x.metadata = match_oxm::get(p.rest(), false, false)?.match_,
            8 => x.continuation = get(p, version)?,
            _ => return Err(OfError::OFPBPC_BAD_TYPE),
        }
        Ok(())
    })?;
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::OfPort;

    fn sample() -> Continuation {
        let out = |port| Action::Output { port: OfPort(port), max_len: 65535 };
        let frame = |table_id, cookie, port| ContinuationFrame { table_id, cookie, actions: vec![out(port)] };
        Continuation {
            bridge: *b"0123456789abcdef",
            stack: vec![(5, 32), (u128::MAX, 128), (1, 8)],
            frames: vec![frame(1, 0, 2), frame(1, u64::MAX, 3), frame(0, 9, 4)],
            action_set: vec![out(7)],
            odp_port: 12,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for version in [Version::V10, Version::V13, Version::V15] {
            let mut bytes = Vec::new();
            put(&mut bytes, &sample(), version);
            let got = get(&mut Reader::new(&bytes, OfError::OFPBPC_BAD_LEN), version).unwrap();
            assert_eq!(got, sample(), "{version:?}");
        }
    }

    #[test]
    fn broken_ones_are_refused() {
        let mut bytes = Vec::new();
        put(&mut bytes, &sample(), Version::V13);
        let read = |b: &[u8]| get(&mut Reader::new(b, OfError::OFPBPC_BAD_LEN), Version::V13);
        for cut in 0..bytes.len() {
            if let Ok(c) = read(&bytes[..cut]) {
                assert_ne!(c, sample());
            }
        }
        for at in 0..bytes.len() {
            for v in [0, 1, 0xff] {
                let mut b = bytes.clone();
                b[at] = v;
                let _ = read(&b);
            }
        }
        let mut wide = vec![0; 4];
        prop(&mut wide, STACK, &|o| o.zeros(17));
        assert_eq!(read(&wide), Err(OfError::OFPBPC_BAD_LEN));
        let mut many = vec![0; 4];
        (0..5000).for_each(|_| prop(&mut many, STACK, &|o| o.zeros(4)));
        assert_eq!(read(&many), Err(OfError::OFPBPC_TOO_MANY));
        let mut unknown = vec![0; 4];
        prop(&mut unknown, 0x8010, &|o| o.zeros(4));
        assert_eq!(read(&unknown), Err(OfError::OFPBPC_BAD_TYPE));
    }
}

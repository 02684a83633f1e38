//! `dpctl/parse-actions` and `dpctl/normalize-actions`: how the text of actions is understood.
//!
//! Neighbours: `flow::odp` reads and writes the text. Threads: main only.

use super::flows::key;
use super::options;
use crate::manager::Manager;
use flow::odp::{format_actions, format_key, parse_actions, ActionError, KeyError, Style};
use flow::{Be16, DpAction, DpPort, Flow, Mask};
use infra::command::Reply;
use std::collections::BTreeMap;
use std::fmt::Write;

fn bad_actions(e: &ActionError) -> String {
    format!("ovs-vswitchd: odp_actions_from_string ({})", e.reason())
}

pub(super) fn parse(_: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let mut out = String::new();
    for text in rest {
        match parse_actions(text, &|_| None) {
            Ok(actions) => format_actions(&mut out, &actions, &Style::default()),
            Err(e) => return Err(out + &bad_actions(&e)),
        }
        out.push('\n');
    }
    Ok(out)
}

/// Ones in each byte of `v` that is not zero.
fn bytes_set(v: u64) -> u64 {
    u64::from_ne_bytes(v.to_ne_bytes().map(|b| if b == 0 { 0 } else { 0xff }))
}

/// Prints the actions by the VLAN header that packets have when they run.
pub(super) fn normalize(_: &mut Manager, args: &[&str]) -> Reply {
    let (_, rest) = options(args, 0)?;
    let flow_text = rest.first().copied().unwrap_or_default();
    let mut names = BTreeMap::new();
    for text in rest.iter().skip(2) {
        let expected = || format!("ovs-vswitchd: {text}: expected NAME=NUMBER");
        let (name, number) = text.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(expected)?;
        names.insert(name, DpPort(number.parse().map_err(|_| expected())?));
    }
    let numbers = |name: &str| names.get(name).copied();
    let bad = |e: KeyError| format!("ovs-vswitchd: odp_flow_key_from_string ({e}) (Invalid argument)");
    let k = key(flow_text, &numbers).map_err(bad)?;
    let mut shown = Mask(k.flow.packet_mask().0);
    for (w, v) in shown.0.words_mut().iter_mut().zip(k.flow.words()).take(METADATA_WORDS) {
        *w = bytes_set(*v);
    }
    shown.0.in_port = u32::MAX;
    shown.0.packet_type = flow::Be32::ZERO;
    shown.0.tcp_flags = Be16::ZERO;
    if !flow_text.contains("eth") {
        shown = Mask(Flow { in_port: u32::MAX, ..Flow::default() });
    }
    let mut out = String::from("input flow: ");
    format_key(&mut out, &k.flow, Some(&shown), &Style::default());
    out.push('\n');
    let Some(actions_text) = rest.get(1) else {
        return Err("\"dpctl/normalize-actions\" command requires at least 2 arguments".into());
    };
    let actions = match parse_actions(actions_text, &numbers) {
        Ok(actions) => actions,
        Err(e) => return Err(out + &bad_actions(&e)),
    };
    let mut vlans: Vec<Be16> = k.flow.vlans.iter().rev().map(|v| v.tci).filter(|t| !t.is_zero()).collect();
    let mut groups: BTreeMap<u16, Vec<DpAction>> = BTreeMap::new();
    for a in actions {
        match a {
            DpAction::PushVlan { tci, .. } => vlans.push(tci),
            DpAction::PopVlan => {
                vlans.pop();
            }
            a => groups.entry(vlans.last().map_or(0, |t| t.get())).or_default().push(a),
        }
    }
    for (tci, actions) in groups {
        let _ = match tci {
            0 => write!(out, "no vlan: no mpls: "),
            t => write!(out, "vlan(vid={},pcp={}): no mpls: ", t & 0xfff, t >> 13),
        };
        format_actions(&mut out, &actions, &Style::default());
    }
    Ok(out)
}

/// Words of a flow before its Ethernet header.
const METADATA_WORDS: usize = std::mem::offset_of!(Flow, dl_dst) / 8;

//! Text of datapath flows as `ovs-appctl dpctl/dump-flows` prints them, and back.
//!
//! [`format_key`] writes keys with their masks, [`format_actions`] actions, [`FlowStats`] the counters between
//! them, [`Ufid`] the flow's name; [`parse_key`] and [`parse_actions`] read them. A key is printed attribute by attribute in a fixed order; an attribute all of
//! whose bits are wildcarded is left out unless everything is asked for (`-m`). Values are those of the packet
//! that made the flow, also in wildcarded bits: keep its whole flow with the megaflow.
//!
//! Neighbours: `datapath` and `ofproto` print with it. Threads: plain functions.

mod action;
mod key;
mod parse;
#[cfg(test)]
mod tests;
pub mod wire;

pub use action::{
    format_actions, SLOW_ACTION, SLOW_BFD, SLOW_CFM, SLOW_LACP, SLOW_LLDP, SLOW_MATCH, SLOW_STP,
};
pub use key::format_key;
pub use parse::{
    parse_actions, parse_key, split_ufid, ActionError, Fit, KeyError, KeyOptions, ParsedKey, PortNumbers,
};

use crate::key::Flow;
use crate::port::DpPort;
use crate::text::put;
use std::fmt::Write;
use std::mem::offset_of;

/// Names of datapath ports; `None` prints the number.
pub type PortNames<'a> = &'a dyn Fn(DpPort) -> Option<String>;

/// How to print.
#[derive(Clone, Copy, Default)]
pub struct Style<'a> {
    /// Also what is wildcarded (`-m`).
    pub verbose: bool,
    /// Port names instead of numbers (`--names`, `-m`).
    pub names: Option<PortNames<'a>>,
}

impl Style<'_> {
    fn port(&self, out: &mut String, port: DpPort) {
        match self.names.and_then(|f| f(port)) {
            Some(name) => out.push_str(&name),
            None => put!(out, "{port}"),
        }
    }
}

/// The unique identifier of a datapath flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ufid(pub u128);

impl std::fmt::Display for Ufid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let v = self.0;
        write!(
            f,
            "ufid:{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            v >> 80 & 0xffff,
            v >> 64 & 0xffff,
            v >> 48 & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl Ufid {
    /// Reads the text, with or without `ufid:`.
    pub fn parse(text: &str) -> Option<Ufid> {
        let text = text.strip_prefix("ufid:").unwrap_or(text);
        let mut v = 0u128;
        let mut parts = text.split('-');
        for n in [8, 4, 4, 4, 12] {
            let p = parts.next().filter(|p| p.len() == n && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            v = v << (4 * n) | u128::from_str_radix(p, 16).ok()?;
        }
        parts.next().is_none().then_some(Ufid(v))
    }
}

/// Counters of a datapath flow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowStats {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds since the last packet, when there was one.
    pub used_ms_ago: Option<u64>,
    /// All TCP flags seen.
    pub tcp_flags: u16,
}

impl std::fmt::Display for FlowStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packets:{}, bytes:{}, used:", self.packets, self.bytes)?;
        match self.used_ms_ago {
            Some(ms) => write!(f, "{}.{:03}s", ms / 1000, ms % 1000)?,
            None => f.write_str("never")?,
        }
        if self.tcp_flags != 0 {
            write!(f, ", flags:{}", packet_tcp_flags(self.tcp_flags))?;
        }
        Ok(())
    }
}

/// How many words of a flow Open vSwitch's classifier looks at for this mask, below and from the network header on:
/// `miniflow_bits` of `dpctl/dump-flows -m`. The input port is no part of it.
pub fn miniflow_bits(mask: &Flow) -> (u32, u32) {
    let any = |bytes: &[u8]| u32::from(bytes.iter().any(|b| *b != 0));
    let words = |bytes: &[u8]| bytes.chunks(8).map(any).sum::<u32>();
    let (dst, src) = (&mask.tun_ipv6_dst, &mask.tun_ipv6_src);
    let tunnel = (any(&dst[..4]) | u32::from(!mask.tun_dst.is_zero()))
        + any(&dst[4..12])
        + (any(&dst[12..]) | u32::from(!mask.tun_src.is_zero()))
        + words(src)
        + words(part(mask, offset_of!(Flow, tun_id), offset_of!(Flow, skb_priority)));
    let metadata = words(part(mask, offset_of!(Flow, skb_priority), offset_of!(Flow, dp_hash)))
        + u32::from(mask.dp_hash != 0)
        + words(part(mask, offset_of!(Flow, recirc_id), offset_of!(Flow, ct_nw_src)));
    let link = words(part(mask, offset_of!(Flow, dl_dst), offset_of!(Flow, nw_src)));
    let tracked = words(part(mask, offset_of!(Flow, ct_nw_src), offset_of!(Flow, ct_tp_src)));
    let network = words(part(mask, offset_of!(Flow, nw_src), offset_of!(Flow, tp_src)));
    let ports = [mask.tp_src, mask.tp_dst, mask.ct_tp_src, mask.ct_tp_dst];
    let transport = u32::from(ports.iter().any(|p| !p.is_zero()));
    (tunnel + metadata + link, tracked + network + transport)
}

fn part(flow: &Flow, from: usize, to: usize) -> &[u8] {
    &flow.bytes()[from..to]
}

/// TCP flags as seen in packets: a sign each, in the order people write them.
fn packet_tcp_flags(flags: u16) -> String {
    const SIGNS: [(u16, &str); 12] = [
        (0x002, "S"),
        (0x001, "F"),
        (0x008, "P"),
        (0x004, "R"),
        (0x020, "U"),
        (0x010, "."),
        (0x040, "E"),
        (0x080, "C"),
        (0x100, "N"),
        (0x200, "[200]"),
        (0x400, "[400]"),
        (0x800, "[800]"),
    ];
    SIGNS.iter().filter(|(bit, _)| flags & bit != 0).map(|&(_, s)| s).collect()
}

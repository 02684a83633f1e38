//! The command line of `ofproto/trace` and `ofproto/trace-packet-out`.
//!
//! Neighbours: parent module. Threads: plain functions.

use super::{Env, TraceError};
use crate::snapshot::{BridgeView, Snapshot};
use flow::extract::PktMetadata;
use flow::odp::{parse_key, KeyOptions};
use flow::{extract_flow, Flow, RecircId};
use std::sync::Arc;

/// Shortest frame that is taken.
const ETH_HEADER: usize = 14;

/// What to trace.
pub(super) struct Job {
    /// Bridge in which the packet arrives.
    pub bridge: Arc<BridgeView>,
    /// Its flow, the input port an OpenFlow number.
    pub flow: Flow,
    /// There is a packet: side effects are wanted.
    pub packet: bool,
    /// Port names rather than numbers.
    pub names: bool,
}

/// Options and the words that are left.
pub(super) struct Words<'a> {
    words: Vec<&'a str>,
    generate: bool,
    names: bool,
    /// `-consistent` (packet-out only).
    pub consistent: bool,
}

const CT_STATES: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

/// Checks the state that `--ct-next` gives.
fn check_ct_state(text: &str) -> Result<(), TraceError> {
    let mut bits = 0u32;
    for word in text.split([',', ' ']).filter(|w| !w.is_empty()) {
        let bit = CT_STATES.iter().position(|s| *s == word);
        bits |= 1 << bit.ok_or_else(|| TraceError::CtFlag(word.into()))?;
    }
    let has = |name: &str| CT_STATES.iter().position(|s| *s == name).is_some_and(|i| bits >> i & 1 == 1);
    let why = if bits == 0 {
        return Ok(());
    } else if !has("trk") {
        "If \"trk\" is unset, no other flags are set"
    } else if has("inv") && bits & !0x30 != 0 {
        "when \"inv\" is set, only \"trk\" may also be set"
    } else if has("new") && has("est") {
        "\"new\" and \"est\" are mutually exclusive"
    } else if has("new") && has("rpl") {
        "\"new\" and \"rpy\" are mutually exclusive"
    } else {
        return Ok(());
    };
    let all: Vec<&str> =
        CT_STATES.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, s)| *s).collect();
    Err(TraceError::CtState(all.join("|"), why))
}

/// Takes the options out of `args`.
pub(super) fn options<'a>(args: &[&'a str], packet_out: bool) -> Result<Words<'a>, TraceError> {
    let mut w = Words { words: Vec::new(), generate: false, names: false, consistent: false };
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        let mut value = || args.next().copied().ok_or_else(|| TraceError::MissingArgument(arg.into()));
        match arg {
            "-generate" | "--generate" => w.generate = true,
            "-consistent" | "--consistent" if packet_out => w.consistent = true,
            "--names" => w.names = true,
            "--l7" | "--l7-len" => {
                value()?;
            }
            "--ct-next" => check_ct_state(value()?)?,
            o if o.starts_with('-') => return Err(TraceError::UnknownOption(o.into())),
            word => w.words.push(word),
        }
    }
    if w.words.len() > 3 {
        return Err(TraceError::TooManyArguments);
    }
    Ok(w)
}

/// A frame in hexadecimal digits, blanks between bytes allowed.
fn hex_packet(text: &str) -> Result<Vec<u8>, TraceError> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_start();
    while let Some(b) = rest.get(..2).and_then(|d| u8::from_str_radix(d, 16).ok()) {
        bytes.push(b);
        rest = rest[2..].trim_start();
    }
    if !rest.is_empty() {
        return Err(TraceError::Garbage);
    }
    if bytes.len() < ETH_HEADER {
        return Err(TraceError::ShortPacket);
    }
    Ok(bytes)
}

/// Where a datapath flow belongs, with its OpenFlow input port.
fn from_datapath(
    flow: &Flow,
    env: &Env<'_>,
    snapshot: &Snapshot,
) -> Result<(Arc<BridgeView>, Flow), TraceError> {
    let dp = flow::DpPort(flow.in_port);
    let mut flow = *flow;
    if flow.recirc_id != 0 {
        let node = env.world.recirc().get(RecircId(flow.recirc_id));
        let node = node.ok_or(TraceError::NoRecirculation(flow.recirc_id))?;
        let bridge = snapshot.bridge(node.state.bridge).ok_or(TraceError::NoPort(dp))?;
        flow.in_port = node.state.in_port.0.into();
        return Ok((bridge.clone(), flow));
    }
    let (bridge, port) = snapshot.of_port(dp).ok_or(TraceError::NoPort(dp))?;
    flow.in_port = port.0.into();
    Ok((bridge.clone(), flow))
}

impl Words<'_> {
    /// Makes sense of the words.
    pub(super) fn job(&self, env: &Env<'_>, snapshot: &Snapshot) -> Result<Job, TraceError> {
        let (mut words, mut packet) = (self.words.as_slice(), None);
        if self.generate && words.len() > 2 {
            return Err(TraceError::Syntax);
        }
        match *words {
            [] => return Err(TraceError::TooFewArguments),
            [_, last] => {
                if let Ok(p) = hex_packet(last) {
                    packet = Some(p);
                    words = &words[..1];
                }
            }
            [_, _, last] => {
                packet = Some(hex_packet(last)?);
                words = &words[..2];
            }
            _ => {}
        }
        if self.generate && packet.is_some() {
            return Err(TraceError::Syntax);
        }
        let (bridge, mut flow) = self.place(words, env, snapshot)?;
        if let Some(p) = &packet {
            if flow.tun_dst.is_zero() && flow.tun_ipv6_dst == [0; 16] {
                flow.tun_id = flow::Be64::ZERO;
            }
            let md = PktMetadata::from_flow(&flow).with_vlan_limit(env.vlan_limit);
            flow = extract_flow(p, &md).0;
        }
        Ok(Job { bridge, flow, packet: self.generate || packet.is_some(), names: self.names })
    }

    fn place(
        &self,
        words: &[&str],
        env: &Env<'_>,
        snapshot: &Snapshot,
    ) -> Result<(Arc<BridgeView>, Flow), TraceError> {
        let numbers = |name: &str| env.dp_ports.iter().find(|(_, n)| *n == name).map(|(p, _)| *p);
        let options = KeyOptions { ports: &numbers, masks: true, vlan_limit: usize::from(env.vlan_limit) };
        let (name, text) = match *words {
            [text] => (None, text),
            [name, text] => (Some(name), text),
            _ => return Err(TraceError::TooManyArguments),
        };
        match (parse_key(text, &options), name) {
            (Ok(key), name) => {
                if env.dp_name.is_none() || name.is_some_and(|n| env.dp_name != Some(n)) {
                    return Err(TraceError::NoDatapath);
                }
                from_datapath(&key.flow, env, snapshot)
            }
            (Err(e), None) => Err(TraceError::NoBridge(e)),
            (Err(_), Some(bridge)) => {
                let view = snapshot
                    .bridge_by_name(bridge)
                    .ok_or_else(|| TraceError::UnknownBridge(bridge.into()))?;
                let ports = |n: &str| view.ports.values().find(|p| &*p.name == n).map(|p| p.ofport);
                let flow = Flow::parse(text, &ports)
                    .map_err(|error| TraceError::BadFlow { text: text.into(), error })?;
                Ok((view.clone(), flow))
            }
        }
    }
}

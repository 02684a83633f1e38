//! `ofproto/trace`: one translation, told step by step.
//!
//! A trace runs the translation that packets get, with a listener in it; without a packet it leaves no trace of its
//! own. Neighbours: `xlate` translates, `tree` listens and prints, `args` reads the command. Threads: main.

mod args;
mod tree;

use crate::snapshot::{Snapshot, World};
use crate::xlate::{xlate, XlateIn, XlateOut, SLOW_ACTION};
use flow::matching::ParseError;
use flow::odp::{format_actions, KeyError, Style};
use flow::{Be16, Be64, DpPort, Flow, Mask, Match, OfPort, Vlan};
use openflow::{parse_actions, Action, ActionParseError, OfError};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Why a trace cannot be made. Texts are Open vSwitch's.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TraceError {
    #[error("{0}: unknown option")]
    UnknownOption(String),
    #[error("Missing argument for option {0}")]
    MissingArgument(String),
    #[error("{0}: unknown connection tracking state flag")]
    CtFlag(String),
    #[error("{0}: invalid connection state: {1}")]
    CtState(String, &'static str),
    #[error("too many arguments")]
    TooManyArguments,
    #[error("Syntax error")]
    TooFewArguments,
    #[error("Syntax error")]
    Syntax,
    #[error("Trailing garbage in packet data")]
    Garbage,
    #[error("Packet data too short for Ethernet")]
    ShortPacket,
    #[error("{0}: unknown bridge")]
    UnknownBridge(String),
    #[error("Cannot find the datapath")]
    NoDatapath,
    #[error("{0} (or the bridge name was omitted)")]
    NoBridge(KeyError),
    #[error("Bad openflow flow syntax: {text}: {error}")]
    BadFlow { text: String, error: ParseError },
    #[error("no OpenFlow port for datapath port {0}")]
    NoPort(DpPort),
    #[error("no recirculation data for recirc_id {0:#x}")]
    NoRecirculation(u32),
    #[error("{0}")]
    Action(ActionParseError),
    #[error("Bad actions: {0}")]
    BadActions(OfError),
}

/// What a trace works on.
pub struct Env<'a> {
    /// Bridges and tables.
    pub world: &'a World,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// The datapath's name, when there is one.
    pub dp_name: Option<&'a str>,
    /// Names of its ports.
    pub dp_ports: &'a BTreeMap<DpPort, String>,
    /// VLAN headers that are parsed.
    pub vlan_limit: u8,
}

/// `ofproto/trace ARGS`.
///
/// # Errors
/// What is wrong with the arguments.
pub fn trace(env: &Env<'_>, args: &[&str]) -> Result<String, TraceError> {
    let snapshot = env.world.load();
    let job = args::options(args, false)?.job(env, &snapshot)?;
    Ok(run(env, &snapshot, &job, None))
}

/// `ofproto/trace-packet-out ARGS ACTIONS`.
///
/// # Errors
/// What is wrong with the arguments.
pub fn trace_packet_out(env: &Env<'_>, args: &[&str]) -> Result<String, TraceError> {
    let snapshot = env.world.load();
    let Some((text, args)) = args.split_last() else { return Err(TraceError::TooFewArguments) };
    let mut actions = parse_actions(text).map_err(TraceError::Action)?;
    let words = args::options(args, true)?;
    let job = words.job(env, &snapshot)?;
    check(&mut actions, &job.flow, words.consistent)?;
    Ok(run(env, &snapshot, &job, (!actions.is_empty()).then_some(&actions)))
}

/// Checks actions as those of a packet-out are.
fn check(actions: &mut [Action], flow: &Flow, consistent: bool) -> Result<(), TraceError> {
    let m = Match { flow: *flow, mask: flow.packet_mask() };
    openflow::check_packet_out(actions, &m, consistent).map_err(TraceError::BadActions)
}

fn run(env: &Env<'_>, snapshot: &Snapshot, job: &args::Job, actions: Option<&Vec<Action>>) -> String {
    // Reserved ports keep their OpenFlow names.
    let of_name = |p: OfPort| job.bridge.port(p).filter(|_| p < OfPort::MAX).map(|p| p.name.to_string());
    let dp_name = |p: DpPort| env.dp_ports.get(&p).cloned();
    let names = job.names.then_some(&of_name as flow::matching::OfPortNames<'_>);
    let mut initial = job.flow;
    initial.actset_output = OfPort::UNSET.0.into();
    let port_name = |bridge: &str, p: OfPort| {
        let view = snapshot.bridge_by_name(bridge)?;
        view.port(p).filter(|_| p < OfPort::MAX).map(|p| p.name.to_string())
    };
    let mut tree = tree::Tree::new(job.names.then_some(&port_name as tree::Names<'_>));
    let mut out = XlateOut::default();
    let input = XlateIn {
        flow: &initial,
        bridge: &job.bridge,
        snapshot,
        recirc: env.world.recirc(),
        now_ms: env.now_ms,
        side_effects: job.packet,
        may_wait: true,
        for_flow: job.packet,
        packet_out: false,
        actions: actions.map(Vec::as_slice),
    };
    xlate(&input, &mut out, Some(&mut tree));
    if out.changed {
        env.world.macs_changed();
    }
    let mut text = format!("Flow: {}\n{}\n", job.flow.format(names), tree.render());
    if out.final_flow == initial {
        text.push_str("Final flow: unchanged\n");
    } else {
        let _ = writeln!(text, "Final flow: {}", out.final_flow.format(names));
    }
    let megaflow = megaflow(&initial, &out.mask);
    let _ = write!(text, "Megaflow: {}\nDatapath actions: ", megaflow.format_megaflow(names));
    let style = Style { verbose: false, names: job.names.then_some(&dp_name as flow::odp::PortNames<'_>) };
    format_actions(&mut text, &out.actions, &style);
    text.push('\n');
    verdict(&mut text, &out);
    text
}

/// Why the packet is dropped, or handled in the slow path.
fn verdict(text: &mut String, out: &XlateOut) {
    if let Some(error) = out.error {
        let _ = writeln!(text, "Translation failed ({error}), packet is dropped.");
    } else if out.slow & SLOW_ACTION != 0 {
        text.push_str(
            "This flow is handled by the userspace slow path because it:\n  - Uses action(s) not supported by datapath.\n",
        );
    }
}

/// Words of a flow about its tunnel.
const TUNNEL_WORDS: usize = std::mem::offset_of!(Flow, skb_priority) / 8;

/// The match of the megaflow: headers that are not there need no mention; a tunnel's are always looked at.
fn megaflow(flow: &Flow, mask: &Mask) -> Match {
    let mut mask = *mask;
    let m = &mut mask.0;
    for (v, m) in flow.vlans.iter().zip(&mut m.vlans) {
        if v.tci.is_zero() {
            *m = Vlan { tpid: Be16::ZERO, tci: Be16::ZERO };
        }
    }
    m.words_mut()[..TUNNEL_WORDS].fill(0);
    let v4 = !flow.tun_dst.is_zero();
    if v4 || flow.tun_ipv6_dst != [0; 16] {
        m.tun_id = Be64::MAX;
        if v4 {
            (m.tun_src, m.tun_dst) = (flow::Be32::MAX, flow::Be32::MAX);
        } else {
            (m.tun_ipv6_src, m.tun_ipv6_dst) = ([0xff; 16], [0xff; 16]);
        }
        m.tun_flags = 0xe;
        m.tun_tos = 0xff;
    }
    Match { flow: flow.masked(&mask), mask }
}

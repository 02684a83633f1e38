//! Packets that come up from the datapath: packet-ins for controllers, packets of the slow path.
//!
//! Neighbours: `datapath` hands them out, connections send the packet-ins. Threads: main.

use crate::recirc::FrozenState;
use crate::snapshot::{BridgeId, World};
use crate::upcall::{translate_flow, Purpose};
use crate::xlate::{xlate, CreditStats, XlateIn, XlateOut};
use datapath::{Provider, UserspacePacket};
use flow::{Flow, OfPort, UserspaceCookie};
use openflow::{Action, PacketInReason};
use packet::Packet;
use std::sync::Arc;

/// A packet-in, before it is cut for and encoded to a connection.
#[derive(Debug)]
pub struct PacketIn {
    /// Bridge that sends it.
    pub bridge: BridgeId,
    /// The whole packet.
    pub packet: Packet,
    /// OpenFlow input port.
    pub in_port: OfPort,
    /// Table of the rule.
    pub table_id: u8,
    /// Cookie of the rule, all ones when none is known.
    pub cookie: u64,
    /// Reason.
    pub reason: PacketInReason,
    /// Controller to which it goes.
    pub controller_id: u16,
    /// Metadata to report: tunnel, registers, metadata, mark.
    pub metadata: Flow,
    /// `userdata` of the controller action.
    pub userdata: Vec<u8>,
}

/// What came up.
pub enum FromDatapath {
    /// To be sent to controllers.
    PacketIn(Box<PacketIn>),
    /// Handled, or nothing to do.
    Done,
}

/// Handles a packet from [`Provider::drain_userspace`].
pub fn handle(world: &World, dp: &dyn Provider, up: UserspacePacket, now_ms: u64) -> FromDatapath {
    match up.cookie {
        UserspaceCookie::Controller { dont_send: true, .. } => FromDatapath::Done,
        UserspaceCookie::Controller { reason, recirc_id, rule_cookie, controller_id, .. } => {
            let Some(node) = world.recirc().get(recirc_id) else { return FromDatapath::Done };
            let state = &node.state;
            FromDatapath::PacketIn(Box::new(PacketIn {
                bridge: state.bridge,
                metadata: metadata(&up.flow, state),
                packet: up.packet,
                in_port: state.in_port,
                table_id: state.table_id,
                cookie: rule_cookie,
                reason: reason_of(reason),
                controller_id,
                userdata: state.userdata.clone(),
            }))
        }
        UserspaceCookie::SlowPath { .. } => {
            let mut out = XlateOut::default();
            translate_flow(world, &up.flow, now_ms, Purpose::SlowPacket, &mut out);
            if out.changed {
                world.bump();
            }
            if !out.actions.is_empty() {
                dp.execute(up.packet, &up.flow, Arc::from(out.actions));
            }
            FromDatapath::Done
        }
    }
}

fn reason_of(code: u8) -> PacketInReason {
    match code {
        0 => PacketInReason::NoMatch,
        2 => PacketInReason::InvalidTtl,
        3 => PacketInReason::ActionSet,
        4 => PacketInReason::Group,
        5 => PacketInReason::PacketOut,
        6 => PacketInReason::ExplicitMiss,
        7 => PacketInReason::ImplicitMiss,
        _ => PacketInReason::Action,
    }
}

/// The pipeline fields that a packet-in reports.
fn metadata(flow: &Flow, state: &FrozenState) -> Flow {
    let mut m = *flow;
    let (first, last) = (std::mem::offset_of!(Flow, dl_dst) / 8, flow::PKT_WORDS);
    m.words_mut()[first..last].iter_mut().for_each(|w| *w = 0);
    m.in_port = state.in_port.0.into();
    (m.recirc_id, m.dp_hash) = (0, 0);
    m.metadata = flow::Be64::new(state.metadata);
    m.regs = state.regs;
    m
}

/// Runs a packet-out: translates `actions` for `packet` as if it came in on `in_port` of `bridge`, and has the
/// datapath execute them. `flow` is the packet's flow; its `in_port` is set here. False when the bridge is gone.
pub fn packet_out(
    world: &World,
    dp: &dyn Provider,
    bridge: BridgeId,
    in_port: OfPort,
    packet: Packet,
    mut flow: Flow,
    (actions, now_ms): (&[Action], u64),
) -> bool {
    let snapshot = world.load();
    let Some(bridge) = snapshot.bridge(bridge) else { return false };
    flow.in_port = in_port.0.into();
    let input = XlateIn {
        flow: &flow,
        bridge,
        snapshot: &snapshot,
        recirc: world.recirc(),
        now_ms,
        side_effects: true,
        may_wait: true,
        for_flow: true,
        packet_out: true,
        actions: Some(actions),
    };
    let mut out = XlateOut::default();
    xlate(&input, &mut out, None);
    let once = CreditStats { packets: 1, bytes: packet.frame_len() as u64, used_ms: now_ms };
    out.changed |= out.cache.push(once, true);
    if out.changed {
        world.bump();
    }
    if !out.actions.is_empty() {
        flow.in_port = bridge.port(in_port).and_then(|p| p.dp_port).map_or(u32::MAX, |p| p.0);
        dp.execute(packet, &flow, Arc::from(out.actions));
    }
    true
}

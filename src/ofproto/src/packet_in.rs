//! Packets that come up from the datapath: packet-ins for controllers, packets of the slow path.
//!
//! Neighbours: `datapath` hands them out, connections send the packet-ins. Threads: main.

use crate::recirc::{FrozenFrame, FrozenState};
use crate::snapshot::{BridgeId, BridgeView, World};
use crate::upcall::{translate_flow, Purpose};
use crate::xlate::{xlate, CreditStats, XlateIn, XlateOut};
use datapath::{Provider, UserspacePacket};
use flow::extract::PktMetadata;
use flow::{extract_flow, Field, Flow, Match, OfPort, UserspaceCookie};
use openflow::{Action, Continuation, ContinuationFrame, OfError, PacketInReason, Resume};
use packet::Packet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

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
    /// How it goes on, when it was stopped.
    pub continuation: Option<Continuation>,
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
        UserspaceCookie::Controller {
            reason, recirc_id, rule_cookie, controller_id, continuation, ..
        } => {
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
                continuation: continuation.then(|| continuation_of(state, up.flow.in_port)),
            }))
        }
        UserspaceCookie::SlowPath { .. } => {
            let mut out = XlateOut::default();
            translate_flow(world, &up.flow, now_ms, Purpose::SlowPacket, &mut out);
            if out.changed {
                world.macs_changed();
            }
            if !out.actions.is_empty() {
                dp.execute(up.packet, &up.flow, Arc::from(out.actions));
            }
            FromDatapath::Done
        }
    }
}

/// A tag of a bridge that no other run of the switch gives.
fn tag(bridge: BridgeId) -> [u8; 16] {
    static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(Default::default);
    let [a, b] = keys.each_ref().map(|k| k.hash_one(bridge));
    (u128::from(a) << 64 | u128::from(b)).to_be_bytes()
}

/// A frozen state as controllers keep it. What the lists that are left write to the action set is written at once.
fn continuation_of(state: &FrozenState, odp_port: u32) -> Continuation {
    let mut action_set = state.action_set.clone();
    let mut list = |actions: &[Action]| {
        let mut keep = |a: &Action| match a {
            Action::ClearActions => {
                action_set.clear();
                None
            }
            Action::WriteActions(set) => {
                action_set.extend(set.iter().cloned());
                None
            }
            Action::WriteMetadata { value, mask } => {
                let (field, value, mask) = (Field::Metadata, u128::from(*value), u128::from(*mask));
                Some(Action::SetField { field, value, mask, flow_has_vlan: false })
            }
            a => Some(a.clone()),
        };
        actions.iter().filter_map(&mut keep).collect()
    };
    let frames = state.frames.iter().map(|f| ContinuationFrame {
        table_id: f.table_id,
        cookie: f.cookie,
        actions: list(&f.actions),
    });
    let frames = frames.collect();
    Continuation { bridge: tag(state.bridge), stack: state.stack.clone(), frames, action_set, odp_port }
}

/// The flow of a packet with pipeline fields that a message gives.
pub fn flow_with(packet: &Packet, metadata: &Match) -> Flow {
    let mut flow = extract_flow(packet.data(), &PktMetadata::new(0)).0;
    let fields = metadata.mask.0.words().iter().zip(metadata.flow.words());
    flow.words_mut().iter_mut().zip(fields).for_each(|(f, (m, g))| *f = *f & !m | g & m);
    flow
}

/// Lets a packet go on where a continuation says it was.
///
/// # Errors
/// `NXR_STALE` when it was not stopped in this bridge.
pub fn resume(
    world: &World,
    dp: &dyn Provider,
    bridge: BridgeId,
    r: &Resume,
    now_ms: u64,
) -> Result<(), OfError> {
    let (snapshot, c) = (world.load(), &r.continuation);
    let view = snapshot.bridge(bridge).filter(|_| c.bridge == tag(bridge)).ok_or(OfError::NXR_STALE)?;
    let packet = Packet::from_slice(&r.packet);
    let mut flow = flow_with(&packet, &r.metadata);
    let in_port = OfPort(flow.in_port as u16);
    let frame = |f: &ContinuationFrame| FrozenFrame {
        table_id: f.table_id,
        cookie: f.cookie,
        actions: f.actions.clone(),
    };
    let mut frames: Vec<FrozenFrame> = c.frames.iter().map(frame).collect();
    if frames.is_empty() {
        // The action set is all that is left: no table is looked up.
        frames.push(FrozenFrame { table_id: 0, cookie: u64::MAX, actions: Vec::new() });
    }
    let node = world.recirc().alloc(FrozenState {
        bridge,
        table_id: 0,
        in_port,
        metadata: flow.metadata.get(),
        regs: flow.regs,
        actset_output: OfPort::UNSET.0.into(),
        stack: c.stack.clone(),
        frames,
        action_set: c.action_set.clone(),
        userdata: Vec::new(),
    });
    flow.recirc_id = node.id.0;
    run(world, dp, (packet, flow), (view, in_port), None, now_ms);
    Ok(())
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
    run(world, dp, (packet, flow), (bridge, in_port), Some(actions), now_ms);
    true
}

/// Translates a packet that comes from a controller, and has the datapath execute the result.
fn run(
    world: &World,
    dp: &dyn Provider,
    (packet, mut flow): (Packet, Flow),
    (bridge, in_port): (&Arc<BridgeView>, OfPort),
    actions: Option<&[Action]>,
    now_ms: u64,
) {
    let snapshot = world.load();
    let input = XlateIn {
        flow: &flow,
        bridge,
        snapshot: &snapshot,
        recirc: world.recirc(),
        now_ms,
        side_effects: true,
        may_wait: true,
        for_flow: true,
        packet_out: actions.is_some(),
        actions,
    };
    let mut out = XlateOut::default();
    xlate(&input, &mut out, None);
    let once = CreditStats { packets: 1, bytes: packet.frame_len() as u64, used_ms: now_ms };
    out.changed |= out.cache.push(once, true);
    if out.changed {
        world.macs_changed();
    }
    if !out.actions.is_empty() {
        flow.in_port = bridge.port(in_port).and_then(|p| p.dp_port).map_or(u32::MAX, |p| p.0);
        flow.recirc_id = 0;
        dp.execute(packet, &flow, Arc::from(out.actions));
    }
}

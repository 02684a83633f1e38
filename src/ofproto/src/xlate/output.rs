//! Where packets go: ports, patch ports into other bridges, flooding, controllers, queues.
//!
//! Neighbours: `commit` brings headers up to date before each output, `normal` forwards by MAC address. Threads: part
//! of a translation.

use super::cache::Credit;
use super::commit;
use super::resume::Pause;
use super::table::reason;
use super::{Ctx, SLOW_ACTION};
use crate::recirc::FrozenState;
use crate::snapshot::{BridgeId, PortConfig, PortView};
use flow::{Be32, Be64, DpAction, OfPort, SetField, UserspaceCookie};
use openflow::Action;
use std::sync::Arc;

impl Ctx<'_, '_> {
    /// `output:port`, with the reserved ports.
    pub(super) fn output_action(&mut self, port: OfPort, max_len: u16, last: bool) {
        match port {
            OfPort::IN_PORT => self.output(self.in_port(), last),
            OfPort::TABLE => self.table_action(self.in_port(), 0, true),
            OfPort::NORMAL => self.normal(),
            OfPort::FLOOD => self.flood_ports(false),
            OfPort::ALL => self.flood_ports(true),
            OfPort::CONTROLLER => {
                let why = self.controller_reason();
                self.send_to_controller(why, max_len, 0, &[]);
            }
            OfPort::NONE => {}
            _ if port == self.in_port() => self.warn(format_args!("skipping output to input port")),
            _ => self.output(port, last),
        }
    }

    fn controller_reason(&self) -> u8 {
        if self.rule.is_none() && self.input.packet_out {
            reason::PACKET_OUT
        } else if self.in_action_set {
            reason::ACTION_SET
        } else {
            reason::ACTION
        }
    }

    /// `output(port=,max_len=)`. The length stands for the output that follows it, so there must be one.
    pub(super) fn output_trunc(&mut self, port: OfPort, max_len: u32, last: bool) {
        if self.bridge.port(port).is_none_or(|p| p.dp_port.is_none()) {
            return self.complain(format_args!("output_trunc does not support patch port {port}"));
        }
        if port == self.in_port() {
            return self.warn(format_args!("skipping output to input port"));
        }
        let at = self.out.actions.len();
        self.out.actions.push(DpAction::Trunc { max_len });
        self.output(port, last);
        if self.out.actions.len() == at + 1 {
            self.out.actions.pop();
        }
    }

    /// `enqueue`: output with the priority of a queue.
    pub(super) fn enqueue(&mut self, port: OfPort, queue: u32, last: bool) {
        let port = if port == OfPort::IN_PORT { self.in_port() } else { port };
        if port == self.in_port() {
            return;
        }
        let old = std::mem::replace(&mut self.flow.skb_priority, queue);
        self.output(port, last);
        self.flow.skb_priority = old;
    }

    /// FLOOD and ALL.
    fn flood_ports(&mut self, all: bool) {
        let bridge = self.bridge;
        let in_port = self.in_port();
        for &p in &bridge.port_order {
            let Some(port) = bridge.port(p) else { continue };
            if p == in_port || !all && port.config.has(PortConfig::NO_FLOOD) {
                continue;
            }
            self.output(p, false);
        }
    }

    /// Brings the datapath's packet up to date.
    pub(super) fn commit(&mut self) {
        if self.vlan_popped {
            self.mask_received_vlans();
        }
        let out = &mut *self.out;
        let before = out.actions.len();
        let done =
            commit::commit(&self.flow, self.input.flow, &mut self.base, &mut out.mask, &mut out.actions);
        let received_mpls = commit::is_mpls(self.input.flow.dl_type);
        let popped = out.actions.iter().any(|a| matches!(a, DpAction::PopMpls { .. }));
        let writes = |a: &DpAction| match a {
            DpAction::PushMpls { .. } => true,
            DpAction::Set(SetField::Mpls { .. }) => popped,
            _ => false,
        };
        if received_mpls && out.actions[before..].iter().any(writes) {
            // Labels behind the first, or popped and pushed again: their values are in the actions.
            out.mask.0.mpls = [Be32::MAX; flow::key::MAX_MPLS];
        }
        if done.slow {
            out.slow |= SLOW_ACTION;
        }
    }

    /// Sends the packet out of `port` of this bridge, the input port included.
    pub(super) fn output(&mut self, port: OfPort, last: bool) {
        let Some(p) = self.bridge.port(port) else {
            self.warn(format_args!("Nonexistent output port"));
            return;
        };
        if !self.flow.packet_type.is_zero() {
            let what = "Trying to send non-Ethernet packet through legacy L2 port. Dropping packet.";
            return self.warn(format_args!("{what}"));
        }
        if p.config.has(PortConfig::NO_FWD) {
            self.note(format_args!("OFPPC_NO_FWD set, skipping output"));
            return;
        }
        if let Some(peer) = p.peer {
            let p = p.clone();
            return self.patch_output(&p, peer, last);
        }
        let Some(dp_port) = p.dp_port else { return };
        self.commit();
        self.out.actions.push(DpAction::Output(dp_port));
    }

    /// Goes on in the bridge behind a patch port; afterwards the packet here is as it was.
    fn patch_output(&mut self, out: &Arc<PortView>, (bridge, port): (BridgeId, OfPort), last: bool) {
        if !self.resubmit_allowed() {
            return;
        }
        let Some(peer_bridge) = self.input.snapshot.bridge(bridge) else { return };
        let Some(peer) = peer_bridge.port(port) else { return };
        self.out.cache.credits.push(Credit::Patch { out: out.stats.clone(), peer: peer.stats.clone() });
        let here = (self.bridge, std::mem::replace(&mut self.tables, peer_bridge.tables.load()));
        let flow = self.flow;
        let action_set = std::mem::take(&mut self.action_set);
        let stack = (std::mem::take(&mut self.stack), std::mem::replace(&mut self.stack_bytes, 0));
        let rule = self.rule.take();
        let table_id = std::mem::replace(&mut self.table_id, 0);
        let was_mpls = self.was_mpls;
        let in_set = std::mem::replace(&mut self.in_action_set, false);
        self.bridge = peer_bridge;
        self.flow.in_port = port.0.into();
        self.flow.metadata = Be64::ZERO;
        self.flow.regs = [0; flow::key::N_REGS];
        self.flow.actset_output = OfPort::UNSET.0.into();
        self.depth += 1;
        self.trace_bridge();
        if self.may_receive(port) {
            self.run_peer(last);
        }
        self.trace_leave();
        self.depth -= 1;
        (self.bridge, self.tables) = here;
        self.flow = flow;
        self.action_set = action_set;
        (self.stack, self.stack_bytes) = stack;
        self.rule = rule;
        self.table_id = table_id;
        self.was_mpls = was_mpls;
        self.in_action_set = in_set;
        // What ends or fails there does not end things here.
        self.exit = false;
    }

    fn run_peer(&mut self, last: bool) {
        let in_port = self.in_port();
        let mask = &mut self.out.mask;
        let irreversible = !last
            && self.tables.lookup(0, &self.flow, mask).is_some_and(|r| {
                r.actions.iter().any(|a| matches!(a, Action::OutputTrunc { .. } | Action::Meter(_)))
            });
        let at = if irreversible {
            self.commit();
            Some((self.out.actions.len(), self.base))
        } else {
            None
        };
        self.table_action(in_port, 0, true);
        if self.out.error.is_none() {
            if !self.freezing {
                self.run_action_set();
            }
            if self.freezing {
                self.finish_freezing();
            }
        }
        if let Some((at, base)) = at {
            let inner: Box<[DpAction]> = self.out.actions.drain(at..).collect();
            if !inner.is_empty() {
                self.out.actions.push(DpAction::Clone(inner));
            }
            self.base = base;
        }
    }

    /// Packet-in.
    pub(super) fn send_to_controller(&mut self, why: u8, max_len: u16, controller_id: u16, userdata: &[u8]) {
        self.commit();
        let state = FrozenState { stack: self.stack.clone(), ..self.state(Vec::new()) };
        let pause = self.pause(why, max_len, controller_id, userdata);
        self.push_controller(state, pause, false);
    }

    /// What a packet-in is to say, as things are now.
    pub(super) fn pause(&self, why: u8, max_len: u16, controller_id: u16, userdata: &[u8]) -> Pause {
        let table_miss = self.rule.as_ref().is_some_and(|r| r.priority == 0 && r.matching.mask.map == 0);
        let why = if why == reason::ACTION && table_miss { reason::EXPLICIT_MISS } else { why };
        let rule_cookie = match &self.rule {
            Some(rule) => rule.cookie,
            None if why == reason::IMPLICIT_MISS => 0,
            None => u64::MAX,
        };
        Pause { why, max_len, controller_id, userdata: userdata.to_vec(), rule_cookie }
    }

    /// Sends the packet up with `state`. `continuation`: it goes on there when controllers say so.
    pub(super) fn push_controller(&mut self, state: FrozenState, p: Pause, continuation: bool) {
        let node = self.input.recirc.alloc(FrozenState { userdata: p.userdata, ..state });
        let cookie = UserspaceCookie::Controller {
            reason: p.why,
            dont_send: !self.input.for_flow,
            continuation,
            recirc_id: node.id,
            rule_cookie: p.rule_cookie,
            controller_id: p.controller_id,
            max_len: p.max_len,
            frozen: node.id.0,
        };
        self.out.cache.credits.push(Credit::Recirc(node));
        // A trace without a packet has nobody to let it go on.
        if self.input.for_flow || !continuation {
            self.out.actions.push(DpAction::Userspace { pid: 0, cookie });
        }
    }
}

//! Freezing a translation and going on with it after recirculation.
//!
//! Neighbours: `recirc` keeps the state, `actions` decides when to freeze. Threads: part of a translation.

use super::cache::Credit;
use super::{Ctx, XlateError};
use crate::recirc::{FrozenFrame, FrozenState};
use flow::{Be64, DpAction, RecircId};

/// What the packet-in of a packet that is stopped says.
pub(super) struct Pause {
    pub(super) why: u8,
    pub(super) max_len: u16,
    pub(super) controller_id: u16,
    pub(super) userdata: Vec<u8>,
    pub(super) rule_cookie: u64,
}

impl Ctx<'_, '_> {
    /// The state as it stands, with `frames` left to do.
    pub(super) fn state(&self, frames: Vec<FrozenFrame>) -> FrozenState {
        FrozenState {
            bridge: self.bridge.id,
            table_id: self.table_id,
            in_port: self.in_port(),
            metadata: self.flow.metadata.get(),
            regs: self.flow.regs,
            actset_output: self.flow.actset_output,
            stack: Vec::new(),
            frames,
            action_set: self.action_set.clone(),
            userdata: Vec::new(),
        }
    }

    /// Ends with a recirculation that goes on where the translation was frozen.
    pub(super) fn finish_freezing(&mut self) {
        self.commit();
        let frames = std::mem::take(&mut self.frames);
        let mut state = self.state(frames);
        state.stack = std::mem::take(&mut self.stack);
        if let Some(pause) = self.pausing.take() {
            if state.frames.is_empty() {
                // Without one, going on would look a table up.
                state.frames.push(FrozenFrame {
                    table_id: self.table_id,
                    cookie: u64::MAX,
                    actions: Vec::new(),
                });
            }
            self.push_controller(state, pause, true);
        } else {
            let node = self.input.recirc.alloc(state);
            self.out.actions.push(DpAction::Recirc(node.id));
            self.out.cache.credits.push(Credit::Recirc(node));
        }
        self.freezing = false;
        self.exit = false;
        self.stack_bytes = 0;
        self.action_set.clear();
        self.was_mpls = false;
    }

    /// Goes on with a packet that was recirculated.
    pub(super) fn resume(&mut self) {
        let id = RecircId(self.flow.recirc_id);
        let Some(node) = self.input.recirc.get(id) else {
            self.trace_bridge();
            self.complain(format_args!("Recirculation context not found for ID {:x}", id.0));
            return self.fail(XlateError::NoRecirculationContext);
        };
        let state = &node.state;
        let Some(bridge) = self.input.snapshot.bridge(state.bridge) else {
            return self.fail(XlateError::NoInputBridge);
        };
        self.bridge = bridge;
        self.tables = bridge.tables.load();
        self.flow.in_port = u32::from(state.in_port.0);
        self.flow.metadata = Be64::new(state.metadata);
        self.flow.regs = state.regs;
        self.flow.actset_output = state.actset_output;
        self.table_id = state.table_id;
        self.stack.extend_from_slice(&state.stack);
        self.stack_bytes = state.stack.iter().map(|(_, n)| usize::from(*n).div_ceil(8) + 1).sum();
        self.action_set.extend_from_slice(&state.action_set);
        // Only what OpenFlow does from here on is to be committed.
        self.base = self.flow;
        self.trace_bridge();
        if state.frames.is_empty() {
            return self.lookup_and_run(state.table_id, false);
        }
        let frames = state.frames.clone();
        self.out.cache.credits.push(Credit::Recirc(node));
        for (i, frame) in frames.iter().enumerate() {
            self.table_id = frame.table_id;
            self.do_actions(&frame.actions, false);
            if self.exit {
                if self.freezing {
                    self.frames.extend_from_slice(&frames[i + 1..]);
                }
                return;
            }
        }
    }
}

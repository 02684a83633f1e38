//! Translation: a packet's flow through the OpenFlow tables, into datapath actions and a sound, narrow mask.
//!
//! Sound means: every packet that agrees with this one in the bits of the mask gets the same actions. Whatever is
//! looked at to decide something is therefore unwildcarded first. Neighbours: `upcall` (misses), `revalidate`
//! (installed flows), packet-out. Threads: runs on poll-mode threads, reads the published snapshot and tables only.

mod action_set;
mod actions;
mod cache;
mod commit;
mod hash;
mod normal;
mod output;
mod resume;
mod table;
#[cfg(test)]
mod tests;

pub use cache::{push_credits, Credit, CreditStats, XlateCache};
pub(crate) use hash::hash2;

use crate::coverage;
use crate::recirc::{FrozenFrame, RecircTable};
use crate::rule::Rule;
use crate::snapshot::{BridgeView, PortConfig, Snapshot};
use crate::tables::Tables;
use arc_swap::Guard;
use datapath::Drop;
use flow::key::{FRAG_MASK, MAX_MPLS, VLAN_CFI};
use flow::{Be16, DpAction, Flow, Mask, OfPort, PKT_WORDS};
use openflow::Action;
use std::fmt;
use std::sync::Arc;

/// Deepest nesting of resubmits and patch ports.
pub const MAX_DEPTH: u32 = 64;
/// Most resubmits of one translation.
pub const MAX_RESUBMITS: u32 = 64 * 64;
/// Most bytes on the stack.
const MAX_STACK_BYTES: usize = 65_535;
/// Most datapath actions, standing for the 64 kB that the original allows.
const MAX_DP_ACTIONS: usize = 8_191;

/// Why a translation was given up. The packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum XlateError {
    #[error("Recursion too deep")]
    RecursionTooDeep,
    #[error("Too many resubmits")]
    TooManyResubmits,
    #[error("Stack too deep")]
    StackTooDeep,
    #[error("No recirculation context")]
    NoRecirculationContext,
    #[error("Too many MPLS labels")]
    TooManyMplsLabels,
    #[error("Too many datapath actions")]
    TooManyActions,
    #[error("No input bridge")]
    NoInputBridge,
}

impl XlateError {
    /// As what its packets are counted.
    fn reason(self) -> Drop {
        match self {
            XlateError::RecursionTooDeep => Drop::RecursionTooDeep,
            XlateError::TooManyResubmits => Drop::TooManyResubmits,
            XlateError::StackTooDeep => Drop::StackTooDeep,
            XlateError::NoRecirculationContext => Drop::NoRecirculationContext,
            XlateError::TooManyMplsLabels => Drop::TooManyMplsLabels,
            XlateError::TooManyActions => Drop::TooManyActions,
            XlateError::NoInputBridge => Drop::BridgeNotFound,
        }
    }
}

/// Slow-path reasons as carried by the `userspace` action.
pub const SLOW_ACTION: u32 = 1 << 5;

/// How a remark of a translation is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remark<'a> {
    /// What happened.
    Detail,
    /// What the action set "is" or "was".
    ActionSet(&'a str, &'a [Action]),
    /// Something that may not be intended.
    Warn,
    /// A mistake in configuration or rules.
    Error,
}

/// Follows a translation step by step (`ofproto/trace`). Bridges, tables and action sets that are entered are left
/// again; what is said in between belongs inside.
pub trait TraceSink {
    /// Translation enters a bridge.
    fn bridge(&mut self, name: &str);
    /// A rule of table `table` was hit, or the table's rule for packets without one; `first`: in the bridge
    /// where translation began.
    fn rule(&mut self, table: u8, rule: Hit<'_>, first: bool);
    /// The action set is about to run.
    fn action_set(&mut self);
    /// The bridge, table or action set entered last is done.
    fn leave(&mut self);
    /// An action is about to run.
    fn action(&mut self, action: &Action);
    /// Something worth saying about the last action.
    fn note(&mut self, kind: Remark<'_>, text: fmt::Arguments<'_>);
}

/// What a lookup in a table gave.
#[derive(Clone, Copy)]
pub enum Hit<'a> {
    /// A rule.
    Rule(&'a Rule),
    /// None; the packet is dropped, or sent to controllers.
    Miss {
        /// A controller wants it.
        packet_in: bool,
    },
    /// None was looked for: fragments are dropped.
    Fragment,
}

/// What to translate.
pub struct XlateIn<'a> {
    /// The packet's flow; `in_port` is the OpenFlow port.
    pub flow: &'a Flow,
    /// Bridge in which the packet was received.
    pub bridge: &'a Arc<BridgeView>,
    /// All bridges.
    pub snapshot: &'a Snapshot,
    /// Recirculation ids.
    pub recirc: &'a RecircTable,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// A packet is there: side effects (MAC learning) are wanted.
    pub side_effects: bool,
    /// May wait for locks (not on a poll-mode thread).
    pub may_wait: bool,
    /// Whether the result is kept: packet-ins that are only traced are marked as not to be sent.
    pub for_flow: bool,
    /// The actions are those of a packet-out message.
    pub packet_out: bool,
    /// Actions to run in place of a lookup in table 0 (packet-out).
    pub actions: Option<&'a [Action]>,
}

/// What came out. Reused between translations: [`XlateOut::reset`] keeps the memory.
#[derive(Default)]
pub struct XlateOut {
    /// Datapath actions; empty drops the packet.
    pub actions: Vec<DpAction>,
    /// Bits looked at, in packet words.
    pub mask: Mask,
    /// What to credit with packets.
    pub cache: XlateCache,
    /// Reasons to handle each packet in the slow path.
    pub slow: u32,
    /// Why translation was given up.
    pub error: Option<XlateError>,
    /// A side effect made installed flows wrong: bump the world's sequence number.
    pub changed: bool,
    /// The flow as OpenFlow left it.
    pub final_flow: Flow,
}

impl XlateOut {
    /// Empties it.
    pub fn reset(&mut self) {
        self.actions.clear();
        self.mask = Mask::default();
        self.cache.credits.clear();
        self.slow = 0;
        self.error = None;
        self.changed = false;
    }
}

/// One translation under way.
struct Ctx<'a, 'o> {
    input: &'a XlateIn<'a>,
    bridge: &'a Arc<BridgeView>,
    tables: Guard<Arc<Tables>>,
    /// The packet as OpenFlow has it now.
    flow: Flow,
    /// The packet as the datapath has it after the actions so far.
    base: Flow,
    out: &'o mut XlateOut,
    trace: Option<&'o mut dyn TraceSink>,
    table_id: u8,
    rule: Option<Arc<Rule>>,
    depth: u32,
    resubmits: u32,
    stack: Vec<(u128, u16)>,
    stack_bytes: usize,
    action_set: Vec<Action>,
    in_action_set: bool,
    exit: bool,
    /// The packet was MPLS and a pop made it something whose headers are not known.
    was_mpls: bool,
    /// A VLAN header was taken off: what is sent is compared with what was received.
    vlan_popped: bool,
    /// What was looked at of the labels when the first was popped: from then on places in the flow are not those
    /// in the packet.
    mpls_at_pop: Option<[flow::Be32; MAX_MPLS]>,
    freezing: bool,
    /// It is frozen for controllers.
    pausing: Option<resume::Pause>,
    frames: Vec<FrozenFrame>,
    /// Skb priority of the packet as received.
    orig_priority: u32,
}

/// Translates. `out` is reset first.
pub fn xlate<'o>(input: &XlateIn<'_>, out: &'o mut XlateOut, trace: Option<&'o mut dyn TraceSink>) {
    coverage::XLATE.inc();
    out.reset();
    let mut ctx = Ctx::new(input, out, trace);
    ctx.unwildcard_always();
    ctx.run();
    if ctx.out.actions.len() > MAX_DP_ACTIONS {
        ctx.fail(XlateError::TooManyActions);
    }
    if let Some(error) = ctx.out.error {
        if error == XlateError::TooManyActions {
            coverage::OVERSIZE.inc();
        }
        ctx.out.actions.clear();
        ctx.out.actions.push(DpAction::Drop(error.reason() as u32));
        ctx.out.slow = 0;
    }
    ctx.out.final_flow = ctx.flow;
    ctx.unwildcard_shifted_labels();
    finish_mask(input.flow, &mut ctx.out.mask);
}

impl<'a, 'o> Ctx<'a, 'o> {
    fn new(
        input: &'a XlateIn<'a>,
        out: &'o mut XlateOut,
        trace: Option<&'o mut dyn TraceSink>,
    ) -> Ctx<'a, 'o> {
        let mut flow = *input.flow;
        flow.actset_output = OfPort::UNSET.0.into();
        Ctx {
            input,
            bridge: input.bridge,
            tables: input.bridge.tables.load(),
            base: flow,
            orig_priority: flow.skb_priority,
            flow,
            out,
            trace,
            table_id: 0,
            rule: None,
            depth: 0,
            resubmits: 0,
            stack: Vec::new(),
            stack_bytes: 0,
            action_set: Vec::new(),
            in_action_set: false,
            exit: false,
            was_mpls: false,
            vlan_popped: false,
            mpls_at_pop: None,
            freezing: false,
            pausing: None,
            frames: Vec::new(),
        }
    }

    /// What every megaflow looks at.
    fn unwildcard_always(&mut self) {
        let m = &mut self.out.mask.0;
        m.in_port = u32::MAX;
        m.recirc_id = u32::MAX;
        m.packet_type = flow::Be32::MAX;
        m.dl_type = Be16::MAX;
        if commit::is_ip_any(&self.flow) {
            m.nw_frag |= FRAG_MASK;
        }
    }

    /// Labels looked at behind one that was popped stand elsewhere in the packet: all are matched then.
    fn unwildcard_shifted_labels(&mut self) {
        let Some(before) = self.mpls_at_pop else { return };
        let labels = &mut self.out.mask.0.mpls;
        let bos = flow::Be32::new(commit::MPLS_BOS);
        if labels.iter().zip(before).any(|(now, then)| *now | bos != then | bos) {
            *labels = [flow::Be32::MAX; MAX_MPLS];
        }
    }

    fn run(&mut self) {
        if self.flow.recirc_id != 0 {
            self.resume();
        } else if let Some(actions) = self.input.actions {
            self.trace_bridge();
            self.do_actions(actions, true);
        } else {
            self.trace_bridge();
            if !self.may_receive(OfPort(self.flow.in_port as u16)) {
                // It counts for the rule it meets, and goes nowhere.
                if let Some(rule) = self.lookup(0) {
                    self.trace_rule(0, Some(&rule), false);
                    self.trace_leave();
                    self.out.cache.credits.push(cache::Credit::Rule(rule));
                }
                return;
            }
            self.lookup_and_run(0, true);
        }
        self.end_of_pipeline();
        self.trace_leave();
    }

    /// Runs the action set, or freezes when recirculation was asked for.
    fn end_of_pipeline(&mut self) {
        if self.out.error.is_some() {
            return;
        }
        if !self.freezing {
            self.run_action_set();
        }
        if self.freezing {
            self.finish_freezing();
        }
    }

    /// Whether `port` takes packets (OFPPC_NO_RECV).
    fn may_receive(&mut self, port: OfPort) -> bool {
        let Some(p) = self.bridge.port(port) else { return true };
        let stp = self.flow.dl_dst == [1, 0x80, 0xc2, 0, 0, 0];
        if p.config.0 & (PortConfig::NO_RECV | PortConfig::NO_RECV_STP) == 0 {
            return true;
        }
        self.out.mask.0.dl_dst = [0xff; 6];
        !p.config.has(if stp { PortConfig::NO_RECV_STP } else { PortConfig::NO_RECV })
    }

    fn fail(&mut self, error: XlateError) {
        self.out.error.get_or_insert(error);
    }

    /// Says what happened, to who traces.
    #[inline]
    fn note(&mut self, text: fmt::Arguments<'_>) {
        self.remark(Remark::Detail, text);
    }

    /// Says what may not be intended.
    #[inline]
    fn warn(&mut self, text: fmt::Arguments<'_>) {
        self.remark(Remark::Warn, text);
    }

    /// Says what is wrong.
    #[inline]
    fn complain(&mut self, text: fmt::Arguments<'_>) {
        self.remark(Remark::Error, text);
    }

    #[inline]
    fn remark(&mut self, kind: Remark<'_>, text: fmt::Arguments<'_>) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.note(kind, text);
        }
    }

    fn trace_leave(&mut self) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.leave();
        }
    }

    fn trace_bridge(&mut self) {
        if let Some(t) = self.trace.as_deref_mut() {
            t.bridge(&self.bridge.name);
        }
    }

    /// OpenFlow input port as it stands (actions may write it).
    fn in_port(&self) -> OfPort {
        OfPort(self.flow.in_port as u16)
    }
}

/// Brings a mask into the form in which a megaflow is installed.
fn finish_mask(flow: &Flow, mask: &mut Mask) {
    mask.0.words_mut()[PKT_WORDS..].iter_mut().for_each(|w| *w = 0);
    let m = &mut mask.0;
    m.conj_id = 0;
    // Headers that the packet does not have: that it lacks them is matched by the type, and of VLANs always.
    if flow.vlans[0].tci.get() & VLAN_CFI == 0 {
        m.vlans = Default::default();
    } else if flow.vlans[1].tci.get() & VLAN_CFI == 0 {
        m.vlans[1] = Default::default();
    }
    if !commit::is_mpls(flow.dl_type) {
        m.mpls = Default::default();
    }
    if flow.nw_frag & flow::key::FRAG_LATER != 0 {
        // No later fragment has ports, and whether it is one is matched.
        (m.tp_src, m.tp_dst) = (Be16::ZERO, Be16::ZERO);
    }
    if commit::is_ip_any(flow) && matches!(flow.nw_proto, commit::PROTO_ICMP | commit::PROTO_ICMPV6) {
        m.tp_src &= Be16::new(0xff);
        m.tp_dst &= Be16::new(0xff);
    }
    for v in &mut m.vlans {
        if !v.tci.is_zero() {
            v.tci |= Be16::new(VLAN_CFI);
        }
    }
}

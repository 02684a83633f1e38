//! Soundness watch (`flow-self-check`): megaflows that disagreed with a fresh translation of one of their packets.
//!
//! A poll-mode thread compares ([`agrees`]) and hands suspects over. They are looked at again one sweep later, when a
//! change of tables that was under way at that moment has become known: what is still wrong then is logged, counted
//! and removed.
//! Neighbours: `upcall` compares, `revalidate` keeps the suspects and removes. Threads: poll-mode threads compare,
//! revalidators judge.

use crate::snapshot::World;
use crate::upcall::{translate_flow, Purpose};
use crate::xlate::XlateOut;
use datapath::{SharedFlow, Suspect};
use flow::odp::{format_actions, format_key, Style};
use flow::{DpAction, Flow, Mask, PKT_WORDS};
use infra::vlog::{Module, RateLimit};
use infra::vlog_rl;
use parking_lot::Mutex;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::Arc;

static LOG: Module = Module::new("self_check");
static LIMIT: RateLimit = RateLimit::new(60, 5);

/// Suspects that wait to be looked at.
const MAX_SUSPECTS: usize = 1_024;
/// Bytes of a packet that are logged.
const MAX_HEX: usize = 256;

/// Whether `wanted` looks at bits that `installed` does not.
pub(crate) fn has_extra(installed: &Mask, wanted: &Mask) -> bool {
    let words = installed.0.words().iter().zip(wanted.0.words());
    words.take(PKT_WORDS).any(|(i, w)| w & !i != 0)
}

/// Whether a fresh translation of `key` does what the megaflow does and looks at no more. `None` when nobody can tell
/// now: the megaflow is gone or of another version of the tables, or a version passed by meanwhile.
pub(crate) fn agrees(
    world: &World,
    key: &Flow,
    flow: &SharedFlow,
    actions: &[DpAction],
    now_ms: u64,
    purpose: Purpose,
    out: &mut XlateOut,
) -> Option<bool> {
    let seq = world.seq();
    if flow.seq.load(Ordering::Relaxed) != seq || flow.is_dead() {
        return None;
    }
    let known = translate_flow(world, key, now_ms, purpose, out);
    let same = known && *actions == *out.actions && !has_extra(&flow.mask.mask(), &out.mask);
    let current = world.seq() == seq && flow.seq.load(Ordering::Relaxed) == seq;
    current.then_some(same)
}

/// Suspects of one datapath: those noted since the last sweep, and those noted before it.
pub(crate) struct Suspects(Mutex<[Vec<Suspect>; 2]>);

impl Suspects {
    /// None yet.
    pub(crate) fn new() -> Suspects {
        Suspects(Mutex::default())
    }

    /// Takes one in.
    pub(crate) fn note(&self, suspect: Suspect) {
        let [all, _] = &mut *self.0.lock();
        if all.len() < MAX_SUSPECTS {
            all.push(suspect);
        } else {
            suspect.flow.clear_suspect();
        }
    }

    /// Looks at those noted before the last sweep again. Returns the megaflows that are wrong, for removal.
    pub(crate) fn judge(&self, world: &World, now_ms: u64, out: &mut XlateOut) -> Vec<Arc<SharedFlow>> {
        let all = {
            let [new, old] = &mut *self.0.lock();
            std::mem::replace(old, std::mem::take(new))
        };
        let mut wrong = Vec::new();
        for s in all {
            let actions = s.flow.actions();
            let agrees = agrees(world, &s.key, &s.flow, &actions, now_ms, Purpose::Revalidate, out);
            if agrees == Some(false) {
                crate::coverage::SELF_CHECK_FAILED.inc();
                vlog_rl!(LOG, LIMIT, Warn, "{}", report(&s, &actions, out));
                wrong.push(s.flow);
            } else {
                s.flow.clear_suspect();
            }
        }
        wrong
    }
}

/// What is logged about a wrong megaflow.
fn report(s: &Suspect, actions: &[DpAction], fresh: &XlateOut) -> String {
    let style = Style::default();
    let mut text = String::from("flow-self-check: a megaflow is wrong and is removed: packet ");
    for b in s.frame.iter().take(MAX_HEX) {
        let _ = write!(text, "{b:02x}");
    }
    if s.frame.len() > MAX_HEX {
        let _ = write!(text, "... ({} bytes)", s.frame.len());
    }
    text.push_str(" of flow ");
    format_key(&mut text, &s.key, None, &style);
    let side = |text: &mut String, key: &Flow, mask: &Mask, actions: &[DpAction]| {
        format_key(text, key, Some(mask), &style);
        text.push_str(", actions:");
        format_actions(text, actions, &style);
    };
    let _ = write!(text, " met megaflow ufid:{} ", s.flow.ufid);
    side(&mut text, &s.flow.key.flow(), &s.flow.mask.mask(), actions);
    text.push_str("; translated afresh it is ");
    side(&mut text, &s.key, &fresh.mask, &fresh.actions);
    text
}

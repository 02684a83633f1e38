//! A switch with all its caches beside one that translates every packet from scratch, fed with the same events: after
//! each event outputs and counters must be equal. Neighbours: `side`, `ops`. Threads: the test's.
//!
//! What is defined and what is not: megaflows follow a change with the next sweep, so a sweep comes before the next
//! packet; while sweeps are paused packets go on only as long as nothing has changed. A packet that hits a megaflow is
//! learned from when counters are pushed, after its translation and not in the midst of it: the twin is told which
//! packets hit.

use crate::ops::{Op, Source};
use crate::side::Side;
use datapath::{Miss, MissResult, Upcall};
use flow::Flow;
use ofproto::upcall::{translate_flow, Purpose};
use ofproto::xlate::{CreditStats, XlateOut};
use ofproto::{Upcalls, World};
use parking_lot::Mutex;
use std::sync::Arc;

/// Flows that missed on the first side since it was last emptied.
type Misses = Arc<Mutex<Vec<Flow>>>;

fn without_id(f: &Flow) -> Flow {
    Flow { recirc_id: u32::from(f.recirc_id != 0), ..*f }
}

/// Notes what misses.
struct Recorder {
    inner: Arc<Upcalls>,
    misses: Misses,
}

impl Upcall for Recorder {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        self.misses.lock().push(without_id(req.flow));
        self.inner.miss(req, out);
    }
}

/// Translates everything: as a miss what missed on the other side, as a hit the rest.
struct Scratch {
    inner: Arc<Upcalls>,
    world: Arc<World>,
    misses: Misses,
    out: Mutex<XlateOut>,
}

impl Upcall for Scratch {
    fn miss(&self, req: &Miss<'_>, out: &mut MissResult) {
        let mut misses = self.misses.lock();
        let missed = misses.iter().position(|f| *f == without_id(req.flow));
        if let Some(i) = missed {
            misses.remove(i);
            return self.inner.miss(req, out);
        }
        let mut x = self.out.lock();
        if !translate_flow(&self.world, req.flow, req.now_ms, Purpose::Revalidate, &mut x) {
            out.failed = true;
            return;
        }
        out.actions.append(&mut x.actions);
        let one = CreditStats { packets: 1, bytes: req.packet.frame_len() as u64, used_ms: req.now_ms };
        if x.cache.push(one, false) {
            self.world.macs_changed_quietly();
        }
    }
}

/// Both sides.
pub struct Pair {
    pub real: Side,
    pub twin: Side,
    misses: Misses,
    /// Sweeps are paused: the twin's version when that began.
    paused: Option<u64>,
    /// Packets compared, and those of them that hit a megaflow.
    pub packets: u64,
    pub hits: u64,
}

impl Pair {
    pub fn new() -> Pair {
        let misses = Misses::default();
        let real = Side::new(|_, inner| Arc::new(Recorder { inner: inner.clone(), misses: misses.clone() }));
        let twin = Side::new(|world, inner| {
            Arc::new(Scratch {
                inner: inner.clone(),
                world: world.clone(),
                misses: misses.clone(),
                out: Mutex::default(),
            })
        });
        twin.upcalls.set_flow_limit(0);
        twin.revalidation(10_000, 0);
        Pair { real, twin, misses, paused: None, packets: 0, hits: 0 }
    }

    fn sides(&mut self) -> [&mut Side; 2] {
        [&mut self.real, &mut self.twin]
    }

    fn settle(&mut self) {
        if self.paused.is_none() {
            self.sides().into_iter().for_each(|s| {
                s.settle();
            });
        }
    }

    /// Whether what packets meet is defined now.
    fn defined(&self) -> bool {
        self.paused.is_none_or(|seq| seq == self.twin.world.seq())
    }

    fn packet(&mut self, op: &Op) -> Result<(), String> {
        let Op::Packet { bridge, port, spec, times } = op else { return Ok(()) };
        // What the first of them changes the others meet, so it goes alone.
        for n in [1, times - 1] {
            if n == 0 || !self.defined() {
                continue;
            }
            self.misses.lock().clear();
            self.real.send(*bridge, *port, spec, n);
            let missed = self.misses.lock().len();
            self.twin.send(*bridge, *port, spec, n);
            self.packets += n as u64;
            self.hits += n.saturating_sub(missed) as u64;
            if n > 1 {
                // A megaflow's actions run on all its packets at once: the order among equal packets is open.
                self.sides().into_iter().for_each(|s| s.out.sort());
            }
            self.compare_output()?;
            self.settle();
        }
        Ok(())
    }

    /// Carries out one event on both sides and compares.
    pub fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Packet { .. } => self.packet(op)?,
            Op::PacketOut { .. } if !self.defined() => {}
            Op::Pause => self.paused = self.paused.or(Some(self.twin.world.seq())),
            Op::Resume => self.paused = None,
            Op::Purge => self.real.sweeps.own().purge(),
            Op::Limit(n) => self.real.upcalls.set_flow_limit(*n),
            Op::Revalidation { max_idle, flow_limit } => self.real.revalidation(*max_idle, *flow_limit),
            Op::Megaflows(on) => {
                self.real.upcalls.set_megaflows(*on);
                self.real.sweeps.own().purge();
            }
            other => {
                if let (Op::Warp(_), Some(seq)) = (other, &mut self.paused) {
                    // Addresses grow old, which only a sweep tells flows.
                    *seq = 0;
                }
                self.misses.lock().clear();
                self.sides().into_iter().for_each(|s| s.apply(other));
            }
        }
        self.settle();
        self.compare()
    }

    fn compare_output(&mut self) -> Result<(), String> {
        let (a, b) = (std::mem::take(&mut self.real.out), std::mem::take(&mut self.twin.out));
        if a == b {
            return Ok(());
        }
        let (x, y) = (only(&a, &b), only(&b, &a));
        let (c, d) = (self.real.state().totals, self.twin.state().totals);
        let (c, d) = (only(&c, &d), only(&d, &c));
        Err(format!(
            "output ({} and {})\n  with caches:  {x:#?} {c:?}\n  from scratch: {y:#?} {d:?}",
            a.len(),
            b.len()
        ))
    }

    fn compare(&mut self) -> Result<(), String> {
        self.compare_output()?;
        let (a, b) = (self.real.state(), self.twin.state());
        let mut text = String::new();
        let mut differ = |what: &str, x: String, y: String| {
            text += &format!("{what}\n  with caches:  {x}\n  from scratch: {y}\n");
        };
        macro_rules! field {
            ($($f:ident)*) => { $(if a.$f != b.$f {
                let only = |p: &_, q: &_| format!("{:?}", only(p, q));
                differ(stringify!($f), only(&a.$f, &b.$f), only(&b.$f, &a.$f));
            })* };
        }
        field!(rules tables ports macs totals);
        let t = self.real.totals();
        if t.received + t.executed + t.copies != t.sent + t.userspace + t.total_dropped() {
            differ("packets got lost", format!("{t:?}"), String::new());
        }
        if text.is_empty() {
            Ok(())
        } else {
            Err(text)
        }
    }

    /// Nothing is left once no packet has come for long.
    pub fn finish(&mut self) -> Result<(), String> {
        self.step(&Op::Resume)?;
        for _ in 0..4 {
            self.step(&Op::Warp(70_000))?;
        }
        let left = self.real.leftovers();
        if left != (0, 0, 0) {
            return Err(format!("left over: {left:?} (megaflows, ukeys, recirculation ids)"));
        }
        Ok(())
    }
}

/// What is in `a` and not, or differently, in `b`.
fn only<T: PartialEq + Clone>(
    a: &(impl IntoIterator<Item = T> + Clone),
    b: &(impl IntoIterator<Item = T> + Clone),
) -> Vec<T> {
    let b: Vec<T> = b.clone().into_iter().collect();
    a.clone().into_iter().filter(|x| !b.contains(x)).collect()
}

/// Runs a history; an error tells the step and the difference.
pub fn run(ops: &[Op]) -> Result<(u64, u64), (usize, String)> {
    let mut pair = Pair::new();
    for (i, op) in ops.iter().enumerate() {
        pair.step(op).map_err(|e| (i, e))?;
    }
    pair.finish().map_err(|e| (ops.len(), e))?;
    Ok((pair.packets, pair.hits))
}

/// The events of `seed`.
pub fn history(seed: u64, steps: usize) -> Vec<Op> {
    let mut source = Source::new(seed, false);
    (0..steps).map(|_| source.next()).collect()
}

/// Leaves out whatever is not needed for a difference.
pub fn shrink(mut ops: Vec<Op>) -> Vec<Op> {
    let mut chunk = ops.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            if let Err((end, _)) = run(&fewer) {
                fewer.truncate(end + 1);
                ops = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    ops
}

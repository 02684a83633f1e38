//! The threads of a revalidator: the first leads, the others follow.
//!
//! The leader begins a sweep; between two barriers all of them take batches of flows; the leader ends the sweep, adapts
//! the flow limit and waits for the next. Neighbours: `slowpath` starts and ends them. Threads: it is they.

use super::sweep::Round;
use super::Revalidator;
use crate::xlate::XlateOut;
use infra::cpu::thread_number;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

static LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto_dpif_upcall");

/// Least time between two starts of sweeps, ms.
const MIN_INTERVAL_MS: u64 = 5;
/// How often announcements are taken between sweeps: while they come, and while none do, ms.
const BUSY_SLICE_MS: u64 = 10;
const QUIET_SLICE_MS: u64 = 100;

/// What the threads of one revalidator share.
pub struct Team {
    ids: Vec<u32>,
    barrier: Barrier,
    /// The sweep under way; none when the threads are to end.
    round: Mutex<Option<Arc<Round>>>,
    over: AtomicBool,
}

impl Team {
    /// A team whose members have these numbers.
    pub fn new(ids: Vec<u32>) -> Team {
        Team {
            barrier: Barrier::new(ids.len().max(1)),
            round: Mutex::default(),
            over: AtomicBool::new(ids.is_empty()),
            ids,
        }
    }

    /// Numbers of the threads, the leader first.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether it is to end, or never was.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Revalidator {
    /// Makes `team` the one that sweeps; [`Revalidator::run`] does it.
    pub fn set_team(&self, team: Arc<Team>) {
        *self.team.lock() = team;
    }

    /// The loop of member `index` of a team. Ends after [`Revalidator::stop`].
    pub fn run(&self, team: &Team, index: usize, clock: &dyn Fn() -> u64) {
        if index == 0 {
            self.lead(team, clock);
        } else {
            self.follow(team);
        }
    }

    fn lead(&self, team: &Team, clock: &dyn Fn() -> u64) {
        while !team.is_over() {
            if self.paused.load(Ordering::Acquire) && !self.purge.load(Ordering::Acquire) {
                self.world.wait_change(self.world.seq(), Duration::from_millis(QUIET_SLICE_MS));
                self.take_events();
                continue;
            }
            let seq = self.world.seq();
            let (start, began_ms) = (Instant::now(), clock());
            let mut out = self.sweeping.lock();
            let round = Arc::new(self.begin(began_ms, &mut out));
            *team.round.lock() = Some(round.clone());
            team.barrier.wait();
            self.work(&round, &mut out, &|| team.is_over());
            team.barrier.wait();
            drop(out);
            *team.round.lock() = None;
            let took = (!team.is_over()).then(|| start.elapsed().as_millis() as u64);
            self.end(&round, took);
            drop(round);
            let config = *self.config.lock();
            let interval = config.max_idle_ms.min(config.max_revalidator_ms);
            self.rest(team, seq, began_ms.saturating_add(interval), clock);
            let rest = Duration::from_millis(MIN_INTERVAL_MS).saturating_sub(start.elapsed());
            if !rest.is_zero() {
                std::thread::sleep(rest);
            }
        }
        team.barrier.wait();
    }

    fn follow(&self, team: &Team) {
        let mut out = XlateOut::default();
        loop {
            team.barrier.wait();
            let Some(round) = team.round.lock().clone() else { return };
            self.work(&round, &mut out, &|| team.is_over());
            team.barrier.wait();
        }
    }

    /// Waits for a change, for somebody who wants a sweep, or for the time `until` on the clock, which may stand still.
    /// Meanwhile takes what the datapath announces, often while much comes, so that the rings of busy threads do not
    /// overflow.
    fn rest(&self, team: &Team, seq: u64, until: u64, clock: &dyn Fn() -> u64) {
        let mut busy = true;
        while self.world.seq() == seq && !team.is_over() {
            let left = Duration::from_millis(until.saturating_sub(clock()));
            let wanted = self.wanted.load(Ordering::Acquire) > self.begun.load(Ordering::Acquire);
            if left.is_zero() || wanted {
                return;
            }
            let slice = left.min(Duration::from_millis(if busy { BUSY_SLICE_MS } else { QUIET_SLICE_MS }));
            let began = Instant::now();
            self.world.wait_change(seq, slice);
            if began.elapsed() < slice {
                // Somebody wants a sweep now.
                return;
            }
            busy = self.take_events() > 0;
        }
    }

    /// Ends the loops of the team. A sweep under way is broken off.
    pub fn stop(&self) {
        self.team.lock().over.store(true, Ordering::Release);
        self.world.wake();
    }
}

/// Running threads of a revalidator.
pub struct Threads {
    revalidator: Arc<Revalidator>,
    joins: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `n` threads, or as many as can be had.
    ///
    /// # Errors
    /// None can be had.
    pub fn start(
        revalidator: &Arc<Revalidator>,
        n: usize,
        clock: &Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> std::io::Result<Threads> {
        let (mut ids, mut joins, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..n.max(1) {
            let id = thread_number();
            let (gate, opened) = mpsc::channel::<Arc<Team>>();
            let (rev, clock) = (revalidator.clone(), clock.clone());
            let body = move || {
                let Ok(team) = opened.recv() else { return };
                rev.run(&team, index, clock.as_ref());
            };
            match spawn(&format!("revalidator{id}"), body) {
                Ok(j) => joins.push(j),
                Err(e) if index == 0 => return Err(e),
                Err(e) => {
                    infra::vlog!(LOG, Err, "only {index} of {n} revalidator threads can be started: {e}");
                    break;
                }
            }
            ids.push(id);
            gates.push(gate);
        }
        let team = Arc::new(Team::new(ids));
        revalidator.set_team(team.clone());
        for gate in gates {
            // The thread waits for it.
            let _ = gate.send(team.clone());
        }
        Ok(Threads { revalidator: revalidator.clone(), joins })
    }

    /// Ends them.
    pub fn stop(self) {
        self.revalidator.stop();
        for j in self.joins {
            if j.join().is_err() {
                infra::vlog!(LOG, Err, "a revalidator thread ended with a panic");
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let full = name.to_owned();
    std::thread::Builder::new().name(full.clone()).spawn(move || {
        infra::cpu::name_thread(&full);
        body();
    })
}

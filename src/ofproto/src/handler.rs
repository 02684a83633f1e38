//! Handlers: threads that translate the packets which a datapath queued for user space.
//!
//! A handler takes up to [`MAX_BATCH`] packets from its channel, translates them, and gives the datapath one batch of
//! operations: for each packet, in order of arrival, the flow to install and what to do with the packet. A datapath
//! without a queue translates on its own threads; its handlers sleep.
//!
//! Neighbours: `datapath::provider` queues, `upcall` translates, `revalidate` hears of the flows from the datapath,
//! main takes the packets for controllers ([`Handlers::drain_userspace`]). Threads: `handlerN`; started and stopped by
//! main; they sleep in poll.

mod batch;

use crate::upcall::Upcalls;
use datapath::{Clock, DpError, Provider, UserspacePacket};
use infra::poll::Poller;
use infra::Waker;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) static LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto_dpif_upcall");

/// Packets of one batch.
pub const MAX_BATCH: usize = 50;
/// Packets for controllers that wait for main; those beyond are lost.
const MAX_WAITING: usize = 1024;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// Counters of all handlers of a datapath; `coverage/show` has the sums over datapaths.
        #[derive(Default, Debug)]
        pub struct HandlerStats {
            $($(#[$doc])* pub $field: AtomicU64,)*
        }

        impl HandlerStats {
            $(fn $field(&self) {
                static COUNTER: infra::coverage::Counter = infra::coverage::Counter::new($name);
                COUNTER.inc();
                self.$field.fetch_add(1, Ordering::Relaxed);
            })*
        }
    };
}

counters! {
    /// Batches handled.
    batches = "handler_batch",
    /// Packets that met no flow.
    misses = "handler_miss",
    /// Packets of the slow path.
    slow_path = "handler_slow_path",
    /// Packets for controllers.
    controller = "handler_controller",
    /// Packets for controllers that were lost because too many wait.
    controller_lost = "handler_controller_lost",
    /// Samples of sFlow; nothing exports them.
    sflow = "handler_sflow",
    /// Samples of `sample` actions; nothing exports them.
    flow_sample = "handler_flow_sample",
    /// Samples of IPFIX; nothing exports them.
    ipfix = "handler_ipfix",
    /// Packets whose key or cookie makes no sense, or that are too short.
    bad = "handler_bad_upcall",
    /// Packets from ports that no bridge has.
    unknown_port = "handler_unknown_port",
    /// Packets dropped while the tables are being restored.
    restoring = "handler_flow_restore_wait",
    /// Flows asked for.
    puts = "handler_flow_put",
    /// Flows that were there already: the packet was under way when another brought them.
    duplicates = "handler_duplicate_upcall",
    /// Operations that the datapath refused.
    refused = "handler_operation_refused",
}

/// What handlers share.
struct Shared {
    dp: Arc<dyn Provider>,
    upcalls: Arc<Upcalls>,
    clock: Clock,
    stats: HandlerStats,
    inbox: Mutex<VecDeque<UserspacePacket>>,
    inbox_waker: Waker,
}

/// A thread.
struct Thread {
    join: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    waker: Waker,
}

/// The handlers of one datapath.
pub struct Handlers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<Thread>>,
}

impl Handlers {
    /// Handlers for `dp`, none of which runs yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(upcalls: Arc<Upcalls>, dp: Arc<dyn Provider>, clock: Clock) -> std::io::Result<Handlers> {
        let shared = Shared {
            dp,
            upcalls,
            clock,
            stats: HandlerStats::default(),
            inbox: Mutex::default(),
            inbox_waker: Waker::new()?,
        };
        Ok(Handlers { shared: Arc::new(shared), threads: Mutex::default() })
    }

    /// Makes `names.len()` threads run, each named `handlerN` after its number. Those that run are ended first, with
    /// what is queued for them.
    ///
    /// # Errors
    /// The datapath refuses so many channels, or a thread cannot be had; none runs then.
    pub fn start(&self, numbers: &[u32]) -> Result<(), DpError> {
        let mut threads = self.threads.lock();
        end(&mut threads);
        if let Some(q) = self.shared.dp.queue() {
            q.set_handlers(numbers.len())?;
        }
        for (i, number) in numbers.iter().enumerate() {
            match self.spawn(i, *number) {
                Ok(t) => threads.push(t),
                Err(e) => {
                    end(&mut threads);
                    self.shared.close();
                    return Err(DpError::Thread(e));
                }
            }
        }
        Ok(())
    }

    fn spawn(&self, index: usize, number: u32) -> std::io::Result<Thread> {
        let poller = Poller::new()?;
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), poller.waker());
        let (shared, ends) = (self.shared.clone(), stop.clone());
        let name = format!("handler{number}");
        let body = move || {
            infra::cpu::name_thread(&format!("handler{number}"));
            shared.run(index, poller, &ends);
        };
        let join = std::thread::Builder::new().name(name).spawn(body)?;
        Ok(Thread { join, stop, waker })
    }

    /// Ends all threads. What misses from now on is lost, and counted by the datapath.
    pub fn stop(&self) {
        end(&mut self.threads.lock());
        self.shared.close();
    }

    /// Threads that run.
    pub fn count(&self) -> usize {
        self.threads.lock().len()
    }

    /// Counters.
    pub fn stats(&self) -> &HandlerStats {
        &self.shared.stats
    }

    /// Does what handler `index` does with one batch, on the caller's thread. Returns the packets it had.
    pub fn turn(&self, index: usize) -> usize {
        self.shared.batch(index)
    }

    /// Takes up to `max` packets for controllers. Returns how many.
    pub fn drain_userspace(&self, max: usize, f: &mut dyn FnMut(UserspacePacket)) -> usize {
        self.shared.inbox_waker.drain();
        let mut inbox = self.shared.inbox.lock();
        let n = inbox.len().min(max);
        let taken: Vec<_> = inbox.drain(..n).collect();
        if !inbox.is_empty() {
            self.shared.inbox_waker.wake();
        }
        drop(inbox);
        taken.into_iter().for_each(f);
        n
    }

    /// Woken when there are packets for controllers.
    pub fn userspace_waker(&self) -> Waker {
        self.shared.inbox_waker.clone()
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        end(&mut self.threads.lock());
    }
}

fn end(threads: &mut Vec<Thread>) {
    for t in threads.iter() {
        t.stop.store(true, Ordering::Release);
        t.waker.wake();
    }
    for t in threads.drain(..) {
        if t.join.join().is_err() {
            infra::vlog!(LOG, Err, "a handler thread ended with a panic");
        }
    }
}

impl Shared {
    /// Has nothing queued any more.
    fn close(&self) {
        if let Some(Err(e)) = self.dp.queue().map(|q| q.set_handlers(0)) {
            infra::vlog!(LOG, Err, "{}: cannot stop queueing: {e}", self.dp.full_name());
        }
    }

    fn run(&self, index: usize, mut poller: Poller, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            if self.batch(index) > 0 {
                continue;
            }
            if let Some(q) = self.dp.queue() {
                let waker = q.waker(index);
                // What is announced from here on must wake.
                waker.iter().for_each(Waker::drain);
                if !q.prepare_sleep(index) {
                    continue;
                }
                waker.iter().for_each(|w| poller.fd_in(w.fd()));
            }
            poller.block();
        }
    }

    /// Hands a packet to main.
    fn to_main(&self, p: UserspacePacket) {
        let mut inbox = self.inbox.lock();
        if inbox.len() >= MAX_WAITING {
            return self.stats.controller_lost();
        }
        self.stats.controller();
        inbox.push_back(p);
        let first = inbox.len() == 1;
        drop(inbox);
        if first {
            self.inbox_waker.wake();
        }
    }
}

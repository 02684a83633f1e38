//! A port that gives out packets of many flows, and watches how long its poll-mode thread takes for a round.

use infra::process::Usage;
use netdev::{Config, LinkState, Netdev, RxQueue, Stats, TxQueue};
use packet::{Batch, Packet, BATCH_SIZE};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// What a port gives out, and what it saw.
#[derive(Default)]
pub struct Traffic {
    /// Flows to give out packets of, in turn; none: nothing.
    pub flows: AtomicU32,
    /// Packets given out.
    pub sent: AtomicU64,
    /// Longest round in which the kernel did not take the core away, ns; and the longest of all.
    pub own_ns: AtomicU64,
    pub all_ns: AtomicU64,
    /// Rounds.
    pub rounds: AtomicU64,
}

impl Traffic {
    pub fn forget_rounds(&self) {
        [&self.own_ns, &self.all_ns, &self.rounds].iter().for_each(|c| c.store(0, Ordering::Relaxed));
    }
}

pub struct Source {
    pub name: String,
    pub traffic: Arc<Traffic>,
}

struct Rx {
    traffic: Arc<Traffic>,
    at: u32,
    last: Option<Instant>,
    switches: (i64, i64),
}

/// A UDP frame of flow `i`.
fn frame(i: u32) -> [u8; 60] {
    let mut f = [0; 60];
    f[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    f[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    f[26..30].copy_from_slice(&(0x0a00_0000 + i).to_be_bytes());
    f[30..34].copy_from_slice(&[11, 0, 0, 1]);
    f[34..38].copy_from_slice(&[4, 1, 8, 1]);
    f[38..40].copy_from_slice(&26u16.to_be_bytes());
    f
}

impl RxQueue for Rx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        let t = &self.traffic;
        let now = Instant::now();
        if let Some(last) = self.last {
            let ns = (now - last).as_nanos() as u64;
            t.all_ns.fetch_max(ns, Ordering::Relaxed);
            // Asking the kernel for every round would make each of them long.
            if ns > 100_000 {
                let switches = Usage::thread().switches;
                if switches == std::mem::replace(&mut self.switches, switches) {
                    t.own_ns.fetch_max(ns, Ordering::Relaxed);
                }
            } else {
                t.own_ns.fetch_max(ns, Ordering::Relaxed);
            }
            t.rounds.fetch_add(1, Ordering::Relaxed);
        }
        self.last = Some(Instant::now());
        let flows = t.flows.load(Ordering::Relaxed);
        if flows == 0 {
            return 0;
        }
        for _ in 0..BATCH_SIZE {
            self.at = (self.at + 1) % flows;
            // The batch is empty before.
            let _ = batch.push(Packet::from_slice(&frame(self.at)));
        }
        t.sent.fetch_add(BATCH_SIZE as u64, Ordering::Relaxed);
        0
    }
}

struct Tx;

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) {
        batch.clear();
    }
    fn max_frame(&self) -> usize {
        1518
    }
}

impl Netdev for Source {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "source"
    }
    fn is_pmd(&self) -> bool {
        true
    }
    fn n_rxq(&self) -> usize {
        1
    }
    fn n_txq(&self) -> usize {
        8
    }
    fn set_n_txq(&self, _: usize) -> netdev::Result<()> {
        Ok(())
    }
    fn rx_queue(&self, _: usize) -> netdev::Result<Box<dyn RxQueue>> {
        Ok(Box::new(Rx { traffic: self.traffic.clone(), at: 0, last: None, switches: (0, 0) }))
    }
    fn tx_queue(&self, _: usize) -> netdev::Result<Box<dyn TxQueue>> {
        Ok(Box::new(Tx))
    }
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 9]
    }
    fn set_mac(&self, _: [u8; 6]) -> netdev::Result<()> {
        Ok(())
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn set_mtu(&self, _: u16) -> netdev::Result<()> {
        Ok(())
    }
    fn set_config(&self, _: &Config) -> netdev::Result<bool> {
        Ok(false)
    }
    fn link(&self) -> LinkState {
        LinkState::default()
    }
    fn set_admin_up(&self, _: bool) -> netdev::Result<()> {
        Ok(())
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

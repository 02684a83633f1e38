//! A port for benches and the steady-state test: receives the same frames for ever, and gets the buffers back that
//! another sends.
//!
//! Like a replay device, it copies a frame into a buffer for each packet received. Threads: one, or as many as poll.

use netdev::{Config, LinkState, Netdev, RxQueue, Stats, TxQueue};
use packet::{Batch, Packet, BATCH_SIZE};
use parking_lot::Mutex;
use std::sync::Arc;

/// Free buffers, shared by the ports of a run.
pub type Pool = Arc<Mutex<Vec<Packet>>>;

/// A pool of `n` buffers of `len` bytes.
pub fn pool(n: usize, len: usize) -> Pool {
    Arc::new(Mutex::new((0..n).map(|_| Packet::from_slice(&vec![0; len])).collect()))
}

/// The port.
pub struct Wire {
    name: String,
    frames: Arc<Vec<Vec<u8>>>,
    pool: Pool,
}

impl Wire {
    /// A port that receives `frames` in turn (none: nothing).
    pub fn new(name: &str, frames: Vec<Vec<u8>>, pool: &Pool) -> Arc<Wire> {
        Arc::new(Wire { name: name.into(), frames: Arc::new(frames), pool: Arc::clone(pool) })
    }
}

struct Rx {
    frames: Arc<Vec<Vec<u8>>>,
    pool: Pool,
    at: usize,
}

impl RxQueue for Rx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        if self.frames.is_empty() {
            return 0;
        }
        let mut pool = self.pool.lock();
        for _ in 0..BATCH_SIZE {
            let Some(mut p) = pool.pop() else { break };
            let f = &self.frames[self.at];
            self.at += 1;
            if self.at == self.frames.len() {
                self.at = 0;
            }
            // Also takes off what a push put before the frame.
            p.pop_front(p.len().saturating_sub(f.len()));
            p.data_mut().copy_from_slice(f);
            let _ = batch.push(p);
        }
        0
    }
}

struct Tx(Pool);

impl TxQueue for Tx {
    fn send(&mut self, batch: &mut Batch) {
        self.0.lock().extend(batch.drain());
    }

    fn max_frame(&self) -> usize {
        1518
    }
}

impl Netdev for Wire {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "wire"
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
        Ok(Box::new(Rx { frames: Arc::clone(&self.frames), pool: Arc::clone(&self.pool), at: 0 }))
    }
    fn tx_queue(&self, _: usize) -> netdev::Result<Box<dyn TxQueue>> {
        Ok(Box::new(Tx(Arc::clone(&self.pool))))
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

/// A UDP frame of flow `i` of `len` bytes, as a replayed capture would have it.
pub fn udp(i: u32, len: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    f.extend(((len - 14) as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    f.extend((0x0a00_0000 + (i & 0xffff)).to_be_bytes());
    f.extend((0x0b00_0000 + (i / 65_536) * 256 + i % 251).to_be_bytes());
    f.extend((1024 + (i % 60_000) as u16).to_be_bytes());
    f.extend((2048 + (i % 20) as u16).to_be_bytes());
    f.extend(((len - 34) as u16).to_be_bytes());
    f.resize(len, 0);
    f
}

/// Frames of `n` flows in a scattered order.
pub fn flows(n: u32, len: usize) -> Vec<Vec<u8>> {
    let step = 7_919u64;
    (0..u64::from(n)).map(|i| udp((i * step % u64::from(n)) as u32, len)).collect()
}

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
    attack: Arc<Attack>,
    pool: Pool,
}

/// Frames that are mixed in, each once.
#[derive(Default)]
pub struct Attack {
    /// The frames.
    pub frames: Vec<Vec<u8>>,
    /// So many come at once, in the first bursts.
    pub at_once: usize,
    /// Whether those come alone, before other frames.
    pub first: bool,
    /// Cycles before the rest, which come one a burst.
    pub pause: u64,
}

impl Wire {
    /// A port that receives `frames` in turn (none: nothing).
    pub fn new(name: &str, frames: Vec<Vec<u8>>, pool: &Pool) -> Arc<Wire> {
        Wire::with_attack(name, frames, Attack::default(), pool)
    }

    /// As `new`, with other frames in between.
    pub fn with_attack(name: &str, frames: Vec<Vec<u8>>, attack: Attack, pool: &Pool) -> Arc<Wire> {
        let (frames, attack) = (Arc::new(frames), Arc::new(attack));
        Arc::new(Wire { name: name.into(), frames, attack, pool: Arc::clone(pool) })
    }
}

struct Rx {
    frames: Arc<Vec<Vec<u8>>>,
    pool: Pool,
    at: usize,
    attack: Arc<Attack>,
    attack_at: usize,
    next: u64,
}

impl RxQueue for Rx {
    fn recv(&mut self, batch: &mut Batch) -> u32 {
        if self.frames.is_empty() {
            return 0;
        }
        if self.attack_at < self.attack.frames.len() && self.mix_in(batch) {
            return 0;
        }
        let mut pool = self.pool.lock();
        for _ in 0..BATCH_SIZE {
            if batch.len() == BATCH_SIZE {
                break;
            }
            let Some(p) = pool.pop() else { break };
            let f = &self.frames[self.at];
            self.at += 1;
            if self.at == self.frames.len() {
                self.at = 0;
            }
            fill(p, f, batch);
        }
        0
    }
}

impl Rx {
    /// Puts in a frame of the attack if one is due; whether nothing else shall come.
    #[cold]
    fn mix_in(&mut self, batch: &mut Batch) -> bool {
        let at_once = self.attack_at < self.attack.at_once;
        let now = infra::clock::tsc();
        if !at_once && now < self.next {
            return false;
        }
        if at_once {
            self.next = now + self.attack.pause;
        }
        if let Some(p) = self.pool.lock().pop() {
            fill(p, &self.attack.frames[self.attack_at], batch);
            self.attack_at += 1;
        }
        at_once && self.attack.first
    }
}

#[inline(always)]
fn fill(mut p: Packet, f: &[u8], batch: &mut Batch) {
    // Also takes off what a push put before the frame.
    p.pop_front(p.len().saturating_sub(f.len()));
    p.data_mut().copy_from_slice(f);
    let _ = batch.push(p);
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
        Ok(Box::new(Rx {
            frames: Arc::clone(&self.frames),
            pool: Arc::clone(&self.pool),
            at: 0,
            attack: Arc::clone(&self.attack),
            attack_at: 0,
            next: 0,
        }))
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

//! The packet buffer: an `rte_mbuf`-shaped header and its single owner.
//!
//! Neighbours: `dpdk` asserts at compile time that the offsets below are those of the installed
//! libdpdk. Threads: a [`Packet`] is `Send`; nobody shares one.

use std::alloc::{alloc, dealloc, Layout};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Bytes kept free before the frame so that headers can be pushed without a copy.
pub const HEADROOM: usize = 128;

/// The header of a packet buffer, laid out as `struct rte_mbuf` (128 bytes, two cache lines).
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Mbuf {
    /// Start of the data room (not of the frame).
    pub buf_addr: *mut u8,
    /// I/O address of `buf_addr`, for devices.
    pub buf_iova: u64,
    /// Frame start, in bytes from `buf_addr`.
    pub data_off: u16,
    /// References to the buffer; 1 while a [`Packet`] owns it.
    pub refcnt: u16,
    /// Segments of the chain.
    pub nb_segs: u16,
    /// Device port id.
    pub port: u16,
    /// Offload flags (`RTE_MBUF_F_*`).
    pub ol_flags: u64,
    /// Packet type as classified by the device.
    pub packet_type: u32,
    /// Frame length over all segments, bytes.
    pub pkt_len: u32,
    /// Bytes in this segment.
    pub data_len: u16,
    /// Stripped VLAN TCI.
    pub vlan_tci: u16,
    /// RSS hash when `ol_flags` has `RTE_MBUF_F_RX_RSS_HASH`.
    pub rss: u32,
    /// Upper half of the hash union.
    pub hash_hi: u32,
    /// Stripped outer VLAN TCI.
    pub vlan_tci_outer: u16,
    /// Length of the data room, bytes.
    pub buf_len: u16,
    /// Owning mempool; null for a heap buffer.
    pub pool: *mut c_void,
    /// Next segment.
    pub next: *mut Mbuf,
    /// Transmit offload lengths.
    pub tx_offload: u64,
    /// Shared info of an external buffer.
    pub shinfo: *mut c_void,
    /// Size of the private area.
    pub priv_size: u16,
    /// Timesync flags.
    pub timesync: u16,
    /// Dynamic fields.
    pub dynfield1: [u32; 9],
}

/// `RTE_MBUF_F_RX_RSS_HASH`: `rss` is valid.
pub const RX_RSS_HASH: u64 = 1 << 1;

/// How to free and copy buffers that belong to a pool (registered once by the `dpdk` crate).
#[derive(Clone, Copy)]
pub struct PoolOps {
    /// Gives the buffer back to its pool.
    pub free: unsafe fn(*mut Mbuf),
    /// Copies the whole frame into a new buffer of the same pool; null when the pool is empty.
    pub copy: unsafe fn(*const Mbuf) -> *mut Mbuf,
}

static POOL_OPS: OnceLock<PoolOps> = OnceLock::new();

/// Registers the functions for pool buffers. A second registration is ignored.
///
/// # Safety
/// The functions must be sound for every mbuf whose `pool` is not null.
pub unsafe fn register_pool_ops(ops: PoolOps) {
    let _ = POOL_OPS.set(ops);
}

/// One frame with its buffer. Freed on drop.
#[repr(transparent)]
pub struct Packet(NonNull<Mbuf>);

// SAFETY: a Packet is the only owner of its buffer (constructor contracts), so it may move to
// another thread with everything it points at.
unsafe impl Send for Packet {}

const HEADER: usize = std::mem::size_of::<Mbuf>();

fn heap_layout(buf_len: usize) -> Layout {
    // The sum is at most 128 + 65,535, the alignment a power of two: always a valid layout.
    Layout::from_size_align(HEADER + buf_len, 64).expect("layout of at most 64 KiB is valid")
}

impl Packet {
    /// A heap packet holding a copy of `frame` (at most 65,000 bytes; longer input is cut there).
    pub fn from_slice(frame: &[u8]) -> Packet {
        let mut p = Packet::with_room(frame.len());
        let n = p.len();
        p.data_mut().copy_from_slice(&frame[..n]);
        p
    }

    /// A zeroed heap packet of `len` bytes (at most 65,000) with [`HEADROOM`] before it.
    pub fn with_room(len: usize) -> Packet {
        let len = len.min(65_000);
        let buf_len = HEADROOM + len.max(64) + 64;
        let layout = heap_layout(buf_len);
        // SAFETY: the layout has a non-zero size; the result is checked for null before use, and
        // header and data room are both initialised before anything reads them.
        unsafe {
            let m = alloc(layout).cast::<Mbuf>();
            let Some(nn) = NonNull::new(m) else { std::alloc::handle_alloc_error(layout) };
            std::ptr::write_bytes(m.cast::<u8>(), 0, HEADER + buf_len);
            (*m).buf_addr = m.cast::<u8>().add(HEADER);
            (*m).data_off = HEADROOM as u16;
            (*m).refcnt = 1;
            (*m).nb_segs = 1;
            (*m).buf_len = buf_len as u16;
            (*m).pkt_len = len as u32;
            (*m).data_len = len as u16;
            Packet(nn)
        }
    }

    /// Takes ownership of a raw buffer.
    ///
    /// # Safety
    /// `m` is a valid, uniquely owned mbuf whose `data_off + data_len <= buf_len`.
    pub unsafe fn from_raw(m: NonNull<Mbuf>) -> Packet {
        Packet(m)
    }

    /// Gives ownership of the raw buffer away.
    pub fn into_raw(self) -> NonNull<Mbuf> {
        let p = self.0;
        std::mem::forget(self);
        p
    }

    /// The header.
    #[inline(always)]
    pub fn mbuf(&self) -> &Mbuf {
        // SAFETY: self.0 is a valid buffer owned by self (constructor contracts).
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn mbuf_mut(&mut self) -> &mut Mbuf {
        // SAFETY: as in `mbuf`, and &mut self is exclusive.
        unsafe { self.0.as_mut() }
    }

    /// Whether the buffer is from the heap (not from a device pool).
    #[inline(always)]
    pub fn is_heap(&self) -> bool {
        self.mbuf().pool.is_null()
    }

    /// Frame length in this segment, bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.mbuf().data_len)
    }

    /// Frame length over all segments, bytes.
    #[inline(always)]
    pub fn frame_len(&self) -> usize {
        self.mbuf().pkt_len as usize
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame's bytes (first segment).
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        let m = self.mbuf();
        // SAFETY: data_off + data_len <= buf_len holds for every Packet (constructor contracts and
        // the checks in push/pop/truncate), and buf_addr points at buf_len bytes.
        unsafe {
            std::slice::from_raw_parts(m.buf_addr.add(usize::from(m.data_off)), usize::from(m.data_len))
        }
    }

    /// The frame's bytes, writable.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let m = self.mbuf_mut();
        // SAFETY: as in `data`, and &mut self is exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(m.buf_addr.add(usize::from(m.data_off)), usize::from(m.data_len))
        }
    }

    /// Makes `n` bytes of room before the frame (contents undefined but initialised). False, and
    /// nothing changed, when the headroom or the length field is too small.
    #[inline]
    pub fn push_front(&mut self, n: usize) -> bool {
        let m = self.mbuf_mut();
        if n > usize::from(m.data_off) || usize::from(m.data_len) + n > usize::from(u16::MAX) {
            return false;
        }
        m.data_off -= n as u16;
        m.data_len += n as u16;
        m.pkt_len += n as u32;
        true
    }

    /// Removes `n` bytes from the front. False, and nothing changed, when the frame is shorter.
    #[inline]
    pub fn pop_front(&mut self, n: usize) -> bool {
        let m = self.mbuf_mut();
        if n > usize::from(m.data_len) {
            return false;
        }
        m.data_off += n as u16;
        m.data_len -= n as u16;
        m.pkt_len -= n as u32;
        true
    }

    /// Cuts the frame to at most `n` bytes (single-segment frames only; others stay whole).
    pub fn truncate(&mut self, n: usize) {
        let m = self.mbuf_mut();
        if m.nb_segs == 1 && n < usize::from(m.data_len) {
            m.data_len = n as u16;
            m.pkt_len = n as u32;
        }
    }

    /// The RSS hash the device computed, if it did.
    #[inline(always)]
    pub fn rss_hash(&self) -> Option<u32> {
        let m = self.mbuf();
        (m.ol_flags & RX_RSS_HASH != 0).then_some(m.rss)
    }

    /// A copy of the whole frame: from the same pool, or from the heap for heap packets. `None`
    /// when the pool is exhausted.
    pub fn try_clone(&self) -> Option<Packet> {
        if self.is_heap() {
            return Some(Packet::from_slice(self.data()));
        }
        let ops = POOL_OPS.get()?;
        // SAFETY: self owns a valid pool buffer, which is what the registered function takes.
        NonNull::new(unsafe { (ops.copy)(self.0.as_ptr()) }).map(Packet)
    }

    /// Asks the processor to fetch the header line.
    #[inline(always)]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect on memory and may be given any address.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            _mm_prefetch(self.0.as_ptr().cast::<i8>(), _MM_HINT_T0);
        }
    }

    /// Asks the processor to fetch the first bytes of the frame.
    #[inline(always)]
    pub fn prefetch_data(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect on memory and may be given any address.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            let m = self.mbuf();
            _mm_prefetch(m.buf_addr.wrapping_add(usize::from(m.data_off)).cast::<i8>(), _MM_HINT_T0);
        }
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        let m = self.0.as_ptr();
        // SAFETY: self owns the buffer. A heap buffer was made by `with_room` with this layout; a
        // pool buffer goes to the function registered for pools (no pool exists before that).
        unsafe {
            if (*m).pool.is_null() {
                dealloc(m.cast(), heap_layout(usize::from((*m).buf_len)));
            } else if let Some(ops) = POOL_OPS.get() {
                (ops.free)(m);
            }
        }
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({} bytes)", self.len())
    }
}

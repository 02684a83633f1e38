//! Compile-time proof that [`packet::Mbuf`] is laid out as the installed libdpdk's `rte_mbuf`, and
//! the functions by which `packet` frees and copies pool buffers.
//!
//! Threads: [`register`] runs once, when EAL has started; the functions run in any thread.

use packet::{Mbuf, PoolOps};
use std::mem::{offset_of, size_of};

macro_rules! same_offset {
    ($($field:ident = $constant:ident),* $(,)?) => {
        $(const _: () = assert!(
            offset_of!(Mbuf, $field) == dpdk_sys::$constant as usize,
            concat!("packet::Mbuf::", stringify!($field), " is not where libdpdk's rte_mbuf has it"),
        );)*
    };
}

const _: () = assert!(size_of::<Mbuf>() == dpdk_sys::VSW_MBUF_SIZE as usize);
const _: () = assert!(packet::mbuf::RX_RSS_HASH == dpdk_sys::VSW_RX_RSS_HASH);
const _: () = assert!(packet::mbuf::HEADROOM == dpdk_sys::VSW_MBUF_HEADROOM as usize);
same_offset!(
    buf_addr = VSW_MBUF_OFF_BUF_ADDR,
    buf_iova = VSW_MBUF_OFF_BUF_IOVA,
    data_off = VSW_MBUF_OFF_DATA_OFF,
    refcnt = VSW_MBUF_OFF_REFCNT,
    nb_segs = VSW_MBUF_OFF_NB_SEGS,
    port = VSW_MBUF_OFF_PORT,
    ol_flags = VSW_MBUF_OFF_OL_FLAGS,
    packet_type = VSW_MBUF_OFF_PACKET_TYPE,
    pkt_len = VSW_MBUF_OFF_PKT_LEN,
    data_len = VSW_MBUF_OFF_DATA_LEN,
    vlan_tci = VSW_MBUF_OFF_VLAN_TCI,
    rss = VSW_MBUF_OFF_RSS,
    vlan_tci_outer = VSW_MBUF_OFF_VLAN_TCI_OUTER,
    buf_len = VSW_MBUF_OFF_BUF_LEN,
    pool = VSW_MBUF_OFF_POOL,
    next = VSW_MBUF_OFF_NEXT,
    tx_offload = VSW_MBUF_OFF_TX_OFFLOAD,
    shinfo = VSW_MBUF_OFF_SHINFO,
    priv_size = VSW_MBUF_OFF_PRIV_SIZE,
    timesync = VSW_MBUF_OFF_TIMESYNC,
    dynfield1 = VSW_MBUF_OFF_DYNFIELD1,
);

unsafe fn free(m: *mut Mbuf) {
    // SAFETY: `packet` calls this once, for a pool buffer it owns; the layout is checked above.
    unsafe { dpdk_sys::vsw_mbuf_free(m.cast()) }
}

unsafe fn copy(m: *const Mbuf) -> *mut Mbuf {
    // SAFETY: `packet` gives a valid pool buffer; the layout is checked above.
    unsafe { dpdk_sys::vsw_mbuf_copy(m.cast()).cast() }
}

/// Tells `packet` how pool buffers are freed and copied.
pub(crate) fn register() {
    // SAFETY: `free` and `copy` are DPDK's own functions and sound for every buffer of a DPDK pool;
    // no other pools exist.
    unsafe { packet::mbuf::register_pool_ops(PoolOps { free, copy }) }
}

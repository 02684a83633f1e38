//! Prefetching: the only unsafe leaf of the datapath.
//!
//! Neighbours: `emc`, `classifier`, `engine`. Threads: no state.
#![allow(unsafe_code)]

/// Asks the processor to fetch the line that holds the start of `t`.
#[inline(always)]
pub(crate) fn read<T: ?Sized>(t: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory and may be given any address; this one is a live reference.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch(std::ptr::from_ref(t).cast::<i8>(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = t;
}

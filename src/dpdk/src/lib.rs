//! Safe owners for what the switch uses of DPDK: the EAL, packet pools, ethdev ports and queues.
//!
//! Neighbours: `dpdk-sys` has the raw bindings and nobody else uses them; ports implement the
//! contract of `netdev`; packets are those of `packet`, whose header is checked against the
//! installed libdpdk in [`layout`]. The daemon calls [`eal::init`] with the database's
//! `other_config`, registers [`DpdkFactory`] and, on each PMD thread, calls [`register_thread`].
//!
//! Threads: everything may be called from the main thread; queues belong to the thread that polls
//! them; [`register_thread`] is for the thread that calls it.

mod commands;
pub mod config;
pub mod eal;
mod ethdev;
mod factory;
pub mod layout;
mod log;
mod mempool;
mod port;
mod queue;
mod stats;

pub use commands::commands;
pub use config::{EalConfig, Init};
pub use eal::{cleanup, init, is_initialized, register_thread, version, InitError, Outcome, ThreadGuard};
pub use factory::{detach, DpdkFactory};
pub use port::{mempool_info, set_admin_state};

/// The module of EAL's own messages.
static LOG_DPDK: infra::vlog::Module = infra::vlog::Module::new("dpdk");
/// The module of messages about ports.
static LOG: infra::vlog::Module = infra::vlog::Module::new("netdev_dpdk");

/// Housekeeping for the main loop, a few times a second: logs what PMD threads left, frees pools whose
/// last packets came back after their last port went.
pub fn run() {
    log::deliver();
    mempool::free_unused();
}

/// What a DPDK call that returned `code` means, in the C library's words.
fn strerror(code: i32) -> String {
    let e = std::io::Error::from_raw_os_error(code.saturating_abs());
    let text = e.to_string();
    // std appends " (os error N)".
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// A hash of an interface name, 24 bits, never 0: the `ifindex` of ports that the kernel does not
/// know (RFC 2863 wants positive indexes).
fn name_ifindex(name: &str) -> u32 {
    name_hash(name) % 0xff_fffe + 1
}

/// MurmurHash3 (32 bits) over little-endian words, the last one padded with zeros.
fn name_hash(name: &str) -> u32 {
    let mut h: u32 = 0;
    for chunk in name.as_bytes().chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        let k = u32::from_le_bytes(word).wrapping_mul(0xcc9e_2d51).rotate_left(15);
        h ^= k.wrapping_mul(0x1b87_3593);
        h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    h ^= name.len() as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ifindex_of_known_names() {
        assert_eq!(super::name_ifindex("p7"), 13_847_322);
        assert_eq!(super::name_ifindex("p1"), 4_656_282);
    }

    #[test]
    fn errors_are_in_words() {
        assert_eq!(super::strerror(-19), "No such device");
        assert_eq!(super::strerror(22), "Invalid argument");
    }
}

//! Joins DPDK to the switch: the library behind DPDK ports, and what each
//! datapath thread needs of it. Main thread, but for the thread hook.

use bridge::DeviceLibrary;
use datapath::{PmdId, ThreadHook};
use infra::err;
use infra::vlog::Module;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

static LOG: Module = Module::new("dpdk");

/// DPDK, as the database configures it.
pub struct Dpdk;

impl DeviceLibrary for Dpdk {
    fn configure(&mut self, other_config: &BTreeMap<String, String>) {
        if dpdk::is_initialized() {
            return;
        }
        let config = dpdk::EalConfig::from_other_config(infra::vlog::program_name(), other_config);
        if let Err(error) = dpdk::init(&config) {
            // dpdk-init=true says: not without DPDK. `try` goes on.
            err!(LOG, "cannot go on without DPDK ({error}); other_config:dpdk-init=try would");
            eprintln!("{}: {error}", infra::vlog::program_name());
            std::process::exit(1);
        }
    }

    fn initialized(&self) -> bool {
        dpdk::is_initialized()
    }

    fn version(&self) -> String {
        dpdk::version()
    }
}

thread_local! {
    /// Keeps a datapath thread known to DPDK for as long as it lives.
    static REGISTRATION: RefCell<Option<dpdk::ThreadGuard>> = const { RefCell::new(None) };
}

/// Registers each datapath thread with DPDK, so that packet pools give it a cache of its own.
pub fn thread_hook() -> ThreadHook {
    Arc::new(|_: PmdId| REGISTRATION.with(|r| *r.borrow_mut() = dpdk::register_thread()))
}

//! Opens the ports that Linux gives us: `system`, `internal`, `tap`.
//!
//! Neighbours: the daemon joins this factory with that of `dpdk`; `bridge` calls it. Threads: main.

use crate::system::SystemPort;
use crate::tap::TapPort;
use crate::{Config, Error, Factory, Netdev, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Opens Linux devices, in the network namespace of the thread that asks.
#[derive(Clone, Debug, Default)]
pub struct LinuxFactory {
    keep: Arc<AtomicBool>,
}

impl LinuxFactory {
    /// A factory. Devices that it creates are removed when their port is dropped.
    pub fn new() -> LinuxFactory {
        LinuxFactory::default()
    }

    /// From now on dropping a port leaves its tap device in the system, with its addresses and
    /// routes, for the next process to take over: what a switch that ends, but is not told to clean
    /// up, does before it drops its ports.
    pub fn keep_devices(&self) {
        self.keep.store(true, Ordering::Release);
    }
}

impl Factory for LinuxFactory {
    fn types(&self) -> &[&'static str] {
        &["internal", "system", "tap"]
    }

    fn open(&self, name: &str, kind: &str, _config: &Config) -> Result<Arc<dyn Netdev>> {
        match kind {
            // An empty type is what the database has for "system".
            "system" | "" => Ok(Arc::new(SystemPort::open(name)?)),
            "internal" => Ok(Arc::new(TapPort::open(name, "internal", &self.keep)?)),
            "tap" => Ok(Arc::new(TapPort::open(name, "tap", &self.keep)?)),
            _ => Err(Error::UnknownType(kind.to_owned())),
        }
    }
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;

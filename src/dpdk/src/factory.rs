//! Opens ports of `type=dpdk`, and detaches devices on request.
//!
//! Neighbours: `bridge` knows it as a `netdev::Factory`. Threads: control side; one device is opened
//! or detached at a time.

use crate::ethdev::{self, owner_of};
use crate::port::Port;
use crate::{eal, LOG};
use netdev::{Config, Error, Factory, Netdev, Result};
use parking_lot::Mutex;
use std::sync::Arc;

/// Serialises probing and removal of devices.
static PROBING: Mutex<()> = Mutex::new(());

/// Ports of `type=dpdk`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DpdkFactory;

impl Factory for DpdkFactory {
    fn types(&self) -> &[&'static str] {
        &["dpdk"]
    }

    /// The type is unknown while DPDK does not run.
    fn open(&self, name: &str, kind: &str, config: &Config) -> Result<Arc<dyn Netdev>> {
        if kind != "dpdk" || !eal::is_initialized() {
            return Err(Error::UnknownType(kind.to_string()));
        }
        let _one = PROBING.lock();
        Ok(Arc::new(Port::open(name, config)?))
    }
}

/// `netdev-dpdk/detach`: removes a device that no interface uses. Both texts are for the user.
pub fn detach(devargs: &str) -> std::result::Result<String, String> {
    let not_found = || format!("Device '{devargs}' not found in DPDK");
    if !eal::is_initialized() {
        return Err(not_found());
    }
    let _one = PROBING.lock();
    let port = ethdev::find(devargs).ok_or_else(not_found)?;
    let users: Vec<String> = ethdev::siblings(port).into_iter().filter_map(owner_of).collect();
    if !users.is_empty() {
        return Err(format!(
            "Device '{devargs}' is being used by the following interfaces: {}. Remove them before detaching.",
            users.join(" ")
        ));
    }
    match ethdev::remove(port) {
        Ok(()) => {
            let text = format!("All devices shared with device '{devargs}' have been detached");
            infra::info!(LOG, "{text}");
            Ok(text)
        }
        Err(why) => Err(format!("Device '{devargs}' can not be detached: {why}")),
    }
}

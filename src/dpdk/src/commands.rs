//! The control-socket commands about DPDK.
//!
//! Neighbours: the daemon adds them to its table. Threads: main thread.

use crate::{eal, factory, port};
use infra::command::{Command, Reply, MANY};

/// The commands; they work on nothing of the caller's.
pub fn commands<T: 'static>() -> [Command<T>; 7] {
    [
        Command::new("dpdk/get-malloc-stats", "", 0, 0, |_, _| running().map(|()| eal::malloc_stats())),
        Command::new("dpdk/lcore-list", "", 0, 0, |_, _| running().map(|()| eal::lcore_list())),
        Command::new("dpdk/log-list", "", 0, 0, |_, _| running().map(|()| eal::log_list())),
        Command::new("dpdk/log-set", "{level | pattern:level}", 0, MANY, |_, args| {
            running()?;
            eal::log_set(args).map(|()| String::new())
        }),
        Command::new("netdev-dpdk/detach", "pci address of device", 1, 1, |_, args| {
            running()?;
            factory::detach(args[0])
        }),
        Command::new("netdev-dpdk/get-mempool-info", "[netdev]", 0, 1, |_, args| {
            running()?;
            port::mempool_info(args.first().copied())
        }),
        Command::new("netdev-dpdk/set-admin-state", "[netdev] up|down", 1, 2, set_admin_state::<T>),
    ]
}

fn running() -> Result<(), String> {
    if eal::is_initialized() {
        Ok(())
    } else {
        Err("DPDK is not initialized (set other_config:dpdk-init)".to_string())
    }
}

fn set_admin_state<T>(_: &mut T, args: &[&str]) -> Reply {
    running()?;
    match args {
        [state] => port::set_admin_state(None, state)?,
        [name, state] => port::set_admin_state(Some(name), state)?,
        _ => return Err("needs [netdev] up|down".to_string()),
    }
    Ok("OK".to_string())
}

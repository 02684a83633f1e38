//! The switch as the main loop sees it: database, bridges and OpenFlow sockets,
//! with one run and one wait for all of them. Main thread.

use crate::cli::Options;
use crate::db::DbSocket;
use infra::info;
use infra::poll::Poller;
use infra::vlog::Module;
use ovsdb::{Client, ClientConfig, TableSpec};

static LOG: Module = Module::new("bridge");

/// Everything that is configured by the database.
pub struct Switch {
    client: Client,
    socket: DbSocket,
}

impl Switch {
    /// A switch that will connect to the database.
    pub fn new(options: &Options) -> Self {
        let tables = vec![TableSpec::new("Open_vSwitch").columns(["bridges", "other_config"])];
        let config = ClientConfig::new(&options.database, "Open_vSwitch", tables).lock("ovs_vswitchd");
        Switch { client: Client::new(config), socket: DbSocket::new(&options.database) }
    }

    /// Does what is due.
    pub fn run(&mut self, now: i64) {
        let synced = self.client.has_ever_synced();
        self.socket.run(&mut self.client, now);
        if !synced && self.client.has_ever_synced() {
            info!(LOG, "{}", crate::version_line());
        }
    }

    /// Registers what it waits for.
    pub fn wait(&mut self, poller: &mut Poller) {
        self.socket.wait(&self.client, poller);
    }

    /// True once the first configuration is in effect.
    pub fn is_ready(&self) -> bool {
        self.client.has_ever_synced()
    }

    /// Adds what the parts keep in memory, by name, for `memory/show`.
    pub fn memory(&self, _usage: &mut Vec<(String, usize)>) {}

    /// Takes the switch down; with `cleanup` also what would outlive the process.
    pub fn exit(&mut self, _cleanup: bool) {}
}

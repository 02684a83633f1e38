//! Sweeps over the datapath flows that somebody waits for: `revalidator/wait`, `revalidator/purge` and what purges too.
//!
//! They are asked for and looked after, never waited for. Neighbours: `ofproto::slowpath` does them; the daemon answers
//! the commands. Threads: main only.

use crate::backer::Backer;
use crate::manager::Manager;
use ofproto::slowpath::SlowPath;
use ofproto::Ticket;
use std::sync::Arc;

/// Sweeps under way.
pub struct Sweeps(Vec<(Arc<Backer>, Ticket)>);

impl Sweeps {
    /// Whether all are over.
    pub fn are_done(&self) -> bool {
        self.0.iter().all(|(b, ticket)| b.slow.is_done(ticket))
    }
}

impl Manager {
    fn sweeps(&self, ask: impl Fn(&SlowPath) -> Option<Ticket>) -> Sweeps {
        Sweeps(self.shared.backers.iter().filter_map(|b| Some((b.clone(), ask(&b.slow)?))).collect())
    }

    /// Begins to remove every flow (`revalidator/purge`).
    pub fn purge_flows(&self) -> Sweeps {
        self.sweeps(|s| s.purge())
    }

    /// Asks for a sweep over the flows (`revalidator/wait`).
    ///
    /// # Errors
    /// There is not exactly one datapath.
    pub fn sweep_flows(&self) -> Result<Sweeps, String> {
        self.shared.backers.only().ok_or("can't wait on multiple udpifs.")?;
        Ok(self.sweeps(|s| s.ask_sweep()))
    }

    /// Says whether new flows wildcard what was not looked at (`upcall/disable-megaflows|enable-megaflows`), and begins
    /// to remove those made the other way.
    pub fn set_megaflows(&self, on: bool) -> Sweeps {
        self.sweeps(|s| s.set_megaflows(on))
    }
}

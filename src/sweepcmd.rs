//! Commands that are answered when a sweep over the datapath flows is over.
//!
//! Main goes on meanwhile. Neighbours: `bridge::sweeps`, `unixctl`. Main thread.

use crate::commands::Context;
use crate::unixctl::{Commands, Outcome};
use bridge::sweeps::Sweeps;

/// Adds the commands.
pub fn add_commands(commands: &mut Commands<Context>) {
    commands.add("revalidator/purge", "", 0..=0, |context: &mut Context, _| {
        answer(context.switch.manager().purge_flows(), "")
    });
    commands.add("revalidator/wait", "", 0..=0, |context: &mut Context, _| {
        match context.switch.manager().sweep_flows() {
            Ok(sweeps) => answer(sweeps, ""),
            Err(e) => Outcome::Now(Err(e)),
        }
    });
    commands.add("upcall/disable-megaflows", "", 0..=0, |context: &mut Context, _| {
        answer(context.switch.manager().set_megaflows(false), "megaflows disabled")
    });
    commands.add("upcall/enable-megaflows", "", 0..=0, |context: &mut Context, _| {
        answer(context.switch.manager().set_megaflows(true), "megaflows enabled")
    });
}

fn answer(sweeps: Sweeps, text: &'static str) -> Outcome<Context> {
    Outcome::Later(Box::new(move |_| sweeps.are_done().then(|| Ok(text.to_string()))))
}

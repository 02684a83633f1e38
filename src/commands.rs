//! The commands of the control socket: those of the daemon itself, and one
//! place where those of the other parts are added. Main thread.

use crate::cli::Options;
use crate::mainloop::STOPWATCHES;
use crate::memory;
use crate::switch::Switch;
use crate::unixctl::{Commands, Outcome};
use infra::command::{Reply, MANY};
use infra::{coverage, stopwatch, vlog};

/// What commands may work on.
pub struct Context {
    /// The switch.
    pub switch: Switch,
    /// Set once somebody asked for the end: true to clean up as well.
    pub exit: Option<bool>,
}

fn words(result: Result<(), vlog::VlogError>) -> Reply {
    result.map(|()| String::new()).map_err(|error| error.to_string())
}

/// All commands.
pub fn table(options: &Options) -> Commands<Context> {
    let mut commands = Commands::new();
    logging(&mut commands);
    commands.add_all(dpdk::commands::<Switch>(), |context| &mut context.switch);
    commands.add("version", "", 0..=0, |_, _| Outcome::Now(Ok(crate::version_line())));
    commands.add("exit", "[--cleanup]", 0..=1, |context: &mut Context, args| {
        context.exit = Some(args.contains(&"--cleanup") || context.exit == Some(true));
        Outcome::AtExit
    });
    commands.add("coverage/show", "", 0..=0, |_, _| Outcome::Now(Ok(coverage::show())));
    commands.add("coverage/read-counter", "COUNTER", 1..=1, |_, args| {
        let count = coverage::read(args[0]).map(|count| count.to_string());
        Outcome::Now(count.ok_or_else(|| "No such counter".to_string()))
    });
    commands.add("stopwatch/show", "[NAME]", 0..=1, |_, args| {
        Outcome::Now(stopwatch::show(STOPWATCHES, args.first().copied()))
    });
    commands.add("stopwatch/reset", "[NAME]", 0..=1, |_, args| {
        Outcome::Now(stopwatch::reset(STOPWATCHES, args.first().copied()))
    });
    commands.add("memory/show", "", 0..=0, |context: &mut Context, _| {
        Outcome::Now(Ok(memory::usage(&mut context.switch)))
    });
    commands.add_all(bridge::show::COMMANDS, |context: &mut Context| context.switch.manager());
    commands.add_all(bridge::show_pmd::COMMANDS, |context: &mut Context| context.switch.manager());
    commands.add_all(bridge::dpctl::COMMANDS, |context: &mut Context| context.switch.manager());
    commands.add_all(bridge::features::COMMANDS, |context: &mut Context| context.switch.manager());
    crate::sweepcmd::add_commands(&mut commands);
    commands.add_all(bridge::trace::COMMANDS, |context: &mut Context| context.switch.manager());
    if options.dummy.is_some() {
        crate::dummy::add_commands(&mut commands);
        crate::timecmd::add_commands(&mut commands);
    }
    commands
}

fn logging(commands: &mut Commands<Context>) {
    commands.add("vlog/set", "{spec | PATTERN:destination:pattern}", 0..=MANY, |_, args| {
        let specs = if args.is_empty() { &[""] } else { args };
        Outcome::Now(words(specs.iter().try_for_each(|spec| vlog::set(spec))))
    });
    commands.add("vlog/list", "", 0..=0, |_, _| Outcome::Now(Ok(vlog::list())));
    commands.add("vlog/list-pattern", "", 0..=0, |_, _| Outcome::Now(Ok(vlog::list_patterns())));
    commands.add("vlog/enable-rate-limit", "[module]...", 0..=MANY, |_, args| {
        Outcome::Now(words(vlog::set_rate_limits(args, true)))
    });
    commands.add("vlog/disable-rate-limit", "[module]...", 0..=MANY, |_, args| {
        Outcome::Now(words(vlog::set_rate_limits(args, false)))
    });
    commands.add("vlog/reopen", "", 0..=0, |_, _| {
        // A disk that does not answer keeps this client waiting, and nobody else.
        let opening = vlog::reopen();
        Outcome::Later(Box::new(move |_| opening.outcome().map(words)))
    });
    commands.add("vlog/close", "", 0..=0, |_, _| {
        vlog::close();
        Outcome::Now(Ok(String::new()))
    });
}

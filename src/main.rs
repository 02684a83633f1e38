//! ovs-vswitchd: argv -> build objects -> run -> exit code.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod controllers;
mod coverage;
mod daemonize;
mod db;
mod devices;
mod dummy;
mod mainloop;
mod memory;
mod ofservice;
mod paths;
mod stream;
mod sweepcmd;
mod switch;
mod timecmd;
mod tls;
mod unixctl;

use crate::mainloop::End;
use infra::poll::Poller;
use infra::process::{self, Signals};
use infra::vlog::{self, Module};
use infra::worker::{self, Worker};
use infra::{err, info};
use std::path::Path;
use std::process::ExitCode;

static LOG: Module = Module::new("vswitchd");

use infra::OVS_VERSION;

/// The first line of `--version`, and the whole of the `version` command.
pub fn version_line() -> String {
    format!("{} (Open vSwitch) {OVS_VERSION}", vlog::program_name())
}

/// The second line of `--version`, for example `DPDK 22.11.11`.
pub fn dpdk_version() -> String {
    dpdk::version()
}

/// What a poll-mode thread allocates with a megaflow, main and the revalidators free: with the system's allocator
/// both would wait for one lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let argv0 = words.next().unwrap_or_else(|| "ovs-vswitchd".into());
    let name =
        Path::new(&argv0).file_name().map_or_else(|| argv0.clone(), |n| n.to_string_lossy().into_owned());
    vlog::set_program_name(&name);
    process::faults_kill();
    process::no_transparent_huge_pages();
    let words: Vec<String> = words.collect();
    match cli::parse(&argv0, &words) {
        Ok(cli::Parsed::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(cli::Parsed::Run(options)) => match serve(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => {
                eprintln!("{name}: {text}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            if !error.0.is_empty() {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Starts, serves, ends. An error is why it could not start.
fn serve(options: &cli::Options) -> Result<(), String> {
    let mut daemon = daemonize::start(options).map_err(|error| error.to_string())?;
    let setup =
        |error: std::io::Error| format!("could not set up the main loop ({})", daemonize::reason(&error));
    let signals = Signals::new(&mainloop::SIGNALS).map_err(setup)?;
    let mut poller = Poller::new().map_err(setup)?;
    start_worker(&poller)
        .map_err(|e| format!("could not start the worker process ({})", daemonize::reason(&e)))?;
    if options.mlockall {
        if let Err(error) = process::lock_memory() {
            err!(LOG, "mlockall failed: {}", daemonize::reason(&error));
        }
    }
    let mut server = match paths::control_socket(options.unixctl.as_deref()) {
        None => None,
        Some(path) => {
            let failed = |error| format!("{}: could not initialize control socket ({error})", path.display());
            Some(unixctl::Server::new(&path, commands::table(options)).map_err(failed)?)
        }
    };
    coverage::register_all();
    let topology = dummy::topology(options);
    log_cores(&topology);
    let switch = switch::Switch::new(options, topology).map_err(setup)?;
    let mut context = commands::Context { switch, exit: None };
    let end = mainloop::run(&mut context, &mut server, &signals, &mut daemon, &mut poller);
    // Bridges keep their addresses over `exit` and a crash; a signal means that nobody comes back.
    context.switch.exit(matches!(end, End::Exit(true) | End::Signal(_)));
    drop(context);
    if let Some(mut server) = server {
        server.finish();
    }
    drop(daemon);
    end_worker();
    match end {
        End::Exit(_) => Ok(()),
        End::Signal(signal) => process::die_by(signal),
        // The monitor takes this end for the crash that it is.
        End::Worker => process::die_by(libc::SIGABRT),
    }
}

/// How long the end waits for the worker to write the rest of the log.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// Starts the worker. There is one thread now; from the next on it could not be forked.
fn start_worker(poller: &Poller) -> std::io::Result<()> {
    let (jobs, keep) = vlog::worker_jobs();
    worker::install(Worker::start(jobs, &keep)?, poller.waker());
    vlog::delegate();
    Ok(())
}

/// Lets the worker write what it has.
fn end_worker() {
    if let Some(worker) = worker::take() {
        worker.finish(LAST_WORDS);
    }
}

fn log_cores(topology: &infra::cpu::Topology) {
    static NUMA_LOG: Module = Module::new("ovs_numa");
    for node in topology.nodes() {
        let cores = topology.cores_of(node).count();
        info!(NUMA_LOG, "Discovered {cores} CPU cores on NUMA node {node}");
    }
    let (nodes, cores) = (topology.nodes().len(), topology.cores().len());
    info!(NUMA_LOG, "Discovered {nodes} NUMA nodes and {cores} CPU cores");
}

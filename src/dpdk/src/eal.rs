//! DPDK's environment abstraction layer: started once, from the main thread, and cleaned up at exit.
//!
//! Neighbours: `config` makes the arguments; `mempool` and `factory` ask whether it runs.
//! Threads: [`init`] and [`cleanup`] from the main thread; [`register_thread`] from PMD threads.

use crate::config::{EalConfig, Init, SharedMempool};
use crate::{layout, log, strerror, LOG, LOG_DPDK};
use infra::vlog::Level;
use parking_lot::Mutex;
use std::ffi::{c_char, c_int, CStr, CString};
use std::marker::PhantomData;

/// What became of [`init`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `dpdk-init` is not set.
    Disabled,
    /// DPDK runs (from now or already).
    Initialized,
    /// `dpdk-init=try` and DPDK could not start. It is not tried again in this process.
    Failed,
}

/// DPDK could not start and `dpdk-init=true`; the daemon must end with this text.
#[derive(Debug, thiserror::Error)]
#[error("Cannot init EAL ({0})")]
pub struct InitError(String);

/// What stays of the configuration while DPDK runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub per_port_memory: bool,
    pub shared_mempools: Vec<SharedMempool>,
}

enum State {
    Never,
    /// Said in the log that DPDK is disabled.
    Disabled,
    Failed(String),
    Running(Settings),
    Ended,
}

static STATE: Mutex<State> = Mutex::new(State::Never);

/// The linked DPDK: "DPDK 22.11.11".
pub fn version() -> String {
    // SAFETY: rte_version returns a string that is never freed.
    unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
}

/// Whether DPDK runs.
pub fn is_initialized() -> bool {
    matches!(*STATE.lock(), State::Running(_))
}

/// Settings while DPDK runs.
pub(crate) fn settings() -> Option<Settings> {
    match &*STATE.lock() {
        State::Running(s) => Some(s.clone()),
        _ => None,
    }
}

/// Starts DPDK when the configuration wants it and it was not tried before. The calling thread
/// keeps its CPU affinity, unless the configuration chooses cores: then it stays on the first of those.
pub fn init(config: &EalConfig) -> Result<Outcome, InitError> {
    let mut state = STATE.lock();
    match &*state {
        State::Running(_) => return Ok(Outcome::Initialized),
        State::Failed(_) if config.init != Init::Required => return Ok(Outcome::Failed),
        State::Failed(why) => return Err(InitError(why.clone())),
        State::Ended => return Ok(Outcome::Disabled),
        State::Never | State::Disabled => {}
    }
    if config.init == Init::Disabled {
        if matches!(*state, State::Never) {
            infra::info!(LOG_DPDK, "DPDK Disabled - Use other_config:dpdk-init to enable");
            *state = State::Disabled;
        }
        return Ok(Outcome::Disabled);
    }
    infra::info!(LOG_DPDK, "Using {}", version());
    infra::info!(LOG_DPDK, "DPDK Enabled - initializing...");
    match start(config) {
        Ok(()) => {
            *state = State::Running(Settings {
                per_port_memory: config.per_port_memory,
                shared_mempools: config.shared_mempools.clone(),
            });
            say(&LOG, &config.after);
            infra::info!(LOG_DPDK, "DPDK Enabled - initialized");
            Ok(Outcome::Initialized)
        }
        Err(why) => {
            infra::emer!(LOG_DPDK, "Unable to initialize DPDK: {why}");
            *state = State::Failed(why.clone());
            if config.init == Init::Required {
                return Err(InitError(why));
            }
            infra::err!(LOG_DPDK, "DPDK Initialization Failed.");
            Ok(Outcome::Failed)
        }
    }
}

fn say(module: &infra::vlog::Module, lines: &[(Level, String)]) {
    for (level, text) in lines {
        module.log(*level, format_args!("{text}"));
    }
}

/// Runs `rte_eal_init`; the error is the reason in words.
fn start(config: &EalConfig) -> Result<(), String> {
    say(&LOG_DPDK, &config.before);
    infra::info!(LOG_DPDK, "EAL ARGS: {}.", config.args.join(" "));
    if let Some(why) = &config.refused {
        return Err(why.clone());
    }
    let args: Result<Vec<CString>, _> = config.args.iter().map(|a| CString::new(a.as_str())).collect();
    let args = args.map_err(|_| "an argument of EAL contains a NUL byte".to_string())?;
    // EAL keeps pointers into its arguments, so they are never freed.
    let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    let argc = argv.len() as c_int;
    argv.push(std::ptr::null_mut());
    let argv = Box::leak(argv.into_boxed_slice());
    let affinity = infra::cpu::allowed();
    log::redirect();
    // SAFETY: argv has argc valid strings and a terminating null, all leaked above; STATE makes sure
    // that this runs once.
    let result = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
    // SAFETY: reads a per-thread variable.
    let errno = unsafe { dpdk_sys::vsw_errno() };
    // EAL pins the thread that starts it to the main lcore; threads started later inherit that.
    if result < 0 || !config.chosen_lcores {
        if let Err(e) = infra::cpu::pin_to(&affinity) {
            infra::warn!(LOG_DPDK, "cannot restore the CPU affinity of the main thread: {e}");
        }
    }
    if result < 0 {
        return Err(strerror(if errno == 0 { result } else { errno }));
    }
    // SAFETY: EAL runs. Without this, threads that EAL did not start cannot register.
    if !unsafe { dpdk_sys::rte_mp_disable() } {
        infra::emer!(LOG_DPDK, "Could not disable multiprocess, DPDK won't be available.");
        // SAFETY: EAL runs and nothing uses it yet.
        unsafe { dpdk_sys::rte_eal_cleanup() };
        return Err(strerror(libc::EINVAL));
    }
    layout::register();
    Ok(())
}

/// Ends DPDK. For the end of `main`, when every port and packet is gone.
pub fn cleanup() {
    let mut state = STATE.lock();
    if matches!(*state, State::Running(_)) {
        *state = State::Ended;
        // SAFETY: EAL runs, and STATE makes sure that this runs once.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

/// Keeps the calling thread registered with DPDK; give it up in the same thread.
#[derive(Debug)]
pub struct ThreadGuard {
    lcore: u32,
    /// Registration belongs to a thread.
    _not_send: PhantomData<*const ()>,
}

/// Registers the calling thread with DPDK, so that it has its own cache in every packet pool. Call
/// it when the thread is pinned and named, and before it may no longer log. `None` when DPDK does not
/// run or has no lcore left; the thread works then too, slower.
pub fn register_thread() -> Option<ThreadGuard> {
    if !is_initialized() {
        return None;
    }
    // SAFETY: EAL runs and this thread was not started by it.
    if unsafe { dpdk_sys::rte_thread_register() } < 0 {
        infra::warn!(
            LOG_DPDK,
            "DPDK max threads count has been reached. PMD thread performance may be impacted."
        );
        return None;
    }
    // SAFETY: reads a per-thread variable.
    let lcore = unsafe { dpdk_sys::vsw_lcore_id() };
    infra::info!(LOG_DPDK, "PMD thread uses DPDK lcore {lcore}.");
    log::defer_on_this_thread(true);
    Some(ThreadGuard { lcore, _not_send: PhantomData })
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        // SAFETY: the guard exists only in a thread that registered, and is dropped there.
        unsafe { dpdk_sys::rte_thread_unregister() };
        log::post(Level::Info, format!("PMD thread released DPDK lcore {}.", self.lcore));
        log::defer_on_this_thread(false);
    }
}

/// Takes over a string that DPDK allocated; the text is empty when memory was short.
fn take_text(text: *mut c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the shim's dump functions return a NUL-terminated string from malloc, which is ours.
    unsafe {
        let s = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        s
    }
}

/// A text of one of DPDK's dump functions; empty unless DPDK runs.
pub(crate) fn dump(f: impl FnOnce() -> *mut c_char) -> String {
    if is_initialized() {
        take_text(f())
    } else {
        String::new()
    }
}

/// `dpdk/lcore-list`.
pub fn lcore_list() -> String {
    // SAFETY: EAL runs (checked by `dump`).
    dump(|| unsafe { dpdk_sys::vsw_dump_lcores() })
}

/// `dpdk/get-malloc-stats`.
pub fn malloc_stats() -> String {
    // SAFETY: EAL runs (checked by `dump`).
    dump(|| unsafe { dpdk_sys::vsw_dump_malloc_stats() })
}

/// `dpdk/log-list`.
pub fn log_list() -> String {
    // SAFETY: EAL runs (checked by `dump`).
    dump(|| unsafe { dpdk_sys::vsw_dump_log_levels() })
}

/// Names of DPDK's levels, from `RTE_LOG_EMERG` = 1 on.
const LEVELS: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// `dpdk/log-set`: each word is `level` (all components) or `pattern:level`. The error is the text
/// for the user.
pub fn log_set(words: &[&str]) -> Result<(), String> {
    if !is_initialized() {
        return Err("DPDK is not initialized".to_string());
    }
    for word in words {
        let (pattern, level) = word.split_once(':').unwrap_or(("*", word));
        let n = LEVELS
            .iter()
            .position(|l| *l == level)
            .map(|i| i as u32 + 1)
            .or_else(|| level.parse::<u32>().ok().filter(|n| (1..=8).contains(n)));
        let Some(n) = n else {
            return Err(format!("invalid log level: '{level}'"));
        };
        let c = CString::new(pattern).map_err(|_| format!("invalid log pattern: '{pattern}'"))?;
        // SAFETY: EAL runs; `c` is a valid string for the duration of the call.
        if unsafe { dpdk_sys::rte_log_set_level_pattern(c.as_ptr(), n) } < 0 {
            return Err(format!("cannot set log level for '{word}'"));
        }
    }
    Ok(())
}

//! What `ps` shows of the process: `ovs-vswitchd: monitoring pid 5 (healthy)`.
//!
//! The kernel shows the memory in which it put the arguments, so the title is written there; the environment follows
//! that memory and is moved out of the way first. Before other threads exist.

use parking_lot::Mutex;
use std::ptr;

struct Area {
    start: usize,
    /// What stood there at first, arguments and environment.
    original: Vec<u8>,
}

static AREA: Mutex<Option<Area>> = Mutex::new(None);

/// Start of the arguments and end of the environment behind them, from the kernel.
fn bounds() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may contain anything; fields after it are numbered from 3.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3)?.parse::<usize>().ok();
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let end = if env_start == arg_end { env_end } else { arg_end };
    (arg_start != 0 && arg_start < end).then_some((arg_start, end))
}

fn prepare(area: &mut Option<Area>) {
    if area.is_some() {
        return;
    }
    let Some((start, end)) = bounds() else { return };
    // Setting a variable anew puts it into memory of the C library's own.
    for (name, value) in std::env::vars_os() {
        std::env::set_var(name, value);
    }
    // SAFETY: the kernel says that the process's arguments and environment lie from `start` to `end`, which is
    // readable memory that nobody writes at this time.
    let original = unsafe { std::slice::from_raw_parts(start as *const u8, end - start) }.to_vec();
    *area = Some(Area { start, original });
}

/// Shows `PROGRAM: text`, as far as there is room.
pub fn set(text: &str) {
    let mut area = AREA.lock();
    prepare(&mut area);
    let Some(area) = &*area else { return };
    let title = format!("{}: {text}", crate::vlog::program_name());
    let mut bytes = vec![0; area.original.len()];
    let len = title.len().min(bytes.len() - 1);
    bytes[..len].copy_from_slice(&title.as_bytes()[..len]);
    area.write(&bytes);
}

/// Shows the command line again.
pub fn restore() {
    if let Some(area) = &*AREA.lock() {
        area.write(&area.original);
    }
}

impl Area {
    fn write(&self, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), self.original.len());
        // SAFETY: the area is writable memory of this process of this length; the environment no longer points into
        // it, and the arguments were read before the first title was set.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start as *mut u8, bytes.len()) };
    }
}

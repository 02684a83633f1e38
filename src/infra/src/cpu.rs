//! Cores, NUMA nodes, masks, and where threads run. Reads sysfs; not for PMDs
//! in steady state.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A logical core, as Linux numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u32);

/// A NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NumaId(pub u32);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NumaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mask of cores that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MaskError {
    /// A character that is no hexadecimal digit.
    #[error("Invalid cpu mask: {0}")]
    BadDigit(char),
    /// A mask beyond what any machine has.
    #[error("Invalid cpu mask: longer than 1024 digits")]
    TooLong,
}

/// Reads a hexadecimal mask such as `0x6` or `6` into the cores it names.
pub fn parse_mask(text: &str) -> Result<BTreeSet<CoreId>, MaskError> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > 1024 {
        return Err(MaskError::TooLong);
    }
    let mut cores = BTreeSet::new();
    for (i, c) in digits.chars().rev().enumerate() {
        let digit = c.to_digit(16).ok_or(MaskError::BadDigit(c))?;
        for bit in 0..4 {
            if digit >> bit & 1 != 0 {
                cores.insert(CoreId(i as u32 * 4 + bit));
            }
        }
    }
    Ok(cores)
}

/// Reads a Linux list such as `0-3,8` (sysfs, `pmd-rxq-affinity` values).
pub fn parse_list(text: &str) -> Option<BTreeSet<CoreId>> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last - first > 65_536 {
            return None;
        }
        cores.extend((first..=last).map(CoreId));
    }
    Some(cores)
}

/// The machine's online cores and the node each belongs to, read once.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    cores: Vec<(CoreId, NumaId)>,
}

impl Topology {
    /// Reads the machine's topology from sysfs. Where sysfs tells nothing every
    /// online core is on node 0.
    pub fn read() -> Self {
        Self::read_from(Path::new("/sys/devices/system"))
    }

    /// As [`Topology::read`] with another root, for tests.
    pub fn read_from(root: &Path) -> Self {
        let mut cores = Vec::new();
        if let Ok(nodes) = std::fs::read_dir(root.join("node")) {
            for node in nodes.flatten() {
                let name = node.file_name();
                let id = name.to_str().and_then(|n| n.strip_prefix("node")).and_then(|n| n.parse().ok());
                let list = std::fs::read_to_string(node.path().join("cpulist")).ok();
                if let (Some(id), Some(list)) = (id, list.as_deref().and_then(parse_list)) {
                    cores.extend(list.into_iter().map(|c| (c, NumaId(id))));
                }
            }
        }
        if cores.is_empty() {
            let list = std::fs::read_to_string(root.join("cpu/online")).ok();
            let list = list.as_deref().and_then(parse_list).unwrap_or_default();
            cores.extend(list.into_iter().map(|c| (c, NumaId(0))));
        }
        if cores.is_empty() {
            cores.extend((0..count() as u32).map(|c| (CoreId(c), NumaId(0))));
        }
        cores.sort_unstable();
        Topology { cores }
    }

    /// A made-up machine.
    pub fn from_cores(mut cores: Vec<(CoreId, NumaId)>) -> Self {
        cores.sort_unstable();
        Topology { cores }
    }

    /// A made-up machine from the nodes of its cores, as `--dummy-numa=0,0,1,1` gives them; `None` when the text is
    /// no list of numbers.
    pub fn from_nodes(text: &str) -> Option<Self> {
        let nodes: Option<Vec<u32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        let cores = (0..).map(CoreId).zip(nodes?.into_iter().map(NumaId));
        Some(Topology::from_cores(cores.collect()))
    }

    /// All cores with their nodes, ascending.
    pub fn cores(&self) -> &[(CoreId, NumaId)] {
        &self.cores
    }

    /// The node of a core, if the core exists.
    pub fn numa_of(&self, core: CoreId) -> Option<NumaId> {
        self.cores.iter().find(|(c, _)| *c == core).map(|(_, n)| *n)
    }

    /// All nodes, ascending.
    pub fn nodes(&self) -> BTreeSet<NumaId> {
        self.cores.iter().map(|(_, n)| *n).collect()
    }

    /// The cores of one node, ascending.
    pub fn cores_of(&self, node: NumaId) -> impl Iterator<Item = CoreId> + '_ {
        self.cores.iter().filter(move |(_, n)| *n == node).map(|(c, _)| *c)
    }
}

/// The number of online cores.
pub fn count() -> usize {
    // SAFETY: plain query without pointers.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(n).unwrap_or(1).max(1)
}

/// The cores on which the calling thread may run.
pub fn allowed() -> BTreeSet<CoreId> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is a cpu_set_t of the size given.
    if unsafe { libc::sched_getaffinity(0, size, &mut set) } != 0 {
        return (0..count() as u32).map(CoreId).collect();
    }
    // SAFETY: the index stays below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as u32)
        .filter(|&c| unsafe { libc::CPU_ISSET(c as usize, &set) })
        .map(CoreId)
        .collect()
}

/// Pins the calling thread to the given cores.
pub fn pin_to(cores: &BTreeSet<CoreId>) -> std::io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores {
        if core.0 < libc::CPU_SETSIZE as u32 {
            // SAFETY: the index is below CPU_SETSIZE.
            unsafe { libc::CPU_SET(core.0 as usize, &mut set) };
        }
    }
    // SAFETY: `set` is a cpu_set_t of the size given; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Pins the calling thread to one core.
pub fn pin(core: CoreId) -> std::io::Result<()> {
    pin_to(&BTreeSet::from([core]))
}

/// Lets the calling thread wake from short sleeps on time: the kernel may otherwise add 50 microseconds to each.
pub fn sleep_precisely() {
    // SAFETY: plain request without pointers. Without it sleeps are longer, nothing else.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000u64, 0, 0, 0) };
}

/// A number for a thread, as names show it: each is given once in a process.
pub fn thread_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Names the calling thread for the kernel (`ps -L`, 15 bytes) and for log lines.
pub fn name_thread(name: &str) {
    let mut buf = [0u8; 16];
    let len = name.len().min(15);
    buf[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: `buf` is NUL-terminated and lives through the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, buf.as_ptr()) };
    crate::vlog::set_thread_name(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cores: &[u32]) -> BTreeSet<CoreId> {
        cores.iter().map(|&c| CoreId(c)).collect()
    }

    #[test]
    fn masks() {
        assert_eq!(parse_mask("0x2"), Ok(set(&[1])));
        assert_eq!(parse_mask("6"), Ok(set(&[1, 2])));
        assert_eq!(parse_mask("0xF00000000000000000001"), Ok(set(&[0, 80, 81, 82, 83])));
        assert_eq!(parse_mask("0x"), Ok(set(&[])));
        assert_eq!(parse_mask("0xz"), Err(MaskError::BadDigit('z')));
    }

    #[test]
    fn lists_and_topology() {
        assert_eq!(parse_list("0-2,5\n"), Some(set(&[0, 1, 2, 5])));
        assert_eq!(parse_list("5-1"), None);
        assert_eq!(parse_list("0-4294967295"), None);
        let here = Topology::read();
        assert!(!here.cores().is_empty());
        assert!(here.numa_of(here.cores()[0].0).is_some());
        assert!(!allowed().is_empty());
    }
}

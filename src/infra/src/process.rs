//! Process-level system calls of the daemon: fork and detach, pidfile locks,
//! memory locking, user switching, signals. Main thread, at start and end.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old process, with the pid of the new one.
    Parent(i32),
}

/// Forks. Refused once the process has more than one thread, because a lock
/// that another thread holds would stay locked in the child for ever.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("cannot fork with more than one thread"));
    }
    // SAFETY: the process has one thread, so the child may go on like the parent.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends the process without any more ado: for a child that shares its memory's past with its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: plain system call.
    unsafe { libc::_exit(code) }
}

/// Ignores signals.
pub fn ignore_signals(signals: &[i32]) {
    for &signal in signals {
        // SAFETY: sets the action of a signal to a constant.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Closes all descriptors except the standard ones and `keep`. Only for a child that returns to none of its parent's
/// code, since owners of the closed ones may exist.
pub(crate) fn close_others(keep: &[RawFd]) {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .map(|dir| dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // SAFETY: the caller never uses the owners of these descriptors again.
        unsafe { libc::close(fd) };
    }
}

/// Makes a named pipe.
pub fn make_fifo(path: &std::path::Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: `path` is NUL-terminated.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// How a child ended, if it does so in the given time.
pub fn try_wait(pid: i32, patience: std::time::Duration) -> Option<Ended> {
    let end = std::time::Instant::now() + patience;
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live int.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if std::time::Instant::now() < end => std::thread::sleep(std::time::Duration::from_millis(1)),
            got if got == pid => return Ended::from_status(status),
            _ => return None,
        }
    }
}

/// Starts a new session.
pub fn new_session() -> io::Result<()> {
    // SAFETY: plain system call.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Points the three standard descriptors at /dev/null.
pub fn null_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for fd in 0..3 {
        // SAFETY: both are plain descriptor numbers; `null` is open.
        check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    }
    Ok(())
}

/// A pipe between processes: reader and writer.
pub fn pipe() -> io::Result<(File, File)> {
    let mut fds: [RawFd; 2] = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 returned two descriptors that nobody else owns.
    Ok(unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) })
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it; true if it left a core dump.
    Killed(i32, bool),
}

impl Ended {
    /// Reads what wait(2) says; none if the child was only stopped or continued.
    fn from_status(status: libc::c_int) -> Option<Ended> {
        if libc::WIFEXITED(status) {
            return Some(Ended::Exited(libc::WEXITSTATUS(status)));
        }
        libc::WIFSIGNALED(status).then(|| Ended::Killed(libc::WTERMSIG(status), libc::WCOREDUMP(status)))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Ended::Exited(code) => write!(f, "exit status {code}"),
            Ended::Killed(signal, core) => {
                write!(f, "killed ({}){}", signal_name(signal), if core { ", core dumped" } else { "" })
            }
        }
    }
}

/// The system's words for a signal.
pub fn signal_name(signal: i32) -> String {
    // SAFETY: strsignal returns a NUL-terminated string, or null.
    let text = unsafe { libc::strsignal(signal) };
    if text.is_null() {
        return format!("signal {signal}");
    }
    // SAFETY: checked for null above; copied before anybody calls strsignal again.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Waits for a child to end.
pub fn wait(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live c_int.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => match Ended::from_status(status) {
                Some(ended) => return Ok(ended),
                None => continue,
            },
        }
    }
}

/// The parent's half of a start-up handshake: blocks until the child says that
/// it is ready, or is gone. True if it is ready.
pub fn await_ready(mut reader: File) -> bool {
    let mut byte = [0u8; 1];
    matches!(reader.read(&mut byte), Ok(1))
}

/// The child's half: says that it is ready.
pub fn say_ready(mut writer: File) {
    let _ = writer.write_all(&[0]);
}

/// Takes the POSIX write lock on a file, or tells the pid that holds it.
pub fn lock(file: &File) -> io::Result<Result<(), i32>> {
    let mut region = whole_file();
    // SAFETY: `region` is a live flock and the descriptor is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &mut region) } == 0 {
        return Ok(Ok(()));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => match lock_holder(file)? {
            Some(pid) => Ok(Err(pid)),
            None => Err(error),
        },
        _ => Err(error),
    }
}

/// The pid that holds the POSIX lock on a file.
pub fn lock_holder(file: &File) -> io::Result<Option<i32>> {
    let mut region = whole_file();
    // SAFETY: `region` is a live flock and the descriptor is open.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut region) })?;
    Ok((region.l_type != libc::F_UNLCK as libc::c_short).then_some(region.l_pid))
}

fn whole_file() -> libc::flock {
    // SAFETY: all-zero is a valid flock; 0 length means the whole file.
    let mut region: libc::flock = unsafe { std::mem::zeroed() };
    region.l_type = libc::F_WRLCK as libc::c_short;
    region.l_whence = libc::SEEK_SET as libc::c_short;
    region
}

/// Sets the file mode creation mask; returns the former one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: plain system call that cannot fail.
    unsafe { libc::umask(mask) }
}

/// Lets nothing of this process and its children be in transparent huge pages: the kernel clears one of 2 MiB at its
/// first use, and a thread that has packets to forward would wait for that. Pages of hugetlbfs are not meant.
pub fn no_transparent_huge_pages() {
    // SAFETY: sets a flag of the process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives memory that the calling thread allocated and that is free, whoever freed it, back to the system at once.
pub fn trim_memory() {
    // SAFETY: works on the allocator's own state of the calling thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Lets the process have at least this many descriptors, as far as the hard limit goes.
pub fn raise_file_limit(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live in both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < wanted {
            limit.rlim_cur = wanted.min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Locks all present and future memory.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: plain system call.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }).map(drop)
}

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User time, in ms.
    pub user_ms: i64,
    /// System time, in ms.
    pub system_ms: i64,
    /// Minor and major page faults.
    pub faults: (i64, i64),
    /// Block input and output operations.
    pub blocks: (i64, i64),
    /// Voluntary and involuntary context switches.
    pub switches: (i64, i64),
    /// Peak resident set size, in kB.
    pub peak_kb: i64,
}

impl Usage {
    fn of(who: libc::c_int) -> Usage {
        // SAFETY: all-zero is a valid rusage.
        let mut r: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `r` is a live rusage.
        unsafe { libc::getrusage(who, &mut r) };
        let ms = |t: libc::timeval| t.tv_sec * 1000 + t.tv_usec / 1000;
        Usage {
            user_ms: ms(r.ru_utime),
            system_ms: ms(r.ru_stime),
            faults: (r.ru_minflt, r.ru_majflt),
            blocks: (r.ru_inblock, r.ru_oublock),
            switches: (r.ru_nvcsw, r.ru_nivcsw),
            peak_kb: r.ru_maxrss,
        }
    }

    /// The calling thread's usage.
    pub fn thread() -> Usage {
        Usage::of(libc::RUSAGE_THREAD)
    }

    /// The whole process's usage.
    pub fn process() -> Usage {
        Usage::of(libc::RUSAGE_SELF)
    }
}

/// Signals turned into a descriptor that a loop can wait on.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in this thread and all that it starts, and collects
    /// them. Those that whoever started us had ignored stay ignored. Call it
    /// before the first thread starts.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let wanted: Vec<i32> = signals.iter().copied().filter(|s| !is_ignored(*s)).collect();
        let set = signal_set(&wanted);
        // SAFETY: `set` is an initialised sigset; the old mask is not wanted.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: signalfd returned a descriptor that nobody else owns.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that arrived.
    pub fn next(&self) -> Option<i32> {
        // SAFETY: all-zero is a valid siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` has room for `size` bytes.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        (n == size as isize).then_some(info.ssi_signo as i32)
    }

    /// The descriptor to wait on (POLLIN).
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all-zero is a valid sigaction; asking changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all-zero memory is then initialised by sigemptyset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is live; the numbers are valid signals or ignored.
    unsafe {
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
    }
    set
}

/// Lets SIGSEGV and SIGBUS kill the process at once, whoever sends them: the
/// runtime's handler, which is there to report stack overflows, would swallow
/// the first one that another process sends.
pub fn faults_kill() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: restores the default action of a signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends the process by a signal, as if nobody had caught it.
pub fn die_by(signal: i32) -> ! {
    let set = signal_set(&[signal]);
    // SAFETY: restores the default action, unblocks and raises a signal in this process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
    std::process::exit(128 + signal)
}

/// Ids of a user and a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why a user cannot be switched to.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("user {0} not found, aborting.")]
    NoUser(String),
    /// No such group.
    #[error("group {0} not found, aborting.")]
    NoGroup(String),
    /// The user is not in the group that was asked for.
    #[error("Invalid --user option {spec} (user {user} is not in group {group}), aborting.")]
    NotInGroup {
        /// The option.
        spec: String,
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// Only root may switch.
    #[error("only root can use --user option")]
    NotRoot,
    /// A system call failed.
    #[error("fail to switch group or user, aborting.")]
    System(#[from] io::Error),
}

/// A C string, and only if it is not null.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives until this returns.
unsafe fn owned(text: *const libc::c_char) -> Option<String> {
    // SAFETY: not null, and as the caller promises.
    (!text.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Name, id and first group of a user; of the present one if no name is given.
fn user_entry(name: &str) -> Option<(String, u32, u32)> {
    let entry = if name.is_empty() {
        // SAFETY: plain system calls; the result is read before any other lookup.
        unsafe { libc::getpwuid(libc::geteuid()) }
    } else {
        let name = CString::new(name).ok()?;
        // SAFETY: `name` is NUL-terminated; the result is read before any other lookup.
        unsafe { libc::getpwnam(name.as_ptr()) }
    };
    if entry.is_null() {
        return None;
    }
    // SAFETY: not null, and valid until the next lookup.
    unsafe { Some((owned((*entry).pw_name)?, (*entry).pw_uid, (*entry).pw_gid)) }
}

/// Id and members of a group.
fn group_entry(name: &str) -> Option<(u32, Vec<String>)> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is NUL-terminated; the result is read before any other lookup.
    let entry = unsafe { libc::getgrnam(name.as_ptr()) };
    if entry.is_null() {
        return None;
    }
    let mut members = Vec::new();
    // SAFETY: the entry is valid until the next lookup; its members are an array of strings that ends with a null.
    unsafe {
        let mut at = (*entry).gr_mem;
        while let Some(member) = owned(*at) {
            members.push(member);
            at = at.add(1);
        }
        Some(((*entry).gr_gid, members))
    }
}

/// Looks up `USER`, `USER:GROUP` or `:GROUP`. The user must be in the group.
pub fn find_user(spec: &str) -> Result<User, UserError> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    // SAFETY: reads an id of this process.
    if unsafe { libc::geteuid() } != 0 {
        return Err(UserError::NotRoot);
    }
    let (name, uid, mut gid) = user_entry(user).ok_or_else(|| UserError::NoUser(user.to_string()))?;
    if !group.is_empty() {
        let (id, members) = group_entry(group).ok_or_else(|| UserError::NoGroup(group.to_string()))?;
        if id != gid && !members.contains(&name) {
            let (spec, group) = (spec.to_string(), group.to_string());
            return Err(UserError::NotInGroup { spec, user: name, group });
        }
        gid = id;
    }
    Ok(User { uid, gid })
}

/// CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK.
const KEPT_CAPABILITIES: [u32; 5] = [10, 11, 12, 13, 14];

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Becomes `user`, keeping only the capabilities that a switch needs. Call it
/// before the first thread starts.
pub fn become_user(user: &User) -> Result<(), UserError> {
    let mask = KEPT_CAPABILITIES.iter().fold(0, |m, c| m | 1u32 << c);
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let data = [
        CapData { effective: mask, permitted: mask, inheritable: 0 },
        CapData { effective: 0, permitted: 0, inheritable: 0 },
    ];
    // SAFETY: pointers are to live values of the layouts that the kernel defines
    // (version 3 of capset takes two data elements).
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1))?;
        // The bounding set too: no program that this one runs can get more.
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability) < 0 {
                break; // There are no more of them.
            }
        }
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(user.gid, user.gid, user.gid))?;
        check(libc::setresuid(user.uid, user.uid, user.uid))?;
        check(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) as libc::c_int)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_names() {
        assert!(matches!(find_user("no-such-user-here"), Err(UserError::NoUser(_) | UserError::NotRoot)));
        assert_eq!(signal_name(15), "Terminated");
        assert_eq!(Ended::Killed(11, true).to_string(), "killed (Segmentation fault), core dumped");
        assert!(Usage::process().peak_kb > 0);
    }

    #[test]
    fn ready_pipe() {
        let (reader, writer) = pipe().unwrap();
        say_ready(writer);
        assert!(await_ready(reader));
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        assert!(!await_ready(reader));
    }
}

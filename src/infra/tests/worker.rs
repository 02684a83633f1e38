//! The worker process: many requests of all sizes with descriptors, order, leaks; a killed worker, a killed main, a
//! worker that sends rubbish.
//!
//! A worker is forked before any thread exists, so this is a program of its own instead of a set of test functions.
//! `WORKER_REQUESTS=100000 WORKER_BYTES=1048576` is the full run.

use infra::process::{self, Ended, Forked};
use infra::worker::{Broken, Jobs, Message, Worker, WorkerError, MAX_DATA};
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests: data is a slice of the pattern, descriptors are files whose inodes stand in front of it.
const ECHO: u32 = 1;
const COUNT_FDS: u32 = 2;
const APPEND: u32 = 3;
const HANG: u32 = 4;
const RUBBISH: u32 = 5;

/// SplitMix64, for choices that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn pattern(len: usize) -> Arc<Vec<u8>> {
    let mut random = Random(7);
    Arc::new((0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect())
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn inode(fd: &OwnedFd) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().ino()
}

/// What both sides derive from a number: the size of the data, where in the pattern it begins, the descriptors.
struct Plan {
    size: usize,
    at: usize,
    fds: usize,
    wants_reply: bool,
}

fn plan(seed: u64, max: usize) -> Plan {
    let mut random = Random(seed);
    let size = match random.below(8) {
        0 => random.below(64),
        _ => random.below(max + 1),
    };
    Plan {
        size,
        at: random.below(4096),
        fds: if random.below(3) == 0 { random.below(9) } else { 0 },
        wants_reply: random.below(2) == 0,
    }
}

/// A message as planned: number, inodes, a part of the pattern.
fn build(number: u64, plan: &Plan, pattern: &[u8], files: &[OwnedFd], random: &mut Random) -> Message {
    let fds: Vec<OwnedFd> =
        (0..plan.fds).map(|_| files[random.below(files.len())].try_clone().unwrap()).collect();
    let mut data = number.to_le_bytes().to_vec();
    fds.iter().for_each(|fd| data.extend(inode(fd).to_le_bytes()));
    data.extend(&pattern[plan.at..plan.at + plan.size]);
    Message { kind: ECHO, data, fds }
}

/// Checks a message against its plan.
fn check(message: &Message, number: u64, plan: &Plan, pattern: &[u8]) {
    let words: Vec<u64> = message
        .data
        .chunks_exact(8)
        .take(1 + plan.fds)
        .map(|c| u64::from_le_bytes(c.try_into().unwrap()))
        .collect();
    assert_eq!(words[0], number, "out of order");
    assert_eq!(message.fds.len(), plan.fds);
    for (fd, expected) in message.fds.iter().zip(&words[1..]) {
        assert_eq!(inode(fd), *expected, "another descriptor");
    }
    let data = &message.data[8 * (1 + plan.fds)..];
    assert!(data == &pattern[plan.at..plan.at + plan.size], "request {number}: other data");
}

/// The worker's side of the tests.
struct Partner {
    pattern: Arc<Vec<u8>>,
    max: usize,
    next: u64,
    file: Option<std::fs::File>,
}

impl Jobs for Partner {
    fn run(&mut self, request: Message) -> Message {
        match request.kind {
            ECHO => {
                let number = self.next;
                self.next += 1;
                check(&request, number, &plan(number, self.max), &self.pattern);
                // The reply goes by a plan of its own and sends some of the descriptors back.
                let reply = plan(number ^ 0xffff_0000, self.max);
                let fds: Vec<OwnedFd> = request.fds.into_iter().take(reply.fds).collect();
                let shorter = Plan { fds: fds.len(), ..reply };
                let mut data = number.to_le_bytes().to_vec();
                fds.iter().for_each(|fd| data.extend(inode(fd).to_le_bytes()));
                data.extend(&self.pattern[shorter.at..shorter.at + shorter.size]);
                Message { kind: ECHO, data, fds }
            }
            COUNT_FDS => Message::new(0, open_fds().to_string()),
            APPEND => {
                std::thread::sleep(Duration::from_micros(200));
                self.file.as_mut().unwrap().write_all(&request.data).unwrap();
                Message::default()
            }
            HANG => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            RUBBISH => {
                // The only socket that this process has is the one to the main process.
                for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
                    if std::fs::read_link(entry.path())
                        .is_ok_and(|p| p.to_string_lossy().starts_with("socket:"))
                    {
                        let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
                        // SAFETY: the descriptor was listed as open, and is used for one write.
                        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
                        let _ = rustix::net::send(socket, &[0xa5; 64], rustix::net::SendFlags::empty());
                    }
                }
                Message::default()
            }
            other => panic!("kind {other}"),
        }
    }
}

fn start(max: usize, file: Option<std::fs::File>) -> Worker {
    let pattern = pattern(max + 4096 + 8);
    let keep: Vec<i32> = file.iter().map(AsRawFd::as_raw_fd).collect();
    Worker::start(Partner { pattern, max, next: 0, file }, &keep).expect("the worker cannot be started")
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks for something and waits for the answer.
fn ask(worker: &mut Worker, message: Message) -> Message {
    let slot = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&slot);
    worker.request(message, Some(Box::new(move |m| *theirs.lock().unwrap() = Some(m)))).unwrap();
    while worker.unanswered() > 0 {
        worker.sleep(PollFlags::IN, Some(PATIENCE));
        worker.run().unwrap();
    }
    while let Some((on_reply, message)) = worker.next_reply() {
        on_reply(message);
    }
    let answer = slot.lock().unwrap().take();
    answer.expect("the reply was dealt with")
}

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn many_requests() {
    let (requests, max) =
        (from_environment("WORKER_REQUESTS", 3_000), from_environment("WORKER_BYTES", 1 << 20));
    let mut worker = start(max, None);
    let pattern = pattern(max + 4096 + 8);
    let files: Vec<OwnedFd> = (0..16)
        .map(|i| {
            let name = std::ffi::CString::new(format!("f{i}")).unwrap();
            // SAFETY: the name is NUL-terminated; the descriptor is new and has no other owner.
            unsafe {
                let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
                assert!(fd >= 0);
                <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd)
            }
        })
        .collect();
    let before = open_fds();
    let theirs_before = ask(&mut worker, Message::new(COUNT_FDS, "")).data;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut expected = VecDeque::new();
    let mut random = Random(1);
    let began = Instant::now();
    let mut bytes = 0;
    for number in 0..requests as u64 {
        let plan = plan(number, max);
        let message = build(number, &plan, &pattern, &files, &mut random);
        bytes += message.data.len();
        let on_reply = plan.wants_reply.then(|| {
            expected.push_back(number);
            let (answered, pattern) = (Arc::clone(&answered), Arc::clone(&pattern));
            let job: infra::worker::OnReply = Box::new(move |reply| {
                let mut planned = self::plan(number ^ 0xffff_0000, max);
                planned.fds = planned.fds.min(plan.fds);
                check(&reply, number, &planned, &pattern);
                answered.lock().unwrap().push(number);
            });
            job
        });
        // Both ways of handing over, and turns without a look at the replies.
        if random.below(4) == 0 && worker.waiting_bytes() < 4 << 20 {
            worker.submit(message, on_reply).unwrap();
        } else {
            worker.request(message, on_reply).unwrap();
        }
        if random.below(10) == 0 {
            while let Some((on_reply, message)) = worker.next_reply() {
                on_reply(message);
            }
        }
    }
    while worker.unanswered() > 0 || worker.waiting_bytes() > 0 {
        worker.sleep(PollFlags::IN, Some(Duration::from_millis(10)));
        worker.run().unwrap();
    }
    while let Some((on_reply, message)) = worker.next_reply() {
        on_reply(message);
    }
    assert_eq!(*answered.lock().unwrap(), Vec::from(expected), "replies out of order");
    let theirs_after = ask(&mut worker, Message::new(COUNT_FDS, "")).data;
    assert_eq!(theirs_before, theirs_after, "the worker leaks descriptors");
    assert_eq!(before, open_fds(), "the main process leaks descriptors");
    let took = began.elapsed();
    println!(
        "{requests} requests, {} MB in {:.1} s, order kept, no descriptor leaked",
        bytes >> 20,
        took.as_secs_f64()
    );
    let pid = worker.pid();
    assert!(worker.finish(PATIENCE), "the worker does not end");
    assert_eq!(process::try_wait(pid, Duration::ZERO), None, "the worker was not waited for");
}

fn too_large() {
    let mut worker = start(0, None);
    let fds = (0..9).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
    let error = worker.submit(Message { kind: 0, data: vec![], fds }, None).unwrap_err();
    assert!(matches!(error, WorkerError::TooLarge { bytes: 0, fds: 9 }), "{error}");
    let error = worker.submit(Message::new(0, vec![0; MAX_DATA + 1]), None).unwrap_err();
    assert!(matches!(error, WorkerError::TooLarge { fds: 0, .. }), "{error}");
    assert!(worker.finish(PATIENCE));
}

fn lost(worker: &mut Worker) -> (Broken, Option<Ended>) {
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "the loss is not noticed");
        worker.sleep(PollFlags::IN, Some(Duration::from_millis(100)));
        match worker.run() {
            Ok(()) => {}
            Err(WorkerError::Lost { broken, ended }) => return (broken, ended),
            Err(other) => panic!("{other}"),
        }
    }
}

fn killed_worker() {
    let mut worker = start(0, None);
    let expected = format!("ovs-vswitchd: worker process for pid {}", std::process::id());
    wait_for("the worker shows its title", || {
        let shown = std::fs::read(format!("/proc/{}/cmdline", worker.pid())).unwrap_or_default();
        shown.starts_with(expected.as_bytes())
    });
    // SAFETY: our own child.
    unsafe { libc::kill(worker.pid(), libc::SIGTERM) };
    assert_eq!(ask(&mut worker, Message::new(COUNT_FDS, "")).kind, 0, "SIGTERM is not for the worker");
    worker.request(Message::new(HANG, ""), None).unwrap();
    // SAFETY: our own child.
    unsafe { libc::kill(worker.pid(), libc::SIGKILL) };
    assert_eq!(lost(&mut worker), (Broken::Closed, Some(Ended::Killed(libc::SIGKILL, false))));
}

fn worker_that_sends_rubbish() {
    let mut worker = start(0, None);
    worker.request(Message::new(RUBBISH, ""), None).unwrap();
    assert!(matches!(lost(&mut worker).0, Broken::Rubbish(_)));
}

/// A stuck worker: requests wait on this side, and nothing else does.
fn stuck_worker() {
    let mut worker = start(0, None);
    let pid = worker.pid();
    worker.request(Message::new(HANG, ""), None).unwrap();
    let began = Instant::now();
    for _ in 0..64 {
        worker.submit(Message::new(APPEND, vec![0; 64 << 10]), None).unwrap();
    }
    assert!(worker.waiting_bytes() > 2 << 20);
    assert!(!worker.finish(Duration::from_millis(50)));
    assert!(began.elapsed() < Duration::from_secs(5));
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    assert!(process::try_wait(pid, PATIENCE).is_some());
}

/// The main process dies: the worker does all that is in the socket, and exits.
fn killed_main() {
    let path = std::env::temp_dir().join(format!("worker-test-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    let (mut alive, ours) = process::pipe().unwrap();
    let count = 500;
    match process::fork().unwrap() {
        Forked::Child => {
            // The file's descriptor and the pipe's writing end live on in the worker alone.
            let (file, writer) = (file, ours);
            let keep = [file.as_raw_fd(), writer.as_raw_fd()];
            let partner = Partner { pattern: pattern(0), max: 0, next: 0, file: Some(file) };
            let mut worker = Worker::start(partner, &keep).unwrap();
            for i in 0..count {
                worker.request(Message::new(APPEND, format!("{i:08}\n")), Some(Box::new(|_| {}))).unwrap();
            }
            // SAFETY: this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            unreachable!()
        }
        Forked::Parent(pid) => {
            drop((file, ours));
            assert_eq!(process::wait(pid).unwrap(), Ended::Killed(libc::SIGKILL, false));
            // The end of the file comes when the worker, who has the other end, is gone.
            let mut rest = Vec::new();
            alive.read_to_end(&mut rest).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let _ = std::fs::remove_file(&path);
            let expected: String = (0..count).map(|i| format!("{i:08}\n")).collect();
            assert_eq!(text, expected);
        }
    }
}

fn main() {
    // The test harness's arguments mean nothing here, but the name of a test may be given.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    let tests: [(&str, fn()); 6] = [
        ("too_large", too_large),
        ("killed_worker", killed_worker),
        ("worker_that_sends_rubbish", worker_that_sends_rubbish),
        ("stuck_worker", stuck_worker),
        ("killed_main", killed_main),
        ("many_requests", many_requests),
    ];
    for (name, test) in tests {
        let began = Instant::now();
        test();
        println!("test {name} ... ok ({:.2} s)", began.elapsed().as_secs_f64());
    }
}

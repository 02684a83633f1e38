//! Messages between the main process and its worker: a header of 16 bytes, up to 16 MiB of data, and up to 8
//! descriptors that travel with the first byte. Both ends are non-blocking, so both halves keep their place in a
//! message that is moved in pieces.

use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors of one message.
pub const MAX_FDS: usize = 8;
/// The most bytes of one message.
pub const MAX_DATA: usize = 16 << 20;

const HEADER: usize = 16;
const MAGIC: u32 = 0x4f56_5357;
const WANTS_REPLY: u16 = 1;

/// A request or a reply.
#[derive(Debug, Default)]
pub struct Message {
    /// What is asked for; 0 in replies unless the job says otherwise.
    pub kind: u32,
    /// The bytes.
    pub data: Vec<u8>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// A message without descriptors.
    pub fn new(kind: u32, data: impl Into<Vec<u8>>) -> Self {
        Message { kind, data: data.into(), fds: Vec::new() }
    }
}

/// Why a socket to the other process is of no more use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Broken {
    /// The other process closed its end.
    #[error("the connection was closed")]
    Closed,
    /// What came is not a message.
    #[error("received rubbish: {0}")]
    Rubbish(&'static str),
    /// The system refused.
    #[error("{0}")]
    System(Errno),
}

fn interrupted(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::TOOMANYREFS)
}

struct Outgoing {
    header: [u8; HEADER],
    message: Message,
    sent: usize,
}

/// The sending half: messages that wait for room in the socket.
#[derive(Default)]
pub(super) struct Sender {
    queue: VecDeque<Outgoing>,
    bytes: usize,
}

impl Sender {
    pub fn push(&mut self, message: Message, wants_reply: bool) {
        let mut header = [0; HEADER];
        let flags = if wants_reply { WANTS_REPLY } else { 0 };
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&message.kind.to_le_bytes());
        header[8..12].copy_from_slice(&(message.data.len() as u32).to_le_bytes());
        header[12..14].copy_from_slice(&(message.fds.len() as u16).to_le_bytes());
        header[14..16].copy_from_slice(&flags.to_le_bytes());
        self.bytes += HEADER + message.data.len();
        self.queue.push_back(Outgoing { header, message, sent: 0 });
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends as much as the socket takes; true if nothing is left. Descriptors are closed on this side once they are
    /// on their way.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Broken> {
        while let Some(out) = self.queue.front_mut() {
            let n = match out.send(socket) {
                Ok(n) => n,
                Err(errno) if interrupted(errno) => return Ok(false),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Closed),
                Err(errno) => return Err(Broken::System(errno)),
            };
            out.sent += n;
            self.bytes -= n;
            if out.sent == HEADER + out.message.data.len() {
                self.queue.pop_front();
            } else {
                out.message.fds.clear();
            }
        }
        Ok(true)
    }
}

impl Outgoing {
    fn send(&self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        let head = &self.header[self.sent.min(HEADER)..];
        let data = &self.message.data[self.sent.saturating_sub(HEADER)..];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = self.message.fds.iter().map(OwnedFd::as_fd).collect();
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(
            socket,
            &[IoSlice::new(head), IoSlice::new(data)],
            &mut ancillary,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )
    }
}

/// The receiving half: the message that is under way.
#[derive(Default)]
pub(super) struct Receiver {
    header: [u8; HEADER],
    have: usize,
    data: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A message that arrived, and whether it wants a reply.
pub(super) type Arrived = (Message, bool);

impl Receiver {
    /// The next whole message; none if it is not there yet.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<Option<Arrived>, Broken> {
        loop {
            if self.have < HEADER {
                if !self.fill(socket)? {
                    return Ok(None);
                }
                if self.have == HEADER {
                    self.data = vec![0; self.length()?];
                }
                continue;
            }
            if self.have < HEADER + self.data.len() {
                if !self.fill(socket)? {
                    return Ok(None);
                }
                continue;
            }
            return self.finish().map(Some);
        }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.header[at], self.header[at + 1], self.header[at + 2], self.header[at + 3]])
    }

    /// The length of the data, once the header is there and makes sense.
    fn length(&self) -> Result<usize, Broken> {
        let (len, last) = (self.word(8) as usize, self.word(12));
        if self.word(0) != MAGIC {
            return Err(Broken::Rubbish("no header"));
        }
        if len > MAX_DATA {
            return Err(Broken::Rubbish("too long a message"));
        }
        if (last & 0xffff) as usize > MAX_FDS || last >> 16 > u32::from(WANTS_REPLY) {
            return Err(Broken::Rubbish("unknown flags"));
        }
        Ok(len)
    }

    fn finish(&mut self) -> Result<Arrived, Broken> {
        let last = self.word(12);
        if self.fds.len() != (last & 0xffff) as usize {
            return Err(Broken::Rubbish("wrong number of descriptors"));
        }
        self.have = 0;
        let (data, fds) = (std::mem::take(&mut self.data), std::mem::take(&mut self.fds));
        Ok((Message { kind: self.word(4), data, fds }, last >> 16 == u32::from(WANTS_REPLY)))
    }

    /// Reads some of what is missing, never beyond the end of the message; false if there is nothing now.
    fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Broken> {
        let want = match self.have.checked_sub(HEADER) {
            None => &mut self.header[self.have..],
            Some(at) => &mut self.data[at..],
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match recvmsg(socket, &mut [IoSliceMut::new(want)], &mut ancillary, flags) {
            Ok(got) => got,
            Err(errno) if interrupted(errno) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(Broken::Closed),
            Err(errno) => return Err(Broken::System(errno)),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Broken::Rubbish("descriptors did not fit"));
        }
        if got.bytes == 0 {
            return Err(Broken::Closed);
        }
        self.have += got.bytes;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// Rubbish is refused at once, and an end in the middle of a message is an end.
    #[test]
    fn rubbish_is_refused() {
        let cases: [(&[u8], Broken); 5] = [
            (&[0; 16], Broken::Rubbish("no header")),
            (b"WSVO\0\0\0\0\xff\xff\xff\xff\0\0\0\0", Broken::Rubbish("too long a message")),
            (b"WSVO\0\0\0\0\0\0\0\0\x09\0\0\0", Broken::Rubbish("unknown flags")),
            (b"WSVO\0\0\0\0\0\0\0\0\x01\0\0\0", Broken::Rubbish("wrong number of descriptors")),
            (b"WSVO\0\0\0\0\x05\0\0\0\0\0\0\0abc", Broken::Closed),
        ];
        for (bytes, expected) in cases {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            drop(ours);
            let mut receiver = Receiver::default();
            assert_eq!(receiver.receive(theirs.as_fd()).unwrap_err(), expected);
        }
    }

    /// Messages arrive whole and in order through a socket that takes a few bytes at a time.
    #[test]
    fn pieces_make_messages() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sender = Sender::default();
        for i in 0..20u32 {
            let fds = (0..i % 9).map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap())).collect();
            sender.push(Message { kind: i, data: vec![i as u8; i as usize * 40_000], fds }, i % 2 == 0);
        }
        let mut receiver = Receiver::default();
        let mut next = 0;
        while next < 20 {
            sender.flush(ours.as_fd()).unwrap();
            while let Some((message, wants_reply)) = receiver.receive(theirs.as_fd()).unwrap() {
                assert_eq!((message.kind, wants_reply), (next, next % 2 == 0));
                assert_eq!(message.data, vec![next as u8; next as usize * 40_000]);
                assert_eq!(message.fds.len(), next as usize % 9);
                next += 1;
            }
        }
        assert!(sender.is_empty() && sender.bytes() == 0);
    }
}

//! Non-blocking byte streams by Open vSwitch names: active `unix:FILE`,
//! `tcp:HOST:PORT`; passive `punix:FILE`, `ptcp:PORT[:HOST]`.
//!
//! Neighbours: `db`, `ofservice` and `unixctl` pump bytes through them. Main
//! thread; nothing here ever blocks.

use crate::daemonize::reason;
use crate::paths;
use infra::poll::Poller;
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path that fits into a `sockaddr_un`.
const MAX_UNIX_PATH: usize = 107;
/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 64;

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A method that does not exist or cannot be used here.
    #[error("Address family not supported by protocol")]
    Method,
    /// An address that cannot be read.
    #[error("{0}: bad address, use a numeric IPv4 or [IPv6] address and a port number")]
    Address(String),
    /// The system refused.
    #[error("{}", reason(.0))]
    System(#[from] io::Error),
}

/// A connection, perhaps still being made.
pub struct Stream {
    socket: Socket,
    connecting: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// That many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer closed.
    End,
}

impl Stream {
    /// Starts connecting to `name`; ports default to `default_port`.
    pub fn open(name: &str, default_port: u16) -> Result<Stream, StreamError> {
        let (method, rest) = name.split_once(':').ok_or(StreamError::Method)?;
        let (socket, address) = match method {
            "unix" => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
                let path = UnixPath::new(&paths::in_rundir(rest))?;
                let result = socket.connect(&SockAddr::unix(path.as_path())?);
                return Stream::from_connect(socket, result);
            }
            "tcp" => {
                let address = parse_address(rest, Some(default_port))
                    .ok_or_else(|| StreamError::Address(rest.to_string()))?;
                let kind = Type::STREAM.nonblocking().cloexec();
                let socket = Socket::new(Domain::for_address(address), kind, None)?;
                socket.set_tcp_nodelay(true)?;
                (socket, SockAddr::from(address))
            }
            _ => return Err(StreamError::Method),
        };
        let result = socket.connect(&address);
        Stream::from_connect(socket, result)
    }

    fn from_connect(socket: Socket, result: io::Result<()>) -> Result<Stream, StreamError> {
        match result {
            Ok(()) => Ok(Stream { socket, connecting: false }),
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(Stream { socket, connecting: true }),
            Err(e) => Err(e.into()),
        }
    }

    /// True once the connection stands; false while it is being made.
    pub fn connect(&mut self) -> io::Result<bool> {
        if self.connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match self.socket.peer_addr() {
                Ok(_) => self.connecting = false,
                Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Reads what is there into `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match (&self.socket).read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(n) => Ok(Received::Bytes(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
        }
    }

    /// Writes what the kernel takes of `bytes`; returns how many it took.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            return match (&self.socket).write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => result,
            };
        }
    }

    /// Writes as much of `pending` as the kernel takes, and removes it.
    pub fn send(&mut self, pending: &mut VecDeque<u8>) -> io::Result<()> {
        while !pending.is_empty() {
            match self.write(pending.as_slices().0)? {
                0 => break,
                n => drop(pending.drain(..n)),
            }
        }
        Ok(())
    }

    /// Registers what this stream waits for: the end of the connection attempt,
    /// else whatever is asked for.
    #[track_caller]
    pub fn wait(&self, poller: &mut Poller, reading: bool, writing: bool) {
        let fd = self.socket.as_raw_fd();
        let mut events = 0;
        if self.connecting || writing {
            events |= libc::POLLOUT;
        }
        if !self.connecting && reading {
            events |= libc::POLLIN;
        }
        if events != 0 {
            poller.fd(fd, events);
        }
    }
}

/// A path as short as the kernel wants it: long ones go through a descriptor
/// of their directory.
struct UnixPath {
    path: PathBuf,
    _directory: Option<std::fs::File>,
}

impl UnixPath {
    fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MAX_UNIX_PATH {
            return Ok(UnixPath { path: path.to_path_buf(), _directory: None });
        }
        let too_long = || io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(too_long)?;
        let directory = std::fs::File::open(parent)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        if short.as_os_str().len() > MAX_UNIX_PATH {
            return Err(too_long());
        }
        Ok(UnixPath { path: short, _directory: Some(directory) })
    }

    fn as_path(&self) -> &Path {
        &self.path
    }
}

/// `HOST:PORT`, `[V6]:PORT`, or `HOST` alone where there is a default port.
fn parse_address(text: &str, default_port: Option<u16>) -> Option<SocketAddr> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p))),
    };
    let host = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().ok()?,
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default_port?,
    };
    Some(SocketAddr::new(host, port))
}

/// A listening socket. A Unix socket's file is removed when it is dropped.
pub struct Listener {
    socket: Socket,
    unlink: Option<PathBuf>,
}

impl Listener {
    /// Listens on a Unix socket, in place of what an earlier process left.
    pub fn unix(path: &Path) -> Result<Listener, StreamError> {
        // Anything but a socket is not ours to remove: binding then says what is wrong.
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        let short = UnixPath::new(path)?;
        socket.bind(&SockAddr::unix(short.as_path())?)?;
        // Others may come later only as far as the directory lets them.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o750))?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, unlink: Some(path.to_path_buf()) })
    }

    /// Listens by name: `punix:FILE`, `ptcp:[PORT][:HOST]`.
    pub fn open(name: &str, default_port: u16) -> Result<Listener, StreamError> {
        let (method, rest) = name.split_once(':').ok_or(StreamError::Method)?;
        match method {
            "punix" => Listener::unix(&paths::in_rundir(rest)),
            "ptcp" => {
                let bad = || StreamError::Address(rest.to_string());
                let (port, host) = rest.split_once(':').map_or((rest, ""), |(p, h)| (p, h));
                let port = if port.is_empty() { default_port } else { port.parse().map_err(|_| bad())? };
                let host: IpAddr = match host.trim_matches(['[', ']']) {
                    "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                    host => host.parse().map_err(|_| bad())?,
                };
                Listener::tcp(SocketAddr::new(host, port)).or_else(|error| {
                    // A host without IPv6 still serves the wildcard.
                    if host == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                        return Listener::tcp((Ipv4Addr::UNSPECIFIED, port).into());
                    }
                    Err(error)
                })
            }
            _ => Err(StreamError::Method),
        }
    }

    fn tcp(address: SocketAddr) -> Result<Listener, StreamError> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, unlink: None })
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        match self.socket.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                if self.unlink.is_none() {
                    socket.set_tcp_nodelay(true)?;
                }
                Ok(Some(Stream { socket, connecting: false }))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The port of a TCP listener.
    #[cfg(test)]
    fn port(&self) -> Option<u16> {
        self.socket.local_addr().ok()?.as_socket().map(|a| a.port())
    }

    /// Wakes when a connection waits.
    #[track_caller]
    pub fn wait(&self, poller: &mut Poller) {
        poller.fd_in(self.socket.as_raw_fd());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.unlink {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(listener: &Listener, name: &str) {
        let mut poller = Poller::new().unwrap();
        let mut client = Stream::open(name, 1).unwrap();
        let mut server = loop {
            if let Some(server) = listener.accept().unwrap() {
                break server;
            }
            listener.wait(&mut poller);
            poller.block();
        };
        while !client.connect().unwrap() {
            client.wait(&mut poller, false, false);
            poller.block();
        }
        let mut out: VecDeque<u8> = b"hello".iter().copied().collect();
        client.send(&mut out).unwrap();
        assert!(out.is_empty());
        let mut buffer = [0; 16];
        loop {
            match server.receive(&mut buffer).unwrap() {
                Received::Bytes(n) => break assert_eq!(&buffer[..n], b"hello"),
                _ => {
                    server.wait(&mut poller, true, false);
                    poller.block();
                }
            }
        }
        drop(client);
        while server.receive(&mut buffer).unwrap() != Received::End {}
    }

    #[test]
    fn unix_with_long_path_and_tcp() {
        let dir = std::env::temp_dir().join(format!("stream-{}-{}", std::process::id(), "x".repeat(100)));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("sock");
        let listener = Listener::unix(&path).unwrap();
        meet(&listener, &format!("unix:{}", path.display()));
        drop(listener);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
        let listener = Listener::open("ptcp:0:127.0.0.1", 0).unwrap();
        meet(&listener, &format!("tcp:127.0.0.1:{}", listener.port().unwrap()));
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_address("1.2.3.4:5", None), Some("1.2.3.4:5".parse().unwrap()));
        assert_eq!(parse_address("[::1]", Some(6640)), Some("[::1]:6640".parse().unwrap()));
        assert_eq!(parse_address("1.2.3.4", None), None);
        assert_eq!(parse_address("1.2.3.4:x", Some(1)), None);
        assert!(matches!(Stream::open("foo:bar", 1), Err(StreamError::Method)));
    }
}

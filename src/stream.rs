//! Non-blocking byte streams by Open vSwitch names: active `unix:FILE`,
//! `tcp:HOST[:PORT]`, `ssl:HOST[:PORT]`; passive `punix:FILE`, `ptcp:[PORT][:HOST]`,
//! `pssl:[PORT][:HOST]`.
//!
//! Neighbours: `db`, `ofservice`, `controllers` and `unixctl` pump bytes through
//! them, `tls` encrypts. Main thread; nothing here ever blocks.

use crate::coverage;
use crate::daemonize::reason;
use crate::paths;
use crate::tls::{Plain, Session};
use infra::poll::Poller;
use infra::vlog::Module;
use infra::{err, warn};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

static UNIX_LOG: Module = Module::new("stream_unix");
static UNLINK_LOG: Module = Module::new("fatal_signal");

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

/// Differentiated services code point of connections for which no other is configured.
pub const DSCP: u8 = 48;

/// A connection, perhaps still being made.
pub struct Stream {
    socket: Socket,
    connecting: bool,
    tls: Option<Box<Session>>,
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
        Stream::open_with(name, default_port, DSCP)
    }

    /// Starts connecting to `name`, with packets of class `dscp`.
    pub fn open_with(name: &str, default_port: u16, dscp: u8) -> Result<Stream, StreamError> {
        coverage::STREAM_OPEN.inc();
        let (method, rest) = name.split_once(':').ok_or(StreamError::Method)?;
        if method == "unix" {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
            let path = UnixPath::new(&paths::in_rundir(rest))?;
            let result = socket.connect(&SockAddr::unix(path.as_path())?);
            return Stream::from_connect(socket, result, None);
        }
        let secure = match method {
            "tcp" => false,
            "ssl" => true,
            _ => return Err(StreamError::Method),
        };
        let address =
            parse_address(rest, Some(default_port)).ok_or_else(|| StreamError::Address(rest.to_string()))?;
        let tls = if secure { Some(Box::new(Session::client(address.ip())?)) } else { None };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_tcp_nodelay(true)?;
        set_dscp(&socket, address.ip(), dscp)?;
        let result = socket.connect(&SockAddr::from(address));
        Stream::from_connect(socket, result, tls)
    }

    fn from_connect(
        socket: Socket,
        result: io::Result<()>,
        tls: Option<Box<Session>>,
    ) -> Result<Stream, StreamError> {
        match result {
            Ok(()) => Ok(Stream { socket, connecting: false, tls }),
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {
                Ok(Stream { socket, connecting: true, tls })
            }
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
        match &mut self.tls {
            Some(tls) => tls.handshake(&mut &self.socket),
            None => Ok(true),
        }
    }

    /// Reads what is there into `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if let Some(tls) = &mut self.tls {
            return Ok(match tls.receive(&mut &self.socket, buffer)? {
                Plain::Bytes(n) => Received::Bytes(n),
                Plain::Nothing => Received::Nothing,
                Plain::End => Received::End,
            });
        }
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
        if let Some(tls) = &mut self.tls {
            return tls.write(&mut &self.socket, bytes);
        }
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
        let shaking = self.tls.as_ref().is_some_and(|t| !t.is_established());
        let pending = self.tls.as_ref().is_some_and(|t| t.wants_write());
        // During a handshake only the peer can make progress possible.
        if self.connecting || writing && !shaking || pending {
            events |= libc::POLLOUT;
        }
        if !self.connecting && (reading || shaking) {
            events |= libc::POLLIN;
        }
        if events != 0 {
            poller.fd(fd, events);
        }
    }
}

fn set_dscp(socket: &Socket, ip: IpAddr, dscp: u8) -> io::Result<()> {
    let tos = u32::from(dscp & 63) << 2;
    match ip {
        IpAddr::V4(_) => socket.set_tos_v4(tos),
        IpAddr::V6(_) => socket.set_tclass_v6(tos),
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
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default_port?,
    };
    socket_address(host, port)
}

/// A numeric address; one of IPv6 may name its interface: `fe80::1%eth0`.
fn socket_address(host: &str, port: u16) -> Option<SocketAddr> {
    if host == "localhost" {
        return Some((Ipv4Addr::LOCALHOST, port).into());
    }
    match host.split_once('%') {
        None => Some(SocketAddr::new(host.parse().ok()?, port)),
        Some((address, scope)) => {
            let by_name = || infra::linux::DeviceControl::open().ok()?.index(scope).ok();
            let scope = scope.parse().ok().or_else(by_name)?;
            Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, port, 0, scope).into())
        }
    }
}

/// A listening socket. A Unix socket's file is removed when it is dropped.
pub struct Listener {
    socket: Socket,
    unlink: Option<PathBuf>,
    /// Connections are encrypted.
    secure: bool,
}

impl Listener {
    /// Listens on a Unix socket, in place of what an earlier process left.
    pub fn unix(path: &Path) -> Result<Listener, StreamError> {
        coverage::PSTREAM_OPEN.inc();
        // Anything but a socket is not ours to remove: binding then says what is wrong.
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        let short = UnixPath::new(path)?;
        if let Err(error) = socket.bind(&SockAddr::unix(short.as_path())?) {
            let (name, text) = (path.display(), reason(&error));
            if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                // In the words of the original, which tries to remove what was not made.
                warn!(UNLINK_LOG, "could not unlink \"{name}\" (No such file or directory)");
            }
            err!(UNIX_LOG, "{name}: binding failed: {text}");
            return Err(error.into());
        }
        // Others may come later only as far as the directory lets them.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o750))?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, unlink: Some(path.to_path_buf()), secure: false })
    }

    /// Listens by name: `punix:FILE`, `ptcp:[PORT][:HOST]`, `pssl:[PORT][:HOST]`; without a host on IPv4.
    pub fn open(name: &str, default_port: u16) -> Result<Listener, StreamError> {
        Listener::open_with(name, default_port, DSCP)
    }

    /// Listens by name, with packets of class `dscp`.
    pub fn open_with(name: &str, default_port: u16, dscp: u8) -> Result<Listener, StreamError> {
        let (method, rest) = name.split_once(':').ok_or(StreamError::Method)?;
        let secure = match method {
            "punix" => return Listener::unix(&paths::in_rundir(rest)),
            "ptcp" => false,
            "pssl" => true,
            _ => return Err(StreamError::Method),
        };
        coverage::PSTREAM_OPEN.inc();
        let bad = || StreamError::Address(rest.to_string());
        let (port, host) = rest.split_once(':').map_or((rest, ""), |(p, h)| (p, h));
        let port = if port.is_empty() { default_port } else { port.parse().map_err(|_| bad())? };
        let address = match host.trim_matches(['[', ']']) {
            "" => (Ipv4Addr::UNSPECIFIED, port).into(),
            host => socket_address(host, port).ok_or_else(bad)?,
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        set_dscp(&socket, address.ip(), dscp)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, unlink: None, secure })
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        match self.socket.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                if self.unlink.is_none() {
                    socket.set_tcp_nodelay(true)?;
                }
                let tls = if self.secure { Some(Box::new(Session::server()?)) } else { None };
                Ok(Some(Stream { socket, connecting: false, tls }))
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
        if name.starts_with("tcp") {
            assert_eq!(client.socket.tos_v4().unwrap(), u32::from(DSCP) << 2);
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
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 7);
        assert_eq!(parse_address("[fe80::1%7]:5", None), Some(scoped.into()));
        assert_eq!(parse_address("[fe80::1%nosuch]:5", None), None);
        assert_eq!(parse_address("1.2.3.4", None), None);
        assert_eq!(parse_address("1.2.3.4:x", Some(1)), None);
        assert!(matches!(Stream::open("foo:bar", 1), Err(StreamError::Method)));
    }
}

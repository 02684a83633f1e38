//! What a descriptor is, in words for a log: `FIFO pipe:[5]`, `127.0.0.1:6653<->127.0.0.1:40000`,
//! `/run/x.sock<->`, `NETLINK_ROUTE<->NETLINK_ROUTE`, `character device /dev/net/tun`.

use rustix::net::{getpeername, getsockname, AddressFamily, SocketAddrAny, SocketAddrUnix};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;

/// Describes an open descriptor.
pub fn describe(fd: RawFd) -> String {
    let link = format!("/proc/self/fd/{fd}");
    let target = std::fs::read_link(&link).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let Ok(metadata) = std::fs::metadata(&link) else { return target };
    let kind = metadata.file_type();
    if kind.is_socket() {
        return socket(fd);
    }
    let what = if kind.is_fifo() {
        "FIFO"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_block_device() {
        "block device"
    } else if kind.is_dir() {
        "directory"
    } else {
        "file"
    };
    format!("{what} {target}")
}

fn socket(fd: RawFd) -> String {
    // SAFETY: the descriptor was just seen to be open; it is used for two queries that change nothing, and a stale
    // number would only give another socket's name.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let ours = getsockname(fd).map_or_else(|_| String::new(), name);
    let theirs = getpeername(fd).ok().flatten().map_or_else(String::new, name);
    format!("{ours}<->{theirs}")
}

fn name(address: SocketAddrAny) -> String {
    match address.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => {
            std::net::SocketAddr::try_from(address).map_or_else(|_| String::new(), |a| a.to_string())
        }
        AddressFamily::UNIX => SocketAddrUnix::try_from(address)
            .ok()
            .and_then(|a| a.path_bytes().map(|p| String::from_utf8_lossy(p).into_owned()))
            .unwrap_or_default(),
        AddressFamily::NETLINK => "NETLINK_ROUTE".to_string(),
        AddressFamily::PACKET => "AF_PACKET".to_string(),
        other => format!("AF {}", other.as_raw()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn descriptors_have_names() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(describe(listener.as_raw_fd()), format!("{}<->", listener.local_addr().unwrap()));
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(describe(a.as_raw_fd()), "<->");
        let (reader, _writer) = crate::process::pipe().unwrap();
        assert!(describe(reader.as_raw_fd()).starts_with("FIFO pipe:["));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(describe(null.as_raw_fd()), "character device /dev/null");
        assert_eq!(describe(-1), "");
    }
}

//! Linux system calls that have no safe wrapper in the standard library: network devices by name,
//! tap devices, packet sockets, readiness.
//!
//! Neighbours: `netdev` builds its ports on these. Threads: every function is a system call on its
//! arguments; nothing is shared. A network device name means the device of that name in the network
//! namespace in which the socket at hand was opened.

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Whether `fd` becomes readable (or fails) within `timeout_ms`; 0 asks without waiting.
pub fn wait_readable(fd: RawFd, timeout_ms: i32) -> io::Result<bool> {
    let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: `p` is one valid pollfd for the length of the call.
    Ok(check(unsafe { libc::poll(&mut p, 1, timeout_ms) })? > 0)
}

/// Puts the calling thread into a network namespace of its own; its children start there too.
pub fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: the call takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Lets `fd` stand for a socket that is never readable, closing what it was. For a descriptor that
/// somebody polls although its device has gone.
pub fn silence(fd: BorrowedFd<'_>) -> io::Result<()> {
    let quiet = std::os::unix::net::UnixDatagram::unbound()?;
    // SAFETY: both descriptors are open; the number of `fd` stays valid, so no owner is confused.
    check(unsafe { libc::dup3(quiet.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}

fn check(ret: i32) -> io::Result<i32> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An `ifreq` for `name`. Names that no device can have give `ENODEV`.
fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: ifreq is plain data for which zero bytes are valid.
    let mut r: libc::ifreq = unsafe { zeroed() };
    for (to, from) in r.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(r)
}

/// Flags of a device: administratively up.
pub const IFF_UP: u32 = libc::IFF_UP as u32;
/// Flags of a device: operational.
pub const IFF_RUNNING: u32 = libc::IFF_RUNNING as u32;
/// Flags of a device: receives frames for any address.
pub const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;
/// Flags of a device: loopback.
pub const IFF_LOOPBACK: u32 = libc::IFF_LOOPBACK as u32;

/// Driver, version, firmware version.
pub type DriverInfo = (String, String, String);

/// What `ETHTOOL_GSET` says of a link. The bit masks are the kernel's `SUPPORTED_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// Modes the device supports.
    pub supported: u32,
    /// Modes it advertises.
    pub advertised: u32,
    /// Modes the link partner advertises.
    pub peer: u32,
    /// Mbit/s, `None` when unknown.
    pub speed: Option<u32>,
    /// Full duplex.
    pub full_duplex: bool,
    /// Connector (`PORT_*`).
    pub port: u8,
    /// Autonegotiation on.
    pub autoneg: bool,
}

/// A socket on which devices are asked and configured by name.
#[derive(Debug)]
pub struct DeviceControl(OwnedFd);

impl DeviceControl {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> io::Result<DeviceControl> {
        // SAFETY: the call takes numbers only.
        owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
            .map(DeviceControl)
    }

    fn ioctl(&self, request: libc::Ioctl, r: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every request used here reads and writes one ifreq, and `r` is one; a pointer in
        // it was set by the caller to a live object of the size the request expects.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request, r as *mut libc::ifreq) }).map(drop)
    }

    /// Index of the device.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut r = ifreq(name)?;
        self.ioctl(libc::SIOCGIFINDEX as libc::Ioctl, &mut r)?;
        // SAFETY: SIOCGIFINDEX filled this member.
        Ok(unsafe { r.ifr_ifru.ifru_ifindex } as u32)
    }

    /// Flags (`IFF_*`).
    pub fn flags(&self, name: &str) -> io::Result<u32> {
        let mut r = ifreq(name)?;
        self.ioctl(libc::SIOCGIFFLAGS as libc::Ioctl, &mut r)?;
        // SAFETY: SIOCGIFFLAGS filled this member.
        Ok(u32::from(unsafe { r.ifr_ifru.ifru_flags } as u16))
    }

    /// Sets the flags `on` and clears the flags `off`.
    pub fn change_flags(&self, name: &str, on: u32, off: u32) -> io::Result<()> {
        let old = self.flags(name)?;
        let new = (old | on) & !off;
        if new == old {
            return Ok(());
        }
        let mut r = ifreq(name)?;
        r.ifr_ifru.ifru_flags = new as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS as libc::Ioctl, &mut r)
    }

    /// Ethernet address.
    pub fn mac(&self, name: &str) -> io::Result<[u8; 6]> {
        let mut r = ifreq(name)?;
        self.ioctl(libc::SIOCGIFHWADDR as libc::Ioctl, &mut r)?;
        // SAFETY: SIOCGIFHWADDR filled this member.
        let data = unsafe { r.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(std::array::from_fn(|i| data[i] as u8))
    }

    /// Changes the Ethernet address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut r = ifreq(name)?;
        // SAFETY: sockaddr is plain data for which zero bytes are valid.
        let mut a: libc::sockaddr = unsafe { zeroed() };
        a.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in a.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        r.ifr_ifru.ifru_hwaddr = a;
        self.ioctl(libc::SIOCSIFHWADDR as libc::Ioctl, &mut r)
    }

    /// MTU in bytes.
    pub fn mtu(&self, name: &str) -> io::Result<u32> {
        let mut r = ifreq(name)?;
        self.ioctl(libc::SIOCGIFMTU as libc::Ioctl, &mut r)?;
        // SAFETY: SIOCGIFMTU filled this member.
        Ok(unsafe { r.ifr_ifru.ifru_mtu } as u32)
    }

    /// Changes the MTU.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut r = ifreq(name)?;
        r.ifr_ifru.ifru_mtu = i32::from(mtu);
        self.ioctl(libc::SIOCSIFMTU as libc::Ioctl, &mut r)
    }

    fn ethtool<T>(&self, name: &str, arg: &mut T) -> io::Result<()> {
        let mut r = ifreq(name)?;
        r.ifr_ifru.ifru_data = (arg as *mut T).cast();
        self.ioctl(libc::SIOCETHTOOL as libc::Ioctl, &mut r)
    }

    /// The driver of the device.
    pub fn driver(&self, name: &str) -> io::Result<DriverInfo> {
        // SAFETY: plain data for which zero bytes are valid.
        let mut info: EthtoolDrvinfo = unsafe { zeroed() };
        info.cmd = ETHTOOL_GDRVINFO;
        self.ethtool(name, &mut info)?;
        Ok((text(&info.driver), text(&info.version), text(&info.fw_version)))
    }

    /// Speed, duplex and modes of the link.
    pub fn link_settings(&self, name: &str) -> io::Result<LinkSettings> {
        // SAFETY: plain data for which zero bytes are valid.
        let mut c: EthtoolCmd = unsafe { zeroed() };
        c.cmd = ETHTOOL_GSET;
        self.ethtool(name, &mut c)?;
        let speed = u32::from(c.speed) | u32::from(c.speed_hi) << 16;
        let unknown = speed == 0 || speed == u32::MAX || speed == u32::from(u16::MAX);
        Ok(LinkSettings {
            supported: c.supported,
            advertised: c.advertising,
            peer: c.lp_advertising,
            speed: (!unknown).then_some(speed),
            full_duplex: c.duplex == 1,
            port: c.port,
            autoneg: c.autoneg == 1,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).map(|c| c.to_string_lossy().into_owned()).unwrap_or_default()
}

const ETHTOOL_GSET: u32 = 1;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo` of the kernel's interface.
#[repr(C)]
struct EthtoolDrvinfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    n_priv_flags: u32,
    n_stats: u32,
    testinfo_len: u32,
    eedump_len: u32,
    regdump_len: u32,
}

/// `struct ethtool_cmd` of the kernel's interface.
#[repr(C)]
struct EthtoolCmd {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    maxtxpkt: u32,
    maxrxpkt: u32,
    speed_hi: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    lp_advertising: u32,
    reserved: [u32; 2],
}

const _: () = assert!(size_of::<EthtoolDrvinfo>() == 196 && size_of::<EthtoolCmd>() == 44);

/// Opens the tap device `name`, creating it when there is none; non-blocking, without packet
/// information before the frames.
pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut r = ifreq(name)?;
    r.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &mut r) })?;
    Ok(tun.into())
}

/// Whether the device behind `tap` outlives its descriptor.
pub fn set_tap_persistent(tap: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let arg = libc::c_ulong::from(on);
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, arg) }).map(drop)
}

/// A socket for questions to the kernel's routing netlink: requests are written, replies read.
pub fn open_route_netlink() -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers only.
    owned(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })
}

/// A socket that tells when a device of this network namespace came, went or changed: readable then.
pub fn open_link_events() -> io::Result<OwnedFd> {
    let socket = open_route_netlink()?;
    // SAFETY: all zeros is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = libc::RTMGRP_LINK as u32;
    let length = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is a valid address of `length` bytes for the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) })?;
    Ok(socket)
}

/// A set of descriptors that is itself pollable: readable when one of them is.
pub fn poll_set(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let set = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        let (set, fd) = (set.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, `event` is valid for the call.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
    }
    Ok(set)
}

/// A counter that is readable while it is not zero; write and read 8 bytes. Non-blocking.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers() {
        let c = DeviceControl::open().unwrap();
        assert_eq!(c.index("lo").unwrap(), 1);
        assert_ne!(c.flags("lo").unwrap() & IFF_LOOPBACK, 0);
        assert_eq!(c.mac("lo").unwrap(), [0; 6]);
        assert!(c.mtu("lo").unwrap() >= 1500);
        for bad in ["", "nosuchdevice0", "a name longer than any device has", "a\0b"] {
            assert_eq!(c.index(bad).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{bad:?}");
        }
    }

    #[test]
    fn a_poll_set_is_readable_when_a_member_is() {
        use std::io::Write;
        let event = event_fd().unwrap();
        let set = poll_set(&[std::os::fd::AsFd::as_fd(&event)]).unwrap();
        assert!(!wait_readable(set.as_raw_fd(), 0).unwrap());
        std::fs::File::from(event.try_clone().unwrap()).write_all(&1u64.to_ne_bytes()).unwrap();
        assert!(wait_readable(set.as_raw_fd(), 0).unwrap());
        silence(std::os::fd::AsFd::as_fd(&event)).unwrap();
        assert!(!wait_readable(event.as_raw_fd(), 0).unwrap());
    }
}

//! AF_PACKET sockets: whole Ethernet frames of one Linux device, many per system call, with what
//! the kernel knows beside the bytes (VLAN tag, unfinished checksum, segmentation).
//!
//! Neighbours: `netdev`'s system ports. Threads: the socket may be used by many threads; a
//! [`FrameRing`] belongs to one.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Frames received or sent by one system call.
pub const FRAMES: usize = 32;
/// Longest frame that is received whole: 64 KiB of IP, Ethernet header, and a little more.
pub const MAX_FRAME: usize = 65_536 + 64;

const VNET_HDR: usize = 10;
const SLOT: usize = VNET_HDR + MAX_FRAME;

/// What the kernel says about a frame whose checksum or segmentation it left to the device
/// (`struct virtio_net_hdr`, virtio 1.1 §5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Payload bytes in each segment.
    pub gso_size: u16,
    /// Where the checksum starts to sum, bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, bytes from `csum_start`.
    pub csum_offset: u16,
}

/// One received frame.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The bytes, without the VLAN tag the kernel took off.
    pub data: &'a [u8],
    /// TPID and TCI of that tag.
    pub vlan: Option<(u16, u16)>,
    /// Offload state.
    pub offload: Offload,
    /// The frame was longer than [`MAX_FRAME`]: the end is missing.
    pub truncated: bool,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Room for [`FRAMES`] received frames.
pub struct FrameRing {
    slots: Vec<u8>,
    control: [Control; FRAMES],
    len: [usize; FRAMES],
    control_len: [usize; FRAMES],
    truncated: [bool; FRAMES],
}

impl Default for FrameRing {
    fn default() -> Self {
        FrameRing {
            slots: vec![0; SLOT * FRAMES],
            control: [Control([0; 64]); FRAMES],
            len: [0; FRAMES],
            control_len: [0; FRAMES],
            truncated: [false; FRAMES],
        }
    }
}

impl FrameRing {
    /// Frame `i` of the last [`PacketSocket::recv`]; `None` for one too short to be a frame.
    pub fn frame(&self, i: usize) -> Option<Received<'_>> {
        let slot = &self.slots[i * SLOT..i * SLOT + self.len[i].min(SLOT)];
        let (head, data) = slot.split_at_checked(VNET_HDR)?;
        let word = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let offload = Offload {
            flags: head[0],
            gso_type: head[1],
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        };
        let control = &self.control[i].0;
        let vlan = vlan_of(&control[..self.control_len[i].min(control.len())]);
        Some(Received { data, vlan, offload, truncated: self.truncated[i] })
    }
}

/// Finds the VLAN tag in the ancillary data of one message.
fn vlan_of(mut control: &[u8]) -> Option<(u16, u16)> {
    const HEAD: usize = size_of::<libc::cmsghdr>();
    while let Some((head, rest)) = control.split_at_checked(HEAD) {
        let len = usize::from_ne_bytes(head[..size_of::<usize>()].try_into().ok()?);
        let at = size_of::<usize>();
        let level = i32::from_ne_bytes(head[at..at + 4].try_into().ok()?);
        let kind = i32::from_ne_bytes(head[at + 4..at + 8].try_into().ok()?);
        let body = rest.get(..len.checked_sub(HEAD)?)?;
        if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            let status = u32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
            let tci = u16::from_ne_bytes(body.get(16..18)?.try_into().ok()?);
            let tpid = u16::from_ne_bytes(body.get(18..20)?.try_into().ok()?);
            if status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let known = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            return Some((if known { tpid } else { 0x8100 }, tci));
        }
        control = rest.get(body.len().next_multiple_of(size_of::<usize>())..)?;
    }
    None
}

/// A socket that exchanges frames with one device.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// A socket on no device yet: it receives nothing. `rcvbuf` is how many bytes of frames may
    /// wait in it.
    pub fn open(rcvbuf: usize) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor and nobody else knows it.
        let s = PacketSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        s.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1i32)?;
        s.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
        s.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
        let rcvbuf = i32::try_from(rcvbuf).unwrap_or(i32::MAX);
        if s.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &rcvbuf).is_err() {
            s.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &rcvbuf)?;
        }
        Ok(s)
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        let len = size_of_val(value) as libc::socklen_t;
        // SAFETY: `value` is valid for `len` bytes for the length of the call.
        let r =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (value as *const T).cast(), len) };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Attaches the socket to device `ifindex`, whatever it was attached to, and makes the device
    /// receive frames for any address while the socket lives.
    pub fn attach(&self, ifindex: u32) -> io::Result<()> {
        let index = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        // SAFETY: sockaddr_ll is plain data for which zero bytes are valid.
        let mut a: libc::sockaddr_ll = unsafe { zeroed() };
        a.sll_family = libc::AF_PACKET as u16;
        a.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        a.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `a` is a sockaddr of `len` bytes, valid for the length of the call.
        let r = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const a).cast(), len) };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: packet_mreq is plain data for which zero bytes are valid.
        let mut m: libc::packet_mreq = unsafe { zeroed() };
        m.mr_ifindex = index;
        m.mr_type = libc::PACKET_MR_PROMISC as u16;
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &m)
    }

    /// Receives what waits, at most [`FRAMES`] frames, and returns how many. `WouldBlock` when
    /// nothing waits.
    pub fn recv(&self, ring: &mut FrameRing) -> io::Result<usize> {
        // SAFETY: iovec and mmsghdr are plain data for which zero bytes are valid.
        let mut iov: [libc::iovec; FRAMES] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut msgs: [libc::mmsghdr; FRAMES] = unsafe { zeroed() };
        for (i, slot) in ring.slots.chunks_exact_mut(SLOT).enumerate() {
            iov[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
            let h = &mut msgs[i].msg_hdr;
            h.msg_iov = &mut iov[i];
            h.msg_iovlen = 1;
            h.msg_control = ring.control[i].0.as_mut_ptr().cast();
            h.msg_controllen = size_of::<Control>() as _;
        }
        let (fd, max) = (self.0.as_raw_fd(), FRAMES as u32);
        // SAFETY: each message points at one slot and one control block of `ring`, which is
        // borrowed exclusively and outlives the call; the lengths are theirs.
        let n = unsafe {
            libc::recvmmsg(fd, msgs.as_mut_ptr(), max, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let n = n as usize;
        for (i, m) in msgs.iter().enumerate().take(n) {
            ring.len[i] = m.msg_len as usize;
            ring.control_len[i] = m.msg_hdr.msg_controllen;
            ring.truncated[i] = m.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        Ok(n)
    }

    /// Sends frames in order until the device takes no more; returns how many it took. An error
    /// means that it did not take the first. At most [`FRAMES`] are sent.
    pub fn send(&self, frames: &[&[u8]]) -> io::Result<usize> {
        static NO_OFFLOAD: [u8; VNET_HDR] = [0; VNET_HDR];
        // SAFETY: iovec and mmsghdr are plain data for which zero bytes are valid.
        let mut iov: [[libc::iovec; 2]; FRAMES] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut msgs: [libc::mmsghdr; FRAMES] = unsafe { zeroed() };
        for ((frame, v), m) in frames.iter().zip(&mut iov).zip(&mut msgs) {
            v[0] = libc::iovec { iov_base: NO_OFFLOAD.as_ptr().cast_mut().cast(), iov_len: VNET_HDR };
            v[1] = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            m.msg_hdr.msg_iov = v.as_mut_ptr();
            m.msg_hdr.msg_iovlen = 2;
        }
        let (fd, n) = (self.0.as_raw_fd(), frames.len().min(FRAMES) as u32);
        // SAFETY: the first `n` messages point at frames that outlive the call, which only reads.
        let sent = unsafe { libc::sendmmsg(fd, msgs.as_mut_ptr(), n, libc::MSG_DONTWAIT as _) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(sent as usize)
    }

    /// Frames that found the socket full since this was last asked.
    pub fn take_drops(&self) -> io::Result<u32> {
        // SAFETY: tpacket_stats is plain data for which zero bytes are valid.
        let mut s: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: `s` is valid for `len` bytes for the length of the call.
        let r = unsafe { libc::getsockopt(self.0.as_raw_fd(), level, option, (&raw mut s).cast(), &mut len) };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(s.tp_drops)
    }
}

/// Not in every libc: `linux/if_packet.h`, Linux 4.20.
const PACKET_IGNORE_OUTGOING: i32 = 23;

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(level: i32, kind: i32, body: &[u8]) -> Vec<u8> {
        let mut v = (16 + body.len()).to_ne_bytes().to_vec();
        v.extend(level.to_ne_bytes());
        v.extend(kind.to_ne_bytes());
        v.extend(body);
        v.resize(v.len().next_multiple_of(8), 0);
        v
    }

    fn auxdata(status: u32, tci: u16, tpid: u16) -> Vec<u8> {
        let mut v = status.to_ne_bytes().to_vec();
        v.extend([0; 12]);
        v.extend(tci.to_ne_bytes());
        v.extend(tpid.to_ne_bytes());
        control(libc::SOL_PACKET, libc::PACKET_AUXDATA, &v)
    }

    #[test]
    fn vlan_tag_is_found_in_ancillary_data() {
        let valid = libc::TP_STATUS_VLAN_VALID;
        let both = valid | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(vlan_of(&auxdata(both, 0x2005, 0x88a8)), Some((0x88a8, 0x2005)));
        assert_eq!(vlan_of(&auxdata(valid, 7, 0)), Some((0x8100, 7)));
        assert_eq!(vlan_of(&auxdata(0, 7, 0x8100)), None);
        let mut two = control(libc::SOL_SOCKET, 99, &[1, 2, 3]);
        two.extend(auxdata(both, 9, 0x8100));
        assert_eq!(vlan_of(&two), Some((0x8100, 9)));
    }

    #[test]
    fn broken_ancillary_data_is_survived() {
        let whole = auxdata(libc::TP_STATUS_VLAN_VALID, 7, 0x8100);
        for n in 0..whole.len() - 4 {
            assert_eq!(vlan_of(&whole[..n]), None, "{n} bytes");
        }
        assert_eq!(vlan_of(&[0xff; 64]), None);
        assert_eq!(vlan_of(&[0; 64]), None);
    }
}

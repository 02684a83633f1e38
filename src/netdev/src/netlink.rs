//! Counters of a Linux device, over routing netlink (RFC 3549; `struct rtnl_link_stats64`).
//!
//! Neighbours: `device`. Not sysfs: that shows the network namespace in which it was mounted, not
//! the one the device lives in. Threads: one question at a time per socket; `device` locks.

use crate::{coverage, Stats};
use std::fs::File;
use std::io::{self, Read, Write};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER_CHANGES: u16 = 35;
const NLMSG_HEADER: usize = 16;
const IFINFO: usize = 16;

/// What the kernel counts for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets and bytes, receive and transmit as the kernel's own network stack sees them.
    pub stats: Stats,
    /// Carrier changes since the device exists.
    pub carrier_changes: u32,
}

/// A socket to ask on, in the calling thread's network namespace.
pub fn open() -> io::Result<File> {
    infra::linux::open_route_netlink().map(File::from)
}

/// Asks for the counters of device `ifindex`.
pub fn link_counters(socket: &File, ifindex: u32, seq: u32) -> io::Result<LinkCounters> {
    let mut socket = socket;
    socket.write_all(&request(ifindex, seq))?;
    coverage::NETLINK_SENT.inc();
    let mut reply = vec![0; 32 * 1024];
    // The kernel has answered before the write returned. A reply to an earlier question that was
    // not read is skipped.
    for _ in 0..8 {
        let n = socket.read(&mut reply)?;
        coverage::NETLINK_RECEIVED.inc();
        if let Some(found) = parse(&reply[..n], seq)? {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn request(ifindex: u32, seq: u32) -> Vec<u8> {
    let mut m = Vec::with_capacity(NLMSG_HEADER + IFINFO);
    m.extend(((NLMSG_HEADER + IFINFO) as u32).to_ne_bytes());
    m.extend(RTM_GETLINK.to_ne_bytes());
    m.extend(NLM_F_REQUEST.to_ne_bytes());
    m.extend(seq.to_ne_bytes());
    m.extend([0; 4 + 4]); // our port id is the kernel's to choose; family, padding, type
    m.extend(ifindex.to_ne_bytes());
    m.extend([0; 8]); // flags, change mask
    m
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// `Ok(None)`: no message of the datagram answers `seq`.
fn parse(mut datagram: &[u8], seq: u32) -> io::Result<Option<LinkCounters>> {
    while let (Some(len), Some(kind), Some(s)) =
        (u32_at(datagram, 0), u16_at(datagram, 4), u32_at(datagram, 8))
    {
        let len = len as usize;
        let Some(body) = datagram.get(NLMSG_HEADER..len) else { break };
        match kind {
            NLMSG_ERROR if s == seq => {
                let code = u32_at(body, 0).unwrap_or(0) as i32;
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            RTM_NEWLINK if s == seq => return Ok(Some(attributes(body.get(IFINFO..).unwrap_or(&[])))),
            _ => {}
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(None)
}

fn attributes(mut rest: &[u8]) -> LinkCounters {
    let mut found = LinkCounters::default();
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(body) = rest.get(4..usize::from(len)) else { break };
        match kind & 0x3fff {
            IFLA_STATS64 => found.stats = stats64(body),
            IFLA_CARRIER_CHANGES => found.carrier_changes = u32_at(body, 0).unwrap_or(0),
            _ => {}
        }
        rest = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

fn stats64(body: &[u8]) -> Stats {
    let word = |i: usize| {
        let bytes = body.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(u64::MAX, u64::from_ne_bytes)
    };
    Stats {
        rx_packets: word(0),
        tx_packets: word(1),
        rx_bytes: word(2),
        tx_bytes: word(3),
        rx_errors: word(4),
        tx_errors: word(5),
        rx_dropped: word(6),
        tx_dropped: word(7),
        multicast: word(8),
        collisions: word(9),
        rx_length_errors: word(10),
        rx_over_errors: word(11),
        rx_crc_errors: word(12),
        rx_frame_errors: word(13),
        rx_fifo_errors: word(14),
        rx_missed_errors: word(15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        let mut m = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        m.extend(kind.to_ne_bytes());
        m.extend([0; 2]);
        m.extend(seq.to_ne_bytes());
        m.extend([0; 4]);
        m.extend(body);
        m
    }

    fn link(words: &[u64]) -> Vec<u8> {
        let mut body = vec![0; IFINFO];
        body.extend(5u16.to_ne_bytes()); // an attribute of one byte, padded to eight
        body.extend(1u16.to_ne_bytes());
        body.extend([9, 0, 0, 0]);
        body.extend(((4 + words.len() * 8) as u16).to_ne_bytes());
        body.extend(IFLA_STATS64.to_ne_bytes());
        body.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        body.extend(8u16.to_ne_bytes());
        body.extend(IFLA_CARRIER_CHANGES.to_ne_bytes());
        body.extend(3u32.to_ne_bytes());
        body
    }

    #[test]
    fn a_reply_is_read_field_by_field() {
        let words: Vec<u64> = (100..124).collect();
        let mut datagram = message(RTM_NEWLINK, 6, &link(&[0; 16]));
        datagram.extend(message(RTM_NEWLINK, 7, &link(&words)));
        let found = parse(&datagram, 7).unwrap().unwrap();
        assert_eq!(found.carrier_changes, 3);
        assert_eq!((found.stats.rx_packets, found.stats.tx_bytes), (100, 103));
        assert_eq!((found.stats.multicast, found.stats.rx_missed_errors), (108, 115));
        assert_eq!(parse(&datagram, 8).unwrap(), None);
        assert_eq!(stats64(&[0; 8]).tx_packets, u64::MAX);
    }

    #[test]
    fn errors_and_broken_replies_are_survived() {
        let gone = message(NLMSG_ERROR, 7, &(-libc::ENODEV).to_ne_bytes());
        assert_eq!(parse(&gone, 7).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        let whole = message(RTM_NEWLINK, 7, &link(&[1; 24]));
        for n in 0..whole.len() {
            assert_eq!(parse(&whole[..n], 7).unwrap(), None);
        }
        for at in 0..whole.len() {
            for v in [0, 1, 3, 0xff] {
                let mut m = whole.clone();
                m[at] = v;
                let _ = parse(&m, 7);
            }
        }
    }

    #[test]
    fn the_kernel_answers() {
        let socket = open().unwrap();
        link_counters(&socket, 1, 1).unwrap();
        let e = link_counters(&socket, 0x7fff_0000, 2).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENODEV));
    }
}

//! Datapath actions: what a megaflow does to its packets.
//!
//! Neighbours: `ofproto` makes them, `datapath` runs them, their text is in `odp`. Threads: plain data, shared
//! behind `Arc`.

use crate::be::{Be16, Be32};
use crate::port::{DpPort, RecircId};

/// One header rewrite, with masks where the header allows partial writes. A mask bit of one is a bit that
/// is written. Values outside the mask are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SetField {
    Eth { src: [u8; 6], dst: [u8; 6], src_mask: [u8; 6], dst_mask: [u8; 6] },
    Ipv4 { key: Ipv4Set, mask: Ipv4Set },
    Ipv6 { key: Ipv6Set, mask: Ipv6Set },
    Tcp { src: Be16, dst: Be16, src_mask: Be16, dst_mask: Be16 },
    Udp { src: Be16, dst: Be16, src_mask: Be16, dst_mask: Be16 },
    Sctp { src: Be16, dst: Be16, src_mask: Be16, dst_mask: Be16 },
    Icmp { kind: u8, code: u8, kind_mask: u8, code_mask: u8 },
    Icmp6 { kind: u8, code: u8, kind_mask: u8, code_mask: u8 },
    Arp { key: ArpSet, mask: ArpSet },
    Nd { key: NdSet, mask: NdSet },
    Mpls { lse: Be32, mask: Be32 },
    SkbPriority { value: u32, mask: u32 },
    SkbMark { value: u32, mask: u32 },
}

/// Writable fields of an IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Ipv4Set {
    pub src: Be32,
    pub dst: Be32,
    pub tos: u8,
    pub ttl: u8,
}

/// Writable fields of an IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Ipv6Set {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// Flow label, 20 bits.
    pub label: Be32,
    pub tclass: u8,
    pub hlimit: u8,
}

/// Writable fields of an ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ArpSet {
    pub sip: Be32,
    pub tip: Be32,
    pub op: Be16,
    pub sha: [u8; 6],
    pub tha: [u8; 6],
}

/// Writable fields of a neighbour discovery packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct NdSet {
    pub target: [u8; 16],
    pub sll: [u8; 6],
    pub tll: [u8; 6],
}

/// Why a packet goes to user space, as carried by the `userspace` action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum UserspaceCookie {
    /// Slow-path protocols and what the datapath cannot do. `reason` bits as printed by `slow_path(...)`.
    SlowPath { reason: u32 },
    /// Packet-in for a controller.
    Controller {
        reason: u8,
        dont_send: bool,
        continuation: bool,
        recirc_id: RecircId,
        rule_cookie: u64,
        controller_id: u16,
        max_len: u16,
        /// Index of the frozen packet-in description kept by ofproto (OpenFlow in_port, table, metadata, userdata).
        frozen: u32,
    },
}

/// One datapath action.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum DpAction {
    Output(DpPort),
    Userspace { pid: u32, cookie: UserspaceCookie },
    Set(SetField),
    PushVlan { tpid: Be16, tci: Be16 },
    PopVlan,
    PushMpls { ethertype: Be16, lse: Be32 },
    PopMpls { ethertype: Be16 },
    Recirc(RecircId),
    Hash { alg: u32, basis: u32 },
    Trunc { max_len: u32 },
    Meter(u32),
    Clone(Box<[DpAction]>),
    Drop(u32),
}

/// A list of actions; empty means "drop".
pub type DpActions = Box<[DpAction]>;

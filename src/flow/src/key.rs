//! [`Flow`]: everything a packet can be matched on, as fixed words; the compact [`Miniflow`].
//!
//! The words of a flow stand in a fixed order. The first [`PKT_WORDS`] can come from a packet and its datapath
//! metadata: the datapath knows only those. The rest belongs to OpenFlow (registers, metadata).
//! A mask is a [`Flow`] whose one-bits are the bits looked at ([`Mask`]).
//!
//! Neighbours: `extract` fills a Miniflow from a packet; `datapath` hashes and compares words;
//! `ofproto` reads and writes fields. Threads: plain data.

use crate::be::{Be16, Be32, Be64};
use bytemuck::{Pod, Zeroable};

/// VLAN headers a flow can hold.
pub const MAX_VLANS: usize = 2;
/// MPLS labels a flow can hold.
pub const MAX_MPLS: usize = 3;
/// 32-bit OpenFlow registers.
pub const N_REGS: usize = 16;

/// One VLAN header: TPID and TCI. In `tci` the bit 0x1000 (CFI) says that the header is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Vlan {
    /// Ethertype of the tag (0x8100, 0x88a8), 0 when there is none.
    pub tpid: Be16,
    /// PCP, present bit, VID.
    pub tci: Be16,
}

/// "VLAN header is there" bit in a TCI (OpenFlow 1.0 Nicira `vlan_tci`).
pub const VLAN_CFI: u16 = 0x1000;
/// `nw_frag`: the packet is a fragment.
pub const FRAG_ANY: u8 = 1;
/// `nw_frag`: the packet is a fragment but not the first.
pub const FRAG_LATER: u8 = 2;
/// Both fragment bits.
pub const FRAG_MASK: u8 = 3;

/// All match fields of a packet. See the module header for the order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Flow {
    // -- tunnel: words 0..=8
    pub tun_src: Be32,
    pub tun_dst: Be32,
    pub tun_ipv6_src: [u8; 16],
    pub tun_ipv6_dst: [u8; 16],
    pub tun_id: Be64,
    pub tun_flags: u16,
    pub tun_tos: u8,
    pub tun_ttl: u8,
    pub tun_tp_src: Be16,
    pub tun_tp_dst: Be16,
    pub tun_gbp_id: Be16,
    pub tun_gbp_flags: u8,
    pub tun_erspan_ver: u8,
    pub tun_erspan_idx: u32,
    pub tun_erspan_dir: u8,
    pub tun_erspan_hwid: u8,
    pub tun_gtpu_flags: u8,
    pub tun_gtpu_msgtype: u8,
    pub pad0: [u8; 4],
    // -- datapath metadata: words 9..=20
    pub skb_priority: u32,
    pub pkt_mark: u32,
    pub dp_hash: u32,
    /// Datapath port in the datapath; OpenFlow port (16-bit value) during translation.
    pub in_port: u32,
    pub recirc_id: u32,
    pub ct_state: u8,
    pub ct_nw_proto: u8,
    pub ct_zone: u16,
    pub ct_mark: u32,
    /// Namespace << 16 | type (ONF packet type); 0 is Ethernet.
    pub packet_type: Be32,
    pub ct_label: [u8; 16],
    pub ct_nw_src: Be32,
    pub ct_nw_dst: Be32,
    pub ct_ipv6_src: [u8; 16],
    pub ct_ipv6_dst: [u8; 16],
    pub ct_tp_src: Be16,
    pub ct_tp_dst: Be16,
    pub conj_id: u32,
    // -- L2: words 21..=25
    pub dl_dst: [u8; 6],
    pub dl_src: [u8; 6],
    pub dl_type: Be16,
    pub pad1: [u8; 2],
    pub vlans: [Vlan; MAX_VLANS],
    pub mpls: [Be32; MAX_MPLS],
    pub pad2: [u8; 4],
    // -- L3: words 26..=35
    pub nw_src: Be32,
    pub nw_dst: Be32,
    pub ipv6_src: [u8; 16],
    pub ipv6_dst: [u8; 16],
    pub ipv6_label: Be32,
    pub nw_frag: u8,
    pub nw_tos: u8,
    pub nw_ttl: u8,
    /// IP protocol, or the low byte of the ARP opcode.
    pub nw_proto: u8,
    pub nd_target: [u8; 16],
    pub arp_sha: [u8; 6],
    pub arp_tha: [u8; 6],
    pub tcp_flags: Be16,
    pub pad3: [u8; 2],
    // -- L4: word 36
    /// TCP, UDP, SCTP source port; ICMP type.
    pub tp_src: Be16,
    /// TCP, UDP, SCTP destination port; ICMP code.
    pub tp_dst: Be16,
    pub igmp_group_ip4: Be32,
    // -- OpenFlow only: words 37..=46
    pub metadata: Be64,
    pub regs: [u32; N_REGS],
    pub actset_output: u32,
    pub pad4: [u8; 4],
}

/// 64-bit words of a [`Flow`].
pub const FLOW_WORDS: usize = std::mem::size_of::<Flow>() / 8;
/// Words that a packet can fill; a `u64` has a bit for each.
pub const PKT_WORDS: usize = std::mem::offset_of!(Flow, metadata) / 8;

const _: () = assert!(std::mem::size_of::<Flow>().is_multiple_of(8));
const _: () = assert!(std::mem::offset_of!(Flow, metadata) % 8 == 0);
const _: () = assert!(FLOW_WORDS <= 64);

impl Default for Flow {
    fn default() -> Flow {
        Flow::zeroed()
    }
}

impl Flow {
    /// The words, in order.
    #[inline(always)]
    pub fn words(&self) -> &[u64; FLOW_WORDS] {
        bytemuck::cast_ref(self)
    }

    /// The words, writable.
    #[inline(always)]
    pub fn words_mut(&mut self) -> &mut [u64; FLOW_WORDS] {
        bytemuck::cast_mut(self)
    }

    /// The bytes, in order of the declaration.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::bytes_of_mut(self)
    }

    /// Bit i is set when word i is not zero.
    #[inline]
    pub fn map(&self) -> u64 {
        self.words().iter().enumerate().fold(0, |m, (i, &w)| m | (u64::from(w != 0) << i))
    }

    /// Whether `self` and `other` agree in every bit that `mask` looks at.
    #[inline]
    pub fn matches(&self, other: &Flow, mask: &Mask) -> bool {
        let (a, b, m) = (self.words(), other.words(), mask.0.words());
        (0..FLOW_WORDS).all(|i| (a[i] ^ b[i]) & m[i] == 0)
    }

    /// The flow with the bits outside `mask` zeroed.
    pub fn masked(&self, mask: &Mask) -> Flow {
        let mut f = *self;
        f.words_mut().iter_mut().zip(mask.0.words()).for_each(|(w, m)| *w &= m);
        f
    }
}

/// Which bits of a flow are looked at: one-bits are significant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mask(pub Flow);

impl Mask {
    /// Looks at nothing.
    pub fn none() -> Mask {
        Mask::default()
    }

    /// Adds the bits of `other`.
    #[inline]
    pub fn fold(&mut self, other: &Mask) {
        self.0.words_mut().iter_mut().zip(other.0.words()).for_each(|(w, o)| *w |= o);
    }

    /// Whether no bit is looked at.
    pub fn is_none(&self) -> bool {
        self.0.words().iter().all(|&w| w == 0)
    }
}

/// The non-zero words of a packet's flow, packed: word i is there when bit i of `map` is set; its
/// place among `values` is the number of set bits below. `values[n..]` is unspecified.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Miniflow {
    /// Words that are there. A word that is there may be zero (extraction writes whole headers).
    pub map: u64,
    /// Packed words.
    pub values: [u64; PKT_WORDS],
}

impl Miniflow {
    /// No words.
    pub const EMPTY: Miniflow = Miniflow { map: 0, values: [0; PKT_WORDS] };

    /// Number of words that are there.
    #[inline(always)]
    pub fn n(&self) -> usize {
        self.map.count_ones() as usize
    }

    /// The packed words that are there.
    #[inline(always)]
    pub fn packed(&self) -> &[u64] {
        &self.values[..self.n().min(PKT_WORDS)]
    }

    /// Word `i` of the flow (0 when not there).
    #[inline(always)]
    pub fn word(&self, i: usize) -> u64 {
        let bit = 1u64 << i;
        if self.map & bit == 0 {
            return 0;
        }
        let at = (self.map & (bit - 1)).count_ones() as usize;
        self.values[at.min(PKT_WORDS - 1)]
    }

    /// The whole flow.
    pub fn expand(&self) -> Flow {
        let mut f = Flow::default();
        let (mut map, mut at) = (self.map, 0);
        while map != 0 && at < PKT_WORDS {
            f.words_mut()[map.trailing_zeros() as usize % FLOW_WORDS] = self.values[at];
            map &= map - 1;
            at += 1;
        }
        f
    }

    /// The packed form of the packet words of `flow`.
    pub fn from_flow(flow: &Flow) -> Miniflow {
        let mut m = Miniflow::EMPTY;
        let mut at = 0;
        for (i, &w) in flow.words()[..PKT_WORDS].iter().enumerate() {
            if w != 0 {
                m.map |= 1 << i;
                m.values[at] = w;
                at += 1;
            }
        }
        m
    }
}

//! Typed views of headers in a frame: `Ipv4Mut::at(frame, 14)` gives named access to its 20 bytes, checked once.
//!
//! Numbers are host integers; addresses are bytes. Neighbours: action execution, tunnels, packet builders.
//! Threads: plain data.

macro_rules! accessor {
    (get u8, $at:expr, $s:expr) => {
        $s[$at]
    };
    (get u16, $at:expr, $s:expr) => {
        u16::from_be_bytes([$s[$at], $s[$at + 1]])
    };
    (get u32, $at:expr, $s:expr) => {
        u32::from_be_bytes([$s[$at], $s[$at + 1], $s[$at + 2], $s[$at + 3]])
    };
    (get [u8; $n:literal], $at:expr, $s:expr) => {{
        let mut b = [0u8; $n];
        b.copy_from_slice(&$s[$at..$at + $n]);
        b
    }};
    (set u8, $at:expr, $s:expr, $v:expr) => {
        $s[$at] = $v
    };
    (set u16, $at:expr, $s:expr, $v:expr) => {
        $s[$at..$at + 2].copy_from_slice(&$v.to_be_bytes())
    };
    (set u32, $at:expr, $s:expr, $v:expr) => {
        $s[$at..$at + 4].copy_from_slice(&$v.to_be_bytes())
    };
    (set [u8; $n:literal], $at:expr, $s:expr, $v:expr) => {
        $s[$at..$at + $n].copy_from_slice(&$v)
    };
}

macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $mut:ident, $len:literal, {
        $($at:literal $get:ident $set:ident : $t:tt),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'a>(&'a [u8; $len]);

        impl<'a> $name<'a> {
            /// Length in bytes, without options.
            pub const LEN: usize = $len;
            /// The header at `at` of `frame`; `None` when the frame ends before it does.
            #[inline(always)]
            pub fn at(frame: &'a [u8], at: usize) -> Option<$name<'a>> {
                frame.get(at..)?.first_chunk().map($name)
            }
            $(
                #[allow(missing_docs)]
                #[inline(always)]
                pub fn $get(&self) -> $t {
                    accessor!(get $t, $at, self.0)
                }
            )*
        }

        #[doc = concat!("Writable [`", stringify!($name), "`].")]
        #[derive(Debug)]
        pub struct $mut<'a>(&'a mut [u8; $len]);

        impl<'a> $mut<'a> {
            /// The header at `at` of `frame`; `None` when the frame ends before it does.
            #[inline(always)]
            pub fn at(frame: &'a mut [u8], at: usize) -> Option<$mut<'a>> {
                frame.get_mut(at..)?.first_chunk_mut().map($mut)
            }
            /// For reading.
            #[inline(always)]
            pub fn view(&self) -> $name<'_> {
                $name(self.0)
            }
            $(
                #[allow(missing_docs)]
                #[inline(always)]
                pub fn $set(&mut self, v: $t) {
                    accessor!(set $t, $at, self.0, v);
                }
            )*
        }
    };
}

view!(
    /// Ethernet header.
    Eth, EthMut, 14, {
        0 dst set_dst: [u8; 6],
        6 src set_src: [u8; 6],
        12 ethertype set_ethertype: u16,
    }
);
view!(
    /// VLAN tag after the addresses: TPID, TCI.
    Vlan, VlanMut, 4, {
        0 tpid set_tpid: u16,
        2 tci set_tci: u16,
    }
);
view!(
    /// MPLS label stack entry.
    Mpls, MplsMut, 4, {
        0 lse set_lse: u32,
    }
);
view!(
    /// ARP for IPv4 over Ethernet.
    Arp, ArpMut, 28, {
        0 hardware set_hardware: u16,
        2 protocol set_protocol: u16,
        4 hardware_len set_hardware_len: u8,
        5 protocol_len set_protocol_len: u8,
        6 op set_op: u16,
        8 sha set_sha: [u8; 6],
        14 spa set_spa: [u8; 4],
        18 tha set_tha: [u8; 6],
        24 tpa set_tpa: [u8; 4],
    }
);
view!(
    /// IPv4 header.
    Ipv4, Ipv4Mut, 20, {
        0 version_ihl set_version_ihl: u8,
        1 tos set_tos: u8,
        2 total_len set_total_len: u16,
        4 id set_id: u16,
        6 frag set_frag: u16,
        8 ttl set_ttl: u8,
        9 proto set_proto: u8,
        10 csum set_csum: u16,
        12 src set_src: [u8; 4],
        16 dst set_dst: [u8; 4],
    }
);
view!(
    /// IPv6 header.
    Ipv6, Ipv6Mut, 40, {
        0 version_class_label set_version_class_label: u32,
        4 payload_len set_payload_len: u16,
        6 next set_next: u8,
        7 hop_limit set_hop_limit: u8,
        8 src set_src: [u8; 16],
        24 dst set_dst: [u8; 16],
    }
);
view!(
    /// TCP header.
    Tcp, TcpMut, 20, {
        0 src set_src: u16,
        2 dst set_dst: u16,
        4 seq set_seq: u32,
        8 ack set_ack: u32,
        12 offset_flags set_offset_flags: u16,
        14 window set_window: u16,
        16 csum set_csum: u16,
        18 urgent set_urgent: u16,
    }
);
view!(
    /// UDP header.
    Udp, UdpMut, 8, {
        0 src set_src: u16,
        2 dst set_dst: u16,
        4 length set_length: u16,
        6 csum set_csum: u16,
    }
);
view!(
    /// SCTP common header.
    Sctp, SctpMut, 12, {
        0 src set_src: u16,
        2 dst set_dst: u16,
        4 tag set_tag: u32,
        8 csum set_csum: u32,
    }
);
view!(
    /// ICMP and ICMPv6: type, code, checksum, rest of header. IGMP: type, code, checksum, group.
    Icmp, IcmpMut, 8, {
        0 kind set_kind: u8,
        1 code set_code: u8,
        2 csum set_csum: u16,
        4 rest set_rest: u32,
    }
);
view!(
    /// Neighbour solicitation or advertisement, up to its options.
    Nd, NdMut, 24, {
        0 kind set_kind: u8,
        1 code set_code: u8,
        2 csum set_csum: u16,
        4 rest set_rest: u32,
        8 target set_target: [u8; 16],
    }
);

impl Ipv4<'_> {
    /// Length with options, as the header says, bytes.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl() & 0x0f) * 4
    }
}

impl Tcp<'_> {
    /// Length with options, as the header says, bytes.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_flags() >> 12) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_needs_all_its_bytes() {
        let mut f = [0u8; 34];
        assert!(Ipv4::at(&f, 14).is_some());
        assert!(Ipv4::at(&f, 15).is_none());
        assert!(Ipv4::at(&f, 99).is_none());
        assert!(Ipv4Mut::at(&mut f, 15).is_none());
    }

    #[test]
    fn what_is_set_is_read() {
        let mut f = [0u8; 60];
        let mut ip = Ipv4Mut::at(&mut f, 14).unwrap();
        ip.set_version_ihl(0x46);
        ip.set_src([10, 0, 0, 1]);
        ip.set_total_len(0x1234);
        assert_eq!(
            (ip.view().src(), ip.view().total_len(), ip.view().header_len()),
            ([10, 0, 0, 1], 0x1234, 24)
        );
        assert_eq!(f[14 + 12..14 + 16], [10, 0, 0, 1]);
        let mut t = TcpMut::at(&mut f, 34).unwrap();
        t.set_offset_flags(0x5012);
        t.set_seq(0xdead_beef);
        assert_eq!((t.view().header_len(), t.view().seq()), (20, 0xdead_beef));
    }
}

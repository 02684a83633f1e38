//! Reading and writing fields of flows and masks.
//!
//! Neighbours: `info` says where fields are; `ofproto` calls this during translation. Threads: plain data.

use super::info::Place;
use super::{Field, Format, Prereq, SubField, Value};
use crate::be::Be16;
use crate::key::{Flow, Mask, FRAG_LATER, N_REGS, VLAN_CFI};
use crate::matching::Match;
use crate::port::OfPort;

const ETH_IP: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_RARP: u16 = 0x8035;
const ETH_IPV6: u16 = 0x86dd;
const ETH_MPLS: u16 = 0x8847;
const ETH_MPLS_MCAST: u16 = 0x8848;
const ETH_VLAN: u16 = 0x8100;
const VID_MASK: u16 = 0x0fff;
/// OpenFlow 1.0's `dl_vlan` value for "no VLAN header".
const OFP10_VLAN_NONE: u16 = 0xffff;
/// `ct_state`: the packet went through the connection tracker.
const CS_TRACKED: u8 = 0x20;
/// `ct_state`: the connection tracker could not make sense of the packet.
const CS_INVALID: u8 = 0x10;

/// `n` low one-bits.
const fn ones(n: u32) -> u128 {
    if n >= 128 {
        u128::MAX
    } else {
        (1 << n) - 1
    }
}

fn load(flow: &Flow, p: Place) -> u128 {
    let b = &flow.bytes()[p.off..p.off + p.len];
    let raw = if p.big {
        b.iter().fold(0u128, |v, &x| v << 8 | u128::from(x))
    } else {
        b.iter().rev().fold(0u128, |v, &x| v << 8 | u128::from(x))
    };
    raw >> p.shift & ones(p.width)
}

fn store(flow: &mut Flow, p: Place, v: u128) {
    let whole = Place { shift: 0, width: 128, ..p };
    let bits = ones(p.width) << p.shift;
    let mut raw = load(flow, whole) & !bits | (v & ones(p.width)) << p.shift;
    let b = &mut flow.bytes_mut()[p.off..p.off + p.len];
    let mut put = |x: &mut u8| {
        *x = raw as u8;
        raw >>= 8;
    };
    if p.big {
        b.iter_mut().rev().for_each(&mut put);
    } else {
        b.iter_mut().for_each(&mut put);
    }
}

impl Field {
    /// The value in `flow`. Fields a packet does not have read as 0.
    pub fn get(self, flow: &Flow) -> Value {
        let info = self.info();
        match self {
            Field::XReg(i) => flow.xreg(i).into(),
            Field::XxReg(i) => flow.xxreg(i),
            // The Nicira form keeps the DSCP where it stands in the byte.
            Field::IpDscp => load(flow, info.place) << 2,
            Field::InPortOxm | Field::ActsetOutput => {
                u128::from(OfPort(load(flow, info.place) as u16).to_of11())
            }
            Field::VlanVid => load(flow, info.place),
            _ => load(flow, info.place) & ones(info.n_bits.into()),
        }
    }

    /// Writes the value into `flow`, as an action does: writing part of a VLAN tag to a flow without one adds
    /// the tag, `dl_vlan` 0xffff takes it away.
    pub fn set(self, flow: &mut Flow, v: Value) {
        let info = self.info();
        let tci = flow.vlans[0].tci.get();
        match self {
            Field::XReg(i) => flow.set_xreg(i, v as u64),
            Field::XxReg(i) => flow.set_xxreg(i, v),
            Field::IpDscp => store(flow, info.place, v >> 2),
            Field::InPortOxm | Field::ActsetOutput => {
                let port = OfPort::from_of11(v as u32).unwrap_or(OfPort::NONE);
                store(flow, info.place, port.0.into());
            }
            Field::InPort => store(flow, info.place, v & 0xffff),
            Field::ArpOp => store(flow, info.place, if v > 255 { 0 } else { v }),
            Field::DlVlan if v as u16 == OFP10_VLAN_NONE => flow.vlans[0].tci = Be16::ZERO,
            Field::DlVlan => flow.vlans[0].tci = Be16::new(tci & !VID_MASK | v as u16 & VID_MASK | VLAN_CFI),
            Field::DlVlanPcp | Field::VlanPcp => {
                flow.vlans[0].tci = Be16::new(tci & 0x1fff | (v as u16 & 7) << 13 | VLAN_CFI);
            }
            _ => store(flow, info.place, v & ones(info.place.width.min(info.n_bits.max(13).into()))),
        }
        if flow.vlans[0].tci.get() & VLAN_CFI != 0 && flow.vlans[0].tpid.is_zero() && self.is_vlan() {
            flow.vlans[0].tpid = Be16::new(ETH_VLAN);
        }
    }

    /// Writes the bits of `v` that are set in `mask`.
    pub fn set_masked(self, flow: &mut Flow, v: Value, mask: Value) {
        let v = if mask & self.all_ones() == self.all_ones() { v } else { self.get(flow) & !mask | v & mask };
        self.set(flow, v);
    }

    /// The mask of an exact match. `vlan_vid` counts the "present" bit.
    pub fn all_ones(self) -> Value {
        match self {
            Field::VlanVid => 0x1fff,
            Field::IpDscp => 0xfc,
            _ => ones(self.info().n_bits.into()),
        }
    }

    /// Unwildcards the bits `m` of this field in `mask`, without its prerequisites.
    pub fn mask_bits(self, mask: &mut Mask, m: Value) {
        let f = &mut mask.0;
        let p = self.info().place;
        let full = m & self.all_ones() == self.all_ones();
        match self {
            _ if m == 0 => {}
            Field::XReg(i) => f.set_xreg(i, f.xreg(i) | m as u64),
            Field::XxReg(i) => f.set_xxreg(i, f.xxreg(i) | m),
            Field::DlVlan => f.vlans[0].tci |= Be16::new(m as u16 & VID_MASK | VLAN_CFI),
            Field::DlVlanPcp | Field::VlanPcp => f.vlans[0].tci |= Be16::new((m as u16 & 7) << 13 | VLAN_CFI),
            Field::IpDscp => store(f, p, load(f, p) | m >> 2),
            _ if full => store(f, p, ones(p.width)),
            _ => store(f, p, load(f, p) | m),
        }
    }

    /// Unwildcards the whole field and what its prerequisites look at: what reading it does to a megaflow.
    pub fn mask_field(self, mask: &mut Mask) {
        self.mask_bits(mask, self.all_ones());
        self.mask_prereqs(mask);
    }

    /// Unwildcards what the prerequisites look at.
    pub fn mask_prereqs(self, mask: &mut Mask) {
        let f = &mut mask.0;
        match self.prereq() {
            Prereq::None | Prereq::Ethernet => return,
            Prereq::VlanVid => {
                f.vlans[0].tci |= Be16::new(VLAN_CFI);
                return;
            }
            Prereq::Ct => {
                f.ct_state |= CS_TRACKED | CS_INVALID;
                return;
            }
            Prereq::Arp | Prereq::Ipv4 | Prereq::Ipv6 | Prereq::IpAny | Prereq::Mpls => {}
            Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert => {
                f.tp_src = Be16::MAX;
                f.tp_dst = Be16::MAX;
                f.nw_proto = 0xff;
                f.nw_frag |= FRAG_LATER;
            }
            Prereq::Tcp | Prereq::Udp | Prereq::Sctp | Prereq::Icmpv4 | Prereq::Icmpv6 => {
                f.nw_proto = 0xff;
                f.nw_frag |= FRAG_LATER;
            }
        }
        f.dl_type = Be16::MAX;
    }

    /// Whether a packet with `flow` has this field.
    pub fn prereqs_ok(self, flow: &Flow) -> bool {
        let dl_type = flow.dl_type.get();
        let ip4 = dl_type == ETH_IP;
        let ip6 = dl_type == ETH_IPV6;
        let l4 = |proto: u8| flow.nw_proto == proto && flow.nw_frag & FRAG_LATER == 0;
        let nd = |kind: u16| ip6 && l4(58) && flow.tp_dst.is_zero() && flow.tp_src.get() == kind;
        match self.prereq() {
            Prereq::None => true,
            Prereq::Ethernet => flow.packet_type.is_zero(),
            Prereq::Arp => matches!(dl_type, ETH_ARP | ETH_RARP),
            Prereq::VlanVid => flow.packet_type.is_zero() && flow.vlans[0].tci.get() & VLAN_CFI != 0,
            Prereq::Ipv4 => ip4,
            Prereq::Ipv6 => ip6,
            Prereq::IpAny => ip4 || ip6,
            Prereq::Mpls => matches!(dl_type, ETH_MPLS | ETH_MPLS_MCAST),
            Prereq::Ct => flow.ct_state & (CS_TRACKED | CS_INVALID) == CS_TRACKED,
            Prereq::Tcp => (ip4 || ip6) && l4(6),
            Prereq::Udp => (ip4 || ip6) && l4(17),
            Prereq::Sctp => (ip4 || ip6) && l4(132),
            // Open vSwitch accepts these matches for later fragments too.
            Prereq::Icmpv4 => ip4 && flow.nw_proto == 1,
            Prereq::Icmpv6 => ip6 && flow.nw_proto == 58,
            Prereq::Nd => nd(135) || nd(136),
            Prereq::NdSolicit => nd(135),
            Prereq::NdAdvert => nd(136),
        }
    }

    /// As [`Field::prereqs_ok`], and unwildcards what the answer depends on.
    pub fn prereqs_ok_masking(self, flow: &Flow, mask: &mut Mask) -> bool {
        self.mask_prereqs(mask);
        self.prereqs_ok(flow)
    }

    /// Whether `m` matches all that this field needs, so that the field may be added to it.
    pub fn match_prereqs_ok(self, m: &Match) -> bool {
        let f = &m.mask.0;
        let proto = f.nw_proto == 0xff;
        let masked = match self.prereq() {
            Prereq::None | Prereq::Ethernet => return true,
            Prereq::VlanVid => return m.flow.vlans[0].tci.get() & VLAN_CFI != 0,
            Prereq::Ct => {
                // Any state that only valid connections have, or tracked and said to be not invalid.
                let valid = m.flow.ct_state & !(CS_TRACKED | CS_INVALID) != 0;
                let not_invalid = f.ct_state & CS_INVALID != 0 && m.flow.ct_state & CS_INVALID == 0;
                return valid || m.flow.ct_state & CS_TRACKED != 0 && not_invalid;
            }
            Prereq::Arp | Prereq::Ipv4 | Prereq::Ipv6 | Prereq::IpAny | Prereq::Mpls => true,
            Prereq::Tcp | Prereq::Udp | Prereq::Sctp | Prereq::Icmpv4 | Prereq::Icmpv6 => proto,
            Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert => proto && f.tp_src == Be16::MAX,
        };
        masked && f.dl_type == Be16::MAX && self.prereqs_ok(&m.flow)
    }

    /// Whether the value in `flow` is zero.
    pub fn is_zero(self, flow: &Flow) -> bool {
        self.get(flow) == 0
    }

    /// Whether `mask` looks at no bit of the field.
    pub fn is_all_wildcarded(self, mask: &Mask) -> bool {
        load(&mask.0, self.info().place) == 0 && !matches!(self, Field::XReg(_) | Field::XxReg(_))
            || matches!(self, Field::XReg(_) | Field::XxReg(_)) && self.get(&mask.0) == 0
    }

    /// The bits of the field that `mask` looks at.
    pub fn get_mask(self, mask: &Mask) -> Value {
        match self {
            Field::InPortOxm | Field::ActsetOutput => load(&mask.0, self.info().place),
            _ => self.get(&mask.0),
        }
    }

    /// Whether `v` can be the field's value: no bit beyond its width, a port number that exists.
    pub fn is_value_valid(self, v: Value) -> bool {
        match self {
            Field::InPortOxm | Field::ActsetOutput => v >> 32 == 0 && OfPort::from_of11(v as u32).is_some(),
            // OpenFlow 1.0's "no VLAN".
            Field::DlVlan if v == u128::from(OFP10_VLAN_NONE) => true,
            Field::CtState => v >> 8 == 0,
            _ => v & !self.all_ones() == 0,
        }
    }

    fn is_vlan(self) -> bool {
        matches!(self, Field::VlanTci | Field::DlVlan | Field::VlanVid | Field::DlVlanPcp | Field::VlanPcp)
    }
}

impl Match {
    /// The value and the mask of `field`.
    pub fn get(&self, field: Field) -> (Value, Value) {
        (field.get(&self.flow), field.get_mask(&self.mask))
    }

    /// Matches `field` exactly on `v`, whatever it was before.
    pub fn set(&mut self, field: Field, v: Value) {
        self.set_masked(field, v, field.all_ones());
    }

    /// Matches `field` on the bits `mask` of `v`, whatever it was before. A zero mask wildcards it.
    pub fn set_masked(&mut self, field: Field, v: Value, mask: Value) {
        let tci = |m: &Match| (m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get());
        let (old, old_mask) = tci(self);
        let mut put = |value: u16, bits: u16| {
            self.flow.vlans[0].tci = Be16::new(value & bits);
            self.mask.0.vlans[0].tci = Be16::new(bits);
        };
        match field {
            // Without the "present" bit it means "no VLAN header", whatever else it says.
            Field::VlanTci if mask as u16 == 0xffff && v as u16 & VLAN_CFI == 0 => put(0, 0xffff),
            Field::DlVlan if mask == 0 => put(old, old_mask & 0xe000),
            Field::DlVlan if v as u16 == OFP10_VLAN_NONE => put(0, 0xffff),
            Field::DlVlan => put(
                old & !VID_MASK | v as u16 & VID_MASK | VLAN_CFI,
                old_mask | mask as u16 & VID_MASK | VLAN_CFI,
            ),
            Field::DlVlanPcp | Field::VlanPcp if mask == 0 => {
                // With the priority goes the "present" bit unless the VID needs it.
                put(old, if old_mask & VID_MASK == 0 { 0 } else { old_mask & 0x1fff });
            }
            Field::DlVlanPcp | Field::VlanPcp => {
                put(old & 0x1fff | (v as u16 & 7) << 13 | VLAN_CFI, old_mask | 0xe000 | VLAN_CFI);
            }
            Field::IpDscp => {
                let p = field.info().place;
                store(&mut self.mask.0, p, mask >> 2);
                store(&mut self.flow, p, (v & mask) >> 2);
            }
            Field::XReg(_) | Field::XxReg(_) => {
                field.set(&mut self.mask.0, mask);
                field.set(&mut self.flow, v & mask);
            }
            Field::InPortOxm | Field::ActsetOutput => {
                let port = OfPort::from_of11(v as u32).unwrap_or(OfPort::NONE);
                self.store_raw(field, if mask == 0 { 0 } else { port.0.into() }, mask);
            }
            Field::ArpOp if v > 255 => self.store_raw(field, 0, mask),
            _ => self.store_raw(field, v & mask, mask),
        }
    }

    fn store_raw(&mut self, field: Field, v: Value, mask: Value) {
        let p = field.info().place;
        store(&mut self.mask.0, p, 0);
        field.mask_bits(&mut self.mask, mask);
        store(&mut self.flow, p, v);
    }
}

impl SubField {
    /// The whole of `field`.
    pub fn whole(field: Field) -> SubField {
        SubField { field, ofs: 0, n_bits: field.n_bits() }
    }

    /// One-bits where the sub-field is.
    pub fn mask(&self) -> Value {
        ones(self.n_bits.into()).checked_shl(self.ofs.into()).unwrap_or(0)
    }

    /// Whether the bits lie within the field.
    pub fn is_valid(&self) -> bool {
        self.n_bits > 0 && u32::from(self.ofs) + u32::from(self.n_bits) <= u32::from(self.field.n_bits())
    }

    /// The bits, right-justified.
    pub fn get(&self, flow: &Flow) -> Value {
        self.field.get(flow).checked_shr(self.ofs.into()).unwrap_or(0) & ones(self.n_bits.into())
    }

    /// Writes the low `n_bits` of `v` there.
    pub fn set(&self, flow: &mut Flow, v: Value) {
        let v = (v & ones(self.n_bits.into())).checked_shl(self.ofs.into()).unwrap_or(0);
        let old = self.field.get(flow);
        self.field.set(flow, old & !self.mask() | v);
    }

    /// Unwildcards the bits and the field's prerequisites.
    pub fn mask_bits(&self, mask: &mut Mask) {
        self.field.mask_bits(mask, self.mask());
        self.field.mask_prereqs(mask);
    }
}

/// The 64-bit and 128-bit registers are made of the 32-bit ones, most significant first.
impl Flow {
    /// 64-bit register `i` (0..8).
    pub fn xreg(&self, i: u8) -> u64 {
        let i = usize::from(i) % (N_REGS / 2) * 2;
        u64::from(self.regs[i]) << 32 | u64::from(self.regs[i + 1])
    }

    /// Writes 64-bit register `i`.
    pub fn set_xreg(&mut self, i: u8, v: u64) {
        let i = usize::from(i) % (N_REGS / 2) * 2;
        self.regs[i] = (v >> 32) as u32;
        self.regs[i + 1] = v as u32;
    }

    /// 128-bit register `i` (0..4).
    pub fn xxreg(&self, i: u8) -> u128 {
        let i = i % (N_REGS as u8 / 4) * 2;
        u128::from(self.xreg(i)) << 64 | u128::from(self.xreg(i + 1))
    }

    /// Writes 128-bit register `i`.
    pub fn set_xxreg(&mut self, i: u8, v: u128) {
        let i = i % (N_REGS as u8 / 4) * 2;
        self.set_xreg(i, (v >> 64) as u64);
        self.set_xreg(i + 1, v as u64);
    }
}

impl Field {
    /// The name in ovs-fields(7).
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The other name accepted in parsing, when there is one.
    pub const fn alias(self) -> Option<&'static str> {
        self.info().alias
    }

    /// The field of that name or alias (case-sensitive, as in ovs-ofctl).
    pub fn from_name(name: &str) -> Option<Field> {
        Field::all().find(|f| f.name() == name || f.alias() == Some(name))
    }

    /// Bits that may be non-zero.
    pub const fn n_bits(self) -> u16 {
        self.info().n_bits
    }

    /// Bytes of the value in OXM and NXM.
    pub const fn n_bytes(self) -> u8 {
        self.info().n_bytes
    }

    /// Whether a match may give part of the bits.
    pub const fn maskable(self) -> bool {
        self.info().maskable
    }

    /// Whether an action may write it.
    pub const fn writable(self) -> bool {
        self.info().writable
    }

    /// What must be matched with it.
    pub const fn prereq(self) -> Prereq {
        self.info().prereq
    }

    /// How its value is written.
    pub const fn format(self) -> Format {
        self.info().format
    }

    /// Every field, in the order of ovs-fields(7)'s numbers.
    pub fn all() -> impl Iterator<Item = Field> {
        let n = N_REGS as u8;
        super::PLAIN
            .iter()
            .copied()
            .chain((0..n).map(Field::Reg))
            .chain((0..n / 2).map(Field::XReg))
            .chain((0..n / 4).map(Field::XxReg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for f in Field::all() {
            assert_eq!(Field::from_name(f.name()), Some(f));
            if let Some(a) = f.alias() {
                assert_eq!(Field::from_name(a), Some(f));
            }
        }
        assert_eq!(Field::from_name("nw_src"), Some(Field::Ipv4Src));
        assert_eq!(Field::from_name("xxreg4"), None);
    }

    #[test]
    fn every_field_reads_back_what_was_set() {
        for f in Field::all() {
            for v in [0, 1, 2, f.all_ones(), f.all_ones() & 0x5555_5555_5555_5555_5555, f.all_ones() >> 1] {
                let (mut flow, mut v) = (Flow::default(), v & f.all_ones());
                match f {
                    Field::InPortOxm | Field::ActsetOutput if v > 0xffff => v |= 0xffff_ff00,
                    Field::ArpOp | Field::CtState => v &= 0xff,
                    Field::IpDscp => v &= 0xfc,
                    Field::VlanTci => v |= 0x1000,
                    _ => {}
                }
                f.set(&mut flow, v);
                assert_eq!(f.get(&flow), v, "{}", f.name());
                let mut m = Match::any();
                m.set(f, v);
                assert_eq!(m.get(f).0, v, "{}", f.name());
                assert!(!f.is_all_wildcarded(&m.mask), "{}", f.name());
                assert_eq!(m.flow, m.flow.masked(&m.mask), "{}", f.name());
            }
        }
    }

    #[test]
    fn a_set_match_covers_the_set_flow_and_no_other() {
        for f in Field::all() {
            let (mut a, mut b, mut m) = (Flow::default(), Flow::default(), Match::any());
            // A TCI without the "present" bit would mean "no VLAN header".
            let v = if f == Field::VlanTci { 0x1004 } else { 4 };
            f.set(&mut a, v);
            f.set(&mut b, 0);
            m.set(f, v);
            let same = f.get(&a) == f.get(&b);
            assert!(m.covers(&a), "{}", f.name());
            assert_eq!(m.covers(&b), same, "{}", f.name());
            m.set_masked(f, 0, 0);
            assert_eq!(m, Match::any(), "{}", f.name());
        }
    }

    #[test]
    fn wide_registers_are_made_of_narrow_ones() {
        let mut f = Flow::default();
        Field::XxReg(1).set(&mut f, 0x0000_0001_0000_0002_0000_0003_0000_0004);
        assert_eq!(&f.regs[4..8], &[1, 2, 3, 4]);
        assert_eq!(Field::XReg(2).get(&f), 0x1_0000_0002);
        let mut m = Mask::none();
        Field::XReg(3).mask_field(&mut m);
        assert_eq!((m.0.regs[5], m.0.regs[6], m.0.regs[7]), (0, u32::MAX, u32::MAX));
    }

    #[test]
    fn vlan_fields_follow_the_present_bit() {
        let mut f = Flow::default();
        Field::DlVlan.set(&mut f, 5);
        assert_eq!((f.vlans[0].tci.get(), f.vlans[0].tpid.get()), (0x1005, 0x8100));
        Field::VlanPcp.set(&mut f, 3);
        assert_eq!(f.vlans[0].tci.get(), 0x7005);
        assert_eq!(Field::VlanVid.get(&f), 0x1005);
        Field::DlVlan.set(&mut f, 0xffff);
        assert_eq!(f.vlans[0].tci.get(), 0);
        let mut m = Match::any();
        m.set(Field::DlVlan, 0xffff);
        assert_eq!(m.mask.0.vlans[0].tci.get(), 0xffff);
        m.set(Field::VlanTci, 0x6005);
        assert_eq!((m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get()), (0, 0xffff));
        m.set(Field::DlVlan, 7);
        m.set(Field::DlVlanPcp, 7);
        assert_eq!((m.flow.vlans[0].tci.get(), m.mask.0.vlans[0].tci.get()), (0xf007, 0xffff));
    }

    #[test]
    fn prerequisites_are_masked_and_checked() {
        let mut f = Flow { dl_type: Be16::new(0x86dd), nw_proto: 58, ..Flow::default() };
        Field::Icmpv6Type.set(&mut f, 135);
        assert!(
            Field::NdSll.prereqs_ok(&f) && Field::NdTarget.prereqs_ok(&f) && !Field::NdTll.prereqs_ok(&f)
        );
        let mut m = Mask::none();
        Field::NdSll.mask_field(&mut m);
        assert_eq!(
            (m.0.arp_sha, m.0.tp_src, m.0.nw_proto, m.0.dl_type),
            ([0xff; 6], Be16::MAX, 0xff, Be16::MAX)
        );
        let mut t = Match::any();
        assert!(!Field::TcpSrc.match_prereqs_ok(&t));
        t.set(Field::EthType, 0x800);
        assert!(Field::IpProto.match_prereqs_ok(&t) && !Field::TcpSrc.match_prereqs_ok(&t));
        t.set(Field::IpProto, 6);
        assert!(Field::TcpSrc.match_prereqs_ok(&t) && !Field::UdpSrc.match_prereqs_ok(&t));
    }

    #[test]
    fn subfields_move_bits() {
        let mut f = Flow::default();
        let s = SubField { field: Field::Reg(1), ofs: 4, n_bits: 8 };
        f.regs[1] = 0xffff_ffff;
        s.set(&mut f, 0x12);
        assert_eq!((f.regs[1], s.get(&f)), (0xffff_f12f, 0x12));
        let mut m = Mask::none();
        s.mask_bits(&mut m);
        assert_eq!(m.0.regs[1], 0xff0);
        assert!(s.is_valid() && !SubField { ofs: 28, ..s }.is_valid());
    }

    #[test]
    fn values_are_written_and_read() {
        for (f, text) in [
            (Field::Ipv4Src, "10.0.0.0/8"),
            (Field::Ipv4Src, "10.0.0.1"),
            (Field::Ipv4Src, "10.0.0.1/255.0.0.255"),
            (Field::Ipv6Dst, "fe80::/10"),
            (Field::EthSrc, "01:00:00:00:00:00/01:00:00:00:00:00"),
            (Field::InPort, "LOCAL"),
            (Field::InPortOxm, "65"),
            (Field::TcpFlags, "+syn-ack"),
            (Field::CtState, "+est+trk"),
            (Field::IpFrag, "not_later"),
            (Field::Reg(3), "0x1/0xff"),
            (Field::PacketType, "(1,0x800)"),
        ] {
            let (v, m) = f.parse_value(text).unwrap();
            assert_eq!(f.format_value(v, m), text);
        }
        assert!(Field::InPort.parse_value("1/2").is_err());
        assert!(Field::IpProto.parse_value("256").is_err());
        assert!(Field::Ipv4Src.parse_value("10.0.0.0/33").is_err());
    }
}

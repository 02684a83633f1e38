//! Matches as lists of OXM and NXM fields.
//!
//! Neighbours: `flow_mod`, statistics, packet-ins. Threads: none.

use crate::oxm::{self, Header, Id};
use crate::wire::{round8, Put, Reader};
use crate::{OfError, Version};
use flow::{Field, Match};

/// `NXM_NX_COOKIE`: not a packet field, but part of Nicira matches. MPLS TTL has the same number; the length tells
/// them apart.
const COOKIE: Id = Id { class: 1, vendor: 0, number: 30 };

/// Type of an OXM match.
const OFPMT_OXM: u16 = 1;

/// What a list of fields holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fields {
    pub match_: Match,
    pub cookie: u64,
    pub cookie_mask: u64,
}

/// Reads a list of fields. `cookies`: cookies are allowed (Nicira's messages). `strict`: unknown fields are errors.
pub(crate) fn get(bytes: &[u8], cookies: bool, strict: bool) -> Result<Fields, OfError> {
    let mut r = Reader::new(bytes, OfError::OFPBMC_BAD_LEN);
    let mut out = Fields::default();
    let mut cookie_seen = false;
    while r.left() > 0 {
        let h = Header::read(&mut r, OfError::OFPBMC_BAD_LEN)?;
        let payload = r.take(h.payload)?;
        if h.id == COOKIE && cookies && h.payload == if h.has_mask { 16 } else { 8 } {
            let mut p = Reader::new(payload, OfError::OFPBMC_BAD_LEN);
            if std::mem::replace(&mut cookie_seen, true) {
                return Err(OfError::OFPBMC_DUP_FIELD);
            }
            out.cookie = p.u64()?;
            out.cookie_mask = if h.has_mask { p.u64()? } else { u64::MAX };
            continue;
        }
        if strict {
            h.check_wildcards(payload)?;
        }
        let Some(field) = h.field() else {
            if strict {
                return Err(OfError::OFPBMC_BAD_FIELD);
            }
            continue;
        };
        match add(&mut out.match_, field, &h, payload) {
            Ok(()) => {}
            Err(e) if strict => return Err(e),
            Err(_) => {}
        }
    }
    Ok(out)
}

fn add(m: &mut Match, field: Field, h: &Header, payload: &[u8]) -> Result<(), OfError> {
    let n = usize::from(field.n_bytes());
    let mut p = Reader::new(payload, OfError::OFPBMC_BAD_LEN);
    let value = p.uint(n)?;
    let whole = ones(n);
    let mask = if h.has_mask { p.uint(n)? } else { whole };
    if h.has_mask && mask != whole && !field.maskable() {
        return Err(OfError::OFPBMC_BAD_MASK);
    }
    if !oxm::value_ok(field, value) {
        return Err(OfError::OFPBMC_BAD_VALUE);
    }
    if !field.match_prereqs_ok(m) {
        return Err(OfError::OFPBMC_BAD_PREREQ);
    }
    if !field.is_all_wildcarded(&m.mask) {
        return Err(OfError::OFPBMC_DUP_FIELD);
    }
    m.set_masked(field, value & mask, mask & field.all_ones());
    Ok(())
}

/// `n` bytes of ones.
fn ones(n: usize) -> u128 {
    if n >= 16 {
        u128::MAX
    } else {
        (1 << (8 * n)) - 1
    }
}

/// Reads a match with its type, length and padding.
pub(crate) fn pull(r: &mut Reader<'_>, strict: bool) -> Result<Match, OfError> {
    if r.left() < 4 {
        return Err(OfError::OFPBMC_BAD_LEN);
    }
    let (kind, len) = (r.u16()?, usize::from(r.u16()?));
    if kind != OFPMT_OXM {
        return Err(OfError::OFPBMC_BAD_TYPE);
    }
    let n = len.checked_sub(4).ok_or(OfError::OFPBMC_BAD_LEN)?;
    let short = OfError::OFPBMC_BAD_LEN;
    if r.left() < round8(len) - 4 {
        return Err(short);
    }
    let body = r.take(n)?;
    r.skip(round8(len) - len)?;
    Ok(get(body, false, strict)?.match_)
}

/// Writes fields, registers, metadata in the order that Open vSwitch uses. `version` chooses the headers; `None`:
/// Nicira's own.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    m: &'a Match,
    version: Option<Version>,
}

impl Writer<'_> {
    fn put(&mut self, field: Field) {
        let (v, mask) = self.m.get(field);
        if mask == 0 {
            return;
        }
        // A run of flags is always sent with its mask, which has fewer bits than the wire form.
        let exact = mask & field.all_ones() == field.all_ones() && field != Field::TunFlags;
        oxm::put(self.out, field, self.version, v, (!exact).then_some(mask));
    }

    fn all(&mut self, fields: &[Field]) {
        fields.iter().for_each(|&f| self.put(f));
    }

    /// Fields that NXM has in another form are sent in OXM's, in every version.
    fn oxm(&self) -> bool {
        self.version.is_some()
    }

    fn vlan(&mut self) {
        if !self.oxm() {
            return self.put(Field::VlanTci);
        }
        let (vid, pcp) = (self.m.mask.0.vlans[0].tci.get() & 0x1fff, self.m.mask.0.vlans[0].tci.get() >> 13);
        if vid != 0 {
            let v = self.m.flow.vlans[0].tci.get() & vid;
            let mask = (vid != 0x1fff).then_some(u128::from(vid));
            oxm::put(self.out, Field::VlanVid, self.version, v.into(), mask);
        }
        if pcp != 0 && self.m.flow.vlans[0].tci.get() & 0x1000 != 0 {
            let v = self.m.flow.vlans[0].tci.get() >> 13;
            oxm::put(self.out, Field::VlanPcp, self.version, v.into(), None);
        }
    }

    fn ip(&mut self) {
        self.put(Field::IpFrag);
        if self.m.mask.0.nw_tos & 0xfc != 0 {
            let v = u128::from(self.m.flow.nw_tos & 0xfc);
            match self.oxm() {
                true => oxm::put(self.out, Field::IpDscpShifted, self.version, v >> 2, None),
                false => oxm::put(self.out, Field::IpDscp, self.version, v, None),
            }
        }
        if self.m.mask.0.nw_tos & 3 != 0 {
            let v = u128::from(self.m.flow.nw_tos & 3);
            oxm::put(self.out, Field::IpEcn, self.version, v, None);
        }
        self.put(Field::IpTtl);
        if self.m.flow.dl_type.get() == 0x86dd {
            self.put(Field::Ipv6Label);
        }
        self.put(Field::IpProto);
        if self.m.mask.0.nw_proto != 0xff {
            return;
        }
        match (self.m.flow.nw_proto, self.m.flow.dl_type.get()) {
            (6, _) => self.all(&[Field::TcpSrc, Field::TcpDst, Field::TcpFlags]),
            (17, _) => self.all(&[Field::UdpSrc, Field::UdpDst]),
            (132, _) => self.all(&[Field::SctpSrc, Field::SctpDst]),
            (1, 0x0800) => self.icmp(Field::Icmpv4Type, Field::Icmpv4Code),
            (58, 0x86dd) => {
                self.icmp(Field::Icmpv6Type, Field::Icmpv6Code);
                for f in [Field::NdTarget, Field::NdSll, Field::NdTll] {
                    if f.match_prereqs_ok(self.m) {
                        self.put(f);
                    }
                }
            }
            _ => {}
        }
    }

    fn icmp(&mut self, kind: Field, code: Field) {
        if !self.m.mask.0.tp_src.is_zero() {
            oxm::put(self.out, kind, self.version, self.m.flow.tp_src.get().into(), None);
        }
        if !self.m.mask.0.tp_dst.is_zero() {
            oxm::put(self.out, code, self.version, self.m.flow.tp_dst.get().into(), None);
        }
    }

    fn in_port(&mut self) {
        if self.m.mask.0.in_port != 0 {
            let port = flow::OfPort(self.m.flow.in_port as u16);
            match self.oxm() {
                true => oxm::put(self.out, Field::InPortOxm, self.version, port.to_of11().into(), None),
                false => oxm::put(self.out, Field::InPort, self.version, port.0.into(), None),
            }
        }
        if self.m.mask.0.actset_output != 0 {
            let port = flow::OfPort(self.m.flow.actset_output as u16).to_of11();
            oxm::put(self.out, Field::ActsetOutput, self.version, port.into(), None);
        }
    }

    fn packet_type(&mut self) {
        if !self.m.mask.0.packet_type.is_zero() && !self.m.flow.packet_type.is_zero() {
            self.put(Field::PacketType);
        }
    }

    fn l3(&mut self) {
        if self.m.mask.0.dl_type.is_zero() && self.m.flow.packet_type.is_zero() {
            return;
        }
        match self.m.flow.dl_type.get() {
            0x0800 => {
                self.all(&[Field::Ipv4Src, Field::Ipv4Dst]);
                self.ip();
            }
            0x86dd => {
                self.all(&[Field::Ipv6Src, Field::Ipv6Dst]);
                self.ip();
            }
            0x0806 | 0x8035 => {
                if self.m.mask.0.nw_proto != 0 {
                    let v = self.m.flow.nw_proto.into();
                    oxm::put(self.out, Field::ArpOp, self.version, v, None);
                }
                self.all(&[Field::ArpSpa, Field::ArpTpa, Field::ArpSha, Field::ArpTha]);
            }
            0x8847 | 0x8848 => {
                self.all(&[Field::MplsTc, Field::MplsBos, Field::MplsTtl, Field::MplsLabel]);
            }
            _ => {}
        }
    }

    fn regs(&mut self) {
        if self.version.is_some_and(|v| v >= Version::V15) {
            (0..8).for_each(|i| self.put(Field::XReg(i)));
        } else {
            (0..16).for_each(|i| self.put(Field::Reg(i)));
        }
    }

    fn run(&mut self) {
        self.all(&[Field::DpHash, Field::RecircId, Field::ConjId]);
        self.packet_type();
        self.in_port();
        self.all(&[Field::EthSrc, Field::EthDst, Field::EthType]);
        self.vlan();
        self.l3();
        self.all(&[Field::TunId, Field::TunFlags, Field::TunSrc, Field::TunDst]);
        self.all(&[Field::TunIpv6Src, Field::TunIpv6Dst, Field::TunGbpId, Field::TunGbpFlags]);
        self.regs();
        self.all(&[Field::PktMark, Field::CtState, Field::CtZone, Field::CtMark, Field::CtLabel]);
        self.all(&[Field::CtNwSrc, Field::CtNwDst, Field::CtIpv6Src, Field::CtIpv6Dst]);
        self.all(&[Field::CtNwProto, Field::CtTpSrc, Field::CtTpDst, Field::Metadata]);
    }
}

/// Appends the fields of `m`, then the cookie when its mask is not zero (Nicira's messages).
pub(crate) fn put_fields(
    out: &mut Vec<u8>,
    m: &Match,
    version: Option<Version>,
    (cookie, cookie_mask): (u64, u64),
) {
    Writer { out, m, version }.run();
    if cookie_mask != 0 {
        let masked = cookie_mask != u64::MAX;
        let len = if masked { 16 } else { 8 };
        out.u32(u32::from(COOKIE.class) << 16 | u32::from(COOKIE.number) << 9 | u32::from(masked) << 8 | len);
        out.u64(cookie & cookie_mask);
        if masked {
            out.u64(cookie_mask);
        }
    }
}

/// Appends a match with type, length and padding (OpenFlow 1.1 and later).
pub(crate) fn put_match(out: &mut Vec<u8>, m: &Match, version: Version) {
    let start = out.len();
    out.u16(OFPMT_OXM);
    out.u16(0);
    put_fields(out, m, Some(version), (0, 0));
    out.patch_len(start + 2, start);
    out.pad8(start);
}

//! OXM and NXM headers: which class and number each field has, in which versions.
//!
//! Reference: ovs-fields(7). Neighbours: matches and actions name fields with these headers. Threads: constants.

use crate::wire::{Put, Reader};
use crate::{OfError, Version};
use flow::{Field, SubField};

const NXM_OF: u16 = 0x0000;
const NXM_NX: u16 = 0x0001;
const OXM_OF: u16 = 0x8000;
const OXM_REG: u16 = 0x8001;
const EXPERIMENTER: u16 = 0xffff;
use crate::error::ONF_VENDOR as ONF;

/// Class, experimenter (0: none), number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    pub class: u16,
    pub vendor: u32,
    pub number: u8,
}

/// All headers of a field: one of Nicira's, and OXM ones with the version from which each is used.
#[derive(Clone, Copy, Debug)]
struct Ids {
    nxm: Option<Id>,
    oxm: [Option<(Id, Version)>; 2],
}

const fn id(class: u16, number: u8) -> Id {
    Id { class, vendor: 0, number }
}
const fn onf(number: u8) -> Id {
    Id { class: EXPERIMENTER, vendor: ONF, number }
}
const fn nx(number: u8) -> Ids {
    Ids { nxm: Some(id(NXM_NX, number)), oxm: [None, None] }
}
/// OpenFlow basic class since 1.2, and the class and number of Nicira's.
const fn both(oxm: u8, class: u16, number: u8) -> Ids {
    Ids { nxm: Some(id(class, number)), oxm: [Some((id(OXM_OF, oxm), Version::V12)), None] }
}
const fn of(number: u8) -> Ids {
    Ids { nxm: None, oxm: [Some((id(OXM_OF, number), Version::V12)), None] }
}

const NONE: Ids = Ids { nxm: None, oxm: [None, None] };

fn ids(field: Field) -> Ids {
    match field {
        Field::DpHash => nx(35),
        Field::RecircId => nx(36),
        Field::ConjId => nx(37),
        Field::PacketType => of(44),
        Field::TunId => Ids { nxm: Some(id(NXM_NX, 16)), oxm: [Some((id(OXM_OF, 38), Version::V13)), None] },
        Field::TunSrc => nx(31),
        Field::TunDst => nx(32),
        Field::TunIpv6Src => nx(109),
        Field::TunIpv6Dst => nx(110),
        Field::TunFlags => nx(104),
        Field::TunGbpId => nx(38),
        Field::TunGbpFlags => nx(39),
        Field::Metadata => of(2),
        Field::InPort => Ids { nxm: Some(id(NXM_OF, 0)), oxm: [None, None] },
        Field::InPortOxm => of(0),
        Field::ActsetOutput => {
            Ids { nxm: None, oxm: [Some((onf(43), Version::V13)), Some((id(OXM_OF, 43), Version::V15))] }
        }
        Field::PktMark => nx(33),
        Field::CtState => nx(105),
        Field::CtZone => nx(106),
        Field::CtMark => nx(107),
        Field::CtLabel => nx(108),
        Field::CtNwProto => nx(119),
        Field::CtNwSrc => nx(120),
        Field::CtNwDst => nx(121),
        Field::CtIpv6Src => nx(122),
        Field::CtIpv6Dst => nx(123),
        Field::CtTpSrc => nx(124),
        Field::CtTpDst => nx(125),
        Field::Reg(i) => nx(i),
        Field::XReg(i) => Ids { nxm: None, oxm: [Some((id(OXM_REG, i), Version::V13)), None] },
        Field::XxReg(i) => nx(111 + i),
        _ => packet_ids(field),
    }
}

fn packet_ids(field: Field) -> Ids {
    match field {
        Field::EthDst => both(3, NXM_OF, 1),
        Field::EthSrc => both(4, NXM_OF, 2),
        Field::EthType => both(5, NXM_OF, 3),
        Field::VlanTci => Ids { nxm: Some(id(NXM_OF, 4)), oxm: [None, None] },
        Field::VlanVid => of(6),
        Field::VlanPcp => of(7),
        Field::MplsLabel => of(34),
        Field::MplsTc => of(35),
        Field::MplsBos => of(36),
        Field::MplsTtl => nx(30),
        Field::Ipv4Src => both(11, NXM_OF, 7),
        Field::Ipv4Dst => both(12, NXM_OF, 8),
        Field::Ipv6Src => both(26, NXM_NX, 19),
        Field::Ipv6Dst => both(27, NXM_NX, 20),
        Field::Ipv6Label => both(28, NXM_NX, 27),
        Field::IpProto => both(10, NXM_OF, 6),
        Field::IpDscp => Ids { nxm: Some(id(NXM_OF, 5)), oxm: [None, None] },
        Field::IpDscpShifted => of(8),
        Field::IpEcn => both(9, NXM_NX, 28),
        Field::IpTtl => nx(29),
        Field::IpFrag => nx(26),
        Field::ArpOp => both(21, NXM_OF, 15),
        Field::ArpSpa => both(22, NXM_OF, 16),
        Field::ArpTpa => both(23, NXM_OF, 17),
        Field::ArpSha => both(24, NXM_NX, 17),
        Field::ArpTha => both(25, NXM_NX, 18),
        Field::TcpSrc => both(13, NXM_OF, 9),
        Field::TcpDst => both(14, NXM_OF, 10),
        Field::TcpFlags => Ids {
            nxm: Some(id(NXM_NX, 34)),
            oxm: [Some((onf(42), Version::V13)), Some((id(OXM_OF, 42), Version::V15))],
        },
        Field::UdpSrc => both(15, NXM_OF, 11),
        Field::UdpDst => both(16, NXM_OF, 12),
        Field::SctpSrc => of(17),
        Field::SctpDst => of(18),
        Field::Icmpv4Type => both(19, NXM_OF, 13),
        Field::Icmpv4Code => both(20, NXM_OF, 14),
        Field::Icmpv6Type => both(29, NXM_NX, 21),
        Field::Icmpv6Code => both(30, NXM_NX, 22),
        Field::NdTarget => both(31, NXM_NX, 23),
        Field::NdSll => both(32, NXM_NX, 24),
        Field::NdTll => both(33, NXM_NX, 25),
        _ => NONE,
    }
}

/// The header `version` uses for `field`; `None` stands for Nicira's own messages, which prefer NXM.
fn id_for(field: Field, version: Option<Version>) -> Option<Id> {
    let ids = ids(field);
    let newest = ids.oxm.iter().rev().flatten().find(|(_, since)| version.is_some_and(|v| v >= *since));
    newest.or(ids.oxm[0].as_ref().filter(|_| ids.nxm.is_none())).map(|(id, _)| *id).or(ids.nxm)
}

/// Whether `field` can be named on the wire.
pub(crate) fn encodable(field: Field) -> bool {
    id_for(field, None).is_some()
}

/// The field that a class and number name.
pub(crate) fn field_of(want: Id) -> Option<Field> {
    use std::sync::OnceLock;
    static INDEX: OnceLock<std::collections::HashMap<(u16, u32, u8), Field>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut m = std::collections::HashMap::new();
        for f in Field::all() {
            let x = ids(f);
            for i in x.nxm.into_iter().chain(x.oxm.into_iter().flatten().map(|(i, _)| i)) {
                m.insert((i.class, i.vendor, i.number), f);
            }
        }
        m
    });
    index.get(&(want.class, want.vendor, want.number)).copied()
}

/// What a header says: its identity, whether a mask follows, the bytes of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub id: Id,
    pub has_mask: bool,
    pub payload: usize,
}

impl Header {
    /// Reads 4 bytes, or 8 of an experimenter's.
    pub(crate) fn read(r: &mut Reader<'_>, bad: OfError) -> Result<Header, OfError> {
        let h = r.u32()?;
        let (class, number, has_mask) = ((h >> 16) as u16, (h >> 9 & 0x7f) as u8, h & 0x100 != 0);
        let len = (h & 0xff) as usize;
        if class != EXPERIMENTER {
            return Ok(Header { id: Id { class, vendor: 0, number }, has_mask, payload: len });
        }
        let payload = len.checked_sub(4).ok_or(bad)?;
        Ok(Header { id: Id { class, vendor: r.u32()?, number }, has_mask, payload })
    }

    /// Value bits outside the mask are an error, whatever the field.
    pub(crate) fn check_wildcards(&self, payload: &[u8]) -> Result<(), OfError> {
        let n = self.payload / 2;
        let bad = self.has_mask
            && payload.len() >= 2 * n
            && payload[..n].iter().zip(&payload[n..2 * n]).any(|(v, m)| v & !m != 0);
        if bad {
            Err(OfError::OFPBMC_BAD_WILDCARDS)
        } else {
            Ok(())
        }
    }

    /// The field, when the payload's length is right for it.
    pub(crate) fn field(&self) -> Option<Field> {
        let f = field_of(self.id)?;
        let n = usize::from(f.n_bytes()) * if self.has_mask { 2 } else { 1 };
        (n == self.payload).then_some(f)
    }
}

/// Writes the header of `field` with or without mask. Fields that have none are skipped by callers; false then.
pub(crate) fn put_header(out: &mut Vec<u8>, field: Field, version: Option<Version>, mask: bool) -> bool {
    let Some(i) = id_for(field, version) else { return false };
    let len = u32::from(field.n_bytes()) * if mask { 2 } else { 1 };
    let len = len + if i.class == EXPERIMENTER { 4 } else { 0 };
    out.u32(u32::from(i.class) << 16 | u32::from(i.number) << 9 | u32::from(mask) << 8 | len);
    if i.class == EXPERIMENTER {
        out.u32(i.vendor);
    }
    true
}

/// Writes header, value, mask (left out when it is that of an exact match and `exact`).
pub(crate) fn put(
    out: &mut Vec<u8>,
    field: Field,
    version: Option<Version>,
    value: u128,
    mask: Option<u128>,
) {
    if put_header(out, field, version, mask.is_some()) {
        let n = usize::from(field.n_bytes());
        out.uint(value, n);
        if let Some(m) = mask {
            out.uint(m, n);
        }
    }
}

/// Whether a match or a set-field may carry `v`.
pub(crate) fn value_ok(field: Field, v: u128) -> bool {
    match field {
        // The "present" bit is part of the value.
        Field::VlanVid => v & !0x1fff == 0,
        // Flows hold eight bits of it.
        Field::ArpOp => v >> 8 == 0,
        _ => field.is_value_valid(v),
    }
}

/// Reads a bare header of an action argument; `unknown` is the error for one that names no field.
pub(crate) fn read_field(r: &mut Reader<'_>, unknown: OfError) -> Result<Field, OfError> {
    let h = Header::read(r, unknown)?;
    let field = h.field().ok_or(unknown)?;
    if h.has_mask {
        return Err(OfError::OFPBMC_BAD_MASK);
    }
    Ok(field)
}

/// A sub-field whose bits must lie within the field.
pub(crate) fn subfield(field: Field, ofs: u16, n_bits: u16) -> Result<SubField, OfError> {
    let sf = SubField { field, ofs, n_bits };
    if sf.is_valid() || (n_bits > 0 && field == Field::VlanVid && ofs + n_bits <= 12) {
        Ok(sf)
    } else {
        Err(OfError::OFPBAC_BAD_SET_LEN)
    }
}

/// A sub-field packed as offset << 6 | (width - 1).
pub(crate) fn ofs_nbits(field: Field, packed: u16) -> Result<SubField, OfError> {
    subfield(field, packed >> 6, (packed & 0x3f) + 1)
}

/// The inverse of [`ofs_nbits`].
pub(crate) fn pack_ofs_nbits(sf: &SubField) -> u16 {
    sf.ofs << 6 | (sf.n_bits - 1) & 0x3f
}

/// The field's number in the basic OXM class of OpenFlow 1.2, if it has one there.
pub(crate) fn basic_number(field: Field) -> Option<u8> {
    id_for(field, Some(Version::V12)).filter(|i| i.class == OXM_OF).map(|i| i.number)
}

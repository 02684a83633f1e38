//! Random tables over the values that the random frames have. Threads: none.

use crate::packets::Spec;
use crate::rng::Rng;
use flow::extract::{extract_flow, PktMetadata};
use flow::{Field, Flow, Match, OfPort, SubField};
use ofproto::{CompactMatch, Rule, RuleFlags, RuleStats, Tables};
use openflow::Action;
use std::sync::Arc;

pub const N_TABLES: usize = 4;

const FIELDS: &[Field] = &[
    Field::InPort,
    Field::EthSrc,
    Field::EthDst,
    Field::EthType,
    Field::EthType,
    Field::VlanTci,
    Field::VlanVid,
    Field::VlanPcp,
    Field::MplsLabel,
    Field::MplsTtl,
    Field::Ipv4Src,
    Field::Ipv4Dst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpProto,
    Field::IpProto,
    Field::IpDscp,
    Field::IpEcn,
    Field::IpTtl,
    Field::IpFrag,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpDst,
    Field::Icmpv4Type,
    Field::Icmpv6Type,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::Metadata,
    Field::Reg(0),
    Field::Reg(1),
    Field::PktMark,
];

/// Fields that actions write.
const WRITABLE: &[Field] = &[
    Field::EthSrc,
    Field::EthDst,
    Field::VlanVid,
    Field::VlanTci,
    Field::VlanPcp,
    Field::Ipv4Src,
    Field::Ipv4Dst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpDscp,
    Field::IpEcn,
    Field::IpTtl,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpDst,
    Field::Icmpv4Type,
    Field::Icmpv6Code,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::MplsLabel,
    Field::MplsTc,
    Field::MplsTtl,
    Field::PktMark,
    Field::Reg(0),
    Field::Reg(1),
    Field::XReg(1),
    Field::Metadata,
    Field::InPort,
];

fn flow_of(r: &mut Rng) -> Flow {
    let spec = Spec::random(r);
    let mut f = extract_flow(&spec.frame(), &PktMetadata::new(1 + r.below(5) as u32)).0;
    f.regs[0] = r.below(3) as u32;
    f.metadata = (r.below(3) as u64).into();
    f
}

/// A match over the values of random frames.
pub fn a_match(r: &mut Rng) -> Match {
    let f = flow_of(r);
    match_of(r, f)
}

/// A match that `f` meets.
pub fn match_of(r: &mut Rng, f: Flow) -> Match {
    let mut m = Match::any();
    for _ in 0..r.below(5) {
        let field = r.pick(FIELDS);
        if !field.prereqs_ok(&f) {
            continue;
        }
        // A rule with a field has the prerequisites of the field.
        if !matches!(field, Field::EthSrc | Field::EthDst | Field::InPort | Field::Metadata | Field::Reg(_)) {
            m.set(Field::EthType, Field::EthType.get(&f));
        }
        if matches!(
            field,
            Field::TcpSrc
                | Field::TcpDst
                | Field::TcpFlags
                | Field::UdpDst
                | Field::Icmpv4Type
                | Field::Icmpv6Type
        ) {
            m.set(Field::IpProto, Field::IpProto.get(&f));
        }
        if matches!(field, Field::NdTarget | Field::NdSll | Field::NdTll) {
            m.set(Field::IpProto, 58);
            m.set(Field::Icmpv6Type, Field::Icmpv6Type.get(&f));
            m.set(Field::Icmpv6Code, 0);
        }
        let all = field.all_ones();
        let width = u32::from(field.n_bits()).min(127);
        let mask = match r.below(4) {
            0 if matches!(field, Field::Ipv4Src | Field::Ipv4Dst | Field::TcpDst | Field::Ipv6Src) => {
                all & (all << r.below(width as usize))
            }
            1 if matches!(field, Field::Ipv4Dst | Field::EthDst | Field::VlanTci | Field::Reg(_)) => {
                all & u128::from(r.next())
            }
            _ => all,
        };
        m.set_masked(field, field.get(&f) & mask, mask);
    }
    m
}

fn sub(r: &mut Rng, field: Field) -> SubField {
    let n = field.n_bits();
    if r.chance(2) {
        return SubField::whole(field);
    }
    let ofs = r.below(n.into()) as u16;
    SubField { field, ofs, n_bits: 1 + r.below(usize::from(n - ofs)) as u16 }
}

fn out_port(r: &mut Rng) -> OfPort {
    match r.below(12) {
        0 => OfPort::IN_PORT,
        1 => OfPort::LOCAL,
        2 => OfPort::FLOOD,
        3 => OfPort::NORMAL,
        4 => OfPort::CONTROLLER,
        n => OfPort(n as u16 - 4),
    }
}

fn set_field(r: &mut Rng) -> Action {
    let field = r.pick(WRITABLE);
    let value = field.get(&flow_of(r)) ^ u128::from(r.below(4) as u64);
    let all = field.all_ones();
    let mask = if r.chance(3) { all & u128::from(r.next()) } else { all };
    Action::SetField { field, value: value & mask & all, mask, flow_has_vlan: false }
}

/// One action of a rule of `table`.
pub fn action(r: &mut Rng, table: usize) -> Action {
    match r.below(30) {
        0..=6 => Action::Output { port: out_port(r), max_len: 100 },
        7..=11 => set_field(r),
        12 | 13 => a_move(r),
        14 => Action::SetVlanVid { vid: 20, push_if_needed: r.chance(2), flow_has_vlan: false },
        15 => Action::SetVlanPcp { pcp: 3, push_if_needed: r.chance(2), flow_has_vlan: false },
        16 => Action::StripVlan,
        17 => Action::PushVlan(r.pick(&[0x8100, 0x88a8])),
        18 => Action::DecTtl(Box::new([])),
        19 => Action::SetIpv4Src([10, 0, 0, r.below(3) as u8]),
        20 => Action::SetIpDscp(0x20),
        21 => Action::SetL4DstPort(80),
        22 => r.pick_mpls(),
        23 => Action::Resubmit { in_port: OfPort::IN_PORT, table: r.below(N_TABLES) as u8, with_ct: false },
        24 if table + 1 < N_TABLES => Action::GotoTable((table + 1 + r.below(N_TABLES - table - 1)) as u8),
        25 => Action::Multipath {
            fields: r.below(7) as u16,
            basis: 1,
            algorithm: r.below(4) as u16,
            max_link: 3,
            arg: 5,
            dst: SubField { field: Field::Reg(0), ofs: 0, n_bits: 3 },
        },
        26 => Action::OutputReg { src: SubField { field: Field::Reg(0), ofs: 0, n_bits: 2 }, max_len: 0 },
        27 => Action::StackPush(sub(r, Field::Ipv4Src)),
        28 => Action::StackPop(sub(r, Field::Reg(1))),
        _ => Action::WriteActions(Box::new([set_field(r), Action::Output { port: out_port(r), max_len: 0 }])),
    }
}

/// Equal widths on both sides.
fn a_move(r: &mut Rng) -> Action {
    let (from, to) = (r.pick(WRITABLE), r.pick(WRITABLE));
    let (mut src, mut dst) = (sub(r, from), sub(r, to));
    src.n_bits = src.n_bits.min(dst.n_bits);
    dst.n_bits = src.n_bits;
    Action::Move { src, dst }
}

impl Rng {
    fn pick_mpls(&mut self) -> Action {
        match self.below(6) {
            0 | 1 => Action::PopMpls(self.pick(&[0x0800, 0x8847, 0x86dd])),
            2 => Action::PushMpls(0x8847),
            3 => Action::SetMplsLabel(5),
            4 => Action::SetMplsTtl(9),
            _ => Action::DecMplsTtl,
        }
    }
}

/// Random tables.
pub fn tables(r: &mut Rng) -> Tables {
    let mut tables = Tables::default();
    for table in 0..N_TABLES {
        for _ in 0..2 + r.below(6) {
            let n = 1 + r.below(5);
            let rule = Rule {
                table_id: table as u8,
                priority: r.below(4) as i32,
                cookie: r.next(),
                matching: CompactMatch::new(&a_match(r)),
                actions: (0..n).map(|_| action(r, table)).collect(),
                flags: RuleFlags::default(),
                idle_timeout: 0,
                hard_timeout: 0,
                importance: 0,
                created_ms: 0,
                modified_ms: 0,
                stats: Arc::new(RuleStats::default()),
            };
            tables.table_mut(table as u8).classifier.insert(Arc::new(rule));
        }
    }
    tables
}

//! Writing action lists of every version.
//!
//! Neighbours: statistics replies; tests read back what this writes. Threads: none.

use crate::error::NX_VENDOR;
use crate::oxm;
use crate::wire::Put;
use crate::{Action, Version};
use flow::{Field, OfPort, SubField};

/// Where actions are written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub version: Version,
    /// IP protocol of the flow: decides which field `mod_tp_src` stands for.
    pub ip_proto: u8,
}

const VENDOR: u16 = 0xffff;

/// Writes an action with `body` behind its type and length, padded.
fn action(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    body(out);
    out.pad8(start);
    out.patch_len(start + 2, start);
}

fn nx(out: &mut Vec<u8>, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    action(out, VENDOR, |o| {
        o.u32(NX_VENDOR);
        o.u16(subtype);
        body(o);
    });
}

/// A run of `width` bytes at the head of the body.
fn plain(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    action(out, kind, |o| o.bytes(bytes));
}

impl Target {
    fn is10(self) -> bool {
        self.version == Version::V10
    }

    /// Versions where set-field replaces the fixed set actions.
    fn oxm(self) -> bool {
        self.version >= Version::V12
    }

    /// Appends a list. Instructions are written as OpenFlow 1.0 can have them.
    pub(crate) fn list(self, out: &mut Vec<u8>, actions: &[Action]) {
        actions.iter().for_each(|a| self.one(out, a));
    }

    fn one(self, out: &mut Vec<u8>, a: &Action) {
        match a {
            Action::Output { port, max_len } => self.output(out, *port, *max_len),
            Action::OutputReg { src, max_len } => output_reg(out, src, *max_len),
            Action::OutputTrunc { port, max_len } => nx(out, 39, |o| {
                o.u16(port.0);
                o.u32(*max_len);
            }),
            Action::Controller { .. } => controller(out, a),
            Action::Enqueue { port, queue } => self.enqueue(out, *port, *queue),
            Action::Group(id) if self.is10() => nx(out, 40, |o| {
                o.u16(0);
                o.u32(*id);
            }),
            Action::Group(id) => plain(out, 22, &id.to_be_bytes()),
            Action::SetQueue(q) => self.set_queue(out, *q),
            Action::PopQueue => nx(out, 5, |_| {}),
            Action::Move { src, dst } => self.reg_move(out, src, dst),
            Action::SetField { field, value, mask, flow_has_vlan } => {
                self.set_field(out, *field, *value, *mask, *flow_has_vlan);
            }
            Action::Load { dst, value } if self.version >= Version::V15 => {
                let value = value.checked_shl(dst.ofs.into()).unwrap_or(0);
                // A load of all there is to a field narrower than its wire form still has a mask.
                let exact = dst.n_bits == u16::from(dst.field.n_bytes()) * 8;
                let mask = (!exact).then(|| dst.mask());
                action(out, 25, |o| oxm::put(o, dst.field, Some(self.version), value, mask));
            }
            Action::Load { dst, value } => {
                reg_load(out, dst.field, value << dst.ofs, dst.mask());
            }
            Action::StackPush(sf) => stack(out, 27, sf),
            Action::StackPop(sf) => stack(out, 28, sf),
            Action::Resubmit { in_port, table, with_ct } => {
                resubmit(out, *in_port, *table, if *with_ct { 44 } else { 14 });
            }
            Action::Multipath { .. } => multipath(out, a),
            Action::Note(data) => nx(out, 8, |o| o.bytes(data)),
            Action::Exit => nx(out, 17, |_| {}),
            Action::Meter(id) if self.version >= Version::V15 => plain(out, 29, &id.to_be_bytes()),
            // Instructions that older versions cannot express in a list are left out.
            Action::Meter(_) | Action::ClearActions | Action::WriteActions(_) => {}
            Action::WriteMetadata { value, mask } => nx(out, 22, |o| {
                o.zeros(6);
                o.u64(*value);
                o.u64(*mask);
            }),
            Action::GotoTable(t) => resubmit(out, OfPort::IN_PORT, *t, 14),
            _ => self.header_write(out, a),
        }
    }

    fn output(self, out: &mut Vec<u8>, port: OfPort, max_len: u16) {
        action(out, 0, |o| {
            if self.is10() {
                o.u16(port.0);
                o.u16(max_len);
            } else {
                o.u32(port.to_of11());
                o.u16(max_len);
                o.zeros(6);
            }
        });
    }

    fn set_queue(self, out: &mut Vec<u8>, queue: u32) {
        if self.is10() {
            nx(out, 4, |o| {
                o.u16(0);
                o.u32(queue);
            });
        } else {
            plain(out, 21, &queue.to_be_bytes());
        }
    }

    fn enqueue(self, out: &mut Vec<u8>, port: OfPort, queue: u32) {
        if self.is10() {
            return action(out, 11, |o| {
                o.u16(port.0);
                o.zeros(6);
                o.u32(queue);
            });
        }
        self.set_queue(out, queue);
        self.output(out, port, u16::MAX);
        nx(out, 5, |_| {});
    }

    fn reg_move(self, out: &mut Vec<u8>, src: &SubField, dst: &SubField) {
        let ofs = |o: &mut Vec<u8>| {
            o.u16(src.n_bits);
            o.u16(src.ofs);
            o.u16(dst.ofs);
        };
        if self.version >= Version::V15 {
            action(out, 28, |o| {
                ofs(o);
                o.u16(0);
                oxm::put_header(o, src.field, Some(self.version), false);
                oxm::put_header(o, dst.field, Some(self.version), false);
            });
        } else {
            nx(out, 6, |o| {
                ofs(o);
                oxm::put_header(o, src.field, None, false);
                oxm::put_header(o, dst.field, None, false);
            });
        }
    }

    /// Actions that write headers.
    fn header_write(self, out: &mut Vec<u8>, a: &Action) {
        match a {
            Action::SetVlanVid { vid, push_if_needed, flow_has_vlan } => {
                self.push_before(out, *push_if_needed && !flow_has_vlan);
                if self.oxm() {
                    self.oxm_set(out, Field::VlanVid, u128::from(*vid) | 0x1000);
                } else {
                    plain(out, 1, &vid.to_be_bytes());
                }
            }
            Action::SetVlanPcp { pcp, push_if_needed, flow_has_vlan } => {
                self.push_before(out, *push_if_needed && !flow_has_vlan);
                if self.oxm() {
                    self.oxm_set(out, Field::VlanPcp, u128::from(*pcp));
                } else {
                    plain(out, 2, &[*pcp]);
                }
            }
            Action::StripVlan | Action::PopVlan => plain(out, if self.is10() { 3 } else { 18 }, &[0; 4]),
            // OpenFlow 1.0 pushes as a side effect of the set_vlan_vid that follows.
            Action::PushVlan(_) if self.is10() => {}
            Action::PushVlan(t) => plain(out, 17, &t.to_be_bytes()),
            Action::SetEthSrc(mac) => self.address(out, Field::EthSrc, (4, 3), mac),
            Action::SetEthDst(mac) => self.address(out, Field::EthDst, (5, 4), mac),
            Action::SetIpv4Src(ip) => self.address(out, Field::Ipv4Src, (6, 5), ip),
            Action::SetIpv4Dst(ip) => self.address(out, Field::Ipv4Dst, (7, 6), ip),
            Action::SetIpDscp(tos) if self.oxm() => {
                self.oxm_set(out, Field::IpDscpShifted, u128::from(tos >> 2));
            }
            Action::SetIpDscp(tos) => plain(out, if self.is10() { 8 } else { 7 }, &[*tos]),
            Action::SetIpEcn(ecn) => match self.version {
                Version::V10 => reg_load(out, Field::IpEcn, (*ecn).into(), 3),
                Version::V11 => plain(out, 8, &[*ecn]),
                _ => self.oxm_set(out, Field::IpEcn, (*ecn).into()),
            },
            Action::SetIpTtl(ttl) if self.is10() => reg_load(out, Field::IpTtl, (*ttl).into(), 0xff),
            Action::SetIpTtl(ttl) => plain(out, 23, &[*ttl]),
            Action::SetL4SrcPort(p) => self.l4(out, *p, true),
            Action::SetL4DstPort(p) => self.l4(out, *p, false),
            Action::SetTunnel(id) => self.tunnel(out, *id),
            Action::DecTtl(ids) => self.dec_ttl(out, ids),
            _ => self.mpls(out, a),
        }
    }

    fn push_before(self, out: &mut Vec<u8>, needed: bool) {
        if needed && !self.is10() {
            plain(out, 17, &0x8100u16.to_be_bytes());
        }
    }

    fn oxm_set(self, out: &mut Vec<u8>, field: Field, value: u128) {
        action(out, 25, |o| oxm::put(o, field, Some(self.version), value, None));
    }

    fn address(self, out: &mut Vec<u8>, field: Field, (of10, of11): (u16, u16), bytes: &[u8]) {
        if self.oxm() {
            let v = bytes.iter().fold(0, |v, &b| v << 8 | u128::from(b));
            self.oxm_set(out, field, v);
        } else {
            plain(out, if self.is10() { of10 } else { of11 }, bytes);
        }
    }

    fn l4(self, out: &mut Vec<u8>, port: u16, src: bool) {
        if !self.oxm() {
            return plain(out, if src { 9 } else { 10 }, &port.to_be_bytes());
        }
        let field = match (self.ip_proto, src) {
            (6, true) => Field::TcpSrc,
            (6, false) => Field::TcpDst,
            (17, true) => Field::UdpSrc,
            (17, false) => Field::UdpDst,
            (132, true) => Field::SctpSrc,
            (132, false) => Field::SctpDst,
            _ => return plain(out, if src { 9 } else { 10 }, &port.to_be_bytes()),
        };
        self.oxm_set(out, field, port.into());
    }

    fn tunnel(self, out: &mut Vec<u8>, id: u64) {
        match u32::try_from(id) {
            _ if self.oxm() => self.oxm_set(out, Field::TunId, id.into()),
            Ok(id) => nx(out, 2, |o| {
                o.u16(0);
                o.u32(id);
            }),
            Err(_) => nx(out, 9, |o| {
                o.zeros(6);
                o.u64(id);
            }),
        }
    }

    fn dec_ttl(self, out: &mut Vec<u8>, ids: &[u16]) {
        match ids {
            [] if self.is10() => nx(out, 18, |_| {}),
            [] => plain(out, 24, &[0; 4]),
            ids => nx(out, 21, |o| {
                o.u16(ids.len() as u16);
                o.zeros(4);
                ids.iter().for_each(|&id| o.u16(id));
            }),
        }
    }

    fn mpls(self, out: &mut Vec<u8>, a: &Action) {
        let either = |out: &mut Vec<u8>, of10: u16, of11: u16, b: &[u8]| {
            if self.is10() {
                nx(out, of10, |o| o.bytes(b));
            } else {
                plain(out, of11, b);
            }
        };
        match a {
            Action::PushMpls(t) => either(out, 23, 19, &t.to_be_bytes()),
            Action::PopMpls(t) => either(out, 24, 20, &t.to_be_bytes()),
            Action::SetMplsTtl(t) => either(out, 25, 15, &[*t]),
            Action::DecMplsTtl => either(out, 26, 16, &[]),
            Action::SetMplsLabel(l) if self.oxm() => self.oxm_set(out, Field::MplsLabel, (*l).into()),
            Action::SetMplsLabel(l) if self.is10() => nx(out, 30, |o| {
                o.u16(0);
                o.u32(*l);
            }),
            Action::SetMplsLabel(l) => plain(out, 13, &l.to_be_bytes()),
            Action::SetMplsTc(tc) if self.oxm() => self.oxm_set(out, Field::MplsTc, (*tc).into()),
            Action::SetMplsTc(tc) => either(out, 31, 14, &[*tc]),
            _ => {}
        }
    }

    fn set_field(self, out: &mut Vec<u8>, field: Field, value: u128, mask: u128, has_vlan: bool) {
        let exact = mask == field.all_ones();
        if self.version >= Version::V15 || self.oxm() && exact {
            return action(out, 25, |o| {
                oxm::put(o, field, Some(self.version), value, (!exact).then_some(mask));
            });
        }
        if self.oxm() || !self.legacy(out, field, value, has_vlan) {
            reg_load(out, field, value, mask);
        }
    }

    /// The fixed action of OpenFlow 1.0 and 1.1 that does what setting `field` does; false if there is none.
    fn legacy(self, out: &mut Vec<u8>, field: Field, value: u128, flow_has_vlan: bool) -> bool {
        let b = value.to_be_bytes();
        let (vid, pcp) = (value as u16 & 0x0fff, (value >> 13) as u8 & 7);
        let set_vid = |out: &mut Vec<u8>| plain(out, 1, &vid.to_be_bytes());
        match field {
            Field::VlanTci if value & 0x1000 == 0 => {
                if flow_has_vlan {
                    self.one(out, &Action::StripVlan);
                }
            }
            Field::VlanTci => {
                self.push_before(out, !flow_has_vlan);
                set_vid(out);
                plain(out, 2, &[pcp]);
            }
            Field::VlanVid | Field::DlVlan => set_vid(out),
            Field::VlanPcp | Field::DlVlanPcp => plain(out, 2, &[b[15]]),
            Field::EthSrc => self.address(out, field, (4, 3), &b[10..]),
            Field::EthDst => self.address(out, field, (5, 4), &b[10..]),
            Field::Ipv4Src => self.address(out, field, (6, 5), &b[12..]),
            Field::Ipv4Dst => self.address(out, field, (7, 6), &b[12..]),
            Field::IpDscp => self.one(out, &Action::SetIpDscp(b[15])),
            Field::IpDscpShifted => self.one(out, &Action::SetIpDscp(b[15] << 2)),
            Field::IpEcn => self.one(out, &Action::SetIpEcn(b[15])),
            Field::TcpSrc | Field::UdpSrc => self.l4(out, value as u16, true),
            Field::TcpDst | Field::UdpDst => self.l4(out, value as u16, false),
            _ => return false,
        }
        true
    }
}

/// As many reg_loads as the runs of ones in `mask` need, none over 64 bits wide.
fn reg_load(out: &mut Vec<u8>, field: Field, value: u128, mask: u128) {
    let mut left = mask;
    while left != 0 {
        let ofs = left.trailing_zeros();
        let n = (left >> ofs).trailing_ones().min(64);
        let bits = if n == 128 { u128::MAX } else { (1u128 << n) - 1 };
        nx(out, 7, |o| {
            o.u16((ofs << 6 | (n - 1)) as u16);
            oxm::put_header(o, field, None, false);
            o.u64((value >> ofs & bits) as u64);
        });
        left &= !(bits << ofs);
    }
}

fn output_reg(out: &mut Vec<u8>, src: &SubField, max_len: u16) {
    let mut header = Vec::new();
    oxm::put_header(&mut header, src.field, None, false);
    if header.len() == 4 {
        nx(out, 15, |o| {
            o.u16(oxm::pack_ofs_nbits(src));
            o.bytes(&header);
            o.u16(max_len);
            o.zeros(6);
        });
    } else {
        nx(out, 32, |o| {
            o.u16(oxm::pack_ofs_nbits(src));
            o.u16(max_len);
            o.bytes(&header);
        });
    }
}

fn stack(out: &mut Vec<u8>, subtype: u16, sf: &SubField) {
    nx(out, subtype, |o| {
        o.u16(sf.ofs);
        let start = o.len();
        oxm::put_header(o, sf.field, None, false);
        o.u16(sf.n_bits);
        o.zeros(12 - (o.len() - start).min(12));
    });
}

fn resubmit(out: &mut Vec<u8>, in_port: OfPort, table: u8, subtype: u16) {
    nx(out, subtype, |o| {
        o.u16(in_port.0);
        o.u8(table);
        o.zeros(3);
    });
}

fn multipath(out: &mut Vec<u8>, a: &Action) {
    let Action::Multipath { fields, basis, algorithm, max_link, arg, dst } = a else { return };
    nx(out, 10, |o| {
        o.u16(*fields);
        o.u16(*basis);
        o.u16(0);
        o.u16(*algorithm);
        o.u16(*max_link);
        o.u32(*arg);
        o.u16(0);
        o.u16(oxm::pack_ofs_nbits(dst));
        oxm::put_header(o, dst.field, None, false);
    });
}

fn controller(out: &mut Vec<u8>, a: &Action) {
    let Action::Controller { max_len, controller_id, reason, pause, userdata, meter_id } = a else { return };
    if !pause && userdata.is_empty() && meter_id.is_none() {
        return nx(out, 20, |o| {
            o.u16(*max_len);
            o.u16(*controller_id);
            o.u8(*reason);
            o.u8(0);
        });
    }
    nx(out, 37, |o| {
        o.zeros(6);
        let prop = |o: &mut Vec<u8>, kind: u16, b: &[u8]| {
            let start = o.len();
            o.u16(kind);
            o.u16(4 + b.len() as u16);
            o.bytes(b);
            o.pad8(start);
        };
        if *max_len != u16::MAX {
            prop(o, 0, &max_len.to_be_bytes());
        }
        if *controller_id != 0 {
            prop(o, 1, &controller_id.to_be_bytes());
        }
        if *reason != 1 {
            prop(o, 2, &[*reason]);
        }
        if !userdata.is_empty() {
            prop(o, 3, userdata);
        }
        if *pause {
            prop(o, 4, &[]);
        }
        if let Some(id) = meter_id {
            prop(o, 5, &id.to_be_bytes());
        }
    });
}

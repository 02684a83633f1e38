//! Properties of the whole codec: what is written reads back the same, and no bytes make it panic.

use crate::action_encode::Target;
use crate::wire::Reader;
use crate::{
    action_decode, decode, format_actions, frame, instruction, match_of10, match_oxm, Action, Decoder, Frame,
    FrameError, Header, OfError, Session, Version, VersionSet,
};
use flow::{Field, Match, OfPort, SubField};
use proptest::prelude::*;

/// Fields in an order in which prerequisites come first.
fn random_match() -> impl Strategy<Value = Match> {
    let kinds = prop_oneof![
        Just((0x0800u16, 6u8)),
        Just((0x0800, 17)),
        Just((0x0800, 132)),
        Just((0x0800, 1)),
        Just((0x86dd, 6)),
        Just((0x86dd, 58)),
        Just((0x0806, 1)),
        Just((0x8847, 0)),
        Just((0x1234, 0)),
    ];
    (kinds, any::<u128>(), any::<u128>(), any::<[u64; 2]>(), any::<u128>()).prop_map(
        |((dl_type, proto), values, masks, pick, more)| {
            let mut m = Match::any();
            m.set(Field::EthType, dl_type.into());
            if matches!(dl_type, 0x0800 | 0x86dd) {
                m.set(Field::IpProto, proto.into());
                if proto == 58 {
                    m.set(Field::Icmpv6Type, if values & 1 == 0 { 135 } else { 136 });
                    m.set(Field::Icmpv6Code, 0);
                }
            }
            let pick = u128::from(pick[0]) << 64 | u128::from(pick[1]);
            for (i, f) in Field::all().enumerate() {
                // Fields that stand for the same bits, that nothing sends, or that one of the others includes.
                let alias = matches!(
                    f,
                    Field::DlVlan
                        | Field::DlVlanPcp
                        | Field::VlanTci
                        | Field::VlanPcp
                        | Field::IpDscpShifted
                        | Field::InPortOxm
                        | Field::SkbPriority
                        | Field::TunTtl
                        | Field::TunTos
                        | Field::PacketType
                        | Field::XReg(_)
                        | Field::XxReg(_)
                        | Field::EthType
                        | Field::IpProto
                        | Field::Icmpv6Type
                        | Field::Icmpv6Code
                );
                let ct = matches!(f.prereq(), flow::field::Prereq::Ct);
                if alias || ct || pick.rotate_left(i as u32 * 7) & 1 == 0 || !f.match_prereqs_ok(&m) {
                    continue;
                }
                let mask = match f.maskable() {
                    true => masks.rotate_left(i as u32 * 5) & f.all_ones(),
                    false => f.all_ones(),
                };
                let value = values.rotate_left(i as u32 * 3) & mask;
                let value = match f {
                    Field::ActsetOutput => u128::from(OfPort(more as u16 & 0x7fff).to_of11()),
                    Field::ArpOp => value & 0xff,
                    Field::CtState => value & 0xff,
                    // Not a later fragment: those have no ports.
                    Field::IpFrag => value & 1,
                    _ => value,
                };
                let mask = if f == Field::CtState { mask & 0xff } else { mask };
                if mask != 0 {
                    m.set_masked(f, value & mask, mask);
                }
            }
            m
        },
    )
}

fn writable() -> impl Strategy<Value = Field> {
    // Without those that take only some of the values that fit.
    let odd = |f| {
        matches!(f, Field::InPortOxm | Field::ActsetOutput | Field::ArpOp | Field::VlanVid | Field::IpDscp)
    };
    let fit = |f: &Field| f.writable() && crate::oxm::encodable(*f) && !odd(*f);
    let all: Vec<Field> = Field::all().filter(fit).collect();
    prop::sample::select(all)
}

fn subfield() -> impl Strategy<Value = SubField> {
    (writable(), any::<u16>(), any::<u16>()).prop_map(|(field, ofs, n)| {
        let bits = field.n_bits();
        let ofs = ofs % bits;
        SubField { field, ofs, n_bits: 1 + n % (bits - ofs).min(64) }
    })
}

fn random_action() -> impl Strategy<Value = Action> {
    let ports = prop_oneof![0u16..0xff00, 0xfff8..=0xffffu16].prop_map(OfPort);
    prop_oneof![
        (ports, any::<u16>()).prop_map(|(port, max_len)| Action::Output { port, max_len }),
        (subfield(), any::<u16>()).prop_map(|(src, max_len)| Action::OutputReg { src, max_len }),
        (1u16..9, 14u32..2000).prop_map(|(p, max_len)| Action::OutputTrunc { port: OfPort(p), max_len }),
        (any::<u16>(), any::<u16>(), 0u8..8, any::<bool>(), any::<Vec<u8>>(), any::<Option<u32>>()).prop_map(
            |(max_len, controller_id, reason, pause, userdata, meter_id)| Action::Controller {
                max_len,
                controller_id,
                reason,
                pause,
                userdata: userdata.into(),
                meter_id,
            }
        ),
        (1u16..9, any::<u32>()).prop_map(|(p, queue)| Action::Enqueue { port: OfPort(p), queue }),
        any::<u32>().prop_map(Action::Group),
        any::<u32>().prop_map(Action::SetQueue),
        Just(Action::PopQueue),
        Just(Action::StripVlan),
        Just(Action::Exit),
        Just(Action::DecMplsTtl),
        any::<[u8; 6]>().prop_map(Action::SetEthSrc),
        any::<[u8; 4]>().prop_map(Action::SetIpv4Dst),
        (0u8..64).prop_map(|d| Action::SetIpDscp(d << 2)),
        (0u8..4).prop_map(Action::SetIpEcn),
        any::<u8>().prop_map(Action::SetIpTtl),
        any::<u16>().prop_map(Action::SetL4SrcPort),
        (0u16..0x1000).prop_map(|vid| Action::SetVlanVid { vid, push_if_needed: true, flow_has_vlan: false }),
        (0u8..8).prop_map(|pcp| Action::SetVlanPcp { pcp, push_if_needed: true, flow_has_vlan: true }),
        (0u32..0x10_0000).prop_map(Action::SetMplsLabel),
        any::<u64>().prop_map(Action::SetTunnel),
        any::<Vec<u16>>().prop_map(|v| Action::DecTtl(v.into_iter().take(20).collect())),
        (writable(), any::<u128>(), any::<u128>()).prop_map(|(field, value, mask)| {
            let mask = if field.maskable() { mask & field.all_ones() | 1 } else { field.all_ones() };
            Action::SetField { field, value: value & mask, mask, flow_has_vlan: false }
        }),
        (subfield(), subfield()).prop_map(|(mut src, mut dst)| {
            let n = src.n_bits.min(dst.n_bits);
            (src.n_bits, dst.n_bits) = (n, n);
            Action::Move { src, dst }
        }),
        (subfield(), any::<u128>())
            .prop_map(|(dst, v)| Action::Load { dst, value: v & ((1u128 << dst.n_bits) - 1) }),
        subfield().prop_map(Action::StackPush),
        subfield().prop_map(Action::StackPop),
        (any::<u16>(), any::<u8>(), any::<bool>()).prop_map(|(p, table, with_ct)| Action::Resubmit {
            in_port: OfPort(p),
            table,
            with_ct
        }),
        any::<Vec<u8>>().prop_map(|v| Action::Note(v.into())),
    ]
}

fn written(actions: &[Action], version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    let target = Target { version, ip_proto: 6 };
    match version {
        Version::V10 => target.list(&mut out, actions),
        _ => instruction::put(&mut out, actions, target),
    }
    out
}

fn read(bytes: &[u8], version: Version) -> Result<Vec<Action>, OfError> {
    match version {
        Version::V10 => action_decode::list(bytes, version),
        _ => instruction::list(bytes, version),
    }
}

fn body(kind: u8, version: Version, body: &[u8]) -> Frame {
    let mut data = vec![version.wire(), kind, 0, 0, 0, 0, 0, 1];
    data.extend_from_slice(body);
    let len = (data.len() as u16).to_be_bytes();
    data[2..4].copy_from_slice(&len);
    Frame { header: Header::parse(&data).unwrap(), data: data.into() }
}

fn session(version: Version, tid: bool) -> Session {
    Session { flow_mod_table_id: tid, ..Session::new(version) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn matches_read_back(m in random_match()) {
        for version in [Version::V12, Version::V13, Version::V14, Version::V15] {
            let mut out = Vec::new();
            match_oxm::put_match(&mut out, &m, version);
            prop_assert_eq!(out.len() % 8, 0);
            let back = match_oxm::pull(&mut Reader::new(&out, OfError::OFPBRC_BAD_LEN), true);
            prop_assert_eq!(back, Ok(m));
        }
        let mut out = Vec::new();
        match_oxm::put_fields(&mut out, &m, None, (5, 7));
        let back = match_oxm::get(&out, true, true);
        prop_assert_eq!(back, Ok(match_oxm::Fields { match_: m, cookie: 5, cookie_mask: 7 }));
    }

    #[test]
    fn fixed_matches_are_stable(bytes in prop::array::uniform32(any::<u8>()), more in any::<[u8; 8]>()) {
        let raw: Vec<u8> = bytes.into_iter().chain(more).collect();
        let get = |b: &[u8]| match_of10::get10(&mut Reader::new(b, OfError::OFPBRC_BAD_LEN)).unwrap();
        let first = get(&raw);
        let mut out = Vec::new();
        match_of10::put10(&mut out, &first);
        prop_assert_eq!(get(&out), first);
    }

    #[test]
    fn actions_read_back(actions in prop::collection::vec(random_action(), 0..6)) {
        for version in Version::ALL {
            let first = written(&actions, version);
            let once = read(&first, version);
            prop_assert!(once.is_ok(), "{:?} {} {:?}", actions, version, once);
            let once = once.unwrap();
            // Other actions may mean the same, but from then on they stay what they are.
            let again = read(&written(&once, version), version).unwrap();
            prop_assert_eq!(written(&again, version), written(&once, version));
            prop_assert!(!format_actions(&once).is_empty());
        }
    }

    #[test]
    fn no_message_panics(
        v in 0usize..6, tid in any::<bool>(), kind in 0u8..36, bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let version = Version::ALL[v];
        let _ = decode(&body(kind, version, &bytes), &session(version, tid));
    }

    #[test]
    fn no_mutation_panics(
        v in 0usize..6,
        m in random_match(),
        actions in prop::collection::vec(random_action(), 0..5),
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        cut in any::<u16>(),
    ) {
        let version = Version::ALL[v];
        let mut b = Vec::new();
        if version == Version::V10 {
            match_of10::put10(&mut b, &m);
            b.extend_from_slice(&[0; 24]);
        } else {
            b.extend_from_slice(&[0; 40]);
            match_oxm::put_match(&mut b, &m, version);
        }
        b.extend_from_slice(&written(&actions, version));
        for (at, x) in changes {
            let at = usize::from(at) % b.len();
            b[at] = x;
        }
        if cut % 8 == 0 {
            b.truncate(usize::from(cut) % b.len());
        }
        let _ = decode(&body(14, version, &b), &session(version, false));
    }

    #[test]
    fn framing_does_not_depend_on_chunks(
        lens in prop::collection::vec(8usize..200, 1..6), chunk in 1usize..50,
    ) {
        let stream: Vec<u8> = lens.iter().flat_map(|&n| body(2, Version::V13, &vec![7; n - 8]).data.into_vec()).collect();
        let (mut d, mut got) = (Decoder::new(), Vec::new());
        for c in stream.chunks(chunk) {
            d.feed(c);
            while let Some(f) = d.next_frame().unwrap() {
                got.push(f.data.len());
            }
        }
        prop_assert_eq!(got, lens);
        prop_assert_eq!(d.pending(), 0);
    }
}

#[test]
fn a_length_below_the_header_ends_the_stream() {
    let mut d = Decoder::new();
    d.feed(&[1, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(d.next_frame(), Err(FrameError::TooShort(7)));
    assert_eq!(frame::HEADER_LEN, 8);
}

#[test]
fn versions_are_negotiated_by_bitmap_or_by_header() {
    let hello = |bytes: &[u8]| crate::decode_hello(&body(0, Version::V15, bytes));
    assert_eq!(hello(&[]), VersionSet::DEFAULT);
    assert_eq!(hello(&[0, 1, 0, 8, 0, 0, 0, 0x12]).bits(), 0x12);
    assert_eq!(hello(&[0, 1, 0, 3]), VersionSet::DEFAULT);
    let ours = VersionSet::from_names(["OpenFlow10", "OpenFlow13", "nonsense"]);
    assert_eq!(ours.negotiate(hello(&[])), Some(Version::V13));
    assert_eq!(ours.negotiate(VersionSet::EMPTY.with(Version::V14)), None);
    assert_eq!(VersionSet::from_names([]), VersionSet::DEFAULT);
    assert_eq!(ours.to_string(), "0x01, 0x04");
}

#[test]
fn errors_have_a_place_in_every_version() {
    for &e in OfError::ALL {
        for v in Version::ALL {
            let mut out = Vec::new();
            e.encode_body(v, &[0; 100], &mut out);
            assert!(matches!(out.len(), 104 | 108 | 112), "{e} {v} {}", out.len());
        }
    }
    let mut out = Vec::new();
    OfError::OFPBMC_BAD_PREREQ.encode_body(Version::V10, &[], &mut out);
    assert_eq!(out, [0xb0, 0xc2, 0, 0, 0, 0, 0x23, 0x20, 0, 1, 1, 4]);
}

#[test]
fn long_dumps_are_cut_into_messages() {
    let m = Match::any();
    let actions = vec![Action::Note(vec![1; 1000].into())];
    let mut w = crate::FlowStatsWriter::new(Version::V13, 9, false);
    for priority in 0..200 {
        w.push(&crate::FlowStats {
            match_: &m,
            actions: &actions,
            table_id: 0,
            priority,
            cookie: 0,
            duration_sec: 0,
            duration_nsec: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            idle_age: None,
            hard_age: None,
            packet_count: 0,
            byte_count: 0,
            flags: crate::FlowFlags(0),
            importance: 0,
        });
    }
    let mut d = Decoder::new();
    d.feed(&w.finish());
    let mut more = Vec::new();
    while let Some(f) = d.next_frame().unwrap() {
        assert_eq!((f.header.kind, f.header.xid), (19, 9));
        more.push(f.data[11]);
    }
    assert_eq!(more, [1, 1, 1, 0]);
    assert_eq!(d.pending(), 0);
}

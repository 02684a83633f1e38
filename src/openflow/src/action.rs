//! OpenFlow actions and instructions in one internal form, whatever version or extension brought them.
//!
//! Neighbours: `codec` modules read and write the wire forms, `ofproto` translates them. Threads: plain data.

use flow::{Field, OfPort, SubField};

/// One action. Instructions stand in the same list, in the order in which they run: (meter, apply-actions'
/// content, clear, write, metadata, goto).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Action {
    /// `max_len` matters for CONTROLLER only.
    Output {
        port: OfPort,
        max_len: u16,
    },
    /// `output:reg0[0..15]`.
    OutputReg {
        src: SubField,
        max_len: u16,
    },
    /// `output(port=,max_len=)`.
    OutputTrunc {
        port: OfPort,
        max_len: u32,
    },
    Controller {
        max_len: u16,
        controller_id: u16,
        reason: u8,
        pause: bool,
        userdata: Box<[u8]>,
        meter_id: Option<u32>,
    },
    Enqueue {
        port: OfPort,
        queue: u32,
    },
    Group(u32),
    SetQueue(u32),
    PopQueue,
    /// mod_vlan_vid. `flow_has_vlan`: the match fixes a VLAN header; `push_if_needed`: adds a header if there is none (OpenFlow 1.0).
    SetVlanVid {
        vid: u16,
        push_if_needed: bool,
        flow_has_vlan: bool,
    },
    SetVlanPcp {
        pcp: u8,
        push_if_needed: bool,
        flow_has_vlan: bool,
    },
    /// OpenFlow 1.0's name for taking a VLAN header away.
    StripVlan,
    /// The name since OpenFlow 1.1.
    PopVlan,
    PushVlan(u16),
    SetEthSrc([u8; 6]),
    SetEthDst([u8; 6]),
    SetIpv4Src([u8; 4]),
    SetIpv4Dst([u8; 4]),
    /// DSCP in bits 2-7.
    SetIpDscp(u8),
    SetIpEcn(u8),
    SetIpTtl(u8),
    SetL4SrcPort(u16),
    SetL4DstPort(u16),
    PushMpls(u16),
    PopMpls(u16),
    SetMplsLabel(u32),
    SetMplsTc(u8),
    SetMplsTtl(u8),
    DecMplsTtl,
    /// Controllers told on TTL 0; empty means the default (0).
    DecTtl(Box<[u16]>),
    /// `value` and `mask` as in [`flow::field::Value`]; zero outside the mask.
    SetField {
        field: Field,
        value: u128,
        mask: u128,
        flow_has_vlan: bool,
    },
    Move {
        src: SubField,
        dst: SubField,
    },
    /// `load:value->dst` (Nicira reg_load): same effect as a masked set field, other text.
    Load {
        dst: SubField,
        value: u128,
    },
    StackPush(SubField),
    StackPop(SubField),
    SetTunnel(u64),
    /// `table` 255: the current one. `in_port` IN_PORT: the current one.
    Resubmit {
        in_port: OfPort,
        table: u8,
        with_ct: bool,
    },
    Multipath {
        fields: u16,
        basis: u16,
        algorithm: u16,
        max_link: u16,
        arg: u32,
        dst: SubField,
    },
    Note(Box<[u8]>),
    Exit,
    Meter(u32),
    ClearActions,
    /// The action set's additions, in order.
    WriteActions(Box<[Action]>),
    WriteMetadata {
        value: u64,
        mask: u64,
    },
    GotoTable(u8),
}

//! Identifiers that must not be mixed: datapath ports, OpenFlow ports, recirculation ids.

/// Port number in a datapath (dense, small; 0 is the datapath's local port "ovs-netdev").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DpPort(pub u32);

impl DpPort {
    /// "No port".
    pub const NONE: DpPort = DpPort(u32::MAX);
}

impl std::fmt::Display for DpPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// OpenFlow port number in its 16-bit form (OpenFlow 1.0 §5.2.1; 1.1+ reserved ports 0xffffffxx map to 0xffxx).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OfPort(pub u16);

#[allow(missing_docs)]
impl OfPort {
    pub const MAX: OfPort = OfPort(0xff00);
    /// Nicira: clears or reads "unset" for the OpenFlow 1.5 action set output.
    pub const UNSET: OfPort = OfPort(0xfff7);
    pub const IN_PORT: OfPort = OfPort(0xfff8);
    pub const TABLE: OfPort = OfPort(0xfff9);
    pub const NORMAL: OfPort = OfPort(0xfffa);
    pub const FLOOD: OfPort = OfPort(0xfffb);
    pub const ALL: OfPort = OfPort(0xfffc);
    pub const CONTROLLER: OfPort = OfPort(0xfffd);
    pub const LOCAL: OfPort = OfPort(0xfffe);
    pub const NONE: OfPort = OfPort(0xffff);

    /// The 32-bit form of OpenFlow 1.1 and later.
    pub fn to_of11(self) -> u32 {
        if self.0 >= 0xff00 {
            0xffff_0000 | u32::from(self.0)
        } else {
            u32::from(self.0)
        }
    }

    /// From the 32-bit form; `None` for numbers outside 0..0xff00 and 0xffffff00 upward.
    pub fn from_of11(v: u32) -> Option<OfPort> {
        match v {
            0..=0xfeff => Some(OfPort(v as u16)),
            0xffff_ff00..=u32::MAX => Some(OfPort(v as u16)),
            _ => None,
        }
    }
}

const NAMED: [(&str, OfPort); 10] = [
    ("IN_PORT", OfPort::IN_PORT),
    ("TABLE", OfPort::TABLE),
    ("NORMAL", OfPort::NORMAL),
    ("FLOOD", OfPort::FLOOD),
    ("ALL", OfPort::ALL),
    ("CONTROLLER", OfPort::CONTROLLER),
    ("LOCAL", OfPort::LOCAL),
    // The first of two names is the one printed.
    ("ANY", OfPort::NONE),
    ("NONE", OfPort::NONE),
    ("UNSET", OfPort::UNSET),
];

impl OfPort {
    /// A reserved port by its OpenFlow name, in any case.
    pub fn from_name(name: &str) -> Option<OfPort> {
        NAMED.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|&(_, p)| p)
    }
}

/// The number, or the name of a reserved port.
impl std::fmt::Display for OfPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMED.iter().find(|(_, p)| p == self) {
            Some((n, _)) => f.write_str(n),
            None => self.0.fmt(f),
        }
    }
}

/// Recirculation id; 0 is "not recirculated".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct RecircId(pub u32);

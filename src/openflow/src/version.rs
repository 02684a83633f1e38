//! OpenFlow versions, sets of them, and their negotiation.
//!
//! Neighbours: every codec module asks for the version; `ofproto` builds the allowed set from the `protocols`
//! column. Threads: plain data.

use std::fmt;

/// An OpenFlow version; the discriminant is the version byte on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Version {
    V10 = 1,
    V11 = 2,
    V12 = 3,
    V13 = 4,
    V14 = 5,
    V15 = 6,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Version; 6] =
        [Version::V10, Version::V11, Version::V12, Version::V13, Version::V14, Version::V15];

    /// From the version byte.
    pub fn from_wire(v: u8) -> Option<Version> {
        Version::ALL.get(usize::from(v).checked_sub(1)?).copied()
    }

    /// The version byte.
    pub fn wire(self) -> u8 {
        self as u8
    }

    /// As in the `protocols` column: `OpenFlow10`.
    pub fn name(self) -> &'static str {
        match self {
            Version::V10 => "OpenFlow10",
            Version::V11 => "OpenFlow11",
            Version::V12 => "OpenFlow12",
            Version::V13 => "OpenFlow13",
            Version::V14 => "OpenFlow14",
            Version::V15 => "OpenFlow15",
        }
    }

    /// From the name in the `protocols` column (`OpenFlow10`, `OpenFlow1.0`, in any case).
    pub fn from_name(name: &str) -> Option<Version> {
        let lower = name.to_ascii_lowercase();
        let n: String = lower.strip_prefix("openflow")?.chars().filter(|&c| c != '.').collect();
        Version::ALL.into_iter().find(|v| v.name()[8..] == *n)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of versions; bit `n` stands for version byte `n` as in a hello's version bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct VersionSet(u32);

impl VersionSet {
    /// No version.
    pub const EMPTY: VersionSet = VersionSet(0);
    /// What a bridge speaks when `protocols` is empty: all of them.
    pub const DEFAULT: VersionSet = VersionSet(0x7e);

    /// From a hello bitmap; unknown versions are dropped.
    pub fn from_bits(bits: u32) -> VersionSet {
        VersionSet(bits & 0x7e)
    }

    /// The hello bitmap.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set of all versions up to and including version byte `v`.
    pub fn up_to(v: u8) -> VersionSet {
        VersionSet::from_bits(if v >= 31 { u32::MAX } else { (2u32 << v) - 1 })
    }

    /// The set with `v` added.
    #[must_use]
    pub fn with(self, v: Version) -> VersionSet {
        VersionSet(self.0 | 1 << v.wire())
    }

    /// Whether `v` is in.
    pub fn contains(self, v: Version) -> bool {
        self.0 & 1 << v.wire() != 0
    }

    /// Whether nothing is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both sets have.
    #[must_use]
    pub fn intersect(self, o: VersionSet) -> VersionSet {
        VersionSet(self.0 & o.0)
    }

    /// The newest version in the set.
    pub fn highest(self) -> Option<Version> {
        Version::ALL.into_iter().rev().find(|&v| self.contains(v))
    }

    /// The versions in the set, oldest first.
    pub fn iter(self) -> impl Iterator<Item = Version> {
        Version::ALL.into_iter().filter(move |&v| self.contains(v))
    }

    /// From the `protocols` column; unknown names are skipped, nothing known gives [`VersionSet::DEFAULT`].
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> VersionSet {
        let set = names.into_iter().filter_map(Version::from_name).fold(VersionSet::EMPTY, VersionSet::with);
        if set.is_empty() {
            VersionSet::DEFAULT
        } else {
            set
        }
    }

    /// The version two peers speak: the newest one that both allow.
    pub fn negotiate(self, peer: VersionSet) -> Option<Version> {
        self.intersect(peer).highest()
    }
}

/// As the log prints it: `0x01, 0x04`.
impl fmt::Display for VersionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.iter().enumerate() {
            write!(f, "{}0x{:02x}", if i == 0 { "" } else { ", " }, v.wire())?;
        }
        Ok(())
    }
}

//! Multipart replies: any number of entries, cut into messages of at most 64 KiB.
//!
//! Neighbours: `encode` and `flow_stats` fill it. Threads: none.

use crate::error::NX_VENDOR;
use crate::wire::Put;
use crate::Version;

/// Writes one reply. Each message but the last has the "more" flag.
#[derive(Debug)]
pub(crate) struct Multipart {
    version: Version,
    xid: u32,
    kind: u16,
    /// Nicira subtype, with kind 0xffff.
    subtype: Option<u32>,
    /// Where the message being written starts.
    start: usize,
    pub out: Vec<u8>,
}

impl Multipart {
    /// Starts a reply of `kind`, after what `out` holds.
    pub(crate) fn new(version: Version, xid: u32, kind: u16, out: Vec<u8>) -> Multipart {
        let mut m = Multipart { version, xid, kind, subtype: None, start: 0, out };
        m.begin();
        m
    }

    /// Starts a Nicira reply of OpenFlow 1.0.
    pub(crate) fn nicira(xid: u32, subtype: u32, out: Vec<u8>) -> Multipart {
        let subtype = Some(subtype);
        let mut m = Multipart { version: Version::V10, xid, kind: 0xffff, subtype, start: 0, out };
        m.begin();
        m
    }

    fn head_len(&self) -> usize {
        match (self.version, self.subtype) {
            (Version::V10, None) => 12,
            (Version::V10, Some(_)) => 24,
            _ => 16,
        }
    }

    fn begin(&mut self) {
        self.start = self.out.len();
        let o = &mut self.out;
        o.u8(self.version.wire());
        o.u8(if self.version == Version::V10 { 17 } else { 19 });
        o.u16(0);
        o.u32(self.xid);
        o.u16(self.kind);
        o.u16(0);
        if self.version > Version::V10 {
            o.zeros(4);
        }
        if let Some(subtype) = self.subtype {
            o.u32(NX_VENDOR);
            o.u32(subtype);
            o.zeros(4);
        }
    }

    /// Writes one entry, which goes to a new message when it does not fit. An entry that no message can hold is
    /// left out.
    pub(crate) fn entry(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.out.len();
        write(&mut self.out);
        if self.out.len() - self.start <= usize::from(u16::MAX) {
            return;
        }
        if self.out.len() - at + self.head_len() > usize::from(u16::MAX) {
            self.out.truncate(at);
            return;
        }
        let entry = self.out.split_off(at);
        self.out.patch_len(self.start + 2, self.start);
        self.out[self.start + 11] |= 1;
        self.begin();
        self.out.bytes(&entry);
    }

    /// All messages.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.patch_len(self.start + 2, self.start);
        self.out
    }
}

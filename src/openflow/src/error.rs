//! OpenFlow errors: every name with its type and code in each version.
//!
//! Neighbours: decoders return them, `encode` writes them into error messages. Threads: plain data.

use crate::Version;
use Place::{E, N, O, S, X};

/// Nicira's vendor number.
pub const NX_VENDOR: u32 = 0x2320;
/// The Open Networking Foundation's vendor number.
pub const ONF_VENDOR: u32 = 0x4f4e_4600;
/// Error type of vendor errors before OpenFlow 1.2.
const NXET_VENDOR: u16 = 0xb0c2;
/// Error type of experimenter errors.
const EXPERIMENTER: u16 = 0xffff;

/// How one version carries an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Not at all.
    N,
    /// Standard type and code.
    S(u16, u16),
    /// Nicira vendor error of OpenFlow 1.0 and 1.1: type and code.
    X(u16, u16),
    /// Nicira experimenter error.
    E(u16),
    /// ONF experimenter error.
    O(u16),
}

macro_rules! errors {
    ($($name:ident: [$a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr],)*) => {
        /// An error as OpenFlow names it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(missing_docs, non_camel_case_types, clippy::upper_case_acronyms)]
        pub enum OfError {
            $($name,)*
        }

        impl OfError {
            /// Every error.
            pub const ALL: &'static [OfError] = &[$(OfError::$name,)*];

            /// The name, for logs.
            pub fn name(self) -> &'static str {
                match self {
                    $(OfError::$name => stringify!($name),)*
                }
            }

            fn places(self) -> [Place; 6] {
                match self {
                    $(OfError::$name => [$a, $b, $c, $d, $e, $f],)*
                }
            }
        }
    };
}

impl std::fmt::Display for OfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for OfError {}

impl OfError {
    fn place(self, version: Version) -> Place {
        self.places()[usize::from(version.wire()) - 1]
    }

    /// Appends the content of an error message (what comes after the header): type, code and the whole
    /// request. An error that `version` cannot express is sent as NXBRC_UNENCODABLE_ERROR.
    pub fn encode_body(self, version: Version, request: &[u8], out: &mut Vec<u8>) {
        let mut put16 = |v: u16| out.extend_from_slice(&v.to_be_bytes());
        match self.place(version) {
            S(t, c) => {
                put16(t);
                put16(c);
            }
            X(t, c) => {
                put16(NXET_VENDOR);
                put16(0);
                out.extend_from_slice(&NX_VENDOR.to_be_bytes());
                out.extend_from_slice(&t.to_be_bytes());
                out.extend_from_slice(&c.to_be_bytes());
            }
            E(c) | O(c) => {
                let vendor = if matches!(self.place(version), O(_)) { ONF_VENDOR } else { NX_VENDOR };
                put16(EXPERIMENTER);
                put16(c);
                out.extend_from_slice(&vendor.to_be_bytes());
            }
            N => return OfError::NXBRC_UNENCODABLE_ERROR.encode_body(version, request, out),
        }
        out.extend_from_slice(request);
    }
}

errors! {
    OFPHFC_INCOMPATIBLE: [S(0, 0), S(0, 0), S(0, 0), S(0, 0), S(0, 0), S(0, 0)],
    OFPHFC_EPERM: [S(0, 1), S(0, 1), S(0, 1), S(0, 1), S(0, 1), S(0, 1)],
    OFPBRC_BAD_VERSION: [S(1, 0), S(1, 0), S(1, 0), S(1, 0), S(1, 0), S(1, 0)],
    OFPBRC_BAD_TYPE: [S(1, 1), S(1, 1), S(1, 1), S(1, 1), S(1, 1), S(1, 1)],
    OFPBRC_BAD_STAT: [S(1, 2), S(1, 2), S(1, 2), S(1, 2), S(1, 2), S(1, 2)],
    OFPBRC_BAD_VENDOR: [S(1, 3), S(1, 3), S(1, 3), S(1, 3), S(1, 3), S(1, 3)],
    OFPBRC_BAD_SUBTYPE: [S(1, 4), S(1, 4), S(1, 4), S(1, 4), S(1, 4), S(1, 4)],
    OFPBRC_EPERM: [S(1, 5), S(1, 5), S(1, 5), S(1, 5), S(1, 5), S(1, 5)],
    OFPBRC_BAD_LEN: [S(1, 6), S(1, 6), S(1, 6), S(1, 6), S(1, 6), S(1, 6)],
    OFPBRC_BUFFER_EMPTY: [S(1, 7), S(1, 7), S(1, 7), S(1, 7), S(1, 7), S(1, 7)],
    OFPBRC_BUFFER_UNKNOWN: [S(1, 8), S(1, 8), S(1, 8), S(1, 8), S(1, 8), S(1, 8)],
    OFPBAC_BAD_TYPE: [S(2, 0), S(2, 0), S(2, 0), S(2, 0), S(2, 0), S(2, 0)],
    OFPBAC_BAD_LEN: [S(2, 1), S(2, 1), S(2, 1), S(2, 1), S(2, 1), S(2, 1)],
    OFPBAC_BAD_VENDOR: [S(2, 2), S(2, 2), S(2, 2), S(2, 2), S(2, 2), S(2, 2)],
    OFPBAC_BAD_VENDOR_TYPE: [S(2, 3), S(2, 3), S(2, 3), S(2, 3), S(2, 3), S(2, 3)],
    OFPBAC_BAD_OUT_PORT: [S(2, 4), S(2, 4), S(2, 4), S(2, 4), S(2, 4), S(2, 4)],
    OFPBAC_BAD_ARGUMENT: [S(2, 5), S(2, 5), S(2, 5), S(2, 5), S(2, 5), S(2, 5)],
    OFPBAC_EPERM: [S(2, 6), S(2, 6), S(2, 6), S(2, 6), S(2, 6), S(2, 6)],
    OFPBAC_TOO_MANY: [S(2, 7), S(2, 7), S(2, 7), S(2, 7), S(2, 7), S(2, 7)],
    OFPBAC_BAD_QUEUE: [S(2, 8), S(2, 8), S(2, 8), S(2, 8), S(2, 8), S(2, 8)],
    OFPFMFC_TABLE_FULL: [S(3, 0), S(5, 1), S(5, 1), S(5, 1), S(5, 1), S(5, 1)],
    OFPFMFC_OVERLAP: [S(3, 1), S(5, 3), S(5, 3), S(5, 3), S(5, 3), S(5, 3)],
    OFPFMFC_EPERM: [S(3, 2), S(5, 4), S(5, 4), S(5, 4), S(5, 4), S(5, 4)],
    OFPFMFC_BAD_EMERG_TIMEOUT: [S(3, 3), N, N, N, N, N],
    OFPFMFC_BAD_COMMAND: [S(3, 4), S(5, 6), S(5, 6), S(5, 6), S(5, 6), S(5, 6)],
    OFPFMFC_UNSUPPORTED: [S(3, 5), N, N, N, N, N],
    OFPPMFC_BAD_PORT: [S(4, 0), S(7, 0), S(7, 0), S(7, 0), S(7, 0), S(7, 0)],
    OFPPMFC_BAD_HW_ADDR: [S(4, 1), S(7, 1), S(7, 1), S(7, 1), S(7, 1), S(7, 1)],
    OFPQOFC_BAD_PORT: [S(5, 0), S(9, 0), S(9, 0), S(9, 0), S(9, 0), S(9, 0)],
    OFPQOFC_BAD_QUEUE: [S(5, 1), S(9, 1), S(9, 1), S(9, 1), S(9, 1), S(9, 1)],
    OFPQOFC_EPERM: [S(5, 2), S(9, 2), S(9, 2), S(9, 2), S(9, 2), S(9, 2)],
    OFPBMC_BAD_FIELD: [X(0, 263), S(4, 6), S(4, 6), S(4, 6), S(4, 6), S(4, 6)],
    NXBRC_NXM_INVALID: [X(1, 256), X(1, 256), E(2), E(2), E(2), E(2)],
    NXBRC_NXM_BAD_TYPE: [X(1, 257), X(1, 257), E(3), E(3), E(3), E(3)],
    OFPBMC_BAD_VALUE: [X(1, 258), S(4, 7), S(4, 7), S(4, 7), S(4, 7), S(4, 7)],
    OFPBMC_BAD_MASK: [X(1, 259), X(1, 259), S(4, 8), S(4, 8), S(4, 8), S(4, 8)],
    OFPBMC_BAD_PREREQ: [X(1, 260), X(1, 260), S(4, 9), S(4, 9), S(4, 9), S(4, 9)],
    OFPBMC_DUP_FIELD: [X(1, 261), X(1, 261), S(4, 10), S(4, 10), S(4, 10), S(4, 10)],
    OFPBMC_BAD_WILDCARDS: [X(1, 262), S(4, 5), S(4, 5), S(4, 5), S(4, 5), S(4, 5)],
    NXBMC_CT_DATAPATH_SUPPORT: [X(1, 264), X(1, 264), E(43), E(43), E(43), E(43)],
    NXBAC_CT_DATAPATH_SUPPORT: [X(1, 265), X(1, 265), E(42), E(42), E(42), E(42)],
    OFPBRC_BAD_TABLE_ID: [X(1, 512), S(1, 9), S(1, 9), S(1, 9), S(1, 9), S(1, 9)],
    OFPRRFC_BAD_ROLE: [X(1, 513), X(1, 513), S(11, 2), S(11, 2), S(11, 2), S(11, 2)],
    OFPBRC_BAD_PORT: [X(1, 514), X(1, 514), S(1, 11), S(1, 11), S(1, 11), S(1, 11)],
    NXBRC_MUST_BE_ZERO: [X(1, 515), X(1, 515), E(4), E(4), E(4), E(4)],
    NXBRC_BAD_REASON: [X(1, 516), X(1, 516), E(5), E(5), E(5), E(5)],
    OFPMOFC_MONITOR_EXISTS: [X(1, 517), X(1, 517), E(6), E(6), S(16, 1), S(16, 1)],
    OFPMOFC_BAD_FLAGS: [X(1, 518), X(1, 518), E(7), E(7), S(16, 5), S(16, 5)],
    OFPMOFC_UNKNOWN_MONITOR: [X(1, 519), X(1, 519), E(8), E(8), S(16, 3), S(16, 3)],
    NXBRC_FM_BAD_EVENT: [X(1, 520), X(1, 520), E(9), E(9), E(9), E(9)],
    NXBRC_UNENCODABLE_ERROR: [X(1, 521), X(1, 521), E(10), E(10), E(10), E(10)],
    OFPBAC_MATCH_INCONSISTENT: [X(1, 522), S(2, 10), S(2, 10), S(2, 10), S(2, 10), S(2, 10)],
    OFPBAC_BAD_SET_TYPE: [X(1, 523), X(1, 523), S(2, 13), S(2, 13), S(2, 13), S(2, 13)],
    OFPBAC_BAD_SET_LEN: [X(1, 524), X(1, 524), S(2, 14), S(2, 14), S(2, 14), S(2, 14)],
    OFPBAC_BAD_SET_ARGUMENT: [X(1, 525), X(1, 525), S(2, 15), S(2, 15), S(2, 15), S(2, 15)],
    NXTTMFC_BAD_COMMAND: [X(1, 527), X(1, 527), E(16), E(16), E(16), E(16)],
    NXTTMFC_BAD_OPT_LEN: [X(1, 528), X(1, 528), E(17), E(17), E(17), E(17)],
    NXTTMFC_BAD_FIELD_IDX: [X(1, 529), X(1, 529), E(18), E(18), E(18), E(18)],
    NXTTMFC_TABLE_FULL: [X(1, 530), X(1, 530), E(19), E(19), E(19), E(19)],
    NXTTMFC_ALREADY_MAPPED: [X(1, 531), X(1, 531), E(20), E(20), E(20), E(20)],
    NXTTMFC_DUP_ENTRY: [X(1, 532), X(1, 532), E(21), E(21), E(21), E(21)],
    NXR_NOT_SUPPORTED: [X(1, 533), X(1, 533), E(34), E(34), E(34), E(34)],
    NXR_STALE: [X(1, 534), X(1, 534), E(35), E(35), E(35), E(35)],
    NXST_NOT_CONFIGURED: [X(1, 535), X(1, 535), E(36), E(36), E(36), E(36)],
    NXFMFC_INVALID_TLV_FIELD: [X(1, 536), X(1, 536), E(37), E(37), E(37), E(37)],
    NXTTMFC_INVALID_TLV_DEL: [X(1, 537), X(1, 537), E(38), E(38), E(38), E(38)],
    OFPBAC_BAD_OUT_GROUP: [X(2, 9), S(2, 9), S(2, 9), S(2, 9), S(2, 9), S(2, 9)],
    NXBAC_MUST_BE_ZERO: [X(2, 256), X(2, 256), E(11), E(11), E(11), E(11)],
    OFPBIC_UNSUP_INST: [X(2, 257), S(3, 1), S(3, 1), S(3, 1), S(3, 1), S(3, 1)],
    NXBAC_BAD_CONJUNCTION: [X(2, 526), X(2, 526), E(15), E(15), E(15), E(15)],
    OFPFMFC_BAD_FLAGS: [X(3, 258), X(5, 258), S(5, 7), S(5, 7), S(5, 7), S(5, 7)],
    NXFMFC_HARDWARE: [X(5, 256), X(5, 256), E(12), E(12), E(12), E(12)],
    NXFMFC_BAD_TABLE_ID: [X(5, 257), X(5, 257), E(13), E(13), E(13), E(13)],
    OFPGMFC_GROUP_EXISTS: [X(6, 0), S(6, 0), S(6, 0), S(6, 0), S(6, 0), S(6, 0)],
    OFPGMFC_INVALID_GROUP: [X(6, 1), S(6, 1), S(6, 1), S(6, 1), S(6, 1), S(6, 1)],
    OFPGMFC_WEIGHT_UNSUPPORTED: [X(6, 2), S(6, 2), S(6, 2), S(6, 2), S(6, 2), S(6, 2)],
    OFPGMFC_OUT_OF_GROUPS: [X(6, 3), S(6, 3), S(6, 3), S(6, 3), S(6, 3), S(6, 3)],
    OFPGMFC_OUT_OF_BUCKETS: [X(6, 4), S(6, 4), S(6, 4), S(6, 4), S(6, 4), S(6, 4)],
    OFPGMFC_CHAINING_UNSUPPORTED: [X(6, 5), S(6, 5), S(6, 5), S(6, 5), S(6, 5), S(6, 5)],
    OFPGMFC_WATCH_UNSUPPORTED: [X(6, 6), S(6, 6), S(6, 6), S(6, 6), S(6, 6), S(6, 6)],
    OFPGMFC_LOOP: [X(6, 7), S(6, 7), S(6, 7), S(6, 7), S(6, 7), S(6, 7)],
    OFPGMFC_UNKNOWN_GROUP: [X(6, 8), S(6, 8), S(6, 8), S(6, 8), S(6, 8), S(6, 8)],
    OFPGMFC_CHAINED_GROUP: [X(6, 9), N, S(6, 9), S(6, 9), S(6, 9), S(6, 9)],
    OFPGMFC_BAD_TYPE: [X(6, 10), N, S(6, 10), S(6, 10), S(6, 10), S(6, 10)],
    OFPGMFC_BAD_COMMAND: [X(6, 11), N, S(6, 11), S(6, 11), S(6, 11), S(6, 11)],
    OFPGMFC_BAD_BUCKET: [X(6, 12), N, S(6, 12), S(6, 12), S(6, 12), S(6, 12)],
    OFPGMFC_BAD_WATCH: [X(6, 13), N, S(6, 13), S(6, 13), S(6, 13), S(6, 13)],
    OFPGMFC_EPERM: [X(6, 14), N, S(6, 14), S(6, 14), S(6, 14), S(6, 14)],
    OFPGMFC_UNKNOWN_BUCKET: [X(6, 15), N, N, N, N, S(6, 15)],
    OFPGMFC_BUCKET_EXISTS: [X(6, 16), N, N, N, N, S(6, 16)],
    OFPBAC_UNSUPPORTED_ORDER: [N, S(2, 11), S(2, 11), S(2, 11), S(2, 11), S(2, 11)],
    OFPBAC_BAD_TAG: [N, S(2, 12), S(2, 12), S(2, 12), S(2, 12), S(2, 12)],
    OFPBIC_UNKNOWN_INST: [N, S(3, 0), S(3, 0), S(3, 0), S(3, 0), S(3, 0)],
    OFPBIC_BAD_TABLE_ID: [N, S(3, 2), S(3, 2), S(3, 2), S(3, 2), S(3, 2)],
    OFPBIC_UNSUP_METADATA: [N, S(3, 3), S(3, 3), S(3, 3), S(3, 3), S(3, 3)],
    OFPBIC_UNSUP_METADATA_MASK: [N, S(3, 4), S(3, 4), S(3, 4), S(3, 4), S(3, 4)],
    OFPBIC_BAD_EXPERIMENTER: [N, S(3, 5), S(3, 5), S(3, 5), S(3, 5), S(3, 5)],
    OFPBMC_BAD_TYPE: [N, S(4, 0), S(4, 0), S(4, 0), S(4, 0), S(4, 0)],
    OFPBMC_BAD_LEN: [N, S(4, 1), S(4, 1), S(4, 1), S(4, 1), S(4, 1)],
    OFPBMC_BAD_TAG: [N, S(4, 2), S(4, 2), S(4, 2), S(4, 2), S(4, 2)],
    OFPBMC_BAD_DL_ADDR_MASK: [N, S(4, 3), S(4, 3), S(4, 3), S(4, 3), S(4, 3)],
    OFPBMC_BAD_NW_ADDR_MASK: [N, S(4, 4), S(4, 4), S(4, 4), S(4, 4), S(4, 4)],
    OFPFMFC_UNKNOWN: [N, S(5, 0), S(5, 0), S(5, 0), S(5, 0), S(5, 0)],
    OFPFMFC_BAD_TABLE_ID: [N, S(5, 2), S(5, 2), S(5, 2), S(5, 2), S(5, 2)],
    OFPFMFC_BAD_TIMEOUT: [N, S(5, 5), S(5, 5), S(5, 5), S(5, 5), S(5, 5)],
    OFPPMFC_BAD_CONFIG: [N, S(7, 2), S(7, 2), S(7, 2), S(7, 2), S(7, 2)],
    OFPPMFC_BAD_ADVERTISE: [N, S(7, 3), S(7, 3), S(7, 3), S(7, 3), S(7, 3)],
    OFPTMFC_BAD_TABLE: [N, S(8, 0), S(8, 0), S(8, 0), S(8, 0), S(8, 0)],
    OFPTMFC_BAD_CONFIG: [N, S(8, 1), S(8, 1), S(8, 1), S(8, 1), S(8, 1)],
    OFPSCFC_BAD_FLAGS: [N, S(10, 0), S(10, 0), S(10, 0), S(10, 0), S(10, 0)],
    OFPSCFC_BAD_LEN: [N, S(10, 1), S(10, 1), S(10, 1), S(10, 1), S(10, 1)],
    OFPBIC_DUP_INST: [N, X(3, 256), O(2600), O(2600), S(3, 9), S(3, 9)],
    OFPBRC_IS_SECONDARY: [N, N, S(1, 10), S(1, 10), S(1, 10), S(1, 10)],
    OFPBRC_BAD_PACKET: [N, N, S(1, 12), S(1, 12), S(1, 12), S(1, 12)],
    OFPBIC_BAD_EXP_TYPE: [N, N, S(3, 6), S(3, 6), S(3, 6), S(3, 6)],
    OFPBIC_BAD_LEN: [N, N, S(3, 7), S(3, 7), S(3, 7), S(3, 7)],
    OFPBIC_EPERM: [N, N, S(3, 8), S(3, 8), S(3, 8), S(3, 8)],
    OFPBMC_EPERM: [N, N, S(4, 11), S(4, 11), S(4, 11), S(4, 11)],
    OFPPMFC_EPERM: [N, N, S(7, 4), S(7, 4), S(7, 4), S(7, 4)],
    OFPTMFC_EPERM: [N, N, S(8, 2), S(8, 2), S(8, 2), S(8, 2)],
    OFPSCFC_EPERM: [N, N, S(10, 2), S(10, 2), S(10, 2), S(10, 2)],
    OFPRRFC_STALE: [N, N, S(11, 0), S(11, 0), S(11, 0), S(11, 0)],
    OFPRRFC_UNSUP: [N, N, S(11, 1), S(11, 1), S(11, 1), S(11, 1)],
    OFPBPC_BAD_TYPE: [N, N, E(25), S(13, 2), S(14, 0), S(14, 0)],
    OFPBPC_BAD_LEN: [N, N, E(26), S(13, 3), S(14, 1), S(14, 1)],
    OFPBPC_BAD_VALUE: [N, N, E(27), S(13, 4), S(14, 2), S(14, 2)],
    OFPBPC_TOO_MANY: [N, N, E(28), N, S(14, 3), S(14, 3)],
    OFPBPC_BAD_EXPERIMENTER: [N, N, E(30), N, S(14, 5), S(14, 5)],
    OFPBPC_BAD_EXP_TYPE: [N, N, E(31), N, S(14, 6), S(14, 6)],
    OFPBPC_BAD_EXP_VALUE: [N, N, E(32), N, S(14, 7), S(14, 7)],
    OFPBPC_EPERM: [N, N, E(33), N, S(14, 8), S(14, 8)],
    OFPBRC_MULTIPART_BUFFER_OVERFLOW: [N, N, N, S(1, 13), S(1, 13), S(1, 13)],
    OFPMMFC_UNKNOWN: [N, N, N, S(12, 0), S(12, 0), S(12, 0)],
    OFPMMFC_METER_EXISTS: [N, N, N, S(12, 1), S(12, 1), S(12, 1)],
    OFPMMFC_INVALID_METER: [N, N, N, S(12, 2), S(12, 2), S(12, 2)],
    OFPMMFC_UNKNOWN_METER: [N, N, N, S(12, 3), S(12, 3), S(12, 3)],
    OFPMMFC_BAD_COMMAND: [N, N, N, S(12, 4), S(12, 4), S(12, 4)],
    OFPMMFC_BAD_FLAGS: [N, N, N, S(12, 5), S(12, 5), S(12, 5)],
    OFPMMFC_BAD_RATE: [N, N, N, S(12, 6), S(12, 6), S(12, 6)],
    OFPMMFC_BAD_BURST: [N, N, N, S(12, 7), S(12, 7), S(12, 7)],
    OFPMMFC_BAD_BAND: [N, N, N, S(12, 8), S(12, 8), S(12, 8)],
    OFPMMFC_BAD_BAND_VALUE: [N, N, N, S(12, 9), S(12, 9), S(12, 9)],
    OFPMMFC_OUT_OF_METERS: [N, N, N, S(12, 10), S(12, 10), S(12, 10)],
    OFPMMFC_OUT_OF_BANDS: [N, N, N, S(12, 11), S(12, 11), S(12, 11)],
    OFPTFFC_BAD_TABLE: [N, N, N, S(13, 0), S(13, 0), S(13, 0)],
    OFPTFFC_BAD_METADATA: [N, N, N, S(13, 1), S(13, 1), S(13, 1)],
    OFPTFFC_EPERM: [N, N, N, S(13, 5), S(13, 5), S(13, 5)],
    NXBAC_BAD_HEADER_TYPE: [N, N, N, E(39), E(39), E(39)],
    NXBAC_UNKNOWN_ED_PROP: [N, N, N, E(40), E(40), E(40)],
    NXBAC_BAD_ED_PROP: [N, N, N, E(41), E(41), E(41)],
    NXTFFC_DUP_TABLE: [N, N, N, E(44), E(44), E(44)],
    OFPBFC_UNKNOWN: [N, N, N, O(2300), S(17, 0), S(17, 0)],
    OFPBFC_EPERM: [N, N, N, O(2301), S(17, 1), S(17, 1)],
    OFPBFC_BAD_ID: [N, N, N, O(2302), S(17, 2), S(17, 2)],
    OFPBFC_BUNDLE_EXIST: [N, N, N, O(2303), S(17, 3), S(17, 3)],
    OFPBFC_BUNDLE_CLOSED: [N, N, N, O(2304), S(17, 4), S(17, 4)],
    OFPBFC_OUT_OF_BUNDLES: [N, N, N, O(2305), S(17, 5), S(17, 5)],
    OFPBFC_BAD_TYPE: [N, N, N, O(2306), S(17, 6), S(17, 6)],
    OFPBFC_BAD_FLAGS: [N, N, N, O(2307), S(17, 7), S(17, 7)],
    OFPBFC_MSG_BAD_LEN: [N, N, N, O(2308), S(17, 8), S(17, 8)],
    OFPBFC_MSG_BAD_XID: [N, N, N, O(2309), S(17, 9), S(17, 9)],
    OFPBFC_MSG_UNSUP: [N, N, N, O(2310), S(17, 10), S(17, 10)],
    OFPBFC_MSG_CONFLICT: [N, N, N, O(2311), S(17, 11), S(17, 11)],
    OFPBFC_MSG_TOO_MANY: [N, N, N, O(2312), S(17, 12), S(17, 12)],
    OFPBFC_MSG_FAILED: [N, N, N, O(2313), S(17, 13), S(17, 13)],
    OFPBFC_TIMEOUT: [N, N, N, O(2314), S(17, 14), S(17, 14)],
    OFPBFC_BUNDLE_IN_PROGRESS: [N, N, N, O(2315), S(17, 15), S(17, 15)],
    OFPFMFC_BAD_PRIORITY: [N, N, N, O(2360), S(5, 9), S(5, 9)],
    OFPACFC_INVALID: [N, N, N, O(2370), S(15, 0), S(15, 0)],
    OFPACFC_UNSUPPORTED: [N, N, N, O(2371), S(15, 1), S(15, 1)],
    OFPACFC_EPERM: [N, N, N, O(2372), S(15, 2), S(15, 2)],
    OFPBRC_MULTIPART_REQUEST_TIMEOUT: [N, N, N, O(2640), S(1, 14), S(1, 14)],
    OFPBRC_MULTIPART_REPLY_TIMEOUT: [N, N, N, O(2641), S(1, 15), S(1, 15)],
    OFPFMFC_CANT_SYNC: [N, N, N, N, S(5, 8), S(5, 8)],
    OFPFMFC_IS_SYNC: [N, N, N, N, S(5, 10), S(5, 10)],
    OFPBPC_DUP_TYPE: [N, N, N, N, S(14, 4), S(14, 4)],
    OFPMOFC_UNKNOWN: [N, N, N, N, S(16, 0), S(16, 0)],
    OFPMOFC_INVALID_MONITOR: [N, N, N, N, S(16, 2), S(16, 2)],
    OFPMOFC_BAD_COMMAND: [N, N, N, N, S(16, 4), S(16, 4)],
    OFPMOFC_BAD_TABLE_ID: [N, N, N, N, S(16, 6), S(16, 6)],
    OFPMOFC_BAD_OUT: [N, N, N, N, S(16, 7), S(16, 7)],
    OFPBFC_BAD_VERSION: [N, N, N, N, E(22), E(22)],
    NXQOFC_QUEUE_ERROR: [N, N, N, N, E(23), E(23)],
    OFPBRC_MULTIPART_BAD_SCHED: [N, N, N, N, N, S(1, 16)],
    OFPBRC_PIPELINE_FIELDS_ONLY: [N, N, N, N, N, S(1, 17)],
    OFPBRC_UNKNOWN: [N, N, N, N, N, S(1, 18)],
    OFPBAC_BAD_SET_MASK: [N, N, N, N, N, S(2, 16)],
    OFPBAC_BAD_METER: [N, N, N, N, N, S(2, 17)],
    OFPRRFC_ID_UNSUP: [N, N, N, N, N, S(11, 3)],
    OFPRRFC_ID_IN_USE: [N, N, N, N, N, S(11, 4)],
    OFPTFFC_BAD_CAPA: [N, N, N, N, N, S(13, 6)],
    OFPTFFC_BAD_MAX_ENT: [N, N, N, N, N, S(13, 7)],
    OFPTFFC_BAD_FEATURES: [N, N, N, N, N, S(13, 8)],
    OFPTFFC_BAD_COMMAND: [N, N, N, N, N, S(13, 9)],
    OFPTFFC_TOO_MANY: [N, N, N, N, N, S(13, 10)],
    OFPBFC_SCHED_NOT_SUPPORTED: [N, N, N, N, N, S(17, 16)],
    OFPBFC_SCHED_FUTURE: [N, N, N, N, N, S(17, 17)],
    OFPBFC_SCHED_PAST: [N, N, N, N, N, S(17, 18)],
}

//! Flow keys, masks, fields, datapath keys and actions with their text.
//!
//! Neighbours: everything above speaks of packets in these types. Threads: plain data.

#![forbid(unsafe_code)]

pub mod action;
pub mod be;
pub mod compose;
pub mod extract;
pub mod field;
pub mod hash;
pub mod key;
pub mod matching;
pub mod odp;
pub mod port;
mod text;

pub use action::{DpAction, DpActions, SetField, UserspaceCookie};
pub use be::{Be16, Be32, Be64};
pub use compose::compose;
pub use extract::{extract, extract_flow, Offsets, PktMetadata};
pub use field::{Field, SubField};
pub use hash::{hash_5tuple, HashFields};
pub use key::{Flow, Mask, Miniflow, Vlan, FLOW_WORDS, PKT_WORDS};
pub use matching::Match;
pub use odp::{FlowStats, Ufid};
pub use port::{DpPort, OfPort, RecircId};
pub use text::Mac;

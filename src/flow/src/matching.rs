//! [`Match`]: a flow and the mask of its significant bits.

use crate::key::{Flow, Mask};

mod format;
pub mod parse;
#[cfg(test)]
mod tests;

pub use format::OfPortNames;
pub use parse::{ParseError, PortNumbers};

/// What an OpenFlow rule matches. Bits outside the mask are zero in `flow`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Match {
    /// Values, zero outside the mask.
    pub flow: Flow,
    /// Significant bits.
    pub mask: Mask,
}

impl Match {
    /// Matches every packet.
    pub fn any() -> Match {
        Match::default()
    }

    /// Whether a packet with `flow` is matched.
    pub fn covers(&self, flow: &Flow) -> bool {
        self.flow.matches(flow, &self.mask)
    }
}

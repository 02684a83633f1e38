//! OpenFlow 1.0-1.5 codec with Nicira and ONF extensions: messages, matches, actions, their text; sessions without
//! sockets.

#![forbid(unsafe_code)]

pub mod action;
pub mod error;
pub mod frame;
pub mod message;
pub mod version;

pub use action::Action;
pub use error::OfError;
pub use frame::{Decoder, Frame, FrameError, Header};
pub use message::*;
pub use version::{Version, VersionSet};

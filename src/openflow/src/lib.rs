//! OpenFlow 1.0-1.5 codec with Nicira and ONF extensions: messages, matches, actions, their text; sessions without
//! sockets.
//!
//! A connection feeds bytes to a [`Decoder`], takes [`Frame`]s, settles the version with [`decode_hello`], turns
//! frames into [`Request`]s with [`decode`], and writes [`Reply`]s with [`encode`]. Errors are [`OfError`]s that
//! [`encode_error`] sends.

#![forbid(unsafe_code)]

pub mod action;
mod action_check;
mod action_decode;
mod action_encode;
mod action_nx;
mod action_parse;
mod action_text;
mod continuation;
mod decode;
mod encode;
pub mod error;
mod flow_mod;
mod flow_stats;
pub mod frame;
mod instruction;
mod match_of10;
mod match_oxm;
pub mod message;
mod multipart;
mod multipart_request;
mod oxm;
mod packet_in;
mod port;
mod table;
#[cfg(test)]
mod tests;
pub mod version;
mod wire;

pub use action::Action;
pub use action_check::{check_actions, check_packet_out};
pub use action_parse::{parse_actions, ActionParseError};
pub use action_text::{format_actions, format_actions_named, reason_name, subfield_name};
pub use continuation::{Continuation, ContinuationFrame, Resume};
pub use decode::{decode, decode_hello};
pub use encode::{encode, encode_error, encode_hello_failed};
pub use error::OfError;
pub use flow_stats::FlowStatsWriter;
pub use frame::{Decoder, Frame, FrameError, Header};
pub use message::*;
pub use version::{Version, VersionSet};

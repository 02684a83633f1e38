//! OpenFlow 1.0-1.5 codec with Nicira and ONF extensions: messages, matches, actions, their text; sessions without
//! sockets.

#![forbid(unsafe_code)]

pub mod action;

pub use action::Action;

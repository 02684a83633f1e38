//! Database rows to typed wanted state to ofproto and datapath, and status back.

#![forbid(unsafe_code)]

mod backer;
mod class;
pub mod coverage;
pub mod dpctl;
pub mod features;
pub mod host;
pub mod manager;
mod ports;
mod publish;
pub mod schema;
mod settings;
pub mod show;
pub mod show_pmd;
pub mod state;
mod status;
pub mod sweeps;
pub mod trace;
pub mod wanted;

pub use backer::Backer;
pub use class::DatapathClass;
pub use manager::{Deps, DeviceLibrary, Manager};
pub use status::ControllerStatus;

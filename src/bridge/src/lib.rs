//! Database rows to typed wanted state to ofproto and datapath, and status back.

#![forbid(unsafe_code)]

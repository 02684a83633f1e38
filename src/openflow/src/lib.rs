//! OpenFlow 1.0-1.5 codec with Nicira and ONF extensions.

#![forbid(unsafe_code)]

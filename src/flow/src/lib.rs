//! Flow keys, masks, fields, datapath keys and actions with their text.

#![forbid(unsafe_code)]

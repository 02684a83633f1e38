//! OpenFlow tables, translation, upcalls, revalidation, MAC learning.

#![forbid(unsafe_code)]

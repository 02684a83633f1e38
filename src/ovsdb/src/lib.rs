//! OVSDB client (RFC 7047) as state machines: bytes in and out, no sockets.

#![forbid(unsafe_code)]

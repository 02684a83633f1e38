//! Framing: a byte stream cut into messages by their header.
//!
//! Neighbours: `ofproto` feeds what it read from a socket and hands each [`Frame`] to [`crate::decode`].
//! Threads: one decoder a connection.

use thiserror::Error;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;

/// The header of every OpenFlow message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Header {
    /// Version byte as it came.
    pub version: u8,
    pub kind: u8,
    pub length: u16,
    pub xid: u32,
}

impl Header {
    /// Reads the first eight bytes.
    pub fn parse(b: &[u8]) -> Option<Header> {
        let h: &[u8; HEADER_LEN] = b.get(..HEADER_LEN)?.try_into().ok()?;
        Some(Header {
            version: h[0],
            kind: h[1],
            length: u16::from_be_bytes([h[2], h[3]]),
            xid: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        })
    }
}

impl Header {
    /// The message's name as logs print it.
    pub fn name(&self) -> &'static str {
        const COMMON: [&str; 15] = [
            "OFPT_HELLO",
            "OFPT_ERROR",
            "OFPT_ECHO_REQUEST",
            "OFPT_ECHO_REPLY",
            "OFPT_VENDOR",
            "OFPT_FEATURES_REQUEST",
            "OFPT_FEATURES_REPLY",
            "OFPT_GET_CONFIG_REQUEST",
            "OFPT_GET_CONFIG_REPLY",
            "OFPT_SET_CONFIG",
            "OFPT_PACKET_IN",
            "OFPT_FLOW_REMOVED",
            "OFPT_PORT_STATUS",
            "OFPT_PACKET_OUT",
            "OFPT_FLOW_MOD",
        ];
        let kind = usize::from(self.kind);
        match (self.version, self.kind) {
            _ if kind < COMMON.len() => COMMON[kind],
            (1, 15) | (2.., 16) => "OFPT_PORT_MOD",
            (1, 16) | (2.., 18) => "OFPST request",
            (1, 18) | (2.., 20) => "OFPT_BARRIER_REQUEST",
            (1, 20) | (2.., 22) => "OFPT_QUEUE_GET_CONFIG_REQUEST",
            (_, 15) => "OFPT_GROUP_MOD",
            (_, 17) => "OFPT_TABLE_MOD",
            (_, 24) => "OFPT_ROLE_REQUEST",
            (_, 26) => "OFPT_GET_ASYNC_REQUEST",
            (_, 28) => "OFPT_SET_ASYNC",
            (_, 29) => "OFPT_METER_MOD",
            (_, 33) => "OFPT_BUNDLE_CONTROL",
            (_, 34) => "OFPT_BUNDLE_ADD_MESSAGE",
            _ => "unknown",
        }
    }
}

/// One whole message, header included.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Frame {
    pub header: Header,
    pub data: Box<[u8]>,
}

impl Frame {
    /// The message's name as logs print it; that of a multipart request tells what it asks for.
    pub fn name(&self) -> &'static str {
        const MULTIPART: [&str; 16] = [
            "OFPST_DESC request",
            "OFPST_FLOW request",
            "OFPST_AGGREGATE request",
            "OFPST_TABLE request",
            "OFPST_PORT request",
            "OFPST_QUEUE request",
            "OFPST_GROUP request",
            "OFPST_GROUP_DESC request",
            "OFPST_GROUP_FEATURES request",
            "OFPST_METER request",
            "OFPST_METER_CONFIG request",
            "OFPST_METER_FEATURES request",
            "OFPST_TABLE_FEATURES request",
            "OFPST_PORT_DESC request",
            "OFPST_TABLE_DESC request",
            "OFPST_QUEUE_DESC request",
        ];
        let name = self.header.name();
        match self.data.get(HEADER_LEN..HEADER_LEN + 2) {
            Some(&[high, low]) if name == "OFPST request" => {
                MULTIPART.get(usize::from(u16::from_be_bytes([high, low]))).copied().unwrap_or(name)
            }
            _ => name,
        }
    }
}

/// The stream makes no sense any more: the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// A length below that of the header.
    #[error("received too-short ofp_header ({0} bytes)")]
    TooShort(u16),
}

/// Cuts a byte stream into messages. Holds at most one partial message beside what was fed at once.
#[derive(Default, Debug)]
pub struct Decoder {
    buf: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// An empty stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds bytes that arrived. Take all frames out before feeding more: that bounds the memory.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes not yet taken out.
    pub fn pending(&self) -> usize {
        self.buf.len() - self.at
    }

    /// The next whole message; `None` until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buf[self.at..];
        let Some(header) = Header::parse(rest) else { return Ok(None) };
        let len = usize::from(header.length);
        if len < HEADER_LEN {
            return Err(FrameError::TooShort(header.length));
        }
        let Some(data) = rest.get(..len) else { return Ok(None) };
        let data = data.into();
        self.at += len;
        Ok(Some(Frame { header, data }))
    }
}

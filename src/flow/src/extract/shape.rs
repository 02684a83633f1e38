//! Kinds of frames whose key is the frame's bytes in another order: what a vector instruction does at once.
//!
//! Neighbours: `datapath::vector` runs over these tables; [`super::extract`] gives the same keys for all frames.

use super::{W_ETH, W_FLAGS, W_IP, W_NW, W_TP, W_VLAN};

/// Bytes of a frame that a shape looks at, and bytes of the key that it makes.
pub const SPAN: usize = 64;

const ETH: usize = 14;
const TAG: usize = 4;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Ethernet, perhaps an 802.1Q tag, IPv4 without options and fragments, UDP or TCP.
pub struct Shape {
    /// Bits of the frame's first bytes that tell the shape.
    pub look: [u8; SPAN],
    /// What they are.
    pub want: [u8; SPAN],
    /// Each byte of the key's words behind the metadata: which byte of the frame it is.
    pub from: [u8; SPAN],
    /// Which of its bits count.
    pub keep: [u8; SPAN],
    /// Bits that are set besides.
    pub set: [u8; SPAN],
    /// The words that are there.
    pub map: u64,
    /// Where the IP header starts.
    ip: usize,
    tcp: bool,
}

impl Shape {
    const fn new(tagged: bool, tcp: bool) -> Shape {
        let ip = if tagged { ETH + TAG } else { ETH };
        let l4 = ip + 20;
        let mut map = W_ETH | W_NW | W_IP | W_TP;
        let z = [0; SPAN];
        let mut s = Shape { look: z, want: z, from: z, keep: z, set: z, map, ip, tcp };
        s = s.tell(ip - 2, 0xff, 0x08).tell(ip - 1, 0xff, 0x00).tell(ip, 0xff, 0x45);
        s = s.tell(ip + 6, 0x3f, 0).tell(ip + 7, 0xff, 0).tell(ip + 9, 0xff, if tcp { TCP } else { UDP });
        s = s.copy(0, 0, 12).copy(12, ip - 2, 2);
        let mut to = 16;
        if tagged {
            map |= W_VLAN;
            s = s.tell(12, 0xff, 0x81).tell(13, 0xff, 0x00).copy(to, 12, 4);
            // The bit of the TCI that says "there is a tag".
            s.set[to + 2] = 0x10;
            to += 8;
        }
        s = s.copy(to, ip + 12, 8).copy(to + 13, ip + 1, 1).copy(to + 14, ip + 8, 2);
        to += 16;
        if tcp {
            map |= W_FLAGS;
            s = s.copy(to + 4, l4 + 12, 2);
            s.keep[to + 4] = 0x0f;
            to += 8;
        }
        s.map = map;
        s.copy(to, l4, 4)
    }

    const fn tell(mut self, at: usize, look: u8, want: u8) -> Shape {
        self.look[at] = look;
        self.want[at] = want;
        self
    }

    const fn copy(mut self, to: usize, from: usize, n: usize) -> Shape {
        let mut i = 0;
        while i < n {
            self.from[to + i] = (from + i) as u8;
            self.keep[to + i] = 0xff;
            i += 1;
        }
        self
    }

    /// The only shape that `frame` can have, if it is as long as its headers say. Tags count when they are looked
    /// into (`vlan_limit`).
    #[inline(always)]
    pub fn of(frame: &[u8], vlan_limit: u8) -> Option<&'static Shape> {
        let b = frame.first_chunk::<42>()?;
        let tagged = b[12] == 0x81;
        let proto = b[if tagged { ETH + TAG + 9 } else { ETH + 9 }];
        let shape = &SHAPES[usize::from(tagged) * 2 + usize::from(proto == TCP)];
        let total = usize::from(u16::from_be_bytes([b[shape.ip + 2], b[shape.ip + 3]]));
        let header = if shape.tcp { usize::from(frame.get(shape.ip + 32)? >> 4) * 4 } else { 8 };
        let least = if shape.tcp { 20 } else { 8 };
        let fits = header >= least && 20 + header <= total && shape.ip + total <= frame.len();
        (fits && (!tagged || vlan_limit > 0)).then_some(shape)
    }
}

static SHAPES: [Shape; 4] =
    [Shape::new(false, false), Shape::new(false, true), Shape::new(true, false), Shape::new(true, true)];

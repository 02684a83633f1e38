//! Integers kept in network byte order, so that headers are copied and compared without swapping.

use bytemuck::{Pod, Zeroable};

macro_rules! be {
    ($name:ident, $int:ty, $bytes:literal) => {
        #[doc = concat!("A `", stringify!($int), "` in network byte order.")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name($int);

        impl $name {
            /// All bits zero.
            pub const ZERO: $name = $name(0);
            /// All bits one.
            pub const MAX: $name = $name(<$int>::MAX);
            /// From a host value.
            #[inline(always)]
            pub const fn new(host: $int) -> $name {
                $name(host.to_be())
            }
            /// The host value.
            #[inline(always)]
            pub const fn get(self) -> $int {
                <$int>::from_be(self.0)
            }
            /// From bytes as on the wire.
            #[inline(always)]
            pub const fn from_bytes(b: [u8; $bytes]) -> $name {
                $name(<$int>::from_ne_bytes(b))
            }
            /// The bytes as on the wire.
            #[inline(always)]
            pub const fn bytes(self) -> [u8; $bytes] {
                self.0.to_ne_bytes()
            }
            /// The integer as it lies in memory.
            #[inline(always)]
            pub const fn raw(self) -> $int {
                self.0
            }
            /// Whether all bits are zero.
            #[inline(always)]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl std::ops::BitAnd for $name {
            type Output = $name;
            #[inline(always)]
            fn bitand(self, o: $name) -> $name {
                $name(self.0 & o.0)
            }
        }
        impl std::ops::BitOr for $name {
            type Output = $name;
            #[inline(always)]
            fn bitor(self, o: $name) -> $name {
                $name(self.0 | o.0)
            }
        }
        impl std::ops::BitXor for $name {
            type Output = $name;
            #[inline(always)]
            fn bitxor(self, o: $name) -> $name {
                $name(self.0 ^ o.0)
            }
        }
        impl std::ops::BitOrAssign for $name {
            #[inline(always)]
            fn bitor_assign(&mut self, o: $name) {
                self.0 |= o.0;
            }
        }
        impl std::ops::BitAndAssign for $name {
            #[inline(always)]
            fn bitand_assign(&mut self, o: $name) {
                self.0 &= o.0;
            }
        }
        impl std::ops::Not for $name {
            type Output = $name;
            #[inline(always)]
            fn not(self) -> $name {
                $name(!self.0)
            }
        }
        impl From<$int> for $name {
            fn from(host: $int) -> $name {
                $name::new(host)
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, o: &$name) -> Option<std::cmp::Ordering> {
                Some(self.cmp(o))
            }
        }
        impl Ord for $name {
            fn cmp(&self, o: &$name) -> std::cmp::Ordering {
                self.get().cmp(&o.get())
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:#x}", self.get())
            }
        }
    };
}

be!(Be16, u16, 2);
be!(Be32, u32, 4);
be!(Be64, u64, 8);

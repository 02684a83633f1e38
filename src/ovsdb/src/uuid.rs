//! Row identifiers.
//!
//! Neighbours: atoms in [`crate::datum`], row keys in [`crate::replica`].
//! Threads: plain values.

use std::fmt;
use std::str::FromStr;

/// The UUID of a row, in its usual byte order: it sorts like its text.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// A text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID in the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")]
pub struct UuidError(pub String);

impl Uuid {
    /// The all-zero UUID, the default value of a UUID column.
    pub const ZERO: Uuid = Uuid(0);

    /// True for the default value that stands for "no row".
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Uuid, UuidError> {
        let refuse = || UuidError(text.chars().take(64).collect());
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(refuse());
        }
        let mut value: u128 = 0;
        for (i, &b) in bytes.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if b != b'-' {
                    return Err(refuse());
                }
                continue;
            }
            let digit = (b as char).to_digit(16).ok_or_else(refuse)?;
            value = value << 4 | u128::from(digit);
        }
        Ok(Uuid(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_uuid() {
        for bad in [
            "",
            "550e8400-e29b-41d4-a716-44665544000",
            "550e8400-e29b-41d4-a716-4466554400000",
            "550e8400+e29b-41d4-a716-446655440000",
            "550e8400-e29b-41d4-a716-44665544000g",
            "550e8400-e29b-41d4-a716-4466554400é",
        ] {
            assert!(bad.parse::<Uuid>().is_err(), "{bad}");
        }
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
    }

    proptest! {
        #[test]
        fn text_round_trip(v: u128) {
            prop_assert_eq!(Uuid(v).to_string().parse::<Uuid>().unwrap(), Uuid(v));
        }
    }
}

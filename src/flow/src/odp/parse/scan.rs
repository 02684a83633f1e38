//! Pieces of the text of keys and actions: numbers, addresses, flags, each with an optional mask.
//!
//! Every function takes what it can read from the front and returns `None` otherwise; the caller reports the
//! attribute that failed. Neighbours: `attr`, `action`. Threads: plain data.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The rest of a text.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub rest: &'a str,
    /// Whether `/mask` is read.
    pub masks: bool,
}

/// Characters between attributes.
pub(super) const DELIMITERS: [char; 5] = [',', ' ', '\t', '\r', '\n'];

impl<'a> Scan<'a> {
    pub fn new(rest: &'a str, masks: bool) -> Scan<'a> {
        Scan { rest, masks }
    }

    pub fn skip_delimiters(&mut self) {
        self.rest = self.rest.trim_start_matches(DELIMITERS);
    }

    /// Takes `word` from the front.
    pub fn eat(&mut self, word: &str) -> bool {
        match self.rest.strip_prefix(word) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub fn need(&mut self, word: &str) -> Option<()> {
        self.eat(word).then_some(())
    }

    /// The longest front of characters that `of` accepts, at least one.
    pub fn run(&mut self, of: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.rest.find(|c| !of(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    /// A number: hexadecimal after 0x, octal after 0, else decimal.
    pub fn number(&mut self) -> Option<u128> {
        let hex = ["0x", "0X"].iter().any(|p| self.rest.starts_with(p));
        if hex {
            let digits = &self.rest[2..];
            let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let v = u128::from_str_radix(&digits[..end], 16).ok()?;
            self.rest = &digits[end..];
            return Some(v);
        }
        let word = self.run(|c| c.is_ascii_digit())?;
        match word.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => u128::from_str_radix(octal, 8).ok(),
            _ => word.parse().ok(),
        }
    }

    /// A decimal number with a sign perhaps, cut to 32 bits.
    pub fn decimal(&mut self) -> Option<u32> {
        let negative = self.eat("-");
        let v = self.run(|c| c.is_ascii_digit())?.parse::<u128>().ok()? as u32;
        Some(if negative { v.wrapping_neg() } else { v })
    }

    /// A value and, when there is one and it may be there, its mask.
    fn masked<T: Copy>(&mut self, full: T, one: impl Fn(&mut Self) -> Option<T>) -> Option<(T, T)> {
        let v = one(self)?;
        if self.masks && self.eat("/") {
            return Some((v, one(self)?));
        }
        Some((v, full))
    }

    /// A number with its mask, cut to the bits of `full`.
    pub fn num(&mut self, full: u128) -> Option<(u128, u128)> {
        let (v, m) = self.masked(full, |s| s.number())?;
        Some((v & full, m & full))
    }

    /// A number with its mask that must fit in `full`.
    pub fn strict(&mut self, full: u128) -> Option<(u128, u128)> {
        let (v, m) = self.masked(full, |s| s.number())?;
        (v <= full && m <= full).then_some((v, m))
    }

    pub fn mac(&mut self) -> Option<([u8; 6], [u8; 6])> {
        self.masked([0xff; 6], |s| {
            let mut mac = [0; 6];
            for (i, b) in mac.iter_mut().enumerate() {
                if i > 0 {
                    s.need(":")?;
                }
                let word = s.run(|c| c.is_ascii_hexdigit())?;
                *b = (word.len() <= 2).then(|| u8::from_str_radix(word, 16).ok()).flatten()?;
            }
            Some(mac)
        })
    }

    pub fn ip4(&mut self) -> Option<(u32, u32)> {
        self.masked(u32::MAX, |s| {
            let word = s.run(|c| c.is_ascii_digit() || c == '.')?;
            word.parse::<Ipv4Addr>().ok().map(u32::from)
        })
    }

    pub fn ip6(&mut self) -> Option<([u8; 16], [u8; 16])> {
        self.masked([0xff; 16], |s| {
            let word = s.run(|c| c.is_ascii_hexdigit() || c == ':' || c == '.')?;
            word.parse::<Ipv6Addr>().ok().map(|a| a.octets())
        })
    }

    /// `+a-b` (only those bits count), `a|b` (all of `full` count) or a number with its mask.
    pub fn flags(&mut self, names: &[&str], full: u32) -> Option<(u32, u32)> {
        if self.rest.starts_with(['+', '-']) {
            return self.signed_flags(names);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.num(full.into()).map(|(v, m)| (v as u32, m as u32));
        }
        if self.rest.starts_with(')') {
            return Some((0, full));
        }
        let mut v = 0;
        loop {
            let word = self.run(|c| c != ')' && c != '|' && c != ',')?;
            v |= bit_of(names, word)?;
            if !self.eat("|") {
                return Some((v, full));
            }
        }
    }

    fn signed_flags(&mut self, names: &[&str]) -> Option<(u32, u32)> {
        let (mut v, mut m) = (0, 0);
        while self.rest.starts_with(['+', '-']) {
            let on = self.eat("+") || !self.eat("-");
            let word = self.run(|c| !matches!(c, '+' | '-' | ')' | ',' | '/'))?;
            let bit = bit_of(names, word)?;
            if m & bit != 0 {
                return None;
            }
            m |= bit;
            if on {
                v |= bit;
            }
        }
        Some((v, m))
    }
}

fn bit_of(names: &[&str], word: &str) -> Option<u32> {
    names.iter().position(|n| *n == word).map(|i| 1 << i)
}

//! The types of datapath there are, and what differs between them.
//!
//! Neighbours: `manager` makes datapaths, `ports` adds to them. Threads: plain data.

use datapath::Provider;
use flow::DpPort;

/// A type of datapath, as `Bridge.datapath_type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatapathClass {
    /// Its name.
    pub name: &'static str,
    /// Whether it is for tests: its internal ports are dummy devices, and ports get the number in their name.
    pub dummy: bool,
}

impl DatapathClass {
    /// The type of device behind an interface of type `kind`.
    pub(crate) fn device_kind<'a>(&self, kind: &'a str) -> &'a str {
        match kind {
            "internal" if self.dummy => "dummy-internal",
            k => k,
        }
    }

    /// The number that a port of this name gets, when it is free.
    pub(crate) fn port_number(&self, dp: &dyn Provider, name: &str) -> Option<DpPort> {
        if !self.dummy {
            return None;
        }
        let no = number_in(name)?;
        (!dp.ports().iter().any(|p| p.no == no)).then_some(no)
    }
}

/// The first number in a name, from 100 on for bridges (`br0`).
fn number_in(name: &str) -> Option<DpPort> {
    let start = if name.starts_with("br") { 100u32 } else { 0 };
    let digits = &name[name.find(|c: char| c.is_ascii_digit())?..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let no = digits[..end].parse::<u32>().ok()?.checked_add(start)?;
    (no > 0 && no < u32::from(u16::MAX)).then_some(DpPort(no))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names() {
        assert_eq!(number_in("br0"), Some(DpPort(100)));
        assert_eq!(number_in("p1"), Some(DpPort(1)));
        assert_eq!(number_in("p12x3"), Some(DpPort(12)));
        assert_eq!(number_in("t0"), None);
        assert_eq!(number_in("foo"), None);
        assert_eq!(number_in("p99999999999"), None);
    }
}

//! Differences that are right, each with its reason.
//!
//! Neighbours: the comparison. Threads: none.

/// A place where the two switches may print different texts.
struct Known {
    /// Start of the case's name.
    case: &'static str,
    /// Start of the record's label.
    what: &'static str,
    /// Why it is right that they differ.
    reason: &'static str,
}

const KNOWN: &[Known] = &[];

/// Whether a difference is in the table.
pub fn justified(case: &str, what: &str, _theirs: &str, _ours: &str) -> bool {
    KNOWN.iter().any(|k| case.starts_with(k.case) && what.starts_with(k.what) && !k.reason.is_empty())
}

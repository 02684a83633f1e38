//! How many handlers and revalidators a datapath has.
//!
//! Neighbours: `slowpath` starts them. Threads: plain functions.

use std::collections::BTreeMap;

/// Most threads of a kind.
const MAX_THREADS: usize = 1000;

/// Numbers of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadCounts {
    /// `n-handler-threads`, or what follows from the other and the number of cores.
    pub handlers: usize,
    /// `n-revalidator-threads`, or what follows.
    pub revalidators: usize,
}

impl ThreadCounts {
    /// Reads `other_config`. What is no number above 0 counts as unset.
    pub fn of_config(other_config: &BTreeMap<String, String>, cores: usize) -> ThreadCounts {
        let given = |key: &str| -> Option<usize> {
            let n = other_config.get(key)?.parse::<i64>().ok().filter(|n| *n > 0)?;
            Some(usize::try_from(n).map_or(MAX_THREADS, |n| n.min(MAX_THREADS)))
        };
        let (handlers, revalidators) = (given("n-handler-threads"), given("n-revalidator-threads"));
        let revalidators = revalidators.unwrap_or(handlers.unwrap_or(cores) / 4 + 1);
        let handlers = handlers.unwrap_or(cores.saturating_sub(revalidators).max(1));
        ThreadCounts { handlers, revalidators }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cores: usize, handlers: &str, revalidators: &str) -> (usize, usize) {
        let config = [("n-handler-threads", handlers), ("n-revalidator-threads", revalidators)];
        let config = config.into_iter().filter(|(_, v)| !v.is_empty());
        let config = config.map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let c = ThreadCounts::of_config(&config, cores);
        (c.handlers, c.revalidators)
    }

    #[test]
    fn each_follows_from_the_other() {
        assert_eq!(counts(2, "", ""), (1, 1));
        assert_eq!(counts(1, "", ""), (1, 1));
        assert_eq!(counts(16, "", ""), (11, 5));
        assert_eq!(counts(2, "7", ""), (7, 2));
        assert_eq!(counts(2, "100", ""), (100, 26));
        assert_eq!(counts(2, "", "5"), (1, 5));
        assert_eq!(counts(16, "", "5"), (11, 5));
        assert_eq!(counts(2, "3", "2"), (3, 2));
        for nonsense in ["0", "-1", "x", "1.5"] {
            assert_eq!(counts(2, nonsense, nonsense), (1, 1), "{nonsense}");
        }
        assert_eq!(counts(2, "99999999999", "9223372036854775808"), (1000, 251));
    }
}

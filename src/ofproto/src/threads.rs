//! How many handlers and revalidators a datapath has.
//!
//! Neighbours: `slowpath` starts them. Threads: plain functions.

use std::collections::BTreeMap;

/// Most threads of a kind that can be asked for.
const MAX_THREADS: usize = 256;

/// Numbers of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadCounts {
    /// `n-handler-threads`, or what follows from the other and the number of cores.
    pub handlers: usize,
    /// `n-revalidator-threads`, or what follows.
    pub revalidators: usize,
}

impl ThreadCounts {
    /// Reads `other_config`. What is no number above 0 counts as unset. Gives a line for the log about each setting
    /// that is not taken as it stands.
    pub fn of_config(other_config: &BTreeMap<String, String>, cores: usize) -> (ThreadCounts, Vec<String>) {
        let mut complaints = Vec::new();
        let mut given = |key: &str| -> Option<usize> {
            let text = other_config.get(key)?;
            // As Open vSwitch reads it: an int, or nothing.
            let n = text.trim_start().parse::<i32>().ok().filter(|n| *n > 0);
            match n.map(|n| n as usize) {
                Some(n) if n <= MAX_THREADS => Some(n),
                Some(n) => {
                    complaints
                        .push(format!("other_config:{key}={n} is too many threads: using {MAX_THREADS}"));
                    Some(MAX_THREADS)
                }
                None => {
                    complaints.push(format!(
                        "ignoring other_config:{key}={text}, which is not a number from 1 to {MAX_THREADS}"
                    ));
                    None
                }
            }
        };
        let (handlers, revalidators) = (given("n-handler-threads"), given("n-revalidator-threads"));
        let rest = |n: usize| cores.saturating_sub(n).max(1);
        let revalidators = revalidators.unwrap_or(handlers.map_or(cores / 4 + 1, rest));
        let handlers = handlers.unwrap_or(rest(revalidators));
        (ThreadCounts { handlers, revalidators }, complaints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cores: usize, handlers: &str, revalidators: &str) -> ((usize, usize), Vec<String>) {
        let config = [("n-handler-threads", handlers), ("n-revalidator-threads", revalidators)];
        let config = config.into_iter().filter(|(_, v)| !v.is_empty());
        let config = config.map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let (c, complaints) = ThreadCounts::of_config(&config, cores);
        ((c.handlers, c.revalidators), complaints)
    }

    /// As Open vSwitch 3.1 does on so many cores.
    #[test]
    fn each_follows_from_the_other() {
        let counts = |cores, handlers, revalidators| {
            let (counts, complaints) = read(cores, handlers, revalidators);
            assert!(complaints.is_empty(), "{complaints:?}");
            counts
        };
        assert_eq!(counts(1, "", ""), (1, 1));
        assert_eq!(counts(2, "", ""), (1, 1));
        assert_eq!(counts(8, "", ""), (5, 3));
        assert_eq!(counts(16, "", ""), (11, 5));
        assert_eq!(counts(8, "2", ""), (2, 6));
        assert_eq!(counts(8, "8", ""), (8, 1));
        assert_eq!(counts(8, "12", ""), (12, 1));
        assert_eq!(counts(16, "1", ""), (1, 15));
        assert_eq!(counts(8, "", "5"), (3, 5));
        assert_eq!(counts(8, "", "12"), (1, 12));
        assert_eq!(counts(16, "", "1"), (15, 1));
        assert_eq!(counts(8, "3", "4"), (3, 4));
    }

    #[test]
    fn nonsense_is_told_of() {
        for nonsense in ["0", "-1", "x", "1.5", "4294967297"] {
            let (counts, complaints) = read(2, nonsense, nonsense);
            assert_eq!((counts, complaints.len()), ((1, 1), 2), "{nonsense}");
            assert!(complaints[0].starts_with("ignoring other_config:n-handler-threads="), "{complaints:?}");
        }
        let (counts, complaints) = read(2, "100000", "");
        assert_eq!((counts, complaints.len()), ((256, 1), 1));
    }
}

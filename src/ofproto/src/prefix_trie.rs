//! Prefix tracking: which prefix lengths can still match a value, and how many of its bits were needed to know.
//!
//! A persistent binary radix trie: cloning shares everything, changing copies the path. Values are left-aligned in a
//! `u128`. Neighbours: `classifier`. Threads: immutable once published.

use std::sync::Arc;

/// Lengths of the stored prefixes that match a value; bit i stands for length i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixLens([u64; 3]);

impl PrefixLens {
    /// Every length.
    pub const ALL: PrefixLens = PrefixLens([u64::MAX; 3]);

    fn add(&mut self, len: u8) {
        self.0[usize::from(len) / 64] |= 1 << (len % 64);
    }

    /// Whether length `len` is among them.
    pub fn has(&self, len: u8) -> bool {
        self.0[usize::from(len) / 64] & (1 << (len % 64)) != 0
    }
}

/// A set of prefixes with counts.
#[derive(Clone, Debug, Default)]
pub struct PrefixTrie {
    root: Option<Arc<Node>>,
}

#[derive(Clone, Debug)]
struct Node {
    bits: u128,
    len: u8,
    n_rules: u32,
    edges: [Option<Arc<Node>>; 2],
}

/// A mask of the first `len` bits.
pub fn prefix_mask(len: u8) -> u128 {
    match len {
        0 => 0,
        1..=127 => !(u128::MAX >> len),
        _ => u128::MAX,
    }
}

fn common(a: u128, b: u128) -> u8 {
    (a ^ b).leading_zeros() as u8
}

/// Bit `at` of `v`, counted from the left.
fn bit(v: u128, at: u8) -> usize {
    usize::from(at < 128 && (v << at) >> 127 != 0)
}

impl PrefixTrie {
    /// Adds one reference to the prefix of `len` bits of `value`. Length 0 is not stored.
    pub fn insert(&mut self, value: u128, len: u8) {
        if len > 0 {
            insert(&mut self.root, value & prefix_mask(len), len);
        }
    }

    /// Takes one reference away.
    pub fn remove(&mut self, value: u128, len: u8) {
        if len > 0 {
            remove(&mut self.root, value & prefix_mask(len), len);
        }
    }

    /// The lengths of the stored prefixes that match `value` (of `width` bits), and how many leading bits of
    /// `value` must be looked at to be sure of that.
    pub fn lookup(&self, value: u128, width: u8) -> (PrefixLens, u8) {
        let mut lens = PrefixLens::default();
        let mut needed = 0;
        let mut next = self.root.as_ref();
        while let Some(node) = next {
            let same = common(node.bits, value).min(node.len);
            if same < node.len {
                return (lens, (same + 1).min(width));
            }
            if node.n_rules > 0 {
                lens.add(node.len);
            }
            needed = node.len;
            if node.len >= width {
                break;
            }
            let edge = bit(value, node.len);
            if node.edges[edge].is_none() && node.edges[1 - edge].is_some() {
                needed = node.len + 1;
            }
            next = node.edges[edge].as_ref();
        }
        (lens, needed.min(width))
    }
}

fn insert(slot: &mut Option<Arc<Node>>, bits: u128, len: u8) {
    let Some(arc) = slot else {
        *slot = Some(Arc::new(Node { bits, len, n_rules: 1, edges: [None, None] }));
        return;
    };
    let same = common(arc.bits, bits).min(arc.len).min(len);
    if same == arc.len {
        let node = Arc::make_mut(arc);
        if same == len {
            node.n_rules += 1;
        } else {
            insert(&mut node.edges[bit(bits, same)], bits, len);
        }
        return;
    }
    let old = arc.clone();
    let mut edges = [None, None];
    let side = bit(old.bits, same);
    edges[side] = Some(old);
    let ends_here = same == len;
    if !ends_here {
        edges[bit(bits, same)] = Some(Arc::new(Node { bits, len, n_rules: 1, edges: [None, None] }));
    }
    *slot = Some(Arc::new(Node {
        bits: bits & prefix_mask(same),
        len: same,
        n_rules: u32::from(ends_here),
        edges,
    }));
}

fn remove(slot: &mut Option<Arc<Node>>, bits: u128, len: u8) {
    let Some(arc) = slot else { return };
    if common(arc.bits, bits).min(arc.len).min(len) < arc.len || len < arc.len {
        return;
    }
    let node = Arc::make_mut(arc);
    if node.len == len {
        node.n_rules = node.n_rules.saturating_sub(1);
    } else {
        remove(&mut node.edges[bit(bits, node.len)], bits, len);
    }
    if node.n_rules == 0 {
        match (node.edges[0].take(), node.edges[1].take()) {
            (Some(a), Some(b)) => node.edges = [Some(a), Some(b)],
            (one, other) => *slot = one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `lookup` means, computed from a plain list.
    fn slow(prefixes: &[(u128, u8)], value: u128, width: u8) -> (PrefixLens, u8) {
        let mut lens = PrefixLens::default();
        let mut needed = 0;
        for &(p, len) in prefixes {
            let p = p & prefix_mask(len);
            if value & prefix_mask(len) == p {
                lens.add(len);
                needed = needed.max(len);
            } else {
                needed = needed.max(common(p, value) + 1);
            }
        }
        (lens, needed.min(width))
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(ops in prop::collection::vec((any::<u8>(), 1u8..=8, any::<bool>()), 1..60), probes in prop::collection::vec(any::<u8>(), 1..20)) {
            let mut trie = PrefixTrie::default();
            let mut list: Vec<(u128, u8)> = Vec::new();
            for (v, len, add) in ops {
                let v = u128::from(v) << 120;
                if add || list.is_empty() {
                    trie.insert(v, len);
                    list.push((v & prefix_mask(len), len));
                } else {
                    let (p, l) = list.swap_remove(usize::from(len) % list.len());
                    trie.remove(p, l);
                }
                for p in &probes {
                    let p = u128::from(*p) << 120;
                    prop_assert_eq!(trie.lookup(p, 8), slow(&list, p, 8));
                }
            }
        }
    }
}

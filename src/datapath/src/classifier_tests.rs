//! The classifier against a linear twin.

use super::*;
use flow::Flow;
use proptest::prelude::*;

/// A flow whose words come from small alphabets, so that masked keys collide often.
fn key(v: u64) -> Miniflow {
    let mut f = Flow::default();
    let w = f.words_mut();
    for (i, word) in [9usize, 10, 21, 22, 26, 28, 36].into_iter().enumerate() {
        w[word] = (v >> (4 * i)) & 0xf;
    }
    Miniflow::from_flow(&f)
}

/// A mask over a subset of those words and two the keys never have.
fn mask(v: u64) -> Compact {
    let mut f = Flow::default();
    let w = f.words_mut();
    for (i, word) in [9usize, 10, 21, 22, 26, 28, 36, 30, 33].into_iter().enumerate() {
        if v >> i & 1 != 0 {
            w[word] = if v >> (i + 9) & 1 != 0 { 0xc } else { 0xf };
        }
    }
    Compact::from_flow(&f)
}

#[derive(Default)]
struct Twin(Vec<(Flow, Compact, FlowIdx)>);

impl Twin {
    fn all(&self, key: &Miniflow) -> Vec<FlowIdx> {
        let f = key.expand();
        self.0.iter().filter(|(k, m, _)| k.matches(&f, &m.mask())).map(|e| e.2).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// A key is found exactly when the twin finds it, and then it is one of those the twin finds.
    #[test]
    fn as_a_linear_twin(ops in prop::collection::vec((0u8..5, any::<u32>(), 0u64..1 << 18), 1..200)) {
        let mut cls = Classifier::new(11);
        let mut twin = Twin::default();
        let mut places: Vec<(FlowIdx, Place)> = Vec::new();
        for (n, (op, kv, mv)) in ops.into_iter().enumerate() {
            let k = key(u64::from(kv));
            match op {
                0..=2 => {
                    let m = cls.share_mask(mask(mv & 0x7ff | 1));
                    let f = k.expand();
                    if twin.0.iter().any(|(tk, tm, _)| *tm == *m && tk.matches(&f, &m.mask())) {
                        continue;
                    }
                    let place = cls.insert(&k, &m, n as FlowIdx);
                    places.push((n as FlowIdx, place));
                    twin.0.push((f, (*m).clone(), n as FlowIdx));
                }
                3 if !places.is_empty() => {
                    let (f, place) = places.swap_remove(kv as usize % places.len());
                    cls.remove(place);
                    twin.0.retain(|e| e.2 != f);
                }
                _ => cls.optimize(),
            }
            let keys: [Miniflow; BURST] = std::array::from_fn(|i| key(u64::from(kv) ^ (i as u64) << (i % 28)));
            let mut out = [NO_FLOW; BURST];
            let mut looked = 0;
            let todo = mv as u32 | 1;
            let missed = cls.lookup(&keys, todo, &mut out, &mut looked);
            for (i, k) in keys.iter().enumerate().filter(|(i, _)| todo >> i & 1 != 0) {
                let want = twin.all(k);
                let got = (missed >> i & 1 == 0).then_some(out[i]);
                prop_assert_eq!(got.is_some(), !want.is_empty());
                prop_assert_eq!(cls.lookup_one(k), got);
                if let Some(g) = got {
                    prop_assert!(want.contains(&g));
                }
            }
        }
        let mut have = cls.flows();
        have.sort_unstable();
        let mut want: Vec<_> = twin.0.iter().map(|e| e.2).collect();
        want.sort_unstable();
        prop_assert_eq!(have, want);
        prop_assert!(cls.n_masks() <= places.len());
    }
}

#[test]
fn grows_and_empties() {
    let mut cls = Classifier::new(1);
    let m = cls.share_mask(Compact::from_flow(&{
        let mut f = Flow::default();
        f.words_mut()[26] = u64::MAX;
        f
    }));
    let k = |i: u64| {
        let mut f = Flow::default();
        f.words_mut()[26] = i + 1;
        Miniflow::from_flow(&f)
    };
    let places: Vec<Place> = (0..50_000).map(|i| cls.insert(&k(i), &m, i as u32)).collect();
    for i in 0..50_000 {
        assert_eq!(cls.lookup_one(&k(i)), Some(i as u32));
    }
    assert_eq!(cls.lookup_one(&k(50_000)), None);
    for (i, p) in places.iter().enumerate() {
        cls.remove(*p);
        assert_eq!(cls.lookup_one(&k(i as u64)), None);
    }
    assert_eq!(cls.n_masks(), 0);
}

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
    fn as_a_linear_twin(ops in prop::collection::vec((0u8..5, any::<u32>(), 0u64..1 << 18), 1..300)) {
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
            let left = cls.lookup_lead(&keys, todo, &mut out, &mut looked);
            let missed = cls.lookup_rest(&keys, left, &mut out, &mut looked);
            for (f, place) in &places {
                let own = twin.0.iter().any(|e| e.2 == *f && e.0.matches(&keys[0].expand(), &e.1.mask()));
                prop_assert_eq!(cls.is_of(*place, *f, &keys[0]), own);
            }
            for (i, k) in keys.iter().enumerate().filter(|(i, _)| todo >> i & 1 != 0) {
                let want = twin.all(k);
                let got = (missed >> i & 1 == 0).then_some(out[i]);
                prop_assert_eq!(got.is_some(), !want.is_empty());
                let one = cls.lookup_one(k);
                prop_assert_eq!(one.is_some(), got.is_some());
                prop_assert!(one.is_none_or(|f| want.contains(&f)));
                if let Some(g) = got {
                    prop_assert!(want.contains(&g));
                }
            }
        }
        let mut have = cls.flows(&mut Cursor::default(), usize::MAX);
        let (mut cursor, mut parts) = (Cursor::default(), Vec::new());
        while parts.len() < have.len() {
            let part = cls.flows(&mut cursor, 3);
            prop_assert!(!part.is_empty());
            parts.extend(part);
        }
        prop_assert_eq!(&parts, &have);
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

/// Key and mask of packet `i` of an attack on a rule for one connection.
fn explode(i: u32) -> (Miniflow, Compact) {
    let (mut f, mut m) = (Flow::default(), Flow::default());
    let prefix = |len: u32| !0u32 << (31 - len);
    f.nw_src = flow::Be32::new(0xc0a8_0101 ^ 1 << (31 - i % 32));
    m.nw_src = flow::Be32::new(prefix(i % 32));
    f.nw_dst = flow::Be32::new(0xc0a8_0202 ^ 1 << (31 - i / 32 % 32));
    m.nw_dst = flow::Be32::new(prefix(i / 32 % 32));
    f.tp_src = flow::Be16::new((0x1389_0000u32 ^ 1 << (31 - i / 1_024 % 16) >> 16) as u16);
    m.tp_src = flow::Be16::new((prefix(i / 1_024 % 16) >> 16) as u16);
    m.in_port = u32::MAX;
    (Miniflow::from_flow(&f), Compact::from_flow(&m))
}

/// However many masks packets ask for, a lookup looks into few subtables, and masks stay bounded.
#[test]
fn an_explosion_is_contained() {
    let mut cls = Classifier::new(5);
    cls.limit = 4_096;
    for i in 0..10_000 {
        let (k, m) = explode(i);
        assert_eq!(cls.lookup_one(&k), None, "{i}");
        let m = cls.share_mask(m);
        cls.insert(&k, &m, i);
    }
    assert!((4_096..4_106).contains(&cls.n_masks()), "{}", cls.n_masks());
    let mut looked = 0;
    for i in 0..10_000 {
        let found = cls.lookup_pruned(&explode(i).0, &mut looked).or_else(|| cls.lookup_one(&explode(i).0));
        assert_eq!(found, Some(i));
    }
    assert!(looked < 10_000 * 8, "{looked}");
}

/// When masks go, their classes are used again.
#[test]
fn classes_of_masks_come_and_go() {
    let mut cls = Classifier::new(6);
    for round in 0..40u32 {
        let places: Vec<_> = (0..40)
            .map(|i| {
                let (mut f, mut m) = (Flow::default(), Flow::default());
                f.nw_dst = flow::Be32::MAX;
                m.nw_dst = flow::Be32::new((1 << (i % 32)) | (round + 1));
                m.tp_dst = flow::Be16::new(i as u16 + 1);
                f.tp_dst = flow::Be16::MAX;
                let m = cls.share_mask(Compact::from_flow(&m));
                cls.insert(&Miniflow::from_flow(&f), &m, i)
            })
            .collect();
        cls.optimize();
        let mut f = Flow { nw_dst: flow::Be32::MAX, tp_dst: flow::Be16::MAX, ..Flow::default() };
        assert!(cls.lookup_one(&Miniflow::from_flow(&f)).is_some());
        f.tp_dst = flow::Be16::new(0);
        assert_eq!(cls.lookup_one(&Miniflow::from_flow(&f)), None);
        places.into_iter().for_each(|p| cls.remove(p));
        assert_eq!(cls.n_masks(), 0);
    }
}

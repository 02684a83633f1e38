//! MAC learning table of a bridge.
//!
//! Poll-mode threads look up and learn inline during a miss: a lookup takes the lock shared, learning tries to take
//! it and gives up when another thread has it (the packet flows on and the next one learns). Entries leave in the
//! order of their last use: when they are older than the aging time, and when the table is full, then from the
//! bundle that holds the most. Whatever makes installed flows wrong is reported, and the caller bumps the world's
//! sequence number. Neighbours: `xlate::normal`, `revalidate` (refreshes ages), `fdb` (text). Threads: all.

use crate::coverage;
use crate::snapshot::{BundleId, VlanSet};
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::collections::{BTreeSet, VecDeque};

/// Aging time unless configured, in seconds.
pub const DEFAULT_IDLE_SECS: u32 = 300;
/// Table size unless configured.
pub const DEFAULT_MAX_ENTRIES: usize = 8192;

const NIL: u32 = u32::MAX;

/// A MAC address on a VLAN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MacKey {
    /// VLAN id, 0 for none.
    pub vlan: u16,
    /// Address.
    pub mac: [u8; 6],
}

/// What `fdb/show` prints of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacInfo {
    /// Address and VLAN.
    pub key: MacKey,
    /// Bundle behind which it was seen.
    pub bundle: BundleId,
    /// Seconds since it was last seen; `None` for a static entry.
    pub age_secs: Option<u64>,
}

/// Counters of `fdb/stats-show`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct MacStats {
    pub current: usize,
    pub max: usize,
    pub statics: usize,
    pub learned: u64,
    pub expired: u64,
    pub evicted: u64,
    pub moved: u64,
}

/// What learning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Nothing that a flow depends on changed.
    Same,
    /// An entry is new or moved (or another was evicted for it): flows must be revalidated.
    Changed,
    /// Another thread had the lock; a later packet will learn.
    Busy,
}

#[derive(Clone, Copy)]
struct Entry {
    key: MacKey,
    bundle: BundleId,
    is_static: bool,
    used_ms: u64,
    /// Neighbours in the list by last use: of the table, and of the bundle.
    all: Link,
    own: Link,
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

const UNLINKED: Link = Link { prev: NIL, next: NIL };

/// Head is used longest ago.
#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: usize,
}

const EMPTY: List = List { head: NIL, tail: NIL, len: 0 };

#[derive(Default)]
struct Inner {
    index: HashMap<MacKey, u32>,
    slab: Vec<Entry>,
    free: Vec<u32>,
    all: Option<List>,
    bundles: HashMap<BundleId, List>,
    /// Bundles by their number of learned entries.
    by_count: BTreeSet<(usize, BundleId)>,
    idle_ms: u64,
    max_entries: usize,
    statics: usize,
    learned: u64,
    expired: u64,
    evicted: u64,
    moved: u64,
    flood_vlans: Option<VlanSet>,
    /// Bundles that went, the latest last.
    gone: VecDeque<BundleId>,
}

/// Bundles that went are remembered as long as flows may still carry news of them; this many at most.
const MAX_GONE: usize = 256;

/// The table. See the module header.
pub struct MacLearning {
    inner: RwLock<Inner>,
}

impl std::fmt::Debug for MacLearning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MacLearning").field("stats", &self.stats()).finish()
    }
}

impl Default for MacLearning {
    fn default() -> MacLearning {
        MacLearning::new()
    }
}

impl MacLearning {
    /// An empty table with default limits.
    pub fn new() -> MacLearning {
        let inner = Inner {
            idle_ms: u64::from(DEFAULT_IDLE_SECS) * 1000,
            max_entries: DEFAULT_MAX_ENTRIES,
            ..Inner::default()
        };
        MacLearning { inner: RwLock::new(inner) }
    }

    /// `mac-aging-time` (kept within 15 to 3600 s) and `mac-table-size` (at least 10). True when entries left.
    pub fn configure(&self, idle_secs: u32, max_entries: usize) -> bool {
        let mut t = self.inner.write();
        t.idle_ms = u64::from(idle_secs.clamp(15, 3600)) * 1000;
        t.max_entries = max_entries.clamp(10, 1_000_000);
        let mut changed = false;
        while t.learned_count() > t.max_entries && t.evict() {
            changed = true;
        }
        changed
    }

    /// `flood_vlans`: VLANs on which nothing is learned. True when the set changed (the table is flushed then).
    pub fn set_flood_vlans(&self, vlans: Option<VlanSet>) -> bool {
        let mut t = self.inner.write();
        if t.flood_vlans == vlans {
            return false;
        }
        t.flood_vlans = vlans;
        t.remove_where(|_| true);
        true
    }

    /// The bundle behind which `key` was seen, if that was not longer ago than the aging time.
    pub fn lookup(&self, key: MacKey, now_ms: u64) -> Option<BundleId> {
        let t = self.inner.read();
        if t.floods(key.vlan) {
            return None;
        }
        let e = &t.slab[*t.index.get(&key)? as usize];
        (e.is_static || now_ms.saturating_sub(e.used_ms) < t.idle_ms).then_some(e.bundle)
    }

    /// Learns that `key` is behind `bundle`. `wait`: take the lock even when another thread has it (never on a
    /// poll-mode thread).
    pub fn learn(&self, key: MacKey, bundle: BundleId, now_ms: u64, wait: bool) -> Learned {
        if key.mac[0] & 1 != 0 {
            return Learned::Same;
        }
        let Some(t) = (if wait { Some(self.inner.read()) } else { self.inner.try_read() }) else {
            return Learned::Busy;
        };
        if t.floods(key.vlan) {
            return Learned::Same;
        }
        if let Some(&i) = t.index.get(&key) {
            let e = &t.slab[i as usize];
            // An entry that was used this second needs no write.
            let fresh = now_ms.saturating_sub(e.used_ms) < 1000;
            // Late news of packets seen elsewhere earlier do not move an entry back.
            let late = e.bundle != bundle && now_ms < e.used_ms;
            if e.is_static || late || (e.bundle == bundle && fresh) {
                if e.is_static && e.bundle != bundle {
                    coverage::MAC_STATIC.inc();
                }
                return Learned::Same;
            }
        }
        drop(t);
        let Some(mut t) = (if wait { Some(self.inner.write()) } else { self.inner.try_write() }) else {
            return Learned::Busy;
        };
        t.learn(key, bundle, now_ms)
    }

    /// Removes entries older than the aging time. True when flows must be revalidated.
    pub fn expire(&self, now_ms: u64) -> bool {
        if self.inner.read().first_expired(now_ms).is_none() {
            return false;
        }
        let mut t = self.inner.write();
        let mut changed = false;
        while let Some(i) = t.first_expired(now_ms) {
            t.remove(i);
            t.expired += 1;
            coverage::MAC_EXPIRED.inc();
            changed = true;
        }
        changed
    }

    /// Adds or replaces a static entry.
    pub fn add_static(&self, key: MacKey, bundle: BundleId, now_ms: u64) {
        let mut t = self.inner.write();
        if let Some(&i) = t.index.get(&key) {
            t.remove(i);
        }
        t.insert(key, bundle, true, now_ms);
    }

    /// Removes a static entry; false when there is none.
    pub fn del_static(&self, key: MacKey) -> bool {
        let mut t = self.inner.write();
        match t.index.get(&key).copied() {
            Some(i) if t.slab[i as usize].is_static => {
                t.remove(i);
                true
            }
            _ => false,
        }
    }

    /// Removes all learned entries (static ones stay). True when there were any.
    pub fn flush(&self) -> bool {
        self.inner.write().remove_where(|e| !e.is_static)
    }

    /// Removes every entry of a bundle that is going away, for good: news of packets that it received before, which
    /// flows still carry, are not learned any more.
    pub fn retire_bundle(&self, bundle: BundleId) -> bool {
        let mut t = self.inner.write();
        if t.gone.len() >= MAX_GONE {
            t.gone.pop_front();
        }
        t.gone.push_back(bundle);
        t.remove_where(|e| e.bundle == bundle)
    }

    /// Removes every entry of a bundle that loses an interface or changed its VLANs.
    pub fn flush_bundle(&self, bundle: BundleId) -> bool {
        self.inner.write().remove_where(|e| e.bundle == bundle)
    }

    /// All entries, from the longest unused; static ones count as used when they were added.
    pub fn list(&self, now_ms: u64) -> Vec<MacInfo> {
        let t = self.inner.read();
        let mut out = Vec::with_capacity(t.index.len());
        let mut i = t.all.map_or(NIL, |l| l.head);
        while i != NIL {
            let e = &t.slab[i as usize];
            out.push(MacInfo {
                key: e.key,
                bundle: e.bundle,
                age_secs: (!e.is_static).then(|| now_ms.saturating_sub(e.used_ms) / 1000),
            });
            i = e.all.next;
        }
        out
    }

    /// Counters.
    pub fn stats(&self) -> MacStats {
        let t = self.inner.read();
        MacStats {
            current: t.index.len(),
            max: t.max_entries,
            statics: t.statics,
            learned: t.learned,
            expired: t.expired,
            evicted: t.evicted,
            moved: t.moved,
        }
    }

    /// Zeroes the counters.
    pub fn clear_stats(&self) {
        let mut t = self.inner.write();
        (t.learned, t.expired, t.evicted, t.moved) = (0, 0, 0, 0);
    }
}

impl Inner {
    fn floods(&self, vlan: u16) -> bool {
        self.flood_vlans.as_ref().is_some_and(|v| v.has(vlan))
    }

    fn learned_count(&self) -> usize {
        self.index.len() - self.statics
    }

    fn learn(&mut self, key: MacKey, bundle: BundleId, now_ms: u64) -> Learned {
        if self.gone.contains(&bundle) {
            return Learned::Same;
        }
        match self.index.get(&key).copied() {
            Some(i) if self.slab[i as usize].is_static => Learned::Same,
            Some(i) => {
                let e = self.slab[i as usize];
                let moved = e.bundle != bundle;
                if moved {
                    self.moved += 1;
                    coverage::MAC_MOVED.inc();
                }
                self.unlink(i);
                let entry = &mut self.slab[i as usize];
                entry.bundle = bundle;
                entry.used_ms = e.used_ms.max(now_ms);
                self.link(i);
                // One that had aged out was unknown to lookups.
                if moved || now_ms.saturating_sub(e.used_ms) >= self.idle_ms {
                    Learned::Changed
                } else {
                    Learned::Same
                }
            }
            None => {
                while self.index.len() >= self.max_entries {
                    if !self.evict() {
                        return Learned::Same;
                    }
                }
                self.learned += 1;
                coverage::MAC_LEARNED.inc();
                self.insert(key, bundle, false, now_ms);
                Learned::Changed
            }
        }
    }

    fn insert(&mut self, key: MacKey, bundle: BundleId, is_static: bool, now_ms: u64) {
        let e = Entry { key, bundle, is_static, used_ms: now_ms, all: UNLINKED, own: UNLINKED };
        let i = match self.free.pop() {
            Some(i) => {
                self.slab[i as usize] = e;
                i
            }
            None => {
                self.slab.push(e);
                (self.slab.len() - 1) as u32
            }
        };
        self.index.insert(key, i);
        self.statics += usize::from(is_static);
        self.link(i);
    }

    fn remove(&mut self, i: u32) {
        let e = self.slab[i as usize];
        self.index.remove(&e.key);
        self.statics -= usize::from(e.is_static);
        self.unlink(i);
        self.free.push(i);
    }

    fn remove_where(&mut self, mut f: impl FnMut(&Entry) -> bool) -> bool {
        let gone: Vec<u32> = self.index.values().copied().filter(|&i| f(&self.slab[i as usize])).collect();
        gone.iter().for_each(|&i| self.remove(i));
        !gone.is_empty()
    }

    /// The longest unused learned entry, if it is too old.
    fn first_expired(&self, now_ms: u64) -> Option<u32> {
        let mut i = self.all?.head;
        while i != NIL {
            let e = &self.slab[i as usize];
            if !e.is_static {
                return (now_ms.saturating_sub(e.used_ms) >= self.idle_ms).then_some(i);
            }
            i = e.all.next;
        }
        None
    }

    /// Removes the longest unused entry of the bundle that holds the most.
    fn evict(&mut self) -> bool {
        let Some(&(_, bundle)) = self.by_count.last() else { return false };
        let Some(head) = self.bundles.get(&bundle).map(|l| l.head).filter(|&h| h != NIL) else {
            return false;
        };
        self.remove(head);
        self.evicted += 1;
        coverage::MAC_EVICTED.inc();
        true
    }

    /// Appends entry `i` to the list of all and, when it was learned, to that of its bundle.
    fn link(&mut self, i: u32) {
        let Entry { bundle, is_static, .. } = self.slab[i as usize];
        let mut all = self.all.unwrap_or(EMPTY);
        push_back(&mut self.slab, &mut all, i, |e| &mut e.all);
        self.all = Some(all);
        if is_static {
            return;
        }
        let own = self.bundles.entry(bundle).or_insert(EMPTY);
        self.by_count.remove(&(own.len, bundle));
        push_back(&mut self.slab, own, i, |e| &mut e.own);
        self.by_count.insert((own.len, bundle));
    }

    /// Takes entry `i` out of its lists.
    fn unlink(&mut self, i: u32) {
        let Entry { bundle, is_static, .. } = self.slab[i as usize];
        let mut all = self.all.unwrap_or(EMPTY);
        take_out(&mut self.slab, &mut all, i, |e| &mut e.all);
        self.all = Some(all);
        if is_static {
            return;
        }
        if let Some(own) = self.bundles.get_mut(&bundle) {
            self.by_count.remove(&(own.len, bundle));
            take_out(&mut self.slab, own, i, |e| &mut e.own);
            if own.len == 0 {
                self.bundles.remove(&bundle);
            } else {
                self.by_count.insert((own.len, bundle));
            }
        }
    }
}

fn push_back(slab: &mut [Entry], list: &mut List, i: u32, link: fn(&mut Entry) -> &mut Link) {
    *link(&mut slab[i as usize]) = Link { prev: list.tail, next: NIL };
    if list.tail == NIL {
        list.head = i;
    } else {
        link(&mut slab[list.tail as usize]).next = i;
    }
    list.tail = i;
    list.len += 1;
}

fn take_out(slab: &mut [Entry], list: &mut List, i: u32, link: fn(&mut Entry) -> &mut Link) {
    let l = *link(&mut slab[i as usize]);
    if l.prev == NIL {
        list.head = l.next;
    } else {
        link(&mut slab[l.prev as usize]).next = l.next;
    }
    if l.next == NIL {
        list.tail = l.prev;
    } else {
        link(&mut slab[l.next as usize]).prev = l.prev;
    }
    *link(&mut slab[i as usize]) = UNLINKED;
    list.len -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> MacKey {
        MacKey { vlan: 0, mac: [2, 0, 0, 0, 0, n] }
    }
    const A: BundleId = BundleId(1);
    const B: BundleId = BundleId(2);

    #[test]
    fn bundles_that_went_stay_away() {
        let t = MacLearning::new();
        t.learn(key(1), A, 0, true);
        t.learn(key(2), B, 0, true);
        assert!(t.retire_bundle(A));
        assert_eq!(t.learn(key(1), A, 10, true), Learned::Same);
        assert_eq!((t.lookup(key(1), 10), t.lookup(key(2), 10)), (None, Some(B)));
    }

    #[test]
    fn learns_moves_expires() {
        let t = MacLearning::new();
        assert_eq!(t.learn(key(1), A, 0, true), Learned::Changed);
        assert_eq!(t.learn(key(1), A, 5000, true), Learned::Same);
        assert_eq!(t.lookup(key(1), 6000), Some(A));
        assert_eq!(t.learn(key(1), B, 6000, true), Learned::Changed);
        assert_eq!(t.lookup(key(1), 6000), Some(B));
        assert_eq!(t.stats().moved, 1);
        assert!(!t.expire(305_999));
        assert_eq!(t.lookup(key(1), 305_999), Some(B));
        assert!(t.expire(306_000));
        assert_eq!(t.lookup(key(1), 306_000), None);
        assert_eq!(t.learn(MacKey { vlan: 0, mac: [1; 6] }, A, 0, true), Learned::Same);
    }

    #[test]
    fn evicts_from_the_largest() {
        let t = MacLearning::new();
        t.configure(300, 10);
        t.learn(key(100), B, 0, true);
        for n in 0..20 {
            t.learn(key(n), A, u64::from(n) + 1, true);
        }
        let s = t.stats();
        assert_eq!((s.current, s.evicted, s.learned), (10, 11, 21));
        assert_eq!(t.lookup(key(100), 30), Some(B));
        assert_eq!(t.lookup(key(10), 30), None);
        assert_eq!(t.lookup(key(11), 30), Some(A));
    }

    #[test]
    fn statics_stay() {
        let t = MacLearning::new();
        t.add_static(key(1), A, 0);
        assert_eq!(t.learn(key(1), B, 0, true), Learned::Same);
        t.learn(key(2), B, 0, true);
        assert!(t.flush());
        assert!(!t.expire(1_000_000));
        assert_eq!(t.lookup(key(1), 1_000_000), Some(A));
        assert_eq!(t.list(0).len(), 1);
        assert!(t.del_static(key(1)) && !t.del_static(key(1)));
    }

    #[test]
    fn lists_agree_with_a_slow_twin() {
        let mut seed = 7u64;
        let mut rnd = move |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let t = MacLearning::new();
        t.configure(15, 30);
        let mut twin: Vec<(MacKey, BundleId, u64)> = Vec::new();
        for now in (0..200_000u64).step_by(97) {
            let (k, b) = (key(rnd(60) as u8), BundleId(rnd(4) as u32));
            match twin.iter().position(|e| e.0 == k) {
                // A write is skipped when the entry was used within the last second.
                Some(i) if twin[i].1 == b && now - twin[i].2 < 1000 => {}
                Some(i) => {
                    twin.remove(i);
                    twin.push((k, b, now));
                }
                None => {
                    if twin.len() == 30 {
                        let count = |b: u32| twin.iter().filter(|e| e.1 == BundleId(b)).count();
                        let most = (0..4).max_by_key(|&b| (count(b), b)).unwrap();
                        let i = twin.iter().position(|e| e.1 == BundleId(most)).unwrap();
                        twin.remove(i);
                    }
                    twin.push((k, b, now));
                }
            }
            t.learn(k, b, now, true);
            t.expire(now);
            twin.retain(|e| now - e.2 < 15_000);
            let got: Vec<_> = t.list(now).iter().map(|e| (e.key, e.bundle)).collect();
            let want: Vec<_> = twin.iter().map(|e| (e.0, e.1)).collect();
            assert_eq!(got, want);
        }
    }
}

//! `Published<T>`: whole versions of a table, handed from one writer to many
//! readers without a lock.
//!
//! A reader sees one version from beginning to end; a writer never makes a
//! reader wait. Old versions are freed by the writer's side, never by a reader,
//! so a PMD that lets go of a version frees nothing. Any thread.

use arc_swap::{ArcSwap, Cache, Guard};
use parking_lot::Mutex;
use std::sync::Arc;

struct Inner<T> {
    current: ArcSwap<T>,
    retired: Mutex<Vec<Arc<T>>>,
}

/// A published value. Clones are handles on the same value.
pub struct Published<T>(Arc<Inner<T>>);

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Published<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Published<T> {
    /// Publishes a first version.
    pub fn new(value: T) -> Self {
        Published(Arc::new(Inner { current: ArcSwap::from_pointee(value), retired: Mutex::new(Vec::new()) }))
    }

    /// The present version for a short while: no shared reference count touched.
    #[inline]
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.current.load()
    }

    /// The present version to keep.
    pub fn get(&self) -> Arc<T> {
        self.0.current.load_full()
    }

    /// Replaces the version; frees older ones that nobody uses any more.
    pub fn store(&self, value: T) {
        self.store_arc(Arc::new(value));
    }

    /// As [`Published::store`], for a version that is shared already.
    pub fn store_arc(&self, value: Arc<T>) {
        let old = self.0.current.swap(value);
        let mut retired = self.0.retired.lock();
        retired.push(old);
        retired.retain(|v| Arc::strong_count(v) > 1);
    }

    /// Frees old versions whose last reader has gone. Call it now and then
    /// when versions are large and changes rare. Returns how many remain.
    pub fn reclaim(&self) -> usize {
        let mut retired = self.0.retired.lock();
        retired.retain(|v| Arc::strong_count(v) > 1);
        retired.len()
    }

    /// A reader for one thread that keeps the version it saw last: asking for
    /// the present version costs one load unless it changed.
    pub fn reader(&self) -> Reader<T> {
        Reader(Cache::new(Current(Arc::clone(&self.0))))
    }
}

/// Access to the swap inside the shared part.
struct Current<T>(Arc<Inner<T>>);

impl<T> std::ops::Deref for Current<T> {
    type Target = ArcSwap<T>;
    fn deref(&self) -> &ArcSwap<T> {
        &self.0.current
    }
}

/// A thread's own view of a [`Published`] value.
pub struct Reader<T>(Cache<Current<T>, Arc<T>>);

impl<T> Reader<T> {
    /// The present version.
    #[inline]
    pub fn get(&mut self) -> &Arc<T> {
        self.0.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Counted(u32);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn readers_never_free() {
        let table = Published::new(Counted(1));
        let mut reader = table.reader();
        assert_eq!(reader.get().0, 1);
        table.store(Counted(2));
        assert_eq!(DROPS.load(Ordering::Relaxed), 0);
        assert_eq!(reader.get().0, 2);
        assert_eq!(DROPS.load(Ordering::Relaxed), 0, "the reader let go but did not free");
        assert_eq!(table.reclaim(), 0);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }
}

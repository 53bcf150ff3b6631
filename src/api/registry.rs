//! The named caches of this process, for [`Cache::open`](super::Cache::open).
//!
//! A linked list that only grows, each link set once by compare-and-swap: there is no lock that a
//! fork could copy while held. A dropped cache leaves its node, some hundreds of bytes per `build`.
#![forbid(unsafe_code)]

use once_cell::race::OnceBox;

use super::defaults::Defaults;
use crate::{
    error::{Error, Result},
    near::{Tier, WeakTier},
};

/// All caches built by this process or by one it was forked from.
pub(super) static CACHES: Registry<Tier> = Registry::new();

/// A value that is dropped with its last reference.
pub(super) trait Shared: Sized {
    /// A reference that does not keep the value alive.
    type Weak;
    fn downgrade(&self) -> Self::Weak;
    fn upgrade(weak: &Self::Weak) -> Option<Self>;
}

impl Shared for Tier {
    type Weak = WeakTier;

    fn downgrade(&self) -> WeakTier {
        Self::downgrade(self)
    }

    fn upgrade(weak: &WeakTier) -> Option<Self> {
        weak.upgrade()
    }
}

pub(super) struct Registry<T: Shared> {
    head: OnceBox<Node<T>>,
}

struct Node<T: Shared> {
    name: Box<str>,
    cache: T::Weak,
    defaults: Defaults,
    next: OnceBox<Node<T>>,
}

impl<T: Shared> Registry<T> {
    const fn new() -> Self {
        Self { head: OnceBox::new() }
    }

    /// The live cache of this name, with the defaults it was built with.
    pub(super) fn find(&self, name: &str) -> Option<(T, Defaults)> {
        let mut link = &self.head;
        while let Some(node) = link.get() {
            if let Some(cache) = node.live(name) {
                return Some((cache, node.defaults));
            }
            link = &node.next;
        }
        None
    }

    /// Adds a cache.
    ///
    /// # Errors
    /// [`Error::NameInUse`]
    pub(super) fn insert(&self, name: &str, cache: &T, defaults: Defaults) -> Result<()> {
        let mut new =
            Box::new(Node { name: name.into(), cache: cache.downgrade(), defaults, next: OnceBox::new() });
        let mut link = &self.head;
        loop {
            // A dead node stays dead, so nodes passed once need no second look.
            while let Some(node) = link.get() {
                if node.live(name).is_some() {
                    return Err(Error::NameInUse(name.to_owned()));
                }
                link = &node.next;
            }
            match link.set(new) {
                Ok(()) => return Ok(()),
                Err(back) => new = back,
            }
        }
    }
}

impl<T: Shared> Node<T> {
    fn live(&self, name: &str) -> Option<T> {
        if *self.name == *name { T::upgrade(&self.cache) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Barrier, Weak},
        thread,
    };

    use super::*;

    impl<T> Shared for Arc<T> {
        type Weak = Weak<T>;

        fn downgrade(&self) -> Weak<T> {
            Self::downgrade(self)
        }

        fn upgrade(weak: &Weak<T>) -> Option<Self> {
            weak.upgrade()
        }
    }

    #[test]
    fn a_name_is_free_again_once_its_cache_is_gone() {
        let registry = Registry::new();
        let first = Arc::new(1);
        registry.insert("a", &first, Defaults::default()).unwrap();
        let second = Arc::new(2);
        registry.insert("b", &second, Defaults::default()).unwrap();
        assert_eq!(registry.find("a").map(|(c, _)| *c), Some(1));
        assert_eq!(registry.find("b").map(|(c, _)| *c), Some(2));
        assert!(registry.find("").is_none());

        let third = Arc::new(3);
        let taken = registry.insert("a", &third, Defaults::default());
        assert!(matches!(taken, Err(Error::NameInUse(name)) if name == "a"));
        drop(first);
        assert!(registry.find("a").is_none());
        registry.insert("a", &third, Defaults::default()).unwrap();
        assert_eq!(registry.find("a").map(|(c, _)| *c), Some(3));
    }

    #[test]
    fn of_many_threads_one_gets_the_name() {
        let registry = Registry::new();
        let barrier = Barrier::new(4);
        for round in 0..200 {
            let name = format!("round {round}");
            let won: Vec<Arc<usize>> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|i| {
                        let (registry, barrier, name) = (&registry, &barrier, &name);
                        scope.spawn(move || {
                            let cache = Arc::new(i);
                            barrier.wait();
                            registry.insert(name, &cache, Defaults::default()).is_ok().then_some(cache)
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
            });
            // The winner's cache lives until here, so every other thread has met it.
            assert_eq!(won.len(), 1, "{name}");
            assert_eq!(registry.find(&name).map(|(c, _)| c), Some(Arc::clone(&won[0])));
        }
    }
}

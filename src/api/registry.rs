//! The named caches of this process, for [`Cache::open`](super::Cache::open).
//!
//! A chain that only grows, each link set once by compare-and-swap: there is no lock that a fork could catch in the
//! held state. A dropped cache leaves its node behind, some hundred bytes for each `build` of the process's life.
#![forbid(unsafe_code)]

use std::sync::{Arc, Weak};

use once_cell::race::OnceBox;

use super::cache::Defaults;
use crate::{
    engine::Engine,
    error::{Error, Result},
};

/// All caches that this process, or one it was forked from, has built.
pub(super) static CACHES: Registry<Engine> = Registry::new();

pub(super) struct Registry<T> {
    head: OnceBox<Node<T>>,
}

struct Node<T> {
    name: Box<str>,
    cache: Weak<T>,
    defaults: Defaults,
    next: OnceBox<Node<T>>,
}

impl<T> Registry<T> {
    const fn new() -> Self {
        Self { head: OnceBox::new() }
    }

    /// The live cache of this name, with the defaults it was built with.
    pub(super) fn find(&self, name: &str) -> Option<(Arc<T>, Defaults)> {
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
    pub(super) fn insert(&self, name: &str, cache: &Arc<T>, defaults: Defaults) -> Result<()> {
        let mut new = Box::new(Node {
            name: name.into(),
            cache: Arc::downgrade(cache),
            defaults,
            next: OnceBox::new(),
        });
        let mut link = &self.head;
        loop {
            // A dead node never comes to life again, so what was passed need not be looked at twice.
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

impl<T> Node<T> {
    fn live(&self, name: &str) -> Option<Arc<T>> {
        if *self.name == *name { self.cache.upgrade() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

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
            // The winner's cache is alive until here, so every other thread met it.
            assert_eq!(won.len(), 1, "{name}");
            assert_eq!(registry.find(&name).map(|(c, _)| c), Some(Arc::clone(&won[0])));
        }
    }
}

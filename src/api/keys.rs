//! The walk over all keys.
#![forbid(unsafe_code)]

use std::{fmt, iter::FusedIterator, sync::Arc};

use super::Cache;
use crate::engine::{Cursor, Engine};

/// The keys of a cache, from [`Cache::keys`].
///
/// ```
/// let cache = ucache::Cache::builder("walk").items(10).build()?;
/// cache.set("k", "v")?;
///
/// let mut keys = cache.keys();
/// assert_eq!(keys.next(), Some(b"k".to_vec()));
/// assert_eq!(keys.next(), None);
/// # Ok::<(), ucache::Error>(())
/// ```
#[must_use = "an iterator does nothing unless it is used"]
pub struct Keys {
    engine: Arc<Engine>,
    cursor: Cursor,
}

impl Keys {
    pub(super) fn new(cache: &Cache) -> Self {
        Self { engine: Arc::clone(&cache.engine), cursor: Cursor::default() }
    }
}

impl Iterator for Keys {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let item = self.engine.walk(&mut self.cursor)?;
            if !item.ungettable {
                return Some(item.key);
            }
        }
    }
}

// A cursor at its end stays there.
impl FusedIterator for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cache", &self.engine.config().name).finish_non_exhaustive()
    }
}

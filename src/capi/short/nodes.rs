//! Word of a handle's changes to the nodes of its cache, if it is one of `uwsgi_cache_create` that has any.

use crate::{
    capi::{cache::Cache, peer},
    engine::Expires,
};

/// Who is told; mostly nobody.
#[derive(Clone, Copy)]
pub(super) struct Nodes(pub(super) Option<&'static Cache>);

impl Nodes {
    #[inline]
    fn cache(self) -> Option<&'static Cache> {
        self.0.filter(|cache| cache.tells(0))
    }

    /// A value was stored, which expires then; `None` = when the one before would have.
    #[inline]
    pub(super) fn tell_set(self, key: &[u8], value: &[u8], expires: Option<Expires>) {
        if let Some(cache) = self.cache() {
            cache.tell_peers(key, value, expires);
        }
    }

    /// An item has another time to live.
    pub(super) fn tell_touched(self, key: &[u8]) {
        if let Some(cache) = self.cache() {
            peer::tell_kept(cache, key);
        }
    }

    /// A key was removed.
    #[inline]
    pub(super) fn tell_del(self, key: &[u8]) {
        if let Some(cache) = self.cache() {
            peer::tell_del(cache, key);
        }
    }

    /// Everything was removed.
    pub(super) fn tell_clear(self) {
        if let Some(cache) = self.cache() {
            peer::tell_clear(cache);
        }
    }
}

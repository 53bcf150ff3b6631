//! Sends a handle's changes to the nodes of its cache, if the cache was made by
//! `uwsgi_cache_create` and has nodes.

use crate::{
    capi::host::{cache::Cache, network},
    engine::Expires,
};

/// The nodes of a cache; most have none.
#[derive(Clone, Copy)]
pub(super) struct Nodes(pub(super) Option<&'static Cache>);

impl Nodes {
    #[inline]
    fn cache(self) -> Option<&'static Cache> {
        self.0.filter(|cache| cache.replicates(0))
    }

    /// A value was stored; `None` = it keeps the expiry of the one before.
    #[inline]
    pub(super) fn replicate_set(self, key: &[u8], value: &[u8], expires: Option<Expires>) {
        if let Some(cache) = self.cache() {
            cache.replicate_stored(key, value, expires);
        }
    }

    /// An item has a new expiry.
    pub(super) fn replicate_touched(self, key: &[u8]) {
        if let Some(cache) = self.cache() {
            network::replicate_kept(cache, key);
        }
    }

    /// A key was removed.
    #[inline]
    pub(super) fn replicate_del(self, key: &[u8]) {
        if let Some(cache) = self.cache() {
            network::replicate_del(cache, key);
        }
    }

    /// Everything was removed.
    pub(super) fn replicate_clear(self) {
        if let Some(cache) = self.cache() {
            network::replicate_clear(cache);
        }
    }
}

//! Where the values of a cache are: in its region, or at a server.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Backed, OnDown, Options};
#[cfg(feature = "redis")]
use super::{Backend, redis};
use crate::{
    engine::{
        Cursor, Engine, Expires, Fill, FillToken, Item, ItemId, ItemRef, Math, Meta, NearStats, SetOptions,
        Side, Sink, Stats, Stored, Swap, Touch,
    },
    error::{Error, Result, StoreFault},
};

/// A cache's engine, or its backend. The operations are the engine's.
#[derive(Clone, Debug)]
pub enum Tier {
    /// The values are in the region.
    Local(Arc<Engine>),
    /// The values are at a server.
    #[cfg(feature = "redis")]
    Backed(Arc<Backed>),
}

/// A [`Tier`] that does not keep its cache alive.
#[derive(Clone, Debug)]
pub enum WeakTier {
    /// Of [`Tier::Local`].
    Local(Weak<Engine>),
    /// Of [`Tier::Backed`].
    #[cfg(feature = "redis")]
    Backed(Weak<Backed>),
}

/// Position of a walk over the items of a [`Tier`]. Starts with the default.
#[derive(Debug, Default)]
pub struct Position {
    local: Cursor,
    #[cfg(feature = "redis")]
    backed: redis::Walk,
}

/// One arm for each kind of cache.
macro_rules! by_kind {
    ($tier:expr, $engine:ident => $local:expr, $backed:ident => $remote:expr $(,)?) => {
        match $tier {
            Self::Local($engine) => $local,
            #[cfg(feature = "redis")]
            Self::Backed($backed) => $remote,
        }
    };
}

impl Tier {
    /// The place that the options name for the values of the cache with this engine.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) says which option is wrong and what to
    /// write.
    pub fn open(engine: Arc<Engine>, options: &Options, on_down: OnDown) -> Result<Self> {
        let _ = on_down;
        #[cfg(feature = "redis")]
        if let Some(settings) = options.check(&engine.config().name, on_down)? {
            if let (Some(store), false) = (&engine.config().store, engine.has_copies())
                && engine.stats().items > 0
            {
                return Err(Error::store(&store.path, StoreFault::Values));
            }
            let backed = Backed::new(engine, settings);
            backed.server().check_mode()?;
            return Ok(Self::Backed(backed));
        }
        #[cfg(not(feature = "redis"))]
        options.check_without()?;
        Self::of_store(engine)
    }

    /// A cache whose values are in the region.
    ///
    /// # Errors
    /// [`StoreFault::Copies`]: they are elsewhere.
    pub fn of_store(engine: Arc<Engine>) -> Result<Self> {
        match &engine.config().store {
            Some(store) if engine.has_copies() => Err(Error::store(&store.path, StoreFault::Copies)),
            _ => Ok(Self::Local(engine)),
        }
    }

    /// The region of this machine, with any content.
    #[inline]
    pub fn engine(&self) -> &Arc<Engine> {
        by_kind!(self, engine => engine, backed => backed.engine())
    }

    /// The region, where the values are in it.
    #[inline]
    pub fn local(&self) -> Option<&Arc<Engine>> {
        by_kind!(self, engine => Some(engine), _backed => None)
    }

    /// The server behind the cache, if there is one.
    #[cfg(feature = "redis")]
    pub fn backend(&self) -> Option<&Backend> {
        by_kind!(self, _engine => None, backed => Some(backed.server()))
    }

    /// The address of the server behind the cache, without user and password.
    pub fn server(&self) -> Option<&str> {
        by_kind!(self, _engine => None, backed => Some(backed.server().server()))
    }

    /// What was noticed when the cache was made: texts for a log.
    pub fn notes(&self) -> &[String] {
        by_kind!(self, engine => engine.notes(), backed => backed.notes())
    }

    /// Sets where lines about the copies of a cache with a backend go.
    #[cfg(feature = "capi")]
    pub(crate) fn log_to(&self, log: fn(&str)) {
        by_kind!(self, _engine => _ = log, backed => backed.log_to(log));
    }

    /// Keeps the copies of a cache with a backend up to date, in a thread of this process: at once,
    /// or as soon as no other process does. `stays`: the thread waits for that, rather than for a
    /// reader that finds that nobody does.
    pub fn start_owner(&self, stays: bool) {
        by_kind!(self, _engine => _ = stays, backed => backed.start_owner(stays));
    }

    /// Leaves that to another process that is to call [`Tier::start_owner`], as long as there is
    /// hope for it.
    #[cfg(feature = "capi")]
    pub(crate) fn reserve_owner(&self) {
        by_kind!(self, _engine => {}, backed => backed.reserve_owner());
    }

    /// A reference that does not keep the cache alive.
    pub fn downgrade(&self) -> WeakTier {
        match self {
            Self::Local(engine) => WeakTier::Local(Arc::downgrade(engine)),
            #[cfg(feature = "redis")]
            Self::Backed(backed) => WeakTier::Backed(Arc::downgrade(backed)),
        }
    }

    /// [`Engine::get`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn get<S: Sink>(&self, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        by_kind!(self, engine => engine.get(key, touch, sink), backed => backed.get(key, touch, sink))
    }

    /// The backend, whose operations on several keys take one round trip.
    pub fn backed(&self) -> Option<&Backed> {
        by_kind!(self, _engine => None, backed => Some(backed))
    }

    /// [`Engine::get_counted`]: never a round trip, because routers call it in their event loop.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get_counted<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<Option<Meta>> {
        by_kind!(self, engine => engine.get_counted(key, sink), backed => backed.get_counted(key, sink))
    }

    /// The number that the item is, as arithmetic keeps it.
    #[inline]
    pub fn number_of(&self, value: &[u8]) -> Option<i64> {
        by_kind!(
            self,
            _engine => value.try_into().ok().map(i64::from_ne_bytes),
            backed => backed.server().number_of(value),
        )
    }

    /// The value that a number is.
    pub fn value_of(&self, number: i64) -> Vec<u8> {
        by_kind!(self, _engine => number.to_ne_bytes().to_vec(), backed => backed.server().value_of(number))
    }

    /// [`Engine::is_ungettable`].
    ///
    /// # Errors
    /// As there.
    pub fn is_ungettable(&self, key: &[u8]) -> Result<bool> {
        by_kind!(self, engine => engine.is_ungettable(key), _backed => Ok(false))
    }

    /// [`Engine::exists`].
    #[inline]
    pub fn exists(&self, key: &[u8]) -> Option<ItemId> {
        by_kind!(self, engine => engine.exists(key), backed => backed.exists(key))
    }

    /// [`Tier::exists`] that tells a server that is down from a missing key.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend).
    #[cfg(feature = "cli")]
    pub(crate) fn has(&self, key: &[u8]) -> Result<bool> {
        by_kind!(self, engine => Ok(engine.exists(key).is_some()), backed => backed.server().exists(key))
    }

    /// [`Engine::prefetch_keys`].
    #[inline]
    pub(crate) fn prefetch_keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        by_kind!(self, engine => engine.prefetch_keys(keys), _backed => drop(keys))
    }

    /// [`Engine::set`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn set(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        by_kind!(self, engine => engine.set(key, value, options), backed => backed.set(key, value, options))
    }

    /// [`Engine::set`] for callers that do not ask whether the key was there.
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        by_kind!(self, engine => engine.set(key, value, options), backed => backed.put(key, value, options))
    }

    /// [`Engine::math`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn math(&self, key: &[u8], op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
        by_kind!(
            self,
            engine => engine.math(key, op, operand, options),
            backed => backed.math(key, op, operand, options),
        )
    }

    /// [`Engine::delete`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        by_kind!(self, engine => engine.delete(key), backed => backed.delete(key))
    }

    /// [`Engine::max_id`]; any at a server.
    #[cfg(feature = "capi")]
    pub(crate) fn max_id(&self) -> u32 {
        by_kind!(self, engine => engine.max_id(), _backed => u32::MAX)
    }

    /// [`Engine::delete_id`]: items at a server have no numbers.
    ///
    /// # Errors
    /// As there.
    pub fn delete_id(&self, id: ItemId) -> Result<bool> {
        by_kind!(self, engine => engine.delete_id(id), _backed => Ok(false))
    }

    /// [`Engine::clear`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    pub fn clear(&self) -> Result<()> {
        by_kind!(self, engine => engine.clear(), backed => backed.clear())
    }

    /// [`Engine::swap`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn swap(&self, key: &[u8], expected: &[u8], swap: &Swap<'_>) -> Result<bool> {
        by_kind!(self, engine => engine.swap(key, expected, swap), backed => backed.swap(key, expected, swap))
    }

    /// [`Engine::take_out`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    #[inline]
    pub fn take_out<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<bool> {
        by_kind!(self, engine => engine.take_out(key, sink), backed => backed.take_out(key, sink))
    }

    /// [`Engine::join`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    pub fn join(&self, key: &[u8], bytes: &[u8], side: Side) -> Result<Option<u64>> {
        by_kind!(self, engine => engine.join(key, bytes, side), backed => backed.join(key, bytes, side))
    }

    /// [`Engine::expire`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    pub fn expire(&self, key: &[u8], expires: Expires) -> Result<bool> {
        by_kind!(self, engine => engine.expire(key, expires), backed => backed.expire(key, expires))
    }

    /// [`Engine::begin_fill`]. With a backend the filler is the only one of all machines.
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    pub fn begin_fill<S: Sink>(
        &self,
        key: &[u8],
        lease: Duration,
        patience: Duration,
        sink: &mut S,
    ) -> Result<Fill> {
        by_kind!(
            self,
            engine => engine.begin_fill(key, lease, patience, sink),
            backed => backed.begin_fill(key, lease, patience, sink),
        )
    }

    /// [`Engine::end_fill`].
    ///
    /// # Errors
    /// As there; [`Error::Backend`](crate::Error::Backend).
    pub fn end_fill(&self, key: &[u8], token: FillToken, value: &[u8], expires: Expires) -> Result<Stored> {
        by_kind!(
            self,
            engine => engine.end_fill(key, token, value, expires),
            backed => backed.end_fill(key, token, value, expires),
        )
    }

    /// [`Engine::abandon_fill`].
    ///
    /// # Errors
    /// As there.
    pub fn abandon_fill(&self, key: &[u8], token: FillToken) -> Result<()> {
        by_kind!(self, engine => engine.abandon_fill(key, token), backed => backed.abandon_fill(key, token))
    }

    /// [`Engine::begin_refresh`]. With a backend the right is one of all machines.
    ///
    /// # Errors
    /// As there.
    pub fn begin_refresh(&self, key: &[u8], lease: Duration) -> Result<Option<FillToken>> {
        by_kind!(self, engine => engine.begin_refresh(key, lease), backed => backed.begin_refresh(key, lease))
    }

    /// [`Engine::end_refresh`].
    ///
    /// # Errors
    /// As there.
    pub fn end_refresh(&self, key: &[u8], token: FillToken) -> Result<()> {
        by_kind!(self, engine => engine.end_refresh(key, token), backed => backed.end_refresh(key, token))
    }

    /// The next item of a walk. A server that is down ends it.
    pub fn walk(&self, at: &mut Position) -> Option<Item> {
        by_kind!(self, engine => engine.walk(&mut at.local), backed => backed.walk(&mut at.backed).ok()?.map(ItemRef::to_item))
    }

    /// [`Tier::walk`] for callers that must not take a part for the whole.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend).
    #[cfg(feature = "cli")]
    pub(crate) fn try_walk(&self, at: &mut Position) -> Result<Option<Item>> {
        by_kind!(
            self,
            engine => Ok(engine.walk(&mut at.local)),
            backed => Ok(backed.walk(&mut at.backed)?.map(ItemRef::to_item)),
        )
    }

    /// [`Tier::walk`] without a copy of the key.
    pub fn walk_ref<'p>(&self, at: &'p mut Position) -> Option<ItemRef<'p>> {
        by_kind!(
            self,
            engine => engine.walk_ref(&mut at.local),
            backed => backed.walk(&mut at.backed).ok()?,
        )
    }

    /// [`Engine::sweep`] of the region.
    ///
    /// # Errors
    /// As there.
    pub fn sweep(&self) -> Result<u64> {
        self.engine().sweep()
    }

    /// [`Engine::sync`] of the region.
    ///
    /// # Errors
    /// As there.
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// Longest value that is accepted, bytes: the limits of the region are not those of a server.
    pub fn max_value(&self) -> u64 {
        by_kind!(self, engine => engine.config().max_value, _backed => redis::MAX_VALUE)
    }

    /// What this machine did with its copies; `None` = the values are in the region.
    pub fn copy_stats(&self) -> Option<NearStats> {
        by_kind!(self, _engine => None, backed => Some(backed.engine().copy_stats()))
    }

    /// [`Engine::stats`]: what this machine did.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }
}

impl WeakTier {
    /// The cache, if it is still there.
    pub fn upgrade(&self) -> Option<Tier> {
        match self {
            Self::Local(engine) => engine.upgrade().map(Tier::Local),
            #[cfg(feature = "redis")]
            Self::Backed(backed) => backed.upgrade().map(Tier::Backed),
        }
    }
}

//! The engine's operations on a cache whose values are at a server. The region holds counts and the
//! leases of fills.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Instant,
};

use super::{Backend, Calculation, Found, Limits, Old, Scan, Settings, owner::Ownership};
use crate::{
    engine::{
        Counter, Engine, Expires, Item, ItemId, ItemMeta, ItemRef, Math, Meta, Mode, SetOptions, Side, Sink,
        Stored, Swap,
    },
    error::{BackendFault, Error, Result},
    near::give,
};

/// Items at a server have no numbers; this one says that there is an item.
pub(super) const SOME_ID: ItemId = ItemId(NonZeroU32::MIN);

/// See the module.
#[derive(Debug)]
pub struct Backed {
    pub(super) engine: Arc<Engine>,
    pub(super) server: Backend,
    ownership: Ownership,
    /// Itself, for the owner's thread.
    me: Weak<Self>,
    notes: Vec<String>,
}

/// Position of a walk.
#[derive(Debug, Default)]
pub(in crate::near) struct Walk {
    /// Apart, because a walk of a local cache has none.
    scan: Option<Box<Scan>>,
    items: VecDeque<Item>,
    /// The one given out last.
    last: Option<Item>,
}

impl Backed {
    pub(in crate::near) fn new(engine: Arc<Engine>, settings: Settings) -> Arc<Self> {
        let config = engine.config();
        let max_key = usize::try_from(config.max_key).unwrap_or(usize::MAX);
        let limits = Limits { max_key, math_initial: config.math_initial };
        let notes = [engine.notes(), settings.notes()].concat();
        engine.keep_copies();
        let server = Backend::with(settings, limits, Some(Arc::clone(&engine)));
        Arc::new_cyclic(|me| Self {
            engine,
            server,
            ownership: Ownership::default(),
            me: Weak::clone(me),
            notes,
        })
    }

    pub(super) fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    #[cfg(feature = "capi")]
    pub(in crate::near) fn log_to(&self, log: fn(&str)) {
        self.ownership.log_to(log);
    }

    #[cfg(feature = "capi")]
    pub(in crate::near) fn reserve_owner(&self) {
        self.ownership.reserve();
    }

    /// Starts the thread that keeps the copies up to date, if the options ask for one and this
    /// process has none. `stays`: it waits as long as another process does it.
    pub(in crate::near) fn start_owner(&self, stays: bool) {
        if let Some(max_stale) = self.max_stale() {
            self.ownership.start(&self.me, &self.engine, max_stale, stays);
        }
    }

    /// For a read that finds no beat.
    #[cold]
    pub(super) fn seek_owner(&self) {
        if let Some(max_stale) = self.max_stale() {
            self.ownership.seek(&self.me, &self.engine, max_stale);
        }
    }

    fn max_stale(&self) -> Option<u64> {
        self.server.settings().copies.and_then(|copies| copies.max_stale)
    }

    pub(in crate::near) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(in crate::near) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The server.
    pub fn server(&self) -> &Backend {
        &self.server
    }

    pub(in crate::near) fn set(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        self.store(key, value, options, true)
    }

    pub(in crate::near) fn put(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        self.store(key, value, options, false)
    }

    fn store(&self, key: &[u8], value: &[u8], options: &SetOptions, ask: bool) -> Result<Stored> {
        self.check(options)?;
        let (expires, old) = (options.expires, old(options));
        let kept = |stored, then| if stored { then } else { Stored::Kept };
        let stored = self.write(key, |server| match options.mode {
            Mode::Add => server.add(key, value, expires).map(|stored| kept(stored, Stored::Inserted)),
            Mode::Set if ask => server.set(key, value, expires, old),
            Mode::Set => server.put(key, value, expires, old).map(|()| Stored::Updated),
            Mode::Replace => {
                server.replace(key, value, expires, old).map(|stored| kept(stored, Stored::Updated))
            }
        });
        match &stored {
            Ok(Stored::Kept) => {}
            Ok(_) => self.changed(Counter::Stored),
            Err(error) => self.refused(error),
        }
        stored
    }

    pub(in crate::near) fn math(
        &self,
        key: &[u8],
        op: Math,
        operand: i64,
        options: &SetOptions,
    ) -> Result<i64> {
        self.check(options)?;
        let only_new = options.mode == Mode::Add;
        let calculation = Calculation { op, operand, expires: options.expires, old: old(options), only_new };
        let result = self.write(key, |server| server.math(key, &calculation));
        match &result {
            Ok(_) => self.changed(Counter::Stored),
            Err(error) => self.refused(error),
        }
        result
    }

    fn check(&self, options: &SetOptions) -> Result<()> {
        if options.ungettable { Err(self.server.unsupported("an item that reads miss")) } else { Ok(()) }
    }

    pub(in crate::near) fn delete(&self, key: &[u8]) -> Result<bool> {
        let removed = self.write(key, |server| server.delete(key))?;
        if removed {
            self.changed(Counter::Deleted);
        }
        Ok(removed)
    }

    pub(in crate::near) fn clear(&self) -> Result<()> {
        let cleared = self.server.clear();
        // Whatever became of it: some keys may be gone.
        self.engine.clear_copies()?;
        cleared?;
        self.changed(Counter::Cleared);
        Ok(())
    }

    pub(in crate::near) fn swap(&self, key: &[u8], expected: &[u8], swap: &Swap<'_>) -> Result<bool> {
        let done = self.write(key, |server| server.swap(key, expected, swap))?;
        if done {
            self.changed(if *swap == Swap::Nothing { Counter::Deleted } else { Counter::Stored });
        }
        Ok(done)
    }

    /// In two steps, so that the item stays if the sink declines: whoever removes the very value
    /// that it read has it. As a write it fails while the server is down, whatever `on_down` says.
    pub(in crate::near) fn take_out<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<bool> {
        let taken = loop {
            let Some(found) = self.server.ask_each([key])?.0.pop().flatten() else {
                // A copy may still be there.
                self.forget(key)?;
                break false;
            };
            hand_over(&found, sink)?;
            if self.write(key, |server| server.swap(key, &found.value, &Swap::Nothing))? {
                break true;
            }
        };
        if taken {
            self.count_found();
            self.changed(Counter::Deleted);
        } else {
            self.engine.count(Counter::Misses, 1);
        }
        Ok(taken)
    }

    pub(in crate::near) fn join(&self, key: &[u8], bytes: &[u8], side: Side) -> Result<Option<u64>> {
        let len = self.write(key, |server| match side {
            Side::Front => server.prepend(key, bytes),
            Side::Back => server.append(key, bytes),
        })?;
        if len.is_some() {
            self.changed(Counter::Stored);
        }
        Ok(len.map(|len| len as u64))
    }

    pub(in crate::near) fn expire(&self, key: &[u8], expires: Expires) -> Result<bool> {
        self.write(key, |server| server.expire(key, expires))
    }

    /// A write of one key. Whatever becomes of it, this machine's copy is gone when it returns, and
    /// so is the lease of who computes the value: what it would store is older. A worker that is
    /// killed in between leaves that to the owner, whom the server tells of this write, too.
    pub(super) fn write<T>(&self, key: &[u8], write: impl Fn(&Backend) -> Result<T>) -> Result<T> {
        let mut written = write(&self.server);
        let deadline = Instant::now() + self.server.timeout();
        while self.server.is_overtaken(&written) && Instant::now() < deadline {
            written = write(&self.server);
        }
        self.forget(key)?;
        written
    }

    /// Removes this machine's copy.
    pub(super) fn forget(&self, key: &[u8]) -> Result<()> {
        match self.engine.invalidate(key) {
            Ok(_) => Ok(()),
            // A stopped writer holds the lock that is needed: a clear needs none.
            Err(_) => self.engine.clear_copies(),
        }
    }

    pub(in crate::near) fn walk<'w>(&self, at: &'w mut Walk) -> Result<Option<ItemRef<'w>>> {
        let scan = at.scan.get_or_insert_with(|| Box::new(self.server.scan(b"")));
        while at.items.is_empty() {
            let Some(keys) = self.server.next_keys(scan)? else { return Ok(None) };
            let metas = self.server.describe(&keys)?;
            let items = keys.into_iter().zip(metas).filter_map(|(key, meta)| {
                let (value_len, ttl) = meta?;
                Some(Item {
                    id: SOME_ID,
                    key,
                    value_len,
                    expires_millis: ttl.unix_millis(),
                    ungettable: false,
                })
            });
            at.items.extend(items);
        }
        at.last = at.items.pop_front();
        let Some(Item { id, key, value_len, expires_millis, ungettable }) = at.last.as_ref() else {
            return Ok(None);
        };
        let meta = ItemMeta {
            id: *id,
            value_len: *value_len,
            expires_millis: *expires_millis,
            ungettable: *ungettable,
        };
        Ok(Some(ItemRef { key, meta }))
    }

    /// Counts a store that was refused. A call of the server that failed is among its own figures.
    pub(super) fn refused(&self, error: &Error) {
        match error {
            Error::Backend { fault: BackendFault::Full { .. }, .. } => {
                self.engine.count(Counter::RejectedFull, 1);
            }
            Error::Backend { .. } => {}
            _ => self.engine.count(Counter::RejectedLimit, 1),
        }
    }

    pub(super) fn changed(&self, counter: Counter) {
        self.engine.count(counter, 1);
        self.engine.note_change();
    }
}

fn old(options: &SetOptions) -> Old {
    if options.keep_ttl { Old::Stays } else { Old::Goes }
}

/// Gives a value to a sink.
pub(super) fn hand_over<S: Sink>(found: &Found, sink: &mut S) -> Result<Meta> {
    if !give(&found.value, sink) {
        return Err(Error::BufferTooSmall { needed: found.value.len(), len: 0 });
    }
    Ok(Meta { len: found.value.len() as u64, expires_millis: found.ttl.unix_millis(), hits: 0, id: SOME_ID })
}

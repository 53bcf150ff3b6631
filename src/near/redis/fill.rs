//! Reads of a cache with a backend: from this machine's copies, as long as these are known to be new
//! enough, and else from the server.
//!
//! A reader that misses does not wait for another one that asks for the same key: a round trip is
//! about as short as a wake-up, and nobody waits for a process that was stopped.

use super::{
    Backed, Found, Ttl,
    backed::{SOME_ID, hand_over},
    config::Copies,
    place::MARGIN,
};
use crate::{
    engine::{Begun, Counter, Expires, FillToken, ItemId, Meta, Sink, Touch},
    error::{Error, Result},
    near::options::OnDown,
    os::clock::{self, unix_millis},
};

impl Backed {
    /// Whether copies are new enough now. To be asked *before* a copy is looked for: what is found
    /// then is as new as the beat that was loaded, even if a new term begins meanwhile.
    #[inline(always)]
    fn are_all_fresh(&self) -> bool {
        self.server.place.is_fresh(self.engine.beat())
    }

    /// The same of the copy of this key.
    #[inline(always)]
    pub(super) fn is_fresh(&self, key: &[u8]) -> bool {
        self.are_all_fresh() || self.is_fresh_at_node(key)
    }

    /// The same where another node of the cluster may be the one that tells nothing.
    #[cold]
    fn is_fresh_at_node(&self, key: &[u8]) -> bool {
        let is = self.server.is_fresh_at_node(key);
        if !is {
            self.seek_owner();
        }
        is
    }

    #[inline(always)]
    pub(in crate::near) fn get<S: Sink>(
        &self,
        key: &[u8],
        touch: Touch,
        sink: &mut S,
    ) -> Result<Option<Meta>> {
        let is_fresh = self.is_fresh(key);
        if is_fresh && let Some(meta) = self.copy(key, touch, sink)? {
            return Ok(Some(meta));
        }
        self.ask(key, touch, sink, is_fresh)
    }

    /// This machine's copy. Inlined, as the engine's reads are: a hit costs little more than theirs.
    #[inline(always)]
    fn copy<S: Sink>(&self, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        let how = match touch {
            Touch::Yes | Touch::Copy => Touch::Copy,
            Touch::No | Touch::Unseen => Touch::Unseen,
        };
        let meta = self.engine.get(key, how, sink)?;
        if touch == Touch::No && meta.is_some() {
            self.engine.count(Counter::Hits, 1);
        }
        Ok(meta)
    }

    /// Asks the server, and keeps a copy of what it says if `keep`.
    #[inline(never)]
    fn ask<S: Sink>(&self, key: &[u8], touch: Touch, sink: &mut S, keep: bool) -> Result<Option<Meta>> {
        let copy = match if keep { self.begin_copy(key) } else { Begun::Unkept } {
            Begun::Asked(token) => Some(token),
            Begun::Unkept => None,
            Begun::Absent => {
                self.count_absent(touch);
                return Ok(None);
            }
        };
        let sent = if copy.is_some() { unix_millis() } else { 0 };
        let (found, is_known) = match self.server.ask_each([key]) {
            Ok((mut found, is_known)) => (found.pop().flatten(), is_known),
            Err(error) => {
                self.abandon(key, copy);
                return self.without_server(key, touch, sink, error);
            }
        };
        self.keep(key, copy, is_known, found.as_ref(), sent);
        self.count_read(touch, found.is_some(), keep);
        found.map(|found| hand_over(&found, sink)).transpose()
    }

    /// What a read answers that the server did not.
    #[cold]
    fn without_server<S: Sink>(
        &self,
        key: &[u8],
        touch: Touch,
        sink: &mut S,
        error: Error,
    ) -> Result<Option<Meta>> {
        if !matches!(&error, Error::Backend { fault, .. } if fault.is_down()) {
            return Err(error);
        }
        if self.are_old_ones_good()
            && let Some(meta) = self.copy(key, touch, sink)?
        {
            self.engine.count(Counter::StaleServed, 1);
            return Ok(Some(meta));
        }
        self.count_read(touch, false, false);
        if self.server.settings().on_down == OnDown::Error { Err(error) } else { Ok(None) }
    }

    /// Whether copies may be served that are older than `max_stale`: the server is down, and the
    /// user prefers them to misses. To be asked before a copy is looked for.
    fn are_old_ones_good(&self) -> bool {
        let settings = self.server.settings();
        if self.server.place.is_elsewhere() {
            return false;
        }
        let (OnDown::Stale(more), Some(Copies { max_stale: Some(limit), .. })) =
            (settings.on_down, settings.copies)
        else {
            return false;
        };
        let last = self.engine.last_beat();
        let limit = limit + more.as_millis() as u64 - MARGIN;
        last != 0 && clock::millis().wrapping_sub(last) <= limit
    }

    /// The values of several keys: the copies, and in one round trip what is missing.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn get_all<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let are_all_fresh = self.are_all_fresh();
        if !are_all_fresh && !keys.iter().any(|key| self.is_fresh_at_node(key.as_ref())) {
            return self.ask_all(keys);
        }
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let (key, mut value) = (key.as_ref(), Vec::new());
            let is_fresh = are_all_fresh || self.is_fresh_at_node(key);
            let found = if is_fresh { self.copy(key, Touch::Yes, &mut value)? } else { None };
            if found.is_none() {
                match if is_fresh { self.begin_copy(key) } else { Begun::Unkept } {
                    Begun::Asked(token) => missing.push((at, key, Some(token), is_fresh)),
                    Begun::Unkept => missing.push((at, key, None, is_fresh)),
                    Begun::Absent => self.count_absent(Touch::Yes),
                }
            }
            values.push(found.map(|_| value));
        }
        if missing.is_empty() {
            return Ok(values);
        }
        let sent = unix_millis();
        let (found, is_known) = match self.server.ask_each(missing.iter().map(|(_, key, ..)| key)) {
            Ok(answer) => answer,
            Err(error) => {
                missing.into_iter().for_each(|(_, key, copy, _)| self.abandon(key, copy));
                return self.server.or_miss(Err(error), values);
            }
        };
        for ((at, key, copy, is_fresh), found) in missing.into_iter().zip(found) {
            self.keep(key, copy, is_known, found.as_ref(), sent);
            self.count_read(Touch::Yes, found.is_some(), is_fresh);
            if let Some(value) = values.get_mut(at) {
                *value = found.map(|found| found.value);
            }
        }
        Ok(values)
    }

    /// The values of several keys, of the server.
    fn ask_all<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let found = self.server.get_many(keys)?;
        for value in &found {
            self.count_read(Touch::Yes, value.is_some(), false);
        }
        Ok(found)
    }

    /// A read that asked the server. `fresh`: copies were new enough, and there was none.
    fn count_read(&self, touch: Touch, found: bool, fresh: bool) {
        match touch {
            Touch::Unseen => return,
            _ if found => self.count_found(),
            Touch::Copy => {}
            Touch::Yes | Touch::No => self.engine.count(Counter::Misses, 1),
        }
        if !fresh {
            self.engine.count(Counter::Bypassed, 1);
        }
    }

    /// A value that the server had.
    pub(super) fn count_found(&self) {
        self.engine.count(Counter::ServerHits, 1);
        self.engine.count(Counter::Hits, 1);
    }

    /// A server that is down has nothing but old copies.
    pub(in crate::near) fn exists(&self, key: &[u8]) -> Option<ItemId> {
        if self.is_fresh(key) && self.engine.exists(key).is_some() {
            return Some(SOME_ID);
        }
        match self.server.has(key) {
            Ok(there) => there.then_some(SOME_ID),
            Err(_) if self.are_old_ones_good() => self.engine.exists(key).map(|_| SOME_ID),
            Err(_) => None,
        }
    }

    /// The copy, for callers that must not wait for the server.
    pub(in crate::near) fn get_counted<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<Option<Meta>> {
        if self.is_fresh(key) { self.engine.get_counted(key, sink) } else { Ok(None) }
    }

    fn begin_copy(&self, key: &[u8]) -> Begun {
        self.engine.begin_copy(key, 2 * self.server.timeout())
    }

    /// A read of a key that is known not to be there.
    fn count_absent(&self, touch: Touch) {
        if matches!(touch, Touch::Yes | Touch::No) {
            self.engine.count(Counter::Misses, 1);
            self.engine.count(Counter::Absent, 1);
        }
    }

    fn abandon(&self, key: &[u8], copy: Option<FillToken>) {
        if let Some(token) = copy {
            self.engine.abandon_copy(key, token);
        }
    }

    /// Keeps a copy of what the server said, or gives the placeholder back. `is_known`: it is the
    /// owner's server that said it.
    fn keep(&self, key: &[u8], copy: Option<FillToken>, is_known: bool, found: Option<&Found>, sent: u64) {
        let (Some(token), Some(copies)) = (copy, self.server.settings().copies) else { return };
        let ends = match found {
            _ if !is_known => None,
            None if !copies.negative => None,
            None => life(Ttl::Never, self.server.most_absent(), sent),
            Some(found) => life(found.ttl, copies.longest_life(), sent),
        };
        match (ends, found) {
            (None, _) => self.engine.abandon_copy(key, token),
            (Some(ends), Some(found)) => _ = self.engine.end_copy(key, token, &found.value, ends),
            (Some(ends), None) => _ = self.engine.end_absent(key, token, ends),
        }
    }
}

/// When the copy of a value ends that was asked for at `sent`, Unix milliseconds, and has `ttl` left
/// since: never later than at the server, and after `most` milliseconds. `None` = it has ended.
fn life(ttl: Ttl, most: Option<u64>, sent: u64) -> Option<Expires> {
    let left = match ttl {
        Ttl::Never => None,
        Ttl::In(left) => Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    };
    match left.into_iter().chain(most).min() {
        None => Some(Expires::Never),
        Some(0) => None,
        Some(left) => Some(Expires::AtMillis(sent.saturating_add(left))),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        engine::{Config, Engine},
        near::Options,
        shm::SharedBytes,
    };

    /// Raises the beat while it takes a copy.
    struct Late<'a>(&'a Engine, u16);

    impl Sink for Late<'_> {
        fn take(&mut self, _: &SharedBytes<'_>) -> bool {
            assert!(self.0.raise_beat(self.1, clock::coarse_millis()));
            true
        }
    }

    #[test]
    fn a_beat_that_comes_after_the_copy_says_nothing_of_it() {
        let mut options = Options::default();
        assert!(options.set("backend", "redis+unix:///nowhere") && options.set("on_down", "miss"));
        let engine = Engine::create(&Config::new("late", 10)).expect("a region");
        let settings = options.check("late", OnDown::Miss).expect("valid").expect("a backend");
        let backed = Backed::new(Arc::clone(&engine), settings);
        let Begun::Asked(token) = engine.begin_copy(b"k", Duration::from_secs(5)) else {
            panic!("no placeholder")
        };
        assert!(engine.end_copy(b"k", token, b"old", Expires::Never));
        // An owner is at work, and has given no beat for long.
        engine.note_owner(clock::coarse_millis());
        let term = engine.begin_term(None).expect("a term");
        assert!(engine.raise_beat(term, 1));
        let read = || backed.get(b"k", Touch::Yes, &mut Late(&engine, term)).expect("a miss");
        assert!(read().is_none(), "the server was not asked");
        assert!(engine.raise_beat(term, clock::coarse_millis()) && read().is_some());
    }

    #[test]
    fn a_copy_ends_before_its_value_does() {
        let ttl = |millis| Ttl::In(Duration::from_millis(millis));
        assert_eq!(life(Ttl::Never, None, 5_500), Some(Expires::Never));
        assert_eq!(life(ttl(2_700), None, 5_500), Some(Expires::AtMillis(8_200)));
        assert_eq!(life(ttl(5), None, 5_500), Some(Expires::AtMillis(5_505)));
        assert_eq!(life(ttl(0), None, 5_500), None);
        assert_eq!(life(Ttl::Never, Some(3_000), 5_500), Some(Expires::AtMillis(8_500)));
        assert_eq!(life(ttl(2_700), Some(2_000), 5_500), Some(Expires::AtMillis(7_500)));
        assert_eq!(life(ttl(u64::MAX), Some(60_000), 5_500), Some(Expires::AtMillis(65_500)));
    }
}

//! Writes: `SET` with its options, `UNLINK`, `PEXPIRE`.

use super::{
    Backend, Repeat, Word,
    expiry::Ends,
    only,
    resp::{Reply, Request, Value, fine, int, is_ok, unexpected},
};
use crate::{
    engine::{Expires, Stored},
    error::Result,
};

/// What becomes of the expiry of a key that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// The new one takes its place.
    Goes,
    /// It stays; the new one is for a key that was not there.
    Stays,
}

impl Backend {
    /// Stores a value under any key, and tells which it was.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend), or a key or value that is refused.
    pub fn set(&self, key: &[u8], value: &[u8], expires: Expires, old: Old) -> Result<Stored> {
        let (key, ends) = (self.checked_pair(key, value)?, Ends::from(expires));
        if old == Old::Stays {
            return self.set_keeping_ttl(&key, value, &ends);
        }
        let was_there = match ends {
            Ends::AtOnce => self.unlink(&key)?,
            ends => {
                let mut set: Vec<Word<'_>> = vec![b"SET"[..].into(), (&key[..]).into(), value.into()];
                set.extend(ends.options());
                // One step, without a script: users may be kept from those.
                let mut request = Request::one(&[b"MULTI"]).then(&[b"EXISTS", &key]);
                self.add_write(&mut request, &key, &set.iter().map(|word| &word[..]).collect::<Vec<_>>());
                request.add(&[b"EXEC"]);
                let replies = self.call(&request, Repeat::Never)?;
                self.answer(set_in_transaction(replies))?
            }
        };
        Ok(if was_there { Stored::Updated } else { Stored::Inserted })
    }

    /// Stores a value under any key: one command, cheaper than [`Backend::set`].
    ///
    /// # Errors
    /// As [`Backend::set`].
    pub fn put(&self, key: &[u8], value: &[u8], expires: Expires, old: Old) -> Result<()> {
        let (full, ends) = (self.checked_pair(key, value)?, Ends::from(expires));
        match (old, &ends) {
            (Old::Stays, _) => self.set_keeping_ttl(&full, value, &ends).map(drop),
            (_, Ends::AtOnce) => self.unlink(&full).map(drop),
            _ => self.set_if(&full, value, None, &ends.options()).map(drop),
        }
    }

    /// Stores a value if the key is not there; returns whether it did.
    ///
    /// # Errors
    /// As [`Backend::set`].
    pub fn add(&self, key: &[u8], value: &[u8], expires: Expires) -> Result<bool> {
        let full = self.checked_pair(key, value)?;
        match Ends::from(expires) {
            Ends::AtOnce => Ok(!self.exists(key)?),
            ends => self.set_if(&full, value, Some(b"NX"), &ends.options()),
        }
    }

    /// Stores a value if the key is there; returns whether it did.
    ///
    /// # Errors
    /// As [`Backend::set`].
    pub fn replace(&self, key: &[u8], value: &[u8], expires: Expires, old: Old) -> Result<bool> {
        let key = self.checked_pair(key, value)?;
        match Ends::from(expires) {
            _ if old == Old::Stays => self.set_if(&key, value, Some(b"XX"), &[b"KEEPTTL"[..].into()]),
            Ends::AtOnce => self.unlink(&key),
            ends => self.set_if(&key, value, Some(b"XX"), &ends.options()),
        }
    }

    /// Removes a key; returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend).
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.unlink_with_lease(&self.full(key)?)
    }

    /// Gives a key another expiry; `false` = it is not there.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend).
    pub fn expire(&self, key: &[u8], expires: Expires) -> Result<bool> {
        let key = self.full(key)?;
        let write = |words: &[&[u8]]| self.write_request(&key, words);
        let request = match Ends::from(expires) {
            Ends::AtOnce => return self.unlink_with_lease(&key),
            // `PERSIST` does not tell a key without an expiry from none.
            Ends::Never => write(&[b"PERSIST", &key]).then(&[b"EXISTS", &key]),
            Ends::In(millis) => write(&[b"PEXPIRE", &key, millis.to_string().as_bytes()]),
            Ends::At(millis) => write(&[b"PEXPIREAT", &key, millis.to_string().as_bytes()]),
        };
        let counts = self.call(&request, Repeat::Never)?;
        let counts: Vec<_> = self.answer(counts.into_iter().map(int).collect::<Reply<_>>())?;
        Ok(counts.contains(&1))
    }

    pub(super) fn checked_pair(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let full = self.checked(key)?;
        Self::check_value(value)?;
        Ok(full)
    }

    /// Replaces the value of an existing key, or creates the key; retries if the key's existence
    /// changes in between.
    fn set_keeping_ttl(&self, key: &[u8], value: &[u8], ends: &Ends) -> Result<Stored> {
        let deadline = self.deadline();
        loop {
            if self.set_if(key, value, Some(b"XX"), &[b"KEEPTTL"[..].into()])? {
                return Ok(Stored::Updated);
            }
            // A new key that ends at once is never seen.
            if *ends == Ends::AtOnce || self.set_if(key, value, Some(b"NX"), &ends.options())? {
                return Ok(Stored::Inserted);
            }
            self.check_time(deadline)?;
        }
    }

    /// `SET`, with `NX` or `XX`; whether it stored.
    pub(super) fn set_if(
        &self,
        key: &[u8],
        value: &[u8],
        when: Option<&[u8]>,
        options: &[Word<'_>],
    ) -> Result<bool> {
        let mut words: Vec<&[u8]> = vec![b"SET", key, value];
        words.extend(when);
        words.extend(options.iter().map(|option| &option[..]));
        let reply = self.call(&self.write_request(key, &words), Repeat::Never)?;
        self.answer(is_ok(only(reply)))
    }

    pub(super) fn unlink(&self, key: &[u8]) -> Result<bool> {
        let reply = self.call(&self.write_request(key, &[b"UNLINK", key]), Repeat::Never)?;
        Ok(self.answer(int(only(reply)))? != 0)
    }
}

/// The replies to `MULTI`, `EXISTS`, `SET` and `EXEC`: whether the key was there before.
fn set_in_transaction(replies: Vec<Value>) -> Reply<bool> {
    let mut results = Vec::new();
    for reply in replies {
        // A command that was refused is a better reason than `EXECABORT`.
        if let Value::Array(of_exec) = fine(reply)? {
            results = of_exec;
        }
    }
    let mut results = results.into_iter();
    match (results.next(), results.next()) {
        (Some(exists), Some(set)) => {
            let was_there = int(exists)? != 0;
            if is_ok(set)? { Ok(was_there) } else { Err(unexpected("SET stored nothing")) }
        }
        _ => Err(unexpected("a transaction without results")),
    }
}

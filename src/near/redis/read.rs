//! Reads: `GET`, `MGET`, `EXISTS`, `PTTL`.

use std::time::Duration;

use super::{
    Backend, Repeat,
    figures::Count,
    only,
    resp::{self, Reply, Request, Value, array, int, is_wrong_type, string, unexpected},
};
use crate::{error::Result, os::clock::unix_millis};

/// The rest of a key's life, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// It does not expire.
    Never,
    /// It expires in this time.
    In(Duration),
}

impl Ttl {
    /// The Unix time of expiry by this machine's clock, milliseconds; 0 = never.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        match self {
            Self::Never => 0,
            Self::In(left) => {
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                unix_millis().saturating_add(left)
            }
        }
    }
}

/// A value and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value; other clients may have stored one of no bytes.
    pub value: Vec<u8>,
    /// The rest of its life.
    pub ttl: Ttl,
}

impl Backend {
    /// The value of a key. A key that holds no string is a miss.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend); a server that is down is a miss, with
    /// `on_down=miss`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.full(key).and_then(|key| self.call(&Request::one(&[b"GET", &key]), Repeat::Safe));
        self.or_miss(found.and_then(|r| self.answer(self.value_or_miss(only(r)))), None)
    }

    /// The value of a key and the rest of its life.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub fn get_expiring(&self, key: &[u8]) -> Result<Option<Found>> {
        Ok(self.get_each_expiring([key])?.pop().flatten())
    }

    /// [`Backend::get_expiring`] of several keys in one round trip.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub fn get_each_expiring<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Found>>> {
        let mut count = 0;
        let found = self.ask_each(keys.into_iter().inspect(|_| count += 1)).map(|(found, _)| found);
        self.or_miss(found, vec![None; count])
    }

    /// [`Backend::get_each_expiring`] for which a server that is down is an error, and whether the
    /// server is the one that the owner hears.
    pub(super) fn ask_each<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(Vec<Option<Found>>, bool)> {
        let mut request = Request::default();
        for key in keys {
            let key = self.full(key.as_ref())?;
            request.add(&[b"GET", &key]);
            request.add(&[b"PTTL", &key]);
        }
        if request.commands() == 0 {
            return Ok((Vec::new(), false));
        }
        let (replies, is_known) = self.call_known(&request, Repeat::Safe, self.deadline())?;
        Ok((self.answer(self.pairs(replies))?, is_known))
    }

    fn pairs(&self, replies: Vec<Value>) -> Reply<Vec<Option<Found>>> {
        let mut replies = replies.into_iter();
        let mut found = Vec::with_capacity(replies.len() / 2);
        while let (Some(value), Some(left)) = (replies.next(), replies.next()) {
            let (value, left) = (self.value_or_miss(value)?, ttl(int(left)?));
            // It may have ended in between.
            found.push(value.zip(left).map(|(value, ttl)| Found { value, ttl }));
        }
        Ok(found)
    }

    /// Length and rest of the life of several keys that hold strings.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub(super) fn describe(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<(u64, Ttl)>>> {
        let mut request = Request::default();
        for key in keys {
            let key = self.full(key)?;
            request.add(&[b"STRLEN", &key]);
            request.add(&[b"PTTL", &key]);
        }
        let pair = |pair: &[Value]| {
            let [len, left] = pair else { return Err(unexpected("a reply is missing")) };
            // Another client may have put a list in its place.
            let len =
                int(len.clone()).or_else(|fault| if is_wrong_type(&fault) { Ok(0) } else { Err(fault) })?;
            Ok(ttl(int(left.clone())?).map(|ttl| (len.unsigned_abs(), ttl)))
        };
        let replies = self.call(&request, Repeat::Safe)?;
        self.answer(replies.chunks(2).map(pair).collect())
    }

    /// The values of several keys, in one step of the server; of a cluster, in one of each node.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let keys: Vec<_> = keys.into_iter().collect();
        let full: Result<Vec<_>> = keys.iter().map(|key| self.full(key.as_ref())).collect();
        let missing = vec![None; keys.len()];
        let keys = match full {
            Ok(keys) if keys.is_empty() => return Ok(Vec::new()),
            Ok(keys) => keys,
            Err(error) => return self.or_miss(Err(error), missing),
        };
        let request = if self.cluster.is_some() {
            // Several nodes have them.
            let get = |request: Request, key: &Vec<u8>| request.then(&[b"GET", key]);
            keys.iter().fold(Request::default(), get)
        } else {
            let words: Vec<&[u8]> =
                [&b"MGET"[..]].into_iter().chain(keys.iter().map(Vec::as_slice)).collect();
            Request::one(&words)
        };
        let values = |replies: Vec<Value>| {
            let values: Vec<_> = if self.cluster.is_some() {
                replies.into_iter().map(|value| self.value_or_miss(value)).collect::<Reply<_>>()?
            } else {
                array(only(replies))?.into_iter().map(string).collect::<Reply<_>>()?
            };
            if values.len() == keys.len() { Ok(values) } else { Err(unexpected("fewer values than keys")) }
        };
        let replies = self.call(&request, Repeat::Safe);
        self.or_miss(replies.and_then(|replies| self.answer(values(replies))), missing)
    }

    /// Whether a key is there. One that holds no string is.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub fn exists(&self, key: &[u8]) -> Result<bool> {
        self.or_miss(self.has(key), false)
    }

    /// [`Backend::exists`] for which a server that is down is an error.
    pub(super) fn has(&self, key: &[u8]) -> Result<bool> {
        let request = Request::one(&[b"EXISTS", &self.full(key)?]);
        let there = self.call(&request, Repeat::Safe).and_then(|r| self.answer(int(only(r))));
        there.map(|n| n != 0)
    }

    /// The rest of a key's life; `None` = it is not there.
    ///
    /// # Errors
    /// As [`Backend::get`].
    pub fn ttl(&self, key: &[u8]) -> Result<Option<Ttl>> {
        let left = self.full(key).and_then(|key| self.call(&Request::one(&[b"PTTL", &key]), Repeat::Safe));
        let left = left.and_then(|r| self.answer(int(only(r))));
        self.or_miss(left.map(ttl), None)
    }

    /// A string; another type is a miss.
    pub(super) fn value_or_miss(&self, value: Value) -> Reply<Option<Vec<u8>>> {
        match resp::string(value) {
            Err(fault) if is_wrong_type(&fault) => {
                self.counts.add(Count::WrongType);
                Ok(None)
            }
            other => other,
        }
    }
}

/// What `PTTL` says.
pub(super) fn ttl(left: i64) -> Option<Ttl> {
    match u64::try_from(left) {
        Ok(millis) => Some(Ttl::In(Duration::from_millis(millis))),
        Err(_) if left == -1 => Some(Ttl::Never),
        Err(_) => None,
    }
}

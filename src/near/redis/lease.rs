//! Leases at the server: one caller of all machines computes a value.
//!
//! A lease is a key of its own beside the value's, outside the cache's prefix, so that nobody is told
//! of it. It holds the name of its holder and ends in time. Whoever stores under it gives the name: a
//! lease that has ended, or was voided by a delete or a clear, stores nothing.

use std::time::Duration;

use super::{
    Backend, Found, Repeat, Word,
    expiry::Ends,
    read::ttl,
    resp::{Reply, Request, Value, fine, int, string, unexpected},
    scan::Scan,
    script::Script,
};
use crate::{
    engine::Expires,
    error::{BackendFault, Error, Result},
};

/// KEYS: the key, the lease. ARGV: the holder's name; the expiry (two, as of a swap); the value. Or the
/// lease alone, and the key as the last argument. Returns 1 = stored, 0 = another value is there,
/// -1 = the lease has another holder or none.
pub(super) const FILL: Script = Script::new(
    "2a927a2d274b84b893bb0e9c79dc1dda08a57dea",
    "local k, l = KEYS[1], KEYS[2]
if not l then k, l = ARGV[5], k end
if redis.call('GET', l) ~= ARGV[1] then return -1 end
local r = 1 - redis.call('EXISTS', k)
if r == 1 and ARGV[2] ~= 'GONE' then
  if ARGV[2] == '' then redis.call('SET', k, ARGV[4])
  else redis.call('SET', k, ARGV[4], ARGV[2], ARGV[3]) end
end
redis.call('UNLINK', l)
return r",
);

/// KEYS: the lease. ARGV: the holder's name.
pub(super) const RELEASE: Script = Script::new(
    "67abacd5457b409af47451d580ed90f9f5c74f7b",
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])",
);

/// KEYS: the lease. ARGV: the name of a holder that has ended, that of the next one, and how long it
/// holds the lease, milliseconds.
pub(super) const TAKE_OVER: Script = Script::new(
    "9c1f7015792515f6a8d0de9823048b9e340ad193",
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1",
);

/// First part of a lease's name at the server.
pub(super) const PREFIX: &[u8] = b"ucl:{";
/// The longest lease, milliseconds: far from where the server's numbers overflow.
const LONGEST: u128 = 1 << 40;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A missing value.
    Fill,
    /// The successor of an old value.
    Refresh,
}

/// The result of an attempt to get a lease.
#[derive(Debug)]
pub(super) enum Claim {
    Mine,
    /// Another caller holds it, for so long at most.
    Theirs {
        holder: Vec<u8>,
        left: Duration,
    },
    /// The value to be computed is there.
    Found(Found),
    /// The server has no leases for this key, or not for this user: each machine has its own.
    Alone,
}

impl Backend {
    /// Tries to get the lease of a key. May be sent twice: a lease that has the caller's name is the
    /// caller's.
    pub(super) fn claim(&self, key: &[u8], purpose: Purpose, name: &[u8], lasts: Duration) -> Result<Claim> {
        let full = self.checked(key)?;
        let Some(lease) = lease_key(&full, purpose) else { return Ok(Claim::Alone) };
        let lasts = millis(lasts);
        let mut request = Request::one(&[b"SET", &lease, name, b"NX", b"GET", b"PX", lasts.as_bytes()])
            .then(&[b"PTTL", &lease]);
        if purpose == Purpose::Fill {
            // Behind the lease: what an earlier holder has stored is seen.
            request.add(&[b"GET", &full]);
            request.add(&[b"PTTL", &full]);
        }
        let mut replies = self.call(&request, Repeat::Safe)?.into_iter();
        let held = match fine(replies.next().unwrap_or_default()).and_then(string) {
            Err(fault) if is_forbidden(&fault) => return Ok(Claim::Alone),
            held => self.answer(held)?,
        };
        let left = self.answer(int(replies.next().unwrap_or_default()))?;
        let found = if purpose == Purpose::Fill { self.answer(self.pair(&mut replies))? } else { None };
        let is_mine = held.as_deref().is_none_or(|holder| holder == name);
        match (found, held) {
            (Some(found), _) => {
                if is_mine {
                    // If this fails, the lease ends by itself, and nobody waits for it: there is a value.
                    let _ = self.release(key, purpose, name);
                }
                Ok(Claim::Found(found))
            }
            (None, Some(holder)) if !is_mine => {
                Ok(Claim::Theirs { holder, left: Duration::from_millis(u64::try_from(left).unwrap_or(0)) })
            }
            (None, _) => Ok(Claim::Mine),
        }
    }

    /// The replies to `GET` and `PTTL` of one key.
    fn pair(&self, replies: &mut impl Iterator<Item = Value>) -> Reply<Option<Found>> {
        let (Some(value), Some(left)) = (replies.next(), replies.next()) else {
            return Err(unexpected("a reply is missing"));
        };
        let (value, left) = (self.value_or_miss(value)?, ttl(int(left)?));
        Ok(value.zip(left).map(|(value, ttl)| Found { value, ttl }))
    }

    /// Makes `next` the holder of the lease of one that has ended; `false` = it is not that one's.
    pub(super) fn take_over(
        &self,
        key: &[u8],
        purpose: Purpose,
        ended: &[u8],
        next: &[u8],
        lasts: Duration,
    ) -> Result<bool> {
        let Some(lease) = lease_key(&self.checked(key)?, purpose) else { return Ok(false) };
        let lasts = millis(lasts).into_bytes();
        let reply = self.run_anyhow(&TAKE_OVER, &[&lease], &[ended.into(), next.into(), lasts.into()])?;
        Ok(self.answer(int(reply))? != 0)
    }

    /// Stores a value under a lease, which ends, and tells whether it did. `None` = the server has no
    /// leases for this key, or not for this user.
    pub(super) fn store_under_lease(
        &self,
        key: &[u8],
        name: &[u8],
        value: &[u8],
        expires: Expires,
    ) -> Result<Option<bool>> {
        let full = self.checked_pair(key, value)?;
        let Some(lease) = lease_key(&full, Purpose::Fill) else { return Ok(None) };
        let [what, number] = Ends::from(expires).arguments();
        match self.run_on(&FILL, &[&full, &lease], &[name.into(), what, number, value.into()]) {
            Err(Error::Backend { fault, .. }) if is_forbidden(&fault) => Ok(None),
            reply => Ok(Some(self.answer(int(reply?))? == 1)),
        }
    }

    /// Gives a lease back.
    pub(super) fn release(&self, key: &[u8], purpose: Purpose, name: &[u8]) -> Result<()> {
        let Some(lease) = lease_key(&self.checked(key)?, purpose) else { return Ok(()) };
        let reply = self.run_anyhow(&RELEASE, &[&lease], &[Word::from(name)])?;
        self.answer(int(reply)).map(drop)
    }

    /// Voids the lease on a missing value, and then removes the key: in this order, so that no
    /// computation from before stores its value afterwards.
    pub(super) fn unlink_with_lease(&self, full: &[u8]) -> Result<bool> {
        let Some(lease) = lease_key(full, Purpose::Fill) else { return self.unlink(full) };
        let mut request = Request::one(&[b"UNLINK", &lease]).in_order();
        self.add_write(&mut request, full, &[b"UNLINK", full]);
        let mut replies = self.call(&request, Repeat::Never)?;
        // A user who may not touch leases has none.
        let removed = replies.pop().unwrap_or_default();
        Ok(self.answer(int(removed))? != 0)
    }

    /// Voids the leases of all keys of this cache.
    pub(super) fn void_leases(&self) -> Result<()> {
        let mut scan = Scan::of([PREFIX, b"*"].concat());
        while let Some(mut keys) = self.next_batch(&mut scan, false)? {
            keys.retain(|lease| key_of(lease).is_some_and(|key| key.starts_with(&self.settings.prefix)));
            if keys.is_empty() {
                continue;
            }
            for reply in self.call(&self.unlinks(&keys), Repeat::Never)? {
                match fine(reply) {
                    Err(fault) if is_forbidden(&fault) => return Ok(()),
                    reply => _ = self.answer(reply)?,
                }
            }
        }
        Ok(())
    }
}

fn millis(lasts: Duration) -> String {
    lasts.as_millis().clamp(1, LONGEST).to_string()
}

/// Whether a user lacks a right.
fn is_forbidden(fault: &BackendFault) -> bool {
    matches!(fault, BackendFault::Refused { reply } if reply.starts_with("NOPERM"))
}

/// The key of a lease: in a cluster in the slot of the value's key, as scripts need it. `None` = there
/// is none for this key.
fn lease_key(full: &[u8], purpose: Purpose) -> Option<Vec<u8>> {
    let kind: &[u8] = if purpose == Purpose::Fill { b"}f" } else { b"}r" };
    match tag(full) {
        Some(tag) => Some([PREFIX, tag, kind, full].concat()),
        // It would end the tag too early.
        None if full.contains(&b'}') => None,
        None => Some([PREFIX, full, kind].concat()),
    }
}

/// The key that a lease is of.
fn key_of(lease: &[u8]) -> Option<&[u8]> {
    let rest = lease.strip_prefix(PREFIX)?;
    let end = rest.iter().position(|&byte| byte == b'}')?;
    let own = rest.get(end + 2..).filter(|own| !own.is_empty());
    Some(own.unwrap_or(&rest[..end]))
}

/// The part of a key that chooses its slot, if that is not the whole key.
fn tag(key: &[u8]) -> Option<&[u8]> {
    let from = key.iter().position(|&byte| byte == b'{')? + 1;
    let len = key[from..].iter().position(|&byte| byte == b'}')?;
    (len > 0).then(|| &key[from..from + len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lies_in_the_slot_of_its_key() {
        let of = |key: &str| lease_key(key.as_bytes(), Purpose::Fill);
        let text = |lease: Option<Vec<u8>>| lease.map(|lease| String::from_utf8(lease).expect("text"));
        assert_eq!(text(of("p:k")).as_deref(), Some("ucl:{p:k}f"));
        assert_eq!(text(of("p:a{b}c")).as_deref(), Some("ucl:{b}fp:a{b}c"));
        assert_eq!(text(of("p:a{b")).as_deref(), Some("ucl:{p:a{b}f"));
        for none in ["p:a}b", "p:a{}b", "}"] {
            assert_eq!(of(none), None, "{none}");
        }
        let refresh = lease_key(b"p:k", Purpose::Refresh);
        assert_eq!(text(refresh.clone()).as_deref(), Some("ucl:{p:k}r"));
        for key in ["p:k", "p:a{b}c", "p:a{b", "k"] {
            let lease = of(key).expect("a lease");
            assert_eq!(key_of(&lease), Some(key.as_bytes()));
            // The slot is chosen by the same bytes.
            assert_eq!(tag(&lease).expect("a tag"), tag(key.as_bytes()).unwrap_or(key.as_bytes()));
        }
        assert_eq!(key_of(b"ucl:{open"), None);
    }
}

//! Leases as objects: for callers that compute a value between two calls, such as bindings of
//! languages whose functions must not run inside a function of C.

use std::{
    ffi::{c_int, c_void},
    time::Duration,
};

use super::{
    call::call,
    error::{CallError, CallResult, answer},
    nodes::Nodes,
    open::{Shared, ucache},
    read::{Room, apart, copied, key},
    status::Status,
    write::{expires, value},
};
use crate::{
    capi::{arg, panic::shielded},
    engine::{Expires, Fill, FillToken, MAX_STALE, Meta, Stored, Swap, Touch},
    error::{Error, Result},
};

/// The right to compute the value of a key. Dropping it gives the right up.
#[allow(non_camel_case_types, reason = "the name of the header")]
#[allow(missing_debug_implementations, reason = "opaque to C")]
pub struct ucache_lease {
    tier: Shared,
    nodes: Nodes,
    key: Vec<u8>,
    token: Option<FillToken>,
    /// The old value, if this is a refresh.
    old: Option<Vec<u8>>,
    /// Milliseconds that a value is kept after its time to live.
    stale: u64,
}

impl ucache_lease {
    /// The token, unless this is a child forked meanwhile.
    fn take_token(&mut self) -> Option<FillToken> {
        self.token.take().filter(|token| !token.is_inherited())
    }

    fn store(&mut self, value: &[u8], expires: Expires) -> CallResult {
        let Some(token) = self.take_token() else { return Ok(Status::Changed) };
        let stored = match &self.old {
            Some(old) => {
                let swapped = self.tier.swap(&self.key, old, &Swap::Value(value, Some(expires)));
                // The mark of the refresh ends by itself if this fails.
                let _ = self.tier.end_refresh(&self.key, token);
                swapped?
            }
            None => self.tier.end_fill(&self.key, token, value, expires)? == Stored::Inserted,
        };
        if stored {
            self.nodes.replicate_set(&self.key, value, Some(expires));
        }
        answer(stored, Status::Changed)
    }
}

impl Drop for ucache_lease {
    fn drop(&mut self) {
        let Some(token) = self.take_token() else { return };
        // If this fails, a waiter takes over when the lease ends.
        let _ = match self.old {
            Some(_) => self.tier.end_refresh(&self.key, token),
            None => self.tier.abandon_fill(&self.key, token),
        };
    }
}

#[allow(clippy::too_many_arguments, reason = "C has no other way to say it")]
/// Reads a key, or gives the caller the right to compute its value.
///
/// # Safety
/// See [`super`]: handle, key, buffer; `len` and `lease` are out parameters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_lease_begin(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    stale: u64,
    limit: u64,
    wait: u64,
    lease: *mut *mut ucache_lease,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        call(|| {
            let cache = cache.as_ref().ok_or(CallError::Argument("the cache is NULL"))?;
            if lease.is_null() {
                return Err(CallError::Argument("lease is NULL: there is no place for the lease"));
            }
            let mut copy = Vec::new();
            let key = apart(self::key(cache.tier(), key, keylen)?, buffer, size, &mut copy)?;
            let mut room = Room::new(buffer, size)?;
            let (limit, wait) = (Duration::from_millis(limit), Duration::from_millis(wait));
            let mut made = ucache_lease {
                tier: cache.shared(),
                nodes: cache.nodes(),
                key: Vec::new(),
                token: None,
                old: None,
                stale: stale.saturating_mul(1000).min(MAX_STALE),
            };
            copied(key, &mut made.key)?;
            let begun = match made.refresh(limit)? {
                true => Begun::Lease,
                false => made.fill(limit, wait, &mut room),
            };
            match begun {
                Begun::Lease => {
                    arg::store(lease, Box::into_raw(Box::new(made)));
                    Ok(Status::Lease)
                }
                Begun::Busy => Ok(Status::Busy),
                Begun::Hit => {
                    arg::store(len, room.len);
                    Ok(Status::Ok)
                }
                Begun::Failed(error) => {
                    if let Error::BufferTooSmall { .. } = error {
                        arg::store(len, room.len);
                    }
                    Err(error.into())
                }
            }
        })
    }
}

enum Begun {
    Hit,
    Lease,
    Busy,
    Failed(Error),
}

impl ucache_lease {
    /// Reads the value, or becomes the one that computes it.
    fn fill(&mut self, limit: Duration, wait: Duration, room: &mut Room<'_>) -> Begun {
        match self.tier.begin_fill(&self.key, limit, wait, room) {
            Ok(Fill::Hit(_)) => Begun::Hit,
            Ok(Fill::Filler(token)) => {
                self.token = Some(token);
                Begun::Lease
            }
            Ok(Fill::TimedOut) => Begun::Busy,
            Err(error) => Begun::Failed(error),
        }
    }

    /// Whether the value is old, and this caller is to compute the new one.
    fn refresh(&mut self, limit: Duration) -> Result<bool> {
        if self.stale == 0 {
            return Ok(false);
        }
        let Some(first) = self.tier.get(&self.key, Touch::Unseen, &mut ())? else { return Ok(false) };
        if !self.is_old(&first) {
            return Ok(false);
        }
        let token = match self.tier.begin_refresh(&self.key, limit) {
            Ok(Some(token)) => token,
            Ok(None) | Err(Error::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.token = Some(token);
        // Read after the lease began: another caller may have refreshed since the first read.
        let mut old = Vec::new();
        match self.tier.get(&self.key, Touch::Yes, &mut old)? {
            Some(now) if self.is_old(&now) => {
                self.old = Some(old);
                Ok(true)
            }
            _ => {
                if let Some(token) = self.token.take() {
                    self.tier.end_refresh(&self.key, token)?;
                }
                Ok(false)
            }
        }
    }

    /// Whether an item is past its time to live.
    fn is_old(&self, meta: &Meta) -> bool {
        meta.ends_within(self.stale)
    }
}

/// Stores the computed value, and ends the lease in any case.
///
/// # Safety
/// See [`super`]: value; `lease` is NULL or from `ucache_lease_begin`, and used for the last time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_lease_end(
    lease: *mut ucache_lease,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    call(|| {
        if lease.is_null() {
            return Err(CallError::Argument("the lease is NULL"));
        }
        // SAFETY: from `ucache_lease_begin`, and the caller gives it up.
        let mut lease = unsafe { Box::from_raw(lease) };
        // SAFETY: the caller vouches for the value.
        let value = unsafe { self::value(value, vallen) }?;
        let expires = match expires(ttl)? {
            Expires::InMillis(millis) => Expires::InMillis(millis.saturating_add(lease.stale)),
            other => other,
        };
        lease.store(value, expires)
    })
}

/// Gives a lease up: one of the waiting callers computes. NULL is allowed.
///
/// # Safety
/// `lease` is NULL or from `ucache_lease_begin`, and used for the last time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_lease_drop(lease: *mut ucache_lease) {
    shielded((), || {
        if !lease.is_null() {
            // SAFETY: from `ucache_lease_begin`, and the caller gives it up.
            drop(unsafe { Box::from_raw(lease) });
        }
    });
}

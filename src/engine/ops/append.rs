//! Append and prepend: copy-on-write of an entry whose new value contains the old one.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Sink,
        index::entry::{LEASE, UNGETTABLE},
        ops::set::{New, WriteAbort},
        stats::Counter,
    },
    error::Result,
    shm::SharedBytes,
};

/// Where [`Engine::join`] puts the new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the value.
    Front,
    /// Behind the value.
    Back,
}

impl Engine {
    /// Adds bytes to the value of `key` in one step and returns the new length; `None` = no such
    /// key. The expiry stays, and the item counts as used. Items that reads miss are left alone.
    ///
    /// # Errors
    /// As [`Engine::set`]; the new value is subject to the limits.
    pub fn join(&self, key: &[u8], bytes: &[u8], side: Side) -> Result<Option<u64>> {
        // Nothing more to store is no empty value.
        self.check_limits(key, bytes.len().max(1))?;
        let hashed = self.hash_key(key);
        let mut joined = Joined { bytes, side, value: Vec::new() };
        let (mut len, mut fits) = (0, true);
        let done = self.with_copy(&hashed, &mut joined, |guard, found, mut copy| {
            let Some(f) = found.filter(|f| f.header.flags & (LEASE | UNGETTABLE) == 0) else {
                return Ok(Some(false));
            };
            len = f.header.value_len + bytes.len() as u64;
            fits = self.value_fits(len);
            if !fits {
                return Ok(Some(false));
            }
            match copy.of(&f) {
                None => return Ok(None),
                Some(false) => return Err(WriteAbort::NoSpace(len)),
                Some(true) => {}
            }
            let new = New { value: &copy.sink.value, expires: f.header.expires, flags: f.header.flags };
            self.replace(guard, &hashed, &f, &new)?;
            self.touch(f.bucket, f.slot);
            Ok(Some(true))
        })?;
        if !fits {
            // Refuses, and counts the refusal.
            self.check_limits(key, len as usize)?;
        }
        if done {
            self.count(Counter::Stored, 1);
            self.note_change();
        }
        Ok(done.then_some(len))
    }
}

/// Takes the old value, and holds the new one.
struct Joined<'a> {
    bytes: &'a [u8],
    side: Side,
    value: Vec<u8>,
}

impl Sink for Joined<'_> {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.value.clear();
        // Room for both at once: under the lock, a value of the same length allocates nothing.
        if self.value.try_reserve_exact(src.len() + self.bytes.len()).is_err() {
            return false;
        }
        if self.side == Side::Front {
            self.value.extend_from_slice(self.bytes);
        }
        src.append_to(&mut self.value);
        if self.side == Side::Back {
            self.value.extend_from_slice(self.bytes);
        }
        true
    }
}

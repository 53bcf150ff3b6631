//! Longer values: append and prepend, where the key is there. Its expiry stays.

use super::{Backend, resp::int, script::Script};
use crate::error::Result;

/// KEYS: the key. ARGV: what is added. Returns the new length, -1 = the key is not there.
pub(super) const APPEND: Script = Script::new(
    "0d6c615fe8418e757b24e72b874ce147f9c4bb7b",
    "if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
return redis.call('APPEND', KEYS[1], ARGV[1])",
);
pub(super) const PREPEND: Script = Script::new(
    "b5eda91ee9eb05086a32490bb6ccc9d329b4e130",
    "local v = redis.call('GET', KEYS[1])
if not v then return -1 end
redis.call('SET', KEYS[1], ARGV[1] .. v, 'KEEPTTL')
return #v + #ARGV[1]",
);

impl Backend {
    /// Puts bytes behind a key's value; returns the new length, `None` = the key is not there.
    ///
    /// # Errors
    /// [`Error::Backend`](crate::Error::Backend), or a key or value that is refused.
    pub fn append(&self, key: &[u8], bytes: &[u8]) -> Result<Option<usize>> {
        self.lengthen(&APPEND, key, bytes)
    }

    /// Puts bytes before a key's value; otherwise as [`Backend::append`].
    ///
    /// # Errors
    /// As [`Backend::append`].
    pub fn prepend(&self, key: &[u8], bytes: &[u8]) -> Result<Option<usize>> {
        self.lengthen(&PREPEND, key, bytes)
    }

    fn lengthen(&self, script: &Script, key: &[u8], bytes: &[u8]) -> Result<Option<usize>> {
        let key = self.checked(key)?;
        // Nothing to add is no empty value.
        Self::check_value(if bytes.is_empty() { b"-" } else { bytes })?;
        let reply = self.run(script, &key, &[bytes.into()])?;
        Ok(usize::try_from(self.answer(int(reply))?).ok())
    }
}

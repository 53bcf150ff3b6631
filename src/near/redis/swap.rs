//! Writes that depend on what is there: compare-and-swap, compare-and-delete.

use super::{Backend, Word, expiry::Ends, resp::int, script::Script};
use crate::{
    engine::Swap,
    error::{Error, Result},
};

/// KEYS: the key. ARGV: the value expected; what is to be done (`GONE`, `KEEPTTL`, `PX`, `PXAT` or
/// nothing) and its number; the new value. Returns whether it was done.
pub(super) const SWAP: Script = Script::new(
    "129614409c25b5151690f906821426ea55eea583",
    "local v = redis.pcall('GET', KEYS[1])
if type(v) ~= 'string' or v ~= ARGV[1] then return 0 end
if ARGV[2] == 'GONE' then redis.call('UNLINK', KEYS[1])
elseif ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[4])
elseif ARGV[2] == 'KEEPTTL' then redis.call('SET', KEYS[1], ARGV[4], 'KEEPTTL')
else redis.call('SET', KEYS[1], ARGV[4], ARGV[2], ARGV[3]) end
return 1",
);

impl Backend {
    /// Replaces or removes a key if its value equals `expected`; returns whether it did. One step
    /// for everybody else.
    ///
    /// # Errors
    /// [`Error::Backend`], or a key or value that is refused.
    pub fn swap(&self, key: &[u8], expected: &[u8], swap: &Swap<'_>) -> Result<bool> {
        let (what, value): ([Word<'_>; 2], &[u8]) = match *swap {
            Swap::Nothing => (Ends::AtOnce.arguments(), b""),
            Swap::Value(value, expires) => {
                Self::check_value(value)?;
                (expires.map_or_else(keep, |expires| Ends::from(expires).arguments()), value)
            }
        };
        let key = match self.checked(key) {
            // Nothing is there to be removed.
            Err(Error::EmptyKey | Error::KeyTooLong { .. }) if *swap == Swap::Nothing => return Ok(false),
            key => key?,
        };
        let [what, number] = what;
        let reply = self.run(&SWAP, &key, &[expected.into(), what, number, value.into()])?;
        Ok(self.answer(int(reply))? != 0)
    }
}

fn keep() -> [Word<'static>; 2] {
    [(&b"KEEPTTL"[..]).into(), (&b"0"[..]).into()]
}

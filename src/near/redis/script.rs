//! Lua at the server, where one command cannot do it in one step.

use super::{
    Backend, Repeat, Word,
    append::{APPEND, PREPEND},
    generations::NEXT,
    lease::{FILL, RELEASE, TAKE_OVER},
    numbers::{BINARY, DECIMAL},
    only,
    resp::{Request, Value, fine},
    swap::SWAP,
};
use crate::error::{BackendFault, Result};

/// A script. Its keys and arguments are documented where it is defined. One of two keys takes the
/// second one alone, too, and the first as its last argument: see [`Request::for_newcomer`].
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: &'static str,
    /// SHA-1 of the code, hexadecimal: the server's name for it.
    pub(super) digest: &'static str,
}

/// All scripts.
pub(super) const ALL: [&Script; 9] =
    [&SWAP, &APPEND, &PREPEND, &BINARY, &DECIMAL, &FILL, &RELEASE, &TAKE_OVER, &NEXT];

impl Script {
    pub(super) const fn new(digest: &'static str, code: &'static str) -> Self {
        Self { code, digest }
    }
}

impl Backend {
    /// Runs a script on one key: by its hash, and as a whole where the server does not know it.
    pub(super) fn run(&self, script: &Script, key: &[u8], args: &[Word<'_>]) -> Result<Value> {
        self.run_on(script, &[key], args)
    }

    /// [`Backend::run`] on several keys, of which the first one is the value's.
    pub(super) fn run_on(&self, script: &Script, keys: &[&[u8]], args: &[Word<'_>]) -> Result<Value> {
        let first = keys.first().copied().unwrap_or_default();
        let Some((code, name, number)) = self.guarded(script, first) else {
            return self.run_anyhow(script, keys, args);
        };
        let count = (keys.len() + 1).to_string();
        let mut words: Vec<&[u8]> = vec![b"EVAL", code.as_bytes(), count.as_bytes()];
        words.extend(keys);
        words.push(&name);
        words.extend(args.iter().map(|arg| &arg[..]));
        words.push(number);
        let reply = self.call(&Request::one(&words), Repeat::Never).map(only)?;
        self.answer(fine(reply))
    }

    /// Runs a script on keys that are no value's, or have no numbers.
    pub(super) fn run_anyhow(&self, script: &Script, keys: &[&[u8]], args: &[Word<'_>]) -> Result<Value> {
        let count = keys.len().to_string();
        let send = |how: &[u8], what: &[u8]| {
            let mut words: Vec<&[u8]> = vec![how, what, count.as_bytes()];
            words.extend(keys);
            words.extend(args.iter().map(|arg| &arg[..]));
            let mut request = Request::one(&words);
            if let (Some(_), [first, second]) = (&self.cluster, keys) {
                let mut words: Vec<&[u8]> = vec![how, what, b"1", second];
                words.extend(args.iter().map(|arg| &arg[..]));
                words.push(first);
                request = request.for_newcomer(Request::one(&words));
            }
            self.call(&request, Repeat::Never).map(only)
        };
        let reply = send(b"EVALSHA", script.digest.as_bytes())?;
        match fine(reply) {
            // It was not executed.
            Err(BackendFault::Refused { reply }) if reply.starts_with("NOSCRIPT") => {
                let reply = send(b"EVAL", script.code.as_bytes())?;
                self.answer(fine(reply))
            }
            reply => self.answer(reply),
        }
    }
}

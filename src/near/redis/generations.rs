//! `clear=generation`: the server's keys carry a number, and a clear raises it. What has an older
//! number is not read any more, and removed in the background.
//!
//! The number is in a key of its own under the cache's prefix, so that the owners of all machines are
//! told of a clear like of any change: they remove all copies. Each process remembers the number
//! together with the state of the region's copies before it asked; it uses the number only while that
//! state is the same and copies are new enough, and else asks again. So a number is as new as copies
//! are. Writes do not rely on it: each of them is executed at the server only if its number still is
//! in force.
//!
//! The first process of a machine that is told of another number removes the region's copies before it
//! goes on: the others must not read under the old number what this one writes under the new one.

use std::{
    sync::{Mutex, Weak},
    thread,
    time::Duration,
};

use super::{
    Backed, Backend, Repeat, only,
    resp::{Request, int, string, unexpected},
    scan::Scan,
    script::Script,
};
use crate::{
    error::{BackendFault, Error, Result},
    os::{process::random_words, worker},
};

/// KEYS: the key of the number. ARGV: `1` = whatever it is, it is raised. Returns the number. One that
/// was lost (evicted, flushed with the values, or replaced by other text) becomes one that no value has:
/// the server's time.
pub(super) const NEXT: Script = Script::new(
    "523e97da0d2ef2669d99b5dc694720c5eb99c1f2",
    "local s = redis.call('GET', KEYS[1]) or ''
local g = string.find(s, '^[1-9]%d*$') and tonumber(s)
if g and g >= 2^53 then g = nil end
if g and ARGV[1] ~= '1' then return s end
local t = redis.call('TIME')
local n = t[1] * 1000000 + t[2]
if g and n <= g then n = g + 1 end
s = string.format('%.0f', n)
redis.call('SET', KEYS[1], s)
return s",
);

/// First word of the error of a write whose number is not in force.
const OLD: &str = "OLDGEN";
/// Stands before a script. The key of the number and the number are behind its own.
const GUARD: &str = "if redis.call('GET', KEYS[#KEYS]) ~= ARGV[#ARGV] then return redis.error_reply('OLDGEN cleared meanwhile') end\n";
/// A command, guarded.
const COMMAND: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[#ARGV] then return redis.error_reply('OLDGEN cleared meanwhile') end
return redis.pcall(unpack(ARGV, 1, #ARGV - 1))";

/// Names behind the cache's prefix that no value has: those begin with a digit.
const NUMBER: &[u8] = b"#gen";
const SWEEPER: &[u8] = b"#sweep";
const SWEPT: &[u8] = b"#swept";

/// How long one machine has the right to sweep without using it, milliseconds.
const TURN: &[u8] = b"60000";
/// Pause between two steps of a sweep: what else the server does goes first.
const PAUSE: Duration = Duration::from_millis(10);

/// What a name behind the cache's prefix is, as the server tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A key, which begins `at` there, and its number.
    Key {
        number: u64,
        at: usize,
    },
    Number,
    Other,
}

/// Reads a name behind the cache's prefix.
pub(super) fn name_of(name: &[u8]) -> Name {
    if name == NUMBER {
        return Name::Number;
    }
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&name[..digits]).ok().and_then(|digits| digits.parse().ok());
    match number {
        Some(number) if name.get(digits) == Some(&b':') => Name::Key { number, at: digits + 1 },
        _ => Name::Other,
    }
}

/// The number as this process knows it.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<Option<Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    /// State of the region's copies before the server was asked.
    state: u64,
    number: u64,
}

impl Generations {
    /// A lock that another thread has, or had when this process was forked, is not waited for.
    fn known(&self, state: u64) -> Option<u64> {
        let known = (*self.0.try_lock().ok()?)?;
        (known.state == state).then_some(known.number)
    }

    fn note(&self, known: Option<Known>) {
        if let Ok(mut place) = self.0.try_lock() {
            *place = known;
        }
    }
}

impl Backend {
    /// The key at the server.
    ///
    /// # Errors
    /// [`Error::Backend`]: its number must be asked for.
    pub(super) fn full(&self, key: &[u8]) -> Result<Vec<u8>> {
        let prefix = &self.settings.prefix[..];
        let Some(generations) = &self.generations else { return Ok([prefix, key].concat()) };
        let number = self.generation(generations)?.to_string();
        Ok([prefix, number.as_bytes(), b":", key].concat())
    }

    /// The number in force.
    fn generation(&self, generations: &Generations) -> Result<u64> {
        // In this order: a state that was loaded after the beat is as new as copies are.
        let fresh = self.region.as_ref().filter(|region| self.place.is_fresh(region.beat()));
        let state = fresh.map(|region| region.state_of_copies());
        if let Some(number) = state.and_then(|state| generations.known(state)) {
            return Ok(number);
        }
        let request = Request::one(&[b"GET", &self.name(NUMBER)]);
        let (replies, is_known) = self.call_known(&request, Repeat::Safe, self.deadline())?;
        let Some(number) = number_of(self.answer(string(only(replies)))?) else {
            // Nobody has given one yet, or it was lost.
            return self.raise_generation(false);
        };
        self.note_number(number)?;
        if let Some(state) = state.filter(|_| is_known) {
            generations.note(Some(Known { state, number }));
        }
        Ok(number)
    }

    fn name(&self, name: &[u8]) -> Vec<u8> {
        [&self.settings.prefix, name].concat()
    }

    /// Gives another number, or the one that is there.
    fn raise_generation(&self, always: bool) -> Result<u64> {
        let flag = if always { &b"1"[..] } else { b"0" };
        let reply = self.run_anyhow(&NEXT, &[&self.name(NUMBER)], &[flag.into()])?;
        let number = number_of(self.answer(string(reply))?);
        let number = number.ok_or_else(|| self.error(unexpected("no generation")))?;
        self.note_number(number)?;
        Ok(number)
    }

    /// No process of this machine uses another number from here on.
    fn note_number(&self, number: u64) -> Result<()> {
        self.region.as_ref().map_or(Ok(()), |region| region.note_number(number))
    }

    /// A clear in one step, however many keys there are. `false` = this cache's keys have no numbers.
    pub(super) fn clear_by_number(&self) -> Result<bool> {
        let Some(generations) = &self.generations else { return Ok(false) };
        generations.note(None);
        self.raise_generation(true).map(|_| true)
    }

    /// Whether a write was not executed because the cache was cleared meanwhile; then the number will
    /// be asked for again.
    pub(super) fn is_overtaken<T>(&self, written: &Result<T>) -> bool {
        let Some(generations) = &self.generations else { return false };
        let is = matches!(
            written,
            Err(Error::Backend { fault: BackendFault::Refused { reply }, .. }) if reply.starts_with(OLD)
        );
        if is {
            generations.note(None);
        }
        is
    }

    /// Adds a write of a key: it is executed only if the key's number is in force.
    pub(super) fn add_write(&self, request: &mut Request, key: &[u8], words: &[&[u8]]) {
        let Some(number) = self.number_in(key) else { return request.add(words) };
        let name = self.name(NUMBER);
        let mut guarded: Vec<&[u8]> = vec![b"EVAL", COMMAND.as_bytes(), b"2", key, &name];
        guarded.extend(words);
        guarded.push(number);
        request.add(&guarded);
    }

    /// The request of a single write.
    pub(super) fn write_request(&self, key: &[u8], words: &[&[u8]]) -> Request {
        let mut request = Request::default();
        self.add_write(&mut request, key, words);
        request
    }

    /// A script that is executed only if the number of its first key is in force: its text, with what
    /// it needs behind its keys and arguments. `None` = keys have no numbers.
    pub(super) fn guarded<'k>(&self, script: &Script, key: &'k [u8]) -> Option<(String, Vec<u8>, &'k [u8])> {
        let number = self.number_in(key)?;
        Some((format!("{GUARD}{}", script.code), self.name(NUMBER), number))
    }

    /// The number in a key at the server.
    fn number_in<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        self.generations.as_ref()?;
        let rest = key.get(self.settings.prefix.len()..)?;
        let Name::Key { at, .. } = name_of(rest) else { return None };
        rest.get(..at - 1)
    }

    /// Takes one step of a sweep; `None` = nothing is left to do, or another machine does it.
    fn sweep_step(&self, sweep: &mut Sweep) -> Result<Option<()>> {
        let Some(scan) = &mut sweep.scan else { return self.begin_or_end_sweep(sweep) };
        let keys = self.next_batch(scan, false)?;
        let is_over = keys.is_none();
        let keys = keys.unwrap_or_default();
        let is_old = |key: &&Vec<u8>| {
            let name = key.get(self.settings.prefix.len()..).unwrap_or_default();
            matches!(name_of(name), Name::Key { number, .. } if number < sweep.number)
        };
        let mut words: Vec<&[u8]> = vec![b"UNLINK"];
        words.extend(keys.iter().filter(is_old).map(Vec::as_slice));
        let mut request = Request::one(&[b"PEXPIRE", &self.name(SWEEPER), TURN]);
        if words.len() > 1 {
            request.add(&words);
        }
        for reply in self.call(&request, Repeat::Never)? {
            self.answer(int(reply))?;
        }
        if is_over {
            sweep.scan = None;
            let number = sweep.number.to_string();
            let end = Request::one(&[b"SET", &self.name(SWEPT), number.as_bytes()])
                .then(&[b"UNLINK", &self.name(SWEEPER)]);
            self.call(&end, Repeat::Never)?;
        }
        Ok(Some(()))
    }

    /// Whether there is something to be swept, by this machine.
    fn begin_or_end_sweep(&self, sweep: &mut Sweep) -> Result<Option<()>> {
        let request = Request::one(&[b"GET", &self.name(NUMBER)]).then(&[b"GET", &self.name(SWEPT)]);
        let numbers: Vec<_> = self.call(&request, Repeat::Safe)?.into_iter().map(string).collect();
        let numbers: Vec<_> =
            numbers.into_iter().map(|reply| self.answer(reply).map(number_of)).collect::<Result<_>>()?;
        let [Some(now), swept] = numbers[..] else { return Ok(None) };
        if swept.is_some_and(|swept| swept >= now) {
            return Ok(None);
        }
        let take = [b"SET", &self.name(SWEEPER)[..], &sweep.word.to_le_bytes(), b"NX", b"PX", TURN];
        let reply = only(self.call(&Request::one(&take), Repeat::Never)?);
        if self.answer(super::resp::is_ok(reply))? {
            (sweep.scan, sweep.number) = (Some(Scan::of(self.pattern(b"", b"[0-9]*"))), now);
            return Ok(Some(()));
        }
        Ok(None)
    }
}

/// The removal of what a clear left.
#[derive(Debug, Default)]
struct Sweep {
    /// Whose it is.
    word: u64,
    /// What has a lower number goes.
    number: u64,
    /// `None` = it has not begun, or is over.
    scan: Option<Scan>,
}

/// Removes what clears have left, in a thread of its own, unless another machine does.
pub(super) fn sweep(backed: &Weak<Backed>) {
    let backed = Weak::clone(backed);
    if backed.upgrade().is_none_or(|backed| backed.server.generations.is_none()) {
        return;
    }
    let mut word = [0];
    random_words(&mut word);
    let mut sweep = Sweep { word: word[0], ..Sweep::default() };
    // Without a thread a later one sees to it.
    let _ = worker::spawn("ucache-sweep", move || {
        while let Some(backed) = backed.upgrade() {
            // A server that is down leaves it to a later one.
            let Ok(Some(())) = backed.server.sweep_step(&mut sweep) else { return };
            drop(backed);
            thread::sleep(PAUSE);
        }
    });
}

/// A number as [`NEXT`] writes it: writes compare its text with what is there.
fn number_of(text: Option<Vec<u8>>) -> Option<u64> {
    let text = String::from_utf8(text?).ok()?;
    text.parse().ok().filter(|number: &u64| (1..1 << 53).contains(number) && number.to_string() == text)
}

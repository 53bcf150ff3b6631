//! Actors that perform recorded random operations in their own processes.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::sys::signal::Signal;
use ucache::{
    Error,
    engine::{Engine, Expires, Fill, FillToken, Math, Mode, SetOptions, Stored, Swap, Touch},
};

use crate::{
    engine_proc::{Child, Scratch, now, say},
    engine_value::{self, Bytes, Stamp},
    history::{Answer, Checker, MARK, Rules, Value, What, lease_of},
    history_log::{Log, unix_secs},
    patience::within,
};

/// Kinds of operations that an actor can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Exists,
    Add,
    Set,
    SetKeepTtl,
    Replace,
    SetNumber,
    Expire,
    Swap,
    SwapTtl,
    CompareAndDelete,
    Take,
    Delete,
    Incr,
    IncrTtl,
    Mul,
    NewNumber,
    Fill,
    Refresh,
    Clear,
    Sweep,
}

/// The behaviour of a crowd's actors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) keys: u32,
    pub(crate) max_len: usize,
    /// Some items expire within a second or two.
    pub(crate) short_ttl: bool,
    /// Any error except those of a full cache makes the actor panic.
    pub(crate) strict: bool,
    pub(crate) lease: Duration,
    /// Maximum spin count of a filler, and of a process that only clears, to let others run in
    /// between.
    pub(crate) pause: u32,
    /// Called before and after each cache operation.
    pub(crate) around: fn(),
    pub(crate) seed: u64,
}

impl Habits {
    pub(crate) fn new(keys: u32, seed: u64) -> Self {
        Self {
            keys,
            max_len: 300,
            short_ttl: false,
            strict: true,
            lease: Duration::from_secs(3600),
            pause: 60,
            around: || (),
            seed,
        }
    }
}

/// Maximum time for which a process is stopped.
const MOMENT: Duration = Duration::from_millis(2);
/// More than the kernel's tick, at which the engine reads the time of leases.
const TICK: u64 = 50_000_000;

fn at(expires: u64) -> Expires {
    if expires == 0 { Expires::Never } else { Expires::At(expires) }
}

fn yes(is: bool) -> Answer {
    if is { Answer::Yes } else { Answer::No }
}

pub(crate) struct Actor<'a> {
    engine: &'a Engine,
    log: &'a Log,
    writer: usize,
    process: u32,
    habits: Habits,
    pub(crate) rng: Rng,
    /// The value of each key that was last seen.
    pub(crate) last: Vec<Value>,
    name: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'a> Actor<'a> {
    pub(crate) fn new(engine: &'a Engine, log: &'a Log, writer: usize, habits: Habits) -> Self {
        let process = log.enter(writer);
        Self {
            engine,
            log,
            writer,
            process,
            habits,
            rng: Rng::with_seed(habits.seed ^ u64::from(process) << 32),
            last: vec![Value::Number(0); habits.keys as usize],
            name: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Performs one operation (a fill: two) on a random key.
    pub(crate) fn step(&mut self, kind: Kind) {
        let key = self.rng.u32(0..self.habits.keys);
        engine_value::key_bytes(key, &mut self.name);
        let expires = self.expiry();
        match kind {
            Kind::Get => self.read(key, What::Get),
            Kind::Take => self.read(key, What::Take),
            Kind::Exists => self.plain(key, What::Exists, |e, k| Ok(yes(e.exists(k).is_some()))),
            Kind::Delete => self.plain(key, What::Delete, |e, k| e.delete(k).map(yes)),
            Kind::Expire => {
                self.plain(key, What::Expire { expires }, |e, k| e.expire(k, at(expires)).map(yes))
            }
            Kind::Add => self.store(key, expires, Mode::Add, false),
            Kind::Set => self.store(key, expires, Mode::Set, false),
            Kind::SetKeepTtl => self.store(key, expires, Mode::Set, true),
            Kind::Replace => self.store(key, expires, Mode::Replace, false),
            Kind::SetNumber => {
                let value = Value::Number(self.rng.i64(..));
                self.store_value(key, value, expires, Mode::Set, false);
            }
            Kind::Swap => self.swap(key, false, None),
            Kind::SwapTtl => self.swap(key, false, Some(expires)),
            Kind::CompareAndDelete => self.swap(key, true, None),
            Kind::Incr => self.math(key, (false, false, true), 0),
            Kind::IncrTtl => self.math(key, (false, false, false), expires),
            Kind::Mul => self.math(key, (true, false, true), 0),
            Kind::NewNumber => self.math(key, (false, true, false), expires),
            Kind::Fill => self.fill(key, expires),
            Kind::Refresh => self.refresh(key),
            Kind::Clear => self.plain(key, What::Clear, |e, _| e.clear().map(|()| Answer::Done)),
            Kind::Sweep => match self.engine.sweep() {
                // All of few shards were held for the 20 ms that a sweep waits.
                Err(Error::Timeout { .. }) => {}
                swept => _ = self.allowed(swept),
            },
        }
    }

    fn expiry(&mut self) -> u64 {
        match self.rng.u8(0..10) {
            0..5 => 0,
            5..7 if self.habits.short_ttl => unix_secs() + self.rng.u64(1..3),
            _ => unix_secs() + 10_000 + self.rng.u64(0..1 << 30),
        }
    }

    /// The result, unless the operation was refused without effect.
    fn allowed<T>(&self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(Error::Full { .. } | Error::OutOfBlocks { .. } | Error::NoSpace { .. }) => None,
            Err(error) if self.habits.strict => panic!("writer {}: {error}", self.writer),
            Err(_) => None,
        }
    }

    /// Records `f` as the operation `what`.
    fn record(&self, key: u32, what: What, f: impl FnOnce() -> Result<Answer, Error>) -> Option<Answer> {
        self.log.record((self.writer, self.process), (key, what), || {
            (self.habits.around)();
            let done = f();
            (self.habits.around)();
            self.allowed(done)
        })
    }

    fn plain(&self, key: u32, what: What, f: impl FnOnce(&Engine, &[u8]) -> Result<Answer, Error>) {
        self.record(key, what, || f(self.engine, &self.name));
    }

    /// Interprets the bytes of a key's value.
    fn value(key: u32, bytes: &[u8]) -> Option<Value> {
        if let Ok(number) = bytes.try_into() {
            return Some(Value::Number(i64::from_ne_bytes(number)));
        }
        engine_value::read(key, bytes).ok().map(|stamp| Value::Of(stamp.writer.into(), stamp.seq))
    }

    fn read(&mut self, key: u32, what: What) {
        let touch = if self.rng.bool() { Touch::Yes } else { Touch::No };
        let answer = self.record(key, what, || {
            let mut bytes = Bytes::default();
            let expires = if what == What::Take {
                self.engine.take_out(&self.name, &mut bytes)?.then_some(None)
            } else {
                self.engine.get(&self.name, touch, &mut bytes)?.map(|meta| Some(meta.expires_secs()))
            };
            let Some(expires) = expires else { return Ok(Answer::Missed) };
            Ok(Self::value(key, &bytes.0).map_or(Answer::Torn, |value| Answer::Found(value, expires)))
        });
        if let Some(Answer::Found(value, _)) = answer {
            self.last[key as usize] = value;
        }
    }

    /// A value unique to this writer, with its bytes in `self.bytes`.
    fn fresh(&mut self, key: u32) -> Value {
        let (seq, writer) = (self.log.fresh(self.writer), u8::try_from(self.writer).expect("few"));
        let max = if self.rng.u8(0..20) == 0 { self.habits.max_len } else { self.habits.max_len.min(200) };
        let len = self.rng.usize(16..=max);
        engine_value::write(Stamp { key, writer, seq }, len, &mut self.bytes);
        Value::Of(writer.into(), seq)
    }

    fn store(&mut self, key: u32, expires: u64, mode: Mode, keep_ttl: bool) {
        let value = self.fresh(key);
        self.store_value(key, value, expires, mode, keep_ttl);
    }

    fn store_value(&mut self, key: u32, value: Value, expires: u64, mode: Mode, keep_ttl: bool) {
        if let Value::Number(n) = value {
            self.bytes = n.to_ne_bytes().to_vec();
        }
        let options = SetOptions { keep_ttl, ..SetOptions::new(mode, at(expires)) };
        let answer = self.record(key, What::Set { value, expires, mode, keep_ttl }, || {
            Ok(stored(self.engine.set(&self.name, &self.bytes, &options)?))
        });
        if matches!(answer, Some(Answer::Inserted | Answer::Updated)) {
            self.last[key as usize] = value;
        }
    }

    fn swap(&mut self, key: u32, remove: bool, expires: Option<u64>) {
        let expected = self.last[key as usize];
        let mut old = Vec::new();
        match expected {
            Value::Number(n) => old.extend(n.to_ne_bytes()),
            // Only the value's stamp is kept, so its bytes are read again.
            Value::Of(..) => match engine_value::get(self.engine, &self.name, Touch::No) {
                Ok(Some((_, bytes))) if Self::value(key, &bytes) == Some(expected) => old = bytes,
                _ => return self.read(key, What::Get),
            },
        }
        let to = (!remove).then(|| self.fresh(key));
        let answer = self.record(key, What::Swap { expected, to, expires }, || {
            let swap = if remove { Swap::Nothing } else { Swap::Value(&self.bytes, expires.map(at)) };
            self.engine.swap(&self.name, &old, &swap).map(yes)
        });
        if let (Some(Answer::Yes), Some(to)) = (answer, to) {
            self.last[key as usize] = to;
        } else {
            self.read(key, What::Get);
        }
    }

    fn math(&mut self, key: u32, (mul, add, keep_ttl): (bool, bool, bool), expires: u64) {
        let operand = self.rng.i64(2..1 << 20);
        let options = SetOptions {
            mode: if add { Mode::Add } else { Mode::Set },
            expires: at(expires),
            keep_ttl,
            ungettable: false,
        };
        let op = if mul { Math::Mul } else { Math::Inc };
        self.record(key, What::Math { mul, operand, add, keep_ttl, expires }, || {
            match self.engine.math(&self.name, op, operand, &options) {
                Ok(n) => Ok(Answer::Number(n)),
                Err(Error::NotANumber { .. }) => Ok(Answer::NotANumber),
                Err(Error::Exists) => Ok(Answer::Present),
                Err(e) => Err(e),
            }
        });
    }

    /// The start of a fill or refresh.
    fn begin(&self) -> (u64, What) {
        let lease = lease_of(self.process, self.log.fresh(self.writer));
        let time = u64::try_from(self.habits.lease.as_nanos()).expect("centuries");
        (lease, What::Begin { lease, lapses: now() + time.saturating_sub(TICK) })
    }

    fn fill(&mut self, key: u32, expires: u64) {
        let (lease, what) = self.begin();
        let mut token = None;
        self.record(key, what, || {
            let mut bytes = Bytes::default();
            match self.engine.begin_fill(&self.name, self.habits.lease, Duration::ZERO, &mut bytes)? {
                Fill::Hit(meta) => {
                    let value = Self::value(key, &bytes.0);
                    Ok(value.map_or(Answer::Torn, |value| Answer::Found(value, Some(meta.expires_secs()))))
                }
                Fill::TimedOut => Ok(Answer::Waits),
                Fill::Filler(one) => has_lease(one, &mut token),
            }
        });
        let Some(token) = token else { return };
        let value = self.fresh(key);
        self.pause();
        if !token.has_lease() {
            // Without a lease, since the cache is full: an ordinary add.
            self.store_value(key, value, expires, Mode::Add, false);
        } else if self.rng.u8(0..5) == 0 {
            self.record(key, What::Abandon { lease }, || {
                self.engine.abandon_fill(&self.name, token).map(|()| Answer::Done)
            });
        } else {
            self.record(key, What::End { lease, value, expires }, || {
                let done = self.engine.end_fill(&self.name, token, &self.bytes, at(expires));
                Ok(self.allowed(done).map_or(Answer::Failed, stored))
            });
        }
    }

    fn refresh(&mut self, key: u32) {
        let (lease, what) = self.begin();
        let mut token = None;
        self.record(key | MARK, what, || match self.engine.begin_refresh(&self.name, self.habits.lease)? {
            None => Ok(Answer::Waits),
            Some(one) => has_lease(one, &mut token),
        });
        let Some(token) = token.filter(FillToken::has_lease) else { return };
        self.pause();
        self.record(key | MARK, What::Abandon { lease }, || {
            self.engine.end_refresh(&self.name, token).map(|()| Answer::Done)
        });
    }

    /// Spins, so that other processes run in between.
    fn pause(&mut self) {
        for _ in 0..self.rng.u32(0..=self.habits.pause) {
            std::hint::spin_loop();
        }
    }
}

/// The caller fills; `Err` = without a lease, which cannot be judged.
fn has_lease(one: FillToken, token: &mut Option<FillToken>) -> Result<Answer, Error> {
    let is = one.has_lease();
    *token = Some(one);
    if is { Ok(Answer::Filler) } else { Err(Error::Full { limit: 0 }) }
}

fn stored(stored: Stored) -> Answer {
    match stored {
        Stored::Inserted => Answer::Inserted,
        Stored::Updated => Answer::Updated,
        Stored::Kept => Answer::Kept,
    }
}

/// Several actors working on one cache, window by window.
pub(crate) struct Crowd<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) log: &'a Log,
    pub(crate) habits: Habits,
    pub(crate) checker: Checker,
    /// Number of judged operations.
    pub(crate) judged: usize,
    /// Descriptions of violations.
    pub(crate) faults: Vec<String>,
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(engine: &'a Engine, log: &'a Log, rules: Rules, habits: Habits) -> Self {
        Self { engine, log, habits, checker: Checker::new(rules), judged: 0, faults: Vec::new() }
    }

    /// Forks one actor per list of kinds. The first one with `quota` operations ends the window;
    /// until then `meanwhile` is called repeatedly. Then the operations are judged.
    pub(crate) fn window(
        &mut self,
        kinds: &[&[Kind]],
        quota: usize,
        mut meanwhile: impl FnMut(&mut Self, &mut [Option<Child>]),
    ) {
        let (words, all) = (Scratch::new(2), kinds.len() as u64);
        let (engine, log, habits) = (self.engine, self.log, self.habits);
        let work = |writer: usize| {
            let kinds = kinds[writer];
            let mut actor = Actor::new(engine, log, writer, habits);
            words[0].fetch_add(1, SeqCst);
            while words[0].load(SeqCst) < all {
                std::thread::yield_now();
            }
            // Clears are short: an actor that only clears waits in between, to let others work.
            let only_clears = kinds.iter().all(|&kind| kind == Kind::Clear);
            for _ in 0..if only_clears { usize::MAX } else { quota } {
                // A fill is two operations.
                if log.room(writer) < 4 || words[1].load(SeqCst) != 0 {
                    break;
                }
                let kind = kinds[actor.rng.usize(0..kinds.len())];
                actor.step(kind);
                if only_clears {
                    actor.pause();
                }
            }
            words[1].store(1, SeqCst);
        };
        let mut children: Vec<Option<Child>> =
            (0..kinds.len()).map(|writer| Some(Child::fork(|| work(writer)))).collect();
        within("the actors", || words[0].load(SeqCst) >= all);
        while words[1].load(SeqCst) == 0 {
            meanwhile(self, &mut children);
        }
        children.into_iter().flatten().for_each(Child::join);
        self.judge();
    }

    /// Stops one actor at a random point, until a clear was done or for a moment.
    pub(crate) fn stop_over_a_clear(&self, rng: &mut Rng, children: &[Option<Child>]) {
        let Some(one) = &children[rng.usize(0..children.len())] else { return };
        one.signal(Signal::SIGSTOP);
        let cleared = self.engine.stats().cleared;
        let start = Instant::now();
        while self.engine.stats().cleared == cleared && start.elapsed() < MOMENT {
            std::thread::sleep(Duration::from_micros(20));
        }
        one.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_micros(rng.u64(0..200)));
    }

    /// Kills a writer's process at a random point.
    pub(crate) fn kill(&mut self, writer: usize, children: &mut [Option<Child>]) {
        if let Some(mut child) = children[writer].take() {
            let time = now();
            match child.try_end() {
                // It had ended: the window is over.
                Some(end) => return end.unwrap_or_else(|how| panic!("writer {writer}: {how}")),
                None => _ = child.kill(),
            }
            self.log.close(writer);
            self.checker.ended(self.log.process(writer), time);
        }
    }

    /// Judges the operations recorded since the last call.
    pub(crate) fn judge(&mut self) {
        let ops = self.log.take();
        self.judged += ops.len();
        if let Err(text) = self.checker.check(&ops) {
            self.faults.push(text);
        }
    }

    pub(crate) fn tell(&self, name: &str) {
        let stats = self.engine.stats();
        say(&format!("{name}: {} operations judged, {} clears", self.judged, stats.cleared));
        assert!(self.faults.is_empty(), "{name}: {}", self.faults.join("\n"));
    }
}

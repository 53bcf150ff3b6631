//! A Valkey or Redis server as the place of a cache's values.

mod append;
mod backed;
mod beat;
mod breaker;
mod channel;
mod cluster;
mod computing;
mod config;
mod conn;
mod expiry;
mod figures;
mod fill;
mod followers;
mod generations;
mod lease;
mod link;
mod login;
mod mode;
mod numbers;
mod owner;
mod place;
mod pool;
mod read;
mod request;
mod resp;
mod routed;
mod scan;
mod script;
mod sentinel;
mod slots;
mod swap;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod url;
mod wall;
mod watch;
mod write;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

pub use backed::Backed;
pub(super) use backed::Walk;
pub use config::{Numbers, Settings};
pub use figures::Figures;
pub use numbers::Calculation;
pub use read::{Found, Ttl};
pub use scan::Scan;
pub use write::Old;

use self::{
    breaker::Breaker,
    cluster::Cluster,
    conn::{Conn, Failure},
    figures::{Count, Counts},
    generations::Generations,
    place::Place,
    pool::Pool,
    resp::{Reply, Request, Value},
    sentinel::Finder,
};
use crate::{
    engine::Engine,
    error::{BackendFault, Error, Result},
    near::options::OnDown,
    os::{clock, poll},
};

/// Longest value: `proto-max-bulk-len` of a server that was not told otherwise.
pub(super) const MAX_VALUE: u64 = 512 << 20;

/// What a cache asks of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, bytes, without the prefix.
    pub max_key: usize,
    /// What arithmetic on a missing key starts from.
    pub math_initial: i64,
}

/// The server behind a cache, as this process sees it. All methods may be called from any thread,
/// and in any process forked after it was made.
#[derive(Debug)]
pub struct Backend {
    settings: Settings,
    limits: Limits,
    pool: Pool,
    finder: Finder,
    /// `None` = the server's keys have no numbers.
    generations: Option<Generations>,
    /// `None` = one server has all keys.
    cluster: Option<Cluster>,
    region: Option<Arc<Engine>>,
    breaker: Breaker,
    place: Place,
    counts: Counts,
}

/// Whether a request may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Safe,
    /// It may have been executed.
    Never,
}

impl Backend {
    /// Does not connect: the first call does, and a server that is down now may be up then.
    #[must_use]
    pub fn new(settings: Settings, limits: Limits) -> Self {
        Self::with(settings, limits, None)
    }

    /// [`Backend::new`] for a cache with a region: its processes count together, and a failure that
    /// one of them meets spares the others.
    pub(super) fn with(settings: Settings, limits: Limits, region: Option<Arc<Engine>>) -> Self {
        let place = Place::new(settings.copies, region.clone());
        let generations = settings.generations.then(Generations::default);
        let (breaker, counts) = (Breaker::new(region.clone()), Counts::new(region.clone()));
        let cluster = Cluster::new(&settings, region.clone());
        Self {
            cluster,
            settings,
            limits,
            pool: Pool::new(),
            finder: Finder::default(),
            generations,
            region,
            breaker,
            place,
            counts,
        }
    }

    /// The address, without user and password.
    #[must_use]
    pub fn server(&self) -> &str {
        self.settings.server()
    }

    /// The options in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts of this process.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.counts.figures()
    }

    /// Asks the server whether it is there and lets this user in.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn ping(&self) -> Result<()> {
        // A key that does not exist: a user who may not read the cache's keys is refused.
        let request = Request::one(&[b"EXISTS", &self.full(b"\0ping")?]);
        let reply = self.call(&request, Repeat::Safe)?;
        self.answer(resp::int(only(reply)))?;
        Ok(())
    }

    /// The key at the server, if the cache takes it.
    fn checked(&self, key: &[u8]) -> Result<Vec<u8>> {
        match key.len() {
            0 => Err(Error::EmptyKey),
            len if len > self.limits.max_key => Err(Error::KeyTooLong { len, limit: self.limits.max_key }),
            _ => self.full(key),
        }
    }

    fn check_value(value: &[u8]) -> Result<()> {
        match value.len() as u64 {
            0 => Err(Error::EmptyValue),
            len if len > MAX_VALUE => Err(Error::ValueTooLong { len, limit: MAX_VALUE }),
            _ => Ok(()),
        }
    }

    fn error(&self, fault: BackendFault) -> Error {
        Error::Backend { server: self.settings.server.clone(), fault }
    }

    /// What a reply says, or the error that it is.
    fn answer<T>(&self, reply: Reply<T>) -> Result<T> {
        reply.map_err(|fault| {
            self.counts.add(Count::Errors);
            if fault.is_down() {
                // Not a failure of the connection, but the next one may lead to a server that can.
                self.pool.clear();
            }
            self.error(fault)
        })
    }

    /// What a read answers when the server cannot be asked.
    fn or_miss<T>(&self, result: Result<T>, miss: T) -> Result<T> {
        match result {
            Err(Error::Backend { fault, .. })
                if fault.is_down() && self.settings.on_down != OnDown::Error =>
            {
                Ok(miss)
            }
            result => result,
        }
    }

    /// One round trip: all replies, of which each may be an error.
    fn call(&self, request: &Request, repeat: Repeat) -> Result<Vec<Value>> {
        self.call_until(request, repeat, self.deadline())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    /// Ends a loop of attempts that others disturb again and again.
    fn check_time(&self, deadline: Instant) -> Result<()> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(self.error(BackendFault::TimedOut { waited: self.settings.timeout }))
    }

    fn call_until(&self, request: &Request, repeat: Repeat, deadline: Instant) -> Result<Vec<Value>> {
        self.call_known(request, repeat, deadline).map(|(replies, _)| replies)
    }

    /// [`Backend::call_until`], and whether the server is the one that the owner hears.
    fn call_known(&self, request: &Request, repeat: Repeat, deadline: Instant) -> Result<(Vec<Value>, bool)> {
        let _shield = poll::shield();
        self.counts.add(Count::Requests);
        let replies = match &self.cluster {
            None => self.attempt(request, repeat, deadline),
            Some(cluster) => self.routed(cluster, request, repeat, deadline),
        };
        replies.map_err(|fault| {
            self.counts.add(Count::Errors);
            if matches!(fault, BackendFault::TimedOut { .. }) {
                self.counts.add(Count::Timeouts);
            }
            self.error(fault)
        })
    }

    fn attempt(&self, request: &Request, repeat: Repeat, deadline: Instant) -> Reply<(Vec<Value>, bool)> {
        self.breaker.admit().inspect_err(|_| self.counts.add(Count::Skipped))?;
        let (term, tracked) = self.followed();
        let label = self.finder.label(&self.settings, term, tracked != 0, deadline);
        let mut kept = self.pool.take().filter(|conn| conn.label() == label);
        for last in [false, true] {
            let mut conn = self.ready(kept.take(), (tracked, label), deadline)?;
            match conn.round_trip(request, deadline) {
                Ok(replies) => {
                    self.breaker.succeeded();
                    let is_known = self.place.is_known(&conn);
                    self.pool.put(conn);
                    return Ok((replies, is_known));
                }
                // Its server closed it meanwhile, or was restarted: the others are of no use,
                // either.
                Err(Failure { fault: BackendFault::Lost { .. }, sent })
                    if !last && (!sent || repeat == Repeat::Safe) =>
                {
                    self.pool.clear();
                }
                Err(failure) => {
                    if failure.fault.is_down() {
                        self.breaker.failed(&failure.fault);
                    }
                    self.pool.clear();
                    return Err(failure.fault);
                }
            }
        }
        Err(BackendFault::Lost { reason: "closed by the server".to_owned() })
    }

    /// A connection, and whether it leads to the owner's server looked at: one that was kept may be
    /// of before the address moved.
    fn ready(&self, kept: Option<Conn>, (tracked, label): (u64, u64), deadline: Instant) -> Reply<Conn> {
        if let Some(mut conn) = kept {
            if let Ok(true) = self.place.check(&mut conn, deadline) {
                return Ok(conn);
            }
            self.pool.clear();
        }
        let mut conn = self.connect(tracked, deadline)?.with_label(label);
        let is_there = self.place.check(&mut conn, deadline).inspect_err(|fault| {
            if fault.is_down() {
                self.breaker.failed(fault);
            }
        })?;
        if !is_there {
            self.place.note_elsewhere();
        }
        Ok(conn)
    }

    /// The term of this machine's owner, and the number of the server that it follows; 0 = none, or
    /// nobody knows whether it still does.
    fn followed(&self) -> (u16, u64) {
        let Some(region) = &self.region else { return (0, 0) };
        let (beat, source) = (region.beat(), region.source());
        let limit = self.settings.copies.and_then(|copies| copies.max_stale);
        let is_fresh = limit.is_some_and(|limit| beat.is_within(limit, clock::millis()));
        (beat.term(), if is_fresh { source } else { 0 })
    }

    fn connect(&self, tracked: u64, deadline: Instant) -> Reply<Conn> {
        self.counts.add(Count::Connects);
        let found = self.finder.connect(&self.settings, tracked, deadline);
        found.map(|(conn, _)| conn).inspect_err(|fault| {
            if fault.is_down() {
                self.breaker.failed(fault);
            }
        })
    }

    /// The digests that the server computes of the scripts, each beside the one that is sent
    /// instead of a script.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn load_scripts(&self) -> Result<Vec<(String, &'static str)>> {
        let load = |script: &&script::Script| {
            let request = Request::one(&[b"SCRIPT", b"LOAD", script.code.as_bytes()]);
            let digest = self.answer(resp::string(only(self.call(&request, Repeat::Never)?)))?;
            Ok((String::from_utf8_lossy(&digest.unwrap_or_default()).into_owned(), script.digest))
        };
        script::ALL.iter().map(load).collect()
    }

    /// Time limit of a call.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

/// The reply to a single command.
fn only(replies: Vec<Value>) -> Value {
    replies.into_iter().next().unwrap_or_default()
}

/// Bytes that are mostly literals.
type Word<'a> = Cow<'a, [u8]>;

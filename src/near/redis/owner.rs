//! The owner of a machine's copies: one thread, in whichever process gets the region's lock, that
//! removes a copy when the server says that its value has changed, and raises the beat.
//!
//! Nobody trusts the owner: readers look at the beat. When it is killed or stopped, loses the
//! server or falls behind, the beat ages, reads ask the server, and another thread takes over.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use once_cell::race::OnceBox;

use super::{
    Backed,
    beat::Rounds,
    cluster::Cluster,
    config::Settings,
    generations::sweep,
    link::{Heard, Link},
    resp::Reply,
    sentinel::Finder,
    url::Address,
    wall::Wall,
};
use crate::{
    engine::{Counter, Engine, OwnerLock},
    error::BackendFault,
    os::{
        clock::coarse_millis,
        worker::{self, PerProcess},
    },
};

/// Writes a line to the program's log.
pub(in crate::near) type Log = fn(&str);

/// A successor begins when the owner was not at work for so many times `max_stale`.
const GIVEN_UP: u64 = 10;
/// Pause before the server is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// Pause between two looks for what clears have left, times `max_stale`. Who had begun to remove it may
/// have ended.
const SWEEPS: u64 = 60;
/// Least time between two lines of a log with the same reason, milliseconds.
const QUIET: u64 = 60_000;

/// What a process needs to have an owner.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    running: PerProcess,
    /// When another attempt to start the thread may be made.
    next: AtomicU64,
    /// Another process of the program is to be the owner as long as it is at work (uWSGI's master).
    reserved: OnceBox<()>,
    log: OnceBox<Log>,
}

impl Ownership {
    /// Leaves the ownership to another process as long as there is hope for it.
    #[cfg(feature = "capi")]
    pub(super) fn reserve(&self) {
        let _ = self.reserved.set(Box::new(()));
    }

    /// Sets where the owner's lines go.
    #[cfg(feature = "capi")]
    pub(super) fn log_to(&self, log: Log) {
        let _ = self.log.set(Box::new(log));
    }

    /// For a reader that finds no beat: starts a thread that is to become the owner, unless another
    /// owner is at work.
    #[cold]
    pub(super) fn seek(&self, backed: &Weak<Backed>, engine: &Arc<Engine>, max_stale: u64) {
        let now = coarse_millis();
        let times = if self.reserved.get().is_some() { GIVEN_UP } else { 1 };
        if now.saturating_sub(engine.owner_seen()) > times * max_stale && now >= self.next.load(Relaxed) {
            self.next.store(now + max_stale, Relaxed);
            self.start(backed, engine, max_stale, false);
        }
    }

    /// Starts the thread, unless this process has one. `stays`: it waits for as long as others own.
    pub(super) fn start(&self, backed: &Weak<Backed>, engine: &Arc<Engine>, max_stale: u64, stays: bool) {
        let Some(server) = backed.upgrade() else { return };
        if !self.running.begin() {
            return;
        }
        let mut candidate = Candidate {
            backed: Weak::clone(backed),
            engine: Arc::clone(engine),
            settings: server.server().settings().clone(),
            max_stale,
            stays,
            log: self.log.get().copied(),
            said: Vec::new(),
            finder: Finder::default(),
            cluster: Cluster::of_owner(server.server().settings()),
        };
        drop(server);
        let started = worker::spawn("ucache-owner", move || {
            candidate.run();
            if let Some(backed) = candidate.backed.upgrade() {
                backed.ownership().running.end();
            }
        });
        if started.is_err() {
            self.running.end();
        }
    }
}

/// The thread. It keeps the region, but not the cache.
pub(super) struct Candidate {
    backed: Weak<Backed>,
    pub(super) engine: Arc<Engine>,
    pub(super) settings: Settings,
    pub(super) max_stale: u64,
    stays: bool,
    log: Option<Log>,
    /// Lines of the log, and when they were written.
    said: Vec<(String, u64)>,
    finder: Finder,
    /// `None` = one server has all keys.
    cluster: Option<Cluster>,
}

/// Why a term has ended.
pub(super) enum End {
    /// The connection.
    Fault(BackendFault),
    /// Other nodes of the cluster have the keys.
    Moved,
    /// Another owner has begun a term.
    Succeeded,
}

impl From<BackendFault> for End {
    fn from(fault: BackendFault) -> Self {
        Self::Fault(fault)
    }
}

impl Candidate {
    /// Waits for the ownership, owns, and so on.
    fn run(&mut self) {
        self.engine.count_in_background();
        let given_up = GIVEN_UP * self.max_stale + 2 * self.settings.timeout.as_millis() as u64;
        while self.is_used() {
            let seen = self.engine.beat();
            let silence = coarse_millis().saturating_sub(self.engine.owner_seen());
            match self.engine.try_own() {
                // Without a lock, the one that took over from a stopped owner may be at work.
                Ok(Some(lock)) if lock.has_died() || silence > self.max_stale => {
                    if let Some(term) = self.engine.begin_term(None) {
                        self.own(term, Some(lock));
                    }
                }
                // Who holds the lock is stopped, or hangs.
                Ok(None) if silence > given_up => {
                    if let Some(term) = self.engine.begin_term(Some(seen)) {
                        self.own(term, None);
                    }
                }
                // Another owner is at work.
                Ok(_) if silence <= self.max_stale && !self.stays => return,
                Ok(_) => {}
                // This process may not lock.
                Err(error) => return self.say(&format!("cannot keep copies up to date: {error}")),
            }
            thread::sleep(Duration::from_millis(self.max_stale / 10));
        }
    }

    /// Whether the cache is still used by this process.
    pub(super) fn is_used(&self) -> bool {
        self.backed.strong_count() > 0
    }

    /// Owns, until another does or the cache is not used any more. From the beginning of a term
    /// readers ask the server.
    fn own(&mut self, mut term: u16, mut lock: Option<OwnerLock>) {
        loop {
            self.engine.note_owner(coarse_millis());
            let kept = match self.cluster.take() {
                None => self.keep(term, &mut lock),
                Some(cluster) => {
                    let kept = self.keep_nodes(&cluster, term, &mut lock);
                    self.cluster = Some(cluster);
                    kept
                }
            };
            let mut pause = RETRY;
            match kept {
                Ok(()) => return self.engine.note_owner(0),
                Err(End::Succeeded) => return,
                Err(End::Moved) => pause = Duration::ZERO,
                Err(End::Fault(fault)) => {
                    self.engine.note_untracked(matches!(fault, BackendFault::Refused { .. }));
                    self.say_down(&fault);
                }
            }
            let Some(next) = self.next_term(term) else { return };
            term = next;
            thread::sleep(pause);
        }
    }

    /// Begins another term after this one; `None` = another owner has.
    fn next_term(&self, term: u16) -> Option<u16> {
        loop {
            let seen = self.engine.beat();
            if seen.term() != term {
                return None;
            }
            // A thread of the old term may still raise the beat.
            if let next @ Some(_) = self.engine.begin_term(Some(seen)) {
                return next;
            }
        }
    }

    /// One term: connects, voids what was kept before, and applies what the server tells.
    fn keep(&mut self, term: u16, lock: &mut Option<OwnerLock>) -> Result<(), End> {
        let patience = self.settings.timeout.max(Duration::from_millis(self.max_stale));
        let (mut link, place, asked) = Link::open(&self.settings, &self.finder, patience)?;
        self.engine.note_untracked(false);
        // Before the clear: whoever makes a placeholder after it sees this number.
        self.engine.note_source(link.node());
        let old = self.engine.owner_link();
        self.engine.note_link(place);
        if old != [0; 2] {
            link.end_other(old, self.settings.timeout);
        }
        // Everything that was asked before the server was told to tell is void. Before the first
        // beat nothing was asked in order to be kept.
        let mut wall = Wall::look();
        if self.engine.last_beat() != 0 {
            clear(&self.engine)?;
        }
        let mut rounds = Rounds::new((self.max_stale / 10).max(20), asked);
        let (mut is_said, mut next_sweep) = (false, 0);
        loop {
            if !self.is_used() {
                return Ok(());
            }
            let now = coarse_millis();
            self.engine.note_owner(now);
            if is_said && now >= next_sweep {
                sweep(&self.backed);
                next_sweep = now + SWEEPS * self.max_stale;
            }
            if lock.is_none() {
                // The owner that was stopped may have given it back.
                *lock = self.engine.try_own().ok().flatten();
            }
            if rounds.is_due(now) {
                rounds.ask(now);
                link.ask()?;
            }
            match link.hear(Duration::from_millis(rounds.patience(now)), rounds.is_waiting())? {
                Heard::Changed(keys) => keys.iter().try_for_each(|key| forget(&self.engine, key))?,
                Heard::Cleared => {
                    clear(&self.engine)?;
                    next_sweep = 0;
                }
                Heard::Everything => flush(&self.engine)?,
                Heard::Primary => {
                    let Some(time) = rounds.answered() else { continue };
                    clear_if_set_back(&self.engine, &mut wall)?;
                    if !self.engine.raise_beat(term, time) {
                        return Err(End::Succeeded);
                    }
                    if !std::mem::replace(&mut is_said, true) {
                        self.say_up(link.named());
                    }
                }
                Heard::Nothing => {}
            }
        }
    }

    /// `named`: the primary of the time, of several servers.
    fn say_up(&mut self, named: Option<&Address>) {
        let primary = named.map_or_else(String::new, |named| format!(": the primary is {named}"));
        self.say(&format!("copies are kept up to date by {}{primary}", self.settings.server()));
    }

    pub(super) fn say_down(&mut self, fault: &BackendFault) {
        self.say(&format!("every read asks {}: {fault}{}", self.settings.server(), hint(fault)));
    }

    /// The same of a node of a cluster.
    pub(super) fn say_node_up(&mut self, node: &str) {
        self.say(&format!("copies of values at {node} are kept up to date"));
    }

    pub(super) fn say_node_down(&mut self, node: &str, fault: &BackendFault) {
        self.say(&format!("every read of what is at {node} asks it: {fault}{}", hint(fault)));
    }

    /// Writes to the log, but not the same again and again.
    pub(super) fn say(&mut self, line: &str) {
        let now = coarse_millis();
        let Some(log) = self.log else { return };
        self.said.retain(|(_, when)| now - when < QUIET);
        if self.said.iter().all(|(said, _)| said != line) {
            self.said.push((line.to_owned(), now));
            log(&format!("cache \"{}\": {line}", self.engine.config().name));
        }
    }
}

fn hint(fault: &BackendFault) -> &'static str {
    match fault {
        BackendFault::Refused { .. } => "; tracking=off and l1_ttl, or near=0, do without what it refuses",
        _ => "",
    }
}

/// A value has changed.
pub(super) fn forget(engine: &Engine, key: &[u8]) -> Reply<()> {
    match engine.invalidate(key) {
        Ok(true) => engine.count(Counter::Invalidated, 1),
        Ok(false) => engine.count(Counter::InvalidatedAbsent, 1),
        // A stopped writer holds the lock that is needed: a clear needs none.
        Err(_) => return clear(engine),
    }
    Ok(())
}

/// Removes all copies if the clock by which they end was set back.
pub(super) fn clear_if_set_back(engine: &Engine, wall: &mut Wall) -> Reply<()> {
    if !wall.was_set_back() {
        return Ok(());
    }
    flush(engine)
}

/// Removes all copies, and counts that.
pub(super) fn flush(engine: &Engine) -> Reply<()> {
    engine.count(Counter::Flushes, 1);
    clear(engine)
}

/// Removes all copies and placeholders.
pub(super) fn clear(engine: &Engine) -> Reply<()> {
    let cleared = engine.clear_copies();
    cleared.map_err(|error| BackendFault::Unavailable { reply: format!("copies cannot be removed: {error}") })
}

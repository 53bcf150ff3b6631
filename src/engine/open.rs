//! Making and opening regions.
#![forbid(unsafe_code)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Config, Engine, HugePages,
    disk::{self, Disk, INIT, MAGIC, READY, VERSION},
    generation, geometry,
};
use crate::{
    error::{Error, Result},
    os::{
        cancel::Shield,
        file::{self, FileId, Lock, OPENING, StoreFile, USERS},
        guard::Guard,
        map::Mapping,
        place::Place,
        process::{self, Owner},
    },
    shm::{
        Region,
        layout::{Geometry, Layout, SPAN, header},
        span,
        sync::*,
    },
};

/// Spans that a new store has on disk.
const FIRST_SPANS: u64 = 16;
/// How long an opener waits for another one.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// An opening under way.
pub(super) struct Attempt<'a> {
    pub(super) path: &'a Path,
    /// Makes the store if it is missing, and its limits are wanted.
    pub(super) config: Option<&'a Config>,
    /// Whether an unusable store may be deleted.
    pub(super) delete: bool,
    /// Which file took the place of one that was deleted.
    made: Option<FileId>,
    notes: Vec<String>,
    deadline: Instant,
}

impl Engine {
    /// Makes a cache, or opens its store file if `config` names one that exists.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::Store`], [`Error::Os`].
    pub fn create(config: &Config) -> Result<Arc<Self>> {
        config.check()?;
        match &config.store {
            None => Self::anonymous(config),
            Some(store) => Self::open_store(&store.path, Some(config), config.store_fs_trust),
        }
    }

    /// Opens an existing store file with the limits it was made with.
    ///
    /// # Errors
    /// [`Error::Store`] says why the file cannot be used; it is left untouched.
    pub fn attach(path: &Path) -> Result<Arc<Self>> {
        Self::open_store(path, None, false)
    }

    /// [`Engine::attach`], on a file system that need not be a known one if it is to be trusted.
    #[cfg(feature = "cli")]
    pub(crate) fn attach_on(path: &Path, trust: bool) -> Result<Arc<Self>> {
        Self::open_store(path, None, trust)
    }

    /// [`Engine::create`] for who does not look into an error of the system: it names the store.
    pub(crate) fn create_named(config: &Config) -> Result<Arc<Self>> {
        let made = Self::create(config);
        match &config.store {
            Some(store) => made.map_err(|e| about(&store.path, e)),
            None => made,
        }
    }

    /// [`Engine::attach`], as [`Engine::create_named`].
    pub(crate) fn attach_named(path: &Path) -> Result<Arc<Self>> {
        Self::attach(path).map_err(|e| about(path, e))
    }

    /// Whether a file is a store, whatever format and state it has.
    #[must_use]
    pub fn is_store(path: &Path) -> bool {
        StoreFile::open(path, false)
            .and_then(|file| Disk::read(path, &file))
            .is_ok_and(|disk| disk.word(header::MAGIC) == MAGIC)
    }

    /// Opens a store; `config` = makes it if missing, and its limits are wanted.
    fn open_store(path: &Path, config: Option<&Config>, trust: bool) -> Result<Arc<Self>> {
        let _shield = Shield::raise();
        let deadline = Instant::now() + OPEN_PATIENCE;
        let delete = config.and_then(|c| c.store.as_ref()).is_some_and(|s| s.delete_unusable);
        let mut attempt = Attempt { path, config, delete, made: None, notes: Vec::new(), deadline };
        loop {
            let mut file = StoreFile::open(path, config.is_some())?;
            let trusted = file.check_filesystem(path, trust)?;
            let opening = StoreFile::open(path, false)?;
            if opening.id() != file.id() || !opening.lock(OPENING, Lock::Exclusive, false)? {
                if Instant::now() > deadline {
                    return Err(file::refused(path, "another process has been opening it for 30 seconds"));
                }
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let opened = Self::open_exclusively(file, &mut attempt);
            // Said aloud: a child that somebody forked meanwhile has a copy of the description, and would keep the lock. What was
            // opened, or moved, is no failure because of it.
            let _ = opening.lock(OPENING, Lock::Unlock, false);
            if let Some(mut engine) = opened? {
                engine.forks.store(process::fork_count(), Relaxed);
                let trusted = trusted.map(|reason| format!("store {} {reason}", path.display()));
                engine.notes.splice(0..0, attempt.notes.into_iter().chain(trusted));
                return Ok(Arc::new(engine));
            }
        }
    }

    /// With the opening lock held. `None` = the file is not the one that it was, try again.
    fn open_exclusively(file: StoreFile, attempt: &mut Attempt<'_>) -> Result<Option<Self>> {
        let (path, id) = (attempt.path, file.id());
        // Somebody may have replaced the file while we waited.
        match StoreFile::open(path, false) {
            Ok(now) if now.id() == id => {}
            Ok(_) => return Ok(None),
            Err(Error::Os { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            // Who cannot look must not take a file for the store that has that name no more.
            Err(e) => return Err(e),
        }
        let mut alone = file.lock(USERS, Lock::Exclusive, false)?;
        while !alone && !file.lock(USERS, Lock::Shared, false)? {
            // The last user has it to itself for a moment on its way out.
            if Instant::now() > attempt.deadline {
                return Err(file::refused(path, "its users' lock is held by something else"));
            }
            std::thread::sleep(Duration::from_millis(1));
            alone = file.lock(USERS, Lock::Exclusive, false)?;
        }
        match Self::open_locked(file, attempt, alone) {
            Err(Error::Store { reason, .. }) if attempt.delete => {
                attempt.delete = false;
                attempt.start_afresh(id, alone, reason)?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// With the opening lock held, and the users' lock exclusive (`alone`) or shared. Takes the wish to delete an unusable
    /// store back where it can be used, but its items could not be moved.
    fn open_locked(file: StoreFile, attempt: &mut Attempt<'_>, alone: bool) -> Result<Self> {
        let (path, config) = (attempt.path, attempt.config);
        let mut disk = Disk::read(path, &file)?;
        let native = config.filter(|c| alone && disk.may_be_native(c));
        if file.names()? > 1 && !(native.is_some() && Self::was_importing(path, &file)) {
            return Err(disk.refuse(
                "has several names (hard links): under another one it may be somebody else's; copy it instead",
            ));
        }
        let engine = match config {
            Some(c) if alone && disk.is_unfinished() => {
                if attempt.made != Some(file.id()) {
                    Place::of(path)?.check_links(Some(file.owner()?))?;
                }
                Self::new_store(file, c)?
            }
            Some(c) if native.is_some() => return Self::import(&file, c, attempt),
            _ => {
                let geo = disk.check()?;
                if !alone {
                    disk.check_namespace()?;
                }
                match config.and_then(|c| Some((c, disk.difference(c, &geo)?))) {
                    Some((c, what)) if alone => return Self::convert(disk, geo, file, c, &what, attempt),
                    Some((_, what)) => return Err(disk.refuse(&format!("is in use; it {what}"))),
                    None => Self::existing(&mut disk, geo, file, config, alone)?,
                }
            }
        };
        if alone {
            engine.join_users()?;
        }
        Ok(engine)
    }

    /// Makes a store of a file that nobody else uses, whatever it holds.
    pub(super) fn new_store(file: StoreFile, config: &Config) -> Result<Self> {
        let layout = geometry::layout(config, u64::MAX)?;
        let committed = (layout.data + FIRST_SPANS * SPAN).min(layout.end);
        // A death from here on leaves a file that says it is unfinished.
        file.truncate(0)?;
        file.write_start(&[MAGIC, VERSION, 0, INIT].map(u64::to_ne_bytes).concat())?;
        file.grow(0, committed)?;
        let map = Mapping::file(&file, layout.end as usize, guard_of(config))?;
        let region = Region::new(map, layout, Some(file))?;
        let engine = Self::assemble(region, config.clone(), Vec::new());
        engine.region.word(header::COMMITTED).store(committed, Release);
        engine.init(config)?;
        Ok(engine.reload())
    }

    /// Opens what somebody made before.
    pub(super) fn existing(
        disk: &mut Disk<'_>,
        geo: Geometry,
        file: StoreFile,
        config: Option<&Config>,
        alone: bool,
    ) -> Result<Self> {
        let layout = Layout::new(geo).ok_or_else(|| disk.refuse("its geometry overflows"))?;
        let committed = disk.committed(&layout)?;
        let wanted = config.map(|c| Config {
            store: disk.own_store(),
            native: None,
            store_guard: false,
            store_fs_trust: false,
            huge_pages: HugePages::Off,
            ..c.clone()
        });
        let mut notes = Vec::new();
        let limits = match (disk.limits(&geo), wanted) {
            (_, Some(wanted)) if alone => wanted,
            (Some(limits), Some(wanted)) if wanted != limits => {
                let path = disk.path.display();
                notes.push(format!("store {path} is in use: the settings of who made it stay in force"));
                limits
            }
            (Some(limits), _) => limits,
            (None, _) => return Err(disk.refuse("has damaged limits")),
        };
        limits.check()?;
        let id = file.id();
        let same_boot =
            disk.is_of_this_boot()? && (disk.word(header::DEV), disk.word(header::INO)) == (id.dev, id.ino);
        if alone {
            // A copy, also one that was put back into the same file, or what a crash of the machine has left, may have holes.
            file.back(committed)?;
        }
        let map = Mapping::file(&file, layout.end as usize, config.and_then(guard_of))?;
        let region = Region::new(map, layout, Some(file))?;
        if alone {
            disk::fixed().for_each(|at| region.word(at).store(disk.word(at), Relaxed));
        }
        let mut engine = Self::assemble(region, limits.clone(), notes);
        if alone {
            let w = |at: u64, word: u64| engine.region.word(at).store(word, Relaxed);
            w(header::SUM, disk.word(header::SUM));
            w(header::STATE, READY);
            w(header::COMMITTED, committed);
            engine.write_limits(&limits);
            // The same thread again, alive: its program was replaced (uWSGI's reload), nobody died.
            let again = same_boot && Owner::from_word(disk.word(header::OPENER)) == Owner::me();
            let unclean = disk.word(header::UNCLEAN) != 0 && !again;
            engine.restarted = !same_boot;
            engine.take_over(unclean)?;
            engine.restarted = false;
        }
        Ok(engine.reload())
    }

    /// The first opener: nothing that the last users left in the locks is trusted, every shard is rebuilt, and every entry
    /// proves itself: that the file and the boot are the same does not tell that the bytes are (a copy made while it was
    /// written may have been put back into it, a disk may have lost some).
    fn take_over(&mut self, unclean: bool) -> Result<()> {
        let w = |at: u64| self.region.word(at);
        let mark = if unclean { 2 } else { 1 };
        // First, so that a user whose descriptor was closed under it stops writing.
        w(header::LOCK_GEN).fetch_add(1, AcqRel);
        self.init_locks()?;
        w(header::FOREIGN).store(0, Relaxed);
        self.region
            .half(header::LEASE_WAITED)
            .store(self.region.half(header::LEASE_SEQ).load(Relaxed), Relaxed);
        // One wrong bit of it would be the end of everything, or put a full cache's sweep off for ever.
        let generation = w(header::CLEAR_GEN);
        generation.store(generation::mended(generation.load(Relaxed)), Relaxed);
        w(header::NEXT_FULL_SWEEP).store(0, Relaxed);
        w(header::GROW_FAULTS).store(0, Relaxed);
        self.forget_swept();
        w(header::UNCLEAN).store(mark, Relaxed);
        for slot in 0..crate::shm::layout::STATS_SLOTS {
            w(self.layout.stats + slot * crate::shm::layout::STATS).store(0, Relaxed);
        }
        for no in 0..self.geo.shards {
            self.region.shard(no).set_dirty(true);
        }
        span::mend(&self.region);
        span::recover_frontier(&self.region);
        span::recover_pool(&self.region);
        self.lock_gen = w(header::LOCK_GEN).load(Relaxed);
        let mut dropped = 0;
        for no in 0..self.geo.shards {
            let guard = self.lock_as_is(no)?;
            dropped += self.rebuild(&guard, true)?;
            // Entries may be older, or younger, than the clear that the disk knows of, and a later clear's number.
            self.reap(&guard, self.clear_gen(), None);
        }
        self.recover_ids(None);
        self.revoke_spare();
        for no in 0..self.geo.shards {
            self.region.shard(no).set_dirty(false);
        }
        // Last: until every entry has proved itself, whoever opens the file next must let them do so.
        self.stamp_identity(mark)?;
        self.dropped = dropped;
        Ok(())
    }

    /// Writes the store to disk (MS_SYNC + fsync); nothing for anonymous memory.
    ///
    /// # Errors
    /// [`Error::Os`]: what was not written may be lost at a power failure.
    pub fn sync(&self) -> Result<()> {
        self.region.sync(self.region.word(header::COMMITTED).load(Acquire).min(self.layout.end))
    }
}

impl Attempt<'_> {
    /// Puts an empty file in the place of one that cannot be used. Whoever has the old one keeps it.
    fn start_afresh(&mut self, old: FileId, alone: bool, reason: String) -> Result<()> {
        let place = Place::of(self.path)?;
        if place.id() != Some(old) {
            return Err(file::refused(self.path, &reason));
        }
        match place.remove() {
            Ok(()) => self.made = Some(StoreFile::make_at(&place)?.id()),
            // Its name cannot go, but what is in it, as nobody else has it.
            Err(Error::Os { source, .. }) if source.raw_os_error() == Some(EBUSY) && alone => {
                let file = StoreFile::open_at(&place)?;
                if file.id() == old {
                    file.truncate(0)?;
                    self.made = Some(old);
                }
            }
            Err(Error::Os { source, .. }) if source.raw_os_error() == Some(EBUSY) => {
                return Err(file::refused(self.path, &format!("{reason}; it {MOUNTED}")));
            }
            Err(e) => return Err(e),
        }
        self.notes.push(format!("store {} {reason}: a new one was made (store_delete)", self.path.display()));
        Ok(())
    }
}

/// What a name that cannot be removed or taken is: the mount of one file.
pub(super) const MOUNTED: &str =
    "cannot be replaced, because this one file is a mount: mount its directory instead";
/// `EBUSY` and `EXDEV` of Linux.
pub(super) const EBUSY: i32 = 16;
pub(super) const EXDEV: i32 = 18;

/// An error of the system names the call, but not the file: the error with it, for who does not look into it.
pub(super) fn about(path: &Path, error: Error) -> Error {
    match error {
        Error::Os { call, source } => file::refused(path, &format!("{call}: {source}")),
        error => error,
    }
}

/// A store that is cut off has no right locks and no right generation any more: writers fail, readers miss, everywhere.
fn guard_of(config: &Config) -> Option<Guard> {
    let advance = [header::LOCK_GEN as usize, header::CLEAR_GEN as usize];
    config.store_guard.then_some(Guard { advance })
}

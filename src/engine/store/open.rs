//! Opening and creating regions.
#![forbid(unsafe_code)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    engine::{
        Config, Engine, HugePages, generation,
        store::{
            disk::{self, Disk, INIT, MAGIC, READY, VERSION},
            import_v5, sizing,
        },
    },
    error::{Error, Result, StoreFault},
    os::{
        cancel::Shield,
        dir_entry::{DirEntry, FileId},
        file::{Lock, OPENING, StoreFile, USERS},
        map::Mapping,
        process::{self, Owner},
        sigbus::SigbusWords,
        sparse,
    },
    shm::{
        Region,
        layout::{Geometry, Layout, SPAN, STATS, STATS_SLOTS, header},
        span,
        sync::*,
    },
};

/// Spans allocated on disk for a new store.
const FIRST_SPANS: u64 = 16;
/// How long an opener waits for another one.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// One opening in progress.
pub(in crate::engine) struct Opening<'a> {
    pub(in crate::engine) path: &'a Path,
    /// Creates the store if it is missing; its limits are requested.
    pub(in crate::engine) config: Option<&'a Config>,
    /// Whether an unusable store may be deleted.
    pub(in crate::engine) delete: bool,
    /// The file that replaced a deleted one.
    made: Option<FileId>,
    notes: Vec<String>,
    deadline: Instant,
}

impl Engine {
    /// Creates a cache, or opens its store file if `config` names one that exists.
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

    /// Opens an existing store file with its own limits.
    ///
    /// # Errors
    /// [`Error::Store`] names the reason; the file is left untouched.
    pub fn attach(path: &Path) -> Result<Arc<Self>> {
        Self::open_store(path, None, false)
    }

    /// [`Engine::attach`], optionally on an unknown file system that the caller trusts.
    #[cfg(feature = "cli")]
    pub(crate) fn attach_on(path: &Path, trust: bool) -> Result<Arc<Self>> {
        Self::open_store(path, None, trust)
    }

    /// Like [`Engine::create`], but an OS error names the store file.
    pub(crate) fn create_named(config: &Config) -> Result<Arc<Self>> {
        let made = Self::create(config);
        match &config.store {
            Some(store) => made.map_err(|e| about(&store.path, e)),
            None => made,
        }
    }

    /// Like [`Engine::attach`], but an OS error names the store file.
    pub(crate) fn attach_named(path: &Path) -> Result<Arc<Self>> {
        Self::attach(path).map_err(|e| about(path, e))
    }

    /// Whether a file is a store of any format and state.
    #[must_use]
    pub fn is_store(path: &Path) -> bool {
        StoreFile::open(path, false)
            .and_then(|file| Disk::read(path, &file))
            .is_ok_and(|disk| disk.word(header::MAGIC) == MAGIC)
    }

    /// Opens a store; with `config` it is created if missing, and its limits are requested.
    fn open_store(path: &Path, config: Option<&Config>, trust: bool) -> Result<Arc<Self>> {
        let _shield = Shield::raise();
        let deadline = Instant::now() + OPEN_PATIENCE;
        let delete = config.and_then(|c| c.store.as_ref()).is_some_and(|s| s.delete_unusable);
        let mut attempt = Opening { path, config, delete, made: None, notes: Vec::new(), deadline };
        loop {
            let mut file = StoreFile::open(path, config.is_some())?;
            let trusted = file.check_filesystem(path, trust)?;
            let Some(opening) = Self::lock_opening(path, &file)? else {
                if Instant::now() > deadline {
                    return Err(Error::store(path, StoreFault::Opening { waited: OPEN_PATIENCE }));
                }
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let opened = Self::open_exclusively(file, &mut attempt);
            // Unlock explicitly: a child forked meanwhile shares the file description and would
            // keep the lock. A failure here does not undo what was opened or moved.
            let _ = opening.lock(OPENING, Lock::Unlock, false);
            if let Some(mut engine) = opened? {
                engine.forks.store(process::fork_count(), Relaxed);
                let trusted = trusted.map(|reason| format!("store {} {reason}", path.display()));
                engine.notes.splice(0..0, attempt.notes.into_iter().chain(trusted));
                return Ok(Arc::new(engine));
            }
        }
    }

    /// The opening lock, on a descriptor of its own; `None` = another opener has it, or has replaced
    /// or deleted the file.
    fn lock_opening(path: &Path, file: &StoreFile) -> Result<Option<StoreFile>> {
        let opening = match StoreFile::open(path, false) {
            Err(Error::Os { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            opening => opening?,
        };
        let locked = opening.id() == file.id() && opening.lock(OPENING, Lock::Exclusive, false)?;
        Ok(locked.then_some(opening))
    }

    /// Called with the opening lock held. `None` = the file has been replaced: try again.
    fn open_exclusively(file: StoreFile, attempt: &mut Opening<'_>) -> Result<Option<Self>> {
        let (path, id) = (attempt.path, file.id());
        // The file may have been replaced while we waited.
        match StoreFile::open(path, false) {
            Ok(now) if now.id() == id => {}
            Ok(_) => return Ok(None),
            Err(Error::Os { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            // If the name cannot be checked, the file may not be the store of that name any more.
            Err(e) => return Err(e),
        }
        let mut alone = file.lock(USERS, Lock::Exclusive, false)?;
        while !alone && !file.lock(USERS, Lock::Shared, false)? {
            // The last user holds it exclusively for a moment while it closes.
            if Instant::now() > attempt.deadline {
                return Err(Error::store(path, StoreFault::Locked));
            }
            std::thread::sleep(Duration::from_millis(1));
            alone = file.lock(USERS, Lock::Exclusive, false)?;
        }
        match Self::open_locked(file, attempt, alone) {
            Err(Error::Store { fault, .. }) if attempt.delete => {
                attempt.delete = false;
                attempt.start_afresh(id, alone, fault)?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// With the opening lock held, and the users' lock exclusive (`alone`) or shared. Takes the
    /// wish to delete an unusable store back where it can be used, but its items could not be
    /// moved.
    fn open_locked(file: StoreFile, attempt: &mut Opening<'_>, alone: bool) -> Result<Self> {
        let (path, config) = (attempt.path, attempt.config);
        let mut disk = Disk::read(path, &file)?;
        let native = config.filter(|c| alone && disk.may_be_native(c));
        if file.names()? > 1 && !(native.is_some() && Self::was_importing(path, &file)) {
            return Err(disk.refuse(StoreFault::HardLinks));
        }
        let engine = match config {
            Some(c) if alone && disk.is_unfinished() => {
                let (id, again) = (file.id(), attempt.made == Some(file.id()));
                if !again {
                    DirEntry::of(path)?.check_links(Some(file.owner()?))?;
                }
                let made = again || file.is_made();
                // Under the opening lock: whoever waits for it finds no file, and makes one.
                Self::new_store(file, c).inspect_err(|_| {
                    if made {
                        DirEntry::remove_only(path, id);
                    }
                })?
            }
            Some(c) if native.is_some() => return Self::import(&file, c, attempt),
            _ if alone && import_v5::is_of_format_5(&disk) => {
                return Self::import_v5(disk, &file, attempt);
            }
            _ => {
                let geo = disk.check()?;
                if !alone {
                    disk.check_namespace()?;
                }
                match config.and_then(|c| Some((c, disk.difference(c, &geo)?))) {
                    Some((c, what)) if alone => return Self::convert(disk, geo, file, c, what, attempt),
                    Some((_, difference)) => return Err(disk.refuse(StoreFault::InUse { difference })),
                    None => Self::existing(&mut disk, geo, file, config, alone)?,
                }
            }
        };
        if alone {
            engine.join_users()?;
        }
        Ok(engine)
    }

    /// Makes a store of a file that no other process uses, whatever it holds.
    pub(in crate::engine) fn new_store(file: StoreFile, config: &Config) -> Result<Self> {
        let layout = sizing::layout(config, u64::MAX)?;
        let committed = (layout.data + FIRST_SPANS * SPAN).min(layout.end);
        // From here on a death leaves a file marked as incomplete.
        file.truncate(0)?;
        file.write_start(&[MAGIC, VERSION, 0, INIT].map(u64::to_ne_bytes).concat())?;
        // Ghosts, hits, the index and its stamps get their blocks as they are used.
        if sparse::can_reserve(&file) {
            file.grow(0, layout.ghosts)?;
            file.grow(layout.span_table, layout.table_end(committed))?;
        } else {
            file.grow(0, layout.table_end(committed))?;
        }
        file.grow(layout.data, committed)?;
        let map = Mapping::file(&file, layout.end as usize, sigbus_words_of(config))?;
        let region = Region::new(map, layout, Some(file))?;
        let engine = Self::assemble(region, config.clone(), Vec::new());
        engine.region.word(header::COMMITTED).store(committed, Release);
        engine.init(config)?;
        Ok(engine.reload())
    }

    /// Opens an existing store.
    pub(in crate::engine) fn existing(
        disk: &mut Disk<'_>,
        geo: Geometry,
        file: StoreFile,
        config: Option<&Config>,
        alone: bool,
    ) -> Result<Self> {
        let layout = Layout::new(geo).ok_or_else(|| disk.refuse(StoreFault::Damaged { part: "geometry" }))?;
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
                notes.push(format!("store {path} is in use: the creator's settings stay in force"));
                limits
            }
            (Some(limits), _) => limits,
            (None, _) => return Err(disk.refuse(StoreFault::Damaged { part: "limits" })),
        };
        limits.check()?;
        let id = file.id();
        let same_boot =
            disk.is_of_this_boot()? && (disk.word(header::DEV), disk.word(header::INO)) == (id.dev, id.ino);
        if alone {
            // A copy (also one restored into the same file), or a file after a power failure, may
            // have holes.
            file.back(0, layout.ghosts)?;
            file.back(layout.span_table, layout.table_end(committed))?;
        }
        let map = Mapping::file(&file, layout.end as usize, config.and_then(sigbus_words_of))?;
        let region = Region::new(map, layout, Some(file))?;
        if let (true, Some(file)) = (alone, region.file()) {
            region.word(header::COMMITTED).store(committed, Relaxed);
            region.back_used()?;
            span::each_backed(&region, |from, to| file.back(from, to))?;
            disk::fixed().for_each(|at| region.word(at).store(disk.word(at), Relaxed));
        }
        let mut engine = Self::assemble(region, limits.clone(), notes);
        if alone {
            let w = |at: u64, word: u64| engine.region.word(at).store(word, Relaxed);
            w(header::SUM, disk.word(header::SUM));
            w(header::STATE, READY);
            w(header::COMMITTED, committed);
            engine.write_limits(&limits);
            // The same thread, still alive: its program was replaced by exec (uWSGI's reload); no
            // process died.
            let again = same_boot && Owner::from_word(disk.word(header::OWNER)) == Owner::me();
            let unclean = disk.word(header::UNCLEAN) != 0 && !again;
            engine.restarted = !same_boot;
            engine.take_over(unclean)?;
            engine.restarted = false;
        }
        Ok(engine.reload())
    }

    /// The first opener: the locks are made anew, every shard is rebuilt, and every entry is
    /// validated. The same file and the same boot do not mean the same bytes: a copy made during
    /// writes may have been put back, and a disk may have lost some.
    fn take_over(&mut self, unclean: bool) -> Result<()> {
        let w = |at: u64| self.region.word(at);
        let mark = if unclean { 2 } else { 1 };
        // First, so that a user whose file descriptor was closed by others stops writing.
        w(header::LOCK_GEN).fetch_add(1, AcqRel);
        self.init_locks()?;
        w(header::EXCLUSIVE_OWNER).store(0, Relaxed);
        self.region
            .half(header::LEASE_WAITED)
            .store(self.region.half(header::LEASE_SEQ).load(Relaxed), Relaxed);
        // A flipped bit here would invalidate every item, or put off a full cache's sweep for ever.
        let generation = w(header::CLEAR_GEN);
        generation.store(generation::mended(generation.load(Relaxed)), Relaxed);
        w(header::NEXT_FULL_SWEEP).store(0, Relaxed);
        self.forget_beat();
        w(header::GROW_FAULTS).store(0, Relaxed);
        self.forget_swept();
        w(header::UNCLEAN).store(mark, Relaxed);
        for slot in 0..self.region.word(header::STATS_USED).load(Relaxed).clamp(1, STATS_SLOTS) {
            w(self.layout.stats + slot * STATS).store(0, Relaxed);
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
            // Entries may be older, or younger, than the clear that the disk knows of, and a later
            // clear's number.
            self.reap(&guard, self.clear_gen(), None);
        }
        self.items.spread();
        self.blocks.spread();
        for no in 0..self.geo.shards {
            self.region.shard(no).set_dirty(false);
        }
        // Last: until every entry is validated, the next opener must validate them again.
        self.stamp_identity(mark)?;
        self.dropped = dropped;
        // After a crash of the machine what was removed can be back beside what took its place.
        while self.counted_items() > self.geo.capacity && self.evict(None, None)? {}
        Ok(())
    }
}

impl Opening<'_> {
    /// Puts an empty file in the place of one that cannot be used. Processes that have the old one
    /// open keep it.
    fn start_afresh(&mut self, old: FileId, alone: bool, fault: StoreFault) -> Result<()> {
        let target = DirEntry::of(self.path)?;
        if target.id() != Some(old) {
            return Err(Error::store(self.path, fault));
        }
        match target.remove() {
            Ok(()) => self.made = Some(StoreFile::make_at(&target)?.id()),
            // Its name cannot be removed, but its content can, as no other process has it open.
            Err(Error::Os { source, .. }) if source.raw_os_error() == Some(EBUSY) && alone => {
                let file = StoreFile::open_at(&target)?;
                if file.id() == old {
                    file.truncate(0)?;
                    self.made = Some(old);
                }
            }
            Err(Error::Os { source, .. }) if source.raw_os_error() == Some(EBUSY) => {
                let fault = StoreFault::NotReplaceable { fault: Box::new(fault) };
                return Err(Error::store(self.path, fault));
            }
            Err(e) => return Err(e),
        }
        self.notes
            .push(format!("store {} {fault}: a new one was created (store_delete)", self.path.display()));
        Ok(())
    }
}

/// `EBUSY` and `EXDEV` of Linux.
pub(in crate::engine) const EBUSY: i32 = 16;
pub(in crate::engine) const EXDEV: i32 = 18;

/// The error, with the store file named in place of the call alone if it is an OS error.
pub(in crate::engine) fn about(path: &Path, error: Error) -> Error {
    match error {
        Error::Os { call, source } => Error::store(path, StoreFault::Os { call, error: source }),
        error => error,
    }
}

/// A store that is cut off has no right locks and no right generation any more: writers fail,
/// readers miss, everywhere.
fn sigbus_words_of(config: &Config) -> Option<SigbusWords> {
    let advance = [header::LOCK_GEN as usize, header::CLEAR_GEN as usize];
    config.store_guard.then_some(SigbusWords { advance })
}

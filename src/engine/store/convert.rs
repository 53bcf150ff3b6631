//! Conversion of stores made for other limits, or by native uWSGI. A new store is made beside the
//! old one, synced, and put in its place by one `rename`: whatever happens, one of the two is
//! there.
#![forbid(unsafe_code)]

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    engine::{
        Config, Engine, Eviction,
        index::entry,
        ops::set::New,
        store::{
            disk::Disk,
            open::{self, EBUSY, EXDEV, Opening},
            uwsgi_format::NativeStore,
        },
    },
    error::{Error, Result, StoreFault},
    os::{
        clock,
        dir_entry::DirEntry,
        file::{Lock, StoreFile, USERS},
    },
    shm::layout::Geometry,
};

/// A new store beside the file that it will replace; removed if that does not happen.
struct StagedStore {
    /// The file to replace, with links resolved.
    target: DirEntry,
    new: DirEntry,
    done: bool,
    note: Option<String>,
}

impl Drop for StagedStore {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.new.remove();
        }
    }
}

impl StagedStore {
    /// Makes an empty store `<path>.new`. Removes what an interrupted conversion has left.
    fn make(path: &Path, old: &StoreFile, config: &Config) -> Result<(Self, Engine)> {
        let target = DirEntry::of(path)?;
        if target.id() != Some(old.id()) {
            return Err(Error::store(path, StoreFault::Moved));
        }
        let new = target.beside(".new")?;
        remove_unfinished(&new)?;
        // An error names the new file, since its directory must be writable.
        let mut file = StoreFile::make_at(&new).map_err(|e| open::about(new.path(), e))?;
        let mut staged = Self { target, new, done: false, note: None };
        file.check_filesystem(staged.new.path(), config.store_fs_trust)?;
        if !file.lock(USERS, Lock::Exclusive, false)? {
            return Err(Error::store(staged.new.path(), StoreFault::InTheWay));
        }
        staged.note = file.resemble(old, &staged.target)?;
        Ok((staged, Engine::new_store(file, config)?))
    }

    /// Renames the new store over the old one.
    fn replace(mut self, engine: &mut Engine) -> Result<()> {
        // The new file must be on disk before the old one goes.
        engine.sync()?;
        engine.join_users()?;
        self.new.rename_to(&self.target).map_err(|e| mounted(self.target.path(), e))?;
        self.done = true;
        // From here on the new one is the store, whatever fails. Until its name is on disk, a power
        // failure brings back the old store, which is intact.
        let unsure =
            self.target.sync_names().err().map(|e| format!("its new name may not be on disk yet: {e}"));
        let store = self.target.path().display();
        engine
            .notes
            .extend(unsure.into_iter().chain(self.note.take()).map(|note| format!("store {store} {note}")));
        Ok(())
    }

    /// Adds another name for the old file, so that it is kept after the rename.
    fn keep_old(&self) -> Result<PathBuf> {
        let old = self.target.id();
        for n in 0..KEPT {
            let kept = kept(&self.target, n)?;
            match self.target.link_to(&kept) {
                Ok(()) => return Ok(kept.path().to_owned()),
                Err(Error::Os { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    // From an import interrupted here.
                    if kept.id() == old {
                        return Ok(kept.path().to_owned());
                    }
                }
                Err(e) => return Err(mounted(self.target.path(), e)),
            }
        }
        Err(Error::store(self.target.path(), StoreFault::TooManyKept { limit: KEPT }))
    }
}

/// An empty vector with capacity `n`; a lack of memory is an error.
pub(in crate::engine) fn try_vec<T>(n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let no_memory = |_| Error::Os { call: "malloc", source: io::ErrorKind::OutOfMemory.into() };
    all.try_reserve_exact(n).map_err(no_memory)?;
    Ok(all)
}

/// Maximum number of native files kept beside one store.
const KEPT: u32 = 100;

fn kept(target: &DirEntry, n: u32) -> Result<DirEntry> {
    target.beside(&if n == 0 { ".native".to_owned() } else { format!(".native.{n}") })
}

/// Removes the file of an interrupted opening; any other file of that name is an error.
fn remove_unfinished(new: &DirEntry) -> Result<()> {
    let in_the_way = || Error::store(new.path(), StoreFault::InTheWay);
    let file = match StoreFile::open_at(new) {
        Err(Error::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|_| in_the_way())?,
    };
    if !Disk::read(new.path(), &file)?.is_ours() || !file.lock(USERS, Lock::Exclusive, false)? {
        return Err(in_the_way());
    }
    new.remove()
}

/// Explains the system's error for a bind mount of a single file.
fn mounted(path: &Path, error: Error) -> Error {
    match error {
        Error::Os { source, .. } if [Some(EBUSY), Some(EXDEV)].contains(&source.raw_os_error()) => {
            Error::store(path, StoreFault::Mount)
        }
        other => other,
    }
}

impl Engine {
    /// Opens a store that was made for another number of items or without (with) LRU, which decide
    /// the layout: its items move to a new store. The caller holds it alone.
    pub(in crate::engine) fn convert(
        mut disk: Disk<'_>,
        geo: Geometry,
        file: StoreFile,
        config: &Config,
        difference: String,
        attempt: &mut Opening<'_>,
    ) -> Result<Self> {
        let path = disk.path;
        let old = Self::existing(&mut disk, geo, file, None, true)?;
        let mut items = old.entries_by_use()?;
        let mut left = 0;
        if items.len() as u64 > config.capacity {
            if config.eviction == Eviction::None {
                let items = items.len() as u64;
                return Err(Error::store(path, StoreFault::DoesNotFit { difference, items }));
            }
            left = items.len() - config.capacity as usize;
            items.drain(..left);
        }
        let Some(file) = old.region.file() else { return Err(Error::Damaged("a store without a file")) };
        let each = |new: &Self| {
            if old.has_copies() {
                new.keep_copies();
            }
            items.iter().try_for_each(|&(_, off)| old.copy_entry(off, new))?;
            new.continue_counts(&old);
            Ok(())
        };
        Self::move_items(file, config, (&difference, left), attempt, each)
    }

    /// Makes a new store of what `each` puts into it, and puts it in the place of the old one, which
    /// had this `difference`, and of which the `left` least recently used items stay behind.
    pub(super) fn move_items(
        file: &StoreFile,
        config: &Config,
        (difference, left): (&str, usize),
        attempt: &mut Opening<'_>,
        each: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let path = attempt.path;
        let made = || -> Result<Self> {
            let (staged, mut new) = StagedStore::make(path, file, config)?;
            each(&new)?;
            let n = new.counted_items();
            staged.replace(&mut new)?;
            let gone =
                if left == 0 { String::new() } else { format!("; the {left} least recently used are gone") };
            new.notes.push(format!(
                "store {} {difference}: its {n} items were moved to a new one{gone}",
                path.display()
            ));
            Ok(new)
        };
        made().map_err(|e| {
            attempt.delete = false;
            let error = Box::new(e);
            Error::store(path, StoreFault::NotConverted { difference: difference.to_owned(), error })
        })
    }

    /// Opens a file that has the size of native uWSGI's store of these settings: its items move to
    /// a new store, and the file gets another name. The caller holds it alone.
    pub(in crate::engine) fn import(
        file: &StoreFile,
        config: &Config,
        attempt: &mut Opening<'_>,
    ) -> Result<Self> {
        let path = attempt.path;
        let Some(shape) = config.native else { return Err(Error::Damaged("no native layout is known")) };
        let now = clock::unix_secs();
        let native = NativeStore::read(file, shape, config.eviction, (!config.no_expire).then_some(now))?;
        let c = native.counts;
        if native.is_foreign() {
            return Err(Error::store(path, StoreFault::NotNative { items: c.damaged }));
        }
        let made = || -> Result<Self> {
            let (staged, mut new) = StagedStore::make(path, file, config)?;
            native.each(now, |item| {
                new.restore(&item.key, &item.value, entry::millis(item.expires), item.flags)
            })?;
            let kept = staged.keep_old()?;
            staged.replace(&mut new)?;
            new.notes.push(format!(
                "store {} was native uWSGI's: {} items imported; left out: {} damaged, {} expired, {} duplicates; the old \
                 file is {}",
                path.display(),
                c.imported,
                c.damaged,
                c.expired,
                c.duplicates,
                kept.display()
            ));
            Ok(new)
        };
        made().map_err(|e| {
            attempt.delete = false;
            Error::store(path, StoreFault::NotImported { error: Box::new(e) })
        })
    }

    /// Whether the second name of a file comes from an interrupted import.
    pub(in crate::engine) fn was_importing(path: &Path, file: &StoreFile) -> bool {
        let is_kept = |target: &DirEntry| {
            (0..KEPT).any(|n| kept(target, n).is_ok_and(|kept| kept.id() == Some(file.id())))
        };
        file.names().is_ok_and(|names| names == 2) && DirEntry::of(path).is_ok_and(|target| is_kept(&target))
    }

    /// Offsets of the live entries, in the order in which they would be evicted.
    fn entries_by_use(&self) -> Result<Vec<(u64, u64)>> {
        let mut entries = try_vec(usize::try_from(self.counted_items()).unwrap_or(usize::MAX))?;
        for home in self.used_homes(0, self.geo.homes) {
            self.each_slot(home, |bucket, slot, word| {
                let off = entry::slot_off(word);
                if self.header_at(off).is_some_and(|h| h.key_len > 0 && self.exists_for_users(&h)) {
                    entries.push((self.stamp(bucket, slot), off));
                }
                true
            });
        }
        // S3-FIFO's stamps have the small queue before the main one, and what is used less before
        // what is used more. Stable: without stamps they stay in the order of the walk.
        entries.sort_by_key(|&(stamp, _)| stamp);
        Ok(entries)
    }

    fn copy_entry(&self, off: u64, to: &Self) -> Result<()> {
        let Some(h) = self.header_at(off) else { return Ok(()) };
        let key = entry::key(&self.region, off, self.header_bytes, &h);
        let source = entry::value(&self.region, off, self.header_bytes, &h);
        let mut value = try_vec(source.len())?;
        source.copy_to_vec(&mut value);
        to.restore(&key, &value, h.expires, h.flags)
    }

    /// Stores an item of another store as it was (`expires` in milliseconds). What is stored stays, also over a limit that is
    /// lower now.
    pub(super) fn restore(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> Result<()> {
        let new = New { value, expires, flags };
        let hashed = self.hash_key(key);
        self.write(&hashed, |guard, found| match found {
            Some(_) => Ok(()),
            None => self.insert(guard, &hashed, &new),
        })
    }
}

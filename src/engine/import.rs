//! Stores that cannot be used as they are, but whose items can: made for other limits, or by native uWSGI. A new store
//! is made beside the old one, synced, and put in its place by one `rename`: whatever happens, one of the two is there.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Config, Engine, Eviction, disk::Disk, entry, native::NativeStore, open, write::New};
use crate::{
    error::{Error, Result},
    os::{
        clock,
        file::{self, Lock, StoreFile, USERS},
    },
    shm::layout::Geometry,
};

/// A store being made beside another file; removed unless it takes that file's place.
struct Beside {
    /// The file to replace, links resolved.
    place: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Beside {
    /// Makes an empty store `<path>.new`. What somebody began before and did not end is written over.
    fn make(path: &Path, old: &StoreFile, config: &Config) -> Result<(Self, Engine)> {
        let place = fs::canonicalize(path).map_err(|source| Error::Os { call: "realpath", source })?;
        let path = with_suffix(&place, ".new");
        // It is beside the store that a directory has to be writable.
        let file = StoreFile::open(&path, true).map_err(|e| open::about(&path, e))?;
        let ours = Disk::read(&path, &file)?.is_ours();
        if !ours || !file.lock(USERS, Lock::Exclusive, false)? {
            return Err(file::refused(&path, "is in the way: a store is to be made there"));
        }
        let beside = Self { place, path, done: false };
        file.resemble(old)?;
        Ok((beside, Engine::new_store(file, config)?))
    }

    /// Puts the new store in the old one's place, for its users; returns what is to be told beside that.
    fn replace(mut self, engine: &Engine) -> Result<String> {
        // Nothing of the old one goes before all of the new one is on disk.
        engine.sync()?;
        engine.join_users()?;
        fs::rename(&self.path, &self.place).map_err(|source| Error::Os { call: "rename", source })?;
        self.done = true;
        // From here on the new one is the store, whatever fails. Until its name is on disk a power failure brings the old one
        // back, which is whole as well.
        let unsure = file::sync_directory(&self.place).err();
        Ok(unsure.map_or_else(String::new, |e| format!("; its new name may not be on disk yet: {e}")))
    }

    /// Another name for the old file, so that it stays when the new one takes its place.
    fn keep_old(&self) -> Result<PathBuf> {
        let old = fs::metadata(&self.place).map_err(|source| Error::Os { call: "stat", source })?;
        for n in 0..100 {
            let number = if n == 0 { String::new() } else { format!(".{n}") };
            let name = with_suffix(&self.place, &format!(".native{number}"));
            match fs::hard_link(&self.place, &name) {
                Ok(()) => return Ok(name),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    // From an import that was cut off here.
                    if fs::metadata(&name).is_ok_and(|m| (m.dev(), m.ino()) == (old.dev(), old.ino())) {
                        return Ok(name);
                    }
                }
                Err(source) => return Err(Error::Os { call: "link", source }),
            }
        }
        Err(file::refused(&self.place, "has a hundred .native files beside it already"))
    }
}

/// An empty vector with room for `n`; a lack of memory is an error.
pub(super) fn room_for<T>(n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let no_memory = |_| Error::Os { call: "malloc", source: io::ErrorKind::OutOfMemory.into() };
    all.try_reserve_exact(n).map_err(no_memory)?;
    Ok(all)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Engine {
    /// Opens a store that was made for another number of items or without (with) LRU, which decide the layout: its
    /// items move to a new store. The caller holds it alone.
    pub(super) fn convert(
        mut disk: Disk<'_>,
        geo: Geometry,
        file: StoreFile,
        config: &Config,
        what: &str,
        delete: &mut bool,
    ) -> Result<Self> {
        let path = disk.path;
        let refuse = |why: String| file::refused(path, &format!("{what}; {why}"));
        let old = Self::existing(&mut disk, geo, file, None, true)?;
        let mut items = old.places()?;
        let mut left = 0;
        if items.len() as u64 > config.capacity {
            if config.eviction == Eviction::None {
                let n = items.len();
                return Err(refuse(format!("its {n} items do not fit (store_delete=1 starts fresh)")));
            }
            left = items.len() - config.capacity as usize;
            items.drain(..left);
        }
        let made = || -> Result<Self> {
            let Some(file) = old.region.file() else { return Err(Error::Damaged("a store without a file")) };
            let (beside, mut new) = Beside::make(path, file, config)?;
            items.iter().try_for_each(|&(_, off)| old.copy_entry(off, &new))?;
            let unsure = beside.replace(&new)?;
            let gone =
                if left == 0 { String::new() } else { format!("; the {left} least recently used are gone") };
            let n = items.len();
            new.notes.push(format!(
                "store {} {what}: its {n} items were moved to a new one{gone}{unsure}",
                path.display()
            ));
            Ok(new)
        };
        made().map_err(|e| {
            *delete = false;
            refuse(format!("a new one could not be made ({e}), it stays as it is"))
        })
    }

    /// Opens a file that has the size of native uWSGI's store of these settings: its items move to a new store, and the
    /// file gets another name. The caller holds it alone.
    pub(super) fn import(path: &Path, file: &StoreFile, config: &Config, delete: &mut bool) -> Result<Self> {
        let Some(shape) = config.native else { return Err(Error::Damaged("no native layout is known")) };
        let now = clock::unix_secs();
        let native = NativeStore::read(file, shape, config.eviction, (!config.no_expire).then_some(now))?;
        let c = native.counts;
        if native.is_foreign() {
            let why = "is not a ucache store; it has the size of a native uWSGI store of these settings, but none of its";
            return Err(file::refused(path, &format!("{why} {} items is whole", c.damaged)));
        }
        let made = || -> Result<Self> {
            let (beside, mut new) = Beside::make(path, file, config)?;
            native.each(now, |item| new.restore(&item.key, &item.value, item.expires, item.flags))?;
            let kept = beside.keep_old()?;
            let unsure = beside.replace(&new)?;
            new.notes.push(format!(
                "store {} was native uWSGI's: {} items imported; left out: {} damaged, {} expired, {} duplicates; the old \
                 file is {}{unsure}",
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
            *delete = false;
            file::refused(
                path,
                &format!("is a native uWSGI store that could not be imported ({e}), it stays as it is"),
            )
        })
    }

    /// Where the live entries are, those first that would be evicted first.
    fn places(&self) -> Result<Vec<(u64, u64)>> {
        let mut places = room_for(usize::try_from(self.counted_items()).unwrap_or(usize::MAX))?;
        for head in 0..self.geo.heads {
            self.each_slot(head, |bucket, slot, word| {
                let off = entry::slot_off(word);
                if self.header_at(off).is_some_and(|h| h.key_len > 0 && self.exists_for_users(&h)) {
                    places.push((self.stamp(bucket, slot), off));
                }
                true
            });
        }
        // S3-FIFO's stamps have the small queue before the main one, and what is used less before what is used more.
        // Stable: without stamps they stay in the order of the walk.
        places.sort_by_key(|&(stamp, _)| stamp);
        Ok(places)
    }

    fn copy_entry(&self, off: u64, to: &Self) -> Result<()> {
        let Some(h) = self.header_at(off) else { return Ok(()) };
        let key = entry::key(&self.region, off, self.entry_head, &h);
        let source = entry::value(&self.region, off, self.entry_head, &h);
        let mut value = room_for(source.len())?;
        source.copy_to_vec(&mut value);
        to.restore(&key, &value, h.expires, h.flags)
    }

    /// Stores an item of another store as it was. What is stored stays, also over a limit that is lower now.
    fn restore(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> Result<()> {
        let new = New { value, expires: expires.min(entry::MAX_EXPIRES), flags };
        let place = self.place_for(key);
        self.write(&place, |guard, found| match found {
            Some(_) => Ok(()),
            None => self.insert(guard, &place, &new),
        })
    }
}

//! Stores that cannot be used as they are, but whose items can: made for other limits, or by native uWSGI. A new store
//! is made beside the old one, synced, and put in its place by one `rename`: whatever happens, one of the two is there.
#![forbid(unsafe_code)]

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Config, Engine, Eviction,
    disk::Disk,
    entry,
    native::NativeStore,
    open::{self, Attempt, EBUSY, EXDEV, MOUNTED},
    write::New,
};
use crate::{
    error::{Error, Result},
    os::{
        clock,
        file::{self, Lock, StoreFile, USERS},
        place::Place,
    },
    shm::layout::Geometry,
};

/// A store being made beside another file; removed unless it takes that file's place.
struct Beside {
    /// The file to replace, links resolved.
    place: Place,
    new: Place,
    done: bool,
    note: Option<String>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.new.remove();
        }
    }
}

impl Beside {
    /// Makes an empty store `<path>.new`. What somebody began before and did not end goes.
    fn make(path: &Path, old: &StoreFile, config: &Config) -> Result<(Self, Engine)> {
        let place = Place::of(path)?;
        if place.id() != Some(old.id()) {
            return Err(file::refused(path, "is not where its name leads"));
        }
        let new = place.beside(".new")?;
        remove_unfinished(&new)?;
        // It is beside the store that a directory has to be writable.
        let mut file = StoreFile::make_at(&new).map_err(|e| open::about(new.path(), e))?;
        let mut beside = Self { place, new, done: false, note: None };
        file.check_filesystem(beside.new.path(), config.store_fs_trust)?;
        if !file.lock(USERS, Lock::Exclusive, false)? {
            return Err(file::refused(beside.new.path(), "was taken by another process"));
        }
        beside.note = file.resemble(old, &beside.place)?;
        Ok((beside, Engine::new_store(file, config)?))
    }

    /// Puts the new store in the old one's place, for its users.
    fn replace(mut self, engine: &mut Engine) -> Result<()> {
        // Nothing of the old one goes before all of the new one is on disk.
        engine.sync()?;
        engine.join_users()?;
        self.new.rename_to(&self.place).map_err(|e| mounted(self.place.path(), e))?;
        self.done = true;
        // From here on the new one is the store, whatever fails. Until its name is on disk a power failure brings the old one
        // back, which is whole as well.
        let unsure =
            self.place.sync_names().err().map(|e| format!("its new name may not be on disk yet: {e}"));
        let store = self.place.path().display();
        engine
            .notes
            .extend(unsure.into_iter().chain(self.note.take()).map(|note| format!("store {store} {note}")));
        Ok(())
    }

    /// Another name for the old file, so that it stays when the new one takes its place.
    fn keep_old(&self) -> Result<PathBuf> {
        let old = self.place.id();
        for n in 0..KEPT {
            let kept = kept(&self.place, n)?;
            match self.place.link_to(&kept) {
                Ok(()) => return Ok(kept.path().to_owned()),
                Err(Error::Os { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    // From an import that was cut off here.
                    if kept.id() == old {
                        return Ok(kept.path().to_owned());
                    }
                }
                Err(e) => return Err(mounted(self.place.path(), e)),
            }
        }
        Err(file::refused(self.place.path(), "has a hundred .native files beside it already"))
    }
}

/// An empty vector with room for `n`; a lack of memory is an error.
pub(super) fn room_for<T>(n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let no_memory = |_| Error::Os { call: "malloc", source: io::ErrorKind::OutOfMemory.into() };
    all.try_reserve_exact(n).map_err(no_memory)?;
    Ok(all)
}

/// How many native files are kept beside one store.
const KEPT: u32 = 100;

fn kept(place: &Place, n: u32) -> Result<Place> {
    place.beside(&if n == 0 { ".native".to_owned() } else { format!(".native.{n}") })
}

/// Removes what an opening that was cut off has left; anything else of that name is in the way.
fn remove_unfinished(new: &Place) -> Result<()> {
    let in_the_way = || file::refused(new.path(), "is in the way: a store is to be made there");
    let file = match StoreFile::open_at(new) {
        Err(Error::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|_| in_the_way())?,
    };
    if !Disk::read(new.path(), &file)?.is_ours() || !file.lock(USERS, Lock::Exclusive, false)? {
        return Err(in_the_way());
    }
    new.remove()
}

/// What the system says of a mount of one file.
fn mounted(path: &Path, error: Error) -> Error {
    match error {
        Error::Os { source, .. } if [Some(EBUSY), Some(EXDEV)].contains(&source.raw_os_error()) => {
            file::refused(path, MOUNTED)
        }
        other => other,
    }
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
        attempt: &mut Attempt<'_>,
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
            beside.replace(&mut new)?;
            let gone =
                if left == 0 { String::new() } else { format!("; the {left} least recently used are gone") };
            let n = items.len();
            new.notes.push(format!(
                "store {} {what}: its {n} items were moved to a new one{gone}",
                path.display()
            ));
            Ok(new)
        };
        made().map_err(|e| {
            attempt.delete = false;
            refuse(format!("a new one could not be made ({e}), it stays as it is"))
        })
    }

    /// Opens a file that has the size of native uWSGI's store of these settings: its items move to a new store, and the
    /// file gets another name. The caller holds it alone.
    pub(super) fn import(file: &StoreFile, config: &Config, attempt: &mut Attempt<'_>) -> Result<Self> {
        let path = attempt.path;
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
            beside.replace(&mut new)?;
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
            file::refused(
                path,
                &format!("is a native uWSGI store that could not be imported ({e}), it stays as it is"),
            )
        })
    }

    /// Whether the second name of a file is the one that an import gave it before it was cut off.
    pub(super) fn was_importing(path: &Path, file: &StoreFile) -> bool {
        let is_kept =
            |place: &Place| (0..KEPT).any(|n| kept(place, n).is_ok_and(|kept| kept.id() == Some(file.id())));
        file.names().is_ok_and(|names| names == 2) && Place::of(path).is_ok_and(|place| is_kept(&place))
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

//! Who uses a store: the lock that all of them share, and the marks of how they left it.
#![forbid(unsafe_code)]

use super::Engine;
use crate::{
    error::Result,
    os::{
        file::{Lock, StoreFile, USERS},
        process::{self, Owner},
    },
    shm::{layout::header, sync::*},
};

impl Engine {
    /// From having the store alone to sharing it.
    pub(super) fn join_users(&self) -> Result<()> {
        self.region.file().map_or(Ok(true), |file| file.lock(USERS, Lock::Shared, false)).map(|_| ())
    }

    /// Who runs this region now, and that it was not closed.
    pub(super) fn stamp_identity(&self, unclean: u64) -> Result<()> {
        let w = |at: u64| self.region.word(at);
        let id = self.region.file().map(StoreFile::id);
        let (boot, namespace) =
            if id.is_some() { (process::boot_id()?, process::pid_namespace()?) } else { (0, 0) };
        w(header::DEV).store(id.map_or(0, |i| i.dev), Relaxed);
        w(header::INO).store(id.map_or(0, |i| i.ino), Relaxed);
        w(header::BOOT).store(boot, Relaxed);
        w(header::UNCLEAN).store(unclean, Relaxed);
        w(header::OPENER).store(Owner::me().to_word(), Relaxed);
        w(header::NAMESPACE).store(namespace, Relaxed);
        Ok(())
    }

    /// Makes the calling process the one that opened the store: the one that did has ended, having left all to this child (a
    /// server that goes to the background).
    pub(crate) fn inherit_store(&self) {
        let forks = process::fork_count();
        if self.forks.swap(forks, Relaxed) != forks && self.region.file().is_some_and(StoreFile::is_same) {
            self.region.word(header::OPENER).store(Owner::me().to_word(), Relaxed);
        }
    }

    /// The process ends: if it opened the store, and no other opener has it, that is the mark of a clean end, which is
    /// only told, not relied on. Makes async-signal-safe calls only; the cache can still be used.
    pub(crate) fn mark_closed(&self) {
        let Some(file) = self.region.file() else { return };
        // A forked child shares the lock of who opened the store, and leaves it alone.
        let forks = self.forks.load(Relaxed);
        if forks != 0 && forks != process::fork_count() || !file.is_same() {
            return;
        }
        // Somebody may have cut it off: there is no header to write to.
        if file.len().unwrap_or(0) < self.layout.data {
            return;
        }
        let alone = file.lock(USERS, Lock::Exclusive, false).unwrap_or(false);
        if self.region.word(header::LOCK_GEN).load(Relaxed) == self.lock_gen {
            let w = |at: u64| self.region.word(at);
            match (alone, forks != 0) {
                (true, true) => w(header::UNCLEAN).store(0, Release),
                // Where others stay, the opener's return is no sign that nobody died meanwhile.
                (false, true) => w(header::OPENER).store(0, Release),
                // An opening that failed used nothing: a death before it is still to be told.
                (true, false) => {
                    w(header::OPENER).store(0, Release);
                    let _ = w(header::UNCLEAN).compare_exchange(1, 0, Release, Relaxed);
                }
                (false, false) => {}
            }
        }
        // Shared again, because children may live on; it ends when the last of them closes the file.
        let _ = file.lock(USERS, Lock::Shared, false);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.mark_closed();
    }
}

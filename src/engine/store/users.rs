//! The users of a store: the lock that they share, and the marks of a clean end.
#![forbid(unsafe_code)]

use crate::{
    engine::Engine,
    error::Result,
    os::{
        file::{Lock, StoreFile, USERS},
        process::{self, Owner},
    },
    shm::{layout::header, sync::*},
};

impl Engine {
    /// Changes from exclusive to shared use of the store.
    pub(in crate::engine) fn join_users(&self) -> Result<()> {
        self.region.file().map_or(Ok(true), |file| file.lock(USERS, Lock::Shared, false)).map(|_| ())
    }

    /// Notes the process that runs this region, and that it was not closed.
    pub(in crate::engine) fn stamp_identity(&self, unclean: u64) -> Result<()> {
        let w = |at: u64| self.region.word(at);
        let id = self.region.file().map(StoreFile::id);
        let boot = if id.is_some() { process::boot_id()? } else { 0 };
        let (pid, time) = (process::pid_namespace()?, process::time_namespace()?);
        w(header::DEV).store(id.map_or(0, |i| i.dev), Relaxed);
        w(header::INO).store(id.map_or(0, |i| i.ino), Relaxed);
        w(header::BOOT).store(boot, Relaxed);
        w(header::UNCLEAN).store(unclean, Relaxed);
        w(header::OWNER).store(Owner::me().to_word(), Relaxed);
        w(header::NAMESPACE).store(pid, Relaxed);
        w(header::TIME_NAMESPACE).store(time, Relaxed);
        Ok(())
    }

    /// Makes the calling process the one that opened the store: the one that did has ended, having
    /// left all to this child (a server that goes to the background).
    #[cfg(feature = "capi")]
    pub(crate) fn inherit_store(&self) {
        let forks = process::fork_count();
        if self.forks.swap(forks, Relaxed) != forks && self.region.file().is_some_and(StoreFile::is_same) {
            self.region.word(header::OWNER).store(Owner::me().to_word(), Relaxed);
        }
    }

    /// The process ends: if it opened the store, and no other opener has it, that is the mark of a
    /// clean end, which is only told, not relied on. Makes async-signal-safe calls only; the cache
    /// can still be used.
    pub(crate) fn mark_closed(&self) {
        let Some(file) = self.region.file() else { return };
        // A forked child shares the lock of the process that opened the store, and leaves it alone.
        let forks = self.forks.load(Relaxed);
        if forks != 0 && forks != process::fork_count() || !file.is_same() {
            return;
        }
        // The file may have been truncated: then there is no header to write to.
        if file.len().unwrap_or(0) < self.layout.data {
            return;
        }
        let alone = file.lock(USERS, Lock::Exclusive, false).unwrap_or(false);
        if self.region.word(header::LOCK_GEN).load(Relaxed) == self.lock_gen {
            let w = |at: u64| self.region.word(at);
            match (alone, forks != 0) {
                (true, true) => w(header::UNCLEAN).store(0, Release),
                // While others stay, the opener's return does not prove that no process died
                // meanwhile.
                (false, true) => w(header::OWNER).store(0, Release),
                // A failed opening used nothing: an earlier death must still be reported.
                (true, false) => {
                    w(header::OWNER).store(0, Release);
                    let _ = w(header::UNCLEAN).compare_exchange(1, 0, Release, Relaxed);
                }
                (false, false) => {}
            }
        }
        // Shared again, because children may live on; it ends when the last of them closes the
        // file.
        let _ = file.lock(USERS, Lock::Shared, false);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.mark_closed();
    }
}

//! Who may use a cache, and who uses a store: the lock that all of them share, and the marks of how they left it.
#![forbid(unsafe_code)]

use super::Engine;
use crate::{
    error::{Error, Result},
    os::{
        file::{Lock, StoreFile, USERS},
        mutex::{self, Standing},
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
        let boot = if id.is_some() { process::boot_id()? } else { 0 };
        let (pid, time) = (process::pid_namespace()?, process::time_namespace()?);
        w(header::DEV).store(id.map_or(0, |i| i.dev), Relaxed);
        w(header::INO).store(id.map_or(0, |i| i.ino), Relaxed);
        w(header::BOOT).store(boot, Relaxed);
        w(header::UNCLEAN).store(unclean, Relaxed);
        w(header::OPENER).store(Owner::me().to_word(), Relaxed);
        w(header::NAMESPACE).store(pid, Relaxed);
        w(header::TIME_NAMESPACE).store(time, Relaxed);
        Ok(())
    }

    /// Whether this process was found fit to lock since it was forked.
    #[inline(always)]
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed) == process::fork_mark()
    }

    /// Finds out whether the calling thread may lock: whether all others know its locks by its thread id, and see its death.
    ///
    /// # Errors
    /// [`Error::ForeignProcess`] says why not.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(&self) -> Result<()> {
        if self.is_admitted() {
            return Ok(());
        }
        let standing = mutex::thread_standing();
        if standing == Standing::Foreign {
            return Err(Error::ForeignProcess(
                "its process was made by a bare fork or clone, and its locks would outlive it: make it with fork()",
            ));
        }
        if let Some(which) = self.foreign_namespace()? {
            return Err(Error::ForeignProcess(which));
        }
        if standing == Standing::Process {
            self.admitted.store(process::fork_count(), Relaxed);
        }
        Ok(())
    }

    /// Why the calling process is not in the namespaces of who made or opened the cache; `None` = it is.
    ///
    /// # Errors
    /// It could not be found out now.
    pub(super) fn foreign_namespace(&self) -> Result<Option<&'static str>> {
        let which = namespaces(|at| self.region.word(at).load(Relaxed))?;
        Ok(which.map(|which| match which {
            Namespace::Pid => "it is in another PID namespace than who made the cache (other thread ids): make it in this one",
            Namespace::Time => "it is in another time namespace than who made the cache (other clocks): make it in this one",
        }))
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

/// A namespace that users of a cache share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Namespace {
    Pid,
    Time,
}

/// Which of the calling process's namespaces is another than the one that a header tells of, as far as both are known.
///
/// # Errors
/// It could not be found out now.
pub(super) fn namespaces(word: impl Fn(u64) -> u64) -> Result<Option<Namespace>> {
    let differ = |theirs: u64, own: u64| theirs != 0 && own != 0 && theirs != own;
    if differ(word(header::NAMESPACE), process::pid_namespace()?) {
        return Ok(Some(Namespace::Pid));
    }
    let other = differ(word(header::TIME_NAMESPACE), process::time_namespace()?);
    Ok(other.then_some(Namespace::Time))
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.mark_closed();
    }
}

//! Whether the calling process may lock: its thread ids and clocks must mean the same to all users
//! of the cache.
#![forbid(unsafe_code)]

use crate::{
    engine::Engine,
    error::{Error, Result},
    os::{
        mutex::{self, Standing},
        process,
    },
    shm::{layout::header, sync::*},
};

/// A namespace that users of a cache share.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum Namespace {
    Pid,
    Time,
}

/// Which of the calling process's namespaces is another than the one that a header tells of, as far
/// as both are known.
///
/// # Errors
/// The namespaces could not be read this time.
pub(in crate::engine) fn namespaces(word: impl Fn(u64) -> u64) -> Result<Option<Namespace>> {
    let differ = |theirs: u64, own: u64| theirs != 0 && own != 0 && theirs != own;
    if differ(word(header::NAMESPACE), process::pid_namespace()?) {
        return Ok(Some(Namespace::Pid));
    }
    let other = differ(word(header::TIME_NAMESPACE), process::time_namespace()?);
    Ok(other.then_some(Namespace::Time))
}

impl Engine {
    /// Whether this process has been admitted since it was forked.
    #[inline(always)]
    pub(in crate::engine) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed) == process::fork_mark()
    }

    /// Finds out whether the calling thread may lock: whether all others know its locks by its
    /// thread id, and see its death.
    ///
    /// # Errors
    /// [`Error::ForeignProcess`] with the reason.
    #[cold]
    #[inline(never)]
    pub(in crate::engine) fn admit(&self) -> Result<()> {
        if self.is_admitted() {
            return Ok(());
        }
        let standing = mutex::thread_standing();
        if standing == Standing::Foreign {
            return Err(Error::ForeignProcess(
                "its process was created by a bare fork or clone system call, and its locks would outlive it: use fork()",
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

    /// Why the calling process is in other namespaces than the one that made or opened the cache;
    /// `None` = it is in the same.
    ///
    /// # Errors
    /// The namespaces could not be read this time.
    pub(in crate::engine) fn foreign_namespace(&self) -> Result<Option<&'static str>> {
        let which = namespaces(|at| self.region.word(at).load(Relaxed))?;
        Ok(which.map(|which| match which {
            Namespace::Pid => "it is in another PID namespace than the creator of the cache (different thread ids): create the cache in this one",
            Namespace::Time => "it is in another time namespace than the creator of the cache (different clocks): create the cache in this one",
        }))
    }
}

//! One thread alone: uWSGI's `wlock`, which makes a read-modify-write of foreign code atomic. Readers do not notice.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Engine, stats::Counter};
use crate::{
    error::{Error, Result},
    os::{mutex::Locked, process::Owner},
    shm::{layout::header, order, sync::*},
};

impl Engine {
    fn foreign(&self) -> &AtomicU64 {
        self.region.word(header::FOREIGN)
    }

    /// Takes the cache for the calling thread: no other thread or process writes until [`Engine::exclusive_end`].
    /// The thread's own writes go on. Not recursive.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] when the thread has it already, [`Error::Timeout`].
    pub fn exclusive_begin(&self) -> Result<()> {
        let mutex = self.region.mutex(header::LOCK_FOREIGN);
        if self.acquire(mutex, self.config.lock_timeout)? == Locked::OwnerDied {
            self.count(Counter::OwnerDead, 1);
            self.foreign().store(0, SeqCst);
            mutex.consistent();
        }
        self.foreign().store(Owner::me().to_word(), order::exclusive::ANNOUNCE);
        // Writers test the flag after taking their shard's lock: who took it before the flag stood is through when
        // we have held it once.
        for no in 0..self.geo.shards {
            if let Err(e) = self.lock_as_is(no) {
                self.exclusive_end();
                return Err(e);
            }
        }
        Ok(())
    }

    /// Ends [`Engine::exclusive_begin`]. No effect if the calling thread does not hold it.
    pub fn exclusive_end(&self) {
        if self.foreign().load(SeqCst) == Owner::me().to_word() {
            self.foreign().store(0, SeqCst);
            self.region.mutex(header::LOCK_FOREIGN).unlock();
        }
    }

    /// Waits until no other thread has the cache to itself.
    pub(super) fn wait_exclusive(&self) -> Result<()> {
        self.wait_exclusive_within(self.config.lock_timeout)
    }

    /// [`Engine::wait_exclusive`] for at most `patience`.
    #[cold]
    pub(super) fn wait_exclusive_within(&self, patience: Duration) -> Result<()> {
        if self.is_mine() {
            return Ok(());
        }
        let mutex = self.region.mutex(header::LOCK_FOREIGN);
        match self.acquire(mutex, patience) {
            Ok(Locked::OwnerDied) => {
                self.count(Counter::OwnerDead, 1);
                self.foreign().store(0, SeqCst);
                mutex.consistent();
                mutex.unlock();
            }
            Ok(Locked::Clean) => {
                // Who has the lock sets the mark after that, and clears it before: nobody else's mark can be there.
                self.foreign().store(0, SeqCst);
                mutex.unlock();
            }
            // Between taking the lock and setting its mark, in a signal handler.
            Err(Error::WouldDeadlock) if self.is_mine() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

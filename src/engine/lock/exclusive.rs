//! Exclusive mode: uWSGI's `wlock`, which makes a read-modify-write of the application atomic.
//! Readers are not affected.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, stats::Counter},
    error::{Error, Result},
    os::{mutex::Locked, process::Owner},
    shm::{layout::header, order, sync::*},
};

impl Engine {
    fn exclusive_owner(&self) -> &AtomicU64 {
        self.region.word(header::EXCLUSIVE_OWNER)
    }

    /// Takes the cache for the calling thread: no other thread or process writes until
    /// [`Engine::exclusive_end`]. The thread's own writes go on. Not recursive.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] if the thread is exclusive already, [`Error::Timeout`].
    pub fn exclusive_begin(&self) -> Result<()> {
        let mutex = self.region.mutex(header::LOCK_EXCLUSIVE);
        if self.acquire(mutex, self.config.lock_timeout)? == Locked::OwnerDied {
            self.count(Counter::OwnerDead, 1);
            self.exclusive_owner().store(0, SeqCst);
            mutex.consistent();
        }
        self.exclusive_owner().store(Owner::me().to_word(), order::exclusive::ANNOUNCE);
        // Changes of numbers take no lock that could be waited for: from the first time on, numbers
        // have no lives (I15).
        let freezes = self.begin_lifeless();
        // Locking each shard once waits out every writer that locked before the flag was set:
        // writers test the flag after they lock (I4).
        for no in 0..self.geo.shards {
            match self.lock_as_is(no) {
                Ok(guard) if freezes => self.freeze_all(&guard),
                Ok(_) => {}
                Err(e) => {
                    self.exclusive_end();
                    return Err(e);
                }
            }
        }
        if freezes {
            self.end_lifeless();
        }
        Ok(())
    }

    /// Ends [`Engine::exclusive_begin`]. No effect if the calling thread does not hold it.
    pub fn exclusive_end(&self) {
        if self.exclusive_owner().load(SeqCst) == Owner::me().to_word() {
            self.exclusive_owner().store(0, SeqCst);
            self.region.mutex(header::LOCK_EXCLUSIVE).unlock();
        }
    }

    /// Waits until no other thread holds the cache exclusively.
    pub(in crate::engine) fn wait_exclusive(&self) -> Result<()> {
        self.wait_exclusive_within(self.config.lock_timeout)
    }

    /// [`Engine::wait_exclusive`] for at most `patience`.
    #[cold]
    pub(in crate::engine) fn wait_exclusive_within(&self, patience: Duration) -> Result<()> {
        if self.may_write() {
            return Ok(());
        }
        let mutex = self.region.mutex(header::LOCK_EXCLUSIVE);
        match self.acquire(mutex, patience) {
            Ok(Locked::OwnerDied) => {
                self.count(Counter::OwnerDead, 1);
                self.exclusive_owner().store(0, SeqCst);
                mutex.consistent();
                mutex.unlock();
            }
            Ok(Locked::Clean) => {
                // The mark is set after the lock is taken and cleared before it is released: with
                // the lock held, no valid mark can be there.
                self.exclusive_owner().store(0, SeqCst);
                mutex.unlock();
            }
            // In a signal handler between taking the lock and setting the mark.
            Err(Error::WouldDeadlock) if self.may_write() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

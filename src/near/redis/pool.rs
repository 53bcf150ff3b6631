//! Connections that no call uses at the moment, of this process alone.
//!
//! No lock is waited for: a slot that another thread is looking at, or was when this process was
//! forked, is passed over. So a fork inherits nothing that it could hang on, and threads never
//! queue for a connection.

use std::sync::Mutex;

use super::conn::Conn;

/// Connections of one process beyond this number are closed after use.
const KEPT: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Pool([Mutex<Option<Conn>>; KEPT]);

impl Pool {
    pub(super) const fn new() -> Self {
        Self([const { Mutex::new(None) }; KEPT])
    }

    /// A connection that can be used at once. Closes what a fork inherited, and what the server has
    /// closed.
    pub(super) fn take(&self) -> Option<Conn> {
        for slot in &self.0 {
            // Looked at outside of the lock, so that other threads rarely find it taken.
            let kept = slot.try_lock().ok().and_then(|mut slot| slot.take());
            if let Some(conn) = kept
                && conn.is_usable()
            {
                return Some(conn);
            }
        }
        None
    }

    /// Keeps a connection whose replies have all been read.
    pub(super) fn put(&self, conn: Conn) {
        for slot in &self.0 {
            let Ok(mut slot) = slot.try_lock() else { continue };
            if slot.as_ref().is_none_or(|kept| !kept.is_ours()) {
                *slot = Some(conn);
                return;
            }
        }
    }

    /// Closes all unused connections: the server restarted, or was replaced by another.
    pub(super) fn clear(&self) {
        for slot in &self.0 {
            if let Ok(mut slot) = slot.try_lock() {
                *slot = None;
            }
        }
    }
}

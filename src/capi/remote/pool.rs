//! Connections to servers that keep theirs open, for the next call of any thread of this process.
//!
//! At most [`MOST`], each for [`IDLE`] between two calls and [`AGE`] in all (addresses of names change, and servers
//! have several workers). No lock is waited for, so a fork inherits nothing that it could hang on; what it inherits
//! of its parent's connections it closes when it looks for its own first one.
#![forbid(unsafe_code)]

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{net::Conn, service};
use crate::os::process::fork_count;

const MOST: usize = 32;
/// Well under what a server waits, so that a connection is not closed just when it is used.
const IDLE: Duration = Duration::from_secs(10);
const AGE: Duration = Duration::from_secs(60);
const _: () = assert!(IDLE.as_secs() * 2 < service::IDLE.as_secs());

/// An open connection.
#[derive(Debug)]
pub(super) struct Kept {
    /// The connection itself.
    pub(super) conn: Conn,
    server: Box<[u8]>,
    forks: u32,
    born: Instant,
    used: Instant,
}

impl Kept {
    /// A connection just made to this server.
    pub(super) fn new(conn: Conn, server: &[u8]) -> Self {
        let now = Instant::now();
        conn.send_at_once();
        Self { conn, server: server.into(), forks: fork_count(), born: now, used: now }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.forks == fork_count() && now < self.used + IDLE && now < self.born + AGE
    }
}

static SLOTS: [Mutex<Option<Kept>>; MOST] = [const { Mutex::new(None) }; MOST];

/// A connection to this server that nobody uses and that the server has not closed, taken out of the pool.
pub(super) fn take(server: &[u8]) -> Option<Kept> {
    let now = Instant::now();
    let mut found = None;
    for slot in &SLOTS {
        // A slot that another thread is looking at, or was when this process was forked off, is passed over.
        let Ok(mut slot) = slot.try_lock() else { continue };
        if slot.as_ref().is_some_and(|kept| !kept.is_fresh(now)) {
            *slot = None;
        }
        if found.is_none() && slot.as_ref().is_some_and(|kept| *kept.server == *server) {
            found = slot.take().filter(|kept| !kept.conn.is_spent());
        }
    }
    found
}

/// Keeps a connection whose last answer has been read to its end; where there is no room, the one not used for the
/// longest time is closed for it.
pub(super) fn put(mut kept: Kept) {
    kept.used = Instant::now();
    let mut oldest: Option<(Instant, &Mutex<Option<Kept>>)> = None;
    for slot in &SLOTS {
        let Ok(mut content) = slot.try_lock() else { continue };
        match content.as_ref().map(|kept| kept.used) {
            None => {
                *content = Some(kept);
                return;
            }
            Some(used) if oldest.is_none_or(|(least, _)| used < least) => oldest = Some((used, slot)),
            Some(_) => {}
        }
    }
    if let Some(mut content) = oldest.and_then(|(_, slot)| slot.try_lock().ok()) {
        *content = Some(kept);
    }
}

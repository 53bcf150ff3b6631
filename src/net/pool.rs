//! Connections that servers keep open, pooled for the next call of any thread of this process.
//!
//! At most [`MOST`], each for [`IDLE`] between two calls and [`AGE`] in total (addresses of names
//! change, and servers have several workers). Locks are only tried, so a fork cannot inherit a
//! state that blocks. A child closes the connections of its parent when it looks for its own first
//! one.
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::conn::Conn;
use crate::{os::process::fork_count, wire::command::KEEP_ALIVE};

const MOST: usize = 32;
/// Well under the server's limit, so that a connection is not closed just when it is reused.
const IDLE: Duration = Duration::from_secs(10);
const AGE: Duration = Duration::from_secs(60);
const _: () = assert!(IDLE.as_secs() * 2 < KEEP_ALIVE.as_secs());

/// An open connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// The connection itself.
    pub(crate) conn: Conn,
    server: Box<[u8]>,
    forks: u32,
    born: Instant,
    used: Instant,
}

impl Session {
    /// A new connection to this server.
    pub(crate) fn new(conn: Conn, server: &[u8]) -> Self {
        let now = Instant::now();
        conn.send_at_once();
        Self { conn, server: server.into(), forks: fork_count(), born: now, used: now }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.forks == fork_count() && now < self.used + IDLE && now < self.born + AGE
    }
}

static SLOTS: [Mutex<Option<Session>>; MOST] = [const { Mutex::new(None) }; MOST];

/// Takes an idle connection to this server out of the pool, unless the server has closed it.
pub(crate) fn take(server: &[u8]) -> Option<Session> {
    let now = Instant::now();
    let mut found = None;
    for slot in &SLOTS {
        // Skip a slot that another thread uses, or used when this process was forked.
        let Ok(mut slot) = slot.try_lock() else { continue };
        if slot.as_ref().is_some_and(|session| !session.is_fresh(now)) {
            *slot = None;
        }
        if found.is_none() && slot.as_ref().is_some_and(|session| *session.server == *server) {
            found = slot.take().filter(|session| !session.conn.is_spent());
        }
    }
    found
}

/// Keeps a connection whose last answer has been read completely; if the pool is full, the least
/// recently used one is closed.
pub(crate) fn put(mut session: Session) {
    session.used = Instant::now();
    let mut oldest: Option<(Instant, &Mutex<Option<Session>>)> = None;
    for slot in &SLOTS {
        let Ok(mut content) = slot.try_lock() else { continue };
        match content.as_ref().map(|session| session.used) {
            None => {
                *content = Some(session);
                return;
            }
            Some(used) if oldest.is_none_or(|(least, _)| used < least) => oldest = Some((used, slot)),
            Some(_) => {}
        }
    }
    if let Some(mut content) = oldest.and_then(|(_, slot)| slot.try_lock().ok()) {
        *content = Some(session);
    }
}

//! Whether a connection leads to the server that tells the owner of changes.
//!
//! An address may lead to several servers: behind a proxy, a name with several addresses, a virtual
//! IP that has moved. What one server says is kept only if it is the one whose messages the owner
//! gets. The name of the owner's connection there has a word that no other connection has:
//! `CLIENT LIST ID` finds it, or not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    config::Copies,
    conn::Conn,
    link::is_owner,
    only,
    resp::{self, Reply, Request},
    slots::Map,
};
use crate::{
    engine::{Beat, Counter, Engine},
    error::BackendFault,
    os::clock::{self, coarse_millis},
};

/// How long before the end of their time copies are used no more, milliseconds.
pub(super) const MARGIN: u64 = 10;
/// How long after a connection that led elsewhere the next one is looked at, milliseconds.
const PAUSE: u64 = 100;

/// Whether a beat is within the limit even if this clock is late by half of the limit.
#[inline(always)]
fn is_young(beat: Beat, limit: u64, coarse: u64) -> bool {
    beat.is_within(limit / 2, coarse)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    /// The region whose owner it is; `None` = nobody is told of changes.
    region: Option<Arc<Engine>>,
    /// Copies are used while the beat is younger, milliseconds: 0 = never, `u64::MAX` = always.
    usual: u64,
    /// The same as of now: 0 while this process reaches another server than the owner.
    limit: AtomicU64,
    /// When to look again.
    next: AtomicU64,
}

impl Place {
    pub(super) fn new(copies: Option<Copies>, region: Option<Arc<Engine>>) -> Self {
        let (usual, is_told) = match copies {
            None => (0, false),
            Some(Copies { max_stale: None, .. }) => (u64::MAX, false),
            Some(Copies { max_stale: Some(limit), .. }) => (limit - MARGIN + 1, true),
        };
        let region = region.filter(|_| is_told);
        Self { region, usual, limit: AtomicU64::new(usual), next: AtomicU64::new(0) }
    }

    /// Copies are used while the beat is younger than so many milliseconds.
    #[inline]
    fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Whether copies as new as this beat are new enough now. The coarse clock decides while the beat
    /// is young. It may be many milliseconds late (an interrupt of the kernel's timer that a
    /// hypervisor delays), so the exact one decides in the second half of the limit.
    #[inline(always)]
    pub(super) fn is_fresh(&self, beat: Beat) -> bool {
        is_young(beat, self.limit(), coarse_millis()) || self.is_still_fresh(beat)
    }

    #[inline(never)]
    fn is_still_fresh(&self, beat: Beat) -> bool {
        beat.is_within(self.limit(), clock::millis())
    }

    /// Whether the last connection of this process that was looked at led to another server.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.limit() != self.usual
    }

    /// Whether what comes over this connection is of the server that the owner hears. To be asked
    /// after the placeholder of a copy was made: a later owner voids it.
    pub(super) fn is_known(&self, conn: &Conn) -> bool {
        self.region.as_ref().is_none_or(|region| conn.place == region.owner_link()[1])
    }

    /// Looks whether the owner's connection is at this server, unless that is known. `false` = it is
    /// not.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn check(&self, conn: &mut Conn, deadline: Instant) -> Reply<bool> {
        let Some(region) = self.region.as_ref().filter(|_| !self.is_known(conn)) else { return Ok(true) };
        if self.is_elsewhere() && coarse_millis() < self.next.load(Relaxed) {
            // Looked at a moment ago. Nothing that comes over this connection is kept.
            return Ok(true);
        }
        let [id, word] = region.owner_link();
        let request = Request::one(&[b"CLIENT", b"LIST", b"ID", id.to_string().as_bytes()]);
        let reply = only(conn.round_trip(&request, deadline).map_err(|failure| failure.fault)?);
        let found = match resp::fine(reply) {
            Ok(list) => is_owner(list, word),
            // This user may not look. Then the address of the server tells.
            Err(BackendFault::Refused { .. }) => conn.node() == region.source(),
            Err(fault) => return Err(fault),
        };
        if found {
            conn.place = word;
            self.limit.store(self.usual, Relaxed);
        }
        // The owner may have connected anew meanwhile.
        Ok(found || region.owner_link()[1] != word)
    }

    /// Whether what comes over this connection is of a node of a cluster that the owner hears, and
    /// this process has the owner's map of slots. As [`Place::is_known`].
    pub(super) fn is_known_node(&self, conn: &Conn, number: u64, digest: u64) -> bool {
        let Some(region) = &self.region else { return true };
        let term = region.beat().term();
        let at = region.hears_places(term, digest).then(|| region.node(term, number)).flatten();
        at.is_some_and(|at| conn.place != 0 && conn.place == region.node_link(at)[1])
    }

    /// Looks whether the owner has a connection to this node of a cluster, unless that is known.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn check_node(&self, conn: &mut Conn, number: u64, deadline: Instant) -> Reply<()> {
        let Some(region) = &self.region else { return Ok(()) };
        let Some(at) = region.node(region.beat().term(), number) else { return Ok(()) };
        let [id, word] = region.node_link(at);
        if word == 0 || word == conn.place || coarse_millis() < self.next.load(Relaxed) {
            return Ok(());
        }
        let request = Request::one(&[b"CLIENT", b"LIST", b"ID", id.to_string().as_bytes()]);
        let reply = only(conn.round_trip(&request, deadline).map_err(|failure| failure.fault)?);
        let found = match resp::fine(reply) {
            Ok(list) => is_owner(list, word),
            // This user may not look: all processes have the address from the cluster itself.
            Err(BackendFault::Refused { .. }) => true,
            Err(fault) => return Err(fault),
        };
        if found {
            conn.place = word;
        } else {
            // The owner is about to connect anew. Until then nothing of this node is kept.
            self.next.store(coarse_millis() + PAUSE, Relaxed);
        }
        Ok(())
    }

    /// Whether the copies of what is in this slot of a cluster are new enough: a node that is dead
    /// ends the use of its own copies only. To be asked before a copy is looked for.
    #[cold]
    pub(super) fn is_slot_fresh(&self, map: &Map, slot: u16) -> bool {
        let (Some(region), Some(node)) = (&self.region, map.node(slot)) else { return false };
        let term = region.beat().term();
        let at = region.hears_places(term, map.digest()).then(|| region.node(term, node.number)).flatten();
        let beat = at.map(|at| region.node_beat(at));
        beat.is_some_and(|beat| beat.term() == term && self.is_still_fresh(beat))
    }

    /// A new connection led to another server than the owner's: this process uses no copies until
    /// one leads there.
    #[cold]
    pub(super) fn note_elsewhere(&self) {
        self.next.store(coarse_millis() + PAUSE, Relaxed);
        self.limit.store(0, Relaxed);
        if let Some(region) = &self.region {
            region.count(Counter::Elsewhere, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_options() {
        let of = |copies| Place::new(copies, None).limit();
        let copies = |max_stale| Some(Copies { max_stale, ttl: None, negative: false });
        assert_eq!((of(None), of(copies(None)), of(copies(Some(1000)))), (0, u64::MAX, 991));
    }

    /// The kernel's tick is late while a hypervisor lets a processor wait.
    #[test]
    fn a_late_clock_does_not_make_copies_newer() {
        let beat = |millis| Beat::new(7, Some(millis));
        assert!(is_young(beat(1000), 991, 1494), "the usual age: the exact clock is not read");
        assert!(!is_young(beat(1000), 991, 1495) && !is_young(beat(1000), 991, 999), "the exact one decides");
        assert!(is_young(Beat::new(7, None), u64::MAX, 5) && !is_young(beat(5), 0, 5));
        let place = Place::new(Some(Copies { max_stale: Some(1000), ttl: None, negative: false }), None);
        let now = clock::millis();
        assert!(place.is_fresh(beat(now - 600)) && !place.is_fresh(beat(now - 991)));
    }

    #[test]
    fn elsewhere_no_copy_is_new_enough() {
        let place = Place::new(Some(Copies { max_stale: Some(1000), ttl: None, negative: false }), None);
        assert!(!place.is_elsewhere());
        place.note_elsewhere();
        assert!(place.is_elsewhere() && place.limit() == 0);
    }
}

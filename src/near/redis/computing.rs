//! Get-or-set and stale-while-revalidate: one caller of all machines computes a value.
//!
//! The callers of a machine take turns by a placeholder in the region, and the one whose turn it is
//! asks the server for the lease. While another machine has it, that one caller waits: until the
//! owner removes the placeholder, because the value is there, and with a look at the server now and
//! then, because nobody is told of a lease that ends without a value.

use std::time::{Duration, Instant};

use super::{
    Backed, Found,
    backed::hand_over,
    lease::{Claim, Purpose},
};
use crate::{
    engine::{Counter, Expires, Fill, FillToken, SetOptions, Sink, Stored, Touch},
    error::{Error, Result},
};

/// Time until the first and the later looks at a lease that another machine holds.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(200);

/// What became of a caller whose turn it is on its machine.
enum Turn {
    /// It computes.
    Mine,
    Found(Found),
    /// Its placeholder is gone: something has changed.
    Void,
    TimedOut,
}

impl Backed {
    pub(in crate::near) fn begin_fill<S: Sink>(
        &self,
        key: &[u8],
        lease: Duration,
        patience: Duration,
        sink: &mut S,
    ) -> Result<Fill> {
        let until = Instant::now().checked_add(patience);
        let mut again = false;
        loop {
            // A miss is counted below.
            if let Some(meta) = self.get(key, Touch::Copy, sink)? {
                return Ok(Fill::Hit(meta));
            }
            // A copy that another process has made meanwhile counts as one after another look.
            let (left, sink_of_copy) = (left(until), &mut Vec::new());
            let begun = if std::mem::replace(&mut again, true) {
                self.engine.begin_fill_again(key, lease, left, sink_of_copy)
            } else {
                self.engine.begin_fill(key, lease, left, sink_of_copy)
            };
            let token = match begun? {
                Fill::Filler(token) => token,
                Fill::TimedOut => return Ok(Fill::TimedOut),
                Fill::Hit(_) if self.is_fresh(key) => continue,
                Fill::Hit(_) => {
                    self.forget(key)?;
                    continue;
                }
            };
            let turn = self.compete(key, &token, lease, until);
            if matches!(turn, Ok(Turn::Mine)) {
                return Ok(Fill::Filler(token));
            }
            self.engine.abandon_fill(key, token)?;
            match turn? {
                Turn::Found(found) => return hand_over(&found, sink).map(Fill::Hit),
                Turn::TimedOut => return Ok(Fill::TimedOut),
                Turn::Mine | Turn::Void => {}
            }
        }
    }

    /// Gets the lease at the server, or waits for the value.
    fn compete(
        &self,
        key: &[u8],
        token: &FillToken,
        lease: Duration,
        until: Option<Instant>,
    ) -> Result<Turn> {
        if !token.has_lease() {
            return self.compute_alone(key);
        }
        let (name, mut pause) = (self.engine.lease_name(token), FIRST);
        loop {
            let claim = self.server.claim(key, Purpose::Fill, &name, lease);
            // While the server is down each machine computes, and stores nothing.
            let rest = match self.server.or_miss(claim, Claim::Alone)? {
                Claim::Mine => return Ok(Turn::Mine),
                Claim::Alone => return self.compute_alone(key),
                Claim::Found(found) => return Ok(Turn::Found(found)),
                Claim::Theirs { holder, .. }
                    if self.engine.is_lease_of_the_dead(&holder)
                        && self.server.take_over(key, Purpose::Fill, &holder, &name, lease)? =>
                {
                    return Ok(Turn::Mine);
                }
                Claim::Theirs { left: rest, .. } => rest,
            };
            let left = left(until);
            if left.is_zero() {
                return Ok(Turn::TimedOut);
            }
            let wait = pause.min(rest + Duration::from_millis(1)).min(left);
            if self.engine.await_void(key, token, wait)? {
                return Ok(Turn::Void);
            }
            pause = (2 * pause).min(LONGEST);
        }
    }

    /// The turn of a caller that no lease at the server keeps from those of other machines.
    fn compute_alone(&self, key: &[u8]) -> Result<Turn> {
        // The previous filler of this machine may have stored the value.
        Ok(self.server.get_expiring(key)?.map_or(Turn::Mine, Turn::Found))
    }

    pub(in crate::near) fn end_fill(
        &self,
        key: &[u8],
        token: FillToken,
        value: &[u8],
        expires: Expires,
    ) -> Result<Stored> {
        let stored = self.store_computed(key, &token, value, expires);
        if let Err(error) = &stored {
            self.refused(error);
            self.release(key, Purpose::Fill, &token);
        }
        self.engine.abandon_fill(key, token)?;
        stored
    }

    /// Stores a value under the lease at the server. Where there is none, the placeholder must still be
    /// there. It says less: a message about a change before the computation may remove it.
    fn store_computed(
        &self,
        key: &[u8],
        token: &FillToken,
        value: &[u8],
        expires: Expires,
    ) -> Result<Stored> {
        let stored = if token.has_lease() {
            let name = self.engine.lease_name(token);
            let mut stored = self.server.store_under_lease(key, &name, value, expires);
            if self.server.is_overtaken(&stored) {
                // Under the new number there is no lease.
                stored = Ok(Some(false));
            }
            stored?
        } else {
            None
        };
        match stored {
            Some(true) => {
                self.changed(Counter::Stored);
                self.forget(key)?;
                Ok(Stored::Inserted)
            }
            Some(false) => Ok(Stored::Kept),
            None if self.engine.holds_lease(key, token)? => self.put(key, value, &SetOptions::add(expires)),
            None => Ok(Stored::Kept),
        }
    }

    /// The lease at the server ends first: who is woken by the end of the placeholder gets it.
    pub(in crate::near) fn abandon_fill(&self, key: &[u8], token: FillToken) -> Result<()> {
        self.release(key, Purpose::Fill, &token);
        self.engine.abandon_fill(key, token)
    }

    /// Gives the lease at the server back. If that fails, it ends by itself.
    fn release(&self, key: &[u8], purpose: Purpose, token: &FillToken) {
        if token.has_lease() {
            let _ = self.server.release(key, purpose, &self.engine.lease_name(token));
        }
    }

    pub(in crate::near) fn begin_refresh(&self, key: &[u8], lease: Duration) -> Result<Option<FillToken>> {
        let Some(token) = self.engine.begin_refresh(key, lease)? else { return Ok(None) };
        if !token.has_lease() {
            return Ok(Some(token));
        }
        let name = self.engine.lease_name(&token);
        let is_mine = self.server.claim(key, Purpose::Refresh, &name, lease).and_then(|claim| match claim {
            Claim::Theirs { holder, .. } if self.engine.is_lease_of_the_dead(&holder) => {
                self.server.take_over(key, Purpose::Refresh, &holder, &name, lease)
            }
            claim => Ok(!matches!(claim, Claim::Theirs { .. })),
        });
        match is_mine {
            Ok(true) => {
                // The caller looks again whether the value is old: not at a copy, which may be older
                // than what the last one to refresh has stored.
                self.forget(key)?;
                Ok(Some(token))
            }
            // Nothing could be stored now; the old value does.
            Err(Error::Backend { fault, .. }) if fault.is_down() => self.give_up(key, token),
            Ok(false) => self.give_up(key, token),
            Err(error) => {
                self.engine.end_refresh(key, token)?;
                Err(error)
            }
        }
    }

    fn give_up(&self, key: &[u8], token: FillToken) -> Result<Option<FillToken>> {
        self.engine.end_refresh(key, token).map(|()| None)
    }

    pub(in crate::near) fn end_refresh(&self, key: &[u8], token: FillToken) -> Result<()> {
        self.release(key, Purpose::Refresh, &token);
        self.engine.end_refresh(key, token)
    }
}

/// The time until then; `None` = a time that does not come.
fn left(until: Option<Instant>) -> Duration {
    until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
}

//! The lease of a caller that computes a value; released when dropped.
#![forbid(unsafe_code)]

use crate::{
    engine::{Expires, FillToken, Stored},
    error::Result,
    near::Tier,
};

/// The lease on a key. A child that the computation forked neither stores nor releases.
pub(super) struct Lease<'a> {
    tier: &'a Tier,
    key: &'a [u8],
    token: Option<FillToken>,
    release: fn(&Tier, &[u8], FillToken) -> Result<()>,
}

impl<'a> Lease<'a> {
    /// To fill a missing key. If the release fails, the waiters take over when the lease expires.
    pub(super) fn to_fill(tier: &'a Tier, key: &'a [u8], token: FillToken) -> Self {
        Self { tier, key, token: Some(token), release: Tier::abandon_fill }
    }

    /// To refresh an old value. If the release fails, the lease expires by itself.
    pub(super) fn to_refresh(tier: &'a Tier, key: &'a [u8], token: FillToken) -> Self {
        Self { tier, key, token: Some(token), release: Tier::end_refresh }
    }

    /// Stores the value of a missing key and wakes the waiters; `None` in a forked child.
    pub(super) fn end_fill(mut self, value: &[u8], expires: Expires) -> Option<Result<Stored>> {
        self.take().map(|token| self.tier.end_fill(self.key, token, value, expires))
    }

    fn take(&mut self) -> Option<FillToken> {
        self.token.take().filter(|token| !token.is_inherited())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.take() {
            let _ = (self.release)(self.tier, self.key, token);
        }
    }
}

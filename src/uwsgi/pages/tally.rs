//! What the routes count, in the statistics of their caches: in the region, so for all workers, and
//! whatever becomes of them.
#![forbid(unsafe_code)]

use super::{asked::Bypass, control::Refusal};
use crate::{
    capi::host::cache::Cache,
    engine::{BYPASSED, Counter, REFUSED},
    wire::page::Page,
};

/// A page was served; what that saved.
pub(super) fn served(cache: &Cache, label: &str, page: &Page<'_>, bytes: usize) {
    let counter = match label {
        "STALE" => Counter::PageStale,
        "COALESCED" => Counter::PageCoalesced,
        _ => Counter::PageHits,
    };
    count(cache, counter, 1);
    count(cache, Counter::PageBytes, bytes as u64);
    count(cache, Counter::PageMicros, page.cost.into());
}

/// An old page was served instead of an error: the application ran all the same.
pub(super) fn replaced(cache: &Cache, bytes: usize) {
    count(cache, Counter::PageStale, 1);
    count(cache, Counter::PageBytes, bytes as u64);
}

/// The application computes a page.
pub(super) fn missed(cache: &Cache) {
    count(cache, Counter::PageMisses, 1);
}

/// A new page is in the place of an old one.
pub(super) fn refreshed(cache: &Cache) {
    count(cache, Counter::PageRefreshed, 1);
}

/// A refresh was offered to mules.
pub(super) fn queued(cache: &Cache, taken: bool) {
    count(cache, if taken { Counter::PageQueued } else { Counter::PageUnqueued }, 1);
}

/// A request goes by the cache.
pub(super) fn bypassed(cache: &Cache, why: Bypass) {
    count(cache, Counter::PageBypassed, 1);
    count(cache, BYPASSED[why as usize].counter, 1);
}

/// A response is not stored.
pub(super) fn refused(cache: &Cache, why: Refusal) {
    count(cache, Counter::PageRefused, 1);
    count(cache, REFUSED[why as usize].counter, 1);
}

fn count(cache: &Cache, counter: Counter, by: u64) {
    cache.tier.engine().count(counter, by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        use Bypass as B;
        use Refusal as R;
        let bypasses = [
            (B::Method, Counter::PageBypassedMethod),
            (B::Body, Counter::PageBypassedBody),
            (B::Authorization, Counter::PageBypassedAuthorization),
            (B::Condition, Counter::PageBypassedCondition),
            (B::Form, Counter::PageBypassedForm),
            (B::Range, Counter::PageBypassedRange),
            (B::Uri, Counter::PageBypassedUri),
            (B::Header, Counter::PageBypassedHeader),
            (B::Cache, Counter::PageBypassedCache),
        ];
        assert_eq!(bypasses.len(), BYPASSED.len());
        for (why, counter) in bypasses {
            let reason = BYPASSED[why as usize];
            assert_eq!((reason.counter, reason.word), (counter, why.name()));
        }
        let refusals = [
            (R::Status, Counter::PageRefusedStatus),
            (R::SetCookie, Counter::PageRefusedSetCookie),
            (R::Private, Counter::PageRefusedPrivate),
            (R::NoCache, Counter::PageRefusedNoCache),
            (R::Cookie, Counter::PageRefusedCookie),
            (R::Expired, Counter::PageRefusedExpired),
            (R::Vary, Counter::PageRefusedVary),
            (R::Variants, Counter::PageRefusedVariants),
            (R::Size, Counter::PageRefusedSize),
            (R::Failed, Counter::PageRefusedFailed),
            (R::Partial, Counter::PageRefusedPartial),
            (R::Unseen, Counter::PageRefusedUnseen),
            (R::Form, Counter::PageRefusedForm),
            (R::Condition, Counter::PageRefusedCondition),
            (R::Uses, Counter::PageRefusedUses),
            (R::Lost, Counter::PageRefusedLost),
        ];
        assert_eq!(refusals.len(), REFUSED.len());
        for (why, counter) in refusals {
            let reason = REFUSED[why as usize];
            assert_eq!((reason.counter, reason.word), (counter, why.name()));
        }
    }
}

//! Why pages of the route action `ucache:` were not served, or not stored: a counter for each reason.
#![forbid(unsafe_code)]

use crate::engine::{Counter, Engine, Figure};

/// A reason, as the log of requests names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason {
    pub(crate) counter: Counter,
    /// The word of the log, and of the label `reason`.
    pub(crate) word: &'static str,
    /// The name among the figures.
    name: &'static str,
    help: &'static str,
}

/// Of requests that the cache must not answer.
pub(crate) const BYPASSED: [Reason; 9] = [
    reason(
        Counter::PageBypassedMethod,
        "method",
        "page_bypassed_method",
        "Requests past the cache: another method than GET and HEAD",
    ),
    reason(Counter::PageBypassedBody, "body", "page_bypassed_body", "Requests past the cache: with a body"),
    reason(
        Counter::PageBypassedAuthorization,
        "authorization",
        "page_bypassed_authorization",
        "Requests past the cache: with Authorization",
    ),
    reason(
        Counter::PageBypassedCondition,
        "condition",
        "page_bypassed_condition",
        "Requests past the cache: a condition of the route",
    ),
    reason(
        Counter::PageBypassedForm,
        "form",
        "page_bypassed_form",
        "Requests past the cache: Upgrade, or a precondition",
    ),
    reason(
        Counter::PageBypassedRange,
        "range",
        "page_bypassed_range",
        "Requests past the cache: a range of a page that is not stored",
    ),
    reason(
        Counter::PageBypassedUri,
        "uri",
        "page_bypassed_uri",
        "Requests past the cache: a host or URI that cannot be part of a key",
    ),
    reason(
        Counter::PageBypassedHeader,
        "header",
        "page_bypassed_header",
        "Requests past the cache: a header that is no part of the key",
    ),
    reason(
        Counter::PageBypassedCache,
        "cache",
        "page_bypassed_cache",
        "Requests past the cache: the key is too long, or the cache did not answer",
    ),
];

/// Of responses that were not stored.
pub(crate) const REFUSED: [Reason; 16] = [
    reason(
        Counter::PageRefusedStatus,
        "status",
        "page_refused_status",
        "Responses not stored: a status that the route does not store",
    ),
    reason(
        Counter::PageRefusedSetCookie,
        "set-cookie",
        "page_refused_set_cookie",
        "Responses not stored: Set-Cookie",
    ),
    reason(
        Counter::PageRefusedPrivate,
        "private",
        "page_refused_private",
        "Responses not stored: Cache-Control: private or no-store",
    ),
    reason(
        Counter::PageRefusedNoCache,
        "no-cache",
        "page_refused_no_cache",
        "Responses not stored: Cache-Control: no-cache",
    ),
    reason(
        Counter::PageRefusedCookie,
        "cookie",
        "page_refused_cookie",
        "Responses not stored: the request had a cookie",
    ),
    reason(Counter::PageRefusedExpired, "ttl", "page_refused_ttl", "Responses not stored: no time to live"),
    reason(
        Counter::PageRefusedVary,
        "vary",
        "page_refused_vary",
        "Responses not stored: Vary names everything, or too much",
    ),
    reason(
        Counter::PageRefusedVariants,
        "variants",
        "page_refused_variants",
        "Responses not stored: too many variants",
    ),
    reason(Counter::PageRefusedSize, "size", "page_refused_size", "Responses not stored: too long"),
    reason(
        Counter::PageRefusedFailed,
        "failed",
        "page_refused_failed",
        "Responses not stored: the application failed",
    ),
    reason(
        Counter::PageRefusedPartial,
        "partial",
        "page_refused_partial",
        "Responses not stored: incomplete",
    ),
    reason(
        Counter::PageRefusedUnseen,
        "unseen",
        "page_refused_unseen",
        "Responses not stored: the body did not pass through the route",
    ),
    reason(
        Counter::PageRefusedForm,
        "form",
        "page_refused_form",
        "Responses not stored: a coding, a range or a stream",
    ),
    reason(
        Counter::PageRefusedCondition,
        "condition",
        "page_refused_condition",
        "Responses not stored: a condition of the route",
    ),
    reason(
        Counter::PageRefusedUses,
        "uses",
        "page_refused_uses",
        "Responses not stored: fewer requests than min_uses",
    ),
    reason(
        Counter::PageRefusedLost,
        "lost",
        "page_refused_lost",
        "Responses not stored: purged or replaced meanwhile, or the cache is full",
    ),
];

const fn reason(counter: Counter, word: &'static str, name: &'static str, help: &'static str) -> Reason {
    Reason { counter, word, name, help }
}

impl Engine {
    /// How often each reason applied, in the order of [`BYPASSED`] and [`REFUSED`].
    pub(crate) fn reasons(&self) -> impl Iterator<Item = Figure> {
        let figure = |reason: &Reason| {
            let value = self.total(reason.counter);
            Figure { name: reason.name, help: reason.help, gauge: false, value, reason: Some(reason.word) }
        };
        BYPASSED.iter().chain(&REFUSED).map(figure)
    }
}

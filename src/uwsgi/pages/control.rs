//! How long a response may be used (RFC 9111, 4.2; RFC 5861), and which responses are not stored.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use super::{
    fields::{Head, members, split_once},
    settings::Settings,
};

/// Why a response is not stored; its text is part of the log variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A status that the route does not store.
    Status,
    /// `Set-Cookie`.
    SetCookie,
    /// `Cache-Control: no-store` or `private`.
    Private,
    /// `Cache-Control: no-cache`: each use would need the application.
    NoCache,
    /// The request had a cookie, and the response does not say that others may have it.
    Cookie,
    /// Its time to live is 0, or has passed, or is not known.
    Expired,
    /// `Vary: *`, or too many names.
    Vary,
    /// Too many variants of one URL.
    Variants,
    /// Longer than `max_size`, or than the cache accepts.
    Size,
    /// The application failed before it answered.
    Failed,
    /// Only a part: an error while it was made or sent, or fewer bytes than announced.
    Partial,
    /// The body did not pass through the route: `sendfile`, offloading.
    Unseen,
    /// A coding of the connection, a range, an event stream, a header that is none.
    Form,
    /// A condition of the route (`nostore`).
    Condition,
    /// Fewer requests than `min_uses`.
    Uses,
    /// The page was purged, or another one was stored, meanwhile; or the cache is full.
    Lost,
}

impl Refusal {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::SetCookie => "set-cookie",
            Self::Private => "private",
            Self::NoCache => "no-cache",
            Self::Cookie => "cookie",
            Self::Expired => "ttl",
            Self::Vary => "vary",
            Self::Variants => "variants",
            Self::Size => "size",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Unseen => "unseen",
            Self::Form => "form",
            Self::Condition => "condition",
            Self::Uses => "uses",
            Self::Lost => "lost",
        }
    }

    /// Whether the next response is likely to be refused, too: requests then do not wait for each
    /// other.
    pub(super) fn is_lasting(self) -> bool {
        !matches!(self, Self::Partial | Self::Lost | Self::Uses)
    }
}

/// The times of a response, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// For how long it is still fresh; above 0.
    pub(super) fresh: u64,
    /// After that, for how long it may be served while it is refreshed.
    pub(super) stale: u64,
    /// After it was fresh, for how long it may be served instead of an error.
    pub(super) error: u64,
    /// Its age.
    pub(super) age: u64,
}

/// The directives of `Cache-Control` that matter to a shared cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) private: bool,
    pub(super) no_cache: bool,
    pub(super) public: bool,
    /// Old responses may not be served.
    pub(super) revalidate: bool,
    pub(super) no_transform: bool,
    /// Only a cache that knows the status may store the response.
    pub(super) understand: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) stale: Option<u64>,
    pub(super) error: Option<u64>,
}

impl Control {
    /// Reads the fields `Cache-Control` of a response.
    pub(super) fn of(head: &Head) -> Self {
        let mut control = Self::default();
        for directive in head.all("cache-control").flat_map(members) {
            let (name, value) = match split_once(directive, b'=') {
                Some((name, value)) => (name, Some(value)),
                None => (directive, None),
            };
            // A number that cannot be read counts as 0, and the first of two counts: the safe side.
            let set = |to: &mut Option<u64>| _ = to.get_or_insert(value.and_then(seconds).unwrap_or(0));
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" | b"private" => control.private = true,
                b"no-cache" => control.no_cache = true,
                b"public" => control.public = true,
                b"must-revalidate" | b"proxy-revalidate" => control.revalidate = true,
                b"no-transform" => control.no_transform = true,
                b"must-understand" => control.understand = true,
                b"max-age" => set(&mut control.max_age),
                b"s-maxage" => set(&mut control.s_maxage),
                b"stale-while-revalidate" => set(&mut control.stale),
                b"stale-if-error" => set(&mut control.error),
                _ => {}
            }
        }
        control.revalidate |= control.s_maxage.is_some();
        control
    }
}

/// Decides whether a response may be stored, and for how long.
///
/// # Errors
/// Why it may not.
pub(super) fn judge(
    head: &Head,
    settings: &Settings,
    with_cookie: bool,
    now: SystemTime,
) -> Result<Times, Refusal> {
    let Some(rule) = settings.status(head.status) else { return Err(Refusal::Status) };
    if head.has("set-cookie") {
        return Err(Refusal::SetCookie);
    }
    let control = Control::of(head);
    if control.private {
        return Err(Refusal::Private);
    }
    if control.understand && !is_defined(head.status) {
        return Err(Refusal::Status);
    }
    let streams = |kind: &[u8]| kind.to_ascii_lowercase().starts_with(b"text/event-stream");
    if head.has("transfer-encoding") || head.all("content-type").any(streams) {
        return Err(Refusal::Form);
    }
    let varies_by_cookie = || head.all("vary").flat_map(members).any(|n| n.eq_ignore_ascii_case(b"cookie"));
    let shared = control.public || control.s_maxage.is_some();
    if with_cookie && !settings.ignore_cookies && !shared && !varies_by_cookie() {
        return Err(Refusal::Cookie);
    }
    if control.no_cache && !settings.force {
        return Err(Refusal::NoCache);
    }
    let own = rule.or(settings.ttl).unwrap_or(0);
    let said = if settings.force { None } else { lifetime(head, &control, now) };
    // What the application says of its age counts against what it says of its lifetime. An age that
    // is no number, or several, are as old as can be.
    let mut ages = head.all("age").flat_map(members);
    let age = ages.next().map_or(0, |age| seconds(age).unwrap_or(LARGEST));
    let age = if ages.next().is_some() { LARGEST } else { age };
    let fresh = said.map_or(own, |lifetime| lifetime.saturating_sub(age));
    if fresh == 0 {
        return Err(Refusal::Expired);
    }
    let may =
        |said: Option<u64>, own| if control.revalidate && !settings.force { 0 } else { said.unwrap_or(own) };
    Ok(Times {
        fresh,
        stale: may(control.stale, settings.stale),
        error: may(control.error, settings.stale_error),
        age,
    })
}

/// Whether RFC 9110 says what the status means.
fn is_defined(status: u16) -> bool {
    matches!(status, 200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// The lifetime that the response states; `None` = it states none.
fn lifetime(head: &Head, control: &Control, now: SystemTime) -> Option<u64> {
    control.s_maxage.or(control.max_age).or_else(|| {
        let mut all = head.all("expires");
        let expires = all.next()?;
        let same = all.all(|other| other == expires);
        // A date that is none has passed (RFC 9111, 5.3).
        let at = date(expires).filter(|_| same);
        let from = head.get("date").and_then(date).unwrap_or(now);
        let left = at.and_then(|at| at.duration_since(from).ok()).unwrap_or(Duration::ZERO);
        Some(left.as_secs())
    })
}

/// A date of a header.
pub(super) fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// The largest number of seconds (RFC 9111, 1.2.2).
const LARGEST: u64 = 1 << 31;

/// Seconds of a directive; a number that is too large counts as the largest.
fn seconds(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(LARGEST).min(LARGEST))
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;

//! The route action `ucache:`: serves a page, waits for another request's, or lets the application
//! compute it.
#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    answer,
    asked::{self, Asked, Bypass, bypass, url},
    chunk::Bytes,
    control::Refusal,
    fill::Fill,
    mule,
    place::{Found, Place, look},
    request::{Request, Sent},
    settings::Settings,
    store::{Lease, Target, purges},
    tally,
};
use crate::{
    capi::host::cache::Cache,
    engine::{Expires, Fill as Begun, FillToken, Math, SetOptions, Stored, Swap},
    error::Error,
    os::clock,
    wire::page::{Kept, RESERVED, decode},
};

/// How long a computation may take before another one begins. A death ends it at once.
const LEASE: Duration = Duration::from_secs(600);
/// How long a page is not given to a mule again, if none has begun with it, seconds.
const QUEUED_FOR: u64 = 10;
/// Pauses between two looks of a request that waits.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(8);

/// How uWSGI goes on.
#[derive(Debug)]
pub(super) enum Next {
    /// The request is answered.
    Done,
    /// The next route, and at last the application.
    Route,
    /// The same, and this watches the response.
    Watch(Box<Fill>),
}

/// One request at this action.
struct Turn<'r> {
    request: &'r Request,
    settings: &'r Arc<Settings>,
    cache: &'static Cache,
    key: Vec<u8>,
    /// Whether the application may be asked for the page on behalf of others: HEAD and ranges get
    /// no whole page.
    leads: bool,
    began: Instant,
    waited: bool,
}

/// Serves the request, or says how it goes on.
pub(super) fn run(request: &Request, settings: &Arc<Settings>) -> Next {
    let Some(cache) = Cache::by_name(&settings.name) else { return Next::Route };
    if mule::is_here() {
        return key(request, settings)
            .and_then(|key| Turn::new(request, settings, cache, key, true).behind())
            .unwrap_or(Next::Done);
    }
    let pass = |why: Bypass| {
        tally::bypassed(cache, why);
        request.log(&format!("BYPASS:{}", why.name()));
        if settings.x_cache {
            request.announce(b"X-Cache: BYPASS");
        }
        Next::Route
    };
    if let Some(why) = bypass(request, settings) {
        return if why == Bypass::Method { changed(request, settings, cache) } else { pass(why) };
    }
    // What an earlier route makes of a body is not what may be stored: it would change it again.
    if request.is_transformed() {
        return pass(Bypass::Form);
    }
    if request.holds(&settings.bypass) {
        return pass(Bypass::Condition);
    }
    let Some(key) = key(request, settings) else { return pass(Bypass::Uri) };
    let is_range = request.header(b"range").is_some();
    let leads = request.var("REQUEST_METHOD") == Some(b"GET") && !is_range;
    match Turn::new(request, settings, cache, key, leads).run() {
        Ok(next) => next,
        Err(why) => pass(why),
    }
}

/// The key of the request. `${PATH_INFO}` and its like are decoded, and may have any byte.
pub(super) fn key(request: &Request, settings: &Settings) -> Option<Vec<u8>> {
    let is_key = |key: &Vec<u8>| !key.is_empty() && !key.contains(&RESERVED);
    match &settings.key {
        Some(template) => request.translate(template).filter(is_key),
        None => url(request),
    }
}

/// A request that may change the page: what is stored of it goes when the application has answered
/// (RFC 9111, 4.4).
fn changed(request: &Request, settings: &Arc<Settings>, cache: &'static Cache) -> Next {
    request.log("BYPASS:method");
    tally::bypassed(cache, Bypass::Method);
    let safe = |method: &[u8]| matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
    match key(request, settings) {
        Some(key) if !request.var("REQUEST_METHOD").is_some_and(safe) => {
            let place = Place { at: key.clone(), key, variants: None };
            let target = Target { place, lease: Lease::None, old: None, usable: false, purges: Vec::new() };
            Next::Watch(Box::new(Fill::changing(request, settings, cache, target)))
        }
        _ => Next::Route,
    }
}

impl<'r> Turn<'r> {
    fn new(
        request: &'r Request,
        settings: &'r Arc<Settings>,
        cache: &'static Cache,
        key: Vec<u8>,
        leads: bool,
    ) -> Self {
        Self { request, settings, cache, key, leads, began: Instant::now(), waited: false }
    }

    fn run(mut self) -> Result<Next, Bypass> {
        let tier = &self.cache.tier;
        let mut pause = SHORTEST;
        loop {
            let now = clock::unix_millis();
            let (place, found) =
                look(tier, self.settings, self.request, &self.key, now).map_err(|_| Bypass::Cache)?;
            let (old, usable, on_error) = match found {
                Found::Fresh(page) => {
                    return self.serve(page, if self.waited { "COALESCED" } else { "HIT" });
                }
                Found::Stale(page) => return self.refresh(place, page),
                Found::Foreign => return Err(Bypass::Cache),
                Found::Unstored => {
                    let old = Bytes::of(crate::wire::page::UNSTORED);
                    return self.lead(place, Lease::None, old, false);
                }
                Found::Old(page, on_error) => (Some(page), true, on_error),
                Found::Other(value) => (Some(value), false, false),
                Found::Missing => (None, false, false),
            };
            if !self.leads {
                return self.follow();
            }
            let is_new = old.is_none();
            let old = old.filter(|page| !usable || on_error || !self.drop_useless(&place, page));
            if is_new && self.is_crowded(&place, now) {
                tally::refused(self.cache, Refusal::Variants);
                return Ok(self.pass("MISS:variants"));
            }
            match self.lease(&place, old.as_deref())? {
                // The page is there now.
                Taken::There => continue,
                // Who computed it has failed.
                Taken::Mine(mut lease) if self.waited && on_error => {
                    lease.end(tier, &place.at);
                    return self.serve(old.unwrap_or_else(Bytes::new), "STALE");
                }
                Taken::Mine(lease) => return self.lead(place, lease, old, usable),
                Taken::Theirs => {}
            }
            let left = self.settings.lock.saturating_sub(self.began.elapsed());
            if left.is_zero() || !self.request.sleep(pause.min(left)) {
                return match old {
                    Some(page) if on_error => self.serve(page, "STALE"),
                    _ => Ok(self.pass("MISS")),
                };
            }
            if self.request.has_left() {
                self.request.log("LEFT");
                return Ok(Next::Done);
            }
            self.waited = true;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Tries to become the one that computes the page.
    fn lease(&self, place: &Place, old: Option<&[u8]>) -> Result<Taken, Bypass> {
        let tier = &self.cache.tier;
        if let Some(old) = old {
            return match tier.begin_refresh(&place.at, LEASE) {
                Ok(Some(token)) => Ok(self.still(place, old, token)),
                Ok(None) | Err(Error::Timeout { .. }) => Ok(Taken::Theirs),
                Err(_) => Err(Bypass::Cache),
            };
        }
        match tier.begin_fill(&place.at, LEASE, Duration::ZERO, &mut Vec::new()) {
            Ok(Begun::Hit(_)) => Ok(Taken::There),
            Ok(Begun::Filler(token)) => Ok(Taken::Mine(Lease::Fill(token))),
            // WouldDeadlock: another request of this thread computes it, in an event loop.
            Ok(Begun::TimedOut) | Err(Error::WouldDeadlock | Error::Timeout { .. }) => Ok(Taken::Theirs),
            Err(_) => Err(Bypass::Cache),
        }
    }

    /// A lease to refresh: of use only if nobody has refreshed since the look.
    fn still(&self, place: &Place, old: &[u8], token: FillToken) -> Taken {
        let mut now = Vec::new();
        let same = self.cache.tier.get(&place.at, crate::engine::Touch::Unseen, &mut now);
        if matches!(same, Ok(Some(_))) && now == old {
            return Taken::Mine(Lease::Refresh(token));
        }
        let _ = self.cache.tier.end_refresh(&place.at, token);
        Taken::There
    }

    /// Serves an old page. One request of all then computes the new one, after it has answered.
    fn refresh(self, place: Place, page: Bytes) -> Result<Next, Bypass> {
        if !self.leads || self.request.holds(&self.settings.nostore) {
            return self.serve(page, "STALE");
        }
        let mut lease = match self.lease(&place, Some(&page)) {
            Ok(Taken::Mine(lease)) => lease,
            Ok(Taken::There) => return self.run(),
            _ => return self.serve(page, "STALE"),
        };
        if self.settings.by_mule {
            // The mule takes the lease itself: its own death must end it.
            lease.end(&self.cache.tier, &place.at);
            if self.queue(&place) {
                return self.serve(page, "STALE");
            }
            lease = match self.lease(&place, Some(&page)) {
                Ok(Taken::Mine(lease)) => lease,
                _ => return self.serve(page, "STALE"),
            };
        }
        if !self.request.can_detach() {
            return self.lead(place, lease, Some(page), true);
        }
        let mut target = self.target(place, lease, Some(page), true);
        // By this thread: an offload thread would still need the connection.
        match self.begin(target.old.as_deref().unwrap_or_default(), "STALE") {
            Ok(Some(body)) => self.request.send(&body),
            Ok(None) => {}
            Err(why) => {
                target.refuse(&self.cache.tier, Refusal::Lost, 0);
                return Err(why);
            }
        }
        match self.request.detach() {
            Ok(sent) => Ok(self.watch_behind(target, sent)),
            Err(_) => {
                target.refuse(&self.cache.tier, Refusal::Lost, 0);
                Ok(Next::Done)
            }
        }
    }

    /// Leaves the refresh to a mule; `false` = none takes it.
    fn queue(&self, place: &Place) -> bool {
        let tier = &self.cache.tier;
        let (note, options) = (asked::queued_key(&place.at), SetOptions::add(Expires::In(QUEUED_FOR)));
        match tier.put(&note, b"1", &options) {
            Ok(Stored::Inserted) => {}
            // It waits for a mule already.
            Ok(_) => return true,
            Err(_) => return false,
        }
        let sent = mule::send(self.request);
        tally::queued(self.cache, sent);
        if !sent {
            // An error leaves the note to its end.
            let _ = tier.delete(&note);
        }
        sent
    }

    /// In a mule: computes the new page for nobody, unless somebody else has, or does.
    fn behind(&self) -> Option<Next> {
        let tier = &self.cache.tier;
        let (place, found) = look(tier, self.settings, self.request, &self.key, clock::unix_millis()).ok()?;
        let taken = match &found {
            Found::Stale(page) | Found::Old(page, _) => self.lease(&place, Some(page)).ok(),
            _ => None,
        };
        // It waits no longer. An error leaves the note to its end.
        let _ = tier.delete(&asked::queued_key(&place.at));
        match (taken, found) {
            (Some(Taken::Mine(lease)), Found::Stale(page) | Found::Old(page, _)) => {
                Some(self.watch_behind(self.target(place, lease, Some(page), true), Sent::default()))
            }
            _ => None,
        }
    }

    /// Lets the application compute the page, for the cache alone.
    fn watch_behind(&self, target: Target, sent: Sent) -> Next {
        let mut fill = Fill::new(self.request, self.settings, self.cache, target, "STALE");
        fill.behind = Some(sent);
        fill.ask(self.request);
        Next::Watch(Box::new(fill))
    }

    /// Lets the application compute the page.
    fn lead(&self, place: Place, lease: Lease, old: Option<Bytes>, usable: bool) -> Result<Next, Bypass> {
        if !self.leads {
            return self.follow();
        }
        let label = if matches!(lease, Lease::Refresh(_)) { "REFRESHED" } else { "MISS" };
        tally::missed(self.cache);
        let target = self.target(place, lease, old, usable);
        let mut fill = Fill::new(self.request, self.settings, self.cache, target, label);
        fill.ask(self.request);
        if !self.is_used_enough() {
            fill.refused = Some(Refusal::Uses);
        }
        Ok(Next::Watch(Box::new(fill)))
    }

    fn target(&self, place: Place, lease: Lease, old: Option<Bytes>, usable: bool) -> Target {
        Target { place, lease, old, usable, purges: purges(&self.cache.tier) }
    }

    /// A request that gets no whole page goes to the application.
    fn follow(&self) -> Result<Next, Bypass> {
        if self.request.header(b"range").is_some() {
            return Err(Bypass::Range);
        }
        Ok(self.pass("MISS"))
    }

    /// To the application, without storing what it answers.
    fn pass(&self, logged: &str) -> Next {
        tally::missed(self.cache);
        self.request.log(logged);
        if self.settings.x_cache {
            self.request.announce(b"X-Cache: MISS");
        }
        Next::Route
    }

    /// Removes an old page that can neither be served nor confirmed, unless it has changed; `false` =
    /// it is of use. One that stayed could expire while it is refreshed: the new page would find
    /// nothing to replace, as after a purge.
    fn drop_useless(&self, place: &Place, page: &[u8]) -> bool {
        let useless = !matches!(decode(page), Some(Kept::Page(page)) if answer::is_named(&page));
        if useless {
            // Gone already is as good.
            let _ = self.cache.tier.swap(&place.at, page, &Swap::Nothing);
        }
        useless
    }

    /// Whether the page has as many variants as it may.
    fn is_crowded(&self, place: &Place, now: u64) -> bool {
        let alive = |variants: &crate::wire::page::Variants| {
            variants.known.iter().filter(|(_, end)| *end > now).count()
        };
        place.variants.as_ref().is_some_and(|variants| alive(variants) >= self.settings.variants)
    }

    /// Whether the page was asked for often enough to be stored.
    fn is_used_enough(&self) -> bool {
        if self.settings.min_uses <= 1 {
            return true;
        }
        let expires = Expires::In(self.settings.ttl.unwrap_or(60).max(1));
        let options = SetOptions::set(expires).keep_ttl();
        let uses = self.cache.tier.math(&asked::uses_key(&self.key), Math::Inc, 1, &options);
        uses.is_ok_and(|uses| uses.unsigned_abs() >= self.settings.min_uses)
    }

    /// Serves a page, by an offload thread if it is long and there is one: in the memory that it was
    /// read to.
    fn serve(&self, value: Bytes, label: &'static str) -> Result<Next, Bypass> {
        match self.begin(&value, label)? {
            Some(body) if !self.request.offloads(body.len()) => self.request.send(&body),
            Some(Cow::Borrowed(body)) => {
                let start = body.as_ptr().addr() - value.as_ptr().addr();
                let part = start..start + body.len();
                self.request.offload(value, part);
            }
            Some(Cow::Owned(body)) => match Bytes::of(&body) {
                Some(copy) => self.request.offload(copy, 0..body.len()),
                None => self.request.send(&body),
            },
            None => {}
        }
        Ok(Next::Done)
    }

    /// Begins the answer; `None` = there is no client any more.
    fn begin<'v>(&self, value: &'v [u8], label: &'static str) -> Result<Option<Cow<'v, [u8]>>, Bypass> {
        let Some(Kept::Page(page)) = decode(value) else { return Err(Bypass::Cache) };
        let answer = answer::answer(&page, self.request, clock::unix_millis()).ok_or(Bypass::Cache)?;
        self.request.log(label);
        tally::served(self.cache, label, &page, answer.body.len());
        let mut fields = answer.fields;
        if self.settings.x_cache {
            fields.push((b"X-Cache".to_vec(), label.as_bytes().to_vec()));
        }
        Ok(self.request.begin(&answer.status, &fields, std::ptr::null()).then_some(answer.body))
    }
}

/// The outcome of an attempt to compute the page.
enum Taken {
    /// This request computes it.
    Mine(Lease),
    /// Another one does.
    Theirs,
    /// The place has changed.
    There,
}

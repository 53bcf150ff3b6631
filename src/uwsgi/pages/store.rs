//! Storing a response: the page, its place among variants, the end of the lease.
#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{
    answer,
    asked::{self, Asked},
    chunk::Bytes,
    control::{Control, Refusal, Times},
    fields::{Head, members},
    place::Place,
    settings::Settings,
};
use crate::{
    engine::{Expires, FillToken, SetOptions, Stored, Swap, Touch},
    near::Tier,
    net::purge::{PURGES, unique},
    os::clock,
    wire::page::{Kept, Page, UNSTORED, Variants, decode, variant_key},
};

/// Most names in `Vary`: each request hashes the headers that they name.
const MOST_NAMES: usize = 8;
/// How much longer an old page is kept than it may be used, seconds: one that is being refreshed is
/// still there to be replaced.
const LATE: u64 = 10;
/// How long requests for a page that is not stored do not wait for each other, seconds.
const UNSTORED_FOR: u64 = 10;

/// The right to compute a page.
#[derive(Debug)]
pub(super) enum Lease {
    /// Of one that is missing.
    Fill(FillToken),
    /// Of one that is there.
    Refresh(FillToken),
    /// Everybody computes.
    None,
}

/// A page that is being computed: where it goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) lease: Lease,
    /// The value at the place, as it was found.
    pub(super) old: Option<Bytes>,
    /// Whether that is a page for this request, though an old one.
    pub(super) usable: bool,
    /// [`PURGES`] before the computation.
    pub(super) purges: Vec<u8>,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Response<'r> {
    pub(super) head: &'r Head,
    /// The value is made in its memory; afterwards it is the body again.
    pub(super) body: &'r mut Bytes,
    pub(super) times: Times,
    /// How long the application took.
    pub(super) cost: Duration,
    pub(super) tags: &'r [u8],
}

impl Lease {
    /// Gives the right back.
    pub(super) fn end(&mut self, tier: &Tier, at: &[u8]) {
        // An error leaves the lease to its end: there is nobody to tell.
        match self.take() {
            Self::Fill(token) => _ = tier.abandon_fill(at, token),
            Self::Refresh(token) => _ = tier.end_refresh(at, token),
            Self::None => {}
        }
    }

    /// The token, unless this process is a child that was forked meanwhile.
    fn take(&mut self) -> Self {
        match std::mem::replace(self, Self::None) {
            Self::Fill(token) | Self::Refresh(token) if token.is_inherited() => Self::None,
            lease => lease,
        }
    }
}

/// [`PURGES`] now.
pub(super) fn purges(tier: &Tier) -> Vec<u8> {
    let mut value = Vec::new();
    match tier.get(PURGES, Touch::Unseen, &mut value) {
        Ok(Some(_)) => value,
        _ => Vec::new(),
    }
}

impl Target {
    /// Ends the computation without a page. Requests that wait go on: if the response is not one
    /// to be stored, all at once.
    pub(super) fn refuse(&mut self, tier: &Tier, why: Refusal, status: u16) {
        let seconds = match why {
            Refusal::Failed => 1,
            Refusal::Status if status >= 500 => 1,
            _ if why.is_lasting() => UNSTORED_FOR,
            _ => 0,
        };
        let expires = Expires::In(seconds);
        // Errors leave the lease to its end: there is nobody to tell.
        match self.lease.take() {
            Lease::Fill(token) if seconds > 0 => {
                let _ = tier.end_fill(&self.place.at, token, UNSTORED, expires);
            }
            Lease::Fill(token) => _ = tier.abandon_fill(&self.place.at, token),
            Lease::Refresh(token) => {
                // What one request is refused for says nothing about the page that is there.
                let one = matches!(why, Refusal::Cookie | Refusal::Condition | Refusal::Failed);
                let replaces = status < 500 && !one;
                if let (true, true, Some(old)) = (seconds > 0, replaces, &self.old) {
                    let _ = tier.swap(&self.place.at, old, &Swap::Value(UNSTORED, Some(expires)));
                }
                let _ = tier.end_refresh(&self.place.at, token);
            }
            Lease::None => {}
        }
    }

    /// Stores a response.
    ///
    /// # Errors
    /// Why it is not stored.
    pub(super) fn store(
        &mut self,
        tier: &Tier,
        settings: &Settings,
        asked: &impl Asked,
        response: &mut Response<'_>,
    ) -> Result<(), Refusal> {
        let len = response.body.len();
        let stored = self.store_whole(tier, settings, asked, response);
        response.body.truncate(len);
        stored
    }

    fn store_whole(
        &mut self,
        tier: &Tier,
        settings: &Settings,
        asked: &impl Asked,
        response: &mut Response<'_>,
    ) -> Result<(), Refusal> {
        if purges(tier) != self.purges {
            return Err(Refusal::Lost);
        }
        let names = names(settings, response.head)?;
        let now = clock::unix_millis();
        let times = response.times;
        // A page that the application has named can be confirmed later.
        let named = response.head.has("etag") || response.head.has("last-modified");
        let kept = if named { times.fresh.clamp(10, 600) } else { 0 };
        let old = times.stale.max(times.error).max(kept);
        let late = if old > 0 { LATE } else { 0 };
        let end = now + 1000 * (times.fresh + old + late);
        if names.is_empty() {
            let value = value(tier, settings, response, b"", now)?;
            let key = self.place.key.clone();
            self.put(tier, &key, &value, end)?;
            return self.unless_purged(tier, &key, &value);
        }
        let selection = asked::selection(asked, &names);
        let value = value(tier, settings, response, &selection, now)?;
        let digest = asked::digest(&selection);
        let (list, before) = self.listed(tier, names, digest, (now, end), settings.variants)?;
        let key = variant_key(&self.place.key, list.generation, digest);
        let last = list.known.iter().map(|(_, end)| *end).max().unwrap_or(end);
        let list = list.encode();
        if self.place.at == self.place.key {
            // Who waits for the list finds the variant. Nobody finds it before the list is there.
            set(tier, &key, &value, end)?;
            let place = self.place.key.clone();
            if let Err(why) = self.put(tier, &place, &list, last) {
                let _ = tier.delete(&key);
                return Err(why);
            }
        } else {
            swap(tier, &self.place.key, &before, &list, last)?;
            self.put(tier, &key, &value, end)?;
        }
        self.unless_purged(tier, &key, &value)
    }

    /// A purge of many pages marks itself first: what it did not find was stored after the mark.
    fn unless_purged(&self, tier: &Tier, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if purges(tier) == self.purges {
            return Ok(());
        }
        let _ = tier.swap(key, value, &Swap::Nothing);
        Err(Refusal::Lost)
    }

    /// The list of variants with this one, and the value that it replaces: a new list, or the one
    /// that was there when the computation began. Another one was made after a purge.
    fn listed(
        &self,
        tier: &Tier,
        names: Vec<Vec<u8>>,
        digest: u64,
        (now, end): (u64, u64),
        most: usize,
    ) -> Result<(Variants, Vec<u8>), Refusal> {
        let mut before = Vec::new();
        if !matches!(tier.get(&self.place.key, Touch::Unseen, &mut before), Ok(Some(_))) {
            before.clear();
        }
        let known = self.began_with(&before)?.filter(|variants| variants.names == names);
        let mut variants =
            known.unwrap_or_else(|| Variants { generation: unique(), names, known: Vec::new() });
        variants.known.retain(|&(other, end)| other != digest && end > now);
        if variants.known.len() >= most {
            return Err(Refusal::Variants);
        }
        variants.known.push((digest, end));
        Ok((variants, before))
    }

    /// The list in this value, if the computation began with one; it must be the same.
    fn began_with(&self, before: &[u8]) -> Result<Option<Variants>, Refusal> {
        let Some(began) = &self.place.variants else { return Ok(None) };
        match decode(before) {
            Some(Kept::Variants(now)) if now.generation == began.generation => Ok(Some(now)),
            _ => Err(Refusal::Lost),
        }
    }

    /// Stores a value: under the lease if it has one, and only if nobody changed the place since it
    /// was looked at.
    fn put(&mut self, tier: &Tier, key: &[u8], value: &[u8], end: u64) -> Result<(), Refusal> {
        if key != self.place.at {
            // The application names other headers than before, or none.
            self.lease.end(tier, &self.place.at);
            if key != self.place.key {
                return set(tier, key, value, end);
            }
            let mut before = Vec::new();
            let there = tier.get(key, Touch::Unseen, &mut before).map_err(|_| Refusal::Lost)?;
            self.began_with(&before)?;
            return there.map_or(Err(Refusal::Lost), |_| swap(tier, key, &before, value, end));
        }
        let old = self.old.as_deref();
        match self.lease.take() {
            Lease::Fill(token) => match tier.end_fill(key, token, value, Expires::AtMillis(end)) {
                Ok(Stored::Inserted | Stored::Updated) => Ok(()),
                _ => Err(Refusal::Lost),
            },
            Lease::Refresh(token) => {
                let swapped = swap(tier, key, old.unwrap_or_default(), value, end);
                let _ = tier.end_refresh(key, token);
                swapped
            }
            Lease::None => old.map_or(Err(Refusal::Lost), |old| swap(tier, key, old, value, end)),
        }
    }
}

fn set(tier: &Tier, key: &[u8], value: &[u8], end: u64) -> Result<(), Refusal> {
    tier.put(key, value, &SetOptions::set(Expires::AtMillis(end))).map(drop).map_err(|_| Refusal::Lost)
}

fn swap(tier: &Tier, key: &[u8], old: &[u8], value: &[u8], end: u64) -> Result<(), Refusal> {
    match tier.swap(key, old, &Swap::Value(value, Some(Expires::AtMillis(end)))) {
        Ok(true) => Ok(()),
        _ => Err(Refusal::Lost),
    }
}

/// The headers on which the response depends: lower case, in order.
fn names(settings: &Settings, head: &Head) -> Result<Vec<Vec<u8>>, Refusal> {
    let said = head.all("vary").flat_map(members).map(<[u8]>::to_ascii_lowercase);
    let names: BTreeSet<Vec<u8>> = settings.vary.iter().cloned().chain(said).collect();
    if names.len() > MOST_NAMES || names.contains(&b"*"[..]) {
        return Err(Refusal::Vary);
    }
    Ok(names.into_iter().collect())
}

/// The value of a page: made in the memory of the body, unless that is stored compressed.
fn value<'v>(
    tier: &Tier,
    settings: &Settings,
    response: &'v mut Response<'_>,
    selection: &[u8],
    now: u64,
) -> Result<Cow<'v, [u8]>, Refusal> {
    let Response { head, body, times, cost, tags } = response;
    let mut block = head.to_store();
    if !head.has("date") {
        let date = httpdate::fmt_http_date(SystemTime::now());
        block.extend(format!("Date: {date}\r\n").bytes());
    }
    if !head.has("etag") && head.status == 200 {
        block.extend(format!("ETag: {}\r\n", answer::made_tag(body)).bytes());
    }
    let may_pack = settings.gzip && answer::is_packable(head, Control::of(head).no_transform, body.len());
    let packed = may_pack.then(|| answer::packed(body)).flatten();
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let fresh = now + 1000 * times.fresh;
    let page = Page {
        stored: now,
        fresh,
        stale: fresh + 1000 * times.stale,
        error: fresh + 1000 * times.error,
        age: short(times.age),
        cost: short(cost.as_micros().try_into().unwrap_or(u64::MAX)),
        status: head.status,
        gzip: packed.is_some(),
        reason: &head.reason,
        tags,
        selection,
        head: &block,
        made_tag: !head.has("etag"),
        body: b"",
    };
    let trailer = page.trailer();
    let len = packed.as_ref().map_or(body.len(), Vec::len) + trailer.len();
    if len as u64 > tier.max_value() {
        return Err(Refusal::Size);
    }
    match packed {
        Some(packed) => Ok(Cow::Owned([packed, trailer].concat())),
        None if body.extend(&trailer) => Ok(Cow::Borrowed(&**body)),
        None => Err(Refusal::Lost),
    }
}

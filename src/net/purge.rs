//! Purging stored pages (the route action `ucache:`): of one URL, of all with a prefix, of all with
//! a tag. Hard: they are removed. Soft: they are no longer fresh.
#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    engine::{Expires, SetOptions, Swap, Touch},
    error::Result,
    near::{Position, Tier},
    wire::page::{Kept, Softened, decode, soften, variant_key},
};

/// The item that changes with each purge of many pages: a page that is computed meanwhile is not
/// stored.
pub(crate) const PURGES: &[u8] = b"\0purges";

/// How often a page that changes meanwhile is purged softly before it is removed.
const ATTEMPTS: usize = 8;

/// Which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which<'w> {
    /// Of this key, with all variants.
    Key(&'w [u8]),
    /// Of all keys that begin so.
    Prefix(&'w [u8]),
    /// Those with this tag.
    Tag(&'w [u8]),
}

/// The keys under which a URL may be stored: where a header says another scheme than the
/// connection, it is part of the key.
pub(crate) fn keys_of(url: &[u8]) -> [Vec<u8>; 3] {
    let with = |scheme: &str| [url, format!(" x-forwarded-proto={scheme}").as_bytes()].concat();
    [url.to_vec(), with("http"), with("https")]
}

/// Purges pages; returns how many. Pages that are being computed at the same time are not stored.
///
/// # Errors
/// Those of the cache; some pages may be purged already.
pub(crate) fn purge(tier: &Tier, which: Which<'_>, soft: bool) -> Result<u64> {
    let mut purged = 0;
    if let Which::Key(key) = which {
        for key in keys_of(key) {
            purged += one(tier, &key, soft)?;
        }
        return Ok(purged);
    }
    // First of all: what the walk does not see is stored after it, and compares.
    mark(tier)?;
    let mut at = Position::default();
    while let Some(item) = tier.walk(&mut at) {
        if item.key == PURGES || matches!(which, Which::Prefix(prefix) if !item.key.starts_with(prefix)) {
            continue;
        }
        let Some(value) = read(tier, &item.key)? else { continue };
        let wanted = match (decode(&value), which) {
            (Some(Kept::Page(page)), Which::Tag(tag)) => page.has_tag(tag),
            (Some(_), Which::Prefix(_)) => true,
            _ => false,
        };
        if wanted {
            purged += u64::from(change(tier, &item.key, &value, soft)?);
        }
    }
    Ok(purged)
}

/// Pages that are computed now are not stored.
fn mark(tier: &Tier) -> Result<()> {
    tier.put(PURGES, &unique().to_le_bytes(), &SetOptions::set(Expires::In(86_400))).map(drop)
}

/// Purges what is stored under one key; returns how many pages there were.
fn one(tier: &Tier, key: &[u8], soft: bool) -> Result<u64> {
    let value = if soft { read(tier, key)? } else { None };
    let Some(value) = value else {
        // Also ends the lease of one that is being computed.
        return tier.delete(key).map(u64::from);
    };
    match decode(&value) {
        Some(Kept::Variants(variants)) => {
            // One that is computed now need not be in the list.
            mark(tier)?;
            let mut purged = 0;
            for (digest, _) in variants.known {
                purged += u64::from(soften_at(tier, &variant_key(key, variants.generation, digest))?);
            }
            Ok(purged)
        }
        Some(Kept::Page(_)) => soften_at(tier, key).map(u64::from),
        // No page, but one may be computed beside it.
        Some(Kept::Unstored) => tier.delete(key).map(|_| 0),
        // An item of the application.
        None => Ok(0),
    }
}

/// Purges one page softly, whatever is stored meanwhile: that was computed before. Returns whether
/// there was one that was not purged yet.
fn soften_at(tier: &Tier, key: &[u8]) -> Result<bool> {
    for attempt in 0..ATTEMPTS {
        let Some(value) = read(tier, key)? else { return Ok(false) };
        let Some(Softened { value: old, was_fresh }) = soften(&value) else {
            // Something else than a page has come meanwhile.
            return if attempt == 0 { Ok(false) } else { tier.delete(key) };
        };
        if tier.swap(key, &value, &Swap::Value(&old, None))? {
            return Ok(was_fresh);
        }
    }
    tier.delete(key)
}

/// Purges one page, unless another value has taken its place.
fn change(tier: &Tier, key: &[u8], value: &[u8], soft: bool) -> Result<bool> {
    if !soft {
        return tier.delete(key);
    }
    match soften(value).filter(|softened| softened.was_fresh) {
        Some(Softened { value: old, .. }) => tier.swap(key, value, &Swap::Value(&old, None)),
        None => Ok(false),
    }
}

fn read(tier: &Tier, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = Vec::new();
    Ok(tier.get(key, Touch::Unseen, &mut value)?.map(|_| value))
}

/// A number that hardly repeats.
pub(crate) fn unique() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanos.rotate_left(24) ^ u64::from(std::process::id())
}

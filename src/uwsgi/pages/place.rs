//! Where the page for a request is, and in which state.
#![forbid(unsafe_code)]

use super::{
    asked::{self, Asked},
    chunk::Bytes,
    settings::Settings,
};
use crate::{
    engine::Touch,
    error::Result,
    near::Tier,
    wire::page::{Kept, Page, Variants, decode, variant_key},
};

/// Where the page for a request is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The key of all variants.
    pub(super) key: Vec<u8>,
    /// The key of the one: the same, or a variant's.
    pub(super) at: Vec<u8>,
    /// The list of variants, if there is one.
    pub(super) variants: Option<Variants>,
}

/// What is there; values as they are stored.
#[derive(Debug)]
pub(super) enum Found {
    /// A page to serve.
    Fresh(Bytes),
    /// A page to serve while one request refreshes it.
    Stale(Bytes),
    /// An old page; whether it may be served instead of an error.
    Old(Bytes, bool),
    /// Something of other options, or for other requests, in this place.
    Other(Bytes),
    /// Nothing.
    Missing,
    /// The note that responses are not stored.
    Unstored,
    /// Something that is not of this action.
    Foreign,
}

/// Looks for the page.
///
/// # Errors
/// Those of the cache.
pub(super) fn look(
    tier: &Tier,
    settings: &Settings,
    asked: &impl Asked,
    key: &[u8],
    now: u64,
) -> Result<(Place, Found)> {
    let mut place = Place { key: key.to_vec(), at: key.to_vec(), variants: None };
    let Some(value) = read(tier, key)? else { return Ok((place, Found::Missing)) };
    let variants = match decode(&value) {
        // Stored under other options.
        Some(Kept::Page(page)) if !page.selection.is_empty() || !settings.vary.is_empty() => {
            return Ok((place, Found::Other(value)));
        }
        Some(Kept::Page(page)) => {
            let state = state(&page, now);
            return Ok((place, state(value)));
        }
        Some(Kept::Unstored) => return Ok((place, Found::Unstored)),
        Some(Kept::Variants(variants)) => variants,
        None => return Ok((place, Found::Foreign)),
    };
    if settings.vary.iter().any(|name| !variants.names.contains(name)) {
        return Ok((place, Found::Other(value)));
    }
    let selection = asked::selection(asked, &variants.names);
    place.at = variant_key(key, variants.generation, asked::digest(&selection));
    place.variants = Some(variants);
    let Some(value) = read(tier, &place.at)? else { return Ok((place, Found::Missing)) };
    let found = match decode(&value) {
        Some(Kept::Page(page)) if page.selection == selection => {
            let state = state(&page, now);
            state(value)
        }
        Some(Kept::Page(_) | Kept::Variants(_)) => Found::Other(value),
        Some(Kept::Unstored) => Found::Unstored,
        None => Found::Foreign,
    };
    Ok((place, found))
}

fn state(page: &Page<'_>, now: u64) -> fn(Bytes) -> Found {
    if now < page.fresh {
        Found::Fresh
    } else if now < page.stale {
        Found::Stale
    } else if now < page.error {
        |value| Found::Old(value, true)
    } else {
        |value| Found::Old(value, false)
    }
}

fn read(tier: &Tier, key: &[u8]) -> Result<Option<Bytes>> {
    let mut value = Bytes::new();
    Ok(tier.get(key, Touch::Yes, &mut value)?.map(|_| value))
}

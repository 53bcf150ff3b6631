//! The values that the route action `ucache:` stores: a whole HTTP response, the list of a URL's
//! variants, or the note that a URL's responses are not stored.
//!
//! ```text
//! page      body, reason, tags, selection, head, then 64 bytes:
//!           stored, fresh, stale, error (u64, Unix ms), age (u32, s), cost (u32, us), status (u16), flags (u16),
//!           lengths of reason, tags, selection, head (u32 each), "ucPB"
//! variants  "ucPV", generation (u64), number of names (u16), names (u16 and bytes each), then digest and end
//!           (u64 each)
//! none      "ucPM"
//! ```
//! The body comes first, so that the value is made where the body was received, without a copy.
//! Numbers are little-endian. A value that does not decode is no page: the cache may hold items of
//! the application as well.

const MAGIC: &[u8; 3] = b"ucP";
/// The end of a page.
const END: &[u8; 4] = b"ucPB";
/// Bytes of a page's numbers, with [`END`].
const NUMBERS: usize = 64;
/// The end of freshness of a page that was purged softly, Unix milliseconds: how often it was purged
/// again, at most this. No page was ever fresh then.
const MOST_PURGES: u64 = 999;

/// A stored response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page<'a> {
    /// When the response was received, Unix milliseconds.
    pub(crate) stored: u64,
    /// Until when it is fresh, Unix milliseconds; up to [`MOST_PURGES`] = purged softly.
    pub(crate) fresh: u64,
    /// Until when it may be served while one request refreshes it.
    pub(crate) stale: u64,
    /// Until when it may be served instead of an error.
    pub(crate) error: u64,
    /// Its age when it was received, seconds.
    pub(crate) age: u32,
    /// How long the application took, microseconds.
    pub(crate) cost: u32,
    /// 200, 404, ...
    pub(crate) status: u16,
    /// Whether the body is compressed by gzip for storage.
    pub(crate) gzip: bool,
    /// Whether the entity tag is the cache's own.
    pub(crate) made_tag: bool,
    /// The text behind the status.
    pub(crate) reason: &'a [u8],
    /// Tags, separated by blanks.
    pub(crate) tags: &'a [u8],
    /// The request headers that selected this variant; empty = the only one.
    pub(crate) selection: &'a [u8],
    /// Header lines, each ended by CR LF.
    pub(crate) head: &'a [u8],
    /// The content.
    pub(crate) body: &'a [u8],
}

/// Which request headers the responses of a URL depend on, and the variants stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variants {
    /// Part of the variants' keys: a new list reaches no variants of an older one.
    pub(crate) generation: u64,
    /// Header names in lower case, in order.
    pub(crate) names: Vec<Vec<u8>>,
    /// Digest of a variant's selection, and the Unix milliseconds when it ends.
    pub(crate) known: Vec<(u64, u64)>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept<'a> {
    /// A response.
    Page(Page<'a>),
    /// The variants of a URL.
    Variants(Variants),
    /// Responses of this URL were not stored lately: requests need not wait for each other.
    Unstored,
}

impl Page<'_> {
    /// What follows the body in the value to store.
    pub(crate) fn trailer(&self) -> Vec<u8> {
        let parts = [self.reason, self.tags, self.selection, self.head];
        let total = parts.iter().map(|part| part.len()).sum::<usize>() + NUMBERS;
        let mut to = Vec::with_capacity(total);
        parts.iter().for_each(|part| to.extend(*part));
        for time in [self.stored, self.fresh, self.stale, self.error] {
            to.extend(time.to_le_bytes());
        }
        to.extend(self.age.to_le_bytes());
        to.extend(self.cost.to_le_bytes());
        to.extend(self.status.to_le_bytes());
        to.extend((u16::from(self.gzip) | u16::from(self.made_tag) << 1).to_le_bytes());
        for part in parts {
            to.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        to.extend(END);
        to
    }

    /// Whether the page has this tag.
    pub(crate) fn has_tag(&self, tag: &[u8]) -> bool {
        self.tags.split(u8::is_ascii_whitespace).any(|one| one == tag)
    }
}

impl Variants {
    /// The value to store.
    #[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only the routes store pages"))]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = [MAGIC.as_slice(), b"V", &self.generation.to_le_bytes()].concat();
        to.extend(u16::try_from(self.names.len()).unwrap_or(u16::MAX).to_le_bytes());
        for name in &self.names {
            to.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            to.extend(name);
        }
        for (digest, end) in &self.known {
            to.extend(digest.to_le_bytes());
            to.extend(end.to_le_bytes());
        }
        to
    }
}

/// What no key of a page has: it is in the keys of what belongs to a page.
pub(crate) const RESERVED: u8 = 0;

/// The key of an item that belongs to a page. A key made from what a client sends cannot equal it.
pub(crate) fn own_key(key: &[u8], name: &str) -> Vec<u8> {
    [key, &[RESERVED], name.as_bytes()].concat()
}

/// Where a variant of a page is stored.
pub(crate) fn variant_key(key: &[u8], generation: u64, digest: u64) -> Vec<u8> {
    own_key(key, &format!("vary={generation:x}:{digest:x}"))
}

/// The value that notes that nothing is stored.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only the routes store pages"))]
pub(crate) const UNSTORED: &[u8] = b"ucPM";

/// Reads a value; `None` = it is none of these.
pub(crate) fn decode(value: &[u8]) -> Option<Kept<'_>> {
    // First the end: a body may begin with anything.
    if value.ends_with(END) {
        return page(value).map(Kept::Page);
    }
    let mut rest = Rest(value.strip_prefix(MAGIC)?);
    match rest.take(1)? {
        b"V" => variants(rest).map(Kept::Variants),
        b"M" => rest.0.is_empty().then_some(Kept::Unstored),
        _ => None,
    }
}

/// A page that was purged softly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Softened {
    /// Its value.
    pub(crate) value: Vec<u8>,
    /// Whether it had not been purged before.
    pub(crate) was_fresh: bool,
}

/// The value of a page, marked so that it is no longer fresh: it is served until another is there,
/// as far as its times allow. Each purge makes another value, so that a page that was computed
/// meanwhile does not find the one that it would replace. `None` = no page.
pub(crate) fn soften(value: &[u8]) -> Option<Softened> {
    let Some(Kept::Page(page)) = decode(value) else { return None };
    let was_fresh = page.fresh > MOST_PURGES;
    let fresh = if was_fresh { 0 } else { (page.fresh + 1) % (MOST_PURGES + 1) };
    Some(Softened { value: [page.body, &Page { fresh, ..page }.trailer()].concat(), was_fresh })
}

fn page(value: &[u8]) -> Option<Page<'_>> {
    let (front, numbers) = value.split_at_checked(value.len().checked_sub(NUMBERS)?)?;
    let mut rest = Rest(numbers);
    let [stored, fresh, stale, error] = [rest.u64()?, rest.u64()?, rest.u64()?, rest.u64()?];
    let [age, cost] = [rest.u32()?, rest.u32()?];
    let (status, flags) = (rest.u16()?, rest.u16()?);
    let lengths = [rest.u32()?, rest.u32()?, rest.u32()?, rest.u32()?];
    let total: u64 = lengths.iter().map(|&len| u64::from(len)).sum();
    let body_len = front.len().checked_sub(usize::try_from(total).ok()?)?;
    let mut rest = Rest(front);
    let body = rest.take(body_len)?;
    let mut part = |len: u32| rest.take(usize::try_from(len).ok()?);
    let [reason, tags, selection, head] =
        [part(lengths[0])?, part(lengths[1])?, part(lengths[2])?, part(lengths[3])?];
    if !(100..=999).contains(&status) || flags > 3 {
        return None;
    }
    let (gzip, made_tag) = (flags & 1 != 0, flags & 2 != 0);
    Some(Page {
        stored,
        fresh,
        stale,
        error,
        age,
        cost,
        status,
        gzip,
        made_tag,
        reason,
        tags,
        selection,
        head,
        body,
    })
}

fn variants(mut rest: Rest<'_>) -> Option<Variants> {
    let generation = rest.u64()?;
    let count = rest.u16()?;
    let mut names = Vec::new();
    for _ in 0..count {
        let len = rest.u16()?;
        names.push(rest.take(len.into())?.to_vec());
    }
    let mut known = Vec::new();
    while !rest.0.is_empty() {
        known.push((rest.u64()?, rest.u64()?));
    }
    Some(Variants { generation, names, known })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Page<'static> {
        Page {
            stored: 1_000,
            fresh: 2_000,
            stale: 3_000,
            error: 4_000,
            age: 5,
            cost: 6,
            status: 404,
            gzip: true,
            made_tag: true,
            reason: b"Not Found",
            tags: b"a b-c",
            selection: b"accept-language: de\n",
            head: b"X: y\r\n",
            body: b"nothing here",
        }
    }

    fn value(page: &Page<'_>) -> Vec<u8> {
        [page.body, &page.trailer()].concat()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let page = example();
        assert_eq!(decode(&value(&page)), Some(Kept::Page(page.clone())));
        // Bodies that look like something else are bodies.
        for body in [&b""[..], b"ucPM", b"ucPV\0\0\0\0\0\0\0\0\0\0", b"ucPB"] {
            let page = Page { body, ..example() };
            assert_eq!(decode(&value(&page)), Some(Kept::Page(page.clone())));
        }
        let names = vec![b"accept".to_vec(), b"cookie".to_vec()];
        let variants = Variants { generation: 7, names, known: vec![(1, 2), (3, 4)] };
        assert_eq!(decode(&variants.encode()), Some(Kept::Variants(variants)));
        assert_eq!(decode(UNSTORED), Some(Kept::Unstored));
        assert!(page.has_tag(b"a") && page.has_tag(b"b-c") && !page.has_tag(b"b") && !page.has_tag(b"a b-c"));
    }

    #[test]
    fn a_soft_purge_changes_the_time_only() {
        let soft = soften(&value(&example())).expect("a page");
        assert_eq!(decode(&soft.value), Some(Kept::Page(Page { fresh: 0, ..example() })));
        assert!(soft.was_fresh);
        // Who refreshes it compares the value: it is another one after each purge.
        let again = soften(&soft.value).expect("a page");
        assert!(!again.was_fresh && again.value != soft.value);
        let last = Page { fresh: MOST_PURGES, ..example() };
        let round = soften(&value(&last)).expect("a page");
        assert_eq!((round.was_fresh, round.value), (false, soft.value));
        assert_eq!(soften(b"an item of the application"), None);
    }

    #[test]
    fn other_bytes_are_no_pages() {
        let whole = value(&example());
        // A cut in front is a shorter body; anywhere else it is no page.
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None, "{end}");
        }
        for start in example().body.len() + 1..whole.len() {
            assert_eq!(decode(&whole[start..]), None, "{start}");
        }
        for at in example().body.len()..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut other = whole.clone();
                other[at] = byte;
                let _ = decode(&other);
            }
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"ucPX"), None);
        assert_eq!(decode(END), None);
    }
}

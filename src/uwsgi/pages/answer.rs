//! The answer from a stored page: validation, ranges, HEAD, age (RFC 9110, 13 to 15; RFC 9111, 4).
#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    io::{Read, Write},
    ops::Range,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::{
    asked::{Asked, accepts},
    control::date,
    fields::{Head, is_one_of, members, split_once, values},
};
use crate::wire::page::Page;

/// What to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'p> {
    /// `200 OK`
    pub(super) status: Vec<u8>,
    /// Header fields.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The content; empty for HEAD.
    pub(super) body: Cow<'p, [u8]>,
}

/// The answer to a request for which the page is stored; `None` = the page is damaged.
pub(super) fn answer<'p>(page: &Page<'p>, asked: &impl Asked, now: u64) -> Option<Answer<'p>> {
    let mut fields = Head::stored(page.head)?;
    let is_head = asked.var("REQUEST_METHOD") == Some(b"HEAD");
    let wanted = asked.header(b"range").filter(|_| !is_head && page.status == 200);
    let mut body = Cow::Borrowed(page.body);
    if page.gzip {
        add_to_vary(&mut fields);
        let takes = asked.header(b"accept-encoding").is_some_and(|value| accepts(value, b"gzip"));
        if takes && wanted.is_none() {
            fields.push((b"Content-Encoding".to_vec(), b"gzip".to_vec()));
            weaken(&mut fields);
        } else {
            body = Cow::Owned(unpacked(page.body)?);
        }
    }
    let since = now.saturating_sub(page.stored) / 1000;
    fields.push((b"Age".to_vec(), (since + u64::from(page.age)).to_string().into_bytes()));
    if page.status == 200 && is_unchanged(asked, &fields) {
        without(&mut fields, &OF_A_BODY);
        return Some(Answer { status: b"304 Not Modified".to_vec(), fields, body: Cow::Borrowed(b"") });
    }
    let len = body.len();
    let mut status = format!("{} ", page.status).into_bytes();
    status.extend(page.reason);
    match wanted.filter(|_| may_be_part(asked, &fields)).map_or(Wanted::All, |range| part(range, len)) {
        Wanted::All => {}
        Wanted::Part(range) => {
            let text = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-range"));
            fields.push((b"Content-Range".to_vec(), text.into_bytes()));
            status = b"206 Partial Content".to_vec();
            body = cut(body, range);
        }
        Wanted::Nothing => {
            without(&mut fields, &OF_A_BODY);
            without(&mut fields, &["content-location"]);
            fields.push((b"Content-Range".to_vec(), format!("bytes */{len}").into_bytes()));
            status = b"416 Range Not Satisfiable".to_vec();
            body = Cow::Borrowed(b"");
        }
    }
    if page.status != 204 {
        fields.push((b"Content-Length".to_vec(), body.len().to_string().into_bytes()));
    }
    if is_head {
        body = Cow::Borrowed(b"");
    }
    Some(Answer { status, fields, body })
}

/// What an answer without the page's body does not say of it (RFC 9110, 15.4.5).
const OF_A_BODY: [&str; 8] = [
    "content-disposition",
    "content-digest",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
];

fn without(fields: &mut Vec<(Vec<u8>, Vec<u8>)>, names: &[&str]) {
    fields.retain(|(name, _)| !is_one_of(name, names));
}

/// The body as it is stored; `None` = to be stored as it is.
pub(super) fn packed(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::default());
    encoder.write_all(body).ok()?;
    // A body that hardly gets shorter is not worth unpacking it.
    encoder.finish().ok().filter(|packed| packed.len() < body.len() - body.len() / 8)
}

/// Whether a body is worth compressing, and may be.
pub(super) fn is_packable(head: &Head, no_transform: bool, len: usize) -> bool {
    let kind = head.get("content-type").unwrap_or_default().to_ascii_lowercase();
    let text = kind.starts_with(b"text/")
        || [&b"json"[..], b"javascript", b"xml", b"wasm"].iter().any(|part| {
            let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default();
            kind.ends_with(part)
        });
    text && !no_transform && len >= 256 && !head.has("content-encoding") && head.status == 200
}

/// Whether the application has named the page, so that it can confirm it.
pub(super) fn is_named(page: &Page<'_>) -> bool {
    let fields = Head::stored(page.head).unwrap_or_default();
    let has = |name: &'static str| values(&fields, name).next().is_some();
    has("etag") && !page.made_tag || has("last-modified")
}

/// The entity tag for a body whose application made none.
pub(super) fn made_tag(body: &[u8]) -> String {
    format!("\"{:016x}-{:x}\"", super::asked::digest(body), body.len())
}

/// The body that was compressed for storage; `None` = damaged.
pub(super) fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    GzDecoder::new(body).read_to_end(&mut whole).ok()?;
    Some(whole)
}

fn add_to_vary(fields: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let there =
        values(fields, "vary").flat_map(members).any(|name| name.eq_ignore_ascii_case(b"accept-encoding"));
    if !there {
        fields.push((b"Vary".to_vec(), b"Accept-Encoding".to_vec()));
    }
}

/// Another coding of a body is not the same bytes.
fn weaken(fields: &mut [(Vec<u8>, Vec<u8>)]) {
    for (name, value) in fields {
        if name.eq_ignore_ascii_case(b"etag") && !value.starts_with(b"W/") {
            value.splice(0..0, *b"W/");
        }
    }
}

/// Whether the client has this page already (RFC 9110, 13.2.2).
fn is_unchanged(asked: &impl Asked, fields: &[(Vec<u8>, Vec<u8>)]) -> bool {
    if let Some(known) = asked.header(b"if-none-match") {
        let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
        let own = values(fields, "etag").next().map(opaque);
        return known.trim_ascii() == b"*" || members(known).any(|tag| Some(opaque(tag)) == own);
    }
    let modified = values(fields, "last-modified").next().and_then(date);
    let since = asked.header(b"if-modified-since").and_then(date);
    matches!((modified, since), (Some(modified), Some(since)) if modified <= since)
}

/// Whether `If-Range`, if there is one, holds (RFC 9110, 13.1.5).
fn may_be_part(asked: &impl Asked, fields: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let Some(held) = asked.header(b"if-range").map(<[u8]>::trim_ascii) else { return true };
    if held.starts_with(b"\"") {
        return values(fields, "etag").next() == Some(held);
    }
    date(held).is_some() && values(fields, "last-modified").next() == Some(held)
}

enum Wanted {
    All,
    Part(Range<usize>),
    Nothing,
}

/// One range of bytes; several, or other units, get the whole.
fn part(range: &[u8], len: usize) -> Wanted {
    let number = |text: &[u8]| {
        let valid = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        valid.then(|| std::str::from_utf8(text).ok()?.parse::<u64>().ok()).flatten()
    };
    let range = range.trim_ascii();
    let Some((unit, spec)) = split_once(range, b'=') else { return Wanted::All };
    let Some((first, last)) = split_once(spec.trim_ascii(), b'-') else { return Wanted::All };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Wanted::All;
    }
    let size = len as u64;
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(0)) if first.is_empty() => return Wanted::Nothing,
        (None, Some(last)) if first.is_empty() => (size.saturating_sub(last), size),
        _ => return Wanted::All,
    };
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start < end => Wanted::Part(start..end),
        _ => Wanted::Nothing,
    }
}

fn cut(body: Cow<'_, [u8]>, range: Range<usize>) -> Cow<'_, [u8]> {
    match body {
        Cow::Borrowed(body) => Cow::Borrowed(body.get(range).unwrap_or_default()),
        Cow::Owned(body) => Cow::Owned(body.get(range).unwrap_or_default().to_vec()),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;

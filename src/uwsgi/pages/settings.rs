//! The options of `ucache:`, checked when uWSGI reads its configuration.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::fields::is_token;
use crate::{
    capi::host::{
        kvlist,
        units::{self, Counts, Number},
    },
    wire::shown::shown,
};

/// Statuses stored unless `status` says otherwise: those that RFC 9110, 15.1 lets a cache store by
/// itself, without partial content and server errors.
const STATUSES: [u16; 11] = [200, 203, 204, 300, 301, 302, 308, 404, 405, 410, 414];

/// Names by which a proxy passes on what the client asked for. An application may use them, but they
/// are no part of a key: a request that has one is not answered from the cache.
pub(super) const UNKEYED: [&str; 22] = [
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-host",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-http-host-override",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-protocol",
    "x-forwarded-ssl",
    "x-script-name",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "forwarded",
];

/// How one route caches.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// The cache; empty = the first one.
    pub(super) name: Vec<u8>,
    /// Template of the key; `None` = the URL.
    pub(super) key: Option<Vec<u8>>,
    /// Time to live where the response states none, seconds.
    pub(super) ttl: Option<u64>,
    /// Whether `ttl` counts whatever the response states.
    pub(super) force: bool,
    /// For how long after its time to live a page is served while it is refreshed, seconds.
    pub(super) stale: u64,
    /// Whether old pages are refreshed by a mule.
    pub(super) by_mule: bool,
    /// For how long after its time to live a page is served instead of an error, seconds.
    pub(super) stale_error: u64,
    /// How long a request waits for another one's page.
    pub(super) lock: Duration,
    /// Whether HEAD is answered from the cache, too.
    pub(super) heads: bool,
    /// Statuses that are stored, with their own times to live.
    statuses: Vec<(u16, Option<u64>)>,
    /// Request headers that are part of the key, lower case.
    pub(super) vary: Vec<Vec<u8>>,
    /// Most variants of one URL.
    pub(super) variants: usize,
    /// Templates: a request for which one is neither empty nor 0 goes to the application.
    pub(super) bypass: Vec<Vec<u8>>,
    /// The same for storing.
    pub(super) nostore: Vec<Vec<u8>>,
    /// From how many requests within the time to live a page is stored.
    pub(super) min_uses: u64,
    /// Longest body that is stored, bytes.
    pub(super) max_size: u64,
    /// Whether to store bodies compressed.
    pub(super) gzip: bool,
    /// Response header (lower case) or template with a page's tags.
    pub(super) tags: Option<Tags>,
    /// Whether cookies of a request do not matter.
    pub(super) ignore_cookies: bool,
    /// Names of [`UNKEYED`] that the proxy in front sets itself, lower case.
    pub(super) trusted: Vec<Vec<u8>>,
    /// Whether answers say how they were made (`X-Cache`).
    pub(super) x_cache: bool,
}

/// Where a page's tags come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// A response header, lower case.
    Header(String),
    /// A template.
    Template(Vec<u8>),
}

impl Settings {
    /// Reads the text behind `ucache:`.
    ///
    /// # Errors
    /// Which option is wrong, and what to write.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut settings = Self {
            lock: Duration::from_secs(5),
            heads: true,
            statuses: STATUSES.map(|status| (status, None)).to_vec(),
            variants: 32,
            min_uses: 1,
            max_size: 1 << 20,
            x_cache: true,
            ..Self::default()
        };
        for (key, value) in kvlist::parse(text) {
            let key = String::from_utf8_lossy(&key).into_owned();
            let value = value.ok_or_else(|| format!("{key}: a value is missing ({key}=...)"))?;
            settings.set(&key, value).map_err(|expected| {
                // An unknown option has no value that would be right.
                if expected.is_empty() {
                    unknown(&key)
                } else {
                    wrong(&key, &value_of(text, &key), &expected)
                }
            })?;
        }
        if settings.force && settings.ttl.is_none() {
            return Err("force=1 needs ttl=".to_owned());
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), String> {
        match key {
            "name" => self.name = value,
            "key" => self.key = Some(value).filter(|key| !key.is_empty()),
            "ttl" => self.ttl = Some(seconds(&value)?),
            "force" => self.force = switch(&value)?,
            "stale" => self.stale = seconds(&value)?,
            "refresh" if value == b"mule" => self.by_mule = true,
            "refresh" if value == b"worker" => self.by_mule = false,
            "refresh" => return Err("worker or mule".to_owned()),
            "stale_error" => self.stale_error = seconds(&value)?,
            "lock" => self.lock = Duration::from_secs(number(&value, Counts::Seconds, 0, 3600)?),
            "methods" => self.heads = methods(&value)?,
            "status" => self.statuses = list(&value).map(status).collect::<Result<_, _>>()?,
            "vary" => self.vary = names(&value)?,
            "variants" => self.variants = small(number(&value, Counts::Things, 1, 10_000)?),
            "bypass" => self.bypass = list(&value).map(<[u8]>::to_vec).collect(),
            "nostore" => self.nostore = list(&value).map(<[u8]>::to_vec).collect(),
            "min_uses" => self.min_uses = number(&value, Counts::Things, 1, u64::MAX)?,
            "max_size" => self.max_size = number(&value, Counts::Bytes, 1, u32::MAX.into())?,
            "gzip" => self.gzip = switch(&value)?,
            "tags" if value.contains(&b'$') => self.tags = Some(Tags::Template(value)),
            "tags" => self.tags = Some(Tags::Header(one_name(&value)?)),
            "cookies" if value == b"ignore" => self.ignore_cookies = true,
            "cookies" if value == b"obey" => self.ignore_cookies = false,
            "cookies" => return Err("ignore or obey".to_owned()),
            "trusted" => self.trusted = trusted(&value)?,
            "x_cache" => self.x_cache = switch(&value)?,
            _ => return Err(String::new()),
        }
        Ok(())
    }

    /// Whether responses with this status are stored, and their own time to live.
    pub(super) fn status(&self, status: u16) -> Option<Option<u64>> {
        self.statuses.iter().find(|(stored, _)| *stored == status).map(|(_, ttl)| *ttl)
    }
}

fn value_of(text: &[u8], key: &str) -> Vec<u8> {
    let found = kvlist::parse(text).into_iter().rev().find(|(name, _)| name == key.as_bytes());
    found.and_then(|(_, value)| value).unwrap_or_default()
}

fn wrong(key: &str, value: &[u8], expected: &str) -> String {
    format!("{key}={}: expected {expected}", shown(value))
}

fn unknown(key: &str) -> String {
    format!(
        "{}: there is no such option (name, key, ttl, force, stale, refresh, stale_error, lock, methods, status, vary, variants, \
         bypass, nostore, min_uses, max_size, gzip, tags, cookies, trusted, x_cache)",
        shown(key.as_bytes())
    )
}

/// Parts of a value: separated by blanks or semicolons.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| byte.is_ascii_whitespace() || *byte == b';').filter(|part| !part.is_empty())
}

/// A number within bounds.
pub(super) fn number(value: &[u8], of: Counts, least: u64, most: u64) -> Result<u64, String> {
    let bounds = || match most {
        u64::MAX => format!("a number from {least}"),
        _ => format!("a number from {least} to {most}"),
    };
    match units::read(value, of) {
        Number::Plain(number) | Number::WithUnit(number, _) if (least..=most).contains(&number) => Ok(number),
        Number::None(Some(why)) => Err(bounds() + &why),
        _ => Err(bounds()),
    }
}

/// Ten years: sums of a time and these stay far from the end of the numbers.
fn seconds(value: &[u8]) -> Result<u64, String> {
    number(value, Counts::Seconds, 0, 10 * 365 * 86_400)
}

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A switch: the words of uWSGI's own.
pub(super) fn switch(value: &[u8]) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_slice() {
        b"1" | b"true" | b"yes" | b"on" => Ok(true),
        b"0" | b"false" | b"no" | b"off" => Ok(false),
        _ => Err("1 or 0".to_owned()),
    }
}

/// Whether HEAD is in the list; only GET and HEAD can be.
fn methods(value: &[u8]) -> Result<bool, String> {
    let all: Vec<_> = list(value).map(<[u8]>::to_ascii_uppercase).collect();
    let known = |method: &Vec<u8>| matches!(method.as_slice(), b"GET" | b"HEAD");
    if !all.iter().all(known) || !all.iter().any(|method| method == b"GET") {
        return Err(
            "GET, or GET;HEAD: other methods change something, or have a body that is no part of the key"
                .into(),
        );
    }
    Ok(all.iter().any(|method| method == b"HEAD"))
}

fn status(part: &[u8]) -> Result<(u16, Option<u64>), String> {
    let expected =
        || "statuses from 200 to 599, each with a time to live if you like: 200 301 404:5".to_owned();
    let mut parts = part.splitn(2, |&byte| byte == b':');
    let code = parts.next().and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
    // 206 and 304 are answers to one request only.
    let code = code.filter(|code| (200..600).contains(code) && ![206, 304].contains(code));
    let ttl = parts.next().map(|ttl| seconds(ttl).map_err(|_| expected())).transpose()?;
    code.map(|code| (code, ttl)).ok_or_else(expected)
}

fn names(value: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = list(value).map(|n| one_name(n).map(String::into_bytes)).collect::<Result<Vec<_>, _>>()?;
    all.sort();
    all.dedup();
    Ok(all)
}

fn one_name(name: &[u8]) -> Result<String, String> {
    let valid = !name.is_empty() && name.iter().copied().all(is_token);
    let name = valid.then(|| String::from_utf8(name.to_ascii_lowercase()).ok()).flatten();
    name.ok_or_else(|| "names of headers".to_owned())
}

fn trusted(value: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let all = names(value)?;
    let known = |name: &Vec<u8>| UNKEYED.iter().any(|unkeyed| name == unkeyed.as_bytes());
    if all.iter().all(known) { Ok(all) } else { Err(format!("some of {}", UNKEYED.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text.as_bytes())
    }

    #[test]
    fn all_options_are_read() {
        let all = parse(
            "name=pages,key=${HTTP_HOST}${REQUEST_URI},ttl=1m,force=1,stale=5m,stale_error=1h,lock=2,methods=GET,\
             status=200 404:5,vary=Accept-Language;accept,variants=9,bypass=${cookie[a]} ${ARG},nostore=${B},min_uses=2,\
             max_size=64k,refresh=mule,gzip=yes,tags=Cache-Tag,cookies=ignore,trusted=X-Forwarded-Host,x_cache=0",
        )
        .expect("valid");
        assert_eq!(all.name, b"pages");
        assert_eq!(all.key.as_deref(), Some(&b"${HTTP_HOST}${REQUEST_URI}"[..]));
        assert_eq!((all.ttl, all.stale, all.stale_error), (Some(60), 300, 3600));
        assert_eq!((all.lock, all.heads, all.force), (Duration::from_secs(2), false, true));
        assert_eq!((all.status(200), all.status(404), all.status(301)), (Some(None), Some(Some(5)), None));
        assert_eq!(all.vary, [&b"accept"[..], b"accept-language"]);
        assert_eq!((all.bypass.len(), all.nostore.len(), all.variants), (2, 1, 9));
        assert_eq!((all.min_uses, all.max_size, all.gzip, all.x_cache), (2, 65_536, true, false));
        assert_eq!(all.tags, Some(Tags::Header("cache-tag".into())));
        assert_eq!(parse("tags=${T}").expect("valid").tags, Some(Tags::Template(b"${T}".to_vec())));
        assert!(all.by_mule && all.ignore_cookies && all.trusted == [b"x-forwarded-host"]);
    }

    #[test]
    fn what_is_not_given_is_safe() {
        let plain = parse("name=c").expect("valid");
        assert_eq!((plain.ttl, plain.force, plain.stale, plain.stale_error), (None, false, 0, 0));
        assert!(plain.status(206).is_none() && plain.status(500).is_none() && plain.status(200).is_some());
        assert!(
            !plain.by_mule
                && !plain.ignore_cookies
                && plain.trusted.is_empty()
                && plain.heads
                && plain.x_cache
        );
    }

    #[test]
    fn mistakes_name_option_value_and_remedy() {
        for (text, expected) in [
            ("ttl=x", "ttl=x: expected a number from 0 to 315360000"),
            ("ttl=5y", "unknown unit \"y\""),
            ("ttl", "a value is missing"),
            ("lock=7200", "to 3600"),
            ("methods=POST", "methods=POST: expected GET"),
            ("methods=HEAD", "expected GET"),
            ("status=206", "status=206: expected statuses"),
            ("status=404:x", "expected statuses"),
            ("vary=a:b", "names of headers"),
            ("gzip=perhaps", "1 or 0"),
            ("refresh=spooler", "refresh=spooler: expected worker or mule"),
            ("cookies=no", "ignore or obey"),
            ("trusted=cookie", "some of x-forwarded-host"),
            ("max_size=0", "from 1"),
            ("force=1", "force=1 needs ttl="),
            ("timeout=5", "timeout: there is no such option"),
        ] {
            let why = parse(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}

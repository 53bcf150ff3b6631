//! What a request asks for: its key, what selects its variant, and whether the cache may answer it.
#![forbid(unsafe_code)]

use super::{
    fields::{members, split_once},
    settings::{Settings, UNKEYED},
};
use crate::wire::page::own_key;

/// A request as the server holds it.
pub(super) trait Asked {
    /// A variable, for example `REQUEST_METHOD`; `None` = not set.
    fn var(&self, name: &str) -> Option<&[u8]>;

    /// A header; `None` = not sent. Where a header came twice it is the one that the application
    /// sees.
    fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let plain = |byte: &u8| if *byte == b'-' { '_' } else { char::from(byte.to_ascii_uppercase()) };
        let name: String = name.iter().map(plain).collect();
        match name.as_str() {
            "CONTENT_TYPE" | "CONTENT_LENGTH" => self.var(&name),
            _ => self.var(&format!("HTTP_{name}")),
        }
    }
}

/// Headers of the client that the application does not see.
pub(super) const HIDDEN: [&str; 3] = ["HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE"];

/// A request as its client sent it: with the headers that were hidden, without those that were added.
pub(super) struct Client<'r, A> {
    pub(super) request: &'r A,
    /// Whether another route changes the body: it needs one that is not compressed.
    pub(super) plain: bool,
}

impl<A: Asked> Asked for Client<'_, A> {
    fn var(&self, name: &str) -> Option<&[u8]> {
        match name.strip_prefix("HTTP") {
            Some(rest) if HIDDEN.contains(&name) => self.request.var(&format!("HID_{rest}")),
            Some("_ACCEPT_ENCODING") if self.plain => None,
            _ => self.request.var(name),
        }
    }
}

/// Why a request goes to the application without the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bypass {
    /// Neither GET nor HEAD.
    Method,
    /// It has a body, or says so: GET with a body is read differently by different servers.
    Body,
    /// `Authorization`.
    Authorization,
    /// A condition of the route (`bypass`).
    Condition,
    /// `Upgrade`, a precondition on what the application has, or an earlier route that changes the
    /// body.
    Form,
    /// A range of a page that is not stored.
    Range,
    /// A host or a URI that cannot be part of a key.
    Uri,
    /// A header that applications may use, but which is no part of the key.
    Header,
    /// The key is too long for the cache, or the cache cannot be reached.
    Cache,
}

impl Bypass {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Authorization => "authorization",
            Self::Condition => "condition",
            Self::Form => "form",
            Self::Range => "range",
            Self::Uri => "uri",
            Self::Header => "header",
            Self::Cache => "cache",
        }
    }
}

/// Whether a request must go to the application.
pub(super) fn bypass(asked: &impl Asked, settings: &Settings) -> Option<Bypass> {
    match asked.var("REQUEST_METHOD").unwrap_or_default() {
        b"GET" => {}
        b"HEAD" if settings.heads => {}
        _ => return Some(Bypass::Method),
    }
    let length = asked.var("CONTENT_LENGTH").unwrap_or_default().trim_ascii();
    if !matches!(length, b"" | b"0") || asked.header(b"transfer-encoding").is_some() {
        return Some(Bypass::Body);
    }
    if asked.header(b"authorization").is_some() || asked.header(b"proxy-authorization").is_some() {
        return Some(Bypass::Authorization);
    }
    if [&b"upgrade"[..], b"if-match", b"if-unmodified-since"].iter().any(|name| asked.header(name).is_some())
    {
        return Some(Bypass::Form);
    }
    let host = asked.header(b"host").unwrap_or_default();
    for name in UNKEYED {
        let trusted = settings.trusted.iter().any(|trusted| trusted == name.as_bytes());
        let same = |value: &[u8]| name == "x-forwarded-host" && value.eq_ignore_ascii_case(host);
        if !trusted && asked.header(name.as_bytes()).is_some_and(|value| !same(value)) {
            return Some(Bypass::Header);
        }
    }
    None
}

/// What precedes the scheme of `X-Forwarded-Proto` in a key.
const FORWARDED: &[u8] = b" x-forwarded-proto=";

/// The key of a request unless the route has its own: the URL, and ` x-forwarded-proto=` where that
/// header says another scheme than the connection. `None` = no URL that can be one.
pub(super) fn url(asked: &impl Asked) -> Option<Vec<u8>> {
    let uri = asked.var("REQUEST_URI").unwrap_or_default();
    let host = asked.header(b"host").unwrap_or_default().to_ascii_lowercase();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]~%!$&'()*+,;=".contains(byte);
    let visible = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    if !uri.starts_with(b"/") || !uri.iter().all(visible) || !host.iter().all(plain) {
        return None;
    }
    let secure = asked.var("UWSGI_SCHEME").is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
        || asked.var("HTTPS").is_some_and(|on| on.eq_ignore_ascii_case(b"on") || on == b"1");
    let scheme: &[u8] = if secure { b"https" } else { b"http" };
    let mut key = [scheme, b"://", &host, uri].concat();
    if let Some(other) = asked.header(b"x-forwarded-proto").map(<[u8]>::to_ascii_lowercase) {
        if !matches!(other.as_slice(), b"http" | b"https") {
            return None;
        }
        if other != scheme {
            key.extend([FORWARDED, other.as_slice()].concat());
        }
    }
    Some(key)
}

/// The key of a page that a response names, if it is of the same site as the page with this key.
pub(super) fn same_site(key: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = split_once(key, b':')?;
    let host = rest.strip_prefix(b"//")?.split(|&byte| byte == b'/').next()?;
    // The client's scheme is that of the proxy in front.
    let forwarded = key.iter().position(|&byte| byte == b' ').map_or(&b""[..], |at| &key[at..]);
    let seen = forwarded.strip_prefix(FORWARDED).unwrap_or(scheme);
    let (site, seen) = ([scheme, b"://", host].concat(), [seen, b"://", host].concat());
    let path = match target.get(..seen.len()) {
        Some(start) if start.eq_ignore_ascii_case(&seen) => &target[seen.len()..],
        _ => target,
    };
    let path = path.split(|&byte| byte == b'#').next().unwrap_or_default();
    (path.starts_with(b"/") && !path.starts_with(b"//")).then(|| [&site, path, forwarded].concat())
}

/// What selects a variant: the named headers with their values, one a line. What of
/// `Accept-Encoding` an application can tell apart is kept only, for fewer variants.
pub(super) fn selection(asked: &impl Asked, names: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    for name in names {
        text.extend(name);
        match asked.header(name) {
            Some(value) if name == b"accept-encoding" => {
                let codings = ["br", "gzip", "zstd", "deflate"];
                let accepted = codings.iter().filter(|coding| accepts(value, coding.as_bytes()));
                text.extend(format!(": {}", accepted.copied().collect::<Vec<_>>().join(" ")).bytes());
            }
            Some(value) => text.extend([b": ", value].concat()),
            None => {}
        }
        text.push(b'\n');
    }
    text
}

/// Whether `Accept-Encoding` has this coding with a weight above 0. `*` alone does not count.
pub(super) fn accepts(value: &[u8], coding: &[u8]) -> bool {
    members(value).any(|member| {
        let (name, weight) = split_once(member, b';').unwrap_or((member, b""));
        let weight = weight.trim_ascii().to_ascii_lowercase();
        let zero =
            weight.strip_prefix(b"q=").is_some_and(|q| q.iter().all(|byte| matches!(byte, b'0' | b'.')));
        name.trim_ascii().eq_ignore_ascii_case(coding) && !zero
    })
}

/// Where the requests for a page are counted before it is stored.
pub(super) fn uses_key(key: &[u8]) -> Vec<u8> {
    own_key(key, "uses")
}

/// The key of the note that a page waits for a mule.
pub(super) fn queued_key(at: &[u8]) -> Vec<u8> {
    own_key(at, "queued")
}

/// A short form of a selection. The variant has the whole text: it is compared.
pub(super) fn digest(selection: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(selection);
    hasher.finish()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Variables by name.
    pub(in super::super) struct Vars(pub(in super::super) Vec<(&'static str, &'static str)>);

    impl Asked for Vars {
        fn var(&self, name: &str) -> Option<&[u8]> {
            self.0.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| value.as_bytes())
        }
    }

    fn get(more: &[(&'static str, &'static str)]) -> Vars {
        let mut vars =
            vec![("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a?b=c"), ("HTTP_HOST", "Example.com")];
        vars.extend(more);
        Vars(vars)
    }

    fn bypassed(options: &str, more: &[(&'static str, &'static str)]) -> Option<Bypass> {
        bypass(&get(more), &Settings::parse(options.as_bytes()).expect("valid options"))
    }

    #[test]
    fn plain_requests_are_answered_from_the_cache() {
        assert_eq!(bypassed("ttl=1", &[]), None);
        assert_eq!(bypassed("ttl=1", &[("REQUEST_METHOD", "HEAD"), ("CONTENT_LENGTH", "0")]), None);
        assert_eq!(bypassed("ttl=1,methods=GET", &[("REQUEST_METHOD", "HEAD")]), Some(Bypass::Method));
        assert_eq!(bypassed("ttl=1", &[("HTTP_COOKIE", "a=b"), ("HTTP_RANGE", "bytes=0-1")]), None);
    }

    #[test]
    fn others_go_to_the_application() {
        for (name, value, why) in [
            ("REQUEST_METHOD", "POST", Bypass::Method),
            ("REQUEST_METHOD", "get", Bypass::Method),
            ("CONTENT_LENGTH", "5", Bypass::Body),
            ("CONTENT_LENGTH", "00", Bypass::Body),
            ("HTTP_TRANSFER_ENCODING", "chunked", Bypass::Body),
            ("HTTP_AUTHORIZATION", "Basic eDp5", Bypass::Authorization),
            ("HTTP_UPGRADE", "websocket", Bypass::Form),
            ("HTTP_IF_MATCH", "\"a\"", Bypass::Form),
            ("HTTP_X_FORWARDED_HOST", "evil.example", Bypass::Header),
            ("HTTP_X_FORWARDED_PORT", "80", Bypass::Header),
            ("HTTP_X_ORIGINAL_URL", "/admin", Bypass::Header),
            ("HTTP_X_HTTP_METHOD_OVERRIDE", "POST", Bypass::Header),
            ("HTTP_FORWARDED", "host=evil.example", Bypass::Header),
        ] {
            assert_eq!(bypassed("ttl=1", &[(name, value)]), Some(why), "{name}: {value}");
        }
        let proxied = [("HTTP_X_FORWARDED_HOST", "example.com"), ("HTTP_X_FORWARDED_PROTO", "http")];
        assert_eq!(bypassed("ttl=1", &proxied), None);
        let trusted = "ttl=1,trusted=x-forwarded-port";
        assert_eq!(bypassed(trusted, &[("HTTP_X_FORWARDED_PORT", "80")]), None);
    }

    #[test]
    fn the_key_is_the_url() {
        let key = |more: &[(&'static str, &'static str)]| {
            url(&get(more)).map(|key| String::from_utf8(key).expect("text"))
        };
        assert_eq!(key(&[]).as_deref(), Some("http://example.com/a?b=c"));
        assert_eq!(key(&[("HTTPS", "on")]).as_deref(), Some("https://example.com/a?b=c"));
        assert_eq!(key(&[("UWSGI_SCHEME", "https")]).as_deref(), Some("https://example.com/a?b=c"));
        let proto = |scheme| key(&[("HTTP_X_FORWARDED_PROTO", scheme)]);
        assert_eq!(proto("http").as_deref(), Some("http://example.com/a?b=c"));
        assert_eq!(proto("https").as_deref(), Some("http://example.com/a?b=c x-forwarded-proto=https"));
        assert_eq!(proto("gopher"), None);
        assert_eq!(key(&[("HTTP_HOST", "[::1]:80")]).as_deref(), Some("http://[::1]:80/a?b=c"));
        for host in ["a/b", "a b", "a?b", "a\r\nb", "a@b", "a#b", "a\\b", "a\"b"] {
            assert_eq!(key(&[("HTTP_HOST", host)]), None, "{host:?}");
        }
        for uri in ["", "a", "*", "http://evil.example/", "/a b", "/a\r\nX: y", "/a\tb", "/a\x7f"] {
            assert_eq!(key(&[("REQUEST_URI", uri)]), None, "{uri:?}");
        }
        // Paths that an application may take for the same page have keys of their own.
        let paths = ["/a", "/A", "/a/", "//a", "/./a", "/b/../a", "/%61", "/a;x=y", "/a?", "/a#b"];
        let keys: std::collections::BTreeSet<_> =
            paths.iter().map(|path| key(&[("REQUEST_URI", path)])).collect();
        assert_eq!(keys.len(), paths.len());
    }

    #[test]
    fn other_pages_are_of_the_same_site() {
        let of = |target: &str| same_site(b"http://a:80/x?y=/z", target.as_bytes());
        let page = |path: &str| Some([b"http://a:80", path.as_bytes()].concat());
        assert_eq!(of("/b?c=d"), page("/b?c=d"));
        assert_eq!(of("HTTP://A:80/b"), page("/b"));
        for other in ["b", "", "//c/b", "http://a/b", "http://a:801/b", "https://a:80/b", "http://a:80"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of("/b#c"), page("/b"));
        assert_eq!(same_site(b"own key", b"/b"), None);
        // Behind a proxy with TLS.
        let of = |target: &str| same_site(b"http://a/x x-forwarded-proto=https", target.as_bytes());
        for target in ["/b", "https://a/b", "HTTPS://A/b#c"] {
            assert_eq!(of(target).as_deref(), Some(&b"http://a/b x-forwarded-proto=https"[..]), "{target}");
        }
        for other in ["http://a/b", "https://a:80/b", "https://b/b"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn variants_are_told_apart_by_their_headers() {
        let names = [b"accept-encoding".to_vec(), b"accept-language".to_vec()];
        let select = |more: &[(&'static str, &'static str)]| selection(&get(more), &names);
        assert_eq!(select(&[]), b"accept-encoding\naccept-language\n");
        assert_eq!(select(&[("HTTP_ACCEPT_LANGUAGE", "")]), b"accept-encoding\naccept-language: \n");
        let gzip = select(&[("HTTP_ACCEPT_ENCODING", "gzip, deflate;q=0, x")]);
        assert_eq!(gzip, select(&[("HTTP_ACCEPT_ENCODING", "x;q=1,GZIP;q=0.5")]));
        assert_ne!(gzip, select(&[("HTTP_ACCEPT_ENCODING", "gzip;q=0.0")]));
        assert_ne!(digest(&gzip), digest(&select(&[])));
    }
}

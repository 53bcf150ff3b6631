//! Where the values are: `redis://[user@]host[:port][/db]`, `redis+unix:///path[?db=N]`,
//! `redis+sentinel://[user@]host[:port];host[:port]/service[/db]`,
//! `redis+cluster://[user@]host[:port];host[:port]`; with `rediss` by TLS.

use crate::{
    error::Result,
    near::options::{invalid, without_credentials},
};

/// Redis's port.
const PORT: u16 = 6379;
/// Sentinel's port.
const SENTINEL_PORT: u16 = 26379;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A host name or address, and a port.
    Tcp(String, u16),
    /// The path of a unix socket.
    Unix(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => f.write_str(path),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// How the server with the values is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// It has this address.
    Server(Address),
    /// The sentinels at these addresses know which one is the primary of this service.
    Sentinel(Vec<Address>, String),
    /// The nodes at these addresses know which one has which keys.
    Cluster(Vec<Address>),
}

/// A parsed URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) route: Route,
    /// TLS to every server.
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: u32,
}

/// Without the password.
impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Url").field(&self.shown()).finish()
    }
}

impl Url {
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) says what to write. It never has the
    /// URL's password.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            let bare = text.rsplit('@').next().unwrap_or_default();
            refuse(text, &format!("must begin with redis:// or redis+unix://, as in redis://{bare}"))
        })?;
        let tls = scheme.starts_with("rediss");
        match scheme {
            "redis" | "rediss" => Self::tcp(text, rest, tls),
            "redis+unix" | "unix" => Self::unix(text, rest),
            "redis+sentinel" | "rediss+sentinel" => Self::sentinel(text, rest, tls),
            "redis+cluster" | "rediss+cluster" => Self::cluster(text, rest, tls),
            _ => Err(refuse(
                text,
                "the scheme must be redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://",
            )),
        }
    }

    fn tcp(text: &str, rest: &str, tls: bool) -> Result<Self> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, place) = credentials(text, authority)?;
        if place.contains([';', ',']) {
            return Err(refuse(
                text,
                "must name one server; several sentinels stand behind redis+sentinel://, nodes of a cluster behind redis+cluster://",
            ));
        }
        let address = address(text, place, PORT)?;
        let db = if path.is_empty() { 0 } else { database(text, path)? };
        Ok(Self { route: Route::Server(address), tls, user, password, db })
    }

    fn sentinel(text: &str, rest: &str, tls: bool) -> Result<Self> {
        const SHAPE: &str = "must name the sentinels and the service, as in redis+sentinel://10.0.0.1;10.0.0.2;10.0.0.3/mymaster";
        let (authority, path) = rest.split_once('/').ok_or_else(|| refuse(text, SHAPE))?;
        let (user, password, places) = credentials(text, authority)?;
        let (service, db) = path.split_once('/').unwrap_or((path, ""));
        let service = decoded(service).filter(|service| !service.is_empty());
        let service = service.ok_or_else(|| refuse(text, SHAPE))?;
        let sentinels = places.split([';', ',']).map(|place| address(text, place, SENTINEL_PORT));
        let sentinels: Vec<_> = sentinels.collect::<Result<_>>()?;
        let db = if db.is_empty() { 0 } else { database(text, db)? };
        Ok(Self { route: Route::Sentinel(sentinels, service), tls, user, password, db })
    }

    fn cluster(text: &str, rest: &str, tls: bool) -> Result<Self> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password, places) = credentials(text, authority)?;
        let nodes = places.split([';', ',']).map(|place| address(text, place, PORT));
        let nodes: Vec<_> = nodes.collect::<Result<_>>()?;
        if !["", "0"].contains(&path) {
            return Err(refuse(text, "must end after the nodes: a cluster has no database but 0"));
        }
        Ok(Self { route: Route::Cluster(nodes), tls, user, password, db: 0 })
    }

    fn unix(text: &str, rest: &str) -> Result<Self> {
        let slash = rest.find('/').ok_or_else(|| {
            refuse(text, "must have the absolute path of a socket, as in redis+unix:///run/redis/redis.sock")
        })?;
        let (user, password, host) = credentials(text, &rest[..slash])?;
        if !host.is_empty() {
            return Err(refuse(
                text,
                "must have three slashes before the path: redis+unix:///run/redis/redis.sock",
            ));
        }
        let (path, query) = rest[slash..].split_once('?').unwrap_or((&rest[slash..], ""));
        let db = match query.strip_prefix("db=") {
            Some(db) => database(text, db)?,
            None if query.is_empty() => 0,
            None => return Err(refuse(text, "only db=NUMBER may stand behind the ?")),
        };
        let path = decoded(path).filter(|path| path.len() > 1 && path.len() < 108 && !path.contains('\0'));
        let path = path.ok_or_else(|| refuse(text, "the path of a socket has 1 to 107 bytes"))?;
        Ok(Self { route: Route::Server(Address::Unix(path)), tls: false, user, password, db })
    }

    /// The URL without user and password, for logs and errors.
    pub(super) fn shown(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let db = if self.db == 0 { String::new() } else { format!("/{}", self.db) };
        let all = |places: &[Address]| places.iter().map(Address::to_string).collect::<Vec<_>>().join(";");
        match &self.route {
            Route::Server(Address::Unix(path)) if self.db == 0 => format!("redis+unix://{path}"),
            Route::Server(Address::Unix(path)) => format!("redis+unix://{path}?db={}", self.db),
            Route::Server(address) => format!("{scheme}://{address}{db}"),
            Route::Sentinel(sentinels, service) => {
                format!("{scheme}+sentinel://{}/{service}{db}", all(sentinels))
            }
            Route::Cluster(nodes) => format!("{scheme}+cluster://{}", all(nodes)),
        }
    }
}

/// `host`, `host:port` or `[::1]:port`.
fn address(text: &str, place: &str, default: u16) -> Result<Address> {
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port has colons, too, inside brackets.
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().ok().filter(|&port| port != 0);
            (host, port.ok_or_else(|| refuse(text, "the port must be a number from 1 to 65535"))?)
        }
        _ => (place, default),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(refuse(text, "must name a host, as in redis://127.0.0.1:6379"));
    }
    Ok(Address::Tcp(host.to_owned(), port))
}

fn refuse(text: &str, reason: &str) -> crate::Error {
    invalid("backend", &without_credentials(text), reason)
}

/// User, password, and what stands behind them.
type Credentials<'a> = (Option<String>, Option<String>, &'a str);

fn credentials<'a>(text: &str, authority: &'a str) -> Result<Credentials<'a>> {
    let Some((info, place)) = authority.rsplit_once('@') else { return Ok((None, None, authority)) };
    let (user, password) =
        info.split_once(':').map_or((info, None), |(user, password)| (user, Some(password)));
    let decode = |part: &str| {
        decoded(part).ok_or_else(|| refuse(text, "user and password must be UTF-8, with %25 for a %"))
    };
    let user = Some(decode(user)?).filter(|user| !user.is_empty());
    let password = password.map(decode).transpose()?.filter(|password| !password.is_empty());
    Ok((user, password, place))
}

fn database(text: &str, number: &str) -> Result<u32> {
    let number = number.parse().ok().filter(|&db: &u32| db <= 1_000_000);
    number.ok_or_else(|| refuse(text, "the database must be a number, as in redis://127.0.0.1:6379/2"))
}

/// Replaces `%41` by `A`; `None` = malformed.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let hex = part.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(hex, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    fn tcp(host: &str, port: u16) -> Route {
        Route::Server(at(host, port))
    }

    fn parsed(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    fn refused(text: &str) -> String {
        Url::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn addresses_and_databases() {
        assert_eq!(parsed("redis://cache").route, tcp("cache", 6379));
        assert_eq!(parsed("redis://cache:1/").route, tcp("cache", 1));
        assert_eq!(parsed("redis://[::1]:7000/3").route, tcp("::1", 7000));
        assert_eq!(parsed("redis://[::1]").route, tcp("::1", 6379));
        assert_eq!(parsed("redis://[::1]:7000/3").db, 3);
        let unix = parsed("redis+unix:///run/a%2Cb.sock?db=2");
        assert_eq!((unix.route, unix.db), (Route::Server(Address::Unix("/run/a,b.sock".to_owned())), 2));
        let tls = parsed("rediss://cache:1/2");
        assert!(tls.tls && tls.route == tcp("cache", 1) && tls.shown() == "rediss://cache:1/2");
    }

    #[test]
    fn sentinels_and_a_service() {
        for text in ["redis+sentinel://u@a:1;b;[::1]:5/pages/3", "redis+sentinel://u@a:1,b,[::1]:5/pages/3"] {
            let url = parsed(text);
            let sentinels = vec![at("a", 1), at("b", 26379), at("::1", 5)];
            assert_eq!(url.route, Route::Sentinel(sentinels, "pages".to_owned()));
            assert_eq!((url.user.as_deref(), url.db, url.tls), (Some("u"), 3, false));
            assert_eq!(url.shown(), "redis+sentinel://a:1;b:26379;[::1]:5/pages/3");
        }
        assert_eq!(parsed("rediss+sentinel://a/pages").shown(), "rediss+sentinel://a:26379/pages");
    }

    #[test]
    fn nodes_of_a_cluster() {
        for text in ["redis+cluster://u@a:1;b;[::1]:5", "redis+cluster://u@a:1,b,[::1]:5/"] {
            let url = parsed(text);
            assert_eq!(url.route, Route::Cluster(vec![at("a", 1), at("b", 6379), at("::1", 5)]));
            assert_eq!((url.user.as_deref(), url.db, url.tls), (Some("u"), 0, false));
            assert_eq!(url.shown(), "redis+cluster://a:1;b:6379;[::1]:5");
        }
        assert_eq!(parsed("rediss+cluster://a").shown(), "rediss+cluster://a:6379");
    }

    #[test]
    fn credentials_are_read_and_never_shown() {
        let url = parsed("redis://alice:s%40cret@cache/1");
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("alice"), Some("s@cret")));
        assert_eq!(url.shown(), "redis://cache:6379/1");
        assert_eq!(format!("{url:?}"), "Url(\"redis://cache:6379/1\")");
        let url = parsed("redis+unix://:secret@/s");
        assert_eq!((url.user, url.password.as_deref()), (None, Some("secret")));
        for text in [
            "redis://a:secret@cache:0",
            "secret@cache",
            "rediss://a:secret@cache:x",
            "redis+sentinel://a:secret@cache/",
            "redis+cluster://a:secret@cache/1",
            "redis://a:%ff@secret@b:x",
        ] {
            assert!(!refused(text).contains("secret"), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (text, words) in [
            ("cache:6379", "must begin with redis://"),
            ("http://cache", "the scheme must be"),
            ("redisx://cache", "the scheme must be"),
            ("redis+cluster://a;b/1", "no database but 0"),
            ("redis+cluster://a;/", "must name a host"),
            ("redis+sentinel://a;b", "the sentinels and the service"),
            ("redis+sentinel://a;b/", "the sentinels and the service"),
            ("redis+sentinel://a;;b/s", "must name a host"),
            ("redis+sentinel://a/s/x", "the database must be"),
            ("rediss+unix:///s", "the scheme must be"),
            ("redis://a;b", "one server"),
            ("redis://", "must name a host"),
            ("redis://cache:70000", "the port must be"),
            ("redis://cache/pages", "the database must be"),
            ("redis+unix://run/s", "three slashes"),
            ("redis+unix:///s?x=1", "db=NUMBER"),
            ("redis+unix:///", "1 to 107 bytes"),
        ] {
            assert!(refused(text).contains(words), "{text}: {}", refused(text));
        }
    }
}

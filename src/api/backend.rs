//! The server that holds a cache's values for several machines, as a builder describes it.
#![forbid(unsafe_code)]

use std::{path::Path, time::Duration};

use super::Builder;
use crate::near::{OnDown, Options};

/// A Valkey or Redis server that holds a cache's values for all machines: see the page
/// [`backend`](crate::docs::backend).
///
/// Nothing is checked before [`Builder::build`], and nothing is connected before the first call.
///
/// ```no_run
/// use ucache::{Backend, Cache};
///
/// let backend = Backend::url("redis://cache.example:6379").user("web").secret_file("/run/secrets/cache");
/// let pages = Cache::builder("pages").items(1000).backend(backend).build()?;
/// pages.set("/index", "<h1>Hello</h1>")?; // at the server: pages:/index
/// # Ok::<(), ucache::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a description does nothing before it is given to a builder"]
pub struct Backend {
    options: Options,
}

impl Backend {
    /// The server: `redis://host:port/db`, `redis+unix:///path?db=N`, the sentinels that know it,
    /// `redis+sentinel://host:port;host:port/service/db`, or nodes of a cluster,
    /// `redis+cluster://host:port;host:port`. `rediss://`, `rediss+sentinel://` and
    /// `rediss+cluster://` are the same by TLS (feature `tls`).
    ///
    /// A user and a password may be part of it, but whoever can see it sees those, too: prefer
    /// [`secret_file`](Backend::secret_file) or [`secret_env`](Backend::secret_env).
    pub fn url(url: impl AsRef<str>) -> Self {
        Self { options: Options::default() }.with("backend", url.as_ref())
    }

    /// The name to log in with.
    pub fn user(self, name: impl AsRef<str>) -> Self {
        self.with("backend_user", name.as_ref())
    }

    /// The file that holds the password; a line end behind it is not part of it. It is read by
    /// [`Builder::build`].
    pub fn secret_file(self, path: impl AsRef<Path>) -> Self {
        self.with("backend_secret", &format!("file:{}", path.as_ref().display()))
    }

    /// The variable of the environment that holds the password. It is read by [`Builder::build`].
    pub fn secret_env(self, name: impl AsRef<str>) -> Self {
        self.with("backend_secret", &format!("env:{}", name.as_ref()))
    }

    /// The name to log in with at the sentinels.
    pub fn sentinel_user(self, name: impl AsRef<str>) -> Self {
        self.with("sentinel_user", name.as_ref())
    }

    /// The file that holds the password of the sentinels, as [`secret_file`](Backend::secret_file)
    /// is that of the server.
    pub fn sentinel_secret_file(self, path: impl AsRef<Path>) -> Self {
        self.with("sentinel_secret", &format!("file:{}", path.as_ref().display()))
    }

    /// The variable of the environment that holds the password of the sentinels.
    pub fn sentinel_secret_env(self, name: impl AsRef<str>) -> Self {
        self.with("sentinel_secret", &format!("env:{}", name.as_ref()))
    }

    /// The file (PEM) with the authorities one of which must have signed the server's certificate;
    /// those of the system unless given. Like the other files it is read by [`Builder::build`].
    #[doc(alias = "tls")]
    pub fn ca_file(self, path: impl AsRef<Path>) -> Self {
        self.with("ca", &path.as_ref().display().to_string())
    }

    /// The files (PEM) with the certificate that the server is shown, and its private key.
    #[doc(alias = "tls")]
    pub fn client_certificate(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.with("cert", &certificate.as_ref().display().to_string())
            .with("key", &key.as_ref().display().to_string())
    }

    /// The host name or IP address that the server's certificate must have; that of the URL, or that
    /// the sentinels name, unless given.
    #[doc(alias = "tls")]
    #[doc(alias = "sni")]
    pub fn tls_name(self, name: impl AsRef<str>) -> Self {
        self.with("tls_name", name.as_ref())
    }

    /// Checks no certificate: whoever answers in place of the server gets the password and the
    /// values. For tests; [`ca_file`](Backend::ca_file) is the way for a server with a certificate of
    /// its own making.
    #[doc(alias = "insecure")]
    pub fn accept_any_certificate(self) -> Self {
        self.with("insecure", "accept-any-certificate")
    }

    /// What stands before each key at the server; `NAME:` unless given, with the name of the cache.
    pub fn prefix(self, prefix: impl AsRef<str>) -> Self {
        self.with("prefix", prefix.as_ref())
    }

    /// The longest that a call waits for the server, 500 ms unless given; whole milliseconds.
    pub fn timeout(self, limit: Duration) -> Self {
        self.with("backend_timeout", &limit.as_millis().to_string())
    }

    /// The longest that a call waits for a connection, 200 ms unless given; whole milliseconds.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with("connect_timeout", &limit.as_millis().to_string())
    }

    /// Keeps numbers as decimal text, which other clients share with `INCRBY`; without it they have
    /// 8 bytes, as in a local cache. An overflow is an error then.
    #[doc(alias = "INCRBY")]
    pub fn decimal_numbers(self, on: bool) -> Self {
        self.with("numbers", if on { "decimal" } else { "binary" })
    }

    /// What reads answer while the server is down: an error unless given. Writes always fail.
    pub fn on_down(self, answer: OnDown) -> Self {
        match answer {
            OnDown::Miss => self.with("on_down", "miss"),
            OnDown::Error => self.with("on_down", "error"),
            OnDown::Stale(more) => self.with("on_down", &format!("stale:{}", more.as_secs())),
        }
    }

    /// Whether this machine keeps copies, which the server's messages keep up to date; otherwise
    /// every read asks the server. It does unless given.
    pub fn near(self, on: bool) -> Self {
        self.with("near", if on { "1" } else { "0" })
    }

    /// How far a read may be behind what the server would have said, at least 50 ms, 1 s unless
    /// given; whole milliseconds. A copy that is not known to be as new is not used.
    pub fn max_stale(self, limit: Duration) -> Self {
        self.with("max_stale", &limit.as_millis().to_string())
    }

    /// The longest life of a copy, whole seconds. As long as the value lives unless given.
    pub fn copy_ttl(self, limit: Duration) -> Self {
        self.with("l1_ttl", &limit.as_secs().to_string())
    }

    /// Whether this machine also remembers that a key is not there, until that changes. It does not
    /// unless given: keys that do not exist take the places of copies, whoever asks for them.
    #[doc(alias = "negative_cache")]
    pub fn negative(self, on: bool) -> Self {
        self.with("negative", if on { "1" } else { "0" })
    }

    /// Whether a clear takes one step, however many keys there are: the server's keys carry a number,
    /// which a clear raises; what has an older one is removed in the background. Not unless given:
    /// other clients do not know such keys. All users of the cache must say the same.
    pub fn clear_by_generation(self, on: bool) -> Self {
        self.with("clear", if on { "generation" } else { "unlink" })
    }

    /// Whether the server tells this machine of changes. It does unless given. Without that a copy
    /// may be as old as [`copy_ttl`](Backend::copy_ttl), which must be given then.
    pub fn tracking(self, on: bool) -> Self {
        self.with("tracking", if on { "bcast" } else { "off" })
    }

    pub(super) fn into_options(self) -> Options {
        self.options
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        let known = self.options.set(name, value);
        debug_assert!(known, "{name}");
        self
    }
}

impl Builder {
    /// Puts the values at a server, for several machines.
    ///
    /// ```no_run
    /// use ucache::{Backend, Cache};
    ///
    /// let shared = Cache::builder("shared").items(1000).backend(Backend::url("redis://10.0.0.1:6379")).build()?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "redis")]
    #[doc(alias = "valkey")]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }
}

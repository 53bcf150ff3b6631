//! The options of a cache with a backend: from text to checked settings. Secrets come from a file
//! or the environment.

use std::time::Duration;

use super::{
    login::Login,
    tls::Tls,
    url::{Route, Url},
};
use crate::{
    error::Result,
    near::options::{OnDown, Options, invalid},
};

/// How numbers (`incr` and the others) are kept at the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// As in a local cache: 8 bytes, little-endian, 64 bits that wrap around.
    #[default]
    Binary,
    /// As decimal text, shared with `INCRBY` of other clients. An overflow is an error.
    Decimal,
}

/// Checked options.
#[derive(Clone)]
pub struct Settings {
    pub(super) url: Url,
    /// The URL without user and password.
    pub(super) server: String,
    pub(super) login: Login,
    /// Of the sentinels.
    pub(super) sentinel_login: Login,
    /// `None` = plain connections.
    pub(super) tls: Option<Tls>,
    pub(super) prefix: Vec<u8>,
    pub(super) on_down: OnDown,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) numbers: Numbers,
    /// Copies in the region; `None` = every read asks the server.
    pub(super) copies: Option<Copies>,
    /// Keys have a number behind the prefix, and a clear raises it.
    pub(super) generations: bool,
    notes: Vec<String>,
}

/// How copies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies {
    /// How old a copy may be, milliseconds; `None` = as old as `ttl` lets it be: changes are not
    /// heard of (`tracking=off`).
    pub(super) max_stale: Option<u64>,
    /// The longest life of a copy, seconds.
    pub(super) ttl: Option<u64>,
    /// Whether it is kept, too, that a key is not there.
    pub(super) negative: bool,
}

impl Copies {
    /// The longest life of a copy, milliseconds.
    pub(super) fn longest_life(&self) -> Option<u64> {
        self.ttl.map(|secs| secs.saturating_mul(1000))
    }

    /// The same of what is known not to be there, where messages may not tell that it is stored.
    pub(super) fn longest_absence(&self) -> Option<u64> {
        self.max_stale.into_iter().chain(self.longest_life()).min()
    }
}

/// By hand: without the password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("server", &self.server)
            .field("prefix", &String::from_utf8_lossy(&self.prefix))
            .field("on_down", &self.on_down)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Checks options that have a backend, and reads the secret.
    pub(in crate::near) fn check(options: &Options, cache: &str, on_down: OnDown) -> Result<Self> {
        let url = Url::parse(options.get("backend").unwrap_or_default())?;
        let prefix = options.get("prefix").map_or_else(|| format!("{cache}:"), str::to_owned);
        let copies = copies(options)?;
        let generations = generations(options, &url, copies)?;
        let on_down = on_down_of(options.get("on_down"), on_down)?;
        check_stale(options, on_down, copies)?;
        let tls = tls(options, &url)?;
        let notes = notes(&url, &prefix, tls.as_ref());
        let in_url = Login { user: url.user.clone(), password: url.password.clone() };
        Ok(Self {
            login: Login::read(options, "backend_user", "backend_secret", in_url)?,
            sentinel_login: sentinel_login(options, &url)?,
            tls,
            server: url.shown(),
            url,
            prefix: prefix.into_bytes(),
            on_down,
            timeout: time("backend_timeout", options.get("backend_timeout"), 500)?,
            connect_timeout: time("connect_timeout", options.get("connect_timeout"), 200)?,
            numbers: numbers_of(options.get("numbers"))?,
            copies,
            generations,
            notes,
        })
    }

    /// What the user should know: texts for a log.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The address, without user and password.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }
}

/// How the cache is cleared.
fn generations(options: &Options, url: &Url, copies: Option<Copies>) -> Result<bool> {
    match (options.get("clear"), copies) {
        (None | Some("unlink"), _) => Ok(false),
        (Some("generation"), _) if matches!(url.route, Route::Cluster(_)) => Err(invalid(
            "clear",
            "generation",
            "needs one primary: in a cluster a write cannot look at the number",
        )),
        (Some("generation"), Some(Copies { max_stale: Some(_), .. })) => Ok(true),
        (Some("generation"), _) => Err(invalid(
            "clear",
            "generation",
            "needs near=1 and tracking=bcast: the server's messages tell of a clear",
        )),
        (Some(other), _) => Err(invalid("clear", other, "must be unlink or generation")),
    }
}

/// What the user should know.
fn notes(url: &Url, prefix: &str, tls: Option<&Tls>) -> Vec<String> {
    let mut notes = Vec::new();
    if url.password.is_some() {
        notes.push(
            "the password in option backend is seen by everybody who can list processes: use backend_secret=file:..."
                .to_owned(),
        );
    }
    if prefix.is_empty() {
        notes.push(
            "option prefix is empty: a clear of this cache removes every key of the server's database"
                .to_owned(),
        );
    }
    if tls.is_some_and(Tls::is_insecure) {
        notes.push(format!(
            "option insecure: whoever answers in place of {} gets the password and the values",
            url.shown()
        ));
    }
    notes
}

/// Old copies can be served only where there are copies whose age is known.
fn check_stale(options: &Options, on_down: OnDown, copies: Option<Copies>) -> Result<()> {
    let (OnDown::Stale(_), Some(text)) = (on_down, options.get("on_down")) else { return Ok(()) };
    match copies {
        Some(Copies { max_stale: Some(_), .. }) => Ok(()),
        Some(_) => Err(invalid(
            "on_down",
            text,
            "needs tracking=bcast: without it l1_ttl alone says how old a copy may be",
        )),
        None => Err(invalid(
            "on_down",
            text,
            "needs near=1: there are no copies while every read asks the server",
        )),
    }
}

/// TLS, if the URL asks for it.
fn tls(options: &Options, url: &Url) -> Result<Option<Tls>> {
    if url.tls {
        return Tls::check(options).map(Some);
    }
    match ["ca", "cert", "key", "tls_name", "insecure"]
        .into_iter()
        .find_map(|name| Some((name, options.get(name)?)))
    {
        None => Ok(None),
        Some((name, text)) => Err(invalid(name, text, "needs TLS, as in backend=rediss://...")),
    }
}

fn sentinel_login(options: &Options, url: &Url) -> Result<Login> {
    const NAMES: [&str; 2] = ["sentinel_user", "sentinel_secret"];
    let given = NAMES.into_iter().find(|name| options.get(name).is_some());
    match (given, &url.route) {
        (Some(name), Route::Server(_) | Route::Cluster(_)) => {
            Err(invalid(name, "", "needs sentinels, as in backend=redis+sentinel://..."))
        }
        _ => Login::read(options, NAMES[0], NAMES[1], Login::default()),
    }
}

fn on_down_of(text: Option<&str>, default: OnDown) -> Result<OnDown> {
    let Some(text) = text else { return Ok(default) };
    let refused =
        || invalid("on_down", text, "must be miss, error, or stale:SECONDS with 1 to 86400 seconds");
    match (text, text.strip_prefix("stale:")) {
        ("miss", _) => Ok(OnDown::Miss),
        ("error", _) => Ok(OnDown::Error),
        (_, Some(secs)) => {
            let secs = secs.trim_end_matches('s').parse().ok().filter(|secs| (1..=86_400).contains(secs));
            secs.map(|secs| OnDown::Stale(Duration::from_secs(secs))).ok_or_else(refused)
        }
        _ => Err(refused()),
    }
}

/// The options of the near cache.
fn copies(options: &Options) -> Result<Option<Copies>> {
    match options.get("near") {
        None | Some("1") => {}
        Some("0") => {
            let lost = ["tracking", "max_stale", "l1_ttl", "negative"]
                .into_iter()
                .find_map(|name| Some((name, options.get(name)?)));
            return match lost {
                None => Ok(None),
                Some((name, text)) => {
                    Err(invalid(name, text, "has no meaning with near=0: every read asks the server"))
                }
            };
        }
        Some(other) => {
            return Err(invalid(
                "near",
                other,
                "must be 1 (copies on this machine) or 0 (every read asks the server)",
            ));
        }
    }
    let negative = negative(options)?;
    let ttl = options.get("l1_ttl").map(|text| seconds("l1_ttl", text)).transpose()?;
    let max_stale = options.get("max_stale");
    match options.get("tracking") {
        None | Some("bcast") => {
            let limit = time("max_stale", max_stale, 1000)?;
            if limit < LEAST_STALE {
                return Err(invalid(
                    "max_stale",
                    max_stale.unwrap_or_default(),
                    "must be at least 50 milliseconds; near=0 if no copy is new enough",
                ));
            }
            Ok(Some(Copies { max_stale: Some(limit.as_millis() as u64), ttl, negative }))
        }
        Some("off") => match (max_stale, ttl) {
            (Some(text), _) => Err(invalid(
                "max_stale",
                text,
                "has no meaning with tracking=off: l1_ttl says how old a copy may be",
            )),
            (None, None) => Err(invalid(
                "tracking",
                "off",
                "needs l1_ttl, as in l1_ttl=5s: nothing else says how old a copy may be",
            )),
            (None, ttl) => Ok(Some(Copies { max_stale: None, ttl, negative })),
        },
        Some(other) => Err(invalid("tracking", other, "must be bcast or off")),
    }
}

fn negative(options: &Options) -> Result<bool> {
    match options.get("negative") {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => {
            Err(invalid("negative", other, "must be 1 (machines remember that a key is not there) or 0"))
        }
    }
}

/// Below this the clock's ticks and a round trip leave no time in which a copy is of use.
const LEAST_STALE: Duration = Duration::from_millis(50);

/// Whole seconds, with or without `s`.
fn seconds(option: &'static str, text: &str) -> Result<u64> {
    let digits = text.trim().trim_end_matches('s').trim_end();
    let secs = digits.parse().ok().filter(|secs| (1..=31_536_000).contains(secs));
    secs.ok_or_else(|| invalid(option, text, "must be 1 to 31536000 whole seconds, as in 5 or 5s"))
}

fn numbers_of(text: Option<&str>) -> Result<Numbers> {
    match text {
        None | Some("binary") => Ok(Numbers::Binary),
        Some("decimal") => Ok(Numbers::Decimal),
        Some(other) => Err(invalid("numbers", other, "must be binary or decimal")),
    }
}

/// Milliseconds, with or without `ms`, or seconds with `s`.
fn time(option: &'static str, text: Option<&str>, default: u64) -> Result<Duration> {
    let Some(text) = text else { return Ok(Duration::from_millis(default)) };
    let trimmed = text.trim();
    let (digits, factor) = match trimmed.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => trimmed.strip_suffix('s').map_or((trimmed, 1), |digits| (digits, 1000)),
    };
    let millis = digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    let millis = millis.filter(|millis| (1..=60_000).contains(millis));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| invalid(option, text, "must be 1 to 60000 milliseconds, as in 500, 500ms or 2s"))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

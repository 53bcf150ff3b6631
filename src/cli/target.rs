//! The target of a command: a store file, or a cache of a running server.

use std::{
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    failure::{Failure, NO, Outcome, REFUSED, UNREACHABLE, UNSUPPORTED, USAGE},
    record::{Item, Record},
    server::ServerCache,
};
use crate::{
    engine::{Config, Engine, Expires, Math, SetOptions, Stored, Touch},
    error::{Error, StoreFault},
    near::{OnDown, Options, Position, Tier},
};

/// A cache.
#[derive(Debug)]
pub(super) enum Target {
    /// A store file, or the values at a server of `--backend`.
    Store(Tier),
    Server(ServerCache),
}

impl Target {
    /// Opens the target named on the command line.
    pub(super) fn open(name: &OsStr, timeout: Duration, backend: Option<&str>) -> Outcome<Self> {
        if let Some(backend) = backend {
            return Ok(Self::Store(backed(name, timeout, backend)?));
        }
        match server(name) {
            Some((cache, address)) => Ok(Self::Server(ServerCache::new(cache, address, timeout)?)),
            None => {
                let tier = Tier::of_store(store(name)?).map_err(|error| unopened(Path::new(name), error))?;
                Ok(Self::Store(tier))
            }
        }
    }

    /// A copy of the value. Leaves no trace: neither a hit nor a miss nor a use.
    pub(super) fn get(&self, key: &[u8]) -> Outcome<Option<Item>> {
        match self {
            Self::Store(tier) => read(tier, key),
            Self::Server(server) => server.get(key),
        }
    }

    pub(super) fn exists(&self, key: &[u8]) -> Outcome<bool> {
        match self {
            Self::Store(engine) => Ok(engine.has(key)?),
            Self::Server(server) => server.exists(key),
        }
    }

    /// Stores unless the key exists; `false` = it does.
    pub(super) fn add(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Outcome<bool> {
        match self {
            Self::Store(engine) => {
                let options = SetOptions::add(expires(ttl));
                Ok(engine.set(key, value, &options)? != Stored::Kept)
            }
            // The protocol does not say why a value was refused.
            Self::Server(server) if server.exists(key)? => Ok(false),
            Self::Server(server) => accepted(server.store(false, key, value, ttl)?).map(|()| true),
        }
    }

    /// Stores. `keep_ttl`: an existing key keeps its expiry.
    pub(super) fn set(&self, key: &[u8], value: &[u8], ttl: Option<Duration>, keep_ttl: bool) -> Outcome {
        match self {
            Self::Store(engine) => {
                let options = SetOptions { keep_ttl, ..SetOptions::set(expires(ttl)) };
                engine.set(key, value, &options)?;
                Ok(())
            }
            Self::Server(_) if keep_ttl => Err(self.unsupported("set --keep-ttl")),
            Self::Server(server) => accepted(server.store(true, key, value, ttl)?),
        }
    }

    /// `false` = it was not stored.
    pub(super) fn del(&self, key: &[u8]) -> Outcome<bool> {
        match self {
            Self::Store(engine) => Ok(engine.delete(key)?),
            Self::Server(server) => server.del(key),
        }
    }

    /// Adds to a counter and returns the new number; over the protocol the number is read
    /// afterwards.
    pub(super) fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Outcome<i64> {
        match self {
            Self::Store(engine) => {
                let options = SetOptions::set(expires(ttl)).keep_ttl();
                Ok(engine.math(key, Math::Inc, by, &options)?)
            }
            Self::Server(server) => {
                server.incr(key, by, ttl)?;
                let item = server.get(key)?;
                let item = item
                    .ok_or_else(|| Failure::new(NO, "the counter was changed, but has been removed since"))?;
                self.number(&item.value)
            }
        }
    }

    pub(super) fn clear(&self) -> Outcome {
        match self {
            Self::Store(engine) => Ok(engine.clear()?),
            Self::Server(server) => server.clear(),
        }
    }

    /// Calls `each` for every item until it fails; with `values`, each record has its value.
    pub(super) fn each(&self, values: bool, mut each: impl FnMut(Record) -> Outcome) -> Outcome {
        let engine = match self {
            Self::Store(engine) => engine,
            Self::Server(server) => return server.each(each),
        };
        let mut cursor = Position::default();
        while let Some(item) = engine.try_walk(&mut cursor)? {
            let mut record = Record {
                key: item.key,
                len: item.value_len,
                value: None,
                expires: item.expires_millis,
                hidden: item.ungettable,
            };
            if values {
                // Skip items removed since the walk read them.
                let Some(now) = read(engine, &record.key)? else { continue };
                record = Record {
                    len: now.value.len() as u64,
                    expires: now.expires,
                    value: Some(now.value),
                    ..record
                };
            }
            each(record)?;
        }
        Ok(())
    }

    /// The number of items, if known in advance.
    pub(super) fn items(&self) -> Option<u64> {
        match self {
            Self::Store(tier) => tier.local().map(|engine| engine.stats().items),
            Self::Server(_) => None,
        }
    }

    /// The store, for commands that need a file.
    pub(super) fn engine(&self, what: &str) -> Outcome<&Arc<Engine>> {
        match self {
            Self::Store(tier) => tier.local().ok_or_else(|| no_store(what)),
            Self::Server(_) => Err(self.unsupported(what)),
        }
    }

    /// The store or the values at a server of `--backend`, for what the cache protocol has no command for.
    pub(super) fn tier(&self, what: &str) -> Outcome<&Tier> {
        match self {
            Self::Store(tier) => Ok(tier),
            Self::Server(_) => Err(self.unsupported(what)),
        }
    }

    /// A value as the number that counters keep.
    pub(super) fn number(&self, value: &[u8]) -> Outcome<i64> {
        let number = match self {
            Self::Store(tier) => tier.number_of(value),
            Self::Server(_) => value.try_into().ok().map(i64::from_ne_bytes),
        };
        Ok(number.ok_or(Error::NotANumber { len: value.len() as u64 })?)
    }

    pub(super) fn unsupported(&self, what: &str) -> Failure {
        Failure::new(UNSUPPORTED, format!("{what}: the cache protocol has no such command"))
            .hint("give the cache a `store=` and name that file; the server may go on using it")
    }
}

/// What a cache has whose values are at a server.
fn no_store(what: &str) -> Failure {
    Failure::new(UNSUPPORTED, format!("{what}: a cache with a backend has no store"))
}

/// The cache with this name whose values are at a server: `URL[,option=value...]`, as in a cache's definition.
pub(super) fn backed(name: &OsStr, timeout: Duration, backend: &str) -> Outcome<Tier> {
    let usage =
        |text: String| Failure::new(USAGE, text).hint("as in --backend redis://127.0.0.1:6379,prefix=pages:");
    let mut options = Options::default();
    let millis = timeout.as_millis().clamp(1, 60_000).to_string();
    options.set("backend_timeout", &millis);
    options.set("connect_timeout", &millis);
    // One call asks for each key once.
    options.set("near", "0");
    for (n, part) in backend.split(',').enumerate() {
        let (option, value) =
            if n == 0 { ("backend", part) } else { part.split_once('=').unwrap_or((part, "")) };
        if !options.set(option, value) {
            return Err(usage(format!("--backend has no option {option:?}")));
        }
    }
    let name = name.to_str().ok_or_else(|| usage("the name of a cache with a backend is text".to_owned()))?;
    // The region is of this process alone, and holds no values.
    let engine = Engine::create(&Config::new(name, 16)).map_err(|error| usage(error.to_string()))?;
    Tier::open(engine, &options, OnDown::Error).map_err(|error| usage(error.to_string()))
}

fn accepted(ok: bool) -> Outcome {
    if ok {
        return Ok(());
    }
    Err(Failure::new(REFUSED, "the server refused the value").hint(
        "its log says why: the value or the key is too long, the cache is full, or there is no such cache",
    ))
}

pub(super) fn expires(ttl: Option<Duration>) -> Expires {
    ttl.map_or(Expires::Never, Expires::from)
}

fn read(tier: &Tier, key: &[u8]) -> Outcome<Option<Item>> {
    let mut value = Vec::new();
    let found = tier.get(key, Touch::Unseen, &mut value)?;
    Ok(found.map(|meta| Item { value, expires: meta.expires_millis }))
}

/// Whether a command line names a server's cache.
pub(super) fn is_server(name: &OsStr) -> bool {
    server(name).is_some()
}

/// NAME@ADDRESS, unless there is a file of that name.
fn server(name: &OsStr) -> Option<(&str, &str)> {
    if Path::new(name).exists() {
        return None;
    }
    // A path before the @ is a path, and not the name of a cache.
    name.to_str()?.split_once('@').filter(|(cache, _)| !cache.contains('/'))
}

/// The region of a store, for its statistics.
pub(super) fn look(
    name: &OsStr,
    timeout: Duration,
    backend: Option<&str>,
    what: &str,
) -> Outcome<Arc<Engine>> {
    if backend.is_none() && !is_server(name) {
        return store(name);
    }
    Target::open(name, timeout, backend)?.engine(what).map(Arc::clone)
}

/// Opens a store beside its other users; the first user repairs it after a death.
pub(super) fn store(name: &OsStr) -> Outcome<Arc<Engine>> {
    let path = Path::new(name);
    Engine::attach_on(path, any_filesystem()).map_err(|error| unopened(path, error))
}

/// Whether stores may be on any file system: set once, by the command line.
static ANY_FILESYSTEM: AtomicBool = AtomicBool::new(false);

pub(super) fn trust_filesystems(on: bool) {
    ANY_FILESYSTEM.store(on, Relaxed);
}

pub(super) fn any_filesystem() -> bool {
    ANY_FILESYSTEM.load(Relaxed)
}

/// Why a store cannot be opened, with a hint.
pub(super) fn unopened(path: &Path, error: Error) -> Failure {
    let name = path.display();
    match error {
        Error::Os { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Failure::new(UNREACHABLE, format!("{name}: no such file"))
                .hint("name the file that `store=` of the cache names, or a server's cache as NAME@HOST:PORT")
        }
        Error::Os { source, .. } if source.kind() == io::ErrorKind::IsADirectory => {
            Failure::new(UNREACHABLE, format!("{name}: is a directory"))
                .hint("name the file that `store=` of the cache names")
        }
        Error::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            let owner = std::fs::metadata(path).map(|m| format!(" (its owner has the user id {})", m.uid()));
            Failure::new(UNREACHABLE, format!("{name}: permission denied{}", owner.unwrap_or_default())).hint(
                "run this as the user that the server runs as; reading a store needs write permission, too",
            )
        }
        Error::Store { fault, .. } => {
            let hint = hint_for(&fault);
            Failure::new(UNREACHABLE, format!("{name}: {fault}; it was left untouched")).hint(hint)
        }
        other => Failure::new(UNREACHABLE, format!("{name}: {other}")),
    }
}

/// A hint for a store that cannot be used.
fn hint_for(fault: &StoreFault) -> &'static str {
    use StoreFault as F;
    match fault {
        F::Format { .. } | F::Layout { .. } | F::ByteOrder => {
            "use the `ucache` of the same build as the server, or let the server create a new store: store_delete=1"
        }
        F::FileSystem { .. } => {
            "keep it on a local file system, or use `--store-fs trust` if no other machine uses it"
        }
        F::Opening { .. } | F::Locked => "is a process stopped while it opens the store?",
        F::Truncated { .. } | F::Damaged { .. } | F::Unfinished => {
            "restore the file, or let the server create a new store: store_delete=1"
        }
        F::PidNamespace | F::TimeNamespace => "run this where the users of the store run",
        F::HardLinks => "remove the other names, or copy the file",
        F::Os { .. } => "check the permissions of the file and its directory",
        _ => "name the file that `store=` of the cache names",
    }
}

/// A key of the command line.
pub(super) fn key(text: &OsStr, escaped: bool) -> Outcome<Vec<u8>> {
    if !escaped {
        return Ok(text.as_bytes().to_vec());
    }
    super::text::unescape(text.as_bytes()).ok_or_else(|| {
        Failure::new(
            super::failure::USAGE,
            format!("{:?} is not a valid escaped key", text.to_string_lossy()),
        )
        .hint("with --escaped a backslash is followed by \\, n, r, t, or x and two hexadecimal digits")
    })
}

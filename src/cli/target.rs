//! What a command works on: a store file, or a cache of a running server.

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
    client::Client,
    failure::{Failure, NO, Outcome, REFUSED, UNREACHABLE, UNSUPPORTED},
};
use crate::{
    engine::{Cursor, Engine, Expires, Math, Mode, SetOptions, Stored, Touch},
    error::Error,
};

/// A value and its expiry (Unix time, seconds; 0 = never).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) expires: u64,
}

/// An item of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    /// Bytes of the value.
    pub(super) len: u64,
    /// The value, where it was asked for or came along.
    pub(super) value: Option<Vec<u8>>,
    /// Unix time, seconds; 0 = never.
    pub(super) expires: u64,
    /// Reads miss it (uWSGI's UNGETTABLE).
    pub(super) hidden: bool,
}

/// A cache.
#[derive(Debug)]
pub(super) enum Target {
    Store(Arc<Engine>),
    Server(Client),
}

impl Target {
    /// Opens what a command line names.
    pub(super) fn open(name: &OsStr, timeout: Duration) -> Outcome<Self> {
        match server(name) {
            Some((cache, address)) => Ok(Self::Server(Client::new(cache, address, timeout)?)),
            None => Ok(Self::Store(store(name)?)),
        }
    }

    /// A copy of the value. Leaves no trace: neither a hit nor a miss nor a use.
    pub(super) fn get(&self, key: &[u8]) -> Outcome<Option<Item>> {
        match self {
            Self::Store(engine) => read(engine, key),
            Self::Server(client) => client.get(key),
        }
    }

    pub(super) fn exists(&self, key: &[u8]) -> Outcome<bool> {
        match self {
            Self::Store(engine) => Ok(engine.exists(key).is_some()),
            Self::Server(client) => client.exists(key),
        }
    }

    /// Stores unless the key exists; `false` = it does.
    pub(super) fn set(&self, key: &[u8], value: &[u8], ttl: Option<u64>) -> Outcome<bool> {
        match self {
            Self::Store(engine) => {
                let options =
                    SetOptions { mode: Mode::Add, expires: expires(ttl), keep_ttl: false, ungettable: false };
                Ok(engine.set(key, value, &options)? != Stored::Kept)
            }
            // The protocol does not say why a value was refused.
            Self::Server(client) if client.exists(key)? => Ok(false),
            Self::Server(client) => accepted(client.store(false, key, value, ttl)?).map(|()| true),
        }
    }

    /// Stores. `keep_ttl`: an existing key keeps its expiry.
    pub(super) fn update(&self, key: &[u8], value: &[u8], ttl: Option<u64>, keep_ttl: bool) -> Outcome {
        match self {
            Self::Store(engine) => {
                let options =
                    SetOptions { mode: Mode::Update, expires: expires(ttl), keep_ttl, ungettable: false };
                engine.set(key, value, &options)?;
                Ok(())
            }
            Self::Server(_) if keep_ttl => Err(self.unsupported("update --keep-ttl")),
            Self::Server(client) => accepted(client.store(true, key, value, ttl)?),
        }
    }

    /// `false` = it was not there.
    pub(super) fn del(&self, key: &[u8]) -> Outcome<bool> {
        match self {
            Self::Store(engine) => Ok(engine.delete(key)?),
            Self::Server(client) => client.del(key),
        }
    }

    /// Adds to a counter and returns the new number; over the protocol the number is read afterwards.
    pub(super) fn incr(&self, key: &[u8], by: i64, ttl: Option<u64>) -> Outcome<i64> {
        match self {
            Self::Store(engine) => {
                let options = SetOptions {
                    mode: Mode::Update,
                    expires: expires(ttl),
                    keep_ttl: true,
                    ungettable: false,
                };
                Ok(engine.math(key, Math::Inc, by, &options)?)
            }
            Self::Server(client) => {
                client.incr(key, by, ttl)?;
                let item = client.get(key)?;
                let item =
                    item.ok_or_else(|| Failure::new(NO, "the counter was changed, and is gone again"))?;
                number(&item.value)
            }
        }
    }

    pub(super) fn clear(&self) -> Outcome {
        match self {
            Self::Store(engine) => Ok(engine.clear()?),
            Self::Server(client) => client.clear(),
        }
    }

    /// Calls `each` for every item until it fails; with `values`, each record has its value.
    pub(super) fn each(&self, values: bool, mut each: impl FnMut(Record) -> Outcome) -> Outcome {
        let engine = match self {
            Self::Store(engine) => engine,
            Self::Server(client) => return client.each(each),
        };
        let mut cursor = Cursor::default();
        while let Some(item) = engine.walk(&mut cursor) {
            let mut record = Record {
                key: item.key,
                len: item.value_len,
                value: None,
                expires: item.expires,
                hidden: item.ungettable,
            };
            if values {
                // Gone, or changed, since the walk came by.
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

    /// How many items there are, where that is known beforehand.
    pub(super) fn items(&self) -> Option<u64> {
        match self {
            Self::Store(engine) => Some(engine.stats().items),
            Self::Server(_) => None,
        }
    }

    /// The store, for what only a file can do.
    pub(super) fn engine(&self, what: &str) -> Outcome<&Arc<Engine>> {
        match self {
            Self::Store(engine) => Ok(engine),
            Self::Server(_) => Err(self.unsupported(what)),
        }
    }

    fn unsupported(&self, what: &str) -> Failure {
        Failure::new(UNSUPPORTED, format!("{what}: the cache protocol has nothing for it"))
            .hint("give the cache a `store=` and name that file; the server may go on using it")
    }
}

/// A value as the number that counters keep.
pub(super) fn number(value: &[u8]) -> Outcome<i64> {
    let bytes = <[u8; 8]>::try_from(value);
    Ok(i64::from_ne_bytes(bytes.map_err(|_| Error::NotANumber { len: value.len() as u64 })?))
}

fn accepted(ok: bool) -> Outcome {
    if ok {
        return Ok(());
    }
    Err(Failure::new(REFUSED, "the server refused the value").hint(
        "its log says why: the value or the key is too long, the cache is full, or there is no such cache",
    ))
}

fn expires(ttl: Option<u64>) -> Expires {
    ttl.map_or(Expires::Never, Expires::In)
}

fn read(engine: &Engine, key: &[u8]) -> Outcome<Option<Item>> {
    let mut value = Vec::new();
    let found = engine.get(key, Touch::Unseen, &mut value)?;
    Ok(found.map(|meta| Item { value, expires: meta.expires }))
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

/// Joins whoever uses the file; the first one rebuilds what a death left behind.
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

/// Why a store cannot be opened, and what to do.
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
        Error::Store { reason, .. } => {
            let hint = match reason.as_str() {
                r if r.contains("format") || r.contains("layout") => {
                    "use the `ucache` of the same build as the server, or let the server start afresh: store_delete=1"
                }
                r if r.contains("store_fs=trust") => {
                    "keep it on a local file system, or say `--store-fs trust` where no other machine uses it"
                }
                r if r.contains("opening") || r.contains("lock") => {
                    "is a process stopped while it opens the store?"
                }
                r if r.contains("cut off") || r.contains("damaged") || r.contains("finished") => {
                    "restore the file, or let the server start afresh: store_delete=1"
                }
                _ => "name the file that `store=` of the cache names",
            };
            Failure::new(UNREACHABLE, format!("{name}: {reason}; it was left untouched")).hint(hint)
        }
        other => Failure::new(UNREACHABLE, format!("{name}: {other}")),
    }
}

/// A key of the command line.
pub(super) fn key(text: &OsStr, escaped: bool) -> Outcome<Vec<u8>> {
    if !escaped {
        return Ok(text.as_bytes().to_vec());
    }
    super::text::unescape(text.as_bytes()).ok_or_else(|| {
        Failure::new(super::failure::USAGE, format!("{:?} is no escaped key", text.to_string_lossy()))
            .hint("with --escaped a backslash is followed by \\, n, r, t, or x and two hexadecimal digits")
    })
}

//! Parses cache definitions (`cache2 = name=...,items=...`) into validated settings.

use std::{ffi::CString, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::{
    capi::host::{
        hash::Algorithm,
        kvlist,
        units::{self, Counts, Number},
    },
    engine::{
        Blocks, Config, Eviction, HugePages, NativeShape, Store,
        config::{MAX_ITEMS, MAX_KEY, MAX_LOCK_TIMEOUT, MAX_VALUE},
    },
    error::{Error, Result},
    near,
    wire::shown::shown,
};

/// Default block size (bytes) and default hash table size (entries).
const DEFAULT_SIZE: u64 = 65_536;
const DEFAULT_HASHSIZE: u32 = 65_536;
const DEFAULT_KEYSIZE: u64 = 2048;

/// Defaults for settings missing in a definition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    /// Seconds between two syncs of a store.
    pub(crate) store_sync: u64,
    /// Whether no cache enforces expiry.
    pub(crate) no_expire: bool,
}

/// A validated definition.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The engine's configuration.
    pub(crate) config: Config,
    /// The name, as written.
    pub(crate) name: CString,
    /// `items` as written: one more than the capacity.
    pub(crate) items: u64,
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Size of a block, bytes.
    pub(crate) blocksize: u64,
    /// `hash`
    pub(crate) hash: Algorithm,
    /// `hashsize`
    pub(crate) hashsize: u32,
    /// Whether full caches are not logged.
    pub(crate) ignore_full: bool,
    /// `lazy_expire`
    pub(crate) lazy_expire: bool,
    /// Seconds between two syncs of the store, 0 = none configured.
    pub(crate) store_sync: u64,
    /// UDP peers that receive changes.
    pub(crate) nodes: Vec<CString>,
    /// Servers to copy from at start.
    pub(crate) sync_nodes: Vec<CString>,
    /// UDP addresses to listen on.
    pub(crate) udp_servers: Vec<CString>,
    /// `udp_clear`: clears are accepted from anyone, not only from `nodes`.
    pub(crate) udp_clear: bool,
    /// Where the values are, if not in the region.
    pub(crate) backend: near::Options,
    /// Log lines: options ignored or interpreted differently from uWSGI.
    pub(crate) notes: Vec<String>,
    /// How many of the notes, from the first on, are about ignored options.
    pub(crate) ignored: usize,
}

/// The definition as text: one field per option.
#[derive(Debug, Default)]
struct Text {
    name: Option<Vec<u8>>,
    items: Option<Vec<u8>>,
    blocksize: Option<Vec<u8>>,
    blocks: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
    hashsize: Option<Vec<u8>>,
    keysize: Option<Vec<u8>>,
    store: Option<Vec<u8>>,
    store_sync: Option<Vec<u8>>,
    store_delete: Option<Vec<u8>>,
    nodes: Option<Vec<u8>>,
    sync: Option<Vec<u8>>,
    udp_servers: Option<Vec<u8>>,
    udp_clear: Option<Vec<u8>>,
    bitmap: Option<Vec<u8>>,
    lastmod: Option<Vec<u8>>,
    math_initial: Option<Vec<u8>>,
    ignore_full: Option<Vec<u8>>,
    purge_lru: Option<Vec<u8>>,
    evict: Option<Vec<u8>>,
    lazy_expire: Option<Vec<u8>>,
    sweep_on_full: Option<Vec<u8>>,
    clear_on_full: Option<Vec<u8>>,
    no_expire: Option<Vec<u8>>,
    lock_timeout: Option<Vec<u8>>,
    store_guard: Option<Vec<u8>>,
    store_fs: Option<Vec<u8>>,
    hugepages: Option<Vec<u8>>,
    backend: near::Options,
}

impl Text {
    fn parse(text: &[u8], notes: &mut Vec<String>) -> Self {
        let mut found = Self::default();
        for (key, value) in kvlist::parse(text) {
            let name = shown(&key);
            if let Some(value) = &value
                && found.backend.set(&name, &String::from_utf8_lossy(value))
            {
                continue;
            }
            match (found.slot(&key), value) {
                (Some(slot), Some(value)) => *slot = Some(value),
                (Some(_), None) => notes.push(format!("option {name} has no value and is ignored")),
                (None, _) => notes.push(format!("unknown option {name} is ignored{}", found.hint(&name))),
            }
        }
        found
    }

    /// The field for an option's value, by any of its names.
    fn slot(&mut self, key: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        Some(match key {
            b"name" => &mut self.name,
            b"max_items" | b"maxitems" | b"items" => &mut self.items,
            b"blocksize" => &mut self.blocksize,
            b"blocks" => &mut self.blocks,
            b"hash" => &mut self.hash,
            b"hashsize" | b"hash_size" => &mut self.hashsize,
            b"keysize" | b"key_size" => &mut self.keysize,
            b"store" => &mut self.store,
            b"store_sync" | b"storesync" => &mut self.store_sync,
            b"store_delete" | b"storedelete" => &mut self.store_delete,
            b"node" | b"nodes" => &mut self.nodes,
            b"sync" => &mut self.sync,
            b"udp" | b"udp_servers" | b"udp_server" | b"udpservers" | b"udpserver" => &mut self.udp_servers,
            b"udp_clear" => &mut self.udp_clear,
            b"bitmap" => &mut self.bitmap,
            b"lastmod" => &mut self.lastmod,
            b"math_initial" => &mut self.math_initial,
            b"ignore_full" => &mut self.ignore_full,
            b"purge_lru" | b"lru" => &mut self.purge_lru,
            b"evict" => &mut self.evict,
            b"lazy_expire" | b"lazy" => &mut self.lazy_expire,
            b"sweep_on_full" => &mut self.sweep_on_full,
            b"clear_on_full" => &mut self.clear_on_full,
            b"no_expire" => &mut self.no_expire,
            b"lock_timeout" => &mut self.lock_timeout,
            b"store_guard" => &mut self.store_guard,
            b"store_fs" => &mut self.store_fs,
            b"hugepages" => &mut self.hugepages,
            _ => return None,
        })
    }

    /// Suggests the option that was probably meant, for `max-items` or `purgelru`.
    fn hint(&mut self, key: &str) -> String {
        const SPELLED: [&str; 8] = [
            "max_items",
            "purge_lru",
            "lazy_expire",
            "clear_on_full",
            "sweep_on_full",
            "ignore_full",
            "no_expire",
            "math_initial",
        ];
        let plain = |s: &str| s.replace(['-', '_', ' '], "").to_ascii_lowercase();
        let meant = SPELLED.iter().copied().find(|known| plain(known) == plain(key));
        let trimmed = key.trim();
        let meant = meant.or_else(|| self.slot(trimmed.as_bytes()).is_some().then_some(trimmed));
        meant.map_or_else(String::new, |meant| format!(" (meant {meant}?)"))
    }
}

/// Reads a definition.
///
/// # Errors
/// [`Error::InvalidOption`] names the option, the value and the bound.
pub(crate) fn parse(text: &[u8], defaults: Defaults) -> Result<Settings> {
    let mut notes = Vec::new();
    let t = Text::parse(text, &mut notes);
    let ignored = notes.len();
    let name = t.name.as_deref().ok_or_else(|| missing("name", &notes))?;
    let items_text = t.items.as_deref().ok_or_else(|| missing("items", &notes))?;
    let items = number("items", items_text, Counts::Things, 1..=MAX_ITEMS + 1, &mut notes)?;
    let mut bytes = |option, text: &Option<Vec<u8>>, most, default| {
        number_or(option, text.as_deref(), Counts::Bytes, 1..=most, default, &mut notes)
    };
    let blocksize = bytes("blocksize", &t.blocksize, MAX_VALUE, DEFAULT_SIZE)?;
    let key_size = bytes("keysize", &t.keysize, MAX_KEY, DEFAULT_KEYSIZE)?;
    let blocks = blocks(t.blocks.as_deref(), items, &mut notes)?;
    let lazy_expire = flag("lazy_expire", t.lazy_expire.as_deref(), &mut notes);
    let no_expire = flag("no_expire", t.no_expire.as_deref(), &mut notes) || defaults.no_expire;
    let bitmap = flag("bitmap", t.bitmap.as_deref(), &mut notes);
    let huge_pages = huge_pages(t.hugepages.as_deref())?;
    if huge_pages != HugePages::Off && t.store.is_some() {
        notes.push("option hugepages has no effect on a store: its file system decides".to_owned());
    }
    if t.backend.is_given() {
        refuse_with_backend(&t)?;
    }
    let mut config = Config {
        // uWSGI never uses slot 0: `items` holds one less, except for one item.
        capacity: (items - 1).max(1),
        max_key: key_size,
        max_value: if bitmap { blocksize.saturating_mul(blocks).min(MAX_VALUE) } else { blocksize },
        blocks: bitmap.then_some(Blocks { size: blocksize, count: blocks }),
        eviction: eviction(t.evict.as_deref(), flag("purge_lru", t.purge_lru.as_deref(), &mut notes))?,
        sweep_on_full: sweep_on_full(t.sweep_on_full.as_deref(), &mut notes)?,
        clear_on_full: flag("clear_on_full", t.clear_on_full.as_deref(), &mut notes),
        // With uWSGI's lazy_expire, reads enforce expiry whatever no_expire says.
        no_expire: no_expire && !lazy_expire,
        math_initial: signed("math_initial", t.math_initial.as_deref())?,
        last_modified: flag("lastmod", t.lastmod.as_deref(), &mut notes),
        lock_timeout: lock_timeout(t.lock_timeout.as_deref(), &mut notes)?,
        store: store(t.store, flag("store_delete", t.store_delete.as_deref(), &mut notes)),
        native: Some(NativeShape { items, key_size, blocks, block_size: blocksize, bitmap }),
        store_guard: flag("store_guard", t.store_guard.as_deref(), &mut notes),
        store_fs_trust: store_fs(t.store_fs.as_deref())?,
        huge_pages,
        ..Config::new(&String::from_utf8_lossy(name), 1)
    };
    t.backend.adapt(&mut config, t.evict.is_some())?;
    config.check()?;
    Ok(Settings {
        config,
        backend: t.backend,
        name: c_string("name", name)?,
        items,
        blocks,
        blocksize,
        hash: hash(t.hash.as_deref())?,
        hashsize: hashsize(t.hashsize.as_deref(), &mut notes)?,
        ignore_full: flag("ignore_full", t.ignore_full.as_deref(), &mut notes),
        lazy_expire,
        store_sync: store_sync(t.store_sync.as_deref(), defaults.store_sync, &mut notes)?,
        nodes: list("nodes", t.nodes.as_deref())?,
        sync_nodes: list("sync", t.sync.as_deref())?,
        udp_servers: list("udp_servers", t.udp_servers.as_deref())?,
        udp_clear: flag("udp_clear", t.udp_clear.as_deref(), &mut notes),
        notes,
        ignored,
    })
}

fn invalid(option: &'static str, value: &[u8], reason: String) -> Error {
    Error::InvalidOption { option, value: shown(value), reason }
}

/// Refuses what a cache whose values are at a server cannot have.
fn refuse_with_backend(t: &Text) -> Result<()> {
    let elsewhere = "has no meaning with a backend: the values are at its server, for all machines";
    let with = [("nodes", &t.nodes), ("sync", &t.sync), ("udp", &t.udp_servers)];
    match with.into_iter().find_map(|(option, text)| Some((option, text.as_deref()?))) {
        Some((option, text)) => Err(invalid(option, text, elsewhere.to_owned())),
        None => Ok(()),
    }
}

/// A definition as it may be logged: without passwords.
pub(crate) fn shown_definition(text: &[u8]) -> String {
    let pairs = kvlist::parse(text);
    if !pairs.iter().any(|(key, _)| key.starts_with(b"backend")) {
        return shown(text);
    }
    let part = |(key, value): (Vec<u8>, Option<Vec<u8>>)| {
        let (key, value) = (shown(&key), value.map(|value| shown(&value)));
        match (&key[..], value) {
            ("backend_secret", Some(_)) => "backend_secret=...".to_owned(),
            ("backend", Some(url)) => format!("backend={}", near::without_credentials(&url)),
            (_, Some(value)) => format!("{key}={value}"),
            (_, None) => key,
        }
    };
    pairs.into_iter().map(part).collect::<Vec<_>>().join(",")
}

/// The missing option may be among those ignored, misspelled.
fn missing(option: &'static str, notes: &[String]) -> Error {
    let ignored = notes.first().map_or_else(String::new, |note| format!("; {note}"));
    invalid(option, b"", format!("must be given{ignored}"))
}

/// Parses a number with [`units`]. A unit is noted, since uWSGI reads only the digits.
fn number(
    option: &'static str,
    text: &[u8],
    of: Counts,
    bounds: RangeInclusive<u64>,
    notes: &mut Vec<String>,
) -> Result<u64> {
    let (value, digits, why) = match units::read(text, of) {
        Number::Plain(value) => (Some(value), None, None),
        Number::WithUnit(value, digits) => (Some(value), Some(digits), None),
        Number::None(why) => (None, None, why),
    };
    let (min, max) = bounds.clone().into_inner();
    let value = value.filter(|value| bounds.contains(value)).ok_or_else(|| {
        let why = why.unwrap_or_default();
        invalid(option, text, format!("must be a number from {min} to {max}{why}"))
    })?;
    if let Some(digits) = digits {
        let text = text.escape_ascii();
        notes.push(format!("option {option}={text} is {value} (uWSGI's own cache reads it as {digits})"));
    }
    Ok(value)
}

fn number_or(
    option: &'static str,
    text: Option<&[u8]>,
    of: Counts,
    bounds: RangeInclusive<u64>,
    default: u64,
    notes: &mut Vec<String>,
) -> Result<u64> {
    text.map_or(Ok(default), |text| number(option, text, of, bounds, notes))
}

/// [`number_or`] for 32-bit numbers.
fn short_or(
    option: &'static str,
    text: Option<&[u8]>,
    of: Counts,
    bounds: RangeInclusive<u32>,
    default: u32,
    notes: &mut Vec<String>,
) -> Result<u32> {
    let bounds = (*bounds.start()).into()..=(*bounds.end()).into();
    let value = number_or(option, text, of, bounds, default.into(), notes)?;
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

fn sweep_on_full(text: Option<&[u8]>, notes: &mut Vec<String>) -> Result<u32> {
    short_or("sweep_on_full", text, Counts::Seconds, 0..=u32::MAX, 0, notes)
}

fn store_sync(text: Option<&[u8]>, default: u64, notes: &mut Vec<String>) -> Result<u64> {
    number_or("store_sync", text, Counts::Seconds, 0..=u64::MAX, default, notes)
}

fn signed(option: &'static str, text: Option<&[u8]>) -> Result<i64> {
    let Some(text) = text else { return Ok(0) };
    let value = std::str::from_utf8(text.trim_ascii()).ok().and_then(|s| s.parse().ok());
    value.ok_or_else(|| invalid(option, text, format!("must be a number from {} to {}", i64::MIN, i64::MAX)))
}

/// uWSGI treats any value as on; here the usual words for off are recognised, with a note.
fn flag(option: &'static str, text: Option<&[u8]>, notes: &mut Vec<String>) -> bool {
    let Some(text) = text else { return false };
    let off =
        [&b"0"[..], b"no", b"off", b"false"].iter().any(|off| text.trim_ascii().eq_ignore_ascii_case(off));
    if off {
        let text = shown(text);
        notes.push(format!("option {option}={text} is off (uWSGI's own cache takes any value as on)"));
    }
    !off
}

fn blocks(text: Option<&[u8]>, items: u64, notes: &mut Vec<String>) -> Result<u64> {
    let value = number_or("blocks", text, Counts::Things, 1..=u64::MAX, items, notes)?;
    if value < items {
        let value = value.to_string();
        return Err(invalid(
            "blocks",
            value.as_bytes(),
            format!("must be at least the number of items, {items}"),
        ));
    }
    Ok(value)
}

fn hash(text: Option<&[u8]>) -> Result<Algorithm> {
    let Some(text) = text else { return Ok(Algorithm::default()) };
    Algorithm::by_name(text)
        .ok_or_else(|| invalid("hash", text, "must be djb33x, murmur2, random, rand or rr".to_owned()))
}

fn hashsize(text: Option<&[u8]>, notes: &mut Vec<String>) -> Result<u32> {
    short_or("hashsize", text, Counts::Things, 1..=u32::MAX, DEFAULT_HASHSIZE, notes)
}

/// `evict`, which overrides `purge_lru`.
fn eviction(text: Option<&[u8]>, purge_lru: bool) -> Result<Eviction> {
    match text {
        None if purge_lru => Ok(Eviction::Lru),
        None => Ok(Eviction::None),
        Some(text) => {
            Eviction::ALL.into_iter().find(|policy| policy.to_string().as_bytes() == text).ok_or_else(|| {
                let names = Eviction::ALL.map(|policy| policy.to_string()).join(", ");
                Error::InvalidOption {
                    option: "evict",
                    value: shown(text),
                    reason: format!("must be one of {names}"),
                }
            })
        }
    }
}

fn huge_pages(text: Option<&[u8]>) -> Result<HugePages> {
    match text.map(|text| text.trim_ascii().to_ascii_lowercase()).as_deref() {
        None | Some(b"0" | b"no" | b"off" | b"false") => Ok(HugePages::Off),
        Some(b"1" | b"yes" | b"on" | b"true") => Ok(HugePages::Advised),
        Some(b"reserved") => Ok(HugePages::Reserved),
        Some(other) => Err(invalid("hugepages", other, "must be 1, reserved or 0".to_owned())),
    }
}

fn store_fs(text: Option<&[u8]>) -> Result<bool> {
    match text.map(<[u8]>::trim_ascii) {
        None => Ok(false),
        Some(b"trust") => Ok(true),
        Some(other) => Err(invalid("store_fs", other, "must be trust".to_owned())),
    }
}

fn lock_timeout(text: Option<&[u8]>, notes: &mut Vec<String>) -> Result<Duration> {
    let longest = u64::try_from(MAX_LOCK_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    number_or("lock_timeout", text, Counts::Millis, 1..=longest, 1000, notes).map(Duration::from_millis)
}

fn store(path: Option<Vec<u8>>, delete_unusable: bool) -> Option<Store> {
    use std::os::unix::ffi::OsStringExt;
    let path = PathBuf::from(std::ffi::OsString::from_vec(path?));
    Some(Store { path, delete_unusable })
}

fn c_string(option: &'static str, text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(option, text, "must not contain a NUL".to_owned()))
}

/// The non-empty parts between semicolons.
fn list(option: &'static str, text: Option<&[u8]>) -> Result<Vec<CString>> {
    let parts = text.unwrap_or_default().split(|&b| b == b';').filter(|part| !part.is_empty());
    parts.map(|part| c_string(option, part)).collect()
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;

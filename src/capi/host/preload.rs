//! Initial items of a cache: `add-cache-item`, `load-file-in-cache`, `load-file-in-cache-gzip`.
//!
//! Each text may start with the name of a cache and a blank; without a name it applies to every
//! cache. A blank inside the text is not mistaken for that: a cache name before an item contains no
//! `=`, before a file no `/`.

use std::{collections::HashSet, io::Read};

use flate2::{Compression, read::GzEncoder};

use crate::{
    capi::{
        host::{
            cache::Cache,
            env::{self, Preload},
        },
        types::FLAG_UPDATE,
    },
    wire::shown::shown,
};

/// Stores the items that the environment defines for `cache`.
pub(crate) fn fill(cache: &Cache) {
    store(cache, env::get().preloads());
}

/// Files, then gzipped files, then items, as in native.
fn store(cache: &Cache, mut texts: Vec<Preload>) {
    texts.sort_by_key(|preload| match preload {
        Preload::File(_) => 0,
        Preload::Gzip(_) => 1,
        Preload::Item(_) => 2,
    });
    let mut seen = HashSet::new();
    for preload in &texts {
        let (name, rest) = parts(preload);
        if name.is_some_and(|name| name != cache.settings.name.to_bytes()) {
            continue;
        }
        match content(preload, rest) {
            Ok((key, value)) => put(cache, key, &value, seen.insert(key)),
            Err(reason) => say(cache, "unable to store", rest, &format!(": {reason}")),
        }
    }
}

/// Logs texts that name a cache that does not exist.
pub(crate) fn check() {
    for preload in env::get().preloads() {
        if let (Some(name), rest) = parts(&preload)
            && Cache::by_name(name).is_none()
        {
            let (name, rest) = (shown(name), shown(rest));
            env::get().log(&format!("unable to store \"{rest}\": there is no cache \"{name}\""));
        }
    }
}

/// The cache's name, if given, and the rest.
fn parts(preload: &Preload) -> (Option<&[u8]>, &[u8]) {
    let (text, mark) = match preload {
        Preload::Item(text) => (text, b'='),
        Preload::File(text) | Preload::Gzip(text) => (text, b'/'),
    };
    match text.iter().position(|&b| b == b' ') {
        Some(blank) if blank > 0 && !text[..blank].contains(&mark) => {
            (Some(&text[..blank]), &text[blank + 1..])
        }
        _ => (None, text),
    }
}

fn content<'a>(preload: &Preload, rest: &'a [u8]) -> Result<(&'a [u8], Vec<u8>), String> {
    match preload {
        Preload::Item(_) => {
            let at = rest.iter().position(|&b| b == b'=').ok_or("it has no '='")?;
            Ok((&rest[..at], rest[at + 1..].to_vec()))
        }
        Preload::File(_) => Ok((rest, env::get().read_file(rest)?)),
        Preload::Gzip(_) => {
            let mut zipped = Vec::new();
            let plain = env::get().read_file(rest)?;
            let read = GzEncoder::new(&plain[..], Compression::default()).read_to_end(&mut zipped);
            read.map_err(|e| e.to_string())?;
            Ok((rest, zipped))
        }
    }
}

/// The first value of a key replaces the one in a store file; a second one is an error.
fn put(cache: &Cache, key: &[u8], value: &[u8], first: bool) {
    let flags = if first { FLAG_UPDATE } else { 0 };
    match cache.store(key, value, 0, flags) {
        Ok(()) => say(cache, "stored", key, ""),
        Err(_) => say(cache, "unable to store", key, if first { "" } else { ": duplicate key" }),
    }
}

fn say(cache: &Cache, what: &str, key: &[u8], why: &str) {
    let (key, name) = (shown(key), shown(cache.settings.name.to_bytes()));
    env::get().log(&format!("{what} \"{key}\" in cache \"{name}\"{why}"));
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStrExt};

    use super::*;
    use crate::capi::host::env::Definition;
    use crate::{
        engine::{Sink, Touch},
        shm::SharedBytes,
    };

    #[test]
    fn a_blank_ends_a_name_unless_it_cannot_be_one() {
        let item = |text: &str| Preload::Item(text.as_bytes().to_vec());
        assert_eq!(parts(&item("foo=bar")), (None, &b"foo=bar"[..]));
        assert_eq!(parts(&item("foo=hello world")), (None, &b"foo=hello world"[..]));
        assert_eq!(parts(&item("c foo=hello world")), (Some(&b"c"[..]), &b"foo=hello world"[..]));
        assert_eq!(parts(&item(" foo=x")), (None, &b" foo=x"[..]));
        let file = |text: &str| Preload::File(text.as_bytes().to_vec());
        assert_eq!(parts(&file("/a/b c")), (None, &b"/a/b c"[..]));
        assert_eq!(parts(&file("c /a/b c")), (Some(&b"c"[..]), &b"/a/b c"[..]));
    }

    #[test]
    fn items_are_cut_at_the_first_equals() {
        let preload = Preload::Item(Vec::new());
        assert_eq!(content(&preload, b"a=b=c"), Ok((&b"a"[..], b"b=c".to_vec())));
        assert!(content(&preload, b"abc").is_err());
        assert!(content(&Preload::File(Vec::new()), b"/nowhere/at all").is_err());
    }

    #[test]
    fn the_first_value_replaces_and_a_second_is_refused() {
        let cache = crate::capi::host::create::create(&Definition::Cache2(b"name=preload,items=10".to_vec()))
            .expect("a cache of ten items");
        assert!(cache.store(b"k", b"of an earlier run", 0, 0).is_ok());
        let items = [&b"k=new"[..], b"preload k=again", b"other k=elsewhere", b"preload l=a b=c", b"nothing"];
        store(cache, items.iter().map(|text| Preload::Item(text.to_vec())).collect());
        let value = |key: &[u8]| {
            let mut copy = Vec::new();
            let meta = cache.tier.get(key, Touch::No, &mut Copy(&mut copy)).expect("the sink accepts all");
            meta.map(|_| copy)
        };
        assert_eq!(value(b"k").as_deref(), Some(&b"new"[..]));
        assert_eq!(value(b"l").as_deref(), Some(&b"a b=c"[..]));
        assert_eq!(cache.tier.stats().items, 2);
    }

    struct Copy<'a>(&'a mut Vec<u8>);
    impl Sink for Copy<'_> {
        fn take(&mut self, src: &SharedBytes<'_>) -> bool {
            src.copy_to_vec(self.0);
            true
        }
    }

    #[test]
    fn gzip_round_trip() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("f");
        fs::write(&path, b"hello hello hello hello").expect("writable");
        let text = path.as_os_str().as_bytes();
        let (key, zipped) = content(&Preload::Gzip(Vec::new()), text).expect("readable");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut plain).expect("gzip");
        assert_eq!((key, plain.as_str()), (text, "hello hello hello hello"));
    }
}

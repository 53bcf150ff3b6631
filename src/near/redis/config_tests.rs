use std::fs;

use super::*;

fn options(pairs: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (name, value) in pairs {
        assert!(options.set(name, value), "{name}");
    }
    options
}

fn checked(pairs: &[(&str, &str)]) -> Settings {
    options(pairs).check("pages", OnDown::Error).expect("valid").expect("with a backend")
}

fn refused(pairs: &[(&str, &str)]) -> String {
    options(pairs).check("pages", OnDown::Error).expect_err("invalid").to_string()
}

#[test]
fn defaults_and_all_options() {
    assert!(Options::default().check("pages", OnDown::Miss).expect("valid").is_none());
    let s = checked(&[("backend", "redis://cache")]);
    assert_eq!((&s.prefix[..], s.on_down, s.numbers), (&b"pages:"[..], OnDown::Error, Numbers::Binary));
    assert_eq!((s.timeout, s.connect_timeout), (Duration::from_millis(500), Duration::from_millis(200)));
    let s = checked(&[
        ("backend", "redis://alice@cache"),
        ("prefix", "p/"),
        ("on_down", "miss"),
        ("backend_timeout", "2s"),
        ("connect_timeout", "50ms"),
        ("numbers", "decimal"),
        ("near", "0"),
        ("clear", "unlink"),
    ]);
    assert_eq!((&s.prefix[..], s.on_down, s.numbers), (&b"p/"[..], OnDown::Miss, Numbers::Decimal));
    assert_eq!((s.timeout, s.connect_timeout), (Duration::from_secs(2), Duration::from_millis(50)));
    assert_eq!(s.login.user.as_deref(), Some("alice"));
    assert!(s.notes.is_empty());
}

#[test]
fn how_copies_are_kept() {
    let copies = |more: &[(&str, &str)]| {
        let s = checked(&[&[("backend", "redis://c")], more].concat());
        (s.copies.map(|copies| (copies.max_stale, copies.ttl)), s.on_down)
    };
    assert_eq!(copies(&[]), (Some((Some(1000), None)), OnDown::Error));
    let more = [("max_stale", "2s"), ("l1_ttl", "60s"), ("on_down", "stale:30"), ("near", "1")];
    assert_eq!(copies(&more), (Some((Some(2000), Some(60))), OnDown::Stale(Duration::from_secs(30))));
    assert_eq!(copies(&[("tracking", "off"), ("l1_ttl", "5")]).0, Some((None, Some(5))));
    assert_eq!(copies(&[("near", "0"), ("on_down", "miss")]), (None, OnDown::Miss));
}

#[test]
fn what_is_wrong_is_refused_in_words() {
    for (pairs, words) in [
        (&[("prefix", "p")][..], "option prefix=: has no meaning without backend=redis://"),
        (&[("backend", "redis://c"), ("near", "0"), ("tracking", "bcast")], "tracking=bcast: has no meaning"),
        (&[("backend", "redis://c"), ("near", "2")], "near=2: must be 1"),
        (&[("backend", "redis://c"), ("negative", "yes")], "negative=yes: must be 1"),
        (&[("backend", "redis://c"), ("near", "0"), ("negative", "1")], "negative=1: has no meaning"),
        (&[("backend", "redis://c"), ("on_down", "stale")], "must be miss, error, or stale:SECONDS"),
        (&[("backend", "redis://c"), ("on_down", "stale:0")], "1 to 86400"),
        (&[("backend", "redis://c"), ("near", "0"), ("on_down", "stale:5")], "on_down=stale:5: needs near=1"),
        (&[("backend", "redis://c"), ("tracking", "default")], "must be bcast or off"),
        (&[("backend", "redis://c"), ("tracking", "off")], "tracking=off: needs l1_ttl"),
        (
            &[("backend", "redis://c"), ("tracking", "off"), ("l1_ttl", "5"), ("max_stale", "9s")],
            "max_stale=9s: has no meaning with tracking=off",
        ),
        (
            &[("backend", "redis://c"), ("tracking", "off"), ("l1_ttl", "5"), ("on_down", "stale:5")],
            "on_down=stale:5: needs tracking=bcast",
        ),
        (&[("backend", "redis://c"), ("l1_ttl", "50ms")], "whole seconds, as in 5 or 5s"),
        (&[("backend", "redis://c"), ("max_stale", "49")], "at least 50 milliseconds"),
        (&[("backend", "redis://c"), ("numbers", "hex")], "must be binary or decimal"),
        (&[("backend", "redis://c"), ("clear", "flush")], "must be unlink or generation"),
        (&[("backend", "redis+cluster://c"), ("clear", "generation")], "needs one primary"),
        (
            &[("backend", "redis://c"), ("clear", "generation"), ("near", "0")],
            "needs near=1 and tracking=bcast",
        ),
        (
            &[("backend", "redis://c"), ("clear", "generation"), ("tracking", "off"), ("l1_ttl", "5")],
            "needs near=1 and tracking=bcast",
        ),
        (&[("backend", "redis://c"), ("backend_timeout", "0")], "backend_timeout=0: must be 1 to 60000"),
        (&[("backend", "redis://c"), ("connect_timeout", "1m")], "as in 500, 500ms or 2s"),
        (&[("backend", "redis://c"), ("backend_secret", "env:UCACHE_NO_SUCH")], "no such variable"),
        (&[("backend", "redis://c"), ("backend_secret", "file:/no/such")], "cannot be read"),
    ] {
        assert!(refused(pairs).contains(words), "{pairs:?}: {}", refused(pairs));
    }
    assert!(!Options::default().set("items", "5"));
}

#[test]
fn secrets_are_read_and_never_shown() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "hush\n").expect("written");
    let from = format!("file:{}", file.path().display());
    let options = options(&[("backend", "redis://c"), ("backend_user", "bob"), ("backend_secret", &from)]);
    let s = options.check("pages", OnDown::Miss).expect("valid").expect("with a backend");
    assert_eq!((s.login.user.as_deref(), s.login.password.as_deref()), (Some("bob"), Some("hush")));
    assert!(!format!("{s:?}").contains("hush"));
    let wrong = refused(&[("backend", "redis://c"), ("backend_secret", "hush")]);
    assert!(!wrong.contains("hush") && wrong.contains("must be file:"), "{wrong}");
    let s = checked(&[("backend", "redis://u:hush@c")]);
    assert!(!format!("{s:?}{:?}", s.notes).contains("hush"));
    assert_eq!(s.notes.len(), 1, "a password in the URL is warned of");
    assert_eq!(checked(&[("backend", "redis://c"), ("prefix", "")]).notes.len(), 1);
}

#[test]
fn the_shorter_limit_ends_a_copy() {
    let copies = |max_stale, ttl| Copies { max_stale, ttl, negative: true };
    assert_eq!(copies(Some(1000), None).longest_life(), None, "messages end it");
    assert_eq!(copies(Some(1000), None).longest_absence(), Some(1000));
    assert_eq!(copies(Some(1000), Some(1)).longest_life(), Some(1000));
    assert_eq!(copies(Some(50), Some(2)).longest_absence(), Some(50));
    assert_eq!(copies(None, Some(u64::MAX)).longest_absence(), Some(u64::MAX));
}

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ucache::{Cache, Expires, Stored};

use super::{builder, cache, within};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_default_is_five_minutes() {
    assert_eq!(cache().timeout(), Expires::In(300));
}

#[test]
fn handles_carry_their_own_default() {
    let cache = builder().timeout(Duration::from_millis(1500)).build().unwrap();
    assert_eq!(cache.timeout(), Expires::InMillis(1500));
    let other = cache.with_timeout(Expires::Never);
    assert_eq!(other.timeout(), Expires::Never);
    assert_eq!(other.clone().timeout(), Expires::Never);
    assert_eq!(cache.timeout(), Expires::InMillis(1500));
    assert_eq!(Cache::open(cache.name()).unwrap().timeout(), Expires::InMillis(1500));
    let at = SystemTime::now() + HOUR;
    assert_eq!(cache.with_timeout(at).timeout(), Expires::from(at));
}

#[test]
fn zero_and_the_past_expire_at_once() {
    let cache = cache();
    for gone in [
        Expires::from(Duration::ZERO),
        Expires::from(UNIX_EPOCH),
        Expires::from(SystemTime::now() - HOUR),
        Expires::from(UNIX_EPOCH - HOUR),
        Expires::At(0),
        Expires::At(1),
    ] {
        assert!(cache.add_with("k", "v", gone).unwrap(), "{gone:?}: the expired item before is no obstacle");
        assert!(!cache.contains("k"), "{gone:?}");
        assert_eq!(cache.get("k").unwrap(), None, "{gone:?}");
        assert_eq!(cache.keys().next(), None, "{gone:?}");
        assert!(!cache.delete("k").unwrap(), "{gone:?}");
        assert_eq!(cache.set_with("k", "v", gone).unwrap(), Stored::Inserted, "{gone:?}");
        assert_eq!(cache.get("k").unwrap(), None, "{gone:?}");
    }
    cache.set_with("k", "v", HOUR).unwrap();
    cache.set_with("k", "w", Duration::ZERO).unwrap();
    assert_eq!(cache.get("k").unwrap(), None);

    let at_once = cache.with_timeout(Duration::ZERO);
    assert_eq!(at_once.incr("n", 5).unwrap(), 5);
    assert_eq!(at_once.incr("n", 5).unwrap(), 5);
}

#[test]
fn a_part_of_a_second_is_one() {
    // Of the kernel's clock.
    const TICK: Duration = Duration::from_millis(11);
    let cache = cache();
    let part = Duration::from_millis(1300);
    let before = SystemTime::now();
    cache.set_with("k", "v", part).unwrap();
    within("the end", || !cache.contains("k"));
    assert!(before.elapsed().expect("a clock that goes on") + TICK >= part);
    let before = SystemTime::now();
    cache.set_with("k", "v", HOUR + part).unwrap();
    let at = cache.expires("k").and_then(Expires::deadline).expect("it expires");
    assert!(at + TICK >= before + HOUR + part && at <= SystemTime::now() + HOUR + part, "{at:?}");
}

#[test]
fn a_second_passes_and_long_times_do_not() {
    let cache = cache();
    let years = 1000 * 365 * 24 * HOUR;
    cache.set_with("never", "v", Expires::Never).unwrap();
    cache.set_with("hour", "v", HOUR).unwrap();
    cache.set_with("ages", "v", years).unwrap();
    cache.set_with("maximum", "v", Duration::MAX).unwrap();
    cache.set_with("hour at", "v", SystemTime::now() + HOUR).unwrap();
    cache.set_with("far at", "v", Expires::At(u64::MAX)).unwrap();
    cache.set_with("second", "v", SECOND).unwrap();
    cache.set_with("part", "v", Duration::from_millis(1)).unwrap();
    within("the end of a second", || !cache.contains("second") && !cache.contains("part"));

    assert_eq!(cache.get("second").unwrap(), None);
    for key in ["never", "hour", "ages", "maximum", "hour at", "far at"] {
        assert_eq!(cache.get(key).unwrap(), Some(b"v".to_vec()), "{key}");
    }
    assert_eq!(cache.keys().count(), 6);
    assert!(cache.add("second", "w").unwrap(), "an expired item does not stand in the way of add");
}

#[test]
fn set_leaves_the_timeout_and_update_renews_it() {
    let cache = cache();
    for key in ["set", "renewed", "never", "kept", "math"] {
        cache.set_with(key, 7_i64.to_ne_bytes(), 2 * SECOND).unwrap();
    }
    // Not asserted: on a machine that stands still for two seconds they may be recomputed.
    cache.set_with("set", "later", HOUR).unwrap();
    cache.set_with("renewed", "v", HOUR).unwrap();
    cache.set_with("never", "v", Expires::Never).unwrap();
    let short = cache.with_timeout(2 * SECOND);
    short.set_keep_ttl("kept", "v").unwrap();
    short.incr("math", 1).unwrap();

    cache.set_with("clock", "v", 3 * SECOND).unwrap();
    within("three seconds", || !cache.contains("clock"));
    assert!(!cache.contains("kept") && !cache.contains("math"));
    assert!(cache.contains("renewed") && cache.contains("never"));
}

#[test]
fn keeping_the_ttl_keeps_a_long_one_too() {
    let cache = cache();
    cache.set_with("kept", "v", HOUR).unwrap();
    cache.set_with("math", 1_i64.to_ne_bytes(), HOUR).unwrap();
    let short = cache.with_timeout(Duration::ZERO);
    assert_eq!(short.set_keep_ttl("kept", "w").unwrap(), Stored::Updated);
    for (i, op) in [Cache::incr, Cache::decr, Cache::mul, Cache::div].into_iter().enumerate() {
        op(&short, "math", 1).unwrap_or_else(|error| panic!("operation {i}: {error}"));
    }
    assert_eq!(cache.get_str("kept").unwrap().as_deref(), Some("w"));
    assert_eq!(cache.get_int("math").unwrap(), Some(1));
}

#[test]
fn no_expire_reads_what_has_expired() {
    let cache = builder().items(2).no_expire(true).build().unwrap();
    cache.set_with("k", "v", Duration::ZERO).unwrap();
    assert_eq!(cache.get("k").unwrap(), Some(b"v".to_vec()));
    assert!(!cache.add("k", "w").unwrap());
    assert_eq!(cache.sweep().unwrap(), 0);
    assert_eq!(cache.keys().collect::<Vec<_>>(), [b"k"]);
}

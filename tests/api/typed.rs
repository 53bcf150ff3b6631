use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use ucache::{Error, Expires, Stats, Stored};

use super::{builder, cache};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Session {
    user: String,
    roles: Vec<String>,
    since: Option<u64>,
}

fn session() -> Session {
    Session { user: "älice".to_owned(), roles: vec!["admin".to_owned()], since: None }
}

#[test]
fn values_of_many_types() {
    let cache = cache();
    assert_eq!(cache.get_as::<Session>("s").unwrap(), None);
    assert!(cache.add_as("s", &session()).unwrap());
    assert!(!cache.add_as("s", "other").unwrap(), "add keeps what is there");
    assert_eq!(cache.get_as("s").unwrap(), Some(session()));
    assert_eq!(cache.get_str("s").unwrap().unwrap(), r#"{"user":"älice","roles":["admin"],"since":null}"#);
    assert_eq!(cache.set_as("s", &[1, 2]).unwrap(), Stored::Updated);
    assert_eq!(cache.get_as("s").unwrap(), Some((1, 2)));
    cache.set_as_with("s", &session(), Duration::ZERO).unwrap();
    assert!(!cache.contains("s"));
}

#[test]
fn another_type_is_an_error_and_the_value_stays() {
    let cache = builder().max_value_bytes(40).build().unwrap();
    cache.set("k", "no json").unwrap();
    let wrong = cache.get_as::<Session>("k").unwrap_err();
    assert!(matches!(&wrong, Error::Type(_)) && wrong.to_string().contains("type"), "{wrong}");
    let Error::Type(json) = &wrong else { panic!("{wrong}") };
    assert!(json.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_syntax), "{json}");
    assert!(std::error::Error::source(&wrong).is_none(), "the message says it already");
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("no json"));
    let no_json = BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(cache.set_as("map", &no_json), Err(Error::Type(_))));
    assert!(!cache.contains("map"));
    assert!(matches!(cache.set_as("long", &"x".repeat(40)), Err(Error::ValueTooLong { len: 42, .. })));
}

#[test]
fn a_typed_value_is_filled_once() {
    let cache = cache();
    let mut calls = 0;
    for _ in 0..3 {
        let found = cache.get_or_set_as_with("s", |_| {
            calls += 1;
            session()
        });
        assert_eq!(found.unwrap(), session());
    }
    assert_eq!(calls, 1);
    let wrong = cache.get_or_set_as_with("s", |_| 5_u8);
    assert!(matches!(wrong, Err(Error::Type(_))), "{wrong:?}");
    let unfit = cache.get_or_set_as_with("map", |_| BTreeMap::from([(vec![1], 3)]));
    assert!(matches!(unfit, Err(Error::Type(_))), "{unfit:?}");
    assert!(!cache.contains("map"), "and nobody waits for it");
}

#[test]
fn figures_and_items_are_serialised() {
    let cache = cache();
    cache.set_with("k", "v", Expires::At(4_000_000_000)).unwrap();
    let stats = serde_json::to_value(cache.stats()).unwrap();
    assert_eq!((&stats["items"], &stats["capacity"]), (&1.into(), &100.into()));
    assert_eq!(serde_json::from_value::<Stats>(stats).unwrap(), cache.stats());
    // Of an older version, which had fewer fields.
    let old: Stats = serde_json::from_str(r#"{"hits":7}"#).unwrap();
    assert_eq!((old.hits, old.misses), (7, 0));
    let entry = cache.entries().next().unwrap();
    let json = serde_json::to_string(&entry).unwrap();
    assert_eq!(json, r#"{"key":[107],"value":[118],"expires":{"at":4000000000}}"#);
    assert_eq!(serde_json::from_str::<ucache::Entry>(&json).unwrap(), entry);
    assert_eq!(serde_json::to_string(&Expires::Never).unwrap(), r#""never""#);
    assert_eq!(serde_json::from_str::<Expires>(r#"{"in":5}"#).unwrap(), Expires::In(5));
}

use std::time::Duration;

use ucache::{Cache, Error, Expires};

use super::{builder, cache};

fn sorted(cache: &Cache, prefix: &str) -> Vec<String> {
    let mut keys: Vec<String> =
        cache.keys_with_prefix(prefix).map(|key| String::from_utf8(key).unwrap()).collect();
    keys.sort();
    keys
}

#[test]
fn several_keys_at_once() {
    let cache = cache();
    assert_eq!(cache.get_many(Vec::<&str>::new()).unwrap(), Vec::<Option<Vec<u8>>>::new());
    assert_eq!(cache.add_many([("a", "1"), ("b", "2"), ("a", "3")]).unwrap(), 2);
    assert_eq!(
        cache.get_many(["b", "no", "a", "b"]).unwrap(),
        [Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec())]
    );
    cache.set_many(vec![(String::from("a"), vec![9]), (String::from("c"), vec![8])]).unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(vec![9]));
    assert_eq!((cache.stats().hits, cache.stats().misses), (4, 1));
}

#[test]
fn batches_keep_the_order_and_leave_nothing_out() {
    let cache = builder().items(10_000).build().unwrap();
    for count in [15, 16, 17, 1000] {
        let key = |n: usize| format!("{count}:{n}");
        assert_eq!(cache.add_many((0..count).map(|n| (key(n), n.to_string()))).unwrap(), count);
        cache.set_many((0..count).step_by(3).map(|n| (key(n), "third"))).unwrap();
        let keys: Vec<String> = (0..count * 2).rev().map(key).collect();
        let want: Vec<_> = (0..count * 2).rev().map(|n| cache.get(key(n)).unwrap()).collect();
        assert_eq!(cache.get_many(&keys).unwrap(), want);
        assert_eq!(want.iter().flatten().count(), count);
    }
    // The seventeenth belongs to the second batch.
    let refused =
        cache.set_many((0..20).map(|n| (if n == 16 { String::new() } else { format!("k{n}") }, "v")));
    assert!(matches!(refused, Err(Error::EmptyKey)));
    assert_eq!(sorted(&cache, "k").len(), 16);
    // An iterator that continues after its end is not called again.
    let mut asked = 0;
    let gaps = std::iter::from_fn(|| {
        asked += 1;
        (asked != 3).then_some("k1")
    });
    assert_eq!(cache.get_many(gaps).unwrap().len(), 2);
    assert_eq!(asked, 3);
}

#[test]
fn values_of_several_keys_are_lent() {
    let cache = cache();
    cache.set_many((0..40).map(|n| (n.to_string(), vec![b'v'; n + 1]))).unwrap();
    let mut seen = Vec::new();
    let keys = (0..50).rev().map(|n| n.to_string());
    cache
        .get_many_with(keys, |key, value| {
            // A call within the call has a buffer of its own.
            assert_eq!(cache.get_with("39", <[u8]>::len).unwrap(), Some(40));
            assert_eq!(value, cache.get(&key).unwrap().as_deref());
            seen.push((key, value.map(<[u8]>::len)));
        })
        .unwrap();
    let want = |n: usize| (n.to_string(), (n < 40).then_some(n + 1));
    assert_eq!(seen, (0..50).rev().map(want).collect::<Vec<_>>());
}

#[test]
fn a_refusal_ends_the_call_and_undoes_nothing() {
    let cache = builder().max_value_bytes(3).build().unwrap();
    let refused = cache.add_many([("a", "1"), ("b", "long"), ("c", "3")]);
    assert!(matches!(refused, Err(Error::ValueTooLong { len: 4, limit: 3 })));
    assert_eq!(sorted(&cache, ""), ["a"]);
    assert!(matches!(cache.set_many([("d", "1"), ("", "2")]), Err(Error::EmptyKey)));
    assert_eq!(sorted(&cache, ""), ["a", "d"]);
}

#[test]
fn keys_and_items_of_a_prefix() {
    let cache = cache();
    for i in 0..30 {
        cache.set(format!("page:{i:02}"), format!("text {i}")).unwrap();
        cache.set(format!("user:{i:02}"), "u").unwrap();
    }
    cache.set_with("page:old", "v", Duration::ZERO).unwrap();
    cache.set_with("page:until", "v", Expires::At(4_000_000_000)).unwrap();
    assert_eq!(sorted(&cache, "page:1"), (10..20).map(|i| format!("page:{i}")).collect::<Vec<_>>());
    assert_eq!(sorted(&cache, "nothing").len(), 0);
    assert_eq!(sorted(&cache, "").len(), 61);
    let mut entries: Vec<_> = cache.entries_with_prefix("page:").collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(entries.len(), 31);
    assert_eq!((&entries[7].key[..], &entries[7].value[..]), (&b"page:07"[..], &b"text 7"[..]));
    assert_eq!(entries[30].expires, Expires::At(4_000_000_000));
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0), "looking is no use");
    assert_eq!(cache.delete_prefix("page:").unwrap(), 31);
    assert_eq!(sorted(&cache, "").len(), 30);
    let mut none = cache.entries_with_prefix("page:");
    assert!(none.next().is_none() && none.next().is_none());
}

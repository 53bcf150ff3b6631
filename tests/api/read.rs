use ucache::Error;

use super::cache;

#[test]
fn keys_and_values_are_any_bytes() {
    let cache = cache();
    let all: Vec<u8> = (0..=255).collect();
    cache.set(&all, &all).unwrap();
    cache.set([0], vec![0, 0]).unwrap();
    cache.set(String::from("string"), "str").unwrap();
    cache.set(b"bytes", b"array").unwrap();
    assert_eq!(cache.get(&all).unwrap(), Some(all));
    assert_eq!(cache.get([0]).unwrap(), Some(vec![0, 0]));
    assert_eq!(cache.get("string").unwrap(), Some(b"str".to_vec()));
    assert_eq!(cache.get_str("bytes").unwrap().as_deref(), Some("array"));
}

#[test]
fn a_missing_key_is_no_error() {
    let cache = cache();
    assert!(!cache.contains("k"));
    assert_eq!(cache.get("k").unwrap(), None);
    assert_eq!(cache.get_into("k", &mut []).unwrap(), None);
    assert_eq!(cache.get_str("k").unwrap(), None);
    assert_eq!(cache.get_int("k").unwrap(), None);
    assert_eq!(cache.get_or("k", "default").unwrap(), b"default");
    assert_eq!(cache.get_int_or("k", 7).unwrap(), 7);
    assert!(!cache.contains("k"), "defaults are not stored");
}

#[test]
fn impossible_keys_are_missing() {
    let cache = cache();
    for key in [vec![], vec![b'k'; 2049], vec![b'k'; 70_000]] {
        assert!(!cache.contains(&key));
        assert_eq!(cache.get(&key).unwrap(), None);
        assert!(!cache.delete(&key).unwrap());
    }
}

#[test]
fn get_into_fills_the_front_of_the_buffer() {
    let cache = cache();
    cache.set("k", "value").unwrap();
    let mut exact = [0; 5];
    assert_eq!(cache.get_into("k", &mut exact).unwrap(), Some(5));
    assert_eq!(&exact, b"value");
    let mut large = [0; 4096];
    assert_eq!(cache.get_into("k", &mut large).unwrap(), Some(5));
    assert_eq!(&large[..5], b"value");
}

#[test]
fn get_into_names_the_size_needed() {
    let cache = cache();
    let value = vec![7; 60_000];
    cache.set("k", &value).unwrap();
    let mut buffer = vec![0; 59_999];
    let error = cache.get_into("k", &mut buffer).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall { needed: 60_000, len: 59_999 }), "{error}");
    assert!(error.to_string().contains("60000"), "{error}");
    buffer.resize(60_000, 0);
    assert_eq!(cache.get_into("k", &mut buffer).unwrap(), Some(60_000));
    assert_eq!(buffer, value);
}

#[test]
fn a_value_is_lent_to_a_function() {
    let cache = cache();
    let large = vec![7; 65_000];
    cache.set("large", &large).unwrap();
    cache.set("small", "v").unwrap();
    assert_eq!(cache.get_with("none", |_| unreachable!("no such key")).unwrap(), None::<()>);
    for _ in 0..3 {
        let lens = cache.get_with("large", |outer| {
            // The function may write, and read in the same way: its copy stays as it is.
            cache.set("large", "other").unwrap();
            let inner = cache.get_with("large", <[u8]>::to_vec).unwrap();
            assert_eq!(inner.as_deref(), Some(&b"other"[..]));
            assert_eq!(outer, large);
            cache.set("large", outer).unwrap();
            outer.len()
        });
        assert_eq!(lens.unwrap(), Some(65_000));
        assert_eq!(cache.get_with("small", <[u8]>::to_vec).unwrap(), Some(b"v".to_vec()));
    }
    assert_eq!((cache.stats().hits, cache.stats().misses), (9, 1));
}

#[test]
fn a_panic_in_the_function_leaves_the_buffer_usable() {
    let cache = cache();
    cache.set("k", "v").unwrap();
    let read = std::panic::AssertUnwindSafe(|| cache.get_with("k", |_| panic!("as this test wants")));
    std::panic::catch_unwind(read).unwrap_err();
    assert_eq!(cache.get_with("k", <[u8]>::to_vec).unwrap(), Some(b"v".to_vec()));
}

#[test]
fn text_must_be_utf8() {
    let cache = cache();
    cache.set("k", [b'a', 0xc3]).unwrap();
    assert!(matches!(cache.get_str("k"), Err(Error::NotUtf8)));
    cache.set("k", "aÃ").unwrap();
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("aÃ"));
}

#[test]
fn a_number_has_eight_bytes() {
    let cache = cache();
    for number in [0, 1, -1, i64::MIN, i64::MAX] {
        cache.set("n", number.to_ne_bytes()).unwrap();
        assert_eq!(cache.get_int("n").unwrap(), Some(number));
        assert_eq!(cache.get_int_or("n", 5).unwrap(), number);
    }
    for text in ["1", "1234567", "123456789"] {
        cache.set("n", text).unwrap();
        let error = cache.get_int("n").unwrap_err();
        assert!(matches!(error, Error::NotANumber { len } if len == text.len() as u64), "{error}");
        assert!(matches!(cache.get_int_or("n", 5), Err(Error::NotANumber { .. })));
    }
}

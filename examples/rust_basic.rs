//! A cache in one program: the most common calls.
//!
//!     cargo run --example rust_basic
#![allow(clippy::disallowed_macros, reason = "an example talks to its user")]

use std::{thread, time::Duration};

use ucache::{Cache, Error, Expires};

fn main() -> ucache::Result<()> {
    let cache = Cache::builder("mycache").items(100).timeout(Duration::from_secs(60)).build()?;

    // `add` keeps an existing value, `set` replaces it.
    assert!(cache.add("lang", "en")?);
    assert!(!cache.add("lang", "de")?);
    cache.set("lang", "fr")?;
    println!("lang = {}", cache.get_str("lang")?.unwrap_or_default());

    // A call can have its own timeout.
    cache.set_with("captcha", "x7k2", Duration::from_secs(1))?;
    cache.set_with("motto", "never lock a reader", Expires::Never)?;

    // Numbers change in one atomic step, which returns the result.
    println!("visits = {}", cache.incr("visits", 1)?);
    println!("visits = {}", cache.incr("visits", 41)?);

    // Reading without allocating.
    let mut buffer = [0; 64];
    if let Some(len) = cache.get_into("motto", &mut buffer)? {
        println!("motto = {}", String::from_utf8_lossy(&buffer[..len]));
    }

    // Of all threads that miss the key at the same time, one renders.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                cache.get_or_set_with("/index", |path| {
                    println!("rendering {path}");
                    thread::sleep(Duration::from_millis(100));
                    format!("<h1>{path}</h1>")
                })
            });
        }
    });

    // Other parts of the program, and forked children, open the cache by its name.
    let same = Cache::open("mycache")?;
    assert!(same.contains("/index"));
    assert!(matches!(Cache::open("another"), Err(Error::NoSuchCache(_))));

    let mut keys: Vec<_> = same.keys().map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
    keys.sort();
    println!("keys = {keys:?}");

    let stats = same.stats();
    println!("{} of {} items, {} hits, {} misses", stats.items, stats.capacity, stats.hits, stats.misses);
    same.clear()
}

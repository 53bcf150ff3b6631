//! The figures of every cache among uWSGI's metrics (`enable-metrics`): `cache.<name>.hits` and so on, for
//! `metric_get`, the statistics, `metrics-dir`, alarms and the plugins that push metrics.
//!
//! uWSGI's collector thread in the master asks for each metric in turn, once a second. Registered after the caches are
//! made and before uWSGI gives every metric its place in shared memory.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_void},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{host::Host, raw};
use crate::{
    capi::{cache, cache::Cache, guard::guard},
    engine::{Figure, Stats},
};

/// Two of the types of a metric in uwsgi.h.
const COUNTER: u8 = 0;
const GAUGE: u8 = 1;

/// How long one look at a cache serves all its metrics.
const FRESH: Duration = Duration::from_millis(500);

/// Longest part of a metric's name that comes from the cache: with `metrics-dir` the name is one of a file.
const LONGEST: usize = 200;

const COLLECTOR: &CStr = c"ucache";

type Collect = unsafe extern "C" fn(*mut raw::uwsgi_metric) -> i64;
type RegisterCollector = unsafe extern "C" fn(*mut c_char, Collect) -> *mut c_void;
type Register = unsafe extern "C" fn(
    *mut c_char,
    *mut c_char,
    u8,
    *mut c_char,
    *mut c_void,
    u32,
    *mut c_void,
) -> *mut raw::uwsgi_metric;

/// What the metrics of one cache share.
#[derive(Debug)]
struct Source {
    cache: &'static Cache,
    /// Whether the figures outlive the server.
    kept: bool,
    seen: Mutex<Option<(Instant, Stats)>>,
}

/// What a metric points to.
#[derive(Debug)]
struct Metric {
    source: &'static Source,
    /// Which of the figures.
    index: usize,
}

impl Source {
    fn figure(&self, index: usize) -> Option<Figure> {
        let mut seen = self.seen.lock().ok()?;
        let now = Instant::now();
        let stats = match seen.take() {
            Some((at, stats)) if now.duration_since(at) < FRESH => *seen.insert((at, stats)),
            _ => *seen.insert((now, self.cache.engine.stats())),
        };
        stats.1.figures().get(index).copied()
    }
}

/// Makes the metrics of all caches; nothing where metrics are off.
pub(super) fn register(host: &Host) {
    // SAFETY: start-up is single-threaded; a plain number.
    if unsafe { (*host.server).has_metrics } == 0 {
        return;
    }
    let functions = host.symbols(&[c"uwsgi_register_metric", c"uwsgi_register_metric_collector"]);
    let at = |name: &CStr| functions.get(name).map(|symbol| symbol.address as *const ());
    let (Some(register), Some(collector)) =
        (at(c"uwsgi_register_metric"), at(c"uwsgi_register_metric_collector"))
    else {
        host.log("this uWSGI exports no functions to register metrics with: there are none of the caches");
        return;
    };
    // SAFETY: uwsgi.h declares both functions so.
    let (register, collector) = unsafe {
        (
            std::mem::transmute::<*const (), Register>(register),
            std::mem::transmute::<*const (), RegisterCollector>(collector),
        )
    };
    // SAFETY: start-up is single-threaded; the name is static and nobody writes to it.
    unsafe { collector(COLLECTOR.as_ptr().cast_mut(), collect) };
    let mut names = BTreeSet::new();
    for cache in cache::all() {
        let name = name_for(cache.settings.name.to_bytes(), &mut names);
        let kept = cache.settings.config.store.is_some();
        let source: &'static Source = Box::leak(Box::new(Source { cache, kept, seen: Mutex::new(None) }));
        for (index, figure) in Stats::default().figures().iter().enumerate() {
            let Ok(full) = CString::new(format!("cache.{name}.{}", figure.name)) else { continue };
            let metric: &'static Metric = Box::leak(Box::new(Metric { source, index }));
            let custom = std::ptr::from_ref(metric).cast_mut().cast();
            let kind = if figure.gauge { GAUGE } else { COUNTER };
            let (text, by) = (full.as_ptr().cast_mut(), COLLECTOR.as_ptr().cast_mut());
            let none = std::ptr::null_mut();
            // SAFETY: start-up is single-threaded; uWSGI copies the name and keeps `custom`, which is never freed.
            unsafe { register(text, none, kind, by, none.cast(), 0, custom) };
        }
    }
}

/// The cache's part of its metrics' names: uWSGI ends the server at any other character.
fn name_for(cache: &[u8], taken: &mut BTreeSet<String>) -> String {
    let plain = |&byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte),
        _ => '_',
    };
    let base: String = cache.iter().take(LONGEST).map(plain).collect();
    let numbered = (2..).map(|n: u32| format!("{base}_{n}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = free.unwrap_or(base);
    taken.insert(name.clone());
    name
}

/// Called by uWSGI for the value of a metric, to which it adds `initial_value`.
///
/// # Safety
/// `metric` is one that [`register`] made.
unsafe extern "C" fn collect(metric: *mut raw::uwsgi_metric) -> i64 {
    guard(0, || {
        // SAFETY: uWSGI gives one of the metrics that `register` made, with the pointer that it got for it; both live
        // as long as the process, and neither field changes.
        let (metric, initial) =
            unsafe { ((*metric).custom.cast::<Metric>().as_ref(), (*metric).initial_value) };
        let Some(metric) = metric else { return 0 };
        let Some(figure) = metric.source.figure(metric.index) else { return 0 };
        let value = i64::try_from(figure.value).unwrap_or(i64::MAX);
        // `metrics-dir-restore`: the last server's value goes on counting, but for what has not begun anew.
        if figure.gauge || metric.source.kept { value.wrapping_sub(initial) } else { value }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_uwsgi_allows_and_differ() {
        let mut taken = BTreeSet::new();
        let mut name = |cache: &str| name_for(cache.as_bytes(), &mut taken);
        assert_eq!(name("my-cache_1.x"), "my-cache_1.x");
        assert_eq!(name("a b"), "a_b");
        assert_eq!(name("a/b"), "a_b_2");
        assert_eq!(name("a:b"), "a_b_3");
        assert_eq!(name(&"n".repeat(255)), "n".repeat(200));
        assert_eq!(name(&"n".repeat(254)), format!("{}_2", "n".repeat(200)));
    }
}

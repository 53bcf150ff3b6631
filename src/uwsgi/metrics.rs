//! Registers the statistics of every cache as uWSGI metrics (`enable-metrics`): `cache.<name>.hits`
//! and so on, for `metric_get`, the statistics server, `metrics-dir`, alarms and the plugins that
//! push metrics.
//!
//! uWSGI's collector thread in the master reads each metric in turn, once a second. They are
//! registered after the caches are created and before uWSGI allocates the metrics' shared memory.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_void},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{host::Host, raw};
use crate::{
    capi::{
        host::cache::{self, Cache},
        panic::guard,
    },
    engine::{Figure, Memory},
};

/// Two of the types of a metric in uwsgi.h.
const COUNTER: u8 = 0;
const GAUGE: u8 = 1;

/// How long one snapshot of a cache serves all its metrics.
const FRESH: Duration = Duration::from_millis(500);
/// A look at the memory does for so many times as long as it took: it takes at most a hundredth of a
/// processor.
const MEMORY_FRESH: u32 = 100;

/// Maximum length of the cache's part of a metric's name: with `metrics-dir` the name is a file
/// name.
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

/// Shared by the metrics of one cache.
#[derive(Debug)]
struct Source {
    cache: &'static Cache,
    /// Whether the statistics outlive the server.
    kept: bool,
    seen: Mutex<Seen>,
}

/// What was seen last, and when.
#[derive(Debug, Default)]
struct Seen {
    figures: Option<(Instant, Vec<Figure>)>,
    /// Until when it does.
    memory: Option<(Instant, Memory)>,
}

/// The `custom` data of one metric.
#[derive(Debug)]
struct Metric {
    source: &'static Source,
    /// Index of the statistic.
    index: usize,
}

impl Source {
    fn figure(&self, index: usize) -> Option<Figure> {
        let mut seen = self.seen.lock().ok()?;
        let now = Instant::now();
        if seen.figures.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= FRESH) {
            let engine = self.cache.tier.engine();
            let memory = seen.memory.take().filter(|(until, _)| now < *until);
            let memory = memory.unwrap_or_else(|| {
                let memory = engine.memory_sample();
                (now + now.elapsed() * MEMORY_FRESH, memory)
            });
            let figures = engine.figures(&memory.1);
            seen.memory = Some(memory);
            seen.figures = Some((now, figures));
        }
        seen.figures.as_ref().and_then(|(_, all)| all.get(index).copied())
    }
}

/// Registers the metrics of all caches; does nothing if metrics are off.
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
        host.log("no metrics for caches: this uWSGI exports no functions to register them");
        return;
    };
    // SAFETY: uwsgi.h declares both functions so.
    let (register, collector) = unsafe {
        (
            std::mem::transmute::<*const (), Register>(register),
            std::mem::transmute::<*const (), RegisterCollector>(collector),
        )
    };
    // SAFETY: start-up is single-threaded; the name is static and never written to.
    unsafe { collector(COLLECTOR.as_ptr().cast_mut(), collect) };
    let mut names = BTreeSet::new();
    for cache in cache::all() {
        let name = name_for(cache.settings.name.to_bytes(), &mut names);
        let kept = cache.settings.config.store.is_some();
        let source: &'static Source = Box::leak(Box::new(Source { cache, kept, seen: Mutex::default() }));
        let figures = cache.tier.engine().figures(&Memory::default());
        for (index, figure) in figures.iter().enumerate() {
            let Ok(full) = CString::new(format!("cache.{name}.{}", figure.name)) else { continue };
            let metric: &'static Metric = Box::leak(Box::new(Metric { source, index }));
            let custom = std::ptr::from_ref(metric).cast_mut().cast();
            let kind = if figure.gauge { GAUGE } else { COUNTER };
            let (text, by) = (full.as_ptr().cast_mut(), COLLECTOR.as_ptr().cast_mut());
            let none = std::ptr::null_mut();
            // SAFETY: start-up is single-threaded; uWSGI copies the name and keeps `custom`, which
            // is never freed.
            unsafe { register(text, none, kind, by, none.cast(), 0, custom) };
        }
    }
}

/// The cache's part of its metrics' names: uWSGI ends the server at any character it does not
/// allow.
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

/// Called by uWSGI for a metric's value, to which it adds `initial_value`.
///
/// # Safety
/// `metric` is one that [`register`] made.
unsafe extern "C" fn collect(metric: *mut raw::uwsgi_metric) -> i64 {
    guard(0, || {
        // SAFETY: uWSGI passes a metric that `register` created, with its pointer; both live as
        // long as the process, and neither field changes.
        let (metric, initial) =
            unsafe { ((*metric).custom.cast::<Metric>().as_ref(), (*metric).initial_value) };
        let Some(metric) = metric else { return 0 };
        let Some(figure) = metric.source.figure(metric.index) else { return 0 };
        let value = i64::try_from(figure.value).unwrap_or(i64::MAX);
        // `metrics-dir-restore`: counters continue from the last server's value, except those that
        // the cache itself keeps.
        if figure.gauge || metric.source.kept { value.wrapping_sub(initial) } else { value }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_only_allowed_characters_and_differ() {
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

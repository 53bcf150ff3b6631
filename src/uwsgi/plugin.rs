//! The two plugin entries that uWSGI sees, and what happens at each of its hooks.
//!
//! `ucache_plugin` is what `plugin = ucache` loads: it owns request slot 111 (the cache protocol). A later
//! `plugin = cache` may overwrite that slot, so everything else hangs on a second, generic entry.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    sync::{Mutex, Once, OnceLock},
    time::{Duration, Instant},
};

use super::{host, host::Host, metrics, options, raw, request, takeover, takeover::Takeover};
use crate::capi::{cache::Cache, env, guard::guard, types::uwsgi_cache, view};

/// modifier1 of the cache protocol.
const SLOT: u8 = 111;

/// Shortest time between two updates of the statistics.
const REFRESH: Duration = Duration::from_millis(100);

/// What became of the takeover.
#[derive(Debug)]
enum State {
    /// Every cache function of the host leads to ours.
    Taken(Takeover),
    /// Loaded before the host (`LD_PRELOAD`): the dynamic linker leads it to ours, its text could not be changed too.
    Linked(String),
    /// The host's own functions are in place, because they could not be replaced.
    Native,
}

static STATE: OnceLock<State> = OnceLock::new();

/// A struct that uWSGI reads, and writes a few fields of, while it starts up in one thread.
#[repr(transparent)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

// SAFETY: only uWSGI's start-up, which has one thread, and our hooks that it calls touch the content.
unsafe impl<T> Sync for Shared<T> {}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// The entry that uWSGI looks up by name when it loads `ucache_plugin.so`.
#[unsafe(no_mangle)]
pub(crate) static ucache_plugin: Shared<raw::uwsgi_plugin> = Shared(UnsafeCell::new(raw::uwsgi_plugin {
    name: c"ucache".as_ptr(),
    modifier1: SLOT,
    on_load: Some(on_load),
    request: Some(on_request),
    ..UNUSED
}));

/// The entry of all other hooks.
static HOOKS: Shared<raw::uwsgi_plugin> = Shared(UnsafeCell::new(raw::uwsgi_plugin {
    name: c"ucache hooks".as_ptr(),
    options: OPTIONS.0.get().cast(),
    jail: Some(on_configured),
    init: Some(on_init),
    post_init: Some(on_post_init),
    master_cycle: Some(on_master_cycle),
    ..UNUSED
}));

static OPTIONS: Shared<options::Table> = Shared(UnsafeCell::new(options::table()));

/// No name, no hook.
// SAFETY: the struct holds integers, pointers and optional functions, for all of which zero is a value.
const UNUSED: raw::uwsgi_plugin = unsafe { MaybeUninit::zeroed().assume_init() };

/// Run by the dynamic linker when it has loaded the library, wherever that is: only leaves word whom to ask.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        guard((), || env::look_with(preloaded));
    }
    at_load
};

/// uWSGI has loaded the plugin: it is reading its options, in one thread, and has made no cache yet.
extern "C" fn on_load() {
    guard((), || {
        let Some(host) = host::find() else {
            eprintln!("[ucache] loaded as a plugin, but the loader exports no uWSGI 2.0 functions");
            // SAFETY: nothing has been set up.
            unsafe { libc::exit(1) }
        };
        attach(host);
    });
}

/// The host looked for when the C surface is first used without `on_load`: uWSGI as a shared library (pyuwsgi) with
/// libucache.so preloaded, so that its calls are linked to us.
fn preloaded() -> Option<&'static dyn env::Env> {
    if STATE.get().is_some() {
        return None;
    }
    let host = host::find()?;
    prepare(host);
    // SAFETY: the first cache is being made, in the host's only thread, by a call that is in our function already.
    let state = match unsafe { takeover::take(host) } {
        Ok(takeover) => State::Taken(takeover),
        Err(why) => State::Linked(why),
    };
    let _ = STATE.set(state);
    Some(host)
}

/// Takes the place of the host's cache; on a failure only the reason is kept, until all options are known.
fn attach(host: &'static Host) {
    prepare(host);
    let taken = if env::install(host) {
        // SAFETY: uWSGI calls `on_load` while it parses its options, in its only thread.
        unsafe { takeover::take(host) }
    } else {
        Err("another part of this process uses libucache.so already".into())
    };
    let state = match taken {
        Ok(takeover) => State::Taken(takeover),
        Err(why) => {
            host.log(&format!("cannot take over uWSGI's cache: {why}"));
            State::Native
        }
    };
    // uWSGI loads a plugin once, so this is the only writer.
    let _ = STATE.set(state);
}

/// What comes first in both ways: nothing of the host may be touched unless its structs are those that the glue was
/// compiled for.
fn prepare(host: &Host) {
    if let Err(why) = host.check_layout() {
        stop(host, &why);
    }
    register_hooks(host);
}

/// Ends the server, as it does itself after a bad option.
fn stop(host: &Host, why: &str) -> ! {
    host.log(&format!("stopped: {why}"));
    // SAFETY: start-up is single-threaded; exit handlers run as after uWSGI's own errors.
    unsafe { libc::exit(1) }
}

fn register_hooks(host: &Host) {
    // SAFETY: uWSGI is starting up in one thread and calls us; nobody else touches its tables.
    let server = unsafe { &mut *host.server };
    let count = usize::try_from(server.gp_cnt).unwrap_or(usize::MAX);
    let Some(slot) = server.gp.get_mut(count) else {
        stop(host, "too many plugins: uWSGI has no room for the hooks of ucache");
    };
    *slot = HOOKS.0.get();
    server.gp_cnt += 1;
}

/// All options are known, no cache exists: the last moment to stop without harm to store
/// files, which the host's own code would open, and with `store_delete` remove.
extern "C" fn on_configured(_: Option<unsafe extern "C" fn(*mut c_void) -> c_int>, _: *mut *mut c_char) {
    guard((), || {
        if let (Some(host), Some(State::Native)) = (host::get(), STATE.get()) {
            decide(host);
        }
    });
}

/// Goes on natively if the operator allows it, ends the server otherwise.
fn decide(host: &Host) {
    if options::or_native() {
        host.log("ucache-or-native: going on with uWSGI's own cache");
        return;
    }
    stop(
        host,
        "the takeover failed (see above); `ucache-or-native = true` would go on with uWSGI's own cache",
    );
}

/// The caches exist, no worker does.
extern "C" fn on_init() -> c_int {
    guard((), || {
        let Some(host) = host::get() else { return };
        for name in options::unknown(host) {
            host.log(&format!("unknown option {name}"));
        }
        request::install_wait(host);
        match STATE.get() {
            Some(State::Taken(takeover)) => verify(host, takeover),
            Some(State::Linked(why)) => {
                host.log(&format!(
                    "preloaded: uWSGI's calls are linked to ucache; its own code stays as it is ({why})"
                ));
            }
            Some(State::Native) | None => {}
        }
    });
    0
}

/// What is in place is what was put there, and every cache is ours.
fn verify(host: &Host, takeover: &Takeover) {
    let lost = takeover.lost();
    // SAFETY: start-up is single-threaded; the head and the list are written by whoever makes caches.
    let foreign = unsafe { foreign(env::Env::head(host).read()) };
    if !lost.is_empty() || !foreign.is_empty() {
        let why = format!(
            "another plugin interferes: functions that lead elsewhere again: {lost:?}, caches that ucache did not \
             make: {foreign:?}"
        );
        stop(host, &why);
    }
    if options::wants_start_up_lines(host) {
        host.log(&format!(
            "ucache {}: {} cache functions of uWSGI {} taken over ({})",
            env!("CARGO_PKG_VERSION"),
            takeover.len(),
            host.version(),
            takeover.method
        ));
    }
}

/// The names of caches in the list that are not ours.
///
/// # Safety
/// `cache` is NULL or heads a list of caches.
unsafe fn foreign(mut cache: *mut uwsgi_cache) -> Vec<String> {
    let mut names = Vec::new();
    while !cache.is_null() {
        // SAFETY: the caller's promise.
        if unsafe { Cache::of(cache) }.is_none() {
            // SAFETY: the caller's promise; names are NUL-terminated.
            names.push(unsafe { CStr::from_ptr((*cache).name) }.to_string_lossy().into_owned());
        }
        // SAFETY: the caller's promise.
        cache = unsafe { (*cache).next };
    }
    names
}

/// All plugins are initialised: take the request slot back from a `plugin = cache` that was loaded later, and name the
/// metrics of the caches that are there.
extern "C" fn on_post_init() {
    guard((), || {
        let Some(host) = host::get() else { return };
        if matches!(STATE.get(), Some(State::Taken(_) | State::Linked(_))) {
            let entry = ucache_plugin.0.get();
            // SAFETY: start-up is single-threaded. `N:ucache` in the configuration sets another slot than 111.
            unsafe { (*host.server).p[usize::from((*entry).modifier1)] = entry };
            metrics::register(host);
        }
    });
}

/// A turn of the master's loop, once a second and with every event; the statistics server runs in the same loop.
extern "C" fn on_master_cycle() {
    static NEXT: Mutex<Option<Instant>> = Mutex::new(None);
    guard((), || {
        if !matches!(STATE.get(), Some(State::Taken(_) | State::Linked(_))) {
            return;
        }
        // With `log-master` every log line is an event.
        let Ok(mut next) = NEXT.lock() else { return };
        let now = Instant::now();
        if next.is_none_or(|next| now >= next) {
            *next = Some(now + REFRESH);
            view::inherit_stores();
            view::refresh_all();
        }
    });
}

/// A request for the cache protocol.
extern "C" fn on_request(request: *mut raw::wsgi_request) -> c_int {
    guard(UWSGI_OK, || {
        if let Some(State::Native) = STATE.get() {
            static SAID: Once = Once::new();
            let advice = "the cache protocol is not served: uWSGI's own needs `plugin = cache` after `plugin = ucache`";
            SAID.call_once(|| host::get().into_iter().for_each(|host| host.log(advice)));
            return UWSGI_OK;
        }
        request::handle(request)
    })
}

/// The request is done (an answer may or may not have been given).
const UWSGI_OK: c_int = 0;

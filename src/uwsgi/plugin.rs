//! The two plugin entries that uWSGI sees, and the work at each of its hooks.
//!
//! `plugin = ucache` loads `ucache_plugin`, which serves no requests. The cache protocol is a
//! second entry; it is installed in the slot of uWSGI's own cache plugin, or where the operator
//! configures it.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use super::{host, host::Host, lock, metrics, options, raw, request, takeover, takeover::Takeover};
use crate::capi::{
    host::{cache::Cache, create, env},
    panic::guard,
    types::uwsgi_cache,
};

/// modifier1 of the cache protocol.
const SLOT: u8 = 111;

/// Minimum time between two updates of the statistics.
const REFRESH: Duration = Duration::from_millis(100);

/// The outcome of the takeover.
#[derive(Debug)]
enum State {
    /// Every cache function of the host jumps to ours.
    Taken(Takeover),
    /// Loaded before the host (`LD_PRELOAD`): the dynamic linker binds its calls to ours, but its
    /// text could not be patched.
    Linked(String),
    /// The host's own functions are in use, because they could not be replaced.
    Native,
}

static STATE: OnceLock<State> = OnceLock::new();

/// A struct that uWSGI reads, and writes some fields of, during single-threaded start-up.
#[repr(transparent)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

// SAFETY: only uWSGI's single-threaded start-up, and our hooks called from it, access the content.
unsafe impl<T> Sync for Shared<T> {}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// A plugin of uWSGI, followed by zeros: a uWSGI with a longer struct finds no hooks there.
#[repr(C)]
pub(crate) struct Entry {
    plugin: raw::uwsgi_plugin,
    more: [usize; 64],
}

/// The entry that uWSGI looks up by name when it loads `ucache_plugin.so`. Its hooks are added only
/// once uWSGI's struct is known to match.
#[unsafe(no_mangle)]
pub(crate) static ucache_plugin: Shared<Entry> = Shared(UnsafeCell::new(Entry {
    plugin: raw::uwsgi_plugin {
        name: c"ucache".as_ptr(),
        on_load: Some(on_load),
        options: OPTIONS.0.get().cast(),
        ..UNUSED
    },
    more: [0; 64],
}));

/// The entry of the cache protocol.
static PROTOCOL: Shared<raw::uwsgi_plugin> = Shared(UnsafeCell::new(raw::uwsgi_plugin {
    name: CACHE_PLUGIN.as_ptr(),
    modifier1: SLOT,
    request: Some(on_request),
    ..UNUSED
}));

/// The name of uWSGI's own plugin for the cache protocol.
const CACHE_PLUGIN: &CStr = c"cache";

static OPTIONS: Shared<options::Table> = Shared(UnsafeCell::new(options::table()));

/// No name, no hooks.
// SAFETY: the struct holds integers, pointers and optional functions; zero is valid for all of
// them.
const UNUSED: raw::uwsgi_plugin = unsafe { MaybeUninit::zeroed().assume_init() };

/// Run by the dynamic linker in every program that loads the library: only registers where to look
/// for a host.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        guard((), || env::look_with(preloaded));
    }
    at_load
};

/// Called when uWSGI has loaded the plugin: single-threaded, while it reads its options, before any
/// cache exists.
extern "C" fn on_load() {
    guard((), || {
        let Some(host) = host::find() else {
            eprintln!("[ucache] loaded as a plugin, but the loading program exports no uWSGI 2.0 functions");
            // SAFETY: nothing has been set up.
            unsafe { libc::exit(1) }
        };
        attach(host);
    });
}

/// Looks for the host when the C interface is used without `on_load`: uWSGI as a shared library
/// (pyuwsgi) with libucache.so preloaded, so that its calls are bound to us. If its calls are not
/// bound to us, this library was loaded by the application, or is a second copy, and must not act
/// for the server.
fn preloaded() -> Option<&'static dyn env::Env> {
    // SAFETY: a lookup by a NUL-terminated name.
    let called = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"uwsgi_cache_create_all".as_ptr()) };
    if STATE.get().is_some() || called.addr() != takeover::create_all() {
        return None;
    }
    let host = host::find()?;
    if let Err(why) = host.check_layout() {
        stop(host, &why);
    }
    // SAFETY: valid for the life of the process, with the layout that was checked.
    if unsafe { (*host.server).cache_setup } != 0 {
        return None;
    }
    add_hooks();
    register(host);
    // SAFETY: the first cache is being created, in the host's only thread, by a call that is in our
    // function already.
    let state = match unsafe { takeover::take(host) } {
        Ok(takeover) => State::Taken(takeover),
        Err(why) => State::Linked(why),
    };
    let _ = STATE.set(state);
    Some(host)
}

/// Replaces the host's cache; on failure only the reason is kept until all options are known.
/// Nothing of the host is changed unless its structs match those that the plugin was compiled for.
fn attach(host: &'static Host) {
    let taken = match host.check_layout() {
        Err(why) => {
            decide_later(host, &why);
            Err(why)
        }
        Ok(()) => {
            add_hooks();
            #[cfg(uwsgi_routing)]
            super::pages::register(host);
            if env::install(host) {
                // SAFETY: uWSGI calls `on_load` while it parses its options, in its only thread.
                unsafe { takeover::take(host) }
            } else {
                Err("libucache.so is in use already by another part of this process".into())
            }
        }
    };
    let state = match taken {
        Ok(takeover) => State::Taken(takeover),
        Err(why) => {
            host.log(&format!("cannot replace uWSGI's cache: {why}"));
            State::Native
        }
    };
    // uWSGI loads a plugin once, so this is the only writer.
    let _ = STATE.set(state);
}

/// Handles a plugin built for another uWSGI. If this uWSGI reads a plugin's hooks and options in
/// the same way, the decision waits for the options, as after other failures. Otherwise it is made
/// now, and the entry keeps only its name.
fn decide_later(host: &Host, why: &str) {
    let alike = host.reads_plugins_alike();
    // SAFETY: uWSGI calls `on_load` in its only thread; no other code holds a reference to the
    // entry.
    let plugin = unsafe { &mut (*ucache_plugin.0.get()).plugin };
    if alike {
        plugin.jail = Some(on_configured);
        return;
    }
    plugin.options = std::ptr::null_mut();
    plugin.on_load = None;
    if !options::or_native_so_far(host) {
        stop(
            host,
            &format!(
                "{why}; `ucache-or-native = true` before `plugin = ucache` falls back to uWSGI's own cache"
            ),
        );
    }
    host.log(GOING_ON);
}

fn add_hooks() {
    // SAFETY: as in `decide_later`.
    let plugin = unsafe { &mut (*ucache_plugin.0.get()).plugin };
    plugin.jail = Some(on_configured);
    plugin.init = Some(on_init);
    plugin.post_init = Some(on_post_init);
    plugin.master_cycle = Some(on_master_cycle);
}

/// Ends the server, as uWSGI does after an invalid option.
fn stop(host: &Host, why: &str) -> ! {
    host.log(&format!("stopped: {why}"));
    // SAFETY: start-up is single-threaded; exit handlers run as after uWSGI's own errors.
    unsafe { libc::exit(1) }
}

/// Registers the plugin's entry as uWSGI does when it loads one.
fn register(host: &Host) {
    // SAFETY: uWSGI's single-threaded start-up calls us; no other code accesses its tables.
    let server = unsafe { &mut *host.server };
    let count = usize::try_from(server.gp_cnt).unwrap_or(usize::MAX);
    let Some(slot) = server.gp.get_mut(count) else {
        stop(host, "too many plugins: uWSGI has no free slot for the hooks of ucache");
    };
    *slot = ucache_plugin.0.get().cast();
    server.gp_cnt += 1;
}

/// All options are known, and no cache exists: the last moment to stop without harm to store files,
/// which the host's own code would open, and with `store_delete` remove.
extern "C" fn on_configured(_: Option<unsafe extern "C" fn(*mut c_void) -> c_int>, _: *mut *mut c_char) {
    guard((), || {
        if let (Some(host), Some(State::Native)) = (host::get(), STATE.get()) {
            decide(host);
        }
    });
}

const GOING_ON: &str = "ucache-or-native: falling back to uWSGI's own cache";

/// Falls back to the native cache if the operator allows it, otherwise ends the server.
fn decide(host: &Host) {
    if options::or_native() {
        host.log(GOING_ON);
        return;
    }
    stop(host, "the takeover failed (see above); `ucache-or-native = true` falls back to uWSGI's own cache");
}

/// Caches exist, workers do not.
extern "C" fn on_init() -> c_int {
    guard((), || {
        let Some(host) = host::get() else { return };
        for name in options::unknown(host) {
            host.log(&format!("unknown option {name}"));
        }
        #[cfg(uwsgi_routing)]
        if let Err(why) = super::pages::set_up(host) {
            stop(host, &why);
        }
        request::install_wait(host);
        lock::seal();
        match STATE.get() {
            Some(State::Taken(takeover)) => verify(host, takeover),
            Some(State::Linked(why)) => {
                host.log(&format!(
                    "preloaded: uWSGI's calls are linked to ucache; its own code is unchanged ({why})"
                ));
            }
            Some(State::Native) | None => {}
        }
    });
    0
}

/// Checks that all redirections are in place and that every cache is ours.
fn verify(host: &Host, takeover: &Takeover) {
    let lost = takeover.lost();
    // SAFETY: start-up is single-threaded; only code that creates caches writes the list.
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
        // SAFETY: the caller's contract.
        if unsafe { Cache::of(cache) }.is_none() {
            // SAFETY: the caller's contract; names are NUL-terminated.
            names.push(unsafe { CStr::from_ptr((*cache).name) }.to_string_lossy().into_owned());
        }
        // SAFETY: the caller's contract.
        cache = unsafe { (*cache).next };
    }
    names
}

/// All plugins are initialised: takes our request slots and registers the metrics of existing
/// caches. After this there may be other processes.
extern "C" fn on_post_init() {
    guard((), || {
        let Some(host) = host::get() else { return };
        if matches!(STATE.get(), Some(State::Taken(_) | State::Linked(_))) {
            serve(host);
            metrics::register(host);
        }
        lock::close();
    });
}

/// Serves the cache protocol in the slot of uWSGI's own plugin for it, as native would. Also where
/// the operator enables it, by `ucache-serve` or by a number before the plugin's name
/// (`111:ucache`).
fn serve(host: &Host) {
    // SAFETY: start-up is single-threaded; no other code holds a reference to the table.
    let slots = unsafe { &mut (*host.server).p };
    // SAFETY: uWSGI writes the number there when it loads the plugin.
    let named = unsafe { (*ucache_plugin.0.get()).plugin.modifier1 };
    let asked = |slot: usize| {
        options::serve() && slot == usize::from(SLOT) || named != 0 && slot == usize::from(named)
    };
    for (slot, plugin) in slots.iter_mut().enumerate() {
        // SAFETY: NULL or a plugin, whose name is NULL or NUL-terminated.
        let name = unsafe { plugin.as_ref().filter(|p| !p.name.is_null()).map(|p| CStr::from_ptr(p.name)) };
        if name == Some(CACHE_PLUGIN) || asked(slot) {
            *plugin = PROTOCOL.0.get();
            if options::wants_start_up_lines(host) {
                host.log(&format!("the cache protocol is served: modifier1 {slot} of every uwsgi socket"));
            }
        }
    }
}

/// A cycle of the master's loop, once a second and at every event; the statistics server runs in
/// the same loop.
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
            create::inherit_stores();
            create::refresh_all();
        }
    });
}

/// A request of the cache protocol.
extern "C" fn on_request(request: *mut raw::wsgi_request) -> c_int {
    guard(UWSGI_OK, || request::handle(request))
}

/// The request is finished (whether or not it was answered).
const UWSGI_OK: c_int = 0;

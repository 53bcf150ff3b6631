//! The route actions `ucache:`, a response cache, and `ucachepurge:`.
//!
//! | file | owns |
//! |---|---|
//! | `calls.rs`, `request.rs` | uWSGI's functions and requests; files with `unsafe`, as `chunk.rs`, `mule.rs` and this one |
//! | `settings.rs` | the options of the actions |
//! | `asked.rs`, `fields.rs`, `control.rs`, `answer.rs` | HTTP: requests and keys, header fields, freshness, answers |
//! | `place.rs`, `store.rs` | where a page is, and how it gets there |
//! | `action.rs` | what one request does: serve, wait, compute |
//! | `fill.rs` | a response on its way to the client |
//! | `chunk.rs` | a part of a body |
//! | `mule.rs` | mules that refresh old pages |
//! | `purge.rs` | `ucachepurge:` |
//! | `tally.rs` | counters |
//!
//! A page is computed under a lease of the engine, so the death of who computes it is noticed by
//! those who wait. The response is kept by a pair of transformations, which uWSGI calls with each
//! part of the body before it sends it, and at the end.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

use super::{host::Host, raw};
use crate::capi::{host::cache::Cache, panic::guard};

mod action;
mod answer;
mod asked;
mod calls;
mod chunk;
mod control;
mod fields;
mod fill;
mod mule;
mod place;
mod purge;
mod request;
mod settings;
mod store;
mod tally;

use action::Next;
use chunk::Chunk;
use fill::Fill;
use purge::Purge;
use request::Request;
use settings::Settings;

/// What a route action returns (uwsgi.h).
const ROUTE_NEXT: c_int = 0;
const ROUTE_BREAK: c_int = 2;

/// What a route of the configuration needs.
struct Need {
    /// A cache with this name.
    cache: Vec<u8>,
    /// A mule that refreshes pages.
    mule: bool,
}

/// What all of them need. `None` = it was checked; an application may still call an action
/// (`uwsgi.route`).
static NEEDS: Mutex<Option<Vec<Need>>> = Mutex::new(Some(Vec::new()));

/// What a core of the worker serves.
#[derive(Debug)]
struct Core {
    /// The request that met the action last: when it began.
    met: AtomicU64,
    /// The response that is watched; NULL = none.
    watched: AtomicPtr<Fill>,
}

static CORES: OnceLock<Vec<Core>> = OnceLock::new();

/// Adds the actions to uWSGI's: called when the plugin is loaded, before routes are read.
pub(super) fn register(host: &Host) {
    let Some((calls, _)) = calls::get() else {
        host.log("no route action ucache: this uWSGI lacks functions that it needs");
        return;
    };
    // SAFETY: start-up is single-threaded; the name is static.
    unsafe {
        (calls.register_router)(c"ucache".as_ptr(), configure);
        (calls.register_router)(c"ucachepurge".as_ptr(), configure_purge);
    }
}

/// Checks the names of caches in routes, and prepares the mules that refresh pages, if a route wants
/// some. Called when all options are known, before there are other processes.
///
/// # Errors
/// What is wrong.
pub(super) fn set_up(host: &'static Host) -> Result<(), String> {
    let needs = NEEDS.lock().ok().and_then(|mut needs| needs.take()).unwrap_or_default();
    if let Some(Need { cache, .. }) = needs.iter().find(|need| Cache::by_name(&need.cache).is_none()) {
        let name = String::from_utf8_lossy(cache);
        return Err(format!(
            "a route names the cache {name}, but there is no such cache (cache2 = name={name},...)"
        ));
    }
    if needs.iter().any(|need| need.mule) { mule::set_up(host) } else { Ok(()) }
}

/// Reads the options of a route.
///
/// # Safety
/// uWSGI's contract: a route being made, and the NUL-terminated text behind the action's name.
unsafe extern "C" fn configure(route: *mut raw::uwsgi_route, args: *mut c_char) -> c_int {
    let parse = |text: &[u8]| Settings::parse(text).map(Arc::new);
    // SAFETY: the caller's contract; `run` expects these settings.
    unsafe { make(route, args, "ucache", parse, |settings| settings, run) }
}

/// The same for `ucachepurge:`.
///
/// # Safety
/// As [`configure`].
unsafe extern "C" fn configure_purge(route: *mut raw::uwsgi_route, args: *mut c_char) -> c_int {
    // SAFETY: the caller's contract; `run_purge` expects these settings.
    unsafe { make(route, args, "ucachepurge", Purge::parse, |purge| &purge.pages, run_purge) }
}

/// What is wrong with a route for errors, responses or ends.
const LATE: &str = "only routes of requests can have it (`route`, `route-if`, `route-run`), not those of errors, \
                    responses or ends; for an old page instead of an error: stale_error";

/// Whether the route is one of those that run when there is a response already.
///
/// # Safety
/// uWSGI's lists of routes do not change meanwhile.
unsafe fn is_late(host: &Host, route: *const raw::uwsgi_route) -> bool {
    // SAFETY: the caller's contract; each list ends with NULL.
    unsafe {
        let server = &*host.server;
        [server.error_routes, server.response_routes, server.final_routes].into_iter().any(|mut at| {
            while !at.is_null() && !ptr::eq(at, route) {
                at = (*at).next;
            }
            !at.is_null()
        })
    }
}

/// Reads the options of a route of any of the actions, and gives the route its function.
///
/// # Safety
/// As [`configure`]; `run` expects settings of this type.
unsafe fn make<T>(
    route: *mut raw::uwsgi_route,
    args: *mut c_char,
    action: &str,
    parse: fn(&[u8]) -> Result<T, String>,
    pages: fn(&T) -> &Settings,
    run: unsafe extern "C" fn(*mut raw::wsgi_request, *mut raw::uwsgi_route) -> c_int,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's contract.
        let text = unsafe { CStr::from_ptr(args) }.to_bytes();
        let Some((_, host)) = calls::get() else { return -1 };
        // SAFETY: start-up is single-threaded, and the lists of routes do not change after it.
        let late = unsafe { is_late(host, route) };
        let settings = match parse(text) {
            Ok(settings) if !late => Box::new(settings),
            Ok(_) => {
                host.log(&format!("{action}: {LATE}"));
                return -1;
            }
            Err(why) => {
                host.log(&format!("{action}: {why}"));
                return -1;
            }
        };
        // Another thread has it at run time only, when there is nothing to note.
        if let Ok(mut needs) = NEEDS.try_lock()
            && let Some(needs) = needs.as_mut()
        {
            let pages = pages(&settings);
            needs.push(Need { cache: pages.name.clone(), mule: pages.by_mule });
        }
        // SAFETY: the caller's contract; `data2` is the action's own.
        unsafe {
            (*route).func = Some(run);
            (*route).data2 = Box::into_raw(settings).cast();
            (*route).free = Some(free::<T>);
        }
        0
    })
}

/// Ends a route that the application made for one call of an action.
///
/// # Safety
/// uWSGI's contract: a route that [`make`] made with settings of this type, for the last time.
unsafe extern "C" fn free<T>(route: *mut raw::uwsgi_route) {
    guard((), || {
        // SAFETY: the caller's contract: the box of `make`.
        drop(unsafe { Box::from_raw((*route).data2.cast::<T>()) });
    });
}

/// Runs `ucachepurge:`.
///
/// # Safety
/// uWSGI's contract: a request being routed, and the route that [`configure_purge`] made.
unsafe extern "C" fn run_purge(raw: *mut raw::wsgi_request, route: *mut raw::uwsgi_route) -> c_int {
    guard(ROUTE_NEXT, || {
        // SAFETY: the caller's contract.
        let (request, purges) = unsafe { (Request::of(raw, route), (*route).data2.cast::<Purge>().as_ref()) };
        match (request, purges) {
            (Some(request), Some(purges)) if purge::run(&request, purges) => ROUTE_BREAK,
            _ => ROUTE_NEXT,
        }
    })
}

/// Runs the action.
///
/// # Safety
/// uWSGI's contract: a request being routed, and the route that [`configure`] made.
unsafe extern "C" fn run(raw: *mut raw::wsgi_request, route: *mut raw::uwsgi_route) -> c_int {
    guard(ROUTE_NEXT, || {
        // SAFETY: the caller's contract.
        let (request, settings) =
            unsafe { (Request::of(raw, route), (*route).data2.cast::<Arc<Settings>>().as_ref()) };
        let (Some(request), Some(settings)) = (request, settings) else { return ROUTE_NEXT };
        if !is_first(&request) {
            return ROUTE_NEXT;
        }
        match action::run(&request, settings) {
            Next::Done => ROUTE_BREAK,
            Next::Route => ROUTE_NEXT,
            Next::Watch(fill) => {
                watch(&request, fill);
                ROUTE_NEXT
            }
        }
    })
}

fn core(request: &Request) -> Option<&'static Core> {
    let make = || {
        // SAFETY: a number that does not change after start-up.
        let cores = usize::try_from(unsafe { (*request.host.server).cores }).unwrap_or(0);
        let none = |_| Core { met: AtomicU64::new(0), watched: AtomicPtr::new(ptr::null_mut()) };
        (0..cores).map(none).collect()
    };
    CORES.get_or_init(make).get(usize::try_from(request.core()).ok()?)
}

/// Whether this is the first route of the action that the request meets: that one decides. What an
/// earlier request of the core has left, because uWSGI gave it up, is ended.
fn is_first(request: &Request) -> bool {
    let Some(core) = core(request) else { return false };
    if core.met.swap(request.began(), Ordering::Relaxed) == request.began() {
        return false;
    }
    let left = core.watched.swap(ptr::null_mut(), Ordering::Relaxed);
    if !left.is_null() {
        // SAFETY: the box of `watch`, which this core alone uses, and frees in `end` or here. uWSGI
        // has freed the transformations of the earlier request.
        unsafe { Box::from_raw(left) }.abandon();
    }
    true
}

fn watch(request: &Request, fill: Box<Fill>) {
    let Some(core) = core(request) else { return };
    let fill = Box::into_raw(fill);
    core.watched.store(fill, Ordering::Relaxed);
    request.transform(each, end, fill.cast::<c_void>());
}

/// A part of the body.
///
/// # Safety
/// uWSGI's contract: a request being answered, and the first transformation of [`watch`].
unsafe extern "C" fn each(raw: *mut raw::wsgi_request, to: *mut raw::uwsgi_transformation) -> c_int {
    guard((), || {
        // SAFETY: the caller's contract; `data` is the box of `watch`, which `end` frees last.
        let (request, chunk, fill) =
            unsafe { (Request::of(raw, ptr::null_mut()), Chunk::of(to), (*to).data.cast::<Fill>().as_mut()) };
        if let (Some(request), Some(mut chunk), Some(fill)) = (request, chunk, fill) {
            fill.each(&request, &mut chunk);
        }
    });
    0
}

/// The end of the response.
///
/// # Safety
/// uWSGI's contract: a request being closed, and the second transformation of [`watch`].
unsafe extern "C" fn end(raw: *mut raw::wsgi_request, to: *mut raw::uwsgi_transformation) -> c_int {
    guard((), || {
        // SAFETY: the caller's contract; `data` is the box of `watch`, which nobody uses later.
        let (request, chunk, mut fill) = unsafe {
            (Request::of(raw, ptr::null_mut()), Chunk::of(to), Box::from_raw((*to).data.cast::<Fill>()))
        };
        let (Some(request), Some(mut chunk)) = (request, chunk) else { return };
        if let Some(core) = core(&request) {
            core.watched.store(ptr::null_mut(), Ordering::Relaxed);
        }
        fill.end(&request, &mut chunk);
    });
    0
}

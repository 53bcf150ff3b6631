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
        Mutex, OnceLock,
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

/// All that the configuration has of these actions.
static ALL: Mutex<Vec<&'static Settings>> = Mutex::new(Vec::new());

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

/// The first name of a cache that a route has, but the server has not.
pub(super) fn unknown_cache() -> Option<String> {
    let all = ALL.lock().ok()?;
    let unknown = all.iter().find(|settings| Cache::by_name(&settings.name).is_none())?;
    Some(String::from_utf8_lossy(&unknown.name).into_owned())
}

/// Prepares the mules that refresh pages, if a route wants some. Called when all options are known,
/// before there are other processes.
///
/// # Errors
/// Why there cannot be any.
pub(super) fn set_up_mules(host: &'static Host) -> Result<(), String> {
    let wanted = ALL.lock().is_ok_and(|all| all.iter().any(|settings| settings.by_mule));
    if wanted { mule::set_up(host) } else { Ok(()) }
}

/// Reads the options of a route.
///
/// # Safety
/// uWSGI's contract: a route being made, and the NUL-terminated text behind the action's name.
unsafe extern "C" fn configure(route: *mut raw::uwsgi_route, args: *mut c_char) -> c_int {
    // SAFETY: the caller's contract; `run` expects these settings.
    unsafe { set_up(route, args, "ucache", Settings::parse, |settings| settings, run) }
}

/// The same for `ucachepurge:`.
///
/// # Safety
/// As [`configure`].
unsafe extern "C" fn configure_purge(route: *mut raw::uwsgi_route, args: *mut c_char) -> c_int {
    // SAFETY: the caller's contract; `run_purge` expects these settings.
    unsafe { set_up(route, args, "ucachepurge", Purge::parse, |purge| &purge.pages, run_purge) }
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
unsafe fn set_up<T: 'static>(
    route: *mut raw::uwsgi_route,
    args: *mut c_char,
    action: &str,
    parse: fn(&[u8]) -> Result<T, String>,
    pages: fn(&'static T) -> &'static Settings,
    run: unsafe extern "C" fn(*mut raw::wsgi_request, *mut raw::uwsgi_route) -> c_int,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller's contract.
        let text = unsafe { CStr::from_ptr(args) }.to_bytes();
        let Some((_, host)) = calls::get() else { return -1 };
        // SAFETY: the caller's contract: start-up is single-threaded, and so is a list of routes.
        let late = unsafe { is_late(host, route) };
        let settings: &'static T = match parse(text) {
            Ok(settings) if !late => Box::leak(Box::new(settings)),
            Ok(_) => {
                host.log(&format!("{action}: {LATE}"));
                return -1;
            }
            Err(why) => {
                host.log(&format!("{action}: {why}"));
                return -1;
            }
        };
        if let Ok(mut all) = ALL.lock() {
            all.push(pages(settings));
        }
        // SAFETY: the caller's contract; `data2` is the action's own.
        unsafe {
            (*route).func = Some(run);
            (*route).data2 = ptr::from_ref(settings).cast_mut().cast();
        }
        0
    })
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
            unsafe { (Request::of(raw, route), (*route).data2.cast::<Settings>().as_ref()) };
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

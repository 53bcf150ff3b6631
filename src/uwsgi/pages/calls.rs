//! The functions of uWSGI that the routes use, found once.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::OnceLock,
};

use super::super::{
    host::{self, Host},
    raw,
};

type Req = *mut raw::wsgi_request;
type Route = *mut raw::uwsgi_route;
pub(super) type Transform = unsafe extern "C" fn(Req, *mut raw::uwsgi_transformation) -> c_int;
pub(super) type Configure = unsafe extern "C" fn(Route, *mut c_char) -> c_int;

/// Addresses of functions, with their types in uwsgi.h.
macro_rules! functions {
    ($(#[$doc:meta])* $struct:ident: $($field:ident $name:literal: $type:ty),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $struct {
            $(pub(super) $field: $type,)+
        }

        impl $struct {
            pub(super) fn find(host: &Host) -> Option<Self> {
                $(let $field = host.function($name)?;)+
                // SAFETY: uwsgi.h declares the functions so, and the header is that of the build,
                // whose prototypes are part of the fingerprint (`layout.rs`).
                Some(unsafe { Self { $($field: std::mem::transmute::<*const (), $type>($field),)+ } })
            }
        }
    };
}

functions! {
    /// What each route needs.
    Calls:
    register_router c"uwsgi_register_router": unsafe extern "C" fn(*const c_char, Configure) -> *mut c_void,
    translate c"uwsgi_routing_translate":
        unsafe extern "C" fn(Req, Route, *mut c_char, u16, *const c_char, usize) -> *mut raw::uwsgi_buffer,
    buffer_new c"uwsgi_buffer_new": unsafe extern "C" fn(usize) -> *mut raw::uwsgi_buffer,
    buffer_append c"uwsgi_buffer_append":
        unsafe extern "C" fn(*mut raw::uwsgi_buffer, *const c_char, usize) -> c_int,
    buffer_destroy c"uwsgi_buffer_destroy": unsafe extern "C" fn(*mut raw::uwsgi_buffer),
    prepare_headers c"uwsgi_response_prepare_headers": unsafe extern "C" fn(Req, *const c_char, u16) -> c_int,
    add_header c"uwsgi_response_add_header":
        unsafe extern "C" fn(Req, *const c_char, u16, *const c_char, u16) -> c_int,
    write_headers c"uwsgi_response_write_headers_do": unsafe extern "C" fn(Req) -> c_int,
    write_body c"uwsgi_response_write_body_do": unsafe extern "C" fn(Req, *const c_char, usize) -> c_int,
    add_transformation c"uwsgi_add_transformation":
        unsafe extern "C" fn(Req, Transform, *mut c_void) -> *mut raw::uwsgi_transformation,
    response_routes c"uwsgi_apply_response_routes": unsafe extern "C" fn(Req) -> c_int,
    logvar_add c"uwsgi_logvar_add": unsafe extern "C" fn(Req, *const c_char, u8, *const c_char, u8),
    additional_header c"uwsgi_additional_header_add": unsafe extern "C" fn(Req, *const c_char, u16),
    req_append c"uwsgi_req_append":
        unsafe extern "C" fn(Req, *const c_char, u16, *const c_char, u16) -> *mut c_char,
    get_var c"uwsgi_get_var": unsafe extern "C" fn(Req, *const c_char, u16, *mut u16) -> *const c_char,
    offload_memory c"uwsgi_offload_request_memory_do": unsafe extern "C" fn(Req, *mut c_char, usize) -> c_int,
}

functions! {
    /// What a mule needs to serve requests.
    MuleCalls:
    apply_routes c"uwsgi_apply_routes": unsafe extern "C" fn(Req) -> c_int,
    close_request c"uwsgi_close_request": unsafe extern "C" fn(Req),
    set_up_protocol c"uwsgi_proto_uwsgi_setup": unsafe extern "C" fn(*mut raw::uwsgi_socket),
    set_harakiri c"set_mule_harakiri": unsafe extern "C" fn(c_int),
}

static CALLS: OnceLock<Option<(Calls, &'static Host)>> = OnceLock::new();

/// The functions, if this uWSGI has all of them.
pub(super) fn get() -> Option<&'static (Calls, &'static Host)> {
    let find = || host::get().and_then(|host| Calls::find(host).map(|calls| (calls, host)));
    CALLS.get_or_init(find).as_ref()
}

/// Whether `wait_milliseconds_hook` only sleeps: the thread serves no other request.
pub(super) fn blocks(host: &Host) -> bool {
    static PLAIN: OnceLock<usize> = OnceLock::new();
    let name: &CStr = c"uwsgi_simple_wait_milliseconds_hook";
    let plain = *PLAIN.get_or_init(|| host.function(name).map_or(0, |address| address.addr()));
    // SAFETY: the hook is set before any request runs; a loop engine replaces it as a whole
    // pointer.
    let hook = unsafe { (*host.server).wait_milliseconds_hook };
    hook.is_none_or(|hook| hook as usize == plain)
}

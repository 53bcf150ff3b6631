//! Requests of the cache protocol (modifier1 111): passes them from the host to
//! `net::handler` and back.

use std::{
    ffi::{CStr, c_char, c_int},
    io::{self, ErrorKind},
    os::fd::BorrowedFd,
    slice,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{host, host::Host, raw};
use crate::{
    capi::host::caches,
    net::{handler::Peer, keepalive::Place},
    os::poll,
};

const UWSGI_OK: c_int = 0;

/// The host's functions for answers, so that its accounting, offloading and async loops keep
/// working.
#[derive(Clone, Copy, Debug)]
struct Functions {
    write: unsafe extern "C" fn(*mut raw::wsgi_request, *mut c_char, usize) -> c_int,
    not_found: unsafe extern "C" fn(*mut raw::wsgi_request),
}

static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();

impl Functions {
    fn of(host: &Host) -> Option<Self> {
        let write = host.function(c"uwsgi_response_write_body_do")?;
        let not_found = host.function(c"uwsgi_404")?;
        // SAFETY: uwsgi.h declares these functions so, and the header is that of the build.
        Some(unsafe {
            Self {
                write: std::mem::transmute::<
                    *const (),
                    unsafe extern "C" fn(*mut raw::wsgi_request, *mut c_char, usize) -> c_int,
                >(write),
                not_found: std::mem::transmute::<*const (), unsafe extern "C" fn(*mut raw::wsgi_request)>(
                    not_found,
                ),
            }
        })
    }
}

/// Serves one request whose packet the host has read. Called by the worker's core that owns the
/// request.
pub(crate) fn handle(request: *mut raw::wsgi_request) -> c_int {
    let Some(host) = host::get() else { return UWSGI_OK };
    let Some(functions) = *FUNCTIONS.get_or_init(|| Functions::of(host)) else {
        host.log("cannot serve the cache protocol: this uWSGI exports no uwsgi_response_write_body_do");
        return UWSGI_OK;
    };
    // SAFETY: the host calls with a live request whose packet it has read: `uh` has the 4 bytes of
    // the header (the size already in the host's byte order), `buffer` at least as many bytes as it
    // says. Neither changes until the request ends, and writing the answer does not touch them.
    let (modifier2, payload) = unsafe {
        let uh = (*request).uh.cast::<u8>();
        let size = uh.add(1).cast::<u16>().read_unaligned();
        (*uh.add(3), slice::from_raw_parts((*request).buffer.cast::<u8>(), size.into()))
    };
    let mut connection = Connection { request, host, functions, buf: Vec::new(), place: None };
    caches::serve(modifier2, payload, &mut connection);
    connection.pass_on();
    UWSGI_OK
}

/// The host's blocking wait functions for reading and writing; 0 = not exported.
static PLAIN: OnceLock<[usize; 2]> = OnceLock::new();

/// Lets remote caches wait through the host's hooks if these run other requests meanwhile (gevent
/// and other loops). The blocking waits are not used: they count whole seconds, and one of them
/// ends at the first signal.
pub(crate) fn install_wait(host: &Host) {
    let address = |name| host.function(name).map_or(0, |f| f.addr());
    PLAIN.get_or_init(|| [c"uwsgi_simple_wait_read_hook", c"uwsgi_simple_wait_write_hook"].map(address));
    poll::install_wait(|fd, write, seconds| {
        let (host, plain) = (host::get()?, PLAIN.get()?[usize::from(write)]);
        // SAFETY: the host sets both hooks before any request runs, and a loop engine replaces them
        // as whole pointers.
        unsafe {
            let hook = if write { (*host.server).wait_write_hook } else { (*host.server).wait_read_hook };
            hook.filter(|&hook| hook as usize != plain).map(|wait| wait(fd, seconds))
        }
    });
}

struct Connection {
    /// Live for as long as `handle` runs, and used by this thread only.
    request: *mut raw::wsgi_request,
    host: &'static Host,
    functions: Functions,
    buf: Vec<u8>,
    /// Where the connection goes after the request.
    place: Option<Place>,
}

impl Connection {
    /// Waits until more of the body can be read; `false` = an error or a timeout. The host counts
    /// whole seconds.
    fn wait(&self, within: Duration) -> bool {
        let seconds = c_int::try_from(within.as_millis().div_ceil(1000)).unwrap_or(c_int::MAX);
        // SAFETY: see `request`; the hook is set before any request runs.
        unsafe {
            let server = self.host.server;
            let seconds = seconds.min((*server).socket_timeout);
            seconds > 0 && (*server).wait_read_hook.is_some_and(|wait| wait((*self.request).fd, seconds) > 0)
        }
    }

    /// Whether the connection is a plain socket that the host no longer watches once it has closed
    /// its own descriptor. TLS and other protocols are excluded, and so is the event queue of an
    /// async loop, which would go on reporting a description that a copy keeps open.
    fn is_plain(&self) -> bool {
        // SAFETY: see `request`; its socket is in the host's list for the life of the process, and
        // a protocol's name is NULL (the default, uwsgi) or NUL-terminated.
        unsafe {
            let name = (*(*self.request).socket).proto_name;
            let uwsgi = name.is_null() || CStr::from_ptr(name) == c"uwsgi";
            let r = &*self.request;
            uwsgi && (*self.host.server).async_ <= 1 && r.fd_closed == 0 && r.proto_parser_remains == 0
        }
    }

    /// Passes a copy of the connection to the thread that serves further requests; the host closes
    /// its own.
    fn pass_on(self) {
        let Some(place) = self.place else { return };
        // SAFETY: see `request`: its descriptor is open until `handle` returns. The copy has no
        // other owner.
        let copy = unsafe { BorrowedFd::borrow_raw((*self.request).fd).try_clone_to_owned() };
        // If no descriptor is free, the client finds the connection closed and opens another.
        if let Ok(copy) = copy {
            place.take_over(copy);
        }
    }
}

impl Peer for Connection {
    // Not by uwsgi_request_body_read: with `post-buffering` it would read a buffer that these
    // requests lack.
    fn read(&mut self, want: usize, within: Duration) -> Option<&[u8]> {
        let end = Instant::now() + within;
        self.buf.resize(want, 0);
        loop {
            // SAFETY: see `request`; the function writes at most `want` bytes to the buffer, which
            // is that long.
            let got = unsafe {
                let read = (*(*self.request).socket).proto_read_body?;
                read(self.request, self.buf.as_mut_ptr().cast(), want)
            };
            match usize::try_from(got) {
                Ok(0) => return None,
                Ok(got) => return self.buf.get(..got),
                Err(_) if io::Error::last_os_error().kind() == ErrorKind::WouldBlock => {
                    if !self.wait(end.saturating_duration_since(Instant::now())) {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: see `request`; the host only reads the bytes, and only during the call.
        let sent = unsafe {
            (self.functions.write)(self.request, bytes.as_ptr().cast_mut().cast(), bytes.len()) == UWSGI_OK
        };
        if !sent {
            self.place = None;
        }
        sent
    }

    fn keep(&mut self) -> bool {
        self.place = if self.is_plain() { caches::reserve() } else { None };
        self.place.is_some()
    }

    fn not_found(&mut self) {
        // SAFETY: see `request`.
        unsafe { (self.functions.not_found)(self.request) };
    }
}

//! `refresh=mule`: mules of their own (`mule = ucache`) refresh old pages, so that no worker is busy
//! with it.
//!
//! A worker gives a mule the variables of the request that found the old page. The mule runs the
//! request as a worker would, from the same route on, and for nobody. The queue is the mule's socket
//! of uWSGI, so it has a bound (`mule-msg-size`), and outlives the mule.

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_int},
    mem::MaybeUninit,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

use super::{
    super::{host::Host, raw},
    calls::{self, MuleCalls},
    request::Request,
};
use crate::capi::panic::guard;

/// What `mule =` says for a mule of this kind.
const PATCH: &CStr = c"ucache";
/// The beginning of a message, then the index of the route (4 bytes), both modifiers, and the
/// variables of the request.
const MAGIC: &[u8; 8] = b"ucache\x00\x01";
const HEAD: usize = MAGIC.len() + 6;
/// Variables have a length of 16 bits.
const LONGEST: usize = HEAD + 65536;

/// What uWSGI's routes and request functions say.
const ROUTE_BREAK: c_int = 2;
const AGAIN: c_int = 1;

static HERE: AtomicBool = AtomicBool::new(false);

/// Whether this process is such a mule.
pub(super) fn is_here() -> bool {
    HERE.load(Ordering::Relaxed)
}

/// A plugin's entry that uWSGI reads and this writes once, at start-up.
struct Slot(UnsafeCell<MaybeUninit<raw::uwsgi_plugin>>);

// SAFETY: written at start-up only, by one thread; see `set_up`.
unsafe impl Sync for Slot {}

static SLOT: Slot = Slot(UnsafeCell::new(MaybeUninit::uninit()));

static CALLS: OnceLock<MuleCalls> = OnceLock::new();

/// Lets uWSGI start the mules with our loop.
///
/// # Errors
/// Why it cannot.
pub(super) fn set_up(host: &'static Host) -> Result<(), String> {
    // SAFETY: start-up is single-threaded; plain numbers, a NULL or NUL-terminated text, and a list
    // of texts that are NULL or NUL-terminated.
    let (lazy, suspends, has_mule) = unsafe {
        let server = &*host.server;
        let mut patch = server.mules_patches;
        let mut has_mule = false;
        while let Some(one) = patch.as_ref() {
            has_mule |= !one.value.is_null() && CStr::from_ptr(one.value) == PATCH;
            patch = one.next;
        }
        (server.lazy != 0 || server.lazy_apps != 0, server.async_ > 1 && server.loop_.is_null(), has_mule)
    };
    if !has_mule {
        return Err("refresh=mule: there is no mule for it; add `mule = ucache`".into());
    }
    if lazy {
        return Err("refresh=mule: mules have no application with lazy-apps; remove one of the two".into());
    }
    if suspends {
        return Err(
            "refresh=mule: a mule cannot run an application that suspends; remove it, or async".into()
        );
    }
    let found = MuleCalls::find(host).ok_or("refresh=mule: this uWSGI lacks functions that it needs")?;
    let _ = CALLS.set(found);
    // SAFETY: start-up is single-threaded; no other code holds a reference to the table. Every
    // unused place of it points to the same entry, which lives as long as the process.
    unsafe {
        let table = &mut (*host.server).p;
        let last = *table.last().unwrap_or(&ptr::null_mut());
        let shared = table.iter().filter(|&&plugin| plugin == last).count() > 1;
        let Some(unused) = last.as_ref().filter(|_| shared) else {
            return Err("refresh=mule: uWSGI has no free place for a plugin".into());
        };
        let slot = SLOT.0.get();
        (*slot).write(raw::uwsgi_plugin { mule: Some(run), ..*unused });
        if let Some(place) = table.last_mut() {
            *place = slot.cast();
        }
    }
    Ok(())
}

/// Gives this request to a mule; `false` = none takes it.
pub(super) fn send(request: &Request) -> bool {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let Some(job) = request.job(MAGIC) else { return false };
    let server = request.host.server;
    // SAFETY: the table of mules is made before any request runs and has that many entries; a patch
    // is NULL or NUL-terminated.
    let sockets: Vec<c_int> = unsafe {
        let count = usize::try_from((*server).mules_cnt).unwrap_or(0);
        let mules = (0..count).map(|n| &*(*server).mules.add(n));
        let ours = mules.filter(|mule| !mule.patch.is_null() && CStr::from_ptr(mule.patch) == PATCH);
        ours.map(|mule| mule.queue_pipe[0]).collect()
    };
    let first = TURN.fetch_add(1, Ordering::Relaxed);
    (0..sockets.len()).any(|n| {
        let fd = sockets[(first + n) % sockets.len()];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the job has that many bytes. One message is sent as a whole, or not at all.
        unsafe { libc::send(fd, job.as_ptr().cast(), job.len(), flags) == job.len().cast_signed() }
    })
}

/// The request of this mule.
static CURRENT: AtomicPtr<raw::wsgi_request> = AtomicPtr::new(ptr::null_mut());

/// What uWSGI and its plugins take for the request that is being served.
///
/// # Safety
/// None: `extern "C"` as uWSGI calls it.
unsafe extern "C" fn current() -> *mut raw::wsgi_request {
    CURRENT.load(Ordering::Relaxed)
}

/// uWSGI asks each plugin whether a new mule is one for it. Ours never returns.
///
/// # Safety
/// uWSGI's contract: a new process, and the NUL-terminated text of `mule =`.
unsafe extern "C" fn run(patch: *mut c_char) -> c_int {
    guard(0, || {
        // SAFETY: the caller's contract.
        if unsafe { CStr::from_ptr(patch) } != PATCH {
            return 0;
        }
        let (Some((_, host)), Some(calls)) = (calls::get(), CALLS.get()) else { return 0 };
        HERE.store(true, Ordering::Relaxed);
        let mut mule = Mule::new(host, calls);
        loop {
            mule.turn();
        }
    })
}

/// A process that refreshes pages.
struct Mule {
    host: &'static Host,
    calls: &'static MuleCalls,
    /// Where jobs come from.
    queue: c_int,
    message: Vec<u8>,
    request: Box<raw::wsgi_request>,
    /// The packet as uWSGI holds it: 4 bytes of header, the variables, room for more of them.
    packet: Vec<u8>,
    vectors: Vec<raw::iovec>,
    socket: Box<raw::uwsgi_socket>,
    /// Maximum time for one page, seconds; 0 = any.
    harakiri: c_int,
    /// When the last request began, microseconds of Unix time.
    began: u64,
}

impl Mule {
    fn new(host: &'static Host, calls: &'static MuleCalls) -> Self {
        // SAFETY: this is the only thread of a new process; uWSGI's struct is the process's own but
        // for the tables that it points to. Zero is a valid request and socket: both hold numbers,
        // pointers and optional functions.
        unsafe {
            let server = &mut *host.server;
            let index = usize::try_from(server.muleid - 1).unwrap_or(0);
            let queue = (*server.mules.add(index)).queue_pipe[1];
            let mut socket: Box<raw::uwsgi_socket> = Box::new(MaybeUninit::zeroed().assume_init());
            (calls.set_up_protocol)(&raw mut *socket);
            socket.fd = -1;
            // What a worker does at the end of a request is not for this process: to end itself
            // after many, to report to the Emperor, to run `final-route` again.
            (server.max_requests, server.reload_on_as, server.reload_on_rss) = (0, 0, 0);
            (server.loyal, server.final_routes) = (1, ptr::null_mut());
            server.current_wsgi_req = Some(current);
            let own = server.harakiri_options.mules;
            let none = raw::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
            Self {
                host,
                calls,
                queue,
                message: vec![0; LONGEST],
                request: Box::new(MaybeUninit::zeroed().assume_init()),
                packet: vec![0; 4 + LONGEST],
                vectors: vec![none; usize::try_from(server.vec_size).unwrap_or(0)],
                socket,
                harakiri: if own > 0 { own } else { server.harakiri_options.workers },
                began: 0,
            }
        }
    }

    /// Waits for a job and does it.
    fn turn(&mut self) {
        let mut ready = libc::pollfd { fd: self.queue, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry; the message has that much room. Errors: a signal, or another mule's
        // turn.
        let len = unsafe {
            libc::poll(&raw mut ready, 1, -1);
            libc::recv(self.queue, self.message.as_mut_ptr().cast(), LONGEST, libc::MSG_DONTWAIT)
        };
        let Ok(len) = usize::try_from(len) else { return };
        if len < HEAD || &self.message[..MAGIC.len()] != MAGIC || len + 4 > HEAD + self.packet.len() {
            self.host.log("a mule of `mule = ucache` got a message that is not for it");
            return;
        }
        let head: [u8; 6] = std::array::from_fn(|n| self.message[MAGIC.len() + n]);
        let route = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        self.packet[4..len - HEAD + 4].copy_from_slice(&self.message[HEAD..len]);
        let Ok(size) = u16::try_from(len - HEAD) else { return };
        self.packet[..4].copy_from_slice(&[head[4], 0, 0, head[5]]);
        self.packet[1..3].copy_from_slice(&size.to_ne_bytes());
        self.harakiri(self.harakiri);
        self.serve(route, usize::from(head[4]));
        self.harakiri(0);
    }

    fn harakiri(&self, seconds: c_int) {
        if self.harakiri > 0 {
            // SAFETY: this process is a mule; the master ends it after that time (0 = never).
            unsafe { (self.calls.set_harakiri)(seconds) };
        }
    }

    /// Runs the request in `packet` from a route on.
    fn serve(&mut self, route: u32, modifier: usize) {
        // SAFETY: the name is NUL-terminated.
        let nowhere = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        if nowhere < 0 {
            return;
        }
        // No two requests of a core may have begun at the same time.
        self.began = (crate::os::clock::unix_millis() * 1000).max(self.began + 1);
        let request = &raw mut *self.request;
        // SAFETY: the request is this process's own and was zeroed, at first or by uWSGI. All that
        // it points to lives as long as the mule, has the sizes that uWSGI expects (more than
        // `buffer-size` can be; `vec_size`), and is used by this thread only. Core 0 of a process that is no
        // worker exists. uWSGI closes the descriptor.
        unsafe {
            let r = &mut *request;
            (r.app_id, r.async_id, r.sendfile_fd) = (-1, 0, -1);
            r.uh = self.packet.as_mut_ptr().cast();
            r.buffer = self.packet.as_mut_ptr().add(4).cast();
            r.hvec = self.vectors.as_mut_ptr();
            (r.socket, r.fd) = (&raw mut *self.socket, nowhere);
            r.start_of_request = self.began;
            r.start_of_request_in_sec = r.start_of_request / 1_000_000;
            r.route_goto = route;
            (r.do_not_log, r.do_not_account, r.do_not_account_avg_rt) = (1, 1, 1);
            CURRENT.store(request, Ordering::Relaxed);
            (*self.host.server).wsgi_req = request;
            let plugin = (*self.host.server).p[modifier];
            if (self.calls.apply_routes)(request) != ROUTE_BREAK
                && let Some(run) = (*plugin).request
            {
                // With an event loop, a plugin returns after each part of the body.
                while run(request) == AGAIN {}
            }
            (self.calls.close_request)(request);
        }
    }
}

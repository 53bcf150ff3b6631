//! A request of uWSGI, for the routes.

use std::{
    ffi::{CStr, c_int},
    io,
    ops::Range,
    slice,
    time::Duration,
};

use super::{
    super::{host::Host, raw},
    asked::Asked,
    calls::{self, Calls},
    chunk::Bytes,
};

/// What routes return that end a request (uwsgi.h).
const ROUTE_BREAK: c_int = 2;
/// `via` of a response that another thread sends (uwsgi.h).
const VIA_OFFLOAD: u16 = 3;
/// Shortest body that is left to an offload thread: a shorter one fits into the socket's buffer.
const OFFLOADED: usize = 64 << 10;

/// A request that is being served: its core belongs to the caller until it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Live, and used by this thread (or greenlet) only, until uWSGI has closed the request.
    raw: *mut raw::wsgi_request,
    /// NULL, or the route that is being run.
    route: *mut raw::uwsgi_route,
    calls: &'static Calls,
    pub(super) host: &'static Host,
}

impl Asked for Request {
    fn var(&self, name: &str) -> Option<&[u8]> {
        let mut len = 0;
        let name_len = u16::try_from(name.len()).ok()?;
        // SAFETY: see `raw`; the name has that many bytes, `len` is writable.
        let value = unsafe { (self.calls.get_var)(self.raw, name.as_ptr().cast(), name_len, &raw mut len) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a variable lies in the request's buffer, which does not change until it ends.
        Some(unsafe { slice::from_raw_parts(value.cast(), len.into()) })
    }
}

impl Request {
    /// # Safety
    /// uWSGI passed `raw` (and `route`, unless NULL) to one of our functions, which is still
    /// running while the result is used.
    pub(super) unsafe fn of(raw: *mut raw::wsgi_request, route: *mut raw::uwsgi_route) -> Option<Self> {
        let (calls, host) = calls::get()?;
        Some(Self { raw, route, calls, host })
    }

    fn get(&self) -> &raw::wsgi_request {
        // SAFETY: see `raw`; functions of uWSGI that write to it run between uses of this
        // reference.
        unsafe { &*self.raw }
    }

    fn change(&self, change: impl FnOnce(&mut raw::wsgi_request)) {
        // SAFETY: see `raw`; `change` calls no function of uWSGI.
        change(unsafe { &mut *self.raw });
    }

    /// The core that serves the request.
    pub(super) fn core(&self) -> c_int {
        self.get().async_id
    }

    /// Tells the requests of one core apart.
    pub(super) fn began(&self) -> u64 {
        self.get().start_of_request
    }

    pub(super) fn status(&self) -> u16 {
        u16::try_from(self.get().status).unwrap_or(0)
    }

    /// A text of the configuration with `$1` and `${VARIABLE}` replaced.
    pub(super) fn translate(&self, template: &[u8]) -> Option<Vec<u8>> {
        if !template.contains(&b'$') || self.route.is_null() {
            return Some(template.to_vec());
        }
        // SAFETY: see `raw` and `route`. A route's subject is the offset of a pointer in the
        // request, and of its length; 0 = the route has none. A route that a program makes
        // (`uwsgi.route()`) lacks the tables that are needed.
        unsafe {
            if (*self.route).condition_ub.is_null() {
                return None;
            }
            let base = self.raw.cast::<u8>();
            let subject = base.add((*self.route).subject).cast::<*mut libc::c_char>().read_unaligned();
            let len = base.add((*self.route).subject_len).cast::<u16>().read_unaligned();
            let matched = (*self.route).subject != 0;
            let (subject, len) = if matched { (subject, len) } else { (std::ptr::null_mut(), 0) };
            let found = (self.calls.translate)(
                self.raw,
                self.route,
                subject,
                len,
                template.as_ptr().cast(),
                template.len(),
            );
            let buffer = found.as_ref()?;
            let text = slice::from_raw_parts(buffer.buf.cast::<u8>(), buffer.pos).to_vec();
            (self.calls.buffer_destroy)(found);
            Some(text)
        }
    }

    /// Whether one of these templates becomes something else than nothing or 0.
    pub(super) fn holds(&self, conditions: &[Vec<u8>]) -> bool {
        let holds = |text: Vec<u8>| !matches!(text.trim_ascii(), b"" | b"0");
        conditions.iter().any(|condition| self.translate(condition).is_none_or(holds))
    }

    /// Sets the variable for request logs.
    pub(super) fn log(&self, value: &str) {
        let len = u8::try_from(value.len()).unwrap_or(0);
        // SAFETY: see `raw`; both texts have the lengths given and are copied.
        unsafe { (self.calls.logvar_add)(self.raw, c"ucache".as_ptr(), 6, value.as_ptr().cast(), len) }
    }

    /// Hides a header of the client from the application: its variable gets the name that
    /// [`asked::Client`](super::asked::Client) looks for.
    pub(super) fn hide(&self, name: &str) {
        let request = self.get();
        let count = request.var_cnt.into();
        // SAFETY: uWSGI has filled that many entries, names and values by turns, each inside the
        // request's buffer, which this thread may write to.
        unsafe {
            let vars = slice::from_raw_parts(request.hvec, count);
            for pair in vars.chunks_exact(2) {
                let text = slice::from_raw_parts_mut(pair[0].iov_base.cast::<u8>(), pair[0].iov_len);
                if text == name.as_bytes() {
                    text[..4].copy_from_slice(b"HID_");
                }
            }
        }
        self.change(|request| request.if_modified_since_len = 0);
    }

    /// Gives the application a variable; `false` = no room in the request's buffer.
    pub(super) fn add_var(&self, name: &str, value: &[u8]) -> bool {
        let (Ok(name_len), Ok(len)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
            return false;
        };
        let (name, value) = (name.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: see `raw`; both texts have the lengths given and are copied.
        unsafe { !(self.calls.req_append)(self.raw, name, name_len, value, len).is_null() }
    }

    /// How many exceptions of the application this core has seen.
    pub(super) fn exceptions(&self) -> u64 {
        let server = self.host.server;
        // SAFETY: uWSGI's table of workers has an entry for this worker, and that one for each of
        // its cores; a request's core is in range.
        unsafe {
            let worker = (*server).workers.offset((*server).mywid as isize);
            (*(*worker).cores.offset(self.core() as isize)).exceptions
        }
    }

    /// Status line and header lines so far; `None` = there are none, or they are sent.
    pub(super) fn headers(&self) -> Option<&[u8]> {
        let request = self.get();
        if request.headers_sent != 0 || request.headers_size != 0 || request.response_size != 0 {
            return None;
        }
        // SAFETY: NULL or uWSGI's buffer with `pos` bytes.
        unsafe {
            let headers = request.headers.as_ref().filter(|headers| !headers.buf.is_null())?;
            Some(slice::from_raw_parts(headers.buf.cast(), headers.pos))
        }
    }

    /// Adds a header; has no effect once they are sent.
    pub(super) fn add_header(&self, name: &[u8], value: &[u8]) -> bool {
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
            return false;
        };
        let (name, value) = (name.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: see `raw`; both texts have the lengths given and are copied.
        unsafe { (self.calls.add_header)(self.raw, name, name_len, value, value_len) == 0 }
    }

    /// Adds a header line to whatever response the request gets.
    pub(super) fn announce(&self, line: &[u8]) {
        let len = u16::try_from(line.len()).unwrap_or(0);
        // SAFETY: see `raw`; the text has that length and is copied.
        unsafe { (self.calls.additional_header)(self.raw, line.as_ptr().cast(), len) }
    }

    /// Begins a response, instead of one whose headers are not sent yet. `own` is the data of the
    /// transformation that does so; NULL = none does. A body that other routes change is not as long
    /// as `Content-Length` says: it has none then.
    pub(super) fn begin(
        &self,
        status: &[u8],
        fields: &[(Vec<u8>, Vec<u8>)],
        own: *const libc::c_void,
    ) -> bool {
        let Ok(len) = u16::try_from(status.len()) else { return false };
        let add = |of_length: bool| {
            let is_length = |name: &[u8]| name.eq_ignore_ascii_case(b"content-length");
            let mut chosen = fields.iter().filter(|(name, _)| is_length(name) == of_length);
            chosen.all(|(name, value)| self.add_header(name, value))
        };
        // SAFETY: see `raw`; the text has that length and is copied.
        let begun = unsafe { (self.calls.prepare_headers)(self.raw, status.as_ptr().cast(), len) == 0 };
        begun
            && add(false)
            && (!own.is_null() || self.run_response_routes())
            && (self.is_changed_behind(own) || add(true))
    }

    /// Runs the routes for responses, which uWSGI would do later: they may add transformations.
    /// `false` = one of them ends the response.
    fn run_response_routes(&self) -> bool {
        if self.get().is_response_routing != 0 {
            return true;
        }
        // SAFETY: see `raw`. It leaves its mark, so that uWSGI does not run them again.
        let ended = unsafe { (self.calls.response_routes)(self.raw) } == ROUTE_BREAK;
        if ended {
            // As uWSGI does it.
            self.change(|request| request.ignore_body = 1);
        }
        !ended
    }

    /// Whether other transformations come after this one; NULL = whether there are any.
    pub(super) fn is_changed_behind(&self, own: *const libc::c_void) -> bool {
        // SAFETY: uWSGI's list of this request, which ends with NULL.
        unsafe {
            let mut at = self.get().transformations;
            while let Some(next) = at.as_ref().map(|one| one.next).filter(|next| !next.is_null()) {
                at = next;
            }
            at.as_ref().is_some_and(|last| own.is_null() || !std::ptr::eq(last.data, own))
        }
    }

    /// Sends the headers and the body.
    pub(super) fn send(&self, body: &[u8]) {
        // SAFETY: see `raw`; uWSGI only reads the body, and only during the call.
        unsafe {
            if body.is_empty() {
                (self.calls.write_headers)(self.raw);
            } else {
                (self.calls.write_body)(self.raw, body.as_ptr().cast(), body.len());
            }
        }
    }

    /// Whether a body of this length is left to an offload thread, which knows no transformations.
    pub(super) fn offloads(&self, len: usize) -> bool {
        // SAFETY: a request has a socket of uWSGI's list.
        len >= OFFLOADED && !self.is_transformed() && unsafe { (*self.get().socket).can_offload } != 0
    }

    /// Sends the headers, and lets an offload thread send a part of `value`: the thread owns it then.
    pub(super) fn offload(&self, value: Bytes, part: Range<usize>) {
        let len = part.len();
        // SAFETY: see `raw`. The thread sends bytes only: the headers go first. uWSGI takes the memory
        // over, and frees it by free(), unless it declines.
        unsafe {
            if (self.calls.write_headers)(self.raw) != 0 {
                return;
            }
            let body = value.give(part);
            if (self.calls.offload_memory)(self.raw, body.cast(), len) != 0 {
                (self.calls.write_body)(self.raw, body.cast(), len);
                libc::free(body.cast());
                return;
            }
        }
        self.change(|request| {
            request.via = VIA_OFFLOAD;
            request.response_size += len;
        });
    }

    /// Whether a route has added a transformation of the response.
    pub(super) fn is_transformed(&self) -> bool {
        !self.get().transformations.is_null()
    }

    /// Whether the body, or a part of it, was sent without the transformations: from a file, or by
    /// another thread.
    pub(super) fn is_sent_otherwise(&self) -> bool {
        self.get().via != 0 || self.get().sendfile_fd >= 0
    }

    pub(super) fn failed_to_write(&self) -> bool {
        self.get().write_errors > 0
    }

    /// Adds a pair of transformations: `each` gets every part of the body, `end` runs when there
    /// are no more.
    pub(super) fn transform(&self, each: calls::Transform, end: calls::Transform, data: *mut libc::c_void) {
        // SAFETY: see `raw`; uWSGI allocates both and frees them at the end of the request. Without
        // a buffer of its own, uWSGI stops at the first one if the body is empty.
        unsafe {
            let first = (self.calls.add_transformation)(self.raw, each, data);
            (*first).can_stream = 1;
            (*first).chunk = (self.calls.buffer_new)(1);
            (*(self.calls.add_transformation)(self.raw, end, data)).is_final = 1;
        }
    }

    /// Sends the rest of a body at the end of the request, from where it is; `false` = the last
    /// transformation is not this one, with `data`.
    pub(super) fn send_last(&self, data: *const libc::c_void, body: &[u8]) -> bool {
        if self.is_changed_behind(data) {
            return false;
        }
        let first = self.get().transformations;
        // SAFETY: Hidden, uWSGI sends the bytes as they are; it only reads them, and only during the
        // call. It goes on with the list later.
        unsafe {
            (*self.raw).transformations = std::ptr::null_mut();
            (self.calls.write_body)(self.raw, body.as_ptr().cast(), body.len());
            (*self.raw).transformations = first;
        }
        true
    }

    /// How many bytes the client's socket takes at once, roughly.
    pub(super) fn room(&self) -> usize {
        let fd = self.get().fd;
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        let (mut size, mut queued): (c_int, c_int) = (0, 0);
        let mut len = 4;
        // SAFETY: all arguments are valid for their lengths during the calls.
        unsafe {
            if libc::poll(&raw mut poll, 1, 0) != 1 || poll.revents & libc::POLLOUT == 0 {
                // An error of the connection shows when the part is written.
                return if poll.revents == 0 { 0 } else { usize::MAX };
            }
            let to = (&raw mut size).cast();
            if libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, to, &raw mut len) != 0 {
                return usize::MAX;
            }
            libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued);
        }
        // The kernel counts its own structures as well.
        usize::try_from((size / 2).saturating_sub(queued)).unwrap_or(0)
    }

    /// Whether the client has closed its connection. One that has only ended its own side may still
    /// read: over TCP, where both look the same, it is taken for that.
    pub(super) fn has_left(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.get().fd, events: 0, revents: 0 };
        // SAFETY: one entry, valid during the call, which does not wait.
        let changed = unsafe { libc::poll(&raw mut poll, 1, 0) } == 1;
        changed && poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
    }

    /// Whether the connection can be closed while the request goes on: it carries one answer, which
    /// ends with its last byte. What routes for responses have added would still wait for more.
    pub(super) fn can_detach(&self) -> bool {
        // SAFETY: uWSGI's list of routes does not change after start-up.
        if !unsafe { (*self.host.server).response_routes }.is_null() {
            return false;
        }
        // SAFETY: a request has a socket of uWSGI's list; a protocol's name is NULL (the default,
        // uwsgi) or NUL-terminated.
        let plain = unsafe {
            let name = (*self.get().socket).proto_name;
            name.is_null() || matches!(CStr::from_ptr(name).to_bytes(), b"uwsgi" | b"http")
        };
        plain && self.get().fd_closed == 0
    }

    /// Closes the client's connection and lets the request begin anew, for nobody. What the log and
    /// the statistics say of the answer is returned, for [`Request::restore`].
    pub(super) fn detach(&self) -> io::Result<Sent> {
        let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        let fd = self.get().fd;
        // SAFETY: the descriptor is the request's own, and keeps its number: uWSGI closes it at the
        // end.
        if unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&nowhere), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut sent = Sent::default();
        self.change(|request| {
            sent = Sent {
                status: request.status,
                headers: request.headers_size,
                body: request.response_size,
                errors: request.write_errors,
            };
            (request.headers_sent, request.headers_size, request.response_size) = (0, 0, 0);
            (request.write_errors, request.write_pos, request.status) = (0, 0, 0);
        });
        Ok(sent)
    }

    /// Undoes what a request for nobody has changed of the figures.
    pub(super) fn restore(&self, sent: &Sent) {
        self.change(|request| {
            (request.status, request.headers_size) = (sent.status, sent.headers);
            (request.response_size, request.write_errors) = (sent.body, sent.errors);
            request.headers_sent = 1;
        });
    }

    /// What a mule needs to run this request from this route on: `magic`, the index of the route,
    /// both modifiers, the variables. `None` = uWSGI's list of routes does not have the route.
    pub(super) fn job(&self, magic: &[u8]) -> Option<Vec<u8>> {
        let mut index = 0_u32;
        // SAFETY: uWSGI's list of routes does not change after start-up. The request's header has 4
        // bytes, and its buffer at least as many as the header says.
        unsafe {
            let mut route = (*self.host.server).routes;
            while route != self.route {
                route = route.as_ref()?.next;
                index += 1;
            }
            let header = self.get().uh.cast::<u8>();
            let size = header.add(1).cast::<u16>().read_unaligned();
            let variables = slice::from_raw_parts(self.get().buffer.cast::<u8>(), size.into());
            let modifiers = [*header, *header.add(3)];
            Some([magic, &index.to_ne_bytes(), &modifiers, variables].concat())
        }
    }

    /// Lets the thread wait without holding up its other requests. `false` = it cannot, or must
    /// not any more.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        if calls::blocks(self.host) {
            std::thread::sleep(time);
            return true;
        }
        let server = self.host.server;
        // SAFETY: the hooks are set before any request runs.
        unsafe {
            if !(*server).rb_async_timeouts.is_null() {
                return self.sleep_async(time);
            }
            let millis = c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX).max(1);
            (*server).wait_milliseconds_hook.is_some_and(|wait| wait(millis) >= 0)
        }
    }

    /// uWSGI's own async loop counts whole seconds: it waits for a timer instead. Without
    /// coroutines it cannot wait at all.
    fn sleep_async(&self, time: Duration) -> bool {
        let server = self.host.server;
        let at =
            libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(time.subsec_nanos()).max(1_000_000) };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: never, it_value: at };
        // SAFETY: the timer is this function's own; the host's hook returns when it can be read.
        // Other requests of the thread may have run meanwhile: the host's idea of the current one
        // is put right.
        unsafe {
            if (*server).schedule_to_main.is_none() {
                return false;
            }
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            if fd < 0 {
                return false;
            }
            libc::timerfd_settime(fd, 0, &raw const spec, std::ptr::null_mut());
            let ready = (*server).wait_read_hook.map(|wait| wait(fd, 2));
            (*server).wsgi_req = self.raw;
            libc::close(fd);
            ready.is_some_and(|ready| ready >= 0)
        }
    }
}

/// Figures of an answer that was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    status: c_int,
    headers: usize,
    body: usize,
    errors: u64,
}

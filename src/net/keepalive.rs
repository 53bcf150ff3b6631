//! Kept connections: one thread of each process that has any answers their further requests
//! (command 17), so that a kept connection occupies no worker.
//!
//! A connection comes here once a request on it has been answered ([`reserve`], then
//! [`Place::take_over`]). It ends with the client, after [`KEEP_ALIVE`] without a request, when a
//! request or its answer takes longer than the socket-timeout, or with the process: at its exit the
//! current request is finished first. A child of fork closes its copies at once and starts with
//! none.

use std::{
    io::{self, ErrorKind, Read},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{
    append_list::AppendList,
    conn,
    fork_sockets::Owned,
    handler::{self, Peer},
    host::{self, Host},
};
use crate::{
    os::{exit, poll::Poller, process::fork_count, worker::PerProcess},
    wire::{
        command::{Command, GOODBYE, KEEP_ALIVE, MAGIC, MAX_KEPT_VALUE, Request},
        packet::{HEADER_LEN, Header, MODIFIER1},
    },
};

/// Most connections that a process keeps; further clients must reconnect for each request.
pub const MOST: usize = 128;
/// Maximum total size of requests and answers in transit in a process, bytes.
const MAX_BYTES: usize = 64 << 20;
/// Requests answered on one connection before the others get their turn.
const TURN: usize = 16;
/// Most time that an exit waits for the current request.
const FAREWELL: Duration = Duration::from_millis(250);

static SERVICES: AppendList<Service> = AppendList::new();
static STARTED: PerProcess = PerProcess::new();
/// Whether [`at_exit`] has been registered; children of fork inherit that.
static EXIT: AtomicBool = AtomicBool::new(false);

/// The state of one process's thread that others see (a child of fork has another `forks`).
#[derive(Debug)]
struct Service {
    host: &'static dyn Host,
    forks: u32,
    places: AtomicUsize,
    inbox: mpsc::Sender<Arrival>,
    wake: UnixDatagram,
    ending: AtomicBool,
    ended: AtomicBool,
}

/// A connection on its way to the thread.
type Arrival = (Owned, Place);

/// A reserved slot for one connection, released when dropped.
#[derive(Debug)]
pub struct Place(&'static Service);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reserves a slot for one more connection of this process; `None` = all are taken, or no thread
/// could be started.
#[must_use]
pub fn reserve(host: &'static dyn Host) -> Option<Place> {
    let service = current(host)?;
    let room = |n| (n < MOST).then_some(n + 1);
    service.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
    Some(Place(service)).filter(|_| !service.ending.load(Ordering::Acquire))
}

impl Place {
    /// Passes the connection to the service, which is the only reader from now on.
    pub fn take_over(self, connection: OwnedFd) {
        // From here on no child of fork keeps a copy, and an exit closes it.
        let socket = Owned::new(Socket::from(connection));
        // A unix socket has no such option.
        let _ = socket.set_tcp_nodelay(true);
        let service = self.0;
        if socket.set_nonblocking(true).is_ok() && service.inbox.send((socket, self)).is_ok() {
            // If its buffer is full, the thread has been woken already.
            let _ = service.wake.send(&[0]);
        }
    }
}

fn current(host: &'static dyn Host) -> Option<&'static Service> {
    let forks = fork_count();
    let found = || SERVICES.iter().find(|s| s.forks == forks);
    if let Some(service) = found() {
        return Some(service);
    }
    if !STARTED.begin() {
        return None;
    }
    if let Err(e) = start(host, forks) {
        host.log(&format!("connections of remote clients are not kept open: cannot start their thread: {e}"));
    }
    found()
}

fn start(host: &'static dyn Host, forks: u32) -> io::Result<()> {
    let (inbox, arrivals) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let (places, ending, ended) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    if !EXIT.swap(true, Ordering::AcqRel) {
        exit::at_exit(at_exit);
    }
    SERVICES.push(Service { host, forks, places, inbox, wake, ending, ended });
    let service = SERVICES.iter().find(|s| s.forks == forks).ok_or(ErrorKind::NotFound)?;
    let started = host::spawn(host, "ucache-keep", move || {
        let _end = End(service);
        run(service, &arrivals, &woken);
    });
    started.inspect_err(|_| service.ending.store(true, Ordering::Release))
}

/// However the thread ends, no further place is given out.
struct End(&'static Service);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ending.store(true, Ordering::Release);
        self.0.ended.store(true, Ordering::Release);
    }
}

extern "C" fn at_exit() {
    // A panic must not leave exit().
    let _ = std::panic::catch_unwind(finish);
}

/// At the process's exit: lets the thread finish the current request and close its connections.
/// Takes no lock and no memory, as uWSGI calls exit() from a signal handler.
fn finish() {
    let forks = fork_count();
    let Some(service) = SERVICES.iter().find(|s| s.forks == forks) else { return };
    if service.ending.swap(true, Ordering::AcqRel) {
        return;
    }
    let _ = service.wake.send(&[0]);
    let end = Instant::now() + FAREWELL;
    while !service.ended.load(Ordering::Acquire) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn run(service: &'static Service, arrivals: &mpsc::Receiver<Arrival>, woken: &UnixDatagram) {
    let arrived = || arrivals.try_iter().map(|(socket, place)| Session::new(service.host, socket, place));
    let mut sessions: Vec<Session> = Vec::new();
    let mut poller = Poller::default();
    let mut scratch = vec![0; 65_536];
    while !service.ending.load(Ordering::Acquire) {
        sessions.extend(arrived());
        poller.clear();
        poller.watch(woken, false);
        sessions.iter().for_each(|session| poller.watch(&**session, session.unsent()));
        let now = Instant::now();
        let next = sessions.iter().map(|session| session.due()).min().unwrap_or(now + KEEP_ALIVE);
        if poller.wait(next.saturating_duration_since(now)).is_err() {
            // Out of memory, in practice: the clients reconnect.
            return;
        }
        if poller.ready(0) {
            while woken.recv(&mut scratch).is_ok() {}
        }
        let now = Instant::now();
        let mut used: usize = sessions.iter().map(Session::bytes).sum();
        let mut at = 0;
        sessions.retain_mut(|session| {
            at += 1;
            let before = session.bytes();
            let alive = if poller.ready(at) || session.again {
                session.turn(&mut scratch, MAX_BYTES.saturating_sub(used - before))
            } else if now < session.end {
                true
            } else {
                session.close();
                false
            };
            used = used - before + if alive { session.bytes() } else { 0 };
            alive
        });
    }
    // Those that came last have been told that they are kept.
    sessions.extend(arrived());
    sessions.iter_mut().for_each(Session::close);
}

/// The activity of a connection, which determines its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Asking,
    Answering,
}

/// One kept connection.
struct Session {
    host: &'static dyn Host,
    socket: Owned,
    _place: Place,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    phase: Phase,
    end: Instant,
    /// Whether the last request asked to keep the connection.
    keep: bool,
    /// Whether there is more work that needs no wait for the peer.
    again: bool,
}

impl std::ops::Deref for Session {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Session {
    fn new(host: &'static dyn Host, socket: Owned, place: Place) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        let (phase, end) = (Phase::Idle, Instant::now() + KEEP_ALIVE);
        Self { host, socket, _place: place, input, output, sent: 0, phase, end, keep: true, again: false }
    }

    fn unsent(&self) -> bool {
        self.sent < self.output.len()
    }

    fn bytes(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// The latest time for its next turn.
    fn due(&self) -> Instant {
        if self.again { Instant::now() } else { self.end }
    }

    /// Does the work that needs no wait; `false` = the connection is finished. `spare` = bytes that
    /// it may allocate.
    fn turn(&mut self, scratch: &mut [u8], spare: usize) -> bool {
        self.again = false;
        for _ in 0..TURN {
            if !self.flush() {
                return false;
            }
            if self.unsent() {
                self.enter(Phase::Answering, self.output.len() as u64);
                return Instant::now() < self.end;
            }
            if !self.keep {
                return false;
            }
            match frame(&self.input) {
                Err(NotARequest) => return false,
                Ok(Some(request)) => {
                    if !self.answer(&request, spare) {
                        return false;
                    }
                }
                Ok(None) => match (&*self.socket).read(scratch) {
                    Ok(0) => return false,
                    Ok(n) if self.input.len() + n > spare => return false,
                    Ok(n) => self.input.extend_from_slice(&scratch[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        self.enter(if self.input.is_empty() { Phase::Idle } else { Phase::Asking }, 0);
                        return Instant::now() < self.end;
                    }
                    Err(_) => return false,
                },
            }
        }
        self.again = true;
        true
    }

    /// Starts a phase with its time limit, which is not extended by slowly arriving bytes.
    fn enter(&mut self, phase: Phase, bytes: u64) {
        if self.phase != phase {
            self.phase = phase;
            let time =
                if phase == Phase::Idle { KEEP_ALIVE } else { handler::time_for(self.host.timeout(), bytes) };
            self.end = Instant::now() + time;
        }
    }

    fn answer(&mut self, request: &Frame, spare: usize) -> bool {
        let (packet, rest) = self.input.split_at(request.body_at);
        let body = &rest[..request.len - request.body_at];
        let spare = spare.saturating_sub(self.input.len());
        let mut answering = Answering { body, output: Vec::new(), spare, keep: false };
        handler::serve(self.host, MAGIC, &packet[HEADER_LEN..], &mut answering);
        let Answering { output, keep, .. } = answering;
        (self.output, self.sent, self.keep) = (output, 0, keep);
        self.input.drain(..request.len);
        self.input.shrink_to(4096);
        // The time limit of a new request starts with it.
        self.phase = Phase::Idle;
        self.end = Instant::now() + KEEP_ALIVE;
        !self.output.is_empty()
    }

    /// Says goodbye before the connection is closed.
    fn close(&mut self) {
        if self.flush() && !self.unsent() {
            // A closed peer needs no goodbye.
            let _ = conn::send(&self.socket, &GOODBYE);
        }
    }

    /// Sends as much as the peer accepts; `false` = it accepts no more.
    fn flush(&mut self) -> bool {
        while self.unsent() {
            match conn::send(&self.socket, &self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
        true
    }
}

/// A complete request in the bytes received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    body_at: usize,
    pub(super) len: usize,
}

/// The bytes are not a request for a kept connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotARequest;

/// `Ok(None)` = incomplete.
pub(super) fn frame(input: &[u8]) -> Result<Option<Frame>, NotARequest> {
    let Some((head, rest)) = input.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = Header::parse(*head);
    if header.modifier1 != MODIFIER1 || header.modifier2 != MAGIC || header.size == 0 {
        return Err(NotARequest);
    }
    let Some(payload) = rest.get(..header.size.into()) else { return Ok(None) };
    let request = Request::parse(payload).map_err(|_| NotARequest)?;
    if request.command == Command::Dump || request.body() > MAX_KEPT_VALUE {
        return Err(NotARequest);
    }
    let body_at = HEADER_LEN + payload.len();
    let len = body_at + usize::try_from(request.body()).map_err(|_| NotARequest)?;
    Ok((input.len() >= len).then_some(Frame { body_at, len }))
}

/// The peer of a request that has arrived completely.
struct Answering<'a> {
    body: &'a [u8],
    output: Vec<u8>,
    spare: usize,
    keep: bool,
}

impl Peer for Answering<'_> {
    fn read(&mut self, want: usize, _: Duration) -> Option<&[u8]> {
        let (now, later) = self.body.split_at_checked(want)?;
        self.body = later;
        Some(now)
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.output.len() + bytes.len() > self.spare {
            // Half an answer is of no use.
            (self.spare, self.output) = (0, Vec::new());
            return false;
        }
        self.output.extend_from_slice(bytes);
        true
    }

    fn not_found(&mut self) {}

    fn keep(&mut self) -> bool {
        self.keep = true;
        true
    }
}

#[cfg(test)]
mod tests;

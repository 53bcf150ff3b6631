//! Connections that a client uses again: one thread of each process that has some answers their further requests
//! (command 17), so that a kept connection occupies no worker.
//!
//! A connection comes here once a request on it has been answered ([`reserve`], then [`Place::take_over`]). It ends
//! with the client, after [`IDLE`] without a request, when a request or its answer takes longer than the
//! socket-timeout, or with the process: at its exit the request in hand is finished first. A child of fork closes its
//! copies at once and starts with none.
#![forbid(unsafe_code)]

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
    inherit::Owned,
    list::List,
    magic::{Command, MAGIC, Request},
    net::{self, Poller},
    packet::{HEADER_LEN, Header, MODIFIER1},
    serve::{self, Peer},
};
use crate::{
    capi::{env, thread},
    os::process::fork_count,
};

/// Most connections that a process keeps; further clients are told to come anew.
pub const MOST: usize = 128;
/// How long a connection is kept without a request. Clients give theirs up earlier.
pub const IDLE: Duration = Duration::from_secs(30);
/// Longest value that is taken over a kept connection, bytes; a longer one needs a connection of its own.
pub const MAX_BODY: u64 = 1 << 20;
/// What is sent before a connection is closed in order: an answer of nothing. No request is read after it, so a client
/// that finds it in the place of its answer knows that the request was not carried out.
pub const GOODBYE: [u8; HEADER_LEN] = [MODIFIER1, 0, 0, MAGIC];
/// Most bytes that requests and answers in transit take in a process, all connections together.
const MAX_BYTES: usize = 64 << 20;
/// Requests of one connection that are answered before the others have their turn.
const TURN: usize = 16;
/// The longest that an exit waits for the request in hand.
const FAREWELL: Duration = Duration::from_millis(250);

static SERVICES: List<Service> = List::new();
static STARTED: thread::Once = thread::Once::new();

/// What others see of the thread of one process (a child of fork has another `forks`).
#[derive(Debug)]
struct Service {
    forks: u32,
    places: AtomicUsize,
    inbox: mpsc::Sender<(Socket, Place)>,
    wake: UnixDatagram,
    ending: AtomicBool,
    ended: AtomicBool,
}

/// A place for one connection, given back when it is dropped.
#[derive(Debug)]
pub struct Place(&'static Service);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place for one more connection of this process; `None` = all are taken, or there is no thread to be had.
#[must_use]
pub fn reserve() -> Option<Place> {
    let service = current()?;
    let room = |n| (n < MOST).then_some(n + 1);
    service.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
    Some(Place(service)).filter(|_| !service.ending.load(Ordering::Acquire))
}

impl Place {
    /// Gives the connection to the service, which is the only one to read from it from now on.
    pub fn take_over(self, connection: OwnedFd) {
        let socket = Socket::from(connection);
        // A unix socket has no such option.
        let _ = socket.set_tcp_nodelay(true);
        let service = self.0;
        if socket.set_nonblocking(true).is_ok() && service.inbox.send((socket, self)).is_ok() {
            // When its buffer is full, the thread has been woken often enough.
            let _ = service.wake.send(&[0]);
        }
    }
}

fn current() -> Option<&'static Service> {
    let forks = fork_count();
    let found = || SERVICES.iter().find(|s| s.forks == forks);
    if let Some(service) = found() {
        return Some(service);
    }
    if !STARTED.begin() {
        return None;
    }
    if let Err(e) = start(forks) {
        env::get().log(&format!("connections of remote clients are not kept: {e}"));
    }
    found()
}

fn start(forks: u32) -> io::Result<()> {
    let (inbox, arrivals) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let (places, ending, ended) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    SERVICES.push(Service { forks, places, inbox, wake, ending, ended });
    let service = SERVICES.iter().find(|s| s.forks == forks).ok_or(ErrorKind::NotFound)?;
    let started = thread::spawn("ucache-keep", move || {
        let _end = End(service);
        run(service, &arrivals, &woken);
    });
    started.inspect_err(|_| service.ending.store(true, Ordering::Release))
}

/// However the thread ends, nobody is promised a place any more.
struct End(&'static Service);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ending.store(true, Ordering::Release);
        self.0.ended.store(true, Ordering::Release);
    }
}

/// At the process's exit: lets the thread finish the request in hand and close its connections. Takes no lock and no
/// memory, as uWSGI calls exit() from a signal handler.
pub(super) fn finish() {
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

fn run(service: &'static Service, arrivals: &mpsc::Receiver<(Socket, Place)>, woken: &UnixDatagram) {
    let mut links: Vec<Link> = Vec::new();
    let mut poller = Poller::default();
    let mut scratch = vec![0; 65_536];
    while !service.ending.load(Ordering::Acquire) {
        links.extend(arrivals.try_iter().map(|(socket, place)| Link::new(Owned::new(socket), place)));
        poller.clear();
        poller.watch(woken, false);
        links.iter().for_each(|link| poller.watch(&**link, link.unsent()));
        let now = Instant::now();
        let next = links.iter().map(|link| link.due()).min().unwrap_or(now + IDLE);
        if poller.wait(next.saturating_duration_since(now)).is_err() {
            // No memory, in practice: the clients come anew.
            return;
        }
        if poller.ready(0) {
            while woken.recv(&mut scratch).is_ok() {}
        }
        let now = Instant::now();
        let mut used: usize = links.iter().map(Link::bytes).sum();
        let mut at = 0;
        links.retain_mut(|link| {
            at += 1;
            let before = link.bytes();
            let alive = if poller.ready(at) || link.again {
                link.turn(&mut scratch, MAX_BYTES.saturating_sub(used - before))
            } else if now < link.end {
                true
            } else {
                link.part();
                false
            };
            used = used - before + if alive { link.bytes() } else { 0 };
            alive
        });
    }
    links.iter_mut().for_each(Link::part);
}

/// What a connection is doing, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Asking,
    Answering,
}

/// One kept connection.
struct Link {
    socket: Owned,
    _place: Place,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    phase: Phase,
    end: Instant,
    /// The request answered last wished a further one.
    keep: bool,
    /// More is to be done without waiting for the peer.
    again: bool,
}

impl std::ops::Deref for Link {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Link {
    fn new(socket: Owned, place: Place) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        let (phase, end) = (Phase::Idle, Instant::now() + IDLE);
        Self { socket, _place: place, input, output, sent: 0, phase, end, keep: true, again: false }
    }

    fn unsent(&self) -> bool {
        self.sent < self.output.len()
    }

    fn bytes(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// When it must have its turn at the latest.
    fn due(&self) -> Instant {
        if self.again { Instant::now() } else { self.end }
    }

    /// Does what can be done without waiting; `false` = the connection is over. `spare` = bytes that it may take.
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
            match whole(&self.input) {
                Err(Stranger) => return false,
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

    /// A phase's time starts when it does, and is not stretched by bytes that drip.
    fn enter(&mut self, phase: Phase, bytes: u64) {
        if self.phase != phase {
            self.phase = phase;
            let time = if phase == Phase::Idle { IDLE } else { serve::time_for(bytes) };
            self.end = Instant::now() + time;
        }
    }

    fn answer(&mut self, request: &Whole, spare: usize) -> bool {
        let (packet, rest) = self.input.split_at(request.body_at);
        let body = &rest[..request.len - request.body_at];
        let spare = spare.saturating_sub(self.input.len());
        let mut answering = Answering { body, output: Vec::new(), spare, keep: false };
        serve::serve(MAGIC, &packet[HEADER_LEN..], &mut answering);
        let Answering { output, keep, .. } = answering;
        (self.output, self.sent, self.keep) = (output, 0, keep);
        self.input.drain(..request.len);
        self.input.shrink_to(4096);
        // A new request's time starts with it.
        self.phase = Phase::Idle;
        self.end = Instant::now() + IDLE;
        !self.output.is_empty()
    }

    /// Takes leave, before the connection is closed.
    fn part(&mut self) {
        if self.flush() && !self.unsent() {
            // Who is gone needs no goodbye.
            let _ = net::send(&self.socket, &GOODBYE);
        }
    }

    /// Sends what the peer takes; `false` = it takes no more.
    fn flush(&mut self) -> bool {
        while self.unsent() {
            match net::send(&self.socket, &self.output[self.sent..]) {
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

/// Where a whole request lies in what has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    body_at: usize,
    pub(super) len: usize,
}

/// What arrived is no request for a kept connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stranger;

/// `Ok(None)` = more must arrive.
pub(super) fn whole(input: &[u8]) -> Result<Option<Whole>, Stranger> {
    let Some((head, rest)) = input.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = Header::parse(*head);
    if header.modifier1 != MODIFIER1 || header.modifier2 != MAGIC || header.size == 0 {
        return Err(Stranger);
    }
    let Some(payload) = rest.get(..header.size.into()) else { return Ok(None) };
    let request = Request::parse(payload).map_err(|_| Stranger)?;
    if request.command == Command::Dump || request.body() > MAX_BODY {
        return Err(Stranger);
    }
    let body_at = HEADER_LEN + payload.len();
    let len = body_at + usize::try_from(request.body()).map_err(|_| Stranger)?;
    Ok((input.len() >= len).then_some(Whole { body_at, len }))
}

/// The peer of a request that has arrived whole.
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
            // Half an answer is none.
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

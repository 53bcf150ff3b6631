//! A proxy between a machine and a server, in a process of its own: it delays, stalls or swallows
//! what goes one way, or cuts connections in the middle of a frame.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use crate::engine_proc::{Child, Scratch};

/// The kinds of connections, told apart by what the client sends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests and replies.
    Data,
    /// Invalidations: the client has sent `CLIENT TRACKING`.
    Tracking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Open,
    /// They take this long.
    Slow(Duration),
    /// They wait until the link is open again; senders notice it when buffers are full.
    Stalled,
    /// They are lost, and no end of the connection is told.
    Lost,
}

/// Where a side listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    /// A port of 127.0.0.1.
    pub(crate) fn local(port: u16) -> Self {
        Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

/// A running proxy; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    words: Arc<Scratch>,
    listens: Address,
    /// With the socket; dropped after the process has ended.
    process: Option<Child>,
    _dir: Option<tempfile::TempDir>,
}

/// Words: a link for each kind and way, a count of cuts for each kind, whether connections are
/// refused.
const CUTS: usize = 4;
const REFUSES: usize = 6;
/// How often a connection looks whether something has changed.
const TICK: Duration = Duration::from_millis(5);

impl Proxy {
    /// A proxy on a unix socket.
    pub(crate) fn start(server: Address) -> Self {
        let dir = tempfile::Builder::new().prefix("ucp").tempdir().expect("a directory");
        let listens = Address::Unix(dir.path().join("s"));
        Self { _dir: Some(dir), ..Self::at(listens, server) }
    }

    /// A proxy at this address.
    pub(crate) fn at(listens: Address, server: Address) -> Self {
        let words = Arc::new(Scratch::new(REFUSES + 1));
        let listener = Listener::bind(&listens);
        let shared = Arc::clone(&words);
        let process = Child::fork(move || serve(&listener, &server, &shared));
        Self { words, listens, process: Some(process), _dir: None }
    }

    /// The URL of a backend behind it.
    pub(crate) fn url(&self) -> String {
        match &self.listens {
            Address::Unix(path) => format!("redis+unix://{}", path.display()),
            Address::Tcp(address) => format!("redis://{address}"),
        }
    }

    /// Changes connections of this kind, those that are open included.
    pub(crate) fn set(&self, kind: Kind, way: Way, link: Link) {
        self.words[place(kind, way)].store(link.word(), SeqCst);
    }

    /// Changes everything.
    pub(crate) fn set_all(&self, link: Link) {
        for kind in [Kind::Data, Kind::Tracking] {
            self.set(kind, Way::ToServer, link);
            self.set(kind, Way::ToClient, link);
        }
    }

    /// Ends the open connections of this kind, in the middle of a frame if one is on its way to the
    /// client.
    pub(crate) fn cut(&self, kind: Kind) {
        self.words[CUTS + kind as usize].fetch_add(1, SeqCst);
    }

    /// Ends new connections at once.
    pub(crate) fn refuse(&self, on: bool) {
        self.words[REFUSES].store(on.into(), SeqCst);
    }
}

fn place(kind: Kind, way: Way) -> usize {
    kind as usize * 2 + way as usize
}

impl Link {
    fn word(self) -> u64 {
        match self {
            Self::Open => 0,
            Self::Stalled => 1,
            Self::Lost => 2,
            Self::Slow(time) => 3 + u64::try_from(time.as_millis()).expect("a short time"),
        }
    }

    fn of(word: u64) -> Self {
        match word {
            0 => Self::Open,
            1 => Self::Stalled,
            2 => Self::Lost,
            millis => Self::Slow(Duration::from_millis(millis - 3)),
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn bind(address: &Address) -> Self {
        match address {
            Address::Unix(path) => Self::Unix(UnixListener::bind(path).expect("a socket")),
            Address::Tcp(address) => Self::Tcp(TcpListener::bind(address).expect("a port")),
        }
    }

    fn accept(&self) -> io::Result<File> {
        match self {
            Self::Unix(listener) => file(Stream::Unix(listener.accept()?.0)),
            Self::Tcp(listener) => file(Stream::Tcp(listener.accept()?.0)),
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection whose reads and writes end after a tick.
fn file(stream: Stream) -> io::Result<File> {
    let (read, write, descriptor): (_, _, OwnedFd) = match stream {
        Stream::Unix(s) => (s.set_read_timeout(Some(TICK)), s.set_write_timeout(Some(TICK)), s.into()),
        Stream::Tcp(s) => {
            s.set_nodelay(true)?;
            (s.set_read_timeout(Some(TICK)), s.set_write_timeout(Some(TICK)), s.into())
        }
    };
    read.and(write)?;
    Ok(File::from(descriptor))
}

fn connect(address: &Address) -> io::Result<File> {
    match address {
        Address::Unix(path) => file(Stream::Unix(UnixStream::connect(path)?)),
        Address::Tcp(address) => file(Stream::Tcp(TcpStream::connect(address)?)),
    }
}

/// Accepts connections for ever.
fn serve(listener: &Listener, server: &Address, words: &Arc<Scratch>) {
    loop {
        let client = listener.accept().expect("connections can be accepted");
        if words[REFUSES].load(SeqCst) == 1 {
            continue;
        }
        let Ok(server) = connect(server) else { continue };
        let connection = Connection {
            words: Arc::clone(words),
            cuts: [0, 1].map(|kind| words[CUTS + kind].load(SeqCst)),
            tracks: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        };
        let connection = Arc::new(connection);
        let (from, to) = (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
        let other = Arc::clone(&connection);
        thread::spawn(move || other.pump(Way::ToServer, &from, &to));
        thread::spawn(move || connection.pump(Way::ToClient, &server, &client));
    }
}

struct Connection {
    words: Arc<Scratch>,
    /// The counts when it was made.
    cuts: [u64; 2],
    tracks: AtomicBool,
    ended: AtomicBool,
}

impl Connection {
    /// Copies one way until the connection ends.
    fn pump(&self, way: Way, from: &File, to: &File) {
        // An error ends the connection as well.
        let _ = self.copy(way, from, to);
        self.ended.store(true, Relaxed);
    }

    fn kind(&self) -> Kind {
        if self.tracks.load(Relaxed) { Kind::Tracking } else { Kind::Data }
    }

    fn is_cut(&self) -> bool {
        let kind = self.kind() as usize;
        self.words[CUTS + kind].load(SeqCst) != self.cuts[kind]
    }

    fn link(&self, way: Way) -> Link {
        Link::of(self.words[place(self.kind(), way)].load(SeqCst))
    }

    fn copy(&self, way: Way, mut from: &File, to: &File) -> io::Result<()> {
        let mut bytes = vec![0; 1 << 16];
        // Pieces on their way, and when they arrive.
        let mut pieces: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        while !self.ended.load(Relaxed) {
            self.deliver(way, to, &mut pieces)?;
            if self.is_cut() {
                return self.break_off(way, to, &pieces);
            }
            if self.link(way) == Link::Stalled {
                thread::sleep(TICK);
                continue;
            }
            match from.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    let piece = bytes[..n].to_vec();
                    if way == Way::ToServer && piece.windows(8).any(|word| word == b"TRACKING") {
                        self.tracks.store(true, Relaxed);
                    }
                    let slow = if let Link::Slow(time) = self.link(way) { time } else { Duration::ZERO };
                    let arrives = Instant::now() + slow;
                    // Nothing overtakes what was sent before.
                    let last = pieces.back().map_or(arrives, |piece| piece.0);
                    pieces.push_back((arrives.max(last), piece));
                }
                Err(e) if is_tick(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends the pieces that arrive, as the link is now.
    fn deliver(&self, way: Way, to: &File, pieces: &mut VecDeque<(Instant, Vec<u8>)>) -> io::Result<()> {
        while pieces.front().is_some_and(|piece| piece.0 <= Instant::now()) && !self.is_cut() {
            let link = self.link(way);
            if link == Link::Stalled {
                break;
            }
            let piece = pieces.pop_front().map(|(_, piece)| piece).unwrap_or_default();
            if link != Link::Lost {
                self.send(to, &piece)?;
            }
        }
        Ok(())
    }

    /// The last that the client gets is half a piece.
    fn break_off(&self, way: Way, to: &File, pieces: &VecDeque<(Instant, Vec<u8>)>) -> io::Result<()> {
        match pieces.front() {
            Some((_, piece)) if way == Way::ToClient => self.send(to, &piece[..piece.len() / 2]),
            _ => Ok(()),
        }
    }

    fn send(&self, mut to: &File, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() && !self.ended.load(Relaxed) {
            match to.write(piece) {
                Ok(n) => piece = &piece[n..],
                Err(e) if is_tick(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

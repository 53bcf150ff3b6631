//! The copy of a cache from another server: `sync=` at start, and `legion-cache-fetch` later.
//!
//! A ucache sends its items as records; a native server, which does not know that request, sends its memory image,
//! for which `items`, `blocksize`, `blocks` and `keysize` must agree. No server down or at odds stops this one: it is
//! logged, and tried again in the background once the servers of this process start.
#![forbid(unsafe_code)]

use std::{
    io::{self, BufReader, ErrorKind, Read},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::SockAddr;

use super::{
    client::{self, Fault},
    dump::{self, Counts, Geometry, Record},
    list::List,
    magic::{Command, Request, Status},
    net::{self, Conn},
    packet::{self, Header},
};
use crate::{
    capi::{env, shown::shown, thread},
    engine::{Engine, Expires, Mode, SetOptions},
    os::clock::unix_secs,
};

/// The longest that one server may take to send a cache, however steadily it sends.
const WHOLE: Duration = Duration::from_secs(900);
/// Bytes a second that a server must send on the average, once its first socket-timeout has passed.
const SLOWEST: u64 = 16_384;
/// The pause between two rounds in the background doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What to copy, and where from.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The cache.
    pub(crate) engine: &'static Engine,
    /// Its name, here and there.
    pub(crate) name: Vec<u8>,
    /// What a native image of it looks like.
    pub(crate) geometry: Geometry,
    /// The servers, in the order to try.
    pub(crate) servers: Vec<Vec<u8>>,
}

/// A server to copy from.
#[derive(Debug)]
struct Source {
    name: Vec<u8>,
    addresses: io::Result<Vec<SockAddr>>,
}

impl Source {
    /// Looks a name up, if this thread may. It is done once: the threads that try again run beside a master that forks
    /// workers, and a worker could inherit the resolver's locks as such a thread held them.
    fn find(name: &[u8]) -> Self {
        let addresses = if net::is_named(name) && !env::get().may_look_up() {
            Err(io::Error::new(
                ErrorKind::InvalidInput,
                "names are looked up at the start only: give an address",
            ))
        } else {
            net::stream_addresses(name)
        };
        Self { name: name.to_vec(), addresses }
    }

    fn connect(&self, timeout: Duration) -> io::Result<Conn> {
        match &self.addresses {
            Ok(addresses) => Conn::open_known(addresses, timeout),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        }
    }
}

/// A copy that no server has given yet.
#[derive(Debug)]
struct Pending {
    job: Job,
    sources: Vec<Source>,
    taken: AtomicBool,
}

static PENDING: List<Pending> = List::new();

/// Copies the cache from the first server that can give it. If none can, the job waits for [`retry_pending`].
pub(crate) fn from_nodes(job: Job) {
    let mut sources: Vec<_> = job.servers.iter().map(|name| Source::find(name)).collect();
    if sources.is_empty() || round(&job, &sources, Mode::Update) {
        return;
    }
    env::get().log(&format!("{}: no server could give a copy, starting without", label(&job)));
    for lost in sources.extract_if(.., |source| source.addresses.is_err()) {
        env::get().log(&format!("{} from {}: is not tried again", label(&job), shown(&lost.name)));
    }
    if !sources.is_empty() {
        PENDING.push(Pending { job, sources, taken: AtomicBool::new(false) });
    }
}

/// Starts a thread for every copy that failed at start. Items stored meanwhile are not replaced.
pub(crate) fn retry_pending() {
    for pending in PENDING.iter().filter(|p| !p.taken.swap(true, Relaxed)) {
        let started = thread::spawn("ucache-sync", || {
            let mut pause = Duration::from_secs(1);
            while !round(&pending.job, &pending.sources, Mode::Add) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        if let Err(e) = started {
            env::get().log(&format!("{}: no thread to try again: {e}", label(&pending.job)));
        }
    }
}

fn label(job: &Job) -> String {
    format!("sync of cache \"{}\"", shown(&job.name))
}

/// One try of every server; `true` = one of them gave a whole copy.
fn round(job: &Job, sources: &[Source], mode: Mode) -> bool {
    sources.iter().any(|source| {
        let from = shown(&source.name);
        let mut store = Store { engine: job.engine, mode, now: unix_secs(), stored: 0, refused: 0 };
        let result = fetch(job, source, &mut |record| store.put(&record));
        let Store { stored, refused, .. } = store;
        let line = match &result {
            Ok(counts) => format!("{stored} items, {refused} refused, {} damaged", counts.damaged),
            Err(fault) => format!("{fault} (after {stored} items)"),
        };
        env::get().log(&format!("{} from {from}: {line}", label(job)));
        result.is_ok()
    })
}

struct Store<'a> {
    engine: &'a Engine,
    mode: Mode,
    now: u64,
    stored: u64,
    refused: u64,
}

impl Store<'_> {
    fn put(&mut self, record: &Record) {
        let expires = super::absolute(record.expires);
        if matches!(expires, Expires::At(time) if time <= self.now) {
            return;
        }
        let options = SetOptions { mode: self.mode, expires, keep_ttl: false, ungettable: record.ungettable };
        match self.engine.set(&record.key, &record.value, &options) {
            Ok(_) => self.stored += 1,
            Err(_) => self.refused += 1,
        }
    }
}

fn fetch(job: &Job, source: &Source, each: &mut dyn FnMut(Record)) -> Result<Counts, Fault> {
    let timeout = env::get().socket_timeout();
    let conn = source.connect(timeout)?;
    conn.write_all(&Request::new(Command::Dump, &job.name, b"").encode()?)?;
    let mut stream = BufReader::with_capacity(65_536, Steady::new(conn, timeout));
    match client::read_answer(&mut stream)? {
        Some(answer) if answer.status == Status::Ok => return Ok(dump::read_records(&mut stream, each)?),
        Some(_) => return Err(Fault::Unsupported("the server has no such cache")),
        // A native server does not know the request and closes.
        None => {}
    }
    let conn = source.connect(timeout)?;
    let ask = Header::cache(6, job.name.len())?;
    conn.write_all(&[&ask.to_bytes(), &job.name[..]].concat())?;
    let mut stream = BufReader::with_capacity(65_536, Steady::new(conn, timeout));
    let (header, payload) =
        client::read_packet(&mut stream)?.ok_or(Fault::Unsupported("the server has no such cache"))?;
    if header.modifier2 != 7 {
        return Err(Fault::Foreign(header));
    }
    agree(&job.geometry, &payload)?;
    Ok(dump::read_image(&job.geometry, &mut stream, each)?)
}

/// Refuses an image that belongs to a cache of another shape.
fn agree(ours: &Geometry, payload: &[u8]) -> Result<(), Fault> {
    let (mut items, mut blocksize) = (Ok(0), Ok(0));
    packet::dictionary(payload, |key, value| match key {
        b"items" => items = packet::number(value, "items"),
        b"blocksize" => blocksize = packet::number(value, "blocksize"),
        _ => {}
    })?;
    for (what, theirs, ours) in [("items", items?, ours.items), ("blocksize", blocksize?, ours.blocksize)] {
        if theirs != ours {
            let text = format!("its cache has {what}={theirs}, this one {ours}");
            return Err(io::Error::new(ErrorKind::InvalidData, text).into());
        }
    }
    Ok(())
}

/// A connection whose deadline moves on with what arrives, up to [`WHOLE`]: a server that drips holds up no start.
struct Steady {
    conn: Conn,
    timeout: Duration,
    start: Instant,
    got: u64,
}

impl Steady {
    fn new(conn: Conn, timeout: Duration) -> Self {
        Self { conn, timeout, start: Instant::now(), got: 0 }
    }
}

impl Read for Steady {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let earned = self.timeout + Duration::from_millis(self.got.saturating_mul(1000) / SLOWEST);
        let left = earned.min(WHOLE).saturating_sub(self.start.elapsed());
        self.conn.extend(self.timeout.min(left));
        let got = self.conn.read(buf)?;
        self.got += got as u64;
        Ok(got)
    }
}

//! Copies a cache from another server: `sync=` at start, and `legion-cache-fetch` later.
//!
//! A ucache sends its items as records; a native server, which does not know that request, sends
//! its memory image, for which `items`, `blocksize`, `blocks` and `keysize` must agree. A server
//! that is down or disagrees does not stop this one: the failure is logged, and the copy is retried
//! in the background once the servers of this process start.

use std::{
    io::{self, BufReader, ErrorKind, Read},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::SockAddr;

use super::{
    append_list::AppendList,
    client::{self, ClientError},
    conn::{self, Conn},
    host::{self, Host},
};
use crate::{
    engine::{Engine, Expires, Mode, SetOptions},
    os::clock::unix_secs,
    wire::{
        command::{Command, Request, Status},
        image::{Geometry, read_image},
        packet::{self, Header},
        records::{Counts, Record, read_records},
        shown::shown,
    },
};

/// Most time that one server gets to send a cache, however steadily it sends.
const WHOLE: Duration = Duration::from_secs(900);
/// Minimum average rate of a server, bytes per second, after the first socket-timeout.
const SLOWEST: u64 = 16_384;
/// The pause between two background rounds doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The parameters of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The process.
    pub(crate) host: &'static dyn Host,
    /// The cache.
    pub(crate) engine: &'static Engine,
    /// Its name, here and there.
    pub(crate) name: Vec<u8>,
    /// The geometry of its native image.
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
    /// Resolves a name, if this thread may. Done only once: retry threads run beside a master that
    /// forks workers, and a worker could inherit the resolver's locks while held by such a thread.
    fn find(host: &dyn Host, name: &[u8]) -> Self {
        let addresses = if conn::is_named(name) && !host.may_look_up() {
            Err(io::Error::new(ErrorKind::InvalidInput, "names are only resolved at start: use an address"))
        } else {
            conn::stream_addresses(name)
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

/// A copy that no server has provided yet.
#[derive(Debug)]
struct Pending {
    job: Job,
    sources: Vec<Source>,
    taken: AtomicBool,
}

static PENDING: AppendList<Pending> = AppendList::new();

/// Copies the cache from the first server that can provide it. If none can, the job waits for
/// [`retry_pending`].
pub(crate) fn from_nodes(job: Job) {
    let mut sources: Vec<_> = job.servers.iter().map(|name| Source::find(job.host, name)).collect();
    if sources.is_empty() || round(&job, &sources, Mode::Set) {
        return;
    }
    job.host.log(&format!("{}: no server could provide a copy; starting empty", label(&job)));
    for lost in sources.extract_if(.., |source| source.addresses.is_err()) {
        job.host.log(&format!("{} from {}: will not be retried", label(&job), shown(&lost.name)));
    }
    if !sources.is_empty() {
        PENDING.push(Pending { job, sources, taken: AtomicBool::new(false) });
    }
}

/// Starts a thread for every copy that failed at start. Items stored meanwhile are not replaced.
pub(crate) fn retry_pending() {
    for pending in PENDING.iter().filter(|p| !p.taken.swap(true, Relaxed)) {
        let started = host::spawn(pending.job.host, "ucache-sync", || {
            let mut pause = Duration::from_secs(1);
            while !round(&pending.job, &pending.sources, Mode::Add) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        if let Err(e) = started {
            pending
                .job
                .host
                .log(&format!("{}: cannot start the thread that retries: {e}", label(&pending.job)));
        }
    }
}

fn label(job: &Job) -> String {
    format!("sync of cache \"{}\"", shown(&job.name))
}

/// Tries every server once; `true` = one of them sent a complete copy.
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
        job.host.log(&format!("{} from {from}: {line}", label(job)));
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
        let expires = host::absolute(record.expires);
        if matches!(expires, Expires::At(time) if time <= self.now) {
            return;
        }
        let options = SetOptions { ungettable: record.ungettable, ..SetOptions::new(self.mode, expires) };
        match self.engine.set(&record.key, &record.value, &options) {
            Ok(_) => self.stored += 1,
            Err(_) => self.refused += 1,
        }
    }
}

fn fetch(job: &Job, source: &Source, each: &mut dyn FnMut(Record)) -> Result<Counts, ClientError> {
    let timeout = job.host.timeout();
    let mut conn = source.connect(timeout)?;
    conn.write_all(&Request::new(Command::Dump, &job.name, b"").encode()?)?;
    let mut stream = BufReader::with_capacity(65_536, Steady::new(conn, timeout));
    match client::read_answer(&mut stream)? {
        Some(answer) if answer.status == Status::Ok => return Ok(read_records(&mut stream, each)?),
        Some(_) => return Err(ClientError::Unsupported("the server has no such cache")),
        // A native server does not know the request and closes the connection.
        None => {}
    }
    let mut conn = source.connect(timeout)?;
    let request = Header::cache(6, job.name.len())?;
    conn.write_all(&[&request.to_bytes(), &job.name[..]].concat())?;
    let mut stream = BufReader::with_capacity(65_536, Steady::new(conn, timeout));
    let (header, payload) =
        client::read_packet(&mut stream)?.ok_or(ClientError::Unsupported("the server has no such cache"))?;
    if header.modifier2 != 7 {
        return Err(ClientError::Foreign(header));
    }
    agree(&job.geometry, &payload)?;
    Ok(read_image(&job.geometry, &mut stream, each)?)
}

/// Refuses an image of a cache with another geometry.
fn agree(ours: &Geometry, payload: &[u8]) -> Result<(), ClientError> {
    let (mut items, mut blocksize) = (Ok(0), Ok(0));
    packet::dictionary(payload, |key, value| match key {
        b"items" => items = packet::number(value, "items"),
        b"blocksize" => blocksize = packet::number(value, "blocksize"),
        _ => {}
    })?;
    for (what, theirs, ours) in [("items", items?, ours.items), ("blocksize", blocksize?, ours.blocksize)] {
        if theirs != ours {
            let text = format!("its cache has {what}={theirs}, this one has {ours}");
            return Err(io::Error::new(ErrorKind::InvalidData, text).into());
        }
    }
    Ok(())
}

/// A connection whose deadline moves on with the bytes received, up to [`WHOLE`]: a slow server
/// cannot delay a start for long.
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

//! The server's side of modifier 111: request bytes in, answer bytes out, no host in sight.
//!
//! | `modifier2` | request | answer |
//! |---|---|---|
//! | 0 | key | header (0) with the length, value of at most 65,535 bytes; nothing for a miss |
//! | 1 | array of key, value | nothing; an existing key stays |
//! | 2 | key | nothing |
//! | 3, 4 | dictionary with `key` or `get` | the value; a miss is nothing for `key`, HTTP 404 for `get` |
//! | 5 | key | header (1), then the value to the end; header (0) for a miss |
//! | 6 | name of a cache or nothing | header (7), dictionary `items`, `blocksize`, memory image |
//! | 17 | see [`magic`](super::magic) | header (17), dictionary, value |
//!
//! 0 to 5 are about the first cache. Where a native server says nothing to a command 17 it cannot fulfil, this one
//! says `notfound` or `error`; native clients take all three for the same.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::{
    dump::{self, Record},
    live,
    magic::{Answer, Command, MAGIC, Request, Status},
    packet::{self, Builder, Header, MAX_FIELD, PacketError},
    throttle::Throttle,
};
use crate::{
    capi::{cache::Cache, env, shown::shown, types::*},
    engine::{Cursor, Meta, Touch},
    error::Error,
    os::clock::unix_secs,
};

/// Largest image that is sent, bytes: what a peer may ask for without asking anybody's leave has an end.
pub const MAX_IMAGE: u64 = 16 << 30;
/// Bytes of value asked for at a time, so that memory follows what arrives.
const PIECE: usize = 65_536;

static REFUSED: Throttle = Throttle::new();

/// The connection a request came from.
pub trait Peer {
    /// The next bytes behind the request's packet, at least one and at most `want`; `None` = gone, or none came
    /// within that time.
    fn read(&mut self, want: usize, within: Duration) -> Option<&[u8]>;
    /// Sends bytes; `false` = gone, or too late.
    fn write(&mut self, bytes: &[u8]) -> bool;
    /// Sends the HTTP answer "404 Not Found".
    fn not_found(&mut self);
    /// Whether further requests are read from this connection. Asked at most once, when the request wishes it and
    /// has arrived whole; the answer tells the client.
    fn keep(&mut self) -> bool {
        false
    }
}

/// Answers one request: `payload` is the packet without its header.
pub fn serve(modifier2: u8, payload: &[u8], peer: &mut dyn Peer) {
    let outcome = match modifier2 {
        // As for native, an empty packet asks for nothing (except for the dump of the first cache).
        6 => image(payload, peer),
        _ if payload.is_empty() => Ok(()),
        0 => short_get(payload, peer),
        1 => array_set(payload),
        2 => find(b"").map(|cache| drop(cache.remove(payload, 0))),
        3 | 4 => dictionary_get(payload, peer),
        5 => stream_get(payload, peer),
        MAGIC => magic(payload, peer),
        other => Err(PacketError::Unknown { what: "cache command", value: other.into() }.into()),
    };
    if let Err(fault) = outcome {
        REFUSED.log(|| format!("request with modifier2 {modifier2} refused: {fault}"));
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("{0}")]
    Cache(#[from] Error),
    #[error("no cache has the name \"{0}\"")]
    NoCache(String),
    #[error(
        "a value of {0} bytes does not fit the answer, at most {MAX_FIELD} do (ask with modifier2 5 or 17)"
    )]
    TooLong(usize),
    #[error("an image of {0:?} bytes is more than {MAX_IMAGE}")]
    Image(Option<u64>),
    #[error("the peer is gone or too slow")]
    Peer,
}

type Outcome<T = ()> = Result<T, Fault>;

/// The value of a key and what is known of it.
pub(super) fn read(cache: &Cache, key: &[u8], touch: Touch) -> Result<Option<(Vec<u8>, Meta)>, Error> {
    let mut value = Vec::new();
    Ok(cache.engine.get(key, touch, &mut value)?.map(|meta| (value, meta)))
}

fn find(name: &[u8]) -> Outcome<&'static Cache> {
    // A peer chooses the name: the log gets no more of it than a real one may have.
    Cache::by_name(name).ok_or_else(|| Fault::NoCache(shown(&name[..name.len().min(255)])))
}

fn send(peer: &mut dyn Peer, parts: &[&[u8]]) -> Outcome {
    let ok = match parts {
        // One segment, where that costs no big copy.
        [head, body] if body.len() <= PIECE => peer.write(&[*head, *body].concat()),
        parts => {
            let mut deadline = Deadline::new();
            let mut pieces = parts.iter().flat_map(|part| part.chunks(PIECE));
            pieces.all(|piece| deadline.send(peer, piece))
        }
    };
    if ok { Ok(()) } else { Err(Fault::Peer) }
}

fn short_get(key: &[u8], peer: &mut dyn Peer) -> Outcome {
    let Some((value, _)) = read(find(b"")?, key, Touch::Yes)? else { return Ok(()) };
    let header = Header::cache(0, value.len()).map_err(|_| Fault::TooLong(value.len()))?;
    send(peer, &[&header.to_bytes(), &value])
}

fn array_set(payload: &[u8]) -> Outcome {
    let [Some(key), Some(value)] = packet::array::<2>(payload)? else { return Ok(()) };
    // A refusal has been logged where it is decided, and this command has no answer.
    let _ = find(b"")?.store(key, value, 0, 0);
    Ok(())
}

fn dictionary_get(payload: &[u8], peer: &mut dyn Peer) -> Outcome {
    let mut asked = Vec::new();
    packet::dictionary(payload, |name, key| {
        if !key.is_empty() && matches!(name, b"key" | b"get") {
            asked.push((name, key));
        }
    })?;
    let cache = find(b"")?;
    for (name, key) in asked {
        match read(cache, key, Touch::Yes)? {
            Some((value, _)) => send(peer, &[&value])?,
            None if name == b"get" => peer.not_found(),
            None => {}
        }
    }
    Ok(())
}

fn stream_get(key: &[u8], peer: &mut dyn Peer) -> Outcome {
    let found = read(find(b"")?, key, Touch::Yes)?;
    let header = Header::cache(u8::from(found.is_some()), 0)?.to_bytes();
    send(peer, &[&header, found.as_ref().map_or(&b""[..], |(value, _)| value)])
}

fn image(name: &[u8], peer: &mut dyn Peer) -> Outcome {
    let cache = find(name)?;
    let g = &live::geometry(cache);
    if g.image_len().is_none_or(|len| len > MAX_IMAGE) {
        return Err(Fault::Image(g.image_len()));
    }
    let mut b = Builder::new();
    b.number("items", g.items)?;
    b.number("blocksize", g.blocksize)?;
    let head = b.finish(7)?;
    // The slots go before the values: what both speak of must not change in between, so it is copied first.
    let mut records = Vec::new();
    each_record(cache, |record| {
        records.push(record);
        true
    })?;
    send(peer, &[&head])?;
    let mut deadline = Deadline::new();
    if dump::write_image(g, &records, &mut |piece| deadline.send(peer, piece)) {
        Ok(())
    } else {
        Err(Fault::Peer)
    }
}

/// Calls `each` for every item that is stored and not expired, until it returns `false`.
fn each_record(cache: &Cache, mut each: impl FnMut(Record) -> bool) -> Outcome {
    let mut cursor = Cursor::default();
    let now = unix_secs();
    while let Some(item) = cache.engine.walk(&mut cursor) {
        // A copy is not a use, and an item that reads miss has no value to copy.
        let expired = item.expires != 0 && item.expires <= now;
        let Some((value, meta)) = (if expired { None } else { read(cache, &item.key, Touch::Unseen)? })
        else {
            continue;
        };
        let (key, expires, ungettable) = (item.key, meta.expires, item.ungettable);
        if !each(Record { key, value, expires, ungettable }) {
            return Err(Fault::Peer);
        }
    }
    Ok(())
}

fn magic(payload: &[u8], peer: &mut dyn Peer) -> Outcome {
    let request = Request::parse(payload);
    let served = match &request {
        Ok(request) => find(request.cache).and_then(|cache| command(cache, request, peer)),
        Err(fault) => Err((*fault).into()),
    };
    // Behind a value that was not read there is no next request to be found.
    let whole = |r: &Request<'_>| r.body() == 0 || served.is_ok();
    let keep = request.is_ok_and(|r| r.keep && whole(&r) && !matches!(served, Ok(None))) && peer.keep();
    let (status, outcome) = match served {
        Ok(Some(status)) => (status, Ok(())),
        Ok(None) => return Ok(()),
        Err(Fault::Peer) => return Err(Fault::Peer),
        Err(fault @ Fault::NoCache(_)) => (Status::NotFound, Err(fault)),
        Err(fault) => (Status::Error, Err(fault)),
    };
    send(peer, &[&Answer { keep, ..status.into() }.encode()?])?;
    outcome
}

/// `Ok(None)` = the answer has been sent.
fn command(cache: &Cache, request: &Request<'_>, peer: &mut dyn Peer) -> Outcome<Option<Status>> {
    let or = |yes, no| Ok(Some(if yes { Status::Ok } else { no }));
    match request.command {
        Command::Get => {
            let Some((value, meta)) = read(cache, request.key, Touch::Yes)? else {
                return Ok(Some(Status::NotFound));
            };
            let keep = request.keep && peer.keep();
            let answer = Answer { size: meta.len, expires: meta.expires, keep, ..Status::Ok.into() };
            send(peer, &[&answer.encode()?, &value])?;
            Ok(None)
        }
        Command::Exists => or(cache.engine.exists(request.key).is_some(), Status::NotFound),
        Command::Del => or(cache.remove(request.key, 0).is_ok(), Status::NotFound),
        Command::Clear => or(cache.empty().is_ok(), Status::Error),
        Command::Set | Command::Update => {
            let value = receive(request.size, cache.engine.config().max_value, peer)?;
            let update = if request.command == Command::Update { FLAG_UPDATE } else { 0 };
            let flags = update | request.flags & (FLAG_UNGETTABLE | FLAG_FIXEXPIRE);
            or(cache.store(request.key, &value, request.expires, flags).is_ok(), Status::Error)
        }
        Command::Math => {
            let flags = FLAG_MATH | request.flags & !(FLAG_ABSEXPIRE | FLAG_LOCAL);
            let operand = request.operand.to_ne_bytes();
            or(cache.store(request.key, &operand, request.expires, flags).is_ok(), Status::Error)
        }
        Command::Dump => {
            send(peer, &[&Answer::from(Status::Ok).encode()?])?;
            let mut deadline = Deadline::new();
            each_record(cache, |r| dump::encode_record(&r).is_none_or(|bytes| deadline.send(peer, &bytes)))?;
            send(peer, &[&dump::end_of_records()])?;
            Ok(None)
        }
    }
}

/// The value that follows a packet. One that cannot be stored is not read at all.
fn receive(size: u64, limit: u64, peer: &mut dyn Peer) -> Outcome<Vec<u8>> {
    if size == 0 {
        return Err(Error::EmptyValue.into());
    }
    if size > limit {
        return Err(Error::ValueTooLong { len: size, limit }.into());
    }
    let size = usize::try_from(size).map_err(|_| Fault::Peer)?;
    let mut deadline = Deadline::new();
    let mut value = Vec::new();
    while value.len() < size {
        let piece = peer.read((size - value.len()).min(PIECE), deadline.left()).ok_or(Fault::Peer)?;
        if piece.is_empty() || piece.len() > size - value.len() || !deadline.open() {
            return Err(Fault::Peer);
        }
        value.try_reserve(piece.len()).map_err(|_| Error::NoSpace { len: size as u64 })?;
        value.extend_from_slice(piece);
        deadline.moved = value.len() as u64;
    }
    Ok(value)
}

/// The longest that a transfer of this many bytes may take: `socket-timeout`, and a second for each megabyte.
pub(super) fn time_for(bytes: u64) -> Duration {
    env::get().socket_timeout() + Duration::from_secs(bytes >> 20)
}

/// The end of one transfer's time, which moves on with what has been transferred: a peer that sends or takes a byte a
/// second does not keep a worker, however much it has announced or asked for.
struct Deadline {
    start: Instant,
    /// Bytes transferred.
    moved: u64,
}

impl Deadline {
    fn new() -> Self {
        Self { start: Instant::now(), moved: 0 }
    }

    fn left(&self) -> Duration {
        time_for(self.moved).saturating_sub(self.start.elapsed())
    }

    fn open(&self) -> bool {
        !self.left().is_zero()
    }

    /// `false` = the peer is gone or too slow.
    fn send(&mut self, peer: &mut dyn Peer, bytes: &[u8]) -> bool {
        let sent = self.open() && peer.write(bytes);
        self.moved += bytes.len() as u64;
        sent
    }
}

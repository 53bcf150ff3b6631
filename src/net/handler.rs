//! The server side of modifier 111: request bytes in, answer bytes out, independent of the host.
//!
//! | `modifier2` | request | answer |
//! |---|---|---|
//! | 0 | key | header (0) with the length, value of at most 65,535 bytes; nothing for a miss |
//! | 1 | array of key, value | nothing; an existing key stays |
//! | 2 | key | nothing |
//! | 3, 4 | dictionary with `key` or `get` | the value; a miss is nothing for `key`, HTTP 404 for `get` |
//! | 5 | key | header (1), then the value to the end; header (0) for a miss |
//! | 6 | name of a cache or nothing | header (7), dictionary `items`, `blocksize`, memory image |
//! | 17 | see [`command`](crate::wire::command) | header (17), dictionary, value |
//!
//! Commands 0 to 5 use the first cache. If command 17 fails, a native server sends no answer, this
//! one sends `notfound` or `error`; native clients treat all three alike.

use std::time::{Duration, Instant};

use super::{
    host::{Host, Served},
    throttle::Throttle,
};
use crate::{
    engine::{Meta, Touch},
    error::Error,
    near::{Position, Tier},
    os::clock::unix_millis,
    wire::{
        command::{Answer, Command, MAGIC, Request, Status},
        flags::*,
        image::write_image,
        packet::{self, Builder, Header, MAX_FIELD, PacketError},
        records::{Record, encode_record, end_of_records},
        shown::shown,
    },
};

/// Largest image that is sent, bytes: a bound on what any peer can request.
pub const MAX_IMAGE: u64 = 16 << 30;
/// Bytes of a value read at a time, so that memory grows with the bytes that arrive.
const PIECE: usize = 65_536;

static REFUSED: Throttle = Throttle::new();

/// The connection of a request.
pub trait Peer {
    /// The next bytes behind the request's packet, between one and `want`; `None` = closed, or none
    /// came within that time.
    fn read(&mut self, want: usize, within: Duration) -> Option<&[u8]>;
    /// Sends bytes; `false` = closed, or timed out.
    fn write(&mut self, bytes: &[u8]) -> bool;
    /// Sends the HTTP answer "404 Not Found".
    fn not_found(&mut self);
    /// Whether further requests will be read from this connection. Called at most once, when the
    /// request allows it and has arrived completely; the answer tells the client.
    fn keep(&mut self) -> bool {
        false
    }
}

/// Answers one request: `payload` is the packet without its header.
pub fn serve(host: &dyn Host, modifier2: u8, payload: &[u8], peer: &mut dyn Peer) {
    let mut exchange = Exchange { host, peer };
    if let Err(fault) = exchange.run(modifier2, payload) {
        REFUSED.log(|line| host.log(line), || format!("request with modifier2 {modifier2} refused: {fault}"));
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("{0}")]
    Cache(#[from] Error),
    #[error("there is no cache named \"{0}\"")]
    NoCache(String),
    #[error("a value of {0} bytes does not fit the answer, the limit is {MAX_FIELD} (use modifier2 5 or 17)")]
    TooLong(usize),
    #[error("an image of {0:?} bytes exceeds the limit of {MAX_IMAGE}")]
    Image(Option<u64>),
    #[error("the peer has closed the connection or is too slow")]
    Peer,
}

type Handled<T = ()> = Result<T, Refusal>;

/// The value of a key and its metadata.
pub(crate) fn read(tier: &Tier, key: &[u8], touch: Touch) -> Result<Option<(Vec<u8>, Meta)>, Error> {
    let mut value = Vec::new();
    Ok(tier.get(key, touch, &mut value)?.map(|meta| (value, meta)))
}

/// Calls `each` for every stored, unexpired item until it returns `false`.
fn each_record(tier: &Tier, mut each: impl FnMut(Record) -> bool) -> Handled {
    let mut cursor = Position::default();
    let now = unix_millis();
    while let Some(item) = tier.walk(&mut cursor) {
        // A copy does not count as a use, and an ungettable item has no value to copy.
        let expired = item.expires_millis != 0 && item.expires_millis <= now;
        let Some((value, meta)) = (if expired { None } else { read(tier, &item.key, Touch::Unseen)? }) else {
            continue;
        };
        let (key, expires, ungettable) = (item.key, meta.expires_secs(), item.ungettable);
        if !each(Record { key, value, expires, ungettable }) {
            return Err(Refusal::Peer);
        }
    }
    Ok(())
}

/// A request being answered.
struct Exchange<'a> {
    host: &'a dyn Host,
    peer: &'a mut dyn Peer,
}

impl Exchange<'_> {
    fn run(&mut self, modifier2: u8, payload: &[u8]) -> Handled {
        match modifier2 {
            // As in native, an empty packet requests nothing, except for the image of the first
            // cache.
            6 => self.image(payload),
            _ if payload.is_empty() => Ok(()),
            0 => self.short_get(payload),
            1 => self.array_set(payload),
            2 => {
                self.find(b"")?.remove(payload);
                Ok(())
            }
            3 | 4 => self.dictionary_get(payload),
            5 => self.stream_get(payload),
            MAGIC => self.magic(payload),
            other => Err(PacketError::Unknown { what: "cache command", value: other.into() }.into()),
        }
    }

    fn find(&self, name: &[u8]) -> Handled<&'static dyn Served> {
        // The peer chooses the name: the log shows no more of it than a valid name can have.
        let shown = || Refusal::NoCache(shown(&name[..name.len().min(255)]));
        self.host.cache(name).ok_or_else(shown)
    }

    fn deadline(&self) -> Deadline {
        Deadline { start: Instant::now(), timeout: self.host.timeout(), moved: 0 }
    }

    fn send(&mut self, parts: &[&[u8]]) -> Handled {
        let ok = match parts {
            // One segment, unless that needs a large copy.
            [head, body] if body.len() <= PIECE => self.peer.write(&[*head, *body].concat()),
            parts => {
                let mut deadline = self.deadline();
                let mut pieces = parts.iter().flat_map(|part| part.chunks(PIECE));
                pieces.all(|piece| deadline.send(self.peer, piece))
            }
        };
        if ok { Ok(()) } else { Err(Refusal::Peer) }
    }

    fn short_get(&mut self, key: &[u8]) -> Handled {
        let Some((value, _)) = read(self.find(b"")?.tier(), key, Touch::Yes)? else { return Ok(()) };
        let header = Header::cache(0, value.len()).map_err(|_| Refusal::TooLong(value.len()))?;
        self.send(&[&header.to_bytes(), &value])
    }

    fn array_set(&self, payload: &[u8]) -> Handled {
        let [Some(key), Some(value)] = packet::array::<2>(payload)? else { return Ok(()) };
        // A refusal has been logged already, and this command has no answer.
        self.find(b"")?.store(key, value, 0, 0);
        Ok(())
    }

    fn dictionary_get(&mut self, payload: &[u8]) -> Handled {
        let mut wanted = Vec::new();
        packet::dictionary(payload, |name, key| {
            if !key.is_empty() && matches!(name, b"key" | b"get") {
                wanted.push((name, key));
            }
        })?;
        let cache = self.find(b"")?;
        for (name, key) in wanted {
            match read(cache.tier(), key, Touch::Yes)? {
                Some((value, _)) => self.send(&[&value])?,
                None if name == b"get" => self.peer.not_found(),
                None => {}
            }
        }
        Ok(())
    }

    fn stream_get(&mut self, key: &[u8]) -> Handled {
        let found = read(self.find(b"")?.tier(), key, Touch::Yes)?;
        let header = Header::cache(u8::from(found.is_some()), 0)?.to_bytes();
        self.send(&[&header, found.as_ref().map_or(&b""[..], |(value, _)| value)])
    }

    fn image(&mut self, name: &[u8]) -> Handled {
        let cache = self.find(name)?;
        let g = &cache.geometry();
        if g.image_len().is_none_or(|len| len > MAX_IMAGE) {
            return Err(Refusal::Image(g.image_len()));
        }
        let mut b = Builder::new();
        b.number("items", g.items)?;
        b.number("blocksize", g.blocksize)?;
        let head = b.finish(7)?;
        // The slots are sent before the values and must match them, so all items are copied first.
        let mut records = Vec::new();
        each_record(cache.tier(), |record| {
            records.push(record);
            true
        })?;
        self.send(&[&head])?;
        let mut deadline = self.deadline();
        if write_image(g, &records, &mut |piece| deadline.send(self.peer, piece)) {
            Ok(())
        } else {
            Err(Refusal::Peer)
        }
    }

    fn magic(&mut self, payload: &[u8]) -> Handled {
        let request = Request::parse(payload);
        let served = match &request {
            Ok(request) => self.find(request.cache).and_then(|cache| self.command(cache, request)),
            Err(fault) => Err((*fault).into()),
        };
        // After an unread value the start of the next request is unknown.
        let whole = |r: &Request<'_>| r.body() == 0 || served.is_ok();
        let keep =
            request.is_ok_and(|r| r.keep && whole(&r) && !matches!(served, Ok(None))) && self.peer.keep();
        let (status, handled) = match served {
            Ok(Some(status)) => (status, Ok(())),
            Ok(None) => return Ok(()),
            Err(Refusal::Peer) => return Err(Refusal::Peer),
            Err(fault @ Refusal::NoCache(_)) => (Status::NotFound, Err(fault)),
            Err(fault) => (Status::Error, Err(fault)),
        };
        self.send(&[&Answer { keep, ..status.into() }.encode()?])?;
        handled
    }

    /// `Ok(None)` = the answer has been sent.
    fn command(&mut self, cache: &dyn Served, request: &Request<'_>) -> Handled<Option<Status>> {
        let or = |yes, no| Ok(Some(if yes { Status::Ok } else { no }));
        match request.command {
            Command::Get => {
                let Some((value, meta)) = read(cache.tier(), request.key, Touch::Yes)? else {
                    return Ok(Some(Status::NotFound));
                };
                let keep = request.keep && self.peer.keep();
                let answer =
                    Answer { size: meta.len, expires: meta.expires_secs(), keep, ..Status::Ok.into() };
                self.send(&[&answer.encode()?, &value])?;
                Ok(None)
            }
            Command::Exists => or(cache.tier().exists(request.key).is_some(), Status::NotFound),
            Command::Del => or(cache.remove(request.key), Status::NotFound),
            Command::Clear => or(cache.clear(), Status::Error),
            Command::Set | Command::Update => {
                let value = self.receive(request.size, cache.tier().max_value())?;
                let update = if request.command == Command::Update { FLAG_UPDATE } else { 0 };
                let flags = update | request.flags & (FLAG_UNGETTABLE | FLAG_FIXEXPIRE);
                or(cache.store(request.key, &value, request.expires, flags), Status::Error)
            }
            Command::Math => {
                let flags = FLAG_MATH | request.flags & !(FLAG_ABSEXPIRE | FLAG_LOCAL);
                let operand = request.operand.to_ne_bytes();
                or(cache.store(request.key, &operand, request.expires, flags), Status::Error)
            }
            Command::Dump => {
                self.send(&[&Answer::from(Status::Ok).encode()?])?;
                let mut deadline = self.deadline();
                each_record(cache.tier(), |r| {
                    encode_record(&r).is_none_or(|bytes| deadline.send(self.peer, &bytes))
                })?;
                self.send(&[&end_of_records()])?;
                Ok(None)
            }
        }
    }

    /// Reads the value behind a packet. A value that cannot be stored is not read at all.
    fn receive(&mut self, size: u64, limit: u64) -> Handled<Vec<u8>> {
        if size == 0 {
            return Err(Error::EmptyValue.into());
        }
        if size > limit {
            return Err(Error::ValueTooLong { len: size, limit }.into());
        }
        let size = usize::try_from(size).map_err(|_| Refusal::Peer)?;
        let mut deadline = self.deadline();
        let mut value = Vec::new();
        while value.len() < size {
            let want = (size - value.len()).min(PIECE);
            let piece = self.peer.read(want, deadline.left()).ok_or(Refusal::Peer)?;
            if piece.is_empty() || piece.len() > size - value.len() || !deadline.open() {
                return Err(Refusal::Peer);
            }
            value.try_reserve(piece.len()).map_err(|_| Error::NoSpace { len: size as u64 })?;
            value.extend_from_slice(piece);
            deadline.moved = value.len() as u64;
        }
        Ok(value)
    }
}

/// Maximum time for a transfer of this many bytes: `socket-timeout`, plus a second for each
/// megabyte.
pub(super) fn time_for(timeout: Duration, bytes: u64) -> Duration {
    timeout + Duration::from_secs(bytes >> 20)
}

/// The deadline of one transfer, which moves with the bytes transferred: a peer that sends or takes
/// a byte per second does not occupy a worker, however much it has announced or requested.
struct Deadline {
    start: Instant,
    timeout: Duration,
    /// Bytes transferred.
    moved: u64,
}

impl Deadline {
    fn left(&self) -> Duration {
        time_for(self.timeout, self.moved).saturating_sub(self.start.elapsed())
    }

    fn open(&self) -> bool {
        !self.left().is_zero()
    }

    /// `false` = the peer is closed or too slow.
    fn send(&mut self, peer: &mut dyn Peer, bytes: &[u8]) -> bool {
        let sent = self.open() && peer.write(bytes);
        self.moved += bytes.len() as u64;
        sent
    }
}

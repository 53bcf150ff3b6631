//! Self-checking values: a reader can tell whether they are whole, their key, writer and age.
//!
//! Every 16 bytes hold `key:32 | writer:8 len:24 | seq:32 | sum:32`, where the sum covers the other
//! three words and the block's place, so that a block of another value, another version or another
//! place never fits. A value of 8 bytes holds `key:16 | writer:8 | seq:24 | sum:16`. The last block
//! may be cut short.
#![allow(dead_code, reason = "every test binary uses its own part")]

use ucache::{
    Result,
    engine::{Cursor, Engine, Item, Meta, Sink, Touch},
    shm::SharedBytes,
};

/// Maximum length of a stamped value.
pub(crate) const MAX_LEN: usize = (1 << 24) - 1;

/// The origin of a value: key, writer and sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) key: u32,
    pub(crate) writer: u8,
    pub(crate) seq: u32,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not the bytes of one write.
    Torn,
    /// The whole value of another key.
    Foreign(Stamp),
}

fn mix(a: u32, b: u32, c: u32, place: u32) -> u32 {
    let mut x = (u64::from(a) << 32 | u64::from(b)) ^ (u64::from(c) << 20) ^ u64::from(place).rotate_left(48);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((x ^ (x >> 31)) >> 32).expect("32 bits")
}

fn block(stamp: Stamp, len: usize, place: usize) -> [u8; 16] {
    let size = u32::from(stamp.writer) << 24 | u32::try_from(len).expect("at most MAX_LEN");
    let sum = mix(stamp.key, size, stamp.seq, u32::try_from(place).expect("at most MAX_LEN"));
    let mut out = [0; 16];
    for (slot, word) in out.chunks_exact_mut(4).zip([stamp.key, size, stamp.seq, sum]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn small(stamp: Stamp) -> [u8; 8] {
    assert!(stamp.key < 1 << 16, "8-byte values number 65,536 keys");
    let seq = stamp.seq & 0xff_ffff;
    let sum = mix(stamp.key, u32::from(stamp.writer), seq, 8) & 0xffff;
    (u64::from(stamp.key) << 48 | u64::from(stamp.writer) << 40 | u64::from(seq) << 16 | u64::from(sum))
        .to_le_bytes()
}

/// The value of `len` bytes (8, or 16 to [`MAX_LEN`]) with this stamp.
pub(crate) fn write(stamp: Stamp, len: usize, out: &mut Vec<u8>) {
    out.clear();
    if len == 8 {
        out.extend_from_slice(&small(stamp));
        return;
    }
    assert!((16..=MAX_LEN).contains(&len), "a length without a form");
    for place in 0..len.div_ceil(16) {
        let bytes = block(stamp, len, place);
        out.extend_from_slice(&bytes[..bytes.len().min(len - place * 16)]);
    }
}

/// Checks that `value` is whole and belongs to `key`. In an 8-byte value the sequence has 24 bits.
pub(crate) fn read(key: u32, value: &[u8]) -> std::result::Result<Stamp, Fault> {
    let stamp = if let Ok(bytes) = <[u8; 8]>::try_from(value) {
        let word = u64::from_le_bytes(bytes);
        let part = |shift: u32, mask: u64| u32::try_from(word >> shift & mask).expect("masked");
        let stamp = Stamp {
            key: part(48, 0xffff),
            writer: u8::try_from(part(40, 0xff)).expect("masked"),
            seq: part(16, 0xff_ffff),
        };
        if small(stamp) != bytes {
            return Err(Fault::Torn);
        }
        stamp
    } else {
        read_long(value).ok_or(Fault::Torn)?
    };
    if stamp.key == key { Ok(stamp) } else { Err(Fault::Foreign(stamp)) }
}

fn read_long(value: &[u8]) -> Option<Stamp> {
    let head: &[u8; 16] = value.first_chunk()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let stamp = Stamp { key: word(0), writer: head[7], seq: word(8) };
    if value.len() > MAX_LEN || word(4) & 0xff_ffff != u32::try_from(value.len()).ok()? {
        return None;
    }
    let whole = value.chunks(16).enumerate().all(|(place, chunk)| {
        let bytes = block(stamp, value.len(), place);
        chunk == &bytes[..chunk.len()]
    });
    whole.then_some(stamp)
}

/// A sink that keeps the bytes.
#[derive(Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Sink for Bytes {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        src.copy_to_vec(&mut self.0);
        true
    }
}

/// A sink that calls a function when the engine passes the value.
pub(crate) struct Hook<F>(pub(crate) F);

impl<F: FnMut()> Sink for Hook<F> {
    fn take(&mut self, _src: &SharedBytes<'_>) -> bool {
        (self.0)();
        true
    }
}

/// Reads `key` into new bytes.
pub(crate) fn get(engine: &Engine, key: &[u8], touch: Touch) -> Result<Option<(Meta, Vec<u8>)>> {
    let mut sink = Bytes::default();
    Ok(engine.get(key, touch, &mut sink)?.map(|meta| (meta, sink.0)))
}

/// All items of a walk.
pub(crate) fn all_items(engine: &Engine) -> Vec<Item> {
    let mut cursor = Cursor::default();
    std::iter::from_fn(|| engine.walk(&mut cursor)).collect()
}

/// The bytes of a key, all different: usually 4 to about 60 of them, about 500 for one key in 32.
pub(crate) fn key_bytes(key: u32, out: &mut Vec<u8>) {
    out.clear();
    let len = if key % 32 == 31 { 500 } else { 4 + usize::try_from(key % 57).expect("small") };
    while out.len() < len {
        out.extend_from_slice(&key.to_le_bytes());
    }
    out.truncate(len);
}

/// Inverse of [`key_bytes`]; `None` = not a key of these tests.
pub(crate) fn key_number(bytes: &[u8]) -> Option<u32> {
    let key = u32::from_le_bytes(*bytes.first_chunk()?);
    let mut again = Vec::new();
    key_bytes(key, &mut again);
    (again == bytes).then_some(key)
}

//! The parsers of the cache protocol. The first byte chooses one; what it accepts is written again
//! and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ucache::wire::{
    command::{Answer, MAX_TTL, Request},
    datagram::Datagram,
    image::{Geometry, read_image},
    packet::{self, HEADER_LEN},
    records::{encode_record, end_of_records, read_records},
};

/// djb33x, as a native cache hashes by default.
fn hash(key: &[u8]) -> u32 {
    key.iter()
        .fold(5381, |hash: u32, byte| (hash << 5).wrapping_add(hash) ^ i32::from(byte.cast_signed()) as u32)
}

fn fields(payload: &[u8]) {
    let mut bytes = 0;
    let whole = packet::dictionary(payload, |key, value| bytes += key.len() + value.len() + 4);
    assert!(if whole.is_ok() { bytes == payload.len() } else { bytes < payload.len() });
    if let Ok(items) = packet::array::<3>(payload) {
        assert!(items.iter().flatten().all(|item| !item.is_empty()));
    }
}

fn request(payload: &[u8]) {
    let Ok(request) = Request::parse(payload) else { return };
    let Ok(again) = request.encode() else { return };
    let read = Request::parse(&again[HEADER_LEN..]).expect("our own packet");
    assert_eq!((read.command, read.cache, read.key), (request.command, request.cache, request.key));
    assert_eq!((read.body(), read.flags, read.keep), (request.body(), request.flags, request.keep));
    assert!(request.expires > MAX_TTL || read.expires == request.expires);
}

fn answer(payload: &[u8]) {
    let Ok(answer) = Answer::parse(payload) else { return };
    assert_eq!(Answer::parse(&answer.encode().expect("short")[HEADER_LEN..]), Ok(answer));
}

fn datagram(bytes: &[u8]) {
    let Ok(datagram) = Datagram::parse(bytes) else { return };
    assert_eq!(Datagram::parse(&datagram.encode().expect("it came in one")), Ok(datagram));
}

fn records(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut count = 0;
    let whole = read_records(&mut &bytes[..], &mut |record| {
        assert!(!record.key.is_empty() && !record.value.is_empty());
        again.extend(encode_record(&record).expect("its lengths fit"));
        count += 1;
    });
    assert!(again.len() <= bytes.len());
    if whole.is_ok() {
        again.extend(end_of_records());
        assert_eq!(read_records(&mut &again[..], &mut |_| {}).expect("our own stream").items, count);
    }
}

fn image(bytes: &[u8]) {
    let shape = Geometry {
        items: 6,
        blocks: 8,
        blocksize: 16,
        keysize: 8,
        hashsize: 4,
        hash,
        bitmap: true,
        lru: true,
    };
    let mut found = 0;
    let _ = read_image(&shape, &mut &bytes[..], &mut |record| {
        found += 1;
        assert!((1..=8).contains(&record.key.len()) && (1..=128).contains(&record.value.len()));
    });
    assert!(found <= 6);
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let parsers: [fn(&[u8]); 6] = [fields, request, answer, datagram, records, image];
    parsers[usize::from(*which) % parsers.len()](bytes);
});

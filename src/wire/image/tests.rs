use super::*;
use crate::wire::{
    records::{encode_record, end_of_records, read_records},
    testing::Random,
};

fn geometry() -> Geometry {
    Geometry {
        items: 20,
        blocks: 20,
        blocksize: 64,
        keysize: 16,
        hashsize: 4,
        hash: |key| Algorithm::Djb33x.hash(key),
        bitmap: false,
        lru: false,
    }
}

fn records(n: usize) -> Vec<Record> {
    (0..n)
        .map(|i| Record {
            key: format!("key{i}").into_bytes(),
            value: vec![u8::try_from(i).unwrap() + 1; 1 + i * 3],
            expires: if i % 2 == 0 { 0 } else { 4_000_000_000 + i as u64 },
            ungettable: i == 3,
        })
        .collect()
}

fn image(g: &Geometry, records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(write_image(g, records, &mut |piece| {
        bytes.extend_from_slice(piece);
        true
    }));
    bytes
}

fn read_back(g: &Geometry, mut bytes: &[u8]) -> (Vec<Record>, io::Result<Counts>) {
    let mut found = Vec::new();
    let counts = read_image(g, &mut bytes, &mut |r| found.push(r));
    (found, counts)
}

fn word(image: &[u8], g: &Geometry, slot: u64, word: usize) -> u64 {
    let at = usize::try_from(slot * (88 + g.keysize)).unwrap() + word * 8;
    u64::from_ne_bytes(image[at..at + 8].try_into().unwrap())
}

#[test]
fn an_image_has_native_s_size_and_gives_its_items_back() {
    for (bitmap, lru) in [(false, false), (true, false), (false, true)] {
        let g = Geometry { bitmap, lru, ..geometry() };
        let bytes = image(&g, &records(15));
        assert_eq!(bytes.len() as u64, g.image_len().unwrap());
        assert_eq!(bytes.len(), 20 * (88 + 16) + 20 * 64);
        let (found, counts) = read_back(&g, &bytes);
        assert_eq!(counts.unwrap(), Counts { items: 15, damaged: 0 });
        assert_eq!(found, records(15));
    }
}

/// Native's use of an image: heads are the slots without `prev`, from which it follows `next`.
#[test]
fn every_key_is_reached_through_the_chain_of_its_bucket() {
    let g = Geometry { lru: true, ..geometry() };
    let records = records(19);
    let bytes = image(&g, &records);
    for record in &records {
        let bucket = u64::from((g.hash)(&record.key) % g.hashsize);
        let in_bucket = |s: &u64| word(&bytes, &g, *s, 1) != 0 && word(&bytes, &g, *s, 2) % 4 == bucket;
        let heads: Vec<u64> = (1..20).filter(|s| in_bucket(s) && word(&bytes, &g, *s, 7) == 0).collect();
        assert_eq!(heads.len(), 1);
        let (mut slot, mut before, mut found) = (heads[0], 0, false);
        while slot != 0 {
            assert_eq!(word(&bytes, &g, slot, 7), before);
            let at = usize::try_from(slot).unwrap() * (88 + 16) + 88;
            found |= bytes[at..at + record.key.len()] == record.key[..];
            (before, slot) = (slot, word(&bytes, &g, slot, 8));
        }
        assert!(found, "{record:?}");
    }
    let order: Vec<u64> =
        std::iter::successors(Some(1), |s| Some(word(&bytes, &g, *s, 10)).filter(|s| *s != 0)).collect();
    assert_eq!(order, (1..20).collect::<Vec<_>>());
}

#[test]
fn records_that_do_not_fit_are_left_out() {
    let g = geometry();
    let mut many = records(30);
    many.truncate(25);
    assert_eq!(read_back(&g, &image(&g, &many)).0.len(), 19);
    let long = |key: usize, value: usize| Record {
        key: vec![b'k'; key],
        value: vec![b'v'; value],
        ..Record::default()
    };
    for record in [long(17, 1), long(1, 65), long(0, 1), long(1, 0)] {
        assert_eq!(read_back(&g, &image(&g, &[record])).0, []);
    }
    let g = Geometry { bitmap: true, ..g };
    assert_eq!(read_back(&g, &image(&g, &[long(1, 64 * 10), long(2, 64 * 10)])).0.len(), 1);
}

#[test]
fn a_cut_image_is_an_error_and_a_writer_without_reader_stops() {
    let g = geometry();
    let bytes = image(&g, &records(5));
    for len in [0, 1, 87, 88 + 16, bytes.len() - 1] {
        let error = read_back(&g, &bytes[..len]).1.expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
    let g = Geometry { items: 100_000, blocks: 100_000, ..g };
    let mut pieces = 0;
    assert!(!write_image(&g, &[], &mut |_| {
        pieces += 1;
        pieces < 3
    }));
    assert_eq!(pieces, 3);
    assert_eq!(Geometry { blocks: u64::MAX, ..g }.image_len(), None);
}

#[test]
fn slots_that_contradict_themselves_are_counted_and_dropped() {
    let g = geometry();
    let good = image(&g, &records(3));
    // (word, value): key too long, wrong hash, no value, value too long, block outside, overflowing
    // sum.
    for (w, value) in [(1, 17), (2, 1), (3, 0), (3, 65), (4, 20), (4, u64::MAX / 8), (3, u64::MAX)] {
        let mut bytes = good.clone();
        let at = 2 * (88 + 16) + w * 8;
        bytes[at..at + 8].copy_from_slice(&u64::to_ne_bytes(value));
        let (found, counts) = read_back(&g, &bytes);
        assert_eq!(counts.unwrap(), Counts { items: 2, damaged: 1 }, "word {w} = {value}");
        assert!(!found.iter().any(|r| r.key == b"key1"));
    }
    // Two slots that claim the same block.
    let mut bytes = good;
    let at = 2 * (88 + 16) + 4 * 8;
    bytes[at..at + 8].copy_from_slice(&1_u64.to_ne_bytes());
    assert_eq!(read_back(&g, &bytes).1.unwrap(), Counts { items: 2, damaged: 1 });
}

#[test]
fn records_come_back_and_a_cut_stream_is_noticed() {
    let mut stream: Vec<u8> = records(9).iter().flat_map(|r| encode_record(r).unwrap()).collect();
    stream.extend_from_slice(&end_of_records());
    let read = |bytes: &[u8]| {
        let mut found = Vec::new();
        let counts = read_records(&mut &*bytes, &mut |r| found.push(r));
        (found, counts)
    };
    let (found, counts) = read(&stream);
    assert_eq!((found, counts.unwrap()), (records(9), Counts { items: 9, damaged: 0 }));
    for len in 0..stream.len() {
        assert_eq!(read(&stream[..len]).1.expect_err("cut").kind(), ErrorKind::UnexpectedEof);
    }
    assert!(encode_record(&Record { key: vec![0; 65_536], ..Record::default() }).is_none());
}

#[test]
fn fuzzed_images_and_streams_hand_out_only_what_fits() {
    let g = geometry();
    let mut random = Random(4);
    let good = image(&g, &records(19));
    let mut stream: Vec<u8> = records(5).iter().flat_map(|r| encode_record(r).unwrap()).collect();
    stream.extend_from_slice(&end_of_records());
    let mut kept = 0;
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(20) {
            let at = random.below(20 * (88 + 16));
            bytes[at] = random.bytes(1)[0];
        }
        let (found, counts) = read_back(&g, &bytes);
        let counts = counts.expect("the image is whole");
        assert_eq!(found.len() as u64, counts.items);
        assert!(counts.items + counts.damaged <= 20);
        assert!(found.iter().all(|r| (1..=16).contains(&r.key.len()) && (1..=64).contains(&r.value.len())));
        kept += found.len();
        let _ = read_records(&mut &random.damage(&stream)[..], &mut |r| {
            assert!(!r.key.is_empty() && !r.value.is_empty());
        });
    }
    assert!(kept > 2_000 * 10, "too few items survived: {kept}");
}

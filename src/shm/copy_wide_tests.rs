//! Tests of the ways to copy: each by hand, and which of them a simulated processor gets.

use super::*;

const L2: usize = 512 << 10;
const NONE: Processor = Processor { avx2: false, strings: false, any_address: false, l2: L2 };

/// Every combination of what a processor can have.
fn processors() -> impl Iterator<Item = Processor> {
    (0..8).map(|bits| Processor {
        avx2: bits & 1 != 0,
        strings: bits & 2 != 0,
        any_address: bits & 4 != 0,
        l2: L2,
    })
}

#[allow(clippy::disallowed_macros, reason = "a test that is skipped says so")]
fn ways() -> Vec<Way> {
    if !std::arch::is_x86_feature_detected!("avx2") {
        eprintln!("no AVX2: its copies are not tested");
        return vec![Way::Sse, Way::String];
    }
    vec![Way::Sse, Way::Ends, Way::Avx, Way::Ahead, Way::Streaming, Way::String]
}

/// Whether the way may copy so many bytes.
fn is_for(way: Way, len: usize) -> bool {
    match way {
        Way::Sse | Way::String => len >= 16,
        Way::Ends => (128..=256).contains(&len),
        Way::Avx | Way::Ahead | Way::Streaming => len >= 256,
    }
}

#[test]
fn every_way_copies_exactly_from_and_to_anywhere() {
    let src: Vec<u8> = (0..9000u32).map(|i| (i * 31 / 7) as u8).collect();
    for way in ways() {
        for (from, to) in (0..64).flat_map(|i| [(i, 0), (0, i), (i, 64 - i)]) {
            let lengths = (128..520).chain([4096, 8191]).filter(|&len| is_for(way, len));
            for len in lengths {
                let mut dst = vec![0xEE_u8; to + len + 64];
                // SAFETY: both vectors have `len` bytes from there on; the way is for such
                // lengths, and `ways` asked for AVX2.
                unsafe { copy(way, src.as_ptr().add(from), dst.as_mut_ptr().add(to), len) };
                assert_eq!(&dst[to..to + len], &src[from..from + len], "{way:?} {from} {to} {len}");
                let around = dst[..to].iter().chain(&dst[to + len..]);
                assert!(around.into_iter().all(|&b| b == 0xEE), "{way:?} {from} {to} {len}");
            }
        }
    }
}

#[test]
fn a_way_is_only_chosen_where_it_can_be() {
    let lengths = (16..70_000).step_by(7).chain([L2, 2 * L2, 8 * L2, 64 * L2]);
    for (len, p) in lengths.flat_map(|len| processors().map(move |p| (len, p))) {
        for side in [Side::Load, Side::Store] {
            let way = p.way(side, len, 2048);
            let has = match way {
                Way::Sse => true,
                Way::String => p.strings,
                _ => p.avx2,
            };
            assert!(has && is_for(way, len), "{p:?} {side:?} {len}: {way:?}");
        }
    }
}

#[test]
fn the_way_follows_from_what_the_processor_is() {
    let sse = Processor { strings: true, ..NONE };
    let zen = Processor { avx2: true, strings: true, any_address: false, l2: L2 };
    let intel = Processor { any_address: true, ..zen };
    let way = |p: Processor, side, len| p.way(side, len, 2048);
    for (p, len, load, store) in [
        (NONE, 1 << 20, Way::Sse, Way::Sse),
        (sse, 1023, Way::Sse, Way::Sse),
        (sse, 1024, Way::String, Way::String),
        (zen, 127, Way::Sse, Way::Sse),
        (zen, 128, Way::Ends, Way::Ends),
        (zen, 256, Way::Ends, Way::Ends),
        (zen, 257, Way::Avx, Way::Avx),
        (zen, AHEAD_FROM - 1, Way::Avx, Way::Avx),
        (zen, AHEAD_FROM, Way::Ahead, Way::Avx),
        (zen, 8 * L2 - 1, Way::Ahead, Way::Avx),
        (zen, 8 * L2, Way::Ahead, Way::Streaming),
        (intel, 4096, Way::Avx, Way::Avx),
        (intel, 32 << 10, Way::String, Way::String),
        (intel, 8 * L2, Way::String, Way::String),
    ] {
        assert_eq!([way(p, Side::Load, len), way(p, Side::Store, len)], [load, store], "{p:?} {len}");
    }
    // So many bytes above the source, and below.
    for (apart, expected) in [(127, Way::Sse), (128, Way::String), (-128, Way::Sse), (-129, Way::String)] {
        let apart = 5_isize * 4096 + apart;
        assert_eq!(sse.way(Side::Load, 4096, apart.cast_unsigned()), expected, "{apart}");
    }
}

#[test]
fn a_processor_is_what_its_bits_say() {
    for p in processors() {
        assert_eq!(Processor::from_bits(p.to_bits()), p);
    }
    let here = Processor::here();
    assert_eq!(here, Processor::here());
    assert!(here.l2 >= 256 << 10, "{here:?}");
    assert_eq!(here.avx2, std::arch::is_x86_feature_detected!("avx2"));
}

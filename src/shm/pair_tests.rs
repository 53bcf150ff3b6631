//! Every way in which this processor can exchange a pair.

use std::{
    sync::atomic::Ordering::{AcqRel, Relaxed, Release},
    thread,
};

use super::*;

type Exchange = fn(&Pair, (u64, u64), u64) -> Option<(u64, u64)>;

fn ways() -> Vec<(&'static str, Exchange)> {
    let mut ways: Vec<(&'static str, Exchange)> = Vec::new();
    if exchanges_pairs() {
        // SAFETY: just checked.
        ways.push(("the one in use", |pair, expected, new| unsafe { pair.exchange(expected, new) }));
    }
    #[cfg(target_arch = "aarch64")]
    ways.push(("exclusive load and store", |pair, expected, new| {
        Some(aarch64::exchange_exclusive(pair, expected, new)).filter(|seen| *seen != expected)
    }));
    ways
}

fn pair(first: u64, second: u64) -> Pair {
    Pair([AtomicU64::new(first), AtomicU64::new(second)])
}

/// Adds to the first word while the second is as expected.
fn add(exchange: Exchange, pair: &Pair, second: u64, n: u64) -> bool {
    let mut first = pair.0[0].load(Relaxed);
    loop {
        match exchange(pair, (first, second), first.wrapping_add(n)) {
            None => return true,
            Some((_, other)) if other != second => return false,
            Some((seen, _)) => first = seen,
        }
    }
}

#[test]
fn only_both_words_together_are_exchanged() {
    const OTHER: u64 = 1 << 63;
    for (way, exchange) in ways() {
        let pairs = [pair(1, 2), pair(5, 77), pair(3, 4)];
        let words = || pairs.each_ref().map(|pair| pair.0.each_ref().map(|word| word.load(Relaxed)));
        let before = words();
        // Each differs in one bit, at one end or the other.
        for expected in [(4, 77), (5, 76), (4, 76), (5 | OTHER, 77), (5, 77 | OTHER), (77, 5)] {
            assert_eq!(exchange(&pairs[1], expected, 9), Some((5, 77)), "{way}: {expected:?}");
            assert_eq!(words(), before, "{way}: {expected:?}");
        }
        assert_eq!(exchange(&pairs[1], (5, 77), u64::MAX), None, "{way}");
        assert_eq!(words(), [[1, 2], [u64::MAX, 77], [3, 4]], "{way}");
        assert_eq!(exchange(&pairs[1], (u64::MAX, 77), u64::MAX), None, "{way}: the same value");
    }
}

#[test]
fn no_exchange_of_two_threads_is_lost() {
    const TIMES: u64 = 20_000;
    for (way, exchange) in ways() {
        let pair = pair(0, u64::MAX);
        thread::scope(|scope| {
            for n in [1, 1 << 32] {
                let pair = &pair;
                scope.spawn(move || (0..TIMES).for_each(|_| assert!(add(exchange, pair, u64::MAX, n))));
            }
        });
        assert_eq!(pair.0[0].load(Relaxed), TIMES << 32 | TIMES, "{way}");
    }
}

/// As the writers of a shard do: the second word is taken away, the first read, both stored anew.
#[test]
fn what_was_exchanged_is_seen_when_the_second_word_is_taken_away() {
    const TIMES: u64 = 20_000;
    for (way, exchange) in ways() {
        let pair = &pair(0, 1);
        let [first, second] = &pair.0;
        let mut moved = 0;
        thread::scope(|scope| {
            let adding = scope.spawn(|| {
                let mut added = 0;
                while added < TIMES {
                    let now = second.load(Relaxed);
                    added += u64::from(now != 0 && add(exchange, pair, now, 1));
                }
            });
            for n in 1.. {
                (0..n % 64).for_each(|_| std::hint::spin_loop());
                assert_eq!(second.swap(0, AcqRel), n, "{way}");
                moved += first.swap(0, Relaxed);
                (0..n % 8).for_each(|_| std::hint::spin_loop());
                assert_eq!(first.load(Relaxed), 0, "{way}: it changed without its second word");
                second.store(n + 1, Release);
                if adding.is_finished() {
                    break;
                }
            }
        });
        assert_eq!(moved + first.load(Relaxed), TIMES, "{way}");
    }
}

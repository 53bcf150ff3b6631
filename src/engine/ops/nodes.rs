//! Copies of values that are at several places, such as the primaries of a cluster: each place has
//! a beat of its own.
//!
//! The beat of the region (`ops::beat`) is that of the place with the oldest one. While it is new
//! enough, a reader needs no other. When it is not, the place of the key decides: one that is dead
//! costs the use of its own copies only.
//!
//! All words are of one term. What an owner of an earlier term, that was stopped, writes late is
//! found under no number of the present term: copies are not used then, and never wrongly.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, ops::beat::Beat},
    shm::{layout::header, order::beat, sync::*},
};

/// Words of a place, by byte offset.
const NUMBER: u64 = 0;
/// The number in this term; 0 = this entry and those behind it are not used.
const MARK: u64 = 8;
const BEAT: u64 = 16;
const LINK: u64 = 24; // 2 words

/// The most places that an owner hears.
pub(crate) const MOST: usize = header::NODES_COUNT as usize;

/// A number that is valid in one term only; never 0.
fn marked(number: u64, term: u16) -> u64 {
    (number ^ (u64::from(term) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1)
}

impl Engine {
    fn node_word(&self, at: usize, word: u64) -> &AtomicU64 {
        let at = (at as u64).min(header::NODES_COUNT - 1);
        self.region.word(header::NODES + at * header::NODE + word)
    }

    /// Begins to hear these places (at most [`MOST`]), of which `digest` says which one has which
    /// keys. None has a beat. `false` = another term has begun.
    pub(crate) fn begin_nodes(&self, term: u16, digest: u64, numbers: &[u64]) -> bool {
        if self.beat().term() != term {
            return false;
        }
        let places = self.region.word(header::PLACES);
        places.store(0, beat::RAISE_LAST);
        for at in 0..MOST {
            let number = numbers.get(at).copied();
            self.node_word(at, MARK).store(0, beat::RAISE_LAST);
            self.node_word(at, BEAT).store(Beat::new(term, None).bits(), beat::RAISE_LAST);
            self.note_node_link(at, [0; 2]);
            self.node_word(at, NUMBER).store(number.unwrap_or(0), Relaxed);
            let mark = number.map_or(0, |number| marked(number, term));
            self.node_word(at, MARK).store(mark, beat::RAISE_LAST);
        }
        places.store(marked(digest, term), beat::RAISE_LAST);
        true
    }

    /// Whether the owner of this term hears the places that this digest is of.
    pub(crate) fn hears_places(&self, term: u16, digest: u64) -> bool {
        self.region.word(header::PLACES).load(beat::READ) == marked(digest, term)
    }

    /// Where the words of a place are in this term; `None` = it is not heard.
    pub(crate) fn node(&self, term: u16, number: u64) -> Option<usize> {
        let mark = marked(number, term);
        let marks = (0..MOST).map(|at| self.node_word(at, MARK).load(beat::READ));
        marks.take_while(|&mark| mark != 0).position(|other| other == mark)
    }

    /// The beat of a place. To be loaded before a copy is looked for.
    pub(crate) fn node_beat(&self, at: usize) -> Beat {
        Beat::of_bits(self.node_word(at, BEAT).load(beat::READ))
    }

    /// Raises it: every change there up to `millis` has been applied. `false` = another term has
    /// begun.
    pub(crate) fn raise_node_beat(&self, at: usize, term: u16, millis: u64) -> bool {
        let raised =
            |now| (Beat::of_bits(now).term() == term).then_some(Beat::new(term, Some(millis)).bits());
        self.node_word(at, BEAT).fetch_update(beat::RAISE, beat::READ, raised).is_ok()
    }

    /// Two words by which the owner's connection to a place can be found: zeros = there is none.
    pub(crate) fn node_link(&self, at: usize) -> [u64; 2] {
        [LINK, LINK + 8].map(|word| self.node_word(at, word).load(beat::READ))
    }

    /// Notes them, before copies and placeholders are removed.
    pub(crate) fn note_node_link(&self, at: usize, words: [u64; 2]) {
        for (word, value) in [LINK, LINK + 8].into_iter().zip(words) {
            self.node_word(at, word).store(value, beat::RAISE_LAST);
        }
    }

    /// The places of the last term and the connections to them, of whatever owner.
    pub(crate) fn node_links(&self) -> Vec<(u64, [u64; 2])> {
        let all = (0..MOST).map(|at| (self.node_word(at, NUMBER).load(Relaxed), self.node_link(at)));
        all.filter(|(number, link)| *number != 0 && *link != [0; 2]).collect()
    }

    /// A process has seen that another place has some keys.
    pub(crate) fn note_doubt(&self) {
        let doubt = self.region.word(header::DOUBT);
        if doubt.load(Relaxed) == 0 {
            doubt.store(1, Relaxed);
        }
    }

    /// Whether that was noted since the last call.
    pub(crate) fn take_doubt(&self) -> bool {
        self.region.word(header::DOUBT).swap(0, Relaxed) != 0
    }

    /// When a place may be asked again, for all processes; `None` = there is no more room for
    /// another one.
    pub(crate) fn next_try_of(&self, number: u64) -> Option<&AtomicU64> {
        (0..header::TRIES_COUNT).find_map(|at| {
            let at = header::TRIES + at * 16;
            let owner = self.region.word(at);
            let is_its = match owner.load(Relaxed) {
                0 => {
                    owner.compare_exchange(0, number, Relaxed, Relaxed).map_or_else(|n| n == number, |_| true)
                }
                other => other == number,
            };
            is_its.then(|| self.region.word(at + 8))
        })
    }

    /// Whether the last call of a place of this term failed; before the first term, of any place.
    pub(crate) fn is_place_down(&self) -> bool {
        let heard = (0..MOST).take_while(|&at| self.node_word(at, MARK).load(Relaxed) != 0);
        let heard: Vec<_> = heard.map(|at| self.node_word(at, NUMBER).load(Relaxed)).collect();
        (0..header::TRIES_COUNT).map(|at| header::TRIES + at * 16).any(|at| {
            let [number, next] = [at, at + 8].map(|word| self.region.word(word).load(Relaxed));
            next != 0 && (heard.is_empty() || heard.contains(&number))
        })
    }

    /// A store that was opened again: the times may be those of another boot.
    pub(in crate::engine) fn forget_nodes(&self) {
        let words =
            [(header::NODES, header::NODES_COUNT * header::NODE), (header::TRIES, header::TRIES_COUNT * 16)];
        for (start, len) in words {
            (start..start + len).step_by(8).for_each(|at| self.region.word(at).store(0, Relaxed));
        }
        self.region.word(header::PLACES).store(0, Relaxed);
        self.region.word(header::DOUBT).store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;

    #[test]
    fn each_place_has_a_beat_of_its_own() {
        let e = Engine::create(&Config::new("places", 10)).expect("a cache");
        let term = e.begin_term(None).expect("a term");
        assert!(e.node(term, 7).is_none() && !e.hears_places(term, 5));
        assert!(e.begin_nodes(term, 5, &[7, 8]));
        assert!(e.hears_places(term, 5) && !e.hears_places(term, 6));
        let [a, b] = [7, 8].map(|number| e.node(term, number).expect("it is heard"));
        assert!(e.node(term, 9).is_none() && a != b);
        assert!(e.node_beat(a).time().is_none() && e.node_link(a) == [0; 2]);
        e.note_node_link(b, [1, 2]);
        assert!(e.raise_node_beat(b, term, 30));
        assert_eq!((e.node_beat(b).time(), e.node_beat(a).time()), (Some(30), None));
        assert_eq!(e.node_links(), [(8, [1, 2])]);
    }

    #[test]
    fn what_an_owner_of_an_earlier_term_writes_counts_for_nothing() {
        let e = Engine::create(&Config::new("late places", 10)).expect("a cache");
        let first = e.begin_term(None).expect("a term");
        assert!(e.begin_nodes(first, 5, &[7]));
        let second = e.begin_term(Some(e.beat())).expect("another");
        assert!(!e.begin_nodes(first, 5, &[7]));
        assert!(e.begin_nodes(second, 5, &[7]));
        assert!(!e.raise_node_beat(0, first, 9) && e.node(first, 7).is_none());
        assert!(!e.hears_places(first, 5) && e.hears_places(second, 5));
        assert!(e.raise_node_beat(0, second, 9));
        e.forget_nodes();
        assert!(e.node(second, 7).is_none() && !e.hears_places(second, 5) && e.node_links().is_empty());
    }

    #[test]
    fn a_place_that_fails_is_told_while_it_is_heard() {
        let e = Engine::create(&Config::new("failing places", 10)).expect("a cache");
        assert!(!e.copy_stats().is_down);
        e.next_try_of(6).expect("room").store(4, Relaxed);
        assert!(e.copy_stats().is_down, "nobody has found the places yet");
        let term = e.begin_term(None).expect("a term");
        assert!(e.begin_nodes(term, 5, &[7, 8]));
        assert!(!e.copy_stats().is_down, "it is none of them");
        e.next_try_of(8).expect("room").store(4, Relaxed);
        assert!(e.copy_stats().is_down);
        e.next_try_of(8).expect("room").store(0, Relaxed);
        assert!(!e.copy_stats().is_down);
    }

    #[test]
    fn as_many_places_as_there_is_room_for() {
        let e = Engine::create(&Config::new("many places", 10)).expect("a cache");
        let term = e.begin_term(None).expect("a term");
        let numbers: Vec<_> = (1..=MOST as u64 + 1).collect();
        assert!(e.begin_nodes(term, 5, &numbers));
        assert_eq!(e.node(term, MOST as u64), Some(MOST - 1));
        assert!(e.node(term, MOST as u64 + 1).is_none());
        assert!(!e.take_doubt());
        e.note_doubt();
        assert!(e.take_doubt() && !e.take_doubt());
        e.next_try_of(1).expect("room").store(4, Relaxed);
        assert_eq!(e.next_try_of(1).expect("room").load(Relaxed), 4);
        assert!((2..=header::TRIES_COUNT).all(|n| e.next_try_of(n).expect("room").load(Relaxed) == 0));
        assert!(e.next_try_of(header::TRIES_COUNT + 1).is_none() && e.next_try_of(1).is_some());
    }
}

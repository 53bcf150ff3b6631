//! `engine::exclusive`: a flag, then every shard's lock once; a writer takes its lock, then looks
//! at the flag.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// The writer checks the flag before it has its lock.
    LookFirst,
    /// The exclusive owner does not wait for writers that are inside.
    NoLocks,
}

struct Words {
    flag: AtomicU64,
    shard: Mutex<()>,
    inside: AtomicU64,
    bug: Bug,
}

fn writer(w: &Words) {
    let early = w.bug == Bug::LookFirst && w.flag.load(exclusive::CHECK) == 0;
    let _shard = w.shard.lock().expect("the shard");
    if early || (w.bug != Bug::LookFirst && w.flag.load(exclusive::CHECK) == 0) {
        assert_eq!(w.inside.fetch_or(1, SeqCst) & 2, 0, "a write while another process is exclusive");
        w.inside.fetch_and(!1, SeqCst);
    }
}

fn alone(w: &Words) {
    w.flag.store(1, exclusive::ANNOUNCE);
    if w.bug != Bug::NoLocks {
        drop(w.shard.lock().expect("the shard"));
    }
    assert_eq!(w.inside.fetch_or(2, SeqCst) & 1, 0, "exclusive while a writer is inside");
    w.inside.fetch_and(!2, SeqCst);
    w.flag.store(0, exclusive::ANNOUNCE);
}

pub(crate) fn is_alone(bug: Bug) -> bool {
    holds(move || {
        let w = Words { flag: AtomicU64::new(0), shard: Mutex::new(()), inside: AtomicU64::new(0), bug };
        together(&Arc::new(w), vec![writer, alone]);
    })
}

//! `engine::sweep::clear`: an entry keeps the low bits of its generation; here two values, checked
//! at each clear.

use super::*;

const TURN: u64 = 2;

struct Words {
    generation: AtomicU64,
    /// Under the shard's lock: the generation it was reaped for, and that of its entry + 1 (0 =
    /// none).
    shard: Mutex<(u64, u64)>,
    /// The bug: the check uses another generation than the exchange.
    apart: bool,
}

fn reap(w: &Words) {
    let mut shard = w.shard.lock().expect("the shard");
    let now = w.generation.load(clear::READ);
    if shard.1 != 0 && shard.1 - 1 != now {
        shard.1 = 0;
    }
    shard.0 = now;
}

fn clear(w: &Words) {
    let mut seen = w.generation.load(clear::READ);
    loop {
        // No entry from the previous cycle of generations may be left.
        if seen + 1 - w.shard.lock().expect("the shard").0 >= TURN {
            reap(w);
        }
        if w.apart {
            w.generation.fetch_add(1, clear::ADVANCE);
            return;
        }
        match w.generation.compare_exchange(seen, seen + 1, clear::ADVANCE, clear::READ) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

pub(crate) fn never_return(apart: bool) -> bool {
    holds(move || {
        let w = Words { generation: AtomicU64::new(0), shard: Mutex::new((0, 1)), apart };
        let w = Arc::new(w);
        together(&w, vec![clear, clear]);
        let (_, entry) = *w.shard.lock().expect("the shard");
        let now = w.generation.load(SeqCst);
        assert!(
            entry == 0 || entry - 1 == now || (entry - 1) % TURN != now % TURN,
            "an entry of {now} - {TURN}"
        );
    })
}

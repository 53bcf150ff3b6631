//! Compares answers: equal, or different by a numbered rule, or a failure with everything needed to
//! repeat it.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    config,
    model::{Expect, Tags},
    op::{Answer, Kind},
    pair::Step,
};

/// Steps kept for the report.
const HISTORY: usize = 40_000;
/// Steps on the same key that the report shows.
const SHOWN: usize = 14;

/// The results of the comparison.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) same: u64,
    /// Operations with different answers, by all the rules that apply.
    pub(crate) rules: BTreeMap<u32, u64>,
    /// Operations that were changed for native (D-04).
    pub(crate) kept_away: u64,
    pub(crate) by_cache: Vec<u64>,
    history: std::collections::VecDeque<(u64, Step)>,
}

impl Tally {
    /// Compares one step.
    ///
    /// # Errors
    /// The report of a difference without a rule.
    pub(crate) fn compare(&mut self, step: Step, native: &Answer, ucache: &Answer) -> Result<(), String> {
        let wrong = if !step.native.allows(native) {
            Some("uWSGI's own cache does not answer as its model")
        } else if !step.ucache.allows(ucache) {
            Some("ucache does not answer as it should")
        } else if native != ucache && step.tags == 0 {
            Some("the answers differ without a rule")
        } else if step.op.kind == Kind::Keys && other_hashes(&step, native, ucache) {
            Some("the hashes of the keys differ")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(self.report(wrong, &step, native, ucache));
        }
        let cache = usize::from(step.op.cache);
        self.by_cache.resize(self.by_cache.len().max(cache + 1), 0);
        self.by_cache[cache] += 1;
        self.kept_away += u64::from(step.op.flags != step.native_op.flags);
        if native == ucache {
            self.same += 1;
        } else {
            for number in numbers(step.tags) {
                *self.rules.entry(number).or_insert(0) += 1;
            }
        }
        self.history.push_back((self.steps, step));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.steps += 1;
        Ok(())
    }

    fn report(&self, wrong: &str, step: &Step, native: &Answer, ucache: &Answer) -> String {
        let cache = &config::all()[usize::from(step.op.cache)];
        let mut text = format!("{wrong}\noperation {} on {}: {}\n", self.steps, cache.name, cache.text);
        let _ = writeln!(text, "  {}", step.op.brief());
        if step.op.flags != step.native_op.flags {
            let _ = writeln!(text, "  native gets {}", step.native_op.brief());
        }
        let _ =
            writeln!(text, "  native answers {}\n       expected {}", native.brief(), expected(&step.native));
        let _ =
            writeln!(text, "  ucache answers {}\n       expected {}", ucache.brief(), expected(&step.ucache));
        let _ = writeln!(text, "  rules {:?}", numbers(step.tags).collect::<Vec<_>>());
        let here = |old: &Step| {
            old.op.cache == step.op.cache && (old.op.key == step.op.key || old.op.kind == Kind::MagicClear)
        };
        let _ = writeln!(text, "before, on the same key:");
        let past: Vec<_> = self.history.iter().rev().filter(|(_, old)| here(old)).take(SHOWN).collect();
        for (number, old) in past.into_iter().rev() {
            let _ = writeln!(text, "  {number} {}\n      -> {}", old.op.brief(), expected(&old.ucache));
        }
        let _ = writeln!(text, "before, on the same cache:");
        let here: Vec<_> =
            self.history.iter().rev().filter(|(_, old)| old.op.cache == step.op.cache).take(SHOWN).collect();
        for (number, old) in here.into_iter().rev() {
            let _ = writeln!(text, "  {number} {}\n      -> {}", old.op.brief(), expected(&old.ucache));
        }
        text
    }

    /// The table of rules.
    pub(crate) fn table(&self) -> String {
        let differ = self.steps - self.same;
        let mut text = format!(
            "{} operations on {} caches: {} answered alike, {differ} differently by rule, 0 without; {} kept from native (D-04)\n",
            self.steps,
            self.by_cache.len(),
            self.same,
            self.kept_away
        );
        for (number, count) in &self.rules {
            let _ = writeln!(text, "  D-{number:02} {count:>10}");
        }
        text
    }
}

fn numbers(tags: Tags) -> impl Iterator<Item = u32> {
    (0..64).filter(move |number| tags >> number & 1 != 0)
}

/// If both list the same keys, uWSGI's hashes of them must be the same.
fn other_hashes(step: &Step, native: &Answer, ucache: &Answer) -> bool {
    step.native.wild == step.ucache.wild
        && (native.ret, native.hash) == (ucache.ret, ucache.hash)
        && native.len != ucache.len
}

fn expected(e: &Expect) -> String {
    let but = if e.wild == 0 { String::new() } else { format!(" (any in fields {:#x})", e.wild) };
    e.answer.brief() + &but
}

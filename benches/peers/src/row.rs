//! Comparisons: samples of both sides from interleaved rounds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a figure counts, and with it which way is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds of an operation.
    Nanos,
    /// Nanoseconds, shown as milliseconds.
    Millis,
    /// Operations a second of all workers together, in millions.
    Rate,
    /// Bytes of an item.
    Bytes,
    /// Mebibytes.
    Mib,
}

impl Unit {
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::Nanos if figure >= 10_000.0 => format!("{:.1} us", figure / 1e3),
            Self::Nanos => format!("{figure:.1} ns"),
            Self::Millis => format!("{:.3} ms", figure / 1e6),
            Self::Rate if figure < 0.001 => format!("{:.1} /s", figure * 1e6),
            Self::Rate if figure < 0.1 => format!("{:.2} k/s", figure * 1e3),
            Self::Rate => format!("{figure:.2} M/s"),
            Self::Bytes => format!("{figure:.1} B"),
            Self::Mib => format!("{figure:.1} MiB"),
        }
    }

    /// How many times better the first figure is.
    fn times(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::Rate { ours / theirs } else { theirs / ours }
    }
}

/// What a row should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Nothing was promised.
    None,
    /// At least this many times better than the other side.
    Times(f64),
    /// Upper limit of our figure, in the row's unit.
    Most(f64),
}

pub(crate) struct Row {
    /// What is measured, as "2 workers: get hit".
    pub(crate) name: String,
    /// The other side.
    pub(crate) peer: &'static str,
    /// Our side is not ucache, but the bare loop in its place.
    is_floor: bool,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    /// One sample a round; both sides of a round were measured one after the other.
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

/// Samples by "what" and by whose they are.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<(String, &'static str), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, what: String, whose: &'static str, sample: f64) {
        self.0.entry((what, whose)).or_default().push(sample);
    }

    pub(crate) fn of(&self, what: &str, whose: &'static str) -> Vec<f64> {
        self.0.get(&(what.to_owned(), whose)).cloned().unwrap_or_default()
    }
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

impl Row {
    pub(crate) fn new(
        name: String,
        peer: &'static str,
        unit: Unit,
        ours: Vec<f64>,
        theirs: Vec<f64>,
    ) -> Self {
        Self { name, peer, is_floor: false, unit, goal: Goal::None, ours, theirs }
    }

    pub(crate) fn with(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    /// The bare loop's row, not ucache's.
    pub(crate) fn of_the_floor(self) -> Self {
        Self { name: format!("floor in its place: {}", self.name), is_floor: true, ..self }
    }

    /// Ratios of the rounds, smallest first.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.theirs);
        let mut ratios: Vec<_> = pairs.map(|(&ours, &theirs)| self.unit.times(ours, theirs)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// The goal as text and whether it is met; `None` without a goal.
    fn verdict(&self) -> Option<(String, bool)> {
        match self.goal {
            Goal::None => None,
            Goal::Times(least) => Some((format!(">= {least:.2}x"), median(&self.ratios()) >= least)),
            Goal::Most(most) => Some((format!("<= {}", self.unit.show(most)), median(&self.ours) <= most)),
        }
    }

    pub(crate) fn cells(&self) -> [String; 6] {
        let ratios = self.ratios();
        let (spread, times) = match (ratios.first(), ratios.last()) {
            (Some(low), Some(high)) => (format!("{low:.2}-{high:.2}"), format!("{:.2}x", median(&ratios))),
            _ => ("-".into(), "-".into()),
        };
        let theirs = if self.theirs.is_empty() { "-".into() } else { self.unit.show(median(&self.theirs)) };
        let words = if self.is_floor { ["in reach", "out of reach"] } else { ["met", "MISSED"] };
        let goal = self
            .verdict()
            .map_or_else(String::new, |(text, met)| format!("{text} {}", words[usize::from(!met)]));
        [
            self.name.clone(),
            format!("{}{}", if self.is_floor { "floor: " } else { "" }, self.unit.show(median(&self.ours))),
            format!("{}: {theirs}", self.peer),
            times,
            spread,
            goal,
        ]
    }

    /// Largest by smallest sample of a side's rounds, the larger of both sides.
    pub(crate) fn spread(&self) -> f64 {
        let of = |samples: &[f64]| {
            let (low, high) =
                samples.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &s| (low.min(s), high.max(s)));
            if low > 0.0 && low.is_finite() { high / low } else { 1.0 }
        };
        of(&self.ours).max(of(&self.theirs))
    }

    /// Every sample.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "peer": self.peer, "floor": self.is_floor, "ours": self.ours, "theirs": self.theirs,
            "times_better": median(&self.ratios()), "goal": self.verdict().map(|v| v.0),
            "goal_met": self.verdict().map(|v| v.1),
        })
    }

    /// What is kept for a kind of processor.
    pub(crate) fn result(&self) -> Value {
        let ratios = self.ratios();
        json!({
            "name": self.name, "peer": self.peer, "floor": self.is_floor,
            "ours": self.unit.show(median(&self.ours)), "theirs": self.unit.show(median(&self.theirs)),
            "times_better": rounded(median(&ratios)),
            "spread": [ratios.first().copied().map(rounded), ratios.last().copied().map(rounded)],
        })
    }
}

/// To four digits.
fn rounded(figure: f64) -> f64 {
    format!("{figure:.3e}").parse().unwrap_or(figure)
}

//! Comparisons: samples of both sides from interleaved rounds, printed as ratios and kept as JSON.

use std::{fs, path::Path, process::Command, thread::available_parallelism};

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
    fn show(self, figure: f64) -> String {
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
    /// At least so many times better than the other side.
    Times(f64),
    /// Our figure at most so much, in the row's unit.
    Most(f64),
}

/// What the rows of the floor are; a note below a table that has some.
pub(crate) const FLOOR: &str = "floor: a bare loop in ucache's place, in shared memory, too: a hash, the line of one bucket, the lines of one \
     entry, a copy, in an update one atomic operation; no allocator, limits, expiry, eviction, statistics, safety against a \
     death. It is what the memory of this machine takes. \"in reach\" and \"out of reach\": whether the floor itself would \
     meet the goal.";

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

    fn cells(&self) -> [String; 6] {
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

    fn json(&self) -> Value {
        json!({
            "name": self.name, "peer": self.peer, "floor": self.is_floor, "ours": self.ours, "theirs": self.theirs,
            "times_better": median(&self.ratios()), "goal": self.verdict().map(|v| v.0),
            "goal_met": self.verdict().map(|v| v.1),
        })
    }
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

/// The machine, in one line.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: ?");
    let cores = available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    format!("{} x {}, Linux {}", cores, model.trim_start_matches(['\t', ' ', ':']), said("uname", &["-r"]))
}

/// The rows of one part.
pub(crate) struct Report {
    part: &'static str,
    before: String,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(part: &'static str) -> Self {
        Self { part, before: load(), notes: Vec::new(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Table in Markdown, with where and under which load it was measured.
    pub(crate) fn markdown(&self) -> String {
        let head = ["what", "ucache", "other", "times better", "spread", "goal"].map(String::from);
        let table: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let mut text = format!(
            "`make bench PART={}`, {}; {}. A shared machine: load {} before, {} after.\n\n",
            self.part,
            said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            machine(),
            self.before,
            load()
        );
        for (n, row) in table.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| format!(" {cell:<0$} ", width(column)));
            text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
            if n == 0 {
                let rules = (0..row.len()).map(|column| "-".repeat(width(column) + 2));
                text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
            }
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    /// Prints the table; leaves `part.md`, `part.json` and `part.svg` in `folder`, and where it was measured in full,
    /// table and plot in the documentation, too.
    pub(crate) fn finish(&self, folder: &Path, quick: bool) {
        let text = self.markdown();
        println!("{text}");
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let json = json!({
            "part": self.part, "quick": quick, "machine": machine(), "load_before": self.before,
            "load_after": load(), "notes": self.notes, "rows": rows,
        });
        fs::create_dir_all(folder).expect("a folder for the figures");
        let svg = crate::plot::svg(self.part, self.rows());
        let write = |path: &Path, text: &str| fs::write(path, text).expect("the figures are written");
        write(&folder.join(format!("{}.md", self.part)), &text);
        write(&folder.join(format!("{}.json", self.part)), &format!("{json:#}\n"));
        write(&folder.join(format!("{}.svg", self.part)), &svg);
        if !quick {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            write(&root.join("benches/figures").join(format!("{}.svg", self.part)), &svg);
            let page = root.join("src/docs/performance.md");
            let before = fs::read_to_string(&page).expect("src/docs/performance.md is there");
            write(&page, &replaced(&before, self.part, &text));
            readme();
        }
    }
}

/// Rows without a goal that the README shows, too.
const TOLD: [&str; 8] = [
    "1 worker: update ",
    "2 workers: update ",
    "1 worker: hot counter",
    "start-up",
    "Python: WSGI",
    "an item of 16 + 100, default limits",
    "empty: 16 + 100, default limits",
    "all deleted: 16 + 100, default limits",
];

/// Writes the README's tables anew: of each part's table in the documentation the rows with a goal and those of [`TOLD`].
pub(crate) fn readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page =
        fs::read_to_string(root.join("src/docs/performance.md")).expect("src/docs/performance.md is there");
    let path = root.join("README.md");
    let mut text = fs::read_to_string(&path).expect("README.md is there");
    for part in ["uwsgi", "peers", "memory"] {
        let table = figures(&page, part).lines().filter(|line| line.starts_with('|'));
        let shown = table.enumerate().filter(|(n, line)| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            *n < 2
                || cells.get(6).is_some_and(|goal| !goal.is_empty() && !goal.ends_with("reach"))
                || TOLD.iter().any(|told| cells[1].starts_with(told))
        });
        let rows: Vec<_> = shown.map(|(_, line)| line).collect();
        text = replaced(&text, part, &(rows.join("\n") + "\n"));
    }
    fs::write(path, text).expect("README.md is written");
}

/// The figures of a part in a page.
fn figures<'a>(page: &'a str, part: &str) -> &'a str {
    let (_, rest) =
        page.split_once(&format!("<!-- figures of {part} -->\n")).expect("a place for the figures");
    rest.split_once("<!-- end -->").expect("an end of the figures").0
}

/// The page with other figures of this part.
fn replaced(page: &str, part: &str, figures: &str) -> String {
    let start = format!("<!-- figures of {part} -->\n");
    let (before, rest) = page.split_once(&start).expect("a place for the figures");
    let (_, after) = rest.split_once("<!-- end -->").expect("an end of the figures");
    format!("{before}{start}\n{figures}\n<!-- end -->{after}")
}

//! The tables of one part: printed, kept as JSON, and where they can be believed, put into the documentation and into
//! the results of this kind of processor.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    processor::Processor,
    quiet::{Verdict, Watch},
    results,
    row::{Row, median},
};

/// What the rows of the floor are; a note below a table that has some.
pub(crate) const FLOOR: &str = "floor: a bare loop in ucache's place, in shared memory, too: a hash, the line of one bucket, the lines of one \
     entry, a copy, in an update one atomic operation; no allocator, limits, expiry, eviction, statistics, safety against a \
     death. It is what the memory of this machine takes. \"in reach\" and \"out of reach\": whether the floor itself would \
     meet the goal.";

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

/// A table that is no comparison: cells in text, and the same as figures.
pub(crate) struct Table {
    head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) figures: Vec<Value>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
            figures: Vec::new(),
        }
    }

    fn markdown(&self) -> String {
        let all: Vec<_> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let mut text = String::new();
        for (n, row) in all.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| format!(" {cell:<0$} ", width(column)));
            text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
            if n == 0 {
                let rules = (0..row.len()).map(|column| "-".repeat(width(column) + 2));
                text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
            }
        }
        text
    }
}

/// Where a finished part goes.
#[derive(Clone, Copy)]
pub(crate) struct Keeping<'a> {
    /// Every table, as Markdown, JSON and a plot.
    pub(crate) folder: &'a Path,
    /// A short look, which no document shows.
    pub(crate) quick: bool,
    /// Kept although the machine was not quiet, and marked so.
    pub(crate) anyway: bool,
}

/// The rows of one part.
pub(crate) struct Report {
    part: &'static str,
    /// Its figures are times, which a machine with other work falsifies.
    timed: bool,
    watch: Watch,
    rounds: usize,
    notes: Vec<String>,
    rows: Vec<Row>,
    tables: Vec<Table>,
}

impl Report {
    /// Looks at the machine for a second first.
    pub(crate) fn new(part: &'static str, timed: bool, rounds: usize) -> Self {
        let (notes, rows, tables) = (Vec::new(), Vec::new(), Vec::new());
        let watch = Watch::begin();
        Self { part, timed, watch, rounds, notes, rows, tables }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// A line below the tables.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn verdict(&self) -> Verdict {
        let spreads: Vec<_> = self.rows.iter().map(Row::spread).collect();
        self.watch.end(if spreads.is_empty() { 1.0 } else { median(&spreads) })
    }

    /// Tables in Markdown, with where and under which load they were measured.
    fn markdown(&self, processor: &Processor, verdict: &Verdict) -> String {
        let mut text = format!(
            "`make bench PART={}`, {}, {} rounds; {}, Linux {}. {}\n",
            self.part,
            said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            self.rounds,
            processor.line(),
            said("uname", &["-r"]),
            if self.timed { verdict.line() } else { "Sizes do not depend on other work.".to_owned() },
        );
        if !self.rows.is_empty() {
            let mut table = Table::new(&["what", "ucache", "other", "times better", "spread", "goal"]);
            table.rows.extend(self.rows.iter().map(|row| row.cells().to_vec()));
            text += &format!("\n{}", table.markdown());
        }
        self.tables.iter().for_each(|table| text += &format!("\n{}", table.markdown()));
        self.notes.iter().for_each(|note| text += &format!("\n{note}\n"));
        text
    }

    /// What is kept for this kind of processor.
    fn result(&self, verdict: &Verdict) -> Value {
        json!({
            "date": said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            "revision": said("git", &["describe", "--always", "--dirty"]),
            "kernel": said("uname", &["-r"]),
            "rounds": self.rounds,
            "quiet": !self.timed || verdict.is_quiet(),
            "machine": if self.timed { verdict.line() } else { String::new() },
            "rows": self.rows.iter().map(Row::result).collect::<Vec<_>>(),
            "tables": self.tables.iter().map(|table| &table.figures).collect::<Vec<_>>(),
        })
    }

    /// Comparisons have a plot.
    fn plot(&self, folder: &Path) {
        if !self.rows.is_empty() {
            write(&folder.join(format!("{}.svg", self.part)), &crate::plot::svg(self.part, &self.rows));
        }
    }

    /// Prints the tables and leaves `part.md`, `part.json` and `part.svg` in the folder. A full measurement of a quiet
    /// machine goes to the documentation and the results of this kind of processor, too.
    pub(crate) fn finish(&self, keeping: Keeping<'_>) {
        let (processor, verdict) = (Processor::here(), self.verdict());
        let text = self.markdown(&processor, &verdict);
        println!("{text}");
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let mut json = self.result(&verdict);
        json["part"] = json!(self.part);
        json["quick"] = json!(keeping.quick);
        json["processor"] = json!(processor.line());
        json["rows"] = json!(rows);
        fs::create_dir_all(keeping.folder).expect("a folder for the figures");
        write(&keeping.folder.join(format!("{}.md", self.part)), &text);
        write(&keeping.folder.join(format!("{}.json", self.part)), &format!("{json:#}\n"));
        self.plot(keeping.folder);
        if keeping.quick {
            return;
        }
        if self.timed && !verdict.is_quiet() && !keeping.anyway {
            println!(
                "Not kept in benches/results and the documentation: KEEP=1 does it all the same, and marks it."
            );
            return;
        }
        self.plot(&root().join("benches/figures"));
        let page = root().join("src/docs/performance.md");
        let before = fs::read_to_string(&page).expect("src/docs/performance.md is there");
        write(&page, &results::replaced(&before, self.part, &text));
        keep(&processor, self.part, self.result(&verdict));
        documents();
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Puts a part into the file of this kind of processor.
fn keep(processor: &Processor, part: &str, result: Value) {
    let file = root().join("benches/results").join(format!("{}.json", processor.id()));
    let known = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut all: Value = known.unwrap_or_else(|| json!({}));
    all["processor"] = json!({ "short": processor.short(), "line": processor.line() });
    all["parts"][part] = result;
    write(&file, &format!("{all:#}\n"));
}

/// Rewrites what README and documentation say about all kinds of processors.
pub(crate) fn documents() {
    let models = results::load(&root().join("benches/results"));
    let pages = [
        ("README.md", "readme", results::readme(&models)),
        ("src/docs/performance.md", "processors", results::processors(&models)),
    ];
    for (file, part, text) in pages {
        let path = root().join(file);
        let page = fs::read_to_string(&path).expect("the page is there");
        write(&path, &results::replaced(&page, part, &text));
    }
}

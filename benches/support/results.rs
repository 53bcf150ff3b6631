//! Results by kind of processor (`benches/results`), and the tables that the documents make of them.
#![allow(dead_code, reason = "every bench and test uses its own part")]

use std::{fs, path::Path};

use serde_json::Value;

/// The rows that the README shows: part, what was measured, the other side.
const README: [(&str, &str, &str); 5] = [
    ("uwsgi", "2 workers: get hit", "native"),
    ("uwsgi", "write beside 4 readers of 1 MB: worst", "native"),
    ("peers", "get, 100k keys, 1 worker", "Redis"),
    ("peers", "get, 100k keys, 1 worker", "LMDB"),
    ("memory", "an item of 16 + 100, default limits (100k of them)", "native"),
];
/// Below this a row is named as slower; nearer to 1 the sides are equal.
const EQUAL: f64 = 0.95;

/// The results of one kind of processor, a file.
pub(crate) struct Model {
    /// A short name.
    pub(crate) name: String,
    pub(crate) parts: Value,
}

/// One row of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) times: f64,
}

impl Model {
    fn parsed(text: &str) -> Option<Self> {
        let mut all: Value = serde_json::from_str(text).ok()?;
        let name = all["processor"]["short"].as_str()?.to_owned();
        Some(Self { name, parts: all["parts"].take() })
    }

    /// Whether the machine was seen not to be quiet.
    fn is_disturbed(&self, part: &str) -> bool {
        self.parts[part]["quiet"] == Value::Bool(false)
    }

    /// What marks the figures of a part if it was not.
    fn star(&self, part: &str) -> &'static str {
        if self.is_disturbed(part) { "*" } else { "" }
    }

    /// The rows of a part that compare ucache (not the bare loop) with something.
    fn figures(&self, part: &str) -> Vec<Figure> {
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let rows = self.parts[part]["rows"].as_array().map_or(&[][..], Vec::as_slice);
        let rows = rows.iter().filter(|row| row["floor"] != Value::Bool(true));
        rows.filter_map(|row| {
            Some(Figure {
                name: text(row, "name"),
                peer: text(row, "peer"),
                ours: text(row, "ours"),
                theirs: text(row, "theirs"),
                times: row["times_better"].as_f64()?,
            })
        })
        .collect()
    }
}

/// All models in a folder, by the names of their files.
pub(crate) fn load(folder: &Path) -> Vec<Model> {
    let files = fs::read_dir(folder).expect("benches/results is there");
    let mut files: Vec<_> = files.map(|file| file.expect("a folder can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "json"));
    files.sort();
    let read = |file| fs::read_to_string(file).expect("a file can be read");
    files
        .iter()
        .map(|file| Model::parsed(&read(file)).unwrap_or_else(|| panic!("{}: no results", file.display())))
        .collect()
}

/// A part's figures of all models with their names; those of a disturbed machine have a star.
fn of_part(models: &[Model], part: &str) -> Vec<(String, Vec<Figure>)> {
    let all = models.iter().map(|model| (format!("{}{}", model.name, model.star(part)), model.figures(part)));
    all.filter(|(_, figures)| !figures.is_empty()).collect()
}

fn times(times: f64) -> String {
    if times >= 100.0 { format!("{times:.0}x") } else { format!("{times:.2}x") }
}

/// What the README says between its marks.
pub(crate) fn readme(models: &[Model]) -> String {
    let mut table = String::from(
        "| what | against | times better | worst on | ucache there | the other there |\n|---|---|---|---|---|---|\n",
    );
    for (part, what, other) in README {
        let mut rows: Vec<_> = of_part(models, part)
            .into_iter()
            .filter_map(|(model, figures)| {
                let row = figures.into_iter().find(|row| row.name == what && row.peer == other)?;
                Some((model, row))
            })
            .collect();
        rows.sort_by(|a, b| a.1.times.total_cmp(&b.1.times));
        let (Some((model, worst)), Some((_, best))) = (rows.first(), rows.last()) else {
            panic!("no model has a row \"{what}\" with {other}");
        };
        let best = if rows.len() > 1 { format!(" to {}", times(best.times)) } else { String::new() };
        table += &format!(
            "| {what} | {other} | {}{best} | {model} | {} | {} |\n",
            times(worst.times),
            worst.ours,
            worst.theirs
        );
    }
    let disturbed = |(part, ..): &(&str, _, _)| models.iter().any(|model| model.is_disturbed(part));
    let note = if README.iter().any(disturbed) { "*: the machine was not quiet.\n\n" } else { "" };
    table + "\n" + note + &wrapped(&slower(models))
}

/// Rows that are slower than uWSGI's cache, at their worst.
fn slower(models: &[Model]) -> String {
    let mut worst: Vec<Figure> = Vec::new();
    let parts = of_part(models, "uwsgi");
    for row in
        parts.iter().flat_map(|(_, figures)| figures).filter(|row| row.peer == "native" && row.times < EQUAL)
    {
        if row.name.ends_with("loop alone") {
            continue;
        }
        match worst.iter_mut().find(|other| other.name == row.name) {
            Some(other) if other.times > row.times => *other = row.clone(),
            Some(_) => {}
            None => worst.push(row.clone()),
        }
    }
    let names: Vec<_> = parts.iter().map(|(model, _)| model.as_str()).collect();
    let on = format!("on the worst of the processors that were measured ({})", names.join(", "));
    if worst.is_empty() {
        return format!("No row is slower than uWSGI's own cache {on}.");
    }
    let rows = worst.iter().map(|row| format!("{} ({})", row.name, times(row.times)));
    format!("Slower than uWSGI's own cache {on}: {}.", rows.collect::<Vec<_>>().join("; "))
}

/// Broken into lines of at most 100 columns.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.len() > 100 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += word.len();
    }
    out
}

/// All rows against other caches, a column for each model. Disturbed measurements have a star.
pub(crate) fn processors(models: &[Model]) -> String {
    let mut table = String::from("| times better |");
    models.iter().for_each(|model| table += &format!(" {} |", model.name));
    table += "\n|---|";
    models.iter().for_each(|_| table += "---|");
    table += "\n";
    for part in ["uwsgi", "peers", "memory", "near"] {
        let columns: Vec<_> = models.iter().map(|model| model.figures(part)).collect();
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for row in columns.iter().flatten() {
            if !rows.contains(&(&row.name, &row.peer))
                && !["floor", "payload", "1 worker"].contains(&row.peer.as_str())
            {
                rows.push((&row.name, &row.peer));
            }
        }
        for (name, peer) in rows {
            table += &format!("| {name} / {peer} |");
            for (model, column) in models.iter().zip(&columns) {
                let cell = column.iter().find(|row| row.name == name && row.peer == peer);
                let star = model.star(part);
                table +=
                    &cell.map_or_else(|| " |".to_owned(), |row| format!(" {}{star} |", times(row.times)));
            }
            table += "\n";
        }
    }
    table + "\n*: the machine was not quiet.\n"
}

/// What a page has between the marks of a part.
pub(crate) fn between<'a>(page: &'a str, part: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<!-- figures of {part} -->\n"))?;
    Some(rest.split_once("<!-- end -->")?.0)
}

/// The page with other figures of this part.
pub(crate) fn replaced(page: &str, part: &str, figures: &str) -> String {
    let start = format!("<!-- figures of {part} -->\n");
    let (before, rest) = page.split_once(&start).expect("a place for the figures");
    let (_, after) = rest.split_once("<!-- end -->").expect("an end of the figures");
    format!("{before}{start}\n{}\n\n<!-- end -->{after}", figures.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(name: &str, quiet: bool, times: f64) -> Model {
        let row = |(part, what, other): (&str, &str, &str)| {
            let row = json!({ "name": what, "peer": other, "ours": "2 M/s", "theirs": "1 M/s", "times_better": times });
            (part.to_owned(), row)
        };
        let mut parts = json!({});
        for (part, row) in README.into_iter().map(row) {
            parts[&part]["quiet"] = json!(quiet);
            let rows = parts[&part]["rows"].as_array_mut().map(std::mem::take).unwrap_or_default();
            parts[&part]["rows"] = Value::Array(rows.into_iter().chain([row]).collect());
        }
        Model { name: name.to_owned(), parts }
    }

    #[test]
    fn the_worst_processor_comes_first() {
        let text = readme(&[model("new", true, 6.65), model("old", true, 0.5)]);
        let row = "| 2 workers: get hit | native | 0.50x to 6.65x | old | 2 M/s | 1 M/s |";
        assert!(text.contains(row) && !text.contains('*'), "{text}");
        let slower = text.replace('\n', " ");
        assert!(slower.contains("2 workers: get hit (0.50x)"), "{text}");
        assert!(text.lines().filter(|line| !line.starts_with('|')).all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn disturbed_results_have_a_star() {
        let busy = readme(&[model("quiet", true, 6.65), model("busy", false, 3.0)]);
        let row = "| 3.00x to 6.65x | busy* |";
        assert!(
            busy.contains(row) && busy.contains("was not quiet") && busy.contains("No row is slower"),
            "{busy}"
        );
        let table = processors(&[model("quiet", true, 2.0), model("busy", false, 3.0)]);
        assert!(table.contains("| 2 workers: get hit / native | 2.00x | 3.00x* |"), "{table}");
    }

    #[test]
    fn figures_are_replaced_between_their_marks() {
        let page = "a\n<!-- figures of x -->\n\nold\n\n<!-- end -->\nb\n";
        let new = replaced(page, "x", "new\n");
        assert_eq!(new, "a\n<!-- figures of x -->\n\nnew\n\n<!-- end -->\nb\n");
        assert_eq!(between(&new, "x"), Some("\nnew\n\n"));
        assert_eq!(between(&new, "y"), None);
    }
}

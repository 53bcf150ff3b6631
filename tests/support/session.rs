//! Sessions: what a Python programmer types at two workers' prompts and what uWSGI answers, as text files that run
//! against uWSGI's own cache and against the plugin. Where the two must differ, both answers stand there.

use super::server::{Build, Flavor, Server};

/// One thing typed, and the answers.
#[derive(Debug, Default)]
struct Step {
    worker: usize,
    source: String,
    native: String,
    ucache: String,
}

/// Options for uWSGI, then steps.
#[derive(Debug, Default)]
pub(crate) struct Session {
    options: String,
    steps: Vec<Step>,
}

impl Session {
    /// Reads a session: `option = value` lines, then `1>>> source` for worker 1, `... source` to go on, the answer
    /// (none after a statement), or `D-07 native: answer` and `D-07 ucache: answer`. `#` starts a comment line.
    ///
    /// # Panics
    /// On a line that is none of these.
    pub(crate) fn parse(text: &str) -> Self {
        let mut session = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((worker, source)) = prompt(line) {
                session.steps.push(Step { worker, source: source.to_owned(), ..Step::default() });
                continue;
            }
            let Some(step) = session.steps.last_mut() else {
                session.options += line;
                session.options.push('\n');
                continue;
            };
            if let Some(more) = line.strip_prefix("... ") {
                step.source.push('\n');
                step.source += more;
            } else if let Some((flavor, answer)) = difference(line) {
                match flavor {
                    Flavor::Native => step.native = answer.to_owned(),
                    Flavor::Ucache => step.ucache = answer.to_owned(),
                }
            } else {
                assert!(step.native.is_empty(), "two answers to {:?}: {line:?}", step.source);
                step.native = line.to_owned();
                step.ucache = line.to_owned();
            }
        }
        assert!(!session.steps.is_empty(), "a session without a step");
        session
    }

    /// Runs the session and returns every step that was answered otherwise.
    pub(crate) fn run(&self, build: Build, flavor: Flavor) -> Vec<String> {
        let workers = self.steps.iter().map(|step| step.worker).max().unwrap_or(1);
        let server = Server::start_on(build, flavor, workers, &self.options);
        let mut wrong = Vec::new();
        for step in &self.steps {
            let expected = if flavor == Flavor::Native { &step.native } else { &step.ucache };
            let answer = server.run(step.worker, &step.source);
            if answer != *expected {
                wrong.push(format!(
                    "{}>>> {}\n    expected {expected}\n    answered {answer}",
                    step.worker, step.source
                ));
            }
        }
        wrong
    }
}

fn prompt(line: &str) -> Option<(usize, &str)> {
    let (worker, source) = line.split_once(">>> ")?;
    Some((worker.parse().ok()?, source))
}

fn difference(line: &str) -> Option<(Flavor, &str)> {
    let (number, rest) = line.strip_prefix("D-")?.split_once(' ')?;
    number.parse::<u32>().ok()?;
    if let Some(answer) = rest.strip_prefix("native: ") {
        Some((Flavor::Native, answer))
    } else {
        Some((Flavor::Ucache, rest.strip_prefix("ucache: ")?))
    }
}

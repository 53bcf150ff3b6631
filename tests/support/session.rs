//! Sessions: text files with inputs at the prompts of two workers and uWSGI's answers, run against
//! uWSGI's own cache and against the plugin. Where the two must differ, both answers are given.

use super::server::{Build, Flavor, Server};

/// Where an input is typed.
#[derive(Debug)]
enum Prompt {
    /// At a worker's Python prompt.
    Worker(usize),
    /// At the prompt of the language with this name in the first worker, see `tests/languages`.
    Language(String),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Worker(1)
    }
}

/// One input with its answers.
#[derive(Debug, Default)]
struct Step {
    prompt: Prompt,
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
    /// Parses a session: `option = value` lines, then `1>>> source` for worker 1, `... source` for
    /// a continuation, or `php>>> function argument ...` for a language; then the answer (none
    /// after a statement), or `D-07 native: answer` and `D-07 ucache: answer`. `#` starts a comment
    /// line.
    ///
    /// # Panics
    /// On a line that is none of these.
    pub(crate) fn parse(text: &str) -> Self {
        let mut session = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((prompt, source)) = prompt(line) {
                session.steps.push(Step { prompt, source: source.to_owned(), ..Step::default() });
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

    /// Runs the session and returns every step with an unexpected answer.
    pub(crate) fn run(&self, build: Build, flavor: Flavor) -> Vec<String> {
        let workers = self.steps.iter().map(|step| step.prompt.worker()).max().unwrap_or(1);
        let server = Server::start_on(build, flavor, workers, &self.options);
        let mut wrong = Vec::new();
        for step in &self.steps {
            let expected = if flavor == Flavor::Native { &step.native } else { &step.ucache };
            let answer = step.prompt.ask(&server, &step.source);
            if answer != *expected {
                wrong.push(format!(
                    "{:?}>>> {}\n    expected {expected}\n    answered {answer}",
                    step.prompt, step.source
                ));
            }
        }
        wrong
    }
}

impl Prompt {
    fn worker(&self) -> usize {
        if let Self::Worker(worker) = self { *worker } else { 1 }
    }

    fn ask(&self, server: &Server, source: &str) -> String {
        match self {
            Self::Worker(worker) => server.run(*worker, source),
            Self::Language(name) => {
                let answer = server.ask(1, "GET", &format!("/{name}?{}", source.replace(' ', "/")), "");
                answer.map_or_else(|_| "(no answer)".to_owned(), |answer| answer.body)
            }
        }
    }
}

fn prompt(line: &str) -> Option<(Prompt, &str)> {
    let (label, source) = line.split_once(">>> ")?;
    let prompt = match label.parse() {
        Ok(worker) => Prompt::Worker(worker),
        Err(_) if label.bytes().all(|b| b.is_ascii_lowercase()) => Prompt::Language(label.to_owned()),
        Err(_) => return None,
    };
    Some((prompt, source))
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

//! The command `ucache`: inspects, changes and monitors caches.
//!
//! The commands and exit codes are described in [`command`](crate::docs::command).
#![forbid(unsafe_code)]

mod args;
mod bench;
mod check;
mod create;
mod dump;
mod failure;
mod generate;
mod import;
mod items;
mod jsonl;
mod load;
mod metrics;
mod purge;
mod record;
mod resp;
mod server;
mod stat;
mod target;
mod text;
mod top;
mod units;

use std::{
    ffi::OsStr,
    io::{self, BufWriter, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use args::{Cli, Command, When};
use failure::{Failure, Outcome};
use target::Target;

use crate::{
    engine::{Engine, Side},
    os::file,
};

/// The context of every command.
struct Context {
    timeout: Duration,
    /// The server that holds the values: `--backend`.
    backend: Option<String>,
    color: When,
    out: BufWriter<io::StdoutLock<'static>>,
}

impl Context {
    fn open(&self, target: &OsStr) -> Outcome<Target> {
        Target::open(target, self.timeout, self.backend.as_deref())
    }

    /// The region of a store, for its statistics.
    fn look(&self, target: &OsStr, what: &str) -> Outcome<Arc<Engine>> {
        target::look(target, self.timeout, self.backend.as_deref(), what)
    }

    /// Whether to use colours on standard output.
    fn colors(&self) -> bool {
        match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        }
    }

    /// A progress bar on standard error, on terminals only.
    fn progress(&self, steps: Option<u64>, what: &'static str) -> ProgressBar {
        let wanted = match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stderr().is_terminal(),
        };
        let target =
            if wanted { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(steps, target).with_message(what);
        let template =
            if steps.is_some() { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{msg} {pos} {per_sec}" };
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return tell(&told),
    };
    target::trust_filesystems(cli.store_fs.is_some());
    file::report_size_limit();
    let mut context = Context {
        timeout: cli.timeout,
        backend: cli.backend,
        color: cli.color,
        out: BufWriter::new(io::stdout().lock()),
    };
    let done = run(cli.command, &mut context).and_then(|()| Ok(context.out.flush()?));
    let Err(failure) = done else { return ExitCode::SUCCESS };
    // Write the rest of the buffer, unless the output failed.
    if !matches!(failure.code, failure::CLOSED | failure::IO) {
        let _ = context.out.flush();
    }
    // Nothing more can be written: dropping the buffer must not try again.
    let (_out, _unwritten) = context.out.into_parts();
    report(&failure)
}

/// Writes the message of a failure; returns its status.
fn report(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    if !text.is_empty() {
        let _ = writeln!(io::stderr(), "ucache: {text}");
    }
    ExitCode::from(failure.code)
}

/// Prints the help, the version, or what is wrong with the command line.
fn tell(told: &clap::Error) -> ExitCode {
    let printed = told.print().and_then(|()| io::stdout().flush());
    if told.use_stderr() {
        return ExitCode::from(failure::USAGE);
    }
    // clap's own exit does not look whether the output failed.
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error.into()),
    }
}

fn run(command: Command, context: &mut Context) -> Outcome {
    match command {
        Command::Create(args) => create::run(&args),
        Command::Stat { target, json, classes } => stat::run(context, &target, json, classes),
        Command::Keys(args) => items::keys(context, &args),
        Command::Get { at, int, json } => items::get(context, &at, int, json),
        Command::Set { store, keep_ttl } => items::set(context, &store, keep_ttl),
        Command::Add(store) => items::add(context, &store),
        Command::Replace { store, keep_ttl } => items::replace(context, &store, keep_ttl),
        Command::Append(join) => items::join(context, &join, "append", Side::Back),
        Command::Prepend(join) => items::join(context, &join, "prepend", Side::Front),
        Command::Purge(args) => purge::run(context, &args),
        Command::Del { target, keys, escaped } => items::del(context, &target, &keys, escaped),
        Command::Exists { at } => items::exists(context, &at),
        Command::Incr { at, by, ttl } => items::incr(context, &at, by, ttl),
        Command::Ttl { at } => items::ttl(context, &at),
        Command::Touch { at, ttl } => items::touch(context, &at, ttl),
        Command::Clear { target } => context.open(&target)?.clear(),
        Command::Dump(args) => dump::run(context, &args),
        Command::Load(args) => load::run(context, &args),
        Command::Check { target, repair, json } => check::run(context, &target, repair, json),
        Command::Import(args) => import::run(context, &args),
        Command::Top(args) => top::run(context, &args),
        Command::Metrics { targets, listen } => metrics::run(context, &targets, listen),
        Command::Bench(args) => bench::run(context, &args),
        Command::Completions { shell } => generate::completions(context, shell),
        Command::Man { dir } => generate::man(context, dir.as_deref()),
    }
}

/// Unix time, milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX))
}

//! `load`: stores the items of a dump.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    time::Duration,
};

use super::{
    Context,
    args::{Format, Load},
    failure::{Failure, IO, Outcome, REFUSED},
    jsonl, now,
    record::Record,
    resp,
    target::Target,
    text::{count, escape},
};
use crate::engine::{Expires, Mode, SetOptions, Stored};

/// Maximum number of refusals reported one by one.
const TOLD: u64 = 10;

#[derive(Default)]
struct Tally {
    loaded: u64,
    expired: u64,
    kept: u64,
    refused: u64,
}

pub(super) fn run(context: &Context, args: &Load) -> Outcome {
    let target = context.open(&args.target)?;
    let (mut from, what): (Box<dyn BufRead>, String) = match &args.input {
        Some(path) => {
            let what = path.display().to_string();
            let file = File::open(path).map_err(|e| Failure::input(&e, &what))?;
            (Box::new(BufReader::new(file)), what)
        }
        None => (Box::new(io::stdin().lock()), "standard input".to_owned()),
    };
    let bar = context.progress(None, "loading");
    let mut tally = Tally::default();
    let mut number = 0_u64;
    let ended = loop {
        number += 1;
        match next(&mut from, args.format, number, &what) {
            Ok(Some(record)) => store(&target, &record, args.keep, &mut tally)?,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
        bar.inc(1);
    };
    bar.finish_and_clear();
    let Tally { loaded, expired, kept, refused } = tally;
    let mut summary = format!("{} loaded", count(loaded));
    for (n, text) in [(expired, "had expired"), (kept, "existed and were kept"), (refused, "refused")] {
        if n > 0 {
            summary += &format!(", {} {text}", count(n));
        }
    }
    // Not on standard output: that is for data.
    let _ = writeln!(io::stderr(), "{summary}");
    ended?;
    if refused > 0 {
        return Err(Failure::new(REFUSED, format!("{} items were refused", count(refused)))
            .hint("see the reasons above; the others are stored"));
    }
    Ok(())
}

fn next(from: &mut dyn BufRead, format: Format, number: u64, what: &str) -> Outcome<Option<Record>> {
    let wrong = |text: &str| {
        let item = if format == Format::Jsonl { "line" } else { "command" };
        Failure::new(IO, format!("{what}: {item} {number} {text}"))
            .hint("the items before it are stored; --format sets the input format")
    };
    if format == Format::Resp {
        return resp::read(&mut { from }, now()).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => wrong("is cut off"),
            _ => wrong(&format!("cannot be read: {e}")),
        });
    }
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).map_err(|e| Failure::input(&e, what))?;
    if line.is_empty() {
        return Ok(None);
    }
    jsonl::parse(line.trim_ascii_end()).map(Some).map_err(|e| wrong(&e))
}

fn store(target: &Target, record: &Record, keep: bool, tally: &mut Tally) -> Outcome {
    let now = now();
    if record.expires != 0 && record.expires <= now {
        tally.expired += 1;
        return Ok(());
    }
    let value = record.value.as_deref().unwrap_or_default();
    let stored = match target {
        Target::Store(engine) => {
            let expires = Expires::at_millis(record.expires);
            let mode = if keep { Mode::Add } else { Mode::Set };
            let options = SetOptions { ungettable: record.hidden, ..SetOptions::new(mode, expires) };
            engine.set(&record.key, value, &options).map(|s| s != Stored::Kept).map_err(Failure::from)
        }
        Target::Server(_) => {
            let ttl = (record.expires != 0).then(|| Duration::from_millis(record.expires - now));
            match keep {
                true => target.add(&record.key, value, ttl),
                false => target.set(&record.key, value, ttl, false).map(|()| true),
            }
        }
    };
    match stored {
        Ok(true) => tally.loaded += 1,
        Ok(false) => tally.kept += 1,
        Err(failure) if failure.code == REFUSED => {
            tally.refused += 1;
            if tally.refused <= TOLD {
                let _ = writeln!(io::stderr(), "ucache: key {:?}: {failure}", escape(&record.key));
            }
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

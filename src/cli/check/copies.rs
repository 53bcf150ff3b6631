//! `--backend URL check FILE`: compares a sample of a machine's copies with the server's values.

use std::{
    ffi::OsStr,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::super::{
    Context,
    failure::{Failure, NO, Outcome, UNSUPPORTED},
    target::{backed, store},
    text::{count, escape},
};
use crate::{
    engine::{Cursor, Engine, Touch},
    near::Tier,
};

/// Copies that are compared.
const SAMPLE: usize = 1000;
/// A copy may differ for as long as a change is on its way, and `max_stale` says how long that may
/// be: this is its upper limit.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a copy that differs.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run(context: &mut Context, target: &OsStr, backend: &str, json: bool) -> Outcome {
    let engine = store(target)?;
    if !engine.has_copies() {
        return Err(Failure::new(
            UNSUPPORTED,
            "check: the store holds values of its own, not copies of a server's",
        )
        .hint("without --backend its entries are checked"));
    }
    let server = backed(OsStr::new(&engine.config().name), context.timeout, backend)?;
    let (mut cursor, mut compared, mut wrong) = (Cursor::default(), 0_usize, Vec::new());
    while let Some(item) = engine.walk(&mut cursor) {
        compared += 1;
        if !agrees(&engine, &server, &item.key)? {
            wrong.push(escape(&item.key));
        }
        if compared == SAMPLE {
            break;
        }
    }
    let beat = engine.copy_stats().beat_age_ms;
    let out = &mut context.out;
    if json {
        writeln!(out, "{}", json!({ "compared": compared, "wrong": wrong, "beat_age_ms": beat }))?;
    } else {
        writeln!(out, "{} copies compared, {} differ", count(compared as u64), count(wrong.len() as u64))?;
        if beat.is_none() {
            writeln!(out, "reads do not use them now: nobody keeps them up to date")?;
        }
        wrong.iter().try_for_each(|key| writeln!(out, "  {key}"))?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(NO, format!("{} old copies", count(wrong.len() as u64)))
        .hint("`ucache stat` shows whether they are in use: the beat's age"))
}

/// Whether a copy is what the server has, is so within the time that a change may take, or is not
/// used by readers.
fn agrees(engine: &Engine, server: &Tier, key: &[u8]) -> Outcome<bool> {
    let (start, mut first) = (Instant::now(), None);
    loop {
        let (mut copy, mut value) = (Vec::new(), Vec::new());
        if engine.get(key, Touch::Unseen, &mut copy)?.is_none() {
            return Ok(true);
        }
        let found = server.get(key, Touch::Unseen, &mut value)?;
        if found.is_some() && value == copy {
            return Ok(true);
        }
        // Another copy is a change that has been heard of.
        if first.get_or_insert_with(|| copy.clone()) != &copy {
            return Ok(true);
        }
        let limit =
            engine.copy_stats().beat_age_ms.map_or(Duration::ZERO, |age| Duration::from_millis(age + 1000));
        if start.elapsed() > limit.min(PATIENCE) {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}

//! `check`: validates every entry of a store, or compares its copies with the server's values.

mod copies;

use std::{
    ffi::OsStr,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use serde_json::json;

use super::{
    Context,
    failure::{Failure, IO, NO, Outcome, UNSUPPORTED},
    target::{is_server, store, unopened},
    text::{count, size},
};
use crate::{
    engine::{Engine, Inspection},
    os::file::{Lock, StoreFile, USERS},
};

/// Where the file was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// In place, while in use.
    InUse,
    /// On a copy: opening an unused store changes it.
    Copy,
    /// In place, with permission to change it.
    Repair,
}

pub(super) fn run(context: &mut Context, target: &OsStr, repair: bool, json: bool) -> Outcome {
    let path = Path::new(target);
    if let Some(backend) = context.backend.clone() {
        return copies::run(context, target, &backend, json);
    }
    if is_server(target) {
        return Err(Failure::new(UNSUPPORTED, "check: the cache protocol has no such command")
            .hint("name the store file; the server may go on using it"));
    }
    let file = StoreFile::open(path, false).map_err(|e| unopened(path, e))?;
    // Held until the end of the check: a server that starts meanwhile waits.
    let alone = file.lock(USERS, Lock::Exclusive, false).map_err(|e| unopened(path, e))?;
    let (place, engine, _copy) = if repair || !alone {
        // Opening takes this lock itself.
        drop(file);
        let engine = store(target)?;
        (if repair { Where::Repair } else { Where::InUse }, engine, None)
    } else {
        let folder = tempfile::tempdir().map_err(|e| no_copy(&e))?;
        let copy = folder.path().join("store");
        // Copies the locked file, even if its name refers to another one by now.
        file.copy_to(&copy).map_err(|e| no_copy(&e))?;
        // The copy has no other users: any file system is suitable.
        let engine = Engine::attach_on(&copy, true).map_err(|e| renamed(e, &copy, path))?;
        (Where::Copy, engine, Some((folder, file)))
    };
    report(context, &engine, place, json)
}

fn report(context: &mut Context, engine: &Arc<Engine>, place: Where, json: bool) -> Outcome {
    let bar = context.progress(Some(engine.stats().shards), "checking");
    let found = engine.inspect(place == Where::Repair, |done, _| bar.set_position(done))?;
    bar.finish_and_clear();
    let damaged = engine.dropped_at_opening() + found.damaged;
    // What a repair says is what a second look finds.
    let left = if place == Where::Repair && damaged + found.heap > 0 {
        let again = engine.inspect(false, |_, _| {})?;
        again.damaged + again.heap
    } else {
        0
    };
    let stats = engine.stats();
    let out = &mut context.out;
    if json {
        let all = json!({
            "entries": found.entries, "items": found.items, "dead": found.dead, "bytes": found.bytes,
            "damaged": damaged, "loose": found.loose, "heap": found.heap, "reasons": found.reasons,
            "repaired": place == Where::Repair && left == 0, "left": left, "in_use": place == Where::InUse, "last_unclean": stats.last_unclean,
        });
        writeln!(out, "{all}")?;
    } else {
        describe(out, &found, damaged, place, stats.last_unclean)?;
    }
    match (damaged, found.heap, place) {
        _ if left > 0 => Err(Failure::new(NO, format!("{} faults remain after the repair", count(left)))
            .hint("`ucache clear` empties the store; `dump` and `load` move its items to a new one")),
        (0, 0, _) | (.., Where::Repair) => Ok(()),
        (0, n, _) => Err(Failure::new(NO, format!("{} faults of the heap", count(n)))
            .hint("`ucache check --repair` puts them right and keeps all items")),
        (n, ..) => Err(Failure::new(NO, format!("{} damaged", count(n)))
            .hint("`ucache check --repair` drops them and keeps all other items")),
    }
}

fn describe(
    out: &mut impl Write,
    found: &Inspection,
    damaged: u64,
    place: Where,
    unclean: bool,
) -> io::Result<()> {
    let what = match place {
        Where::InUse => "in use, checked in place",
        Where::Copy => "not in use, checked on a copy",
        Where::Repair => "checked in place",
    };
    writeln!(out, "{what}")?;
    if unclean {
        writeln!(out, "was not closed cleanly the last time; opening it repairs that")?;
    }
    writeln!(out, "{} items, {} of keys and values", count(found.items), size(found.bytes))?;
    if found.dead > 0 {
        writeln!(out, "{} expired or cleared, not reclaimed yet", count(found.dead))?;
    }
    for reason in &found.reasons {
        writeln!(out, "  {reason}")?;
    }
    if found.loose > 0 {
        writeln!(out, "{} wrong counts, which the next rebuild corrects", count(found.loose))?;
    }
    if found.heap > 0 {
        let done = if place == Where::Repair { ", put right" } else { "" };
        writeln!(out, "{} faults of the heap{done}", count(found.heap))?;
    }
    match (damaged, place) {
        (0, _) if found.heap > 0 => writeln!(out, "no damaged items"),
        (0, _) => writeln!(out, "no damage"),
        (n, Where::Repair) => {
            let saved = found.damaged.saturating_sub(found.dropped);
            let again = if saved == 0 { String::new() } else { format!(", {} put right", count(saved)) };
            writeln!(out, "{} damaged items dropped{again}", count(n - saved))
        }
        (n, _) => writeln!(out, "{} damaged items", count(n)),
    }
}

fn no_copy(error: &io::Error) -> Failure {
    Failure::new(IO, format!("cannot create the copy to check: {error}"))
        .hint("TMPDIR names a directory with room for the file; --repair checks in place")
}

/// The copy has the faults of the original, and its name is nobody's concern.
fn renamed(error: crate::Error, copy: &Path, path: &Path) -> Failure {
    let error = match error {
        crate::Error::Store { fault, path: at } if at == copy => {
            crate::Error::Store { fault, path: path.to_owned() }
        }
        other => other,
    };
    unopened(path, error)
}

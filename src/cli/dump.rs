//! `dump`: all items as a stream.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use indicatif::ProgressBar;

use super::{
    Context,
    args::{Dump, Format},
    failure::{Failure, IO, Outcome, USAGE},
    items::Selection,
    jsonl, resp,
    target::Target,
};
use crate::os::dir_entry::DirEntry;

pub(super) fn run(context: &mut Context, args: &Dump) -> Outcome {
    let selection = Selection::new(&args.select)?;
    let target = context.open(&args.target)?;
    // On a terminal a progress bar would mix with the items.
    let shown = args.output.is_none() && io::stdout().is_terminal();
    let bar = if shown { ProgressBar::hidden() } else { context.progress(target.items(), "dumping") };
    let Some(path) = &args.output else {
        write(&target, &selection, args, &mut context.out, "the output", &bar)?;
        bar.finish_and_clear();
        return Ok(());
    };
    let what = path.display().to_string();
    if matches!(target, Target::Store(_)) && context.backend.is_none() && same(path, Path::new(&args.target))
    {
        return Err(Failure::new(USAGE, format!("cannot write {what}: it is the store that is dumped"))
            .hint("the dump would take its place; give --output another name"));
    }
    let mut to = |out: &mut dyn Write| write(&target, &selection, args, out, &what, &bar);
    // A pipe or a device is written to directly: a rename would replace it.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let file = File::options().write(true).open(path).map_err(|e| Failure::output(&e, &what))?;
        to(&mut BufWriter::new(file))?;
    } else {
        complete(path, &what, &mut to)?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Whether both names lead to one file, also through links.
fn same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    id(one).is_some_and(|one| Some(one) == id(other))
}

/// Writes a file beside `path`, and renames it when it is complete and on disk.
fn complete(path: &Path, what: &str, to: &mut dyn FnMut(&mut dyn Write) -> Outcome) -> Outcome {
    // If the name is a link, its target is replaced, unless the link belongs to another user.
    if let Some(owner) = DirEntry::of(path).ok().and_then(|place| place.stranger()) {
        return Err(Failure::new(
            IO,
            format!("cannot write {what}: it is a symbolic link owned by user {owner}"),
        )
        .hint("name the file that it leads to"));
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::new(IO, format!("cannot write {what}: no directory {}", folder.display())));
    }
    let failed = |e: &io::Error| Failure::output(e, what);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    let mut out = BufWriter::new(file.as_file_mut());
    to(&mut out)?;
    out.flush().map_err(|e| failed(&e))?;
    drop(out);
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(&path).map_err(|e| failed(&e.error))?;
    Ok(())
}

fn write(
    target: &Target,
    selection: &Selection,
    args: &Dump,
    out: &mut dyn Write,
    what: &str,
    bar: &ProgressBar,
) -> Outcome {
    target.each(true, |mut record| {
        bar.inc(1);
        if !selection.has(&record.key) {
            return Ok(());
        }
        let written = match args.format {
            // Redis has no ungettable keys.
            Format::Resp if record.hidden => Ok(()),
            Format::Resp => resp::write(out, &record, args.numbers),
            Format::Jsonl => {
                if args.numbers
                    && let Some(number) = record.value.as_deref().and_then(resp::counter)
                {
                    record.value = Some(number.to_string().into_bytes());
                }
                writeln!(out, "{}", jsonl::line(&record))
            }
        };
        written.map_err(|e| Failure::output(&e, what))
    })?;
    out.flush().map_err(|e| Failure::output(&e, what))
}

//! `dump`: all items as a stream.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use super::{
    Context,
    args::{Dump, Format},
    failure::{Failure, Outcome},
    items::Selection,
    jsonl, resp,
    target::Target,
};

pub(super) fn run(context: &mut Context, args: &Dump) -> Outcome {
    let selection = Selection::new(&args.select)?;
    let target = context.open(&args.target)?;
    let bar = context.progress(target.items(), "dumping");
    let Some(path) = &args.output else {
        write(&target, &selection, args, &mut context.out, "the output", &bar)?;
        bar.finish_and_clear();
        return Ok(());
    };
    let what = path.display().to_string();
    let failed = |e: &std::io::Error| Failure::output(e, &what);
    // Beside it, so that it takes the name in one step when it is complete.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    let mut out = BufWriter::new(file.as_file_mut());
    write(&target, &selection, args, &mut out, &what, &bar)?;
    out.flush().map_err(|e| failed(&e))?;
    drop(out);
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    bar.finish_and_clear();
    Ok(())
}

fn write(
    target: &Target,
    selection: &Selection,
    args: &Dump,
    out: &mut impl Write,
    what: &str,
    bar: &indicatif::ProgressBar,
) -> Outcome {
    target.each(true, |mut record| {
        bar.inc(1);
        if !selection.has(&record.key) {
            return Ok(());
        }
        let written = match args.format {
            // Redis has no keys that reads miss.
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

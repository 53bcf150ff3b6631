//! `purge`: pages of the route action `ucache:`.

use std::{io::Write, os::unix::ffi::OsStrExt};

use super::{Context, args::Purge, failure::Outcome, target::Target};
use crate::net::purge::{Which, keys_of, purge};

pub(super) fn run(context: &mut Context, args: &Purge) -> Outcome {
    let target = context.open(&args.target)?;
    let which = match (&args.url, &args.prefix, &args.tag) {
        (_, Some(prefix), _) => Which::Prefix(prefix.as_bytes()),
        (_, _, Some(tag)) => Which::Tag(tag.as_bytes()),
        (url, ..) => Which::Key(url.as_ref().map_or(&b""[..], |url| url.as_bytes())),
    };
    let purged = match (&target, which) {
        (Target::Store(tier), which) => purge(tier, which, args.soft)?,
        // The protocol can remove a key, and nothing else of this.
        (Target::Server(_), Which::Key(url)) if !args.soft => {
            let mut purged = 0;
            for key in keys_of(url) {
                purged += u64::from(target.del(&key)?);
            }
            purged
        }
        _ => return Err(target.unsupported("purge --prefix, --tag and --soft")),
    };
    Ok(writeln!(context.out, "{purged}")?)
}

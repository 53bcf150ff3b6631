//! `import`: converts a store of native uWSGI.

use std::io::Write;

use super::{
    Context,
    args::Import,
    create,
    failure::{Failure, Outcome, UNREACHABLE},
    target::{any_filesystem, unopened},
    text::count,
};
use crate::engine::{Blocks, Engine, NativeShape, config::MAX_VALUE};

pub(super) fn run(context: &mut Context, args: &Import) -> Outcome {
    let path = &args.file;
    if !path.exists() {
        return Err(Failure::new(UNREACHABLE, format!("{}: no such file", path.display()))
            .hint("name the file in the `store=` of the cache"));
    }
    if path.metadata().is_ok_and(|meta| meta.len() == 0) {
        return Err(Failure::new(UNREACHABLE, format!("{}: the file is empty", path.display()))
            .hint("there is nothing to import; `create` creates a new store"));
    }
    match Engine::attach_on(path, any_filesystem()) {
        Ok(_) => {
            return Err(Failure::new(UNREACHABLE, format!("{}: is a ucache store already", path.display())));
        }
        Err(error) if Engine::is_store(path) => return Err(unopened(path, error)),
        Err(_) => {}
    }
    let (items, blocksize) = (args.items, args.shape.blocksize);
    let blocks = args.blocks.unwrap_or(items);
    // uWSGI never uses the first item, unless it is the only one.
    let mut config = create::config(&args.shape, path, items.saturating_sub(1).max(1));
    if args.bitmap {
        config.max_value = blocksize.saturating_mul(blocks).min(MAX_VALUE);
        config.blocks = Some(Blocks { size: blocksize, count: blocks });
    }
    config.native = Some(NativeShape {
        items,
        key_size: config.max_key,
        blocks,
        block_size: blocksize,
        bitmap: args.bitmap,
    });
    let engine = create::make(&config, path).map_err(|failure| {
        failure.hint("items, keysize, blocksize, blocks and bitmap must be those of its cache")
    })?;
    for note in engine.notes() {
        writeln!(context.out, "{note}")?;
    }
    Ok(writeln!(context.out, "{} items", count(engine.stats().items))?)
}

//! `create`: a new store file.

use std::{path::Path, sync::Arc};

use super::{
    args::Create,
    failure::{Failure, NO, Outcome, USAGE},
    target::unopened,
};
use crate::{
    engine::{Config, Engine, Eviction, Store},
    error::Error,
};

pub(super) fn run(args: &Create) -> Outcome {
    let path = &args.file;
    if path.exists() {
        return Err(Failure::new(NO, format!("{}: the file exists", path.display())));
    }
    let mut config = Config::new(&name(args.name.as_ref(), path), args.items);
    config.max_key = args.keysize;
    config.max_value = args.blocksize;
    config.eviction = if args.purge_lru { Eviction::Lru } else { Eviction::None };
    config.store = Some(Store { path: path.clone(), delete_unusable: false });
    make(&config, path).map(|_| ())
}

/// A cache's name: as given, or the file's up to its first dot.
pub(super) fn name(given: Option<&String>, path: &Path) -> String {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    given.cloned().unwrap_or_else(|| file.split('.').next().unwrap_or_default().to_owned())
}

/// Makes or opens the store that `config` describes.
pub(super) fn make(config: &Config, path: &Path) -> Outcome<Arc<Engine>> {
    Engine::create(config).map_err(|error| match error {
        Error::InvalidOption { .. } => Failure::new(USAGE, error.to_string()),
        error => unopened(path, error),
    })
}

//! `create`: creates a store file.

use std::{path::Path, sync::Arc};

use super::{
    args::{Create, Shape},
    failure::{Failure, NO, Outcome, UNREACHABLE, USAGE},
    target::{any_filesystem, unopened},
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
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Failure::new(
            UNREACHABLE,
            format!("{}: no directory {}", path.display(), folder.display()),
        )
        .hint("create it first, owned by the user that the servers run as"));
    }
    make(&config(&args.shape, path, args.items), path).map(|_| ())
}

/// The configuration for `capacity` items at `path`. By default the name is the file's, up to its
/// first dot.
pub(super) fn config(shape: &Shape, path: &Path, capacity: u64) -> Config {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = shape.name.as_deref().or_else(|| file.split('.').next()).unwrap_or_default();
    Config {
        max_key: shape.keysize,
        max_value: shape.blocksize,
        eviction: if shape.purge_lru { Eviction::Lru } else { Eviction::None },
        store_fs_trust: any_filesystem(),
        store: Some(Store { path: path.to_owned(), delete_unusable: false }),
        ..Config::new(name, capacity)
    }
}

/// Creates or opens the store that `config` describes.
pub(super) fn make(config: &Config, path: &Path) -> Outcome<Arc<Engine>> {
    Engine::create(config).map_err(|error| match error {
        Error::InvalidOption { .. } => Failure::new(USAGE, error.to_string()),
        error => unopened(path, error),
    })
}

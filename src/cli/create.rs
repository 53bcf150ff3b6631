//! `create`: a new store file.

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
    let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.clone().unwrap_or_else(|| stem.split('.').next().unwrap_or_default().to_owned());
    let mut config = Config::new(&name, args.items);
    config.max_key = args.keysize;
    config.max_value = args.blocksize;
    config.eviction = if args.purge_lru { Eviction::Lru } else { Eviction::None };
    config.store = Some(Store { path: path.clone(), delete_unusable: false });
    match Engine::create(&config) {
        Ok(_) => Ok(()),
        Err(error @ Error::InvalidOption { .. }) => Err(Failure::new(USAGE, error.to_string())),
        Err(error) => Err(unopened(path, error)),
    }
}

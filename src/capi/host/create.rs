//! Creating a cache from its definition, and operations on all caches of the process.

use std::os::unix::ffi::OsStrExt;

use crate::{
    capi::{
        exit,
        host::{
            cache::{self, Cache},
            env::{self, Definition},
            network,
            options::{self, Defaults, Settings},
            preload, report,
            view::View,
        },
    },
    engine::Engine,
    error::Result,
    near::{OnDown, Tier},
    wire::shown::shown,
};

/// Makes one cache; `None` = it cannot be made: the reason has been logged, and
/// `Env::create_failed` called.
pub(crate) fn create(definition: &Definition) -> Option<&'static Cache> {
    let (Definition::Cache2(text) | Definition::Legacy(text)) = definition;
    match make(text) {
        Ok(cache) => {
            report::start(cache);
            env::get().log(&ready_line(cache));
            network::start(cache);
            preload::fill(cache);
            cache.view.refresh(&cache.tier.stats());
            Some(cache)
        }
        Err(e) => {
            let text = options::shown_definition(text);
            env::get().log(&format!("unable to create the cache \"{text}\": {e}"));
            env::get().create_failed();
            None
        }
    }
}

fn make(text: &[u8]) -> Result<&'static Cache> {
    let env = env::get();
    let defaults = Defaults { store_sync: env.store_sync(), no_expire: env.no_expire() };
    let settings: Settings = options::parse(text, defaults)?;
    let name = shown(settings.name.to_bytes());
    for note in &settings.notes {
        env.log(&format!("cache \"{name}\": {note}"));
    }
    if Cache::by_name(settings.name.to_bytes()).is_some() {
        env.log(&format!("cache \"{name}\": the name is in use; this cache cannot be found by name"));
    }
    let tier = Tier::open(Engine::create(&settings.config)?, &settings.backend, OnDown::Miss)?;
    tier.log_to(|line| env::get().log(line));
    if env.has_master() {
        tier.reserve_owner();
    } else if env.sync_at_once() {
        tier.start_owner(false);
    }
    for note in tier.notes() {
        env.log(&format!("cache \"{name}\": {note}"));
    }
    if let Some(fd) = tier.engine().store_fd() {
        env.keep_fd(fd);
        exit::at_exit();
    }
    let view = View::new(&settings, env.new_lock(&settings.name.to_string_lossy()))?;
    Ok(Cache::publish(tier, settings, view))
}

/// The start-up line with the cache's limits.
fn ready_line(cache: &Cache) -> String {
    let (config, stats) = (&cache.settings.config, cache.tier.stats());
    let blocks =
        config.blocks.map_or_else(String::new, |b| format!(" in {} blocks of {} bytes", b.count, b.size));
    let memory = match (cache.tier.server(), &config.store) {
        (Some(server), _) => format!("values at {server}; memory"),
        (None, Some(store)) => {
            format!("store {} ({} items found)", shown(store.path.as_os_str().as_bytes()), stats.items)
        }
        (None, None) => "memory".to_owned(),
    };
    format!(
        "cache \"{}\" ready: up to {} items{}, keys up to {} bytes, values up to {} bytes{blocks}; {memory} grows with \
         the data, {} MB of addresses reserved",
        shown(cache.settings.name.to_bytes()),
        config.capacity,
        match config.eviction.title() {
            "" => String::new(),
            policy => format!(" ({policy})"),
        },
        config.max_key,
        config.max_value,
        stats.reserved >> 20,
    )
}

/// Makes the calling process, a host's master, the owner of the stores: their opener may have ended
/// after it forked into the background.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn inherit_stores() {
    cache::all().for_each(|cache| cache.tier.engine().inherit_store());
}

/// Keeps the copies of caches with a backend up to date, in threads of a host's master.
pub(crate) fn start_owners() {
    cache::all().for_each(|cache| cache.tier.start_owner(true));
}

/// Refreshes the statistics of every cache and logs due lines. A host calls it in its master's
/// cycle.
pub(crate) fn refresh_all() {
    for cache in cache::all() {
        let stats = cache.tier.stats();
        cache.view.refresh(&stats);
        report::full(cache, &stats);
        report::repaired(cache, &stats);
    }
}

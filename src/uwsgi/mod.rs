//! The uWSGI plugin: replaces the host's caching subsystem by this crate.
//!
//! | file | owns |
//! |---|---|
//! | `plugin.rs` | the plugin entries and hooks that uWSGI calls |
//! | `host.rs`, `elf.rs`, `image.rs` | finding uWSGI at run time, and its program file |
//! | `raw.rs`, `layout.rs` | uWSGI's structs, and the check that they match those of the build |
//! | `takeover.rs`, `patch.rs`, `jump.rs` | redirecting every cache function of the host to ours |
//! | `lock.rs` | the wrapped lock table of the host |
//! | `env.rs`, `options.rs` | the host's options, and the plugin's own |
//! | `metrics.rs` | cache statistics as uWSGI metrics |
//! | `request.rs` | requests of the cache protocol (modifier1 111) |
//! | `pages/` | the response cache in uWSGI's routes, where uWSGI was built with routes |

mod elf;
mod env;
pub(crate) mod host;
mod image;
mod jump;
mod layout;
mod lock;
mod metrics;
mod options;
#[cfg(uwsgi_routing)]
mod pages;
mod patch;
mod plugin;
pub(crate) mod raw;
mod request;
mod takeover;

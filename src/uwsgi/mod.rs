//! The plugin for uWSGI: puts this crate in the place of the host's caching subsystem.
//!
//! | file | owns |
//! |---|---|
//! | `plugin.rs` | the entries and hooks that uWSGI calls |
//! | `host.rs`, `elf.rs`, `image.rs` | the uWSGI around us, found at run time, and its file |
//! | `raw.rs`, `layout.rs` | its structs, and the check that they are those it was built with |
//! | `takeover.rs`, `patch.rs`, `jump.rs` | every cache function of the host becomes a jump to ours |
//! | `lock.rs` | the host's lock table, with ours in front |
//! | `env.rs`, `options.rs` | the host's options, and the plugin's own |
//! | `metrics.rs` | the figures of the caches among its metrics |
//! | `request.rs` | the cache protocol (modifier1 111), where it is served |

mod elf;
mod env;
pub(crate) mod host;
mod image;
mod jump;
mod layout;
mod lock;
mod metrics;
mod options;
mod patch;
mod plugin;
pub(crate) mod raw;
mod request;
mod takeover;

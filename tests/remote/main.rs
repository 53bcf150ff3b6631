//! Remote caches, replication and dumps, against ucache itself and against a real native uWSGI in both directions.
//!
//! Needs `uwsgi` with the plugins `cache` and `python3` (Debian, Ubuntu: `apt-get install uwsgi-core
//! uwsgi-plugin-python3`); `UWSGI_BIN` names another one. Everything listens on 127.0.0.1.

mod c;
mod client;
mod commands;
mod hygiene;
mod native;
#[cfg(feature = "uwsgi")]
mod plugin;
mod replication;
mod server;
mod sync;

//! Remote caches, replication and dumps, against ucache itself and against a real native uWSGI in
//! both directions.
//!
//! Needs `uwsgi` with the plugins `cache`, `python3` and (feature `uwsgi`) `gevent_python3` and
//! `greenlet_python3`: `.ci/deps all` installs them; `UWSGI_BIN` selects another one. Everything
//! listens on 127.0.0.1.

#[cfg(feature = "uwsgi")]
mod addresses;
#[cfg(feature = "uwsgi")]
mod app;
mod c;
mod client;
mod commands;
#[cfg(feature = "uwsgi")]
mod datagrams;
mod differences;
#[cfg(feature = "uwsgi")]
mod directions;
#[cfg(feature = "uwsgi")]
mod hostile;
mod hygiene;
#[cfg(feature = "uwsgi")]
mod kept;
#[cfg(feature = "uwsgi")]
mod logged;
mod native;
#[path = "../support/patience.rs"]
mod patience;
#[cfg(feature = "uwsgi")]
mod plugin;
mod pool;
#[path = "../support/ports.rs"]
mod ports;
mod replication;
mod server;
mod sync;
#[cfg(feature = "uwsgi")]
mod waits;

//! Creating, opening and converting regions and store files.
#![forbid(unsafe_code)]

pub(in crate::engine) mod convert;
pub(in crate::engine) mod create;
pub(in crate::engine) mod disk;
mod import_v5;
pub(in crate::engine) mod open;
pub(in crate::engine) mod sizing;
pub(in crate::engine) mod users;
pub(in crate::engine) mod uwsgi_format;

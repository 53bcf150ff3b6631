//! A child in its own mount namespace, with a directory to mount things in.

use std::path::Path;

use crate::{engine_proc::Child, private_mounts::unshare_mounts};

/// Runs `body` in such a child.
pub(crate) fn on_mounts(body: impl Fn(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    Child::fork(|| {
        unshare_mounts();
        body(dir.path());
    })
    .join();
}

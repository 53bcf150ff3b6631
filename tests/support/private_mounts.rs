//! A private mount namespace, whose mounts are invisible to other processes.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Gives the calling process its own mount namespace.
pub(crate) fn unshare_mounts() {
    let private = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
    });
    private.expect("this test mounts file systems: run it as root, with CAP_SYS_ADMIN");
}

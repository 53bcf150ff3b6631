//! A mount namespace of a child's own: what it mounts is out of everybody's sight.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// From here on the calling process sees mounts of its own.
pub(crate) fn unshare_mounts() {
    let private = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
    });
    private.expect("this test mounts file systems of its own: run it as root, with CAP_SYS_ADMIN");
}

//! The environment of a plain C program: its own list of caches, stderr as the log, its own lock
//! items.

use std::{
    ffi::{CString, c_char},
    ptr,
    sync::atomic::AtomicPtr,
    time::Duration,
};

use crate::{
    capi::{
        host::{
            env::{Definition, Env, Preload},
            mem,
        },
        types::{uwsgi_cache, uwsgi_lock_item},
    },
    os::pipe,
    wire::shown,
};

static HEAD: AtomicPtr<uwsgi_cache> = AtomicPtr::new(ptr::null_mut());

/// A plain program.
#[derive(Debug)]
pub(crate) struct Standalone;

/// A lock item outside of any list.
pub(crate) fn lock_item(name: &str) -> *mut uwsgi_lock_item {
    let id = CString::new(format!("cache_{name}")).unwrap_or_default().into_raw();
    let item = uwsgi_lock_item {
        id,
        lock_ptr: new_rwlock().cast(),
        rw: 1,
        pid: 0,
        can_deadlock: 0,
        next: ptr::null_mut(),
    };
    Box::into_raw(Box::new(item))
}

impl Env for Standalone {
    fn head(&self) -> *mut *mut uwsgi_cache {
        HEAD.as_ptr()
    }

    fn write_log(&self, line: &str) {
        // One write per line, so that processes sharing stderr do not mix theirs; a line that
        // cannot be written is lost.
        let _ = pipe::write_to_stderr(format!("[ucache] {}\n", shown::line(line)).as_bytes());
    }

    fn new_lock(&self, name: &str) -> *mut uwsgi_lock_item {
        lock_item(name)
    }

    fn create_failed(&self) {}

    fn definitions(&self) -> Vec<Definition> {
        vec![Definition::Legacy(b"name=default,items=1001".to_vec())]
    }

    fn preloads(&self) -> Vec<Preload> {
        Vec::new()
    }

    fn sweep_interval(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn report_freed(&self) -> bool {
        false
    }

    fn socket_timeout(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn store_sync(&self) -> u64 {
        0
    }

    fn keep_fd(&self, _fd: i32) {}
}

/// A process-shared lock for code that takes `uc->lock` directly; NULL = no memory. ucache never
/// uses it.
fn new_rwlock() -> *mut c_char {
    let Ok(at) = mem::shared(size_of::<libc::pthread_rwlock_t>()) else { return ptr::null_mut() };
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: `at` is page-aligned zeroed memory of the lock's size that is never unmapped; the
    // attributes are initialised before use and destroyed after it.
    unsafe {
        libc::pthread_rwlockattr_init(attributes.as_mut_ptr());
        libc::pthread_rwlockattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_rwlock_init(at.as_ptr().cast(), attributes.as_ptr());
        libc::pthread_rwlockattr_destroy(attributes.as_mut_ptr());
    }
    at.as_ptr().cast()
}

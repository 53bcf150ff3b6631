//! The takeover: redirects every cache function of the host to ours of the same name.

use super::{
    host::Host,
    patch,
    patch::{Patch, Redirect},
};
use crate::capi::compat::{keys, lifecycle, magic, raw, remote, sweep, sync};

/// One of our functions.
struct Function {
    /// Its name, here and in the host.
    name: &'static str,
    arguments: usize,
    address: usize,
}

/// Our functions by number of arguments (checked by the compiler) and by name in the host.
/// `uwsgi_cache_item_key`, `uwsgi_cache_rlock` and `uwsgi_cache_rwunlock` are missing: they are too
/// short for a jump and need none. The first returns item + 88, the others use the host's table of
/// lock functions, which is wrapped.
macro_rules! functions {
    ($($arguments:tt $module:ident: $($name:ident)+;)+) => {
        /// All of them.
        fn functions() -> Vec<Function> {
            vec![$($(Function {
                name: stringify!($name),
                arguments: $arguments,
                address: pointer!($arguments, $module::$name) as *const () as usize,
            },)+)+]
        }
    };
}

/// A function as a pointer with the given number of arguments.
macro_rules! pointer {
    (0, $f:path) => {
        $f as unsafe extern "C" fn() -> _
    };
    (1, $f:path) => {
        $f as unsafe extern "C" fn(_) -> _
    };
    (2, $f:path) => {
        $f as unsafe extern "C" fn(_, _) -> _
    };
    (3, $f:path) => {
        $f as unsafe extern "C" fn(_, _, _) -> _
    };
    (4, $f:path) => {
        $f as unsafe extern "C" fn(_, _, _, _) -> _
    };
    (5, $f:path) => {
        $f as unsafe extern "C" fn(_, _, _, _, _) -> _
    };
    (6, $f:path) => {
        $f as unsafe extern "C" fn(_, _, _, _, _, _) -> _
    };
    (7, $f:path) => {
        $f as unsafe extern "C" fn(_, _, _, _, _, _, _) -> _
    };
}

functions! {
    0 remote: uwsgi_cache_start_sync_servers;
    1 remote: cache_udp_server_loop uwsgi_cache_setup_nodes uwsgi_cache_sync_from_nodes;
    2 remote: uwsgi_cache_prepare_magic_clear;
    4 remote: uwsgi_cache_prepare_magic_exists uwsgi_cache_prepare_magic_del;
    5 remote: uwsgi_cache_magic_context_hook;
    6 remote: uwsgi_cache_prepare_magic_set uwsgi_cache_prepare_magic_update;
    3 keys: uwsgi_cache_keys;
    0 lifecycle: uwsgi_cache_create_all;
    1 lifecycle: uwsgi_cache_by_name uwsgi_cache_create uwsgi_cache_init uwsgi_cache_fix;
    2 lifecycle: uwsgi_cache_by_namelen;
    1 magic: uwsgi_cache_magic_clear;
    3 magic: uwsgi_cache_magic_del uwsgi_cache_magic_exists;
    5 magic: uwsgi_cache_magic_get;
    7 magic: uwsgi_cache_magic_set;
    3 raw: uwsgi_cache_num2 uwsgi_cache_exists2;
    4 raw: uwsgi_cache_get2;
    5 raw: uwsgi_cache_get3 uwsgi_cache_get4 uwsgi_cache_del2;
    7 raw: uwsgi_cache_set2;
    0 sweep: uwsgi_cache_start_sweepers;
    0 sync: uwsgi_cache_sync_all;
}

/// The completed redirections.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// The method of writing the host's text.
    pub(crate) method: &'static str,
    patches: Vec<Patch>,
}

/// Redirects the host's cache functions: all of them, or none with the reason.
///
/// # Safety
/// Called while the host parses its options: it has no other thread, and none is inside a cache
/// function.
pub(crate) unsafe fn take(host: &Host) -> Result<Takeover, String> {
    // SAFETY: the host's struct is valid for the life of the process.
    if !unsafe { (*host.server).caches }.is_null() {
        return Err("uWSGI has made its caches already: name the plugin in its configuration, `plugin = ucache` before \
                    the lines of the caches, so that it is there first"
            .into());
    }
    let list = plan(host)?;
    // SAFETY: `plan` takes addresses and sizes from the host's symbol table, our functions have the
    // signatures of uwsgi.h, and the caller keeps threads out.
    let (writer, patches) = unsafe { patch::apply(&list) }?;
    Ok(Takeover { method: writer.name(), patches })
}

fn plan(host: &Host) -> Result<Vec<Redirect>, String> {
    let theirs = host
        .object
        .symbols(|name| name.to_bytes().starts_with(b"uwsgi_cache_") || name == c"cache_udp_server_loop");
    let image = host.object.image();
    let redirect = |ours: Function| {
        let name = ours.name;
        let found = theirs.iter().find(|(n, _)| n.to_bytes() == name.as_bytes());
        let Some((_, &from)) = found else { return Err(format!("this uWSGI has no function {name}")) };
        let body = from.address..from.address + from.size;
        if !host.object.executes(&body) {
            return Err(format!("{name} is not in uWSGI's program text"));
        }
        if host.object.executes(&(ours.address..ours.address + 1)) {
            return Err(format!("{name} of this library was bound to uWSGI's own: link it with -Bsymbolic"));
        }
        let place = host.object.in_file(from.address);
        let file = image.as_ref().and_then(|image| image.text(place, from.size).ok());
        Ok(Redirect { name, from, file, arguments: ours.arguments, to: ours.address })
    };
    functions().into_iter().map(redirect).collect()
}

impl Takeover {
    /// How many functions were redirected.
    pub(crate) fn len(&self) -> usize {
        self.patches.len()
    }

    /// The functions whose redirection is no longer in place.
    pub(crate) fn lost(&self) -> Vec<&'static str> {
        // SAFETY: the host is never unloaded.
        self.patches.iter().filter(|patch| !unsafe { patch.stands() }).map(|patch| patch.name).collect()
    }
}

/// The address of our function that creates all caches.
pub(super) fn create_all() -> usize {
    lifecycle::uwsgi_cache_create_all as *const () as usize
}

/// The names of all functions with their numbers of arguments.
#[cfg(test)]
pub(super) fn names() -> Vec<(&'static str, usize)> {
    functions().into_iter().map(|function| (function.name, function.arguments)).collect()
}

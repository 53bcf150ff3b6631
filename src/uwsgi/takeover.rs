//! The takeover: every cache function of the host becomes a jump to ours of the same name.

use super::{host::Host, patch, patch::Redirect};
use crate::capi::{keys, lifecycle, magic, raw, remote::exports, sweep, sync};

/// Our functions, by the names that they have in the host. `uwsgi_cache_item_key`, `uwsgi_cache_rlock` and
/// `uwsgi_cache_rwunlock` are not among them: they are too short for a jump and need none, the first returns item +
/// 88 and the others go through the host's table of lock functions, which has ours.
macro_rules! functions {
    ($($module:ident: $($name:ident)+;)+) => {
        fn functions() -> Vec<(&'static str, usize)> {
            vec![$($((stringify!($name), $module::$name as *const () as usize),)+)+]
        }
    };
}

functions! {
    lifecycle: uwsgi_cache_by_name uwsgi_cache_by_namelen
        uwsgi_cache_create uwsgi_cache_create_all uwsgi_cache_init uwsgi_cache_fix;
    magic: uwsgi_cache_magic_get uwsgi_cache_magic_set uwsgi_cache_magic_del uwsgi_cache_magic_exists
        uwsgi_cache_magic_clear;
    raw: uwsgi_cache_get2 uwsgi_cache_get3 uwsgi_cache_get4 uwsgi_cache_num2 uwsgi_cache_exists2
        uwsgi_cache_set2 uwsgi_cache_del2;
    keys: uwsgi_cache_keys;
    sweep: uwsgi_cache_start_sweepers;
    sync: uwsgi_cache_sync_all;
    exports: cache_udp_server_loop uwsgi_cache_start_sync_servers uwsgi_cache_setup_nodes
        uwsgi_cache_sync_from_nodes uwsgi_cache_magic_context_hook
        uwsgi_cache_prepare_magic_exists uwsgi_cache_prepare_magic_del uwsgi_cache_prepare_magic_clear
        uwsgi_cache_prepare_magic_set uwsgi_cache_prepare_magic_update;
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// How the host's text was written.
    pub(crate) method: &'static str,
    redirects: Vec<Redirect>,
}

/// Redirects the host's cache functions: all, or none and the reason why not.
///
/// # Safety
/// Called while the host parses its options: no other thread of it runs, none is inside a cache function.
pub(crate) unsafe fn take(host: &Host) -> Result<Takeover, String> {
    // SAFETY: the host's struct is valid for the life of the process.
    if !unsafe { (*host.server).caches }.is_null() {
        return Err("uWSGI has made its caches already: name the plugin in its configuration, `plugin = ucache` before \
                    the lines of the caches, so that it is there first"
            .into());
    }
    let list = plan(host)?;
    // SAFETY: `plan` takes addresses and sizes from the host's symbol table, our functions have the signatures that
    // uwsgi.h gives these names, and the caller keeps threads out.
    let writer = unsafe { patch::apply(&list) }?;
    Ok(Takeover { method: writer.name(), redirects: list })
}

fn plan(host: &Host) -> Result<Vec<Redirect>, String> {
    let ours = functions();
    let theirs = host
        .object
        .symbols(|name| name.to_bytes().starts_with(b"uwsgi_cache_") || name == c"cache_udp_server_loop");
    let redirect = |&(name, to): &(&'static str, usize)| {
        let found = theirs.iter().find(|(n, _)| n.to_bytes() == name.as_bytes());
        let Some((_, &from)) = found else { return Err(format!("this uWSGI has no function {name}")) };
        let body = from.address..from.address + from.size;
        if !host.object.executes(&body) {
            return Err(format!("{name} is not in uWSGI's program text"));
        }
        if host.object.executes(&(to..to + 1)) {
            return Err(format!(
                "{name} of this library was resolved to uWSGI's own: link it with -Bsymbolic"
            ));
        }
        Ok(Redirect { name, from, to })
    };
    ours.iter().map(redirect).collect()
}

impl Takeover {
    /// How many functions were redirected.
    pub(crate) fn len(&self) -> usize {
        self.redirects.len()
    }

    /// The functions that lead elsewhere by now.
    pub(crate) fn lost(&self) -> Vec<&'static str> {
        // SAFETY: the host is never unloaded.
        let ours = |r: &&Redirect| patch::leads_to(&unsafe { patch::code(r.from) }, r.to);
        self.redirects.iter().filter(|r| !ours(r)).map(|r| r.name).collect()
    }
}

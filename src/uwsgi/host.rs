//! The uWSGI of this process: found among its loaded objects, never linked against.
//!
//! libucache.so also serves programs without uWSGI, so it must load without any of uWSGI's symbols.
//! Where uWSGI is a Python module, a process-wide lookup does not find them. So the object that
//! defines them is searched for.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    sync::OnceLock,
};

use super::{elf, elf::Object, elf::Symbol, layout, raw};
use crate::wire::shown;

/// The functions of the host that the glue calls, and its one big struct.
#[derive(Debug)]
pub(crate) struct Host {
    /// `struct uwsgi_server uwsgi`: valid for the life of the process, written by the host.
    pub(crate) server: *mut raw::uwsgi_server,
    /// The object that uWSGI's code is in.
    pub(crate) object: Object,
    /// Bytes of the host's `struct uwsgi_server`.
    server_size: usize,
    dot_h: unsafe extern "C" fn() -> *mut c_char,
    cflags: unsafe extern "C" fn() -> *mut c_char,
    log: unsafe extern "C" fn(*const c_char, ...),
    add_safe_fd: Option<unsafe extern "C" fn(c_int)>,
}

// SAFETY: function pointers and an address that stays valid; the struct behind `server` is only
// accessed as the host itself does (during single-threaded start-up, or fields that never change
// afterwards).
unsafe impl Send for Host {}
// SAFETY: as for Send.
unsafe impl Sync for Host {}

static HOST: OnceLock<Host> = OnceLock::new();

/// The host, once [`find`] has found it.
pub(crate) fn get() -> Option<&'static Host> {
    HOST.get()
}

/// Looks for uWSGI in this process. `None` = not found, or without functions that 2.0 has.
pub(crate) fn find() -> Option<&'static Host> {
    if HOST.get().is_none() {
        let host = elf::objects().into_iter().find_map(Host::of)?;
        // A concurrent call has found the same one.
        let _ = HOST.set(host);
    }
    HOST.get()
}

impl Host {
    /// An object counts only if it defines uWSGI's own functions: libucache.so has the cache
    /// functions, too.
    fn of(object: Object) -> Option<Self> {
        let names = [
            c"uwsgi",
            c"uwsgi_log",
            c"uwsgi_get_dot_h",
            c"uwsgi_get_cflags",
            c"uwsgi_add_safe_fd",
            c"uwsgi_cache_create_all",
        ];
        let found = object.symbols(|name| names.contains(&name));
        let at = |name: &CStr| found.get(name).map(|s| s.address as *const ());
        let _cache = at(c"uwsgi_cache_create_all")?;
        let server = *found.get(c"uwsgi")?;
        // SAFETY: uWSGI 2.0 declares these functions so; the names come from one object that
        // exports all of them.
        let (dot_h, cflags, log, add_safe_fd) = unsafe {
            (
                std::mem::transmute::<*const (), unsafe extern "C" fn() -> *mut c_char>(at(
                    c"uwsgi_get_dot_h",
                )?),
                std::mem::transmute::<*const (), unsafe extern "C" fn() -> *mut c_char>(at(
                    c"uwsgi_get_cflags",
                )?),
                std::mem::transmute::<*const (), unsafe extern "C" fn(*const c_char, ...)>(at(c"uwsgi_log")?),
                at(c"uwsgi_add_safe_fd")
                    .map(|f| std::mem::transmute::<*const (), unsafe extern "C" fn(c_int)>(f)),
            )
        };
        let (server_size, server) = (server.size, server.address as *mut raw::uwsgi_server);
        Some(Self { server, object, server_size, dot_h, cflags, log, add_safe_fd })
    }

    /// The host's exported symbols among `names`, with their sizes.
    pub(crate) fn symbols(&self, names: &[&CStr]) -> std::collections::HashMap<&'static CStr, Symbol> {
        self.object.symbols(|name| names.contains(&name))
    }

    /// The address of an exported function of the host; the caller casts it to its type in uwsgi.h.
    pub(crate) fn function(&self, name: &CStr) -> Option<*const ()> {
        self.symbols(&[name]).get(name).map(|s| s.address as *const ())
    }

    /// Writes one line to uWSGI's log.
    pub(crate) fn log(&self, line: &str) {
        // `shown::line` removes control characters, including NUL.
        let line = CString::new(shown::line(line)).unwrap_or_default();
        // SAFETY: `uwsgi_log` is printf-like; its only conversion gets a NUL-terminated string.
        unsafe { (self.log)(c"[ucache] %s\n".as_ptr(), line.as_ptr()) };
    }

    /// Keeps uWSGI from closing `fd` when it cleans up before a reload.
    pub(crate) fn keep_fd(&self, fd: c_int) {
        if let Some(add) = self.add_safe_fd {
            // SAFETY: accepts any number; start-up is single-threaded, so no other code reads the
            // list.
            unsafe { add(fd) };
        }
    }

    /// Whether this is the uWSGI that the plugin was compiled for; the error names both versions
    /// and the remedy.
    pub(crate) fn check_layout(&self) -> Result<(), String> {
        let cflags = self.cflags();
        let running = self.layout().all;
        let built = raw::LAYOUT.trim_start_matches("ucache-layout=");
        let (size, expected) = (self.server_size, size_of::<raw::uwsgi_server>());
        let version = version(&cflags);
        let version = version.unwrap_or("of unknown version");
        if running != built {
            // If uWSGI runs inside Python, this program cannot be asked for uWSGI's header.
            let program = std::env::current_exe().ok().map(|path| path.display().to_string());
            let program = program.filter(|path| path.contains("uwsgi")).unwrap_or("<this uwsgi>".into());
            return Err(format!(
                "built for uWSGI {} (interface {built}), loaded by uWSGI {version} (interface {running}): rebuild \
                 with `UWSGI_BIN={program} cargo build --release --features uwsgi`",
                raw::BUILT_AGAINST
            ));
        }
        if size != expected {
            return Err(format!(
                "uWSGI {version} has the structs that the plugin was built for, but its struct uwsgi_server has \
                 {size} bytes instead of {expected}: this uWSGI reports other flags than it was built with"
            ));
        }
        if !raw::compilers_agree() {
            return Err("the C compiler and bindgen lay the structs of uwsgi.h out differently: rebuild with the libclang \
                        and the C compiler of the same machine"
                .to_owned());
        }
        Ok(())
    }

    /// Whether this host reads a plugin and its options with our layout, whatever its other structs
    /// are.
    pub(crate) fn reads_plugins_alike(&self) -> bool {
        self.layout().plugin == raw::PLUGIN_LAYOUT.trim_start_matches("ucache-plugin-layout=")
    }

    fn layout(&self) -> layout::Digests {
        layout::Digests::of(&own(self.dot_h), &self.cflags())
    }

    /// The value of an option as far as the host has read its configuration; `None` = not given, or
    /// without a value.
    pub(crate) fn option_so_far(&self, name: &CStr) -> Option<String> {
        type Get = unsafe extern "C" fn(*const c_char) -> *const c_char;
        let get = self.function(c"uwsgi_get_exported_opt")?;
        // SAFETY: uwsgi.h declares it with this signature; it only compares the name with its own
        // list.
        let value = unsafe { std::mem::transmute::<*const (), Get>(get)(name.as_ptr()) };
        // SAFETY: NULL or a string of its configuration, NUL-terminated and never freed.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }

    /// The version of the running host, if it reports one.
    pub(crate) fn version(&self) -> String {
        version(&self.cflags()).unwrap_or("2.0").to_owned()
    }

    fn cflags(&self) -> String {
        own(self.cflags)
    }
}

/// The text that `give` allocates. An empty one may be a literal and is not freed.
fn own(give: unsafe extern "C" fn() -> *mut c_char) -> String {
    // SAFETY: the host's function takes nothing and returns NULL or a NUL-terminated string.
    let text = unsafe { give() };
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, see above.
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    if !copy.is_empty() {
        // SAFETY: allocated by the host with malloc for the caller, its only owner.
        unsafe { libc::free(text.cast()) };
    }
    copy
}

/// `-DUWSGI_VERSION="\"2.0.21-debian\""` gives `2.0.21-debian`.
fn version(cflags: &str) -> Option<&str> {
    let (_, rest) = cflags.split_once("-DUWSGI_VERSION=")?;
    let value = rest.split_whitespace().next()?;
    Some(value.trim_matches(['"', '\\', '\'']))
}

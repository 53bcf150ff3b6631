//! The functions of libucache: those that the process has already (uWSGI's plugin, a program linked
//! with the library), else the ones linked into this module. A process has one set of caches.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem, ptr,
    sync::Mutex,
};

use ::ucache::capi::{
    compat::{extras, magic},
    handle::{
        error, lease, many, memory, memory::ucache_memory, open, read, stats, store, ucache, ucache_lease,
        ucache_read, ucache_stats, walk, write,
    },
};

type Bytes = *const c_void;

macro_rules! functions {
    ($($abi:literal $module:ident::$name:ident($($arg:ty),*) $(-> $result:ty)?;)+) => {
        /// One pointer for each function; `include/ucache.h` says what they do.
        pub(crate) struct Library {
            $(pub(crate) $name: unsafe extern $abi fn($($arg),*) $(-> $result)?,)+
        }

        const LINKED: Library = Library { $($name: $module::$name),+ };

        impl Library {
            /// The functions that the process has; the name of the first one that is missing.
            fn loaded() -> Result<Self, &'static CStr> {
                $(let $name = {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("a name"),
                    };
                    let found = symbol(NAME).ok_or(NAME)?;
                    // SAFETY: a function of this name is libucache's, whose types do not change;
                    // those of LINKED are checked by the compiler.
                    unsafe { mem::transmute::<*mut c_void, unsafe extern $abi fn($($arg),*) $(-> $result)?>(found) }
                };)+
                Ok(Self { $($name),+ })
            }
        }
    };
}

functions! {
    "C" extras::ucache_version() -> *const c_char;
    "C" error::ucache_error() -> *const c_char;
    "C" open::ucache_open(*mut *mut ucache, *const c_char) -> c_int;
    "C" open::ucache_attach(*mut *mut ucache, *const c_char) -> c_int;
    "C" open::ucache_named(*mut *mut ucache, *const c_char) -> c_int;
    "C" open::ucache_close(*mut ucache);
    "C" open::ucache_sync(*mut ucache) -> c_int;
    "C" open::ucache_server(*mut ucache, *mut c_void, usize, *mut usize) -> c_int;
    "C" read::ucache_get(*mut ucache, Bytes, usize, *mut c_void, usize, *mut usize) -> c_int;
    "C" read::ucache_take(*mut ucache, Bytes, usize, *mut c_void, usize, *mut usize) -> c_int;
    "C" read::ucache_exists(*mut ucache, Bytes, usize, *mut u64) -> c_int;
    "C" read::ucache_ttl(*mut ucache, Bytes, usize, *mut u64) -> c_int;
    "C" read::ucache_number(*mut ucache, Bytes, usize, *mut i64) -> c_int;
    "C" read::ucache_number_value(*mut ucache, i64, *mut c_void, usize, *mut usize) -> c_int;
    "C" many::ucache_get_many(*mut ucache, *mut ucache_read, usize, *mut c_void, usize, *mut usize) -> c_int;
    "C" store::ucache_set(*mut ucache, Bytes, usize, Bytes, usize, u64) -> c_int;
    "C" store::ucache_add(*mut ucache, Bytes, usize, Bytes, usize, u64) -> c_int;
    "C" store::ucache_replace(*mut ucache, Bytes, usize, Bytes, usize, u64) -> c_int;
    "C" store::ucache_append(*mut ucache, Bytes, usize, Bytes, usize, *mut usize) -> c_int;
    "C" store::ucache_prepend(*mut ucache, Bytes, usize, Bytes, usize, *mut usize) -> c_int;
    "C" write::ucache_cas(*mut ucache, Bytes, usize, Bytes, usize, Bytes, usize, u64) -> c_int;
    "C" write::ucache_del(*mut ucache, Bytes, usize) -> c_int;
    "C" write::ucache_del_if(*mut ucache, Bytes, usize, Bytes, usize) -> c_int;
    "C" write::ucache_incr(*mut ucache, Bytes, usize, i64, u64, *mut i64) -> c_int;
    "C" write::ucache_mul(*mut ucache, Bytes, usize, i64, u64, *mut i64) -> c_int;
    "C" write::ucache_div(*mut ucache, Bytes, usize, i64, u64, *mut i64) -> c_int;
    "C" write::ucache_touch(*mut ucache, Bytes, usize, u64) -> c_int;
    "C" write::ucache_clear(*mut ucache) -> c_int;
    "C" write::ucache_sweep(*mut ucache) -> c_int;
    "C-unwind" walk::ucache_keys(*mut ucache, Bytes, usize, Option<walk::KeyFn>, *mut c_void) -> c_int;
    "C" lease::ucache_lease_begin(
        *mut ucache, Bytes, usize, *mut c_void, usize, *mut usize, u64, u64, u64, *mut *mut ucache_lease
    ) -> c_int;
    "C" lease::ucache_lease_end(*mut ucache_lease, Bytes, usize, u64) -> c_int;
    "C" lease::ucache_lease_drop(*mut ucache_lease);
    "C" stats::ucache_stat(*mut ucache, *mut ucache_stats, usize) -> c_int;
    "C" memory::ucache_memory(*mut ucache, *mut ucache_memory, usize) -> c_int;
    "C" magic::uwsgi_cache_magic_get(*const c_char, u16, *mut u64, *mut u64, *const c_char) -> *mut c_char;
    "C" magic::uwsgi_cache_magic_set(*const c_char, u16, *const c_char, u64, u64, u64, *const c_char) -> c_int;
    "C" magic::uwsgi_cache_magic_del(*const c_char, u16, *const c_char) -> c_int;
    "C" magic::uwsgi_cache_magic_exists(*const c_char, u16, *const c_char) -> c_int;
    "C" magic::uwsgi_cache_magic_clear(*const c_char) -> c_int;
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // Of the program and the libraries it shares with all, to which uWSGI's plugins belong.
    // RTLD_DEFAULT would find this module's own functions first.
    // SAFETY: NULL is the program, which stays; the name ends with a NUL.
    let found = unsafe {
        let program = libc::dlopen(ptr::null(), libc::RTLD_LAZY);
        if program.is_null() { program } else { libc::dlsym(program, name.as_ptr()) }
    };
    (!found.is_null()).then_some(found)
}

/// The library of this process. It is chosen once: caches of two libraries would be two caches.
static CHOSEN: Mutex<Option<&'static Library>> = Mutex::new(None);

/// The library, or why there is none: an older one is loaded already.
pub(crate) fn library() -> Result<&'static Library, String> {
    let mut chosen = CHOSEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(library) = *chosen {
        return Ok(library);
    }
    let library = match symbol(c"ucache_get") {
        None => LINKED,
        Some(_) => Library::loaded().map_err(|missing| {
            format!(
                "the libucache that this process has loaded (uWSGI's plugin?) has no function {}: \
                 install the version of the plugin that belongs to this package, {}",
                missing.to_string_lossy(),
                env!("CARGO_PKG_VERSION")
            )
        })?,
    };
    let library: &'static Library = Box::leak(Box::new(library));
    *chosen = Some(library);
    Ok(library)
}

impl Library {
    /// Whether the library is the one linked into this module.
    pub(crate) fn is_linked(&self) -> bool {
        ptr::fn_addr_eq(self.ucache_version, LINKED.ucache_version)
    }
}

/// Whether this process is a uWSGI: its functions are there without the library's.
pub(crate) fn is_uwsgi() -> bool {
    symbol(c"uwsgi_start").is_some()
}

//! The host's implementation of [`Env`]: its options, log, locks and list of caches.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr, slice,
    time::Duration,
};

use super::{host::Host, lock, raw};
use crate::capi::{
    host::env::{Definition, Env, Preload},
    types::{uwsgi_cache, uwsgi_lock_item},
};

impl Host {
    /// The host's struct as it is now. Caches are created during single-threaded start-up, after
    /// the options are read; no field used here changes later.
    fn options(&self) -> &raw::uwsgi_server {
        // SAFETY: valid for the life of the process; see above for the writers.
        unsafe { &*self.server }
    }
}

impl Env for Host {
    fn head(&self) -> *mut *mut uwsgi_cache {
        // SAFETY: only an address is taken.
        unsafe { (&raw mut (*self.server).caches).cast() }
    }

    fn write_log(&self, line: &str) {
        Host::log(self, line);
    }

    fn new_lock(&self, name: &str) -> *mut uwsgi_lock_item {
        lock::new(self, name).cast()
    }

    fn create_failed(&self) {
        // As native does: a server must not run without a configured cache.
        // SAFETY: start-up is single-threaded; exit handlers run as after any other invalid option.
        unsafe { libc::exit(1) }
    }

    fn definitions(&self) -> Vec<Definition> {
        let options = self.options();
        let legacy = (options.cache_max_items > 0).then(|| Definition::Legacy(legacy(options)));
        let cache2 = list(options.cache2).map(|value| Definition::Cache2(value.to_vec()));
        legacy.into_iter().chain(cache2).collect()
    }

    fn preloads(&self) -> Vec<Preload> {
        let options = self.options();
        let files = list(options.load_file_in_cache).map(|v| Preload::File(v.to_vec()));
        let gzipped = list(options.load_file_in_cache_gzip).map(|v| Preload::Gzip(v.to_vec()));
        let items = list(options.add_cache_item).map(|v| Preload::Item(v.to_vec()));
        files.chain(gzipped).chain(items).collect()
    }

    fn sweep_interval(&self) -> Duration {
        seconds(self.options().cache_expire_freq, 3)
    }

    fn report_freed(&self) -> bool {
        self.options().cache_report_freed_items != 0
    }

    fn socket_timeout(&self) -> Duration {
        seconds(self.options().socket_timeout, 4)
    }

    fn store_sync(&self) -> u64 {
        u64::try_from(self.options().cache_store_sync).unwrap_or(0)
    }

    fn keep_fd(&self, fd: i32) {
        Host::keep_fd(self, fd);
    }

    fn no_expire(&self) -> bool {
        self.options().cache_no_expire != 0
    }

    fn caches_created(&self) {
        if let Some(register) = self.function(c"uwsgi_hash_algo_register_all") {
            // SAFETY: uwsgi.h declares it `void f(void)`; registering twice has no effect.
            unsafe { std::mem::transmute::<*const (), unsafe extern "C" fn()>(register)() }
        }
        // SAFETY: start-up is single-threaded.
        unsafe { (*self.server).cache_setup = 1 }
    }

    fn sync_at_once(&self) -> bool {
        false
    }

    fn has_master(&self) -> bool {
        self.options().master_process != 0
    }

    fn may_look_up(&self) -> bool {
        // The main thread forks the workers; others (the legion's, for one) do not.
        // SAFETY: neither call has preconditions.
        unsafe { libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) }
    }

    fn read_file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        type OpenAndRead =
            unsafe extern "C" fn(*mut c_char, *mut usize, c_int, *mut *mut c_char) -> *mut c_char;
        let open =
            self.function(c"uwsgi_open_and_read").ok_or("this uWSGI exports no uwsgi_open_and_read")?;
        // SAFETY: uwsgi.h declares it with this signature.
        let open = unsafe { std::mem::transmute::<*const (), OpenAndRead>(open) };
        // The host may keep the pointer to the name.
        let name = CString::new(name).map_err(|e| e.to_string())?.into_raw();
        let mut size = 0;
        // SAFETY: a NUL-terminated name that is never freed, a variable for the size, and no table
        // of variables. The call ends the server if there is nothing to read, as for native caches.
        let content = unsafe { open(name, &raw mut size, 0, ptr::null_mut()) };
        if content.is_null() {
            return Err("uWSGI found nothing to read".to_owned());
        }
        // SAFETY: the host allocated `size` bytes for us with malloc and filled them.
        let copy = unsafe { slice::from_raw_parts(content.cast::<u8>(), size) }.to_vec();
        // SAFETY: as above; no other code has the pointer.
        unsafe { libc::free(content.cast()) };
        Ok(copy)
    }
}

/// A number of seconds from the host's options; 0 and less mean `default`.
fn seconds(value: i32, default: u64) -> Duration {
    let given = u64::try_from(value).unwrap_or(0);
    Duration::from_secs(if given == 0 { default } else { given })
}

/// The values of a list of options.
fn list(mut item: *mut raw::uwsgi_string_list) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        // SAFETY: NULL or an element of a list that the host builds from its options and never
        // frees.
        let current = unsafe { item.as_ref() }?;
        item = current.next;
        Some(text(current.value).unwrap_or_default())
    })
}

/// A string option.
fn text(value: *const c_char) -> Option<&'static [u8]> {
    // SAFETY: a string of the host's configuration is NUL-terminated and never freed.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// The old-style `cache` options as one cache2 definition.
fn legacy(options: &raw::uwsgi_server) -> Vec<u8> {
    let mut string = format!("name=default,items={}", options.cache_max_items).into_bytes();
    let mut add = |key: &str, value: &[u8]| {
        string.extend([b",", key.as_bytes(), b"="].concat());
        for &byte in value {
            if matches!(byte, b',' | b'\\') {
                string.push(b'\\');
            }
            string.push(byte);
        }
    };
    if options.cache_blocksize > 0 {
        add("blocksize", options.cache_blocksize.to_string().as_bytes());
    }
    if let Some(path) = text(options.cache_store) {
        add("store", path);
    }
    if options.cache_use_last_modified != 0 {
        add("lastmod", b"1");
    }
    let lists = [("nodes", options.cache_udp_node), ("udp_servers", options.cache_udp_server)];
    for (key, values) in lists {
        let joined = list(values).collect::<Vec<_>>().join(&b';');
        if !joined.is_empty() {
            add(key, &joined);
        }
    }
    if let Some(server) = text(options.cache_sync) {
        add("sync", server);
    }
    string
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Box<raw::uwsgi_server> {
        // SAFETY: all zeroes is the host's own start-up state: numbers, NULL pointers, empty
        // arrays, no functions.
        unsafe { Box::new_zeroed().assume_init() }
    }

    fn element(value: &'static CStr, next: *mut raw::uwsgi_string_list) -> raw::uwsgi_string_list {
        let value_ptr = value.as_ptr().cast_mut();
        raw::uwsgi_string_list {
            value: value_ptr,
            len: value.count_bytes(),
            custom: 0,
            custom2: 0,
            custom_ptr: ptr::null_mut(),
            next,
        }
    }

    #[test]
    fn old_style_options_become_one_definition() {
        let mut last = element(c"10.0.0.2:3001", ptr::null_mut());
        let mut first = element(c"10.0.0.1:3001", &raw mut last);
        let mut options = options();
        options.cache_max_items = 100;
        assert_eq!(legacy(&options), b"name=default,items=100");
        options.cache_blocksize = 4096;
        options.cache_store = c"/srv/a,b\\c.bin".as_ptr().cast_mut();
        options.cache_use_last_modified = 1;
        options.cache_udp_node = &raw mut first;
        options.cache_sync = c"10.0.0.3:3031".as_ptr().cast_mut();
        let expected: &[u8] = b"name=default,items=100,blocksize=4096,store=/srv/a\\,b\\\\c.bin,lastmod=1,\
                                nodes=10.0.0.1:3001;10.0.0.2:3001,sync=10.0.0.3:3031";
        assert_eq!(String::from_utf8_lossy(&legacy(&options)), String::from_utf8_lossy(expected));
    }

    #[test]
    fn zero_and_negative_seconds_mean_the_default() {
        assert_eq!(seconds(0, 3), Duration::from_secs(3));
        assert_eq!(seconds(-1, 4), Duration::from_secs(4));
        assert_eq!(seconds(7, 4), Duration::from_secs(7));
    }
}

//! The right to compute a value, as an object: `ucache._ucache.Lease`.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    ptr,
};

use ::ucache::capi::handle::{status::Status, ucache_lease};
use pyo3_ffi as ffi;

use crate::{
    cache::Core,
    library::Library,
    opened::Opened,
    py::{Args, Object, Py, Raised, Ref, overflow_error, released, type_error},
    read::{Found, OK, with_value},
};

const LEASE: c_int = Status::Lease as c_int;
const BUSY: c_int = Status::Busy as c_int;
/// Reasons why a computed value is not stored, which are none to keep it from the caller.
const UNSTORED: [c_int; 6] = [
    Status::Changed as c_int,
    Status::Value as c_int,
    Status::Full as c_int,
    Status::Space as c_int,
    Status::Timeout as c_int,
    Status::Backend as c_int,
];

#[repr(C)]
pub(crate) struct Lease {
    head: ffi::PyObject,
    pub(crate) state: State,
}

pub(crate) struct State {
    library: &'static Library,
    /// NULL = ended.
    lease: Cell<*mut ucache_lease>,
    /// The cache stays open until the lease ends.
    opened: Option<Opened>,
}

impl State {
    pub(crate) fn new(library: &'static Library) -> Self {
        Self { library, lease: Cell::new(ptr::null_mut()), opened: None }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let lease = self.lease.replace(ptr::null_mut());
        if !lease.is_null() {
            // SAFETY: a lease that is used for the last time.
            unsafe { (self.library.ucache_lease_drop)(lease) }
        }
    }
}

/// `_lease(key, stale, limit, wait)`: the value, a lease, or `_busy`; times in milliseconds but for
/// stale, which is in seconds.
pub(crate) fn begin(cache: &Core, args: Args<'_>) -> Py<Object> {
    let names = [c"key", c"stale", c"limit", c"wait"];
    let [key, stale, limit, wait] = args.bind("_lease", names, 4, 4)?;
    let key = cache.key(key.ok_or(Raised)?)?;
    let (stale, limit, wait) = (number(stale)?, number(limit)?, number(wait)?);
    let (opened, library) = (cache.opened()?, cache.library());
    let mut lease = ptr::null_mut();
    let begin = |buffer: *mut c_void, size, len: *mut usize| {
        let (handle, data, keylen) = (opened.handle(), key.as_ptr().cast(), key.len());
        // SAFETY: the handle is open; key and buffer have their lengths; `lease` is a place.
        let mut run = || unsafe {
            (library.ucache_lease_begin)(
                handle,
                data,
                keylen,
                buffer,
                size,
                len,
                stale,
                limit,
                wait,
                &raw mut lease,
            )
        };
        Ok(if wait == 0 && !opened.is_backed() { run() } else { released(run) })
    };
    match with_value(begin, |value| cache.decode(value))? {
        Ok(value) => Ok(value),
        Err(LEASE) => {
            let object = cache.object().attribute(c"_Lease")?.borrow().call(&[])?;
            // SAFETY: the class of the module makes objects of this type; nobody else has it yet.
            let state = unsafe { &mut (*object.borrow().as_ptr().cast::<Lease>()).state };
            state.lease.set(lease);
            state.opened = Some(opened.clone());
            Ok(object)
        }
        Err(BUSY) => cache.object().attribute(c"_busy"),
        Err(status) => Err(cache.failed(status)),
    }
}

fn number(value: Option<Ref<'_>>) -> Py<u64> {
    let number = value.ok_or(Raised)?.to_i64()?.and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| overflow_error("a time is negative or too long"))
}

/// `_finish(lease, value, ttl)`: stores a computed value, and returns it as reads will.
pub(crate) fn finish(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [lease, value, ttl] = args.bind("_finish", [c"lease", c"value", c"ttl"], 3, 3)?;
    let (lease, value, ttl) = (lease.ok_or(Raised)?, cache.encode(value.ok_or(Raised)?)?, cache.ttl(ttl)?);
    let class = cache.object().attribute(c"_Lease")?;
    if !lease.has_type(class.borrow()) {
        return Err(type_error(&format!("a lease is needed, not {}", lease.type_name())));
    }
    // SAFETY: the type was checked.
    let state = unsafe { &(*lease.as_ptr().cast::<Lease>()).state };
    let lease = state.lease.replace(ptr::null_mut());
    if !lease.is_null() {
        let library = cache.library();
        // SAFETY: a lease that is used for the last time; the value has its length.
        let status = released(|| unsafe {
            (library.ucache_lease_end)(lease, value.as_ptr().cast(), value.len(), ttl)
        });
        if status != OK && !UNSTORED.contains(&status) {
            return Err(cache.failed(status));
        }
    }
    cache.decode(Found::Short(&value))
}

/// `drop()`: gives the lease up.
pub(crate) fn drop_lease(lease: &Lease, _: Args<'_>) -> Py<Object> {
    let held = lease.state.lease.replace(ptr::null_mut());
    if !held.is_null() {
        let library = lease.state.library;
        // SAFETY: a lease that is used for the last time.
        released(|| unsafe { (library.ucache_lease_drop)(held) });
    }
    Ok(Object::none())
}

//! The type `ucache._ucache.Core`: a cache as its Python class sees it, by name, with a default
//! time to live and a serializer.

use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, CString},
    ptr,
};

use ::ucache::capi::handle::ucache;
use pyo3_ffi as ffi;

use crate::{
    errors::failed,
    library::Library,
    opened::{self, Opened},
    py::{Data, Object, Py, Raised, Ref, overflow_error, type_error, value_error},
    read::Found,
};

/// Time to live that keeps an existing one; `UCACHE_KEEP_TTL`.
pub(crate) const KEEP: u64 = u64::MAX;
/// In a time to live: the other bits are milliseconds; `UCACHE_MILLIS`.
const MILLIS: u64 = 1 << 63;
/// The longest time to live: 2^40 seconds, 34,000 years.
const LONGEST: u64 = 1 << 40;

/// How values become objects.
pub(crate) enum Serializer {
    Text,
    Bytes,
    /// `numbers`: an int is stored as a number that `incr` can change.
    Custom {
        dumps: Object,
        loads: Object,
        numbers: bool,
    },
}

/// What of the serializer and the cache decides on how a value is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Text,
    Bytes,
    /// The serializer decides.
    No,
}

/// A cache. The handle is looked up by the first use, because modules make caches before a program
/// opens them.
#[repr(C)]
pub(crate) struct Core {
    head: ffi::PyObject,
    pub(crate) state: State,
}

/// What is behind the object's head.
pub(crate) struct State {
    pub(crate) library: &'static Library,
    /// NULL = not looked up; belongs to `opened`.
    handle: Cell<*mut ucache>,
    opened: RefCell<Option<Opened>>,
    /// Whether reads wait for a server; known with the handle.
    is_backed: Cell<bool>,
    pub(crate) name: RefCell<CString>,
    pub(crate) timeout: Cell<u64>,
    serializer: RefCell<Serializer>,
    /// Of `serializer`.
    plain: Cell<Plain>,
}

impl State {
    pub(crate) fn new(library: &'static Library) -> Self {
        Self {
            library,
            handle: Cell::new(ptr::null_mut()),
            opened: RefCell::default(),
            is_backed: Cell::new(false),
            name: RefCell::default(),
            timeout: Cell::new(0),
            serializer: RefCell::new(Serializer::Text),
            plain: Cell::new(Plain::Text),
        }
    }

    pub(crate) fn set_serializer(&self, serializer: Serializer) {
        self.plain.set(match serializer {
            Serializer::Text => Plain::Text,
            Serializer::Bytes => Plain::Bytes,
            Serializer::Custom { .. } => Plain::No,
        });
        // The old one is dropped after the borrow: that may run code in Python.
        drop(self.serializer.replace(serializer));
    }
}

impl Core {
    /// The object itself, for its class.
    pub(crate) fn object(&self) -> Ref<'_> {
        // SAFETY: the object begins with its head.
        unsafe { Ref::borrowed(ptr::from_ref(self).cast_mut().cast()) }.expect("self")
    }

    pub(crate) fn library(&self) -> &'static Library {
        self.state.library
    }

    /// The handle, while the GIL is held. Without the GIL: [`Core::opened`].
    #[inline]
    pub(crate) fn handle(&self) -> Py<*mut ucache> {
        let handle = self.state.handle.get();
        if handle.is_null() { self.look_up() } else { Ok(handle) }
    }

    /// The cache, which stays open as long as the result lives.
    pub(crate) fn opened(&self) -> Py<Opened> {
        self.handle()?;
        self.state.opened.borrow().clone().ok_or(Raised)
    }

    #[cold]
    fn look_up(&self) -> Py<*mut ucache> {
        let name = self.state.name.borrow();
        let opened = match opened::find(self.library(), &name) {
            Ok(opened) => opened,
            Err(status) => return Err(failed(self.object(), self.library(), status, Some(&name))),
        };
        self.state.handle.set(opened.handle());
        self.state.is_backed.set(opened.is_backed());
        *self.state.opened.borrow_mut() = Some(opened);
        Ok(self.state.handle.get())
    }

    /// Whether the values are at a server, so that reads wait for it.
    #[inline]
    pub(crate) fn is_backed(&self) -> bool {
        self.state.is_backed.get()
    }

    fn is_decimal(&self) -> bool {
        self.state.opened.borrow().as_ref().is_some_and(Opened::is_decimal)
    }

    /// Forgets the handle: the next use looks it up again.
    pub(crate) fn forget(&self) {
        self.state.handle.set(ptr::null_mut());
        *self.state.opened.borrow_mut() = None;
    }

    /// Runs a call without the GIL; the result is its status.
    pub(crate) fn wait<T>(&self, call: impl FnOnce(&'static Library, *mut ucache) -> T) -> Py<T> {
        let opened = self.opened()?;
        let library = self.library();
        Ok(crate::py::released(|| call(library, opened.handle())))
    }

    /// Runs a read: without the GIL if it waits for a server.
    #[inline]
    pub(crate) fn read<T>(&self, call: impl FnOnce(&'static Library, *mut ucache) -> T) -> Py<T> {
        let handle = self.handle()?;
        if self.is_backed() { self.wait(call) } else { Ok(call(self.library(), handle)) }
    }

    /// Raises the exception of a status.
    #[cold]
    pub(crate) fn failed(&self, status: i32) -> Raised {
        failed(self.object(), self.library(), status, None)
    }

    /// The bytes of a key.
    #[inline]
    pub(crate) fn key<'a>(&self, key: Ref<'a>) -> Py<Data<'a>> {
        match key.data()? {
            Some(data) => Ok(data),
            None => Err(type_error(&format!("a key is str or bytes, not {}", key.type_name()))),
        }
    }

    /// A time to live as the library takes it; the cache's own if none is given.
    pub(crate) fn ttl(&self, ttl: Option<Ref<'_>>) -> Py<u64> {
        match ttl.filter(|ttl| !ttl.is_none()) {
            None => Ok(self.state.timeout.get()),
            Some(ttl) => Ok(match seconds(ttl)? {
                Seconds::Whole(seconds) => seconds,
                // At most 2^51: exact.
                Seconds::Part(seconds) => MILLIS | (seconds * 1000.0).ceil() as u64,
            }),
        }
    }

    /// The same in whole seconds, rounded up.
    pub(crate) fn whole_seconds(&self, time: Option<Ref<'_>>) -> Py<u64> {
        match time.filter(|time| !time.is_none()) {
            None => Ok(self.state.timeout.get()),
            Some(time) => Ok(match seconds(time)? {
                Seconds::Whole(seconds) => seconds,
                Seconds::Part(seconds) => seconds.ceil() as u64,
            }),
        }
    }

    /// The same, where `ucache.KEEP` is allowed.
    pub(crate) fn ttl_or_keep(&self, ttl: Option<Ref<'_>>) -> Py<u64> {
        let Some(ttl) = ttl.filter(|ttl| !ttl.is_none() && !ttl.is_number()) else { return self.ttl(ttl) };
        let keep = self.object().attribute(c"_keep")?;
        if keep.borrow().as_ptr() == ttl.as_ptr() { Ok(KEEP) } else { self.ttl(Some(ttl)) }
    }

    /// The bytes that a value is stored as.
    pub(crate) fn encode<'a>(&self, value: Ref<'a>) -> Py<Data<'a>> {
        let custom = match &*self.state.serializer.borrow() {
            Serializer::Custom { dumps, numbers, .. } => Some((dumps.borrow().own(), *numbers)),
            Serializer::Text | Serializer::Bytes => None,
        };
        if let Some((dumps, numbers)) = custom {
            return self.dump(value, dumps.borrow(), numbers);
        }
        if let Some(data) = value.data()? {
            return Ok(data);
        }
        if value.is_number() {
            return Ok(Data::Text(String::from_utf8_lossy(value.str()?.borrow().utf8()?).into_owned()));
        }
        Err(type_error(&format!(
            "a value is str, bytes or a number, not {}: for other objects choose a serializer, as in \
             Cache(name, serializer='json')",
            value.type_name()
        )))
    }

    fn dump<'a>(&self, value: Ref<'a>, dumps: Ref<'_>, numbers: bool) -> Py<Data<'a>> {
        self.handle()?;
        if numbers
            && value.is_int()
            && let Some(number) = value.to_i64()?
        {
            return Ok(match self.is_decimal() {
                true => Data::Text(number.to_string()),
                false => Data::Number(number.to_ne_bytes()),
            });
        }
        let dumped = dumps.call(&[value])?;
        let Some(data) = dumped.borrow().data()? else {
            let kind = dumped.borrow().type_name();
            return Err(type_error(&format!("the serializer's dumps returned {kind}, not bytes")));
        };
        if numbers && !self.is_decimal() && data.len() == 8 {
            // Not to be taken for a number: JSON and pickle end before it.
            let mut padded = data.to_vec();
            padded.push(b'\n');
            return Ok(Data::Padded(padded));
        }
        let data = data.to_vec();
        Ok(Data::Padded(data))
    }

    /// The object that stored bytes are.
    #[inline]
    pub(crate) fn decode(&self, value: Found<'_>) -> Py<Object> {
        match self.state.plain.get() {
            Plain::Bytes => value.into_bytes(),
            Plain::Text => Object::text(value.as_slice(), false),
            Plain::No => self.load(value),
        }
    }

    #[inline(never)]
    fn load(&self, value: Found<'_>) -> Py<Object> {
        let (loads, numbers) = match &*self.state.serializer.borrow() {
            Serializer::Custom { loads, numbers, .. } => (loads.borrow().own(), *numbers),
            Serializer::Text | Serializer::Bytes => return value.into_bytes(),
        };
        match if numbers { self.number(value.as_slice()) } else { None } {
            Some(number) => Object::int(number),
            None => loads.borrow().call(&[value.into_bytes()?.borrow()]),
        }
    }

    fn number(&self, value: &[u8]) -> Option<i64> {
        if !self.is_decimal() {
            return value.try_into().ok().map(i64::from_ne_bytes);
        }
        let text = std::str::from_utf8(value).ok()?;
        text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    }
}

/// A time, seconds.
enum Seconds {
    Whole(u64),
    /// With a fraction.
    Part(f64),
}

/// Seconds of a number or a timedelta; part of a second counts as a whole one.
fn seconds(ttl: Ref<'_>) -> Py<Seconds> {
    if ttl.is_int() {
        return match ttl.to_i64()? {
            Some(seconds @ 0..) if seconds.cast_unsigned() <= LONGEST => {
                Ok(Seconds::Whole(seconds.cast_unsigned()))
            }
            Some(seconds @ ..0) => Err(negative(&seconds.to_string())),
            _ => Err(overflow_error(&format!("a time to live is at most {LONGEST} seconds"))),
        };
    }
    if ttl.is_float() {
        let seconds = ttl.to_f64()?;
        return match seconds {
            _ if seconds.is_nan() => Err(value_error("a time to live of nan")),
            _ if seconds < 0.0 => Err(negative(&seconds.to_string())),
            _ if seconds > LONGEST as f64 => {
                Err(overflow_error(&format!("a time to live is at most {LONGEST} seconds")))
            }
            _ if seconds.fract() == 0.0 => Ok(Seconds::Whole(seconds as u64)),
            _ => Ok(Seconds::Part(seconds)),
        };
    }
    let total = ttl.attribute(c"total_seconds").map_err(|Raised| {
        crate::py::clear();
        type_error(&format!("a time to live is a number of seconds or a timedelta, not {}", ttl.type_name()))
    })?;
    let total = total.borrow().call(&[])?;
    match total.borrow().is_float() {
        true => seconds(total.borrow()),
        false => Err(type_error("total_seconds() of a time to live is no float")),
    }
}

fn negative(seconds: &str) -> Raised {
    value_error(&format!("a time to live of {seconds} seconds: it is positive, or 0 for never"))
}

/// A text as a C string.
pub(crate) fn c_string(text: Ref<'_>, what: &str) -> Py<CString> {
    if !text.is_text() {
        return Err(type_error(&format!("{what} is str, not {}", text.type_name())));
    }
    CString::new(text.utf8()?).map_err(|_| value_error(&format!("{what} has a NUL")))
}

/// A name for messages.
pub(crate) fn shown(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

//! Objects of Python with owners and lifetimes. Every function here is called with the GIL held,
//! because nothing in this module runs outside calls of the interpreter, except in [`released`].

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull},
    slice,
};

use pyo3_ffi as ffi;

mod args;
mod calls;

pub(crate) use args::Args;
use calls::is_raised;
pub(crate) use calls::{
    clear, guarded, import_error, overflow_error, raise, released, system_error, type_error, value_error,
};

unsafe extern "C" {
    // In the stable interface since 3.10, exported by all versions.
    fn PyUnicode_AsUTF8AndSize(text: *mut ffi::PyObject, size: *mut ffi::Py_ssize_t) -> *const c_char;
}

/// An exception is set.
#[derive(Debug)]
pub(crate) struct Raised;

pub(crate) type Py<T> = Result<T, Raised>;

/// A borrowed object.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Ref<'a>(NonNull<ffi::PyObject>, PhantomData<&'a ffi::PyObject>);

/// An owned object.
pub(crate) struct Object(NonNull<ffi::PyObject>);

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the reference is owned.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

impl Object {
    /// Takes a new reference over; NULL = an exception is set.
    ///
    /// # Safety
    /// `object` is NULL or a reference that the caller gives up.
    pub(crate) unsafe fn owned(object: *mut ffi::PyObject) -> Py<Self> {
        NonNull::new(object).map(Self).ok_or(Raised)
    }

    pub(crate) fn into_ptr(self) -> *mut ffi::PyObject {
        let object = self.0.as_ptr();
        std::mem::forget(self);
        object
    }

    fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    pub(crate) fn borrow(&self) -> Ref<'_> {
        Ref(self.0, PhantomData)
    }

    pub(crate) fn none() -> Self {
        // SAFETY: None is an object that always exists.
        unsafe { Ref::borrowed(ffi::Py_None()) }.expect("None").own()
    }

    pub(crate) fn bool(value: bool) -> Self {
        // SAFETY: a new reference to True or False.
        unsafe { Self::owned(ffi::PyBool_FromLong(value.into())) }.expect("a bool")
    }

    pub(crate) fn int(value: i64) -> Py<Self> {
        // SAFETY: a new reference or NULL.
        unsafe { Self::owned(ffi::PyLong_FromLongLong(value)) }
    }

    pub(crate) fn unsigned(value: u64) -> Py<Self> {
        // SAFETY: a new reference or NULL.
        unsafe { Self::owned(ffi::PyLong_FromUnsignedLongLong(value)) }
    }

    #[inline]
    pub(crate) fn bytes(value: &[u8]) -> Py<Self> {
        // SAFETY: the bytes are copied; a slice's length fits.
        unsafe { Self::owned(ffi::PyBytes_FromStringAndSize(value.as_ptr().cast(), value.len() as isize)) }
    }

    /// A new bytes object for `len` bytes that are written at [`Object::room_at`] before anybody
    /// else gets it.
    pub(crate) fn room(len: usize) -> Py<Self> {
        let Ok(len) = isize::try_from(len) else { return Err(overflow_error("a value is too long")) };
        // SAFETY: NULL = its bytes are not initialised; a new reference or NULL.
        unsafe { Self::owned(ffi::PyBytes_FromStringAndSize(ptr::null(), len)) }
    }

    /// Where the bytes of a new bytes object are.
    pub(crate) fn room_at(&self) -> *mut c_void {
        // SAFETY: a bytes object.
        unsafe { ffi::PyBytes_AsString(self.as_ptr()).cast() }
    }

    /// Decodes UTF-8. `escaped`: bytes that are none become lone surrogates, as in file names.
    #[inline]
    pub(crate) fn text(value: &[u8], escaped: bool) -> Py<Self> {
        let errors = if escaped { c"surrogateescape".as_ptr() } else { ptr::null() };
        // SAFETY: the bytes are copied; a slice's length fits.
        unsafe { Self::owned(ffi::PyUnicode_DecodeUTF8(value.as_ptr().cast(), value.len() as isize, errors)) }
    }

    pub(crate) fn list() -> Py<Self> {
        // SAFETY: a new reference or NULL.
        unsafe { Self::owned(ffi::PyList_New(0)) }
    }

    pub(crate) fn dict() -> Py<Self> {
        // SAFETY: a new reference or NULL.
        unsafe { Self::owned(ffi::PyDict_New()) }
    }

    pub(crate) fn append(&self, item: Ref<'_>) -> Py<()> {
        // SAFETY: a list and an object.
        done(unsafe { ffi::PyList_Append(self.as_ptr(), item.as_ptr()) })
    }

    #[inline]
    pub(crate) fn insert(&self, key: Ref<'_>, value: Ref<'_>) -> Py<()> {
        // SAFETY: a dict and two objects.
        done(unsafe { ffi::PyDict_SetItem(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }
}

fn done(result: c_int) -> Py<()> {
    if result < 0 { Err(Raised) } else { Ok(()) }
}

impl<'a> Ref<'a> {
    /// # Safety
    /// `object` is NULL or an object that lives for `'a`.
    #[inline]
    pub(crate) unsafe fn borrowed(object: *mut ffi::PyObject) -> Option<Self> {
        NonNull::new(object).map(|object| Self(object, PhantomData))
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    pub(crate) fn own(self) -> Object {
        // SAFETY: an object.
        unsafe { ffi::Py_INCREF(self.as_ptr()) };
        Object(self.0)
    }

    pub(crate) fn is_none(self) -> bool {
        // SAFETY: compares pointers.
        self.as_ptr() == unsafe { ffi::Py_None() }
    }

    #[inline]
    fn is_exactly(self, kind: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: an object has a type.
        unsafe { ffi::Py_TYPE(self.as_ptr()) == kind }
    }

    fn is_a(self, kind: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: an object and a type.
        unsafe { ffi::PyObject_TypeCheck(self.as_ptr(), kind) != 0 }
    }

    /// The name of the object's type, for messages.
    pub(crate) fn type_name(self) -> String {
        // SAFETY: an object has a type.
        let kind = unsafe { Ref::borrowed(ffi::Py_TYPE(self.as_ptr()).cast()) }.expect("a type");
        let name = kind.attribute(c"__name__").ok();
        name.and_then(|name| name.borrow().utf8().ok().map(|text| String::from_utf8_lossy(text).into_owned()))
            .unwrap_or_else(|| {
                clear();
                "?".to_owned()
            })
    }

    pub(crate) fn attribute(self, name: &CStr) -> Py<Object> {
        // SAFETY: an object and a name; a new reference or NULL.
        unsafe { Object::owned(ffi::PyObject_GetAttrString(self.as_ptr(), name.as_ptr())) }
    }

    pub(crate) fn truth(self) -> Py<bool> {
        // SAFETY: an object.
        match unsafe { ffi::PyObject_IsTrue(self.as_ptr()) } {
            -1 => Err(Raised),
            truth => Ok(truth != 0),
        }
    }

    /// Calls the object with up to two arguments.
    pub(crate) fn call(self, args: &[Ref<'_>]) -> Py<Object> {
        // SAFETY: objects; a new reference or NULL. The tuple steals new references.
        unsafe {
            let tuple = Object::owned(ffi::PyTuple_New(args.len() as isize))?;
            for (at, arg) in args.iter().enumerate() {
                done(ffi::PyTuple_SetItem(tuple.as_ptr(), at as isize, arg.own().into_ptr()))?;
            }
            Object::owned(ffi::PyObject_Call(self.as_ptr(), tuple.as_ptr(), ptr::null_mut()))
        }
    }

    pub(crate) fn str(self) -> Py<Object> {
        // SAFETY: an object; a new reference or NULL.
        unsafe { Object::owned(ffi::PyObject_Str(self.as_ptr())) }
    }

    /// Whether it is an object of a class.
    pub(crate) fn has_type(self, class: Ref<'_>) -> bool {
        self.is_a(class.as_ptr().cast())
    }

    pub(crate) fn is_text(self) -> bool {
        self.is_exactly(&raw mut ffi::PyUnicode_Type) || self.is_a(&raw mut ffi::PyUnicode_Type)
    }

    /// Whether it is an int but no bool.
    pub(crate) fn is_int(self) -> bool {
        self.is_exactly(&raw mut ffi::PyLong_Type)
            || (self.is_a(&raw mut ffi::PyLong_Type) && !self.is_exactly(&raw mut ffi::PyBool_Type))
    }

    pub(crate) fn is_number(self) -> bool {
        self.is_a(&raw mut ffi::PyLong_Type) || self.is_a(&raw mut ffi::PyFloat_Type)
    }

    pub(crate) fn is_float(self) -> bool {
        self.is_a(&raw mut ffi::PyFloat_Type)
    }

    /// The number as 64 bits; `None` = it does not fit.
    pub(crate) fn to_i64(self) -> Py<Option<i64>> {
        let mut overflow = 0;
        // SAFETY: an object and a place.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(self.as_ptr(), &raw mut overflow) };
        match (value, overflow) {
            (-1, 0) if is_raised() => Err(Raised),
            (value, 0) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    pub(crate) fn to_f64(self) -> Py<f64> {
        // SAFETY: an object.
        let value = unsafe { ffi::PyFloat_AsDouble(self.as_ptr()) };
        if value == -1.0 && is_raised() { Err(Raised) } else { Ok(value) }
    }

    /// The UTF-8 of a str; it lives as long as the str.
    #[inline]
    pub(crate) fn utf8(self) -> Py<&'a [u8]> {
        let mut len = 0;
        // SAFETY: an object and a place; a str keeps its UTF-8.
        unsafe {
            let text = PyUnicode_AsUTF8AndSize(self.as_ptr(), &raw mut len);
            if text.is_null() {
                Err(Raised)
            } else {
                Ok(slice::from_raw_parts(text.cast(), len.cast_unsigned()))
            }
        }
    }

    /// The bytes of an object that is exactly a str of UTF-8, or bytes: what nearly all keys are.
    #[inline(always)]
    pub(crate) fn plain(self) -> Option<&'a [u8]> {
        if self.is_exactly(&raw mut ffi::PyUnicode_Type) {
            return self.utf8().inspect_err(|Raised| clear()).ok();
        }
        self.is_exactly(&raw mut ffi::PyBytes_Type).then(|| self.content())
    }

    /// The bytes of a str (its UTF-8), bytes, bytearray or memoryview; `None` = another type.
    #[inline]
    pub(crate) fn data(self) -> Py<Option<Data<'a>>> {
        if self.is_exactly(&raw mut ffi::PyUnicode_Type) {
            return match self.utf8() {
                Ok(text) => Ok(Some(Data::Borrowed(text))),
                Err(Raised) => self.escaped().map(Some),
            };
        }
        if self.is_exactly(&raw mut ffi::PyBytes_Type) {
            return Ok(Some(Data::Borrowed(self.content())));
        }
        self.other_data()
    }

    #[cold]
    fn other_data(self) -> Py<Option<Data<'a>>> {
        if self.is_a(&raw mut ffi::PyUnicode_Type) {
            return self.escaped().map(Some);
        }
        if self.is_a(&raw mut ffi::PyBytes_Type)
            || self.is_a(&raw mut ffi::PyByteArray_Type)
            || self.is_exactly(&raw mut ffi::PyMemoryView_Type)
        {
            // SAFETY: an object; a new reference or NULL.
            return unsafe { Object::owned(ffi::PyBytes_FromObject(self.as_ptr())) }
                .map(|o| Some(Data::Owned(o)));
        }
        Ok(None)
    }

    /// A str whose lone surrogates are bytes that were no UTF-8.
    #[cold]
    fn escaped(self) -> Py<Data<'a>> {
        clear();
        // SAFETY: a str and two names; a new reference or NULL.
        let bytes = unsafe {
            Object::owned(ffi::PyUnicode_AsEncodedString(
                self.as_ptr(),
                c"utf-8".as_ptr(),
                c"surrogateescape".as_ptr(),
            ))
        };
        bytes.map(Data::Owned)
    }

    /// The content of a bytes object.
    #[inline]
    pub(crate) fn content(self) -> &'a [u8] {
        // SAFETY: called for bytes objects, whose content does not change.
        unsafe {
            let (data, len) = (ffi::PyBytes_AsString(self.as_ptr()), ffi::PyBytes_Size(self.as_ptr()));
            slice::from_raw_parts(data.cast(), len.cast_unsigned())
        }
    }

    /// The items of an iterable.
    pub(crate) fn items(self) -> Py<Items> {
        // SAFETY: an object; a new reference or NULL.
        unsafe { Object::owned(ffi::PySequence_Tuple(self.as_ptr())) }.map(Items)
    }

    /// The pairs of a mapping.
    pub(crate) fn pairs(self) -> Py<Items> {
        // SAFETY: an object; a new reference or NULL.
        let pairs = unsafe { Object::owned(ffi::PyMapping_Items(self.as_ptr())) }?;
        pairs.borrow().items()
    }

    /// Key and value of a pair of [`Ref::pairs`].
    pub(crate) fn pair(self) -> Py<(Ref<'a>, Ref<'a>)> {
        let at = |index| {
            // SAFETY: an object; checks that it is a tuple with this index. The item lives as long.
            unsafe { Ref::borrowed(ffi::PyTuple_GetItem(self.as_ptr(), index)) }.ok_or(Raised)
        };
        Ok((at(0)?, at(1)?))
    }
}

/// A tuple: nobody can change it.
pub(crate) struct Items(Object);

impl Items {
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Ref<'_>> {
        // SAFETY: a tuple.
        let len = unsafe { ffi::PyTuple_Size(self.0.as_ptr()) }.cast_unsigned();
        (0..len).map(|at| {
            // SAFETY: a tuple with this index; its items live as long.
            unsafe { Ref::borrowed(ffi::PyTuple_GetItem(self.0.as_ptr(), at as isize)) }.expect("an item")
        })
    }
}

/// Bytes of an object, which lives for `'a` or is owned.
pub(crate) enum Data<'a> {
    Borrowed(&'a [u8]),
    Owned(Object),
    Number([u8; 8]),
    Text(String),
    Padded(Vec<u8>),
}

impl Deref for Data<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(data) => data,
            Self::Owned(object) => object.borrow().content(),
            Self::Number(number) => number,
            Self::Text(text) => text.as_bytes(),
            Self::Padded(data) => data,
        }
    }
}

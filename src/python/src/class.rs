//! The classes of the module, as the interpreter's specifications of types.
#![allow(
    clippy::missing_safety_doc,
    reason = "the interpreter calls these, with the objects its manual says"
)]

use std::{
    ffi::{CStr, c_int, c_ulong, c_void},
    mem, ptr,
};

use pyo3_ffi as ffi;

use crate::{
    cache::{self, Core, Serializer, c_string, shown},
    lease,
    lease::Lease,
    library::library,
    many,
    py::{Args, Object, Py, Raised, Ref, guarded, import_error, type_error},
    read::{self, Found},
    write,
};

/// In the stable interface since 3.10, the same in all versions.
pub(crate) const METH_FASTCALL: c_int = 0x80;

/// A function with METH_FASTCALL and METH_KEYWORDS.
type Fast = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

pub(crate) fn pointer(call: Fast) -> ffi::PyMethodDefPointer {
    // SAFETY: the interpreter calls it with the arguments that the flags of the entry say.
    ffi::PyMethodDefPointer { PyCFunction: unsafe { mem::transmute::<Fast, ffi::PyCFunction>(call) } }
}

/// Entries of a table of methods: name, function, documentation. `module`: functions of the module.
macro_rules! methods {
    ($kind:ident $($name:literal = $body:expr, $doc:literal,)+) => {{
        let mut table = Vec::new();
        $({
            /// # Safety
            /// The interpreter calls it with an object of the type, as the flags below say.
            unsafe extern "C" fn call(
                object: *mut ::pyo3_ffi::PyObject,
                args: *const *mut ::pyo3_ffi::PyObject,
                count: ::pyo3_ffi::Py_ssize_t,
                names: *mut ::pyo3_ffi::PyObject,
            ) -> *mut ::pyo3_ffi::PyObject {
                $crate::py::guarded(::std::ptr::null_mut(), || {
                    // SAFETY: the interpreter passes an object of the type, and the arguments of a
                    // call of this kind.
                    let (object, args) = unsafe {
                        ($crate::class::target!($kind, object), $crate::py::Args::new(args, count, names))
                    };
                    let body: fn($crate::class::target_type!($kind), $crate::py::Args<'_>) -> $crate::py::Py<$crate::py::Object> = $body;
                    body(object, args).map($crate::py::Object::into_ptr)
                })
            }
            table.push(::pyo3_ffi::PyMethodDef {
                ml_name: concat!($name, "\0").as_ptr().cast(),
                ml_meth: $crate::class::pointer(call),
                ml_flags: $crate::class::METH_FASTCALL | ::pyo3_ffi::METH_KEYWORDS,
                ml_doc: concat!($doc, "\0").as_ptr().cast(),
            });
        })+
        table.push(::pyo3_ffi::PyMethodDef::zeroed());
        table
    }};
}
pub(crate) use methods;

macro_rules! target {
    (module, $object:ident) => {
        $crate::py::Ref::borrowed($object).ok_or($crate::py::Raised)?
    };
    (core, $object:ident) => {
        &*$object.cast::<$crate::cache::Core>()
    };
    (lease, $object:ident) => {
        &*$object.cast::<$crate::lease::Lease>()
    };
}
pub(crate) use target;

macro_rules! target_type {
    (module) => { $crate::py::Ref<'_> };
    (core) => { &$crate::cache::Core };
    (lease) => { &$crate::lease::Lease };
}
pub(crate) use target_type;

/// `_setup(name, timeout, dumps, loads, numbers)`: what `__init__` sets. `dumps` is `None` for text
/// and `False` for bytes.
fn setup(cache: &Core, args: Args<'_>) -> Py<Object> {
    let names = [c"name", c"timeout", c"dumps", c"loads", c"numbers"];
    let [name, timeout, dumps, loads, numbers] = args.bind("_setup", names, 5, 5)?;
    let [name, timeout, dumps, loads, numbers] =
        [name, timeout, dumps, loads, numbers].map(|arg| arg.ok_or(Raised));
    let (name, timeout) = (c_string(name?, "the name of a cache")?, cache.whole_seconds(Some(timeout?))?);
    let (dumps, loads) = (dumps?, loads?);
    cache.state.set_serializer(match (dumps.is_none(), dumps.truth()?) {
        (true, _) => Serializer::Text,
        (false, false) => Serializer::Bytes,
        (false, true) => {
            Serializer::Custom { dumps: dumps.own(), loads: loads.own(), numbers: numbers?.truth()? }
        }
    });
    cache.state.timeout.set(timeout);
    *cache.state.name.borrow_mut() = name;
    cache.forget();
    Ok(Object::none())
}

fn name(cache: &Core, _: Args<'_>) -> Py<Object> {
    Object::text(shown(&cache.state.name.borrow()).as_bytes(), true)
}

fn core_methods() -> Vec<ffi::PyMethodDef> {
    methods! { core
        "_setup" = setup, "",
        "_name" = name, "",
        "_timeout" = |cache, _| Object::unsigned(cache.state.timeout.get()), "",
        "_seconds" = |cache, args| {
            let [ttl] = args.bind("ttl", [c"ttl"], 1, 1)?;
            Object::unsigned(cache.whole_seconds(ttl)?)
        }, "",
        "_forget" = |cache, _| { cache.forget(); Ok(Object::none()) }, "",
        "_encode" = |cache, args| {
            let [value] = args.bind("encode", [c"value"], 1, 1)?;
            Object::bytes(&cache.encode(value.ok_or(Raised)?)?)
        }, "",
        "_decode" = |cache, args| {
            let [value] = args.bind("decode", [c"value"], 1, 1)?;
            let value = value.ok_or(Raised)?.data()?.ok_or_else(|| type_error("bytes are needed"))?;
            cache.decode(Found::Short(&value))
        }, "",
        "_left" = read::left, "",
        "_keys" = read::keys, "",
        "_stats" = read::stats, "",
        "_memory" = read::memory, "",
        "_server" = read::server, "",
        "_delete_if" = write::delete_if, "",
        "_lease" = lease::begin, "",
        "_finish" = lease::finish, "",
        "get" = read::get, "get($self, key, *, default=None, as_int=False, setter=None, preserve_bytes=False)\n--\n\n\
            Returns the value of a key, or default.\n\n\
            as_int: the number that incr and the like keep, 0 if there is none.\n\
            setter: called with the key if it is missing; what it returns is stored with set().\n\
            preserve_bytes: the stored bytes, whatever the serializer.\n\n\
            get_or_set() is the same with one caller of all that computes.",
        "number" = read::number, "number($self, key, default=None)\n--\n\n\
            Returns the number that incr and the like keep, or default. NotANumber if the value is none.",
        "take" = read::take, "take($self, key, default=None)\n--\n\n\
            Removes a key and returns its value, or default. Only one of several callers gets it.",
        "get_many" = many::get_many, "get_many($self, keys)\n--\n\n\
            Returns a dict of the keys that are stored. Each read is atomic, all together are not.",
        "set" = write::set, "set($self, key, value, *, timeout=None)\n--\n\n\
            Stores a value if the key is missing, as uWSGI's cache_set; returns whether it did.\n\
            update() stores in any case. timeout: seconds or a timedelta, 0 = never.",
        "add" = write::add, "add($self, key, value, *, ttl=None)\n--\n\n\
            Stores a value if the key is missing; returns whether it did. Only one of several callers does.",
        "update" = write::update, "update($self, key, value, *, ttl=None)\n--\n\n\
            Stores a value in any case. ttl=ucache.KEEP: an existing key keeps its time to live.",
        "replace" = write::replace, "replace($self, key, value, *, ttl=None)\n--\n\n\
            Stores a value if the key is there; returns whether it did. ttl=ucache.KEEP keeps the time to live.",
        "cas" = write::cas, "cas($self, key, expected, value, *, ttl=KEEP)\n--\n\n\
            Replaces a value that equals the expected one; returns whether it did.",
        "append" = write::append, "append($self, key, data)\n--\n\n\
            Adds str or bytes behind a stored value; returns the new length in bytes, None if the key is missing.",
        "prepend" = write::prepend, "prepend($self, key, data)\n--\n\n\
            Adds str or bytes before a stored value; returns the new length in bytes, None if the key is missing.",
        "delete" = write::delete, "delete($self, key)\n--\n\nRemoves a key; returns whether it was there.",
        "touch" = write::touch, "touch($self, key, ttl=None)\n--\n\n\
            Gives a key another time to live; returns whether it is there.",
        "incr" = write::incr, "incr($self, key, delta=1, *, ttl=None)\n--\n\n\
            Adds to a number and returns it. A missing key starts from 0 and gets the ttl. Numbers have 64 bits and wrap.",
        "decr" = write::decr, "decr($self, key, delta=1, *, ttl=None)\n--\n\nSubtracts from a number and returns it.",
        "mul" = write::mul, "mul($self, key, value=2, *, ttl=None)\n--\n\nMultiplies a number and returns it.",
        "div" = write::div, "div($self, key, value=2, *, ttl=None)\n--\n\n\
            Divides a number, truncating, and returns it. Division by 0 gives 0.",
        "set_many" = write::set_many, "set_many($self, mapping, *, ttl=None)\n--\n\n\
            Stores all values in any case. Returns the keys for which the cache had no room.",
        "delete_many" = write::delete_many, "delete_many($self, keys)\n--\n\n\
            Removes keys; returns how many were there.",
        "clear" = write::clear, "clear($self)\n--\n\nRemoves everything, atomically for all readers.",
        "sweep" = write::sweep, "sweep($self)\n--\n\nFrees the memory of expired items; expiry does not need it.",
        "sync" = write::sync, "sync($self)\n--\n\nWrites the store to disk before it returns.",
    }
}

/// `_own_methods(cls)`: gives a subclass of Core the methods for everybody as its own. The
/// interpreter has a short way to call a method only where the object is exactly of the class that
/// has it.
pub(crate) fn own_methods(module: Ref<'_>, args: Args<'_>) -> Py<Object> {
    let [class] = args.bind("_own_methods", [c"cls"], 1, 1)?;
    let (class, core) = (class.ok_or(Raised)?, module.attribute(c"Core")?);
    // SAFETY: two objects, of which the second is a class; the first is one where that is asked.
    let fits = unsafe {
        ffi::PyType_Check(class.as_ptr()) != 0
            && ffi::PyType_IsSubtype(class.as_ptr().cast(), core.borrow().as_ptr().cast()) != 0
    };
    if !fits {
        return Err(type_error("a subclass of Core is needed"));
    }
    for method in core_methods().leak() {
        // SAFETY: the table ends with an entry without a name.
        let Some(name) = (!method.ml_name.is_null()).then(|| unsafe { CStr::from_ptr(method.ml_name) })
        else {
            break;
        };
        if name.to_bytes().starts_with(b"_") {
            continue;
        }
        // SAFETY: a class, whose objects begin with a Core as it is a subclass, and an entry that
        // lives for ever.
        unsafe {
            let method = Object::owned(ffi::PyDescr_NewMethod(class.as_ptr().cast(), method))?;
            if ffi::PyObject_SetAttrString(class.as_ptr(), name.as_ptr(), method.borrow().as_ptr()) < 0 {
                return Err(Raised);
            }
        }
    }
    Ok(Object::none())
}

unsafe extern "C" fn subscript(object: *mut ffi::PyObject, key: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), || {
        // SAFETY: an object of the type, and a key.
        let (cache, key) = unsafe { (&*object.cast::<Core>(), Ref::borrowed(key).ok_or(Raised)?) };
        Ok(read::get_item(cache, key)?.unwrap_or_else(Object::none).into_ptr())
    })
}

/// `cache[key] = value`, and with NULL `del cache[key]`.
unsafe extern "C" fn assign(
    object: *mut ffi::PyObject,
    key: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    guarded(-1, || {
        // SAFETY: an object of the type, a key, and a value or NULL.
        let (cache, key, value) =
            unsafe { (&*object.cast::<Core>(), Ref::borrowed(key).ok_or(Raised)?, Ref::borrowed(value)) };
        match value {
            Some(value) => write::set_item(cache, key, value)?,
            None => _ = write::delete_item(cache, key)?,
        }
        Ok(0)
    })
}

unsafe extern "C" fn contains(object: *mut ffi::PyObject, key: *mut ffi::PyObject) -> c_int {
    guarded(-1, || {
        // SAFETY: an object of the type, and a key.
        let (cache, key) = unsafe { (&*object.cast::<Core>(), Ref::borrowed(key).ok_or(Raised)?) };
        read::contains(cache, key).map(c_int::from)
    })
}

/// An object whose state is what `$new` makes; its memory is zero before.
macro_rules! life {
    ($make:ident, $free:ident, $object:ty, $state:expr) => {
        unsafe extern "C" fn $make(
            class: *mut ffi::PyTypeObject,
            _: *mut ffi::PyObject,
            _: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            guarded(ptr::null_mut(), || {
                let library = library().map_err(|reason| import_error(&reason))?;
                // SAFETY: memory of the type's size; its head is initialised, its state is not.
                unsafe {
                    let object = Object::owned(ffi::PyType_GenericAlloc(class, 0))?.into_ptr();
                    (&raw mut (*object.cast::<$object>()).state).write($state(library));
                    Ok(object)
                }
            })
        }

        unsafe extern "C" fn $free(object: *mut ffi::PyObject) {
            // SAFETY: the last reference is gone. A type made at run time is owned by its objects.
            unsafe {
                let class = ffi::Py_TYPE(object);
                guarded((), || {
                    ptr::drop_in_place(&raw mut (*object.cast::<$object>()).state);
                    Ok(())
                });
                // A class in Python has another one than this type.
                let free = ffi::PyType_GetSlot(class, ffi::Py_tp_free);
                mem::transmute::<*mut c_void, ffi::freefunc>(free)(object.cast());
                ffi::Py_DECREF(class.cast());
            }
        }
    };
}

life!(make_core, free_core, Core, cache::State::new);
life!(make_lease, free_lease, Lease, lease::State::new);

fn slot(slot: c_int, value: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc: value }
}

/// Makes a type and adds it to the module.
fn class(
    module: Ref<'_>,
    (qualified, name): (&'static CStr, &'static CStr),
    size: usize,
    flags: c_ulong,
    mut slots: Vec<ffi::PyType_Slot>,
) -> Py<()> {
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: qualified.as_ptr(),
        basicsize: size as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | flags) as std::ffi::c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is complete, its tables live for ever; the module gets a reference.
    unsafe {
        let class = Object::owned(ffi::PyType_FromSpec(&raw mut spec))?;
        if ffi::PyObject_SetAttrString(module.as_ptr(), name.as_ptr(), class.borrow().as_ptr()) < 0 {
            return Err(Raised);
        }
    }
    Ok(())
}

/// Adds the classes to the module.
pub(crate) fn add(module: Ref<'_>) -> Py<()> {
    let core = vec![
        slot(ffi::Py_tp_new, make_core as *mut c_void),
        slot(ffi::Py_tp_dealloc, free_core as *mut c_void),
        slot(ffi::Py_tp_methods, core_methods().leak().as_mut_ptr().cast()),
        slot(ffi::Py_mp_subscript, subscript as *mut c_void),
        slot(ffi::Py_mp_ass_subscript, assign as *mut c_void),
        slot(ffi::Py_sq_contains, contains as *mut c_void),
        slot(ffi::Py_tp_doc, c"What is native of a cache.".as_ptr().cast_mut().cast()),
    ];
    class(module, (c"ucache._ucache.Core", c"Core"), size_of::<Core>(), ffi::Py_TPFLAGS_BASETYPE, core)?;
    let methods = methods! { lease
        "drop" = lease::drop_lease, "drop($self)\n--\n\nGives the lease up.",
    };
    let lease = vec![
        slot(ffi::Py_tp_new, make_lease as *mut c_void),
        slot(ffi::Py_tp_dealloc, free_lease as *mut c_void),
        slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_doc, c"The right to compute a value.".as_ptr().cast_mut().cast()),
    ];
    class(module, (c"ucache._ucache.Lease", c"Lease"), size_of::<Lease>(), 0, lease)
}

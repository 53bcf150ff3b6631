//! `ucache._ucache`: the native part of the Python package. It calls the C interface of the
//! libucache that the process has, see `library`. Written against Python's stable interface of 3.9.

mod cache;
mod class;
mod errors;
mod lease;
mod library;
mod many;
mod opened;
mod py;
mod read;
mod remote;
mod write;

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
};

use pyo3_ffi as ffi;

use crate::{
    cache::{c_string, shown},
    class::methods,
    errors::failed,
    py::{Args, Object, Py, Raised, Ref, guarded, import_error},
};

/// `open(name, definition)`, `attach(name, path)`: whether the name was free. Called as methods of
/// an object with `_errors`.
fn open(module: Ref<'_>, args: Args<'_>) -> Py<Object> {
    let [name, definition] = args.bind("open", [c"name", c"definition"], 2, 2)?;
    let name = c_string(name.ok_or(Raised)?, "the name of a cache")?;
    let definition = c_string(definition.ok_or(Raised)?, "a definition")?;
    let library = library::library().map_err(|reason| import_error(&reason))?;
    match opened::open(library, &name, &definition) {
        Ok(done) => Ok(Object::bool(done)),
        Err(status) => Err(failed(module, library, status, None)),
    }
}

fn attach(module: Ref<'_>, args: Args<'_>) -> Py<Object> {
    let [name, path] = args.bind("attach", [c"name", c"path"], 2, 2)?;
    let (name, path) = (c_string(name.ok_or(Raised)?, "a name")?, c_string(path.ok_or(Raised)?, "a path")?);
    let library = library::library().map_err(|reason| import_error(&reason))?;
    match opened::attach(library, &name, &path) {
        Ok(done) => Ok(Object::bool(done)),
        Err(status) => Err(failed(module, library, status, None)),
    }
}

/// `close(name)`: whether it was open.
fn close(_: Ref<'_>, args: Args<'_>) -> Py<Object> {
    let [name] = args.bind("close", [c"name"], 1, 1)?;
    let name = c_string(name.ok_or(Raised)?, "the name of a cache")?;
    Ok(Object::bool(opened::close(&name)))
}

/// `opened()`: the names of the caches that this process opened.
fn opened(_: Ref<'_>, _: Args<'_>) -> Py<Object> {
    let names = Object::list()?;
    for name in opened::names() {
        names.append(Object::text(shown(&name).as_bytes(), false)?.borrow())?;
    }
    Ok(names)
}

/// `library()`: version, and whether the library is the one in this module.
fn used(_: Ref<'_>, _: Args<'_>) -> Py<Object> {
    let library = library::library().map_err(|reason| import_error(&reason))?;
    // SAFETY: a static text.
    let version = unsafe { CStr::from_ptr((library.ucache_version)()) };
    let result = Object::list()?;
    result.append(Object::text(version.to_bytes(), false)?.borrow())?;
    result.append(Object::bool(library.is_linked()).borrow())?;
    Ok(result)
}

/// `is_uwsgi()`
fn is_uwsgi(_: Ref<'_>, _: Args<'_>) -> Py<Object> {
    Ok(Object::bool(library::is_uwsgi()))
}

/// Fills a new module; each interpreter has its own.
///
/// # Safety
/// The interpreter calls it with the module.
unsafe extern "C" fn execute(module: *mut ffi::PyObject) -> c_int {
    guarded(-1, || {
        library::library().map_err(|reason| import_error(&reason))?;
        // SAFETY: the module that is being made.
        let target = unsafe { Ref::borrowed(module) }.ok_or(Raised)?;
        class::add(target)?;
        Ok(0)
    })
}

/// What the interpreter looks for.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the interpreter's name")]
pub extern "C" fn PyInit__ucache() -> *mut ffi::PyObject {
    let slots = vec![
        ffi::PyModuleDef_Slot { slot: ffi::Py_mod_exec, value: execute as *mut c_void },
        ffi::PyModuleDef_Slot { slot: 0, value: ptr::null_mut() },
    ];
    let functions = methods! { module
        "open" = open, "open(name, definition)",
        "attach" = attach, "attach(name, path)",
        "close" = close, "close(name)",
        "opened" = opened, "opened()",
        "library" = used, "library()",
        "_own_methods" = class::own_methods, "",
        "is_uwsgi" = is_uwsgi, "is_uwsgi()",
        "remote_get" = |_, args| remote::get(args), "remote_get(cache, key)",
        "remote_set" = |_, args| remote::set(args), "remote_set(cache, key, value, seconds, update)",
        "remote_delete" = |_, args| remote::delete(args), "remote_delete(cache, key)",
        "remote_exists" = |_, args| remote::exists(args), "remote_exists(cache, key)",
        "remote_clear" = |_, args| remote::clear(args), "remote_clear(cache)",
    };
    // The interpreter keeps pointers to all of it.
    let definition = Box::leak(Box::new(ffi::PyModuleDef {
        m_base: ffi::PyModuleDef_HEAD_INIT,
        m_name: c"ucache._ucache".as_ptr(),
        m_doc: c"The native part of ucache.".as_ptr(),
        m_size: 0,
        m_methods: functions.leak().as_mut_ptr(),
        m_slots: slots.leak().as_mut_ptr(),
        m_traverse: None,
        m_clear: None,
        m_free: None,
    }));
    // SAFETY: a definition that lives for ever.
    unsafe { ffi::PyModuleDef_Init(definition) }
}

//! Exceptions of statuses.

use std::ffi::CStr;

use crate::{
    cache::shown,
    library::{Library, is_uwsgi},
    py::{Raised, Ref, raise, system_error},
};

/// `UCACHE_E_NAME`.
const NO_SUCH_NAME: i32 = -3;

/// Raises the exception of a status: `owner._errors` of the Python class has one for each. `name`:
/// the cache that was looked for.
#[cold]
pub(crate) fn failed(owner: Ref<'_>, library: &Library, status: i32, name: Option<&CStr>) -> Raised {
    let message = match name {
        Some(name) if status == NO_SUCH_NAME => missing(name, library),
        // SAFETY: a text of the thread.
        _ => unsafe { CStr::from_ptr((library.ucache_error)()) }.to_string_lossy().into_owned(),
    };
    let classes = match owner.attribute(c"_errors") {
        Ok(classes) => classes,
        Err(raised) => return raised,
    };
    let class = classes.borrow().attribute(c"get").and_then(|get| {
        let number = crate::py::Object::int(status.into())?;
        get.borrow().call(&[number.borrow()])
    });
    match class {
        Ok(class) if class.borrow().is_none() => system_error(&format!("ucache: status {status}: {message}")),
        Ok(class) => raise(class.borrow(), &message),
        Err(raised) => raised,
    }
}

/// Why there is no cache of a name, and what to do.
fn missing(name: &CStr, library: &Library) -> String {
    let name = shown(name);
    match (is_uwsgi(), library.is_linked()) {
        (true, true) => format!(
            "no cache '{name}': this uWSGI has no ucache. Add 'plugin = ucache' above 'cache2 = name={name},items=...'"
        ),
        (true, false) => {
            format!("no cache '{name}': add 'cache2 = name={name},items=...' to uWSGI's configuration")
        }
        (false, _) => format!(
            "no cache '{name}' in this process: open it first, with ucache.open('{name}', items=...) or \
             ucache.attach(path, name='{name}')"
        ),
    }
}

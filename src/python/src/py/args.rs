//! The arguments of a call.

use std::{ffi::CStr, slice};

use pyo3_ffi as ffi;

use super::{Py, Raised, Ref, type_error};

/// The arguments of a call: `positional` first ones, then those with names.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    all: &'a [Ref<'a>],
    positional: usize,
    names: Option<Ref<'a>>,
}

impl<'a> Args<'a> {
    /// # Safety
    /// The arguments of a function with METH_FASTCALL and METH_KEYWORDS; `'a` ends with the call.
    #[inline]
    pub(crate) unsafe fn new(
        args: *const *mut ffi::PyObject,
        count: isize,
        names: *mut ffi::PyObject,
    ) -> Self {
        let positional = count.cast_unsigned();
        // SAFETY: `names` is NULL or a tuple; there are as many arguments as both say.
        unsafe {
            let names = Ref::borrowed(names);
            let named = names.map_or(0, |names| ffi::PyTuple_Size(names.as_ptr()).cast_unsigned());
            let all = match positional + named {
                0 => &[],
                all => slice::from_raw_parts(args.cast(), all),
            };
            Self { all, positional, names }
        }
    }

    /// The only argument of a call with one and without names.
    #[inline]
    pub(crate) fn single(&self) -> Option<Ref<'a>> {
        if self.names.is_none() && self.all.len() == 1 { Some(self.all[0]) } else { None }
    }

    /// The arguments by their names. The first `required` ones must be there, those from `keyword`
    /// on need their names.
    pub(crate) fn bind<const N: usize>(
        &self,
        function: &str,
        names: [&CStr; N],
        required: usize,
        keyword: usize,
    ) -> Py<[Option<Ref<'a>>; N]> {
        let mut bound = [None; N];
        if self.positional > keyword {
            let most = if keyword == 1 { "1 argument".to_owned() } else { format!("{keyword} arguments") };
            let given = self.positional;
            return Err(type_error(&format!("{function}() takes {most} without a name, {given} were given")));
        }
        for (to, arg) in bound.iter_mut().zip(&self.all[..self.positional]) {
            *to = Some(*arg);
        }
        for (at, arg) in self.all[self.positional..].iter().enumerate() {
            let names_given = self.names.ok_or(Raised)?;
            // SAFETY: a tuple of str with this index.
            let name = unsafe { Ref::borrowed(ffi::PyTuple_GetItem(names_given.as_ptr(), at as isize)) }
                .ok_or(Raised)?;
            // SAFETY: a str and a text.
            let same = |known: &CStr| unsafe {
                ffi::PyUnicode_CompareWithASCIIString(name.as_ptr(), known.as_ptr()) == 0
            };
            let Some(index) = names.iter().position(|known| same(known)) else {
                let name = String::from_utf8_lossy(name.utf8()?).into_owned();
                return Err(type_error(&format!("{function}() has no argument '{name}'")));
            };
            if bound[index].replace(*arg).is_some() {
                let name = names[index].to_string_lossy();
                return Err(type_error(&format!("{function}() got the argument '{name}' twice")));
            }
        }
        if let Some(missing) = bound[..required].iter().position(Option::is_none) {
            let name = names[missing].to_string_lossy();
            return Err(type_error(&format!("{function}() needs the argument '{name}'")));
        }
        Ok(bound)
    }
}

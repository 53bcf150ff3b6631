//! The options that the plugin adds to uWSGI.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{host, host::Host, raw};
use crate::capi::panic::guard;

/// `getopt`'s optional argument: `--ucache-or-native` and `ucache-or-native = true` are both valid.
const OPTIONAL_ARGUMENT: c_int = 2;

static OR_NATIVE: AtomicBool = AtomicBool::new(false);
static SERVE: AtomicBool = AtomicBool::new(false);
static QUIET: AtomicBool = AtomicBool::new(false);

/// A switch of the plugin.
struct Switch {
    name: &'static CStr,
    help: &'static CStr,
    value: &'static AtomicBool,
}

static SWITCHES: [Switch; 3] = [
    Switch {
        name: c"ucache-or-native",
        help: c"fall back to uWSGI's own cache if ucache cannot replace it (default: stop)",
        value: &OR_NATIVE,
    },
    Switch {
        name: c"ucache-serve",
        help: c"serve the cache protocol (modifier1 111) on the uwsgi sockets, as `plugin = cache` does",
        value: &SERVE,
    },
    Switch {
        name: c"ucache-quiet",
        help: c"do not log the takeover at start-up; everything else is logged",
        value: &QUIET,
    },
];

/// Whether to fall back to the native cache if the takeover failed.
pub(crate) fn or_native() -> bool {
    OR_NATIVE.load(Ordering::Relaxed)
}

/// [`or_native`] before the options are parsed, when the plugin's own may not even be registered:
/// read from the configuration so far, or from the environment.
pub(crate) fn or_native_so_far(host: &Host) -> bool {
    let environment = || std::env::var("UWSGI_UCACHE_OR_NATIVE").ok();
    host.option_so_far(c"ucache-or-native").or_else(environment).and_then(|value| parse(&value)) == Some(true)
}

/// Whether the cache protocol is enabled.
pub(crate) fn serve() -> bool {
    SERVE.load(Ordering::Relaxed)
}

/// Whether to log start-up lines, by our option and uWSGI's own (`no-initial-output`).
pub(crate) fn wants_start_up_lines(host: &Host) -> bool {
    // SAFETY: the host's struct is valid for the life of the process, and its options have been
    // read.
    let silent = unsafe { (*host.server).no_initial_output } != 0;
    !QUIET.load(Ordering::Relaxed) && !silent
}

/// Return type of [`table`].
pub(crate) type Table = [raw::uwsgi_option; SWITCHES.len() + 1];

/// The table that uWSGI copies: one entry per switch and an empty one at the end.
pub(crate) const fn table() -> Table {
    let mut table = [const { EMPTY }; SWITCHES.len() + 1];
    let mut i = 0;
    while i < SWITCHES.len() {
        table[i].name = SWITCHES[i].name.as_ptr().cast_mut();
        table[i].help = SWITCHES[i].help.as_ptr().cast_mut();
        table[i].type_ = OPTIONAL_ARGUMENT;
        table[i].func = Some(set);
        i += 1;
    }
    table
}

const EMPTY: raw::uwsgi_option = raw::uwsgi_option {
    name: std::ptr::null_mut(),
    type_: 0,
    shortcut: 0,
    help: std::ptr::null_mut(),
    func: None,
    data: std::ptr::null_mut(),
    flags: 0,
};

/// uWSGI's callback: the option as written, its value (NULL if not given).
///
/// # Safety
/// Both strings are NULL or NUL-terminated.
unsafe extern "C" fn set(name: *mut c_char, value: *mut c_char, _: *mut c_void) {
    guard((), || {
        // SAFETY: uWSGI passes NUL-terminated strings; the value may be NULL.
        let (name, value) = unsafe { (text(name), text(value)) };
        let Some(switch) = SWITCHES.iter().find(|s| s.name.to_string_lossy() == name) else { return };
        match parse(&value) {
            Some(on) => switch.value.store(on, Ordering::Relaxed),
            None => {
                if let Some(host) = host::get() {
                    host.log(&format!("option {name}={value}: expected true or false; the option stays off"));
                }
            }
        }
    });
}

/// # Safety
/// `string` is NULL or NUL-terminated.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A switch without a value is on; the words are those of uWSGI's own switches.
fn parse(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Names in the configuration that look like ours but are unknown: uWSGI itself ignores them.
pub(crate) fn unknown(host: &Host) -> Vec<String> {
    // SAFETY: the host's array of options has that many elements, and does not change after
    // start-up.
    let names = unsafe {
        let server = &*host.server;
        let count = usize::try_from(server.exported_opts_cnt).unwrap_or(0);
        (0..count).map(|i| text((**server.exported_opts.add(i)).key)).collect::<Vec<_>>()
    };
    let ours = |name: &str| SWITCHES.iter().any(|s| s.name.to_string_lossy() == name);
    names.into_iter().filter(|name| name.starts_with("ucache") && !ours(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn switches_read_the_words_of_uwsgi() {
        for (word, value) in
            [("", true), ("1", true), ("TRUE", true), ("on", true), ("0", false), ("No", false)]
        {
            assert_eq!(parse(word), Some(value), "{word:?}");
        }
        for word in ["2", "maybe", "truee"] {
            assert_eq!(parse(word), None, "{word:?}");
        }
    }
}

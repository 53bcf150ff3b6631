//! The fingerprint of a uWSGI's binary interface: the definitions of the structs that the glue uses, the prototypes of
//! the functions, and the words of its compiler flags that shape them.
//!
//! Used by build.rs on the uWSGI that the glue is compiled against and, at load, by the plugin on the uWSGI that
//! loads it. Comments, structs and functions that are not used, versions, dates and paths stay out: a rebuild of uWSGI,
//! or a release that leaves these structs alone, goes on working.

use std::collections::BTreeSet;

mod header;
use header::Header;

/// The structs that the glue touches, and those that the C surface mirrors.
pub(crate) const TYPES: [&str; 14] = [
    "uwsgi_server",
    "uwsgi_plugin",
    "uwsgi_option",
    "uwsgi_opt",
    "uwsgi_string_list",
    "uwsgi_lock_item",
    "uwsgi_lock_ops",
    "uwsgi_cache",
    "uwsgi_cache_item",
    "wsgi_request",
    "uwsgi_metric",
    "uwsgi_cache_magic_context",
    "uwsgi_hash_algo",
    "uwsgi_buffer",
];

/// The functions of the host that are called, and those that become ours.
const FUNCTIONS: [&str; 43] = [
    "uwsgi_404",
    "uwsgi_add_safe_fd",
    "uwsgi_get_cflags",
    "uwsgi_get_dot_h",
    "uwsgi_get_exported_opt",
    "uwsgi_hash_algo_register_all",
    "uwsgi_log",
    "uwsgi_open_and_read",
    "uwsgi_register_metric",
    "uwsgi_register_metric_collector",
    "uwsgi_response_write_body_do",
    "cache_udp_server_loop",
    "uwsgi_cache_by_name",
    "uwsgi_cache_by_namelen",
    "uwsgi_cache_create",
    "uwsgi_cache_create_all",
    "uwsgi_cache_del2",
    "uwsgi_cache_exists2",
    "uwsgi_cache_fix",
    "uwsgi_cache_get2",
    "uwsgi_cache_get3",
    "uwsgi_cache_get4",
    "uwsgi_cache_init",
    "uwsgi_cache_item_key",
    "uwsgi_cache_keys",
    "uwsgi_cache_magic_clear",
    "uwsgi_cache_magic_context_hook",
    "uwsgi_cache_magic_del",
    "uwsgi_cache_magic_exists",
    "uwsgi_cache_magic_get",
    "uwsgi_cache_magic_set",
    "uwsgi_cache_num2",
    "uwsgi_cache_prepare_magic_clear",
    "uwsgi_cache_prepare_magic_del",
    "uwsgi_cache_prepare_magic_exists",
    "uwsgi_cache_prepare_magic_set",
    "uwsgi_cache_prepare_magic_update",
    "uwsgi_cache_set2",
    "uwsgi_cache_setup_nodes",
    "uwsgi_cache_start_sweepers",
    "uwsgi_cache_start_sync_servers",
    "uwsgi_cache_sync_all",
    "uwsgi_cache_sync_from_nodes",
];

/// Those that uWSGI reads of ours when it loads a plugin.
const PLUGIN: [&str; 2] = ["uwsgi_plugin", "uwsgi_option"];

/// The fingerprints of one uWSGI, 16 hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// Of all structs.
    pub(crate) all: String,
    /// Of those that make a plugin.
    pub(crate) plugin: String,
}

impl Digests {
    /// From the header and the flags that a uWSGI reports.
    pub(crate) fn of(header: &str, cflags: &str) -> Self {
        let header = Header::read(header);
        let of = |structs: &[&str], functions: &[&str]| {
            let layout = header.layout(structs, functions);
            digest(&layout.text, &shaping(cflags, &layout.names))
        };
        Self { all: of(&TYPES, &FUNCTIONS), plugin: of(&PLUGIN, &[]) }
    }
}

/// The `-D` words of `cflags` that a compiler of the header needs: all but quoted strings (versions, dates, paths) and
/// hardening. Sorted, without duplicates.
#[cfg_attr(not(test), allow(dead_code, reason = "used by build.rs"))]
pub(crate) fn defines(cflags: &str) -> Vec<&str> {
    let wanted = |word: &&str| word.starts_with("-D");
    sorted(cflags, wanted)
}

/// Those of them that can change a struct in which these names occur: they define one of the names, or are for the
/// system's headers (`_FILE_OFFSET_BITS`). And the few other flags that do.
fn shaping<'a>(cflags: &'a str, names: &BTreeSet<String>) -> Vec<&'a str> {
    let shapes = |word: &&str| match word.strip_prefix("-D").or(word.strip_prefix("-U")) {
        Some(definition) => {
            let name = definition.split_once('=').map_or(definition, |(name, _)| name);
            name.starts_with('_') || names.contains(name)
        }
        None => word.starts_with("-fpack-struct") || matches!(*word, "-fshort-enums" | "-m32" | "-mx32"),
    };
    sorted(cflags, shapes)
}

fn sorted(cflags: &str, wanted: impl Fn(&&str) -> bool) -> Vec<&str> {
    let of_no_account = ["_FORTIFY_SOURCE", "_GLIBCXX_ASSERTIONS"];
    let counts =
        |word: &&str| !word.contains('"') && !of_no_account.iter().any(|hardening| word.contains(hardening));
    let mut words: Vec<&str> = cflags.split_whitespace().filter(counts).filter(wanted).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// 16 hexadecimal digits (64-bit FNV-1a). They tell builds apart, they do not protect against forgery.
fn digest(text: &str, words: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [text].iter().chain(words) {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;

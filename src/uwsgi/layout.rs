//! The fingerprint of a uWSGI's binary interface: the definitions of the structs that the plugin
//! uses, the prototypes of the functions, and the compiler flags that affect them.
//!
//! build.rs computes it for the uWSGI that the plugin is compiled against; the plugin computes it
//! at load for the uWSGI that loads it. Comments, unused structs and functions, versions, dates and
//! paths are left out, so the plugin keeps working with a rebuilt uWSGI, or with a release that
//! does not change these structs.

use std::collections::BTreeSet;

mod header;
use header::Header;

/// The structs that the plugin accesses, and those that the C interface mirrors.
pub(crate) const TYPES: [&str; 20] = [
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
    "uwsgi_route",
    "uwsgi_transformation",
    "uwsgi_socket",
    "uwsgi_worker",
    "uwsgi_core",
    "uwsgi_mule",
];

/// The functions of the host that are called, and those that are replaced.
const FUNCTIONS: [&str; 63] = [
    "set_mule_harakiri",
    "uwsgi_404",
    "uwsgi_add_safe_fd",
    "uwsgi_add_transformation",
    "uwsgi_additional_header_add",
    "uwsgi_apply_response_routes",
    "uwsgi_apply_routes",
    "uwsgi_buffer_append",
    "uwsgi_buffer_destroy",
    "uwsgi_buffer_new",
    "uwsgi_close_request",
    "uwsgi_get_cflags",
    "uwsgi_get_dot_h",
    "uwsgi_get_exported_opt",
    "uwsgi_get_var",
    "uwsgi_hash_algo_register_all",
    "uwsgi_log",
    "uwsgi_logvar_add",
    "uwsgi_offload_request_memory_do",
    "uwsgi_open_and_read",
    "uwsgi_proto_uwsgi_setup",
    "uwsgi_register_metric",
    "uwsgi_register_metric_collector",
    "uwsgi_register_router",
    "uwsgi_req_append",
    "uwsgi_response_add_header",
    "uwsgi_response_prepare_headers",
    "uwsgi_response_write_body_do",
    "uwsgi_response_write_headers_do",
    "uwsgi_routing_translate",
    "uwsgi_simple_wait_milliseconds_hook",
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

/// The structs that uWSGI reads from a plugin when it loads one.
const PLUGIN: [&str; 2] = ["uwsgi_plugin", "uwsgi_option"];

/// The fingerprints of one uWSGI, 16 hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// Of all structs.
    pub(crate) all: String,
    /// Of the structs read from a plugin.
    pub(crate) plugin: String,
}

impl Digests {
    /// From the header and the flags that uWSGI reports.
    pub(crate) fn of(header: &str, cflags: &str) -> Self {
        let header = Header::read(header);
        let of = |structs: &[&str], functions: &[&str]| {
            let layout = header.layout(structs, functions);
            digest(&layout.text, &shaping(cflags, &layout.names))
        };
        Self { all: of(&TYPES, &FUNCTIONS), plugin: of(&PLUGIN, &[]) }
    }
}

/// The `-D` words of `cflags` that compiling the header needs: all except quoted strings (versions,
/// dates, paths) and hardening. Sorted, without duplicates.
#[cfg_attr(not(test), allow(dead_code, reason = "used by build.rs"))]
pub(crate) fn defines(cflags: &str) -> Vec<&str> {
    let wanted = |word: &&str| word.starts_with("-D");
    sorted(cflags, wanted)
}

/// Those that can change a struct in which `names` occur: they define one of the names, or
/// configure the system's headers (`_FILE_OFFSET_BITS`). Also the few other flags that affect
/// layouts.
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

/// 16 hexadecimal digits (64-bit FNV-1a), to tell builds apart; no protection against forgery.
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

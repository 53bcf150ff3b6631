//! The fingerprint of a uWSGI's binary interface: its header and the `-D` words that shape the header's structs.
//!
//! Used by build.rs on the uWSGI that the glue is compiled against and, at load, by the plugin on the uWSGI that
//! loads it. Versions, dates and paths stay out, so that a rebuild of the same uWSGI goes on working.

/// The `-D` words of `cflags` that can change a struct: all but quoted strings (versions, dates, paths) and
/// hardening. Sorted, without duplicates.
pub(crate) fn defines(cflags: &str) -> Vec<&str> {
    let shapes =
        |word: &&str| word.starts_with("-D") && !word.contains('"') && !word.contains("_FORTIFY_SOURCE");
    let mut words: Vec<&str> = cflags.split_whitespace().filter(shapes).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// 16 hexadecimal digits (64-bit FNV-1a) over the header's text and the words of [`defines`].
/// It tells builds apart, it does not protect against forgery.
pub(crate) fn digest(header: &str, cflags: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(header.trim_end());
    for word in defines(cflags) {
        eat(word);
    }
    format!("{hash:016x}")
}

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

#[cfg(test)]
mod tests {
    use super::{defines, digest};

    const CFLAGS: &str = "-O2 -I. -DUWSGI_SSL -DUWSGI_PCRE -DUWSGI_VERSION=\"\\\"2.0.21-debian\\\"\"";

    #[test]
    fn what_shapes_structs_counts_and_nothing_else() {
        assert_eq!(defines(CFLAGS), ["-DUWSGI_PCRE", "-DUWSGI_SSL"]);
        let built = digest("struct a {};\n", CFLAGS);
        assert_eq!(built.len(), 16);
        // A security rebuild: other paths, version, date, hardening, order.
        let rebuilt = "-DUWSGI_PCRE -Wp,-D_FORTIFY_SOURCE=3 -D_FORTIFY_SOURCE=2 -g -DUWSGI_SSL -DUWSGI_SSL \
                       -DUWSGI_VERSION=\"\\\"2.0.21-debian2\\\"\" -ffile-prefix-map=/build/x=.";
        assert_eq!(digest("struct a {};", rebuilt), built);
        assert_ne!(digest("struct a { int b; };", CFLAGS), built);
        assert_ne!(digest("struct a {};", "-DUWSGI_PCRE"), built);
        // The border between header and flags is part of it.
        assert_ne!(digest("struct a {};-DUWSGI_PCRE", "-DUWSGI_SSL"), built);
    }
}

use super::*;

const CFLAGS: &str =
    "-O2 -I. -DUWSGI_SSL -DUWSGI_PCRE -DUWSGI_ROUTING -DUWSGI_VERSION=\"\\\"2.0.21-debian\\\"\"";

/// A header like uWSGI's, in which other parts affect a struct.
const HEADER: &str = r#"
/* A header. */
#ifdef __cplusplus
extern "C" {
#endif
#include <stdint.h>
#define UNUSED_LIMIT 7
#define SLOTS 256
#define ROOM (SLOTS + 1)
typedef uint64_t stamp;
typedef struct other_thing { int a; } other_thing;
enum range { FIRST, SECOND, LAST };
struct unused { int a; }; // nobody has one
struct ops { void (*lock)(struct unused *); };
struct uwsgi_option { char *name; int type; };
struct uwsgi_plugin {
    const char *name;
    struct uwsgi_option *options; // "a quoted /* word"
};
struct uwsgi_server {
    char hostname[256];
    struct uwsgi_plugin *p[ROOM];
    struct ops ops;
    other_thing *thing;
    struct unused *unused;
    enum range range;
    stamp started;
#ifdef UWSGI_ROUTING
    int routes;
#endif
};
char *uwsgi_open_and_read(char *, size_t *);
int uwsgi_other(struct uwsgi_server *);
static inline int twice(int a) { return 2 * a; }
#ifdef __cplusplus
}
#endif
"#;

fn with(from: &str, to: &str) -> Digests {
    assert_eq!(HEADER.matches(from).count(), 1, "{from}");
    Digests::of(&HEADER.replace(from, to), CFLAGS)
}

#[test]
fn only_changes_that_affect_structs_count() {
    assert_eq!(defines(CFLAGS), ["-DUWSGI_PCRE", "-DUWSGI_ROUTING", "-DUWSGI_SSL"]);
    let built = Digests::of(HEADER, CFLAGS);
    assert_eq!((built.all.len(), built.plugin.len()), (16, 16));
    // A point release: comments, and prototypes, structs, functions and constants that the plugin
    // does not use.
    let same = [
        ("/* A header. */", "/* Another\n * header. */"),
        ("int uwsgi_other(struct uwsgi_server *);", "int uwsgi_other(void);\nint uwsgi_new(char *);"),
        ("static inline int twice(int a) { return 2 * a; }", ""),
        ("#define UNUSED_LIMIT 7", "#define UNUSED_LIMIT 8\n#define NEW 1"),
        ("struct unused { int a; };", "struct unused { int a, b; };\nstruct new { int a; };"),
        ("struct other_thing { int a; }", "struct other_thing { int b; }"),
        ("    char hostname[256];", "\tchar  hostname [ 256 ]; // of this machine"),
        ("#define ROOM (SLOTS + 1)", "#define ROOM (SLOTS \\\n    + 1)"),
    ];
    for (from, to) in same {
        assert_eq!(with(from, to), built, "{to}");
    }
    let other = [
        ("    char hostname[256];\n", ""),
        ("    stamp started;\n", "    int new;\n    stamp started;\n"),
        ("    enum range range;\n    stamp started;\n", "    stamp started;\n    enum range range;\n"),
        ("#define SLOTS 256", "#define SLOTS 128"),
        ("typedef uint64_t stamp;", "typedef uint32_t stamp;"),
        ("FIRST, SECOND", "FIRST"),
        (
            "struct ops { void (*lock)(struct unused *); };",
            "struct ops { int a; void (*lock)(struct unused *); };",
        ),
        ("#ifdef UWSGI_ROUTING\n", "#ifndef UWSGI_ROUTING\n"),
        ("char *uwsgi_open_and_read(char *, size_t *);", "char *uwsgi_open_and_read(char *, size_t *, int);"),
        (
            "#define UNUSED_LIMIT 7\n#define SLOTS 256\n",
            "#ifdef SMALL\n#define SLOTS 16\n#else\n#define SLOTS 256\n#endif\n",
        ),
    ];
    for (from, to) in other {
        let changed = with(from, to);
        assert_ne!(changed.all, built.all, "{to}");
        assert_eq!(changed.plugin, built.plugin, "{to}");
    }
    let plugin =
        with("    struct uwsgi_option *options; //", "    int new; struct uwsgi_option *options; //");
    assert!(plugin.all != built.all && plugin.plugin != built.plugin);
}

#[test]
fn only_flags_that_affect_structs_count() {
    let digest = |cflags: &str| Digests::of(HEADER, cflags);
    let built = digest(CFLAGS);
    // A security rebuild: other paths, version, date, hardening, order, and a feature that no
    // struct depends on.
    let rebuilt = "-DUWSGI_ROUTING -Wp,-D_FORTIFY_SOURCE=3 -D_FORTIFY_SOURCE=2 -g -DUWSGI_SSL -DUWSGI_ZLIB \
                   -DUWSGI_VERSION=\"\\\"2.0.21-debian2\\\"\" -ffile-prefix-map=/build/x=.";
    assert_eq!(digest(rebuilt), built);
    for other in ["-DUWSGI_PCRE", "-DUWSGI_ROUTING -D_TIME_BITS=64", "-DUWSGI_ROUTING -fpack-struct=1"] {
        assert_ne!(digest(other).all, built.all, "{other}");
    }
    // The boundary between header and flags is part of the digest.
    assert_ne!(super::digest("a", &["b"]), super::digest("ab", &[]));
}

/// uWSGI's own header, in both versions of the tests.
#[test]
fn real_headers_are_read() {
    let ask = |program: &str, option: &str| {
        let output =
            std::process::Command::new(program).arg(option).output().expect("uWSGI runs (`make deps`)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let installed = std::env::var("UWSGI_BIN").unwrap_or_else(|_| "uwsgi".into());
    let pypi = concat!(env!("CARGO_MANIFEST_DIR"), "/.build/uwsgi-2.0.31/uwsgi");
    for program in [&installed[..], pypi] {
        let (header, cflags) = (ask(program, "--dot-h"), ask(program, "--cflags"));
        let layout = Header::read(&header).layout(&TYPES, &FUNCTIONS);
        for name in TYPES {
            let body = format!("struct {name} {{ ");
            assert_eq!(layout.text.matches(&body).count(), 1, "{name} in {program}");
        }
        assert!(!layout.text.contains("/*") && layout.text.contains("#define MAX_GENERIC_PLUGINS "));
        let more = format!("{header}\n// A comment.\nint uwsgi_new(struct uwsgi_server *);\n");
        assert_eq!(Digests::of(&more, &cflags), Digests::of(&header, &cflags));
        let moved = header.replacen("\tchar hostname[256];", "\tint moved;\n\tchar hostname[256];", 1);
        assert_ne!(moved, header);
        assert_ne!(Digests::of(&moved, &cflags).all, Digests::of(&header, &cflags).all);
    }
}

/// All called or replaced functions are among those whose prototypes count.
#[test]
fn every_function_of_the_takeover_counts() {
    for (name, _) in crate::uwsgi::takeover::names() {
        assert!(FUNCTIONS.contains(&name), "{name}");
    }
}

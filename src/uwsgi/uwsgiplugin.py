"""What `uwsgi --build-plugin src/uwsgi` reads, from the top of the repository: cargo builds the
library, uWSGI links it to ucache_plugin.so in the current directory. UWSGI_BIN names the uWSGI if
it is not the one in PATH. From another directory, UCACHE_SOURCE names the top of the repository."""

import os
import subprocess

source = os.environ.get("UCACHE_SOURCE", ".")
target = os.environ.get("CARGO_TARGET_DIR", os.path.join(source, "target"))
library = os.path.join(target, "release", "libucache.a")
cargo = ["cargo", "build", "--release", "--lib", "--features", "uwsgi,tls"]
subprocess.check_call([*cargo, "--manifest-path", os.path.join(source, "Cargo.toml")])

NAME = "ucache"
CFLAGS = []
LDFLAGS = []
GCC_LIST = [os.path.abspath(library)]
# All of the library, because uWSGI finds the plugin by a symbol that nothing else names. The first two
# arguments are those of build.rs.
LIBS = ["-Wl,-Bsymbolic", "-Wl,-z,nodelete", "-Wl,--whole-archive", os.path.abspath(library)]
LIBS += ["-Wl,--no-whole-archive", "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]

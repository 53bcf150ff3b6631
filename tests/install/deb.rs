//! The Debian package, installed with apt in a copy of this machine that is thrown away: an overlay
//! on `/`, in a mount namespace of its own.

use std::{fs, path::Path, process::Command};

use crate::{Built, assert_basics, succeed};

/// Run in the copy. Every line that is tested begins with a mark.
const SCRIPT: &str = r##"
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends --yes "$PACKAGE" > /tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
dpkg --verify ucache
echo "status: $(dpkg-query -W -f '${db:Status-Status} ${Version}' ucache)"
echo "linker: $(ldconfig -p | grep -c 'libucache\.so\.0 ')"
echo "command: $(ucache --version)"
echo "manual: $(zcat /usr/share/man/man1/ucache-get.1.gz | grep -c '^\.SH NAME')"
echo "pkg-config: $(pkg-config --modversion ucache)"
gcc -std=c99 -Wall -Wextra -Werror -D_DEFAULT_SOURCE "$SOURCES/examples/c_cache.c" -o /tmp/example $(pkg-config --cflags --libs ucache)
/tmp/example
cat > /tmp/app.py <<'PYTHON'
import uwsgi
uwsgi.cache_set("k", "of the plugin", 0, "mycache")
print("cache:", uwsgi.cache_get("k", "mycache").decode())
PYTHON
cd /
uwsgi --ini /etc/uwsgi/apps-available/ucache.ini --plugin python3 --socket /tmp/socket --pyrun /tmp/app.py > /tmp/uwsgi.log 2>&1 || { cat /tmp/uwsgi.log; exit 1; }
grep -a '^cache: ' /tmp/uwsgi.log
grep -a 'ucache' /tmp/uwsgi.log
echo "# changed" >> /etc/uwsgi/apps-available/ucache.ini
dpkg -L ucache > /tmp/files
apt-get -qq -o Dpkg::Use-Pty=0 remove --yes ucache > /tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
echo "configuration after remove: $(grep -c '# changed' /etc/uwsgi/apps-available/ucache.ini)"
apt-get -qq -o Dpkg::Use-Pty=0 purge --yes ucache > /tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
while read -r path; do [ -d "$path" ] || [ ! -e "$path" ] || echo "left: $path"; done < /tmp/files
echo "linker after purge: $(ldconfig -p | grep -c 'libucache' || true)"
"##;

/// Makes the copy and runs a script in it. All mounts end with the namespace.
const ENTER: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs none "$COPY"
mkdir "$COPY/upper" "$COPY/work" "$COPY/merged"
mount -t overlay overlay -o "lowerdir=/,upperdir=$COPY/upper,workdir=$COPY/work" "$COPY/merged"
for folder in dev proc sys; do mount --rbind "/$folder" "$COPY/merged/$folder"; done
mount -t tmpfs none "$COPY/merged/tmp"
cp "$PACKAGE_FILE" "$COPY/merged/tmp/"
mkdir "$COPY/merged/tmp/sources"
mount --bind "$SOURCES" "$COPY/merged/tmp/sources"
export PACKAGE="/tmp/${PACKAGE_FILE##*/}" SOURCES=/tmp/sources
exec chroot "$COPY/merged" /bin/sh -c "$SCRIPT"
"#;

#[test]
fn the_debian_package_installs_works_and_is_removed() {
    let built = Built::new();
    let out = built.dir.path().join("deb");
    let mut pack = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/deb"));
    pack.arg(&out).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("DESTDIR");
    // Compressed it is the same, after a minute.
    pack.env("COMPRESSION", "none").env("DEBEMAIL", "somebody@ucache.example");
    let said = succeed(pack.env("RELEASE", built.release()).env("COMMAND", built.command()));
    let package = Path::new(said.trim());
    let fields = succeed(Command::new("dpkg-deb").args(["--field"]).arg(package));
    assert!(fields.contains("\nMaintainer: The ucache project <somebody@ucache.example>\n"), "{fields}");
    assert!(fields.contains("\nRecommends: uwsgi-core, uwsgi-abi-"), "{fields}");

    let copy = built.dir.path().join("copy");
    fs::create_dir(&copy).expect("a directory");
    let mut enter = Command::new("unshare");
    enter.args(["--mount", "/bin/sh", "-c", ENTER]).env("COPY", &copy).env("SCRIPT", SCRIPT);
    enter.env("PACKAGE_FILE", package).env("SOURCES", env!("CARGO_MANIFEST_DIR"));
    let output = enter.output().expect("util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "this test mounts an overlay on /: run it as root, with CAP_SYS_ADMIN, on Debian with apt-get\n{text}"
    );
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        &*format!("status: installed {version}"),
        "linker: 1",
        &format!("command: ucache {version}"),
        "manual: 1",
        &format!("pkg-config: {version}"),
        "cache: of the plugin",
        "configuration after remove: 1",
        "linker after purge: 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing in:\n{text}");
    }
    assert!(text.contains(" cache functions of uWSGI "), "the plugin says what it took over: {text}");
    assert!(!text.contains("left: "), "{text}");
    assert_basics(&text);
    let here = Path::new("/usr/lib/uwsgi/plugins/ucache_plugin.so");
    assert!(!here.exists(), "the machine itself is unchanged");
}

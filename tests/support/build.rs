//! The uWSGI builds that the tests run, each with the plugin built against it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A uWSGI build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// The installed one (`UWSGI_BIN`, or Debian's 2.0.21), with languages as plugins.
    Installed,
    /// 2.0.31 from PyPI with Python embedded, built by `.ci/uwsgi-pypi`.
    Pypi,
}

impl Build {
    /// The available builds: only the installed one if the plugin was built elsewhere
    /// (`UCACHE_PLUGIN`, see `tests/arm`).
    pub(crate) fn all() -> &'static [Self] {
        if built_elsewhere().is_some() { &[Self::Installed] } else { &[Self::Installed, Self::Pypi] }
    }

    /// The program.
    ///
    /// # Panics
    /// When it is missing.
    pub(crate) fn uwsgi(self) -> PathBuf {
        match self {
            Self::Installed => std::env::var_os("UWSGI_BIN").unwrap_or_else(|| "uwsgi".into()).into(),
            Self::Pypi => {
                let uwsgi = directory().join("uwsgi");
                assert!(uwsgi.exists(), "no {}: `make deps` builds it", uwsgi.display());
                uwsgi
            }
        }
    }

    /// The directory with `ucache_plugin.so`, built for this uWSGI from the current sources.
    ///
    /// # Panics
    /// When the build fails.
    pub(crate) fn plugins(self) -> &'static Path {
        static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
        static PYPI: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Installed => INSTALLED.get_or_init(|| {
                if let Some(directory) = built_elsewhere() {
                    return directory;
                }
                run("make", &["-s", "plugin"]);
                let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
                target.join("release")
            }),
            Self::Pypi => PYPI.get_or_init(|| {
                run(".ci/uwsgi-pypi", &["plugin"]);
                directory().join("plugin")
            }),
        }
    }

    /// The ini line that loads Python.
    pub(crate) fn python(self) -> &'static str {
        match self {
            Self::Installed => "plugin = python3\n",
            Self::Pypi => "",
        }
    }

    /// uWSGI's own tests, from the same source release.
    ///
    /// # Panics
    /// When they are missing.
    pub(crate) fn tests_of_uwsgi() -> PathBuf {
        let tests = directory().join("t");
        assert!(tests.exists(), "no {}: `make deps` fetches it", tests.display());
        tests
    }
}

/// The directory of the plugin given in the environment.
fn built_elsewhere() -> Option<PathBuf> {
    Path::new(&std::env::var_os("UCACHE_PLUGIN")?).parent().map(Path::to_owned)
}

/// The directory that `.ci/uwsgi-pypi` fills.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".build/uwsgi-2.0.31")
}

fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells a test of its package would make dependencies be built again, and the plugin.
    let told = |name: &str| {
        name == "OUT_DIR" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    let done = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program} {args:?}\n{}", String::from_utf8_lossy(&done.stderr));
}

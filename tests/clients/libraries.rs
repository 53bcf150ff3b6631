//! The test suites of cachelib, Flask-Caching and django-uwsgi-cache, from their source releases.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Outcomes, count,
    patience::{PATIENCE, poll, within},
    same_everywhere,
    server::{Build, Flavor, Server, root, venv},
};

/// Caches large enough for the suites, swept every second if a sweeper is needed.
const CACHES: &str = "cache-expire-freq = 1\ncache2 = name=first,items=1000\ncache2 = name=c,items=1000\n";

/// The source release of a library.
fn source(library: &str) -> PathBuf {
    let source = venv().join("tests").join(library);
    assert!(source.join("tests").is_dir(), "no {}: `make deps` fetches it", source.display());
    source
}

fn outcomes(text: &str) -> Outcomes {
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(a, b)| (a.into(), b.into())).collect()
}

/// Runs `run(directory, scratch, ARGUMENTS)` of suites.py in a worker, with this cache.
fn in_worker(build: Build, flavor: Flavor, library: &str, cache: &str, arguments: &str) -> Outcomes {
    let here = root().join("tests/clients");
    let tests = source(library).join("tests");
    let options = format!("{CACHES}pythonpath = {}\npythonpath = {}\n", here.display(), tests.display());
    let server = Server::start_on(build, flavor, 1, &options);
    let scratch = server.dir().display();
    let source = format!("import suites\nsuites.run({tests:?}, '{scratch}', {arguments})");
    let ran = server.run(1, &source);
    let file = server.dir().join("outcomes");
    // on a busy machine an answer may take longer than its timeout
    let ended = poll(3 * PATIENCE, || file.exists().then_some(()));
    assert!(ended.is_some(), "{ran}\n{}", server.log());
    let outcomes = outcomes(&fs::read_to_string(file).expect("the outcomes can be read"));
    // the tests did use this cache, not one of the library's own
    within("hits", || server.cache_stats(cache)["hits"].as_u64() > Some(50));
    // they skip tests that need another server (Redis, memcached), and have no failures
    assert_eq!(count(&outcomes, "failed"), 0, "{build:?} {flavor:?}\n{}", server.log());
    outcomes
}

#[test]
fn cachelib() {
    let all = same_everywhere(|build, flavor| {
        let tests = source("cachelib").join("tests/test_uwsgi_cache.py");
        in_worker(build, flavor, "cachelib", "first", &format!("{tests:?}"))
    });
    // its authors skip expiry; the sessions test it
    assert_eq!((count(&all, "passed"), count(&all, "skipped")), (26, 2), "{all:#?}");
}

#[test]
fn flask_caching() {
    let all = same_everywhere(|build, flavor| {
        let tests = source("Flask-Caching").join("tests");
        let files = ["cache", "memoize", "view", "templates", "subclassing", "hash_method", "signals"];
        let files = files.map(|name| format!("{:?}", tests.join(format!("test_{name}.py")))).join(", ");
        let generic = root().join("tests/clients/flask_caching_generic.py");
        let plugins = "plugins=[suites.FlaskCachingOnUwsgi()]";
        in_worker(build, flavor, "Flask-Caching", "c", &format!("{files}, {generic:?}, {plugins}"))
    });
    assert_eq!((count(&all, "passed"), count(&all, "skipped")), (130, 1), "{all:#?}");
}

/// A `uwsgi` for PATH: the suite starts it with its own options.
fn uwsgi_in(dir: &Path, build: Build, flavor: Flavor) {
    let plugin = format!("--plugins-dir {} --need-plugin ucache", build.plugins().display());
    let plugin = if flavor == Flavor::Ucache { plugin.as_str() } else { "" };
    let python = build.python().trim().replace("plugin = ", "--plugin ");
    let lines = format!(
        "#!/bin/sh\nPATH='{}' exec timeout --foreground --signal=INT 120 {} {plugin} {python} --virtualenv {} --die-on-term \
         --no-orphans \"$@\"\n",
        std::env::var("PATH").unwrap_or_default(),
        build.uwsgi().display(),
        venv().display()
    );
    let file = dir.join("uwsgi");
    fs::write(&file, lines).expect("the script can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
}

/// pytest's result for django-uwsgi-cache's test on uWSGI, with its output.
fn django_outcome(dir: &Path) -> (Option<String>, String) {
    let source = source("django-uwsgi-cache");
    let path = std::env::var("PATH").unwrap_or_default();
    let here = root().join("tests/clients");
    let done = Command::new(venv().join("bin/python3"))
        .args(["-m", "pytest", "-vv", "-p", "no:cacheprovider", "-p", "no:xprocess", "-p", "patience"])
        .arg("tests/test_uwsgicache.py::test_uwsgi")
        .current_dir(&source)
        .env("PATH", format!("{}:{path}", dir.display()))
        .env("PYTHONPATH", format!("{}:{}", source.join("tests").display(), here.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DJANGO_SETTINGS_MODULE", "test_project.settings")
        .env("UWSGICACHE_TEST_TIMEOUT", "60")
        .output()
        .expect("pytest runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix("tests/test_uwsgicache.py::test_uwsgi "));
    (said.and_then(|said| said.split(' ').next()).map(str::to_owned), text)
}

#[test]
fn django_uwsgi_cache() {
    let all = same_everywhere(|build, flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        uwsgi_in(dir.path(), build, flavor);
        let (outcome, text) = django_outcome(dir.path());
        assert_eq!(outcome.as_deref(), Some("PASSED"), "{build:?} {flavor:?}\n{text}");
        Outcomes::from([("test_uwsgi".to_owned(), "PASSED".to_owned())])
    });
    assert_eq!(count(&all, "PASSED"), 1, "{all:?}");
}

//! uWSGI's own tests of its cache, from the source release that `.ci/uwsgi-pypi` fetches.

use std::fs;

use super::{
    Outcomes, count, same_everywhere,
    server::{Build, Flavor, Server, root},
};

/// The lines of a configuration in `t/`, except those that start with one of these.
pub(crate) fn configuration(file: &str, without: &[&str]) -> String {
    let text = fs::read_to_string(Build::tests_of_uwsgi().join(file)).expect("the configuration is there");
    let dropped = |line: &str| line.starts_with('[') || without.iter().any(|start| line.starts_with(start));
    text.lines().filter(|line| !dropped(line)).map(|line| format!("{line}\n")).collect()
}

/// The output of unittest with `-v`; uWSGI's log may interrupt the line of a test.
fn unittest(log: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut name = None;
    for line in log.lines() {
        let mut said = line;
        if let Some((test, rest)) =
            line.split_once(" (__main__.").filter(|(test, _)| test.starts_with("test_"))
        {
            name = Some(test.to_owned());
            said = rest.split_once(" ... ").map_or("", |(_, outcome)| outcome);
        }
        if ["ok", "FAIL", "ERROR"].contains(&said)
            && let Some(name) = name.take()
        {
            outcomes.insert(name, said.to_owned());
        }
    }
    outcomes
}

/// Runs a Python program of `t/`, unchanged or adapted to Python 3.
fn program(build: Build, flavor: Flavor, file: &str, options: &str, adapted: bool) -> String {
    let path = Build::tests_of_uwsgi().join(file).display().to_string();
    let run = if adapted {
        format!("pyrun = {}\npyargv = {path} -v\n", root().join("tests/clients/as_text.py").display())
    } else {
        format!("pyrun = {path}\npyargv = -v\n")
    };
    let log = Server::run_program(build, flavor, &format!("{options}{run}"));
    assert_eq!(log.contains("[ucache] "), flavor == Flavor::Ucache, "{log}");
    log
}

#[test]
fn cachebitmap_py() {
    let options = &configuration("cachebitmap.ini", &["socket", "pyrun"]);
    let run = |adapted| {
        same_everywhere(move |build, flavor| {
            unittest(&program(build, flavor, "cachebitmap.py", options, adapted))
        })
    };
    let as_it_is = run(false);
    assert_eq!((as_it_is.len(), count(&as_it_is, "ok")), (15, 14), "{as_it_is:#?}");
    // it compares bytes with text, which are equal in Python 2 only
    assert_eq!(as_it_is["test_big_random"], "FAIL");
    let adapted = run(true);
    assert_eq!((adapted.len(), count(&adapted, "ok")), (15, 15), "{adapted:#?}");
}

#[test]
fn cachetest_py() {
    let all = same_everywhere(|build, flavor| {
        // of 1000 items that it stores and reads again, 899 fit into the second cache
        let fitting = [2000, 900].map(|items| {
            let options = format!("cache2 = name=c,items={items},ignore_full=1\n");
            let log = program(build, flavor, "cachetest.py", &options, true);
            (items.to_string(), log.contains("\nTEST PASSED\n").to_string())
        });
        Outcomes::from(fitting)
    });
    assert_eq!((all["2000"].as_str(), all["900"].as_str()), ("true", "false"));
}

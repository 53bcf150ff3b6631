#!/usr/bin/env python3
"""Reintroduces known bugs one at a time, and runs the test that must catch each.

    tests/mutations/run.py [name ...]        all of mutations.toml, or those named
    tests/mutations/run.py --check           only looks whether all of them fit into the tree

A copy of the tree gets all bugs at once, each behind a switch in the environment (UCACHE_MUTANT), so it is built
only once. Every named test must pass without a bug, and fail (or hang) with its own. One that does not pass without a
bug is reported, and the next one runs.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SWITCH = '''
/// Whether the bug with this name is active (only in the copy made by tests/mutations).
#[doc(hidden)]
pub fn mutant(name: &str) -> bool {
    static ON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("UCACHE_MUTANT").unwrap_or_default()) == name
}
'''
# Seconds that a test may take with a bug, beside three times what it takes without. Without one it may take five times
# as many: on a busy machine it is slow, and does not hang.
PATIENCE = int(os.environ.get("UCACHE_MUTANT_PATIENCE", "240"))
# Tests that start a uWSGI, with the plugin of the copy.
PLUGIN = ("plugin_", "pages", "surfaces", "oracle", "clients", "readme", "storm")


def tree(mutations):
    """The copy's files and their content: the tree with all bugs behind switches."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    files = {name: (ROOT / name).read_bytes() for name in filter(None, names.decode().split("\0")) if (ROOT / name).is_file()}
    for one in mutations:
        for change in one["change"]:
            text = files[change["file"]].decode()
            if text.count(change["find"]) != 1:
                sys.exit(f"{one['name']}: found {text.count(change['find'])} times in {change['file']}:\n{change['find']}")
            new = change["put"].replace("MUTANT", f'crate::mutant("{one["name"]}")')
            files[change["file"]] = text.replace(change["find"], new).encode()
    files["src/lib.rs"] += SWITCH.encode()
    return files


def write(to, files):
    """Only what is different, so that the next time little is built. Files that have moved are removed."""
    for old in to.rglob("*"):
        name = old.relative_to(to)
        if old.is_file() and name.parts[0] not in ("bin", ".build") and str(name) not in files:
            old.unlink()
    for name, content in files.items():
        file = to / name
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            shutil.copymode(ROOT / name, file)


def build(to, tests, environment):
    """Builds the tests; returns the program of each."""
    args = ["cargo", "test", "--all-features", "--no-run", "--message-format=short"]
    for test in tests:
        args += ["--lib"] if test == "lib" else ["--test", test]
    done = subprocess.run(args, cwd=to, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    found = {}
    for line in done.stdout.splitlines():
        if "Executable" in line:
            path = pathlib.Path(line.rsplit("(", 1)[1].rstrip(")"))
            # Copied, because the next build of the tree itself overwrites it.
            (to / "bin").mkdir(exist_ok=True)
            name = "lib" if "src/lib.rs" in line else path.name.rsplit("-", 1)[0]
            found[name] = shutil.copy2(to / path, to / "bin" / path.name)
            for library in ("libucache.so", "libucache.a"):
                # Loaded by tests of the plugin, and linked with by C programs.
                if (to / path).with_name(library).exists():
                    shutil.copy2((to / path).with_name(library), to / "bin" / library)
    return found


def build_plugins(to, environment):
    """Builds the copy's plugin for each uWSGI under test: within a test it would take most of the test's time."""
    for uwsgi in (ROOT / ".build").glob("uwsgi-*/uwsgi"):
        lent = to / uwsgi.relative_to(ROOT)
        lent.parent.mkdir(parents=True, exist_ok=True)
        lent.unlink(missing_ok=True)
        lent.symlink_to(uwsgi.resolve())
    for command in (["make", "-s", "plugin"], [".ci/uwsgi-pypi", "plugin"]):
        done = subprocess.run(command, cwd=to, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}")


def run(to, program, one, mutant, environment, patience):
    """How the test of a bug ends with the bug `mutant`, or without any: and why, and after how many seconds."""
    begin = time.monotonic()
    env = dict(environment, UCACHE_MUTANT=mutant, UCACHE_CASE=one.get("case", ""), RUST_BACKTRACE="0")
    args = [program, "--test-threads=1", *one["filter"].split()]
    # In its own process group: if it hangs, its children are killed with it.
    child = subprocess.Popen(args, cwd=to, env=env, start_new_session=True, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        text, _ = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        child.communicate()
        return "hangs", f"still running after {patience:.0f} s", patience
    took = time.monotonic() - begin
    if child.returncode == 0:
        if " 0 passed" in text:
            return "is missing", f"no test is called {one['filter']}", took
        return "passes", "", took
    lines = text.splitlines()
    at = next((n for n, line in enumerate(lines) if "panicked at" in line), None)
    why = " ".join(lines[at + 1:at + 2]) if at is not None else f"exit {child.returncode}"
    return "fails", why[:150], took


def outcome(to, program, one, clean, environment):
    """The verdict on one bug, and why. `clean` has how tests end without a bug."""
    what = (one["test"], one["filter"], one.get("case", ""))
    if what not in clean:
        clean[what] = run(to, program, one, "", environment, 5 * PATIENCE)
    how, why, took = clean[what]
    if how != "passes":
        return f"{how} WITHOUT A BUG", why
    how, why, _ = run(to, program, one, one["name"], environment, PATIENCE + 3 * took)
    return "NOT CAUGHT" if how == "passes" else "caught", why


def main():
    with open(ROOT / "tests/mutations/mutations.toml", "rb") as file:
        mutations = tomllib.load(file)["mutation"]
    if sys.argv[1:] == ["--check"]:
        tree(mutations)
        return
    chosen = [one for one in mutations if not sys.argv[1:] or one["name"] in sys.argv[1:]]
    unknown = set(sys.argv[1:]) - {one["name"] for one in mutations}
    if unknown:
        sys.exit(f"no such mutation: {', '.join(sorted(unknown))}")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target), UCACHE_SERVERS=str(ROOT / ".build/servers"))
    to = target / "mutants"
    write(to, tree(mutations))
    tests = sorted({one["test"] for one in chosen})
    programs = build(to, tests, environment)
    if any(test.startswith(PLUGIN) for test in tests):
        build_plugins(to, environment)
    verdicts, clean = [], {}
    for one in chosen:
        verdict, why = outcome(to, programs[one["test"]], one, clean, environment)
        verdicts.append(verdict)
        test = " ".join(filter(None, [f"`{one['test']}`", one["filter"], one.get("case")]))
        print(f"| {one['name']} | {verdict} | {test} | {why} |", flush=True)
    for verdict in sorted(set(verdicts)):
        print(f"{verdicts.count(verdict)} of {len(chosen)} {verdict}", flush=True)
    sys.exit(0 if set(verdicts) <= {"caught"} else 1)


main()

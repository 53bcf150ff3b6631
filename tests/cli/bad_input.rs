//! Errors are reported in a sentence, with a hint and a documented exit status.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
        process::CommandExt,
    },
    process::Stdio,
    thread,
};

use crate::{Store, command, ucache, ucache_with};

/// The command, after a setting of the shell.
fn limited(setting: &str, args: &[&str]) -> crate::Ran {
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("{setting}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ucache")]);
    shell.args(args).output().unwrap().into()
}

/// Every command that needs a store.
const ALL: [&[&str]; 15] = [
    &["stat"],
    &["keys"],
    &["get", "k"],
    &["set", "k", "v"],
    &["add", "k", "v"],
    &["replace", "k", "v"],
    &["append", "k", "v"],
    &["del", "k"],
    &["incr", "k"],
    &["touch", "k", "5"],
    &["clear"],
    &["dump"],
    &["check"],
    &["check", "--repair"],
    &["metrics"],
];

fn on(file: &str, args: &[&str]) -> crate::Ran {
    ucache([&args[..1], &[file], &args[1..]].concat())
}

#[test]
fn a_file_that_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("diary");
    fs::write(&path, "dear diary\n".repeat(1000)).unwrap();
    let before = fs::read(&path).unwrap();
    for args in ALL {
        let said = on(path.to_str().unwrap(), args).failed(3);
        assert!(
            said.contains("diary: is not a ucache store") && said.contains("untouched"),
            "{args:?}: {said}"
        );
        assert!(said.contains("`store=`"), "{args:?} says what to do: {said}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    let said = on(dir.path().to_str().unwrap(), &["stat"]).failed(3);
    assert!(said.contains("directory"), "{said}");
    let said = on("/dev/null", &["stat"]).failed(3);
    assert!(said.contains("not a regular file"), "{said}");
    let empty = dir.path().join("empty");
    File::create(&empty).unwrap();
    on(empty.to_str().unwrap(), &["stat"]).failed(3);
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
}

#[test]
fn a_store_of_another_version_names_both() {
    let store = Store::new("cli version");
    let path = store.path();
    drop(store.cache);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(8)).unwrap();
    file.write_all(&99_u64.to_ne_bytes()).unwrap();
    drop(file);
    let before = fs::read(&path).unwrap();
    let said = on(path.to_str().unwrap(), &["get", "k"]).failed(3);
    assert!(said.contains("format 99, this build reads") && said.contains("store_delete"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_missing_file_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    for args in ALL {
        let said = on(path.to_str().unwrap(), args).failed(3);
        assert!(said.contains("no such file") && said.contains("NAME@HOST:PORT"), "{args:?}: {said}");
    }
    assert!(!path.exists());
}

#[test]
fn without_permission_the_owner_is_named() {
    let store = Store::new("cli permission");
    fs::set_permissions(store.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = command();
    command.arg("stat").arg(store.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The tests may run as root, for whom everything is permitted.
    let ran: crate::Ran = if fs::metadata("/proc/self").unwrap().uid() == 0 {
        // The command's directory may be private: it is started before the user changes.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("ucache");
        // By another process: a child forked by another test meanwhile would keep a copy of this
        // one's descriptor open for writing.
        let mut copy = std::process::Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_ucache")).arg(&program);
        assert!(copy.status().unwrap().success());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = std::process::Command::new(program);
        command.arg("stat").arg(store.path()).uid(65_534).gid(65_534).output().unwrap().into()
    } else {
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o000)).unwrap();
        command.output().unwrap().into()
    };
    let said = ran.failed(3);
    assert!(
        said.contains("permission denied") && said.contains("user id") && said.contains("run this as"),
        "{said}"
    );
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_half_file() {
    let store = Store::new("cli full disk");
    for i in 0..500 {
        store.cache.set(format!("key {i}"), vec![b'v'; 1000]).unwrap();
    }
    for format in ["jsonl", "resp"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = command();
        command.arg("dump").arg(store.path()).args(["--format", format]).stdout(full).stderr(Stdio::piped());
        let ran: crate::Ran = command.output().unwrap().into();
        let said = ran.failed(5);
        assert!(said.contains("No space left") && said.contains("free some space"), "{said}");
    }
    // A file size limit stands in for a disk of that size; its signal is ignored.
    let out = store.dir.path().join("out");
    let limited = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" dump \"$1\" --output '{}'", out.display());
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &limited, env!("CARGO_BIN_EXE_ucache")]).arg(store.path());
    let ran: crate::Ran = shell.output().unwrap().into();
    let said = ran.failed(5);
    assert!(said.contains("cannot write") && said.contains("out: "), "{said}");
    let left: Vec<_> = fs::read_dir(store.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "neither the file nor a part of it");
    let said = store.run(&["dump", "-o", "/no/such/directory/out"]).failed(5);
    assert!(said.contains("/no/such/directory/out: no directory /no/such/directory"), "{said}");
}

#[test]
fn an_output_that_is_no_file_stays_what_it_is() {
    let store = Store::new("cli output");
    store.cache.set("k", "v").unwrap();
    let line = "{\"expires\":null,\"key\":\"k\",\"value\":\"v\"}\n";
    // A device would have been replaced in the same way.
    let pipe = store.dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    store.run(&["dump", "-o", pipe.to_str().unwrap()]).text();
    assert_eq!(reader.join().unwrap(), line);
    assert!(pipe.metadata().unwrap().file_type().is_fifo());
    // A link leads to the new file.
    let (link, file) = (store.dir.path().join("link"), store.dir.path().join("file"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    store.run(&["dump", "-o", link.to_str().unwrap()]).text();
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    let said = store.run(&["dump", "-o", store.dir.path().to_str().unwrap()]).failed(5);
    assert!(said.contains("cannot write") && said.contains("directory"), "{said}");
}

#[test]
fn a_dump_does_not_take_the_place_of_its_store() {
    let store = Store::new("cli dump onto itself");
    store.cache.set("k", "v").unwrap();
    let dir = store.dir.path();
    std::os::unix::fs::symlink("store", dir.join("link")).unwrap();
    std::os::unix::fs::symlink(dir, dir.join("folder")).unwrap();
    let id = || fs::metadata(store.path()).map(|meta| (meta.ino(), meta.len())).unwrap();
    let before = id();
    for name in ["store", "./store", "link", "folder/store"] {
        let out = dir.join(name);
        let said = store.run(&["dump", "-o", out.to_str().unwrap()]).failed(2);
        assert!(said.contains("it is the store that is dumped") && said.contains("--output"), "{said}");
        let path = store.path();
        let said = ucache([OsStr::new("dump"), out.as_os_str(), OsStr::new("-o"), path.as_os_str()]);
        assert!(said.failed(2).contains("the store that is dumped"), "{name}");
    }
    // The shell opens it for the command.
    let append = OpenOptions::new().append(true).open(store.path()).unwrap();
    let mut command = command();
    command.arg("dump").arg(store.path()).args(["-o", "/dev/stdout"]).stdout(append);
    assert!(crate::Ran::from(command.output().unwrap()).failed(2).contains("the store that is dumped"));
    assert_eq!(id(), before);
    assert_eq!(store.run(&["get", "k"]).text(), "v");
    let other = Store::new("cli dump onto another");
    other.run(&["dump", "-o", dir.join("out").to_str().unwrap()]).text();
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let args = ["create", path.to_str().unwrap(), "-i", "100"];
    // Blocks of 1024 bytes.
    for blocks in [0, 1, 64, 256] {
        let said = limited(&format!("trap '' XFSZ; ulimit -f {blocks}"), &args).failed(3);
        assert!(said.contains("File too large"), "{blocks}: {said}");
        assert!(!path.exists(), "{blocks}");
    }
    // A file that somebody else made stays.
    fs::write(&path, "").unwrap();
    let import = ["import", path.to_str().unwrap(), "-i", "100"];
    limited("trap '' XFSZ; ulimit -f 1", &import).failed(3);
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    ucache(args).text();
    assert!(ucache(args).failed(1).contains("the file exists"));
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    for args in [&["--help"][..], &["--version"], &["-h"], &["get", "--help"], &["help", "set"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran: crate::Ran = command().args(args).stdout(full).output().unwrap().into();
        assert!(ran.failed(5).contains("No space left"), "{args:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: crate::Ran = command().args(args).stdout(writer).output().unwrap().into();
        assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""), "{args:?}");
        assert!(ucache(args).text().contains("ucache"), "{args:?}");
    }
    let said = ucache(["purge", "--help"]).text();
    assert!(said.contains("ucache purge [OPTIONS] <TARGET> <URL|"), "the order of the arguments: {said}");
}

#[test]
fn what_is_no_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (here, empty) = (dir.path().to_str().unwrap(), dir.path().join("empty"));
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    assert!(ucache(["stat", here]).failed(3).contains("is a directory\n  name the file"));
    assert!(ucache(["create", &format!("{here}/none/x"), "-i", "9"]).failed(3).contains("no directory"));
    assert!(ucache(["import", empty, "-i", "9"]).failed(3).contains("the file is empty\n  "));
    assert_eq!(fs::read(empty).unwrap(), b"");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let store = Store::new("cli closed pipe");
    for i in 0..900 {
        store.cache.set(format!("key {i}"), vec![b'v'; 1000]).unwrap();
    }
    for args in [&["dump"][..], &["dump", "-f", "resp"], &["keys"], &["keys", "--json"], &["get", "key 1"]] {
        let mut command = command();
        command.arg(args[0]).arg(store.path()).args(&args[1..]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: crate::Ran = command.stdout(writer).stderr(Stdio::piped()).output().unwrap().into();
        assert_eq!((ran.code, ran.err.as_str()), (Some(141), ""), "{args:?}");
    }
}

#[test]
fn what_the_cache_refuses_is_said() {
    let store = Store::new("cli refused");
    let said = store.run_with(&["set", "k"], b"").failed(4);
    assert!(said.contains("the value is empty") && said.contains("del"), "{said}");
    let said = store.run_with(&["set", "k"], &vec![b'v'; 65_537]).failed(4);
    assert!(said.contains("65537 bytes, the limit is 65536") && said.contains("blocksize"), "{said}");
    let said = store.run(&["set", &"k".repeat(2049), "v"]).failed(4);
    assert!(said.contains("2049") && said.contains("keysize"), "{said}");
    assert!(store.run(&["set", "", "v"]).failed(2).contains("key is empty"));
    assert_eq!(store.run(&["get", &"k".repeat(100_000)]).failed(1), "", "too long to be there");
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["nosuch"],
        &["get"],
        &["get", "f"],
        &["set", "f", "k", "v", "--ttl", "x"],
        &["keys", "f", "-0", "-l"],
    ] {
        let ran = ucache(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("Usage") || ran.err.contains("--help"), "{ran:?}");
    }
    let store = Store::new("cli usage");
    assert!(store.run(&["top"]).failed(2).contains("--once"));
    assert!(store.run(&["metrics", "--listen", "0.0.0.0:0"]).failed(2).contains("loopback"));
}

#[test]
fn a_server_that_is_gone_or_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("c@{}", listener.local_addr().unwrap());
    // One accepts and never answers; one speaks another protocol; one closes in the middle.
    let server = thread::spawn(move || {
        let silent = listener.accept().unwrap();
        let (mut http, _) = listener.accept().unwrap();
        let _ = http.read(&mut [0; 100]);
        let _ = http.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        drop(http);
        let (mut cut, _) = listener.accept().unwrap();
        let _ = cut.read(&mut [0; 100]);
        let head = b"\x06\0status\x02\0ok\x04\0size\x04\x001000";
        let _ = cut
            .write_all(&[&[111, u8::try_from(head.len()).unwrap(), 0, 17], &head[..], b"only this"].concat());
        drop((cut, silent));
    });
    let said = ucache(["get", &at, "k", "--timeout", "0.3"]).failed(3);
    assert!(said.contains("no answer within") && said.contains("--timeout"), "{said}");
    let said = ucache(["get", &at, "k"]).failed(3);
    assert!(said.contains("does not speak") && said.contains("http-socket"), "{said}");
    let said = ucache(["get", &at, "k"]).failed(3);
    assert!(said.contains("middle of an answer"), "{said}");
    server.join().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    drop(UnixListener::bind(&socket).unwrap());
    let said = ucache(["get", &format!("c@{}", socket.display()), "k"]).failed(3);
    assert!(said.contains("refused") && said.contains("is the server running"), "{said}");
    let said = ucache(["get", "c@/no/such/socket", "k"]).failed(3);
    assert!(said.contains("cannot connect"), "{said}");
    let said = ucache(["get", "c@nowhere", "k"]).failed(3);
    assert!(said.contains("not the address") && said.contains("HOST:PORT"), "{said}");
    let said = ucache_with(["load", "c@127.0.0.1:1"], b"{\"key\":\"k\",\"value\":\"v\"}\n").failed(3);
    assert!(said.contains("cannot connect"), "{said}");
}

//! The place of a store: links, other names of a file, ownership of new files, and suitable file
//! systems.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/on_mounts.rs"]
mod on_mounts;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use engine_proc::{Child, alone};
use engine_store::{assert_filled, config, fill, place, put, refused, seq};
use nix::mount::{MsFlags, mount, umount};
use on_mounts::on_mounts;
use ucache::engine::{Config, Engine, Store};

const ROOT: &str = "this test gives files away: run it as root";
/// Two users other than root: nobody and another one.
const NOBODY: u32 = 65_534;
const OTHER: u32 = 4321;

fn with(path: &Path, capacity: u64) -> Config {
    Config { capacity, ..config(path) }
}

fn anew(path: &Path, capacity: u64) -> Config {
    let store = Store { path: path.to_owned(), delete_unusable: true };
    Config { store: Some(store), ..with(path, capacity) }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn become_nobody() {
    // SAFETY: changes only the user of this child process.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0, "{ROOT}");
}

/// A directory inside another one, owned by this user.
fn directory(within: &Path, name: &str, owner: u32) -> PathBuf {
    let path = within.join(name);
    fs::create_dir(&path).expect("mkdir");
    chown(&path, Some(owner), None).expect(ROOT);
    path
}

/// Root opens a store in a directory that another user can write to, who has put something at the
/// name of the file that is created beside the store: its target is neither created nor changed.
#[test]
fn nothing_is_made_at_the_end_of_a_link_in_the_way() {
    let _alone = alone();
    let (dir, _) = place();
    let elsewhere = directory(dir.path(), "elsewhere", 0);
    let empty = elsewhere.join("empty");
    File::create(&empty).expect("a file");
    mode(&empty, 0o600);
    for (n, target) in
        [elsewhere.join("missing"), empty.clone(), PathBuf::from("/dev/null")].iter().enumerate()
    {
        let theirs = directory(dir.path(), &format!("theirs {n}"), NOBODY);
        let path = theirs.join("store");
        fill(&Engine::create(&with(&path, 2000)).expect("a store"), 1);
        chown(&path, Some(NOBODY), None).expect(ROOT);
        symlink(target, theirs.join("store.new")).expect("a link");
        refused(Engine::create(&with(&path, 3000)), &["2000", "3000", "store.new", "in the way"]);
        assert!(!elsewhere.join("missing").exists(), "a file was made where the link leads");
        let there = fs::metadata(&empty).expect("stat");
        assert_eq!((there.len(), there.uid(), there.mode() & 0o777), (0, 0, 0o600), "a file was given away");
        assert_filled(&Engine::create(&with(&path, 2000)).expect("the store"), 1);
        fs::remove_file(theirs.join("store.new")).expect("remove");
        assert_filled(&Engine::create(&with(&path, 3000)).expect("nothing in the way"), 1);
    }
}

/// A missing store is created at the end of a link if the owner of the link could have created it,
/// too.
#[test]
fn a_missing_store_is_made_where_its_link_may_lead() {
    let _alone = alone();
    let (dir, _) = place();
    let (ours, theirs) = (directory(dir.path(), "ours", 0), directory(dir.path(), "theirs", NOBODY));
    let link = dir.path().join("link");
    let lead = |to: &Path, owner: u32| {
        let _ = fs::remove_file(&link);
        symlink(to, &link).expect("a link");
        lchown(&link, Some(owner), None).expect(ROOT);
    };
    for (n, (owner, to, made)) in
        [(0, &ours, true), (NOBODY, &theirs, true), (NOBODY, &ours, false), (OTHER, &theirs, false)]
            .iter()
            .enumerate()
    {
        let path = to.join(format!("store {n}"));
        lead(&path, *owner);
        let engine = Engine::create(&with(&link, 2000));
        assert_eq!(path.exists(), *made, "{n}: {engine:?}");
        match engine {
            Ok(engine) => fill(&engine, 1),
            refusal => refused(refusal, &["a link of user", &owner.to_string()]),
        }
        // An empty file counts as missing.
        let _ = fs::remove_file(&path);
        File::create(&path).expect("a file");
        let engine = Engine::create(&with(&link, 2000));
        assert_eq!(fs::metadata(&path).expect("stat").len() > 0, *made, "{n}: {engine:?}");
        drop(engine);
        // An existing store is used, whoever owns the link to it: releases are linked.
        fs::remove_file(&path).expect("remove");
        fill(&Engine::create(&with(&path, 2000)).expect("a store"), 1);
        assert_filled(&Engine::create(&with(&link, 2000)).expect("by a link"), 1);
        assert_filled(&Engine::attach(&link).expect("by a link"), 1);
        assert_filled(&Engine::create(&with(&link, 2500)).expect("moved"), 1);
        assert!(fs::symlink_metadata(&link).expect("stat").is_symlink(), "the link stays");
        // So is the link's target if the store is recreated.
        fs::write(&path, "no store").expect("write");
        drop(Engine::create(&anew(&link, 2000)).expect("made anew"));
        assert!(fs::symlink_metadata(&link).expect("stat").is_symlink(), "the link stays");
        assert!(Engine::is_store(&path));
    }
    // Where everybody may make links, only one's own are followed.
    let public = directory(dir.path(), "public", 0);
    mode(&public, 0o1777);
    let link = public.join("link");
    symlink(theirs.join("new"), &link).expect("a link");
    lchown(&link, Some(NOBODY), None).expect(ROOT);
    assert!(Engine::create(&with(&link, 2000)).is_err());
    assert!(!theirs.join("new").exists());
}

/// A file with another name may be another user's file under that name.
#[test]
fn a_file_with_several_names_is_refused() {
    let _alone = alone();
    let (dir, path) = place();
    fill(&Engine::create(&with(&path, 2000)).expect("a store"), 1);
    let second = dir.path().join("second");
    fs::hard_link(&path, &second).expect("a link");
    let before = fs::read(&path).expect("read");
    for path in [&path, &second] {
        for engine in
            [Engine::create(&with(path, 2000)), Engine::create(&with(path, 3000)), Engine::attach(path)]
        {
            refused(engine, &["hard links"]);
        }
    }
    assert!(fs::read(&path).expect("read") == before, "refused, but changed");
    let empty = dir.path().join("empty");
    File::create(&empty).expect("a file");
    fs::hard_link(&empty, dir.path().join("also empty")).expect("a link");
    refused(Engine::create(&with(&empty, 2000)), &["hard links"]);
    assert_eq!(fs::metadata(&empty).expect("stat").len(), 0);
    // Only the name is removed if a store may be recreated.
    drop(Engine::create(&anew(&path, 100)).expect("made anew"));
    assert!(fs::read(&second).expect("read") == before, "what has another name stays");
    assert_filled(&Engine::attach(&second).expect("one name"), 1);
}

/// The owner of the file that a store moves to, and its permissions.
#[test]
fn a_store_that_moves_is_given_to_nobody_it_was_not_for() {
    let _alone = alone();
    let (dir, _) = place();
    let cases = [
        // owner and mode of the directory, owner of the file, owner of the new one
        ("its directory's owner", NOBODY, 0o755, NOBODY, NOBODY),
        ("root's in another one's directory", NOBODY, 0o755, 0, 0),
        ("in root's directory", 0, 0o755, NOBODY, NOBODY),
        ("in a sticky directory", 0, 0o1777, NOBODY, NOBODY),
        ("in somebody else's directory", OTHER, 0o755, NOBODY, 0),
        ("in a directory for everybody", 0, 0o777, NOBODY, 0),
    ];
    for (what, owner, bits, before, after) in cases {
        let at = directory(dir.path(), what, owner);
        mode(&at, bits);
        let path = at.join("store");
        fill(&Engine::create(&with(&path, 2000)).expect("a store"), 1);
        mode(&path, 0o4664);
        chown(&path, Some(before), Some(before)).expect(ROOT);
        mode(&path, 0o4664);
        let engine = Engine::create(&with(&path, 3000)).expect(what);
        assert_filled(&engine, 1);
        let meta = fs::metadata(&path).expect("stat");
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (after, 0o664), "{what}");
        let told = engine.notes().join("\n").contains("belonged to user 65534");
        assert_eq!(told, after != before, "{what}: {:?}", engine.notes());
    }
}

/// Root inspects the store of a server that runs as another user, who still owns the file.
#[test]
fn root_looks_into_another_users_store() {
    let _alone = alone();
    let (dir, _) = place();
    mode(dir.path(), 0o755);
    for (name, bits) in [("own", 0o755), ("public", 0o1777)] {
        let at = directory(dir.path(), name, if bits == 0o755 { NOBODY } else { 0 });
        mode(&at, bits);
        let path = at.join("store");
        Child::fork(|| {
            become_nobody();
            fill(&Engine::create(&with(&path, 2000)).expect("a store"), 1);
        })
        .join();
        {
            let engine = Engine::attach(&path).expect("for root");
            assert_filled(&engine, 1);
            put(&engine, 1, 2).expect("set");
        }
        drop(Engine::create(&with(&path, 2500)).expect("for root, moved"));
        Child::fork(|| {
            become_nobody();
            let engine = Engine::create(&with(&path, 2500)).expect("its own store");
            assert_eq!((seq(&engine, 1), seq(&engine, 2)), (Some(2), Some(1)));
        })
        .join();
    }
}

fn tmpfs(at: &Path, kind: &str) {
    fs::create_dir_all(at).expect("mkdir");
    mount(Some("none"), at, Some(kind), MsFlags::empty(), None::<&str>).expect("a file system in memory");
}

fn run(program: &str, args: &[&str], package: &str) {
    let done = Command::new(program).args(args).output();
    let done = done.unwrap_or_else(|e| panic!("{program}: {e} (apt-get install {package})"));
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An overlay at `at/merged` whose upper directory is in `at/below`.
fn overlay(at: &Path) -> PathBuf {
    let [lower, upper, work] = ["lower", "below/upper", "below/work"].map(|name| at.join(name));
    let merged = at.join("merged");
    for made in [&lower, &upper, &work, &merged] {
        fs::create_dir_all(made).expect("mkdir");
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&options[..]))
        .expect("an overlay");
    merged
}

fn is_usable(path: &Path) {
    fill(&Engine::create(&with(path, 2000)).expect("a store"), 1);
    assert_filled(&Engine::create(&with(path, 2500)).expect("moved"), 1);
    assert_filled(&Engine::attach(path).expect("a store"), 1);
}

/// Containers have overlays; the upper file system decides.
#[test]
fn an_overlay_is_what_its_upper_file_system_is() {
    let _alone = alone();
    let mkfs: [(&str, u64, &[&str]); 3] = [
        ("e2fsprogs", 64, &["mkfs.ext4", "-q", "-F"]),
        ("xfsprogs", 320, &["mkfs.xfs", "-q", "-f"]),
        ("btrfs-progs", 128, &["mkfs.btrfs", "-q", "-f", "-M"]),
    ];
    for (package, mib, make) in mkfs {
        on_mounts(|dir| {
            let (disk, below) = (dir.join("disk"), dir.join("below"));
            File::create(&disk).and_then(|file| file.set_len(mib << 20)).expect("a file");
            fs::create_dir(&below).expect("mkdir");
            let disk = disk.to_str().expect("UTF-8");
            run(make[0], &[&make[1..], &[disk]].concat(), package);
            run("mount", &["-o", "loop", disk, below.to_str().expect("UTF-8")], "mount");
            let merged = overlay(dir);
            is_usable(&merged.join("store"));
            // btrfs is recognised through the overlay: files created there are not copied on write.
            if package == "btrfs-progs" {
                let flags = Command::new("lsattr").arg(dir.join("below/upper/store")).output();
                let flags = flags.expect("lsattr runs (apt-get install e2fsprogs)").stdout;
                let flags = String::from_utf8_lossy(&flags).into_owned();
                assert!(flags.split(' ').next().is_some_and(|flags| flags.contains('C')), "{flags}");
            }
            // As in a container: the upper directory has no name there.
            tmpfs(&dir.join("below"), "tmpfs");
            is_usable(&merged.join("store in a container"));
        });
    }
    on_mounts(|dir| {
        tmpfs(&dir.join("below"), "tmpfs");
        is_usable(&overlay(dir).join("store"));
    });
    on_mounts(|dir| {
        tmpfs(&dir.join("below"), "ramfs");
        refused(
            Engine::create(&config(&overlay(dir).join("store"))),
            &["unknown suitability (type 858458f6)"],
        );
    });
}

/// An unknown file system: refused, with nothing left behind, unless it is trusted; then the log
/// has a line.
#[test]
fn a_file_system_that_is_not_listed_is_used_when_it_is_trusted() {
    let _alone = alone();
    on_mounts(|dir| {
        let at = dir.join("ramfs");
        tmpfs(&at, "ramfs");
        let path = at.join("store");
        let trusted = |capacity| Config { store_fs_trust: true, ..with(&path, capacity) };
        refused(Engine::create(&config(&path)), &["858458f6", "store_fs=trust"]);
        assert!(!path.exists(), "an empty file was left");
        fill(&Engine::create(&trusted(2000)).expect("trusted"), 1);
        for capacity in [2000, 2500] {
            let engine = Engine::create(&trusted(capacity)).expect("trusted");
            assert_filled(&engine, 1);
            let line = "used anyway (store_fs=trust)";
            assert!(engine.notes().iter().any(|note| note.contains(line)), "{:?}", engine.notes());
            // Both, with a comma between them.
            assert_filled(&Engine::create(&trusted(capacity)).expect("trusted"), 1);
        }
        refused(Engine::attach(&path), &["858458f6", "store_fs=trust"]);
        assert_filled(&Engine::create(&trusted(2500)).expect("trusted"), 1);
    });
}

/// The name of a mounted single file can be neither removed nor replaced.
#[test]
fn a_mount_of_one_file_is_made_anew_in_place_or_left_as_it_is() {
    let _alone = alone();
    on_mounts(|dir| {
        let (source, path) = (dir.join("source"), dir.join("store"));
        File::create(&source).and(File::create(&path)).expect("files");
        let bind = || {
            mount(Some(&source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a mount");
        };
        bind();
        fill(&Engine::create(&with(&path, 2000)).expect("an empty file"), 1);
        assert_filled(&Engine::create(&with(&path, 2000)).expect("the store"), 1);
        let refusal = ["2000", "3000", "this one file is a mount", "mount its directory"];
        refused(Engine::create(&with(&path, 3000)), &refusal);
        assert_filled(&Engine::create(&with(&path, 2000)).expect("the store"), 1);
        // While another process has it open it stays, too.
        let user = Engine::create(&with(&path, 2000)).expect("the store");
        refused(Engine::create(&anew(&path, 3000)), &["in use", "this one file is a mount"]);
        assert_filled(&user, 1);
        drop(user);
        fs::write(&path, "no store").expect("write");
        let engine = Engine::create(&anew(&path, 3000)).expect("made anew in place");
        assert_eq!((engine.stats().items, engine.config().capacity), (0, 3000));
        assert!(engine.notes().join("").contains("store_delete"), "{:?}", engine.notes());
        drop(engine);
        umount(&path).expect("umount");
        assert!(Engine::is_store(&source), "it is the mounted file that was made anew");
    });
}

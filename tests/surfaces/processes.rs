//! Kinds of servers: without a master, in a jail, as another user, under an emperor.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use crate::{
    await_worker, get, on_both,
    patience::within,
    plugin_lines, probe_lines,
    server::{Flavor, Server},
    spawn,
};

#[test]
fn without_a_master() {
    on_both(|flavor| {
        let lines = format!(
            "http-socket = {{dir}}/w1\ncache2 = name=c,items=5\ncache2 = name=disk,items=5,store={{dir}}/store\n\
             add-cache-item = c given=item\n{}",
            probe_lines()
        );
        let server = spawn(flavor, 1, &lines);
        await_worker(&server, 1);
        server.assert_runs_on(flavor);
        assert!(server.log().contains("running uWSGI without its master"), "{}", server.log());
        let all = "uwsgi.cache_get('given'), uwsgi.cache_set('k', 'v'), uwsgi.cache_update('k', 'w'), uwsgi.cache_get('k'), \
                   uwsgi.cache_inc('n', 2), uwsgi.cache_num('n'), uwsgi.cache_del('k'), sorted(uwsgi.cache_keys())";
        assert_eq!(
            server.run(1, all),
            "(b'item', True, True, b'w', True, 2, True, [b'given', b'n'])",
            "{flavor:?}"
        );
        assert_eq!(
            server.run(1, "uwsgi.cache_set('d', 'v', 0, 'disk'), uwsgi.cache_get('d', 'disk')"),
            "(True, b'v')"
        );
        // there is no sweeper here
        assert_eq!(server.run(1, "uwsgi.cache_set('short', 'v', 1), time.sleep(2.1)"), "(True, None)");
        let gone = if flavor == Flavor::Native { "b'v'" } else { "None" };
        assert_eq!(server.run(1, "uwsgi.cache_get('short')"), gone);
    });
}

/// The plugin is initialised after all options are read: its line may follow those of the caches.
#[test]
fn the_plugin_may_be_named_last() {
    for option in ["plugin", "plugins", "need-plugin"] {
        let lines = format!(
            "master = true\nhttp-socket = {{dir}}/w1\ncache2 = name=c,items=5\n{}{}",
            probe_lines(),
            plugin_lines(Flavor::Ucache).replace("plugin = ", &format!("{option} = "))
        );
        let server = spawn(Flavor::Native, 1, &lines);
        await_worker(&server, 1);
        server.assert_runs_on(Flavor::Ucache);
        assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_get('k')"), "(True, b'v')");
        assert!(!server.log().contains("preallocated"), "a native cache was made\n{}", server.log());
    }
}

/// uWSGI changes its root and its user after it has loaded the plugin and before it creates the
/// caches.
#[test]
fn in_a_jail_as_another_user() {
    assert!(
        fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
        "chroot and uid need root: run this test as root"
    );
    on_both(|flavor| {
        let lines = "master = true\nprocesses = 2\nhttp-socket = /w1\nhttp-socket = /w2\nmap-socket = 0:1\nmap-socket = 1:2\n\
            chroot = {dir}/jail\nuid = 65534\ngid = 65534\nstats = /stats\nplugin = router_cache\n\
            cache2 = name=c,items=9,purge_lru=1\ncache2 = name=disk,items=9,store=/store\n\
            route = ^/set cacheset:key=k,value=${QUERY_STRING}\nroute = ^/set cacheset:key=d,value=stored,name=disk\n\
            route = ^/count cacheinc:key=n\nroute = ^/count cachevar:key=n,var=N,num=1\nroute = ^/count addheader:X-N: ${N}\n\
            route = ^/get cache:key=k,no_offload=1\nroute = ^/disk cache:key=d,name=disk\nroute = .* break:204 No Content";
        let dir = tempfile::tempdir().expect("a temporary directory");
        let jail = dir.path().join("jail");
        // workers open /dev/null; an empty file is sufficient
        fs::create_dir_all(jail.join("dev")).expect("a directory can be made");
        fs::write(jail.join("dev/null"), "").expect("a file can be written");
        for path in [jail.join("dev/null"), jail.clone()] {
            chown(path, Some(65534), Some(65534)).expect("it can be given away");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
        for name in ["w1", "w2", "stats"] {
            symlink(jail.join(name), dir.path().join(name)).expect("a link can be made");
        }
        let at = dir.path().display().to_string();
        let text =
            format!("[uwsgi]\n{}pidfile = {at}/pid\n{}\n", plugin_lines(flavor), lines.replace("{dir}", &at));
        let server = Server::spawn(dir, &text, 2);
        within("an answer", || server.ask(1, "GET", "/", "").is_ok_and(|answer| answer.status == 204));
        server.assert_runs_on(flavor);
        assert!(server.log().contains("setuid() to 65534"), "{}", server.log());
        assert_eq!(get(&server, "/set?jailed").status, 204);
        let other = server.ask(2, "GET", "/get", "").expect("an answer");
        assert_eq!(other.body, "jailed", "{flavor:?}\n{}", server.log());
        assert_eq!(get(&server, "/disk").body, "stored");
        for n in 1..=4 {
            let head = server.ask(n % 2 + 1, "GET", "/count", "").expect("an answer").head;
            assert!(head.contains("X-N: "), "{head}");
        }
        within("live figures", || server.cache_stats("c")["items"] == 2);
        assert_eq!(server.cache_stats("c")["hits"], 5, "{flavor:?}");
        assert!(jail.join("store").exists());
    });
}

/// Two vassals: with caches of the same name, which are separate, and (ucache) with one store,
/// which is shared.
#[test]
fn vassals_of_an_emperor() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display().to_string();
        fs::create_dir(dir.path().join("vassals")).expect("a directory can be made");
        for n in 1..=2 {
            let shared = if flavor == Flavor::Ucache {
                format!("cache2 = name=shared,items=99,store={at}/shared\n")
            } else {
                String::new()
            };
            let text = format!(
                "[uwsgi]\n{}master = true\nhttp-socket = {at}/w{n}\nlogto = {at}/log{n}\nno-orphans = true\n\
                 cache2 = name=own,items=9\ncache2 = name=kept,items=9,store={at}/kept{n}\n{shared}{}",
                plugin_lines(flavor),
                probe_lines()
            );
            fs::write(dir.path().join(format!("vassals/v{n}.ini")), text).expect("a file can be written");
        }
        let emperor =
            format!("[uwsgi]\npidfile = {at}/pid\nmaster = true\nemperor = {at}/vassals\nemperor-freq = 1\n");
        let server = Server::spawn(dir, &emperor, 2);
        for worker in 1..=2 {
            await_worker(&server, worker);
            let set = format!(
                "uwsgi.cache_set('k', 'of {worker}'), uwsgi.cache_set('k', 'of {worker}', 0, 'kept')"
            );
            assert_eq!(server.run(worker, &set), "(True, True)", "{flavor:?}");
        }
        let log = fs::read_to_string(server.dir().join("log1")).expect("the vassal's log");
        assert_eq!(log.contains("[ucache] "), flavor == Flavor::Ucache, "{log}");
        assert_eq!(server.run(1, "uwsgi.cache_get('k')"), "b'of 1'");
        if flavor == Flavor::Ucache {
            assert_eq!(
                server.run(
                    1,
                    "uwsgi.cache_set('k', 'of both', 0, 'shared'), uwsgi.cache_inc('n', 1, 0, 'shared')"
                ),
                "(True, True)"
            );
            assert_eq!(
                server.run(2, "uwsgi.cache_get('k', 'shared'), uwsgi.cache_inc('n', 1, 0, 'shared')"),
                "(b'of both', True)"
            );
            assert_eq!(server.run(1, "uwsgi.cache_num('n', 'shared')"), "2");
        }
        // the emperor reloads a vassal whose file was touched: the other one does not notice
        let file = server.dir().join("vassals/v1.ini");
        let begun = || {
            fs::read_to_string(server.dir().join("log1"))
                .unwrap_or_default()
                .matches("spawned uWSGI worker 1")
                .count()
        };
        within("a reload", || {
            if begun() == 1 {
                let text = fs::read(&file).expect("the file is there");
                fs::write(&file, text).expect("the file can be written");
            }
            begun() > 1 && server.run(1, "1 + 1") == "2"
        });
        assert_eq!(server.run(1, "uwsgi.cache_get('k'), uwsgi.cache_get('k', 'kept')"), "(None, b'of 1')");
        assert_eq!(server.run(2, "uwsgi.cache_get('k'), uwsgi.cache_get('k', 'kept')"), "(b'of 2', b'of 2')");
        if flavor == Flavor::Ucache {
            assert_eq!(
                server.run(1, "uwsgi.cache_get('k', 'shared'), uwsgi.cache_num('n', 'shared')"),
                "(b'of both', 2)"
            );
        }
    });
}

use super::*;

fn ok(text: &str) -> Settings {
    parse(text.as_bytes(), Defaults::default()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn err(text: &str) -> String {
    match parse(text.as_bytes(), Defaults::default()) {
        Ok(settings) => panic!("{text} was accepted: {settings:?}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn defaults_are_those_of_uwsgi() {
    let s = ok("name=foo,items=10");
    assert_eq!((s.items, s.blocks, s.blocksize, s.hashsize), (10, 10, 65_536, 65_536));
    assert_eq!(s.hash, Algorithm::Djb33x);
    let native = NativeShape { items: 10, key_size: 2048, blocks: 10, block_size: 65_536, bitmap: false };
    let expected = Config { max_value: 65_536, native: Some(native), ..Config::new("foo", 9) };
    assert_eq!(s.config, expected);
    assert!(s.notes.is_empty() && s.nodes.is_empty() && !s.ignore_full);
}

#[test]
fn huge_pages_are_off_advised_or_reserved() {
    let pages = |value: &str| ok(&format!("name=a,items=5,hugepages={value}")).config.huge_pages;
    assert_eq!(["0", "no", "Off"].map(pages), [HugePages::Off; 3]);
    assert_eq!(["1", "yes", " on"].map(pages), [HugePages::Advised; 3]);
    assert_eq!(
        (pages("reserved"), ok("name=a,items=5").config.huge_pages),
        (HugePages::Reserved, HugePages::Off)
    );
    assert_eq!(err("name=a,items=5,hugepages=2MB"), "option hugepages=2mb: must be 1, reserved or 0");
}

#[test]
fn every_key_and_alias_is_known() {
    for items in ["max_items", "maxitems", "items"] {
        assert_eq!(ok(&format!("name=a,{items}=5")).config.capacity, 4);
    }
    let s = ok(
        "name=a,items=5,blocksize=10,blocks=7,hash=murmur2,hash_size=11,key_size=12,store=/s,storesync=13,\
        storedelete=1,node=h:1;;h:2,sync=h:3,udp=h:4,udp_clear=1,lastmod=1,math_initial=-14,ignore_full=1,lru=1,lazy=1,\
        sweep_on_full=15,clear_on_full=1,no_expire=1,lock_timeout=16,store_guard=1,store_fs=trust,hugepages=reserved",
    );
    assert_eq!((s.blocksize, s.blocks, s.hash, s.hashsize), (10, 7, Algorithm::Murmur2, 11));
    assert_eq!((s.config.max_key, s.store_sync, s.config.math_initial), (12, 13, -14));
    assert!(s.config.store_guard && s.config.huge_pages == HugePages::Reserved);
    assert!(s.config.store_fs_trust && !ok("name=a,items=5").config.store_fs_trust);
    assert_eq!(err("name=a,items=5,store_fs=nfs"), "option store_fs=nfs: must be trust");
    assert_eq!(s.notes, ["option hugepages has no effect on a store: its file system decides"]);
    assert_eq!(s.config.store, Some(Store { path: "/s".into(), delete_unusable: true }));
    assert_eq!(s.nodes, [c"h:1".to_owned(), c"h:2".to_owned()]);
    assert_eq!((s.sync_nodes, s.udp_servers), (vec![c"h:3".to_owned()], vec![c"h:4".to_owned()]));
    assert!(s.udp_clear && !ok("name=a,items=5").udp_clear);
    assert!(s.ignore_full && s.lazy_expire && s.config.last_modified && s.config.clear_on_full);
    assert_eq!((s.config.eviction, s.config.sweep_on_full), (Eviction::Lru, 15));
    assert!(!s.config.no_expire, "lazy_expire wins over no_expire");
    assert_eq!(s.config.lock_timeout, Duration::from_millis(16));
    for alias in [
        "hashsize",
        "keysize",
        "store_sync",
        "store_delete",
        "nodes",
        "udp_servers",
        "udp_server",
        "udpservers",
        "udpserver",
        "purge_lru",
        "lazy_expire",
    ] {
        assert!(ok(&format!("name=a,items=5,{alias}=1")).notes.is_empty(), "{alias}");
    }
}

#[test]
fn one_item_is_a_cache_of_one() {
    assert_eq!(ok("name=a,items=1").config.capacity, 1);
    assert_eq!(ok("name=a,items=2").config.capacity, 1);
    assert_eq!(ok("name=a,items=3").config.capacity, 2);
}

#[test]
fn bitmap_counts_blocks() {
    let s = ok("name=a,items=4,blocks=8,blocksize=2,bitmap=1");
    assert_eq!(s.config.blocks, Some(Blocks { size: 2, count: 8 }));
    assert_eq!(s.config.max_value, 16);
    assert_eq!(ok("name=a,items=4,blocks=100000,blocksize=100000,bitmap=1").config.max_value, MAX_VALUE);
}

#[test]
fn words_for_off_turn_a_flag_off_and_say_so() {
    for off in ["0", "no", "off", "false", "OFF"] {
        let s = ok(&format!("name=a,items=5,purge_lru={off}"));
        assert_eq!(s.config.eviction, Eviction::None, "{off}");
        assert_eq!(s.notes.len(), 1, "{off}");
    }
    for on in ["1", "yes", "", "2", "true"] {
        let s = ok(&format!("name=a,items=5,purge_lru={on}"));
        assert_eq!((s.config.eviction, s.notes.len()), (Eviction::Lru, 0), "{on}");
    }
}

#[test]
fn unknown_options_are_noted_not_fatal() {
    let s = ok("name=a,items=5,max-items=9,wibble=1,bitmap");
    assert_eq!(
        s.notes,
        [
            "unknown option max-items is ignored (meant max_items?)",
            "unknown option wibble is ignored",
            "option bitmap has no value and is ignored",
        ]
    );
    assert_eq!(
        ok("name=a,items=5, blocksize=9").notes,
        ["unknown option  blocksize is ignored (meant blocksize?)"]
    );
}

#[test]
fn bad_values_name_option_value_and_bound() {
    assert_eq!(err("name=a,items=ten"), "option items=ten: must be a number from 1 to 268435455");
    assert_eq!(err("name=a,items=5,blocks=4"), "option blocks=4: must be at least the number of items, 5");
    assert_eq!(err("name=a,items=5,keysize=65536"), "option keysize=65536: must be a number from 1 to 65535");
    for bad in [
        "items=0",
        "items=-1",
        "items=1kb",
        "items=10x",
        "items=1g",
        "items=5,blocksize=4g",
        "items=5,blocksize=1.5m",
        "items=5,store_sync=1w",
        "items=99999999999999999999",
        "items=",
        "items=5,blocksize=0",
        "items=5,blocksize=4294967296",
        "items=5,blocks=0",
        "items=5,keysize=0",
        "items=5,hashsize=0",
        "items=5,hashsize=4294967296",
        "items=5,hash=md5",
        "items=5,math_initial=x",
        "items=5,lock_timeout=0",
        "items=5,sweep_on_full=4294967296",
        "items=5,store_sync=x",
        "items=5,bitmap=1,blocks=4294967296",
    ] {
        let bound = err(&format!("name=a,{bad}"));
        assert!(bound.starts_with("option ") && bound.contains("must be"), "{bad}: {bound}");
    }
    assert_eq!(err("items=5"), "option name=: must be given");
    assert_eq!(err("name=a"), "option items=: must be given");
    assert!(err("name=,items=5").contains("name"));
    assert!(err("name=a@b,items=5").contains('@'));
    assert!(err("name=a\0b,items=5").contains("NUL"));
}

#[test]
fn units_are_read_and_noted() {
    let s =
        ok("name=a,items=1k,blocksize=64K,keysize=1kb,blocks=2k,hashsize=4k,store_sync=5m,sweep_on_full=2m,\
        lock_timeout=2s,store=/s");
    assert_eq!((s.items, s.config.capacity, s.blocks, s.hashsize), (1000, 999, 2000, 4000));
    assert_eq!((s.blocksize, s.config.max_key, s.config.max_value), (65_536, 1024, 65_536));
    assert_eq!((s.store_sync, s.config.sweep_on_full), (300, 120));
    assert_eq!(s.config.lock_timeout, Duration::from_secs(2));
    assert_eq!(s.notes.len(), 8, "{:?}", s.notes);
    assert_eq!(s.ignored, 0);
    assert!(s.notes.contains(&"option blocksize=64K is 65536 (uWSGI's own cache reads it as 64)".to_owned()));
    assert_eq!(ok("name=a,items=1m").config.capacity, 999_999);
    assert_eq!(
        err("name=a,items=10x"),
        "option items=10x: must be a number from 1 to 268435455; unknown unit \"x\" (use k, m or g)"
    );
    assert_eq!(
        err("name=a,items=5,blocksize=5g"),
        "option blocksize=5g: must be a number from 1 to 4294967295"
    );
}

#[test]
fn any_bytes_give_settings_or_an_error() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let words: [&[u8]; 12] = [
        b"name=",
        b"items=",
        b"blocks=",
        b",",
        b"\\",
        b"=",
        b"1",
        b"99999999999",
        b"bitmap=1",
        b"\xff",
        b";",
        b"store=",
    ];
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..seed % 9 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(words[(seed >> 33) as usize % words.len()]);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if let Ok(settings) = parse(&text, Defaults::default()) {
            assert!(settings.config.check().is_ok() && settings.blocks >= settings.items, "{text:?}");
        }
    }
}

//! The import of a native uWSGI store, interrupted after each instruction.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ucache::engine::{Engine, NativeShape};

use super::{
    audit::audit,
    cases::{Case, Held, key, other_len, value},
    opening,
    walk::{Count, pages_of, write_copy},
};
use crate::{engine_image::Image, engine_step::Stepped};

const ITEMS: u32 = 8;
const SHAPE: NativeShape =
    NativeShape { items: 11, key_size: 512, blocks: 11, block_size: 4096, bitmap: false };

/// The file layout of native uWSGI: 11 words and the key of each item, number 0 unused, then the
/// values.
fn native_store() -> Vec<u8> {
    let slot = 88 + usize::try_from(SHAPE.key_size).expect("small");
    let (items, block) = (11 * slot, 4096);
    let mut bytes = vec![0; items + 11 * block];
    for number in 1..=ITEMS {
        let (key, value) = (key(number), value(number, 1, other_len(number)));
        let hash = key.iter().fold(5381, |h: u32, &b| (h << 5).wrapping_add(h) ^ u32::from(b));
        let words = [0, key.len() as u64, u64::from(hash), value.len() as u64, u64::from(number)];
        let at = usize::try_from(number).expect("small") * slot;
        for (n, word) in words.iter().enumerate() {
            bytes[at + n * 8..][..8].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[at + 88..][..key.len()].copy_from_slice(&key);
        let at = items + usize::try_from(number).expect("small") * block;
        bytes[at..][..value.len()].copy_from_slice(&value);
    }
    bytes
}

/// The files of an import: the store, the new one beside it, and the later name of the native one.
struct Files([PathBuf; 3]);

impl Files {
    fn new(dir: &Path) -> Self {
        Self(["store", "store.new", "store.native"].map(|name| dir.join(name)))
    }

    /// The target and length of each name.
    fn look(&self) -> [Option<(u64, u64)>; 3] {
        self.0.each_ref().map(|path| fs::metadata(path).ok().map(|file| (file.ino(), file.len())))
    }

    fn remove(&self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

/// The same files in another place: the native one unchanged, the new one as in the image.
fn copy(names: [Option<(u64, u64)>; 3], native: u64, image: Option<&Image>, bytes: &[u8], to: &Files) {
    let mut native_at: Option<&Path> = None;
    for (name, path) in names.iter().zip(&to.0) {
        match *name {
            None => {}
            Some((ino, _)) if ino == native => {
                // Two names of one file, as between link and rename.
                match native_at {
                    Some(first) => fs::hard_link(first, path).expect("link"),
                    None => fs::write(path, bytes).expect("write"),
                }
                native_at = Some(path);
            }
            Some((_, len)) => {
                let image = image.expect("the new store was seen");
                write_copy(image, &image.bytes, len, path);
            }
        }
    }
    assert!(native_at.is_some(), "the native store has no name left: {names:?}");
}

pub(crate) fn cut_off_anywhere() -> Count {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let (files, copies) = (Files::new(dir.path()), Files::new(&dir.path().join("copy")));
    fs::create_dir(dir.path().join("copy")).expect("create");
    let mut case: Case = opening::case("import of a native store", ITEMS);
    case.config.native = Some(SHAPE);
    assert_eq!(case.after, Held::Nothing, "X is no native item");
    let bytes = native_store();
    let config = opening::on(&case, &files.0[0]);
    // Once completely, to know the pages.
    fs::write(&files.0[0], &bytes).expect("write");
    drop(Engine::create(&config).expect("an import"));
    let pages = pages_of(&files.0[0]);
    files.remove();

    fs::write(&files.0[0], &bytes).expect("write");
    let native = fs::metadata(&files.0[0]).expect("metadata").ino();
    let mut opened: Option<Arc<Engine>> = None;
    let mut child = Stepped::new(|| (), || opened = Engine::create(&config).ok());
    let mut count = Count::default();
    let (mut before, mut image) = (files.look(), None);
    // It reads and validates all of the native store first, without creating or writing a file.
    while files.look() == before {
        assert!(child.next_system_call(), "the import makes no file");
    }
    loop {
        let more = child.step();
        if image.is_none() {
            image = File::open(&files.0[1]).ok().map(|file| Image::new(file, 0, &pages));
        }
        let changed = image.as_mut().is_some_and(Image::look);
        let names = files.look();
        if changed || names != before || !more {
            before = names;
            copy(names, native, image.as_ref(), &bytes, &copies);
            let engine = Engine::create(&opening::on(&case, &copies.0[0]));
            let engine = engine.unwrap_or_else(|e| panic!("instruction {}: {e}", child.steps));
            audit(&case, &engine, 0, &format!("instruction {}", child.steps));
            drop(engine);
            assert!(fs::read(&copies.0[2]).is_ok_and(|kept| kept == bytes), "the native file is not kept");
            copies.remove();
            count.recovered += 1;
        }
        if !more {
            break;
        }
    }
    count.visited = child.steps;
    child.kill();
    assert_ne!(before[0].map(|(ino, _)| ino), Some(native), "the import has not happened");
    count
}

//! The instructions of 64-bit ARM that can stay, and their inverses; the encodings are the
//! assembler's.

#[allow(dead_code, reason = "another machine's rules: the tests use a part")]
#[path = "aarch64.rs"]
mod aarch64;

use super::Step;

fn step(word: u32, arguments: usize) -> Option<Step> {
    aarch64::step(&word.to_le_bytes(), &mut aarch64::scratch(arguments))
}

/// The instruction that undoes `word`; 0 = not needed.
fn undo(word: u32, arguments: usize) -> Option<u32> {
    let step = step(word, arguments)?;
    assert_eq!(step.len, 4);
    Some(step.undo.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

#[test]
fn each_instruction_is_undone_by_its_opposite() {
    let cases = [
        ("stp x29, x30, [sp, #-32]!", 0xa9be_7bfd, 0xa8c2_7bfd),
        ("stp x19, x20, [sp, #-16]!", 0xa9bf_53f3, 0xa8c1_53f3),
        ("stp x29, x30, [sp, #-504]!", 0xa9a0_fbfd, 0),
        ("str x19, [sp, #-16]!", 0xf81f_0ff3, 0xf841_07f3),
        ("sub sp, sp, #0x20", 0xd100_83ff, 0x9100_83ff),
        ("sub sp, sp, #0x1, lsl #12", 0xd140_07ff, 0x9140_07ff),
        ("paciasp", 0xd503_233f, 0xd503_23bf),
        ("pacibsp", 0xd503_237f, 0xd503_23ff),
    ];
    for (text, word, wanted) in cases {
        let found = undo(word, 3);
        if wanted == 0 {
            // ldp x29, x30, [sp], #504 is the longest that can be encoded.
            assert_eq!(found, Some(0xa8df_fbfd), "{text}");
        } else {
            assert_eq!(found, Some(wanted), "{text}");
        }
    }
    // ldp cannot add 512: stp x29, x30, [sp, #-512]!
    assert!(step(0xa9a0_7bfd, 3).is_none());
}

#[test]
fn loads_into_registers_without_arguments_need_nothing() {
    // bti c; cmp w0, #1; adrp x8, .; mov x8, x0; mov w9, #1; ldr x10, [x0, #8]
    for word in [0xd503_245f, 0x7100_041f, 0x9000_0008, 0xaa00_03e8, 0x5280_0029, 0xf940_040a] {
        assert_eq!(undo(word, 8), Some(0), "{word:08x}");
    }
    // mov x2, x1: x2 is an argument of three, but free with two
    assert!(step(0xaa01_03e2, 3).is_none());
    assert_eq!(undo(0xaa01_03e2, 2), Some(0));
    // mov x19, x0; mov x18, x0 (the platform register); cbz x0; b; ret; ldr x8, #8 (relative); str
    // x0, [sp, #8]
    for word in [0xaa00_03f3, 0xaa00_03f2, 0xb400_0040, 0x1400_0001, 0xd65f_03c0, 0x5800_0048, 0xf900_07e0] {
        assert!(step(word, 2).is_none(), "{word:08x}");
    }
}

#[test]
fn a_register_that_was_saved_is_free() {
    let mut scratch = aarch64::scratch(1);
    // mov x19, x0 before and after stp x19, x20, [sp, #-16]!
    let mov = 0xaa00_03f3_u32.to_le_bytes();
    assert!(aarch64::step(&mov, &mut scratch).is_none());
    assert!(aarch64::step(&0xa9bf_53f3_u32.to_le_bytes(), &mut scratch).is_some());
    assert!(aarch64::step(&mov, &mut scratch).is_some());
}

#[test]
fn branches_are_the_assembler_s() {
    // ldr x16, #8; br x16; the address
    let far = [0x50, 0, 0, 0x58, 0, 0x02, 0x1f, 0xd6, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    assert_eq!(aarch64::branch(0x1122_3344_5566_7788), far);
    assert_eq!(far.len(), aarch64::BRANCH);
    let near = |from, to| aarch64::near_branch(from, to).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
    assert_eq!(near(0x1000, 0x1008), Some(0x1400_0002));
    assert_eq!(near(0x1008, 0x1000), Some(0x17ff_fffe));
    assert_eq!(near(0, (1 << 27) - 4), Some(0x15ff_ffff));
    assert_eq!([near(0, 1 << 27), near(0x1000, 0x1006), near(0, 1 << 40)], [None; 3]);
}

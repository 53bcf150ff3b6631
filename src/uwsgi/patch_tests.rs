//! Tests with real machine code on scratch pages, written by both methods.

use std::{io::Write, os::fd::AsRawFd, slice};

use super::*;

#[cfg(target_arch = "x86_64")]
mod machine {
    /// endbr64; mov eax, 1; ret
    pub(super) const ONE: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 1, 0, 0, 0, 0xc3];
    /// mov eax, 1; ret
    pub(super) const PLAIN_ONE: &[u8] = &[0xb8, 1, 0, 0, 0, 0xc3];
    /// Kept length of each: both instructions, and the only one before `ret`.
    pub(super) const KEPT: [usize; 2] = [9, 5];
    pub(super) const JUMP: usize = 12;
    pub(super) const NEAR_JUMP: usize = 5;
    pub(super) const INT3: &[u8] = &[0xcc];
}
#[cfg(target_arch = "aarch64")]
mod machine {
    /// bti c; mov w0, #1; ret
    pub(super) const ONE: &[u8] = &[0x5f, 0x24, 0x03, 0xd5, 0x20, 0, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
    /// mov w0, #1; ret
    pub(super) const PLAIN_ONE: &[u8] = &[0x20, 0, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
    /// Kept length of each.
    pub(super) const KEPT: [usize; 2] = [8, 4];
    pub(super) const JUMP: usize = 16;
    pub(super) const NEAR_JUMP: usize = 4;
    /// brk #0
    pub(super) const INT3: &[u8] = &[0, 0, 0x20, 0xd4];
}
use machine::{INT3, JUMP, KEPT, NEAR_JUMP, ONE, PLAIN_ONE};

/// Program text that returns 1, in a mapping of its own: private like a program's, or shared and
/// read-only, which neither method can write to.
fn function(code: &[u8], shared: bool) -> usize {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[code, &vec![0; 4096 - code.len()]].concat()).unwrap();
    let read_only = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new mapping, never unmapped, of a file that nobody truncates.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, read_only.as_raw_fd(), 0) };
    assert_ne!(page, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    page as usize
}

fn call(address: usize) -> i32 {
    // SAFETY: `function` put a function of this type there.
    let f = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address) };
    f()
}

extern "C" fn two() -> i32 {
    2
}

fn redirect(name: &'static str, address: usize, size: usize) -> Redirect {
    let from = Symbol { address, size };
    Redirect { name, from, file: None, arguments: 0, to: two as *const () as usize }
}

fn bytes(redirect: &Redirect) -> Vec<u8> {
    // SAFETY: functions of these tests, never unmapped.
    unsafe { code(redirect.from) }
}

#[test]
fn a_patched_function_runs_the_other_and_keeps_its_first_instruction() {
    let (with_pad, plain) = (function(ONE, false), function(PLAIN_ONE, false));
    assert_eq!((call(with_pad), call(plain)), (1, 1));
    let list = [redirect("a", with_pad, KEPT[0] + JUMP), redirect("b", plain, KEPT[1] + JUMP)];
    // SAFETY: functions of this test only.
    let (writer, patches) = unsafe { apply(&list) }.unwrap();
    assert_eq!(writer.name(), "/proc/self/mem");
    assert_eq!((call(with_pad), call(plain)), (2, 2));
    assert_eq!(bytes(&list[0])[..KEPT[0]], ONE[..KEPT[0]]);
    assert_eq!(bytes(&list[1])[..KEPT[1]], PLAIN_ONE[..KEPT[1]]);
    // SAFETY: as above.
    assert!(patches.iter().all(|patch| unsafe { patch.stands() }));
    // A second copy of the library notices the jump of the first, with or without the program's
    // file.
    let file = [PLAIN_ONE, &[0; 4096]].concat()[..KEPT[1] + JUMP].to_vec();
    for file in [None, Some(file)] {
        // SAFETY: as above.
        let again = unsafe { apply(&[Redirect { file, ..list[1].clone() }]) }.unwrap_err();
        assert!(again.contains("b is redirected already"), "{again}");
    }
    // SAFETY: as above.
    unsafe { writer.write(plain + KEPT[1], &[0; 4]) }.unwrap();
    // SAFETY: as above.
    assert_eq!(patches.iter().map(|patch| unsafe { patch.stands() }).collect::<Vec<_>>(), [true, false]);
}

/// Three functions on one page: one with space for veneers, two that can keep their first
/// instruction only with one.
#[test]
fn a_short_function_keeps_its_first_instruction_by_a_veneer() {
    const APART: usize = 256;
    const LONG: usize = 100;
    let mut page = vec![0; 3 * APART];
    for at in [0, APART, 2 * APART] {
        page[at..at + PLAIN_ONE.len()].copy_from_slice(PLAIN_ONE);
    }
    let start = function(&page, false);
    let short = KEPT[1] + JUMP - 1;
    assert!(short >= KEPT[1] + NEAR_JUMP && short >= JUMP);
    let list = [
        redirect("short", start, short),
        redirect("long", start + APART, LONG),
        redirect("last", start + 2 * APART, short),
    ];
    // SAFETY: functions of this test only.
    let (writer, patches) = unsafe { apply(&list) }.unwrap();
    assert_eq!(patches.len(), list.len());
    let veneers: Vec<usize> = patches.iter().map(|patch| patch.writes.len() - 1).collect();
    assert_eq!(veneers, [1, 0, 1]);
    for redirect in &list {
        assert_eq!(call(redirect.from.address), 2);
        assert_eq!(bytes(redirect)[..KEPT[1]], PLAIN_ONE[..KEPT[1]]);
    }
    // Only the functions were written, and no veneer into another function's code.
    let places = |patch: &Patch| patch.writes.iter().map(|w| (w.address, w.after.len())).collect::<Vec<_>>();
    let mut all: Vec<(usize, usize)> = patches.iter().flat_map(places).collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "{all:x?}");
    let inside = |&(at, len): &(usize, usize)| {
        list.iter().any(|r| r.from.address <= at && at + len <= r.from.address + r.from.size)
    };
    assert!(all.iter().all(inside), "{all:x?}");
    // A second copy of the library, and an overwritten veneer.
    // SAFETY: as above.
    let again = unsafe { apply(&list) }.unwrap_err();
    assert!(again.contains("is redirected already"), "{again}");
    // SAFETY: as above.
    unsafe { writer.write(patches[0].writes[0].address, &[0; 4]) }.unwrap();
    // SAFETY: as above.
    let stand: Vec<bool> = patches.iter().map(|patch| unsafe { patch.stands() }).collect();
    assert_eq!(stand, [false, true, true]);
}

#[test]
fn a_breakpoint_on_a_short_function_is_left_there() {
    let start = function(&[PLAIN_ONE, &[0; 256 - PLAIN_ONE.len()], PLAIN_ONE].concat(), false);
    let file = [PLAIN_ONE, &[0; 256]].concat()[..KEPT[1] + JUMP - 1].to_vec();
    let short = Redirect { file: Some(file.clone()), ..redirect("short", start, file.len()) };
    // SAFETY: functions of this test only.
    let writer = unsafe { Writer::choose(start, PLAIN_ONE) }.unwrap();
    // SAFETY: as above.
    unsafe { writer.write(start, INT3) }.unwrap();
    let list = [short, redirect("long", start + 256, 100)];
    // SAFETY: as above.
    unsafe { apply(&list) }.unwrap();
    assert_eq!(bytes(&list[0])[..INT3.len()], *INT3);
    // SAFETY: as above.
    unsafe { writer.write(start, &file[..INT3.len()]) }.unwrap();
    assert_eq!(call(start), 2);
}

#[test]
fn a_breakpoint_on_kept_code_stays() {
    let file = [ONE, &[0; 4096]].concat()[..64].to_vec();
    // On the landing pad, where the kernel sets probes, and behind it, where gdb sets breakpoints.
    for at in [0, 4] {
        let mut observed = file.clone();
        observed[at..at + INT3.len()].copy_from_slice(INT3);
        let address = function(&observed, false);
        let redirect = Redirect { file: Some(file.clone()), ..redirect("a", address, 64) };
        // SAFETY: functions of this test only.
        let (writer, _) = unsafe { apply(slice::from_ref(&redirect)) }.unwrap();
        assert_eq!(bytes(&redirect)[at..at + INT3.len()], *INT3);
        // An observer restores the file's bytes when it detaches.
        // SAFETY: as above.
        unsafe { writer.write(address + at, &file[at..at + INT3.len()]) }.unwrap();
        assert_eq!(call(address), 2);
    }
}

#[test]
fn a_breakpoint_on_overwritten_code_is_reported() {
    let all = [&[INT3, ONE].concat()[..], &[0; 4096]].concat()[..64].to_vec();
    let address = function(&all, false);
    // SAFETY: functions of this test only.
    let why = unsafe { apply(&[redirect("observed", address, 64)]) }.unwrap_err();
    assert!(why.starts_with("a breakpoint is set in observed: "), "{why}");
    // Behind all code that can be undone.
    let file = [ONE, &[0; 4096]].concat()[..64].to_vec();
    let mut observed = file.clone();
    observed[KEPT[0]..KEPT[0] + INT3.len()].copy_from_slice(INT3);
    let redirect = Redirect { file: Some(file), ..redirect("a", function(&observed, false), 64) };
    // SAFETY: as above.
    let why = unsafe { apply(slice::from_ref(&redirect)) }.unwrap_err();
    assert!(why.starts_with("a breakpoint is set in a: "), "{why}");
    assert_eq!(bytes(&redirect), observed);
}

#[test]
fn mprotect_does_the_same() {
    let address = function(ONE, false);
    probe_mprotect().unwrap();
    let bytes = Jump::new(ONE, 0, 0, two as *const () as usize).bytes;
    // SAFETY: a function of this test only.
    unsafe { Writer::Mprotect.write(address, &bytes) }.unwrap();
    assert_eq!(call(address), 2);
}

#[test]
fn a_function_too_short_for_a_jump_leaves_all_alone() {
    let (long, short) = (function(ONE, false), function(ONE, false));
    let list = [redirect("long", long, 32), redirect("short", short, JUMP - 1)];
    // SAFETY: functions of this test only.
    let why = unsafe { apply(&list) }.unwrap_err();
    assert!(why.contains(&format!("short has {} bytes, a jump needs {JUMP}", JUMP - 1)), "{why}");
    assert_eq!(call(long), 1);
}

#[test]
fn a_function_that_cannot_be_written_leaves_all_alone() {
    let (first, sealed) = (function(ONE, false), function(ONE, true));
    let list = [redirect("first", first, 32), redirect("sealed", sealed, 32)];
    // SAFETY: functions of this test only.
    let why = unsafe { apply(&list) }.unwrap_err();
    assert!(why.starts_with("sealed: "), "{why}");
    assert_eq!((call(first), call(sealed)), (1, 1));
    // SAFETY: as above.
    assert_eq!(unsafe { code(Symbol { address: first, size: ONE.len() }) }, ONE);
}

/// Pages of programs built with BTI accept indirect branches at landing pads only.
#[cfg(target_arch = "aarch64")]
#[test]
fn a_guarded_page_lets_calls_into_a_patched_function() {
    const PROT_BTI: i32 = 0x10;
    const HWCAP2_BTI: u64 = 1 << 17;
    // paciasp; mov w0, #1; autiasp; ret
    const SIGNED_ONE: &[u8] =
        &[0x3f, 0x23, 0x03, 0xd5, 0x20, 0, 0x80, 0x52, 0xbf, 0x23, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6];
    for one in [ONE, SIGNED_ONE] {
        let address = function(one, false);
        // SAFETY: no preconditions.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_BTI != 0 {
            protect(address, 4096, libc::PROT_READ | libc::PROT_EXEC | PROT_BTI).unwrap();
        }
        assert_eq!(call(address), 1);
        // SAFETY: a function of this test only.
        unsafe { apply(&[redirect("guarded", address, 64)]) }.unwrap();
        assert_eq!(call(address), 2);
    }
}

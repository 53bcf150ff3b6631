//! Real machine code on scratch pages, written in both ways.

use std::{io::Write, os::fd::AsRawFd};

use super::*;

#[cfg(target_arch = "x86_64")]
mod machine {
    /// endbr64; mov eax, 1; ret
    pub(super) const ONE: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 1, 0, 0, 0, 0xc3];
    /// mov eax, 1; ret
    pub(super) const PLAIN_ONE: &[u8] = &[0xb8, 1, 0, 0, 0, 0xc3];
    pub(super) const PAD: usize = 4;
    pub(super) const JUMP: usize = 14;
}
#[cfg(target_arch = "aarch64")]
mod machine {
    /// bti c; mov w0, #1; ret
    pub(super) const ONE: &[u8] = &[0x5f, 0x24, 0x03, 0xd5, 0x20, 0, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
    /// mov w0, #1; ret
    pub(super) const PLAIN_ONE: &[u8] = &[0x20, 0, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
    pub(super) const PAD: usize = 4;
    pub(super) const JUMP: usize = 16;
}
use machine::{JUMP, ONE, PAD, PLAIN_ONE};

/// Program text that returns 1, in a mapping of its own: private like a program's, or shared and read-only, which
/// neither way of writing gets past.
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
    Redirect { name, from: Symbol { address, size }, to: two as *const () as usize }
}

#[test]
fn a_patched_function_runs_the_other_and_keeps_its_landing_pad() {
    let (with_pad, plain) = (function(ONE, false), function(PLAIN_ONE, false));
    assert_eq!((call(with_pad), call(plain)), (1, 1));
    let list = [redirect("a", with_pad, PAD + JUMP), redirect("b", plain, JUMP)];
    // SAFETY: functions of this test only.
    let writer = unsafe { apply(&list) }.unwrap();
    assert_eq!(writer.name(), "/proc/self/mem");
    assert_eq!((call(with_pad), call(plain)), (2, 2));
    // SAFETY: as above.
    let code = |r: &Redirect| unsafe { code(r.from) };
    assert_eq!(code(&list[0])[..PAD], ONE[..PAD]);
    assert!(list.iter().all(|r| leads_to(&code(r), r.to) && !leads_to(&code(r), r.to + 1)));
    // A second copy of the library would find the jump of the first.
    // SAFETY: as above.
    let again = unsafe { apply(&list[1..]) }.unwrap_err();
    assert!(again.contains("b is redirected already"), "{again}");
}

#[test]
fn mprotect_does_the_same() {
    let address = function(ONE, false);
    probe_mprotect().unwrap();
    let bytes = jump(ONE, two as *const () as usize);
    // SAFETY: a function of this test only.
    unsafe { Writer::Mprotect.write(address, &bytes) }.unwrap();
    assert_eq!(call(address), 2);
}

#[test]
fn a_function_too_short_for_a_jump_leaves_all_alone() {
    let (long, short) = (function(ONE, false), function(ONE, false));
    let list = [redirect("long", long, 32), redirect("short", short, PAD + JUMP - 1)];
    // SAFETY: functions of this test only.
    let why = unsafe { apply(&list) }.unwrap_err();
    assert!(
        why.contains(&format!("short has {} bytes, a jump needs {}", PAD + JUMP - 1, PAD + JUMP)),
        "{why}"
    );
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

/// Pages of programs that are built for it let indirect branches arrive at landing pads only.
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

//! Makes functions of the running program jump elsewhere: all of them, or none.

use std::{fs::File, io, os::unix::fs::FileExt, ptr};

use super::elf::Symbol;

/// One function to redirect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redirect {
    pub(crate) name: &'static str,
    /// The function whose first bytes become a jump.
    pub(crate) from: Symbol,
    /// Where it jumps to.
    pub(crate) to: usize,
}

/// Machine code of a jump to any address, put over the first bytes of a function that starts with `code`. A landing
/// pad for indirect branches (`endbr64`, `bti c`) stays one. It clobbers nothing that the calling convention keeps.
#[cfg(target_arch = "x86_64")]
fn jump(code: &[u8], to: usize) -> Vec<u8> {
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let pad: &[u8] = if code.starts_with(&ENDBR64) { &ENDBR64 } else { &[] };
    // jmp *0(%rip), followed by the address. The target needs no endbr64 of its own: the loader switches indirect
    // branch tracking off for a process in which one object (any Rust library) is not built for it.
    [pad, &[0xff, 0x25, 0, 0, 0, 0], &to.to_le_bytes()].concat()
}

/// As above. `paciasp` counts as a landing pad, so it is replaced by one.
#[cfg(target_arch = "aarch64")]
fn jump(code: &[u8], to: usize) -> Vec<u8> {
    const BTI_C: [u8; 4] = 0xd503_245f_u32.to_le_bytes();
    const PACIASP: [u8; 4] = 0xd503_233f_u32.to_le_bytes();
    let pad: &[u8] = if code.starts_with(&BTI_C) || code.starts_with(&PACIASP) { &BTI_C } else { &[] };
    // ldr x16, #8; br x16, followed by the address. x16 is the register that linkers use for the same purpose.
    let (ldr, br) = (0x5800_0050_u32.to_le_bytes(), 0xd61f_0200_u32.to_le_bytes());
    [pad, &ldr, &br, &to.to_le_bytes()].concat()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the takeover knows x86-64 and aarch64");

/// Whether `code` starts with a jump made here, to anywhere.
fn is_jump(code: &[u8]) -> bool {
    let any = jump(code, 0);
    code.starts_with(&any[..any.len() - size_of::<usize>()])
}

/// Whether `code` starts with a jump made here to `to`.
pub(crate) fn leads_to(code: &[u8], to: usize) -> bool {
    code.starts_with(&jump(code, to))
}

/// The bytes of a function, read one by one: another writer may be at work.
///
/// # Safety
/// `from` is a mapped, readable function of that size.
pub(crate) unsafe fn code(from: Symbol) -> Vec<u8> {
    // SAFETY: the caller's promise.
    (0..from.size).map(|i| unsafe { ptr::read_volatile((from.address as *const u8).add(i)) }).collect()
}

/// Redirects every function of `list`, reads the result back, and says how it was written. On an error nothing is
/// changed.
///
/// # Safety
/// The addresses are functions of this process, with at least the size given, and no thread is inside one of them
/// or enters one before this returns. What they jump to has the same signature.
pub(crate) unsafe fn apply(list: &[Redirect]) -> Result<Writer, String> {
    let mut plan = Vec::with_capacity(list.len());
    for redirect in list {
        // SAFETY: the caller's promise.
        let before = unsafe { code(redirect.from) };
        if is_jump(&before) {
            return Err(format!(
                "{} is redirected already: is another copy of ucache loaded?",
                redirect.name
            ));
        }
        let after = jump(&before, redirect.to);
        if before.len() < after.len() {
            let (name, has, needs) = (redirect.name, before.len(), after.len());
            return Err(format!("{name} has {has} bytes, a jump needs {needs}"));
        }
        plan.push((redirect.name, redirect.from.address, before[..after.len()].to_vec(), after));
    }
    let Some((_, address, before, _)) = plan.first() else { return Err("nothing to redirect".into()) };
    // SAFETY: writes the bytes that are there.
    let writer = unsafe { Writer::choose(*address, before) }?;
    let written = plan.iter().try_for_each(|(name, address, _, after)| {
        // SAFETY: the range was checked against the function's size; the caller keeps threads out.
        unsafe { writer.write(*address, after) }.map_err(|e| format!("{name}: {e}"))?;
        let (address, size) = (*address, after.len());
        // SAFETY: just written.
        if unsafe { code(Symbol { address, size }) } == *after {
            Ok(())
        } else {
            Err(format!("{name}: reads back otherwise"))
        }
    });
    if let Err(why) = written {
        for (_, address, before, _) in &plan {
            // SAFETY: puts the original bytes back. What cannot be put back was not writable in the first place.
            let _ = unsafe { writer.write(*address, before) };
        }
        return Err(why);
    }
    Ok(writer)
}

/// A way to write to program text.
#[derive(Debug)]
pub(crate) enum Writer {
    /// `/proc/self/mem`: the kernel writes, page protections stay as they are. Works where a process may not make
    /// its own pages executable (systemd's MemoryDenyWriteExecute, PR_SET_MDWE).
    ProcMem(File),
    /// `mprotect` to writable and back.
    Mprotect,
}

impl Writer {
    /// The first way that works, tried by writing `same`, which is what `address` holds.
    ///
    /// # Safety
    /// `address` is program text that holds `same`.
    unsafe fn choose(address: usize, same: &[u8]) -> Result<Self, String> {
        // SAFETY: the caller's promise.
        let proc_mem = match unsafe { Self::proc_mem(address, same) } {
            Ok(writer) => return Ok(writer),
            Err(e) => e,
        };
        match probe_mprotect() {
            Ok(()) => Ok(Self::Mprotect),
            Err(e) => Err(format!(
                "program text cannot be written: /proc/self/mem: {proc_mem}; mprotect: {e}. Allow one of them: mount \
                 /proc (and do not set proc_mem.force_override=never), or drop MemoryDenyWriteExecute"
            )),
        }
    }

    /// # Safety
    /// As for [`Writer::choose`].
    unsafe fn proc_mem(address: usize, same: &[u8]) -> io::Result<Self> {
        let writer = Self::ProcMem(File::options().read(true).write(true).open("/proc/self/mem")?);
        // SAFETY: the bytes do not change.
        unsafe { writer.write(address, same)? };
        Ok(writer)
    }

    /// # Safety
    /// `address..address + bytes.len()` is program text, in which no thread is.
    unsafe fn write(&self, address: usize, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::ProcMem(file) => file.write_all_at(bytes, address as u64)?,
            Self::Mprotect => {
                let page = page_size();
                let start = address / page * page;
                let len = (address + bytes.len()).next_multiple_of(page) - start;
                // Executable throughout: other functions of these pages may be running, this one is not.
                protect(start, len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
                for (i, byte) in bytes.iter().enumerate() {
                    // SAFETY: writable since the call above.
                    unsafe { ptr::write_volatile((address as *mut u8).add(i), *byte) };
                }
                protect(start, len, libc::PROT_READ | libc::PROT_EXEC)?;
            }
        }
        flush_instructions(address, bytes.len());
        Ok(())
    }

    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ProcMem(_) => "/proc/self/mem",
            Self::Mprotect => "mprotect",
        }
    }
}

fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn protect(start: usize, len: usize, protection: i32) -> io::Result<()> {
    // SAFETY: keeps the pages mapped, readable and executable; nobody relies on their being read-only.
    match unsafe { libc::mprotect(start as *mut libc::c_void, len, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Goes through the whole change of protections on a page that nobody uses, so that a refusal half-way cannot leave
/// program text without its execute permission.
fn probe_mprotect() -> io::Result<()> {
    let len = page_size();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let address = page as usize;
    // SAFETY: our own page, nothing runs in it.
    let result = unsafe { Writer::Mprotect.write(address, &[0; 16]) };
    // SAFETY: mapped above, used by nobody.
    unsafe { libc::munmap(page, len) };
    result
}

/// x86-64 sees its own stores to code; this thread is the only one that may run it soon.
#[cfg(target_arch = "x86_64")]
fn flush_instructions(_address: usize, _len: usize) {}

/// Data cache to the point of unification, then the instruction cache, line by line (smallest line: 16 bytes).
#[cfg(target_arch = "aarch64")]
fn flush_instructions(address: usize, len: usize) {
    let lines = || (address & !15..address + len).step_by(16);
    // SAFETY: cache maintenance on mapped addresses changes no data.
    unsafe {
        for line in lines() {
            std::arch::asm!("dc cvau, {0}", in(reg) line, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", options(nostack, preserves_flags));
        for line in lines() {
            std::arch::asm!("ic ivau, {0}", in(reg) line, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;

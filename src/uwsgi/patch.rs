//! Makes functions of the running program jump elsewhere: all of them, or none.

use std::{fs::File, io, os::unix::fs::FileExt, ptr};

use super::{
    elf::Symbol,
    jump::{BREAKPOINT, Jump, breakpoint},
};

/// One function to redirect.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    pub(crate) name: &'static str,
    /// The function whose first bytes become a jump.
    pub(crate) from: Symbol,
    /// Its bytes in the program's file; `None` = unknown.
    pub(crate) file: Option<Vec<u8>>,
    /// How many arguments it has.
    pub(crate) arguments: usize,
    /// Where it jumps to.
    pub(crate) to: usize,
}

/// What was written where.
#[derive(Debug)]
pub(crate) struct Patch {
    /// The function's name.
    pub(crate) name: &'static str,
    address: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Redirect {
    /// The jump to write, over what is `now` there. The function's first bytes are left alone, and with them a
    /// breakpoint that somebody has set there: it goes on working, and may be removed at any time.
    fn plan(&self, now: &[u8]) -> Result<Patch, String> {
        let name = self.name;
        let file = self.file.as_deref().filter(|file| file.len() == now.len()).unwrap_or(now);
        let unlike = |at: &usize| now[*at..].iter().zip(&file[*at..]).take(BREAKPOINT).any(|(a, b)| a != b);
        let mut until = 0;
        let jump = loop {
            let jump = Jump::new(file, self.arguments, until, self.to);
            if now.len() < jump.len() {
                return Err(format!("{name} has {} bytes, a jump needs {}", now.len(), jump.len()));
            }
            let changed: Vec<usize> = (0..jump.len()).step_by(BREAKPOINT).filter(unlike).collect();
            if changed.iter().any(|&at| !breakpoint(&now[at..])) || jump.is_in(now) {
                return Err(format!("{name} is redirected already: is another copy of ucache loaded?"));
            }
            match changed.last().copied().filter(|&at| at >= jump.keeps) {
                None if [0, jump.keeps].iter().any(|&at| breakpoint(&file[at..])) => {}
                None => break jump,
                Some(at) if at > until => {
                    until = at;
                    continue;
                }
                Some(_) => {}
            }
            return Err(format!("a breakpoint is on {name}: set it when uWSGI has started"));
        };
        let before = now[jump.keeps..jump.len()].to_vec();
        Ok(Patch { name, address: self.from.address + jump.keeps, before, after: jump.bytes })
    }
}

impl Patch {
    /// Whether the jump is still there.
    ///
    /// # Safety
    /// The function is still mapped.
    pub(crate) unsafe fn stands(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { code(Symbol { address: self.address, size: self.after.len() }) == self.after }
    }
}

/// The bytes of a function, read one by one: another writer may be at work.
///
/// # Safety
/// `from` is a mapped, readable function of that size.
unsafe fn code(from: Symbol) -> Vec<u8> {
    // SAFETY: the caller's promise.
    (0..from.size).map(|i| unsafe { ptr::read_volatile((from.address as *const u8).add(i)) }).collect()
}

/// Redirects every function of `list`, reads the result back, and says how it was written. On an error nothing is
/// changed.
///
/// # Safety
/// The addresses are functions of this process, with at least the size given, and no thread is inside one of them
/// or enters one before this returns. What they jump to has the same signature.
pub(crate) unsafe fn apply(list: &[Redirect]) -> Result<(Writer, Vec<Patch>), String> {
    // SAFETY: the caller's promise.
    let plan = list.iter().map(|redirect| redirect.plan(&unsafe { code(redirect.from) }));
    let plan = plan.collect::<Result<Vec<Patch>, String>>()?;
    let Some(first) = plan.first() else { return Err("nothing to redirect".into()) };
    // SAFETY: writes the bytes that are there.
    let writer = unsafe { Writer::choose(first.address, &first.before) }?;
    let written = plan.iter().try_for_each(|patch| {
        // SAFETY: the range was checked against the function's size; the caller keeps threads out.
        unsafe { writer.write(patch.address, &patch.after) }.map_err(|e| format!("{}: {e}", patch.name))?;
        // SAFETY: just written.
        let stands = unsafe { patch.stands() };
        if stands { Ok(()) } else { Err(format!("{}: reads back otherwise", patch.name)) }
    });
    if let Err(why) = written {
        for patch in &plan {
            // SAFETY: puts the original bytes back. What cannot be put back was not writable in the first place.
            let _ = unsafe { writer.write(patch.address, &patch.before) };
        }
        return Err(why);
    }
    Ok((writer, plan))
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

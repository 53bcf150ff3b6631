//! Redirects functions of the running program: all of them, or none.

use std::{fs::File, io, os::unix::fs::FileExt, ptr};

use super::{
    elf::Symbol,
    jump::{BREAKPOINT, Jump, VENEER, breakpoint, veneer},
};
use crate::os::page::page_size;

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

/// What is written for one function.
#[derive(Debug)]
pub(crate) struct Patch {
    /// The function's name.
    pub(crate) name: &'static str,
    /// Length of its start that stays.
    keeps: usize,
    /// If there is a veneer, it comes before the branch to it.
    writes: Vec<Write>,
}

/// One replacement of bytes.
#[derive(Debug)]
struct Write {
    address: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Redirect {
    /// Plans the jump over the bytes `now`. The function's first bytes stay, and with them any
    /// breakpoint there: it keeps working and may be removed at any time.
    fn plan(&self, now: &[u8]) -> Result<Patch, String> {
        self.plan_with(now, |file, until| Some(Jump::new(file, self.arguments, until, self.to)))
    }

    /// The same through a veneer at this address.
    fn plan_near(&self, now: &[u8], veneer: usize) -> Result<Patch, String> {
        let from = self.from.address;
        self.plan_with(now, |file, until| Jump::near(file, self.arguments, until, from, veneer))
    }

    /// The function's bytes in the file, or else those in memory.
    fn file<'a>(&'a self, now: &'a [u8]) -> &'a [u8] {
        self.file.as_deref().filter(|file| file.len() == now.len()).unwrap_or(now)
    }

    fn plan_with(&self, now: &[u8], make: impl Fn(&[u8], usize) -> Option<Jump>) -> Result<Patch, String> {
        let name = self.name;
        let file = self.file(now);
        let unlike = |at: &usize| now[*at..].iter().zip(&file[*at..]).take(BREAKPOINT).any(|(a, b)| a != b);
        let mut until = 0;
        let jump = loop {
            let jump = make(file, until).ok_or_else(|| format!("{name} is too far from every veneer"))?;
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
            return Err(format!("a breakpoint is set in {name}: set it after uWSGI has started"));
        };
        let before = now[jump.keeps..jump.len()].to_vec();
        let write = Write { address: self.from.address + jump.keeps, before, after: jump.bytes };
        Ok(Patch { name, keeps: jump.keeps, writes: vec![write] })
    }
}

impl Patch {
    /// The address behind the last byte that is written.
    fn end(&self) -> Option<usize> {
        self.writes.iter().map(|write| write.address + write.after.len()).max()
    }

    /// Whether the jump is still in place.
    ///
    /// # Safety
    /// The function is still mapped.
    pub(crate) unsafe fn stands(&self) -> bool {
        self.writes.iter().all(|write| {
            let place = Symbol { address: write.address, size: write.after.len() };
            // SAFETY: the caller's contract; a veneer is in another function of the list.
            unsafe { code(place) == write.after }
        })
    }
}

/// The bytes of a function, read one by one: another thread may be writing them.
///
/// # Safety
/// `from` is a mapped, readable function of that size.
unsafe fn code(from: Symbol) -> Vec<u8> {
    // SAFETY: the caller's contract.
    (0..from.size).map(|i| unsafe { ptr::read_volatile((from.address as *const u8).add(i)) }).collect()
}

/// Redirects every function of `list`, reads the result back, and returns how it was written. On an
/// error nothing is changed.
///
/// # Safety
/// The addresses are functions of this process with at least the given sizes; no thread is inside
/// one of them or enters one before this returns. Their targets have the same signatures.
pub(crate) unsafe fn apply(list: &[Redirect]) -> Result<(Writer, Vec<Patch>), String> {
    // SAFETY: the caller's contract.
    let codes: Vec<Vec<u8>> = list.iter().map(|redirect| unsafe { code(redirect.from) }).collect();
    let mut plan: Vec<_> = list.iter().zip(&codes).map(|(redirect, now)| redirect.plan(now)).collect();
    use_veneers(list, &codes, &mut plan);
    let plan = plan.into_iter().collect::<Result<Vec<Patch>, String>>()?;
    let Some(first) = plan.first().and_then(|patch| patch.writes.first()) else {
        return Err("nothing to redirect".into());
    };
    // SAFETY: writes the bytes that are already there.
    let writer = unsafe { Writer::choose(first.address, &first.before) }?;
    let written = plan.iter().try_for_each(|patch| {
        for write in &patch.writes {
            // SAFETY: the range was checked against the function's size; the caller keeps threads
            // out.
            unsafe { writer.write(write.address, &write.after) }
                .map_err(|e| format!("{}: {e}", patch.name))?;
        }
        // SAFETY: just written.
        let stands = unsafe { patch.stands() };
        if stands {
            Ok(())
        } else {
            Err(format!("{}: the bytes read back differ from those written", patch.name))
        }
    });
    if let Err(why) = written {
        for write in plan.iter().flat_map(|patch| &patch.writes) {
            // SAFETY: restores the original bytes. If that fails, they were not writable in the
            // first place.
            let _ = unsafe { writer.write(write.address, &write.before) };
        }
        return Err(why);
    }
    Ok((writer, plan))
}

/// Gives functions that are too short to keep their first instruction a short branch to a veneer.
/// Veneers lie at the end of the longest function, which its own jump leaves unused.
fn use_veneers(list: &[Redirect], codes: &[Vec<u8>], plan: &mut [Result<Patch, String>]) {
    let Some(host) = (0..list.len()).max_by_key(|&i| codes[i].len()) else { return };
    let (start, now) = (list[host].from.address, &codes[host]);
    let Ok(Some(lowest)) = plan[host].as_ref().map(Patch::end) else { return };
    let mut end = start + now.len();
    for i in (0..list.len()).filter(|&i| i != host) {
        let at = end.saturating_sub(VENEER) & !7;
        // With a breakpoint on its first instruction there was no plan at all.
        if plan[i].as_ref().is_ok_and(|patch| patch.keeps > 0) || at < lowest {
            continue;
        }
        let bytes = at - start..at - start + VENEER;
        let Ok(mut patch) = list[i].plan_near(&codes[i], at) else { continue };
        // Veneers must not overwrite a breakpoint.
        if patch.keeps == 0 || now[bytes.clone()] != list[host].file(now)[bytes.clone()] {
            continue;
        }
        let after = veneer(list[i].to);
        patch.writes.insert(0, Write { address: at, before: now[bytes].to_vec(), after });
        plan[i] = Ok(patch);
        end = at;
    }
}

/// A way to write to program text.
#[derive(Debug)]
pub(crate) enum Writer {
    /// `/proc/self/mem`: the kernel writes, and page protections stay unchanged. Works where a
    /// process may not make its own pages executable (systemd's MemoryDenyWriteExecute,
    /// PR_SET_MDWE).
    ProcMem(File),
    /// `mprotect` to writable and back.
    Mprotect,
}

impl Writer {
    /// The first way that works, tried by writing `same`, the current content of `address`.
    ///
    /// # Safety
    /// `address` is program text that holds `same`.
    unsafe fn choose(address: usize, same: &[u8]) -> Result<Self, String> {
        // SAFETY: the caller's contract.
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
        // SAFETY: the bytes written equal those present.
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
                // Keep it executable: other functions on these pages may be running.
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

    /// Its name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ProcMem(_) => "/proc/self/mem",
            Self::Mprotect => "mprotect",
        }
    }
}

fn protect(start: usize, len: usize, protection: i32) -> io::Result<()> {
    // SAFETY: the pages stay mapped, readable and executable; no code relies on them being
    // read-only.
    match unsafe { libc::mprotect(start as *mut libc::c_void, len, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tries the whole change of protections on an unused page, so that a refusal half-way cannot leave
/// program text without its execute permission.
fn probe_mprotect() -> io::Result<()> {
    let len = page_size();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let address = page as usize;
    // SAFETY: our own page; no code runs in it.
    let result = unsafe { Writer::Mprotect.write(address, &[0; 16]) };
    // SAFETY: mapped above, no longer used.
    unsafe { libc::munmap(page, len) };
    result
}

/// x86-64 sees its own stores to code, and no other thread runs this code soon.
#[cfg(target_arch = "x86_64")]
fn flush_instructions(_address: usize, _len: usize) {}

/// Data cache to the point of unification, then the instruction cache, line by line (smallest line:
/// 16 bytes).
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

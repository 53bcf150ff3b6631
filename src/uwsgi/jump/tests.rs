//! Checks the code written over the start of every replaced function, in the uWSGIs of the tests:
//! objdump disassembles it, and a small interpreter follows it.
#![cfg(target_arch = "x86_64")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::uwsgi::{image::Image, takeover};

const TO: usize = 0x7fff_1234_5678;

/// One instruction, disassembled by objdump.
#[derive(Debug)]
struct Instruction {
    at: usize,
    /// `push   %r15`
    text: String,
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e} (apt-get install binutils)"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn disassemble(code: &[u8]) -> Vec<Instruction> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("code");
    fs::write(&file, code).unwrap();
    let file = file.display().to_string();
    let args = ["-D", "-b", "binary", "-m", "i386:x86-64", "--no-show-raw-insn", "--insn-width=16", &file];
    let read = |line: &str| {
        let (at, text) = line.split_once(":\t")?;
        let text = text.split('#').next()?.trim().to_owned();
        Some(Instruction { at: usize::from_str_radix(at.trim(), 16).ok()?, text })
    };
    run("objdump", &args).lines().filter_map(read).collect()
}

/// Registers by their 64-bit names with their values: initially their own names.
#[derive(Debug)]
struct Machine {
    registers: BTreeMap<String, String>,
    stack: Vec<String>,
    /// Bytes reserved below the saved values.
    reserved: i64,
}

/// The 64-bit name of a register.
fn whole(name: &str) -> String {
    let name = name.trim_start_matches('%');
    if let Some(number) = name.strip_prefix('r').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        return format!("r{}", number.trim_end_matches(['d', 'w', 'b']));
    }
    format!("r{}", name.trim_start_matches(['e', 'r']))
}

impl Machine {
    fn new() -> Self {
        let names = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15".split(' ');
        let registers = names.map(|name| (name.to_owned(), name.to_owned())).collect();
        Self { registers, stack: Vec::new(), reserved: 0 }
    }

    fn set(&mut self, register: &str, value: String) {
        let old = self.registers.insert(whole(register), value);
        assert!(old.is_some(), "{register} is a register");
    }

    /// Interprets one instruction; returns the target of a jump.
    fn step(&mut self, text: &str) -> Option<usize> {
        let (operation, operands) = text.split_once(' ').unwrap_or((text, ""));
        let operands: Vec<&str> = operands.trim().split(',').collect();
        let number = |text: &str| {
            let digits = text.trim_start_matches("$0x");
            i64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{text}: {e}"))
        };
        match (operation, &operands[..]) {
            ("endbr64", _) => {}
            ("push", [register]) => {
                assert_eq!(self.reserved, 0, "push after sub");
                self.stack.push(self.registers[&whole(register)].clone());
            }
            ("pop", [register]) if self.reserved == 8 => {
                self.reserved = 0;
                self.set(register, "something".into());
            }
            ("pop", [register]) => {
                assert_eq!(self.reserved, 0, "pop after sub");
                let value = self.stack.pop().expect("something was pushed");
                self.set(register, value);
            }
            ("sub", [n, "%rsp"]) => self.reserved += number(n),
            ("add", [n, "%rsp"]) => self.reserved -= number(n),
            ("movabs", [n, register]) => self.set(register, format!("{:x}", number(n))),
            ("mov", [.., register]) if register.starts_with('%') => self.set(register, "something".into()),
            ("cmp" | "cmpq" | "cmpl" | "test", _) => {}
            ("jmp", [target]) => {
                let value = &self.registers[&whole(target.trim_start_matches('*'))];
                return Some(usize::from_str_radix(value, 16).expect("an address"));
            }
            other => panic!("{other:?} is not an instruction that may stay"),
        }
        None
    }
}

/// Follows one function: the file's first instruction, as a probe steps over it, then the patched
/// memory.
fn check(name: &str, file: &[u8], arguments: usize, until: usize) -> String {
    let jump = Jump::new(file, arguments, until, TO);
    assert!(jump.len() <= file.len(), "{name}: {jump:?}");
    let mut memory = file.to_vec();
    memory[jump.keeps..jump.len()].copy_from_slice(&jump.bytes);
    assert!(jump.is_in(&memory) && !jump.is_in(file));
    let (original, patched) = (disassemble(file), disassemble(&memory));
    let pads = usize::from(original[0].text == "endbr64");
    assert!(original[pads + 1].at <= jump.keeps, "{name}: {:?} does not stay", original[pads].text);
    let mut machine = Machine::new();
    assert_eq!(machine.step(&original[0].text), None);
    let next = patched.iter().position(|i| i.at == original[1].at);
    let next = next.unwrap_or_else(|| panic!("{name}: the probe goes on inside an instruction: {patched:?}"));
    let target = patched[next..].iter().find_map(|instruction| machine.step(&instruction.text));
    assert_eq!(target, Some(TO), "{name}: {patched:?}");
    assert_eq!((machine.reserved, machine.stack.len()), (0, 0), "{name}: {patched:?}");
    for register in ["rdi", "rsi", "rdx", "rcx", "r8", "r9"].iter().take(arguments) {
        assert_eq!(machine.registers[*register], *register, "{name}: {patched:?}");
    }
    for register in ["rbx", "rbp", "r12", "r13", "r14", "r15"] {
        assert_eq!(machine.registers[register], register, "{name}: {patched:?}");
    }
    let kept: Vec<&str> = original.iter().take_while(|i| i.at < jump.keeps).map(|i| &i.text[..]).collect();
    kept.join("; ")
}

/// The uWSGIs of the tests: the installed one and PyPI's.
fn hosts() -> Vec<PathBuf> {
    let installed = std::env::var_os("UWSGI_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("uwsgi")).find(|file| file.is_file());
        found.expect("a uWSGI (`make deps`)")
    });
    let pypi = Path::new(env!("CARGO_MANIFEST_DIR")).join(".build/uwsgi-2.0.31/uwsgi");
    assert!(pypi.is_file(), "no {}: `make deps` builds it", pypi.display());
    vec![installed, pypi]
}

/// Address and size of the exported symbols of a program.
fn exports(program: &str) -> BTreeMap<String, (u64, usize)> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, size, _, name] = words[..] else { return None };
        Some((name.to_owned(), (hex(address)?, usize::try_from(hex(size)?).ok()?)))
    };
    run("nm", &["-D", "-S", "--defined-only", program]).lines().filter_map(read).collect()
}

#[test]
fn every_function_of_both_hosts_keeps_its_first_instruction() {
    for host in hosts() {
        let image = Image::open(&host).unwrap();
        let exports = exports(&host.display().to_string());
        let all = takeover::names();
        assert_eq!(all.len(), 31);
        for (name, arguments) in all {
            let (address, size) = exports[name];
            let file = image.text(address, size).unwrap();
            let kept = check(name, &file, arguments, 0);
            eprintln!("{} {name} ({size} bytes): {kept}", host.display());
            // A breakpoint further on, like gdb's behind `push %rbp`.
            if file[0] == 0x55 {
                assert!(Jump::new(&file, arguments, 1, TO).keeps > 1);
                check(name, &file, arguments, 1);
            }
        }
    }
}

#[test]
fn prologues_of_other_compilers_can_stay_too() {
    let filled = |code: &[u8]| [code, &[0x90; 64]].concat();
    let cases: [(&[u8], usize, &str); 9] = [
        (&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57], 0, "endbr64; push   %r15"),
        (&[0x55, 0x48, 0x89, 0xe5], 1, "push   %rbp; mov    %rsp,%rbp"),
        (&[0x48, 0x81, 0xec, 0x88, 0, 0, 0], 0, "sub    $0x88,%rsp"),
        (&[0x48, 0x8b, 0x05, 1, 2, 3, 0], 0, "mov    0x30201(%rip),%rax"),
        (&[0x48, 0x83, 0x7f, 0x78, 1], 0, "cmpq   $0x1,0x78(%rdi)"),
        (&[0x48, 0x85, 0xff], 0, "test   %rdi,%rdi"),
        (&[0x48, 0x89, 0xf9], 0, "mov    %rdi,%rcx"),
        (&[0x49, 0x8b, 0x44, 0x24, 8], 0, "mov    0x8(%r12),%rax"),
        (&[0xb8, 1, 0, 0, 0], 0, "mov    $0x1,%eax"),
    ];
    for (code, until, kept) in cases {
        assert_eq!(check(kept, &filled(code), 3, until), kept);
    }
    // These would change an argument, a callee-saved register, or the control flow.
    let none: [&[u8]; 5] = [
        &[0x48, 0x89, 0xf9],
        &[0x48, 0x89, 0xe5],
        &[0x0f, 0xb7, 0xf6],
        &[0xe9, 0, 0, 0, 0],
        &[0x48, 0x8d, 0xa4, 0x24, 8, 0, 0, 0],
    ];
    for code in none {
        assert_eq!(Jump::new(&filled(code), 4, 0, TO).keeps, 0, "{code:x?}");
    }
    // No space to undo it: the whole function is replaced.
    assert_eq!(Jump::new(&[0x41, 0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 0, TO), Jump::new(&[], 0, 0, TO));
}

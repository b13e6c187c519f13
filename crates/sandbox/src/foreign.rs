//! What a file is that the kernel refuses to run, told by its first bytes.
//!
//! `Exec format error` says nothing of the cause, and there are two: the program is for another processor, or it is text
//! without a first line that names its interpreter. Refuses to guess: what is neither is told in the kernel's words alone.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use serde::{Deserialize, Serialize};

/// As much of a file as is looked at; an interpreter's line is no longer for the kernel either (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;

/// The processor that a program is for, as its ELF header tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Machine {
    /// `EI_CLASS`: 1 for 32 bits, 2 for 64.
    pub(crate) class: u8,
    /// `EI_DATA`: 1 if the least significant byte is the first, 2 if the most significant is.
    pub(crate) data: u8,
    /// `e_machine`.
    pub(crate) number: u16,
}

/// Platforms with their machines, and what QEMU calls them.
const MACHINES: [(&str, Machine, &str); 13] = [
    ("386", machine(1, 1, 3), "i386"),
    ("amd64", machine(2, 1, 62), "x86_64"),
    ("arm", machine(1, 1, 40), "arm"),
    ("arm64", machine(2, 1, 183), "aarch64"),
    ("loong64", machine(2, 1, 258), "loongarch64"),
    ("mips", machine(1, 2, 8), "mips"),
    ("mipsle", machine(1, 1, 8), "mipsel"),
    ("mips64", machine(2, 2, 8), "mips64"),
    ("mips64le", machine(2, 1, 8), "mips64el"),
    ("ppc64", machine(2, 2, 21), "ppc64"),
    ("ppc64le", machine(2, 1, 21), "ppc64le"),
    ("riscv64", machine(2, 1, 243), "riscv64"),
    ("s390x", machine(2, 2, 22), "s390x"),
];

const fn machine(class: u8, data: u8, number: u16) -> Machine {
    Machine { class, data, number }
}

impl Machine {
    /// Architecture of a platform, in the words of OCI.
    #[must_use]
    pub fn architecture(self) -> Option<&'static str> {
        self.entry().map(|(architecture, ..)| *architecture)
    }

    /// The same in QEMU's words, which its programs have in their names.
    #[must_use]
    pub fn qemu_name(self) -> Option<&'static str> {
        self.entry().map(|(.., name)| *name)
    }

    fn entry(self) -> Option<&'static (&'static str, Self, &'static str)> {
        MACHINES.iter().find(|(_, machine, _)| *machine == self)
    }

    fn of(head: &[u8]) -> Option<Self> {
        let (class, data) = (*head.get(4)?, *head.get(5)?);
        let bytes = [*head.get(18)?, *head.get(19)?];
        let number = match data {
            1 => u16::from_le_bytes(bytes),
            2 => u16::from_be_bytes(bytes),
            _ => return None,
        };
        head.starts_with(b"\x7fELF")
            .then_some(machine(class, data, number))
    }
}

/// Why the kernel does not know how to run a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Words to put behind the file's name.
    pub(crate) text: String,
    /// The processor that is missing.
    pub(crate) machine: Option<Machine>,
}

/// Looks at `path`, and at its interpreter if it is a script.
pub(crate) fn reason(path: &CStr) -> Option<Reason> {
    let head = head(OsStr::from_bytes(path.to_bytes()))?;
    let Some(line) = head.strip_prefix(b"#!") else {
        return of_program(&head, "it");
    };
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let interpreter = OsStr::from_bytes(line.split(u8::is_ascii_whitespace).next()?);
    of_program(
        &self::head(interpreter)?,
        &format!("its interpreter {interpreter:?}"),
    )
}

fn of_program(head: &[u8], what: &str) -> Option<Reason> {
    if let Some(machine) = Machine::of(head) {
        let name = match machine.architecture() {
            Some(architecture) => format!("linux/{architecture}"),
            None => format!("a processor with the number {} in ELF", machine.number),
        };
        let text = format!(": {what} is a program for {name}, which nothing here can run");
        return Some(Reason {
            text,
            machine: Some(machine),
        });
    }
    let is_text = !head.contains(&0)
        && !head.starts_with(b"#!")
        && head.first().is_some_and(|byte| !byte.is_ascii_control());
    is_text.then(|| Reason {
        text: format!(": {what} is text whose first line names no interpreter (`#!/bin/sh`)"),
        machine: None,
    })
}

/// The first bytes of a file that the step itself may read.
fn head(path: &OsStr) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(HEAD_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::path::Path;

    use super::*;

    fn told(dir: &Path, name: &str, bytes: &[u8]) -> Option<Reason> {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        reason(&CString::new(path.as_os_str().as_bytes()).unwrap())
    }

    fn elf(class: u8, data: u8, number: [u8; 2]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\0\0\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0".to_vec();
        (bytes[4], bytes[5]) = (class, data);
        bytes[18..20].copy_from_slice(&number);
        bytes
    }

    #[test]
    fn programs_of_other_processors_are_told_by_their_platform() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, architecture, qemu) in [
            (elf(2, 1, [183, 0]), "arm64", "aarch64"),
            (elf(2, 2, [0, 22]), "s390x", "s390x"),
            (elf(2, 1, [21, 0]), "ppc64le", "ppc64le"),
            (elf(1, 1, [40, 0]), "arm", "arm"),
        ] {
            let reason = told(dir.path(), "program", &bytes).unwrap();
            let machine = reason.machine.unwrap();
            assert_eq!(machine.architecture(), Some(architecture));
            assert_eq!(machine.qemu_name(), Some(qemu));
            assert_eq!(
                reason.text,
                format!(": it is a program for linux/{architecture}, which nothing here can run")
            );
        }
        let reason = told(dir.path(), "odd", &elf(2, 1, [0x39, 0x30])).unwrap();
        assert!(reason.text.contains("number 12345 in ELF"), "{}", reason.text);
        assert_eq!(reason.machine.unwrap().architecture(), None);
    }

    #[test]
    fn scripts_are_told_by_their_interpreter_or_by_its_absence() {
        let dir = tempfile::tempdir().unwrap();
        told(dir.path(), "sh", &elf(2, 1, [243, 0]));
        let script = format!("#! {} -e\necho\n", dir.path().join("sh").display());
        let reason = told(dir.path(), "script", script.as_bytes()).unwrap();
        assert!(reason.text.contains("its interpreter"), "{}", reason.text);
        assert_eq!(reason.machine.and_then(Machine::architecture), Some("riscv64"));
        let reason = told(dir.path(), "plain", b"echo hello\n").unwrap();
        assert!(reason.text.contains("names no interpreter"), "{}", reason.text);
        assert_eq!(reason.machine, None);
    }

    #[test]
    fn what_is_neither_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"\0\x01\x02", b"\x7fELF", b"#!\n", b"#!/no/such/file\n"] {
            assert_eq!(told(dir.path(), "odd", bytes), None, "{bytes:?}");
        }
        assert_eq!(reason(c"/no/such/file"), None);
    }
}

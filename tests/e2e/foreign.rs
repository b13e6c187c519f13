//! Steps for other processors: run by an emulator of this machine where a build may make it known to the kernel for itself,
//! and told with what helps where nothing runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rbuild_testkit::machine;

use crate::e2e::fixture::Fixture;

/// A program for arm64 in 135 bytes after its headers: called without arguments it runs itself again with one, and then
/// it writes `of arm64` to `/out`. The second start is the kernel's to emulate, as a shell's children are.
fn program() -> Vec<u8> {
    const CODE: [u32; 27] = [
        0xf940_03e0, // ldr x0, [sp]           argc
        0xf100_041f, // cmp x0, #1
        0x5400_0181, // b.ne write
        0x1000_0300, // adr x0, "/hello"
        0x7000_0309, // adr x9, "again"
        0xa9be_27e0, // stp x0, x9, [sp, #-32]!
        0xf900_0bff, // str xzr, [sp, #16]
        0x9100_03e1, // mov x1, sp
        0xd280_0002, // mov x2, #0
        0xd280_1ba8, // mov x8, #221           execve
        0xd400_0001, // svc #0
        0xd280_0060, // mov x0, #3
        0xd280_0ba8, // mov x8, #93            exit
        0xd400_0001, // svc #0
        0x9280_0c60, // write: mov x0, #-100   AT_FDCWD
        0x3000_01e1, // adr x1, "/out"
        0xd280_0822, // mov x2, #0x41          O_CREAT | O_WRONLY
        0xd280_3483, // mov x3, #0o644
        0xd280_0708, // mov x8, #56            openat
        0xd400_0001, // svc #0
        0x5000_0161, // adr x1, "of arm64\n"
        0xd280_0122, // mov x2, #9
        0xd280_0808, // mov x8, #64            write
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93            exit
        0xd400_0001, // svc #0
    ];
    let mut text: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    text.extend_from_slice(b"/hello\0again\0/out\0of arm64\n");
    let mut elf = header(2, 1, 183);
    let place = 0x40_0000_u64;
    for value in [place + 120, 64, 0] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend(value.to_le_bytes());
    }
    // One segment, read and executed: the whole file.
    elf.extend([1_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
    let size = 120 + text.len() as u64;
    for value in [0, place, place, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(text);
    elf
}

/// The first 24 bytes of a program of a machine with its least significant byte first.
fn header(class: u8, data: u8, machine: u16) -> Vec<u8> {
    let mut bytes = vec![
        0x7f, b'E', b'L', b'F', class, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0,
    ];
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes
}

fn give(fixture: &Fixture, name: &str, bytes: &[u8]) {
    let path = fixture.context.dir().join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether the kernel lets a user namespace have handlers of its own (Linux 6.7).
fn kernel_has_handlers_of_namespaces() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
        && std::fs::read_to_string("/proc/filesystems").is_ok_and(|names| names.contains("binfmt_misc"))
}

/// Two of them at once, each of whose programs fails at first, beside a stage of this machine's own processor.
const TWO_PLATFORMS: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS compiler
ARG TARGETARCH
RUN echo compiled for $TARGETARCH on $(uname -m) > /made
FROM busybox AS step-amd64
RUN echo of amd64 > /out
FROM scratch AS step-arm64
COPY hello /hello
RUN [\"/hello\"]
FROM scratch AS beside
COPY --chmod=711 hello /hello
RUN [\"/hello\"]
FROM beside AS more-arm64
FROM step-amd64 AS more-amd64
FROM more-$TARGETARCH AS more
FROM step-$TARGETARCH
COPY --from=compiler /made /made
COPY --from=more /out /more
";

#[test]
fn rootless_steps_for_another_processor_run_by_this_machines_emulator() {
    let Some(fixture) = Fixture::rootless(TWO_PLATFORMS) else {
        return;
    };
    let emulator = Path::new("/usr/bin/qemu-aarch64-static");
    if !emulator.exists() || !kernel_has_handlers_of_namespaces() {
        machine::skip("no qemu-aarch64-static (Debian's qemu-user-static), or a kernel older than 6.7");
        return;
    }
    give(&fixture, "hello", &program());
    let out = fixture.home.work().join("out");
    let to = format!("--output=type=local,dest={}", out.display());
    let ran = fixture
        .build()
        .args(["--platform=linux/amd64,linux/arm64", &to])
        .ok();
    for platform in ["amd64", "arm64"] {
        let read =
            |name: &str| std::fs::read_to_string(out.join(format!("linux_{platform}/{name}"))).unwrap();
        assert_eq!(read("out"), format!("of {platform}\n"));
        assert_eq!(read("more"), format!("of {platform}\n"));
        // The compiler's stage is this machine's, whatever is built.
        assert_eq!(read("made"), format!("compiled for {platform} on x86_64\n"));
    }
    let told = "programs for linux/arm64 are run by /usr/bin/qemu-aarch64-static";
    let said = ran.stderr.matches(told).count();
    // Once for each builder process, if the kernel was not told by this machine already.
    assert!(said <= 1, "told {said} times\n{ran}");
}

#[test]
fn a_program_for_another_processor_is_told_with_what_helps() {
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-loongarch64").exists() {
        machine::skip("this machine runs programs for loong64");
        return;
    }
    let fixture = Fixture::new("FROM scratch\nCOPY hello /hello\nRUN [\"/hello\"]\n");
    give(&fixture, "hello", &header(2, 1, 258));
    let ran = fixture.build().fails();
    for part in [
        "it is a program for linux/loong64, which nothing here can run",
        "   3 | >>> RUN [\"/hello\"]",
        "hint: the kernel knows no emulator for linux/loong64 (binfmt_misc)",
        "tonistiigi/binfmt --install loong64",
    ] {
        assert!(ran.stderr.contains(part), "lacks {part:?}\n{ran}");
    }
}

#[test]
fn a_script_that_names_no_interpreter_is_told_as_such() {
    let fixture = Fixture::new("FROM busybox\nCOPY hello /hello\nRUN [\"/hello\"]\n");
    give(&fixture, "hello", b"echo hello\n");
    let ran = fixture.build().fails();
    let part = "it is text whose first line names no interpreter";
    assert!(ran.stderr.contains(part), "lacks {part:?}\n{ran}");
    assert!(!ran.stderr.contains("binfmt"), "{ran}");
}

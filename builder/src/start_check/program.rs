//! Sees failures to start coming: the program an image starts must exist, be of the image's architecture, and find its
//! loader. A binary of another libc fails with the kernel's "no such file or directory" about a file that is there,
//! which nobody understands; this says it at build time.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

/// The parts of an image config that decide what is started.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
}

/// Enough of a program for its ELF header, its program headers and the loader's name.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Scripts that name a script as interpreter, before it is no use (the kernel's own limit is 5, `fs/exec.c`).
const SCRIPTS_MAX: usize = 5;

/// What keeps an image from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StartProblem {
    /// The program is not there.
    #[error("{} is started by this image, but is not in it", program.display())]
    NoProgram {
        /// As the config names it.
        program: PathBuf,
    },
    /// The program is a script, and what runs it is not there.
    #[error(
        "{} is started by this image and names {} as its interpreter, which is not in the image",
        script.display(), interpreter.display()
    )]
    NoInterpreter {
        /// The script.
        script: PathBuf,
        /// As its first line names it.
        interpreter: PathBuf,
    },
    /// The program is for another processor.
    #[error(
        "{} is started by this image and is built for {needs}, but the image is for {has}",
        program.display()
    )]
    Architecture {
        /// The program.
        program: PathBuf,
        /// Architecture of the program.
        needs: &'static str,
        /// Architecture of the image.
        has: &'static str,
    },
    /// The program is linked against a C library that is not there.
    #[error(
        "{} is started by this image and needs the loader {}, which is not in it: it was linked against {libc}, \
         and will fail with \"no such file or directory\"; use a base with that C library, or link it statically",
        program.display(), loader.display()
    )]
    NoLoader {
        /// The program.
        program: PathBuf,
        /// The loader it names.
        loader: PathBuf,
        /// Whose loader that is.
        libc: &'static str,
    },
}

/// Where the program that `config` names may be, as absolute paths.
#[must_use]
pub(crate) fn programs(config: &[u8]) -> Vec<PathBuf> {
    let config: Option<Config> = serde_json::from_slice(config).ok();
    let container = config.and_then(|config| config.config).unwrap_or_default();
    let places = container.program().map(|program| container.places(&program));
    let places = places.unwrap_or_default();
    places.iter().map(|place| rbuild_sys::clean(place)).collect()
}

/// What keeps the program that `config` names from starting in `root`. `None` also where nobody can tell.
#[must_use]
pub(super) fn problem(root: &RootFd, config: &[u8]) -> Option<StartProblem> {
    let config: Config = serde_json::from_slice(config).ok()?;
    let container = config.config.unwrap_or_default();
    let mut program = container.program()?;
    let mut named_by = None;
    for _ in 0..SCRIPTS_MAX {
        let found = find(root, &program, &container);
        let Some(path) = found else {
            return Some(match named_by {
                None => StartProblem::NoProgram { program },
                Some(script) => StartProblem::NoInterpreter {
                    script,
                    interpreter: program,
                },
            });
        };
        let head = read_head(root, &path)?;
        if head.starts_with(b"\x7fELF") {
            return elf_problem(root, path, &head, &config.architecture);
        }
        let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
        let interpreter = line
            .split(|b| b.is_ascii_whitespace())
            .find(|word| !word.is_empty())?;
        named_by = Some(path);
        program = PathBuf::from(OsStr::from_bytes(interpreter));
    }
    None
}

/// Where the program is, as `execvp` in a container would look for it.
fn find(root: &RootFd, program: &Path, container: &Container) -> Option<PathBuf> {
    let is_file = |path: &PathBuf| {
        root.stat(path).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        })
    };
    container.places(program).into_iter().find(is_file)
}

impl Container {
    /// The program as the config names it.
    fn program(&self) -> Option<PathBuf> {
        let entrypoint = self.entrypoint.as_ref().filter(|argv| !argv.is_empty());
        let argv = entrypoint.or(self.cmd.as_ref())?;
        argv.first().filter(|first| !first.is_empty()).map(PathBuf::from)
    }

    /// The paths that `execvp` would try for `program`, in order.
    fn places(&self, program: &Path) -> Vec<PathBuf> {
        if program.as_os_str().as_bytes().contains(&b'/') {
            let work = self.working_dir.as_deref().filter(|dir| !dir.is_empty());
            return vec![Path::new(work.unwrap_or("/")).join(program)];
        }
        let mut variables = self.env.iter().flatten();
        let path = variables.find_map(|variable| variable.strip_prefix("PATH="));
        let dirs = path.into_iter().flat_map(|path| path.split(':'));
        dirs.map(|dir| Path::new(dir).join(program)).collect()
    }
}

fn read_head(root: &RootFd, path: &Path) -> Option<Vec<u8>> {
    let fd = root
        .open_in(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
    let mut head = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    while filled < head.len() {
        match rustix::io::read(&fd, &mut head[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    head.truncate(filled);
    Some(head)
}

fn elf_problem(root: &RootFd, program: PathBuf, head: &[u8], architecture: &str) -> Option<StartProblem> {
    let elf = Elf::parse(head)?;
    if let (Some(needs), Some(has)) = (elf.architecture(), known_machine(architecture))
        && needs != has
    {
        return Some(StartProblem::Architecture { program, needs, has });
    }
    let loader = elf.loader(head)?;
    let loader_path = Path::new(OsStr::from_bytes(loader));
    if root.stat(loader_path).is_ok() {
        return None;
    }
    let libc = match loader {
        name if name.windows(7).any(|w| w == b"ld-musl") => "musl (Alpine)",
        name if name.windows(8).any(|w| w == b"ld-linux") => "glibc (Debian, Ubuntu, Fedora and others)",
        _ => "another C library",
    };
    Some(StartProblem::NoLoader {
        program,
        loader: loader_path.to_owned(),
        libc,
    })
}

fn known_machine(architecture: &str) -> Option<&'static str> {
    ["amd64", "386", "arm64", "arm", "riscv64", "ppc64le", "s390x"]
        .into_iter()
        .find(|name| *name == architecture)
}

/// The few fields of an ELF header that matter here (System V ABI, "ELF header").
struct Elf {
    machine: u16,
    wide: bool,
    little: bool,
    headers: usize,
    header_size: usize,
    header_count: usize,
}

const PT_INTERP: u64 = 3;

impl Elf {
    fn parse(head: &[u8]) -> Option<Self> {
        let wide = *head.get(4)? == 2;
        let little = *head.get(5)? == 1;
        let mut elf = Self {
            machine: 0,
            wide,
            little,
            headers: 0,
            header_size: 0,
            header_count: 0,
        };
        elf.machine = u16::try_from(elf.number(head, 18, 2)?).ok()?;
        let (offset, width, size, count) = if wide { (32, 8, 54, 56) } else { (28, 4, 42, 44) };
        elf.headers = usize::try_from(elf.number(head, offset, width)?).ok()?;
        elf.header_size = usize::try_from(elf.number(head, size, 2)?).ok()?;
        elf.header_count = usize::try_from(elf.number(head, count, 2)?).ok()?;
        Some(elf)
    }

    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let field = bytes.get(at..at.checked_add(width)?)?;
        let fold = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.little {
            field.iter().rev().fold(0, fold)
        } else {
            field.iter().fold(0, fold)
        })
    }

    const fn architecture(&self) -> Option<&'static str> {
        Some(match self.machine {
            3 => "386",
            21 if self.little => "ppc64le",
            22 => "s390x",
            40 => "arm",
            62 => "amd64",
            183 => "arm64",
            243 => "riscv64",
            _ => return None,
        })
    }

    /// Path of the loader, if the program is not static.
    fn loader<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        for index in 0..self.header_count {
            let at = self.headers.checked_add(index.checked_mul(self.header_size)?)?;
            if self.number(head, at, 4)? != PT_INTERP {
                continue;
            }
            let (offset, width, size) = if self.wide {
                (at + 8, 8, at + 32)
            } else {
                (at + 4, 4, at + 16)
            };
            let from = usize::try_from(self.number(head, offset, width)?).ok()?;
            let length = usize::try_from(self.number(head, size, width)?).ok()?;
            let name = head.get(from..from.checked_add(length)?)?;
            return Some(name.strip_suffix(b"\0").unwrap_or(name));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, RootFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = RootFd::open(dir.path()).unwrap();
        (dir, fd)
    }

    /// A little-endian 64-bit ELF with one program header.
    fn elf(machine: u8, loader: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = machine;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        if let Some(loader) = loader {
            bytes[64] = 3;
            bytes[72] = 120;
            bytes[96] = u8::try_from(loader.len() + 1).unwrap();
            bytes.extend_from_slice(loader.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn warning(root: &RootFd, config: &[u8]) -> Option<String> {
        problem(root, config).map(|problem| problem.to_string())
    }

    fn config(argv: &[&str]) -> Vec<u8> {
        serde_json::json!({"architecture": "amd64", "os": "linux",
            "config": {"Cmd": argv, "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/app"}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_binary_of_another_libc_is_explained() {
        let (dir, root) = root();
        fs::create_dir_all(dir.path().join("app")).unwrap();
        fs::write(
            dir.path().join("app/server"),
            elf(62, Some("/lib64/ld-linux-x86-64.so.2")),
        )
        .unwrap();
        let text = warning(&root, &config(&["./server"])).unwrap();
        assert!(
            text.contains("/lib64/ld-linux-x86-64.so.2") && text.contains("glibc"),
            "{text}"
        );
        // The legal twin: the loader is there, through links as Debian has them.
        fs::create_dir_all(dir.path().join("usr/lib64")).unwrap();
        fs::write(dir.path().join("usr/lib64/ld-linux-x86-64.so.2"), "").unwrap();
        symlink("usr/lib64", dir.path().join("lib64")).unwrap();
        assert_eq!(warning(&root, &config(&["./server"])), None);
    }

    #[test]
    fn static_programs_and_shells_found_on_the_path_are_fine() {
        let (dir, root) = root();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/tool"), elf(62, None)).unwrap();
        assert_eq!(warning(&root, &config(&["tool"])), None);
        assert_eq!(warning(&root, &config(&[])), None);
    }

    #[test]
    fn what_is_missing_or_foreign_is_named() {
        let (dir, root) = root();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        let absent = warning(&root, &config(&["absent"])).unwrap();
        assert_eq!(absent, "absent is started by this image, but is not in it");
        fs::write(dir.path().join("bin/arm"), elf(183, None)).unwrap();
        let foreign = warning(&root, &config(&["arm"])).unwrap();
        assert!(
            foreign.contains("built for arm64, but the image is for amd64"),
            "{foreign}"
        );
        fs::write(dir.path().join("bin/script"), "#!/usr/bin/python3 -u\n").unwrap();
        let script = warning(&root, &config(&["script"])).unwrap();
        assert!(script.contains("/usr/bin/python3"), "{script}");
    }

    #[test]
    fn damaged_headers_say_nothing() {
        let (dir, root) = root();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        for bytes in [
            &b"\x7fELF"[..],
            &elf(62, Some("/x"))[..70],
            &[0x7f, b'E', b'L', b'F', 2, 1, 255],
        ] {
            fs::write(dir.path().join("bin/bad"), bytes).unwrap();
            assert_eq!(warning(&root, &config(&["bad"])), None);
        }
        let mut huge = elf(62, Some("/x"));
        huge[72..80].fill(0xff);
        fs::write(dir.path().join("bin/bad"), huge).unwrap();
        assert_eq!(warning(&root, &config(&["bad"])), None);
    }
}

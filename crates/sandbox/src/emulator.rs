//! Emulators of other processors, made known to the kernel for this build alone.
//!
//! Since Linux 6.7 a user namespace may have handlers of its own (`binfmt_misc`, mounted in that namespace). A build that
//! runs in one of its own registers a QEMU that this machine has, as `qemu-user-static` and `docker/binfmt` do for all of
//! the machine: what the steps start is then run by it, their children too, and nothing of it is seen outside or stays.
//! The program is opened when it is registered, so that no step needs it among its files.
//!
//! Refuses to register anything where the namespace is not the build's own: there it would be everybody's.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::foreign::Machine;

/// Where distributions put their programs; the search path of the caller is not asked.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// Opened now, with the rights of the program that it runs, and with the program's own first argument.
const FLAGS: &str = "POCF";
/// Bytes of an ELF header that a handler looks at, up to and with `e_machine`.
const MAGIC_BYTES: usize = 20;

/// What became of the wish for an emulator.
#[derive(Debug, PartialEq, Eq)]
pub enum Emulation {
    /// The kernel knows it now.
    Began(PathBuf),
    /// The kernel knows it from here already: what failed before that may do better now.
    Known,
    /// This machine has none.
    NoEmulator,
    /// The user namespace is not the build's own.
    NotOurs,
}

/// The handlers of the build's user namespace.
#[derive(Debug, Default)]
pub(crate) struct Emulators {
    registered: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    /// `binfmt_misc` of the namespace, mounted nowhere. The handlers end with it.
    files: Option<OwnedFd>,
    machines: HashSet<Machine>,
}

impl Emulators {
    /// Has the kernel run programs for `machine` by this machine's emulator.
    ///
    /// # Errors
    /// The kernel's: it is older than 6.7, or has no `binfmt_misc`.
    pub(crate) fn begin(&self, machine: Machine) -> io::Result<Emulation> {
        let Some((name, program)) = machine.qemu_name().and_then(|name| Some((name, program(name)?))) else {
            return Ok(Emulation::NoEmulator);
        };
        let mut registered = self
            .registered
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if registered.machines.contains(&machine) {
            return Ok(Emulation::Known);
        }
        if registered.files.is_none() {
            registered.files = Some(mount()?);
        }
        let files = registered.files.as_ref().ok_or(Errno::BADF)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let register = rustix::fs::openat(files.as_fd(), "register", flags, Mode::empty())?;
        rustix::io::write(&register, line(machine, name, &program).as_bytes())?;
        registered.machines.insert(machine);
        Ok(Emulation::Began(program))
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let names = [format!("qemu-{name}-static"), format!("qemu-{name}")];
    let mut paths = names
        .iter()
        .flat_map(|name| PLACES.iter().map(move |place| Path::new(place).join(name)));
    paths.find(|path| path.is_file())
}

fn mount() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A line for `register` (Documentation/admin-guide/binfmt-misc.rst): programs and shared objects of that machine, for
/// whichever system they say they are.
fn line(machine: Machine, name: &str, program: &Path) -> String {
    let mut magic = [0_u8; MAGIC_BYTES];
    magic[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', machine.class, machine.data, 1]);
    let mut mask = [0xff_u8; MAGIC_BYTES];
    mask[7] = 0;
    let (kind, number) = if machine.data == 1 {
        (16, machine.number.to_le_bytes())
    } else {
        (17, machine.number.to_be_bytes())
    };
    // `e_type`: 2 is a program at a place, 3 one that runs at any.
    magic[kind] = 2;
    mask[kind] = 0xfe;
    magic[18..].copy_from_slice(&number);
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "\\x{byte:02x}").expect("a string takes everything");
            text
        })
    };
    format!(
        ":rbuild-{name}:M:0:{}:{}:{}:{FLAGS}",
        escaped(&magic),
        escaped(&mask),
        program.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(class: u8, data: u8, number: u16) -> Machine {
        Machine { class, data, number }
    }

    #[test]
    fn a_line_names_the_machine_in_its_own_byte_order() {
        let path = Path::new("/usr/bin/qemu-aarch64-static");
        assert_eq!(
            line(machine(2, 1, 183), "aarch64", path),
            ":rbuild-aarch64:M:0:\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:\
             /usr/bin/qemu-aarch64-static:POCF"
        );
        let big = line(machine(2, 2, 22), "s390x", path);
        assert!(big.contains("\\x00\\x02\\x00\\x16:"), "{big}");
        assert!(big.contains("\\xff\\xfe\\xff\\xff:"), "{big}");
    }

    #[test]
    fn a_machine_that_nobody_emulates_is_told_as_such() {
        let emulators = Emulators::default();
        assert_eq!(
            emulators.begin(machine(2, 1, 12345)).unwrap(),
            Emulation::NoEmulator
        );
    }
}

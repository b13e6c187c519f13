//! Small images of the fast tier, made here from Debian's static busybox.
//!
//! Users and groups are those of the busybox image that BuildKit's own test suite uses, so that a case means the same
//! to both. The bytes depend on the busybox binary alone; a made layout is kept in the target directory under a name
//! that holds its digest, so that every test process on a machine shares it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::facts::sha256_hex;
use crate::layout::{Attributes, ImageBuilder, LayerBuilder};
use crate::machine;

/// Raised when the recipes below change what they make.
const RECIPE_VERSION: u32 = 1;

/// Where Debian puts the binary of `busybox-static`.
const BUSYBOX_PATHS: [&str; 3] = [
    "/usr/bin/busybox",
    "/bin/busybox",
    "/usr/lib/busybox-static/busybox",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nobody:x:65534:
";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of the images that [`layout`] holds.
pub const NAMES: [&str; 6] = ["busybox", "rich", "onbuild", "odd", "noshell", "otherlibc"];

/// The layout directory with the fast tier's images, made on first use.
///
/// - `busybox`: shell and applets, `Cmd` `sh`.
/// - `rich`: the same with every member of the config set.
/// - `onbuild`: the same with triggers.
/// - `odd`: `/etc/resolv.conf` a dangling link, `/etc/hosts` an absolute one, hard links, a capability, devices,
///   owners, a whiteout.
/// - `noshell`: nothing but `/etc`, `/tmp` and a static `/bin/answer`.
/// - `otherlibc`: `busybox` with a dynamic loader that is musl's by name and no glibc.
///
/// # Errors
/// No static busybox on the machine (with the package that has it), or the file system's.
pub fn layout() -> Result<PathBuf> {
    let busybox = static_busybox()?;
    let bytes = fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
    let name = format!("busybox-{RECIPE_VERSION}-{}", &sha256_hex(&bytes)[..16]);
    let parent = machine::bases_dir()?;
    let dir = parent.join(&name);
    if dir.join("index.json").exists() {
        return Ok(dir);
    }
    let aside = tempfile::Builder::new().prefix(&name).tempdir_in(&parent)?;
    write_all(aside.path(), &busybox, &bytes)?;
    machine::publish(aside, &dir)?;
    Ok(dir)
}

/// Finds the static busybox.
///
/// # Errors
/// Absent or dynamically linked.
pub fn static_busybox() -> Result<PathBuf> {
    for path in BUSYBOX_PATHS.map(Path::new) {
        if path.exists() && !wants_interpreter(&fs::read(path)?) {
            return Ok(path.to_owned());
        }
    }
    bail!(
        "no static busybox on this machine: install Debian's package busybox-static (`cargo xtask ci` does)"
    )
}

/// Whether an ELF file names a dynamic loader (a `PT_INTERP` program header, System V ABI chapter 5).
#[must_use]
pub fn wants_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let short = |at: usize| {
        elf.get(at..at + 2)
            .map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    let long = |at: usize| {
        elf.get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
    };
    let word = |at: usize| {
        elf.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let (Some(offset), Some(size), Some(count)) = (long(32), short(54), short(56)) else {
        return false;
    };
    let Ok(offset) = usize::try_from(offset) else {
        return false;
    };
    elf.starts_with(b"\x7fELF") && (0..count).any(|i| word(offset + i * size) == Some(PT_INTERP))
}

fn write_all(dir: &Path, busybox: &Path, bytes: &[u8]) -> Result<()> {
    let root = busybox_layer(busybox, bytes)?.finish();
    let plain = json!({"Env": [PATH], "Cmd": ["sh"]});
    let made_by = "rbuild-testkit: static busybox";
    ImageBuilder::new(plain.clone())
        .layer(root.clone(), made_by)
        .write(dir, "busybox")?;
    ImageBuilder::new(json!({
        "Env": [PATH, "RICH=yes", "REPLACED=base"],
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["base-cmd"],
        "User": "daemon",
        "WorkingDir": "/srv/rich",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"base": "rich", "replaced": "base"},
        "StopSignal": "SIGUSR1",
        "Shell": ["/bin/sh", "-ec"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_i64, "Retries": 4},
    }))
    .layer(root.clone(), made_by)
    .write(dir, "rich")?;
    ImageBuilder::new(json!({
        "Env": [PATH],
        "Cmd": ["sh"],
        "OnBuild": ["ARG WHO=trigger", "RUN echo $WHO > /from-trigger", "COPY onbuild.txt /copied"],
    }))
    .layer(root.clone(), made_by)
    .write(dir, "onbuild")?;
    let upper = LayerBuilder::new()
        .whiteout("odd/gone")
        .file("odd/.wh.dir", Attributes::mode(0), b"");
    ImageBuilder::new(plain.clone())
        .layer(root.clone(), made_by)
        .layer(odd_layer().finish(), "rbuild-testkit: odd entries")
        .layer(upper.finish(), "rbuild-testkit: whiteouts")
        .write(dir, "odd")?;
    let small = LayerBuilder::new()
        .dir("bin", Attributes::mode(0o755))
        .file("bin/answer", Attributes::mode(0o755), bytes)
        .dir("etc", Attributes::mode(0o755))
        .file(
            "etc/passwd",
            Attributes::mode(0o644),
            b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n",
        )
        .file(
            "etc/group",
            Attributes::mode(0o644),
            b"root:x:0:\nnonroot:x:65532:\n",
        )
        .dir("home", Attributes::mode(0o755))
        .dir("home/nonroot", Attributes::mode(0o700).owner(65532, 65532))
        .dir("tmp", Attributes::mode(0o1777));
    ImageBuilder::new(json!({"Env": [PATH], "User": "65532", "WorkingDir": "/home/nonroot"}))
        .layer(small.finish(), "rbuild-testkit: no shell")
        .write(dir, "noshell")?;
    let musl = LayerBuilder::new().file(
        "lib/ld-musl-x86_64.so.1",
        Attributes::mode(0o755),
        b"\x7fELF not a loader",
    );
    ImageBuilder::new(plain)
        .layer(root, made_by)
        .layer(musl.finish(), "rbuild-testkit: another libc by name")
        .write(dir, "otherlibc")?;
    Ok(())
}

fn busybox_layer(busybox: &Path, bytes: &[u8]) -> Result<LayerBuilder> {
    let dir = Attributes::mode(0o755);
    let mut layer = LayerBuilder::new();
    for path in [
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "proc",
        "root",
        "sbin",
        "sys",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/sbin",
        "var",
        "var/spool",
        "var/spool/mail",
        "var/www",
    ] {
        let mode = if path == "root" {
            Attributes::mode(0o700)
        } else {
            dir
        };
        layer = layer.dir(path, mode);
    }
    layer = layer
        .dir("tmp", Attributes::mode(0o1777))
        .file("bin/busybox", Attributes::mode(0o755), bytes)
        .file("etc/passwd", Attributes::mode(0o644), PASSWD.as_bytes())
        .file("etc/group", Attributes::mode(0o644), GROUP.as_bytes())
        .file("etc/shadow", Attributes::mode(0o600), b"")
        .symlink("usr/bin/env", "../../bin/env");
    let applets = Command::new(busybox)
        .arg("--list")
        .output()
        .context("busybox --list")?;
    ensure!(applets.status.success(), "busybox --list failed");
    for applet in String::from_utf8(applets.stdout)?
        .lines()
        .filter(|name| *name != "busybox")
    {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    Ok(layer)
}

fn odd_layer() -> LayerBuilder {
    // cap_net_bind_service+ep, revision 2 of vfs_cap_data (linux/capability.h).
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    LayerBuilder::new()
        .symlink("etc/resolv.conf", "../run/nowhere/stub.conf")
        .symlink("etc/hosts", "/usr/share/hosts")
        .dir("odd", Attributes::mode(0o755))
        .file("odd/first", Attributes::mode(0o644), b"one file, two names\n")
        .hard_link("odd/second", "odd/first")
        .file("odd/gone", Attributes::mode(0o644), b"hidden above\n")
        .dir("odd/dir", Attributes::mode(0o755))
        .file(
            "odd/dir/below",
            Attributes::mode(0o644),
            b"hidden with its directory\n",
        )
        .file_with_xattrs(
            "odd/ping",
            Attributes::mode(0o755).owner(0, 4),
            b"#!/bin/sh\n",
            &[("security.capability", &capability)],
        )
        .file("odd/setuid", Attributes::mode(0o4755), b"#!/bin/sh\n")
        .file("odd/owned", Attributes::mode(0o640).owner(1234, 5678), b"owned\n")
        .char_device("odd/null", 0o666, (1, 3))
        .symlink("odd/loop", "loop")
        .symlink("odd/abs", "/odd/first")
        .file(
            "odd/na\u{ef}ve name",
            Attributes::mode(0o644),
            b"blank and letters\n",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::OciLayout;

    #[test]
    fn bases_are_valid_images_and_their_bytes_do_not_change() {
        let dir = layout().unwrap();
        let layout = OciLayout::open(&dir).unwrap();
        let problems = crate::validate::problems(&layout).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let names: Vec<String> = layout
            .images()
            .unwrap()
            .iter()
            .map(|i| {
                i.descriptor["annotations"]["org.opencontainers.image.ref.name"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(names, NAMES);
        let again = tempfile::tempdir().unwrap();
        let busybox = static_busybox().unwrap();
        write_all(again.path(), &busybox, &fs::read(&busybox).unwrap()).unwrap();
        assert_eq!(
            fs::read(again.path().join("index.json")).unwrap(),
            fs::read(dir.join("index.json")).unwrap()
        );
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        assert!(wants_interpreter(&fs::read("/proc/self/exe").unwrap()));
        assert!(!wants_interpreter(&fs::read(static_busybox().unwrap()).unwrap()));
        assert!(!wants_interpreter(b"#!/bin/sh\n"));
    }
}

//! Base images of the slow tier, made from Debian packages: a slim Debian by mmdebstrap, and on top of it one layer of
//! packages for each language.
//!
//! They stand for the images people really build from (`debian:bookworm-slim`, `python`, `golang`, …): several layers,
//! thousands of files, shared lower layers. Made once per machine by `cargo xtask bases` and kept beside the other
//! bases; making needs root, network to Debian's archive, and mmdebstrap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::facts::sha256_hex;
use crate::layout::ImageBuilder;
use crate::machine;

/// Raised when a recipe below makes something else with the same packages.
const RECIPE_VERSION: u32 = 1;
/// Debian 12.
const SUITE: &str = "bookworm";

/// One image of the slow tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DebianBase {
    /// Debian with CA certificates and time zones.
    Slim,
    /// Python with pip and venv.
    Python,
    /// Python alone.
    PythonSlim,
    /// The Go toolchain.
    Go,
    /// Node with npm.
    Node,
    /// Node alone.
    NodeSlim,
    /// rustc, cargo and a linker.
    Rust,
    /// A JDK and one library.
    Java,
    /// A Java runtime.
    Jre,
}

impl DebianBase {
    /// Every one, [`DebianBase::Slim`] first.
    pub const ALL: [Self; 9] = [
        Self::Slim,
        Self::Python,
        Self::PythonSlim,
        Self::Go,
        Self::Node,
        Self::NodeSlim,
        Self::Rust,
        Self::Java,
        Self::Jre,
    ];

    /// Name in Dockerfiles and as a tag.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slim => "debian-slim",
            Self::Python => "python",
            Self::PythonSlim => "python-slim",
            Self::Go => "golang",
            Self::Node => "node",
            Self::NodeSlim => "node-slim",
            Self::Rust => "rust",
            Self::Java => "jdk",
            Self::Jre => "jre",
        }
    }

    /// Packages of its own layer.
    #[must_use]
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Slim => &["ca-certificates", "tzdata"],
            Self::Python => &["python3-pip", "python3-venv"],
            Self::PythonSlim => &["python3-minimal", "libpython3-stdlib"],
            Self::Go => &["golang-go"],
            Self::Node => &["nodejs", "npm"],
            Self::NodeSlim => &["nodejs"],
            Self::Rust => &["rustc-web", "cargo-web", "gcc", "libc6-dev"],
            Self::Java => &["openjdk-17-jdk-headless", "libgoogle-gson-java", "unzip"],
            Self::Jre => &["openjdk-17-jre-headless", "adduser"],
        }
    }

    fn dir(self) -> Result<PathBuf> {
        let recipe = format!(
            "{RECIPE_VERSION} {SUITE} {:?} {:?}",
            Self::Slim.packages(),
            self.packages()
        );
        Ok(machine::bases_dir()?.join(format!(
            "{}-{}",
            self.name(),
            &sha256_hex(recipe.as_bytes())[..12]
        )))
    }

    /// The layout directory that holds it, if it was made on this machine.
    ///
    /// # Errors
    /// Not made yet; the text says how.
    pub fn layout(self) -> Result<PathBuf> {
        let dir = self.dir()?;
        ensure!(
            dir.join("index.json").exists(),
            "base image {} is not made yet: run `cargo xtask bases`",
            self.name()
        );
        Ok(dir)
    }

    /// Makes it unless it is there, the slim one first.
    ///
    /// # Errors
    /// Not root, a missing tool, or apt's refusal.
    pub fn make(self) -> Result<PathBuf> {
        let dir = self.dir()?;
        if dir.join("index.json").exists() {
            return Ok(dir);
        }
        ensure!(machine::is_root(), "making {} needs root", self.name());
        let parent = machine::bases_dir()?;
        let slim = slim_archive(&parent)?;
        let aside = tempfile::Builder::new().prefix(self.name()).tempdir_in(&parent)?;
        let room = tempfile::Builder::new().prefix("room-").tempdir_in(&parent)?;
        let config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["bash"],
        });
        let image = ImageBuilder::new(config).layer_file(
            slim.clone(),
            &format!("mmdebstrap {SUITE} {}", Self::Slim.packages().join(" ")),
        );
        let image = if self == Self::Slim {
            image
        } else {
            let layer = package_layer(&slim, room.path(), self.packages())?;
            image.layer_file(layer, &format!("apt-get install {}", self.packages().join(" ")))
        };
        image.write(aside.path(), self.name())?;
        machine::publish(aside, &dir)?;
        Ok(dir)
    }
}

/// The archive of the slim root file system, made on first use.
fn slim_archive(parent: &Path) -> Result<PathBuf> {
    let recipe = format!("{RECIPE_VERSION} {SUITE} {:?}", DebianBase::Slim.packages());
    let path = parent.join(format!("debian-{}.tar", &sha256_hex(recipe.as_bytes())[..12]));
    if path.exists() {
        return Ok(path);
    }
    let mmdebstrap = machine::required("mmdebstrap", "mmdebstrap")?;
    let aside = path.with_extension(format!("{}.tar", std::process::id()));
    let include = format!("--include={}", DebianBase::Slim.packages().join(","));
    // What debian:slim leaves out too: documentation and languages.
    let cut = [
        "/usr/share/doc/*",
        "/usr/share/man/*",
        "/usr/share/locale/*",
        "/usr/share/info/*",
    ]
    .map(|glob| format!("--dpkgopt=path-exclude={glob}"));
    let mut command = Command::new(mmdebstrap);
    command
        .arg("--variant=minbase")
        .arg(include)
        .args(cut)
        .arg(SUITE)
        .arg(&aside);
    run("mmdebstrap", &mut command)?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

/// Runs apt in a chroot over an overlay of the slim root and archives what changed. Mounts live in a mount namespace of
/// their own and die with it.
const INSTALL: &str = r#"
set -eu
cd "$ROOM"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$ROOM/upper,workdir=$ROOM/work" merged
mount -t proc proc merged/proc
mount -t tmpfs -o mode=1777 tmpfs merged/tmp
mount -t tmpfs -o mode=0755 tmpfs merged/run
mkdir -p "$ARCHIVES/partial"
mount --bind "$ARCHIVES" merged/var/cache/apt/archives
cp merged/etc/resolv.conf resolv.conf.before 2>/dev/null || :
cat /etc/resolv.conf >merged/etc/resolv.conf
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 HOME=/root
# Java's scripts link manual pages into directories that a slim root has not.
mkdir -p merged/usr/share/man/man1
chroot merged apt-get update -qq
chroot merged apt-get install -qq -y --no-install-recommends $PACKAGES
if [ -e resolv.conf.before ]; then cat resolv.conf.before >merged/etc/resolv.conf; else rm -f merged/etc/resolv.conf; fi
rm -rf merged/var/lib/apt/lists/* merged/var/log/* merged/var/cache/debconf/*-old merged/var/lib/dpkg/*-old
umount merged/var/cache/apt/archives merged/run merged/tmp merged/proc
umount merged
find upper -type c | while read -r path; do
  rm "$path"; : >"${path%/*}/.wh.${path##*/}"
done
find upper -exec touch -h -d @1704067200 {} +
tar --sort=name --numeric-owner --xattrs --xattrs-include=security.capability -C upper -cf layer.tar .
"#;

fn package_layer(slim: &Path, room: &Path, packages: &[&str]) -> Result<PathBuf> {
    let lower = unpacked(slim)?;
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(room.join(name))?;
    }
    let archives = slim.with_file_name("apt-archives");
    let mut command = Command::new(machine::required("unshare", "util-linux")?);
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", INSTALL])
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .envs(
            ["http_proxy", "https_proxy", "no_proxy"]
                .iter()
                .filter_map(|k| Some((k, std::env::var_os(k)?))),
        )
        .env("ROOM", room)
        .env("LOWER", lower)
        .env("ARCHIVES", archives)
        .env("PACKAGES", packages.join(" "));
    run("apt-get install", &mut command)?;
    Ok(room.join("layer.tar"))
}

/// The slim root as a directory, for overlays.
fn unpacked(slim: &Path) -> Result<PathBuf> {
    let dir = slim.with_extension("root");
    if dir.exists() {
        return Ok(dir);
    }
    let parent = slim.parent().context("the archive lies in a directory")?;
    let aside = tempfile::Builder::new().prefix("root-").tempdir_in(parent)?;
    let mut command = Command::new("tar");
    command
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(slim)
        .arg("-C")
        .arg(aside.path());
    run("tar", &mut command)?;
    match fs::rename(aside.path(), &dir) {
        Ok(()) => drop(aside.keep()),
        Err(error) => ensure!(dir.exists(), "rename to {}: {error}", dir.display()),
    }
    Ok(dir)
}

fn run(what: &str, command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {what}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        bail!(
            "{what} failed ({}):\n{}",
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

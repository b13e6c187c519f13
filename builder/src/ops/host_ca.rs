//! `--host-ca`: a step trusts what the host trusts, and no layer, config or key knows of it.
//!
//! The host's bundle is put into one more lower layer of the step's overlay, not mounted: a mount on a bundle would
//! make `update-ca-certificates` fail, which renames a new file over it. What a step changes goes to its own layer as
//! always; `HostCa::scrub` takes back the one way our bytes could get there, a copy made by the kernel when only the
//! mode or owner of a file was changed.

mod java;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_sys::{RootFd, owner};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};

/// Bundles of the distributions; the first one on the host is read, and each one in the image is added to.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];
/// Where the variables point: a file no package owns.
const PRIVATE: &str = "/run/rbuild-host-ca.crt";
/// The same for Java, whose own variable is made of options.
const JAVA_STORE: &str = "/run/rbuild-host-ca.jks";
const JAVA_VARIABLE: (&str, &str) = (
    "JAVA_TOOL_OPTIONS",
    "-Djavax.net.ssl.trustStore=/run/rbuild-host-ca.jks",
);
/// Variables of the tools that have their own idea of where certificates are.
const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
];
/// A bundle is some 250 KiB; ten times that is no bundle.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// Why the host's certificates could not be given to a step.
#[derive(Debug, thiserror::Error)]
pub enum HostCaError {
    /// The host has no bundle.
    #[error("--host-ca: no certificate bundle on this host; set SSL_CERT_FILE to one")]
    NoBundle,
    /// A file could not be read or written.
    #[error("--host-ca: {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not PEM certificates, or too large to be.
    #[error("--host-ca: {0:?} is not a bundle of PEM certificates")]
    NotPem(PathBuf),
}

/// The host's certificates.
#[derive(Debug, Clone)]
pub struct Bundle {
    pem: Vec<u8>,
    java: Vec<u8>,
}

impl Bundle {
    /// Reads the host's bundle: `chosen` (`SSL_CERT_FILE`), or the first of the usual ones.
    ///
    /// # Errors
    /// [`HostCaError`].
    pub fn load(chosen: Option<&Path>) -> Result<Self, HostCaError> {
        let path = match chosen {
            Some(path) => path.to_owned(),
            None => BUNDLES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .ok_or(HostCaError::NoBundle)?,
        };
        let fail = |source| HostCaError::Io {
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(fail)?;
        let marker = b"-----BEGIN CERTIFICATE-----";
        if bytes.len() as u64 > BUNDLE_BYTES_MAX
            || !bytes.windows(marker.len()).any(|window| window == marker)
        {
            return Err(HostCaError::NotPem(path));
        }
        Ok(Self {
            java: java::trust_store(&bytes),
            pem: bytes,
        })
    }
}

impl Bundle {
    /// What a step behind a proxy trusts: the host's bundle if it has that too, and who vouches for the proxy. The words
    /// around it are those by which BuildKit's users find it (`executor/proxyca_linux.go`).
    #[must_use]
    pub(crate) fn with_proxy(host: Option<Self>, pem: &str) -> Self {
        let mut all = host.map(|host| host.pem).unwrap_or_default();
        if !all.is_empty() && !all.ends_with(b"\n") {
            all.push(b'\n');
        }
        all.extend_from_slice(
            format!("# buildkit proxy CA begin\n{pem}# buildkit proxy CA end\n").as_bytes(),
        );
        Self {
            java: java::trust_store(&all),
            pem: all,
        }
    }
}

/// A lower layer with the host's certificates, made for one step.
#[derive(Debug)]
pub struct HostCa {
    dir: PathBuf,
    files: Vec<Added>,
}

#[derive(Debug)]
struct Added {
    /// In the image, absolute.
    path: PathBuf,
    /// What the image has there.
    original: Option<Vec<u8>>,
    /// What the step sees there.
    shown: Vec<u8>,
}

impl HostCa {
    /// Makes the layer in `dir`, an empty directory of the lease, for an image seen through `view`.
    ///
    /// # Errors
    /// [`HostCaError`].
    pub fn prepare(bundle: &Bundle, view: &RootFd, dir: PathBuf) -> Result<Self, HostCaError> {
        let mut this = Self {
            dir,
            files: Vec::new(),
        };
        this.add(view, Path::new(PRIVATE), None, &bundle.pem)?;
        this.add(view, Path::new(JAVA_STORE), None, &bundle.java)?;
        for path in BUNDLES {
            let Some(real) = real_path(view, Path::new(path)) else {
                continue;
            };
            if this.files.iter().any(|added| added.path == real) {
                continue;
            }
            let Ok(original) = view.read_file(&real, BUNDLE_BYTES_MAX) else {
                continue;
            };
            let mut shown = original.clone();
            if !shown.ends_with(b"\n") {
                shown.push(b'\n');
            }
            shown.extend_from_slice(&bundle.pem);
            this.add(view, &real, Some(original), &shown)?;
        }
        Ok(this)
    }

    /// The layer, to be put on top of the image's.
    #[must_use]
    pub fn lower(&self) -> &Path {
        &self.dir
    }

    /// Variables for the step, without those `env` has already.
    #[must_use]
    pub fn variables(env: &[String]) -> Vec<String> {
        let has = |name: &str| {
            env.iter()
                .any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
        };
        let pem = VARIABLES.iter().map(|name| (*name, PRIVATE));
        pem.chain([JAVA_VARIABLE])
            .filter(|(name, _)| !has(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// Takes our bytes out of what the step wrote.
    ///
    /// # Errors
    /// The kernel's. The layer must not be used then.
    pub(crate) fn scrub(&self, upper: &Path) -> Result<(), HostCaError> {
        let root = RootFd::open(upper).map_err(|e| io_failure(upper, &e))?;
        for added in &self.files {
            let fail = |source| HostCaError::Io {
                path: added.path.clone(),
                source,
            };
            // Only a directory is walked through here: in an upper directory a link is the step's own.
            let Some(real) = beneath(upper, &added.path) else {
                continue;
            };
            let Ok(metadata) = fs::symlink_metadata(&real) else {
                continue;
            };
            let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
            if whiteout && added.original.is_none() {
                fs::remove_file(&real).map_err(fail)?;
            }
            if !metadata.is_file() || metadata.len() != added.shown.len() as u64 {
                continue;
            }
            let written = root
                .read_file(&added.path, BUNDLE_BYTES_MAX)
                .map_err(|e| io_failure(&added.path, &e))?;
            if written != added.shown {
                continue;
            }
            match &added.original {
                None => fs::remove_file(&real).map_err(fail)?,
                Some(original) => {
                    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = root.open_in(&added.path, flags, Mode::empty());
                    let mut file = File::from(fd.map_err(|e| io_failure(&added.path, &e))?);
                    file.write_all(original).map_err(fail)?;
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        view: &RootFd,
        path: &Path,
        original: Option<Vec<u8>>,
        shown: &[u8],
    ) -> Result<(), HostCaError> {
        let mut made = self.dir.clone();
        let mut walked = PathBuf::from("/");
        self.copy_owner(view, &walked, &made)?;
        for part in path.parent().into_iter().flat_map(Path::iter).skip(1) {
            walked.push(part);
            made.push(part);
            match fs::create_dir(&made) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(HostCaError::Io {
                        path: walked,
                        source: error,
                    });
                }
                _ => self.copy_owner(view, &walked, &made)?,
            }
        }
        made.extend(path.file_name());
        fs::write(&made, shown).map_err(|source| HostCaError::Io {
            path: path.to_owned(),
            source,
        })?;
        self.copy_owner(view, path, &made)?;
        self.files.push(Added {
            path: path.to_owned(),
            original,
            shown: shown.to_vec(),
        });
        Ok(())
    }

    /// A directory or file of this layer hides the image's in the overlay, so it must look like it.
    fn copy_owner(&self, view: &RootFd, path: &Path, made: &Path) -> Result<(), HostCaError> {
        let fail = |source| HostCaError::Io {
            path: path.to_owned(),
            source,
        };
        let (uid, gid, mode) = match view.lstat(path) {
            Ok(stat) => (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777),
            Err(_) if made.is_dir() => (0, 0, 0o755),
            Err(_) => (0, 0, 0o644),
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(made, flags, Mode::empty())
            .and_then(|made| owner::chown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
            .map_err(|errno| fail(errno.into()))?;
        fs::set_permissions(made, fs::Permissions::from_mode(mode)).map_err(fail)
    }
}

/// `path` with its links resolved inside the root, if it ends in a regular file.
fn real_path(view: &RootFd, path: &Path) -> Option<PathBuf> {
    let fd = view
        .open_in(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut real = rbuild_sys::clean(path);
    for _ in 0..8 {
        let (dir, name) = view.parent(&real).ok()?;
        let Ok(target) = rustix::fs::readlinkat(&dir, &name, Vec::new()) else {
            break;
        };
        let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
        real = rbuild_sys::clean(&real.parent()?.join(target));
    }
    // A link among the parents leaves two names for one file; the text is only used if the name is the real one.
    let parents_are_real = real.ancestors().skip(1).all(|dir| {
        view.lstat(dir)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    });
    parents_are_real.then_some(real)
}

/// `path` below `upper`, if every parent is a directory there and no link.
fn beneath(upper: &Path, path: &Path) -> Option<PathBuf> {
    let mut real = upper.to_owned();
    let parts: Vec<_> = path.iter().skip(1).collect();
    let (name, parents) = parts.split_last()?;
    for part in parents {
        real.push(part);
        if !fs::symlink_metadata(&real).is_ok_and(|metadata| metadata.is_dir()) {
            return None;
        }
    }
    real.push(name);
    Some(real)
}

fn io_failure(path: &Path, error: &rbuild_sys::RootFdError) -> HostCaError {
    let source = error
        .errno()
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from);
    HostCaError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nhost\n-----END CERTIFICATE-----\n";

    struct Case {
        dir: tempfile::TempDir,
        ca: HostCa,
    }

    fn case(image: impl Fn(&Path)) -> Case {
        let dir = tempfile::tempdir().unwrap();
        for name in ["image", "lower", "upper"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        image(&dir.path().join("image"));
        fs::write(dir.path().join("host.pem"), PEM).unwrap();
        let bundle = Bundle::load(Some(&dir.path().join("host.pem"))).unwrap();
        let view = RootFd::open(&dir.path().join("image")).unwrap();
        let ca = HostCa::prepare(&bundle, &view, dir.path().join("lower")).unwrap();
        Case { dir, ca }
    }

    fn with_bundle(image: &Path) {
        fs::create_dir_all(image.join("etc/ssl/certs")).unwrap();
        fs::set_permissions(image.join("etc/ssl/certs"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(image.join("etc/ssl/certs/ca-certificates.crt"), "IMAGE").unwrap();
        std::os::unix::fs::symlink("certs/ca-certificates.crt", image.join("etc/ssl/cert.pem")).unwrap();
    }

    #[test]
    fn the_image_keeps_its_own_certificates_and_directories_look_the_same() {
        let case = case(with_bundle);
        let lower = case.dir.path().join("lower");
        let shown = fs::read_to_string(lower.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
        assert_eq!(shown, format!("IMAGE\n{PEM}"));
        assert_eq!(
            fs::metadata(lower.join("etc/ssl/certs")).unwrap().mode() & 0o7777,
            0o711
        );
        assert!(
            !lower.join("etc/ssl/cert.pem").exists(),
            "the link of the image leads to the bundle"
        );
        assert_eq!(
            fs::read_to_string(lower.join("run/rbuild-host-ca.crt")).unwrap(),
            PEM
        );
    }

    #[test]
    fn a_copy_made_by_the_kernel_is_taken_back_and_a_new_bundle_stays() {
        let case = case(with_bundle);
        let (lower, upper) = (case.dir.path().join("lower"), case.dir.path().join("upper"));
        let bundle = "etc/ssl/certs/ca-certificates.crt";
        for path in [bundle, "run/rbuild-host-ca.crt", "run/rbuild-host-ca.jks"] {
            fs::create_dir_all(upper.join(path).parent().unwrap()).unwrap();
            fs::copy(lower.join(path), upper.join(path)).unwrap();
        }
        fs::set_permissions(upper.join(bundle), fs::Permissions::from_mode(0o600)).unwrap();
        case.ca.scrub(&upper).unwrap();
        assert_eq!(fs::read_to_string(upper.join(bundle)).unwrap(), "IMAGE");
        assert_eq!(
            fs::metadata(upper.join(bundle)).unwrap().mode() & 0o777,
            0o600,
            "the step's own change stays"
        );
        assert!(fs::read_dir(upper.join("run")).unwrap().next().is_none());
        fs::write(upper.join(bundle), "NEW BUNDLE").unwrap();
        case.ca.scrub(&upper).unwrap();
        assert_eq!(fs::read_to_string(upper.join(bundle)).unwrap(), "NEW BUNDLE");
    }

    #[test]
    fn variables_of_the_step_win() {
        let own = ["SSL_CERT_FILE=/mine", "JAVA_TOOL_OPTIONS="].map(str::to_owned);
        let found = HostCa::variables(&own);
        assert!(!found.iter().any(|pair| pair.starts_with("SSL_CERT_FILE=")));
        assert!(!found.iter().any(|pair| pair.starts_with("JAVA_")));
        assert!(found.contains(&"PIP_CERT=/run/rbuild-host-ca.crt".to_owned()));
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "not a bundle").unwrap();
        assert!(matches!(
            Bundle::load(Some(&dir.path().join("x"))),
            Err(HostCaError::NotPem(_))
        ));
        assert!(matches!(
            Bundle::load(Some(&dir.path().join("absent"))),
            Err(HostCaError::Io { .. })
        ));
    }
}

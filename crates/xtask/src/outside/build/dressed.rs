//! Base images as projects expect them: those of `cargo xtask bases` with this machine's certificates on top, which steps of
//! any builder then trust, and with what the images that they stand for have besides.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::image::OciLayout;

use super::list::Entry;
use crate::shell;

/// Where Debian keeps the certificates that are trusted, here and in the images.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image that stands for another.
pub(super) struct Context {
    /// As the Dockerfile names it.
    pub(super) image: String,
    /// A layout with it alone.
    pub(super) dir: PathBuf,
    pub(super) digest: String,
}

/// Those made so far.
pub(super) struct Bases<'a> {
    rbuild: &'a Path,
    room: &'a Path,
    made: BTreeMap<DebianBase, (PathBuf, String)>,
}

impl<'a> Bases<'a> {
    pub(super) fn new(rbuild: &'a Path, room: &'a Path) -> Self {
        Self {
            rbuild,
            room,
            made: BTreeMap::new(),
        }
    }

    /// What stands for the images of `entry`.
    pub(super) fn of(&mut self, entry: &Entry) -> Result<Vec<Context>> {
        let mut contexts = Vec::new();
        for (image, base) in &entry.bases {
            let (dir, digest) = match self.made.get(base) {
                Some(made) => made.clone(),
                None => {
                    let made = self
                        .dress(*base)
                        .with_context(|| format!("base {}", base.name()))?;
                    self.made.entry(*base).or_insert(made).clone()
                }
            };
            contexts.push(Context {
                image: image.clone(),
                dir,
                digest,
            });
        }
        Ok(contexts)
    }

    fn dress(&self, base: DebianBase) -> Result<(PathBuf, String)> {
        let context = self.room.join(format!("dress-{}", base.name()));
        fs::create_dir(&context)?;
        fs::copy(CERTIFICATES, context.join("ca.crt"))?;
        let besides = match base {
            // The images of Python name it so, and their pip may install for all.
            DebianBase::Python | DebianBase::PythonSlim => {
                "RUN ln -sf python3 /usr/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"
            }
            DebianBase::Node => "RUN npm install -g yarn@1\n",
            DebianBase::Go => "ENV GOPATH=/go\nWORKDIR /go\n",
            _ => "",
        };
        let variables = [
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
            "PIP_CERT",
            "REQUESTS_CA_BUNDLE",
            "CARGO_HTTP_CAINFO",
        ]
        .map(|name| format!("{name}={CERTIFICATES}"))
        .join(" ");
        let dockerfile = format!("FROM base\nCOPY ca.crt {CERTIFICATES}\nENV {variables}\n{besides}");
        fs::write(context.join("Dockerfile"), dockerfile)?;
        let dir = self.room.join(format!("base-{}", base.name()));
        let mut command = Command::new(self.rbuild);
        command
            .args(["build", "--progress=plain", "--root"])
            .arg(self.room.join("store"));
        command.arg(format!(
            "--build-context=base=oci-layout://{}:{}",
            base.layout()?.display(),
            base.name()
        ));
        command.arg(format!("--output=type=oci,tar=false,dest={}", dir.display()));
        shell::output(command.arg(&context))?;
        let digest = OciLayout::open(&dir)?.image()?.manifest_digest;
        Ok((dir, digest))
    }
}

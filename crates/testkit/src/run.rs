//! Runs images that were built: unpacked by umoci, started by runc. Neither shares code with the product.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::RbuildCommand;
use crate::image::{OciLayout, read_json};
use crate::machine;

/// An image unpacked into a runtime bundle. Needs root, umoci and runc.
#[derive(Debug)]
pub struct Bundle {
    dir: tempfile::TempDir,
    id: String,
}

impl Bundle {
    /// Unpacks the only image of a layout.
    ///
    /// # Errors
    /// A missing tool (with its package), or umoci's refusal.
    pub fn unpack(layout: &OciLayout) -> Result<Self> {
        let umoci = machine::required("umoci", "umoci")?;
        let dir = tempfile::Builder::new().prefix("rbuild-bundle-").tempdir()?;
        let tagged = dir.path().join("layout");
        tag_only_image(layout, &tagged)?;
        let ran = RbuildCommand::new(umoci)
            .args(["unpack", "--image"])
            .arg(format!("{}:image", tagged.display()))
            .arg(dir.path().join("bundle"))
            .run();
        ensure!(ran.status.success(), "umoci refuses the image\n{ran}");
        let id = dir
            .path()
            .file_name()
            .context("a temporary directory has a name")?;
        Ok(Self {
            id: id.to_string_lossy().into_owned(),
            dir,
        })
    }

    /// The root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    /// A command that runs the image under runc in the machine's own network, as its config says unless `args` are
    /// given.
    ///
    /// # Errors
    /// No runc, or no runtime config from umoci.
    pub fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Result<RbuildCommand> {
        let runc = machine::required("runc", "runc")?;
        let path = self.dir.path().join("bundle/config.json");
        let mut config = read_json(&path)?;
        config["process"]["terminal"] = json!(false);
        if !args.is_empty() {
            config["process"]["args"] = json!(args);
        }
        let variables = config["process"]["env"]
            .as_array_mut()
            .context("runtime config without env")?;
        variables.extend(env.iter().map(|(key, value)| json!(format!("{key}={value}"))));
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != "network");
        }
        // With the machine's network a fresh sysfs cannot be mounted in a user namespace; runc itself needs none.
        fs::write(&path, serde_json::to_vec(&config)?)?;
        let state = self.dir.path().join("state");
        Ok(RbuildCommand::new(runc)
            .arg("--root")
            .arg(state)
            .args(["run", "--bundle"])
            .arg(self.dir.path().join("bundle"))
            .arg(&self.id))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Some(runc) = machine::program("runc") {
            // A container that already ended is what is hoped for; there is nothing to report.
            let command = RbuildCommand::new(runc)
                .arg("--root")
                .arg(self.dir.path().join("state"));
            drop(command.args(["delete", "--force", &self.id]).run());
        }
    }
}

/// Copies a layout under the one tag `image`, which tools that want a tag can be given.
///
/// # Errors
/// The file system's, or a layout without exactly one image.
pub fn tag_only_image(layout: &OciLayout, to: &Path) -> Result<()> {
    let image = layout.image()?;
    fs::create_dir_all(to.join("blobs/sha256"))?;
    for entry in fs::read_dir(layout.dir().join("blobs/sha256"))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join("blobs/sha256").join(entry.file_name()))?;
    }
    fs::copy(layout.dir().join("oci-layout"), to.join("oci-layout"))?;
    let mut descriptor: Value = image.descriptor;
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    Ok(fs::write(to.join("index.json"), serde_json::to_vec(&index)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ImageBuilder;

    #[test]
    fn privileged_an_image_of_ours_runs() {
        let dir = tempfile::tempdir().unwrap();
        let bases = OciLayout::open(&crate::base::layout().unwrap()).unwrap();
        let busybox = bases.images().unwrap().swap_remove(0);
        let config = serde_json::json!({"Env": ["PATH=/bin", "WHO=world"], "Cmd": ["sh", "-c", "echo hello $WHO; id -u"]});
        ImageBuilder::new(config)
            .layer(busybox.layer_tar(0).unwrap(), "busybox")
            .write(dir.path(), "t")
            .unwrap();
        let bundle = Bundle::unpack(&OciLayout::open(dir.path()).unwrap()).unwrap();
        assert_eq!(
            bundle.command(&[], &[]).unwrap().ok().stdout_text(),
            "hello world\n0"
        );
        assert_eq!(
            bundle
                .command(&["/bin/echo", "other"], &[])
                .unwrap()
                .ok()
                .stdout_text(),
            "other"
        );
    }
}

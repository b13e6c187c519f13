//! The image config a stage starts from, and what is settled about it at the end.

use rbuild_oci::{History, ImageConfig, Platform};

use crate::lowering::Lowering;
use crate::stage::{StageIndex, StageState};

/// `PATH` where the base image sets none (BuildKit `util/system.DefaultPathEnvUnix`).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Comment of every history entry made here.
pub(crate) const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Config of the empty image.
pub(crate) fn empty(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::default();
    image.set_platform(platform);
    "/".clone_into(&mut image.config.working_dir);
    if platform.os != "windows" {
        image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    image
}

/// Sets a variable where it stands, or appends it; names differ by case.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let same = |old: &&mut String| old.split_once('=').map_or(old.as_str(), |(key, _)| key) == name;
    match env.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

impl Lowering<'_> {
    /// Adds a history entry.
    pub(crate) fn commit(&mut self, index: StageIndex, created_by: String, makes_layer: bool) {
        let created = self.epoch;
        let stage: &mut StageState = &mut self.stages.list[index];
        stage.image.history.push(History {
            created,
            created_by,
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !makes_layer,
            ..History::default()
        });
    }
}

/// Labels of the command line, and the platform that was asked for.
pub(crate) fn finish(lowering: &mut Lowering<'_>, target: StageIndex) {
    let image = &mut lowering.stages.list[target].image;
    for (name, value) in &lowering.options.labels {
        image.config.labels.insert(name.clone(), value.clone());
    }
    if !lowering.implicit_target {
        let wanted = &lowering.target_platform;
        let same = wanted.os == image.os && wanted.architecture == image.architecture;
        image.os.clone_from(&wanted.os);
        image.architecture.clone_from(&wanted.architecture);
        let given = |value: &Option<String>| value.clone().unwrap_or_default();
        if wanted.variant.is_some() || !same {
            image.variant = given(&wanted.variant);
        }
        if wanted.os_version.is_some() || !same {
            image.os_version = given(&wanted.os_version);
        }
        if !wanted.os_features.is_empty() {
            image.os_features.clone_from(&wanted.os_features);
        }
    }
    let platform = image.platform().normalized();
    image.set_platform(&platform);
}

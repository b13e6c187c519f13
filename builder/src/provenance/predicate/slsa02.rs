//! The same in the words of SLSA v0.2 (`ConvertToSLSA02`).

use serde_json::{Value as Json, json};

use super::{BUILD_TYPE_V02, Predicate, put};

impl Predicate {
    pub(super) fn to_v02(&self) -> Json {
        let mut metadata = self.times(["buildInvocationID", "buildStartedOn", "buildFinishedOn"]);
        metadata.insert(
            "completeness".to_owned(),
            json!({
                "parameters": self.complete_request,
                "environment": true,
                "materials": self.complete_materials,
            }),
        );
        metadata.insert("reproducible".to_owned(), self.options.reproducible.into());
        metadata.insert(format!("{BUILD_TYPE_V02}#metadata"), self.metadata());
        let hermetic = format!("{BUILD_TYPE_V02}#hermetic");
        put(&mut metadata, &hermetic, self.hermetic.then_some(true));
        let mut predicate = json!({
            "builder": {"id": self.options.builder_id},
            "buildType": BUILD_TYPE_V02,
            "invocation": {
                "configSource": self.config_source.to_json("entryPoint"),
                "parameters": self.request,
                "environment": self.environment("platform"),
            },
            "metadata": metadata,
        });
        if !self.materials.is_empty() {
            predicate["materials"] = self.materials.clone().into();
        }
        if let Some(config) = &self.details.build_config {
            predicate["buildConfig"] = config.clone();
        }
        predicate
    }
}

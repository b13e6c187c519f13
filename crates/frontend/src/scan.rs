//! What a scanner may look at besides the result: the main context and stages that `BUILDKIT_SBOM_SCAN_CONTEXT` and
//! `BUILDKIT_SBOM_SCAN_STAGE` name (`dockerfile2llb/convert.go`, `SBOMTargets`).

use std::collections::BTreeMap;

use rbuild_dockerfile::shell::Variables as _;
use rbuild_graph::Edge;

use crate::error::FrontendError;
use crate::lowering::Lowering;
use crate::stage::{StageIndex, StageState};

const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
/// Name of the main context among what is scanned.
const MAIN: &str = "context";

/// File systems that are to be scanned, by name; nothing is an empty one.
pub(crate) type ScanTargets = BTreeMap<String, Option<Edge>>;

impl Lowering<'_> {
    /// What is to be scanned besides `target`; `reachable` are the stages it needs. Before stages are taken apart.
    ///
    /// # Errors
    /// Those of making the main context.
    pub(crate) fn scan_targets(
        &mut self,
        target: StageIndex,
        reachable: &[bool],
    ) -> Result<ScanTargets, FrontendError> {
        let mut targets = ScanTargets::new();
        for (index, stage) in self.stages.list.iter().enumerate() {
            let needed = reachable.get(index).copied().unwrap_or(false);
            if index != target && needed && self.is_asked(stage, STAGE) {
                targets.insert(stage.shown_name.clone(), stage.state.edge());
            }
        }
        if self.is_asked(&self.stages.list[target], CONTEXT) {
            let context = self.main_context()?.map(|made| made.edge);
            self.local_paths.matter(context.as_ref());
            targets.insert(MAIN.to_owned(), context);
        }
        Ok(targets)
    }

    /// The last value that `stage` has for `name` decides. Images and what contexts stand for have none, not even that of all stages.
    fn is_asked(&self, stage: &StageState, name: &str) -> bool {
        let is_named = |names: &str| names.split(',').any(|named| named == stage.shown_name);
        let holds = |value: &str| rbuild_dockerfile::csv::boolean(value).unwrap_or_else(|| is_named(value));
        let own = stage.build_args.iter().rev();
        let own = own
            .filter(|(known, _)| known == name)
            .find_map(|(_, value)| value.as_deref());
        stage.is_built && own.or_else(|| self.global_args.get(name)).is_some_and(holds)
    }
}

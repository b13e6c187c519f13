//! What a client says of its operations beside what they do.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use rbuild_graph::progress::ProgressGroup;
use rbuild_graph::{LinuxResources, SourceLocation, SourcePosition, SourceRange, SourceText, VertexMeta};
use rbuild_oci::Digest;

use super::LlbError;
use crate::wire;

/// The side tables of a definition.
pub(super) struct Metadata<'a> {
    metadata: &'a BTreeMap<String, wire::OpMetadata>,
    locations: Option<&'a BTreeMap<String, pb::Locations>>,
    infos: &'a [wire::SourceInfo],
}

impl<'a> Metadata<'a> {
    pub(super) fn new(definition: &'a wire::Definition) -> Self {
        Self {
            metadata: &definition.metadata,
            locations: definition.source.as_ref().map(|source| &source.locations),
            infos: definition
                .source
                .as_ref()
                .map_or(&[], |source| source.infos.as_slice()),
        }
    }

    pub(super) fn sources(&self) -> Vec<SourceText> {
        let text = |info: &wire::SourceInfo| SourceText {
            filename: info.filename.clone(),
            text: info.data.clone(),
            language: info.language.clone(),
            definition: info.definition.clone(),
        };
        self.infos.iter().map(text).collect()
    }

    /// As BuildKit, what is said not to be needed counts too: it has to be known.
    pub(super) fn caps(&self, digest: &str) -> impl Iterator<Item = String> {
        let metadata = self.metadata.get(digest);
        metadata
            .into_iter()
            .flat_map(|metadata| metadata.caps.keys().cloned())
    }

    /// What is known of an operation; its name is still in the description.
    pub(super) fn of(&self, digest: &Digest) -> Result<VertexMeta, LlbError> {
        let locations = self.locations(digest)?;
        let Some(metadata) = self.metadata.get(digest.as_str()) else {
            return Ok(VertexMeta {
                locations,
                ..VertexMeta::default()
            });
        };
        Ok(VertexMeta {
            name: String::new(),
            ignore_cache: metadata.ignore_cache,
            locations,
            progress_group: metadata.progress_group.as_ref().map(|group| ProgressGroup {
                id: group.id.clone(),
                name: group.name.clone(),
                weak: group.weak,
            }),
            description: metadata.description.clone(),
            export_cache: metadata.export_cache.map(|export| export.value),
            caps: metadata.caps.keys().cloned().collect(),
            linux_resources: metadata.linux_resources.as_ref().map(resources),
        })
    }

    fn locations(&self, digest: &Digest) -> Result<Vec<SourceLocation>, LlbError> {
        let found = self
            .locations
            .and_then(|locations| locations.get(digest.as_str()));
        let Some(found) = found else {
            return Ok(Vec::new());
        };
        let location = |location: &pb::Location| {
            let source = usize::try_from(location.source_index).ok();
            let source = source.filter(|source| *source < self.infos.len());
            Ok(SourceLocation {
                source: source.ok_or_else(|| LlbError::SourceIndex {
                    digest: digest.clone(),
                    index: location.source_index,
                    count: self.infos.len(),
                })?,
                ranges: location.ranges.iter().map(range).collect(),
            })
        };
        found.locations.iter().map(location).collect()
    }
}

fn range(range: &pb::Range) -> SourceRange {
    let position = |position: Option<pb::Position>| {
        position.map_or_else(SourcePosition::default, |position| SourcePosition {
            line: position.line,
            character: position.character,
        })
    };
    SourceRange {
        start: position(range.start),
        end: position(range.end),
    }
}

fn resources(resources: &wire::LinuxResources) -> LinuxResources {
    LinuxResources {
        memory: resources.memory,
        memory_swap: resources.memory_swap,
        cpu_shares: resources.cpu_shares,
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
    }
}

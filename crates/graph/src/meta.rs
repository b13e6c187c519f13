//! What is known of a vertex beside its operation: its name, where it stands in a text, what it may use. None of it
//! takes part in a digest (BuildKit's `OpMetadata` and `Source` in `solver/pb/ops.proto`).

use std::collections::{BTreeMap, BTreeSet};

use crate::progress::ProgressGroup;

/// What is known of a vertex beside its operation. Not part of its digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VertexMeta {
    /// Name shown, such as `[build 2/4] RUN make`.
    pub name: String,
    /// Never take it from the cache.
    pub ignore_cache: bool,
    /// Where it stands in the texts it comes from.
    pub locations: Vec<SourceLocation>,
    /// Vertices it is shown as one with.
    pub progress_group: Option<ProgressGroup>,
    /// Words of the client about it that the solver does not read, the name apart.
    pub description: BTreeMap<String, String>,
    /// Whether a cache export may hold it; the exporter's choice if absent.
    pub export_cache: Option<bool>,
    /// API capabilities the client says it needs.
    pub caps: BTreeSet<String>,
    /// Limits of its cgroup.
    pub linux_resources: Option<LinuxResources>,
}

impl VertexMeta {
    /// Takes in what somebody else who asked for the same vertex says of it: the other's words count, and the places are
    /// behind those that are known (`mergeMetadata` in `client/llb/state.go`).
    pub fn extend(&mut self, other: &Self) {
        self.name.clone_from(&other.name);
        self.ignore_cache |= other.ignore_cache;
        self.locations.extend(other.locations.iter().cloned());
        for (key, value) in &other.description {
            self.description.insert(key.clone(), value.clone());
        }
        self.export_cache = other.export_cache.or(self.export_cache);
        self.caps.extend(other.caps.iter().cloned());
        if other.progress_group.is_some() {
            self.progress_group.clone_from(&other.progress_group);
        }
        if other.linux_resources.is_some() {
            self.linux_resources.clone_from(&other.linux_resources);
        }
    }

    /// The lines it comes from: from the first to the last of its first location.
    #[must_use]
    pub fn span(&self) -> Option<SourceSpan> {
        let location = self.locations.first()?;
        let line = |position: &SourcePosition| u32::try_from(position.line).ok().filter(|line| *line > 0);
        let start = location
            .ranges
            .iter()
            .filter_map(|range| line(&range.start))
            .min()?;
        let end = location.ranges.iter().filter_map(|range| line(&range.end)).max();
        Some(SourceSpan {
            source: location.source,
            start,
            end: end.unwrap_or(start).max(start),
        })
    }
}

/// Lines of a text, 1-based and inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpan {
    /// Index into [`crate::Graph::sources`].
    pub source: usize,
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// Places in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    /// Index into [`crate::Graph::sources`].
    pub source: usize,
    /// The places.
    pub ranges: Vec<SourceRange>,
}

impl SourceLocation {
    /// Whole lines of a text, 1-based and inclusive: each is a range of its own, as of BuildKit's parser
    /// (`parser/errors.go`). More than 256 are one range.
    #[must_use]
    pub fn lines(source: usize, first: u32, last: u32) -> Self {
        let position = |line: u32| SourcePosition {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        let range = |first: u32, last: u32| SourceRange {
            start: position(first),
            end: position(last),
        };
        let ranges = if last.saturating_sub(first) < SINGLE_LINES_MAX {
            (first..=last.max(first)).map(|line| range(line, line)).collect()
        } else {
            vec![range(first, last)]
        };
        Self { source, ranges }
    }

    /// First and last line of each place that is of lines.
    #[must_use]
    pub fn line_numbers(&self) -> Vec<(u32, u32)> {
        let line = |position: SourcePosition| u32::try_from(position.line).ok();
        let lines = |range: &SourceRange| Some((line(range.start)?, line(range.end)?));
        self.ranges.iter().filter_map(lines).collect()
    }
}

/// Lines of an instruction that are told one by one.
const SINGLE_LINES_MAX: u32 = 256;

/// From one place to another, both within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceRange {
    /// First place.
    pub start: SourcePosition,
    /// Last place.
    pub end: SourcePosition,
}

/// A place in a text. Numbers are the client's, so they may be of no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourcePosition {
    /// Line, 1-based.
    pub line: i32,
    /// Character in the line; 0 if not known.
    pub character: i32,
}

/// A Dockerfile (or other text) the graph came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceText {
    /// File name as the user gave it.
    pub filename: String,
    /// Content.
    pub text: Vec<u8>,
    /// What it is written in, such as `Dockerfile`; empty if not known.
    pub language: String,
    /// Where the text came from: an encoded `pb.Definition`.
    pub definition: Option<Vec<u8>>,
}

impl SourceText {
    /// Whether `other` is the same text from the same place, as far as places are known (`client/llb/sourcemap.go`,
    /// `equalSourceMap`).
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let place = match (&self.definition, &other.definition) {
            (Some(own), Some(others)) => own == others,
            _ => true,
        };
        place && self.filename == other.filename && self.language == other.language && self.text == other.text
    }
}

/// Limits of a step's cgroup; 0 and empty are "no limit". Not part of a key: they change how long a step takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinuxResources {
    /// Memory, bytes.
    pub memory: i64,
    /// Memory and swap, bytes; -1 for no limit.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: u64,
    /// Period of the quota, microseconds.
    pub cpu_period: u64,
    /// Quota, microseconds.
    pub cpu_quota: i64,
    /// Processors, such as `0-3`.
    pub cpuset_cpus: String,
    /// Memory nodes, such as `0,1`.
    pub cpuset_mems: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_covers_all_ranges_of_the_first_location() {
        let mut meta = VertexMeta::default();
        assert_eq!(meta.span(), None);
        let mut location = SourceLocation::lines(2, 5, 6);
        location.ranges.push(SourceLocation::lines(2, 3, 4).ranges[0]);
        meta.locations = vec![location, SourceLocation::lines(0, 1, 99)];
        let span = SourceSpan {
            source: 2,
            start: 3,
            end: 6,
        };
        assert_eq!(meta.span(), Some(span));
    }

    #[test]
    fn each_line_is_a_place_but_not_of_a_very_long_instruction() {
        let lines = |first, last| SourceLocation::lines(0, first, last).line_numbers();
        assert_eq!(lines(3, 3), [(3, 3)]);
        assert_eq!(lines(3, 5), [(3, 3), (4, 4), (5, 5)]);
        assert_eq!(lines(1, 1_000_000), [(1, 1_000_000)]);
        assert_eq!(lines(1, 256).len(), 256);
    }

    #[test]
    fn places_that_are_no_lines_give_no_span() {
        let mut meta = VertexMeta {
            locations: vec![SourceLocation {
                source: 0,
                ranges: vec![SourceRange::default()],
            }],
            ..VertexMeta::default()
        };
        assert_eq!(meta.span(), None);
        meta.locations[0].ranges[0].start.line = 7;
        meta.locations[0].ranges[0].end.line = -1;
        assert_eq!(meta.span().map(|span| (span.start, span.end)), Some((7, 7)));
    }
}

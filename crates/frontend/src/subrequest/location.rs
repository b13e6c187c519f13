//! Lines in answers, as `pb.Location` in Go's JSON: one range for each line, columns 0 and therefore left out.

use std::collections::BTreeSet;

use rbuild_dockerfile::Span;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// Lines of the only source; none if the first line is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Location(pub Span);

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let has_lines = self.0.start > 0;
        let mut location = to.serialize_struct("Location", usize::from(has_lines))?;
        if has_lines {
            location.serialize_field("ranges", &Ranges(self.0))?;
        }
        location.end()
    }
}

/// Lines of the only source that several places make together, each once and in the order of the file (`mergeLocations` of
/// `dockerfile2llb/convert.go`). Places of an error begin at line 1: one that has none is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Locations<'a>(pub(crate) &'a [Span]);

impl Serialize for Locations<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [] => Location::default().serialize(to),
            [one] => Location(*one).serialize(to),
            several => {
                let lines = several.iter().flat_map(|span| span.start..=span.end);
                let lines: BTreeSet<u32> = lines.collect();
                let ranges: Vec<Range> = lines.into_iter().map(Range::line).collect();
                let mut location = to.serialize_struct("Location", 1)?;
                location.serialize_field("ranges", &ranges)?;
                location.end()
            }
        }
    }
}

struct Ranges(Span);

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // One after the other into the writer: a span may be long, and there may be many of them.
        to.collect_seq((self.0.start..=self.0.end).map(Range::line))
    }
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

impl Range {
    const fn line(line: u32) -> Self {
        Self {
            start: Position { line },
            end: Position { line },
        }
    }
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

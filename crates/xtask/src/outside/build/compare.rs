//! Two images of one project, made at two times: what must be the same of them, and what may differ.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::Result;
use rbuild_testkit::conformance::ObservedImage;
use rbuild_testkit::image::{Image, OciLayout};

/// Differing paths that are named.
const SHOWN: usize = 3;

/// What was found.
pub(super) struct Compared {
    layers: [usize; 2],
    entries: usize,
    metadata: bool,
    /// Paths that one has alone, or that are another kind of file, of another mode or owner.
    paths: Vec<String>,
    /// Of the files that both have, those with other contents.
    contents: usize,
}

impl Compared {
    /// Layers of `bases` are the same by their digests, and are not looked into.
    pub(super) fn of(ours: &Path, theirs: &Path, bases: &[Image]) -> Result<Self> {
        let observed = |dir: &Path| ObservedImage::of(&OciLayout::open(dir)?.image()?, bases);
        let (ours, theirs) = (observed(ours)?, observed(theirs)?);
        let (have, want) = (ours.files(), theirs.files());
        let names: BTreeSet<&String> = have.keys().chain(want.keys()).collect();
        let mut paths = Vec::new();
        let mut contents = 0;
        for name in names {
            let (have, want) = (have.get(name), want.get(name));
            if attributes(have) != attributes(want) {
                let line = |side: Option<&String>| {
                    attributes(side).map_or("nothing".to_owned(), |words| words.join(" "))
                };
                paths.push(format!("`/{name}`: {}, not {}", line(have), line(want)));
            } else if have != want {
                contents += 1;
            }
        }
        Ok(Self {
            layers: [ours.layers.len(), theirs.layers.len()],
            entries: want.len(),
            metadata: ours.config == theirs.config
                && ours.history == theirs.history
                && ours.base_layers == theirs.base_layers,
            paths,
            contents,
        })
    }

    /// What must not be.
    pub(super) fn unlike(&self) -> Option<String> {
        if !self.metadata {
            return Some("config or history differ".to_owned());
        }
        (self.layers[0] != self.layers[1])
            .then(|| format!("{} layers, not {}", self.layers[0], self.layers[1]))
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = if self.metadata { "same" } else { "OTHER" };
        write!(
            f,
            "{metadata} config and history, {} layers of its own, {} entries",
            self.layers[0], self.entries
        )?;
        match self.paths.len() {
            0 => write!(f, " alike")?,
            count => {
                let shown: Vec<&str> = self.paths.iter().take(SHOWN).map(String::as_str).collect();
                write!(
                    f,
                    ", {count} not alike ({})",
                    shown.join("; ").replace('|', "\\|")
                )?;
            }
        }
        write!(f, ", {} with other contents", self.contents)
    }
}

/// Kind, mode and owner of a line of [`ObservedImage`]; all of it if it is no file.
fn attributes(line: Option<&String>) -> Option<Vec<&str>> {
    let words = line?.split(' ');
    Some(match line?.starts_with('f') {
        true => words.take(3).collect(),
        false => words.collect(),
    })
}

//! Judges what was noted: of the target and its bases what ends up in the image, of all stages what costs time or cannot run.

use std::collections::BTreeSet;

use crate::advice::loader::{self, Built, How, Libc};
use crate::advice::{Advice, CopyNote, Note, NoteKind, RunNote, ownership};
use crate::lint::{Linter, Rule};
use crate::lowering::Lowering;
use crate::stage::{StageIndex, Stages};

/// Longest chain of stages that is followed.
const CHAIN_MAX: usize = 1000;

/// Warns of everything that is wrong with what was noted.
pub(crate) fn conclude(lowering: &mut Lowering<'_>, target: StageIndex) {
    if !lowering.advice.wanted {
        return;
    }
    let advice = std::mem::take(&mut lowering.advice);
    let judge = Judge {
        advice: &advice,
        stages: &lowering.stages,
    };
    in_image(&mut lowering.lint, &judge.chain(target));
    for notes in advice.notes.values() {
        before_install(&mut lowering.lint, notes);
    }
    for stage in advice.notes.keys() {
        judge.loaders(&mut lowering.lint, *stage);
    }
}

struct Judge<'a> {
    advice: &'a Advice,
    stages: &'a Stages,
}

impl<'a> Judge<'a> {
    /// `stage` and what it is based on, first the lowest.
    fn bases(&self, stage: StageIndex) -> Vec<StageIndex> {
        let base = |stage: &StageIndex| self.stages.list[*stage].base;
        let mut chain: Vec<_> = std::iter::successors(Some(stage), base).take(CHAIN_MAX).collect();
        chain.reverse();
        chain
    }

    fn chain(&self, stage: StageIndex) -> Vec<&'a Note> {
        let advice: &'a Advice = self.advice;
        let notes = |index: &StageIndex| advice.notes.get(index);
        self.bases(stage).iter().filter_map(notes).flatten().collect()
    }

    /// The C library of what the stage stands on.
    fn libc(&self, stage: StageIndex) -> Option<Libc> {
        let root = *self.bases(stage).first()?;
        let root = &self.stages.list[root];
        // Somebody gave an image in its place, and it says nothing of itself.
        let replaced = root.named_context.is_some();
        Libc::of(&root.base_name).filter(|_| !replaced)
    }

    /// Programs linked against glibc that `stage` copies from another one and cannot run.
    fn loaders(&self, lint: &mut Linter, stage: StageIndex) {
        let Some(libc @ (Libc::Musl | Libc::Empty)) = self.libc(stage) else {
            return;
        };
        let helped = |note: &&Note| match &note.kind {
            NoteKind::Run(run) => run.installs_glibc,
            NoteKind::Copy(copy) => copy.sources.iter().any(|source| loader::brings_loader(source)),
        };
        if self.chain(stage).iter().any(helped) {
            return;
        }
        for note in &self.advice.notes[&stage] {
            let NoteKind::Copy(copy) = &note.kind else {
                continue;
            };
            if let Some((path, how)) = self.needy(copy) {
                let message = format!(
                    "{path} needs the loader of glibc, and this is {}: {}",
                    libc.lack(),
                    how.remedy()
                );
                lint.warn(Rule::MissingLoader, message, note.span, &note.comments);
            }
        }
    }

    /// The first program of a COPY that needs glibc's loader.
    fn needy<'n>(&self, copy: &'n CopyNote) -> Option<(&'n str, How)> {
        let from = copy.from?;
        if self.libc(from) != Some(Libc::Glibc) {
            return None;
        }
        let notes = self.chain(from);
        let built: Vec<&Built> = notes
            .iter()
            .filter_map(|note| note.run())
            .flat_map(|run| &run.built)
            .collect();
        // What a step or a COPY of its own put there may be anything.
        let of_its_own = |path: &str| {
            notes.iter().any(|note| match &note.kind {
                NoteKind::Run(run) => run.named.contains(path),
                NoteKind::Copy(copy) => path.starts_with(&copy.destination) && copy.destination != "/",
            })
        };
        copy.sources.iter().find_map(|path| {
            let packaged = || (loader::is_packaged(path) && !of_its_own(path)).then_some(How::Packaged);
            let how = loader::how(&built, path).or_else(packaged)?;
            Some((path.as_str(), how))
        })
    }
}

impl Note {
    const fn run(&self) -> Option<&RunNote> {
        match &self.kind {
            NoteKind::Run(run) => Some(run),
            NoteKind::Copy(_) => None,
        }
    }
}

fn in_image(lint: &mut Linter, notes: &[&Note]) {
    let mut copies = ownership::Copies::default();
    for note in notes {
        match &note.kind {
            NoteKind::Copy(copy) if copy.tree => copies.add(&copy.destination, note.span.start),
            NoteKind::Copy(_) => {}
            NoteKind::Run(run) => {
                for leaves in &run.leaves {
                    lint.warn(
                        Rule::PackageCacheInLayer,
                        leaves.message(),
                        note.span,
                        &note.comments,
                    );
                }
                if let Some(message) = run.changes.iter().find_map(|change| copies.message(change)) {
                    lint.warn(Rule::CopiedTreeChanged, message, note.span, &note.comments);
                }
            }
        }
    }
}

/// The whole context before what needs only a few of its files: any change of it installs everything again.
fn before_install(lint: &mut Linter, notes: &[Note]) {
    let mut whole: Option<&Note> = None;
    let mut installed: BTreeSet<&str> = BTreeSet::new();
    for note in notes {
        match &note.kind {
            NoteKind::Copy(copy) if copy.whole => whole = whole.or(Some(note)),
            NoteKind::Copy(_) => {}
            NoteKind::Run(run) => {
                let Some(tool) = run.installs else { continue };
                // The second time is for what the source itself adds.
                if !installed.insert(tool) {
                    continue;
                }
                let Some(copy) = whole else { continue };
                let message = format!(
                    "Any change of the context repeats '{tool}' in line {}: copy the files that list the dependencies first, the rest after it",
                    note.span.start
                );
                lint.warn(Rule::SourceBeforeDependencies, message, copy.span, &copy.comments);
                return;
            }
        }
    }
}

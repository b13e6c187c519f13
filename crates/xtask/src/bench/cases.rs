//! What is measured: the cases of the design's table "Numbers to beat", then those that moby/buildkit-bench measures.

use anyhow::Result;

use super::contexts::{self, Room};

/// Fills a room for a case; the second argument is the base image's name.
type Fill = fn(&Room, &str) -> Result<()>;
/// Changes something before a timed run; the second argument counts the runs.
type Before = fn(&Room, usize) -> Result<()>;

/// How the layers of the output are compressed, where a case asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One thing to measure.
pub(super) struct Case {
    /// For file names.
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// Whether the first build is not timed and its cache kept.
    pub(super) warm: bool,
    /// `None` is what the tool does unasked: gzip.
    pub(super) compression: Option<Compression>,
    /// Whether the context's file `key` is given as the secret of that name.
    pub(super) secret: bool,
    /// Builds at once, each of a context of its own.
    pub(super) at_once: usize,
    pub(super) fill: Fill,
    pub(super) before_run: Before,
}

impl Case {
    pub(super) fn cold(name: &'static str, about: &'static str, fill: Fill) -> Self {
        Self {
            name,
            about,
            warm: false,
            compression: None,
            secret: false,
            at_once: 1,
            fill,
            before_run: |_, _| Ok(()),
        }
    }

    pub(super) fn warm(name: &'static str, about: &'static str, fill: Fill) -> Self {
        Self {
            warm: true,
            ..Self::cold(name, about, fill)
        }
    }

    fn compressed(self, compression: Compression) -> Self {
        Self {
            compression: Some(compression),
            ..self
        }
    }

    fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    /// Every case.
    pub(super) fn all() -> Vec<Self> {
        let mut cases = numbers_to_beat();
        cases.extend(of_buildkit_bench());
        cases
    }
}

fn numbers_to_beat() -> Vec<Case> {
    vec![
        Case::warm(
            "nothing-changed",
            "nothing changed, 2 stages",
            contexts::two_stages,
        ),
        Case::cold(
            "cold",
            "2 stages cold, pull from a local registry included",
            contexts::two_stages,
        ),
        Case::cold("one-step", "1 RUN step cold", |room, base| {
            contexts::steps(room, base, 1)
        }),
        Case::cold("fifty-steps", "50 RUN steps cold", |room, base| {
            contexts::steps(room, base, 50)
        }),
        Case::cold(
            "sixteen-stages",
            "16 stages that each sleep 0.5 s, then 16 COPY --from",
            contexts::sleeping_stages,
        ),
        Case::cold(
            "copy-cold",
            "COPY of 30,000 files (98 MB), cold",
            contexts::many_files,
        ),
        Case::warm(
            "copy-nothing-changed",
            "the same, nothing changed",
            contexts::many_files,
        ),
        Case {
            before_run: contexts::change_one,
            ..Case::warm(
                "copy-one-changed",
                "the same, one file changed",
                contexts::many_files,
            )
        },
        Case::cold(
            "copy-large",
            "COPY of one 300 MB text-like file, cold",
            contexts::large_file,
        ),
    ]
}

fn of_buildkit_bench() -> Vec<Case> {
    let large = |name, about| Case::cold(name, about, contexts::large_file);
    let many = |name, about| Case::cold(name, about, contexts::one_each);
    vec![
        large("export-uncompressed", "the same file, layers not compressed").compressed(Compression::None),
        large("export-gzip", "the same file, gzip asked for").compressed(Compression::Gzip),
        large("export-zstd", "the same file, zstd").compressed(Compression::Zstd),
        Case {
            secret: true,
            ..Case::cold("secret", "1 RUN step with a secret, cold", contexts::secret)
        },
        Case::cold(
            "add-tar-many",
            "ADD of a tar of 30,000 files, cold",
            contexts::tar_of_many,
        ),
        Case::cold(
            "add-tar-large",
            "ADD of a tar of one 300 MB file, cold",
            contexts::tar_of_one,
        ),
        many("at-once-16", "16 builds at once, one store, cold").at_once(16),
        many("at-once-32", "32 builds at once").at_once(32),
        many("at-once-64", "64 builds at once").at_once(64),
        many("at-once-128", "128 builds at once").at_once(128),
    ]
}

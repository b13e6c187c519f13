//! What is measured: the cases of the design's table "Numbers to beat".

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rbuild_testkit::context::noise;

/// Files of the large copies.
const FILES: usize = 30_000;

/// A directory for one tool and case: context, store, output.
#[derive(Debug)]
pub(super) struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rbuild-bench-").tempdir()?;
        fs::create_dir(dir.path().join("context"))?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn dockerfile(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.context().join("Dockerfile"), text)?)
    }
}

/// Fills a room for a case; the second argument is the base image's name.
type Fill = fn(&Room, &str) -> Result<()>;
/// Changes something before a timed run; the second argument counts the runs.
type Before = fn(&Room, usize) -> Result<()>;

/// One thing to measure.
pub(super) struct Case {
    /// For file names.
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// Whether the first build is not timed and its cache kept.
    pub(super) warm: bool,
    pub(super) fill: Fill,
    pub(super) before_run: Before,
}

impl Case {
    /// Every case.
    pub(super) fn all() -> Vec<Self> {
        let case = |name, about, warm, fill: Fill, before_run: Before| Self {
            name,
            about,
            warm,
            fill,
            before_run,
        };
        vec![
            case(
                "nothing-changed",
                "nothing changed, 2 stages",
                true,
                two_stages,
                nothing,
            ),
            case(
                "cold",
                "2 stages cold, pull from a local registry included",
                false,
                two_stages,
                nothing,
            ),
            case(
                "one-step",
                "1 RUN step cold",
                false,
                |room, base| steps(room, base, 1),
                nothing,
            ),
            case(
                "fifty-steps",
                "50 RUN steps cold",
                false,
                |room, base| steps(room, base, 50),
                nothing,
            ),
            case(
                "sixteen-stages",
                "16 stages that each sleep 0.5 s, then 16 COPY --from",
                false,
                stages,
                nothing,
            ),
            case(
                "copy-cold",
                "COPY of 30,000 files (98 MB), cold",
                false,
                many_files,
                nothing,
            ),
            case(
                "copy-nothing-changed",
                "the same, nothing changed",
                true,
                many_files,
                nothing,
            ),
            case(
                "copy-one-changed",
                "the same, one file changed",
                true,
                many_files,
                change_one,
            ),
            case(
                "copy-large",
                "COPY of one 300 MB text-like file, cold",
                false,
                large_file,
                nothing,
            ),
        ]
    }
}

fn nothing(_room: &Room, _run: usize) -> Result<()> {
    Ok(())
}

fn two_stages(room: &Room, base: &str) -> Result<()> {
    fs::write(room.context().join("a"), "a\n")?;
    room.dockerfile(&format!(
        "FROM {base} AS build\nCOPY a /a\nRUN cat /a > /b\nFROM {base}\nCOPY --from=build /b /b\nRUN cat /b > /c\n"
    ))
}

fn steps(room: &Room, base: &str, count: usize) -> Result<()> {
    let mut text = format!("FROM {base}\n");
    for step in 0..count {
        writeln!(text, "RUN echo {step} > /step")?;
    }
    room.dockerfile(&text)
}

fn stages(room: &Room, base: &str) -> Result<()> {
    let mut text = String::new();
    for stage in 0..16 {
        writeln!(
            text,
            "FROM {base} AS s{stage}\nRUN sleep 0.5; echo {stage} > /f{stage}"
        )?;
    }
    writeln!(text, "FROM {base}")?;
    for stage in 0..16 {
        writeln!(text, "COPY --from=s{stage} /f{stage} /")?;
    }
    room.dockerfile(&text)
}

fn many_files(room: &Room, base: &str) -> Result<()> {
    let bytes = noise(98 << 20);
    let size = bytes.len() / FILES;
    for (number, chunk) in bytes.chunks(size).take(FILES).enumerate() {
        let dir = room.context().join(format!("src/d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("f{number}")), chunk)?;
    }
    room.dockerfile(&format!("FROM {base}\nCOPY src /src\n"))
}

fn change_one(room: &Room, run: usize) -> Result<()> {
    Ok(fs::write(
        room.context().join("src/d7/f700"),
        format!("changed in run {run}\n"),
    )?)
}

fn large_file(room: &Room, base: &str) -> Result<()> {
    // Words of a small vocabulary in an order that does not repeat: compresses like source text.
    let order = noise(60 << 20);
    let mut text = Vec::with_capacity(300 << 20);
    for byte in order.iter().cycle() {
        if text.len() >= 300 << 20 {
            break;
        }
        text.extend_from_slice(format!("w{byte:x} ").as_bytes());
    }
    fs::write(room.context().join("large"), text)?;
    room.dockerfile(&format!("FROM {base}\nCOPY large /large\n"))
}

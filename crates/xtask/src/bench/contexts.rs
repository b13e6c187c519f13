//! What the cases build: rooms of contexts, and what fills them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rbuild_testkit::context::noise;

use crate::shell;

/// Files of the large copies.
const FILES: usize = 30_000;
/// Bytes of them together.
const FILES_BYTES: u64 = 98 << 20;
/// Bytes of the large file.
const LARGE_BYTES: usize = 300 << 20;

/// A directory for one tool and case: contexts, store, outputs.
#[derive(Debug)]
pub(super) struct Room {
    dir: tempfile::TempDir,
    contexts: usize,
}

impl Room {
    pub(super) fn new(contexts: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rbuild-bench-").tempdir()?;
        let room = Self { dir, contexts };
        for context in 0..contexts {
            fs::create_dir(room.context(context))?;
        }
        Ok(room)
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn context(&self, context: usize) -> PathBuf {
        self.path().join(format!("context{context}"))
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        Ok(fs::write(self.context(0).join(path), content)?)
    }

    fn dockerfile(&self, text: &str) -> Result<()> {
        self.file("Dockerfile", text)
    }
}

pub(super) fn two_stages(room: &Room, base: &str) -> Result<()> {
    room.file("a", "a\n")?;
    room.dockerfile(&format!(
        "FROM {base} AS build\nCOPY a /a\nRUN cat /a > /b\nFROM {base}\nCOPY --from=build /b /b\nRUN cat /b > /c\n"
    ))
}

/// A build of its own in each context, as on a machine that many jobs share.
pub(super) fn one_each(room: &Room, base: &str) -> Result<()> {
    for context in 0..room.contexts {
        let dir = room.context(context);
        fs::write(dir.join("a"), format!("{context}\n"))?;
        fs::write(
            dir.join("Dockerfile"),
            format!("FROM {base}\nCOPY a /a\nRUN cat /a > /b\n"),
        )?;
    }
    Ok(())
}

pub(super) fn steps(room: &Room, base: &str, count: usize) -> Result<()> {
    let mut text = format!("FROM {base}\n");
    for step in 0..count {
        writeln!(text, "RUN echo {step} > /step")?;
    }
    room.dockerfile(&text)
}

pub(super) fn sleeping_stages(room: &Room, base: &str) -> Result<()> {
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

/// Stages that only copy, and one that copies from each.
pub(super) fn copying_stages(room: &Room, base: &str, count: usize) -> Result<()> {
    room.file("a", "a\n")?;
    let mut text = String::new();
    for stage in 0..count {
        writeln!(text, "FROM {base} AS s{stage}\nCOPY a /f{stage}")?;
    }
    writeln!(text, "FROM scratch")?;
    for stage in 0..count {
        writeln!(text, "COPY --from=s{stage} /f{stage} /")?;
    }
    room.dockerfile(&text)
}

pub(super) fn layers(room: &Room, base: &str, count: usize) -> Result<()> {
    room.file("a", "a\n")?;
    let mut text = format!("FROM {base}\n");
    for layer in 0..count {
        writeln!(text, "COPY a /f{layer}")?;
    }
    room.dockerfile(&text)
}

pub(super) fn secret(room: &Room, base: &str) -> Result<()> {
    room.file("key", "not told to anybody\n")?;
    room.dockerfile(&format!(
        "FROM {base}\nRUN --mount=type=secret,id=key wc -c < /run/secrets/key > /size\n"
    ))
}

pub(super) fn many_files(room: &Room, base: &str) -> Result<()> {
    files(room, FILES, FILES_BYTES)?;
    room.dockerfile(&format!("FROM {base}\nCOPY src /src\n"))
}

pub(super) fn some_files(room: &Room, base: &str, count: usize) -> Result<()> {
    files(room, count, count as u64 * (FILES_BYTES / FILES as u64))?;
    room.dockerfile(&format!("FROM {base}\nCOPY src /src\n"))
}

fn files(room: &Room, count: usize, bytes: u64) -> Result<()> {
    let bytes = noise(bytes);
    let size = bytes.len() / count;
    for (number, chunk) in bytes.chunks(size).take(count).enumerate() {
        let dir = room.context(0).join(format!("src/d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("f{number}")), chunk)?;
    }
    Ok(())
}

pub(super) fn change_one(room: &Room, run: usize) -> Result<()> {
    room.file("src/d7/f700", format!("changed in run {run}\n"))
}

pub(super) fn large_file(room: &Room, base: &str) -> Result<()> {
    room.file("large", large_text())?;
    room.dockerfile(&format!("FROM {base}\nCOPY large /large\n"))
}

pub(super) fn tar_of_many(room: &Room, base: &str) -> Result<()> {
    files(room, FILES, FILES_BYTES)?;
    archive(room, "src")?;
    fs::remove_dir_all(room.context(0).join("src"))?;
    room.dockerfile(&format!("FROM {base}\nADD archive.tar /\n"))
}

pub(super) fn tar_of_one(room: &Room, base: &str) -> Result<()> {
    room.file("large", large_text())?;
    archive(room, "large")?;
    fs::remove_file(room.context(0).join("large"))?;
    room.dockerfile(&format!("FROM {base}\nADD archive.tar /\n"))
}

fn archive(room: &Room, name: &str) -> Result<()> {
    let context = room.context(0);
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&context).arg("-cf");
    shell::output(tar.arg(context.join("archive.tar")).arg(name)).map(drop)
}

/// Words of a small vocabulary in an order that does not repeat: compresses like source text.
fn large_text() -> Vec<u8> {
    let order = noise(60 << 20);
    let mut text = Vec::with_capacity(LARGE_BYTES);
    for byte in order.iter().cycle() {
        if text.len() >= LARGE_BYTES {
            break;
        }
        text.extend_from_slice(format!("w{byte:x} ").as_bytes());
    }
    text
}

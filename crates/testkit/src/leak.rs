//! The search for a value that must not have got out: in any coding that keeping it by mistake would give it, with
//! compression taken off, and in the files of archives.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::facts::hex;
use crate::image::decompressed;

/// As it is, in hexadecimal, percent-encoded as a whole, and in base64 from its first, second or third byte on.
fn codings(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let percent = bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").expect("a string takes it");
        text
    });
    let mut all = vec![
        value.to_owned(),
        hex(bytes),
        hex(bytes).to_uppercase(),
        percent.to_lowercase(),
        percent,
    ];
    // In a longer text its groups of three begin at one of these; only whole groups look the same whatever follows.
    all.extend((0..3).map(|start| {
        let whole = (bytes.len() - start) / 3 * 3;
        STANDARD_NO_PAD.encode(&bytes[start..start + whole])
    }));
    all.into_iter().map(String::into_bytes).collect()
}

/// Whether `value` is in these bytes in any coding.
///
/// # Panics
/// If `value` is too short to be told from chance.
#[must_use]
pub fn holds(bytes: &[u8], value: &str) -> bool {
    assert!(value.len() >= 8, "{value:?} may be anywhere");
    let needles = codings(value);
    let mut first = [false; 256];
    for needle in &needles {
        first[usize::from(needle[0])] = true;
    }
    Search { needles, first }.finds(bytes, 0)
}

/// An image in an archive is a compressed archive in an archive; a file of it may be one again.
const NESTED_MAX: usize = 5;

struct Search {
    needles: Vec<Vec<u8>>,
    first: [bool; 256],
}

impl Search {
    fn finds(&self, bytes: &[u8], nested: usize) -> bool {
        if self.stands_in(bytes) {
            return true;
        }
        if nested == NESTED_MAX {
            return false;
        }
        match decompressed(bytes) {
            Ok(plain) if plain != bytes => return self.finds(&plain, nested + 1),
            _ => {}
        }
        // Names, links and attributes were seen above: an archive does not code them.
        let is_archive = bytes.get(257..262) == Some(b"ustar");
        is_archive
            && tar::Archive::new(bytes).entries().is_ok_and(|mut entries| {
                entries.any(|entry| {
                    let mut content = Vec::new();
                    let read = entry.and_then(|mut entry| entry.read_to_end(&mut content));
                    read.is_ok()
                        && decompressed(&content).is_ok_and(|plain| plain != content)
                        && self.finds(&content, nested + 1)
                })
            })
    }

    fn stands_in(&self, bytes: &[u8]) -> bool {
        (0..bytes.len()).any(|at| {
            self.first[usize::from(bytes[at])]
                && self.needles.iter().any(|needle| bytes[at..].starts_with(needle))
        })
    }
}

/// Files below `dir` that hold `value` in their bytes or their names. What vanishes meanwhile holds nothing.
#[must_use]
pub fn holders(dir: &Path, value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let mut bytes = Vec::new();
        if metadata.is_dir() {
            let below = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(below.map(|entry| entry.path()));
        } else if metadata.is_file() {
            bytes = fs::read(&path).unwrap_or_default();
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_default();
            bytes = target.into_os_string().into_encoded_bytes();
        }
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if holds(&bytes, value) || holds(name, value) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Attributes, LayerBuilder};

    #[test]
    fn each_coding_is_found_plain_and_compressed() {
        let value = "s3cr3t/Va1ue";
        for held in [
            "before s3cr3t/Va1ue after",
            "x7333637233742f5661317565x",
            "7333637233742F5661317565",
            "%73%33%63%72%33%74%2f%56%61%31%75%65",
            "czNjcjN0L1ZhMXVl",
            "IHMzY3IzdC9WYTF1ZQ==",
            "ICBzM2NyM3QvVmExdWU=",
        ] {
            assert!(holds(held.as_bytes(), value), "{held}");
            let packed = crate::context::gzipped(held.as_bytes());
            assert!(holds(&packed, value), "{held}, compressed");
            let layer = LayerBuilder::new().file("f", Attributes::mode(0o644), held.as_bytes());
            let blob = crate::context::gzipped(&layer.finish());
            let archive = LayerBuilder::new().file("blobs/x", Attributes::mode(0o644), &blob);
            assert!(
                holds(&archive.finish(), value),
                "{held}, in an archive of an image"
            );
        }
        assert!(!holds(b"s3cr3t-Va1ue czNjcjN0L1ZhMXV", value));
    }

    #[test]
    fn files_are_found_by_content_name_and_target() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), "x s3cr3t/Va1ue").unwrap();
        fs::write(dir.path().join("7333637233742f5661317565"), "").unwrap();
        std::os::unix::fs::symlink("s3cr3t/Va1ue", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(holders(dir.path(), "s3cr3t/Va1ue").len(), 3);
    }
}

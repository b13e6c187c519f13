//! `expect.json`: what a builder made of a case, and what another one is held against.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::definition;
use super::observed::{ObservedImage, differences};

/// What a builder made of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Which program said so.
    pub oracle: String,
    /// The build's error, for a case that must fail.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The lines of the Dockerfile that the error shows, with those at fault marked, as both builders print them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub excerpt: Option<String>,
    /// The image, for one that must not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<ObservedImage>,
    /// The images of the other platforms, in the order in which they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub others: Vec<ObservedImage>,
    /// What a question was answered with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
}

impl Expectation {
    /// Of that program nothing yet.
    #[must_use]
    pub fn of(oracle: &str) -> Self {
        Self {
            oracle: oracle.to_owned(),
            error: None,
            excerpt: None,
            image: None,
            others: Vec::new(),
            answer: None,
        }
    }

    /// Sentences about what is different in these images, empty if nothing that counts is.
    #[must_use]
    pub fn image_differences(
        &self,
        have: &[ObservedImage],
        excused: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let want: Vec<&ObservedImage> = self.image.iter().chain(&self.others).collect();
        if want.len() != have.len() {
            return vec![format!("{} images, {} should be", have.len(), want.len())];
        }
        let pairs = want.iter().zip(have).enumerate();
        pairs
            .flat_map(|(number, (want, have))| {
                let found = differences(want, have, excused);
                let one = self.others.is_empty();
                found.into_iter().map(move |sentence| {
                    if one {
                        sentence
                    } else {
                        format!("image {number}: {sentence}")
                    }
                })
            })
            .collect()
    }

    /// Sentences about what is different in an error, told in `line` and shown by `shown`: its words, and the lines of the
    /// Dockerfile.
    #[must_use]
    pub fn error_differences(&self, line: &str, shown: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        let (have, want) = (message(line), message(self.error.as_deref().unwrap_or_default()));
        if have != want {
            found.push(format!("`{have}`, not `{want}`"));
        }
        if shown != self.excerpt.as_deref() {
            let quoted =
                |excerpt: Option<&str>| excerpt.map_or("none".to_owned(), |text| format!("{text:?}"));
            found.push(format!(
                "excerpt {}, not {}",
                quoted(shown),
                quoted(self.excerpt.as_deref())
            ));
        }
        found
    }

    /// What is different in the answer to a question, if anything is.
    #[must_use]
    pub fn answer_difference(&self, have: &str) -> Option<String> {
        let want = self.answer.as_deref().unwrap_or_default();
        (want != have).then(|| format!("the answer is\n{have}\nand not\n{want}"))
    }
}

/// An error without what the two programs put in front of every one, and without the name of a thing that is new in each run.
fn message(text: &str) -> String {
    const REF: &str = "checksum of ref ";
    let mut text = text;
    for prefix in ["error: ", "ERROR: ", "failed to build: ", "failed to solve: "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let parts = text.split_once(REF);
    match parts.and_then(|(head, rest)| Some((head, rest.split_once(": ")?.1))) {
        Some((head, rest)) => format!("{head}{REF}REF: {rest}"),
        None => text.to_owned(),
    }
}

/// The answer to a question about a case laid out in `room`, out of what a builder printed: without the line that counts
/// the warnings and the path to the Dockerfile, which a client puts in front, and without blanks that no reader sees.
#[must_use]
pub fn answer(printed: &str, room: &Path) -> String {
    // A client that has no words for an answer names its form.
    let json = printed.strip_prefix("result.json\n").unwrap_or(printed);
    if let Some(definition) = definition::canonical(json) {
        return definition;
    }
    let context = format!("{}/", room.join("context").display());
    let printed = printed.replace(&context, "");
    let lines = printed
        .lines()
        .filter(|line| !line.starts_with("Check complete, "));
    let text: Vec<&str> = lines.map(str::trim_end).collect();
    text.join("\n").trim().to_owned()
}

/// The last excerpt of a Dockerfile in what a builder printed: its title, and the lines between two of dashes.
#[must_use]
pub fn excerpt(printed: &str) -> Option<String> {
    const DASHES: &str = "--------------------";
    let lines: Vec<&str> = printed.lines().collect();
    let end = lines.iter().rposition(|line| *line == DASHES)?;
    let start = lines[..end].iter().rposition(|line| *line == DASHES)?;
    let title = lines.get(start.checked_sub(1)?)?;
    let shown = lines[start + 1..end].iter().map(|line| line.trim_end());
    Some(
        std::iter::once(*title)
            .chain(shown)
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::observed::tests::observed;
    use super::*;

    #[test]
    fn every_image_of_an_index_counts() {
        let (one, two) = (
            observed(&[("a", "f 0644 0:0 \"1\"")]),
            observed(&[("b", "d 0755 0:0")]),
        );
        let want = Expectation {
            oracle: String::new(),
            error: None,
            excerpt: None,
            image: Some(one.clone()),
            others: vec![two.clone()],
            answer: None,
        };
        let none = BTreeMap::new();
        assert!(
            want.image_differences(&[one.clone(), two.clone()], &none)
                .is_empty()
        );
        assert_eq!(want.image_differences(std::slice::from_ref(&one), &none).len(), 1);
        let found = want.image_differences(&[one.clone(), one], &none);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("image 1: "), "{found:?}");
    }

    #[test]
    fn an_answer_is_what_was_printed_without_the_clients_count() {
        let printed =
            "Check complete, 1 warning has been found!\n\nWARNING: a  \n/room/context/Dockerfile:1\n\n";
        let room = Path::new("/room");
        assert_eq!(answer(printed, room), "WARNING: a\nDockerfile:1");
        assert_eq!(answer("Check complete, no warnings found.\n", room), "");
    }

    #[test]
    fn the_last_excerpt_of_a_transcript_is_found() {
        let dashes = "--------------------";
        let text = format!(
            "#1 x\n------\n > [2/2] RUN x:\n------\nDockerfile:2\n{dashes}\n   1 |     FROM a\n   2 | >>> RUN x\n   3 |     \n{dashes}\nERROR: y\n"
        );
        let found = excerpt(&text).unwrap();
        assert_eq!(found, "Dockerfile:2\n   1 |     FROM a\n   2 | >>> RUN x\n   3 |");
        assert_eq!(excerpt("ERROR: y\n"), None);
        assert_eq!(excerpt(&format!("{dashes}\n{dashes}\n")), None);
    }
}

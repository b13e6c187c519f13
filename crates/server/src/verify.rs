//! Whether a result is what was asked for (`exporter/verifier/platforms.go`): a warning, never a failure.

use std::collections::BTreeSet;

use rbuild_graph::progress::{Event, Sink as _, Warning};
use rbuild_oci::{Digest, ImageConfig, Platform};

use crate::answer::{Answer, CONFIG, PLATFORMS, Refs};
use crate::events::EventLog;
use crate::export;

/// Most platforms of a request that are compared.
const PLATFORMS_MAX: usize = 1000;

/// Warns of platforms that were asked for (`platform` of the front end's options) and are not what came.
pub fn platforms(asked: Option<&str>, answer: &Answer, events: &EventLog) {
    for short in differences(asked, answer) {
        events.send(Event::Warning(Warning {
            vertex: Digest::sha256(b"result platforms"),
            level: 0,
            short,
            detail: Vec::new(),
            url: String::new(),
            location: None,
        }));
    }
}

fn differences(asked: Option<&str>, answer: &Answer) -> Vec<String> {
    let Some(found) = found(answer) else {
        return Vec::new();
    };
    let host = Platform::host().to_string();
    let asked = asked.unwrap_or(&host);
    let mut wanted = BTreeSet::new();
    let mut first = None;
    let mut wrong = Vec::new();
    for text in asked.split(',').take(PLATFORMS_MAX) {
        match Platform::parse(text).map(|platform| platform.normalized()) {
            Err(error) => wrong.push(format!("Invalid platform result requested {text:?}: {error}")),
            Ok(platform) => {
                if !wanted.insert(platform.to_string()) {
                    wrong.push(format!("Duplicate platform result requested {text:?}"));
                }
                first.get_or_insert(platform);
            }
        }
    }
    if !wrong.is_empty() {
        return wrong;
    }
    if let ([only], 1, Some(first)) = (&found[..], wanted.len(), &first) {
        let mut bare = only.clone();
        // Nobody asks for the version of an operating system, and images have one.
        if first.os_version.is_none() {
            bare.os_version = None;
        }
        let fits = wanted.contains(&only.to_string()) || wanted.contains(&bare.to_string());
        return (!fits)
            .then(|| {
                format!(
                    "Requested platform {asked:?} does not match result platform {:?}",
                    only.to_string()
                )
            })
            .into_iter()
            .collect();
    }
    if matches!(answer.refs, Refs::One(_)) && wanted.len() > 1 {
        return vec!["Multiple platforms requested but result is not multi-platform".to_owned()];
    }
    let names: BTreeSet<String> = found.iter().map(ToString::to_string).collect();
    if found.len() == wanted.len() && names == wanted {
        return Vec::new();
    }
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(",");
    vec![format!(
        "Requested platforms {} do not match result platforms {}",
        list(&wanted),
        list(&names)
    )]
}

/// The platforms of an answer; nothing for one that is no file system, or says nothing that can be compared.
fn found(answer: &Answer) -> Option<Vec<Platform>> {
    if answer.metadata.contains_key(PLATFORMS) {
        let platforms = export::platforms(answer).ok()?.list.into_iter();
        return Some(platforms.map(|entry| entry.platform.normalized()).collect());
    }
    if !matches!(answer.refs, Refs::One(Some(_))) {
        return None;
    }
    let Some(config) = answer.metadata.get(CONFIG) else {
        return Some(vec![Platform::host().normalized()]);
    };
    let config = ImageConfig::parse(config).ok()?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let platform = Platform {
        os: config.os,
        architecture: config.architecture,
        variant: given(config.variant),
        os_version: given(config.os_version),
        os_features: config.os_features,
    };
    Some(vec![platform.normalized()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn answer(platforms: &[&str]) -> Answer {
        let entries: Vec<String> = platforms
            .iter()
            .map(|text| {
                let (os, architecture) = text.split_once('/').unwrap();
                format!(r#"{{"ID":"{text}","Platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
            })
            .collect();
        let list = format!(r#"{{"Platforms":[{}]}}"#, entries.join(","));
        let refs = match platforms {
            [_] => Refs::One(None),
            _ => Refs::Many(platforms.iter().map(|text| ((*text).to_owned(), None)).collect()),
        };
        Answer {
            refs,
            metadata: BTreeMap::from([(PLATFORMS.to_owned(), list.into_bytes())]),
            ..Answer::empty()
        }
    }

    #[test]
    fn what_came_is_compared_with_what_was_asked_for() {
        let one = answer(&["linux/amd64"]);
        let two = answer(&["linux/amd64", "linux/arm64"]);
        for (asked, came, expected) in [
            ("linux/amd64", &one, ""),
            (
                "linux/arm64",
                &one,
                "Requested platform \"linux/arm64\" does not match result platform \"linux/amd64\"",
            ),
            ("linux/amd64,linux/arm64", &two, ""),
            ("linux/arm64,linux/amd64", &two, ""),
            (
                "linux/amd64,linux/arm64",
                &one,
                "Multiple platforms requested but result is not multi-platform",
            ),
            (
                "linux/amd64,linux/s390x",
                &two,
                "Requested platforms linux/amd64,linux/s390x do not match result platforms linux/amd64,linux/arm64",
            ),
            (
                "linux/amd64,linux/amd64",
                &two,
                "Duplicate platform result requested \"linux/amd64\"",
            ),
        ] {
            assert_eq!(differences(Some(asked), came).join("; "), expected, "{asked}");
        }
        assert!(
            differences(Some("linux/s390x"), &Answer::empty()).is_empty(),
            "nothing came"
        );
    }
}

//! What a step fetched through its proxy (BuildKit's `util/network/proxy.go`).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_graph::VertexDigest;
use rbuild_oci::Digest;

/// Most requests of a step that are remembered; of more it is said that not all is known.
const REQUESTS_MAX: usize = 10_000;
/// Longest URL that is remembered, bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// A fetch of which it is not known what was fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incomplete {
    /// The URL.
    pub url: String,
    /// The method.
    pub method: String,
    /// Why, in BuildKit's words for it.
    pub reason: &'static str,
    /// The command of the step.
    pub name: String,
}

/// What a step fetched.
#[derive(Debug, Default)]
pub struct Capture(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    requests: Vec<Asked>,
    materials: BTreeMap<String, Digest>,
    incomplete: Vec<(String, String, &'static str)>,
}

#[derive(Debug)]
struct Asked {
    method: String,
    url: String,
    leads_to: Option<String>,
    status: u16,
}

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request was answered.
    pub(super) fn asked(&self, method: &str, url: &str, status: u16, leads_to: Option<String>) {
        let mut known = self.lock();
        if known.requests.len() >= REQUESTS_MAX || url.len() > URL_BYTES_MAX {
            let there = known.incomplete.iter().any(|(_, _, reason)| *reason == TOO_MUCH);
            if !there {
                known
                    .incomplete
                    .push((shortened(url), method.to_owned(), TOO_MUCH));
            }
            return;
        }
        known.requests.push(Asked {
            method: method.to_owned(),
            url: url.to_owned(),
            leads_to: leads_to.filter(|to| to.len() <= URL_BYTES_MAX),
            status,
        });
    }

    /// Notes what a URL was.
    pub(super) fn material(&self, url: &str, digest: Digest) {
        let mut known = self.lock();
        if known.materials.len() < REQUESTS_MAX && url.len() <= URL_BYTES_MAX {
            known.materials.insert(url.to_owned(), digest);
        }
    }

    /// Notes that it is not known what a URL was.
    pub(super) fn incomplete(&self, method: &str, url: &str, reason: &'static str) {
        let mut known = self.lock();
        if known.incomplete.len() < REQUESTS_MAX {
            known.incomplete.push((shortened(url), method.to_owned(), reason));
        }
    }

    /// What the log of the step says of it; nothing if nothing was asked for.
    pub(crate) fn log(&self) -> Option<String> {
        let known = self.lock();
        let mut text = "proxy network requests:\n".to_owned();
        for asked in &known.requests {
            // Writing to a String cannot fail.
            writeln!(text, "- {} {} -> {}", asked.method, asked.url, asked.status).ok();
        }
        (!known.requests.is_empty()).then_some(text)
    }

    /// Digests by URL. What leads to something has its digest.
    pub(crate) fn materials(&self) -> BTreeMap<String, Digest> {
        let known = self.lock();
        let mut materials = known.materials.clone();
        let leads = || {
            let requests = known.requests.iter();
            requests.filter_map(|asked| Some((&asked.url, asked.leads_to.as_ref()?)))
        };
        // Each round makes at least one more known.
        loop {
            let found = leads().find_map(|(from, to)| {
                let digest = materials.get(to)?;
                (!materials.contains_key(from)).then(|| (from.clone(), digest.clone()))
            });
            match found {
                Some((from, digest)) => drop(materials.insert(from, digest)),
                None => return materials,
            }
        }
    }

    /// What is not known, of a step that ran `command`.
    pub(crate) fn unknown(&self, command: &str) -> Vec<Incomplete> {
        let known = self.lock();
        let one = |(url, method, reason): &(String, String, &'static str)| Incomplete {
            url: url.clone(),
            method: method.clone(),
            reason,
            name: command.to_owned(),
        };
        known.incomplete.iter().map(one).collect()
    }
}

/// What the steps of a build fetched, with the commands they ran.
#[derive(Debug, Default)]
pub struct Captures(Mutex<HashMap<VertexDigest, (String, Arc<Capture>)>>);

impl Captures {
    /// Notes what a step fetched; the last attempt counts.
    pub(crate) fn note(&self, step: &VertexDigest, command: &str, capture: Arc<Capture>) {
        let mut captures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        captures.insert(step.clone(), (command.to_owned(), capture));
    }

    /// What a step fetched; nothing is known of one that did not run.
    pub(crate) fn of(&self, step: &VertexDigest) -> Option<(String, Arc<Capture>)> {
        let captures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        captures.get(step).cloned()
    }
}

/// More was asked for than is remembered.
const TOO_MUCH: &str = "too_many_requests";

fn shortened(url: &str) -> String {
    url.chars().take(URL_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_file_has_its_digest() {
        let capture = Capture::default();
        let digest = Digest::sha256(b"file");
        capture.asked("GET", "http://a/1", 302, Some("http://a/2".to_owned()));
        capture.asked("GET", "http://a/2", 302, Some("http://a/3".to_owned()));
        capture.asked("GET", "http://a/loop", 302, Some("http://a/loop".to_owned()));
        capture.asked("GET", "http://a/3", 200, None);
        capture.material("http://a/3", digest.clone());
        let materials = capture.materials();
        assert_eq!(materials.len(), 3);
        assert!(materials.values().all(|found| *found == digest));
        let log = capture.log().unwrap();
        assert!(
            log.starts_with("proxy network requests:\n- GET http://a/1 -> 302\n"),
            "{log}"
        );
    }

    #[test]
    fn row48_a_step_that_asks_for_ever_is_said_to_be_not_all_known() {
        let capture = Capture::default();
        for number in 0..REQUESTS_MAX + 10 {
            capture.asked("GET", &format!("http://a/{number}"), 200, None);
        }
        assert_eq!(capture.lock().requests.len(), REQUESTS_MAX);
        let unknown = capture.unknown("sh");
        assert_eq!(unknown.len(), 1);
        assert_eq!((unknown[0].reason, unknown[0].name.as_str()), (TOO_MUCH, "sh"));
        assert_eq!(Capture::default().log(), None);
    }
}

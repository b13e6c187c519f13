//! In-toto statements (`exporter/attestation/make.go`): something is said of subjects that have digests.

use rbuild_oci::Digest;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{Subject, Told};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Name of a subject that has none.
const NAMELESS: &str = "_";

/// A statement; fields are in the order that Go writes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    /// Type of the predicate.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it is said of.
    pub subject: Vec<StatementSubject>,
    /// What is said.
    pub predicate: Json,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatementSubject {
    /// Its name.
    pub name: String,
    /// Its digests, by algorithm.
    pub digest: Map<String, Json>,
}

impl StatementSubject {
    /// Something with one digest.
    #[must_use]
    pub fn new(name: &str, digest: &Digest) -> Self {
        Self {
            name: name.to_owned(),
            digest: digests(std::slice::from_ref(digest)),
        }
    }
}

fn digests(all: &[Digest]) -> Map<String, Json> {
    let all = all.iter();
    all.map(|digest| (digest.algorithm().name().to_owned(), digest.hex().into()))
        .collect()
}

/// The statement of `told` about a result, which has the names and digests of `result`.
#[must_use]
pub fn statement(told: Told, result: &[StatementSubject]) -> Statement {
    let own = [Subject::Result(None)];
    let subjects = match told.subjects.as_slice() {
        [] => &own,
        subjects => subjects,
    };
    let mut subject = Vec::new();
    for about in subjects {
        match about {
            Subject::Result(name) => {
                for known in result {
                    subject.push(known.clone());
                    subject.extend(name.as_ref().map(|name| StatementSubject {
                        name: name.clone(),
                        digest: known.digest.clone(),
                    }));
                }
            }
            Subject::Other { name, digests: all } => subject.push(StatementSubject {
                name: if name.is_empty() { NAMELESS } else { name }.to_owned(),
                digest: digests(all),
            }),
        }
    }
    Statement {
        kind: STATEMENT_TYPE,
        predicate_type: told.predicate_type,
        subject,
        predicate: told.predicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_oci::go_json;
    use serde_json::json;

    fn told(subjects: Vec<Subject>) -> Told {
        Told {
            path: "a.json".to_owned(),
            predicate_type: "t".to_owned(),
            subjects,
            sbom_core: None,
            predicate: json!({"a": 1}),
        }
    }

    #[test]
    fn a_statement_names_what_it_is_about() {
        let digest = Digest::sha256(b"manifest");
        let result = [StatementSubject::new("pkg:docker/x@1", &digest)];
        let found = statement(told(vec![]), &result);
        let text = String::from_utf8(go_json::to_vec(&found).unwrap()).unwrap();
        let expected = format!(
            r#"{{"_type":"{STATEMENT_TYPE}","predicateType":"t","subject":[{{"name":"pkg:docker/x@1","digest":{{"sha256":"{}"}}}}],"predicate":{{"a":1}}}}"#,
            digest.hex()
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn subjects_are_the_result_under_more_names_or_something_else() {
        let digest = Digest::sha256(b"manifest");
        let result = [StatementSubject::new("x", &digest)];
        let other = Subject::Other {
            name: String::new(),
            digests: vec![Digest::sha256(b"other")],
        };
        let found = statement(told(vec![Subject::Result(Some("y".to_owned())), other]), &result);
        let names: Vec<&str> = found
            .subject
            .iter()
            .map(|subject| subject.name.as_str())
            .collect();
        assert_eq!(names, ["x", "y", "_"]);
        assert_eq!(found.subject[1].digest, found.subject[0].digest);
    }
}

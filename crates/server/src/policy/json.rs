//! A source policy in a file: the message in JSON, its enumerations as names or numbers. What it means is judged by
//! [`super::read`], as of a client.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy as pb;
use rbuild_builder::source_policy::SourcePolicies;
use serde::Deserialize;

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It is not of the form.
    #[error("not a source policy")]
    Json(#[from] serde_json::Error),
    /// A name that means nothing.
    #[error("source policy: unknown {what} {name:?}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The rules mean nothing.
    #[error("{0}")]
    Rules(String),
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Policy {
    version: i64,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    action: Name,
    selector: Option<Selector>,
    updates: Option<Update>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    identifier: String,
    #[serde(alias = "match_type")]
    match_type: Name,
    constraints: Vec<Constraint>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Constraint {
    key: String,
    value: String,
    condition: Name,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Update {
    identifier: String,
    attrs: HashMap<String, String>,
}

/// A value of an enumeration; the first one where it is left out.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Number(i32),
    Text(String),
}

impl Default for Name {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Name {
    fn number(self, what: &'static str, of: impl Fn(&str) -> Option<i32>) -> Result<i32, PolicyFileError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(name) => of(&name).ok_or(PolicyFileError::Name { what, name }),
        }
    }
}

/// The policy that a file holds.
///
/// # Errors
/// [`PolicyFileError`].
pub fn read_json(bytes: &[u8]) -> Result<SourcePolicies, PolicyFileError> {
    super::read([message_of_json(bytes)?])
        .map_err(|status| PolicyFileError::Rules(status.message().to_owned()))
}

/// The message itself, for a server.
///
/// # Errors
/// [`PolicyFileError`]; what the rules mean is not looked at.
pub fn message_of_json(bytes: &[u8]) -> Result<pb::Policy, PolicyFileError> {
    // An object and nothing else: a list would be read as its fields in their order.
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
    let policy = Policy::deserialize(serde_json::Value::Object(fields))?;
    let rules = policy.rules.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(pb::Policy {
        version: policy.version,
        rules,
    })
}

fn rule(rule: Rule) -> Result<pb::Rule, PolicyFileError> {
    let action = |name: &str| pb::PolicyAction::from_str_name(name).map(i32::from);
    let match_type = |name: &str| pb::MatchType::from_str_name(name).map(i32::from);
    let condition = |name: &str| pb::AttrMatch::from_str_name(name).map(i32::from);
    let selector = match rule.selector {
        None => None,
        Some(selector) => {
            let constraints = selector.constraints.into_iter().map(|constraint| {
                Ok(pb::AttrConstraint {
                    key: constraint.key,
                    value: constraint.value,
                    condition: constraint.condition.number("condition", condition)?,
                })
            });
            Some(pb::Selector {
                identifier: selector.identifier,
                match_type: selector.match_type.number("match type", match_type)?,
                constraints: constraints.collect::<Result<_, PolicyFileError>>()?,
            })
        }
    };
    Ok(pb::Rule {
        action: rule.action.number("action", action)?,
        selector,
        updates: rule.updates.map(|update| pb::Update {
            identifier: update.identifier,
            attrs: update.attrs,
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rbuild_graph::SourceOp;

    use super::*;

    #[test]
    fn a_file_says_what_a_client_says() {
        let text = r#"{"version": 1, "rules": [
            {"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/bad:*"}},
            {"action": "CONVERT", "selector": {"identifier": "local://a", "matchType": "EXACT",
                "constraints": [{"key": "k", "value": "v", "condition": 1}]},
             "updates": {"identifier": "local://b"}}]}"#;
        let policies = read_json(text.as_bytes()).unwrap();
        let source = |identifier: &str| SourceOp {
            identifier: identifier.to_owned(),
            attrs: BTreeMap::new(),
        };
        assert!(
            policies
                .apply(&source("docker-image://docker.io/library/bad:1"))
                .is_err()
        );
        assert!(
            policies
                .apply(&source("docker-image://docker.io/library/good:1"))
                .is_ok()
        );
        let converted = policies.apply(&source("local://a")).unwrap().unwrap();
        assert_eq!(converted.identifier, "local://b");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"rules": [{"action": "MAYBE", "selector": {"identifier": "x"}}]}"#,
            r#"{"rules": [{"action": "DENY"}]}"#,
            r#"{"rules": [{"action": "DENY", "selector": {"identifier": "x", "matchType": "FUZZY"}}]}"#,
            r#"{"rules": [{"action": "CONVERT", "selector": {"identifier": "x"}}]}"#,
        ] {
            assert!(read_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}

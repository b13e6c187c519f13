//! Source policies as clients send them (`sourcepolicy/pb/policy.proto`), and as files have them (`sourcepolicy/pb/json.go`).

mod json;

pub use json::{PolicyFileError, message_of_json, read_json};

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy as pb;
use rbuild_builder::source_policy::{Action, Condition, MatchKind, Rule, SourcePolicies};
use rbuild_llb::errors::sentence;
use tonic::Status;

use crate::errors::refused;

/// Most rules of a build.
const RULES_MAX: usize = 10_000;

/// The policies of a build.
///
/// # Errors
/// A refusal for rules that mean nothing.
pub fn read(policies: impl IntoIterator<Item = pb::Policy>) -> Result<SourcePolicies, Status> {
    let mut read = Vec::new();
    let mut count = 0;
    for policy in policies {
        count += policy.rules.len();
        if count > RULES_MAX {
            let text = format!("source policies of more than {RULES_MAX} rules");
            return Err(refused(text));
        }
        let rules = policy.rules.into_iter().map(rule);
        read.push(rules.collect::<Result<Vec<Rule>, Status>>()?);
    }
    SourcePolicies::new(read).map_err(|error| {
        let text = format!("error matching source policy: {}", sentence(&error));
        refused(text)
    })
}

fn rule(rule: pb::Rule) -> Result<Rule, Status> {
    let refuse = |text: String| refused(format!("source policy: {text}"));
    let selector = rule.selector;
    let selector = selector.ok_or_else(|| refused("invalid nil selector in policy"))?;
    let action = match pb::PolicyAction::try_from(rule.action) {
        Ok(pb::PolicyAction::Allow) => Action::Allow,
        Ok(pb::PolicyAction::Deny) => Action::Deny,
        Ok(pb::PolicyAction::Convert) => {
            let missing = || refuse("missing destination for convert rule".to_owned());
            let update = rule.updates.ok_or_else(missing)?;
            Action::Convert {
                identifier: update.identifier,
                attrs: update.attrs.into_iter().collect(),
            }
        }
        Err(_) => {
            let text = format!("rule {} {}: unknown type", rule.action, selector.identifier);
            return Err(refuse(text));
        }
    };
    let match_kind = match pb::MatchType::try_from(selector.match_type) {
        Ok(pb::MatchType::Wildcard) => MatchKind::Wildcard,
        Ok(pb::MatchType::Exact) => MatchKind::Exact,
        Ok(pb::MatchType::Regex) => MatchKind::Regex,
        Err(_) => return Err(refuse(format!("unknown match type: {}", selector.match_type))),
    };
    let mut constraints = Vec::with_capacity(selector.constraints.len());
    for constraint in selector.constraints {
        let value = constraint.value;
        let condition = match pb::AttrMatch::try_from(constraint.condition) {
            Ok(pb::AttrMatch::Equal) => Condition::Equal(value),
            Ok(pb::AttrMatch::Notequal) => Condition::NotEqual(value),
            Ok(pb::AttrMatch::Matches) => Condition::Matches(value),
            Err(_) => {
                let text = format!("unknown attr condition: {}", constraint.condition);
                return Err(refuse(text));
            }
        };
        constraints.push((constraint.key, condition));
    }
    Ok(Rule {
        action,
        identifier: selector.identifier,
        match_kind,
        constraints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::SourceOp;

    fn policy(action: pb::PolicyAction, updates: Option<pb::Update>) -> pb::Policy {
        let selector = pb::Selector {
            identifier: "local://a".to_owned(),
            ..pb::Selector::default()
        };
        pb::Policy {
            version: 1,
            rules: vec![pb::Rule {
                action: action.into(),
                selector: Some(selector),
                updates,
            }],
        }
    }

    #[test]
    fn rules_are_read_as_they_are_meant() {
        let local = SourceOp {
            identifier: "local://a".to_owned(),
            attrs: std::collections::BTreeMap::new(),
        };
        let denied = read([policy(pb::PolicyAction::Deny, None)]).unwrap();
        assert!(denied.apply(&local).is_err());
        let update = pb::Update {
            identifier: "local://b".to_owned(),
            ..pb::Update::default()
        };
        let converted = read([policy(pb::PolicyAction::Convert, Some(update))]).unwrap();
        assert_eq!(converted.apply(&local).unwrap().unwrap().identifier, "local://b");
    }

    #[test]
    fn row48_rules_that_mean_nothing_are_refused() {
        assert!(read([policy(pb::PolicyAction::Convert, None)]).is_err());
        let mut many = policy(pb::PolicyAction::Allow, None);
        many.rules = vec![many.rules[0].clone(); RULES_MAX + 1];
        assert!(read([many.clone()]).is_err());
        many.rules.pop();
        assert!(read([many]).is_ok());
        let mut unknown = policy(pb::PolicyAction::Allow, None);
        unknown.rules[0].action = 9;
        assert!(read([unknown.clone()]).is_err());
        unknown.rules[0].action = pb::PolicyAction::Allow.into();
        unknown.rules[0].selector = None;
        assert!(read([unknown]).is_err());
    }
}

//! The answer to `frontend.convertllb` in a form that two builders can agree on: vertices by number, each behind what it
//! needs, without what belongs to one session.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Attributes of sources that are of one session, or that a builder without one has no use for, and what says that they
/// are there.
const OF_SESSION: [(&str, &str); 2] = [
    ("local.session", "source.local.sessionid"),
    ("local.followpaths", "source.local.followpaths"),
];

/// `answer`, a vertex in four lines: what it does, what is said of it, and where it comes from. `None` for another answer.
pub(super) fn canonical(answer: &str) -> Option<String> {
    let answer: Map<String, Value> = serde_json::from_str(answer).ok()?;
    let ops = answer.get("def")?.as_object()?;
    let names = names(ops);
    let mut lines = Vec::new();
    for (digest, name) in &names {
        let mut op = ops[*digest].clone();
        for input in op["inputs"].as_array_mut().into_iter().flatten() {
            let known = input["digest"]
                .as_str()
                .and_then(|digest| number_of(&names, digest));
            input["digest"] = known.map_or(Value::Null, Value::from);
        }
        op.as_object_mut()?.retain(|_, part| !part.is_null());
        if let Some(attrs) = op.pointer_mut("/source/attrs").and_then(Value::as_object_mut) {
            attrs.retain(|attr, _| OF_SESSION.iter().all(|(of_session, _)| attr != of_session));
        }
        let mut said = answer["metadata"][digest].clone();
        if let Some(caps) = said.get_mut("caps").and_then(Value::as_object_mut) {
            caps.retain(|cap, _| OF_SESSION.iter().all(|(_, of_session)| cap != of_session));
        }
        if let Some(group) = said.get_mut("progress_group").and_then(Value::as_object_mut) {
            group.remove("id");
        }
        lines.extend([
            format!("{name}:"),
            format!("  {op}"),
            format!("  {said}"),
            format!("  {}", answer["source"]["locations"][digest]),
        ]);
    }
    for text in answer["source"]["infos"].as_array().into_iter().flatten() {
        let from = &text["definition"]["metadata"];
        let from = from.as_object().into_iter().flat_map(Map::values);
        let from: Vec<String> = from.map(|said| said["description"].to_string()).collect();
        lines.push(format!(
            "{} {} {}",
            text["filename"], text["language"], text["data"]
        ));
        lines.push(format!(
            "  from {}",
            from.into_iter().filter(|said| said != "null").collect::<String>()
        ));
    }
    Some(lines.join("\n"))
}

fn number_of(names: &[(&str, usize)], digest: &str) -> Option<usize> {
    names
        .iter()
        .find(|(known, _)| *known == digest)
        .map(|(_, number)| *number)
}

/// Depth first from what nothing needs.
fn names(ops: &Map<String, Value>) -> Vec<(&str, usize)> {
    let inputs = |op: &Value| -> Vec<String> {
        let list = op["inputs"].as_array().into_iter().flatten();
        list.filter_map(|input| Some(input["digest"].as_str()?.to_owned()))
            .collect()
    };
    let needed: Vec<String> = ops.values().flat_map(inputs).collect();
    let mut found = BTreeMap::new();
    let mut stack: Vec<(String, bool)> = ops
        .keys()
        .filter(|digest| !needed.contains(digest))
        .map(|digest| (digest.clone(), false))
        .collect();
    while let Some((digest, done)) = stack.pop() {
        if found.contains_key(&digest) {
            continue;
        }
        if done {
            found.insert(digest, found.len());
            continue;
        }
        let before = ops.get(&digest).map(inputs).unwrap_or_default();
        stack.push((digest, true));
        stack.extend(before.into_iter().rev().map(|input| (input, false)));
    }
    let mut names: Vec<(&str, usize)> = ops
        .keys()
        .filter_map(|digest| Some((digest.as_str(), *found.get(digest)?)))
        .collect();
    names.sort_by_key(|(_, number)| *number);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_sessions_do_not_count_and_everything_else_does() {
        let answer = |base: &str, session: &str, dest: &str| {
            format!(
                r#"{{"def":{{"{base}":{{"source":{{"identifier":"local://context","attrs":{{"local.session":"{session}"}}}}}},
                "b":{{"inputs":[{{"digest":"{base}"}}],"file":{{"actions":[{{"copy":{{"dest":"{dest}"}}}}]}}}}}},
                "metadata":{{"{base}":{{"caps":{{"source.local":true,"source.local.sessionid":true}}}}}},"source":{{"locations":{{"b":{{}}}}}}}}"#
            )
        };
        let one = canonical(&answer("a", "s1", "/x")).unwrap();
        assert_eq!(one, canonical(&answer("c", "s2", "/x")).unwrap());
        assert_ne!(one, canonical(&answer("a", "s1", "/y")).unwrap());
        let first: Vec<&str> = one.lines().take(3).collect();
        assert_eq!(
            first,
            [
                "0:",
                r#"  {"source":{"attrs":{},"identifier":"local://context"}}"#,
                r#"  {"caps":{"source.local":true}}"#
            ]
        );
        assert_eq!(canonical(r#"{"sources":[]}"#), None);
        assert_eq!(canonical("no JSON"), None);
    }
}

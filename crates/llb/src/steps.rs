//! A definition as provenance shows it (`solver/llbsolver/provenance/buildconfig.go`): its operations as numbered
//! steps, and the lines of the texts they come from.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message as _;
use rbuild_oci::Digest;
use serde_json::{Map, Value, json};

use crate::{op_json, wire};

/// Why a definition has no steps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// An operation that is none.
    #[error("failed to parse llb proto op")]
    Op(#[from] prost::DecodeError),
    /// An operation stands on one that is not there.
    #[error("failed to find input {0}")]
    Input(String),
    /// The last operation is not the one that names the target.
    #[error("invalid last vertex")]
    Target,
}

/// The operations of a definition, numbered so that each stands behind what it needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steps {
    steps: Vec<Value>,
    numbers: BTreeMap<String, usize>,
}

/// Attributes of sources that are of one session and say nothing of the build.
const OF_SESSION: [&str; 2] = ["local.session", "local.unique"];

impl Steps {
    /// The steps of `definition`; none of an empty one. What could hold a password is given to `mask`; proxies are left
    /// out, where BuildKit tells them with theirs.
    ///
    /// # Errors
    /// [`StepsError`].
    pub fn of(definition: &wire::Definition, mask: Mask) -> Result<Self, StepsError> {
        let mut ops = BTreeMap::new();
        let mut last = None;
        for bytes in &definition.def {
            let mut op = wire::Op::decode(bytes.as_slice())?;
            match &mut op.op {
                Some(wire::OpKind::Source(source)) => masked(source, mask),
                Some(wire::OpKind::Exec(exec)) => {
                    if let Some(meta) = &mut exec.meta {
                        meta.proxy_env = None;
                    }
                }
                _ => {}
            }
            let digest = Digest::sha256(bytes).to_string();
            ops.insert(digest.clone(), op);
            last = Some(digest);
        }
        let Some(last) = last else {
            return Ok(Self::default());
        };
        let target = ops.get(&last).ok_or(StepsError::Target)?;
        if target.op.is_some() || target.inputs.len() != 1 {
            return Err(StepsError::Target);
        }
        let order = ordered(&ops, &last)?;
        let numbers: BTreeMap<String, usize> = order.iter().cloned().zip(0..).collect();
        let step = |(number, digest): (usize, &String)| {
            let op = &ops[digest];
            let input = |input: &pb::Input| format!("step{}:{}", numbers[&input.digest], input.index);
            let inputs: Vec<String> = op.inputs.iter().map(input).collect();
            let mut step = Map::new();
            step.insert("id".to_owned(), name(number).into());
            step.insert("op".to_owned(), json!(op_json::structs(op)));
            if !inputs.is_empty() {
                step.insert("inputs".to_owned(), inputs.into());
            }
            Value::Object(step)
        };
        Ok(Self {
            steps: order.iter().enumerate().map(step).collect(),
            numbers,
        })
    }

    /// The number of the operation whose bytes have this digest.
    #[must_use]
    pub fn number(&self, digest: &Digest) -> Option<usize> {
        self.numbers.get(digest.as_str()).copied()
    }

    /// `llbDefinition` and `digestMapping`, those that are not empty.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        if !self.steps.is_empty() {
            fields.insert("llbDefinition".to_owned(), self.steps.clone().into());
            let mapping = self.numbers.iter();
            let mapping = mapping.map(|(digest, number)| (digest.clone(), name(*number).into()));
            fields.insert("digestMapping".to_owned(), Value::Object(mapping.collect()));
        }
        fields
    }

    /// The texts these steps come from, and where in them. `None` if there are none.
    ///
    /// # Errors
    /// [`StepsError`] for the definition a text comes from.
    pub fn source(&self, source: &wire::Source, mask: Mask) -> Result<Option<Value>, StepsError> {
        if source.infos.is_empty() {
            return Ok(None);
        }
        let infos: Result<Vec<Value>, StepsError> =
            source.infos.iter().map(|text| info(text, mask)).collect();
        let mut locations = Map::new();
        for (digest, found) in &source.locations {
            if let Some(number) = self.numbers.get(digest) {
                let places: Vec<Value> = found.locations.iter().map(location).collect();
                let mut entry = Map::new();
                if !places.is_empty() {
                    entry.insert("locations".to_owned(), places.into());
                }
                locations.insert(name(*number), Value::Object(entry));
            }
        }
        Ok(Some(json!({ "infos": infos?, "locations": locations })))
    }
}

/// Takes passwords out of an address.
pub type Mask = fn(&str) -> String;

fn masked(source: &mut pb::SourceOp, mask: Mask) {
    source
        .attrs
        .retain(|name, _| !OF_SESSION.contains(&name.as_str()));
    source.identifier = mask(&source.identifier);
    for value in source.attrs.values_mut() {
        *value = mask(value);
    }
}

fn name(number: usize) -> String {
    format!("step{number}")
}

/// Depth first, every operation behind its inputs. Depth costs heap only: definitions come from clients.
fn ordered(ops: &BTreeMap<String, wire::Op>, last: &str) -> Result<Vec<String>, StepsError> {
    let mut order = Vec::with_capacity(ops.len());
    let mut seen = std::collections::BTreeSet::from([last.to_owned()]);
    let mut stack = vec![(last.to_owned(), 0)];
    while let Some((digest, next)) = stack.pop() {
        let op = ops
            .get(&digest)
            .ok_or_else(|| StepsError::Input(digest.clone()))?;
        match op.inputs.get(next) {
            None => order.push(digest),
            Some(input) => {
                stack.push((digest, next + 1));
                if seen.insert(input.digest.clone()) {
                    stack.push((input.digest.clone(), 0));
                }
            }
        }
    }
    Ok(order)
}

fn info(info: &wire::SourceInfo, mask: Mask) -> Result<Value, StepsError> {
    let mut fields = match info.definition.as_deref() {
        Some(bytes) => Steps::of(&wire::Definition::decode(bytes)?, mask)?.to_json(),
        None => Map::new(),
    };
    let data = op_json::base64(&info.data);
    for (name, text) in [
        ("filename", &info.filename),
        ("language", &info.language),
        ("data", &data),
    ] {
        if !text.is_empty() {
            fields.insert(name.to_owned(), text.clone().into());
        }
    }
    Ok(Value::Object(fields))
}

/// A place as Go's encoder writes it: numbers that are 0 are left out.
fn location(location: &pb::Location) -> Value {
    let numbers = |fields: &[(&str, i32)]| {
        let told = fields.iter().filter(|(_, number)| *number != 0);
        told.map(|(name, number)| ((*name).to_owned(), json!(number)))
            .collect::<Map<String, Value>>()
    };
    let position = |at: Option<pb::Position>| {
        at.map_or_else(Map::new, |at| {
            numbers(&[("line", at.line), ("character", at.character)])
        })
    };
    let range = |range: &pb::Range| json!({ "start": position(range.start), "end": position(range.end) });
    let ranges: Vec<Value> = location.ranges.iter().map(range).collect();
    let mut told = numbers(&[("sourceIndex", location.source_index)]);
    told.insert("ranges".to_owned(), ranges.into());
    told.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::{
        Edge, ExecMeta, ExecOp, Graph, Mount, MountKind, NetMode, Op, SecurityMode, SourceLocation, SourceOp,
        SourceText, Vertex, VertexMeta,
    };

    fn unmasked(text: &str) -> String {
        text.to_owned()
    }

    /// `FROM` and `RUN`.
    fn definition() -> wire::Definition {
        let mut graph = Graph::default();
        graph.sources.push(SourceText {
            filename: "Dockerfile".to_owned(),
            text: b"FROM x\nRUN y".to_vec(),
            language: "Dockerfile".to_owned(),
            definition: None,
        });
        let vertex = |op, inputs, line| Vertex {
            op,
            inputs,
            platform: Some(rbuild_oci::Platform::new("linux", "amd64")),
            constraints: vec![],
            meta: VertexMeta {
                locations: vec![SourceLocation::lines(0, line, line)],
                ..VertexMeta::default()
            },
        };
        let attrs = [
            ("local.session", "secret-session"),
            ("local.differ", "none"),
            ("git.fullurl", "https://u:secretpw@h/r"),
        ];
        let source = Op::Source(SourceOp {
            identifier: "local://x".to_owned(),
            attrs: attrs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        });
        let base = graph.add(vertex(source, vec![], 1)).unwrap();
        let edge = |vertex| Edge { vertex, output: 0 };
        let bind = MountKind::Bind;
        let exec = ExecOp {
            meta: ExecMeta {
                args: vec!["y".to_owned()],
                proxy_env: Some(rbuild_graph::ProxyEnv {
                    http_proxy: "http://u:secretpw@proxy".to_owned(),
                    ..rbuild_graph::ProxyEnv::default()
                }),
                ..ExecMeta::default()
            },
            mounts: vec![Mount {
                input: Some(0),
                output: Some(0),
                ..Mount::new("/", bind)
            }],
            network: NetMode::Unset,
            security: SecurityMode::Sandbox,
            secret_env: vec![],
            cdi_devices: vec![],
        };
        let step = graph
            .add(vertex(Op::Exec(Box::new(exec)), vec![edge(base)], 2))
            .unwrap();
        crate::encode_wire(&graph, &edge(step)).unwrap()
    }

    #[test]
    fn steps_are_numbered_behind_what_they_need() {
        let definition = definition();
        let steps = Steps::of(&definition, unmasked).unwrap();
        let found = Value::Object(steps.to_json());
        let list = found["llbDefinition"].as_array().unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(
            list[0]["op"]["Op"]["source"],
            json!({
                "identifier": "local://x",
                "attrs": {"local.differ": "none", "git.fullurl": "https://u:secretpw@h/r"},
            })
        );
        assert_eq!(list[1]["inputs"], json!(["step0:0"]));
        assert_eq!(
            list[1]["op"]["Op"]["exec"],
            json!({"meta": {"args": ["y"]}, "mounts": [{"dest": "/"}]})
        );
        assert_eq!(list[2]["op"]["Op"], json!({}));
        let digest = Digest::sha256(&definition.def[1]);
        assert_eq!(found["digestMapping"][digest.as_str()], "step1");
        assert_eq!(steps.number(&digest), Some(1));
    }

    #[test]
    fn row41_addresses_are_masked_and_proxies_left_out() {
        let steps = Steps::of(&definition(), |text| text.replace("u:secretpw", "xxxxx:xxxxx")).unwrap();
        let told = Value::Object(steps.to_json()).to_string();
        assert!(told.contains("https://xxxxx:xxxxx@h/r"), "{told}");
        assert!(!told.contains("secretpw"), "{told}");
    }

    #[test]
    fn texts_and_lines_are_told() {
        let definition = definition();
        let steps = Steps::of(&definition, unmasked).unwrap();
        let found = steps
            .source(definition.source.as_ref().unwrap(), unmasked)
            .unwrap()
            .unwrap();
        assert_eq!(found["infos"][0]["data"], op_json::base64(b"FROM x\nRUN y"));
        let range = &found["locations"]["step1"]["locations"][0]["ranges"][0];
        assert_eq!(
            (&range["start"]["line"], &range["end"]["line"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(steps.source(&wire::Source::default(), unmasked).unwrap(), None);
    }

    #[test]
    fn row48_a_definition_that_is_none_is_refused() {
        let mut broken = definition();
        broken.def.remove(0);
        assert!(matches!(Steps::of(&broken, unmasked), Err(StepsError::Input(_))));
        broken.def[0] = b"\xff".to_vec();
        assert!(matches!(Steps::of(&broken, unmasked), Err(StepsError::Op(_))));
        let mut open = definition();
        open.def.pop();
        assert_eq!(Steps::of(&open, unmasked), Err(StepsError::Target));
        assert_eq!(
            Steps::of(&wire::Definition::default(), unmasked),
            Ok(Steps::default())
        );
    }
}

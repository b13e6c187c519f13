//! The operations with maps, to the byte as Go writes them: it writes keys and values that are empty, prost does not.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message;

use super::BuildOp;

/// `pb.Op` with nothing but what has maps.
#[derive(Clone, PartialEq, Message)]
struct Op {
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
    #[prost(message, optional, tag = "5")]
    build: Option<Build>,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    identifier: String,
    #[prost(message, repeated, tag = "2")]
    attrs: Vec<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Build {
    #[prost(int64, tag = "1")]
    builder: i64,
    #[prost(message, repeated, tag = "2")]
    inputs: Vec<Input>,
    #[prost(bytes = "vec", optional, tag = "3")]
    def: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    attrs: Vec<Text>,
}

/// An entry of a map; present is written, empty or not.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(message, optional, tag = "2")]
    value: Option<pb::BuildInput>,
}

fn texts(map: &BTreeMap<String, String>) -> Vec<Text> {
    let text = |(key, value): (&String, &String)| Text {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    map.iter().map(text).collect()
}

pub(super) fn source(source: &pb::SourceOp) -> Vec<u8> {
    let source = Source {
        identifier: source.identifier.clone(),
        attrs: texts(&source.attrs),
    };
    Op {
        source: Some(source),
        build: None,
    }
    .encode_to_vec()
}

pub(super) fn build(build: &BuildOp) -> Vec<u8> {
    let input = |(key, value): (&String, &pb::BuildInput)| Input {
        key: Some(key.clone()),
        value: Some(*value),
    };
    let build = Build {
        builder: build.builder,
        inputs: build.inputs.iter().map(input).collect(),
        def: build.def.clone(),
        attrs: texts(&build.attrs),
    };
    Op {
        source: None,
        build: Some(build),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_keys_and_values_are_written() {
        let op = pb::SourceOp {
            identifier: "i".into(),
            attrs: [(String::new(), String::new()), ("k".into(), String::new())].into(),
        };
        let expected = [
            0x1a, 16, 0x0a, 1, b'i', 0x12, 4, 0x0a, 0, 0x12, 0, 0x12, 5, 0x0a, 1, b'k', 0x12, 0,
        ];
        assert_eq!(source(&op), expected);
        let read = super::super::Op::decode(expected.as_slice()).unwrap();
        assert_eq!(read.op, Some(super::super::OpKind::Source(op)));
    }
}

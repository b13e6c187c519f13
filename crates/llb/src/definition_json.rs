//! Whole definitions in JSON: the answer to `frontend.convertllb` (`frontend/subrequests/convertllb`), and what a text
//! comes from as lint tells it (`pb.SourceInfo` as a struct of Go).

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::{DecodeError, Message as _};
use rbuild_graph::{Edge, Graph};
use rbuild_oci::Digest;
use rbuild_oci::go_json::Json;

use crate::op_json::{Form, attrs, base64, protojson};
use crate::{EncodeError, caps, encode_wire, wire};

/// The answer to `frontend.convertllb` about what `target` needs, with what its vertices need of a server: operations
/// and texts as protobuf writes them, metadata as Go writes its struct. Nothing is needed for an empty image.
///
/// # Errors
/// [`EncodeError`].
pub fn converted(graph: &Graph, target: Option<&Edge>) -> Result<Json, EncodeError> {
    let definition = match target {
        None => wire::Definition::default(),
        Some(target) => {
            let mut noted = graph.clone();
            caps::note(&mut noted);
            encode_wire(&noted, target)?
        }
    };
    let mut ops = BTreeMap::new();
    for bytes in &definition.def {
        let op = wire::Op::decode(bytes.as_slice())?;
        ops.insert(Digest::sha256(bytes).to_string(), protojson(&op));
    }
    let ops = ops.iter().map(|(digest, op)| (digest, op.clone()));
    let metadata = definition.metadata.iter();
    let metadata = metadata.map(|(digest, of)| (digest, self::metadata(Form::Structs, of)));
    let text = match &definition.source {
        Some(from) => source(Form::Proto, from)?,
        None => Json::object([]),
    };
    Ok(Json::object([
        ("def", Json::map(ops).or_empty()),
        ("metadata", Json::map(metadata).or_empty()),
        ("source", text),
    ]))
}

/// An encoded definition as `encoding/json` writes its struct.
///
/// # Errors
/// Bytes that are no definition.
pub fn structs(encoded: &[u8]) -> Result<Json, DecodeError> {
    definition(Form::Structs, encoded)
}

fn definition(form: Form, encoded: &[u8]) -> Result<Json, DecodeError> {
    let definition = wire::Definition::decode(encoded)?;
    let metadata = definition.metadata.iter();
    let text = definition.source.as_ref().map(|from| source(form, from));
    Ok(Json::object([
        (
            "def",
            Json::list(definition.def.iter().map(|op| Json::Text(base64(op)))),
        ),
        (
            "metadata",
            Json::map(metadata.map(|(digest, of)| (digest, self::metadata(form, of)))),
        ),
        ("Source", text.transpose()?.into()),
    ]))
}

fn metadata(form: Form, metadata: &wire::OpMetadata) -> Json {
    let caps = metadata.caps.iter();
    let group = |group: &pb::ProgressGroup| {
        Json::object([
            ("id", (&group.id).into()),
            ("name", (&group.name).into()),
            ("weak", group.weak.into()),
        ])
    };
    let cache = |cache: pb::ExportCache| Json::object([("Value", cache.value.into())]);
    let limits = metadata.linux_resources.as_ref();
    Json::object([
        (
            form.name("ignoreCache", "ignore_cache"),
            metadata.ignore_cache.into(),
        ),
        ("description", attrs(&metadata.description)),
        (
            form.name("exportCache", "export_cache"),
            metadata.export_cache.map(cache).into(),
        ),
        ("caps", Json::map(caps.map(|(name, is)| (name, Json::Flag(*is))))),
        (
            form.name("progressGroup", "progress_group"),
            metadata.progress_group.as_ref().map(group).into(),
        ),
        (
            form.name("linuxResources", "linux_resources"),
            limits.map(|limits| resources(form, limits)).into(),
        ),
    ])
}

fn resources(form: Form, limits: &wire::LinuxResources) -> Json {
    // No amount of shares or of a period that a system has needs the sign.
    let unsigned = |number: u64| form.long(i64::try_from(number).unwrap_or(i64::MAX));
    Json::object([
        ("memory", form.long(limits.memory)),
        ("memorySwap", form.long(limits.memory_swap)),
        ("cpuShares", unsigned(limits.cpu_shares)),
        ("cpuPeriod", unsigned(limits.cpu_period)),
        ("cpuQuota", form.long(limits.cpu_quota)),
        ("cpusetCpus", (&limits.cpuset_cpus).into()),
        ("cpusetMems", (&limits.cpuset_mems).into()),
    ])
}

fn source(form: Form, source: &wire::Source) -> Result<Json, DecodeError> {
    let locations = source.locations.iter().map(|(digest, found)| {
        let places = Json::list(found.locations.iter().map(location));
        (digest, Json::object([("locations", places)]))
    });
    let infos = source.infos.iter().map(|text| info(form, text));
    let infos: Vec<Json> = infos.collect::<Result<_, _>>()?;
    Ok(Json::object([
        ("locations", Json::map(locations)),
        ("infos", Json::list(infos)),
    ]))
}

fn info(form: Form, text: &wire::SourceInfo) -> Result<Json, DecodeError> {
    let from = text.definition.as_deref();
    let from = from.map(|encoded| definition(form, encoded)).transpose()?;
    Ok(Json::object([
        ("filename", (&text.filename).into()),
        ("data", base64(&text.data).into()),
        ("definition", from.into()),
        ("language", (&text.language).into()),
    ]))
}

fn location(location: &pb::Location) -> Json {
    let position =
        |at: pb::Position| Json::object([("line", at.line.into()), ("character", at.character.into())]);
    let range = |range: &pb::Range| {
        Json::object([
            ("start", range.start.map(position).into()),
            ("end", range.end.map(position).into()),
        ])
    };
    Json::object([
        ("sourceIndex", location.source_index.into()),
        ("ranges", Json::list(location.ranges.iter().map(range))),
    ])
}

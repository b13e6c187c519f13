//! `json` in templates of what a registry has: buildx indents, and gives fields in the order of its Go structures, which are those
//! of `image-spec/specs-go/v1` (`util/imagetools/printers.go`). Everything else is a map, and in the order of its keys.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Fields as they follow each other, in whichever structure they are.
const ORDER: [&str; 38] = [
    "name",
    "manifest",
    "image",
    "schemaVersion",
    "mediaType",
    "digest",
    "size",
    "manifests",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
    "created",
    "created_by",
    "author",
    "comment",
    "empty_layer",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "config",
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "rootfs",
    "type",
    "diff_ids",
    "history",
];
/// Fields that are maps.
const MAPS: [&str; 4] = ["annotations", "ExposedPorts", "Volumes", "Labels"];
/// What only templates see: methods in Go.
pub(super) const METHODS: [&str; 2] = ["SBOM", "Provenance"];

/// The text of `value`.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, false, &mut out);
    out
}

fn write(value: &Value, depth: usize, is_map: bool, out: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                next(at, depth, out);
                write(item, depth + 1, is_map, out);
            }
            end(depth, ']', out);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let is_map = is_map || !fields.keys().all(|key| is_typed(key));
            out.push('{');
            for (at, (key, value)) in ordered(fields, is_map).into_iter().enumerate() {
                next(at, depth, out);
                // Writing into a string cannot fail.
                let _infallible = write!(out, "{}: ", escaped(&Value::from(key.as_str())));
                write(value, depth + 1, is_map || MAPS.contains(&key.as_str()), out);
            }
            end(depth, '}', out);
        }
        value => out.push_str(&escaped(value)),
    }
}

/// A field of a structure, or a platform in a map of them.
fn is_typed(key: &str) -> bool {
    key.contains('/') || ORDER.contains(&key) || METHODS.contains(&key)
}

fn ordered(fields: &Map<String, Value>, is_map: bool) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = fields
        .iter()
        .filter(|(key, _)| is_map || !METHODS.contains(&key.as_str()))
        .collect();
    let place = |key: &str| ORDER.iter().position(|known| *known == key);
    all.sort_by_key(|(key, _)| (place(key).filter(|_| !is_map), key.as_str()));
    all
}

fn next(at: usize, depth: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    out.push('\n');
    out.push_str(&"  ".repeat(depth + 1));
}

fn end(depth: usize, bracket: char, out: &mut String) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    out.push(bracket);
}

/// As Go writes it: what could end a script of HTML is written by number (`encoding/json`, `HTMLEscape`).
fn escaped(value: &Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

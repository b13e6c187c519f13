//! Documents of registries as Go's programs print them: indented, with fields in the order of their structures, which are those
//! of `image-spec/specs-go/v1` (buildx, `util/imagetools/printers.go`; docker's client, `cli/manifest/types`). Everything else is
//! a map, and in the order of its keys.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Fields as they follow each other, in whichever structure they are.
const ORDER: [&str; 44] = [
    "Ref",
    "Descriptor",
    "Raw",
    "SchemaV2Manifest",
    "OCIManifest",
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
    "layers",
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
const METHODS: [&str; 2] = ["SBOM", "Provenance"];

/// How a document is printed.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// What stands before a field, once for each level.
    pub indent: &'static str,
    /// Entries give their size before their digest (`github.com/docker/distribution`, `manifestlist`).
    pub size_first: bool,
}

/// buildx's, in templates.
pub(crate) const BUILDX: Form = Form {
    indent: "  ",
    size_first: false,
};

/// The text of `value`.
#[must_use]
pub fn text(value: &Value, form: Form) -> String {
    let mut out = String::new();
    write(value, form, 0, false, &mut out);
    out
}

fn write(value: &Value, form: Form, depth: usize, is_map: bool, out: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                next(at, form, depth, out);
                write(item, form, depth + 1, is_map, out);
            }
            end(form, depth, ']', out);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let is_map = is_map || !fields.keys().all(|key| is_typed(key));
            out.push('{');
            for (at, (key, value)) in ordered(fields, form, is_map).into_iter().enumerate() {
                next(at, form, depth, out);
                // Writing into a string cannot fail.
                let _infallible = write!(out, "{}: ", escaped(&Value::from(key.as_str())));
                write(
                    value,
                    form,
                    depth + 1,
                    is_map || MAPS.contains(&key.as_str()),
                    out,
                );
            }
            end(form, depth, '}', out);
        }
        value => out.push_str(&escaped(value)),
    }
}

/// A field of a structure, or a platform in a map of them.
fn is_typed(key: &str) -> bool {
    key.contains('/') || ORDER.contains(&key) || METHODS.contains(&key)
}

fn ordered(fields: &Map<String, Value>, form: Form, is_map: bool) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = fields
        .iter()
        .filter(|(key, _)| is_map || !METHODS.contains(&key.as_str()))
        .collect();
    let place = |key: &str| {
        let key = if key == "size" && form.size_first {
            "digest"
        } else {
            key
        };
        ORDER.iter().position(|known| *known == key)
    };
    all.sort_by_key(|(key, _)| {
        (
            place(key).filter(|_| !is_map),
            form.size_first && !is_map && *key != "size",
            key.as_str(),
        )
    });
    all
}

fn next(at: usize, form: Form, depth: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    out.push('\n');
    out.push_str(&form.indent.repeat(depth + 1));
}

fn end(form: Form, depth: usize, bracket: char, out: &mut String) {
    out.push('\n');
    out.push_str(&form.indent.repeat(depth));
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
